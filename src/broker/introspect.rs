//! Asking a provider about tokens (RFC 7662), and keeping what it says of when one expires.

use super::app::Desk;
use super::call::Came;
use super::error::BrokerError;
use super::upstream::Which;
use super::{Broker, Inner};
use crate::error::Error;
use crate::format::value::Action;
use crate::ids::{AccountTag, Generation, GrantId};
use crate::journal::{AccountRef, Begin, Settled};
use crate::ledger::{Change, Ledger};
use crate::outcome::{ExpirySource, Introspection, NotSent, Outcome};
use crate::sync::lock;
use std::sync::{Arc, Mutex};

/// What an introspection was of.
#[derive(Clone, Copy, Default)]
struct About {
    generation: Generation,
    /// When the access token expires, in milliseconds since 1970, if that needs no more telling.
    known_ms: Option<u64>,
}

impl<L: Ledger> Broker<L> {
    /// Asks the provider about the newest access token of a grant; none where its answer is not one.
    ///
    /// If the token works, and the provider says until when, that is recorded: it goes before what
    /// was assumed, until there is a newer pair.
    ///
    /// # Errors
    /// As [`Broker::access_token`], and those of every write.
    ///
    /// # Cancel safety
    /// Dropping the future stops nothing.
    pub async fn introspect(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<Option<Introspection>, BrokerError> {
        let account = self.0.account_of(&account.into()).await?;
        self.0
            .in_task(move |inner| async move {
                let ready = inner.ready(account).await?;
                if !ready.grants.iter().any(|ready| ready.grant() == grant) {
                    return Err(BrokerError::NeedsAuthorization { account });
                }
                let (said, came) = inner.ask(ready.desk()?, account, grant, Which::Access).await?;
                match came.settled {
                    Settled::Answered => Ok(said),
                    _ => Err(came.into_error()),
                }
            })
            .await
    }
}

impl<L: Ledger> Inner<L> {
    /// Asks about a token of the newest pair of a grant, and takes note of when its access token
    /// expires if it is that which was asked about.
    pub(super) async fn ask(
        &self,
        desk: &Desk,
        account: AccountTag,
        grant: GrantId,
        which: Which,
    ) -> Result<(Option<Introspection>, Came), BrokerError> {
        let heard = Arc::new(Mutex::new((None, About::default())));
        let hear = Arc::clone(&heard);
        let begin = Begin::introspect(account, grant);
        let came = self.call(desk, Action::Introspect, begin, move |upstream, pair| match pair {
            Some(pair) => Box::pin(async move {
                let (introspection, outcome) = upstream.introspect(pair, which).await;
                let is_assumed = pair.expiry_source() == Some(ExpirySource::Assumed);
                let known_ms = pair.expires_at_ms().filter(|_| !is_assumed);
                let about = About { generation: pair.generation(), known_ms };
                *lock(&hear) = (introspection, about);
                outcome
            }),
            None => Box::pin(std::future::ready(Outcome::NotSent(NotSent::GivenUp))),
        });
        let came = came.await?;
        let (said, about) = std::mem::take(&mut *lock(&heard));
        if let (Some(said), Which::Access, Settled::Answered) = (&said, which, &came.settled) {
            self.note_expiry(account, grant, about, said).await?;
        }
        Ok((said, came))
    }

    async fn note_expiry(
        &self,
        account: AccountTag,
        grant: GrantId,
        about: About,
        said: &Introspection,
    ) -> Result<(), BrokerError> {
        let told = said.expires_at_ms.filter(|at_ms| said.active && *at_ms > 0);
        let Some(expires_at_ms) = told.filter(|_| told != about.known_ms) else { return Ok(()) };
        let generation = about.generation;
        match self.change(account, Change::Told { grant, generation, expires_at_ms }).await {
            // There is a newer pair, or the grant is elsewhere: it says nothing of that.
            Err(BrokerError::Ledger(error))
                if matches!(*error, Error::Conflict { .. } | Error::UnknownGrant { .. }) =>
            {
                Ok(())
            }
            changed => changed.map(drop),
        }
    }
}
