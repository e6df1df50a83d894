//! A copy of a store, claimed by another host: what it may present, and what it may revoke.

use super::scripted::{CAP, PAIR, ROTATES, STEADY, Scripted};
use super::world::holder;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokenwal::broker::{BrokerError, Connected, Keeps};
use tokenwal::ledger::{Change, Ledger as _};

const PROBED: &str = "[introspection]\nvalue = \"both\"\n";

/// A store with one grant, as another host has claimed it once the access token has lapsed.
async fn claimed(facts: &[&str]) -> (Scripted, Connected) {
    let production = Scripted::new(facts);
    let new = production.adopted(&holder("a"), "alice", "c1").await;
    assert!(production.broker.shutdown(Duration::from_secs(5)).await);
    production.lapse().await;
    (production.claimed(), new)
}

fn presented(copy: &Scripted) -> usize {
    copy.provider.presented.lock().unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_presented_before_the_provider_was_asked_about_it() {
    let (copy, _) = claimed(&[ROTATES, PAIR, PROBED]).await;
    *copy.provider.says.lock().unwrap() = Some(true);
    copy.token("alice").await.unwrap();
    copy.broker.shutdown(Duration::from_secs(5)).await;
    assert_eq!((copy.provider.probes.load(SeqCst), presented(&copy)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_the_provider_calls_spent_is_never_presented() {
    let (copy, _) = claimed(&[ROTATES, PAIR, PROBED]).await;
    *copy.provider.says.lock().unwrap() = Some(false);
    for _ in 0..3 {
        let refused = copy.token("alice").await.unwrap_err();
        assert!(matches!(refused, BrokerError::Stale { spent: true, .. }), "{refused}");
    }
    assert_eq!((copy.provider.probes.load(SeqCst), presented(&copy)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn where_the_provider_cannot_be_asked_a_person_is() {
    let memory = "[introspection]\nvalue = \"both\"\nstatus = \"memory\"\n";
    for (facts, says) in [("", None), (PROBED, None), (memory, Some(true))] {
        let (copy, new) = claimed(&[ROTATES, PAIR, facts]).await;
        *copy.provider.says.lock().unwrap() = says;
        for _ in 0..2 {
            let refused = copy.token("alice").await.unwrap_err();
            assert!(matches!(refused, BrokerError::Stale { spent: false, .. }), "{refused}");
            assert!(refused.advice().contains("activate"), "{refused}");
        }
        let beside = copy.broker.access_token_beside(new.account, new.grant, &["mail"]).await;
        assert!(matches!(beside, Err(BrokerError::Stale { .. })), "{beside:?}");
        assert_eq!(presented(&copy), 0, "{facts}");
        copy.broker.activate(new.account, new.grant).await.unwrap();
        copy.token("alice").await.unwrap();
        assert_eq!(presented(&copy), 1, "{facts}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_rotate_harms_nobody() {
    let (copy, _) = claimed(&[STEADY, PAIR]).await;
    copy.token("alice").await.unwrap();
    assert_eq!(presented(&copy), 1);
}

/// Somebody used an access token that production had issued; that says nothing of the refresh token.
#[tokio::test(start_paused = true)]
async fn an_access_token_that_works_makes_no_copy_the_only_one() {
    let production = Scripted::new(&[ROTATES, PAIR]);
    let new = production.adopted(&holder("a"), "alice", "c1").await;
    let copy = production.claimed();
    let pair = copy.token("alice").await.unwrap();
    copy.broker.worked(&pair).await.unwrap();
    let view = copy.ledger.account(new.account).await.unwrap().unwrap();
    assert!(view.grants[0].stale);
    copy.lapse().await;
    copy.token("alice").await.unwrap_err();
    assert_eq!(presented(&copy), 0);
}

#[tokio::test(start_paused = true)]
async fn a_claimed_copy_revokes_nothing_by_itself() {
    let production = Scripted::new(&[ROTATES, PAIR, CAP]);
    let new = production.connect(&holder("a"), "alice", "c1").await.unwrap();
    let token = production.refresh_token(&new).await;
    let copy = production.claimed();
    let day = Duration::from_secs(2 * 24 * 3600);
    copy.clock.advance(day);
    tokio::time::sleep(day).await;
    assert_eq!(copy.broker.keeps(new.account, new.grant).await.unwrap(), Some(Keeps::Stale));
    copy.connect(&holder("b"), "alice", "c2").await.unwrap();
    let refused = copy.broker.revoke(new.account, new.grant).await.unwrap_err();
    assert!(matches!(refused, BrokerError::Stale { spent: false, .. }), "{refused}");
    assert!(copy.provider.lives(&token));
    // Once a person has said that this is the only one, or forces it.
    let change = Change::Release { grant: new.grant, holder: holder("a") };
    copy.ledger.change(new.account, change).await.unwrap();
    copy.broker.activate(new.account, new.grant).await.unwrap();
    copy.broker.revoke(new.account, new.grant).await.unwrap();
    assert!(!copy.provider.lives(&token));
}
