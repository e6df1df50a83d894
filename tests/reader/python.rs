//! The reader in Python as a process that answers a request a line (`answers.py`).

use serde_json::Value;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The process; it ends with the test.
pub(crate) struct Python {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What the reader says of a directory.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its exit status.
    pub(crate) status: u64,
    /// What `--verify` prints; null where a file is of a newer format.
    pub(crate) verification: Value,
    /// The lines of `--json`.
    pub(crate) accounts: Vec<Value>,
}

impl Answer {
    pub(crate) fn last_lsn(&self) -> u64 {
        self.verification["last_lsn"].as_u64().unwrap()
    }

    /// A snapshot is bad, or a block of one, which the verdict on the end does not depend on.
    pub(crate) fn has_bad_snapshots(&self) -> bool {
        !self.verification["bad_snapshots"].as_array().unwrap().is_empty()
    }
}

impl Python {
    /// Starts it; nothing where python3 is missing, which only in CI is a failure.
    pub(crate) fn start() -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader/answers.py");
        let child = Command::new("python3")
            .arg("-B")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match child {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                assert!(std::env::var_os("CI").is_none(), "python3 is missing, 3.9 or later");
                println!("skipped: python3 is missing, 3.9 or later");
                return None;
            }
            child => child.expect("python3 starts"),
        };
        let requests = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, requests, answers })
    }

    /// Asks about a directory; `mode` is an LSN to stop at, `live`, or empty.
    pub(crate) fn ask(&mut self, directory: &Path, mode: &str) -> Answer {
        writeln!(self.requests, "{}\t{mode}", directory.display()).unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let mut answer: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("the reader gave up ({error}): {line:?}"));
        let accounts = answer["accounts"].take();
        Answer {
            status: answer["status"].as_u64().unwrap(),
            verification: answer["verification"].take(),
            accounts: serde_json::from_value(accounts).unwrap(),
        }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
