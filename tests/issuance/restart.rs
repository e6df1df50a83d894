//! What is on its way when a process ends, and what the next one makes of it.

use super::world::{Life, ROTATING, STEADY, Setup, World, holder, until};
use std::time::Duration;
use tokenwal::broker::{BrokerError, Event, Why};
use tokenwal::ledger::Ledger as _;
use tokenwal::sandbox::{Fault, Injection, On};

const SLOW: Duration = Duration::from_millis(600);

/// Starts a refresh and ends the process while it is on its way; gives back what is left of it.
async fn cut(world: &World, fault: Fault) -> Life {
    let life = world.live();
    world.adopted(&life, "alice", &holder("crm")).await;
    world.lapse();
    world.sandbox.inject(Injection::new(fault, On::Refresh));
    let (broker, account) = (life.broker.clone(), world.account("alice"));
    tokio::spawn(async move { broker.access_token(&account, &[], Duration::ZERO).await });
    until("the request is there", async || world.counters().faults == 1).await;
    assert!(!life.broker.shutdown(Duration::from_millis(20)).await, "it is still on its way");
    let error = life.broker.refresh(&world.account("alice"), tokenwal::GrantId(1)).await;
    assert!(matches!(error, Err(BrokerError::Closed)), "{error:?}");
    life.journal.clone().close().await.unwrap();
    life
}

#[tokio::test]
async fn shutdown_waits_for_what_is_on_its_way() {
    let world = Setup::new(ROTATING).start().await;
    let life = world.live();
    world.adopted(&life, "alice", &holder("crm")).await;
    world.lapse();
    world.sandbox.inject(Injection::new(Fault::DelayAfterCommit(SLOW), On::Refresh));
    let (broker, account) = (life.broker.clone(), world.account("alice"));
    let caller =
        tokio::spawn(async move { broker.access_token(&account, &[], Duration::ZERO).await });
    until("the request is there", async || world.counters().faults == 1).await;
    life.end().await;
    assert_eq!(caller.await.unwrap().unwrap().generation().0, 2);
    let life = world.live();
    assert!(life.view(&world.account("alice")).await.in_doubt.is_empty());
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn what_a_shutdown_cuts_is_in_doubt_and_looked_into_at_the_next_open() {
    // Rotated, and the answer went to nobody: the next process asks, and then a person.
    let world = Setup::hasty(ROTATING).start().await;
    let old = cut(&world, Fault::DelayAfterCommit(SLOW)).await;
    let mut life = world.live();
    let account = world.account("alice");
    let view = life.view(&account).await;
    assert_eq!(view.in_doubt.len(), 1);
    assert_eq!(view.in_doubt[0].doubt, None, "its process said nothing");
    world.nothing_is_lost(&life).await;
    let asked = life.hear(|event| matches!(event, Event::Ask { .. })).await;
    let Event::Ask { op, why, .. } = asked else { panic!("{asked:?}") };
    assert_eq!((op, why), (view.in_doubt[0].op, Why::Spent));
    assert_eq!((world.counters().refreshes, world.counters().introspections), (1, 1));
    drop(old);
    life.end().await;
}

#[tokio::test]
async fn what_never_arrived_is_sent_again_at_the_next_open() {
    let world = Setup::hasty(ROTATING).start().await;
    let old = cut(&world, Fault::DelayBeforeCommit(SLOW)).await;
    // The provider was never asked: as if the request was lost on the way.
    let life = world.live();
    drop(old);
    let account = world.account("alice");
    until("it is decided", async || {
        let steps = life.broker.steps(&account).await.unwrap();
        !matches!(steps[..], [(_, tokenwal::broker::Step::Wait(_))])
    })
    .await;
    // By then it was carried out, if late: the probe said so, and nothing was presented again.
    assert_eq!((world.counters().refreshes, world.counters().reuses), (1, 0));
    world.nothing_is_lost(&life).await;
    life.end().await;
}

#[tokio::test]
async fn without_rotation_the_next_open_sends_it_again() {
    let world = Setup::new(STEADY).start().await;
    let _old = cut(&world, Fault::DelayAfterCommit(SLOW)).await;
    let life = world.live();
    let account = world.account("alice");
    until("it is sent again", async || life.view(&account).await.in_doubt.is_empty()).await;
    let pair = life.token(&account).await.unwrap();
    assert!(pair.generation().0 == 2 && world.works(&pair).await);
    world.nothing_is_lost(&life).await;
    life.end().await;
}

#[tokio::test]
async fn an_answer_that_could_not_be_stored_is_given_back_for_another_store() {
    let world = Setup::new(ROTATING).start().await;
    let old = cut(&world, Fault::DelayAfterCommit(SLOW)).await;
    // The store was closed under it; the answer comes, and is not dropped.
    let left = std::cell::RefCell::new(Vec::new());
    until("the answer is given back", async || {
        left.borrow_mut().extend(old.broker.take_unsettled());
        !left.borrow().is_empty()
    })
    .await;
    let mut left = left.into_inner();
    let left = left.pop().unwrap();
    let shown = format!("{left:?}");
    assert!(!shown.contains("5Aep861") && !shown.contains("!AQ"), "{shown}");
    let life = world.live();
    let ticket = life.journal.resume(left.account, left.op).await.unwrap();
    life.journal.settle(ticket, left.outcome).await.unwrap();
    let view = life.view(&world.account("alice")).await;
    assert!(view.in_doubt.is_empty(), "{view:?}");
    let pair = life.journal.pair(left.account, view.grants[0].grant).await.unwrap().unwrap();
    assert!(pair.generation().0 == 2 && world.is_alive(pair.refresh_token()));
    assert_eq!((world.counters().refreshes, world.counters().reuses), (1, 0));
}

#[tokio::test]
async fn a_broker_that_is_dropped_lets_go_of_the_store() {
    let world = Setup::new(STEADY).start().await;
    let life = world.live();
    world.adopted(&life, "alice", &holder("crm")).await;
    // Nobody said shutdown or close: a service that panicked, or a test.
    drop(life);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let life = world.live();
    assert_eq!(life.view(&world.account("alice")).await.grants.len(), 1);
}
