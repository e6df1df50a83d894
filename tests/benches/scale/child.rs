//! What is measured in a process of its own, so that nothing else's memory counts.

use super::counting::Counting;
use super::data::{Population, Random};
use super::machine::{Stopwatch, files, forget, peak_bytes};
use super::store::{Built, Outcome, options};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;
use tokenwal::disk::RealDisk;
use tokenwal::{Account, Begin, Journal, Settled};

/// How many users are looked up: by any read of the disk, and in memory again and again.
const STRANGERS: usize = 4000;
const COLD: usize = 400;
const FRIENDS: usize = 500;
const VISITS: usize = 20;

/// What an opening took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Opened {
    pub wall_s: f64,
    /// Of that, on a core; it is one thread that opens.
    pub core_s: f64,
    pub peak_bytes: u64,
    /// What the process had resident before.
    pub before_bytes: u64,
    pub snapshot_bytes_read: u64,
    pub segment_bytes_read: u64,
    pub records: u64,
    pub accounts_touched: u64,
    pub snapshot_bytes: u64,
}

/// What a walk over all accounts found.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Counted {
    pub accounts: u64,
    pub pairs: u64,
    pub wall_s: f64,
}

/// How long look-ups of current pairs took, in microseconds: of accounts in the snapshot that was
/// not in the system's memory, that was there, and of accounts looked up before.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct LookedUp {
    pub cold_us: Quantiles,
    pub first_us: Quantiles,
    pub again_us: Quantiles,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
}

/// What a compaction took that merged a few accounts into the snapshot.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Folded {
    pub wall_s: f64,
    pub accounts: u64,
    pub bytes: u64,
    pub peak_bytes: u64,
}

/// Runs one of [`work`] in a process of its own and reads what it prints.
pub fn run<T: DeserializeOwned>(work: &str, dir: &Path, built: &Built) -> Outcome<T> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--child", work])
        .arg(dir)
        .arg(serde_json::to_string(built)?)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("the process that was to {work} a store failed").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Does the work of the process that [`run`] started, and returns what it is to print.
pub fn work(work: &str, dir: &Path, built: &str) -> Outcome<String> {
    let built: Built = serde_json::from_str(built)?;
    Ok(match work {
        "open" => serde_json::to_string(&open(dir)?)?,
        "count" => serde_json::to_string(&count(dir)?)?,
        "look-up" => serde_json::to_string(&look_up(dir, &built)?)?,
        "fold" => serde_json::to_string(&fold(dir, &built)?)?,
        other => return Err(format!("no work is called {other}").into()),
    })
}

fn open(dir: &Path) -> Outcome<Opened> {
    let (disk, reads) = Counting::over(RealDisk::open(dir)?);
    let options = options().disk(Arc::new(disk));
    let before_bytes = peak_bytes()?;
    let watch = Stopwatch::start()?;
    let (journal, report) = options.open(dir)?;
    let (wall_s, core_s) = watch.stop()?;
    let peak_bytes = peak_bytes()?;
    let (snapshot_bytes_read, segment_bytes_read) = (reads.snapshot_bytes(), reads.segment_bytes());
    let stats = journal.stats();
    journal.blocking().close()?;
    Ok(Opened {
        wall_s,
        core_s,
        peak_bytes,
        before_bytes,
        snapshot_bytes_read,
        segment_bytes_read,
        records: report.records_replayed,
        accounts_touched: stats.accounts_touched as u64,
        snapshot_bytes: stats.snapshot_bytes,
    })
}

/// Reads every account and counts the pairs that made it what it is.
fn count(dir: &Path) -> Outcome<Counted> {
    let (journal, report) = options().open(dir)?;
    if !report.in_doubt.is_empty() {
        return Err("operations are in doubt that were settled".into());
    }
    let start = Instant::now();
    let (mut accounts, mut pairs) = (0, 0);
    for account in journal.accounts() {
        accounts += 1;
        let generations = account?.grants.into_iter().map(|grant| u64::from(grant.generation.0));
        pairs += generations.sum::<u64>();
    }
    let wall_s = start.elapsed().as_secs_f64();
    journal.blocking().close()?;
    Ok(Counted { accounts, pairs, wall_s })
}

fn look_up(dir: &Path, built: &Built) -> Outcome<LookedUp> {
    let (journal, _) = options().open(dir)?;
    let population = Population::new(built.shape.seed);
    let mut random = Random::new(built.shape.seed, &[9]);
    let mut draw = |count: usize| -> Vec<usize> {
        (0..count).map(|_| random.below(built.shape.accounts)).collect()
    };
    forget(&files(dir, "snapshot-")?)?;
    let cold_us = visit(&journal, population, &draw(COLD))?;
    // By now the snapshot is read, for it is the same file.
    super::machine::read_and_check(&files(dir, "snapshot-")?)?;
    let first_us = visit(&journal, population, &draw(STRANGERS))?;
    let friends = draw(FRIENDS);
    visit(&journal, population, &friends)?;
    let again_us = visit(&journal, population, &friends.repeat(VISITS))?;
    journal.blocking().close()?;
    Ok(LookedUp { cold_us, first_us, again_us })
}

/// Looks users up, and checks that what comes is what their provider gave last.
fn visit(journal: &Journal, population: Population, numbers: &[usize]) -> Outcome<Quantiles> {
    let journal = journal.blocking();
    let mut took_ns = Vec::with_capacity(numbers.len());
    for number in numbers {
        let person = population.person(*number);
        let account = Account::new(person.app()?, person.user()?);
        let start = Instant::now();
        let pair = journal.current(&account)?.ok_or("a user has no pair")?;
        took_ns.push(start.elapsed().as_nanos() as u64);
        if pair.access_token().reveal() != person.access_token(pair.generation().0) {
            return Err("a pair is not the one that was issued".into());
        }
    }
    took_ns.sort_unstable();
    let quantile = |percent: usize| {
        let at = (took_ns.len() * percent / 100).min(took_ns.len().saturating_sub(1));
        took_ns.get(at).map_or(0.0, |ns| *ns as f64 / 1000.0)
    };
    Ok(Quantiles { p50: quantile(50), p99: quantile(99) })
}

/// Refreshes a few pairs and folds the store again.
fn fold(dir: &Path, built: &Built) -> Outcome<Folded> {
    let (journal, _) = options().open(dir)?;
    let journal = journal.blocking();
    let population = Population::new(built.shape.seed);
    for number in 0..built.shape.accounts.min(100) {
        let person = population.person(number);
        let account = Account::new(person.app()?, person.user()?);
        let current = journal.current(&account)?.ok_or("a user has no pair")?;
        let ticket = journal.begin(Begin::refresh(current.account(), current.grant()))?;
        let answer = person.answer(current.generation().0 + 1, super::data::EPOCH_MS)?;
        match journal.settle(ticket, answer).map_err(|error| error.error)? {
            Settled::Issued(_) => {}
            other => return Err(format!("a pair was settled as {other:?}").into()),
        }
    }
    let start = Instant::now();
    let done = journal.compact()?;
    let wall_s = start.elapsed().as_secs_f64();
    let peak_bytes = peak_bytes()?;
    journal.close()?;
    Ok(Folded { wall_s, accounts: done.accounts, bytes: done.bytes, peak_bytes })
}
