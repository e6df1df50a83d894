//! Begins an operation: its intent is durable before the request leaves.

use super::append::{Owned, retry_when_stale};
use super::ticket::{Promise, Ticket};
use super::{AccountRef, IssuedPair, Journal};
use crate::engine::accounts::Seen;
use crate::engine::fill::Room;
use crate::engine::grant::Grant;
use crate::engine::state::AccountState;
use crate::error::Error;
use crate::format::clear::{Clear, Flags, Intent, Prefix};
use crate::format::value::Action;
use crate::ids::{
    Account, AccountTag, App, AppTag, Fingerprint, Generation, GrantId, Holder, HolderTag, Lsn,
    OpId, User,
};
use std::sync::Arc;
use std::time::Duration;

/// Says what is about to be asked of a provider.
#[derive(Debug, Clone)]
pub struct Begin {
    action: Action,
    target: Target,
    holder: Option<Holder>,
    scopes: Vec<String>,
    deadline: Duration,
    expected: Option<Lsn>,
}

#[derive(Debug, Clone)]
enum Target {
    /// A new grant; the user may not be known yet.
    New { app: App, user: Option<User> },
    /// A grant that there is.
    Grant { account: AccountRef, grant: GrantId },
    /// The standing grant of an account, or a new one.
    Standing { account: Account },
}

impl Begin {
    fn new(action: Action, target: Target) -> Self {
        let deadline = Duration::from_secs(60);
        Self { action, target, holder: None, scopes: Vec::new(), deadline, expected: None }
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
}

/// What an intent says, worked out of the account's state.
struct Plan {
    account: AccountTag,
    provisional: bool,
    app_tag: AppTag,
    app: Option<App>,
    user: Option<User>,
    grant: GrantId,
    generation: Generation,
    presented: Fingerprint,
    current: Option<IssuedPair>,
    seen: Seen,
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
    /// promise to hold the outcome, [`Error::Poisoned`], [`Error::Closed`]. No request may be sent
    /// then.
    ///
    /// # Cancel safety
    /// When the future is dropped the intent may or may not become durable; an operation that
    /// nobody settles is in doubt when the store is opened next.
    pub async fn begin(&self, begin: Begin) -> Result<Ticket, Error> {
        let engine = self.engine();
        let promise = engine.limits.promise();
        let provisional = self.random_account()?;
        let holder = begin.holder.as_ref().map(|holder| engine.keychain.tagger().holder(holder));
        let room = Room::TakeAndPromise(promise);
        let (submission, plan) = retry_when_stale(engine, room, || {
            let plan = self.plan(&begin, provisional)?;
            let clear = Clear::Intent(self.intent(&begin, &plan, holder.unwrap_or_default()));
            let owned = Owned {
                app: plan.app.clone(),
                user: plan.user.clone(),
                holder: begin.holder.clone(),
                scopes: begin.scopes.clone(),
            };
            let seen = vec![plan.seen.clone()];
            Ok((clear, Box::new(owned) as _, seen, plan))
        })
        .await?;
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

    fn plan(&self, begin: &Begin, provisional: AccountTag) -> Result<Plan, Error> {
        let engine = self.engine();
        let tagger = engine.keychain.tagger();
        let (tag, app, user) = match &begin.target {
            Target::New { app, user: Some(user) } => {
                let account = Account::new(app.clone(), user.clone());
                (tagger.account(&account), Some(app.clone()), Some(user.clone()))
            }
            Target::New { app, user: None } => (provisional, Some(app.clone()), None),
            Target::Standing { account } => {
                (tagger.account(account), Some(account.app.clone()), Some(account.user.clone()))
            }
            Target::Grant { account, .. } => (account.tag(engine), None, None),
        };
        let is_provisional = matches!(begin.target, Target::New { user: None, .. });
        let seen = engine.foresee(tag)?;
        let state = Arc::clone(&seen.state);
        // One that has ceased to exist is one that never was.
        let found = if state.is_empty() { Lsn::NONE } else { state.version };
        if let Some(expected) = begin.expected.filter(|expected| *expected != found) {
            return Err(Error::Conflict { account: tag, expected, found });
        }
        let grant = match &begin.target {
            Target::New { .. } => None,
            Target::Standing { .. } => state.standing(),
            Target::Grant { grant, .. } => Some(usable(&state, tag, *grant)?),
        };
        if let Some(grant) = grant {
            check_free(&state, tag, grant.id, begin.action)?;
        }
        let current = match grant {
            Some(grant) => match self.read_pair(tag, grant, grant.issued) {
                // Folded away by a compaction since: the account has changed as well.
                Err(_) if engine.foresee(tag)?.state.version != state.version => {
                    return self.plan(begin, provisional);
                }
                pair => Some(pair?),
            },
            None => None,
        };
        let known = current.as_ref();
        Ok(Plan {
            account: tag,
            provisional: is_provisional,
            app_tag: app.as_ref().map_or(state.app, |app| tagger.app(app)),
            app: app.or_else(|| known.and_then(|pair| pair.app().cloned())),
            user: user.or_else(|| known.and_then(|pair| pair.user().cloned())),
            grant: grant.map(|grant| grant.id).unwrap_or_default(),
            generation: grant.map(|grant| grant.generation).unwrap_or_default(),
            presented: grant.map(|grant| grant.pair.refresh).unwrap_or_default(),
            current,
            seen,
        })
    }

    fn intent(&self, begin: &Begin, plan: &Plan, holder: HolderTag) -> Intent {
        let engine = self.engine();
        let wait_ms = u64::try_from(begin.deadline.as_millis()).unwrap_or(u64::MAX);
        Intent {
            prefix: Prefix {
                account: plan.account,
                grant: plan.grant,
                generation: plan.generation,
                flags: if plan.provisional { Flags::PROVISIONAL } else { Flags::NONE },
                op: OpId::NONE,
            },
            action: begin.action,
            app: plan.app_tag,
            holder,
            presented: plan.presented,
            deadline_ms: engine.seams.clock.now_ms().saturating_add(wait_ms),
            expected: begin.expected.unwrap_or_default(),
            owner: engine.owner,
            lease_ms: 0,
        }
    }
}

fn usable(state: &AccountState, account: AccountTag, id: GrantId) -> Result<&Grant, Error> {
    let grant = state.grant(id).ok_or(Error::UnknownGrant { account, grant: id })?;
    if grant.is_live() { Ok(grant) } else { Err(Error::GrantEnded { account, grant: id }) }
}

/// One operation at a time may change a grant; asking about it disturbs nothing.
fn check_free(
    state: &AccountState,
    account: AccountTag,
    grant: GrantId,
    action: Action,
) -> Result<(), Error> {
    let changes = |action: Action| action != Action::Introspect;
    let busy = state
        .operations
        .iter()
        .find(|operation| operation.grant == grant && changes(operation.action) && changes(action));
    match busy {
        Some(operation) => Err(Error::Busy { account, op: operation.op }),
        None => Ok(()),
    }
}
