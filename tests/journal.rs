//! The journal through its public API, on a real disk.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::needless_borrows_for_generic_args,
    clippy::mem_forget,
    reason = "a test may"
)]

use tokenwal::{
    Account, App, Begin, Drive, FixedKeys, Generation, Holder, Journal, Options, Outcome, Report,
    Settled, TokenResponse, User, Work,
};

const NOW_MS: u64 = 1_760_000_000_000;

fn options() -> Options {
    Options::new(FixedKeys::new([7; 32], []))
}

fn app() -> App {
    App::new("salesforce", "3MVG9").unwrap()
}

fn account(name: &str) -> Account {
    Account::new(app(), User::new(name).unwrap())
}

fn response(user: &str, access: &str, refresh: Option<&str>) -> Outcome {
    let refresh =
        refresh.map(|token| format!(",\"refresh_token\":\"{token}\"")).unwrap_or_default();
    let body = format!("{{\"access_token\":\"{access}\",\"scope\":\"api web\"{refresh}}}");
    let response = TokenResponse::parse(body.into_bytes(), NOW_MS).unwrap();
    Outcome::Issued(response.with_user(User::new(user).unwrap()))
}

fn issue(journal: &Journal, user: &str, access: &str, refresh: &str) -> tokenwal::IssuedPair {
    let blocking = journal.blocking();
    let ticket = blocking.begin(Begin::exchange(&app())).unwrap();
    match blocking.settle(ticket, response(user, access, Some(refresh))).unwrap() {
        Settled::Issued(pair) => *pair,
        other => panic!("{other:?}"),
    }
}

fn reopen(path: &std::path::Path) -> (Journal, Report) {
    options().open(path).unwrap()
}

#[test]
fn a_pair_outlives_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (journal, _) = options().create(&path).unwrap();
    let pair = issue(&journal, "u1", "access-1", "refresh-1");
    assert_eq!(pair.access_token().reveal(), "access-1");
    let holder = Holder::new("t", "h").unwrap();
    journal.blocking().adopt(&account("u1"), pair.grant(), &holder).unwrap();
    drop(journal);

    let (journal, report) = reopen(&path);
    assert!(report.in_doubt.is_empty());
    let again = journal.blocking().current(&account("u1")).unwrap().unwrap();
    assert_eq!(again.access_token().reveal(), "access-1");
    assert_eq!(again.refresh_token().unwrap().reveal(), "refresh-1");
    let view = journal.blocking().account(&account("u1")).unwrap().unwrap();
    assert_eq!(view.user.as_ref().unwrap().as_str(), "u1");
    assert_eq!(view.grants[0].holders[0].holder.as_ref().unwrap(), &holder);
    journal.blocking().close().unwrap();
    let (journal, report) = reopen(&path);
    assert!(report.last_batch_proven);
    assert_eq!(journal.accounts().count(), 1);
}

#[test]
fn a_refresh_inherits_what_it_leaves_out_through_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (journal, _) = options().create(&path).unwrap();
    let pair = issue(&journal, "u1", "access-1", "refresh-1");
    let blocking = journal.blocking();
    let ticket = blocking.begin(Begin::refresh(&account("u1"), pair.grant())).unwrap();
    assert_eq!(ticket.current().unwrap().refresh_token().unwrap().reveal(), "refresh-1");
    let busy = blocking.begin(Begin::refresh(&account("u1"), pair.grant())).unwrap_err();
    assert!(matches!(busy, tokenwal::Error::Busy { .. }), "{busy}");
    let settled = blocking.settle(ticket, response("u1", "access-2", None)).unwrap();
    let Settled::Issued(pair) = settled else { panic!("{settled:?}") };
    assert_eq!(pair.generation(), Generation(2));
    assert_eq!(pair.refresh_token().unwrap().reveal(), "refresh-1");
    let compacted = blocking.compact().unwrap();
    assert_eq!(compacted.accounts, 1);
    assert_eq!(compacted.records, 1);
    let again = blocking.current(&account("u1")).unwrap().unwrap();
    assert_eq!(again.refresh_token().unwrap().reveal(), "refresh-1");
    drop((blocking, journal));
    let (journal, report) = reopen(&path);
    assert!(report.records_replayed < 10, "{report:?}");
    let again = journal.blocking().current(&account("u1")).unwrap().unwrap();
    assert_eq!(again.access_token().reveal(), "access-2");
    assert_eq!(again.generation(), Generation(2));
}

#[test]
fn an_unsettled_operation_is_in_doubt_at_the_next_opening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (journal, _) = options().create(&path).unwrap();
    let ticket = journal.blocking().begin(Begin::exchange(&app())).unwrap();
    let op = ticket.op();
    drop((ticket, journal));
    let (journal, report) = reopen(&path);
    assert_eq!(report.in_doubt.len(), 1);
    assert_eq!(report.in_doubt[0].op, op);
    let compacted = journal.blocking().compact().unwrap();
    assert_eq!(compacted.records, 1);
    drop(journal);
    let (_, report) = reopen(&path);
    assert_eq!(report.in_doubt.len(), 1);
}

#[test]
fn a_simulator_steps_the_journal_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (journal, _) = options().drive(Drive::Manual).create(&path).unwrap();
    let mut begin = std::pin::pin!(journal.begin(Begin::exchange(&app())));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut steps = 0;
    let ticket = loop {
        match begin.as_mut().poll(&mut context) {
            std::task::Poll::Ready(ticket) => break ticket.unwrap(),
            std::task::Poll::Pending => {
                while journal.step(Work::Prepare).unwrap() {
                    steps += 1;
                }
                journal.step(Work::Commit).unwrap();
            }
        }
    };
    assert!(steps > 3);
    assert_eq!(journal.head().0, ticket.op().0);
}

#[test]
fn a_pair_in_flight_is_there_for_the_next_operation() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = options().cache_bytes(0).create(dir.path().join("store")).unwrap();
    let pair = issue(&journal, "u1", "access-1", "refresh-1");
    let blocking = journal.blocking();
    for number in 2..50 {
        let ticket = blocking.begin(Begin::refresh(&account("u1"), pair.grant())).unwrap();
        let token = ticket.current().unwrap().refresh_token().unwrap().reveal().to_owned();
        assert_eq!(token, format!("refresh-{}", number - 1));
        let next = format!("refresh-{number}");
        // Nobody waits for it; the next refresh begins while it is in flight.
        drop(journal.settle(ticket, response("u1", "access", Some(&next))));
    }
}

/// Who installs a snapshot holds accounts and then files; whoever took them the other way round
/// would stop both for good, and everybody behind them.
#[test]
fn stats_and_compaction_do_not_block_each_other() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = options()
        .batch_bytes_max(16 << 10)
        .outcome_bytes_max(8 << 10)
        .segment_bytes(70 << 10)
        .create(dir.path().join("store"))
        .unwrap();
    let (done, finished) = std::sync::mpsc::channel();
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    for _ in 0..3 {
        let (journal, stop) = (journal.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::hint::black_box(journal.stats());
            }
        });
    }
    let compacting = journal.clone();
    std::thread::spawn(move || {
        for _ in 0..100 {
            compacting.blocking().compact().unwrap();
        }
        done.send(()).unwrap();
    });
    let ended = finished.recv_timeout(std::time::Duration::from_secs(60));
    stop.store(true, Ordering::Relaxed);
    // Threads that block each other end with the process only.
    std::mem::forget(journal);
    assert!(ended.is_ok(), "compaction hangs");
}
