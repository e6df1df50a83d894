//! Random moments and choices. Nothing here is secret.

use std::io;
use std::time::Duration;
use tokenwal::{Entropy as _, SystemEntropy};

/// A stream of random choices: SplitMix64.
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn of(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn drawn() -> io::Result<Self> {
        let mut seed = [0; 8];
        SystemEntropy.fill(&mut seed)?;
        Ok(Self(u64::from_le_bytes(seed)))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Draws below `limit`, which is not 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// Draws a time below so many milliseconds.
    pub(super) fn millis_below(&mut self, limit: u64) -> Duration {
        Duration::from_micros(self.below(limit.saturating_mul(1000)))
    }

    /// Draws one of `all`.
    pub(super) fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(all.len()).ok().filter(|count| *count > 0)?;
        all.get(usize::try_from(self.below(count)).ok()?)
    }
}
