//! What can go wrong with a request, on command.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// One thing that goes wrong with a request.
///
/// "Commit" is the moment at which the sandbox does what was asked: issues, revokes, answers.
/// Delays are in real time, whatever the sandbox's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
#[non_exhaustive]
pub enum Fault {
    /// Cuts the connection; nothing was done.
    DropBeforeCommit,
    /// Does what was asked and cuts the connection before the first byte of the answer.
    DropAfterCommit,
    /// Waits before it so much as looks at the request, then goes on, whether or not the caller is
    /// still there: a request that was long on its way.
    DelayBeforeArrival(Duration),
    /// Lets the request in, waits, then does what was asked, whether or not the caller is still
    /// there.
    DelayBeforeCommit(Duration),
    /// Does what was asked, then waits before it answers.
    DelayAfterCommit(Duration),
    /// Answers with this status and a page of HTML; nothing was done.
    StatusBeforeCommit(u16),
    /// Does what was asked and answers with this status and a page of HTML.
    StatusAfterCommit(u16),
    /// Does what was asked and cuts the connection behind so many bytes of the answer's body.
    TruncateBody(usize),
    /// Answers 429 with `Retry-After`; nothing was done.
    TooManyRequests {
        /// After how many seconds to ask again.
        retry_after_s: u32,
    },
    /// Answers 503 with `Retry-After`; nothing was done.
    Unavailable {
        /// After how many seconds to ask again.
        retry_after_s: u32,
    },
    /// Answers with an error; nothing was done, and what the error says need not be so.
    Refuse {
        /// Which error.
        error: FaultError,
        /// Under which status, such as 400, or 200.
        status: u16,
    },
    /// Does what was asked and answers with an error.
    RefuseAfterCommit {
        /// Which error.
        error: FaultError,
        /// Under which status, such as 400, or 200.
        status: u16,
    },
    /// Does what was asked and leaves the refresh token out: a refresh does not rotate, and an
    /// exchange gives an access token alone.
    OmitRefreshToken,
}

/// An error that is answered on command, in the provider's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FaultError {
    /// As for a refresh token that works no more.
    Dead,
    /// As for a token whose other refresh is at work.
    Busy,
    /// As for a user who is frozen: `invalid_grant`, "inactive user".
    Suspended,
    /// As for a wrong client secret.
    WrongSecret,
    /// `server_error`, which says nothing about what was done.
    ServerError,
    /// `temporarily_unavailable`.
    Unavailable,
}

/// Which requests a fault waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum On {
    /// Any for a token, a revocation or an introspection.
    #[default]
    Any,
    /// Exchanges, refreshes and mints.
    Token,
    /// Exchanges of codes.
    Exchange,
    /// Refreshes.
    Refresh,
    /// Mints: client credentials and assertions.
    Mint,
    /// Revocations.
    Revoke,
    /// Introspections.
    Introspect,
}

/// A fault and the request that it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Injection {
    /// What goes wrong.
    pub fault: Fault,
    /// With which requests.
    #[serde(default)]
    pub on: On,
    /// With which of them: 1 is the next. Where several are due at one request, the later ones
    /// wait for the request after it.
    #[serde(default = "one")]
    pub nth: u32,
    /// How many requests in a row it meets from there.
    #[serde(default = "one")]
    pub times: u32,
}

impl Injection {
    /// Lets a fault wait for the next request of a kind.
    pub fn new(fault: Fault, on: On) -> Self {
        Self { fault, on, nth: 1, times: 1 }
    }

    /// Sets for which of them it waits; 1 is the next.
    #[must_use]
    pub fn nth(mut self, nth: u32) -> Self {
        self.nth = nth;
        self
    }

    /// Sets how many requests in a row it meets from there.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }
}

impl From<Fault> for Injection {
    fn from(fault: Fault) -> Self {
        Self::new(fault, On::Any)
    }
}

fn one() -> u32 {
    1
}

impl On {
    fn includes(self, asked: Self) -> bool {
        self == Self::Any
            || self == asked
            || (self == Self::Token && matches!(asked, Self::Exchange | Self::Refresh | Self::Mint))
    }
}

/// The faults to come, in their order.
#[derive(Debug, Default)]
pub(super) struct Faults(VecDeque<Injection>);

impl Faults {
    pub(super) fn add(&mut self, injection: Injection) {
        if injection.times > 0 {
            self.0.push_back(injection);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn waiting(&self) -> Vec<Injection> {
        self.0.iter().copied().collect()
    }

    /// Returns what goes wrong with a request; all that wait for its kind come one nearer.
    pub(super) fn next(&mut self, asked: On) -> Option<Fault> {
        let mut met = None;
        for injection in self.0.iter_mut().filter(|injection| injection.on.includes(asked)) {
            if injection.nth > 1 {
                injection.nth -= 1;
            } else if met.is_none() {
                met = Some(injection.fault);
                injection.times -= 1;
            }
        }
        self.0.retain(|injection| injection.times > 0);
        met
    }
}

/// A fault as JSON: `"drop_after_commit"`, or `{"delay_before_commit": {"ms": 500}}`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Written {
    DropBeforeCommit,
    DropAfterCommit,
    DelayBeforeArrival { ms: u64 },
    DelayBeforeCommit { ms: u64 },
    DelayAfterCommit { ms: u64 },
    StatusBeforeCommit { status: u16 },
    StatusAfterCommit { status: u16 },
    TruncateBody { bytes: usize },
    TooManyRequests { retry_after_s: u32 },
    Unavailable { retry_after_s: u32 },
    Refuse { error: FaultError, status: u16 },
    RefuseAfterCommit { error: FaultError, status: u16 },
    OmitRefreshToken,
}

impl From<Written> for Fault {
    fn from(written: Written) -> Self {
        let span = Duration::from_millis;
        match written {
            Written::DropBeforeCommit => Self::DropBeforeCommit,
            Written::DropAfterCommit => Self::DropAfterCommit,
            Written::DelayBeforeArrival { ms } => Self::DelayBeforeArrival(span(ms)),
            Written::DelayBeforeCommit { ms } => Self::DelayBeforeCommit(span(ms)),
            Written::DelayAfterCommit { ms } => Self::DelayAfterCommit(span(ms)),
            Written::StatusBeforeCommit { status } => Self::StatusBeforeCommit(status),
            Written::StatusAfterCommit { status } => Self::StatusAfterCommit(status),
            Written::TruncateBody { bytes } => Self::TruncateBody(bytes),
            Written::TooManyRequests { retry_after_s } => Self::TooManyRequests { retry_after_s },
            Written::Unavailable { retry_after_s } => Self::Unavailable { retry_after_s },
            Written::Refuse { error, status } => Self::Refuse { error, status },
            Written::RefuseAfterCommit { error, status } => {
                Self::RefuseAfterCommit { error, status }
            }
            Written::OmitRefreshToken => Self::OmitRefreshToken,
        }
    }
}

impl From<Fault> for Written {
    fn from(fault: Fault) -> Self {
        let ms = super::config::millis;
        match fault {
            Fault::DropBeforeCommit => Self::DropBeforeCommit,
            Fault::DropAfterCommit => Self::DropAfterCommit,
            Fault::DelayBeforeArrival(delay) => Self::DelayBeforeArrival { ms: ms(delay) },
            Fault::DelayBeforeCommit(delay) => Self::DelayBeforeCommit { ms: ms(delay) },
            Fault::DelayAfterCommit(delay) => Self::DelayAfterCommit { ms: ms(delay) },
            Fault::StatusBeforeCommit(status) => Self::StatusBeforeCommit { status },
            Fault::StatusAfterCommit(status) => Self::StatusAfterCommit { status },
            Fault::TruncateBody(bytes) => Self::TruncateBody { bytes },
            Fault::TooManyRequests { retry_after_s } => Self::TooManyRequests { retry_after_s },
            Fault::Unavailable { retry_after_s } => Self::Unavailable { retry_after_s },
            Fault::Refuse { error, status } => Self::Refuse { error, status },
            Fault::RefuseAfterCommit { error, status } => Self::RefuseAfterCommit { error, status },
            Fault::OmitRefreshToken => Self::OmitRefreshToken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_wait_for_their_request() {
        let mut faults = Faults::default();
        faults.add(Injection::new(Fault::DropAfterCommit, On::Refresh).nth(2));
        faults.add(Injection::new(Fault::OmitRefreshToken, On::Token).times(2));
        faults.add(Fault::DropBeforeCommit.into());
        assert_eq!(faults.next(On::Revoke), Some(Fault::DropBeforeCommit));
        assert_eq!(faults.next(On::Revoke), None);
        assert_eq!(faults.next(On::Refresh), Some(Fault::OmitRefreshToken));
        // Two are due: the first that was added, then the other.
        assert_eq!(faults.next(On::Refresh), Some(Fault::DropAfterCommit));
        assert_eq!(faults.next(On::Exchange), Some(Fault::OmitRefreshToken));
        assert_eq!(faults.next(On::Any), None);
        assert!(faults.waiting().is_empty());
    }

    #[test]
    fn faults_are_read_and_written() {
        let text = r#"[{"fault":"drop_after_commit"},
            {"fault":{"refuse":{"error":"server_error","status":200}},"on":"refresh","nth":3},
            {"fault":{"delay_before_commit":{"ms":1500}},"times":2}]"#;
        let read: Vec<Injection> = serde_json::from_str(text).unwrap();
        let refuse = Fault::Refuse { error: FaultError::ServerError, status: 200 };
        let delay = Fault::DelayBeforeCommit(Duration::from_millis(1500));
        assert_eq!(
            read,
            [
                Fault::DropAfterCommit.into(),
                Injection::new(refuse, On::Refresh).nth(3),
                Injection::from(delay).times(2),
            ]
        );
        let written = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Injection>>(&written).unwrap(), read);
        for wrong in [
            r#"{"fault":"drop"}"#,
            r#"{"fault":"truncate_body"}"#,
            r#"{"fault":{"truncate_body":{"bytes":1,"more":1}}}"#,
            r#"{"fault":"omit_refresh_token","when":"refresh"}"#,
            r#"{"fault":"omit_refresh_token","on":"token "}"#,
        ] {
            assert!(serde_json::from_str::<Injection>(wrong).is_err(), "{wrong}");
        }
    }
}
