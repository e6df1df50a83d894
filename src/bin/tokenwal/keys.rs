//! Where a store's keys are found.

use crate::exit::Failure;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use tokenwal::KeyFile;

const VARIABLE: &str = "TOKENWAL_KEY_FILE";

#[derive(Debug, clap::Args)]
pub(crate) struct KeyArgs {
    /// Read the store's keys from this file; else from the one that $TOKENWAL_KEY_FILE names,
    /// else from DIR.key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl KeyArgs {
    /// Finds the key file of the store in `dir`, if there is one.
    pub(crate) fn find(&self, dir: &Path) -> io::Result<Option<KeyFile>> {
        #[expect(clippy::disallowed_methods, reason = "the command reads its environment here")]
        let named = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        match self.key.clone().or(named.map(PathBuf::from)) {
            Some(path) => Ok(Some(KeyFile::new(path))),
            None => Ok(Some(beside(dir)?).filter(|path| is_there(path)).map(KeyFile::new)),
        }
    }

    /// Finds the key file of the store in `dir`, which the command cannot do without.
    pub(crate) fn need(&self, dir: &Path) -> Result<KeyFile, Failure> {
        self.find(dir)?.ok_or_else(|| {
            let what = format!("{}: the key of this store is not known", dir.display());
            Failure::new(what, format!("give it with --key FILE, or name it in ${VARIABLE}"))
        })
    }
}

/// Names the key file that stands beside a store.
pub(crate) fn beside(dir: &Path) -> io::Result<PathBuf> {
    let whole: PathBuf = std::path::absolute(dir)?.components().collect();
    let mut name = OsString::from(whole);
    name.push(".key");
    Ok(name.into())
}

/// A broken link is there, too: it must fail where it is read, and not be passed over.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
