//! Imports go down only: from a room to those below it, as src/lib.rs lists them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// From the top; rooms of one line may use each other.
const ROOMS: &[&[&str]] = &[
    &["sandbox"],
    &["provider"],
    &["broker"],
    &["ledger"],
    &["inspect"],
    &["journal"],
    &["engine"],
    &["log"],
    &["error"],
    &["keys"],
    &["seal"],
    &["profile"],
    &["codec", "outcome"],
    &["format"],
    &["disk"],
    &["clock", "ids", "secret", "sync"],
];

fn sources(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn imports_go_down_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let level: BTreeMap<&str, usize> = ROOMS
        .iter()
        .enumerate()
        .flat_map(|(level, rooms)| rooms.iter().map(move |room| (*room, level)))
        .collect();
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut checked = 0;
    for (path, text) in files {
        let below = path.strip_prefix(&format!("{}/", src.display())).unwrap().to_owned();
        let room = below.split(['/', '.']).next().unwrap();
        if matches!(room, "lib" | "bin") {
            continue;
        }
        let own = *level.get(room).unwrap_or_else(|| panic!("{below}: no such room: {room}"));
        // Tests of a room may reach where they like.
        let production = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for rest in production.split("crate::").skip(1) {
            let name: String =
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(other) = level.get(name.as_str()) else { continue };
            checked += 1;
            assert!(own <= *other, "{below} imports crate::{name}, which is above it");
        }
    }
    assert!(checked > 100, "only {checked} imports were found");
}
