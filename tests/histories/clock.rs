//! The clock of a history: the runtime's paused time, carried over the lives of the process, with
//! steps as an operator or a bad time server makes them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use tokenwal::Clock;
use tokio::time::Instant;

pub struct HistoryClock {
    /// The time at the beginning of this life, and the runtime's own at that moment.
    life: Mutex<Option<(u64, Instant)>>,
    /// How far the clock was set away from the true time.
    step_ms: AtomicI64,
    /// The furthest that it was ever ahead.
    ahead_ms: AtomicI64,
}

impl HistoryClock {
    pub fn new() -> Self {
        Self { life: Mutex::new(None), step_ms: AtomicI64::new(0), ahead_ms: AtomicI64::new(0) }
    }

    /// Goes on in another runtime.
    pub fn begin_life(&self, true_ms: u64) {
        *self.life.lock().unwrap() = Some((true_ms, Instant::now()));
    }

    /// Returns the true time, which the provider has.
    pub fn true_ms(&self) -> u64 {
        let (base, since) = self.life.lock().unwrap().expect("a life has begun");
        base + u64::try_from(since.elapsed().as_millis()).unwrap()
    }

    pub fn step(&self, by_ms: i64) {
        let step_ms = self.step_ms.fetch_add(by_ms, Ordering::Relaxed) + by_ms;
        self.ahead_ms.fetch_max(step_ms, Ordering::Relaxed);
    }

    /// Says whether the clock was set back once. Set back while nobody runs, and not behind what was
    /// recorded last, it makes a window look open that has closed; nothing can tell.
    pub fn was_set_back(&self) -> bool {
        self.step_ms.load(Ordering::Relaxed) < self.ahead_ms.load(Ordering::Relaxed)
    }

    pub fn set_right(&self) {
        self.step_ms.store(0, Ordering::Relaxed);
    }
}

impl Clock for HistoryClock {
    fn now_ms(&self) -> u64 {
        self.true_ms().saturating_add_signed(self.step_ms.load(Ordering::Relaxed))
    }
}
