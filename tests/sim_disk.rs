//! The simulated disk itself: every class of fault occurs, and what was synced never vanishes.
//!
//! A crash suite is worth no more than the disk under it, so this file looks for each thing that
//! journal-format.md, "Media", says may happen, and checks that nothing else does.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may")]

mod sim;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::{
    Cut, EIO, ENOSPC, Fault, Moment, OpKind, ReadBack, Rng, SimDisk, SimOptions, Step, Weakened,
    is_crash,
};
use tokenwal::disk::{Access, Disk, DiskFile};
use tokenwal::internals::format::record::Kind;

const SEEDS: u64 = 400;

fn read(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    disk.files().get(name).map(|bytes| bytes.to_vec())
}

/// Makes a durable file of these bytes.
fn durable(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.create(name).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir().unwrap();
    file
}

/// Runs a history under many seeds, cuts the power, and gives all states that were found.
fn states<T: Ord>(history: impl Fn(&SimDisk), look: impl Fn(&SimDisk) -> T) -> BTreeSet<T> {
    let state = |seed| {
        let disk = SimDisk::new(seed);
        history(&disk);
        look(&disk.power_cut(&mut Rng::new(seed)))
    };
    (0..SEEDS).map(state).collect()
}

#[test]
fn what_was_synced_survives_every_cut() {
    let found = states(
        |disk| {
            let file = durable(disk, "a", &[1; 5000]);
            file.write_at(100, &[2; 3000]).unwrap();
            file.sync().unwrap();
            durable(disk, "b.tmp", b"b");
            disk.rename("b.tmp", "b").unwrap();
            durable(disk, "c", b"c");
            disk.remove("c").unwrap();
            disk.sync_dir().unwrap();
        },
        |disk| (read(disk, "a"), read(disk, "b"), disk.list().unwrap().len()),
    );
    let mut a = vec![1; 5000];
    a[100..3100].fill(2);
    assert_eq!(found, BTreeSet::from([(Some(a), Some(b"b".to_vec()), 2)]));
}

#[test]
fn unsynced_writes_survive_in_any_subset_torn_and_out_of_order() {
    let found = states(
        |disk| {
            let file = durable(disk, "a", &[0; 3 * 4096]);
            for (at, value) in [(0, 1), (4096, 2), (8192, 3)] {
                file.write_at(at, &[value; 4096]).unwrap();
            }
        },
        |disk| read(disk, "a").unwrap(),
    );
    let whole = |bytes: &[u8], value: u8| bytes.iter().all(|byte| *byte == value);
    let blocks = |state: &[u8]| -> Vec<Option<bool>> {
        let one = |(block, value): (&[u8], u8)| match () {
            () if whole(block, value) => Some(true),
            () if whole(block, 0) => Some(false),
            () => None,
        };
        state.chunks(4096).zip(1..).map(one).collect()
    };
    let patterns: BTreeSet<_> = found.iter().map(|state| blocks(state)).collect();
    for bits in 0..8 {
        let subset: Vec<_> = (0..3).map(|bit| Some(bits >> bit & 1 == 1)).collect();
        assert!(patterns.contains(&subset), "{subset:?} was never seen");
    }
    // Sectors of 512 bytes survive on their own, and some break in their middle.
    let sectors = |state: &Vec<u8>| {
        let mixed = |block: &[u8]| {
            block.chunks(512).all(|sector| whole(sector, sector[0])) && !whole(block, block[0])
        };
        state.chunks(4096).any(mixed)
    };
    let torn = |state: &Vec<u8>| state.chunks(512).any(|sector| !whole(sector, sector[0]));
    assert!(found.iter().any(sectors));
    assert!(found.iter().filter(|state| torn(state)).count() > 20);
    // Nothing appears that was never written there.
    assert!(found.iter().all(|state| {
        state
            .chunks(4096)
            .zip(1..)
            .all(|(block, value)| block.iter().all(|byte| *byte == 0 || *byte == value))
    }));
}

#[test]
fn length_and_data_survive_apart() {
    let found = states(
        |disk| {
            durable(disk, "old", &[7; 2048]);
            disk.remove("old").unwrap();
            disk.sync_dir().unwrap();
            let file = durable(disk, "a", &[1; 512]);
            file.write_at(512, &[2; 1024]).unwrap();
        },
        |disk| read(disk, "a").unwrap(),
    );
    let tails: BTreeSet<&[u8]> = found
        .iter()
        .map(|state| {
            assert_eq!(state[..512], [1; 512]);
            &state[512..]
        })
        .collect();
    assert!(tails.contains(&[2; 1024][..]), "both");
    assert!(tails.contains(&[][..]), "neither, or the data without its length");
    assert!(tails.contains(&[0; 1024][..]), "the length with zeros");
    assert!(tails.contains(&[7; 1024][..]), "the length with stale bytes");
    let random = |tail: &&[u8]| tail.iter().collect::<BTreeSet<_>>().len() > 50;
    assert!(tails.iter().any(random), "the length with any bytes");
    assert!(tails.iter().all(|tail| [0, 1024].contains(&tail.len())));
}

#[test]
fn directory_changes_survive_in_any_subset() {
    let found = states(
        |disk| {
            durable(disk, "gone", b"gone");
            durable(disk, "from", b"from");
            disk.create("new").unwrap();
            disk.rename("from", "to").unwrap();
            disk.remove("gone").unwrap();
        },
        |disk| ["new", "from", "to", "gone"].map(|name| read(disk, name).is_some()),
    );
    for bits in 0..8 {
        let [new, renamed, removed] = [1, 2, 4].map(|bit| bits & bit != 0);
        assert!(found.contains(&[new, !renamed, renamed, !removed]), "{bits}");
    }
    assert!(found.iter().any(|[_, from, to, _]| *from && *to), "old and new name at once");
    assert!(found.iter().all(|[_, from, to, _]| *from || *to), "never neither");
}

#[test]
fn a_synced_file_without_a_synced_name_can_vanish() {
    let found = states(
        |disk| {
            let file = disk.create("a").unwrap();
            file.write_at(0, b"a").unwrap();
            file.sync().unwrap();
        },
        |disk| read(disk, "a"),
    );
    assert_eq!(found, BTreeSet::from([None, Some(b"a".to_vec())]));
}

#[test]
fn a_replaced_file_comes_back_if_the_rename_is_lost() {
    let found = states(
        |disk| {
            durable(disk, "a", b"old");
            durable(disk, "a.tmp", b"new");
            disk.rename("a.tmp", "a").unwrap();
        },
        |disk| read(disk, "a"),
    );
    assert_eq!(found, BTreeSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())]));
}

#[test]
fn a_later_history_can_survive_an_earlier_one() {
    let lost_then_kept = |cut: Cut| {
        let disk = SimDisk::new(1);
        let file = durable(&disk, "a", &[0; 1024]);
        file.write_at(0, &[1; 512]).unwrap();
        let moment = disk.operations();
        file.write_at(512, &[2; 512]).unwrap();
        assert_eq!(disk.pending(), 2);
        let cut = if cut == Cut::From(0) { Cut::From(moment) } else { cut };
        read(&disk.power_cut_by(cut, &mut Rng::new(1)), "a").unwrap()
    };
    assert_eq!(lost_then_kept(Cut::From(0)), [vec![0; 512], vec![2; 512]].concat());
    assert_eq!(lost_then_kept(Cut::Nothing), vec![0; 1024]);
    assert_eq!(lost_then_kept(Cut::Everything), [vec![1; 512], vec![2; 512]].concat());
}

#[test]
fn a_failed_sync_calls_pages_clean_and_a_later_one_lies() {
    for read_back in [ReadBack::New, ReadBack::Old] {
        let mut lost = 0;
        for seed in 0..SEEDS {
            let disk = SimDisk::new(seed);
            let file = durable(&disk, "a", &[0; 4096]);
            file.write_at(0, &[1; 4096]).unwrap();
            disk.fail(|op| op.kind == OpKind::Sync, Fault::LostSync(read_back), 1);
            assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(EIO));
            let seen = read(&disk, "a").unwrap();
            if read_back == ReadBack::New {
                assert_eq!(seen, [1; 4096]);
            }
            file.sync().expect("reported once");
            let after = read(&disk.power_cut(&mut Rng::new(seed)), "a").unwrap();
            lost += u64::from(after != [1; 4096]);
            if read_back == ReadBack::Old {
                assert_eq!(seen, after, "the old bytes are those of the medium");
            }
        }
        assert!(lost > SEEDS / 2, "{read_back:?}: {lost}");
    }
}

#[test]
fn a_failed_writeback_is_reported_on_the_next_sync_or_forgotten_with_the_process() {
    let late = |seed| {
        let disk = SimDisk::new(seed);
        let file = durable(&disk, "a", &[0; 512]);
        disk.fail(|op| op.kind == OpKind::Write, Fault::LostLater(ReadBack::New), 1);
        file.write_at(0, &[1; 512]).expect("the cache took it");
        (disk, file)
    };
    let (_, file) = late(1);
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(EIO));
    file.sync().expect("told once");
    let next = |seed| {
        let disk = late(seed).0.process_death();
        disk.open("a", Access::Write).unwrap().sync().is_ok()
    };
    assert_eq!((0..20).map(next).collect::<BTreeSet<_>>().len(), 2);
}

/// The order of events that FAULTS names: a failed sync, the end of the process, recovery, and
/// then the power. Only writing the same bytes again makes them durable.
#[test]
fn sync_eio_process_death_recovery_power_cut() {
    let survives = |seed: u64, rewrite: bool| {
        let disk = SimDisk::new(seed);
        let file = durable(&disk, "a", &[0; 4096]);
        file.write_at(0, &[1; 4096]).unwrap();
        disk.fail(|op| op.kind == OpKind::Sync, Fault::LostSync(ReadBack::New), 1);
        file.sync().unwrap_err();
        let disk = disk.process_death();
        let file = disk.open("a", Access::Write).unwrap();
        let mut bytes = vec![0; 4096];
        file.read_at(0, &mut bytes).unwrap();
        assert_eq!(bytes, [1; 4096], "recovery sees it");
        if rewrite {
            file.write_at(0, &bytes).unwrap();
        }
        file.sync().unwrap();
        disk.sync_dir().unwrap();
        read(&disk.power_cut(&mut Rng::new(seed)), "a").unwrap() == [1; 4096]
    };
    assert!((0..SEEDS).all(|seed| survives(seed, true)));
    assert!((0..SEEDS).filter(|seed| !survives(*seed, false)).count() > 200);
}

#[test]
fn process_death_keeps_the_cache_and_the_power_cut_after_it_does_not() {
    let disk = SimDisk::new(3);
    let file = durable(&disk, "a", &[0; 512]);
    file.write_at(0, &[1; 512]).unwrap();
    disk.create("b").unwrap();
    let next = disk.process_death();
    assert_eq!(read(&next, "a").unwrap(), [1; 512]);
    assert!(read(&next, "b").is_some());
    assert!(is_crash(&file.sync().unwrap_err()), "the dead write no more");
    assert!(is_crash(&disk.create("c").unwrap_err()));
    assert!(is_crash(&disk.list().unwrap_err()));
    let last = next.power_cut_by(Cut::Nothing, &mut Rng::new(3));
    assert_eq!(read(&last, "a").unwrap(), [0; 512]);
    assert!(read(&last, "b").is_none());
}

#[test]
fn a_failed_directory_sync_leaves_the_names_pending() {
    let history = |disk: &SimDisk| {
        disk.create("a").unwrap();
        disk.fail(|op| op.kind == OpKind::SyncDir, Fault::Error(EIO), 1);
        disk.sync_dir().unwrap_err();
        assert!(read(disk, "a").is_some());
    };
    assert_eq!(states(history, |disk| read(disk, "a").is_some()).len(), 2);
    let disk = SimDisk::new(1);
    history(&disk);
    disk.sync_dir().unwrap();
    assert!(read(&disk.power_cut_by(Cut::Nothing, &mut Rng::new(1)), "a").is_some());
}

#[test]
fn every_operation_can_fail() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", b"a");
    let run = |kind: OpKind| -> io::Result<()> {
        match kind {
            OpKind::List => disk.list().map(drop),
            OpKind::Open => disk.open("a", Access::Read).map(drop),
            OpKind::Read => file.read_at(0, &mut [0]).map(drop),
            OpKind::Create => disk.create("new").map(drop),
            OpKind::Rename => disk.rename("a", "b"),
            OpKind::Remove => disk.remove("a"),
            OpKind::SyncDir => disk.sync_dir(),
            OpKind::Lock => disk.try_lock().map(drop),
            OpKind::Note => disk.try_lock()?.unwrap().write_note(b"note"),
            OpKind::Write => file.write_at(0, b"b"),
            OpKind::Sync => file.sync(),
            OpKind::DirectWrite => unreachable!("tried with the direct files"),
        }
    };
    for kind in [
        OpKind::List,
        OpKind::Open,
        OpKind::Read,
        OpKind::Create,
        OpKind::Rename,
        OpKind::Remove,
        OpKind::SyncDir,
        OpKind::Lock,
        OpKind::Note,
        OpKind::Write,
        OpKind::Sync,
    ] {
        disk.fail(move |op| op.kind == kind, Fault::Error(EIO), 1);
        assert_eq!(run(kind).unwrap_err().raw_os_error(), Some(EIO), "{kind:?}");
        assert_eq!(read(&disk, "a").unwrap(), b"a", "{kind:?}");
    }
}

#[test]
fn a_full_disk_takes_a_part() {
    let options = SimOptions { capacity: 1000, ..SimOptions::default() };
    let disk = SimDisk::with(1, options);
    let file = disk.create("a").unwrap();
    file.write_at(0, &[1; 600]).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 400);
    let error = file.write_at(600, &[2; 600]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(ENOSPC));
    assert_eq!(file.len().unwrap(), 1000);
    file.write_at(0, &[3; 1000]).expect("writing in place takes no space");
    disk.remove("a").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 1000);

    let part = |seed| {
        let disk = SimDisk::new(seed);
        let file = disk.create("a").unwrap();
        disk.fail(|op| op.kind == OpKind::Write, Fault::Short(ENOSPC), 1);
        assert_eq!(file.write_at(0, &[1; 100]).unwrap_err().raw_os_error(), Some(ENOSPC));
        file.len().unwrap()
    };
    assert!((0..50).map(part).collect::<BTreeSet<_>>().len() > 20);
}

#[test]
fn direct_writes_are_durable_when_they_return_and_torn_when_they_do_not() {
    let direct = |seed| {
        let disk = SimDisk::with(seed, SimOptions { direct: true, ..SimOptions::default() });
        durable(&disk, "a", &[0; 8192]);
        let file = disk.open("a", Access::Direct).unwrap();
        assert!(file.writes_are_durable());
        file.write_at(512, &[1; 1024]).unwrap();
        file.write_at(1, &[1; 512]).unwrap_err();
        (disk, file)
    };
    let mut states = BTreeSet::new();
    for seed in 0..SEEDS {
        let (disk, file) = direct(seed);
        disk.crash_at(0, Moment::Inside);
        assert!(is_crash(&file.write_at(4096, &[2; 4096]).unwrap_err()));
        assert!(disk.pending() > 0, "what was in flight counts");
        let disk =
            if seed % 2 == 0 { disk.process_death() } else { disk.power_cut(&mut Rng::new(seed)) };
        let state = read(&disk, "a").unwrap();
        assert_eq!(state[512..1536], [1; 1024]);
        assert!(state[..512].iter().chain(&state[1536..4096]).all(|byte| *byte == 0));
        assert!(state[4096..].iter().all(|byte| [0, 2].contains(byte)));
        states.insert(state[4096..].to_vec());
    }
    assert!(states.contains(&vec![0; 4096]) && states.contains(&vec![2; 4096]));
    assert!(states.len() > 50);
    assert!(!SimDisk::new(1).create("a").unwrap().writes_are_durable());
}

#[test]
fn the_process_ends_at_the_operation_that_was_named() {
    let run = |disk: &SimDisk| -> io::Result<()> {
        let file = disk.create("a")?;
        file.write_at(0, &[1; 100])?;
        file.sync()?;
        disk.rename("a", "b")?;
        disk.sync_dir()
    };
    let whole = SimDisk::new(1);
    run(&whole).unwrap();
    assert_eq!(whole.operations(), 5);
    for at in 0..5 {
        for moment in [Moment::Before, Moment::Inside, Moment::After] {
            let disk = SimDisk::new(1);
            disk.crash_at(at, moment);
            assert!(is_crash(&run(&disk).unwrap_err()));
            assert!(disk.has_crashed());
            assert!(is_crash(&disk.list().unwrap_err()));
            let done = disk.operations();
            assert_eq!(done, at + u64::from(moment != Moment::Before));
            let next = disk.process_death();
            assert!(!next.has_crashed() && disk.has_crashed());
            let names = next.list().unwrap();
            match (at, moment) {
                (0, Moment::Before) => assert!(names.is_empty()),
                (0, Moment::After) | (1..3, _) | (3, Moment::Before) => assert_eq!(names, ["a"]),
                (3, Moment::After) | (4, _) => assert_eq!(names, ["b"]),
                _ => assert!(names.len() <= 1),
            }
        }
    }
    let disk = SimDisk::new(1);
    disk.crash_at(5, Moment::Before);
    run(&disk).expect("not reached");
}

#[test]
fn the_lock_goes_with_its_process_and_not_with_its_memory() {
    let disk = SimDisk::new(1);
    let lock = disk.try_lock().unwrap().unwrap();
    lock.write_note(b"pid 1").unwrap();
    assert!(disk.clone().try_lock().unwrap().is_none());
    assert_eq!(disk.lock_note().unwrap(), b"pid 1");
    let next = disk.process_death();
    let second = next.try_lock().unwrap().expect("the owner is dead");
    drop(lock);
    assert!(next.try_lock().unwrap().is_none(), "what the dead drop lets nobody in");
    drop(second);
    assert!(next.try_lock().unwrap().is_some());
    assert_eq!(next.list().unwrap(), ["LOCK"]);
}

/// Does random things, with a crash and faults now and then, and returns what came of it.
fn random_history(seed: u64, steps: u64, direct: bool) -> (SimDisk, Vec<String>) {
    let disk = SimDisk::with(seed, SimOptions { direct, ..SimOptions::default() });
    let mut rng = Rng::new(seed);
    let mut open: BTreeMap<String, Arc<dyn DiskFile>> = BTreeMap::new();
    let mut outcomes = Vec::new();
    for _ in 0..steps {
        let name = rng.pick(&["a", "b", "c"]).to_string();
        let result = match rng.below(12) {
            0 => disk.create(&name).map(|file| drop(open.insert(name, file))),
            1 => {
                let to = rng.pick(&["a", "b", "c"]).to_string();
                disk.rename(&name, &to).map(|()| {
                    if let Some(file) = open.remove(&name) {
                        open.insert(to, file);
                    }
                })
            }
            2 if rng.chance(40) => disk.remove(&name).map(|()| drop(open.remove(&name))),
            3 => disk.sync_dir(),
            4 => disk.open(&name, Access::Direct).map(|file| drop(open.insert(name, file))),
            5..=8 => match open.get(&name) {
                Some(file) => {
                    let mut bytes = vec![0; 512 * (1 + rng.index(12))];
                    bytes.fill(u8::try_from(1 + rng.below(250)).unwrap());
                    file.write_at(512 * rng.below(16), &bytes)
                }
                None => Ok(()),
            },
            9 | 10 => open.get(&name).map_or(Ok(()), |file| file.sync()),
            _ => disk.list().map(|names| outcomes.push(names.join(" "))),
        };
        outcomes.push(format!("{result:?}"));
    }
    (disk, outcomes)
}

#[test]
fn one_seed_gives_one_history() {
    let mut digests = BTreeSet::new();
    for seed in 0..50 {
        let (one, outcome) = random_history(seed, 60, seed % 2 == 0);
        let (other, again) = random_history(seed, 60, seed % 2 == 0);
        assert_eq!(one.trace(), other.trace());
        assert_eq!(outcome, again);
        let copy = one.copy();
        let cut = |disk: &SimDisk| disk.power_cut(&mut Rng::new(seed)).digest();
        let digest = cut(&one);
        assert_eq!(digest, cut(&other));
        assert_eq!(digest, cut(&copy), "a copy goes the same way");
        digests.insert(digest);
    }
    assert!(digests.len() > 40);
}

#[test]
fn a_copy_goes_its_own_way() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", b"a");
    let copy = disk.copy();
    file.write_at(0, b"b").unwrap();
    assert_eq!(read(&copy, "a").unwrap(), b"a");
    assert_ne!(copy.digest(), disk.digest());
    copy.open("a", Access::Write).unwrap().write_at(0, b"b").unwrap();
    assert_eq!(copy.digest(), disk.digest());
    disk.rename("a", "b").unwrap();
    assert_ne!(copy.digest(), disk.digest(), "names count");
}

#[test]
fn boundaries_are_the_machine_before_each_operation() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", b"a");
    disk.keep_boundaries(true);
    file.write_at(0, b"b").unwrap();
    disk.rename("a", "b").unwrap();
    disk.list().unwrap();
    let boundaries = disk.take_boundaries();
    let look = |disk: &SimDisk| (read(disk, "a"), read(disk, "b"));
    assert_eq!(
        boundaries.iter().map(look).collect::<Vec<_>>(),
        [(Some(b"a".to_vec()), None), (Some(b"b".to_vec()), None)]
    );
    assert_eq!(look(&boundaries[0].process_death()), (Some(b"a".to_vec()), None));
    assert!(disk.take_boundaries().is_empty() && !disk.has_crashed());
}

/// A byte after a cut is one that stood there since the last sync, a file has a length that it
/// had since, and a name stands for what it stood for since. The model is kept apart from the
/// simulation on purpose: by byte, and by following the same calls.
#[test]
fn nothing_but_legal_states_come_back() {
    for seed in 0..300 {
        let disk = SimDisk::new(seed);
        let mut rng = Rng::new(seed);
        let file = durable(&disk, "a", &[0; 2048]);
        let mut legal: Vec<BTreeSet<u8>> = vec![BTreeSet::from([0]); 2048];
        let mut cached = vec![0; 2048];
        let (mut durable_len, mut lengths) = (2048, BTreeSet::from([2048]));
        for _ in 0..rng.below(12) {
            if rng.chance(25) {
                file.sync().unwrap();
                legal = cached.iter().map(|byte| BTreeSet::from([*byte])).collect();
                durable_len = cached.len();
                lengths = BTreeSet::from([durable_len]);
                continue;
            }
            let at = rng.index(6000);
            let value = u8::try_from(1 + rng.below(250)).unwrap();
            let bytes = vec![value; 1 + rng.index(3000)];
            file.write_at(u64::try_from(at).unwrap(), &bytes).unwrap();
            let end = at + bytes.len();
            if cached.len() < end {
                cached.resize(end, 0);
                legal.resize(end, BTreeSet::new());
                lengths.insert(end);
            }
            for at in at..end {
                cached[at] = value;
                legal[at].insert(value);
            }
        }
        assert_eq!(read(&disk, "a").unwrap(), cached);
        let state = read(&disk.power_cut(&mut rng), "a").unwrap();
        assert!(lengths.contains(&state.len()), "seed {seed}");
        for (at, byte) in state.iter().enumerate().take(durable_len) {
            assert!(legal[at].contains(byte), "seed {seed}: {byte} at {at}");
        }
    }
}

#[test]
fn every_step_that_is_left_out_can_be_seen() {
    /// A batch with one record, as far as it takes to tell of which kind that is.
    fn batch(kind: Kind) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[4..8].copy_from_slice(b"JWTB");
        bytes[8..12].copy_from_slice(&104_u32.to_le_bytes());
        bytes[72..76].copy_from_slice(&32_u32.to_le_bytes());
        bytes[76..78].copy_from_slice(&kind.number().to_le_bytes());
        bytes
    }
    /// Does what a journal does: prepares a segment, appends, snapshots, cleans up, recovers.
    fn journal(disk: &dyn Disk, direct: bool) -> io::Result<()> {
        let new = |name: &str, bytes: &[u8]| -> io::Result<()> {
            let temporary = format!("{name}.tmp");
            let file = disk.create(&temporary)?;
            file.write_at(0, bytes)?;
            file.sync()?;
            disk.rename(&temporary, name)?;
            disk.sync_dir()
        };
        disk.sync_dir()?;
        new("segment-1.twj", &[0; 4096])?;
        let access = if direct { Access::Direct } else { Access::Write };
        let segment = disk.open("segment-1.twj", access)?;
        let write = |offset, bytes: &[u8]| -> io::Result<()> {
            segment.write_at(offset, bytes)?;
            if segment.writes_are_durable() { Ok(()) } else { segment.sync() }
        };
        write(0, &[1; 512])?;
        write(0, &[1; 512])?;
        write(512, &batch(Kind::Marker))?;
        write(1024, &batch(Kind::Sealed))?;
        write(1024, &batch(Kind::Sealed))?;
        new("snapshot-1.tws", &[2; 512])?;
        disk.remove("snapshot-1.tws")?;
        disk.sync_dir()
    }
    for direct in [false, true] {
        for step in [Step::None].into_iter().chain(Step::ALL) {
            let options = SimOptions { direct, ..SimOptions::default() };
            let disk = SimDisk::with(1, options);
            let skipped = Arc::new(AtomicU64::new(0));
            let weakened = Weakened::over(Arc::new(disk.clone()), step, skipped.clone());
            journal(&*weakened, direct).unwrap();
            let skipped = skipped.load(Ordering::Relaxed);
            match step {
                Step::None => assert_eq!(skipped, 0),
                // Where writes are direct no sync follows the rewriting.
                Step::RewriteSync if direct => assert_eq!(skipped, 0),
                _ => assert!(skipped > 0, "{step:?}"),
            }
            let after = disk.power_cut_by(Cut::Nothing, &mut Rng::new(1));
            let segment = read(&after, "segment-1.twj");
            let sound = segment.is_some_and(|bytes| bytes[..512] == [1; 512]);
            // Syncs that come later make good for the others, once they come.
            assert_eq!(sound, step != Step::BatchSync, "{step:?}");
            assert_eq!(
                read(&after, "snapshot-1.tws").is_some(),
                step == Step::DirSyncAfterRetiring,
                "{step:?}"
            );
        }
    }
}
