//! Looks up what is durable: current pairs, accounts, all of them at one LSN.
//!
//! Nothing that is still in flight shows here; a poisoned journal still answers.

use super::view::Sight;
use super::{AccountRef, AccountView, IssuedPair, Journal};
use crate::engine::Engine;
use crate::engine::accounts::Accounts as DurableAccounts;
use crate::engine::grant::Grant;
use crate::engine::replay::Walk;
use crate::engine::state::AccountState;
use crate::error::Error;
use crate::ids::{AccountTag, GrantId, Lsn};
use crate::sync::read_lock;
use std::sync::Arc;

impl Journal {
    /// Returns the newest pair of the account's newest live grant.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let current = journal.current(&account)?.ok_or("no pair")?;
    /// assert_eq!(current.access_token().reveal(), "00D!AQ");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the account's part of the store is damaged, [`Error::Io`]. A
    /// poisoned journal still answers.
    pub async fn current(
        &self,
        account: impl Into<AccountRef>,
    ) -> Result<Option<IssuedPair>, Error> {
        let account = account.into().tag(self.engine());
        self.engine().with_state(account, |state| {
            let newest = state.newest_live();
            newest.map(|grant| self.read_pair(account, grant, grant.issued)).transpose()
        })
    }

    /// Returns the newest pair of one grant, also of one that has ended while it is still kept.
    ///
    /// # Errors
    /// As [`Journal::current`].
    pub async fn current_of(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<Option<IssuedPair>, Error> {
        let account = account.into().tag(self.engine());
        self.engine().with_state(account, |state| {
            let grant = state.grant(grant);
            grant.map(|grant| self.read_pair(account, grant, grant.issued)).transpose()
        })
    }

    /// Returns the pair before the newest, which is kept until the newest has worked.
    ///
    /// # Errors
    /// As [`Journal::current`].
    pub async fn previous_of(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<Option<IssuedPair>, Error> {
        let account = account.into().tag(self.engine());
        self.engine().with_state(account, |state| {
            let previous = state.grant(grant).filter(|grant| !grant.previous.is_none());
            previous.map(|grant| self.read_pair(account, grant, grant.previous)).transpose()
        })
    }

    /// Returns the access tokens of other scopes beside the grant's newest pair, the newest first:
    /// one for each set of scopes that was asked for, and 8 in all. They may have lapsed; a grant that
    /// is over has none.
    ///
    /// # Errors
    /// As [`Journal::current`].
    pub async fn beside_of(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<Vec<IssuedPair>, Error> {
        let account = account.into().tag(self.engine());
        self.engine().with_state(account, |state| {
            let grant = state.grant(grant).filter(|grant| grant.ended.is_none());
            let Some(grant) = grant else { return Ok(Vec::new()) };
            let newest_first = grant.besides.iter().rev();
            newest_first.map(|beside| self.read_pair(account, grant, beside.record)).collect()
        })
    }

    pub(super) fn read_pair(
        &self,
        account: AccountTag,
        grant: &Grant,
        lsn: Lsn,
    ) -> Result<IssuedPair, Error> {
        let engine = self.engine();
        let bytes = engine.record_of(account, &grant.homes, lsn)?;
        let mut pair = IssuedPair::from_record(&engine.keychain, &bytes, account, grant.id)?;
        if lsn == grant.issued && !grant.told.is_none() {
            pair.hear(grant.pair.expires_at_ms);
        }
        Ok(pair)
    }

    /// Returns what is known of an account, or nothing.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let view = journal.account(&account)?.ok_or("no account")?;
    /// assert_eq!(view.grants.len(), 1);
    /// assert!(view.in_doubt.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Journal::current`].
    pub async fn account(
        &self,
        account: impl Into<AccountRef>,
    ) -> Result<Option<AccountView>, Error> {
        let engine = self.engine();
        let account = account.into().tag(engine);
        engine.with_state(account, |state| {
            if state.is_empty() {
                return Ok(None);
            }
            let homes = state.homes();
            let read = |lsn| engine.record_of(account, &homes, lsn);
            let claimed = read_lock(&engine.durable).claimed();
            let sight = Sight { keychain: Some(&engine.keychain), read: &read, claimed };
            AccountView::of(account, state, sight).map(Some)
        })
    }

    /// Walks all accounts in the order of their tags, as they are now; what is written meanwhile
    /// does not show.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let accounts: Result<Vec<_>, _> = async_journal.accounts().collect();
    /// assert_eq!(accounts?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn accounts(&self) -> Accounts {
        let engine = self.engine();
        // Accounts and files under one lock, so that they belong together.
        let (lsn, claimed, memory, files) = {
            let durable: &DurableAccounts = &read_lock(&engine.durable);
            let memory = durable.in_memory();
            (engine.head(), durable.claimed(), memory, read_lock(&engine.files).clone())
        };
        let walk = Walk::new(files, memory);
        Accounts { engine: Arc::clone(engine), walk, lsn, claimed }
    }

    /// Names the accounts at which somebody should look, in the order of their tags: an operation is
    /// open or in doubt there, or a live grant has no holder, or they cannot be read.
    ///
    /// It costs what changed since the newest snapshot, not what the store holds; what was not
    /// looked at since the store was opened is read for it, once.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// assert_eq!(async_journal.pending_accounts(), [pair.account()], "nobody has adopted it yet");
    /// journal.adopt(&account, pair.grant(), &holder)?;
    /// assert!(async_journal.pending_accounts().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn pending_accounts(&self) -> Vec<AccountTag> {
        self.engine().pending_accounts()
    }

    /// Returns the LSN with which the store was last taken over by another host, or none: what was
    /// issued before it may have been presented by the host before.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// assert!(async_journal.claimed().is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn claimed(&self) -> Lsn {
        read_lock(&self.engine().durable).claimed()
    }

    /// Returns when the newest record was made that is known, in milliseconds since 1970: a clock that
    /// is behind it was set back.
    pub(crate) fn newest_ms(&self) -> u64 {
        read_lock(&self.engine().durable).newest_ms()
    }
}

/// All accounts of a store at one LSN, in the order of their tags.
///
/// An account that cannot be read is an error, and the next ones follow.
#[derive(Debug)]
pub struct Accounts {
    engine: Arc<Engine>,
    walk: Walk,
    lsn: Lsn,
    claimed: Lsn,
}

impl Accounts {
    /// Returns the LSN at which the accounts are shown.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    fn view(&self, account: AccountTag, state: &AccountState) -> Result<AccountView, Error> {
        let homes = state.homes();
        let read = |lsn| {
            let accounts = std::iter::once(account).chain(homes.iter().copied());
            self.walk.files().read(lsn, accounts)
        };
        let keychain = Some(&self.engine.keychain);
        AccountView::of(account, state, Sight { keychain, read: &read, claimed: self.claimed })
    }
}

impl Iterator for Accounts {
    type Item = Result<AccountView, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.walk.next().transpose()?;
        Some(next.and_then(|(account, state)| self.view(account, &state)))
    }
}
