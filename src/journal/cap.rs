//! The provider's cap on what lives of one account: what counts, and whether one more fits.

use super::AccountView;
use super::GrantState;
use crate::engine::state::AccountState;
use crate::error::Error;
use crate::format::clear::Flags;
use crate::format::value::Action;
use crate::ids::AccountTag;

/// How many grants of one account a provider lets live, for [`Begin::cap`](crate::Begin::cap).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// How many may live at once.
    pub limit: u32,
    /// How many live outside of this journal's sight, such as a web session that counts.
    pub outside: u32,
    /// What counts.
    pub counts: CapCounts,
}

/// What a provider's cap counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CapCounts {
    /// Every grant.
    #[default]
    Grants,
    /// Grants with a refresh token.
    RefreshTokens,
}

impl CapCounts {
    fn has(self, has_refresh_token: bool) -> bool {
        match self {
            Self::Grants => true,
            Self::RefreshTokens => has_refresh_token,
        }
    }
}

impl Cap {
    /// Says whether one more exchange fits beside what lives.
    pub(super) fn admit(&self, account: AccountTag, state: &AccountState) -> Result<(), Error> {
        let inside = live(state, self.counts);
        let live = inside.saturating_add(self.outside);
        match live < self.limit {
            true => Ok(()),
            false => Err(Error::CapReached { account, live, limit: self.limit }),
        }
    }
}

fn live(state: &AccountState, counts: CapCounts) -> u32 {
    let grants = state.grants.iter().filter(|grant| grant.is_live());
    let grants = grants.filter(|grant| counts.has(grant.pair.flags.has(Flags::REFRESH)));
    let operations = state.operations.iter().filter(|operation| is_live(operation.action));
    sum(grants.count(), operations.count())
}

/// An exchange without a final outcome may have issued; a burn presents the code of one, which
/// counts already.
fn is_live(action: Action) -> bool {
    action == Action::Exchange
}

fn sum(grants: usize, operations: usize) -> u32 {
    u32::try_from(grants.saturating_add(operations)).unwrap_or(u32::MAX)
}

impl AccountView {
    /// Counts what lives at the provider, as far as the journal knows: grants that have not ended,
    /// and exchanges without a final outcome. [`Begin::cap`](crate::Begin::cap) compares the same
    /// count, and what lives outside, with the limit.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let view = journal.account(&account)?.ok_or("no account")?;
    /// assert_eq!(view.live(CapCounts::RefreshTokens), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn live(&self, counts: CapCounts) -> u32 {
        let grants = self.grants.iter().filter(|grant| grant.state != GrantState::Ended);
        let grants = grants.filter(|grant| counts.has(grant.has_refresh_token));
        let operations = self.in_doubt.iter().filter(|operation| is_live(operation.action));
        sum(grants.count(), operations.count())
    }
}
