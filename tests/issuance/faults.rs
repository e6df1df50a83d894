//! Each fault of the sandbox, at each kind of call: what the caller hears, what the ledger holds, how
//! the account is shown, what the provider was asked.

use super::world::{Life, ROTATING, STEADY, Setup, World, holder, until};
use std::time::Duration;
use tokenwal::broker::{BrokerError, Event, Status, Why};
use tokenwal::sandbox::{Fault, FaultError, Injection, On};
use tokenwal::{Action, Cause, Confidence, DoubtReason, RefusalClass};

/// What a fault comes to, in a word for the caller and the reason in the ledger.
fn told(error: &BrokerError) -> String {
    match error {
        BrokerError::InDoubt { .. } => "in doubt".to_owned(),
        BrokerError::Refused { refusal, .. } => format!("refused {:?}", refusal.class()),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn an_exchange_that_goes_wrong() {
    let lost = Some(DoubtReason::ConnectionLost);
    let server = Some(DoubtReason::ServerError);
    for (fault, expected, reason, committed) in [
        (Fault::DropBeforeCommit, "in doubt", lost, false),
        (Fault::DropAfterCommit, "in doubt", lost, true),
        (Fault::DelayBeforeCommit(LATE), "in doubt", Some(DoubtReason::Timeout), true),
        (Fault::DelayAfterCommit(LATE), "in doubt", Some(DoubtReason::Timeout), true),
        (Fault::StatusBeforeCommit(500), "in doubt", server, false),
        (Fault::StatusAfterCommit(502), "in doubt", server, true),
        (Fault::TruncateBody(40), "in doubt", lost, true),
        (Fault::TooManyRequests { retry_after_s: 7 }, "refused Retry", None, false),
        (refuse(FaultError::WrongSecret, 401), "refused OwnFault", None, false),
        (refuse(FaultError::ServerError, 200), "in doubt", server, false),
        (
            Fault::RefuseAfterCommit { error: FaultError::ServerError, status: 200 },
            "in doubt",
            server,
            true,
        ),
    ] {
        let world = Setup::hasty(STEADY).start().await;
        let mut life = world.live();
        world.sandbox.inject(Injection::new(fault, On::Exchange));
        let error = world.connect(&life, "alice", &holder("crm")).await.unwrap_err();
        assert_eq!(told(&error), expected, "{fault:?}");
        let committed = u64::from(committed);
        until("the sandbox does it", async || world.counters().exchanges == committed).await;
        let view = life.journal.account(&world.account("alice")).await.unwrap();
        let open = view.map(|view| view.in_doubt).unwrap_or_default();
        let doubts: Vec<_> = open.iter().map(|open| (open.action, open.doubt)).collect();
        match reason {
            Some(_) => {
                assert_eq!(doubts, [(Action::Exchange, reason)], "{fault:?}");
                assert_eq!(life.heard(), ["in_doubt"], "{fault:?}");
                let health = life.broker.health(&world.account("alice")).await.unwrap();
                assert_eq!((health.usage.live, health.usage.in_doubt), (1, 1), "{fault:?}");
                assert_eq!(health.waiting, [(open[0].op, Why::CodeOnce)], "{fault:?}");
            }
            None => assert!(doubts.is_empty(), "{fault:?}: {doubts:?}"),
        }
        world.nothing_is_lost(&life).await;
        // Whatever it was, the user can approve again.
        world.pass(Duration::from_secs(10)).await;
        world.connect(&life, "alice", &holder("crm")).await.unwrap();
        world.nothing_is_lost(&life).await;
    }
}

/// Later than the deadline of a hasty service, and before its margin has passed.
const LATE: Duration = Duration::from_millis(900);

fn refuse(error: FaultError, status: u16) -> Fault {
    Fault::Refuse { error, status }
}

/// A user with a token that has lapsed, and one fault waiting for its refresh.
async fn lapsed(profile: &str, fault: Fault) -> (World, Life) {
    let world = Setup::hasty(profile).start().await;
    let mut life = world.live();
    world.adopted(&life, "alice", &holder("crm")).await;
    world.lapse();
    life.heard();
    world.sandbox.inject(Injection::new(fault, On::Refresh));
    (world, life)
}

#[tokio::test]
async fn a_rotation_that_was_lost_is_asked_about_and_never_repeated() {
    let late = DoubtReason::Timeout;
    for (fault, reason) in [
        (Fault::DropAfterCommit, DoubtReason::ConnectionLost),
        (Fault::StatusAfterCommit(500), DoubtReason::ServerError),
        (Fault::TruncateBody(40), DoubtReason::ConnectionLost),
        (Fault::DelayBeforeCommit(LATE), late),
        (Fault::DelayAfterCommit(LATE), late),
        (
            Fault::RefuseAfterCommit { error: FaultError::ServerError, status: 200 },
            DoubtReason::ServerError,
        ),
    ] {
        let (world, mut life) = lapsed(ROTATING, fault).await;
        let account = world.account("alice");
        let error = life.token(&account).await.unwrap_err();
        assert_eq!(told(&error), "in doubt", "{fault:?}");
        let view = life.view(&account).await;
        let open: Vec<_> = view.in_doubt.iter().map(|open| (open.action, open.doubt)).collect();
        assert_eq!(open, [(Action::Refresh, Some(reason))], "{fault:?}");
        let op = view.in_doubt[0].op;
        let health = life.broker.health(&account).await.unwrap();
        assert_eq!((health.status, health.usage.live), (Status::InDoubt, 1), "{fault:?}");
        // After the deadline and the margin the provider is asked about the token, which kills
        // nothing; it is spent, and a person has to decide.
        let is_ask = |event: &Event| matches!(event, Event::Ask { .. });
        let asked = life.hear(is_ask).await;
        let Event::Ask { why, op: of, .. } = asked else { panic!("{asked:?}") };
        assert_eq!((why, of), (Why::Spent, op), "{fault:?}");
        let counters = world.counters();
        assert_eq!((counters.refreshes, counters.introspections), (1, 1), "{fault:?}");
        let health = life.broker.health(&account).await.unwrap();
        assert_eq!(health.waiting, [(op, Why::Spent)], "{fault:?}");
        // However often somebody wants a token, nothing is presented again.
        for _ in 0..3 {
            let error = life.token(&account).await.unwrap_err();
            assert_eq!(told(&error), "in doubt", "{fault:?}");
        }
        world.nothing_is_lost(&life).await;
        life.end().await;
    }
}

#[tokio::test]
async fn a_rotation_that_never_happened_is_asked_about_and_sent_again() {
    for fault in [Fault::DropBeforeCommit, Fault::StatusBeforeCommit(500)] {
        let (world, mut life) = lapsed(ROTATING, fault).await;
        let account = world.account("alice");
        assert_eq!(told(&life.token(&account).await.unwrap_err()), "in doubt", "{fault:?}");
        life.hear(|event| matches!(event, Event::Resolved { .. })).await;
        assert!(life.view(&account).await.in_doubt.is_empty(), "{fault:?}");
        let pair = life.token(&account).await.unwrap();
        assert_eq!(pair.generation().0, 2, "{fault:?}");
        let counters = world.counters();
        assert_eq!((counters.refreshes, counters.introspections), (1, 1), "{fault:?}");
        world.nothing_is_lost(&life).await;
        life.end().await;
    }
}

#[tokio::test]
async fn without_rotation_the_same_token_is_sent_again_at_once() {
    for fault in [
        Fault::DropBeforeCommit,
        Fault::DropAfterCommit,
        Fault::StatusBeforeCommit(500),
        Fault::StatusAfterCommit(500),
        Fault::TruncateBody(40),
        Fault::DelayAfterCommit(LATE),
    ] {
        let (world, life) = lapsed(STEADY, fault).await;
        let account = world.account("alice");
        // Who waits for it need not ask again.
        let pair = life.token(&account).await.unwrap();
        assert!(pair.generation().0 == 2 && world.works(&pair).await, "{fault:?}");
        assert!(life.view(&account).await.in_doubt.is_empty(), "{fault:?}");
        assert_eq!(world.counters().introspections, 0, "{fault:?}");
        world.nothing_is_lost(&life).await;
        life.end().await;
    }
}

#[tokio::test]
async fn a_collision_with_our_own_lost_request_is_in_doubt() {
    // The first try is at work when its caller gives up; a resend would meet it.
    let (world, mut life) = lapsed(ROTATING, Fault::DelayBeforeCommit(LATE)).await;
    let account = world.account("alice");
    world.sandbox.inject(Injection::new(refuse(FaultError::Busy, 400), On::Refresh).nth(2));
    assert_eq!(told(&life.token(&account).await.unwrap_err()), "in doubt");
    life.hear(|event| matches!(event, Event::Ask { .. })).await;
    assert_eq!((world.counters().collisions, world.counters().refreshes), (0, 1));
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn what_is_refused_suspends_and_ends_nothing() {
    for (fault, class, heard) in [
        (refuse(FaultError::Suspended, 400), RefusalClass::Suspended, &["suspended"][..]),
        (refuse(FaultError::WrongSecret, 400), RefusalClass::OwnFault, &[]),
        (Fault::TooManyRequests { retry_after_s: 1 }, RefusalClass::Retry, &[]),
        (Fault::Unavailable { retry_after_s: 1 }, RefusalClass::Retry, &[]),
    ] {
        let (world, mut life) = lapsed(ROTATING, fault).await;
        let account = world.account("alice");
        let error = life.token(&account).await.unwrap_err();
        assert_eq!(told(&error), format!("refused {class:?}"), "{fault:?}");
        assert_eq!(life.heard(), heard, "{fault:?}");
        let health = life.broker.health(&account).await.unwrap();
        assert_eq!(health.status, Status::Suspended, "{fault:?}");
        assert_eq!(health.refusal.unwrap().class, class, "{fault:?}");
        let grant = life.grant(&account).await;
        assert!(grant.end.is_none() && grant.generation.0 == 1, "{fault:?}");
        // The cause is mended elsewhere, and all is as before.
        world.pass(Duration::from_secs(2)).await;
        assert_eq!(life.token(&account).await.unwrap().generation().0, 2, "{fault:?}");
        let health = life.broker.health(&account).await.unwrap();
        assert_eq!((health.status, health.refusal), (Status::Ok, None), "{fault:?}");
        world.nothing_is_lost(&life).await;
    }
}

#[tokio::test]
async fn an_error_under_200_is_an_error() {
    for (error, expected) in [
        (FaultError::Suspended, "refused Suspended"),
        (FaultError::WrongSecret, "refused OwnFault"),
        (FaultError::ServerError, "in doubt"),
    ] {
        let (world, life) = lapsed(ROTATING, refuse(error, 200)).await;
        let error = life.token(&world.account("alice")).await.unwrap_err();
        assert_eq!(told(&error), expected);
        assert!(life.grant(&world.account("alice")).await.end.is_none());
        world.nothing_is_lost(&life).await;
    }
}

#[tokio::test]
async fn a_death_is_noted_with_its_probable_cause() {
    let (world, mut life) = lapsed(ROTATING, Fault::DelayBeforeCommit(Duration::ZERO)).await;
    let account = world.account("alice");
    world.sandbox.with_model(|model| model.end_outside(1, 0));
    let error = life.token(&account).await.unwrap_err();
    assert_eq!(told(&error), "refused Dead");
    assert_eq!(error.remedy(), tokenwal::Remedy::Operator);
    assert_eq!(life.heard(), ["ended"]);
    let end = life.grant(&account).await.end.unwrap();
    assert_eq!((end.cause, end.confidence), (Cause::RevokedElsewhere, Confidence::Guessed));
    let health = life.broker.health(&account).await.unwrap();
    assert_eq!(health.status, Status::NeedsAuthorization);
    assert_eq!(world.counters().refused, 1);
    // Nobody asks the provider about the dead again.
    life.token(&account).await.unwrap_err();
    assert_eq!(world.counters().refused, 1);
}

#[tokio::test]
async fn a_revocation_that_went_wrong_is_done_again() {
    for (fault, reason) in [
        (Fault::DropBeforeCommit, "in doubt"),
        (Fault::DropAfterCommit, "in doubt"),
        (Fault::StatusAfterCommit(500), "in doubt"),
        (Fault::TooManyRequests { retry_after_s: 1 }, "refused Retry"),
    ] {
        let world = Setup::hasty(ROTATING).start().await;
        let life = world.live();
        let connected = world.adopted(&life, "alice", &holder("crm")).await;
        let account = world.account("alice");
        let pair = life.token(&account).await.unwrap();
        world.sandbox.inject(Injection::new(fault, On::Revoke));
        let error = life.broker.revoke(&account, connected.grant).await.unwrap_err();
        assert_eq!(told(&error), reason, "{fault:?}");
        if reason == "in doubt" {
            until("it is revoked again", async || {
                let view = life.view(&account).await;
                view.in_doubt.is_empty() && view.grants[0].end.is_some()
            })
            .await;
        } else {
            assert!(life.grant(&account).await.end.is_none());
            world.pass(Duration::from_secs(2)).await;
            life.broker.revoke(&account, connected.grant).await.unwrap();
        }
        assert!(!world.is_alive(pair.refresh_token()), "{fault:?}");
        life.end().await;
    }
}
