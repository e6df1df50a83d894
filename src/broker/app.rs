//! One app at one provider, as a broker is configured with it.

use super::gate::Gate;
use super::metrics::DeskMeter;
use super::upstream::Upstream;
use crate::ids::App;
use crate::journal::{Cap, CapCounts};
use crate::profile::{self, Profile};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What to do where one more grant would be one too many for the provider and none may be revoked
/// without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum AtCap {
    /// Do not exchange: answer who would die.
    #[default]
    Refuse,
    /// Exchange, and ring an event that names who will die.
    Warn,
    /// Exchange.
    Proceed,
}

/// Configures one app: who it is, how its provider is called, what is known of that provider.
#[must_use = "a configuration does nothing until a broker has it"]
pub struct AppConfig {
    pub(super) app: App,
    pub(super) upstream: Arc<dyn Upstream>,
    pub(super) profile: Profile,
    pub(super) redirect_uri: String,
    pub(super) issuer: Option<String>,
    pub(super) rotates: Option<bool>,
    pub(super) cap: Option<u32>,
    pub(super) outside: Option<u32>,
    pub(super) at_cap: AtCap,
    pub(super) calls_at_once: usize,
    pub(super) ahead: Duration,
    pub(super) shared: bool,
    pub(super) mints: bool,
    pub(super) revoke_orphans: bool,
    pub(super) assumed_lifetime: Option<Duration>,
}

impl AppConfig {
    /// Configures an app with what its provider's profile says.
    pub fn new(app: App, upstream: Arc<dyn Upstream>, profile: Profile) -> Self {
        Self {
            app,
            upstream,
            profile,
            redirect_uri: String::new(),
            issuer: None,
            rotates: None,
            cap: None,
            outside: None,
            at_cap: AtCap::default(),
            calls_at_once: 16,
            ahead: Duration::from_secs(300),
            shared: false,
            mints: false,
            revoke_orphans: true,
            assumed_lifetime: None,
        }
    }

    /// Configures an app to judge by, with [`AppRules`](super::AppRules): its provider cannot be
    /// called.
    pub fn without_upstream(app: App, profile: Profile) -> Self {
        Self::new(app, Arc::new(super::judge::Nowhere), profile)
    }

    /// Sets where users come back to after they approved.
    pub fn redirect_uri(mut self, uri: &str) -> Self {
        uri.clone_into(&mut self.redirect_uri);
        self
    }

    /// Sets the issuer whose name callbacks must bear, where they bear one (RFC 9207).
    pub fn issuer(mut self, issuer: &str) -> Self {
        self.issuer = Some(issuer.to_owned());
        self
    }

    /// Says whether this app's refresh tokens rotate, where that is a setting of the app. Unsaid, and
    /// unless the profile says verified that they never do, they are taken to.
    pub fn rotates(mut self, rotates: bool) -> Self {
        self.rotates = Some(rotates);
        self
    }

    /// Sets how many grants a user may have, in place of the profile's conservative number.
    pub fn cap(mut self, grants: u32) -> Self {
        self.cap = Some(grants);
        self
    }

    /// Sets how many sessions of a user are out of the ledger's sight and count toward the cap, such
    /// as those of other writers on the same app.
    pub fn outside(mut self, sessions: u32) -> Self {
        self.outside = Some(sessions);
        self
    }

    /// Sets what to do at the cap. The default is [`AtCap::Refuse`].
    pub fn at_cap(mut self, policy: AtCap) -> Self {
        self.at_cap = policy;
        self
    }

    /// Sets how many calls to the provider may be on their way at once. The default is 16.
    pub fn calls_at_once(mut self, calls: usize) -> Self {
        self.calls_at_once = calls;
        self
    }

    /// Sets how long before its expiry an access token in use is refreshed. The default is 5 min, at
    /// most half of its lifetime.
    pub fn refresh_ahead(mut self, time: Duration) -> Self {
        self.ahead = time;
        self
    }

    /// Says that the accounts of this app are shared between tenants. By default a grant is for the
    /// tenant that obtained it.
    pub fn shared(mut self, shared: bool) -> Self {
        self.shared = shared;
        self
    }

    /// Says that the app mints pairs by client credentials or an assertion: all mints of an account are
    /// one standing grant.
    pub fn mints(mut self, mints: bool) -> Self {
        self.mints = mints;
        self
    }

    /// Says whether grants that nobody depends on are revoked without asking, where every rule for
    /// that holds. By default they are.
    pub fn revoke_orphans(mut self, revoke: bool) -> Self {
        self.revoke_orphans = revoke;
        self
    }

    /// Sets how long an access token is taken to work where the provider says nothing of it. Such an
    /// assumption only decides when to refresh; nothing is ever reported dead by it.
    pub fn assumed_lifetime(mut self, lifetime: Duration) -> Self {
        self.assumed_lifetime = Some(lifetime);
        self
    }
}

impl fmt::Debug for AppConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppConfig")
            .field("app", &self.app)
            .field("profile", &self.profile.name())
            .finish_non_exhaustive()
    }
}

/// A configured app at work.
pub(super) struct Desk {
    pub(super) config: AppConfig,
    pub(super) gate: Gate,
    pub(super) meter: DeskMeter,
}

impl Desk {
    pub(super) fn new(config: AppConfig) -> Self {
        let gate = Gate::new(config.calls_at_once);
        let meter = DeskMeter::new(config.app.provider());
        Self { config, gate, meter }
    }

    pub(super) fn app(&self) -> &App {
        &self.config.app
    }

    pub(super) fn profile(&self) -> &Profile {
        &self.config.profile
    }

    pub(super) fn upstream(&self) -> &dyn Upstream {
        &*self.config.upstream
    }

    /// Says whether a callback may come from this issuer. A provider that is known to name itself must.
    pub(super) fn is_issuer(&self, told: Option<&str>) -> bool {
        match (&self.config.issuer, told) {
            (Some(issuer), Some(told)) => issuer == told,
            (Some(_), None) => self.profile().iss_parameter().verified() != Some(&true),
            (None, _) => true,
        }
    }

    /// Says whether a refresh may spend the refresh token.
    pub(super) fn rotates(&self) -> bool {
        match (self.profile().rotation().verified(), self.config.rotates) {
            (Some(profile::Rotates::Never), _) => false,
            (Some(profile::Rotates::Always), _) => true,
            (_, Some(rotates)) => rotates,
            (_, None) => true,
        }
    }

    /// Returns the provider's own cap.
    pub(super) fn provider_cap(&self) -> Option<u32> {
        self.profile().cap().known().map(|cap| cap.number)
    }

    /// Returns what the guard keeps a user's grants below or at.
    pub(super) fn cap(&self) -> Option<Cap> {
        let known = self.profile().cap().known();
        let limit = self.config.cap.or(known.map(|cap| cap.guard))?;
        let outside = self.config.outside.or(known.map(|cap| cap.outside)).unwrap_or(0);
        let counts = match known.map(|cap| cap.counts) {
            Some(profile::CapCounts::RefreshTokens) => CapCounts::RefreshTokens,
            _ => CapCounts::Grants,
        };
        Some(Cap { limit, outside, counts })
    }

    pub(super) fn assumed_lifetime(&self) -> Option<Duration> {
        let seconds = || self.profile().expiry().known()?.access_seconds;
        self.config.assumed_lifetime.or_else(|| Some(Duration::from_secs(seconds()?.into())))
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("config", &self.config).finish_non_exhaustive()
    }
}
