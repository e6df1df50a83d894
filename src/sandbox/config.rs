//! What a sandbox is started with.

use super::model::Rules;
use crate::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Configures a [`Sandbox`](super::Sandbox). The default is Salesforce as most apps meet it: four
/// OAuth approvals per user, no rotation, access tokens for two hours.
#[must_use = "a configuration does nothing until `Sandbox::start`"]
pub struct SandboxConfig {
    pub(super) rules: Rules,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
}

impl SandboxConfig {
    /// Makes the default configuration.
    pub fn new() -> Self {
        Self {
            rules: Rules {
                client_id: "sandbox-consumer-key".to_owned(),
                client_secret: "sandbox-consumer-secret".to_owned(),
                cap: 4,
                rotation: false,
                access_ttl_ms: 2 * 60 * 60 * 1000,
                code_ttl_ms: 15 * 60 * 1000,
            },
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
        }
    }

    /// Sets how many approvals a user can have; one more evicts the oldest. At least 1.
    pub fn cap(mut self, cap: u32) -> Self {
        self.rules.cap = usize::try_from(cap.max(1)).unwrap_or(usize::MAX);
        self
    }

    /// Says whether a refresh spends the refresh token. One presented again kills its family.
    pub fn rotation(mut self, rotation: bool) -> Self {
        self.rules.rotation = rotation;
        self
    }

    /// Sets the app's consumer key and secret.
    pub fn client(mut self, id: &str, secret: &str) -> Self {
        id.clone_into(&mut self.rules.client_id);
        secret.clone_into(&mut self.rules.client_secret);
        self
    }

    /// Sets how long an access token works.
    pub fn access_lifetime(mut self, lifetime: Duration) -> Self {
        self.rules.access_ttl_ms = millis(lifetime);
        self
    }

    /// Sets how long an authorization code works.
    pub fn code_lifetime(mut self, lifetime: Duration) -> Self {
        self.rules.code_ttl_ms = millis(lifetime);
        self
    }

    /// Sets the clock by which tokens lapse. Delays are real time all the same.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets where tokens are drawn from.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// Returns the app's consumer key.
    pub fn client_id(&self) -> &str {
        &self.rules.client_id
    }

    /// Returns the app's consumer secret. It opens nothing but this sandbox.
    pub fn client_secret(&self) -> &str {
        &self.rules.client_secret
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
            .field("client_id", &self.rules.client_id)
            .field("cap", &self.rules.cap)
            .field("rotation", &self.rules.rotation)
            .finish_non_exhaustive()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
