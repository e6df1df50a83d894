//! The socket in a store's directory, reached through the directory's descriptor, so that neither a
//! long path nor one that is changed meanwhile leads elsewhere.
//!
//! Only who has the store's lock may replace or remove what stands there (journal-format.md,
//! section 3).

use super::RealDisk;
use rustix::fs::{AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

/// A socket that this process made, for as long as it is to stand there. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Socket {
    disk: RealDisk,
    name: &'static str,
    /// Device and inode, so that nobody else's is removed.
    made: (u64, u64),
}

impl Socket {
    /// Makes the socket, in place of one that an earlier owner left. The caller has the store's
    /// lock.
    pub(crate) fn listen(disk: RealDisk, name: &'static str) -> io::Result<(Self, UnixListener)> {
        match standing(&disk, name)? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => {
                rustix::fs::unlinkat(disk.descriptor(), name, AtFlags::empty())?;
            }
            Some(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            None => {}
        }
        // Until its mode is set the directory's keeps everybody else out.
        let listener = UnixListener::bind(path(&disk, name))?;
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::chmodat(disk.descriptor(), name, mode, AtFlags::empty())?;
        let made = standing(&disk, name)?.ok_or(Errno::NOENT)?;
        Ok((Self { disk, name, made: identity(&made) }, listener))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let stands = standing(&self.disk, self.name).ok().flatten();
        if stands.is_some_and(|stat| identity(&stat) == self.made) {
            // One that stays is replaced by the next owner.
            let _ = rustix::fs::unlinkat(self.disk.descriptor(), self.name, AtFlags::empty());
        }
    }
}

/// Connects to the socket of whoever has the store.
pub(crate) fn connect(disk: &RealDisk, name: &str) -> io::Result<UnixStream> {
    UnixStream::connect(path(disk, name))
}

/// Names the socket in a few bytes where the system can: the address of a socket is short.
fn path(disk: &RealDisk, name: &str) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    let directory = format!("/proc/self/fd/{}", disk.descriptor().as_raw_fd());
    match rustix::fs::stat(&directory) {
        Ok(_) => PathBuf::from(directory).join(name),
        Err(_) => disk.whole_path().join(name),
    }
}

fn standing(disk: &RealDisk, name: &str) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(disk.descriptor(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[allow(clippy::unnecessary_cast, reason = "their widths are not the same on every system")]
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}
