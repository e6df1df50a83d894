//! The seam below the journal: one directory of files, their syncs, a lock, free space.
//!
//! Everything above sees a disk only through these traits, so a simulated disk can lose, tear,
//! reorder and refuse whatever a real one can. A store is one flat directory; names are built and
//! parsed in `format::name` alone. The media assumptions are journal-format.md's, "Media".

mod aligned;
mod direct;
mod file;
mod lock;
mod real;
mod refusal;
#[cfg(feature = "broker")]
pub(crate) mod socket;

pub use aligned::AlignedBuffer;
pub use real::RealDisk;
pub use refusal::Refusal;

use std::fmt;
use std::io;
use std::sync::Arc;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// For reading.
    Read,
    /// For reading and for writing in place; a write is durable after [`DiskFile::sync`].
    Write,
    /// As `Write`, and where the file system takes it each write is durable when it returns
    /// ([`DiskFile::writes_are_durable`] says so). Buffers, offsets and lengths are then multiples
    /// of [`Disk::alignment`].
    Direct,
}

/// One directory.
///
/// Directory changes (`create`, `rename`, `remove`) are durable after [`Disk::sync_dir`], and
/// before it each may survive or vanish on its own.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Names the directory in errors.
    fn path(&self) -> String;

    /// Lists the names in the directory, in no order.
    ///
    /// # Errors
    /// What the system answers.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens an existing regular file; a link or anything else is refused.
    ///
    /// # Errors
    /// What the system answers, or what the path is refused for ([`Refusal`]).
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a file of no length, for its owner only; refuses an existing name.
    ///
    /// # Errors
    /// What the system answers, or what the path is refused for ([`Refusal`]).
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file, replacing `to`.
    ///
    /// # Errors
    /// What the system answers.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name.
    ///
    /// # Errors
    /// What the system answers.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all directory changes so far durable.
    ///
    /// # Errors
    /// What the system answers.
    fn sync_dir(&self) -> io::Result<()>;

    /// Takes the store's lock without waiting; `Ok(None)` when another process has it.
    ///
    /// # Errors
    /// What the system answers, or what the path is refused for ([`Refusal`]).
    fn try_lock(&self) -> io::Result<Option<Box<dyn DiskLock>>>;

    /// Says whether somebody has the store's lock now, without keeping anyone from it; needs no
    /// right to write.
    ///
    /// # Errors
    /// What the system answers, or what the path is refused for ([`Refusal`]).
    fn is_locked(&self) -> io::Result<bool>;

    /// Reads what the lock's owner wrote, without taking the lock; empty when there is no file.
    ///
    /// # Errors
    /// What the system answers, or what the path is refused for ([`Refusal`]).
    fn lock_note(&self) -> io::Result<Vec<u8>>;

    /// Returns the bytes that this process may still allocate.
    ///
    /// # Errors
    /// What the system answers.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Returns the alignment that [`Access::Direct`] asks of buffers, offsets and lengths.
    fn alignment(&self) -> usize;

    /// Identifies the machine, so that a copy of a store on another one is noticed.
    fn host(&self) -> String;
}

/// One open file.
#[allow(clippy::len_without_is_empty, reason = "a length in bytes, and nobody asks for less")]
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads at `offset` until `buffer` is full or the file ends, and returns the bytes read.
    ///
    /// # Errors
    /// What the system answers.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the system answers.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file's contents and length durable.
    ///
    /// # Errors
    /// What the system answers.
    fn sync(&self) -> io::Result<()>;

    /// Returns the file's length in bytes.
    ///
    /// # Errors
    /// What the system answers.
    fn len(&self) -> io::Result<u64>;

    /// Says whether a write is durable when it returns, so that no sync need follow.
    fn writes_are_durable(&self) -> bool;
}

/// The store's lock; dropping it lets go.
pub trait DiskLock: Send + Sync + fmt::Debug {
    /// Replaces what other processes read through [`Disk::lock_note`].
    ///
    /// # Errors
    /// What the system answers.
    fn write_note(&self, note: &[u8]) -> io::Result<()>;
}
