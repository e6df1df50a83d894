//! The accounts that are in use, ready to hand out: their living pairs, as the ledger last had them.
//!
//! Whoever changes an account through the broker drops it from here. What was loaded before the
//! change and comes after it is not taken in.

use super::app::Desk;
use super::error::BrokerError;
use super::rules::gives;
use crate::ids::{AccountTag, Generation, GrantId, HolderTag};
use crate::journal::{AccountView, GrantView, IssuedPair};
use crate::sync::lock;
use quick_cache::sync::Cache;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How many accounts are kept.
const ACCOUNTS_KEPT: usize = 65_536;
/// Accounts share this many counters of changes.
const SHARDS: usize = 256;

/// An account, ready to hand out.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) view: AccountView,
    /// The app that it belongs to, if that was configured.
    pub(super) desk: Option<Arc<Desk>>,
    /// Its living grants, the newest pair first.
    pub(super) grants: Vec<ReadyGrant>,
}

impl Ready {
    pub(super) fn desk(&self) -> Result<&Arc<Desk>, BrokerError> {
        self.desk.as_ref().ok_or_else(|| {
            let app = self.view.app.as_ref().map_or_else(String::new, ToString::to_string);
            BrokerError::UnknownApp { app }
        })
    }
}

/// A living grant with its newest pair.
#[derive(Debug)]
pub(super) struct ReadyGrant {
    pub(super) pair: Arc<IssuedPair>,
    pub(super) paused: bool,
    pub(super) holders: Vec<HolderTag>,
    pub(super) tenants: Vec<String>,
    /// A resource refused the access token.
    pub(super) rejected: AtomicBool,
    /// The generation was used with success, and that is recorded.
    pub(super) worked: bool,
    /// Somebody said so since it was loaded, and what follows from it is done or being done.
    pub(super) noted: AtomicBool,
    /// When it was last handed out, in milliseconds since 1970.
    pub(super) used_ms: AtomicU64,
}

impl ReadyGrant {
    pub(super) fn new(view: &GrantView, pair: IssuedPair) -> Self {
        let holders = view.holders.iter();
        let named = holders.clone().filter_map(|held| held.holder.as_ref());
        // For whom it was obtained counts until somebody holds it: whoever has let go has let go.
        let intended = view.issued_for.iter().filter(|_| view.holders.is_empty());
        let intended = intended.filter_map(|held| held.holder.as_ref());
        Self {
            pair: Arc::new(pair),
            paused: view.paused,
            holders: holders.map(|held| held.holder_tag).collect(),
            tenants: named.chain(intended).map(|holder| holder.tenant().to_owned()).collect(),
            rejected: AtomicBool::new(false),
            worked: view.worked,
            noted: AtomicBool::new(false),
            used_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn grant(&self) -> GrantId {
        self.pair.grant()
    }

    /// Says whether the access token is for who wants these scopes, or, where none are named, all
    /// that the grant has.
    pub(super) fn gives(&self, wanted: &[&str]) -> bool {
        gives(self.pair.scopes(), self.pair.access_scopes.as_deref(), wanted)
    }

    /// Says whether the access token can be used until `until_ms`, as far as is known.
    pub(super) fn is_valid(&self, until_ms: u64) -> bool {
        !self.rejected.load(Ordering::Relaxed)
            && self.pair.expires_at_ms().is_none_or(|at_ms| until_ms < at_ms)
    }
}

/// The accounts in use.
pub(super) struct Shelf {
    accounts: Cache<AccountTag, Arc<Ready>>,
    changes: Vec<Mutex<u64>>,
    /// Generations that a resource refused, whatever becomes of their accounts here meanwhile.
    rejected: Mutex<HashMap<(AccountTag, GrantId), Generation>>,
}

impl Shelf {
    pub(super) fn new() -> Self {
        let changes = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Self { accounts: Cache::new(ACCOUNTS_KEPT), changes, rejected: Mutex::default() }
    }

    pub(super) fn get(&self, account: AccountTag) -> Option<Arc<Ready>> {
        self.accounts.get(&account)
    }

    /// Counts the changes of accounts like this one, to be told when it is put in place.
    pub(super) fn changes(&self, account: AccountTag) -> u64 {
        *lock(self.shard(account))
    }

    /// Puts an account in place, unless it may have changed since `changes` were counted.
    pub(super) fn put(&self, account: AccountTag, changes: u64, ready: &Arc<Ready>) {
        let now = lock(self.shard(account));
        if *now == changes {
            self.accounts.insert(account, Arc::clone(ready));
        }
    }

    /// Drops an account that changes.
    pub(super) fn drop(&self, account: AccountTag) {
        let mut now = lock(self.shard(account));
        *now += 1;
        self.accounts.remove(&account);
    }

    /// Notes that a resource refused a pair's access token.
    pub(super) fn reject(&self, grant: &ReadyGrant) {
        grant.rejected.store(true, Ordering::Relaxed);
        let pair = &grant.pair;
        let mut rejected = lock(&self.rejected);
        if rejected.len() < ACCOUNTS_KEPT {
            rejected.insert((pair.account(), pair.grant()), pair.generation());
        }
    }

    /// Says so to a grant that was loaded again.
    pub(super) fn remind(&self, grant: &ReadyGrant) {
        let pair = &grant.pair;
        let mut rejected = lock(&self.rejected);
        match rejected.get(&(pair.account(), pair.grant())) {
            Some(generation) if *generation == pair.generation() => {
                grant.rejected.store(true, Ordering::Relaxed);
            }
            Some(_) => drop(rejected.remove(&(pair.account(), pair.grant()))),
            None => {}
        }
    }

    fn shard(&self, account: AccountTag) -> &Mutex<u64> {
        let [first, ..] = account.to_bytes();
        self.changes.get(usize::from(first)).expect("there is a counter for every byte")
    }
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").field("accounts", &self.accounts.len()).finish_non_exhaustive()
    }
}
