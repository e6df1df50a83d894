//! What goes into the model and comes out of it, the refusals in Salesforce's words.

/// What a user approved.
#[derive(Clone)]
pub(super) struct Consent {
    pub(super) user: String,
    pub(super) scope: String,
    /// `None`: the code is bound to no redirect URI.
    pub(super) redirect_uri: Option<String>,
    /// `None`: the code is bound to no challenge.
    pub(super) challenge: Option<String>,
}

/// Tokens that were drawn for a request, in case it needs them.
pub(super) struct NewTokens {
    pub(super) access: String,
    pub(super) refresh: String,
}

/// A pair as it is answered.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) access: String,
    /// `None` where the old one stays.
    pub(super) refresh: Option<String>,
    pub(super) scope: String,
    pub(super) identity_url: String,
    pub(super) issued_at_ms: u64,
}

/// A refusal as it is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct No {
    pub(super) error: &'static str,
    pub(super) description: &'static str,
}

/// What is known of a token that was asked about.
pub(super) struct About {
    pub(super) kind: &'static str,
    pub(super) scope: String,
    pub(super) user: String,
    pub(super) identity_url: String,
    pub(super) issued_at_ms: u64,
    pub(super) expires_at_ms: Option<u64>,
}

impl Consent {
    /// A user's approval that is bound to nothing.
    pub(super) fn of(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            scope: "api refresh_token".to_owned(),
            redirect_uri: None,
            challenge: None,
        }
    }
}

pub(super) const BAD_CLIENT: No =
    No { error: "invalid_client", description: "invalid client credentials" };
pub(super) const BAD_CLIENT_ID: No =
    No { error: "invalid_client_id", description: "client identifier invalid" };
pub(super) const BAD_CODE: No =
    No { error: "invalid_grant", description: "invalid authorization code" };
pub(super) const OLD_CODE: No =
    No { error: "invalid_grant", description: "expired authorization code" };
pub(super) const BAD_VERIFIER: No =
    No { error: "invalid_grant", description: "invalid code verifier" };
pub(super) const BAD_REDIRECT: No =
    No { error: "redirect_uri_mismatch", description: "redirect_uri must match configuration" };
pub(super) const DEAD: No =
    No { error: "invalid_grant", description: "expired access/refresh token" };
pub(super) const BUSY: No =
    No { error: "invalid_grant", description: "token request is already being processed" };
pub(super) const BAD_TOKEN: No = No { error: "invalid_token", description: "Token was invalid" };
pub(super) const NO_GRANT: No =
    No { error: "unsupported_grant_type", description: "grant type not supported" };
pub(super) const NO_RANDOMNESS: No = No { error: "server_error", description: "no randomness" };
