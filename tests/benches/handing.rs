//! `cargo bench --bench handing`: what a valid current token costs, handed out through the broker,
//! beside a look-up in a plain map in the same run.
//!
//! 1,000 accounts are imported into a journal on a real disk, and each is asked for once; then 1 and
//! 16 tasks ask for any of them, again and again. The journal's batches are counted before and after:
//! handing out makes none. Broker and map take turns, and of the rounds the median is shown.
//!
//! Usage: cargo bench --bench handing -- [ASKS] (200,000 by each task and round)
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark measures beside the journal's seams, and prints"
)]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};
use tokenwal::broker::{AppConfig, Broker};
use tokenwal::profile::Profile;
use tokenwal::{
    Account, AccountTag, App, FixedKeys, Import, IssuedPair, Journal, Options, SystemClock,
    TokenResponse, User,
};

const ACCOUNTS: u64 = 1000;
const ROUNDS: usize = 5;
const ASKS: usize = 200_000;

type Map = RwLock<HashMap<AccountTag, Arc<IssuedPair>>>;

fn main() {
    let asks = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(ASKS);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure(asks));
}

async fn measure(asks: usize) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = Options::new(FixedKeys::new([7; 32], []));
    let (journal, _) = options.create(dir.path().join("store")).unwrap();
    let app = App::new("example", "client").unwrap();
    let config = AppConfig::without_upstream(app.clone(), Profile::rfc6749());
    let broker = Broker::builder(journal.clone()).app(config).build();
    let map = Map::default();
    let mut accounts = Vec::new();
    for number in 0..ACCOUNTS {
        let account = import(&broker, &app, number).await;
        // The first look loads it.
        let pair = broker.access_token(account, &["api"], Duration::ZERO).await.unwrap();
        map.write().unwrap().insert(account, pair);
        accounts.push(account);
    }
    let (accounts, map) = (Arc::new(accounts), Arc::new(map));
    let before = quiet(&journal).await;
    println!("| handed out by | tasks | asks | p50 us | p99 us | syncs |");
    println!("|---|---|---|---|---|---|");
    for tasks in [1, 16] {
        let (mut handed, mut looked) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let by = broker.clone();
            let ask = move |account| {
                let broker = by.clone();
                async move {
                    let pair = broker.access_token(account, &["api"], Duration::ZERO).await;
                    pair.unwrap()
                }
            };
            handed.push(round(tasks, asks, &accounts, ask).await);
            let by = Arc::clone(&map);
            let look = move |account| {
                let map = Arc::clone(&by);
                async move { Arc::clone(&map.read().unwrap()[&account]) }
            };
            looked.push(round(tasks, asks, &accounts, look).await);
        }
        let syncs = journal.stats().batches - before;
        assert_eq!(syncs, 0, "handing out a valid token makes no record");
        show("broker", tasks, asks, handed, &syncs.to_string());
        show("a map", tasks, asks, looked, "");
    }
}

/// Waits until the journal has marked that nothing more comes, and returns its count of batches.
async fn quiet(journal: &Journal) -> u64 {
    loop {
        let before = journal.stats().batches;
        tokio::time::sleep(Duration::from_secs(3)).await;
        if journal.stats().batches == before {
            return before;
        }
    }
}

/// Imports a pair that works for a day.
async fn import(broker: &Broker<Journal>, app: &App, number: u64) -> AccountTag {
    let account = Account::new(app.clone(), User::new(format!("user-{number}")).unwrap());
    let body = format!(
        "{{\"access_token\":\"access-{number}-{0}\",\"refresh_token\":\"refresh-{number}-{0}\",\
         \"expires_in\":86400,\"scope\":\"api\"}}",
        "t".repeat(80)
    );
    let now_ms = tokenwal::Clock::now_ms(&SystemClock);
    let response = TokenResponse::parse(body.into_bytes(), now_ms).unwrap();
    broker.import(Import::new(&account, response)).await.unwrap().account
}

/// Has each task ask so often, for one account after the other; gives what each ask took, in
/// nanoseconds, in order.
async fn round<F>(
    tasks: usize,
    asks: usize,
    accounts: &Arc<Vec<AccountTag>>,
    ask: impl Fn(AccountTag) -> F + Clone + Send + 'static,
) -> Vec<u64>
where
    F: Future<Output = Arc<IssuedPair>> + Send,
{
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let (accounts, ask) = (Arc::clone(accounts), ask.clone());
            tokio::spawn(async move {
                let mut times = Vec::with_capacity(asks);
                for at in 0..asks {
                    let account = accounts[(at * 31 + task * 61) % accounts.len()];
                    let asked = Instant::now();
                    let pair = ask(account).await;
                    times.push(u64::try_from(asked.elapsed().as_nanos()).unwrap());
                    drop(black_box(pair));
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    times.sort_unstable();
    times
}

/// Prints the medians of the rounds' percentiles.
#[allow(clippy::cast_precision_loss, reason = "times of asks are small")]
fn show(by: &str, tasks: usize, asks: usize, rounds: Vec<Vec<u64>>, syncs: &str) {
    let of = |percent: usize| {
        let mut all: Vec<_> =
            rounds.iter().map(|times| times[(times.len() - 1) * percent / 100]).collect();
        all.sort_unstable();
        all[all.len() / 2] as f64 / 1e3
    };
    println!("| {by} | {tasks} | {asks} | {:.2} | {:.2} | {syncs} |", of(50), of(99));
}
