//! A simulated machine: a disk that loses, tears, reorders and refuses what a real one can, a
//! clock that stands until it is moved, and randomness that a seed decides.
//!
//! Nothing here draws from outside: one seed gives one history. The fault model is that of
//! journal-format.md, "Media", and each class can be switched on its own. Per file there are the
//! durable image, the image in the page cache, and the operations in between, in their order.

#![allow(dead_code, unused_imports, reason = "each test target uses its own part of this module")]
#![allow(unreachable_pub, reason = "a module of a test has no reader outside")]

mod directory;
mod disk;
mod file;
mod handle;
mod machine;
#[path = "../shared/over.rs"]
pub mod over;
mod rng;
mod weakened;
mod world;

pub use disk::{SimDisk, is_crash};
pub use file::{Cut, ReadBack};
pub use machine::{EIO, ENOSPC, Fault, Moment, Op, OpKind, SimOptions};
pub use rng::Rng;
pub use weakened::{Step, Weakened};
pub use world::{SimClock, SimEntropy};
