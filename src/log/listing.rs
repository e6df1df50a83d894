//! The names in a store's directory, sorted by what they stand for.

use crate::disk::Disk;
use crate::error::Error;
use crate::format::name::Name;
use crate::ids::Lsn;
use std::collections::BTreeSet;

/// The names in a store's directory, sorted by what they stand for.
#[derive(Debug, Default, Clone)]
pub(crate) struct Listing {
    pub(crate) segments: BTreeSet<u64>,
    pub(crate) snapshots: BTreeSet<Lsn>,
    pub(crate) temporaries: Vec<String>,
    pub(crate) foreign: Vec<String>,
}

impl Listing {
    /// Reads the directory.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Self, Error> {
        let mut listing = Self::default();
        for name in disk.list().map_err(Error::io("listing the directory", disk.path()))? {
            match Name::parse(&name) {
                Name::Segment(number) => {
                    listing.segments.insert(number);
                }
                Name::Snapshot(lsn) => {
                    listing.snapshots.insert(lsn);
                }
                Name::Temporary => listing.temporaries.push(name),
                Name::Lock | Name::Control => {}
                Name::Foreign => listing.foreign.push(name),
            }
        }
        listing.foreign.sort_unstable();
        listing.temporaries.sort_unstable();
        Ok(listing)
    }

    /// Says whether the other one has the same segments and snapshots.
    pub(crate) fn same_store(&self, other: &Self) -> bool {
        (&self.segments, &self.snapshots) == (&other.segments, &other.snapshots)
    }

    /// Says whether there is anything of a store here.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.snapshots.is_empty()
    }
}
