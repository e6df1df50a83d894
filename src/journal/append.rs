//! Appends a record that depends on an account's state: drafted and sealed outside the lock, taken
//! in only if the state is still the one that it was drafted from.

use super::Journal;
use crate::codec::{Names, Nothing, Plain};
use crate::engine::accounts::Seen;
use crate::engine::fill::{Declined, Draft, Room};
use crate::engine::{Durable, Engine, Submission, block_on};
use crate::error::Error;
use crate::format::clear::Clear;
use crate::format::record::body_crc;
use crate::ids::{App, Holder, Lsn, User};
use crate::seal::SealError;
use std::pin::pin;
use std::sync::atomic::Ordering;

/// Names that a record seals.
#[derive(Debug, Clone, Default)]
pub(super) struct Owned {
    pub(super) app: Option<App>,
    pub(super) user: Option<User>,
    pub(super) holder: Option<Holder>,
    pub(super) scopes: Vec<String>,
}

impl Owned {
    pub(super) fn names(&self) -> Names<'_> {
        Names::of(
            self.app.as_ref(),
            self.user.as_ref(),
            self.holder.as_ref(),
            self.scopes.iter().map(String::as_str),
        )
    }
}

impl Plain for Owned {
    fn plain_bytes(&self) -> usize {
        self.names().plain_bytes()
    }

    fn write(&self, out: &mut [u8]) {
        self.names().write(out);
    }
}

/// What a record is drafted from: its clear part, what it seals, the states that it depends on, and
/// whatever else the caller worked out.
pub(super) type Planned<T> = (Clear, Box<dyn Plain + Send>, Vec<Seen>, T);

/// What came of an attempt to submit.
pub(super) enum Attempt<T> {
    Taken(Submission, T),
    /// There is no space just now.
    Full,
}

/// Drafts, seals and submits once; again at once if the state has changed meanwhile.
pub(super) fn attempt<T>(
    engine: &Engine,
    room: Room,
    mut plan: impl FnMut() -> Result<Planned<T>, Error>,
) -> Result<Attempt<T>, Error> {
    loop {
        // Asked before the work of sealing, lest callers who wait for room do it in vain.
        let submitted = engine.admits(room).map(|()| plan());
        let declined = match submitted {
            Ok(planned) => {
                let (clear, plain, seen, more) = planned?;
                let draft = draft(engine, clear, &*plain)?;
                match engine.submit(&draft, room, &seen) {
                    Ok(submission) => return Ok(Attempt::Taken(submission, more)),
                    Err(declined) => declined,
                }
            }
            Err(declined) => declined,
        };
        match declined {
            Declined::Stale => {}
            Declined::Full => return Ok(Attempt::Full),
            Declined::NoRoom => return Err(Error::NoRoom { needed: engine.limits.asked(room, 0) }),
            Declined::Poisoned(poison) => return Err(Error::Poisoned(poison)),
            Declined::Closed => return Err(Error::Closed),
        }
    }
}

/// As [`attempt`], and waits for space where there is none.
pub(super) async fn retry_when_stale<T>(
    engine: &Engine,
    room: Room,
    mut plan: impl FnMut() -> Result<Planned<T>, Error>,
) -> Result<(Submission, T), Error> {
    if let Attempt::Taken(submission, more) = attempt(engine, room, &mut plan)? {
        return Ok((submission, more));
    }
    loop {
        let mut space = pin!(engine.space.notified());
        space.as_mut().enable();
        // What came before this was listened for is not told again, so it is tried once more.
        if let Attempt::Taken(submission, more) = attempt(engine, room, &mut plan)? {
            return Ok((submission, more));
        }
        engine.counters.waits.fetch_add(1, Ordering::Relaxed);
        engine.signal.raise();
        engine.chores.raise();
        space.await;
    }
}

fn draft(engine: &Engine, clear: Clear, plain: &dyn Plain) -> Result<Draft, Error> {
    let (key_ordinal, sealer) = engine.key();
    let at_ms = engine.seams.clock.now_ms();
    let record =
        sealer.seal(&clear, at_ms, plain, &*engine.seams.entropy).map_err(|error| match error {
            SealError::Entropy(source) => {
                Error::io("sealing a record", "the random generator")(source)
            }
            _ => Error::TooLarge {
                bytes: plain.plain_bytes(),
                max: engine.limits.outcome_bytes_max as usize,
            },
        })?;
    if record.len() > engine.limits.outcome_bytes_max as usize {
        let max = engine.limits.outcome_bytes_max as usize;
        return Err(Error::TooLarge { bytes: record.len(), max });
    }
    Ok(Draft { clear, at_ms, body_crc: body_crc(&record), record, key_ordinal })
}

impl Journal {
    /// Appends a record and waits until it is durable.
    pub(super) async fn append(
        &self,
        mut plan: impl FnMut() -> Result<(Clear, Owned, Vec<Seen>), Error>,
    ) -> Result<Lsn, Error> {
        let (submission, ()) = retry_when_stale(self.engine(), Room::Take, || {
            let (clear, owned, seen) = plan()?;
            let seals_names = matches!(
                clear,
                Clear::Adopted(_) | Clear::Superseded(_) | Clear::Identified(_) | Clear::Merged(_)
            );
            let plain: Box<dyn Plain + Send> =
                if seals_names { Box::new(owned) } else { Box::new(Nothing) };
            Ok((clear, plain, seen, ()))
        })
        .await?;
        self.durable(submission.durable).await?;
        Ok(submission.lsn)
    }

    /// Waits until a batch is durable; a blocking caller writes it itself if nobody else does.
    pub(super) async fn durable(&self, durable: Durable) -> Result<(), Error> {
        let durable = if self.inline { self.write_inline(durable) } else { durable };
        durable.await.map_err(Error::Poisoned)
    }

    fn write_inline(&self, durable: Durable) -> Durable {
        while !durable.is_known() {
            match self.engine().try_step_commit() {
                // Somebody else writes, or has written: they tell us.
                Ok(false) => {
                    self.engine().signal.raise();
                    break;
                }
                Ok(true) => {}
                Err(_) => break,
            }
        }
        durable
    }
}

/// Runs a future to its end on this thread.
pub(super) fn run<F: Future>(future: F) -> F::Output {
    block_on(future)
}
