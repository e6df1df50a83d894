//! What lets calls to one app's provider through: so many at once, none before the time that the
//! provider named, none for a while where nothing gets through.

use crate::outcome::{DoubtReason, Outcome, RefusalClass};
use crate::sync::lock;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many calls in a row that failed open the circuit.
const FAILURES_MAX: u32 = 5;
/// How long it is open at first.
const OPEN_FIRST: Duration = Duration::from_secs(10);
/// And at most.
const OPEN_MAX: Duration = Duration::from_secs(300);
/// The longest that a provider is believed about when to ask again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Why no call is made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shut {
    /// From when on, in milliseconds since 1970.
    pub(super) until_ms: u64,
    /// The provider named the time; else calls have failed in a row.
    pub(super) asked: bool,
}

/// The gate of one app.
#[derive(Debug)]
pub(super) struct Gate {
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The provider asked for no call before.
    asked_until_ms: u64,
    failures: u32,
    open_until_ms: u64,
    /// While the circuit is open, one call tries it out.
    trying: bool,
}

/// A call that was let through. Dropped without [`Pass::done`] it counts as one that failed.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    _permit: OwnedSemaphorePermit,
    now_ms: u64,
    done: bool,
}

impl Gate {
    pub(super) fn new(at_once: usize) -> Self {
        let permits = Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS)));
        Self { permits, state: Mutex::new(State::default()) }
    }

    /// Says whether a call may be made now.
    pub(super) fn check(&self, now_ms: u64) -> Result<(), Shut> {
        lock(&self.state).check(now_ms)
    }

    /// Says whether calls have failed in a row, and none is let through but one that tries it out.
    pub(super) fn is_open(&self) -> bool {
        lock(&self.state).open_until_ms > 0
    }

    /// Waits for a place among the calls at once.
    pub(super) async fn pass(&self, now_ms: impl Fn() -> u64) -> Result<Pass<'_>, Shut> {
        self.check(now_ms())?;
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.expect("nobody closes the semaphore");
        let now_ms = now_ms();
        let mut state = lock(&self.state);
        state.check(now_ms)?;
        state.trying |= state.open_until_ms > 0;
        drop(state);
        Ok(Pass { gate: self, _permit: permit, now_ms, done: false })
    }
}

impl State {
    fn check(&self, now_ms: u64) -> Result<(), Shut> {
        if now_ms < self.asked_until_ms {
            return Err(Shut { until_ms: self.asked_until_ms, asked: true });
        }
        if now_ms < self.open_until_ms || self.trying {
            let until_ms = self.open_until_ms.max(now_ms.saturating_add(1000));
            return Err(Shut { until_ms, asked: false });
        }
        Ok(())
    }

    fn failed(&mut self, now_ms: u64) {
        self.trying = false;
        self.failures = self.failures.saturating_add(1);
        if let Some(beyond) = self.failures.checked_sub(FAILURES_MAX) {
            let wait = OPEN_FIRST.saturating_mul(1 << beyond.min(8)).min(OPEN_MAX);
            self.open_until_ms = now_ms.saturating_add(millis(wait));
        }
    }
}

impl Pass<'_> {
    /// Notes that nothing was asked of the provider.
    pub(super) fn unused(mut self) {
        self.done = true;
        lock(&self.gate.state).trying = false;
    }

    /// Notes how the call ended.
    pub(super) fn done(mut self, outcome: &Outcome, now_ms: u64) {
        self.done = true;
        let mut state = lock(&self.gate.state);
        match outcome {
            Outcome::Refused(refusal) if refusal.class() == RefusalClass::Retry => {
                let wait = Duration::from_secs(refusal.retry_after_s().into());
                if wait.is_zero() {
                    state.failed(now_ms);
                } else {
                    state.trying = false;
                    let until_ms = now_ms.saturating_add(millis(wait.min(RETRY_AFTER_MAX)));
                    state.asked_until_ms = state.asked_until_ms.max(until_ms);
                }
            }
            // Whatever the client is refused for, it is refused for every grant.
            Outcome::Refused(refusal) if refusal.class() == RefusalClass::OwnFault => {
                state.failed(now_ms);
            }
            Outcome::NotSent(_) => state.failed(now_ms),
            Outcome::InDoubt(doubt) if doubt.reason() != DoubtReason::Unreadable => {
                state.failed(now_ms);
            }
            _ => *state = State { asked_until_ms: state.asked_until_ms, ..State::default() },
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.done {
            lock(&self.gate.state).failed(self.now_ms);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Doubt, NotSent, Refusal};

    async fn call(gate: &Gate, now_ms: u64, outcome: Outcome) {
        gate.pass(|| now_ms).await.expect("it is open").done(&outcome, now_ms);
    }

    fn failure() -> Outcome {
        Outcome::InDoubt(Doubt::new(DoubtReason::Timeout))
    }

    #[tokio::test]
    async fn the_circuit_opens_tries_one_call_and_closes() {
        let gate = Gate::new(8);
        for _ in 0..5 {
            call(&gate, 1000, failure()).await;
        }
        let shut = gate.check(1000).unwrap_err();
        assert_eq!((shut.until_ms, shut.asked), (11_000, false));
        let trial = gate.pass(|| 11_000).await.unwrap();
        assert!(gate.check(11_000).is_err(), "one call at a time tries it out");
        trial.done(&Outcome::NotSent(NotSent::Connect), 11_000);
        assert_eq!(gate.check(11_000).unwrap_err().until_ms, 31_000, "twice as long");
        call(&gate, 31_000, Outcome::Answered).await;
        assert!(gate.check(31_000).is_ok());
    }

    #[tokio::test]
    async fn the_providers_own_time_counts_and_no_failure_with_it() {
        let gate = Gate::new(8);
        let busy = Refusal::new(RefusalClass::Retry, 429, "", "", &[]).with_retry_after_s(30);
        call(&gate, 0, Outcome::Refused(busy)).await;
        assert_eq!(gate.check(0).unwrap_err(), Shut { until_ms: 30_000, asked: true });
        assert!(gate.check(30_000).is_ok());
        let forever = Refusal::new(RefusalClass::Retry, 429, "", "", &[]);
        let forever = forever.with_retry_after_s(u32::MAX);
        call(&gate, 30_000, Outcome::Refused(forever)).await;
        assert!(gate.check(30_000 + 3_600_000).is_ok(), "nobody is believed for ever");
    }

    #[tokio::test]
    async fn a_call_that_panics_frees_its_place() {
        let gate = Gate::new(1);
        drop(gate.pass(|| 0).await.unwrap());
        assert!(gate.pass(|| 0).await.is_ok());
    }
}
