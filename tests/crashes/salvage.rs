//! Salvage as a step of histories: of what a crash left, cut short by a crash of its own, and of
//! what media have damaged.
//!
//! A store that a crash left is sound, and the copy is all of it. The store itself is never
//! touched. A copy that was not finished is no store. And where something is damaged, what differs
//! between what was acknowledged and what was saved is on the list of losses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokenwal::inspect::{Loss, Salvage, Verification, verify};
use tokenwal::{AccountTag, Error, Lsn, Verdict};

use super::damage::{self, Sound};
use super::explore::Explorer;
use super::model::{Fact, Log, Place, SeenAccount, State, Whose};
use super::plan::Plan;
use super::secrets::find_secrets;
use super::tally::Tally;
use super::view;
use super::world::{Opened, Setting, World, chain, fail_next, keys};
use crate::sim::{SimDisk, Step};

impl Explorer<'_> {
    /// Salvages a store that a crash left, and gives the disk of the copy; on the way there the
    /// process may end, or the disk fail, and then it is begun anew.
    pub fn salvage(
        &mut self,
        from: SimDisk,
        setting: &Setting,
        log: &Log,
        depth: usize,
    ) -> Result<SimDisk, String> {
        let (before, known) = (from.digest(), log.floor());
        let whole = match view::of_reader(Arc::new(from.clone())) {
            Ok(whole) => whole,
            // The crash came before the store's first segment was there.
            Err(Error::Missing { .. }) if known == 0 => return Ok(from),
            Err(error) => return Err(format!("reading before a salvage: {}", chain(&error))),
        };
        log.shows(&whole, known)?;
        let mut tries = if self.rng.chance(60) { 1 + self.rng.below(3) } else { 0 };
        loop {
            let into = from.sibling(self.rng.next());
            if tries > 0 && self.faults && self.rng.chance(40) {
                fail_next(&into, self.rng.byte(), self.rng.byte());
            } else if tries > 0 {
                into.crash_at(self.rng.below(14), self.moment());
            }
            let written = copy(&from, &into, setting);
            if from.digest() != before {
                return Err("a salvage has changed the store that it was to save".to_owned());
            }
            into.disarm_faults();
            let crashed = into.has_crashed();
            if crashed {
                self.tally.crash(known > 0, depth + 1, "salvage");
            }
            let next = match self.rng.chance(self.thorough.process_death_percent) {
                true => into.process_death(),
                false => into.power_cut(&mut self.rng),
            };
            next.disarm_faults();
            match written {
                Ok(losses) if losses.is_empty() && !crashed => {
                    self.tally.salvage("whole");
                    prove_whole(&next, &whole)?;
                    return Ok(next);
                }
                Ok(losses) if !crashed => {
                    return Err(format!("a salvage of a sound store has lost {losses:?}"));
                }
                Err(Error::Io { .. }) if crashed || tries > 0 => {
                    self.tally.salvage(if crashed { "cut short" } else { "failed" });
                    prove_whole_or_none(&from, &next, setting, &whole)?;
                }
                other => return Err(format!("a salvage came to {other:?}")),
            }
            tries = tries.saturating_sub(1);
        }
    }
}

/// Salvages, and gives what was lost.
fn copy(from: &SimDisk, into: &SimDisk, setting: &Setting) -> Result<Vec<Loss>, Error> {
    let keys = keys();
    let salvage = Salvage::new(&keys).clock(setting.clock.clone());
    let plan = salvage.entropy(setting.entropy.clone()).plan(Arc::new(from.clone()))?;
    let losses = plan.losses().to_vec();
    plan.write(setting.seam(into)).map(|_| losses)
}

/// A copy is sound, shows what it should, and no secret.
fn prove_whole(copy: &SimDisk, whole: &[SeenAccount]) -> Result<(), String> {
    find_secrets(copy)?;
    let found = look(copy)?;
    if found.verdict > Verdict::Torn || !found.problems.is_empty() {
        return Err(format!("a salvaged store is {:?}: {:?}", found.verdict, found.problems));
    }
    let seen = view::of_reader(Arc::new(copy.clone())).map_err(|error| chain(&error))?;
    match seen == whole {
        true => Ok(()),
        false => Err(format!("of {whole:#?}\n  a salvage has saved {seen:#?}")),
    }
}

/// A copy that was not finished does not open, unless nothing of it is missing; and nobody writes
/// into what is left of one.
fn prove_whole_or_none(
    from: &SimDisk,
    half: &SimDisk,
    setting: &Setting,
    whole: &[SeenAccount],
) -> Result<(), String> {
    find_secrets(half)?;
    let is_empty = half.files().keys().all(|name| name == "LOCK");
    match copy(from, &half.copy(), setting) {
        Ok(_) if is_empty => {}
        Err(Error::NotEmpty { .. }) if !is_empty => {}
        other => return Err(format!("salvaging into what a salvage left: {other:?}")),
    }
    let looks_sound = match verify(half, Some(&keys()), &mut |_| ()) {
        Ok(found) => found.verdict <= Verdict::Torn && found.problems.is_empty(),
        Err(Error::Missing { .. } | Error::Corrupt(_)) => false,
        Err(error) => return Err(format!("verifying half a copy: {}", chain(&error))),
    };
    match setting.options(&half.copy()).open("/simulated") {
        Ok(_) if looks_sound => prove_whole(half, whole),
        Err(Error::Missing { .. } | Error::Corrupt(_)) if !looks_sound => Ok(()),
        other => Err(format!("half a copy looks sound: {looks_sound}, and opens: {other:?}")),
    }
}

fn look(disk: &SimDisk) -> Result<Verification, String> {
    verify(disk, Some(&keys()), &mut |_| ()).map_err(|error| chain(&error))
}

/// Salvages a sound store onto a disk that leaves out a step of care, cuts the power, and opens
/// the copy.
pub fn without(step: Step, plan: &Plan) -> Result<(), String> {
    let Sound { disk, setting, log, mut rng, .. } = damage::build(plan)?;
    let weak = Setting { skip: step, ..setting.clone() };
    let into = disk.sibling(rng.next());
    copy(&disk, &into, &weak).map_err(|error| chain(&error))?;
    match World::open(into.power_cut(&mut rng), setting, log)? {
        Opened::World(_) => Ok(()),
        Opened::Crashed(_) | Opened::Failed(_) => Err("a sound machine failed".to_owned()),
    }
}

/// Builds a store by a plan, damages a sector of it in several ways, and salvages each result.
pub fn of_damaged(plan: &Plan, tally: &mut Tally) -> Result<(), String> {
    tally.histories += 1;
    let mut sound = damage::build(plan)?;
    let whole = view::of_reader(Arc::new(sound.disk.clone())).map_err(|error| chain(&error))?;
    for _ in 0..6 {
        let disk = sound.disk.copy();
        let what = damage::damage(&disk, damage::SECTORS, &mut sound.rng);
        tally.during.entry(what.0).and_modify(|count| *count += 1).or_insert(1);
        salvage_damaged(&sound, &disk, &whole, tally)
            .map_err(|failure| format!("{failure}\n  after {what:?}"))?;
    }
    Ok(())
}

fn salvage_damaged(
    sound: &Sound,
    disk: &SimDisk,
    whole: &[SeenAccount],
    tally: &mut Tally,
) -> Result<(), String> {
    let (log, setting) = (&sound.log, &sound.setting);
    let before = disk.digest();
    let found = match verify(disk, Some(&keys()), &mut |_| ()) {
        Ok(found) => Some(found),
        Err(error) => damage::expect_loud(&error).map(|()| None)?,
    };
    let into = disk.sibling(1);
    let written = copy(disk, &into, setting);
    if disk.digest() != before {
        return Err("a salvage has changed the store that it was to save".to_owned());
    }
    let losses = match written {
        Ok(losses) => losses,
        Err(error) => {
            tally.salvage("nothing left to save");
            return match error {
                // The one copy of the store's key is what was damaged.
                Error::Key(_) => Ok(()),
                Error::NewerFormat { .. } => Err(format!("damage is called: {}", chain(&error))),
                error => damage::expect_loud(&error),
            };
        }
    };
    let after = look(&into)?;
    if after.verdict > Verdict::Torn || !after.problems.is_empty() {
        return Err(format!("a salvaged store is {:?}: {:?}", after.verdict, after.problems));
    }
    find_secrets(&into)?;
    let (journal, _) = setting.options(&into).open("/simulated").map_err(|error| chain(&error))?;
    let saved = view::of_journal(&journal).map_err(|error| chain(&error))?;
    let (next, last) = (journal.stats().submitted, log.facts().last().map_or(0, |(lsn, _)| lsn));
    if next.0 <= last {
        return Err(format!("LSN {last} was given out, and a salvaged store goes on at {next}"));
    }
    // Where no marker proves the last batch, and that is said, damage there is a torn write.
    let is_torn = |found: &Verification| found.verdict <= Verdict::Torn && !found.last_batch_proven;
    let looks_torn = found.as_ref().is_some_and(is_torn);
    let least = if looks_torn { sound.before_last_batch.min(log.floor()) } else { log.floor() };
    nothing_is_invented(log, &saved)?;
    if losses.is_empty() {
        tally.salvage("damaged, and nothing lost");
        return log.shows(&saved, least).map(drop);
    }
    tally.salvage("damaged, with losses");
    if found.is_some_and(|found| found.problems.is_empty()) {
        return Err(format!("what is lost was not found before: {losses:?}"));
    }
    let lost = Lost { log, losses: &losses, least };
    lost.explain(whole, &saved).map_err(|failure| {
        format!("{failure}\n  is not covered by {losses:#?}\n  of {whole:#?}\n  saved {saved:#?}")
    })
}

/// Every token was issued.
fn nothing_is_invented(log: &Log, saved: &[SeenAccount]) -> Result<(), String> {
    let mut issued = BTreeSet::new();
    for (_, fact) in log.facts() {
        if let Fact::Issued { access, refresh, .. }
        | Fact::Beside { access, refresh, .. }
        | Fact::Imported { access, refresh, .. } = fact
        {
            issued.extend([access.as_str()].into_iter().chain(refresh.as_deref()));
        }
    }
    for grant in saved.iter().flat_map(|account| &account.grants) {
        let pair = grant.pair.iter();
        let tokens = pair.flat_map(|(access, refresh)| [Some(access), refresh.as_ref()]).flatten();
        for token in tokens.chain(&grant.previous).chain(grant.beside.iter().flatten()) {
            if !issued.contains(token.as_str()) {
                return Err(format!("grant {} has a token that nobody issued", grant.lsn));
            }
        }
    }
    Ok(())
}

/// What is said to be lost.
struct Lost<'a> {
    log: &'a Log,
    losses: &'a [Loss],
    /// From here on records may be missing without a word.
    least: Place,
}

impl Lost<'_> {
    /// Finds for each account that is not as it was a loss that explains it.
    fn explain(&self, whole: &[SeenAccount], saved: &[SeenAccount]) -> Result<(), String> {
        let kin = Kin::of(self.log);
        let bare = |account: &SeenAccount| {
            let mut account = SeenAccount { with_pairs: false, ..account.clone() };
            for grant in &mut account.grants {
                (grant.pair, grant.previous, grant.beside) = (None, None, None);
            }
            account
        };
        let saved: BTreeMap<_, _> = saved.iter().map(|one| (one.tag.as_str(), bare(one))).collect();
        let before: BTreeMap<_, _> = whole.iter().map(|one| (one.tag.as_str(), one)).collect();
        let tags: BTreeSet<_> = saved.keys().chain(before.keys()).copied().collect();
        for tag in tags {
            let (then, now) = (before.get(tag).copied(), saved.get(tag));
            if then == now {
                continue;
            }
            let account = then.or(now).expect("one of the two has it");
            let family = kin.family(self.log, account)?;
            if !self.names(tag, &family) {
                return Err(format!("{tag} was {then:?} and is {now:?}, which"));
            }
        }
        Ok(())
    }

    /// Says whether a loss names an account, or one of the records from which it came about.
    fn names(&self, tag: &str, family: &[Place]) -> bool {
        let tag: AccountTag = tag.parse().expect("a tag is printed as it is read");
        let is_lost = |loss: &Loss, place: Place| {
            let lsn = Lsn(self.log.lsn(place));
            loss.first_lsn <= lsn && (loss.last_lsn == Lsn::NONE || lsn <= loss.last_lsn)
        };
        family.iter().any(|place| *place >= self.least)
            || self.losses.iter().any(|loss| {
                let by_lsn = loss.first_lsn != Lsn::NONE && loss.account.is_none();
                let within = loss.accounts_after.is_none_or(|after| after < tag)
                    && loss.accounts_before.is_none_or(|before| tag < before);
                match loss.account {
                    Some(account) => account == tag || family.iter().any(|at| is_lost(loss, *at)),
                    None if by_lsn => family.iter().any(|place| is_lost(loss, *place)),
                    None => within,
                }
            })
    }
}

/// Which accounts came to share what they hold: by a merger, or since a user became known.
struct Kin {
    parents: BTreeMap<Whose, Whose>,
    /// Whom each record concerns.
    concerned: Vec<Option<Whose>>,
}

impl Kin {
    fn of(log: &Log) -> Self {
        let mut kin = Self { parents: BTreeMap::new(), concerned: Vec::new() };
        let mut state = State::default();
        for (place, (_, fact)) in log.facts().enumerate() {
            let all = concerned(&state, place, fact);
            for other in &all {
                kin.join(all[0], *other);
            }
            kin.concerned.push(all.first().copied());
            state.apply(place, fact);
        }
        kin
    }

    fn head(&self, of: Whose) -> Whose {
        let mut at = of;
        while let Some(next) = self.parents.get(&at) {
            at = *next;
        }
        at
    }

    fn join(&mut self, one: Whose, other: Whose) {
        let (one, other) = (self.head(one), self.head(other));
        if one != other {
            self.parents.insert(one, other);
        }
    }

    /// Lists the records from which an account came about.
    fn family(&self, log: &Log, account: &SeenAccount) -> Result<Vec<Place>, String> {
        let grants = account.grants.iter().map(|grant| grant.lsn);
        let operations = account.operations.iter().map(|operation| operation.lsn);
        let mut head = None;
        for lsn in grants.chain(operations) {
            let place = log.place(lsn).ok_or(format!("record {lsn} was never submitted"))?;
            head = self.concerned[place].map(|whose| self.head(whose)).or(head);
        }
        let belongs = |whose: &Option<Whose>| whose.is_some_and(|one| head == Some(self.head(one)));
        let all = self.concerned.iter().enumerate();
        Ok(all.filter(|(_, whose)| belongs(whose)).map(|(place, _)| place).collect())
    }
}

/// Names the accounts that a record changes, or makes.
fn concerned(state: &State, place: Place, fact: &Fact) -> Vec<Whose> {
    let of_grant = |grant: &Place| state.grants.get(grant).map(|grant| grant.whose);
    let of_operation = |op: &Place| state.operations.get(op).map(|operation| operation.whose);
    let all = match fact {
        Fact::Intent { whose, grant, .. } => [Some(*whose), grant.as_ref().and_then(of_grant)],
        Fact::Provisional { .. } => [Some(Whose::Nobody(place)), None],
        Fact::Issued { op, whose, .. } | Fact::Beside { op, whose, .. } => {
            [of_operation(op), Some(*whose)]
        }
        Fact::Closed { op, ends } => [of_operation(op), ends.as_ref().and_then(of_grant)],
        Fact::Imported { whose, .. } => [Some(*whose), None],
        Fact::Refused { op, grant, .. } => [of_operation(op), grant.as_ref().and_then(of_grant)],
        Fact::Doubted { op } => [of_operation(op), None],
        Fact::Adopted { grant, .. }
        | Fact::Released { grant, .. }
        | Fact::Ended { grant }
        | Fact::Revived { grant }
        | Fact::Activated { grant }
        | Fact::Told { grant, .. }
        | Fact::Worked { grant, .. } => [of_grant(grant), None],
        Fact::Superseded { from, to, .. } => [of_grant(from), of_grant(to)],
        Fact::Identified { grant, to } => [of_grant(grant), Some(*to)],
        Fact::Merged { from, to } => [Some(*from), Some(*to)],
        Fact::Forgotten { whose } => [Some(*whose), None],
    };
    all.into_iter().flatten().collect()
}
