//! The segments that are there: opened, their headers checked, and in the order of their numbers.
//!
//! Implements journal-format.md, sections 4 and 8, as far as one need not read a segment to its end.
//! Which of them are the journal is decided in `survey`.

use super::scan::peek_opened;
use super::survey::Start;
use crate::disk::{Access, Disk, DiskFile};
use crate::error::{Damage, Error};
use crate::format::HEADER_BYTES;
use crate::format::clear::Opened;
use crate::format::name::segment_name;
use crate::format::segment::{SegmentError, SegmentHeader};
use crate::ids::Lsn;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// A segment that was opened for reading.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Its first frame, if that is a valid one.
    pub(super) opened: Option<(Lsn, Opened)>,
}

impl Segment {
    /// Takes a file with a header that was read, or guessed at, and reads its `Opened`.
    pub(crate) fn of(
        name: String,
        header: SegmentHeader,
        file: Arc<dyn DiskFile>,
    ) -> std::io::Result<Self> {
        let opened = peek_opened(&*file, &header)?;
        Ok(Self { name, header, file, opened })
    }

    /// Returns the LSN of its first record, if that can be read.
    pub(crate) fn first_lsn(&self) -> Lsn {
        self.opened.map(|(lsn, _)| lsn).unwrap_or_default()
    }

    /// Returns its `Opened`, if its first frame is a valid one.
    pub(crate) fn opened(&self) -> Option<Opened> {
        self.opened.map(|(_, opened)| opened)
    }
}

/// Opens a segment and reads its header and `Opened`.
pub(crate) fn open_segment(disk: &dyn Disk, number: u64) -> Result<Segment, Error> {
    let segment = open_any(disk, number)?;
    if segment.header.number != number {
        let what = "the file carries the number of another segment";
        return Err(corrupt(&segment.name, 0, Lsn::NONE, what));
    }
    Ok(segment)
}

/// As [`open_segment`], whatever number the header has: a file may have the name of another.
pub(crate) fn open_any(disk: &dyn Disk, number: u64) -> Result<Segment, Error> {
    let name = segment_name(number);
    let io = |doing: &'static str| Error::io(doing, name.clone());
    let file = disk.open(&name, Access::Read).map_err(io("opening a segment"))?;
    let mut bytes = vec![0; HEADER_BYTES];
    let read = file.read_at(0, &mut bytes).map_err(io("reading a segment's header"))?;
    let header = SegmentHeader::parse(bytes.get(..read).unwrap_or_default())
        .map_err(|error| header_error(&name, error))?;
    Segment::of(name.clone(), header, file).map_err(io("reading a segment"))
}

fn header_error(name: &str, error: SegmentError) -> Error {
    match error {
        SegmentError::NewerFormat(version) => Error::NewerFormat { file: name.to_owned(), version },
        SegmentError::NotASegment => corrupt(name, 0, Lsn::NONE, "the file is not a segment"),
        SegmentError::BadChecksum => {
            corrupt(name, 0, Lsn::NONE, "the segment's header has a wrong checksum")
        }
        SegmentError::BadField(_) => {
            corrupt(name, 0, Lsn::NONE, "the segment's header is malformed")
        }
    }
}

/// The segments that a snapshot does not cover, by number.
pub(super) struct Present {
    by_number: BTreeMap<u64, Segment>,
}

impl Present {
    /// Opens all of them: each has a valid header and is of the one store [F-51].
    pub(super) fn open(disk: &dyn Disk, numbers: &[u64]) -> Result<Self, Error> {
        let mut by_number = BTreeMap::<u64, Segment>::new();
        for number in numbers {
            let segment = open_segment(disk, *number)?;
            let store = by_number.values().next().map(|other| other.header.store);
            if store.is_some_and(|store| store != segment.header.store) {
                return Err(corrupt(&segment.name, 0, Lsn::NONE, "the file is of another store"));
            }
            by_number.insert(*number, segment);
        }
        Ok(Self { by_number })
    }

    /// Returns the chain's first segment [F-24].
    pub(super) fn first(&self, dir: &str, start: &Start) -> Result<&Segment, Error> {
        let found = match start.tail {
            Some((nonce, number, store)) => self
                .by_number
                .get(&number)
                .filter(|segment| segment.header.nonce == nonce && segment.header.store == store),
            None => self.by_number.values().next().filter(|segment| {
                segment.opened.is_some_and(|(_, opened)| opened.predecessor.is_none())
            }),
        };
        found.ok_or_else(|| {
            let number = start.tail.map(|(_, number, _)| number).unwrap_or_default();
            let (file, what) = match start.tail {
                Some(_) => (segment_name(number), "the segment that the snapshot names is missing"),
                None => (dir.to_owned(), "the journal's first segment is missing or another"),
            };
            corrupt(&file, 0, start.lsn.plus(1), what)
        })
    }

    /// Returns the segments of higher numbers, in order.
    pub(super) fn behind(&self, number: u64) -> impl Iterator<Item = &Segment> {
        let from = (Bound::Excluded(number), Bound::Unbounded);
        self.by_number.range(from).map(|(_, segment)| segment)
    }

    /// Returns the next segment that begins with a valid `Opened`, and that [F-25].
    pub(super) fn follower(&self, segment: &Segment) -> Option<(&Segment, Opened)> {
        self.behind(segment.header.number)
            .find_map(|next| next.opened.map(|(_, opened)| (next, opened)))
    }

    /// Returns all of them, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Segment> {
        self.by_number.values()
    }

    /// Returns the highest number.
    pub(super) fn last_number(&self) -> u64 {
        self.by_number.keys().next_back().copied().unwrap_or_default()
    }
}

pub(super) fn corrupt(file: &str, offset: u64, lsn: Lsn, what: &'static str) -> Error {
    Error::Corrupt(Box::new(damage(file, offset, lsn, what)))
}

pub(super) fn damage(file: &str, offset: u64, lsn: Lsn, what: &'static str) -> Damage {
    Damage { file: file.to_owned(), offset, lsn, what, accounts: Vec::new() }
}
