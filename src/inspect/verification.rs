//! What verifying a store says.

use crate::error::Damage;
use crate::ids::{AccountTag, Lsn, StoreId};
use crate::log::Verdict;
use serde::Serialize;
use std::collections::BTreeMap;

/// What is true of a store, and all that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verification {
    /// The worst of what was found.
    pub verdict: Verdict,
    /// The last LSN that the journal shows.
    pub last_lsn: Lsn,
    /// A marker proves the last batch; without one, damage exactly there looks like a torn write.
    pub last_batch_proven: bool,
    /// The store; none where no file says so.
    pub store: StoreId,
    /// A process has the store open for writing.
    pub live: bool,
    /// Bytes that it has not called durable yet.
    pub live_tail_bytes: u64,
    /// Bytes of an incomplete write behind the end; never acknowledged, and left as evidence.
    pub torn_bytes: u64,
    /// Where they stand.
    pub torn_file: Option<String>,
    /// Where in that file.
    pub torn_offset: u64,
    /// Segments of the chain.
    pub segments: u64,
    /// Segments that were written ahead and hold nothing.
    pub prepared_segments: u64,
    /// Segments that the newest snapshot covers; they are ignored.
    pub covered_segments: u64,
    /// Batches that were read.
    pub batches: u64,
    /// Records that were read.
    pub frames: u64,
    /// Snapshots, older ones included.
    pub snapshots: u64,
    /// The LSN of the snapshot with which reading begins, or 0.
    pub snapshot_lsn: Lsn,
    /// Blocks of accounts in all snapshots.
    pub snapshot_blocks: u64,
    /// Accounts that the store folds to.
    pub accounts: u64,
    /// Operations without a final outcome.
    pub in_doubt: u64,
    /// Keys were given, and every sealed part and batch was checked against them.
    pub authenticated: bool,
    /// Sealed parts that were opened.
    pub sealed_parts: u64,
    /// Names that are none of the store's; they are left alone.
    pub foreign_files: Vec<String>,
    /// All that is wrong.
    pub problems: Vec<Problem>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Problem {
    /// What it makes of the store.
    pub verdict: Verdict,
    /// The file.
    pub file: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// The first LSN at stake, or 0 when that is not known.
    pub lsn: Lsn,
    /// Which rule is broken.
    pub what: String,
    /// Accounts at stake, as far as they are known by name; at most 64.
    pub accounts: Vec<AccountTag>,
    /// All accounts with tags from the first of these up to, without, the second are at stake;
    /// the second is none where there is no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accounts_between: Option<(AccountTag, Option<AccountTag>)>,
    /// What to do next.
    pub advice: String,
}

const ACCOUNTS_MAX: usize = 64;

const SALVAGE: &str =
    "let nothing write here, and run `tokenwal salvage DIR INTO` to copy what can be read";

const TAMPERED: &str = "find out who could write here; `tokenwal salvage DIR INTO` copies what is \
                        authentic, and what was changed must be asked of the provider";

impl Problem {
    pub(super) fn corrupt(file: &str, offset: u64, lsn: Lsn, what: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Corrupt,
            file: file.to_owned(),
            offset,
            lsn,
            what: what.into(),
            accounts: Vec::new(),
            accounts_between: None,
            advice: SALVAGE.to_owned(),
        }
    }

    /// Right checksums around what no writer of ours has written.
    pub(super) fn tampered(file: &str, offset: u64, lsn: Lsn, what: impl Into<String>) -> Self {
        Self { advice: TAMPERED.to_owned(), ..Self::corrupt(file, offset, lsn, what) }
    }

    pub(super) fn of(damage: &Damage, verdict: Verdict) -> Self {
        let Damage { file, offset, lsn, what, accounts } = damage.clone();
        Self { verdict, accounts, ..Self::corrupt(&file, offset, lsn, what) }
    }

    pub(super) fn advise(self, advice: String) -> Self {
        Self { advice, ..self }
    }

    /// Adds an account at stake.
    pub(super) fn name(&mut self, account: Option<AccountTag>) {
        let known = &mut self.accounts;
        known.extend(
            account.filter(|account| known.len() < ACCOUNTS_MAX && !known.contains(account)),
        );
    }
}

/// Problems, each place named once, by the first who found it. What is missing has a place of its
/// own, for another file may stand there.
#[derive(Debug, Default)]
pub(super) struct Problems {
    there: BTreeMap<(String, u64), Problem>,
    missing: BTreeMap<String, Problem>,
}

impl Problems {
    pub(super) fn note(&mut self, problem: Problem) {
        let (lsn, verdict, accounts) = (problem.lsn, problem.verdict, problem.accounts.clone());
        let place = (problem.file.clone(), problem.offset);
        let known = self.there.entry(place).or_insert(problem);
        if known.lsn.is_none() {
            known.lsn = lsn;
        }
        // The first word says what is wrong, the worst how bad it is.
        known.verdict = known.verdict.max(verdict);
        accounts.into_iter().for_each(|account| known.name(Some(account)));
    }

    /// Notes a file that should be there.
    pub(super) fn note_missing(&mut self, problem: Problem) {
        self.missing.entry(problem.file.clone()).or_insert(problem);
    }

    /// Takes over what others have found.
    pub(super) fn append(&mut self, mut others: Self) {
        self.missing.append(&mut others.missing);
        self.extend(others.there.into_values());
    }

    pub(super) fn extend(&mut self, others: impl IntoIterator<Item = Problem>) {
        others.into_iter().for_each(|problem| self.note(problem));
    }

    fn all(&self) -> impl Iterator<Item = &Problem> {
        self.missing.values().chain(self.there.values())
    }

    /// Returns the worst verdict among them.
    pub(super) fn worst(&self) -> Verdict {
        self.all().map(|problem| problem.verdict).max().unwrap_or(Verdict::Clean)
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        let mut all: Vec<_> = self.missing.into_values().chain(self.there.into_values()).collect();
        all.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
        all
    }
}
