//! What a begin is refused for: a tag that was used, a cap that is reached, a call that is on its
//! way, another code. Each over compactions, crashes and openings, since a second presentation of a
//! code, or one grant too many, kills one that lives.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may"
)]

mod sim;

use std::future::Future;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Waker};

use sim::{Cut, Moment, Rng, SimClock, SimDisk, SimEntropy};
use tokenwal::{
    Account, AccountTag, Action, App, Begin, Blocking, Cap, CapCounts, Cause, Confidence, Doubt,
    DoubtReason, Drive, Error, FixedKeys, GrantId, Journal, Lsn, NotSent, OpId, Options, Outcome,
    Redeemed, Refusal, RefusalClass, ResolvedHow, Secret, Settled, Ticket, TokenResponse, User,
    Work,
};

fn app() -> App {
    App::new("salesforce", "3MVG9").unwrap()
}

fn user(name: &str) -> User {
    User::new(name).unwrap()
}

fn account(name: &str) -> Account {
    Account::new(app(), user(name))
}

fn tag(number: u8) -> AccountTag {
    AccountTag::from_bytes([number; 16])
}

fn options() -> Options {
    Options::new(FixedKeys::new([7; 32], []))
        .segment_bytes(1 << 20)
        .batch_bytes_max(64 << 10)
        .outcome_bytes_max(16 << 10)
        .batch_bytes_max(64 << 10)
        .outcome_bytes_max(16 << 10)
}

fn open(dir: &Path) -> Blocking {
    options().open_or_create(dir).unwrap().0.blocking()
}

fn answer(number: u32, refresh: bool, name: Option<&str>) -> Outcome {
    let mut body = serde_json::json!({ "access_token": format!("access {number}") });
    if refresh {
        body["refresh_token"] = format!("refresh {number}").into();
    }
    let response = TokenResponse::parse(body.to_string().into_bytes(), 1_760_000_000_000).unwrap();
    Outcome::Issued(match name {
        Some(name) => response.with_user(user(name)),
        None => response,
    })
}

fn doubt() -> Outcome {
    Outcome::InDoubt(Doubt::new(DoubtReason::Timeout))
}

fn under(tag: AccountTag, since: Lsn) -> Begin {
    Begin::exchange(&app()).under(tag, since)
}

fn issue(journal: &Blocking, number: u32, name: &str) -> GrantId {
    let ticket = journal.begin(Begin::exchange(&app())).unwrap();
    match journal.settle(ticket, answer(number, true, Some(name))).unwrap() {
        Settled::Issued(pair) => pair.grant(),
        other => panic!("{other:?}"),
    }
}

/// Says where the grant of a tag's exchange is.
fn place(journal: &Blocking, tag: AccountTag) -> Option<(AccountTag, Option<GrantId>)> {
    let found = journal.redeemed(tag).unwrap();
    found.map(|Redeemed { account, grant, .. }| (account, grant))
}

fn assert_used(journal: &Blocking, tag: AccountTag, since: Lsn) {
    match journal.begin(under(tag, since)) {
        Err(Error::CallbackUsed { account }) => assert_eq!(account, tag),
        other => panic!("{tag} begins again: {other:?}"),
    }
}

/// Begun anew in an opening that began behind a snapshot, it is refused all the same.
fn assert_not_begun(journal: &Blocking, tag: AccountTag, since: Lsn) {
    match journal.begin(under(tag, since)) {
        Err(Error::CallbackUsed { account }) => assert_eq!(account, tag),
        Err(Error::CallbackTooOld { since: told, from }) => assert!(told == since && since < from),
        other => panic!("{tag} begins again: {other:?}"),
    }
}

/// What may become of the exchange that a callback began.
type Fate = fn(&Blocking, Ticket);

fn fates() -> Vec<(&'static str, Fate)> {
    fn settle(journal: &Blocking, ticket: Ticket, outcome: Outcome) {
        drop(journal.settle(ticket, outcome).unwrap());
    }
    vec![
        ("left open", |_, ticket| drop(ticket)),
        ("never sent", |j, ticket| settle(j, ticket, Outcome::NotSent(NotSent::Connect))),
        ("refused", |j, ticket| {
            let refusal = Refusal::new(RefusalClass::Dead, 400, "invalid_grant", "no", &[]);
            settle(j, ticket, Outcome::Refused(refusal));
        }),
        ("in doubt", |j, ticket| settle(j, ticket, doubt())),
        ("in doubt and waived", |j, ticket| {
            let (tag, op) = (ticket.account(), ticket.op());
            settle(j, ticket, doubt());
            j.resolve(tag, op, ResolvedHow::Waived).unwrap();
        }),
        ("issued", |j, ticket| settle(j, ticket, answer(1, true, None))),
        ("issued to a user", |j, ticket| settle(j, ticket, answer(2, true, Some("of a pair")))),
        ("issued and identified", |j, ticket| {
            let (tag, grant) = (ticket.account(), GrantId(ticket.op().0));
            settle(j, ticket, answer(3, true, None));
            j.identify(tag, grant, &account("identified")).unwrap();
        }),
        ("issued and merged, twice", |j, ticket| {
            let tag = ticket.account();
            settle(j, ticket, answer(4, true, None));
            j.merge(tag, &account("merged")).unwrap();
            j.merge(j_tag(j, "merged"), &account("renamed")).unwrap();
        }),
        ("issued, ended and forgotten", |j, ticket| {
            let (tag, grant) = (ticket.account(), GrantId(ticket.op().0));
            settle(j, ticket, answer(5, true, None));
            j.end(tag, grant, Cause::RevokedByUs, Confidence::Certain).unwrap();
            j.forget(tag).unwrap();
        }),
        ("resolved, and answered after all", |j, ticket| {
            j.resolve(ticket.account(), ticket.op(), ResolvedHow::NotIssued).unwrap();
            settle(j, ticket, answer(6, true, None));
        }),
    ]
}

/// Tags do not depend on a journal's state, only on its key: one of an account that there is.
fn j_tag(journal: &Blocking, name: &str) -> AccountTag {
    journal.account(account(name)).unwrap().unwrap().account_tag
}

#[test]
fn a_tag_is_used_once_whatever_becomes_of_it() {
    for (number, (what, fate)) in (1_u8..).zip(fates()) {
        let dir = tempfile::tempdir().unwrap();
        let (store, tag) = (dir.path().join("store"), tag(number));
        let since = options().create(&store).unwrap().0.head();
        let journal = open(&store);
        // Somebody else's exchange is older, so that nothing is the first of its kind.
        issue(&journal, 90, "before");
        let ticket = journal.begin(under(tag, since)).unwrap();
        assert_eq!(ticket.account(), tag);
        let op = ticket.op();
        assert_used(&journal, tag, since);
        assert_eq!(place(&journal, tag), Some((tag, None)), "{what}");
        fate(&journal, ticket);
        assert_used(&journal, tag, since);
        let then = journal.redeemed(tag).unwrap().unwrap();
        assert_eq!(then.op, op, "{what}");

        // Over a crash, as replayed: nothing was closed.
        drop(journal);
        let journal = open(&store);
        assert_used(&journal, tag, since);
        assert_eq!(journal.redeemed(tag).unwrap(), Some(then), "{what}");
        // Over a compaction, as written.
        journal.compact().unwrap();
        assert_used(&journal, tag, since);
        assert_eq!(journal.redeemed(tag).unwrap(), Some(then), "{what}");
        // Over both.
        issue(&journal, 91, "after");
        drop(journal);
        let journal = open(&store);
        assert_not_begun(&journal, tag, since);
        if let Some(found) = journal.redeemed(tag).unwrap() {
            assert_eq!(found, then, "{what}");
        }
    }
}

/// Where a pair went shows in the pair that is found there.
#[test]
fn a_callback_that_comes_again_finds_the_pair_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir.path().join("store"));
    let since = Lsn(1);
    let ticket = journal.begin(under(tag(1), since)).unwrap();
    let Settled::Issued(pair) = journal.settle(ticket, answer(1, true, Some("A"))).unwrap() else {
        panic!("no pair");
    };
    assert_used(&journal, tag(1), since);
    let (account, grant) = place(&journal, tag(1)).unwrap();
    assert_eq!(account, pair.account());
    let again = journal.current_of(account, grant.unwrap()).unwrap().unwrap();
    assert_eq!(again.access_token().reveal(), "access 1");

    // The same refresh token seen again is the same grant: that is where it went.
    let ticket = journal.begin(under(tag(2), since)).unwrap();
    drop(journal.settle(ticket, answer(1, true, Some("A"))).unwrap());
    assert_eq!(place(&journal, tag(2)), Some((account, grant)));
    // And moves with it.
    journal.merge(account, &self::account("B")).unwrap();
    let moved = j_tag(&journal, "B");
    assert_eq!(place(&journal, tag(1)), Some((moved, grant)));
    assert_eq!(place(&journal, tag(2)), Some((moved, grant)));
    // A later generation of it is where it was.
    let ticket = journal.begin(Begin::refresh(moved, grant.unwrap())).unwrap();
    drop(journal.settle(ticket, answer(2, true, None)).unwrap());
    assert_eq!(place(&journal, tag(1)), Some((moved, grant)));
    assert_eq!(place(&journal, tag(3)), None);
}

#[test]
fn of_begins_at_once_under_one_tag_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir.path().join("store"));
    for number in 1..=30 {
        let barrier = Barrier::new(4);
        let won: usize = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        match journal.begin(under(tag(number), Lsn(1))) {
                            Ok(ticket) => {
                                // It leaves nothing behind under the tag.
                                let outcome = answer(number.into(), true, Some("A"));
                                drop(journal.settle(ticket, outcome).unwrap());
                                1
                            }
                            Err(Error::CallbackUsed { .. }) => 0,
                            Err(error) => panic!("{error:?}"),
                        }
                    })
                })
                .collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).sum()
        });
        assert_eq!(won, 1);
    }
}

#[test]
fn a_tag_that_was_drawn_before_what_is_known_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let journal = options().create(&store).unwrap().0;
    let old = journal.head();
    issue(&journal.blocking(), 1, "A");
    let compacted = journal.blocking().compact().unwrap();
    // Whoever compacted knows what was before.
    drop(journal.blocking().begin(under(tag(1), old)).unwrap());
    let young = journal.head();
    assert!(young >= compacted.lsn);
    drop(journal);

    let journal = options().open(&store).unwrap().0;
    let begin = |tag, since| journal.blocking().begin(under(tag, since));
    match begin(tag(2), old) {
        Err(Error::CallbackTooOld { since, from }) => {
            assert_eq!((since, from), (old, compacted.lsn));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(begin(tag(1), old), Err(Error::CallbackUsed { .. })));
    // Between what was and where the journal goes on there was never a head.
    let nowhere = Lsn(young.0 + 3);
    match begin(tag(2), nowhere) {
        Err(Error::CallbackTooOld { since, from }) => assert!(since == nowhere && from > nowhere),
        other => panic!("{other:?}"),
    }
    // A head that is still to come was another store's, or a newer copy's of this one.
    match begin(tag(2), journal.head().plus(1)) {
        Err(Error::BehindHead { expected, found, .. }) => assert!(expected > found),
        other => panic!("{other:?}"),
    }
    drop(begin(tag(2), young).unwrap());
    drop(begin(tag(3), journal.head()).unwrap());
}

#[test]
fn a_tag_that_stands_for_an_account_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir.path().join("store"));
    issue(&journal, 1, "A");
    assert_used(&journal, j_tag(&journal, "A"), Lsn(1));
    // And one that was drawn by the journal itself.
    let ticket = journal.begin(Begin::exchange(&app())).unwrap();
    assert_used(&journal, ticket.account(), Lsn(1));
}

fn sim_options(disk: &SimDisk, drive: Drive) -> Options {
    options()
        .segment_bytes(4096 * 32)
        .batch_bytes_max(4 * 4096)
        .outcome_bytes_max(4096)
        .compact_at_percent(0)
        .drive(drive)
        .disk(Arc::new(disk.clone()))
        .clock(Arc::new(SimClock::new()))
        .entropy(Arc::new(SimEntropy::new(disk.operations())))
}

fn manual(disk: &SimDisk) -> Journal {
    let journal = sim_options(disk, Drive::Manual).open_or_create("/simulated").unwrap().0;
    while journal.step(Work::Prepare).unwrap() {}
    journal
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn now<F: Future>(future: F) -> F::Output {
    match poll(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// Does the journal's work until a caller was told.
fn worked<T>(
    journal: &Journal,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = poll(future.as_mut()) {
            return output;
        }
        let works = [Work::Commit, Work::Prepare, Work::Compact];
        let mut did = false;
        for work in works {
            did |= journal.step(work)?;
        }
        assert!(did, "a caller waits, and there is nothing to do");
    }
}

#[test]
fn an_intent_that_is_on_its_way_counts_and_shows_no_grant_yet() {
    let disk = SimDisk::new(1);
    let journal = manual(&disk);
    let since = journal.head();
    let mut first = Box::pin(journal.begin(under(tag(1), since)));
    assert!(poll(first.as_mut()).is_pending());
    // Not even written, it is in the way of the second one.
    assert!(matches!(now(journal.begin(under(tag(1), since))), Err(Error::CallbackUsed { .. })));
    let found = now(journal.redeemed(tag(1))).unwrap().unwrap();
    assert_eq!((found.account, found.grant), (tag(1), None));
    assert!(journal.step(Work::Commit).unwrap());
    let Poll::Ready(Ok(ticket)) = poll(first.as_mut()) else { panic!("not told") };
    assert_eq!(found.op, ticket.op());

    // The pair is on its way, and nobody is told of its grant.
    let mut settling = Box::pin(journal.settle(ticket, answer(1, true, Some("A"))));
    assert!(poll(settling.as_mut()).is_pending());
    assert_eq!(now(journal.redeemed(tag(1))).unwrap(), Some(found));
    // By what is to come the provisional account is no more, and still nobody begins under it.
    assert!(matches!(now(journal.begin(under(tag(1), since))), Err(Error::CallbackUsed { .. })));
    assert!(journal.step(Work::Commit).unwrap());
    assert!(poll(settling.as_mut()).is_ready());
    let found = now(journal.redeemed(tag(1))).unwrap().unwrap();
    assert_eq!(found.account, journal.tag_of(&account("A")));
    assert!(found.grant.is_some());
}

/// An intent that never came to be on disk was never acknowledged: no request was sent for it.
#[test]
fn an_intent_that_was_not_written_uses_no_tag() {
    let disk = SimDisk::new(2);
    let journal = manual(&disk);
    let since = journal.head();
    let mut first = Box::pin(journal.begin(under(tag(1), since)));
    assert!(poll(first.as_mut()).is_pending());
    let disk = disk.process_death();
    let journal = manual(&disk);
    assert!(now(journal.redeemed(tag(1))).unwrap().is_none());
    drop(worked(&journal, journal.begin(under(tag(1), since))).unwrap());
}

/// One history of two callbacks, with a compaction in it, crashed at every operation of the disk and
/// inside of it: whoever was told to go and present the code, is the only one ever.
#[test]
fn no_crash_has_a_code_presented_twice() {
    let history = |journal: &Journal, since: Lsn, told: &mut Vec<AccountTag>| {
        let first = worked(journal, journal.begin(under(tag(1), since)))?;
        told.push(tag(1));
        let settle = |ticket, outcome| async {
            journal.settle(ticket, outcome).await.map_err(|failed| failed.error)
        };
        worked(journal, settle(first, answer(1, true, Some("A"))))?;
        let second = worked(journal, journal.begin(under(tag(2), since)))?;
        told.push(tag(2));
        worked(journal, settle(second, answer(2, true, None)))?;
        worked(journal, journal.compact())?;
        worked(journal, journal.begin(under(tag(3), since)))?;
        told.push(tag(3));
        Ok::<_, Error>(())
    };
    let (mut crashes, mut refused) = (0, 0);
    for number in 0.. {
        let mut crashed = false;
        for (seed, moment) in
            [Moment::Before, Moment::Inside, Moment::After].into_iter().enumerate()
        {
            let disk = SimDisk::new(seed as u64);
            let journal = manual(&disk);
            let since = journal.head();
            disk.crash_at(number, moment);
            let mut told = Vec::new();
            let done = history(&journal, since, &mut told);
            crashed |= done.is_err();
            crashes += usize::from(done.is_err());
            drop(journal);
            disk.disarm();
            for cut in [None, Some(Cut::draw(&mut Rng::new(number), 0, 64))] {
                let copy = disk.copy();
                let copy = match cut {
                    None => copy.process_death(),
                    Some(cut) => copy.power_cut_by(cut, &mut Rng::new(number)),
                };
                let journal = manual(&copy);
                for tag in &told {
                    let again = worked(&journal, journal.begin(under(*tag, since)));
                    refused += 1;
                    assert!(
                        matches!(
                            again,
                            Err(Error::CallbackUsed { .. } | Error::CallbackTooOld { .. })
                        ),
                        "{tag} begins again after a crash {moment:?} operation {number}: {again:?}"
                    );
                }
            }
        }
        if !crashed {
            break;
        }
    }
    assert!(crashes > 50 && refused > 200, "{crashes} crashes, {refused} refused");
}

fn cap(limit: u32, outside: u32, counts: CapCounts) -> Cap {
    Cap { limit, outside, counts }
}

#[test]
fn of_begins_at_once_within_a_cap_as_many_get_through_as_fit() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir.path().join("store"));
    issue(&journal, 1, "A");
    let begin = Begin::exchange(&app()).user(&user("A")).cap(cap(6, 1, CapCounts::Grants));
    let barrier = Barrier::new(12);
    let through: usize = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..12)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    match journal.begin(begin.clone()) {
                        Ok(ticket) => {
                            drop(ticket);
                            1
                        }
                        Err(Error::CapReached { account, live, limit }) => {
                            assert_eq!(account, j_tag(&journal, "A"));
                            assert_eq!((live, limit), (6, 6));
                            0
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    });
    // One lives already, and one outside.
    assert_eq!(through, 4);
    let view = journal.account(account("A")).unwrap().unwrap();
    assert_eq!(view.live(CapCounts::Grants), 5);
}

#[test]
fn what_counts_toward_a_cap() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let mut journal = open(&store);
    let known = |limit, counts| Begin::exchange(&app()).user(&user("A")).cap(cap(limit, 0, counts));
    let live = |journal: &Blocking| {
        let view = journal.account(account("A")).unwrap().unwrap();
        // The view counts what the check does: it fits below a limit of one more, and not at it.
        for counts in [CapCounts::Grants, CapCounts::RefreshTokens] {
            let live = view.live(counts);
            match journal.begin(known(live, counts)) {
                Err(Error::CapReached { live: told, .. }) => assert_eq!(told, live),
                other => panic!("{other:?}"),
            }
            let ticket = journal.begin(known(live + 1, counts)).unwrap();
            drop(journal.settle(ticket, Outcome::NotSent(NotSent::Lookup)).unwrap());
        }
        (view.live(CapCounts::Grants), view.live(CapCounts::RefreshTokens))
    };
    let first = issue(&journal, 1, "A");
    assert_eq!(live(&journal), (1, 1));
    let ticket = journal.begin(known(2, CapCounts::Grants)).unwrap();
    drop(journal.settle(ticket, answer(2, false, None)).unwrap());
    assert_eq!(live(&journal), (2, 1), "one without a refresh token");

    let ticket = journal.begin(known(3, CapCounts::Grants)).unwrap();
    let op = ticket.op();
    assert_eq!(live(&journal), (3, 2), "an exchange that is open");
    drop(journal.settle(ticket, doubt()).unwrap());
    assert_eq!(live(&journal), (3, 2), "an exchange in doubt");
    let ticket = journal.begin(Begin::refresh(account("A"), first)).unwrap();
    let refresh = ticket.op();
    drop(journal.settle(ticket, doubt()).unwrap());
    assert_eq!(live(&journal), (3, 2), "a refresh in doubt adds nothing");
    journal.compact().unwrap();
    drop(journal);
    journal = open(&store);
    assert_eq!(live(&journal), (3, 2), "as a snapshot has it");

    journal.resolve(account("A"), op, ResolvedHow::NotIssued).unwrap();
    journal.resolve(account("A"), refresh, ResolvedHow::Waived).unwrap();
    assert_eq!(live(&journal), (2, 1));
    journal.end(account("A"), first, Cause::RevokedByUs, Confidence::Certain).unwrap();
    assert_eq!(live(&journal), (1, 0));
    // Whose it will be is not known, so nothing is counted.
    let blind = Begin::exchange(&app()).cap(cap(0, 9, CapCounts::Grants));
    drop(journal.begin(blind).unwrap());
}

/// Presents a refresh token and never hears; gives the grant and the operation.
fn lost_refresh(journal: &Blocking) -> (GrantId, OpId) {
    let grant = issue(journal, 1, "A");
    let ticket = journal.begin(Begin::refresh(account("A"), grant)).unwrap();
    let op = ticket.op();
    drop(journal.settle(ticket, doubt()).unwrap());
    (grant, op)
}

fn assert_busy(begun: Result<Ticket, Error>, with: OpId) {
    match begun {
        Err(Error::Busy { op, .. }) => assert_eq!(op, with),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_is_sent_again_beside_the_one_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir.path().join("store"));
    let (grant, op) = lost_refresh(&journal);
    let refresh = Begin::refresh(account("A"), grant);
    assert_busy(journal.begin(refresh.clone()), op);
    assert_busy(journal.begin(Begin::revoke(account("A"), grant)), op);

    let again = journal.begin(refresh.clone().resending(op)).unwrap();
    // That one is on its way now: nobody stands beside it, whatever he says.
    assert_busy(journal.begin(refresh.clone().resending(op)), again.op());
    assert_busy(journal.begin(refresh.clone().resending(again.op())), op);
    assert_busy(journal.begin(Begin::revoke(account("A"), grant).resending(op)), again.op());
    let second = again.op();
    drop(journal.settle(again, answer(2, true, None)).unwrap());
    // Nothing was resolved by it.
    let view = journal.account(account("A")).unwrap().unwrap();
    assert_eq!(view.in_doubt.iter().map(|doubtful| doubtful.op).collect::<Vec<_>>(), [op]);
    assert_busy(journal.begin(refresh.clone()), op);
    journal.resolve(account("A"), op, ResolvedHow::Resent).unwrap();
    // It is over, and so is the leave to stand beside it.
    for gone in [op, second] {
        match journal.begin(refresh.clone().resending(gone)) {
            Err(Error::UnknownOperation { op: told, .. }) => assert_eq!(told, gone),
            other => panic!("{other:?}"),
        }
    }
    let ticket = journal.begin(refresh).unwrap();
    let presented = ticket.current().unwrap().refresh_token().unwrap().reveal();
    assert_eq!(presented, "refresh 2");
}

#[test]
fn a_call_on_its_way_is_left_alone_until_the_store_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let journal = open(&store);
    let grant = issue(&journal, 1, "A");
    let ticket = journal.begin(Begin::refresh(account("A"), grant)).unwrap();
    let op = ticket.op();
    let again = Begin::refresh(account("A"), grant).resending(op);
    assert_busy(journal.begin(again.clone()), op);
    let revoke = Begin::revoke(account("A"), grant).resending(op);
    assert_busy(journal.begin(revoke.clone()), op);
    drop(ticket);
    assert_busy(journal.begin(again.clone()), op);
    drop(journal);

    let journal = open(&store);
    assert_busy(journal.begin(Begin::refresh(account("A"), grant)), op);
    let ticket = journal.begin(revoke).unwrap();
    assert_busy(journal.begin(again), ticket.op());
    drop(journal.settle(ticket, Outcome::Revoked).unwrap());
    // An operation of another grant is none to stand beside.
    let other = issue(&journal, 2, "A");
    let elsewhere = Begin::refresh(account("A"), other).resending(op);
    assert!(matches!(journal.begin(elsewhere), Err(Error::UnknownOperation { .. })));
}

#[test]
fn a_mint_and_a_question_may_be_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir.path().join("store"));
    let mint = Begin::mint(&account("M"));
    // The first one has no grant yet.
    let ticket = journal.begin(mint.clone()).unwrap();
    let op = ticket.op();
    drop(journal.settle(ticket, doubt()).unwrap());
    let ticket = journal.begin(mint.clone().resending(op)).unwrap();
    drop(journal.settle(ticket, answer(1, false, None)).unwrap());
    journal.resolve(account("M"), op, ResolvedHow::Resent).unwrap();
    let ticket = journal.begin(mint.clone()).unwrap();
    let (op, grant) = (ticket.op(), ticket.grant().unwrap());
    drop(journal.settle(ticket, doubt()).unwrap());
    assert_busy(journal.begin(mint.clone()), op);
    drop(journal.begin(mint.resending(op)).unwrap());
    drop(journal.begin(Begin::introspect(account("M"), grant).resending(op)).unwrap());
}

fn code(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

#[test]
fn a_code_is_burnt_by_who_has_it() {
    for known in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let mut journal = open(&store);
        let exchange = match known {
            true => Begin::exchange(&app()).user(&user("A")),
            false => under(tag(1), Lsn(1)),
        };
        let ticket = journal.begin(exchange.presenting(&code("aPrx"))).unwrap();
        let (of, op) = (ticket.account(), ticket.op());
        let burn = |presented: &str| Begin::burn(of, op).presenting(&code(presented));
        assert_busy(journal.begin(burn("aPrx")), op);
        drop(journal.settle(ticket, doubt()).unwrap());
        // As a snapshot has it, too.
        for _ in 0..2 {
            for other in [burn("aPry"), burn(""), Begin::burn(of, op)] {
                match journal.begin(other) {
                    Err(Error::OtherToken { account, op: told }) => {
                        assert_eq!((account, told), (of, op));
                    }
                    other => panic!("{other:?}"),
                }
            }
            journal.compact().unwrap();
            drop(journal);
            journal = open(&store);
        }
        let live = |journal: &Blocking| {
            let view = journal.account(of).unwrap().unwrap();
            assert_eq!(view.provisional, !known);
            view.live(CapCounts::Grants)
        };
        assert_eq!(live(&journal), 1);
        let ticket = journal.begin(burn("aPrx")).unwrap();
        assert_eq!(ticket.account(), of);
        assert_eq!(live(&journal), 1, "both are one");
        let first = ticket.op();
        assert_busy(journal.begin(burn("aPrx")), first);
        assert_busy(journal.begin(burn("aPrx").resending(first)), first);
        drop(journal.settle(ticket, doubt()).unwrap());
        let ticket = journal.begin(burn("aPrx").resending(first)).unwrap();
        drop(journal.settle(ticket, Outcome::Revoked).unwrap());
        // The burns are over, and nothing else is.
        journal.resolve(of, first, ResolvedHow::Burnt).unwrap();
        let view = journal.account(of).unwrap().unwrap();
        let open: Vec<_> = view.in_doubt.iter().map(|doubtful| doubtful.action).collect();
        assert_eq!(open, [Action::Exchange]);
        assert!(!view.in_doubt[0].presented.is_none());
        journal.resolve(of, op, ResolvedHow::Burnt).unwrap();
        assert!(matches!(journal.begin(burn("aPrx")), Err(Error::UnknownOperation { .. })));
        assert!(journal.account(of).unwrap().is_none());
    }
}

/// The provider may never have heard of it the first time, and answer with a pair now.
#[test]
fn a_pair_that_a_burn_brings_is_kept_where_it_belongs() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let journal = open(&store);
    let exchange = under(tag(1), Lsn(1)).presenting(&code("aPrx"));
    let ticket = journal.begin(exchange).unwrap();
    let op = ticket.op();
    drop(journal.settle(ticket, doubt()).unwrap());
    journal.compact().unwrap();
    let burn = Begin::burn(tag(1), op).presenting(&code("aPrx"));
    let ticket = journal.begin(burn).unwrap();
    drop(journal.settle(ticket, answer(1, true, Some("A"))).unwrap());
    let before = journal.account(tag(1)).unwrap();
    drop(journal);
    let journal = open(&store);
    assert_eq!(journal.account(tag(1)).unwrap(), before, "replayed as it was written");
    // The app was named by the exchange, so the account could be.
    let view = journal.account(account("A")).unwrap().unwrap();
    assert_eq!((view.grants.len(), view.app), (1, Some(app())));
    // The exchange is in doubt as before, and the tag is as used as before.
    let left = journal.account(tag(1)).unwrap().unwrap();
    assert!(left.provisional && left.in_doubt.len() == 1);
    assert_not_begun(&journal, tag(1), Lsn(1));
    assert_eq!(place(&journal, tag(1)), Some((tag(1), None)));
}

/// Whatever is left under a provisional tag, its user is as unknown as before.
#[test]
fn what_is_left_of_a_provisional_account_is_provisional() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let journal = open(&store);
    let exchange = under(tag(1), Lsn(1)).presenting(&code("aPrx"));
    let ticket = journal.begin(exchange).unwrap();
    let op = ticket.op();
    drop(journal.settle(ticket, doubt()).unwrap());
    drop(journal.begin(Begin::burn(tag(1), op).presenting(&code("aPrx"))).unwrap());
    journal.resolve(tag(1), op, ResolvedHow::Waived).unwrap();
    // And one whose pair comes when its operation was resolved.
    let ticket = journal.begin(under(tag(2), Lsn(1))).unwrap();
    journal.resolve(tag(2), ticket.op(), ResolvedHow::Waived).unwrap();
    drop(journal.settle(ticket, answer(1, true, None)).unwrap());
    let views = |journal: &Blocking| {
        let views = [1, 2].map(|number| journal.account(tag(number)).unwrap().unwrap());
        assert!(views.iter().all(|view| view.provisional), "{views:#?}");
        views
    };
    let written = views(&journal);
    assert_eq!(written[0].in_doubt[0].action, Action::Burn);
    drop(journal);
    let journal = open(&store);
    assert_eq!(views(&journal), written);
    journal.compact().unwrap();
    drop(journal);
    assert_eq!(views(&open(&store)), written);
}

#[test]
fn an_exchange_that_named_no_code_is_not_burnt() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir.path().join("store"));
    let ticket = journal.begin(Begin::exchange(&app()).user(&user("A"))).unwrap();
    let op = ticket.op();
    drop(journal.settle(ticket, doubt()).unwrap());
    for burn in [Begin::burn(account("A"), op), Begin::burn(account("A"), op).presenting(&code(""))]
    {
        assert!(matches!(journal.begin(burn), Err(Error::OtherToken { .. })));
    }
    // A refresh presents no code.
    let grant = issue(&journal, 1, "A");
    let ticket = journal.begin(Begin::refresh(account("A"), grant)).unwrap();
    let burn = Begin::burn(account("A"), ticket.op()).presenting(&code("aPrx"));
    assert!(matches!(journal.begin(burn), Err(Error::UnknownOperation { .. })));
}

#[test]
fn what_has_no_meaning_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir.path().join("store"));
    let grant = issue(&journal, 1, "A");
    let since = Lsn(1);
    for (option, begin) in [
        ("under", Begin::refresh(account("A"), grant).under(tag(1), since)),
        ("under", Begin::mint(&account("A")).under(tag(1), since)),
        ("under", under(AccountTag::NONE, since)),
        ("presenting", Begin::refresh(account("A"), grant).presenting(&code("aPrx"))),
        ("resending", Begin::exchange(&app()).resending(OpId(2))),
    ] {
        match journal.begin(begin) {
            Err(Error::Option { option: told, .. }) => assert_eq!(told, option),
            other => panic!("{other:?}"),
        }
    }
    // A code is nowhere to be seen.
    let begin = Begin::exchange(&app()).presenting(&code("aPrx"));
    assert!(!format!("{begin:?}").contains("aPrx"));
}

#[test]
fn an_end_of_unknown_cause_is_told_of_again_once_it_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let journal = open(&store);
    let grant = issue(&journal, 1, "A");
    let ticket = journal.begin(Begin::refresh(account("A"), grant)).unwrap();
    let refusal = Refusal::new(RefusalClass::Dead, 400, "invalid_grant", "expired", &[]);
    drop(journal.settle(ticket, Outcome::Refused(refusal)).unwrap());
    let end =
        |journal: &Blocking, cause| journal.end(account("A"), grant, cause, Confidence::Probable);
    let cause = |journal: &Blocking| {
        let view = journal.account(account("A")).unwrap().unwrap();
        view.grants[0].end.as_ref().unwrap().cause
    };
    assert_eq!(cause(&journal), Cause::Unknown);
    let same = end(&journal, Cause::Unknown);
    assert!(matches!(same, Err(Error::GrantEnded { .. })), "that says nothing new");
    end(&journal, Cause::Evicted).unwrap();
    assert_eq!(cause(&journal), Cause::Evicted);
    assert!(matches!(end(&journal, Cause::Reuse), Err(Error::GrantEnded { .. })));
    journal.compact().unwrap();
    drop(journal);
    let journal = open(&store);
    assert_eq!(cause(&journal), Cause::Evicted);
}

#[test]
fn a_refusal_that_comes_late_does_not_blur_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let journal = open(&store);
    let grant = issue(&journal, 1, "A");
    let ticket = journal.begin(Begin::refresh(account("A"), grant)).unwrap();
    journal.end(account("A"), grant, Cause::Policy, Confidence::Certain).unwrap();
    let refusal = Refusal::new(RefusalClass::Dead, 400, "invalid_grant", "expired", &[]);
    drop(journal.settle(ticket, Outcome::Refused(refusal)).unwrap());
    let end = |journal: &Blocking| {
        let view = journal.account(account("A")).unwrap().unwrap();
        let end = view.grants[0].end.clone().unwrap();
        (end.cause, end.confidence)
    };
    assert_eq!(end(&journal), (Cause::Policy, Confidence::Certain));
    journal.compact().unwrap();
    drop(journal);
    assert_eq!(end(&open(&store)), (Cause::Policy, Confidence::Certain));
}
