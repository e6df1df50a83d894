//! The way in for tokens from elsewhere: each becomes a grant by one durable record, and nothing is
//! asked of the provider.

use super::error::BrokerError;
use super::{Broker, Inner};
use crate::ids::{GrantId, Lsn};
use crate::journal::{AccountRef, Import, Imported};
use crate::ledger::{Change, Ledger};
use std::sync::Arc;

impl<L: Ledger> Broker<L> {
    /// Takes in a pair that was obtained elsewhere; see [`Import`]. It may be repeated: a token that is
    /// known is not imported twice.
    ///
    /// # Errors
    /// Those of every write.
    ///
    /// # Cancel safety
    /// Dropping the future stops nothing.
    pub async fn import(&self, import: Import) -> Result<Imported, BrokerError> {
        let import = |inner: Arc<Inner<L>>| async move {
            let imported = inner.ledger.import(import).await?;
            inner.shelf.drop(imported.account);
            Ok(imported)
        };
        self.0.in_task(import).await
    }

    /// Says that whoever refreshed a grant before does so no longer, and that nobody needs it
    /// elsewhere: from now on an imported grant, or one of a claimed copy, is refreshed here.
    ///
    /// # Errors
    /// Those of every write.
    ///
    /// # Cancel safety
    /// Dropping the future stops nothing.
    pub async fn activate(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<Lsn, BrokerError> {
        let account = self.0.ledger.tag_of(&account.into());
        let activate = move |inner: Arc<Inner<L>>| async move {
            inner.trust(account, grant).await?;
            inner.change(account, Change::Activate { grant }).await
        };
        self.0.in_task(activate).await
    }
}
