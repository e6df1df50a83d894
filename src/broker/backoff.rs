//! Which grants their provider has refused of late: nobody presents one again at every ask.
//!
//! Each refusal in a row doubles the pause, up to five minutes, by the clock that nobody sets. Until it
//! is over who asks hears the same refusal again. A pair that comes ends it, and the owner who wants a
//! refresh on purpose need not wait.

use super::error::BrokerError;
use crate::ids::{AccountTag, GrantId};
use crate::outcome::RefusalClass;
use crate::sync::lock;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// How long the first pause is.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// And the longest.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// At most so many are remembered; of those beyond none is held back.
const REFUSED_MAX: usize = 16_384;

/// What was refused: a grant's own refresh, or one for a token of some scopes beside its chain. Scopes
/// that are refused say nothing of the grant, nor of other scopes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Refused {
    account: AccountTag,
    grant: GrantId,
    beside: Vec<String>,
}

impl Refused {
    pub(super) fn of(account: AccountTag, grant: GrantId) -> Self {
        Self { account, grant, beside: Vec::new() }
    }

    pub(super) fn beside(mut self, scopes: &[String]) -> Self {
        self.beside = scopes.to_vec();
        self.beside.sort_unstable();
        self
    }
}

/// The grants that were refused of late.
#[derive(Debug, Default)]
pub(super) struct Backoff(Mutex<HashMap<Refused, Pause>>);

#[derive(Debug)]
struct Pause {
    refusals: u32,
    until: Instant,
    error: BrokerError,
}

impl Backoff {
    /// Says what was said, as long as it need not be asked again.
    pub(super) fn check(&self, refused: &Refused) -> Result<(), BrokerError> {
        match lock(&self.0).get(refused).filter(|pause| Instant::now() < pause.until) {
            Some(pause) => Err(pause.error.clone()),
            None => Ok(()),
        }
    }

    /// Notes what came of a call, if it is a refusal.
    pub(super) fn note(&self, refused: &Refused, error: &BrokerError) {
        let BrokerError::Refused { refusal, .. } = error else { return };
        // Where the provider names a time that counts, and the gate knows it.
        if refusal.class() == RefusalClass::Retry && refusal.retry_after_s() > 0 {
            return;
        }
        let now = Instant::now();
        let mut pauses = lock(&self.0);
        if pauses.len() >= REFUSED_MAX && !pauses.contains_key(refused) {
            pauses.retain(|_, pause| now < pause.until);
        }
        if pauses.len() >= REFUSED_MAX && !pauses.contains_key(refused) {
            return;
        }
        let refusals = pauses.get(refused).map_or(0, |pause| pause.refusals);
        let wait = PAUSE_FIRST.saturating_mul(1 << refusals.min(16)).min(PAUSE_MAX);
        let refusals = refusals.saturating_add(1);
        pauses.insert(refused.clone(), Pause { refusals, until: now + wait, error: error.clone() });
    }

    /// Notes that what was refused has come.
    pub(super) fn end(&self, refused: &Refused) {
        lock(&self.0).remove(refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::OpId;
    use crate::outcome::Refusal;

    fn grant(id: u64) -> Refused {
        Refused::of(AccountTag::from_bytes([7; 16]), GrantId(id))
    }

    fn refusal(class: RefusalClass, retry_after_s: u32) -> BrokerError {
        let refusal = Refusal::new(class, 400, "invalid_grant", "", &[]);
        let refusal = Box::new(refusal.with_retry_after_s(retry_after_s));
        BrokerError::Refused { account: grant(1).account, op: OpId(3), refusal }
    }

    #[tokio::test(start_paused = true)]
    async fn each_refusal_in_a_row_doubles_the_pause_up_to_five_minutes() {
        let (backoff, error) = (Backoff::default(), refusal(RefusalClass::Suspended, 0));
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            assert!(backoff.check(&grant(1)).is_ok());
            backoff.note(&grant(1), &error);
            tokio::time::sleep(Duration::from_millis(seconds * 1000 - 1)).await;
            assert!(matches!(backoff.check(&grant(1)), Err(BrokerError::Refused { .. })));
            assert!(backoff.check(&grant(2)).is_ok(), "it is of one grant");
            let beside = grant(1).beside(&[String::from("web")]);
            assert!(backoff.check(&beside).is_ok());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        backoff.end(&grant(1));
        backoff.note(&grant(1), &error);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(backoff.check(&grant(1)).is_ok(), "a pair that came is a new beginning");
    }

    #[tokio::test(start_paused = true)]
    async fn only_refusals_without_a_time_of_their_own_count() {
        let backoff = Backoff::default();
        backoff.note(&grant(1), &refusal(RefusalClass::Retry, 30));
        backoff.note(&grant(1), &BrokerError::Closed);
        assert!(backoff.check(&grant(1)).is_ok());
        backoff.note(&grant(1), &refusal(RefusalClass::Retry, 0));
        assert!(backoff.check(&grant(1)).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_remembered_than_there_is_room_for() {
        let (backoff, error) = (Backoff::default(), refusal(RefusalClass::Suspended, 0));
        for id in 0..REFUSED_MAX as u64 + 10 {
            backoff.note(&grant(id), &error);
        }
        assert_eq!(lock(&backoff.0).len(), REFUSED_MAX);
        tokio::time::sleep(Duration::from_secs(1)).await;
        backoff.note(&grant(u64::MAX), &error);
        assert_eq!(lock(&backoff.0).len(), 1, "those that are over make room");
    }
}
