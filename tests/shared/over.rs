//! A disk over another one, that changes what a test wants changed and passes on all else.
#![allow(dead_code, reason = "no test changes everything")]
#![allow(unreachable_pub, reason = "a module of a test has no reader outside")]

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use tokenwal::disk::{Access, Disk, DiskFile, DiskLock};

/// What differs from the disk below.
pub trait DiskLayer: Send + Sync + Debug {
    fn below(&self) -> &dyn Disk;

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.below().open(name, access)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.below().create(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.below().rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.below().remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.below().sync_dir()
    }

    fn try_lock(&self) -> io::Result<Option<Box<dyn DiskLock>>> {
        self.below().try_lock()
    }

    fn host(&self) -> String {
        self.below().host()
    }
}

/// What differs from the file below.
pub trait FileLayer: Send + Sync + Debug {
    fn below(&self) -> &dyn DiskFile;

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.below().read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.below().write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.below().sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.below().len()
    }

    fn writes_are_durable(&self) -> bool {
        self.below().writes_are_durable()
    }
}

/// A layer as a disk or a file.
#[derive(Debug, Clone)]
pub struct Over<T>(pub T);

impl<T: DiskLayer> Disk for Over<T> {
    fn path(&self) -> String {
        self.0.below().path()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.below().list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(name, access)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.0.create(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }

    fn try_lock(&self) -> io::Result<Option<Box<dyn DiskLock>>> {
        self.0.try_lock()
    }

    fn is_locked(&self) -> io::Result<bool> {
        self.0.below().is_locked()
    }

    fn lock_note(&self) -> io::Result<Vec<u8>> {
        self.0.below().lock_note()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.0.below().free_bytes()
    }

    fn alignment(&self) -> usize {
        self.0.below().alignment()
    }

    fn host(&self) -> String {
        self.0.host()
    }
}

impl<T: FileLayer> DiskFile for Over<T> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn writes_are_durable(&self) -> bool {
        self.0.writes_are_durable()
    }
}
