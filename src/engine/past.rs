//! What is still kept of an account's past: the records of its entry in the snapshot, and those that
//! concern it in the segments since.
//!
//! A grant may have come from another account, and a pair from an intent under another: these
//! records belong to its past as well, as far as they are of that grant, and are older than the move.

use super::accounts::concerned;
use super::files::{Files, RecordBytes};
use crate::error::Error;
use crate::format::clear::Clear;
use crate::format::record::Record;
use crate::ids::{AccountTag, GrantId, Lsn, OpId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All that is kept of an account's past.
#[derive(Debug)]
pub(crate) struct Past {
    /// From this LSN on nothing is missing.
    pub(crate) complete_from: Lsn,
    /// In their order.
    pub(crate) records: BTreeMap<Lsn, RecordBytes>,
}

/// Whose records are of interest, and which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interest {
    account: AccountTag,
    part: Part,
    until: Lsn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    Grant(GrantId),
    Operation(OpId),
}

/// Gathers what is kept of an account's past, up to and with an LSN.
pub(crate) fn gather(files: &Files, account: AccountTag, through: Lsn) -> Result<Past, Error> {
    let snapshot = files.snapshot.as_ref().map(|snapshot| snapshot.lsn());
    let complete_from = snapshot.map_or(Lsn(1), |lsn| lsn.plus(1));
    let mut past = Past { complete_from, records: BTreeMap::new() };
    let mut known = Vec::new();
    let mut fresh = vec![Interest { account, part: Part::All, until: through }];
    while !fresh.is_empty() {
        known.extend_from_slice(&fresh);
        let found = find(files, &fresh, through)?;
        fresh = found.values().filter_map(|bytes| leads_to(bytes, &known)).collect();
        past.records.extend(found);
    }
    Ok(past)
}

/// Finds the records of interest, in the snapshot and in the segments.
fn find(
    files: &Files,
    interests: &[Interest],
    through: Lsn,
) -> Result<BTreeMap<Lsn, RecordBytes>, Error> {
    let mut found = BTreeMap::new();
    for interest in interests {
        let Some(snapshot) = &files.snapshot else { break };
        let entry = snapshot.entry(interest.account)?;
        for bytes in entry.into_iter().flat_map(|entry| entry.records) {
            if let Some(record) = read(&bytes).filter(|record| interest.has(record)) {
                found.insert(record.lsn(), Arc::clone(&bytes));
            }
        }
    }
    let in_segments = |lsn| files.snapshot.as_ref().is_none_or(|snapshot| lsn > snapshot.lsn());
    if !interests.iter().any(|interest| in_segments(interest.until)) {
        return Ok(found);
    }
    files.walk(through, &mut |record| {
        let (account, other) = concerned(&record.clear);
        let is_of = |interest: &Interest| {
            (account == Some(interest.account) || other == Some(interest.account))
                && interest.has(record)
        };
        if interests.iter().any(is_of) {
            found.insert(record.lsn(), record.bytes.into());
        }
        Ok(())
    })?;
    Ok(found)
}

fn read(bytes: &RecordBytes) -> Option<Record<'_>> {
    Record::parse(bytes).ok()
}

/// Says where else to look, if something came from there.
fn leads_to(bytes: &RecordBytes, known: &[Interest]) -> Option<Interest> {
    let record = read(bytes)?;
    let prefix = record.clear.prefix()?;
    let is_known = |account| known.iter().any(|interest| interest.account == account);
    let (account, part) = match record.clear {
        Clear::Identified(identified) if is_known(identified.to) => {
            (prefix.account, Part::Grant(prefix.grant))
        }
        Clear::Merged(merged) if is_known(merged.to) => (prefix.account, Part::All),
        Clear::Issued(issued) if !issued.from.is_none() && is_known(prefix.account) => {
            (issued.from, Part::Operation(prefix.op))
        }
        _ => return None,
    };
    let covers = |interest: &&Interest| {
        interest.account == account
            && (interest.part == part || interest.part == Part::All)
            && interest.until >= record.lsn()
    };
    let found = Interest { account, part, until: record.lsn() };
    known.iter().find(covers).is_none().then_some(found)
}

impl Interest {
    fn has(&self, record: &Record<'_>) -> bool {
        let Some(prefix) = record.clear.prefix() else { return false };
        let is_part = match self.part {
            Part::All => true,
            // A grant has the LSN of the intent that made it.
            Part::Grant(grant) => {
                let moved_to = match record.clear {
                    Clear::Superseded(superseded) => superseded.to,
                    _ => GrantId::NONE,
                };
                [prefix.grant, GrantId(prefix.op.0), GrantId(record.lsn().0), moved_to]
                    .contains(&grant)
            }
            Part::Operation(op) => prefix.op == op || record.lsn().0 == op.0,
        };
        is_part && record.lsn() <= self.until
    }
}
