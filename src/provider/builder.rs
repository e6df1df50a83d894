//! What a provider is configured with, checked once, when it is built.

use super::endpoint::Endpoint;
use super::http::{Http, Limits};
use super::profile::{Profile, Rotation};
use super::{Inner, Provider, ProviderError};
use crate::clock::{Clock, SystemClock};
use crate::ids::App;
use crate::secret::Secret;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The deadline of a whole call, unless another is set.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The deadline for a connection within it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is taken, unless another length is set.
const RESPONSE_BYTES_MAX: usize = 64 << 10;
/// The most that it can be set to.
const RESPONSE_BYTES_LIMIT: usize = 1 << 20;

/// How the client proves who it is (RFC 6749, section 2.3.1). Without a secret it only says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientAuth {
    /// In the `Authorization` header; every server with client secrets takes it.
    Basic,
    /// In the form.
    Post,
}

/// Builds a [`Provider`].
#[must_use = "a builder does nothing until `build`"]
pub struct ProviderBuilder {
    pub(super) app: App,
    pub(super) profile: Profile,
    pub(super) rotation: Rotation,
    pub(super) secret: Option<Secret>,
    pub(super) auth: ClientAuth,
    pub(super) token_endpoint: String,
    pub(super) authorization_endpoint: Option<String>,
    pub(super) revocation_endpoint: Option<String>,
    pub(super) introspection_endpoint: Option<String>,
    limits: Limits,
    clock: Arc<dyn Clock>,
}

impl ProviderBuilder {
    pub(super) fn new(app: App, token_endpoint: &str) -> Self {
        Self {
            app,
            profile: Profile::rfc6749(),
            rotation: Rotation::Unknown,
            secret: None,
            auth: ClientAuth::Basic,
            token_endpoint: token_endpoint.to_owned(),
            authorization_endpoint: None,
            revocation_endpoint: None,
            introspection_endpoint: None,
            limits: Limits {
                connect_timeout: CONNECT_TIMEOUT,
                timeout: TIMEOUT,
                body_bytes_max: RESPONSE_BYTES_MAX,
            },
            clock: Arc::new(SystemClock),
        }
    }

    /// Sets what is known of the provider. The default is what the RFCs promise.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Says whether this app's refresh tokens rotate. Not knowing is read as if they did.
    pub fn rotation(mut self, rotation: Rotation) -> Self {
        self.rotation = rotation;
        self
    }

    /// Sets the client secret.
    pub fn client_secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Sets how the client proves who it is. The default is [`ClientAuth::Basic`].
    pub fn client_auth(mut self, auth: ClientAuth) -> Self {
        self.auth = auth;
        self
    }

    /// Sets where users are sent to approve.
    pub fn authorization_endpoint(mut self, url: &str) -> Self {
        self.authorization_endpoint = Some(url.to_owned());
        self
    }

    /// Sets where tokens are revoked (RFC 7009).
    pub fn revocation_endpoint(mut self, url: &str) -> Self {
        self.revocation_endpoint = Some(url.to_owned());
        self
    }

    /// Sets where tokens are asked about (RFC 7662).
    pub fn introspection_endpoint(mut self, url: &str) -> Self {
        self.introspection_endpoint = Some(url.to_owned());
        self
    }

    /// Sets the deadline of a whole call, from its start to the last byte. The default is 60 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeout = timeout;
        self
    }

    /// Sets the deadline for look-up, connection and TLS. The default is 10 s.
    ///
    /// A call that ends by it was not sent; one that ends by the deadline of the whole is in
    /// doubt. So it should be the shorter one.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.limits.connect_timeout = timeout;
        self
    }

    /// Sets the longest answer that is taken, in bytes. The default is 64 KiB, the most 1 MiB.
    pub fn response_bytes_max(mut self, bytes: usize) -> Self {
        self.limits.body_bytes_max = bytes.min(RESPONSE_BYTES_LIMIT);
        self
    }

    /// Sets the clock by which answers are dated. The default is the system's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Checks everything and makes the provider. Nothing is sent.
    ///
    /// # Errors
    /// [`ProviderError`] for a URL that is none, or that would send tokens in the clear; or when
    /// TLS cannot be set up, such as on a machine without root certificates.
    pub fn build(self) -> Result<Provider, ProviderError> {
        let optional = |what, url: &Option<String>| {
            url.as_deref().map(|url| Endpoint::new(what, url)).transpose()
        };
        let token = Endpoint::new("token endpoint", &self.token_endpoint)?;
        let authorization = optional("authorization endpoint", &self.authorization_endpoint)?;
        let revocation = optional("revocation endpoint", &self.revocation_endpoint)?;
        let introspection = optional("introspection endpoint", &self.introspection_endpoint)?;
        let called: Vec<&Endpoint> = [Some(&token), revocation.as_ref(), introspection.as_ref()]
            .into_iter()
            .flatten()
            .collect();
        let http =
            Http::new(self.limits, self.clock, &called).map_err(|_| ProviderError::Client)?;
        Ok(Provider(Arc::new(Inner {
            app: self.app,
            profile: self.profile,
            rotation: self.rotation,
            secret: self.secret,
            auth: self.auth,
            token,
            authorization,
            revocation,
            introspection,
            http,
        })))
    }
}

impl fmt::Debug for ProviderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderBuilder")
            .field("app", &self.app)
            .field("profile", &self.profile.name())
            .field("rotation", &self.rotation)
            .field("auth", &self.auth)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
