//! The provider's cap: counted, guarded, and where it is passed all the same, told.

use super::world::{Life, ROTATING, SCOPES, STEADY, Setup, World, holder};
use std::time::Duration;
use tokenwal::broker::{AtCap, BrokerError, Event, Status};
use tokenwal::sandbox::{ApprovalState, Fault, Injection, On};
use tokenwal::{Cause, Confidence, GrantState};

/// Three grants a user, and the oldest dies for a fourth.
fn capped(profile: &str) -> String {
    let cap = "[cap]\nnumber = 3\nguard = 3\ncounts = \"refresh_tokens\"\nper = \"user_app\"\n\
        overflow = \"oldest_revoked\"\noutside = 0";
    profile.replace("[cap]\nstatus = \"unknown\"", cap)
}

/// Three integrations of one user.
async fn full(world: &World, life: &mut Life) {
    for name in ["crm", "erp", "bi"] {
        world.adopted(life, "alice", &holder(name)).await;
    }
    life.heard();
}

#[tokio::test]
async fn at_the_cap_nothing_is_exchanged_and_the_victim_is_named() {
    let world = Setup::new(&capped(STEADY)).start().await;
    let mut life = world.live();
    for name in ["crm", "erp"] {
        world.adopted(&life, "alice", &holder(name)).await;
    }
    assert!(!life.heard().contains(&"near_cap".to_owned()));
    world.adopted(&life, "alice", &holder("bi")).await;
    // At rest a place should be free, and there is none to be had.
    assert_eq!(life.heard(), ["issued", "near_cap"]);
    let account = world.account("alice");
    let health = life.broker.health(&account).await.unwrap();
    assert!(health.near_cap && health.status == Status::Ok);
    assert_eq!((health.usage.live, health.usage.held, health.usage.limit), (3, 3, Some(3)));
    let near = life.broker.usage(true).await;
    assert_eq!(near.len(), 1);
    let oldest = life.view(&account).await.grants[0].grant;
    assert_eq!(near[0].1.victim, Some(oldest));
    let error = world.connect(&life, "alice", &holder("etl")).await.unwrap_err();
    let BrokerError::CapReached { live, limit, victim, holders, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((*live, *limit, *victim), (3, 3, oldest));
    assert_eq!(holders[..], [holder("crm")]);
    assert!(error.to_string().contains("crm"), "{error}");
    let counters = world.counters();
    assert_eq!((counters.exchanges, counters.evictions, counters.revocations), (3, 0, 0));
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn what_was_released_makes_room_once_it_is_out_of_use() {
    let world = Setup::new(&capped(STEADY)).start().await;
    let mut life = world.live();
    full(&world, &mut life).await;
    let account = world.account("alice");
    let view = life.view(&account).await;
    let oldest = view.grants[0].grant;
    let pair = life.journal.current_of(&account, oldest).await.unwrap().unwrap();
    life.broker.access_token_for(&holder("crm"), &account, &[], Duration::ZERO).await.unwrap();
    life.broker.release(&account, view.grants[2].grant, &holder("bi")).await.unwrap();
    // The tokens that were handed out are of the newest; nothing was handed out of it in a process
    // before this one, as far as this one knows.
    life.end().await;
    let life = world.live();
    let error = world.connect(&life, "alice", &holder("etl")).await.unwrap_err();
    assert!(matches!(error, BrokerError::CapReached { .. }), "it may be in use: {error}");
    assert_eq!(world.counters().revocations, 0);
    world.lapse();
    let connected = world.connect(&life, "alice", &holder("etl")).await.unwrap();
    assert!(!connected.over_cap);
    let counters = world.counters();
    assert_eq!((counters.revocations, counters.evictions), (1, 0));
    let released = life.view(&account).await.grants[2].clone();
    assert_eq!(released.end.unwrap().cause, Cause::RevokedByUs);
    assert!(world.is_alive(pair.refresh_token()), "the first integration lives");
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn what_nobody_ever_saw_makes_room_at_once() {
    let world = Setup::new(&capped(STEADY)).start().await;
    let life = world.live();
    // The story: the first integration runs, the second is tried four times and rolled back.
    world.adopted(&life, "alice", &holder("crm")).await;
    let account = world.account("alice");
    let first = life.token(&account).await.unwrap();
    for _ in 0..4 {
        world.adopted(&life, "alice", &holder("erp")).await;
        let view = life.view(&account).await;
        let newest = view.grants.iter().map(|grant| grant.grant).max().unwrap();
        life.broker.release(&account, newest, &holder("erp")).await.unwrap();
    }
    let state = world.sandbox.state();
    assert_eq!((state.counters.exchanges, state.counters.evictions), (5, 0));
    assert!(state.counters.revocations >= 2, "{:?}", state.counters);
    assert!(world.works(&first).await, "the first integration lives");
    world.lapse();
    let crm = holder("crm");
    let pair = life.broker.access_token_for(&crm, &account, &SCOPES, Duration::ZERO).await;
    assert!(world.works(&pair.unwrap()).await);
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn a_policy_lets_the_oldest_die_and_says_so() {
    let setup = Setup::new(&capped(ROTATING)).config(|config| config.at_cap(AtCap::Warn));
    let world = setup.start().await;
    let mut life = world.live();
    full(&world, &mut life).await;
    let account = world.account("alice");
    let oldest = life.view(&account).await.grants[0].grant;
    let connected = world.connect(&life, "alice", &holder("etl")).await.unwrap();
    assert!(connected.over_cap);
    let heard = life.heard();
    assert_eq!(heard[0], "near_cap", "{heard:?}");
    assert!(heard.contains(&"over_cap".to_owned()), "{heard:?}");
    assert_eq!(world.sandbox.state().users[0].approvals[0].state, ApprovalState::Evicted);
    // Its next refresh finds out, and why is noted.
    let error = life.broker.refresh(&account, oldest).await.unwrap_err();
    assert!(matches!(error, BrokerError::Refused { .. }), "{error}");
    let end = life.view(&account).await.grants[0].end.clone().unwrap();
    assert_eq!((end.cause, end.confidence), (Cause::Evicted, Confidence::Probable));
    let event = life.hear(|event| matches!(event, Event::Ended { .. })).await;
    assert!(matches!(event, Event::Ended { cause: Cause::Evicted, .. }), "{event:?}");
    let health = life.broker.health(&account).await.unwrap();
    assert_eq!(health.status, Status::Ok, "the others live");
}

#[tokio::test]
async fn a_blind_exchange_over_the_cap_is_told_when_it_is_settled() {
    let world = Setup::new(&capped(STEADY)).start().await;
    let mut life = world.live();
    full(&world, &mut life).await;
    // Nobody said who would come.
    let (query, cookie) = world.click(&life, &world.asks(&holder("etl")), "alice").await;
    let connected = life.broker.callback(&query, &cookie).await.unwrap();
    assert!(connected.over_cap);
    assert!(life.heard().contains(&"over_cap".to_owned()));
    assert_eq!(world.counters().evictions, 1);
}

#[tokio::test]
async fn an_exchange_in_doubt_takes_a_place() {
    let world = Setup::new(&capped(STEADY)).start().await;
    let life = world.live();
    for name in ["crm", "erp"] {
        world.adopted(&life, "alice", &holder(name)).await;
    }
    world.sandbox.inject(Injection::new(Fault::DropAfterCommit, On::Exchange));
    world.connect(&life, "alice", &holder("bi")).await.unwrap_err();
    let error = world.connect(&life, "alice", &holder("bi")).await.unwrap_err();
    assert!(matches!(error, BrokerError::CapReached { live: 3, .. }), "{error}");
    assert_eq!((world.counters().exchanges, world.counters().evictions), (3, 0));
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn two_at_once_do_not_share_the_last_place() {
    let world = Setup::new(&capped(STEADY)).start().await;
    let life = world.live();
    for name in ["crm", "erp"] {
        world.adopted(&life, "alice", &holder(name)).await;
    }
    let (bi, etl) = (holder("bi"), holder("etl"));
    let (one, two) =
        tokio::join!(world.connect(&life, "alice", &bi), world.connect(&life, "alice", &etl));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    assert_eq!((world.counters().exchanges, world.counters().evictions), (3, 0));
    let view = life.view(&world.account("alice")).await;
    let live = view.grants.iter().filter(|grant| grant.state != GrantState::Ended).count();
    assert_eq!(live, 3);
}

#[tokio::test]
async fn sessions_out_of_sight_are_counted() {
    let setup = Setup::new(&capped(STEADY))
        .config(|config| config.outside(1))
        .sandbox(|sandbox| sandbox.web_sessions(1));
    let world = setup.start().await;
    let life = world.live();
    for name in ["crm", "erp"] {
        world.adopted(&life, "alice", &holder(name)).await;
    }
    let error = world.connect(&life, "alice", &holder("bi")).await.unwrap_err();
    assert!(matches!(error, BrokerError::CapReached { live: 3, limit: 3, .. }), "{error}");
    assert_eq!(world.counters().evictions, 0);
}
