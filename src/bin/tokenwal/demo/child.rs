//! Act 3's service: many tasks that exchange and refresh through the journal until they are killed.
//!
//! It tells of a pair only after the journal gave it, and tells a fingerprint, never a token.

use super::chance::Chance;
use super::place::options;
use super::site::{REDIRECT, Site};
use super::unexpected;
use crate::exit::{Exit, Failure};
use crate::output::stdout;
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use tokenwal::{
    Account, AccountTag, AccountView, Begin, Error, Fingerprint, Generation, GrantId, GrantState,
    IssuedPair, Journal, Outcome, Settled, Ticket, User,
};
use tokio::task::JoinSet;

/// How many requests are under way at once.
const TASKS: usize = 12;
/// How many pairs out of a hundred come by an approval where there is one to refresh.
const NEW_PERCENT: u64 = 30;
/// One turn in so many compacts the store, so that kills meet that too.
const COMPACTION: u64 = 150;

/// What the service is told on standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) url: String,
    pub(super) seed: u64,
    /// How many grants a user can have.
    pub(super) cap: usize,
    /// Users: their login, and the name in the provider's answers.
    pub(super) users: Vec<(String, String)>,
}

/// An acknowledgement: the service was given this pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ack {
    pub(super) account: AccountTag,
    pub(super) grant: GrantId,
    pub(super) generation: Generation,
    pub(super) token: Fingerprint,
}

impl Ack {
    /// Makes it of a pair that the journal gave; none without a refresh token.
    pub(super) fn of(pair: &IssuedPair) -> Option<Self> {
        let token = fingerprint(pair)?;
        let (account, grant, generation) = (pair.account(), pair.grant(), pair.generation());
        Some(Self { account, grant, generation, token })
    }

    /// Reads a line; one that a kill cut short was never said.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("ack ")?.split(' ');
        let account = words.next()?.parse().ok()?;
        let grant = GrantId(words.next()?.parse().ok()?);
        let generation = Generation(words.next()?.parse().ok()?);
        let token = words.next()?.parse().ok()?;
        Some(Self { account, grant, generation, token })
    }

    /// Says it, in one short write that a kill does not cut.
    fn say(&self) -> io::Result<()> {
        let Self { account, grant, generation, token } = self;
        let mut out = stdout();
        writeln!(out, "ack {account} {grant} {generation} {token}")?;
        out.flush()
    }
}

/// Recognises a pair's refresh token without telling it: half of its SHA-256.
pub(super) fn fingerprint(pair: &IssuedPair) -> Option<Fingerprint> {
    let hash = digest(&SHA256, pair.refresh_token()?.reveal().as_bytes());
    Some(Fingerprint::from_bytes(*hash.as_ref().first_chunk()?))
}

/// Serves until it is killed, or until its parent is gone.
pub(super) async fn serve(store: &Path) -> Result<Exit, Failure> {
    let plan: Plan = serde_json::from_reader(io::stdin().lock())?;
    let site = Site::new(&plan.url)?;
    let (journal, _) = options(store)?.open(store).map_err(Failure::of(store))?;
    let service = Arc::new(Service { journal, site, cap: plan.cap });
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let seed = u64::try_from(task).unwrap_or_default();
        let mut chance = Chance::of(plan.seed ^ (seed << 32));
        // A user belongs to one task, so that their grants are counted by nobody else.
        let users: Vec<_> = plan.users.iter().skip(task).step_by(TASKS).cloned().collect();
        let service = Arc::clone(&service);
        tasks.spawn(async move {
            loop {
                service.turn(&users, &mut chance).await?;
            }
        });
    }
    // None of them ends without an error.
    match tasks.join_next().await {
        Some(ended) => ended.map_err(unexpected)?,
        None => Ok(Exit::Failed),
    }
}

struct Service {
    journal: Journal,
    site: Site,
    cap: usize,
}

impl Service {
    /// Does one thing for one user.
    async fn turn(&self, users: &[(String, String)], chance: &mut Chance) -> Result<(), Failure> {
        if chance.below(COMPACTION) == 0 {
            self.journal.compact().await?;
        }
        let Some((login, name)) = chance.one_of(users) else {
            return Err(unexpected("the plan has too few users"));
        };
        let user = User::new(name.as_str()).map_err(unexpected)?;
        let account = Account::new(self.site.app().clone(), user);
        let view = self.journal.account(&account).await?;
        let refreshable = view.as_ref().map(refreshable).unwrap_or_default();
        // What is in doubt may live at the provider, too.
        let counted = view.map_or(0, |view| view.grants.len() + view.in_doubt.len());
        match chance.one_of(&refreshable) {
            Some(grant) if counted >= self.cap || chance.below(100) >= NEW_PERCENT => {
                self.refresh(&account, *grant).await
            }
            _ if counted < self.cap => self.exchange(login, &account).await,
            _ => {
                tokio::task::yield_now().await;
                Ok(())
            }
        }
    }

    async fn exchange(&self, login: &str, account: &Account) -> Result<(), Failure> {
        let callback = self.site.approve(login).await?;
        let begin = Begin::exchange(&account.app).user(&account.user);
        let ticket = self.journal.begin(begin).await?;
        let provider = self.site.provider();
        let outcome = provider.exchange(callback.code, REDIRECT, &callback.pkce).await;
        self.settle(ticket, outcome).await
    }

    async fn refresh(&self, account: &Account, grant: GrantId) -> Result<(), Failure> {
        let ticket = match self.journal.begin(Begin::refresh(account, grant)).await {
            Ok(ticket) => ticket,
            // The one before us was killed in the middle of it.
            Err(Error::Busy { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let token = ticket.current().and_then(IssuedPair::refresh_token);
        let token = token.ok_or_else(|| unexpected("there is nothing to refresh"))?;
        let outcome = self.site.provider().refresh(token).await;
        self.settle(ticket, outcome).await
    }

    async fn settle(&self, ticket: Ticket, outcome: Outcome) -> Result<(), Failure> {
        match self.journal.settle(ticket, outcome).await.map_err(unexpected)? {
            Settled::Issued(pair) => {
                let ack = Ack::of(&pair).ok_or_else(|| unexpected("it has no refresh token"))?;
                Ok(ack.say()?)
            }
            other => Err(unexpected(format!("the provider gave no pair: {other:?}"))),
        }
    }
}

/// Returns the grants that nothing is open on.
fn refreshable(view: &AccountView) -> Vec<GrantId> {
    let is_open = |grant: GrantId| view.in_doubt.iter().any(|open| open.grant == grant);
    let grants = view.grants.iter().filter(|grant| grant.state != GrantState::Ended);
    grants.map(|grant| grant.grant).filter(|grant| !is_open(*grant)).collect()
}
