//! What lets calls to one app's provider through, by the clock that nobody sets:
//!
//! - so many at once, of the app;
//! - to a host of its token endpoints none for a while where nothing gets through there: one call then
//!   tries it out;
//! - none before the time that was asked for. `429` asks it of who called too often, so it holds for
//!   the account; where several accounts hear it within a minute it is about more than them, and holds
//!   for the host. Any other status, as `503`, is about the host.
//!
//! A host is that of a grant's token endpoint. Calls without a grant go to the app's own, which has no
//! name here. What is remembered is bounded: beyond that, calls are let through.

use crate::ids::AccountTag;
use crate::journal::IssuedPair;
use crate::outcome::{DoubtReason, NotSent, Outcome, Refusal, RefusalClass};
use crate::sync::lock;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// So many calls in a row that failed open the circuit.
const FAILURES_MAX: u32 = 5;
/// How long it is open at first.
const OPEN_FIRST: Duration = Duration::from_secs(10);
/// And at most.
const OPEN_MAX: Duration = Duration::from_secs(300);
/// How long to wait for the call that tries it out.
const TRIAL: Duration = Duration::from_secs(1);
/// The longest that a provider is believed about when to ask again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// So many accounts that are asked for time within [`SLOWED_WITHIN`] are as many as all.
const SLOWED_MAX: usize = 3;
const SLOWED_WITHIN: Duration = Duration::from_secs(60);
/// At most so many hosts are remembered.
const HOSTS_MAX: usize = 1024;
/// At most so many accounts are.
const ACCOUNTS_MAX: usize = 65_536;
/// `Too Many Requests` (RFC 6585, section 4).
const TOO_MANY: u16 = 429;

/// Why no call is made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shut {
    /// For how long.
    pub(super) wait: Duration,
    /// The provider named the time; else calls have failed in a row.
    pub(super) asked: bool,
}

/// Whom a call is about, and whom it goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whom {
    pub(super) account: AccountTag,
    /// Empty for the app's own.
    pub(super) host: String,
}

impl Whom {
    /// A call with a pair goes to the host of its token endpoint.
    pub(super) fn of(pair: &IssuedPair) -> Self {
        let host = pair.token_endpoint().map(host_of).unwrap_or_default();
        Self { account: pair.account(), host: host.to_owned() }
    }
}

/// Returns the host and the port of a URL, as it is written.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// The gate of one app.
#[derive(Debug)]
pub(super) struct Gate {
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    hosts: HashMap<String, Host>,
    /// Until when accounts have been asked to wait.
    accounts: HashMap<AccountTag, Instant>,
}

#[derive(Debug, Default)]
struct Host {
    /// The provider asked for no call before.
    asked_until: Option<Instant>,
    failures: u32,
    open_until: Option<Instant>,
    /// While the circuit is open, one call tries it out.
    trying: bool,
    /// The accounts that were asked to wait of late, and when.
    slowed: Vec<(AccountTag, Instant)>,
}

/// A call that was let through. Dropped without [`Pass::done`], as where it was never made, it says
/// nothing of the provider.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    whom: Whom,
    /// It is the one that tries an open circuit out.
    trial: bool,
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    pub(super) fn new(at_once: usize) -> Self {
        let permits = Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS)));
        Self { permits, state: Mutex::default() }
    }

    /// Says whether calls to a host have failed in a row, and none is let through but one that tries
    /// it out.
    pub(super) fn is_open(&self) -> bool {
        lock(&self.state).hosts.values().any(|host| host.open_until.is_some())
    }

    /// Waits for a place among the calls at once.
    pub(super) async fn pass(&self, whom: Whom) -> Result<Pass<'_>, Shut> {
        lock(&self.state).check(&whom)?;
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.expect("nobody closes the semaphore");
        let mut state = lock(&self.state);
        state.check(&whom)?;
        let open = state.hosts.get_mut(&whom.host).filter(|host| host.open_until.is_some());
        let trial = open.is_some();
        if let Some(host) = open {
            host.trying = true;
        }
        drop(state);
        Ok(Pass { gate: self, whom, trial, _permit: permit })
    }
}

impl State {
    fn check(&self, whom: &Whom) -> Result<(), Shut> {
        let now = Instant::now();
        let host = self.hosts.get(&whom.host);
        let asked = host.and_then(|host| host.asked_until);
        let asked = asked.max(self.accounts.get(&whom.account).copied());
        if let Some(until) = asked.filter(|until| now < *until) {
            return Err(Shut { wait: until - now, asked: true });
        }
        let Some(host) = host else { return Ok(()) };
        match host.open_until {
            Some(until) if now < until => Err(Shut { wait: until - now, asked: false }),
            _ if host.trying => Err(Shut { wait: TRIAL, asked: false }),
            _ => Ok(()),
        }
    }

    /// Returns what is remembered of a host; none where that is too much.
    fn host(&mut self, name: &str) -> Option<&mut Host> {
        make_room(&mut self.hosts, HOSTS_MAX, name, Host::is_shut);
        match self.hosts.len() < HOSTS_MAX || self.hosts.contains_key(name) {
            true => Some(self.hosts.entry(name.to_owned()).or_default()),
            false => None,
        }
    }

    /// The provider asked for time.
    fn slow(&mut self, whom: &Whom, refusal: &Refusal) {
        let now = Instant::now();
        let wait = Duration::from_secs(refusal.retry_after_s().into()).min(RETRY_AFTER_MAX);
        let until = now + wait;
        let of_account = refusal.status() == TOO_MANY;
        if of_account {
            make_room(&mut self.accounts, ACCOUNTS_MAX, &whom.account, |until, now| now < *until);
            if self.accounts.len() < ACCOUNTS_MAX || self.accounts.contains_key(&whom.account) {
                self.accounts.insert(whom.account, until);
            }
        }
        let Some(host) = self.host(&whom.host) else { return };
        if !of_account || host.is_slow_for_many(whom.account, now) {
            host.asked_until = host.asked_until.max(Some(until));
        }
    }
}

impl Host {
    fn is_shut(&self, now: Instant) -> bool {
        let later = |until: Option<Instant>| until.is_some_and(|until| now < until);
        self.trying || later(self.asked_until) || later(self.open_until)
    }

    fn is_slow_for_many(&mut self, account: AccountTag, now: Instant) -> bool {
        self.slowed.retain(|(other, at)| *other != account && now - *at < SLOWED_WITHIN);
        if self.slowed.len() >= SLOWED_MAX {
            self.slowed.remove(0);
        }
        self.slowed.push((account, now));
        self.slowed.len() >= SLOWED_MAX
    }

    fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if let Some(beyond) = self.failures.checked_sub(FAILURES_MAX) {
            let wait = OPEN_FIRST.saturating_mul(1 << beyond.min(8)).min(OPEN_MAX);
            self.open_until = Some(now + wait);
        }
    }

    fn worked(&mut self) {
        self.failures = 0;
        self.open_until = None;
    }
}

impl Pass<'_> {
    /// Notes how the call ended.
    pub(super) fn done(self, outcome: &Outcome) {
        let mut state = lock(&self.gate.state);
        let now = Instant::now();
        match outcome {
            Outcome::Refused(refusal)
                if refusal.class() == RefusalClass::Retry && refusal.retry_after_s() > 0 =>
            {
                state.slow(&self.whom, refusal);
            }
            // Whatever the client is refused for, it is refused for every grant.
            Outcome::Refused(refusal)
                if matches!(refusal.class(), RefusalClass::Retry | RefusalClass::OwnFault) =>
            {
                state.host(&self.whom.host).into_iter().for_each(|host| host.failed(now));
            }
            // No call was made.
            Outcome::NotSent(NotSent::GivenUp) => {}
            Outcome::NotSent(_) => {
                state.host(&self.whom.host).into_iter().for_each(|host| host.failed(now));
            }
            Outcome::InDoubt(doubt) if doubt.reason() != DoubtReason::Unreadable => {
                state.host(&self.whom.host).into_iter().for_each(|host| host.failed(now));
            }
            _ => state.hosts.get_mut(&self.whom.host).into_iter().for_each(Host::worked),
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.trial
            && let Some(host) = lock(&self.gate.state).hosts.get_mut(&self.whom.host)
        {
            host.trying = false;
        }
    }
}

/// Forgets what does not count any longer, where there is no room for another.
fn make_room<K, Q, V>(map: &mut HashMap<K, V>, max: usize, key: &Q, counts: fn(&V, Instant) -> bool)
where
    K: Eq + Hash + std::borrow::Borrow<Q>,
    Q: Eq + Hash + ?Sized,
{
    if map.len() >= max && !map.contains_key(key) {
        let now = Instant::now();
        map.retain(|_, value| counts(value, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Doubt;

    #[test]
    fn a_host_is_what_stands_between_scheme_and_path() {
        for (url, host) in [
            ("https://login.example/services/oauth2/token", "login.example"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("https://a.example?x=/", "a.example"),
            ("", ""),
        ] {
            assert_eq!(host_of(url), host);
        }
    }

    fn of(account: u8, host: &str) -> Whom {
        Whom { account: AccountTag::from_bytes([account; 16]), host: host.to_owned() }
    }

    async fn call(gate: &Gate, whom: &Whom, outcome: Outcome) {
        gate.pass(whom.clone()).await.expect("it is open").done(&outcome);
    }

    async fn shut(gate: &Gate, whom: &Whom) -> Option<(u64, bool)> {
        let shut = gate.pass(whom.clone()).await.err();
        shut.map(|shut| (shut.wait.as_secs(), shut.asked))
    }

    async fn sleep(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    fn failure() -> Outcome {
        Outcome::InDoubt(Doubt::new(DoubtReason::Timeout))
    }

    fn busy(status: u16, seconds: u32) -> Outcome {
        let refusal = Refusal::new(RefusalClass::Retry, status, "", "", &[]);
        Outcome::Refused(refusal.with_retry_after_s(seconds))
    }

    #[tokio::test(start_paused = true)]
    async fn the_circuit_opens_tries_one_call_and_closes() {
        let (gate, whom) = (Gate::new(8), of(1, "one"));
        for _ in 0..5 {
            assert!(!gate.is_open());
            call(&gate, &whom, failure()).await;
        }
        assert_eq!(shut(&gate, &whom).await, Some((10, false)));
        assert!(gate.is_open());
        sleep(10).await;
        let trial = gate.pass(whom.clone()).await.unwrap();
        assert_eq!(shut(&gate, &whom).await, Some((1, false)), "one call at a time tries it out");
        trial.done(&Outcome::NotSent(NotSent::Connect));
        assert_eq!(shut(&gate, &whom).await, Some((20, false)), "twice as long");
        sleep(20).await;
        call(&gate, &whom, Outcome::Answered).await;
        assert_eq!(shut(&gate, &whom).await, None);
        assert!(!gate.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_was_never_made_says_nothing() {
        let (gate, whom) = (Gate::new(1), of(1, ""));
        for _ in 0..9 {
            drop(gate.pass(whom.clone()).await.unwrap());
            call(&gate, &whom, Outcome::NotSent(NotSent::GivenUp)).await;
        }
        for _ in 0..5 {
            call(&gate, &whom, failure()).await;
        }
        sleep(10).await;
        drop(gate.pass(whom.clone()).await.expect("one tries it out"));
        assert!(gate.pass(whom).await.is_ok(), "the one before has tried nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_down_shuts_no_other() {
        let gate = Gate::new(8);
        for account in 0..5 {
            call(&gate, &of(account, "down"), Outcome::NotSent(NotSent::Connect)).await;
        }
        assert_eq!(shut(&gate, &of(9, "down")).await, Some((10, false)));
        assert_eq!(shut(&gate, &of(1, "up")).await, None);
        assert_eq!(shut(&gate, &of(1, "")).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_requests_pause_the_account_and_of_several_accounts_the_host() {
        let gate = Gate::new(8);
        for _ in 0..9 {
            call(&gate, &of(1, "host"), busy(429, 30)).await;
            assert_eq!(shut(&gate, &of(1, "host")).await, Some((30, true)));
            assert_eq!(shut(&gate, &of(1, "other")).await, Some((30, true)), "it is the account");
            assert_eq!(shut(&gate, &of(2, "host")).await, None);
            sleep(30).await;
        }
        sleep(31).await;
        call(&gate, &of(1, "host"), busy(429, 5)).await;
        call(&gate, &of(2, "host"), busy(429, 7)).await;
        assert_eq!(shut(&gate, &of(4, "host")).await, None);
        call(&gate, &of(3, "host"), busy(429, 9)).await;
        assert_eq!(shut(&gate, &of(4, "host")).await, Some((9, true)));
        assert_eq!(shut(&gate, &of(4, "other")).await, None);
        assert!(!gate.is_open(), "no call has failed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_asks_for_time_gets_it_from_all_and_is_not_believed_for_ever() {
        let gate = Gate::new(8);
        call(&gate, &of(1, "host"), busy(503, u32::MAX)).await;
        assert_eq!(shut(&gate, &of(2, "host")).await, Some((3600, true)));
        assert_eq!(shut(&gate, &of(2, "other")).await, None);
        sleep(3600).await;
        assert_eq!(shut(&gate, &of(2, "host")).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_and_what_counts_is_kept() {
        let gate = Gate::new(8);
        call(&gate, &of(1, "slow"), busy(503, 60)).await;
        for host in 0..2 * HOSTS_MAX {
            call(&gate, &of(1, &host.to_string()), failure()).await;
        }
        assert!(lock(&gate.state).hosts.len() <= HOSTS_MAX);
        assert_eq!(shut(&gate, &of(1, "slow")).await, Some((60, true)));
    }
}
