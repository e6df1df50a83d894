//! A web service with tokenwal in it: an example to read from top to bottom, and a test of it.
//!
//! The service connects its tenants' integrations to a provider that allows four approvals a user
//! and silently kills the oldest beyond that. Tokens live in the journal and nowhere else: the
//! service's own database holds account tags and grant ids, so that a transaction that is rolled
//! back takes no pair with it.
//!
//! What a service does, in the order of a request's life:
//! - it looks for a grant that an earlier try left behind, and asks the provider only without one;
//! - it issues in a task of its own, since a browser that goes away must not cut the call;
//! - it adopts before its transaction commits, and releases when it is rolled back;
//! - it refreshes through the journal, where one caller gets the ticket and the others `Busy`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]
#![cfg(all(feature = "client", feature = "sandbox"))]

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokenwal::provider::{Pkce, Provider, Rotation};
use tokenwal::sandbox::{Fault, Sandbox, SandboxConfig};
use tokenwal::{
    Account, AccountTag, App, Begin, Clock, Error, FixedKeys, Generation, GrantId, GrantState,
    Holder, IssuedPair, Journal, NotSent, Options, Outcome, Report, Secret, SettleError, Settled,
    SystemClock, SystemEntropy, Ticket,
};
use tokio::task::JoinSet;

const REDIRECT: &str = "https://service.example/callback";

/// The service: one clone a request.
#[derive(Clone)]
struct Service {
    journal: Journal,
    provider: Provider,
    database: Database,
    http: reqwest::Client,
    resource: String,
}

/// What a browser comes back from the provider with, after its user has approved.
struct Callback {
    code: Secret,
    pkce: Pkce,
}

/// Why a request failed. What a service does about each is its own affair; none of them loses a
/// pair.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the journal cannot take it now")]
    Journal(#[from] Error),
    #[error("the outcome could not be stored")]
    Settle(#[from] SettleError),
    #[error("the configuration failed, and its transaction was rolled back")]
    RolledBack,
    #[error("the provider gave no pair: {0}")]
    NoPair(&'static str),
    #[error("the resource cannot be reached")]
    Resource(#[from] reqwest::Error),
}

impl Service {
    /// Connects an integration on behalf of a user who is signed in.
    ///
    /// `approve` sends the user to the provider's page. It is called only if there is no grant to
    /// go on with.
    async fn connect(
        &self,
        holder: &Holder,
        account: &Account,
        approve: impl FnOnce() -> Callback,
        configure: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (tag, grant) = match self.left_behind(account).await? {
            Some(found) => found,
            None => self.issue(holder, account, approve()).await?,
        };
        // Before the transaction commits: should the process die in between, the grant is listed
        // with a holder that has no row, instead of a row whose grant is anybody's to revoke.
        self.journal.adopt(tag, grant, holder).await?;
        let mut transaction = self.database.begin();
        transaction.insert(holder, tag, grant);
        match configure() {
            Ok(()) => transaction.commit(),
            Err(failure) => {
                drop(transaction);
                self.journal.release(tag, grant, holder).await?;
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Finds a living grant of the account that nobody depends on.
    async fn left_behind(
        &self,
        account: &Account,
    ) -> Result<Option<(AccountTag, GrantId)>, Failure> {
        let Some(view) = self.journal.account(account).await? else { return Ok(None) };
        let is_free =
            |state: GrantState| matches!(state, GrantState::Waiting | GrantState::Released);
        let free = view.grants.iter().find(|grant| is_free(grant.state));
        Ok(free.map(|free| (view.account_tag, free.grant)))
    }

    /// Exchanges the code: an intent, the call, its outcome, and only then a pair.
    async fn issue(
        &self,
        holder: &Holder,
        account: &Account,
        callback: Callback,
    ) -> Result<(AccountTag, GrantId), Failure> {
        let begin = Begin::exchange(&account.app).user(&account.user).holder(holder);
        let ticket = self.journal.begin(begin).await?;
        let service = self.clone();
        detached(async move {
            let outcome = service.provider.exchange(callback.code, REDIRECT, &callback.pkce).await;
            let pair = pair_of(service.journal.settle(ticket, outcome).await?)?;
            Ok((pair.account(), pair.grant()))
        })
        .await
    }

    /// Works with an integration's grant: calls the resource, and refreshes where it must.
    async fn work(&self, holder: &Holder) -> Result<(), Failure> {
        let (tag, grant) = self.database.row(holder)?;
        let pair = self.journal.current_of(tag, grant).await?;
        let pair = pair.ok_or(Failure::NoPair("the journal does not have it"))?;
        if self.call(&pair).await? {
            return Ok(());
        }
        let pair = self.newer(tag, grant, pair.generation()).await?;
        match self.call(&pair).await? {
            true => Ok(()),
            false => Err(Failure::NoPair("the resource does not take a fresh token")),
        }
    }

    /// Says whether the resource took the access token.
    async fn call(&self, pair: &IssuedPair) -> Result<bool, Failure> {
        let request = self.http.get(&self.resource).bearer_auth(pair.access_token().reveal());
        Ok(request.send().await?.status().is_success())
    }

    /// Returns a pair that is newer than the one that did not work. However many ask at once, one
    /// of them refreshes.
    async fn newer(
        &self,
        tag: AccountTag,
        grant: GrantId,
        stale: Generation,
    ) -> Result<IssuedPair, Failure> {
        loop {
            match self.journal.current_of(tag, grant).await? {
                Some(pair) if pair.generation() > stale => return Ok(pair),
                _ => {}
            }
            match self.journal.begin(Begin::refresh(tag, grant)).await {
                Ok(ticket) => self.refresh(ticket, stale).await?,
                Err(Error::Busy { .. }) => tokio::time::sleep(Duration::from_millis(2)).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn refresh(&self, ticket: Ticket, stale: Generation) -> Result<(), Failure> {
        let service = self.clone();
        detached(async move {
            let pair = ticket.current().ok_or(Failure::NoPair("there is nothing to refresh"))?;
            if pair.generation() > stale {
                // Somebody was done just before this ticket was given.
                let outcome = Outcome::NotSent(NotSent::GivenUp);
                service.journal.settle(ticket, outcome).await?;
                return Ok(());
            }
            let token = pair.refresh_token().ok_or(Failure::NoPair("it cannot be refreshed"))?;
            let outcome = service.provider.refresh(token).await;
            pair_of(service.journal.settle(ticket, outcome).await?)?;
            Ok(())
        })
        .await
    }

    /// Lets go of an integration's grant.
    async fn disconnect(&self, holder: &Holder) -> Result<(), Failure> {
        let (tag, grant) = self.database.row(holder)?;
        self.database.remove(holder);
        self.journal.release(tag, grant, holder).await?;
        Ok(())
    }

    /// Revokes what nobody depends on any more.
    async fn sweep(&self) -> Result<usize, Failure> {
        let mut revoked = 0;
        for account in self.journal.accounts() {
            let account = account?;
            let free = account.grants.iter().filter(|grant| grant.state == GrantState::Released);
            for grant in free {
                let begin = Begin::revoke(account.account_tag, grant.grant);
                let ticket = self.journal.begin(begin).await?;
                let outcome = match ticket.current().and_then(IssuedPair::refresh_token) {
                    Some(token) => self.provider.revoke(token).await,
                    None => Outcome::NotSent(NotSent::GivenUp),
                };
                let settled = self.journal.settle(ticket, outcome).await?;
                revoked += usize::from(matches!(settled, Settled::Revoked));
            }
        }
        Ok(revoked)
    }
}

/// Runs to its end even if the browser goes away, and with it the future that waits here.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    tokio::spawn(work).await.unwrap_or(Err(Failure::NoPair("the task ended")))
}

fn pair_of(settled: Settled) -> Result<IssuedPair, Failure> {
    match settled {
        Settled::Issued(pair) => Ok(*pair),
        Settled::DifferentUser(_) => Err(Failure::NoPair("somebody else signed in")),
        Settled::InDoubt(_) => Err(Failure::NoPair("nobody knows what the provider did")),
        Settled::NotSent => Err(Failure::NoPair("the provider cannot be reached")),
        _ => Err(Failure::NoPair("the provider refused")),
    }
}

// --- The service's own database: what is not committed is gone.

/// Which grant each integration works with.
type Rows = HashMap<Holder, (AccountTag, GrantId)>;

#[derive(Clone, Default)]
struct Database(Arc<Mutex<Rows>>);

struct Transaction {
    database: Database,
    inserted: Rows,
}

impl Database {
    fn begin(&self) -> Transaction {
        Transaction { database: self.clone(), inserted: Rows::new() }
    }

    fn row(&self, holder: &Holder) -> Result<(AccountTag, GrantId), Failure> {
        let row = self.0.lock().unwrap().get(holder).copied();
        row.ok_or(Failure::NoPair("it is not connected"))
    }

    fn remove(&self, holder: &Holder) {
        self.0.lock().unwrap().remove(holder);
    }
}

impl Transaction {
    fn insert(&mut self, holder: &Holder, account: AccountTag, grant: GrantId) {
        self.inserted.insert(holder.clone(), (account, grant));
    }

    fn commit(self) {
        self.database.0.lock().unwrap().extend(self.inserted);
    }
}

// --- The story, on both kinds of tokio's runtimes.

const TENANTS: [&str; 3] = ["acme", "initech", "umbrella"];
const PEOPLE: [&str; 4] = ["ada", "bob", "cy", "di"];
const INTEGRATIONS: [&str; 3] = ["billing", "crm", "mail"];
/// How often a configuration fails before it works: more often than the cap allows pairs.
const FAILURES: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_web_service_on_many_threads() {
    story().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_web_service_on_one_thread() {
    story().await;
}

async fn story() {
    let world = World::start().await;
    let (journal, _) = world.open();
    let service = world.service(journal);
    world.everyone_connects(&service).await;
    let grants = service.database.grants();
    assert_eq!(world.all_work_at_once(&service).await, 0);
    world.clock.0.fetch_add(3 * 60 * 60 * 1000, Ordering::Relaxed);
    assert_eq!(world.all_work_at_once(&service).await, grants, "one refresh a grant");

    world.a_browser_goes_away(&service).await;
    world.an_answer_is_lost(&service).await;

    // A restart in order, and one without: what was there is there.
    let Service { journal, .. } = service;
    journal.close().await.unwrap();
    let (journal, report) = world.open();
    assert!(report.last_batch_proven);
    assert_eq!(report.in_doubt.len(), 1, "the answer that was lost is known to be lost");
    let service = world.service(journal);
    assert_eq!(world.all_work_at_once(&service).await, 0);
    drop(service);
    let (journal, report) = world.open();
    assert_eq!(report.in_doubt.len(), 1);
    let service = world.service(journal);
    world.clock.0.fetch_add(3 * 60 * 60 * 1000, Ordering::Relaxed);
    assert!(world.all_work_at_once(&service).await > 0);

    // Everyone leaves, and nothing stays behind but what was never received.
    for holder in service.database.holders() {
        service.disconnect(&holder).await.unwrap();
    }
    assert!(service.sweep().await.unwrap() as u64 >= grants);
    let state = world.sandbox.state();
    assert_eq!(state.users.iter().map(|user| user.live).sum::<usize>(), 1, "{state:?}");
    assert_eq!((state.counters.evictions, state.counters.reuses), (0, 0), "{state:?}");
}

/// Everything around the service, which outlives its restarts.
struct World {
    dir: tempfile::TempDir,
    clock: Arc<Ahead>,
    sandbox: Sandbox,
    app: App,
    provider: Provider,
    database: Database,
}

/// A clock that can be moved ahead, so that access tokens lapse.
#[derive(Default)]
struct Ahead(AtomicU64);

impl Clock for Ahead {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms() + self.0.load(Ordering::Relaxed)
    }
}

impl World {
    async fn start() -> Arc<Self> {
        let clock = Arc::new(Ahead::default());
        let config = SandboxConfig::new().cap(4).rotation(true).clock(clock.clone());
        let app = App::new("salesforce", config.client_id()).unwrap();
        let secret = Secret::new(config.client_secret().to_owned());
        let sandbox = Sandbox::start(config).await.unwrap();
        let provider = Provider::salesforce(app.clone(), secret, sandbox.url());
        let provider = provider.rotation(Rotation::On).build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        Arc::new(Self { dir, clock, sandbox, app, provider, database: Database::default() })
    }

    fn open(&self) -> (Journal, Report) {
        let path = self.dir.path().join("store");
        Options::new(FixedKeys::new([7; 32], [])).open_or_create(path).unwrap()
    }

    fn service(&self, journal: Journal) -> Service {
        Service {
            journal,
            provider: self.provider.clone(),
            database: self.database.clone(),
            http: reqwest::Client::new(),
            resource: format!("{}/services/oauth2/userinfo", self.sandbox.url()),
        }
    }

    fn account(&self, person: &str) -> Account {
        Account::new(self.app.clone(), self.sandbox.user(person).unwrap())
    }

    fn approve(&self, person: &str) -> Callback {
        let code = self.sandbox.code_for(person).unwrap();
        Callback { code, pkce: Pkce::generate(&SystemEntropy).unwrap() }
    }

    /// Every integration of every person, all at once, each with a configuration that fails.
    async fn everyone_connects(self: &Arc<Self>, service: &Service) {
        let mut tasks = JoinSet::new();
        for tenant in TENANTS {
            for (person, name) in PEOPLE.iter().flat_map(|p| INTEGRATIONS.map(|name| (p, name))) {
                let (world, service) = (self.clone(), service.clone());
                tasks
                    .spawn(async move { world.one_connects(&service, tenant, person, name).await });
            }
        }
        tasks.join_all().await;
        assert_eq!(self.sandbox.state().counters.evictions, 0);
        let connected = TENANTS.len() * PEOPLE.len() * INTEGRATIONS.len();
        assert_eq!(service.database.holders().len(), connected);
    }

    async fn one_connects(&self, service: &Service, tenant: &str, person: &str, name: &str) {
        let person = format!("{person}@{tenant}");
        let holder = Holder::new(tenant, format!("{name} of {person}")).unwrap();
        let account = self.account(&person);
        for _ in 0..FAILURES {
            let fails = || Err(Failure::RolledBack);
            let result = service.connect(&holder, &account, || self.approve(&person), fails).await;
            assert!(matches!(result, Err(Failure::RolledBack)), "{result:?}");
            assert!(service.database.row(&holder).is_err(), "it was rolled back");
        }
        service.connect(&holder, &account, || self.approve(&person), || Ok(())).await.unwrap();
    }

    /// Lets each integration work from eight places at once; returns how often that took a refresh.
    async fn all_work_at_once(&self, service: &Service) -> u64 {
        let before = self.sandbox.state().counters;
        let holders = service.database.holders();
        let mut tasks = JoinSet::new();
        for holder in holders.iter().flat_map(|holder| std::iter::repeat_n(holder, 8)) {
            let (service, holder) = (service.clone(), holder.clone());
            tasks.spawn(async move { service.work(&holder).await.unwrap() });
        }
        tasks.join_all().await;
        let after = self.sandbox.state().counters;
        assert_eq!((after.collisions, after.reuses, after.refused), (0, 0, before.refused));
        after.refreshes - before.refreshes
    }

    /// The request is dropped while the provider answers; the pair is there for the next one.
    async fn a_browser_goes_away(&self, service: &Service) {
        let holder = Holder::new("acme", "left").unwrap();
        let account = self.account("eve@acme");
        self.sandbox.inject(Fault::DelayAfterCommit(Duration::from_secs(1)));
        let before = self.sandbox.state().counters.exchanges;
        {
            let approve = || self.approve("eve@acme");
            let mut request =
                std::pin::pin!(service.connect(&holder, &account, approve, || Ok(())));
            while self.sandbox.state().counters.exchanges == before {
                tokio::select! {
                    result = &mut request => panic!("it was answered too soon: {result:?}"),
                    () = tokio::time::sleep(Duration::from_millis(1)) => {}
                }
            }
        }
        while service.left_behind(&account).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let nobody_is_asked = || panic!("the pair that was left behind is used");
        service.connect(&holder, &account, nobody_is_asked, || Ok(())).await.unwrap();
    }

    /// The provider issues and its answer is lost: no pair, and the journal says so.
    async fn an_answer_is_lost(&self, service: &Service) {
        let holder = Holder::new("acme", "lost").unwrap();
        let account = self.account("fay@acme");
        self.sandbox.inject(Fault::DropAfterCommit);
        let approve = || self.approve("fay@acme");
        let result = service.connect(&holder, &account, approve, || Ok(())).await;
        assert!(matches!(result, Err(Failure::NoPair(_))), "{result:?}");
        let view = service.journal.account(&account).await.unwrap().unwrap();
        assert_eq!((view.grants.len(), view.in_doubt.len()), (0, 1), "{view:?}");
        service.connect(&holder, &account, approve, || Ok(())).await.unwrap();
    }
}

impl Database {
    fn holders(&self) -> Vec<Holder> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    /// Counts the grants that somebody works with.
    fn grants(&self) -> u64 {
        let rows = self.0.lock().unwrap();
        rows.values().collect::<HashSet<_>>().len() as u64
    }
}
