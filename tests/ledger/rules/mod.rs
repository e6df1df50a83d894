//! The rules, by what they are about.

pub mod begin;
pub mod change;
pub mod look;
pub mod settle;
