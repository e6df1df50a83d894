//! Reads a store at one time, although a process may be writing to it, or begin or cease to.
//!
//! A file that vanishes, or a chain that does not fit together, may only mean that a compaction
//! went on between two looks: then everything is read anew. What is as bad in a directory that has
//! not changed meanwhile is bad.

use super::Progress;
use crate::disk::{Access, Disk};
use crate::engine::table::Snapshot;
use crate::error::Error;
use crate::format::frame::Frame;
use crate::format::name::{segment_name, snapshot_name};
use crate::journal::open::{newest_snapshot, start_of};
use crate::log::Verdict;
use crate::log::listing::Listing;
use crate::log::scan::WholeBatch;
use crate::log::survey::{Beside, Segment, Sink, Survey, survey};
use std::cell::RefCell;
use std::sync::Arc;

/// How often a store that keeps changing is read anew.
const ATTEMPTS: usize = 8;

/// What one look at a store found.
#[derive(Debug)]
pub(super) struct Picture<S> {
    pub(super) listing: Listing,
    /// A process had the store open for writing.
    pub(super) live: bool,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// What the journal turned out to be, or why it cannot be followed.
    pub(super) survey: Result<Survey, Error>,
    /// What heard of the records, as far as they were read.
    pub(super) sink: S,
}

impl<S> Picture<S> {
    fn is_sound(&self) -> bool {
        matches!(&self.survey, Ok(found) if found.verdict <= Verdict::Torn)
    }
}

/// Looks at a store until what was found is of one time.
///
/// `begin` makes what hears of the records, for each attempt anew.
///
/// # Errors
/// Only what says nothing about the store's soundness: it is missing or of a newer format, the
/// system refused, the key is wrong. Damage stands in the picture.
pub(super) fn take<S: Sink>(
    disk: &dyn Disk,
    mut begin: impl FnMut(&Listing, Option<&Arc<Snapshot>>) -> Result<S, Error>,
) -> Result<Picture<S>, Error> {
    let mut attempt = 1;
    loop {
        let io = |doing: &'static str| Error::io(doing, disk.path());
        let live = disk.is_locked().map_err(io("looking for the store's owner"))?;
        let listing = Listing::read(disk)?;
        let result = look(disk, &listing, live, &mut begin);
        let steady = live == disk.is_locked().map_err(io("looking for the store's owner"))?
            && (result.as_ref().is_ok_and(Picture::is_sound)
                || listing.same_store(&Listing::read(disk)?));
        if steady || attempt == ATTEMPTS {
            return result;
        }
        attempt += 1;
    }
}

fn look<S: Sink>(
    disk: &dyn Disk,
    listing: &Listing,
    live: bool,
    begin: &mut impl FnMut(&Listing, Option<&Arc<Snapshot>>) -> Result<S, Error>,
) -> Result<Picture<S>, Error> {
    if listing.is_empty() {
        return Err(Error::Missing { dir: disk.path() });
    }
    let (snapshot, damage) = match newest_snapshot(disk, listing) {
        Ok(snapshot) => (snapshot, None),
        Err(error @ Error::Corrupt(_)) => (None, Some(error)),
        Err(error) => return Err(error),
    };
    let mut sink = begin(listing, snapshot.as_ref())?;
    let beside = if live { Beside::Writer } else { Beside::Nobody };
    let survey = match damage {
        // Without its snapshot the journal has no beginning.
        Some(error) => Err(error),
        None => survey(disk, listing, start_of(snapshot.as_deref()), beside, &mut sink),
    };
    match survey {
        Ok(_) | Err(Error::Corrupt(_)) => {
            Ok(Picture { listing: listing.clone(), live, snapshot, survey, sink })
        }
        Err(error) => Err(error),
    }
}

/// Whom to tell how far a look has got, from any of its parts.
pub(super) struct Teller<'p>(RefCell<&'p mut dyn FnMut(Progress)>);

impl<'p> Teller<'p> {
    pub(super) fn new(progress: &'p mut dyn FnMut(Progress)) -> Self {
        Self(RefCell::new(progress))
    }

    pub(super) fn tell(&self, progress: Progress) {
        // One who asks for another look while being told hears nothing of that one.
        if let Ok(mut hear) = self.0.try_borrow_mut() {
            (*hear)(progress);
        }
    }
}

/// Tells how far a pass over the segments has got.
pub(super) struct Watched<'p, 't, S> {
    pub(super) inner: S,
    progress: &'p Teller<'t>,
    /// Of the segments that were read to their end.
    done_bytes: u64,
    total_bytes: u64,
    current_bytes: u64,
}

impl<'p, 't, S> Watched<'p, 't, S> {
    pub(super) fn new(inner: S, total_bytes: u64, progress: &'p Teller<'t>) -> Self {
        Self { inner, progress, done_bytes: 0, total_bytes, current_bytes: 0 }
    }

    fn tell(&mut self, offset: u64) {
        let done_bytes = self.done_bytes.saturating_add(offset);
        self.progress.tell(Progress { done_bytes, total_bytes: self.total_bytes });
    }
}

impl<S: Sink> Sink for Watched<'_, '_, S> {
    fn segment(&mut self, segment: &Segment) -> Result<(), Error> {
        self.done_bytes = self.done_bytes.saturating_add(self.current_bytes);
        self.current_bytes = segment.header.segment_bytes;
        self.tell(0);
        self.inner.segment(segment)
    }

    fn frame(&mut self, frame: &Frame<'_>, begins_batch: bool) -> Result<(), Error> {
        self.inner.frame(frame, begins_batch)
    }

    fn batch(&mut self, batch: &WholeBatch<'_>) -> Result<(), Error> {
        self.tell(batch.offset);
        self.inner.batch(batch)
    }
}

/// Adds up the lengths of a store's files; what cannot be opened counts nothing.
pub(super) fn file_bytes(disk: &dyn Disk, listing: &Listing) -> u64 {
    let segments = listing.segments.iter().map(|number| segment_name(*number));
    let names = segments.chain(listing.snapshots.iter().map(|lsn| snapshot_name(*lsn)));
    let lengths = names.filter_map(|name| disk.open(&name, Access::Read).ok()?.len().ok());
    // Sparse files may be longer, all together, than a number tells.
    lengths.fold(0, u64::saturating_add)
}
