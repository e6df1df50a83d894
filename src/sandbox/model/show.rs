//! What the provider tells: about a token, about a user's approvals, and everything but the tokens.

use super::{About, Access, Model, Refused, Standing, TokenKind};
use crate::sandbox::state::{ApprovalView, EndingView, SandboxState, UserView};

/// One line of a provider's own list of approvals. Nothing in it says which of our tokens it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// The number of the approval, from 1.
    pub approval: usize,
    /// The id of the user, as identity URLs have it.
    pub user_id: String,
    /// How often it was used.
    pub use_count: u32,
    /// When it was last used in any way, or made, in milliseconds since 1970.
    pub last_used_at_ms: u64,
    /// When it was made.
    pub created_at_ms: u64,
    /// Ends the approval at the revocation endpoint, and is good for nothing else.
    pub delete_token: String,
}

impl Model {
    /// Tells about a token that works; `None` for any other.
    ///
    /// # Errors
    /// [`Refused::TokenType`] where tokens of its kind cannot be asked about.
    pub fn introspect(&mut self, token: &str, now_ms: u64) -> Result<Option<About>, Refused> {
        let is_access = self.access.contains_key(token);
        let allowed = match is_access {
            true => self.rules.introspects_access,
            false => self.rules.introspects_refresh,
        };
        if !allowed {
            // No token is told apart from one that never was.
            let none = !self.rules.introspects_access && !self.rules.introspects_refresh;
            return if none { Err(Refused::TokenType) } else { Ok(None) };
        }
        self.counters.introspections += 1;
        Ok(self.about(token, now_ms))
    }

    /// Uses an access token, as at a resource. The answer that it came with has come through.
    pub fn use_access(&mut self, token: &str, now_ms: u64) -> Option<About> {
        let about = self.about(token, now_ms).filter(|about| about.kind == TokenKind::Access)?;
        let access = self.access.get(token);
        let approval = access.and_then(|access| access.approval);
        if let Some(approval) = approval.and_then(|approval| self.approvals.get_mut(approval)) {
            approval.used_at_ms = Some(now_ms);
        }
        let refresh = access.and_then(|access| access.refresh);
        if let Some(refresh) = refresh.and_then(|refresh| self.refreshes.get_mut(refresh)) {
            refresh.used = true;
        }
        Some(about)
    }

    /// Lists the approvals of a user that live.
    pub fn approvals(&self, user: &str, now_ms: u64) -> Vec<Listed> {
        let all = self.user(user).map(|user| user.approvals.as_slice()).unwrap_or_default();
        let living = all.iter().filter(|approval| self.lives(**approval, now_ms));
        let listed = |approval: &usize| {
            let found = self.approvals.get(*approval)?;
            Some(Listed {
                approval: approval + 1,
                user_id: self.user_id(&found.user),
                use_count: found.refreshes.saturating_add(1),
                last_used_at_ms: found.used_at_ms.unwrap_or(found.created_at_ms),
                created_at_ms: found.created_at_ms,
                delete_token: found.delete_token.clone(),
            })
        };
        living.filter_map(listed).collect()
    }

    /// Returns the name of a user by the id that identity URLs have.
    pub(in crate::sandbox) fn user_by_id(&self, id: &str) -> Option<&str> {
        let name = self.users.iter().map(|user| user.name.as_str());
        name.into_iter().find(|name| self.user_id(name) == id)
    }

    /// Shows everything but the tokens.
    pub fn state(&mut self, now_ms: u64) -> SandboxState {
        self.lapse_all(now_ms);
        let mut working = vec![0_usize; self.approvals.len()];
        for access in self.access.values().filter(|access| self.access_works(access, now_ms)) {
            let count = access.approval.and_then(|approval| working.get_mut(approval));
            if let Some(count) = count {
                *count += 1;
            }
        }
        let view = |approval: &usize| {
            let found = self.approvals.get(*approval)?;
            Some(ApprovalView {
                number: approval + 1,
                state: found.state,
                created_at_ms: found.created_at_ms,
                last_used_at_ms: found.last_used_at_ms,
                refreshes: found.refreshes,
                access_tokens: working.get(*approval).copied().unwrap_or_default(),
            })
        };
        let users = self.users.iter().map(|user| UserView {
            name: user.name.clone(),
            identity_url: self.identity_url(&user.name),
            live: self.live(&user.name, now_ms),
            web_sessions: user.web_sessions,
            approvals: user.approvals.iter().filter_map(view).collect(),
        });
        SandboxState {
            provider: self.rules.dialect.name.clone(),
            cap: self.rules.cap,
            rotation: self.rules.rotation,
            users: users.collect(),
            endings: self.endings.iter().map(EndingView::of).collect(),
            counters: self.counters,
        }
    }

    fn about(&self, token: &str, now_ms: u64) -> Option<About> {
        match self.access.get(token) {
            Some(access) => self.about_access(access, now_ms),
            None => self.about_refresh(token, now_ms),
        }
    }

    fn about_access(&self, access: &Access, now_ms: u64) -> Option<About> {
        let user = &access.user;
        let identity = || self.identity_url(user);
        self.access_works(access, now_ms).then(|| About {
            kind: TokenKind::Access,
            scope: access.scope.clone(),
            user: user.clone(),
            identity_url: if user.is_empty() { String::new() } else { identity() },
            issued_at_ms: access.issued_at_ms,
            expires_at_ms: access.expires_at_ms,
        })
    }

    fn about_refresh(&self, token: &str, now_ms: u64) -> Option<About> {
        if self.standing(token, now_ms) != Standing::Works {
            return None;
        }
        let found = self.refreshes.get(*self.by_refresh.get(token)?)?;
        let approval = self.approvals.get(found.approval)?;
        Some(About {
            kind: TokenKind::Refresh,
            scope: approval.scope.clone(),
            user: approval.user.clone(),
            identity_url: self.identity_url(&approval.user),
            issued_at_ms: found.issued_at_ms,
            expires_at_ms: self.rules.max_ms.map(|ms| approval.created_at_ms.saturating_add(ms)),
        })
    }
}
