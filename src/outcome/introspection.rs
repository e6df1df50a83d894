//! What a provider says of a token when asked (RFC 7662).

use super::members::{self, Members};
use serde::Serialize;
use serde_json::value::RawValue;

/// What a provider says of a token. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Introspection {
    /// Whether the token works now.
    pub active: bool,
    /// What it may be used for; empty where the provider does not say.
    pub scopes: Vec<String>,
    /// The client that it was issued to.
    pub client_id: Option<String>,
    /// The user in words.
    pub username: Option<String>,
    /// The user as the provider counts them; for Salesforce an identity URL.
    pub sub: Option<String>,
    /// What kind of token it is, such as `access_token` or `refresh_token`.
    pub token_type: Option<String>,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
    /// When it was issued, in milliseconds since 1970.
    pub issued_at_ms: Option<u64>,
    /// From when on it works, in milliseconds since 1970.
    pub not_before_ms: Option<u64>,
}

impl Introspection {
    /// Reads an answer (RFC 7662, section 2.2); `None` unless it says whether the token is active.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let members = Members::read(body).ok()?;
        let active = match members.find("active")?.get() {
            "true" => true,
            "false" => false,
            _ => return None,
        };
        let text = |name| members.find(name).and_then(members::plain_text);
        let time_ms = |name| members.find(name).and_then(seconds_as_ms);
        Some(Self {
            active,
            scopes: members.find("scope").and_then(members::scopes).unwrap_or_default(),
            client_id: text("client_id"),
            username: text("username"),
            sub: text("sub"),
            token_type: text("token_type"),
            expires_at_ms: time_ms("exp"),
            issued_at_ms: time_ms("iat"),
            not_before_ms: time_ms("nbf"),
        })
    }
}

fn seconds_as_ms(raw: &RawValue) -> Option<u64> {
    Some(members::whole_number(raw)?.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_the_odd_member_left_out() {
        let body = br#"{"active":true,"scope":"api refresh_token","client_id":"3MVG9",
            "username":"a@example.com","sub":"https://login.salesforce.com/id/00D/005",
            "token_type":"access_token","exp":1700000000,"iat":"1600000000","nbf":[],"x":1}"#;
        let read = Introspection::parse(body).unwrap();
        assert!(read.active);
        assert_eq!(read.scopes, ["api", "refresh_token"]);
        assert_eq!(read.expires_at_ms, Some(1_700_000_000_000));
        assert_eq!(read.issued_at_ms, Some(1_600_000_000_000));
        assert_eq!(read.not_before_ms, None);
        assert_eq!(read.client_id.as_deref(), Some("3MVG9"));
        let inactive = Introspection::parse(br#"{"active":false}"#).unwrap();
        assert!(!inactive.active && inactive.scopes.is_empty());
    }

    #[test]
    fn what_does_not_say_whether_it_is_active_is_no_answer() {
        for body in ["", "{}", r#"{"active":"true"}"#, r#"{"active":1}"#, "[true]", "<html>"] {
            assert_eq!(Introspection::parse(body.as_bytes()), None, "{body}");
        }
    }
}
