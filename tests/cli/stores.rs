//! Stores to run the command on, the command itself, and what a directory held before and after.

use std::collections::BTreeMap;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;
use tokenwal::{
    Account, App, Begin, Holder, IssuedPair, Journal, KeyFile, Options, Outcome, Settled,
    SystemEntropy, TokenResponse, User,
};

pub(crate) const NOW_MS: u64 = 1_760_000_000_000;

/// A store in a directory of its own, with its key beside it as `DIR.key`.
pub(crate) struct Store {
    pub(crate) parent: TempDir,
    pub(crate) path: PathBuf,
}

impl Store {
    /// Names a store and makes its key.
    pub(crate) fn named() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("store");
        KeyFile::create_new(key_of(&path), &SystemEntropy).unwrap();
        Self { parent, path }
    }

    /// Makes a store of several segments: accounts with holders, refreshed, released, and one
    /// operation in doubt; closed in order.
    pub(crate) fn closed(accounts: u32) -> Self {
        let store = Self::named();
        let journal = store.create();
        populate(&journal, 0..accounts);
        journal.blocking().close().unwrap();
        store
    }

    /// As [`Store::closed`], the first accounts in a snapshot and as many again in the tail.
    pub(crate) fn compacted(accounts: u32) -> Self {
        let store = Self::named();
        let journal = store.create();
        populate(&journal, 0..accounts);
        journal.blocking().compact().unwrap();
        populate(&journal, accounts..2 * accounts);
        journal.blocking().close().unwrap();
        store
    }

    pub(crate) fn create(&self) -> Journal {
        options(&self.path).create(&self.path).unwrap().0
    }

    pub(crate) fn open(&self) -> Journal {
        options(&self.path).open(&self.path).unwrap().0
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Names a path beside the store.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.parent.path().join(name)
    }

    /// Lists the segments, in order.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        self.files(".twj")
    }

    pub(crate) fn snapshots(&self) -> Vec<PathBuf> {
        self.files(".tws")
    }

    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            entries.filter(|path| path.to_str().unwrap().ends_with(ending)).collect();
        files.sort();
        files
    }
}

pub(crate) fn key_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.key", path.display()))
}

/// Small segments, so that a store soon has several.
pub(crate) fn options(path: &Path) -> Options {
    Options::new(KeyFile::new(key_of(path)))
        .batch_bytes_max(16 << 10)
        .segment_bytes(128 << 10)
        .outcome_bytes_max(4 << 10)
        .compact_at_percent(0)
}

pub(crate) fn app() -> App {
    App::new("salesforce", "3MVG9").unwrap()
}

pub(crate) fn account(number: u32) -> Account {
    Account::new(app(), user(number))
}

pub(crate) fn user(number: u32) -> User {
    User::new(format!("user-{number}")).unwrap()
}

pub(crate) fn populate(journal: &Journal, numbers: std::ops::Range<u32>) {
    let holder = Holder::new("acme", "sync").unwrap();
    for number in numbers.clone() {
        let pair = issue(journal, number);
        let blocking = journal.blocking();
        if number % 2 == 0 {
            blocking.adopt(&account(number), pair.grant(), &holder).unwrap();
        }
        if number % 3 == 0 {
            let ticket = blocking.begin(Begin::refresh(&account(number), pair.grant())).unwrap();
            blocking.settle(ticket, response(number, 2)).unwrap();
        }
        if number % 4 == 0 {
            blocking.release(&account(number), pair.grant(), &holder).unwrap();
        }
    }
    drop(journal.blocking().begin(Begin::exchange(&app()).user(&user(numbers.start))).unwrap());
}

pub(crate) fn issue(journal: &Journal, number: u32) -> IssuedPair {
    let blocking = journal.blocking();
    let ticket = blocking.begin(Begin::exchange(&app())).unwrap();
    match blocking.settle(ticket, response(number, 1)).unwrap() {
        Settled::Issued(pair) => *pair,
        other => panic!("{other:?}"),
    }
}

/// Every token begins with one of these words, to be looked for where no token may be.
pub(crate) const TOKEN_WORDS: [&str; 2] = ["sesame-access", "sesame-refresh"];

pub(crate) fn access_token(number: u32, generation: u32) -> String {
    format!("sesame-access-{number}-{generation}")
}

pub(crate) fn refresh_token(number: u32, generation: u32) -> String {
    format!("sesame-refresh-{number}-{generation}")
}

pub(crate) fn response(number: u32, generation: u32) -> Outcome {
    let body = format!(
        "{{\"access_token\":\"{}\",\"refresh_token\":\"{}\",\"scope\":\"api\",\"expires_in\":7200}}",
        access_token(number, generation),
        refresh_token(number, generation)
    );
    let response = TokenResponse::parse(body.into_bytes(), NOW_MS).unwrap();
    Outcome::Issued(response.with_user(user(number)))
}

/// Waits for what a reader beside an owner sees a little later: the owner's next marker proves the
/// batch before it.
pub(crate) fn soon(mut is_so: impl FnMut() -> bool) {
    for _ in 0..200 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it has not become so within ten seconds");
}

/// What the command gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the command.
pub(crate) fn tokenwal(args: &[&str]) -> Ran {
    ran(Command::new(env!("CARGO_BIN_EXE_tokenwal")).args(args).env_remove("TOKENWAL_KEY_FILE"))
}

/// Runs the command with a text on its standard input.
pub(crate) fn fed(args: &[&str], input: &str) -> Ran {
    fed_bytes(args, input.as_bytes())
}

pub(crate) fn fed_bytes(args: &[&str], input: &[u8]) -> Ran {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input).unwrap();
    file.rewind().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwal"));
    ran(command.args(args).env_remove("TOKENWAL_KEY_FILE").stdin(file))
}

pub(crate) fn ran(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran = Ran {
        code: status.code().unwrap_or_else(|| panic!("{status}")),
        out: text(stdout),
        err: text(stderr),
    };
    assert!(!ran.err.contains("panicked"), "{ran:?}");
    ran
}

impl Ran {
    /// Checks that the command did what it was asked.
    pub(crate) fn ok(self) -> Self {
        self.with(0)
    }

    pub(crate) fn with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Checks that it failed with these words, and said what to do next.
    pub(crate) fn says(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.starts_with("tokenwal: "), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in {self:?}");
        }
        assert!(self.err.contains("\ndo next: "), "{self:?}");
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Everything that can be seen of a directory but access times.
pub(crate) fn picture(path: &Path) -> BTreeMap<String, (u32, i64, i64, Vec<u8>)> {
    let seen = |path: &Path, bytes| {
        let metadata = std::fs::symlink_metadata(path).unwrap();
        (metadata.permissions().mode(), metadata.mtime(), metadata.mtime_nsec(), bytes)
    };
    let mut picture = BTreeMap::from([(String::from("."), seen(path, Vec::new()))]);
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        picture.insert(name, seen(&entry.path(), std::fs::read(entry.path()).unwrap()));
    }
    picture
}

/// Checks that `run` leaves the directory as it was.
pub(crate) fn unchanged<T>(path: &Path, run: impl FnOnce() -> T) -> T {
    let before = picture(path);
    let result = run();
    let after = picture(path);
    let names = |picture: &BTreeMap<String, _>| picture.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before), "names changed");
    for (name, before) in &before {
        assert!(after[name] == *before, "{name} changed");
    }
    result
}

/// Changes a file's bytes, as failing media do.
pub(crate) fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Returns where batches begin in a segment's bytes, by their magic.
pub(crate) fn batches(bytes: &[u8]) -> Vec<usize> {
    let is_batch = |at: &usize| bytes[at + 4..at + 8] == *b"JWTB";
    (4096..bytes.len()).step_by(4096).filter(is_batch).collect()
}
