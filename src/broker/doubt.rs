//! What may be done about an operation in doubt. Pure: it decides, and sends nothing.
//!
//! Every step that presents a token again rests on a fact that the provider's profile states with a
//! verified source. Whatever does not is shown to the operator, not done (PROVIDERS.md, "Profile, as
//! data"; RFC 6749, sections 4.1.2 and 6).

use crate::format::value::{Action, DoubtReason, ResolvedHow};
use crate::journal::{GrantView, OperationView};
use crate::profile::{Introspects, Profile, Recovery, Reuse, RevokeGranularity};
use serde::Serialize;
use std::time::Duration;

/// What to do about an operation in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// Nothing has to be asked: this is what became of it.
    Resolve(ResolvedHow),
    /// Nothing before this time, in milliseconds since 1970; then look again.
    Wait(u64),
    /// Present the same token again.
    Resend,
    /// Mint again: what an earlier mint gave harms nobody.
    Mint,
    /// Ask the provider about the refresh token; by itself that changes nothing.
    Probe,
    /// A person has to decide.
    Ask(Why),
}

/// Why nothing is done without a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// A code must not be presented twice: that may revoke what it issued.
    CodeOnce,
    /// The token was presented again once already, and that is in doubt as well.
    Resent,
    /// Presenting a spent token may kill what lives, and nothing verified says otherwise.
    Reuse,
    /// It is not known when every access token that may be in use lapses.
    NoExpiry,
    /// The clock is behind what was recorded, so no window of time can be trusted.
    Clock,
    /// The store was claimed from a copy, and nobody has said, nor can the provider be asked, that
    /// the other one is out of use.
    Copy,
    /// The provider says that the refresh token no longer works: what took its place was lost.
    Spent,
    /// The grant is over, and the operation cannot change that.
    Over,
    /// A burnt code's answer was lost.
    Burn,
    /// Somebody has come to depend on the grant since its revocation was begun.
    Needed,
    /// Grants have come since the revocation was begun, and nothing verified says that it would end
    /// this one alone.
    Siblings,
}

impl Why {
    /// Says it in a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::CodeOnce => "a code presented twice may revoke what it issued",
            Self::Resent => "the token was presented again once, and that is in doubt as well",
            Self::Reuse => "nothing verified says that a spent token may be presented again",
            Self::NoExpiry => "it is not known when every access token in use lapses",
            Self::Clock => "the clock is behind what was recorded",
            Self::Copy => "the store is a claimed copy, and the grant may be in use elsewhere",
            Self::Spent => "the provider says that the refresh token no longer works",
            Self::Over => "the grant is over",
            Self::Burn => "the answer to the second presentation of the code was lost",
            Self::Needed => "somebody depends on the grant since its revocation was begun",
            Self::Siblings => "nothing verified says that newer grants would survive it",
        }
    }
}

/// What a decision rests on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) operation: &'a OperationView,
    /// The grant, where there is one.
    pub(super) grant: Option<&'a GrantView>,
    /// How many other operations in doubt asked the same of the same generation.
    pub(super) twins: usize,
    /// One of them was begun later.
    pub(super) has_later_twin: bool,
    /// How many grants of the account live that are newer than the operation.
    pub(super) newer_siblings: usize,
    pub(super) profile: &'a Profile,
    /// This app's refresh tokens rotate, or nobody verified that they do not.
    pub(super) rotates: bool,
    pub(super) now_ms: u64,
    /// When the newest record that is known was made.
    pub(super) newest_ms: u64,
    /// How much later than its deadline a request may still be carried out.
    pub(super) margin: Duration,
    /// For how long this process has known of the operation, by a clock that nobody sets.
    pub(super) known_for: Duration,
    /// How long, by the same clock, the grant's access tokens may still work at most.
    pub(super) token_left: Duration,
    /// What the provider said of the refresh token, when asked after the deadline and the margin.
    pub(super) probed: Option<Probed>,
}

/// What a probe said of a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probed {
    Active,
    Inactive,
    /// No answer, or none that can be read.
    Unknown,
}

impl Case<'_> {
    /// Decides.
    pub(super) fn step(&self) -> Step {
        match self.operation.action {
            Action::Exchange => Step::Ask(Why::CodeOnce),
            Action::Burn => Step::Ask(Why::Burn),
            // A question changes nothing, whether or not it was heard.
            Action::Introspect => Step::Resolve(ResolvedHow::NotIssued),
            Action::Mint if self.has_later_twin => Step::Resolve(ResolvedHow::Resent),
            Action::Mint => Step::Mint,
            Action::Revoke => self.revoke(),
            Action::Refresh => self.refresh(),
        }
    }

    /// Revoking again does no more than revoking once (RFC 7009, section 2.2), but for what came
    /// since: whoever asked for it knew nothing of that.
    fn revoke(&self) -> Step {
        let Some(grant) = self.grant.filter(|grant| grant.end.is_none()) else {
            // It is over, as was asked.
            return Step::Resolve(ResolvedHow::Answered);
        };
        if self.has_later_twin {
            return Step::Resolve(ResolvedHow::Resent);
        }
        if grant.stale {
            // Whoever has the other copy may have resolved it, and may depend on the grant.
            return Step::Ask(Why::Copy);
        }
        if grant.holders.iter().any(|held| held.lsn.0 > self.operation.op.0) {
            return Step::Ask(Why::Needed);
        }
        let alone = self.profile.revoke().verified() == Some(&RevokeGranularity::Pair);
        match alone || self.newer_siblings == 0 {
            true => Step::Resend,
            false => Step::Ask(Why::Siblings),
        }
    }

    fn refresh(&self) -> Step {
        let Some(grant) = self.grant else { return Step::Ask(Why::Over) };
        if grant.generation > self.operation.generation {
            // Spent means that a durable successor exists, and here it is.
            return Step::Resolve(ResolvedHow::Resent);
        }
        if grant.end.is_some() {
            return Step::Ask(Why::Over);
        }
        if !self.rotates {
            // Nothing dangles of an earlier one: the later stands for it.
            return match self.has_later_twin {
                true => Step::Resolve(ResolvedHow::Resent),
                false => Step::Resend,
            };
        }
        // Also before any probe: the other presentation may come later than this one's margin.
        if self.twins > 0 {
            return Step::Ask(Why::Resent);
        }
        if grant.stale {
            return self.with_probe(|| Step::Ask(Why::Copy));
        }
        match self.window() {
            // In its time it would come as one more presentation of a token that is spent by then.
            Window::Open if self.may_come_late() => Step::Wait(self.over_ms()),
            Window::Open => Step::Resend,
            Window::Untold => Step::Ask(Why::Clock),
            Window::Closed => self.with_probe(|| self.after_lapse(grant)),
        }
    }

    /// Says whether the provider is known to take the old token still.
    fn window(&self) -> Window {
        let behind = self.now_ms < self.newest_ms || self.now_ms < self.operation.since_ms;
        let half = |seconds: u32| {
            let half = Duration::from_millis(u64::from(seconds) * 500);
            let ends_ms = self.operation.since_ms.saturating_add(millis(half));
            match self.now_ms < ends_ms && self.known_for < half {
                _ if seconds == 0 => Window::Closed,
                _ if behind => Window::Untold,
                true => Window::Open,
                false => Window::Closed,
            }
        };
        match self.profile.recovery().verified() {
            Some(Recovery::OldStaysValid) => Window::Open,
            Some(Recovery::Replay { seconds } | Recovery::Idempotent { seconds }) => half(*seconds),
            Some(Recovery::UntilSuccessorUsed { max_seconds }) => half(*max_seconds),
            _ => Window::Closed,
        }
    }

    /// Returns from when on, in milliseconds since 1970, the request is over for sure: its deadline and
    /// the margin have passed, by the clock on the wall and by the one that nobody sets. Before that
    /// it may still be carried out, and nothing that the provider says of the token is final.
    fn over_ms(&self) -> u64 {
        let at_ms = self.operation.deadline_ms.saturating_add(millis(self.margin));
        let needed_ms = at_ms.saturating_sub(self.operation.since_ms);
        let left_ms = needed_ms.saturating_sub(millis(self.known_for));
        at_ms.max(self.now_ms.saturating_add(left_ms))
    }

    /// Says whether the request may still be on its way: it was cut off, and nobody has answered it.
    fn may_come_late(&self) -> bool {
        let unanswered = matches!(
            self.operation.doubt,
            None | Some(DoubtReason::Timeout | DoubtReason::Cancelled)
        );
        unanswered && self.now_ms < self.over_ms()
    }

    fn with_probe(&self, otherwise: impl FnOnce() -> Step) -> Step {
        let tells = |introspects| matches!(introspects, Introspects::Refresh | Introspects::Both);
        let introspection = self.profile.introspection();
        if !introspection.known().copied().is_some_and(tells) {
            return otherwise();
        }
        if self.now_ms < self.over_ms() {
            return Step::Wait(self.over_ms());
        }
        match self.probed {
            None => Step::Probe,
            // It was not spent, and a request that comes later than this is none that is known.
            Some(Probed::Active) if introspection.verified().is_some() => Step::Resend,
            Some(Probed::Inactive) => Step::Ask(Why::Spent),
            Some(Probed::Active | Probed::Unknown) => otherwise(),
        }
    }

    /// Once, after the access token that may be in use has lapsed: if the token is spent its
    /// successor is lost already, so nothing that anybody has can die of it.
    fn after_lapse(&self, grant: &GrantView) -> Step {
        if !matches!(self.profile.reuse().verified(), Some(Reuse::PlainError | Reuse::FamilyDies)) {
            return Step::Ask(Why::Reuse);
        }
        // Of each that there ever was: an earlier one may work for longer than the newest.
        let Some(lapses_at_ms) = grant.lapses_at_ms.filter(|at_ms| *at_ms > 0) else {
            return Step::Ask(Why::NoExpiry);
        };
        if self.now_ms < self.newest_ms {
            return Step::Ask(Why::Clock);
        }
        // A clock that was set forward makes no token lapse.
        let left_ms = self.now_ms.saturating_add(millis(self.token_left));
        let lapsed_ms = lapses_at_ms.max(left_ms);
        let free_ms = self.over_ms().max(lapsed_ms);
        if self.now_ms < free_ms { Step::Wait(free_ms) } else { Step::Resend }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

enum Window {
    Open,
    Closed,
    /// The clock cannot tell.
    Untold,
}

#[cfg(test)]
mod tests;
