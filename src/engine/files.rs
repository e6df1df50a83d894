//! The journal's files as something to read records from, by their LSN.
//!
//! A record up to the snapshot's LSN stands in its account's entry there; a later one in a segment,
//! whose index knows where a frame begins every few KiB. Files that compaction has removed stay
//! readable for whoever still holds them.

use super::table::Snapshot;
use crate::disk::DiskFile;
use crate::error::{Damage, Error};
use crate::format::clear::Clear;
use crate::format::frame::{FrameMiss, read_frame};
use crate::format::record::Record;
use crate::ids::{AccountTag, Lsn, Nonce};
use crate::log::survey::Segment;
use crate::sync::{read_lock, write_lock};
use std::sync::{Arc, RwLock};

/// How much is read to find a record: the stride of the index and a record of usual size.
const READ_BYTES: usize = 8192;

/// How much is read at once to walk over records.
const WALK_BYTES: usize = 64 << 10;

/// Bytes of a record, as they stand in frames and snapshots.
pub(crate) type RecordBytes = Arc<[u8]>;

/// A segment to read from.
#[derive(Debug)]
pub(crate) struct ReadSegment {
    pub(crate) name: String,
    pub(crate) number: u64,
    pub(crate) nonce: Nonce,
    /// The file's length.
    pub(crate) bytes: u64,
    file: Arc<dyn DiskFile>,
    /// Where some frames begin: the first of each batch, and then one every few KiB.
    index: RwLock<Vec<(Lsn, u32)>>,
}

impl ReadSegment {
    pub(crate) fn new(segment: &Segment) -> Self {
        Self {
            name: segment.name.clone(),
            number: segment.header.number,
            nonce: segment.header.nonce,
            bytes: segment.header.segment_bytes,
            file: Arc::clone(&segment.file),
            index: RwLock::default(),
        }
    }

    /// Notes where a frame begins; they come in order.
    pub(crate) fn note(&self, points: impl IntoIterator<Item = (Lsn, u64)>) {
        let mut index = write_lock(&self.index);
        for (lsn, offset) in points {
            index.push((lsn, u32::try_from(offset).unwrap_or(u32::MAX)));
        }
    }

    /// Notes a frame if the last that was noted is a stride away.
    pub(crate) fn note_sparsely(&self, lsn: Lsn, offset: u64, begins_batch: bool) {
        let stride = {
            let index = read_lock(&self.index);
            index.last().map(|(_, last)| offset.saturating_sub(u64::from(*last)))
        };
        if begins_batch || stride.is_none_or(|stride| stride >= 4096) {
            self.note([(lsn, offset)]);
        }
    }

    fn first_lsn(&self) -> Option<Lsn> {
        read_lock(&self.index).first().map(|(lsn, _)| *lsn)
    }

    fn last_point_before(&self, lsn: Lsn) -> Option<u64> {
        let index = read_lock(&self.index);
        let at = index.partition_point(|(first, _)| *first <= lsn);
        index.get(at.checked_sub(1)?).map(|(_, offset)| u64::from(*offset))
    }

    fn read(&self, lsn: Lsn) -> Result<Option<RecordBytes>, Error> {
        let Some(mut offset) = self.last_point_before(lsn) else { return Ok(None) };
        let mut bytes = vec![0; READ_BYTES];
        let mut start = offset;
        let mut filled = self.fill(start, &mut bytes)?;
        loop {
            let skip = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
            let rest = bytes.get(skip..filled).unwrap_or_default();
            match read_frame(rest, self.nonce, offset) {
                Ok(frame) if frame.record.lsn() == lsn => {
                    return Ok(Some(frame.record.bytes.into()));
                }
                Ok(frame) if frame.record.lsn() < lsn => offset = frame.end(),
                Ok(_) => return Ok(None),
                // The frame reaches beyond what was read: read again from its start, enough.
                Err(FrameMiss::Short(needed)) if start < offset || needed > filled => {
                    bytes.resize(needed.max(READ_BYTES), 0);
                    start = offset;
                    filled = self.fill(start, &mut bytes)?;
                    if filled < needed {
                        return Err(self.damaged(offset, lsn));
                    }
                }
                Err(_) => return Err(self.damaged(offset, lsn)),
            }
        }
    }

    /// Hears the records that begin at one point of the index, up to the next point, or to where the
    /// journal's records end. A window that holds what was read last is passed from point to point.
    fn walk_from(
        &self,
        point: (Lsn, u32),
        next: Option<Lsn>,
        through: Lsn,
        window: &mut Window,
        hear: &mut dyn FnMut(&Record<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut due, mut offset) = (point.0, u64::from(point.1));
        while due <= through && next.is_none_or(|next| due < next) {
            match read_frame(window.behind(offset), self.nonce, offset) {
                Ok(frame) if frame.record.lsn() == due => {
                    hear(&frame.record)?;
                    (due, offset) = (due.plus(1), frame.end());
                }
                Err(FrameMiss::Short(needed)) if window.is_short(offset, needed) => {
                    window.bytes.resize(needed.max(WALK_BYTES), 0);
                    let filled = self.fill(offset, &mut window.bytes)?;
                    window.bytes.truncate(filled);
                    window.start = offset;
                    if filled < needed {
                        return Err(self.damaged(offset, due));
                    }
                }
                // Behind the last batch stands nothing, or nothing that counts.
                _ if next.is_none() => return Ok(()),
                _ => return Err(self.damaged(offset, due)),
            }
        }
        Ok(())
    }

    /// Hears all its records, in order, up to and with an LSN.
    fn walk(
        &self,
        through: Lsn,
        hear: &mut dyn FnMut(&Record<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let index = read_lock(&self.index).clone();
        let mut window = Window::default();
        for (at, point) in index.iter().enumerate() {
            let next = index.get(at + 1).map(|(lsn, _)| *lsn);
            self.walk_from(*point, next, through, &mut window, hear)?;
        }
        Ok(())
    }

    /// Returns the last LSN before it, as its `Opened` says; none where it has no record yet.
    fn predecessor_lsn(&self) -> Result<Option<Lsn>, Error> {
        let Some(first) = self.first_lsn() else { return Ok(None) };
        let Some(bytes) = self.read(first)? else { return Ok(None) };
        match parse(&bytes)?.clear {
            Clear::Opened(opened) => Ok(Some(opened.predecessor_lsn)),
            _ => Ok(None),
        }
    }

    fn fill(&self, offset: u64, bytes: &mut [u8]) -> Result<usize, Error> {
        self.file.read_at(offset, bytes).map_err(Error::io("reading a record", self.name.clone()))
    }

    fn damaged(&self, offset: u64, lsn: Lsn) -> Error {
        Error::Corrupt(Box::new(Damage {
            file: self.name.clone(),
            offset,
            lsn,
            what: "a record that was read before is no longer there",
            accounts: Vec::new(),
        }))
    }
}

/// Bytes of a segment that were read last.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn behind(&self, offset: u64) -> &[u8] {
        let skip = offset.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| self.bytes.get(skip..)).unwrap_or_default()
    }

    fn is_short(&self, offset: u64, needed: usize) -> bool {
        self.behind(offset).len() < needed
    }
}

/// A picture of the files at one time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    /// In the order of their LSNs.
    pub(crate) segments: Vec<Arc<ReadSegment>>,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
}

impl Files {
    /// Hears the records of all segments, in order, up to and with an LSN.
    pub(crate) fn walk(
        &self,
        through: Lsn,
        hear: &mut dyn FnMut(&Record<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (at, segment) in self.segments.iter().enumerate() {
            let behind = self.segments.get(at + 1..).unwrap_or_default();
            let ends = behind.iter().find_map(|next| next.predecessor_lsn().transpose());
            let ends = ends.transpose()?.unwrap_or(through);
            segment.walk(ends.min(through), hear)?;
        }
        Ok(())
    }

    /// Reads a record, which stands under one of `accounts` if it is in the snapshot.
    pub(crate) fn read(
        &self,
        lsn: Lsn,
        mut accounts: impl Iterator<Item = AccountTag>,
    ) -> Result<RecordBytes, Error> {
        let found = match self.snapshot.as_ref().filter(|snapshot| lsn <= snapshot.lsn()) {
            Some(snapshot) => accounts
                .find_map(|account| snapshot.record(account, lsn).transpose())
                .transpose()?,
            None => {
                // A segment that was rolled over to and never written to has no first LSN, so
                // there is no order to search by halves.
                let holds = |segment: &&Arc<ReadSegment>| {
                    segment.first_lsn().is_some_and(|first| first <= lsn)
                };
                match self.segments.iter().rev().find(holds) {
                    Some(segment) => segment.read(lsn)?,
                    None => None,
                }
            }
        };
        found.ok_or_else(|| {
            Error::Corrupt(Box::new(Damage {
                file: String::from("the store"),
                offset: 0,
                lsn,
                what: "a record that the state depends on cannot be found",
                accounts: accounts.take(1).collect(),
            }))
        })
    }
}

/// Parses the bytes of a record that was checked when it was read.
pub(crate) fn parse(bytes: &RecordBytes) -> Result<Record<'_>, Error> {
    Record::parse(bytes).map_err(|_| {
        Error::Corrupt(Box::new(Damage {
            file: String::from("the store"),
            offset: 0,
            lsn: Lsn::NONE,
            what: "a record is malformed",
            accounts: Vec::new(),
        }))
    })
}
