//! One record of an account's past as it is shown: no secret; names and texts where there is a key,
//! and tags where there is none.

use super::HolderName;
use super::pair::{holder_of, source_of};
use super::view::{scopes_of, with_names};
use crate::codec;
use crate::engine::files::{RecordBytes, parse};
use crate::engine::keychain::Keychain;
use crate::error::Error;
use crate::format::clear::{Clear, Flags, Issued, Prefix};
use crate::format::record::{Kind, Record};
use crate::format::value::{
    Action, Cause, Confidence, DoubtReason, NotSentReason, RefusalClass, ResolvedHow,
};
use crate::ids::{AccountTag, Fingerprint, Generation, GrantId, Holder, HolderTag, Lsn, OpId};
use crate::outcome::ExpirySource;
use serde::Serialize;

/// One record of an account's past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Event {
    /// The record's LSN.
    pub lsn: Lsn,
    /// When it was made, in milliseconds since 1970.
    pub at_ms: u64,
    /// The record's kind, such as `issued`.
    pub kind: &'static str,
    /// The account under which it was written.
    pub account_tag: AccountTag,
    /// The grant, or 0.
    pub grant: GrantId,
    /// The generation, or 0.
    pub generation: Generation,
    /// The operation that it belongs to, or 0; an intent is one of its own.
    pub op: OpId,
    /// What the record says beyond that.
    #[serde(flatten)]
    pub details: EventDetails,
}

/// What a record says, by its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum EventDetails {
    /// A call was about to start: of an `intent`.
    Call {
        /// What was asked.
        action: Action,
        /// On whose behalf, if that was said.
        #[serde(skip_serializing_if = "Option::is_none")]
        holder: Option<HolderName>,
        /// The scopes that were asked for, with a key.
        scopes: Vec<String>,
        /// What stands for the token that was presented, or none.
        presented: Fingerprint,
        /// A token beside the grant's chain was asked for.
        beside: bool,
        /// When the call will have been given up, in milliseconds since 1970.
        deadline_ms: u64,
    },
    /// A pair: of `issued` and `imported`.
    Pair {
        /// For whom, if that was said.
        #[serde(skip_serializing_if = "Option::is_none")]
        holder: Option<HolderName>,
        /// Its scopes, with a key.
        scopes: Vec<String>,
        /// When it was issued, in milliseconds since 1970.
        issued_at_ms: u64,
        /// When its access token expires, in milliseconds since 1970, or 0.
        expires_at_ms: u64,
        /// How that is known.
        expiry: Option<ExpirySource>,
        /// Until when it waits for a holder, in milliseconds since 1970.
        adopt_by_ms: u64,
        /// What stands for the refresh token, or none.
        refresh_fingerprint: Fingerprint,
        /// The refresh token is that of the generation before, since the answer had none.
        inherited: bool,
        /// The operation was no longer open.
        fenced: bool,
        /// The grant is not refreshed until it is activated.
        paused: bool,
        /// It is an access token beside the grant's chain of pairs.
        beside: bool,
    },
    /// The provider said no: of `refused`.
    Refusal {
        /// What it means.
        class: RefusalClass,
        /// HTTP status, or 0.
        status: u16,
        /// How long the provider asks to wait, in seconds, or 0.
        retry_after_s: u32,
        /// The error code, with a key.
        error: Option<String>,
        /// The sanitised description, with a key.
        description: Option<String>,
        /// The provider's id of the request, with a key, if it gave one.
        request_id: Option<String>,
    },
    /// The request never left: of `not_sent`.
    NotSent {
        /// Why.
        reason: NotSentReason,
    },
    /// It is not known what the request did: of `in_doubt`.
    Doubt {
        /// Why.
        reason: DoubtReason,
        /// HTTP status, or 0.
        status: u16,
        /// How many bytes of body there were.
        body_bytes: u32,
        /// The provider's id of the request, with a key, if it gave one.
        request_id: Option<String>,
    },
    /// What was open or in doubt is so no longer: of `resolved`.
    Resolution {
        /// How it was settled.
        how: ResolvedHow,
    },
    /// A grant, or all that an account has, moved: of `identified` and `merged`.
    Move {
        /// To which account.
        to_account: AccountTag,
    },
    /// Of `adopted` and `released`.
    Holding {
        /// Who.
        holder: HolderName,
        /// The scopes that it needs, with a key.
        scopes: Vec<String>,
    },
    /// A holder moved from the grant to another: of `superseded`.
    Superseded {
        /// Who.
        holder: HolderName,
        /// The grant that it depends on from then on.
        to: GrantId,
    },
    /// The grant ended: of `ended`.
    End {
        /// Why.
        cause: Cause,
        /// How sure that is.
        confidence: Confidence,
    },
    /// When the newest access token expires was learned: of `told`.
    Told {
        /// When, in milliseconds since 1970.
        expires_at_ms: u64,
    },
    /// The kind says all: of `revived`, `forgotten`, `worked` and `activated`.
    Bare {},
}

impl Event {
    pub(super) fn of(bytes: &RecordBytes, keychain: Option<&Keychain>) -> Result<Self, Error> {
        let record = parse(bytes)?;
        let lsn = record.lsn();
        let prefix = record.clear.prefix().copied().unwrap_or(NO_PREFIX);
        let makes_own = matches!(record.clear, Clear::Imported(_) | Clear::Issued(_));
        let grant = match prefix.grant.is_none() && makes_own {
            true => GrantId(lsn.0),
            false => prefix.grant,
        };
        Ok(Self {
            lsn,
            at_ms: record.header.at_ms,
            kind: word(record.kind()),
            account_tag: prefix.account,
            grant,
            generation: prefix.generation,
            op: if record.kind() == Kind::Intent { OpId(lsn.0) } else { prefix.op },
            details: EventDetails::of(&record, &Texts::of(bytes, &record, keychain)?),
        })
    }
}

const NO_PREFIX: Prefix = Prefix {
    account: AccountTag::NONE,
    grant: GrantId::NONE,
    generation: Generation::NONE,
    flags: Flags::NONE,
    op: OpId::NONE,
};

/// What an event shows of a sealed part; nothing without a key.
#[derive(Debug, Default)]
struct Texts {
    holder: Option<Holder>,
    scopes: Vec<String>,
    error: Option<String>,
    description: Option<String>,
    request_id: Option<String>,
}

impl Texts {
    fn of(
        bytes: &RecordBytes,
        record: &Record<'_>,
        keychain: Option<&Keychain>,
    ) -> Result<Self, Error> {
        let mut texts = Self::default();
        let Some(keychain) = keychain else { return Ok(texts) };
        let forged = || Error::Forged { lsn: record.lsn() };
        let text = |text: &str| text.to_owned();
        match record.clear {
            Clear::Refused(_) => {
                let plain = keychain.unseal(record)?;
                let refusal = codec::Refusal::decode(&plain).map_err(|_| forged())?;
                texts.error = Some(text(refusal.error));
                texts.description = Some(text(refusal.description));
                texts.request_id = refusal.request_id.map(text);
            }
            Clear::InDoubt(_) => {
                let plain = keychain.unseal(record)?;
                let doubt = codec::Doubt::decode(&plain).map_err(|_| forged())?;
                texts.request_id = doubt.request_id.map(text);
            }
            _ => with_names(bytes, keychain, |names| {
                (texts.holder, texts.scopes) = (holder_of(names), scopes_of(names));
            })?,
        }
        Ok(texts)
    }

    fn holder(&self, holder_tag: HolderTag) -> HolderName {
        HolderName { holder_tag, holder: self.holder.clone() }
    }

    fn holder_if_any(&self, holder_tag: HolderTag) -> Option<HolderName> {
        (!holder_tag.is_none()).then(|| self.holder(holder_tag))
    }
}

impl EventDetails {
    fn of(record: &Record<'_>, texts: &Texts) -> Self {
        match &record.clear {
            Clear::Intent(intent) => Self::Call {
                action: intent.action,
                holder: texts.holder_if_any(intent.holder),
                scopes: texts.scopes.clone(),
                presented: intent.presented,
                beside: intent.prefix.flags.has(Flags::BESIDE),
                deadline_ms: intent.deadline_ms,
            },
            Clear::Issued(issued) | Clear::Imported(issued) => Self::pair(issued, texts),
            Clear::Refused(refused) => Self::Refusal {
                class: refused.class,
                status: refused.status,
                retry_after_s: refused.retry_after_s,
                error: texts.error.clone(),
                description: texts.description.clone(),
                request_id: texts.request_id.clone(),
            },
            Clear::NotSent(not_sent) => Self::NotSent { reason: not_sent.reason },
            Clear::InDoubt(doubt) => Self::Doubt {
                reason: doubt.reason,
                status: doubt.status,
                body_bytes: doubt.body_bytes,
                request_id: texts.request_id.clone(),
            },
            Clear::Resolved(resolved) => Self::Resolution { how: resolved.how },
            Clear::Identified(identified) => Self::Move { to_account: identified.to },
            Clear::Merged(merged) => Self::Move { to_account: merged.to },
            Clear::Adopted(adopted) => {
                Self::Holding { holder: texts.holder(adopted.holder), scopes: texts.scopes.clone() }
            }
            Clear::Released(released) => {
                Self::Holding { holder: texts.holder(released.holder), scopes: Vec::new() }
            }
            Clear::Superseded(superseded) => {
                Self::Superseded { holder: texts.holder(superseded.holder), to: superseded.to }
            }
            Clear::Ended(ended) => Self::End { cause: ended.cause, confidence: ended.confidence },
            Clear::Told(told) => Self::Told { expires_at_ms: told.expires_at_ms },
            Clear::Revived(_)
            | Clear::Forgotten(_)
            | Clear::Worked(_)
            | Clear::Activated(_)
            | Clear::Claimed(_)
            | Clear::Opened(_)
            | Clear::Sealed(_)
            | Clear::Marker(_) => Self::Bare {},
        }
    }

    fn pair(issued: &Issued, texts: &Texts) -> Self {
        let flags = issued.prefix.flags;
        Self::Pair {
            holder: texts.holder_if_any(issued.holder),
            scopes: texts.scopes.clone(),
            issued_at_ms: issued.issued_at_ms,
            expires_at_ms: issued.expires_at_ms,
            expiry: source_of(flags, issued.expires_at_ms),
            adopt_by_ms: issued.adopt_by_ms,
            refresh_fingerprint: issued.refresh,
            inherited: flags.has(Flags::INHERITED),
            fenced: flags.has(Flags::ORPHAN),
            paused: flags.has(Flags::PAUSED),
            beside: flags.has(Flags::BESIDE),
        }
    }

    pub(super) fn holder_mut(&mut self) -> Option<&mut HolderName> {
        match self {
            Self::Call { holder, .. } | Self::Pair { holder, .. } => holder.as_mut(),
            Self::Holding { holder, .. } | Self::Superseded { holder, .. } => Some(holder),
            _ => None,
        }
    }
}

/// Names a kind as one token.
fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Intent => "intent",
        Kind::Issued => "issued",
        Kind::Refused => "refused",
        Kind::NotSent => "not_sent",
        Kind::InDoubt => "in_doubt",
        Kind::Resolved => "resolved",
        Kind::Identified => "identified",
        Kind::Merged => "merged",
        Kind::Adopted => "adopted",
        Kind::Released => "released",
        Kind::Superseded => "superseded",
        Kind::Ended => "ended",
        Kind::Revived => "revived",
        Kind::Forgotten => "forgotten",
        Kind::Imported => "imported",
        Kind::Worked => "worked",
        Kind::Claimed => "claimed",
        Kind::Activated => "activated",
        Kind::Told => "told",
        Kind::Opened => "opened",
        Kind::Sealed => "sealed",
        Kind::Marker => "marker",
    }
}
