//! What is seen: imports, what needs a look, callbacks, the past, and all of it after a restart.

use crate::assert_err;
use crate::harness::Harness;
use crate::words::*;
use std::collections::BTreeSet;
use std::time::Duration;
use tokenwal::ledger::{Change, Ledger};
use tokenwal::{
    AccountTag, Begin, Cause, Confidence, Error, GrantId, GrantState, Import, ResolvedHow, Secret,
};

pub async fn an_import_happens_once<H: Harness>(store: &mut H) {
    let import = || Import::new(&account("u"), answer("a1", "r1")).scopes(["api"]);
    let first = store.ledger().import(import()).await.unwrap();
    assert!(!first.already && !first.ended);
    assert_eq!(first.account, tag(store.ledger(), "u"));
    for _ in 0..2 {
        let ledger = store.ledger();
        let again = ledger.import(import()).await.unwrap();
        assert!(again.already && !again.ended);
        assert_eq!((again.grant, again.lsn), (first.grant, first.lsn));
        assert_eq!(view(ledger, first.account).await.grants.len(), 1);
        store.restart().await;
    }
    let ledger = store.ledger();
    let seen = grant(ledger, first.account, first.grant).await;
    assert!(seen.imported && seen.paused && seen.state == GrantState::Waiting);
    assert_eq!(seen.scopes, ["api"]);
    assert_eq!(seen.adopt_by_ms, ledger.now_ms() + 24 * 3600 * 1000);
    // It has moved on since, and the old token is still known.
    ledger.change(first.account, Change::Activate { grant: first.grant }).await.unwrap();
    for (access, refresh) in [("a2", "r2"), ("a3", "r3")] {
        let ticket = ledger.begin(Begin::refresh(first.account, first.grant)).await.unwrap();
        settle_pair(ledger, ticket, issued(access, refresh)).await;
        assert!(ledger.import(import()).await.unwrap().already);
    }
    // Nor does it revive what has ended.
    let (cause, confidence) = (Cause::Operator, Confidence::Certain);
    let end = Change::End { grant: first.grant, cause, confidence };
    ledger.change(first.account, end).await.unwrap();
    let again = ledger.import(import().holder(&holder("h"))).await.unwrap();
    assert!(again.already && again.ended && again.generation.0 == 3);
    assert_eq!(tokens(ledger, first.account, first.grant).await, texts("a3", "r3"));
    // Without a refresh token it is the access token that is known.
    let bare = || Import::new(&account("v"), answer("b1", ""));
    let first = ledger.import(bare()).await.unwrap();
    assert_eq!(ledger.import(bare()).await.unwrap().grant, first.grant);
}

pub async fn an_import_is_paused_until_it_is_activated<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let import = Import::new(&account("u"), answer("a1", "r1"));
    let (account, id) = {
        let imported = ledger.import(import).await.unwrap();
        (imported.account, imported.grant)
    };
    for begin in [Begin::refresh(account, id), Begin::revoke(account, id)] {
        assert_err!(ledger.begin(begin).await, Error::Paused { grant, .. } if grant == id);
    }
    assert_eq!(tokens(ledger, account, id).await, texts("a1", "r1"));
    let asking = ledger.begin(Begin::introspect(account, id)).await.unwrap();
    ledger.settle(asking, tokenwal::Outcome::Answered).await.unwrap();
    // Who signs in again gets the same grant, and nobody has switched the old refresher off.
    let ticket = ledger.begin(Begin::exchange(&app()).user(&user("u"))).await.unwrap();
    let again = settle_pair(ledger, ticket, issued("a2", "r1")).await;
    assert_eq!(again.grant(), id);
    assert!(grant(ledger, account, id).await.paused);
    store.restart().await;
    let ledger = store.ledger();
    let refresh = || ledger.begin(Begin::refresh(account, id));
    assert_err!(refresh().await, Error::Paused { .. });
    ledger.change(account, Change::Activate { grant: id }).await.unwrap();
    let next = settle_pair(ledger, refresh().await.unwrap(), issued("a3", "r2")).await;
    assert_eq!(next.grant(), id);
    assert!(!grant(ledger, account, id).await.paused);
    let running = Import::new(&self::account("v"), answer("b1", "s1")).paused(false);
    let imported = ledger.import(running).await.unwrap();
    ledger.begin(Begin::refresh(imported.account, imported.grant)).await.unwrap();
}

pub async fn an_import_may_name_its_holder<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let import = |name| {
        let import = Import::new(&account("u"), answer("a1", "r1")).paused(false);
        import.holder(&holder(name)).adopt_within(Duration::from_secs(60))
    };
    let imported = ledger.import(import("h")).await.unwrap();
    let (account, id) = (imported.account, imported.grant);
    let holders = async |store: &H| {
        let holders = grant(store.ledger(), account, id).await.holders.into_iter();
        holders.map(|held| held.holder.unwrap().name().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(holders(store).await, BTreeSet::from(["h".to_owned()]));
    assert!(!ledger.pending().await.unwrap().contains(&account));
    ledger.import(import("h")).await.unwrap();
    ledger.import(import("k")).await.unwrap();
    let ticket = ledger.begin(Begin::refresh(account, id)).await.unwrap();
    settle_pair(ledger, ticket, issued("a2", "r2")).await;
    store.restart().await;
    assert_eq!(holders(store).await, BTreeSet::from(["h".to_owned(), "k".to_owned()]));
    let release = Change::Release { grant: id, holder: holder("h") };
    store.ledger().change(account, release).await.unwrap();
    store.restart().await;
    assert_eq!(holders(store).await, BTreeSet::from(["k".to_owned()]));
}

pub async fn what_needs_a_look_is_pending<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let held = issue(ledger, "held", "a1", "r1").await;
    adopt(ledger, &held, "h", &[]).await;
    let doubtful = issue(ledger, "doubtful", "b1", "s1").await;
    adopt(ledger, &doubtful, "h", &[]).await;
    let op = lose_refresh(ledger, &doubtful).await;
    let orphan = issue(ledger, "orphan", "c1", "t1").await;
    let open = ledger.begin(Begin::exchange(&app())).await.unwrap().account();
    let ended = issue(ledger, "ended", "d1", "u1").await;
    let (cause, confidence) = (Cause::Operator, Confidence::Certain);
    let end = Change::End { grant: ended.grant(), cause, confidence };
    ledger.change(ended.account(), end).await.unwrap();
    let all = BTreeSet::from([doubtful.account(), orphan.account(), open]);
    for _ in 0..2 {
        let pending = store.ledger().pending().await.unwrap();
        assert!(pending.is_sorted());
        assert_eq!(pending.into_iter().collect::<BTreeSet<_>>(), all);
        store.ledger().prune().await.unwrap();
        store.restart().await;
    }
    let ledger = store.ledger();
    let resolve = Change::Resolve { op, how: ResolvedHow::Waived };
    ledger.change(doubtful.account(), resolve).await.unwrap();
    adopt(ledger, &orphan, "h", &[]).await;
    assert_eq!(ledger.pending().await.unwrap(), [open]);
}

pub async fn a_walk_shows_every_account_once<H: Harness>(store: &mut H) {
    for number in 0..20 {
        issue(store.ledger(), &format!("u{number}"), &format!("a{number}"), "").await;
    }
    for _ in 0..2 {
        let ledger = store.ledger();
        let all = walk(ledger).await;
        assert!(all.is_sorted_by_key(|account| account.account_tag));
        let seen: BTreeSet<_> =
            all.iter().map(|account| account.user.clone().unwrap().as_str().to_owned()).collect();
        assert_eq!((all.len(), seen.len()), (20, 20));
        for account in &all {
            assert_eq!(view(ledger, account.account_tag).await, *account);
        }
        ledger.prune().await.unwrap();
        store.restart().await;
    }
}

pub async fn a_callback_is_found_again<H: Harness>(store: &mut H) {
    let tags = [1, 2, 3].map(|number| AccountTag::from_bytes([number; 16]));
    let since = store.ledger().head();
    let mut ids = [GrantId::NONE; 3];
    for (number, callback) in tags.into_iter().enumerate() {
        let ledger = store.ledger();
        assert!(ledger.redeemed(callback).await.unwrap().is_none());
        let ticket = ledger.begin(Begin::exchange(&app()).under(callback, since)).await.unwrap();
        assert_eq!(ticket.account(), callback);
        let op = ticket.op();
        let redeemed = ledger.redeemed(callback).await.unwrap().unwrap();
        assert_eq!((redeemed.op, redeemed.account, redeemed.grant), (op, callback, None));
        let outcome = match number {
            0 => issued_to("u", "a1", "r1"),
            1 => issued("b1", "s1"),
            _ => doubt(),
        };
        ledger.settle(ticket, outcome).await.unwrap();
        let redeemed = ledger.redeemed(callback).await.unwrap().unwrap();
        assert_eq!(redeemed.grant.is_some(), number < 2);
        ids[number] = redeemed.grant.unwrap_or_default();
        assert_eq!(redeemed.account, if number == 0 { tag(ledger, "u") } else { callback });
    }
    // What moves is followed.
    let identify = Change::Identify { grant: ids[1], account: account("v") };
    store.ledger().change(tags[1], identify).await.unwrap();
    let merge = Change::Merge { to: account("w") };
    let from = tag(store.ledger(), "u");
    store.ledger().change(from, merge).await.unwrap();
    for _ in 0..2 {
        let ledger = store.ledger();
        for (callback, (name, id)) in tags.iter().zip([("w", ids[0]), ("v", ids[1])]) {
            let redeemed = ledger.redeemed(*callback).await.unwrap().unwrap();
            assert_eq!((redeemed.account, redeemed.grant), (tag(ledger, name), Some(id)));
        }
        let redeemed = ledger.redeemed(tags[2]).await.unwrap().unwrap();
        assert_eq!((redeemed.account, redeemed.grant), (tags[2], None));
        store.restart().await;
    }
}

pub async fn the_past_is_kept_in_order<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = issue(ledger, "u", "A!1", "r1").await;
    adopt(ledger, &pair, "h", &["api"]).await;
    lose_refresh(ledger, &pair).await;
    let (cause, confidence) = (Cause::Evicted, Confidence::Probable);
    let end = Change::End { grant: pair.grant(), cause, confidence };
    ledger.change(pair.account(), end).await.unwrap();
    issue(ledger, "other", "b1", "s1").await;
    for _ in 0..2 {
        let history = store.ledger().history(pair.account()).await.unwrap();
        let kinds: Vec<_> = history.events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, ["intent", "issued", "adopted", "intent", "in_doubt", "ended"]);
        assert!(history.events.is_sorted_by_key(|event| event.lsn));
        assert!(history.complete_from <= history.events[0].lsn);
        let shown = format!("{history:?}");
        assert!(!shown.contains("A!1"), "{shown}");
        store.restart().await;
    }
}

pub async fn what_was_acknowledged_outlives_the_process<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let pair = issue(ledger, "u", "a1", "r1").await;
    adopt(ledger, &pair, "h", &["api"]).await;
    let ticket = ledger.begin(Begin::refresh(pair.account(), pair.grant())).await.unwrap();
    settle_pair(ledger, ticket, issued("a2", "r2")).await;
    let (account, id) = (pair.account(), pair.grant());
    let worked = Change::Worked { grant: id, generation: tokenwal::Generation(2) };
    ledger.change(account, worked).await.unwrap();
    lose_refresh(ledger, &pair).await;
    issue(ledger, "other", "b1", "").await;
    ledger.import(Import::new(&self::account("moved"), answer("c1", "t1"))).await.unwrap();
    let (before, head) = (walk(ledger).await, ledger.head());
    assert_eq!(before.len(), 3);
    for _ in 0..3 {
        store.restart().await;
        let ledger = store.ledger();
        assert!(ledger.head() >= head);
        assert_eq!(walk(ledger).await, before);
        assert_eq!(tokens(ledger, account, id).await, texts("a2", "r2"));
        ledger.prune().await.unwrap();
        assert_eq!(walk(ledger).await, before);
    }
}

pub async fn tags_and_keys_are_the_same_for_the_life_of_the_store<H: Harness>(store: &mut H) {
    let named = |ledger: &H::Ledger| {
        let key = format!("{:?}", ledger.derive("cookie"));
        assert!(!key.chars().any(|c| c.is_ascii_digit()), "{key}");
        let token = Secret::new("token".to_owned());
        let account = account("u");
        let tag = ledger.tag_of(&(&account).into());
        assert_eq!(ledger.tag_of(&tag.into()), tag);
        (tag, ledger.holder_tag(&holder("h")), ledger.fingerprint(&token))
    };
    let before = named(store.ledger());
    store.restart().await;
    assert_eq!(named(store.ledger()), before);
}

pub async fn what_a_claimed_copy_has_is_stale_until_it_proves_itself<H: Harness>(store: &mut H) {
    let ledger = store.ledger();
    let first = issue(ledger, "u", "a1", "r1").await;
    let second = issue(ledger, "u", "b1", "s1").await;
    let account = first.account();
    assert!(!grant(ledger, account, first.grant()).await.stale);
    store.restart().await;
    assert!(!grant(store.ledger(), account, first.grant()).await.stale, "nobody took it over");
    store.claim().await;
    let ledger = store.ledger();
    for pair in [&first, &second] {
        assert!(grant(ledger, account, pair.grant()).await.stale);
    }
    // A newer pair is this host's own, and so is what is said of the newest.
    let ticket = ledger.begin(Begin::refresh(account, first.grant())).await.unwrap();
    settle_pair(ledger, ticket, issued("a2", "r2")).await;
    let worked = |generation| Change::Worked { grant: second.grant(), generation };
    ledger.change(account, worked(tokenwal::Generation(7))).await.unwrap();
    assert!(!grant(ledger, account, first.grant()).await.stale);
    assert!(grant(ledger, account, second.grant()).await.stale, "of another generation");
    ledger.change(account, worked(second.generation())).await.unwrap();
    store.restart().await;
    for pair in [&first, &second] {
        assert!(!grant(store.ledger(), account, pair.grant()).await.stale);
    }
    store.claim().await;
    for pair in [&first, &second] {
        assert!(grant(store.ledger(), account, pair.grant()).await.stale);
    }
}
