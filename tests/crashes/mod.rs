//! The crash suite's parts: a model of what must come back, callers that are driven by hand, and
//! the crashes.

#![allow(unreachable_pub, reason = "a module of a test has no reader outside")]

pub mod calls;
pub mod damage;
pub mod exhaustive;
pub mod explore;
pub mod model;
pub mod plan;
pub mod salvage;
pub mod secrets;
pub mod seeds;
pub mod tally;
pub mod view;
pub mod world;
