//! Begins an operation: whether it may, and its intent, in one step.

use super::MemoryLedger;
use super::store::{Names, Operation, State, Store, event};
use crate::error::Error;
use crate::format::value::Action;
use crate::ids::{
    Account, AccountTag, App, CodeMark, Fingerprint, GrantId, HolderTag, Lsn, OpId, User,
};
use crate::journal::{Begin, EventDetails, HolderName, Target, Ticket};

/// What an intent is about.
struct Subject {
    account: AccountTag,
    app: Option<App>,
    user: Option<User>,
    /// The user is not known, and the account is drawn.
    blind: bool,
    /// The fingerprint of the code that is presented.
    code: Fingerprint,
    /// What the intent says is presented: the code, or the caller's tag.
    presented: Fingerprint,
}

/// What there is of it.
#[derive(Default)]
struct Found {
    grant: Option<GrantId>,
    names: Names,
    presented: Fingerprint,
    provisional: bool,
}

impl MemoryLedger {
    pub(super) fn begin_now(&self, begin: Begin) -> Result<Ticket, Error> {
        begin.check()?;
        let drawn = match begin.under {
            Some((tag, _)) => tag,
            None => self.draw_tag()?,
        };
        let subject = self.subject(&begin, drawn);
        let mut store = self.write()?;
        let found = store.examine(&begin, &subject)?;
        let now_ms = self.clock.now_ms();
        let wait_ms = u64::try_from(begin.deadline.as_millis()).unwrap_or(u64::MAX);
        let lsn = store.next();
        let op = OpId(lsn.0);
        let app_tag = subject.app.as_ref().map(|app| self.tagger.app(app));
        let holder_tag = begin.holder.as_ref().map(|holder| self.tagger.holder(holder));
        let state = store.touch(subject.account, lsn);
        state.provisional |= found.provisional;
        state.app_tag = app_tag.unwrap_or(state.app_tag);
        let grant = found.grant.and_then(|id| state.grants.get(&id));
        let operation = Operation {
            op,
            action: begin.action,
            grant: found.grant.unwrap_or_default(),
            generation: grant.map(|grant| grant.generation).unwrap_or_default(),
            presented: found.presented,
            beside: begin.beside,
            names: Names {
                app: subject.app.or(found.names.app),
                user: subject.user.or(found.names.user),
                holder: begin.holder,
                scopes: begin.scopes,
            },
            doubt: None,
            since_ms: now_ms,
            deadline_ms: now_ms.saturating_add(wait_ms),
        };
        let ticket = operation.ticket(subject.account, state);
        note(state, lsn, subject.account, &operation, holder_tag);
        state.operations.insert(op, operation);
        if begin.action == Action::Exchange {
            let tag = match subject.blind {
                true => subject.account,
                false => AccountTag::from_bytes(found.presented.to_bytes()),
            };
            let code = CodeMark::of(found.presented);
            store.callbacks.begin(tag, code, op, subject.account);
        }
        Ok(ticket)
    }

    fn subject(&self, begin: &Begin, drawn: AccountTag) -> Subject {
        let code = begin.presenting.as_ref().map(|code| self.tagger.fingerprint(code.reveal()));
        let code = code.unwrap_or_default();
        let known = |account: Account, presented| Subject {
            account: self.tagger.account(&account),
            app: Some(account.app),
            user: Some(account.user),
            blind: false,
            code,
            presented,
        };
        match &begin.target {
            Target::New { app, user: Some(user) } => {
                // A caller's tag has no account of its own here, so it is kept with the intent.
                let under = begin.under.map(|(tag, _)| Fingerprint::from_bytes(tag.to_bytes()));
                known(Account::new(app.clone(), user.clone()), under.unwrap_or(code))
            }
            Target::New { app, user: None } => Subject {
                account: drawn,
                app: Some(app.clone()),
                user: None,
                blind: true,
                code,
                presented: code,
            },
            Target::Standing { account } => known(account.clone(), code),
            Target::Grant { account, .. } | Target::Doubtful { account, .. } => {
                let account = account.tag_by(&self.tagger);
                Subject { account, app: None, user: None, blind: false, code, presented: code }
            }
        }
    }
}

impl Store {
    /// Says whether the operation may begin, and finds what it is about.
    fn examine(&self, begin: &Begin, subject: &Subject) -> Result<Found, Error> {
        let account = subject.account;
        if let Some((tag, since)) = begin.under {
            self.check_unused(account, tag, CodeMark::of(subject.code), since)?;
        }
        let nothing = State::default();
        let state = self.accounts.get(&account).unwrap_or(&nothing);
        if let Some(expected) = begin.expected.filter(|expected| *expected != state.version) {
            return Err(Error::Conflict { account, expected, found: state.version });
        }
        let mut found =
            Found { presented: subject.presented, provisional: subject.blind, ..Found::default() };
        match &begin.target {
            Target::New { .. } => {}
            Target::Standing { .. } => found.grant = state.standing().map(|grant| grant.id),
            Target::Grant { grant, .. } => found.grant = Some(state.live(account, *grant)?.id),
            Target::Doubtful { op, .. } => {
                let exchange = self.burnable(account, state, *op, subject.code)?;
                found.names = Names { holder: None, ..exchange.names.clone() };
                found.provisional = state.provisional;
            }
        }
        if let (Some(cap), Target::New { user: Some(_), .. }) = (begin.cap, &begin.target) {
            let live = state.count(cap.counts).saturating_add(cap.outside);
            if live >= cap.limit {
                return Err(Error::CapReached { account, live, limit: cap.limit });
            }
        }
        self.check_free(begin, subject, state, found.grant)?;
        if let Some(grant) = found.grant.and_then(|id| state.grants.get(&id)) {
            if grant.paused && matches!(begin.action, Action::Refresh | Action::Revoke) {
                return Err(Error::Paused { account, grant: grant.id });
            }
            found.presented = grant.refresh();
            if let Some(pair) = &grant.newest {
                found.names = pair.names.clone();
            }
        }
        Ok(found)
    }

    fn check_unused(
        &self,
        account: AccountTag,
        tag: AccountTag,
        code: Option<CodeMark>,
        since: Lsn,
    ) -> Result<(), Error> {
        let stands = account == tag && self.accounts.contains_key(&tag);
        let used = self.callbacks.used(tag, code).or(Some(tag).filter(|_| stands));
        if let Some(account) = used {
            return Err(Error::CallbackUsed { account });
        }
        match since > self.head {
            true => {
                let dir = "memory".to_owned();
                Err(Error::BehindHead { dir, expected: since, found: self.head })
            }
            false => Ok(()),
        }
    }

    fn burnable<'s>(
        &self,
        account: AccountTag,
        state: &'s State,
        op: OpId,
        code: Fingerprint,
    ) -> Result<&'s Operation, Error> {
        let exchange = state.operations.get(&op).filter(|open| open.action == Action::Exchange);
        let exchange = exchange.ok_or(Error::UnknownOperation { account, op })?;
        if !self.is_doubtful(exchange) {
            return Err(Error::Busy { account, op });
        }
        // Where the user was known, the caller's tag stands there, of which half is the code's.
        match CodeMark::of(code).is_some_and(|code| CodeMark::of(exchange.presented) == Some(code))
        {
            true => Ok(exchange),
            false => Err(Error::OtherToken { account, op }),
        }
    }

    /// One operation at a time may change a grant, or burn a code.
    fn check_free(
        &self,
        begin: &Begin,
        subject: &Subject,
        state: &State,
        grant: Option<GrantId>,
    ) -> Result<(), Error> {
        let account = subject.account;
        let same: Vec<&Operation> = match (begin.action, grant) {
            (Action::Exchange, _) => Vec::new(),
            (Action::Burn, _) => {
                let burns = |open: &&Operation| {
                    open.action == Action::Burn && open.presented == subject.code
                };
                state.operations.values().filter(burns).collect()
            }
            (_, Some(grant)) => {
                state.operations.values().filter(|open| open.grant == grant).collect()
            }
            (_, None) => {
                let mints = |open: &&Operation| open.grant.is_none() && open.action == Action::Mint;
                state.operations.values().filter(mints).collect()
            }
        };
        if let Some(op) = begin.resending
            && !same.iter().any(|open| open.op == op)
        {
            return Err(Error::UnknownOperation { account, op });
        }
        // To ask disturbs nothing; and of what is not there yet there may be several.
        if begin.action == Action::Introspect || (grant.is_none() && begin.action != Action::Burn) {
            return Ok(());
        }
        let in_the_way = |open: &&&Operation| {
            let is_resent = begin.resending == Some(open.op) && self.is_doubtful(open);
            open.action != Action::Introspect && !is_resent
        };
        match same.iter().find(in_the_way) {
            Some(open) => Err(Error::Busy { account, op: open.op }),
            None => Ok(()),
        }
    }
}

fn note(
    state: &mut State,
    lsn: Lsn,
    account: AccountTag,
    operation: &Operation,
    holder_tag: Option<HolderTag>,
) {
    let mut event = event(lsn, operation.since_ms, "intent", account);
    (event.grant, event.generation, event.op) =
        (operation.grant, operation.generation, operation.op);
    let holder = operation.names.holder.clone();
    event.details = EventDetails::Call {
        action: operation.action,
        holder: holder_tag.map(|holder_tag| HolderName { holder_tag, holder }),
        scopes: operation.names.scopes.clone(),
        presented: operation.presented,
        beside: operation.beside,
        deadline_ms: operation.deadline_ms,
    };
    state.note(event);
}
