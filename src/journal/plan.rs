//! Works out what an intent says: whom it concerns, what it presents, what stands in its way. It
//! decides from the states that it is given and submits nothing.

use super::begin::{Begin, Target};
use super::pair::{app_of, user_of};
use super::view::with_names;
use super::{AccountRef, IssuedPair, Journal};
use crate::engine::accounts::Seen;
use crate::engine::callbacks::Unused;
use crate::engine::grant::Grant;
use crate::engine::state::{AccountState, Operation};
use crate::error::Error;
use crate::format::clear::{Flags, Intent, Prefix};
use crate::format::value::Action;
use crate::ids::{
    Account, AccountTag, App, AppTag, CodeMark, Fingerprint, Generation, GrantId, HolderTag, Lsn,
    OpId, User,
};
use std::sync::Arc;

/// What an intent says, worked out of the account's state.
pub(super) struct Plan {
    pub(super) account: AccountTag,
    provisional: bool,
    app_tag: AppTag,
    pub(super) app: Option<App>,
    pub(super) user: Option<User>,
    pub(super) grant: GrantId,
    pub(super) generation: Generation,
    presented: Fingerprint,
    pub(super) current: Option<IssuedPair>,
    pub(super) seen: Seen,
}

/// The account that an operation stands under, as far as it is known before its state is.
struct Whose {
    tag: AccountTag,
    app: Option<App>,
    user: Option<User>,
}

impl Journal {
    /// `drawn` is the tag of a provisional account, if one is needed and the caller names none.
    pub(super) fn plan(&self, begin: &Begin, drawn: AccountTag) -> Result<Plan, Error> {
        let engine = self.engine();
        let Whose { tag, app, user } = self.whose(begin, drawn);
        let code = begin.presenting.as_ref().map(|code| code.reveal());
        let code = code.map(|code| engine.keychain.tagger().fingerprint(code)).unwrap_or_default();
        let seen = match begin.under {
            Some((under, since)) => {
                let unused = Unused { tag: under, code: CodeMark::of(code), since };
                engine.foresee_unused(tag, unused)?
            }
            None => engine.foresee(tag)?,
        };
        let state = Arc::clone(&seen.state);
        // One that has ceased to exist is one that never was.
        let found = if state.is_empty() { Lsn::NONE } else { state.version };
        if let Some(expected) = begin.expected.filter(|expected| *expected != found) {
            return Err(Error::Conflict { account: tag, expected, found });
        }
        let is_blind = matches!(begin.target, Target::New { user: None, .. });
        // Where the account's tag is the user's own, the intent carries the caller's in this place.
        let code = match begin.under {
            Some((under, _)) if !is_blind => Fingerprint::from_bytes(under.to_bytes()),
            _ => code,
        };
        let (grant, doubtful) = match &begin.target {
            Target::New { .. } => (None, None),
            Target::Standing { .. } => (state.standing(), None),
            Target::Grant { grant, .. } => (Some(usable(&state, tag, *grant)?), None),
            Target::Doubtful { op, .. } => (None, Some(self.burnable(&state, tag, *op, code)?)),
        };
        if let (Some(cap), Target::New { user: Some(_), .. }) = (begin.cap, &begin.target) {
            cap.admit(tag, &state)?;
        }
        let subject = Subject { account: tag, grant: grant.map(|grant| grant.id), code };
        self.check_free(&state, &subject, begin)?;
        if let Some(grant) = grant
            && grant.is_paused()
            && matches!(begin.action, Action::Refresh | Action::Revoke)
        {
            return Err(Error::Paused { account: tag, grant: grant.id });
        }
        let known = match (grant, doubtful) {
            (Some(grant), _) => self.read_pair(tag, grant, grant.issued).map(Known::of_pair),
            (None, Some(exchange)) => self.read_names(tag, &state, exchange),
            (None, None) => Ok(Known::default()),
        };
        let known = match known {
            // Folded away by a compaction since: the account has changed as well.
            Err(_) if engine.foresee(tag)?.state.version != state.version => {
                return self.plan(begin, drawn);
            }
            known => known?,
        };
        Ok(Plan {
            account: tag,
            provisional: is_blind || (doubtful.is_some() && state.provisional),
            app_tag: app.as_ref().map_or(state.app, |app| engine.keychain.tagger().app(app)),
            app: app.or(known.app),
            user: user.or(known.user),
            grant: grant.map(|grant| grant.id).unwrap_or_default(),
            generation: grant.map(|grant| grant.generation).unwrap_or_default(),
            presented: grant.map_or(code, |grant| grant.pair.refresh),
            current: known.current,
            seen,
        })
    }

    fn whose(&self, begin: &Begin, drawn: AccountTag) -> Whose {
        let engine = self.engine();
        let known = |app: &App, user: &User| {
            let account = Account::new(app.clone(), user.clone());
            let tag = engine.keychain.tagger().account(&account);
            Whose { tag, app: Some(account.app), user: Some(account.user) }
        };
        let named =
            |account: &AccountRef| Whose { tag: account.tag(engine), app: None, user: None };
        match &begin.target {
            Target::New { app, user: Some(user) } => known(app, user),
            Target::New { app, user: None } => {
                let tag = begin.under.map_or(drawn, |(tag, _)| tag);
                Whose { tag, app: Some(app.clone()), user: None }
            }
            Target::Standing { account } => known(&account.app, &account.user),
            Target::Grant { account, .. } | Target::Doubtful { account, .. } => named(account),
        }
    }

    /// Returns the exchange whose code is to be presented again: one in doubt, with that code.
    fn burnable<'s>(
        &self,
        state: &'s AccountState,
        account: AccountTag,
        op: OpId,
        code: Fingerprint,
    ) -> Result<&'s Operation, Error> {
        let exchange = state.operation(op).filter(|open| open.action == Action::Exchange);
        let exchange = exchange.ok_or(Error::UnknownOperation { account, op })?;
        if !self.engine().is_doubtful(exchange) {
            return Err(Error::Busy { account, op });
        }
        // Where the user was known, the caller's tag stands there, of which half is the code's.
        match CodeMark::of(code).is_some_and(|code| CodeMark::of(exchange.presented) == Some(code))
        {
            true => Ok(exchange),
            false => Err(Error::OtherToken { account, op }),
        }
    }

    /// One operation at a time may change a grant, or burn a code; asking about it disturbs nothing.
    fn check_free(
        &self,
        state: &AccountState,
        subject: &Subject,
        begin: &Begin,
    ) -> Result<(), Error> {
        let account = subject.account;
        let mut others = state.operations.iter().filter(|other| subject.is_of(begin.action, other));
        if let Some(op) = begin.resending
            && !others.clone().any(|other| other.op == op)
        {
            return Err(Error::UnknownOperation { account, op });
        }
        let resends = |other: &Operation| {
            begin.resending == Some(other.op) && self.engine().is_doubtful(other)
        };
        let changes = |action: Action| action != Action::Introspect;
        let is_free = subject.grant.is_none() && begin.action != Action::Burn;
        let busy = others.find(|other| {
            !is_free && changes(other.action) && changes(begin.action) && !resends(other)
        });
        match busy {
            Some(operation) => Err(Error::Busy { account, op: operation.op }),
            None => Ok(()),
        }
    }

    /// Opens the names in an exchange's intent.
    fn read_names(
        &self,
        account: AccountTag,
        state: &AccountState,
        exchange: &Operation,
    ) -> Result<Known, Error> {
        let engine = self.engine();
        let bytes = engine.record_of(account, &state.homes(), Lsn(exchange.op.0))?;
        let mut known = Known::default();
        with_names(&bytes, &engine.keychain, |names| {
            (known.app, known.user) = (app_of(names), user_of(names));
        })?;
        Ok(known)
    }

    pub(super) fn intent(&self, begin: &Begin, plan: &Plan, holder: HolderTag) -> Intent {
        let engine = self.engine();
        let flag = |set: bool, flag: Flags| if set { flag } else { Flags::NONE };
        let wait_ms = u64::try_from(begin.deadline.as_millis()).unwrap_or(u64::MAX);
        Intent {
            prefix: Prefix {
                account: plan.account,
                grant: plan.grant,
                generation: plan.generation,
                flags: flag(plan.provisional, Flags::PROVISIONAL)
                    | flag(begin.beside, Flags::BESIDE),
                op: OpId::NONE,
            },
            action: begin.action,
            app: plan.app_tag,
            holder,
            presented: plan.presented,
            deadline_ms: engine.seams.clock.now_ms().saturating_add(wait_ms),
            expected: begin.expected.unwrap_or_default(),
            owner: engine.owner,
            lease_ms: 0,
        }
    }
}

/// What the records that an intent builds on say.
#[derive(Default)]
struct Known {
    current: Option<IssuedPair>,
    app: Option<App>,
    user: Option<User>,
}

impl Known {
    fn of_pair(pair: IssuedPair) -> Self {
        let (app, user) = (pair.app().cloned(), pair.user().cloned());
        Self { current: Some(pair), app, user }
    }
}

/// What an operation is done to.
struct Subject {
    account: AccountTag,
    grant: Option<GrantId>,
    code: Fingerprint,
}

impl Subject {
    /// Says whether another operation is done to the same.
    fn is_of(&self, action: Action, other: &Operation) -> bool {
        match action {
            Action::Burn => other.action == Action::Burn && other.presented == self.code,
            Action::Exchange => false,
            _ => {
                let is_same = other.grant == self.grant.unwrap_or_default();
                is_same && (self.grant.is_some() || other.action == Action::Mint)
            }
        }
    }
}

fn usable(state: &AccountState, account: AccountTag, id: GrantId) -> Result<&Grant, Error> {
    let grant = state.grant(id).ok_or(Error::UnknownGrant { account, grant: id })?;
    if grant.is_live() { Ok(grant) } else { Err(Error::GrantEnded { account, grant: id }) }
}
