//! States of accounts that were looked up in a snapshot, kept so that the next look-up reads nothing.
//!
//! What a snapshot says of an account never changes, so nothing here is ever out of date: a new
//! snapshot begins with none. No secret is here.

use crate::engine::grant::{Grant, Held};
use crate::engine::state::{AccountState, Operation};
use crate::ids::AccountTag;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::sync::Arc;

/// How much memory they may take, in bytes.
const STATES_BYTES: u64 = 4 << 20;

/// What a state takes at least, with its place in the cache.
const STATE_BYTES_MIN: u64 = 256;

/// For how many states room is made beforehand.
const STATES_EXPECTED: usize = 4096;

/// States of a snapshot, the latest that were looked up.
#[derive(Debug)]
pub(super) struct States(Cache<AccountTag, Arc<AccountState>, BySize>);

impl States {
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(STATES_EXPECTED, STATES_BYTES, BySize))
    }

    pub(super) fn get(&self, account: AccountTag) -> Option<AccountState> {
        self.0.get(&account).map(|state| AccountState::clone(&state))
    }

    pub(super) fn keep(&self, account: AccountTag, state: &AccountState) {
        self.0.insert(account, Arc::new(state.clone()));
    }
}

/// Weighs a state by the memory that it takes, roughly.
#[derive(Debug, Clone, Copy)]
struct BySize;

impl Weighter<AccountTag, Arc<AccountState>> for BySize {
    fn weight(&self, _account: &AccountTag, state: &Arc<AccountState>) -> u64 {
        let of_grant = |grant: &Grant| {
            let held = (grant.holders.len() + grant.gone.len()) * size_of::<Held>();
            size_of::<Grant>() + held + grant.homes.len() * size_of::<AccountTag>()
        };
        let grants: usize = state.grants.iter().map(of_grant).sum();
        let operations = state.operations.len() * size_of::<Operation>();
        let homes = state.homes.len() * size_of::<AccountTag>();
        STATE_BYTES_MIN + (grants + operations + homes) as u64
    }
}
