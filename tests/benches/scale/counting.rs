//! A disk that counts what is read from it.

use super::over::{DiskLayer, FileLayer, Over};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokenwal::disk::{Access, Disk, DiskFile};

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

/// A disk that counts.
#[derive(Debug)]
pub struct Counting {
    inner: Arc<dyn Disk>,
    reads: Arc<Reads>,
}

impl Counting {
    pub fn over(inner: impl Disk + 'static) -> (Over<Self>, Arc<Reads>) {
        let reads = Arc::new(Reads::default());
        (Over(Self { inner: Arc::new(inner), reads: Arc::clone(&reads) }), reads)
    }

    fn count(&self, name: &str, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let is_snapshot = name.starts_with("snapshot-");
        Arc::new(Over(CountingFile { inner, is_snapshot, reads: Arc::clone(&self.reads) }))
    }
}

impl DiskLayer for Counting {
    fn below(&self) -> &dyn Disk {
        &*self.inner
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.count(name, self.inner.open(name, access)?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.count(name, self.inner.create(name)?))
    }
}

#[derive(Debug)]
struct CountingFile {
    inner: Arc<dyn DiskFile>,
    is_snapshot: bool,
    reads: Arc<Reads>,
}

impl FileLayer for CountingFile {
    fn below(&self) -> &dyn DiskFile {
        &*self.inner
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read_at(offset, buffer)?;
        let counter = if self.is_snapshot { &self.reads.snapshots } else { &self.reads.segments };
        counter.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
