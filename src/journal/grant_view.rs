//! What a grant looks like from outside: who depends on it, how it ended, what was refused.

use super::pair::{holder_of, source_of};
use super::view::{Sight, as_text, scopes_of, with_names};
use crate::codec;
use crate::engine::files::parse;
use crate::engine::grant::{Beside, Grant, Held, PairFacts, Refusal};
use crate::engine::lapse::Lapse;
use crate::error::Error;
use crate::format::clear::Flags;
use crate::format::value::{Cause, Confidence, RefusalClass};
use crate::ids::{Fingerprint, Generation, GrantId, Holder, HolderTag, Lsn};
use crate::outcome::ExpirySource;
use serde::Serialize;

/// A grant of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GrantView {
    /// The grant.
    pub grant: GrantId,
    /// The newest generation; 0 where only the grant's end is still known.
    pub generation: Generation,
    /// What state it is in.
    pub state: GrantState,
    /// Who depends on it, in the order in which they came.
    pub holders: Vec<HolderView>,
    /// For whom its newest pair was asked, if that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_for: Option<HolderName>,
    /// The scopes of its newest pair, with a key.
    pub scopes: Vec<String>,
    /// LSN of the newest pair's record.
    pub issued_lsn: Lsn,
    /// When the newest pair was issued, in milliseconds since 1970.
    pub issued_at_ms: u64,
    /// When its access token expires, in milliseconds since 1970, or 0 where that is not known.
    pub expires_at_ms: u64,
    /// How that is known; nothing follows from what is only assumed.
    pub expiry: Option<ExpirySource>,
    /// When all access tokens that the grant ever had have lapsed, in milliseconds since 1970: none
    /// where that is not known of one of them. An assumption is not knowing.
    pub lapses_at_ms: Option<u64>,
    /// The expiry of each access token that the grant ever had is assumed.
    pub only_assumed: bool,
    /// Access tokens of other scopes beside its newest pair, in the order in which they came.
    pub beside: Vec<BesideView>,
    /// Until when it waits for a holder, in milliseconds since 1970.
    pub adopt_by_ms: u64,
    /// There is a refresh token.
    pub has_refresh_token: bool,
    /// What stands for the refresh token in the clear, or none.
    pub refresh_fingerprint: Fingerprint,
    /// The newest generation was used with success.
    pub worked: bool,
    /// It was imported, and is neither refreshed nor revoked until it is activated.
    pub paused: bool,
    /// It began with an import.
    pub imported: bool,
    /// Its newest pair came for an operation that was no longer open.
    pub fenced: bool,
    /// The store was taken over by another host since its newest pair was issued or last worked:
    /// its refresh token may have been presented elsewhere.
    pub stale: bool,
    /// The refresh token before it is still kept.
    pub keeps_previous: bool,
    /// What the provider last refused, if that is newer than the newest pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<RefusalView>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<EndView>,
}

/// An access token beside a grant's chain of pairs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BesideView {
    /// Its scopes, with a key.
    pub scopes: Vec<String>,
    /// When it was issued, in milliseconds since 1970.
    pub issued_at_ms: u64,
    /// When it expires, in milliseconds since 1970, or 0 where that is not known.
    pub expires_at_ms: u64,
    /// How that is known.
    pub expiry: Option<ExpirySource>,
    /// LSN of its record.
    pub lsn: Lsn,
}

/// What state a grant is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GrantState {
    /// Somebody depends on it.
    Held,
    /// Nobody has depended on it yet; it is an orphan once `adopt_by_ms` has passed.
    Waiting,
    /// All who depended on it have let go: it lives at the provider for nobody.
    Released,
    /// It is over.
    Ended,
}

/// How a grant ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EndView {
    /// Why.
    pub cause: Cause,
    /// How sure that is.
    pub confidence: Confidence,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// LSN of the record that says so.
    pub lsn: Lsn,
}

/// What the provider said when it refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RefusalView {
    /// What it means for the grant.
    pub class: RefusalClass,
    /// HTTP status, or 0.
    pub status: u16,
    /// How long the provider asks to wait, in seconds, or 0.
    pub retry_after_s: u32,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// LSN of the record that says so.
    pub lsn: Lsn,
    /// The error code, with a key.
    pub error: Option<String>,
    /// The sanitised description, with a key.
    pub description: Option<String>,
    /// The provider's id of the request, with a key, if it gave one.
    pub request_id: Option<String>,
}

/// A holder, by its tag, and by its name where there is a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HolderName {
    /// The holder's tag.
    pub holder_tag: HolderTag,
    /// The holder, with a key.
    #[serde(serialize_with = "as_text")]
    pub holder: Option<Holder>,
}

/// Who depends on a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HolderView {
    /// The holder's tag.
    pub holder_tag: HolderTag,
    /// The holder, with a key.
    #[serde(serialize_with = "as_text")]
    pub holder: Option<Holder>,
    /// The scopes that it needs, with a key; none named are all of the grant.
    pub scopes: Vec<String>,
    /// When the record was made that last said so, in milliseconds since 1970.
    pub since_ms: u64,
    /// LSN of that record.
    pub lsn: Lsn,
}

impl GrantView {
    pub(super) fn of(grant: &Grant, sight: Sight<'_>) -> Result<Self, Error> {
        let holders: Result<_, _> =
            grant.holders.iter().map(|held| HolderView::of(held, sight)).collect();
        let PairFacts { flags, holder: holder_tag, .. } = grant.pair;
        let mut issued_for =
            (!holder_tag.is_none()).then_some(HolderName { holder_tag, holder: None });
        let mut scopes = Vec::new();
        if let Some(keychain) = sight.keychain.filter(|_| !grant.issued.is_none()) {
            with_names(&(sight.read)(grant.issued)?, keychain, |names| {
                scopes = scopes_of(names);
                if let Some(named) = &mut issued_for {
                    named.holder = holder_of(names);
                }
            })?;
        }
        let beside: Result<_, _> =
            grant.besides.iter().map(|beside| BesideView::of(beside, sight)).collect();
        let lapse = grant.lapse();
        let refusal = grant.refusal.map(|refusal| RefusalView::of(refusal, sight)).transpose()?;
        Ok(Self {
            grant: grant.id,
            generation: grant.generation,
            state: GrantState::of(grant),
            holders: holders?,
            issued_for,
            scopes,
            issued_lsn: grant.issued,
            issued_at_ms: grant.pair.issued_at_ms,
            expires_at_ms: grant.pair.expires_at_ms,
            expiry: source_of(flags, grant.pair.expires_at_ms),
            lapses_at_ms: lapse.at_ms(),
            only_assumed: lapse == Lapse::Assumed,
            beside: beside?,
            adopt_by_ms: grant.pair.adopt_by_ms,
            has_refresh_token: flags.has(Flags::REFRESH),
            refresh_fingerprint: grant.pair.refresh,
            worked: !grant.worked.is_none(),
            paused: grant.is_paused(),
            imported: flags.has(Flags::IMPORTED),
            fenced: flags.has(Flags::ORPHAN),
            stale: sight.claimed > grant.issued.max(grant.worked),
            keeps_previous: !grant.previous.is_none(),
            refusal,
            end: grant.ended.map(|end| EndView {
                cause: end.cause,
                confidence: end.confidence,
                at_ms: end.at_ms,
                lsn: end.record,
            }),
        })
    }
}

impl BesideView {
    fn of(beside: &Beside, sight: Sight<'_>) -> Result<Self, Error> {
        let mut scopes = Vec::new();
        if let Some(keychain) = sight.keychain {
            with_names(&(sight.read)(beside.record)?, keychain, |names| scopes = scopes_of(names))?;
        }
        Ok(Self {
            scopes,
            issued_at_ms: beside.issued_at_ms,
            expires_at_ms: beside.expires_at_ms,
            expiry: source_of(beside.flags, beside.expires_at_ms),
            lsn: beside.record,
        })
    }
}

impl HolderView {
    fn of(held: &Held, sight: Sight<'_>) -> Result<Self, Error> {
        let (mut holder, mut scopes) = (None, Vec::new());
        if let Some(keychain) = sight.keychain {
            with_names(&(sight.read)(held.record)?, keychain, |names| {
                (holder, scopes) = (holder_of(names), scopes_of(names));
            })?;
        }
        let (since_ms, lsn) = (held.since_ms, held.record);
        Ok(Self { holder_tag: held.holder, holder, scopes, since_ms, lsn })
    }
}

impl RefusalView {
    fn of(refusal: Refusal, sight: Sight<'_>) -> Result<Self, Error> {
        let mut view = Self {
            class: refusal.class,
            status: refusal.status,
            retry_after_s: refusal.retry_after_s,
            at_ms: refusal.at_ms,
            lsn: refusal.record,
            error: None,
            description: None,
            request_id: None,
        };
        if let Some(keychain) = sight.keychain {
            let bytes = (sight.read)(refusal.record)?;
            let plain = keychain.unseal(&parse(&bytes)?)?;
            let texts = codec::Refusal::decode(&plain);
            let texts = texts.map_err(|_| Error::Forged { lsn: refusal.record })?;
            view.error = Some(texts.error.to_owned());
            view.description = Some(texts.description.to_owned());
            view.request_id = texts.request_id.map(str::to_owned);
        }
        Ok(view)
    }
}

impl GrantState {
    fn of(grant: &Grant) -> Self {
        match (grant.ended, grant.holders.is_empty(), grant.gone.is_empty()) {
            (Some(_), ..) => Self::Ended,
            (None, false, _) => Self::Held,
            (None, true, true) => Self::Waiting,
            (None, true, false) => Self::Released,
        }
    }
}
