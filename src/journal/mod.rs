//! The embedded store: what a service opens, writes to and asks.
//!
//! - `open` recovers, `launch` sets going, `report` says what was found, `options` how to.
//! - `begin` gives a `ticket`, as `plan` says, within the provider's `cap`; `settle` takes it, and
//!   `draft` writes its outcome down, at the `place` where it goes; `resume` takes up what has no
//!   outcome yet. `redeemed` knows where the exchange of a callback went.
//! - `change` are the records of one kind each, and `import` takes pairs from elsewhere; `append` is
//!   the way of all of them to the engine.
//! - `look` finds what is durable; `pair`, `view` with `grant_view`, and `history` with its `event`s
//!   are what comes out. `drive` has the threads.

mod append;
mod begin;
mod blocking;
mod cap;
mod change;
mod draft;
mod drive;
mod event;
mod grant_view;
pub(crate) mod history;
mod import;
pub(crate) mod launch;
mod look;
pub(crate) mod open;
pub(crate) mod options;
mod pair;
mod place;
mod plan;
mod redeemed;
mod report;
mod resume;
mod settle;
mod ticket;
pub(crate) mod view;

pub use begin::Begin;
pub(crate) use begin::Target;
pub use blocking::Blocking;
pub use cap::{Cap, CapCounts};
pub use event::{Event, EventDetails};
pub use grant_view::{
    BesideView, EndView, GrantState, GrantView, HolderName, HolderView, RefusalView,
};
pub use history::History;
pub use import::{Import, Imported};
pub use look::Accounts;
pub use options::{Drive, Options};
pub use pair::IssuedPair;
pub use redeemed::Redeemed;
pub use report::Report;
pub use settle::{SettleError, Settled};
pub(crate) use ticket::Promise;
pub use ticket::Ticket;
pub use view::{AccountView, OperationView};

use crate::engine::{Compacted, Engine};
use crate::error::{Error, Poison};
use crate::format::value::MarkerReason;
use crate::ids::{Account, AccountTag, Lsn, StoreId};
use crate::seal::Tagger;
use crate::sync::{lock, read_lock};
use drive::Driver;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Names an account: by app and user, or by the tag that stands for them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AccountRef {
    /// By its tag, as views and pairs give it.
    Tag(AccountTag),
    /// By its names.
    Account(Account),
}

impl AccountRef {
    pub(crate) fn tag(&self, engine: &Engine) -> AccountTag {
        self.tag_by(engine.keychain.tagger())
    }

    pub(crate) fn tag_by(&self, tagger: &Tagger) -> AccountTag {
        match self {
            Self::Tag(tag) => *tag,
            Self::Account(account) => tagger.account(account),
        }
    }
}

impl From<AccountTag> for AccountRef {
    fn from(tag: AccountTag) -> Self {
        Self::Tag(tag)
    }
}

impl From<Account> for AccountRef {
    fn from(account: Account) -> Self {
        Self::Account(account)
    }
}

impl From<&Account> for AccountRef {
    fn from(account: &Account) -> Self {
        Self::Account(account.clone())
    }
}

/// What a journal has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// The last durable LSN.
    pub head: Lsn,
    /// The last LSN that was given to a record, durable or not.
    pub submitted: Lsn,
    /// Batches, each with one sync.
    pub batches: u64,
    /// Records in them, structural ones included.
    pub records: u64,
    /// Bytes of padded batches.
    pub bytes: u64,
    /// Roll-overs to another segment.
    pub rollovers: u64,
    /// Callers that had to wait for space.
    pub waits: u64,
    /// Bytes promised to outcomes that have not come.
    pub promised_bytes: u64,
    /// Bytes of room written ahead and not promised.
    pub free_bytes: u64,
    /// Segments that are ready.
    pub prepared_segments: usize,
    /// Segments that the newest snapshot does not cover.
    pub tail_segments: usize,
    /// Length of the newest snapshot in bytes.
    pub snapshot_bytes: u64,
    /// Accounts that changed since it.
    pub accounts_touched: usize,
    /// The journal is poisoned and takes no more writes.
    pub poisoned: bool,
}

/// A kind of step, for [`Journal::step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Work {
    /// Write one batch.
    Commit,
    /// Do one step of preparing a segment.
    Prepare,
    /// Do one step of the compaction that is under way.
    Compact,
    /// Do what a while without callers does: prove the last batch.
    Idle,
}

/// An open store.
///
/// It is a handle: clones share the store, which is let go when it is closed, or when the last
/// clone is dropped. Futures run on any runtime, or none.
#[derive(Debug, Clone)]
pub struct Journal {
    driver: Arc<Driver>,
    adopt_within_ms: u64,
    /// A blocking caller writes its batch itself if nobody else is writing.
    inline: bool,
}

impl Journal {
    pub(crate) fn new(driver: Driver, adopt_within_ms: u64) -> Self {
        Self { driver: Arc::new(driver), adopt_within_ms, inline: false }
    }

    fn engine(&self) -> &Arc<Engine> {
        self.driver.engine()
    }

    /// Returns what makes the store's tags and fingerprints.
    pub(crate) fn tagger(&self) -> &Tagger {
        self.engine().keychain.tagger()
    }

    /// Returns the time by the store's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        self.engine().seams.clock.now_ms()
    }

    fn adopt_within_ms(&self) -> u64 {
        self.adopt_within_ms
    }

    /// Folds all that is durable into a snapshot, and retires the segments that it covers.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let compacted = journal.compact()?;
    /// assert_eq!(compacted.accounts, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Compaction`] if it gave up, which loses nothing; [`Error::Poisoned`],
    /// [`Error::Closed`].
    ///
    /// # Cancel safety
    /// When the future is dropped the compaction goes on.
    pub async fn compact(&self) -> Result<Compacted, Error> {
        match self.engine().want_compaction().await {
            Ok(result) => result.map_err(Error::Compaction),
            Err(_) => Err(self.poison().map_or(Error::Closed, Error::Poisoned)),
        }
    }

    /// Returns counters and sizes.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// assert!(async_journal.stats().batches >= 2, "an intent and an outcome, each synced");
    /// # Ok(())
    /// # }
    /// ```
    pub fn stats(&self) -> Stats {
        let engine = self.engine();
        let counters = &engine.counters;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let core = lock(&engine.core);
        let (promised_bytes, free_bytes) = (core.promised, core.free());
        let submitted = Lsn(core.next_lsn.0.saturating_sub(1));
        let (prepared_segments, poisoned) = (core.prepared.len(), core.fate.is_some());
        drop(core);
        // Accounts come before files everywhere: who installs a snapshot holds both.
        let accounts_touched = read_lock(&engine.durable).touched();
        let files = read_lock(&engine.files);
        Stats {
            head: engine.head(),
            submitted,
            batches: count(&counters.batches),
            records: count(&counters.records),
            bytes: count(&counters.bytes),
            rollovers: count(&counters.rollovers),
            waits: count(&counters.waits),
            promised_bytes,
            free_bytes,
            prepared_segments,
            tail_segments: files.segments.len(),
            snapshot_bytes: files.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes()),
            accounts_touched,
            poisoned,
        }
    }

    /// Returns why the journal takes no more writes, if it is poisoned.
    pub fn poison(&self) -> Option<Arc<Poison>> {
        lock(&self.engine().core).fate.clone()
    }

    /// Returns the last durable LSN, to be kept elsewhere for
    /// [`expected_head`](crate::Options::expected_head).
    pub fn head(&self) -> Lsn {
        self.engine().head()
    }

    /// Returns the store's id.
    pub fn store_id(&self) -> StoreId {
        self.engine().keychain.store()
    }

    /// Returns the tag that stands for an account.
    pub fn tag_of(&self, account: &Account) -> AccountTag {
        self.engine().keychain.tagger().account(account)
    }

    /// Writes what was submitted, marks the end, and lets go of the store.
    ///
    /// Every other handle gets [`Error::Closed`] from then on. An operation that was begun and not
    /// settled is in doubt when the store is opened next. The last writes are made on the caller's
    /// thread: for as long as they take a runtime's thread is blocked.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// journal.close()?;
    /// let (_journal, report) = options().open(dir.path().join("store"))?;
    /// assert!(report.last_batch_proven);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`], and the lock is let go of all the same.
    pub async fn close(self) -> Result<(), Error> {
        self.close_now()
    }

    fn close_now(&self) -> Result<(), Error> {
        let engine = self.engine();
        if !engine.begin_closing() {
            return Err(Error::Closed);
        }
        self.driver.stop();
        engine.space.notify_waiters();
        let result = engine.close();
        engine.end_compactions();
        tracing::info!(target: "tokenwal", lsn = engine.head().0, "closed");
        drop(lock(&engine.disk_lock).take());
        result
    }

    /// Gives the same calls for callers without a runtime.
    pub fn blocking(&self) -> Blocking {
        Blocking::new(Self { inline: self.driver.drive() == Drive::Threads, ..self.clone() })
    }

    /// Does one step of the journal's work, with [`Drive::Manual`]; says whether there was any.
    ///
    /// # Errors
    /// What the step ran into.
    pub fn step(&self, work: Work) -> Result<bool, Error> {
        let engine = self.engine();
        match work {
            Work::Commit => engine.step_commit(),
            Work::Prepare => engine.step_prepare(),
            Work::Compact => engine.step_compact().map_err(Error::Compaction),
            Work::Idle => engine.mark(MarkerReason::Idle),
        }
    }
}
