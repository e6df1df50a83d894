//! Sets a journal going: the segment that it goes on with, the engine, its threads.

use super::Journal;
use super::drive::Driver;
use super::options::Options;
use crate::disk::{Disk, DiskLock};
use crate::engine::fill::Limits;
use crate::engine::keychain::Keychain;
use crate::engine::prepare::Prepared;
use crate::engine::replay::Replay;
use crate::engine::{Beginning, Engine, Seams};
use crate::error::Error;
use crate::format::HEADER_BYTES;
use crate::format::batch::BatchBuffer;
use crate::format::clear::{Claimed, Clear, Flags, Opened, Prefix};
use crate::format::frame::RECOVERY_LSN_GAP;
use crate::format::record::{body_crc, encode_record};
use crate::format::segment::SegmentHeader;
use crate::format::value::OpenedReason;
use crate::ids::{AccountTag, Generation, GrantId, HostTag, Lsn, Nonce, OpId, OwnerId};
use crate::log::create::Creation;
use crate::log::recover;
use crate::log::survey::Survey;
use std::sync::Arc;

/// Recovery makes a short segment, so that it need not write many zeros before it serves.
const RECOVERY_SEGMENT_BATCHES: u64 = 4;

/// What both ways of opening know of the process and the machine.
pub(crate) struct Here {
    pub(crate) seams: Seams,
    pub(crate) limits: Limits,
    pub(crate) owner: OwnerId,
    pub(crate) host: HostTag,
    pub(crate) incarnation: u64,
}

pub(crate) fn draw(seams: &Seams) -> Result<[u8; 16], Error> {
    let mut bytes = [0; 16];
    seams
        .entropy
        .fill(&mut bytes)
        .map_err(Error::io("drawing an id", "the system's random generator"))?;
    Ok(bytes)
}

pub(super) fn seams_of(options: &Options, disk: &Arc<dyn Disk>) -> Seams {
    Seams {
        disk: Arc::clone(disk),
        clock: Arc::clone(&options.clock),
        entropy: Arc::clone(&options.entropy),
    }
}

/// Makes a segment that begins with its `Opened`, named and durable, ready to be written to.
pub(crate) fn first_segment(
    here: &Here,
    keychain: &Keychain,
    number: u64,
    opened: Opened,
    lsn: Lsn,
) -> Result<(Prepared, u64), Error> {
    let Here { seams, limits, incarnation, .. } = here;
    let key = keychain.next_segment_key(&*seams.entropy)?;
    let batches = RECOVERY_SEGMENT_BATCHES * u64::from(limits.batch_bytes_max);
    let block_bytes = u64::from(limits.block_bytes);
    let short = (batches + HEADER_BYTES as u64 + 2 * block_bytes).next_multiple_of(block_bytes);
    let now_ms = seams.clock.now_ms();
    let header = SegmentHeader {
        block_bytes: limits.block_bytes,
        batch_bytes_max: limits.batch_bytes_max,
        segment_bytes: short.min(limits.segment_bytes),
        store: keychain.store(),
        nonce: Nonce::from_bytes(draw(seams)?),
        number,
        created_at_ms: now_ms,
        incarnation: *incarnation,
        tag_key: keychain.tag_key(),
        data_keys: key.slots.clone(),
    };
    let record = encode_record(&Clear::Opened(opened), now_ms, 0, &[]);
    let mut batch = BatchBuffer::new(limits.batch_bytes_max);
    batch.push(lsn, &record, body_crc(&record)).expect("an empty batch takes a record");
    let at = HEADER_BYTES as u64;
    let bytes = batch.finish(header.nonce, at, at, limits.block_bytes, &key.mac);
    let creation = Creation::new(Arc::clone(&seams.disk), header, bytes);
    let tail = recover::begin_segment(&seams.disk, creation, bytes.len())?;
    Ok((Prepared::new(tail, key), at + 64))
}

/// All that an engine is made of.
pub(super) struct Begun {
    pub(super) here: Here,
    pub(super) keychain: Keychain,
    pub(super) replay: Replay,
    pub(super) current: (Prepared, u64),
    pub(super) head: Lsn,
    pub(super) next_number: u64,
}

pub(super) fn start(
    options: Options,
    begun: Begun,
    lock: Box<dyn DiskLock>,
) -> Result<Journal, Error> {
    let Begun { here, keychain, replay, current, head, next_number } = begun;
    let note = format!(
        "pid {}\nhost {}\nincarnation {}\n",
        std::process::id(),
        here.seams.disk.host(),
        here.incarnation
    );
    // It informs people; a full disk is no reason not to open [F-8].
    if let Err(error) = lock.write_note(note.as_bytes()) {
        tracing::warn!(target: "tokenwal", kind = ?error.kind(), "the lock's note was not written");
    }
    let (current, opened_at) = current;
    keychain.learn(&replay.keys);
    let mut files = replay.files;
    if files.segments.last().is_none_or(|segment| segment.nonce != current.read.nonce) {
        current.read.note([(head, opened_at)]);
        files.segments.push(Arc::clone(&current.read));
    }
    let engine = Engine::new(Beginning {
        seams: here.seams,
        limits: here.limits,
        keychain,
        host: here.host,
        owner: here.owner,
        incarnation: here.incarnation,
        compaction_percent: options.compaction_percent,
        cache_bytes: options.cache_bytes,
        accounts: replay.accounts,
        files,
        head,
        next_segment_number: next_number,
        current,
        disk_lock: lock,
    });
    let adopt_within_ms = u64::try_from(options.adopt_within.as_millis()).unwrap_or(u64::MAX);
    let driver = Driver::start(Arc::new(engine), options.drive)?;
    Ok(Journal::new(driver, adopt_within_ms))
}

/// Begins a new segment behind what was found: no LSN that may have been given to a record that
/// was lost is given again [F-31], and the journal names its host and its process anew.
pub(super) fn continue_journal(
    here: &Here,
    keychain: &Keychain,
    found: &Survey,
) -> Result<((Prepared, u64), Lsn), Error> {
    let last = found.chain.last().expect("a survey has a segment");
    let header = &last.segment.header;
    let opened = Opened {
        predecessor: header.nonce,
        predecessor_end: last.scan.end,
        predecessor_lsn: found.head,
        host: here.host,
        owner: here.owner,
        incarnation: here.incarnation,
        reason: OpenedReason::Recovered,
    };
    let lsn = found.head.plus(1 + RECOVERY_LSN_GAP);
    let number = found.last_number.saturating_add(1);
    let current = first_segment(here, keychain, number, opened, lsn)?;
    Ok((current, lsn))
}

/// The record that says that another host has taken over.
pub(super) fn claimed(engine: &Engine) -> Clear {
    Clear::Claimed(Claimed {
        prefix: Prefix {
            account: AccountTag::NONE,
            grant: GrantId::NONE,
            generation: Generation::NONE,
            flags: Flags::NONE,
            op: OpId::NONE,
        },
        host: engine.host,
        owner: engine.owner,
        incarnation: engine.incarnation,
    })
}
