//! What belongs to a click: its code is presented once and for it alone, whoever has it.

use super::world::{Life, STEADY, Setup, World, holder, until};
use std::time::Duration;
use tokenwal::broker::{Authorize, BrokerError, CallbackFault, Connected};
use tokenwal::sandbox::{Fault, Injection, On};

type Answer = Result<Connected, BrokerError>;

/// What a provider takes a code for that is presented twice.
async fn strict() -> World {
    Setup::new(STEADY).sandbox(|sandbox| sandbox.code_reuse_revokes(true)).start().await
}

/// Sends off somebody who has another's query, from a log or a referrer.
fn thief(life: &Life, asked: &Authorize, stolen: &str) -> (String, String) {
    let value = |text: &str, name: &str| {
        let found = text.split(['?', '&']).find_map(|part| part.strip_prefix(name));
        found.unwrap().to_owned()
    };
    let sent = life.broker.authorize(asked).unwrap();
    let query = format!("state={}&code={}", value(&sent.url, "state="), value(stolen, "code="));
    (query, sent.cookie.reveal().to_owned())
}

fn is_refused(answer: Answer, expected: CallbackFault) {
    let error = answer.unwrap_err();
    assert!(matches!(&error, BrokerError::Callback(fault) if *fault == expected), "{error}");
}

#[tokio::test]
async fn a_code_gives_nothing_to_another_click() {
    let world = strict().await;
    let mut life = world.live();
    for is_known in [false, true] {
        let exchanges = world.counters().exchanges;
        let (mut own, mut other) = (world.asks(&holder("crm")), world.asks(&holder("thief")));
        if is_known {
            let alice = world.sandbox.user("alice").unwrap();
            (own, other) = (own.user(&alice), other.user(&alice));
        }
        let (query, cookie) = world.click(&life, &own, "alice").await;
        // On its way.
        let faults = world.counters().faults;
        let slow = Fault::DelayAfterCommit(Duration::from_millis(300));
        world.sandbox.inject(Injection::new(slow, On::Exchange));
        let callback = life.broker.clone();
        let (sent, with) = (query.clone(), cookie.clone());
        let first = tokio::spawn(async move { callback.callback(&sent, &with).await });
        until("the code is there", async || world.counters().faults > faults).await;
        let (stolen, thiefs) = thief(&life, &other, &query);
        is_refused(life.broker.callback(&stolen, &thiefs).await, CallbackFault::OtherClick);
        let first = first.await.unwrap().unwrap();
        // Redeemed; after a restart; with a click of today as with one of then.
        for _ in 0..2 {
            is_refused(life.broker.callback(&stolen, &thiefs).await, CallbackFault::OtherClick);
            let (stolen, thiefs) = thief(&life, &other, &query);
            is_refused(life.broker.callback(&stolen, &thiefs).await, CallbackFault::OtherClick);
            // Nor does the victim's state help without the victim's cookie.
            is_refused(life.broker.callback(&query, &thiefs).await, CallbackFault::State);
            assert_eq!(life.broker.callback(&query, &cookie).await.unwrap(), first);
            life.end().await;
            life = world.live();
        }
        assert_eq!(world.counters().exchanges, exchanges + 1);
        assert_eq!(world.counters().refused, 0);
        world.nothing_is_lost(&life).await;
    }
}

#[tokio::test]
async fn a_click_presents_its_code_once_whenever_it_is_delivered() {
    let world = strict().await;
    let mut life = world.live();
    let alice = world.sandbox.user("alice").unwrap();
    let mut clicks = Vec::new();
    for asked in [world.asks(&holder("crm")), world.asks(&holder("erp")).user(&alice)] {
        let (query, cookie) = world.click(&life, &asked, "alice").await;
        let (stolen, thiefs) = thief(&life, &world.asks(&holder("thief")), &query);
        let first = life.broker.callback(&query, &cookie).await.unwrap();
        clicks.push((query, cookie, stolen, thiefs, first));
    }
    // A compaction, a restart, others' exchanges between, in turn and again; then the cookie expires.
    for round in 0..8 {
        match round % 4 {
            0 => {
                life.journal.compact().await.unwrap();
                drop(world.adopted(&life, "carol", &holder("crm")).await);
            }
            1 | 3 => {
                life.end().await;
                life = world.live();
            }
            _ => drop(world.adopted(&life, "bob", &holder("crm")).await),
        }
        if round == 6 {
            world.clock.advance(Duration::from_secs(901));
        }
        let exchanges = world.counters().exchanges;
        for (query, cookie, stolen, thiefs, first) in &clicks {
            match life.broker.callback(query, cookie).await {
                Ok(again) => assert_eq!(&again, first),
                gone => is_refused(gone, CallbackFault::Expired),
            }
            let error = life.broker.callback(stolen, thiefs).await.unwrap_err();
            let refused = matches!(
                error,
                BrokerError::Callback(CallbackFault::OtherClick | CallbackFault::Expired)
            );
            assert!(refused, "{error}");
        }
        assert_eq!(world.counters().exchanges, exchanges, "round {round}");
        assert_eq!(world.counters().refused, 0, "round {round}");
    }
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn a_query_has_bounds() {
    let world = strict().await;
    let life = world.live();
    let (query, cookie) = world.click(&life, &world.asks(&holder("crm")), "alice").await;
    let more = |count: usize| (0..count).fold(query.clone(), |query, n| format!("{query}&x{n}="));
    for long in [more(64), format!("{query}&x={}", "x".repeat(64 << 10)), "&".repeat(1 << 20)] {
        is_refused(life.broker.callback(&long, &cookie).await, CallbackFault::TooLong);
    }
    assert_eq!(world.counters().exchanges, 0);
    life.broker.callback(&more(50), &cookie).await.unwrap();
}
