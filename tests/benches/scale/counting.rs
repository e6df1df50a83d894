//! A disk that counts what is read from it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokenwal::disk::{Access, Disk, DiskFile, DiskLock};

/// What was read so far.
#[derive(Debug, Default)]
pub struct Reads {
    snapshots: AtomicU64,
    segments: AtomicU64,
}

impl Reads {
    /// Returns the bytes that were read from snapshots.
    pub fn snapshot_bytes(&self) -> u64 {
        self.snapshots.load(Ordering::Relaxed)
    }

    /// Returns the bytes that were read from segments.
    pub fn segment_bytes(&self) -> u64 {
        self.segments.load(Ordering::Relaxed)
    }
}

/// Passes everything on to another disk.
#[derive(Debug)]
pub struct CountingDisk {
    inner: Arc<dyn Disk>,
    reads: Arc<Reads>,
}

impl CountingDisk {
    pub fn new(inner: impl Disk + 'static) -> (Self, Arc<Reads>) {
        let reads = Arc::new(Reads::default());
        (Self { inner: Arc::new(inner), reads: Arc::clone(&reads) }, reads)
    }

    fn count(&self, name: &str, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let is_snapshot = name.starts_with("snapshot-");
        Arc::new(CountingFile { inner, is_snapshot, reads: Arc::clone(&self.reads) })
    }
}

impl Disk for CountingDisk {
    fn path(&self) -> String {
        self.inner.path()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.count(name, self.inner.open(name, access)?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.count(name, self.inner.create(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }

    fn try_lock(&self) -> io::Result<Option<Box<dyn DiskLock>>> {
        self.inner.try_lock()
    }

    fn is_locked(&self) -> io::Result<bool> {
        self.inner.is_locked()
    }

    fn lock_note(&self) -> io::Result<Vec<u8>> {
        self.inner.lock_note()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }

    fn alignment(&self) -> usize {
        self.inner.alignment()
    }

    fn host(&self) -> String {
        self.inner.host()
    }
}

#[derive(Debug)]
struct CountingFile {
    inner: Arc<dyn DiskFile>,
    is_snapshot: bool,
    reads: Arc<Reads>,
}

impl DiskFile for CountingFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read_at(offset, buffer)?;
        let counter = if self.is_snapshot { &self.reads.snapshots } else { &self.reads.segments };
        counter.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn writes_are_durable(&self) -> bool {
        self.inner.writes_are_durable()
    }
}
