//! What only a machine can do to a store: another owner, a full disk, a read-only mount, another
//! host. As root these are real; where they cannot be had the test says so and passes.

use crate::over::{DiskLayer, Over};
use crate::stores::*;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokenwal::disk::{Disk, RealDisk};

const NOBODY: u32 = 65534;

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: this takes root");
    }
    root
}

#[test]
fn a_store_that_belongs_to_another_user() {
    if !is_root() {
        return;
    }
    // To another user the store of root is none that he may read.
    let store = Store::closed(3);
    std::fs::set_permissions(store.parent.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let binary = store.beside("tokenwal");
    // By another process: a file that this one has written may still be open for writing in a
    // command that another test is just starting, and then it does not run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_tokenwal")).arg(&binary).status();
    assert!(copied.unwrap().success());
    for command in ["verify", "replay", "stat", "compact"] {
        let mut foreign = Command::new(&binary);
        foreign.args([command, store.path()]).uid(NOBODY).gid(NOBODY);
        ran(&mut foreign).says(1, &["belongs to user 0", "the user's own"]);
    }

    // Root reads the store of another user, and writes nothing into it.
    chown_all(&store, NOBODY);
    unchanged(&store.path, || {
        tokenwal(&["verify", store.path()]).ok();
        assert_eq!(tokenwal(&["replay", store.path(), "--json"]).ok().lines().len(), 3);
        tokenwal(&["compact", store.path()]).says(1, &["belongs to user 65534"]);
    });

    // What root salvages belongs to whom the store belongs to.
    let segment = store.segments().remove(0);
    damage(&segment, |bytes| {
        let second = batches(bytes)[1];
        bytes[second + 100] ^= 1;
    });
    let into = store.beside("saved");
    tokenwal(&["salvage", store.path(), into.to_str().unwrap()]).ok();
    let report = store.beside("saved.report");
    let made = std::fs::read_dir(&into).unwrap().map(|entry| entry.unwrap().path());
    for path in made.chain([into.clone(), report]) {
        let owner = std::os::unix::fs::MetadataExt::uid(&path.metadata().unwrap());
        assert_eq!(owner, NOBODY, "{}", path.display());
    }
}

fn chown_all(store: &Store, user: u32) {
    chown(&store.path, Some(user), Some(user)).unwrap();
    for entry in std::fs::read_dir(&store.path).unwrap() {
        chown(entry.unwrap().path(), Some(user), Some(user)).unwrap();
    }
}

/// A mount that goes with the test.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(at: &'a Path, args: &[&str]) -> Option<Self> {
        let mounted = Command::new("mount").args(args).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at));
        }
        println!("skipped: nothing can be mounted here");
        None
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // A command that another test is just starting has our files, too, until it runs.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let done = Command::new("umount").arg(self.0).output().unwrap();
            if done.status.success() {
                return;
            }
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(said.contains("busy") && Instant::now() < deadline, "{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_full_disk() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::new(place.path(), &["-t", "tmpfs", "-o", "size=2m", "tmpfs"]) else {
        return;
    };
    let mut store = Store::named();
    let key = key_of(&store.path);
    store.path = place.path().join("store");
    std::fs::rename(key, key_of(&store.path)).unwrap_or_else(|_| {
        tokenwal(&["key", "new", key_of(&store.path).to_str().unwrap()]).ok();
    });
    let journal = store.create();
    populate(&journal, 0..20);
    journal.blocking().close().unwrap();
    let filler = place.path().join("filler");
    let mut chunk = 1 << 20;
    let mut bytes = Vec::new();
    while chunk > 0 {
        bytes.resize(bytes.len() + chunk, 1);
        if std::fs::write(&filler, &bytes).is_err() {
            bytes.truncate(bytes.len() - chunk);
            chunk /= 2;
        }
    }
    let before = unchanged(&store.path, || {
        tokenwal(&["verify", store.path()]).ok();
        tokenwal(&["stat", store.path()]).ok();
        tokenwal(&["replay", store.path(), "--json"]).ok().out
    });
    tokenwal(&["compact", store.path()]).says(1, &["No space left on device"]);
    assert_eq!(tokenwal(&["replay", store.path(), "--json"]).ok().out, before);
    tokenwal(&["verify", store.path()]).ok();
    let into = place.path().join("saved");
    tokenwal(&["salvage", store.path(), into.to_str().unwrap()])
        .says(1, &["No space left on device"]);
    // With space again, nothing was lost.
    std::fs::remove_file(&filler).unwrap();
    tokenwal(&["compact", store.path()]).ok();
    assert_eq!(tokenwal(&["replay", store.path(), "--json"]).ok().out, before);
}

#[test]
fn a_read_only_mount() {
    if !is_root() {
        return;
    }
    let store = Store::compacted(10);
    let source = store.path();
    let Some(_mount) = Mount::new(&store.path, &["--bind", source]) else { return };
    let remount = ["-o", "remount,bind,ro", source];
    assert!(Command::new("mount").args(remount).status().unwrap().success());
    unchanged(&store.path, || {
        tokenwal(&["verify", store.path(), "--key", &format!("{source}.key")]).ok();
        tokenwal(&["stat", store.path()]).ok();
        assert_eq!(tokenwal(&["replay", store.path(), "--json"]).ok().lines().len(), 20);
        tokenwal(&["compact", store.path()]).says(1, &["Read-only file system"]);
    });
    let into = store.beside("saved");
    tokenwal(&["salvage", store.path(), into.to_str().unwrap()]).ok();
}

/// A disk of another machine.
#[derive(Debug)]
pub(crate) struct Elsewhere(RealDisk);

impl Elsewhere {
    pub(crate) fn create(path: &Path) -> Arc<dyn Disk> {
        Arc::new(Over(Self(RealDisk::create(path).unwrap())))
    }
}

impl DiskLayer for Elsewhere {
    fn below(&self) -> &dyn Disk {
        &self.0
    }

    fn host(&self) -> String {
        String::from("elsewhere")
    }
}

#[test]
fn a_store_that_was_copied_from_another_host() {
    let store = Store::named();
    let disk = Elsewhere::create(&store.path);
    let (journal, _) = options(&store.path).disk(disk).create(&store.path).unwrap();
    populate(&journal, 0..4);
    journal.blocking().close().unwrap();
    unchanged(&store.path, || {
        tokenwal(&["verify", store.path()]).ok();
        assert_eq!(tokenwal(&["replay", store.path(), "--json"]).ok().lines().len(), 4);
        let stat = tokenwal(&["stat", store.path(), "--json"]).ok().json();
        assert_eq!(stat["written_here"], false);
        tokenwal(&["compact", store.path()])
            .says(1, &["last written on another host", "spent tokens", "`claim`"]);
    });
    // Nor does salvaging it make it a store of this host.
    let into = store.beside("saved");
    tokenwal(&["salvage", store.path(), into.to_str().unwrap()]).ok();
    std::fs::copy(key_of(&store.path), key_of(&into)).unwrap();
    tokenwal(&["compact", into.to_str().unwrap()]).says(1, &["last written on another host"]);
    let (journal, report) = options(&into).claim().open(&into).unwrap();
    assert!(report.host_changed);
    journal.blocking().close().unwrap();
    tokenwal(&["compact", into.to_str().unwrap()]).ok();
}
