//! Creates and opens stores.
//!
//! The order matters: keys are loaded and checked before anything is recovered, the lock is taken
//! before anything is read, and nothing is written before the verdict.

use super::drive::Patience;
use super::launch::{Begun, Here, continue_journal, draw, first_segment, seams_of, start};
use super::options::Options;
use super::{Blocking, Journal, Report};
use crate::disk::{Disk, DiskLock, RealDisk, Refusal};
use crate::engine::fill::Limits;
use crate::engine::keychain::Keychain;
use crate::engine::replay::Replay;
use crate::engine::table::Snapshot;
use crate::error::Error;
use crate::format::clear::Opened;
use crate::format::name::snapshot_name;
use crate::format::segment::WrappedKey;
use crate::format::value::OpenedReason;
use crate::ids::{Lsn, Nonce, OwnerId, StoreId};
use crate::log::Verdict;
use crate::log::listing::Listing;
use crate::log::recover;
use crate::log::survey::{Beside, Start, open_segment, survey};
use std::io;
use std::path::Path;
use std::sync::Arc;

pub(crate) fn create(options: Options, dir: &Path) -> Result<(Journal, Report), Error> {
    let limits = options.limits()?;
    let disk = match options.disk.clone() {
        Some(disk) => disk,
        None => real(RealDisk::create(dir), dir)?,
    };
    let lock = take_lock(&*disk, &options)?;
    if !Listing::read(&*disk)?.is_empty() {
        return Err(Error::Exists { dir: disk.path() });
    }
    begin_store(options, limits, disk, lock)
}

pub(crate) fn open(options: Options, dir: &Path) -> Result<(Journal, Report), Error> {
    let limits = options.limits()?;
    let disk = match options.disk.clone() {
        Some(disk) => disk,
        None => real(RealDisk::open(dir), dir)?,
    };
    if Listing::read(&*disk)?.is_empty() {
        return Err(Error::Missing { dir: disk.path() });
    }
    let lock = take_lock(&*disk, &options)?;
    open_store(options, limits, disk, lock)
}

pub(crate) fn open_or_create(options: Options, dir: &Path) -> Result<(Journal, Report), Error> {
    let limits = options.limits()?;
    let disk = match options.disk.clone() {
        Some(disk) => disk,
        None => real(RealDisk::create(dir), dir)?,
    };
    let lock = take_lock(&*disk, &options)?;
    match Listing::read(&*disk)?.is_empty() {
        true => begin_store(options, limits, disk, lock),
        false => open_store(options, limits, disk, lock),
    }
}

/// Says what is wrong with a directory that was refused.
pub(crate) fn real(disk: io::Result<RealDisk>, dir: &Path) -> Result<Arc<dyn Disk>, Error> {
    let dir = dir.display().to_string();
    match disk {
        Ok(disk) => Ok(Arc::new(disk)),
        Err(error) => Err(refused(&dir, error)),
    }
}

/// Tells a refusal of the directory from a failure of the system.
pub(crate) fn refused(dir: &str, error: io::Error) -> Error {
    match error.downcast::<Refusal>() {
        Ok(Refusal::Missing { .. }) => Error::Missing { dir: dir.to_owned() },
        Ok(source) => Error::Refused { dir: dir.to_owned(), source },
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            Error::Missing { dir: dir.to_owned() }
        }
        Err(source) => Error::io("opening the directory", dir)(source),
    }
}

/// Takes the lock, and waits for it as long as the options say.
fn take_lock(disk: &dyn Disk, options: &Options) -> Result<Box<dyn DiskLock>, Error> {
    let io = || Error::io("taking the lock", disk.path());
    let mut waited = Patience::new(options.wait_for_lock);
    loop {
        match disk.try_lock() {
            Ok(Some(lock)) => return Ok(lock),
            Ok(None) if waited.wait() => {}
            Ok(None) => {
                let note = disk.lock_note().unwrap_or_default();
                return Err(Error::Locked { dir: disk.path(), pid: pid_of(&note) });
            }
            Err(error) => return Err(io()(error)),
        }
    }
}

/// Reads the owner's process id from what it wrote into the lock file [F-8].
pub(crate) fn pid_of(note: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(note).ok()?;
    text.lines().find_map(|line| line.strip_prefix("pid ")?.trim().parse().ok())
}

fn begin_store(
    options: Options,
    limits: Limits,
    disk: Arc<dyn Disk>,
    lock: Box<dyn DiskLock>,
) -> Result<(Journal, Report), Error> {
    let seams = seams_of(&options, &disk);
    let keyring = options.keys.load()?;
    let store = StoreId::from_bytes(draw(&seams)?);
    let keychain = Keychain::create(store, keyring, &*seams.entropy)?;
    let owner = OwnerId::from_bytes(draw(&seams)?);
    let host = keychain.tagger().host(&disk.host());
    let here = Here { seams, limits, owner, host, incarnation: 1 };
    clear_temporaries(&*disk)?;
    let opened = Opened {
        predecessor: Nonce::NONE,
        predecessor_end: 0,
        predecessor_lsn: Lsn::NONE,
        host,
        owner,
        incarnation: 1,
        reason: OpenedReason::Created,
    };
    let first = first_segment(&here, &keychain, 1, opened, Lsn(1))?;
    let replay = Replay::new(None, None);
    let report = Report::created(store);
    let begun = Begun { here, keychain, replay, current: first, head: Lsn(1), next_number: 2 };
    let journal = start(options, begun, lock)?;
    tracing::info!(target: "tokenwal", "created");
    Ok((journal, report))
}

/// Removes what an interrupted creation left behind.
fn clear_temporaries(disk: &dyn Disk) -> Result<(), Error> {
    for name in Listing::read(disk)?.temporaries {
        disk.remove(&name).map_err(Error::io("removing a leftover", name.clone()))?;
    }
    Ok(())
}

fn open_store(
    options: Options,
    limits: Limits,
    disk: Arc<dyn Disk>,
    lock: Box<dyn DiskLock>,
) -> Result<(Journal, Report), Error> {
    let span = tracing::info_span!(target: "tokenwal", "open");
    let _entered = span.enter();
    let seams = seams_of(&options, &disk);
    let keyring = options.keys.load()?;
    let listing = Listing::read(&*disk)?;
    let snapshot = newest_snapshot(&*disk, &listing)?;
    let (store, file, tag_key) = identify(&*disk, &listing, snapshot.as_deref())?;
    let mut keychain = Keychain::open(store, keyring, &file, &tag_key)?;
    keychain.renew_tag_key(&*seams.entropy)?;
    let mut replay = Replay::new(snapshot.clone(), None);
    let from = start_of(snapshot.as_deref());
    let found = survey(&*disk, &listing, from, Beside::Nobody, &mut replay)
        .inspect_err(tell_of_a_broken_chain)?;
    tracing::info!(
        target: "tokenwal",
        verdict = ?found.verdict,
        lsn = found.head.0,
        records = replay.records,
        torn_bytes = found.torn_bytes,
        "surveyed"
    );
    recover::admit(&found)?;
    if found.head < options.expected_head {
        let (dir, expected) = (disk.path(), options.expected_head);
        return Err(Error::BehindHead { dir, expected, found: found.head });
    }
    keychain.check(&file, &replay.keys)?;
    keychain.learn(&replay.keys);
    let host = keychain.tagger().host(&disk.host());
    let moved = !replay.host.is_none() && replay.host != host;
    if moved && !options.claim {
        return Err(Error::ForeignHost { dir: disk.path() });
    }
    let leftovers = leftovers(&listing, snapshot.as_deref());
    recover::settle(&*disk, &found, &leftovers)?;
    let owner = OwnerId::from_bytes(draw(&seams)?);
    let here =
        Here { seams, limits, owner, host, incarnation: replay.incarnation.saturating_add(1) };
    let (current, head) = continue_journal(&here, &keychain, &found)?;
    replay.accounts.callbacks.skip(found.head, head);
    tracing::info!(
        target: "tokenwal",
        lsn = head.0,
        segment = current.0.read.number,
        incarnation = here.incarnation,
        "recovered"
    );
    let report = Report::opened(&found, &replay, store, here.incarnation, moved)?;
    let next_number = current.0.read.number.saturating_add(1);
    let begun = Begun { here, keychain, replay, current, head, next_number };
    let journal = start(options, begun, lock)?;
    if moved {
        // Whatever the drive: nobody can step a journal that is not open yet.
        Blocking::new(Journal { inline: true, ..journal.clone() }).claim()?;
    }
    Ok((journal, report))
}

/// Where there is no chain to follow there is no survey, and the verdict is known all the same.
fn tell_of_a_broken_chain(error: &Error) {
    if let Error::Corrupt(damage) = error {
        tracing::error!(
            target: "tokenwal",
            verdict = ?Verdict::Corrupt,
            file = %damage.file,
            offset = damage.offset,
            "surveyed"
        );
    }
}

/// Opens the newest snapshot, or an older one if that is damaged; whether that is enough the chain
/// of segments will say [F-42].
pub(crate) fn newest_snapshot(
    disk: &dyn Disk,
    listing: &Listing,
) -> Result<Option<Arc<Snapshot>>, Error> {
    let mut first_error = None;
    for lsn in listing.snapshots.iter().rev() {
        match Snapshot::open(disk, *lsn) {
            Ok(snapshot) => {
                let tail = snapshot.header().tail_number;
                if first_error.is_none() || listing.segments.contains(&tail) {
                    return Ok(Some(Arc::new(snapshot)));
                }
            }
            Err(error @ (Error::NewerFormat { .. } | Error::Io { .. })) => return Err(error),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        Some(error) => Err(error),
        None => Ok(None),
    }
}

/// Says which store this is: its id, and a file with the tag key that it carries.
pub(crate) fn identify(
    disk: &dyn Disk,
    listing: &Listing,
    snapshot: Option<&Snapshot>,
) -> Result<(StoreId, String, WrappedKey), Error> {
    if let Some(snapshot) = snapshot {
        let header = snapshot.header();
        return Ok((header.store, snapshot.name().to_owned(), header.tag_key));
    }
    let number = listing.segments.first().copied().unwrap_or_default();
    let segment = open_segment(disk, number)?;
    Ok((segment.header.store, segment.name.clone(), segment.header.tag_key))
}

/// Says where the chain begins.
pub(crate) fn start_of(snapshot: Option<&Snapshot>) -> Start {
    match snapshot {
        Some(snapshot) => {
            let header = snapshot.header();
            let tail = Some((header.tail, header.tail_number, header.store));
            Start { lsn: header.lsn, tail }
        }
        None => Start::default(),
    }
}

fn leftovers(listing: &Listing, snapshot: Option<&Snapshot>) -> Vec<String> {
    let older = listing
        .snapshots
        .iter()
        .filter(|lsn| snapshot.is_some_and(|snapshot| **lsn < snapshot.lsn()));
    listing.temporaries.iter().cloned().chain(older.map(|lsn| snapshot_name(*lsn))).collect()
}
