//! Calls to an OAuth provider: each one gives an outcome, and no outcome shows a token.
//!
//! A call begins after its intent is durable and ends in [`Outcome`], which the journal settles.
//! It never fails otherwise: not sent, refused, issued and in doubt are all answers to the
//! question of what the provider did. Nothing here retries, follows a redirect, logs a body or
//! puts a secret into a URL. How an answer is read stands in `classify`, what a provider's errors
//! mean in `profile`.

mod builder;
mod classify;
mod endpoint;
mod http;
mod pkce;
mod profile;
mod retry_after;
mod signature;

pub use crate::outcome::Introspection;
pub use builder::{ClientAuth, ProviderBuilder};
pub use pkce::Pkce;
pub use profile::{Profile, Rotation};

use crate::ids::App;
use crate::outcome::{NotSent, Outcome, Signature, TokenResponse, salesforce_user};
use crate::secret::Secret;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use classify::{Question, Reply};
use endpoint::Endpoint;
use http::Http;
use profile::{Asked, Identity};
use reqwest::header::HeaderValue;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

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
    /// TLS could not be set up.
    #[error("TLS cannot be set up: install this system's root certificates")]
    Client,
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

    /// Returns the app.
    pub fn app(&self) -> &App {
        &self.0.app
    }

    /// Returns where tokens are asked for.
    pub fn token_endpoint(&self) -> &str {
        self.0.token.url().as_str()
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
        let endpoint = self.0.authorization.as_ref();
        let endpoint = endpoint.ok_or(ProviderError::Missing("authorization endpoint"))?;
        let mut url = endpoint.url().clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", self.0.app.client_id())
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("state", state)
            .append_pair("code_challenge", pkce.challenge())
            .append_pair("code_challenge_method", "S256");
        Ok(url.into())
    }

    /// Exchanges an authorization code for a pair (RFC 6749, section 4.1.3).
    ///
    /// The code is spent by the attempt: after any outcome but [`Outcome::NotSent`] it must not
    /// be presented again.
    pub async fn exchange(&self, code: Secret, redirect_uri: &str, pkce: &Pkce) -> Outcome {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.reveal()),
            ("redirect_uri", redirect_uri),
            ("code_verifier", pkce.verifier().reveal()),
        ];
        self.0.issue(Asked::Exchange, &form, &[&code, pkce.verifier()]).await
    }

    /// Exchanges a refresh token for a pair (RFC 6749, section 6).
    ///
    /// Where refresh tokens rotate this spends it; after an outcome in doubt it must not be
    /// presented again unless the provider is known to allow it.
    pub async fn refresh(&self, refresh_token: &Secret) -> Outcome {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.reveal())];
        self.0.issue(Asked::Refresh, &form, &[refresh_token]).await
    }

    /// Revokes a token (RFC 7009). Give the refresh token: it takes its access tokens along.
    ///
    /// Without a revocation endpoint nothing is sent.
    pub async fn revoke(&self, token: &Secret) -> Outcome {
        let Some(endpoint) = &self.0.revocation else {
            return Outcome::NotSent(NotSent::GivenUp);
        };
        let form = [("token", token.reveal())];
        let outcome = match self.0.ask(endpoint, &form).await {
            Ok(reply) => self.0.question(Asked::Revoke, &[token], |asked| asked.revocation(reply)),
            Err(outcome) => outcome,
        };
        traced(Asked::Revoke, outcome)
    }

    /// Asks whether a token works, and until when (RFC 7662). Nothing changes by asking.
    ///
    /// Without an introspection endpoint nothing is sent.
    pub async fn introspect(&self, token: &Secret) -> (Option<Introspection>, Outcome) {
        let Some(endpoint) = &self.0.introspection else {
            return (None, Outcome::NotSent(NotSent::GivenUp));
        };
        let form = [("token", token.reveal())];
        let (introspection, outcome) = match self.0.ask(endpoint, &form).await {
            Ok(reply) => {
                self.0.question(Asked::Introspect, &[token], |asked| asked.introspection(reply))
            }
            Err(outcome) => (None, outcome),
        };
        (introspection, traced(Asked::Introspect, outcome))
    }
}

impl Inner {
    async fn issue(&self, asked: Asked, form: &[(&str, &str)], sent: &[&Secret]) -> Outcome {
        let outcome = match self.ask(&self.token, form).await {
            Ok(reply) => self.question(asked, sent, |question| question.issuance(reply)),
            Err(outcome) => outcome,
        };
        traced(
            asked,
            match outcome {
                Outcome::Issued(response) => Outcome::Issued(self.completed(response)),
                other => other,
            },
        )
    }

    /// Sends a form with the client's own credentials.
    async fn ask(&self, endpoint: &Endpoint, form: &[(&str, &str)]) -> Result<Reply, Outcome> {
        let mut form = form.to_vec();
        let mut authorization = None;
        match (&self.secret, self.auth) {
            (Some(secret), ClientAuth::Basic) => {
                let header = basic(self.app.client_id(), secret);
                authorization = Some(header.ok_or(Outcome::NotSent(NotSent::GivenUp))?);
            }
            (Some(secret), ClientAuth::Post) => {
                form.push(("client_id", self.app.client_id()));
                form.push(("client_secret", secret.reveal()));
            }
            (None, _) => form.push(("client_id", self.app.client_id())),
        }
        self.http.post(endpoint, authorization, &form).await
    }

    /// Reads an answer, with all secrets at hand that it might echo.
    fn question<T>(
        &self,
        asked: Asked,
        sent: &[&Secret],
        read: impl FnOnce(Question<'_>) -> T,
    ) -> T {
        let sent: Vec<&Secret> = sent.iter().copied().chain(self.secret.as_ref()).collect();
        read(Question { asked, profile: self.profile, rotation: self.rotation, sent: &sent })
    }

    /// Adds to an answer what it does not say itself: its endpoint, its signature, its user.
    fn completed(&self, response: TokenResponse) -> TokenResponse {
        let response = response.with_token_endpoint(self.token.url().as_str().to_owned());
        match self.profile.identity() {
            Identity::Elsewhere => response,
            Identity::SalesforceUrl => {
                let signature = signature::check(&response, self.secret.as_ref());
                let response = response.with_signature(signature);
                // An identity that somebody else wrote would put the pair under another's name.
                let trusted = signature != Signature::Mismatch;
                match response.identity_url().and_then(salesforce_user) {
                    Some(user) if trusted => response.with_user(user),
                    _ => response,
                }
            }
        }
    }
}

/// Makes the header of RFC 6749, section 2.3.1: both parts form-encoded, then base64.
fn basic(client_id: &str, secret: &Secret) -> Option<HeaderValue> {
    let plain = Zeroizing::new(format!(
        "{}:{}",
        form_encoded(client_id).as_str(),
        form_encoded(secret.reveal()).as_str()
    ));
    let header = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(plain.as_bytes())));
    let mut header = HeaderValue::from_str(&header).ok()?;
    header.set_sensitive(true);
    Some(header)
}

fn form_encoded(text: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(text.len().saturating_mul(3)));
    for byte in text.bytes() {
        match byte {
            b' ' => encoded.push('+'),
            b'*' | b'-' | b'.' | b'_' => encoded.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => encoded.push(char::from(byte)),
            _ => encoded.extend(["%", &format!("{byte:02X}")]),
        }
    }
    encoded
}

/// Leaves a trace of the call: what was asked and how it ended, nothing of its content.
fn traced(asked: Asked, outcome: Outcome) -> Outcome {
    let (ended, status) = match &outcome {
        Outcome::Issued(_) => ("issued", 200),
        Outcome::Refused(refusal) => ("refused", refusal.status()),
        Outcome::NotSent(_) => ("not sent", 0),
        Outcome::InDoubt(doubt) => ("in doubt", doubt.status()),
        Outcome::Revoked => ("revoked", 200),
        Outcome::Answered => ("answered", 200),
    };
    tracing::debug!(asked = ?asked, ended, status, "provider called");
    outcome
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
