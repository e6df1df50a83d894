//! One grant of an account: its newest pair, who holds it, how it ended.
//!
//! What a record means is decided in `state`; here is what it does to a grant.

use crate::format::clear::{Flags, Issued};
use crate::format::value::{Cause, Confidence};
use crate::ids::{AccountTag, Fingerprint, Generation, GrantId, HolderTag, Lsn};

/// How long an ended grant keeps its sealed secrets, so that `revive` can undo the end.
const ENDED_SECRETS_MS: u64 = 30 * 24 * 3600 * 1000;

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
    /// The record that says that the newest pair has worked.
    pub(crate) worked: Lsn,
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
    pub(crate) refresh: Fingerprint,
    pub(crate) issued_at_ms: u64,
    pub(crate) expires_at_ms: u64,
    pub(crate) adopt_by_ms: u64,
}

/// How a grant ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) record: Lsn,
    pub(crate) at_ms: u64,
    pub(crate) cause: Cause,
    pub(crate) confidence: Confidence,
}

/// Who depends on a grant, and the record that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) holder: HolderTag,
    pub(crate) record: Lsn,
    /// A `Superseded` brought the holder here. It may still be read, for the sake of the grant that
    /// it came from; so what undoes it must be kept.
    pub(crate) moved: bool,
}

impl Grant {
    /// Takes a pair, if it is newer than the one that is known.
    pub(super) fn take(&mut self, record: Lsn, issued: &Issued) {
        if issued.prefix.generation <= self.generation {
            return;
        }
        let had_refresh = !self.issued.is_none() && !self.pair.refresh.is_none();
        if had_refresh && self.pair.refresh != issued.refresh {
            self.previous = self.issued;
        }
        self.generation = issued.prefix.generation;
        self.issued = record;
        self.worked = Lsn::NONE;
        self.pair = PairFacts {
            flags: issued.prefix.flags,
            refresh: issued.refresh,
            issued_at_ms: issued.issued_at_ms,
            expires_at_ms: issued.expires_at_ms,
            adopt_by_ms: issued.adopt_by_ms,
        };
    }

    /// Names the records that fold to what is known of it, in no order.
    pub(super) fn name_records(&self, records: &mut Vec<Lsn>) {
        records.extend([self.issued, self.previous, self.worked]);
        records.extend(self.ended.map(|end| end.record));
        records.extend(self.holders.iter().chain(&self.gone).map(|held| held.record));
    }

    /// Says whether [`Grant::prune`] would drop anything.
    pub(super) fn is_prunable(&self, now_ms: u64) -> bool {
        self.gone.len() > 1 || (self.ended_long_ago(now_ms) && !self.is_tombstone())
    }

    fn ended_long_ago(&self, now_ms: u64) -> bool {
        self.ended.is_some_and(|end| now_ms.saturating_sub(end.at_ms) > ENDED_SECRETS_MS)
    }

    /// Drops what need not be kept any longer: who has let go, and the secrets if it ended long ago.
    pub(super) fn prune(&mut self, now_ms: u64) {
        if self.ended_long_ago(now_ms) {
            let homes = std::mem::take(&mut self.homes);
            *self = Self { id: self.id, ended: self.ended, homes, ..Self::default() };
        }
        self.forget_gone();
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

    pub(super) fn hold(&mut self, holder: HolderTag, record: Lsn, moved: bool) {
        let moved = self.forget_holder(holder) || moved;
        self.holders.push(Held { holder, record, moved });
    }

    pub(super) fn let_go(&mut self, holder: HolderTag, record: Lsn) {
        let moved = self.forget_holder(holder);
        self.gone.push(Held { holder, record, moved });
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
