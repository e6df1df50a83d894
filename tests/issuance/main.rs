//! Issuance end to end: a broker over a journal on a real disk, the real HTTP client, and the sandbox
//! on loopback. What is promised is looked up in four places: what the caller hears, what the ledger
//! holds, what the events say, and what the provider was asked.
//!
//! `world` has the parts and the question that every test ends with: is what the provider issued in
//! the journal, or its operation in doubt? The simulation in `tests/histories` asks the same of
//! thousands of histories; here every byte is real, and so is every wait. `scripted` is a provider
//! whose waits a test decides, where it is the order of things that counts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may"
)]
#![allow(unreachable_pub, reason = "a module of a test has no reader outside")]

mod asked;
mod calls;
mod cancel;
mod cap;
mod clicks;
mod connect;
mod doubt;
mod fake;
mod faults;
mod holders;
mod many;
mod naming;
mod restart;
mod revoke;
mod scripted;
mod stale;
mod tokens;
mod world;
