//! Refusals in the provider's words: Salesforce's own, the RFCs', or what the profile has read.

use super::fault::FaultError;
use super::model::{Dialect, Refused, Shape, Wording};

/// Words a refusal as a provider does.
pub(super) fn refusal(dialect: &Dialect, refused: Refused) -> Wording {
    let own = match refused {
        Refused::Dead => dialect.dead.as_ref(),
        Refused::Busy => dialect.busy.as_ref(),
        Refused::Code | Refused::OldCode => dialect.bad_code.as_ref(),
        _ => None,
    };
    let mut wording = own.cloned().unwrap_or_else(|| plain(dialect.shape, refused));
    if dialect.errors_under_200 {
        wording.status = 200;
    }
    wording
}

/// Words an error that was asked for on command.
pub(super) fn fault(dialect: &Dialect, error: FaultError, status: u16) -> Wording {
    let worded = |error, description| wording(error, description);
    let wording = match error {
        FaultError::Dead => refusal(dialect, Refused::Dead),
        FaultError::Busy => refusal(dialect, Refused::Busy),
        FaultError::WrongSecret => refusal(dialect, Refused::Client),
        FaultError::Suspended => worded("invalid_grant", "inactive user"),
        FaultError::ServerError => worded("server_error", "something went wrong"),
        FaultError::Unavailable => worded("temporarily_unavailable", "try again later"),
    };
    Wording { status, ..wording }
}

fn plain(shape: Shape, refused: Refused) -> Wording {
    let (error, description) = match (shape, refused) {
        (Shape::Salesforce, refused) => salesforce(refused),
        // RFC 6749, section 5.2; RFC 7009, section 2.2.1.
        (Shape::Plain, Refused::Client | Refused::ClientId) => ("invalid_client", ""),
        (Shape::Plain, Refused::Redirect) => ("invalid_grant", "the redirect URI does not match"),
        (Shape::Plain, Refused::Verifier) => ("invalid_grant", "the verifier does not match"),
        (Shape::Plain, Refused::Dead) => ("invalid_grant", "the refresh token is not valid"),
        (Shape::Plain, Refused::Busy) => ("temporarily_unavailable", "another is at work"),
        (Shape::Plain, Refused::Code | Refused::OldCode) => {
            ("invalid_grant", "the code is not valid")
        }
        (Shape::Plain, refused) => salesforce(refused),
    };
    wording(error, description)
}

fn salesforce(refused: Refused) -> (&'static str, &'static str) {
    match refused {
        Refused::Client => ("invalid_client", "invalid client credentials"),
        Refused::ClientId => ("invalid_client_id", "client identifier invalid"),
        Refused::Code => ("invalid_grant", "invalid authorization code"),
        Refused::OldCode => ("invalid_grant", "expired authorization code"),
        Refused::Verifier => ("invalid_grant", "invalid code verifier"),
        Refused::Redirect => ("redirect_uri_mismatch", "redirect_uri must match configuration"),
        Refused::Dead => ("invalid_grant", "expired access/refresh token"),
        Refused::Busy => ("invalid_grant", "token request is already being processed"),
        Refused::Scope => ("invalid_scope", "the requested scope is not allowed"),
        Refused::CapReached => ("access_denied", "the limit of approvals is reached"),
        Refused::Token => ("invalid_token", "Token was invalid"),
        Refused::TokenType => ("unsupported_token_type", "this token type is not supported"),
        Refused::GrantType => ("unsupported_grant_type", "grant type not supported"),
        Refused::NoRandomness => ("server_error", "no randomness"),
    }
}

fn wording(error: &str, description: &str) -> Wording {
    Wording { status: 400, error: error.to_owned(), description: description.to_owned() }
}
