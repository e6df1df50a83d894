//! An open file of the real disk: positioned reads, whole writes, syncs, and direct writes where
//! the file system takes them.
//!
//! It never retries what failed: after an error from a write or a sync nobody knows what the
//! medium holds [M-3]. Only an interruption by a signal, before anything was done, is repeated.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the seam")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::DiskFile;
use super::direct::Direct;

/// A file and, with [`super::Access::Direct`], a second descriptor for direct writes.
#[derive(Debug)]
pub(super) struct RealFile {
    /// Through the page cache.
    file: File,
    /// `O_DIRECT | O_DSYNC`.
    direct: Option<Direct>,
    /// Up to here the process's limit on file sizes is known to allow writes.
    allowed: AtomicU64,
}

impl RealFile {
    pub(super) fn new(file: File, direct: Option<Direct>) -> Self {
        Self { file, direct, allowed: AtomicU64::new(0) }
    }

    /// Refuses a write beyond the process's limit on file sizes.
    ///
    /// The kernel would answer such a write with a signal that ends the process, and with it all
    /// callers that wait for their records.
    fn check_limit(&self, offset: u64, bytes: usize) -> io::Result<()> {
        let end = offset.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if end <= self.allowed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
        if limit.is_some_and(|limit| end > limit) {
            return Err(rustix::io::Errno::FBIG.into());
        }
        self.allowed.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_full(&self.file, offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_limit(offset, bytes.len())?;
        match &self.direct {
            Some(direct) => direct.write_at(offset, bytes),
            None => self.file.write_all_at(bytes, offset),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn writes_are_durable(&self) -> bool {
        self.direct.is_some()
    }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_full(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let from = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
        match file.read_at(rest, from) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
