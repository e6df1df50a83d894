//! What killed an approval: one line for every ending, with its reason and the token behind it.

use super::answer::TokenKind;
use super::{ApprovalState, Model};
use std::fmt;

/// How an approval ended. There is one for each that did, in the order in which they did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The number of the approval, from 1.
    pub approval: usize,
    /// Whose it was.
    pub user: String,
    /// Why it ended; never [`ApprovalState::Live`].
    pub reason: ApprovalState,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What was presented when it ended. `None` where time alone ended it, or a web session.
    pub by: Option<Presented>,
}

/// A token that was presented.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented {
    /// What it was.
    pub kind: TokenKind,
    /// The number of the approval that it belongs to, or made.
    pub approval: usize,
    /// Which refresh token of the approval, from 1; 0 for other tokens.
    pub generation: u32,
    /// The token itself.
    pub text: String,
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented")
            .field("kind", &self.kind)
            .field("approval", &self.approval)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Returns how approvals ended, in the order in which they did.
    pub fn endings(&self) -> &[Ending] {
        &self.endings
    }

    /// Returns what ended the approval of a refresh or access token, if anything has.
    pub fn ending_of(&self, token: &str) -> Option<&Ending> {
        let approval = self.approval_of(token)?;
        self.endings.iter().find(|ending| ending.approval == approval)
    }

    /// Ends an approval, unless it has ended already.
    pub(super) fn end(
        &mut self,
        approval: usize,
        reason: ApprovalState,
        at_ms: u64,
        by: Option<Presented>,
    ) {
        let Some(found) = self.approvals.get_mut(approval) else { return };
        if found.state != ApprovalState::Live {
            return;
        }
        found.state = reason;
        let user = found.user.clone();
        let counters = &mut self.counters;
        match reason {
            ApprovalState::Evicted => counters.evictions += 1,
            ApprovalState::Idle | ApprovalState::Expired => counters.expiries += 1,
            _ => {}
        }
        self.endings.push(Ending { approval: approval + 1, user, reason, at_ms, by });
    }

    /// Ends an approval whose time is over.
    pub(super) fn lapse(&mut self, approval: usize, now_ms: u64) {
        if let Some((reason, at_ms)) = self.lapsed(approval, now_ms) {
            self.end(approval, reason, at_ms, None);
        }
    }

    /// Ends all approvals whose time is over.
    pub fn lapse_all(&mut self, now_ms: u64) {
        for approval in 0..self.approvals.len() {
            self.lapse(approval, now_ms);
        }
    }

    /// Says whether time alone has ended an approval that nothing else has, and when.
    pub(super) fn lapsed(&self, approval: usize, now_ms: u64) -> Option<(ApprovalState, u64)> {
        let found = self.approvals.get(approval)?;
        if found.state != ApprovalState::Live {
            return None;
        }
        let after =
            |since: u64, span: Option<u64>, reason| Some((reason, since.checked_add(span?)?));
        let idle = after(found.last_used_at_ms, self.rules.idle_ms, ApprovalState::Idle);
        let max = after(found.created_at_ms, self.rules.max_ms, ApprovalState::Expired);
        // Without a refresh token it is no more than its access token.
        let alone = found.newest.is_none().then_some(self.rules.access_ttl_ms).flatten();
        let access = after(found.created_at_ms, alone, ApprovalState::Expired);
        let due = [idle, max, access].into_iter().flatten().min_by_key(|(_, at_ms)| *at_ms)?;
        (due.1 <= now_ms).then_some(due)
    }
}
