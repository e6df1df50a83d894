//! Access tokens beside a grant's newest pair, what is told of an expiry, and when all have lapsed.

use crate::assert_err;
use crate::harness::{Harness, NOW_MS};
use crate::words::*;
use std::time::Duration;
use tokenwal::ledger::{Change, Ledger};
use tokenwal::{
    AccountTag, Begin, Cause, Confidence, Error, ExpirySource, Generation, GrantId, IssuedPair,
    Lsn, Outcome, TokenResponse,
};

const MINUTE_MS: u64 = 60_000;

/// An answer whose access token expires so many minutes after the tests begin.
fn lasting(access: &str, refresh: &str, minutes: u64, source: ExpirySource) -> Outcome {
    Outcome::Issued(
        scoped(access, refresh, "api web").with_expiry(NOW_MS + minutes * MINUTE_MS, source),
    )
}

fn scoped(access: &str, refresh: &str, scope: &str) -> TokenResponse {
    let mut body = serde_json::json!({ "access_token": access });
    for (name, value) in [("refresh_token", refresh), ("scope", scope)] {
        if !value.is_empty() {
            body[name] = value.into();
        }
    }
    TokenResponse::parse(body.to_string().into_bytes(), NOW_MS).unwrap()
}

async fn first<L: Ledger>(ledger: &L, outcome: Outcome) -> IssuedPair {
    let ticket = ledger.begin(Begin::exchange(&app()).user(&user("u"))).await.unwrap();
    settle_pair(ledger, ticket, outcome).await
}

async fn next<L: Ledger>(ledger: &L, pair: &IssuedPair, outcome: Outcome) -> IssuedPair {
    let ticket = ledger.begin(Begin::refresh(pair.account(), pair.grant())).await.unwrap();
    settle_pair(ledger, ticket, outcome).await
}

async fn ask<L: Ledger>(
    ledger: &L,
    pair: &IssuedPair,
    scopes: &[&str],
    outcome: Outcome,
) -> IssuedPair {
    let begin = Begin::refresh(pair.account(), pair.grant()).beside(scopes.iter().copied());
    let ticket = ledger.begin(begin).await.unwrap();
    settle_pair(ledger, ticket, outcome).await
}

async fn beside<L: Ledger>(ledger: &L, account: AccountTag, id: GrantId) -> Vec<String> {
    let beside = ledger.beside(account, id).await.unwrap();
    beside.iter().map(|pair| pair.access_token().reveal().to_owned()).collect()
}

pub async fn a_token_beside_leaves_the_newest_pair_alone<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = first(ledger, lasting("a1", "r1", 60, ExpirySource::Declared)).await;
    let (account, id) = (pair.account(), pair.grant());
    let before = grant(ledger, account, id).await;
    let begin = Begin::refresh(account, id).beside(["mail"]);
    let ticket = ledger.begin(begin).await.unwrap();
    let open = view(ledger, account).await.in_doubt.pop().unwrap();
    assert!(open.beside);
    let mail = settle_pair(ledger, ticket, Outcome::Issued(scoped("m1", "", ""))).await;
    assert_eq!((mail.grant(), mail.generation(), mail.is_beside()), (id, Generation(1), true));
    assert_eq!((mail.scopes(), mail.refresh_token().is_none()), (["mail".into()].as_slice(), true));
    // The same refresh token that comes again is no other.
    let wave = ask(ledger, &pair, &["wave"], Outcome::Issued(scoped("w1", "r1", "wave"))).await;
    assert!(wave.is_beside() && wave.refresh_token().is_none());
    let newer = ask(ledger, &pair, &["mail"], Outcome::Issued(scoped("m2", "", "mail"))).await;
    assert!(newer.is_beside());
    store.restart().await;
    let ledger = store.ledger();
    assert_eq!(tokens(ledger, account, id).await, texts("a1", "r1"));
    assert_eq!(beside(ledger, account, id).await, ["m2", "w1"], "one for each set of scopes");
    let after = grant(ledger, account, id).await;
    assert_eq!((after.generation, after.issued_lsn), (before.generation, before.issued_lsn));
    assert_eq!((&after.scopes, after.expires_at_ms), (&before.scopes, before.expires_at_ms));
    let scopes: Vec<_> = after.beside.iter().map(|beside| beside.scopes.concat()).collect();
    assert_eq!(scopes, ["wave", "mail"], "in the order in which they came");
    assert!(view(ledger, account).await.in_doubt.is_empty());
    // Nor does a new pair take them away, and it has nothing of them.
    let pair = next(ledger, &pair, lasting("a2", "r2", 60, ExpirySource::Declared)).await;
    assert_eq!((pair.generation(), pair.is_beside()), (Generation(2), false));
    assert_eq!(beside(ledger, account, id).await, ["m2", "w1"]);
    assert_eq!(grant(ledger, account, id).await.scopes, ["api", "web"]);
}

pub async fn another_refresh_token_keeps_the_scopes_of_the_chain<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = first(ledger, lasting("a1", "r1", 60, ExpirySource::Declared)).await;
    let (account, id) = (pair.account(), pair.grant());
    // Whether or not the answer says its scopes.
    for (scope, number) in [("web", 2), ("", 3)] {
        let answer = scoped(&format!("a{number}"), &format!("r{number}"), scope);
        let pair = ask(ledger, &pair, &["web"], Outcome::Issued(answer)).await;
        assert_eq!((pair.generation(), pair.is_beside()), (Generation(number), false));
        assert_eq!(pair.scopes(), ["api", "web"]);
        assert_eq!((pair.access_scopes(), pair.is_narrowed()), (["web".into()].as_slice(), true));
    }
    store.restart().await;
    let ledger = store.ledger();
    assert!(beside(ledger, account, id).await.is_empty());
    assert_eq!(grant(ledger, account, id).await.scopes, ["api", "web"]);
    let kept = ledger.pair(account, id).await.unwrap().unwrap();
    assert_eq!((kept.scopes(), kept.access_scopes()), (pair.scopes(), ["web".into()].as_slice()));
    assert_eq!(of(&kept), texts("a3", "r3"));
    // The next one says nothing of scopes: it has what the chain has.
    let whole = next(ledger, &pair, Outcome::Issued(scoped("a4", "r4", ""))).await;
    assert_eq!((whole.scopes(), whole.is_narrowed()), (pair.scopes(), false));
    // Nor is one narrower that has all of it.
    let all = ask(ledger, &pair, &["web"], Outcome::Issued(scoped("a5", "r5", "web api"))).await;
    assert_eq!((all.generation(), all.is_narrowed()), (Generation(5), false));
}

pub async fn an_answer_beside_that_comes_too_late_is_kept_beside<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = first(ledger, lasting("a1", "r1", 60, ExpirySource::Declared)).await;
    let (account, id) = (pair.account(), pair.grant());
    let begin = || Begin::refresh(account, id).beside(["mail"]);
    let ticket = ledger.begin(begin()).await.unwrap();
    let op = ticket.op();
    let settled = ledger.settle(ticket, doubt()).await.unwrap().into_settled();
    assert!(matches!(settled, tokenwal::Settled::InDoubt(_)));
    let late = ledger.resume(account, op).await.unwrap();
    let resent = ledger.begin(begin().resending(op)).await.unwrap();
    settle_pair(ledger, resent, Outcome::Issued(scoped("m2", "", "mail"))).await;
    let how = tokenwal::ResolvedHow::Resent;
    ledger.change(account, Change::Resolve { op, how }).await.unwrap();
    let late = settle_pair(ledger, late, Outcome::Issued(scoped("m1", "", "mail"))).await;
    assert_eq!((late.grant(), late.is_beside()), (id, true));
    assert_eq!(beside(ledger, account, id).await, ["m1"], "the newest is what came last");
    assert_eq!(tokens(ledger, account, id).await, texts("a1", "r1"));
}

pub async fn eight_tokens_are_kept_beside_a_grant<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = first(ledger, lasting("a1", "r1", 60, ExpirySource::Declared)).await;
    let (account, id) = (pair.account(), pair.grant());
    for number in 0..10 {
        let outcome = lasting(&format!("b{number}"), "", number + 1, ExpirySource::Declared);
        ask(ledger, &pair, &[&format!("s{number}")], outcome).await;
    }
    let all: Vec<_> = (2..10).rev().map(|number| format!("b{number}")).collect();
    assert_eq!(beside(ledger, account, id).await, all);
    // What has lapsed, and says nothing more, goes.
    next(ledger, &pair, lasting("a2", "r2", 60, ExpirySource::Declared)).await;
    store.advance(Duration::from_millis(5 * MINUTE_MS));
    store.ledger().prune().await.unwrap();
    store.restart().await;
    assert_eq!(beside(store.ledger(), account, id).await, ["b9", "b8", "b7", "b6", "b5"]);
    assert_eq!(grant(store.ledger(), account, id).await.lapses_at_ms, Some(NOW_MS + 3_600_000));
}

pub async fn nothing_is_beside_what_is_over<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = first(ledger, lasting("a1", "r1", 60, ExpirySource::Declared)).await;
    let (account, id) = (pair.account(), pair.grant());
    ask(ledger, &pair, &["mail"], lasting("m1", "", 60, ExpirySource::Declared)).await;
    let (cause, confidence) = (Cause::Operator, Confidence::Certain);
    ledger.change(account, Change::End { grant: id, cause, confidence }).await.unwrap();
    assert!(beside(ledger, account, id).await.is_empty());
    assert!(beside(ledger, account, GrantId(777)).await.is_empty());
    assert!(beside(ledger, tag(ledger, "nobody"), id).await.is_empty());
    let begun = ledger.begin(Begin::refresh(account, id).beside(["mail"])).await;
    assert_err!(begun, Error::GrantEnded { .. });
    ledger.change(account, Change::Revive { grant: id }).await.unwrap();
    assert_eq!(beside(ledger, account, id).await, ["m1"]);
}

pub async fn only_a_refresh_is_asked_for_beside_and_with_scopes<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = first(ledger, lasting("a1", "r1", 60, ExpirySource::Declared)).await;
    let (account, id) = (pair.account(), pair.grant());
    let none = ledger.begin(Begin::refresh(account, id).beside([""; 0])).await;
    assert_err!(none, Error::Option { option: "beside", .. });
    let revoke = ledger.begin(Begin::revoke(account, id).beside(["mail"])).await;
    assert_err!(revoke, Error::Option { option: "beside", .. });
}

pub async fn what_is_told_of_an_expiry_counts_for_that_pair<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = first(ledger, lasting("a1", "r1", 60, ExpirySource::Assumed)).await;
    let (account, id) = (pair.account(), pair.grant());
    let told = |generation, minutes: u64| Change::Told {
        grant: id,
        generation: Generation(generation),
        expires_at_ms: NOW_MS + minutes * MINUTE_MS,
    };
    let before = grant(ledger, account, id).await;
    assert_eq!((before.lapses_at_ms, before.only_assumed), (None, true));
    ledger.change(account, told(1, 90)).await.unwrap();
    store.restart().await;
    let ledger = store.ledger();
    let until_ms = NOW_MS + 90 * MINUTE_MS;
    let after = grant(ledger, account, id).await;
    assert_eq!((after.expires_at_ms, after.expiry), (until_ms, Some(ExpirySource::Introspected)));
    assert_eq!((after.lapses_at_ms, after.only_assumed), (Some(until_ms), false));
    let kept = ledger.pair(account, id).await.unwrap().unwrap();
    assert_eq!(kept.expires_at_ms(), Some(until_ms));
    assert_eq!(kept.expiry_source(), Some(ExpirySource::Introspected));
    // It says nothing of another pair.
    let next = next(ledger, &pair, lasting("a2", "r2", 30, ExpirySource::Assumed)).await;
    assert_eq!(next.expires_at_ms(), Some(NOW_MS + 30 * MINUTE_MS));
    let after = grant(ledger, account, id).await;
    assert_eq!((after.expiry, after.lapses_at_ms), (Some(ExpirySource::Assumed), None));
    assert!(!after.only_assumed, "of the first one it is known");
    let old = ledger.change(account, told(1, 10)).await;
    assert_err!(old, Error::Conflict { found, .. } if found == next.lsn());
    let future = ledger.change(account, told(3, 10)).await;
    assert_err!(future, Error::Conflict { expected: Lsn::NONE, .. });
    let nothing = Change::Told { grant: id, generation: Generation(2), expires_at_ms: 0 };
    assert_err!(ledger.change(account, nothing).await, Error::Option { .. });
    let expires_at_ms = NOW_MS;
    let none = Change::Told { grant: GrantId(777), generation: Generation(1), expires_at_ms };
    assert_err!(ledger.change(account, none).await, Error::UnknownGrant { .. });
}

pub async fn tokens_have_lapsed_when_the_last_of_them_has<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let known = |minutes: u64| (Some(NOW_MS + minutes * MINUTE_MS), false);
    let pair = first(ledger, lasting("a1", "r1", 60, ExpirySource::Declared)).await;
    let (account, id) = (pair.account(), pair.grant());
    let lapse = async || {
        let grant = grant(ledger, account, id).await;
        (grant.lapses_at_ms, grant.only_assumed)
    };
    assert_eq!(lapse().await, known(60));
    next(ledger, &pair, lasting("a2", "r2", 30, ExpirySource::Introspected)).await;
    assert_eq!(lapse().await, known(60), "the one before outlives it");
    ask(ledger, &pair, &["mail"], lasting("m1", "", 90, ExpirySource::Declared)).await;
    assert_eq!(lapse().await, known(90));
    ask(ledger, &pair, &["mail"], lasting("m2", "", 20, ExpirySource::Declared)).await;
    assert_eq!(lapse().await, known(90), "it is replaced, and works all the same");
    next(ledger, &pair, lasting("a3", "r3", 95, ExpirySource::Declared)).await;
    assert_eq!(lapse().await, known(95));
    next(ledger, &pair, lasting("a4", "r4", 10, ExpirySource::Assumed)).await;
    assert_eq!(lapse().await, (None, false), "nobody knows of the last one");
    next(ledger, &pair, lasting("a5", "r5", 99, ExpirySource::Declared)).await;
    assert_eq!(lapse().await, (None, false), "nor ever will");
}

pub async fn only_what_is_assumed_of_every_token_is_an_assumption<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = first(ledger, lasting("a1", "r1", 60, ExpirySource::Assumed)).await;
    let (account, id) = (pair.account(), pair.grant());
    let lapse = async || {
        let grant = grant(ledger, account, id).await;
        (grant.lapses_at_ms, grant.only_assumed)
    };
    ask(ledger, &pair, &["mail"], lasting("m1", "", 90, ExpirySource::Assumed)).await;
    next(ledger, &pair, lasting("a2", "", 60, ExpirySource::Assumed)).await;
    assert_eq!(lapse().await, (None, true));
    next(ledger, &pair, Outcome::Issued(scoped("a3", "", ""))).await;
    assert_eq!(lapse().await, (None, false), "of this one nothing is even assumed");
}
