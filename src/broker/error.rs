//! What a caller of the broker hears: which account, which operation, what to do. Never a body, never
//! a token.

use super::doubt::Why;
use crate::error::{Error, Remedy};
use crate::ids::{AccountTag, App, GrantId, Holder, OpId};
use crate::outcome::{DoubtReason, NotSent, Refusal};
use std::sync::Arc;

/// Says why the broker could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// No app of this name was configured.
    #[error("{app}: this app was not configured")]
    UnknownApp {
        /// Which app.
        app: String,
    },
    /// The account is not in the ledger.
    #[error("account {account}: nothing is known of it")]
    UnknownAccount {
        /// The account.
        account: AccountTag,
    },
    /// The callback does not belong to its cookie, or the cookie is none of ours.
    #[error("the callback was refused: {0}; no code was presented")]
    Callback(CallbackFault),
    /// The user or the provider declined.
    #[error("the provider sent the user back with the error {error:?}; no code was presented")]
    Denied {
        /// The provider's error code, sanitised.
        error: String,
        /// Its description, sanitised.
        description: String,
    },
    /// The provider refused.
    #[error(
        "account {account}: operation {op} was refused ({}, status {}, {:?})",
        refusal.class(), refusal.status(), refusal.error()
    )]
    Refused {
        /// The account.
        account: AccountTag,
        /// The operation.
        op: OpId,
        /// What the provider said.
        refusal: Box<Refusal>,
    },
    /// The request never left.
    #[error("account {account}: operation {op} was not sent ({reason})")]
    NotSent {
        /// The account.
        account: AccountTag,
        /// The operation.
        op: OpId,
        /// Why.
        reason: NotSent,
    },
    /// It is not known what a request did.
    #[error("account {account}: operation {op} is in doubt")]
    InDoubt {
        /// The account.
        account: AccountTag,
        /// The operation.
        op: OpId,
        /// Why it is in doubt, where its process could still say so.
        reason: Option<DoubtReason>,
        /// Why it is not resolved without a person, if so.
        why: Option<Why>,
    },
    /// One more grant would be too many for the provider.
    #[error(
        "account {account}: {live} of {limit} grants live; one more would end grant {victim}, \
         which {} depend on",
        Holders(holders)
    )]
    CapReached {
        /// The account.
        account: AccountTag,
        /// How many count toward the cap.
        live: u32,
        /// The limit that is guarded.
        limit: u32,
        /// The grant that the provider would end.
        victim: GrantId,
        /// Who depends on it.
        holders: Vec<Holder>,
    },
    /// There is no living grant that would do.
    #[error("account {account}: no living grant covers what is needed")]
    NeedsAuthorization {
        /// The account.
        account: AccountTag,
    },
    /// The grant was imported and not activated.
    #[error("account {account}: grant {grant} is paused since it was imported")]
    Paused {
        /// The account.
        account: AccountTag,
        /// The grant.
        grant: GrantId,
    },
    /// The store is a claimed copy, and the grant may have been refreshed by whoever has the other
    /// one.
    #[error(
        "account {account}: grant {grant} is of a claimed copy, and {}",
        if *spent { "its refresh token is spent" } else { "may be in use elsewhere" }
    )]
    Stale {
        /// The account.
        account: AccountTag,
        /// The grant.
        grant: GrantId,
        /// The provider says that the refresh token no longer works; else nobody can say.
        spent: bool,
    },
    /// To revoke this grant may take others along.
    #[error("account {account}: revoking grant {grant} may end {siblings} others")]
    WouldKill {
        /// The account.
        account: AccountTag,
        /// The grant.
        grant: GrantId,
        /// How many others live, or may come to live by an exchange that is open.
        siblings: usize,
    },
    /// No call is made now: the provider asked for time of this account or of all, calls to this host
    /// have failed in a row, or there is a pair of which another would last no longer.
    #[error("{app}: no call before {until_ms} ms since 1970")]
    NotNow {
        /// The app.
        app: App,
        /// From when on.
        until_ms: u64,
        /// The provider named the time.
        asked: bool,
    },
    /// What was asked cannot be done to this operation or grant.
    #[error("account {account}: {problem}")]
    Choice {
        /// The account.
        account: AccountTag,
        /// What is wrong.
        problem: &'static str,
    },
    /// An outcome could not be stored; the broker issues nothing more.
    #[error("account {account}: the outcome of operation {op} could not be stored")]
    NotStored {
        /// The account.
        account: AccountTag,
        /// The operation.
        op: OpId,
        /// Why.
        #[source]
        source: Arc<Error>,
    },
    /// The task that was to do it is gone: it panicked, or the runtime on which the broker was built
    /// has ended. What it had begun is in doubt in the ledger.
    #[error("the task that was to do this was lost")]
    Lost,
    /// The broker is being shut down.
    #[error("the broker is shut down")]
    Closed,
    /// The ledger refused.
    #[error(transparent)]
    Ledger(#[from] Arc<Error>),
}

/// What is wrong with a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallbackFault {
    /// The cookie is not one of ours, or of another store.
    #[error("the cookie is not one of this store's")]
    Cookie,
    /// The click was too long ago.
    #[error("the cookie has expired")]
    Expired,
    /// The state is not that of the cookie.
    #[error("the state is not the one that was sent")]
    State,
    /// Another issuer answered than the one that was asked (RFC 9207).
    #[error("the issuer is not the one that was asked")]
    Issuer,
    /// There is neither a code nor an error.
    #[error("there is no code")]
    NoCode,
    /// A parameter is given twice (RFC 6749, section 3.1).
    #[error("a parameter is given twice")]
    Twice,
    /// The query is longer than any provider's answer, or has more parameters.
    #[error("the query is too long")]
    TooLong,
    /// The code came with another click, and was presented for that one.
    #[error("the code was given to another click")]
    OtherClick,
}

impl From<Error> for BrokerError {
    fn from(error: Error) -> Self {
        match error {
            Error::Paused { account, grant } => Self::Paused { account, grant },
            error => Self::Ledger(Arc::new(error)),
        }
    }
}

impl BrokerError {
    /// Says what kind of remedy there is.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::NotSent { .. } | Self::NotNow { .. } => Remedy::Retry,
            Self::UnknownApp { .. }
            | Self::UnknownAccount { .. }
            | Self::Callback(_)
            | Self::Denied { .. }
            | Self::Choice { .. } => Remedy::FixCall,
            Self::Closed | Self::NotStored { .. } => Remedy::Reopen,
            Self::Ledger(error) => error.remedy(),
            Self::Refused { refusal, .. } => match refusal.class() {
                crate::outcome::RefusalClass::Retry => Remedy::Retry,
                _ => Remedy::Operator,
            },
            _ => Remedy::Operator,
        }
    }

    /// Says in one sentence what to do next.
    pub fn advice(&self) -> &'static str {
        use crate::outcome::RefusalClass;
        match self {
            Self::UnknownApp { .. } => "configure the app when the broker is built",
            Self::UnknownAccount { .. } => "send the user to approve, or import the pair",
            Self::Callback(CallbackFault::Expired | CallbackFault::Cookie)
            | Self::Denied { .. } => "send the user to approve once more",
            Self::Callback(_) => "do not trust this request; send the user to approve once more",
            Self::Refused { refusal, .. } => match refusal.class() {
                RefusalClass::Retry => "try again after the time that the provider named",
                RefusalClass::OwnFault => "correct the app's id, secret or endpoints",
                RefusalClass::Suspended => {
                    "the grant lives: look at the user and the app at the provider"
                }
                RefusalClass::Dead => "send the user to approve once more",
            },
            Self::NotSent { .. } => "try again: nothing reached the provider",
            Self::InDoubt { .. } => {
                "do not send it again; `tokenwal indoubt` shows what the provider's rules allow"
            }
            Self::CapReached { .. } => {
                "let a holder go, revoke a grant, or allow it by the policy at the cap"
            }
            Self::NeedsAuthorization { .. } => "send the user to approve",
            Self::Paused { .. } => "activate it once the old refresher is off",
            Self::Stale { spent: true, .. } => "send the user to approve once more",
            Self::Stale { .. } => {
                "make sure that nobody else refreshes or needs it, and say so by `activate`"
            }
            Self::WouldKill { .. } => "move their holders first, or revoke with force",
            Self::NotNow { .. } => "wait until then: a valid token is handed out meanwhile",
            Self::Choice { .. } => "look the account up again and decide anew",
            Self::NotStored { .. } => {
                "take what could not be stored by `take_unsettled`, mend the store, open it again"
            }
            Self::Lost => {
                "look the account up: what was begun is in doubt; if the runtime on which the broker \
                 was built has ended, build another"
            }
            Self::Closed => "build another broker",
            Self::Ledger(error) => error.advice(),
        }
    }
}

struct Holders<'a>(&'a [Holder]);

impl std::fmt::Display for Holders<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            [] => f.write_str("no holders"),
            [first, rest @ ..] => {
                write!(f, "{first}")?;
                rest.iter().try_for_each(|holder| write!(f, ", {holder}"))
            }
        }
    }
}
