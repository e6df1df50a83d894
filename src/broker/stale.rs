//! What a claimed copy of a store may present. Whoever had the store before may have spent its refresh
//! tokens, and a spent one kills its family at many providers: before the first presentation the
//! provider is asked about the token, and where it cannot be asked a person is.

use super::Inner;
use super::app::Desk;
use super::error::BrokerError;
use super::upstream::Which;
use crate::ids::{AccountTag, GrantId};
use crate::journal::AccountView;
use crate::ledger::{Change, Ledger};
use crate::profile::Introspects;

impl<L: Ledger> Inner<L> {
    /// Refuses to present the refresh token of a grant that another host may have refreshed since: its
    /// provider says that it is spent, or nobody can say that it is not.
    pub(super) async fn check_unspent(
        &self,
        desk: &Desk,
        view: &AccountView,
        grant: GrantId,
    ) -> Result<(), BrokerError> {
        let account = view.account_tag;
        let found = view.grants.iter().find(|known| known.grant == grant);
        let Some(found) = found.filter(|known| known.stale && known.has_refresh_token) else {
            return Ok(());
        };
        // What is presented twice does no harm where nothing takes its place.
        if !desk.rotates() {
            return Ok(());
        }
        let stale = |spent| Err(BrokerError::Stale { account, grant, spent });
        if self.is_spent(found.refresh_fingerprint) {
            return stale(true);
        }
        let introspection = desk.profile().introspection();
        let tells = |introspects| matches!(introspects, Introspects::Refresh | Introspects::Both);
        if !introspection.known().copied().is_some_and(tells) {
            return stale(false);
        }
        let (said, _) = self.ask(desk, account, grant, Which::Refresh).await?;
        match said.map(|about| about.active) {
            Some(true) if introspection.verified().is_some() => Ok(()),
            Some(false) => {
                self.note_spent(found.refresh_fingerprint);
                stale(true)
            }
            Some(true) | None => stale(false),
        }
    }

    /// Takes a person's word that nobody else refreshes a grant: what another host may have done
    /// with it is none that counts any longer.
    pub(super) async fn trust(
        &self,
        account: AccountTag,
        grant: GrantId,
    ) -> Result<(), BrokerError> {
        let view = self.ledger.account(account).await?;
        let stale = view.into_iter().flat_map(|view| view.grants);
        let stale = stale.into_iter().find(|known| known.grant == grant && known.stale);
        if let Some(stale) = stale.filter(|known| known.end.is_none()) {
            let generation = stale.generation;
            self.change(account, Change::Worked { grant, generation }).await?;
        }
        Ok(())
    }
}
