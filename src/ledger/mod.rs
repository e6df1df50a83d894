//! What issuance needs of a store, as a trait: [`Ledger`].
//!
//! The [`Journal`](crate::Journal) is one, for one owner process; [`MemoryLedger`] is one for tests
//! of whoever builds on a broker. A replicated database can be one: nothing here speaks of files.
//! `tests/ledger` has the rules as tests, written against the trait alone.
//!
//! # The rules
//! - An intent is durable before `begin` returns, an outcome before `settle` does, and there is no
//!   pair to see but by a [`Receipt`].
//! - `begin` decides by the account's state in one step with the intent: busy, version, cap.
//! - The fence of an operation on a grant is its [`OpId`]; what was fenced out or is not known
//!   keeps its pair as an orphan, and drops nothing.
//! - Settling the same pair twice leaves one grant with that pair.
//! - Neither a deadline nor a lease that has passed is permission to send again: the operation is in
//!   doubt until an outcome or a resolution says otherwise.

mod journal;
mod line;
mod memory;

pub use line::{Line, LineError, LineProblem};
pub use memory::{MemoryLedger, MemoryWalk};

use crate::error::Error;
use crate::format::value::{Cause, Confidence, ResolvedHow};
use crate::ids::{
    Account, AccountTag, Fingerprint, Generation, GrantId, Holder, HolderTag, Lsn, OpId,
};
use crate::journal::{
    AccountRef, AccountView, Begin, History, Import, Imported, IssuedPair, Redeemed, SettleError,
    Settled, Ticket,
};
use crate::outcome::Outcome;
use crate::seal::DerivedKey;
use crate::secret::Secret;
use serde::Serialize;

/// A store of token pairs, as a broker needs it.
///
/// Handles are clones; futures are [`Send`] and may be dropped at any point: what was handed over
/// by a call is stored all the same, or reported as in doubt when the ledger is opened next.
pub trait Ledger: Clone + Send + Sync + 'static {
    /// A walk over all accounts.
    type Walk: Walk;

    /// Makes an intent durable and gives the ticket to settle.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Conflict`], [`Error::CapReached`], [`Error::CallbackUsed`] and what
    /// else keeps the intent from being durable; no request may be sent then.
    fn begin(&self, begin: Begin) -> impl Future<Output = Result<Ticket, Error>> + Send;

    /// Takes up an operation that is open or in doubt, such as one of which the outcome was kept
    /// elsewhere.
    ///
    /// # Errors
    /// [`Error::UnknownOperation`] once it has its outcome.
    fn resume(
        &self,
        account: AccountTag,
        op: OpId,
    ) -> impl Future<Output = Result<Ticket, Error>> + Send;

    /// Makes an outcome durable. The outcome is taken when this is called, not when the future is
    /// first polled: dropping the future drops nothing.
    ///
    /// # Errors
    /// [`SettleError`] gives ticket and outcome back where they were surely not stored.
    fn settle(
        &self,
        ticket: Ticket,
        outcome: Outcome,
    ) -> impl Future<Output = Result<Receipt, SettleError>> + Send;

    /// Notes one change.
    ///
    /// # Errors
    /// As the journal's method of that name.
    fn change(
        &self,
        account: AccountTag,
        change: Change,
    ) -> impl Future<Output = Result<Lsn, Error>> + Send;

    /// Takes in a pair that was obtained elsewhere, once.
    ///
    /// # Errors
    /// Those of every write.
    fn import(&self, import: Import) -> impl Future<Output = Result<Imported, Error>> + Send;

    /// Returns the newest pair of a grant, also of one that has ended while it is still kept.
    ///
    /// # Errors
    /// What keeps it from being read.
    fn pair(
        &self,
        account: AccountTag,
        grant: GrantId,
    ) -> impl Future<Output = Result<Option<IssuedPair>, Error>> + Send;

    /// Returns the access tokens beside the newest pair of a grant that has not ended, the newest
    /// first.
    ///
    /// # Errors
    /// What keeps them from being read.
    fn beside(
        &self,
        account: AccountTag,
        grant: GrantId,
    ) -> impl Future<Output = Result<Vec<IssuedPair>, Error>> + Send;

    /// Returns what is known of an account.
    ///
    /// # Errors
    /// What keeps it from being read.
    fn account(
        &self,
        account: AccountTag,
    ) -> impl Future<Output = Result<Option<AccountView>, Error>> + Send;

    /// Walks all accounts as they are now.
    fn walk(&self) -> Self::Walk;

    /// Returns the accounts that have an operation without an outcome, or a living grant that
    /// nobody holds.
    ///
    /// # Errors
    /// What keeps them from being read.
    fn pending(&self) -> impl Future<Output = Result<Vec<AccountTag>, Error>> + Send;

    /// Says where the exchange is that was begun under a tag of the caller's.
    ///
    /// # Errors
    /// What keeps it from being read.
    fn redeemed(
        &self,
        tag: AccountTag,
    ) -> impl Future<Output = Result<Option<Redeemed>, Error>> + Send;

    /// Returns what is still known of the past of an account.
    ///
    /// # Errors
    /// What keeps it from being read.
    fn history(&self, account: AccountTag) -> impl Future<Output = Result<History, Error>> + Send;

    /// Drops what need not be kept any longer.
    ///
    /// # Errors
    /// What keeps it from being done; nothing is lost then.
    fn prune(&self) -> impl Future<Output = Result<(), Error>> + Send;

    /// Returns the last durable LSN.
    fn head(&self) -> Lsn;

    /// Returns the tag that an account is named by.
    fn tag_of(&self, account: &AccountRef) -> AccountTag;

    /// Returns the tag that a holder is named by.
    fn holder_tag(&self, holder: &Holder) -> HolderTag;

    /// Returns a token's fingerprint.
    fn fingerprint(&self, token: &Secret) -> Fingerprint;

    /// Derives a key that is the same for the life of the store.
    fn derive(&self, purpose: &str) -> DerivedKey;

    /// Returns when the newest record was made, in milliseconds since 1970: a clock that is behind it was
    /// set back.
    fn newest_ms(&self) -> u64;

    /// Returns the time by the ledger's clock, in milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// A walk over all accounts of a ledger, in the order of their tags.
pub trait Walk: Send {
    /// Returns the next account. One that cannot be read is an error, and the next ones follow.
    fn next(&mut self) -> impl Future<Output = Option<Result<AccountView, Error>>> + Send;
}

/// A change that is one record.
#[derive(Debug, Clone)]
pub enum Change {
    /// A holder depends on a grant, for these scopes.
    Adopt {
        /// The grant.
        grant: GrantId,
        /// The holder.
        holder: Holder,
        /// What the holder needs.
        scopes: Vec<String>,
    },
    /// A holder depends on a grant no longer.
    Release {
        /// The grant.
        grant: GrantId,
        /// The holder.
        holder: Holder,
    },
    /// A holder moves to another grant.
    Supersede {
        /// The holder.
        holder: Holder,
        /// What it needs.
        scopes: Vec<String>,
        /// The grant that it leaves.
        from: GrantId,
        /// The grant that it depends on from now on.
        to: GrantId,
    },
    /// A generation was used with success.
    Worked {
        /// The grant.
        grant: GrantId,
        /// The generation.
        generation: Generation,
    },
    /// When the newest access token of a grant expires, as the provider said when it was asked.
    Told {
        /// The grant.
        grant: GrantId,
        /// The generation of the pair.
        generation: Generation,
        /// When, in milliseconds since 1970.
        expires_at_ms: u64,
    },
    /// A grant is over.
    End {
        /// The grant.
        grant: GrantId,
        /// Why.
        cause: Cause,
        /// How sure that is.
        confidence: Confidence,
    },
    /// What ended a grant is undone.
    Revive {
        /// The grant.
        grant: GrantId,
    },
    /// An imported grant may be refreshed from now on.
    Activate {
        /// The grant.
        grant: GrantId,
    },
    /// What became of an operation is known.
    Resolve {
        /// The operation.
        op: OpId,
        /// How.
        how: ResolvedHow,
    },
    /// The user behind a provisional account is known.
    Identify {
        /// The grant that moves.
        grant: GrantId,
        /// The user's own account.
        account: Account,
    },
    /// Two accounts are one user.
    Merge {
        /// The account that takes all over.
        to: Account,
    },
    /// All that is known of the account is dropped.
    Forget,
}

/// How far an outcome is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Durability {
    /// It survives the process and the machine's power, not the machine.
    Local,
    /// It survives the loss of any one machine.
    Quorum,
}

/// Proof that an outcome is durable: what unlocks a pair.
#[derive(Debug)]
pub struct Receipt {
    durability: Durability,
    settled: Settled,
}

impl Receipt {
    pub(crate) fn new(durability: Durability, settled: Settled) -> Self {
        Self { durability, settled }
    }

    /// Returns how far the outcome is safe.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Returns what was settled.
    pub fn into_settled(self) -> Settled {
        self.settled
    }
}
