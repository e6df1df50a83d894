//! Builds stores through the public API, and keeps them between runs.
//!
//! One thread drives the journal and all callers by turns: a number of callers submit, one batch is
//! written, all of them hear of it. So the size of the batches and, with a seeded clock and seeded
//! randomness, all that is written follow from the shape and the seed. The disk is a real one and
//! every batch is synced.

use super::data::{EPOCH_MS, Person, Population, Random};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use tokenwal::{
    AccountTag, Begin, Clock, Drive, Entropy, FixedKeys, GrantId, Journal, Options, SettleError,
    Settled, Work,
};

/// Counts up when what is built from a shape and a seed changes, so that no old store is taken.
const VERSION: u32 = 1;

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// What a store is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    pub accounts: usize,
    /// Records until it is complete, structural ones included.
    pub records: u64,
    /// Records to a batch.
    pub batch: usize,
    /// Folded into a snapshot at the end, so that its tail is empty.
    pub folded: bool,
    pub seed: u64,
}

impl Shape {
    /// A store whose accounts all stand in its snapshot.
    pub fn folded(accounts: usize, seed: u64) -> Self {
        // An exchange and its adoption take three records; what is more goes into refreshes.
        Self { accounts, records: accounts as u64 * 7 / 2, batch: 512, folded: true, seed }
    }

    /// A store without a snapshot: all of it is tail, with ten records to an account.
    pub fn tail(records: u64, seed: u64) -> Self {
        Self { accounts: records as usize / 10, records, batch: 64, folded: false, seed }
    }
}

/// What a store holds, counted while it was built.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Built {
    version: u32,
    pub shape: Shape,
    pub accounts: u64,
    /// Pairs that were issued, those that a later generation replaced included.
    pub pairs: u64,
    /// Records in its segments before they were folded, if they were.
    pub records: u64,
    pub batches: u64,
    pub build_s: f64,
    /// How long the first compaction took, which folds every account from its records.
    pub fold_s: f64,
}

/// Options that all stores here are opened with.
pub fn options() -> Options {
    Options::new(FixedKeys::new([7; 32], [])).compact_at_percent(0).outcome_bytes_max(16 << 10)
}

/// Returns the store of this shape, and builds it if there is none yet.
pub fn get(root: &Path, shape: Shape, tell: &mut dyn FnMut(&str)) -> Outcome<(PathBuf, Built)> {
    let Shape { accounts, records, batch, folded, seed } = shape;
    let kind = if folded { "folded" } else { "tail" };
    let name = format!("v{VERSION}-{kind}-{accounts}-{records}-{batch}-{seed}");
    let (dir, note) = (root.join(&name), root.join(format!("{name}.json")));
    if let Ok(text) = fs::read(&note) {
        return Ok((dir, serde_json::from_slice(&text)?));
    }
    tell(&format!("building a store of {accounts} accounts by {records} records"));
    // What an interrupted run left behind.
    remove(&dir)?;
    fs::create_dir_all(root)?;
    let built = build(&dir, shape)?;
    fs::write(&note, serde_json::to_vec(&built)?)?;
    Ok((dir, built))
}

/// Makes a copy to be opened, which takes no space: files are linked, and the journal never
/// changes a byte that is there.
pub fn link(store: &Path, to: &Path) -> io::Result<()> {
    remove(to)?;
    fs::create_dir(to)?;
    fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    for file in fs::read_dir(store)? {
        let file = file?;
        if file.file_name() != "LOCK" {
            fs::hard_link(file.path(), to.join(file.file_name()))?;
        }
    }
    Ok(())
}

pub fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Builds a store.
pub fn build(dir: &Path, shape: Shape) -> Outcome<Built> {
    let time = Arc::new(Time(AtomicU64::new(EPOCH_MS)));
    let options = options()
        .drive(Drive::Manual)
        .clock(Arc::clone(&time) as _)
        .entropy(Arc::new(Drawn(AtomicU64::new(shape.seed))));
    let start = Instant::now();
    let (journal, _) = options.create(dir)?;
    let mut builder = Builder::new(journal.clone(), time, shape);
    builder.run()?;
    let build_s = start.elapsed().as_secs_f64();
    let stats = journal.stats();
    let start = Instant::now();
    if shape.folded {
        fold(&journal)?;
    }
    let fold_s = start.elapsed().as_secs_f64();
    journal.blocking().close()?;
    let (accounts, pairs) = (builder.known.len() as u64, builder.pairs);
    // The first `Opened` is written with its segment, not with a batch.
    let (records, batches) = (stats.records + 1, stats.batches);
    Ok(Built { version: VERSION, shape, accounts, pairs, records, batches, build_s, fold_s })
}

fn fold(journal: &Journal) -> Outcome<()> {
    let mut compacting = Box::pin(journal.compact());
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match compacting.as_mut().poll(&mut context) {
            Poll::Ready(done) => return Ok(done.map(|_| ())?),
            Poll::Pending => {
                for work in [Work::Prepare, Work::Commit, Work::Compact] {
                    journal.step(work)?;
                }
            }
        }
    }
}

/// A user whose pair the journal has.
#[derive(Debug, Clone, Copy)]
struct Known {
    account: AccountTag,
    grant: GrantId,
    generation: u32,
}

/// What a service writes once it has a pair: that it depends on it, or that it works.
#[derive(Debug, Clone, Copy)]
enum Afterwards {
    Adopt(usize),
    Worked(usize),
}

struct Builder {
    journal: Journal,
    time: Arc<Time>,
    shape: Shape,
    population: Population,
    random: Random,
    /// By the number of the person.
    known: Vec<Known>,
    afterwards: Vec<Afterwards>,
    pairs: u64,
}

impl Builder {
    fn new(journal: Journal, time: Arc<Time>, shape: Shape) -> Self {
        Self {
            journal,
            time,
            shape,
            population: Population::new(shape.seed),
            random: Random::new(shape.seed, &[7]),
            known: Vec::with_capacity(shape.accounts),
            afterwards: Vec::new(),
            pairs: 0,
        }
    }

    fn run(&mut self) -> Outcome<()> {
        let Shape { accounts, records, batch, .. } = self.shape;
        loop {
            let done = self.journal.stats().records;
            if done >= records && self.known.len() >= accounts {
                break;
            }
            // New users come at an even rate over all records, and the rest are refreshes.
            let ahead = (done + 3 * batch as u64).min(records.max(1));
            let due = (accounts as u64).saturating_mul(ahead) / records.max(1);
            let left = accounts - self.known.len();
            let new = (due as usize).saturating_sub(self.known.len()).min(batch).min(left);
            self.round(new)?;
            while self.afterwards.len() >= batch {
                self.write_afterwards()?;
            }
        }
        self.write_afterwards()
    }

    /// Lets so many new users connect, and some of the old ones' pairs be refreshed.
    fn round(&mut self, new: usize) -> Outcome<()> {
        let first_new = self.known.len();
        let mut numbers: Vec<_> = (first_new..first_new + new).collect();
        let mut drawn = HashSet::new();
        // The busiest come up again and again, and have one refresh at a time.
        for _ in 0..8 * self.shape.batch {
            if numbers.len() >= self.shape.batch {
                break;
            }
            let number = self.random.rank_below(first_new);
            if first_new > 0 && drawn.insert(number) {
                numbers.push(number);
            }
        }
        let begins: Result<Vec<_>, _> = numbers.iter().map(|number| self.begin(*number)).collect();
        let begins = begins?;
        let journal = self.journal.clone();
        let tickets = self.together(begins.into_iter().map(|begin| journal.begin(begin)))?;
        let mut settling = Vec::with_capacity(tickets.len());
        for (number, ticket) in numbers.iter().zip(tickets) {
            let outcome =
                self.person(*number).answer(self.generation(*number) + 1, self.time.now())?;
            settling.push(journal.settle(ticket?, outcome));
        }
        for (number, settled) in numbers.into_iter().zip(self.together(settling)?) {
            self.note(number, settled)?;
        }
        Ok(())
    }

    fn person(&self, number: usize) -> Person {
        self.population.person(number)
    }

    fn generation(&self, number: usize) -> u32 {
        self.known.get(number).map_or(0, |known| known.generation)
    }

    fn begin(&self, number: usize) -> Outcome<Begin> {
        if let Some(known) = self.known.get(number) {
            return Ok(Begin::refresh(known.account, known.grant));
        }
        let person = self.person(number);
        let begin = Begin::exchange(&person.app()?)
            .holder(&person.holder()?)
            .scopes(person.scopes().iter().copied());
        Ok(if person.is_known_beforehand() { begin.user(&person.user()?) } else { begin })
    }

    fn note(&mut self, number: usize, settled: Result<Settled, SettleError>) -> Outcome<()> {
        let pair = match settled {
            Ok(Settled::Issued(pair)) => pair,
            Ok(other) => return Err(format!("a pair was settled as {other:?}").into()),
            Err(error) => return Err(error.error.into()),
        };
        self.pairs += 1;
        let generation = pair.generation().0;
        let known = Known { account: pair.account(), grant: pair.grant(), generation };
        match self.known.get_mut(number) {
            Some(place) => {
                *place = known;
                // A service notes it once, or now and then.
                if generation.is_multiple_of(3) {
                    self.afterwards.push(Afterwards::Worked(number));
                }
            }
            None => {
                self.known.push(known);
                // One user in fifty never comes back, which leaves an orphan.
                if number % 50 != 49 {
                    self.afterwards.push(Afterwards::Adopt(number));
                }
            }
        }
        Ok(())
    }

    fn write_afterwards(&mut self) -> Outcome<()> {
        let journal = self.journal.clone();
        let mut writing: Vec<Pin<Box<dyn Future<Output = _>>>> = Vec::new();
        let end = self.afterwards.len().min(self.shape.batch);
        for afterwards in self.afterwards.drain(..end).collect::<Vec<_>>() {
            let journal = journal.clone();
            let (Afterwards::Adopt(number) | Afterwards::Worked(number)) = afterwards;
            let Known { account, grant, generation } = self.known[number];
            match afterwards {
                Afterwards::Adopt(_) => {
                    let holder = self.person(number).holder()?;
                    writing.push(Box::pin(
                        async move { journal.adopt(account, grant, &holder).await },
                    ));
                }
                Afterwards::Worked(_) => {
                    let generation = tokenwal::Generation(generation);
                    writing.push(Box::pin(async move {
                        journal.worked(account, grant, generation).await
                    }));
                }
            }
        }
        self.together(writing)?.into_iter().try_for_each(|written| written.map(|_| ()))?;
        Ok(())
    }

    /// Lets calls submit, writes what they submitted, and so on until all of them have ended.
    fn together<F: Future>(&self, calls: impl IntoIterator<Item = F>) -> Outcome<Vec<F::Output>> {
        let mut calls: Vec<_> = calls.into_iter().map(|call| (Box::pin(call), None)).collect();
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let mut pending = false;
            for (call, output) in calls.iter_mut().filter(|(_, output)| output.is_none()) {
                match call.as_mut().poll(&mut context) {
                    Poll::Ready(value) => *output = Some(value),
                    Poll::Pending => pending = true,
                }
            }
            if !pending {
                break;
            }
            self.time.0.fetch_add(1, Ordering::Relaxed);
            for work in [Work::Commit, Work::Prepare] {
                while self.journal.step(work)? {}
            }
        }
        Ok(calls.into_iter().filter_map(|(_, output)| output).collect())
    }
}

/// A clock that goes on by a millisecond with each batch.
#[derive(Debug)]
struct Time(AtomicU64);

impl Time {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Clock for Time {
    fn now_ms(&self) -> u64 {
        self.now()
    }
}

/// Randomness out of the seed: good enough for stores whose key is known.
#[derive(Debug)]
struct Drawn(AtomicU64);

impl Entropy for Drawn {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        let call = self.0.fetch_add(1, Ordering::Relaxed);
        let mut random = Random::new(call, &[8]);
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}
