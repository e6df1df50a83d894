//! What can go wrong with a request, on command.

use std::collections::VecDeque;
use std::time::Duration;

/// One thing that goes wrong with the next request.
///
/// "Commit" is the moment at which the sandbox does what was asked: issues, revokes, answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Cuts the connection; nothing was done.
    DropBeforeCommit,
    /// Does what was asked and cuts the connection before the first byte of the answer.
    DropAfterCommit,
    /// Waits, then does what was asked, whether or not the caller is still there.
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
}

/// The faults to come, in their order.
#[derive(Debug, Default)]
pub(super) struct Faults(VecDeque<Fault>);

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push_back(fault);
    }

    pub(super) fn next(&mut self) -> Option<Fault> {
        self.0.pop_front()
    }
}
