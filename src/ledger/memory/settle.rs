//! Settles an operation: where its outcome goes, and what it leaves behind.
//!
//! A pair is never dropped: what was fenced out, or is not known, becomes a grant of its own.

use super::pair::{At, Whose};
use super::store::{Grant, Names, Pair, State, Store, event};
use super::{MemoryLedger, full};
use crate::error::Error;
use crate::format::value::{Action, Cause, Confidence, ResolvedHow};
use crate::ids::{Account, AccountTag, Fingerprint, Generation, GrantId, OpId};
use crate::journal::{EndView, EventDetails, RefusalView, SettleError, Settled, Ticket};
use crate::ledger::{Durability, Receipt};
use crate::outcome::{
    Doubt, NotSent, Outcome, Refusal, RefusalClass, ResponseParts, TokenResponse,
};
use crate::secret::Secret;
use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard};

/// Where a pair goes.
struct Place {
    account: AccountTag,
    /// None makes a grant of its own.
    grant: Option<GrantId>,
    /// What stands for the scopes that were asked for, where it goes beside the grant's pairs.
    beside: Option<Fingerprint>,
    /// The generation before, from which what the answer leaves out is taken.
    before: Option<Arc<Pair>>,
    is_open: bool,
}

impl MemoryLedger {
    pub(super) fn settle_now(
        &self,
        ticket: Ticket,
        outcome: Outcome,
    ) -> Result<Receipt, SettleError> {
        let mut store = match self.write_outcome() {
            Ok(store) => store,
            Err(error) => {
                let (outcome, ticket) = (Some(Box::new(outcome)), Some(Box::new(ticket)));
                return Err(SettleError { error, outcome, ticket });
            }
        };
        let at = At { lsn: store.next(), now_ms: self.clock.now_ms() };
        let settled = match outcome {
            Outcome::Issued(response) => self.issue(&mut store, at, &ticket, &response),
            Outcome::Refused(refusal) => store.refuse(at, &ticket, &refusal),
            Outcome::NotSent(reason) => store.not_sent(at, &ticket, reason),
            Outcome::InDoubt(doubt) => store.doubt(at, &ticket, &doubt),
            Outcome::Revoked if matches!(ticket.action, Action::Revoke | Action::Burn) => {
                store.revoked(at, &ticket)
            }
            Outcome::Revoked | Outcome::Answered => store.answered(at, &ticket),
        };
        store.tidy(ticket.account);
        Ok(Receipt::new(Durability::Local, settled))
    }

    fn write_outcome(&self) -> Result<MutexGuard<'_, Store>, Error> {
        let mut store = self.write()?;
        match store.faults.settles.checked_sub(1) {
            Some(left) => {
                store.faults.settles = left;
                Err(full())
            }
            None => Ok(store),
        }
    }

    fn issue(
        &self,
        store: &mut Store,
        at: At,
        ticket: &Ticket,
        response: &TokenResponse,
    ) -> Settled {
        let parts = response.parts();
        let user = parts.user.clone().or_else(|| ticket.user.clone());
        let place = self.place(store, ticket, parts);
        let Place { account, is_open, .. } = place;
        let different_user = ticket.user.is_some() && ticket.user != user;
        let mut names = Names { app: ticket.app.clone(), user, ..Names::default() };
        let is_blind = ticket.action == Action::Exchange && names.user.is_none();
        let own = if is_open { GrantId(ticket.op.0) } else { GrantId(at.lsn.0) };
        let id = place.grant.unwrap_or(own);
        // The intent is over where it stood; its account may cease to exist by that.
        let was_provisional = is_open && store.close(at, ticket.account, ticket.op);
        // A pair that was fenced out and went elsewhere is not known by the tag any more.
        if is_open || place.grant.is_some() || account == ticket.account {
            store.callbacks.issue(ticket.op, ticket.account, account, id);
        }

        let state = store.touch(account, at.lsn);
        state.provisional |= account == ticket.account && (is_blind || was_provisional);
        if let Some(app) = &ticket.app {
            state.app_tag = self.tagger.app(app);
        }
        let grant = state.grants.entry(id).or_default();
        grant.id = id;
        let before = place.before.as_deref();
        let by_pair = grant.holders.iter().find(|held| held.by_pair && place.beside.is_none());
        names.holder = match by_pair {
            Some(held) => Some(held.holder.clone()),
            None => ticket.holder.clone().or_else(|| before.and_then(|p| p.names.holder.clone())),
        };
        names.scopes = match (&parts.scopes, before) {
            (Some(scopes), _) => scopes.clone(),
            (None, _) if ticket.beside => ticket.scopes.clone(),
            (None, Some(before)) => before.names.scopes.clone(),
            (None, None) => ticket.scopes.clone(),
        };
        let is_rotated = ticket.beside && place.beside.is_none();
        let access_scopes =
            if is_rotated { keep_chain_scopes(ticket, grant, &mut names) } else { None };
        let next = u32::from(place.beside.is_none());
        let generation = Generation(grant.generation.0.saturating_add(next));
        let mut pair = self.pair_of(at.lsn, generation, names, parts, before);
        (pair.asked, pair.access_scopes) = (place.beside, access_scopes);
        pair.earlier = grant.lapse();
        if place.beside.is_some() {
            (pair.refresh, pair.tokens.refresh) = (Fingerprint::NONE, None);
        }
        let issued = Box::new(pair.to_issued(account, id));
        let inherited = parts.refresh_token.is_none() && !pair.refresh.is_none();
        let fenced = !is_open && (place.grant.is_none() || place.beside.is_some());
        match place.beside {
            Some(_) => grant.take_beside(pair),
            None => {
                grant.take(pair, at.now_ms);
                grant.fenced = fenced;
            }
        }
        let op = if fenced { OpId::NONE } else { ticket.op };
        self.note_pair(state, at, Whose { account, grant: id, op }, "issued", inherited);
        match different_user {
            true => Settled::DifferentUser(issued),
            false => Settled::Issued(issued),
        }
    }

    /// Decides which account and grant a pair belongs to.
    fn place(&self, store: &Store, ticket: &Ticket, parts: &ResponseParts) -> Place {
        let user = parts.user.as_ref().or(ticket.user.as_ref());
        let account = match (&ticket.app, user, ticket.grant.is_none()) {
            // A refresh stays with its grant, whatever the answer says of the user.
            (Some(app), Some(user), true) => {
                self.tagger.account(&Account::new(app.clone(), user.clone()))
            }
            _ => ticket.account,
        };
        let stands = store.accounts.get(&ticket.account);
        let is_open = stands.is_some_and(|state| state.operations.contains_key(&ticket.op));
        let nothing = State::default();
        let state = store.accounts.get(&account).unwrap_or(&nothing);
        let print = |token: &Secret| self.tagger.fingerprint(token.reveal());
        if let Some(grant) = self.place_beside(state, ticket, parts) {
            let beside = Some(self.tagger.scopes(&ticket.scopes));
            let before = grant.newest.clone();
            return Place { account, grant: Some(grant.id), beside, before, is_open };
        }
        let own = state.known(account, ticket.grant).ok().filter(|_| is_open);
        let by_refresh =
            |token: Fingerprint| state.find(|grant| !token.is_none() && grant.refresh() == token);
        let again = || by_refresh(parts.refresh_token.as_ref().map(print).unwrap_or_default());
        let minted = || state.standing().filter(|_| is_open && ticket.action == Action::Mint);
        // A pair that came already, or one that shares the refresh token of a grant, is that grant.
        let access = print(&parts.access_token);
        let late = || state.find(|grant| !is_open && grant.access() == access);
        let kept = ticket.current.as_ref().and_then(|pair| pair.refresh_token()).map(print);
        let shared = || {
            let token = kept.filter(|_| !is_open && parts.refresh_token.is_none());
            token.and_then(by_refresh)
        };
        let found = own.or_else(again).or_else(minted);
        let found = found.map(|grant| (grant, grant.id == ticket.grant));
        let found = found.or_else(|| late().or_else(shared).map(|grant| (grant, true)));
        let before = match found {
            Some((grant, inherits)) => grant.newest.clone().filter(|_| inherits),
            None => ticket.current.as_ref().map(|pair| Arc::new(Pair::again(pair))),
        };
        let grant = found.map(|(grant, _)| grant.id);
        Place { account, grant, beside: None, before, is_open }
    }

    /// Finds the grant beside whose pairs an answer goes: it was asked for so, and rotated nothing.
    fn place_beside<'s>(
        &self,
        state: &'s State,
        ticket: &Ticket,
        parts: &ResponseParts,
    ) -> Option<&'s Grant> {
        let grant = state.known(ticket.account, ticket.grant).ok().filter(|_| ticket.beside)?;
        let presented = ticket.current.as_ref().and_then(|pair| pair.refresh_token());
        let is_known = |token: &Secret| {
            presented.is_some_and(|presented| presented.reveal() == token.reveal())
                || grant.refresh() == self.tagger.fingerprint(token.reveal())
        };
        parts.refresh_token.as_ref().is_none_or(is_known).then_some(grant)
    }
}

/// Leaves a grant the scopes that it has where its next pair answers a request for others; returns
/// those of the access token, if they are others.
fn keep_chain_scopes(ticket: &Ticket, grant: &Grant, names: &mut Names) -> Option<Vec<String>> {
    let newest = grant.newest.as_ref().map(|pair| &pair.names.scopes);
    let chain = newest.or(ticket.current.as_ref().map(|pair| &pair.scopes))?.clone();
    let said = std::mem::replace(&mut names.scopes, chain);
    let own = if said.is_empty() { ticket.scopes.clone() } else { said };
    let set = |scopes: &[String]| scopes.iter().cloned().collect::<BTreeSet<_>>();
    (set(&own) != set(&names.scopes)).then_some(own)
}

impl Store {
    /// Closes an operation; says whether its account is provisional.
    fn close(&mut self, at: At, account: AccountTag, op: OpId) -> bool {
        let state = self.touch(account, at.lsn);
        state.operations.remove(&op);
        state.provisional
    }

    fn refuse(&mut self, at: At, ticket: &Ticket, refusal: &Refusal) -> Settled {
        let class = refusal.class();
        let view = RefusalView {
            class,
            status: refusal.status(),
            retry_after_s: refusal.retry_after_s(),
            at_ms: at.now_ms,
            lsn: at.lsn,
            error: Some(refusal.error().to_owned()),
            description: Some(refusal.description().to_owned()),
            request_id: refusal.request_id().map(str::to_owned),
        };
        let details = EventDetails::Refusal {
            class,
            status: view.status,
            retry_after_s: view.retry_after_s,
            error: view.error.clone(),
            description: view.description.clone(),
            request_id: view.request_id.clone(),
        };
        self.conclude(at, ticket, "refused", details, |state| {
            // A token that is no longer the newest says nothing of the grant.
            let grant = state.grants.get_mut(&ticket.grant);
            let Some(grant) = grant.filter(|grant| grant.generation == ticket.generation) else {
                return;
            };
            if class == RefusalClass::Dead && grant.end.is_none() {
                grant.end = Some(end(at, Cause::Unknown, Confidence::Probable));
            }
            grant.refusal = Some(view);
        });
        Settled::Refused
    }

    fn not_sent(&mut self, at: At, ticket: &Ticket, reason: NotSent) -> Settled {
        self.conclude(at, ticket, "not_sent", EventDetails::NotSent { reason }, |_| ());
        Settled::NotSent
    }

    fn revoked(&mut self, at: At, ticket: &Ticket) -> Settled {
        let (cause, confidence) = (Cause::RevokedByUs, Confidence::Certain);
        let details = EventDetails::End { cause, confidence };
        self.conclude(at, ticket, "ended", details, |state| {
            if let Some(grant) = state.grants.get_mut(&ticket.grant) {
                grant.end = Some(end(at, cause, confidence));
            }
        });
        Settled::Revoked
    }

    fn answered(&mut self, at: At, ticket: &Ticket) -> Settled {
        let details = EventDetails::Resolution { how: ResolvedHow::Answered };
        self.conclude(at, ticket, "resolved", details, |_| ());
        Settled::Answered
    }

    fn doubt(&mut self, at: At, ticket: &Ticket, doubt: &Doubt) -> Settled {
        let details = EventDetails::Doubt {
            reason: doubt.reason(),
            status: doubt.status(),
            body_bytes: u32::try_from(doubt.body_bytes()).unwrap_or(u32::MAX),
            request_id: doubt.request_id().map(str::to_owned),
        };
        let Some(state) = self.accounts.get_mut(&ticket.account) else {
            return Settled::InDoubt(ticket.op);
        };
        state.version = at.lsn;
        if let Some(operation) = state.operations.get_mut(&ticket.op) {
            operation.doubt = Some(doubt.reason());
        }
        note(state, at, ticket, "in_doubt", details);
        Settled::InDoubt(ticket.op)
    }

    /// Closes an operation that issued nothing.
    fn conclude(
        &mut self,
        at: At,
        ticket: &Ticket,
        kind: &'static str,
        details: EventDetails,
        then: impl FnOnce(&mut State),
    ) {
        let Some(state) = self.accounts.get_mut(&ticket.account) else { return };
        state.version = at.lsn;
        state.operations.remove(&ticket.op);
        then(state);
        note(state, at, ticket, kind, details);
    }
}

fn end(at: At, cause: Cause, confidence: Confidence) -> EndView {
    EndView { cause, confidence, at_ms: at.now_ms, lsn: at.lsn }
}

fn note(state: &mut State, at: At, ticket: &Ticket, kind: &'static str, details: EventDetails) {
    let mut event = event(at.lsn, at.now_ms, kind, ticket.account);
    (event.grant, event.generation, event.op) = (ticket.grant, ticket.generation, ticket.op);
    event.details = details;
    state.note(event);
}
