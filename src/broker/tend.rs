//! Looks into accounts by itself: when the broker begins, when a call is in doubt, when a time has come.

use super::app::Desk;
use super::error::BrokerError;
use super::{Inner, Key, Landed};
use crate::ids::{AccountTag, OpId};
use crate::journal::{AccountView, OperationView};
use crate::ledger::Ledger;
use crate::outcome::RefusalClass;
use crate::sync::lock;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A look into an account that is on its way.
pub(super) type Looking = watch::Receiver<Option<Result<Landed, BrokerError>>>;

impl<L: Ledger> Inner<L> {
    /// Says whether an operation was left by somebody: in doubt, or begun by an earlier process.
    pub(super) fn is_left(&self, open: &OperationView) -> bool {
        open.doubt.is_some() || open.op.0 <= self.began.0
    }

    /// Looks into all that is in doubt, or nobody's, without waiting.
    pub(super) async fn look_into_all(&self) {
        self.take_nameless().into_iter().for_each(|account| self.look_into(account));
        match self.ledger.pending().await {
            Ok(accounts) => accounts.into_iter().for_each(|account| self.look_into(account)),
            Err(error) => tracing::warn!(target: "tokenwal", %error, "looking for what is open"),
        }
    }

    /// Looks into what is in doubt on an account, in a task of its own.
    pub(super) fn look_into(&self, account: AccountTag) {
        drop(self.look(account));
    }

    /// As [`Inner::look_into`], for who waits for it. It must not itself wait for a flight of a grant:
    /// those wait for it.
    pub(super) fn look(&self, account: AccountTag) -> Option<Looking> {
        let inner = self.handle().ok().filter(|_| self.tends)?;
        Some(self.flights.start(Key::Account(account), &self.tasks, || async move {
            inner.tend(account).await.map(|()| Landed::Nothing)
        }))
    }

    /// Does what may be done about an account: about what is in doubt on it, who it belongs to, what
    /// nobody holds.
    async fn tend(&self, account: AccountTag) -> Result<(), BrokerError> {
        let view = self.view(account).await?;
        let left = view.in_doubt.iter().filter(|open| self.is_left(open));
        self.meter.looked(account, left.map(|open| open.op));
        let desk = self.desk_of(&view)?;
        for open in view.in_doubt.iter().filter(|open| self.is_left(open)) {
            let Err(error) = self.by_the_rules(&desk, account, open.op).await else { continue };
            if let Some(at_ms) = self.again_ms(open.op, &error) {
                self.look_again(account, at_ms);
            }
            tracing::debug!(target: "tokenwal", %account, op = open.op.0, %error, "in doubt");
        }
        let view = match self.ledger.account(account).await? {
            Some(view) if view.provisional => return self.name(&desk, &view).await,
            Some(view) => view,
            None => return Ok(()),
        };
        self.revoke_orphans(&desk, view.account_tag).await?;
        self.keep_a_place_free(&desk, view.account_tag).await
    }

    /// Says when to look again into an operation about which a step was tried that came to nothing.
    /// What waits or asks has said so itself.
    fn again_ms(&self, op: OpId, error: &BrokerError) -> Option<u64> {
        let later = || {
            let margin_ms = u64::try_from(self.margin.as_millis()).unwrap_or(u64::MAX);
            Some(self.ledger.now_ms().saturating_add(margin_ms))
        };
        match error {
            BrokerError::NotNow { until_ms, .. } => Some(*until_ms),
            // The step is itself in doubt now.
            BrokerError::InDoubt { op: step, .. } if *step != op => later(),
            BrokerError::NotSent { .. } => later(),
            BrokerError::Refused { refusal, .. } if refusal.class() == RefusalClass::Retry => {
                later()
            }
            _ => None,
        }
    }

    /// Asks once more whose the grants of a provisional account are.
    async fn name(&self, desk: &Desk, view: &AccountView) -> Result<(), BrokerError> {
        let from = view.account_tag;
        for grant in view.grants.iter().filter(|grant| grant.end.is_none()) {
            let Some(pair) = self.ledger.pair(from, grant.grant).await? else { continue };
            self.note_nameless(from);
            if let Some((_, to)) = self.identify(desk, &pair).await? {
                self.keep_a_place_free(desk, to).await?;
            }
        }
        Ok(())
    }

    /// Looks into an account again later. The wait holds no call, and no shutdown; of several the first
    /// counts.
    pub(super) fn look_again(&self, account: AccountTag, until_ms: u64) {
        let wait = Duration::from_millis(until_ms.saturating_sub(self.ledger.now_ms()));
        // What takes longer, or is one too many, is found by the rounds.
        let at = Instant::now() + wait.min(super::ahead::ROUND);
        let mut wakes = lock(&self.wakes);
        if wakes.len() >= super::NOTED_MAX && !wakes.contains_key(&account) {
            return;
        }
        if wakes.get(&account).is_some_and(|earlier| *earlier <= at) {
            return;
        }
        wakes.insert(account, at);
        let me = self.me.clone();
        self.tasks.spawn_aside(async move {
            tokio::time::sleep_until(at).await;
            let Some(inner) = me.upgrade() else { return };
            let is_next = lock(&inner.wakes).get(&account) == Some(&at);
            if is_next {
                lock(&inner.wakes).remove(&account);
                inner.look_into(account);
            }
        });
    }
}
