//! Refreshes: rotation, what a spent token is still good for, and what its reuse ends.
//!
//! A refresh is let in (`begin_refresh`) and carried out (`finish_refresh`), with time between, as
//! at a provider that takes longer than its caller waits. It is judged at both ends.

use super::approval::presented;
use super::{ApprovalState, Model, NewTokens, Pair, Recovery, Refused, Reuse, Standing, TokenKind};

/// A refresh that was let in and is not yet carried out.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is let in must be carried out or abandoned"]
pub struct Refreshing {
    token: usize,
    approval: usize,
    scope: String,
}

/// On what ground a refresh is carried out.
enum Ground {
    /// The token works.
    Works,
    /// It is spent and may be exchanged again.
    Replay,
    /// It is spent, and gets what it was exchanged for once more.
    SameSuccessor,
    /// It is spent, and gets the very answer once more.
    SameAnswer,
}

impl Model {
    /// Lets a refresh in, or not. `None` asks for all scopes that were approved.
    ///
    /// # Errors
    /// [`Refused::Dead`] for a token that does not work; where it is spent, that may end the
    /// approval. [`Refused::Busy`] where another is at work, [`Refused::Scope`].
    pub fn begin_refresh(
        &mut self,
        token: &str,
        scope: Option<&str>,
        now_ms: u64,
    ) -> Result<Refreshing, Refused> {
        let token = *self.by_refresh.get(token).ok_or(Refused::Dead)?;
        self.judge(token, now_ms)?;
        let approval = self.refreshes.get(token).ok_or(Refused::Dead)?.approval;
        let collides = self.rules.collides;
        let found = self.approvals.get_mut(approval).ok_or(Refused::Dead)?;
        if found.at_work > 0 && collides {
            self.counters.collisions += 1;
            return Err(Refused::Busy);
        }
        let approved = |asked: &str| found.scope.split(' ').any(|known| known == asked);
        let scope = scope.filter(|scope| !scope.trim().is_empty());
        if !scope.unwrap_or_default().split_whitespace().all(approved) {
            return Err(Refused::Scope);
        }
        found.at_work += 1;
        let scope = scope.unwrap_or(&found.scope).to_owned();
        Ok(Refreshing { token, approval, scope })
    }

    /// Carries a refresh out. The approval may have died since it was let in, or the token been
    /// spent by another.
    ///
    /// # Errors
    /// [`Refused::Dead`], with the same consequences as when it was let in.
    pub fn finish_refresh(
        &mut self,
        refreshing: Refreshing,
        new: NewTokens,
        now_ms: u64,
    ) -> Result<Pair, Refused> {
        let (token, scope) = (refreshing.token, refreshing.scope.clone());
        self.abandon_refresh(refreshing);
        let ground = self.judge(token, now_ms)?;
        if !matches!(ground, Ground::Works) {
            self.counters.replays += 1;
        }
        match ground {
            Ground::SameAnswer => self.answer_again(token),
            Ground::SameSuccessor => {
                let successor = self.successor(token).ok_or(Refused::Dead)?;
                self.answer(token, successor, new.access, true, &scope, now_ms)
            }
            Ground::Replay => {
                if self.rules.replay_replaces {
                    self.spend_children(token, None, now_ms);
                }
                self.rotate(token, new, &scope, now_ms)
            }
            Ground::Works => {
                self.settle_siblings(token, now_ms);
                if self.rules.rotation && new.refresh.is_some() {
                    return self.rotate(token, new, &scope, now_ms);
                }
                let repeats = self.rules.repeats_refresh && new.refresh.is_some();
                self.answer(token, token, new.access, repeats, &scope, now_ms)
            }
        }
    }

    /// Gives a refresh up that was let in: nothing was done.
    pub fn abandon_refresh(&mut self, refreshing: Refreshing) {
        if let Some(found) = self.approvals.get_mut(refreshing.approval) {
            found.at_work = found.at_work.saturating_sub(1);
        }
    }

    /// Lets a refresh in and carries it out at once.
    ///
    /// # Errors
    /// As [`begin_refresh`](Self::begin_refresh).
    pub fn refresh(&mut self, token: &str, new: NewTokens, now_ms: u64) -> Result<Pair, Refused> {
        let refreshing = self.begin_refresh(token, None, now_ms)?;
        self.finish_refresh(refreshing, new, now_ms)
    }

    /// Says how a refresh token stands, and changes nothing.
    pub fn standing(&self, token: &str, now_ms: u64) -> Standing {
        let Some(index) = self.by_refresh.get(token) else { return Standing::Unknown };
        let Some(found) = self.refreshes.get(*index) else { return Standing::Unknown };
        if !self.lives(found.approval, now_ms) {
            return Standing::Ended;
        }
        match (found.spent_at_ms, self.window(*index, now_ms)) {
            (None, _) => Standing::Works,
            (Some(_), Some(_)) => Standing::InWindow,
            (Some(_), None) => Standing::Spent,
        }
    }

    /// Decides whether a refresh with this token is carried out. Reuse has its consequences here.
    fn judge(&mut self, token: usize, now_ms: u64) -> Result<Ground, Refused> {
        let approval = self.refreshes.get(token).ok_or(Refused::Dead)?.approval;
        self.lapse(approval, now_ms);
        if !self.lives(approval, now_ms) {
            return Err(Refused::Dead);
        }
        let found = self.refreshes.get(token).ok_or(Refused::Dead)?;
        if found.spent_at_ms.is_none() {
            return Ok(Ground::Works);
        }
        if let Some(ground) = self.window(token, now_ms) {
            return Ok(ground);
        }
        self.counters.reuses += 1;
        if self.rules.reuse == Reuse::FamilyDies {
            let by = presented(TokenKind::Refresh, approval, found.generation, &found.text);
            self.end(approval, ApprovalState::Reused, now_ms, Some(by));
        }
        Err(Refused::Dead)
    }

    /// Says on what ground a spent token may be presented now, if on any.
    fn window(&self, token: usize, now_ms: u64) -> Option<Ground> {
        let found = self.refreshes.get(token)?;
        // What was put aside before it was exchanged has no successor to be in doubt about.
        found.children.first()?;
        let since_ms = now_ms.saturating_sub(found.spent_at_ms?);
        let used = |child: &usize| self.refreshes.get(*child).is_none_or(|child| child.used);
        let unused = !found.children.iter().any(used);
        match self.rules.recovery {
            Recovery::None => None,
            Recovery::OldStaysValid => Some(Ground::Replay),
            Recovery::Replay { ms } => (since_ms <= ms && unused).then_some(Ground::Replay),
            Recovery::UntilSuccessorUsed { max_ms } => {
                (since_ms <= max_ms && unused).then_some(Ground::SameSuccessor)
            }
            Recovery::Idempotent { ms } => {
                (since_ms <= ms && found.answered.is_some()).then_some(Ground::SameAnswer)
            }
        }
    }

    /// Answers with a new refresh token and spends the old one.
    fn rotate(
        &mut self,
        token: usize,
        new: NewTokens,
        scope: &str,
        now_ms: u64,
    ) -> Result<Pair, Refused> {
        let approval = self.refreshes.get(token).ok_or(Refused::Dead)?.approval;
        let text = match (new.refresh, self.successor(token)) {
            (Some(text), _) => text,
            // Nothing new was drawn for the replay: what there is comes back.
            (None, Some(successor)) => {
                return self.answer(token, successor, new.access, true, scope, now_ms);
            }
            (None, None) => return Err(Refused::Dead),
        };
        let child = self.add_refresh(text, approval, Some(token), now_ms);
        let stays = self.rules.recovery == Recovery::OldStaysValid;
        if let Some(found) = self.refreshes.get_mut(token) {
            found.answered.get_or_insert_with(|| new.access.clone());
            if !stays {
                found.spent_at_ms.get_or_insert(now_ms);
            }
        }
        self.answer(token, child, new.access, true, scope, now_ms)
    }

    /// Makes the answer to a refresh with `token`, which `gives` goes with.
    fn answer(
        &mut self,
        token: usize,
        gives: usize,
        access: String,
        shows_refresh: bool,
        scope: &str,
        now_ms: u64,
    ) -> Result<Pair, Refused> {
        let approval = self.refreshes.get(token).ok_or(Refused::Dead)?.approval;
        if let Some(found) = self.approvals.get_mut(approval) {
            found.last_used_at_ms = now_ms;
            found.used_at_ms = Some(now_ms);
            found.refreshes += 1;
        }
        self.counters.refreshes += 1;
        if self.rules.refresh_ends_access {
            let of = |found: &&mut super::Access| found.approval == Some(approval);
            self.access.values_mut().filter(of).for_each(|found| found.revoked = true);
        }
        self.pair(approval, access, Some(gives), shows_refresh, scope, now_ms)
    }

    /// Makes the very answer again that a token's first exchange was given.
    fn answer_again(&self, token: usize) -> Result<Pair, Refused> {
        let found = self.refreshes.get(token).ok_or(Refused::Dead)?;
        let text = found.answered.as_ref().ok_or(Refused::Dead)?;
        let access = self.access.get(text).ok_or(Refused::Dead)?;
        let child = found.children.first().and_then(|child| self.refreshes.get(*child));
        let approval = self.approvals.get(found.approval).ok_or(Refused::Dead)?;
        Ok(Pair {
            access: text.clone(),
            refresh: child.map(|child| child.text.clone()),
            scope: access.scope.clone(),
            user: access.user.clone(),
            identity_url: self.identity_url(&access.user),
            issued_at_ms: access.issued_at_ms,
            expires_at_ms: access.expires_at_ms,
            nonce: approval.nonce.clone(),
            approval: found.approval + 1,
        })
    }

    /// A token that works is used: of the answers to its predecessor, this one came through, and
    /// the others are spent.
    fn settle_siblings(&mut self, token: usize, now_ms: u64) {
        let Some(found) = self.refreshes.get_mut(token) else { return };
        found.used = true;
        let parent = found.parent;
        if let Some(approval) = self.approvals.get_mut(found.approval)
            && self.rules.recovery != Recovery::OldStaysValid
        {
            approval.newest = Some(token);
        }
        if let Some(parent) = parent
            && self.rules.recovery != Recovery::OldStaysValid
        {
            self.spend_children(parent, Some(token), now_ms);
        }
    }

    fn spend_children(&mut self, parent: usize, except: Option<usize>, now_ms: u64) {
        let children =
            self.refreshes.get(parent).map(|parent| parent.children.clone()).unwrap_or_default();
        for child in children.into_iter().filter(|child| Some(*child) != except) {
            if let Some(child) = self.refreshes.get_mut(child) {
                child.spent_at_ms.get_or_insert(now_ms);
            }
        }
    }

    /// Returns what a token was exchanged for last.
    fn successor(&self, token: usize) -> Option<usize> {
        self.refreshes.get(token)?.children.last().copied()
    }
}
