//! The broker between a service and its providers: it issues, refreshes and revokes through a
//! [`Ledger`], and never kills a living grant.
//!
//! - `connect` sends users off to approve and takes them in; `cookie` is what they carry, `answer` what
//!   they come back with.
//! - `tokens` hands out access tokens, `refresh` is how another one comes; `ahead` refreshes those in
//!   use before they lapse.
//! - `holders` is who depends on what, `guard` the provider's cap, `revoke` how a grant ends by our hand,
//!   `stale` what a claimed copy may present, `import` the way in and out, `reconcile` the comparison
//!   with the service's own rows, `health` what to show.
//! - `doubt` and `rules` decide, and do nothing; `resolve` does what `doubt` decides, `tend` by itself. `death` says why
//!   a grant has died.
//! - `judge` says what the rules are without a broker, `control` takes orders from other processes.
//! - `call` is the one way to a provider: intent, call, outcome. `flights` keeps it in a task of its
//!   own, `gate` and `backoff` hold it back, `upstream` is its other end. `metrics` counts.
//! - `arrivals` is what the process knows of the pairs that came to it, and `moved` leads from a
//!   provisional account to where its grant went.
//!
//! Every call to a provider runs in a task of its own, on the tokio runtime on which the broker was
//! built. Callers may leave, time out or panic, and so may their runtimes: what the provider answers is
//! durable all the same, and the next caller gets it.
//!
//! # When no call is made
//! Times are taken by a clock that nobody sets. A valid token is handed out all the while.
//! - Calls of an app are made so many at once ([`AppConfig::calls_at_once`]); others wait.
//! - After five calls in a row that failed, to the host of one token endpoint, none goes there for 10 s,
//!   then one that tries it out; each that fails doubles the time, up to 5 min. What the ledger refused
//!   to begin is no call.
//! - A `Retry-After` is believed for up to an hour. With status 429 it is about the account; where three
//!   accounts hear it within a minute, and with any other status, it is about the host.
//! - A grant that was refused is not presented again for 1 s, then twice as long after each refusal, up
//!   to 5 min; who asks meanwhile hears the same refusal. [`Broker::refresh`] need not wait.
//! - A pair that came of a refresh and lasts no longer than was asked for is handed out during the first
//!   half of its time: another would last no longer.
//!
//! # The pattern
//! ```text
//! callback ──> grant, durable, nobody's yet
//! adopt(holder)            before the service's own transaction commits
//! transaction commits      ──> access_token_for(holder)
//! transaction rolls back   ──> release(holder); the pair stays, the retry finds it by `reuse`
//! ```
//! A crash between adopting and committing leaves a grant that is held by nobody's row:
//! [`Broker::reconcile`] finds it.
//!
//! # Metrics
//! With the feature `metrics` a broker counts through the facade of that name:
//!
//! | name | kind | unit | labels | what |
//! |---|---|---|---|---|
//! | `tokenwal_calls_total` | counter | calls | `provider`, `action`, `outcome` | calls to a provider that ended: `issued`, `refused`, `not_sent`, `in_doubt`, `revoked`, `answered` |
//! | `tokenwal_call_seconds` | histogram | seconds | `provider`, `action` | from before a call to its answer, or to when it was given up; not what its records took |
//! | `tokenwal_circuit_open` | gauge | 0 or 1 | `provider` | calls to one of its hosts failed in a row, and none is let through but one that tries it out |
//! | `tokenwal_refreshes_total` | counter | callers | `how` | callers who wanted a refresh: `made` it, or `joined` the one that was on its way |
//! | `tokenwal_tokens_total` | counter | tokens | `how` | tokens that were handed out: `current`, `refreshed`, `assumed` to work still |
//! | `tokenwal_in_doubt` | gauge | operations | | operations in doubt, of the accounts that this broker has looked into |
//! | `tokenwal_events_total` | counter | events | `event` | events, by their name in JSON |
//! | `tokenwal_tasks` | gauge | tasks | | what a shutdown would wait for |
//!
//! `provider` is the app's provider, `action` that of the intent. No label names a user, an account,
//! a holder or a token. A recorder has to be installed before the broker is built: what is counted is
//! registered then, at zero.

mod ahead;
mod answer;
mod app;
mod arrivals;
mod backoff;
mod beside;
mod builder;
mod cache;
mod call;
mod connect;
pub mod control;
mod cookie;
mod death;
mod doubt;
mod error;
mod event;
mod flights;
mod gate;
mod guard;
mod health;
mod holders;
mod import;
mod introspect;
mod judge;
mod metrics;
mod moved;
mod reconcile;
mod refresh;
mod resolve;
mod revoke;
mod rules;
mod stale;
mod tend;
#[cfg(test)]
mod testing;
mod tokens;
mod upstream;

pub use app::{AppConfig, AtCap};
pub use builder::BrokerBuilder;
pub use connect::{Authorization, Authorize, Connected};
pub use doubt::{Step, Why};
pub use error::{BrokerError, CallbackFault};
pub use event::{Event, Events};
pub use health::{Health, Status, Usage};
pub use holders::Disconnected;
pub use judge::AppRules;
pub use reconcile::{Reconciliation, Row};
pub use resolve::Choice;
pub use rules::Keeps;
pub use upstream::{Approval, Call, Code, Listed, Upstream, Which};

use crate::clock::Entropy;
use crate::error::Error;
use crate::ids::{AccountTag, App, GrantId, Lsn, OpId};
use crate::journal::{AccountView, IssuedPair, Journal, Ticket};
use crate::ledger::{Durability, Ledger};
use crate::outcome::Outcome;
use crate::sync::lock;
use ahead::Ahead;
use app::Desk;
use arrivals::Arrivals;
use backoff::Backoff;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cache::Shelf;
use cookie::Jar;
use event::Bell;
use flights::{Flights, Tasks};
use metrics::Meter;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// At most so many accounts and operations are remembered, each for what is noted of them.
const NOTED_MAX: usize = 65_536;

/// A broker. It is a handle: clones share the work.
///
/// It makes its calls on the tokio runtime on which it was [built](BrokerBuilder::build), whichever its
/// callers are on; the ledger may be any.
#[derive(Debug)]
pub struct Broker<L: Ledger = Journal>(Arc<Inner<L>>);

impl<L: Ledger> Clone for Broker<L> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What a flight is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Grant(AccountTag, GrantId),
    Callback(AccountTag),
    Account(AccountTag),
}

/// What a flight came to.
#[derive(Debug, Clone)]
enum Landed {
    Pair(Arc<IssuedPair>),
    /// No call was made: there was a newer pair already.
    There(Arc<IssuedPair>),
    Connected(Box<Connected>),
    /// Of a call for a token beside a grant's chain: those who wait for another hear nothing by it.
    Beside(Box<Result<Arc<IssuedPair>, BrokerError>>),
    Nothing,
}

/// An outcome that could not be stored, for another store. It may hold tokens; there is no getter.
#[derive(Debug)]
pub struct Unsettled {
    /// The account.
    pub account: AccountTag,
    /// The operation.
    pub op: OpId,
    /// The ticket, to settle the outcome here after all.
    pub ticket: Ticket,
    /// What came of the call.
    pub outcome: Outcome,
}

struct Inner<L: Ledger> {
    ledger: L,
    desks: HashMap<App, Arc<Desk>>,
    durability: Durability,
    deadline: Duration,
    margin: Duration,
    entropy: Arc<dyn Entropy>,
    jar: Jar,
    bell: Bell,
    shelf: Shelf,
    flights: Flights<Key, Result<Landed, BrokerError>>,
    ahead: Arc<Ahead>,
    backoff: Backoff,
    tasks: Tasks,
    meter: Arc<Meter>,
    /// What this process knows of the pairs that came to it.
    arrivals: Mutex<Arrivals>,
    /// The ledger's head when this began: what was begun before and has no outcome was left.
    began: Lsn,
    /// When this began, by a clock that nobody sets.
    started: Instant,
    /// When operations of this process were begun, as long as they are on their way or in doubt. Where
    /// they are too many the oldest are forgotten: they count as begun when the broker was.
    begun: Mutex<BTreeMap<OpId, Instant>>,
    /// When accounts are to be looked into again.
    wakes: Mutex<HashMap<AccountTag, Instant>>,
    /// What was heard and said of operations in doubt.
    looked: Mutex<HashMap<OpId, resolve::Looked>>,
    /// Why nothing more is issued.
    failed: Mutex<Option<Arc<Error>>>,
    unsettled: Mutex<Vec<Unsettled>>,
    control: control::Listening,
    /// It acts by itself.
    tends: bool,
    me: Weak<Self>,
}

impl<L: Ledger> std::fmt::Debug for Inner<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("apps", &self.desks.len()).finish_non_exhaustive()
    }
}

impl<L: Ledger> Broker<L> {
    /// Begins to configure a broker on a ledger. From then on the broker is the one who writes to it:
    /// it keeps the accounts in use in memory.
    pub fn builder(ledger: L) -> BrokerBuilder<L> {
        BrokerBuilder::new(ledger)
    }

    /// Returns the ledger.
    pub fn ledger(&self) -> &L {
        &self.0.ledger
    }

    /// Returns the events from now on.
    pub fn events(&self) -> Events {
        self.0.bell.listen()
    }

    /// Returns the outcomes that could not be stored, for another store. What nobody takes is lost
    /// with the process; its operations are in doubt in the ledger.
    pub fn take_unsettled(&self) -> Vec<Unsettled> {
        std::mem::take(&mut *lock(&self.0.unsettled))
    }

    /// Takes no further calls, and begins none that wait for their turn: those hear
    /// [`BrokerError::Closed`]. Waits until those on their way have their outcomes, at most this long.
    /// Says whether all have; the others go on as long as the runtime does, and are in doubt
    /// if they are cut.
    ///
    /// # Cancel safety
    /// Dropping the future stops nothing.
    pub async fn shutdown(&self, within: Duration) -> bool {
        self.0.control.stop();
        self.0.ahead.stop();
        self.0.tasks.close();
        tokio::time::timeout(within, self.0.tasks.wait()).await.is_ok()
    }
}

impl<L: Ledger> Inner<L> {
    /// Returns a handle for a task of its own.
    fn handle(&self) -> Result<Arc<Self>, BrokerError> {
        match self.tasks.is_closed() {
            true => Err(BrokerError::Closed),
            false => self.me.upgrade().ok_or(BrokerError::Closed),
        }
    }

    /// Does something in a task of its own, and waits for it.
    async fn in_task<T, F>(&self, work: impl FnOnce(Arc<Self>) -> F) -> Result<T, BrokerError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BrokerError>> + Send + 'static,
    {
        let work = work(self.handle()?);
        self.tasks.spawn(work).await.unwrap_or(Err(BrokerError::Lost))
    }

    fn desk(&self, app: &App) -> Result<&Arc<Desk>, BrokerError> {
        self.desks.get(app).ok_or_else(|| BrokerError::UnknownApp { app: app.to_string() })
    }

    fn desk_of(&self, view: &AccountView) -> Result<Arc<Desk>, BrokerError> {
        let unknown = || BrokerError::UnknownApp { app: view.app_tag.to_string() };
        self.desk(view.app.as_ref().ok_or_else(unknown)?).cloned()
    }

    async fn view(&self, account: AccountTag) -> Result<AccountView, BrokerError> {
        let view = self.ledger.account(account).await?;
        view.ok_or(BrokerError::UnknownAccount { account })
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), BrokerError> {
        self.entropy.fill(bytes).map_err(Self::no_randomness)
    }

    fn no_randomness(source: io::Error) -> BrokerError {
        Error::io("drawing random bytes", "the random generator")(source).into()
    }

    /// Draws a text of 256 random bits.
    fn draw(&self) -> Result<String, BrokerError> {
        let mut bytes = [0; 32];
        self.fill(&mut bytes)?;
        Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    fn note_begun(&self, op: OpId) {
        let mut begun = lock(&self.begun);
        begun.insert(op, Instant::now());
        if begun.len() > NOTED_MAX {
            begun.pop_first();
        }
    }
}
