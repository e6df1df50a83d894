//! What can be known of a provider: the values of the facts.

use super::word::words;
use serde::Serialize;

/// How many approvals a provider keeps alive, and what it does with one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cap {
    /// The number that the provider states.
    pub number: u32,
    /// The number by which the guard goes; no more than `number`.
    pub guard: u32,
    /// What is counted.
    pub counts: CapCounts,
    /// For whom it is counted.
    pub per: CapPer,
    /// What happens beyond it.
    pub overflow: Overflow,
    /// How many counted approvals are usually outside our sight.
    pub outside: u32,
}

words! {
    /// What a cap counts.
    pub enum CapCounts {
        /// Refresh tokens.
        RefreshTokens = "refresh_tokens",
        /// Grants, with a refresh token or without.
        Grants = "grants",
        /// Access tokens.
        AccessTokens = "access_tokens",
    }
}

words! {
    /// For whom a cap counts.
    pub enum CapPer {
        /// For each user and app.
        UserApp = "user_app",
        /// For each user, app and set of scopes.
        UserAppScope = "user_app_scope",
    }
}

words! {
    /// What happens beyond a cap.
    pub enum Overflow {
        /// The oldest is revoked, and nobody is told.
        OldestRevoked = "oldest_revoked",
        /// The oldest that was never used is revoked, else the one whose last use is longest ago,
        /// and nobody is told.
        LeastUsedRevoked = "least_used_revoked",
        /// The new one is refused.
        Refused = "refused",
    }
}

/// How many pairs may be issued within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Throttle {
    /// How many.
    pub number: u32,
    /// Within how many seconds.
    pub seconds: u32,
}

words! {
    /// Whether a provider's refresh tokens rotate.
    pub enum Rotates {
        /// Never: a refresh token stays as it is.
        Never = "never",
        /// Where the app is configured so.
        Optional = "optional",
        /// Always: each refresh spends the refresh token.
        Always = "always",
    }
}

words! {
    /// The setting of one app: whether a refresh answers with a new refresh token and spends the
    /// old one.
    #[derive(Default)]
    #[non_exhaustive]
    pub enum Rotation {
        /// A refresh token stays as it is.
        Off = "off",
        /// Each refresh spends the refresh token.
        On = "on",
        /// Nobody said; taken as on.
        #[default]
        Unknown = "unknown",
    }
}

/// What can be done when the answer to a refresh was lost, where refresh tokens rotate.
///
/// Windows count from the sending of the request that was lost. A window that a tenant can
/// configure is zero unless somebody says what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Recovery {
    /// Nothing: the old refresh token is spent.
    None,
    /// The old refresh token may be presented again, and a further pair is issued.
    Replay {
        /// For so many seconds.
        seconds: u32,
    },
    /// The old refresh token works until the new one is first used.
    UntilSuccessorUsed {
        /// But no longer than so many seconds.
        max_seconds: u32,
    },
    /// The old refresh token goes on working.
    OldStaysValid,
    /// The old refresh token may be presented again, and the same pair comes back.
    Idempotent {
        /// For so many seconds.
        seconds: u32,
    },
}

words! {
    /// What the provider does when it sees a spent refresh token.
    pub enum Reuse {
        /// It answers with an error, and nothing else happens.
        PlainError = "plain_error",
        /// It revokes all that descends from that token.
        FamilyDies = "family_dies",
    }
}

words! {
    /// How much dies with a revoked token. Where it is not known, take the whole grant.
    pub enum RevokeGranularity {
        /// That token alone.
        AccessOnly = "access_only",
        /// The refresh token and its access tokens.
        Pair = "pair",
        /// All that the user ever approved for the app; siblings die too.
        WholeGrant = "whole_grant",
    }
}

/// Where the user of a pair is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum IdentitySource {
    /// In a URL of the answer that ends in the ids of organisation and user, as Salesforce's.
    IdentityUrl {
        /// The answer's member.
        field: String,
    },
    /// In the id token.
    IdToken {
        /// The claim.
        claim: String,
    },
    /// In a parameter of the callback.
    Callback {
        /// The parameter.
        parameter: String,
    },
    /// In the answer to a question of its own.
    LookUp {
        /// Where to ask, with the access token; a template, see [`Endpoints`].
        url: String,
        /// Where in the answer: a JSON pointer (RFC 6901).
        pointer: String,
    },
    /// Nowhere: the caller knows.
    Caller,
}

words! {
    /// How the client proves who it is (RFC 6749, section 2.3). Without a secret it only says so.
    #[non_exhaustive]
    pub enum ClientAuth {
        /// In the `Authorization` header; every server with client secrets takes it.
        Basic = "basic",
        /// In the form.
        Post = "post",
        /// By an assertion that its key signs (RFC 7523, section 2.2).
        PrivateKeyJwt = "private_key_jwt",
    }
}

/// Where a provider is called.
///
/// Templates: `{host}` is the host of the token endpoint, `{client_id}` the app's, and `{instance}`
/// the URL that a pair names as its `instance_url`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    /// Where users approve (RFC 6749, section 3.1).
    pub authorize: Option<String>,
    /// Where tokens are issued (RFC 6749, section 3.2).
    pub token: String,
    /// Where tokens are revoked.
    pub revoke: Option<String>,
    /// How they are revoked there.
    pub revoke_by: RevokeBy,
    /// Where tokens are asked about (RFC 7662).
    pub introspect: Option<String>,
}

words! {
    /// The form of a request to revoke.
    pub enum RevokeBy {
        /// The refresh token, or else the access token, in a form that is posted (RFC 7009).
        PostForm = "post_form",
        /// The access token in JSON, with the method DELETE and the client's credentials in the
        /// header, as GitHub has it.
        DeleteJson = "delete_json",
    }
}

words! {
    /// About which tokens a provider can be asked (RFC 7662).
    pub enum Introspects {
        /// Access tokens.
        Access = "access",
        /// Refresh tokens.
        Refresh = "refresh",
        /// Both.
        Both = "both",
        /// None.
        No = "no",
    }
}

/// How long tokens live. A lifetime that is not known, or that none limits, is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Expiry {
    /// How an access token's end is known.
    pub source: ExpirySource,
    /// How long an access token lives, in seconds.
    pub access_seconds: Option<u32>,
    /// How long an unused refresh token lives, in seconds.
    pub refresh_idle_seconds: Option<u32>,
    /// How long a refresh token lives at most, in seconds.
    pub refresh_max_seconds: Option<u32>,
}

words! {
    /// How an access token's end is known.
    pub enum ExpirySource {
        /// The answer declares it.
        Declared = "declared",
        /// The provider says it when asked.
        Introspected = "introspected",
        /// It can only be assumed.
        Assumed = "assumed",
    }
}

/// The provider's own list of a user's live approvals. It is evidence to show: no line says which
/// of our tokens it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Approvals {
    /// Where to ask, with the access token; a template, see [`Endpoints`].
    pub url: String,
    /// Where in the answer the list is: a JSON pointer (RFC 6901).
    pub records: String,
    /// The member with the id of a line.
    pub id: String,
    /// The member with the app.
    pub app: Option<String>,
    /// The member with the user.
    pub user: Option<String>,
    /// The member with the time when it was made.
    pub created: Option<String>,
    /// The member with the time of its last use.
    pub last_used: Option<String>,
    /// The member with the number of its uses.
    pub uses: Option<String>,
}
