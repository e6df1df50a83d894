//! Replays the corpora of the fuzz targets on stable, through the same functions (fuzz/shim.rs).
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

use std::fs;
use std::path::Path;

#[path = "../fuzz/shim.rs"]
mod shim;

/// How many ways of cutting an input short, and how many bits to flip in it.
const MANY: (usize, usize) = (200, 200);

/// As many as a few seconds allow where an input takes milliseconds.
const FEW: (usize, usize) = (3, 6);

/// Runs a target over its corpus, each input also cut short and with single bits flipped. An input
/// decodes unless its name begins with `hostile`.
fn replay(target: &str, run: fn(&[u8]) -> bool, (cuts, flips): (usize, usize)) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut names: Vec<_> = fs::read_dir(&corpus)
        .expect("every target has a corpus")
        .map(|input| input.expect("it can be listed").file_name())
        .collect();
    names.sort();
    assert!(!names.is_empty(), "{} is empty", corpus.display());
    for name in names {
        let input = fs::read(corpus.join(&name)).expect("it can be read");
        let hostile = name.to_string_lossy().starts_with("hostile");
        let told = Told(format!("{target}/{}", name.display()));
        assert_eq!(run(&input), !hostile, "{}", told.0);
        drop(told);
        let named = |how: &str, at| format!("{target}/{} {how} {at}", name.display());
        for length in (0..input.len()).step_by(1 + input.len() / cuts) {
            let _told = Told(named("cut to", length));
            run(&input[..length]);
        }
        for bit in (0..input.len() * 8).step_by(1 + input.len() * 8 / flips) {
            let _told = Told(named("with flipped bit", bit));
            let mut flipped = input.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            run(&flipped);
        }
    }
}

/// Says of which input a panic came.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the input was {}", self.0);
        }
    }
}

#[test]
fn batch() {
    replay("batch", shim::batch, MANY);
}

#[test]
fn line() {
    replay("line", shim::line, MANY);
}

#[test]
fn plain() {
    replay("plain", shim::plain, MANY);
}

#[test]
fn record() {
    replay("record", shim::record, MANY);
}

#[test]
fn snapshot() {
    replay("snapshot", shim::snapshot, MANY);
}

#[test]
fn directory() {
    replay("directory", shim::directory, FEW);
}
