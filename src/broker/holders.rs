//! Who depends on what: adopted before the holder's own transaction commits, released when it rolls
//! back, found again by the retry.

use super::cache::{Ready, ReadyGrant};
use super::error::BrokerError;
use super::event::Event;
use super::refresh::Wanted;
use super::revoke::Reach;
use super::rules::{covers, gives};
use super::{Broker, Inner};
use crate::format::value::Action;
use crate::ids::{AccountTag, App, GrantId, Holder, Lsn};
use crate::journal::{AccountRef, AccountView, GrantState, GrantView, IssuedPair};
use crate::ledger::{Change, Ledger, Walk};
use serde::Serialize;
use std::sync::Arc;

/// What letting a holder go came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Disconnected {
    /// Grants that it was released from.
    pub released: Vec<(AccountTag, GrantId)>,
    /// Those of them that nobody held any longer and that were revoked.
    pub revoked: Vec<(AccountTag, GrantId)>,
    /// Those that nobody holds any longer and that could not be revoked, or would have taken others
    /// along; they are listed as orphans.
    pub left: Vec<(AccountTag, GrantId)>,
}

impl<L: Ledger> Broker<L> {
    /// Notes that a holder depends on a grant, for these scopes. To be called **before** the holder's
    /// own transaction commits: then no crash between leaves a row whose grant nobody holds.
    ///
    /// # Errors
    /// Those of every write.
    ///
    /// # Cancel safety
    /// Dropping the future stops nothing: the change becomes durable all the same, if it can.
    pub async fn adopt(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        holder: &Holder,
        scopes: &[&str],
    ) -> Result<Lsn, BrokerError> {
        let account = self.0.ledger.tag_of(&account.into());
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        self.change(account, Change::Adopt { grant, holder: holder.clone(), scopes }).await
    }

    /// Notes that a holder depends on a grant no longer, as when its transaction was rolled back. The
    /// pair stays, for the retry; once every rule allows it the grant is revoked.
    ///
    /// # Errors
    /// Those of every write.
    ///
    /// # Cancel safety
    /// As [`Broker::adopt`].
    pub async fn release(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        holder: &Holder,
    ) -> Result<Lsn, BrokerError> {
        let account = self.0.ledger.tag_of(&account.into());
        self.change(account, Change::Release { grant, holder: holder.clone() }).await
    }

    /// Finds a living pair of an account that a holder may use for these scopes, so that a retry need
    /// not send the user to approve once more: what it holds, what its earlier try left behind, what
    /// its tenant has.
    ///
    /// Nothing keeps it alive until it is adopted: where [`adopt`](Broker::adopt) then says that it is
    /// being revoked or has ended, the user has to approve once more.
    ///
    /// # Errors
    /// What keeps it from being looked up; as [`Broker::access_token`] where the newest access token
    /// of the grant has other scopes ([`IssuedPair::access_scopes`]), so that it has to be refreshed.
    pub async fn reuse(
        &self,
        account: impl Into<AccountRef>,
        holder: &Holder,
        scopes: &[&str],
    ) -> Result<Option<Arc<IssuedPair>>, BrokerError> {
        let account = self.0.account_of(&account.into()).await?;
        match self.0.ready(account).await {
            Err(BrokerError::UnknownAccount { .. }) => Ok(None),
            ready => match self.0.reusable(&*ready?, holder, scopes, |_| true) {
                Some(pair) => self.0.giving(pair, scopes).await.map(Some),
                None => Ok(None),
            },
        }
    }

    /// As [`Broker::reuse`], where the user is not known: looks through what waits for a holder.
    ///
    /// # Errors
    /// As [`Broker::reuse`].
    pub async fn reuse_any(
        &self,
        app: &App,
        holder: &Holder,
        scopes: &[&str],
    ) -> Result<Option<Arc<IssuedPair>>, BrokerError> {
        let own = self.0.ledger.holder_tag(holder);
        for account in self.0.ledger.pending().await? {
            let Ok(ready) = self.0.ready(account).await else { continue };
            if ready.view.app.as_ref() != Some(app) {
                continue;
            }
            let for_holder = |view: &GrantView| {
                view.issued_for.as_ref().is_some_and(|held| held.holder_tag == own)
            };
            if let Some(pair) = self.0.reusable(&ready, holder, scopes, for_holder) {
                return self.0.giving(pair, scopes).await.map(Some);
            }
        }
        Ok(None)
    }

    /// Lets a holder go: it is released from all that it holds, and what nobody holds then is revoked.
    /// Walks all accounts.
    ///
    /// # Errors
    /// What keeps accounts from being read or written; what could not be revoked is no error.
    ///
    /// # Cancel safety
    /// Dropping the future stops nothing. A crash may leave a grant released that it was to revoke: it is
    /// listed as an orphan then.
    pub async fn disconnect(&self, holder: &Holder) -> Result<Disconnected, BrokerError> {
        let holder = holder.clone();
        self.0.in_task(|inner| async move { inner.disconnect(&holder).await }).await
    }

    /// Makes a change in a task of its own, so that whoever leaves meanwhile leaves no account on the
    /// shelf as it was before.
    pub(super) async fn change(
        &self,
        account: AccountTag,
        change: Change,
    ) -> Result<Lsn, BrokerError> {
        self.0.in_task(move |inner| async move { inner.change(account, change).await }).await
    }
}

impl<L: Ledger> Inner<L> {
    async fn disconnect(&self, holder: &Holder) -> Result<Disconnected, BrokerError> {
        let tag = self.ledger.holder_tag(holder);
        let mut done = Disconnected::default();
        let mut walk = self.ledger.walk();
        let mut held = Vec::new();
        while let Some(view) = walk.next().await {
            let view = view?;
            for grant in view.grants.iter().filter(|grant| grant.end.is_none()) {
                if grant.holders.iter().any(|held| held.holder_tag == tag) {
                    held.push((view.account_tag, grant.grant));
                }
            }
        }
        for (account, grant) in held {
            self.change(account, Change::Release { grant, holder: holder.clone() }).await?;
            done.released.push((account, grant));
            match self.revoke_last(account, grant).await {
                Ok(true) => done.revoked.push((account, grant)),
                Ok(false) => {}
                Err(_) => done.left.push((account, grant)),
            }
        }
        Ok(done)
    }

    /// Makes a change, where the grant is now, and drops the account from the shelf.
    pub(super) async fn change(
        &self,
        account: AccountTag,
        change: Change,
    ) -> Result<Lsn, BrokerError> {
        let mut account = account;
        loop {
            let changed = self.ledger.change(account, change.clone()).await;
            self.shelf.drop(account);
            match changed {
                Ok(lsn) => return Ok(lsn),
                Err(error) => account = self.where_to(account, error.into()).await?,
            }
        }
    }

    /// Finds the best of the grants of an account that a holder may use, and that are `wanted`.
    fn reusable(
        &self,
        ready: &Ready,
        holder: &Holder,
        scopes: &[&str],
        wanted: impl Fn(&GrantView) -> bool,
    ) -> Option<Arc<IssuedPair>> {
        let shared = ready.desk.as_ref().is_some_and(|desk| desk.config.shared);
        let own = self.ledger.holder_tag(holder);
        // Nobody may begin to depend on what is being revoked.
        let is_going = |id: GrantId| {
            let mut open = ready.view.in_doubt.iter();
            open.any(|open| open.action == Action::Revoke && open.grant == id)
        };
        let is_wanted = |grant: &ReadyGrant| {
            let view = ready.view.grants.iter().find(|view| view.grant == grant.grant());
            view.is_some_and(|view| view.refusal.is_none() && wanted(view))
        };
        let fits = |grant: &&ReadyGrant| {
            !grant.paused
                && covers(grant.pair.scopes(), scopes)
                && (shared || self.is_for(grant, holder))
                && !is_going(grant.grant())
                && is_wanted(grant)
        };
        let held = |grant: &ReadyGrant| grant.holders.contains(&own);
        let found = ready.grants.iter().filter(fits);
        found.max_by_key(|grant| held(grant)).map(|grant| Arc::clone(&grant.pair))
    }

    /// Returns the pair, or the next one where its access token has not these scopes of its grant.
    async fn giving(
        &self,
        pair: Arc<IssuedPair>,
        scopes: &[&str],
    ) -> Result<Arc<IssuedPair>, BrokerError> {
        match gives(pair.scopes(), pair.access_scopes.as_deref(), scopes) {
            true => {
                self.hand(&pair);
                Ok(pair)
            }
            false => {
                let wanted = Wanted::instead_of(&pair);
                self.refreshed(pair.account(), pair.grant(), wanted).await
            }
        }
    }

    /// Revokes a grant that nobody holds any longer; says whether it did. Where others would die of it
    /// nothing is revoked.
    async fn revoke_last(&self, account: AccountTag, grant: GrantId) -> Result<bool, BrokerError> {
        let is_left = async || {
            let view = self.view(account).await?;
            let found = view.grants.iter().find(|known| known.grant == grant);
            Ok::<_, BrokerError>(found.is_some_and(|g| g.end.is_none() && g.holders.is_empty()))
        };
        if !is_left().await? {
            return Ok(false);
        }
        match self.revoke(account, grant, Reach::Unheld).await {
            Err(error) => match is_left().await? {
                true => Err(error),
                // Somebody has come to depend on it.
                false => Ok(false),
            },
            Ok(()) => Ok(true),
        }
    }

    /// A retry under the same holder lets go of what that holder's earlier tries left and never
    /// adopted.
    pub(super) async fn release_earlier_tries(
        &self,
        account: AccountTag,
        holder: &Holder,
        newest: GrantId,
    ) -> Result<(), BrokerError> {
        let tag = self.ledger.holder_tag(holder);
        let Some(view) = self.ledger.account(account).await? else { return Ok(()) };
        for grant in &view.grants {
            // One that was begun later is no earlier try, whichever of the two ends first.
            let left = grant.grant < newest
                && grant.state == GrantState::Waiting
                && grant.issued_for.as_ref().is_some_and(|held| held.holder_tag == tag);
            if left {
                let change = Change::Release { grant: grant.grant, holder: holder.clone() };
                self.change(account, change).await?;
            }
        }
        Ok(())
    }

    /// Moves the holders of older grants to one that has worked, where it covers what they need and
    /// they are of one tenant.
    pub(super) async fn supersede(
        &self,
        account: AccountTag,
        to: GrantId,
    ) -> Result<(), BrokerError> {
        let view = self.view(account).await?;
        let shared = self.desk_of(&view).is_ok_and(|desk| desk.config.shared);
        for (holder, scopes, from) in moves(&view, to, shared) {
            self.change(account, Change::Supersede { holder, scopes, from, to }).await?;
            self.bell.ring(Event::Superseded { account, from, to });
        }
        Ok(())
    }
}

/// Says which holders a grant that has worked takes over, and from which older grants.
fn moves(view: &AccountView, to: GrantId, shared: bool) -> Vec<(Holder, Vec<String>, GrantId)> {
    // One that may not be refreshed yet is nothing to depend on.
    let is_it = |grant: &&GrantView| grant.grant == to && grant.end.is_none() && !grant.paused;
    let Some(newer) = view.grants.iter().find(is_it) else {
        return Vec::new();
    };
    let of_tenant = |holder: &Holder| {
        let held = newer.holders.iter().map(|held| held.holder.as_ref());
        let intended = newer.issued_for.iter().map(|held| held.holder.as_ref());
        held.chain(intended).flatten().any(|own| own.tenant() == holder.tenant())
    };
    let mut moves = Vec::new();
    let older = view.grants.iter().filter(|grant| grant.grant < to && grant.end.is_none());
    for grant in older {
        for held in &grant.holders {
            let Some(holder) = &held.holder else { continue };
            // What a holder needs where it did not say: all that its grant has.
            let needed = if held.scopes.is_empty() { &grant.scopes } else { &held.scopes };
            let known = !newer.scopes.is_empty() || needed.is_empty();
            if known && covers(&newer.scopes, needed) && (shared || of_tenant(holder)) {
                moves.push((holder.clone(), held.scopes.clone(), grant.grant));
            }
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::super::testing::{account, asked_for, ended, grant, held, texts};
    use super::*;
    use crate::journal::GrantView;

    fn scoped(mut grant: GrantView, scopes: &[&str]) -> GrantView {
        grant.scopes = texts(scopes);
        grant
    }

    /// Who moves to grant 20, and from where.
    fn moved(grants: Vec<GrantView>, shared: bool) -> Vec<(String, Vec<String>, u64)> {
        let moves = moves(&account(grants, Vec::new()), GrantId(20), shared);
        let name = |holder: Holder| holder.name().to_owned();
        moves.into_iter().map(|(holder, scopes, from)| (name(holder), scopes, from.0)).collect()
    }

    fn older() -> GrantView {
        held(scoped(grant(10), &["api", "full"]), "sync", &["api"], 12)
    }

    fn newer() -> GrantView {
        asked_for(scoped(grant(20), &["api"]), "acme")
    }

    #[test]
    fn a_holder_moves_with_its_scopes_to_a_newer_grant_of_its_tenant_that_covers_them() {
        let expected = [("sync".to_owned(), texts(&["api"]), 10)];
        assert_eq!(moved(vec![older(), newer()], false), expected);
        // The tenant also shows by who holds the newer one.
        let newer = held(scoped(grant(20), &["api"]), "report", &[], 22);
        assert_eq!(moved(vec![older(), newer], false), expected);
    }

    #[test]
    fn a_holder_stays_where_its_needs_are_not_covered() {
        let none: [(String, Vec<String>, u64); 0] = [];
        let narrow = asked_for(scoped(grant(20), &["web"]), "acme");
        assert_eq!(moved(vec![older(), narrow], false), none);
        // One that did not say what it needs, needs all that its grant has.
        let silent = held(scoped(grant(10), &["api", "full"]), "sync", &[], 12);
        assert_eq!(moved(vec![silent.clone(), newer()], false), none);
        let wide = asked_for(scoped(grant(20), &["full", "api"]), "acme");
        assert_eq!(moved(vec![silent, wide], false), [("sync".to_owned(), Vec::new(), 10)]);
        // Of a newer one without scopes nothing is known.
        let untold = asked_for(grant(20), "acme");
        assert_eq!(moved(vec![older(), untold.clone()], false), none);
        // Unless nothing is needed.
        let easy = held(grant(10), "sync", &[], 12);
        assert_eq!(moved(vec![easy, untold], false).len(), 1);
    }

    #[test]
    fn tenants_stay_apart_unless_the_account_is_shared() {
        let other = asked_for(scoped(grant(20), &["api"]), "globex");
        assert_eq!(moved(vec![older(), other.clone()], false), []);
        assert_eq!(moved(vec![older(), other], true).len(), 1);
        let nobodys = scoped(grant(20), &["api"]);
        assert_eq!(moved(vec![older(), nobodys], false), []);
    }

    #[test]
    fn nobody_moves_from_what_is_over_or_newer_nor_to_what_is_over() {
        assert_eq!(moved(vec![ended(older()), newer()], false), []);
        assert_eq!(moved(vec![older(), ended(newer())], false), []);
        assert_eq!(moved(vec![older()], false), [], "it is not known");
        let newest = held(scoped(grant(30), &["api"]), "sync", &["api"], 32);
        assert_eq!(moved(vec![newer(), newest], false), []);
        let own = held(newer(), "sync", &["api"], 22);
        assert_eq!(moved(vec![own], false), [], "not from itself");
    }

    #[test]
    fn a_holder_without_a_name_is_not_moved() {
        let mut nameless = older();
        nameless.holders[0].holder = None;
        assert_eq!(moved(vec![nameless, newer()], true), []);
    }
}
