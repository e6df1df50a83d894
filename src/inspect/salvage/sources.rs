//! The files that a store can be salvaged from: known by what their headers say, since names may
//! have been swapped, and by the guess at a damaged header where the rest bears it out.

use super::loss::Loss;
use super::patient::Patient;
use crate::disk::{Access, Disk};
use crate::engine::keychain::Keychain;
use crate::engine::table::Gathered;
use crate::error::{Damage, Error};
use crate::format::HEADER_BYTES;
use crate::format::name::{Name, segment_name, snapshot_name};
use crate::format::segment::{SegmentError, SegmentHeader, WrappedKey};
use crate::ids::{Lsn, Nonce, StoreId};
use crate::keys::KeySource;
use crate::log::listing::Listing;
use crate::log::recover::{LSN_MAX, NUMBER_MAX};
use crate::log::scan::{AtDamage, Found, Task, scan};
use crate::log::survey::Segment;
use std::collections::BTreeMap;
use std::io;

/// What claims an LSN above this one was not written by a journal; going on behind it would make a
/// store that does not open.
pub(super) const LSN_MAX_KEPT: u64 = LSN_MAX / 2;

/// All that was found of a store.
#[derive(Debug)]
pub(super) struct Sources {
    dir: String,
    store: StoreId,
    /// In the order of their numbers.
    pub(super) segments: Vec<Segment>,
    /// The newest first.
    pub(super) snapshots: Vec<Gathered>,
    /// Files of which nothing can be read.
    pub(super) losses: Vec<Loss>,
    /// The highest number that a segment's name or header has.
    pub(super) last_number: u64,
}

impl Sources {
    /// Looks at every file of a store.
    ///
    /// # Errors
    /// [`Error::Missing`], a newer format, what the system refuses, and [`Error::Corrupt`] where no
    /// file says which store it is of.
    pub(super) fn read(disk: &dyn Disk) -> Result<Self, Error> {
        let listing = Listing::read(disk)?;
        if listing.is_empty() {
            return Err(Error::Missing { dir: disk.path() });
        }
        let mut sources = Self {
            dir: disk.path(),
            store: StoreId::NONE,
            segments: Vec::new(),
            snapshots: Vec::new(),
            losses: Vec::new(),
            last_number: 0,
        };
        for number in &listing.segments {
            sources.read_segment(disk, *number)?;
        }
        for lsn in listing.snapshots.iter().rev() {
            sources.read_snapshot(disk, *lsn)?;
        }
        sources.choose_store()?;
        sources.sort();
        Ok(sources)
    }

    fn read_segment(&mut self, disk: &dyn Disk, number: u64) -> Result<(), Error> {
        let name = segment_name(number);
        let failed = || Error::io("reading a segment", name.clone());
        let file = Patient::wrap(disk.open(&name, Access::Read).map_err(failed())?);
        let bytes = file.len().map_err(failed())?;
        let mut front = vec![0; HEADER_BYTES];
        let read = file.read_at(0, &mut front).map_err(failed())?;
        front.truncate(read);
        self.note_number(number);
        let (header, guessed) = match SegmentHeader::parse(&front) {
            Ok(header) => (Some(header), false),
            Err(SegmentError::NewerFormat(version))
                if !SegmentHeader::is_damaged_version(&front) =>
            {
                return Err(Error::NewerFormat { file: name, version });
            }
            Err(_) => (SegmentHeader::guess(&front, number, bytes), true),
        };
        let segment = match header {
            Some(header) => Some(Segment::of(name.clone(), header, file).map_err(failed())?),
            None => None,
        };
        let (mut frames, mut gaps) = (0, 0);
        if let Some(segment) = segment.as_ref().filter(|_| guessed) {
            let (header, last_lsn) = (&segment.header, Lsn::NONE);
            let task = Task { header, last_lsn, limit: None, at_damage: AtDamage::GoOn };
            let mut count = |found: Found<'_>| {
                gaps += u64::from(matches!(found, Found::Gap(_)));
                Ok(())
            };
            frames = scan::<io::Error>(&*segment.file, task, &mut count).map_err(failed())?.frames;
        }
        match segment {
            // A guess is borne out by a record. One that is followed by nothing held nothing.
            Some(_) if guessed && frames == 0 && gaps == 0 => {}
            Some(segment) if !guessed || frames > 0 => self.segments.push(segment),
            _ => {
                let what = "the segment's header is gone, and with it what its records depend on";
                self.losses.push(Loss::of(what, &name, 0, bytes));
            }
        }
        Ok(())
    }

    fn read_snapshot(&mut self, disk: &dyn Disk, lsn: Lsn) -> Result<(), Error> {
        match Gathered::read(disk, lsn, &Patient::wrap)? {
            Some(gathered) if lsn.0 <= LSN_MAX_KEPT => self.snapshots.push(gathered),
            _ => {
                let name = snapshot_name(lsn);
                let what = "nothing of the snapshot can be read";
                self.losses.push(Loss::of(what, &name, 0, 0).lsns(Lsn(1), lsn));
            }
        }
        Ok(())
    }

    /// Takes the store that most files are of, and leaves those of others aside.
    fn choose_store(&mut self) -> Result<(), Error> {
        let mut counts: BTreeMap<StoreId, usize> = BTreeMap::new();
        for store in self.stores() {
            *counts.entry(store).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let Some((store, _)) = most else {
            return Err(Error::Corrupt(Box::new(Damage {
                file: self.dir.clone(),
                offset: 0,
                lsn: Lsn::NONE,
                what: "no file here can be read, so there is nothing to salvage",
                accounts: Vec::new(),
            })));
        };
        self.store = store;
        let what = "the file is of another store";
        let losses = &mut self.losses;
        self.segments.retain(|segment| {
            let ours = segment.header.store == store;
            if !ours {
                losses.push(Loss::of(what, &segment.name, 0, segment.header.segment_bytes));
            }
            ours
        });
        self.snapshots.retain(|gathered| {
            let snapshot = &gathered.snapshot;
            let ours = snapshot.header().store == store;
            if !ours {
                losses.push(Loss::of(what, snapshot.name(), 0, snapshot.bytes()));
            }
            ours
        });
        Ok(())
    }

    fn stores(&self) -> impl Iterator<Item = StoreId> {
        let segments = self.segments.iter().map(|segment| segment.header.store);
        segments.chain(self.snapshots.iter().map(|gathered| gathered.snapshot.header().store))
    }

    /// Puts segments in the order of their numbers, and keeps one of each: that with its own name,
    /// if there is one.
    fn sort(&mut self) {
        let is_misnamed = |segment: &Segment| segment.name != segment_name(segment.header.number);
        self.segments.sort_by_key(|segment| (segment.header.number, is_misnamed(segment)));
        let mut seen: Vec<Nonce> = Vec::new();
        self.segments.retain(|segment| {
            let new = !seen.contains(&segment.header.nonce);
            seen.push(segment.header.nonce);
            new
        });
        let numbers: Vec<_> = self.segments.iter().map(|segment| segment.header.number).collect();
        numbers.into_iter().for_each(|number| self.note_number(number));
    }

    /// Takes a number as one that the store has used, unless no store gets there.
    fn note_number(&mut self, number: u64) {
        if number <= NUMBER_MAX / 2 {
            self.last_number = self.last_number.max(number);
        }
    }

    /// Says whether the first segment is the one with which the store was created.
    pub(super) fn begin_at_the_beginning(&self) -> bool {
        let opened = self.segments.first().and_then(Segment::opened);
        opened.is_some_and(|opened| opened.predecessor.is_none())
    }

    /// Returns the files of which nothing can be read, but segments below `covered`, and snapshots
    /// where nothing is missing in their place: neither within what was read up to `last_lsn`, nor
    /// behind it.
    pub(super) fn unreadable(
        &self,
        covered: u64,
        missing: bool,
        last_lsn: Lsn,
    ) -> impl Iterator<Item = Loss> {
        let counts = move |loss: &&Loss| match Name::parse(&loss.file) {
            Name::Segment(number) => number >= covered,
            Name::Snapshot(lsn) => missing || lsn > last_lsn,
            _ => true,
        };
        self.losses.iter().filter(counts).cloned()
    }

    /// Opens the store's keys, from whichever file carries them whole.
    ///
    /// # Errors
    /// [`Error::WrongKey`], or [`Error::Key`] where no file's keys open.
    pub(super) fn unlock(&self, keys: &dyn KeySource) -> Result<Keychain, Error> {
        let mut first_error = None;
        for (file, tag_key) in self.tag_keys() {
            match Keychain::open(self.store, keys.load()?, file, &tag_key) {
                Ok(keychain) => {
                    self.teach(&keychain);
                    return Ok(keychain);
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or(Error::Missing { dir: self.dir.clone() }))
    }

    fn tag_keys(&self) -> impl Iterator<Item = (&str, WrappedKey)> {
        let snapshots = self.snapshots.iter().map(|gathered| {
            let snapshot = &gathered.snapshot;
            (snapshot.name(), snapshot.header().tag_key)
        });
        let segments = self.segments.iter();
        snapshots.chain(segments.map(|segment| (segment.name.as_str(), segment.header.tag_key)))
    }

    /// Lets the keychain know every data key that opens.
    fn teach(&self, keychain: &Keychain) {
        let segments = self.segments.iter().map(|segment| segment.header.data_keys.as_slice());
        let snapshots = self.snapshots.iter().map(|gathered| gathered.snapshot.keys());
        let keys = segments.chain(snapshots).flatten();
        // A damaged one must not hide the same key, whole, in another file.
        keychain.learn(keys.filter(|key| keychain.unwrap("the store", key).is_ok()));
    }
}
