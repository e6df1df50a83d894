//! The journal's one error: where it happened, what is at stake, what to do next.
//!
//! No variant carries a token, a response's body or another error's text; sources are chained.

mod remedy;

pub use remedy::Remedy;

use crate::disk::Refusal;
use crate::ids::{AccountTag, GrantId, Lsn, NameError, OpId};
use crate::keys::KeyError;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Says why the journal could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no store at this place.
    #[error("{dir}: there is no store here")]
    Missing {
        /// The directory.
        dir: String,
    },
    /// There is a store already where one was to be created.
    #[error("{dir}: there is a store here already; nothing was changed")]
    Exists {
        /// The directory.
        dir: String,
    },
    /// The directory or a file in it is not safe to use.
    #[error("{dir}: the store was refused before anything was read")]
    Refused {
        /// The directory.
        dir: String,
        /// What is wrong with it.
        #[source]
        source: Refusal,
    },
    /// Another process has the store open for writing.
    #[error("{dir}: another process{} owns the store", Owner(*pid))]
    Locked {
        /// The directory.
        dir: String,
        /// The owner's process id, as it wrote it itself.
        pid: Option<u32>,
    },
    /// The store was last opened on another machine.
    #[error(
        "{dir}: the store was last written on another host; opened here it could present spent \
         tokens and kill grants that are alive"
    )]
    ForeignHost {
        /// The directory.
        dir: String,
    },
    /// The system refused a read or a write.
    #[error("{file}: {doing} failed; nothing was acknowledged")]
    Io {
        /// The file or directory.
        file: String,
        /// What was being done.
        doing: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Bytes that were durable once are wrong now.
    #[error("{0}")]
    Corrupt(Box<Damage>),
    /// Bytes that no crash explains stand behind the end of the journal.
    #[error("{0}")]
    Suspect(Box<Damage>),
    /// A file is of a later format than this library knows.
    #[error(
        "{file}: written in format {version}, this library knows format 1; nothing was changed"
    )]
    NewerFormat {
        /// The file.
        file: String,
        /// Its version.
        version: u32,
    },
    /// The keys could not be had.
    #[error("the keys of the store could not be read; nothing was opened")]
    Key(#[from] KeyError),
    /// None of the keys given opens the store.
    #[error("{file}: sealed under key {kek_id:016x}, which is not among the keys given")]
    WrongKey {
        /// The file.
        file: String,
        /// Which key it asks for.
        kek_id: u64,
    },
    /// A sealed part does not open under the right key: it was changed.
    #[error("record {lsn}: its sealed part fails authentication")]
    Forged {
        /// Which record.
        lsn: Lsn,
    },
    /// The journal ends before a point that the caller knows to have been durable.
    #[error("{dir}: the journal ends at LSN {found}, before the expected head {expected}")]
    BehindHead {
        /// The directory.
        dir: String,
        /// What the caller knows.
        expected: Lsn,
        /// What is there.
        found: Lsn,
    },
    /// The past is kept only from the newest snapshot on, and there is no future yet.
    #[error("LSN {asked} is outside of what is kept, from {from} to {to}")]
    NotKept {
        /// What was asked for.
        asked: Lsn,
        /// The LSN of the newest snapshot, or 1.
        from: Lsn,
        /// The last LSN.
        to: Lsn,
    },
    /// The pair is at the unproven end of a journal that nobody has recovered.
    #[error("record {lsn}: nothing proves yet that it is durable, so its pair is not shown")]
    Unproven {
        /// Which record.
        lsn: Lsn,
    },
    /// A new store was to be written where something is already.
    #[error("{dir}: the directory is not empty; nothing was changed")]
    NotEmpty {
        /// The directory.
        dir: String,
    },
    /// There is no room for what the operation may have to store, since no segment can be prepared:
    /// the disk is full, or the process has too many files open. Nothing was begun.
    #[error("no room for {needed} bytes, so the operation was not begun; nothing was sent")]
    NoRoom {
        /// What would have to be reserved.
        needed: u64,
    },
    /// A write or sync failed; what was not acknowledged is indeterminate.
    #[error("{0}")]
    Poisoned(Arc<Poison>),
    /// A compaction gave up; the journal goes on without it, and nothing was retired.
    #[error("the compaction gave up; nothing was retired and nothing is lost")]
    Compaction(#[source] Arc<Error>),
    /// The journal was closed.
    #[error("the journal was closed")]
    Closed,
    /// A name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The account or grant is not in the store.
    #[error("account {account}: grant {grant} is not in the store")]
    UnknownGrant {
        /// The account.
        account: AccountTag,
        /// The grant.
        grant: GrantId,
    },
    /// The grant has ended, so that nothing can be asked of it.
    #[error("account {account}: grant {grant} has ended")]
    GrantEnded {
        /// The account.
        account: AccountTag,
        /// The grant.
        grant: GrantId,
    },
    /// The grant was imported and is paused: whoever refreshed it before may still do so.
    #[error("account {account}: grant {grant} is paused until it is activated")]
    Paused {
        /// The account.
        account: AccountTag,
        /// The grant.
        grant: GrantId,
    },
    /// Another operation on the same grant is open.
    #[error("account {account}: operation {op} on the same grant is open")]
    Busy {
        /// The account.
        account: AccountTag,
        /// The operation.
        op: OpId,
    },
    /// The operation is not open.
    #[error("account {account}: operation {op} is not open")]
    UnknownOperation {
        /// The account.
        account: AccountTag,
        /// The operation.
        op: OpId,
    },
    /// The account changed since the caller looked.
    #[error("account {account}: at version {found}, not {expected}")]
    Conflict {
        /// The account.
        account: AccountTag,
        /// What the caller had seen.
        expected: Lsn,
        /// What is there.
        found: Lsn,
    },
    /// The account still has grants that live or operations that are open.
    #[error("account {account}: {live} grants live and {open} operations are open")]
    StillLive {
        /// The account.
        account: AccountTag,
        /// Grants that have not ended.
        live: usize,
        /// Operations without a final outcome.
        open: usize,
    },
    /// An exchange was begun under this tag before, or for this code under another one: a code is
    /// presented once, or the provider may revoke what it issued for it.
    #[error("account {account}: an exchange was begun under this tag before; nothing was sent")]
    CallbackUsed {
        /// The tag that it was begun under.
        account: AccountTag,
    },
    /// The tag was drawn before what the journal still knows of, so that an exchange may have been
    /// begun under it.
    #[error("the callback's tag was drawn at LSN {since}, and used ones are known from {from} on")]
    CallbackTooOld {
        /// The journal's head when the tag was drawn.
        since: Lsn,
        /// From where on it is known which tags were used.
        from: Lsn,
    },
    /// One more grant would be one too many for the provider, which might end an older one.
    #[error("account {account}: {live} live already, of {limit} that the provider lets live")]
    CapReached {
        /// The account.
        account: AccountTag,
        /// Grants that have not ended, exchanges without a final outcome, and what is outside.
        live: u32,
        /// How many may live.
        limit: u32,
    },
    /// What is to be presented is not what the operation presented.
    #[error("account {account}: operation {op} presented another code, or is not known to have")]
    OtherToken {
        /// The account.
        account: AccountTag,
        /// The operation.
        op: OpId,
    },
    /// A record is larger than the store takes.
    #[error("a record of {bytes} bytes, more than the {max} that were reserved")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// An outcome is not as safe as its caller needs it to be.
    #[error("the outcome is stored, and not on as many machines as was asked for")]
    NotDurable,
    /// An option has a value that cannot work.
    #[error("option {option}: {problem}")]
    Option {
        /// Which one.
        option: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
}

struct Owner(Option<u32>);

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |pid| write!(f, " (pid {pid})"))
    }
}

impl Error {
    pub(crate) fn io(
        doing: &'static str,
        file: impl Into<String>,
    ) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |source| Self::Io { file, doing, source }
    }
}

/// What was found to be wrong on disk, and what is at stake.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// The first LSN that is at stake, or 0 when that is not known.
    pub lsn: Lsn,
    /// Which rule is broken.
    pub what: &'static str,
    /// Tags of accounts named by records that can be read behind the damage, at most 64.
    pub accounts: Vec<AccountTag>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: at offset {}: {}", self.file, self.offset, self.what)?;
        if !self.lsn.is_none() {
            write!(f, "; records from LSN {} on are at stake", self.lsn)?;
        }
        if !self.accounts.is_empty() {
            f.write_str("; accounts")?;
            for account in &self.accounts {
                write!(f, " {account}")?;
            }
        }
        f.write_str("; nothing was changed")
    }
}

/// Why the journal takes no more writes.
#[derive(Debug)]
pub struct Poison {
    /// The file.
    pub file: String,
    /// What was being done.
    pub doing: &'static str,
    /// The system's error.
    pub kind: io::ErrorKind,
    /// The system's error number, if there is one.
    pub errno: Option<i32>,
}

impl fmt::Display for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} failed ({}", self.file, self.doing, self.kind)?;
        if let Some(errno) = self.errno {
            write!(f, ", errno {errno}")?;
        }
        f.write_str(
            "); the journal takes no more writes, and what was not acknowledged is indeterminate",
        )
    }
}
