//! How a broker is built.

use super::ahead::Ahead;
use super::app::{AppConfig, Desk};
use super::arrivals::Arrivals;
use super::backoff::Backoff;
use super::cache::Shelf;
use super::cookie::Jar;
use super::event::Bell;
use super::flights::{Flights, Tasks};
use super::metrics::Meter;
use super::{Broker, Inner, control};
use crate::clock::{Entropy, SystemEntropy};
use crate::ledger::{Durability, Ledger};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// The deadline of a call, independent of its callers' patience.
const DEADLINE: Duration = Duration::from_secs(60);
/// How much later than its deadline a call may still be carried out, unless another time is set.
pub(super) const LATE_MARGIN: Duration = Duration::from_secs(60);

/// Builds a [`Broker`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct BrokerBuilder<L: Ledger> {
    ledger: L,
    apps: Vec<AppConfig>,
    durability: Durability,
    deadline: Duration,
    margin: Duration,
    tends: bool,
    entropy: Arc<SharedEntropy>,
}

/// Randomness behind a name, so that what holds it can be shown.
struct SharedEntropy(Arc<dyn Entropy>);

impl std::fmt::Debug for SharedEntropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entropy")
    }
}

impl<L: Ledger> BrokerBuilder<L> {
    pub(super) fn new(ledger: L) -> Self {
        Self {
            ledger,
            apps: Vec::new(),
            durability: Durability::Local,
            deadline: DEADLINE,
            margin: LATE_MARGIN,
            tends: true,
            entropy: Arc::new(SharedEntropy(Arc::new(SystemEntropy))),
        }
    }

    /// Adds an app.
    pub fn app(mut self, config: AppConfig) -> Self {
        self.apps.push(config);
        self
    }

    /// Sets how far an outcome must be safe before its pair is handed out. The default is
    /// [`Durability::Local`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets the deadline of every call to a provider. The default is 60 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how much later than its deadline a request may still be carried out by the provider:
    /// nothing that it says of a token before counts. The default is 60 s.
    pub fn late_margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    /// Says whether the broker acts by itself: looks into what an earlier process left in doubt,
    /// and refreshes ahead of expiry. By default it does; one for a single order should not.
    pub fn tends(mut self, tends: bool) -> Self {
        self.tends = tends;
        self
    }

    /// Sets where states, nonces and verifiers are drawn from.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = Arc::new(SharedEntropy(entropy));
        self
    }

    /// Makes the broker, and begins to look into what an earlier process left in doubt.
    ///
    /// All that it does it does on the tokio runtime on which this is called, which has to have time
    /// and I/O, and to live as long as the broker is used: at its end calls on their way are cut, and
    /// stay in doubt. Callers may be on any other.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[track_caller]
    pub fn build(self) -> Broker<L> {
        let meter = Arc::new(Meter::new());
        let tasks = Tasks::new(Arc::clone(&meter));
        let jar = Jar::new(&self.ledger.derive("cookie"));
        let began = self.ledger.head();
        let desks = self.apps.into_iter().map(|config| (config.app.clone(), config));
        let desks = desks.map(|(app, config)| (app, Arc::new(Desk::new(config)))).collect();
        let broker = Broker(Arc::new_cyclic(|me| Inner {
            ledger: self.ledger,
            desks,
            durability: self.durability,
            deadline: self.deadline,
            margin: self.margin,
            entropy: Arc::clone(&self.entropy.0),
            jar,
            bell: Bell::new(Arc::clone(&meter)),
            shelf: Shelf::new(),
            flights: Flights::new(),
            ahead: Arc::new(Ahead::new()),
            backoff: Backoff::default(),
            tasks,
            meter,
            arrivals: Mutex::new(Arrivals::new(Instant::now())),
            began,
            started: Instant::now(),
            begun: Mutex::default(),
            wakes: Mutex::default(),
            looked: Mutex::default(),
            failed: Mutex::default(),
            unsettled: Mutex::default(),
            control: control::Listening::default(),
            tends: self.tends,
            me: me.clone(),
        }));
        if self.tends {
            broker.0.begin_tending();
        }
        broker
    }
}
