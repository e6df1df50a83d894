//! The provider's cap: counted, kept from being reached by surprise, and said who dies where it is.

use super::app::{AtCap, Desk};
use super::error::BrokerError;
use super::event::Event;
use super::rules::{Handed, Keeps, keeps, siblings, victim};
use super::{Broker, Inner};
use crate::format::value::{Action, Cause, Confidence};
use crate::ids::{AccountTag, GrantId, Holder, OpId};
use crate::journal::{AccountRef, AccountView, Begin, Cap, GrantView, Settled};
use crate::ledger::Ledger;
use crate::outcome::{NotSent, Outcome};
use crate::profile::RevokeGranularity;

impl<L: Ledger> Broker<L> {
    /// Revokes a grant at its provider, whoever depends on it.
    ///
    /// # Errors
    /// [`BrokerError::WouldKill`] where the provider is not known to revoke one pair alone and others
    /// live; use [`Broker::revoke_all`] then. Those of a call.
    ///
    /// # Cancel safety
    /// Dropping the future stops nothing.
    pub async fn revoke(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<(), BrokerError> {
        self.revoke_with(account, grant, false).await
    }

    /// As [`Broker::revoke`], and takes along what the provider takes along.
    ///
    /// # Errors
    /// Those of a call.
    ///
    /// # Cancel safety
    /// As [`Broker::revoke`].
    pub async fn revoke_all(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<(), BrokerError> {
        self.revoke_with(account, grant, true).await
    }

    async fn revoke_with(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        force: bool,
    ) -> Result<(), BrokerError> {
        let account = self.0.account_of(&account.into()).await?;
        self.0.in_task(move |inner| async move { inner.revoke(account, grant, force).await }).await
    }

    /// Says what keeps a grant from being revoked without asking; none if nothing does.
    ///
    /// # Errors
    /// [`BrokerError::UnknownAccount`], [`BrokerError::NeedsAuthorization`] for a grant that is not
    /// there.
    pub async fn keeps(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<Option<Keeps>, BrokerError> {
        let inner = &self.0;
        let account = inner.account_of(&account.into()).await?;
        let view = inner.view(account).await?;
        let desk = inner.desk_of(&view)?;
        let found = view.grants.iter().find(|known| known.grant == grant);
        let found = found.ok_or(BrokerError::NeedsAuthorization { account })?;
        Ok(inner.keeps(&desk, &view, found))
    }
}

impl<L: Ledger> Inner<L> {
    pub(super) fn keeps(
        &self,
        desk: &Desk,
        view: &AccountView,
        grant: &GrantView,
    ) -> Option<Keeps> {
        let handed = match self.is_fresh(view.account_tag, grant.grant) {
            true => Handed::Never,
            false => Handed::Perhaps,
        };
        keeps(view, grant, desk.profile(), handed, self.ledger.now_ms())
    }

    /// Returns the oldest grant that may be revoked without asking.
    fn revocable<'a>(&self, desk: &Desk, view: &'a AccountView) -> Option<&'a GrantView> {
        if !desk.config.revoke_orphans {
            return None;
        }
        let revocable = view.grants.iter().filter(|grant| self.keeps(desk, view, grant).is_none());
        revocable.min_by_key(|grant| grant.adopt_by_ms)
    }

    /// Revokes what may be revoked and has waited for a retry as long as for a first holder.
    pub(super) async fn revoke_orphans(
        &self,
        desk: &Desk,
        account: AccountTag,
    ) -> Result<(), BrokerError> {
        while let Some(view) = self.ledger.account(account).await? {
            let now_ms = self.ledger.now_ms();
            let orphan = self.revocable(desk, &view).filter(|grant| grant.adopt_by_ms <= now_ms);
            let Some(orphan) = orphan else { break };
            self.revoke_unheld(desk, &view, orphan.grant).await?;
        }
        Ok(())
    }

    pub(super) fn within_cap(&self, desk: &Desk, begin: Begin) -> Begin {
        match (desk.cap(), desk.config.at_cap) {
            (Some(cap), AtCap::Refuse) => begin.cap(cap),
            _ => begin,
        }
    }

    /// Makes room for one more grant. Whether it fits is decided with the intent, in one step.
    pub(super) async fn make_room(
        &self,
        desk: &Desk,
        account: AccountTag,
    ) -> Result<(), BrokerError> {
        self.free_a_place(desk, account, desk.config.at_cap == AtCap::Warn).await
    }

    /// At rest one place is kept free, so that an exchange whose user is not yet known fits.
    pub(super) async fn keep_a_place_free(
        &self,
        desk: &Desk,
        account: AccountTag,
    ) -> Result<(), BrokerError> {
        self.free_a_place(desk, account, true).await
    }

    /// Revokes what may be revoked until one more grant fits, and `warns` where that cannot be had.
    async fn free_a_place(
        &self,
        desk: &Desk,
        account: AccountTag,
        warns: bool,
    ) -> Result<(), BrokerError> {
        let Some(cap) = desk.cap() else { return Ok(()) };
        while let Some(view) = self.ledger.account(account).await? {
            let live = live(&view, cap);
            if live < cap.limit {
                break;
            }
            let Some(grant) = self.revocable(desk, &view) else {
                if warns {
                    self.ring_near_cap(&view, live, cap.limit);
                }
                break;
            };
            if self.revoke_unheld(desk, &view, grant.grant).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Says, also to who listens, whether more grants live than the provider's own cap allows.
    pub(super) async fn is_over_cap(
        &self,
        desk: &Desk,
        account: AccountTag,
    ) -> Result<bool, BrokerError> {
        let (Some(guarded), Some(cap)) = (desk.cap(), desk.provider_cap()) else {
            return Ok(false);
        };
        let Some(view) = self.ledger.account(account).await? else { return Ok(false) };
        let live = live(&view, guarded);
        let Some(victim) = victim(&view).filter(|_| live > cap) else { return Ok(false) };
        self.bell.ring(Event::OverCap { account, live, cap, victim: victim.grant });
        Ok(true)
    }

    fn ring_near_cap(&self, view: &AccountView, live: u32, limit: u32) {
        if let Some(victim) = victim(view) {
            self.bell.ring(Event::NearCap {
                account: view.account_tag,
                live,
                limit,
                victim: victim.grant,
                holders: holders_of(victim),
            });
        }
    }

    /// Says who would die.
    pub(super) async fn cap_reached(
        &self,
        account: AccountTag,
        live: u32,
        limit: u32,
    ) -> Result<BrokerError, BrokerError> {
        let view = self.view(account).await?;
        let victim = victim(&view);
        Ok(BrokerError::CapReached {
            account,
            live,
            limit,
            victim: victim.map(|grant| grant.grant).unwrap_or_default(),
            holders: victim.map(holders_of).unwrap_or_default(),
        })
    }

    /// Revokes a grant as its own operation, if the account is still as it was seen: somebody may have
    /// adopted it meanwhile.
    pub(super) async fn revoke_unheld(
        &self,
        desk: &Desk,
        seen: &AccountView,
        grant: GrantId,
    ) -> Result<(), BrokerError> {
        let begin = Begin::revoke(seen.account_tag, grant).expecting(seen.lsn);
        self.revoke_by(desk, seen.account_tag, grant, begin).await
    }

    /// Revokes a grant as its own operation, whoever holds it.
    pub(super) async fn revoke(
        &self,
        account: AccountTag,
        grant: GrantId,
        force: bool,
    ) -> Result<(), BrokerError> {
        let view = self.view(account).await?;
        let desk = self.desk_of(&view)?;
        let found = view.grants.iter().find(|known| known.grant == grant);
        let found = found.ok_or(BrokerError::NeedsAuthorization { account })?;
        if !force {
            self.check_alone(&desk, &view, found)?;
        }
        self.revoke_now(&desk, account, grant, None).await
    }

    /// Refuses where others would die of the revocation of a grant.
    pub(super) fn check_alone(
        &self,
        desk: &Desk,
        view: &AccountView,
        grant: &GrantView,
    ) -> Result<(), BrokerError> {
        let pair = RevokeGranularity::Pair;
        let siblings = siblings(view, grant).count();
        match desk.profile().revoke().verified() == Some(&pair) || siblings == 0 {
            true => Ok(()),
            false => {
                let (account, grant) = (view.account_tag, grant.grant);
                Err(BrokerError::WouldKill { account, grant, siblings })
            }
        }
    }

    /// Sends the revocation; beside an operation in doubt if that is what is resolved by it.
    pub(super) async fn revoke_now(
        &self,
        desk: &Desk,
        account: AccountTag,
        grant: GrantId,
        beside: Option<OpId>,
    ) -> Result<(), BrokerError> {
        let begin = Begin::revoke(account, grant);
        let begin = match beside {
            Some(op) => begin.resending(op),
            None => begin,
        };
        self.revoke_by(desk, account, grant, begin).await
    }

    async fn revoke_by(
        &self,
        desk: &Desk,
        account: AccountTag,
        grant: GrantId,
        begin: Begin,
    ) -> Result<(), BrokerError> {
        let came = self
            .call(desk, Action::Revoke, begin, |upstream, pair| match pair {
                Some(pair) => upstream.revoke(pair),
                None => Box::pin(std::future::ready(Outcome::NotSent(NotSent::GivenUp))),
            })
            .await?;
        self.shelf.drop(account);
        match came.settled {
            Settled::Revoked => {
                let (cause, confidence) = (Cause::RevokedByUs, Confidence::Certain);
                self.bell.ring(Event::Ended { account, grant, cause, confidence });
                Ok(())
            }
            // It was over already, as was wanted.
            Settled::Refused if came.is_dead() => Ok(()),
            Settled::Refused | Settled::NotSent => Err(came.into_error()),
            _ => {
                self.look_into(account);
                Err(came.into_error())
            }
        }
    }
}

/// Counts what is guarded, and what is out of sight.
fn live(view: &AccountView, cap: Cap) -> u32 {
    view.live(cap.counts).saturating_add(cap.outside)
}

fn holders_of(grant: &GrantView) -> Vec<Holder> {
    grant.holders.iter().filter_map(|held| held.holder.clone()).collect()
}
