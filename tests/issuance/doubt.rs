//! What a person decides, and what doubt never keeps from anybody.

use super::world::{ROTATING, STEADY, Setup, holder};
use std::time::Duration;
use tokenwal::broker::{BrokerError, Choice, Event, Status, Why};
use tokenwal::sandbox::{ApprovalState, Fault, Injection, On};
use tokenwal::{OpId, ResolvedHow, Secret};

#[tokio::test]
async fn in_doubt_never_blocks_a_valid_token() {
    let world = Setup::new(ROTATING).start().await;
    let life = world.live();
    let connected = world.adopted(&life, "alice", &holder("crm")).await;
    let account = world.account("alice");
    world.sandbox.inject(Injection::new(Fault::DropBeforeCommit, On::Refresh));
    let error = life.broker.refresh(&account, connected.grant).await.unwrap_err();
    assert!(matches!(error, BrokerError::InDoubt { .. }), "{error}");
    let health = life.broker.health(&account).await.unwrap();
    assert_eq!((health.status, health.usage.in_doubt), (Status::Ok, 1));
    let pair = life.token(&account).await.unwrap();
    assert!(pair.generation().0 == 1 && world.works(&pair).await);
    // Nor for longer than it is valid: what works is better than nothing.
    let day = Duration::from_secs(86_400);
    let pair = life.broker.access_token(&account, &["api"], day).await.unwrap();
    assert!(world.works(&pair).await);
    // Nor after a restart.
    life.end().await;
    let life = world.live();
    assert!(world.works(&life.token(&account).await.unwrap()).await);
    // Nor does it keep the user from approving again.
    let again = world.connect(&life, "alice", &holder("crm")).await.unwrap();
    assert_ne!(again.grant, connected.grant);
    assert_eq!(world.counters().refreshes, 0);
    world.nothing_is_lost(&life).await;
}

/// Leaves an exchange in doubt that the provider has carried out.
async fn lost_exchange(world: &super::world::World, life: &super::world::Life) -> (String, OpId) {
    world.sandbox.inject(Injection::new(Fault::DropAfterCommit, On::Exchange));
    let asked = world.asks(&holder("crm")).user(&world.sandbox.user("alice").unwrap());
    let (query, cookie) = world.click(life, &asked, "alice").await;
    let error = life.broker.callback(&query, &cookie).await.unwrap_err();
    let BrokerError::InDoubt { op, .. } = error else { panic!("{error}") };
    let code = query.split('&').find_map(|pair| pair.strip_prefix("code=")).unwrap();
    (code.to_owned(), op)
}

#[tokio::test]
async fn a_lost_exchange_counts_until_somebody_decides() {
    let world = Setup::new(STEADY).start().await;
    let mut life = world.live();
    let account = world.account("alice");
    let (_, op) = lost_exchange(&world, &life).await;
    let error = life.broker.resolve(&account, op, Choice::ByTheRules).await.unwrap_err();
    assert!(matches!(error, BrokerError::InDoubt { why: Some(Why::CodeOnce), .. }), "{error}");
    let error = life.broker.resolve(&account, op, Choice::Resend).await.unwrap_err();
    assert!(matches!(error, BrokerError::Choice { .. }), "{error}");
    let error = life.broker.resolve(&account, OpId(op.0 + 1), Choice::Waive).await.unwrap_err();
    assert!(matches!(error, BrokerError::Choice { .. }), "{error}");
    assert_eq!(life.broker.health(&account).await.unwrap().usage.live, 1);
    life.heard();
    life.broker.resolve(&account, op, Choice::Waive).await.unwrap();
    let event = life.hear(|event| matches!(event, Event::Resolved { .. })).await;
    assert!(matches!(event, Event::Resolved { how: ResolvedHow::Waived, .. }), "{event:?}");
    // Nothing else was known of this user.
    let error = life.broker.health(&account).await.unwrap_err();
    assert!(matches!(error, BrokerError::UnknownAccount { .. }), "{error}");
    assert_eq!((world.counters().exchanges, world.counters().refused), (1, 0));
}

#[tokio::test]
async fn a_code_is_burnt_only_where_that_is_verified() {
    let burns = format!(
        "{STEADY}\n[code_reuse_revokes]\nvalue = true\nstatus = \"verified\"\n\
         source = \"a test\"\non = \"2026-01-01\"\n"
    );
    for (profile, allowed) in [(burns.as_str(), true), (STEADY, false)] {
        let setup = Setup::new(profile).sandbox(|sandbox| sandbox.code_reuse_revokes(true));
        let world = setup.start().await;
        let life = world.live();
        let account = world.account("alice");
        let (code, op) = lost_exchange(&world, &life).await;
        let other = Choice::Burn(Secret::new("another code".to_owned()));
        assert!(life.broker.resolve(&account, op, other).await.is_err());
        assert_eq!(world.counters().refused, 0, "another code is not presented");
        let burnt = life.broker.resolve(&account, op, Choice::Burn(Secret::new(code))).await;
        let state = world.sandbox.state();
        let approval = &state.users[0].approvals[0];
        if allowed {
            burnt.unwrap();
            assert_eq!(approval.state, ApprovalState::CodeReused);
            assert!(life.journal.account(&account).await.unwrap().is_none());
        } else {
            assert!(matches!(burnt, Err(BrokerError::Choice { .. })), "{burnt:?}");
            assert_eq!(approval.state, ApprovalState::Live);
        }
        assert_eq!(state.counters.code_reuses, u64::from(allowed));
    }
}

#[tokio::test]
async fn a_resend_on_somebodys_word_is_done_once_and_told() {
    let world = Setup::hasty(ROTATING).start().await;
    let mut life = world.live();
    world.adopted(&life, "alice", &holder("crm")).await;
    let account = world.account("alice");
    world.lapse();
    world.sandbox.inject(Injection::new(Fault::DropAfterCommit, On::Refresh));
    life.token(&account).await.unwrap_err();
    let asked = life.hear(|event| matches!(event, Event::Ask { .. })).await;
    let Event::Ask { op, .. } = asked else { panic!("{asked:?}") };
    // The person says so, against what the provider said; the sandbox punishes it as told.
    let error = life.broker.resolve(&account, op, Choice::Resend).await.unwrap_err();
    assert!(matches!(&error, BrokerError::Refused { .. }), "{error}");
    assert_eq!(world.counters().reuses, 1);
    let end = life.grant(&account).await.end.expect("the provider said that it is over");
    assert_eq!(end.cause, tokenwal::Cause::Reuse);
    let health = life.broker.health(&account).await.unwrap();
    assert_eq!(health.status, Status::NeedsAuthorization);
}

#[tokio::test]
async fn a_provider_is_probed_once_and_a_person_is_asked_once() {
    let world = Setup::hasty(ROTATING).start().await;
    let mut life = world.live();
    world.adopted(&life, "alice", &holder("crm")).await;
    let account = world.account("alice");
    world.lapse();
    world.sandbox.inject(Injection::new(Fault::DropAfterCommit, On::Refresh));
    life.token(&account).await.unwrap_err();
    let asked = life.hear(|event| matches!(event, Event::Ask { .. })).await;
    let Event::Ask { op, .. } = asked else { panic!("{asked:?}") };
    for _ in 0..20 {
        let error = life.token(&account).await.unwrap_err();
        assert!(matches!(error, BrokerError::InDoubt { .. }), "{error}");
        life.broker.steps(&account).await.unwrap();
    }
    // Whatever those callers started has come to its end.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.counters().introspections, 1);
    assert!(!life.heard().contains(&"ask".to_owned()));
    // A person who asks is one more.
    let error = life.broker.resolve(&account, op, Choice::ByTheRules).await.unwrap_err();
    assert!(matches!(error, BrokerError::InDoubt { why: Some(Why::Spent), .. }), "{error}");
    assert_eq!(world.counters().introspections, 2);
}
