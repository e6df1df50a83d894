//! What a sandbox shows of itself: approvals and counts, never a token.

use super::model::{Ending, TokenKind};
use serde::Serialize;

/// What a sandbox holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SandboxState {
    /// The provider that it behaves like.
    pub provider: String,
    /// How many approvals a user can have, if there is a limit.
    pub cap: Option<u32>,
    /// Whether a refresh spends the refresh token.
    pub rotation: bool,
    /// The users who ever approved, in the order of their first approval.
    pub users: Vec<UserView>,
    /// How approvals ended, in the order in which they did.
    pub endings: Vec<EndingView>,
    /// What happened so far.
    pub counters: Counters,
}

/// One user's approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UserView {
    /// The name by which the sandbox was told of them.
    pub name: String,
    /// The identity URL in the answers.
    pub identity_url: String,
    /// How many approvals and web sessions count against the cap.
    pub live: usize,
    /// How many of them are web sessions, which are never evicted.
    pub web_sessions: u32,
    /// All approvals, oldest first.
    pub approvals: Vec<ApprovalView>,
}

/// One approval: a grant, as the provider sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ApprovalView {
    /// Counts all approvals of the sandbox, from 1.
    pub number: usize,
    /// Whether it lives, or what ended it.
    pub state: ApprovalState,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it was last refreshed, or made.
    pub last_used_at_ms: u64,
    /// How often it was refreshed.
    pub refreshes: u32,
    /// How many of its access tokens work.
    pub access_tokens: usize,
}

/// Whether an approval lives, or what ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ApprovalState {
    /// It counts against the cap and its refresh token works.
    Live,
    /// A newer approval took its place at the cap.
    Evicted,
    /// It was revoked.
    Revoked,
    /// A spent refresh token was presented again.
    Reused,
    /// The code that it was made by was presented again.
    CodeReused,
    /// It was not refreshed for too long.
    Idle,
    /// It lived as long as it may.
    Expired,
    /// Somebody ended it at the provider.
    EndedOutside,
}

/// How an approval ended, and what was presented when it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EndingView {
    /// The number of the approval.
    pub approval: usize,
    /// Whose it was.
    pub user: String,
    /// Why it ended.
    pub reason: ApprovalState,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What was presented. `None` where time alone ended it, or something outside.
    pub by: Option<PresentedView>,
}

/// A token that was presented, without the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PresentedView {
    /// What it was.
    pub kind: TokenKind,
    /// The number of the approval that it belongs to, or made.
    pub approval: usize,
    /// Which refresh token of the approval, from 1; 0 for other tokens.
    pub generation: u32,
}

impl EndingView {
    pub(super) fn of(ending: &Ending) -> Self {
        let by = ending.by.as_ref().map(|by| PresentedView {
            kind: by.kind,
            approval: by.approval,
            generation: by.generation,
        });
        let Ending { approval, reason, at_ms, .. } = *ending;
        Self { approval, user: ending.user.clone(), reason, at_ms, by }
    }
}

/// How often what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Codes exchanged for a pair.
    pub exchanges: u64,
    /// Refresh tokens exchanged for a pair.
    pub refreshes: u64,
    /// Tokens revoked.
    pub revocations: u64,
    /// Tokens asked about.
    pub introspections: u64,
    /// Requests refused for what they asked.
    pub refused: u64,
    /// Approvals that died because the cap was reached.
    pub evictions: u64,
    /// Approvals that died because their time was over.
    pub expiries: u64,
    /// Spent refresh tokens that were presented again, outside any window.
    pub reuses: u64,
    /// Spent refresh tokens that were presented again within their window, and answered.
    pub replays: u64,
    /// Codes that were presented again.
    pub code_reuses: u64,
    /// Access tokens issued to the app itself, or by an assertion.
    pub mints: u64,
    /// Refreshes refused because another with the same token was at work.
    pub collisions: u64,
    /// Faults that were met.
    pub faults: u64,
}
