//! The user whom an id token names (OpenID Connect Core, sections 2 and 3.1.3.7).
//!
//! It came from the token endpoint over TLS, which stands for its signature (section 3.1.3.7, 6).
//! It must be for this client and, where they are known, from this issuer and to this request:
//! else it names nobody, and the pair waits for somebody who knows.

use crate::ids::User;
use crate::outcome::members::{self, Members};
use crate::secret::Secret;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// How far apart two clocks may be, in milliseconds.
const SKEW_MS: u64 = 300_000;

/// What an id token must fit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) client_id: &'a str,
    /// The issuer, where it is known.
    pub(super) issuer: Option<&'a str>,
    /// What the authorization request said; none where there was no such request, as for a refresh.
    pub(super) nonce: Option<&'a str>,
    /// When it came, in milliseconds since 1970.
    pub(super) received_at_ms: u64,
}

/// Returns the user that a claim names.
pub(super) fn user(id_token: &Secret, claim: &str, expected: Expected<'_>) -> Option<User> {
    let mut parts = id_token.reveal().split('.');
    let payload = parts.nth(1)?;
    parts.next()?;
    if parts.next().is_some() {
        return None;
    }
    let payload = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?);
    let claims = Members::read(&payload).ok()?;
    let text = |name| claims.find(name).and_then(members::plain_text);
    let audience = claims.find("aud").map(audience).unwrap_or_default();
    if !audience.iter().any(|client| client == expected.client_id) {
        return None;
    }
    // Among several it says which one it was issued to.
    let party = text("azp");
    if party.as_deref().is_some_and(|party| party != expected.client_id)
        || (party.is_none() && audience.len() > 1)
    {
        return None;
    }
    if expected.issuer.is_some_and(|issuer| text("iss").as_deref() != Some(issuer)) {
        return None;
    }
    if expected.nonce.is_some_and(|nonce| text("nonce").as_deref() != Some(nonce)) {
        return None;
    }
    let expires_s = claims.find("exp").and_then(members::whole_number)?;
    if expires_s.saturating_mul(1000).saturating_add(SKEW_MS) < expected.received_at_ms {
        return None;
    }
    User::new(text(claim)?).ok()
}

fn audience(raw: &RawValue) -> Vec<String> {
    match members::text(raw) {
        Some(one) => vec![one],
        None => serde_json::from_str(raw.get()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn expected() -> Expected<'static> {
        Expected {
            client_id: "client-1",
            issuer: Some("https://id.example"),
            nonce: Some("n-1"),
            received_at_ms: NOW_MS,
        }
    }

    fn named(claims: &str, expected: Expected<'_>) -> Option<String> {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(claims);
        let token = Secret::new(format!("e30.{payload}.c2ln"));
        user(&token, "sub", expected).map(|user| user.as_str().to_owned())
    }

    const RIGHT: &str = r#"{"iss":"https://id.example","sub":"u-7","aud":"client-1",
        "exp":1700003600,"nonce":"n-1"}"#;

    #[test]
    fn a_token_for_us_names_the_user() {
        assert_eq!(named(RIGHT, expected()).as_deref(), Some("u-7"));
        let listed = RIGHT.replace(r#""client-1""#, r#"["client-1"]"#);
        assert_eq!(named(&listed, expected()).as_deref(), Some("u-7"));
        let several = RIGHT.replace(r#""client-1""#, r#"["x","client-1"],"azp":"client-1""#);
        assert_eq!(named(&several, expected()).as_deref(), Some("u-7"));
        let refreshed = Expected { nonce: None, ..expected() };
        assert_eq!(named(RIGHT, refreshed).as_deref(), Some("u-7"));
    }

    #[test]
    fn any_other_names_nobody() {
        let wrong = [
            RIGHT.replace("client-1", "client-2"),
            RIGHT.replace(r#""client-1""#, r#"["client-1","x"]"#),
            RIGHT.replace(r#""client-1""#, r#""client-1","azp":"client-2""#),
            RIGHT.replace(r#""client-1""#, "7"),
            RIGHT.replace("https://id.example", "https://id.evil"),
            RIGHT.replace("n-1", "n-2"),
            RIGHT.replace("nonce", "once"),
            RIGHT.replace("1700003600", "1699999000"),
            RIGHT.replace("exp", "xep"),
            RIGHT.replace(r#""u-7""#, "7"),
            RIGHT.replace("u-7", ""),
            RIGHT.replace('}', ""),
        ];
        for claims in wrong {
            assert_eq!(named(&claims, expected()), None, "{claims}");
        }
        for token in ["", ".", "a.b", "e30.e30.x.y", "e30.!!.x", "e30.e30.x"] {
            let token = Secret::new(token.to_owned());
            assert!(user(&token, "sub", expected()).is_none(), "{token:?}");
        }
    }
}
