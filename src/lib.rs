//! A write-ahead journal for OAuth token pairs.
//!
//! A provider issues a pair; the transaction that should have stored it rolls back, the process is
//! killed, the future is dropped, the disk is full. The pair is gone here and lives on there, where
//! it counts toward a cap, or was the only refresh token there is. This library stands between the
//! provider's answer and its caller: **no caller sees a pair that is not durable, and no durable
//! pair is lost.**
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("store");
//! use tokenwal::{Account, App, Begin, FixedKeys, Holder, Options, Outcome, Settled};
//! use tokenwal::{TokenResponse, User};
//!
//! let (journal, report) = Options::new(FixedKeys::new([7; 32], [])).open_or_create(&path)?;
//! assert!(report.in_doubt.is_empty(), "what a crash left unknown is named here");
//! let journal = journal.blocking();
//!
//! // The intent is durable before the request leaves ...
//! let app = App::new("salesforce", "3MVG9lKcPoNINVB")?;
//! let ticket = journal.begin(Begin::exchange(&app))?;
//! // ... the provider answers ...
//! let body = br#"{"access_token":"00D!AQ","refresh_token":"5Aep861"}"#.to_vec();
//! let response = TokenResponse::parse(body, 1_760_000_000_000)?.with_user(User::new("005A")?);
//! // ... and the pair is durable before anybody sees it.
//! let Settled::Issued(pair) = journal.settle(ticket, Outcome::Issued(response))? else {
//!     return Err("refused".into());
//! };
//! assert_eq!(pair.access_token().reveal(), "00D!AQ");
//!
//! // Whoever depends on it says so before its own transaction commits.
//! let holder = Holder::new("customer-1", "nightly sync")?;
//! journal.adopt(pair.account(), pair.grant(), &holder)?;
//!
//! let account = Account::new(app, User::new("005A")?);
//! let current = journal.current(&account)?.ok_or("no pair")?;
//! assert_eq!(current.refresh_token().ok_or("none")?.reveal(), "5Aep861");
//! journal.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Rooms
//! Imports go down only.
//!
//! | room | what it owns |
//! |---|---|
//! | `sandbox` (feature `sandbox`) | a provider on loopback, for tests and the demonstration |
//! | `provider` (feature `client`) | calls to a provider over HTTP, and what came of them |
//! | `broker` (feature `broker`; feature `metrics` has it count) | issuance: single flight, the cap, holders, what is in doubt |
//! | [`ledger`] | what issuance needs of a store, as a trait; the journal's, and one in memory |
//! | [`inspect`] | reading, verifying and salvaging a store without opening it |
//! | `journal` | the embedded store: open, begin, settle, look up, compact, close |
//! | `engine` | group commit, the fold, the snapshot, compaction; step functions all |
//! | `log` | segments: the one decode loop, the verdict, recovery |
//! | [`disk`] | the seam to files, and the real disk |
//! | `profile` (feature `broker`) | what is known of providers, as data with sources |
//! | `format`, `codec`, `seal`, `keys` | bytes: journal-format.md, and what is sealed in it |
//! | `outcome`, `ids`, `secret`, `error`, `clock` | words |
//!
//! # How a pair becomes durable
//! A caller encodes and seals its record, copies it into the batch that is being filled, and waits.
//! One thread takes the batch, writes it on blocks of its own into a segment of zeros that were
//! written ahead, and syncs; whatever came meanwhile is the next batch. Then the fold is advanced
//! and the callers wake. A failed write or sync poisons the journal for good: every waiter hears of
//! it, nothing is retried, and look-ups still answer.
//!
//! # Runtimes
//! The journal's futures need no runtime; they may be polled by any. [`Journal::blocking`] gives the
//! same calls to code without one. A broker runs its calls in tasks of their own, on tokio.
#![forbid(unsafe_code)]

#[cfg(feature = "broker")]
pub mod broker;
mod clock;
mod codec;
pub mod disk;
mod engine;
mod error;
mod format;
mod ids;
pub mod inspect;
mod journal;
mod keys;
pub mod ledger;
mod log;
mod outcome;
#[cfg(feature = "broker")]
pub mod profile;
#[cfg(feature = "client")]
pub mod provider;
#[cfg(feature = "sandbox")]
pub mod sandbox;
mod seal;
mod secret;
mod sync;

pub use clock::{Clock, Entropy, SystemClock, SystemEntropy};
pub use engine::Compacted;
pub use error::{Damage, Error, Poison, Remedy};
pub use format::value::{Action, Cause, Confidence, ResolvedHow};
pub use ids::{
    Account, AccountTag, App, AppTag, Fingerprint, Generation, GrantId, Holder, HolderTag, Lsn,
    NameError, Nonce, OpId, StoreId, TagError, User,
};
pub use journal::{
    AccountRef, AccountView, Accounts, Begin, BesideView, Blocking, Cap, CapCounts, Drive, EndView,
    Event, EventDetails, GrantState, GrantView, History, HolderName, HolderView, Import, Imported,
    IssuedPair, Journal, OperationView, Options, Redeemed, RefusalView, Report, SettleError,
    Settled, Stats, Ticket, Work,
};
pub use keys::{FixedKeys, KeyEnv, KeyError, KeyFile, KeySource, KeyTextError, Keyring};
pub use log::Verdict;
pub use outcome::{
    Doubt, DoubtReason, ExpirySource, Introspection, NotSent, Outcome, Refusal, RefusalClass,
    Signature, TokenResponse, Unreadable, UnreadableReason, salesforce_id18, salesforce_user,
};
pub use secret::Secret;

/// What the tests of the format and the fuzz targets reach into. No part of the API.
#[doc(hidden)]
pub mod internals {
    pub use crate::ids::{HostTag, OwnerId};
    pub mod codec {
        pub use crate::codec::*;
    }
    pub mod format {
        pub use crate::format::*;
    }
    pub mod seal {
        pub use crate::seal::*;
    }
}

#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../README.md")]
struct Readme;
