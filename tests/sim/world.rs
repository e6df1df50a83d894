//! A clock that moves when it is told to, and randomness that a seed decides.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokenwal::{Clock, Entropy};

use super::rng::Rng;

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct SimClock(AtomicU64);

impl SimClock {
    /// Starts in the year 2025.
    pub fn new() -> Self {
        Self(AtomicU64::new(1_750_000_000_000))
    }

    pub fn advance_ms(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Randomness that its seed decides.
#[derive(Debug)]
pub struct SimEntropy(Mutex<Rng>);

impl SimEntropy {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Rng::new(seed)))
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.0.lock().unwrap().fill(bytes);
        Ok(())
    }
}
