//! The engine: records go in, durable state comes out.
//!
//! - `state` folds the records of one account, grant by `grant`, whose tokens' ends `lapse` adds up;
//!   `accounts` knows where each account's state is.
//! - `callbacks` knows which provisional tags were used, and where their grants went.
//! - `fill` is what callers fill under one lock; `commit` writes it, a batch a step; `completion`
//!   tells the callers.
//! - `prepare` keeps segments ready; `compact` folds the journal into a snapshot; `table` is the
//!   snapshot.
//! - `files` finds a record by its LSN; `read` looks accounts up; `replay` folds a journal anew,
//!   and `past` gathers what is kept of an account's.
//!
//! Commit, preparing and compaction are step functions. Threads drive them in a service, a
//! simulator steps them itself, and nothing here starts a thread, reads a clock or names a file.

pub(crate) mod accounts;
pub(crate) mod callbacks;
mod commit;
mod compact;
mod completion;
pub(crate) mod files;
pub(crate) mod fill;
pub(crate) mod grant;
pub(crate) mod keychain;
pub(crate) mod lapse;
#[cfg(test)]
mod laws;
pub(crate) mod past;
pub(crate) mod prepare;
mod read;
pub(crate) mod replay;
mod signal;
pub(crate) mod state;
pub(crate) mod table;

pub(crate) use commit::Writer;
pub use compact::Compacted;
pub(crate) use completion::{Durable, block_on};

use crate::clock::{Clock, Entropy};
use crate::disk::{Disk, DiskLock};
use crate::error::Error;
use crate::format::clear::Clear;
use crate::format::record::set_lsn;
use crate::format::value::MarkerReason;
use crate::ids::{HostTag, Lsn, OwnerId};
use crate::seal::Sealer;
use crate::sync::{lock, read_lock, write_lock};
use accounts::{Accounts, Next, Seen};
use compact::Compactor;
use files::{Files, RecordBytes};
use fill::{Closing, Core, Declined, Draft, Limits, Room};
use keychain::Keychain;
use prepare::Preparer;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use signal::Signal;
use state::Operation;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use tokio::sync::Notify;

/// What the engine reaches the world through.
#[derive(Clone)]
pub(crate) struct Seams {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
}

impl fmt::Debug for Seams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seams").field("disk", &self.disk).finish_non_exhaustive()
    }
}

/// Weighs a record by its length.
#[derive(Debug, Clone)]
struct ByLength;

impl Weighter<Lsn, RecordBytes> for ByLength {
    fn weight(&self, _: &Lsn, bytes: &RecordBytes) -> u64 {
        bytes.len() as u64
    }
}

/// An outcome whose caller went away before it could be submitted.
pub(crate) trait Deferred: Send + fmt::Debug {
    /// Tries to submit it; says whether that is done with.
    fn try_submit(&mut self, engine: &Engine) -> bool;
}

/// Counts what was written since the journal was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) batches: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) rollovers: AtomicU64,
    /// Callers that had to wait for space.
    pub(crate) waits: AtomicU64,
}

/// A record that was taken into a batch.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) lsn: Lsn,
    pub(crate) durable: Durable,
    /// The record as it is being written, if it is a pair's.
    pub(crate) pair: Option<RecordBytes>,
}

/// An open journal.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) seams: Seams,
    pub(crate) limits: Limits,
    pub(crate) keychain: Keychain,
    pub(crate) host: HostTag,
    pub(crate) owner: OwnerId,
    pub(crate) incarnation: u64,
    /// What is not beyond it was written before the journal was opened.
    opened: Lsn,
    /// Compact when the tail is this many hundredths of the snapshot; 0 for never.
    pub(crate) compaction_percent: u32,
    pub(crate) core: Mutex<Core>,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) durable: RwLock<Accounts>,
    pub(crate) files: RwLock<Files>,
    preparer: Mutex<Preparer>,
    compactor: Mutex<Compactor>,
    next_segment_number: AtomicU64,
    /// The key of the newest segment, and its ordinal.
    key: RwLock<(u64, Arc<Sealer>)>,
    head: AtomicU64,
    cache: Cache<Lsn, RecordBytes, ByLength>,
    abandoned: Mutex<Vec<Box<dyn Deferred>>>,
    pub(crate) counters: Counters,
    /// A caller found no room lately.
    short: AtomicBool,
    /// Wakes callers who wait for space.
    pub(crate) space: Notify,
    /// Wakes the writer.
    pub(crate) signal: Signal,
    /// Wakes whoever prepares and compacts.
    pub(crate) chores: Signal,
    /// Held until the journal is closed.
    pub(crate) disk_lock: Mutex<Option<Box<dyn DiskLock>>>,
}

/// What an engine begins with.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) seams: Seams,
    pub(crate) limits: Limits,
    pub(crate) keychain: Keychain,
    pub(crate) host: HostTag,
    pub(crate) owner: OwnerId,
    pub(crate) incarnation: u64,
    pub(crate) compaction_percent: u32,
    pub(crate) cache_bytes: usize,
    pub(crate) accounts: Accounts,
    pub(crate) files: Files,
    pub(crate) head: Lsn,
    pub(crate) next_segment_number: u64,
    pub(crate) current: prepare::Prepared,
    pub(crate) disk_lock: Box<dyn DiskLock>,
}

impl Engine {
    pub(crate) fn new(beginning: Beginning) -> Self {
        let Beginning { current, limits, head, .. } = beginning;
        let tail_left = current.segment_bytes().saturating_sub(current.tail.offset);
        let key = (0, Arc::clone(&current.sealer));
        let core = Core::new(limits, head.plus(1), tail_left);
        let cache_bytes = beginning.cache_bytes as u64;
        Self {
            seams: beginning.seams,
            limits,
            keychain: beginning.keychain,
            host: beginning.host,
            owner: beginning.owner,
            incarnation: beginning.incarnation,
            opened: head,
            compaction_percent: beginning.compaction_percent,
            core: Mutex::new(core),
            writer: Mutex::new(Writer { current, spare: None }),
            durable: RwLock::new(beginning.accounts),
            files: RwLock::new(beginning.files),
            preparer: Mutex::default(),
            compactor: Mutex::default(),
            next_segment_number: AtomicU64::new(beginning.next_segment_number),
            key: RwLock::new(key),
            head: AtomicU64::new(head.0),
            cache: Cache::with_weighter(beginning.cache_bytes / 512 + 1, cache_bytes, ByLength),
            abandoned: Mutex::default(),
            counters: Counters::default(),
            short: AtomicBool::new(false),
            space: Notify::new(),
            signal: Signal::default(),
            chores: Signal::default(),
            disk_lock: Mutex::new(Some(beginning.disk_lock)),
        }
    }

    /// Returns the last LSN that is durable.
    pub(crate) fn head(&self) -> Lsn {
        Lsn(self.head.load(Ordering::Acquire))
    }

    fn set_head(&self, lsn: Lsn) {
        self.head.store(lsn.0, Ordering::Release);
    }

    /// Says whether an operation is in doubt, as its record says, or since whoever began it is gone:
    /// no call of this opening is on its way for it.
    pub(crate) fn is_doubtful(&self, operation: &Operation) -> bool {
        operation.doubt.is_some() || operation.op.0 <= self.opened.0
    }

    /// Returns the data key to seal with, and which of this process's it is.
    pub(crate) fn key(&self) -> (u64, Arc<Sealer>) {
        let key = read_lock(&self.key);
        (key.0, Arc::clone(&key.1))
    }

    fn use_key(&self, sealer: &Arc<Sealer>, ordinal: u64) {
        *write_lock(&self.key) = (ordinal, Arc::clone(sealer));
    }

    /// Says whether there is room for a record that is still to be drafted; as long as callers find
    /// room, nobody is asked.
    pub(crate) fn admits(&self, room: Room) -> Result<(), Declined> {
        if !self.short.load(Ordering::Relaxed) {
            return Ok(());
        }
        lock(&self.core).admits(room)?;
        self.short.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Submits a draft; it is durable when the completion says so.
    pub(crate) fn submit(
        &self,
        draft: &Draft,
        room: Room,
        seen: &[Seen],
    ) -> Result<Submission, Declined> {
        let is_pair = matches!(draft.clear, Clear::Issued(_) | Clear::Imported(_));
        let mut pair: Option<RecordBytes> = is_pair.then(|| draft.record.as_slice().into());
        let (lsn, completion, first) = {
            let next = Next::of(seen);
            let mut core = lock(&self.core);
            let submitted = core.submit(&self.durable, draft, room, seen, next);
            let (lsn, completion) = submitted.inspect_err(|declined| {
                let short = matches!(declined, Declined::Full | Declined::NoRoom);
                self.short.fetch_or(short, Ordering::Relaxed);
            })?;
            if let Some(bytes) = &mut pair {
                set_lsn(Arc::make_mut(bytes), lsn);
                core.pairs.push_back((lsn, Arc::clone(bytes)));
            }
            (lsn, completion, core.fill.callers == 1)
        };
        if let Some(bytes) = &pair {
            self.cache.insert(lsn, Arc::clone(bytes));
        }
        if first {
            self.signal.raise();
        }
        Ok(Submission { lsn, durable: Durable::new(completion), pair })
    }

    /// Gives back what was promised to an outcome that will not come through its ticket.
    pub(crate) fn give_back(&self, promise: u64) {
        let mut core = lock(&self.core);
        core.promised = core.promised.saturating_sub(promise);
        drop(core);
        self.space.notify_waiters();
    }

    /// Takes over an outcome whose caller went away.
    pub(crate) fn adopt_outcome(&self, mut outcome: Box<dyn Deferred>) {
        let core = lock(&self.core);
        if core.fate.is_some() || core.closing == Closing::Closed {
            drop(core);
            // Nobody will take it any more; it says so itself.
            outcome.try_submit(self);
            return;
        }
        lock(&self.abandoned).push(outcome);
        drop(core);
        self.signal.raise();
    }

    /// Submits what callers left behind, as far as it fits.
    fn settle_abandoned(&self) {
        let mut abandoned = std::mem::take(&mut *lock(&self.abandoned));
        abandoned.retain_mut(|outcome| !outcome.try_submit(self));
        if !abandoned.is_empty() {
            lock(&self.abandoned).append(&mut abandoned);
        }
    }

    /// Writes a batch if nobody else is writing; says whether it wrote one.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub(crate) fn try_step_commit(&self) -> Result<bool, Error> {
        match self.writer.try_lock() {
            Ok(writer) => {
                drop(writer);
                self.step_commit()
            }
            Err(_) => Ok(false),
        }
    }

    /// Begins to close: takes only outcomes from now on. Says false if somebody else has begun.
    pub(crate) fn begin_closing(&self) -> bool {
        let mut core = lock(&self.core);
        let begins = core.closing == Closing::No;
        if begins {
            core.closing = Closing::Draining;
        }
        begins
    }

    /// Writes what is left, marks the end, and removes the segments that were only prepared. The
    /// threads have ended before.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub(crate) fn close(&self) -> Result<(), Error> {
        loop {
            while self.step_commit()? {}
            let mut core = lock(&self.core);
            if core.fill.callers == 0 && lock(&self.abandoned).is_empty() {
                core.closing = Closing::Closed;
                break;
            }
        }
        self.space.notify_waiters();
        self.mark(MarkerReason::Close)?;
        while self.step_commit()? {}
        let prepared = std::mem::take(&mut lock(&self.core).prepared);
        for segment in prepared {
            // What cannot be removed now is removed by the next opening.
            let _ = self.seams.disk.remove(&segment.read.name);
        }
        Ok(())
    }

    /// Says whether callers may soon have to wait for a segment.
    pub(crate) fn is_short_of_room(&self) -> bool {
        let core = lock(&self.core);
        core.prepared.is_empty() || core.free() < core.limits.roll_below()
    }

    fn count_batch(&self, records: usize, bytes: u64, rolled: bool) {
        let counters = &self.counters;
        counters.batches.fetch_add(1, Ordering::Relaxed);
        counters.records.fetch_add(records as u64, Ordering::Relaxed);
        counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        counters.rollovers.fetch_add(u64::from(rolled), Ordering::Relaxed);
    }
}
