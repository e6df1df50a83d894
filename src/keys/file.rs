//! The key file. Journals are reached through `disk`; this one file is the operator's.
//!
//! It is refused unless it is a regular file of ours, closed to others, reached through no link.

use super::ring::{KEY_TEXT_BYTES_MAX, format_line};
use super::{KeyError, KeySource, KeyTextError, Keyring};
use crate::clock::Entropy;
use crate::seal::KEY_BYTES;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Reads keys from a file of mode 0600 that belongs to us.
#[derive(Debug, Clone)]
pub struct KeyFile(PathBuf);

impl KeyFile {
    /// Names a key file; it is read when a store is opened.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Creates a key file with one new key; an existing name is never overwritten.
    ///
    /// The file and its directory are durable when it returns: a store must not outlive its key.
    ///
    /// # Errors
    /// [`KeyError::Exists`] or another [`KeyError`]; a file that was begun is removed.
    pub fn create_new(path: impl AsRef<Path>, entropy: &dyn Entropy) -> Result<Self, KeyError> {
        let path = path.as_ref();
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        entropy.fill(bytes.as_mut_slice()).map_err(KeyError::Entropy)?;
        let line = format_line(&bytes);
        create_file(path, line.as_bytes()).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
            _ => KeyError::Create { path: path.to_owned(), source },
        })?;
        Ok(Self(path.to_owned()))
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl KeySource for KeyFile {
    fn load(&self) -> Result<Keyring, KeyError> {
        let path = &self.0;
        let text = read_file(path)?;
        let unreadable =
            |problem| KeyError::Unreadable { place: path.display().to_string(), problem };
        if text.len() > KEY_TEXT_BYTES_MAX {
            return Err(unreadable(KeyTextError::TooLong));
        }
        let text = std::str::from_utf8(&text).map_err(|_| unreadable(KeyTextError::NotText))?;
        Keyring::parse(text).map_err(unreadable)
    }
}

/// Reads the file; one byte more than is allowed tells that there is more.
fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let failed = |source: io::Error| KeyError::Read { path: path.to_owned(), source };
    // Without NONBLOCK a named pipe would block the open before it can be refused.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP) => return Err(KeyError::Link { path: path.to_owned() }),
        Err(error) => return Err(failed(error.into())),
    };
    let us = rustix::process::geteuid().as_raw();
    check(path, &file.metadata().map_err(failed)?, us)?;
    let limit = KEY_TEXT_BYTES_MAX + 1;
    let mut text = Zeroizing::new(Vec::with_capacity(limit));
    let limit = u64::try_from(limit).expect("65537 fits");
    (&file).take(limit).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

/// Refuses what others could have written or could read. Root may read anyone's.
fn check(path: &Path, metadata: &Metadata, us: u32) -> Result<(), KeyError> {
    let path = path.to_owned();
    let mode = metadata.mode() & 0o7777;
    if !metadata.is_file() {
        Err(KeyError::NotRegular { path })
    } else if us != 0 && metadata.uid() != us {
        Err(KeyError::ForeignOwner { path, owner: metadata.uid() })
    } else if mode & 0o077 != 0 {
        Err(KeyError::LooseMode { path, mode })
    } else {
        Ok(())
    }
}

/// Creates the file and makes it durable, or leaves no file behind.
fn create_file(path: &Path, text: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file = File::from(rustix::fs::open(path, flags, mode)?);
    let written = file
        .write_all(text)
        // The contents first,
        .and_then(|()| file.sync_all())
        // then the name.
        .and_then(|()| sync_parent(path));
    if written.is_err() {
        // Half a key is worse than none; that it may stay is told by the error that follows.
        let _ = rustix::fs::unlinkat(CWD, path, AtFlags::empty());
    }
    written
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent.unwrap_or(Path::new(".")), flags, Mode::empty())?;
    File::from(directory).sync_all()
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    clippy::string_slice,
    reason = "the tests make and spoil key files, which are ASCII, themselves"
)]
mod tests {
    use super::*;
    use crate::SystemEntropy;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn made() -> (tempfile::TempDir, KeyFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::create_new(dir.path().join("store.key"), &SystemEntropy).unwrap();
        (dir, file)
    }

    #[test]
    fn a_new_key_file_is_ours_alone_and_loads() {
        let (_dir, file) = made();
        let mode = std::fs::metadata(file.path()).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o600);
        assert_eq!(file.load().unwrap().ids().count(), 1);
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let (dir, file) = made();
        let before = std::fs::read(file.path()).unwrap();
        let again = KeyFile::create_new(file.path(), &SystemEntropy);
        assert!(matches!(again, Err(KeyError::Exists { .. })));
        assert_eq!(std::fs::read(file.path()).unwrap(), before);
        // Nor what a dangling link leads to.
        let link = dir.path().join("link");
        symlink(dir.path().join("nowhere"), &link).unwrap();
        assert!(KeyFile::create_new(&link, &SystemEntropy).is_err());
        assert!(!dir.path().join("nowhere").exists());
    }

    #[test]
    fn what_others_could_read_or_replace_is_refused() {
        let (dir, file) = made();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode)).unwrap();
            let error = file.load().unwrap_err();
            assert!(matches!(error, KeyError::LooseMode { mode: m, .. } if m == mode));
            assert!(error.advice().contains("chmod 600"));
        }
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o400)).unwrap();
        assert!(file.load().is_ok());

        let link = dir.path().join("link");
        symlink(file.path(), &link).unwrap();
        assert!(matches!(KeyFile::new(link).load(), Err(KeyError::Link { .. })));
        let error = KeyFile::new(dir.path()).load().unwrap_err();
        assert!(matches!(error, KeyError::NotRegular { .. }));
        let error = KeyFile::new(dir.path().join("none")).load().unwrap_err();
        assert!(matches!(error, KeyError::Read { .. }));
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(matches!(KeyFile::new(pipe).load(), Err(KeyError::NotRegular { .. })));
    }

    #[test]
    fn a_foreign_owner_is_refused_unless_root_reads() {
        let (_dir, file) = made();
        let metadata = std::fs::metadata(file.path()).unwrap();
        let owner = metadata.uid();
        assert!(check(file.path(), &metadata, owner).is_ok());
        assert!(check(file.path(), &metadata, 0).is_ok());
        let stranger = check(file.path(), &metadata, owner + 1);
        assert!(matches!(stranger, Err(KeyError::ForeignOwner { owner: o, .. }) if o == owner));
    }

    #[test]
    fn a_file_that_was_cut_short_is_named_and_not_quoted() {
        let (_dir, file) = made();
        let text = std::fs::read_to_string(file.path()).unwrap();
        for cut in [0, 5, 20, 60, text.len() - 2] {
            std::fs::write(file.path(), &text[..cut]).unwrap();
            let error = file.load().unwrap_err();
            let printed = format!("{error} {error:?} {}", error.advice());
            assert!(printed.contains("store.key"), "{printed}");
            assert!(!printed.contains(&text[15..19]), "{printed}");
        }
        std::fs::write(file.path(), vec![b'#'; KEY_TEXT_BYTES_MAX + 1]).unwrap();
        let problem = |error| match error {
            KeyError::Unreadable { problem, .. } => problem,
            other => panic!("{other}"),
        };
        assert_eq!(problem(file.load().unwrap_err()), KeyTextError::TooLong);
        std::fs::write(file.path(), [0xFF, 0xFE]).unwrap();
        assert_eq!(problem(file.load().unwrap_err()), KeyTextError::NotText);
    }
}
