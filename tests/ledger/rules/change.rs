//! The changes that are one record each, and what they are refused for.

use crate::assert_err;
use crate::harness::Harness;
use crate::words::*;
use tokenwal::ledger::{Change, Ledger};
use tokenwal::{
    AccountTag, Begin, Cause, Confidence, Error, Generation, GrantId, GrantState, IssuedPair, OpId,
    RefusalClass, ResolvedHow,
};

const MISSING: GrantId = GrantId(777);

async fn end<L: Ledger>(ledger: &L, pair: &IssuedPair, cause: Cause) -> Result<(), Error> {
    let change = Change::End { grant: pair.grant(), cause, confidence: Confidence::Probable };
    ledger.change(pair.account(), change).await.map(drop)
}

async fn names<L: Ledger>(ledger: &L, account: AccountTag, id: GrantId) -> Vec<String> {
    let holders = grant(ledger, account, id).await.holders.into_iter();
    let mut names: Vec<_> = holders.map(|held| held.holder.unwrap().name().to_owned()).collect();
    names.sort();
    names
}

pub async fn holders_come_and_go<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = issue(ledger, "u", "a1", "r1").await;
    let (account, id) = (pair.account(), pair.grant());
    adopt(ledger, &pair, "h", &["api"]).await;
    adopt(ledger, &pair, "k", &[]).await;
    adopt(ledger, &pair, "h", &["api", "web"]).await;
    assert_eq!(names(ledger, account, id).await, ["h", "k"]);
    let holders = grant(ledger, account, id).await.holders;
    let held = holders.iter().find(|held| held.holder == Some(holder("h"))).unwrap();
    assert_eq!(held.holder_tag, ledger.holder_tag(&holder("h")));
    assert_eq!(held.scopes, ["api", "web"]);
    let release = |name| Change::Release { grant: id, holder: holder(name) };
    ledger.change(account, release("h")).await.unwrap();
    assert_eq!(names(ledger, account, id).await, ["k"]);
    assert_eq!(grant(ledger, account, id).await.state, GrantState::Held);
    // Nobody begins to depend on what is being revoked; who does already may let go.
    let revoking = ledger.begin(Begin::revoke(account, id)).await.unwrap();
    let late = Change::Adopt { grant: id, holder: holder("late"), scopes: Vec::new() };
    assert_err!(ledger.change(account, late).await, Error::Busy { .. });
    ledger.settle(revoking, refused(RefusalClass::Retry)).await.unwrap();
    // A rollback may come twice.
    ledger.change(account, release("h")).await.unwrap();
    ledger.change(account, release("k")).await.unwrap();
    assert_eq!(grant(ledger, account, id).await.state, GrantState::Released);
    // Holders stay over a refresh.
    adopt(ledger, &pair, "h", &[]).await;
    let ticket = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    settle_pair(ledger, ticket, issued("a2", "r2")).await;
    assert_eq!(names(ledger, account, id).await, ["h"]);

    let moves = |from, to| Change::Supersede { holder: holder("h"), scopes: Vec::new(), from, to };
    for change in [
        Change::Adopt { grant: MISSING, holder: holder("h"), scopes: Vec::new() },
        Change::Release { grant: MISSING, holder: holder("h") },
        moves(MISSING, id),
        moves(id, MISSING),
        Change::Activate { grant: MISSING },
        Change::Revive { grant: MISSING },
        Change::Worked { grant: MISSING, generation: Generation(1) },
    ] {
        let changed = ledger.change(account, change).await;
        assert_err!(changed, Error::UnknownGrant { grant: MISSING, .. });
    }
    end(ledger, &pair, Cause::Operator).await.unwrap();
    for change in [
        Change::Adopt { grant: id, holder: holder("h"), scopes: Vec::new() },
        Change::Activate { grant: id },
        moves(id, id),
    ] {
        assert_err!(ledger.change(account, change).await, Error::GrantEnded { .. });
    }
    // Who depends on what has ended can still let go.
    ledger.change(account, release("h")).await.unwrap();
}

pub async fn a_holder_moves_with_what_it_needs<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let old = issue(ledger, "u", "a1", "r1").await;
    let new = issue(ledger, "u", "b1", "s1").await;
    let (account, from, to) = (old.account(), old.grant(), new.grant());
    adopt(ledger, &old, "h", &["api"]).await;
    adopt(ledger, &old, "k", &["web"]).await;
    let scopes = vec!["api".to_owned()];
    let supersede = Change::Supersede { holder: holder("h"), scopes, from, to };
    ledger.change(account, supersede.clone()).await.unwrap();
    for _ in 0..2 {
        let ledger = store.ledger();
        assert_eq!(names(ledger, account, from).await, ["k"]);
        let moved = grant(ledger, account, to).await;
        assert_eq!(moved.holders.len(), 1);
        assert_eq!(moved.holders[0].scopes, ["api"]);
        assert_eq!(moved.state, GrantState::Held);
        ledger.prune().await.unwrap();
        store.restart().await;
    }
    let ledger = store.ledger();
    let release = Change::Release { grant: from, holder: holder("k") };
    ledger.change(account, release).await.unwrap();
    assert_eq!(grant(ledger, account, from).await.state, GrantState::Released);
}

pub async fn a_generation_that_worked_forgets_the_one_before<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = issue(ledger, "u", "a1", "r1").await;
    let (account, id) = (pair.account(), pair.grant());
    let ticket = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    settle_pair(ledger, ticket, issued("a2", "r2")).await;
    let worked = |number| Change::Worked { grant: id, generation: Generation(number) };
    // The one before says nothing of the newest.
    ledger.change(account, worked(1)).await.unwrap();
    let seen = grant(ledger, account, id).await;
    assert!(!seen.worked && seen.keeps_previous);
    ledger.change(account, worked(2)).await.unwrap();
    let seen = grant(ledger, account, id).await;
    assert!(seen.worked && !seen.keeps_previous);
    let ticket = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    settle_pair(ledger, ticket, issued("a3", "r3")).await;
    let seen = grant(ledger, account, id).await;
    assert!(!seen.worked && seen.keeps_previous);
}

pub async fn an_end_is_final_unless_nothing_was_known<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = issue(ledger, "u", "a1", "r1").await;
    let (account, id) = (pair.account(), pair.grant());
    adopt(ledger, &pair, "h", &[]).await;
    end(ledger, &pair, Cause::Unknown).await.unwrap();
    assert_err!(end(ledger, &pair, Cause::Unknown).await, Error::GrantEnded { .. });
    end(ledger, &pair, Cause::Evicted).await.unwrap();
    assert_err!(end(ledger, &pair, Cause::Reuse).await, Error::GrantEnded { .. });
    let seen = grant(ledger, account, id).await;
    let said = seen.end.unwrap();
    assert_eq!((said.cause, said.confidence), (Cause::Evicted, Confidence::Probable));
    assert_eq!(seen.state, GrantState::Ended);
    assert_eq!(seen.holders.len(), 1, "whoever depended on it must hear");
    let missing =
        Change::End { grant: MISSING, cause: Cause::Operator, confidence: Confidence::Certain };
    assert_err!(ledger.change(account, missing).await, Error::UnknownGrant { .. });
    assert!(!ledger.pending().await.unwrap().contains(&account));
}

pub async fn what_ended_can_be_revived<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = issue(ledger, "u", "a1", "r1").await;
    let (account, id) = (pair.account(), pair.grant());
    let ticket = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    ledger.settle(ticket, refused(RefusalClass::Dead)).await.unwrap();
    store.advance(std::time::Duration::from_secs(29 * 24 * 3600));
    ledger.prune().await.unwrap();
    store.restart().await;
    let ledger = store.ledger();
    ledger.change(account, Change::Revive { grant: id }).await.unwrap();
    let seen = grant(ledger, account, id).await;
    assert!(seen.end.is_none() && seen.refusal.is_none());
    let ticket = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    assert_eq!(of(ticket.current().unwrap()), texts("a1", "r1"));
    ledger.settle(ticket, refused(RefusalClass::Dead)).await.unwrap();
    // In the end the tokens go, and the end stays.
    store.advance(std::time::Duration::from_secs(31 * 24 * 3600));
    ledger.prune().await.unwrap();
    let ledger = store.ledger();
    assert!(ledger.pair(account, id).await.unwrap().is_none());
    assert_eq!(grant(ledger, account, id).await.state, GrantState::Ended);
    let revive = Change::Revive { grant: id };
    assert_err!(ledger.change(account, revive).await, Error::UnknownGrant { .. });
}

pub async fn what_was_resolved_is_open_no_longer<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = issue(ledger, "u", "a1", "r1").await;
    let account = pair.account();
    let op = lose_refresh(ledger, &pair).await;
    let resolve = |op| Change::Resolve { op, how: ResolvedHow::NotIssued };
    let unknown = ledger.change(account, resolve(OpId(op.0 + 1000))).await;
    assert_err!(unknown, Error::UnknownOperation { .. });
    ledger.change(account, resolve(op)).await.unwrap();
    assert_err!(ledger.change(account, resolve(op)).await, Error::UnknownOperation { .. });
    assert_err!(ledger.resume(account, op).await, Error::UnknownOperation { .. });
    assert!(view(ledger, account).await.in_doubt.is_empty());
    assert_eq!(tokens(ledger, account, pair.grant()).await, texts("a1", "r1"));
}

pub async fn a_grant_moves_to_its_user<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let ticket = ledger.begin(Begin::exchange(&app()).holder(&holder("h"))).await.unwrap();
    let pair = settle_pair(ledger, ticket, issued("a1", "r1")).await;
    let (blind, id) = (pair.account(), pair.grant());
    assert!(view(ledger, blind).await.provisional);
    adopt(ledger, &pair, "h", &["api"]).await;
    let op = lose_refresh(ledger, &pair).await;
    let identify = Change::Identify { grant: id, account: account("u") };
    let missing = Change::Identify { grant: MISSING, account: account("u") };
    assert_err!(ledger.change(blind, missing).await, Error::UnknownGrant { .. });
    ledger.change(blind, identify.clone()).await.unwrap();
    for _ in 0..2 {
        let ledger = store.ledger();
        let known = tag(ledger, "u");
        assert!(ledger.account(blind).await.unwrap().is_none());
        let seen = view(ledger, known).await;
        assert_eq!((seen.app, seen.user), (Some(app()), Some(user("u"))));
        assert!(!seen.provisional);
        assert_eq!((seen.grants[0].grant, seen.in_doubt[0].op), (id, op));
        assert_eq!(names(ledger, known, id).await, ["h"]);
        assert_eq!(tokens(ledger, known, id).await, texts("a1", "r1"));
        ledger.prune().await.unwrap();
        store.restart().await;
    }
    let ledger = store.ledger();
    let known = tag(ledger, "u");
    let ticket = ledger.resume(known, op).await.unwrap();
    let next = settle_pair(ledger, ticket, issued("a2", "")).await;
    assert_eq!((next.account(), next.grant()), (known, id));
    assert_eq!(of(&next), texts("a2", "r1"));
    let nowhere = Change::Identify { grant: id, account: account("u") };
    assert_err!(ledger.change(known, nowhere).await, Error::Option { .. });
}

pub async fn two_accounts_become_one<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let old = issue(ledger, "old", "a1", "r1").await;
    let new = issue(ledger, "new", "b1", "s1").await;
    adopt(ledger, &old, "h", &[]).await;
    let op = lose_refresh(ledger, &old).await;
    let merge = Change::Merge { to: account("new") };
    ledger.change(old.account(), merge).await.unwrap();
    for _ in 0..2 {
        let ledger = store.ledger();
        assert!(ledger.account(old.account()).await.unwrap().is_none());
        let seen = view(ledger, new.account()).await;
        let ids: Vec<_> = seen.grants.iter().map(|grant| grant.grant).collect();
        assert_eq!(ids, [old.grant(), new.grant()]);
        assert_eq!((seen.in_doubt[0].op, seen.user), (op, Some(user("new"))));
        assert_eq!(tokens(ledger, new.account(), old.grant()).await, texts("a1", "r1"));
        store.restart().await;
    }
    let itself = Change::Merge { to: account("new") };
    let merged = store.ledger().change(new.account(), itself).await;
    assert_err!(merged, Error::Option { .. });
}

pub async fn nothing_moves_from_under_a_call<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = issue(ledger, "u", "a1", "r1").await;
    let (from, id) = (pair.account(), pair.grant());
    let ticket = ledger.begin(Begin::refresh(from, id)).await.unwrap();
    let op = ticket.op();
    for change in
        [Change::Identify { grant: id, account: account("v") }, Change::Merge { to: account("v") }]
    {
        let moved = ledger.change(from, change).await;
        assert_err!(moved, Error::Busy { op: busy, .. } if busy == op);
    }
    settle_pair(ledger, ticket, issued("a2", "r2")).await;
    // A call that makes a grant is in the way of all of the account, not of one grant.
    ledger.begin(Begin::exchange(&app()).user(&user("u"))).await.unwrap();
    let merge = Change::Merge { to: account("v") };
    assert_err!(ledger.change(from, merge).await, Error::Busy { .. });
    let identify = Change::Identify { grant: id, account: account("v") };
    ledger.change(from, identify).await.unwrap();
}

pub async fn only_what_is_over_is_forgotten<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = issue(ledger, "u", "a1", "r1").await;
    let account = pair.account();
    let op = lose_refresh(ledger, &pair).await;
    let forget = || ledger.change(account, Change::Forget);
    assert_err!(forget().await, Error::StillLive { live: 1, open: 1, .. });
    end(ledger, &pair, Cause::Operator).await.unwrap();
    assert_err!(forget().await, Error::StillLive { live: 0, open: 1, .. });
    let resolve = Change::Resolve { op, how: ResolvedHow::Waived };
    ledger.change(account, resolve).await.unwrap();
    forget().await.unwrap();
    assert!(ledger.account(account).await.unwrap().is_none());
    assert!(walk(ledger).await.is_empty());
    store.restart().await;
    let ledger = store.ledger();
    assert!(ledger.pair(account, pair.grant()).await.unwrap().is_none());
    // The user may come back.
    let again = issue(ledger, "u", "b1", "s1").await;
    assert_eq!((again.account(), again.generation().0), (account, 1));
}
