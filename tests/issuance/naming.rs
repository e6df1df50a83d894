//! Grants whose user no answer names: who is asked, when, and how often; and where a service finds
//! the grant that it knows by its first account.

use super::world::{TestClock, holder};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokenwal::broker::{
    AppConfig, Approval, Authorize, Broker, BrokerError, Call, Choice, Code, Connected, Event,
    Upstream,
};
use tokenwal::ledger::{Ledger as _, MemoryLedger};
use tokenwal::profile::Profile;
use tokenwal::{Account, App, Clock, Doubt, DoubtReason, IssuedPair, Outcome, TokenResponse, User};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const ROUND: Duration = Duration::from_secs(900);
const STEADY: &str = "name = \"example\"\n[rotation]\nvalue = \"never\"\n";
const ROTATING: &str = "name = \"example\"\n[rotation]\nvalue = \"always\"\n\
     [reuse]\nvalue = \"family_dies\"\n";

/// Issues pairs for an hour that name nobody, and says whose they are to who asks in time.
#[derive(Default)]
struct Nameless {
    clock: Arc<TestClock>,
    issued: AtomicUsize,
    refreshes: AtomicUsize,
    /// The next refresh is lost.
    loses: AtomicBool,
    /// No look-up gets an answer.
    dumb: AtomicBool,
    takes: Mutex<Duration>,
    asked: AtomicUsize,
    at_once: AtomicUsize,
    at_most: AtomicUsize,
}

impl Nameless {
    fn pair(&self) -> Outcome {
        let number = self.issued.fetch_add(1, Relaxed);
        let body = format!(
            r#"{{"access_token":"access-{number}-token","refresh_token":"refresh-{number}-token",
                "expires_in":3600,"scope":"api"}}"#
        );
        Outcome::Issued(TokenResponse::parse(body.into_bytes(), self.clock.now_ms()).unwrap())
    }
}

impl Upstream for Nameless {
    fn authorization_url(&self, approval: Approval<'_>) -> Option<String> {
        Some(format!("https://p.example/authorize?state={}", approval.state))
    }

    fn exchange<'a>(&'a self, _: Code<'a>) -> Call<'a, Outcome> {
        Box::pin(async { self.pair() })
    }

    fn refresh<'a>(&'a self, _: &'a IssuedPair) -> Call<'a, Outcome> {
        Box::pin(async {
            self.refreshes.fetch_add(1, Relaxed);
            let pair = self.pair();
            match self.loses.swap(false, Relaxed) {
                true => Outcome::InDoubt(Doubt::new(DoubtReason::ConnectionLost)),
                false => pair,
            }
        })
    }

    fn revoke<'a>(&'a self, _: &'a IssuedPair) -> Call<'a, Outcome> {
        Box::pin(async { Outcome::Revoked })
    }

    fn who<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Option<User>> {
        Box::pin(async {
            self.asked.fetch_add(1, Relaxed);
            self.at_most.fetch_max(self.at_once.fetch_add(1, Relaxed) + 1, Relaxed);
            let takes = *self.takes.lock().unwrap();
            tokio::time::sleep(takes).await;
            self.at_once.fetch_sub(1, Relaxed);
            let works = pair.expires_at_ms().is_none_or(|at_ms| self.clock.now_ms() < at_ms);
            (works && !self.dumb.load(Relaxed)).then(|| User::new("alice").unwrap())
        })
    }
}

struct Service {
    provider: Arc<Nameless>,
    ledger: MemoryLedger,
    profile: Profile,
    broker: Broker<MemoryLedger>,
}

fn app() -> App {
    App::new("example", "client").unwrap()
}

fn alice() -> Account {
    Account::new(app(), User::new("alice").unwrap())
}

impl Service {
    fn start(profile: &str, tends: bool) -> Self {
        let provider = Arc::new(Nameless::default());
        let ledger = MemoryLedger::new().with_clock(provider.clock.clone());
        let profile = Profile::from_toml(profile).unwrap();
        let broker = brokered(&ledger, &provider, &profile, tends);
        Self { provider, ledger, profile, broker }
    }

    /// The next process.
    fn restart(&mut self) {
        self.ledger = self.ledger.restart();
        self.broker = brokered(&self.ledger, &self.provider, &self.profile, true);
    }

    async fn connected(&self, code: &str) -> Connected {
        let sent = self.broker.authorize(&Authorize::new(&app(), &holder("crm"), ["api"])).unwrap();
        let state = sent.url.split_once("state=").unwrap().1;
        let query = format!("state={state}&code={code}");
        self.broker.callback(&query, sent.cookie.reveal()).await.unwrap()
    }

    async fn pass(&self, time: Duration) {
        self.provider.clock.advance(time);
        tokio::time::sleep(time).await;
    }
}

fn brokered(
    ledger: &MemoryLedger,
    provider: &Arc<Nameless>,
    profile: &Profile,
    tends: bool,
) -> Broker<MemoryLedger> {
    let config = AppConfig::new(app(), provider.clone(), profile.clone());
    let config = config.redirect_uri("https://s.example/cb").calls_at_once(4);
    let broker = Broker::builder(ledger.clone()).app(config).tends(tends);
    let (deadline, margin) = (Duration::from_secs(10), Duration::from_secs(10));
    broker.deadline(deadline).late_margin(margin).build()
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_is_held_is_named_as_well() {
    let service = Service::start(STEADY, true);
    service.provider.dumb.store(true, Relaxed);
    let new = service.connected("c1").await;
    assert_eq!(new.user, None);
    service.broker.adopt(new.account, new.grant, &holder("crm"), &["api"]).await.unwrap();
    service.pass(ROUND + SECOND).await;
    assert!(service.provider.asked.load(Relaxed) > 1, "nobody asked again");
    assert!(service.ledger.account(new.account).await.unwrap().unwrap().provisional);
    service.provider.dumb.store(false, Relaxed);
    service.pass(ROUND + SECOND).await;
    let view = service.ledger.account(service.ledger.tag_of(&(&alice()).into())).await.unwrap();
    assert_eq!(view.unwrap().grants[0].grant, new.grant);
    assert!(service.ledger.account(new.account).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_grant_whose_access_token_had_lapsed_is_named_after_its_refresh() {
    let mut service = Service::start(STEADY, true);
    service.provider.dumb.store(true, Relaxed);
    let (new, crm) = (service.connected("c1").await, holder("crm"));
    service.broker.adopt(new.account, new.grant, &crm, &["api"]).await.unwrap();
    service.provider.dumb.store(false, Relaxed);
    service.provider.clock.advance(2 * HOUR);
    // Another process, which begins with a token that has lapsed.
    service.restart();
    let mut events = service.broker.events();
    let ask = |account| service.broker.access_token_for(&crm, account, &["api"], Duration::ZERO);
    let pair = ask(new.account).await.unwrap();
    assert_eq!((pair.account(), pair.generation().0), (new.account, 2));
    let identified = tokio::time::timeout(HOUR, async {
        while let Some(event) = events.next().await {
            if let Event::Identified { from, account, .. } = event {
                return (from, account);
            }
        }
        panic!("the broker lives");
    });
    let (from, to) = identified.await.unwrap();
    assert_eq!((from, to), (new.account, service.ledger.tag_of(&(&alice()).into())));
    // What was handed out under the first account is of use as before.
    service.broker.worked(&pair).await.unwrap();
    assert_eq!(service.broker.rejected(&pair).await.unwrap().generation().0, 3);
    assert_eq!(ask(new.account).await.unwrap().account(), to);
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_was_named_late_is_found_by_its_first_account() {
    for restarts in [false, true] {
        let mut service = Service::start(STEADY, true);
        service.provider.dumb.store(true, Relaxed);
        let (new, crm, erp) = (service.connected("c1").await, holder("crm"), holder("erp"));
        service.provider.dumb.store(false, Relaxed);
        service.pass(2 * ROUND).await;
        assert!(service.ledger.account(new.account).await.unwrap().is_none(), "it was not named");
        if restarts {
            service.restart();
        }
        let Service { broker, ledger, .. } = &service;
        let (account, grant) = (new.account, new.grant);
        broker.adopt(account, grant, &crm, &["api"]).await.unwrap();
        let pair = broker.access_token_for(&crm, account, &["api"], Duration::ZERO).await.unwrap();
        let to = ledger.tag_of(&(&alice()).into());
        assert_eq!((pair.account(), pair.grant()), (to, grant));
        assert_eq!(broker.refresh(account, grant).await.unwrap().account(), to);
        assert_eq!(broker.health(account).await.unwrap().account, to);
        assert!(broker.keeps(account, grant).await.is_ok());
        assert!(broker.steps(account).await.unwrap().is_empty());
        let reused = broker.reuse(account, &crm, &["api"]).await.unwrap().unwrap();
        assert_eq!(reused.grant(), grant);
        broker.adopt(account, grant, &erp, &["api"]).await.unwrap();
        broker.release(account, grant, &crm).await.unwrap();
        broker.revoke_all(account, grant).await.unwrap();
        let over = broker.access_token(account, &[], Duration::ZERO).await.unwrap_err();
        assert!(matches!(over, BrokerError::NeedsAuthorization { .. }), "{over}");
    }
}

#[tokio::test(start_paused = true)]
async fn look_ups_keep_to_the_limit_of_calls_at_once() {
    let mut service = Service::start(STEADY, false);
    service.provider.dumb.store(true, Relaxed);
    for number in 0..40 {
        service.connected(&format!("c{number}")).await;
    }
    service.provider.dumb.store(false, Relaxed);
    *service.provider.takes.lock().unwrap() = Duration::from_millis(200);
    service.provider.at_most.store(0, Relaxed);
    service.restart();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(service.provider.at_most.load(Relaxed), 4);
    assert_eq!(service.provider.asked.load(Relaxed), 80);
    assert!(service.ledger.pending().await.unwrap().len() == 1, "all are one user's");
}

/// A clock that is set forward makes no token lapse, however its grant came by its name.
#[tokio::test(start_paused = true)]
async fn a_grant_that_was_named_is_as_young_as_before() {
    let service = Service::start(ROTATING, false);
    // The process is up for a day and more.
    service.pass(25 * HOUR).await;
    let new = service.connected("c1").await;
    assert!(new.user.is_some());
    service.broker.adopt(new.account, new.grant, &holder("crm"), &["api"]).await.unwrap();
    service.broker.access_token(new.account, &[], Duration::ZERO).await.unwrap();
    service.provider.loses.store(true, Relaxed);
    let error = service.broker.refresh(new.account, new.grant).await.unwrap_err();
    let BrokerError::InDoubt { op, .. } = error else { panic!("{error}") };
    service.pass(Duration::from_secs(30)).await;
    service.provider.clock.advance(2 * HOUR);
    let resolved = service.broker.resolve(new.account, op, Choice::ByTheRules).await;
    assert!(matches!(resolved, Err(BrokerError::InDoubt { .. })), "{resolved:?}");
    assert_eq!(service.provider.refreshes.load(Relaxed), 1, "its access token is still in use");
}
