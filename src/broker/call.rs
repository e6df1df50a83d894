//! One call: its intent is durable, it is made in a task of its own, and its outcome is durable before
//! anybody hears of it.
//!
//! However a call's task ends, its ticket is settled: one that is dropped or panics on the way leaves
//! its operation in doubt.

use super::app::Desk;
use super::error::BrokerError;
use super::event::Event;
use super::upstream::{Call, Upstream};
use super::{Inner, Unsettled};
use crate::error::{Error, Remedy};
use crate::format::value::{Action, DoubtReason};
use crate::ids::{AccountTag, OpId};
use crate::journal::{Begin, IssuedPair, SettleError, Settled, Ticket};
use crate::ledger::Ledger;
use crate::outcome::{Doubt, ExpirySource, NotSent, Outcome, Refusal, RefusalClass};
use crate::sync::lock;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often an outcome is offered to a ledger that asks to try again.
const SETTLE_TRIES: u32 = 5;
/// How long to wait between.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

/// What a durable outcome came to, with what the provider said where it refused.
#[derive(Debug)]
pub(super) struct Came {
    pub(super) account: AccountTag,
    pub(super) op: OpId,
    pub(super) settled: Settled,
    pub(super) refusal: Option<Refusal>,
    pub(super) not_sent: Option<NotSent>,
}

impl Came {
    /// Says whether the provider calls the grant over.
    pub(super) fn is_dead(&self) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| refusal.class() == RefusalClass::Dead)
    }

    /// Says it to a caller for whom it came to nothing.
    pub(super) fn into_error(self) -> BrokerError {
        let Self { account, op, settled, refusal, not_sent } = self;
        match (settled, refusal) {
            (Settled::Refused, Some(refusal)) => {
                BrokerError::Refused { account, op, refusal: Box::new(refusal) }
            }
            (Settled::NotSent, _) => {
                let reason = not_sent.unwrap_or(NotSent::GivenUp);
                BrokerError::NotSent { account, op, reason }
            }
            _ => BrokerError::InDoubt { account, op, reason: None, why: None },
        }
    }
}

/// A ticket that will be settled, whatever happens.
struct Open<'a, L: Ledger> {
    ledger: &'a L,
    ticket: Option<Ticket>,
}

impl<L: Ledger> Drop for Open<'_, L> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let doubt = Outcome::InDoubt(Doubt::new(DoubtReason::Cancelled));
        // The outcome is taken by the call; nobody has to wait for it.
        drop(self.ledger.settle(ticket, doubt));
    }
}

impl<L: Ledger> Inner<L> {
    /// Begins, calls, settles. `make` gets what is to be presented.
    pub(super) async fn call(
        &self,
        desk: &Desk,
        action: Action,
        begin: Begin,
        make: impl for<'a> FnOnce(&'a dyn Upstream, Option<&'a IssuedPair>) -> Call<'a, Outcome> + Send,
    ) -> Result<Came, BrokerError> {
        self.call_when(desk, action, std::future::ready(Ok(begin)), make).await
    }

    /// As [`Inner::call`], with what is begun decided once the call's turn has come.
    pub(super) async fn call_when(
        &self,
        desk: &Desk,
        action: Action,
        begin: impl Future<Output = Result<Begin, BrokerError>> + Send,
        make: impl for<'a> FnOnce(&'a dyn Upstream, Option<&'a IssuedPair>) -> Call<'a, Outcome> + Send,
    ) -> Result<Came, BrokerError> {
        if lock(&self.failed).is_some() || self.tasks.is_closed() {
            return Err(BrokerError::Closed);
        }
        let not_now = |shut: super::gate::Shut| BrokerError::NotNow {
            app: desk.app().clone(),
            until_ms: shut.until_ms,
            asked: shut.asked,
        };
        let pass = desk.gate.pass(|| self.ledger.now_ms()).await.map_err(not_now)?;
        let begun = async { Ok(self.ledger.begin(begin.await?.deadline(self.deadline)).await?) };
        let ticket = match begun.await {
            Ok(ticket) => ticket,
            Err(error) => {
                pass.unused();
                return Err(error);
            }
        };
        let (account, op) = (ticket.account(), ticket.op());
        if action == Action::Revoke {
            // What goes is not found any longer by who looks for something to use again.
            self.shelf.drop(account);
        }
        lock(&self.begun).insert(op, Instant::now());
        let mut open = Open { ledger: &self.ledger, ticket: Some(ticket) };
        let presented = open.ticket.as_ref().and_then(Ticket::current);
        let begun = desk.meter.begun();
        let outcome = tokio::time::timeout(self.deadline, make(desk.upstream(), presented)).await;
        let outcome =
            outcome.unwrap_or_else(|_| Outcome::InDoubt(Doubt::new(DoubtReason::Timeout)));
        desk.meter.ended(&begun, action, &outcome);
        pass.done(&outcome, self.ledger.now_ms());
        desk.meter.circuit(desk.gate.is_open());
        let outcome = self.completed(desk, outcome);
        let (refusal, not_sent, reason) = match &outcome {
            Outcome::Refused(refusal) => (Some(refusal.clone()), None, None),
            Outcome::NotSent(reason) => (None, Some(*reason), None),
            Outcome::InDoubt(doubt) => (None, None, Some(doubt.reason())),
            _ => (None, None, None),
        };
        let settled = match open.ticket.take() {
            Some(ticket) => self.settle(account, op, ticket, outcome).await?,
            None => return Err(BrokerError::Closed),
        };
        match settled {
            Settled::InDoubt(_) => {
                self.bell.ring(Event::InDoubt { account, op, action, reason });
            }
            _ => drop(lock(&self.begun).remove(&op)),
        }
        Ok(Came { account, op, settled, refusal, not_sent })
    }

    /// Notes an assumed expiry where the provider says nothing of one.
    fn completed(&self, desk: &Desk, outcome: Outcome) -> Outcome {
        match (outcome, desk.assumed_lifetime()) {
            // What the app says goes before what the profile assumed for its provider.
            (Outcome::Issued(response), Some(lifetime))
                if response.expires_at_ms().is_none() || desk.config.assumed_lifetime.is_some() =>
            {
                let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
                let at_ms = self.ledger.now_ms().saturating_add(lifetime_ms);
                Outcome::Issued(response.with_expiry(at_ms, ExpirySource::Assumed))
            }
            (outcome, _) => outcome,
        }
    }

    /// Settles; an outcome that cannot be stored stops the broker, and is kept for its owner.
    async fn settle(
        &self,
        account: AccountTag,
        op: OpId,
        mut ticket: Ticket,
        mut outcome: Outcome,
    ) -> Result<Settled, BrokerError> {
        for tries in 1.. {
            let failed = match self.ledger.settle(ticket, outcome).await {
                Ok(receipt) if receipt.durability() >= self.durability => {
                    return Ok(receipt.into_settled());
                }
                Ok(_) => return Err(self.not_stored(account, op, Error::NotDurable, None)),
                Err(failed) => failed,
            };
            let SettleError { error, outcome: given_back, ticket: given_ticket } = failed;
            match (error.remedy(), given_back, given_ticket) {
                (Remedy::Retry, Some(back), Some(again)) if tries < SETTLE_TRIES => {
                    (ticket, outcome) = (*again, *back);
                    tokio::time::sleep(SETTLE_PAUSE).await;
                }
                (_, Some(outcome), Some(ticket)) => {
                    let left = Unsettled { account, op, ticket: *ticket, outcome: *outcome };
                    return Err(self.not_stored(account, op, error, Some(left)));
                }
                _ => return Err(self.not_stored(account, op, error, None)),
            }
        }
        Err(BrokerError::Closed)
    }

    fn not_stored(
        &self,
        account: AccountTag,
        op: OpId,
        error: Error,
        left: Option<Unsettled>,
    ) -> BrokerError {
        // A pair too large for the store is in doubt there, and is the only one that is.
        let stops = !matches!(error, Error::TooLarge { .. });
        let source = Arc::new(error);
        if stops {
            lock(&self.failed).get_or_insert_with(|| Arc::clone(&source));
        }
        lock(&self.unsettled).extend(left);
        tracing::error!(target: "tokenwal", %account, op = op.0, "an outcome could not be stored");
        self.bell.ring(Event::NotStored { account, op });
        BrokerError::NotStored { account, op, source }
    }
}
