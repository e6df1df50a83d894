//! The changes that are one record each: who holds a grant, how it ended, whose it is.

use super::append::Owned;
use super::{AccountRef, Journal};
use crate::engine::accounts::Seen;
use crate::error::Error;
use crate::format::clear::{
    Adopted, Clear, Ended, Flags, Identified, Merged, Prefix, Released, Resolved, Superseded, Told,
};
use crate::format::value::{Action, Cause, Confidence, ResolvedHow};
use crate::ids::{Account, AccountTag, Generation, GrantId, Holder, Lsn, OpId};

fn prefix(account: AccountTag, grant: GrantId) -> Prefix {
    Prefix { account, grant, generation: Generation::NONE, flags: Flags::NONE, op: OpId::NONE }
}

fn known(seen: &Seen, grant: GrantId) -> Result<(), Error> {
    match seen.state.grant(grant) {
        Some(_) => Ok(()),
        None => Err(Error::UnknownGrant { account: seen.account, grant }),
    }
}

fn live(seen: &Seen, grant: GrantId) -> Result<(), Error> {
    known(seen, grant)?;
    match seen.state.grant(grant).is_some_and(|grant| grant.is_live()) {
        true => Ok(()),
        false => Err(Error::GrantEnded { account: seen.account, grant }),
    }
}

/// What is said of a pair is said of the newest.
fn newest(seen: &Seen, id: GrantId, generation: Generation) -> Result<(), Error> {
    known(seen, id)?;
    match seen.state.grant(id).filter(|grant| grant.generation != generation) {
        Some(grant) => {
            Err(Error::Conflict { account: seen.account, expected: Lsn::NONE, found: grant.issued })
        }
        None => Ok(()),
    }
}

/// Nobody begins to depend on a grant that is being revoked.
fn adoptable(seen: &Seen, grant: GrantId) -> Result<(), Error> {
    live(seen, grant)?;
    let ends = |action: Action| matches!(action, Action::Revoke | Action::Burn);
    let mut operations = seen.state.operations.iter();
    match operations.find(|operation| operation.grant == grant && ends(operation.action)) {
        Some(operation) => Err(Error::Busy { account: seen.account, op: operation.op }),
        None => Ok(()),
    }
}

/// An end of which nothing more is known may be told of again, when more is.
fn may_end(seen: &Seen, grant: GrantId, cause: Cause) -> Result<(), Error> {
    let ended = seen.state.grant(grant).and_then(|grant| grant.ended);
    match ended {
        Some(end) if end.cause == Cause::Unknown && cause != Cause::Unknown => Ok(()),
        _ => live(seen, grant),
    }
}

/// Nothing moves from under a call that is on its way: its outcome would look for it here.
fn settled(seen: &Seen, grant: Option<GrantId>) -> Result<(), Error> {
    let open = seen.state.operations.iter().find(|operation| {
        operation.doubt.is_none() && grant.is_none_or(|grant| grant == operation.grant)
    });
    match open {
        Some(operation) => Err(Error::Busy { account: seen.account, op: operation.op }),
        None => Ok(()),
    }
}

impl Journal {
    /// Appends a record about one grant, after `check` has let it pass.
    async fn change(
        &self,
        account: impl Into<AccountRef>,
        check: impl Fn(&Seen) -> Result<(), Error>,
        clear: impl Fn(AccountTag) -> Clear,
        owned: Owned,
    ) -> Result<Lsn, Error> {
        let account = account.into().tag(self.engine());
        self.append(|| {
            let seen = self.engine().foresee(account)?;
            check(&seen)?;
            Ok((clear(account), owned.clone(), vec![seen]))
        })
        .await
    }

    /// Notes that a holder depends on a grant; before the holder's own transaction commits.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// journal.adopt(&account, pair.grant(), &holder)?;
    /// let view = journal.account(&account)?.ok_or("no account")?;
    /// assert_eq!(view.grants.first().map(|grant| grant.state), Some(GrantState::Held));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGrant`], [`Error::GrantEnded`], and those of every write.
    ///
    /// # Cancel safety
    /// When the future is dropped the change may or may not become durable.
    pub async fn adopt(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        holder: &Holder,
    ) -> Result<Lsn, Error> {
        self.adopt_for(account, grant, holder, std::iter::empty::<String>()).await
    }

    /// As [`Journal::adopt`], and notes the scopes that the holder needs: once another grant covers
    /// them, the holder can be moved there.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// journal.adopt_for(&account, pair.grant(), &holder, ["api"])?;
    /// let view = journal.account(&account)?.ok_or("no account")?;
    /// let held = view.grants.first().and_then(|grant| grant.holders.first());
    /// assert_eq!(held.map(|held| held.scopes.as_slice()), Some(["api".to_owned()].as_slice()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Journal::adopt`].
    ///
    /// # Cancel safety
    /// As [`Journal::adopt`].
    pub async fn adopt_for<S: Into<String>>(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        holder: &Holder,
        scopes: impl IntoIterator<Item = S>,
    ) -> Result<Lsn, Error> {
        let tag = self.engine().keychain.tagger().holder(holder);
        let scopes = scopes.into_iter().map(Into::into).collect();
        let owned = Owned { holder: Some(holder.clone()), scopes, ..Owned::default() };
        let clear =
            |account| Clear::Adopted(Adopted { prefix: prefix(account, grant), holder: tag });
        self.change(account, |seen| adoptable(seen, grant), clear, owned).await
    }

    /// Notes that a holder depends on a grant no longer, as when its transaction was rolled back.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// journal.adopt(&account, pair.grant(), &holder)?;
    /// journal.release(&account, pair.grant(), &holder)?;
    /// let view = journal.account(&account)?.ok_or("no account")?;
    /// assert_eq!(view.grants.first().map(|grant| grant.state), Some(GrantState::Released));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGrant`], and those of every write.
    ///
    /// # Cancel safety
    /// As [`Journal::adopt`].
    pub async fn release(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        holder: &Holder,
    ) -> Result<Lsn, Error> {
        let tag = self.engine().keychain.tagger().holder(holder);
        let clear =
            |account| Clear::Released(Released { prefix: prefix(account, grant), holder: tag });
        self.change(account, |seen| known(seen, grant), clear, Owned::default()).await
    }

    /// As [`Journal::supersede_for`], for a holder that named no scopes.
    ///
    /// # Errors
    /// [`Error::UnknownGrant`], [`Error::GrantEnded`], and those of every write.
    ///
    /// # Cancel safety
    /// As [`Journal::adopt`].
    pub async fn supersede(
        &self,
        account: impl Into<AccountRef>,
        holder: &Holder,
        from: GrantId,
        to: GrantId,
    ) -> Result<Lsn, Error> {
        self.supersede_for(account, holder, from, to, std::iter::empty::<String>()).await
    }

    /// Moves a holder from one grant to another, in one record, with the scopes that it needs.
    ///
    /// # Errors
    /// [`Error::UnknownGrant`], [`Error::GrantEnded`], [`Error::Busy`] while the other grant is being
    /// revoked, and those of every write.
    ///
    /// # Cancel safety
    /// As [`Journal::adopt`].
    pub async fn supersede_for<S: Into<String>>(
        &self,
        account: impl Into<AccountRef>,
        holder: &Holder,
        from: GrantId,
        to: GrantId,
        scopes: impl IntoIterator<Item = S>,
    ) -> Result<Lsn, Error> {
        let tag = self.engine().keychain.tagger().holder(holder);
        let scopes = scopes.into_iter().map(Into::into).collect();
        let owned = Owned { holder: Some(holder.clone()), scopes, ..Owned::default() };
        let clear = |account| {
            Clear::Superseded(Superseded { prefix: prefix(account, from), holder: tag, to })
        };
        let check = |seen: &Seen| known(seen, from).and_then(|()| adoptable(seen, to));
        self.change(account, check, clear, owned).await
    }

    /// Notes that a generation was used with success; the refresh token before it is then no
    /// longer kept.
    ///
    /// # Errors
    /// [`Error::UnknownGrant`], and those of every write.
    ///
    /// # Cancel safety
    /// As [`Journal::adopt`].
    pub async fn worked(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        generation: Generation,
    ) -> Result<Lsn, Error> {
        let clear = |account| Clear::Worked(Prefix { generation, ..prefix(account, grant) });
        self.change(account, |seen| known(seen, grant), clear, Owned::default()).await
    }

    /// Notes when the access token of a grant's newest pair expires, as the provider said when it was
    /// asked: from then on that counts, until there is a newer pair.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// journal.told(&account, pair.grant(), pair.generation(), 1_760_000_300_000)?;
    /// let view = journal.account(&account)?.ok_or("no account")?;
    /// assert_eq!(view.grants.first().map(|grant| grant.expires_at_ms), Some(1_760_000_300_000));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGrant`], [`Error::Conflict`] where there is a newer pair, and those of every
    /// write.
    ///
    /// # Cancel safety
    /// As [`Journal::adopt`].
    pub async fn told(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        generation: Generation,
        expires_at_ms: u64,
    ) -> Result<Lsn, Error> {
        if expires_at_ms == 0 {
            return Err(Error::Option { option: "expires_at_ms", problem: "0 says nothing" });
        }
        let clear = |account| {
            let prefix = Prefix { generation, ..prefix(account, grant) };
            Clear::Told(Told { prefix, expires_at_ms })
        };
        let check = |seen: &Seen| newest(seen, grant, generation);
        self.change(account, check, clear, Owned::default()).await
    }

    /// Notes that a grant is over.
    ///
    /// One that has ended for an unknown cause ([`Cause::Unknown`], as after a refusal that says no
    /// more than that it is dead) may be ended again for a known one: what is said last counts.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// journal.end(&account, pair.grant(), Cause::RevokedElsewhere, Confidence::Certain)?;
    /// assert!(journal.current(&account)?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGrant`], [`Error::GrantEnded`], and those of every write.
    ///
    /// # Cancel safety
    /// As [`Journal::adopt`].
    pub async fn end(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
        cause: Cause,
        confidence: Confidence,
    ) -> Result<Lsn, Error> {
        let clear =
            |account| Clear::Ended(Ended { prefix: prefix(account, grant), cause, confidence });
        self.change(account, |seen| may_end(seen, grant, cause), clear, Owned::default()).await
    }

    /// Undoes what ended a grant; its pair is kept for 30 days after the end.
    ///
    /// # Errors
    /// [`Error::UnknownGrant`], and those of every write.
    ///
    /// # Cancel safety
    /// As [`Journal::adopt`].
    pub async fn revive(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<Lsn, Error> {
        let clear = |account| Clear::Revived(prefix(account, grant));
        self.change(account, |seen| known(seen, grant), clear, Owned::default()).await
    }

    /// Lets a paused grant be refreshed and revoked from now on: whoever refreshed it before it was
    /// imported does so no longer. A grant that is not paused stays as it is.
    ///
    /// # Errors
    /// [`Error::UnknownGrant`], [`Error::GrantEnded`], and those of every write.
    ///
    /// # Cancel safety
    /// As [`Journal::adopt`].
    pub async fn activate(
        &self,
        account: impl Into<AccountRef>,
        grant: GrantId,
    ) -> Result<Lsn, Error> {
        let clear = |account| Clear::Activated(prefix(account, grant));
        self.change(account, |seen| live(seen, grant), clear, Owned::default()).await
    }

    /// Says what became of an operation that was open or in doubt.
    ///
    /// # Errors
    /// [`Error::UnknownOperation`], and those of every write.
    ///
    /// # Cancel safety
    /// As [`Journal::adopt`].
    pub async fn resolve(
        &self,
        account: impl Into<AccountRef>,
        op: OpId,
        how: ResolvedHow,
    ) -> Result<Lsn, Error> {
        let clear = |account| {
            let prefix = Prefix { op, ..prefix(account, GrantId::NONE) };
            Clear::Resolved(Resolved { prefix, how })
        };
        let check = |seen: &Seen| match seen.state.operation(op) {
            Some(_) => Ok(()),
            None => Err(Error::UnknownOperation { account: seen.account, op }),
        };
        self.change(account, check, clear, Owned::default()).await
    }

    /// Drops all that is known of an account whose grants have ended.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// journal.end(&account, pair.grant(), Cause::RevokedByUs, Confidence::Certain)?;
    /// journal.forget(&account)?;
    /// assert!(journal.account(&account)?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::StillLive`] while a grant lives or an operation is open, and those of every write.
    ///
    /// # Cancel safety
    /// As [`Journal::adopt`].
    pub async fn forget(&self, account: impl Into<AccountRef>) -> Result<Lsn, Error> {
        let check = |seen: &Seen| {
            let live = seen.state.grants.iter().filter(|grant| grant.is_live()).count();
            let open = seen.state.operations.len();
            match (live, open) {
                (0, 0) => Ok(()),
                _ => Err(Error::StillLive { account: seen.account, live, open }),
            }
        };
        let clear = |account| Clear::Forgotten(prefix(account, GrantId::NONE));
        self.change(account, check, clear, Owned::default()).await
    }

    /// Moves a grant from a provisional account to the user's own, once it is known.
    ///
    /// # Errors
    /// [`Error::UnknownGrant`], [`Error::Busy`] while a call for the grant is on its way, and those
    /// of every write.
    ///
    /// # Cancel safety
    /// As [`Journal::adopt`].
    pub async fn identify(
        &self,
        provisional: AccountTag,
        grant: GrantId,
        account: &Account,
    ) -> Result<Lsn, Error> {
        let tagger = self.engine().keychain.tagger();
        let (to, app) = (tagger.account(account), tagger.app(&account.app));
        let identified =
            || Clear::Identified(Identified { prefix: prefix(provisional, grant), to, app });
        let check = |seen: &Seen| known(seen, grant).and_then(|()| settled(seen, Some(grant)));
        self.relocate(provisional, to, account, check, identified).await
    }

    /// Says that two accounts are one user: all that was under `from` is under `to` from now on.
    ///
    /// # Errors
    /// [`Error::Busy`] while a call is on its way, and those of every write.
    ///
    /// # Cancel safety
    /// As [`Journal::adopt`].
    pub async fn merge(&self, from: AccountTag, to: &Account) -> Result<Lsn, Error> {
        let tag = self.engine().keychain.tagger().account(to);
        let merged = || Clear::Merged(Merged { prefix: prefix(from, GrantId::NONE), to: tag });
        self.relocate(from, tag, to, |seen| settled(seen, None), merged).await
    }

    async fn relocate(
        &self,
        from: AccountTag,
        to: AccountTag,
        account: &Account,
        check: impl Fn(&Seen) -> Result<(), Error>,
        clear: impl Fn() -> Clear,
    ) -> Result<Lsn, Error> {
        let owned = Owned {
            app: Some(account.app.clone()),
            user: Some(account.user.clone()),
            ..Owned::default()
        };
        if from == to {
            return Err(Error::Option { option: "account", problem: "it cannot move to itself" });
        }
        self.append(|| {
            let seen = self.engine().foresee(from)?;
            check(&seen)?;
            let other = self.engine().foresee(to)?;
            Ok((clear(), owned.clone(), vec![seen, other]))
        })
        .await
    }
}
