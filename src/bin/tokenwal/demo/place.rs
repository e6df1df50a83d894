//! Where the store of the demonstration stands, with its key beside it.

use super::chance::Chance;
use crate::exit::Failure;
use crate::keys::beside;
use rustix::fs::Mode;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokenwal::{KeyFile, Options, SystemEntropy};

/// A store and its key. Unless they were asked for, both go when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    store: PathBuf,
    private: Option<PathBuf>,
}

impl Place {
    /// Makes an empty store: in `dir`, which must not exist, or where only we can look.
    pub(super) fn make(dir: Option<&Path>) -> Result<Self, Failure> {
        let place = match dir {
            Some(dir) => Self::asked_for(dir)?,
            None => Self::private()?,
        };
        let key = KeyFile::create_new(beside(&place.store)?, &SystemEntropy)?;
        let made = options(&place.store)?.create(&place.store);
        let closed = made.and_then(|(journal, _)| journal.blocking().close());
        closed.map_err(|error| {
            // A key without a store is good for nothing; the error that follows is worth more.
            remove_file(key.path());
            Failure::of(&place.store)(error)
        })?;
        Ok(place)
    }

    pub(super) fn store(&self) -> &Path {
        &self.store
    }

    pub(super) fn is_kept(&self) -> bool {
        self.private.is_none()
    }

    fn asked_for(dir: &Path) -> Result<Self, Failure> {
        for path in [dir.to_owned(), beside(dir)?] {
            if is_there(&path) {
                let what = format!("{} exists already", path.display());
                let advice = format!(
                    "name a directory that does not exist yet, or look at this store with \
                     `tokenwal replay {}`",
                    dir.display()
                );
                return Err(Failure::new(what, advice));
            }
        }
        Ok(Self { store: dir.to_owned(), private: None })
    }

    fn private() -> Result<Self, Failure> {
        let name = format!("tokenwal-demo-{:016x}", Chance::drawn()?.next());
        let private = std::env::temp_dir().join(name);
        rustix::fs::mkdir(&private, Mode::RWXU).map_err(|error| {
            let what = format!("{}: {}", private.display(), std::io::Error::from(error));
            Failure::new(what, "let TMPDIR name a directory that you can write to, or give --dir")
        })?;
        Ok(Self { store: private.join("store"), private: Some(private) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(private) = &self.private {
            remove_all(private);
        }
    }
}

/// Returns how the store is opened: in small segments, so that kills meet roll-overs too, and with
/// patience for the one who was killed to be gone.
pub(super) fn options(store: &Path) -> Result<Options, Failure> {
    Ok(Options::new(KeyFile::new(beside(store)?))
        .segment_bytes(2 << 20)
        .batch_bytes_max(256 << 10)
        .outcome_bytes_max(16 << 10)
        .wait_for_lock(Duration::from_secs(5)))
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[expect(clippy::disallowed_methods, reason = "the demo's own directory, and no longer a store")]
fn remove_all(path: &Path) {
    // What cannot be removed is left to whoever cleans the temporary directory.
    let _ = std::fs::remove_dir_all(path);
}

#[expect(clippy::disallowed_methods, reason = "the key that was made a moment ago")]
fn remove_file(path: &Path) {
    let _ = std::fs::remove_file(path);
}
