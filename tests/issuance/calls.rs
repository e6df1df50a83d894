//! Which calls are made, on which runtime, and which are not: single flight to the last caller, what a
//! provider that refuses, asks for time or is down is spared, and what ends with a runtime.

use super::fake::{KEEPS, ROTATES, Service};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokenwal::broker::BrokerError;
use tokenwal::ledger::Ledger as _;
use tokenwal::{Doubt, DoubtReason, IssuedPair, NotSent, Outcome, Refusal, RefusalClass, Remedy};
use tokio::runtime::{Builder, Runtime};

const PATIENCE: Duration = Duration::from_secs(20);

fn refused(class: RefusalClass, status: u16, retry_after_s: u32) -> Outcome {
    let refusal = Refusal::new(class, status, "invalid_grant", "", &[]);
    Outcome::Refused(refusal.with_retry_after_s(retry_after_s))
}

fn lost() -> Outcome {
    Outcome::InDoubt(Doubt::new(DoubtReason::ConnectionLost))
}

/// Goes on beside the test, whether or not anybody waits.
fn own_runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn short_runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A service whose users have approved, with tokens that have lapsed.
async fn lapsed(profile: &str, users: &[&str]) -> Service {
    let service = Service::new(profile, |config| config);
    for user in users {
        service.connect(user, "host").await.unwrap();
    }
    service.lapse();
    service
}

/// Does something in a thread of its own, which must come to its end.
fn ends<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(work()));
    told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it never ends: {what}"))
}

fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    Box::pin(future).as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn an_answer_outlives_the_runtime_of_who_asked() {
    let own = own_runtime();
    let service = own.block_on(lapsed(ROTATES, &["alice"]));
    service.fake.answers(|_| (Duration::from_millis(300), None));
    let left = short_runtime().block_on(async {
        tokio::time::timeout(Duration::from_millis(100), service.token("alice")).await
    });
    assert!(left.is_err(), "the caller was to leave");
    let pair = own.block_on(service.token("alice")).unwrap();
    assert_eq!((pair.generation().0, service.calls()), (2, 1));
}

#[test]
fn who_asks_without_a_runtime_or_on_one_that_has_ended_hangs_nobody() {
    let own = own_runtime();
    let service = Arc::new(own.block_on(lapsed(ROTATES, &["alice", "bob", "carol"])));
    let ended = short_runtime();
    let handle = ended.handle().clone();
    drop(ended);
    let asking = Arc::clone(&service);
    ends("a call on a runtime that has ended", move || {
        let _on = handle.enter();
        drop(poll_once(asking.token("alice")));
    });
    let asking = Arc::clone(&service);
    ends("a call without a runtime", move || drop(poll_once(asking.token("bob"))));
    // What they began goes on, and everybody is served.
    for user in ["alice", "bob", "carol"] {
        let (asking, handle) = (Arc::clone(&service), own.handle().clone());
        let got = ends(user, move || handle.block_on(asking.token(user)));
        assert_eq!(got.unwrap().generation().0, 2, "{user}");
    }
    assert_eq!(service.calls(), 3);
}

#[test]
fn a_runtime_that_is_dropped_under_its_callers_hangs_nobody() {
    let own = own_runtime();
    let users: Vec<String> = (0..16).map(|user| format!("user-{user}")).collect();
    let service = own.block_on(async {
        let service = Service::new(ROTATES, |config| config);
        for user in &users {
            service.connect(user, "host").await.unwrap();
        }
        service
    });
    for _ in 0..30 {
        let callers = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        for user in &users {
            let (broker, account) = (service.broker.clone(), service.account(user));
            callers.spawn(async move {
                loop {
                    let pair = broker.access_token(&account, &[], Duration::ZERO).await.unwrap();
                    let _ = broker.rejected(&pair).await;
                }
            });
        }
        std::thread::sleep(Duration::from_millis(10));
        ends("the runtime of the callers", move || drop(callers));
    }
    for user in &users {
        assert!(own.block_on(service.token(user)).is_ok());
    }
    let (broker, handle) = (service.broker.clone(), own.handle().clone());
    let done = ends("the shutdown", move || {
        let _on = handle.enter();
        handle.block_on(async move { broker.shutdown(PATIENCE).await })
    });
    assert!(done, "a call was left on its way");
}

#[test]
fn a_broker_whose_runtime_has_ended_says_so() {
    let own = own_runtime();
    let service = own.block_on(lapsed(ROTATES, &["alice"]));
    drop(own);
    for _ in 0..2 {
        let error = short_runtime().block_on(service.token("alice")).unwrap_err();
        assert!(matches!(error, BrokerError::Lost), "{error}");
        assert_eq!(error.remedy(), Remedy::Operator);
    }
}

#[tokio::test]
async fn what_the_ledger_refuses_is_no_call_that_failed() {
    let cap = "[cap]\nnumber = 1\nguard = 1\ncounts = \"grants\"\nper = \"user_app\"\noutside = 0\n\
               overflow = \"oldest_revoked\"\n";
    let service = lapsed(&format!("{ROTATES}{cap}"), &["alice", "bob"]).await;
    service.fake.answers(|number| (Duration::ZERO, (number == 0).then(lost)));
    // Its grant is busy from the first one on.
    for _ in 0..9 {
        let error = service.token("alice").await.unwrap_err();
        assert!(matches!(error, BrokerError::InDoubt { .. }), "{error}");
    }
    // And the cap is reached.
    for host in 0..9 {
        let error = service.connect("bob", &format!("host-{host}")).await.unwrap_err();
        assert!(matches!(error, BrokerError::CapReached { .. }), "{error}");
    }
    assert_eq!(service.calls(), 1);
    service.token("bob").await.unwrap();
    service.connect("carol", "host").await.unwrap();
}

#[tokio::test]
async fn a_host_that_is_down_keeps_nobody_from_another() {
    let service = Service::new(ROTATES, |config| config);
    service.connect("alice", "alice.example").await.unwrap();
    service.connect("bob", "bob.example").await.unwrap();
    service.lapse();
    service.fake.answers(|number| {
        (Duration::ZERO, (number < 5).then_some(Outcome::NotSent(NotSent::Connect)))
    });
    for _ in 0..5 {
        let error = service.token("alice").await.unwrap_err();
        assert!(matches!(error, BrokerError::NotSent { .. }), "{error}");
    }
    let error = service.token("alice").await.unwrap_err();
    assert!(matches!(error, BrokerError::NotNow { asked: false, .. }), "{error}");
    assert_eq!(service.token("bob").await.unwrap().generation().0, 2);
}

#[tokio::test]
async fn a_pause_ends_in_its_time_whatever_becomes_of_the_clock() {
    let service = lapsed(ROTATES, &["alice", "bob"]).await;
    service.fake.answers(|number| {
        (Duration::ZERO, (number == 0).then(|| refused(RefusalClass::Retry, 429, 1)))
    });
    let error = service.token("alice").await.unwrap_err();
    assert!(matches!(error, BrokerError::Refused { .. }), "{error}");
    service.clock.advance(Duration::from_secs(86_400));
    let error = service.token("alice").await.unwrap_err();
    assert!(matches!(error, BrokerError::NotNow { asked: true, .. }), "{error}");
    assert_eq!(service.token("bob").await.unwrap().generation().0, 2, "it was not about bob");
    service.clock.set_back(Duration::from_secs(2 * 86_400));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let connected = service.connect("carol", "host").await.unwrap();
    service.broker.refresh(connected.account, connected.grant).await.unwrap();
    let account = service.account("alice");
    let longer = Duration::from_secs(3 * 86_400);
    let pair = service.broker.access_token(&account, &[], longer).await.unwrap();
    assert_eq!(pair.generation().0, 2);
}

#[tokio::test]
async fn a_grant_that_was_refused_is_not_presented_at_every_ask() {
    let service = lapsed(ROTATES, &["alice"]).await;
    service.fake.answers(|number| {
        (Duration::ZERO, (number < 2).then(|| refused(RefusalClass::Suspended, 400, 0)))
    });
    let mut told = Vec::new();
    for _ in 0..100 {
        let error = service.token("alice").await.unwrap_err();
        let BrokerError::Refused { account, op, refusal } = error else { panic!("{error}") };
        assert_eq!(refusal.class(), RefusalClass::Suspended);
        told.push((account, op));
    }
    told.dedup();
    assert_eq!((told.len(), service.calls()), (1, 1), "all hear the one refusal");
    // The owner may ask on purpose; and what comes at last ends the pause.
    let (account, _) = told[0];
    let view = service.broker.ledger().account(account).await.unwrap().unwrap();
    let grant = view.grants[0].grant;
    let error = service.broker.refresh(account, grant).await.unwrap_err();
    assert!(matches!(error, BrokerError::Refused { .. }), "{error}");
    assert_eq!(service.calls(), 2);
    service.token("alice").await.unwrap_err();
    assert_eq!(service.calls(), 2);
    service.broker.refresh(account, grant).await.unwrap();
    service.lapse();
    assert_eq!((service.token("alice").await.unwrap().generation().0, service.calls()), (3, 4));
}

#[tokio::test]
async fn a_token_that_is_short_when_it_comes_is_not_refreshed_at_every_ask() {
    let service = Service::new(ROTATES, |config| config);
    service.fake.lifetime_s.store(60, Ordering::SeqCst);
    service.connect("alice", "host").await.unwrap();
    let account = service.account("alice");
    let minute = Duration::from_secs(60);
    for _ in 0..50 {
        let pair = service.broker.access_token(&account, &["api"], minute).await.unwrap();
        assert_eq!(pair.generation().0, 2, "the first may have been longer");
    }
    assert_eq!(service.calls(), 1);
    // One that could be longer is asked for.
    service.fake.lifetime_s.store(3600, Ordering::SeqCst);
    let pair = service.token("alice").await.unwrap();
    assert_eq!(service.broker.rejected(&pair).await.unwrap().generation().0, 3);
    service.clock.advance(Duration::from_secs(10));
    let almost = Duration::from_secs(3595);
    let pair = service.broker.access_token(&account, &["api"], almost).await.unwrap();
    assert_eq!(pair.generation().0, 4);
}

#[tokio::test]
async fn after_a_shutdown_no_call_begins() {
    let users: Vec<String> = (0..8).map(|user| format!("user-{user}")).collect();
    let service = Service::new(ROTATES, |config| config.calls_at_once(1));
    for user in &users {
        service.connect(user, "host").await.unwrap();
    }
    service.lapse();
    service.fake.answers(|_| (Duration::from_millis(100), None));
    let mut callers = tokio::task::JoinSet::new();
    for user in &users {
        let (broker, account) = (service.broker.clone(), service.account(user));
        callers.spawn(async move { broker.access_token(&account, &[], Duration::ZERO).await });
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = service.calls();
    assert!(service.broker.shutdown(Duration::from_secs(5)).await);
    assert_eq!((before, service.calls()), (1, 1), "those who waited for their turn");
    let results = callers.join_all().await;
    let closed =
        |got: &&Result<Arc<IssuedPair>, BrokerError>| matches!(got, Err(BrokerError::Closed));
    assert_eq!(results.iter().filter(closed).count(), users.len() - 1, "{results:?}");
    assert_eq!(results.iter().filter(|got| got.is_ok()).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_refresh_for_each_generation_however_its_callers_are_timed() {
    let service = Service::new(ROTATES, |config| config);
    service.connect("alice", "host").await.unwrap();
    for round in 0..300 {
        let before = service.calls();
        let pair = service.token("alice").await.unwrap();
        if round % 2 == 0 {
            service.lapse();
        }
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (broker, account) = (service.broker.clone(), service.account("alice"));
            let pair = Arc::clone(&pair);
            callers.spawn(async move {
                match round % 2 {
                    0 => broker.access_token(&account, &[], Duration::ZERO).await,
                    _ => broker.rejected(&pair).await,
                }
            });
        }
        for got in callers.join_all().await {
            assert_eq!(got.unwrap().generation().0, pair.generation().0 + 1, "round {round}");
        }
        assert_eq!(service.calls() - before, 1, "round {round}");
    }
}

#[tokio::test]
async fn a_mint_and_who_asks_for_a_token_share_one_call() {
    let service = Service::new("name = \"example\"\n", |config| config.mints(true));
    let account = service.account("robot");
    service.broker.mint(&account, &["api"]).await.unwrap();
    service.fake.answers(|_| (Duration::from_millis(100), None));
    for _ in 0..2 {
        service.lapse();
        let before = service.calls();
        let scopes = ["api"];
        let (minted, token) = tokio::join!(
            service.broker.mint(&account, &scopes),
            service.broker.access_token(&account, &scopes, Duration::ZERO)
        );
        assert_eq!(minted.unwrap().generation(), token.unwrap().generation());
        assert_eq!(service.calls() - before, 1);
    }
    // One for other scopes is a call of its own, after that which is on its way.
    let wider = ["api", "wider"];
    let (minted, other) = tokio::join!(
        service.broker.mint(&account, &["api"]),
        service.broker.mint(&account, &wider)
    );
    assert_eq!(minted.unwrap().scopes(), ["api"]);
    assert_eq!(other.unwrap().scopes(), wider);
}

#[tokio::test]
async fn a_call_that_panics_is_told_as_doubt_about_its_operation() {
    let service = lapsed(ROTATES, &["alice"]).await;
    service.fake.answers(|number| {
        assert!(number > 0, "a bug in a provider");
        (Duration::ZERO, None)
    });
    let error = service.token("alice").await.unwrap_err();
    let BrokerError::InDoubt { account, op, reason, .. } = error else { panic!("{error}") };
    assert_eq!(reason, Some(DoubtReason::Cancelled));
    let steps = service.broker.steps(account).await.unwrap();
    assert!(matches!(&steps[..], [(open, _)] if open.op == op), "{steps:?}");
    assert!(service.connect("bob", "host").await.is_ok(), "nothing else is lost");
}

#[tokio::test]
async fn absurd_times_harm_nobody() {
    for lifetime_s in [0, 1, u64::MAX / 1000, u64::MAX] {
        let service = Service::new(ROTATES, |config| {
            config.refresh_ahead(Duration::MAX).assumed_lifetime(Duration::MAX)
        });
        service.fake.lifetime_s.store(lifetime_s, Ordering::SeqCst);
        let connected = service.connect("alice", "host").await.unwrap();
        service.token("alice").await.unwrap();
        let (account, grant) = (connected.account, connected.grant);
        let pair = service.broker.refresh(account, grant).await.unwrap();
        assert!(pair.generation().0 >= 2, "{lifetime_s}");
        service.broker.access_token(account, &[], Duration::MAX).await.unwrap();
        service.broker.health(account).await.unwrap();
    }
}

#[tokio::test]
async fn what_may_be_asked_again_at_once_is_no_doubt_for_who_waits() {
    let service = lapsed(KEEPS, &["alice"]).await;
    service.fake.answers(|number| (Duration::from_millis(20), (number == 0).then(lost)));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (broker, account) = (service.broker.clone(), service.account("alice"));
        callers.spawn(async move { broker.access_token(&account, &[], Duration::ZERO).await });
    }
    for got in callers.join_all().await {
        assert_eq!(got.unwrap().generation().0, 2);
    }
    assert_eq!(service.calls(), 2);
    let steps = service.broker.steps(&service.account("alice")).await.unwrap();
    assert!(steps.is_empty(), "{steps:?}");
    // What is lost again is in doubt, and is not sent for ever.
    service.lapse();
    service.fake.answers(|_| (Duration::ZERO, Some(lost())));
    let error = service.token("alice").await.unwrap_err();
    assert!(matches!(error, BrokerError::InDoubt { .. }), "{error}");
    assert_eq!(service.calls(), 4);
}

#[tokio::test]
async fn a_mint_that_was_lost_is_made_again_for_who_waits() {
    let service = Service::new("name = \"example\"\n", |config| config.mints(true));
    let account = service.account("robot");
    service.fake.answers(|number| (Duration::ZERO, (number % 2 == 0).then(lost)));
    let first = service.broker.mint(&account, &["api"]).await.unwrap();
    assert_eq!(service.calls(), 2);
    service.lapse();
    let second = service.broker.access_token(&account, &["api"], Duration::ZERO).await.unwrap();
    assert_eq!(service.calls(), 4);
    assert!(second.grant() == first.grant() && second.generation() > first.generation());
}
