//! What becomes of an outcome: no pair is ever dropped, and none is taken for another.

use crate::assert_err;
use crate::harness::Harness;
use crate::words::*;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tokenwal::ledger::{Change, Durability, Ledger};
use tokenwal::{
    Begin, CapCounts, Cause, Error, GrantState, NotSent, Outcome, RefusalClass, ResolvedHow,
    Settled, TokenResponse,
};

pub async fn a_pair_is_what_the_provider_answered<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let body = br#"{"access_token":"A!1","refresh_token":"r1","id_token":"i","scope":"api web",
        "token_type":"MAC","instance_url":"https://na1","expires_in":60,"more":[1]}"#;
    let answer = TokenResponse::parse(body.to_vec(), ledger.now_ms()).unwrap();
    let answer = answer.with_user(user("u")).with_token_endpoint("https://login".into());
    let begin = Begin::exchange(&app()).holder(&holder("h")).scopes(["asked"]);
    let ticket = ledger.begin(begin).await.unwrap();
    let provisional = ticket.account();
    assert!(view(ledger, provisional).await.provisional);
    let receipt = ledger.settle(ticket, Outcome::Issued(answer)).await.unwrap();
    assert!(receipt.durability() >= Durability::Local);
    let Settled::Issued(pair) = receipt.into_settled() else { panic!("issued") };
    assert_eq!(pair.account(), tag(ledger, "u"));
    assert!(ledger.account(provisional).await.unwrap().is_none(), "it was only for the call");
    let kept = ledger.pair(pair.account(), pair.grant()).await.unwrap().unwrap();
    for pair in [&*pair, &kept] {
        assert_eq!(of(pair), texts("A!1", "r1"));
        assert_eq!(pair.id_token().map(|token| token.reveal()), Some("i"));
        assert_eq!(pair.scopes(), ["api", "web"]);
        assert_eq!(pair.token_type(), "MAC");
        assert_eq!(pair.instance_url(), Some("https://na1"));
        assert_eq!(pair.token_endpoint(), Some("https://login"));
        assert_eq!(pair.field("more").map(|raw| raw.reveal()), Some("[1]"));
        assert_eq!(pair.expires_at_ms(), Some(ledger.now_ms() + 60_000));
        assert_eq!((pair.app(), pair.user()), (Some(&app()), Some(&user("u"))));
        assert_eq!(pair.holder(), Some(&holder("h")));
        assert_eq!((pair.generation().0, pair.lsn()), (1, kept.lsn()));
        assert!(!format!("{pair:?}").contains("A!1"));
    }
    let seen = grant(ledger, pair.account(), pair.grant()).await;
    assert_eq!(seen.state, GrantState::Waiting);
    assert_eq!(seen.issued_for.unwrap().holder_tag, ledger.holder_tag(&holder("h")));
    assert_eq!(seen.refresh_fingerprint, ledger.fingerprint(kept.refresh_token().unwrap()));
    assert!(!seen.fenced && !seen.worked && !seen.paused && !seen.imported);
}

pub async fn what_a_refresh_leaves_out_is_inherited<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let body = br#"{"access_token":"a1","refresh_token":"r1","id_token":"i","scope":"api",
        "instance_url":"https://na1","more":1,"less":2}"#;
    let answer = TokenResponse::parse(body.to_vec(), ledger.now_ms()).unwrap();
    let ticket = ledger.begin(Begin::exchange(&app()).user(&user("u"))).await.unwrap();
    let first = settle_pair(ledger, ticket, Outcome::Issued(answer)).await;
    let refresh = Begin::refresh(first.account(), first.grant());
    let ticket = ledger.begin(refresh).await.unwrap();
    let body = br#"{"access_token":"a2","refresh_token":"","id_token":null,"more":3}"#;
    let answer = TokenResponse::parse(body.to_vec(), ledger.now_ms()).unwrap();
    let next = settle_pair(ledger, ticket, Outcome::Issued(answer)).await;
    assert_eq!(of(&next), texts("a2", "r1"));
    assert_eq!(next.id_token().map(|token| token.reveal()), Some("i"));
    assert_eq!(next.scopes(), ["api"]);
    assert_eq!(next.instance_url(), Some("https://na1"));
    assert_eq!(next.field("more").map(|raw| raw.reveal()), Some("3"));
    assert_eq!(next.field("less").map(|raw| raw.reveal()), Some("2"));
    assert_eq!((next.grant(), next.generation().0), (first.grant(), 2));
    let seen = grant(ledger, first.account(), first.grant()).await;
    assert!(seen.has_refresh_token && !seen.keeps_previous);
}

/// The operation was resolved, and another took its place.
pub async fn a_fenced_pair_is_an_orphan<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let first = issue(ledger, "u", "a1", "r1").await;
    let (account, id) = (first.account(), first.grant());
    let stale = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    let resolve = Change::Resolve { op: stale.op(), how: ResolvedHow::NotIssued };
    ledger.change(account, resolve).await.unwrap();
    let ticket = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    assert!(ticket.fence() > stale.fence());

    let late = settle_pair(ledger, stale, issued("late", "later")).await;
    assert_ne!(late.grant(), id);
    assert_eq!(late.account(), account);
    assert_eq!(tokens(ledger, account, id).await, texts("a1", "r1"));
    assert_eq!(view(ledger, account).await.in_doubt[0].op, ticket.op(), "it is not closed by it");
    let next = settle_pair(ledger, ticket, issued("a2", "r2")).await;
    assert_eq!((next.grant(), next.generation().0), (id, 2));

    for _ in 0..2 {
        let ledger = store.ledger();
        assert_eq!(tokens(ledger, account, id).await, texts("a2", "r2"));
        assert_eq!(tokens(ledger, account, late.grant()).await, texts("late", "later"));
        let orphan = grant(ledger, account, late.grant()).await;
        assert!(orphan.fenced && orphan.state == GrantState::Waiting);
        assert!(!grant(ledger, account, id).await.fenced);
        assert!(ledger.pending().await.unwrap().contains(&account));
        assert_eq!(view(ledger, account).await.live(CapCounts::Grants), 2);
        store.restart().await;
    }
}

pub async fn a_fenced_refusal_ends_nothing_that_lives<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let first = issue(ledger, "u", "a1", "r1").await;
    let (account, id) = (first.account(), first.grant());
    let stale = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    let resolve = Change::Resolve { op: stale.op(), how: ResolvedHow::Resent };
    ledger.change(account, resolve).await.unwrap();
    let ticket = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    settle_pair(ledger, ticket, issued("a2", "r2")).await;
    // What is dead is the token of the generation before.
    ledger.settle(stale, refused(RefusalClass::Dead)).await.unwrap();
    let seen = grant(ledger, account, id).await;
    assert_eq!((seen.state, seen.generation.0), (GrantState::Waiting, 2));
    assert!(seen.refusal.is_none());
    ledger.begin(Begin::refresh(account, id)).await.unwrap();

    // One in doubt that was resent beside says no more than that.
    let other = issue(ledger, "v", "b1", "s1").await;
    let (account, id) = (other.account(), other.grant());
    let op = lose_refresh(ledger, &other).await;
    let ticket = ledger.begin(Begin::refresh(account, id).resending(op)).await.unwrap();
    settle_pair(ledger, ticket, issued("b2", "s2")).await;
    let lost = ledger.resume(account, op).await.unwrap();
    ledger.settle(lost, refused(RefusalClass::Dead)).await.unwrap();
    assert_eq!(grant(ledger, account, id).await.state, GrantState::Waiting);
    assert!(view(ledger, account).await.in_doubt.is_empty());
}

/// Without rotation a late answer has only an access token: the grant it is of is still the same.
pub async fn a_fenced_pair_that_shares_its_refresh_token_is_no_second_grant<H: Harness>(
    store: &mut H,
) {
    let ledger = store.ledger();
    let first = issue(ledger, "u", "a1", "r1").await;
    let (account, id) = (first.account(), first.grant());
    let stale = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    let resolve = Change::Resolve { op: stale.op(), how: ResolvedHow::Resent };
    ledger.change(account, resolve).await.unwrap();
    let ticket = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    settle_pair(ledger, ticket, issued("a2", "")).await;
    let late = settle_pair(ledger, stale, issued("late", "")).await;
    assert_eq!((late.grant(), late.generation().0), (id, 3));
    assert_eq!(tokens(ledger, account, id).await, texts("late", "r1"));
    assert_eq!(view(ledger, account).await.live(CapCounts::Grants), 1);
}

pub async fn an_exchange_that_was_resolved_keeps_its_pair<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    for name in ["known", "blind"] {
        let begin = match name {
            "known" => Begin::exchange(&app()).user(&user(name)),
            _ => Begin::exchange(&app()),
        };
        let ticket = ledger.begin(begin).await.unwrap();
        let resolve = Change::Resolve { op: ticket.op(), how: ResolvedHow::Waived };
        ledger.change(ticket.account(), resolve).await.unwrap();
        let (under, access) = (ticket.account(), format!("a {name}"));
        assert!(ledger.account(under).await.unwrap().is_none());
        let late = settle_pair(ledger, ticket, issued(&access, "")).await;
        assert_eq!(late.account(), under);
        assert_eq!(tokens(ledger, under, late.grant()).await, texts(&access, ""));
        assert!(grant(ledger, under, late.grant()).await.fenced);
        assert_eq!(view(ledger, under).await.provisional, name == "blind");
    }
}

/// All of it was forgotten meanwhile.
pub async fn an_unknown_account_keeps_its_pair<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let first = issue(ledger, "u", "a1", "r1").await;
    let account = first.account();
    let stale = ledger.begin(Begin::refresh(account, first.grant())).await.unwrap();
    let stale_too = ledger.resume(account, stale.op()).await.unwrap();
    let refusal = ledger.resume(account, stale.op()).await.unwrap();
    let resolve = Change::Resolve { op: stale.op(), how: ResolvedHow::Waived };
    ledger.change(account, resolve).await.unwrap();
    let (cause, confidence) = (Cause::Operator, tokenwal::Confidence::Certain);
    ledger.change(account, Change::End { grant: first.grant(), cause, confidence }).await.unwrap();
    ledger.change(account, Change::Forget).await.unwrap();
    // What has nothing to keep leaves nothing.
    ledger.settle(refusal, refused(RefusalClass::Dead)).await.unwrap();
    assert!(ledger.account(account).await.unwrap().is_none());
    let late = settle_pair(ledger, stale, issued("a2", "r2")).await;
    assert!(grant(ledger, account, late.grant()).await.fenced);
    settle_pair(ledger, stale_too, issued("a3", "r3")).await;
    assert_eq!(view(ledger, account).await.grants.len(), 2);
}

pub async fn the_same_pair_twice_is_one_grant<H: Harness>(store: &mut H) {
    twice(store, "r1", "r2").await;
}

pub async fn the_same_pair_without_a_refresh_token_twice_is_one_grant<H: Harness>(store: &mut H) {
    twice(store, "r1", "").await;
    twice(store, "", "").await;
}

/// An outcome that was kept elsewhere is settled again, for it was not known that it was stored.
async fn twice<H: Harness>(store: &mut H, first: &str, next: &str) {
    let name = format!("u{first}{next}");
    let exchange = Begin::exchange(&app()).user(&user(&name));
    let ticket = store.ledger().begin(exchange).await.unwrap();
    let (account, op) = (ticket.account(), ticket.op());
    drop(ticket);
    let pair = settle_again(store, account, op, ("a1", first)).await;
    let refresh = Begin::refresh(account, pair.0);
    let ticket = store.ledger().begin(refresh).await.unwrap();
    assert_eq!(of(ticket.current().unwrap()), texts("a1", first));
    let op = ticket.op();
    drop(ticket);
    let (id, refresh) = settle_again(store, account, op, ("a2", next)).await;
    assert_eq!(id, pair.0);
    assert_eq!(refresh, if next.is_empty() { first } else { next });
}

async fn settle_again<H: Harness>(
    store: &mut H,
    account: tokenwal::AccountTag,
    op: tokenwal::OpId,
    (access, refresh): (&str, &str),
) -> (tokenwal::GrantId, String) {
    let ledger = store.ledger();
    let mut tickets = Vec::new();
    for _ in 0..3 {
        tickets.push(ledger.resume(account, op).await.unwrap());
    }
    let last = tickets.pop().unwrap();
    let mut pairs = Vec::new();
    for ticket in tickets {
        assert_eq!((ticket.op(), ticket.account()), (op, account));
        pairs.push(settle_pair(ledger, ticket, issued(access, refresh)).await);
    }
    assert_err!(ledger.resume(account, op).await, Error::UnknownOperation { .. });
    store.restart().await;
    let ledger = store.ledger();
    pairs.push(settle_pair(ledger, last, issued(access, refresh)).await);
    let id = pairs[0].grant();
    assert!(pairs.iter().all(|pair| pair.grant() == id), "{pairs:?}");
    let seen = view(ledger, account).await;
    assert_eq!((seen.grants.len(), seen.in_doubt.len()), (1, 0));
    let kept = tokens(ledger, account, id).await;
    assert!(pairs.iter().all(|pair| of(pair) == kept));
    (id, kept.1)
}

/// As on re-consent at some providers.
pub async fn the_same_refresh_token_is_the_same_grant<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let first = issue(ledger, "u", "a1", "r1").await;
    adopt(ledger, &first, "h", &["api"]).await;
    let ticket = ledger.begin(Begin::exchange(&app())).await.unwrap();
    let again = settle_pair(ledger, ticket, issued_to("u", "a2", "r1")).await;
    assert_eq!((again.grant(), again.generation().0), (first.grant(), 2));
    let seen = view(ledger, first.account()).await;
    assert_eq!((seen.grants.len(), seen.in_doubt.len()), (1, 0));
    assert_eq!(seen.grants[0].state, GrantState::Held);
    // Another user's is none of his.
    let other = issue(ledger, "v", "b1", "r1").await;
    assert_ne!(other.account(), first.account());
    assert_eq!(other.generation().0, 1);
}

pub async fn all_mints_are_one_grant<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let begin = || Begin::mint(&account("robot"));
    let tickets = [ledger.begin(begin()).await.unwrap(), ledger.begin(begin()).await.unwrap()];
    let mut ids = Vec::new();
    for (number, ticket) in (1..).zip(tickets) {
        let pair = settle_pair(ledger, ticket, issued(&format!("a{number}"), "")).await;
        ids.push((pair.grant(), pair.generation().0));
    }
    let ticket = ledger.begin(begin()).await.unwrap();
    assert_err!(ledger.begin(begin()).await, Error::Busy { .. });
    let pair = settle_pair(ledger, ticket, issued("a3", "")).await;
    ids.push((pair.grant(), pair.generation().0));
    assert_eq!(ids, [(pair.grant(), 1), (pair.grant(), 2), (pair.grant(), 3)]);
    // In doubt means that it may be minted again.
    let ticket = ledger.begin(begin()).await.unwrap();
    let op = ticket.op();
    ledger.settle(ticket, doubt()).await.unwrap();
    let ticket = ledger.begin(begin().resending(op)).await.unwrap();
    settle_pair(ledger, ticket, issued("a4", "")).await;
    assert_eq!(view(ledger, pair.account()).await.grants.len(), 1);
}

pub async fn another_user_is_told<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let ticket = ledger.begin(Begin::exchange(&app()).user(&user("expected"))).await.unwrap();
    let receipt = ledger.settle(ticket, issued_to("other", "a1", "r1")).await.unwrap();
    let Settled::DifferentUser(pair) = receipt.into_settled() else { panic!("another user") };
    assert_eq!(pair.account(), tag(ledger, "other"));
    assert_eq!(tokens(ledger, pair.account(), pair.grant()).await, texts("a1", "r1"));
    assert!(ledger.account(tag(ledger, "expected")).await.unwrap().is_none());
}

pub async fn what_is_in_doubt_stays_so_until_it_has_its_outcome<H: Harness>(store: &mut H) {
    let ticket = store.ledger().begin(Begin::exchange(&app()).user(&user("u"))).await.unwrap();
    let (account, op) = (ticket.account(), ticket.op());
    store.ledger().settle(ticket, doubt()).await.unwrap();
    for _ in 0..2 {
        let seen = view(store.ledger(), account).await;
        assert_eq!(seen.in_doubt.len(), 1);
        assert_eq!(seen.in_doubt[0].doubt, Some(tokenwal::DoubtReason::Timeout));
        assert_eq!((seen.in_doubt[0].op, seen.live(CapCounts::Grants)), (op, 1));
        store.restart().await;
    }
    // The doubt may be told again, and the answer may come after all.
    let ledger = store.ledger();
    let ticket = ledger.resume(account, op).await.unwrap();
    ledger.settle(ticket, doubt()).await.unwrap();
    let ticket = ledger.resume(account, op).await.unwrap();
    let pair = settle_pair(ledger, ticket, issued("a1", "r1")).await;
    assert_eq!(pair.grant().0, op.0);
    let seen = view(ledger, account).await;
    assert!(seen.in_doubt.is_empty() && !seen.grants[0].fenced);
}

pub async fn what_was_not_sent_leaves_nothing<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let ticket = ledger.begin(Begin::exchange(&app())).await.unwrap();
    let account = ticket.account();
    let settled = ledger.settle(ticket, Outcome::NotSent(NotSent::Lookup)).await.unwrap();
    assert!(matches!(settled.into_settled(), Settled::NotSent));
    assert!(ledger.account(account).await.unwrap().is_none());
    let pair = issue(ledger, "u", "a1", "r1").await;
    let ticket = ledger.begin(Begin::refresh(pair.account(), pair.grant())).await.unwrap();
    ledger.settle(ticket, Outcome::NotSent(NotSent::Tls)).await.unwrap();
    ledger.begin(Begin::refresh(pair.account(), pair.grant())).await.unwrap();
}

pub async fn only_dead_ends_a_grant<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = issue(ledger, "u", "a1", "r1").await;
    let (account, id) = (pair.account(), pair.grant());
    let classes = [RefusalClass::Retry, RefusalClass::OwnFault, RefusalClass::Suspended];
    for class in classes {
        let ticket = ledger.begin(Begin::refresh(account, id)).await.unwrap();
        let settled = ledger.settle(ticket, refused(class)).await.unwrap();
        assert!(matches!(settled.into_settled(), Settled::Refused));
        let seen = grant(ledger, account, id).await;
        assert_eq!(seen.state, GrantState::Waiting);
        let refusal = seen.refusal.unwrap();
        assert_eq!((refusal.class, refusal.status), (class, 400));
        assert_eq!(refusal.error.as_deref(), Some("invalid_grant"));
    }
    let ticket = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    settle_pair(ledger, ticket, issued("a2", "r2")).await;
    assert!(grant(ledger, account, id).await.refusal.is_none(), "it is older than the pair");
    let ticket = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    ledger.settle(ticket, refused(RefusalClass::Dead)).await.unwrap();
    let seen = grant(ledger, account, id).await;
    assert_eq!((seen.state, seen.end.unwrap().cause), (GrantState::Ended, Cause::Unknown));
    assert_eq!(seen.refusal.unwrap().class, RefusalClass::Dead);
    assert_err!(ledger.begin(Begin::refresh(account, id)).await, Error::GrantEnded { .. });
}

pub async fn a_settle_that_fails_gives_everything_back<H: Harness>(store: &mut H) {
    let pair = issue(store.ledger(), "u", "a1", "r1").await;
    let refresh = Begin::refresh(pair.account(), pair.grant());
    let ticket = store.ledger().begin(refresh).await.unwrap();
    let op = ticket.op();
    store.refuse_writes().await;
    let failed = store.ledger().settle(ticket, issued("a2", "r2")).await.unwrap_err();
    let (ticket, outcome) = (*failed.ticket.unwrap(), *failed.outcome.unwrap());
    assert_eq!(ticket.op(), op);
    let failed = store.ledger().settle(ticket, outcome).await.unwrap_err();
    let change = Change::Worked { grant: pair.grant(), generation: pair.generation() };
    store.ledger().change(pair.account(), change).await.unwrap_err();
    store.ledger().begin(Begin::exchange(&app())).await.unwrap_err();

    store.restart().await;
    let ledger = store.ledger();
    assert_eq!(tokens(ledger, pair.account(), pair.grant()).await, texts("a1", "r1"));
    assert!(!grant(ledger, pair.account(), pair.grant()).await.worked);
    let (ticket, outcome) = (*failed.ticket.unwrap(), *failed.outcome.unwrap());
    let next = settle_pair(ledger, ticket, outcome).await;
    assert_eq!((next.grant(), next.generation().0), (pair.grant(), 2));
    assert_eq!(tokens(ledger, pair.account(), pair.grant()).await, texts("a2", "r2"));
}

/// The future is dropped after each number of polls, down to none.
pub async fn a_dropped_settle_is_stored_all_the_same<H: Harness>(store: &mut H) {
    for polls in 0..6 {
        let name = format!("u{polls}");
        let first = issue(store.ledger(), &name, "a1", "r1").await;
        let (account, id) = (first.account(), first.grant());
        let ticket = store.ledger().begin(Begin::refresh(account, id)).await.unwrap();
        {
            let mut settling = pin!(store.ledger().settle(ticket, issued("a2", "r2")));
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..polls {
                if settling.as_mut().poll(&mut context).is_ready() {
                    break;
                }
            }
        }
        let patience = Instant::now();
        while tokens(store.ledger(), account, id).await != texts("a2", "r2") {
            assert!(patience.elapsed() < Duration::from_secs(20), "after {polls} polls");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(view(store.ledger(), account).await.in_doubt.is_empty());
        store.restart().await;
        assert_eq!(tokens(store.ledger(), account, id).await, texts("a2", "r2"));
    }
}

/// Whether its intent is durable nobody knows but the ledger; if it is, it is open.
pub async fn a_dropped_begin_is_no_outcome<H: Harness>(store: &mut H) {
    for polls in 0..4 {
        let first = issue(store.ledger(), &format!("u{polls}"), "a1", "r1").await;
        let refresh = Begin::refresh(first.account(), first.grant());
        {
            let mut beginning = pin!(store.ledger().begin(refresh.clone()));
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..polls {
                if beginning.as_mut().poll(&mut context).is_ready() {
                    break;
                }
            }
        }
        store.restart().await;
        let open = view(store.ledger(), first.account()).await.in_doubt;
        let again = store.ledger().begin(refresh).await;
        match open.first() {
            Some(open) => assert_err!(again, Error::Busy { op, .. } if op == open.op),
            None => drop(again.unwrap()),
        }
    }
}
