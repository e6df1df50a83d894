//! What the journal logs while it lives, crashes, fails and recovers: never a secret.
//!
//! A target of its own, since who listens on one thread is disturbed by others that log.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::string_slice,
    clippy::needless_borrows_for_generic_args,
    clippy::manual_is_multiple_of,
    clippy::large_enum_variant,
    clippy::mem_forget,
    unreachable_pub,
    dead_code,
    reason = "tests may, and share modules of which each uses a part"
)]

mod crashes;
mod sim;

use crashes::tally::Tally;
use crashes::{logs, seeds};
use sim::Step;

#[test]
fn logs_hold_no_secret() {
    let heard = logs::during(|| {
        for seed in 0..60 {
            seeds::run_seed(seed, Step::None, &mut Tally::default()).unwrap();
        }
    });
    assert!(heard.count > 1000 && heard.kinds.len() > 5, "{heard:?}");
    assert!(heard.leak.is_none(), "{heard:?}");
}
