//! Imports pairs that were obtained elsewhere, one durable record each.
//!
//! Nothing is asked of the provider. A token that is known here already is never imported again,
//! and what has ended stays so (journal-format.md, section 7.13).

use super::Journal;
use super::append::{Owned, retry_when_stale};
use super::draft::{Contents, Encoded, expiry_flags};
use crate::engine::accounts::Seen;
use crate::engine::fill::Room;
use crate::engine::grant::Grant;
use crate::error::Error;
use crate::format::clear::{Clear, Flags, Issued, Prefix};
use crate::ids::{Account, AccountTag, Fingerprint, Generation, GrantId, Holder, Lsn, OpId};
use crate::outcome::TokenResponse;
use crate::secret::Secret;
use serde::Serialize;
use std::pin::pin;
use std::time::Duration;

/// A pair that was obtained elsewhere, to become a grant.
#[derive(Debug)]
pub struct Import {
    pub(crate) account: Account,
    pub(crate) response: TokenResponse,
    pub(crate) holder: Option<Holder>,
    pub(crate) scopes: Vec<String>,
    pub(crate) paused: bool,
    pub(crate) adopt_within: Option<Duration>,
}

impl Import {
    /// Names the account, and the pair as the provider once answered it; a user in the answer is
    /// left aside.
    pub fn new(account: &Account, response: TokenResponse) -> Self {
        Self {
            account: account.clone(),
            response,
            holder: None,
            scopes: Vec::new(),
            paused: true,
            adopt_within: None,
        }
    }

    /// Returns whose pair it is.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Returns the refresh token that is taken in, if there is one.
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.response.parts().refresh_token.as_ref()
    }

    /// Names who depends on it; the holder has adopted it by the same record.
    pub fn holder(mut self, holder: &Holder) -> Self {
        self.holder = Some(holder.clone());
        self
    }

    /// Names the scopes, where the pair does not say them itself.
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Says whether the grant is neither refreshed nor revoked until
    /// [`Journal::activate`]; so it is by default, since whoever has refreshed it may still do so.
    pub fn paused(mut self, paused: bool) -> Self {
        self.paused = paused;
        self
    }

    /// Says how long it waits for a holder, if none is named; by default as long as
    /// [`adopt_within`](crate::Options::adopt_within) says.
    pub fn adopt_within(mut self, time: Duration) -> Self {
        self.adopt_within = Some(time);
        self
    }
}

/// What became of an import, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Imported {
    /// The account's tag.
    pub account: AccountTag,
    /// The grant that has the token.
    pub grant: GrantId,
    /// Its newest generation.
    pub generation: Generation,
    /// LSN of the newest pair's record.
    pub lsn: Lsn,
    /// The token was known: it is one that this grant has, that it had before its newest, or that
    /// it began with. No pair was stored.
    pub already: bool,
    /// That grant has ended, and an import does not revive it.
    pub ended: bool,
}

impl Journal {
    /// Makes a grant of a pair that was obtained elsewhere: one durable record, and no call to the
    /// provider.
    ///
    /// A token that the account's grants know is not imported again, whatever has become of it since:
    /// the answer is then `already`, and the only change is that a holder who is named, and does not
    /// hold that grant, adopts it if it lives. So an import may be repeated from its beginning.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let body = br#"{"access_token":"00D!B","refresh_token":"5AepB"}"#.to_vec();
    /// let again = || TokenResponse::parse(body.clone(), 1_760_000_000_000);
    /// let imported = journal.import(Import::new(&account, again()?).holder(&holder))?;
    /// assert!(!imported.already);
    /// assert!(journal.import(Import::new(&account, again()?))?.already);
    ///
    /// let refused = journal.begin(Begin::refresh(&account, imported.grant));
    /// assert!(matches!(refused, Err(Error::Paused { .. })));
    /// journal.activate(&account, imported.grant)?;
    /// journal.begin(Begin::refresh(&account, imported.grant))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of every write.
    ///
    /// # Cancel safety
    /// When the future is dropped the import may or may not become durable; it can be repeated.
    pub async fn import(&self, import: Import) -> Result<Imported, Error> {
        let engine = self.engine();
        let account = engine.keychain.tagger().account(&import.account);
        let token = self.token_of(&import);
        loop {
            let seen = engine.foresee(account)?;
            if let Some(grant) = seen.state.by_token(token) {
                match self.already(&import, &seen, grant).await {
                    // It has just ended, or moved away.
                    Err(Error::GrantEnded { .. } | Error::UnknownGrant { .. }) => continue,
                    result => return result,
                }
            }
            match self.import_new(&import, account, token).await {
                // Somebody else has just imported the same.
                Err(Error::Conflict { .. }) => {}
                result => return result,
            }
        }
    }

    /// Takes the fingerprint of what a pair is known by.
    fn token_of(&self, import: &Import) -> Fingerprint {
        let parts = import.response.parts();
        let token = parts.refresh_token.as_ref().unwrap_or(&parts.access_token);
        self.engine().keychain.tagger().fingerprint(token.reveal())
    }

    async fn import_new(
        &self,
        import: &Import,
        account: AccountTag,
        token: Fingerprint,
    ) -> Result<Imported, Error> {
        let engine = self.engine();
        let parts = import.response.parts();
        let owned = Owned {
            app: Some(import.account.app.clone()),
            user: Some(import.account.user.clone()),
            holder: import.holder.clone(),
            scopes: parts.scopes.clone().unwrap_or_else(|| import.scopes.clone()),
        };
        let contents =
            Contents { parts, inherited: None, owned, access_scopes: None, beside: false };
        let (submission, ()) = retry_when_stale(engine, Room::Take, || {
            let seen = engine.foresee(account)?;
            if seen.state.by_token(token).is_some() {
                let (expected, found) = (Lsn::NONE, seen.state.version);
                return Err(Error::Conflict { account, expected, found });
            }
            let clear = Clear::Imported(self.imported(import, account));
            Ok((clear, Box::new(Encoded(contents.to_plain())) as _, vec![seen], ()))
        })
        .await?;
        self.durable(submission.durable).await?;
        let (lsn, grant) = (submission.lsn, GrantId(submission.lsn.0));
        let generation = Generation(1);
        Ok(Imported { account, grant, generation, lsn, already: false, ended: false })
    }

    fn imported(&self, import: &Import, account: AccountTag) -> Issued {
        let engine = self.engine();
        let tagger = engine.keychain.tagger();
        let parts = import.response.parts();
        let fingerprint = |token: &Secret| tagger.fingerprint(token.reveal());
        let access = Some(&parts.access_token).filter(|token| !token.reveal().is_empty());
        let flag = |set: bool, flag: Flags| if set { flag } else { Flags::NONE };
        let flags = flag(parts.refresh_token.is_some(), Flags::REFRESH)
            | flag(import.paused, Flags::PAUSED)
            | expiry_flags(parts);
        let within = import.adopt_within.map(|time| time.as_millis());
        let within = within.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX));
        let within_ms = within.unwrap_or_else(|| self.adopt_within_ms());
        Issued {
            prefix: Prefix {
                account,
                grant: GrantId::NONE,
                generation: Generation(1),
                flags,
                op: OpId::NONE,
            },
            app: tagger.app(&import.account.app),
            holder: import.holder.as_ref().map(|holder| tagger.holder(holder)).unwrap_or_default(),
            access: access.map(fingerprint).unwrap_or_default(),
            refresh: parts.refresh_token.as_ref().map(fingerprint).unwrap_or_default(),
            issued_at_ms: parts.issued_at_ms.unwrap_or(parts.received_at_ms),
            expires_at_ms: parts.expires_at_ms.unwrap_or_default(),
            adopt_by_ms: engine.seams.clock.now_ms().saturating_add(within_ms),
            fence: Lsn::NONE,
            from: AccountTag::NONE,
            first: Fingerprint::NONE,
            earlier_lapse_at_ms: 0,
        }
    }

    /// Answers for a token that is known, once all that is known of it is durable.
    async fn already(
        &self,
        import: &Import,
        seen: &Seen,
        grant: &Grant,
    ) -> Result<Imported, Error> {
        let account = seen.account;
        let ended = grant.ended.is_some();
        let tagger = self.engine().keychain.tagger();
        let wanted = import.holder.as_ref().filter(|holder| {
            let tag = tagger.holder(holder);
            !ended && grant.holders.iter().all(|held| held.holder != tag)
        });
        match wanted {
            Some(holder) => {
                let parts = import.response.parts();
                let scopes = parts.scopes.as_ref().unwrap_or(&import.scopes);
                self.adopt_for(account, grant.id, holder, scopes.iter().map(String::as_str))
                    .await?;
            }
            None => self.durable_through(seen.state.version).await?,
        }
        Ok(Imported {
            account,
            grant: grant.id,
            generation: grant.generation,
            lsn: grant.issued,
            already: true,
            ended,
        })
    }

    /// Waits until all records up to this one are durable.
    async fn durable_through(&self, lsn: Lsn) -> Result<(), Error> {
        let engine = self.engine();
        loop {
            let mut written = pin!(engine.space.notified());
            written.as_mut().enable();
            if engine.head() >= lsn {
                return Ok(());
            }
            if let Some(poison) = self.poison() {
                return Err(Error::Poisoned(poison));
            }
            engine.signal.raise();
            written.await;
        }
    }
}
