//! One machine and its journal, driven by hand: futures are polled here, threads are steps, and
//! every change is followed in the log of what was submitted.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::future::Future as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};

use tokenwal::disk::Disk;
use tokenwal::{
    Account, AccountTag, App, Begin, Drive, Error, FixedKeys, Holder, Journal, Options, Report,
    User, Verdict, Work,
};

use super::calls::{Call, Open};
use super::model::{Log, Place, SeenAccount, Whose};
use super::plan::Action;
use super::view;
use crate::sim::{
    EIO, ENOSPC, Fault, OpKind, ReadBack, SimClock, SimDisk, SimEntropy, Step, Weakened,
};

/// What goes on over the crashes of one history.
#[derive(Clone)]
pub struct Setting {
    pub clock: Arc<SimClock>,
    pub entropy: Arc<SimEntropy>,
    pub segment_blocks: u64,
    /// The step that is left out, and how often it was.
    pub skip: Step,
    pub skipped: Arc<AtomicU64>,
    pub next_token: Arc<AtomicU64>,
}

impl Setting {
    pub fn new(seed: u64, segment_blocks: u64, skip: Step) -> Self {
        Self {
            clock: Arc::new(SimClock::new()),
            entropy: Arc::new(SimEntropy::new(seed)),
            segment_blocks,
            skip,
            skipped: Arc::default(),
            next_token: Arc::default(),
        }
    }

    /// Puts the wrapper that leaves a step out around a disk, if one shall.
    pub fn seam(&self, disk: &SimDisk) -> Arc<dyn Disk> {
        let disk = Arc::new(disk.clone());
        match self.skip {
            Step::None => disk,
            skip => Weakened::over(disk, skip, Arc::clone(&self.skipped)),
        }
    }

    pub fn options(&self, disk: &SimDisk) -> Options {
        Options::new(keys())
            .segment_bytes(4096 * self.segment_blocks)
            .batch_bytes_max(4 * 4096)
            .outcome_bytes_max(4096)
            .compact_at_percent(0)
            .drive(Drive::Manual)
            .disk(self.seam(disk))
            .clock(self.clock.clone())
            .entropy(self.entropy.clone())
    }
}

pub fn keys() -> FixedKeys {
    FixedKeys::new([7; 32], [])
}

/// A machine with a running journal.
pub struct World {
    pub disk: SimDisk,
    pub setting: Setting,
    pub log: Log,
    pub report: Report,
    pub(super) journal: Journal,
    pub(super) calls: Vec<Call>,
    pub(super) tickets: Vec<Open>,
    /// The tags of accounts without a known user, by the place of their first record.
    pub(super) tags: BTreeMap<Place, AccountTag>,
    /// Outcomes whose callers went away before they could be submitted.
    pub(super) left: Vec<super::model::Fact>,
    /// Something was made to fail, so that errors are no surprise.
    pub faulty: bool,
    /// How many calls were refused for want of space.
    pub refused_for_room: usize,
    /// So many records were acknowledged before the last batch that acknowledged any.
    before_last_batch: usize,
    /// The log as it was before a restart lost the end of it.
    before_restart: Option<Log>,
}

/// How an attempt to open a journal came out.
pub enum Opened {
    World(Box<World>),
    /// The process ended while it recovered.
    Crashed(Log),
    /// The disk failed, and so did the opening.
    Failed(Log),
}

pub fn app() -> App {
    App::new("simulated", "client").unwrap()
}

pub fn user(number: u8) -> User {
    User::new(format!("user {number}")).unwrap()
}

pub fn account(number: u8) -> Account {
    Account::new(app(), user(number))
}

pub fn holder(number: u8) -> Holder {
    Holder::new("tenant", format!("holder {number}")).unwrap()
}

impl World {
    /// Opens or creates a journal and compares what it shows with the log. Anything but success
    /// or the end of the process is a violation: no crash may make a store refuse to open.
    pub fn open(disk: SimDisk, setting: Setting, log: Log) -> Result<Opened, String> {
        Self::open_on(disk, setting, log, false)
    }

    /// As [`World::open`]; on a faulty disk an I/O error is no violation.
    pub fn open_on(
        disk: SimDisk,
        setting: Setting,
        mut log: Log,
        faulty: bool,
    ) -> Result<Opened, String> {
        let before = disk.files();
        let (journal, report) = match setting.options(&disk).open_or_create("/simulated") {
            Ok(opened) => opened,
            Err(_) if disk.has_crashed() => return Ok(Opened::Crashed(log)),
            Err(Error::Io { .. }) if faulty => return Ok(Opened::Failed(log)),
            Err(error) => {
                keep_evidence(&disk);
                return Err(format!("the store does not open: {}", chain(&error)));
            }
        };
        for (name, bytes) in disk.files() {
            // Recovery changes no byte of what it found [F-45].
            let changed = |before: &Arc<Vec<u8>>| !Arc::ptr_eq(before, &bytes) && *before != bytes;
            if name != "LOCK" && before.get(&name).is_some_and(changed) {
                return Err(format!("recovery changed bytes of {name}"));
            }
        }
        let mut world = Self {
            disk,
            setting,
            log: Log::default(),
            report,
            journal,
            calls: Vec::new(),
            tickets: Vec::new(),
            tags: BTreeMap::new(),
            left: Vec::new(),
            faulty,
            refused_for_room: 0,
            before_last_batch: 0,
            before_restart: None,
        };
        world.disk.disarm_faults();
        match world.look(&mut log, false)? {
            true => {
                // Where a marker proves that nothing more was ever on the disk, a journal that was
                // closed goes on in place, and what was submitted and not written leaves no trace.
                if world.report.verdict == Verdict::Clean && world.report.last_batch_proven {
                    log.forget_lsns();
                }
                log.note_lsn(world.submitted());
                world.log = log;
                Ok(Opened::World(Box::new(world)))
            }
            false => Ok(Opened::Crashed(log)),
        }
    }

    /// Compares what the journal shows with a log; says whether the process is still there.
    fn look(&mut self, log: &mut Log, more_to_come: bool) -> Result<bool, String> {
        let seen = match view::of_journal(&self.journal) {
            Ok(seen) => seen,
            Err(_) if self.disk.has_crashed() => return Ok(false),
            Err(error) => return Err(format!("the state is not readable: {}", chain(&error))),
        };
        log.saw(&seen, more_to_come)?;
        match self.check_callbacks(log, &seen) {
            Err(_) if self.disk.has_crashed() => return Ok(false),
            checked => checked?,
        }
        for account in seen.iter().filter(|account| account.user.is_none()) {
            let grants = account.grants.iter().map(|grant| grant.lsn);
            let operations = account.operations.iter().map(|operation| operation.lsn);
            let tag: AccountTag = account.tag.parse().expect("a tag is printed as it is read");
            for place in grants.chain(operations).filter_map(|lsn| log.place(lsn)) {
                self.tags.insert(place, tag);
            }
        }
        Ok(true)
    }

    /// A code is presented once: nothing more is ever begun under a tag that was used, and where its
    /// pair went is known, unless it is too long ago.
    fn check_callbacks(&self, log: &Log, seen: &[SeenAccount]) -> Result<(), String> {
        for (lsn, tag, since) in log.callbacks() {
            let before = self.submitted();
            let mut begun = Box::pin(self.journal.begin(Begin::exchange(&app()).under(tag, since)));
            let polled = begun.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            match polled {
                Poll::Ready(Err(
                    Error::CallbackUsed { .. }
                    | Error::CallbackTooOld { .. }
                    | Error::Poisoned(_)
                    | Error::NoRoom { .. },
                )) => {}
                // It waits for room, and has submitted nothing.
                Poll::Pending if self.submitted() == before => {}
                other => return Err(format!("{tag} of {lsn} is used again: {other:?}")),
            }
            let found = view::now(self.journal.redeemed(tag)).map_err(|error| chain(&error))?;
            let has = |account: &&SeenAccount| account.grants.iter().any(|grant| grant.lsn == lsn);
            let place = seen.iter().find(has).map(|account| account.tag.clone());
            let Some(found) = found else { continue };
            let at = found.grant.map(|grant| (found.account.to_string(), grant.0));
            let is_right = match &place {
                Some(account) => at == Some((account.clone(), lsn)),
                // What was forgotten, or is an orphan, is under no grant of this name.
                None => at.is_none_or(|(_, grant)| grant >= lsn),
            };
            if found.op.0 != lsn || !is_right {
                return Err(format!("{tag} of {lsn} is said to be {found:?}, and is at {place:?}"));
            }
        }
        Ok(())
    }

    /// Counts the records that stand before the last batch with records of callers.
    pub fn log_before_last_batch(&self) -> usize {
        self.before_last_batch
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Counts the operations that wait for an outcome.
    pub fn begun(&self) -> usize {
        self.tickets.len()
    }

    /// Compares what the journal shows now with the log; what was seen may never go back.
    pub fn check(&mut self) -> Result<(), String> {
        self.disk.disarm_faults();
        let mut log = std::mem::take(&mut self.log);
        let result = self.look(&mut log, true);
        self.log = log;
        result.map(drop)
    }

    /// Does one action. The process may end in it: see [`SimDisk::has_crashed`].
    pub fn act(&mut self, action: Action) -> Result<(), String> {
        self.before_restart = None;
        match action {
            Action::Commit => drop(self.step(Work::Commit)?),
            Action::Prepare => drop(self.step(Work::Prepare)?),
            Action::Compact => drop(self.step(Work::Compact)?),
            Action::Idle => drop(self.step(Work::Idle)?),
            Action::PrepareAll => while self.step(Work::Prepare)? {},
            Action::CompactAll => while self.step(Work::Compact)? {},
            Action::Drain => self.drain()?,
            Action::Advance { seconds } => {
                self.setting.clock.advance_ms(u64::from(seconds) * 1000);
            }
            Action::Reopen => self.reopen()?,
            Action::Fail { what, how } => {
                self.faulty = true;
                fail_next(&self.disk, what, how);
            }
            Action::Read => self.read_beside()?,
            other => self.call(other)?,
        }
        self.poll_woken()?;
        if self.faulty && !self.disk.has_crashed() && self.journal.poison().is_some() {
            self.survive_poison()?;
        }
        Ok(())
    }

    /// Looks at the store as another process does; it may not change a byte.
    fn read_beside(&mut self) -> Result<(), String> {
        self.disk.disarm_faults();
        let before = self.disk.digest();
        match view::of_reader(Arc::new(self.disk.clone())) {
            Ok(seen) => self.log.read_beside(&seen)?,
            Err(_) if self.disk.has_crashed() => return Ok(()),
            Err(error) => return Err(format!("reading beside the owner: {}", chain(&error))),
        }
        match self.disk.digest() == before {
            true => Ok(()),
            false => Err("reading has changed the store".to_owned()),
        }
    }

    pub(super) fn step(&mut self, work: Work) -> Result<bool, String> {
        let (before, rolled) = (self.submitted(), self.journal.stats().rollovers);
        let (batches, durable) = (self.journal.stats().batches, self.journal.head());
        let stepped = self.journal.step(work);
        self.follow_left(work, before, rolled)?;
        if self.journal.stats().batches > batches {
            self.before_last_batch = self.log.count_through(durable.0);
        }
        match stepped {
            Ok(did) => Ok(did),
            Err(_) if self.disk.has_crashed() => Ok(false),
            Err(Error::Poisoned(_) | Error::Compaction(_)) if self.faulty => Ok(false),
            Err(error) => Err(format!("step {work:?}: {}", chain(&error))),
        }
    }

    /// Finds the outcomes that the writer's step submitted in the place of callers who went away.
    fn follow_left(&mut self, work: Work, before: u64, rolled: u64) -> Result<(), String> {
        if work != Work::Commit || self.left.is_empty() {
            return Ok(());
        }
        // A roll-over takes two LSNs, for `Sealed` and `Opened`, behind those of callers.
        let own = 2 * (self.journal.stats().rollovers - rolled);
        let submitted = (self.submitted() - before).saturating_sub(own);
        for (lsn, _) in (before + 1..).zip(0..submitted) {
            if self.left.is_empty() {
                break;
            }
            let fact = self.left.remove(0);
            self.log.submit(lsn, fact)?;
        }
        Ok(())
    }

    /// Steps until nothing is left to do; then no caller may be waiting any more.
    pub fn drain(&mut self) -> Result<(), String> {
        // What a full disk refused is tried again after a rest.
        let mut rests = if self.faulty { 3 } else { 0 };
        for _ in 0..10_000 {
            let mut did = false;
            for work in [Work::Commit, Work::Prepare, Work::Compact] {
                did |= self.step(work)?;
                self.poll_woken()?;
            }
            if self.disk.has_crashed() || (self.faulty && self.journal.poison().is_some()) {
                return Ok(());
            }
            match (did, rests) {
                (true, _) => {}
                (false, 0) => return self.nobody_waits(),
                (false, _) => rests -= 1,
            }
        }
        Err("the journal never comes to rest".to_owned())
    }

    /// Closes the journal, and opens it again in the same process. Tickets stay good.
    fn reopen(&mut self) -> Result<(), String> {
        let closed = view::now(self.journal.clone().close());
        self.poll_woken()?;
        if self.disk.has_crashed() {
            return Ok(());
        }
        match closed {
            // Whatever was submitted is durable now, also where nobody waits for the word.
            Ok(()) => self.log.acknowledge_all(),
            Err(Error::Poisoned(_)) if self.faulty => {}
            Err(error) => return Err(format!("close: {}", chain(&error))),
        }
        self.nobody_waits()?;
        if !self.faulty && !self.left.is_empty() {
            return Err(format!("close lost {} outcomes", self.left.len()));
        }
        self.restart(self.disk.clone())
    }

    /// Does what is left to do, and closes the journal for good.
    pub fn close(mut self) -> Result<(SimDisk, Setting, Log), String> {
        self.drain()?;
        view::now(self.journal.clone().close()).map_err(|error| chain(&error))?;
        self.poll_woken()?;
        self.nobody_waits()?;
        self.log.acknowledge_all();
        Ok((self.disk, self.setting, self.log))
    }

    /// Opens the journal again, in this process or in another one.
    fn restart(&mut self, disk: SimDisk) -> Result<(), String> {
        let another = disk.life() != self.disk.life();
        let before = self.before_restart.take().or_else(|| Some(self.log.clone()));
        let log = std::mem::take(&mut self.log);
        match Self::open_on(disk.clone(), self.setting.clone(), log, self.faulty)? {
            Opened::Crashed(log) => {
                self.log = log;
                self.before_restart = before;
            }
            Opened::Failed(log) => {
                // Whoever opens tries again when the disk works, in a new process or in this one.
                self.log = log;
                self.before_restart = before;
                disk.disarm_faults();
                let next = if self.coin() { disk.process_death() } else { disk };
                return self.restart(next);
            }
            Opened::World(mut next) => {
                if !another {
                    next.tickets = std::mem::take(&mut self.tickets);
                    for (place, tag) in &self.tags {
                        next.tags.entry(*place).or_insert(*tag);
                    }
                }
                *self = *next;
                self.before_restart = before;
            }
        }
        Ok(())
    }

    /// Returns all that a crash at any moment of the last action may find: what was submitted by
    /// its end, of which only `earlier`'s part was acknowledged.
    pub fn known_within(&mut self, earlier: &Log) -> Log {
        let longest = self.before_restart.take();
        longest.as_ref().unwrap_or(&self.log).with_floor_of(earlier)
    }

    /// After a failed write nothing is written any more, nobody waits, and what was durable is
    /// still there to be read; then the service starts again.
    fn survive_poison(&mut self) -> Result<(), String> {
        self.disk.disarm_faults();
        self.nobody_waits()?;
        let operations = self.disk.operations();
        for work in [Work::Commit, Work::Prepare, Work::Compact, Work::Idle] {
            if let Ok(true) = self.journal.step(work) {
                return Err(format!("a poisoned journal does a step of {work:?}"));
            }
        }
        let mut begun = Box::pin(self.journal.begin(Begin::exchange(&app())));
        match begun.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(Error::Poisoned(_))) => {}
            other => return Err(format!("a poisoned journal begins: {other:?}")),
        }
        drop(begun);
        if self.disk.operations() != operations {
            return Err("a poisoned journal changes the disk".to_owned());
        }
        self.check()?;
        let next = if self.coin() { self.disk.process_death() } else { self.disk.clone() };
        if next.life() == self.disk.life() {
            return self.reopen();
        }
        self.tickets.clear();
        self.restart(next)
    }

    /// Decides by what has happened so far.
    fn coin(&self) -> bool {
        self.disk.operations() % 3 != 0
    }

    /// Returns the last LSN that was given out.
    pub fn submitted(&self) -> u64 {
        self.journal.stats().submitted.0
    }

    pub(super) fn tag_of(&self, whose: Whose) -> Option<AccountTag> {
        match whose {
            Whose::User(number) => Some(self.journal.tag_of(&account(number))),
            Whose::Nobody(place) => self.tags.get(&place).copied(),
        }
    }
}

/// Lets the next operation of some kind fail.
pub fn fail_next(disk: &SimDisk, what: u8, how: u8) {
    const READ_BACK: [ReadBack; 2] = [ReadBack::New, ReadBack::Old];
    let read_back = READ_BACK[usize::from(how / 8) % 2];
    let errno = if how % 2 == 0 { EIO } else { ENOSPC };
    let (kind, temporary) = match what % 10 {
        0 | 1 => (OpKind::Sync, false),
        2 => (OpKind::DirectWrite, false),
        3 => (OpKind::Write, false),
        4 => (OpKind::SyncDir, false),
        5 => (OpKind::Rename, true),
        6 => (OpKind::Create, true),
        7 => (OpKind::Sync, true),
        8 => (OpKind::Write, true),
        _ if how % 2 == 0 => (OpKind::Remove, false),
        _ => (OpKind::Read, false),
    };
    let fault = match (kind, how % 4) {
        (OpKind::Sync, 0..=2) => Fault::LostSync(read_back),
        (OpKind::Write | OpKind::DirectWrite, 0 | 1) => Fault::Short(errno),
        (OpKind::Write, 2) => Fault::LostLater(read_back),
        _ => Fault::Error(errno),
    };
    disk.fail(move |op| op.kind == kind && (op.name.ends_with(".tmp") == temporary), fault, 1);
}

/// Writes the files to a directory of the caller's choice, to be looked at by hand.
fn keep_evidence(disk: &SimDisk) {
    let Some(dir) = std::env::var_os("TOKENWAL_EVIDENCE") else { return };
    for (name, bytes) in disk.files() {
        std::fs::write(std::path::Path::new(&dir).join(name), &**bytes).unwrap();
    }
}

pub fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
