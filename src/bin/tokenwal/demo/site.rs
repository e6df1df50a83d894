//! The sandbox as a service sees it: over HTTP, with a user's browser and a resource.

use super::unexpected;
use crate::exit::Failure;
use reqwest::header::LOCATION;
use reqwest::{Client, Url, redirect};
use tokenwal::provider::{Pkce, Provider, Rotation};
use tokenwal::sandbox::SandboxConfig;
use tokenwal::{App, Secret, SystemEntropy};

/// Where the provider sends users back to. Nobody listens there: the browser is ours.
pub(super) const REDIRECT: &str = "https://service.example/callback";

#[derive(Debug)]
pub(super) struct Site {
    url: String,
    provider: Provider,
    http: Client,
}

/// What a browser comes back from the provider with, after its user has approved.
#[derive(Debug)]
pub(super) struct Callback {
    pub(super) code: Secret,
    pub(super) pkce: Pkce,
}

impl Site {
    pub(super) fn new(url: &str) -> Result<Self, Failure> {
        let config = SandboxConfig::new();
        let app = App::new("salesforce", config.client_id()).map_err(unexpected)?;
        let provider = Provider::salesforce(app, consumer_secret(), url).rotation(Rotation::On);
        let http = Client::builder().redirect(redirect::Policy::none()).no_proxy();
        Ok(Self {
            url: url.to_owned(),
            provider: provider.build().map_err(unexpected)?,
            http: http.build().map_err(unexpected)?,
        })
    }

    pub(super) fn provider(&self) -> &Provider {
        &self.provider
    }

    pub(super) fn app(&self) -> &App {
        self.provider.app()
    }

    pub(super) fn http(&self) -> &Client {
        &self.http
    }

    /// Sends a user to the provider's page, and takes them back with a code.
    pub(super) async fn approve(&self, user: &str) -> Result<Callback, Failure> {
        let pkce = Pkce::generate(&SystemEntropy)?;
        let scopes = ["api", "refresh_token"];
        let page = self.provider.authorization_url(REDIRECT, &scopes, "demo", &pkce);
        let page = page.map_err(unexpected)?;
        let query = self.visit(&page, user).await?;
        let back = Url::parse(&format!("{REDIRECT}?{query}")).map_err(unexpected)?;
        let code = back.query_pairs().find(|(name, _)| name == "code");
        let code = code.map(|(_, code)| code.into_owned());
        let code = code.ok_or_else(|| unexpected("the provider sent no code"))?;
        Ok(Callback { code: Secret::new(code), pkce })
    }

    /// Approves as a user does in a browser, and returns the query that the provider sends back.
    pub(super) async fn visit(&self, page: &str, user: &str) -> Result<String, Failure> {
        let page = Url::parse_with_params(page, [("login_hint", user)]).map_err(unexpected)?;
        let answer = self.http.get(page).send().await.map_err(unexpected)?;
        let back = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let back = back.and_then(|location| Url::parse(location).ok());
        let query = back.as_ref().and_then(Url::query).map(str::to_owned);
        query.ok_or_else(|| unexpected("the provider sent nobody back"))
    }

    /// Calls a resource as an integration does, and returns the status.
    pub(super) async fn call(&self, access_token: &Secret) -> Result<u16, Failure> {
        let resource = format!("{}/services/oauth2/userinfo", self.url);
        let request = self.http.get(resource).bearer_auth(access_token.reveal());
        Ok(request.send().await.map_err(unexpected)?.status().as_u16())
    }
}

/// The secret of the sandbox's app, which opens nothing else.
pub(super) fn consumer_secret() -> Secret {
    Secret::new(SandboxConfig::new().client_secret().to_owned())
}
