//! How another pair of a grant comes: by one call however many want it, and by none where there is one
//! already, where the provider has refused just now, or where another would last no longer.
//!
//! Flights of a grant may wait for one of its account, which looks into what is in doubt; never the
//! other way round.

use super::app::Desk;
use super::backoff::Refused;
use super::cache::{Ready, ReadyGrant};
use super::call::Came;
use super::error::BrokerError;
use super::event::Event;
use super::metrics::How;
use super::rules::covers;
use super::{Inner, Key, Landed};
use crate::error::Error;
use crate::format::value::Action;
use crate::ids::{Account, AccountTag, Generation, GrantId, OpId};
use crate::journal::{Begin, IssuedPair, Settled};
use crate::ledger::Ledger;
use crate::outcome::{NotSent, Outcome};
use crate::sync::lock;
use std::sync::Arc;
use std::time::Duration;

/// What somebody wants who has a pair that will not do: any newer one of its grant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    seen: Generation,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It has lapsed, was rejected, or is for other scopes.
    Useless,
    /// It works, but not for as long as this.
    Longer(Duration),
    /// The owner says so.
    Purpose,
}

impl Wanted {
    pub(super) fn instead_of(pair: &IssuedPair) -> Self {
        Self { seen: pair.generation(), why: Why::Useless }
    }

    pub(super) fn longer_than(pair: &IssuedPair, validity: Duration) -> Self {
        Self { seen: pair.generation(), why: Why::Longer(validity) }
    }

    pub(super) fn on_purpose(pair: &IssuedPair) -> Self {
        Self { seen: pair.generation(), why: Why::Purpose }
    }
}

impl Ready {
    /// Returns what a flight for another pair of a grant is about. All mints of an account are one
    /// standing grant, and it may be a mint that is its first.
    pub(super) fn key_of(&self, grant: &ReadyGrant) -> Key {
        let mints = self.desk.as_ref().is_some_and(|desk| desk.config.mints);
        match mints && grant.pair.refresh_token().is_none() {
            true => Key::Grant(grant.pair.account(), GrantId::NONE),
            false => Key::Grant(grant.pair.account(), grant.grant()),
        }
    }
}

impl<L: Ledger> Inner<L> {
    /// Joins the refresh of a grant, or starts it.
    pub(super) async fn refreshed(
        &self,
        account: AccountTag,
        grant: GrantId,
        wanted: Wanted,
    ) -> Result<Arc<IssuedPair>, BrokerError> {
        let inner = self.handle()?;
        let ready = self.ready(account).await?;
        let target = ready.grants.iter().find(|ready| ready.grant() == grant);
        let target = target.ok_or(BrokerError::NeedsAuthorization { account })?;
        let key = ready.key_of(target);
        // What others want of the same flight may be older than what will not do here, or less.
        let is_it = |pair: &IssuedPair| {
            pair.grant() == grant
                && pair.generation() > wanted.seen
                && (key == Key::Grant(account, grant)
                    || covers(pair.scopes(), target.pair.scopes()))
        };
        loop {
            let (mut mine, inner) = (false, Arc::clone(&inner));
            let work = || {
                mine = true;
                async move { inner.refresh_unless_newer(account, grant, wanted).await }
            };
            let landed = self.flights.join(key.clone(), &self.tasks, work).await;
            let made = mine && !matches!(landed, Some(Ok(Landed::There(_))));
            self.meter.refresh(made);
            let (pair, how) = match landed {
                Some(Ok(Landed::Pair(pair))) => (pair, How::Refreshed),
                Some(Ok(Landed::There(pair))) => (pair, How::Current),
                // Another call on the grant was on its way, for a token beside its chain.
                Some(Ok(Landed::Beside(_))) if !mine => continue,
                Some(Err(error)) => return Err(error),
                _ => return Err(BrokerError::Lost),
            };
            if mine || is_it(&pair) {
                self.hand(&pair);
                self.meter.handed(how);
                return Ok(pair);
            }
        }
    }

    /// Joins the mint of an account's pair, or starts it.
    pub(super) async fn minted(
        &self,
        desk: &Arc<Desk>,
        account: &Account,
        scopes: Vec<String>,
    ) -> Result<Arc<IssuedPair>, BrokerError> {
        let handle = self.handle()?;
        let tag = self.ledger.tag_of(&account.into());
        loop {
            let (mut mine, inner, desk) = (false, Arc::clone(&handle), Arc::clone(desk));
            let (account, wanted) = (account.clone(), scopes.clone());
            let work = || {
                mine = true;
                async move {
                    let is_it = |ready: &ReadyGrant| {
                        ready.pair.refresh_token().is_none() && covers(ready.pair.scopes(), &wanted)
                    };
                    match inner.mint_now(&desk, account, wanted.clone(), None).await {
                        Err(error) => inner.after_a_look(error, is_it).await,
                        landed => landed,
                    }
                }
            };
            match self.flights.join(Key::Grant(tag, GrantId::NONE), &self.tasks, work).await {
                // One that was on its way may be for other scopes.
                Some(Ok(Landed::Pair(pair) | Landed::There(pair)))
                    if mine || covers(pair.scopes(), &scopes) =>
                {
                    return Ok(pair);
                }
                Some(Ok(Landed::Pair(_) | Landed::There(_))) => {}
                Some(Err(error)) => return Err(error),
                _ => return Err(BrokerError::Lost),
            }
        }
    }

    /// Refreshes a grant for who wants that, unless there is no need or no sense in it.
    pub(super) async fn refresh_unless_newer(
        &self,
        account: AccountTag,
        grant: GrantId,
        wanted: Wanted,
    ) -> Result<Landed, BrokerError> {
        let ready = self.ready(account).await?;
        let target = ready.grants.iter().find(|ready| ready.grant() == grant);
        if let Some(target) = target {
            // It came after the caller had looked, and before this.
            let is_newer = target.pair.generation() > wanted.seen;
            if is_newer && target.is_valid(self.ledger.now_ms()) && target.gives(&[]) {
                return Ok(Landed::There(Arc::clone(&target.pair)));
            }
            if let Why::Longer(validity) = wanted.why
                && let Some(wait) = self.lasts_as_long_as_another(target, validity)
            {
                return Err(self.not_now(ready.desk()?, wait, false));
            }
        }
        let call = self.refresh_now(account, grant, None);
        let refused = Refused::of(account, grant);
        match self.unless_refused(&refused, wanted.why == Why::Purpose, call).await {
            Err(error) => {
                let is_it = |ready: &ReadyGrant| ready.grant() == grant && ready.gives(&[]);
                self.after_a_look(error, is_it).await
            }
            landed => landed,
        }
    }

    /// Says for how long there is no sense in another pair, where the one that there is came of a
    /// refresh and was not to last any longer then.
    fn lasts_as_long_as_another(&self, grant: &ReadyGrant, validity: Duration) -> Option<Duration> {
        let pair = &grant.pair;
        let of = (pair.account(), pair.grant());
        let (came, lifetime) = lock(&self.arrivals).of(of, Duration::MAX);
        let is_refreshed = pair.generation() > Generation(1);
        let half = (lifetime / 2).checked_sub(came.elapsed());
        half.filter(|half| is_refreshed && lifetime <= validity && !half.is_zero())
    }

    /// Makes a call that the provider may refuse, unless it has refused the same just now.
    pub(super) async fn unless_refused(
        &self,
        refused: &Refused,
        on_purpose: bool,
        call: impl Future<Output = Result<Landed, BrokerError>> + Send,
    ) -> Result<Landed, BrokerError> {
        if !on_purpose {
            self.backoff.check(refused)?;
        }
        let landed = call.await;
        match &landed {
            Ok(_) => self.backoff.end(refused),
            Err(error) => self.backoff.note(refused, error),
        }
        landed
    }

    /// Waits until what is in doubt has been looked into: where the rules allow to ask again at once,
    /// what comes of that is what the caller wants.
    async fn after_a_look(
        &self,
        error: BrokerError,
        is_it: impl Fn(&ReadyGrant) -> bool + Send + Sync,
    ) -> Result<Landed, BrokerError> {
        let BrokerError::InDoubt { account, op, .. } = error else { return Err(error) };
        if !self.tends {
            return Err(error);
        }
        let look = async {
            // One that was on its way may have begun before this was in doubt.
            for _ in 0..2 {
                let landed = self.look(account)?;
                let _ = landed.clone().wait_for(Option::is_some).await;
                let ready = self.ready(account).await.ok()?;
                // An operation is numbered like the records: its own pair comes after it.
                let came = |ready: &&ReadyGrant| ready.pair.lsn().0 > op.0 && is_it(ready);
                if let Some(ready) = ready.grants.iter().find(came) {
                    return Some(Arc::clone(&ready.pair));
                }
                let is_open = ready.view.in_doubt.iter().any(|open| open.op == op);
                let is_seen = lock(&self.looked).contains_key(&op)
                    || lock(&self.wakes).contains_key(&account);
                if !is_open || is_seen {
                    return None;
                }
            }
            None
        };
        let pair = tokio::time::timeout(self.deadline, look).await.ok().flatten();
        pair.map(Landed::Pair).ok_or(error)
    }

    /// Refreshes a grant; as what stands for an operation in doubt, if that is resolved by it.
    pub(super) async fn refresh_now(
        &self,
        account: AccountTag,
        grant: GrantId,
        resending: Option<OpId>,
    ) -> Result<Landed, BrokerError> {
        let ready = self.ready(account).await?;
        let desk = Arc::clone(ready.desk()?);
        let target = self.presentable(&ready, grant, resending).await?;
        if desk.config.mints
            && target.pair.refresh_token().is_none()
            && let Some((app, user)) = ready.view.app.as_ref().zip(ready.view.user.as_ref())
        {
            let account = Account::new(app.clone(), user.clone());
            let scopes = target.pair.scopes().to_vec();
            return self.mint_now(&desk, account, scopes, resending).await;
        }
        let begin = again(Begin::refresh(account, grant), resending);
        let came = self.call(&desk, Action::Refresh, begin, |upstream, pair| match pair {
            Some(pair) => upstream.refresh(pair),
            None => Box::pin(std::future::ready(Outcome::NotSent(NotSent::GivenUp))),
        });
        let came = self.unless_busy(account, came.await)?;
        self.shelf.drop(account);
        let landed = self.landed(&desk, account, grant, came?).await?;
        if ready.view.provisional {
            // With an access token that works it can be asked whose it is.
            self.look_into(account);
        }
        Ok(landed)
    }

    pub(super) async fn mint_now(
        &self,
        desk: &Desk,
        account: Account,
        scopes: Vec<String>,
        resending: Option<OpId>,
    ) -> Result<Landed, BrokerError> {
        let tag = self.ledger.tag_of(&(&account).into());
        let begin = again(Begin::mint(&account).scopes(scopes.iter()), resending);
        let came = self.call(desk, Action::Mint, begin, move |upstream, _| {
            Box::pin(async move { upstream.mint(&account, &scopes).await })
        });
        let came = self.unless_busy(tag, came.await)??;
        self.shelf.drop(tag);
        let grant = match &came.settled {
            Settled::Issued(pair) => pair.grant(),
            _ => GrantId::NONE,
        };
        self.landed(desk, tag, grant, came).await
    }

    /// Returns a grant whose refresh token may be presented: by the first call, or once more in place of
    /// one in doubt.
    pub(super) async fn presentable<'a>(
        &self,
        ready: &'a Ready,
        grant: GrantId,
        resending: Option<OpId>,
    ) -> Result<&'a ReadyGrant, BrokerError> {
        let account = ready.view.account_tag;
        let target = ready.grants.iter().find(|ready| ready.grant() == grant);
        let target = target.ok_or(BrokerError::NeedsAuthorization { account })?;
        if target.paused {
            return Err(BrokerError::Paused { account, grant });
        }
        if resending.is_none() {
            self.check_unspent(ready.desk()?, &ready.view, grant).await?;
        }
        Ok(target)
    }

    /// Refuses where no call was made, since one on the grant is in doubt or on its way by another hand.
    pub(super) fn unless_busy(
        &self,
        account: AccountTag,
        came: Result<Came, BrokerError>,
    ) -> Result<Result<Came, BrokerError>, BrokerError> {
        if let Err(BrokerError::Ledger(error)) = &came
            && let Error::Busy { op, .. } = **error
        {
            self.look_into(account);
            return Err(BrokerError::InDoubt { account, op, reason: None, why: None });
        }
        Ok(came)
    }

    /// Acts on what a refresh came to, and says it to its callers.
    pub(super) async fn landed(
        &self,
        desk: &Desk,
        account: AccountTag,
        grant: GrantId,
        came: Came,
    ) -> Result<Landed, BrokerError> {
        match came.settled {
            Settled::Issued(pair) | Settled::DifferentUser(pair) => {
                if pair.is_beside() {
                    return Ok(Landed::Pair(Arc::from(pair)));
                }
                self.backoff.end(&Refused::of(account, pair.grant()));
                let (grant, generation) = (pair.grant(), pair.generation());
                self.bell.ring(Event::Refreshed { account, grant, generation });
                self.note_came(&pair);
                let pair: Arc<IssuedPair> = Arc::from(pair);
                self.schedule(desk, &pair, self.ledger.now_ms());
                return Ok(Landed::Pair(pair));
            }
            Settled::Revoked | Settled::Answered => {
                let problem = "the provider answered something else than a pair";
                return Err(BrokerError::Choice { account, problem });
            }
            Settled::InDoubt(_) => self.look_into(account),
            Settled::Refused | Settled::NotSent => {}
        }
        if let Some(refusal) = &came.refusal {
            self.refused(desk, account, grant, refusal).await?;
        }
        Err(came.into_error())
    }
}

/// Begins in place of an operation in doubt, if there is one.
pub(super) fn again(begin: Begin, resending: Option<OpId>) -> Begin {
    match resending {
        Some(op) => begin.resending(op),
        None => begin,
    }
}
