//! From a seed to a history, and from a failing history to the smallest that fails.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::explore::{self, Thoroughness};
use super::plan::{Plan, plans};
use super::tally::Tally;
use crate::sim::Step;

fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { failure_persistence: None, max_shrink_iters: 3000, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// Every second history has a failing disk.
pub fn has_faults(seed: u64) -> bool {
    seed % 2 == 1
}

pub fn plan_of(seed: u64) -> Plan {
    let tree = plans(has_faults(seed)).new_tree(&mut runner(seed));
    tree.expect("plans are never refused").current()
}

/// Runs the history of a seed with its crashes; one that fails is made as small as it goes.
pub fn run_seed(seed: u64, skip: Step, tally: &mut Tally) -> Result<(), String> {
    let mut runner = runner(seed);
    let tree = plans(has_faults(seed)).new_tree(&mut runner).expect("plans are never refused");
    let run = |plan: &Plan, tally: &mut Tally| explore::run(plan, skip, Thoroughness::USUAL, tally);
    if run(&tree.current(), tally).is_ok() {
        return Ok(());
    }
    let smallest = runner
        .run_one(tree, |plan: Plan| run(&plan, &mut Tally::default()).map_err(TestCaseError::fail));
    let Err(TestError::Fail(why, plan)) = smallest else {
        return Err(format!("seed {seed} does not decide all: {smallest:?}"));
    };
    Err(format!(
        "violation in the history of seed {seed}, made smaller: {why}\n{plan:#?}\n\
         run it again: TOKENWAL_SEED={seed} cargo test --test crash no_crash -- --nocapture"
    ))
}
