//! Folds the journal into a snapshot beside running appends, and retires what it covers.
//!
//! Implements journal-format.md, section 13, "Compact", one step at a time: roll over; write what
//! was frozen at that point, merged with the snapshot before; sync; read all of it again; rename;
//! sync the directory; put it in place; only then unlink what it covers. A failure before the name
//! retires nothing and loses nothing.

mod table;

use super::Engine;
use super::accounts::{Accounts, prune};
use super::files::Files;
use super::prepare::is_out_of_space;
use super::table::Snapshot;
use crate::error::Error;
use crate::format::name::snapshot_name;
use crate::ids::{Lsn, Nonce};
use crate::sync::{lock, read_lock, write_lock};
use std::sync::Arc;
use table::{Frozen, Proof, Writing, prove_some, temporary_of};
use tokio::sync::oneshot;

/// What a compaction did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Compacted {
    /// All records up to and with this LSN are in the snapshot.
    pub lsn: Lsn,
    /// Accounts in it.
    pub accounts: u64,
    /// Records in it.
    pub records: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Segments that were retired.
    pub segments_retired: u64,
}

/// Who hears how a compaction ended.
type Waiter = oneshot::Sender<Result<Compacted, Arc<Error>>>;

/// The compaction that is under way, and who waits for it or for the next one.
#[derive(Debug, Default)]
pub(crate) struct Compactor {
    stage: Stage,
    waiting: Vec<Waiter>,
    /// These asked when one had already begun: what they want folded may be beyond it.
    waiting_for_next: Vec<Waiter>,
    /// The journal was closed or poisoned: nobody will take another step.
    over: bool,
}

/// What compaction is at.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    /// A step is running.
    Busy,
    /// The next roll-over freezes the accounts.
    Rolling,
    Frozen(Frozen),
    Writing(Box<Writing>),
    Syncing(Box<Writing>),
    Proving {
        work: Box<Writing>,
        proof: Box<Proof>,
    },
    Naming(Box<Writing>),
    SyncingName(Box<Writing>),
    Retiring {
        names: Vec<String>,
        done: Compacted,
    },
    SyncingRetired(Compacted),
}

impl Engine {
    /// Asks for a compaction of all that is durable now; the answer comes when it is over.
    pub(crate) fn want_compaction(&self) -> oneshot::Receiver<Result<Compacted, Arc<Error>>> {
        let (sender, receiver) = oneshot::channel();
        let begins = {
            let mut compactor = lock(&self.compactor);
            if compactor.over {
                return receiver;
            }
            let idle = matches!(compactor.stage, Stage::Idle);
            if idle {
                compactor.stage = Stage::Rolling;
                compactor.waiting.push(sender);
            } else {
                compactor.waiting_for_next.push(sender);
            }
            idle
        };
        if begins {
            self.roll_over();
        }
        receiver
    }

    /// Lets go of those who wait, since no compaction will end any more.
    pub(crate) fn end_compactions(&self) {
        let mut compactor = lock(&self.compactor);
        compactor.over = true;
        let waiting = std::mem::take(&mut compactor.waiting);
        let next = std::mem::take(&mut compactor.waiting_for_next);
        drop(compactor);
        // Whoever waits hears of it by losing its sender.
        drop((waiting, next));
    }

    fn roll_over(&self) {
        lock(&self.core).roll_wanted = true;
        self.signal.raise();
        self.chores.raise();
    }

    /// Says whether the tail has grown so long that it should be folded, or may be folded to make
    /// room where there is none.
    pub(crate) fn is_compaction_due(&self) -> bool {
        let short = self.found_no_room();
        let files = read_lock(&self.files);
        let tail: u64 = files.segments.iter().map(|segment| segment.bytes).sum();
        let snapshot = files.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes());
        let least = self.limits.segment_bytes.saturating_mul(2);
        let limit = (snapshot / 100).saturating_mul(u64::from(self.compaction_percent)).max(least);
        // Short of room, all that a compaction needs is a whole segment that it can retire.
        let limit = if short { self.limits.segment_bytes } else { limit };
        self.compaction_percent > 0
            && tail > limit
            && matches!(lock(&self.compactor).stage, Stage::Idle)
    }

    /// Called in the writer's step, when a roll-over is durable and all before it is applied.
    pub(crate) fn freeze_if_asked(&self, durable: &mut Accounts, lsn: Lsn, tail: (Nonce, u64)) {
        let mut compactor = lock(&self.compactor);
        if matches!(compactor.stage, Stage::Rolling) {
            compactor.stage = Stage::Frozen(Frozen {
                lsn,
                slots: durable.freeze(),
                claimed: durable.claimed(),
                tail: tail.0,
                tail_number: tail.1,
                files: Files::default(),
            });
            self.chores.raise();
        }
    }

    /// Does one step of the compaction that is under way; says whether it did something.
    ///
    /// # Errors
    /// What made the compaction give up; the journal goes on without it. A failure at the name or
    /// at the directory poisons the journal.
    pub(crate) fn step_compact(&self) -> Result<bool, Arc<Error>> {
        // Poisoned, the journal changes nothing on the disk any more.
        let cannot_roll = {
            let core = lock(&self.core);
            if core.is_over() {
                return Ok(false);
            }
            core.roll_wanted && core.no_room && !core.may_roll()
        };
        let stage = {
            let mut compactor = lock(&self.compactor);
            if matches!(compactor.stage, Stage::Rolling) && cannot_roll {
                drop(compactor);
                return Err(self.give_up_rolling());
            }
            if matches!(compactor.stage, Stage::Idle | Stage::Busy | Stage::Rolling) {
                return Ok(false);
            }
            std::mem::replace(&mut compactor.stage, Stage::Busy)
        };
        match self.advance_compaction(stage) {
            Ok((next, None)) => lock(&self.compactor).stage = next,
            Ok((_, Some(done))) => self.end_compaction(Ok(done)),
            Err(error) => {
                let error = Arc::new(self.give_up_compaction(error));
                self.end_compaction(Err(Arc::clone(&error)));
                return Err(error);
            }
        }
        Ok(true)
    }

    /// Gives a compaction up that cannot even roll over: what was promised needs all the room
    /// there is, and no more can be had.
    fn give_up_rolling(&self) -> Arc<Error> {
        let needed = {
            let mut core = lock(&self.core);
            core.roll_wanted = false;
            core.promised.saturating_add(core.charged)
        };
        let error = Arc::new(Error::NoRoom { needed });
        self.end_compaction(Err(Arc::clone(&error)));
        error
    }

    /// Tells those who waited, and begins anew for those who asked since.
    fn end_compaction(&self, result: Result<Compacted, Arc<Error>>) {
        let (told, again) = {
            let mut compactor = lock(&self.compactor);
            let next = std::mem::take(&mut compactor.waiting_for_next);
            let told = std::mem::replace(&mut compactor.waiting, next);
            let again = !compactor.waiting.is_empty();
            compactor.stage = if again { Stage::Rolling } else { Stage::Idle };
            (told, again)
        };
        for waiter in told {
            // One that has gone away wants no answer.
            let _ = waiter.send(result.clone());
        }
        if again {
            self.roll_over();
        }
    }

    fn give_up_compaction(&self, error: Error) -> Error {
        write_lock(&self.durable).thaw();
        if matches!(error, Error::Poisoned(_)) {
            return error;
        }
        tracing::warn!(
            target: "tokenwal",
            out_of_space = is_out_of_space(&error),
            "compaction gave up; nothing was retired"
        );
        error
    }

    fn advance_compaction(&self, stage: Stage) -> Result<(Stage, Option<Compacted>), Error> {
        let next = match stage {
            Stage::Idle | Stage::Busy | Stage::Rolling => stage,
            Stage::Frozen(frozen) => Stage::Writing(Box::new(self.begin_table(frozen)?)),
            Stage::Writing(mut work) => match self.write_some(&mut work)? {
                true => Stage::Syncing(work),
                false => Stage::Writing(work),
            },
            Stage::Syncing(work) => {
                let io = Error::io("syncing a snapshot", temporary_of(&work));
                work.table.file().sync().map_err(io)?;
                let snapshot =
                    Snapshot::open_named(&*self.seams.disk, temporary_of(&work), work.frozen.lsn)?;
                let proof = Box::new(Proof { snapshot, next_block: 0 });
                Stage::Proving { work, proof }
            }
            Stage::Proving { work, mut proof } => match prove_some(&mut proof)? {
                true => Stage::Naming(work),
                false => Stage::Proving { work, proof },
            },
            Stage::Naming(work) => {
                self.open_tail()?;
                let (from, to) = (temporary_of(&work), snapshot_name(work.frozen.lsn));
                let io = Error::io("naming a snapshot", to.clone());
                self.seams.disk.rename(&from, &to).map_err(io).map_err(|e| self.poison(e))?;
                Stage::SyncingName(work)
            }
            Stage::SyncingName(work) => {
                self.sync_dir().map_err(|error| self.poison(error))?;
                let (names, done) = self.install(&work)?;
                Stage::Retiring { names, done }
            }
            Stage::Retiring { mut names, done } => match names.pop() {
                Some(name) => {
                    self.retire(&name)?;
                    Stage::Retiring { names, done }
                }
                None => Stage::SyncingRetired(done),
            },
            Stage::SyncingRetired(done) => {
                self.sync_dir().map_err(|error| self.poison(error))?;
                return Ok((Stage::Idle, Some(done)));
            }
        };
        Ok((next, None))
    }

    /// Makes the `Opened` of the segment being written durable, without waiting for company: once
    /// what is before it is retired, nothing else says who wrote the journal, and where.
    fn open_tail(&self) -> Result<(), Error> {
        lock(&self.core).fill.waits = false;
        self.step_commit().map(drop)
    }

    /// Puts the new snapshot in place and names what it covers, the newest last: names are taken
    /// off the end, and the snapshot before goes first of all.
    fn install(&self, work: &Writing) -> Result<(Vec<String>, Compacted), Error> {
        let snapshot = Arc::new(Snapshot::open(&*self.seams.disk, work.frozen.lsn)?);
        let footer = *snapshot.footer();
        let mut retired = Vec::new();
        {
            let mut core = lock(&self.core);
            let mut durable = write_lock(&self.durable);
            let mut files = write_lock(&self.files);
            let (covered, kept) = std::mem::take(&mut files.segments)
                .into_iter()
                .partition(|segment: &Arc<_>| segment.number < work.frozen.tail_number);
            files.segments = kept;
            retired.extend(
                Vec::into_iter(covered)
                    .map(|segment: Arc<super::files::ReadSegment>| segment.name.clone()),
            );
            let segments_retired = retired.len() as u64;
            retired.extend(files.snapshot.take().map(|old| old.name().to_owned()));
            files.snapshot = Some(Arc::clone(&snapshot));
            let now_ms = self.seams.clock.now_ms();
            durable.install(Arc::clone(&snapshot), now_ms);
            core.fill.states.values_mut().for_each(|state| prune(state, now_ms));
            Arc::make_mut(&mut core.in_flight).values_mut().for_each(|state| prune(state, now_ms));
            let done = Compacted {
                lsn: work.frozen.lsn,
                accounts: footer.accounts,
                records: footer.records,
                bytes: snapshot.bytes(),
                segments_retired,
            };
            tracing::info!(target: "tokenwal", lsn = done.lsn.0, accounts = done.accounts, "compacted");
            Ok((retired, done))
        }
    }

    fn retire(&self, name: &str) -> Result<(), Error> {
        match self.seams.disk.remove(name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(self.poison(Error::io("retiring a file", name)(error)))
            }
            _ => Ok(()),
        }
    }

    fn sync_dir(&self) -> Result<(), Error> {
        let disk = &self.seams.disk;
        disk.sync_dir().map_err(Error::io("syncing the directory", disk.path()))
    }
}
