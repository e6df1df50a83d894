//! One grant of an account: its newest pair, who holds it, how it ended.
//!
//! What a record means is decided in `state`; here is what it does to a grant.

use super::lapse::Lapse;
use super::state::Step;
use crate::format::clear::{Flags, Issued, Refused, Told};
use crate::format::value::{Cause, Confidence, RefusalClass};
use crate::ids::{AccountTag, Fingerprint, Generation, GrantId, HolderTag, Lsn};

/// How long an ended grant keeps its sealed secrets, so that `revive` can undo the end.
const ENDED_SECRETS_MS: u64 = 30 * 24 * 3600 * 1000;

/// How many access tokens beside its chain a grant keeps.
const BESIDES_MAX: usize = 8;

/// One approval at the provider.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Grant {
    pub(crate) id: GrantId,
    pub(crate) generation: Generation,
    /// The record of the newest pair; none only while a list of records is being folded, and in
    /// a tombstone.
    pub(crate) issued: Lsn,
    /// The record with the refresh token before it, until the newest has worked.
    pub(crate) previous: Lsn,
    /// That refresh token.
    pub(crate) previous_refresh: Fingerprint,
    /// The record that says that the newest pair has worked.
    pub(crate) worked: Lsn,
    /// The record that says that the newest pair is paused no longer.
    pub(crate) activated: Lsn,
    /// The record that last said when the newest pair's access token expires, if one did.
    pub(crate) told: Lsn,
    /// Access tokens beside the chain of pairs, in the order of their records.
    pub(crate) besides: Vec<Beside>,
    /// What the provider last refused, if that is newer than the newest pair.
    pub(crate) refusal: Option<Refusal>,
    /// Who has let go, each with the record that says so; a compaction keeps no more of them than
    /// it must.
    pub(crate) gone: Vec<Held>,
    pub(crate) ended: Option<End>,
    pub(crate) holders: Vec<Held>,
    /// The newest pair's clear fields.
    pub(crate) pair: PairFacts,
    /// Accounts that the grant belonged to before it moved here.
    pub(crate) homes: Vec<AccountTag>,
}

/// What is known in the clear of a grant's newest pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PairFacts {
    pub(crate) flags: Flags,
    /// The holder that the record names.
    pub(crate) holder: HolderTag,
    pub(crate) access: Fingerprint,
    pub(crate) refresh: Fingerprint,
    /// The token that the grant began with; none where that is one of these.
    pub(crate) first: Fingerprint,
    pub(crate) issued_at_ms: u64,
    pub(crate) expires_at_ms: u64,
    pub(crate) adopt_by_ms: u64,
    pub(crate) earlier_lapse_at_ms: u64,
}

/// An access token of other scopes, beside the chain of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beside {
    pub(crate) record: Lsn,
    /// What stands for the scopes that were asked for.
    pub(crate) asked: Fingerprint,
    pub(crate) access: Fingerprint,
    pub(crate) flags: Flags,
    pub(crate) issued_at_ms: u64,
    pub(crate) expires_at_ms: u64,
    pub(crate) earlier_lapse_at_ms: u64,
}

impl Beside {
    fn lapse(&self) -> Lapse {
        Lapse::of_earlier(self.earlier_lapse_at_ms, self.flags)
            .and(Lapse::of_own(self.expires_at_ms, self.flags))
    }
}

/// How a grant ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) record: Lsn,
    pub(crate) at_ms: u64,
    pub(crate) cause: Cause,
    pub(crate) confidence: Confidence,
}

/// What the provider said when it refused, as far as that stands in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) record: Lsn,
    pub(crate) at_ms: u64,
    pub(crate) class: RefusalClass,
    pub(crate) status: u16,
    pub(crate) retry_after_s: u32,
}

/// Who depends on a grant, and the record that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) holder: HolderTag,
    pub(crate) record: Lsn,
    /// When that was said.
    pub(crate) since_ms: u64,
    /// A `Superseded` or a pair's own record brought the holder here. It may still be read, for the
    /// sake of the grant that the holder came from, or of the pair; so what undoes it must be kept.
    pub(crate) moved: bool,
}

impl Grant {
    /// Takes a pair, if it is newer than the one that is known.
    pub(super) fn take(&mut self, step: Step<'_>, issued: &Issued, flags: Flags) {
        if issued.prefix.generation <= self.generation {
            return;
        }
        let had_refresh = !self.issued.is_none() && !self.pair.refresh.is_none();
        if had_refresh && self.pair.refresh != issued.refresh {
            self.previous = self.issued;
            self.previous_refresh = self.pair.refresh;
        }
        // Who holds by the record of a pair holds by the next one's, or no longer.
        let before = self.issued;
        self.holders.retain(|held| held.record != before);
        self.generation = issued.prefix.generation;
        self.issued = step.lsn;
        self.worked = Lsn::NONE;
        self.activated = Lsn::NONE;
        self.told = Lsn::NONE;
        self.refusal = None;
        self.pair = PairFacts {
            flags,
            holder: issued.holder,
            access: issued.access,
            first: issued.first,
            refresh: issued.refresh,
            issued_at_ms: issued.issued_at_ms,
            expires_at_ms: issued.expires_at_ms,
            adopt_by_ms: issued.adopt_by_ms,
            earlier_lapse_at_ms: issued.earlier_lapse_at_ms,
        };
        if flags.has(Flags::HELD) {
            self.hold(issued.holder, step, true);
        }
    }

    /// Takes an access token beside the chain: the newest for the scopes that were asked for, and
    /// the newest few in all.
    pub(super) fn take_beside(&mut self, step: Step<'_>, issued: &Issued, flags: Flags) {
        self.besides.retain(|beside| beside.asked != issued.first);
        self.besides.push(Beside {
            record: step.lsn,
            asked: issued.first,
            access: issued.access,
            flags,
            issued_at_ms: issued.issued_at_ms,
            expires_at_ms: issued.expires_at_ms,
            earlier_lapse_at_ms: issued.earlier_lapse_at_ms,
        });
        let surplus = self.besides.len().saturating_sub(BESIDES_MAX);
        self.besides.drain(..surplus);
    }

    /// Takes note of when the newest access token expires.
    pub(super) fn hear(&mut self, record: Lsn, told: &Told) {
        if told.prefix.generation == self.generation && !self.issued.is_none() {
            self.told = record;
            self.pair.expires_at_ms = told.expires_at_ms;
            // With neither flag it was asked for.
            let sources = Flags::EXPIRES_DECLARED | Flags::EXPIRES_ASSUMED;
            self.pair.flags = self.pair.flags.without(sources);
        }
    }

    /// Returns when all of its access tokens have lapsed, as far as is known. What is kept of those
    /// that are not kept themselves stands in the records that came after them.
    pub(crate) fn lapse(&self) -> Lapse {
        if self.issued.is_none() {
            return Lapse::None;
        }
        let PairFacts { flags, expires_at_ms, earlier_lapse_at_ms, .. } = self.pair;
        let newest =
            Lapse::of_earlier(earlier_lapse_at_ms, flags).and(Lapse::of_own(expires_at_ms, flags));
        self.besides.iter().fold(newest, |lapse, beside| lapse.and(beside.lapse()))
    }

    /// Takes note of a refusal.
    pub(super) fn refuse(&mut self, step: Step<'_>, refused: &Refused) {
        self.refusal = Some(Refusal {
            record: step.lsn,
            at_ms: step.at_ms,
            class: refused.class,
            status: refused.status,
            retry_after_s: refused.retry_after_s,
        });
    }

    /// Undoes the end, and with it the refusal that said so.
    pub(super) fn revive(&mut self) {
        self.ended = None;
        self.refusal = self.refusal.filter(|refusal| refusal.class != RefusalClass::Dead);
    }

    /// Lets a paused pair be refreshed.
    pub(super) fn activate(&mut self, record: Lsn) {
        if self.pair.flags.has(Flags::PAUSED) {
            self.activated = record;
        }
    }

    /// Says whether the grant must not be refreshed or revoked yet.
    pub(crate) fn is_paused(&self) -> bool {
        self.pair.flags.has(Flags::PAUSED) && self.activated.is_none()
    }

    /// Says whether a holder depends on it by the record of its newest pair.
    pub(crate) fn held_by_pair(&self) -> Option<HolderTag> {
        let by_pair = |held: &&Held| held.record == self.issued;
        self.holders.iter().find(by_pair).map(|held| held.holder)
    }

    /// Returns the token that it began with, as far as is known.
    pub(crate) fn first_token(&self) -> Fingerprint {
        let known = [self.pair.first, self.pair.refresh, self.pair.access];
        known.into_iter().find(|token| !token.is_none()).unwrap_or_default()
    }

    /// Says whether a token is known to be, or to have been, this grant's.
    pub(crate) fn knows(&self, token: Fingerprint) -> bool {
        let PairFacts { refresh, access, first, .. } = self.pair;
        let known = [refresh, access, first, self.previous_refresh];
        let is_beside = || self.besides.iter().any(|beside| beside.access == token);
        !token.is_none() && (known.contains(&token) || is_beside())
    }

    /// Forgets the refresh token before the newest.
    pub(super) fn forget_previous(&mut self) {
        (self.previous, self.previous_refresh) = (Lsn::NONE, Fingerprint::NONE);
    }

    /// Names the records that fold to what is known of it, in no order.
    pub(super) fn name_records(&self, records: &mut Vec<Lsn>) {
        records.extend([self.issued, self.previous, self.worked, self.activated, self.told]);
        records.extend(self.besides.iter().map(|beside| beside.record));
        records.extend(self.ended.map(|end| end.record));
        records.extend(self.refusal.map(|refusal| refusal.record));
        records.extend(self.holders.iter().chain(&self.gone).map(|held| held.record));
    }

    /// Says whether [`Grant::prune`] would drop anything.
    pub(super) fn is_prunable(&self, now_ms: u64) -> bool {
        let keeps_more = !self.is_tombstone()
            || !self.besides.is_empty()
            || self.refusal != self.refusal_that_ended();
        self.gone.len() > 1
            || (self.ended_long_ago(now_ms) && keeps_more)
            || self.besides.iter().any(|beside| self.outlives(beside, now_ms))
    }

    /// Returns the refusal, if it is also the end, whose record is kept.
    fn refusal_that_ended(&self) -> Option<Refusal> {
        let end = self.ended.map(|end| end.record);
        self.refusal.filter(|refusal| Some(refusal.record) == end)
    }

    fn ended_long_ago(&self, now_ms: u64) -> bool {
        self.ended.is_some_and(|end| now_ms.saturating_sub(end.at_ms) > ENDED_SECRETS_MS)
    }

    /// Drops what need not be kept any longer: who has let go, and the secrets if it ended long ago.
    pub(super) fn prune(&mut self, now_ms: u64) {
        if self.ended_long_ago(now_ms) {
            let (refusal, homes) = (self.refusal_that_ended(), std::mem::take(&mut self.homes));
            *self = Self { id: self.id, ended: self.ended, refusal, homes, ..Self::default() };
        }
        let besides = std::mem::take(&mut self.besides);
        let kept = besides.into_iter().filter(|beside| !self.outlives(beside, now_ms)).collect();
        self.besides = kept;
        self.forget_gone();
    }

    /// Says whether a token beside the chain has lapsed, and nothing is lost with its record: what
    /// it says of those before it is over as well, or is said by the newest pair.
    fn outlives(&self, beside: &Beside, now_ms: u64) -> bool {
        let has_lapsed = beside.expires_at_ms > 0 && beside.expires_at_ms <= now_ms;
        let is_over = matches!(beside.lapse(), Lapse::At(at_ms) if at_ms <= now_ms);
        has_lapsed && (is_over || beside.record < self.issued)
    }

    /// Says whether it counts toward the provider's cap, as far as is known.
    pub(crate) fn is_live(&self) -> bool {
        self.ended.is_none() && !self.issued.is_none()
    }

    /// Says whether more is known of it than that a record mentions it.
    pub(super) fn is_known(&self) -> bool {
        !self.issued.is_none() || self.ended.is_some()
    }

    pub(super) fn is_tombstone(&self) -> bool {
        self.ended.is_some() && self.issued.is_none()
    }

    pub(super) fn hold(&mut self, holder: HolderTag, step: Step<'_>, moved: bool) {
        let moved = self.forget_holder(holder) || moved;
        self.holders.push(Held { holder, record: step.lsn, since_ms: step.at_ms, moved });
    }

    pub(super) fn let_go(&mut self, holder: HolderTag, step: Step<'_>) {
        let moved = self.forget_holder(holder);
        self.gone.push(Held { holder, record: step.lsn, since_ms: step.at_ms, moved });
    }

    /// Forgets what is known of a holder; says whether it was once moved here.
    fn forget_holder(&mut self, holder: HolderTag) -> bool {
        let moved = |held: &Held| held.holder == holder && held.moved;
        let moved = self.holders.iter().chain(&self.gone).any(moved);
        self.holders.retain(|held| held.holder != holder);
        self.gone.retain(|held| held.holder != holder);
        moved
    }

    /// Forgets who has let go, but for the last one, which tells a released grant from one that
    /// waits for its first holder.
    fn forget_gone(&mut self) {
        let last = self.gone.iter().map(|held| held.record).max();
        self.gone.retain(|held| held.moved || Some(held.record) == last);
    }
}
