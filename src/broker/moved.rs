//! Follows a grant from the provisional account that a service may still name to where it went when
//! its user was known.

use super::Inner;
use super::error::BrokerError;
use crate::error::Error;
use crate::ids::AccountTag;
use crate::journal::AccountRef;
use crate::ledger::Ledger;

impl<L: Ledger> Inner<L> {
    /// Returns the account that a caller means.
    ///
    /// # Errors
    /// What keeps it from being looked up.
    pub(super) async fn account_of(&self, account: &AccountRef) -> Result<AccountTag, BrokerError> {
        let tag = self.ledger.tag_of(account);
        match account {
            // Names stand for no provisional account, and what is on the shelf has not moved.
            AccountRef::Account(_) => Ok(tag),
            AccountRef::Tag(_) if self.shelf.get(tag).is_some() => Ok(tag),
            AccountRef::Tag(_) => Ok(self.moved_to(tag).await?.unwrap_or(tag)),
        }
    }

    /// Returns the account to do it in again, where it came to nothing because the grant has moved
    /// there meanwhile.
    ///
    /// # Errors
    /// What it came to, where it is not for that.
    pub(super) async fn where_to(
        &self,
        account: AccountTag,
        error: BrokerError,
    ) -> Result<AccountTag, BrokerError> {
        let is_gone = match &error {
            BrokerError::UnknownAccount { .. } | BrokerError::NeedsAuthorization { .. } => true,
            BrokerError::Ledger(error) => {
                matches!(**error, Error::UnknownGrant { .. } | Error::UnknownOperation { .. })
            }
            _ => false,
        };
        match is_gone {
            true => self.moved_to(account).await?.ok_or(error),
            false => Err(error),
        }
    }

    /// Returns where the grant of the exchange that stood under a tag has gone, if it has.
    async fn moved_to(&self, tag: AccountTag) -> Result<Option<AccountTag>, BrokerError> {
        let redeemed = self.ledger.redeemed(tag).await?;
        Ok(redeemed.map(|redeemed| redeemed.account).filter(|account| *account != tag))
    }
}
