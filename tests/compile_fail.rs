//! The cheats that the types forbid.
//!
//! Whoever holds a pair knows that it is durable, because nobody but the journal can make one. A
//! secret stays where it is, because nothing that holds one can be copied, compared, printed or
//! serialized. An operation has one outcome, because its ticket is given up with it.
//!
//! Each file under `compile_fail` is compiled alone, against the library that this test was linked
//! with. A line that ends in `//~ CODE` must give an error of that code, and no other line may give
//! one. So it is the reason that is held, and not a compiler's wording of it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokenwal::{IssuedPair, Outcome, Secret, Ticket, TokenResponse};

/// Does not compile if the type has the trait: the call could then mean either implementation.
/// That this bites is shown by `compile_fail/control.rs`.
macro_rules! lacks {
    ($trait:path: $($type:ty),+) => {
        const _: fn() = || {
            trait Known<T> {
                fn ask() {}
            }
            struct Anyway;
            struct Has;
            impl<T: ?Sized> Known<Anyway> for T {}
            impl<T: ?Sized + $trait> Known<Has> for T {}
            $(let _ = <$type as Known<_>>::ask;)+
        };
    };
}

lacks!(serde::Serialize: IssuedPair, TokenResponse, Outcome, Secret, Ticket);
lacks!(Clone: IssuedPair, TokenResponse, Outcome, Secret, Ticket);
lacks!(PartialEq: IssuedPair, TokenResponse, Outcome, Secret, Ticket);
lacks!(std::hash::Hash: IssuedPair, TokenResponse, Outcome, Secret, Ticket);
lacks!(std::fmt::Display: IssuedPair, TokenResponse, Outcome, Secret, Ticket);
lacks!(Default: IssuedPair, Ticket);
lacks!(AsRef<str>: Secret);
lacks!(std::ops::Deref: Secret);

#[test]
fn cheats_do_not_compile() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_fail");
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let library = library();
    let mut cheats = 0;
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let expected: BTreeSet<(u64, String)> = (1..)
            .zip(text.lines())
            .filter_map(|(line, text)| Some((line, text.split_once("//~ ")?.1.trim().to_owned())))
            .collect();
        let (errors, said) = errors(file, &library);
        assert_eq!(errors, expected, "{}:\n{said}", file.display());
        cheats += expected.len();
    }
    // The honest file compiles, or nothing here means anything.
    assert!(files.iter().any(|file| file.ends_with("honest.rs")) && cheats > 10);
    println!("{cheats} cheats in {} files do not compile", files.len());
}

/// Finds the library among the dependencies that were built for this test. The newest one is of
/// this source, whatever other features were built before.
fn library() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libtokenwal-") && name.ends_with(".rlib")
    };
    fs::read_dir(program.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(is_library)
        .max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap())
        .expect("cargo puts the library beside the test")
}

/// Compiles a file; returns the line and code of each error, and what the compiler said.
fn errors(file: &Path, library: &Path) -> (BTreeSet<(u64, String)>, String) {
    let out = tempfile::tempdir().unwrap();
    let dependencies = format!("dependency={}", library.parent().unwrap().display());
    let output = Command::new("rustc")
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--error-format=json"])
        .args(["-L", &dependencies, "--extern", &format!("tokenwal={}", library.display())])
        .arg("--out-dir")
        .arg(out.path())
        .arg(file)
        .output()
        .expect("who runs cargo has rustc");
    let said = String::from_utf8(output.stderr).unwrap();
    let mut errors = BTreeSet::new();
    let mut rendered = String::new();
    for message in said.lines() {
        let message: serde_json::Value = serde_json::from_str(message).unwrap();
        rendered.push_str(message["rendered"].as_str().unwrap_or_default());
        let primary = |span: &&serde_json::Value| span["is_primary"] == true;
        let span = message["spans"].as_array().and_then(|spans| spans.iter().find(primary));
        if message["level"] == "error"
            && let Some(span) = span
        {
            let code = message["code"]["code"].as_str().unwrap_or("none");
            errors.insert((span["line_start"].as_u64().unwrap(), code.to_owned()));
        }
    }
    assert_eq!(output.status.success(), errors.is_empty(), "{rendered}");
    (errors, rendered)
}
