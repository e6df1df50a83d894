//! Compares the service's own rows with the ledger: after a crash between the two, after a restored
//! database, whenever somebody wants to be sure.

use super::Broker;
use super::error::BrokerError;
use crate::ids::{AccountTag, GrantId, Holder, HolderTag};
use crate::ledger::{Ledger, Walk};
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// A row of the service's database: who depends on an account, and by which grant that began.
///
/// A holder depends on an account, not on one grant: it may have moved to a newer one since, which a
/// row need not know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Row {
    /// Who.
    pub holder: Holder,
    /// On which account, as it was when the row was written.
    pub account: AccountTag,
    /// The grant that was adopted. By its number the account is found again when it was identified or
    /// merged since.
    pub grant: GrantId,
}

/// What the service's rows and the ledger do not agree on. Nothing was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Reconciliation {
    /// Held here, and no row says so: a crash between adopting and committing, or a row that was
    /// deleted. Release them.
    pub without_row: Vec<(AccountTag, GrantId, HolderTag)>,
    /// The grant of a row lives, and its holder holds neither that nor another of the account. Adopt it.
    pub not_held: Vec<(AccountTag, GrantId, HolderTag)>,
    /// The grant of a row has ended, or is not known here, and its holder holds no other of the account:
    /// find another by [`Broker::reuse`], or the user has to approve again.
    pub not_living: Vec<(AccountTag, GrantId, HolderTag)>,
    /// Living grants that neither a row nor a holder depends on, the oldest first, with when their
    /// newest pair was issued, in milliseconds since 1970.
    pub orphans: Vec<(AccountTag, GrantId, u64)>,
    /// Accounts that cannot be read.
    pub unreadable: u64,
}

impl<L: Ledger> Broker<L> {
    /// Returns the tag by which views and reports name a holder.
    pub fn holder_tag(&self, holder: &Holder) -> HolderTag {
        self.0.ledger.holder_tag(holder)
    }

    /// Compares all rows with the ledger.
    ///
    /// # Errors
    /// None by itself; accounts that cannot be read are counted.
    pub async fn reconcile(
        &self,
        rows: impl IntoIterator<Item = Row>,
    ) -> Result<Reconciliation, BrokerError> {
        let ledger = &self.0.ledger;
        let mut found = Reconciliation::default();
        // Where each grant is now, what lives, and who holds what.
        let mut places: HashMap<GrantId, AccountTag> = HashMap::new();
        let mut living: HashSet<GrantId> = HashSet::new();
        let mut held: HashMap<(AccountTag, HolderTag), GrantId> = HashMap::new();
        let mut nobodys = Vec::new();
        let mut walk = ledger.walk();
        while let Some(view) = walk.next().await {
            let Ok(view) = view else {
                found.unreadable += 1;
                continue;
            };
            let account = view.account_tag;
            for grant in &view.grants {
                places.insert(grant.grant, account);
                if grant.end.is_some() {
                    continue;
                }
                living.insert(grant.grant);
                for holder in &grant.holders {
                    held.insert((account, holder.holder_tag), grant.grant);
                }
                if grant.holders.is_empty() {
                    nobodys.push((account, grant.grant, grant.issued_at_ms));
                }
            }
        }
        let mut expected: HashSet<(AccountTag, HolderTag)> = HashSet::new();
        let mut wanted: HashSet<GrantId> = HashSet::new();
        for row in rows {
            let holder = ledger.holder_tag(&row.holder);
            let account = places.get(&row.grant).copied().unwrap_or(row.account);
            expected.insert((account, holder));
            if held.contains_key(&(account, holder)) {
                continue;
            }
            wanted.insert(row.grant);
            match living.contains(&row.grant) {
                true => found.not_held.push((account, row.grant, holder)),
                false => found.not_living.push((account, row.grant, holder)),
            }
        }
        let unexpected = held.into_iter().filter(|(place, _)| !expected.contains(place));
        let unexpected = unexpected.map(|((account, holder), grant)| (account, grant, holder));
        found.without_row.extend(unexpected);
        found.orphans.extend(nobodys.into_iter().filter(|(_, grant, _)| !wanted.contains(grant)));
        found.not_living.sort_unstable();
        found.without_row.sort_unstable();
        found.not_held.sort_unstable();
        found.orphans.sort_unstable_by_key(|(_, grant, issued_at_ms)| (*issued_at_ms, *grant));
        Ok(found)
    }
}
