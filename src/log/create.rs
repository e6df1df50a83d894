//! Makes a segment: zeros written as real data, the header, a sync, the name, the directory's sync.
//!
//! Implements journal-format.md, section 13, "Prepare". It goes in steps, so that a thread can pace
//! it and a simulator can crash between any two. A segment that begins the journal or follows a
//! recovery carries its `Opened` before it has its name; so a named segment is either in the chain
//! or has no batch at all.

use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::format::HEADER_BYTES;
use crate::format::name::{segment_name, temporary_name};
use crate::format::segment::SegmentHeader;
use std::io;
use std::sync::Arc;

/// How many zeros are written in one step.
const CHUNK_BYTES: usize = 1 << 20;

/// How many zeros are written between two syncs, so that a large one does not hold up the journal.
const SYNC_EVERY_BYTES: u64 = 4 << 20;

/// A segment in the making.
#[derive(Debug)]
pub(crate) struct Creation {
    disk: Arc<dyn Disk>,
    header: SegmentHeader,
    /// What stands at the front of the file: the header, and the first batch if there is one.
    front: Vec<u8>,
    stage: Stage,
    /// It may have its name already, whatever a failed step said.
    may_be_named: bool,
}

#[derive(Debug)]
enum Stage {
    Create,
    Zeros { file: Arc<dyn DiskFile>, offset: u64 },
    Front { file: Arc<dyn DiskFile> },
    Sync { file: Arc<dyn DiskFile> },
    Rename,
    SyncDirectory,
    Done,
}

impl Creation {
    /// Plans a segment; `first_batch` is padded to blocks, or empty.
    pub(crate) fn new(disk: Arc<dyn Disk>, header: SegmentHeader, first_batch: &[u8]) -> Self {
        let mut front = header.encode();
        front.extend_from_slice(first_batch);
        Self { disk, header, front, stage: Stage::Create, may_be_named: false }
    }

    pub(crate) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Says whether the segment may have its name. Then it can no longer be given up in favour of
    /// another one: a `Sealed` names the next higher number that is there [F-26].
    pub(crate) fn may_be_named(&self) -> bool {
        self.may_be_named
    }

    /// Does one step and says whether the segment is there, named and durable.
    ///
    /// # Errors
    /// Whatever the disk says. What was begun is a temporary file, which [`Creation::abandon`]
    /// removes; a later step after an error is refused, since a failed sync must not be repeated.
    pub(crate) fn step(&mut self) -> Result<bool, Error> {
        let name = segment_name(self.header.number);
        let temporary = temporary_name(&name);
        let io = |doing: &'static str| Error::io(doing, temporary.clone());
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Create => {
                let file = self.disk.create(&temporary).map_err(io("creating a segment"))?;
                self.stage = Stage::Zeros { file, offset: self.front.len() as u64 };
            }
            Stage::Zeros { file, offset } => {
                let next = self.write_zeros(&*file, offset).map_err(io("preparing a segment"))?;
                self.stage = if next < self.header.segment_bytes {
                    Stage::Zeros { file, offset: next }
                } else {
                    Stage::Front { file }
                };
            }
            Stage::Front { file } => {
                file.write_at(0, &self.front).map_err(io("writing a segment's header"))?;
                self.stage = Stage::Sync { file };
            }
            Stage::Sync { file } => {
                file.sync().map_err(io("syncing a segment"))?;
                self.stage = Stage::Rename;
            }
            Stage::Rename => {
                self.may_be_named = true;
                self.disk.rename(&temporary, &name).map_err(io("naming a segment"))?;
                self.stage = Stage::SyncDirectory;
            }
            Stage::SyncDirectory => {
                self.disk
                    .sync_dir()
                    .map_err(Error::io("syncing the directory", self.disk.path()))?;
            }
            Stage::Done => {}
        }
        Ok(matches!(self.stage, Stage::Done))
    }

    fn write_zeros(&self, file: &dyn DiskFile, offset: u64) -> io::Result<u64> {
        let left = self.header.segment_bytes.saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        file.write_at(offset, &vec![0; length])?;
        let next = offset + length as u64;
        if offset / SYNC_EVERY_BYTES != next / SYNC_EVERY_BYTES {
            file.sync()?;
        }
        Ok(next)
    }

    /// Does all steps.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        while !self.step()? {}
        Ok(())
    }

    /// Removes what was begun, as far as that is possible; a leftover is removed by recovery.
    pub(crate) fn abandon(self) {
        let _ = self.disk.remove(&temporary_name(&segment_name(self.header.number)));
    }
}

const _: () = assert!(CHUNK_BYTES.is_multiple_of(HEADER_BYTES));
