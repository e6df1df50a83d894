//! What to do about an error: the kind of remedy for a program, one sentence for a person.

use super::Error;
use crate::disk::Refusal;

const REFUSED_ADVICE: &str =
    "the directory must be the user's own, with mode 0700 and files of 0600";

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// The same call may succeed later.
    Retry,
    /// The call itself is wrong.
    FixCall,
    /// Close the journal and open it again, after the cause is gone.
    Reopen,
    /// A person has to look.
    Operator,
}

impl Error {
    /// Says what kind of remedy there is.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Locked { .. } | Self::Busy { .. } | Self::Conflict { .. } => Remedy::Retry,
            Self::Compaction(cause) => cause.remedy(),
            Self::Poisoned(_) | Self::Closed | Self::Unproven { .. } => Remedy::Reopen,
            Self::Missing { .. }
            | Self::Exists { .. }
            | Self::NotKept { .. }
            | Self::NotEmpty { .. }
            | Self::Name(_)
            | Self::UnknownGrant { .. }
            | Self::GrantEnded { .. }
            | Self::Paused { .. }
            | Self::UnknownOperation { .. }
            | Self::StillLive { .. }
            | Self::CallbackUsed { .. }
            | Self::CallbackTooOld { .. }
            | Self::OtherToken { .. }
            | Self::TooLarge { .. }
            | Self::Option { .. } => Remedy::FixCall,
            _ => Remedy::Operator,
        }
    }

    /// Says in one sentence what to do next.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Missing { .. } => {
                "check the path, or create a store there, as `tokenwal import --create` does"
            }
            Self::Exists { .. } => "open it, or name another directory",
            Self::Io { source, .. } if Refusal::of(source).is_some() => REFUSED_ADVICE,
            Self::Refused { .. } => REFUSED_ADVICE,
            Self::NotKept { .. } => "ask for an LSN within that range",
            Self::Unproven { .. } => {
                "open the store for writing once, as `tokenwal compact` does: recovery proves it"
            }
            Self::NotEmpty { .. } => "name a directory that does not exist yet, or an empty one",
            Self::Locked { .. } => {
                "stop that process, or wait for it; reading commands work beside it"
            }
            Self::ForeignHost { .. } => {
                "make sure that the other host has stopped for good, then run `tokenwal claim DIR` or open with `claim`"
            }
            Self::Io { .. } => {
                "mend what the system reports, then open again: what was acknowledged is on disk"
            }
            Self::Corrupt(_) | Self::Suspect(_) => {
                "run `tokenwal verify` to see the damage and `tokenwal salvage DIR INTO` to copy what can be saved"
            }
            Self::NewerFormat { .. } => "use the version of tokenwal that wrote it",
            Self::Key(_) => "give the file, variable or service that holds the store's key",
            Self::WrongKey { .. } => "give the key with that id; the store is not damaged",
            Self::Forged { .. } => "run `tokenwal verify --key FILE` to see what else was changed",
            Self::BehindHead { .. } => {
                "this is an old copy: put the newest one back before anything writes to it"
            }
            Self::NoRoom { .. } => {
                "free space on the store's file system, or raise the limit of open files; what is in flight still has its place"
            }
            Self::Poisoned(_) => {
                "open the journal again: recovery decides what became of the unacknowledged records"
            }
            Self::Compaction(cause) => cause.advice(),
            Self::Closed => "open the journal again",
            Self::Name(_) => "use a name of 1 to 255 bytes without control characters",
            Self::UnknownGrant { .. } | Self::UnknownOperation { .. } => {
                "look the account up again"
            }
            Self::GrantEnded { .. } => "ask the user to authorise again, or revive the grant",
            Self::Paused { .. } => "stop whatever refreshed it before, then activate the grant",
            Self::Busy { .. } => "wait for that operation to settle, or resolve it",
            Self::Conflict { .. } => "look the account up again and decide anew",
            Self::StillLive { .. } => "revoke or end the grants and resolve the operations first",
            Self::CallbackUsed { .. } => {
                "ask what became of the first one, and never present its code again"
            }
            Self::CallbackTooOld { .. } => "send the user to authorise again",
            Self::CapReached { .. } => {
                "revoke a grant that nobody holds, or resolve what is in doubt"
            }
            Self::OtherToken { .. } => "present what that operation presented",
            Self::TooLarge { .. } => "raise `outcome_bytes_max`, and open again",
            Self::NotDurable => {
                "look at the ledger's replicas; what was issued is stored on this one"
            }
            Self::Option { .. } => "correct the option",
        }
    }
}
