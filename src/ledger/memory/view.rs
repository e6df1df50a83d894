//! What comes out: accounts as they are seen, and their past.

use super::store::{Grant, Names, Operation, Pair, State, Store};
use crate::engine::lapse::Lapse;
use crate::ids::{AccountTag, Lsn};
use crate::journal::{
    AccountView, BesideView, GrantState, GrantView, History, HolderName, HolderView, OperationView,
};
use crate::seal::Tagger;
use std::collections::VecDeque;

impl Store {
    pub(super) fn view(&self, account: AccountTag, tagger: &Tagger) -> Option<AccountView> {
        self.accounts.get(&account).map(|state| state.view(account, tagger, self.claimed))
    }

    pub(super) fn views(&self, tagger: &Tagger) -> VecDeque<AccountView> {
        let view = |(account, state): (&_, &State)| state.view(*account, tagger, self.claimed);
        self.accounts.iter().map(view).collect()
    }

    pub(super) fn history(&self, account: AccountTag) -> History {
        let events = self.accounts.get(&account).map(|state| state.events.clone());
        History { complete_from: Lsn(1), events: events.unwrap_or_default() }
    }
}

impl State {
    fn view(&self, account_tag: AccountTag, tagger: &Tagger, claimed: Lsn) -> AccountView {
        let pairs = self.grants.values().rev().filter_map(|grant| grant.newest.as_ref());
        let names = pairs.map(|pair| &pair.names);
        let names = || names.clone().chain(self.operations.values().map(|open| &open.names));
        let owner = self.identified.as_ref();
        let app = owner.map(|owner| owner.app.clone());
        let user = owner.map(|owner| owner.user.clone());
        AccountView {
            account_tag,
            app_tag: self.app_tag,
            app: app.or_else(|| names().find_map(|names| names.app.clone())),
            user: user.or_else(|| names().find_map(|names| names.user.clone())),
            provisional: self.provisional,
            lsn: self.version,
            grants: self.grants.values().map(|grant| grant.view(tagger, claimed)).collect(),
            in_doubt: self.operations.values().map(|open| open.view(account_tag)).collect(),
        }
    }
}

impl Grant {
    fn view(&self, tagger: &Tagger, claimed: Lsn) -> GrantView {
        let pair = self.newest.as_deref();
        let named = |names: &Names| {
            let holder = names.holder.clone()?;
            Some(HolderName { holder_tag: tagger.holder(&holder), holder: Some(holder) })
        };
        let holders = self.holders.iter().map(|held| HolderView {
            holder_tag: held.tag,
            holder: Some(held.holder.clone()),
            scopes: held.scopes.clone(),
            since_ms: held.since_ms,
            lsn: held.lsn,
        });
        let (expires_at_ms, expiry) = self.expiry();
        let lapse = self.lapse();
        GrantView {
            grant: self.id,
            generation: self.generation,
            state: self.state(),
            holders: holders.collect(),
            issued_for: pair.and_then(|pair| named(&pair.names)),
            scopes: pair.map(|pair| pair.names.scopes.clone()).unwrap_or_default(),
            issued_lsn: pair.map(|pair| pair.lsn).unwrap_or_default(),
            issued_at_ms: pair.map(|pair| pair.issued_at_ms).unwrap_or_default(),
            expires_at_ms,
            expiry,
            lapses_at_ms: lapse.at_ms(),
            only_assumed: lapse == Lapse::Assumed,
            beside: self.beside.iter().map(|pair| pair.to_beside()).collect(),
            adopt_by_ms: pair.map(|pair| pair.adopt_by_ms).unwrap_or_default(),
            has_refresh_token: !self.refresh().is_none(),
            refresh_fingerprint: self.refresh(),
            worked: !self.worked.is_none(),
            paused: self.paused,
            imported: self.imported,
            fenced: self.fenced,
            stale: claimed > self.worked.max(pair.map(|pair| pair.lsn).unwrap_or_default()),
            keeps_previous: self.previous.is_some(),
            refusal: self.refusal.clone(),
            end: self.end.clone(),
        }
    }

    fn state(&self) -> GrantState {
        if self.end.is_some() {
            return GrantState::Ended;
        }
        match (self.holders.is_empty(), self.gone.is_empty()) {
            (false, _) => GrantState::Held,
            (true, true) => GrantState::Waiting,
            (true, false) => GrantState::Released,
        }
    }
}

impl Pair {
    fn to_beside(&self) -> BesideView {
        BesideView {
            scopes: self.names.scopes.clone(),
            issued_at_ms: self.issued_at_ms,
            expires_at_ms: self.expires_at_ms,
            expiry: self.expiry,
            lsn: self.lsn,
        }
    }
}

impl Operation {
    fn view(&self, account_tag: AccountTag) -> OperationView {
        OperationView {
            op: self.op,
            account_tag,
            action: self.action,
            grant: self.grant,
            generation: self.generation,
            presented: self.presented,
            beside: self.beside,
            doubt: self.doubt,
            since_ms: self.since_ms,
            deadline_ms: self.deadline_ms,
            scopes: self.names.scopes.clone(),
        }
    }
}
