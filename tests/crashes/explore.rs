//! Runs a history, crashes it at its operation boundaries and inside operations, recovers, checks,
//! goes on, and crashes again.

use std::sync::Arc;

use tokenwal::inspect::verify;
use tokenwal::{Error, Verdict};

use super::model::Log;
use super::plan::{Action, Plan};
use super::secrets::find_secrets;
use super::tally::Tally;
use super::view;
use super::world::{Opened, Setting, World, chain, fail_next, keys};
use crate::sim::{Cut, Moment, Rng, SimDisk, SimOptions, Step};

/// How many crashes may follow one another in one history.
const DEPTH_MAX: usize = 6;

/// Of a hundred stores that a crash left, so many are salvaged, and the copy goes on.
const SALVAGE_PERCENT: u64 = 1;

/// How thoroughly a history is tried, and what luck it has.
#[derive(Debug, Clone, Copy)]
pub struct Thoroughness {
    /// Of a hundred operation boundaries at which something is at stake, so many are crashed at.
    pub boundaries_percent: u64,
    /// Of a hundred crashes, in so many only the process ends, and the page cache stays.
    pub process_death_percent: u64,
    /// Of a hundred recoveries, so many are crashed.
    pub recovery_crash_percent: u64,
}

impl Thoroughness {
    /// Of everything something.
    pub const USUAL: Self =
        Self { boundaries_percent: 50, process_death_percent: 30, recovery_crash_percent: 30 };

    /// Crash upon crash within recoveries, the first ones with the page cache still there.
    pub const RECOVERIES: Self =
        Self { boundaries_percent: 60, process_death_percent: 60, recovery_crash_percent: 80 };
}

/// What is the same throughout one exploration.
pub struct Explorer<'a> {
    pub tally: &'a mut Tally,
    pub rng: Rng,
    pub thorough: Thoroughness,
    /// Whether operations fail, too.
    pub faults: bool,
}

/// Runs one plan with all its crashes; an error is a violation of what a journal promises.
pub fn run(
    plan: &Plan,
    skip: Step,
    thorough: Thoroughness,
    tally: &mut Tally,
) -> Result<(), String> {
    tally.histories += 1;
    let mut rng = Rng::new(plan.luck);
    let setting = Setting::new(rng.next(), plan.segment_blocks, skip);
    let options = SimOptions { direct: plan.direct, ..SimOptions::default() };
    let disk = SimDisk::with(rng.next(), options);
    let mut explorer = Explorer { tally, rng, thorough, faults: plan.faults };
    disk.keep_boundaries(true);
    let Opened::World(mut world) = World::open(disk.clone(), setting, Log::default())? else {
        return Err("nothing was there to crash".to_owned());
    };
    explorer.crash_at_boundaries(&disk, &world.setting, &Log::default(), "creation")?;
    let done = |action: &&Action| plan.faults || !matches!(action, Action::Fail { .. });
    for action in plan.actions.iter().filter(done) {
        // What callers were told before the action is what they know at any moment within it,
        // and what the action submits may be there or not.
        let floor = world.log.clone();
        world.act(*action)?;
        let known = world.known_within(&floor);
        explorer.crash_at_boundaries(&disk, &world.setting, &known, during(*action))?;
    }
    world.check()?;
    let known = world.log.clone();
    let setting = world.setting.clone();
    if !plan.faults && explorer.rng.chance(30) {
        return explorer.close(*world);
    }
    drop(world);
    explorer.crash(&disk.copy(), &setting, known, 1, "rest")
}

impl Explorer<'_> {
    fn crash_at_boundaries(
        &mut self,
        disk: &SimDisk,
        setting: &Setting,
        known: &Log,
        during: &'static str,
    ) -> Result<(), String> {
        for boundary in disk.take_boundaries() {
            // Where nothing is at stake a few will do.
            let matters = known.floor() > 0 && (boundary.pending() > 0 || known.in_flight() > 0);
            let percent = if matters { self.thorough.boundaries_percent } else { 3 };
            if self.rng.chance(percent) {
                self.crash(&boundary, setting, known.clone(), 1, during)?;
            }
        }
        Ok(())
    }

    /// Closes the journal; from then on whatever happens finds it closed, and all of it there.
    fn close(&mut self, world: World) -> Result<(), String> {
        let (disk, setting, log) = world.close()?;
        let next = disk.power_cut_by(Cut::Nothing, &mut self.rng);
        let Opened::World(world) = World::open(next, setting, log)? else {
            return Err("a sound machine failed".to_owned());
        };
        match (world.report.verdict, world.report.last_batch_proven) {
            (Verdict::Clean, true) => Ok(()),
            other => Err(format!("a journal was closed, and the next process finds {other:?}")),
        }
    }

    /// Ends the process or cuts the power, recovers, checks, and perhaps goes on to crash again.
    pub fn crash(
        &mut self,
        disk: &SimDisk,
        setting: &Setting,
        log: Log,
        depth: usize,
        during: &'static str,
    ) -> Result<(), String> {
        let at_stake = disk.pending() > 0 || log.in_flight() > 0;
        self.tally.crash(log.floor() > 0 && at_stake, depth, during);
        let (next, how) = if self.rng.chance(self.thorough.process_death_percent) {
            (disk.process_death(), "the process ended")
        } else if self.rng.chance(15) {
            let next = disk.process_death().power_cut(&mut self.rng);
            (next, "the process ended and then the power was cut")
        } else {
            (disk.power_cut(&mut self.rng), "the power was cut")
        };
        next.reseed(self.rng.next());
        next.disarm_faults();
        let before = disk.trace();
        self.recover(next.clone(), setting, log, depth).map_err(|failure| {
            let since = next.trace().split_off(before.len());
            let since: Vec<_> = since.iter().map(|op| format!("    {op}\n")).collect();
            let shown = if std::env::var_os("TOKENWAL_TRACE").is_some() { usize::MAX } else { 12 };
            let last = before.len().saturating_sub(shown);
            let trace: Vec<_> = before[last..].iter().map(|op| format!("    {op}\n")).collect();
            format!(
                "{failure}\n  where {how} during {during}, after\n{}    and then\n{}",
                trace.concat(),
                since.concat()
            )
        })
    }

    fn recover(
        &mut self,
        disk: SimDisk,
        setting: &Setting,
        log: Log,
        depth: usize,
    ) -> Result<(), String> {
        self.tally.states.insert(disk.digest());
        log.check_retired(disk.files().keys())?;
        if self.rng.chance(4) {
            inspect(&disk, &log)?;
        }
        let disk = match self.rng.chance(SALVAGE_PERCENT) {
            true => self.salvage(disk, setting, &log, depth)?,
            false => disk,
        };
        let deeper = depth < DEPTH_MAX;
        if deeper && self.rng.chance(self.thorough.recovery_crash_percent) {
            disk.crash_at(self.rng.below(14), self.moment());
        }
        let fails = self.faults && deeper && self.rng.chance(20);
        if fails {
            fail_next(&disk, self.rng.byte(), self.rng.byte());
        }
        // The first sync of a new process may still hear of a failure of the one before.
        let mut world = match World::open_on(disk.clone(), setting.clone(), log, self.faults)? {
            Opened::Crashed(log) => return self.crash(&disk, setting, log, depth + 1, "recovery"),
            Opened::World(world) => world,
            Opened::Failed(log) => {
                return self.crash(&disk, setting, log, depth + 1, "a failed recovery");
            }
        };
        disk.disarm();
        world.faulty = fails;
        self.tally.verdict(&format!("{:?}", world.report.verdict).to_lowercase());
        if !deeper {
            return Ok(());
        }
        match self.rng.below(10) {
            0..=2 => {
                let log = world.log.clone();
                drop(world);
                self.crash(&disk, setting, log, depth + 1, "service")
            }
            3..=5 => {
                disk.crash_at(self.rng.below(40), self.moment());
                let (actions, during) = self.go_on(&mut world)?;
                let log = world.log.clone();
                drop(world);
                self.crash(&disk, setting, log, depth + 1, during).map_err(|failure| {
                    format!("{failure}\n  when the journal had gone on with {actions:?}")
                })
            }
            6 => {
                world.drain()?;
                world.check()
            }
            _ => Ok(()),
        }
    }

    /// Recovers and checks, and nothing more; gives what is known of the store then.
    pub fn recover_once(
        &mut self,
        disk: &SimDisk,
        setting: &Setting,
        log: Log,
    ) -> Result<Log, String> {
        self.tally.states.insert(disk.digest());
        log.check_retired(disk.files().keys())?;
        match World::open(disk.clone(), setting.clone(), log)? {
            Opened::World(world) => {
                self.tally.verdict(&format!("{:?}", world.report.verdict).to_lowercase());
                Ok(world.log)
            }
            Opened::Crashed(_) | Opened::Failed(_) => Err("a sound machine failed".to_owned()),
        }
    }

    /// Does what comes to mind until the process ends.
    fn go_on(&mut self, world: &mut World) -> Result<(Vec<Action>, &'static str), String> {
        let mut actions = Vec::new();
        for _ in 0..30 {
            let action = match self.faults && self.rng.chance(3) {
                true => Action::Fail { what: self.rng.byte(), how: self.rng.byte() },
                false => Action::draw(&mut self.rng),
            };
            actions.push(action);
            world.act(action).map_err(|failure| {
                format!("{failure}\n  when the journal went on with {actions:?}")
            })?;
            if world.disk.has_crashed() {
                return Ok((actions, during(action)));
            }
        }
        Ok((actions, "rest"))
    }

    pub fn moment(&mut self) -> Moment {
        *self.rng.pick(&[Moment::Before, Moment::Inside, Moment::Inside, Moment::After])
    }
}

/// Looks at a store that nobody owns: without changing it, and with the same verdict as opening.
fn inspect(disk: &SimDisk, log: &Log) -> Result<(), String> {
    let before = disk.digest();
    find_secrets(disk)?;
    let verified = match verify(disk, Some(&keys()), &mut |_| ()) {
        Ok(verified) => verified,
        // The crash came before the store's first segment was there.
        Err(Error::Missing { .. }) if log.floor() == 0 => return Ok(()),
        Err(error) => return Err(format!("verifying: {}", chain(&error))),
    };
    if verified.verdict > Verdict::Torn || !verified.problems.is_empty() {
        return Err(format!("verifying finds {:?}: {:?}", verified.verdict, verified.problems));
    }
    let seen = view::of_reader(Arc::new(disk.clone())).map_err(|error| chain(&error))?;
    log.shows(&seen, log.floor())?;
    match disk.digest() == before {
        true => Ok(()),
        false => Err("looking has changed the store".to_owned()),
    }
}

fn during(action: Action) -> &'static str {
    match action {
        Action::Commit => "append",
        Action::Prepare | Action::PrepareAll => "preparation",
        Action::Compact | Action::CompactAll => "compaction",
        Action::Drain => "draining",
        Action::Reopen => "close and opening",
        _ => "calls",
    }
}
