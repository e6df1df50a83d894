//! The model by example; what holds of any rules and any history is in `properties`.

mod properties;

use super::*;

const HOUR_MS: u64 = 60 * 60 * 1000;

fn salesforce(cap: u32, rotation: bool) -> Model {
    Model::new(Rules { cap: Some(cap), rotation, ..Rules::salesforce() }, "http://127.0.0.1:1")
}

fn rotating(recovery: Recovery) -> Model {
    let rules = Rules { rotation: true, recovery, reuse: Reuse::FamilyDies, ..Rules::rfc6749() };
    Model::new(rules, "http://127.0.0.1:1")
}

fn tokens(number: u32) -> NewTokens {
    NewTokens { access: format!("access-{number}"), refresh: Some(format!("refresh-{number}")) }
}

fn issue(model: &mut Model, user: &str, number: u32, now_ms: u64) -> Result<Pair, Refused> {
    let code = format!("code-{number}");
    model.add_code(code.clone(), Consent::of(user), now_ms);
    model.exchange(&code, None, None, tokens(number), now_ms)
}

/// Refreshes with a token of that number for tokens of another, and returns the refresh token.
fn refresh(model: &mut Model, with: u32, number: u32, now_ms: u64) -> Result<String, Refused> {
    let pair = model.refresh(&format!("refresh-{with}"), tokens(number), now_ms)?;
    Ok(pair.refresh.unwrap_or_default())
}

fn alive(model: &Model, number: u32, now_ms: u64) -> (bool, bool) {
    let is_alive = |kind: &str| model.is_alive(&format!("{kind}-{number}"), now_ms);
    (is_alive("access"), is_alive("refresh"))
}

fn reasons(model: &Model) -> Vec<(usize, ApprovalState)> {
    model.endings().iter().map(|ending| (ending.approval, ending.reason)).collect()
}

#[test]
fn the_pair_above_the_cap_silently_kills_the_oldest() {
    let mut model = salesforce(4, false);
    for number in 1..=4 {
        issue(&mut model, "alice", number, 0).unwrap();
    }
    issue(&mut model, "bob", 9, 0).unwrap();
    assert!((1..=4).all(|number| alive(&model, number, 0) == (true, true)));
    issue(&mut model, "alice", 5, 7).unwrap();
    assert_eq!(alive(&model, 1, 7), (false, false));
    assert!((2..=5).all(|number| alive(&model, number, 7).1));
    assert!(alive(&model, 9, 7).1, "bob's cap is his own");
    assert_eq!(refresh(&mut model, 1, 6, 7), Err(Refused::Dead));
    let state = model.state(7);
    assert_eq!((state.users[0].live, state.counters.evictions), (4, 1));
    assert_eq!(state.users[0].approvals[0].state, ApprovalState::Evicted);
    assert_eq!(state.users[0].approvals[1].access_tokens, 1);
    let ending = model.ending_of("access-1").unwrap();
    assert_eq!((ending.reason, ending.at_ms), (ApprovalState::Evicted, 7));
    let by = ending.by.as_ref().unwrap();
    assert_eq!((by.kind, by.approval, by.text.as_str()), (TokenKind::Code, 6, "code-5"));
    assert!(!format!("{model:?}").contains("code-5"), "no token is printed");
}

#[test]
fn web_sessions_take_places_and_are_never_evicted() {
    let rules = Rules { cap: Some(5), web_sessions: 1, ..Rules::salesforce() };
    let mut model = Model::new(rules, "");
    for number in 1..=4 {
        issue(&mut model, "alice", number, 0).unwrap();
    }
    assert_eq!((model.live("alice", 0), model.counters().evictions), (5, 0));
    issue(&mut model, "alice", 5, 0).unwrap();
    assert_eq!(reasons(&model), [(1, ApprovalState::Evicted)]);
    // Two more browsers: each takes the place of the oldest.
    model.set_web_sessions("alice", 3, 9);
    assert_eq!(reasons(&model)[1..], [(2, ApprovalState::Evicted), (3, ApprovalState::Evicted)]);
    assert_eq!(model.live("alice", 9), 5);
    assert!(model.ending_of("refresh-3").unwrap().by.is_none());
    // One place is always left.
    model.set_web_sessions("alice", 50, 9);
    assert!(alive(&model, 5, 9).1 && !alive(&model, 4, 9).1);
}

#[test]
fn a_cap_may_refuse_and_count_by_scope() {
    let overflow = Overflow::Refused;
    let rules = Rules { cap: Some(1), overflow, per_scope: true, ..Rules::rfc6749() };
    let mut model = Model::new(rules, "");
    issue(&mut model, "alice", 1, 0).unwrap();
    assert_eq!(issue(&mut model, "alice", 2, 0).unwrap_err(), Refused::CapReached);
    let other = Consent { scope: "other".to_owned(), ..Consent::of("alice") };
    model.add_code("code-3", other, 0);
    assert!(model.exchange("code-3", None, None, tokens(3), 0).is_ok());
    assert!(alive(&model, 1, 0).1 && model.endings().is_empty());
}

#[test]
fn a_cap_may_evict_what_was_used_least_recently() {
    let overflow = Overflow::LeastUsedEvicted;
    let mut model = Model::new(Rules { cap: Some(2), overflow, ..Rules::rfc6749() }, "");
    issue(&mut model, "alice", 1, 0).unwrap();
    issue(&mut model, "alice", 2, 1).unwrap();
    refresh(&mut model, 1, 9, 2).unwrap();
    issue(&mut model, "alice", 3, 3).unwrap();
    assert_eq!(reasons(&model), [(2, ApprovalState::Evicted)]);
    model.use_access("access-3", 4).unwrap();
    issue(&mut model, "alice", 4, 5).unwrap();
    assert_eq!(reasons(&model)[1..], [(1, ApprovalState::Evicted)]);
}

#[test]
fn only_what_counts_takes_a_place() {
    let mut model = salesforce(1, false);
    issue(&mut model, "alice", 1, 0).unwrap();
    model.add_code("code-2", Consent::of("alice"), 0);
    let new = NewTokens { refresh: None, ..tokens(2) };
    let pair = model.exchange("code-2", None, None, new, 0).unwrap();
    assert!(pair.refresh.is_none() && alive(&model, 1, 0).1);
    assert_eq!(model.live("alice", 0), 1);
    // Without a refresh token it lives as long as its access token.
    model.lapse_all(2 * HOUR_MS);
    assert_eq!(reasons(&model), [(2, ApprovalState::Expired)]);
}

#[test]
fn without_rotation_a_refresh_token_stays() {
    let mut model = salesforce(4, false);
    issue(&mut model, "alice", 1, 0).unwrap();
    let pair = model.refresh("refresh-1", tokens(2), 5).unwrap();
    assert!(pair.refresh.is_none());
    model.rules_mut().repeats_refresh = true;
    assert_eq!(refresh(&mut model, 1, 3, 6).as_deref(), Ok("refresh-1"));
    assert!(alive(&model, 1, 6).0 && alive(&model, 3, 6).0);
    let approval = &model.state(6).users[0].approvals[0];
    assert_eq!((approval.refreshes, approval.last_used_at_ms), (2, 6));
    assert_eq!(approval.access_tokens, 3);
}

#[test]
fn with_rotation_a_spent_token_kills_its_family() {
    let mut model = salesforce(4, true);
    issue(&mut model, "alice", 1, 0).unwrap();
    assert_eq!(refresh(&mut model, 1, 2, 0).as_deref(), Ok("refresh-2"));
    assert!(!alive(&model, 1, 0).1 && alive(&model, 2, 0).1);
    assert_eq!(model.standing("refresh-1", 0), Standing::Spent);
    assert_eq!(refresh(&mut model, 1, 3, 0), Err(Refused::Dead));
    assert_eq!(alive(&model, 2, 0), (false, false));
    assert_eq!((model.counters().reuses, model.live("alice", 0)), (1, 0));
    let by = model.ending_of("refresh-2").unwrap().by.clone().unwrap();
    assert_eq!((by.kind, by.generation, by.text.as_str()), (TokenKind::Refresh, 1, "refresh-1"));
}

#[test]
fn reuse_may_be_no_more_than_an_error() {
    let mut model = rotating(Recovery::None);
    model.rules_mut().reuse = Reuse::PlainError;
    issue(&mut model, "alice", 1, 0).unwrap();
    refresh(&mut model, 1, 2, 0).unwrap();
    assert_eq!(refresh(&mut model, 1, 3, 0), Err(Refused::Dead));
    assert!(alive(&model, 2, 0).1 && model.counters().reuses == 1);
}

#[test]
fn a_replay_gives_another_pair_until_an_answer_was_used() {
    let mut model = rotating(Recovery::Replay { ms: 30 });
    issue(&mut model, "alice", 1, 0).unwrap();
    refresh(&mut model, 1, 2, 100).unwrap();
    assert_eq!(model.standing("refresh-1", 130), Standing::InWindow);
    assert_eq!(refresh(&mut model, 1, 3, 130).as_deref(), Ok("refresh-3"));
    assert!(alive(&model, 2, 130).1 && alive(&model, 3, 130).1, "either may have come through");
    assert_eq!(model.standing("refresh-1", 131), Standing::Spent, "counted from the first time");
    assert_eq!(refresh(&mut model, 3, 4, 131).as_deref(), Ok("refresh-4"));
    assert_eq!(model.standing("refresh-1", 110), Standing::Spent, "an answer was used");
    assert_eq!(model.standing("refresh-2", 110), Standing::Spent, "the other one was");
    assert_eq!(model.standing("refresh-3", 110), Standing::InWindow);
    assert_eq!((model.counters().replays, model.counters().refreshes), (1, 3));
    assert_eq!(refresh(&mut model, 2, 5, 131), Err(Refused::Dead));
    assert_eq!(reasons(&model), [(1, ApprovalState::Reused)]);
}

#[test]
fn a_replay_may_replace_what_was_answered_before() {
    let mut model = rotating(Recovery::Replay { ms: 30 });
    model.rules_mut().replay_replaces = true;
    issue(&mut model, "alice", 1, 0).unwrap();
    refresh(&mut model, 1, 2, 0).unwrap();
    refresh(&mut model, 1, 3, 0).unwrap();
    assert!(!alive(&model, 2, 0).1 && alive(&model, 3, 0).1);
}

#[test]
fn the_same_successor_comes_back_until_it_is_used() {
    let mut model = rotating(Recovery::UntilSuccessorUsed { max_ms: 1000 });
    issue(&mut model, "alice", 1, 0).unwrap();
    refresh(&mut model, 1, 2, 0).unwrap();
    assert_eq!(refresh(&mut model, 1, 3, 1000).as_deref(), Ok("refresh-2"));
    assert!(alive(&model, 3, 1000).0 && !alive(&model, 3, 1000).1);
    assert_eq!(model.standing("refresh-1", 1001), Standing::Spent);
    // An access token that is used shows that its answer came through.
    assert!(model.use_access("access-3", 500).is_some());
    assert_eq!(model.standing("refresh-1", 500), Standing::Spent);
    assert_eq!(model.standing("refresh-2", 500), Standing::Works);
}

#[test]
fn the_same_answer_comes_back_within_its_window() {
    let mut model = rotating(Recovery::Idempotent { ms: 30 });
    issue(&mut model, "alice", 1, 0).unwrap();
    let first = model.refresh("refresh-1", tokens(2), 0).unwrap();
    let second = model.refresh("refresh-1", tokens(3), 30).unwrap();
    assert!(first == second);
    assert!(!model.is_alive("access-3", 30) && model.counters().refreshes == 1);
    assert_eq!(refresh(&mut model, 1, 4, 31), Err(Refused::Dead));
    assert_eq!(reasons(&model), [(1, ApprovalState::Reused)]);
}

#[test]
fn where_the_old_one_stays_valid_nothing_is_spent() {
    let mut model = rotating(Recovery::OldStaysValid);
    issue(&mut model, "alice", 1, 0).unwrap();
    for number in 2..5 {
        assert_eq!(refresh(&mut model, 1, number, 0), Ok(format!("refresh-{number}")));
    }
    refresh(&mut model, 3, 9, 0).unwrap();
    assert!([1, 2, 3, 4, 9].into_iter().all(|number| alive(&model, number, 0).1));
    assert_eq!((model.counters().reuses, model.live("alice", 0)), (0, 1));
}

#[test]
fn refreshes_of_one_token_collide_or_the_later_one_is_reuse() {
    let mut model = salesforce(4, true);
    issue(&mut model, "alice", 1, 0).unwrap();
    let begun = model.begin_refresh("refresh-1", None, 0).unwrap();
    assert_eq!(model.begin_refresh("refresh-1", None, 0).unwrap_err(), Refused::Busy);
    assert!(model.finish_refresh(begun, tokens(2), 0).is_ok());
    let begun = model.begin_refresh("refresh-2", None, 0).unwrap();
    model.revoke("refresh-2", 0).unwrap();
    assert_eq!(model.finish_refresh(begun, tokens(3), 0).unwrap_err(), Refused::Dead);
    assert_eq!(model.counters().collisions, 1);

    let mut model = rotating(Recovery::None);
    issue(&mut model, "alice", 1, 0).unwrap();
    let late = model.begin_refresh("refresh-1", None, 0).unwrap();
    let early = model.begin_refresh("refresh-1", None, 0).unwrap();
    assert!(model.finish_refresh(early, tokens(2), 0).is_ok());
    assert_eq!(model.finish_refresh(late, tokens(3), 0).unwrap_err(), Refused::Dead);
    assert_eq!(reasons(&model), [(1, ApprovalState::Reused)], "processed late, it is reuse");
}

#[test]
fn a_refresh_that_was_given_up_leaves_no_trace() {
    let mut model = salesforce(4, true);
    issue(&mut model, "alice", 1, 0).unwrap();
    let begun = model.begin_refresh("refresh-1", None, 0).unwrap();
    model.abandon_refresh(begun);
    assert_eq!(refresh(&mut model, 1, 2, 0).as_deref(), Ok("refresh-2"));
}

#[test]
fn a_refresh_may_ask_for_less_and_never_for_more() {
    let mut model = salesforce(4, false);
    issue(&mut model, "alice", 1, 0).unwrap();
    let begun = model.begin_refresh("refresh-1", Some("api"), 0).unwrap();
    assert_eq!(model.finish_refresh(begun, tokens(2), 0).unwrap().scope, "api");
    assert_eq!(model.use_access("access-2", 0).unwrap().scope, "api");
    assert_eq!(model.begin_refresh("refresh-1", Some("api x"), 0).unwrap_err(), Refused::Scope);
    assert_eq!(refresh(&mut model, 1, 3, 0).as_deref(), Ok(""), "nothing is left at work");
}

#[test]
fn a_refresh_can_end_the_access_tokens_before_it() {
    let mut model = rotating(Recovery::None);
    model.rules_mut().refresh_ends_access = true;
    issue(&mut model, "alice", 1, 0).unwrap();
    refresh(&mut model, 1, 2, 0).unwrap();
    assert_eq!((alive(&model, 1, 0), alive(&model, 2, 0)), ((false, false), (true, true)));
}

#[test]
fn a_code_works_once_in_time_and_as_it_was_asked_for() {
    // RFC 7636, appendix B.
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let consent = Consent {
        redirect_uri: Some("http://127.0.0.1/cb".to_owned()),
        challenge: Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned()),
        ..Consent::of("alice")
    };
    let minutes = 15 * 60 * 1000;
    let right = (Some("http://127.0.0.1/cb"), Some(verifier), minutes);
    for ((redirect_uri, verifier, now_ms), expected) in [
        (right, None),
        ((Some("http://127.0.0.1/other"), right.1, right.2), Some(Refused::Redirect)),
        ((None, right.1, right.2), Some(Refused::Redirect)),
        ((right.0, Some("another"), right.2), Some(Refused::Verifier)),
        ((right.0, None, right.2), Some(Refused::Verifier)),
        ((right.0, right.1, minutes + 1), Some(Refused::OldCode)),
    ] {
        let mut model = salesforce(4, false);
        model.add_code("code", consent.clone(), 0);
        let first = model.exchange("code", redirect_uri, verifier, tokens(1), now_ms);
        assert_eq!(first.err(), expected);
        let second = model.exchange("code", right.0, right.1, tokens(2), 0);
        assert_eq!(second.err(), Some(Refused::Code), "a code is spent by the attempt");
        assert!(model.endings().is_empty());
    }
}

#[test]
fn a_code_that_comes_again_may_revoke_what_it_made() {
    let mut model = salesforce(4, false);
    model.rules_mut().code_reuse_revokes = true;
    issue(&mut model, "alice", 1, 0).unwrap();
    issue(&mut model, "alice", 2, 0).unwrap();
    let again = model.exchange("code-1", None, None, tokens(3), 5);
    assert_eq!(again.unwrap_err(), Refused::Code);
    assert_eq!(reasons(&model), [(1, ApprovalState::CodeReused)]);
    assert!(!alive(&model, 1, 5).0 && alive(&model, 2, 5).1);
    assert_eq!(model.counters().code_reuses, 1);
}

#[test]
fn a_user_who_approves_again_may_get_the_same_refresh_token() {
    let mut model = salesforce(4, false);
    model.rules_mut().same_refresh_on_reconsent = true;
    issue(&mut model, "alice", 1, 0).unwrap();
    let again = issue(&mut model, "alice", 2, 5).unwrap();
    assert_eq!((again.refresh.as_deref(), again.approval), (Some("refresh-1"), 1));
    assert_eq!((model.live("alice", 5), model.counters().exchanges), (1, 2));
    model.revoke("refresh-1", 6).unwrap();
    assert!(!alive(&model, 2, 6).0, "what hangs on it goes with it");
    assert_eq!(issue(&mut model, "alice", 3, 7).unwrap().refresh.as_deref(), Some("refresh-3"));
    assert_eq!(issue(&mut model, "bob", 4, 7).unwrap().refresh.as_deref(), Some("refresh-4"));
}

#[test]
fn a_revocation_takes_along_what_the_rules_say() {
    let setup = |revoke| {
        let mut model = Model::new(Rules { revoke, ..Rules::salesforce() }, "");
        issue(&mut model, "alice", 1, 0).unwrap();
        issue(&mut model, "alice", 2, 0).unwrap();
        model
    };
    let (both, none) = ((true, true), (false, false));
    for (revoke, token, first, second) in [
        (Revocation::TokenAlone, "refresh-1", (true, false), both),
        (Revocation::TokenAlone, "access-1", (false, true), both),
        (Revocation::Pair, "refresh-1", none, both),
        (Revocation::Pair, "access-1", (false, true), both),
        (Revocation::WholeGrant, "refresh-1", none, none),
        (Revocation::WholeGrant, "access-1", none, none),
    ] {
        let mut model = setup(revoke);
        assert_eq!(model.revoke(token, 0), Ok(()));
        let alive = (alive(&model, 1, 0), alive(&model, 2, 0));
        assert_eq!(alive, (first, second), "{revoke:?} {token}");
        assert_eq!(model.revoke(token, 0), Err(Refused::Token));
        assert_eq!(model.revoke("never-issued", 0), Err(Refused::Token));
        model.rules_mut().revoke_unknown = true;
        assert_eq!(model.revoke("never-issued", 0), Ok(()));
        assert_eq!(model.counters().revocations, 1);
    }
}

#[test]
fn approvals_are_listed_with_what_ends_them() {
    let mut model = salesforce(4, true);
    issue(&mut model, "alice", 1, 3).unwrap();
    issue(&mut model, "alice", 2, 4).unwrap();
    refresh(&mut model, 1, 3, 9).unwrap();
    let listed = model.approvals("alice", 9);
    let seen: Vec<_> =
        listed.iter().map(|one| (one.approval, one.use_count, one.last_used_at_ms)).collect();
    assert_eq!(seen, [(1, 2, 9), (2, 1, 4)]);
    let delete = &listed[0].delete_token;
    assert_ne!(delete, &listed[1].delete_token);
    assert_eq!(model.refresh(delete, tokens(8), 9).unwrap_err(), Refused::Dead);
    assert_eq!(model.revoke(delete, 9), Ok(()));
    assert_eq!(alive(&model, 3, 9), (false, false));
    assert_eq!(model.revoke(delete, 9), Err(Refused::Token));
    assert_eq!(model.approvals("alice", 9).len(), 1);
    assert!(model.approvals("nobody", 9).is_empty());
}

#[test]
fn time_ends_what_is_idle_and_what_is_old() {
    let rules = Rules { idle_ms: Some(100), max_ms: Some(250), ..Rules::salesforce() };
    let mut model = Model::new(rules, "");
    issue(&mut model, "alice", 1, 0).unwrap();
    issue(&mut model, "alice", 2, 0).unwrap();
    refresh(&mut model, 1, 3, 99).unwrap();
    assert!(alive(&model, 2, 99).1 && !alive(&model, 2, 100).1);
    assert_eq!(refresh(&mut model, 2, 4, 100), Err(Refused::Dead));
    refresh(&mut model, 1, 5, 198).unwrap();
    assert!(alive(&model, 1, 249).1);
    assert_eq!(model.live("alice", 250), 0);
    assert_eq!(model.state(400).users[0].approvals[0].state, ApprovalState::Expired);
    assert_eq!(reasons(&model), [(2, ApprovalState::Idle), (1, ApprovalState::Expired)]);
    let times: Vec<u64> = model.endings().iter().map(|ending| ending.at_ms).collect();
    assert_eq!((times, model.counters().expiries), (vec![100, 250], 2));
}

#[test]
fn what_is_over_makes_room_under_the_cap() {
    let mut model = salesforce(1, false);
    model.rules_mut().idle_ms = Some(100);
    issue(&mut model, "alice", 1, 0).unwrap();
    issue(&mut model, "alice", 2, 100).unwrap();
    assert_eq!(reasons(&model), [(1, ApprovalState::Idle)], "it was not evicted");
}

#[test]
fn an_end_from_outside_is_told_apart() {
    let mut model = salesforce(4, false);
    issue(&mut model, "alice", 1, 0).unwrap();
    model.end_outside(1, 5);
    model.end_outside(7, 5);
    assert_eq!(reasons(&model), [(1, ApprovalState::EndedOutside)]);
    assert_eq!(refresh(&mut model, 1, 2, 5), Err(Refused::Dead));
}

#[test]
fn tokens_are_told_about_while_they_work() {
    let mut model = salesforce(4, false);
    issue(&mut model, "alice", 1, 1000).unwrap();
    let mut about = |token: &str, now_ms| model.introspect(token, now_ms).unwrap();
    let access = about("access-1", 1000).unwrap();
    assert_eq!((access.kind, access.expires_at_ms), (TokenKind::Access, Some(1000 + 2 * HOUR_MS)));
    assert!(about("access-1", 1000 + 2 * HOUR_MS).is_none() && about("never", 0).is_none());
    let refresh = about("refresh-1", 9 * HOUR_MS).unwrap();
    assert_eq!((refresh.kind, refresh.expires_at_ms), (TokenKind::Refresh, None));
    assert_eq!(refresh.user, "alice");
    model.rules_mut().introspects_refresh = false;
    assert_eq!(model.introspect("refresh-1", 0), Ok(None));
    model.rules_mut().introspects_access = false;
    assert_eq!(model.introspect("access-1", 0), Err(Refused::TokenType));
}

#[test]
fn what_the_app_mints_for_itself_is_no_approval() {
    let mut model = salesforce(1, false);
    issue(&mut model, "alice", 1, 0).unwrap();
    let own = model.mint("", "api", "access-8".to_owned(), 0);
    let hers = model.mint("alice", "api", "access-9".to_owned(), 0);
    assert!(own.identity_url.is_empty() && own.refresh.is_none() && !hers.identity_url.is_empty());
    assert_eq!((model.live("alice", 0), model.counters().mints), (1, 2));
    assert!(model.is_alive("access-8", 0) && !model.is_alive("access-8", 2 * HOUR_MS));
    assert_eq!(model.revoke("access-9", 0), Ok(()));
    assert!(!model.is_alive("access-9", 0) && alive(&model, 1, 0).1);
}
