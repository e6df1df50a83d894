//! Random histories of a store through the public API: issuances with every outcome, holders that
//! come and go, ends, moves, compactions, and processes that close, die, or leave a torn batch.

use crate::keys;
use crate::sim::{Rng, SimClock, SimEntropy};
use std::fs::OpenOptions;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokenwal::{
    Account, AccountTag, AccountView, App, Begin, Cause, Confidence, Doubt, DoubtReason, Drive,
    Error, ExpirySource, Generation, GrantId, GrantState, Holder, Import, Journal, NotSent,
    Options, Outcome, Refusal, RefusalClass, Remedy, ResolvedHow, SettleError, Settled, Ticket,
    TokenResponse, User, Verdict, Work,
};

const DAY_MS: u64 = 24 * 3600 * 1000;

/// What the histories of a test have come to, so that a poor one is noticed.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    issued: u64,
    moved: u64,
    doubtful: u64,
    forgotten: u64,
    revived: u64,
    late: u64,
    shared_batches: u64,
    compactions: u64,
    rollovers: u64,
    closed: u64,
    killed: u64,
    torn: u64,
    tombstones: u64,
    imported: u64,
    known: u64,
    activated: u64,
    beside: u64,
    told: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.issued += other.issued;
        self.moved += other.moved;
        self.doubtful += other.doubtful;
        self.forgotten += other.forgotten;
        self.revived += other.revived;
        self.late += other.late;
        self.shared_batches += other.shared_batches;
        self.compactions += other.compactions;
        self.rollovers += other.rollovers;
        self.closed += other.closed;
        self.killed += other.killed;
        self.torn += other.torn;
        self.tombstones += other.tombstones;
        self.imported += other.imported;
        self.known += other.known;
        self.activated += other.activated;
        self.beside += other.beside;
        self.told += other.told;
    }

    /// Fails unless every kind of event was there.
    pub(crate) fn assert_rich(&self) {
        let counts = [
            ("pairs", self.issued, 100),
            ("moves", self.moved, 10),
            ("doubts", self.doubtful, 10),
            ("accounts forgotten", self.forgotten, 1),
            ("grants revived", self.revived, 1),
            ("outcomes that came late", self.late, 5),
            ("batches of several", self.shared_batches, 20),
            ("compactions", self.compactions, 5),
            ("roll-overs", self.rollovers, 10),
            ("closings", self.closed, 2),
            ("kills", self.killed, 2),
            ("torn ends", self.torn, 1),
            ("tombstones", self.tombstones, 1),
            ("imports", self.imported, 10),
            ("imports of what was known", self.known, 2),
            ("paused grants activated", self.activated, 2),
            ("tokens beside a chain", self.beside, 5),
            ("ends that were told", self.told, 10),
        ];
        for (what, count, least) in counts {
            assert!(count >= least, "too few {what}: {count} of {least}");
        }
    }
}

type Change = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// A store, its process, and what the service in it has under way.
pub(crate) struct History {
    path: PathBuf,
    rng: Rng,
    clock: Arc<SimClock>,
    entropy: Arc<SimEntropy>,
    journal: Option<Journal>,
    tickets: Vec<Ticket>,
    tokens: u64,
    /// The last process left half a batch behind.
    torn: bool,
    tally: Tally,
}

impl History {
    pub(crate) fn create(seed: u64, path: &Path) -> Self {
        let mut history = Self {
            path: path.to_owned(),
            rng: Rng::new(seed),
            clock: Arc::new(SimClock::new()),
            entropy: Arc::new(SimEntropy::new(seed)),
            journal: None,
            tickets: Vec::new(),
            tokens: 0,
            torn: false,
            tally: Tally::default(),
        };
        history.journal = Some(history.options().create(path).unwrap().0);
        history
    }

    /// The smallest segments there are, so that a short history has many.
    fn options(&self) -> Options {
        Options::new(keys())
            .batch_bytes_max(16 << 10)
            .segment_bytes(72 << 10)
            .outcome_bytes_max(2 << 10)
            .compact_at_percent(0)
            .drive(Drive::Manual)
            .clock(Arc::clone(&self.clock) as _)
            .entropy(Arc::clone(&self.entropy) as _)
    }

    pub(crate) fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    pub(crate) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn open(&mut self) {
        let (journal, report) = self.options().open(&self.path).unwrap();
        let is_torn = report.verdict == Verdict::Torn;
        assert!(self.torn || !is_torn, "nobody tore it: {report:?}");
        self.tally.torn += u64::from(is_torn);
        self.torn = false;
        self.journal = Some(journal);
    }

    /// Ends the process: in order, or by a kill that may leave half a batch behind.
    pub(crate) fn stop(&mut self) {
        // Tickets hold the journal; a process takes them with it.
        self.tickets.clear();
        let journal = self.journal.take().unwrap();
        self.tally.rollovers += journal.stats().rollovers;
        if self.rng.chance(40) {
            self.tally.closed += 1;
            journal.blocking().close().unwrap();
            return;
        }
        self.tally.killed += 1;
        drop(journal);
        if self.rng.chance(50) {
            self.tear();
        }
    }

    /// Writes half a batch behind the end, as a power cut may leave it.
    fn tear(&mut self) {
        let names = std::fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().path());
        let mut segments: Vec<_> =
            names.filter(|path| path.extension().is_some_and(|end| end == "twj")).collect();
        segments.sort();
        for path in segments.iter().rev() {
            let bytes = std::fs::read(path).unwrap();
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            if end > 4096 {
                let at = end.next_multiple_of(4096) as u64;
                let mut half = vec![0; 1 + self.rng.index(16 << 10)];
                self.rng.fill(&mut half);
                half.truncate(bytes.len().saturating_sub(at as usize));
                let file = OpenOptions::new().write(true).open(path).unwrap();
                file.write_all_at(&half, at).unwrap();
                // Behind a `Sealed` nobody looks at it.
                self.torn = true;
                return;
            }
        }
    }

    /// Lets the service do something.
    pub(crate) fn round(&mut self) {
        self.clock.advance_ms(1 + self.rng.below(60_000));
        match self.rng.below(100) {
            0..30 => self.issue(),
            30..40 => self.renew(),
            40..46 => self.settle_late(),
            46..50 => self.import(),
            50..80 => self.change_some(),
            80..90 => self.relocate(),
            90..93 => {
                self.journal().step(Work::Idle).unwrap();
                self.run::<()>(Vec::new());
            }
            93..96 => self.compact(),
            96 => self.clock.advance_ms(self.rng.below(40) * DAY_MS),
            _ => self.forget(),
        }
    }

    fn user(&mut self) -> User {
        User::new(format!("user {}", self.rng.below(6))).unwrap()
    }

    fn account(&mut self) -> Account {
        Account::new(app(), self.user())
    }

    fn holder(&mut self) -> Holder {
        Holder::new("tenant", format!("holder {}", self.rng.below(5))).unwrap()
    }

    /// Asks for a new pair; what comes of it is settled, now or later or never.
    fn issue(&mut self) {
        let mut begin = match self.rng.chance(15) {
            true => Begin::mint(&self.account()),
            false => Begin::exchange(&app()).scopes(["api"]),
        };
        if self.rng.chance(40) {
            begin = begin.user(&self.user());
        }
        if self.rng.chance(60) {
            begin = begin.holder(&self.holder());
        }
        self.begin(begin);
    }

    /// Imports a pair, new or known; what was imported paused is activated now and then.
    fn import(&mut self) {
        self.tokens += 1;
        let (account, number) = (self.account(), self.tokens);
        let paused = self.rng.chance(50);
        let mut imports: Vec<Pin<Box<dyn Future<Output = _>>>> = Vec::new();
        // Now and then two do the same at once.
        for _ in 0..1 + usize::from(self.rng.chance(40)) {
            let body = format!(
                "{{\"access_token\":\"a {number}\",\"refresh_token\":\"refresh {number}\"}}"
            );
            let now_ms = tokenwal::Clock::now_ms(&*self.clock);
            let response = TokenResponse::parse(body.into_bytes(), now_ms).unwrap();
            let mut import = Import::new(&account, response).paused(paused);
            if self.rng.chance(50) {
                import = import.holder(&self.holder()).scopes(["api"]);
            }
            let journal = self.journal().clone();
            imports.push(Box::pin(async move { journal.import(import).await }));
        }
        let imported: Vec<_> = self.run(imports).into_iter().filter_map(allowed).collect();
        let known = imported.iter().filter(|imported| imported.already).count();
        self.tally.known += known as u64;
        self.tally.imported += (imported.len() - known) as u64;
        let Some(imported) = imported.first() else { return };
        assert!(!imported.already, "nobody has had this token before");
        if self.rng.chance(40) {
            let journal = self.journal().clone();
            let (account, grant) = (imported.account, imported.grant);
            let activating: Change =
                Box::pin(async move { done(journal.activate(account, grant).await) });
            let activated = self.run(vec![activating]).pop().and_then(allowed);
            self.tally.activated += u64::from(activated.is_some());
        }
    }

    /// Refreshes, revokes or introspects a grant that there is.
    fn renew(&mut self) {
        for _ in 0..3 {
            let Some((account, grant, _)) = self.pick_grant() else { return };
            let begin = match self.rng.below(8) {
                0 => Begin::revoke(account, grant),
                1 => Begin::introspect(account, grant),
                2..6 => Begin::refresh(account, grant).beside([format!("s{}", self.rng.below(3))]),
                _ => Begin::refresh(account, grant),
            };
            self.begin(begin);
        }
    }

    fn begin(&mut self, begin: Begin) {
        let journal = self.journal().clone();
        let begun = self.run(vec![Box::pin(async move { journal.begin(begin).await })]);
        let Some(ticket) = begun.into_iter().next().and_then(allowed) else { return };
        match self.rng.below(10) {
            0..7 => self.settle(ticket),
            7 => drop(ticket),
            _ => self.tickets.push(ticket),
        }
    }

    fn settle_late(&mut self) {
        if !self.tickets.is_empty() {
            let at = self.rng.index(self.tickets.len());
            let ticket = self.tickets.swap_remove(at);
            self.tally.late += 1;
            self.settle(ticket);
        }
    }

    fn settle(&mut self, ticket: Ticket) {
        let outcome = self.outcome();
        let settling = self.journal().settle(ticket, outcome);
        let settled = self.run(vec![Box::pin(settling)]).pop().unwrap();
        match settled {
            Ok(Settled::Issued(pair) | Settled::DifferentUser(pair)) => {
                self.tally.issued += 1;
                self.tally.beside += u64::from(pair.is_beside());
            }
            Ok(Settled::InDoubt(_)) => self.tally.doubtful += 1,
            Ok(_) => {}
            Err(SettleError { error, .. }) => {
                assert_eq!(error.remedy(), Remedy::FixCall, "{error}")
            }
        }
    }

    fn outcome(&mut self) -> Outcome {
        let refusal =
            |class| Outcome::Refused(Refusal::new(class, 400, "invalid_grant", "no", &[]));
        match self.rng.below(20) {
            0 => refusal(RefusalClass::Dead),
            1 => refusal(RefusalClass::Suspended),
            2 => Outcome::NotSent(NotSent::Lookup),
            3..5 => Outcome::InDoubt(Doubt::new(DoubtReason::ConnectionLost).with_status(502)),
            5 => Outcome::Revoked,
            6 => Outcome::Answered,
            _ => Outcome::Issued(self.response()),
        }
    }

    fn response(&mut self) -> TokenResponse {
        self.tokens += 1;
        // Now and then the same refresh token comes again.
        let number = if self.rng.chance(15) { self.rng.below(self.tokens) } else { self.tokens };
        let refresh = match self.rng.chance(70) {
            true => format!(",\"refresh_token\":\"refresh {number}\""),
            false => String::new(),
        };
        let body = format!("{{\"access_token\":\"access {}\"{refresh}}}", self.tokens);
        let now_ms = tokenwal::Clock::now_ms(&*self.clock);
        let mut response = TokenResponse::parse(body.into_bytes(), now_ms).unwrap();
        if self.rng.chance(70) {
            response = response.with_user(self.user());
        }
        if self.rng.chance(50) {
            response = response.with_expiry(now_ms + 7_200_000, ExpirySource::Declared);
        }
        response
    }

    fn views(&self) -> Vec<AccountView> {
        self.journal().accounts().map(Result::unwrap).collect()
    }

    fn pick_grant(&mut self) -> Option<(AccountTag, GrantId, Generation)> {
        let views = self.views();
        let grants: Vec<_> = views
            .iter()
            .flat_map(|view| view.grants.iter().map(|g| (view.account_tag, g.grant, g.generation)))
            .collect();
        (!grants.is_empty()).then(|| *self.rng.pick(&grants))
    }

    /// Makes some changes at once, so that they share a batch.
    fn change_some(&mut self) {
        let mut changes = Vec::new();
        for _ in 0..1 + self.rng.below(4) {
            changes.extend(self.change());
        }
        let before = self.journal().stats();
        let count = changes.len();
        for result in self.run(changes) {
            allowed(result);
        }
        let batches = self.journal().stats().batches - before.batches;
        self.tally.shared_batches += u64::from(count > 1 && batches < count as u64);
    }

    fn change(&mut self) -> Option<Change> {
        let (account, grant, generation) = self.pick_grant()?;
        let other = self.pick_grant()?.1;
        let holder = self.holder();
        let journal = self.journal().clone();
        let op = self.journal_operation();
        Some(match self.rng.below(18) {
            0..3 => Box::pin(async move { done(journal.adopt(account, grant, &holder).await) }),
            3..5 => {
                Box::pin(
                    async move { done(journal.adopt_for(account, grant, &holder, ["api"]).await) },
                )
            }
            5..8 => Box::pin(async move { done(journal.release(account, grant, &holder).await) }),
            8 => Box::pin(
                async move { done(journal.supersede(account, &holder, grant, other).await) },
            ),
            9..12 => {
                Box::pin(async move { done(journal.worked(account, grant, generation).await) })
            }
            12..14 => Box::pin(async move {
                done(journal.end(account, grant, Cause::Evicted, Confidence::Probable).await)
            }),
            14 => {
                self.tally.revived += u64::from(self.has_ended(account, grant));
                Box::pin(async move { done(journal.revive(account, grant).await) })
            }
            15..17 => {
                let at_ms = tokenwal::Clock::now_ms(&*self.clock) + 1 + self.rng.below(DAY_MS);
                self.tally.told += 1;
                Box::pin(async move { done(journal.told(account, grant, generation, at_ms).await) })
            }
            _ => {
                let (account, op) = op?;
                Box::pin(
                    async move { done(journal.resolve(account, op, ResolvedHow::Waived).await) },
                )
            }
        })
    }

    fn has_ended(&self, account: AccountTag, grant: GrantId) -> bool {
        let of = |view: &AccountView| view.account_tag == account;
        let view = self.views().into_iter().find(of).unwrap();
        view.grants.iter().any(|held| held.grant == grant && held.state == GrantState::Ended)
    }

    fn journal_operation(&mut self) -> Option<(AccountTag, tokenwal::OpId)> {
        let views = self.views();
        let operations: Vec<_> = views.iter().flat_map(|view| &view.in_doubt).collect();
        let operation = (!operations.is_empty()).then(|| *self.rng.pick(&operations))?;
        Some((operation.account_tag, operation.op))
    }

    /// Moves a grant, or all that an account has, to another account.
    fn relocate(&mut self) {
        let views = self.views();
        let provisional: Vec<_> =
            views.iter().filter(|view| view.provisional && !view.grants.is_empty()).collect();
        let to = self.account();
        let journal = self.journal().clone();
        let change: Change = if !provisional.is_empty() && self.rng.chance(70) {
            let view = *self.rng.pick(&provisional);
            let (from, grant) = (view.account_tag, self.rng.pick(&view.grants).grant);
            Box::pin(async move { done(journal.identify(from, grant, &to).await) })
        } else if !views.is_empty() && self.rng.chance(30) {
            let from = self.rng.pick(&views).account_tag;
            Box::pin(async move { done(journal.merge(from, &to).await) })
        } else {
            return;
        };
        let moved = self.run(vec![change]).pop().and_then(allowed);
        self.tally.moved += u64::from(moved.is_some());
    }

    /// Forgets an account whose grants have all ended.
    fn forget(&mut self) {
        for view in self.views() {
            let journal = self.journal().clone();
            let forgetting: Change =
                Box::pin(async move { done(journal.forget(view.account_tag).await) });
            if let Some(Ok(())) = self.run(vec![forgetting]).pop() {
                self.tally.forgotten += 1;
                return;
            }
        }
    }

    fn compact(&mut self) {
        let journal = self.journal().clone();
        let compacting: Change = Box::pin(async move { journal.compact().await.map(drop) });
        self.run(vec![compacting]).pop().unwrap().unwrap();
        self.tally.compactions += 1;
        let tombstones = |view: &AccountView| {
            view.grants.iter().filter(|grant| grant.generation == Generation(0)).count() as u64
        };
        self.tally.tombstones += self.views().iter().map(tombstones).sum::<u64>();
    }

    /// Polls futures in order, and does the journal's work until all are ready.
    fn run<T>(&self, futures: Vec<Pin<Box<dyn Future<Output = T>>>>) -> Vec<T> {
        let mut waiting: Vec<_> = futures.into_iter().map(|future| (Some(future), None)).collect();
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..10_000 {
            for (future, told) in &mut waiting {
                if let Some(Poll::Ready(output)) =
                    future.as_mut().map(|future| future.as_mut().poll(&mut context))
                {
                    (*future, *told) = (None, Some(output));
                }
            }
            let mut worked = false;
            for work in [Work::Prepare, Work::Commit, Work::Compact] {
                worked |= self.journal().step(work).unwrap();
            }
            if !worked && waiting.iter().all(|(future, _)| future.is_none()) {
                return waiting.into_iter().filter_map(|(_, told)| told).collect();
            }
        }
        panic!("the journal makes no progress: {:?}", self.journal().stats());
    }
}

fn app() -> App {
    App::new("provider", "client").unwrap()
}

fn done(result: Result<impl Sized, Error>) -> Result<(), Error> {
    result.map(drop)
}

/// Takes what the journal did; a call that it refused, since the account is not what the caller
/// thought, is none of this test's business.
fn allowed<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(matches!(error.remedy(), Remedy::FixCall | Remedy::Retry), "{error}");
            None
        }
    }
}
