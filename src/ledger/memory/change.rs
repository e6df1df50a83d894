//! The changes of one step each: who holds a grant, how it ended, whose it is.

use super::MemoryLedger;
use super::pair::At;
use super::store::{Grant, Held, State, Store, event};
use crate::error::Error;
use crate::format::value::{Action, Cause};
use crate::ids::{Account, AccountTag, AppTag, GrantId, Holder, HolderTag, Lsn, OpId};
use crate::journal::{EndView, EventDetails, HolderName};
use crate::ledger::Change;
use crate::outcome::RefusalClass;

impl MemoryLedger {
    pub(super) fn change_now(&self, account: AccountTag, change: Change) -> Result<Lsn, Error> {
        let mut store = self.write()?;
        let at = At { lsn: store.head.plus(1), now_ms: self.clock.now_ms() };
        let moved = match change {
            Change::Identify { grant, account: to } => Some((Some(grant), to)),
            Change::Merge { to } => Some((None, to)),
            change => {
                store.apply(at, account, change, |holder| self.tagger.holder(holder))?;
                None
            }
        };
        if let Some((grant, to)) = moved {
            let tags = (self.tagger.account(&to), self.tagger.app(&to.app));
            store.relocate(at, account, grant, (to, tags.0, tags.1))?;
        }
        Ok(store.next())
    }
}

impl Store {
    pub(super) fn apply(
        &mut self,
        at: At,
        account: AccountTag,
        change: Change,
        tag: impl Fn(&Holder) -> HolderTag,
    ) -> Result<(), Error> {
        let mut nothing = State::default();
        let state = self.accounts.get_mut(&account).unwrap_or(&mut nothing);
        let mut event = event(at.lsn, at.now_ms, "", account);
        match change {
            Change::Adopt { grant: id, holder, scopes } => {
                state.adoptable(account, id)?;
                let held = held(at, tag(&holder), holder, scopes);
                event.grant = id;
                (event.kind, event.details) = ("adopted", holding(&held, held.scopes.clone()));
                state.grant_mut(account, id)?.hold(held);
            }
            Change::Release { grant: id, holder } => {
                let held = held(at, tag(&holder), holder, Vec::new());
                state.grant_mut(account, id)?.let_go(held.tag);
                event.grant = id;
                (event.kind, event.details) = ("released", holding(&held, Vec::new()));
            }
            Change::Supersede { holder, scopes, from, to } => {
                state.known(account, from)?;
                state.adoptable(account, to)?;
                let tag = tag(&holder);
                event.grant = from;
                event.kind = "superseded";
                event.details = EventDetails::Superseded {
                    holder: HolderName { holder_tag: tag, holder: Some(holder.clone()) },
                    to,
                };
                if from != to {
                    state.grant_mut(account, from)?.let_go(tag);
                }
                state.grant_mut(account, to)?.hold(held(at, tag, holder, scopes));
            }
            Change::Worked { grant: id, generation } => {
                let grant = state.grant_mut(account, id)?;
                if grant.generation == generation {
                    (grant.worked, grant.previous) = (at.lsn, None);
                }
                (event.grant, event.generation, event.kind) = (id, generation, "worked");
            }
            Change::Told { grant: id, generation, expires_at_ms } => {
                if expires_at_ms == 0 {
                    return Err(Error::Option {
                        option: "expires_at_ms",
                        problem: "0 says nothing",
                    });
                }
                let grant = state.grant_mut(account, id)?;
                if grant.generation != generation {
                    let found = grant.newest.as_ref().map(|pair| pair.lsn).unwrap_or_default();
                    return Err(Error::Conflict { account, expected: Lsn::NONE, found });
                }
                grant.told_ms = Some(expires_at_ms);
                (event.grant, event.generation, event.kind) = (id, generation, "told");
                event.details = EventDetails::Told { expires_at_ms };
            }
            Change::End { grant: id, cause, confidence } => {
                let grant = state.grant_mut(account, id)?;
                // Of an end of which nothing is known more may be said later.
                let may = grant
                    .end
                    .as_ref()
                    .is_none_or(|end| end.cause == Cause::Unknown && cause != Cause::Unknown);
                if !may {
                    return Err(Error::GrantEnded { account, grant: id });
                }
                let (at_ms, lsn) = (at.now_ms, at.lsn);
                grant.end = Some(EndView { cause, confidence, at_ms, lsn });
                (event.grant, event.kind) = (id, "ended");
                event.details = EventDetails::End { cause, confidence };
            }
            Change::Revive { grant: id } => {
                let grant = state.grant_mut(account, id)?;
                grant.end = None;
                grant.refusal = grant.refusal.take().filter(|no| no.class != RefusalClass::Dead);
                (event.grant, event.kind) = (id, "revived");
            }
            Change::Activate { grant: id } => {
                state.live(account, id)?;
                state.grant_mut(account, id)?.paused = false;
                (event.grant, event.kind) = (id, "activated");
            }
            Change::Resolve { op, how } => {
                let known = state.operations.remove(&op);
                known.ok_or(Error::UnknownOperation { account, op })?;
                (event.op, event.kind) = (op, "resolved");
                event.details = EventDetails::Resolution { how };
            }
            Change::Forget => return self.forget(account),
            Change::Identify { .. } | Change::Merge { .. } => return Ok(()),
        }
        state.version = at.lsn;
        state.note(event);
        self.tidy(account);
        Ok(())
    }

    fn forget(&mut self, account: AccountTag) -> Result<(), Error> {
        if let Some(state) = self.accounts.get(&account) {
            let live = state.grants.values().filter(|grant| grant.is_live()).count();
            let open = state.operations.len();
            if live > 0 || open > 0 {
                return Err(Error::StillLive { account, live, open });
            }
        }
        self.accounts.remove(&account);
        Ok(())
    }

    /// Moves a grant with its operations, or everything, to another account.
    fn relocate(
        &mut self,
        at: At,
        from: AccountTag,
        grant: Option<GrantId>,
        (owner, to, app_tag): (Account, AccountTag, AppTag),
    ) -> Result<(), Error> {
        if from == to {
            return Err(Error::Option { option: "account", problem: "it cannot move to itself" });
        }
        let mut left = self.accounts.remove(&from).unwrap_or_default();
        if let Err(error) = left.may_move(from, grant) {
            if !left.is_empty() {
                self.accounts.insert(from, left);
            }
            return Err(error);
        }
        let kind = if grant.is_some() { "identified" } else { "merged" };
        let mut event = event(at.lsn, at.now_ms, kind, from);
        event.grant = grant.unwrap_or_default();
        event.details = EventDetails::Move { to_account: to };
        left.note(event);
        let state = self.touch(to, at.lsn);
        if state.app_tag.is_none() {
            state.app_tag = if left.app_tag.is_none() { app_tag } else { left.app_tag };
        }
        state.provisional = false;
        state.identified = Some(owner);
        left.give(grant, state);
        left.version = at.lsn;
        if !left.is_empty() {
            self.accounts.insert(from, left);
        }
        self.callbacks.relocate(from, grant, to);
        self.tidy(to);
        Ok(())
    }
}

impl State {
    fn grant_mut(&mut self, account: AccountTag, id: GrantId) -> Result<&mut Grant, Error> {
        let grant = self.grants.get_mut(&id).filter(|grant| grant.newest.is_some());
        grant.ok_or(Error::UnknownGrant { account, grant: id })
    }

    /// Nobody begins to depend on a grant that is being revoked.
    fn adoptable(&self, account: AccountTag, id: GrantId) -> Result<(), Error> {
        self.live(account, id)?;
        let ends = |action| matches!(action, Action::Revoke | Action::Burn);
        let mut operations = self.operations.values();
        match operations.find(|open| open.grant == id && ends(open.action)) {
            Some(open) => Err(Error::Busy { account, op: open.op }),
            None => Ok(()),
        }
    }

    /// Nothing moves from under a call that is on its way.
    fn may_move(&self, account: AccountTag, grant: Option<GrantId>) -> Result<(), Error> {
        if let Some(id) = grant {
            self.known(account, id)?;
        }
        let concerned = |of: GrantId| grant.is_none_or(|grant| grant == of);
        let mut open = self.operations.values().filter(|open| open.doubt.is_none());
        match open.find(|open| concerned(open.grant)) {
            Some(open) => Err(Error::Busy { account, op: open.op }),
            None => Ok(()),
        }
    }

    fn give(&mut self, grant: Option<GrantId>, other: &mut Self) {
        let concerned = |of: GrantId| grant.is_none_or(|grant| grant == of);
        let ops: Vec<OpId> =
            self.operations.values().filter(|open| concerned(open.grant)).map(|o| o.op).collect();
        let ids: Vec<GrantId> = self.grants.keys().copied().filter(|id| concerned(*id)).collect();
        for event in &self.events {
            if concerned(event.grant) || ops.contains(&event.op) || ids.contains(&event.grant) {
                other.events.push(event.clone());
            }
        }
        other.events.sort_by_key(|event| event.lsn);
        for op in ops {
            other.operations.extend(self.operations.remove_entry(&op));
        }
        for id in ids {
            other.grants.extend(self.grants.remove_entry(&id));
        }
    }
}

fn held(at: At, tag: HolderTag, holder: Holder, scopes: Vec<String>) -> Held {
    Held { tag, holder, scopes, since_ms: at.now_ms, lsn: at.lsn, by_pair: false }
}

fn holding(held: &Held, scopes: Vec<String>) -> EventDetails {
    let holder = HolderName { holder_tag: held.tag, holder: Some(held.holder.clone()) };
    EventDetails::Holding { holder, scopes }
}
