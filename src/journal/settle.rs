//! Settles an operation: its outcome is durable before anybody sees a pair.

use super::append::{Attempt, attempt};
use super::draft::oversized;
use super::ticket::Ticket;
use super::{IssuedPair, Journal};
use crate::engine::files::RecordBytes;
use crate::engine::fill::Room;
use crate::engine::{Deferred, Engine, Submission};
use crate::error::Error;
use crate::ids::{AccountTag, GrantId, Lsn, OpId};
use crate::outcome::Outcome;
use std::pin::pin;
use std::sync::Arc;

/// What became of an operation, durably.
#[derive(Debug)]
#[non_exhaustive]
pub enum Settled {
    /// A pair was issued, and here it is.
    Issued(Box<IssuedPair>),
    /// A pair was issued to another user than the one who was expected; it is kept under the user
    /// who signed in.
    DifferentUser(Box<IssuedPair>),
    /// The provider refused.
    Refused,
    /// The request was never sent.
    NotSent,
    /// It is not known what the request did; the operation stays in doubt until it is resolved.
    InDoubt(OpId),
    /// The grant was revoked.
    Revoked,
    /// The provider answered a question.
    Answered,
}

/// An outcome that could not be stored here, given back for another store.
#[derive(Debug, thiserror::Error)]
#[error("the outcome could not be stored")]
pub struct SettleError {
    /// Why.
    #[source]
    pub error: Error,
    /// What came of the call; none only if it may have been stored after all.
    pub outcome: Option<Box<Outcome>>,
    /// The ticket, where the outcome is given back: to try again here.
    pub ticket: Option<Box<Ticket>>,
}

/// An outcome on its way into the journal. Dropped before it was submitted, it is handed to the
/// journal itself, so that a caller who goes away takes no pair with it.
#[derive(Debug)]
struct Settling {
    journal: Journal,
    job: Option<Job>,
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) ticket: Ticket,
    pub(super) outcome: Outcome,
    pub(super) adopt_within_ms: u64,
}

/// A job whose caller went away.
#[derive(Debug)]
struct Left(Option<Job>);

impl Deferred for Left {
    fn try_submit(&mut self, engine: &Engine) -> bool {
        let Some(mut job) = self.0.take() else { return true };
        match job.submit(engine) {
            Ok(Attempt::Full) => {
                self.0 = Some(job);
                false
            }
            Ok(Attempt::Taken(_, Submitted { too_large: None, .. })) => true,
            Ok(Attempt::Taken(..)) => {
                tracing::error!(
                    target: "tokenwal",
                    op = job.ticket.op.0,
                    "an outcome whose caller went away is too large; it is in doubt"
                );
                true
            }
            Err(error) => {
                tracing::error!(
                    target: "tokenwal",
                    op = job.ticket.op.0,
                    remedy = ?error.remedy(),
                    "an outcome whose caller went away could not be stored; it is in doubt"
                );
                true
            }
        }
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            self.journal.engine().adopt_outcome(Box::new(Left(Some(job))));
        }
    }
}

/// What was submitted: the pair's place, and whether another user signed in.
pub(super) struct Submitted {
    pub(super) kind: Kind,
    pub(super) account: AccountTag,
    pub(super) grant: GrantId,
    pub(super) different_user: bool,
    /// The pair was too large, and what stands for it is in doubt; this is what its caller hears
    /// once that is durable.
    pub(super) too_large: Option<Box<SettleError>>,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Issued,
    Refused,
    NotSent,
    InDoubt,
    Revoked,
    Answered,
}

impl Journal {
    /// Makes an outcome durable; only then is there a pair to see.
    ///
    /// The outcome is taken when this is called, not when the future is first polled. An outcome
    /// for an operation that is no longer open is kept as an orphan, never dropped.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let ticket = journal.begin(Begin::refresh(&account, pair.grant()))?;
    /// let Settled::Issued(next) = journal.settle(ticket, answer("00D!AR")?)? else {
    ///     return Err("refused".into());
    /// };
    /// assert_eq!(next.generation(), Generation(2));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SettleError`] gives the outcome back where it was surely not stored. A pair that is larger
    /// than [`outcome_bytes_max`](crate::Options::outcome_bytes_max) is [`Error::TooLarge`]: the
    /// operation is then in doubt, with as much of the pair sealed as fits.
    ///
    /// # Cancel safety
    /// Dropping the future drops nothing: the outcome is stored all the same.
    pub fn settle(
        &self,
        ticket: Ticket,
        outcome: Outcome,
    ) -> impl Future<Output = Result<Settled, SettleError>> + Send + use<> {
        let job = Job { ticket, outcome, adopt_within_ms: self.adopt_within_ms() };
        let mut settling = Settling { journal: self.clone(), job: Some(job) };
        let first = settling.try_once();
        async move {
            let journal = settling.journal.clone();
            let (submission, submitted) = match first {
                Some(result) => result?,
                None => settling.submit().await?,
            };
            let lost = |error| SettleError { error, outcome: None, ticket: None };
            let Submission { lsn, durable, pair } = submission;
            journal.durable(durable).await.map_err(lost)?;
            match submitted.too_large {
                Some(error) => Err(*error),
                None => journal.settled(lsn, pair, &submitted).map_err(lost),
            }
        }
    }

    /// Makes what the caller sees, from the durable record.
    fn settled(
        &self,
        lsn: Lsn,
        pair: Option<RecordBytes>,
        submitted: &Submitted,
    ) -> Result<Settled, Error> {
        Ok(match submitted.kind {
            Kind::Issued => {
                let Submitted { account, grant, different_user, .. } = *submitted;
                let grant = if grant.is_none() { GrantId(lsn.0) } else { grant };
                let engine = self.engine();
                let bytes = pair.ok_or(Error::Forged { lsn })?;
                let pair = IssuedPair::from_record(&engine.keychain, &bytes, account, grant)?;
                match different_user {
                    true => Settled::DifferentUser(Box::new(pair)),
                    false => Settled::Issued(Box::new(pair)),
                }
            }
            Kind::Refused => Settled::Refused,
            Kind::NotSent => Settled::NotSent,
            Kind::InDoubt => Settled::InDoubt(submitted.grant_as_op()),
            Kind::Revoked => Settled::Revoked,
            Kind::Answered => Settled::Answered,
        })
    }
}

impl Submitted {
    /// For what is in doubt the operation stands in the grant's place.
    fn grant_as_op(&self) -> OpId {
        OpId(self.grant.0)
    }
}

type Taken = Result<(Submission, Submitted), SettleError>;

impl Settling {
    /// Tries once; none where there is no space just now.
    fn try_once(&mut self) -> Option<Taken> {
        let engine = Arc::clone(self.journal.engine());
        let job = self.job.as_mut()?;
        match job.submit(&engine) {
            Ok(Attempt::Taken(submission, mut submitted)) => {
                let job = self.job.take();
                if let Some(error) = &mut submitted.too_large {
                    error.outcome = job.map(|job| Box::new(job.outcome));
                }
                Some(Ok((submission, submitted)))
            }
            Ok(Attempt::Full) => None,
            Err(error) => {
                let job = self.job.take();
                let given_back = job.map(|job| (Box::new(job.outcome), Box::new(job.ticket)));
                let (outcome, ticket) = given_back.unzip();
                Some(Err(SettleError { error, outcome, ticket }))
            }
        }
    }

    async fn submit(&mut self) -> Taken {
        let engine = Arc::clone(self.journal.engine());
        loop {
            let mut space = pin!(engine.space.notified());
            space.as_mut().enable();
            if let Some(taken) = self.try_once() {
                return taken;
            }
            engine.signal.raise();
            space.await;
        }
    }
}

impl Job {
    /// Notes that the promised room was used; what another opening promised is given back there.
    fn redeemed(&mut self, room: Room) {
        if let Room::Redeem(_) = room {
            self.ticket.promise.bytes = 0;
        }
    }

    /// Submits the outcome; what is too large is submitted as a doubt that keeps what fits.
    fn submit(&mut self, engine: &Engine) -> Result<Attempt<Submitted>, Error> {
        let room = match self.ticket.promise.by(engine) {
            0 => Room::Take,
            promise => Room::Redeem(promise),
        };
        let result = attempt(engine, room, || self.plan(engine, &self.outcome));
        let taken = match result {
            Err(Error::TooLarge { bytes, max }) => {
                let doubt = oversized(&self.outcome, max);
                let Some(doubt) = doubt else { return Err(Error::TooLarge { bytes, max }) };
                let mut stored = attempt(engine, room, || self.plan(engine, &doubt))?;
                if let Attempt::Taken(_, submitted) = &mut stored {
                    let error = Error::TooLarge { bytes, max };
                    let error = SettleError { error, outcome: None, ticket: None };
                    submitted.too_large = Some(Box::new(error));
                }
                stored
            }
            result => result?,
        };
        if let Attempt::Taken(..) = taken {
            self.redeemed(room);
        }
        Ok(taken)
    }
}
