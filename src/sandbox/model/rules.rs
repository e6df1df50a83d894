//! How a provider behaves, as plain data. What each rule does is said by the file that obeys it.

use super::dialect::Dialect;
use std::fmt;

/// How a provider behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The app.
    pub client: Client,
    /// How many approvals a user can have. `None`: as many as they like.
    pub cap: Option<u32>,
    /// What counts toward the cap.
    pub counts: Counts,
    /// Whether approvals of different scopes are counted apart.
    pub per_scope: bool,
    /// What becomes of the approval above the cap.
    pub overflow: Overflow,
    /// How many web sessions each user has, which count toward the cap and are never evicted.
    pub web_sessions: u32,
    /// Whether codes are exchanged for a refresh token too.
    pub issues_refresh: bool,
    /// Whether the same refresh token comes back when a user approves the same scopes again.
    pub same_refresh_on_reconsent: bool,
    /// Whether a code that is presented again revokes what it was exchanged for.
    pub code_reuse_revokes: bool,
    /// Whether a refresh spends the refresh token.
    pub rotation: bool,
    /// Whether a refresh that does not rotate answers with the refresh token all the same.
    pub repeats_refresh: bool,
    /// What a spent refresh token is still good for.
    pub recovery: Recovery,
    /// Whether a replay within its window spends what an earlier one was answered with. Otherwise
    /// all answers work until one of them is used.
    pub replay_replaces: bool,
    /// What follows when a spent refresh token is presented outside its window.
    pub reuse: Reuse,
    /// Whether two refreshes with one token at the same time are refused, rather than one after
    /// the other carried out.
    pub collides: bool,
    /// Whether a refresh ends the access tokens that came before it.
    pub refresh_ends_access: bool,
    /// What a revocation takes along.
    pub revoke: Revocation,
    /// Whether revoking what is not known succeeds, as RFC 7009 asks.
    pub revoke_unknown: bool,
    /// Whether only the app itself can revoke, not everybody who has the token.
    pub revoke_needs_client: bool,
    /// Whether access tokens can be asked about.
    pub introspects_access: bool,
    /// Whether refresh tokens can be asked about.
    pub introspects_refresh: bool,
    /// Whether a user's approvals are listed.
    pub lists_approvals: bool,
    /// For how long an approval lives without a refresh, in milliseconds.
    pub idle_ms: Option<u64>,
    /// For how long an approval lives at most, in milliseconds.
    pub max_ms: Option<u64>,
    /// For how long an access token works, in milliseconds. `None`: as long as its approval.
    pub access_ttl_ms: Option<u64>,
    /// For how long a code can be exchanged, in milliseconds.
    pub code_ttl_ms: u64,
    /// How answers are worded.
    pub dialect: Dialect,
}

/// The app's own credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    /// The consumer key.
    pub id: String,
    /// The consumer secret; empty where the app has none.
    pub secret: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What counts toward a cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// Every approval that lives.
    Approvals,
    /// Only those with a refresh token.
    RefreshTokens,
}

/// What becomes of an approval above the cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest dies for it, and nobody is told.
    OldestEvicted,
    /// The oldest that was never used dies for it, else the one whose last use is longest ago, and
    /// nobody is told.
    LeastUsedEvicted,
    /// It is refused.
    Refused,
}

/// What a spent refresh token is still good for. Windows open when it is first exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing.
    None,
    /// Another pair, within the window and until an answer to it was used.
    Replay {
        /// How long the window is, in milliseconds.
        ms: u64,
    },
    /// The same refresh token with another access token, until one of them was used.
    UntilSuccessorUsed {
        /// How long the window is at most, in milliseconds.
        max_ms: u64,
    },
    /// As much as before: a refresh spends nothing.
    OldStaysValid,
    /// The very pair that it was answered with, within the window.
    Idempotent {
        /// How long the window is, in milliseconds.
        ms: u64,
    },
}

/// What follows when a spent refresh token is presented outside its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// A refusal.
    PlainError,
    /// The end of the approval, with all its tokens.
    FamilyDies,
}

/// What a revocation takes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// That token alone. A refresh token ends its approval all the same, but leaves the access
    /// tokens until they lapse.
    TokenAlone,
    /// A refresh token ends its approval with all access tokens; an access token goes alone.
    Pair,
    /// Any token ends all approvals that the user gave the app.
    WholeGrant,
}

const HOUR_MS: u64 = 60 * 60 * 1000;

impl Rules {
    /// Salesforce as most apps meet it: four OAuth approvals per user beside the web session that
    /// nobody counts, no rotation, access tokens for two hours.
    pub fn salesforce() -> Self {
        Self {
            cap: Some(4),
            counts: Counts::RefreshTokens,
            reuse: Reuse::FamilyDies,
            collides: true,
            revoke: Revocation::Pair,
            revoke_unknown: false,
            revoke_needs_client: false,
            introspects_access: true,
            introspects_refresh: true,
            lists_approvals: true,
            access_ttl_ms: Some(2 * HOUR_MS),
            dialect: Dialect::salesforce(),
            ..Self::rfc6749()
        }
    }

    /// What the RFCs promise of any provider, and no more: no cap, no rotation, plain errors.
    pub fn rfc6749() -> Self {
        Self {
            client: Client {
                id: "sandbox-consumer-key".to_owned(),
                secret: "sandbox-consumer-secret".to_owned(),
            },
            cap: None,
            counts: Counts::Approvals,
            per_scope: false,
            overflow: Overflow::OldestEvicted,
            web_sessions: 0,
            issues_refresh: true,
            same_refresh_on_reconsent: false,
            code_reuse_revokes: false,
            rotation: false,
            repeats_refresh: false,
            recovery: Recovery::None,
            replay_replaces: false,
            reuse: Reuse::PlainError,
            collides: false,
            refresh_ends_access: false,
            revoke: Revocation::Pair,
            revoke_unknown: true,
            revoke_needs_client: true,
            introspects_access: true,
            introspects_refresh: true,
            lists_approvals: false,
            idle_ms: None,
            max_ms: None,
            access_ttl_ms: Some(HOUR_MS),
            code_ttl_ms: 15 * 60 * 1000,
            dialect: Dialect::rfc6749(),
        }
    }
}
