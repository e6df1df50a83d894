//! What a sandbox is started with.

use super::model::{Recovery, Reuse, Revocation, Rules};
use crate::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::profile::Profile;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Configures a [`Sandbox`](super::Sandbox). The default is Salesforce as most apps meet it: four
/// OAuth approvals per user, no rotation, access tokens for two hours.
#[must_use = "a configuration does nothing until `Sandbox::start`"]
pub struct SandboxConfig {
    pub(super) port: u16,
    pub(super) rules: Rules,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
}

impl SandboxConfig {
    /// Makes the default configuration.
    pub fn new() -> Self {
        Self {
            port: 0,
            rules: Rules::salesforce(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
        }
    }

    /// Lets it behave as what is known of a provider, with the cap that the guard goes by. What is
    /// not known is as the RFCs have it, and an app whose rotation is its own to set has none. The
    /// app's key and secret stay; everything else is overwritten.
    pub fn profile(mut self, profile: &Profile) -> Self {
        let client = self.rules.client;
        self.rules = Rules { client, ..Rules::from(profile) };
        self
    }

    /// Lets it behave by these rules. What else is set is set in them.
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Sets the port of 127.0.0.1 that it listens on. 0, as it is by default, is any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets how many approvals a user can have; one more evicts the oldest. At least 1.
    pub fn cap(mut self, cap: u32) -> Self {
        self.rules.cap = Some(cap.max(1));
        self
    }

    /// Sets how many web sessions each user has. They count toward the cap and are never evicted.
    pub fn web_sessions(mut self, count: u32) -> Self {
        self.rules.web_sessions = count;
        self
    }

    /// Says whether a refresh spends the refresh token. What follows when one is presented again is
    /// set by [`recovery`](Self::recovery) and [`reuse`](Self::reuse).
    pub fn rotation(mut self, rotation: bool) -> Self {
        self.rules.rotation = rotation;
        self
    }

    /// Sets what a spent refresh token is still good for.
    pub fn recovery(mut self, recovery: Recovery) -> Self {
        self.rules.recovery = recovery;
        self
    }

    /// Sets what follows when a spent refresh token is presented outside its window.
    pub fn reuse(mut self, reuse: Reuse) -> Self {
        self.rules.reuse = reuse;
        self
    }

    /// Sets what a revocation takes along.
    pub fn revocation(mut self, revocation: Revocation) -> Self {
        self.rules.revoke = revocation;
        self
    }

    /// Sets for how long an approval lives without a refresh.
    pub fn idle_lifetime(mut self, lifetime: Duration) -> Self {
        self.rules.idle_ms = Some(millis(lifetime));
        self
    }

    /// Says whether the same refresh token comes back when a user approves the same scopes again.
    pub fn same_refresh_on_reconsent(mut self, same: bool) -> Self {
        self.rules.same_refresh_on_reconsent = same;
        self
    }

    /// Says whether a code that is presented again revokes what it was exchanged for.
    pub fn code_reuse_revokes(mut self, revokes: bool) -> Self {
        self.rules.code_reuse_revokes = revokes;
        self
    }

    /// Sets the app's consumer key and secret.
    pub fn client(mut self, id: &str, secret: &str) -> Self {
        id.clone_into(&mut self.rules.client.id);
        secret.clone_into(&mut self.rules.client.secret);
        self
    }

    /// Sets how long an access token works.
    pub fn access_lifetime(mut self, lifetime: Duration) -> Self {
        self.rules.access_ttl_ms = Some(millis(lifetime));
        self
    }

    /// Sets how long an authorization code works.
    pub fn code_lifetime(mut self, lifetime: Duration) -> Self {
        self.rules.code_ttl_ms = millis(lifetime);
        self
    }

    /// Sets the clock by which tokens lapse, which [`advance`](super::Sandbox::advance) sets forward.
    /// Delays are real time all the same.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets where tokens are drawn from.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// Returns how many web sessions each user has.
    pub fn web_sessions_of_each(&self) -> u32 {
        self.rules.web_sessions
    }

    /// Returns the app's consumer key.
    pub fn client_id(&self) -> &str {
        &self.rules.client.id
    }

    /// Returns the app's consumer secret. It opens nothing but this sandbox.
    pub fn client_secret(&self) -> &str {
        &self.rules.client.secret
    }
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SandboxConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxConfig")
            .field("provider", &self.rules.dialect.name)
            .field("client_id", &self.rules.client.id)
            .field("cap", &self.rules.cap)
            .field("rotation", &self.rules.rotation)
            .finish_non_exhaustive()
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
