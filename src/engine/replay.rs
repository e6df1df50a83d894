//! Replays a journal: the sink that turns frames into the state of accounts.
//!
//! The same replay serves recovery and the reading command. It needs no key, keeps of each account
//! the list of its records only, and folds at once just the few accounts between which something
//! moves.

use super::accounts::{Accounts, Found, Slot, advance, concerned};
use super::callbacks::Trace;
use super::files::{Files, ReadSegment};
use super::read::fold_base;
use super::state::{AccountState, Step};
use super::table::Snapshot;
use crate::error::{Damage, Error};
use crate::format::clear::Clear;
use crate::format::frame::Frame;
use crate::format::segment::WrappedKey;
use crate::ids::{AccountTag, HostTag, Lsn, OpId};
use crate::log::survey::{Segment, Sink};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Accounts and their states.
pub(crate) type Folded = Vec<(AccountTag, Arc<AccountState>)>;

/// What a replay has gathered.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) accounts: Accounts,
    pub(crate) files: Files,
    /// The data keys that the segments carry.
    pub(crate) keys: Vec<WrappedKey>,
    /// The host that wrote last, if the tail says so.
    pub(crate) host: HostTag,
    /// The highest incarnation that a segment names.
    pub(crate) incarnation: u64,
    /// Intents of the tail without a final outcome.
    open: BTreeMap<OpId, AccountTag>,
    /// Up to which LSN all that was open of an account is forgotten.
    forgotten: BTreeMap<AccountTag, Lsn>,
    /// Accounts to which something moved in the tail, perhaps an operation.
    moved_to: BTreeSet<AccountTag>,
    /// Records after this one are left out.
    until: Option<Lsn>,
    pub(crate) records: u64,
    pub(crate) last_lsn: Lsn,
}

impl Replay {
    /// Begins at a snapshot, or at nothing.
    pub(crate) fn new(snapshot: Option<Arc<Snapshot>>, until: Option<Lsn>) -> Self {
        let keys = snapshot.as_ref().map(|snapshot| snapshot.keys().to_vec()).unwrap_or_default();
        let last_lsn = snapshot.as_ref().map(|snapshot| snapshot.lsn()).unwrap_or_default();
        Self {
            accounts: Accounts::new(snapshot.clone()),
            files: Files { segments: Vec::new(), snapshot },
            keys,
            host: HostTag::NONE,
            incarnation: 0,
            open: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            moved_to: BTreeSet::new(),
            until,
            records: 0,
            last_lsn,
        }
    }

    /// Returns the accounts that may have an operation without a final outcome.
    fn with_operations(&self) -> BTreeSet<AccountTag> {
        let in_snapshot =
            self.files.snapshot.iter().flat_map(|snapshot| {
                snapshot.open_items().iter().filter(|item| item.operations > 0)
            });
        let is_forgotten = |op: &OpId, account: &AccountTag| {
            self.forgotten.get(account).is_some_and(|through| op.0 <= through.0)
        };
        let open = self.open.iter().filter(|(op, account)| !is_forgotten(op, account));
        let in_tail = open.map(|(_, account)| account).chain(&self.moved_to).copied();
        in_snapshot.map(|item| item.account).chain(in_tail).collect()
    }

    /// Folds the accounts that have an operation without a final outcome. Those that cannot be read
    /// come second, and do not keep the rest from being served [F-41].
    pub(crate) fn fold_with_operations(&self) -> Result<(Folded, Vec<AccountTag>), Error> {
        let (mut folded, mut unreadable) = (Vec::new(), Vec::new());
        for account in self.with_operations() {
            match self.fold(account) {
                Ok(state) => folded.push((account, state)),
                Err(Error::Corrupt(_)) => unreadable.push(account),
                Err(error) => return Err(error),
            }
        }
        Ok((folded, unreadable))
    }

    /// Folds an account.
    pub(crate) fn fold(&self, account: AccountTag) -> Result<Arc<AccountState>, Error> {
        match self.accounts.find(account) {
            Found::State(state) => Ok(state),
            Found::Load(base) => {
                let files = &self.files;
                let read = |lsn| files.read(lsn, std::iter::once(account));
                fold_base(files, account, &base.tail, &read).map(Arc::new)
            }
            Found::Lost(damage) => Err(Error::Corrupt(Box::new(Damage::clone(&damage)))),
        }
    }

    fn note_operation(&mut self, lsn: Lsn, clear: &Clear) {
        let Some(prefix) = clear.prefix() else { return };
        match clear {
            Clear::Intent(_) => {
                self.open.insert(OpId(lsn.0), prefix.account);
            }
            Clear::InDoubt(_) => {}
            // Looking for what it had open would cost what all of them have.
            Clear::Forgotten(_) => {
                self.forgotten.insert(prefix.account, lsn);
            }
            _ => {
                self.open.remove(&prefix.op);
            }
        }
    }

    /// Something moves between two accounts: both are folded, and then changed. Where one of them
    /// cannot be read, neither can be known from here on, and the rest can [F-41].
    fn relocate(&mut self, step: Step<'_>) -> Result<(), Error> {
        let (Some(account), Some(other)) = concerned(step.clear) else { return Ok(()) };
        let states = self.fold(account).and_then(|state| Ok((state, self.fold(other)?)));
        let (mut state, mut other_state) = match states {
            Ok(states) => states,
            Err(Error::Corrupt(damage)) => {
                self.accounts.lose(account, Damage::clone(&damage));
                self.accounts.lose(other, *damage);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        advance(step, Arc::make_mut(&mut state), Some(Arc::make_mut(&mut other_state)));
        self.accounts.put(account, state);
        self.accounts.put(other, other_state);
        self.moved_to.insert(other);
        Ok(())
    }
}

impl Sink for Replay {
    fn segment(&mut self, segment: &Segment) -> Result<(), Error> {
        self.files.segments.push(Arc::new(ReadSegment::new(segment)));
        self.keys.extend(segment.header.data_keys.iter().copied());
        self.incarnation = self.incarnation.max(segment.header.incarnation);
        Ok(())
    }

    fn frame(&mut self, frame: &Frame<'_>, begins_batch: bool) -> Result<(), Error> {
        let lsn = frame.record.lsn();
        if let Some(segment) = self.files.segments.last() {
            segment.note_sparsely(lsn, frame.offset, begins_batch);
        }
        if self.until.is_some_and(|until| lsn > until) {
            return Ok(());
        }
        self.last_lsn = lsn;
        self.records += 1;
        let step = Step { lsn, at_ms: frame.record.header.at_ms, clear: &frame.record.clear };
        self.accounts.date(step.at_ms);
        match step.clear {
            Clear::Opened(opened) => {
                self.accounts.callbacks.skip(opened.predecessor_lsn, lsn);
                self.host = opened.host;
                self.incarnation = self.incarnation.max(opened.incarnation);
            }
            Clear::Claimed(claimed) => {
                self.host = claimed.host;
                self.accounts.claim(lsn);
            }
            Clear::Sealed(_) | Clear::Marker(_) => {}
            clear => {
                self.note_operation(lsn, clear);
                if let Some(trace) = Trace::of(lsn, clear) {
                    self.accounts.callbacks.hear(trace);
                }
                let moves = matches!(clear, Clear::Identified(_) | Clear::Merged(_));
                if moves && concerned(clear).1.is_some() {
                    return self.relocate(step);
                }
                self.accounts.note(step);
            }
        }
        Ok(())
    }
}

/// Walks all accounts in the order of their tags, as they were at one LSN.
#[derive(Debug)]
pub(crate) struct Walk {
    files: Files,
    /// What is in memory, in the reverse order of tags.
    memory: Vec<(AccountTag, Slot)>,
    next_block: usize,
    /// The states of one block of the snapshot, in the reverse order of tags.
    block: Vec<(AccountTag, AccountState)>,
}

impl Walk {
    pub(crate) fn new(files: Files, mut memory: Vec<(AccountTag, Slot)>) -> Self {
        memory.reverse();
        Self { files, memory, next_block: 0, block: Vec::new() }
    }

    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// Folds the next block of the snapshot that holds accounts; one that cannot be read is left
    /// behind all the same.
    fn load_block(&mut self) -> Result<(), Error> {
        let Some(snapshot) = self.files.snapshot.clone() else { return Ok(()) };
        while self.block.is_empty() {
            let number = self.next_block;
            self.next_block += 1;
            let Some((item, bytes)) = snapshot.block_bytes(number)? else { return Ok(()) };
            let mut block = Vec::new();
            for entry in snapshot.parse_block(&item, &bytes)?.accounts() {
                let entry = entry.map_err(|fault| snapshot.bad(fault))?;
                block.push((entry.header.account, snapshot.fold(&entry)?));
            }
            block.reverse();
            self.block = block;
        }
        Ok(())
    }

    /// Returns the next account; after an error the walk goes on behind what could not be read.
    pub(crate) fn next(&mut self) -> Result<Option<(AccountTag, Arc<AccountState>)>, Error> {
        loop {
            if self.block.is_empty() {
                self.load_block()?;
            }
            let in_block = self.block.last().map(|(account, _)| *account);
            let in_memory = self.memory.last().map(|(account, _)| *account);
            let take_memory = match (in_memory, in_block) {
                (None, None) => return Ok(None),
                (Some(memory), Some(block)) => memory <= block,
                (memory, None) => memory.is_some(),
                (None, Some(_)) => false,
            };
            if !take_memory {
                if let Some((account, state)) = self.block.pop() {
                    return Ok(Some((account, Arc::new(state))));
                }
                continue;
            }
            if in_memory == in_block {
                self.block.pop();
            }
            let Some((account, slot)) = self.memory.pop() else { continue };
            let state = match slot {
                Slot::Folded(state) => state,
                Slot::Tail(tail) => {
                    let files = &self.files;
                    let read = |lsn| files.read(lsn, std::iter::once(account));
                    Arc::new(fold_base(files, account, &tail, &read)?)
                }
                Slot::Lost(damage) => {
                    return Err(Error::Corrupt(Box::new(Damage::clone(&damage))));
                }
            };
            if !state.is_empty() {
                return Ok(Some((account, state)));
            }
        }
    }
}
