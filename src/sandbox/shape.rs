//! Salesforce's way to write its answers.

use super::answer::{About, No, Pair};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// Writes a pair: no `expires_in`, the time of issue as a text of milliseconds, an identity URL,
/// and a signature over both.
pub(super) fn pair(pair: &Pair, instance_url: &str, consumer_secret: &str) -> Value {
    let issued_at = pair.issued_at_ms.to_string();
    let mut body = json!({
        "access_token": pair.access,
        "signature": signature(&pair.identity_url, &issued_at, consumer_secret),
        "scope": pair.scope,
        "instance_url": instance_url,
        "id": pair.identity_url,
        "token_type": "Bearer",
        "issued_at": issued_at,
    });
    if let (Some(refresh), Some(members)) = (&pair.refresh, body.as_object_mut()) {
        members.insert("refresh_token".to_owned(), json!(refresh));
    }
    body
}

/// Writes a refusal.
pub(super) fn no(no: &No) -> Value {
    json!({ "error": no.error, "error_description": no.description })
}

/// Writes what is known of a token. The times are seconds here.
pub(super) fn about(about: Option<&About>, client_id: &str) -> Value {
    let Some(about) = about else { return json!({ "active": false }) };
    let mut body = json!({
        "active": true,
        "scope": about.scope,
        "client_id": client_id,
        "username": about.user,
        "sub": about.identity_url,
        "token_type": about.kind,
        "iat": about.issued_at_ms / 1000,
        "nbf": about.issued_at_ms / 1000,
    });
    if let (Some(expires_at_ms), Some(members)) = (about.expires_at_ms, body.as_object_mut()) {
        members.insert("exp".to_owned(), json!(expires_at_ms / 1000));
    }
    body
}

fn signature(identity_url: &str, issued_at: &str, consumer_secret: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, consumer_secret.as_bytes());
    BASE64_STANDARD.encode(hmac::sign(&key, format!("{identity_url}{issued_at}").as_bytes()))
}
