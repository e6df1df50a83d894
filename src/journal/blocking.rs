//! The same calls for callers without a runtime.

use super::append::run;
use super::{
    AccountRef, AccountView, Begin, History, Import, Imported, IssuedPair, Journal, Redeemed,
    SettleError, Settled, Ticket, launch,
};
use crate::codec::Nothing;
use crate::engine::Compacted;
use crate::engine::fill::Room;
use crate::error::Error;
use crate::format::value::{Cause, Confidence, ResolvedHow};
use crate::ids::{Account, AccountTag, Generation, GrantId, Holder, Lsn, OpId};
use crate::outcome::Outcome;

/// A journal whose calls block until they are durable.
///
/// A caller who finds nobody writing writes its own batch, which spares it a hand-over to another
/// thread. Not to be used on a runtime's threads.
#[derive(Debug, Clone)]
pub struct Blocking(Journal);

impl Blocking {
    pub(super) fn new(journal: Journal) -> Self {
        Self(journal)
    }

    /// As [`Journal::begin`].
    ///
    /// # Errors
    /// As there.
    pub fn begin(&self, begin: Begin) -> Result<Ticket, Error> {
        run(self.0.begin(begin))
    }

    /// As [`Journal::resume`].
    ///
    /// # Errors
    /// As there.
    pub fn resume(&self, account: impl Into<AccountRef>, op: OpId) -> Result<Ticket, Error> {
        run(self.0.resume(account, op))
    }

    /// As [`Journal::settle`].
    ///
    /// # Errors
    /// As there.
    pub fn settle(&self, ticket: Ticket, outcome: Outcome) -> Result<Settled, SettleError> {
        run(self.0.settle(ticket, outcome))
    }

    /// As [`Journal::redeemed`].
    ///
    /// # Errors
    /// As there.
    pub fn redeemed(&self, tag: AccountTag) -> Result<Option<Redeemed>, Error> {
        run(self.0.redeemed(tag))
    }

    /// As [`Journal::current`].
    ///
    /// # Errors
    /// As there.
    pub fn current(&self, account: impl Into<AccountRef>) -> Result<Option<IssuedPair>, Error> {
        run(self.0.current(account))
    }

    /// As [`Journal::current_of`].
    ///
    /// # Errors
    /// As there.
    pub fn current_of(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<Option<IssuedPair>, Error> {
        run(self.0.current_of(account, grant))
    }

    /// As [`Journal::beside_of`].
    ///
    /// # Errors
    /// As there.
    pub fn beside_of(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<Vec<IssuedPair>, Error> {
        run(self.0.beside_of(account, grant))
    }

    /// As [`Journal::account`].
    ///
    /// # Errors
    /// As there.
    pub fn account(&self, account: impl Into<AccountRef>) -> Result<Option<AccountView>, Error> {
        run(self.0.account(account))
    }

    /// As [`Journal::history`].
    ///
    /// # Errors
    /// As there.
    pub fn history(&self, account: impl Into<AccountRef>) -> Result<History, Error> {
        run(self.0.history(account))
    }

    /// As [`Journal::adopt`].
    ///
    /// # Errors
    /// As there.
    pub fn adopt(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        holder: &Holder,
    ) -> Result<Lsn, Error> {
        run(self.0.adopt(account, grant, holder))
    }

    /// As [`Journal::adopt_for`].
    ///
    /// # Errors
    /// As there.
    pub fn adopt_for<S: Into<String>>(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        holder: &Holder,
        scopes: impl IntoIterator<Item = S>,
    ) -> Result<Lsn, Error> {
        run(self.0.adopt_for(account, grant, holder, scopes))
    }

    /// As [`Journal::import`].
    ///
    /// # Errors
    /// As there.
    pub fn import(&self, import: Import) -> Result<Imported, Error> {
        run(self.0.import(import))
    }

    /// As [`Journal::activate`].
    ///
    /// # Errors
    /// As there.
    pub fn activate(&self, account: impl Into<AccountRef>, grant: GrantId) -> Result<Lsn, Error> {
        run(self.0.activate(account, grant))
    }

    /// As [`Journal::release`].
    ///
    /// # Errors
    /// As there.
    pub fn release(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        holder: &Holder,
    ) -> Result<Lsn, Error> {
        run(self.0.release(account, grant, holder))
    }

    /// As [`Journal::supersede`].
    ///
    /// # Errors
    /// As there.
    pub fn supersede(
        &self,
        account: impl Into<AccountRef>,
        holder: &Holder,
        from: GrantId,
        to: GrantId,
    ) -> Result<Lsn, Error> {
        run(self.0.supersede(account, holder, from, to))
    }

    /// As [`Journal::worked`].
    ///
    /// # Errors
    /// As there.
    pub fn worked(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        generation: Generation,
    ) -> Result<Lsn, Error> {
        run(self.0.worked(account, grant, generation))
    }

    /// As [`Journal::told`].
    ///
    /// # Errors
    /// As there.
    pub fn told(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        generation: Generation,
        expires_at_ms: u64,
    ) -> Result<Lsn, Error> {
        run(self.0.told(account, grant, generation, expires_at_ms))
    }

    /// As [`Journal::end`].
    ///
    /// # Errors
    /// As there.
    pub fn end(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        cause: Cause,
        confidence: Confidence,
    ) -> Result<Lsn, Error> {
        run(self.0.end(account, grant, cause, confidence))
    }

    /// As [`Journal::revive`].
    ///
    /// # Errors
    /// As there.
    pub fn revive(&self, account: impl Into<AccountRef>, grant: GrantId) -> Result<Lsn, Error> {
        run(self.0.revive(account, grant))
    }

    /// As [`Journal::resolve`].
    ///
    /// # Errors
    /// As there.
    pub fn resolve(
        &self,
        account: impl Into<AccountRef>,
        op: OpId,
        how: ResolvedHow,
    ) -> Result<Lsn, Error> {
        run(self.0.resolve(account, op, how))
    }

    /// As [`Journal::forget`].
    ///
    /// # Errors
    /// As there.
    pub fn forget(&self, account: impl Into<AccountRef>) -> Result<Lsn, Error> {
        run(self.0.forget(account))
    }

    /// As [`Journal::identify`].
    ///
    /// # Errors
    /// As there.
    pub fn identify(
        &self,
        provisional: AccountTag,
        grant: GrantId,
        account: &Account,
    ) -> Result<Lsn, Error> {
        run(self.0.identify(provisional, grant, account))
    }

    /// As [`Journal::merge`].
    ///
    /// # Errors
    /// As there.
    pub fn merge(&self, from: AccountTag, to: &Account) -> Result<Lsn, Error> {
        run(self.0.merge(from, to))
    }

    /// As [`Journal::compact`].
    ///
    /// # Errors
    /// As there.
    pub fn compact(&self) -> Result<Compacted, Error> {
        run(self.0.compact())
    }

    /// As [`Journal::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close(self) -> Result<(), Error> {
        self.0.close_now()
    }

    /// Notes that this host has taken the store over.
    pub(super) fn claim(&self) -> Result<Lsn, Error> {
        let journal = &self.0;
        run(async {
            let engine = journal.engine();
            let (submission, ()) = super::append::retry_when_stale(engine, Room::Take, || {
                Ok((launch::claimed(engine), Box::new(Nothing) as _, Vec::new(), ()))
            })
            .await?;
            journal.durable(submission.durable).await?;
            Ok(submission.lsn)
        })
    }
}
