//! What a sandbox shows of itself: approvals and counts, never a token.

use serde::Serialize;

/// What a sandbox holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SandboxState {
    /// How many approvals a user can have.
    pub cap: usize,
    /// The users who ever approved, in the order of their first approval.
    pub users: Vec<UserView>,
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
    /// How many approvals count against the cap.
    pub live: usize,
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
    /// Spent refresh tokens that were presented again.
    pub reuses: u64,
    /// Refreshes refused because another with the same token was at work.
    pub collisions: u64,
    /// Faults that were met.
    pub faults: u64,
}
