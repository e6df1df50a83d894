//! The provider as a state machine: no clock, no randomness, no network.
//!
//! Times and new tokens are passed in. The texts are Salesforce's own, as the profile reads them:
//! a cap that silently evicts the oldest approval, refreshes of one token that collide, and, with
//! rotation, a spent token that kills its family when it is presented again.

use super::answer::{
    About, BAD_CLIENT, BAD_CLIENT_ID, BAD_CODE, BAD_REDIRECT, BAD_TOKEN, BAD_VERIFIER, BUSY,
    Consent, DEAD, NewTokens, No, OLD_CODE, Pair,
};
use super::state::{ApprovalState, ApprovalView, Counters, SandboxState, UserView};
use crate::outcome::salesforce_id18;
use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use std::collections::HashMap;

/// What the three kinds of token begin with, as Salesforce's do.
pub(super) const CODE: &str = "aPrx";
pub(super) const ACCESS: &str = "00D000000000001!AQ";
pub(super) const REFRESH: &str = "5Aep861";

/// The organisation to which all users belong.
const ORGANISATION: &str = "00D000000000001";

/// How the provider behaves.
pub(super) struct Rules {
    pub(super) client_id: String,
    pub(super) client_secret: String,
    pub(super) cap: usize,
    pub(super) rotation: bool,
    pub(super) access_ttl_ms: u64,
    pub(super) code_ttl_ms: u64,
}

/// A refresh that was let in and is not yet carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refreshing {
    approval: usize,
}

/// The provider.
pub(super) struct Model {
    rules: Rules,
    base_url: String,
    users: Vec<String>,
    codes: HashMap<String, Code>,
    approvals: Vec<Approval>,
    /// Every refresh token there ever was, and its approval.
    refresh: HashMap<String, usize>,
    access: HashMap<String, Access>,
    counters: Counters,
}

struct Code {
    consent: Consent,
    minted_at_ms: u64,
}

struct Approval {
    user: String,
    scope: String,
    state: ApprovalState,
    /// The refresh token that works.
    refresh: String,
    created_at_ms: u64,
    last_used_at_ms: u64,
    refreshes: u32,
    refreshing: bool,
}

struct Access {
    approval: usize,
    issued_at_ms: u64,
    expires_at_ms: u64,
    revoked: bool,
}

impl Model {
    pub(super) fn new(rules: Rules, base_url: String) -> Self {
        Self {
            rules,
            base_url,
            users: Vec::new(),
            codes: HashMap::new(),
            approvals: Vec::new(),
            refresh: HashMap::new(),
            access: HashMap::new(),
            counters: Counters::default(),
        }
    }

    pub(super) fn client_id(&self) -> &str {
        &self.rules.client_id
    }

    pub(super) fn client_secret(&self) -> &str {
        &self.rules.client_secret
    }

    pub(super) fn base_url(&self) -> &str {
        &self.base_url
    }

    pub(super) fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Checks the app's own credentials.
    pub(super) fn authenticate(&self, id: &str, secret: &str) -> Result<(), No> {
        if id != self.rules.client_id {
            Err(BAD_CLIENT_ID)
        } else if secret != self.rules.client_secret {
            Err(BAD_CLIENT)
        } else {
            Ok(())
        }
    }

    /// Notes a code for what a user approved.
    pub(super) fn add_code(&mut self, code: String, consent: Consent, now_ms: u64) {
        self.know(&consent.user);
        self.codes.insert(code, Code { consent, minted_at_ms: now_ms });
    }

    /// Exchanges a code. At the cap the oldest approval dies, and nobody is told.
    pub(super) fn exchange(
        &mut self,
        code: &str,
        redirect_uri: Option<&str>,
        verifier: Option<&str>,
        new: NewTokens,
        now_ms: u64,
    ) -> Result<Pair, No> {
        let Code { consent, minted_at_ms } = self.codes.remove(code).ok_or(BAD_CODE)?;
        if now_ms.saturating_sub(minted_at_ms) > self.rules.code_ttl_ms {
            return Err(OLD_CODE);
        }
        if consent.redirect_uri.is_some() && consent.redirect_uri.as_deref() != redirect_uri {
            return Err(BAD_REDIRECT);
        }
        if consent.challenge.is_some() && consent.challenge != verifier.map(challenge_of) {
            return Err(BAD_VERIFIER);
        }
        self.make_room(&consent.user);
        self.counters.exchanges += 1;
        let approval = self.approvals.len();
        self.refresh.insert(new.refresh.clone(), approval);
        self.approvals.push(Approval {
            user: consent.user,
            scope: consent.scope,
            state: ApprovalState::Live,
            refresh: new.refresh.clone(),
            created_at_ms: now_ms,
            last_used_at_ms: now_ms,
            refreshes: 0,
            refreshing: false,
        });
        self.pair(approval, new.access, Some(new.refresh), now_ms).ok_or(BAD_CODE)
    }

    /// Lets a refresh in, or not. What is let in must be carried out.
    pub(super) fn begin_refresh(&mut self, token: &str) -> Result<Refreshing, No> {
        let approval = *self.refresh.get(token).ok_or(DEAD)?;
        let Some(found) = self.approvals.get_mut(approval) else { return Err(DEAD) };
        if found.state != ApprovalState::Live {
            return Err(DEAD);
        }
        if found.refresh != token {
            self.counters.reuses += 1;
            found.state = ApprovalState::Reused;
            return Err(DEAD);
        }
        if found.refreshing {
            self.counters.collisions += 1;
            return Err(BUSY);
        }
        found.refreshing = true;
        Ok(Refreshing { approval })
    }

    /// Carries a refresh out. The approval may have died since it was let in.
    pub(super) fn finish_refresh(
        &mut self,
        refreshing: Refreshing,
        new: NewTokens,
        now_ms: u64,
    ) -> Result<Pair, No> {
        let Refreshing { approval } = refreshing;
        let Some(found) = self.approvals.get_mut(approval) else { return Err(DEAD) };
        found.refreshing = false;
        if found.state != ApprovalState::Live {
            return Err(DEAD);
        }
        found.last_used_at_ms = now_ms;
        found.refreshes += 1;
        self.counters.refreshes += 1;
        let refresh = self.rules.rotation.then_some(new.refresh);
        if let Some(refresh) = &refresh {
            found.refresh.clone_from(refresh);
            self.refresh.insert(refresh.clone(), approval);
        }
        self.pair(approval, new.access, refresh, now_ms).ok_or(DEAD)
    }

    /// Revokes a refresh token and its access tokens, or one access token alone.
    pub(super) fn revoke(&mut self, token: &str, now_ms: u64) -> Result<(), No> {
        if !self.is_alive(token, now_ms) {
            return Err(BAD_TOKEN);
        }
        self.counters.revocations += 1;
        if let Some(access) = self.access.get_mut(token) {
            access.revoked = true;
        } else if let Some(approval) = self.refresh.get(token)
            && let Some(approval) = self.approvals.get_mut(*approval)
        {
            approval.state = ApprovalState::Revoked;
        }
        Ok(())
    }

    /// Tells about a token that works.
    pub(super) fn about(&self, token: &str, now_ms: u64) -> Option<About> {
        if !self.is_alive(token, now_ms) {
            return None;
        }
        let access = self.access.get(token);
        let number = access.map(|access| access.approval).or(self.refresh.get(token).copied())?;
        let approval = self.approvals.get(number)?;
        Some(About {
            kind: if access.is_some() { "access_token" } else { "refresh_token" },
            scope: approval.scope.clone(),
            user: approval.user.clone(),
            identity_url: self.identity_url(&approval.user),
            issued_at_ms: access.map_or(approval.created_at_ms, |access| access.issued_at_ms),
            expires_at_ms: access.map(|access| access.expires_at_ms),
        })
    }

    /// Says whether a token works.
    pub(super) fn is_alive(&self, token: &str, now_ms: u64) -> bool {
        let live = |approval: &Approval| approval.state == ApprovalState::Live;
        if let Some(access) = self.access.get(token) {
            return self.access_works(access, now_ms);
        }
        let approval = self.refresh.get(token).and_then(|number| self.approvals.get(*number));
        approval.is_some_and(|approval| live(approval) && approval.refresh == token)
    }

    /// Returns the identity URL of a user, who is known from now on.
    pub(super) fn identity_of(&mut self, user: &str) -> String {
        self.know(user);
        self.identity_url(user)
    }

    /// Returns the identity URL of a user who is known, in ids of 18 characters.
    fn identity_url(&self, user: &str) -> String {
        let number = self.users.iter().position(|known| known == user).unwrap_or(self.users.len());
        let id = |short: &str| salesforce_id18(short).unwrap_or_default();
        let user_id = id(&format!("005{:012}", number + 1));
        format!("{}/id/{}/{user_id}", self.base_url, id(ORGANISATION))
    }

    /// Shows everything but the tokens.
    pub(super) fn state(&self, now_ms: u64) -> SandboxState {
        let mut users: Vec<UserView> = self
            .users
            .iter()
            .map(|name| UserView {
                name: name.clone(),
                identity_url: self.identity_url(name),
                live: self.live(name),
                approvals: Vec::new(),
            })
            .collect();
        let mut working = vec![0_usize; self.approvals.len()];
        for access in self.access.values().filter(|access| self.access_works(access, now_ms)) {
            if let Some(count) = working.get_mut(access.approval) {
                *count += 1;
            }
        }
        for (number, (approval, access_tokens)) in self.approvals.iter().zip(working).enumerate() {
            if let Some(user) = users.iter_mut().find(|user| user.name == approval.user) {
                user.approvals.push(ApprovalView {
                    number: number + 1,
                    state: approval.state,
                    created_at_ms: approval.created_at_ms,
                    last_used_at_ms: approval.last_used_at_ms,
                    refreshes: approval.refreshes,
                    access_tokens,
                });
            }
        }
        SandboxState { cap: self.rules.cap, users, counters: self.counters }
    }

    fn access_works(&self, access: &Access, now_ms: u64) -> bool {
        let approval = self.approvals.get(access.approval);
        !access.revoked
            && now_ms < access.expires_at_ms
            && approval.is_some_and(|approval| approval.state == ApprovalState::Live)
    }

    fn know(&mut self, user: &str) {
        if !self.users.iter().any(|known| known == user) {
            self.users.push(user.to_owned());
        }
    }

    fn live(&self, user: &str) -> usize {
        let live =
            |approval: &&Approval| approval.user == user && approval.state == ApprovalState::Live;
        self.approvals.iter().filter(live).count()
    }

    /// Evicts the oldest approvals until one more fits under the cap.
    fn make_room(&mut self, user: &str) {
        let over = (self.live(user) + 1).saturating_sub(self.rules.cap);
        let oldest = self
            .approvals
            .iter_mut()
            .filter(|approval| approval.user == user && approval.state == ApprovalState::Live)
            .take(over);
        for approval in oldest {
            approval.state = ApprovalState::Evicted;
            self.counters.evictions += 1;
        }
    }

    fn pair(
        &mut self,
        approval: usize,
        access: String,
        refresh: Option<String>,
        now_ms: u64,
    ) -> Option<Pair> {
        let found = self.approvals.get(approval)?;
        let (user, scope) = (found.user.clone(), found.scope.clone());
        self.access.insert(
            access.clone(),
            Access {
                approval,
                issued_at_ms: now_ms,
                expires_at_ms: now_ms.saturating_add(self.rules.access_ttl_ms),
                revoked: false,
            },
        );
        let identity_url = self.identity_url(&user);
        Some(Pair { access, refresh, scope, identity_url, issued_at_ms: now_ms })
    }
}

/// Returns the challenge of a verifier (RFC 7636, section 4.6).
fn challenge_of(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR_MS: u64 = 60 * 60 * 1000;

    fn model(cap: usize, rotation: bool) -> Model {
        let rules = Rules {
            client_id: "key".to_owned(),
            client_secret: "secret".to_owned(),
            cap,
            rotation,
            access_ttl_ms: 2 * HOUR_MS,
            code_ttl_ms: HOUR_MS,
        };
        Model::new(rules, "http://127.0.0.1:1".to_owned())
    }

    fn tokens(number: u32) -> NewTokens {
        NewTokens { access: format!("access-{number}"), refresh: format!("refresh-{number}") }
    }

    fn issue(model: &mut Model, user: &str, number: u32, now_ms: u64) -> Pair {
        let code = format!("code-{number}");
        model.add_code(code.clone(), Consent::of(user), now_ms);
        model.exchange(&code, None, None, tokens(number), now_ms).unwrap()
    }

    fn refresh(model: &mut Model, token: &str, number: u32, now_ms: u64) -> Result<Pair, No> {
        let begun = model.begin_refresh(token)?;
        model.finish_refresh(begun, tokens(number), now_ms)
    }

    #[test]
    fn the_pair_above_the_cap_silently_kills_the_oldest() {
        let mut model = model(4, false);
        for number in 1..=4 {
            issue(&mut model, "alice", number, 0);
        }
        issue(&mut model, "bob", 9, 0);
        assert!((1..=4).all(|number| model.is_alive(&format!("refresh-{number}"), 0)));
        issue(&mut model, "alice", 5, 0);
        assert!(!model.is_alive("refresh-1", 0) && !model.is_alive("access-1", 0));
        assert!((2..=5).all(|number| model.is_alive(&format!("refresh-{number}"), 0)));
        assert!(model.is_alive("refresh-9", 0), "bob's cap is his own");
        assert_eq!(refresh(&mut model, "refresh-1", 6, 0).unwrap_err(), DEAD);
        let state = model.state(0);
        assert_eq!((state.users[0].live, state.counters.evictions), (4, 1));
        assert_eq!(state.users[0].approvals[0].state, ApprovalState::Evicted);
        assert_eq!(state.users[0].approvals[1].access_tokens, 1);
    }

    #[test]
    fn without_rotation_a_refresh_token_stays() {
        let mut model = model(4, false);
        issue(&mut model, "alice", 1, 0);
        let pair = refresh(&mut model, "refresh-1", 2, 5).unwrap();
        assert!(pair.refresh.is_none());
        assert!(refresh(&mut model, "refresh-1", 3, 6).is_ok());
        assert!(model.is_alive("access-1", 6) && model.is_alive("access-3", 6));
        let approval = &model.state(6).users[0].approvals[0];
        assert_eq!((approval.refreshes, approval.last_used_at_ms), (2, 6));
        assert_eq!(approval.access_tokens, 3);
    }

    #[test]
    fn with_rotation_a_spent_token_kills_its_family() {
        let mut model = model(4, true);
        issue(&mut model, "alice", 1, 0);
        let pair = refresh(&mut model, "refresh-1", 2, 0).unwrap();
        assert_eq!(pair.refresh.as_deref(), Some("refresh-2"));
        assert!(!model.is_alive("refresh-1", 0) && model.is_alive("refresh-2", 0));
        assert_eq!(refresh(&mut model, "refresh-1", 3, 0).unwrap_err(), DEAD);
        assert!(!model.is_alive("refresh-2", 0) && !model.is_alive("access-2", 0));
        let state = model.state(0);
        assert_eq!(state.users[0].approvals[0].state, ApprovalState::Reused);
        assert_eq!((state.counters.reuses, state.users[0].live), (1, 0));
    }

    #[test]
    fn refreshes_of_one_token_collide() {
        let mut model = model(4, true);
        issue(&mut model, "alice", 1, 0);
        let begun = model.begin_refresh("refresh-1").unwrap();
        assert_eq!(model.begin_refresh("refresh-1").unwrap_err(), BUSY);
        assert!(model.finish_refresh(begun, tokens(2), 0).is_ok());
        let begun = model.begin_refresh("refresh-2").unwrap();
        model.revoke("refresh-2", 0).unwrap();
        assert_eq!(model.finish_refresh(begun, tokens(3), 0).unwrap_err(), DEAD);
        assert_eq!(model.state(0).counters.collisions, 1);
    }

    #[test]
    fn a_code_works_once_in_time_and_as_it_was_asked_for() {
        let mut model = model(4, false);
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let consent = Consent {
            redirect_uri: Some("http://127.0.0.1/cb".to_owned()),
            challenge: Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned()),
            ..Consent::of("alice")
        };
        let right = (Some("http://127.0.0.1/cb"), Some(verifier), HOUR_MS);
        for ((redirect_uri, verifier, now_ms), expected) in [
            (right, None),
            ((Some("http://127.0.0.1/other"), right.1, right.2), Some(BAD_REDIRECT)),
            ((None, right.1, right.2), Some(BAD_REDIRECT)),
            ((right.0, Some("another"), right.2), Some(BAD_VERIFIER)),
            ((right.0, None, right.2), Some(BAD_VERIFIER)),
            ((right.0, right.1, HOUR_MS + 1), Some(OLD_CODE)),
        ] {
            model.add_code("code".to_owned(), consent.clone(), 0);
            let first = model.exchange("code", redirect_uri, verifier, tokens(1), now_ms);
            assert_eq!(first.err(), expected);
            let second = model.exchange("code", right.0, right.1, tokens(2), 0);
            assert_eq!(second.err(), Some(BAD_CODE), "a code is spent by the attempt");
        }
    }

    #[test]
    fn revoking_a_refresh_token_takes_its_access_tokens_along() {
        let mut model = model(4, false);
        issue(&mut model, "alice", 1, 0);
        issue(&mut model, "alice", 2, 0);
        assert_eq!(model.revoke("access-1", 0), Ok(()));
        assert!(!model.is_alive("access-1", 0) && model.is_alive("refresh-1", 0));
        assert_eq!(model.revoke("access-1", 0), Err(BAD_TOKEN));
        assert_eq!(model.revoke("refresh-2", 0), Ok(()));
        assert!(!model.is_alive("access-2", 0) && !model.is_alive("refresh-2", 0));
        assert_eq!(model.revoke("never-issued", 0), Err(BAD_TOKEN));
        assert_eq!(model.state(0).users[0].live, 1);
    }

    #[test]
    fn access_tokens_lapse_and_are_told_about() {
        let mut model = model(4, false);
        issue(&mut model, "alice", 1, 1000);
        let about = model.about("access-1", 1000).unwrap();
        assert_eq!((about.kind, about.expires_at_ms), ("access_token", Some(1000 + 2 * HOUR_MS)));
        assert!(model.about("access-1", 1000 + 2 * HOUR_MS).is_none());
        let about = model.about("refresh-1", 9 * HOUR_MS).unwrap();
        assert_eq!((about.kind, about.expires_at_ms), ("refresh_token", None));
        assert_eq!(about.user, "alice");
    }

    proptest! {
        #[test]
        fn the_cap_holds_and_the_newest_live(
            cap in 1_usize..6,
            users in proptest::collection::vec(0_u32..3, 1..40),
        ) {
            let mut model = model(cap, false);
            let mut issued: HashMap<u32, Vec<u32>> = HashMap::new();
            for (number, user) in (0..).zip(users) {
                issue(&mut model, &user.to_string(), number, 0);
                issued.entry(user).or_default().push(number);
            }
            for (user, numbers) in issued {
                prop_assert_eq!(model.live(&user.to_string()), numbers.len().min(cap));
                for (age, number) in numbers.iter().rev().enumerate() {
                    prop_assert_eq!(model.is_alive(&format!("refresh-{number}"), 0), age < cap);
                }
            }
        }
    }
}
