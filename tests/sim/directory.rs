//! The simulated directory: names that are durable, names that a process sees, and the changes
//! between them, each of which may survive a power cut or not [M-5].

use std::collections::BTreeMap;

use super::file::Cut;
use super::rng::Rng;

#[derive(Debug, Clone)]
enum Change {
    Link { number: u64, name: String, file: u64 },
    Rename { number: u64, from: String, to: String, file: u64 },
    Unlink { number: u64, name: String },
}

/// The names of a directory and the files that they stand for.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    durable: BTreeMap<String, u64>,
    live: BTreeMap<String, u64>,
    pending: Vec<Change>,
}

impl Directory {
    /// Returns what a process sees.
    pub fn live(&self) -> &BTreeMap<String, u64> {
        &self.live
    }

    pub fn link(&mut self, number: u64, name: &str, file: u64) {
        self.live.insert(name.to_owned(), file);
        self.pending.push(Change::Link { number, name: name.to_owned(), file });
    }

    /// Renames; the caller has checked that `from` is there.
    pub fn rename(&mut self, number: u64, from: &str, to: &str) {
        let file = self.live.remove(from).expect("the caller has checked it");
        self.live.insert(to.to_owned(), file);
        let (from, to) = (from.to_owned(), to.to_owned());
        self.pending.push(Change::Rename { number, from, to, file });
    }

    pub fn unlink(&mut self, number: u64, name: &str) {
        self.live.remove(name);
        self.pending.push(Change::Unlink { number, name: name.to_owned() });
    }

    /// Makes all changes durable.
    pub fn sync(&mut self) {
        self.durable = self.live.clone();
        self.pending.clear();
    }

    /// Returns the numbers of the changes that are not yet durable.
    pub fn pending(&self) -> impl Iterator<Item = u64> {
        self.pending.iter().map(Change::number)
    }

    /// Turns the directory into what is there after the power came back.
    pub fn power_cut(&mut self, cut: Cut, rng: &mut Rng) {
        for change in std::mem::take(&mut self.pending) {
            if cut.keeps(change.number(), rng) {
                self.apply(change, rng);
            }
        }
        self.live = self.durable.clone();
    }

    fn apply(&mut self, change: Change, rng: &mut Rng) {
        match change {
            Change::Link { name, file, .. } => {
                self.durable.insert(name, file);
            }
            Change::Rename { from, to, file, .. } => {
                // Now and then the new name is there and the old one not yet gone.
                if self.durable.get(&from) == Some(&file) && !rng.chance(10) {
                    self.durable.remove(&from);
                }
                self.durable.insert(to, file);
            }
            Change::Unlink { name, .. } => {
                self.durable.remove(&name);
            }
        }
    }
}

impl Change {
    fn number(&self) -> u64 {
        match self {
            Self::Link { number, .. }
            | Self::Rename { number, .. }
            | Self::Unlink { number, .. } => *number,
        }
    }
}
