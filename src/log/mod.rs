//! The journal's segments: one decode loop, the verdict on the end, recovery, making segments.
//!
//! `listing` sorts names, `present` opens segments, `scan` reads them, `beyond` looks behind the
//! end, `verdict` decides, `survey` follows the chain and calls them, `recover` is the only one that
//! writes to what it found, `create` makes new segments. Nothing here knows what a record means.

mod beyond;
pub(crate) mod create;
pub(crate) mod listing;
mod present;
pub(crate) mod recover;
pub(crate) mod scan;
pub(crate) mod survey;
mod verdict;
mod window;

pub use verdict::Verdict;
