//! What holds of any rules and any history: caps, windows, and that every death has its reason.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Debug, Clone)]
enum Step {
    Approve { user: u8, scope: bool },
    Exchange { code: usize, omits: bool },
    Begin { token: usize },
    Finish { at: usize, omits: bool },
    Abandon { at: usize },
    Revoke { token: usize, access: bool },
    Use { token: usize },
    WebSessions { user: u8, count: u32 },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0_usize..1000;
    prop_oneof![
        3 => (0_u8..2, any::<bool>()).prop_map(|(user, scope)| Step::Approve { user, scope }),
        4 => (at(), prop::bool::weighted(0.1))
            .prop_map(|(code, omits)| Step::Exchange { code, omits }),
        8 => at().prop_map(|token| Step::Begin { token }),
        8 => (at(), prop::bool::weighted(0.1)).prop_map(|(at, omits)| Step::Finish { at, omits }),
        1 => at().prop_map(|at| Step::Abandon { at }),
        1 => (at(), any::<bool>()).prop_map(|(token, access)| Step::Revoke { token, access }),
        1 => at().prop_map(|token| Step::Use { token }),
        1 => (0_u8..2, 0_u32..3).prop_map(|(user, count)| Step::WebSessions { user, count }),
        4 => (0_u64..15).prop_map(|ms| Step::Wait { ms }),
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    let recovery = prop_oneof![
        Just(Recovery::None),
        Just(Recovery::OldStaysValid),
        (0_u64..30).prop_map(|ms| Recovery::Replay { ms }),
        (0_u64..30).prop_map(|max_ms| Recovery::UntilSuccessorUsed { max_ms }),
        (0_u64..30).prop_map(|ms| Recovery::Idempotent { ms }),
    ];
    let revoke = prop::sample::select(vec![
        Revocation::TokenAlone,
        Revocation::Pair,
        Revocation::WholeGrant,
    ]);
    let span = || prop::option::weighted(0.3, 1_u64..60);
    let overflow = prop::sample::select(vec![
        Overflow::OldestEvicted,
        Overflow::LeastUsedEvicted,
        Overflow::Refused,
    ]);
    let flags = prop::array::uniform8(any::<bool>());
    (prop::option::of(1_u32..4), 0_u32..2, recovery, revoke, overflow, span(), span(), flags)
        .prop_map(|(cap, web_sessions, recovery, revoke, overflow, idle_ms, max_ms, flags)| {
            let [per_scope, rotation, replaces, dies, collides, same, burns, counts] = flags;
            Rules {
                cap,
                counts: if counts { Counts::Approvals } else { Counts::RefreshTokens },
                per_scope,
                overflow,
                web_sessions,
                same_refresh_on_reconsent: same,
                code_reuse_revokes: burns,
                rotation,
                recovery,
                replay_replaces: replaces,
                reuse: if dies { Reuse::FamilyDies } else { Reuse::PlainError },
                collides,
                revoke,
                idle_ms,
                max_ms,
                access_ttl_ms: Some(40),
                ..Rules::rfc6749()
            }
        })
}

/// What an app that writes everything down knows of its tokens.
#[derive(Default)]
struct Known {
    /// When a token was first answered with another.
    spent_at_ms: HashMap<String, u64>,
    /// What it was answered with.
    children: HashMap<String, Vec<String>>,
    /// Tokens of which something was used.
    used: Vec<String>,
    /// Which refresh token an access token came with.
    came_with: HashMap<String, String>,
}

struct World {
    model: Model,
    now_ms: u64,
    codes: Vec<String>,
    refreshes: Vec<String>,
    accesses: Vec<String>,
    begun: Vec<(String, Refreshing)>,
    known: Known,
    drawn: u32,
}

fn pick<T>(from: &[T], at: usize) -> Option<usize> {
    (!from.is_empty()).then(|| at % from.len())
}

impl World {
    fn draw(&mut self, omits: bool) -> NewTokens {
        self.drawn += 1;
        let new = tokens(self.drawn);
        NewTokens { refresh: new.refresh.filter(|_| !omits), ..new }
    }

    fn take(&mut self, pair: &Pair, with: Option<&str>) {
        self.accesses.push(pair.access.clone());
        if let Some(refresh) = pair.refresh.as_deref().or(with) {
            self.known.came_with.insert(pair.access.clone(), refresh.to_owned());
            if !self.refreshes.iter().any(|known| known == refresh) {
                self.refreshes.push(refresh.to_owned());
            }
        }
    }

    fn run(&mut self, step: Step) {
        let now_ms = self.now_ms;
        match step {
            Step::Approve { user, scope } => {
                let code = format!("code-{}", self.codes.len());
                let scope = if scope { "a b" } else { "a" }.to_owned();
                let consent = Consent { scope, ..Consent::of(&user.to_string()) };
                self.model.add_code(code.clone(), consent, now_ms);
                self.codes.push(code);
            }
            Step::Exchange { code, omits } => {
                let Some(at) = pick(&self.codes, code) else { return };
                let (code, new) = (self.codes[at].clone(), self.draw(omits));
                if let Ok(pair) = self.model.exchange(&code, None, None, new, now_ms) {
                    self.take(&pair, None);
                }
            }
            Step::Begin { token } => {
                let Some(at) = pick(&self.refreshes, token) else { return };
                let token = self.refreshes[at].clone();
                if let Ok(begun) = self.model.begin_refresh(&token, None, now_ms) {
                    self.begun.push((token, begun));
                }
            }
            Step::Finish { at, omits } => self.finish(at, omits),
            Step::Abandon { at } => {
                if let Some(at) = pick(&self.begun, at) {
                    let (_, begun) = self.begun.remove(at);
                    self.model.abandon_refresh(begun);
                }
            }
            Step::Revoke { token, access } => {
                let from = if access { &self.accesses } else { &self.refreshes };
                let Some(at) = pick(from, token) else { return };
                let token = from[at].clone();
                self.model.revoke(&token, now_ms).unwrap();
                assert!(!self.model.is_alive(&token, now_ms));
            }
            Step::Use { token } => {
                let Some(at) = pick(&self.accesses, token) else { return };
                let token = self.accesses[at].clone();
                let alive = self.model.is_alive(&token, now_ms);
                assert_eq!(self.model.use_access(&token, now_ms).is_some(), alive);
                if let Some(refresh) = self.known.came_with.get(&token).filter(|_| alive) {
                    self.known.used.push(refresh.clone());
                }
            }
            Step::WebSessions { user, count } => {
                self.model.set_web_sessions(&user.to_string(), count, now_ms);
            }
            Step::Wait { ms } => self.now_ms += ms,
        }
    }

    fn finish(&mut self, at: usize, omits: bool) {
        let Some(at) = pick(&self.begun, at) else { return };
        let (token, begun) = self.begun.remove(at);
        let (new, now_ms) = (self.draw(omits), self.now_ms);
        let reuses = self.model.counters().reuses;
        match self.model.finish_refresh(begun, new, now_ms) {
            Ok(pair) => {
                self.within_its_window(&token);
                self.answered(&token, &pair);
            }
            Err(_) if self.model.counters().reuses > reuses => {
                let dies = self.model.rules().reuse == Reuse::FamilyDies;
                let ending = self.model.ending_of(&token);
                assert_eq!(ending.is_some(), dies);
                let told = ending.and_then(|ending| ending.by.as_ref());
                assert!(told.is_none_or(|by| by.text == token), "{ending:?}");
            }
            Err(_) => assert!(self.model.ending_of(&token).is_some(), "it died meanwhile"),
        }
    }

    /// A spent token was answered: the window, as its owner knows it, must be open.
    fn within_its_window(&self, token: &str) {
        let Some(spent_at_ms) = self.known.spent_at_ms.get(token) else { return };
        let since_ms = self.now_ms - spent_at_ms;
        let children = &self.known.children[token];
        let unused = !children.iter().any(|child| self.known.used.contains(child));
        let open = match self.model.rules().recovery {
            Recovery::None => false,
            Recovery::OldStaysValid => true,
            Recovery::Replay { ms } => since_ms <= ms && unused,
            Recovery::UntilSuccessorUsed { max_ms } => since_ms <= max_ms && unused,
            Recovery::Idempotent { ms } => since_ms <= ms,
        };
        assert!(open, "{token} worked {since_ms} ms after it was spent");
    }

    fn answered(&mut self, token: &str, pair: &Pair) {
        if !self.known.spent_at_ms.contains_key(token) {
            self.known.used.push(token.to_owned());
            self.siblings_are_spent(token);
        }
        if let Some(refresh) = pair.refresh.as_ref().filter(|refresh| *refresh != token) {
            self.known.spent_at_ms.entry(token.to_owned()).or_insert(self.now_ms);
            self.known.children.entry(token.to_owned()).or_default().push(refresh.clone());
        }
        self.take(pair, Some(token));
    }

    /// Of the answers to one token, that which is used is the one that came through.
    fn siblings_are_spent(&self, token: &str) {
        let of = |children: &&Vec<String>| children.iter().any(|child| child == token);
        let siblings = self.known.children.values().filter(of).flatten();
        for sibling in siblings.filter(|sibling| *sibling != token) {
            let works = self.model.standing(sibling, self.now_ms) == Standing::Works;
            assert!(!works || self.model.rules().recovery == Recovery::OldStaysValid);
        }
    }

    fn check(&mut self) {
        let now_ms = self.now_ms;
        let rules = self.model.rules().clone();
        let state = self.model.state(now_ms);
        for user in &state.users {
            assert_eq!(user.live, self.model.live(&user.name, now_ms));
            let Some(cap) = rules.cap else { continue };
            let places =
                cap.saturating_sub(user.web_sessions).max(1) * (1 + u32::from(rules.per_scope));
            let live = user.live - user.web_sessions as usize;
            assert!(live <= places as usize, "{live} live under {rules:?}");
        }
        let mut ended: Vec<usize> = self.model.endings().iter().map(|end| end.approval).collect();
        ended.sort_unstable();
        let approvals = state.users.iter().flat_map(|user| &user.approvals);
        let mut dead: Vec<usize> = approvals
            .filter(|approval| approval.state != ApprovalState::Live)
            .map(|approval| approval.number)
            .collect();
        dead.sort_unstable();
        assert_eq!(ended, dead, "every death is told once");
        let count = |wanted: &[ApprovalState]| {
            let of = |end: &&Ending| wanted.contains(&end.reason);
            self.model.endings().iter().filter(of).count() as u64
        };
        assert_eq!(count(&[ApprovalState::Evicted]), state.counters.evictions);
        let lapsed = count(&[ApprovalState::Idle, ApprovalState::Expired]);
        assert_eq!(lapsed, state.counters.expiries);
        self.check_tokens(&rules);
    }

    fn check_tokens(&self, rules: &Rules) {
        let mut working: HashMap<usize, u32> = HashMap::new();
        for token in &self.refreshes {
            let ended = self.model.ending_of(token).is_some();
            let standing = self.model.standing(token, self.now_ms);
            assert_eq!(ended, standing == Standing::Ended, "{token} {standing:?}");
            if standing == Standing::Works {
                *working.entry(self.model.approval_of(token).unwrap()).or_default() += 1;
            }
        }
        let many = matches!(rules.recovery, Recovery::OldStaysValid | Recovery::Replay { .. });
        assert!(many || working.values().all(|count| *count == 1), "{working:?}");
        for token in &self.accesses {
            let ending = self.model.ending_of(token);
            let outlives = rules.revoke == Revocation::TokenAlone
                && ending.is_some_and(|ending| ending.reason == ApprovalState::Revoked);
            let alive = self.model.is_alive(token, self.now_ms);
            assert!(!alive || ending.is_none() || outlives, "{token} after {ending:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_history_keeps_the_rules(
        rules in rules(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World {
            model: Model::new(rules, ""),
            now_ms: 1_000,
            codes: Vec::new(),
            refreshes: Vec::new(),
            accesses: Vec::new(),
            begun: Vec::new(),
            known: Known::default(),
            drawn: 0,
        };
        for step in steps {
            world.run(step);
            world.check();
        }
    }

    #[test]
    fn the_cap_holds_and_the_newest_live(
        cap in 1_u32..6,
        users in prop::collection::vec(0_u32..3, 1..40),
    ) {
        let mut model = salesforce(cap, false);
        let mut issued: HashMap<u32, Vec<u32>> = HashMap::new();
        for (number, user) in (0..).zip(users) {
            issue(&mut model, &user.to_string(), number, 0).unwrap();
            issued.entry(user).or_default().push(number);
        }
        for (user, numbers) in issued {
            let live = numbers.len().min(cap as usize);
            prop_assert_eq!(model.live(&user.to_string(), 0), live);
            for (age, number) in numbers.iter().rev().enumerate() {
                prop_assert_eq!(alive(&model, *number, 0).1, age < cap as usize);
            }
        }
    }
}
