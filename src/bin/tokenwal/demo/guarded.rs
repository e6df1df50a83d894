//! Act 2: the same retries, with pairs in a journal and only their ids in the database.

use super::act::{Act, Database, FAILING, FAILURES, RUNNING, live_of};
use super::page::Page;
use super::place::{Place, options};
use super::site::{REDIRECT, Site};
use super::unexpected;
use crate::exit::Failure;
use tokenwal::sandbox::Sandbox;
use tokenwal::{
    Account, AccountTag, Begin, GrantId, GrantState, Holder, IssuedPair, Journal, Settled,
};

const USER: &str = "bob";

struct Service<'a> {
    site: &'a Site,
    journal: Journal,
    account: Account,
    database: Database<(AccountTag, GrantId)>,
    approvals_asked: u32,
}

pub(super) async fn run(
    sandbox: &Sandbox,
    site: &Site,
    place: &Place,
    page: &Page,
) -> Result<Act, Failure> {
    let user = sandbox.user(USER).ok_or_else(|| unexpected("the user is not known"))?;
    let (journal, _) = options(place.store())?.open(place.store())?;
    let account = Account::new(site.app().clone(), user);
    let mut service =
        Service { site, journal, account, database: Database::new(), approvals_asked: 0 };
    page.title("2. The same retries with tokenwal: a pair is durable before anyone sees it")?;
    service.connect(RUNNING, true).await?;
    page.line(format!("   {RUNNING}  {}", page.good("connected, runs")))?;
    for attempt in 1..=FAILURES + 1 {
        let configures = attempt > FAILURES;
        let is_new = service.connect(FAILING, configures).await?;
        let what = match (is_new, configures) {
            (true, false) => "new pair; configuration fails, rolled back",
            (false, false) => "pair from the journal; fails, rolled back",
            (true, true) => "new pair; configured, committed",
            (false, true) => "pair from the journal; configured, committed",
        };
        let known = service.live_and_known(sandbox).await?;
        page.attempt(attempt, what, live_of(sandbox, USER), known)?;
    }
    let act = Act {
        approvals_asked: service.approvals_asked,
        live_at_provider: live_of(sandbox, USER),
        live_and_known: service.live_and_known(sandbox).await?,
        running_integration_lives: service.works(RUNNING).await?,
    };
    let both = act.running_integration_lives && service.works(FAILING).await?;
    page.line(format!(
        "   {RUNNING}  {}",
        match both {
            true => page.good(&format!("alive, and so is {FAILING}")),
            false => page.bad("dead"),
        }
    ))?;
    service.journal.close().await?;
    Ok(act)
}

impl Service<'_> {
    /// Connects an integration, and says whether the provider had to be asked for a pair.
    async fn connect(&mut self, name: &'static str, configures: bool) -> Result<bool, Failure> {
        let holder = Holder::new("demo", name).map_err(unexpected)?;
        let left_behind = self.left_behind().await?;
        let (tag, grant) = match left_behind {
            Some(found) => found,
            None => self.issue(&holder).await?,
        };
        self.journal.adopt(tag, grant, &holder).await?;
        let mut transaction = self.database.begin();
        transaction.insert(name, (tag, grant));
        if configures {
            transaction.commit();
        } else {
            drop(transaction);
            self.journal.release(tag, grant, &holder).await?;
        }
        Ok(left_behind.is_none())
    }

    /// Finds a living grant that nobody depends on.
    async fn left_behind(&self) -> Result<Option<(AccountTag, GrantId)>, Failure> {
        let Some(view) = self.journal.account(&self.account).await? else { return Ok(None) };
        let free = view
            .grants
            .iter()
            .find(|grant| matches!(grant.state, GrantState::Waiting | GrantState::Released));
        Ok(free.map(|free| (view.account_tag, free.grant)))
    }

    /// The intent, the call, its outcome, and only then a pair.
    async fn issue(&mut self, holder: &Holder) -> Result<(AccountTag, GrantId), Failure> {
        let callback = self.site.approve(USER).await?;
        self.approvals_asked += 1;
        let Account { app, user } = &self.account;
        let begin = Begin::exchange(app).user(user).holder(holder);
        let ticket = self.journal.begin(begin).await?;
        let provider = self.site.provider();
        let outcome = provider.exchange(callback.code, REDIRECT, &callback.pkce).await;
        match self.journal.settle(ticket, outcome).await.map_err(unexpected)? {
            Settled::Issued(pair) => Ok((pair.account(), pair.grant())),
            other => Err(unexpected(format!("the provider gave no pair: {other:?}"))),
        }
    }

    /// Says whether an integration can do its work.
    async fn works(&self, name: &str) -> Result<bool, Failure> {
        let row = self.database.row(name).copied();
        let (tag, grant) = row.ok_or_else(|| unexpected("the integration is not connected"))?;
        match self.journal.current_of(tag, grant).await? {
            Some(pair) => Ok(self.site.call(pair.access_token()).await? == 200),
            None => Ok(false),
        }
    }

    async fn live_and_known(&self, sandbox: &Sandbox) -> Result<usize, Failure> {
        let Some(view) = self.journal.account(&self.account).await? else { return Ok(0) };
        let mut live = 0;
        for grant in &view.grants {
            let pair = self.journal.current_of(view.account_tag, grant.grant).await?;
            let token = pair.as_ref().and_then(IssuedPair::refresh_token);
            live += usize::from(token.is_some_and(|token| sandbox.is_alive(token.reveal())));
        }
        Ok(live)
    }
}
