//! Reads accounts and records, for callers, for compaction and for the command.

use super::Engine;
use super::accounts::Seen;
use super::accounts::{Accounts, Base, Found};
use super::files::{Files, RecordBytes, parse};
use super::state::{AccountState, Step};
use crate::error::{Damage, Error};
use crate::ids::{AccountTag, Lsn};
use crate::sync::{lock, read_lock, write_lock};
use std::sync::Arc;

/// Folds an account from its entry in the snapshot and the records since.
pub(crate) fn fold_base(
    files: &Files,
    account: AccountTag,
    tail: &[Lsn],
    read: &dyn Fn(Lsn) -> Result<RecordBytes, Error>,
) -> Result<AccountState, Error> {
    let mut state = match &files.snapshot {
        Some(snapshot) => snapshot.account(account)?.unwrap_or_default(),
        None => AccountState::default(),
    };
    for lsn in tail {
        let bytes = read(*lsn)?;
        let record = parse(&bytes)?;
        let header = record.header;
        let step = Step { lsn: header.lsn, at_ms: header.at_ms, clear: &record.clear };
        state.apply_tail(account, step);
    }
    Ok(state)
}

/// Where an account's state comes from: memory, or these files and these records of the tail.
enum Sought {
    State(Arc<AccountState>),
    Load(Files, Vec<Lsn>),
    Lost(Arc<Damage>),
}

impl Engine {
    /// Returns an account as it will be once all that was submitted is durable; an account that
    /// was never heard of is empty.
    pub(crate) fn foresee(&self, account: AccountTag) -> Result<Seen, Error> {
        let (sought, epoch) = {
            let core = lock(&self.core);
            let durable = read_lock(&self.durable);
            let sought = match core.foreseen(account) {
                Some(state) => Sought::State(Arc::clone(state)),
                None => self.seek(&durable, account),
            };
            (sought, durable.epoch())
        };
        let state = self.resolve(account, sought)?;
        Ok(Seen { account, state, epoch, unused: None })
    }

    /// Returns an account as it is, durably.
    pub(crate) fn look_up(&self, account: AccountTag) -> Result<Arc<AccountState>, Error> {
        let sought = self.seek(&read_lock(&self.durable), account);
        self.resolve(account, sought)
    }

    /// Looks an account up and makes something of its state and of the records that it names.
    ///
    /// A record may be folded away by a compaction right after the state was looked up; then there
    /// is a new snapshot, or the state has changed as well, and it is looked up again.
    pub(crate) fn with_state<T>(
        &self,
        account: AccountTag,
        make: impl Fn(&AccountState) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            let epoch = read_lock(&self.durable).epoch();
            let state = self.look_up(account)?;
            match make(&state) {
                Err(_) if read_lock(&self.durable).epoch() != epoch => {}
                Err(_) if self.look_up(account)?.version != state.version => {}
                result => return result,
            }
        }
    }

    /// Returns the accounts at which somebody should look, in the order of their tags: something is
    /// open or in doubt there, or a live grant has no holder, or they cannot be read.
    pub(crate) fn pending_accounts(&self) -> Vec<AccountTag> {
        let (mut pending, unknown) = read_lock(&self.durable).pending();
        for account in unknown {
            match self.look_up(account) {
                Ok(state) => {
                    if state.is_pending() {
                        pending.push(account);
                    }
                    write_lock(&self.durable).keep(account, &state);
                }
                Err(_) => pending.push(account),
            }
        }
        pending.sort_unstable();
        pending
    }

    /// Finds an account, and with it the files as they are at the same moment.
    fn seek(&self, durable: &Accounts, account: AccountTag) -> Sought {
        match durable.find(account) {
            Found::State(state) => Sought::State(state),
            Found::Lost(damage) => Sought::Lost(damage),
            Found::Load(Base { snapshot, tail }) => {
                let segments = match tail.is_empty() {
                    true => Vec::new(),
                    false => read_lock(&self.files).segments.clone(),
                };
                Sought::Load(Files { segments, snapshot }, tail)
            }
        }
    }

    fn resolve(&self, account: AccountTag, sought: Sought) -> Result<Arc<AccountState>, Error> {
        match sought {
            Sought::State(state) => Ok(state),
            Sought::Load(files, tail) => self.fold_tail(&files, account, &tail).map(Arc::new),
            Sought::Lost(damage) => Err(Error::Corrupt(Box::new(Damage::clone(&damage)))),
        }
    }

    /// Folds an account that is only known by the list of its records.
    pub(crate) fn fold_tail(
        &self,
        files: &Files,
        account: AccountTag,
        tail: &[Lsn],
    ) -> Result<AccountState, Error> {
        fold_base(files, account, tail, &|lsn| {
            self.read_record(files, lsn, std::iter::once(account))
        })
    }

    /// Reads a record through the cache.
    pub(crate) fn read_record(
        &self,
        files: &Files,
        lsn: Lsn,
        accounts: impl Iterator<Item = AccountTag>,
    ) -> Result<RecordBytes, Error> {
        if let Some(bytes) = self.cache.get(&lsn) {
            return Ok(bytes);
        }
        let bytes = files.read(lsn, accounts)?;
        self.cache.insert(lsn, Arc::clone(&bytes));
        Ok(bytes)
    }

    /// Reads a record of an account's state.
    pub(crate) fn record_of(
        &self,
        account: AccountTag,
        homes: &[AccountTag],
        lsn: Lsn,
    ) -> Result<RecordBytes, Error> {
        let cached = self.cache.get(&lsn);
        // What is in flight comes before the files: it may reach them meanwhile, and not leave.
        if let Some(bytes) = cached.or_else(|| lock(&self.core).pair_in_flight(lsn)) {
            return Ok(bytes);
        }
        let files = read_lock(&self.files).clone();
        self.read_record(&files, lsn, std::iter::once(account).chain(homes.iter().copied()))
    }
}
