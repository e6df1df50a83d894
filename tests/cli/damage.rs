//! Damage, and what was changed on purpose: all of it is found, named with what is at stake, and
//! nothing is written.

use crate::stores::*;
use serde_json::Value;
use std::path::Path;
use tokenwal::internals::format::frame::head_crc;
use tokenwal::internals::format::record::{Kind, RecordHeader, body_crc};
use tokenwal::{Lsn, Nonce};

/// A frame in a segment's bytes: where it stands, and its record.
struct FrameAt {
    offset: usize,
    header: RecordHeader,
}

/// Walks the frames of a segment that is sound.
fn frames(bytes: &[u8]) -> Vec<FrameAt> {
    let mut frames = Vec::new();
    for batch in batches(bytes) {
        let length = u32::from_le_bytes(bytes[batch + 8..batch + 12].try_into().unwrap()) as usize;
        let mut offset = batch + 64;
        while offset < batch + length {
            let header = RecordHeader::peek(&bytes[offset + 8..]).unwrap();
            let next = offset + 8 + header.length as usize;
            frames.push(FrameAt { offset, header });
            offset = next;
        }
    }
    frames
}

/// Makes a frame's checksums right again, as somebody would who covers up a change.
fn cover_up(bytes: &mut [u8], offset: usize) {
    let nonce = Nonce::from_bytes(bytes[48..64].try_into().unwrap());
    let header = RecordHeader::peek(&bytes[offset + 8..]).unwrap();
    let record = offset + 8..offset + 8 + header.length as usize;
    let body = body_crc(&bytes[record]);
    bytes[offset + 4..offset + 8].copy_from_slice(&body.to_le_bytes());
    let record_header = bytes[offset + 8..offset + 40].try_into().unwrap();
    let head = head_crc(nonce, offset as u64, body, record_header);
    bytes[offset..offset + 4].copy_from_slice(&head.to_le_bytes());
}

fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn verify(store: &Store) -> Value {
    unchanged(&store.path, || tokenwal(&["verify", store.path(), "--json"]).with(3).json())
}

fn verify_with_key(store: &Store, code: i32) -> Value {
    let key = format!("{}.key", store.path());
    let args = ["verify", store.path(), "--json", "--key", &key];
    unchanged(&store.path, || tokenwal(&args).with(code).json())
}

fn problems(found: &Value) -> &[Value] {
    found["problems"].as_array().unwrap()
}

#[test]
fn a_flipped_bit_between_acknowledged_records_is_corruption() {
    let store = Store::closed(60);
    let segment = store.segments().remove(1);
    let mut lost = 0;
    damage(&segment, |bytes| {
        let frames = frames(bytes);
        let middle = &frames[frames.len() / 2];
        lost = middle.header.lsn.0;
        bytes[middle.offset + 60] ^= 4;
    });
    let found = verify(&store);
    assert_eq!(found["verdict"], "corrupt");
    let problem = &problems(&found)[0];
    assert_eq!(problem["file"], *file_name(&segment));
    assert_eq!(problem["lsn"], lost);
    assert!(!problem["accounts"].as_array().unwrap().is_empty(), "{found}");
    assert!(
        problem["what"].as_str().unwrap().contains(&format!("from LSN {lost} to {lost} are lost"))
    );
    unchanged(&store.path, || {
        for command in ["replay", "stat", "compact"] {
            tokenwal(&[command, store.path()])
                .says(3, &[file_name(&segment), "are at stake", "tokenwal salvage"]);
        }
    });
}

#[test]
fn all_damage_is_told_and_not_the_first_alone() {
    let store = Store::compacted(100);
    let segments = store.segments();
    assert!(segments.len() >= 4, "{segments:?}");
    for segment in &segments[..2] {
        damage(segment, |bytes| {
            let frames = frames(bytes);
            for at in [frames.len() / 4, frames.len() / 2] {
                bytes[frames[at].offset + 50] ^= 1;
            }
        });
    }
    damage(&segments[2], |bytes| bytes[100] ^= 1);
    damage(&store.snapshots()[0], |bytes| bytes[4096 + 1000] ^= 1);
    let found = verify(&store);
    let mut files: Vec<_> =
        problems(&found).iter().map(|problem| problem["file"].as_str().unwrap()).collect();
    files.dedup();
    assert!(problems(&found).len() >= 6, "{found:#}");
    for file in segments[..3].iter().chain(&store.snapshots()) {
        assert!(files.contains(&file_name(file)), "{file:?} in {found:#}");
    }
}

#[test]
fn a_bad_block_of_a_snapshot_fails_its_accounts_alone() {
    let store = Store::compacted(150);
    let before = tokenwal(&["replay", store.path(), "--json"]).ok().lines();
    let snapshot = store.snapshots().remove(0);
    damage(&snapshot, |bytes| bytes[4096 + 20_000] ^= 1);
    let found = verify(&store);
    let problem = &problems(&found)[0];
    assert_eq!(problem["file"], *file_name(&snapshot));
    let between = problem["accounts_between"].as_array().unwrap();
    let (first, next) = (between[0].as_str().unwrap(), between[1].as_str().unwrap());

    let shown = unchanged(&store.path, || tokenwal(&["replay", store.path(), "--json"]).with(3));
    assert!(shown.err.contains("a snapshot's block is damaged"), "{shown:?}");
    let tag = |view: &Value| view["account_tag"].as_str().unwrap().to_owned();
    let expected: Vec<_> = before
        .iter()
        .filter(|view| {
            let tag = tag(view);
            !(first..next).contains(&tag.as_str())
        })
        .map(tag)
        .collect();
    assert!(expected.len() < before.len() && expected.len() > before.len() / 2);
    assert_eq!(shown.lines().iter().map(tag).collect::<Vec<_>>(), expected);

    // Compaction gives up, and retires nothing that was there.
    let files = || (store.snapshots(), store.segments().remove(0));
    let there = files();
    tokenwal(&["compact", store.path()]).says(3, &["the compaction gave up", "tokenwal salvage"]);
    assert_eq!(files(), there);
    assert_eq!(tokenwal(&["replay", store.path(), "--json"]).with(3).lines().len(), expected.len());
}

#[test]
fn bytes_that_no_crash_explains_are_suspect() {
    let store = Store::closed(4);
    let segment = store.segments().pop().unwrap();
    damage(&segment, |bytes| {
        let at = bytes.len() - 100;
        bytes[at] = 7;
    });
    let found = verify(&store);
    assert_eq!(found["verdict"], "suspect", "{found:#}");
    tokenwal(&["replay", store.path()]).says(3, &["further behind the end", "tokenwal salvage"]);
    tokenwal(&["compact", store.path()]).says(3, &["further behind the end"]);
    // Also in a segment that nothing leads to.
    let store = Store::named();
    let journal = store.create();
    populate(&journal, 0..3);
    while journal.stats().prepared_segments == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(journal);
    let prepared = store.segments().pop().unwrap();
    damage(&prepared, |bytes| bytes[5000] = 7);
    let found = verify(&store);
    assert_eq!(found["verdict"], "suspect", "{found:#}");
    assert_eq!(problems(&found)[0]["file"], *file_name(&prepared));
}

#[test]
fn a_changed_record_under_right_checksums_is_found_with_the_key() {
    let store = Store::closed(20);
    let segment = store.segments().remove(0);
    let mut changed = 0;
    damage(&segment, |bytes| {
        let frames = frames(bytes);
        let issued = frames.iter().find(|f| f.header.known_kind() == Some(Kind::Issued)).unwrap();
        changed = issued.header.lsn.0;
        bytes[issued.offset + 8 + issued.header.length as usize - 30] ^= 1;
        cover_up(bytes, issued.offset);
    });
    assert_eq!(tokenwal(&["verify", store.path(), "--json"]).ok().json()["verdict"], "clean");
    let found = verify_with_key(&store, 3);
    assert_eq!(problems(&found).len(), 1, "{found:#}");
    assert_eq!(problems(&found)[0]["lsn"], changed);
    assert!(problems(&found)[0]["what"].as_str().unwrap().contains("fails authentication"));
    assert_eq!(problems(&found)[0]["accounts"].as_array().unwrap().len(), 1);
}

#[test]
fn a_changed_marker_is_found_by_the_mac_of_its_batch() {
    let store = Store::closed(5);
    let segment = store.segments().pop().unwrap();
    damage(&segment, |bytes| {
        let marker = frames(bytes).pop().unwrap();
        assert_eq!(marker.header.known_kind(), Some(Kind::Marker));
        // From *close* to *idle*.
        bytes[marker.offset + 40] = 1;
        cover_up(bytes, marker.offset);
    });
    tokenwal(&["verify", store.path()]).ok();
    let found = verify_with_key(&store, 3);
    assert_eq!(problems(&found).len(), 1, "{found:#}");
    assert!(
        problems(&found)[0]["what"].as_str().unwrap().contains("the batch fails authentication")
    );
}

#[test]
fn a_record_that_was_played_again_is_found_by_its_nonce() {
    let store = Store::closed(20);
    let segment = store.segments().remove(0);
    let mut places = (Lsn::NONE, Lsn::NONE);
    damage(&segment, |bytes| {
        let frames = frames(bytes);
        let is_intent = |frame: &&FrameAt| frame.header.known_kind() == Some(Kind::Intent);
        let intents: Vec<_> = frames.iter().filter(is_intent).collect();
        let (first, rest) = intents.split_first().unwrap();
        let second = rest.iter().find(|other| other.header.length == first.header.length).unwrap();
        places = (first.header.lsn, second.header.lsn);
        let length = first.header.length as usize;
        // All of the record but its LSN, which no seal covers.
        let record = bytes[first.offset + 8..first.offset + 8 + length].to_vec();
        let lsn = bytes[second.offset + 16..second.offset + 24].to_vec();
        bytes[second.offset + 8..second.offset + 8 + length].copy_from_slice(&record);
        bytes[second.offset + 16..second.offset + 24].copy_from_slice(&lsn);
        cover_up(bytes, second.offset);
    });
    tokenwal(&["verify", store.path()]).ok();
    let found = verify_with_key(&store, 3);
    let told: Vec<_> = problems(&found).iter().map(|p| p["what"].as_str().unwrap()).collect();
    let nonce = format!("its sealed part has the nonce of record {}", places.0);
    assert!(told.iter().any(|what| what.starts_with(&nonce)), "{found:#}");
    assert!(told.iter().any(|what| what.contains("the batch fails authentication")), "{found:#}");
}
