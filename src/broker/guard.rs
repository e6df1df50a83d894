//! The provider's cap: counted, kept from being reached by surprise, and said who dies where it is.

use super::Inner;
use super::app::{AtCap, Desk};
use super::error::BrokerError;
use super::event::Event;
use super::revoke::Reach;
use super::rules::victim;
use crate::ids::{AccountTag, Holder};
use crate::journal::{AccountView, Begin, Cap, GrantView};
use crate::ledger::Ledger;

impl<L: Ledger> Inner<L> {
    /// Revokes the oldest grant that may be revoked without asking, of those that are `wanted`; says
    /// whether there was one.
    async fn revoke_oldest(
        &self,
        desk: &Desk,
        view: &AccountView,
        wanted: impl Fn(&GrantView) -> bool,
    ) -> Result<bool, BrokerError> {
        if !desk.config.revoke_orphans {
            return Ok(false);
        }
        let may_go = |grant: &&GrantView| wanted(grant) && self.keeps(desk, view, grant).is_none();
        let mut revocable: Vec<&GrantView> = view.grants.iter().filter(may_go).collect();
        revocable.sort_by_key(|grant| grant.adopt_by_ms);
        for grant in revocable {
            match self.revoke(view.account_tag, grant.grant, Reach::Unasked).await {
                // By a closer look, or by now, something keeps it.
                Err(BrokerError::Choice { .. } | BrokerError::WouldKill { .. }) => {}
                revoked => return revoked.map(|()| true),
            }
        }
        Ok(false)
    }

    /// Revokes what may be revoked and has waited for a retry as long as for a first holder.
    pub(super) async fn revoke_orphans(
        &self,
        desk: &Desk,
        account: AccountTag,
    ) -> Result<(), BrokerError> {
        while let Some(view) = self.ledger.account(account).await? {
            let now_ms = self.ledger.now_ms();
            if !self.revoke_oldest(desk, &view, |grant| grant.adopt_by_ms <= now_ms).await? {
                break;
            }
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
            match self.revoke_oldest(desk, &view, |_| true).await {
                Ok(true) => {}
                Ok(false) => {
                    if warns {
                        self.ring_near_cap(&view, live, cap.limit);
                    }
                    break;
                }
                Err(_) => break,
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
}

/// Counts what is guarded, and what is out of sight.
fn live(view: &AccountView, cap: Cap) -> u32 {
    view.live(cap.counts).saturating_add(cap.outside)
}

fn holders_of(grant: &GrantView) -> Vec<Holder> {
    grant.holders.iter().filter_map(|held| held.holder.clone()).collect()
}
