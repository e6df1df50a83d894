//! The real disk on a real directory: what it refuses, what it locks, and that bytes come back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test may")]

use std::fs::{self, Permissions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokenwal::disk::{Access, AlignedBuffer, Disk, RealDisk, Refusal};

/// Names the directory that a child process works on; without it the child tests do nothing.
const CHILD_DIR: &str = "TOKENWAL_TEST_CHILD_DIR";
const NOBODY: u32 = 65534;

fn new_disk() -> (tempfile::TempDir, PathBuf, RealDisk) {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let disk = RealDisk::create(&path).unwrap();
    (parent, path, disk)
}

fn refusal<T>(result: io::Result<T>) -> Refusal {
    let error = result.err().expect("must be refused");
    Refusal::of(&error).unwrap_or_else(|| panic!("not a refusal: {error:?}")).clone()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn am_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs one test of this file in a process of its own.
fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--ignored", "--test-threads=1"]);
    command.env(CHILD_DIR, dir);
    command
}

/// Is none where a child test was not started by its parent.
fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

#[test]
fn creates_a_private_directory_and_private_files() {
    let (_parent, path, disk) = new_disk();
    assert_eq!(mode(&path), 0o700);
    disk.create("a.tmp").unwrap();
    assert_eq!(mode(&path.join("a.tmp")), 0o600);
    let _lock = disk.try_lock().unwrap().unwrap();
    assert_eq!(mode(&path.join("LOCK")), 0o600);
    RealDisk::create(&path).expect("an existing directory is taken");
    disk.create("a.tmp").expect_err("an existing name is refused");
}

#[test]
fn refuses_what_is_not_a_private_directory() {
    let (parent, path, _disk) = new_disk();
    let at = |name: &str| parent.path().join(name);

    assert!(matches!(refusal(RealDisk::open(at("none"))), Refusal::Missing { .. }));
    assert!(matches!(refusal(RealDisk::open(at("none/store"))), Refusal::Missing { .. }));
    let error = RealDisk::create(at("none/store")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);

    fs::write(at("file"), b"").unwrap();
    assert!(matches!(refusal(RealDisk::open(at("file"))), Refusal::NotADirectory { .. }));
    assert!(matches!(refusal(RealDisk::create(at("file"))), Refusal::NotADirectory { .. }));

    symlink(&path, at("link")).unwrap();
    for name in ["link", "link/", "link/."] {
        assert!(matches!(refusal(RealDisk::open(at(name))), Refusal::Symlink { .. }), "{name}");
        assert!(matches!(refusal(RealDisk::create(at(name))), Refusal::Symlink { .. }), "{name}");
    }

    for loose in [0o750, 0o705, 0o710, 0o701, 0o720, 0o1777] {
        fs::set_permissions(&path, Permissions::from_mode(loose)).unwrap();
        let refused = refusal(RealDisk::open(&path));
        assert!(matches!(refused, Refusal::LooseMode { mode, .. } if mode == loose), "{refused}");
        assert!(refused.to_string().contains(&format!("{loose:04o}")), "{refused}");
        refusal(RealDisk::create(&path));
        assert_eq!(mode(&path), loose, "nothing is repaired in silence");
    }
}

#[test]
fn refuses_files_that_are_not_private_and_regular() {
    let (_parent, path, disk) = new_disk();
    fs::write(path.join("target"), b"secret").unwrap();
    fs::set_permissions(path.join("target"), Permissions::from_mode(0o600)).unwrap();
    symlink("target", path.join("link")).unwrap();
    symlink("nowhere", path.join("dangling")).unwrap();
    fs::create_dir(path.join("directory")).unwrap();
    let fifo = Command::new("mkfifo").arg(path.join("fifo")).status().unwrap();
    assert!(fifo.success());
    let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();

    for access in [Access::Read, Access::Write, Access::Direct] {
        let open = |name: &str| refusal(disk.open(name, access));
        assert!(matches!(open("link"), Refusal::Symlink { .. }));
        assert!(matches!(open("dangling"), Refusal::Symlink { .. }));
        for name in ["directory", "fifo", "socket"] {
            assert!(matches!(open(name), Refusal::NotRegular { .. }), "{name} {access:?}");
        }
        let missing = disk.open("none", access).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        for loose in [0o640, 0o604, 0o620, 0o666] {
            fs::set_permissions(path.join("target"), Permissions::from_mode(loose)).unwrap();
            assert!(matches!(open("target"), Refusal::LooseMode { mode, .. } if mode == loose));
        }
        fs::set_permissions(path.join("target"), Permissions::from_mode(0o600)).unwrap();
        disk.open("target", access).unwrap();
    }
    for name in ["", ".", "..", "../other", "a/b", "/etc/passwd", "a\0b"] {
        let kind = disk.open(name, Access::Read).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::InvalidInput, "{name:?}");
        assert!(disk.create(name).is_err() && disk.remove(name).is_err(), "{name:?}");
        assert!(disk.rename("target", name).is_err(), "{name:?}");
    }
}

#[test]
fn refuses_a_lock_file_that_leads_elsewhere() {
    let (_parent, path, disk) = new_disk();
    symlink("elsewhere", path.join("LOCK")).unwrap();
    assert!(matches!(refusal(disk.try_lock()), Refusal::Symlink { .. }));
    assert!(!path.join("elsewhere").exists());
}

#[test]
fn root_reads_what_is_foreign_and_changes_nothing() {
    if !am_root() {
        return;
    }
    let (parent, path, disk) = new_disk();
    disk.create("file").unwrap().write_at(0, b"theirs").unwrap();
    disk.create("LOCK").unwrap();
    for name in ["file", "LOCK", ""] {
        std::os::unix::fs::chown(path.join(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let disk = RealDisk::open(&path).unwrap();
    let mut bytes = [0; 6];
    assert_eq!(disk.open("file", Access::Read).unwrap().read_at(0, &mut bytes).unwrap(), 6);
    assert_eq!(&bytes, b"theirs");

    let foreign = |refused: Refusal| matches!(refused, Refusal::ForeignOwner { uid: NOBODY, .. });
    assert!(foreign(refusal(disk.open("file", Access::Write))));
    assert!(foreign(refusal(disk.open("file", Access::Direct))));
    assert!(foreign(refusal(disk.create("new"))));
    assert!(foreign(refusal(disk.rename("file", "other"))));
    assert!(foreign(refusal(disk.remove("file"))));
    assert!(foreign(refusal(disk.try_lock())));

    // A copy made by root for the owner belongs to the owner.
    let copy = parent.path().join("copy");
    let made = RealDisk::create_like(&copy, &disk).unwrap();
    made.create("file").unwrap().write_at(0, b"copied").unwrap();
    made.try_lock().unwrap().unwrap();
    made.open("file", Access::Write).unwrap().write_at(0, b"again").unwrap();
    for name in ["file", "LOCK", ""] {
        assert_eq!(fs::metadata(copy.join(name)).unwrap().uid(), NOBODY, "{name}");
    }
}

#[test]
fn others_are_refused_what_is_ours() {
    if !am_root() {
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).unwrap();
    // The test's own program is copied to where another user may run it.
    let program = parent.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let path = parent.path().join("store");
    RealDisk::create(&path).unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", "child_is_refused", "--ignored"]).env(CHILD_DIR, &path);
    assert_passed(command.uid(NOBODY).gid(NOBODY).current_dir("/"));
}

/// Runs a child test; a name that fits no test must not pass for success.
fn assert_passed(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}

#[test]
#[ignore = "run by others_are_refused_what_is_ours, as another user"]
fn child_is_refused() {
    let Some(dir) = child_dir() else { return };
    for result in [RealDisk::open(&dir), RealDisk::create(&dir)] {
        assert!(matches!(refusal(result), Refusal::ForeignOwner { uid: 0, .. }));
    }
}

#[test]
fn reads_back_what_was_written() {
    let (_parent, _path, disk) = new_disk();
    let unit = disk.alignment();
    assert!(unit >= 512 && unit.is_power_of_two());
    let file = disk.create("file").unwrap();
    assert!(!file.writes_are_durable());
    file.write_at(0, &vec![0; 4 * unit]).unwrap();
    file.sync().unwrap();
    disk.sync_dir().unwrap();

    for access in [Access::Write, Access::Direct] {
        let writer = disk.open("file", access).unwrap();
        let reader = disk.open("file", Access::Read).unwrap();
        let mut bytes = AlignedBuffer::zeroed(2 * unit, unit);
        bytes.fill(if access == Access::Write { 1 } else { 2 });
        writer.write_at(u64::try_from(unit).unwrap(), &bytes).unwrap();
        // A buffer that stands askew is taken too.
        let askew = vec![3; unit + 1];
        writer.write_at(0, &askew[1..]).unwrap();
        writer.sync().unwrap();
        let mut back = vec![9; 5 * unit];
        for file in [&reader, &writer] {
            assert_eq!(file.read_at(0, &mut back).unwrap(), 4 * unit);
            assert_eq!(file.len().unwrap(), u64::try_from(4 * unit).unwrap());
            assert!(back[..unit] == askew[1..]);
            assert!(back[unit..3 * unit] == bytes[..]);
            assert!(back[3 * unit..4 * unit].iter().all(|byte| *byte == 0));
        }
        assert_eq!(reader.read_at(u64::MAX / 4, &mut back).unwrap(), 0);
        reader.write_at(0, b"x").expect_err("open for reading only");
        if writer.writes_are_durable() {
            let kind = |result: io::Result<()>| result.unwrap_err().kind();
            assert_eq!(kind(writer.write_at(1, &bytes)), io::ErrorKind::InvalidInput);
            assert_eq!(kind(writer.write_at(0, &bytes[1..])), io::ErrorKind::InvalidInput);
        }
    }
}

#[test]
fn direct_writes_work_or_fall_back_on_every_file_system_at_hand() {
    for parent in ["/dev/shm", "/tmp", "/var/tmp", env!("CARGO_TARGET_TMPDIR")] {
        let Ok(parent) = tempfile::tempdir_in(parent) else { continue };
        let path = parent.path().join("store");
        RealDisk::create(&path).unwrap().try_lock().unwrap().unwrap();
        let disk = RealDisk::open(&path).unwrap();
        let unit = disk.alignment();
        disk.create("file").unwrap().write_at(0, &vec![0; 4 * unit]).unwrap();
        let writer = disk.open("file", Access::Direct).unwrap();
        let mut bytes = AlignedBuffer::zeroed(unit, unit);
        bytes.fill(7);
        writer.write_at(0, &bytes).unwrap();
        if !writer.writes_are_durable() {
            writer.sync().unwrap();
        }
        assert_eq!(fs::read(path.join("file")).unwrap()[..unit], bytes[..]);
    }
}

#[test]
fn lists_renames_and_removes() {
    let (_parent, path, disk) = new_disk();
    disk.create("one.tmp").unwrap().write_at(0, b"1").unwrap();
    disk.create("two").unwrap();
    fs::write(path.join("notes of a person"), b"").unwrap();
    disk.rename("one.tmp", "two").unwrap();
    disk.sync_dir().unwrap();
    let mut names = disk.list().unwrap();
    names.sort();
    assert_eq!(names, ["notes of a person", "two"]);
    assert_eq!(fs::read(path.join("two")).unwrap(), b"1");
    disk.remove("two").unwrap();
    assert_eq!(disk.remove("two").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(disk.rename("two", "three").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(disk.list().unwrap(), ["notes of a person"]);
}

#[test]
fn stays_with_the_directory_that_was_checked() {
    let (parent, path, disk) = new_disk();
    fs::rename(&path, parent.path().join("moved")).unwrap();
    symlink("/etc", &path).unwrap();
    assert!(disk.list().unwrap().is_empty());
    disk.create("file").unwrap();
    assert!(parent.path().join("moved/file").exists());
}

#[test]
fn one_owner_at_a_time() {
    let (_parent, path, disk) = new_disk();
    assert!(disk.lock_note().unwrap().is_empty());
    assert!(!disk.is_locked().unwrap(), "there is no lock file yet");
    let lock = disk.try_lock().unwrap().expect("free");
    lock.write_note(b"pid 1234567\nhost a\n").unwrap();
    lock.write_note(b"pid 1\n").unwrap();
    let other = RealDisk::open(&path).unwrap();
    assert!(other.try_lock().unwrap().is_none());
    assert!(other.is_locked().unwrap());
    assert_eq!(other.lock_note().unwrap(), b"pid 1\n");
    drop(lock);
    assert!(!other.is_locked().unwrap(), "and looking takes it from nobody:");
    assert!(other.try_lock().unwrap().is_some());
    assert!(path.join("LOCK").exists(), "never unlinked");
    assert_eq!(other.lock_note().unwrap(), b"pid 1\n");
}

#[test]
fn a_killed_owner_lets_go() {
    let (_parent, path, disk) = new_disk();
    let mut owner =
        child("child_owns", &path).stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().unwrap();
    wait_for(&mut owner, "locked");
    assert!(disk.try_lock().unwrap().is_none());
    assert_eq!(disk.lock_note().unwrap(), format!("pid {}\n", owner.id()).into_bytes());
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(disk.try_lock().unwrap().is_some());
}

fn wait_for(child: &mut Child, word: &str) {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains(word)));
}

#[test]
#[ignore = "run by a_killed_owner_lets_go"]
fn child_owns() {
    let Some(dir) = child_dir() else { return };
    let disk = RealDisk::open(dir).unwrap();
    let lock = disk.try_lock().unwrap().unwrap();
    lock.write_note(format!("pid {}\n", std::process::id()).as_bytes()).unwrap();
    println!("\nlocked");
    io::stdout().flush().unwrap();
    // Ends when the parent does.
    io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn a_limit_on_file_sizes_is_an_error_and_not_a_signal() {
    let (_parent, path, _disk) = new_disk();
    let run = child("child_hits_the_limit", &path);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 128; exec \"$0\" \"$@\""]).arg(run.get_program());
    assert_passed(shell.args(run.get_args()).env(CHILD_DIR, &path));
}

#[test]
#[ignore = "run by a_limit_on_file_sizes_is_an_error_and_not_a_signal"]
fn child_hits_the_limit() {
    let Some(dir) = child_dir() else { return };
    let disk = RealDisk::open(dir).unwrap();
    let file = disk.create("file").unwrap();
    let error = (0..64).find_map(|at| file.write_at(at * 4096, &[1; 4096]).err()).unwrap();
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    assert!(file.len().unwrap() > 0);
}

#[test]
fn tells_the_host_and_the_free_space() {
    let (_parent, _path, disk) = new_disk();
    assert!(!disk.host().is_empty());
    assert_eq!(disk.host(), disk.host());
    assert!(disk.free_bytes().unwrap() > 0);
    assert!(disk.path().ends_with("store"));
}
