//! Access tokens of other scopes, or for another resource, beside a grant's chain of pairs (RFC 6749,
//! section 6). They never become the current pair of anybody who asked for none of them.

use super::backoff::Refused;
use super::error::BrokerError;
use super::refresh::again;
use super::rules::covers;
use super::tokens::owned;
use super::{Broker, Inner, Key, Landed};
use crate::format::value::Action;
use crate::ids::{AccountTag, GrantId, OpId};
use crate::journal::{AccountRef, Begin, IssuedPair, OperationView};
use crate::ledger::Ledger;
use crate::outcome::{NotSent, Outcome};
use std::sync::Arc;

impl<L: Ledger> Broker<L> {
    /// Returns an access token of a grant that has these scopes and stands beside the grant's chain
    /// of pairs: one that is valid still, or that of one refresh for these scopes.
    ///
    /// The grant's own pair stays the current one. Where the provider answers with another refresh
    /// token, as one that rotates them does, the answer is the grant's next pair instead, and that
    /// is returned: its access token is for those who ask for its scopes so, and nobody else is
    /// given it ([`IssuedPair::access_scopes`]). Each change between such scopes and the grant's own
    /// is a refresh there.
    ///
    /// # Errors
    /// As [`Broker::access_token`]; [`BrokerError::Choice`] where no scopes are named, or the grant
    /// has no refresh token.
    ///
    /// # Cancel safety
    /// As [`Broker::access_token`].
    pub async fn access_token_beside(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        scopes: &[&str],
    ) -> Result<Arc<IssuedPair>, BrokerError> {
        let account = self.0.account_of(&account.into()).await?;
        if scopes.is_empty() {
            let problem = "name the scopes of the token beside the grant's own";
            return Err(BrokerError::Choice { account, problem });
        }
        let now_ms = self.0.ledger.now_ms();
        let is_valid = |pair: &IssuedPair| pair.expires_at_ms().is_none_or(|at_ms| now_ms < at_ms);
        // Those of a grant that is over are nobody's any longer.
        let ready = self.0.ready(account).await?;
        let own = ready.grants.iter().find(|ready| ready.grant() == grant);
        let own = own.ok_or(BrokerError::NeedsAuthorization { account })?;
        let is_such = own.pair.is_narrowed() && covers(own.pair.access_scopes(), scopes);
        if is_such && own.is_valid(now_ms) {
            self.0.hand(&own.pair);
            return Ok(Arc::clone(&own.pair));
        }
        let beside = self.0.ledger.beside(account, grant).await?;
        let fits = |pair: &IssuedPair| is_valid(pair) && covers(pair.scopes(), scopes);
        match beside.into_iter().find(fits) {
            Some(pair) => {
                self.0.hand(&pair);
                Ok(Arc::new(pair))
            }
            None => self.0.refreshed_beside(account, grant, owned(scopes)).await,
        }
    }
}

impl<L: Ledger> Inner<L> {
    /// Finds another token instead of one beside a grant's chain that a resource refused.
    pub(super) async fn rejected_beside(
        &self,
        pair: &IssuedPair,
    ) -> Result<Arc<IssuedPair>, BrokerError> {
        let (account, grant) = (pair.account(), pair.grant());
        let beside = self.ledger.beside(account, grant).await?;
        let is_newer =
            |other: &IssuedPair| other.lsn() > pair.lsn() && covers(other.scopes(), pair.scopes());
        match beside.into_iter().find(is_newer) {
            Some(newer) => {
                self.hand(&newer);
                Ok(Arc::new(newer))
            }
            None => self.refreshed_beside(account, grant, pair.scopes().to_vec()).await,
        }
    }

    /// Asks again for what an operation in doubt was to bring beside a grant's chain: whatever comes
    /// of the same request stays so.
    pub(super) async fn resend_beside(
        &self,
        account: AccountTag,
        open: &OperationView,
    ) -> Result<(), BrokerError> {
        let scopes = open.scopes.clone();
        self.refresh_beside_now(account, open.grant, scopes, Some(open.op)).await.map(drop)
    }

    /// Refreshes a grant for these scopes; calls on one grant come one after the other.
    pub(super) async fn refreshed_beside(
        &self,
        account: AccountTag,
        grant: GrantId,
        scopes: Vec<String>,
    ) -> Result<Arc<IssuedPair>, BrokerError> {
        let inner = self.handle()?;
        loop {
            let (mut mine, work) = (false, (Arc::clone(&inner), scopes.clone()));
            let work = || {
                mine = true;
                async move {
                    let (inner, scopes) = work;
                    let refused = Refused::of(account, grant).beside(&scopes);
                    let call = inner.refresh_beside_now(account, grant, scopes, None);
                    let landed = inner.unless_refused(&refused, false, call).await;
                    let pair = landed.and_then(|landed| match landed {
                        Landed::Pair(pair) => Ok(pair),
                        _ => Err(BrokerError::Closed),
                    });
                    Ok(Landed::Beside(Box::new(pair)))
                }
            };
            let key = Key::Grant(account, grant);
            match self.flights.join(key, &self.tasks, work).await {
                Some(Ok(Landed::Beside(landed))) => match *landed {
                    Ok(pair) if mine || covers(pair.access_scopes(), &scopes) => {
                        self.hand(&pair);
                        return Ok(pair);
                    }
                    Err(error) if mine => return Err(error),
                    // It was for other scopes.
                    _ => {}
                },
                // Another call on the grant was on its way.
                Some(_) => {}
                None => return Err(BrokerError::Lost),
            }
        }
    }

    async fn refresh_beside_now(
        &self,
        account: AccountTag,
        grant: GrantId,
        scopes: Vec<String>,
        resending: Option<OpId>,
    ) -> Result<Landed, BrokerError> {
        let ready = self.ready(account).await?;
        let desk = Arc::clone(ready.desk()?);
        let target = self.presentable(&ready, grant, resending).await?;
        if target.pair.refresh_token().is_none() {
            let problem = "the grant has no refresh token to ask for other scopes with";
            return Err(BrokerError::Choice { account, problem });
        }
        let begin = again(Begin::refresh(account, grant).beside(scopes.iter()), resending);
        let came = self.call(&desk, Action::Refresh, begin, move |upstream, pair| {
            Box::pin(async move {
                match pair {
                    Some(pair) => upstream.refresh_for(pair, &scopes).await,
                    None => Outcome::NotSent(NotSent::GivenUp),
                }
            })
        });
        let came = self.unless_busy(account, came.await)?;
        self.shelf.drop(account);
        self.landed(&desk, account, grant, came?).await
    }
}
