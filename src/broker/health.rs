//! What to show of an account: how it is, and how near to its cap.

use super::app::Desk;
use super::doubt::Why;
use super::error::BrokerError;
use super::rules::{Keeps, victim};
use super::{Broker, Inner};
use crate::ids::{AccountTag, GrantId};
use crate::journal::{AccountRef, AccountView, GrantState, RefusalView};
use crate::ledger::{Ledger, Walk};
use crate::outcome::{ExpirySource, RefusalClass};
use serde::Serialize;

/// How an account is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// A token can be handed out, or be had by a refresh.
    Ok,
    /// The provider refuses, and does not say that the grant is over.
    Suspended,
    /// It is not known what a call did, and nothing can be refreshed before it is.
    InDoubt,
    /// What was imported has lapsed, and is not refreshed here before it is activated.
    Paused,
    /// The user has to approve again.
    NeedsAuthorization,
}

/// How an account is, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The account.
    pub account: AccountTag,
    /// How it is.
    pub status: Status,
    /// One more grant would be one too many.
    pub near_cap: bool,
    /// How the cap is used.
    pub usage: Usage,
    /// The grant that is used.
    pub grant: Option<GrantId>,
    /// When its access token expires, in milliseconds since 1970, or 0 where that is not known.
    pub expires_at_ms: u64,
    /// How that is known.
    pub expiry: Option<ExpirySource>,
    /// What the provider said when it last refused, if nothing was issued since.
    pub refusal: Option<RefusalView>,
    /// Operations in doubt that wait for a person, and why.
    pub waiting: Vec<(crate::ids::OpId, Why)>,
}

/// How an account's cap is used, as Salesforce's "Connected Apps OAuth Usage" shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// What counts toward the cap: grants that live, exchanges in doubt, sessions out of sight.
    pub live: u32,
    /// Grants that somebody depends on.
    pub held: u32,
    /// Grants that nobody depends on.
    pub orphans: u32,
    /// Operations without a final outcome.
    pub in_doubt: u32,
    /// The limit that is guarded, if there is one.
    pub limit: Option<u32>,
    /// The grant that the provider would end next, if the limit is reached.
    pub victim: Option<GrantId>,
}

impl<L: Ledger> Broker<L> {
    /// Says how an account is.
    ///
    /// # Errors
    /// [`BrokerError::UnknownAccount`], [`BrokerError::UnknownApp`], what keeps it from being read.
    pub async fn health(&self, account: impl Into<AccountRef>) -> Result<Health, BrokerError> {
        let inner = &self.0;
        let account = inner.account_of(&account.into()).await?;
        let view = inner.view(account).await?;
        let desk = inner.desk_of(&view)?;
        let mut waiting = Vec::new();
        for (open, step) in self.steps(account).await? {
            if let super::Step::Ask(why) = step {
                waiting.push((open.op, why));
            }
        }
        Ok(inner.health(&desk, &view, waiting))
    }

    /// Says how the cap of each account is used; only of those that are near it, if asked so. Accounts
    /// that cannot be read, or of apps that are not configured, are left out.
    pub async fn usage(&self, near_cap: bool) -> Vec<(AccountTag, Usage)> {
        let mut found = Vec::new();
        let mut walk = self.0.ledger.walk();
        while let Some(view) = walk.next().await {
            let Ok(view) = view else { continue };
            let Ok(desk) = self.0.desk_of(&view) else { continue };
            let usage = usage(&desk, &view);
            if !near_cap || is_near(&usage) {
                found.push((view.account_tag, usage));
            }
        }
        found
    }

    /// Returns the grants that nobody depends on, and what keeps each from being revoked without
    /// asking.
    ///
    /// # Errors
    /// What keeps them from being read.
    pub async fn orphans(&self) -> Result<Vec<(AccountTag, GrantId, Option<Keeps>)>, BrokerError> {
        let inner = &self.0;
        let mut found = Vec::new();
        for account in inner.ledger.pending().await? {
            let Some(view) = inner.ledger.account(account).await? else { continue };
            let Ok(desk) = inner.desk_of(&view) else { continue };
            for grant in view.grants.iter().filter(|grant| is_orphan(grant.state)) {
                found.push((account, grant.grant, inner.keeps(&desk, &view, grant)));
            }
        }
        Ok(found)
    }
}

impl<L: Ledger> Inner<L> {
    fn health(
        &self,
        desk: &Desk,
        view: &AccountView,
        waiting: Vec<(crate::ids::OpId, Why)>,
    ) -> Health {
        let now_ms = self.ledger.now_ms();
        let living = || view.grants.iter().filter(|grant| grant.end.is_none());
        let used = living().max_by_key(|grant| grant.issued_lsn);
        let works = living().any(|grant| {
            let valid = grant.expires_at_ms == 0 || now_ms < grant.expires_at_ms;
            let assumed = grant.expiry == Some(ExpirySource::Assumed);
            let refreshes = grant.has_refresh_token && !grant.paused;
            grant.refusal.is_none() && (valid || assumed || refreshes)
        });
        let doubtful = |id: GrantId| view.in_doubt.iter().any(|open| open.grant == id);
        let status = match used {
            None => Status::NeedsAuthorization,
            Some(_) if works => match used.is_some_and(|grant| {
                let valid = grant.expires_at_ms == 0 || now_ms < grant.expires_at_ms;
                doubtful(grant.grant) && !valid
            }) {
                true => Status::InDoubt,
                false => Status::Ok,
            },
            Some(grant) if doubtful(grant.grant) => Status::InDoubt,
            Some(grant) => match &grant.refusal {
                Some(refusal) if refusal.class == RefusalClass::Dead => Status::NeedsAuthorization,
                Some(_) => Status::Suspended,
                None if grant.paused && grant.has_refresh_token => Status::Paused,
                // It lapsed, and there is nothing to refresh it with.
                None => Status::NeedsAuthorization,
            },
        };
        let usage = usage(desk, view);
        Health {
            account: view.account_tag,
            status,
            near_cap: is_near(&usage),
            usage,
            grant: used.map(|grant| grant.grant),
            expires_at_ms: used.map(|grant| grant.expires_at_ms).unwrap_or_default(),
            expiry: used.and_then(|grant| grant.expiry),
            refusal: used.and_then(|grant| grant.refusal.clone()),
            waiting,
        }
    }
}

pub(super) fn is_orphan(state: GrantState) -> bool {
    matches!(state, GrantState::Waiting | GrantState::Released)
}

pub(super) fn is_near(usage: &Usage) -> bool {
    usage.limit.is_some_and(|limit| usage.live >= limit)
}

pub(super) fn usage(desk: &Desk, view: &AccountView) -> Usage {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let with = |is: &dyn Fn(GrantState) -> bool| {
        count(view.grants.iter().filter(|grant| is(grant.state)).count())
    };
    let cap = desk.cap();
    let counts = cap.map(|cap| cap.counts).unwrap_or_default();
    let live = view.live(counts).saturating_add(cap.map_or(0, |cap| cap.outside));
    let limit = cap.map(|cap| cap.limit);
    Usage {
        live,
        held: with(&|state| state == GrantState::Held),
        orphans: with(&is_orphan),
        in_doubt: count(view.in_doubt.len()),
        limit,
        victim: victim(view).filter(|_| limit.is_some_and(|limit| live >= limit)).map(|g| g.grant),
    }
}
