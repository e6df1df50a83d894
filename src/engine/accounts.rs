//! Where the state of each account is: touched since the snapshot, frozen while a snapshot is
//! being written, or in the snapshot.
//!
//! What readers see is durable state: records get here after their sync, in the order of LSNs.
//! Look-ups go touched, frozen, snapshot. While a journal is replayed an account is only the list
//! of its records; it is folded when somebody asks for it, so replay costs what the tail costs.

use super::callbacks::{Callbacks, Unused};
use super::state::{AccountState, Step};
use super::table::Snapshot;
use crate::error::Damage;
use crate::format::clear::{Clear, Flags};
use crate::format::value::Action;
use crate::ids::{AccountTag, Lsn, OpId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What is known in memory of an account.
#[derive(Debug, Clone)]
pub(crate) enum Slot {
    /// The records since the snapshot, not folded yet.
    Tail(Vec<Lsn>),
    /// The whole state.
    Folded(Arc<AccountState>),
    /// Something moved here from what cannot be read, or from here to there [F-41].
    Lost(Arc<Damage>),
}

impl Slot {
    /// Returns the LSN of the last record that changed the account.
    pub(crate) fn version(&self) -> Lsn {
        match self {
            Self::Tail(records) => records.last().copied().unwrap_or_default(),
            Self::Folded(state) => state.version,
            Self::Lost(_) => Lsn::NONE,
        }
    }
}

pub(crate) type Slots = HashMap<AccountTag, Slot>;

/// Accounts as they will be once a batch is durable.
pub(crate) type States = HashMap<AccountTag, Arc<AccountState>>;

/// The durable state of all accounts.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    touched: Slots,
    frozen: Option<Arc<Slots>>,
    snapshot: Option<Arc<Snapshot>>,
    /// Intents of the tail under a provisional account of their own, of which nothing else is known.
    fresh: HashSet<OpId>,
    pub(crate) callbacks: Callbacks,
    /// Counts the snapshots that were installed, so that a state which was loaded from one is not
    /// taken for a state of the next.
    epoch: u64,
    /// The last record that says that another host took the store over.
    claimed: Lsn,
    /// When the newest record was made that is known, in milliseconds since 1970.
    newest_ms: u64,
}

/// Where an account's state has to come from.
#[derive(Debug)]
pub(crate) enum Found {
    /// It is in memory.
    State(Arc<AccountState>),
    /// It is in the snapshot, if there, followed by these records.
    Load(Base),
    /// It cannot be known.
    Lost(Arc<Damage>),
}

/// What has to be read to have an account's state.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    pub(crate) tail: Vec<Lsn>,
}

/// An account's state as a caller saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) account: AccountTag,
    pub(crate) state: Arc<AccountState>,
    pub(crate) epoch: u64,
    /// Nothing may ever have been begun under this tag, nor for this code.
    pub(crate) unused: Option<Unused>,
}

/// The accounts that a draft concerns, still as they were seen.
pub(crate) struct Next(Vec<(AccountTag, Arc<AccountState>)>);

impl Next {
    pub(crate) fn of(seen: &[Seen]) -> Self {
        let copy = |seen: &Seen| (seen.account, Arc::new(AccountState::clone(&seen.state)));
        Self(seen.iter().map(copy).collect())
    }

    /// Folds the record in.
    pub(crate) fn advance(
        mut self,
        step: Step<'_>,
    ) -> impl Iterator<Item = (AccountTag, Arc<AccountState>)> {
        let (account, other) = concerned(step.clear);
        let (mut state, mut other_state) = (None, None);
        for (tag, next) in &mut self.0 {
            if account == Some(*tag) {
                state = Some(Arc::make_mut(next));
            } else if other == Some(*tag) {
                other_state = Some(Arc::make_mut(next));
            }
        }
        if let Some(state) = state {
            advance(step, state, other_state);
        }
        self.0.into_iter().filter(move |(tag, _)| account == Some(*tag) || other == Some(*tag))
    }
}

/// The accounts that a record concerns: one, or two where something moves between them.
pub(crate) fn concerned(clear: &Clear) -> (Option<AccountTag>, Option<AccountTag>) {
    let Some(prefix) = clear.prefix() else { return (None, None) };
    let account = Some(prefix.account).filter(|account| !account.is_none());
    let other = match clear {
        Clear::Issued(issued) => Some(issued.from),
        Clear::Identified(identified) => Some(identified.to),
        Clear::Merged(merged) => Some(merged.to),
        _ => None,
    };
    // What moves to where it is does not move.
    (account, other.filter(|other| !other.is_none() && Some(*other) != account))
}

impl Accounts {
    pub(crate) fn new(snapshot: Option<Arc<Snapshot>>) -> Self {
        let from = snapshot.as_ref().map(|snapshot| snapshot.lsn()).unwrap_or_default();
        let claimed = snapshot.as_ref().map(|snapshot| snapshot.header().claimed);
        let newest_ms = snapshot.as_ref().map_or(0, |snapshot| snapshot.header().created_at_ms);
        Self {
            snapshot,
            claimed: claimed.unwrap_or_default(),
            newest_ms,
            callbacks: Callbacks::since(from),
            ..Self::default()
        }
    }

    /// Returns the last record that says that another host took the store over, or none.
    pub(crate) fn claimed(&self) -> Lsn {
        self.claimed
    }

    /// Returns when the newest record was made that is known, in milliseconds since 1970.
    pub(crate) fn newest_ms(&self) -> u64 {
        self.newest_ms
    }

    /// Notes when a record was made.
    pub(crate) fn date(&mut self, at_ms: u64) {
        self.newest_ms = self.newest_ms.max(at_ms);
    }

    /// Notes that another host took the store over.
    pub(crate) fn claim(&mut self, record: Lsn) {
        self.claimed = self.claimed.max(record);
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns how many accounts are in memory.
    pub(crate) fn touched(&self) -> usize {
        self.touched.len()
    }

    /// Finds an account.
    pub(crate) fn find(&self, account: AccountTag) -> Found {
        match self.slot(account) {
            Some(Slot::Folded(state)) => Found::State(Arc::clone(state)),
            Some(Slot::Tail(tail)) => Found::Load(self.base(tail.clone())),
            Some(Slot::Lost(damage)) => Found::Lost(Arc::clone(damage)),
            None => Found::Load(self.base(Vec::new())),
        }
    }

    fn slot(&self, account: AccountTag) -> Option<&Slot> {
        self.touched.get(&account).or_else(|| self.frozen.as_ref()?.get(&account))
    }

    /// Says whether anything was noted of an account since the snapshot.
    pub(crate) fn touches(&self, account: AccountTag) -> bool {
        self.slot(account).is_some()
    }

    fn base(&self, tail: Vec<Lsn>) -> Base {
        Base { snapshot: self.snapshot.clone(), tail }
    }

    /// Says whether an account is as it was seen.
    pub(crate) fn is_current(&self, seen: &Seen) -> bool {
        let version = seen.state.version;
        let is_same = match self.slot(seen.account) {
            Some(slot) => slot.version() == version,
            // It was read from the snapshot that there still is; or it was nowhere, and is still:
            // without a snapshot one that ceases to exist leaves nothing behind.
            None => self.snapshot.is_some() || version.is_none(),
        };
        is_same && seen.epoch == self.epoch
    }

    /// Gives an account up: what is kept of it elsewhere cannot be read.
    pub(crate) fn lose(&mut self, account: AccountTag, damage: Damage) {
        self.touched.insert(account, Slot::Lost(Arc::new(damage)));
    }

    /// Returns the accounts at which somebody should look, as far as that is known without reading,
    /// and those that have to be read to know.
    pub(crate) fn pending(&self) -> (Vec<AccountTag>, Vec<AccountTag>) {
        let (mut pending, mut unknown) = (Vec::new(), Vec::new());
        let frozen = self.frozen.as_deref().into_iter().flatten();
        let frozen = frozen.filter(|(account, _)| !self.touched.contains_key(*account));
        for (account, slot) in self.touched.iter().chain(frozen) {
            match slot {
                Slot::Folded(state) if !state.is_pending() => {}
                // What cannot be known must be looked at as well.
                Slot::Folded(_) | Slot::Lost(_) => pending.push(*account),
                Slot::Tail(_) => unknown.push(*account),
            }
        }
        let open = self.snapshot.iter().flat_map(|snapshot| snapshot.open_items());
        let untouched = open.map(|item| item.account).filter(|account| !self.touches(*account));
        pending.extend(untouched);
        (pending, unknown)
    }

    /// Keeps a state that was folded from the list of an account's records, unless there are more.
    pub(crate) fn keep(&mut self, account: AccountTag, state: &Arc<AccountState>) {
        if let Some(slot @ Slot::Tail(_)) = self.touched.get_mut(&account)
            && slot.version() == state.version
        {
            *slot = Slot::Folded(Arc::clone(state));
        }
    }

    /// Puts an account's whole state in place.
    pub(crate) fn put(&mut self, account: AccountTag, state: Arc<AccountState>) {
        let known_below = self.frozen.is_some() || self.snapshot.is_some();
        if state.is_empty() && !known_below {
            self.touched.remove(&account);
        } else {
            self.touched.insert(account, Slot::Folded(state));
        }
    }

    /// Notes a record while the journal is replayed, without folding.
    ///
    /// A record that moves a grant to another account is not for here: both accounts are folded
    /// first, and then `advance`d.
    pub(crate) fn note(&mut self, step: Step<'_>) {
        let (Some(account), other) = concerned(step.clear) else { return };
        if let Some(other) = other {
            self.note_closing(other, step);
        }
        if is_fresh(step.clear) {
            self.fresh.insert(OpId(step.lsn.0));
        }
        match self.touched.entry(account).or_insert_with(|| Slot::Tail(Vec::new())) {
            Slot::Tail(records) => records.push(step.lsn),
            Slot::Folded(state) => Arc::make_mut(state).apply(step),
            Slot::Lost(_) => {}
        }
    }

    /// The intent stood under another account. If that is provisional it is no more: it is dropped
    /// if all that is known of it is that intent, for its random tag is in no snapshot then.
    fn note_closing(&mut self, account: AccountTag, step: Step<'_>) {
        let op = step.clear.prefix().map(|prefix| prefix.op).unwrap_or_default();
        let is_fresh = self.fresh.remove(&op);
        match self.touched.get_mut(&account) {
            Some(Slot::Tail(records)) if is_fresh && records.as_slice() == [Lsn(op.0)] => {
                self.touched.remove(&account);
            }
            Some(Slot::Tail(records)) => records.push(step.lsn),
            Some(Slot::Folded(state)) => Arc::make_mut(state).close_elsewhere(op, step.lsn),
            Some(Slot::Lost(_)) => {}
            None => {
                self.touched.insert(account, Slot::Tail(vec![step.lsn]));
            }
        }
    }

    /// Freezes what was touched, for a snapshot to be made of it.
    pub(crate) fn freeze(&mut self) -> Arc<Slots> {
        let frozen = Arc::new(std::mem::take(&mut self.touched));
        self.frozen = Some(Arc::clone(&frozen));
        frozen
    }

    /// Takes back what was frozen, since there will be no snapshot of it.
    pub(crate) fn thaw(&mut self) {
        let Some(frozen) = self.frozen.take() else { return };
        for (account, slot) in frozen.iter() {
            self.touched.entry(*account).or_insert_with(|| slot.clone());
        }
    }

    /// Puts the snapshot that was made of the frozen accounts in their place.
    ///
    /// Accounts that were changed meanwhile keep no more of what was frozen than the snapshot does.
    pub(crate) fn install(&mut self, snapshot: Arc<Snapshot>, now_ms: u64) {
        self.frozen = None;
        for slot in self.touched.values_mut() {
            if let Slot::Folded(state) = slot {
                prune(state, now_ms);
            }
        }
        self.snapshot = Some(snapshot);
        self.epoch += 1;
    }

    /// Returns all accounts in memory, in the order of their tags: a stable picture, since states
    /// are shared and copied on write.
    pub(crate) fn in_memory(&self) -> Vec<(AccountTag, Slot)> {
        let mut all: HashMap<_, _> = self.frozen.as_deref().cloned().unwrap_or_default();
        all.extend(self.touched.iter().map(|(account, slot)| (*account, slot.clone())));
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_unstable_by_key(|(account, _)| *account);
        all
    }
}

/// An exchange makes its provisional account; a burn finds one.
fn is_fresh(clear: &Clear) -> bool {
    matches!(clear, Clear::Intent(intent)
        if intent.action == Action::Exchange && intent.prefix.flags.has(Flags::PROVISIONAL))
}

/// Drops from a shared state what a snapshot does not keep.
pub(crate) fn prune(state: &mut Arc<AccountState>, now_ms: u64) {
    if state.is_prunable(now_ms) {
        Arc::make_mut(state).prune(now_ms);
    }
}

/// Applies one record to the accounts that it concerns (see [`concerned`]).
pub(crate) fn advance(
    step: Step<'_>,
    account: &mut AccountState,
    other: Option<&mut AccountState>,
) {
    let Some(prefix) = step.clear.prefix() else { return };
    match (step.clear, other) {
        (Clear::Identified(_), Some(other)) => {
            let moved = account.give_grant(prefix.grant, step.lsn);
            other.receive(prefix.account, moved, step.lsn);
        }
        (Clear::Merged(_), Some(other)) => {
            let moved = account.give_all(step.lsn);
            other.receive(prefix.account, moved, step.lsn);
        }
        (_, other) => {
            account.apply(step);
            if let Some(other) = other {
                other.close_elsewhere(prefix.op, step.lsn);
            }
        }
    }
}
