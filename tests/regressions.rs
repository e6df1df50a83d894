//! Histories that once went wrong.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::needless_borrows_for_generic_args,
    reason = "a test may"
)]

#[path = "shared/over.rs"]
mod over;

use over::{DiskLayer, FileLayer, Over};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokenwal::disk::{Access, Disk, DiskFile, RealDisk};
use tokenwal::{
    Account, App, Begin, Cause, Clock, Confidence, Drive, Entropy, FixedKeys, Holder, Journal,
    NotSent, Options, Outcome, Settled, SystemEntropy, TokenResponse, User, Work,
};

const NOW_MS: u64 = 1_760_000_000_000;

const EMFILE: i32 = 24;

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Knobs {
    /// No new segment can be made.
    full: AtomicBool,
    /// No snapshot can be made.
    no_snapshot: AtomicBool,
    dir_full: AtomicBool,
    /// Calls of a kind that fail because too many files are open, and how many are left to fail.
    no_descriptors: AtomicU32,
    /// The disk is on another machine.
    elsewhere: AtomicBool,
    /// Runs in the next write to a file that is open for batches.
    on_batch: Mutex<Option<Hook>>,
    snapshots_tried: AtomicU32,
}

impl Knobs {
    fn take_descriptor(&self) -> io::Result<()> {
        let less = |left: u32| left.checked_sub(1);
        match self.no_descriptors.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => Err(io::Error::from_raw_os_error(EMFILE)),
            Err(_) => Ok(()),
        }
    }
}

#[derive(Clone)]
struct Hooked(Arc<RealDisk>, Arc<Knobs>);

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooked")
    }
}

struct HookedFile(Arc<dyn DiskFile>, Arc<Knobs>, bool);

impl std::fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookedFile")
    }
}

impl DiskLayer for Hooked {
    fn below(&self) -> &dyn Disk {
        &*self.0
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        if access != Access::Read {
            self.1.take_descriptor()?;
        }
        let file = self.0.open(name, access)?;
        Ok(Arc::new(Over(HookedFile(file, self.1.clone(), access != Access::Read))))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        if name.starts_with("segment") && self.1.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if name.starts_with("snapshot") && self.1.no_snapshot.load(Ordering::SeqCst) {
            self.1.snapshots_tried.fetch_add(1, Ordering::SeqCst);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.1.take_descriptor()?;
        self.0.create(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        if self.1.dir_full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.sync_dir()
    }

    fn host(&self) -> String {
        let suffix = if self.1.elsewhere.load(Ordering::SeqCst) { "-2" } else { "" };
        self.0.host() + suffix
    }
}

impl FileLayer for HookedFile {
    fn below(&self) -> &dyn DiskFile {
        &*self.0
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.2 {
            let hook = self.1.on_batch.lock().unwrap().take();
            if let Some(hook) = hook {
                hook();
            }
        }
        self.0.write_at(offset, bytes)
    }
}

/// Randomness that runs a hook in the middle of sealing a record.
#[derive(Default)]
struct HookedEntropy(Arc<Mutex<Option<Hook>>>);

impl std::fmt::Debug for HookedEntropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookedEntropy")
    }
}

impl Entropy for HookedEntropy {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        if bytes.len() == 12 {
            let hook = self.0.lock().unwrap().take();
            if let Some(hook) = hook {
                hook();
            }
        }
        SystemEntropy.fill(bytes)
    }
}

fn disk(path: &std::path::Path) -> (Arc<Over<Hooked>>, Arc<Knobs>) {
    let knobs = Arc::new(Knobs::default());
    let hooked = Hooked(Arc::new(RealDisk::create(path).unwrap()), knobs.clone());
    (Arc::new(Over(hooked)), knobs)
}

fn options() -> Options {
    Options::new(FixedKeys::new([7; 32], []))
}

/// Sizes of which a few records are much.
fn small(disk: Arc<Over<Hooked>>) -> Options {
    options()
        .drive(Drive::Manual)
        .disk(disk)
        .batch_bytes_max(16 << 10)
        .outcome_bytes_max(8 << 10)
        .segment_bytes(1 << 20)
}

fn app() -> App {
    App::new("salesforce", "3MVG9").unwrap()
}

fn user(name: &str) -> User {
    User::new(name).unwrap()
}

fn account(name: &str) -> Account {
    Account::new(app(), user(name))
}

fn issued(name: &str, access: &str, refresh: &str) -> Outcome {
    let body = format!("{{\"access_token\":\"{access}\",\"refresh_token\":\"{refresh}\"}}");
    let response = TokenResponse::parse(body.into_bytes(), NOW_MS).unwrap();
    Outcome::Issued(response.with_user(user(name)))
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs a future and steps the journal itself.
fn drive<F: Future>(journal: &Journal, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    for _ in 0..10_000 {
        if let Poll::Ready(output) = poll(future.as_mut()) {
            return output;
        }
        while journal.step(Work::Prepare).unwrap() {}
        journal.step(Work::Commit).unwrap();
        let _ = journal.step(Work::Compact);
    }
    panic!("it does not end");
}

fn prepare(journal: &Journal) {
    while journal.step(Work::Prepare).unwrap() {}
}

#[test]
fn a_roll_over_for_compaction_keeps_what_was_promised() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (disk, knobs) = disk(&path);
    let (journal, _) = small(disk).create(&path).unwrap();
    prepare(&journal);
    drive(&journal, journal.compact()).unwrap();
    prepare(&journal);
    println!("before: {:?}", journal.stats());
    knobs.full.store(true, Ordering::SeqCst);
    let mut tickets = Vec::new();
    loop {
        match drive(&journal, journal.begin(Begin::exchange(&app()))) {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => {
                println!("{} tickets, then {error}", tickets.len());
                break;
            }
        }
    }
    println!("begun: {:?}", journal.stats());
    let _ = drive(&journal, journal.compact());
    println!("compacted: {:?}", journal.stats());
    let mut kept = Vec::new();
    for (number, ticket) in tickets.into_iter().enumerate() {
        let name = format!("u{number}");
        let outcome = issued(&name, &"a".repeat(7930), &format!("r{number}"));
        match drive(&journal, journal.settle(ticket, outcome)) {
            Ok(Settled::Issued(_)) => kept.push(name),
            other => println!("{name}: {other:?}"),
        }
    }
    println!("{} acknowledged; {:?}", kept.len(), journal.stats());
    drop(journal);
    let (journal, report) = options().open(&path).unwrap();
    println!("{report:?}");
    let lost =
        kept.iter().filter(|name| journal.blocking().current(&account(name)).unwrap().is_none());
    assert_eq!(lost.count(), 0, "acknowledged pairs are lost, of {}", kept.len());
}

#[test]
fn nobody_sees_a_pair_before_its_sync() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (disk, knobs) = disk(&path);
    let (journal, _) = options().drive(Drive::Manual).disk(disk).create(&path).unwrap();
    prepare(&journal);
    let known = Begin::exchange(&app()).user(&user("u1"));
    let first = drive(&journal, journal.begin(known.clone())).unwrap();
    let second = drive(&journal, journal.begin(Begin::exchange(&app()))).unwrap();
    let mut not_sent = Box::pin(journal.settle(first, Outcome::NotSent(NotSent::Connect)));
    assert!(poll(not_sent.as_mut()).is_pending());
    // While that is being written, the other exchange turns out to be the same user's.
    let handle = journal.clone();
    let slot = Arc::new(Mutex::new(None));
    let kept = slot.clone();
    *knobs.on_batch.lock().unwrap() = Some(Box::new(move || {
        let mut settling = Box::pin(handle.settle(second, issued("u1", "access", "refresh")));
        assert!(poll(settling.as_mut()).is_pending());
        *kept.lock().unwrap() = Some(settling);
    }));
    assert!(journal.step(Work::Commit).unwrap());
    assert!(poll(not_sent.as_mut()).is_ready());
    let mut third = Box::pin(journal.begin(known));
    assert!(poll(third.as_mut()).is_pending());
    let pair = drive(&journal.clone(), async { journal.current(&account("u1")).await }).unwrap();
    let head = journal.head();
    let mut settling = slot.lock().unwrap().take().unwrap();
    assert!(poll(settling.as_mut()).is_pending(), "its batch is not written yet");
    assert!(pair.is_none(), "head {head:?}, and yet {:?}", pair.map(|pair| pair.lsn()));
}

#[test]
fn a_frame_names_no_key_that_its_segment_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (disk, knobs) = disk(&path);
    let hook: Arc<Mutex<Option<Hook>>> = Arc::default();
    let (journal, _) = options()
        .drive(Drive::Manual)
        .disk(disk)
        .entropy(Arc::new(HookedEntropy(hook.clone())))
        .create(&path)
        .unwrap();
    prepare(&journal);
    let ticket = drive(&journal, journal.begin(Begin::exchange(&app()))).unwrap();
    knobs.full.store(true, Ordering::SeqCst);
    drive(&journal, journal.compact()).unwrap();
    // Three times there is no space for the next segment, and then there is.
    for _ in 0..4 {
        prepare(&journal);
    }
    knobs.full.store(false, Ordering::SeqCst);
    prepare(&journal);
    let mut compact = Box::pin(journal.compact());
    assert!(poll(compact.as_mut()).is_pending());
    // The journal rolls over while an outcome is being sealed.
    let handle = journal.clone();
    *hook.lock().unwrap() = Some(Box::new(move || {
        assert!(handle.step(Work::Commit).unwrap());
    }));
    let settled = drive(&journal, journal.settle(ticket, issued("u1", "access", "refresh")));
    assert!(matches!(settled, Ok(Settled::Issued(_))), "{settled:?}");
    println!("{:?}", drive(&journal, compact).unwrap());
    println!("{:?}", journal.stats());
    drop(journal);
    let (journal, _) = options().open(&path).unwrap();
    let pair = journal.blocking().current(&account("u1"));
    assert!(matches!(pair, Ok(Some(_))), "{pair:?}");
}

#[test]
fn a_ticket_of_another_opening_takes_no_room_of_this_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (journal, _) = options().create(&path).unwrap();
    let old = journal.blocking().begin(Begin::exchange(&app())).unwrap();
    journal.blocking().close().unwrap();
    let (journal, _) = options().open(&path).unwrap();
    let _new = journal.blocking().begin(Begin::exchange(&app())).unwrap();
    let promised = journal.stats().promised_bytes;
    journal.blocking().settle(old, issued("u1", "a", "r")).unwrap();
    assert_eq!(journal.stats().promised_bytes, promised);
}

#[test]
fn a_compaction_that_cannot_be_done_is_not_tried_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (disk, knobs) = disk(&path);
    knobs.no_snapshot.store(true, Ordering::SeqCst);
    let (journal, _) = options()
        .disk(disk)
        .batch_bytes_max(16 << 10)
        .outcome_bytes_max(8 << 10)
        .segment_bytes(70 << 10)
        .create(&path)
        .unwrap();
    for number in 0..60 {
        let ticket = journal.blocking().begin(Begin::exchange(&app())).unwrap();
        journal.blocking().settle(ticket, issued(&format!("u{number}"), "a", "r")).unwrap();
    }
    let before = journal.stats();
    std::thread::sleep(Duration::from_secs(2));
    let after = journal.stats();
    let tried = knobs.snapshots_tried.load(Ordering::SeqCst);
    println!("tried {tried}; {before:?}; {after:?}");
    assert!(after.tail_segments < before.tail_segments + 5, "{tried} tries without a caller");
}

#[test]
fn an_outcome_left_behind_does_not_hold_up_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (disk, knobs) = disk(&path);
    let (journal, _) = options()
        .disk(disk)
        .batch_bytes_max(16 << 10)
        .outcome_bytes_max(8 << 10)
        .segment_bytes(1 << 20)
        .create(&path)
        .unwrap();
    let tickets: Vec<_> =
        (0..5).map(|_| journal.blocking().begin(Begin::exchange(&app())).unwrap()).collect();
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let (entered, in_write) = std::sync::mpsc::channel::<()>();
    *knobs.on_batch.lock().unwrap() = Some(Box::new(move || {
        entered.send(()).unwrap();
        let _ = wait.recv();
    }));
    let mut held = Vec::new();
    for (number, ticket) in tickets.into_iter().enumerate() {
        let outcome = issued(&format!("u{number}"), &"a".repeat(7000), "r");
        held.push(Box::pin(journal.settle(ticket, outcome)));
        if number == 0 {
            in_write.recv().unwrap();
        }
    }
    // Everybody goes away, the last of them with an outcome that found no space.
    drop(held);
    release.send(()).unwrap();
    drop(journal);
    let opened = options().wait_for_lock(Duration::from_secs(30)).open(&path);
    let (journal, report) = opened.unwrap();
    assert_eq!(report.in_doubt.len(), 0);
    for number in 0..5 {
        let pair = journal.blocking().current(&account(&format!("u{number}"))).unwrap();
        assert!(pair.is_some(), "{number}");
    }
}

#[test]
fn a_segment_longer_than_numbers_tell_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = options().segment_bytes(u64::MAX).create(dir.path().join("store")).unwrap_err();
    assert!(matches!(error, tokenwal::Error::Option { option: "segment_bytes", .. }), "{error}");
}

#[test]
fn patience_has_no_end() {
    let dir = tempfile::tempdir().unwrap();
    options().wait_for_lock(Duration::MAX).create(dir.path().join("store")).unwrap();
}

#[test]
fn an_operation_that_moved_can_still_be_folded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (journal, _) = options().create(&path).unwrap();
    let begin = Begin::exchange(&app()).user(&user("old"));
    let ticket = journal.blocking().begin(begin).unwrap();
    let doubt = tokenwal::Doubt::new(tokenwal::DoubtReason::Timeout);
    journal.blocking().settle(ticket, Outcome::InDoubt(doubt)).unwrap();
    journal.blocking().compact().unwrap();
    drop(journal);
    let (journal, _) = options().cache_bytes(0).open(&path).unwrap();
    let from = journal.tag_of(&account("old"));
    journal.blocking().merge(from, &account("new")).unwrap();
    let compacted = journal.blocking().compact();
    assert!(compacted.is_ok(), "{compacted:?}");
}

#[test]
fn a_grant_does_not_move_from_under_a_refresh() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (journal, _) = options().create(&path).unwrap();
    let blocking = journal.blocking();
    let ticket = blocking.begin(Begin::exchange(&app())).unwrap();
    let body = br#"{"access_token":"a1","refresh_token":"r1"}"#.to_vec();
    let outcome = Outcome::Issued(TokenResponse::parse(body, NOW_MS).unwrap());
    let Ok(Settled::Issued(pair)) = blocking.settle(ticket, outcome) else { panic!() };
    let ticket = blocking.begin(Begin::refresh(pair.account(), pair.grant())).unwrap();
    let moved = blocking.identify(pair.account(), pair.grant(), &account("u1"));
    assert!(matches!(moved, Err(tokenwal::Error::Busy { .. })), "{moved:?}");
    blocking.settle(ticket, issued("u1", "a2", "r2")).unwrap();
    blocking.identify(pair.account(), pair.grant(), &account("u1")).unwrap();
    let now = blocking.current(&account("u1")).unwrap().unwrap();
    assert_eq!(now.refresh_token().unwrap().reveal(), "r2", "r1 is spent");
}

#[test]
fn an_outcome_above_the_format_s_limit_is_not_promised() {
    let dir = tempfile::tempdir().unwrap();
    let opened = options().batch_bytes_max(16 << 20).outcome_bytes_max(8 << 20);
    let opened = opened.segment_bytes(80 << 20).create(dir.path().join("store"));
    assert!(matches!(opened, Err(tokenwal::Error::Option { .. })));
}

#[test]
fn a_closed_journal_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (journal, _) = options().drive(Drive::Manual).create(&path).unwrap();
    journal.step(Work::Prepare).unwrap();
    let late = journal.clone();
    journal.blocking().close().unwrap();
    let (_next, _) = options().drive(Drive::Manual).open(&path).unwrap();
    let names = || {
        let entries = std::fs::read_dir(&path).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let before = names();
    prepare(&late);
    assert_eq!(names(), before);
}

#[test]
fn too_many_open_files_are_no_end_of_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (disk, knobs) = disk(&path);
    let (journal, _) = small(disk).create(&path).unwrap();
    // The first segment cannot be created, then created but not opened, and then there is one.
    for round in 0..3 {
        knobs.no_descriptors.store(u32::from(round == 0), Ordering::SeqCst);
        let mut steps = 0;
        while journal.step(Work::Prepare).unwrap() {
            steps += 1;
            knobs.no_descriptors.store(u32::from(round == 1 && steps > 1), Ordering::SeqCst);
        }
    }
    knobs.no_descriptors.store(u32::MAX, Ordering::SeqCst);
    let mut begun = 0;
    let error = loop {
        match drive(&journal, journal.begin(Begin::exchange(&app()))) {
            Ok(ticket) => drop(ticket),
            Err(error) => break error,
        }
        begun += 1;
    };
    assert!(matches!(error, tokenwal::Error::NoRoom { .. }), "after {begun}: {error:?}");
    assert!(begun > 10, "one segment was ready, and took {begun}");
    knobs.no_descriptors.store(0, Ordering::SeqCst);
    prepare(&journal);
    drive(&journal, journal.begin(Begin::exchange(&app()))).unwrap();
    drop(journal);
    let (_, report) = self::options().open(&path).unwrap();
    assert_eq!(report.in_doubt.len(), begun + 1);
}

#[test]
fn an_account_that_ceased_to_exist_is_not_brought_back_from_an_old_look_at_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let hook: Arc<Mutex<Option<Hook>>> = Arc::default();
    let (journal, _) = options()
        .drive(Drive::Manual)
        .entropy(Arc::new(HookedEntropy(hook.clone())))
        .create(&path)
        .unwrap();
    prepare(&journal);
    let ticket = drive(&journal, journal.begin(Begin::exchange(&app()))).unwrap();
    let settled = drive(&journal, journal.settle(ticket, issued("u1", "access", "refresh")));
    let Ok(Settled::Issued(pair)) = settled else { panic!("{settled:?}") };
    let u1 = account("u1");
    drive(&journal, journal.end(&u1, pair.grant(), Cause::RevokedByUs, Confidence::Certain))
        .unwrap();
    // While a change is being sealed, the account is forgotten, durably.
    let handle = journal.clone();
    *hook.lock().unwrap() = Some(Box::new(move || {
        drive(&handle.clone(), handle.forget(&account("u1"))).unwrap();
    }));
    let revived = drive(&journal, journal.revive(&u1, pair.grant()));
    assert!(matches!(revived, Err(tokenwal::Error::UnknownGrant { .. })), "{revived:?}");
    assert!(drive(&journal, journal.account(&u1)).unwrap().is_none());
}

#[test]
fn a_compacted_journal_says_where_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (disk, knobs) = disk(&path);
    let options = || options().disk(disk.clone());
    let (journal, _) = options().drive(Drive::Manual).create(&path).unwrap();
    prepare(&journal);
    let ticket = drive(&journal, journal.begin(Begin::exchange(&app()))).unwrap();
    drive(&journal, journal.settle(ticket, issued("u1", "access", "refresh"))).unwrap();
    drive(&journal, journal.compact()).unwrap();
    // Nothing was written since, and the process ends without a word.
    drop(journal);
    knobs.elsewhere.store(true, Ordering::SeqCst);
    let refused = options().open(&path).map(|(_, report)| report);
    assert!(matches!(refused, Err(tokenwal::Error::ForeignHost { .. })), "{refused:?}");
    // Claiming it waits for nobody to step.
    let (_, report) = options().drive(Drive::Manual).claim().open(&path).unwrap();
    assert_eq!(report.incarnation, 2);
}

#[test]
fn a_claim_is_known_until_what_came_before_it_has_proved_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (disk, knobs) = disk(&path);
    let options = || options().disk(disk.clone());
    let issue = |journal: &Journal, refresh: &str| {
        let ticket = journal.blocking().begin(Begin::exchange(&app())).unwrap();
        match journal.blocking().settle(ticket, issued("u1", "access", refresh)).unwrap() {
            Settled::Issued(pair) => pair,
            other => panic!("{other:?}"),
        }
    };
    let stale = |journal: &Journal| -> Vec<_> {
        let view = journal.blocking().account(&account("u1")).unwrap().unwrap();
        view.grants.iter().map(|grant| grant.stale).collect()
    };
    let (journal, _) = options().create(&path).unwrap();
    let (first, _) = (issue(&journal, "refresh-1"), issue(&journal, "refresh-2"));
    assert!(journal.claimed().is_none());
    assert_eq!(stale(&journal), [false, false]);
    drop(journal);
    knobs.elsewhere.store(true, Ordering::SeqCst);
    let (journal, _) = options().claim().open(&path).unwrap();
    let claimed = journal.claimed();
    assert_eq!((claimed, stale(&journal)), (journal.head(), vec![true, true]));
    journal.blocking().worked(&account("u1"), first.grant(), first.generation()).unwrap();
    issue(&journal, "refresh-3");
    journal.blocking().compact().unwrap();
    drop(journal);
    // From the snapshot's header, where nothing else says so.
    let (journal, _) = options().open(&path).unwrap();
    assert_eq!((journal.claimed(), stale(&journal)), (claimed, vec![false, true, false]));
    let views: Vec<_> = journal.accounts().map(|view| view.unwrap().grants).collect();
    assert!(views[0][1].stale);
    let reader = tokenwal::inspect::Reader::open_on(disk, None, None, &mut |_| ()).unwrap();
    let view = reader.account(journal.tag_of(&account("u1"))).unwrap().unwrap();
    assert_eq!(view.grants.iter().filter(|grant| grant.stale).count(), 1);
}

/// A clock that stands still until it is set.
#[derive(Debug)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn what_a_compaction_dropped_is_not_revived_from_memory() {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let clock = Arc::new(Hand(AtomicU64::new(NOW_MS)));
    let options = || options().clock(clock.clone());
    let (journal, _) = options().drive(Drive::Manual).create(&path).unwrap();
    prepare(&journal);
    let ticket = drive(&journal, journal.begin(Begin::exchange(&app()))).unwrap();
    let settled = drive(&journal, journal.settle(ticket, issued("u1", "access", "refresh")));
    let Ok(Settled::Issued(pair)) = settled else { panic!("{settled:?}") };
    let (u1, holder) = (account("u1"), Holder::new("acme", "billing").unwrap());
    let ended = journal.end(&u1, pair.grant(), Cause::RevokedByUs, Confidence::Certain);
    drive(&journal, ended).unwrap();
    clock.0.store(NOW_MS + 31 * DAY_MS, Ordering::SeqCst);
    // The account is frozen with the secrets of a grant that ended long ago, and then changed.
    let mut compact = Box::pin(journal.compact());
    assert!(poll(compact.as_mut()).is_pending());
    prepare(&journal);
    assert!(journal.step(Work::Commit).unwrap());
    drive(&journal, journal.release(&u1, pair.grant(), &holder)).unwrap();
    assert!(poll(compact.as_mut()).is_pending());
    drive(&journal, compact).unwrap();
    // The snapshot has no secrets of it any more, and the segments that had are gone.
    let revived = drive(&journal, journal.revive(&u1, pair.grant()));
    assert!(matches!(revived, Err(tokenwal::Error::UnknownGrant { .. })), "{revived:?}");
    drive(&journal, journal.compact()).unwrap();
    let before = drive(&journal, journal.account(&u1)).unwrap().map(|view| view.grants);
    drop(journal);
    let (journal, _) = options().open(&path).unwrap();
    let after = journal.blocking().account(&u1).unwrap().map(|view| view.grants);
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
}

#[test]
fn a_pair_that_is_too_large_is_in_doubt_durably_when_its_caller_hears_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (disk, _) = disk(&path);
    let (journal, _) = small(disk).create(&path).unwrap();
    prepare(&journal);
    let ticket = drive(&journal, journal.begin(Begin::exchange(&app()))).unwrap();
    let outcome = issued("u1", &"a".repeat(9000), "refresh");
    let mut settling = Box::pin(journal.settle(ticket, outcome));
    assert!(poll(settling.as_mut()).is_pending(), "nothing is durable yet");
    let error = drive(&journal, settling).unwrap_err();
    assert!(matches!(error.error, tokenwal::Error::TooLarge { .. }), "{error:?}");
    assert!(error.outcome.is_some(), "the whole pair is given back");
    drop(journal);
    let (_, report) = options().open(&path).unwrap();
    let doubts: Vec<_> = report.in_doubt.iter().map(|operation| operation.doubt).collect();
    assert_eq!(doubts, [Some(tokenwal::DoubtReason::Oversized)]);
}
