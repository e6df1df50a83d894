//! Checks every block of the snapshots: their checksums, their order, that what opening is told
//! at once is what the accounts say, and with keys every sealed part.

use super::Progress;
use super::audit::{RecordCheck, Seals};
use super::picture::Teller;
use super::verification::{Problem, Problems};
use crate::disk::Disk;
use crate::engine::state::AccountState;
use crate::engine::table::Snapshot;
use crate::error::Error;
use crate::format::block::{AccountEntry, OpenItem};
use crate::ids::{AccountTag, Lsn};
use crate::log::Verdict;
use std::io;

/// What the snapshots of a store turned out to be.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    pub(super) snapshots: u64,
    pub(super) blocks: u64,
    pub(super) problems: Problems,
}

/// Checks one snapshot, and hears of its accounts.
pub(super) struct BlockCheck<'a, 't> {
    pub(super) disk: &'a dyn Disk,
    pub(super) seals: Option<&'a mut Seals>,
    pub(super) teller: &'a Teller<'t>,
    /// Told of each account whose entry is sound.
    pub(super) account: &'a mut dyn FnMut(AccountTag, &AccountState),
}

impl Blocks {
    /// Checks all of a snapshot. One that a compaction has removed meanwhile is passed over.
    ///
    /// # Errors
    /// What says nothing about its soundness: a newer format, a wrong key, what the system refuses.
    pub(super) fn check(&mut self, lsn: Lsn, mut check: BlockCheck<'_, '_>) -> Result<(), Error> {
        let snapshot = match Snapshot::open(check.disk, lsn) {
            Ok(snapshot) => snapshot,
            Err(Error::Corrupt(damage)) => {
                self.snapshots += 1;
                self.problems.note(Problem::of(&damage, Verdict::Corrupt));
                return Ok(());
            }
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.snapshots += 1;
        if let Some(seals) = check.seals.as_deref_mut() {
            let keys = snapshot.keys().iter();
            let tag_key = &snapshot.header().tag_key;
            seals.learn(snapshot.name(), tag_key, keys, &mut self.problems)?;
        }
        let mut open = Vec::new();
        let (mut accounts, mut records, mut whole) = (0, 0, true);
        for number in 0..snapshot.blocks() {
            self.blocks += 1;
            match self.block(&snapshot, number, &mut check, &mut open)? {
                Some(counts) => {
                    accounts += counts.0;
                    records += counts.1;
                }
                None => whole = false,
            }
        }
        let footer = snapshot.footer();
        if whole && (accounts, records) != (footer.accounts, footer.records) {
            let what = "the snapshot holds other numbers of accounts and records than it says";
            self.problems.note(Problem::tampered(snapshot.name(), footer.end, lsn, what));
        }
        if whole && open != snapshot.open_items() {
            let what = "what opening is told of open operations is not what the accounts say";
            self.problems.note(Problem::tampered(snapshot.name(), footer.open, lsn, what));
        }
        Ok(())
    }

    /// Checks a block; says how many accounts and records it has, if it is sound.
    fn block(
        &mut self,
        snapshot: &Snapshot,
        number: usize,
        check: &mut BlockCheck<'_, '_>,
        open: &mut Vec<OpenItem>,
    ) -> Result<Option<(u64, u64)>, Error> {
        let Some(place) = snapshot.place_of_block(number) else { return Ok(None) };
        check.teller.tell(Progress { done_bytes: place.offset, total_bytes: snapshot.bytes() });
        let result = snapshot.block_bytes(number).and_then(|found| {
            let Some((item, bytes)) = found else { return Ok((0, 0)) };
            let block = snapshot.parse_block(&item, &bytes)?;
            block.check(snapshot.lsn()).map_err(|fault| snapshot.bad(fault))?;
            let mut records = 0;
            for entry in block.accounts() {
                let entry = entry.map_err(|fault| snapshot.bad(fault))?;
                records += u64::from(entry.header.records);
                open.extend(self.entry(snapshot, place.offset, &entry, check)?);
            }
            Ok((block.count, records))
        });
        match result {
            Ok(counts) => Ok(Some(counts)),
            Err(Error::Corrupt(damage)) => {
                let mut problem = Problem::of(&damage, Verdict::Corrupt);
                problem.accounts_between = Some((place.first, place.next));
                self.problems.note(problem);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Checks an account's records; says what opening must know of it, if it must.
    fn entry(
        &mut self,
        snapshot: &Snapshot,
        offset: u64,
        entry: &AccountEntry<'_>,
        check: &mut BlockCheck<'_, '_>,
    ) -> Result<Option<OpenItem>, Error> {
        for record in entry.records(snapshot.lsn()) {
            let record = record.map_err(|fault| snapshot.bad(fault))?;
            let problems = &mut self.problems;
            let mut record_check = RecordCheck { name: snapshot.name(), offset, problems };
            record_check.carried(&record, snapshot.keys());
            if let Some(seals) = check.seals.as_deref_mut() {
                record_check.sealed(&record, seals);
            }
        }
        let state = snapshot.fold(entry)?;
        (check.account)(entry.header.account, &state);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let item = OpenItem {
            account: entry.header.account,
            operations: count(state.operations.len()),
            orphans: count(state.orphans()),
        };
        Ok(Some(item).filter(|item| item.operations > 0 || item.orphans > 0))
    }
}
