//! The provider's answer to a request for tokens: read once, never shown.
//!
//! The bytes are taken by value and wiped. What has a place of its own in the sealed pair
//! (journal-format.md, section 9.1, `Pair`) becomes a field; all the rest is kept as the text that
//! it came as, in its order. An answer that cannot be read is given back whole, because it may
//! hold the only copy of a pair that the provider counts. Best effort: what the HTTP and TLS
//! layers held of the answer on its way is theirs to wipe.

use super::members::{self, Members};
use crate::ids::User;
use crate::secret::Secret;
use serde::Serialize;
use std::fmt;
use zeroize::Zeroizing;

/// The longest answer that is read, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;
/// The earliest time that is one; 0 stands for none.
const LONG_AGO_MS: u64 = 1;
/// Times from 2001 to 5138, in milliseconds: a number outside them is in other units.
pub(crate) const PLAUSIBLE_MS: std::ops::Range<u64> = 1_000_000_000_000..100_000_000_000_000;

/// The provider's answer: tokens that nobody may see until they are durable.
///
/// There is no way to read a secret from it, to clone it, to compare it, to serialize it or to
/// print it. A journal's `settle` takes it and gives the pair.
///
/// ```
/// let body = br#"{"access_token":"00D!AQ","token_type":"Bearer","expires_in":"3600"}"#.to_vec();
/// let response = tokenwal::TokenResponse::parse(body, 1_700_000_000_000)?;
/// assert_eq!(response.expires_at_ms(), Some(1_700_003_600_000));
/// assert!(!format!("{response:?}").contains("AQ"));
/// # Ok::<(), tokenwal::Unreadable>(())
/// ```
pub struct TokenResponse(Box<ResponseParts>);

/// An answer, taken apart for the journal.
pub(crate) struct ResponseParts {
    pub(crate) access_token: Secret,
    /// `None` where the answer left it out: then it is inherited.
    pub(crate) refresh_token: Option<Secret>,
    pub(crate) id_token: Option<Secret>,
    pub(crate) token_type: Option<String>,
    /// `None` where the answer left them out: then they are what was asked for, or inherited.
    pub(crate) scopes: Option<Vec<String>>,
    pub(crate) instance_url: Option<String>,
    pub(crate) token_endpoint: Option<String>,
    pub(crate) user: Option<User>,
    /// Salesforce's `id`; its raw text is among the fields, too.
    pub(crate) identity_url: Option<String>,
    /// As the provider says, in milliseconds since 1970.
    pub(crate) issued_at_ms: Option<u64>,
    pub(crate) received_at_ms: u64,
    pub(crate) expires_at_ms: Option<u64>,
    /// `None` where there is no expiry.
    pub(crate) expiry_source: Option<ExpirySource>,
    pub(crate) signature: Signature,
    /// All members without a place above, as name and raw JSON, in their order; they may hold
    /// secrets.
    pub(crate) fields: Vec<(String, Secret)>,
}

/// Says how a pair's expiry is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExpirySource {
    /// The answer said it.
    Declared,
    /// The provider said it when asked.
    Introspected,
    /// Somebody configured a usual lifetime; such an expiry never reports death.
    Assumed,
}

/// Says whether the provider's signature over its answer was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Signature {
    /// The answer has no signature, or the secret to check it with is not known.
    Unchecked,
    /// The signature is the provider's.
    Verified,
    /// The signature is not the provider's. The pair is kept; its identity must not be trusted.
    Mismatch,
}

impl TokenResponse {
    /// Reads the JSON of a successful answer, and wipes it.
    ///
    /// `received_at_ms` is when it came, in milliseconds since 1970; an `expires_in` counts from
    /// then. Empty texts and nulls count as absent.
    ///
    /// # Errors
    /// [`Unreadable`] keeps the bytes, for [`Doubt::unreadable`](super::Doubt::unreadable): for
    /// what is not a JSON object, has no access token, has a token that is not a text or is given
    /// twice, or is beyond 1 MiB or 256 members.
    pub fn parse(body: Vec<u8>, received_at_ms: u64) -> Result<Self, Unreadable> {
        let body = Zeroizing::new(body);
        match read(&body, received_at_ms) {
            Ok(parts) => Ok(Self(Box::new(parts))),
            Err(reason) => Err(Unreadable { reason, body }),
        }
    }

    /// Makes an answer of what was kept of one elsewhere. Without an access token it is as one
    /// whose access token has lapsed: a declared expiry keeps it from being handed out.
    pub(crate) fn kept(mut parts: ResponseParts) -> Self {
        if parts.access_token.reveal().is_empty() {
            parts.expires_at_ms = Some(LONG_AGO_MS);
            parts.expiry_source = Some(ExpirySource::Declared);
        }
        Self(Box::new(parts))
    }

    /// Says whose tokens these are.
    pub fn with_user(mut self, user: User) -> Self {
        self.0.user = Some(user);
        self
    }

    /// Says which endpoint issued them, so that a refresh goes to the same host.
    pub fn with_token_endpoint(mut self, url: String) -> Self {
        self.0.token_endpoint = Some(url);
        self
    }

    /// Says when the access token expires, in milliseconds since 1970, where the answer did not.
    ///
    /// An expiry that the answer declared stands.
    pub fn with_expiry(mut self, expires_at_ms: u64, source: ExpirySource) -> Self {
        if self.0.expiry_source != Some(ExpirySource::Declared) {
            self.0.expires_at_ms = Some(expires_at_ms);
            self.0.expiry_source = Some(source);
        }
        self
    }

    /// Returns the identity URL, Salesforce's `id`. It names the user and is no secret.
    pub fn identity_url(&self) -> Option<&str> {
        self.0.identity_url.as_deref()
    }

    /// Returns the user, where it is known.
    pub fn user(&self) -> Option<&User> {
        self.0.user.as_ref()
    }

    /// Returns the granted scopes, or `None` where the answer left them out.
    pub fn scopes(&self) -> Option<&[String]> {
        self.0.scopes.as_deref()
    }

    /// Returns when the access token expires, in milliseconds since 1970.
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.0.expires_at_ms
    }

    /// Says whether the answer has a refresh token.
    pub fn has_refresh_token(&self) -> bool {
        self.0.refresh_token.is_some()
    }

    /// Says whether the provider's signature was checked, and how it came out.
    pub fn signature(&self) -> Signature {
        self.0.signature
    }

    #[cfg(feature = "client")]
    pub(crate) fn with_signature(mut self, signature: Signature) -> Self {
        self.0.signature = signature;
        self
    }

    /// Returns a field that has no place of its own, as raw JSON.
    #[cfg(feature = "client")]
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let (_, raw) = self.0.fields.iter().find(|(known, _)| known == name)?;
        Some(raw.reveal())
    }

    pub(crate) fn parts(&self) -> &ResponseParts {
        &self.0
    }
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse")
            .field("has_refresh_token", &self.has_refresh_token())
            .field("expires_at_ms", &self.0.expires_at_ms)
            .field("signature", &self.0.signature)
            .field("fields", &self.0.fields.len())
            .finish_non_exhaustive()
    }
}

/// An answer that could not be read, with its bytes, which may hold tokens.
///
/// [`Doubt::unreadable`](super::Doubt::unreadable) takes it, so that the journal can keep them.
#[derive(thiserror::Error)]
#[error("the provider's answer {}", reason.what())]
pub struct Unreadable {
    reason: UnreadableReason,
    body: Zeroizing<Vec<u8>>,
}

/// Says why an answer could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnreadableReason {
    /// It is not one JSON object.
    NotAnObject,
    /// It has no access token.
    NoAccessToken,
    /// It has a token that is not a text, or the same token's name twice with two values.
    BadToken,
    /// It has more bytes or members than are read.
    TooLarge,
}

impl UnreadableReason {
    fn what(self) -> &'static str {
        match self {
            Self::NotAnObject => "is not a JSON object",
            Self::NoAccessToken => "has no access token",
            Self::BadToken => "has a token that is not a text, or is given twice",
            Self::TooLarge => "has more than 1 MiB or more than 256 members",
        }
    }
}

impl Unreadable {
    /// Returns why the answer could not be read.
    pub fn reason(&self) -> UnreadableReason {
        self.reason
    }

    pub(crate) fn into_body(self) -> Zeroizing<Vec<u8>> {
        self.body
    }
}

impl fmt::Debug for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unreadable")
            .field("reason", &self.reason)
            .field("body", &format_args!("<{} bytes>", self.body.len()))
            .finish()
    }
}

fn read(body: &[u8], received_at_ms: u64) -> Result<ResponseParts, UnreadableReason> {
    if body.len() > BODY_BYTES_MAX {
        return Err(UnreadableReason::TooLarge);
    }
    let mut members = Members::read(body)?;
    // A member is taken out only when it was understood; whatever is left is kept as it came.
    let access_token = members.take_token("access_token")?;
    let refresh_token = members.take_token("refresh_token")?;
    let id_token = members.take_token("id_token")?;
    let access_token = access_token.ok_or(UnreadableReason::NoAccessToken)?;
    let expires_at_ms = members
        .find("expires_in")
        .and_then(members::whole_number)
        .map(|seconds| received_at_ms.saturating_add(seconds.saturating_mul(1000)));
    let issued_at_ms = members
        .find("issued_at")
        .and_then(members::whole_number)
        .filter(|issued_at_ms| PLAUSIBLE_MS.contains(issued_at_ms));
    let identity_url =
        members.find("id").and_then(members::plain_text).filter(|id| id.contains("://"));
    Ok(ResponseParts {
        access_token,
        refresh_token,
        id_token,
        token_type: members.take("token_type", members::plain_text),
        scopes: members.take("scope", members::scopes),
        instance_url: members.take("instance_url", members::plain_text),
        token_endpoint: None,
        user: None,
        identity_url,
        issued_at_ms,
        received_at_ms,
        expires_at_ms,
        expiry_source: expires_at_ms.map(|_| ExpirySource::Declared),
        signature: Signature::Unchecked,
        fields: members.into_fields(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn parsed(body: &str) -> ResponseParts {
        *TokenResponse::parse(body.as_bytes().to_vec(), NOW_MS).expect(body).0
    }

    fn refused(body: &str) -> UnreadableReason {
        let unreadable = TokenResponse::parse(body.as_bytes().to_vec(), NOW_MS).expect_err(body);
        let reason = unreadable.reason();
        assert_eq!(unreadable.into_body().as_slice(), body.as_bytes());
        reason
    }

    fn names(parts: &ResponseParts) -> Vec<&str> {
        parts.fields.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn salesforces_answer_is_read_whole() {
        let parts = parsed(
            r#"{"access_token":"00D!AQ4","refresh_token":"5Aep","signature":"c2ln+/=",
               "scope":"refresh_token api","instance_url":"https:\/\/acme.my.salesforce.com",
               "id":"https://login.salesforce.com/id/00Dx0000000BV7z/005x00000012Q9P",
               "token_type":"Bearer","issued_at":"1700000000123", "x" : { "y": [1, 2.50] } }"#,
        );
        assert_eq!(parts.access_token.reveal(), "00D!AQ4");
        assert_eq!(parts.refresh_token.as_ref().map(Secret::reveal), Some("5Aep"));
        assert_eq!(parts.token_type.as_deref(), Some("Bearer"));
        assert_eq!(parts.scopes, Some(vec!["refresh_token".to_owned(), "api".to_owned()]));
        assert_eq!(parts.instance_url.as_deref(), Some("https://acme.my.salesforce.com"));
        assert_eq!(parts.issued_at_ms, Some(1_700_000_000_123));
        assert_eq!((parts.expires_at_ms, parts.expiry_source), (None, None));
        assert!(parts.identity_url.as_ref().is_some_and(|url| url.ends_with("12Q9P")));
        assert!(parts.user.is_none() && parts.token_endpoint.is_none());
        assert_eq!(parts.signature, Signature::Unchecked);
        assert_eq!(names(&parts), ["signature", "id", "issued_at", "x"]);
        let raw: Vec<&str> = parts.fields.iter().map(|(_, raw)| raw.reveal()).collect();
        assert_eq!(raw[0], r#""c2ln+/=""#);
        assert_eq!(raw[3], r#"{ "y": [1, 2.50] }"#);
    }

    #[test]
    fn lifetimes_come_as_numbers_and_as_texts() {
        for (expires_in, seconds) in [
            ("3600", Some(3600)),
            ("\"3600\"", Some(3600)),
            ("3599.9", Some(3599)),
            ("0", Some(0)),
            ("-1", None),
            ("1e9", None),
            ("\"soon\"", None),
            ("null", None),
            ("[]", None),
            ("99999999999999999999999", None),
        ] {
            let parts = parsed(&format!(r#"{{"access_token":"a","expires_in":{expires_in}}}"#));
            assert_eq!(parts.expires_at_ms, seconds.map(|s: u64| NOW_MS + s * 1000));
            assert_eq!(parts.expiry_source, seconds.map(|_| ExpirySource::Declared));
            assert_eq!(names(&parts), ["expires_in"], "kept as it came");
        }
        let huge = parsed(r#"{"access_token":"a","expires_in":18446744073709551615}"#);
        assert_eq!(huge.expires_at_ms, Some(u64::MAX));
    }

    #[test]
    fn a_declared_expiry_stands() {
        let declared = r#"{"access_token":"a","expires_in":1}"#.as_bytes().to_vec();
        let response = TokenResponse::parse(declared, NOW_MS).unwrap();
        let response = response.with_expiry(5, ExpirySource::Assumed);
        assert_eq!(response.expires_at_ms(), Some(NOW_MS + 1000));
        let silent = r#"{"access_token":"a"}"#.as_bytes().to_vec();
        let response = TokenResponse::parse(silent, NOW_MS).unwrap();
        let parts = *response.with_expiry(5, ExpirySource::Introspected).0;
        assert_eq!(parts.expires_at_ms, Some(5));
        assert_eq!(parts.expiry_source, Some(ExpirySource::Introspected));
    }

    #[test]
    fn empty_and_null_count_as_absent() {
        let parts = parsed(
            r#"{"access_token":"a","refresh_token":"","id_token":null,"scope":"",
               "instance_url":null,"token_type":""}"#,
        );
        assert!(parts.refresh_token.is_none() && parts.id_token.is_none());
        assert!(parts.scopes.is_none() && parts.instance_url.is_none());
        assert!(parts.token_type.is_none() && parts.fields.is_empty());
        assert_eq!(refused(r#"{"access_token":""}"#), UnreadableReason::NoAccessToken);
    }

    #[test]
    fn what_is_not_understood_is_kept_as_it_came() {
        let parts = parsed(
            r#"{"access_token":"a","scope":7,"token_type":["x"],"id":42,"issued_at":"1700000000",
               "instance_url":"https://x\ny","x":1,"x":2,"scope":"late"}"#,
        );
        assert!(parts.scopes.is_none() && parts.token_type.is_none());
        assert!(parts.instance_url.is_none() && parts.identity_url.is_none());
        assert_eq!(parts.issued_at_ms, None, "these are seconds");
        assert_eq!(
            names(&parts),
            ["scope", "token_type", "id", "issued_at", "instance_url", "x", "x", "scope"]
        );
        let listed = parsed(r#"{"access_token":"a","scope":["chat:read","chat:edit"]}"#);
        assert_eq!(listed.scopes, Some(vec!["chat:read".to_owned(), "chat:edit".to_owned()]));
    }

    #[test]
    fn a_token_is_never_lost_to_a_bad_answer() {
        use UnreadableReason::{BadToken, NoAccessToken, NotAnObject, TooLarge};
        for (body, reason) in [
            ("", NotAnObject),
            ("<html>busy</html>", NotAnObject),
            (r#"["access_token"]"#, NotAnObject),
            (r#"{"access_token":"a","refresh_tok"#, NotAnObject),
            (r#"{"access_token":"a"} trailing"#, NotAnObject),
            (r#"{"refresh_token":"r"}"#, NoAccessToken),
            (r#"{"access_token":7}"#, BadToken),
            (r#"{"access_token":"a","refresh_token":{"v":"r"}}"#, BadToken),
            (r#"{"access_token":"a","access_token":"b"}"#, BadToken),
            (r#"{"access_token":"\ud800"}"#, BadToken),
        ] {
            assert_eq!(refused(body), reason, "{body}");
        }
        let many: Vec<String> = (0..257).map(|n| format!(r#""f{n}":0"#)).collect();
        let many = format!(r#"{{"access_token":"a",{}}}"#, many.join(","));
        assert_eq!(refused(&many), TooLarge);
        let long = format!(r#"{{"access_token":"{}"}}"#, "a".repeat(BODY_BYTES_MAX));
        assert_eq!(refused(&long), TooLarge);
        let deep =
            format!(r#"{{"access_token":"a","x":{}{}}}"#, "[".repeat(9999), "]".repeat(9999));
        assert_eq!(names(&parsed(&deep)), ["x"]);
        let twice = parsed(r#"{"access_token":"a","access_token":"","access_token":"a"}"#);
        assert_eq!(twice.access_token.reveal(), "a");
    }

    #[test]
    fn nothing_secret_is_printed() {
        let body = r#"{"access_token":"SECRETa","refresh_token":"SECRETr","id_token":"SECRETi",
            "cookie":"SECRETc"}"#;
        let response = TokenResponse::parse(body.as_bytes().to_vec(), NOW_MS).unwrap();
        assert!(!format!("{response:?}").contains("SECRET"));
        let unreadable = TokenResponse::parse(body.as_bytes()[1..].to_vec(), NOW_MS).unwrap_err();
        assert!(!format!("{unreadable:?} {unreadable}").contains("SECRET"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_given_back(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Err(unreadable) = TokenResponse::parse(body.clone(), NOW_MS) {
                let kept = unreadable.into_body();
                prop_assert_eq!(kept.as_slice(), body.as_slice());
            }
        }

        #[test]
        fn any_tokens_come_through(access in ".{1,200}", refresh in ".{0,200}") {
            let body = serde_json::json!({ "access_token": access, "refresh_token": refresh });
            let parts = parsed(&body.to_string());
            prop_assert_eq!(parts.access_token.reveal(), access.as_str());
            let kept = parts.refresh_token.as_ref().map(Secret::reveal).unwrap_or_default();
            prop_assert_eq!(kept, refresh.as_str());
        }
    }
}
