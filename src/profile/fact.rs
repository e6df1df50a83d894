//! A fact about a provider, and how well it is known.
//!
//! What is not known is said to be unknown, never guessed; and what would end a grant, send a token
//! again, or revoke or burn something, asks for [`Fact::verified`].

use super::word::words;
use serde::Serialize;

words! {
    /// How well a fact is known.
    pub enum Status {
        /// Read on the provider's own page, or in the standard.
        Verified = "verified",
        /// Read where somebody else tells of it.
        Secondary = "secondary",
        /// Remembered, and not yet read anywhere.
        Memory = "memory",
        /// Said by whoever wrote the profile that was loaded, on their own word.
        Configured = "configured",
        /// Not known.
        Unknown = "unknown",
    }
}

/// A value, or that it is not known; and where that was read, how well, and on which day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact<T> {
    value: Option<T>,
    #[serde(flatten)]
    evidence: Evidence,
}

/// Where a fact was read, how well, and on which day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Evidence {
    pub(super) status: Status,
    pub(super) source: String,
    pub(super) on: String,
    pub(super) note: String,
}

impl<T> Fact<T> {
    /// Makes a fact that nobody has stated.
    pub(super) fn unknown() -> Self {
        Self::new(None, Evidence::none(Status::Unknown))
    }

    /// Joins a value and its evidence. Without a value it is unknown, whatever the evidence says.
    pub(super) fn new(value: Option<T>, evidence: Evidence) -> Self {
        let status = if value.is_some() { evidence.status } else { Status::Unknown };
        Self { value, evidence: Evidence { status, ..evidence } }
    }

    /// Returns the value, however well it is known: to show, and to be careful by.
    pub fn known(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Returns the value if it is verified, or configured on somebody's own word: to act by.
    pub fn verified(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.status().is_verified())
    }

    /// Returns how well it is known.
    pub fn status(&self) -> Status {
        self.evidence.status
    }

    /// Returns where it was read; empty for what was read nowhere.
    pub fn source(&self) -> &str {
        &self.evidence.source
    }

    /// Returns the day on which it was read, such as `2026-11-22`; empty for what was not.
    pub fn on(&self) -> &str {
        &self.evidence.on
    }

    /// Returns what else is to be said of it; mostly empty.
    pub fn note(&self) -> &str {
        &self.evidence.note
    }

    pub(super) fn evidence(&self) -> &Evidence {
        &self.evidence
    }
}

impl Evidence {
    pub(super) fn none(status: Status) -> Self {
        Self { status, source: String::new(), on: String::new(), note: String::new() }
    }
}

impl Status {
    /// Says whether one may act by a fact of this status.
    pub fn is_verified(self) -> bool {
        matches!(self, Self::Verified | Self::Configured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::word::Word;

    #[test]
    fn only_what_is_verified_or_configured_is_acted_by() {
        for status in <Status as Word>::WORDS.iter().filter_map(|word| Status::from_word(word)) {
            let fact = Fact::new(Some(7), Evidence::none(status));
            let acted = matches!(status, Status::Verified | Status::Configured);
            assert_eq!(fact.verified().is_some(), acted, "{status}");
            assert_eq!(fact.known(), Some(&7), "{status}");
            let none = Fact::<u32>::new(None, Evidence::none(status));
            assert_eq!((none.known(), none.status()), (None, Status::Unknown));
        }
    }
}
