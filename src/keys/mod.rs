//! Key-encryption keys: where they come from, and which one a wrapped key asks for.
//!
//! A key file is refused unless it is a regular file of ours with mode 0600, reached through no
//! link. Nothing here prints a key, or the text that one was read from.

mod file;
mod ring;

pub use file::KeyFile;
pub use ring::{KeyTextError, Keyring};

use crate::seal::{KEY_BYTES, KeyBytes};
use std::path::PathBuf;
use std::{fmt, io};
use zeroize::Zeroizing;

/// Brings the key-encryption keys when a store is opened; a key-management service implements it.
pub trait KeySource: Send + Sync {
    /// Loads the keys, the active one first.
    ///
    /// # Errors
    /// [`KeyError`], which never quotes what was read.
    fn load(&self) -> Result<Keyring, KeyError>;
}

/// Says why there is no key to work with; [`KeyError::advice`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key file could not be read.
    #[error("the key file {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key file could not be written.
    #[error("the key file {path} cannot be created")]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is something under this name already, and a key is never overwritten.
    #[error("{path} exists, and a key is never overwritten")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The name is a symbolic link.
    #[error("the key file {path} is a symbolic link")]
    Link {
        /// The file.
        path: PathBuf,
    },
    /// The name is not a regular file.
    #[error("the key file {path} is not a regular file")]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// The file is open to other users.
    #[error("the key file {path} has mode {mode:04o}, which is open to other users")]
    LooseMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to somebody else.
    #[error("the key file {path} belongs to user {owner}")]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// The owner's user id.
        owner: u32,
    },
    /// The environment variable is not set, or is not text.
    #[error("the environment variable {name} is not set")]
    NoVariable {
        /// The variable.
        name: String,
    },
    /// What was read is not a list of keys.
    #[error("{place} holds no usable key: {problem}")]
    Unreadable {
        /// The file or the variable.
        place: String,
        /// What is wrong with it.
        problem: KeyTextError,
    },
    /// A store asks for a key that is not among those given.
    #[error("the store is sealed under key {wanted:016x}, which is not among the keys given")]
    NotHeld {
        /// The id of the key that is asked for.
        wanted: u64,
    },
    /// The right key is there, and does not open what it should have sealed.
    #[error("key {kek_id:016x} does not open the wrapped key in the file's header")]
    NotAuthentic {
        /// The id of the key-encryption key.
        kek_id: u64,
    },
    /// The system gave no random bytes.
    #[error("no random bytes for a key could be drawn")]
    Entropy(#[source] io::Error),
    /// A source of another make failed.
    #[error("the key source failed")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl KeyError {
    /// Says what to do next, in one sentence.
    pub fn advice(&self) -> String {
        match self {
            Self::Read { .. } => "check that the path is right and that you may read it".into(),
            Self::Create { .. } => "check that the directory exists and that you own it".into(),
            Self::Exists { .. } => "choose another name, or move the old key away first".into(),
            Self::Link { .. } => "give the path of the file that the link leads to".into(),
            Self::NotRegular { .. } => "give the path of a key file".into(),
            Self::LooseMode { path, .. } => format!(
                "run `chmod 600 {}`; if others could have read it, make a new key",
                path.display()
            ),
            Self::ForeignOwner { path, .. } => {
                format!("run as its owner, or change the owner of {}", path.display())
            }
            Self::NoVariable { name } => format!("set {name} to the lines of a key file"),
            Self::Unreadable { .. } => {
                "restore the key that the store was made with; for a new store make one with \
                 `tokenwal key new FILE`"
                    .into()
            }
            Self::NotHeld { .. } => "give the key that the store was made with".into(),
            Self::NotAuthentic { .. } => {
                "the header was changed or the file is of another store; run `tokenwal verify`"
                    .into()
            }
            Self::Entropy(_) => "look into the system's random generator".into(),
            Self::Source(_) => "look into the key source".into(),
        }
    }
}

/// Reads keys from an environment variable that holds the lines of a key file.
#[derive(Debug, Clone)]
pub struct KeyEnv(String);

impl KeyEnv {
    /// Names the variable; it is read when a store is opened.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }
}

impl KeySource for KeyEnv {
    #[expect(clippy::disallowed_methods, reason = "this is what the environment is read by")]
    fn load(&self) -> Result<Keyring, KeyError> {
        let name = &self.0;
        let no_variable = |_| KeyError::NoVariable { name: name.clone() };
        let text = Zeroizing::new(std::env::var(name).map_err(no_variable)?);
        Keyring::parse(&text)
            .map_err(|problem| KeyError::Unreadable { place: format!("${name}"), problem })
    }
}

/// Holds keys given as bytes; for tests, and for services that fetch keys themselves.
pub struct FixedKeys(Vec<KeyBytes>);

impl FixedKeys {
    /// Takes keys, the active one first.
    pub fn new(active: [u8; KEY_BYTES], others: impl IntoIterator<Item = [u8; KEY_BYTES]>) -> Self {
        Self(std::iter::once(active).chain(others).map(Zeroizing::new).collect())
    }
}

impl KeySource for FixedKeys {
    fn load(&self) -> Result<Keyring, KeyError> {
        Ok(Keyring::of(&self.0).expect("new takes one key at least"))
    }
}

impl fmt::Debug for FixedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FixedKeys({})", self.0.len())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test looks at the environment itself")]
mod tests {
    use super::*;

    #[test]
    fn fixed_keys_load_every_time() {
        let keys = FixedKeys::new([0x11; 32], [[0x12; 32]]);
        assert_eq!(keys.load().unwrap().ids().count(), 2);
        assert_eq!(
            keys.load().unwrap().ids().collect::<Vec<_>>(),
            Keyring::from_bytes([0x11; 32], [[0x12; 32]]).ids().collect::<Vec<_>>()
        );
        assert_eq!(format!("{keys:?}"), "FixedKeys(2)");
    }

    #[test]
    fn a_variable_without_a_key_is_named_and_not_quoted() {
        let error = KeyEnv::new("TOKENWAL_NO_SUCH_VARIABLE").load().unwrap_err();
        assert!(matches!(error, KeyError::NoVariable { .. }));
        // Cargo sets this one for tests, to something that is no key.
        let value = std::env::var("CARGO_MANIFEST_DIR").unwrap();
        let error = KeyEnv::new("CARGO_MANIFEST_DIR").load().unwrap_err();
        let printed = format!("{error} {error:?}");
        assert!(printed.contains("CARGO_MANIFEST_DIR") && !printed.contains(&value), "{printed}");
    }
}
