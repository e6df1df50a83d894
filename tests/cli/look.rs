//! Good stores: what the command shows of them, and that it leaves them as they were.

use crate::stores::*;
use serde_json::Value;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use tokenwal::{Begin, Holder};

#[test]
fn verify_counts_what_is_there_and_changes_nothing() {
    let store = Store::compacted(40);
    let found = unchanged(&store.path, || tokenwal(&["verify", store.path(), "--json"]).ok());
    let found = found.json();
    assert_eq!(found["verdict"], "clean");
    assert_eq!(found["last_batch_proven"], true);
    assert_eq!(found["live"], false);
    assert_eq!(found["problems"], Value::Array(vec![]));
    assert_eq!(found["accounts"], 80);
    assert_eq!(found["in_doubt"], 2);
    assert_eq!(found["authenticated"], false);
    assert_eq!(found["snapshots"], 1);
    for count in ["last_lsn", "segments", "frames", "batches", "snapshot_blocks", "snapshot_lsn"] {
        assert!(found[count].as_u64().unwrap() > 0, "{count} in {found}");
    }
    let text = tokenwal(&["verify", store.path()]).ok().out;
    assert!(text.starts_with("verdict    clean\n"), "{text}");
}

#[test]
fn verify_with_the_key_opens_every_seal_in_its_place() {
    let store = Store::compacted(20);
    let key = format!("{}.key", store.path());
    let found = unchanged(&store.path, || {
        tokenwal(&["verify", store.path(), "--key", &key, "--json"]).ok().json()
    });
    assert_eq!(found["verdict"], "clean", "{found}");
    assert_eq!(found["authenticated"], true);
    assert!(found["sealed_parts"].as_u64().unwrap() > 100, "{found}");
}

#[test]
fn replay_folds_as_a_service_does() {
    let store = Store::compacted(30);
    let shown = unchanged(&store.path, || tokenwal(&["replay", store.path(), "--json"]).ok());
    let journal = store.open();
    let expected: Vec<Value> =
        journal.accounts().map(|view| serde_json::to_value(view.unwrap()).unwrap()).collect();
    assert_eq!(expected.len(), 60);
    assert_eq!(shown.lines(), expected);
    for word in ["account_tag", "app", "user", "grants", "in_doubt", "lsn"] {
        assert!(expected[0].get(word).is_some(), "{word}");
    }
    drop(journal);

    // People read the same, and no token.
    let text = tokenwal(&["replay", store.path()]).ok().out;
    assert!(text.contains("user user-59"), "{text}");
    assert!(text.contains("held by acme/sync"), "{text}");
    assert!(text.contains("2025-10-09T"), "{text}");
    assert!(text.contains("in doubt"), "{text}");
    assert!(
        text.lines().last().unwrap().starts_with("60 accounts, 60 grants, 2 operations in doubt")
    );
    assert_no_token(&text);
    assert_no_token(&shown.out);
}

fn assert_no_token(text: &str) {
    assert!(!text.is_empty());
    for word in TOKEN_WORDS {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

#[test]
fn replay_without_a_key_shows_tags_and_no_names() {
    let store = Store::closed(6);
    std::fs::rename(key_of(&store.path), store.beside("elsewhere")).unwrap();
    let shown = tokenwal(&["replay", store.path(), "--json"]).ok();
    assert_eq!(shown.lines().len(), 6);
    assert!(shown.lines().iter().all(|view| view["app"].is_null() && view["user"].is_null()));
    assert!(!shown.out.contains("salesforce") && !shown.out.contains("user-"), "{shown:?}");

    // The key is found by the option and by the variable, too.
    let key = store.beside("elsewhere");
    let named = tokenwal(&["replay", store.path(), "--json", "--key", key.to_str().unwrap()]).ok();
    assert!(named.out.contains("user-5"), "{named:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwal"));
    command.args(["replay", store.path(), "--json"]).env("TOKENWAL_KEY_FILE", &key);
    assert_eq!(ran(&mut command).ok().out, named.out);
}

#[test]
fn replay_folds_up_to_a_record() {
    let store = Store::named();
    let journal = store.create();
    let first = issue(&journal, 1);
    let lsn = journal.head();
    issue(&journal, 2);
    let at = |lsn: u64| {
        let lsn = lsn.to_string();
        tokenwal(&["replay", store.path(), "--json", "--at", &lsn])
    };
    journal.blocking().close().unwrap();
    assert_eq!(at(lsn.0).ok().lines().len(), 1);
    // Before its outcome the exchange is open.
    let open = at(lsn.0 - 1).ok().lines();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0]["in_doubt"][0]["op"], first.grant().0);
    assert_eq!(at(1).ok().lines().len(), 0);
    at(1_000_000).says(1, &["LSN 1000000 is outside of what is kept, from 1 to "]);
    at(0).says(1, &["outside of what is kept"]);

    let journal = store.open();
    let compacted = journal.blocking().compact().unwrap();
    journal.blocking().close().unwrap();
    at(lsn.0).says(1, &[&format!("from {} to ", compacted.lsn), "within that range"]);
    assert_eq!(at(compacted.lsn.0).ok().lines().len(), 2);
}

#[test]
fn tokens_are_shown_for_one_account_and_only_when_asked_for() {
    let store = Store::compacted(6);
    let journal = store.open();
    let tag = journal.tag_of(&account(3)).to_string();
    journal.blocking().close().unwrap();
    let one = ["replay", store.path(), "--account", &tag];
    let shown = tokenwal(&one).ok().out;
    assert!(shown.contains("user-3") && !shown.contains("user-4"), "{shown}");
    assert_no_token(&shown);

    let revealed = tokenwal(&[&one[..], &["--reveal", "--json"]].concat()).ok().json();
    assert_eq!(revealed["account_tag"], *tag);
    let pair = &revealed["pairs"][0];
    assert_eq!(pair["access_token"], access_token(3, 2));
    assert_eq!(pair["refresh_token"], refresh_token(3, 2));
    assert_eq!(pair["generation"], 2);
    let text = tokenwal(&[&one[..], &["--reveal"]].concat()).ok().out;
    assert!(text.contains(&refresh_token(3, 2)) && !text.contains("access-4"), "{text}");

    assert_eq!(tokenwal(&["replay", store.path(), "--reveal"]).code, 2, "not of all accounts");
    assert_eq!(tokenwal(&["replay", store.path(), "--account", "x"]).code, 2);
    let nobody = "0".repeat(31) + "1";
    tokenwal(&["replay", store.path(), "--account", &nobody])
        .says(1, &[&nobody, "not in the store"]);
    std::fs::remove_file(key_of(&store.path)).unwrap();
    tokenwal(&[&one[..], &["--reveal"]].concat()).says(1, &["the key of this store is not known"]);
}

#[test]
fn a_token_does_not_steer_a_terminal() {
    let store = Store::named();
    let journal = store.create();
    let blocking = journal.blocking();
    let ticket = blocking.begin(Begin::exchange(&app()).user(&user(1))).unwrap();
    let body = r#"{"access_token":"a\u001b[2J\nrefresh token  forged"}"#.as_bytes().to_vec();
    let response = tokenwal::TokenResponse::parse(body, NOW_MS).unwrap().with_user(user(1));
    blocking.settle(ticket, tokenwal::Outcome::Issued(response)).unwrap();
    let tag = journal.tag_of(&account(1)).to_string();
    journal.blocking().close().unwrap();
    let reveal = ["replay", store.path(), "--account", &tag, "--reveal"];
    let text = tokenwal(&reveal).ok().out;
    assert!(text.contains(r"a\u{1b}[2J\nrefresh token  forged"), "{text}");
    let exact = tokenwal(&[&reveal[..], &["--json"]].concat()).ok().json();
    assert_eq!(exact["pairs"][0]["access_token"], "a\u{1b}[2J\nrefresh token  forged");
}

#[test]
fn a_terminal_is_shown_no_token_unless_one_insists() {
    let store = Store::closed(2);
    let journal = store.open();
    let tag = journal.tag_of(&account(1)).to_string();
    journal.blocking().close().unwrap();
    let command = format!(
        "{} replay {} --account {tag} --reveal",
        env!("CARGO_BIN_EXE_tokenwal"),
        store.path()
    );
    // `script` gives the command a terminal.
    let on_terminal = |command: &str| {
        Command::new("script").args(["-qec", command, "/dev/null"]).stdin(Stdio::null()).output()
    };
    let Ok(shown) = on_terminal(&command) else {
        println!("skipped: `script` is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("is a terminal") && text.contains("--on-terminal"), "{text}");
    assert_no_token(&text);
    let text = on_terminal(&format!("{command} --on-terminal")).unwrap();
    assert!(String::from_utf8_lossy(&text.stdout).contains(&access_token(1, 1)));
}

#[test]
fn a_pair_that_nothing_proves_durable_is_not_shown() {
    let store = Store::named();
    let journal = store.create();
    let pair = issue(&journal, 1);
    let tag = pair.account().to_string();
    // As after a kill: no marker proves the last batch.
    drop((pair, journal));
    let args = ["replay", store.path(), "--account", &tag, "--reveal"];
    let refused = tokenwal(&args).says(1, &["nothing proves yet that it is durable"]);
    assert_no_token(&refused.err);
    store.open().blocking().close().unwrap();
    assert!(tokenwal(&args).ok().out.contains(&access_token(1, 1)));
}

#[test]
fn reading_commands_work_beside_a_writer_and_disturb_nobody() {
    let store = Store::named();
    let journal = store.create();
    populate(&journal, 0..10);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 10..150 {
                issue(&journal, number);
                if number % 50 == 0 {
                    journal.blocking().compact().unwrap();
                }
            }
        });
        let mut least = 0;
        let mut looks = 0;
        while !writer.is_finished() || looks < 4 {
            looks += 1;
            let found = tokenwal(&["verify", store.path(), "--json"]).ok().json();
            assert_eq!(found["live"], true, "{found}");
            let shown = tokenwal(&["replay", store.path(), "--json"]).ok().lines();
            // What was shown once stays: time goes one way.
            let grants = |view: &Value| view["grants"].as_array().unwrap().len();
            let pairs = shown.iter().map(grants).sum::<usize>();
            assert!(pairs >= least, "{pairs} after {least}");
            least = pairs;
        }
        writer.join().unwrap();
    });
    let stat = tokenwal(&["stat", store.path(), "--json"]).ok().json();
    assert_eq!(stat["owner_pid"], std::process::id());
    issue(&journal, 1000);
    journal.blocking().close().unwrap();
    let found = tokenwal(&["verify", store.path(), "--json"]).ok().json();
    assert_eq!(found["accounts"], 151, "{found}");
    assert_eq!(found["live"], false);
}

#[test]
fn compact_folds_and_retires_and_changes_no_state() {
    let store = Store::closed(60);
    let before = tokenwal(&["replay", store.path(), "--json"]).ok().out;
    assert!(store.segments().len() > 1, "{:?}", store.segments());
    let compacted = tokenwal(&["compact", store.path(), "--json"]).ok().json();
    assert_eq!(compacted["accounts"], 60);
    assert!(compacted["segments_retired"].as_u64().unwrap() > 1);
    assert_eq!(store.snapshots().len(), 1);
    assert_eq!(tokenwal(&["replay", store.path(), "--json"]).ok().out, before);
    let text = tokenwal(&["compact", store.path()]).ok().out;
    assert!(text.contains("accounts  60\n"), "{text}");
    assert_eq!(tokenwal(&["verify", store.path(), "--json"]).ok().json()["verdict"], "clean");
}

#[test]
fn stat_sums_a_store_up() {
    let store = Store::compacted(10);
    let stat = unchanged(&store.path, || tokenwal(&["stat", store.path(), "--json"]).ok().json());
    assert_eq!(stat["snapshot_accounts"], 10);
    assert_eq!(stat["in_doubt"], 2);
    assert_eq!(stat["written_here"], true);
    assert_eq!(stat["live"], false);
    std::fs::write(store.path.join("note\u{1b}[31m"), "not ours").unwrap();
    let text = tokenwal(&["stat", store.path()]).ok().out;
    assert!(text.contains("owner       nobody\n"), "{text}");
    assert!(text.contains("not ours    note\\u{1b}[31m"), "{text}");
}

#[test]
fn a_new_key_is_for_its_owner_alone_and_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.key");
    let file = path.to_str().unwrap();
    let made = tokenwal(&["key", "new", file]).ok().out;
    assert!(made.contains(file) && made.contains("back it up"), "{made}");
    let other = dir.path().join("other.key");
    let made_other = tokenwal(&["key", "new", other.to_str().unwrap(), "--json"]).ok().json();
    assert_eq!(made_other, serde_json::json!({ "file": other.to_str().unwrap() }));
    let text = std::fs::read_to_string(&path).unwrap();
    let digits = text.trim().strip_prefix("tokenwal-key-1 ").unwrap();
    assert!(digits.len() == 64 && !made.contains(digits));
    assert_eq!(picture(dir.path())["new.key"].0 & 0o7777, 0o600);
    unchanged(dir.path(), || {
        tokenwal(&["key", "new", file]).says(1, &["a key is never overwritten"]);
        let nowhere = dir.path().join("no/such.key");
        tokenwal(&["key", "new", nowhere.to_str().unwrap()]).says(1, &["cannot be created"]);
    });
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let store = Store::closed(300);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tokenwal"))
        .args(["replay", store.path(), "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 64];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
}

/// Runs the command with a reader that is gone before anything is printed.
fn unheard(args: &[&str]) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwal"));
    command.args(args).env_remove("TOKENWAL_KEY_FILE").stdout(writer);
    let ended = command.output().unwrap();
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
    ended.status.code()
}

#[test]
fn what_is_damaged_is_so_also_where_nobody_listens() {
    let store = Store::closed(300);
    let segment = store.segments().remove(1);
    damage(&segment, |bytes| {
        let at = batches(bytes)[2] + 100;
        bytes[at] ^= 1;
    });
    for json in [&["--json"][..], &[]] {
        assert_eq!(unheard(&[&["verify", store.path()], json].concat()), Some(3));
    }
    // What cannot be saved is said into the void, and listed; the rest is saved all the same.
    let into = store.beside("saved");
    assert_eq!(unheard(&["salvage", store.path(), into.to_str().unwrap()]), Some(0));
    assert!(store.beside("saved.report").exists());
    let key = format!("{}.key", store.path());
    tokenwal(&["verify", into.to_str().unwrap(), "--key", &key]).ok();
}

#[test]
fn wrong_usage_is_told_from_failure() {
    for args in [&[][..], &["verify"], &["no-such"], &["replay", ".", "--at", "x"], &["key"]] {
        assert_eq!(tokenwal(args).code, 2, "{args:?}");
    }
    assert!(tokenwal(&["--help"]).ok().out.contains("salvage"));
    assert!(tokenwal(&["--version"]).ok().out.starts_with("tokenwal "));
}

#[test]
fn a_torn_tail_is_sound_and_has_a_code_of_its_own() {
    let store = Store::closed(5);
    let segment = store.segments().pop().unwrap();
    let end = tear(&segment);
    let found = unchanged(&store.path, || tokenwal(&["verify", store.path(), "--json"]).with(4));
    let found = found.json();
    assert_eq!(found["verdict"], "torn");
    assert_eq!(found["torn_file"], *segment.file_name().unwrap().to_str().unwrap());
    assert_eq!(found["torn_offset"], end);
    assert_eq!(found["problems"], Value::Array(vec![]));
    assert!(found["torn_bytes"].as_u64().unwrap() >= 300, "{found}");
    let text = tokenwal(&["verify", store.path()]).with(4).out;
    assert!(text.contains("torn tail") && text.contains("never acknowledged"), "{text}");
    assert_eq!(tokenwal(&["replay", store.path(), "--json"]).ok().lines().len(), 5);
    // A service goes on behind it.
    let journal = store.open();
    journal
        .blocking()
        .adopt(&account(1), first_grant(&journal, 1), &Holder::new("a", "b").unwrap())
        .unwrap();
    drop(journal.blocking().begin(Begin::exchange(&app())).unwrap());
    journal.blocking().close().unwrap();
    assert_eq!(tokenwal(&["verify", store.path(), "--json"]).ok().json()["verdict"], "clean");
}

fn first_grant(journal: &tokenwal::Journal, number: u32) -> tokenwal::GrantId {
    journal.blocking().account(&account(number)).unwrap().unwrap().grants[0].grant
}

/// Lets a batch be torn behind the last one; says where.
fn tear(segment: &Path) -> u64 {
    let mut end = 0;
    damage(segment, |bytes| {
        let last = *batches(bytes).last().unwrap();
        let length = u32::from_le_bytes(bytes[last + 8..last + 12].try_into().unwrap()) as usize;
        end = (last + length).next_multiple_of(4096);
        bytes[end..end + 300].fill(0xAB);
    });
    end as u64
}
