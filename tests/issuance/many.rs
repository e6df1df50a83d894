//! Many callers at once: single flight, and a gate for the calls of an app.

use super::world::{ROTATING, STEADY, Setup, holder};
use std::time::Duration;
use tokenwal::broker::BrokerError;
use tokenwal::sandbox::{Fault, Injection, On};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_callers_on_a_hundred_accounts_make_a_hundred_refreshes() {
    let world = Setup::new(ROTATING).start().await;
    let life = world.live();
    for user in 0..100 {
        world.adopted(&life, &format!("user-{user}"), &holder("crm")).await;
    }
    world.lapse();
    let accounts: Vec<_> = (0..100).map(|user| world.account(&format!("user-{user}"))).collect();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..1000 {
        let (broker, account) = (life.broker.clone(), accounts[caller % 100].clone());
        callers.spawn(async move {
            broker.access_token(&account, &["api"], Duration::from_secs(60)).await.unwrap()
        });
    }
    let pairs = callers.join_all().await;
    assert_eq!(pairs.len(), 1000);
    assert!(pairs.iter().all(|pair| pair.generation().0 == 2));
    let counters = world.counters();
    assert_eq!((counters.refreshes, counters.refused, counters.collisions), (100, 0, 0));
    world.nothing_is_lost(&life).await;
    life.end().await;
}

#[tokio::test]
async fn a_provider_that_asks_for_time_gets_it_from_all() {
    // 503 is about the host from the first on, 429 once three accounts have heard it.
    for (fault, status, heard_by) in [
        (Fault::Unavailable { retry_after_s: 30 }, 503, 1),
        (Fault::TooManyRequests { retry_after_s: 30 }, 429, 3),
    ] {
        let world = Setup::new(STEADY).start().await;
        let life = world.live();
        let users = ["alice", "bob", "carol", "dave"];
        for user in users {
            world.adopted(&life, user, &holder("crm")).await;
        }
        world.lapse();
        world.sandbox.inject(Injection::new(fault, On::Refresh).times(heard_by));
        for user in &users[..usize::try_from(heard_by).unwrap()] {
            let error = life.token(&world.account(user)).await.unwrap_err();
            let BrokerError::Refused { refusal, .. } = &error else { panic!("{error}") };
            assert_eq!((refusal.status(), refusal.retry_after_s()), (status, 30));
            assert_eq!(error.remedy(), tokenwal::Remedy::Retry);
        }
        // Nobody else calls before that.
        for user in users {
            let error = life.token(&world.account(user)).await.unwrap_err();
            let BrokerError::NotNow { asked: true, until_ms, .. } = error else {
                panic!("{error}")
            };
            assert!(until_ms <= world.clock_ms() + 30_001 && until_ms > world.clock_ms());
        }
        assert_eq!(world.counters().faults, u64::from(heard_by));
        assert_eq!(world.counters().refreshes, 0);
        world.pass(Duration::from_secs(31)).await;
        for user in users {
            assert_eq!(life.token(&world.account(user)).await.unwrap().generation().0, 2);
        }
        world.nothing_is_lost(&life).await;
    }
}

#[tokio::test]
async fn too_many_requests_of_one_account_are_nobody_elses() {
    let world = Setup::new(STEADY).start().await;
    let life = world.live();
    for user in ["alice", "bob"] {
        world.adopted(&life, user, &holder("crm")).await;
    }
    world.lapse();
    let wait = Fault::TooManyRequests { retry_after_s: 86_400 };
    world.sandbox.inject(Injection::new(wait, On::Refresh));
    let error = life.token(&world.account("alice")).await.unwrap_err();
    assert!(matches!(error, BrokerError::Refused { .. }), "{error}");
    assert_eq!(life.token(&world.account("bob")).await.unwrap().generation().0, 2);
    let error = life.token(&world.account("alice")).await.unwrap_err();
    let BrokerError::NotNow { asked: true, until_ms, .. } = error else { panic!("{error}") };
    assert!(until_ms <= world.clock_ms() + 3_600_001, "nobody is believed for a day");
    assert_eq!(world.counters().faults, 1);
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn the_circuit_opens_after_five_failures_and_one_call_closes_it() {
    let world = Setup::new(ROTATING).start().await;
    let life = world.live();
    let users: Vec<_> = (0..8).map(|user| format!("user-{user}")).collect();
    for user in &users {
        world.adopted(&life, user, &holder("crm")).await;
    }
    world.lapse();
    let down = Injection::new(Fault::StatusBeforeCommit(503), On::Refresh).times(5);
    world.sandbox.inject(down);
    for user in &users[..5] {
        let error = life.token(&world.account(user)).await.unwrap_err();
        assert!(!matches!(error, BrokerError::NotNow { .. }), "{error}");
    }
    for user in &users[5..] {
        let error = life.token(&world.account(user)).await.unwrap_err();
        assert!(matches!(error, BrokerError::NotNow { asked: false, .. }), "{error}");
    }
    assert_eq!(world.counters().faults, 5, "the others never left");
    world.pass(Duration::from_secs(11)).await;
    for user in &users[5..] {
        assert_eq!(life.token(&world.account(user)).await.unwrap().generation().0, 2);
    }
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn no_more_calls_at_once_than_allowed() {
    let world = Setup::new(ROTATING).config(|config| config.calls_at_once(2)).start().await;
    let life = world.live();
    for user in 0..6 {
        world.adopted(&life, &format!("user-{user}"), &holder("crm")).await;
    }
    world.lapse();
    let slow = Fault::DelayBeforeCommit(Duration::from_millis(150));
    world.sandbox.inject(Injection::new(slow, On::Refresh).times(6));
    let mut callers = tokio::task::JoinSet::new();
    for user in 0..6 {
        let (broker, account) = (life.broker.clone(), world.account(&format!("user-{user}")));
        callers.spawn(async move {
            broker.access_token(&account, &["api"], Duration::ZERO).await.unwrap()
        });
    }
    // A fault is met when its request arrives: at most two are there at any time.
    let mut at_once = 0;
    while !callers.is_empty() {
        let counters = world.counters();
        at_once = at_once.max(counters.faults - counters.refreshes);
        tokio::select! {
            _ = callers.join_next() => {}
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
    assert_eq!(at_once, 2);
    assert_eq!(world.counters().refreshes, 6);
}
