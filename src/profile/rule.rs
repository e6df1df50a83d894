//! What a provider's errors mean: a table, of which the first line that fits decides.

use super::fact::{Evidence, Status};
use super::word::words;
use crate::format::value::{Action, Cause, RefusalClass};
use serde::Serialize;

words! {
    /// What an error means.
    pub enum Meaning {
        /// The request was not carried out and may be tried again.
        Retry = "retry",
        /// Our own configuration is at fault; the grant lives.
        OwnFault = "own_fault",
        /// The grant cannot be used now; nothing says that it is dead.
        Suspended = "suspended",
        /// The grant is over.
        Dead = "dead",
        /// An earlier request with the same token is still at work and may yet rotate it: asking
        /// again is safe only where rotation is off.
        Busy = "busy",
        /// The answer does not say whether the request was carried out.
        Unknown = "unknown",
    }
}

/// One line of a provider's table of errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorRule {
    pub(super) asked: Vec<Action>,
    pub(super) http: Option<u16>,
    pub(super) error: String,
    pub(super) description: String,
    pub(super) meaning: Meaning,
    pub(super) cause: Option<Cause>,
    #[serde(flatten)]
    pub(super) evidence: Evidence,
}

impl ErrorRule {
    /// Returns what it applies to; to everything if empty.
    pub fn asked(&self) -> &[Action] {
        &self.asked
    }

    /// Returns the HTTP status that it asks for; any if none.
    pub fn http(&self) -> Option<u16> {
        self.http
    }

    /// Returns the error code that it asks for, exactly.
    pub fn error(&self) -> &str {
        &self.error
    }

    /// Returns the part of the description that it asks for, in small letters; any if empty.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Returns what such an error means.
    pub fn meaning(&self) -> Meaning {
        self.meaning
    }

    /// Returns why a grant is over that ends so, where the error tells.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Returns how well it is known.
    pub fn status(&self) -> Status {
        self.evidence.status
    }

    /// Returns where it was read.
    pub fn source(&self) -> &str {
        &self.evidence.source
    }

    /// Returns the day on which it was read.
    pub fn on(&self) -> &str {
        &self.evidence.on
    }

    /// Returns what else is to be said of it; mostly empty.
    pub fn note(&self) -> &str {
        &self.evidence.note
    }

    /// Says whether it speaks of this answer. `description` is in small letters.
    pub(super) fn fits(&self, asked: Action, status: u16, error: &str, description: &str) -> bool {
        (self.asked.is_empty() || self.asked.contains(&asked))
            && self.http.is_none_or(|http| http == status)
            && self.error == error
            && description.contains(&self.description)
    }
}

impl Meaning {
    /// Returns the class of a refusal that means so; `None` where it is no plain refusal.
    pub fn class(self) -> Option<RefusalClass> {
        match self {
            Self::Retry => Some(RefusalClass::Retry),
            Self::OwnFault => Some(RefusalClass::OwnFault),
            Self::Suspended => Some(RefusalClass::Suspended),
            Self::Dead => Some(RefusalClass::Dead),
            Self::Busy | Self::Unknown => None,
        }
    }

    /// Says whether one acts by it on a grant, so that it must be verified: `dead` ends a grant,
    /// and `busy` lets a refresh token be sent again where rotation is off.
    pub(super) fn needs_proof(self) -> bool {
        matches!(self, Self::Dead | Self::Busy)
    }
}
