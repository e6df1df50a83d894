//! A disk on which one step of the journal's care is left out, to prove that the suite would
//! notice. Not a feature: a wrapper that only tests know.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::over::{DiskLayer, FileLayer, Over};
use tokenwal::disk::{Access, Disk, DiskFile};
use tokenwal::internals::format::record::Kind;

/// The steps that can be left out (journal-format.md, "Order of syncs").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// None: the disk as it is.
    None,
    /// The sync after a batch; where writes are direct, their durability.
    BatchSync,
    /// That sync where the batch carries `Sealed`: a roll-over's.
    SealedSync,
    /// That sync where the batch carries a marker: a close's, and that of an idle journal.
    MarkerSync,
    /// The sync of a new segment before it gets its name: one that is prepared ahead, or the
    /// first one of a new journal, of a recovery, of a salvage.
    SegmentSync,
    /// The sync of a new snapshot before it gets its name.
    SnapshotSync,
    /// The sync of the directory after a segment got its name.
    DirSyncAfterSegment,
    /// The sync of the directory after a snapshot got its name.
    DirSyncAfterSnapshot,
    /// The sync of the directory after a compaction removed what its snapshot covers.
    DirSyncAfterRetiring,
    /// The sync of the directory by a process that has not changed it.
    DirSyncBeforeServing,
    /// Recovery's rewriting with identical bytes.
    Rewrite,
    /// That of a batch with `Sealed`, which stands in the segment before the last.
    RewriteOfSealed,
    /// The sync after recovery's rewriting.
    RewriteSync,
}

impl Step {
    pub const ALL: [Self; 12] = [
        Self::BatchSync,
        Self::SealedSync,
        Self::MarkerSync,
        Self::SegmentSync,
        Self::SnapshotSync,
        Self::DirSyncAfterSegment,
        Self::DirSyncAfterSnapshot,
        Self::DirSyncAfterRetiring,
        Self::DirSyncBeforeServing,
        Self::Rewrite,
        Self::RewriteOfSealed,
        Self::RewriteSync,
    ];

    /// Says whether it leaves out the sync after a batch like this one.
    fn leaves_out_sync_of(self, batch: &[u8]) -> bool {
        match self {
            Self::BatchSync => true,
            Self::SealedSync => carries(batch, Kind::Sealed),
            Self::MarkerSync => carries(batch, Kind::Marker),
            _ => false,
        }
    }
}

/// Says whether batches carry a record of a kind (journal-format.md, sections 5 and 6).
fn carries(batches: &[u8], kind: Kind) -> bool {
    const MAGIC: &[u8] = b"JWTB";
    let number = |bytes: &[u8], at: usize| -> Option<usize> {
        let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let in_batch = |batch: &[u8]| {
        let end = number(batch, 8).unwrap_or_default();
        let mut at = 64;
        while let (Some(length), Some(found)) = (number(batch, at + 8), number(batch, at + 12))
            && at < end
        {
            if found & 0xffff == usize::from(kind.number()) {
                return true;
            }
            at += 8 + length;
        }
        false
    };
    let starts = (0..batches.len()).step_by(512).map(|at| &batches[at..]);
    starts.filter(|batch| batch.get(4..8) == Some(MAGIC)).any(in_batch)
}

/// A disk that leaves out one step and says that it was done.
#[derive(Debug, Clone)]
pub struct Weakened {
    below: Arc<dyn Disk>,
    skip: Step,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// How often the step was left out, in all lives of the process.
    skipped: Arc<AtomicU64>,
    /// What was done to the directory since its last sync.
    changed: Mutex<Vec<(Change, String)>>,
    /// Whether this process ever changed the directory.
    ever_changed: AtomicBool,
    /// The names of open files, which renames change.
    names: Mutex<HashMap<String, Arc<Mutex<String>>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Renamed,
    Removed,
}

impl Weakened {
    /// Leaves out `skip` on `below`; use a new one for each process, counting in `skipped`.
    pub fn over(below: Arc<dyn Disk>, skip: Step, skipped: Arc<AtomicU64>) -> Arc<dyn Disk> {
        let shared = Arc::new(Shared { skipped, ..Shared::default() });
        Arc::new(Over(Self { below, skip, shared }))
    }

    fn skipped(&self) {
        self.shared.skipped.fetch_add(1, Ordering::Relaxed);
    }

    fn file(&self, name: &str, inner: Arc<dyn DiskFile>, pretend: bool) -> Arc<dyn DiskFile> {
        let name = Arc::new(Mutex::new(name.to_owned()));
        let key = name.lock().unwrap().clone();
        self.shared.names.lock().unwrap().insert(key, name.clone());
        Arc::new(Over(WeakenedFile {
            disk: self.clone(),
            inner,
            name,
            pretend,
            only_rewritten: AtomicBool::new(false),
            unsynced: AtomicBool::new(false),
        }))
    }

    fn leaves_out_dir_sync(&self, changed: &[(Change, String)]) -> bool {
        // A sync that serves another step as well is not this one.
        let only = |done: Change, start: &str| {
            !changed.is_empty()
                && changed.iter().all(|(what, name)| *what == done && name.starts_with(start))
        };
        match self.skip {
            Step::DirSyncAfterSegment => only(Change::Renamed, "segment-"),
            Step::DirSyncAfterSnapshot => only(Change::Renamed, "snapshot-"),
            Step::DirSyncAfterRetiring => only(Change::Removed, ""),
            Step::DirSyncBeforeServing => {
                changed.is_empty() && !self.shared.ever_changed.load(Ordering::Relaxed)
            }
            _ => false,
        }
    }

    fn note(&self, change: Change, name: &str) {
        self.shared.changed.lock().unwrap().push((change, name.to_owned()));
        self.shared.ever_changed.store(true, Ordering::Relaxed);
    }
}

impl DiskLayer for Weakened {
    fn below(&self) -> &dyn Disk {
        &*self.below
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let batches = matches!(self.skip, Step::BatchSync | Step::SealedSync | Step::MarkerSync);
        let pretend = batches && access == Access::Direct;
        let access = if pretend { Access::Write } else { access };
        Ok(self.file(name, self.below.open(name, access)?, pretend))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(name, self.below.create(name)?, false))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.below.rename(from, to)?;
        self.note(Change::Renamed, to);
        let mut names = self.shared.names.lock().unwrap();
        if let Some(name) = names.remove(from) {
            to.clone_into(&mut name.lock().unwrap());
            names.insert(to.to_owned(), name);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.below.remove(name)?;
        self.note(Change::Removed, name);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let changed = std::mem::take(&mut *self.shared.changed.lock().unwrap());
        if self.leaves_out_dir_sync(&changed) {
            self.skipped();
            return Ok(());
        }
        self.below.sync_dir()
    }
}

#[derive(Debug)]
struct WeakenedFile {
    disk: Weakened,
    inner: Arc<dyn DiskFile>,
    name: Arc<Mutex<String>>,
    /// Says that writes are durable, which they are not.
    pretend: bool,
    /// All writes since the last sync were of bytes that stood there already.
    only_rewritten: AtomicBool,
    /// The next sync is to be left out.
    unsynced: AtomicBool,
}

impl WeakenedFile {
    fn is_rewrite(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut there = vec![0; bytes.len()];
        let read = self.inner.read_at(offset, &mut there);
        // Zeros over zeros are preparation, not recovery.
        matches!(read, Ok(read) if read == bytes.len() && there == bytes)
            && bytes.iter().any(|byte| *byte != 0)
    }
}

impl FileLayer for WeakenedFile {
    fn below(&self) -> &dyn DiskFile {
        &*self.inner
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let same = self.is_rewrite(offset, bytes);
        self.only_rewritten.store(same, Ordering::Relaxed);
        let left_out = match self.disk.skip {
            Step::Rewrite => same,
            Step::RewriteOfSealed => same && carries(bytes, Kind::Sealed),
            _ => false,
        };
        if left_out {
            self.disk.skipped();
            return Ok(());
        }
        let unsynced = !same && self.disk.skip.leaves_out_sync_of(bytes);
        self.unsynced.store(unsynced, Ordering::Relaxed);
        self.inner.write_at(offset, bytes)?;
        if self.pretend { self.sync() } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let name = self.name.lock().unwrap().clone();
        let temporary = name.ends_with(".tmp");
        let left_out = match self.disk.skip {
            Step::BatchSync => name.starts_with("segment-") && !temporary,
            Step::SealedSync | Step::MarkerSync => {
                !temporary && self.unsynced.swap(false, Ordering::Relaxed)
            }
            Step::SegmentSync => name.starts_with("segment-") && temporary,
            Step::SnapshotSync => name.starts_with("snapshot-") && temporary,
            Step::RewriteSync => self.only_rewritten.swap(false, Ordering::Relaxed),
            _ => false,
        };
        if left_out {
            self.disk.skipped();
            return Ok(());
        }
        self.inner.sync()
    }

    fn writes_are_durable(&self) -> bool {
        self.pretend || self.inner.writes_are_durable()
    }
}
