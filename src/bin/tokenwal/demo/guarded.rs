//! Act 2: the same retries through a broker, with nothing but the grant in the database.

use super::act::{Act, Database, FAILING, FAILURES, RUNNING, live_of};
use super::page::Page;
use super::place::{Place, options};
use super::site::{REDIRECT, Site};
use super::unexpected;
use crate::exit::Failure;
use std::sync::Arc;
use std::time::Duration;
use tokenwal::broker::{AppConfig, Authorize, Broker};
use tokenwal::profile::Profile;
use tokenwal::sandbox::Sandbox;
use tokenwal::{Account, AccountTag, GrantId, Holder, IssuedPair, Journal};

const USER: &str = "bob";
/// The integration that is begun and given up, over and over.
const ABANDONED: &str = "reports";
/// How often. With the two that run these are more than the provider allows.
const ABANDONINGS: u32 = 3;
/// What the running integration needs.
const FEW_SCOPES: [&str; 2] = ["api", "refresh_token"];
/// What the others need, so that they cannot share its grant.
const MORE_SCOPES: [&str; 3] = ["api", "refresh_token", "chatter_api"];

struct Service<'a> {
    site: &'a Site,
    broker: Broker,
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
    let profile = Profile::builtin("salesforce-rotating")
        .ok_or_else(|| unexpected("there is no such profile"))?;
    let app = AppConfig::new(site.app().clone(), Arc::new(site.provider().clone()), profile);
    let broker = Broker::builder(journal.clone()).app(app.redirect_uri(REDIRECT)).build();
    let account = Account::new(site.app().clone(), user);
    let mut service =
        Service { site, broker, journal, account, database: Database::new(), approvals_asked: 0 };
    page.title("2. The same retries with tokenwal: a pair is durable before anyone sees it")?;
    service.connect(RUNNING, &FEW_SCOPES, true).await?;
    page.line(format!("   {RUNNING}  {}", page.good("connected, runs")))?;
    for attempt in 1..=FAILURES + 1 {
        let configures = attempt > FAILURES;
        let is_new = service.connect(FAILING, &MORE_SCOPES, configures).await?;
        let what = match (is_new, configures) {
            (true, false) => "new pair; configuration fails, rolled back",
            (false, false) => "the pair that was left; fails, rolled back",
            (true, true) => "new pair; configured, committed",
            (false, true) => "the pair that was left; configured, committed",
        };
        let known = service.live_and_known(sandbox).await?;
        page.attempt(attempt, what, live_of(sandbox, USER), known)?;
    }
    let approvals_asked = service.approvals_asked;
    service.abandon(sandbox, page).await?;
    let act = Act {
        approvals_asked,
        live_at_provider: live_of(sandbox, USER),
        live_and_known: service.live_and_known(sandbox).await?,
        running_integration_lives: service.works(RUNNING).await?,
        issued: u64::from(service.approvals_asked),
    };
    let both = act.running_integration_lives && service.works(FAILING).await?;
    page.line(format!(
        "   {RUNNING}  {}",
        match both {
            true => page.good(&format!("alive, and so is {FAILING}")),
            false => page.bad("dead"),
        }
    ))?;
    service.broker.shutdown(Duration::from_secs(10)).await;
    service.journal.close().await?;
    Ok(act)
}

impl Service<'_> {
    /// Connects an integration, and says whether the user had to be asked for it.
    async fn connect(
        &mut self,
        name: &'static str,
        scopes: &[&str],
        configures: bool,
    ) -> Result<bool, Failure> {
        let holder = holder(name)?;
        let left = self.broker.reuse(&self.account, &holder, scopes).await?;
        let is_new = left.is_none();
        let (account, grant) = match left {
            Some(pair) => (pair.account(), pair.grant()),
            None => self.approve(&holder, scopes).await?,
        };
        self.broker.adopt(account, grant, &holder, scopes).await?;
        let mut transaction = self.database.begin();
        transaction.insert(name, (account, grant));
        if configures {
            transaction.commit();
        } else {
            drop(transaction);
            self.broker.release(account, grant, &holder).await?;
        }
        Ok(is_new)
    }

    /// Sends the user off to approve, and takes them in.
    async fn approve(
        &mut self,
        holder: &Holder,
        scopes: &[&str],
    ) -> Result<(AccountTag, GrantId), Failure> {
        let asked = Authorize::new(self.site.app(), holder, scopes.iter().copied());
        let sent = self.broker.authorize(&asked.user(&self.account.user))?;
        self.approvals_asked += 1;
        let query = self.site.visit(&sent.url, USER).await?;
        let connected = self.broker.callback(&query, sent.cookie.reveal()).await?;
        Ok((connected.account, connected.grant))
    }

    /// Has the user approve again and again for an integration that nobody finishes.
    async fn abandon(&mut self, sandbox: &Sandbox, page: &Page) -> Result<(), Failure> {
        let revoked = sandbox.state().counters.revocations;
        let mut most = 0;
        for _ in 0..ABANDONINGS {
            self.approve(&holder(ABANDONED)?, &MORE_SCOPES).await?;
            most = most.max(live_of(sandbox, USER));
        }
        let revoked = sandbox.state().counters.revocations - revoked;
        page.line(format!(
            "   {ABANDONED}   approved {ABANDONINGS} times and given up: {most} live there at most, \
             {revoked} revoked to keep a place free"
        ))?;
        Ok(())
    }

    /// Says whether an integration can do its work.
    async fn works(&self, name: &'static str) -> Result<bool, Failure> {
        let row = self.database.row(name).copied();
        let (account, _) = row.ok_or_else(|| unexpected("the integration is not connected"))?;
        let soon = Duration::from_secs(60);
        let pair = self.broker.access_token_for(&holder(name)?, account, &["api"], soon).await?;
        Ok(self.site.call(pair.access_token()).await? == 200)
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

fn holder(name: &str) -> Result<Holder, Failure> {
    Holder::new("demo", name).map_err(unexpected)
}
