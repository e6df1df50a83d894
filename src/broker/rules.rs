//! The rules of the model that need no call and no record: what covers what, what may be revoked
//! without asking, who dies at the cap. Pure.

use crate::format::value::Action;
use crate::journal::{AccountView, GrantState, GrantView};
use crate::profile::{Profile, RevokeGranularity};
use serde::Serialize;
use std::time::Duration;

/// Says whether granted scopes have all that is needed. Where the provider says nothing of scopes,
/// it granted what was asked for (RFC 6749, section 5.1).
pub(super) fn covers(granted: &[String], needed: &[impl AsRef<str>]) -> bool {
    granted.is_empty()
        || needed.iter().all(|scope| granted.iter().any(|known| known == scope.as_ref()))
}

/// Says whether an access token is for who wants these scopes, or where none are named, all that its
/// chain has; `own` are those that it has instead of the chain's, if they are others.
pub(super) fn gives(chain: &[String], own: Option<&[String]>, wanted: &[impl AsRef<str>]) -> bool {
    covers(chain, wanted)
        && match own {
            None => true,
            Some([]) => false,
            Some(own) if wanted.is_empty() => !chain.is_empty() && covers(own, chain),
            Some(own) => covers(own, wanted),
        }
}

/// Why a grant is not revoked without somebody asking for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Keeps {
    /// It is over already.
    Ended,
    /// Somebody depends on it.
    Held,
    /// It waits for its holder until its `adopt_by`.
    Waiting,
    /// It was imported, and the old refresher may still be at work.
    Paused,
    /// The store was claimed from a copy, and whoever has the other one may depend on it.
    Stale,
    /// An operation on it has no outcome.
    InDoubt,
    /// An access token that was handed out may still be in use.
    HandedOut,
    /// A living grant of the account has the same refresh token, or may have it as soon as an
    /// exchange that is open has its outcome.
    Shared,
    /// The profile does not say, verified, that revoking ends this pair and nothing else.
    Granularity,
}

impl Keeps {
    /// Says it in a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Ended => "it is over already",
            Self::Held => "somebody depends on it",
            Self::Waiting => "it still waits for its holder",
            Self::Paused => "it was imported and is not activated",
            Self::Stale => "the store is a claimed copy, and the grant may be in use elsewhere",
            Self::InDoubt => "an operation on it has no outcome",
            Self::HandedOut => "an access token of it may still be in use",
            Self::Shared => "a living grant has the same refresh token",
            Self::Granularity => "nothing verified says that revoking ends this pair alone",
        }
    }
}

/// What a process knows of a grant besides what is recorded. Who only reads knows none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Known {
    /// No access token of it was handed out, ever.
    pub(super) fresh: bool,
    /// For how long its newest pair has been there, by a clock that nobody sets.
    pub(super) there_for: Option<Duration>,
    /// How long its access tokens may go on to work, by that clock.
    pub(super) token_left: Duration,
}

/// Says what keeps a grant from being revoked without asking; none if nothing does.
pub(super) fn keeps(
    view: &AccountView,
    grant: &GrantView,
    profile: &Profile,
    known: Known,
    now_ms: u64,
) -> Option<Keeps> {
    let is_handed_out = !known.fresh || grant.worked;
    let works = !has_lapsed(grant, now_ms) || !known.token_left.is_zero();
    let rules = [
        (Keeps::Ended, grant.end.is_some()),
        (Keeps::Held, grant.state == GrantState::Held),
        (Keeps::Paused, grant.paused),
        (Keeps::Stale, grant.stale),
        (
            Keeps::Waiting,
            grant.state == GrantState::Waiting && may_be_adopted(grant, known, now_ms),
        ),
        (Keeps::InDoubt, view.in_doubt.iter().any(|open| open.grant == grant.grant)),
        (Keeps::HandedOut, is_handed_out && works),
        (Keeps::Shared, sharing(grant, profile, view) > 0),
        (Keeps::Granularity, !ends_one_alone(profile)),
    ];
    rules.into_iter().find(|(_, holds)| *holds).map(|(keeps, _)| keeps)
}

/// Says whether every access token of the grant is over for sure, those of earlier pairs and those
/// beside its chain as well. An assumed lifetime proves nothing; where all that is known of any of
/// them is assumed, as much again is waited for.
fn has_lapsed(grant: &GrantView, now_ms: u64) -> bool {
    let as_long_again = |issued_at_ms: u64, expires_at_ms: u64| {
        expires_at_ms.saturating_add(expires_at_ms.saturating_sub(issued_at_ms))
    };
    match grant.lapses_at_ms {
        Some(at_ms) => now_ms >= at_ms,
        None if grant.only_assumed => {
            let newest_ms = as_long_again(grant.issued_at_ms, grant.expires_at_ms);
            let beside = grant.beside.iter();
            let beside_ms = beside.map(|one| as_long_again(one.issued_at_ms, one.expires_at_ms));
            now_ms >= beside_ms.fold(newest_ms, u64::max)
        }
        None => false,
    }
}

/// Says whether a holder may still be on its way. A clock that was set forward makes nobody late.
fn may_be_adopted(grant: &GrantView, known: Known, now_ms: u64) -> bool {
    let waits = Duration::from_millis(grant.adopt_by_ms.saturating_sub(grant.issued_at_ms));
    now_ms < grant.adopt_by_ms || known.there_for.is_some_and(|there| there < waits)
}

/// Says whether the provider is known to end one pair by a revocation, and nothing else.
pub(super) fn ends_one_alone(profile: &Profile) -> bool {
    profile.revoke().verified() == Some(&RevokeGranularity::Pair)
}

/// Says whether the provider is known to give a user the same refresh token again.
pub(super) fn gives_again(profile: &Profile) -> bool {
    profile.same_refresh_on_reconsent().known() == Some(&true)
}

/// Counts what may die in an account, the grant's own or another of its app, when a grant is revoked:
/// what lives there, and what an exchange may have brought of which nobody knows what it did.
pub(super) fn at_stake(grant: &GrantView, profile: &Profile, account: &AccountView) -> usize {
    match ends_one_alone(profile) {
        true => sharing(grant, profile, account),
        false => beside(grant, account).count() + exchanges(account),
    }
}

/// Counts what lives, or may come to live, on the refresh token of a grant.
fn sharing(grant: &GrantView, profile: &Profile, account: &AccountView) -> usize {
    let shares = |other: &&GrantView| other.refresh_fingerprint == grant.refresh_fingerprint;
    let coming = if gives_again(profile) { exchanges(account) } else { 0 };
    match grant.has_refresh_token {
        true => beside(grant, account).filter(shares).count() + coming,
        false => 0,
    }
}

fn beside<'a>(
    grant: &'a GrantView,
    account: &'a AccountView,
) -> impl Iterator<Item = &'a GrantView> {
    account.grants.iter().filter(move |other| other.grant != grant.grant && other.end.is_none())
}

fn exchanges(account: &AccountView) -> usize {
    account.in_doubt.iter().filter(|open| open.action == Action::Exchange).count()
}

/// Returns the grant that the provider would evict next: the oldest that lives, by when its approval
/// was given.
pub(super) fn victim(view: &AccountView) -> Option<&GrantView> {
    view.grants.iter().filter(|grant| grant.end.is_none()).min_by_key(|grant| grant.grant)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        SENT_MS, account, ended, expiring, grant, held, operation, profile, texts,
    };
    use super::*;
    use crate::ids::{Fingerprint, GrantId};
    use crate::outcome::ExpirySource;

    const PAIR: &str = "[revoke]\nvalue = \"pair\"";
    /// Nobody has an access token of it.
    const FRESH: Known = Known { fresh: true, there_for: None, token_left: Duration::ZERO };
    /// Nothing is known but what is recorded.
    const READ: Known = Known { fresh: false, there_for: None, token_left: Duration::ZERO };

    /// What keeps the first of these grants, at [`SENT_MS`].
    fn kept(grants: &[GrantView], facts: &str, known: Known) -> Option<Keeps> {
        let view = account(grants.to_vec(), Vec::new());
        keeps(&view, &view.grants[0], &profile(facts), known, SENT_MS)
    }

    #[test]
    fn a_released_grant_alone_is_kept_by_nothing() {
        assert_eq!(kept(&[grant(10), grant(20)], PAIR, FRESH), None);
    }

    #[test]
    fn what_is_over_held_or_paused_is_kept() {
        assert_eq!(kept(&[ended(grant(10))], PAIR, FRESH), Some(Keeps::Ended));
        let held = held(grant(10), "sync", &[], 12);
        assert_eq!(kept(&[held], PAIR, FRESH), Some(Keeps::Held));
        let paused = GrantView { paused: true, ..grant(10) };
        assert_eq!(kept(&[paused], PAIR, FRESH), Some(Keeps::Paused));
    }

    #[test]
    fn what_was_never_adopted_waits_until_its_time() {
        let waiting = |adopt_by_ms| {
            let waiting = GrantView { state: GrantState::Waiting, adopt_by_ms, ..grant(10) };
            kept(&[waiting], PAIR, FRESH)
        };
        assert_eq!(waiting(SENT_MS + 1), Some(Keeps::Waiting));
        assert_eq!(waiting(SENT_MS), None);
        // What was released waits for nobody.
        let released = GrantView { adopt_by_ms: SENT_MS + 1, ..grant(10) };
        assert_eq!(kept(&[released], PAIR, FRESH), None);
    }

    #[test]
    fn a_clock_set_forward_makes_nobody_late_and_no_token_lapse() {
        let by_ms = SENT_MS - 1;
        let waits = Duration::from_millis(by_ms - grant(10).issued_at_ms);
        let waiting = GrantView { state: GrantState::Waiting, adopt_by_ms: by_ms, ..grant(10) };
        let there = |there_for| {
            let known = Known { there_for: Some(there_for), ..FRESH };
            kept(std::slice::from_ref(&waiting), PAIR, known)
        };
        let moment = Duration::from_millis(1);
        assert_eq!((there(waits - moment), there(waits)), (Some(Keeps::Waiting), None));
        let lapsed = expiring(grant(10), SENT_MS - 1, ExpirySource::Declared);
        let left = |token_left| {
            let known = Known { token_left, ..READ };
            kept(std::slice::from_ref(&lapsed), PAIR, known)
        };
        assert_eq!((left(moment), left(Duration::ZERO)), (Some(Keeps::HandedOut), None));
    }

    #[test]
    fn what_a_claimed_copy_knows_of_is_kept() {
        let stale = GrantView { stale: true, ..grant(10) };
        assert_eq!(kept(&[stale], PAIR, FRESH), Some(Keeps::Stale));
    }

    #[test]
    fn what_has_worked_was_handed_out() {
        let worked = GrantView { worked: true, ..grant(10) };
        assert_eq!(kept(&[worked], PAIR, FRESH), Some(Keeps::HandedOut));
    }

    #[test]
    fn a_revocation_takes_along_what_lives_and_what_may_come_to() {
        let staked = |facts: &str, other: GrantView, open: Vec<_>| {
            at_stake(&grant(10), &profile(facts), &account(vec![grant(10), other], open))
        };
        let exchange = || vec![operation(30, Action::Exchange, 0)];
        let twin = GrantView { refresh_fingerprint: grant(10).refresh_fingerprint, ..grant(20) };
        let whole = "[revoke]\nvalue = \"whole_grant\"";
        for facts in ["", whole] {
            assert_eq!(staked(facts, grant(20), Vec::new()), 1, "{facts}");
            assert_eq!(staked(facts, ended(grant(20)), Vec::new()), 0, "{facts}");
            assert_eq!(staked(facts, ended(grant(20)), exchange()), 1, "{facts}");
            let refresh = vec![operation(30, Action::Refresh, 10)];
            assert_eq!(staked(facts, ended(grant(20)), refresh), 0, "{facts}");
        }
        assert_eq!(staked(PAIR, grant(20), exchange()), 0);
        assert_eq!(staked(PAIR, twin.clone(), exchange()), 1);
        assert_eq!(staked(PAIR, ended(twin), exchange()), 0);
        let again = format!("{PAIR}\n[same_refresh_on_reconsent]\nvalue = true");
        assert_eq!(staked(&again, grant(20), exchange()), 1, "it may bring the same token");
        assert_eq!(staked(&again, grant(20), Vec::new()), 0);
    }

    #[test]
    fn what_is_in_doubt_is_kept_and_nothing_beside_it() {
        for action in [Action::Refresh, Action::Revoke, Action::Introspect] {
            let open = operation(30, action, 10);
            let view = account(vec![grant(10), grant(20)], vec![open]);
            let kept = |at: usize| keeps(&view, &view.grants[at], &profile(PAIR), FRESH, SENT_MS);
            assert_eq!((kept(0), kept(1)), (Some(Keeps::InDoubt), None));
        }
    }

    #[test]
    fn an_access_token_that_was_handed_out_has_to_lapse_first() {
        let at = |at_ms, source| {
            let lapsing = expiring(grant(10), at_ms, source);
            kept(&[lapsing], PAIR, READ)
        };
        for source in [ExpirySource::Declared, ExpirySource::Introspected] {
            assert_eq!(at(SENT_MS + 1, source), Some(Keeps::HandedOut));
            assert_eq!(at(SENT_MS, source), None);
        }
        let never = kept(&[expiring(grant(10), SENT_MS + 1, ExpirySource::Declared)], PAIR, FRESH);
        assert_eq!(never, None, "nobody has it");
        let unknown = GrantView { expires_at_ms: 0, expiry: None, ..grant(10) };
        assert_eq!(kept(&[unknown], PAIR, READ), Some(Keeps::HandedOut));
        // Of an assumption as much again is waited for.
        let assumed = |lifetime_ms: u64| {
            let mut lapsing = expiring(grant(10), 0, ExpirySource::Assumed);
            lapsing.expires_at_ms = lapsing.issued_at_ms + lifetime_ms;
            kept(&[lapsing], PAIR, READ)
        };
        let age_ms = SENT_MS - grant(10).issued_at_ms;
        assert_eq!(assumed(age_ms / 2), None);
        assert_eq!(assumed(age_ms / 2 + 1), Some(Keeps::HandedOut));
    }

    #[test]
    fn a_refresh_token_that_a_living_grant_shares_is_kept() {
        let twin = GrantView { refresh_fingerprint: grant(10).refresh_fingerprint, ..grant(20) };
        assert_eq!(kept(&[grant(10), twin.clone()], PAIR, FRESH), Some(Keeps::Shared));
        assert_eq!(kept(&[grant(10), ended(twin)], PAIR, FRESH), None);
        // Two grants without refresh tokens have none in common.
        let bare = |id| GrantView {
            has_refresh_token: false,
            refresh_fingerprint: Fingerprint::NONE,
            ..grant(id)
        };
        assert_eq!(kept(&[bare(10), bare(20)], PAIR, FRESH), None);
    }

    #[test]
    fn only_a_verified_granularity_of_one_pair_allows_it() {
        let read = "source = \"https://example.org\"\non = \"2026-11-01\"";
        for facts in [
            String::new(),
            "[revoke]\nvalue = \"whole_grant\"".to_owned(),
            "[revoke]\nvalue = \"access_only\"".to_owned(),
            format!("{PAIR}\nstatus = \"memory\""),
            format!("{PAIR}\nstatus = \"secondary\"\n{read}"),
        ] {
            let kept = kept(&[grant(10)], &facts, FRESH);
            assert_eq!(kept, Some(Keeps::Granularity), "{facts}");
        }
        let verified = format!("{PAIR}\nstatus = \"verified\"\n{read}");
        assert_eq!(kept(&[grant(10)], &verified, FRESH), None);
    }

    #[test]
    fn scopes_cover_what_they_name_and_all_where_none_are_named() {
        let granted = texts(&["api", "refresh_token"]);
        assert!(covers(&granted, &["api"]));
        assert!(covers(&granted, &["refresh_token", "api"]));
        assert!(covers(&granted, &[] as &[&str]));
        assert!(!covers(&granted, &["api", "full"]));
        assert!(!covers(&granted, &["ap"]), "a part of a name is another name");
        assert!(!covers(&granted, &["API"]), "scopes have their case");
        assert!(covers(&[], &["api"]), "what was asked for was granted (RFC 6749, section 5.1)");
    }

    #[test]
    fn a_narrower_token_is_for_nobody_who_wants_more() {
        let (chain, own) = (texts(&["api", "mail"]), texts(&["mail"]));
        let all: &[&str] = &[];
        let whole = |wanted: &[&str]| gives(&chain, None, wanted);
        assert!(whole(all) && whole(&["api"]) && whole(&["mail", "api"]) && !whole(&["full"]));
        let narrow = |wanted: &[&str]| gives(&chain, Some(&own), wanted);
        assert!(narrow(&["mail"]));
        assert!(!narrow(&["api"]) && !narrow(&["mail", "api"]) && !narrow(all));
        assert!(gives(&chain, Some(&chain), all), "it has all that the chain has");
        // Nobody knows what all of the chain is, or what the token has.
        assert!(!gives(&[], Some(&own), all));
        assert!(!gives(&chain, Some(&[]), &["mail"]));
        // Of another resource the chain's own is asked for as such.
        assert!(!gives(&chain, Some(&texts(&["wave"])), &["wave"]));
    }

    #[test]
    fn the_oldest_that_lives_is_the_next_to_go() {
        let view = account(vec![ended(grant(10)), grant(20), grant(30)], Vec::new());
        assert_eq!(victim(&view).map(|grant| grant.grant), Some(GrantId(20)));
        assert_eq!(victim(&account(vec![ended(grant(10))], Vec::new())), None);
    }
}
