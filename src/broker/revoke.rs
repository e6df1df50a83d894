//! Revoking a grant at its provider: whatever dies of it if somebody forces it, else only while
//! nothing is known that would.
//!
//! What a revocation rests on is looked up once its turn has come, and its intent is refused if the
//! account has changed since: nobody adopts a grant, and no exchange brings another, in between.
//! Of other accounts of the app the same is looked up a moment before, for they have no version in
//! common: an exchange that is begun elsewhere in that moment, and of which the user is not known,
//! is not seen.

use super::app::Desk;
use super::error::BrokerError;
use super::event::Event;
use super::rules::{Keeps, at_stake, ends_one_alone, gives_again, keeps};
use super::{Broker, Inner};
use crate::error::Error;
use crate::format::value::{Action, Cause, Confidence};
use crate::ids::{AccountTag, GrantId, Lsn};
use crate::journal::{
    AccountRef, AccountView, Begin, GrantView, IssuedPair, OperationView, Settled,
};
use crate::ledger::{Ledger, Walk};
use crate::outcome::{NotSent, Outcome};
use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often an account that changes all the time is looked at again.
const TRIES: u32 = 16;

/// How far a revocation may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nobody has asked for it: every rule has to allow it.
    Unasked,
    /// Somebody has, as long as nobody depends on the grant and nothing else dies of it.
    Unheld,
    /// Whoever depends on the grant, as long as nothing else dies of it.
    Alone,
    /// Whatever dies of it.
    All,
}

impl<L: Ledger> Broker<L> {
    /// Revokes a grant at its provider, whoever depends on it.
    ///
    /// Where the provider is not known to end one pair alone, what lives beside it keeps it from being
    /// revoked: the account's other grants and open exchanges; those of which the user is not known,
    /// in all accounts of the app; and for a grant of which the user is not known, all of the app.
    /// Where it is known to, only what has the same refresh token does, looked for in the account and
    /// among accounts that wait for something, and in all of the app where the provider gives the same
    /// token again or the user is not known.
    ///
    /// # Errors
    /// [`BrokerError::WouldKill`] where others live that may die of it; use [`Broker::revoke_all`]
    /// then. [`BrokerError::Stale`] in a claimed copy. Those of a call.
    ///
    /// # Cancel safety
    /// Dropping the future stops nothing.
    pub async fn revoke(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<(), BrokerError> {
        self.revoke_with(account, grant, Reach::Alone).await
    }

    /// As [`Broker::revoke`], and takes along what the provider takes along.
    ///
    /// # Errors
    /// Those of a call.
    ///
    /// # Cancel safety
    /// As [`Broker::revoke`].
    pub async fn revoke_all(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<(), BrokerError> {
        self.revoke_with(account, grant, Reach::All).await
    }

    /// As [`Broker::revoke`], as long as nobody depends on the grant.
    pub(super) async fn revoke_unheld(
        &self,
        account: AccountTag,
        grant: GrantId,
    ) -> Result<(), BrokerError> {
        self.revoke_with(account, grant, Reach::Unheld).await
    }

    async fn revoke_with(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        reach: Reach,
    ) -> Result<(), BrokerError> {
        let account = self.0.account_of(&account.into()).await?;
        self.0.in_task(move |inner| async move { inner.revoke(account, grant, reach).await }).await
    }

    /// Says what keeps a grant from being revoked without asking; none if nothing does. Other accounts
    /// of its app are looked at no sooner than it is revoked.
    ///
    /// # Errors
    /// [`BrokerError::UnknownAccount`], [`BrokerError::NeedsAuthorization`] for a grant that is not
    /// there.
    pub async fn keeps(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<Option<Keeps>, BrokerError> {
        let inner = &self.0;
        let account = inner.account_of(&account.into()).await?;
        let view = inner.view(account).await?;
        let desk = inner.desk_of(&view)?;
        Ok(inner.keeps(&desk, &view, found(&view, grant)?))
    }
}

impl<L: Ledger> Inner<L> {
    pub(super) fn keeps(
        &self,
        desk: &Desk,
        view: &AccountView,
        grant: &GrantView,
    ) -> Option<Keeps> {
        let known = self.known(view.account_tag, grant.grant);
        keeps(view, grant, desk.profile(), known, self.ledger.now_ms())
    }

    /// Revokes a grant as its own operation, as far as that may go.
    pub(super) async fn revoke(
        &self,
        account: AccountTag,
        grant: GrantId,
        reach: Reach,
    ) -> Result<(), BrokerError> {
        let desk = self.desk_of(&self.view(account).await?)?;
        let mut tries = 0;
        loop {
            let was_fresh = AtomicBool::new(false);
            let begin = async {
                let view = self.view(account).await?;
                let grant_seen = found(&view, grant)?;
                if reach == Reach::All {
                    return Ok(Begin::revoke(account, grant));
                }
                was_fresh.store(self.known(account, grant).fresh, Ordering::Relaxed);
                self.check(&desk, &view, grant_seen, reach).await?;
                Ok(Begin::revoke(account, grant).expecting(view.lsn))
            };
            // What nobody had while it was decided, somebody may have been given since.
            let may_go = || {
                let is_used =
                    was_fresh.load(Ordering::Relaxed) && !self.known(account, grant).fresh;
                reach != Reach::Unasked || !is_used
            };
            match self.revoke_by(&desk, account, grant, begin, may_go).await {
                // Somebody changed the account: perhaps somebody holds it now.
                Err(error) if is_conflict(&error) && tries < TRIES => tries += 1,
                revoked => return revoked,
            }
        }
    }

    /// Sends the revocation again that an operation in doubt was; if it was decided by what was seen
    /// of the account, only while that is so.
    pub(super) async fn revoke_again(
        &self,
        desk: &Desk,
        account: AccountTag,
        open: &OperationView,
        seen: Option<Lsn>,
    ) -> Result<(), BrokerError> {
        let begin = Begin::revoke(account, open.grant).resending(open.op);
        let begin = match seen {
            Some(lsn) => begin.expecting(lsn),
            None => begin,
        };
        self.revoke_by(desk, account, open.grant, async { Ok(begin) }, || true).await
    }

    /// Refuses what may not go so far.
    async fn check(
        &self,
        desk: &Desk,
        view: &AccountView,
        grant: &GrantView,
        reach: Reach,
    ) -> Result<(), BrokerError> {
        let (account, id) = (view.account_tag, grant.grant);
        let kept = match reach {
            Reach::Unasked => self.keeps(desk, view, grant),
            Reach::Unheld if !grant.holders.is_empty() => Some(Keeps::Held),
            _ => None,
        };
        if let Some(keeps) = kept {
            return Err(BrokerError::Choice { account, problem: keeps.sentence() });
        }
        if grant.stale {
            return Err(BrokerError::Stale { account, grant: id, spent: false });
        }
        let own = at_stake(grant, desk.profile(), view);
        match own + self.at_stake_elsewhere(desk, view, grant).await? {
            0 => Ok(()),
            siblings => Err(BrokerError::WouldKill { account, grant: id, siblings }),
        }
    }

    /// Counts what may die of a revocation in other accounts of the app: what there belongs to the same
    /// user, as far as anybody knows.
    async fn at_stake_elsewhere(
        &self,
        desk: &Desk,
        view: &AccountView,
        grant: &GrantView,
    ) -> Result<usize, BrokerError> {
        let profile = desk.profile();
        let concerned = |other: &AccountView| {
            let is_own = other.account_tag == view.account_tag || other.app_tag != view.app_tag;
            !is_own && (view.provisional || other.provisional)
        };
        let staked = |other: &AccountView| match concerned(other) {
            true => at_stake(grant, profile, other),
            false => 0,
        };
        let mut count = 0;
        if view.provisional || !ends_one_alone(profile) || gives_again(profile) {
            let mut walk = self.ledger.walk();
            while let Some(other) = walk.next().await {
                count += staked(&other?);
            }
        } else {
            for account in self.ledger.pending().await? {
                count += self.ledger.account(account).await?.as_ref().map_or(0, staked);
            }
        }
        Ok(count)
    }

    async fn revoke_by(
        &self,
        desk: &Desk,
        account: AccountTag,
        grant: GrantId,
        begin: impl Future<Output = Result<Begin, BrokerError>> + Send,
        may_go: impl FnOnce() -> bool + Send,
    ) -> Result<(), BrokerError> {
        let whom = self.whom(account, grant).await;
        let came = self
            .call_when(desk, Action::Revoke, whom, begin, |upstream, pair: Option<&IssuedPair>| {
                match pair.filter(|_| may_go()) {
                    Some(pair) => upstream.revoke(pair),
                    None => Box::pin(ready(Outcome::NotSent(NotSent::GivenUp))),
                }
            })
            .await?;
        self.shelf.drop(account);
        match came.settled {
            Settled::Revoked => {
                let (cause, confidence) = (Cause::RevokedByUs, Confidence::Certain);
                self.note_ended(account, grant);
                self.bell.ring(Event::Ended { account, grant, cause, confidence });
                Ok(())
            }
            // It was over already, as was wanted.
            Settled::Refused if came.is_dead() => Ok(()),
            Settled::Refused | Settled::NotSent => Err(came.into_error()),
            _ => {
                self.look_into(account);
                Err(came.into_error())
            }
        }
    }
}

/// Finds a grant of which more is known than its end.
fn found(view: &AccountView, grant: GrantId) -> Result<&GrantView, BrokerError> {
    let found = view.grants.iter().find(|known| known.grant == grant);
    found.ok_or(BrokerError::NeedsAuthorization { account: view.account_tag })
}

/// Says whether an account has changed since it was looked at.
pub(super) fn is_conflict(error: &BrokerError) -> bool {
    matches!(error, BrokerError::Ledger(error) if matches!(**error, Error::Conflict { .. }))
}
