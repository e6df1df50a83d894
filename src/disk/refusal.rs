//! Why a directory or a file of a store is not touched: it is missing, or it is not safely ours.
//!
//! A refusal travels as the inner error of an [`io::Error`]; [`Refusal::of`] finds it there.

use std::io;

/// Says why a store's directory or one of its files was refused.
///
/// `at` is the path of what was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such directory.
    #[error("{at} does not exist")]
    Missing {
        /// What was refused.
        at: String,
    },
    /// Something else stands where the directory should be.
    #[error("{at} is not a directory")]
    NotADirectory {
        /// What was refused.
        at: String,
    },
    /// A symbolic link, which whoever owns the link could turn elsewhere.
    #[error("{at} is a symbolic link")]
    Symlink {
        /// What was refused.
        at: String,
    },
    /// It belongs to another user. Root may read it, and nobody else may do anything.
    #[error("{at} belongs to user {uid}, not to the user of this process")]
    ForeignOwner {
        /// What was refused.
        at: String,
        /// Its owner.
        uid: u32,
    },
    /// Its group or the world may read, write or search it.
    #[error("{at} is open to others: its mode is {mode:04o}")]
    LooseMode {
        /// What was refused.
        at: String,
        /// Its permission bits.
        mode: u32,
    },
    /// A file of the store is a directory, a pipe, a socket or a device.
    #[error("{at} is not a regular file")]
    NotRegular {
        /// What was refused.
        at: String,
    },
}

impl Refusal {
    /// Finds the refusal in an error of this module, if it is one.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            Refusal::Missing { .. } => io::ErrorKind::NotFound,
            Refusal::NotADirectory { .. } => io::ErrorKind::NotADirectory,
            _ => io::ErrorKind::PermissionDenied,
        };
        Self::new(kind, refusal)
    }
}
