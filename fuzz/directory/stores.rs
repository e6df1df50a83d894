//! The stores that inputs begin with, and what a service does to a store. Clock and randomness are
//! seeded, so that every process builds the same bytes.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use tokenwal::{
    AccountTag, App, Begin, Cause, Confidence, Doubt, DoubtReason, Drive, Error, FixedKeys,
    GrantId, Holder, Journal, Options, Outcome, Refusal, RefusalClass, ResolvedHow, Settled,
    Ticket, TokenResponse, User, Work,
};

use super::disk::{Image, MemoryDisk};
use super::world::{SimClock, SimEntropy};

/// What every token contains, so that one search finds a leak.
pub const MARK: &str = "tokenwalSecretMark";

static STORES: LazyLock<[Image; 3]> =
    LazyLock::new(|| [tail_only(), with_snapshot(), with_leftovers()]);

/// One of the stores.
pub fn store(pick: usize) -> &'static Image {
    &STORES[pick % STORES.len()]
}

pub fn keys() -> FixedKeys {
    FixedKeys::new([7; 32], [])
}

pub fn options(disk: &MemoryDisk, seed: u64) -> Options {
    Options::new(keys())
        .segment_bytes(17 * 4096)
        .batch_bytes_max(4 * 4096)
        .outcome_bytes_max(4096)
        .compact_at_percent(0)
        .drive(Drive::Manual)
        .disk(Arc::new(disk.clone()))
        .clock(Arc::new(SimClock::new()))
        .entropy(Arc::new(SimEntropy::new(seed)))
}

/// Does the journal's work until a future is ready.
pub fn finish<F: Future>(journal: &Journal, future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..10_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        journal.step(Work::Commit).expect("this disk does not fail");
        journal.step(Work::Prepare).expect("this disk does not fail");
        // Whoever waits for a compaction hears what it fails for.
        let _ = journal.step(Work::Compact);
    }
    panic!("the journal never comes to rest");
}

/// A service at work: it asks, and the provider answers.
pub struct Service<'a> {
    pub journal: &'a Journal,
    /// How many tokens there were.
    pub tokens: u32,
}

impl Service<'_> {
    pub fn begin(&self, begin: Begin) -> Result<Ticket, Error> {
        finish(self.journal, self.journal.begin(begin))
    }

    pub fn settle(&self, ticket: Ticket, outcome: Outcome) -> Result<Settled, Error> {
        finish(self.journal, self.journal.settle(ticket, outcome)).map_err(|failed| {
            assert!(failed.outcome.is_some(), "what was not stored is gone");
            failed.error
        })
    }

    fn answer(&mut self, who: Option<&str>) -> Outcome {
        self.tokens += 1;
        let number = self.tokens;
        let body = format!(
            "{{\"access_token\":\"a{MARK}{number}\",\"refresh_token\":\"r{MARK}{number}\"}}"
        );
        let response = TokenResponse::parse(body.into_bytes(), 1_750_000_000_000).unwrap();
        Outcome::Issued(match who {
            Some(who) => response.with_user(User::new(who).unwrap()),
            None => response,
        })
    }

    /// A grant of somebody, who is known only when the provider answers.
    pub fn exchange(&mut self, who: Option<&str>) -> Result<(AccountTag, GrantId), Error> {
        let ticket = self.begin(Begin::exchange(&app()).holder(&holder()).scopes(["api"]))?;
        let answer = self.answer(who);
        match self.settle(ticket, answer)? {
            Settled::Issued(pair) => Ok((pair.account(), pair.grant())),
            other => panic!("settled as {other:?}"),
        }
    }

    pub fn refresh(&mut self, account: AccountTag, grant: GrantId) -> Result<(), Error> {
        let ticket = self.begin(Begin::refresh(account, grant))?;
        let answer = self.answer(None);
        self.settle(ticket, answer).map(drop)
    }

    fn adopt(&self, account: AccountTag, grant: GrantId) {
        finish(self.journal, self.journal.adopt(account, grant, &holder())).unwrap();
    }
}

fn app() -> App {
    App::new("fuzzed", "client").unwrap()
}

fn holder() -> Holder {
    Holder::new("tenant", "holder").unwrap()
}

/// A few records, none of which a snapshot has; the process is gone without a word.
fn tail_only() -> Image {
    let disk = MemoryDisk::default();
    let (journal, _) = options(&disk, 1).create("/memory").unwrap();
    few_of_everything(&journal);
    drop(journal);
    disk.image()
}

/// Accounts in a snapshot and in the tail, operations open in both; closed as it should be.
fn with_snapshot() -> Image {
    let disk = MemoryDisk::default();
    let (journal, _) = options(&disk, 2).create("/memory").unwrap();
    few_of_everything(&journal);
    finish(&journal, journal.compact()).unwrap();
    few_of_everything(&journal);
    finish(&journal, journal.clone().close()).unwrap();
    disk.image()
}

/// Several segments with torn ends, a snapshot and what it covers, files in the making, a segment
/// that was only prepared.
fn with_leftovers() -> Image {
    let disk = MemoryDisk::default();
    let (journal, _) = options(&disk, 3).create("/memory").unwrap();
    few_of_everything(&journal);
    drop(journal);
    tear(&disk);
    let (journal, _) = options(&disk, 4).open("/memory").unwrap();
    few_of_everything(&journal);
    let covered = disk.image();
    finish(&journal, journal.compact()).unwrap();
    few_of_everything(&journal);
    drop(journal);
    tear(&disk);
    let (journal, _) = options(&disk, 5).open("/memory").unwrap();
    few_of_everything(&journal);
    while journal.step(Work::Prepare).unwrap() {}
    drop(journal);
    tear(&disk);
    let mut image = disk.image();
    for (name, bytes) in covered {
        image.entry(name).or_insert(bytes);
    }
    let newest = image.last_key_value().map(|(name, bytes)| (format!("{name}.tmp"), bytes.clone()));
    image.extend(newest);
    image
}

/// Cuts the last batch of the last segment with something in it in half.
fn tear(disk: &MemoryDisk) {
    let image = disk.image();
    let used: BTreeMap<&String, usize> = image
        .iter()
        .filter(|(name, _)| name.ends_with(".twj"))
        .filter_map(|(name, bytes)| Some((name, bytes.iter().rposition(|byte| *byte != 0)?)))
        .filter(|(_, last)| *last >= 2 * 4096)
        .collect();
    let (name, last) = used.last_key_value().expect("something was written");
    let file = tokenwal::disk::Disk::open(disk, name, tokenwal::disk::Access::Write).unwrap();
    let middle = (last / 4096 * 4096 + last) / 2;
    file.write_at(middle as u64, &vec![0; last + 1 - middle]).unwrap();
}

/// Records of nearly every kind.
fn few_of_everything(journal: &Journal) {
    let mut service = Service { journal, tokens: u32::try_from(journal.head().0 % 9973).unwrap() };
    let done = |future: Done<'_>| finish(journal, future).unwrap();
    let (alice, grant) = service.exchange(Some("alice")).unwrap();
    service.adopt(alice, grant);
    service.refresh(alice, grant).unwrap();
    let newest = finish(journal, journal.current_of(alice, grant)).unwrap().unwrap().generation();
    done(Box::pin(journal.worked(alice, grant, newest)));

    let (bob, first) = service.exchange(Some("bob")).unwrap();
    let (_, second) = service.exchange(Some("bob")).unwrap();
    service.adopt(bob, first);
    done(Box::pin(journal.supersede(bob, &holder(), first, second)));
    done(Box::pin(journal.release(bob, second, &holder())));
    done(Box::pin(journal.end(bob, first, Cause::Operator, Confidence::Certain)));
    done(Box::pin(journal.revive(bob, first)));

    let (nobody, unknown) = service.exchange(None).unwrap();
    let carol = tokenwal::Account::new(app(), User::new("carol").unwrap());
    done(Box::pin(journal.identify(nobody, unknown, &carol)));
    done(Box::pin(journal.merge(bob, &carol)));

    let dead = service.begin(Begin::refresh(alice, grant)).unwrap();
    let refusal = Refusal::new(RefusalClass::Dead, 400, "invalid_grant", "expired", &[]);
    service.settle(dead, Outcome::Refused(refusal)).unwrap();
    let doubted = service.begin(Begin::exchange(&app())).unwrap();
    let (tag, op) = (doubted.account(), doubted.op());
    let doubt = Doubt::new(DoubtReason::ConnectionLost).with_body(MARK.as_bytes().to_vec());
    service.settle(doubted, Outcome::InDoubt(doubt)).unwrap();
    done(Box::pin(journal.resolve(tag, op, ResolvedHow::Waived)));
    // Two operations stay open: one that is in doubt, and one whose process goes away.
    let doubted = service.begin(Begin::exchange(&app())).unwrap();
    service.settle(doubted, Outcome::InDoubt(Doubt::new(DoubtReason::Timeout))).unwrap();
    std::mem::forget(service.begin(Begin::revoke(alice, grant)));
}

type Done<'a> = std::pin::Pin<Box<dyn Future<Output = Result<tokenwal::Lsn, Error>> + 'a>>;
