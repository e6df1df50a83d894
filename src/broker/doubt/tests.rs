//! Each branch of the decision, and a property: what rotates is sent again for a reason alone.

use super::super::testing::{
    DEADLINE_MS, ISSUED_MS, SENT_MS, ended, expiring, grant, held, operation, profile,
};
use super::*;
use crate::ids::{Generation, Lsn};
use crate::outcome::ExpirySource;
use proptest::prelude::*;

const MARGIN: Duration = Duration::from_secs(45);
/// From here on no request that was given up comes any more.
const LATE_MS: u64 = DEADLINE_MS + 45_000;
/// When the access token in use lapses, in the tests that have one.
const LAPSES_MS: u64 = SENT_MS + 5_400_000;

const ROTATES: &str = "[rotation]\nvalue = \"always\"\n";
const FAMILY: &str = "[reuse]\nvalue = \"family_dies\"\n";
const PROBES: &str = "[introspection]\nvalue = \"refresh\"\n";
const READ: &str = "source = \"https://example.org\"\non = \"2026-11-01\"\n";

/// What a test changes of an ordinary case: a refresh of grant 10 was cut, nothing else is wrong.
struct Given {
    operation: OperationView,
    grant: Option<GrantView>,
    twins: usize,
    has_later_twin: bool,
    newer_siblings: usize,
    profile: Profile,
    rotates: bool,
    now_ms: u64,
    newest_ms: u64,
    /// None: as long as the clock on the wall says.
    known_for: Option<Duration>,
    probed: Option<Probed>,
}

impl Given {
    fn refresh(facts: &str) -> Self {
        Self {
            operation: operation(20, Action::Refresh, 10),
            grant: Some(expiring(grant(10), LAPSES_MS, ExpirySource::Declared)),
            twins: 0,
            has_later_twin: false,
            newer_siblings: 0,
            profile: profile(&format!("{ROTATES}{facts}")),
            rotates: true,
            now_ms: SENT_MS + 1000,
            newest_ms: SENT_MS,
            known_for: None,
            probed: None,
        }
    }

    fn of(action: Action) -> Self {
        Self { operation: operation(20, action, 10), ..Self::refresh("") }
    }

    fn steady() -> Self {
        Self {
            profile: profile("[rotation]\nvalue = \"never\""),
            rotates: false,
            ..Self::refresh("")
        }
    }

    fn at(mut self, now_ms: u64) -> Self {
        self.now_ms = now_ms;
        self
    }

    fn because(mut self, reason: DoubtReason) -> Self {
        self.operation.doubt = Some(reason);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn with_grant(self, change: impl FnOnce(&mut GrantView)) -> Self {
        self.with(|given| change(given.grant.as_mut().unwrap()))
    }

    fn probed(self, said: Probed) -> Self {
        self.with(|given| given.probed = Some(said))
    }

    fn step(&self) -> Step {
        let Self { twins, has_later_twin, newer_siblings, rotates, .. } = *self;
        let Self { now_ms, newest_ms, probed, .. } = *self;
        let (operation, grant, profile) = (&self.operation, self.grant.as_ref(), &self.profile);
        Case {
            operation,
            grant,
            twins,
            has_later_twin,
            newer_siblings,
            profile,
            rotates,
            now_ms,
            newest_ms,
            margin: MARGIN,
            known_for: self.known_for.unwrap_or_else(|| {
                Duration::from_millis(now_ms.saturating_sub(operation.since_ms))
            }),
            token_left: Duration::from_millis(
                grant.map_or(0, |grant| grant.lapses_at_ms.unwrap_or(0).saturating_sub(now_ms)),
            ),
            probed,
        }
        .step()
    }
}

fn replay(seconds: u32) -> String {
    format!("[recovery]\nkind = \"replay\"\nseconds = {seconds}\n")
}

#[test]
fn a_code_is_never_presented_again_without_a_person() {
    for now_ms in [0, SENT_MS, LATE_MS, u64::MAX] {
        let facts = "[code_reuse_revokes]\nvalue = true\n";
        let given = Given { profile: profile(facts), ..Given::of(Action::Exchange) };
        assert_eq!(given.at(now_ms).step(), Step::Ask(Why::CodeOnce));
        assert_eq!(Given::of(Action::Burn).at(now_ms).step(), Step::Ask(Why::Burn));
    }
}

#[test]
fn a_question_that_was_lost_did_nothing() {
    assert_eq!(Given::of(Action::Introspect).step(), Step::Resolve(ResolvedHow::NotIssued));
}

#[test]
fn a_mint_is_made_again_once_for_all_that_were_lost() {
    assert_eq!(Given::of(Action::Mint).step(), Step::Mint);
    let earlier = Given::of(Action::Mint).with(|given| {
        (given.twins, given.has_later_twin) = (1, true);
    });
    assert_eq!(earlier.step(), Step::Resolve(ResolvedHow::Resent));
    let latest = Given::of(Action::Mint).with(|given| given.twins = 1);
    assert_eq!(latest.step(), Step::Mint);
}

#[test]
fn a_revocation_is_sent_again_until_the_grant_is_over() {
    let revoke = || Given::of(Action::Revoke);
    assert_eq!(revoke().step(), Step::Resend);
    let earlier = revoke().with(|given| (given.twins, given.has_later_twin) = (1, true));
    assert_eq!(earlier.step(), Step::Resolve(ResolvedHow::Resent));
    let over = revoke().with(|given| given.grant = Some(ended(grant(10))));
    assert_eq!(over.step(), Step::Resolve(ResolvedHow::Answered));
    let unknown = revoke().with(|given| given.grant = None);
    assert_eq!(unknown.step(), Step::Resolve(ResolvedHow::Answered));
}

#[test]
fn a_claimed_copy_sends_no_revocation_again() {
    let stale = |grant: &mut GrantView| grant.stale = true;
    let step = Given::of(Action::Revoke).with_grant(stale).step();
    assert_eq!(step, Step::Ask(Why::Copy));
}

#[test]
fn a_revocation_is_not_sent_again_where_it_would_kill_what_came_since() {
    let adopted = |since| {
        Given::of(Action::Revoke)
            .with(|given| given.grant = Some(held(grant(10), "sync", &[], since)))
    };
    assert_eq!(adopted(21).step(), Step::Ask(Why::Needed), "adopted after it was begun");
    assert_eq!(adopted(19).step(), Step::Resend, "whoever asked for it knew of this holder");
    let granular = |granularity| {
        let facts = format!("[revoke]\nvalue = \"{granularity}\"");
        Given { profile: profile(&facts), newer_siblings: 1, ..Given::of(Action::Revoke) }
    };
    assert_eq!(granular("pair").step(), Step::Resend);
    assert_eq!(granular("access_only").step(), Step::Ask(Why::Siblings));
    assert_eq!(granular("whole_grant").step(), Step::Ask(Why::Siblings));
    let hearsay = format!("[revoke]\nvalue = \"pair\"\nstatus = \"secondary\"\n{READ}");
    let hearsay = Given { profile: profile(&hearsay), ..granular("pair") };
    assert_eq!(hearsay.step(), Step::Ask(Why::Siblings));
}

#[test]
fn what_is_spent_or_over_is_not_sent_again() {
    let facts = replay(600);
    let refresh = || Given::refresh(&facts).because(DoubtReason::ConnectionLost);
    assert_eq!(refresh().step(), Step::Resend);
    let spent = refresh().with_grant(|grant| grant.generation = Generation(2));
    assert_eq!(spent.step(), Step::Resolve(ResolvedHow::Resent));
    let over = refresh().with(|given| given.grant = Some(ended(grant(10))));
    assert_eq!(over.step(), Step::Ask(Why::Over));
    let unknown = refresh().with(|given| given.grant = None);
    assert_eq!(unknown.step(), Step::Ask(Why::Over));
}

#[test]
fn without_rotation_it_is_sent_again_at_once_and_one_stands_for_all() {
    for doubt in [None, Some(DoubtReason::Timeout), Some(DoubtReason::ServerError)] {
        let given = || Given::steady().with(|given| given.operation.doubt = doubt);
        assert_eq!(given().step(), Step::Resend);
        assert_eq!(given().at(0).step(), Step::Resend, "whatever the clock says");
        assert_eq!(given().with_grant(|grant| grant.stale = true).step(), Step::Resend);
        let earlier = given().with(|given| (given.twins, given.has_later_twin) = (1, true));
        assert_eq!(earlier.step(), Step::Resolve(ResolvedHow::Resent));
        assert_eq!(given().with(|given| given.twins = 1).step(), Step::Resend);
    }
}

#[test]
fn a_window_is_half_of_it_counted_from_sending() {
    let kinds = [
        ("replay", "seconds", 600),
        ("idempotent", "seconds", 600),
        ("until_successor_used", "max_seconds", 600),
    ];
    for (kind, key, seconds) in kinds {
        let facts = format!("[recovery]\nkind = \"{kind}\"\n{key} = {seconds}\n");
        let at =
            |now_ms| Given::refresh(&facts).because(DoubtReason::ConnectionLost).at(now_ms).step();
        assert_eq!(at(SENT_MS), Step::Resend, "{kind}");
        assert_eq!(at(SENT_MS + 299_999), Step::Resend, "{kind}");
        assert_eq!(at(SENT_MS + 300_000), Step::Ask(Why::Reuse), "{kind}");
        let hearsay = format!("{facts}status = \"secondary\"\n{READ}");
        let hearsay = Given::refresh(&hearsay).because(DoubtReason::ConnectionLost);
        assert_eq!(hearsay.step(), Step::Ask(Why::Reuse), "{kind}: nobody verified it");
    }
    let none = Given::refresh(&replay(0)).because(DoubtReason::ConnectionLost);
    assert_eq!(none.at(SENT_MS).step(), Step::Ask(Why::Reuse), "no window at all");
}

#[test]
fn where_the_old_token_stays_valid_it_may_always_be_presented() {
    let facts = "[recovery]\nkind = \"old_stays_valid\"\n";
    let given = || Given::refresh(facts).because(DoubtReason::ServerError);
    assert_eq!(given().at(SENT_MS + 100_000_000).step(), Step::Resend);
    assert_eq!(given().at(SENT_MS - 1).step(), Step::Resend, "no clock is asked");
    let hearsay = format!("{facts}status = \"memory\"");
    let hearsay = Given::refresh(&hearsay).because(DoubtReason::ServerError);
    assert_eq!(hearsay.step(), Step::Ask(Why::Reuse));
}

#[test]
fn a_clock_that_is_behind_closes_every_window_of_time() {
    let facts = replay(600);
    let given = || Given::refresh(&facts).because(DoubtReason::ConnectionLost);
    assert_eq!(given().at(SENT_MS - 1).step(), Step::Ask(Why::Clock));
    let behind = given().at(SENT_MS + 1000).with(|given| given.newest_ms = SENT_MS + 1001);
    assert_eq!(behind.step(), Step::Ask(Why::Clock), "behind another record");
    let level = given().at(SENT_MS + 1001).with(|given| given.newest_ms = SENT_MS + 1001);
    assert_eq!(level.step(), Step::Resend);
    // Nor has anything lapsed by it.
    let lapsed = Given::refresh(FAMILY).at(LAPSES_MS + 1).with(|given| {
        given.newest_ms = LAPSES_MS + 2;
    });
    assert_eq!(lapsed.step(), Step::Ask(Why::Clock));
}

#[test]
fn what_was_cut_may_come_late_and_is_waited_for() {
    let facts = replay(1000);
    for doubt in [None, Some(DoubtReason::Timeout), Some(DoubtReason::Cancelled)] {
        let at = |now_ms| {
            Given::refresh(&facts).with(|given| given.operation.doubt = doubt).at(now_ms).step()
        };
        assert_eq!(at(SENT_MS), Step::Wait(LATE_MS), "{doubt:?}");
        assert_eq!(at(LATE_MS - 1), Step::Wait(LATE_MS), "{doubt:?}");
        assert_eq!(at(LATE_MS), Step::Resend, "{doubt:?}");
    }
    for answered in [
        DoubtReason::ConnectionLost,
        DoubtReason::ServerError,
        DoubtReason::Unreadable,
        DoubtReason::Oversized,
    ] {
        let given = Given::refresh(&facts).because(answered);
        assert_eq!(given.step(), Step::Resend, "{answered:?}: it was there already");
    }
}

#[test]
fn a_token_is_presented_again_once() {
    for later in [false, true] {
        let facts = format!("{}{FAMILY}{PROBES}", replay(600));
        let twin = |given: &mut Given| (given.twins, given.has_later_twin) = (1, later);
        let given = || Given::refresh(&facts).because(DoubtReason::ConnectionLost).with(twin);
        assert_eq!(given().step(), Step::Ask(Why::Resent));
        assert_eq!(given().at(LAPSES_MS).step(), Step::Ask(Why::Resent));
        assert_eq!(given().at(LAPSES_MS).probed(Probed::Active).step(), Step::Ask(Why::Resent));
    }
}

#[test]
fn a_copy_presents_nothing_twice_even_where_the_provider_calls_it_active() {
    // The other presentation may still be on its way, whatever was heard after this one's margin.
    let facts = format!("{FAMILY}{PROBES}");
    let copied = Given::refresh(&facts).at(LATE_MS).probed(Probed::Active);
    let copied = copied.with_grant(|grant| grant.stale = true).with(|given| given.twins = 1);
    assert_eq!(copied.step(), Step::Ask(Why::Resent));
}

#[test]
fn a_probe_counts_only_after_the_deadline_and_the_margin() {
    let facts = format!("{FAMILY}{PROBES}");
    let given = || Given::refresh(&facts).because(DoubtReason::ConnectionLost);
    assert_eq!(given().at(LATE_MS - 1).step(), Step::Wait(LATE_MS));
    let early = given().at(LATE_MS - 1).probed(Probed::Active);
    assert_eq!(early.step(), Step::Wait(LATE_MS), "what was said too early says nothing");
    assert_eq!(given().at(LATE_MS).step(), Step::Probe);
    assert_eq!(given().at(LATE_MS).probed(Probed::Active).step(), Step::Resend);
    assert_eq!(given().at(LATE_MS).probed(Probed::Inactive).step(), Step::Ask(Why::Spent));
    let lapsed = given().at(LAPSES_MS).probed(Probed::Inactive);
    assert_eq!(lapsed.step(), Step::Ask(Why::Spent), "also after all has lapsed");
    assert_eq!(given().at(LATE_MS).probed(Probed::Unknown).step(), Step::Wait(LAPSES_MS));
    assert_eq!(given().at(LAPSES_MS).probed(Probed::Unknown).step(), Step::Resend);
}

#[test]
fn only_who_can_be_asked_about_refresh_tokens_is_probed() {
    let step = |fact: &str| {
        let facts = format!("{FAMILY}[introspection]\n{fact}\n");
        Given::refresh(&facts).at(LATE_MS).step()
    };
    assert_eq!(step("value = \"refresh\""), Step::Probe);
    assert_eq!(step("value = \"both\""), Step::Probe);
    assert_eq!(step("value = \"access\""), Step::Wait(LAPSES_MS));
    assert_eq!(step("value = \"no\""), Step::Wait(LAPSES_MS));
    assert_eq!(step("status = \"unknown\""), Step::Wait(LAPSES_MS));
}

#[test]
fn a_probe_that_nobody_verified_forbids_but_does_not_allow() {
    let facts = format!("{FAMILY}[introspection]\nvalue = \"both\"\nstatus = \"memory\"\n");
    let given = || Given::refresh(&facts).at(LATE_MS);
    assert_eq!(given().step(), Step::Probe);
    assert_eq!(given().probed(Probed::Active).step(), Step::Wait(LAPSES_MS));
    assert_eq!(given().probed(Probed::Inactive).step(), Step::Ask(Why::Spent));
}

#[test]
fn a_copy_asks_the_provider_first_or_a_person() {
    let stale = |facts: &str| {
        Given::refresh(facts)
            .because(DoubtReason::ConnectionLost)
            .with_grant(|grant| grant.stale = true)
    };
    let window = replay(1000);
    assert_eq!(stale(&window).step(), Step::Ask(Why::Copy), "not even within a window");
    assert_eq!(stale(FAMILY).at(LAPSES_MS).step(), Step::Ask(Why::Copy));
    let asks = format!("{window}{PROBES}");
    assert_eq!(stale(&asks).step(), Step::Wait(LATE_MS));
    assert_eq!(stale(&asks).at(LATE_MS).step(), Step::Probe);
    assert_eq!(stale(&asks).at(LATE_MS).probed(Probed::Active).step(), Step::Resend);
    assert_eq!(stale(&asks).at(LATE_MS).probed(Probed::Inactive).step(), Step::Ask(Why::Spent));
    assert_eq!(stale(&asks).at(LATE_MS).probed(Probed::Unknown).step(), Step::Ask(Why::Copy));
}

#[test]
fn after_all_has_lapsed_it_is_presented_once_where_reuse_is_known() {
    for reuse in ["family_dies", "plain_error"] {
        let facts = format!("[reuse]\nvalue = \"{reuse}\"\n");
        let at = |now_ms| Given::refresh(&facts).at(now_ms).step();
        assert_eq!(at(SENT_MS), Step::Wait(LAPSES_MS), "{reuse}");
        assert_eq!(at(LAPSES_MS - 1), Step::Wait(LAPSES_MS), "{reuse}");
        assert_eq!(at(LAPSES_MS), Step::Resend, "{reuse}");
        let hearsay = format!("{facts}status = \"secondary\"\n{READ}");
        assert_eq!(Given::refresh(&hearsay).at(LAPSES_MS).step(), Step::Ask(Why::Reuse));
    }
    assert_eq!(Given::refresh("").at(LAPSES_MS).step(), Step::Ask(Why::Reuse));
    // The margin for what comes late holds where the access token lapses before it.
    let short = |now_ms| {
        let lapses = |grant: &mut GrantView| grant.lapses_at_ms = Some(SENT_MS + 10);
        Given::refresh(FAMILY).with_grant(lapses).at(now_ms).step()
    };
    assert_eq!(short(LATE_MS - 1), Step::Wait(LATE_MS));
    assert_eq!(short(LATE_MS), Step::Resend);
}

#[test]
fn nothing_lapses_that_is_only_assumed_to() {
    let given = |source| {
        let known = |grant: &mut GrantView| *grant = expiring(grant.clone(), LAPSES_MS, source);
        Given::refresh(FAMILY).with_grant(known).at(LAPSES_MS * 2).step()
    };
    assert_eq!(given(ExpirySource::Declared), Step::Resend);
    assert_eq!(given(ExpirySource::Introspected), Step::Resend);
    assert_eq!(given(ExpirySource::Assumed), Step::Ask(Why::NoExpiry));
    let unknown = |grant: &mut GrantView| grant.lapses_at_ms = None;
    let step = Given::refresh(FAMILY).with_grant(unknown).at(LAPSES_MS * 2).step();
    assert_eq!(step, Step::Ask(Why::NoExpiry));
}

#[test]
fn the_longest_lived_access_token_has_to_lapse_before_a_second_presentation() {
    let longer = |grant: &mut GrantView| grant.lapses_at_ms = Some(LAPSES_MS + 1000);
    let at = |now_ms| Given::refresh(FAMILY).with_grant(longer).at(now_ms).step();
    assert_eq!(at(LAPSES_MS + 999), Step::Wait(LAPSES_MS + 1000));
    assert_eq!(at(LAPSES_MS + 1000), Step::Resend);
}

#[test]
fn each_why_is_a_sentence_of_its_own() {
    let all = [
        Why::CodeOnce,
        Why::Resent,
        Why::Reuse,
        Why::NoExpiry,
        Why::Clock,
        Why::Copy,
        Why::Spent,
        Why::Over,
        Why::Burn,
        Why::Needed,
        Why::Siblings,
    ];
    let sentences: std::collections::HashSet<_> = all.iter().map(|why| why.sentence()).collect();
    assert_eq!(sentences.len(), all.len());
}

/// A recovery as the profile has it, and as the property knows it: until when after sending the
/// old token works, in ms.
#[derive(Debug, Clone, Copy)]
enum Takes {
    Nothing,
    For(u64),
    Always,
}

fn recovery() -> impl Strategy<Value = (String, Takes)> {
    let seconds = prop_oneof![Just(0_u32), 1_u32..2000, Just(u32::MAX)];
    let kinds = (0_usize..5, seconds, 0_usize..4);
    kinds.prop_map(|(kind, seconds, status)| {
        let (fact, takes) = match kind {
            0 => (String::new(), Takes::Nothing),
            1 => ("kind = \"none\"".to_owned(), Takes::Nothing),
            2 => ("kind = \"old_stays_valid\"".to_owned(), Takes::Always),
            3 => {
                let fact = format!("kind = \"until_successor_used\"\nmax_seconds = {seconds}");
                (fact, Takes::For(u64::from(seconds) * 1000))
            }
            _ => {
                let kind = if seconds % 2 == 0 { "replay" } else { "idempotent" };
                let fact = format!("kind = \"{kind}\"\nseconds = {seconds}");
                (fact, Takes::For(u64::from(seconds) * 1000))
            }
        };
        if fact.is_empty() {
            return (String::new(), Takes::Nothing);
        }
        let (evidence, verified) = evidence(status);
        let takes = if verified { takes } else { Takes::Nothing };
        (format!("[recovery]\n{fact}\n{evidence}\n"), takes)
    })
}

fn evidence(status: usize) -> (String, bool) {
    match status {
        0 => (format!("status = \"verified\"\n{READ}"), true),
        1 => (String::new(), true),
        2 => (format!("status = \"secondary\"\n{READ}"), false),
        _ => ("status = \"memory\"".to_owned(), false),
    }
}

fn instants() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        // As late as a time can be told to wait for.
        Just(u64::MAX / 2),
        ISSUED_MS..LAPSES_MS * 2,
        SENT_MS - 5..SENT_MS + 2_000_000,
        LATE_MS - 3..LATE_MS + 3,
        LAPSES_MS - 3..LAPSES_MS + 3,
    ]
}

prop_compose! {
    fn anything()(
        (recovery, takes) in recovery(),
        (reuse, reuse_status) in (0_usize..3, 0_usize..4),
        (asks, asks_status) in (0_usize..5, 0_usize..4),
        now_ms in instants(),
        newest_ms in instants(),
        expires_at_ms in instants(),
        source in prop::sample::select(vec![
            None,
            Some(ExpirySource::Declared),
            Some(ExpirySource::Introspected),
            Some(ExpirySource::Assumed),
        ]),
        doubt in prop::sample::select(vec![
            None,
            Some(DoubtReason::Timeout),
            Some(DoubtReason::ConnectionLost),
            Some(DoubtReason::ServerError),
            Some(DoubtReason::Unreadable),
            Some(DoubtReason::Oversized),
            Some(DoubtReason::Cancelled),
        ]),
        probed in prop::sample::select(vec![
            None,
            Some(Probed::Active),
            Some(Probed::Inactive),
            Some(Probed::Unknown),
        ]),
        (generation, is_over, is_gone) in (1_u32..3, prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
        (stale, twins, has_later_twin) in (prop::bool::weighted(0.3), 0_usize..3, any::<bool>()),
    ) -> (Given, Allowed) {
        let mut facts = recovery.clone();
        let reuse_known = reuse > 0 && evidence(reuse_status).1;
        if reuse > 0 {
            let value = ["plain_error", "family_dies"][reuse - 1];
            let evidence = evidence(reuse_status).0;
            facts += &format!("[reuse]\nvalue = \"{value}\"\n{evidence}\n");
        }
        if asks > 0 {
            let value = ["no", "access", "refresh", "both"][asks - 1];
            let evidence = evidence(asks_status).0;
            facts += &format!("[introspection]\nvalue = \"{value}\"\n{evidence}\n");
        }
        let mut given = Given::refresh(&facts).at(now_ms).with(|given| {
            given.operation.doubt = doubt;
            given.newest_ms = newest_ms;
            given.probed = probed;
            (given.twins, given.has_later_twin) = (twins, has_later_twin && twins > 0);
        });
        let mut view = grant(10);
        (view.expires_at_ms, view.expiry) = (expires_at_ms, source);
        (view.generation, view.stale) = (Generation(generation), stale);
        given.grant = match (is_gone, is_over) {
            (true, _) => None,
            (false, true) => Some(ended(view)),
            (false, false) => Some(view),
        };
        let allowed = Allowed {
            takes,
            reuse_known,
            asked: asks >= 3,
            believed: asks >= 3 && evidence(asks_status).1,
        };
        (given, allowed)
    }
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let profile = serde_json::to_string(&self.profile).unwrap();
        f.debug_struct("Given")
            .field("operation", &self.operation)
            .field("grant", &self.grant)
            .field("twins", &self.twins)
            .field("now_ms", &self.now_ms)
            .field("newest_ms", &self.newest_ms)
            .field("probed", &self.probed)
            .field("profile", &profile)
            .finish_non_exhaustive()
    }
}

/// What the provider is known to do, beside what the case has.
#[derive(Debug, Clone, Copy)]
struct Allowed {
    takes: Takes,
    reuse_known: bool,
    /// It answers about refresh tokens.
    asked: bool,
    /// Its answers about refresh tokens may be acted on.
    believed: bool,
}

impl Allowed {
    /// The reasons for which a token that may be spent is presented again, from the model's words
    /// and not from the code's.
    fn to_resend(self, given: &Given) -> Vec<&'static str> {
        let mut reasons = Vec::new();
        let Some(grant) = &given.grant else { return reasons };
        // Once; never what is over, and never what is known to be spent.
        if given.twins > 0 || grant.end.is_some() || grant.generation > given.operation.generation {
            return reasons;
        }
        let now_ms = u128::from(given.now_ms);
        let on_time = given.now_ms >= given.newest_ms && given.now_ms >= SENT_MS;
        let none_comes_late = given.now_ms >= LATE_MS;
        let was_seen_through = matches!(
            given.operation.doubt,
            Some(
                DoubtReason::ConnectionLost
                    | DoubtReason::ServerError
                    | DoubtReason::Unreadable
                    | DoubtReason::Oversized
            )
        );
        if !grant.stale && (none_comes_late || was_seen_through) {
            match self.takes {
                Takes::Always => reasons.push("the old token stays valid"),
                // Half of the window, in whole arithmetic, counted from sending.
                Takes::For(ms) if on_time && (now_ms - u128::from(SENT_MS)) * 2 < ms.into() => {
                    reasons.push("within half of the window");
                }
                _ => {}
            }
        }
        if self.believed && none_comes_late && given.probed == Some(Probed::Active) {
            reasons.push("the provider says that it was not spent");
        }
        let told = [Some(ExpirySource::Declared), Some(ExpirySource::Introspected)];
        let lapsed = told.contains(&grant.expiry)
            && grant.expires_at_ms > 0
            && given.now_ms >= grant.expires_at_ms;
        let refuted = self.asked && given.probed == Some(Probed::Inactive);
        if !grant.stale && lapsed && none_comes_late && on_time && self.reuse_known && !refuted {
            reasons.push("whatever could die of it has lapsed");
        }
        reasons
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_rotates_is_sent_again_for_a_reason_alone((given, allowed) in anything()) {
        if given.step() == Step::Resend {
            let reasons = allowed.to_resend(&given);
            prop_assert!(!reasons.is_empty(), "{allowed:?}");
        }
    }
}

/// The property would be empty if nothing were ever sent again.
#[test]
fn the_property_meets_every_reason() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut met = std::collections::BTreeMap::new();
    for _ in 0..20_000 {
        let (given, allowed) = anything().new_tree(&mut runner).unwrap().current();
        if given.step() == Step::Resend {
            for reason in allowed.to_resend(&given) {
                *met.entry(reason).or_insert(0_u32) += 1;
            }
        }
    }
    assert_eq!(met.len(), 4, "{met:?}");
    assert!(met.values().all(|times| *times >= 10), "{met:?}");
}

#[test]
fn views_made_by_hand_are_of_one_time() {
    const { assert!(ISSUED_MS < SENT_MS && SENT_MS < LATE_MS && LATE_MS < LAPSES_MS) };
    assert_eq!(grant(10).issued_lsn, Lsn(11));
}

/// A clock that was set forward makes nothing over that may still be on its way.
#[test]
fn a_clock_that_was_set_ends_no_wait() {
    let strict = Given::refresh("[reuse]\nvalue = \"family_dies\"\n");
    let late = strict.at(LAPSES_MS + 10 * LATE_MS).because(DoubtReason::Timeout);
    assert!(!matches!(late.step(), Step::Wait(_)), "{:?}", late.step());
    let young = late.with(|given| given.known_for = Some(Duration::from_secs(1)));
    assert!(matches!(young.step(), Step::Wait(_)), "{:?}", young.step());
}

/// Nor does one that was set back open a window that has closed.
#[test]
fn a_clock_that_was_set_back_opens_no_window() {
    let open = Given::refresh(&replay(600)).at(SENT_MS + 1000);
    let open = open.because(DoubtReason::ConnectionLost);
    assert_eq!(open.step(), Step::Resend);
    let old = open.with(|given| given.known_for = Some(Duration::from_secs(301)));
    assert_ne!(old.step(), Step::Resend);
}
