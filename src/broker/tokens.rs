//! Handing out access tokens: the current one while it is valid, else one refresh however many wait.

use super::cache::{Ready, ReadyGrant};
use super::error::BrokerError;
use super::metrics::How;
use super::refresh::Wanted;
use super::rules::covers;
use super::{Broker, Inner};
use crate::ids::{Account, AccountTag, GrantId, Holder};
use crate::journal::{AccountRef, GrantView, IssuedPair};
use crate::ledger::{Change, Ledger};
use crate::outcome::{ExpirySource, RefusalClass};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl<L: Ledger> Broker<L> {
    /// Returns a pair of the account whose access token has these scopes and works for at least
    /// `min_validity` more: the current one, or that of one refresh for all who wait. Where a pair lasts
    /// no longer than that even when it comes, the current one is handed out for half of its time.
    ///
    /// Any living grant of the account will do; where tenants must be kept apart, ask by
    /// [`Broker::access_token_for`]. A valid token is handed out whatever is in doubt, without a
    /// sync. Where the provider is not to be asked now, one whose expiry is only assumed is handed
    /// out as well.
    ///
    /// # Errors
    /// [`BrokerError::NeedsAuthorization`], [`BrokerError::InDoubt`], [`BrokerError::Refused`],
    /// [`BrokerError::NotSent`], [`BrokerError::NotNow`], [`BrokerError::Paused`].
    ///
    /// # Cancel safety
    /// Dropping the future stops nothing: a refresh goes on in a task of its own.
    pub async fn access_token(
        &self,
        account: impl Into<AccountRef>,
        scopes: &[&str],
        min_validity: Duration,
    ) -> Result<Arc<IssuedPair>, BrokerError> {
        let account = self.0.ledger.tag_of(&account.into());
        self.0.hand_out(account, None, scopes, min_validity).await
    }

    /// As [`Broker::access_token`], on behalf of a holder: of the grants that it holds, or those of
    /// its tenant, or of all where the app's accounts are shared.
    ///
    /// # Errors
    /// As [`Broker::access_token`].
    ///
    /// # Cancel safety
    /// As [`Broker::access_token`].
    pub async fn access_token_for(
        &self,
        holder: &Holder,
        account: impl Into<AccountRef>,
        scopes: &[&str],
        min_validity: Duration,
    ) -> Result<Arc<IssuedPair>, BrokerError> {
        let account = self.0.ledger.tag_of(&account.into());
        self.0.hand_out(account, Some(holder), scopes, min_validity).await
    }

    /// Mints a pair for an account by client credentials or an assertion, as the account's standing
    /// grant; later ones come by [`Broker::access_token`].
    ///
    /// # Errors
    /// As [`Broker::access_token`]; [`BrokerError::Choice`] where the app is not one that mints.
    ///
    /// # Cancel safety
    /// As [`Broker::access_token`].
    pub async fn mint(
        &self,
        account: &Account,
        scopes: &[&str],
    ) -> Result<Arc<IssuedPair>, BrokerError> {
        let tag = self.0.ledger.tag_of(&account.into());
        let desk = Arc::clone(self.0.desk(&account.app)?);
        if !desk.config.mints {
            let problem = "its app is not configured to mint";
            return Err(BrokerError::Choice { account: tag, problem });
        }
        self.0.minted(&desk, account, owned(scopes)).await
    }

    /// Refreshes a grant now, or joins the refresh that is on its way. It is made on purpose: that the
    /// provider has refused the grant just now keeps it from nothing.
    ///
    /// # Errors
    /// As [`Broker::access_token`].
    ///
    /// # Cancel safety
    /// As [`Broker::access_token`].
    pub async fn refresh(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<Arc<IssuedPair>, BrokerError> {
        self.0.handle()?;
        let account = self.0.account_of(&account.into()).await?;
        let ready = self.0.ready(account).await?;
        let current = ready.grants.iter().find(|ready| ready.grant() == grant);
        let current = current.ok_or(BrokerError::NeedsAuthorization { account })?;
        self.0.refreshed(account, grant, Wanted::on_purpose(&current.pair)).await
    }

    /// Says that a resource answered 401 to this pair's access token, and returns the one to use
    /// instead.
    ///
    /// Only the generation that was refused is invalidated, and only if it is still the current one.
    ///
    /// # Errors
    /// As [`Broker::access_token`].
    ///
    /// # Cancel safety
    /// As [`Broker::access_token`].
    pub async fn rejected(&self, pair: &IssuedPair) -> Result<Arc<IssuedPair>, BrokerError> {
        let account = self.0.account_of(&pair.account().into()).await?;
        self.0.hand(pair);
        if pair.is_beside() {
            return self.0.rejected_beside(pair).await;
        }
        let ready = self.0.ready(account).await?;
        let current = ready.grants.iter().find(|grant| grant.grant() == pair.grant());
        let current = current.ok_or(BrokerError::NeedsAuthorization { account })?;
        let wanted: Vec<&str> = match pair.is_narrowed() {
            true => pair.access_scopes().iter().map(String::as_str).collect(),
            false => Vec::new(),
        };
        if current.pair.generation() == pair.generation() {
            self.0.shelf.reject(current);
        } else if current.gives(&wanted) {
            self.0.use_it(&ready, current, self.0.ledger.now_ms(), How::Current);
            return Ok(Arc::clone(&current.pair));
        }
        match pair.is_narrowed() {
            true => self.0.refreshed_beside(account, pair.grant(), owned(&wanted)).await,
            false => {
                let wanted = Wanted::instead_of(&current.pair);
                self.0.refreshed(account, pair.grant(), wanted).await
            }
        }
    }

    /// Says that a resource took this pair's access token. The first time for a generation it is
    /// recorded: the refresh token before it is kept no longer then, and holders of older grants of
    /// the same tenant whose scopes this one covers move to it. One whose access token has not all
    /// of the grant's scopes proves nothing of the others: nobody moves to it.
    ///
    /// # Errors
    /// Those of every write.
    ///
    /// # Cancel safety
    /// Dropping the future stops nothing.
    pub async fn worked(&self, pair: &IssuedPair) -> Result<(), BrokerError> {
        let inner = &self.0;
        let account = inner.account_of(&pair.account().into()).await?;
        inner.hand(pair);
        // It says nothing of the refresh token that the newest pair came with.
        if pair.is_beside() {
            return Ok(());
        }
        let ready = inner.ready(account).await?;
        let current = ready.grants.iter().find(|grant| grant.grant() == pair.grant());
        let is_current = |grant: &&ReadyGrant| grant.pair.generation() == pair.generation();
        let Some(current) = current.filter(is_current) else { return Ok(()) };
        // An access token that works says nothing of whether another host has refreshed it.
        let is_stale = |view: &GrantView| view.grant == pair.grant() && view.stale;
        if ready.view.grants.iter().any(is_stale) {
            return Ok(());
        }
        if current.noted.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let (grant, generation) = (pair.grant(), pair.generation());
        let (known, narrow) = (current.worked, !current.gives(&[]));
        let note = |inner: Arc<Inner<L>>| async move {
            if !known {
                inner.change(account, Change::Worked { grant, generation }).await?;
            }
            // Also where it is known: whoever noted it may not have come to moving anybody.
            if narrow { Ok(()) } else { inner.supersede(account, grant).await }
        };
        let noted = inner.in_task(note).await;
        if noted.is_err() {
            current.noted.store(false, Ordering::Relaxed);
        }
        noted
    }
}

impl<L: Ledger> Inner<L> {
    /// Returns the account from the shelf, or loads it.
    pub(super) async fn ready(&self, account: AccountTag) -> Result<Arc<Ready>, BrokerError> {
        if let Some(ready) = self.shelf.get(account) {
            return Ok(ready);
        }
        let changes = self.shelf.changes(account);
        let view = self.ledger.account(account).await?;
        let view = view.ok_or(BrokerError::UnknownAccount { account })?;
        if view.provisional {
            self.note_nameless(account);
        }
        let mut grants = Vec::new();
        for grant in view.grants.iter().filter(|grant| grant.end.is_none()) {
            if let Some(pair) = self.ledger.pair(account, grant.grant).await? {
                let grant = ReadyGrant::new(grant, pair);
                self.shelf.remind(&grant);
                grants.push(grant);
            }
        }
        grants.sort_by_key(|grant| std::cmp::Reverse(grant.pair.lsn()));
        let desk = view.app.as_ref().and_then(|app| self.desks.get(app)).cloned();
        let ready = Arc::new(Ready { view, desk, grants });
        self.shelf.put(account, changes, &ready);
        Ok(ready)
    }

    async fn hand_out(
        &self,
        mut account: AccountTag,
        holder: Option<&Holder>,
        scopes: &[&str],
        min_validity: Duration,
    ) -> Result<Arc<IssuedPair>, BrokerError> {
        loop {
            match self.hand_out_of(account, holder, scopes, min_validity).await {
                Ok(pair) => return Ok(pair),
                Err(error) => account = self.where_to(account, error).await?,
            }
        }
    }

    async fn hand_out_of(
        &self,
        account: AccountTag,
        holder: Option<&Holder>,
        scopes: &[&str],
        min_validity: Duration,
    ) -> Result<Arc<IssuedPair>, BrokerError> {
        let ready = self.ready(account).await?;
        let now_ms = self.ledger.now_ms();
        let min_ms = u64::try_from(min_validity.as_millis()).unwrap_or(u64::MAX);
        let until_ms = now_ms.saturating_add(min_ms);
        let shared = ready.desk.as_ref().is_some_and(|desk| desk.config.shared);
        let fits = |grant: &&ReadyGrant| {
            covers(grant.pair.scopes(), scopes)
                && holder.is_none_or(|holder| shared || self.is_for(grant, holder))
        };
        let mut candidates: Vec<&ReadyGrant> = ready.grants.iter().filter(fits).collect();
        if candidates.len() > 1 {
            // Whoever holds a grant is served from it, and all others from one that somebody holds: what
            // nobody does goes out of use. What must not be refreshed yet comes last.
            let own = holder.map(|holder| self.ledger.holder_tag(holder));
            let is_own = |grant: &ReadyGrant| own.is_some_and(|own| grant.holders.contains(&own));
            candidates
                .sort_by_key(|grant| (grant.paused, !is_own(grant), grant.holders.is_empty()));
        }
        let works = |until_ms: u64| {
            candidates.iter().find(|grant| grant.is_valid(until_ms) && grant.gives(scopes))
        };
        if let Some(grant) = works(until_ms) {
            self.use_it(&ready, grant, now_ms, How::Current);
            return Ok(Arc::clone(&grant.pair));
        }
        let mut refused = BrokerError::NeedsAuthorization { account };
        for grant in &candidates {
            if grant.pair.refresh_token().is_none() && !ready.desk()?.config.mints {
                continue;
            }
            let wanted = match grant.is_valid(now_ms) && grant.gives(scopes) {
                true => Wanted::longer_than(&grant.pair, min_validity),
                false => Wanted::instead_of(&grant.pair),
            };
            match self.refreshed(account, grant.grant(), wanted).await {
                Ok(pair) => return Ok(pair),
                Err(error) => {
                    if grant.gives(scopes) && may_still_work(grant, &error) {
                        self.use_it(&ready, grant, now_ms, How::Assumed);
                        return Ok(Arc::clone(&grant.pair));
                    }
                    refused = error;
                }
            }
        }
        // One that works, if not for as long as was asked.
        match works(now_ms) {
            Some(grant) => {
                self.use_it(&ready, grant, now_ms, How::Current);
                Ok(Arc::clone(&grant.pair))
            }
            None => Err(refused),
        }
    }

    /// A grant is for those who hold it, and for the tenant for which it was obtained.
    pub(super) fn is_for(&self, grant: &ReadyGrant, holder: &Holder) -> bool {
        grant.tenants.iter().any(|tenant| tenant == holder.tenant())
            || grant.holders.contains(&self.ledger.holder_tag(holder))
    }

    fn use_it(&self, ready: &Ready, grant: &ReadyGrant, now_ms: u64, how: How) {
        self.meter.handed(how);
        let before_ms = grant.used_ms.swap(now_ms, Ordering::Relaxed);
        if before_ms > 0 {
            return;
        }
        self.hand(&grant.pair);
        if let Some(desk) = &ready.desk {
            self.schedule(desk, &grant.pair, now_ms);
        }
    }
}

/// Says whether a token that has lapsed by an assumption alone may be handed out, since its provider
/// cannot be asked now.
fn may_still_work(grant: &ReadyGrant, error: &BrokerError) -> bool {
    let only_assumed = matches!(grant.pair.expiry_source(), Some(ExpirySource::Assumed) | None);
    let unasked = match error {
        BrokerError::InDoubt { .. }
        | BrokerError::NotSent { .. }
        | BrokerError::NotNow { .. }
        | BrokerError::Paused { .. }
        | BrokerError::Closed => true,
        BrokerError::Refused { refusal, .. } => refusal.class() == RefusalClass::Retry,
        _ => false,
    };
    only_assumed && unasked && !grant.rejected.load(Ordering::Relaxed)
}

pub(super) fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
