//! The crash suite: histories of a service, crashed at their operation boundaries and inside
//! operations, recovered, compared with a model, gone on with, and crashed again.
//!
//! `TOKENWAL_CRASHES=N` sets how many crashes are simulated, 20,000 by default; a failure prints
//! its seed, and `TOKENWAL_SEED` runs that one history again. What is promised stands in the
//! format's "Media" and "Order of syncs"; what may go wrong is `tests/sim`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::manual_is_multiple_of,
    clippy::large_enum_variant,
    reason = "a test may"
)]

mod crashes;
mod sim;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crashes::damage::{self, Watermarks};
use crashes::exhaustive;
use crashes::explore::{self, Thoroughness};
use crashes::model::Log;
use crashes::plan::{Action, Answer};
use crashes::salvage;
use crashes::seeds::{has_faults, plan_of, run_seed};
use crashes::tally::Tally;
use crashes::world::{Opened, Setting, World};
use sim::{Cut, Fault, Op, OpKind, ReadBack, Rng, SimDisk, SimOptions, Step};
use tokenwal::Work;

const CRASHES: u64 = 20_000;
const THREADS: u64 = 2;

/// Two classes of faults, kept apart: crashes alone, and crashes of a journal whose disk also
/// fails now and then. Every promise holds in both.
#[test]
fn no_crash_loses_or_invents_anything() {
    if let Some(seed) = env("TOKENWAL_SEED") {
        let mut tally = Tally::default();
        if let Err(failure) = run_seed(seed, Step::None, &mut tally) {
            panic!("{failure}");
        }
        println!("seed {seed}: no violation\n{tally}");
        return;
    }
    let wanted = env("TOKENWAL_CRASHES").unwrap_or(CRASHES);
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let (total, failures) = (Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) && total.lock().unwrap().crashes < wanted {
                    let mut tally = Tally::default();
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if let Err(failure) = run_seed(seed, Step::None, &mut tally) {
                        failed.store(true, Ordering::Relaxed);
                        failures.lock().unwrap().push(failure);
                    }
                    total.lock().unwrap().add(tally);
                }
            });
        }
    });
    let (tally, failures) = (total.into_inner().unwrap(), failures.into_inner().unwrap());
    println!("crashes simulated: {}, violations: {}", tally.crashes, failures.len());
    println!("{tally}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(tally.verdicts.contains_key("torn") && tally.verdicts.contains_key("clean"));
    assert!(tally.verdicts.len() == 2, "no crash makes a store refuse to open");
    assert!(tally.nesting.keys().any(|depth| *depth > 3));
    assert!(["whole", "cut short", "failed"].iter().all(|what| tally.salvages[what] > 0));
}

/// Every operation boundary of every workload of up to three operations.
#[test]
fn no_short_history_has_a_bad_moment() {
    let mut tally = Tally::default();
    let workloads = exhaustive::all(&mut tally).unwrap_or_else(|failure| panic!("{failure}"));
    println!("workloads: {workloads}, crashes simulated: {}, violations: 0", tally.crashes);
    println!("{tally}");
}

/// What media have damaged is found, what can be read of it is saved, and the rest is listed.
#[test]
fn what_a_salvage_does_not_save_it_lists() {
    let mut tally = Tally::default();
    let failure = (0..80).find_map(|seed| {
        let failure = salvage::of_damaged(&plan_of(2 * seed), &mut tally).err()?;
        Some(format!("seed {}: {failure}", 2 * seed))
    });
    println!("{:?} of {:?}", tally.salvages, tally.during);
    assert_eq!(failure, None);
    assert!(tally.salvages["damaged, with losses"] > 50);
}

/// The same for a salvage's own care.
#[test]
fn each_step_of_care_of_a_salvage_is_needed() {
    for step in [Step::SegmentSync, Step::SnapshotSync, Step::DirSyncAfterSnapshot] {
        let seeds = (0..400).map(|seed| 2 * seed);
        let failure = { seeds }.find(|seed| salvage::without(step, &plan_of(*seed)).is_err());
        let seed = failure.unwrap_or_else(|| panic!("{step:?} was left out and nothing showed"));
        let whole = salvage::without(Step::None, &plan_of(seed));
        assert_eq!(whole, Ok(()), "seed {seed} fails with the step, too");
    }
}

/// Whatever is left out of the journal's care makes a history fail: so each step is needed, and
/// the suite would notice its loss.
#[test]
fn each_step_of_care_is_needed() {
    for step in Step::ALL {
        let mut tally = Tally::default();
        // What only a failing disk asks for is looked for where disks fail.
        let faulty = matches!(step, Step::Rewrite | Step::RewriteOfSealed);
        let seeds = (0..5000).filter(|seed| !faulty || has_faults(*seed));
        let thorough = match step {
            Step::Rewrite | Step::RewriteOfSealed | Step::DirSyncBeforeServing => {
                Thoroughness::RECOVERIES
            }
            _ => Thoroughness::USUAL,
        };
        let failure = { seeds }.find_map(|seed| {
            let failure = explore::run(&plan_of(seed), step, thorough, &mut tally).err()?;
            Some((seed, failure))
        });
        let (seed, failure) = failure.unwrap_or_else(|| {
            panic!("{step:?} was left out and {} crashes showed nothing", tally.crashes)
        });
        let whole = explore::run(&plan_of(seed), Step::None, thorough, &mut Tally::default());
        assert_eq!(whole, Ok(()), "seed {seed} fails with the step, too");
        let first = failure.lines().next().unwrap_or_default();
        println!("without {step:?}, after {} crashes: {first}", tally.crashes);
    }
}

/// The order of events that is easiest to get wrong: the sync of a batch fails, and what it was
/// to make durable is called clean; the process ends; the next one finds the batch in the cache,
/// and serves it; the power fails. It may not be gone then.
#[test]
fn sync_eio_process_death_recovery_power_cut() {
    let run = |seed: u64, skip: Step| -> Result<(), String> {
        let setting = Setting::new(seed, 17, skip);
        let mut world = opened(SimDisk::new(seed), &setting, Log::default())?;
        world.act(Action::Exchange { user: Some(0), holder: None })?;
        world.act(Action::Drain)?;
        world.act(Action::Adopt { pick: 0, holder: 0 })?;
        let answer = Answer::Issued { refresh: true, bytes: 0, user: None };
        world.act(Action::Settle { pick: 0, answer })?;
        let known = world.log.clone();
        let batch = |op: &Op| op.kind == OpKind::Sync && op.name.ends_with(".twj");
        world.disk.fail(batch, Fault::LostSync(ReadBack::New), 1);
        world.journal().step(Work::Commit).expect_err("the sync fails");
        let world = opened(world.disk.process_death(), &setting, known)?;
        assert_eq!(world.log.floor(), 2, "what is in the cache is served");
        let disk = world.disk.power_cut_by(Cut::Nothing, &mut Rng::new(seed));
        opened(disk, &setting, world.log.clone()).map(drop)
    };
    for seed in 0..20 {
        assert_eq!(run(seed, Step::None), Ok(()));
    }
    let lost = (0..20).filter(|seed| run(*seed, Step::Rewrite).is_err()).count();
    assert!(lost > 10, "only the rewriting makes it durable, and {lost} of 20 times it mattered");
}

/// Damage to what was acknowledged is told, or harmless; and without the watermark that tells
/// damage from a torn write some of it would pass for one.
#[test]
fn no_damage_is_taken_for_a_torn_write() {
    let run = |watermarks: Watermarks| {
        let mut tally = Tally::default();
        let failure = (0..400).find_map(|seed| {
            let failure = damage::run(&plan_of(2 * seed), watermarks, &mut tally).err()?;
            Some(format!("seed {}: {failure}", 2 * seed))
        });
        println!("{watermarks:?}: {:?} of {:?}", tally.verdicts, tally.during);
        failure
    };
    assert_eq!(run(Watermarks::Kept), None);
    assert!(run(Watermarks::DurableThroughTakenAway).is_some(), "the watermark is not needed");
}

/// On a full disk nothing is begun that could not be ended.
#[test]
fn a_full_disk_takes_every_outcome_that_was_begun() {
    for segments in 2..6 {
        let setting = Setting::new(6, 17, Step::None);
        let capacity = segments * 17 * 4096 + 4096;
        let disk = SimDisk::with(6, SimOptions { capacity, ..SimOptions::default() });
        let mut world = opened(disk, &setting, Log::default()).unwrap();
        world.faulty = true;
        while world.refused_for_room == 0 {
            world.act(Action::Exchange { user: Some(0), holder: None }).unwrap();
            world.act(Action::Drain).unwrap();
        }
        let begun = world.begun();
        assert!(begun > 0);
        for _ in 0..begun {
            let answer = Answer::Issued { refresh: true, bytes: 1400, user: None };
            world.act(Action::Settle { pick: 0, answer }).unwrap();
            world.act(Action::Drain).unwrap();
        }
        world.check().unwrap();
        assert_eq!(world.log.floor(), 2 * begun, "all are acknowledged");
        assert!(world.journal().poison().is_none());
        let disk = world.disk.power_cut_by(Cut::Nothing, &mut Rng::new(6));
        // The disk has to be given room for recovery's segment, and then all is there.
        disk.set_capacity(capacity + 20 * 4096);
        opened(disk, &setting, world.log.clone()).unwrap();
    }
}

fn opened(disk: SimDisk, setting: &Setting, log: Log) -> Result<World, String> {
    match World::open(disk, setting.clone(), log)? {
        Opened::World(world) => Ok(*world),
        Opened::Crashed(_) | Opened::Failed(_) => Err("a sound machine failed".to_owned()),
    }
}

fn env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}
