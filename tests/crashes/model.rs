//! What a journal must give back, computed apart from it: the log of what was submitted, in its
//! order, and what any prefix of it adds up to.
//!
//! A record is named by its place in the log. What a recovered journal shows must be the fold of
//! a prefix that has everything that was acknowledged, or that a reader has seen.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};

use tokenwal::{AccountTag, Lsn};

/// A record's place in the log.
pub type Place = usize;

/// Whose account: a known user's, or that which an exchange for an unknown user made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    User(u8),
    Nobody(Place),
}

/// What is asked of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    Exchange,
    Refresh,
    Revoke,
    Introspect,
    Mint,
    /// A refresh for scopes that a number stands for.
    Beside(u8),
}

/// One submitted record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    Intent {
        whose: Whose,
        asked: Asked,
        grant: Option<Place>,
    },
    /// An intent for an account of its own, with a tag that was drawn when `since` was the head.
    Provisional {
        tag: AccountTag,
        since: Lsn,
    },
    /// A pair; `whose` is the account under which it stands if the operation made the grant, and
    /// what the answer left out is filled in.
    Issued {
        op: Place,
        whose: Whose,
        access: String,
        refresh: Option<String>,
    },
    /// An access token without a refresh token, for a refresh that asked for it beside the chain of
    /// `grant`. Where that is not there any more it is a pair as any other, with what was presented.
    Beside {
        op: Place,
        grant: Place,
        whose: Whose,
        scopes: u8,
        access: String,
        refresh: Option<String>,
    },
    /// A pair from elsewhere, which makes a grant.
    Imported {
        whose: Whose,
        access: String,
        refresh: Option<String>,
        holder: Option<u8>,
        paused: bool,
    },
    Activated {
        grant: Place,
    },
    /// The provider said no, of a grant or of nothing that there is yet.
    Refused {
        op: Place,
        grant: Option<Place>,
        dead: bool,
    },
    /// The operation has its final outcome, and it is no pair and no refusal.
    Closed {
        op: Place,
        ends: Option<Place>,
    },
    Doubted {
        op: Place,
    },
    Adopted {
        grant: Place,
        holder: u8,
    },
    Released {
        grant: Place,
        holder: u8,
    },
    Superseded {
        from: Place,
        to: Place,
        holder: u8,
    },
    Ended {
        grant: Place,
    },
    Revived {
        grant: Place,
    },
    Worked {
        grant: Place,
        generation: u32,
    },
    Told {
        grant: Place,
        generation: u32,
        expires_at_ms: u64,
    },
    Identified {
        grant: Place,
        to: Whose,
    },
    Merged {
        from: Whose,
        to: Whose,
    },
    Forgotten {
        whose: Whose,
    },
}

/// A grant as the log adds up to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub whose: Whose,
    pub generation: u32,
    /// Where its newest pair stands in the log.
    pub issued: Place,
    pub access: String,
    pub refresh: Option<String>,
    /// The refresh token before the newest, until that has worked.
    pub previous: Option<String>,
    pub ended: bool,
    pub holders: BTreeSet<u8>,
    pub imported: bool,
    pub paused: bool,
    /// When the newest access token expires, as was told of it.
    pub told_ms: Option<u64>,
    /// Access tokens beside the chain and what their scopes' number is, as they came.
    pub beside: Vec<(u8, String)>,
    /// Whether the last refusal since the newest pair was for good, if there was one.
    pub refused: Option<bool>,
}

/// An operation without a final outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub whose: Whose,
    pub asked: Asked,
    pub grant: Option<Place>,
    pub doubted: bool,
}

/// What a prefix of the log adds up to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    pub grants: BTreeMap<Place, Grant>,
    pub operations: BTreeMap<Place, Operation>,
    /// Which generation each operation, also one that is over, was begun on.
    begun: BTreeMap<Place, u32>,
}

impl State {
    pub fn apply(&mut self, place: Place, fact: &Fact) {
        match fact {
            Fact::Intent { whose, asked, grant } => self.intend(place, *whose, *asked, *grant),
            Fact::Provisional { .. } => {
                self.intend(place, Whose::Nobody(place), Asked::Exchange, None)
            }
            Fact::Issued { op, whose, access, refresh } => {
                self.issue(place, *op, *whose, access, refresh);
            }
            Fact::Beside { op, grant, whose, scopes, access, refresh } => {
                let is_open = self.operations.contains_key(op);
                match self.grants.get_mut(grant) {
                    Some(found) if is_open || found.whose == *whose => {
                        found.beside.retain(|(other, _)| other != scopes);
                        found.beside.push((*scopes, access.clone()));
                        self.operations.remove(op);
                    }
                    _ => self.issue(place, *op, *whose, access, refresh),
                }
            }
            Fact::Imported { whose, access, refresh, holder, paused } => {
                let mut grant = Grant::new(*whose, place, access, refresh);
                grant.holders.extend(holder);
                (grant.imported, grant.paused) = (true, *paused);
                self.grants.insert(place, grant);
            }
            Fact::Activated { grant } => self.change(*grant, |grant| grant.paused = false),
            Fact::Refused { op, grant, dead } => {
                self.operations.remove(op);
                let refused = self.begun.get(op).copied();
                if let Some(grant) = grant {
                    // What has moved on since is not what was refused.
                    self.change(*grant, |grant| {
                        if Some(grant.generation) == refused {
                            grant.refused = Some(*dead);
                            grant.ended |= dead;
                        }
                    });
                }
            }
            Fact::Closed { op, ends } => {
                self.operations.remove(op);
                if let Some(grant) = ends {
                    self.change(*grant, |grant| grant.ended = true);
                }
            }
            Fact::Doubted { op } => {
                if let Some(operation) = self.operations.get_mut(op) {
                    operation.doubted = true;
                }
            }
            Fact::Adopted { grant, holder } => self.hold(*grant, *holder),
            Fact::Released { grant, holder } => self.let_go(*grant, *holder),
            Fact::Superseded { from, to, holder } => {
                self.let_go(*from, *holder);
                self.hold(*to, *holder);
            }
            Fact::Ended { grant } => self.change(*grant, |grant| grant.ended = true),
            Fact::Revived { grant } => self.change(*grant, |grant| {
                grant.ended = false;
                grant.refused = grant.refused.filter(|dead| !dead);
            }),
            Fact::Worked { grant, generation } => self.change(*grant, |grant| {
                if grant.generation == *generation {
                    grant.previous = None;
                }
            }),
            Fact::Told { grant, generation, expires_at_ms } => self.change(*grant, |grant| {
                if grant.generation == *generation {
                    grant.told_ms = Some(*expires_at_ms);
                }
            }),
            Fact::Identified { grant, to } => {
                self.change(*grant, |grant| grant.whose = *to);
                for operation in self.operations.values_mut() {
                    if operation.grant == Some(*grant) {
                        operation.whose = *to;
                    }
                }
            }
            Fact::Merged { from, to } => {
                let grants = self.grants.values_mut().map(|grant| &mut grant.whose);
                let operations = self.operations.values_mut().map(|other| &mut other.whose);
                for whose in grants.chain(operations).filter(|whose| *whose == from) {
                    *whose = *to;
                }
            }
            Fact::Forgotten { whose } => {
                self.grants.retain(|_, grant| grant.whose != *whose);
                self.operations.retain(|_, operation| operation.whose != *whose);
            }
        }
    }

    fn intend(&mut self, place: Place, whose: Whose, asked: Asked, grant: Option<Place>) {
        let generation = grant.and_then(|grant| self.grants.get(&grant));
        self.begun.insert(place, generation.map_or(0, |grant| grant.generation));
        self.operations.insert(place, Operation { whose, asked, grant, doubted: false });
    }

    /// A pair for an operation that is not open makes a grant of its own.
    fn issue(
        &mut self,
        place: Place,
        op: Place,
        whose: Whose,
        access: &str,
        refresh: &Option<String>,
    ) {
        let id = match self.operations.remove(&op) {
            Some(Operation { grant: Some(grant), .. }) => grant,
            // Of two first mints the second one goes to the grant of the first.
            Some(Operation { asked: Asked::Mint, .. }) => self.standing(whose).unwrap_or(op),
            Some(_) => op,
            None => self.shared(whose, access, refresh).unwrap_or(place),
        };
        let before = self.grants.remove(&id);
        let whose = before.as_ref().map_or(whose, |grant| grant.whose);
        let mut grant = Grant::new(whose, place, access, refresh);
        if let Some(before) = before {
            let rotated = before.refresh.is_some() && before.refresh != *refresh;
            grant.previous = if rotated { before.refresh } else { before.previous };
            grant.generation = before.generation + 1;
            grant.ended = before.ended;
            grant.holders = before.holders;
            grant.beside = before.beside;
            (grant.imported, grant.paused) = (before.imported, before.paused);
        }
        self.grants.insert(id, grant);
    }

    /// Returns the refresh token of an answer that leaves it out: that of its grant by now, or else the
    /// one that was presented.
    pub fn inherited(&self, op: Place, presented: Option<String>) -> Option<String> {
        let grant = self.operations.get(&op).and_then(|operation| operation.grant);
        match grant.and_then(|grant| self.grants.get(&grant)) {
            Some(grant) => grant.refresh.clone(),
            None => presented,
        }
    }

    /// Finds the grant that has the refresh token which an answer that came too late left out.
    fn shared(&self, whose: Whose, access: &str, refresh: &Option<String>) -> Option<Place> {
        let token = refresh.as_ref()?;
        let number =
            |token: &str| token.trim_start_matches(|c: char| !c.is_ascii_digit()).to_owned();
        if number(token) == number(access) {
            return None;
        }
        let fits = |grant: &Grant| grant.whose == whose && !grant.ended;
        let mut found = self.grants.iter().filter(|(_, grant)| fits(grant));
        found.find(|(_, grant)| grant.refresh.as_ref() == Some(token)).map(|(id, _)| *id)
    }

    fn hold(&mut self, grant: Place, holder: u8) {
        self.change(grant, |grant| {
            grant.holders.insert(holder);
        });
    }

    fn let_go(&mut self, grant: Place, holder: u8) {
        self.change(grant, |grant| {
            grant.holders.remove(&holder);
        });
    }

    fn change(&mut self, grant: Place, change: impl FnOnce(&mut Grant)) {
        if let Some(grant) = self.grants.get_mut(&grant) {
            change(grant);
        }
    }

    /// Returns the grant that a mint goes to.
    pub fn standing(&self, whose: Whose) -> Option<Place> {
        let fits = |grant: &Grant| grant.whose == whose && !grant.ended && grant.refresh.is_none();
        let fitting = self.grants.iter().filter(|(_, grant)| fits(grant));
        fitting.max_by_key(|(_, grant)| grant.issued).map(|(id, _)| *id)
    }

    /// Names all accounts that have something in them.
    fn accounts(&self) -> BTreeSet<Whose> {
        let grants = self.grants.values().map(|grant| grant.whose);
        grants.chain(self.operations.values().map(|operation| operation.whose)).collect()
    }
}

impl Grant {
    fn new(whose: Whose, issued: Place, access: &str, refresh: &Option<String>) -> Self {
        Self {
            whose,
            generation: 1,
            issued,
            access: access.to_owned(),
            refresh: refresh.clone(),
            previous: None,
            ended: false,
            holders: BTreeSet::new(),
            imported: false,
            paused: false,
            told_ms: None,
            beside: Vec::new(),
            refused: None,
        }
    }
}

/// A grant as a journal shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenGrant {
    pub lsn: u64,
    pub generation: u32,
    pub ended: bool,
    pub holders: BTreeSet<u8>,
    pub imported: bool,
    pub paused: bool,
    pub refused: Option<bool>,
    pub told_ms: Option<u64>,
    /// So many tokens beside the chain.
    pub besides: usize,
    /// These tokens, the newest first, of a grant that lives.
    pub beside: Option<Vec<String>>,
    /// Access and refresh token.
    pub pair: Option<(String, Option<String>)>,
    pub previous: Option<String>,
}

/// An operation as a journal shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenOperation {
    pub lsn: u64,
    pub asked: Asked,
    pub doubted: bool,
}

/// An account as a journal shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenAccount {
    pub tag: String,
    /// None for one whose user is not known.
    pub user: Option<u8>,
    pub grants: Vec<SeenGrant>,
    pub operations: Vec<SeenOperation>,
    /// The grants' pairs were read, too.
    pub with_pairs: bool,
}

/// All that was submitted to one store, and what is known of its fate.
#[derive(Debug, Clone, Default)]
pub struct Log {
    facts: Vec<(u64, Fact)>,
    /// So many of the first facts were acknowledged, or seen by a reader.
    floor: usize,
    /// The highest LSN that was ever given out, also to what was lost.
    highest_lsn: u64,
    /// So many were seen by somebody who reads beside the writer.
    read: usize,
    /// What the last compaction that was acknowledged has retired for good.
    retired: Retired,
}

/// The files below these numbers are gone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retired {
    pub segments_below: u64,
    pub snapshots_below: u64,
}

impl Log {
    /// Notes a record that was given an LSN; no LSN is ever given out twice.
    pub fn submit(&mut self, lsn: u64, fact: Fact) -> Result<Place, String> {
        if lsn <= self.highest_lsn {
            return Err(format!("LSN {lsn} is given out after {}", self.highest_lsn));
        }
        self.highest_lsn = lsn;
        self.facts.push((lsn, fact));
        Ok(self.facts.len() - 1)
    }

    /// Notes an LSN that was given to a record that is not followed here.
    pub fn note_lsn(&mut self, lsn: u64) {
        self.highest_lsn = self.highest_lsn.max(lsn);
    }

    /// Allows LSNs of what was lost without a trace to be given out again.
    pub fn forget_lsns(&mut self) {
        self.highest_lsn = self.facts.last().map_or(0, |(lsn, _)| *lsn);
    }

    /// Notes that a record, and with it all before it, is durable.
    pub fn acknowledge(&mut self, place: Place) {
        self.floor = self.floor.max(place + 1);
    }

    pub fn acknowledge_all(&mut self) {
        self.floor = self.facts.len();
    }

    pub fn fact(&self, place: Place) -> &Fact {
        &self.facts[place].1
    }

    pub fn lsn(&self, place: Place) -> u64 {
        self.facts[place].0
    }

    pub fn place(&self, lsn: u64) -> Option<Place> {
        self.facts.binary_search_by_key(&lsn, |(lsn, _)| *lsn).ok()
    }

    /// Lists the records, with their LSNs.
    pub fn facts(&self) -> impl Iterator<Item = (u64, &Fact)> {
        self.facts.iter().map(|(lsn, fact)| (*lsn, fact))
    }

    /// Returns this log with what was acknowledged, or seen, at an earlier time.
    pub fn with_floor_of(&self, earlier: &Self) -> Self {
        let last = self.facts.last().map_or(0, |(lsn, _)| *lsn);
        let highest_lsn = earlier.highest_lsn.max(last);
        Self {
            facts: self.facts.clone(),
            floor: earlier.floor,
            read: earlier.read,
            retired: earlier.retired,
            highest_lsn,
        }
    }

    /// Notes that a compaction was acknowledged, and which files it left.
    pub fn compacted<'a>(&mut self, names: impl Iterator<Item = &'a String>) {
        let (mut segments, mut snapshots) = (u64::MAX, 0);
        for name in names {
            match number_of(name) {
                Some(("segment", number)) => segments = segments.min(number),
                Some(("snapshot", lsn)) => snapshots = snapshots.max(lsn),
                _ => {}
            }
        }
        self.retired = Retired { segments_below: segments, snapshots_below: snapshots };
    }

    /// Checks that nothing has come back that a compaction had retired.
    pub fn check_retired<'a>(&self, names: impl Iterator<Item = &'a String>) -> Result<(), String> {
        let is_back = |name: &&String| match number_of(name) {
            Some(("segment", number)) => number < self.retired.segments_below,
            Some(("snapshot", lsn)) => lsn < self.retired.snapshots_below,
            _ => false,
        };
        match { names }.find(is_back) {
            Some(name) => Err(format!("{name} is back, which a compaction had retired")),
            None => Ok(()),
        }
    }

    /// Sums up what must, and what may, come back.
    pub fn digest(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        (format!("{:?}", self.facts), self.floor, self.highest_lsn).hash(&mut hasher);
        hasher.finish()
    }

    /// Counts what may not be lost.
    pub fn floor(&self) -> usize {
        self.floor
    }

    /// Lists the exchanges that were begun, durably, under tags of their own.
    pub fn callbacks(&self) -> impl Iterator<Item = (u64, AccountTag, Lsn)> {
        self.facts[..self.floor].iter().filter_map(|(lsn, fact)| match fact {
            Fact::Provisional { tag, since } => Some((*lsn, *tag, *since)),
            _ => None,
        })
    }

    /// Counts the records up to an LSN.
    pub fn count_through(&self, lsn: u64) -> usize {
        self.facts.partition_point(|(other, _)| *other <= lsn)
    }

    /// Counts what was submitted and may be lost.
    pub fn in_flight(&self) -> usize {
        self.facts.len() - self.floor
    }

    /// Returns what all that was submitted adds up to.
    pub fn state(&self) -> State {
        self.state_at(self.facts.len())
    }

    fn state_at(&self, length: usize) -> State {
        let mut state = State::default();
        for (place, (_, fact)) in self.facts[..length].iter().enumerate() {
            state.apply(place, fact);
        }
        state
    }

    /// Finds the prefix that adds up to what was seen. What lies in it may never vanish again;
    /// what lies behind it is lost for good, unless `more_to_come` from a journal that still runs.
    pub fn saw(&mut self, seen: &[SeenAccount], more_to_come: bool) -> Result<(), String> {
        let length = self.shows(seen, self.floor)?;
        self.floor = length;
        if !more_to_come {
            self.facts.truncate(length);
        }
        Ok(())
    }

    /// Notes what somebody saw who reads beside the writer: not less than before, and from now on
    /// it may not vanish.
    pub fn read_beside(&mut self, seen: &[SeenAccount]) -> Result<(), String> {
        self.read = self.shows(seen, self.read)?;
        self.floor = self.floor.max(self.read);
        Ok(())
    }

    /// Finds the shortest prefix of at least `least` records that adds up to what was seen.
    pub fn shows(&self, seen: &[SeenAccount], least: usize) -> Result<usize, String> {
        let mut differences = String::new();
        let mut state = self.state_at(least);
        for length in least..=self.facts.len() {
            match self.compare(&state, seen) {
                Ok(()) => return Ok(length),
                Err(difference) => {
                    differences = format!("{differences}\n  the first {length}: {difference}");
                }
            }
            if let Some((_, fact)) = self.facts.get(length) {
                state.apply(length, fact);
            }
        }
        let log: Vec<_> = self.facts.iter().enumerate().collect();
        Err(format!(
            "what is there is no prefix of what was submitted, of which {least} of {} must be \
             there:{differences}\n  seen: {seen:#?}\n  log: {log:#?}",
            self.facts.len(),
        ))
    }

    fn compare(&self, state: &State, seen: &[SeenAccount]) -> Result<(), String> {
        let accounts = state.accounts();
        if accounts.len() != seen.len() {
            return Err(format!("{} accounts expected, {} seen", accounts.len(), seen.len()));
        }
        for whose in accounts {
            let grants: Vec<_> =
                state.grants.iter().filter(|(_, grant)| grant.whose == whose).collect();
            let operations: Vec<_> =
                state.operations.iter().filter(|(_, other)| other.whose == whose).collect();
            let first = grants.first().map(|(place, _)| **place);
            let first = first.or(operations.first().map(|(place, _)| **place));
            let first_lsn = first.map(|place| self.lsn(place));
            let is_it = |account: &&SeenAccount| match whose {
                Whose::User(user) => account.user == Some(user),
                Whose::Nobody(_) => {
                    let ids = account.grants.iter().map(|grant| grant.lsn);
                    let ops = account.operations.iter().map(|operation| operation.lsn);
                    account.user.is_none() && ids.chain(ops).any(|lsn| Some(lsn) == first_lsn)
                }
            };
            let account = seen.iter().find(is_it).ok_or_else(|| {
                format!("account {whose:?} is missing: {grants:?} {operations:?}")
            })?;
            self.compare_account(&grants, &operations, account)
                .map_err(|difference| format!("account {whose:?}: {difference}"))?;
        }
        Ok(())
    }

    fn compare_account(
        &self,
        grants: &[(&Place, &Grant)],
        operations: &[(&Place, &Operation)],
        seen: &SeenAccount,
    ) -> Result<(), String> {
        let grant = |(place, grant): &(&Place, &Grant)| SeenGrant {
            lsn: self.lsn(**place),
            generation: grant.generation,
            ended: grant.ended,
            holders: grant.holders.clone(),
            imported: grant.imported,
            paused: grant.paused,
            refused: grant.refused,
            told_ms: grant.told_ms,
            besides: grant.beside.len(),
            beside: Some(match grant.ended {
                true => Vec::new(),
                false => grant.beside.iter().rev().map(|(_, access)| access.clone()).collect(),
            }),
            pair: Some((grant.access.clone(), grant.refresh.clone())),
            previous: grant.previous.clone(),
        };
        let mut expected: Vec<_> = grants.iter().map(grant).collect();
        if !seen.with_pairs {
            for grant in &mut expected {
                (grant.pair, grant.previous, grant.beside) = (None, None, None);
            }
        }
        if expected != seen.grants {
            return Err(format!("grants {:?}, not {expected:?}", seen.grants));
        }
        let operation = |(place, operation): &(&Place, &Operation)| SeenOperation {
            lsn: self.lsn(**place),
            asked: match operation.asked {
                Asked::Beside(_) => Asked::Beside(0),
                asked => asked,
            },
            doubted: operation.doubted,
        };
        let expected: Vec<_> = operations.iter().map(operation).collect();
        if expected != seen.operations {
            return Err(format!("operations {:?}, not {expected:?}", seen.operations));
        }
        Ok(())
    }
}

/// Takes a segment's or snapshot's name apart.
fn number_of(name: &str) -> Option<(&str, u64)> {
    let (kind, rest) = name.split_once('-')?;
    let (number, end) = rest.split_once('.')?;
    (end == "twj" || end == "tws").then_some((kind, number.parse().ok()?))
}
