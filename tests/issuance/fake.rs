//! A provider without a network, that answers as a test says, and a broker over a ledger in memory: for
//! what is asked so often, or at so odd a moment, that nothing real would do.

use super::world::TestClock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokenwal::broker::{
    AppConfig, Approval, Authorize, Broker, BrokerError, Call, Code, Connected, Upstream,
};
use tokenwal::ledger::MemoryLedger;
use tokenwal::profile::Profile;
use tokenwal::{Account, App, Clock as _, Holder, IssuedPair, Outcome, TokenResponse, User};

pub const ROTATES: &str = "name = \"example\"\n[rotation]\nvalue = \"always\"\n";
pub const KEEPS: &str = "name = \"example\"\n[rotation]\nvalue = \"never\"\n";

/// What becomes of a refresh or a mint, by how many there were before: how long it takes, and what it
/// comes to if not a pair.
type Answer = Box<dyn Fn(usize) -> (Duration, Option<Outcome>) + Send + Sync>;

/// Every code `USER@HOST` gives a grant of that user, with a token endpoint on that host.
#[derive(Default)]
pub struct Fake {
    serial: AtomicUsize,
    /// Refreshes and mints.
    pub calls: AtomicUsize,
    pub lifetime_s: AtomicU64,
    answer: Mutex<Option<Answer>>,
    clock: Arc<TestClock>,
}

impl Fake {
    pub fn answers(
        &self,
        answer: impl Fn(usize) -> (Duration, Option<Outcome>) + Send + Sync + 'static,
    ) {
        *self.answer.lock().unwrap() = Some(Box::new(answer));
    }

    fn response(&self, refresh_token: bool, scope: &str) -> TokenResponse {
        let number = self.serial.fetch_add(1, Ordering::SeqCst);
        let lifetime_s = self.lifetime_s.load(Ordering::SeqCst);
        let mut body = serde_json::json!({
            "access_token": format!("access-{number}-of-the-fake"),
            "expires_in": lifetime_s,
            "scope": scope,
        });
        if refresh_token {
            body["refresh_token"] = format!("refresh-{number}-of-the-fake").into();
        }
        TokenResponse::parse(body.to_string().into_bytes(), self.clock.now_ms()).unwrap()
    }

    async fn answered(&self) -> Option<Outcome> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.lock().unwrap().as_ref().map(|answer| answer(number));
        let (takes, outcome) = answer?;
        tokio::time::sleep(takes).await;
        outcome
    }
}

fn at(host: &str) -> String {
    format!("https://{host}/token")
}

impl Upstream for Fake {
    fn authorization_url(&self, approval: Approval<'_>) -> Option<String> {
        Some(format!("https://example/authorize?state={}", approval.state))
    }

    fn exchange<'a>(&'a self, code: Code<'a>) -> Call<'a, Outcome> {
        Box::pin(async move {
            let (user, host) = code.code.reveal().split_once('@').unwrap();
            let user = User::new(user).unwrap();
            let response = self.response(true, "api").with_user(user);
            Outcome::Issued(response.with_token_endpoint(at(host)))
        })
    }

    fn refresh<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Outcome> {
        Box::pin(async move {
            if let Some(outcome) = self.answered().await {
                return outcome;
            }
            let endpoint = pair.token_endpoint().unwrap().to_owned();
            Outcome::Issued(self.response(true, "api").with_token_endpoint(endpoint))
        })
    }

    fn revoke<'a>(&'a self, _: &'a IssuedPair) -> Call<'a, Outcome> {
        Box::pin(async { Outcome::Revoked })
    }

    fn mint<'a>(&'a self, _: &'a Account, scopes: &'a [String]) -> Call<'a, Outcome> {
        Box::pin(async move {
            match self.answered().await {
                Some(outcome) => outcome,
                None => Outcome::Issued(self.response(false, &scopes.join(" "))),
            }
        })
    }
}

/// A service at that provider.
pub struct Service {
    pub fake: Arc<Fake>,
    pub clock: Arc<TestClock>,
    pub app: App,
    pub broker: Broker<MemoryLedger>,
}

impl Service {
    pub fn new(profile: &str, config: impl FnOnce(AppConfig) -> AppConfig) -> Self {
        let clock = Arc::new(TestClock::default());
        let fake = Arc::new(Fake { clock: clock.clone(), ..Fake::default() });
        fake.lifetime_s.store(3600, Ordering::SeqCst);
        let app = App::new("example", "client").unwrap();
        let profile = Profile::from_toml(profile).unwrap();
        let app_config = AppConfig::new(app.clone(), fake.clone(), profile);
        let app_config = config(app_config.redirect_uri("https://service.example/callback"));
        let ledger = MemoryLedger::new().with_clock(clock.clone());
        let time = Duration::from_secs(10);
        let builder = Broker::builder(ledger).app(app_config).deadline(time).late_margin(time);
        Self { fake, clock, app, broker: builder.build() }
    }

    pub fn account(&self, user: &str) -> Account {
        Account::new(self.app.clone(), User::new(user).unwrap())
    }

    /// Lets a user approve on a host.
    pub async fn connect(&self, user: &str, host: &str) -> Result<Connected, BrokerError> {
        let holder = Holder::new("acme", "crm").unwrap();
        let asked = Authorize::new(&self.app, &holder, ["api"]).user(&User::new(user).unwrap());
        let sent = self.broker.authorize(&asked).unwrap();
        let state = sent.url.split_once("state=").unwrap().1;
        // No two clicks come back with the same code.
        let query = format!("state={state}&code={user}@{host}");
        let connected = self.broker.callback(&query, sent.cookie.reveal()).await?;
        let (account, grant) = (connected.account, connected.grant);
        self.broker.adopt(account, grant, &holder, &["api"]).await?;
        Ok(connected)
    }

    pub async fn token(&self, user: &str) -> Result<Arc<IssuedPair>, BrokerError> {
        self.broker.access_token(&self.account(user), &[], Duration::ZERO).await
    }

    pub fn calls(&self) -> usize {
        self.fake.calls.load(Ordering::SeqCst)
    }

    /// Lets every access token lapse.
    pub fn lapse(&self) {
        let lifetime_s = self.fake.lifetime_s.load(Ordering::SeqCst);
        self.clock.advance(Duration::from_secs(lifetime_s + 1));
    }
}
