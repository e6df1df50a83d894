//! The provider as a state machine: no clock, no randomness, no network.
//!
//! Times and new tokens are passed in, so that a property test can drive it without HTTP. What it
//! does is decided by its [`Rules`]; how that is worded is for the rooms around it. It tells what
//! a provider never tells: how each approval ended, and which token was behind it ([`Ending`]).
//!
//! ```
//! use tokenwal::sandbox::model::{Consent, Model, NewTokens, Rules};
//!
//! let mut provider = Model::new(Rules { cap: Some(1), ..Rules::salesforce() }, "http://sandbox");
//! for (code, number) in [("code-1", 1), ("code-2", 2)] {
//!     let new = NewTokens {
//!         access: format!("access-{number}"),
//!         refresh: Some(format!("refresh-{number}")),
//!     };
//!     provider.add_code(code, Consent::of("alice"), 0);
//!     provider.exchange(code, None, None, new, 0).unwrap();
//! }
//! assert!(!provider.is_alive("refresh-1", 0));
//! assert_eq!(provider.ending_of("refresh-1").unwrap().by.as_ref().unwrap().text, "code-2");
//! ```

mod answer;
mod approval;
mod dialect;
mod ending;
mod refresh;
mod revoke;
mod rules;
mod show;
#[cfg(test)]
mod tests;

pub use super::state::{ApprovalState, Counters};
pub use answer::{About, Consent, NewTokens, Pair, Refused, Standing, TokenKind};
pub use dialect::{Dialect, Identity, Paths, Shape, Wording};
pub use ending::{Ending, Presented};
pub use refresh::Refreshing;
pub use rules::{Client, Counts, Overflow, Recovery, Reuse, Revocation, Rules};
pub use show::Listed;

use crate::outcome::salesforce_id18;
use std::collections::HashMap;
use std::fmt;

/// The organisation to which all users belong.
const ORGANISATION: &str = "00D000000000001";

/// The provider.
pub struct Model {
    rules: Rules,
    base_url: String,
    users: Vec<User>,
    by_name: HashMap<String, usize>,
    codes: HashMap<String, Code>,
    approvals: Vec<Approval>,
    refreshes: Vec<Refresh>,
    /// Every refresh token there ever was.
    by_refresh: HashMap<String, usize>,
    access: HashMap<String, Access>,
    endings: Vec<Ending>,
    counters: Counters,
}

struct User {
    name: String,
    web_sessions: u32,
    /// Oldest first.
    approvals: Vec<usize>,
}

struct Code {
    consent: Consent,
    minted_at_ms: u64,
    /// Whether it was presented, and what it was exchanged for.
    presented: Option<Option<usize>>,
}

struct Approval {
    user: String,
    scope: String,
    nonce: Option<String>,
    state: ApprovalState,
    /// The refresh token that was issued last.
    newest: Option<usize>,
    /// Revokes it, as its refresh token does; from the list of approvals.
    delete_token: String,
    created_at_ms: u64,
    /// When it was last refreshed, or made.
    last_used_at_ms: u64,
    /// When it was last used in any way, if it ever was.
    used_at_ms: Option<u64>,
    refreshes: u32,
    /// How many refreshes are at work.
    at_work: u32,
}

/// A refresh token.
struct Refresh {
    text: String,
    approval: usize,
    /// From 1.
    generation: u32,
    issued_at_ms: u64,
    /// The token that was exchanged for it.
    parent: Option<usize>,
    /// The tokens that it was exchanged for; more than one where it was replayed.
    children: Vec<usize>,
    /// When it was first exchanged for another, or another took its place.
    spent_at_ms: Option<u64>,
    /// Whether it, or an access token that came with it, was used.
    used: bool,
    /// The access token that its first exchange was answered with.
    answered: Option<String>,
}

struct Access {
    /// `None` where the app acts for itself.
    approval: Option<usize>,
    /// The refresh token that it came with.
    refresh: Option<usize>,
    user: String,
    scope: String,
    issued_at_ms: u64,
    expires_at_ms: Option<u64>,
    revoked: bool,
}

impl Model {
    /// Makes a provider that nobody has approved anything at. The identity URLs begin with
    /// `base_url`.
    pub fn new(rules: Rules, base_url: impl Into<String>) -> Self {
        Self {
            rules,
            base_url: base_url.into(),
            users: Vec::new(),
            by_name: HashMap::new(),
            codes: HashMap::new(),
            approvals: Vec::new(),
            refreshes: Vec::new(),
            by_refresh: HashMap::new(),
            access: HashMap::new(),
            endings: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Returns how the provider behaves.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Changes how the provider behaves from now on, as an administrator might.
    pub fn rules_mut(&mut self) -> &mut Rules {
        &mut self.rules
    }

    /// Returns what identity URLs begin with.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Returns how often what happened.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub(in crate::sandbox) fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Checks the app's own credentials.
    ///
    /// # Errors
    /// [`Refused::ClientId`] and [`Refused::Client`].
    pub fn authenticate(&self, id: &str, secret: &str) -> Result<(), Refused> {
        if id != self.rules.client.id {
            Err(Refused::ClientId)
        } else if secret != self.rules.client.secret {
            Err(Refused::Client)
        } else {
            Ok(())
        }
    }

    /// Says whether a token works: a refresh token that is neither spent nor dead, or an access
    /// token that has not lapsed.
    pub fn is_alive(&self, token: &str, now_ms: u64) -> bool {
        if let Some(access) = self.access.get(token) {
            return self.access_works(access, now_ms);
        }
        self.standing(token, now_ms) == Standing::Works
    }

    /// Returns the number of the approval that a refresh or access token belongs to.
    pub fn approval_of(&self, token: &str) -> Option<usize> {
        let by_access = || self.access.get(token)?.approval;
        let by_refresh = || Some(self.refreshes.get(*self.by_refresh.get(token)?)?.approval);
        Some(by_refresh().or_else(by_access)? + 1)
    }

    /// Counts what a user has toward the cap, their web sessions included, over all scopes.
    pub fn live(&self, user: &str, now_ms: u64) -> usize {
        let Some(user) = self.user(user) else { return 0 };
        let web_sessions = usize::try_from(user.web_sessions).unwrap_or(usize::MAX);
        let live = user.approvals.iter().filter(|approval| self.counts(**approval, now_ms));
        web_sessions.saturating_add(live.count())
    }

    /// Returns the identity URL of a user, who is known from now on.
    pub fn identity_of(&mut self, user: &str) -> String {
        self.know(user);
        self.identity_url(user)
    }

    /// Returns the identity URL of a user who is known, in ids of 18 characters.
    fn identity_url(&self, user: &str) -> String {
        let id = |short: &str| salesforce_id18(short).unwrap_or_default();
        format!("{}/id/{}/{}", self.base_url, id(ORGANISATION), self.user_id(user))
    }

    /// Returns the id of a user who is known.
    fn user_id(&self, user: &str) -> String {
        let number = self.by_name.get(user).map_or(self.users.len(), |at| *at) + 1;
        salesforce_id18(&format!("005{number:012}")).unwrap_or_default()
    }

    fn user(&self, name: &str) -> Option<&User> {
        self.users.get(*self.by_name.get(name)?)
    }

    fn know(&mut self, name: &str) -> Option<&mut User> {
        let at = *self.by_name.entry(name.to_owned()).or_insert(self.users.len());
        if at == self.users.len() {
            self.users.push(User {
                name: name.to_owned(),
                web_sessions: self.rules.web_sessions,
                approvals: Vec::new(),
            });
        }
        self.users.get_mut(at)
    }

    /// Says whether an approval lives and counts toward the cap.
    fn counts(&self, approval: usize, now_ms: u64) -> bool {
        let Some(found) = self.approvals.get(approval) else { return false };
        let counted = match self.rules.counts {
            Counts::Approvals => true,
            Counts::RefreshTokens => found.newest.is_some(),
        };
        counted && self.lives(approval, now_ms)
    }

    fn lives(&self, approval: usize, now_ms: u64) -> bool {
        let found = self.approvals.get(approval);
        found.is_some_and(|found| found.state == ApprovalState::Live)
            && self.lapsed(approval, now_ms).is_none()
    }

    fn access_works(&self, access: &Access, now_ms: u64) -> bool {
        // Where only the refresh token is revoked, what came with it works on.
        let outlives = |approval: usize| {
            self.rules.revoke == Revocation::TokenAlone
                && self.approvals.get(approval).map(|found| found.state)
                    == Some(ApprovalState::Revoked)
        };
        !access.revoked
            && access.expires_at_ms.is_none_or(|expires_at_ms| now_ms < expires_at_ms)
            && access
                .approval
                .is_none_or(|approval| self.lives(approval, now_ms) || outlives(approval))
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("approvals", &self.approvals.len())
            .field("counters", &self.counters)
            .field("endings", &self.endings)
            .finish_non_exhaustive()
    }
}
