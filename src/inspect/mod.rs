//! Looks at stores without writing to them, and copies what can be saved of a damaged one.
//!
//! [`Reader`] folds a store as a service would; [`verify`] checks every byte that counts and
//! reports all that is wrong; [`Salvage`] makes a new store of what can be read. Nothing here
//! changes a store that it looks at: not on a full disk, not on a read-only one, not beside a
//! process that writes (journal-format.md, section 11). Beside one, only what that process has
//! called durable is shown.

mod audit;
mod blocks;
mod picture;
mod reader;
mod rubble;
mod salvage;
mod verification;
mod verify;

pub use reader::{AccountViews, Reader, Summary};
pub use salvage::{Loss, Salvage, SalvagePlan, Salvaged};
pub use verification::{Problem, Verification};
pub use verify::verify;

use crate::disk::{Disk, RealDisk};
use crate::error::Error;
use crate::journal::open::{real, refused};
use std::path::Path;
use std::sync::Arc;

/// How far a long look at a store has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes of files that were looked at.
    pub done_bytes: u64,
    /// Bytes of all files that will be, as far as is known.
    pub total_bytes: u64,
}

/// Opens a store's directory to look at it.
///
/// # Errors
/// [`Error::Missing`] where there is no such directory, and [`Error::Refused`] where it is not
/// safely the user's own.
pub fn directory(dir: impl AsRef<Path>) -> Result<Arc<dyn Disk>, Error> {
    let dir = dir.as_ref();
    real(RealDisk::open(dir), dir)
}

/// Opens a directory to salvage into, and makes it if it is missing; it, and what is made in it,
/// belongs to whom the directory `like` belongs to.
///
/// # Errors
/// As [`directory`].
pub fn new_directory_like(
    dir: impl AsRef<Path>,
    like: impl AsRef<Path>,
) -> Result<Arc<dyn Disk>, Error> {
    let (dir, like) = (dir.as_ref(), like.as_ref());
    let model =
        RealDisk::open(like).map_err(|error| refused(&like.display().to_string(), error))?;
    real(RealDisk::create_like(dir, &model), dir)
}
