//! Takes up an operation that has no outcome yet, for one that comes from elsewhere.

use super::pair::{app_of, holder_of, user_of};
use super::ticket::{Promise, Ticket};
use super::{AccountRef, Journal};
use crate::codec::Names;
use crate::engine::files::parse;
use crate::error::Error;
use crate::format::clear::Clear;
use crate::ids::{Lsn, OpId};
use std::sync::Arc;

impl Journal {
    /// Gives a ticket for an operation that is open or in doubt: for an outcome that was kept
    /// elsewhere, or that came late.
    ///
    /// No room is promised to it. An operation may have two tickets then: whichever outcome comes
    /// second is kept as what is not known here is.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let op = journal.begin(Begin::refresh(&account, pair.grant()))?.op();
    /// // The process that called is gone, and what it heard was kept.
    /// let ticket = journal.resume(&account, op)?;
    /// let settled = journal.settle(ticket, answer("00D!AR")?)?;
    /// assert!(matches!(settled, Settled::Issued(_)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownOperation`] once it has its outcome, and what keeps it from being read.
    pub async fn resume(&self, account: impl Into<AccountRef>, op: OpId) -> Result<Ticket, Error> {
        let engine = self.engine();
        let account = account.into().tag(engine);
        let unknown = || Error::UnknownOperation { account, op };
        engine.with_state(account, |state| {
            let operation = state.operation(op).ok_or_else(unknown)?;
            let bytes = engine.record_of(account, &state.homes(), Lsn(op.0))?;
            let record = parse(&bytes)?;
            let forged = || Error::Forged { lsn: record.lsn() };
            let Clear::Intent(intent) = record.clear else { return Err(forged()) };
            let plain = engine.keychain.unseal(&record)?;
            let names = Names::decode(&plain).map_err(|_| forged())?;
            let grant = state.grant(operation.grant);
            let current = grant.map(|grant| self.read_pair(account, grant, grant.issued));
            Ok(Ticket {
                op,
                action: intent.action,
                account,
                grant: operation.grant,
                generation: operation.generation,
                version: state.version,
                app: app_of(&names),
                user: user_of(&names),
                holder: holder_of(&names),
                scopes: names.scopes.0.iter().map(|scope| (*scope).to_owned()).collect(),
                beside: operation.beside,
                current: current.transpose()?,
                promise: Promise { engine: Arc::downgrade(engine), bytes: 0 },
            })
        })
    }
}
