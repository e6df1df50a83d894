//! What a ledger has to bring to be tested.

use crate::over::{DiskLayer, Over};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokenwal::disk::{Disk, RealDisk};
use tokenwal::ledger::{Ledger, MemoryLedger};
use tokenwal::{Clock, FixedKeys, Journal, Options};

/// When every test begins, in milliseconds since 1970.
pub const NOW_MS: u64 = 1_760_000_000_000;

/// A store of its own for each test, behind a clock that the test moves.
pub trait Harness: Sized {
    /// The ledger.
    type Ledger: Ledger;

    /// Makes an empty store.
    async fn open() -> Self;

    /// Returns the ledger as it is open now.
    fn ledger(&self) -> &Self::Ledger;

    /// Opens the store as the next process would: what is open was left behind by the one before.
    async fn restart(&mut self);

    /// Opens a copy of the store on another host, which takes it over.
    async fn claim(&mut self);

    /// Has writes fail until the next [`restart`](Harness::restart).
    async fn refuse_writes(&mut self);

    /// Moves the clock.
    fn advance(&self, time: Duration);
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct Hand(AtomicU64);

impl Hand {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(NOW_MS)))
    }

    pub fn advance(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A journal in a directory of its own.
pub struct OnDisk {
    journal: Journal,
    clock: Arc<Hand>,
    dir: TempDir,
    /// On how many hosts it was before.
    moves: u32,
}

/// The disk of another host.
#[derive(Debug)]
struct Elsewhere(RealDisk, u32);

impl DiskLayer for Elsewhere {
    fn below(&self) -> &dyn Disk {
        &self.0
    }

    fn host(&self) -> String {
        format!("{}-{}", self.0.host(), self.1)
    }
}

impl OnDisk {
    pub fn at(clock: Arc<Hand>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = options(&clock);
        let (journal, _) = options.create(dir.path().join("store")).unwrap();
        Self { journal, clock, dir, moves: 0 }
    }
}

impl OnDisk {
    async fn open_again(&mut self, how: impl FnOnce(Options) -> Options) {
        // One that was closed already says so.
        let _ = self.journal.clone().close().await;
        let path = self.dir.path().join("store");
        let mut options = options(&self.clock).wait_for_lock(Duration::from_secs(10));
        if self.moves > 0 {
            let disk = Elsewhere(RealDisk::open(&path).unwrap(), self.moves);
            options = options.disk(Arc::new(Over(disk)));
        }
        self.journal = how(options).open(&path).unwrap().0;
    }
}

fn options(clock: &Arc<Hand>) -> Options {
    Options::new(FixedKeys::new([7; 32], []))
        .clock(clock.clone())
        .segment_bytes(1 << 20)
        .batch_bytes_max(64 << 10)
        .outcome_bytes_max(16 << 10)
}

impl Harness for OnDisk {
    type Ledger = Journal;

    async fn open() -> Self {
        Self::at(Hand::new())
    }

    fn ledger(&self) -> &Journal {
        &self.journal
    }

    async fn restart(&mut self) {
        self.open_again(|options| options).await;
    }

    async fn claim(&mut self) {
        self.moves += 1;
        self.open_again(Options::claim).await;
    }

    async fn refuse_writes(&mut self) {
        self.journal.clone().close().await.unwrap();
    }

    fn advance(&self, time: Duration) {
        self.clock.advance(time);
    }
}

/// The ledger in memory.
pub struct InMemory {
    ledger: MemoryLedger,
    clock: Arc<Hand>,
}

impl InMemory {
    pub fn at(clock: Arc<Hand>) -> Self {
        Self { ledger: MemoryLedger::new().with_clock(clock.clone()), clock }
    }
}

impl Harness for InMemory {
    type Ledger = MemoryLedger;

    async fn open() -> Self {
        Self::at(Hand::new())
    }

    fn ledger(&self) -> &MemoryLedger {
        &self.ledger
    }

    async fn restart(&mut self) {
        self.ledger.fail_writes(false);
        self.ledger = self.ledger.restart();
    }

    async fn claim(&mut self) {
        self.ledger = self.ledger.claim();
    }

    async fn refuse_writes(&mut self) {
        self.ledger.fail_writes(true);
    }

    fn advance(&self, time: Duration) {
        self.clock.advance(time);
    }
}
