//! Calls to an OAuth provider: each one gives an outcome, and no outcome shows a token.
//!
//! A call begins after its intent is durable and ends in [`Outcome`], which the journal settles.
//! It never fails otherwise: not sent, refused, issued and in doubt are all answers to the
//! question of what the provider did. Nothing here retries, follows a redirect, logs a body or
//! puts a secret into a URL. How an answer is read stands in `classify`, where a pair's calls may
//! go in `place`, and what a provider's errors mean in its [`Profile`].

mod assertion;
mod builder;
mod call;
mod classify;
mod endpoint;
mod http;
mod id_token;
mod look_up;
mod pkce;
mod place;
mod retry_after;
mod signature;
mod upstream;

pub use crate::outcome::Introspection;
pub use crate::profile::{ClientAuth, Profile, Rotation};
pub use assertion::SigningKey;
pub use builder::{Mint, ProviderBuilder};
pub use pkce::Pkce;

use crate::clock::Entropy;
use crate::format::value::Action;
use crate::ids::App;
use crate::outcome::{NotSent, Outcome};
use crate::secret::Secret;
use call::{Request, traced};
use endpoint::Endpoint;
use http::Http;
use reqwest::Url;
use std::fmt;
use std::sync::Arc;

/// The grant of RFC 7523, section 2.1.
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// One app at one OAuth provider. Cloning gives another handle to the same.
///
/// Its calls run on tokio. Dropping a call's future cuts the connection, and what the provider
/// did is then unknown: settle such an operation as in doubt, or let the call run in a task.
///
/// ```
/// use tokenwal::provider::{Pkce, Provider};
/// use tokenwal::{App, Secret, SystemEntropy};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app = App::new("salesforce", "3MVG9lKcPoNINVB")?;
/// let secret = Secret::new("1955279925675241571".to_owned());
/// let provider = Provider::salesforce(app, secret, "https://login.salesforce.com").build()?;
/// let pkce = Pkce::generate(&SystemEntropy)?;
/// let url = provider.authorization_url(
///     "https://app.example/callback",
///     &["api", "refresh_token"],
///     "state-of-this-click",
///     &pkce,
/// )?;
/// assert!(url.starts_with("https://login.salesforce.com/services/oauth2/authorize?"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Provider(Arc<Inner>);

struct Inner {
    app: App,
    profile: Profile,
    rotation: Rotation,
    secret: Option<Secret>,
    auth: ClientAuth,
    token: Endpoint,
    authorization: Option<Endpoint>,
    revocation: Option<Endpoint>,
    introspection: Option<Endpoint>,
    issuer: Option<String>,
    parameters: Vec<(String, String)>,
    signing_key: Option<SigningKey>,
    mint: Option<Mint>,
    lifetime_ms: Option<u64>,
    entropy: Arc<dyn Entropy>,
    http: Http,
}

/// Says what is wrong with a provider's configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// A URL is not absolute, or holds a user, a password or a fragment.
    #[error("the {what} is not a URL to send tokens to: give it as https://host/path")]
    Url {
        /// Which URL.
        what: &'static str,
    },
    /// A URL would send tokens in the clear.
    #[error("the {what} at {host} would send tokens in the clear: use https")]
    Insecure {
        /// Which URL.
        what: &'static str,
        /// Its host.
        host: String,
    },
    /// A URL is needed that was not configured.
    #[error("the provider has no {0}: configure one")]
    Missing(&'static str),
    /// A private key could not be read.
    #[error(
        "the signing key cannot be read: give a PKCS #8 PEM of an RSA key of at least 2048 bits, \
         or of a P-256 key"
    )]
    Key,
    /// TLS could not be set up.
    #[error("TLS cannot be set up: install this system's root certificates")]
    Client,
}

impl Provider {
    /// Returns the app.
    pub fn app(&self) -> &App {
        &self.0.app
    }

    /// Returns where tokens are asked for.
    pub fn token_endpoint(&self) -> &str {
        self.0.token.url().as_str()
    }

    /// Returns what is known of the provider.
    pub fn profile(&self) -> &Profile {
        &self.0.profile
    }

    /// Returns the issuer, where one was configured.
    pub fn issuer(&self) -> Option<&str> {
        self.0.issuer.as_deref()
    }

    /// Returns the URL to which a user is sent to approve (RFC 6749, section 4.1.1, RFC 7636).
    ///
    /// `state` comes back with the code and must be checked then.
    ///
    /// # Errors
    /// [`ProviderError::Missing`] where no authorization endpoint was configured.
    pub fn authorization_url(
        &self,
        redirect_uri: &str,
        scopes: &[&str],
        state: &str,
        pkce: &Pkce,
    ) -> Result<String, ProviderError> {
        let mut url = self.0.approval(redirect_uri, &scopes.join(" "), state, pkce.challenge())?;
        self.0.add_parameters(&mut url);
        Ok(url.into())
    }

    /// Exchanges an authorization code for a pair (RFC 6749, section 4.1.3).
    ///
    /// The code is spent by the attempt: after any outcome but [`Outcome::NotSent`] it must not
    /// be presented again.
    pub async fn exchange(&self, code: Secret, redirect_uri: &str, pkce: &Pkce) -> Outcome {
        self.0.exchange(&code, redirect_uri, pkce.verifier(), None).await
    }

    /// Exchanges a refresh token for a pair (RFC 6749, section 6), at the configured endpoint.
    ///
    /// Where refresh tokens rotate this spends it; after an outcome in doubt it must not be
    /// presented again unless the provider is known to allow it.
    pub async fn refresh(&self, refresh_token: &Secret) -> Outcome {
        self.0.refresh(&self.0.token, refresh_token, "").await
    }

    /// Exchanges a refresh token for a pair at the endpoint that issued it, as
    /// [`IssuedPair::token_endpoint`](crate::IssuedPair::token_endpoint) tells.
    ///
    /// Nothing is sent if tokens may not go there: it must be the configured endpoint, or the same
    /// path by https on a host that the profile allows, verified.
    pub async fn refresh_at(&self, token_endpoint: &str, refresh_token: &Secret) -> Outcome {
        match place::token(&self.0.profile, &self.0.token, Some(token_endpoint)) {
            Some(endpoint) => self.0.refresh(&endpoint, refresh_token, "").await,
            None => traced(Action::Refresh.word(), Outcome::NotSent(NotSent::GivenUp)),
        }
    }

    /// Revokes a token (RFC 7009). Give the refresh token: it takes its access tokens along.
    ///
    /// Without a revocation endpoint nothing is sent.
    pub async fn revoke(&self, token: &Secret) -> Outcome {
        self.0.revoke(self.0.revocation.as_ref(), token).await
    }

    /// Asks whether a token works, and until when (RFC 7662). Nothing changes by asking.
    ///
    /// Without an introspection endpoint nothing is sent.
    pub async fn introspect(&self, token: &Secret) -> (Option<Introspection>, Outcome) {
        self.0.introspect(self.0.introspection.as_ref(), token).await
    }

    /// Asks for an access token in the client's own name (RFC 6749, section 4.4).
    pub async fn client_credentials(&self, scopes: &[&str]) -> Outcome {
        let scope = scopes.join(" ");
        self.0.mint(&[("grant_type", "client_credentials")], &scope, &[]).await
    }

    /// Asks for an access token by an assertion that the signing key signs (RFC 7523, section 2.1).
    ///
    /// `audience` is what the provider wants to be called, its token endpoint unless it says
    /// otherwise. Without a signing key nothing is sent.
    pub async fn jwt_bearer(
        &self,
        subject: &str,
        audience: Option<&str>,
        scopes: &[&str],
    ) -> Outcome {
        let audience = audience.unwrap_or(self.token_endpoint());
        let assertion = match self.0.assertion(subject, audience) {
            Ok(assertion) => assertion,
            Err(outcome) => return traced(Action::Mint.word(), outcome),
        };
        let form = [("grant_type", JWT_BEARER), ("assertion", assertion.reveal())];
        self.0.mint(&form, &scopes.join(" "), &[&assertion]).await
    }
}

impl Inner {
    fn approval(
        &self,
        redirect_uri: &str,
        scope: &str,
        state: &str,
        challenge: &str,
    ) -> Result<Url, ProviderError> {
        let endpoint = self.authorization.as_ref();
        let endpoint = endpoint.ok_or(ProviderError::Missing("authorization endpoint"))?;
        let mut url = endpoint.url().clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", self.app.client_id())
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", scope)
            .append_pair("state", state)
            .append_pair("code_challenge", challenge)
            .append_pair("code_challenge_method", "S256");
        Ok(url)
    }

    /// Adds what this provider, or this app, needs beside the standard's parameters.
    fn add_parameters(&self, url: &mut Url) {
        let known = self.profile.authorize_params().known().into_iter().flatten();
        let replaced = |name: &String| self.parameters.iter().any(|(own, _)| own == name);
        let known = known.filter(|(name, _)| !replaced(name));
        let mut pairs = url.query_pairs_mut();
        for (name, value) in known.chain(&self.parameters) {
            pairs.append_pair(name, value);
        }
    }

    async fn exchange(
        &self,
        code: &Secret,
        redirect_uri: &str,
        verifier: &Secret,
        nonce: Option<&str>,
    ) -> Outcome {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.reveal()),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier.reveal()),
        ];
        let sent = [code, verifier];
        let asked = Action::Exchange;
        self.issue(Request { asked, endpoint: &self.token, form: &form, sent: &sent, nonce }).await
    }

    /// Without a scope it asks for what was granted (RFC 6749, section 6).
    async fn refresh(&self, endpoint: &Endpoint, refresh_token: &Secret, scope: &str) -> Outcome {
        let mut form =
            vec![("grant_type", "refresh_token"), ("refresh_token", refresh_token.reveal())];
        if !scope.is_empty() {
            form.push(("scope", scope));
        }
        let sent = [refresh_token];
        let asked = Action::Refresh;
        self.issue(Request { asked, endpoint, form: &form, sent: &sent, nonce: None }).await
    }

    async fn introspect(
        &self,
        endpoint: Option<&Endpoint>,
        token: &Secret,
    ) -> (Option<Introspection>, Outcome) {
        let Some(endpoint) = endpoint else {
            return (None, Outcome::NotSent(NotSent::GivenUp));
        };
        let (introspection, outcome) = match self.ask(endpoint, &[("token", token.reveal())]).await
        {
            Ok(reply) => {
                self.question(Action::Introspect, &[token], |asked| asked.introspection(reply))
            }
            Err(outcome) => (None, outcome),
        };
        (introspection, traced(Action::Introspect.word(), outcome))
    }

    async fn mint(&self, form: &[(&str, &str)], scope: &str, sent: &[&Secret]) -> Outcome {
        let mut form = form.to_vec();
        if !scope.is_empty() {
            form.push(("scope", scope));
        }
        let asked = Action::Mint;
        self.issue(Request { asked, endpoint: &self.token, form: &form, sent, nonce: None }).await
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("app", &self.0.app)
            .field("profile", &self.0.profile.name())
            .field("rotation", &self.0.rotation)
            .field("token_endpoint", &self.0.token)
            .finish_non_exhaustive()
    }
}
