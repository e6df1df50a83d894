//! Holds the code and the independent reader in Python (`tests/reader/`) to each other: random
//! histories through the public API on a real disk, and damaged copies of what they leave.
//!
//! The document decides where the two disagree. One seed is one history; a failure names it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::string_slice,
    clippy::needless_borrows_for_generic_args,
    clippy::manual_is_multiple_of,
    clippy::large_enum_variant,
    clippy::mem_forget,
    unreachable_pub,
    dead_code,
    reason = "tests may, and share modules of which each uses a part"
)]

#[path = "reader/damage.rs"]
mod damage;
#[path = "reader/history.rs"]
mod history;
#[path = "reader/python.rs"]
mod python;
#[path = "sim/mod.rs"]
mod sim;

use damage::Damage;
use history::History;
use python::{Answer, Python};
use serde_json::Value;
use sim::Rng;
use std::path::Path;
use std::sync::Arc;
use tokenwal::disk::{Disk, RealDisk};
use tokenwal::inspect::{self, Reader, Verification};
use tokenwal::{AccountView, Error, FixedKeys, Journal, KeySource, Lsn, Options};

/// How many histories there are unless `TOKENWAL_HISTORIES` says otherwise.
const HISTORIES: u64 = 6;

/// How many rounds of a history there are between two looks at the store.
const ROUNDS_PER_LOOK: usize = 40;

const LOOKS: usize = 4;

const DAMAGED_COPIES: usize = 60;

fn seeds() -> std::ops::RangeInclusive<u64> {
    let asked = std::env::var("TOKENWAL_HISTORIES").ok();
    1..=asked.map_or(HISTORIES, |number| number.parse().expect("a number of histories"))
}

fn keys() -> FixedKeys {
    FixedKeys::new([7; 32], [])
}

/// What a view says without a key: names are no part of what the reader in Python can see.
fn nameless(view: &AccountView) -> Value {
    without_names(serde_json::to_value(view).unwrap())
}

fn without_names(mut value: Value) -> Value {
    let remove = |value: &mut Value, names: &[&str]| {
        for name in names {
            value.as_object_mut().unwrap().remove(*name);
        }
    };
    remove(&mut value, &["app", "user"]);
    for open in value["in_doubt"].as_array_mut().unwrap() {
        remove(open, &["scopes"]);
    }
    for grant in value["grants"].as_array_mut().unwrap() {
        remove(grant, &["scopes"]);
        for holder in grant["holders"].as_array_mut().unwrap() {
            remove(holder, &["holder", "scopes"]);
        }
        for beside in grant["beside"].as_array_mut().unwrap() {
            remove(beside, &["scopes"]);
        }
        if let Some(named) = grant.get_mut("issued_for") {
            remove(named, &["holder"]);
        }
        if let Some(refusal) = grant.get_mut("refusal") {
            remove(refusal, &["error", "description", "request_id"]);
        }
    }
    value
}

fn real(dir: &Path) -> Arc<dyn Disk> {
    Arc::new(RealDisk::open(dir).unwrap())
}

fn verify(dir: &Path, keys: Option<&dyn KeySource>) -> Result<Verification, Error> {
    inspect::verify(&*real(dir), keys, &mut |_| ())
}

#[test]
fn the_reader_agrees_on_random_histories() {
    let Some(mut python) = Python::start() else { return };
    let mut total = history::Tally::default();
    for seed in seeds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let mut history = History::create(seed, &path);
        for look in 0..LOOKS {
            let label = format!("seed {seed}, look {look}");
            for _ in 0..ROUNDS_PER_LOOK {
                history.round();
            }
            agree_beside(&label, &mut python, history.journal(), &path);
            history.stop();
            agree_alone(&label, &mut python, &path, history.rng());
            if cfg!(feature = "cli") && look + 1 == LOOKS {
                agree_with_the_command(&label, &mut python, &path);
            }
            history.open();
        }
        total.add(history.tally());
    }
    eprintln!("{total:#?}");
    total.assert_rich();
}

/// Fails on the first account that the two do not say the same of.
fn same_accounts(label: &str, python: &[Value], rust: &[Value]) {
    for at in 0..python.len().max(rust.len()) {
        let (python, rust) = (python.get(at), rust.get(at));
        let text = |value: Option<&Value>| value.map_or_else(String::new, ToString::to_string);
        assert!(python == rust, "{label}\npython: {}\nrust:   {}", text(python), text(rust));
    }
}

/// While the journal is open: what it shows is in the files, and a reader beside it shows a prefix.
fn agree_beside(label: &str, python: &mut Python, journal: &Journal, path: &Path) {
    let shown: Vec<_> = journal.accounts().map(|view| nameless(&view.unwrap())).collect();
    let answer = python.ask(path, "");
    same_accounts(&format!("{label}: the journal and its files"), &answer.accounts, &shown);
    assert_eq!(answer.last_lsn(), journal.head().0, "{label}");

    let reader = Reader::open(path, None).unwrap();
    let shown: Vec<_> = reader.accounts().map(|view| nameless(&view.unwrap())).collect();
    let answer = python.ask(path, "live");
    same_accounts(&format!("{label}: what is durable for sure"), &answer.accounts, &shown);
}

/// When nobody writes: all counts, up to the end or up to some LSN.
fn agree_alone(label: &str, python: &mut Python, path: &Path, rng: &mut Rng) {
    let answer = python.ask(path, "");
    let verification = verify(path, Some(&keys())).unwrap();
    assert_eq!(verification.problems, [], "{label}");
    agree_on_the_end(label, &answer, &verification);
    let promises = answer.verification["broken_promises"].as_array().unwrap();
    assert!(promises.is_empty(), "{label}: {promises:?}");
    let from = verification.snapshot_lsn.0;
    let last = verification.last_lsn.0;
    for at in [last, from.max(1), from.max(1) + rng.below(last - from.max(1) + 1)] {
        let asked = (from < at || at == last).then_some(Lsn(at));
        let reader = Reader::open_on(real(path), None, asked, &mut |_| ()).unwrap();
        let shown: Vec<_> = reader.accounts().map(|view| nameless(&view.unwrap())).collect();
        let mode = asked.map_or(String::new(), |at| at.to_string());
        same_accounts(&format!("{label}, at {at}"), &python.ask(path, &mode).accounts, &shown);
    }
}

fn agree_on_the_end(label: &str, answer: &Answer, rust: &Verification) {
    let python = &answer.verification;
    let rust = serde_json::to_value(rust).unwrap();
    for name in ["last_lsn", "last_batch_proven", "segments", "batches", "frames", "snapshot_lsn"] {
        assert_eq!(python[name], rust[name], "{label}: {name}, {python} and {rust}");
    }
    let verdict = match answer.has_bad_snapshots() {
        true => "corrupt",
        false => python["verdict"].as_str().unwrap(),
    };
    assert_eq!(verdict, rust["verdict"], "{label}: {python} and {rust}");
}

fn agree_with_the_command(label: &str, python: &mut Python, path: &Path) {
    let Some(program) = option_env!("CARGO_BIN_EXE_tokenwal") else { return };
    let output = std::process::Command::new(program)
        .args(["replay", "--json"])
        .arg(path)
        .env_remove("TOKENWAL_KEY_FILE")
        .output()
        .unwrap();
    assert!(output.status.success(), "{label}: {output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let shown: Vec<Value> = lines
        .lines()
        .map(|line| {
            let account: Value = serde_json::from_str(line).unwrap();
            assert_eq!(account["app"], Value::Null, "{label}: there is no key");
            assert_eq!(account["user"], Value::Null, "{label}: there is no key");
            without_names(account)
        })
        .collect();
    same_accounts(&format!("{label}: the command"), &python.ask(path, "").accounts, &shown);
}

#[test]
fn the_reader_agrees_on_damage() {
    let Some(mut python) = Python::start() else { return };
    let mut seen = std::collections::BTreeMap::<String, u64>::new();
    for seed in seeds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let mut history = History::create(seed + 1000, &path);
        for _ in 0..ROUNDS_PER_LOOK * 2 {
            history.round();
        }
        history.stop();
        let copy = dir.path().join("copy");
        for number in 0..DAMAGED_COPIES {
            let damage = Damage::draw(&path, history.rng());
            damage.apply(&path, &copy);
            let label = format!("seed {seed}, damage {number}: {damage:?}");
            let verdict = agree_on_damage(&label, &mut python, &copy, damage.is_one());
            *seen.entry(verdict).or_default() += 1;
        }
    }
    eprintln!("verdicts: {seen:?}");
    for verdict in ["clean", "torn", "suspect", "corrupt", "newer"] {
        assert!(seen.contains_key(verdict), "no damage was {verdict}: {seen:?}");
    }
}

/// Both give the same verdict, and where the store is sound they show the same accounts.
fn agree_on_damage(label: &str, python: &mut Python, path: &Path, is_one: bool) -> String {
    let answer = python.ask(path, "");
    let verification = match verify(path, None) {
        Err(Error::NewerFormat { .. }) => None,
        result => Some(result.expect(label)),
    };
    let (Some(verification), 0 | 3..) = (&verification, answer.status) else {
        // Of several damages either may be come upon first.
        let both = verification.is_none() && answer.status == 1;
        let corrupt = |verdict: &str| verdict == "corrupt";
        let other = match &verification {
            Some(found) => corrupt(serde_json::to_value(found.verdict).unwrap().as_str().unwrap()),
            None => answer.verification["verdict"].as_str().is_some_and(corrupt),
        };
        assert!(both || !is_one && other, "{label}: of a newer format? {answer:?}");
        return String::from("newer");
    };
    let verdict = answer.verification["verdict"].as_str().unwrap().to_owned();
    match Reader::open(path, None) {
        Ok(reader) => {
            assert!(["clean", "torn"].contains(&verdict.as_str()), "{label}: {answer:?}");
            agree_on_the_end(label, &answer, verification);
            let shown: Vec<_> =
                reader.accounts().filter_map(Result::ok).map(|view| nameless(&view)).collect();
            same_accounts(label, &answer.accounts, &shown);
            let (journal, report) = Options::new(keys()).open(path).expect(label);
            assert_eq!(serde_json::to_value(report.verdict).unwrap(), verdict, "{label}");
            let shown: Vec<_> =
                journal.accounts().filter_map(Result::ok).map(|view| nameless(&view)).collect();
            same_accounts(&format!("{label}: as opened"), &answer.accounts, &shown);
        }
        Err(Error::Corrupt(damage)) => assert_eq!(verdict, "corrupt", "{label}: {damage}"),
        Err(Error::Suspect(damage)) => assert_eq!(verdict, "suspect", "{label}: {damage}"),
        Err(error) => panic!("{label}: {error:?}"),
    }
    verdict
}
