//! What must hold of any directory: who only looks changes nothing; verifying, reading and opening
//! agree; what is salvaged is sound; what opens, serves, and opens again as it was.

use std::sync::Arc;

use tokenwal::inspect::{Reader, Salvage, Verification, verify};
use tokenwal::{AccountView, Error, Journal, Verdict};

use super::disk::{Image, LOCK, MemoryDisk};
use super::stores::{MARK, Service, finish, keys, options};
use super::world::{SimClock, SimEntropy};

/// More accounts than any store here has; a walk that goes on behind it never ends.
const ACCOUNTS_MAX: usize = 4096;

/// What looking at a directory found.
pub struct Found {
    bare: Result<Verification, Error>,
    keyed: Result<Verification, Error>,
    /// What the accounts are, by one who reads with the keys.
    reader: Result<Vec<String>, Error>,
}

/// Verifies and reads, without and with keys.
pub fn look(disk: &MemoryDisk) -> Found {
    let before = disk.image();
    let bare = watch(disk, || verify(disk, None, &mut |_| ()));
    let keyed = watch(disk, || verify(disk, Some(&keys()), &mut |_| ()));
    watch(disk, || read(disk, false)).ok();
    let reader = watch(disk, || read(disk, true));
    assert!(disk.image() == before, "looking has changed the directory");
    if let (Ok(bare), Ok(keyed)) = (&bare, &keyed) {
        assert_eq!((bare.last_lsn, bare.frames), (keyed.last_lsn, keyed.frames));
        assert!(bare.verdict <= keyed.verdict, "{bare:?}, with keys {keyed:?}");
    }
    for found in [&bare, &keyed].into_iter().flatten() {
        let worst = found.problems.iter().map(|problem| problem.verdict).max();
        let bad = found.verdict > Verdict::Torn;
        assert!(!bad || worst == Some(found.verdict), "{found:?}");
        assert!(!format!("{found:?}").contains(MARK), "a secret is shown");
    }
    Found { bare, keyed, reader }
}

/// Counts how often the disk is read meanwhile: in proportion to what is there, whatever lengths
/// the bytes claim.
fn watch<T>(disk: &MemoryDisk, look: impl FnOnce() -> T) -> T {
    disk.take_reads();
    let outcome = look();
    let bytes: usize = disk.image().values().map(|file| file.len() + 4096).sum();
    let reads = usize::try_from(disk.take_reads()).unwrap();
    assert!(reads <= 1000 + bytes / 64, "{reads} reads of {bytes} bytes");
    outcome
}

/// Reads all that a reader can be asked for.
fn read(disk: &MemoryDisk, keyed: bool) -> Result<Vec<String>, Error> {
    let keys = keys();
    let keys = keyed.then_some(&keys as &dyn tokenwal::KeySource);
    let reader = Reader::open_on(Arc::new(disk.clone()), keys, None, &mut |_| ())?;
    let views = reader.accounts().take(ACCOUNTS_MAX).collect::<Vec<_>>();
    assert!(views.len() < ACCOUNTS_MAX, "the walk never ends");
    for view in views.iter().flatten() {
        let alone = reader.account(view.account_tag);
        assert_eq!(alone.ok().flatten().as_ref(), Some(view), "the look-up and the walk disagree");
        for grant in &view.grants {
            reader.pair(view.account_tag, grant.grant).ok();
        }
    }
    let _ = (reader.operations(), reader.summary());
    for at in [reader.lsn().0 / 2, reader.lsn().0] {
        Reader::open_on(Arc::new(disk.clone()), keys, Some(tokenwal::Lsn(at)), &mut |_| ()).ok();
    }
    Ok(views.into_iter().map(told).collect())
}

fn told(view: Result<AccountView, Error>) -> String {
    let text = match view {
        Ok(view) => format!("{view:?}"),
        Err(error) => format!("{error}"),
    };
    assert!(!text.contains(MARK), "a secret is shown");
    text
}

/// Salvages; what comes of it is sound, and the rest is as it was.
pub fn salvage(disk: &MemoryDisk) {
    let (before, keys) = (disk.image(), keys());
    let salvage =
        Salvage::new(&keys).clock(Arc::new(SimClock::new())).entropy(Arc::new(SimEntropy::new(11)));
    let plan = watch(disk, || salvage.plan(Arc::new(disk.clone())));
    let into = MemoryDisk::default();
    let written = plan.map(|plan| plan.write(Arc::new(into.clone())));
    assert!(disk.image() == before, "salvaging has changed the directory");
    let Ok(written) = written else { return };
    let written = written.expect("there is room for it");
    let found = verify(&into, Some(&keys), &mut |_| ()).expect("it can be read");
    assert!(found.verdict == Verdict::Clean && found.problems.is_empty(), "{found:?}");
    assert_eq!(found.accounts, written.accounts, "{found:?} {written:?}");
    let (journal, _) = match options(&into, 12).open("/memory") {
        // It is of the host that the source says it is of.
        Err(Error::ForeignHost { .. }) => return,
        opened => opened.expect("what was salvaged opens"),
    };
    assert!(accounts(&journal).iter().all(|told| told.starts_with("AccountView")));
    work(&journal, true);
}

/// Opens, works, and opens again; says whether it opened.
pub fn serve(disk: &MemoryDisk, found: &Found) -> bool {
    let before = disk.image();
    let (journal, report) = match options(disk, 13).open("/memory") {
        Ok(opened) => opened,
        Err(error) => {
            refused(&error, found);
            assert!(same_store(&disk.image(), &before), "it was refused, and changed");
            return false;
        }
    };
    let bare = found.bare.as_ref().expect("what opens can be verified");
    let is_sound = found.keyed.as_ref().is_ok_and(|keyed| keyed.verdict <= Verdict::Torn);
    if bare.verdict <= Verdict::Torn {
        assert_eq!((bare.verdict, bare.last_lsn), (report.verdict, report.head));
    }
    if at_the_end(&before, report.head.0) {
        return true;
    }
    let seen = accounts(&journal);
    assert_eq!(found.reader.as_ref().expect("what opens can be read"), &seen);
    let head = journal.head();
    finish(&journal, journal.clone().close()).expect("this disk does not fail");
    let journal = again(disk, &seen);
    assert!(journal.head() >= head);
    work(&journal, is_sound);
    let seen = accounts(&journal);
    drop(journal);
    let journal = again(disk, &seen);
    let compacted = finish(&journal, journal.compact());
    let seen = accounts(&journal);
    finish(&journal, journal.clone().close()).expect("this disk does not fail");
    drop(again(disk, &seen));
    if is_sound {
        compacted.expect("nothing is wrong with any account");
        let after = verify(disk, Some(&keys()), &mut |_| ()).expect("it can be read");
        assert!(after.verdict <= Verdict::Torn, "{after:?}");
    }
    true
}

/// What refuses to open does not look sound to one who verifies.
fn refused(error: &Error, found: &Found) {
    let sound = |found: &Result<Verification, Error>| {
        found.as_ref().is_ok_and(|found| found.verdict <= Verdict::Torn)
    };
    let numbers = |what: &str| what == "a number is higher than any journal counts";
    match error {
        Error::Corrupt(damage) if numbers(damage.what) => {}
        Error::Corrupt(_) | Error::Suspect(_) | Error::NewerFormat { .. } => {
            assert!(!sound(&found.bare), "{error} but {:?}", found.bare);
        }
        Error::WrongKey { .. } | Error::Key(_) => {
            assert!(!sound(&found.keyed), "{error} but {:?}", found.keyed);
        }
        Error::Missing { .. } => assert!(found.bare.is_err()),
        // Who wrote last is told by a frame that has no seal.
        Error::ForeignHost { .. } => {}
        other => panic!("it is refused for {other:?}"),
    }
}

/// A journal that claims to have counted so far has no numbers left to go on with.
fn at_the_end(image: &Image, head: u64) -> bool {
    let number =
        |name: &String| name.split(['-', '.']).nth(1).and_then(|digits| digits.parse().ok());
    image.keys().filter_map(number).chain([head]).any(|number: u64| number > u64::MAX >> 9)
}

fn same_store(one: &Image, other: &Image) -> bool {
    let files = |image: &Image| {
        let files = image.iter().filter(|(name, _)| *name != LOCK);
        files.map(|(name, bytes)| (name.clone(), Arc::clone(bytes))).collect::<Vec<_>>()
    };
    files(one) == files(other)
}

fn accounts(journal: &Journal) -> Vec<String> {
    let views = journal.accounts().take(ACCOUNTS_MAX).collect::<Vec<_>>();
    assert!(views.len() < ACCOUNTS_MAX, "the walk never ends");
    for view in views.iter().flatten() {
        let alone = finish(journal, journal.account(view.account_tag));
        assert_eq!(alone.ok().flatten().as_ref(), Some(view), "the look-up and the walk disagree");
        for grant in &view.grants {
            finish(journal, journal.current_of(view.account_tag, grant.grant)).ok();
            finish(journal, journal.previous_of(view.account_tag, grant.grant)).ok();
        }
    }
    views.into_iter().map(told).collect()
}

/// Opens a store that has opened before: as it was.
fn again(disk: &MemoryDisk, seen: &[String]) -> Journal {
    let (journal, _) = options(disk, 14).open("/memory").expect("what opened once opens again");
    assert_eq!(accounts(&journal), seen, "it is not as it was");
    journal
}

/// A service begins to work: somebody new signs in, and every pair that can be refreshed is. Only
/// damage can hinder it.
fn work(journal: &Journal, is_sound: bool) {
    let views: Vec<_> = journal.accounts().filter_map(Result::ok).take(8).collect();
    let mut service = Service { journal, tokens: 1000 };
    let begun = service.exchange(Some("somebody new"));
    let begun = begun.and_then(|(account, grant)| service.refresh(account, grant));
    match begun {
        Ok(()) => {}
        Err(Error::Corrupt(_) | Error::Forged { .. }) if !is_sound => {}
        Err(error) => panic!("the service is hindered by {error:?}"),
    }
    for view in views {
        for grant in view.grants.iter().take(4) {
            service.refresh(view.account_tag, grant.grant).ok();
        }
    }
}
