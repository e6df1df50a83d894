//! The control socket of a broker: who may make it, where, for how long, and what comes over it.
#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test may")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokenwal::broker::control::{ControlError, Order, give};
use tokenwal::broker::{Broker, Choice};
use tokenwal::{AccountTag, App, Begin, FixedKeys, GrantId, Journal, OpId, Options, Secret};
use tokio::runtime::Runtime;

struct Served {
    dir: TempDir,
    path: PathBuf,
    journal: Journal,
    broker: Broker<Journal>,
    runtime: Runtime,
}

fn options() -> Options {
    Options::new(FixedKeys::new([7; 32], []))
}

impl Served {
    /// Opens a store; orders are not taken yet.
    fn new(below: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(below);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let (journal, _) = options().create(&path).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        let broker = runtime.block_on(async { Broker::builder(journal.clone()).build() });
        Self { dir, path, journal, broker, runtime }
    }

    fn serving() -> Self {
        let served = Self::new("store");
        served.serve().unwrap();
        served
    }

    fn serve(&self) -> Result<(), ControlError> {
        self.runtime.block_on(async { self.broker.serve_control(&self.path) })
    }

    fn socket(&self) -> PathBuf {
        self.path.join("control")
    }

    fn shut(&self) {
        assert!(self.runtime.block_on(self.broker.shutdown(Duration::from_secs(10))));
    }
}

fn inode(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).unwrap().ino()
}

/// Sends bytes, and returns what comes back.
fn said(path: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    // Who closes early breaks the pipe.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn the_socket_is_the_owners_alone_and_goes_with_the_broker() {
    let served = Served::serving();
    let metadata = std::fs::symlink_metadata(served.socket()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(give(&served.path, &Order::Claim).unwrap().already);
    served.shut();
    assert!(!served.socket().exists());
    let gone = give(&served.path, &Order::Claim).unwrap_err();
    assert!(matches!(gone, ControlError::Nobody { .. }), "{gone}");
}

#[test]
fn a_broker_that_is_dropped_leaves_no_socket() {
    let Served { broker, runtime, path, journal, dir } = Served::serving();
    let socket = path.join("control");
    drop(broker);
    // What looks into the ledger when it begins holds the broker a while.
    for _ in 0..500 {
        if !socket.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!socket.exists());
    drop((runtime, journal, dir));
}

#[test]
fn a_directory_of_a_long_path_has_a_socket_too() {
    let below = format!("{}/store", ["a-rather-long-name-of-a-directory"; 8].join("/"));
    let served = Served::new(&below);
    assert!(served.path.as_os_str().len() > 200);
    served.serve().unwrap();
    assert!(give(&served.path, &Order::Claim).unwrap().already);
    served.shut();
    assert!(!served.socket().exists());
}

#[test]
fn what_stands_in_its_place_is_replaced_only_if_it_is_a_socket() {
    let served = Served::new("store");
    drop(UnixListener::bind(served.socket()).unwrap());
    let left = inode(&served.socket());
    served.serve().unwrap();
    // An inode's number may be used again, but nobody listened on the old one.
    let _ = left;
    assert!(give(&served.path, &Order::Claim).unwrap().already);
    // Serving again takes the place of the first.
    served.serve().unwrap();
    assert!(give(&served.path, &Order::Claim).unwrap().already);
    served.shut();

    let served = Served::new("store");
    std::fs::write(served.socket(), "a note").unwrap();
    let refused = served.serve().unwrap_err();
    assert!(matches!(refused, ControlError::NotHere { .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(served.socket()).unwrap(), "a note");
}

#[test]
fn only_who_has_the_store_open_takes_orders_for_it() {
    let served = Served::new("store");
    let other = served.dir.path().join("other");
    let (journal, _) = options().create(&other).unwrap();
    journal.blocking().close().unwrap();
    let refused = served.runtime.block_on(async { served.broker.serve_control(&other) });
    assert!(matches!(refused, Err(ControlError::NotHere { .. })), "{refused:?}");
    assert!(!other.join("control").exists());
    let nowhere = served.runtime.block_on(async { served.broker.serve_control("/nonexistent") });
    assert!(matches!(nowhere, Err(ControlError::Io { .. })), "{nowhere:?}");
}

#[test]
fn a_successors_socket_is_not_removed() {
    let served = Served::serving();
    // As where the store was closed and opened by another process, before this broker was shut
    // down.
    std::fs::remove_file(served.socket()).unwrap();
    // So that the number of the old one is not used again.
    let _place = UnixListener::bind(served.dir.path().join("place")).unwrap();
    let successor = UnixListener::bind(served.socket()).unwrap();
    served.shut();
    assert!(served.socket().exists());
    drop(successor);
}

#[test]
fn what_is_no_order_is_answered_or_dropped_and_harms_nobody() {
    let served = Served::serving();
    let socket = served.socket();
    let cases: [&[u8]; 9] = [
        b"\n",
        b"sesame\n",
        b"{}\n",
        b"{\"order\":\"format the disk\"}\n",
        b"{\"order\":\"compact\",\"sesame\":1}\n",
        b"{\"order\":\"resolve\",\"account\":\"sesame\",\"op\":1,\"choice\":\"waive\"}\n",
        b"{\"order\":\"revoke\",\"account\":\"00000000000000000000000000000000\"}\n",
        b"{\"order\":\"claim\"}\n{\"order\":\"claim\"}\n",
        b"{\"order\":\"claim\"",
    ];
    for bytes in cases {
        let answer = said(&socket, bytes);
        assert!(answer.contains("the order cannot be read"), "{answer:?}");
        assert!(!answer.contains("sesame"), "{answer:?}");
    }
    let long = vec![b' '; 8 << 20];
    let answer = said(&socket, &long);
    assert!(answer.is_empty() || answer.contains("cannot be read"), "{answer:?}");
    assert!(give(&served.path, &Order::Claim).unwrap().already);
    served.shut();
}

#[test]
fn who_says_nothing_keeps_nobody_waiting() {
    let served = Served::serving();
    let silent: Vec<_> = (0..8).map(|_| UnixStream::connect(served.socket()).unwrap()).collect();
    assert!(give(&served.path, &Order::Claim).unwrap().already);
    // Nor does a shutdown wait for them.
    served.shut();
    drop(silent);
}

#[test]
fn an_order_is_carried_out_though_nobody_waits_for_its_answer() {
    let served = Served::serving();
    let app = App::new("p", "c").unwrap();
    let ticket = served.journal.blocking().begin(Begin::exchange(&app)).unwrap();
    let (account, op) = (ticket.account(), ticket.op());
    // While it is on its way nobody decides about it.
    let order = || Order::Resolve { account, op, choice: Choice::Waive };
    let refused = give(&served.path, &order()).unwrap_err();
    assert!(refused.to_string().contains("on its way"), "{refused}");
    let doubt = tokenwal::Doubt::new(tokenwal::DoubtReason::Timeout);
    served.journal.blocking().settle(ticket, tokenwal::Outcome::InDoubt(doubt)).unwrap();
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    let line = format!(
        "{{\"order\":\"resolve\",\"account\":\"{account}\",\"op\":{op},\"choice\":\"waive\"}}\n"
    );
    stream.write_all(line.as_bytes()).unwrap();
    drop(stream);
    for _ in 0..500 {
        if served
            .journal
            .blocking()
            .account(account)
            .unwrap()
            .is_none_or(|it| it.in_doubt.is_empty())
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let gone = give(&served.path, &order()).unwrap_err();
    let ControlError::Refused { error, advice } = gone else { panic!("{gone}") };
    assert!(!error.is_empty() && !advice.is_empty());
    served.shut();
}

#[test]
fn orders_about_what_is_not_there_are_refused_with_advice() {
    let served = Served::serving();
    let account = AccountTag::from_bytes([9; 16]);
    let orders = [
        Order::Resolve { account, op: OpId(1), choice: Choice::Burn(Secret::new("code".into())) },
        Order::Revoke { account, grant: GrantId(1), force: true },
        Order::Activate { account, grant: GrantId(1) },
        Order::Import { line: Secret::new("{\"sesame\":1}".into()) },
    ];
    for order in orders {
        let refused = give(&served.path, &order).unwrap_err();
        let ControlError::Refused { error, advice } = refused else { panic!("{refused}") };
        assert!(!error.contains("sesame") || error.starts_with("sesame: no member"), "{error}");
        assert!(!advice.is_empty(), "{error}");
    }
    let line = r#"{"app":{"provider":"p","client_id":"c"},"user":"u","refresh_token":"r\"\\é"}"#;
    let import = || Order::Import { line: Secret::new(line.into()) };
    let first = give(&served.path, &import()).unwrap();
    assert!(!first.already && first.grant.is_some());
    let again = give(&served.path, &import()).unwrap();
    assert_eq!((again.grant, again.already), (first.grant, true));
    served.shut();
    let answer = UnixStream::connect(served.socket());
    assert!(answer.is_err());
}

#[test]
fn an_answer_that_is_cut_is_not_taken_for_a_refusal() {
    let served = Served::new("store");
    let listener = UnixListener::bind(served.socket()).unwrap();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (&stream).write_all(b"{\"head\":").unwrap();
        line
    });
    let lost = give(&served.path, &Order::Compact).unwrap_err();
    assert!(matches!(lost, ControlError::Lost { .. }), "{lost}");
    assert_eq!(server.join().unwrap(), "{\"order\":\"compact\",\"force\":false}\n");
}
