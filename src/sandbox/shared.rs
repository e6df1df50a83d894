//! What all requests to a sandbox share: the model, its clock and randomness, the faults to come.

use super::SandboxConfig;
use super::fault::Faults;
use super::model::{Model, NewTokens};
use crate::clock::{Clock, Entropy};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// What the three kinds of token begin with, as Salesforce's do.
pub(super) const CODE: &str = "aPrx";
const ACCESS: &str = "00D000000000001!AQ";
const REFRESH: &str = "5Aep861";

pub(super) struct Shared {
    model: Mutex<Model>,
    pub(super) faults: Mutex<Faults>,
    clock: Arc<dyn Clock>,
    /// By how much its own clock is ahead of that one.
    ahead_ms: AtomicU64,
    entropy: Arc<dyn Entropy>,
    /// Who approves, whomever a request hints at.
    pub(super) signed_in: Mutex<Option<String>>,
}

/// Where a sandbox is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Endpoints {
    /// Where a user approves.
    pub authorize: String,
    /// Where codes and refresh tokens are exchanged.
    pub token: String,
    /// Where tokens are revoked.
    pub revoke: String,
    /// Where tokens are asked about.
    pub introspect: String,
    /// Where a bearer asks who they are.
    pub userinfo: String,
}

impl Shared {
    pub(super) fn new(config: SandboxConfig, url: &str) -> Self {
        Self {
            model: Mutex::new(Model::new(config.rules, url)),
            faults: Mutex::new(Faults::default()),
            clock: config.clock,
            ahead_ms: AtomicU64::new(0),
            entropy: config.entropy,
            signed_in: Mutex::new(None),
        }
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        crate::sync::lock(&self.model)
    }

    /// Tells the time by the sandbox's own clock.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms().saturating_add(self.ahead_ms.load(Ordering::Acquire))
    }

    /// Sets the clock forward. It stands still at the end of time.
    pub(super) fn advance(&self, by_ms: u64) {
        let ahead = |ahead_ms: u64| Some(ahead_ms.saturating_add(by_ms));
        // It never refuses.
        let _ = self.ahead_ms.fetch_update(Ordering::AcqRel, Ordering::Acquire, ahead);
    }

    pub(super) fn endpoints(&self) -> Endpoints {
        let model = self.model();
        let url = |path: &str| format!("{}{path}", model.base_url());
        let paths = &model.rules().dialect.paths;
        Endpoints {
            authorize: url(&paths.authorize),
            token: url(&paths.token),
            revoke: url(&paths.revoke),
            introspect: url(&paths.introspect),
            userinfo: url(&paths.userinfo),
        }
    }

    /// Draws a token.
    pub(super) fn draw(&self, prefix: &str) -> io::Result<String> {
        let mut bytes = [0; 48];
        self.entropy.fill(&mut bytes)?;
        Ok(format!("{prefix}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    pub(super) fn new_tokens(&self) -> io::Result<NewTokens> {
        Ok(NewTokens { access: self.draw(ACCESS)?, refresh: Some(self.draw(REFRESH)?) })
    }
}
