//! The rules, by what they are about.

pub mod begin;
pub mod beside;
pub mod change;
pub mod look;
pub mod settle;
