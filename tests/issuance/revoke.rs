//! What is revoked, and what keeps a grant from it: whoever has begun to depend on it meanwhile, what
//! would die with it, what was handed out of it.

use super::scripted::{CAP, PAIR, ROTATES, SAME, STEADY, Scripted, WHOLE};
use super::world::holder;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokenwal::broker::control::{Order, OrderError};
use tokenwal::broker::{BrokerError, Keeps, Status};
use tokenwal::{Clock as _, Import, TokenResponse};

const MOMENT: Duration = Duration::from_millis(50);
const WHILE: Duration = Duration::from_millis(300);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Has another user's refresh hold the only place for a while.
async fn busy(world: &Scripted) -> tokio::task::JoinHandle<()> {
    *world.provider.refresh_takes.lock().unwrap() = WHILE;
    let (broker, bob) = (world.broker.clone(), world.account("bob"));
    let slow = tokio::spawn(async move {
        broker.access_token(&bob, &[], Duration::ZERO).await.unwrap();
    });
    tokio::time::sleep(MOMENT).await;
    slow
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_waits_for_its_turn_sees_who_adopts_meanwhile() {
    let world = Scripted::with(&[ROTATES, PAIR], |config| config.calls_at_once(1));
    world.adopted(&holder("b"), "bob", "c1").await;
    let new = world.connect(&holder("a"), "alice", "c2").await.unwrap();
    let token = world.refresh_token(&new).await;
    world.lapse().await;
    let slow = busy(&world).await;
    let order = Order::Revoke { account: new.account, grant: new.grant, force: false };
    let broker = world.broker.clone();
    let revoking = tokio::spawn(async move { broker.carry_out(order).await });
    tokio::time::sleep(MOMENT).await;
    world.broker.adopt(new.account, new.grant, &holder("a"), &["api"]).await.unwrap();
    slow.await.unwrap();
    let refused = revoking.await.unwrap().unwrap_err();
    assert!(matches!(refused, OrderError::Broker(BrokerError::Choice { .. })), "{refused}");
    assert!(world.provider.lives(&token));
    let forced = Order::Revoke { account: new.account, grant: new.grant, force: true };
    world.broker.carry_out(forced).await.unwrap();
    assert!(!world.provider.lives(&token));
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_waits_for_its_turn_sees_what_was_handed_out_meanwhile() {
    let world = Scripted::with(&[ROTATES, PAIR, CAP], |config| config.calls_at_once(1));
    world.adopted(&holder("b"), "bob", "c1").await;
    world.adopted(&holder("a"), "alice", "c2").await;
    world.lapse().await;
    let second = world.released(&holder("erp"), "alice", "c3").await;
    let token = world.refresh_token(&second).await;
    let slow = busy(&world).await;
    // It makes room first, by what nobody has seen yet.
    let (query, cookie) = world.click(&holder("c"), "alice", "c4");
    let broker = world.broker.clone();
    let third = tokio::spawn(async move { broker.callback(&query, &cookie).await.map(drop) });
    tokio::time::sleep(MOMENT).await;
    let pair = world.token("alice").await.unwrap();
    assert_eq!(pair.grant(), second.grant);
    slow.await.unwrap();
    let refused = third.await.unwrap().unwrap_err();
    assert!(matches!(refused, BrokerError::CapReached { .. }), "{refused}");
    assert!(world.provider.lives(&token), "an access token of it is in use");
}

#[tokio::test(start_paused = true)]
async fn an_exchange_on_its_way_is_not_taken_along() {
    for nameless in [false, true] {
        let world = Scripted::new(&[ROTATES, WHOLE]);
        world.provider.takes_all.store(true, SeqCst);
        let first = world.adopted(&holder("a"), "alice", "c1").await;
        world.provider.nameless.store(nameless, SeqCst);
        *world.provider.exchange_takes.lock().unwrap() = WHILE;
        let (query, cookie) = world.click(&holder("b"), "alice", "c2");
        let broker = world.broker.clone();
        let exchange = tokio::spawn(async move { broker.callback(&query, &cookie).await });
        tokio::time::sleep(MOMENT).await;
        let refused = world.broker.revoke(first.account, first.grant).await.unwrap_err();
        assert!(matches!(refused, BrokerError::WouldKill { siblings: 1, .. }), "{refused}");
        let second = exchange.await.unwrap().unwrap();
        assert!(world.provider.lives(&world.refresh_token(&second).await), "{nameless}");
        // Nor what it has brought.
        let done = world.broker.disconnect(&holder("a")).await.unwrap();
        assert_eq!((done.revoked.len(), done.left.len()), (0, 1), "{done:?}");
        assert!(world.provider.lives(&world.refresh_token(&second).await), "{nameless}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_came_meanwhile_is_not_taken_along() {
    let world = Scripted::with(&[ROTATES, WHOLE], |config| config.calls_at_once(1));
    world.provider.takes_all.store(true, SeqCst);
    let first = world.adopted(&holder("a"), "alice", "c1").await;
    world.adopted(&holder("b"), "bob", "c").await;
    world.lapse().await;
    let slow = busy(&world).await;
    // An exchange waits for its turn, and then the revocation does.
    let (query, cookie) = world.click(&holder("new"), "alice", "c2");
    let broker = world.broker.clone();
    let exchange = tokio::spawn(async move { broker.callback(&query, &cookie).await });
    tokio::time::sleep(MOMENT).await;
    let refused = world.broker.revoke(first.account, first.grant).await.unwrap_err();
    assert!(matches!(refused, BrokerError::WouldKill { .. }), "{refused}");
    slow.await.unwrap();
    let second = exchange.await.unwrap().unwrap();
    assert!(world.provider.lives(&world.refresh_token(&second).await));
}

#[tokio::test(start_paused = true)]
async fn a_grant_of_nobody_known_may_be_of_anybody() {
    let world = Scripted::new(&[ROTATES, WHOLE]);
    world.provider.takes_all.store(true, SeqCst);
    let first = world.adopted(&holder("a"), "alice", "c1").await;
    let token = world.refresh_token(&first).await;
    world.provider.nameless.store(true, SeqCst);
    let second = world.adopted(&holder("b"), "alice", "c2").await;
    assert!(second.user.is_none());
    for name in ["b", "a"] {
        let done = world.broker.disconnect(&holder(name)).await.unwrap();
        assert_eq!((done.revoked.len(), done.left.len()), (0, 1), "{done:?}");
        assert!(world.provider.lives(&token));
    }
    // By force it goes, and takes along what is the user's.
    world.broker.revoke_all(second.account, second.grant).await.unwrap();
    assert!(!world.provider.lives(&token));
}

#[tokio::test(start_paused = true)]
async fn the_same_refresh_token_under_another_account_keeps_a_grant() {
    let world = Scripted::new(&[STEADY, PAIR, SAME]);
    world.provider.gives_again.store(true, SeqCst);
    let first = world.adopted(&holder("a"), "alice", "c1").await;
    let token = world.refresh_token(&first).await;
    world.provider.nameless.store(true, SeqCst);
    let second = world.adopted(&holder("b"), "alice", "c2").await;
    assert_ne!(first.account, second.account);
    let done = world.broker.disconnect(&holder("b")).await.unwrap();
    assert_eq!((done.revoked.len(), done.left.len()), (0, 1), "{done:?}");
    let refused = world.broker.revoke(first.account, first.grant).await.unwrap_err();
    assert!(matches!(refused, BrokerError::WouldKill { siblings: 1, .. }), "{refused}");
    assert!(world.provider.lives(&token));
    // One with a token of its own is nobody else's.
    world.provider.gives_again.store(false, SeqCst);
    world.adopted(&holder("c"), "alice", "c3").await;
    let done = world.broker.disconnect(&holder("c")).await.unwrap();
    assert_eq!((done.revoked.len(), done.left.len()), (1, 0), "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn what_reuse_hands_out_is_in_use() {
    let world = Scripted::new(&[ROTATES, PAIR, CAP]);
    world.adopted(&holder("a"), "alice", "c1").await;
    let second = world.released(&holder("erp"), "alice", "c2").await;
    let account = world.account("alice");
    let found = world.broker.reuse(&account, &holder("erp"), &["api"]).await.unwrap().unwrap();
    let used = found.grant();
    if used != second.grant {
        world.broker.release(&account, used, &holder("a")).await.unwrap();
    }
    assert_eq!(world.broker.keeps(&account, used).await.unwrap(), Some(Keeps::HandedOut));
    world.lapse().await;
    assert_eq!(world.broker.keeps(&account, used).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_known_refresh_token_begins_no_grant_that_nobody_has_seen() {
    let world = Scripted::new(&[STEADY, PAIR, SAME]);
    world.provider.gives_again.store(true, SeqCst);
    let first = world.adopted(&holder("a"), "alice", "c1").await;
    world.token("alice").await.unwrap();
    let again = world.connect(&holder("a"), "alice", "c2").await.unwrap();
    assert_eq!((again.grant, again.generation.0), (first.grant, 2));
    world.broker.release(first.account, first.grant, &holder("a")).await.unwrap();
    let keeps = world.broker.keeps(first.account, first.grant).await.unwrap();
    assert_eq!(keeps, Some(Keeps::HandedOut));
}

#[tokio::test(start_paused = true)]
async fn every_access_token_that_there_was_has_to_lapse() {
    let world = Scripted::new(&[ROTATES, PAIR]);
    *world.provider.expires_in.lock().unwrap() = Some(86_400);
    let first = world.adopted(&holder("a"), "alice", "c1").await;
    world.token("alice").await.unwrap();
    *world.provider.expires_in.lock().unwrap() = Some(60);
    world.broker.refresh(first.account, first.grant).await.unwrap();
    world.broker.release(first.account, first.grant, &holder("a")).await.unwrap();
    let keeps = async || world.broker.keeps(first.account, first.grant).await.unwrap();
    world.lapse().await;
    assert_eq!(keeps().await, Some(Keeps::HandedOut), "the first one works for a day");
    world.clock.advance(DAY);
    assert_eq!(keeps().await, Some(Keeps::HandedOut), "a clock that is set forward says nothing");
    tokio::time::sleep(DAY).await;
    // It may have been revoked by then, as nobody holds it.
    assert!(matches!(keeps().await, None | Some(Keeps::Ended)));
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_forward_revokes_nothing_that_was_just_issued() {
    let world = Scripted::new(&[ROTATES, PAIR, CAP]);
    let new = world.connect(&holder("a"), "alice", "c1").await.unwrap();
    let token = world.refresh_token(&new).await;
    world.clock.advance(2 * DAY);
    // Whoever connects looks for a place to free.
    world.connect(&holder("b"), "alice", "c2").await.unwrap();
    assert!(world.provider.lives(&token));
    tokio::time::sleep(2 * DAY).await;
    world.connect(&holder("c"), "alice", "c3").await.unwrap();
    assert!(!world.provider.lives(&token), "nobody has come for it");
}

#[tokio::test(start_paused = true)]
async fn an_import_that_lapsed_and_waits_to_be_activated_is_told_so() {
    let world = Scripted::new(&[ROTATES, PAIR]);
    let answer = br#"{"access_token":"a","refresh_token":"r","expires_in":3600}"#.to_vec();
    let answer = TokenResponse::parse(answer, world.clock.now_ms()).unwrap();
    let account = world.account("alice");
    world.broker.import(Import::new(&account, answer)).await.unwrap();
    let status = async || world.broker.health(&account).await.unwrap().status;
    assert_eq!(status().await, Status::Ok);
    world.lapse().await;
    assert!(matches!(world.token("alice").await, Err(BrokerError::Paused { .. })));
    assert_eq!(status().await, Status::Paused);
}
