//! Opening costs what the tail costs, not what the accounts cost.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::string_slice,
    unreachable_pub,
    dead_code,
    reason = "tests may, and share modules of which each uses a part"
)]

#[path = "benches/scale/counting.rs"]
mod counting;
#[path = "benches/scale/data.rs"]
mod data;
#[path = "shared/over.rs"]
mod over;
#[path = "benches/scale/store.rs"]
mod store;

use counting::Counting;
use std::path::Path;
use std::sync::Arc;
use store::{Built, Shape};
use tokenwal::disk::RealDisk;
use tokenwal::{Account, Report};

/// What an opening read.
struct Opened {
    report: Report,
    snapshot_bytes: u64,
    snapshot_bytes_read: u64,
    segment_bytes_read: u64,
}

fn open(dir: &Path) -> Opened {
    let (disk, reads) = Counting::over(RealDisk::open(dir).unwrap());
    let (journal, report) = store::options().disk(Arc::new(disk)).open(dir).unwrap();
    let (snapshot_bytes_read, segment_bytes_read) = (reads.snapshot_bytes(), reads.segment_bytes());
    let snapshot_bytes = journal.stats().snapshot_bytes;
    journal.blocking().close().unwrap();
    Opened { report, snapshot_bytes, snapshot_bytes_read, segment_bytes_read }
}

fn build(dir: &Path, accounts: usize) -> Built {
    // Few of its records are no exchange, so that it is made soon.
    let records = accounts as u64 * 3;
    store::build(dir, Shape { records, ..Shape::folded(accounts, 1) }).unwrap()
}

#[test]
fn opening_does_not_read_the_accounts() {
    let dir = tempfile::tempdir().unwrap();
    let (few, many) = (dir.path().join("few"), dir.path().join("many"));
    assert_eq!(build(&few, 2_000).accounts, 2_000);
    assert_eq!(build(&many, 20_000).accounts, 20_000);
    let (few, many) = (open(&few), open(&many));
    assert!(many.report.records_replayed < 10, "all is folded: {:?}", many.report);
    assert_eq!(many.report.records_replayed, few.report.records_replayed);
    assert_eq!(many.segment_bytes_read, few.segment_bytes_read, "the tails are alike");
    // What grows is the index, with 40 bytes to each block of 16 KiB, and the accounts that opening
    // must know at once: here one in fifty is an orphan, of 24 bytes.
    let grown = many.snapshot_bytes_read - few.snapshot_bytes_read;
    let accounts_bytes = many.snapshot_bytes - few.snapshot_bytes;
    assert!(accounts_bytes > 18_000 * 500, "accounts were written: {accounts_bytes}");
    assert!(grown < accounts_bytes / 200, "{grown} bytes more for {accounts_bytes}");
}

#[test]
fn what_the_generator_writes_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    let built = store::build(&dir, Shape::tail(5_000, 7)).unwrap();
    let (journal, report) = store::options().open(&dir).unwrap();
    // The marker of the close comes after what was counted.
    assert_eq!(report.records_replayed, built.records + 1);
    let (mut accounts, mut pairs) = (0, 0);
    for account in journal.accounts() {
        let account = account.unwrap();
        accounts += 1;
        pairs += account.grants.iter().map(|grant| u64::from(grant.generation.0)).sum::<u64>();
    }
    assert_eq!((accounts, pairs), (built.accounts, built.pairs));
    for number in [0, 1, 17, 499] {
        let person = data::Population::new(7).person(number);
        let account = Account::new(person.app().unwrap(), person.user().unwrap());
        let pair = journal.blocking().current(&account).unwrap().unwrap();
        assert_eq!(pair.access_token().reveal(), person.access_token(pair.generation().0));
    }
    journal.blocking().close().unwrap();
}

#[test]
fn what_follows_from_a_seed_is_the_same_again() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = |name: &str, seed| {
        let dir = dir.path().join(name);
        store::build(&dir, Shape { batch: 16, ..Shape::tail(500, seed) }).unwrap();
        let mut files: Vec<_> =
            std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        let first =
            files.into_iter().find(|file| file.ends_with("segment-00000000000000000001.twj"));
        std::fs::read(first.unwrap()).unwrap()
    };
    let first = bytes("first", 3);
    assert!(first == bytes("again", 3), "the same seed");
    assert!(first != bytes("other", 4), "another seed");
}
