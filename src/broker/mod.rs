//! The broker between a service and its providers: it issues, refreshes and revokes through a ledger,
//! and never kills a living grant.

mod upstream;

pub use upstream::{Approval, Call, Code, Listed, Upstream, Which};
