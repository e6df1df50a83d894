//! The rules of an app applied to what a reader sees, where there is no broker: for a command
//! beside the process that has the store, and for pages that show a store.
//!
//! It decides as the broker of that process would if it were configured alike, and does nothing.

use super::app::{AppConfig, Desk};
use super::builder::LATE_MARGIN;
use super::death::{Said, probable_cause};
use super::doubt::{Probed, Step};
use super::health::{Usage, is_near, is_orphan, usage};
use super::resolve::case;
use super::rules::{Keeps, Known, at_stake, keeps};
use super::upstream::{Approval, Call, Code, Upstream};
use crate::format::value::{Cause, Confidence, RefusalClass};
use crate::ids::App;
use crate::journal::{AccountView, GrantView, IssuedPair, OperationView};
use crate::outcome::{NotSent, Outcome};
use std::future::ready;

/// What is known of an app, to judge its accounts by.
///
/// ```
/// use tokenwal::broker::{AppConfig, AppRules};
/// use tokenwal::profile::Profile;
///
/// let app = tokenwal::App::new("salesforce", "3MVG9")?;
/// let rules = AppRules::new(AppConfig::without_upstream(app, Profile::salesforce()).cap(3));
/// assert_eq!(rules.app().provider(), "salesforce");
/// # Ok::<(), tokenwal::NameError>(())
/// ```
#[derive(Debug)]
pub struct AppRules {
    desk: Desk,
}

impl AppRules {
    /// Takes what the app is configured with. Its provider is never called.
    pub fn new(config: AppConfig) -> Self {
        Self { desk: Desk::new(config) }
    }

    /// Returns the app.
    pub fn app(&self) -> &App {
        self.desk.app()
    }

    /// Says how an account's cap is used.
    pub fn usage(&self, view: &AccountView) -> Usage {
        usage(&self.desk, view)
    }

    /// Says whether one more grant would be one too many.
    pub fn is_near_cap(&self, usage: &Usage) -> bool {
        is_near(usage)
    }

    /// Says of each grant that nobody depends on what keeps it from being revoked without asking. A
    /// process that knows that it has handed out no token of one may know better.
    pub fn orphans<'a>(
        &'a self,
        view: &'a AccountView,
        now_ms: u64,
    ) -> impl Iterator<Item = (&'a GrantView, Option<Keeps>)> {
        let orphans = view.grants.iter().filter(|grant| is_orphan(grant.state));
        orphans.map(move |grant| (grant, self.keeps(view, grant, now_ms)))
    }

    /// Says what keeps a grant from being revoked without asking; none if nothing does.
    pub fn keeps(&self, view: &AccountView, grant: &GrantView, now_ms: u64) -> Option<Keeps> {
        keeps(view, grant, self.desk.profile(), Known::default(), now_ms)
    }

    /// Says how many others of its account a revocation may take along: living grants, and what an
    /// open exchange may have brought. Where the profile says, verified, that it ends this pair alone,
    /// only those with the same refresh token count.
    pub fn takes_along(&self, view: &AccountView, grant: &GrantView) -> usize {
        at_stake(grant, self.desk.profile(), view)
    }

    /// Says what may be done about an operation that was left without an outcome.
    pub fn step(&self, view: &AccountView, open: &OperationView, now_ms: u64) -> Step {
        case(&self.desk, view, open, now_ms, LATE_MARGIN).step()
    }

    /// As [`step`](Self::step), once the provider was asked in vain about the refresh token.
    pub fn step_without_probe(
        &self,
        view: &AccountView,
        open: &OperationView,
        now_ms: u64,
    ) -> Step {
        let case = case(&self.desk, view, open, now_ms, LATE_MARGIN);
        super::doubt::Case { probed: Some(Probed::Unknown), ..case }.step()
    }

    /// Says why a grant is probably over: as it was recorded, or by what the provider last said if
    /// that was the end of it; none for one that lives as far as is known.
    pub fn cause(
        &self,
        view: &AccountView,
        grant: &GrantView,
        now_ms: u64,
    ) -> Option<(Cause, Confidence)> {
        let recorded = grant.end.as_ref().map(|end| (end.cause, end.confidence));
        let refusal = grant.refusal.as_ref().filter(|last| last.class == RefusalClass::Dead);
        match (recorded, refusal) {
            (Some((Cause::Unknown, _)) | None, Some(refusal)) => {
                let said = Said {
                    status: refusal.status,
                    error: refusal.error.as_deref().unwrap_or_default(),
                    description: refusal.description.as_deref().unwrap_or_default(),
                };
                Some(probable_cause(&self.desk, view, grant, said, now_ms))
            }
            (recorded, _) => recorded,
        }
    }
}

/// A provider that cannot be called.
pub(super) struct Nowhere;

impl Upstream for Nowhere {
    fn authorization_url(&self, _: Approval<'_>) -> Option<String> {
        None
    }

    fn exchange<'a>(&'a self, _: Code<'a>) -> Call<'a, Outcome> {
        not_sent()
    }

    fn refresh<'a>(&'a self, _: &'a IssuedPair) -> Call<'a, Outcome> {
        not_sent()
    }

    fn revoke<'a>(&'a self, _: &'a IssuedPair) -> Call<'a, Outcome> {
        not_sent()
    }
}

fn not_sent<'a>() -> Call<'a, Outcome> {
    Box::pin(ready(Outcome::NotSent(NotSent::GivenUp)))
}
