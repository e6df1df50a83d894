//! What may begin, and beside what: decided in one step with the intent.

use crate::assert_err;
use crate::harness::Harness;
use crate::words::*;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokenwal::ledger::{Change, Ledger};
use tokenwal::{
    AccountTag, Action, Begin, Cap, CapCounts, Cause, Confidence, Error, GrantId, Lsn, OpId,
    RefusalClass, ResolvedHow, Secret, Settled,
};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

const AT_ONCE: usize = 16;

pub async fn one_operation_at_a_time_changes_a_grant<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = issue(ledger, "u", "a1", "r1").await;
    let (account, id) = (pair.account(), pair.grant());
    let ticket = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    assert_eq!(ticket.fence(), Lsn(ticket.op().0));
    assert_eq!(ticket.grant(), Some(id));
    assert_eq!(of(ticket.current().unwrap()), texts("a1", "r1"));
    let op = ticket.op();
    for begin in [Begin::refresh(account, id), Begin::revoke(account, id)] {
        assert_err!(ledger.begin(begin).await, Error::Busy { op: busy, .. } if busy == op);
    }
    let next = settle_pair(ledger, ticket, issued("a2", "r2")).await;
    assert_eq!(next.generation().0, 2);
    let revoke = ledger.begin(Begin::revoke(account, id)).await.unwrap();
    assert_err!(ledger.begin(Begin::refresh(account, id)).await, Error::Busy { .. });
    let settled = ledger.settle(revoke, tokenwal::Outcome::Revoked).await.unwrap();
    assert!(matches!(settled.into_settled(), Settled::Revoked));
    assert_err!(ledger.begin(Begin::refresh(account, id)).await, Error::GrantEnded { .. });
}

pub async fn to_ask_disturbs_nothing<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = issue(ledger, "u", "a1", "r1").await;
    let (account, id) = (pair.account(), pair.grant());
    let asking = ledger.begin(Begin::introspect(account, id)).await.unwrap();
    let refresh = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    let again = ledger.begin(Begin::introspect(account, id)).await.unwrap();
    for ticket in [asking, again] {
        let settled = ledger.settle(ticket, tokenwal::Outcome::Answered).await.unwrap();
        assert!(matches!(settled.into_settled(), Settled::Answered));
    }
    settle_pair(ledger, refresh, issued("a2", "r2")).await;
    assert!(view(ledger, account).await.in_doubt.is_empty());
}

pub async fn grants_do_not_wait_for_one_another<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let one = issue(ledger, "u", "a1", "r1").await;
    let other = issue(ledger, "u", "b1", "s1").await;
    let account = one.account();
    assert_ne!(one.grant(), other.grant());
    let first = ledger.begin(Begin::refresh(account, one.grant())).await.unwrap();
    let second = ledger.begin(Begin::refresh(account, other.grant())).await.unwrap();
    // An exchange, in doubt or not, blocks no refresh, and no other exchange.
    let exchange = || Begin::exchange(&app()).user(&user("u"));
    let lost = ledger.begin(exchange()).await.unwrap();
    ledger.settle(lost, doubt()).await.unwrap();
    let third = ledger.begin(exchange()).await.unwrap();
    settle_pair(ledger, second, issued("b2", "s2")).await;
    settle_pair(ledger, first, issued("a2", "r2")).await;
    settle_pair(ledger, third, issued("c1", "t1")).await;
    assert_eq!(tokens(ledger, account, one.grant()).await, texts("a2", "r2"));
    assert_eq!(tokens(ledger, account, other.grant()).await, texts("b2", "s2"));
    assert_eq!(view(ledger, account).await.grants.len(), 3);
}

pub async fn an_account_that_was_seen_at_another_version_is_a_conflict<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let first = Begin::exchange(&app()).user(&user("u")).expecting(Lsn::NONE);
    let ticket = ledger.begin(first.clone()).await.unwrap();
    let seen = ticket.version();
    assert_err!(
        ledger.begin(first).await,
        Error::Conflict { expected: Lsn::NONE, found, .. } if found == seen
    );
    let pair = settle_pair(ledger, ticket, issued("a1", "r1")).await;
    let version = view(ledger, pair.account()).await.lsn;
    assert!(version > seen);
    let refresh = |version| Begin::refresh(pair.account(), pair.grant()).expecting(version);
    assert_err!(ledger.begin(refresh(seen)).await, Error::Conflict { .. });
    // Another account's changes are none of its own.
    issue(ledger, "other", "b1", "s1").await;
    let ticket = ledger.begin(refresh(version)).await.unwrap();
    assert_eq!(view(ledger, pair.account()).await.lsn, ticket.version());
}

pub async fn what_is_not_there_cannot_be_asked_of<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let nowhere = tag(ledger, "nobody");
    let missing = GrantId(77);
    for account in [nowhere, issue(ledger, "u", "a1", "r1").await.account()] {
        for begin in [
            Begin::refresh(account, missing),
            Begin::revoke(account, missing),
            Begin::introspect(account, missing),
        ] {
            assert_err!(
                ledger.begin(begin).await,
                Error::UnknownGrant { grant, .. } if grant == missing
            );
        }
        assert_err!(ledger.resume(account, OpId(77)).await, Error::UnknownOperation { .. });
        assert!(ledger.pair(account, missing).await.unwrap().is_none());
    }
    assert!(ledger.account(nowhere).await.unwrap().is_none());
}

pub async fn a_deadline_that_has_passed_is_no_permission<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = issue(ledger, "u", "a1", "r1").await;
    let (account, id) = (pair.account(), pair.grant());
    let begin = Begin::refresh(account, id).deadline(Duration::from_secs(5));
    let ticket = ledger.begin(begin.clone()).await.unwrap();
    store.advance(Duration::from_secs(40 * 24 * 3600));
    assert_err!(ledger.begin(begin.clone()).await, Error::Busy { .. });
    let resending = begin.resending(ticket.op());
    assert_err!(ledger.begin(resending).await, Error::Busy { .. });
    ledger.prune().await.unwrap();
    assert_eq!(view(ledger, account).await.in_doubt[0].op, ticket.op());
    // And it is not too late for the answer.
    let next = settle_pair(ledger, ticket, issued("a2", "r2")).await;
    assert_eq!((next.grant(), next.generation().0), (id, 2));
}

pub async fn an_opening_is_no_permission<H: Harness>(store: &mut H) {
    let pair = issue(store.ledger(), "u", "a1", "r1").await;
    let begin = Begin::refresh(pair.account(), pair.grant());
    let ticket = store.ledger().begin(begin.clone()).await.unwrap();
    store.restart().await;
    store.advance(Duration::from_secs(40 * 24 * 3600));
    assert_err!(store.ledger().begin(begin).await, Error::Busy { .. });
    // Whoever began it may still have heard the answer.
    let next = settle_pair(store.ledger(), ticket, issued("a2", "r2")).await;
    assert_eq!((next.grant(), next.generation().0), (pair.grant(), 2));
}

pub async fn a_doubt_is_no_permission<H: Harness>(store: &mut H) {
    let pair = issue(store.ledger(), "u", "a1", "r1").await;
    let op = lose_refresh(store.ledger(), &pair).await;
    for _ in 0..2 {
        let ledger = store.ledger();
        let begin = Begin::refresh(pair.account(), pair.grant());
        assert_err!(ledger.begin(begin).await, Error::Busy { op: busy, .. } if busy == op);
        store.advance(Duration::from_secs(40 * 24 * 3600));
        ledger.prune().await.unwrap();
        store.restart().await;
    }
    let ledger = store.ledger();
    let resolve = Change::Resolve { op, how: ResolvedHow::NotIssued };
    ledger.change(pair.account(), resolve).await.unwrap();
    ledger.begin(Begin::refresh(pair.account(), pair.grant())).await.unwrap();
}

pub async fn what_is_in_doubt_may_be_resent_beside<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = issue(ledger, "u", "a1", "r1").await;
    let (account, id) = (pair.account(), pair.grant());
    let op = lose_refresh(ledger, &pair).await;
    let again = || Begin::refresh(account, id).resending(op);
    let unknown = Begin::refresh(account, id).resending(OpId(op.0 + 1000));
    assert_err!(ledger.begin(unknown).await, Error::UnknownOperation { .. });
    assert_err!(ledger.begin(Begin::exchange(&app()).resending(op)).await, Error::Option { .. });
    let ticket = ledger.begin(again()).await.unwrap();
    let second = ticket.op();
    assert_err!(ledger.begin(again()).await, Error::Busy { op: busy, .. } if busy == second);
    settle_pair(ledger, ticket, issued("a2", "r2")).await;
    // Nothing was resolved by it.
    assert_eq!(view(ledger, account).await.in_doubt[0].op, op);
    assert_err!(ledger.begin(Begin::refresh(account, id)).await, Error::Busy { .. });
}

pub async fn what_was_left_behind_may_be_resent_beside<H: Harness>(store: &mut H) {
    let pair = issue(store.ledger(), "u", "a1", "r1").await;
    let begin = Begin::refresh(pair.account(), pair.grant());
    let op = store.ledger().begin(begin.clone()).await.unwrap().op();
    let resending = begin.clone().resending(op);
    assert_err!(store.ledger().begin(resending.clone()).await, Error::Busy { .. });
    store.restart().await;
    assert_err!(store.ledger().begin(begin).await, Error::Busy { .. });
    let ticket = store.ledger().begin(resending).await.unwrap();
    settle_pair(store.ledger(), ticket, issued("a2", "r2")).await;
}

pub async fn of_concurrent_begins_exactly_as_many_as_the_cap_lets_through<H: Harness>(
    store: &mut H,
) {
    let cap = Cap { limit: 5, outside: 1, counts: CapCounts::Grants };
    let pair = issue(store.ledger(), "u", "a1", "r1").await;
    let begin = Begin::exchange(&app()).user(&user("u")).cap(cap);
    let (through, reached) = at_once(
        store.ledger(),
        |_| begin.clone(),
        |error| matches!(error, Error::CapReached { live: 5, limit: 5, .. }),
    )
    .await;
    // One outside, one that lives already.
    assert_eq!((through.len(), reached), (3, AT_ONCE - 3));
    assert_eq!(view(store.ledger(), pair.account()).await.live(CapCounts::Grants), 4);
}

/// Begins many at once; returns the operations that got through, and how many were refused.
async fn at_once<L: Ledger>(
    ledger: &L,
    begin: impl Fn(usize) -> Begin,
    is_expected: fn(&Error) -> bool,
) -> (HashSet<OpId>, usize) {
    let barrier = Arc::new(Barrier::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for number in 0..AT_ONCE {
        let (ledger, begin, barrier) = (ledger.clone(), begin(number), barrier.clone());
        tasks.spawn(async move {
            barrier.wait().await;
            ledger.begin(begin).await
        });
    }
    let (mut through, mut refused) = (HashSet::new(), 0);
    while let Some(begun) = tasks.join_next().await {
        match begun.unwrap() {
            Ok(ticket) => assert!(through.insert(ticket.op())),
            Err(error) if is_expected(&error) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    (through, refused)
}

pub async fn a_cap_counts_what_may_live<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let counts = CapCounts::RefreshTokens;
    let full = |live| {
        Begin::exchange(&app()).user(&user("u")).cap(Cap { limit: live, outside: 0, counts })
    };
    let is_live = async |live: u32| {
        assert_err!(
            ledger.begin(full(live)).await,
            Error::CapReached { live: found, limit, .. } if (found, limit) == (live, live)
        );
        let account = view(ledger, tag(ledger, "u")).await;
        assert_eq!(account.live(counts), live);
    };
    let one = issue(ledger, "u", "a1", "r1").await;
    issue(ledger, "u", "b1", "").await;
    is_live(1).await;
    // A refresh in doubt adds nothing, an exchange in doubt one, until it is resolved.
    lose_refresh(ledger, &one).await;
    is_live(1).await;
    let ticket = ledger.begin(full(2)).await.unwrap();
    let op = ticket.op();
    is_live(2).await;
    ledger.settle(ticket, doubt()).await.unwrap();
    is_live(2).await;
    let account = one.account();
    let resolve = Change::Resolve { op, how: ResolvedHow::Waived };
    ledger.change(account, resolve).await.unwrap();
    is_live(1).await;
    let (cause, confidence) = (Cause::Operator, Confidence::Certain);
    let end = Change::End { grant: one.grant(), cause, confidence };
    ledger.change(account, end).await.unwrap();
    ledger.begin(full(1)).await.unwrap();
    // Of a user who is not known nothing can be counted.
    let blind = Cap { limit: 0, outside: 9, counts };
    ledger.begin(Begin::exchange(&app()).cap(blind)).await.unwrap();
}

pub async fn of_concurrent_callbacks_exactly_one_gets_through<H: Harness>(store: &mut H) {
    let since = store.ledger().head();
    for (number, is_known) in [(1, false), (2, true)] {
        let tag = AccountTag::from_bytes([number; 16]);
        let exchange = match is_known {
            true => Begin::exchange(&app()).user(&user("u")),
            false => Begin::exchange(&app()),
        };
        let begin = exchange.under(tag, since);
        let (through, used) = at_once(
            store.ledger(),
            |_| begin.clone(),
            |error| matches!(error, Error::CallbackUsed { .. }),
        )
        .await;
        assert_eq!((through.len(), used), (1, AT_ONCE - 1));
        let redeemed = store.ledger().redeemed(tag).await.unwrap().unwrap();
        assert!(through.contains(&redeemed.op));
    }
}

pub async fn a_tag_is_used_once<H: Harness>(store: &mut H) {
    let since = store.ledger().head();
    let under =
        |number: u8| Begin::exchange(&app()).under(AccountTag::from_bytes([number; 16]), since);
    let outcomes = [
        issued_to("u", "a1", "r1"),
        issued("b1", "s1"),
        doubt(),
        refused(RefusalClass::Retry),
        tokenwal::Outcome::NotSent(tokenwal::NotSent::Connect),
    ];
    for (number, outcome) in (1..).zip(outcomes) {
        let ticket = store.ledger().begin(under(number)).await.unwrap();
        assert_err!(store.ledger().begin(under(number)).await, Error::CallbackUsed { .. });
        store.ledger().settle(ticket, outcome).await.unwrap();
    }
    for _ in 0..2 {
        for number in 1..=5 {
            let again = store.ledger().begin(under(number)).await;
            assert_err!(again, Error::CallbackUsed { .. });
            // Nor does it matter who is said to have signed in.
            let known = under(number).user(&user("u"));
            assert_err!(store.ledger().begin(known).await, Error::CallbackUsed { .. });
        }
        store.restart().await;
    }
    let later = Lsn(store.ledger().head().0 + 1000);
    let begin = Begin::exchange(&app()).under(AccountTag::from_bytes([9; 16]), later);
    assert_err!(store.ledger().begin(begin).await, Error::BehindHead { .. });
}

pub async fn a_code_is_presented_under_one_tag<H: Harness>(store: &mut H) {
    let since = store.ledger().head();
    let code = |number: u8| Secret::new(format!("code-{number}"));
    let tag = |ledger: &H::Ledger, number: u8, click: &str| {
        let click = ledger.fingerprint(&Secret::new(click.into()));
        AccountTag::of_exchange(ledger.fingerprint(&code(number)), click)
    };
    let under = |tag, number: u8, is_known: bool| {
        let exchange = Begin::exchange(&app()).under(tag, since).presenting(&code(number));
        if is_known { exchange.user(&user("u")) } else { exchange }
    };
    for (number, is_known) in [(1, false), (2, true)] {
        let ledger = store.ledger();
        let first = tag(ledger, number, "first");
        let ticket = ledger.begin(under(first, number, is_known)).await.unwrap();
        let (account, op) = (ticket.account(), ticket.op());
        ledger.settle(ticket, doubt()).await.unwrap();
        store.restart().await;
        let ledger = store.ledger();
        let second = tag(ledger, number, "second");
        assert_ne!(first, second);
        for is_known in [false, true] {
            let again = ledger.begin(under(second, number, is_known)).await;
            assert_err!(again, Error::CallbackUsed { account } if account == first);
        }
        assert!(ledger.redeemed(second).await.unwrap().is_none());
        assert_eq!(ledger.redeemed(first).await.unwrap().unwrap().op, op);
        // Whoever has the code may burn it, and nobody who has another.
        let burn = |number| Begin::burn(account, op).presenting(&code(number));
        assert_err!(ledger.begin(burn(number + 100)).await, Error::OtherToken { .. });
        ledger.begin(burn(number)).await.unwrap();
        // The click may be given another code.
        let other = tag(ledger, number + 50, "first");
        ledger.begin(under(other, number + 50, is_known)).await.unwrap();
    }
}

pub async fn a_code_in_doubt_can_be_burnt<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let (code, other) = (Secret::new("code".into()), Secret::new("other".into()));
    let ticket =
        ledger.begin(Begin::exchange(&app()).user(&user("u")).presenting(&code)).await.unwrap();
    let (account, op) = (ticket.account(), ticket.op());
    let burn = |code: &Secret| Begin::burn(account, op).presenting(code);
    assert_err!(ledger.begin(burn(&code)).await, Error::Busy { .. });
    ledger.settle(ticket, doubt()).await.unwrap();
    assert_err!(ledger.begin(burn(&other)).await, Error::OtherToken { .. });
    assert_err!(ledger.begin(Begin::burn(account, op)).await, Error::OtherToken { .. });
    let unknown = Begin::burn(account, OpId(op.0 + 1000)).presenting(&code);
    assert_err!(ledger.begin(unknown).await, Error::UnknownOperation { .. });

    let burning = ledger.begin(burn(&code)).await.unwrap();
    assert_err!(ledger.begin(burn(&code)).await, Error::Busy { .. });
    let seen = view(ledger, account).await;
    let actions: Vec<_> = seen.in_doubt.iter().map(|open| open.action).collect();
    assert_eq!(actions, [Action::Exchange, Action::Burn]);
    assert_eq!(seen.live(CapCounts::Grants), 1, "both are one approval");
    assert_eq!(seen.in_doubt[0].presented, ledger.fingerprint(&code));
    let settled = ledger.settle(burning, tokenwal::Outcome::Revoked).await.unwrap();
    assert!(matches!(settled.into_settled(), Settled::Revoked));
    // The exchange is in doubt until somebody says what that means.
    assert_eq!(view(ledger, account).await.in_doubt.len(), 1);
    let resolve = Change::Resolve { op, how: ResolvedHow::Burnt };
    ledger.change(account, resolve).await.unwrap();
    assert!(ledger.account(account).await.unwrap().is_none());
}
