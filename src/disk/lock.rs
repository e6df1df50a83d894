//! The lock of a real directory: `flock` on its `LOCK` file, and the owner's note in it.

use super::DiskLock;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// A lock that is held; dropping it lets go.
#[derive(Debug)]
pub(super) struct RealLock {
    file: File,
}

impl RealLock {
    /// Wraps the file whose lock [`take`] took.
    pub(super) fn new(file: File) -> Self {
        Self { file }
    }
}

impl DiskLock for RealLock {
    fn write_note(&self, note: &[u8]) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(note, 0)
    }
}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing would do, save where a fork shares the descriptor. Failing is closing's case.
        let _ = fs2::FileExt::unlock(&self.file);
    }
}

/// Takes the lock if nobody else has it; says whether it did.
pub(super) fn take(file: &File) -> io::Result<bool> {
    is_free(fs2::FileExt::try_lock_exclusive(file))
}

/// Says whether somebody has the lock.
///
/// It asks for a shared lock, so that two who look do not take each other for the owner, and lets
/// go at once: a process that wants to own the store waits longer than that. A file that was
/// opened for reading will do.
pub(super) fn is_taken(file: &File) -> io::Result<bool> {
    let free = is_free(fs2::FileExt::try_lock_shared(file))?;
    if free {
        fs2::FileExt::unlock(file)?;
    }
    Ok(!free)
}

fn is_free(locked: io::Result<()>) -> io::Result<bool> {
    match locked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == fs2::lock_contended_error().kind() => Ok(false),
        Err(error) => Err(error),
    }
}
