//! What a run has seen: crashes that count, distinct states, verdicts, how deep crashes nested.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// Counts over many histories.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Crashes with acknowledged records and pending operations; the others do not count.
    pub crashes: u64,
    /// Crashes that could not lose or harm anything.
    pub idle_crashes: u64,
    pub histories: u64,
    pub states: HashSet<u64>,
    pub verdicts: BTreeMap<String, u64>,
    /// How many crashes counted at each depth: 1 in a running journal, more in its recoveries.
    pub nesting: BTreeMap<usize, u64>,
    /// What crashes interrupted.
    pub during: BTreeMap<&'static str, u64>,
    /// What salvages came to.
    pub salvages: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.idle_crashes += other.idle_crashes;
        self.histories += other.histories;
        self.states.extend(other.states);
        for (verdict, count) in other.verdicts {
            *self.verdicts.entry(verdict).or_default() += count;
        }
        for (depth, count) in other.nesting {
            *self.nesting.entry(depth).or_default() += count;
        }
        for (what, count) in other.during {
            *self.during.entry(what).or_default() += count;
        }
        for (what, count) in other.salvages {
            *self.salvages.entry(what).or_default() += count;
        }
    }

    pub fn salvage(&mut self, what: &'static str) {
        *self.salvages.entry(what).or_default() += 1;
    }

    pub fn crash(&mut self, counts: bool, depth: usize, during: &'static str) {
        if counts {
            self.crashes += 1;
            *self.nesting.entry(depth).or_default() += 1;
            *self.during.entry(during).or_default() += 1;
        } else {
            self.idle_crashes += 1;
        }
    }

    pub fn verdict(&mut self, verdict: &str) {
        *self.verdicts.entry(verdict.to_owned()).or_default() += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "histories: {}, crashes that had nothing at stake: {}, distinct states: {}",
            self.histories,
            self.idle_crashes,
            self.states.len()
        )?;
        writeln!(f, "verdicts: {:?}", self.verdicts)?;
        writeln!(f, "crashes at nesting depth: {:?}", self.nesting)?;
        writeln!(f, "crashes during: {:?}", self.during)?;
        write!(f, "salvages: {:?}", self.salvages)
    }
}
