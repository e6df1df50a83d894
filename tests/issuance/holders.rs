//! Who depends on what: tenants, supersession, letting go.

use super::world::{Life, ROTATING, SCOPES, STEADY, Setup, World, holder, until};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;
use tokenwal::broker::{BrokerError, Keeps};
use tokenwal::ledger::Line;
use tokenwal::sandbox::{Fault, Injection, On};
use tokenwal::{AccountView, Error, GrantState, Holder, Imported};

#[tokio::test]
async fn a_newer_grant_that_has_worked_takes_over_what_it_covers() {
    let world = Setup::new(ROTATING).start().await;
    let mut life = world.live();
    let old = world.adopted(&life, "alice", &holder("crm")).await;
    let new = world.adopted(&life, "alice", &holder("erp")).await;
    let other = Holder::new("another tenant", "crm").unwrap();
    let account = world.account("alice");
    life.broker.adopt(&account, old.grant, &other, &SCOPES).await.unwrap();
    life.heard();
    let erp = holder("erp");
    let pair = life.broker.access_token_for(&erp, &account, &SCOPES, Duration::ZERO).await;
    let pair = pair.unwrap();
    assert_eq!(pair.grant(), new.grant);
    let before = life.view(&account).await;
    assert_eq!(before.grants[0].holders.len(), 2, "nobody moves before it has worked");
    assert!(world.works(&pair).await);
    life.broker.worked(&pair).await.unwrap();
    assert_eq!(life.heard(), ["superseded"]);
    let view = life.view(&account).await;
    let held = |at: usize| -> Vec<_> {
        view.grants[at].holders.iter().filter_map(|held| held.holder.clone()).collect()
    };
    assert_eq!(held(0), std::slice::from_ref(&other), "another tenant's stays");
    assert_eq!(held(1), [holder("erp"), holder("crm")]);
    life.broker.release(&account, old.grant, &other).await.unwrap();
    assert_eq!(life.view(&account).await.grants[0].state, GrantState::Released);
}

#[tokio::test]
async fn grants_are_shared_within_a_tenant_unless_the_app_says_otherwise() {
    for shared in [false, true] {
        let setup = Setup::new(STEADY);
        let setup = if shared { setup.config(|config| config.shared(true)) } else { setup };
        let world = setup.start().await;
        let life = world.live();
        world.adopted(&life, "alice", &holder("crm")).await;
        let account = world.account("alice");
        let stranger = Holder::new("another tenant", "crm").unwrap();
        let within = life.broker.reuse(&account, &holder("erp"), &SCOPES).await.unwrap();
        assert!(within.is_some());
        let beyond = life.broker.reuse(&account, &stranger, &SCOPES).await.unwrap();
        assert_eq!(beyond.is_some(), shared);
        let token =
            life.broker.access_token_for(&stranger, &account, &SCOPES, Duration::ZERO).await;
        match token {
            Ok(_) => assert!(shared),
            Err(error) => {
                assert!(!shared && matches!(error, BrokerError::NeedsAuthorization { .. }));
            }
        }
        let more = ["api", "full"];
        assert!(life.broker.reuse(&account, &holder("erp"), &more).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn what_is_being_revoked_is_not_used_again() {
    let world = Setup::new(STEADY).start().await;
    let life = world.live();
    let left = world.connect(&life, "alice", &holder("crm")).await.unwrap();
    let account = world.account("alice");
    let crm = holder("crm");
    let reuse = || life.broker.reuse(&account, &crm, &SCOPES);
    assert_eq!(reuse().await.unwrap().map(|pair| pair.grant()), Some(left.grant));
    let slow = Fault::DelayBeforeCommit(Duration::from_millis(500));
    world.sandbox.inject(Injection::new(slow, On::Revoke));
    let revoked = async { life.broker.revoke(&account, left.grant).await.unwrap() };
    let looked = async {
        until("the revocation is on its way", async || {
            !life.view(&account).await.in_doubt.is_empty()
        })
        .await;
        until("it is not found any longer", async || reuse().await.unwrap().is_none()).await;
        let busy = life.broker.adopt(&account, left.grant, &holder("crm"), &SCOPES).await;
        assert!(
            matches!(busy, Err(BrokerError::Ledger(error)) if matches!(*error, Error::Busy { .. }))
        );
    };
    tokio::join!(revoked, looked);
    assert_eq!(life.view(&account).await.grants[0].state, GrantState::Ended);
}

#[tokio::test]
async fn a_retry_that_knows_no_user_finds_what_its_own_try_left() {
    let world = Setup::new(STEADY).start().await;
    let life = world.live();
    let other = world.connect(&life, "alice", &holder("erp")).await.unwrap();
    let own = world.connect(&life, "alice", &holder("crm")).await.unwrap();
    world.connect(&life, "bob", &holder("erp")).await.unwrap();
    let later = world.connect(&life, "alice", &holder("erp")).await.unwrap();
    assert!(other.grant < own.grant && own.grant < later.grant);
    let found = |who: &str| {
        let who = holder(who);
        let broker = life.broker.clone();
        let app = world.account("alice").app;
        async move { broker.reuse_any(&app, &who, &SCOPES).await.unwrap().map(|pair| pair.grant()) }
    };
    assert_eq!(found("crm").await, Some(own.grant), "not what the same tenant's other holder left");
    assert_eq!(found("nobody").await, None);
    life.broker.adopt(&world.account("alice"), own.grant, &holder("crm"), &SCOPES).await.unwrap();
}

#[tokio::test]
async fn whoever_disconnects_takes_along_what_nobody_else_needs() {
    let world = Setup::new(ROTATING).start().await;
    let life = world.live();
    let alone = world.adopted(&life, "alice", &holder("crm")).await;
    let shared = world.adopted(&life, "bob", &holder("crm")).await;
    let bob = world.account("bob");
    life.broker.adopt(&bob, shared.grant, &holder("erp"), &SCOPES).await.unwrap();
    let done = life.broker.disconnect(&holder("crm")).await.unwrap();
    assert_eq!(done.released.len(), 2);
    assert_eq!(done.revoked, [(alone.account, alone.grant)]);
    assert!(done.left.is_empty());
    assert_eq!(world.counters().revocations, 1);
    assert!(world.works(&life.token(&bob).await.unwrap()).await);
    assert!(life.token(&world.account("alice")).await.is_err());
    assert_eq!(life.broker.disconnect(&holder("crm")).await.unwrap(), Default::default());
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn nothing_is_revoked_that_would_take_others_along() {
    let whole = ROTATING.to_owned()
        + "[revoke]\nvalue = \"whole_grant\"\nstatus = \"verified\"\nsource = \"a test\"\n\
           on = \"2026-01-01\"\n";
    let world = Setup::new(&whole).start().await;
    let life = world.live();
    let first = world.adopted(&life, "alice", &holder("crm")).await;
    let second = world.adopted(&life, "alice", &holder("erp")).await;
    let account = world.account("alice");
    let error = life.broker.revoke(&account, first.grant).await.unwrap_err();
    assert!(matches!(error, BrokerError::WouldKill { siblings: 1, .. }), "{error}");
    let done = life.broker.disconnect(&holder("crm")).await.unwrap();
    assert_eq!(done.left, [(first.account, first.grant)]);
    assert_eq!(world.counters().revocations, 0);
    world.lapse();
    let keeps = life.broker.keeps(&account, first.grant).await.unwrap();
    assert_eq!(keeps, Some(Keeps::Granularity));
    let listed = life.broker.orphans().await.unwrap();
    assert_eq!(listed, [(first.account, first.grant, Some(Keeps::Granularity))]);
    let pair = life.broker.access_token_for(&holder("erp"), &account, &[], Duration::ZERO).await;
    assert_eq!(pair.unwrap().grant(), second.grant);
    world.nothing_is_lost(&life).await;
    // The last one takes nobody along.
    life.broker.revoke_all(&account, first.grant).await.unwrap();
    assert_eq!(world.counters().revocations, 1);
    assert_eq!(world.sandbox.state().users[0].live, 0);
}

#[tokio::test]
async fn a_grant_is_kept_for_as_long_as_anything_speaks_for_it() {
    let world = Setup::new(STEADY).start().await;
    let life = world.live();
    let connected = world.connect(&life, "alice", &holder("crm")).await.unwrap();
    let (account, grant) = (world.account("alice"), connected.grant);
    let keeps = async |life: &Life| life.broker.keeps(&account, grant).await.unwrap();
    assert_eq!(keeps(&life).await, Some(Keeps::Waiting));
    life.broker.adopt(&account, grant, &holder("crm"), &SCOPES).await.unwrap();
    assert_eq!(keeps(&life).await, Some(Keeps::Held));
    life.token(&account).await.unwrap();
    life.broker.release(&account, grant, &holder("crm")).await.unwrap();
    assert_eq!(keeps(&life).await, Some(Keeps::HandedOut));
    world.lapse();
    // Who saw it come knows that its time has not passed: the clock was set forward.
    assert_eq!(keeps(&life).await, Some(Keeps::HandedOut));
    life.end().await;
    let life = world.live();
    assert_eq!(keeps(&life).await, None);
    life.broker.revoke(&account, grant).await.unwrap();
    assert_eq!(keeps(&life).await, Some(Keeps::Ended));
}

/// Takes in the pair that another program had, of a user who approved there.
async fn imported(world: &World, life: &Life, holder: &Holder) -> Imported {
    let elsewhere = world.live_elsewhere();
    let connected = world.connect(&elsewhere, "alice", holder).await.unwrap();
    let pair = elsewhere.journal.current_of(connected.account, connected.grant).await.unwrap();
    let refresh_token = pair.unwrap().refresh_token().unwrap().reveal().to_owned();
    let line = serde_json::json!({
        "app": {"provider": world.app.provider(), "client_id": world.app.client_id()},
        "user": world.account("alice").user.as_str(),
        "refresh_token": refresh_token,
        "scopes": SCOPES,
        "holder": {"tenant": holder.tenant(), "name": holder.name()},
    });
    let import = Line::parse(&line.to_string(), world.clock_ms()).unwrap();
    life.broker.import(import).await.unwrap()
}

#[tokio::test]
async fn whoever_holds_a_grant_is_served_from_it() {
    let world = Setup::new(STEADY).start().await;
    let life = world.live();
    let own = world.adopted(&life, "alice", &holder("crm")).await;
    let left = world.adopted(&life, "alice", &holder("erp")).await;
    let account = world.account("alice");
    life.broker.release(&account, left.grant, &holder("erp")).await.unwrap();
    let paused = imported(&world, &life, &holder("old")).await;
    for who in ["crm", "another of the tenant"] {
        for lapsed in [false, true] {
            if lapsed {
                world.lapse();
            }
            let who = holder(who);
            let pair = life.broker.access_token_for(&who, &account, &SCOPES, Duration::ZERO).await;
            assert_eq!(pair.unwrap().grant(), own.grant, "{who} {lapsed}");
        }
    }
    // Nobody moves to what must not be refreshed yet, though it is the newest.
    let old = holder("old");
    let pair = life.journal.current_of(paused.account, paused.grant).await.unwrap().unwrap();
    life.broker.worked(&pair).await.unwrap();
    let holders = |view: AccountView| -> Vec<_> {
        view.grants.into_iter().map(|grant| (grant.grant, grant.holders.len())).collect()
    };
    let before = [(own.grant, 1), (left.grant, 0), (paused.grant, 1)];
    assert_eq!(holders(life.view(&account).await), before);
    life.broker.activate(&account, paused.grant).await.unwrap();
    life.broker.refresh(&account, paused.grant).await.unwrap();
    let pair = life.broker.access_token_for(&old, &account, &SCOPES, Duration::ZERO).await.unwrap();
    life.broker.worked(&pair).await.unwrap();
    let after = [(own.grant, 0), (left.grant, 0), (paused.grant, 2)];
    assert_eq!(holders(life.view(&account).await), after);
}

#[tokio::test]
async fn a_tenant_that_let_go_gets_no_tokens() {
    let world = Setup::new(STEADY).start().await;
    let life = world.live();
    let (first, second) = (holder("crm"), Holder::new("another tenant", "crm").unwrap());
    let connected = world.adopted(&life, "alice", &first).await;
    let account = world.account("alice");
    life.broker.adopt(&account, connected.grant, &second, &SCOPES).await.unwrap();
    life.broker.disconnect(&first).await.unwrap();
    let token = |who| life.broker.access_token_for(who, &account, &SCOPES, Duration::ZERO);
    let error = token(&first).await.unwrap_err();
    assert!(matches!(error, BrokerError::NeedsAuthorization { .. }), "{error}");
    assert!(world.works(&token(&second).await.unwrap()).await);
    // What nobody holds is for whom it was obtained, so that a retry finds it.
    life.broker.release(&account, connected.grant, &second).await.unwrap();
    assert!(life.broker.reuse(&account, &first, &SCOPES).await.unwrap().is_some());
    assert!(life.broker.reuse(&account, &second, &SCOPES).await.unwrap().is_none());
}

#[tokio::test]
async fn what_a_caller_who_leaves_has_begun_is_done_and_seen() {
    let world = Setup::new(STEADY).start().await;
    let life = world.live();
    let other = Holder::new("another tenant", "crm").unwrap();
    let connected = world.adopted(&life, "alice", &holder("crm")).await;
    let (account, grant) = (world.account("alice"), connected.grant);
    let token = || life.broker.access_token_for(&other, &account, &SCOPES, Duration::ZERO);
    assert!(token().await.is_err());
    leave(life.broker.adopt(&account, grant, &other, &SCOPES));
    until("it is adopted", async || token().await.is_ok()).await;
    leave(life.broker.release(&account, grant, &other));
    until("it is released", async || token().await.is_err()).await;
    let paused = imported(&world, &life, &holder("old")).await;
    assert!(life.broker.refresh(&account, paused.grant).await.is_err());
    leave(life.broker.activate(&account, paused.grant));
    let active = async || life.broker.refresh(&account, paused.grant).await.is_ok();
    until("it is active", active).await;
    leave(life.broker.disconnect(&holder("crm")));
    until("it is revoked", async || life.view(&account).await.grants[0].end.is_some()).await;
}

/// Polls a future once and drops it.
fn leave<F: Future>(future: F) {
    let mut future = pin!(future);
    let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "there was nothing to leave");
}

#[tokio::test]
async fn holders_move_although_a_crash_came_between() {
    let world = Setup::new(STEADY).start().await;
    let life = world.live();
    let old = world.adopted(&life, "alice", &holder("crm")).await;
    let new = world.adopted(&life, "alice", &holder("erp")).await;
    let account = world.account("alice");
    let pair = life.journal.current_of(new.account, new.grant).await.unwrap().unwrap();
    // All that was written before the crash.
    life.journal.worked(&account, new.grant, pair.generation()).await.unwrap();
    life.end().await;
    let mut life = world.live();
    life.broker.worked(&pair).await.unwrap();
    assert_eq!(life.heard(), ["superseded"]);
    let view = life.view(&account).await;
    assert_eq!((view.grants[0].grant, view.grants[0].holders.len()), (old.grant, 0));
    let head = life.journal.head();
    life.broker.worked(&pair).await.unwrap();
    assert_eq!(life.journal.head(), head, "it is said once");
}
