//! The rules of the model that need no call and no record: what covers what, what may be revoked
//! without asking, who dies at the cap. Pure.

use crate::journal::{AccountView, GrantState, GrantView};
use crate::profile::{Profile, RevokeGranularity};
use serde::Serialize;

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
    /// An operation on it has no outcome.
    InDoubt,
    /// An access token that was handed out may still be in use.
    HandedOut,
    /// A living grant has the same refresh token.
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
            Self::InDoubt => "an operation on it has no outcome",
            Self::HandedOut => "an access token of it may still be in use",
            Self::Shared => "a living grant has the same refresh token",
            Self::Granularity => "nothing verified says that revoking ends this pair alone",
        }
    }
}

/// What is known of the access tokens of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handed {
    /// None was handed out.
    Never,
    /// The last one, or one of an earlier process perhaps.
    Perhaps,
}

/// Says what keeps a grant from being revoked without asking; none if nothing does.
pub(super) fn keeps(
    view: &AccountView,
    grant: &GrantView,
    profile: &Profile,
    handed: Handed,
    now_ms: u64,
) -> Option<Keeps> {
    let rules = [
        (Keeps::Ended, grant.end.is_some()),
        (Keeps::Held, grant.state == GrantState::Held),
        (Keeps::Paused, grant.paused),
        (Keeps::Waiting, grant.state == GrantState::Waiting && now_ms < grant.adopt_by_ms),
        (Keeps::InDoubt, view.in_doubt.iter().any(|open| open.grant == grant.grant)),
        (Keeps::HandedOut, handed == Handed::Perhaps && !has_lapsed(grant, now_ms)),
        (Keeps::Shared, shares(view, grant)),
        (Keeps::Granularity, profile.revoke().verified() != Some(&RevokeGranularity::Pair)),
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

fn shares(view: &AccountView, grant: &GrantView) -> bool {
    grant.has_refresh_token
        && view.grants.iter().any(|other| {
            other.grant != grant.grant
                && other.end.is_none()
                && other.refresh_fingerprint == grant.refresh_fingerprint
        })
}

/// Returns the living grants beside one: what a revocation of the whole approval would take along.
pub(super) fn siblings<'a>(
    view: &'a AccountView,
    grant: &'a GrantView,
) -> impl Iterator<Item = &'a GrantView> {
    view.grants.iter().filter(move |other| other.grant != grant.grant && other.end.is_none())
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
    use crate::format::value::Action;
    use crate::ids::{Fingerprint, GrantId};
    use crate::outcome::ExpirySource;

    const PAIR: &str = "[revoke]\nvalue = \"pair\"";

    /// What keeps the first of these grants, at [`SENT_MS`].
    fn kept(grants: &[GrantView], facts: &str, handed: Handed) -> Option<Keeps> {
        let view = account(grants.to_vec(), Vec::new());
        keeps(&view, &view.grants[0], &profile(facts), handed, SENT_MS)
    }

    #[test]
    fn a_released_grant_alone_is_kept_by_nothing() {
        assert_eq!(kept(&[grant(10), grant(20)], PAIR, Handed::Never), None);
    }

    #[test]
    fn what_is_over_held_or_paused_is_kept() {
        assert_eq!(kept(&[ended(grant(10))], PAIR, Handed::Never), Some(Keeps::Ended));
        let held = held(grant(10), "sync", &[], 12);
        assert_eq!(kept(&[held], PAIR, Handed::Never), Some(Keeps::Held));
        let paused = GrantView { paused: true, ..grant(10) };
        assert_eq!(kept(&[paused], PAIR, Handed::Never), Some(Keeps::Paused));
    }

    #[test]
    fn what_was_never_adopted_waits_until_its_time() {
        let waiting = |adopt_by_ms| {
            let waiting = GrantView { state: GrantState::Waiting, adopt_by_ms, ..grant(10) };
            kept(&[waiting], PAIR, Handed::Never)
        };
        assert_eq!(waiting(SENT_MS + 1), Some(Keeps::Waiting));
        assert_eq!(waiting(SENT_MS), None);
        // What was released waits for nobody.
        let released = GrantView { adopt_by_ms: SENT_MS + 1, ..grant(10) };
        assert_eq!(kept(&[released], PAIR, Handed::Never), None);
    }

    #[test]
    fn what_is_in_doubt_is_kept_and_nothing_beside_it() {
        for action in [Action::Refresh, Action::Revoke, Action::Introspect] {
            let open = operation(30, action, 10);
            let view = account(vec![grant(10), grant(20)], vec![open]);
            let kept =
                |at: usize| keeps(&view, &view.grants[at], &profile(PAIR), Handed::Never, SENT_MS);
            assert_eq!((kept(0), kept(1)), (Some(Keeps::InDoubt), None));
        }
    }

    #[test]
    fn an_access_token_that_was_handed_out_has_to_lapse_first() {
        let at = |at_ms, source| {
            let lapsing = expiring(grant(10), at_ms, source);
            kept(&[lapsing], PAIR, Handed::Perhaps)
        };
        for source in [ExpirySource::Declared, ExpirySource::Introspected] {
            assert_eq!(at(SENT_MS + 1, source), Some(Keeps::HandedOut));
            assert_eq!(at(SENT_MS, source), None);
        }
        let never =
            kept(&[expiring(grant(10), SENT_MS + 1, ExpirySource::Declared)], PAIR, Handed::Never);
        assert_eq!(never, None, "nobody has it");
        let unknown = GrantView { expires_at_ms: 0, expiry: None, ..grant(10) };
        assert_eq!(kept(&[unknown], PAIR, Handed::Perhaps), Some(Keeps::HandedOut));
        // Of an assumption as much again is waited for.
        let assumed = |lifetime_ms: u64| {
            let mut lapsing = expiring(grant(10), 0, ExpirySource::Assumed);
            lapsing.expires_at_ms = lapsing.issued_at_ms + lifetime_ms;
            kept(&[lapsing], PAIR, Handed::Perhaps)
        };
        let age_ms = SENT_MS - grant(10).issued_at_ms;
        assert_eq!(assumed(age_ms / 2), None);
        assert_eq!(assumed(age_ms / 2 + 1), Some(Keeps::HandedOut));
    }

    #[test]
    fn a_refresh_token_that_a_living_grant_shares_is_kept() {
        let twin = GrantView { refresh_fingerprint: grant(10).refresh_fingerprint, ..grant(20) };
        assert_eq!(kept(&[grant(10), twin.clone()], PAIR, Handed::Never), Some(Keeps::Shared));
        assert_eq!(kept(&[grant(10), ended(twin)], PAIR, Handed::Never), None);
        // Two grants without refresh tokens have none in common.
        let bare = |id| GrantView {
            has_refresh_token: false,
            refresh_fingerprint: Fingerprint::NONE,
            ..grant(id)
        };
        assert_eq!(kept(&[bare(10), bare(20)], PAIR, Handed::Never), None);
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
            let kept = kept(&[grant(10)], &facts, Handed::Never);
            assert_eq!(kept, Some(Keeps::Granularity), "{facts}");
        }
        let verified = format!("{PAIR}\nstatus = \"verified\"\n{read}");
        assert_eq!(kept(&[grant(10)], &verified, Handed::Never), None);
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
        let beside: Vec<_> = siblings(&view, &view.grants[1]).map(|grant| grant.grant).collect();
        assert_eq!(beside, [GrantId(30)]);
    }
}
