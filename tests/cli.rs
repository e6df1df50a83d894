//! The command `tokenwal`, run as people run it: on good stores, on every bad input that has an
//! error of its own, on damage. What only looks at a store must leave it as it was.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::needless_borrows_for_generic_args,
    reason = "a test may"
)]

#[path = "cli/bad_input.rs"]
mod bad_input;
#[path = "cli/damage.rs"]
mod damage;
#[path = "cli/hostile.rs"]
mod hostile;
#[path = "cli/look.rs"]
mod look;
#[path = "cli/machine.rs"]
mod machine;
#[path = "cli/operator.rs"]
mod operator;
#[path = "cli/orders.rs"]
mod orders;
#[path = "shared/over.rs"]
mod over;
#[path = "cli/pairs.rs"]
mod pairs;
#[path = "cli/providers.rs"]
mod providers;
#[path = "cli/salvage.rs"]
mod salvage;
#[path = "cli/sandbox.rs"]
mod sandbox;
#[path = "cli/stores.rs"]
mod stores;
