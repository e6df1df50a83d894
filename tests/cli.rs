//! The command `tokenwal`, run as people run it: on good stores, on every bad input that has an
//! error of its own, on damage. What only looks at a store must leave it as it was.
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
#[path = "cli/salvage.rs"]
mod salvage;
#[path = "cli/stores.rs"]
mod stores;
