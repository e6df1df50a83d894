//! Tells where the exchange of a callback went: a code is presented once, and a callback that is
//! delivered again gets what the first one got.

use super::Journal;
use crate::error::Error;
use crate::ids::{AccountTag, GrantId, OpId};
use serde::Serialize;

/// Where an exchange is that was begun under a tag of the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Redeemed {
    /// The exchange.
    pub op: OpId,
    /// Where its grant is now: under the tag itself until the user is known.
    pub account: AccountTag,
    /// The grant to which the pair went; none while the exchange is open or in doubt, or if it
    /// issued nothing.
    pub grant: Option<GrantId>,
}

impl Journal {
    /// Says where the exchange is that was begun under a tag (see
    /// [`Begin::under`](crate::Begin::under)), or that none is known.
    ///
    /// What is said of a grant is durable. An exchange whose intent is still on its way to the disk
    /// is known already, without a grant.
    ///
    /// # Errors
    /// As [`Journal::current`].
    pub async fn redeemed(&self, tag: AccountTag) -> Result<Option<Redeemed>, Error> {
        let place = self.engine().redeemed(tag)?;
        Ok(place.map(|place| Redeemed {
            op: place.op,
            account: place.account,
            grant: Some(place.grant).filter(|grant| !grant.is_none()),
        }))
    }
}
