//! A provider whose waits a test decides, over a ledger in memory: for what depends on the order in
//! which things happen. A code is "user:anything", and gives a grant of that user.

use super::world::TestClock;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokenwal::broker::{
    AppConfig, Approval, Authorize, Broker, BrokerError, Call, Code, Connected, Upstream, Which,
};
use tokenwal::ledger::{Ledger, MemoryLedger};
use tokenwal::profile::Profile;
use tokenwal::{
    Account, App, Clock, Doubt, DoubtReason, Holder, Introspection, IssuedPair, Outcome,
    TokenResponse, User,
};

pub const ROTATES: &str = "[rotation]\nvalue = \"always\"\n";
pub const STEADY: &str = "[rotation]\nvalue = \"never\"\n";
pub const PAIR: &str = "[revoke]\nvalue = \"pair\"\n";
pub const WHOLE: &str = "[revoke]\nvalue = \"whole_grant\"\n";
pub const SAME: &str = "[same_refresh_on_reconsent]\nvalue = true\n";
/// A place is kept free of two.
pub const CAP: &str = "[cap]\nnumber = 3\nguard = 2\ncounts = \"grants\"\nper = \"user_app\"\n\
    outside = 0\noverflow = \"oldest_revoked\"\n";

#[derive(Default)]
pub struct Provider {
    clock: Arc<TestClock>,
    serial: AtomicUsize,
    /// Whose a refresh token is, and whether it lives.
    tokens: Mutex<HashMap<String, (String, bool)>>,
    /// Refresh tokens that were presented, in order.
    pub presented: Mutex<Vec<String>>,
    pub probes: AtomicUsize,
    /// A revocation takes all of the user's along.
    pub takes_all: AtomicBool,
    /// Nothing says whose a pair is.
    pub nameless: AtomicBool,
    /// A user gets the same refresh token each time.
    pub gives_again: AtomicBool,
    pub expires_in: Mutex<Option<u32>>,
    pub exchange_takes: Mutex<Duration>,
    pub refresh_takes: Mutex<Duration>,
    pub loses_refreshes: AtomicBool,
    /// What it says of a refresh token.
    pub says: Mutex<Option<bool>>,
}

impl Provider {
    pub fn lives(&self, token: &str) -> bool {
        self.tokens.lock().unwrap()[token].1
    }

    fn issue(&self, user: &str) -> Outcome {
        let number = self.serial.fetch_add(1, SeqCst);
        let refresh = match self.gives_again.load(SeqCst) {
            true => format!("refresh-{user}-again"),
            false => format!("refresh-{user}-{number}"),
        };
        self.tokens.lock().unwrap().insert(refresh.clone(), (user.to_owned(), true));
        let body = serde_json::json!({
            "access_token": format!("access-{user}-{number}"),
            "refresh_token": refresh,
            "expires_in": self.expires_in.lock().unwrap().unwrap_or(3600),
            "scope": "api",
        });
        let answer = TokenResponse::parse(body.to_string().into_bytes(), self.clock.now_ms());
        Outcome::Issued(match self.nameless.load(SeqCst) {
            true => answer.unwrap(),
            false => answer.unwrap().with_user(User::new(user).unwrap()),
        })
    }
}

async fn wait(time: &Mutex<Duration>) {
    let time = *time.lock().unwrap();
    tokio::time::sleep(time).await;
}

fn refresh_token(pair: &IssuedPair) -> String {
    pair.refresh_token().unwrap().reveal().to_owned()
}

impl Upstream for Provider {
    fn authorization_url(&self, approval: Approval<'_>) -> Option<String> {
        Some(format!("https://p.example/authorize?state={}", approval.state))
    }

    fn exchange<'a>(&'a self, code: Code<'a>) -> Call<'a, Outcome> {
        Box::pin(async move {
            let issued = self.issue(code.code.reveal().split(':').next().unwrap());
            wait(&self.exchange_takes).await;
            issued
        })
    }

    fn refresh<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Outcome> {
        Box::pin(async move {
            let token = refresh_token(pair);
            let user = self.tokens.lock().unwrap()[&token].0.clone();
            self.presented.lock().unwrap().push(token);
            wait(&self.refresh_takes).await;
            match self.loses_refreshes.load(SeqCst) {
                true => Outcome::InDoubt(Doubt::new(DoubtReason::ConnectionLost)),
                false => self.issue(&user),
            }
        })
    }

    fn revoke<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Outcome> {
        Box::pin(async move {
            let token = refresh_token(pair);
            let mut tokens = self.tokens.lock().unwrap();
            let user = tokens[&token].0.clone();
            let all = self.takes_all.load(SeqCst);
            for (known, (of, lives)) in tokens.iter_mut() {
                *lives &= !(*known == token || (all && *of == user));
            }
            Outcome::Revoked
        })
    }

    fn introspect<'a>(
        &'a self,
        _: &'a IssuedPair,
        _: Which,
    ) -> Call<'a, (Option<Introspection>, Outcome)> {
        Box::pin(async move {
            self.probes.fetch_add(1, SeqCst);
            let says = *self.says.lock().unwrap();
            let body = says.map(|active| format!("{{\"active\":{active}}}"));
            (body.and_then(|body| Introspection::parse(body.as_bytes())), Outcome::Answered)
        })
    }
}

/// A provider, a store and a broker between.
pub struct Scripted {
    pub provider: Arc<Provider>,
    pub clock: Arc<TestClock>,
    pub ledger: MemoryLedger,
    pub broker: Broker<MemoryLedger>,
    facts: String,
}

impl Scripted {
    pub fn new(facts: &[&str]) -> Self {
        Self::with(facts, |config| config)
    }

    pub fn with(facts: &[&str], config: impl FnOnce(AppConfig) -> AppConfig) -> Self {
        let clock = Arc::new(TestClock::default());
        let provider = Arc::new(Provider { clock: clock.clone(), ..Provider::default() });
        let ledger = MemoryLedger::new().with_clock(clock.clone());
        let facts = format!("name = \"example\"\n{}", facts.concat());
        let broker = start(&ledger, &provider, &facts, config);
        Self { provider, clock, ledger, broker, facts }
    }

    /// The store, copied to another host and claimed there.
    pub fn claimed(&self) -> Self {
        let ledger = self.ledger.claim();
        let (provider, facts) = (self.provider.clone(), self.facts.clone());
        let broker = start(&ledger, &provider, &facts, |config| config);
        Self { provider, clock: self.clock.clone(), ledger, broker, facts }
    }

    pub fn account(&self, user: &str) -> Account {
        Account::new(app(), User::new(user).unwrap())
    }

    /// Sends a user off; what they come back with is to be exchanged.
    pub fn click(&self, holder: &Holder, user: &str, code: &str) -> (String, String) {
        let mut asked = Authorize::new(&app(), holder, ["api"]);
        if !self.provider.nameless.load(SeqCst) {
            asked = asked.user(&User::new(user).unwrap());
        }
        let sent = self.broker.authorize(&asked).unwrap();
        let state = sent.url.split_once("state=").unwrap().1.to_owned();
        (format!("state={state}&code={user}:{code}"), sent.cookie.reveal().to_owned())
    }

    pub async fn connect(
        &self,
        holder: &Holder,
        user: &str,
        code: &str,
    ) -> Result<Connected, BrokerError> {
        let (query, cookie) = self.click(holder, user, code);
        self.broker.callback(&query, &cookie).await
    }

    pub async fn adopted(&self, holder: &Holder, user: &str, code: &str) -> Connected {
        let new = self.connect(holder, user, code).await.unwrap();
        self.broker.adopt(new.account, new.grant, holder, &["api"]).await.unwrap();
        new
    }

    pub async fn released(&self, holder: &Holder, user: &str, code: &str) -> Connected {
        let new = self.adopted(holder, user, code).await;
        self.broker.release(new.account, new.grant, holder).await.unwrap();
        new
    }

    pub async fn token(&self, user: &str) -> Result<Arc<IssuedPair>, BrokerError> {
        self.broker.access_token(&self.account(user), &[], Duration::ZERO).await
    }

    /// Returns a grant's newest refresh token.
    pub async fn refresh_token(&self, new: &Connected) -> String {
        refresh_token(&self.ledger.pair(new.account, new.grant).await.unwrap().unwrap())
    }

    /// Lets access tokens of an hour lapse, by every clock.
    pub async fn lapse(&self) {
        self.clock.advance(Duration::from_secs(3700));
        tokio::time::sleep(Duration::from_secs(3700)).await;
    }
}

fn app() -> App {
    App::new("example", "client").unwrap()
}

fn start(
    ledger: &MemoryLedger,
    provider: &Arc<Provider>,
    facts: &str,
    config: impl FnOnce(AppConfig) -> AppConfig,
) -> Broker<MemoryLedger> {
    let profile = Profile::from_toml(facts).unwrap();
    let own = AppConfig::new(app(), provider.clone(), profile).redirect_uri("https://s.example/cb");
    let broker = Broker::builder(ledger.clone()).app(config(own));
    broker.deadline(Duration::from_secs(10)).late_margin(Duration::from_secs(10)).build()
}
