//! The parts of an end-to-end test, and what must hold at the end of each.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokenwal::broker::{AppConfig, Authorize, Broker, BrokerError, Connected, Event, Events};
use tokenwal::profile::Profile;
use tokenwal::provider::{Provider, ProviderBuilder};
use tokenwal::sandbox::{ApprovalState, Counters, Sandbox, SandboxConfig};
use tokenwal::{
    Account, AccountView, Action, App, Clock, FixedKeys, GrantView, Holder, IssuedPair, Journal,
    Options, Secret, SystemClock,
};

pub const CALLBACK: &str = "http://127.0.0.1:9/callback";
pub const SCOPES: [&str; 2] = ["api", "refresh_token"];
/// Longer than anything that ends by itself takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Salesforce without rotation, but for a lifetime that it declares and no cap.
pub const STEADY: &str = r#"
name = "steady"
extends = "salesforce"
[cap]
status = "unknown"
[rotation]
value = "never"
[expiry]
from = "declared"
access_seconds = 7200
"#;

/// The same with rotation: a spent token kills its family, and no window forgives.
pub const ROTATING: &str = r#"
name = "rotating"
extends = "salesforce"
[cap]
status = "unknown"
[rotation]
value = "always"
[refresh_may_omit_refresh]
value = false
[expiry]
from = "declared"
access_seconds = 7200
"#;

/// Tells the system's time, and what a test adds to it; the journal, the provider and the sandbox go
/// by it alike.
#[derive(Debug, Default)]
pub struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms().saturating_add_signed(self.0.load(Ordering::Relaxed))
    }
}

impl TestClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }

    pub fn set_back(&self, by: Duration) {
        self.0.fetch_sub(i64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

/// What outlives a process of the service: the disk, the provider, the time.
pub struct World {
    pub sandbox: Sandbox,
    pub clock: Arc<TestClock>,
    pub app: App,
    profile: Profile,
    deadline: Duration,
    margin: Duration,
    config: fn(AppConfig) -> AppConfig,
    provider: fn(ProviderBuilder) -> ProviderBuilder,
    tends: bool,
    secret: String,
    http: reqwest::Client,
    dir: tempfile::TempDir,
}

/// One process of the service.
pub struct Life {
    pub journal: Journal,
    pub broker: Broker,
    pub events: Events,
}

/// How a world differs from others.
pub struct Setup {
    pub profile: String,
    pub deadline: Duration,
    pub margin: Duration,
    pub config: fn(AppConfig) -> AppConfig,
    pub provider: fn(ProviderBuilder) -> ProviderBuilder,
    pub sandbox: fn(SandboxConfig) -> SandboxConfig,
    /// The broker acts by itself.
    pub tends: bool,
}

impl Setup {
    pub fn new(profile: &str) -> Self {
        Self {
            profile: profile.to_owned(),
            deadline: Duration::from_secs(10),
            margin: Duration::from_secs(10),
            config: |config| config,
            provider: |provider| provider,
            sandbox: |sandbox| sandbox,
            tends: true,
        }
    }

    /// Calls are given up soon, and soon after nothing of them can come late.
    pub fn hasty(profile: &str) -> Self {
        let (deadline, margin) = (Duration::from_millis(700), Duration::from_millis(500));
        Self { deadline, margin, ..Self::new(profile) }
    }

    pub fn config(mut self, config: fn(AppConfig) -> AppConfig) -> Self {
        self.config = config;
        self
    }

    pub fn provider(mut self, provider: fn(ProviderBuilder) -> ProviderBuilder) -> Self {
        self.provider = provider;
        self
    }

    pub fn sandbox(mut self, sandbox: fn(SandboxConfig) -> SandboxConfig) -> Self {
        self.sandbox = sandbox;
        self
    }

    pub async fn start(self) -> World {
        let profile = Profile::from_toml(&self.profile).unwrap();
        let clock = Arc::new(TestClock::default());
        let config = SandboxConfig::new().profile(&profile).clock(clock.clone());
        let config = (self.sandbox)(config);
        let app = App::new("salesforce", config.client_id()).unwrap();
        let secret = config.client_secret().to_owned();
        let nowhere = reqwest::redirect::Policy::none();
        World {
            sandbox: Sandbox::start(config).await.unwrap(),
            clock,
            app,
            profile,
            deadline: self.deadline,
            margin: self.margin,
            config: self.config,
            provider: self.provider,
            tends: self.tends,
            secret,
            http: reqwest::Client::builder().redirect(nowhere).no_proxy().build().unwrap(),
            dir: tempfile::tempdir().unwrap(),
        }
    }
}

impl World {
    fn options(&self) -> Options {
        Options::new(FixedKeys::new([7; 32], []))
            .segment_bytes(2 << 20)
            .batch_bytes_max(256 << 10)
            .outcome_bytes_max(16 << 10)
            .clock(self.clock.clone())
    }

    /// Starts the service, or starts it again.
    pub fn live(&self) -> Life {
        self.live_in("store")
    }

    /// Starts another service of the same app, with a store of its own.
    pub fn live_elsewhere(&self) -> Life {
        self.live_in("elsewhere")
    }

    fn live_in(&self, store: &str) -> Life {
        let (journal, _) = self.options().open_or_create(self.dir.path().join(store)).unwrap();
        let secret = Secret::new(self.secret.clone());
        let provider = Provider::salesforce(self.app.clone(), secret, self.sandbox.url())
            .profile(self.profile.clone())
            .clock(self.clock.clone())
            .timeout(Duration::from_secs(30));
        let provider = (self.provider)(provider).build().unwrap();
        let config = AppConfig::new(self.app.clone(), Arc::new(provider), self.profile.clone());
        let builder = Broker::builder(journal.clone())
            .app((self.config)(config.redirect_uri(CALLBACK)))
            .deadline(self.deadline)
            .late_margin(self.margin)
            .tends(self.tends);
        let broker = builder.build();
        Life { events: broker.events(), journal, broker }
    }

    pub fn clock_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub fn account(&self, user: &str) -> Account {
        Account::new(self.app.clone(), self.sandbox.user(user).unwrap())
    }

    pub fn counters(&self) -> Counters {
        self.sandbox.state().counters
    }

    /// Says whether the provider takes a pair's access token, at a resource.
    pub async fn works(&self, pair: &IssuedPair) -> bool {
        let url = self.sandbox.endpoints().userinfo;
        let asked = self.http.get(url).bearer_auth(pair.access_token().reveal());
        asked.send().await.unwrap().status().is_success()
    }

    pub fn is_alive(&self, token: Option<&Secret>) -> bool {
        token.is_some_and(|token| self.sandbox.is_alive(token.reveal()))
    }

    /// Sends a user off with a browser, and returns the query and the cookie that they come back with.
    pub async fn click(&self, life: &Life, asked: &Authorize, user: &str) -> (String, String) {
        let sent = life.broker.authorize(asked).unwrap();
        let url = format!("{}&login_hint={user}", sent.url);
        let answer = self.http.get(url).send().await.unwrap();
        let location = answer.headers()[reqwest::header::LOCATION].to_str().unwrap().to_owned();
        let query = location.split_once('?').expect("the user comes back with a query").1;
        (query.to_owned(), sent.cookie.reveal().to_owned())
    }

    pub fn asks(&self, holder: &Holder) -> Authorize {
        Authorize::new(&self.app, holder, SCOPES)
    }

    /// Lets a user approve, whom the service expects.
    pub async fn connect(
        &self,
        life: &Life,
        user: &str,
        holder: &Holder,
    ) -> Result<Connected, BrokerError> {
        let asked = self.asks(holder).user(&self.sandbox.user(user).unwrap());
        let (query, cookie) = self.click(life, &asked, user).await;
        life.broker.callback(&query, &cookie).await
    }

    /// Lets a user approve, and the holder depend on it.
    pub async fn adopted(&self, life: &Life, user: &str, holder: &Holder) -> Connected {
        let connected = self.connect(life, user, holder).await.unwrap();
        let scopes = &SCOPES;
        life.broker.adopt(connected.account, connected.grant, holder, scopes).await.unwrap();
        connected
    }

    /// Lets time pass, also for what goes by no clock that can be set. On one thread alone.
    pub async fn pass(&self, time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
        self.clock.advance(time);
    }

    /// Lets every access token lapse.
    pub fn lapse(&self) {
        self.clock.advance(Duration::from_secs(7201));
    }

    /// Every approval that lives at the provider has its newest refresh token in the journal, or the
    /// operation that issued it is in doubt.
    pub async fn nothing_is_lost(&self, life: &Life) {
        let mut unknown = Vec::new();
        let views: Vec<AccountView> = life.journal.accounts().collect::<Result<_, _>>().unwrap();
        let mut known = Vec::new();
        for view in &views {
            for grant in view.grants.iter().filter(|grant| grant.end.is_none()) {
                let pair = life.journal.current_of(view.account_tag, grant.grant).await;
                let pair = pair.unwrap().expect("a living grant has a pair");
                let token = pair.refresh_token().unwrap().reveal().to_owned();
                let approval = self.sandbox.with_model(|model| model.approval_of(&token));
                let approval = approval.expect("the provider issued it");
                let refreshing = view.in_doubt.iter().any(|open| {
                    open.grant == grant.grant
                        && matches!(open.action, Action::Refresh | Action::Revoke)
                });
                known.push((approval, self.sandbox.is_alive(&token) || refreshing));
            }
        }
        let state = self.sandbox.state();
        for approval in state.users.iter().flat_map(|user| &user.approvals) {
            if approval.state != ApprovalState::Live {
                continue;
            }
            match known.iter().find(|(number, _)| *number == approval.number) {
                Some((_, is_known)) => assert!(
                    is_known,
                    "the newest token of approval {} is nowhere: {views:#?}",
                    approval.number
                ),
                None => unknown.push(approval.number),
            }
        }
        let open = views.iter().flat_map(|view| &view.in_doubt);
        let exchanges = open.filter(|open| open.action == Action::Exchange).count();
        assert!(unknown.len() <= exchanges, "approvals {unknown:?} are nowhere: {views:#?}");
        assert_eq!(state.counters.reuses, 0, "a spent token was presented");
        assert_eq!(state.counters.code_reuses, 0, "a code was presented twice");
    }
}

impl Life {
    pub async fn view(&self, account: &Account) -> AccountView {
        self.journal.account(account).await.unwrap().expect("the account is known")
    }

    /// Returns the account's only grant.
    pub async fn grant(&self, account: &Account) -> GrantView {
        let mut view = self.view(account).await;
        assert_eq!(view.grants.len(), 1, "{view:?}");
        view.grants.remove(0)
    }

    pub async fn token(&self, account: &Account) -> Result<Arc<IssuedPair>, BrokerError> {
        self.broker.access_token(account, &[], Duration::ZERO).await
    }

    /// Returns what has been rung since the last time, by name.
    pub fn heard(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next_event()).map(|event| name_of(&event)).collect()
    }

    fn next_event(&mut self) -> Option<Event> {
        let mut next = pin!(self.events.next());
        match next.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    /// Waits for an event.
    pub async fn hear(&mut self, is_it: impl Fn(&Event) -> bool) -> Event {
        let waiting = async {
            loop {
                let event = self.events.next().await.expect("the broker lives");
                if is_it(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the event must come")
    }

    /// Ends the service in order: nothing is on its way then.
    pub async fn end(self) {
        assert!(self.broker.shutdown(PATIENCE).await, "calls are still on their way");
        self.journal.close().await.unwrap();
    }
}

fn name_of(event: &Event) -> String {
    serde_json::to_value(event).unwrap()["event"].as_str().unwrap().to_owned()
}

pub fn holder(name: &str) -> Holder {
    Holder::new("tenant", name).unwrap()
}

/// Waits until something has come about.
pub async fn until<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    let waiting = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "waited in vain: {what}");
}
