//! Makes a new store of what can be read of a damaged one.
//!
//! The damaged store is never written to. What it folds to, as far as it can be read, becomes a
//! snapshot, with every record byte for byte as it stood and the store's id, tag key and data keys
//! kept, so that nothing is sealed anew; one fresh segment follows it. What cannot be saved is said
//! before anything is written.
//!
//! With the keys every record is authenticated, and one that fails is left behind.

mod harvest;
mod loss;
mod patient;
mod reading;
mod sources;
mod write;

pub use loss::Loss;

use super::Progress;
use super::picture::Teller;
use crate::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::disk::Disk;
use crate::engine::keychain::Keychain;
use crate::error::Error;
use crate::ids::{Lsn, StoreId};
use crate::journal::OperationView;
use crate::journal::open::pid_of;
use crate::keys::KeySource;
use harvest::{Harvest, harvest};
use serde::Serialize;
use sources::Sources;
use std::fmt;
use std::sync::Arc;

/// Salvages stores.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let damaged = dir.path().join("damaged");
/// # let keys = tokenwal::FixedKeys::new([7; 32], []);
/// # let options = || tokenwal::Options::new(tokenwal::FixedKeys::new([7; 32], []));
/// # options().create(&damaged)?.0.blocking().close()?;
/// use tokenwal::inspect::{self, Salvage};
///
/// let plan = Salvage::new(&keys).plan(inspect::directory(&damaged)?)?;
/// for loss in plan.losses() {
///     eprintln!("cannot be saved: {loss}");
/// }
/// let into = dir.path().join("saved");
/// plan.write(inspect::new_directory_like(&into, &damaged)?)?;
/// options().open(&into)?.0.blocking().close()?;
/// # Ok(())
/// # }
/// ```
pub struct Salvage<'a> {
    keys: &'a dyn KeySource,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl<'a> Salvage<'a> {
    /// Begins with the store's keys.
    pub fn new(keys: &'a dyn KeySource) -> Self {
        Self { keys, clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy) }
    }

    /// Uses this clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Uses this source of randomness.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// Reads all that can be read of a store, and works out what cannot be saved.
    ///
    /// # Errors
    /// [`Error::Locked`] while a process has the store open, [`Error::WrongKey`],
    /// [`Error::NewerFormat`], and [`Error::Corrupt`] where there is nothing left to save.
    pub fn plan(&self, from: Arc<dyn Disk>) -> Result<SalvagePlan, Error> {
        self.plan_with(from, &mut |_| ())
    }

    /// As [`Salvage::plan`], and tells how far it has got.
    ///
    /// # Errors
    /// As [`Salvage::plan`].
    pub fn plan_with(
        &self,
        from: Arc<dyn Disk>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<SalvagePlan, Error> {
        let io = Error::io("looking for the store's owner", from.path());
        if from.is_locked().map_err(io)? {
            let pid = pid_of(&from.lock_note().unwrap_or_default());
            return Err(Error::Locked { dir: from.path(), pid });
        }
        let mut sources = Sources::read(&*from)?;
        let keychain = sources.unlock(self.keys)?;
        let teller = Teller::new(progress);
        let harvest = harvest(&*from, &mut sources, &keychain, &teller)?;
        Ok(SalvagePlan {
            harvest,
            keychain,
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
        })
    }
}

impl fmt::Debug for Salvage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Salvage").finish_non_exhaustive()
    }
}

/// What can be saved of a store, and what cannot.
pub struct SalvagePlan {
    harvest: Harvest,
    keychain: Keychain,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl SalvagePlan {
    /// Returns what cannot be saved, in the order in which it was come upon.
    pub fn losses(&self) -> &[Loss] {
        &self.harvest.losses
    }

    /// Returns the operations without a final outcome; those whose outcome was lost are among them.
    pub fn in_doubt(&self) -> Vec<OperationView> {
        self.harvest.in_doubt()
    }

    /// Writes the new store into an empty directory.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::Locked`], [`Error::Io`]; what was begun is then no store, and
    /// the damaged one is as it was.
    pub fn write(self, into: Arc<dyn Disk>) -> Result<Salvaged, Error> {
        write::write(self, into)
    }
}

impl fmt::Debug for SalvagePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SalvagePlan").field("losses", &self.harvest.losses).finish_non_exhaustive()
    }
}

/// What a salvage has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Salvaged {
    /// The store; the same as before.
    pub store: StoreId,
    /// The new snapshot's LSN, which is above every LSN that was ever given out.
    pub lsn: Lsn,
    /// Accounts that were saved.
    pub accounts: u64,
    /// Records that were saved.
    pub records: u64,
    /// Segments and snapshots that something was read of.
    pub files: u64,
    /// How many losses there were.
    pub losses: u64,
    /// Operations without a final outcome, in the order of their ids.
    pub in_doubt: Vec<OperationView>,
}
