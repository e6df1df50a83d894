//! The ticket of an operation that was begun: proof that its intent is durable, and the room that is
//! promised to its outcome.

use super::IssuedPair;
use crate::engine::Engine;
use crate::format::value::Action;
use crate::ids::{AccountTag, App, Generation, GrantId, Holder, Lsn, OpId, User};
use std::fmt;
use std::sync::Weak;

/// An operation whose intent is durable; to be settled with what came of it.
///
/// Dropping it changes nothing on disk: the operation stays open, and is in doubt when the store is
/// opened next.
#[derive(Debug)]
pub struct Ticket {
    pub(crate) op: OpId,
    pub(crate) action: Action,
    pub(crate) account: AccountTag,
    pub(crate) grant: GrantId,
    pub(crate) generation: Generation,
    pub(crate) version: Lsn,
    pub(crate) app: Option<App>,
    pub(crate) user: Option<User>,
    pub(crate) holder: Option<Holder>,
    pub(crate) scopes: Vec<String>,
    /// An access token beside the grant's chain is asked for.
    pub(crate) beside: bool,
    pub(crate) current: Option<IssuedPair>,
    pub(crate) promise: Promise,
}

impl Ticket {
    /// Returns the operation.
    pub fn op(&self) -> OpId {
        self.op
    }

    /// Returns the tag of the account; a random one while the user is not known.
    pub fn account(&self) -> AccountTag {
        self.account
    }

    /// Returns the grant; none for an exchange, which makes one.
    pub fn grant(&self) -> Option<GrantId> {
        Some(self.grant).filter(|grant| !grant.is_none())
    }

    /// Returns the account's version, the LSN of its last record.
    pub fn version(&self) -> Lsn {
        self.version
    }

    /// Returns the fencing number: the LSN of the intent.
    pub fn fence(&self) -> Lsn {
        Lsn(self.op.0)
    }

    /// Returns the pair whose token is to be presented.
    pub fn current(&self) -> Option<&IssuedPair> {
        self.current.as_ref()
    }
}

/// Room on disk for one outcome; what was not used is given back.
pub(crate) struct Promise {
    /// Weak, since an outcome that its caller left behind stays with the engine for a while.
    pub(super) engine: Weak<Engine>,
    pub(super) bytes: u64,
}

impl Promise {
    /// Of a ledger that needs no room on a disk of ours.
    pub(crate) fn none() -> Self {
        Self { engine: Weak::new(), bytes: 0 }
    }

    /// Returns what was promised, if it was by this journal, in this opening of it.
    pub(super) fn by(&self, engine: &Engine) -> u64 {
        if std::ptr::eq(self.engine.as_ptr(), engine) { self.bytes } else { 0 }
    }
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Promise({} bytes)", self.bytes)
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.upgrade().filter(|_| self.bytes > 0) {
            engine.give_back(self.bytes);
        }
    }
}
