//! Damage that no crash explains: flipped bits, lost and misdirected sectors, files that are gone,
//! cut short, swapped or doubled.
//!
//! A store that is damaged where something was acknowledged either says so, loudly and changing
//! nothing, or gives all of it back. There is one exception, and it is announced: where no marker
//! proves it, the very last batch can look like a write that was torn.

use std::collections::BTreeSet;

use tokenwal::{Error, Lsn};

use super::model::Log;
use super::plan::{Action, Plan};
use super::tally::Tally;
use super::view;
use super::world::{Opened, Setting, World, chain};
use crate::sim::{Cut, Rng, SimDisk, SimOptions, Step};

/// How a store is changed before it is damaged, to prove that what is taken away is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watermarks {
    Kept,
    /// Every batch says that nothing before it was durable.
    DurableThroughTakenAway,
}

/// A store that is sound, and what is known of it.
pub struct Sound {
    pub disk: SimDisk,
    pub setting: Setting,
    pub log: Log,
    /// So many records stand before the last batch.
    pub before_last_batch: usize,
    head: Lsn,
    pub rng: Rng,
}

/// Builds a store by a plan.
pub fn build(plan: &Plan) -> Result<Sound, String> {
    let mut rng = Rng::new(plan.luck);
    let setting = Setting::new(rng.next(), plan.segment_blocks, Step::None);
    let options = SimOptions { direct: plan.direct, ..SimOptions::default() };
    let disk = SimDisk::with(rng.next(), options);
    let Opened::World(mut world) = World::open(disk, setting.clone(), Default::default())? else {
        return Err("nothing was there to damage".to_owned());
    };
    let crash_free = |action: &&Action| !matches!(action, Action::Fail { .. });
    for action in plan.actions.iter().filter(crash_free) {
        world.act(*action)?;
    }
    if rng.chance(50) {
        world.act(Action::Drain)?;
    }
    let (log, before_last_batch) = (world.log.clone(), world.log_before_last_batch());
    let head = world.journal().head();
    let disk = world.disk.copy().power_cut_by(Cut::Everything, &mut rng);
    Ok(Sound { disk, setting, log, before_last_batch, head, rng })
}

/// Builds a store by a plan, damages it in several ways, and opens each result.
pub fn run(plan: &Plan, watermarks: Watermarks, tally: &mut Tally) -> Result<(), String> {
    tally.histories += 1;
    let Sound { disk: sound, setting, log, before_last_batch: proven, head, mut rng } =
        build(plan)?;
    if watermarks == Watermarks::DurableThroughTakenAway {
        take_durable_through_away(&sound);
    }
    for _ in 0..12 {
        let disk = sound.copy();
        let what = damage(&disk, ALL, &mut rng);
        let before = disk.digest();
        tally.during.entry(what.0).and_modify(|count| *count += 1).or_insert(1);
        let told = |failure: String| format!("{failure}\n  after {what:?}");
        // That the newest file is gone as a whole nothing in the store can tell: it is an old copy
        // then, and what the service knows of the head finds it out.
        let options = match what.0 {
            "a file that is gone" => setting.options(&disk).expected_head(head),
            _ => setting.options(&disk),
        };
        let (journal, report) = match options.open("/simulated") {
            Ok(opened) => opened,
            Err(error) => {
                expect_loud(&error).map_err(told)?;
                if disk.digest() != before {
                    return Err(told(format!("refused, and changed: {}", chain(&error))));
                }
                tally.verdict("refused");
                continue;
            }
        };
        tally.verdict(&format!("{:?}", report.verdict).to_lowercase());
        let seen = match view::of_journal(&journal) {
            Ok(seen) => seen,
            Err(error) => {
                expect_loud(&error).map_err(told)?;
                tally.verdict("refused an account");
                continue;
            }
        };
        // Without a proof of the last batch, and saying so, that batch may be missing.
        let least = if report.last_batch_proven { log.floor() } else { proven.min(log.floor()) };
        log.shows(&seen, least).map_err(told)?;
    }
    Ok(())
}

/// Only words that send somebody to look are loud enough.
pub fn expect_loud(error: &Error) -> Result<(), String> {
    match error {
        Error::Corrupt(_)
        | Error::Suspect(_)
        | Error::NewerFormat { .. }
        | Error::Missing { .. }
        | Error::WrongKey { .. }
        | Error::BehindHead { .. }
        | Error::Forged { .. } => Ok(()),
        other => Err(format!("damage is called: {}", chain(other))),
    }
}

/// So many of the things that media do concern one sector alone.
pub const SECTORS: u64 = 6;
const ALL: u64 = 10;

/// Does one of the first `kinds` things that media do, and names it.
pub fn damage(disk: &SimDisk, kinds: u64, rng: &mut Rng) -> (&'static str, String, usize) {
    let files = disk.files();
    let counts = |name: &&String| *name != "LOCK" && !name.ends_with(".tmp");
    let names: Vec<_> = files.keys().filter(counts).cloned().collect();
    let name = rng.pick(&names).clone();
    let bytes = files[&name].clone();
    // Where something stands; the zeros behind it are of no interest most of the time.
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let at = if rng.chance(90) { rng.index(used) } else { rng.index(bytes.len().max(1)) };
    let sector = at / 512 * 512;
    let end = bytes.len().min(sector + 512);
    let other = rng.pick(&names).clone();
    let what = match rng.below(kinds) {
        0..=2 => {
            let bit = rng.below(8);
            disk.damage(&name, |image| image[at] ^= 1 << bit);
            "a flipped bit"
        }
        3 => {
            disk.damage(&name, |image| image[sector..end].fill(0));
            "a zeroed sector"
        }
        4 => {
            let mut garbage = vec![0; end - sector];
            rng.fill(&mut garbage);
            disk.damage(&name, |image| image[sector..end].copy_from_slice(&garbage));
            "a sector of garbage"
        }
        5 => {
            let from = rng.index(used) / 512 * 512;
            let length = (end - sector).min(bytes.len() - from);
            disk.damage(&name, |image| {
                image[sector..sector + length].copy_from_slice(&bytes[from..from + length]);
            });
            "a misdirected sector"
        }
        6 => {
            disk.damage(&name, |image| image.truncate(at));
            "a file cut short"
        }
        7 => {
            disk.erase(&name);
            "a file that is gone"
        }
        8 => {
            let theirs = files[&other].clone();
            disk.damage(&name, |image| *image = theirs.to_vec());
            disk.damage(&other, |image| *image = bytes.to_vec());
            "two files swapped"
        }
        _ => {
            disk.plant(&next_name(&names, &name), &bytes);
            "a file doubled"
        }
    };
    (what, name, at)
}

/// Names a file of the same kind with a number that is not there.
fn next_name(names: &[String], name: &str) -> String {
    let taken: BTreeSet<&String> = names.iter().collect();
    let (kind, rest) = name.split_once('-').expect("a segment or a snapshot");
    let (number, end) = rest.split_once('.').expect("it has an ending");
    let number: u64 = number.parse().expect("it has a number");
    (number + 1..)
        .map(|number| format!("{kind}-{number:020}.{end}"))
        .find(|name| !taken.contains(name))
        .expect("numbers do not end")
}

/// Writes 4096 into every batch's `durable_through`, and mends the header's CRC.
fn take_durable_through_away(disk: &SimDisk) {
    const MAGIC: [u8; 4] = *b"JWTB";
    for (name, bytes) in disk.files() {
        if !name.starts_with("segment-") {
            continue;
        }
        disk.damage(&name, |image| {
            let nonce = bytes[48..64].to_vec();
            for at in (4096..bytes.len()).step_by(4096).filter(|at| bytes[at + 4..at + 8] == MAGIC)
            {
                image[at + 24..at + 32].copy_from_slice(&4096_u64.to_le_bytes());
                let place = u64::try_from(at).unwrap().to_le_bytes();
                let crc = crc32fast::hash(&[&nonce, &place[..], &image[at + 4..at + 64]].concat());
                image[at..at + 4].copy_from_slice(&crc.to_le_bytes());
            }
        });
    }
}
