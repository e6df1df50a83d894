//! One call: the client's own credentials, the request, and what the answer says beside its tokens.

use super::classify::{Question, Reply};
use super::endpoint::Endpoint;
use super::id_token::{self, Expected};
use super::{Inner, signature};
use crate::format::value::Action;
use crate::outcome::{ExpirySource, NotSent, Outcome, Signature, TokenResponse, salesforce_user};
use crate::profile::{ClientAuth, IdentitySource, RevokeBy};
use crate::secret::Secret;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

/// The kind of the assertion by which a client says who it is (RFC 7523, section 2.2).
const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A request for tokens.
pub(super) struct Request<'a> {
    pub(super) asked: Action,
    pub(super) endpoint: &'a Endpoint,
    pub(super) form: &'a [(&'a str, &'a str)],
    /// The secrets in it, which no answer may bring back to light.
    pub(super) sent: &'a [&'a Secret],
    /// What an id token in the answer must repeat.
    pub(super) nonce: Option<&'a str>,
}

impl Inner {
    /// Asks for tokens.
    pub(super) async fn issue(&self, request: Request<'_>) -> Outcome {
        let outcome = match self.ask(request.endpoint, request.form).await {
            Ok(reply) => {
                self.question(request.asked, request.sent, |question| question.issuance(reply))
            }
            Err(outcome) => outcome,
        };
        traced(
            request.asked.word(),
            match outcome {
                Outcome::Issued(response) => Outcome::Issued(self.completed(response, &request)),
                other => other,
            },
        )
    }

    /// Revokes a token; without an endpoint nothing is sent.
    pub(super) async fn revoke(&self, endpoint: Option<&Endpoint>, token: &Secret) -> Outcome {
        let Some(endpoint) = endpoint else { return Outcome::NotSent(NotSent::GivenUp) };
        let reply = match self.profile.endpoints().known().map(|known| known.revoke_by) {
            Some(RevokeBy::DeleteJson) => self.delete(endpoint, token).await,
            Some(RevokeBy::PostForm) | None => {
                self.ask(endpoint, &[("token", token.reveal())]).await
            }
        };
        let outcome = match reply {
            Ok(reply) => self.question(Action::Revoke, &[token], |asked| asked.revocation(reply)),
            Err(outcome) => outcome,
        };
        traced(Action::Revoke.word(), outcome)
    }

    async fn delete(&self, endpoint: &Endpoint, token: &Secret) -> Result<Reply, Outcome> {
        let body =
            Zeroizing::new(format!("{{\"access_token\":{}}}", quoted(token.reveal()).as_str()));
        let authorization = match &self.secret {
            Some(secret) => Some(self.basic(secret)?),
            None => None,
        };
        self.http.delete(endpoint, authorization, body.as_bytes().to_vec()).await
    }

    /// Sends a form with the client's own credentials.
    pub(super) async fn ask(
        &self,
        endpoint: &Endpoint,
        form: &[(&str, &str)],
    ) -> Result<Reply, Outcome> {
        let mut form = form.to_vec();
        let mut authorization = None;
        let client_id = self.app.client_id();
        let assertion;
        match (self.auth, &self.secret) {
            (ClientAuth::PrivateKeyJwt, _) => {
                // The audience is the server, named by its token endpoint (RFC 7523, section 3).
                assertion = self.assertion(client_id, self.token.url().as_str())?;
                form.push(("client_id", client_id));
                form.push(("client_assertion_type", CLIENT_ASSERTION));
                form.push(("client_assertion", assertion.reveal()));
            }
            (ClientAuth::Basic, Some(secret)) => authorization = Some(self.basic(secret)?),
            (ClientAuth::Post, Some(secret)) => {
                form.push(("client_id", client_id));
                form.push(("client_secret", secret.reveal()));
            }
            (ClientAuth::Basic | ClientAuth::Post, None) => form.push(("client_id", client_id)),
        }
        self.http.post(endpoint, authorization, &form).await
    }

    /// Signs that this client asks, for `subject`. Without a key nothing is sent.
    pub(super) fn assertion(&self, subject: &str, audience: &str) -> Result<Secret, Outcome> {
        let client_id = self.app.client_id();
        let signed = self.signing_key.as_ref().and_then(|key| {
            key.sign(client_id, subject, audience, self.http.now_ms(), &*self.entropy)
        });
        signed.ok_or(Outcome::NotSent(NotSent::GivenUp))
    }

    /// Reads an answer, with all secrets at hand that it might echo.
    pub(super) fn question<T>(
        &self,
        asked: Action,
        sent: &[&Secret],
        read: impl FnOnce(Question<'_>) -> T,
    ) -> T {
        let sent: Vec<&Secret> = sent.iter().copied().chain(self.secret.as_ref()).collect();
        let rotation = self.profile.effective_rotation(self.rotation);
        read(Question { asked, profile: &self.profile, rotation, sent: &sent })
    }

    /// Adds to an answer what it does not say itself: its endpoint, its signature, its user, and
    /// how long its access token lives as far as that can be assumed.
    fn completed(&self, response: TokenResponse, request: &Request<'_>) -> TokenResponse {
        let mut response = response.with_token_endpoint(request.endpoint.url().as_str().to_owned());
        let received_at_ms = response.parts().received_at_ms;
        if let (None, Some(lifetime_ms)) = (response.expires_at_ms(), self.lifetime_ms()) {
            let expires_at_ms = received_at_ms.saturating_add(lifetime_ms);
            response = response.with_expiry(expires_at_ms, ExpirySource::Assumed);
        }
        match self.profile.identity().known() {
            Some(IdentitySource::IdentityUrl { field }) => self.signed(response, field),
            Some(IdentitySource::IdToken { claim }) => {
                let expected = Expected {
                    client_id: self.app.client_id(),
                    issuer: self.issuer.as_deref(),
                    nonce: request.nonce,
                    received_at_ms,
                };
                let id_token = response.parts().id_token.as_ref();
                match id_token.and_then(|token| id_token::user(token, claim, expected)) {
                    Some(user) => response.with_user(user),
                    None => response,
                }
            }
            _ => response,
        }
    }

    fn signed(&self, response: TokenResponse, field: &str) -> TokenResponse {
        let signature = signature::check(&response, self.secret.as_ref());
        let response = response.with_signature(signature);
        let url = response.field(field).and_then(|raw| serde_json::from_str::<String>(raw).ok());
        // An identity that somebody else wrote would put the pair under another's name.
        let trusted = signature != Signature::Mismatch;
        match url.as_deref().and_then(salesforce_user) {
            Some(user) if trusted => response.with_user(user),
            _ => response,
        }
    }

    /// Returns how long an access token usually lives, in milliseconds, where an answer may leave
    /// that out.
    fn lifetime_ms(&self) -> Option<u64> {
        let seconds = self.profile.expiry().known().and_then(|expiry| expiry.access_seconds);
        self.lifetime_ms.or(seconds.map(|seconds| u64::from(seconds) * 1000))
    }

    /// Makes the header of RFC 6749, section 2.3.1: both parts form-encoded, then base64.
    fn basic(&self, secret: &Secret) -> Result<HeaderValue, Outcome> {
        let plain = Zeroizing::new(format!(
            "{}:{}",
            form_encoded(self.app.client_id()).as_str(),
            form_encoded(secret.reveal()).as_str()
        ));
        let header = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(plain.as_bytes())));
        sensitive(&header).ok_or(Outcome::NotSent(NotSent::GivenUp))
    }
}

/// Makes a header that is not to be shown.
pub(super) fn sensitive(header: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(header).ok()?;
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

/// Writes a text as JSON.
fn quoted(text: &str) -> Zeroizing<String> {
    Zeroizing::new(serde_json::Value::from(text).to_string())
}

/// Leaves a trace of the call: what was asked and how it ended, nothing of its content.
pub(super) fn traced(asked: &'static str, outcome: Outcome) -> Outcome {
    let (ended, status) = match &outcome {
        Outcome::Issued(_) => ("issued", 200),
        Outcome::Refused(refusal) => ("refused", refusal.status()),
        Outcome::NotSent(_) => ("not sent", 0),
        Outcome::InDoubt(doubt) => ("in doubt", doubt.status()),
        Outcome::Revoked => ("revoked", 200),
        Outcome::Answered => ("answered", 200),
    };
    tracing::debug!(asked, ended, status, "provider called");
    outcome
}
