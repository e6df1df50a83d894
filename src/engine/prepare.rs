//! Keeps segments of real zeros ready ahead of use, so that a new one stalls nobody.

use super::Engine;
use super::files::ReadSegment;
use super::keychain::SegmentKey;
use crate::disk::DiskFile;
use crate::error::Error;
use crate::format::HEADER_BYTES;
use crate::format::segment::SegmentHeader;
use crate::ids::Nonce;
use crate::log::create::Creation;
use crate::log::recover::Tail;
use crate::seal::{MacKey, Sealer};
use crate::sync::lock;
use rustix::io::Errno;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A segment that has its name and may be written to.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) tail: Tail,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) mac: MacKey,
    pub(crate) read: Arc<ReadSegment>,
}

impl Prepared {
    pub(crate) fn new(tail: Tail, key: SegmentKey) -> Self {
        let read = Arc::new(ReadSegment::new(&tail.segment));
        Self { tail, sealer: key.sealer, mac: key.mac, read }
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        self.tail.segment.header.segment_bytes
    }

    pub(crate) fn file(&self) -> &dyn DiskFile {
        &*self.tail.file
    }
}

/// A segment that is being made.
#[derive(Debug)]
pub(crate) struct Preparation {
    creation: Creation,
    key: SegmentKey,
}

/// What preparing is at.
#[derive(Debug, Default)]
pub(crate) struct Preparer {
    current: Option<Preparation>,
}

impl Engine {
    /// Plans a segment with this number.
    pub(crate) fn plan_segment(
        &self,
        number: u64,
        segment_bytes: u64,
        key: &SegmentKey,
    ) -> Result<SegmentHeader, Error> {
        let mut nonce = [0; 16];
        self.seams
            .entropy
            .fill(&mut nonce)
            .map_err(Error::io("drawing a nonce", "the system's random generator"))?;
        Ok(SegmentHeader {
            block_bytes: self.limits.block_bytes,
            batch_bytes_max: self.limits.batch_bytes_max,
            segment_bytes,
            store: self.keychain.store(),
            nonce: Nonce::from_bytes(nonce),
            number,
            created_at_ms: self.seams.clock.now_ms(),
            incarnation: self.incarnation,
            tag_key: self.keychain.tag_key(),
            data_keys: key.slots.clone(),
        })
    }

    /// Does one step of preparing a segment, if one is wanted; says whether it did something.
    ///
    /// A shortage, of space or of descriptors, is no failure of the journal: what is in flight has
    /// its room, and new operations are refused until a segment can be made.
    ///
    /// # Errors
    /// Any other failure poisons the journal.
    pub(crate) fn step_prepare(&self) -> Result<bool, Error> {
        let mut preparer = lock(&self.preparer);
        if lock(&self.core).is_over() {
            return Ok(false);
        }
        let Some(mut preparation) = preparer.current.take() else {
            let (wanted, short) = {
                let core = lock(&self.core);
                (core.wants_segment(), core.no_room)
            };
            if !wanted || (short && !self.has_space_for_segment()) {
                return Ok(false);
            }
            let begun = self.begin_preparation().map_err(|error| self.poison(error))?;
            preparer.current = Some(begun);
            return Ok(true);
        };
        match preparation.creation.step() {
            Ok(false) => preparer.current = Some(preparation),
            Ok(true) => {
                let number = preparation.creation.header().number;
                match Tail::open(&*self.seams.disk, number, HEADER_BYTES as u64) {
                    Ok(tail) => self.take_prepared(Prepared::new(tail, preparation.key)),
                    Err(error) if is_shortage(&error) => {
                        // It has its name, so it is the next one, as soon as it can be opened.
                        preparer.current = Some(preparation);
                        return Ok(self.note_shortage());
                    }
                    Err(error) => return Err(self.poison(error)),
                }
            }
            Err(error) if is_shortage(&error) && !preparation.creation.may_be_named() => {
                self.keychain.give_up(&preparation.key);
                preparation.creation.abandon();
                return Ok(self.note_shortage());
            }
            Err(error) => return Err(self.poison(error)),
        }
        Ok(true)
    }

    /// Says whether the last try found no room for a segment.
    pub(crate) fn found_no_room(&self) -> bool {
        lock(&self.core).no_room
    }

    /// Says whether it is worth trying again after a shortage.
    fn has_space_for_segment(&self) -> bool {
        // Where the disk does not say, trying tells.
        self.seams.disk.free_bytes().map_or(true, |free| free >= self.limits.segment_bytes)
    }

    /// Lets callers know that there is no segment to come for now. Nothing was done.
    fn note_shortage(&self) -> bool {
        if !std::mem::replace(&mut lock(&self.core).no_room, true) {
            tracing::warn!(target: "tokenwal", "no room for another segment");
        }
        self.space.notify_waiters();
        false
    }

    fn begin_preparation(&self) -> Result<Preparation, Error> {
        let number = self.next_segment_number.fetch_add(1, Ordering::Relaxed);
        let key = self.keychain.next_segment_key(&*self.seams.entropy)?;
        let header = self.plan_segment(number, self.limits.segment_bytes, &key)?;
        let creation = Creation::new(Arc::clone(&self.seams.disk), header, &[]);
        Ok(Preparation { creation, key })
    }

    fn take_prepared(&self, prepared: Prepared) {
        let mut core = lock(&self.core);
        core.prepared.push_back(prepared);
        (core.no_room, core.room_wanted) = (false, false);
        drop(core);
        self.space.notify_waiters();
        self.signal.raise();
    }
}

/// Says whether an error means that the disk is full.
pub(crate) fn is_out_of_space(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if matches!(
        source.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    ))
}

/// Says whether an error means that something has run out which may be had later: space, memory,
/// or file descriptors, which have no kind of their own.
fn is_shortage(error: &Error) -> bool {
    let Error::Io { source, .. } = error else { return false };
    let descriptors = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    is_out_of_space(error)
        || source.kind() == io::ErrorKind::OutOfMemory
        || source.raw_os_error().is_some_and(|code| descriptors.contains(&code))
}
