//! What a provider does to tokens, as data: each fact with its source and the day it was verified.
//!
//! A profile says what an error means and where the user is named. What it does not say is
//! unknown, and unknown is read in the way that loses nothing: a refusal of an unknown kind
//! suspends a grant and never ends it; rotation that is not known to be off counts as on.

use crate::outcome::RefusalClass;
use serde::Serialize;

/// What is known of a provider.
///
/// ```
/// let profile = tokenwal::provider::Profile::salesforce();
/// assert_eq!(profile.name(), "salesforce");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    name: &'static str,
    identity: Identity,
    refusals: &'static [RefusalRule],
}

/// Says whether a refresh answers with a new refresh token and spends the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rotation {
    /// A refresh token stays as it is.
    Off,
    /// Each refresh spends the refresh token.
    On,
    /// Nobody said; taken as on.
    #[default]
    Unknown,
}

/// Says where an answer names the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// Nowhere; the caller knows, or asks.
    Elsewhere,
    /// In Salesforce's `id`: an identity URL that ends in organisation and user id.
    SalesforceUrl,
}

/// What was asked of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Exchange,
    Refresh,
    Revoke,
    Introspect,
}

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A refusal of this class.
    Class(RefusalClass),
    /// An answer that does not say whether the request was carried out.
    Unknown,
    /// An earlier request with the same token is still at work and may yet rotate it: asking
    /// again is safe only where rotation is off.
    Busy,
}

/// One line of a provider's table of errors. The first that fits decides.
#[derive(Debug)]
pub(super) struct RefusalRule {
    /// To what it applies; to everything if empty.
    pub(super) asked: &'static [Asked],
    /// The error code, exactly.
    pub(super) error: &'static str,
    /// A part of the description, whatever its case; every description if empty.
    pub(super) description: &'static str,
    pub(super) meaning: Meaning,
    /// Where it was read.
    #[cfg_attr(not(test), expect(dead_code, reason = "a fact carries its source in the code"))]
    pub(super) source: Source,
}

/// Where a fact was read, how well, and on which day.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(test), expect(dead_code, reason = "a fact carries its source in the code"))]
pub(super) struct Source {
    pub(super) page: &'static str,
    pub(super) status: Status,
    pub(super) on: &'static str,
}

/// How well a fact is known. What ends a grant or sends a token again must be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Read on the provider's own page, or in the standard.
    Verified,
    /// Read where somebody quotes it.
    Secondary,
}

impl Profile {
    /// Returns what RFC 6749, RFC 7009 and RFC 7662 promise of any provider, and no more.
    pub const fn rfc6749() -> Self {
        Self { name: "rfc6749", identity: Identity::Elsewhere, refusals: &[] }
    }

    /// Returns what is known of Salesforce.
    ///
    /// The answer has no `expires_in`; it names the user by an identity URL and is signed with
    /// the consumer secret (Salesforce Help, "OAuth 2.0 Web Server Flow", "Identity URLs").
    /// A dead refresh token is `invalid_grant`, "expired access/refresh token" (Salesforce Help,
    /// "OAuth 2.0 Authorization Errors"); every other `invalid_grant` only suspends.
    pub const fn salesforce() -> Self {
        Self { name: "salesforce", identity: Identity::SalesforceUrl, refusals: SALESFORCE }
    }

    /// Returns the profile's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Returns what an error means, or `None` where neither the profile nor the RFCs say.
    pub(super) fn meaning(&self, asked: Asked, error: &str, description: &str) -> Option<Meaning> {
        let description = description.to_ascii_lowercase();
        let fits = |rule: &&RefusalRule| {
            (rule.asked.is_empty() || rule.asked.contains(&asked))
                && rule.error == error
                && description.contains(rule.description)
        };
        let rule = self.refusals.iter().find(fits).or_else(|| RFC.iter().find(fits))?;
        Some(rule.meaning)
    }
}

const fn rule(
    asked: &'static [Asked],
    error: &'static str,
    description: &'static str,
    meaning: Meaning,
    source: Source,
) -> RefusalRule {
    RefusalRule { asked, error, description, meaning, source }
}

const RETRY: Meaning = Meaning::Class(RefusalClass::Retry);
const OWN_FAULT: Meaning = Meaning::Class(RefusalClass::OwnFault);
const SUSPENDED: Meaning = Meaning::Class(RefusalClass::Suspended);
const DEAD: Meaning = Meaning::Class(RefusalClass::Dead);
const BUSY: Meaning = Meaning::Busy;
const UNKNOWN: Meaning = Meaning::Unknown;

const fn verified(page: &'static str) -> Source {
    Source { page, status: Status::Verified, on: "2026-11-22" }
}

const TOKEN_ERRORS: Source = verified("RFC 6749, section 5.2");
const AUTHORIZATION_ERRORS: Source = verified("RFC 6749, section 4.1.2.1");
const REVOCATION_ERRORS: Source = verified("RFC 7009, section 2.2.1");
const DEVICE_ERRORS: Source = verified("RFC 8628, section 3.5");

/// What the RFCs say. `invalid_grant` covers a dead grant, a mistaken redirect URI and another
/// client's token alike, so that alone ends nothing.
static RFC: &[RefusalRule] = &[
    rule(&[], "invalid_client", "", OWN_FAULT, TOKEN_ERRORS),
    rule(&[], "unauthorized_client", "", OWN_FAULT, TOKEN_ERRORS),
    rule(&[], "unsupported_grant_type", "", OWN_FAULT, TOKEN_ERRORS),
    rule(&[], "invalid_request", "", OWN_FAULT, TOKEN_ERRORS),
    rule(&[], "invalid_scope", "", OWN_FAULT, TOKEN_ERRORS),
    rule(&[], "invalid_grant", "", SUSPENDED, TOKEN_ERRORS),
    rule(&[], "unsupported_token_type", "", OWN_FAULT, REVOCATION_ERRORS),
    rule(&[], "server_error", "", UNKNOWN, AUTHORIZATION_ERRORS),
    rule(&[], "temporarily_unavailable", "", RETRY, AUTHORIZATION_ERRORS),
    rule(&[], "slow_down", "", RETRY, DEVICE_ERRORS),
];

const SALESFORCE_ERRORS: Source = verified(
    "https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_flow_errors.htm",
);
/// The release note of Winter '25, which gives both texts.
const SALESFORCE_PARALLEL: Source = verified(
    "https://help.salesforce.com/s/articleView?\
     id=release-notes.rn_security_refresh_token_error.htm&release=252",
);
const SALESFORCE_REVOKE: Source = verified(
    "https://developer.salesforce.com/docs/platform/mobile-sdk/guide/oauth-revoking-tokens.html",
);
const SALESFORCE_CODES: Source = Source {
    page: "https://help.salesforce.com/articleView?id=remoteaccess_oauth_user_agent_flow.htm",
    status: Status::Secondary,
    on: "2026-11-22",
};

static SALESFORCE: &[RefusalRule] = &[
    rule(
        &[Asked::Refresh],
        "invalid_grant",
        "expired access/refresh token",
        DEAD,
        SALESFORCE_ERRORS,
    ),
    rule(
        &[Asked::Refresh],
        "invalid_grant",
        "token request is already being processed",
        BUSY,
        SALESFORCE_PARALLEL,
    ),
    // The same state, in the words that were used before that release.
    rule(
        &[Asked::Refresh],
        "invalid_grant",
        "expired authorization code",
        BUSY,
        SALESFORCE_PARALLEL,
    ),
    rule(&[Asked::Revoke], "invalid_token", "", DEAD, SALESFORCE_REVOKE),
    rule(&[], "invalid_client_id", "", OWN_FAULT, SALESFORCE_CODES),
    rule(&[], "rate_limit_exceeded", "", RETRY, SALESFORCE_CODES),
    rule(&[], "inactive_user", "", SUSPENDED, SALESFORCE_CODES),
    rule(&[], "inactive_org", "", SUSPENDED, SALESFORCE_CODES),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_grant_or_sends_again_is_verified() {
        for rule in SALESFORCE.iter().chain(RFC) {
            if matches!(rule.meaning, DEAD | BUSY) {
                assert_eq!(rule.source.status, Status::Verified, "{rule:?}");
            }
            assert!(!rule.source.page.is_empty() && rule.source.on.len() == 10, "{rule:?}");
            assert_eq!(rule.description, rule.description.to_ascii_lowercase(), "{rule:?}");
        }
    }

    #[test]
    fn only_salesforces_own_words_end_a_grant() {
        let salesforce = Profile::salesforce();
        let generic = Profile::rfc6749();
        let text = "Expired access/refresh token";
        assert_eq!(salesforce.meaning(Asked::Refresh, "invalid_grant", text), Some(DEAD));
        assert_eq!(salesforce.meaning(Asked::Exchange, "invalid_grant", text), Some(SUSPENDED));
        assert_eq!(generic.meaning(Asked::Refresh, "invalid_grant", text), Some(SUSPENDED));
        let other = "inactive organization";
        assert_eq!(salesforce.meaning(Asked::Refresh, "invalid_grant", other), Some(SUSPENDED));
        assert_eq!(generic.meaning(Asked::Refresh, "no_such_error", ""), None);
    }
}
