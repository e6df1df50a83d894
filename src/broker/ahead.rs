//! Refreshes access tokens that are in use before they lapse, each at a time of its own.

use super::app::Desk;
use super::refresh::Wanted;
use super::{Inner, Landed};
use crate::ids::{AccountTag, GrantId};
use crate::journal::IssuedPair;
use crate::ledger::Ledger;
use crate::sync::lock;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A token that was last used longer ago than this is left to lapse.
const USED_WITHIN: Duration = Duration::from_secs(3600);
/// At most so many grants are watched.
const WATCHED_MAX: usize = 65_536;
/// What is not due is looked at again after this time, should the clock have been set.
const NAP_MAX: Duration = Duration::from_secs(60);

/// How often all that is in doubt, or nobody's, is looked into.
pub(super) const ROUND: Duration = Duration::from_secs(900);

type Watched = (AccountTag, GrantId);

/// What is due when.
#[derive(Debug)]
pub(super) struct Ahead {
    plan: Mutex<Plan>,
    changed: Notify,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct Plan {
    due: BTreeSet<(u64, Watched)>,
    by_grant: HashMap<Watched, u64>,
}

impl Ahead {
    pub(super) fn new() -> Self {
        Self { plan: Mutex::default(), changed: Notify::new(), stopped: AtomicBool::new(false) }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn put(&self, watched: Watched, due_ms: u64) {
        let mut plan = lock(&self.plan);
        let first = plan.due.first().map(|(at_ms, _)| *at_ms);
        if plan.by_grant.len() >= WATCHED_MAX && !plan.by_grant.contains_key(&watched) {
            return;
        }
        if let Some(before) = plan.by_grant.insert(watched, due_ms) {
            plan.due.remove(&(before, watched));
        }
        plan.due.insert((due_ms, watched));
        if first.is_none_or(|first| due_ms < first) {
            self.changed.notify_one();
        }
    }

    /// Takes what is due, and says how long nothing else is.
    fn take(&self, now_ms: u64) -> Result<Watched, Duration> {
        let mut plan = lock(&self.plan);
        match plan.due.first().copied() {
            Some((at_ms, watched)) if at_ms <= now_ms => {
                plan.due.remove(&(at_ms, watched));
                plan.by_grant.remove(&watched);
                Ok(watched)
            }
            Some((at_ms, _)) => Err(Duration::from_millis(at_ms - now_ms).min(NAP_MAX)),
            None => Err(NAP_MAX),
        }
    }

    async fn nap(&self, time: Duration) {
        // Whichever it is, what is due is looked for again.
        let _ = tokio::time::timeout(time, self.changed.notified()).await;
    }
}

impl<L: Ledger> Inner<L> {
    /// Notes when a pair in use is to be refreshed: ahead of its expiry, at most half of its lifetime,
    /// and not all at once.
    pub(super) fn schedule(&self, desk: &Desk, pair: &IssuedPair, now_ms: u64) {
        let can = pair.refresh_token().is_some() || desk.config.mints;
        let Some(expires_at_ms) = pair.expires_at_ms().filter(|_| can) else { return };
        let mut draw = [0; 1];
        // Without randomness all are early, which harms nobody.
        let _ = self.entropy.fill(&mut draw);
        let [draw] = draw;
        let due_ms = due_ms(expires_at_ms, now_ms, desk.config.ahead, draw);
        self.ahead.put((pair.account(), pair.grant()), due_ms);
    }

    /// Begins what goes on beside the calls: refreshing ahead, and looking into what is in doubt.
    pub(super) fn begin_tending(&self) {
        let me = self.me.clone();
        // Not one of the tasks that a shutdown waits for: it holds no call.
        self.tasks.spawn_aside(async move {
            let mut round = Instant::now();
            loop {
                let Some(inner) = me.upgrade() else { return };
                if inner.ahead.is_stopped() {
                    return;
                }
                if round <= Instant::now() {
                    round += ROUND;
                    inner.look_into_all().await;
                }
                match inner.ahead.take(inner.ledger.now_ms()) {
                    Ok((account, grant)) => inner.refresh_ahead(account, grant),
                    Err(nap) => {
                        // Asleep it keeps no broker, and so no store, from being dropped.
                        let ahead = Arc::clone(&inner.ahead);
                        drop(inner);
                        ahead.nap(nap).await;
                    }
                }
            }
        });
    }

    /// Refreshes a pair if it was used of late. Nobody waits for it.
    fn refresh_ahead(&self, account: AccountTag, grant: GrantId) {
        let Ok(inner) = self.handle() else { return };
        let now_ms = self.ledger.now_ms();
        let used_within_ms = u64::try_from(USED_WITHIN.as_millis()).unwrap_or(u64::MAX);
        let Some(ready) = self.shelf.get(account) else { return };
        let Some(found) = ready.grants.iter().find(|ready| ready.grant() == grant) else { return };
        let used_ms = found.used_ms.load(Ordering::Relaxed);
        if now_ms.saturating_sub(used_ms) > used_within_ms {
            return;
        }
        let (key, wanted) = (ready.key_of(found), Wanted::instead_of(&found.pair));
        drop(self.flights.start(key, &self.tasks, || async move {
            let landed = inner.refresh_unless_newer(account, grant, wanted).await;
            if let Ok(Landed::Pair(pair)) = &landed {
                // It goes on being in use.
                if let Ok(ready) = inner.ready(pair.account()).await {
                    let found = ready.grants.iter().find(|ready| ready.grant() == grant);
                    if let Some(found) = found {
                        found.used_ms.fetch_max(used_ms, Ordering::Relaxed);
                    }
                }
            }
            landed
        }));
    }
}

/// Says when a pair is to be refreshed, with a byte that was drawn.
fn due_ms(expires_at_ms: u64, now_ms: u64, ahead: Duration, draw: u8) -> u64 {
    let lifetime_ms = expires_at_ms.saturating_sub(now_ms);
    let ahead_ms = u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX).min(lifetime_ms / 2);
    let jitter_ms = (ahead_ms / 4).saturating_mul(u64::from(draw)) / 256;
    expires_at_ms.saturating_sub(ahead_ms).saturating_add(jitter_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_beyond_all_is_early_and_no_overflow() {
        for (expires_at_ms, now_ms, ahead) in
            [(u64::MAX, 0, Duration::MAX), (10, 20, Duration::MAX), (u64::MAX, 0, Duration::ZERO)]
        {
            for draw in [0, 255] {
                let due_ms = due_ms(expires_at_ms, now_ms, ahead, draw);
                assert!(due_ms <= expires_at_ms, "{expires_at_ms} {now_ms} {ahead:?} {draw}");
            }
        }
    }

    #[test]
    fn a_pair_is_refreshed_ahead_of_its_expiry_and_not_with_all_others() {
        let minutes = |minutes: u64| minutes * 60_000;
        let due = |ahead, draw| due_ms(minutes(60), 0, Duration::from_millis(ahead), draw);
        assert_eq!(due(minutes(8), 0), minutes(52));
        assert_eq!(due(minutes(8), 128), minutes(53));
        assert_eq!(due(minutes(100), 0), minutes(30), "at most half of its lifetime");
    }
}
