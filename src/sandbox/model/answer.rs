//! What goes into the model and comes out of it. How it is worded is for the rooms around it.

use std::fmt;

/// What a user approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// The name by which the sandbox is told of the user.
    pub user: String,
    /// The scopes, with spaces between them.
    pub scope: String,
    /// `None`: the code is bound to no redirect URI.
    pub redirect_uri: Option<String>,
    /// `None`: the code is bound to no challenge.
    pub challenge: Option<String>,
    /// What the id_token is to repeat.
    pub nonce: Option<String>,
}

impl Consent {
    /// A user's approval that is bound to nothing.
    pub fn of(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            scope: "api refresh_token".to_owned(),
            redirect_uri: None,
            challenge: None,
            nonce: None,
        }
    }
}

/// Tokens that were drawn for a request, in case it needs them.
#[derive(Clone)]
pub struct NewTokens {
    /// The access token.
    pub access: String,
    /// The refresh token. `None`: this answer leaves it out, and a refresh does not rotate.
    pub refresh: Option<String>,
}

/// A pair as it is answered.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The access token.
    pub access: String,
    /// `None` where the old one stays.
    pub refresh: Option<String>,
    /// The scopes that were approved, or asked for.
    pub scope: String,
    /// Who approved; empty where the app acts for itself.
    pub user: String,
    /// The user's identity URL.
    pub identity_url: String,
    /// When the access token was issued, in milliseconds since 1970.
    pub issued_at_ms: u64,
    /// When it lapses.
    pub expires_at_ms: Option<u64>,
    /// What the id_token is to repeat.
    pub nonce: Option<String>,
    /// The number of the approval; 0 where the app acts for itself.
    pub approval: usize,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// The app's secret is wrong.
    Client,
    /// There is no such app.
    ClientId,
    /// The code was never minted, or was presented before.
    Code,
    /// The code is too old.
    OldCode,
    /// The redirect URI is not the code's.
    Redirect,
    /// The verifier is not the code's.
    Verifier,
    /// The refresh token does not work, for whatever reason: the provider does not say.
    Dead,
    /// Another refresh with the same token is at work.
    Busy,
    /// More was asked for than was approved.
    Scope,
    /// The user has as many approvals as they can have.
    CapReached,
    /// There is no such token, or none that works.
    Token,
    /// Tokens cannot be asked about here.
    TokenType,
    /// There is no such grant type.
    GrantType,
    /// The sandbox could draw no token.
    NoRandomness,
}

/// What is known of a token that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Whether it is an access token.
    pub kind: TokenKind,
    /// Its scopes, with spaces between them.
    pub scope: String,
    /// Who approved; empty where the app acts for itself.
    pub user: String,
    /// The user's identity URL.
    pub identity_url: String,
    /// When it was issued, in milliseconds since 1970.
    pub issued_at_ms: u64,
    /// When it lapses, if it does.
    pub expires_at_ms: Option<u64>,
}

/// A kind of token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// An authorization code.
    Code,
    /// An access token.
    Access,
    /// A refresh token.
    Refresh,
}

/// How a refresh token stands at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is no such refresh token.
    Unknown,
    /// It works.
    Works,
    /// It is spent, and its recovery window is open: presenting it does no harm.
    InWindow,
    /// It is spent, and presenting it is reuse.
    Spent,
    /// Its approval has ended.
    Ended,
}

impl fmt::Debug for NewTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refresh = &self.refresh.is_some();
        f.debug_struct("NewTokens").field("has_refresh", refresh).finish_non_exhaustive()
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("approval", &self.approval)
            .field("user", &self.user)
            .field("has_refresh", &self.refresh.is_some())
            .field("issued_at_ms", &self.issued_at_ms)
            .finish_non_exhaustive()
    }
}
