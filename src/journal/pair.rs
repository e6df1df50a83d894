//! The pair that a caller may see: made of a durable record, and of nothing else.

use crate::codec;
use crate::engine::files::{RecordBytes, parse};
use crate::engine::keychain::Keychain;
use crate::error::Error;
use crate::format::clear::{Clear, Flags};
use crate::ids::{AccountTag, App, Generation, GrantId, Holder, Lsn, User};
use crate::outcome::ExpirySource;
use crate::secret::Secret;
use std::fmt;

/// A pair that is durable.
///
/// Only the journal makes one, from a record that was synced; so whoever holds one knows that a
/// crash cannot lose it. It cannot be cloned, serialized, compared or printed.
///
/// ```compile_fail
/// fn cheat(pair: tokenwal::IssuedPair) -> tokenwal::IssuedPair {
///     pair.clone()
/// }
/// ```
pub struct IssuedPair {
    pub(crate) lsn: Lsn,
    pub(crate) account: AccountTag,
    pub(crate) grant: GrantId,
    pub(crate) generation: Generation,
    pub(crate) issued_at_ms: u64,
    pub(crate) expires_at_ms: u64,
    pub(crate) expiry_source: Option<ExpirySource>,
    pub(crate) beside: bool,
    pub(crate) adopt_by_ms: u64,
    pub(crate) app: Option<App>,
    pub(crate) user: Option<User>,
    pub(crate) holder: Option<Holder>,
    pub(crate) scopes: Vec<String>,
    pub(crate) access_scopes: Option<Vec<String>>,
    pub(crate) access_token: Secret,
    pub(crate) refresh_token: Option<Secret>,
    pub(crate) id_token: Option<Secret>,
    pub(crate) token_type: String,
    pub(crate) token_endpoint: Option<String>,
    pub(crate) instance_url: Option<String>,
    pub(crate) fields: Vec<(String, Secret)>,
}

impl IssuedPair {
    /// Opens a durable record. `account` is where the grant belongs now.
    pub(crate) fn from_record(
        keychain: &Keychain,
        bytes: &RecordBytes,
        account: AccountTag,
        grant: GrantId,
    ) -> Result<Self, Error> {
        let record = parse(bytes)?;
        let (Clear::Issued(issued) | Clear::Imported(issued)) = record.clear else {
            return Err(Error::Forged { lsn: record.lsn() });
        };
        let plain = keychain.unseal(&record)?;
        let forged = || Error::Forged { lsn: record.lsn() };
        let pair = codec::Pair::decode(&plain).map_err(|_| forged())?;
        let secret = |text: &str| Secret::new(text.to_owned());
        let text = |text: &str| text.to_owned();
        Ok(Self {
            lsn: record.lsn(),
            account,
            grant,
            generation: issued.prefix.generation,
            issued_at_ms: issued.issued_at_ms,
            expires_at_ms: issued.expires_at_ms,
            expiry_source: source_of(issued.prefix.flags, issued.expires_at_ms),
            beside: issued.prefix.flags.has(Flags::BESIDE),
            adopt_by_ms: issued.adopt_by_ms,
            app: app_of(&pair.names),
            user: user_of(&pair.names),
            holder: holder_of(&pair.names),
            scopes: pair.names.scopes.0.iter().copied().map(text).collect(),
            access_scopes: pair
                .access_scopes
                .map(|scopes| scopes.0.iter().copied().map(text).collect()),
            access_token: secret(pair.access_token),
            refresh_token: pair.refresh_token.map(secret),
            id_token: pair.id_token.map(secret),
            token_type: pair.token_type.to_owned(),
            token_endpoint: pair.token_endpoint.map(text),
            instance_url: pair.instance_url.map(text),
            fields: pair.fields.0.iter().map(|(name, raw)| (text(name), secret(raw))).collect(),
        })
    }

    /// Takes note of when the access token expires, as the provider said later.
    pub(super) fn hear(&mut self, expires_at_ms: u64) {
        self.expires_at_ms = expires_at_ms;
        self.expiry_source = source_of(Flags::NONE, expires_at_ms);
    }

    /// Returns the access token.
    pub fn access_token(&self) -> &Secret {
        &self.access_token
    }

    /// Returns the refresh token, the provider's or the one inherited from the generation before.
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.refresh_token.as_ref()
    }

    /// Returns the id token.
    pub fn id_token(&self) -> Option<&Secret> {
        self.id_token.as_ref()
    }

    /// Returns the tag of the account that the grant belongs to.
    pub fn account(&self) -> AccountTag {
        self.account
    }

    /// Returns the grant.
    pub fn grant(&self) -> GrantId {
        self.grant
    }

    /// Returns the generation, which also fences its use.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns the LSN of its record.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Returns the app.
    pub fn app(&self) -> Option<&App> {
        self.app.as_ref()
    }

    /// Returns the user, if it was known when the pair was settled.
    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// Returns the holder that was named when the operation was begun.
    pub fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// Returns the scopes: those of the grant's chain of pairs or, of a token beside it, its own.
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// Returns the scopes of this access token alone.
    ///
    /// They are [`scopes`](Self::scopes) but where the pair answered a request for others
    /// ([`Begin::beside`](crate::Begin::beside)) with a new refresh token: that has the scopes of the
    /// one that was presented (RFC 6749, section 6), and the next refresh that asks for none gives an
    /// access token that has them all again.
    pub fn access_scopes(&self) -> &[String] {
        self.access_scopes.as_deref().unwrap_or(&self.scopes)
    }

    /// Says whether the access token has other scopes than the pair's refresh token.
    pub fn is_narrowed(&self) -> bool {
        self.access_scopes.is_some()
    }

    /// Returns the token type, `Bearer` unless the provider said otherwise.
    pub fn token_type(&self) -> &str {
        &self.token_type
    }

    /// Returns where the pair is refreshed, if that is known.
    pub fn token_endpoint(&self) -> Option<&str> {
        self.token_endpoint.as_deref()
    }

    /// Returns where the access token is used, as Salesforce's `instance_url`.
    pub fn instance_url(&self) -> Option<&str> {
        self.instance_url.as_deref()
    }

    /// Returns when the pair was issued, in milliseconds since 1970.
    pub fn issued_at_ms(&self) -> u64 {
        self.issued_at_ms
    }

    /// Returns when the access token expires, in milliseconds since 1970, if that is known.
    pub fn expires_at_ms(&self) -> Option<u64> {
        Some(self.expires_at_ms).filter(|at| *at > 0)
    }

    /// Returns how it is known when the access token expires; what is only assumed says nothing about
    /// whether it still works.
    pub fn expiry_source(&self) -> Option<ExpirySource> {
        self.expiry_source
    }

    /// Says whether the access token is one beside the grant's chain of pairs, with scopes of its own
    /// and no refresh token; see [`Begin::beside`](crate::Begin::beside).
    pub fn is_beside(&self) -> bool {
        self.beside
    }

    /// Returns until when the grant waits for a holder, in milliseconds since 1970.
    pub fn adopt_by_ms(&self) -> u64 {
        self.adopt_by_ms
    }

    /// Returns another field of the provider's answer, as raw JSON; it may be secret.
    pub fn field(&self, name: &str) -> Option<&Secret> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, raw)| raw)
    }

    /// Returns the other fields of the provider's answer.
    pub(crate) fn fields(&self) -> &[(String, Secret)] {
        &self.fields
    }
}

impl fmt::Debug for IssuedPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedPair")
            .field("account", &self.account)
            .field("grant", &self.grant)
            .field("generation", &self.generation)
            .field("lsn", &self.lsn)
            .field("has_refresh_token", &self.refresh_token.is_some())
            .finish_non_exhaustive()
    }
}

/// Says how a time of expiry is known: where neither bit is set it was asked for.
pub(super) fn source_of(flags: Flags, expires_at_ms: u64) -> Option<ExpirySource> {
    let declared = flags.has(Flags::EXPIRES_DECLARED);
    let assumed = flags.has(Flags::EXPIRES_ASSUMED);
    match (expires_at_ms, declared, assumed) {
        (0, ..) => None,
        (_, true, _) => Some(ExpirySource::Declared),
        (_, false, true) => Some(ExpirySource::Assumed),
        (_, false, false) => Some(ExpirySource::Introspected),
    }
}

pub(crate) fn app_of(names: &codec::Names<'_>) -> Option<App> {
    names.app.and_then(|(provider, client_id)| App::new(provider, client_id).ok())
}

pub(crate) fn user_of(names: &codec::Names<'_>) -> Option<User> {
    names.user.and_then(|user| User::new(user).ok())
}

pub(crate) fn holder_of(names: &codec::Names<'_>) -> Option<Holder> {
    names.holder.and_then(|(tenant, name)| Holder::new(tenant, name).ok())
}
