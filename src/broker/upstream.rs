//! The calls that a broker makes to a provider, as a trait: `provider::Provider` makes them over
//! HTTP, a simulation answers them from a model.

use crate::ids::{Account, User};
use crate::journal::IssuedPair;
use crate::outcome::{Introspection, NotSent, Outcome};
use crate::secret::Secret;
use serde::Serialize;
use std::pin::Pin;

/// A call on its way.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a user is asked to approve.
#[derive(Debug, Clone, Copy)]
pub struct Approval<'a> {
    /// Where the provider sends the user back to.
    pub redirect_uri: &'a str,
    /// The scopes that are asked for.
    pub scopes: &'a [String],
    /// Comes back with the code and is checked then.
    pub state: &'a str,
    /// The challenge of RFC 7636, by SHA-256.
    pub challenge: &'a str,
    /// What an id token must repeat (OpenID Connect Core, section 3.1.2.1).
    pub nonce: &'a str,
}

/// An authorization code, and what proves that it is ours to present.
#[derive(Debug)]
pub struct Code<'a> {
    /// The code.
    pub code: &'a Secret,
    /// As it was in the authorization request.
    pub redirect_uri: &'a str,
    /// The verifier of RFC 7636.
    pub verifier: &'a Secret,
    /// What was in the authorization request.
    pub nonce: &'a str,
}

/// Which of a pair's tokens is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Which {
    /// The access token.
    Access,
    /// The refresh token.
    Refresh,
}

/// One line of a provider's own list of live approvals. It is evidence to show: nothing in it says
/// which of our tokens it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The provider's id of the line.
    pub id: String,
    /// The app, as the provider calls it.
    pub app: Option<String>,
    /// The user, as the provider calls them.
    pub user: Option<String>,
    /// When it was made, as the provider writes it.
    pub created: Option<String>,
    /// When it was last used, as the provider writes it.
    pub last_used: Option<String>,
    /// How often it was used.
    pub uses: Option<u64>,
}

/// A provider, as a broker calls it: one app, its credentials, its endpoints.
///
/// A call never fails otherwise than by its [`Outcome`], sends at most one request, and bounds its
/// own time. The broker lets it run in a task of its own, so that no caller's leaving cuts it. What a
/// provider cannot be asked is left as it is here: nothing is sent, and nothing is known.
pub trait Upstream: Send + Sync + 'static {
    /// Returns the URL to which a user is sent to approve; none where the provider has none.
    fn authorization_url(&self, approval: Approval<'_>) -> Option<String>;

    /// Exchanges an authorization code for a pair.
    fn exchange<'a>(&'a self, code: Code<'a>) -> Call<'a, Outcome>;

    /// Presents the pair's refresh token, at the endpoint that issued it.
    fn refresh<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Outcome>;

    /// As [`refresh`](Upstream::refresh), for an access token of these scopes (RFC 6749, section 6).
    fn refresh_for<'a>(&'a self, pair: &'a IssuedPair, scopes: &'a [String]) -> Call<'a, Outcome> {
        let _ = (pair, scopes);
        told(Outcome::NotSent(NotSent::GivenUp))
    }

    /// Revokes the pair.
    fn revoke<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Outcome>;

    /// Asks about one of the pair's tokens, which changes nothing.
    fn introspect<'a>(
        &'a self,
        pair: &'a IssuedPair,
        which: Which,
    ) -> Call<'a, (Option<Introspection>, Outcome)> {
        let _ = (pair, which);
        told((None, Outcome::NotSent(NotSent::GivenUp)))
    }

    /// Mints a pair by client credentials or an assertion.
    fn mint<'a>(&'a self, account: &'a Account, scopes: &'a [String]) -> Call<'a, Outcome> {
        let _ = (account, scopes);
        told(Outcome::NotSent(NotSent::GivenUp))
    }

    /// Asks whose a pair is, where the answer to the exchange did not say; none where that cannot
    /// be told.
    fn who<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Option<User>> {
        let _ = pair;
        told(None)
    }

    /// Asks for the provider's own list of the user's live approvals; none where it has none, or
    /// gave none.
    fn approvals<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Option<Vec<Listed>>> {
        let _ = pair;
        told(None)
    }
}

fn told<'a, T: Send + 'a>(told: T) -> Call<'a, T> {
    Box::pin(std::future::ready(told))
}
