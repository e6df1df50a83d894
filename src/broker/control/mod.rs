//! Orders of an operator to the process that has a store open, over a socket in the store's
//! directory.
//!
//! The socket is there for as long as the broker is, is open to the same user alone, and takes one
//! order on each connection: one line of JSON, of bounded length and within bounded time, and one
//! line in answer. An order that came whole is carried out, whether or not anybody waits for the
//! answer. Nothing that it answers is a secret.

mod server;
mod wire;

pub(super) use server::Listening;

use super::Broker;
use super::error::BrokerError;
use super::resolve::Choice;
use crate::disk::socket::{Socket, connect};
use crate::disk::{Disk as _, RealDisk};
use crate::error::Error;
use crate::format::name::CONTROL;
use crate::ids::{AccountTag, GrantId, OpId};
use crate::journal::open::pid_of;
use crate::ledger::{Ledger, Line, LineError};
use crate::secret::Secret;
use serde::Serialize;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixListener;
use wire::{Answer, Wire};

/// The longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// How long an order may take to come, and its answer to leave.
const LINE_TIME: Duration = Duration::from_secs(10);
/// How long is waited for an answer: a call to a provider and a compaction take their time.
const ANSWER_TIME: Duration = Duration::from_secs(600);

/// What an operator asks for.
#[derive(Debug)]
#[non_exhaustive]
pub enum Order {
    /// Decide about an operation in doubt.
    Resolve {
        /// Its account.
        account: AccountTag,
        /// The operation.
        op: OpId,
        /// What is decided.
        choice: Choice,
    },
    /// Revoke a grant at its provider.
    Revoke {
        /// Its account.
        account: AccountTag,
        /// The grant.
        grant: GrantId,
        /// Even if somebody depends on it, or others go with it.
        force: bool,
    },
    /// Let an imported grant, or one of a claimed copy, be refreshed here.
    Activate {
        /// Its account.
        account: AccountTag,
        /// The grant.
        grant: GrantId,
    },
    /// Import a line; see [`Line`].
    Import {
        /// The line.
        line: Secret,
    },
    /// Drop what need not be kept.
    Compact,
    /// Take the store over from another host, which who has it open has done already.
    Claim,
}

/// What was done, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Done {
    /// The last durable LSN.
    pub head: u64,
    /// The account, if it was about one.
    pub account: Option<AccountTag>,
    /// The grant, if it was about one.
    pub grant: Option<GrantId>,
    /// An import found its token there.
    pub already: bool,
    /// That grant has ended.
    pub ended: bool,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// The broker could not do it.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The line to import is wrong.
    #[error(transparent)]
    Line(#[from] LineError),
}

impl OrderError {
    /// Says in one sentence what to do next.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Broker(error) => error.advice(),
            Self::Line(_) => "correct that member, and import the line again",
        }
    }
}

/// Why an order could not be given, or was not carried out by who got it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Nobody takes orders there.
    #[error("{dir}: nobody takes orders on the store's control socket")]
    Nobody {
        /// The store.
        dir: String,
    },
    /// This process does not have the store open, or something else bears the socket's name.
    #[error("{dir}: no control socket can be made there: {problem}")]
    NotHere {
        /// The store.
        dir: String,
        /// Why.
        problem: &'static str,
    },
    /// The system refused.
    #[error("{dir}: the control socket cannot be used")]
    Io {
        /// The store.
        dir: String,
        /// What the system answered.
        source: io::Error,
    },
    /// The answer did not come whole; what was ordered may have been done.
    #[error("{dir}: the answer to the order was lost, and it may have been carried out")]
    Lost {
        /// The store.
        dir: String,
    },
    /// The order was not carried out.
    #[error("{error}")]
    Refused {
        /// Why, as whoever got the order says.
        error: String,
        /// What to do next.
        advice: String,
    },
}

/// Gives an order to the process that has the store in `dir` open, and waits for it to be carried
/// out.
///
/// # Errors
/// [`ControlError`].
pub fn give(dir: impl AsRef<Path>, order: &Order) -> Result<Done, ControlError> {
    let dir = dir.as_ref();
    let named = || dir.display().to_string();
    let failed = |source| ControlError::Io { dir: named(), source };
    let disk = RealDisk::open(dir).map_err(failed)?;
    let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    let mut stream =
        connect(&disk, CONTROL).map_err(|error| match nobody.contains(&error.kind()) {
            true => ControlError::Nobody { dir: named() },
            false => failed(error),
        })?;
    let times = stream.set_write_timeout(Some(LINE_TIME));
    times.and_then(|()| stream.set_read_timeout(Some(ANSWER_TIME))).map_err(failed)?;
    let lost = |_| ControlError::Lost { dir: named() };
    stream.write_all(&Wire::of(order).line()).map_err(lost)?;
    let mut answer = Vec::new();
    let mut reader = io::BufReader::new(stream.take(ANSWER_BYTES_MAX));
    reader.read_until(b'\n', &mut answer).map_err(lost)?;
    let answer: Answer = serde_json::from_slice(&answer).map_err(|error| lost(error.into()))?;
    answer.read().ok_or_else(|| ControlError::Lost { dir: named() })?
}

impl<L: Ledger> Broker<L> {
    /// Takes orders for the store in `dir`, which this process has open, until the broker is shut
    /// down or dropped: so the command `tokenwal` can resolve, revoke, activate, import and compact
    /// beside it. To be called on a tokio runtime with I/O.
    ///
    /// # Errors
    /// [`ControlError::NotHere`] where this process does not have that store open,
    /// [`ControlError::Io`].
    pub fn serve_control(&self, dir: impl AsRef<Path>) -> Result<(), ControlError> {
        let dir = dir.as_ref();
        let named = || dir.display().to_string();
        let failed = |source| ControlError::Io { dir: named(), source };
        let disk = RealDisk::open(dir).map_err(failed)?;
        // What an earlier owner left is replaced by who has the lock, and by nobody else.
        let note = disk.lock_note().map_err(failed)?;
        let ours = pid_of(&note) == Some(std::process::id()) && disk.is_locked().map_err(failed)?;
        if !ours {
            let problem = "this process does not have the store open";
            return Err(ControlError::NotHere { dir: named(), problem });
        }
        let (socket, listener) =
            Socket::listen(disk, CONTROL).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    ControlError::NotHere { dir: named(), problem: "something else has that name" }
                }
                _ => failed(error),
            })?;
        listener.set_nonblocking(true).map_err(failed)?;
        // Whoever calls this, it goes on as long as the broker's own runtime does.
        let _on = self.0.tasks.enter();
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        self.0.control.start(self.0.me.clone(), socket, listener);
        Ok(())
    }

    /// Carries an order out.
    ///
    /// # Errors
    /// [`OrderError`]; [`BrokerError::Choice`] for a grant that somebody depends on, unless it is
    /// forced.
    ///
    /// # Cancel safety
    /// Dropping the future stops no call; a change may or may not become durable.
    pub async fn carry_out(&self, order: Order) -> Result<Done, OrderError> {
        let mut done = Done { head: 0, account: None, grant: None, already: false, ended: false };
        match order {
            Order::Resolve { account, op, choice } => {
                self.resolve(account, op, choice).await?;
                done.account = Some(account);
            }
            Order::Revoke { account, grant, force } => {
                match force {
                    true => self.revoke_all(account, grant).await?,
                    false => self.revoke_unheld(account, grant).await?,
                }
                (done.account, done.grant) = (Some(account), Some(grant));
            }
            Order::Activate { account, grant } => {
                self.activate(account, grant).await?;
                (done.account, done.grant) = (Some(account), Some(grant));
            }
            Order::Import { line } => {
                let import = Line::parse(line.reveal(), self.0.ledger.now_ms())?;
                let imported = self.import(import).await?;
                (done.account, done.grant) = (Some(imported.account), Some(imported.grant));
                (done.already, done.ended) = (imported.already, imported.ended);
            }
            Order::Compact => {
                let pruned = self.0.ledger.prune().await;
                pruned.map_err(BrokerError::from)?;
            }
            // Whoever has the store open has it for this host.
            Order::Claim => done.already = true,
        }
        done.head = self.0.ledger.head().0;
        Ok(done)
    }
}

impl From<Error> for OrderError {
    fn from(error: Error) -> Self {
        Self::Broker(error.into())
    }
}
