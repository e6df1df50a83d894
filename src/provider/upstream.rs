//! A provider as a broker calls it: each call goes to the host that issued the pair.

use super::call::traced;
use super::{Introspection, Mint, Provider};
use crate::broker::{Approval, Call, Code, Listed, Upstream, Which};
use crate::format::value::Action;
use crate::ids::{Account, User};
use crate::journal::IssuedPair;
use crate::outcome::{NotSent, Outcome};
use crate::profile::RevokeBy;
use crate::secret::Secret;

/// The scope that asks for an id token (OpenID Connect Core, section 3.1.2.1).
const OPENID: &str = "openid";

impl Upstream for Provider {
    fn authorization_url(&self, approval: Approval<'_>) -> Option<String> {
        let scope = approval.scopes.join(" ");
        let (redirect_uri, state) = (approval.redirect_uri, approval.state);
        let mut url = self.0.approval(redirect_uri, &scope, state, approval.challenge).ok()?;
        if approval.scopes.iter().any(|scope| scope == OPENID) {
            url.query_pairs_mut().append_pair("nonce", approval.nonce);
        }
        self.0.add_parameters(&mut url);
        Some(url.into())
    }

    fn exchange<'a>(&'a self, code: Code<'a>) -> Call<'a, Outcome> {
        Box::pin(async move {
            let nonce = Some(code.nonce);
            self.0.exchange(code.code, code.redirect_uri, code.verifier, nonce).await
        })
    }

    fn refresh<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Outcome> {
        Box::pin(async move {
            match (self.0.token_of(pair), pair.refresh_token()) {
                (Some(endpoint), Some(token)) => self.0.refresh(&endpoint, token, "").await,
                _ => not_sent(Action::Refresh),
            }
        })
    }

    fn refresh_for<'a>(&'a self, pair: &'a IssuedPair, scopes: &'a [String]) -> Call<'a, Outcome> {
        Box::pin(async move {
            match (self.0.token_of(pair), pair.refresh_token()) {
                (Some(endpoint), Some(token)) => {
                    self.0.refresh(&endpoint, token, &scopes.join(" ")).await
                }
                _ => not_sent(Action::Refresh),
            }
        })
    }

    fn revoke<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Outcome> {
        Box::pin(async move {
            let by = self.0.profile.endpoints().known().map(|known| known.revoke_by);
            let token = match (by, pair.refresh_token()) {
                (Some(RevokeBy::DeleteJson), _) | (_, None) => pair.access_token(),
                (_, Some(token)) => token,
            };
            match self.0.revocation_of(pair) {
                Some(endpoint) => self.0.revoke(Some(&endpoint), token).await,
                None => not_sent(Action::Revoke),
            }
        })
    }

    fn introspect<'a>(
        &'a self,
        pair: &'a IssuedPair,
        which: Which,
    ) -> Call<'a, (Option<Introspection>, Outcome)> {
        Box::pin(async move {
            let token: Option<&Secret> = match which {
                Which::Access => Some(pair.access_token()),
                Which::Refresh => pair.refresh_token(),
            };
            match (self.0.introspection_of(pair), token) {
                (Some(endpoint), Some(token)) => self.0.introspect(Some(&endpoint), token).await,
                _ => (None, not_sent(Action::Introspect)),
            }
        })
    }

    fn mint<'a>(&'a self, account: &'a Account, scopes: &'a [String]) -> Call<'a, Outcome> {
        Box::pin(async move {
            let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
            match &self.0.mint {
                Some(Mint::ClientCredentials) => self.client_credentials(&scopes).await,
                Some(Mint::JwtBearer { subject, audience }) => {
                    let subject = subject.as_deref().unwrap_or(account.user.as_str());
                    self.jwt_bearer(subject, audience.as_deref(), &scopes).await
                }
                None => not_sent(Action::Mint),
            }
        })
    }

    fn who<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Option<User>> {
        Box::pin(self.0.who(pair))
    }

    fn approvals<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Option<Vec<Listed>>> {
        Box::pin(self.0.approvals(pair))
    }
}

/// Says that there is nowhere to send it, or nothing to send.
fn not_sent(asked: Action) -> Outcome {
    traced(asked.word(), Outcome::NotSent(NotSent::GivenUp))
}
