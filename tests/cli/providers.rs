//! What is known of providers, as people and as machines read it; and profiles of one's own.

use crate::stores::*;
use std::path::PathBuf;
use tokenwal::profile::Profile;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ours.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

#[test]
fn all_providers_stand_in_one_table() {
    let shown = tokenwal(&["providers"]).ok().out;
    let table: Vec<&str> = shown.lines().collect();
    assert!(table[0].starts_with("name "), "{shown}");
    for (line, name) in table[1..].iter().zip(Profile::names()) {
        assert!(line.starts_with(&format!("{name} ")), "{shown}");
    }
    let line =
        |name: &str| table.iter().find(|line| line.starts_with(&format!("{name} "))).unwrap();
    let cells: Vec<&str> =
        line("salesforce-rotating").split("  ").filter(|it| !it.is_empty()).collect();
    let cells: Vec<&str> = cells.iter().map(|cell| cell.trim()).collect();
    assert_eq!(cells, ["salesforce-rotating", "5", "always", "none", "family dies", "pair"]);
    assert!(line("xero").contains("again for 1800 s"), "{shown}");
    assert!(line("google").contains("never ?"), "what is not verified is marked: {shown}");
    assert!(line("rfc6749").contains("unknown"), "{shown}");
}

#[test]
fn one_provider_is_shown_with_every_source() {
    let salesforce = Profile::salesforce();
    let shown = tokenwal(&["providers", "salesforce"]).ok().out;
    assert!(shown.starts_with("salesforce: Salesforce"), "{shown}");
    for line in salesforce.lines() {
        assert!(shown.contains(&format!("\n{} ", line.name)), "{} in {shown}", line.name);
        assert!(line.source.is_empty() || shown.contains(line.source), "{} in {shown}", line.name);
    }
    for rule in salesforce.errors() {
        assert!(shown.contains(rule.error()) && shown.contains(rule.source()), "{shown}");
    }
    assert!(shown.contains("verified 2026-11-2"), "{shown}");
    let okta = tokenwal(&["providers", "okta"]).ok().out;
    assert!(okta.contains("from memory"), "{okta}");
}

#[test]
fn machines_read_one_object_a_line() {
    let all = tokenwal(&["providers", "--json"]).ok().lines();
    let names: Vec<&str> = all.iter().map(|profile| profile["name"].as_str().unwrap()).collect();
    assert_eq!(names, Profile::names());
    let one = tokenwal(&["providers", "xero", "--json"]).ok();
    assert_eq!(one.out.lines().count(), 1);
    let one = one.json();
    assert_eq!(one, all[names.iter().position(|name| *name == "xero").unwrap()]);
    assert_eq!(one["recovery"]["value"]["seconds"], 1800);
    assert_eq!(one["recovery"]["status"], "verified");
    assert_eq!(one["recovery"]["source"], "https://developer.xero.com/faq/oauth2");
    assert!(one["cap"]["value"].is_null());
}

#[test]
fn a_profile_of_ones_own_is_shown_as_it_will_be_read() {
    let (_dir, path) = file(
        "name = \"ours\"\ntitle = \"Ours \\u001b[2J\"\nextends = \"auth0\"\n[revoke]\n\
         value = \"pair\"\n[[errors]]\nasked = [\"refresh\"]\nhttp = 403\nerror = \"gone\"\n\
         meaning = \"dead\"\ncause = \"expired\"\n",
    );
    let path = path.to_str().unwrap();
    let shown = tokenwal(&["providers", "--file", path]).ok().out;
    for words in ["ours: Ours \\u{1b}[2J", "that of auth0", "configured", "200 refresh tokens"] {
        assert!(shown.contains(words), "{words} in {shown}");
    }
    assert!(shown.contains("refresh  403     gone"), "{shown}");
    let json = tokenwal(&["providers", "--json", "--file", path]).ok().json();
    assert_eq!(json["revoke"]["value"], "pair");
    assert_eq!(json["revoke"]["status"], "configured");
    assert_eq!(json["errors"][0]["cause"], "expired");
}

#[test]
fn what_cannot_be_shown_is_said_plainly() {
    let known = ["no provider is named", "salesforce-rotating", "okta", "--file"];
    tokenwal(&["providers", "sales\u{1b}force"]).says(1, &known).says(1, &["sales\\u{1b}force"]);
    let (_dir, path) = file("name = \"ours\"\n[cap]\nnumber = 5\noverfow = \"refused\"\n");
    let path = path.to_str().unwrap();
    let words = [path, "line 4, column 1: cap.overfow", "overflow", "correct that line"];
    tokenwal(&["providers", "--file", path]).says(1, &words);
    tokenwal(&["providers", "--file", "/no/such/file"]).says(1, &["/no/such/file", "that you can"]);
    // What is no profile may be a key: nothing of it is repeated.
    let (_dir, path) = file("S3CRET-key-material\n");
    let ran = tokenwal(&["providers", "--file", path.to_str().unwrap()]);
    let ran = ran.says(1, &["line 1, column", "this is not TOML"]);
    assert!(!ran.err.contains("S3CRET"), "{ran:?}");
    let both = tokenwal(&["providers", "okta", "--file", "x"]);
    assert_eq!(both.code, 2, "{both:?}");
}
