//! What could not be saved: places, numbers and tags, and never a secret.

use crate::ids::{AccountTag, Lsn};
use serde::Serialize;
use std::fmt;

/// Something that could not be saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Loss {
    /// Why.
    pub what: &'static str,
    /// The file in which it stood, or should have stood.
    pub file: String,
    /// Where in that file, in bytes.
    pub offset: u64,
    /// How many bytes; 0 where that is not known.
    pub bytes: u64,
    /// The first LSN that is lost, or 0 where that is not known.
    pub first_lsn: Lsn,
    /// The last LSN that is lost, or 0 where that is not known.
    pub last_lsn: Lsn,
    /// The account that lost something, if it is known.
    pub account: Option<AccountTag>,
    /// Accounts with tags above this one may have lost something; none for no bound.
    pub accounts_after: Option<AccountTag>,
    /// Accounts with tags below this one may have lost something; none for no bound.
    pub accounts_before: Option<AccountTag>,
}

impl Loss {
    pub(super) fn of(what: &'static str, file: &str, offset: u64, bytes: u64) -> Self {
        Self {
            what,
            file: file.to_owned(),
            offset,
            bytes,
            first_lsn: Lsn::NONE,
            last_lsn: Lsn::NONE,
            account: None,
            accounts_after: None,
            accounts_before: None,
        }
    }

    pub(super) fn lsns(mut self, first: Lsn, last: Lsn) -> Self {
        (self.first_lsn, self.last_lsn) = (first, last);
        self
    }

    /// Says how many records may be lost, to compare two ways of saving a store.
    pub(super) fn weight(&self) -> u64 {
        let known = self.last_lsn.0.saturating_sub(self.first_lsn.0).saturating_add(1);
        let by_bytes = self.bytes / super::harvest::RECORD_BYTES_USUAL;
        if self.last_lsn.is_none() { by_bytes.max(1) } else { known }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: at offset {}: {}", self.file, self.offset, self.what)?;
        if self.bytes > 0 {
            write!(f, ", {} bytes", self.bytes)?;
        }
        match (self.first_lsn.is_none(), self.last_lsn.is_none()) {
            (false, false) => write!(f, "; LSN {} to {}", self.first_lsn, self.last_lsn)?,
            (false, true) => write!(f, "; from LSN {} on", self.first_lsn)?,
            _ => {}
        }
        if let Some(account) = self.account {
            write!(f, "; account {account}")?;
        }
        match (self.accounts_after, self.accounts_before) {
            (None, None) => Ok(()),
            (Some(after), Some(before)) => write!(f, "; accounts between {after} and {before}"),
            (Some(after), None) => write!(f, "; accounts above {after}"),
            (None, Some(before)) => write!(f, "; accounts below {before}"),
        }
    }
}
