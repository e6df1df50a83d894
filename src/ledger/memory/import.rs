//! Takes in pairs that were obtained elsewhere, once each.

use super::MemoryLedger;
use super::pair::{At, Whose};
use super::store::{Grant, Held, Names, State, Store};
use crate::error::Error;
use crate::ids::{AccountTag, Fingerprint, Generation, GrantId, Holder, OpId};
use crate::journal::{Import, Imported};
use crate::ledger::Change;

impl MemoryLedger {
    pub(super) fn import_now(&self, import: &Import) -> Result<Imported, Error> {
        let account = self.tagger.account(&import.account);
        let parts = import.response.parts();
        let token = parts.refresh_token.as_ref().unwrap_or(&parts.access_token);
        let token = self.tagger.fingerprint(token.reveal());
        let mut store = self.write()?;
        let known = store.accounts.get(&account).and_then(|state| state.by_token(token));
        if let Some(grant) = known.map(|grant| grant.id) {
            return self.already(&mut store, import, account, grant);
        }
        let at = At { lsn: store.next(), now_ms: self.clock.now_ms() };
        let (id, generation) = (GrantId(at.lsn.0), Generation(1));
        let names = Names {
            app: Some(import.account.app.clone()),
            user: Some(import.account.user.clone()),
            holder: import.holder.clone(),
            scopes: scopes_of(import),
        };
        let mut pair = self.pair_of(at.lsn, generation, names, parts, None);
        if let Some(within) = import.adopt_within {
            pair.adopt_by_ms = self.adopt_by_ms(within);
        }
        let mut grant = Grant { id, imported: true, paused: import.paused, ..Grant::default() };
        grant.take(pair, at.now_ms);
        if let Some(holder) = &import.holder {
            grant.hold(Held {
                tag: self.tagger.holder(holder),
                holder: holder.clone(),
                scopes: scopes_of(import),
                since_ms: at.now_ms,
                lsn: at.lsn,
                by_pair: true,
            });
        }
        let state = store.touch(account, at.lsn);
        state.app_tag = self.tagger.app(&import.account.app);
        state.grants.insert(id, grant);
        let whose = Whose { account, grant: id, op: OpId::NONE };
        self.note_pair(state, at, whose, "imported", false);
        Ok(Imported { account, grant: id, generation, lsn: at.lsn, already: false, ended: false })
    }

    /// Answers for a token that is known; who is named, and does not hold the grant, does now.
    fn already(
        &self,
        store: &mut Store,
        import: &Import,
        account: AccountTag,
        id: GrantId,
    ) -> Result<Imported, Error> {
        let tag = |holder: &Holder| self.tagger.holder(holder);
        let state = store.accounts.get(&account).map(|state| state.known(account, id));
        let grant = state.unwrap_or(Err(Error::UnknownGrant { account, grant: id }))?;
        let lsn = grant.newest.as_ref().map(|pair| pair.lsn).unwrap_or_default();
        let (generation, ended) = (grant.generation, grant.end.is_some());
        let is_new =
            |holder: &&Holder| !ended && grant.holders.iter().all(|held| held.tag != tag(holder));
        if let Some(holder) = import.holder.as_ref().filter(is_new).cloned() {
            let at = At { lsn: store.next(), now_ms: self.clock.now_ms() };
            let scopes = scopes_of(import);
            store.apply(at, account, Change::Adopt { grant: id, holder, scopes }, tag)?;
        }
        Ok(Imported { account, grant: id, generation, lsn, already: true, ended })
    }
}

impl State {
    /// Returns the grant that knows a token, one that lives before others.
    fn by_token(&self, token: Fingerprint) -> Option<&Grant> {
        let known = self.grants.values().filter(|grant| grant.knows(token));
        known.max_by_key(|grant| (grant.is_live(), grant.newest.as_ref().map(|pair| pair.lsn)))
    }
}

fn scopes_of(import: &Import) -> Vec<String> {
    import.response.parts().scopes.clone().unwrap_or_else(|| import.scopes.clone())
}
