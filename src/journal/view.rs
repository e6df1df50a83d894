//! What an account looks like from outside: no secrets, names only where there is a key.

use super::GrantView;
use super::pair::{app_of, user_of};
use crate::codec::{Names, Pair};
use crate::engine::files::{RecordBytes, parse};
use crate::engine::keychain::Keychain;
use crate::engine::state::{AccountState, Operation};
use crate::error::Error;
use crate::format::clear::Clear;
use crate::format::value::{Action, DoubtReason};
use crate::ids::{AccountTag, App, AppTag, Fingerprint, Generation, GrantId, Lsn, OpId, User};
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
    /// The fingerprint of the token or code that was presented; none where it was not named.
    pub presented: Fingerprint,
    /// An access token beside the grant's chain was asked for.
    pub beside: bool,
    /// Why it is in doubt; none where its process has said nothing.
    pub doubt: Option<DoubtReason>,
    /// When it was begun, in milliseconds since 1970.
    pub since_ms: u64,
    /// When the call will have been given up, in milliseconds since 1970.
    pub deadline_ms: u64,
    /// The scopes that were asked for, where they were named and there is a key.
    pub scopes: Vec<String>,
}

/// Reads records for a view.
pub(crate) type ReadRecord<'a> = &'a dyn Fn(Lsn) -> Result<RecordBytes, Error>;

/// What an account is seen with.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    /// None shows tags alone.
    pub(crate) keychain: Option<&'a Keychain>,
    pub(crate) read: ReadRecord<'a>,
    /// The record with which the store was last taken over.
    pub(crate) claimed: Lsn,
}

impl AccountView {
    pub(crate) fn of(
        account: AccountTag,
        state: &AccountState,
        sight: Sight<'_>,
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
        if let Some(keychain) = sight.keychain {
            for open in &mut view.in_doubt {
                let intent = (sight.read)(Lsn(open.op.0))?;
                with_names(&intent, keychain, |names| open.scopes = scopes_of(names))?;
            }
        }
        for grant in state.known_grants() {
            view.grants.push(GrantView::of(grant, sight)?);
        }
        if let Some(keychain) = sight.keychain {
            (view.app, view.user) = names_of(state, keychain, sight.read)?;
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
pub(super) fn with_names(
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

impl OperationView {
    pub(crate) fn of(account: AccountTag, operation: &Operation) -> Self {
        Self {
            op: operation.op,
            account_tag: account,
            action: operation.action,
            grant: operation.grant,
            generation: operation.generation,
            presented: operation.presented,
            beside: operation.beside,
            doubt: operation.doubt.map(|(_, reason)| reason),
            since_ms: operation.since_ms,
            deadline_ms: operation.deadline_ms,
            scopes: Vec::new(),
        }
    }
}

pub(super) fn scopes_of(names: &Names<'_>) -> Vec<String> {
    names.scopes.0.iter().map(|scope| (*scope).to_owned()).collect()
}

pub(super) fn as_text<T: std::fmt::Display, S: serde::Serializer>(
    name: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match name {
        Some(name) => serializer.collect_str(name),
        None => serializer.serialize_none(),
    }
}
