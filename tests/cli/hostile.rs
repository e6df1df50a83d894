//! Arbitrary damage to every file: never a panic, never a change, and never a silent loss: what is
//! still called sound folds to the same accounts.

use crate::stores::*;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use tokenwal::disk::RealDisk;
use tokenwal::inspect::{self, Reader, Salvage};
use tokenwal::internals::format::snapshot::{FOOTER_BYTES, Footer, SnapshotHeader};
use tokenwal::{AccountView, Error, KeyFile, Verdict};

/// Draws positions and bytes; the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.roll(256)).unwrap()
    }
}

fn accounts(path: &Path) -> Result<Vec<AccountView>, Error> {
    Reader::open(path, None)?.accounts().collect()
}

/// Looks at a store in every way there is; says whether it was called sound.
///
/// `may_lose`: the last batches were destroyed to the end, so that nothing tells them from a write
/// that was never finished; then the end must at least be called unproven.
fn look(store: &Store, expected: &[AccountView], may_lose: bool) -> bool {
    let keys = KeyFile::new(key_of(&store.path));
    let disk = RealDisk::open(&store.path).unwrap();
    let found = inspect::verify(&disk, Some(&keys), &mut |_| ());
    let bare = inspect::verify(&disk, None, &mut |_| ());
    let plan = Salvage::new(&keys).plan(Arc::new(disk));
    let shown = accounts(&store.path);
    match (&found, &shown) {
        (Ok(found), Ok(shown)) if found.verdict <= Verdict::Torn => {
            let lost = shown != expected;
            assert!(!lost || (may_lose && !found.last_batch_proven), "a silent loss: {found:?}");
            assert_eq!(plan.unwrap().losses(), []);
            assert_eq!(bare.unwrap().verdict, found.verdict);
            true
        }
        (Ok(found), Err(Error::Corrupt(_) | Error::Suspect(_))) => {
            assert!(found.verdict > Verdict::Torn && !found.problems.is_empty(), "{found:?}");
            false
        }
        // Damage that only looking at everything finds.
        (Ok(found), Ok(_)) => {
            assert!(!found.problems.is_empty(), "{found:?}");
            false
        }
        (Err(Error::NewerFormat { .. } | Error::WrongKey { .. } | Error::Key(_)), _) => false,
        (found, shown) => panic!("{found:?}, {:?}", shown.as_ref().map(Vec::len)),
    }
}

#[test]
fn no_damage_to_any_file_goes_unnoticed_or_brings_anything_down() {
    let store = Store::compacted(30);
    let expected = accounts(&store.path).unwrap();
    let seed = std::env::var("TOKENWAL_SEED").map_or(7, |seed| seed.parse().unwrap());
    let mut dice = Dice(seed);
    let (mut sound, mut unsound) = (0, 0);
    let lock = store.path.join("LOCK");
    for file in store.segments().into_iter().chain(store.snapshots()).chain([lock]) {
        let good = std::fs::read(&file).unwrap();
        let used = good.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        for _ in 0..40 {
            let mut bytes = good.clone();
            match dice.roll(5) {
                0 => bytes.truncate(dice.roll(good.len())),
                1 => {
                    let at = dice.roll(used);
                    let to = used.min(at + 1 + dice.roll(5000));
                    bytes[at..to].fill(0);
                }
                2 => {
                    let at = dice.roll(used);
                    let to = good.len().min(at + 1 + dice.roll(200));
                    bytes[at..to].iter_mut().for_each(|byte| *byte = dice.byte());
                }
                3 => {
                    let (from, to) = (dice.roll(used), dice.roll(used));
                    let length = dice.roll(good.len() - from.max(to));
                    bytes.copy_within(from..from + length, to);
                }
                _ => bytes[dice.roll(used)] ^= 1 << dice.roll(8),
            }
            if bytes == good {
                continue;
            }
            std::fs::write(&file, &bytes).unwrap();
            let (before, last) = good.split_at(batches(&good).last().copied().unwrap_or(0));
            let may_lose = bytes.get(..before.len()) != Some(before)
                && bytes.get(before.len()..) != Some(last);
            match look(&store, &expected, may_lose) {
                true => sound += 1,
                false => unsound += 1,
            }
        }
        std::fs::write(&file, &good).unwrap();
    }
    assert!(look(&store, &expected, false));
    println!("{unsound} kinds of damage were noticed, {sound} did no harm");
    assert!(unsound > 100 && sound > 20);
}

#[test]
fn the_command_ends_with_an_error_on_hostile_files() {
    let store = Store::compacted(10);
    let mut dice = Dice(11);
    for file in store.segments().into_iter().chain(store.snapshots()) {
        let good = std::fs::read(&file).unwrap();
        for hostile in 0..3 {
            damage(&file, |bytes| match hostile {
                0 => bytes.clear(),
                1 => bytes.iter_mut().for_each(|byte| *byte = dice.byte()),
                // A right header before noise.
                _ => bytes[4096..].iter_mut().for_each(|byte| *byte = dice.byte()),
            });
            unchanged(&store.path, || {
                for command in ["verify", "replay", "stat", "compact"] {
                    let code = tokenwal(&[command, store.path()]).code;
                    assert!(code == 3, "{command} on {}: {code}", file.display());
                }
            });
            std::fs::write(&file, &good).unwrap();
        }
    }
}

#[test]
fn a_snapshot_that_claims_a_section_longer_than_memory_is_refused() {
    let store = Store::compacted(10);
    let expected = accounts(&store.path).unwrap().len();
    let snapshot = store.snapshots().pop().unwrap();
    let bytes = std::fs::read(&snapshot).unwrap();
    let header = SnapshotHeader::parse(&bytes[..4096]).unwrap();
    let footer_at = bytes.len() - FOOTER_BYTES;
    let footer = Footer::parse(&bytes[footer_at..], &header, bytes.len() as u64).unwrap();
    // The open section goes on through zeros that take no room on the disk.
    let end = 4_u64 << 40;
    let long = Footer { end, ..footer }.encode(header.nonce);
    let file = std::fs::File::options().write(true).open(&snapshot).unwrap();
    file.set_len(footer_at as u64).unwrap();
    file.write_all_at(&long, end).unwrap();
    for command in ["verify", "replay", "stat", "compact"] {
        tokenwal(&[command, store.path()]).with(3);
    }
    let into = store.beside("saved");
    tokenwal(&["salvage", store.path(), into.to_str().unwrap()]).ok();
    let keys = KeyFile::new(key_of(&store.path));
    assert_eq!(Reader::open(&into, Some(&keys)).unwrap().accounts().count(), expected);
}
