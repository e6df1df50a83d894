//! Issuance against a real OAuth server with rotation: the broker over a journal, the server's own
//! log as the witness of what it was asked and what it answered.

use crate::server::{Log, Server};
use crate::service::{self, hash_of};
use serde::Deserialize;
use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokenwal::broker::{AppConfig, Authorize, Broker, BrokerError, Event, Status, Why};
use tokenwal::profile::Profile;
use tokenwal::{Account, Action, Clock, Holder, IssuedPair, Journal, SystemClock, User};

/// What this server does, as its documentation and `server.mjs` have it.
const PROFILE: &str = r#"
name = "oidc-provider"
extends = "rfc6749"
[rotation]
value = "always"
status = "verified"
source = "oidc-provider, README: rotateRefreshToken"
on = "2026-11-23"
[reuse]
value = "family_dies"
status = "verified"
source = "oidc-provider, lib/actions/grants/refresh_token.js: a used token destroys its grant"
on = "2026-11-23"
[introspection]
value = "both"
status = "verified"
source = "oidc-provider, README: features.introspection"
on = "2026-11-23"
[identity]
from = "id_token"
claim = "sub"
status = "verified"
source = "OpenID Connect Core 1.0, section 2"
on = "2026-11-23"
"#;
const SCOPES: [&str; 2] = ["openid", "offline_access"];
const DEADLINE: Duration = Duration::from_secs(5);
const MARGIN: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
#[ignore = "takes Node and oidc-provider; run by `tests/run oidc`"]
fn issuance_at_a_real_server() {
    // The other test's child runs all that is ignored.
    if service::is_asked_for() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::start(dir.path()).await;
        callbacks(&mut world).await;
        rotation(&mut world).await;
        many_callers(&mut world).await;
        callers_who_leave(&mut world).await;
        revocation(&mut world).await;
        a_lost_exchange(&mut world).await;
        a_lost_rotation(&mut world).await;
    });
}

/// The system's clock, and what is added to it.
#[derive(Default)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms() + self.0.load(Ordering::Relaxed)
    }
}

struct World {
    server: Server,
    store: std::path::PathBuf,
    clock: Arc<TestClock>,
    http: reqwest::Client,
    journal: Journal,
    broker: Broker,
}

fn holder(name: &str) -> Holder {
    Holder::new("tenant", name).unwrap()
}

impl World {
    async fn start(dir: &std::path::Path) -> Self {
        let server = Server::start(dir).await;
        let store = dir.join("issuance");
        let clock = Arc::new(TestClock::default());
        let (journal, broker) = open(&server, &store, &clock);
        Self { server, store, clock, http: reqwest::Client::new(), journal, broker }
    }

    /// Ends the service in order and starts it again.
    async fn restart(&mut self) {
        assert!(self.broker.shutdown(PATIENCE).await);
        self.journal.clone().close().await.unwrap();
        (self.journal, self.broker) = open(&self.server, &self.store, &self.clock);
    }

    fn account(&self, user: &str) -> Account {
        Account::new(self.server.endpoints.app(), User::new(user).unwrap())
    }

    /// Sends a user off, whom the service does not know, and returns what they come back with.
    async fn click(&self, user: &str) -> (String, String) {
        #[derive(Deserialize)]
        struct Approval {
            code: String,
        }
        let asked = Authorize::new(&self.server.endpoints.app(), &holder(user), SCOPES);
        let sent = self.broker.authorize(&asked).unwrap();
        let url = reqwest::Url::parse(&sent.url).unwrap();
        let parameter = |name: &str| {
            let found = url.query_pairs().find(|(known, _)| known == name);
            found.expect("the URL has it").1.into_owned()
        };
        let body = serde_json::json!({
            "user": user,
            "code_challenge": parameter("code_challenge"),
            "nonce": parameter("nonce"),
        });
        let request = self.http.post(format!("{}/test/code", self.server.endpoints.url));
        let approval = request.json(&body).send().await.unwrap();
        let Approval { code } = approval.json().await.unwrap();
        let query = format!("code={code}&state={}", parameter("state"));
        (query, sent.cookie.reveal().to_owned())
    }

    async fn adopted(&self, user: &str) -> Account {
        let (query, cookie) = self.click(user).await;
        let connected = self.broker.callback(&query, &cookie).await.unwrap();
        let account = self.account(user);
        assert_eq!(connected.account, self.journal.tag_of(&account), "the id token names the user");
        let (grant, holder) = (connected.grant, holder(user));
        self.broker.adopt(&account, grant, &holder, &SCOPES).await.unwrap();
        account
    }

    async fn token(&self, account: &Account) -> Result<Arc<IssuedPair>, BrokerError> {
        self.broker.access_token(account, &SCOPES, Duration::ZERO).await
    }

    /// The answers to the next requests are lost after their commit.
    async fn lose(&self, count: u64) {
        let url = format!("{}/test/lose", self.server.endpoints.url);
        let body = serde_json::json!({ "count": count });
        self.http.post(url).json(&body).send().await.unwrap().error_for_status().unwrap();
    }

    /// Every refresh token that the server gave out and that is still the newest of its family is in
    /// the journal, or its operation is in doubt; none was presented twice.
    async fn nothing_is_lost(&mut self) {
        let mut known = HashSet::new();
        let mut doubts = 0;
        for view in self.journal.accounts() {
            let view = view.unwrap();
            let asked = [Action::Exchange, Action::Refresh];
            doubts += view.in_doubt.iter().filter(|open| asked.contains(&open.action)).count();
            for grant in view.grants.iter().filter(|grant| grant.end.is_none()) {
                let pair = self.journal.current_of(view.account_tag, grant.grant).await.unwrap();
                known.insert(hash_of(&pair.expect("it lives")));
            }
        }
        let log: &Log = self.server.log_at_rest().await;
        assert_eq!(log.spent_presented(), 0, "a spent token or code was presented");
        let presented = log.presented();
        let unknown =
            log.issued().filter(|token| !known.contains(*token) && !presented.contains(*token));
        let unknown = unknown.count();
        assert!(unknown <= doubts, "{unknown} tokens are nowhere, {doubts} operations in doubt");
    }

    async fn refreshes(&mut self) -> usize {
        self.server.log_at_rest().await.granted("refresh_token")
    }

    async fn exchanges(&mut self) -> usize {
        self.server.log_at_rest().await.granted("authorization_code")
    }
}

fn open(server: &Server, store: &std::path::Path, clock: &Arc<TestClock>) -> (Journal, Broker) {
    let (journal, _) = service::options().clock(clock.clone()).open_or_create(store).unwrap();
    let profile = Profile::from_toml(PROFILE).unwrap();
    let provider = server.endpoints.builder().profile(profile.clone()).clock(clock.clone());
    let provider = provider.issuer(&server.endpoints.url).build().unwrap();
    let config = AppConfig::new(server.endpoints.app(), Arc::new(provider), profile)
        .issuer(&server.endpoints.url)
        .redirect_uri(&server.endpoints.redirect_uri);
    let builder = Broker::builder(journal.clone()).app(config);
    let broker = builder.deadline(DEADLINE).late_margin(MARGIN).build();
    (journal, broker)
}

async fn callbacks(world: &mut World) {
    let (query, cookie) = world.click("alice").await;
    let callback = || world.broker.callback(&query, &cookie);
    let (one, two) = tokio::join!(callback(), callback());
    let first = one.unwrap();
    assert_eq!(two.unwrap(), first);
    assert_eq!(first.user, Some(User::new("alice").unwrap()));
    world.restart().await;
    assert_eq!(world.broker.callback(&query, &cookie).await.unwrap(), first);
    let wrong = query.replace("state=", "state=x");
    assert!(matches!(world.broker.callback(&wrong, &cookie).await, Err(BrokerError::Callback(_))));
    assert_eq!(world.exchanges().await, 1);
    world.nothing_is_lost().await;
}

async fn rotation(world: &mut World) {
    let account = world.adopted("bob").await;
    let first = world.token(&account).await.unwrap();
    assert!(first.expires_at_ms().is_some() && first.id_token().is_some());
    let mut pair = Arc::clone(&first);
    for generation in 2..6 {
        let next = world.broker.rejected(&pair).await.unwrap();
        assert_eq!(next.generation().0, generation);
        assert_ne!(hash_of(&next), hash_of(&pair), "it rotates");
        world.broker.worked(&next).await.unwrap();
        pair = next;
    }
    // A straggler's is none of the newest's business.
    assert_eq!(world.broker.rejected(&first).await.unwrap().generation().0, 5);
    assert_eq!(world.refreshes().await, 4);
    world.restart().await;
    assert_eq!(world.token(&account).await.unwrap().generation().0, 5);
    world.nothing_is_lost().await;
}

async fn many_callers(world: &mut World) {
    let before = world.refreshes().await;
    let mut accounts = Vec::new();
    for user in 0..20 {
        accounts.push(world.adopted(&format!("many-{user}")).await);
    }
    world.clock.0.fetch_add(601_000, Ordering::Relaxed);
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..400 {
        let (broker, account) = (world.broker.clone(), accounts[caller % 20].clone());
        callers.spawn(async move {
            broker.access_token(&account, &SCOPES, Duration::ZERO).await.unwrap().generation().0
        });
    }
    assert_eq!(callers.join_all().await, [2; 400]);
    assert_eq!(world.refreshes().await - before, 20);
    world.nothing_is_lost().await;
}

/// Polls a future so often and drops it then; says whether it was faster.
async fn polled<T>(times: usize, future: impl Future<Output = T>) -> bool {
    let mut future = Box::pin(future);
    let mut left = times;
    poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn callers_who_leave(world: &mut World) {
    for polls in 0..100 {
        let user = format!("left-{polls}");
        let (query, cookie) = world.click(&user).await;
        let connected = polled(polls, world.broker.callback(&query, &cookie)).await;
        // Whoever comes again gets what came of it, as often as they like.
        let first = world.broker.callback(&query, &cookie).await.unwrap();
        let pair = world.token(&world.account(&user)).await.unwrap();
        assert_eq!(pair.grant(), first.grant);
        let refreshed = polled(polls, world.broker.rejected(&pair)).await;
        let next = world.broker.rejected(&pair).await.unwrap();
        assert_eq!(next.generation().0, 2);
        if connected && refreshed {
            assert!(polls > 1, "there was no await point to leave at");
            break;
        }
    }
    world.restart().await;
    world.nothing_is_lost().await;
}

async fn revocation(world: &mut World) {
    let account = world.adopted("carol").await;
    let pair = world.token(&account).await.unwrap();
    world.broker.revoke(&account, pair.grant()).await.unwrap();
    let health = world.broker.health(&account).await.unwrap();
    assert_eq!(health.status, Status::NeedsAuthorization);
    let token = pair.refresh_token().unwrap();
    let (about, _) = world.server.endpoints.provider().introspect(token).await;
    assert!(!about.expect("the server says").active);
    world.adopted("dave").await;
    let done = world.broker.disconnect(&holder("dave")).await.unwrap();
    assert_eq!(done.revoked.len(), 1);
    assert!(world.token(&world.account("dave")).await.is_err());
    world.nothing_is_lost().await;
}

async fn a_lost_exchange(world: &mut World) {
    let before = world.exchanges().await;
    let (query, cookie) = world.click("erin").await;
    world.lose(1).await;
    for restart in [false, true] {
        if restart {
            world.restart().await;
        }
        let error = world.broker.callback(&query, &cookie).await.unwrap_err();
        assert!(matches!(error, BrokerError::InDoubt { .. }), "{error}");
    }
    assert_eq!(world.exchanges().await - before, 1, "the code was presented once");
    world.nothing_is_lost().await;
}

async fn a_lost_rotation(world: &mut World) {
    let account = world.adopted("frank").await;
    let pair = world.token(&account).await.unwrap();
    let mut events = world.broker.events();
    let before = world.refreshes().await;
    world.lose(1).await;
    let error = world.broker.refresh(&account, pair.grant()).await.unwrap_err();
    assert!(matches!(error, BrokerError::InDoubt { .. }), "{error}");
    // Its access token works on, and is handed out.
    assert_eq!(world.token(&account).await.unwrap().generation().0, 1);
    let asked = async {
        loop {
            if let Some(Event::Ask { why, .. }) = events.next().await {
                return why;
            }
        }
    };
    let why = tokio::time::timeout(PATIENCE, asked).await.expect("a person is asked");
    assert_eq!(why, Why::Spent, "the server says that it is spent");
    assert_eq!(world.refreshes().await - before, 1, "nothing was presented again");
    world.nothing_is_lost().await;
}
