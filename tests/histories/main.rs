//! Histories of a service: a broker over a journal on a simulated disk, a simulated provider, a clock
//! that is set, callers who come and go, and a process that ends at any disk operation or message.
//!
//! One seed gives one history. `HISTORIES` says how many are run (5,000 by default), `HISTORY` runs the
//! one of a seed and prints what happens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
#![allow(clippy::indexing_slicing, clippy::print_stdout, reason = "a test may")]
#![allow(clippy::disallowed_methods, reason = "a test may")]
#![allow(unreachable_pub, reason = "a module of a test has no reader outside")]

mod check;
mod clock;
mod provider;
mod service;
#[path = "../sim/mod.rs"]
mod sim;
mod stepper;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use world::{Tally, World};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn nothing_that_we_did_killed_a_living_grant() {
    if let Some(seed) = number("HISTORY") {
        let tally = World::run(seed).unwrap_or_else(|violation| panic!("{violation}"));
        println!("{tally:?}");
        return;
    }
    let histories = number("HISTORIES").unwrap_or(5_000);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let results = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut tally = Tally::default();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= histories {
                            return Ok(tally);
                        }
                        let one = World::run(seed).map_err(|violation| (seed, violation))?;
                        tally.add(&one);
                    }
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut all = Tally::default();
    for result in results {
        match result {
            Ok(tally) => all.add(&tally),
            Err((seed, violation)) => panic!(
                "history {seed}: {violation}\nagain: HISTORY={seed} cargo test --all-features --test histories"
            ),
        }
    }
    println!("{all:?}");
    if histories >= 1000 {
        all.assert_everything_happened();
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in [3, 7, 11] {
        assert_eq!(World::run(seed).unwrap(), World::run(seed).unwrap());
    }
}
