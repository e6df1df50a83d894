//! Salvage: a new store of what can be read, which opens and goes on; the damaged one stays as it
//! is, and what was lost is listed, without a secret.

use crate::stores::*;
use serde_json::Value;
use std::path::PathBuf;
use tokenwal::internals::format::record::{Kind, RecordHeader};

/// Salvages, and checks what must always hold; gives the new store and what was lost.
fn salvage(store: &Store) -> (Store, Vec<Value>) {
    let saved = Store { parent: tempfile::tempdir().unwrap(), path: PathBuf::new() };
    let path = saved.parent.path().join("saved");
    let saved = Store { path, ..saved };
    let key = format!("{}.key", store.path());
    let args = ["salvage", store.path(), saved.path(), "--key", &key, "--json"];
    let done = unchanged(&store.path, || tokenwal(&args).ok()).json();
    std::fs::copy(&key, key_of(&saved.path)).unwrap();
    let report = std::fs::read_to_string(saved.beside("saved.report")).unwrap_or_default();
    for word in TOKEN_WORDS {
        assert!(!report.contains(word), "{report}");
    }
    let lost: Vec<Value> = report.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(done["lost"], Value::Array(lost.clone()));
    assert_eq!(done["losses"], lost.len());

    let verify = ["verify", saved.path(), "--json", "--key", &key];
    let found = tokenwal(&verify).ok().json();
    assert_eq!(found["verdict"], "clean", "{found:#}");
    assert_eq!(found["accounts"], done["accounts"]);
    (saved, lost)
}

fn replay(store: &Store) -> Vec<Value> {
    tokenwal(&["replay", store.path(), "--json"]).ok().lines()
}

/// Goes on with a salvaged store: it opens, issues, compacts, and still has its tokens.
fn go_on(saved: &Store) {
    let before = replay(saved).len();
    let journal = saved.open();
    let pair = issue(&journal, 9_999);
    let grants: Vec<_> = journal.accounts().map(Result::unwrap).flat_map(|v| v.grants).collect();
    assert!(grants.iter().filter(|grant| grant.grant == pair.grant()).count() == 1, "ids are new");
    journal.blocking().compact().unwrap();
    journal.blocking().close().unwrap();
    assert_eq!(replay(saved).len(), before + 1);
    let found = tokenwal(&["verify", saved.path(), "--json"]).ok().json();
    assert_eq!(found["verdict"], "clean");
}

fn access_tokens(store: &Store, number: u32) -> Option<String> {
    let journal = store.open();
    let pair = journal.blocking().current(account(number)).unwrap();
    let token = pair.map(|pair| pair.access_token().reveal().to_owned());
    journal.blocking().close().unwrap();
    token
}

#[test]
fn of_a_sound_store_everything_is_saved() {
    let store = Store::compacted(40);
    let (saved, lost) = salvage(&store);
    assert_eq!(lost, Vec::<Value>::new());
    assert!(!saved.beside("saved.report").exists());
    assert_eq!(replay(&saved), replay(&store));
    assert_eq!(access_tokens(&saved, 3), Some(access_token(3, 2)));
    go_on(&saved);
    let text = saved.beside("again");
    let args = ["salvage", store.path(), text.to_str().unwrap()];
    assert!(tokenwal(&args).ok().out.starts_with("everything can be saved\n"));
}

#[test]
fn a_torn_tail_is_no_loss_and_does_not_come_back() {
    let store = Store::closed(10);
    let before = replay(&store);
    let segment = store.segments().pop().unwrap();
    damage(&segment, |bytes| {
        let last = *batches(bytes).last().unwrap();
        bytes.copy_within(last..last + 4096, last + 4096);
    });
    tokenwal(&["verify", store.path()]).with(4);
    let (saved, lost) = salvage(&store);
    assert_eq!(lost, Vec::<Value>::new());
    assert_eq!(replay(&saved), before);
}

/// Finds the frame of the first pair of generation 1 in a segment, its LSN, and its intent's.
fn an_issued(bytes: &[u8]) -> (usize, u64, u64) {
    for batch in batches(bytes) {
        let length = u32::from_le_bytes(bytes[batch + 8..batch + 12].try_into().unwrap()) as usize;
        let mut offset = batch + 64;
        while offset < batch + length {
            let header = RecordHeader::peek(&bytes[offset + 8..]).unwrap();
            if header.known_kind() == Some(Kind::Issued) {
                let op = bytes[offset + 72..offset + 80].try_into().unwrap();
                return (offset, header.lsn.0, u64::from_le_bytes(op));
            }
            offset += 8 + header.length as usize;
        }
    }
    panic!("no pair in the segment");
}

#[test]
fn an_operation_whose_outcome_was_lost_is_in_doubt() {
    let store = Store::closed(40);
    let before = replay(&store);
    let (mut lsn, mut op) = (0, 0);
    damage(&store.segments()[1], |bytes| {
        let (offset, at, intent) = an_issued(bytes);
        (lsn, op) = (at, intent);
        bytes[offset + 200] ^= 1;
    });
    let (saved, lost) = salvage(&store);
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!((&lost[0]["first_lsn"], &lost[0]["last_lsn"]), (&lsn.into(), &lsn.into()));
    let after = replay(&saved);
    let doubtful = |views: &[Value]| -> Vec<u64> {
        let of = |view: &Value| view["in_doubt"].as_array().unwrap().clone();
        views.iter().flat_map(of).map(|operation| operation["op"].as_u64().unwrap()).collect()
    };
    assert!(!doubtful(&before).contains(&op) && doubtful(&after).contains(&op), "{op}: {after:#?}");
    // All else is as it was.
    let kept = before.iter().filter(|view| after.contains(view)).count();
    assert!(kept >= before.len() - 1, "{kept} of {}", before.len());
    go_on(&saved);
}

#[test]
fn behind_a_missing_segment_the_journal_goes_on() {
    let store = Store::closed(100);
    let before = replay(&store).len();
    let segments = store.segments();
    assert!(segments.len() > 4);
    std::fs::remove_file(&segments[1]).unwrap();
    let (saved, lost) = salvage(&store);
    assert!(lost.len() == 1 && lost[0]["what"].as_str().unwrap().contains("missing"), "{lost:?}");
    let range = lost[0]["last_lsn"].as_u64().unwrap() - lost[0]["first_lsn"].as_u64().unwrap();
    assert!(range > 20, "{lost:?}");
    let after = replay(&saved);
    assert!(after.len() > before / 2 && after.len() < before, "{} of {before}", after.len());
    assert_eq!(access_tokens(&saved, 99).as_deref(), Some(access_token(99, 2).as_str()));
    go_on(&saved);
}

#[test]
fn swapped_and_copied_segments_lose_nothing() {
    let store = Store::closed(100);
    let before = replay(&store);
    let segments = store.segments();
    let aside = store.beside("aside");
    std::fs::rename(&segments[1], &aside).unwrap();
    std::fs::rename(&segments[2], &segments[1]).unwrap();
    std::fs::rename(&aside, &segments[2]).unwrap();
    std::fs::copy(&segments[3], store.path.join("segment-00000000000000000090.twj")).unwrap();
    let (saved, lost) = salvage(&store);
    assert_eq!(lost, Vec::<Value>::new());
    assert_eq!(replay(&saved), before);
}

#[test]
fn a_damaged_header_does_not_take_its_segment_with_it() {
    let store = Store::closed(60);
    let before = replay(&store);
    for (segment, at) in store.segments()[..3].iter().zip([4000, 16, 90]) {
        damage(segment, |bytes| bytes[at] ^= 1);
    }
    let (saved, lost) = salvage(&store);
    assert_eq!(lost, Vec::<Value>::new());
    assert_eq!(replay(&saved), before);
    go_on(&saved);
    // Where the nonce is gone, so are the records, and that is said.
    let store = Store::closed(60);
    damage(&store.segments()[1], |bytes| bytes[48] ^= 1);
    let (saved, lost) = salvage(&store);
    assert!(!lost.is_empty());
    assert!(replay(&saved).len() > 20);
}

#[test]
fn of_a_snapshot_all_blocks_but_the_bad_ones_are_saved() {
    let store = Store::compacted(150);
    let before = replay(&store);
    let snapshot = store.snapshots().remove(0);
    damage(&snapshot, |bytes| bytes[4096 + 20_000] ^= 1);
    let (saved, lost) = salvage(&store);
    assert_eq!(lost.len(), 1, "{lost:?}");
    let (after, before_tag) = (&lost[0]["accounts_after"], &lost[0]["accounts_before"]);
    let (after, before_tag) = (after.as_str().unwrap(), before_tag.as_str().unwrap());
    let expected: Vec<_> = before
        .into_iter()
        .filter(|view| {
            let tag = view["account_tag"].as_str().unwrap();
            // Those that changed later are in the segments, too.
            tag <= after || tag >= before_tag || view["lsn"].as_u64() > lsn_of(&store)
        })
        .collect();
    assert!(expected.len() > 200, "{}", expected.len());
    assert_eq!(replay(&saved), expected);
    go_on(&saved);
}

fn lsn_of(store: &Store) -> Option<u64> {
    let name = store.snapshots()[0].file_name().unwrap().to_str().unwrap().to_owned();
    name.strip_prefix("snapshot-").unwrap().strip_suffix(".tws").unwrap().parse().ok()
}

#[test]
fn a_snapshot_without_header_index_or_footer_is_still_read() {
    type Change = fn(&mut Vec<u8>);
    let changes: [Change; 4] = [
        |bytes| bytes[3000] ^= 1,
        |bytes| {
            let footer = bytes.len() - 10;
            bytes[footer] ^= 1;
        },
        |bytes| {
            // The index stands where the footer says.
            let footer = bytes.len() - 64;
            let index = u64::from_le_bytes(bytes[footer + 8..footer + 16].try_into().unwrap());
            bytes[usize::try_from(index).unwrap() + 50] ^= 1;
        },
        |bytes| bytes.truncate(bytes.len() - 64),
    ];
    for change in changes {
        let store = Store::compacted(60);
        let before = replay(&store);
        damage(&store.snapshots()[0], change);
        tokenwal(&["verify", store.path()]).with(3);
        let (saved, lost) = salvage(&store);
        assert_eq!(lost, Vec::<Value>::new());
        assert_eq!(replay(&saved), before);
    }
}

#[test]
fn what_cannot_be_saved_is_said_before_anything_is_written() {
    let store = Store::closed(60);
    std::fs::remove_file(&store.segments()[2]).unwrap();
    let into = store.beside("saved");
    let said = tokenwal(&["salvage", store.path(), into.to_str().unwrap()]).ok().out;
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with("cannot be saved: segment-"), "{said}");
    assert!(lines[0].contains("; LSN "), "{said}");
    assert!(said.contains("new store") && said.contains("saved.report"), "{said}");
    assert!(lines.last().unwrap().starts_with("do next: ask the provider"), "{said}");
}

#[test]
fn where_nothing_can_be_read_nothing_is_made() {
    let store = Store::closed(2);
    for segment in store.segments() {
        damage(&segment, |bytes| bytes.fill(0x55));
    }
    let into = store.beside("saved");
    unchanged(&store.path, || {
        tokenwal(&["salvage", store.path(), into.to_str().unwrap()])
            .says(3, &["there is nothing to salvage"]);
    });
    assert!(!into.exists());
}
