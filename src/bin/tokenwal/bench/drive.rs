//! Drives callers for a while, and keeps how long each of their calls took.

#![expect(clippy::disallowed_methods, reason = "measuring is reading the clock")]

use crate::exit::Failure;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Somebody who does one operation after the other.
pub(super) trait Caller: Send + 'static {
    /// Does one operation; says no if there is no room for another.
    fn call(&mut self) -> impl Future<Output = Result<bool, Failure>> + Send;
}

/// What was measured in one go.
#[derive(Debug, Default)]
pub(super) struct Sample {
    elapsed: Duration,
    /// How long each call took, in nanoseconds; sorted once it is complete.
    latencies_ns: Vec<u32>,
}

impl Sample {
    /// Counts the operations.
    pub(super) fn operations(&self) -> u64 {
        self.latencies_ns.len() as u64
    }

    /// Returns operations per second.
    pub(super) fn per_s(&self) -> f64 {
        self.latencies_ns.len() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Returns the time that this share of the calls took at most, in microseconds.
    pub(super) fn quantile_us(&self, percent: usize) -> f64 {
        let at = self.latencies_ns.len() * percent / 100;
        let at = at.min(self.latencies_ns.len().saturating_sub(1));
        self.latencies_ns.get(at).map_or(0.0, |ns| f64::from(*ns) / 1000.0)
    }

    fn complete(mut self) -> Self {
        self.latencies_ns.sort_unstable();
        self
    }
}

/// Lets one caller call on this thread.
pub(super) fn alone(
    time: Duration,
    mut call: impl FnMut() -> Result<bool, Failure>,
) -> Result<Sample, Failure> {
    let start = Instant::now();
    let mut sample = Sample::default();
    let mut since = start;
    while since - start < time && call()? {
        let now = Instant::now();
        sample.latencies_ns.push(nanoseconds(now - since));
        since = now;
    }
    sample.elapsed = since - start;
    Ok(sample.complete())
}

/// Lets many callers call at once, each in a task of its own.
pub(super) fn together<C: Caller>(
    runtime: &Runtime,
    time: Duration,
    callers: Vec<C>,
) -> Result<(Sample, Vec<C>), Failure> {
    runtime.block_on(async {
        let start = Instant::now();
        let tasks: Vec<_> = callers
            .into_iter()
            .map(|caller| tokio::spawn(call_again_and_again(caller, start, time)))
            .collect();
        let mut sample = Sample::default();
        let mut callers = Vec::with_capacity(tasks.len());
        for task in tasks {
            let ended = task.await.map_err(|error| Failure::new(error, "report this"))?;
            let (caller, end, latencies_ns) = ended?;
            callers.push(caller);
            sample.elapsed = sample.elapsed.max(end - start);
            sample.latencies_ns.extend(latencies_ns);
        }
        Ok((sample.complete(), callers))
    })
}

async fn call_again_and_again<C: Caller>(
    mut caller: C,
    start: Instant,
    time: Duration,
) -> Result<(C, Instant, Vec<u32>), Failure> {
    let mut latencies_ns = Vec::with_capacity(4096);
    let mut since = Instant::now();
    while since - start < time && caller.call().await? {
        let now = Instant::now();
        latencies_ns.push(nanoseconds(now - since));
        since = now;
    }
    Ok((caller, since, latencies_ns))
}

fn nanoseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}
