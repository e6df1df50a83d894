//! Writes the snapshot of a compaction and proves it: what was frozen, merged with the snapshot
//! before, in the order of tags.

use crate::engine::Engine;
use crate::engine::accounts::{Slot, Slots};
use crate::engine::files::Files;
use crate::engine::state::AccountState;
use crate::engine::table::{Snapshot, TableWriter};
use crate::error::{Damage, Error};
use crate::format::name::{snapshot_name, temporary_name};
use crate::format::snapshot::SnapshotHeader;
use crate::ids::{AccountTag, Lsn, Nonce};
use crate::sync::read_lock;
use std::sync::Arc;

/// How many accounts of the tail are written in one step.
const ACCOUNTS_PER_STEP: usize = 64;

/// What was frozen at a roll-over.
#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) lsn: Lsn,
    pub(super) slots: Arc<Slots>,
    pub(super) claimed: Lsn,
    pub(super) tail: Nonce,
    pub(super) tail_number: u64,
    pub(super) files: Files,
}

/// A snapshot in the writing.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) frozen: Frozen,
    /// The frozen accounts in the order of their tags, from the last; taken off the end.
    pub(super) touched: Vec<AccountTag>,
    /// The next accounts block of the snapshot before.
    pub(super) next_block: usize,
    pub(super) table: TableWriter,
}

/// The check of a snapshot that was just written.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) snapshot: Snapshot,
    pub(super) next_block: usize,
}

impl Engine {
    pub(super) fn begin_table(&self, mut frozen: Frozen) -> Result<Writing, Error> {
        frozen.files = read_lock(&self.files).clone();
        let mut touched: Vec<_> = frozen.slots.keys().copied().collect();
        touched.sort_unstable_by(|a, b| b.cmp(a));
        let mut nonce = [0; 16];
        self.seams
            .entropy
            .fill(&mut nonce)
            .map_err(Error::io("drawing a nonce", "the system's random generator"))?;
        let header = SnapshotHeader {
            store: self.keychain.store(),
            nonce: Nonce::from_bytes(nonce),
            lsn: frozen.lsn,
            created_at_ms: self.seams.clock.now_ms(),
            tail: frozen.tail,
            tail_number: frozen.tail_number,
            tag_key: self.keychain.tag_key(),
            claimed: frozen.claimed,
        };
        let name = temporary_name(&snapshot_name(frozen.lsn));
        match self.seams.disk.remove(&name) {
            // It may be left from a compaction that gave up.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("removing a leftover", name)(error));
            }
            _ => {}
        }
        let file = self
            .seams
            .disk
            .create(&name)
            .map_err(Error::io("creating a snapshot", name.clone()))?;
        let table = TableWriter::new(file, header);
        tracing::info!(target: "tokenwal", lsn = frozen.lsn.0, accounts = touched.len(), "compacting");
        Ok(Writing { frozen, touched, next_block: 0, table })
    }

    /// Writes some accounts; says whether the table is complete.
    ///
    /// One step merges one block of the snapshot before with the touched accounts up to its end, or
    /// writes some of the touched accounts behind the last block.
    pub(super) fn write_some(&self, work: &mut Writing) -> Result<bool, Error> {
        let previous = work.frozen.files.snapshot.clone();
        let block = match &previous {
            Some(snapshot) => snapshot.block_bytes(work.next_block)?.map(|block| (snapshot, block)),
            None => None,
        };
        let Some((snapshot, (item, bytes))) = block else {
            for _ in 0..ACCOUNTS_PER_STEP {
                let Some(account) = work.touched.pop() else {
                    return self.finish_table(work).map(|()| true);
                };
                self.write_touched(work, account)?;
            }
            return Ok(false);
        };
        work.next_block += 1;
        for entry in snapshot.parse_block(&item, &bytes)?.accounts() {
            let entry = entry.map_err(|fault| snapshot.bad(fault))?;
            let account = entry.header.account;
            while let Some(next) = work.touched.last().copied().filter(|next| *next <= account) {
                work.touched.pop();
                self.write_touched(work, next)?;
            }
            if !work.frozen.slots.contains_key(&account) {
                let state = snapshot.fold(&entry)?;
                let records: Result<Vec<_>, _> =
                    entry.records(snapshot.lsn()).map(|r| r.map(|record| record.bytes)).collect();
                let records = records.map_err(|fault| snapshot.bad(fault))?;
                work.table
                    .copy(&entry, &state, &records)
                    .map_err(Error::io("writing a snapshot", temporary_of(work)))?;
            }
        }
        Ok(false)
    }

    fn write_touched(&self, work: &mut Writing, account: AccountTag) -> Result<(), Error> {
        let files = &work.frozen.files;
        let mut state = match work.frozen.slots.get(&account) {
            Some(Slot::Folded(state)) => AccountState::clone(state),
            Some(Slot::Tail(tail)) => self.fold_tail(files, account, tail)?,
            Some(Slot::Lost(damage)) => {
                return Err(Error::Corrupt(Box::new(Damage::clone(damage))));
            }
            None => return Ok(()),
        };
        let homes = state.homes();
        state.prune(self.seams.clock.now_ms());
        if state.is_empty() {
            return Ok(());
        }
        let mut records = Vec::new();
        for lsn in state.records() {
            let accounts = std::iter::once(account).chain(homes.iter().copied());
            records.push(self.read_record(files, lsn, accounts)?);
        }
        let io = Error::io("writing a snapshot", temporary_of(work));
        work.table.push(account, &state, &records).map_err(io)
    }

    fn finish_table(&self, work: &mut Writing) -> Result<(), Error> {
        let mut keys = Vec::new();
        for key_id in work.table.key_ids() {
            let Some(wrapped) = self.keychain.wrapped(key_id) else {
                return Err(Error::Forged { lsn: Lsn::NONE });
            };
            keys.push(self.keychain.rewrap(&wrapped, &*self.seams.entropy)?);
        }
        let io = Error::io("writing a snapshot", temporary_of(work));
        work.table.finish(&keys).map_err(io)?;
        Ok(())
    }
}

pub(super) fn temporary_of(work: &Writing) -> String {
    temporary_name(&snapshot_name(work.frozen.lsn))
}

/// Checks one block of a snapshot that was just written; says whether that was the last.
pub(super) fn prove_some(proof: &mut Proof) -> Result<bool, Error> {
    let snapshot = &proof.snapshot;
    let Some((item, bytes)) = snapshot.block_bytes(proof.next_block)? else { return Ok(true) };
    let block = snapshot.parse_block(&item, &bytes)?;
    block.check(snapshot.lsn()).map_err(|fault| snapshot.bad(fault))?;
    proof.next_block += 1;
    Ok(false)
}
