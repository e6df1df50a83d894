//! What this process knows of the pairs that came to it, and no record says: when each came, by a
//! clock that nobody sets; whether a token of it was handed out; whose users are not known yet.
//!
//! All of it is bounded. What is forgotten is taken for what is safe: a token was handed out, and a
//! pair came when the newest of those that were forgotten did.

use super::Inner;
use super::rules::Known;
use crate::ids::{AccountTag, Fingerprint, GrantId};
use crate::journal::IssuedPair;
use crate::ledger::Ledger;
use crate::outcome::ExpirySource;
use crate::sync::lock;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// At most so many grants are remembered, and so many accounts.
const REMEMBERED_MAX: usize = 65_536;

type Of = (AccountTag, GrantId);

/// What is known of pairs that came.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// When the newest pair of a grant came, and for how long the access tokens work that came here.
    came: HashMap<Of, (Instant, Duration)>,
    in_order: BTreeSet<(Instant, Of)>,
    /// What is not known here came no later than this.
    others: Instant,
    /// Grants of which no token was handed out.
    fresh: HashSet<Of>,
    /// Provisional accounts of which nobody could say whose they are.
    nameless: HashSet<AccountTag>,
    /// Refresh tokens of which a provider said that they work no longer.
    spent: HashSet<Fingerprint>,
}

impl Arrivals {
    /// Begins with a process: whatever it did not see came before.
    pub(super) fn new(started: Instant) -> Self {
        Self {
            came: HashMap::new(),
            in_order: BTreeSet::new(),
            others: started,
            fresh: HashSet::new(),
            nameless: HashSet::new(),
            spent: HashSet::new(),
        }
    }

    fn note(&mut self, of: Of, now: Instant, lifetime: Duration) {
        let before = self.forget(of);
        // An earlier access token may work for longer than this one.
        let left = before.map(|(came, left)| left.saturating_sub(now.duration_since(came)));
        let lifetime = lifetime.max(left.unwrap_or_default());
        if self.came.len() >= REMEMBERED_MAX
            && let Some((came, oldest)) = self.in_order.pop_first()
        {
            self.came.remove(&oldest);
            self.others = self.others.max(came);
        }
        self.came.insert(of, (now, lifetime));
        self.in_order.insert((now, of));
    }

    fn forget(&mut self, of: Of) -> Option<(Instant, Duration)> {
        let known = self.came.remove(&of)?;
        self.in_order.remove(&(known.0, of));
        Some(known)
    }

    fn relocate(&mut self, from: Of, to: Of) {
        if let Some((came, lifetime)) = self.forget(from) {
            self.note(to, came, lifetime);
        }
        if self.fresh.remove(&from) {
            self.fresh.insert(to);
        }
        self.nameless.remove(&from.0);
    }

    /// Returns when the newest pair of a grant came and for how long its access tokens work. Where
    /// that is not known it is `otherwise`, from when the pair came at the latest.
    pub(super) fn of(&self, of: Of, otherwise: Duration) -> (Instant, Duration) {
        self.came.get(&of).copied().unwrap_or((self.others, otherwise))
    }
}

impl<L: Ledger> Inner<L> {
    /// Returns what is known here of a grant.
    pub(super) fn known(&self, account: AccountTag, grant: GrantId) -> Known {
        let arrivals = lock(&self.arrivals);
        let of = (account, grant);
        let came = arrivals.came.get(&of);
        Known {
            fresh: arrivals.fresh.contains(&of),
            there_for: came.map(|(came, _)| came.elapsed()),
            token_left: came
                .map_or(Duration::ZERO, |(came, lifetime)| lifetime.saturating_sub(came.elapsed())),
        }
    }

    /// Notes when a pair came.
    pub(super) fn note_came(&self, pair: &IssuedPair) {
        let left_ms = pair.expires_at_ms().unwrap_or(u64::MAX);
        let left_ms = left_ms.saturating_sub(self.ledger.now_ms());
        let lifetime = Duration::from_millis(match pair.expiry_source() {
            // An assumption proves nothing, so as much again is waited for.
            Some(ExpirySource::Assumed) => left_ms.saturating_mul(2),
            _ => left_ms,
        });
        lock(&self.arrivals).note((pair.account(), pair.grant()), Instant::now(), lifetime);
    }

    /// Notes that a pair came of an exchange. Only of a grant that begins with it no token was handed
    /// out: where the refresh token was known already, its access tokens may be in use.
    pub(super) fn note_exchanged(&self, pair: &IssuedPair) {
        self.note_came(pair);
        let fresh = &mut lock(&self.arrivals).fresh;
        if pair.generation().0 == 1 && fresh.len() < REMEMBERED_MAX {
            fresh.insert((pair.account(), pair.grant()));
        }
    }

    /// Notes that a token of a grant leaves this process's hands.
    pub(super) fn hand(&self, pair: &IssuedPair) {
        lock(&self.arrivals).fresh.remove(&(pair.account(), pair.grant()));
    }

    /// Notes that a provider said of a refresh token that it works no longer.
    pub(super) fn note_spent(&self, token: Fingerprint) {
        let spent = &mut lock(&self.arrivals).spent;
        if spent.len() < REMEMBERED_MAX {
            spent.insert(token);
        }
    }

    pub(super) fn is_spent(&self, token: Fingerprint) -> bool {
        lock(&self.arrivals).spent.contains(&token)
    }

    /// Forgets a grant that is over.
    pub(super) fn note_ended(&self, account: AccountTag, grant: GrantId) {
        let mut arrivals = lock(&self.arrivals);
        arrivals.forget((account, grant));
        arrivals.fresh.remove(&(account, grant));
    }

    /// Notes that nobody has said yet whose a provisional account is: it is asked again. Those that
    /// are held are listed nowhere else.
    pub(super) fn note_nameless(&self, account: AccountTag) {
        let nameless = &mut lock(&self.arrivals).nameless;
        if nameless.len() < REMEMBERED_MAX {
            nameless.insert(account);
        }
    }

    /// Takes those accounts, to be asked again. Who still knows nobody notes so.
    pub(super) fn take_nameless(&self) -> HashSet<AccountTag> {
        std::mem::take(&mut lock(&self.arrivals).nameless)
    }

    /// Takes what is known of a grant along to another account.
    pub(super) fn moved(&self, from: AccountTag, to: AccountTag, grant: GrantId) {
        lock(&self.arrivals).relocate((from, grant), (to, grant));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: u64) -> Of {
        (AccountTag::from_bytes([1; 16]), GrantId(number))
    }

    #[test]
    fn what_is_forgotten_came_no_later_than_the_newest_of_it() {
        let (started, hour) = (Instant::now(), Duration::from_secs(3600));
        let at = |number: u64| started + Duration::from_secs(number);
        let mut arrivals = Arrivals::new(started);
        assert_eq!(arrivals.of(of(1), hour), (started, hour), "it came before the process did");
        let last = REMEMBERED_MAX as u64;
        (1..=last).for_each(|number| arrivals.note(of(number), at(number), Duration::ZERO));
        arrivals.note(of(1), at(last + 1), Duration::ZERO);
        assert_eq!(arrivals.of(of(1), hour).0, at(last + 1), "it came again");
        assert_eq!(arrivals.of(of(0), hour).0, started, "nothing is forgotten yet");
        arrivals.note(of(last + 1), at(last + 2), Duration::ZERO);
        arrivals.note(of(last + 2), at(last + 3), Duration::ZERO);
        assert_eq!(arrivals.of(of(0), hour), (at(3), hour));
        assert_eq!(
            (arrivals.came.len(), arrivals.in_order.len()),
            (REMEMBERED_MAX, REMEMBERED_MAX)
        );
    }

    #[test]
    fn the_longest_lived_access_token_of_a_grant_counts() {
        let started = Instant::now();
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        let mut arrivals = Arrivals::new(started);
        arrivals.note(of(1), started, hour);
        arrivals.note(of(1), started + minute, minute);
        assert_eq!(arrivals.of(of(1), hour), (started + minute, hour - minute));
        arrivals.note(of(1), started + hour, minute);
        assert_eq!(arrivals.of(of(1), hour), (started + hour, minute));
    }

    #[test]
    fn what_moves_takes_along_when_it_came() {
        let (started, minute) = (Instant::now(), Duration::from_secs(60));
        let mut arrivals = Arrivals::new(started);
        let (from, to) = (of(1), (AccountTag::from_bytes([2; 16]), GrantId(1)));
        arrivals.note(from, started + minute, minute);
        arrivals.fresh.insert(from);
        arrivals.nameless.insert(from.0);
        arrivals.relocate(from, to);
        assert_eq!(arrivals.of(to, Duration::ZERO), (started + minute, minute));
        assert_eq!(arrivals.of(from, Duration::ZERO), (started, Duration::ZERO));
        assert!(arrivals.fresh.contains(&to) && arrivals.fresh.len() == 1);
        assert!(arrivals.nameless.is_empty());
    }
}
