//! A token or key in memory: wiped when dropped, never printed, never copied by accident.

use std::fmt;
use zeroize::Zeroizing;

/// Holds a token; shows it only to a caller who asks by name.
///
/// It cannot be cloned, compared, serialized or printed, and its memory is wiped when it is
/// dropped.
///
/// ```
/// let token = tokenwal::Secret::new("00D5g000004".to_owned());
/// assert_eq!(format!("{token:?}"), "Secret(11 bytes)");
/// assert_eq!(token.reveal(), "00D5g000004");
/// ```
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of a token.
    pub fn new(token: String) -> Self {
        Self(Zeroizing::new(token))
    }

    /// Returns the token itself. The caller must keep it out of logs, errors and arguments.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}
