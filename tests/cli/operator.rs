//! What an operator looks at: how the caps are used, what nobody depends on, what is in doubt, how
//! a grant came to be as it is, and why it died. None of it changes a store, and none shows a
//! token.

use crate::stores::*;
use std::path::PathBuf;
use tokenwal::{
    Begin, Doubt, DoubtReason, Holder, Journal, Outcome, Refusal, RefusalClass, Secret,
};

const COMMANDS: [&str; 3] = ["usage", "orphans", "indoubt"];

fn holder(name: &str) -> Holder {
    Holder::new("acme", name).unwrap()
}

/// A file of apps in which the tests' app does not rotate.
fn apps(store: &Store, more: &str) -> PathBuf {
    let path = store.beside("apps.toml");
    let text = format!("[[app]]\nprovider = \"salesforce\"\nclient_id = \"3MVG9\"\n{more}\n");
    std::fs::write(&path, text).unwrap();
    path
}

/// As many grants of one user as are told; returns the first.
fn approvals(journal: &Journal, count: u32) -> tokenwal::GrantId {
    let blocking = journal.blocking();
    let mut first = None;
    for generation in 0..count {
        let ticket = blocking.begin(Begin::exchange(&app())).unwrap();
        let settled = blocking.settle(ticket, response(1, generation + 1)).unwrap();
        let tokenwal::Settled::Issued(pair) = settled else { panic!("{settled:?}") };
        first = first.or(Some(pair.grant()));
    }
    first.unwrap()
}

fn refuse(journal: &Journal, grant: tokenwal::GrantId, error: &str, description: &str) {
    let blocking = journal.blocking();
    let ticket = blocking.begin(Begin::refresh(&account(1), grant)).unwrap();
    let sent = Secret::new(refresh_token(1, 1));
    let refusal = Refusal::new(RefusalClass::Dead, 400, error, description, &[&sent]);
    blocking.settle(ticket, Outcome::Refused(refusal)).unwrap();
}

#[test]
fn usage_counts_what_the_provider_counts() {
    let store = Store::named();
    let journal = store.create();
    let first = approvals(&journal, 3);
    journal.blocking().adopt(&account(1), first, &holder("sync")).unwrap();
    issue(&journal, 2);
    drop(journal.blocking().begin(Begin::exchange(&app()).user(&user(1))).unwrap());
    journal.blocking().close().unwrap();
    let usage = |more: &[&str]| {
        unchanged(&store.path, || tokenwal(&[&["usage", store.path()], more].concat()).ok())
    };
    let lines = usage(&["--json"]).lines();
    let of = |name: &str| {
        let found = lines.iter().find(|line| line["user"] == name);
        found.unwrap_or_else(|| panic!("{lines:?}"))
    };
    let one = of("user-1");
    assert_eq!((&one["live"], &one["held"]), (&4.into(), &1.into()), "{one}");
    assert_eq!((&one["orphans"], &one["in_doubt"]), (&2.into(), &1.into()), "{one}");
    // The profile's guard is four: one more would end the oldest.
    assert_eq!((&one["limit"], &one["near_cap"]), (&4.into(), &true.into()), "{one}");
    assert_eq!(one["victim"], first.0, "{one}");
    assert_eq!(of("user-2")["live"], 1);
    let near = usage(&["--json", "--near-cap"]).lines();
    assert_eq!(near.len(), 1, "{near:?}");
    let text = usage(&[]).out;
    assert!(text.starts_with("account "), "{text}");
    assert!(text.contains(&format!("one more would end grant {first}")), "{text}");

    // An app's own cap, and sessions out of sight.
    let file = apps(&store, "cap = 9\noutside = 2");
    let lines = usage(&["--json", "--apps", file.to_str().unwrap()]).lines();
    let one = lines.iter().find(|line| line["user"] == "user-1").unwrap();
    assert_eq!((&one["live"], &one["limit"]), (&6.into(), &9.into()), "{one}");
    assert_eq!(one["near_cap"], false);
}

#[test]
fn without_a_key_there_are_tags_and_no_rules() {
    let store = Store::closed(4);
    std::fs::rename(key_of(&store.path), store.beside("away")).unwrap();
    for command in COMMANDS {
        let shown = tokenwal(&[command, store.path(), "--json"]).ok();
        assert!(!shown.out.contains("salesforce") && !shown.out.contains("user-"), "{shown:?}");
        assert!(!shown.lines().is_empty(), "{command}");
        tokenwal(&[command, store.path()]).ok();
    }
    let usage = tokenwal(&["usage", store.path(), "--json"]).ok().lines();
    assert!(usage.iter().all(|line| line["limit"].is_null() && line["near_cap"].is_null()));
    let tag = usage[0]["account_tag"].as_str().unwrap().to_owned();
    for command in ["lineage", "why"] {
        tokenwal(&[command, store.path(), "--account", &tag]).ok();
        tokenwal(&[command, store.path(), "salesforce/3MVG9", "user-1"])
            .says(1, &["the key of this store is not known", "--account TAG"]);
    }
}

#[test]
fn looking_disturbs_no_owner_and_shows_no_token() {
    let store = Store::named();
    let journal = store.create();
    populate(&journal, 0..6);
    soon(|| !tokenwal(&["indoubt", store.path(), "--json"]).ok().out.is_empty());
    // The owner has done what it does by itself: proven its last batch, made a segment ready.
    soon(|| {
        let before = picture(&store.path);
        std::thread::sleep(std::time::Duration::from_millis(300));
        picture(&store.path) == before
    });
    let named: [&[&str]; 5] = [
        &["usage", store.path()],
        &["orphans", store.path()],
        &["indoubt", store.path()],
        &["lineage", store.path(), "salesforce/3MVG9", "user-3"],
        &["why", store.path(), "salesforce/3MVG9", "user-3"],
    ];
    for args in named {
        for json in [&[][..], &["--json"]] {
            let shown = unchanged(&store.path, || tokenwal(&[args, json].concat()).ok());
            assert!(!shown.out.is_empty(), "{args:?}");
            assert!(TOKEN_WORDS.iter().all(|word| !shown.out.contains(word)), "{shown:?}");
        }
    }
    issue(&journal, 100);
    journal.blocking().close().unwrap();
}

#[test]
fn where_there_is_nothing_to_show_that_is_said() {
    let store = Store::named();
    store.create().blocking().close().unwrap();
    let says = [
        ("usage", "there is no account in the store\n"),
        ("orphans", "every living grant has a holder\n"),
        ("indoubt", "no operation is in doubt\n"),
    ];
    for (command, words) in says {
        assert_eq!(tokenwal(&[command, store.path()]).ok().out, words);
        assert_eq!(tokenwal(&[command, store.path(), "--json"]).ok().out, "");
    }
    let near = tokenwal(&["usage", store.path(), "--near-cap"]).ok().out;
    assert_eq!(near, "no account is near its cap\n");
}

#[test]
fn orphans_are_listed_by_age_with_what_keeps_them() {
    let store = Store::named();
    let journal = store.create();
    let old = issue(&journal, 1);
    journal.blocking().adopt(&account(1), old.grant(), &holder("sync")).unwrap();
    journal.blocking().release(&account(1), old.grant(), &holder("sync")).unwrap();
    let waits = issue(&journal, 2);
    let held = issue(&journal, 3);
    journal.blocking().adopt(&account(3), held.grant(), &holder("sync")).unwrap();
    journal.blocking().close().unwrap();
    let lines =
        unchanged(&store.path, || tokenwal(&["orphans", store.path(), "--json"]).ok().lines());
    let grants: Vec<_> = lines.iter().map(|line| line["grant"].as_u64().unwrap()).collect();
    assert_eq!(grants, [old.grant().0, waits.grant().0]);
    // Its access token lapsed in 2025, nobody holds it, and Salesforce revokes a pair alone.
    assert_eq!((&lines[0]["state"], &lines[0]["revocable"]), (&"released".into(), &true.into()));
    assert_eq!(lines[1]["keeps"], "waiting");
    let text = tokenwal(&["orphans", store.path()]).ok().out;
    assert!(text.contains("it may be revoked without asking"), "{text}");
    assert!(text.contains("waits for its holder until "), "{text}");
}

#[test]
fn what_is_in_doubt_is_shown_with_what_the_rules_allow() {
    let store = Store::named();
    let journal = store.create();
    let pair = issue(&journal, 1);
    let blocking = journal.blocking();
    let ticket = blocking.begin(Begin::refresh(&account(1), pair.grant())).unwrap();
    let refresh = ticket.op();
    let doubt = Outcome::InDoubt(Doubt::new(DoubtReason::Timeout));
    blocking.settle(ticket, doubt).unwrap();
    let ticket = blocking.begin(Begin::exchange(&app())).unwrap();
    let exchange = ticket.op();
    let shown = |more: &[&str]| {
        let lines = tokenwal(&[&["indoubt", store.path(), "--json"], more].concat()).ok().lines();
        let of = |op: tokenwal::OpId| {
            lines
                .iter()
                .find(|line| line["op"] == op.0)
                .unwrap_or_else(|| panic!("{lines:?}"))
                .clone()
        };
        (of(refresh), of(exchange))
    };
    soon(|| tokenwal(&["indoubt", store.path(), "--json"]).ok().lines().len() == 2);
    // While its process lives, the exchange may yet have an answer.
    let (doubtful, open) = shown(&[]);
    assert_eq!((&doubtful["on_its_way"], &open["on_its_way"]), (&false.into(), &true.into()));
    assert!(open["step"].is_null(), "{open}");
    drop(ticket);
    blocking.close().unwrap();
    let (doubtful, open) = shown(&[]);
    assert_eq!(open["step"]["ask"], "code_once", "{open}");
    assert!(open["says"].as_str().unwrap().contains(&format!("resolve DIR {exchange} --as")));
    // Whether it rotates is not said, so nothing is presented before the provider was asked.
    assert!(doubtful["step"]["wait"].as_u64().is_some(), "{doubtful}");
    assert_eq!(doubtful["doubt"], "timeout", "{doubtful}");
    let file = apps(&store, "rotates = false");
    let (doubtful, _) = shown(&["--apps", file.to_str().unwrap()]);
    assert_eq!(doubtful["step"], "resend", "{doubtful}");
    let text = tokenwal(&["indoubt", store.path()]).ok().out;
    assert!(text.contains(&format!("refresh of grant {}", pair.grant())), "{text}");
}

#[test]
fn why_names_the_cause_and_the_evidence() {
    let store = Store::named();
    let journal = store.create();
    let first = approvals(&journal, 6);
    journal.blocking().adopt(&account(1), first, &holder("first")).unwrap();
    refuse(&journal, first, "invalid_grant", "expired access/refresh token");
    journal.blocking().close().unwrap();
    let names = ["salesforce/3MVG9", "user-1"];
    let why = |more: &[&str]| {
        let args = [&["why", store.path()], &names[..], more].concat();
        unchanged(&store.path, || tokenwal(&args).ok())
    };
    let findings = why(&["--json"]).lines();
    assert_eq!(findings.len(), 6);
    let dead = &findings[0];
    assert_eq!((&dead["grant"], &dead["cause"]), (&first.0.into(), &"evicted".into()), "{dead}");
    assert_eq!(dead["confidence"], "probable");
    let evidence: Vec<_> =
        dead["evidence"].as_array().unwrap().iter().map(|it| it["says"].to_string()).collect();
    let has = |words: &str| evidence.iter().any(|says| says.contains(words));
    assert!(has("invalid_grant: expired access/refresh token"), "{evidence:?}");
    assert_eq!(evidence.iter().filter(|says| says.contains("generation 1 issued")).count(), 6);
    assert!(findings[1]["cause"].is_null(), "{}", findings[1]);
    let text = why(&[]).out;
    for words in ["timeline", "pushed it out (probable)", "evidence: LSN", "do next: see"] {
        assert!(text.contains(words), "{words:?}: {text}");
    }
    let one = why(&[&first.to_string(), "--json"]).lines();
    assert_eq!(one.len(), 1);

    let nobody = tokenwal(&["why", store.path(), "salesforce/3MVG9", "user-9"]);
    nobody.says(1, &["not in the store", "usage"]);
    tokenwal(&["why", store.path(), "3MVG9", "user-1"]).says(1, &["PROVIDER/CLIENT_ID"]);
    tokenwal(&["why", store.path()]).says(1, &["the account is not named"]);
}

#[test]
fn lineage_tells_each_record_of_an_account() {
    let store = Store::closed(4);
    let args = ["lineage", store.path(), "salesforce/3MVG9", "user-0", "--json"];
    let events = unchanged(&store.path, || tokenwal(&args).ok().lines());
    let kinds: Vec<_> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    let expected = ["intent", "issued", "adopted", "intent", "issued", "released", "intent"];
    assert_eq!(kinds, expected);
    let text = tokenwal(&args[..4]).ok().out;
    assert!(text.contains("adopted by acme/sync") && text.contains("generation 2"), "{text}");
}

#[test]
fn a_file_of_apps_that_is_wrong_is_told_by_line_and_key() {
    let store = Store::closed(1);
    let cases = [
        ("client_secret = \"sesame\"", "unknown field `client_secret`"),
        ("profile = \"no-such\"", "there is no profile \"no-such\""),
        ("profile = \"google\"\nprofile_file = \"x\"", "not both"),
        ("[[app]]\nprovider = \"salesforce\"\nclient_id = \"3MVG9\"", "it is there twice"),
        ("cap = ", "line 4"),
    ];
    for (more, says) in cases {
        let file = apps(&store, more);
        let ran = tokenwal(&["usage", store.path(), "--apps", file.to_str().unwrap()]);
        assert!(!ran.err.contains("sesame"), "{ran:?}");
        ran.says(1, &[says, "apps.toml"]);
    }
    let missing = store.beside("none.toml");
    tokenwal(&["usage", store.path(), "--apps", missing.to_str().unwrap()])
        .says(1, &["none.toml", "can be read"]);
}
