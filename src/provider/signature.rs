//! Salesforce's signature over an answer: who the tokens are for, and when they were issued.
//!
//! `signature` is the base64 form of HMAC-SHA-256 over `id` and `issued_at`, one behind the other,
//! with the consumer secret as key (Salesforce Help, "OAuth 2.0 Web Server Flow").

use crate::outcome::{Signature, TokenResponse};
use crate::secret::Secret;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Checks the signature of an answer, where it has one and the secret is known.
pub(super) fn check(response: &TokenResponse, consumer_secret: Option<&Secret>) -> Signature {
    let Some(secret) = consumer_secret else { return Signature::Unchecked };
    let Some(signature) = text(response, "signature") else { return Signature::Unchecked };
    let signed = match (text(response, "id"), text(response, "issued_at")) {
        (Some(id), Some(issued_at)) => id + &issued_at,
        _ => return Signature::Mismatch,
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    match BASE64_STANDARD.decode(signature) {
        Ok(tag) if hmac::verify(&key, signed.as_bytes(), &tag).is_ok() => Signature::Verified,
        _ => Signature::Mismatch,
    }
}

fn text(response: &TokenResponse, name: &str) -> Option<String> {
    serde_json::from_str(response.field(name)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(body: &str, secret: Option<&str>) -> Signature {
        let response = TokenResponse::parse(body.as_bytes().to_vec(), 0).unwrap();
        check(&response, secret.map(|secret| Secret::new(secret.to_owned())).as_ref())
    }

    #[test]
    fn a_signature_is_verified_refuted_or_left() {
        // printf '%s' "$id$issued_at" | openssl dgst -sha256 -hmac consumer-secret -binary | base64
        let right = r#"{"access_token":"a","id":"https://login.salesforce.com/id/00D/005",
            "issued_at":"1700000000000",
            "signature":"Jb4JVDFQf3ImCIE69FaI2W/c+vo+XE9yV+kblmlPoMY="}"#;
        assert_eq!(checked(right, Some("consumer-secret")), Signature::Verified);
        assert_eq!(checked(right, Some("another-secret")), Signature::Mismatch);
        assert_eq!(checked(right, None), Signature::Unchecked);
        let moved = right.replace("/005", "/006");
        assert_eq!(checked(&moved, Some("consumer-secret")), Signature::Mismatch);
        let garbled = right.replace("Jb4JVDFQf3ImCIE69FaI2W/c+vo+XE9yV+kblmlPoMY=", "not base64!");
        assert_eq!(checked(&garbled, Some("consumer-secret")), Signature::Mismatch);
        let unsigned = r#"{"access_token":"a"}"#;
        assert_eq!(checked(unsigned, Some("consumer-secret")), Signature::Unchecked);
        let hollow = r#"{"access_token":"a","signature":"c2ln"}"#;
        assert_eq!(checked(hollow, Some("consumer-secret")), Signature::Mismatch);
    }
}
