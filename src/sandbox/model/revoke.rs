//! Revocation, and what it takes along.

use super::approval::presented;
use super::{ApprovalState, Model, Refused, Revocation, Standing, TokenKind};

impl Model {
    /// Revokes a token, with all that goes with it by the rules.
    ///
    /// # Errors
    /// [`Refused::Token`] for one that does not work, unless that counts as success.
    pub fn revoke(&mut self, token: &str, now_ms: u64) -> Result<(), Refused> {
        let Some((kind, approval, generation)) = self.revocable(token, now_ms) else {
            return if self.rules.revoke_unknown { Ok(()) } else { Err(Refused::Token) };
        };
        let by = |approval: usize| presented(kind, approval, generation, token);
        let whole = self.rules.revoke == Revocation::WholeGrant;
        match (kind, approval) {
            (_, Some(approval)) if whole => {
                let user = self.approvals.get(approval).map(|found| found.user.clone());
                let all = user.and_then(|user| self.user(&user)).map(|user| user.approvals.clone());
                for sibling in all.unwrap_or_default() {
                    self.lapse(sibling, now_ms);
                    self.end(sibling, ApprovalState::Revoked, now_ms, Some(by(approval)));
                }
            }
            (TokenKind::Refresh, Some(approval)) => {
                self.end(approval, ApprovalState::Revoked, now_ms, Some(by(approval)));
            }
            _ => self.revoke_access(token, now_ms),
        }
        self.counters.revocations += 1;
        Ok(())
    }

    /// Revokes one access token alone. Where that was all there is of an approval, it ends.
    fn revoke_access(&mut self, token: &str, now_ms: u64) {
        let Some(access) = self.access.get_mut(token) else { return };
        access.revoked = true;
        let Some(approval) = access.approval else { return };
        if self.approvals.get(approval).is_some_and(|found| found.newest.is_none()) {
            let by = presented(TokenKind::Access, approval, 0, token);
            self.end(approval, ApprovalState::Revoked, now_ms, Some(by));
        }
    }

    /// Ends an approval from outside: a user, an administrator or a policy did it at the provider.
    pub fn end_outside(&mut self, number: usize, now_ms: u64) {
        if let Some(approval) = number.checked_sub(1) {
            self.lapse(approval, now_ms);
            self.end(approval, ApprovalState::EndedOutside, now_ms, None);
        }
    }

    /// Returns what a token is and what it belongs to, where it works.
    fn revocable(&self, token: &str, now_ms: u64) -> Option<(TokenKind, Option<usize>, u32)> {
        if let Some(access) = self.access.get(token) {
            let works = self.access_works(access, now_ms);
            return works.then_some((TokenKind::Access, access.approval, 0));
        }
        if self.standing(token, now_ms) == Standing::Works {
            let found = self.refreshes.get(*self.by_refresh.get(token)?)?;
            return Some((TokenKind::Refresh, Some(found.approval), found.generation));
        }
        // The list of approvals gives tokens that revoke and do nothing else.
        let of = |approval: &super::Approval| approval.delete_token == token;
        let approval = self.approvals.iter().position(of)?;
        self.lives(approval, now_ms).then_some((TokenKind::Refresh, Some(approval), 0))
    }
}
