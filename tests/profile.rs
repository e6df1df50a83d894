//! Profiles: those that come with the library state no fact without a source, and a mistake in
//! one's own is named by line, column and key.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]
#![cfg(feature = "broker")]

use proptest::prelude::*;
use tokenwal::profile::{
    Cap, CapCounts, CapPer, ClientAuth, Endpoints, IdentitySource, Introspects, Meaning, Overflow,
    Problem, Profile, Recovery, Reuse, RevokeBy, RevokeGranularity, Rotates, Rotation, Status,
};
use tokenwal::{Action, Cause};

fn builtins() -> Vec<Profile> {
    Profile::names().into_iter().map(|name| Profile::builtin(name).unwrap()).collect()
}

fn builtin(name: &str) -> Profile {
    Profile::builtin(name).unwrap()
}

/// Reads a profile that is wrong, and says where and what.
fn refused(text: &str) -> String {
    Profile::from_toml(text).unwrap_err().to_string()
}

#[test]
fn the_known_providers_are_there() {
    let names = Profile::names();
    for name in [
        "rfc6749",
        "salesforce",
        "salesforce-rotating",
        "google",
        "github",
        "xero",
        "okta",
        "auth0",
    ] {
        assert!(names.contains(&name), "{name}");
        assert_eq!(builtin(name).name(), name);
        assert!(!builtin(name).title().is_empty());
    }
    assert!(Profile::builtin("no such provider").is_none());
}

#[test]
fn every_fact_tells_where_and_when_it_was_read_or_that_it_was_not() {
    let mut verified = 0;
    for profile in builtins() {
        for line in profile.lines() {
            let name = format!("{} of {}", line.name, profile.name());
            assert_eq!(line.value.is_none(), line.status == Status::Unknown, "{name}");
            match line.status {
                Status::Verified | Status::Secondary => {
                    assert!(!line.source.is_empty(), "{name}");
                    assert!(("2026-11-22"..="2026-11-23").contains(&line.on), "{name}");
                    verified += usize::from(line.status == Status::Verified);
                }
                Status::Memory | Status::Unknown => {
                    assert!(line.on.is_empty() && line.source.is_empty(), "{name}");
                }
                other => panic!("{name} is {other}"),
            }
        }
        for rule in profile.errors() {
            let name = format!("{} of {}", rule.error(), profile.name());
            assert!(matches!(rule.status(), Status::Verified | Status::Secondary), "{name}");
            assert!(!rule.source().is_empty() && rule.on().len() == 10, "{name}");
            assert_eq!(rule.description(), rule.description().to_ascii_lowercase(), "{name}");
        }
    }
    assert!(verified > 60, "{verified}");
}

#[test]
fn what_ends_a_grant_or_sends_again_is_verified() {
    let mut found = 0;
    for profile in builtins() {
        for rule in profile.errors() {
            if matches!(rule.meaning(), Meaning::Dead | Meaning::Busy) {
                assert_eq!(rule.status(), Status::Verified, "{rule:?}");
                found += 1;
            }
        }
        let none = Recovery::None;
        // A window that the tenant sets is none until its owner says otherwise.
        let windowed = profile.recovery().verified().is_some_and(|recovery| *recovery != none);
        assert_eq!(windowed, profile.name() == "xero", "{}", profile.name());
    }
    assert_eq!(found, 8, "four lines of Salesforce, in both of its profiles");
}

#[test]
fn only_salesforces_own_words_end_a_grant() {
    let text = "Expired access/refresh token";
    let means = |profile: &Profile, asked, text| profile.meaning(asked, 400, "invalid_grant", text);
    for profile in builtins() {
        let ends = profile.name().starts_with("salesforce");
        let meaning = if ends { Meaning::Dead } else { Meaning::Suspended };
        assert_eq!(means(&profile, Action::Refresh, text), Some(meaning), "{}", profile.name());
        let other = means(&profile, Action::Refresh, "inactive organization");
        assert_eq!(other, Some(Meaning::Suspended), "{}", profile.name());
        assert_eq!(means(&profile, Action::Exchange, text), Some(Meaning::Suspended));
        assert_eq!(profile.meaning(Action::Refresh, 400, "no_such_error", ""), None);
    }
}

#[test]
fn what_the_story_comes_from_is_told() {
    let salesforce = builtin("salesforce");
    let cap = Cap {
        number: 5,
        guard: 4,
        counts: CapCounts::RefreshTokens,
        per: CapPer::UserApp,
        overflow: Overflow::OldestRevoked,
        outside: 0,
    };
    assert_eq!(salesforce.cap().verified(), Some(&cap));
    assert_eq!(salesforce.revoke().verified(), Some(&RevokeGranularity::Pair));
    assert_eq!(salesforce.introspection().verified(), Some(&Introspects::Both));
    assert_eq!(salesforce.effective_rotation(Rotation::Off), Rotation::Off);
    assert_eq!(salesforce.effective_rotation(Rotation::Unknown), Rotation::Unknown);
    let rotating = builtin("salesforce-rotating");
    assert_eq!(rotating.extends(), Some("salesforce"));
    assert_eq!(rotating.cap(), salesforce.cap());
    assert_eq!(rotating.errors(), salesforce.errors());
    assert_eq!(rotating.effective_rotation(Rotation::Off), Rotation::On);
    assert_eq!(rotating.reuse().verified(), Some(&Reuse::FamilyDies));
    assert_eq!(builtin("google").revoke().verified(), Some(&RevokeGranularity::WholeGrant));
    assert_eq!(builtin("google").effective_rotation(Rotation::Unknown), Rotation::Unknown);
    let replay = Recovery::Replay { seconds: 1800 };
    assert_eq!(builtin("xero").recovery().verified(), Some(&replay));
}

#[test]
fn tokens_go_to_whole_labels_of_verified_hosts_only() {
    let salesforce = builtin("salesforce");
    for host in ["salesforce.com", "login.salesforce.com", "ACME.my.Salesforce.com"] {
        assert!(salesforce.allows_host(host), "{host}");
    }
    for host in ["evilsalesforce.com", "salesforce.com.evil.example", "salesforce.co", "com", ""] {
        assert!(!salesforce.allows_host(host), "{host}");
    }
    // From memory alone, and not known at all.
    assert!(!builtin("okta").allows_host("acme.okta.com"));
    assert!(!builtin("rfc6749").allows_host("example.com"));
}

const OURS: &str = r#"
name = "ours"
title = "Our own"
extends = "okta"

[cap]
number = 20
counts = "grants"
per = "user_app_scope"
overflow = "refused"
outside = 2

[throttle]
number = 10
seconds = 600

[recovery]
kind = "until_successor_used"
max_seconds = 2592000

[revoke]
value = "whole_grant"
status = "memory"

[same_refresh_on_reconsent]
value = true
status = "verified"
source = "https://docs.example.com/oauth"
on = "2026-01-31"

[identity]
from = "look_up"
url = "{instance}/me"
pointer = "/user/id"

[client_auth]
values = ["private_key_jwt", "basic"]

[hosts]
suffixes = ["Accounts.Example.com"]

[endpoints]
token = "https://{host}/token"
revoke = "https://{host}/apps/{client_id}/token"
revoke_by = "delete_json"

[reuse]
status = "unknown"
note = "nobody answered"

[[errors]]
asked = ["refresh", "revoke"]
http = 401
error = "token_gone"
description = "Revoked By User"
meaning = "dead"
cause = "revoked_elsewhere"
"#;

#[test]
fn a_profile_of_ones_own_lies_over_another() {
    let ours = Profile::from_toml(OURS).unwrap();
    let okta = builtin("okta");
    assert_eq!((ours.name(), ours.title(), ours.extends()), ("ours", "Our own", Some("okta")));
    let cap = *ours.cap().verified().unwrap();
    assert_eq!((cap.number, cap.guard, cap.outside), (20, 20, 2));
    assert_eq!((cap.counts, cap.per), (CapCounts::Grants, CapPer::UserAppScope));
    assert_eq!((cap.overflow, ours.cap().status()), (Overflow::Refused, Status::Configured));
    let recovery = Recovery::UntilSuccessorUsed { max_seconds: 2_592_000 };
    assert_eq!(ours.recovery().verified(), Some(&recovery));
    assert_eq!(ours.revoke().known(), Some(&RevokeGranularity::WholeGrant));
    assert_eq!(ours.revoke().verified(), None, "from memory");
    assert_eq!(ours.same_refresh_on_reconsent().on(), "2026-01-31");
    let identity =
        IdentitySource::LookUp { url: "{instance}/me".into(), pointer: "/user/id".into() };
    assert_eq!(ours.identity().known(), Some(&identity));
    let auth = vec![ClientAuth::PrivateKeyJwt, ClientAuth::Basic];
    assert_eq!(ours.client_auth().known(), Some(&auth));
    assert!(ours.allows_host("eu.accounts.example.com") && !ours.allows_host("example.com"));
    let endpoints = Endpoints {
        authorize: None,
        token: "https://{host}/token".into(),
        revoke: Some("https://{host}/apps/{client_id}/token".into()),
        revoke_by: RevokeBy::DeleteJson,
        introspect: None,
    };
    assert_eq!(ours.endpoints().known(), Some(&endpoints), "replaced whole");
    assert_eq!((ours.reuse().known(), ours.reuse().note()), (None, "nobody answered"));
    // What is not stated is the other's.
    assert_eq!(ours.rotation().known(), Some(&Rotates::Optional));
    assert_eq!(ours.expiry(), okta.expiry());
    // One's own errors are asked first, then the other's.
    let gone = |asked, status, text| ours.death_cause(asked, status, "token_gone", text);
    assert_eq!(gone(Action::Refresh, 401, "revoked by user"), Some(Cause::RevokedElsewhere));
    assert_eq!(gone(Action::Refresh, 400, "revoked by user"), None);
    assert_eq!(gone(Action::Exchange, 401, "revoked by user"), None);
    assert_eq!(gone(Action::Refresh, 401, ""), None);
    let inherited = ours.meaning(Action::Refresh, 400, "invalid_client", "");
    assert_eq!(inherited, Some(Meaning::OwnFault));
    assert_eq!(Profile::from_toml("name = \"bare\"").unwrap().extends(), Some("rfc6749"));
}

#[test]
fn mistakes_are_named_by_line_column_and_key() {
    let cases = [
        ("", "line 1, column 1: name: it is missing"),
        ("name = 7", "line 1, column 8: name: it must be a text"),
        ("name = \"a b\"", "line 1, column 8: name: it must be 1 to 64 letters"),
        ("name = \"a\"\nname = \"b\"", "line 2, column 1: this is not TOML: duplicate key"),
        ("name = \"a\"\n  é", "line 2, column 4: this is not TOML:"),
        ("name = \"a\"\ncpa = 1", "line 2, column 1: cpa: there is no such key; there are name,"),
        ("name = \"a\"\ncap = 5", "line 2, column 7: cap: it must be a table"),
        ("name = \"a\"\nextends = \"b\"", "line 2, column 11: extends: it must be one of rfc6749,"),
        ("[cap]\nnumber = 5", "line 1, column 1: name: it is missing"),
        ("name = \"a\"\n[cap]\nguard = 5", "line 2, column 1: cap.number: it is missing"),
        ("name = \"a\"\n[cap]\nnumber = -5", "line 3, column 10: cap.number: it must be a number"),
        ("name = \"a\"\n[cap]\nnumber = 0", "line 3, column 10: cap.number: it must be from 1"),
        ("name = \"a\"\n[cap]\nnumber = 0x5\nguard = 6", "line 4, column 9: cap.guard:"),
        (
            "name = \"a\"\n[cap]\nnumber = 5\noverflow = \"explode\"",
            "line 4, column 12: cap.overflow: it must be one of oldest_revoked, \
             least_used_revoked, refused",
        ),
        (
            "name = \"a\"\nrotation.value = true",
            "line 2, column 18: rotation.value: it must be one",
        ),
        (
            "name = \"a\"\nreuse = {}",
            "line 2, column 9: reuse.value: it must be one of plain_error",
        ),
        (
            "name = \"a\"\n[recovery]\nkind = \"none\"\nseconds = 5",
            "line 4, column 1: recovery.seconds: there is no such key; there are kind, status,",
        ),
        (
            "name = \"a\"\n[identity]\nfrom = \"id_token\"",
            "line 2, column 1: identity.claim: it is missing",
        ),
        (
            "name = \"a\"\n[reuse]\nvalue = \"plain_error\"\nstatus = \"unknown\"",
            "line 3, column 1: reuse.value: there is no such key",
        ),
        (
            "name = \"a\"\n[reuse]\nvalue = \"plain_error\"\nstatus = \"verified\"",
            "line 2, column 1: reuse.source: what is verified or secondary names its",
        ),
        (
            "name = \"a\"\n[iss_parameter]\nvalue = true\nstatus = \"memory\"\non = \"today\"",
            "line 5, column 6: iss_parameter.on: it must be a day",
        ),
        (
            "name = \"a\"\n[hosts]\nsuffixes = [\"com\"]",
            "line 3, column 12: hosts.suffixes: it must",
        ),
        ("name = \"a\"\n[hosts]\nsuffixes = [\"a..b\"]", "line 3, column 12: hosts.suffixes:"),
        (
            "name = \"a\"\n[endpoints]\ntoken = \"http://{host}/token\"",
            "line 3, column 9: endpoints.token: it must be a URL such as",
        ),
        (
            "name = \"a\"\n[endpoints]\ntoken = \"https://{hsot}/\"",
            "line 3, column 9: endpoints.token:",
        ),
        (
            "name = \"a\"\n[[errors]]\nerror = \"x\"\nmeaning = \"dead\"\nstatus = \"memory\"",
            "line 5, column 10: errors[0].status: `dead` and `busy` are acted on",
        ),
        (
            "name = \"a\"\n[[errors]]\nerror = \"x\"\nmeaning = \"dead\"\n\n[[errors]]\nerror = \"y\"\n\
             meaning = \"dead\"\ncause = \"operator\"",
            "line 9, column 9: errors[1].cause: it must be one of evicted, reuse, expired,",
        ),
        (
            "name = \"a\"\n[[errors]]\nerror = \"x\"\nmeaning = \"retry\"\ncause = \"reuse\"",
            "line 5, column 9: errors[0].cause: it must be left out unless",
        ),
        (
            "name = \"a\"\n[[errors]]\nerror = \"x\"\nmeaning = \"retry\"\nhttp = 1000",
            "line 5, column 8: errors[0].http: it must be a status from 100 to 599",
        ),
        (
            "name = \"a\"\n[[errors]]\nerror = \"x\"\nmeaning = \"retry\"\nasked = [\"sing\"]",
            "line 5, column 9: errors[0].asked: it must be one of exchange, refresh,",
        ),
        ("name = \"a\"\n\"\\u001b[2J\" = 1", "line 2, column 1: \\u{1b}[2J: there is no such key"),
    ];
    for (text, expected) in cases {
        let refused = refused(text);
        assert!(refused.starts_with(expected), "{text}\n{refused}\n{expected}");
    }
    let long = format!("name = \"a\"\n{}", "# \n".repeat(100_000));
    assert_eq!(*Profile::from_toml(&long).unwrap_err().problem(), Problem::TooLong);
    let deep = format!("name = {}", "[".repeat(50_000));
    assert!(refused(&deep).contains("not TOML"));
}

#[test]
fn json_is_one_object_with_every_fact() {
    for profile in builtins() {
        let json = serde_json::to_value(&profile).unwrap();
        for line in profile.lines() {
            let fact = &json[line.name];
            assert_eq!(fact["status"], line.status.word(), "{}", line.name);
            assert_eq!(fact["value"].is_null(), line.value.is_none(), "{}", line.name);
        }
        assert_eq!(json["name"], profile.name());
        assert_eq!(json["errors"].as_array().unwrap().len(), profile.errors().len());
    }
    let json = serde_json::to_value(builtin("xero")).unwrap();
    assert_eq!(json["recovery"]["value"], serde_json::json!({"kind": "replay", "seconds": 1800}));
}

proptest! {
    /// A file that was damaged, or typed in haste, is read or refused at a place within it.
    #[test]
    fn no_text_makes_it_panic(cut in 0..OURS.len(), gone in 0_usize..40, typed in "[\\[\\]={}\"a-z0-9.\\n]{0,6}") {
        let (before, after) = OURS.split_at(cut);
        let text = format!("{before}{typed}{}", after.get(gone..).unwrap_or_default());
        if let Err(error) = Profile::from_toml(&text) {
            let lines = text.lines().count() + 1;
            prop_assert!(error.line() >= 1 && error.line() <= lines, "{error} in {text}");
            prop_assert!(error.column() >= 1 && error.to_string().len() < 2000);
        }
    }
}
