//! Act 1: a service that stores pairs in its business transaction, with a client of its own.

use super::act::{Act, Database, FAILING, FAILURES, RUNNING, live_of};
use super::page::Page;
use super::site::{Callback, REDIRECT, Site, consumer_secret};
use super::unexpected;
use crate::exit::Failure;
use serde::Deserialize;
use tokenwal::Secret;
use tokenwal::sandbox::Sandbox;

const USER: &str = "ada";

struct Service<'a> {
    site: &'a Site,
    database: Database<Pair>,
    approvals_asked: u32,
}

struct Pair {
    access_token: Secret,
    refresh_token: Secret,
}

/// The provider's answer, good or bad.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Pair { access_token: String, refresh_token: String },
    Refusal { error: String },
}

pub(super) async fn run(sandbox: &Sandbox, site: &Site, page: &Page) -> Result<Act, Failure> {
    let mut service = Service { site, database: Database::new(), approvals_asked: 0 };
    page.title("1. A naive service stores pairs in its business transaction")?;
    service.connect(RUNNING, true).await?;
    if service.call(RUNNING).await? != 200 {
        return Err(unexpected("the first integration does not work"));
    }
    page.line(format!("   {RUNNING}  {}", page.good("connected, runs")))?;
    for attempt in 1..=FAILURES {
        service.connect(FAILING, false).await?;
        let live = live_of(sandbox, USER);
        let known = service.live_and_known(sandbox);
        page.attempt(attempt, "new pair; configuration fails, rolled back", live, known)?;
    }
    let status = service.call(RUNNING).await?;
    let refusal = service.refresh(RUNNING).await?;
    let lives = status == 200 || refusal.is_none();
    page.line(format!(
        "   {RUNNING}  {}: the API answers {status}, the refresh {}",
        page.bad(if lives { "alive" } else { "dead for good" }),
        refusal.map_or_else(|| "works".to_owned(), |error| format!("is refused ({error})"))
    ))?;
    Ok(Act {
        approvals_asked: service.approvals_asked,
        live_at_provider: live_of(sandbox, USER),
        live_and_known: service.live_and_known(sandbox),
        running_integration_lives: lives,
        issued: u64::from(service.approvals_asked),
    })
}

impl Service<'_> {
    /// Connects an integration: what the transaction does not commit, nobody has.
    async fn connect(&mut self, name: &'static str, configures: bool) -> Result<(), Failure> {
        let callback = self.site.approve(USER).await?;
        self.approvals_asked += 1;
        let pair = self.exchange(&callback).await?;
        let mut transaction = self.database.begin();
        transaction.insert(name, pair);
        if configures {
            transaction.commit();
        }
        Ok(())
    }

    async fn exchange(&self, callback: &Callback) -> Result<Pair, Failure> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", callback.code.reveal()),
            ("redirect_uri", REDIRECT),
            ("code_verifier", callback.pkce.verifier().reveal()),
        ];
        match self.ask(&form).await? {
            Answer::Pair { access_token, refresh_token } => Ok(Pair {
                access_token: Secret::new(access_token),
                refresh_token: Secret::new(refresh_token),
            }),
            Answer::Refusal { error } => Err(unexpected(error)),
        }
    }

    /// Refreshes an integration's pair, and returns why that is refused, if it is.
    async fn refresh(&self, name: &str) -> Result<Option<String>, Failure> {
        let pair = self.pair(name)?;
        let form =
            [("grant_type", "refresh_token"), ("refresh_token", pair.refresh_token.reveal())];
        Ok(match self.ask(&form).await? {
            Answer::Pair { .. } => None,
            Answer::Refusal { error } => Some(error),
        })
    }

    async fn ask(&self, form: &[(&str, &str)]) -> Result<Answer, Failure> {
        let secret = consumer_secret();
        let own = [("client_id", self.site.app().client_id()), ("client_secret", secret.reveal())];
        let form: Vec<_> = form.iter().copied().chain(own).collect();
        let endpoint = self.site.provider().token_endpoint();
        let answer = self.site.http().post(endpoint).form(&form).send().await;
        answer.map_err(unexpected)?.json().await.map_err(unexpected)
    }

    /// Calls the resource as an integration, and returns the status.
    async fn call(&self, name: &str) -> Result<u16, Failure> {
        self.site.call(&self.pair(name)?.access_token).await
    }

    fn pair(&self, name: &str) -> Result<&Pair, Failure> {
        self.database.row(name).ok_or_else(|| unexpected("the integration is not connected"))
    }

    fn live_and_known(&self, sandbox: &Sandbox) -> usize {
        let lives = |pair: &&Pair| sandbox.is_alive(pair.refresh_token.reveal());
        self.database.rows().filter(lives).count()
    }
}
