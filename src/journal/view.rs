//! What an account looks like from outside: no secrets, names only where there is a key.

use super::pair::{app_of, holder_of, user_of};
use crate::codec::{Names, Pair};
use crate::engine::files::{RecordBytes, parse};
use crate::engine::grant::Grant;
use crate::engine::keychain::Keychain;
use crate::engine::state::{AccountState, Operation};
use crate::error::Error;
use crate::format::clear::{Clear, Flags};
use crate::format::value::{Action, Cause, Confidence, DoubtReason};
use crate::ids::{
    AccountTag, App, AppTag, Generation, GrantId, Holder, HolderTag, Lsn, OpId, User,
};
use serde::Serialize;

/// An account at some LSN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AccountView {
    /// The account's tag.
    pub account_tag: AccountTag,
    /// The app's tag.
    pub app_tag: AppTag,
    /// The app, with a key.
    #[serde(serialize_with = "as_text")]
    pub app: Option<App>,
    /// The user, with a key, if it is known.
    #[serde(serialize_with = "as_text")]
    pub user: Option<User>,
    /// The user is not known yet, and the tag is random.
    pub provisional: bool,
    /// LSN of the last record that changed the account.
    pub lsn: Lsn,
    /// Its grants, in the order of their ids.
    pub grants: Vec<GrantView>,
    /// Its operations without a final outcome.
    pub in_doubt: Vec<OperationView>,
}

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
    /// Who depends on it.
    pub holders: Vec<HolderView>,
    /// LSN of the newest pair's record.
    pub issued_lsn: Lsn,
    /// When the newest pair was issued, in milliseconds since 1970.
    pub issued_at_ms: u64,
    /// When its access token expires, in milliseconds since 1970, or 0 where that is not known.
    pub expires_at_ms: u64,
    /// Until when it waits for a holder, in milliseconds since 1970.
    pub adopt_by_ms: u64,
    /// There is a refresh token.
    pub has_refresh_token: bool,
    /// The newest generation was used with success.
    pub worked: bool,
    /// The refresh token before it is still kept.
    pub keeps_previous: bool,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<EndView>,
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

/// Who depends on a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HolderView {
    /// The holder's tag.
    pub holder_tag: HolderTag,
    /// The holder, with a key.
    #[serde(serialize_with = "as_text")]
    pub holder: Option<Holder>,
}

/// An operation without a final outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OperationView {
    /// The operation.
    pub op: OpId,
    /// Its account's tag.
    pub account_tag: AccountTag,
    /// What was asked.
    pub action: Action,
    /// Of which grant; 0 for an exchange.
    pub grant: GrantId,
    /// Which generation was presented.
    pub generation: Generation,
    /// Why it is in doubt; none where its process has said nothing.
    pub doubt: Option<DoubtReason>,
    /// When it was begun, in milliseconds since 1970.
    pub since_ms: u64,
    /// When the call will have been given up, in milliseconds since 1970.
    pub deadline_ms: u64,
}

/// Reads records for a view.
pub(crate) type ReadRecord<'a> = &'a dyn Fn(Lsn) -> Result<RecordBytes, Error>;

impl AccountView {
    pub(crate) fn of(
        account: AccountTag,
        state: &AccountState,
        keychain: Option<&Keychain>,
        read: ReadRecord<'_>,
    ) -> Result<Self, Error> {
        let mut view = Self {
            account_tag: account,
            app_tag: state.app,
            app: None,
            user: None,
            provisional: state.provisional,
            lsn: state.version,
            grants: Vec::with_capacity(state.grants.len()),
            in_doubt: state.operations.iter().map(|o| OperationView::of(account, o)).collect(),
        };
        for grant in state.known_grants() {
            view.grants.push(GrantView::of(grant, keychain, read)?);
        }
        if let Some(keychain) = keychain {
            (view.app, view.user) = names_of(state, keychain, read)?;
        }
        Ok(view)
    }
}

/// Finds out whose an account is, from the newest record that says so.
fn names_of(
    state: &AccountState,
    keychain: &Keychain,
    read: ReadRecord<'_>,
) -> Result<(Option<App>, Option<User>), Error> {
    let grants = state.grants.iter().rev().map(|grant| grant.issued);
    let operations = state.operations.iter().map(|operation| Lsn(operation.op.0));
    let candidates = std::iter::once(state.identified).chain(grants).chain(operations);
    let (mut app, mut user) = (None, None);
    for lsn in candidates.filter(|lsn| !lsn.is_none()) {
        with_names(&read(lsn)?, keychain, |names| {
            app = app.take().or_else(|| app_of(names));
            user = user.take().or_else(|| user_of(names));
        })?;
        if app.is_some() && user.is_some() {
            break;
        }
    }
    Ok((app, user))
}

/// Opens the names that a record seals.
fn with_names(
    bytes: &RecordBytes,
    keychain: &Keychain,
    mut hear: impl FnMut(&Names<'_>),
) -> Result<(), Error> {
    let record = parse(bytes)?;
    let forged = || Error::Forged { lsn: record.lsn() };
    let plain = keychain.unseal(&record)?;
    match record.clear {
        Clear::Issued(_) | Clear::Imported(_) => {
            hear(&Pair::decode(&plain).map_err(|_| forged())?.names);
        }
        Clear::Intent(_)
        | Clear::Adopted(_)
        | Clear::Superseded(_)
        | Clear::Identified(_)
        | Clear::Merged(_) => hear(&Names::decode(&plain).map_err(|_| forged())?),
        _ => {}
    }
    Ok(())
}

impl GrantView {
    fn of(grant: &Grant, keychain: Option<&Keychain>, read: ReadRecord<'_>) -> Result<Self, Error> {
        let mut holders = Vec::with_capacity(grant.holders.len());
        for held in &grant.holders {
            let mut holder = None;
            if let Some(keychain) = keychain {
                with_names(&read(held.record)?, keychain, |names| holder = holder_of(names))?;
            }
            holders.push(HolderView { holder_tag: held.holder, holder });
        }
        Ok(Self {
            grant: grant.id,
            generation: grant.generation,
            state: GrantState::of(grant),
            holders,
            issued_lsn: grant.issued,
            issued_at_ms: grant.pair.issued_at_ms,
            expires_at_ms: grant.pair.expires_at_ms,
            adopt_by_ms: grant.pair.adopt_by_ms,
            has_refresh_token: grant.pair.flags.has(Flags::REFRESH),
            worked: !grant.worked.is_none(),
            keeps_previous: !grant.previous.is_none(),
            end: grant.ended.map(|end| EndView {
                cause: end.cause,
                confidence: end.confidence,
                at_ms: end.at_ms,
                lsn: end.record,
            }),
        })
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

impl OperationView {
    pub(crate) fn of(account: AccountTag, operation: &Operation) -> Self {
        Self {
            op: operation.op,
            account_tag: account,
            action: operation.action,
            grant: operation.grant,
            generation: operation.generation,
            doubt: operation.doubt.map(|(_, reason)| reason),
            since_ms: operation.since_ms,
            deadline_ms: operation.deadline_ms,
        }
    }
}

fn as_text<T: std::fmt::Display, S: serde::Serializer>(
    name: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match name {
        Some(name) => serializer.collect_str(name),
        None => serializer.serialize_none(),
    }
}
