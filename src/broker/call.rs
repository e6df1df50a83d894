//! One call: its intent is durable, it is made in a task of its own, and its outcome is durable before
//! anybody hears of it.
//!
//! However a call's task ends, its ticket is settled: one that is dropped or panics on the way leaves
//! its operation in doubt.

use super::app::Desk;
use super::error::BrokerError;
use super::event::Event;
use super::gate::Whom;
use super::upstream::{Call, Upstream};
use super::{Inner, Unsettled};
use crate::error::{Error, Remedy};
use crate::format::value::{Action, DoubtReason};
use crate::ids::{Account, AccountTag, GrantId, OpId};
use crate::journal::{Begin, IssuedPair, SettleError, Settled, Target, Ticket};
use crate::ledger::Ledger;
use crate::outcome::{Doubt, ExpirySource, NotSent, Outcome, Refusal, RefusalClass};
use crate::sync::lock;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How often an outcome is offered to a ledger that asks to try again.
const SETTLE_TRIES: u32 = 5;
/// Outcomes that are too large for the store are kept for their owner up to so many.
const UNSETTLED_MAX: usize = 1024;
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
    pub(super) doubt: Option<DoubtReason>,
}

impl Came {
    /// Says whether the provider calls the grant over.
    pub(super) fn is_dead(&self) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| refusal.class() == RefusalClass::Dead)
    }

    /// Says it to a caller for whom it came to nothing.
    pub(super) fn into_error(self) -> BrokerError {
        let Self { account, op, settled, refusal, not_sent, doubt } = self;
        match (settled, refusal) {
            (Settled::Refused, Some(refusal)) => {
                BrokerError::Refused { account, op, refusal: Box::new(refusal) }
            }
            (Settled::NotSent, _) => {
                let reason = not_sent.unwrap_or(NotSent::GivenUp);
                BrokerError::NotSent { account, op, reason }
            }
            _ => BrokerError::InDoubt { account, op, reason: doubt, why: None },
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
        let whom = self.whom_of(&begin).await;
        self.call_when(desk, action, whom, std::future::ready(Ok(begin)), make).await
    }

    /// As [`Inner::call`], with what is begun decided once the call's turn has come.
    pub(super) async fn call_when(
        &self,
        desk: &Desk,
        action: Action,
        whom: Whom,
        begin: impl Future<Output = Result<Begin, BrokerError>> + Send,
        make: impl for<'a> FnOnce(&'a dyn Upstream, Option<&'a IssuedPair>) -> Call<'a, Outcome> + Send,
    ) -> Result<Came, BrokerError> {
        self.is_at_work()?;
        let pass = desk.gate.pass(whom).await;
        let pass = pass.map_err(|shut| self.not_now(desk, shut.wait, shut.asked))?;
        // Who waited for a place may have waited for longer than the broker takes calls.
        self.is_at_work()?;
        // What is refused here is no call, and nothing is counted of it.
        let ticket = self.ledger.begin(begin.await?.deadline(self.deadline)).await?;
        let (account, op) = (ticket.account(), ticket.op());
        if action == Action::Revoke {
            // What goes is not found any longer by who looks for something to use again.
            self.shelf.drop(account);
        }
        self.note_begun(op);
        let mut open = Open { ledger: &self.ledger, ticket: Some(ticket) };
        let presented = open.ticket.as_ref().and_then(Ticket::current);
        let begun = desk.meter.begun();
        let outcome = tokio::time::timeout(
            self.deadline,
            caught(async { make(desk.upstream(), presented).await }),
        );
        let outcome = outcome.await;
        let outcome =
            outcome.unwrap_or_else(|_| Outcome::InDoubt(Doubt::new(DoubtReason::Timeout)));
        desk.meter.ended(&begun, action, &outcome);
        pass.done(&outcome);
        desk.meter.circuit(desk.gate.is_open());
        let outcome = self.completed(desk, outcome);
        let (refusal, not_sent, doubt) = match &outcome {
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
                self.bell.ring(Event::InDoubt { account, op, action, reason: doubt });
            }
            _ => drop(lock(&self.begun).remove(&op)),
        }
        Ok(Came { account, op, settled, refusal, not_sent, doubt })
    }

    /// Says whether calls are still begun.
    fn is_at_work(&self) -> Result<(), BrokerError> {
        match lock(&self.failed).is_some() || self.tasks.is_closed() {
            true => Err(BrokerError::Closed),
            false => Ok(()),
        }
    }

    pub(super) fn not_now(&self, desk: &Desk, wait: Duration, asked: bool) -> BrokerError {
        // Not sooner: at that time a call is made.
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let until_ms = self.ledger.now_ms().saturating_add(wait_ms);
        BrokerError::NotNow { app: desk.app().clone(), until_ms, asked }
    }

    async fn whom_of(&self, begin: &Begin) -> Whom {
        let nobody = AccountTag::from_bytes([0; 16]);
        let (account, grant) = match &begin.target {
            Target::Grant { account, grant } => (self.ledger.tag_of(account), *grant),
            Target::Standing { account } => (self.ledger.tag_of(&account.into()), GrantId::NONE),
            Target::Doubtful { account, .. } => (self.ledger.tag_of(account), GrantId::NONE),
            Target::New { app, user } => {
                let account = user.as_ref().map(|user| Account::new(app.clone(), user.clone()));
                let known = account.map(|account| self.ledger.tag_of(&(&account).into()));
                let under = begin.under.map(|(tag, _)| tag);
                (known.or(under).unwrap_or(nobody), GrantId::NONE)
            }
        };
        self.whom(account, grant).await
    }

    /// Says whom a call is about, and which host it goes to: that of its grant's token endpoint.
    pub(super) async fn whom(&self, account: AccountTag, grant: GrantId) -> Whom {
        // What cannot be read the ledger refuses, a step further on.
        if grant != GrantId::NONE
            && let Ok(ready) = self.ready(account).await
            && let Some(ready) = ready.grants.iter().find(|ready| ready.grant() == grant)
        {
            return Whom::of(&ready.pair);
        }
        Whom { account, host: String::new() }
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
        let mut unsettled = lock(&self.unsettled);
        // Only what is too large can be so many: of all else the first one stops the broker.
        if stops || unsettled.len() < UNSETTLED_MAX {
            unsettled.extend(left);
        }
        drop(unsettled);
        tracing::error!(target: "tokenwal", %account, op = op.0, "an outcome could not be stored");
        self.bell.ring(Event::NotStored { account, op });
        BrokerError::NotStored { account, op, source }
    }
}

/// Waits for a call. A panic in one is an answer that never came: what the request did is in doubt, and
/// whoever waits is told so.
async fn caught(call: impl Future<Output = Outcome> + Send) -> Outcome {
    let mut call = pin!(call);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context)));
        polled.unwrap_or_else(|_| {
            tracing::error!(target: "tokenwal", "a call to a provider panicked");
            Poll::Ready(Outcome::InDoubt(Doubt::new(DoubtReason::Cancelled)))
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_panics_is_in_doubt() {
        let outcome = caught(async { panic!("a bug") }).await;
        let Outcome::InDoubt(doubt) = outcome else { panic!("{outcome:?}") };
        assert_eq!(doubt.reason(), DoubtReason::Cancelled);
        assert!(matches!(caught(async { Outcome::Revoked }).await, Outcome::Revoked));
    }
}
