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
    /// A disk without space is no failure of the journal: what is in flight has its room, and new
    /// operations are refused until a segment can be made.
    ///
    /// # Errors
    /// Any other failure poisons the journal.
    pub(crate) fn step_prepare(&self) -> Result<bool, Error> {
        let mut preparer = lock(&self.preparer);
        if lock(&self.core).is_over() {
            return Ok(false);
        }
        let Some(mut preparation) = preparer.current.take() else {
            {
                let core = lock(&self.core);
                if !core.wants_segment() {
                    return Ok(false);
                }
            }
            let begun = self.begin_preparation().map_err(|error| self.poison(error))?;
            preparer.current = Some(begun);
            return Ok(true);
        };
        match preparation.creation.step() {
            Ok(false) => preparer.current = Some(preparation),
            Ok(true) => self.finish_preparation(preparation)?,
            Err(error) if is_out_of_space(&error) && !preparation.creation.may_be_named() => {
                tracing::warn!(target: "tokenwal", "no space for another segment");
                self.keychain.give_up(&preparation.key);
                preparation.creation.abandon();
                lock(&self.core).no_room = true;
                self.space.notify_waiters();
                return Ok(false);
            }
            Err(error) => return Err(self.poison(error)),
        }
        Ok(true)
    }

    fn begin_preparation(&self) -> Result<Preparation, Error> {
        let number = self.next_segment_number.fetch_add(1, Ordering::Relaxed);
        let key = self.keychain.next_segment_key(&*self.seams.entropy)?;
        let header = self.plan_segment(number, self.limits.segment_bytes, &key)?;
        let creation = Creation::new(Arc::clone(&self.seams.disk), header, &[]);
        Ok(Preparation { creation, key })
    }

    fn finish_preparation(&self, preparation: Preparation) -> Result<(), Error> {
        let number = preparation.creation.header().number;
        let tail = Tail::open(&*self.seams.disk, number, HEADER_BYTES as u64)
            .map_err(|error| self.poison(error))?;
        let prepared = Prepared::new(tail, preparation.key);
        let mut core = lock(&self.core);
        core.prepared.push_back(prepared);
        core.no_room = false;
        drop(core);
        self.space.notify_waiters();
        self.signal.raise();
        Ok(())
    }
}

/// Says whether an error means that the disk is full.
pub(crate) fn is_out_of_space(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if matches!(
        source.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    ))
}
