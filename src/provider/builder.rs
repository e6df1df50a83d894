//! What a provider is configured with, checked once, when it is built.

use super::endpoint::Endpoint;
use super::http::{Http, Limits};
use super::{Inner, Provider, ProviderError, SigningKey, place};
use crate::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::ids::App;
use crate::profile::{ClientAuth, Profile, Rotation};
use crate::secret::Secret;
use reqwest::Url;
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

/// How a standing grant is minted, one that no user has to renew.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mint {
    /// In the client's own name (RFC 6749, section 4.4).
    ClientCredentials,
    /// By an assertion that the signing key signs (RFC 7523, section 2.1).
    JwtBearer {
        /// For whom; the account's user if none. Salesforce wants a username.
        subject: Option<String>,
        /// What the provider is called; its token endpoint if none. Salesforce wants its login
        /// host.
        audience: Option<String>,
    },
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
    issuer: Option<String>,
    parameters: Vec<(String, String)>,
    signing_key: Option<SigningKey>,
    mint: Option<Mint>,
    access_lifetime: Option<Duration>,
    entropy: Arc<dyn Entropy>,
    limits: Limits,
    clock: Arc<dyn Clock>,
}

impl Provider {
    /// Begins to configure a provider of which only the RFCs' promises are known.
    pub fn builder(app: App, token_endpoint: &str) -> ProviderBuilder {
        ProviderBuilder::new(app, token_endpoint)
    }

    /// Begins to configure a Salesforce app.
    ///
    /// `host` is a login host or My Domain, such as `https://login.salesforce.com`,
    /// `https://test.salesforce.com` or `https://acme.my.salesforce.com`. The endpoints are those
    /// of Salesforce Help, "OAuth Endpoints"; the secret goes into the form, as in its examples
    /// ("OAuth 2.0 Web Server Flow"). Whether refresh tokens rotate is the app's setting: say it
    /// with [`ProviderBuilder::rotation`].
    pub fn salesforce(app: App, consumer_secret: Secret, host: &str) -> ProviderBuilder {
        let base = format!("{}/services/oauth2", host.trim_end_matches('/'));
        ProviderBuilder::new(app, &format!("{base}/token"))
            .profile(Profile::salesforce())
            .client_secret(consumer_secret)
            .client_auth(ClientAuth::Post)
            .authorization_endpoint(&format!("{base}/authorize"))
            .revocation_endpoint(&format!("{base}/revoke"))
            .introspection_endpoint(&format!("{base}/introspect"))
    }

    /// Begins to configure an app of a provider whose endpoints its profile knows.
    ///
    /// `host` is the tenant's, such as `https://acme.okta.com`, or any of the provider's where
    /// there is but one. The client proves who it is in the first way that the profile names.
    ///
    /// ```
    /// use tokenwal::App;
    /// use tokenwal::provider::{Profile, Provider};
    ///
    /// let okta = Profile::builtin("okta").ok_or("no such profile")?;
    /// let app = App::new("okta", "0oa1gjh63g214q0Hq0g4")?;
    /// let provider = Provider::at(okta, app, "https://acme.okta.com")?.build()?;
    /// assert_eq!(provider.token_endpoint(), "https://acme.okta.com/oauth2/default/v1/token");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ProviderError::Missing`] where the profile knows no token endpoint,
    /// [`ProviderError::Url`] for a host that is none.
    pub fn at(profile: Profile, app: App, host: &str) -> Result<ProviderBuilder, ProviderError> {
        let known = profile.endpoints().known().ok_or(ProviderError::Missing("token endpoint"))?;
        let host = Url::parse(host).map_err(|_| ProviderError::Url { what: "host" })?;
        let expanded = |template: &str| {
            place::expanded(&profile, template, &host, app.client_id(), None)
                .ok_or(ProviderError::Url { what: "host" })
        };
        let optional = |template: &Option<String>| template.as_deref().map(expanded).transpose();
        let token = expanded(&known.token)?;
        let authorization_endpoint = optional(&known.authorize)?;
        let revocation_endpoint = optional(&known.revoke)?;
        let introspection_endpoint = optional(&known.introspect)?;
        let auth = profile.client_auth().known().and_then(|ways| ways.first().copied());
        Ok(ProviderBuilder {
            auth: auth.unwrap_or(ClientAuth::Basic),
            authorization_endpoint,
            revocation_endpoint,
            introspection_endpoint,
            profile,
            ..ProviderBuilder::new(app, &token)
        })
    }
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
            issuer: None,
            parameters: Vec::new(),
            signing_key: None,
            mint: None,
            access_lifetime: None,
            entropy: Arc::new(SystemEntropy),
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

    /// Sets the issuer, which an id token and, where the provider says it, a callback must name.
    pub fn issuer(mut self, issuer: &str) -> Self {
        self.issuer = Some(issuer.to_owned());
        self
    }

    /// Adds a parameter to the URL to which users are sent, such as an audience. It takes the place
    /// of the profile's of the same name.
    pub fn authorization_parameter(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the key that signs assertions, for [`ClientAuth::PrivateKeyJwt`] and
    /// [`Mint::JwtBearer`].
    pub fn signing_key(mut self, key: SigningKey) -> Self {
        self.signing_key = Some(key);
        self
    }

    /// Says how standing grants are minted. The default is not at all.
    pub fn mint(mut self, mint: Mint) -> Self {
        self.mint = Some(mint);
        self
    }

    /// Says how long access tokens live where the answer does not. Such an expiry is assumed, and
    /// never reports death. The default is what the profile knows.
    pub fn access_lifetime(mut self, lifetime: Duration) -> Self {
        self.access_lifetime = Some(lifetime);
        self
    }

    /// Sets where assertions get their ids from. The default is the system.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
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
    /// TLS cannot be set up, such as on a machine without root certificates; or where a signing key
    /// is needed and there is none.
    pub fn build(self) -> Result<Provider, ProviderError> {
        let signs = self.auth == ClientAuth::PrivateKeyJwt
            || matches!(self.mint, Some(Mint::JwtBearer { .. }));
        if signs && self.signing_key.is_none() {
            return Err(ProviderError::Missing("signing key"));
        }
        let lifetime_ms = self.access_lifetime.map(|lifetime| lifetime.as_millis());
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
            issuer: self.issuer,
            parameters: self.parameters,
            signing_key: self.signing_key,
            mint: self.mint,
            lifetime_ms: lifetime_ms.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
            entropy: self.entropy,
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
