//! All workloads of up to three operations, crashed at every operation boundary in every way that
//! differs in kind.

use std::collections::HashSet;

use super::explore::{Explorer, Thoroughness};
use super::model::Log;
use super::plan::{Action, Answer};
use super::tally::Tally;
use super::world::{Opened, Setting, World};
use crate::sim::{Cut, Rng, SimDisk, SimOptions, Step};

/// The operations; each is whole, so that a workload of three has three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    /// A pair is issued, for a user who is known or not.
    Issue {
        user: Option<u8>,
    },
    /// The last grant gets its next generation.
    Refresh,
    /// A call whose outcome never comes.
    Begin,
    Adopt,
    End,
    Identify,
    RollOver,
    Compact,
    Close,
}

const OPERATIONS: [Operation; 10] = [
    Operation::Issue { user: Some(0) },
    Operation::Issue { user: None },
    Operation::Refresh,
    Operation::Begin,
    Operation::Adopt,
    Operation::End,
    Operation::Identify,
    Operation::RollOver,
    Operation::Compact,
    Operation::Close,
];

impl Operation {
    fn actions(self) -> Vec<Action> {
        let refresh = true;
        let answer = Answer::Issued { refresh, bytes: 0, user: None };
        let settle = Action::Settle { pick: 0, answer };
        let commit = Action::Commit;
        match self {
            Self::Issue { user } => {
                vec![Action::Exchange { user, holder: None }, commit, settle, commit]
            }
            Self::Refresh => vec![Action::Refresh { pick: 0 }, commit, settle, commit],
            Self::Begin => vec![
                Action::Exchange { user: Some(1), holder: Some(0) },
                commit,
                Action::DropTicket { pick: 0 },
            ],
            Self::Adopt => vec![Action::Adopt { pick: 0, holder: 0 }, commit],
            Self::End => vec![Action::End { pick: 0 }, commit],
            Self::Identify => vec![Action::Identify { pick: 0, user: 0 }, commit],
            // Two segments ahead of use; the batch takes the roll-over with it.
            Self::RollOver => {
                vec![Action::PrepareAll, Action::AskCompaction, commit, Action::Prepare]
            }
            Self::Compact => {
                vec![Action::PrepareAll, Action::AskCompaction, commit, Action::CompactAll]
            }
            Self::Close => vec![Action::Reopen],
        }
    }
}

/// Tries all workloads, and counts them.
pub fn all(tally: &mut Tally) -> Result<u64, String> {
    let mut workloads = 0;
    let mut known = HashSet::new();
    let mut open: Vec<Vec<Operation>> = vec![Vec::new()];
    while let Some(workload) = open.pop() {
        if workload.len() < 3 {
            for operation in OPERATIONS {
                open.push([workload.as_slice(), &[operation]].concat());
            }
        }
        for direct in [false, true] {
            one(&workload, direct, &mut known, tally)
                .map_err(|failure| format!("{workload:?}, direct {direct}: {failure}"))?;
        }
        workloads += 1;
    }
    Ok(workloads)
}

/// The ways in which a crash can differ, in kind.
const CUTS: [Option<Cut>; 5] = [
    None,
    Some(Cut::Nothing),
    Some(Cut::Everything),
    Some(Cut::Writes(50)),
    Some(Cut::Sectors { grain: 512, keep: 50, tear: 50 }),
];

/// States of a disk, and what must come of them, that were tried already.
type Known = HashSet<(u64, u64)>;

fn one(
    workload: &[Operation],
    direct: bool,
    tried: &mut Known,
    tally: &mut Tally,
) -> Result<(), String> {
    let setting = Setting::new(1, 17, Step::None);
    let disk = SimDisk::with(1, SimOptions { direct, ..SimOptions::default() });
    let thorough = Thoroughness::USUAL;
    tally.histories += 1;
    let mut explorer = Explorer { tally, rng: Rng::new(1), thorough, faults: false };
    let Opened::World(mut world) = World::open(disk.clone(), setting, Log::default())? else {
        return Err("nothing was there to crash".to_owned());
    };
    // The first operations are the last workloads' own: only what the newest one adds is tried.
    let Some((newest, before)) = workload.split_last() else { return Ok(()) };
    for action in before.iter().flat_map(|operation| operation.actions()) {
        world.act(action)?;
    }
    disk.keep_boundaries(true);
    for action in newest.actions() {
        let floor = world.log.clone();
        world.act(action)?;
        let known = world.known_within(&floor);
        for boundary in disk.take_boundaries() {
            explorer.cut_in_all_ways(&boundary, &world.setting, &known, tried)?;
        }
    }
    world.check()?;
    let known = world.log.clone();
    explorer.cut_in_all_ways(&disk, &world.setting, &known, tried)
}

impl Explorer<'_> {
    /// Crashes in all ways that differ in kind, recovers and checks, and crashes again where the
    /// page cache was kept, which recovery must have made durable.
    fn cut_in_all_ways(
        &mut self,
        disk: &SimDisk,
        setting: &Setting,
        log: &Log,
        tried: &mut Known,
    ) -> Result<(), String> {
        for cut in CUTS {
            let next = match cut {
                Some(cut) => disk.copy().power_cut_by(cut, &mut self.rng),
                None => disk.copy().process_death(),
            };
            if !tried.insert((next.deep_digest(), log.digest())) {
                continue;
            }
            let at_stake = disk.pending() > 0 || log.in_flight() > 0;
            self.tally.crash(log.floor() > 0 && at_stake, 1, "a short history");
            let after = self.recover_once(&next, setting, log.clone())?;
            if cut.is_none() {
                let last = next.power_cut_by(Cut::Nothing, &mut self.rng);
                self.recover_once(&last, setting, after)?;
            }
        }
        Ok(())
    }
}
