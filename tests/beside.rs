//! Access tokens of other scopes beside a grant's own, as a broker hands them out; and that nothing is
//! revoked while one of them may still be in use.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::mem_forget,
    reason = "a test may"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokenwal::broker::{
    AppConfig, Approval, Broker, BrokerError, Call, Choice, Code, Keeps, Upstream, Which,
};
use tokenwal::profile::Profile;
use tokenwal::{
    Account, App, Clock, Doubt, DoubtReason, ExpirySource, FixedKeys, GrantId, Holder, Import,
    Introspection, IssuedPair, Journal, NotSent, Options, Outcome, Refusal, RefusalClass,
    TokenResponse, User,
};

const NOW_MS: u64 = 1_760_000_000_000;
const HOUR_MS: u64 = 3_600_000;

/// Revocation ends one pair, verified.
const PROFILE: &str = r#"
name = "one-at-a-time"
extends = "rfc6749"
[revoke]
value = "pair"
"#;

#[derive(Debug)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A provider that notes what it is asked, slowly.
#[derive(Debug)]
struct Asked {
    clock: Arc<Hand>,
    scopes: Mutex<Vec<String>>,
    /// The scopes that it refuses.
    refuses: &'static str,
    /// It answers with another refresh token each time, and the one before works no longer.
    rotates: bool,
    /// When it says that an access token expires, in seconds since 1970.
    tells_s: Option<u64>,
}

impl Asked {
    async fn answer(&self, scope: String) -> Outcome {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut scopes = self.scopes.lock().unwrap();
        scopes.push(scope.clone());
        if scope == "lost" && scopes.len() == 1 {
            return Outcome::InDoubt(Doubt::new(DoubtReason::Timeout));
        }
        if scope == self.refuses {
            let class = RefusalClass::OwnFault;
            return Outcome::Refused(Refusal::new(class, 400, "invalid_scope", "", &[]));
        }
        let number = scopes.len();
        let scope = if scope.is_empty() { self.all() } else { &scope };
        let mut body =
            serde_json::json!({ "access_token": format!("{scope} {number}"), "scope": scope });
        if self.rotates {
            body["refresh_token"] = format!("r{}", number + 1).into();
        }
        let body = body.to_string();
        let response = TokenResponse::parse(body.into_bytes(), self.clock.now_ms()).unwrap();
        let until_ms = self.clock.now_ms() + HOUR_MS;
        Outcome::Issued(response.with_expiry(until_ms, ExpirySource::Declared))
    }
}

impl Asked {
    fn all(&self) -> &'static str {
        if self.rotates { "api mail" } else { "api" }
    }

    fn check(&self, pair: &IssuedPair) {
        let number = if self.rotates { self.scopes.lock().unwrap().len() + 1 } else { 1 };
        assert_eq!(pair.refresh_token().unwrap().reveal(), format!("r{number}"));
    }
}

fn none<'a, T: Send + 'a>(value: T) -> Call<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Upstream for Asked {
    fn authorization_url(&self, _: Approval<'_>) -> Option<String> {
        None
    }

    fn exchange<'a>(&'a self, _: Code<'a>) -> Call<'a, Outcome> {
        none(Outcome::NotSent(NotSent::GivenUp))
    }

    fn refresh<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Outcome> {
        self.check(pair);
        Box::pin(self.answer(String::new()))
    }

    fn refresh_for<'a>(&'a self, pair: &'a IssuedPair, scopes: &'a [String]) -> Call<'a, Outcome> {
        self.check(pair);
        Box::pin(self.answer(scopes.join(" ")))
    }

    fn revoke<'a>(&'a self, _: &'a IssuedPair) -> Call<'a, Outcome> {
        none(Outcome::NotSent(NotSent::GivenUp))
    }

    fn introspect<'a>(
        &'a self,
        _: &'a IssuedPair,
        which: Which,
    ) -> Call<'a, (Option<Introspection>, Outcome)> {
        assert_eq!(which, Which::Access);
        let told = self.tells_s.map_or(
            serde_json::json!({ "active": false }),
            |at_s| serde_json::json!({ "active": true, "exp": at_s }),
        );
        none((Introspection::parse(told.to_string().as_bytes()), Outcome::Answered))
    }
}

struct Service {
    dir: tempfile::TempDir,
    clock: Arc<Hand>,
    journal: Journal,
    asked: Arc<Asked>,
    broker: Broker,
    grant: GrantId,
}

fn app() -> App {
    App::new("provider", "client").unwrap()
}

fn account() -> Account {
    Account::new(app(), User::new("u").unwrap())
}

fn expiring(in_ms: u64, source: ExpirySource) -> TokenResponse {
    let body = br#"{"access_token":"a1","refresh_token":"r1","scope":"api"}"#.to_vec();
    TokenResponse::parse(body, NOW_MS).unwrap().with_expiry(NOW_MS + in_ms, source)
}

impl Service {
    async fn new(first: TokenResponse) -> Self {
        Self::of(first, |asked| asked).await
    }

    async fn of(first: TokenResponse, change: impl FnOnce(Asked) -> Asked) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hand(AtomicU64::new(NOW_MS)));
        let options = Options::new(FixedKeys::new([7; 32], [])).clock(Arc::clone(&clock) as _);
        let (journal, _) = options.create(dir.path().join("store")).unwrap();
        let holder = Holder::new("t", "h").unwrap();
        let import = Import::new(&account(), first).paused(false).holder(&holder);
        let grant = journal.import(import).await.unwrap().grant;
        journal.release(account(), grant, &holder).await.unwrap();
        let scopes = Mutex::default();
        let (clock_of, refuses) = (Arc::clone(&clock), "no");
        let asked = Asked { clock: clock_of, scopes, refuses, rotates: false, tells_s: None };
        let asked = Arc::new(change(asked));
        let broker = broker(&journal, &asked);
        Self { dir, clock, journal, asked, broker, grant }
    }

    async fn restart(self) -> Self {
        let Self { dir, clock, journal, asked, broker: before, grant } = self;
        drop(before);
        journal.close().await.unwrap();
        let options = Options::new(FixedKeys::new([7; 32], [])).clock(Arc::clone(&clock) as _);
        let options = options.wait_for_lock(Duration::from_secs(10));
        let (journal, _) = options.open(dir.path().join("store")).unwrap();
        let broker = broker(&journal, &asked);
        Self { dir, clock, journal, asked, broker, grant }
    }

    async fn token(&self, scopes: &[&str]) -> Result<Arc<IssuedPair>, BrokerError> {
        self.broker.access_token(account(), scopes, Duration::ZERO).await
    }

    async fn beside(&self, scopes: &[&str]) -> Result<Arc<IssuedPair>, BrokerError> {
        self.broker.access_token_beside(account(), self.grant, scopes).await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.scopes.lock().unwrap().clone()
    }

    fn later(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    async fn keeps(&self) -> Option<Keeps> {
        self.broker.keeps(account(), self.grant).await.unwrap()
    }
}

fn broker(journal: &Journal, asked: &Arc<Asked>) -> Broker {
    let profile = Profile::from_toml(PROFILE).unwrap();
    let config = AppConfig::new(app(), Arc::clone(asked) as _, profile).revoke_orphans(false);
    Broker::builder(journal.clone()).app(config).build()
}

/// The first pair of a grant with two scopes, whose refresh tokens rotate.
async fn rotating() -> Service {
    let body = br#"{"access_token":"a1","refresh_token":"r1","scope":"api mail"}"#.to_vec();
    let first = TokenResponse::parse(body, NOW_MS).unwrap();
    let first = first.with_expiry(NOW_MS + HOUR_MS, ExpirySource::Declared);
    Service::of(first, |asked| Asked { rotates: true, ..asked }).await
}

fn token(pair: &IssuedPair) -> &str {
    pair.access_token().reveal()
}

#[tokio::test]
async fn a_token_beside_is_asked_for_once_while_it_is_valid() {
    let service = Service::new(expiring(HOUR_MS, ExpirySource::Declared)).await;
    let (one, two) = tokio::join!(service.beside(&["mail"]), service.beside(&["mail"]));
    assert_eq!((token(&one.unwrap()), token(&two.unwrap())), ("mail 1", "mail 1"));
    assert_eq!(token(&service.beside(&["mail"]).await.unwrap()), "mail 1");
    assert_eq!(token(&service.beside(&["wave"]).await.unwrap()), "wave 2");
    let own = service.broker.access_token(account(), &["api"], Duration::ZERO).await.unwrap();
    assert_eq!(token(&own), "a1", "the grant's own is as it was");
    assert_eq!(service.asked(), ["mail", "wave"]);
    service.later(HOUR_MS);
    let pair = service.beside(&["mail"]).await.unwrap();
    assert_eq!(token(&pair), "mail 3");
    let again = service.broker.rejected(&pair).await.unwrap();
    assert_eq!((token(&again), again.is_beside()), ("mail 4", true));
    assert_eq!(token(&service.beside(&["mail"]).await.unwrap()), "mail 4");
    service.broker.worked(&again).await.unwrap();
    let view = service.journal.account(account()).await.unwrap().unwrap();
    assert!(!view.grants[0].worked, "it says nothing of the newest pair");
    let none = service.beside(&[]).await;
    assert!(matches!(none, Err(BrokerError::Choice { .. })));
}

#[tokio::test]
async fn calls_on_one_grant_for_different_tokens_wait_for_each_other() {
    let service = Service::new(expiring(HOUR_MS, ExpirySource::Declared)).await;
    let (mail, own, refused, wave) = tokio::join!(
        service.beside(&["mail"]),
        service.broker.refresh(account(), service.grant),
        service.beside(&["no"]),
        service.beside(&["wave"]),
    );
    assert!(token(&mail.unwrap()).starts_with("mail"));
    let own = own.unwrap();
    assert!(token(&own).starts_with("api") && !own.is_beside());
    assert!(token(&wave.unwrap()).starts_with("wave"));
    // Who is refused is who asked for it.
    assert!(matches!(refused, Err(BrokerError::Refused { .. })));
    let mut asked = service.asked();
    asked.sort();
    assert_eq!(asked, ["", "mail", "no", "wave"]);
}

#[tokio::test]
async fn nothing_is_revoked_while_a_token_beside_may_be_in_use() {
    let service = Service::new(expiring(1000, ExpirySource::Declared)).await;
    assert_eq!(service.keeps().await, Some(Keeps::HandedOut));
    service.beside(&["mail"]).await.unwrap();
    service.later(2000);
    assert_eq!(service.keeps().await, Some(Keeps::HandedOut), "the one beside lives on");
    service.later(HOUR_MS);
    assert_eq!(service.keeps().await, None);
}

#[tokio::test]
async fn an_assumed_end_is_no_proof_of_what_was_handed_out_before() {
    let service = Service::new(expiring(1000, ExpirySource::Assumed)).await;
    service.later(1500);
    assert_eq!(service.keeps().await, Some(Keeps::HandedOut), "as long again is waited for");
    service.later(500);
    assert_eq!(service.keeps().await, None);
    // Of the first nothing is known for sure, whatever is declared of the next.
    service.broker.refresh(account(), service.grant).await.unwrap();
    service.later(10 * HOUR_MS);
    assert_eq!(service.keeps().await, Some(Keeps::HandedOut));
}

#[tokio::test]
async fn a_rotated_token_for_other_scopes_leaves_the_chain_its_own() {
    let service = rotating().await;
    let mail = service.beside(&["mail"]).await.unwrap();
    assert_eq!((token(&mail), mail.is_beside(), mail.is_narrowed()), ("mail 1", false, true));
    assert_eq!((mail.scopes().len(), mail.access_scopes()), (2, ["mail".to_owned()].as_slice()));
    // Whoever wants no more is given it, by whichever way they ask.
    assert_eq!(token(&service.beside(&["mail"]).await.unwrap()), "mail 1");
    assert_eq!(token(&service.token(&["mail"]).await.unwrap()), "mail 1");
    let service = service.restart().await;
    assert_eq!(token(&service.beside(&["mail"]).await.unwrap()), "mail 1");
    assert_eq!(service.asked(), ["mail"]);
    // Nobody who wants more is.
    let (one, two) = tokio::join!(service.token(&["api"]), service.token(&["mail", "api"]));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((token(&one), token(&two)), ("api mail 2", "api mail 2"));
    assert!(!one.is_narrowed() && one.scopes() == one.access_scopes());
    assert_eq!(token(&service.token(&[]).await.unwrap()), "api mail 2");
    assert_eq!(service.asked(), ["mail", ""], "one refresh for all");
    let over = service.token(&["full"]).await;
    assert!(matches!(over, Err(BrokerError::NeedsAuthorization { .. })));
}

#[tokio::test]
async fn who_names_no_scopes_wants_all_of_them() {
    let service = rotating().await;
    service.beside(&["mail"]).await.unwrap();
    assert_eq!(token(&service.token(&[]).await.unwrap()), "api mail 2");
    service.beside(&["mail"]).await.unwrap();
    let holder = Holder::new("t", "h").unwrap();
    let found = service.broker.reuse(account(), &holder, &["api"]).await.unwrap().unwrap();
    assert_eq!(token(&found), "api mail 4");
}

#[tokio::test]
async fn a_refused_token_is_replaced_by_one_for_the_same_scopes() {
    let service = rotating().await;
    let first = service.token(&[]).await.unwrap();
    let mail = service.beside(&["mail"]).await.unwrap();
    // It is not the newest any more; what is has too little.
    let again = service.broker.rejected(&first).await.unwrap();
    assert_eq!(token(&again), "api mail 2");
    // And of that more than enough.
    assert_eq!(token(&service.broker.rejected(&mail).await.unwrap()), "api mail 2");
    let mail = service.beside(&["mail"]).await.unwrap();
    let again = service.broker.rejected(&mail).await.unwrap();
    assert_eq!((token(&again), again.is_narrowed()), ("mail 4", true));
    assert_eq!(token(&service.broker.rejected(&mail).await.unwrap()), "mail 4");
    assert_eq!(service.asked(), ["mail", "", "mail", "mail"]);
}

#[tokio::test]
async fn nobody_moves_to_a_grant_for_a_token_that_has_not_all_of_it() {
    let body = br#"{"access_token":"x1","refresh_token":"r0","scope":"api"}"#.to_vec();
    let older = TokenResponse::parse(body, NOW_MS).unwrap();
    let service = Service::of(older, |asked| Asked { rotates: true, ..asked }).await;
    let holder = Holder::new("t", "older").unwrap();
    service.broker.adopt(account(), service.grant, &holder, &["api"]).await.unwrap();
    let body = br#"{"access_token":"a1","refresh_token":"r1","scope":"api mail"}"#.to_vec();
    let newer = TokenResponse::parse(body, NOW_MS).unwrap();
    let mine = Holder::new("t", "h").unwrap();
    let import = Import::new(&account(), newer).paused(false).holder(&mine);
    let newer = service.broker.import(import).await.unwrap().grant;
    let seen = || async {
        let view = service.journal.account(account()).await.unwrap().unwrap();
        let grant = view.grants.into_iter().find(|grant| grant.grant == newer).unwrap();
        (grant.holders.len(), grant.worked)
    };
    let mail = service.broker.access_token_beside(account(), newer, &["mail"]).await.unwrap();
    assert_eq!((mail.grant(), mail.is_narrowed()), (newer, true));
    service.broker.worked(&mail).await.unwrap();
    assert_eq!(seen().await, (1, true));
    let whole = service.broker.refresh(account(), newer).await.unwrap();
    service.broker.worked(&whole).await.unwrap();
    assert_eq!(seen().await, (2, true), "the older grant's holder came over");
}

#[tokio::test]
async fn a_line_leaves_a_narrowed_access_token_out() {
    let service = rotating().await;
    let line = |pair: &IssuedPair, view: &tokenwal::AccountView| {
        let line = tokenwal::ledger::Line::of(&account(), pair, &view.grants[0]).text();
        serde_json::from_str::<serde_json::Value>(line.reveal()).unwrap()
    };
    let mail = service.beside(&["mail"]).await.unwrap();
    let view = service.journal.account(account()).await.unwrap().unwrap();
    let narrow = line(&mail, &view);
    assert!(narrow.get("access_token").is_none() && narrow.get("expires_at_ms").is_none());
    assert_eq!(narrow["scopes"], serde_json::json!(["api", "mail"]));
    assert_eq!(narrow["refresh_token"], "r2");
    let whole = service.token(&[]).await.unwrap();
    assert_eq!(line(&whole, &view)["access_token"], "api mail 2");
}

#[tokio::test]
async fn what_an_introspection_says_of_an_expiry_is_recorded() {
    let first = expiring(1000, ExpirySource::Assumed);
    let tells_s = Some((NOW_MS + HOUR_MS) / 1000);
    let service = Service::of(first, |asked| Asked { tells_s, ..asked }).await;
    let said = service.broker.introspect(account(), service.grant).await.unwrap().unwrap();
    assert!(said.active);
    let grant = || async {
        service.journal.account(account()).await.unwrap().unwrap().grants.pop().unwrap()
    };
    let (found, head) = (grant().await, service.journal.head());
    let until_ms = NOW_MS + HOUR_MS;
    assert_eq!((found.expires_at_ms, found.expiry), (until_ms, Some(ExpirySource::Introspected)));
    assert_eq!(found.lapses_at_ms, Some(until_ms));
    service.later(2000);
    let pair = service.token(&["api"]).await.unwrap();
    assert_eq!((token(&pair), pair.expires_at_ms()), ("a1", Some(until_ms)), "it works still");
    // What is known is not recorded again but for the call itself.
    service.broker.introspect(account(), service.grant).await.unwrap();
    assert_eq!(service.journal.head().0, head.0 + 2);
}

#[tokio::test]
async fn an_introspection_that_says_no_tells_of_no_expiry() {
    let service = Service::new(expiring(1000, ExpirySource::Assumed)).await;
    let said = service.broker.introspect(account(), service.grant).await.unwrap().unwrap();
    assert!(!said.active);
    let found = service.journal.account(account()).await.unwrap().unwrap().grants.pop().unwrap();
    assert_eq!((found.expires_at_ms, found.lapses_at_ms), (NOW_MS + 1000, None));
}

#[tokio::test]
async fn what_is_in_doubt_beside_is_asked_for_again_as_it_was() {
    let service = Service::new(expiring(HOUR_MS, ExpirySource::Declared)).await;
    let lost = service.beside(&["lost"]).await;
    let Err(BrokerError::InDoubt { op, .. }) = lost else { panic!("{lost:?}") };
    service.broker.resolve(account(), op, Choice::Resend).await.unwrap();
    assert_eq!(service.asked(), ["lost", "lost"]);
    let pair = service.beside(&["lost"]).await.unwrap();
    assert_eq!((token(&pair), pair.is_beside()), ("lost 2", true));
    assert_eq!(token(&service.token(&[]).await.unwrap()), "a1");
    let view = service.journal.account(account()).await.unwrap().unwrap();
    assert!(view.in_doubt.is_empty());
}
