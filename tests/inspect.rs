//! Looking at stores and salvaging them on a simulated disk: beside a writer whose sync fails,
//! between any two steps of a compaction, on sectors that cannot be read, and through a crash at
//! every operation of a salvage.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may")]

mod sim;

use sim::over::{DiskLayer, FileLayer, Over};
use sim::{EIO, Fault, Moment, OpKind, ReadBack, Rng, SimClock, SimDisk, SimEntropy};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use tokenwal::disk::{Access, Disk, DiskFile, DiskLock};
use tokenwal::inspect::{self, Reader, Salvage};
use tokenwal::internals::format::block::{BlockKind, IndexItem, RawBlockHeader};
use tokenwal::internals::format::build::ItemsBlock;
use tokenwal::internals::format::snapshot::{Footer, SnapshotHeader};
use tokenwal::{
    AccountTag, AccountView, App, Begin, Drive, Error, FixedKeys, Journal, Options, Outcome,
    Settled, TokenResponse, User, Verdict, Work,
};

fn keys() -> FixedKeys {
    FixedKeys::new([7; 32], [])
}

fn options(disk: &SimDisk, seed: u64) -> Options {
    Options::new(keys())
        .batch_bytes_max(16 << 10)
        .segment_bytes(128 << 10)
        .outcome_bytes_max(4 << 10)
        .compact_at_percent(0)
        .drive(Drive::Manual)
        .disk(Arc::new(disk.clone()))
        .clock(Arc::new(SimClock::new()))
        .entropy(Arc::new(SimEntropy::new(seed)))
}

/// Runs a future to its end, doing the journal's work meanwhile.
fn drive<F: Future>(journal: &Journal, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..10_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        for work in [Work::Commit, Work::Prepare, Work::Compact] {
            // What fails is told to whoever waits for it.
            let _ = journal.step(work);
        }
    }
    panic!("the journal makes no progress");
}

fn issue(journal: &Journal, number: u32) -> Result<(), Error> {
    let app = App::new("provider", "client").unwrap();
    let ticket = drive(journal, journal.begin(Begin::exchange(&app)))?;
    let body = format!("{{\"access_token\":\"a{number}\",\"refresh_token\":\"r{number}\"}}");
    let response = TokenResponse::parse(body.into_bytes(), 1_750_000_000_000).unwrap();
    let user = User::new(format!("user-{number}")).unwrap();
    let outcome = Outcome::Issued(response.with_user(user));
    match drive(journal, journal.settle(ticket, outcome)) {
        Ok(Settled::Issued(_)) => Ok(()),
        Ok(other) => panic!("{other:?}"),
        Err(failed) => Err(failed.error),
    }
}

/// Makes a store of several segments with `accounts` accounts, closed in order.
fn closed(seed: u64, accounts: u32) -> SimDisk {
    let disk = SimDisk::new(seed);
    let (journal, _) = options(&disk, seed).create("").unwrap();
    (0..accounts).for_each(|number| issue(&journal, number).unwrap());
    journal.blocking().close().unwrap();
    disk
}

fn read(disk: Arc<dyn Disk>) -> Result<Vec<AccountView>, Error> {
    Reader::open_on(disk, Some(&keys()), None, &mut |_| ())?.accounts().collect()
}

#[test]
fn what_is_not_durable_is_not_shown() {
    let disk = SimDisk::new(1);
    let (journal, _) = options(&disk, 1).create("").unwrap();
    issue(&journal, 1).unwrap();
    // Proves what was written, as a while without callers does.
    while journal.step(Work::Idle).unwrap() || journal.step(Work::Commit).unwrap() {}
    let head = journal.head();
    assert_eq!(read(Arc::new(disk.clone())).unwrap().len(), 1);

    // The batch is in the cache, and its sync fails: it may never reach the disk.
    let is_sync = |op: &sim::Op| op.kind == OpKind::Sync && op.name.starts_with("segment-");
    disk.fail(is_sync, Fault::LostSync(ReadBack::New), 1);
    let error = issue(&journal, 2).unwrap_err();
    assert!(matches!(error, Error::Poisoned(_)), "{error}");
    assert_eq!(journal.head(), head);
    let reader = Reader::open_on(Arc::new(disk.clone()), None, None, &mut |_| ()).unwrap();
    assert!(reader.lsn() <= head, "{} after {head}", reader.lsn());
    assert_eq!(reader.accounts().count(), 1);
    let found = inspect::verify(&disk, None, &mut |_| ()).unwrap();
    assert!(found.live && found.live_tail_bytes > 0, "{found:?}");
    assert_eq!((found.verdict, found.accounts), (Verdict::Clean, 1));
}

/// A disk that whoever only looks must not change.
#[derive(Debug)]
struct ReadOnly(SimDisk);

impl DiskLayer for ReadOnly {
    fn below(&self) -> &dyn Disk {
        &self.0
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        assert_eq!(access, Access::Read, "{name}");
        self.0.open(name, access)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        panic!("{name} is created")
    }

    fn rename(&self, from: &str, _: &str) -> io::Result<()> {
        panic!("{from} is renamed")
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        panic!("{name} is removed")
    }

    fn sync_dir(&self) -> io::Result<()> {
        panic!("the directory is synced")
    }

    fn try_lock(&self) -> io::Result<Option<Box<dyn DiskLock>>> {
        panic!("the lock is taken")
    }
}

/// Does something once, before the `countdown`-th file is opened.
struct Interrupted<'a> {
    disk: Over<ReadOnly>,
    countdown: AtomicUsize,
    then: Mutex<Box<dyn FnMut() + Send + 'a>>,
}

impl std::fmt::Debug for Interrupted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupted")
    }
}

impl Interrupted<'_> {
    fn count(&self) {
        let left = self.countdown.load(Ordering::Relaxed);
        if left > 0 {
            self.countdown.store(left - 1, Ordering::Relaxed);
            if left == 1 {
                (self.then.lock().unwrap())();
            }
        }
    }
}

impl DiskLayer for Interrupted<'_> {
    fn below(&self) -> &dyn Disk {
        &self.disk
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.count();
        self.disk.open(name, access)
    }
}

/// Counts what is read, and makes every segment as long as a sparse file can be.
#[derive(Debug)]
struct Odd {
    disk: Over<ReadOnly>,
    segment_bytes: Option<u64>,
    read_bytes: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct OddFile {
    file: Arc<dyn DiskFile>,
    bytes: Option<u64>,
    read_bytes: Arc<AtomicUsize>,
}

impl Odd {
    fn over(disk: &SimDisk, segment_bytes: Option<u64>) -> (Arc<dyn Disk>, Arc<AtomicUsize>) {
        let (disk, read_bytes) = (Over(ReadOnly(disk.clone())), Arc::<AtomicUsize>::default());
        let odd = Self { disk, segment_bytes, read_bytes: Arc::clone(&read_bytes) };
        (Arc::new(Over(odd)), read_bytes)
    }
}

impl DiskLayer for Odd {
    fn below(&self) -> &dyn Disk {
        &self.disk
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let (file, read_bytes) = (self.disk.open(name, access)?, Arc::clone(&self.read_bytes));
        let bytes = self.segment_bytes.filter(|_| name.starts_with("segment-"));
        Ok(Arc::new(Over(OddFile { file, bytes, read_bytes })))
    }
}

impl FileLayer for OddFile {
    fn below(&self) -> &dyn DiskFile {
        &*self.file
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(offset, buffer)?;
        self.read_bytes.fetch_add(read, Ordering::Relaxed);
        Ok(read)
    }

    fn len(&self) -> io::Result<u64> {
        self.bytes.map_or_else(|| self.file.len(), Ok)
    }
}

/// Between any two files that a reader opens the writer goes on, and a compaction removes what the
/// reader has seen in the directory.
#[test]
fn files_that_vanish_while_one_looks_are_no_damage() {
    let interrupted = AtomicUsize::new(0);
    for countdown in 1..40 {
        let disk = closed(2, 100);
        let (journal, _) = options(&disk, 3).open("").unwrap();
        let looking = Over(Interrupted {
            disk: Over(ReadOnly(disk.clone())),
            countdown: AtomicUsize::new(countdown),
            then: Mutex::new(Box::new(|| {
                interrupted.fetch_add(1, Ordering::Relaxed);
                drive(&journal, journal.compact()).unwrap();
                issue(&journal, 1000).unwrap();
                drive(&journal, journal.compact()).unwrap();
            })),
        });
        let found = inspect::verify(&looking, Some(&keys()), &mut |_| ()).unwrap();
        assert_eq!((found.verdict, found.problems.len()), (Verdict::Clean, 0), "{found:?}");
        assert!((100..=101).contains(&found.accounts), "{found:?}");
    }
    assert!(interrupted.into_inner() > 10);
}

#[test]
fn an_unreadable_sector_stops_all_but_salvage() {
    let disk = closed(4, 60);
    let before = read(Arc::new(disk.clone())).unwrap();
    let name = "segment-00000000000000000002.twj";
    let sector = 40_960..45_056;
    let range = sector.clone();
    let is_bad = move |op: &sim::Op| {
        let end = op.offset + op.len as u64;
        op.kind == OpKind::Read && op.name == name && op.offset < range.end && range.start < end
    };
    disk.fail(is_bad, Fault::Error(EIO), u64::MAX);
    // Nothing is decided where a read fails: the system's error stands for itself.
    for error in [
        inspect::verify(&disk, None, &mut |_| ()).unwrap_err(),
        read(Arc::new(disk.clone())).unwrap_err(),
    ] {
        assert!(matches!(&error, Error::Io { file, .. } if file == name), "{error}");
    }
    let keys = keys();
    let plan = Salvage::new(&keys).plan(Arc::new(disk.clone())).unwrap();
    let losses = plan.losses();
    assert_eq!(losses.len(), 1, "{losses:?}");
    assert!(sector.contains(&losses[0].offset) && losses[0].file == name, "{losses:?}");
    let into = disk.sibling(5);
    let salvaged = plan.write(Arc::new(into.clone())).unwrap();
    let after = read(Arc::new(into)).unwrap();
    assert_eq!(after.len() as u64, salvaged.accounts);
    assert!(after.iter().filter(|view| before.contains(view)).count() >= before.len() - 2);
}

#[test]
fn a_salvage_that_is_cut_short_leaves_no_store_and_takes_nothing() {
    let disk = closed(6, 30);
    disk.damage("segment-00000000000000000002.twj", |bytes| bytes[20_500] ^= 1);
    let digest = disk.digest();
    let whole = {
        let into = disk.sibling(7);
        let keys = keys();
        Salvage::new(&keys)
            .plan(Arc::new(disk.clone()))
            .unwrap()
            .write(Arc::new(into.clone()))
            .unwrap();
        read(Arc::new(into)).unwrap()
    };
    assert!(whole.len() > 20);
    let mut rng = Rng::new(8);
    let (mut opened, mut refused) = (0, 0);
    let mut number = 0;
    loop {
        let into = disk.sibling(9 + number);
        let moment = *rng.pick(&[Moment::Before, Moment::Inside, Moment::After]);
        into.crash_at(number, moment);
        let keys = keys();
        let plan = Salvage::new(&keys).plan(Arc::new(disk.clone())).unwrap();
        let written = plan.write(Arc::new(into.clone()));
        let crashed = into.has_crashed();
        assert_eq!(written.is_err(), crashed, "{written:?}");
        let after = if rng.chance(50) { into.process_death() } else { into.power_cut(&mut rng) };
        match options(&after, number).open("") {
            Ok((journal, _)) => {
                opened += 1;
                drop(journal);
                assert_eq!(read(Arc::new(after.process_death())).unwrap(), whole);
            }
            Err(Error::Missing { .. } | Error::Corrupt(_)) if crashed => refused += 1,
            Err(error) => panic!("{error}"),
        }
        assert_eq!(disk.digest(), digest, "the damaged store was changed");
        if !crashed {
            break;
        }
        number += 1;
    }
    assert!(opened >= 1 && refused > 8, "{opened} opened, {refused} refused");
}

/// Makes a store whose newest snapshot is followed by nothing, and gives that snapshot's name.
fn compacted(seed: u64, accounts: u32) -> (SimDisk, String) {
    let disk = SimDisk::new(seed);
    let (journal, _) = options(&disk, seed).create("").unwrap();
    (0..accounts).for_each(|number| issue(&journal, number).unwrap());
    drive(&journal, journal.compact()).unwrap();
    drop(journal);
    let disk = disk.process_death();
    let name = disk.files().into_keys().find(|name| name.starts_with("snapshot-")).unwrap();
    (disk, name)
}

/// Salvages into a store that is sound, and gives what it shows and how much was lost.
fn salvaged(from: &SimDisk) -> (Vec<AccountView>, u64) {
    let (keys, into) = (keys(), from.sibling(12));
    let plan = Salvage::new(&keys).plan(Arc::new(from.clone())).unwrap();
    let losses = plan.write(Arc::new(into.clone())).unwrap().losses;
    let found = inspect::verify(&into, Some(&keys), &mut |_| ()).unwrap();
    assert_eq!((found.verdict, found.problems.len()), (Verdict::Clean, 0), "{found:?}");
    options(&into, 13).open("").unwrap();
    (read(Arc::new(into.process_death())).unwrap(), losses)
}

#[test]
fn where_no_file_names_the_segment_before_a_salvage_still_makes_a_store() {
    let (disk, snapshot) = compacted(11, 20);
    let before = read(Arc::new(disk.clone())).unwrap();
    // The header names the segment that follows, and no record does.
    disk.damage(&snapshot, |bytes| bytes[48..4096].fill(0));
    let (after, losses) = salvaged(&disk);
    assert_eq!((after, losses), (before, 0));
}

#[test]
fn a_snapshot_that_is_gone_is_a_loss_also_where_nothing_follows_it() {
    let (disk, snapshot) = compacted(17, 20);
    let last_lsn = inspect::verify(&disk, Some(&keys()), &mut |_| ()).unwrap().last_lsn;
    disk.damage(&snapshot, |bytes| bytes[..512].fill(0));
    let keys = keys();
    let plan = Salvage::new(&keys).plan(Arc::new(disk.clone())).unwrap();
    let losses = plan.losses();
    let loss = losses.iter().find(|loss| loss.file == snapshot);
    let loss = loss.unwrap_or_else(|| panic!("{losses:?}"));
    assert!(snapshot.contains(&format!("{:020}", loss.last_lsn.0)), "{loss:?}");
    // What was lost had LSNs, too, which are given to nothing else.
    let into = plan.write(Arc::new(disk.sibling(18))).unwrap();
    assert!(into.lsn >= last_lsn, "{} after {last_lsn}", into.lsn);
}

#[test]
fn a_damaged_version_is_no_newer_format_to_salvage() {
    let (disk, snapshot) = compacted(14, 20);
    let before = read(Arc::new(disk.clone())).unwrap();
    let (journal, _) = options(&disk, 15).open("").unwrap();
    drop(journal);
    let disk = disk.process_death();
    let last = disk.files().into_keys().rfind(|name| name.starts_with("segment-")).unwrap();
    for name in [snapshot, last] {
        let disk = disk.copy();
        disk.damage(&name, |bytes| bytes[11] ^= 0x20);
        let error = options(&disk.copy(), 16).open("").unwrap_err();
        assert!(matches!(error, Error::NewerFormat { .. }), "{error}");
        assert_eq!(salvaged(&disk), (before.clone(), 0), "{name}");
        // One that is newer in truth has its own right checksum.
        disk.damage(&name, |bytes| bytes[100] ^= 1);
        let keys = keys();
        let refused = Salvage::new(&keys).plan(Arc::new(disk.clone())).unwrap_err();
        assert!(matches!(refused, Error::NewerFormat { .. }), "{refused}");
    }
}

/// An index that names a place in every few bytes, in each of which a block claims all the rest.
#[test]
fn an_index_that_lies_makes_salvage_read_nothing_again_and_again() {
    let (disk, snapshot) = compacted(19, 20);
    let good = disk.files()[&snapshot].clone();
    let header = SnapshotHeader::parse(&good[..4096]).unwrap();
    let (places, mut bytes) = (4000_u32, good[..4096].to_vec());
    let mut index = ItemsBlock::new();
    for place in 0..places {
        let first = AccountTag::from_bytes(u128::from(place + 1).to_be_bytes());
        let (offset, length) = (bytes.len() as u64, 40 * (places - place - 1));
        index.push(&IndexItem { first, offset, length, count: 1 });
        let kind = BlockKind::Accounts;
        bytes.extend(RawBlockHeader { crc: 0, length, kind, count: 1, first }.encode());
    }
    let index_at = bytes.len() as u64;
    bytes.extend_from_slice(index.finish(header.nonce, index_at));
    let end = bytes.len() as u64;
    let footer = Footer {
        index: index_at,
        keys: end,
        open: end,
        accounts: u64::from(places),
        records: 0,
        end,
        lsn: header.lsn,
    };
    bytes.extend(footer.encode(header.nonce));
    disk.damage(&snapshot, |all| *all = bytes);
    let stored: usize = disk.files().values().map(|bytes| bytes.len()).sum();
    let (odd, read_bytes) = Odd::over(&disk, None);
    let keys = keys();
    let _ = Salvage::new(&keys).plan(odd);
    let read = read_bytes.load(Ordering::Relaxed);
    assert!(read < 20 * stored, "{read} bytes were read of {stored}");
}

#[test]
fn segments_that_are_longer_than_numbers_tell_are_looked_at_and_salvaged() {
    let disk = closed(20, 60);
    let before = read(Arc::new(disk.clone())).unwrap();
    let segments: Vec<_> =
        disk.files().into_keys().filter(|name| name.starts_with("segment-")).collect();
    assert!(segments.len() >= 4, "{segments:?}");
    let (odd, _) = Odd::over(&disk, Some(1 << 62));
    assert_eq!(inspect::verify(&*odd, None, &mut |_| ()).unwrap().verdict, Verdict::Clean);
    assert_eq!(read(Arc::clone(&odd)).unwrap(), before);
    // Of one nothing is left but its length.
    disk.damage(&segments[1], |bytes| bytes.fill(0));
    let (keys, into) = (keys(), disk.sibling(21));
    let plan = Salvage::new(&keys).plan(odd).unwrap();
    assert!(!plan.losses().is_empty());
    plan.write(Arc::new(into.clone())).unwrap();
    options(&into, 22).open("").unwrap();
}

#[test]
fn a_name_with_a_number_that_no_journal_reaches_takes_no_salvage_there() {
    let (disk, snapshot) = compacted(23, 20);
    let before = read(Arc::new(disk.clone())).unwrap();
    let misnamed = format!("snapshot-{:020}.tws", u64::MAX / 2);
    disk.rename(&snapshot, &misnamed).unwrap();
    let (after, losses) = salvaged(&disk);
    assert!(losses > 0 && after.len() <= before.len(), "{losses}");
}

#[test]
fn looking_changes_nothing() {
    let disk = closed(10, 20);
    for damage in [None, Some(5000), Some(100), Some(70_000)] {
        let disk = disk.copy();
        if let Some(at) = damage {
            disk.damage("segment-00000000000000000001.twj", |bytes| bytes[at] ^= 1);
        }
        let before = (disk.operations(), disk.digest());
        let _ = inspect::verify(&disk, Some(&keys()), &mut |_| ()).unwrap();
        let _ = read(Arc::new(disk.clone()));
        let keys = keys();
        let _ = Salvage::new(&keys).plan(Arc::new(disk.clone())).unwrap();
        assert_eq!((disk.operations(), disk.digest()), before);
    }
}
