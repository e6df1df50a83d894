//! The way in for tokens from elsewhere: each becomes a grant by one durable record, and nothing is
//! asked of the provider.

use super::Broker;
use super::error::BrokerError;
use crate::ids::{GrantId, Lsn};
use crate::journal::{AccountRef, Import, Imported};
use crate::ledger::{Change, Ledger};

impl<L: Ledger> Broker<L> {
    /// Takes in a pair that was obtained elsewhere; see [`Import`]. It may be repeated: a token that is
    /// known is not imported twice.
    ///
    /// # Errors
    /// Those of every write.
    ///
    /// # Cancel safety
    /// When the future is dropped the import may or may not become durable; it can be repeated.
    pub async fn import(&self, import: Import) -> Result<Imported, BrokerError> {
        let imported = self.0.ledger.import(import).await?;
        self.0.shelf.drop(imported.account);
        Ok(imported)
    }

    /// Says that whoever refreshed an imported grant before does so no longer: from now on it is
    /// refreshed here.
    ///
    /// # Errors
    /// Those of every write.
    ///
    /// # Cancel safety
    /// When the future is dropped the change may or may not become durable.
    pub async fn activate(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<Lsn, BrokerError> {
        let account = self.0.ledger.tag_of(&account.into());
        self.0.change(account, Change::Activate { grant }).await
    }
}
