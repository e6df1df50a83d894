//! Pairs on their way in and out: imported, activated, exported.

use crate::stores::*;
use std::fmt::Write as _;

const KEPT: &str = r#"{"app":{"provider":"salesforce","client_id":"3MVG9"},"user":"user-1","refresh_token":"sesame-refresh-1-1"}
{"app":{"provider":"salesforce","client_id":"3MVG9"},"user":"user-2","holder":{"tenant":"acme","name":"sync"},"scopes":"api refresh_token","access_token":"sesame-access-2-1","refresh_token":"sesame-refresh-2-1","id_token":"e30","issued_at_ms":1760000000000,"expires_at_ms":1760000007200,"expiry":"declared","instance_url":"https://acme.my.salesforce.com","token_endpoint":"https://login.salesforce.com/services/oauth2/token","fields":{"signature":"c2ln","x":{"y":[1,2.50]}},"paused":false}

{"app":{"provider":"xero","client_id":"c/d"},"user":"user-3","access_token":"sesame-access-3-1","token_type":"bearer"}
"#;

fn created() -> Store {
    let store = Store::named();
    store.create().blocking().close().unwrap();
    store
}

#[test]
fn what_is_imported_is_exported_and_imported_again() {
    let store = created();
    let imported = fed(&["import", store.path(), "--json"], KEPT).ok().lines();
    let numbers: Vec<_> = imported.iter().map(|it| it["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 4]);
    assert!(imported.iter().all(|it| it["already"] == false), "{imported:?}");
    // Once more: nothing is there twice.
    let again = fed(&["import", store.path(), "--json"], KEPT).ok().lines();
    for (first, again) in imported.iter().zip(&again) {
        assert_eq!((&first["grant"], true), (&again["grant"], again["already"] == true));
    }
    let accounts = tokenwal(&["replay", store.path(), "--json"]).ok().lines();
    assert_eq!(accounts.len(), 3);
    let grant_of = |user: &str| {
        let account = accounts.iter().find(|account| account["user"] == user).unwrap();
        account["grants"][0].clone()
    };
    assert_eq!(grant_of("user-1")["paused"], true);
    assert_eq!(grant_of("user-1")["expires_at_ms"], 1, "no access token is one that has lapsed");
    assert_eq!(grant_of("user-2")["paused"], false);
    assert_eq!(grant_of("user-2")["holders"][0]["holder"], "acme/sync");

    let hidden = unchanged(&store.path, || tokenwal(&["export", store.path()]).ok());
    assert!(!hidden.out.contains("sesame") && !hidden.out.contains("c2ln"), "{hidden:?}");
    assert_eq!(hidden.lines().len(), 3);
    let exported = tokenwal(&["export", store.path(), "--reveal"]).ok();
    let line_of =
        |user: &str| exported.lines().into_iter().find(|line| line["user"] == user).unwrap();
    let whole: serde_json::Value = serde_json::from_str(KEPT.lines().nth(1).unwrap()).unwrap();
    let mut two = line_of("user-2");
    assert_eq!(two["scopes"], serde_json::json!(["api", "refresh_token"]));
    two["scopes"] = whole["scopes"].clone();
    two.as_object_mut().unwrap().remove("token_type");
    assert_eq!(two, whole);
    let one = line_of("user-1");
    assert!(one.get("access_token").is_none() && one.get("expires_at_ms").is_none(), "{one}");
    assert_eq!(line_of("user-3")["app"]["client_id"], "c/d");

    let other = created();
    fed(&["import", other.path()], &exported.out).ok();
    let sorted = |store: &Store| {
        let mut lines: Vec<_> = tokenwal(&["export", store.path(), "--reveal"])
            .ok()
            .out
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&other), sorted(&store));
    let only = tokenwal(&["export", other.path(), "xero/c/d", "user-3"]).ok().lines();
    assert_eq!(only.len(), 1);
    assert_eq!(tokenwal(&["verify", other.path(), "--json"]).ok().json()["verdict"], "clean");
}

#[test]
fn a_wrong_line_is_told_by_its_member_and_the_others_are_imported() {
    let store = created();
    let mut text = String::from(KEPT.lines().next().unwrap());
    text.push_str("\n{\"refresh_tokn\":\"sesame\"}\nnot json sesame\n");
    let second = KEPT.lines().nth(1).unwrap().replace("1760000007200", "\"sesame\"");
    writeln!(text, "{second}").unwrap();
    writeln!(text, "{}", KEPT.lines().nth(3).unwrap()).unwrap();
    let ran = fed(&["import", store.path(), "--json"], &text);
    for words in [
        "line 2: app: it is missing",
        "line 3: the line: it is not one JSON object",
        "line 4: expires_at_ms: it must be a time in milliseconds",
    ] {
        assert!(ran.err.contains(words), "{words}: {ran:?}");
    }
    assert!(!ran.err.contains("sesame"), "{ran:?}");
    assert_eq!(ran.lines().len(), 2);
    ran.says(1, &["3 lines are wrong", "import all again"]);
    let huge = KEPT.lines().next().unwrap().replace("-1-1", &"x".repeat(100_000));
    fed(&["import", store.path()], &huge).says(1, &["1 line is wrong"]);
    let checked = unchanged(&store.path, || fed(&["import", store.path(), "--check"], &text));
    checked.says(1, &["3 lines are wrong"]);
    fed(&["import", store.path(), "--check"], KEPT).ok();
    // What cannot be read as a line at all keeps no other from being imported, nor from being told.
    let other = KEPT.lines().next().unwrap().replace("-1-1", "-another-");
    let long = "x".repeat((1 << 20) + 2);
    let bytes = [&b"\xff\xfe sesame\n"[..], long.as_bytes(), b"x\n\xff", b"\n", other.as_bytes()];
    let ran = fed_bytes(&["import", store.path(), "--json"], &bytes.concat());
    assert!(!ran.err.contains("sesame"), "{ran:?}");
    assert_eq!(ran.lines().iter().map(|it| it["line"].as_u64().unwrap()).collect::<Vec<_>>(), [4]);
    ran.says(
        1,
        &["line 1: it is not text", "line 2: it has more than 1 MiB", "line 3: it is", "3"],
    );
    // One token is one grant: under two names it would be presented twice.
    let twice = [other.clone(), other.replace("user-", "someone-")].join("\n");
    fed(&["import", store.path()], &twice)
        .says(1, &["line 2: its refresh token is that of line 1"]);
    // A token has no control characters (RFC 6749, appendix A.12 and A.17).
    let odd = other.replace("-another-", "\\u0000\\n");
    fed(&["import", store.path()], &odd).says(1, &["without control characters"]);
}

#[test]
fn the_first_import_makes_the_store() {
    let store = Store::named();
    fed(&["import", store.path()], KEPT).says(1, &["import --create"]);
    let create = ["import", store.path(), "--create"];
    assert!(fed(&create, KEPT).ok().out.contains("3 lines imported"));
    assert!(fed(&create, KEPT).ok().out.contains("0 lines imported, 3 there before"));
    assert_eq!(tokenwal(&["export", store.path(), "--json"]).ok().lines().len(), 3);
}

#[test]
fn an_imported_grant_is_refreshed_only_after_it_was_activated() {
    let store = created();
    fed(&["import", store.path()], KEPT).ok();
    let names = ["salesforce/3MVG9", "user-1"];
    let paused = || {
        let usage = tokenwal(&[&["lineage", store.path()], &names[..]].concat()).ok().out;
        usage.contains("paused since it was imported")
    };
    assert!(paused());
    let args = [&["activate", store.path()], &names[..]].concat();
    let done = tokenwal(&[&args[..], &["--json"]].concat()).ok().json();
    assert_eq!((&done["done"], &done["by_owner"]), (&"activated".into(), &false.into()));
    assert!(!paused());
    tokenwal(&args).says(1, &["no grant that waits to be activated"]);
    let journal = store.open();
    let grant = tokenwal::GrantId(done["grant"].as_u64().unwrap());
    journal.blocking().begin(tokenwal::Begin::refresh(&account(1), grant)).unwrap();
    journal.blocking().close().unwrap();
}

#[test]
fn many_lines_are_one_record_each() {
    let store = created();
    let mut text = String::new();
    for number in 0..1000 {
        writeln!(
            text,
            r#"{{"app":{{"provider":"p","client_id":"c"}},"user":"user-{number}","refresh_token":"{}"}}"#,
            refresh_token(number, 1)
        )
        .unwrap();
    }
    let ran = fed(&["import", store.path()], &text).ok();
    assert!(ran.out.ends_with("1000 lines imported, 0 there before, 0 wrong\n"), "{}", ran.out);
    let stat = tokenwal(&["stat", store.path(), "--json"]).ok().json();
    assert_eq!(stat["accounts_touched"], 1000);
}
