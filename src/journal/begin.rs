//! Begins an operation: its intent is durable before the request leaves.

use super::append::{Owned, Planned, retry_when_stale};
use super::cap::Cap;
use super::plan::Plan;
use super::ticket::{Promise, Ticket};
use super::{AccountRef, Journal};
use crate::engine::fill::Room;
use crate::error::Error;
use crate::format::clear::Clear;
use crate::format::value::Action;
use crate::ids::{Account, AccountTag, App, GrantId, Holder, Lsn, OpId, User};
use crate::secret::Secret;
use std::sync::Arc;
use std::time::Duration;

/// Says what is about to be asked of a provider.
#[derive(Debug, Clone)]
pub struct Begin {
    pub(crate) action: Action,
    pub(crate) target: Target,
    pub(crate) holder: Option<Holder>,
    pub(crate) scopes: Vec<String>,
    pub(crate) deadline: Duration,
    pub(crate) expected: Option<Lsn>,
    pub(crate) under: Option<(AccountTag, Lsn)>,
    pub(crate) cap: Option<Cap>,
    pub(crate) resending: Option<OpId>,
    pub(crate) beside: bool,
    /// Shared, not copied: a token in memory is there once.
    pub(crate) presenting: Option<Arc<Secret>>,
}

#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A new grant; the user may not be known yet.
    New { app: App, user: Option<User> },
    /// A grant that there is.
    Grant { account: AccountRef, grant: GrantId },
    /// The standing grant of an account, or a new one.
    Standing { account: Account },
    /// What an exchange in doubt may have issued.
    Doubtful { account: AccountRef, op: OpId },
}

impl Begin {
    fn new(action: Action, target: Target) -> Self {
        Self {
            action,
            target,
            holder: None,
            scopes: Vec::new(),
            deadline: Duration::from_secs(60),
            expected: None,
            under: None,
            cap: None,
            resending: None,
            beside: false,
            presenting: None,
        }
    }

    /// Asks for a new grant, as by exchanging an authorization code.
    pub fn exchange(app: &App) -> Self {
        Self::new(Action::Exchange, Target::New { app: app.clone(), user: None })
    }

    /// Asks for the next generation of a grant.
    pub fn refresh(account: impl Into<AccountRef>, grant: GrantId) -> Self {
        Self::new(Action::Refresh, Target::Grant { account: account.into(), grant })
    }

    /// Asks the provider to end a grant.
    pub fn revoke(account: impl Into<AccountRef>, grant: GrantId) -> Self {
        Self::new(Action::Revoke, Target::Grant { account: account.into(), grant })
    }

    /// Asks the provider about a grant's token.
    pub fn introspect(account: impl Into<AccountRef>, grant: GrantId) -> Self {
        Self::new(Action::Introspect, Target::Grant { account: account.into(), grant })
    }

    /// Asks for a pair by an assertion or by client credentials. All mints of an account are one
    /// standing grant.
    pub fn mint(account: &Account) -> Self {
        Self::new(Action::Mint, Target::Standing { account: account.clone() })
    }

    /// Presents the code of an exchange in doubt again, to have the provider revoke what it may have
    /// issued for it. The code is given by [`presenting`](Self::presenting), and must be the one.
    ///
    /// What comes of it is settled as of any operation; the exchange stays in doubt until it is
    /// [resolved](Journal::resolve). Both count as one toward a [cap](Self::cap).
    pub fn burn(account: impl Into<AccountRef>, op: OpId) -> Self {
        Self::new(Action::Burn, Target::Doubtful { account: account.into(), op })
    }

    /// Names the user of an exchange, if it is known beforehand.
    pub fn user(mut self, known: &User) -> Self {
        if let Target::New { user, .. } = &mut self.target {
            *user = Some(known.clone());
        }
        self
    }

    /// Names the holder on whose behalf this is done.
    pub fn holder(mut self, holder: &Holder) -> Self {
        self.holder = Some(holder.clone());
        self
    }

    /// Names the scopes that are asked for.
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Says when the call will have been given up; 60 s from now by default.
    pub fn deadline(mut self, time: Duration) -> Self {
        self.deadline = time;
        self
    }

    /// Refuses with [`Error::Conflict`] unless the account is still at this version.
    pub fn expecting(mut self, version: Lsn) -> Self {
        self.expected = Some(version);
        self
    }

    /// Has an exchange known by a tag of the caller's: one that was drawn at random when the user was
    /// sent off to authorise, or that is made of the code and of a secret of that click
    /// ([`AccountTag::of_exchange`]). `since` is what [`Journal::head`] was when the user was sent
    /// off; it is kept where the callback brings it back. While the user is not known the exchange
    /// stands under a provisional account with this tag.
    ///
    /// A tag is used once: a callback that is delivered again is refused with
    /// [`Error::CallbackUsed`], for a code that is presented twice may have the provider revoke
    /// what it issued for it (RFC 6749, section 4.1.2). [`Journal::redeemed`] says where the first
    /// one went. So is a code of which [`presenting`](Begin::presenting) tells: the error names the
    /// tag under which it was presented, if not this one. Where the user is known, the code of an
    /// exchange is remembered by the tag alone, that is, if it was made of it.
    ///
    /// The journal knows of the last 16,384 such tags that were used since the snapshot with which
    /// it was opened; where it may know no longer of what was used since `since`, it answers
    /// [`Error::CallbackTooOld`].
    pub fn under(mut self, tag: AccountTag, since: Lsn) -> Self {
        self.under = Some((tag, since));
        self
    }

    /// Refuses an exchange with [`Error::CapReached`] if one more grant would be one too many: of
    /// two that begin at once, one hears it. Not checked while the user is not known.
    pub fn cap(mut self, cap: Cap) -> Self {
        self.cap = Some(cap);
        self
    }

    /// Lets the operation stand beside one on the same grant that is in doubt, or was left open by
    /// an earlier opening of the store; never beside a call that is on its way. That one stays in
    /// doubt until it is [resolved](Journal::resolve). Not for an exchange.
    pub fn resending(mut self, op: OpId) -> Self {
        self.resending = Some(op);
        self
    }

    /// Asks a refresh for an access token of other scopes, or for another resource, beside the
    /// grant's chain of pairs: the newest pair stays the newest, and what comes is one of
    /// [`Journal::beside_of`].
    ///
    /// An answer with another refresh token than was presented is no longer beside: it is the next
    /// generation. That has the scopes of the one before it, as the refresh token does (RFC 6749,
    /// section 6); the access token's own are [`IssuedPair::access_scopes`](super::IssuedPair::access_scopes).
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let ticket = journal.begin(Begin::refresh(&account, pair.grant()).beside(["wave"]))?;
    /// journal.settle(ticket, answer("00D!WAVE")?)?;
    /// let beside = journal.beside_of(&account, pair.grant())?;
    /// assert_eq!(beside.first().map(|pair| pair.access_token().reveal()), Some("00D!WAVE"));
    /// let newest = journal.current(&account)?.ok_or("no pair")?;
    /// assert_eq!(newest.access_token().reveal(), "00D!AQ");
    /// # Ok(())
    /// # }
    /// ```
    pub fn beside<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.beside = true;
        self.scopes(scopes)
    }

    /// Names the code that an exchange or a burn presents. Its fingerprint is kept, not the code.
    pub fn presenting(mut self, code: &Secret) -> Self {
        self.presenting = Some(Arc::new(Secret::new(code.reveal().to_owned())));
        self
    }

    /// Refuses what is asked for where it has no meaning, lest a caller rely on it.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |option, problem| Err(Error::Option { option, problem });
        let is_exchange = matches!(self.target, Target::New { .. });
        let has_code = matches!(self.action, Action::Exchange | Action::Burn);
        match self.under {
            Some(_) if !is_exchange => wrong("under", "only for an exchange"),
            Some((tag, _)) if tag.is_none() => wrong("under", "the tag is none"),
            _ if self.beside && self.action != Action::Refresh => {
                wrong("beside", "only for a refresh")
            }
            _ if self.beside && self.scopes.is_empty() => wrong("beside", "name the scopes"),
            _ if self.presenting.is_some() && !has_code => {
                wrong("presenting", "only for an exchange or a burn")
            }
            _ if self.resending.is_some() && self.action == Action::Exchange => {
                wrong("resending", "a code is never presented twice but to burn it")
            }
            _ => Ok(()),
        }
    }
}

impl Journal {
    /// Makes an intent durable, reserves room for its outcome, and gives the ticket to settle.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let ticket = journal.begin(Begin::refresh(&account, pair.grant()))?;
    /// let presented = ticket.current().and_then(|pair| pair.refresh_token());
    /// assert_eq!(presented.map(Secret::reveal), Some("5Aep861"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownGrant`], [`Error::GrantEnded`], [`Error::Busy`] while another operation on
    /// the grant is open or in doubt, [`Error::Conflict`], [`Error::NoRoom`] when the disk cannot
    /// promise to hold the outcome, [`Error::Poisoned`], [`Error::Closed`]; those that
    /// [`Begin::under`] and [`Begin::cap`] name; [`Error::UnknownOperation`] where the operation to
    /// resend or to burn is not open, [`Error::OtherToken`] where a burn would present another
    /// code; [`Error::BehindHead`] where a callback comes from a later state of the store. No
    /// request may be sent then.
    ///
    /// # Cancel safety
    /// When the future is dropped the intent may or may not become durable; an operation that
    /// nobody settles is in doubt when the store is opened next.
    pub async fn begin(&self, begin: Begin) -> Result<Ticket, Error> {
        begin.check()?;
        let engine = self.engine();
        let promise = engine.limits.promise();
        let drawn = match begin.under {
            Some((tag, _)) => tag,
            None => self.random_account()?,
        };
        let room = Room::TakeAndPromise(promise);
        let draft = || self.draft_intent(&begin, drawn);
        let (submission, plan) = retry_when_stale(engine, room, draft).await?;
        let promise = Promise { engine: Arc::downgrade(engine), bytes: promise };
        let lsn = submission.lsn;
        self.durable(submission.durable).await?;
        Ok(Ticket {
            op: OpId(lsn.0),
            action: begin.action,
            account: plan.account,
            grant: plan.grant,
            generation: plan.generation,
            version: lsn,
            app: plan.app,
            user: plan.user,
            holder: begin.holder,
            scopes: begin.scopes,
            beside: begin.beside,
            current: plan.current,
            promise,
        })
    }

    fn random_account(&self) -> Result<AccountTag, Error> {
        let mut tag = [0; 16];
        self.engine()
            .seams
            .entropy
            .fill(&mut tag)
            .map_err(Error::io("drawing a tag", "the system's random generator"))?;
        Ok(AccountTag::from_bytes(tag))
    }

    fn draft_intent(&self, begin: &Begin, drawn: AccountTag) -> Result<Planned<Plan>, Error> {
        let plan = self.plan(begin, drawn)?;
        let tagger = self.engine().keychain.tagger();
        let holder = begin.holder.as_ref().map(|holder| tagger.holder(holder));
        let clear = Clear::Intent(self.intent(begin, &plan, holder.unwrap_or_default()));
        let owned = Owned {
            app: plan.app.clone(),
            user: plan.user.clone(),
            holder: begin.holder.clone(),
            scopes: begin.scopes.clone(),
        };
        let seen = vec![plan.seen.clone()];
        Ok((clear, Box::new(owned) as _, seen, plan))
    }
}

#[cfg(test)]
mod tests {
    use super::super::append::{Attempt, attempt, run};
    use super::super::cap::CapCounts;
    use super::*;
    use crate::engine::fill::Room;
    use crate::journal::Options;
    use crate::keys::FixedKeys;
    use crate::outcome::{Outcome, TokenResponse};

    fn app() -> App {
        App::new("salesforce", "3MVG9").unwrap()
    }

    fn user() -> User {
        User::new("005A").unwrap()
    }

    fn issued() -> Outcome {
        let body = br#"{"access_token":"00D!AQ","refresh_token":"5Aep861"}"#.to_vec();
        Outcome::Issued(TokenResponse::parse(body, 1).unwrap().with_user(user()))
    }

    fn journal(dir: &tempfile::TempDir) -> Journal {
        let options = Options::new(FixedKeys::new([7; 32], []));
        options.create(dir.path().join("store")).unwrap().0
    }

    /// Begins, and lets something happen between what the intent was drafted from and its taking.
    fn begin_around(
        journal: &Journal,
        begin: &Begin,
        meanwhile: impl FnOnce(),
    ) -> Result<(), Error> {
        let mut meanwhile = Some(meanwhile);
        let engine = journal.engine();
        let taken = attempt(engine, Room::Take, || {
            let draft = journal.draft_intent(begin, AccountTag::from_bytes([9; 16]))?;
            if let Some(meanwhile) = meanwhile.take() {
                meanwhile();
            }
            Ok(draft)
        })?;
        match taken {
            Attempt::Taken(submission, _) => run(journal.durable(submission.durable)),
            Attempt::Full => panic!("there is room"),
        }
    }

    /// The account has ceased to exist by then, and without a snapshot leaves nothing behind.
    #[test]
    fn a_tag_that_was_used_and_left_while_an_intent_was_drafted_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(&dir);
        let tag = AccountTag::from_bytes([1; 16]);
        let begin = Begin::exchange(&app()).under(tag, journal.head());
        let blocking = journal.blocking();
        let second = begin_around(&journal, &begin, || {
            let ticket = blocking.begin(begin.clone()).unwrap();
            blocking.settle(ticket, issued()).unwrap();
        });
        assert!(matches!(second, Err(Error::CallbackUsed { account }) if account == tag));
        let redeemed = blocking.redeemed(tag).unwrap().unwrap();
        assert_eq!(redeemed.account, journal.tag_of(&Account::new(app(), user())));
        assert_eq!(redeemed.grant, Some(GrantId(redeemed.op.0)));
    }

    #[test]
    fn a_cap_that_is_reached_while_an_intent_was_drafted_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(&dir);
        let cap = Cap { limit: 1, outside: 0, counts: CapCounts::Grants };
        let begin = Begin::exchange(&app()).user(&user()).cap(cap);
        let blocking = journal.blocking();
        let mut first = None;
        let second = begin_around(&journal, &begin, || {
            first = Some(blocking.begin(begin.clone()).unwrap());
        });
        assert!(matches!(second, Err(Error::CapReached { live: 1, limit: 1, .. })));
        // What the first one makes of it, the second one hears as well.
        let third = begin_around(&journal, &begin, || ());
        assert!(matches!(third, Err(Error::CapReached { live: 1, limit: 1, .. })));
    }

    #[test]
    fn what_stands_beside_a_doubt_when_drafted_must_still_when_it_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(&dir);
        let blocking = journal.blocking();
        let ticket = blocking.begin(Begin::exchange(&app()).user(&user())).unwrap();
        blocking.settle(ticket, issued()).unwrap();
        let account = Account::new(app(), user());
        let grant = blocking.current(&account).unwrap().unwrap().grant();
        let lost = blocking.begin(Begin::refresh(&account, grant)).unwrap();
        let doubt = crate::outcome::Doubt::new(crate::outcome::DoubtReason::Timeout);
        let op = lost.op();
        blocking.settle(lost, Outcome::InDoubt(doubt)).unwrap();
        let again = Begin::refresh(&account, grant).resending(op);
        let second = begin_around(&journal, &again, || {
            drop(blocking.begin(again.clone()).unwrap());
        });
        assert!(matches!(second, Err(Error::Busy { op: busy, .. }) if busy != op));
    }
}
