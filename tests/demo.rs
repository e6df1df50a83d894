//! The main job of the command, as a reader of the README would run it.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test may"
)]
#![cfg(feature = "cli")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn tokenwal(args: &[&str], dir: Option<&Path>, temporary: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwal"));
    command.args(args).args(dir).env("TMPDIR", temporary).env_remove("TOKENWAL_KEY_FILE");
    let output = command.output().unwrap();
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Reads `acknowledged N, recovered N, lost N`.
fn counts(line: &str) -> (u64, u64, u64) {
    let rest = line.strip_prefix("acknowledged ").unwrap();
    let (acknowledged, rest) = rest.split_once(", recovered ").unwrap();
    let (recovered, lost) = rest.split_once(", lost ").unwrap();
    (acknowledged.parse().unwrap(), recovered.parse().unwrap(), lost.parse().unwrap())
}

#[test]
fn the_story_ends_with_nothing_lost() {
    let temporary = tempfile::tempdir().unwrap();
    let output = tokenwal(&["demo"], None, temporary.path());
    let story = text(&output);
    println!("{story}");
    assert_eq!(output.status.code(), Some(0));
    let (acknowledged, recovered, lost) = counts(story.lines().last().unwrap());
    assert!(acknowledged >= 500, "{acknowledged}");
    assert_eq!((recovered, lost), (acknowledged, 0));
    assert!(story.lines().any(|line| line.contains("contacts  dead for good")));
    assert!(story.lines().any(|line| line.contains("contacts  alive")));
    assert!(story.lines().count() <= 38 && !story.contains('\u{1b}'), "{story}");
    let left = std::fs::read_dir(temporary.path()).unwrap().count();
    assert_eq!(left, 0, "the private directory is removed");
}

#[test]
fn what_was_kept_is_a_store_for_the_other_commands() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("store");
    let output = tokenwal(&["demo", "--json", "--dir"], Some(&dir), temporary.path());
    assert_eq!(output.status.code(), Some(0));
    let story: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    println!("{story}");
    let count = |of: &str| story.pointer(of).unwrap().as_u64().unwrap();
    assert!(count("/acknowledged") >= 500 && count("/killed/kills") >= 20, "{story}");
    assert_eq!(count("/acknowledged"), count("/recovered"));
    assert_eq!((count("/lost"), count("/killed/unaccounted")), (0, 0), "{story}");
    assert_eq!((count("/naive/approvals_asked"), count("/naive/live_and_known")), (5, 0));
    assert_eq!(count("/tokenwal/approvals_asked"), 2);
    assert_eq!(count("/tokenwal/live_and_known"), count("/tokenwal/live_at_provider"));
    assert_eq!(
        count("/killed/unacknowledged"),
        count("/killed/durable_and_untold") + count("/killed/issued_in_doubt"),
        "{story}"
    );
    assert!(count("/killed/issued_in_doubt") > 0, "no kill fell between an issue and its answer");

    let key = temporary.path().join("store.key");
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    let verified = tokenwal(&["verify"], Some(&dir), temporary.path());
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
    let replayed = text(&tokenwal(&["replay", "--json"], Some(&dir), temporary.path()));
    let accounts: Vec<serde_json::Value> =
        replayed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let pairs: u64 = accounts
        .iter()
        .flat_map(|account| account["grants"].as_array().unwrap())
        .map(|grant| grant["generation"].as_u64().unwrap())
        .sum();
    let killed = count("/acknowledged") + count("/killed/durable_and_untold");
    assert_eq!(pairs, killed + count("/tokenwal/issued"), "the replay shows each pair");

    // A second run touches nothing of it.
    let again = tokenwal(&["demo", "--dir"], Some(&dir), temporary.path());
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(said.contains("store exists already") && said.contains("do next: name"), "{said}");
}
