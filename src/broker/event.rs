//! What happens in a broker, for the service to act on.

use super::doubt::Why;
use super::metrics::Meter;
use crate::format::value::{Action, Cause, Confidence, DoubtReason, RefusalClass, ResolvedHow};
use crate::ids::{AccountTag, Generation, GrantId, Holder, OpId};
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::broadcast::{self, error::RecvError};

/// How many events wait for a slow listener before the oldest are dropped.
const EVENTS_KEPT: usize = 4096;

/// One thing that happened, durably. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A user approved, and the pair is durable.
    Issued {
        /// The account; provisional while the user is not known.
        account: AccountTag,
        /// The grant.
        grant: GrantId,
        /// Its generation: more than 1 where the provider gave a known refresh token again.
        generation: Generation,
    },
    /// A pair was refreshed or minted.
    Refreshed {
        /// The account.
        account: AccountTag,
        /// The grant.
        grant: GrantId,
        /// Its new generation.
        generation: Generation,
    },
    /// Another user signed in than the one who was expected; the pair is kept under that user.
    DifferentUser {
        /// The account of the user who signed in.
        account: AccountTag,
        /// The grant.
        grant: GrantId,
    },
    /// The user behind a provisional account became known.
    Identified {
        /// The provisional account.
        from: AccountTag,
        /// The user's own.
        account: AccountTag,
        /// The grant.
        grant: GrantId,
    },
    /// The provider refuses a grant without saying that it is over.
    Suspended {
        /// The account.
        account: AccountTag,
        /// The grant.
        grant: GrantId,
        /// What kind of refusal.
        class: RefusalClass,
    },
    /// A grant is over.
    Ended {
        /// The account.
        account: AccountTag,
        /// The grant.
        grant: GrantId,
        /// Why.
        cause: Cause,
        /// How sure that is.
        confidence: Confidence,
    },
    /// It is not known what a request did.
    InDoubt {
        /// The account.
        account: AccountTag,
        /// The operation.
        op: OpId,
        /// What was asked.
        action: Action,
        /// Why; none where the process that asked has said nothing.
        reason: Option<DoubtReason>,
    },
    /// An operation in doubt waits for a person.
    Ask {
        /// The account.
        account: AccountTag,
        /// The operation.
        op: OpId,
        /// Why nothing was done.
        why: Why,
    },
    /// An operation is in doubt no longer.
    Resolved {
        /// The account.
        account: AccountTag,
        /// The operation.
        op: OpId,
        /// How.
        how: ResolvedHow,
    },
    /// No further grant fits, and none may be revoked without asking.
    NearCap {
        /// The account.
        account: AccountTag,
        /// How many count.
        live: u32,
        /// The limit that is guarded.
        limit: u32,
        /// The grant that the provider would end next.
        victim: GrantId,
        /// Who depends on it.
        #[serde(skip)]
        holders: Vec<Holder>,
    },
    /// More grants live than the cap allows: the provider has probably ended the oldest.
    OverCap {
        /// The account.
        account: AccountTag,
        /// How many count.
        live: u32,
        /// The provider's cap.
        cap: u32,
        /// The grant that it has probably ended.
        victim: GrantId,
    },
    /// A holder moved to a newer grant.
    Superseded {
        /// The account.
        account: AccountTag,
        /// The grant that it left.
        from: GrantId,
        /// The grant that it depends on now.
        to: GrantId,
    },
    /// An outcome could not be stored. The broker issues nothing more.
    NotStored {
        /// The account.
        account: AccountTag,
        /// The operation.
        op: OpId,
    },
    /// The listener was too slow, and so many events are gone.
    Missed {
        /// How many.
        events: u64,
    },
}

/// Sends events to whoever listens.
#[derive(Debug)]
pub(super) struct Bell {
    listeners: broadcast::Sender<Event>,
    meter: Arc<Meter>,
}

impl Bell {
    pub(super) fn new(meter: Arc<Meter>) -> Self {
        Self { listeners: broadcast::Sender::new(EVENTS_KEPT), meter }
    }

    pub(super) fn ring(&self, event: Event) {
        tracing::debug!(target: "tokenwal", ?event, "event");
        self.meter.rang(&event);
        // Nobody has to listen.
        let _ = self.listeners.send(event);
    }

    pub(super) fn listen(&self) -> Events {
        Events(self.listeners.subscribe())
    }
}

/// A stream of events, from when it was made on.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    /// Waits for the next event; none when the broker is gone.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(events)) => Some(Event::Missed { events }),
            Err(RecvError::Closed) => None,
        }
    }
}
