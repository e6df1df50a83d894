//! The real disk: a directory that is ours alone, reached through its descriptor.
//!
//! Owns every system call on a store's files. All names are resolved against the descriptor of
//! the directory that was checked at opening, so that nobody can slip another one in later. What
//! is not a regular file of ours, closed to all others, is refused and never changed; root may
//! read what belongs to another user.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the seam")]

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::direct::{self, Direct, Taken};
use super::file::{RealFile, read_full};
use super::lock::{self, RealLock};
use super::refusal::Refusal;
use super::{Access, Disk, DiskFile, DiskLock};

const LOCK: &str = "LOCK";
const LOCK_NOTE_BYTES_MAX: usize = 4096;

/// A directory of the file system.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
    dir: File,
    alignment: usize,
    /// Set if the directory belongs to another user and this process may read it as root.
    foreign: Option<u32>,
    /// Set if files made here are given to another user.
    give_to: Option<(u32, u32)>,
}

impl RealDisk {
    /// Opens a directory, making it (mode 0700) if it is missing; its parent must exist.
    ///
    /// The parent directory is synced in any case, since an earlier attempt may have ended
    /// before its sync.
    ///
    /// # Errors
    /// [`Refusal`] inside the error for what is there but cannot be trusted; else the system's.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = whole(path.as_ref())?;
        match rustix::fs::mkdir(&path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let disk = Self::open(&path)?;
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(disk)
    }

    /// Makes a directory as [`RealDisk::create`] does, with the owner and group of `like`, which
    /// then also own the files made in it. Takes root where they are not those of this process.
    ///
    /// # Errors
    /// As [`RealDisk::create`].
    pub fn create_like(path: impl AsRef<Path>, like: &Self) -> io::Result<Self> {
        let mut disk = Self::create(path)?;
        let model = like.dir.metadata()?;
        let own = disk.dir.metadata()?;
        if (own.uid(), own.gid()) != (model.uid(), model.gid()) {
            fchown(&disk.dir, Some(model.uid()), Some(model.gid()))?;
            disk.foreign = None;
            disk.give_to = Some((model.uid(), model.gid()));
        }
        Ok(disk)
    }

    /// Opens an existing directory.
    ///
    /// # Errors
    /// [`Refusal`] inside the error for a directory that is missing, a link, not a directory,
    /// another user's, or open to others; else the system's.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = whole(path.as_ref())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(dir) => File::from(dir),
            Err(error) => return Err(why_no_directory(&path, error)),
        };
        let at = || path.display().to_string();
        let metadata = dir.metadata()?;
        let foreign = match (metadata.uid(), effective_uid()) {
            (owner, user) if owner == user => None,
            (owner, 0) => Some(owner),
            (owner, _) => return Err(Refusal::ForeignOwner { at: at(), uid: owner }.into()),
        };
        check_mode(metadata.permissions().mode(), at)?;
        let mut disk = Self { path, dir, alignment: direct::ALIGNMENT, foreign, give_to: None };
        disk.alignment = disk.probe_alignment();
        Ok(disk)
    }

    #[cfg(feature = "broker")]
    pub(super) fn descriptor(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.dir)
    }

    #[cfg(feature = "broker")]
    pub(super) fn whole_path(&self) -> &Path {
        &self.path
    }

    /// Asks what direct writes to the files here are aligned to, by the one file always there.
    fn probe_alignment(&self) -> usize {
        match self.open_checked(LOCK, OFlags::RDONLY).map(|file| direct::taken(&file)) {
            Ok(Taken::Aligned(alignment)) => alignment,
            _ => direct::ALIGNMENT,
        }
    }

    /// Refuses to change a directory that root may only read.
    fn check_ours(&self) -> io::Result<()> {
        match self.foreign {
            Some(uid) => Err(Refusal::ForeignOwner { at: self.path(), uid }.into()),
            None => Ok(()),
        }
    }

    /// Opens a name without following a link or waiting for a pipe, and checks what it is.
    fn open_checked(&self, name: &str, flags: OFlags) -> io::Result<File> {
        check_name(name)?;
        let guards = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = match rustix::fs::openat(&self.dir, name, flags | guards, mode) {
            Ok(file) => File::from(file),
            Err(error) => return Err(self.why_no_file(name, error)),
        };
        let metadata = file.metadata()?;
        let writes = flags.intersects(OFlags::RDWR | OFlags::WRONLY);
        if !metadata.is_file() {
            return Err(Refusal::NotRegular { at: self.at(name) }.into());
        }
        self.check_owner(name, metadata.uid(), writes)?;
        if !flags.contains(OFlags::EXCL) {
            check_mode(metadata.permissions().mode(), || self.at(name))?;
        }
        Ok(file)
    }

    fn check_owner(&self, name: &str, uid: u32, writes: bool) -> io::Result<()> {
        let user = effective_uid();
        let given = self.give_to.is_some_and(|(owner, _)| owner == uid);
        if uid == user || (user == 0 && (given || !writes)) {
            return Ok(());
        }
        Err(Refusal::ForeignOwner { at: self.at(name), uid }.into())
    }

    /// Turns a failure to open a file into the refusal behind it, if there is one.
    fn why_no_file(&self, name: &str, error: Errno) -> io::Error {
        let at = self.at(name);
        match rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
                _ if error == Errno::EXIST => error.into(),
                rustix::fs::FileType::Symlink => Refusal::Symlink { at }.into(),
                rustix::fs::FileType::RegularFile if stat.st_uid != effective_uid() => {
                    Refusal::ForeignOwner { at, uid: stat.st_uid }.into()
                }
                rustix::fs::FileType::RegularFile => error.into(),
                _ => Refusal::NotRegular { at }.into(),
            },
            Err(_) => error.into(),
        }
    }

    /// Opens the second descriptor of a direct file, or tells that the file system has none.
    fn open_direct(&self, name: &str, file: &File) -> io::Result<Option<Direct>> {
        let taken = direct::taken(file);
        if !taken.allows(self.alignment) {
            return Ok(None);
        }
        let direct = match self.open_checked(name, OFlags::RDWR | direct::FLAGS) {
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                return Ok(None);
            }
            opened => opened?,
        };
        let (one, other) = (file.metadata()?, direct.metadata()?);
        if (one.dev(), one.ino()) != (other.dev(), other.ino()) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the file was replaced meanwhile"));
        }
        Ok(Direct::new(direct, self.alignment, taken))
    }

    fn at(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

impl Disk for RealDisk {
    fn path(&self) -> String {
        self.path.display().to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let file = match access {
            Access::Read => self.open_checked(name, OFlags::RDONLY)?,
            Access::Write | Access::Direct => {
                self.check_ours()?;
                self.open_checked(name, OFlags::RDWR)?
            }
        };
        let direct = match access {
            Access::Direct => self.open_direct(name, &file)?,
            Access::Read | Access::Write => None,
        };
        Ok(Arc::new(RealFile::new(file, direct)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.check_ours()?;
        let file = self.open_checked(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        self.settle_new(&file)?;
        Ok(Arc::new(RealFile::new(file, None)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check_ours()?;
        check_name(from)?;
        check_name(to)?;
        Ok(rustix::fs::renameat(&self.dir, from, &self.dir, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.check_ours()?;
        check_name(name)?;
        Ok(rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())?)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.dir.sync_all()
    }

    fn try_lock(&self) -> io::Result<Option<Box<dyn DiskLock>>> {
        self.check_ours()?;
        let file = match self.open_checked(LOCK, OFlags::RDWR) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create_lock()?,
            opened => opened?,
        };
        if !lock::take(&file)? {
            return Ok(None);
        }
        // Whoever removed the file after we opened it would let a second owner in.
        let (held, named) =
            (file.metadata()?, self.open_checked(LOCK, OFlags::RDONLY)?.metadata()?);
        if (held.dev(), held.ino()) != (named.dev(), named.ino()) {
            return Ok(None);
        }
        Ok(Some(Box::new(RealLock::new(file))))
    }

    fn is_locked(&self) -> io::Result<bool> {
        let file = match self.open_checked(LOCK, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        lock::is_taken(&file)
    }

    fn lock_note(&self) -> io::Result<Vec<u8>> {
        let file = match self.open_checked(LOCK, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        let mut note = vec![0; LOCK_NOTE_BYTES_MAX];
        let read = read_full(&file, 0, &mut note)?;
        note.truncate(read);
        Ok(note)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        fs2::available_space(&self.path)
    }

    fn alignment(&self) -> usize {
        self.alignment
    }

    fn host(&self) -> String {
        if let Ok(text) = std::fs::read_to_string("/etc/machine-id") {
            let id = text.trim();
            if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return id.to_owned();
            }
        }
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
}

impl RealDisk {
    fn create_lock(&self) -> io::Result<File> {
        match self.open_checked(LOCK, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL) {
            Ok(file) => {
                self.settle_new(&file)?;
                Ok(file)
            }
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.open_checked(LOCK, OFlags::RDWR)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives a new file its mode whatever the process's mask is, and its owner.
    fn settle_new(&self, file: &File) -> io::Result<()> {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        match self.give_to {
            Some((uid, gid)) => fchown(file, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Makes a path that stays right when the process changes its directory, and that names a link
/// itself rather than what stands behind it.
fn whole(path: &Path) -> io::Result<PathBuf> {
    Ok(std::path::absolute(path)?.components().collect())
}

fn check_mode(mode: u32, at: impl FnOnce() -> String) -> io::Result<()> {
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Refusal::LooseMode { at: at(), mode: mode & 0o7777 }.into())
}

fn check_name(name: &str) -> io::Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name"));
    }
    Ok(())
}

/// Turns a failure to open a directory into the refusal behind it, if there is one.
fn why_no_directory(path: &Path, error: Errno) -> io::Error {
    let at = path.display().to_string();
    match rustix::fs::lstat(path) {
        Ok(stat) => match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::Symlink => Refusal::Symlink { at }.into(),
            rustix::fs::FileType::Directory if stat.st_uid != effective_uid() => {
                Refusal::ForeignOwner { at, uid: stat.st_uid }.into()
            }
            rustix::fs::FileType::Directory => error.into(),
            _ => Refusal::NotADirectory { at }.into(),
        },
        Err(Errno::NOENT) => Refusal::Missing { at }.into(),
        Err(_) => error.into(),
    }
}
