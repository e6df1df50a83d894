//! Handing out, refreshing, and hearing from resources.

use super::world::{ROTATING, STEADY, Setup, holder, until};
use std::time::Duration;
use tokenwal::broker::{BrokerError, Status};
use tokenwal::sandbox::{ApprovalState, Fault, Injection, On};
use tokenwal::{Cause, GrantState, Import, Remedy, TokenResponse};

#[tokio::test]
async fn a_valid_token_costs_no_sync_and_no_call() {
    let world = Setup::new(ROTATING).start().await;
    let life = world.live();
    world.adopted(&life, "alice", &holder("crm")).await;
    let account = world.account("alice");
    let first = life.token(&account).await.unwrap();
    let head = life.journal.head();
    for _ in 0..100 {
        let pair = life.token(&account).await.unwrap();
        assert_eq!(pair.generation(), first.generation());
    }
    assert_eq!(life.journal.head(), head);
    assert_eq!(world.counters().refreshes, 0);
    // More than is left of it is one refresh, and that is the current one then.
    let minutes = Duration::from_secs(7200 + 60);
    let scopes: [&str; 0] = [];
    let longer = life.broker.access_token(&account, &scopes, minutes).await.unwrap();
    assert_eq!((longer.generation().0, world.counters().refreshes), (2, 1));
}

#[tokio::test]
async fn a_lapsed_token_is_refreshed_and_rotated() {
    let world = Setup::new(ROTATING).start().await;
    let mut life = world.live();
    world.adopted(&life, "alice", &holder("crm")).await;
    let account = world.account("alice");
    let first = life.token(&account).await.unwrap();
    world.lapse();
    assert!(!world.works(&first).await);
    life.heard();
    let second = life.token(&account).await.unwrap();
    assert_eq!((second.generation().0, second.grant()), (2, first.grant()));
    assert_eq!(life.heard(), ["refreshed"]);
    assert!(!world.is_alive(first.refresh_token()) && world.is_alive(second.refresh_token()));
    assert!(world.works(&second).await);
    // The one before is kept until this one has worked.
    assert!(life.grant(&account).await.keeps_previous);
    life.broker.worked(&second).await.unwrap();
    let grant = life.grant(&account).await;
    assert!(grant.worked && !grant.keeps_previous);
    let head = life.journal.head();
    life.broker.worked(&second).await.unwrap();
    life.broker.worked(&first).await.unwrap();
    assert_eq!(life.journal.head(), head, "it is noted once, and of the newest alone");
    world.nothing_is_lost(&life).await;
    // And it is the newest after a restart.
    life.end().await;
    let life = world.live();
    assert_eq!(life.token(&account).await.unwrap().generation().0, 2);
    assert_eq!(world.counters().refreshes, 1);
}

#[tokio::test]
async fn what_a_refresh_leaves_out_is_inherited() {
    let world = Setup::new(STEADY).start().await;
    let life = world.live();
    world.adopted(&life, "alice", &holder("crm")).await;
    let account = world.account("alice");
    let first = life.token(&account).await.unwrap();
    world.lapse();
    world.sandbox.inject(Injection::new(Fault::OmitRefreshToken, On::Refresh));
    let second = life.token(&account).await.unwrap();
    assert_eq!(second.generation().0, 2);
    let token = |pair: &tokenwal::IssuedPair| pair.refresh_token().unwrap().reveal().to_owned();
    assert_eq!(token(&second), token(&first));
    assert_eq!(second.scopes(), first.scopes());
    world.lapse();
    assert_eq!(life.token(&account).await.unwrap().generation().0, 3);
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn a_rejected_token_invalidates_its_own_generation_alone() {
    let world = Setup::new(ROTATING).start().await;
    let life = world.live();
    world.adopted(&life, "alice", &holder("crm")).await;
    let account = world.account("alice");
    let first = life.token(&account).await.unwrap();
    // Ten requests meet the same 401: one refresh for all.
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (broker, first) = (life.broker.clone(), first.clone());
        tasks.spawn(async move { broker.rejected(&first).await.unwrap().generation().0 });
    }
    assert_eq!(tasks.join_all().await, [2; 10]);
    assert_eq!(world.counters().refreshes, 1);
    // A straggler's 401 is about a generation that is gone.
    let second = life.broker.rejected(&first).await.unwrap();
    assert_eq!((second.generation().0, world.counters().refreshes), (2, 1));
    let third = life.broker.rejected(&second).await.unwrap();
    assert_eq!((third.generation().0, world.counters().refreshes), (3, 2));
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn a_rejected_token_is_not_handed_out_while_no_other_can_be_had() {
    let world = Setup::new(STEADY).start().await;
    let life = world.live();
    world.adopted(&life, "alice", &holder("crm")).await;
    let account = world.account("alice");
    let pair = life.token(&account).await.unwrap();
    let busy = Fault::TooManyRequests { retry_after_s: 60 };
    world.sandbox.inject(Injection::new(busy, On::Refresh));
    let error = life.broker.rejected(&pair).await.unwrap_err();
    assert!(matches!(error, BrokerError::Refused { .. }), "{error}");
    let error = life.token(&account).await.unwrap_err();
    assert!(matches!(error, BrokerError::NotNow { asked: true, .. }), "{error}");
    world.pass(Duration::from_secs(61)).await;
    assert_eq!(life.token(&account).await.unwrap().generation().0, 2);
}

#[tokio::test]
async fn a_grant_that_is_revoked_is_over_on_both_sides() {
    let world = Setup::new(ROTATING).start().await;
    let mut life = world.live();
    let connected = world.adopted(&life, "alice", &holder("crm")).await;
    let account = world.account("alice");
    let pair = life.token(&account).await.unwrap();
    life.heard();
    life.broker.revoke(&account, connected.grant).await.unwrap();
    assert_eq!(life.heard(), ["ended"]);
    assert!(!world.is_alive(pair.refresh_token()) && !world.works(&pair).await);
    let grant = life.grant(&account).await;
    assert_eq!((grant.state, grant.end.unwrap().cause), (GrantState::Ended, Cause::RevokedByUs));
    let error = life.token(&account).await.unwrap_err();
    assert!(matches!(error, BrokerError::NeedsAuthorization { .. }), "{error}");
    assert_eq!(error.remedy(), Remedy::Operator);
    let health = life.broker.health(&account).await.unwrap();
    assert_eq!((health.status, health.usage.live), (Status::NeedsAuthorization, 0));
    assert_eq!(world.counters().revocations, 1);
}

#[tokio::test]
async fn what_is_in_use_is_refreshed_ahead_of_its_expiry() {
    // Half of its lifetime at most: between one and two seconds from its issue.
    let world =
        Setup::new(ROTATING).sandbox(|sandbox| sandbox.access_lifetime(Duration::from_secs(3)));
    let world = world.start().await;
    let mut life = world.live();
    world.adopted(&life, "alice", &holder("crm")).await;
    world.adopted(&life, "bob", &holder("erp")).await;
    let pair = life.token(&world.account("alice")).await.unwrap();
    assert_eq!(world.counters().refreshes, 0);
    until("a refresh that nobody asked for", async || world.counters().refreshes > 0).await;
    let kind = |event: &tokenwal::broker::Event| {
        matches!(event, tokenwal::broker::Event::Refreshed { .. })
    };
    life.hear(kind).await;
    assert!(world.clock_ms() < pair.expires_at_ms().unwrap(), "it was too late");
    let newer = life.token(&world.account("alice")).await.unwrap();
    assert!(newer.generation() > pair.generation());
    let unused = life.grant(&world.account("bob")).await;
    assert_eq!(unused.generation.0, 1, "nobody uses it");
    world.nothing_is_lost(&life).await;
    life.end().await;
}

#[tokio::test]
async fn an_assumed_expiry_never_reports_death() {
    // Salesforce's own answers have no expires_in. This app's lifetime was only told to us, which
    // goes before what is usual.
    let silent = STEADY.replace("from = \"declared\"", "from = \"assumed\"");
    let setup = Setup::new(&silent)
        .config(|config| config.assumed_lifetime(Duration::from_secs(600)))
        .sandbox(|sandbox| sandbox.access_lifetime(Duration::from_secs(100_000)));
    let world = setup.start().await;
    let life = world.live();
    world.adopted(&life, "alice", &holder("crm")).await;
    let account = world.account("alice");
    let pair = life.token(&account).await.unwrap();
    assert_eq!(pair.expiry_source(), Some(tokenwal::ExpirySource::Assumed));
    world.clock.advance(Duration::from_secs(601));
    // The provider cannot be asked now, and the token may work on: it does.
    let busy = Fault::TooManyRequests { retry_after_s: 60 };
    world.sandbox.inject(Injection::new(busy, On::Refresh));
    let same = life.token(&account).await.unwrap();
    assert_eq!(same.generation(), pair.generation());
    assert!(world.works(&same).await);
    let health = life.broker.health(&account).await.unwrap();
    assert_ne!(health.status, Status::NeedsAuthorization);
    world.pass(Duration::from_secs(61)).await;
    assert_eq!(life.token(&account).await.unwrap().generation().0, 2);
}

#[tokio::test]
async fn an_import_calls_nobody_and_is_paused_until_it_is_activated() {
    let world = Setup::new(ROTATING).start().await;
    let life = world.live();
    // A pair that another system obtained, as its database has it.
    let other = world.live_elsewhere();
    let theirs = world.adopted(&other, "alice", &holder("crm")).await;
    let pair = other.journal.current_of(theirs.account, theirs.grant).await.unwrap().unwrap();
    let account = world.account("alice");
    let import = || {
        let body = serde_json::json!({
            "access_token": pair.access_token().reveal(),
            "refresh_token": pair.refresh_token().unwrap().reveal(),
            "scope": "api refresh_token",
            "expires_in": 60,
        });
        let now_ms = world.clock_ms();
        let response = TokenResponse::parse(body.to_string().into_bytes(), now_ms).unwrap();
        Import::new(&account, response).holder(&holder("crm")).scopes(["api"])
    };
    let imported = life.broker.import(import()).await.unwrap();
    assert!(!imported.already && life.broker.import(import()).await.unwrap().already);
    let before = world.counters();
    assert!(world.works(&life.token(&account).await.unwrap()).await, "it is handed out as it is");
    world.lapse();
    let error = life.token(&account).await.unwrap_err();
    assert!(matches!(error, BrokerError::Paused { .. }), "{error}");
    let error = life.broker.revoke(&account, imported.grant).await.unwrap_err();
    assert!(matches!(error, BrokerError::Paused { .. }), "{error}");
    assert_eq!(world.counters(), before, "nobody was called");
    life.broker.activate(&account, imported.grant).await.unwrap();
    let refreshed = life.token(&account).await.unwrap();
    assert_eq!(refreshed.generation().0, 2);
    assert!(world.works(&refreshed).await);
    assert_eq!(world.sandbox.state().users[0].approvals[0].state, ApprovalState::Live);
}
