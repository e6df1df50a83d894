//! What a broker counts, through the `metrics` facade (feature `metrics`). Without the feature all
//! of this is nothing.
//!
//! The table of names and units stands in the room's own page, where users read it. Whatever is
//! counted is registered when the broker is built, and no label names a user, an account, a holder or
//! a token.

#[cfg(feature = "metrics")]
pub(super) use counted::{DeskMeter, Meter};
#[cfg(not(feature = "metrics"))]
pub(super) use silent::{DeskMeter, Meter};

/// How a caller came by a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It was there and valid.
    Current,
    /// It came of a refresh or a mint.
    Refreshed,
    /// It has lapsed by an assumption alone, and its provider could not be asked.
    Assumed,
}

#[cfg(feature = "metrics")]
mod counted {
    use super::super::event::Event;
    use super::How;
    use crate::format::value::Action;
    use crate::ids::{AccountTag, OpId};
    use crate::outcome::Outcome;
    use crate::sync::lock;
    use metrics::{Counter, Gauge, Histogram, Unit};
    use std::collections::{HashMap, HashSet};
    use std::fmt;
    use std::sync::Mutex;
    use tokio::time::Instant;

    const CALLS: &str = "tokenwal_calls_total";
    const CALL_SECONDS: &str = "tokenwal_call_seconds";
    const CIRCUIT_OPEN: &str = "tokenwal_circuit_open";
    const REFRESHES: &str = "tokenwal_refreshes_total";
    const TOKENS: &str = "tokenwal_tokens_total";
    const IN_DOUBT: &str = "tokenwal_in_doubt";
    const EVENTS: &str = "tokenwal_events_total";
    const TASKS: &str = "tokenwal_tasks";

    const OUTCOMES: [&str; 6] =
        ["issued", "refused", "not_sent", "in_doubt", "revoked", "answered"];
    const EVENT_NAMES: [&str; 14] = [
        "issued",
        "refreshed",
        "different_user",
        "identified",
        "suspended",
        "ended",
        "in_doubt",
        "ask",
        "resolved",
        "near_cap",
        "over_cap",
        "superseded",
        "not_stored",
        "missed",
    ];

    /// What is counted of one app's provider.
    pub(in crate::broker) struct DeskMeter {
        calls: HashMap<(Action, &'static str), Counter>,
        seconds: HashMap<Action, Histogram>,
        circuit: Gauge,
    }

    /// A call that is on its way.
    #[derive(Debug)]
    pub(in crate::broker) struct Timed(Instant);

    impl DeskMeter {
        pub(in crate::broker) fn new(provider: &str) -> Self {
            let mut calls = HashMap::new();
            let mut seconds = HashMap::new();
            for action in Action::ALL.iter().copied() {
                let (provider, name) = (provider.to_owned(), action.word());
                for outcome in OUTCOMES {
                    let provider = provider.clone();
                    let counter = metrics::counter!(
                        CALLS, "provider" => provider, "action" => name, "outcome" => outcome
                    );
                    calls.insert((action, outcome), counter);
                }
                let took = metrics::histogram!(
                    CALL_SECONDS, "provider" => provider, "action" => name
                );
                seconds.insert(action, took);
            }
            let circuit = metrics::gauge!(CIRCUIT_OPEN, "provider" => provider.to_owned());
            Self { calls, seconds, circuit }
        }

        pub(in crate::broker) fn begun(&self) -> Timed {
            Timed(Instant::now())
        }

        pub(in crate::broker) fn ended(&self, begun: &Timed, action: Action, outcome: &Outcome) {
            if let Some(seconds) = self.seconds.get(&action) {
                seconds.record(begun.0.elapsed().as_secs_f64());
            }
            if let Some(counter) = self.calls.get(&(action, name_of(outcome))) {
                counter.increment(1);
            }
        }

        pub(in crate::broker) fn circuit(&self, is_open: bool) {
            self.circuit.set(if is_open { 1.0 } else { 0.0 });
        }
    }

    fn name_of(outcome: &Outcome) -> &'static str {
        match outcome {
            Outcome::Issued(_) => "issued",
            Outcome::Refused(_) => "refused",
            Outcome::NotSent(_) => "not_sent",
            Outcome::InDoubt(_) => "in_doubt",
            Outcome::Revoked => "revoked",
            Outcome::Answered => "answered",
        }
    }

    fn name_of_event(event: &Event) -> &'static str {
        match event {
            Event::Issued { .. } => "issued",
            Event::Refreshed { .. } => "refreshed",
            Event::DifferentUser { .. } => "different_user",
            Event::Identified { .. } => "identified",
            Event::Suspended { .. } => "suspended",
            Event::Ended { .. } => "ended",
            Event::InDoubt { .. } => "in_doubt",
            Event::Ask { .. } => "ask",
            Event::Resolved { .. } => "resolved",
            Event::NearCap { .. } => "near_cap",
            Event::OverCap { .. } => "over_cap",
            Event::Superseded { .. } => "superseded",
            Event::NotStored { .. } => "not_stored",
            Event::Missed { .. } => "missed",
        }
    }

    /// What is counted of a broker.
    pub(in crate::broker) struct Meter {
        made: Counter,
        joined: Counter,
        current: Counter,
        refreshed: Counter,
        assumed: Counter,
        events: HashMap<&'static str, Counter>,
        tasks: Gauge,
        in_doubt: Gauge,
        doubtful: Mutex<Doubtful>,
    }

    /// What is in doubt, of so many accounts at most.
    #[derive(Default)]
    struct Doubtful {
        accounts: HashMap<AccountTag, HashSet<OpId>>,
        all: usize,
    }

    impl Doubtful {
        const ACCOUNTS_MAX: usize = 65_536;

        fn put(&mut self, account: AccountTag, open: HashSet<OpId>) {
            let before = self.accounts.remove(&account).map_or(0, |before| before.len());
            self.all = self.all.saturating_sub(before);
            if !open.is_empty() && self.accounts.len() < Self::ACCOUNTS_MAX {
                self.all += open.len();
                self.accounts.insert(account, open);
            }
        }
    }

    impl Meter {
        pub(in crate::broker) fn new() -> Self {
            describe();
            let event = |name| (name, metrics::counter!(EVENTS, "event" => name));
            Self {
                made: metrics::counter!(REFRESHES, "how" => "made"),
                joined: metrics::counter!(REFRESHES, "how" => "joined"),
                current: metrics::counter!(TOKENS, "how" => "current"),
                refreshed: metrics::counter!(TOKENS, "how" => "refreshed"),
                assumed: metrics::counter!(TOKENS, "how" => "assumed"),
                events: EVENT_NAMES.into_iter().map(event).collect(),
                tasks: metrics::gauge!(TASKS),
                in_doubt: metrics::gauge!(IN_DOUBT),
                doubtful: Mutex::default(),
            }
        }

        pub(in crate::broker) fn refresh(&self, made: bool) {
            if made { self.made.increment(1) } else { self.joined.increment(1) }
        }

        pub(in crate::broker) fn handed(&self, how: How) {
            match how {
                How::Current => self.current.increment(1),
                How::Refreshed => self.refreshed.increment(1),
                How::Assumed => self.assumed.increment(1),
            }
        }

        pub(in crate::broker) fn rang(&self, event: &Event) {
            if let Some(counter) = self.events.get(name_of_event(event)) {
                counter.increment(1);
            }
            let (account, op, is_open) = match event {
                Event::InDoubt { account, op, .. } => (account, op, true),
                Event::Resolved { account, op, .. } => (account, op, false),
                _ => return,
            };
            let mut doubtful = lock(&self.doubtful);
            let mut open = doubtful.accounts.get(account).cloned().unwrap_or_default();
            let _ = if is_open { open.insert(*op) } else { open.remove(op) };
            doubtful.put(*account, open);
            self.show(&doubtful);
        }

        /// Hears what is in doubt on an account, as its view has it.
        pub(in crate::broker) fn looked(
            &self,
            account: AccountTag,
            open: impl Iterator<Item = OpId>,
        ) {
            let mut doubtful = lock(&self.doubtful);
            doubtful.put(account, open.collect());
            self.show(&doubtful);
        }

        #[expect(clippy::cast_precision_loss, reason = "nobody has so many")]
        fn show(&self, doubtful: &Doubtful) {
            self.in_doubt.set(doubtful.all as f64);
        }

        /// Counts a task until what is returned is dropped.
        pub(in crate::broker) fn task(&self) -> Task {
            self.tasks.increment(1.0);
            Task(self.tasks.clone())
        }
    }

    /// A task that is at work.
    pub(in crate::broker) struct Task(Gauge);

    impl Drop for Task {
        fn drop(&mut self) {
            self.0.decrement(1.0);
        }
    }

    fn describe() {
        let counters = [
            (CALLS, "calls to a provider that ended"),
            (REFRESHES, "callers who wanted a refresh"),
            (TOKENS, "tokens that were handed out"),
            (EVENTS, "events"),
        ];
        for (name, what) in counters {
            metrics::describe_counter!(name, Unit::Count, what);
        }
        let gauges = [
            (CIRCUIT_OPEN, "1 while calls have failed in a row"),
            (IN_DOUBT, "operations in doubt"),
            (TASKS, "tasks that a shutdown would wait for"),
        ];
        for (name, what) in gauges {
            metrics::describe_gauge!(name, Unit::Count, what);
        }
        metrics::describe_histogram!(CALL_SECONDS, Unit::Seconds, "how long a call took");
    }

    impl fmt::Debug for Meter {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Meter")
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod silent {
    use super::super::event::Event;
    use super::How;
    use crate::format::value::Action;
    use crate::ids::{AccountTag, OpId};
    use crate::outcome::Outcome;

    /// Nothing that began.
    pub(in crate::broker) struct Timed;

    /// Counts nothing.
    pub(in crate::broker) struct DeskMeter;

    impl DeskMeter {
        pub(in crate::broker) fn new(_: &str) -> Self {
            Self
        }

        pub(in crate::broker) fn begun(&self) -> Timed {
            Timed
        }

        pub(in crate::broker) fn ended(&self, _: &Timed, _: Action, _: &Outcome) {}

        pub(in crate::broker) fn circuit(&self, _: bool) {}
    }

    /// Counts nothing.
    #[derive(Debug)]
    pub(in crate::broker) struct Meter;

    impl Meter {
        pub(in crate::broker) fn new() -> Self {
            Self
        }

        pub(in crate::broker) fn refresh(&self, _: bool) {}

        pub(in crate::broker) fn handed(&self, _: How) {}

        pub(in crate::broker) fn rang(&self, _: &Event) {}

        pub(in crate::broker) fn looked(&self, _: AccountTag, _: impl Iterator<Item = OpId>) {}

        pub(in crate::broker) fn task(&self) -> Task {
            Task
        }
    }

    /// A task that nobody counts.
    pub(in crate::broker) struct Task;
}
