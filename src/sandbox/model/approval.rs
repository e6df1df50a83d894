//! Codes, what they are exchanged for, and the cap that stands in the way.

use super::{
    Access, Approval, ApprovalState, Code, Consent, Model, NewTokens, Overflow, Pair, Presented,
    Refresh, Refused, TokenKind,
};
use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

impl Model {
    /// Notes a code for what a user approved.
    pub fn add_code(&mut self, code: impl Into<String>, consent: Consent, now_ms: u64) {
        self.know(&consent.user);
        self.codes.insert(code.into(), Code { consent, minted_at_ms: now_ms, presented: None });
    }

    /// Exchanges a code. At the cap the oldest approval dies, and nobody is told; or the exchange
    /// is refused. An attempt spends the code.
    ///
    /// # Errors
    /// [`Refused`] where the code, the redirect URI or the verifier is not right, or no room is.
    pub fn exchange(
        &mut self,
        code: &str,
        redirect_uri: Option<&str>,
        verifier: Option<&str>,
        new: NewTokens,
        now_ms: u64,
    ) -> Result<Pair, Refused> {
        let consent = self.redeem(code, redirect_uri, verifier, now_ms)?;
        let refresh = new.refresh.filter(|_| self.rules.issues_refresh);
        if let Some(pair) = self.reconsent(&consent, &new.access, now_ms) {
            self.exchanged(code, pair.approval);
            return Ok(pair);
        }
        let approval = self.approvals.len();
        let counts = refresh.is_some() || self.rules.counts == super::Counts::Approvals;
        if counts {
            self.make_room(&consent, code, now_ms)?;
        }
        let seed = refresh.as_deref().unwrap_or(&new.access);
        self.approvals.push(Approval {
            user: consent.user.clone(),
            scope: consent.scope.clone(),
            nonce: consent.nonce,
            state: ApprovalState::Live,
            newest: None,
            delete_token: delete_token(seed),
            created_at_ms: now_ms,
            last_used_at_ms: now_ms,
            used_at_ms: None,
            refreshes: 0,
            at_work: 0,
        });
        if let Some(user) = self.know(&consent.user) {
            user.approvals.push(approval);
        }
        let token = refresh.map(|text| self.add_refresh(text, approval, None, now_ms));
        self.exchanged(code, approval + 1);
        self.pair(approval, new.access, token, token.is_some(), &consent.scope, now_ms)
    }

    /// Issues an access token to the app itself, or to the app for a user who was named by an
    /// assertion. It is no approval, counts nothing, and has no refresh token.
    pub fn mint(&mut self, user: &str, scope: &str, access: String, now_ms: u64) -> Pair {
        self.counters.mints += 1;
        let expires_at_ms = self.expiry(now_ms);
        let identity_url = if user.is_empty() { String::new() } else { self.identity_of(user) };
        let minted = Access {
            approval: None,
            refresh: None,
            user: user.to_owned(),
            scope: scope.to_owned(),
            issued_at_ms: now_ms,
            expires_at_ms,
            revoked: false,
        };
        self.access.insert(access.clone(), minted);
        Pair {
            access,
            refresh: None,
            scope: scope.to_owned(),
            user: user.to_owned(),
            identity_url,
            issued_at_ms: now_ms,
            expires_at_ms,
            nonce: None,
            approval: 0,
        }
    }

    /// Sets how many web sessions a user has. One more may evict the oldest approval, too.
    pub fn set_web_sessions(&mut self, user: &str, count: u32, now_ms: u64) {
        let Some(known) = self.know(user) else { return };
        known.web_sessions = count;
        for scope in self.scopes_of(user) {
            self.evict_above(user, &scope, self.capacity(user), None, now_ms);
        }
    }

    /// Spends a code and returns what it stood for.
    fn redeem(
        &mut self,
        code: &str,
        redirect_uri: Option<&str>,
        verifier: Option<&str>,
        now_ms: u64,
    ) -> Result<Consent, Refused> {
        let found = self.codes.get_mut(code).ok_or(Refused::Code)?;
        if let Some(made) = found.presented {
            self.code_reused(code, made, now_ms);
            return Err(Refused::Code);
        }
        found.presented = Some(None);
        let (consent, minted_at_ms) = (found.consent.clone(), found.minted_at_ms);
        if now_ms.saturating_sub(minted_at_ms) > self.rules.code_ttl_ms {
            return Err(Refused::OldCode);
        }
        if consent.redirect_uri.is_some() && consent.redirect_uri.as_deref() != redirect_uri {
            return Err(Refused::Redirect);
        }
        if consent.challenge.is_some() && consent.challenge != verifier.map(challenge_of) {
            return Err(Refused::Verifier);
        }
        Ok(consent)
    }

    /// RFC 6749, section 4.1.2: what a code was exchanged for should die when it comes again.
    fn code_reused(&mut self, code: &str, made: Option<usize>, now_ms: u64) {
        self.counters.code_reuses += 1;
        if let Some(approval) = made.filter(|_| self.rules.code_reuse_revokes) {
            let by = presented(TokenKind::Code, approval, 0, code);
            self.lapse(approval, now_ms);
            self.end(approval, ApprovalState::CodeReused, now_ms, Some(by));
        }
    }

    /// Notes what a code was exchanged for, by its number.
    fn exchanged(&mut self, code: &str, number: usize) {
        self.counters.exchanges += 1;
        if let Some(found) = self.codes.get_mut(code) {
            found.presented = Some(number.checked_sub(1));
        }
    }

    /// Gives the refresh token of an approval that the user has given before, where the provider
    /// does that.
    fn reconsent(&mut self, consent: &Consent, access: &str, now_ms: u64) -> Option<Pair> {
        if !self.rules.same_refresh_on_reconsent {
            return None;
        }
        let same = |approval: &usize| {
            let found = self.approvals.get(*approval);
            found.is_some_and(|found| found.scope == consent.scope && found.newest.is_some())
                && self.lives(*approval, now_ms)
        };
        let approval = *self.user(&consent.user)?.approvals.iter().rev().find(|at| same(at))?;
        let found = self.approvals.get_mut(approval)?;
        found.last_used_at_ms = now_ms;
        found.nonce.clone_from(&consent.nonce);
        let token = found.newest;
        self.pair(approval, access.to_owned(), token, true, &consent.scope, now_ms).ok()
    }

    /// Makes room for one more approval, or refuses it.
    fn make_room(&mut self, consent: &Consent, code: &str, now_ms: u64) -> Result<(), Refused> {
        let capacity = self.capacity(&consent.user);
        let live = self.counted(&consent.user, &consent.scope, now_ms).len();
        if live >= capacity && self.rules.overflow == Overflow::Refused {
            return Err(Refused::CapReached);
        }
        // The newcomer's number, and the code that brings it.
        let by = presented(TokenKind::Code, self.approvals.len(), 0, code);
        let room = capacity.saturating_sub(1);
        self.evict_above(&consent.user, &consent.scope, room, Some(by), now_ms);
        Ok(())
    }

    /// Returns how many approvals fit beside a user's web sessions; one always does.
    fn capacity(&self, user: &str) -> usize {
        let web = self.user(user).map_or(0, |user| user.web_sessions);
        let capacity = self.rules.cap.map(|cap| cap.saturating_sub(web).max(1));
        capacity.and_then(|capacity| usize::try_from(capacity).ok()).unwrap_or(usize::MAX)
    }

    fn evict_above(
        &mut self,
        user: &str,
        scope: &str,
        room: usize,
        by: Option<Presented>,
        now_ms: u64,
    ) {
        let mut live = self.counted(user, scope, now_ms);
        if self.rules.overflow == Overflow::LeastUsedEvicted {
            // What was never used goes first.
            let used = |at: &usize| self.approvals.get(*at).and_then(|found| found.used_at_ms);
            live.sort_by_key(used);
        }
        let over = live.len().saturating_sub(room);
        for approval in live.into_iter().take(over) {
            self.end(approval, ApprovalState::Evicted, now_ms, by.clone());
        }
    }

    /// Returns the approvals that count together with one of this user and scope, oldest first.
    fn counted(&mut self, user: &str, scope: &str, now_ms: u64) -> Vec<usize> {
        let all = self.user(user).map(|user| user.approvals.clone()).unwrap_or_default();
        for approval in &all {
            self.lapse(*approval, now_ms);
        }
        let together = |approval: &usize| {
            let found = self.approvals.get(*approval);
            self.counts(*approval, now_ms)
                && (!self.rules.per_scope || found.is_some_and(|found| found.scope == scope))
        };
        all.into_iter().filter(together).collect()
    }

    /// Returns the scopes that a user's approvals are counted apart by.
    fn scopes_of(&self, user: &str) -> Vec<String> {
        if !self.rules.per_scope {
            return vec![String::new()];
        }
        let approvals = self.user(user).map(|user| user.approvals.as_slice()).unwrap_or_default();
        let found = approvals.iter().filter_map(|approval| self.approvals.get(*approval));
        let mut scopes: Vec<String> = found.map(|approval| approval.scope.clone()).collect();
        scopes.sort();
        scopes.dedup();
        scopes
    }

    /// Notes a refresh token and returns its index.
    pub(super) fn add_refresh(
        &mut self,
        text: String,
        approval: usize,
        parent: Option<usize>,
        now_ms: u64,
    ) -> usize {
        let index = self.refreshes.len();
        let before = parent.and_then(|parent| self.refreshes.get_mut(parent)).map(|parent| {
            parent.children.push(index);
            parent.generation
        });
        self.by_refresh.insert(text.clone(), index);
        self.refreshes.push(Refresh {
            text,
            approval,
            generation: before.unwrap_or(0).saturating_add(1),
            issued_at_ms: now_ms,
            parent,
            children: Vec::new(),
            spent_at_ms: None,
            used: false,
            answered: None,
        });
        if let Some(found) = self.approvals.get_mut(approval) {
            found.newest = Some(index);
        }
        index
    }

    /// Notes an access token and makes the answer.
    pub(super) fn pair(
        &mut self,
        approval: usize,
        access: String,
        token: Option<usize>,
        shows_refresh: bool,
        scope: &str,
        now_ms: u64,
    ) -> Result<Pair, Refused> {
        let found = self.approvals.get(approval).ok_or(Refused::Dead)?;
        let (user, nonce) = (found.user.clone(), found.nonce.clone());
        let expires_at_ms = self.expiry(now_ms);
        let issued = Access {
            approval: Some(approval),
            refresh: token,
            user: user.clone(),
            scope: scope.to_owned(),
            issued_at_ms: now_ms,
            expires_at_ms,
            revoked: false,
        };
        self.access.insert(access.clone(), issued);
        let refresh = token.filter(|_| shows_refresh).and_then(|token| self.refreshes.get(token));
        Ok(Pair {
            access,
            refresh: refresh.map(|refresh| refresh.text.clone()),
            scope: scope.to_owned(),
            identity_url: self.identity_url(&user),
            user,
            issued_at_ms: now_ms,
            expires_at_ms,
            nonce,
            approval: approval + 1,
        })
    }

    fn expiry(&self, now_ms: u64) -> Option<u64> {
        self.rules.access_ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms))
    }
}

/// Names a token that was presented, by the index of its approval.
pub(super) fn presented(
    kind: TokenKind,
    approval: usize,
    generation: u32,
    text: &str,
) -> Presented {
    Presented { kind, approval: approval + 1, generation, text: text.to_owned() }
}

/// Returns the challenge of a verifier (RFC 7636, section 4.6).
fn challenge_of(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

/// Derives what revokes an approval from the list of approvals from its first token, which is as
/// hard to guess.
fn delete_token(first: &str) -> String {
    let digest = digest::digest(&digest::SHA256, format!("delete {first}").as_bytes());
    format!("DELETE{}", BASE64_URL_SAFE_NO_PAD.encode(digest))
}
