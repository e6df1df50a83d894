//! Bad input: each has its own clear error, what to do next, the right exit code, and nothing lost.

use crate::stores::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use tokenwal::{
    Account, App, Begin, DoubtReason, Error, FixedKeys, Holder, KeyFile, NameError, Outcome,
    SystemEntropy, TokenResponse, User,
};

const READERS: [&str; 3] = ["verify", "replay", "stat"];
const ALL: [&str; 4] = ["verify", "replay", "stat", "compact"];

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Runs all commands on a directory, and salvage, which all have to fail alike and change nothing.
fn all_say(store: &Store, code: i32, words: &[&str]) {
    unchanged(&store.path, || {
        for command in ALL {
            tokenwal(&[command, store.path()]).says(code, words);
        }
        salvage(store).says(code, words);
    });
}

fn salvage(store: &Store) -> Ran {
    let into = store.beside("saved");
    let ran = tokenwal(&["salvage", store.path(), into.to_str().unwrap()]);
    assert!(!into.exists() || ran.code == 0, "{ran:?}");
    ran
}

#[test]
fn a_directory_that_is_missing() {
    let store = Store::named();
    for command in ALL {
        tokenwal(&[command, store.path()]).says(1, &[store.path(), "there is no store here"]);
    }
    salvage(&store).says(1, &["there is no store here"]);
    assert!(!store.path.exists());
}

#[test]
fn a_directory_without_a_store() {
    let store = Store::named();
    std::fs::create_dir(&store.path).unwrap();
    chmod(&store.path, 0o700);
    std::fs::write(store.path.join("notes"), "mine").unwrap();
    all_say(&store, 1, &["there is no store here", "check the path"]);
}

#[test]
fn something_that_is_not_a_directory() {
    let store = Store::named();
    std::fs::write(&store.path, "a file").unwrap();
    for command in ALL {
        tokenwal(&[command, store.path()]).says(1, &["is not a directory"]);
    }
    salvage(&store).says(1, &["is not a directory"]);
    assert_eq!(std::fs::read_to_string(&store.path).unwrap(), "a file");
    let good = Store::closed(1);
    symlink(&good.path, store.beside("link")).unwrap();
    let link = store.beside("link");
    tokenwal(&["verify", link.to_str().unwrap()]).says(1, &["is a symbolic link"]);
}

#[test]
fn a_store_that_others_can_read() {
    let store = Store::closed(2);
    for mode in [0o755, 0o750, 0o701] {
        chmod(&store.path, mode);
        all_say(&store, 1, &["open to others", &format!("{mode:04o}"), "0700"]);
    }
    chmod(&store.path, 0o700);
    let segment = store.segments().remove(0);
    chmod(&segment, 0o644);
    all_say(&store, 1, &[segment.to_str().unwrap(), "open to others", "0644"]);
    chmod(&segment, 0o600);
    tokenwal(&["verify", store.path()]).ok();
}

#[test]
fn a_store_that_another_process_owns() {
    let store = Store::named();
    let journal = store.create();
    issue(&journal, 1);
    let pid = format!("(pid {})", std::process::id());
    let owner = format!("process {} has the store open", std::process::id());
    tokenwal(&["compact", store.path()]).says(1, &[&owner, "takes no orders", "stop it"]);
    salvage(&store).says(1, &[&pid]);
    for command in READERS {
        tokenwal(&[command, store.path()]).ok();
    }
    issue(&journal, 2);
    journal.blocking().close().unwrap();
}

#[test]
fn a_newer_format() {
    let store = Store::compacted(10);
    let segment = store.segments().pop().unwrap();
    // With the right checksum: else it is salvaged as a damaged one of format 1.
    let of_format = |bytes: &mut Vec<u8>, version: u8| {
        bytes[8] = version;
        let crc = crc32fast::hash(&[&bytes[..12], &bytes[16..4096]].concat());
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    };
    damage(&segment, |bytes| of_format(bytes, 2));
    let name = segment.file_name().unwrap().to_str().unwrap();
    all_say(&store, 1, &[name, "format 2", "format 1", "the version of tokenwal that wrote it"]);
    damage(&segment, |bytes| of_format(bytes, 1));
    let snapshot = store.snapshots().remove(0);
    damage(&snapshot, |bytes| of_format(bytes, 3));
    all_say(&store, 1, &["snapshot-", "format 3"]);
}

#[test]
fn a_wrong_key() {
    let store = Store::compacted(5);
    let other = store.beside("other.key");
    KeyFile::create_new(&other, &SystemEntropy).unwrap();
    let other = other.to_str().unwrap();
    unchanged(&store.path, || {
        for command in ALL {
            tokenwal(&[command, store.path(), "--key", other])
                .says(1, &["sealed under key", "not among the keys given", "not damaged"]);
        }
        let into = store.beside("saved");
        tokenwal(&["salvage", store.path(), into.to_str().unwrap(), "--key", other])
            .says(1, &["not among the keys given"]);
        assert!(!into.exists());
    });
    // It is not taken for damage: with the right one, or none, the store is sound.
    tokenwal(&["verify", store.path()]).ok();
    tokenwal(&["verify", store.path(), "--key", key_of(&store.path).to_str().unwrap()]).ok();
}

#[test]
fn a_key_file_that_is_cut_short_or_open_or_missing() {
    let store = Store::closed(2);
    let key = key_of(&store.path);
    let text = std::fs::read_to_string(&key).unwrap();
    let with_key = |words: &[&str]| {
        unchanged(&store.path, || {
            for command in ["replay", "stat", "compact"] {
                let ran = tokenwal(&[command, store.path()]).says(1, words);
                assert!(!ran.err.contains(&text[20..30]), "a key is quoted: {ran:?}");
            }
            tokenwal(&["verify", store.path(), "--key", key.to_str().unwrap()]).says(1, words);
        });
    };
    std::fs::write(&key, &text[..40]).unwrap();
    with_key(&["line 1 has 25 digits, a key has 64", "restore the key"]);
    std::fs::write(&key, "").unwrap();
    with_key(&["it is empty"]);
    std::fs::write(&key, &text).unwrap();
    chmod(&key, 0o644);
    with_key(&["mode 0644", "chmod 600"]);
    std::fs::remove_file(&key).unwrap();
    symlink("/nonexistent/key", &key).unwrap();
    with_key(&["symbolic link"]);
    std::fs::remove_file(&key).unwrap();
    tokenwal(&["compact", store.path()])
        .says(1, &["the key of this store is not known", "--key FILE"]);
    let missing = ["replay", store.path(), "--key", "/nonexistent/key"];
    tokenwal(&missing).says(1, &["/nonexistent/key cannot be read"]);
}

#[test]
fn a_missing_middle_segment() {
    let store = Store::closed(60);
    let segments = store.segments();
    assert!(segments.len() >= 4, "{segments:?}");
    std::fs::remove_file(&segments[1]).unwrap();
    damaged(&store, &[file_name(&segments[1]), "the segment is missing", "at stake: records from"]);
}

#[test]
fn swapped_segments() {
    let store = Store::closed(60);
    let segments = store.segments();
    let aside = store.beside("aside");
    std::fs::rename(&segments[1], &aside).unwrap();
    std::fs::rename(&segments[2], &segments[1]).unwrap();
    std::fs::rename(&aside, &segments[2]).unwrap();
    let words = [
        file_name(&segments[1]),
        file_name(&segments[2]),
        "its own name back",
        "at stake: records from",
    ];
    damaged(&store, &words);
}

#[test]
fn a_duplicated_segment() {
    let store = Store::closed(60);
    let segments = store.segments();
    let copy = store.path.join(file_name(&segments[0]).replace("001.twj", "099.twj"));
    std::fs::copy(&segments[1], &copy).unwrap();
    damaged(
        &store,
        &[file_name(&copy), "a copy of", file_name(&segments[1]), "move the copy away"],
    );
    // Over another one, too.
    let store = Store::closed(60);
    let segments = store.segments();
    std::fs::copy(&segments[1], &segments[2]).unwrap();
    damaged(&store, &[file_name(&segments[2]), "the segment is missing", "at stake: records from"]);
}

fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Checks that a store is found corrupt with these words, is not written to, and can be salvaged.
fn damaged(store: &Store, words: &[&str]) {
    unchanged(&store.path, || {
        let found = tokenwal(&["verify", store.path()]).with(3).out;
        assert!(found.starts_with("verdict    corrupt\n"), "{found}");
        for word in words.iter().chain(&["do next: "]) {
            assert!(found.contains(word), "{word:?} is not in {found}");
        }
        let found = tokenwal(&["verify", store.path(), "--json"]).with(3).json();
        assert_eq!(found["verdict"], "corrupt");
        for command in ["replay", "stat", "compact"] {
            tokenwal(&[command, store.path()]).says(3, &["tokenwal salvage"]);
        }
        salvage(store).ok();
    });
    let saved = store.beside("saved");
    let saved = saved.to_str().unwrap();
    assert_eq!(tokenwal(&["verify", saved, "--json"]).ok().json()["verdict"], "clean");
}

#[test]
fn an_outcome_above_the_limit_is_kept_as_in_doubt() {
    let store = Store::named();
    let journal = store.create();
    let ticket = journal.blocking().begin(Begin::exchange(&app()).user(&user(1))).unwrap();
    let op = ticket.op();
    let body = format!("{{\"access_token\":\"{}\"}}", "a".repeat(8 << 10));
    let response = TokenResponse::parse(body.into_bytes(), NOW_MS).unwrap();
    let settled = journal.blocking().settle(ticket, Outcome::Issued(response));
    let error = settled.unwrap_err().error;
    assert!(matches!(error, Error::TooLarge { max: 4096, .. }), "{error:?}");
    journal.blocking().close().unwrap();
    let shown = tokenwal(&["replay", store.path(), "--json"]).ok().lines();
    assert_eq!(shown[0]["in_doubt"][0]["op"], op.0);
    assert_eq!(shown[0]["in_doubt"][0]["doubt"], "oversized");
    let (_, report) = options(&store.path).open(&store.path).unwrap();
    assert_eq!(report.in_doubt[0].doubt, Some(DoubtReason::Oversized));
}

#[test]
fn names_that_are_none() {
    let long = "x".repeat(256);
    for (name, expected) in [
        ("", NameError::Empty("user")),
        (&*long, NameError::TooLong { what: "user", bytes: 256 }),
        ("a\u{7}", NameError::Control { what: "user", at: 1 }),
        ("line\nbreak", NameError::Control { what: "user", at: 4 }),
    ] {
        let error = User::new(name).unwrap_err();
        assert_eq!(error, expected);
        let error = Error::from(error);
        assert!(error.advice().contains("1 to 255 bytes"));
        assert!(!error.to_string().contains('\n') && !error.to_string().contains('\u{7}'));
        assert!(App::new("p", name).is_err() && App::new(name, "c").is_err());
        assert!(Holder::new("t", name).is_err() && Holder::new(name, "h").is_err());
    }
    let widest = "é".repeat(127);
    Account::new(App::new(widest.clone(), widest.clone()).unwrap(), User::new(widest).unwrap());
}

#[test]
fn a_key_given_as_bytes_is_as_wrong_as_any_other() {
    let store = Store::closed(1);
    let wrong = tokenwal::Options::new(FixedKeys::new([9; 32], []));
    let error = wrong.open(&store.path).unwrap_err();
    assert!(matches!(error, Error::WrongKey { .. }), "{error}");
}

#[test]
fn no_detour_leads_a_salvage_into_the_store_itself() {
    let store = Store::closed(3);
    std::os::unix::fs::symlink(&store.path, store.beside("link")).unwrap();
    std::fs::create_dir(store.beside("other")).unwrap();
    unchanged(&store.path, || {
        for into in ["link/new", "other/../store/new", "store/new", "store"] {
            let into = store.beside(into);
            let ran = tokenwal(&["salvage", store.path(), into.to_str().unwrap()]);
            ran.says(1, &["lies within the damaged store"]);
        }
    });
}

#[test]
fn a_place_to_salvage_into_that_is_taken() {
    let store = Store::closed(60);
    std::fs::remove_file(&store.segments()[1]).unwrap();
    unchanged(&store.path, || {
        let within = store.path.join("saved");
        tokenwal(&["salvage", store.path(), within.to_str().unwrap()])
            .says(1, &["lies within the damaged store"]);
        tokenwal(&["salvage", store.path(), store.path()]).says(1, &["lies within"]);
    });
    let taken = Store::closed(1);
    unchanged(&taken.path, || {
        tokenwal(&["salvage", store.path(), taken.path()])
            .says(1, &["the directory is not empty", "does not exist yet"]);
    });
    let into = store.beside("saved");
    std::fs::write(store.beside("saved.report"), "somebody's").unwrap();
    tokenwal(&["salvage", store.path(), into.to_str().unwrap()])
        .says(1, &["saved.report", "nothing was written yet"]);
    assert_eq!(std::fs::read_to_string(store.beside("saved.report")).unwrap(), "somebody's");
}
