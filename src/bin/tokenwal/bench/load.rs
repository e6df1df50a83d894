//! What is asked of the journal: single appends and whole issuances, by callers who wait for each.

#![expect(clippy::disallowed_methods, reason = "measuring is waiting and reading the clock")]

use super::drive::{Caller, Sample, alone, together};
use crate::exit::Failure;
use std::path::Path;
use std::time::{Duration, Instant};
use tokenwal::{
    AccountTag, App, Begin, Blocking, Entropy, Error, FixedKeys, GrantId, Holder, IssuedPair,
    Journal, Lsn, Options, Outcome, SettleError, Settled, SystemEntropy, TokenResponse, User,
};
use tokio::runtime::Runtime;

/// An operation whose cost is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// One record: `adopt`.
    Append,
    /// Two that depend on each other: `begin` and `settle` of a refresh.
    Issue,
}

impl Op {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Issue => "issue",
        }
    }

    /// Returns the lengths of the frames that the operation is made of, in bytes, as the journal
    /// writes them for [`Load`].
    pub(super) fn frames(self) -> &'static [usize] {
        match self {
            Self::Append => &[220],
            Self::Issue => &[320, 900],
        }
    }
}

/// A store with an account for each caller.
pub(super) struct Load {
    journal: Journal,
    op: Op,
    seats: Vec<Seat>,
    keys: [u8; 32],
}

/// What one caller works with.
#[derive(Debug)]
struct Seat {
    account: AccountTag,
    grant: GrantId,
    holder: Holder,
    /// What has been done, and is known to be durable.
    done: u64,
    last: Lsn,
    answers: Answers,
}

impl Load {
    /// Creates the store in a directory of its own, under a key that nobody keeps.
    pub(super) fn create(
        runtime: &Runtime,
        dir: &Path,
        op: Op,
        callers: usize,
    ) -> Result<Self, Failure> {
        let mut keys = [0; 32];
        SystemEntropy.fill(&mut keys)?;
        let (journal, _) = options(keys).create(dir)?;
        let app = App::new("salesforce", "3MVG9lKcPoNINVBIPJjdw1J9LLM82HnFVVX19KY1uA5mu0").ok();
        let app = app.ok_or_else(|| Failure::new("the app has no name", "report this"))?;
        let seats = runtime.block_on(async {
            let tasks: Vec<_> = (0..callers)
                .map(|number| tokio::spawn(Seat::take(journal.clone(), app.clone(), number)))
                .collect();
            let mut seats = Vec::with_capacity(tasks.len());
            for task in tasks {
                let taken = task.await.map_err(|error| Failure::new(error, "report this"))?;
                seats.push(taken?);
            }
            Ok::<_, Failure>(seats)
        })?;
        // A store begins with a short segment, and the first whole one is still being prepared: the
        // raw file is ready, so the journal's should be.
        let patience = Instant::now() + Duration::from_secs(30);
        while journal.stats().prepared_segments == 0 && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { journal, op, seats, keys })
    }

    /// Lets the callers work for a while; a single one blocks and writes its own batches.
    pub(super) fn measure(&mut self, runtime: &Runtime, time: Duration) -> Result<Sample, Failure> {
        if let [seat] = self.seats.as_mut_slice() {
            let journal = self.journal.blocking();
            return match self.op {
                Op::Append => alone(time, || seat.append_now(&journal)),
                Op::Issue => alone(time, || seat.issue_now(&journal)),
            };
        }
        let seats = std::mem::take(&mut self.seats);
        let journal = self.journal.clone();
        let callers =
            seats.into_iter().map(|seat| Busy { seat, journal: journal.clone(), op: self.op });
        let (sample, callers) = together(runtime, time, callers.collect())?;
        self.seats = callers.into_iter().map(|caller| caller.seat).collect();
        Ok(sample)
    }

    /// Closes the store, opens it again, and finds every record there.
    pub(super) fn count(self, dir: &Path) -> Result<(), Failure> {
        let Self { journal, op, seats, keys } = self;
        let written = journal.stats().records;
        journal.blocking().close()?;
        let (journal, report) = options(keys).open(dir)?;
        // The segment's `Opened` was there before, and the marker of the close came after.
        let expected = written + 2;
        let mut missing = expected.abs_diff(report.records_replayed);
        for seat in &seats {
            let view = journal.blocking().account(seat.account)?;
            let grant = view.as_ref().and_then(|v| v.grants.iter().find(|g| g.grant == seat.grant));
            let found = match (op, &view, grant) {
                (Op::Append, Some(view), Some(_)) => view.lsn >= seat.last,
                (Op::Issue, _, Some(grant)) => u64::from(grant.generation.0) == seat.done + 1,
                _ => false,
            };
            missing += u64::from(!found);
        }
        journal.blocking().close()?;
        match missing {
            0 => Ok(()),
            _ => Err(Failure::new(
                format!("{missing} records that were acknowledged were not found again"),
                "report this: it must not happen",
            )),
        }
    }
}

/// No compaction: it is measured elsewhere, and what was written is to be counted.
fn options(keys: [u8; 32]) -> Options {
    Options::new(FixedKeys::new(keys, [])).compact_at_percent(0)
}

impl Seat {
    /// Issues the grant that the caller works with from then on.
    async fn take(journal: Journal, app: App, number: usize) -> Result<Self, Failure> {
        let user = User::new(format!("00D000000000001EAA/005{number:012}AAA"));
        let holder = Holder::new("acme", format!("integration-{number}"));
        let (user, holder) = user.and_then(|user| Ok((user, holder?))).map_err(Error::from)?;
        let mut answers = Answers::new(number);
        let ticket = journal.begin(Begin::exchange(&app).user(&user)).await?;
        let pair = pair_of(journal.settle(ticket, answers.next()?).await)?;
        let (account, grant, last) = (pair.account(), pair.grant(), pair.lsn());
        Ok(Self { account, grant, holder, done: 0, last, answers })
    }

    fn append_now(&mut self, journal: &Blocking) -> Result<bool, Failure> {
        self.last = journal.adopt(self.account, self.grant, &self.holder)?;
        self.done += 1;
        Ok(true)
    }

    fn issue_now(&mut self, journal: &Blocking) -> Result<bool, Failure> {
        let ticket = journal.begin(Begin::refresh(self.account, self.grant))?;
        self.last = pair_of(journal.settle(ticket, self.answers.next()?))?.lsn();
        self.done += 1;
        Ok(true)
    }
}

/// A caller in a task.
struct Busy {
    seat: Seat,
    journal: Journal,
    op: Op,
}

impl Caller for Busy {
    async fn call(&mut self) -> Result<bool, Failure> {
        let Self { seat, journal, op } = self;
        match op {
            Op::Append => {
                seat.last = journal.adopt(seat.account, seat.grant, &seat.holder).await?;
            }
            Op::Issue => {
                let ticket = journal.begin(Begin::refresh(seat.account, seat.grant)).await?;
                let settled = journal.settle(ticket, seat.answers.next()?).await;
                seat.last = pair_of(settled)?.lsn();
            }
        }
        seat.done += 1;
        Ok(true)
    }
}

fn pair_of(settled: Result<Settled, SettleError>) -> Result<IssuedPair, Failure> {
    match settled {
        Ok(Settled::Issued(pair)) => Ok(*pair),
        Ok(_) => Err(Failure::new("a pair was settled as something else", "report this")),
        Err(error) => Err(error.error.into()),
    }
}

/// A provider's answers, each with tokens of its own, in Salesforce's shape and length.
#[derive(Debug)]
struct Answers {
    body: Vec<u8>,
    /// Where the tokens' numbers stand.
    places: [usize; 2],
    next: u64,
}

/// Stands in the template for a number of so many digits.
const NUMBER: &str = "00000000000000000000";

impl Answers {
    fn new(caller: usize) -> Self {
        let access = format!("00D000000000001!AQ{NUMBER}{}", "k".repeat(74));
        let refresh = format!("5Aep861{NUMBER}{}", "w".repeat(60));
        let body = format!(
            "{{\"access_token\":\"{access}\",\"refresh_token\":\"{refresh}\",\
             \"signature\":\"{}\",\"scope\":\"api refresh_token\",\
             \"instance_url\":\"https://acme.my.salesforce.com\",\
             \"id\":\"https://login.salesforce.com/id/00D000000000001EAA/005000000000001AAA\",\
             \"token_type\":\"Bearer\",\"issued_at\":\"1760000000000\"}}",
            "s".repeat(44)
        );
        let first = body.find(NUMBER).unwrap_or_default();
        let second = body.rfind(NUMBER).unwrap_or_default();
        Self {
            body: body.into_bytes(),
            places: [first, second],
            next: caller as u64 * 1_000_000_000_000,
        }
    }

    fn next(&mut self) -> Result<Outcome, Failure> {
        self.next += 1;
        let mut number = self.next;
        let mut digits = [b'0'; NUMBER.len()];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
        }
        for place in self.places {
            if let Some(place) = self.body.get_mut(place..place + NUMBER.len()) {
                place.copy_from_slice(&digits);
            }
        }
        let response = TokenResponse::parse(self.body.clone(), 1_760_000_000_000);
        response
            .map(Outcome::Issued)
            .map_err(|_| Failure::new("an answer made here cannot be read", "report this"))
    }
}
