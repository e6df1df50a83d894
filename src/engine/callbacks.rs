//! Which tags exchanges were begun under, and where what they were issued is now.
//!
//! A code that is presented twice may have the provider revoke what it issued for it (RFC 6749,
//! section 4.1.2). So an exchange for a callback is known by a tag, that of its provisional account or
//! one that stands where its intent names what it presents, and a tag is used once. The fold alone cannot say so: an account that has
//! ceased to exist leaves nothing behind. This list can, for a bounded number of tags, those of the
//! records since the snapshot that the journal was opened with. Of tags that were drawn earlier it
//! says that it does not know.

use super::Engine;
use super::accounts::Seen;
use crate::error::Error;
use crate::format::clear::{Clear, Flags};
use crate::format::value::Action;
use crate::ids::{AccountTag, GrantId, Lsn, OpId};
use crate::sync::{lock, read_lock};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// How many tags are known at most.
const TAGS_MAX: usize = 16_384;

/// What a record says of an exchange under a provisional tag, or of where its grant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    Begun {
        tag: AccountTag,
        op: OpId,
        account: AccountTag,
    },
    /// A pair for an operation that was begun under `under`; whether that is one of these, the list
    /// knows.
    Issued {
        op: OpId,
        under: AccountTag,
        account: AccountTag,
        grant: GrantId,
    },
    Identified {
        from: AccountTag,
        grant: GrantId,
        to: AccountTag,
    },
    Merged {
        from: AccountTag,
        to: AccountTag,
    },
}

impl Trace {
    pub(crate) fn of(lsn: Lsn, clear: &Clear) -> Option<Self> {
        Some(match clear {
            Clear::Intent(intent) if intent.action == Action::Exchange => {
                let account = intent.prefix.account;
                let tag = match intent.prefix.flags.has(Flags::PROVISIONAL) {
                    true => account,
                    // The user's own account stands there, and the tag in this place.
                    false => AccountTag::from_bytes(intent.presented.to_bytes()),
                };
                if tag.is_none() {
                    return None;
                }
                Self::Begun { tag, op: OpId(lsn.0), account }
            }
            Clear::Issued(issued) => {
                let prefix = &issued.prefix;
                // An orphan names no operation, but its fence is the intent. It stands where its
                // ticket stood or, if its user was known, where nothing leads back to the tag: it
                // may be of another store, whose LSNs mean nothing here.
                let is_orphan = prefix.op.is_none();
                let moved = !issued.from.is_none();
                Self::Issued {
                    op: if is_orphan { OpId(issued.fence.0) } else { prefix.op },
                    under: if moved { issued.from } else { prefix.account },
                    account: prefix.account,
                    grant: if prefix.grant.is_none() { GrantId(lsn.0) } else { prefix.grant },
                }
            }
            Clear::Identified(identified) => Self::Identified {
                from: identified.prefix.account,
                grant: identified.prefix.grant,
                to: identified.to,
            },
            Clear::Merged(merged) => Self::Merged { from: merged.prefix.account, to: merged.to },
            _ => return None,
        })
    }
}

/// Where an exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) op: OpId,
    pub(crate) account: AccountTag,
    /// None until a pair was issued.
    pub(crate) grant: GrantId,
}

/// The durable exchanges under provisional tags.
#[derive(Debug, Default)]
pub(crate) struct Callbacks {
    /// The oldest comes first.
    places: BTreeMap<OpId, (AccountTag, Place)>,
    by_tag: HashMap<AccountTag, OpId>,
    /// To find what moves.
    by_place: BTreeSet<(AccountTag, GrantId, OpId)>,
    /// Of tags that were drawn before this nothing is known for sure.
    from: Lsn,
    /// LSNs between these two were given to no record that there is.
    gaps: Vec<(Lsn, Lsn)>,
}

impl Callbacks {
    /// Begins with nothing, behind a snapshot.
    pub(crate) fn since(snapshot: Lsn) -> Self {
        Self { from: snapshot, ..Self::default() }
    }

    /// Notes that the journal goes on at an LSN that does not follow. What a tag was drawn in
    /// between for is lost, if it ever was.
    pub(crate) fn skip(&mut self, last: Lsn, next: Lsn) {
        if last.plus(1) < next {
            self.gaps.push((last, next));
        }
    }

    /// Takes a record in, in the order of LSNs.
    pub(crate) fn hear(&mut self, trace: Trace) {
        match trace {
            Trace::Begun { tag, op, account } => self.begin(tag, op, account),
            Trace::Issued { op, under, account, grant } => {
                let known = self.places.get(&op).copied();
                let fits = |(_, place): &(AccountTag, Place)| {
                    place.account == under && place.grant.is_none()
                };
                if known.as_ref().is_some_and(fits) {
                    self.relocate(op, account, grant);
                }
            }
            Trace::Identified { from, grant, to } => {
                let first = (from, grant, OpId::NONE);
                self.relocate_all(first, (from, grant, OpId(u64::MAX)), to);
            }
            Trace::Merged { from, to } => {
                let first = (from, GrantId::NONE, OpId::NONE);
                self.relocate_all(first, (from, GrantId(u64::MAX), OpId(u64::MAX)), to);
            }
        }
    }

    fn begin(&mut self, tag: AccountTag, op: OpId, account: AccountTag) {
        // It was first used by the first.
        if self.by_tag.contains_key(&tag) {
            return;
        }
        self.by_tag.insert(tag, op);
        self.places.insert(op, (tag, Place { op, account, grant: GrantId::NONE }));
        self.by_place.insert((account, GrantId::NONE, op));
        if self.places.len() > TAGS_MAX {
            self.drop_oldest();
        }
    }

    /// A tag that was drawn at the dropped intent or later is another's: an intent comes after the
    /// tag that it stands under.
    fn drop_oldest(&mut self) {
        let Some((op, (tag, place))) = self.places.pop_first() else { return };
        self.by_tag.remove(&tag);
        self.by_place.remove(&(place.account, place.grant, op));
        self.from = self.from.max(Lsn(op.0));
    }

    fn relocate_all(
        &mut self,
        first: (AccountTag, GrantId, OpId),
        last: (AccountTag, GrantId, OpId),
        to: AccountTag,
    ) {
        let found: Vec<_> = self.by_place.range(first..=last).copied().collect();
        for (_, grant, op) in found {
            self.relocate(op, to, grant);
        }
    }

    fn relocate(&mut self, op: OpId, account: AccountTag, grant: GrantId) {
        let Some((_, place)) = self.places.get_mut(&op) else { return };
        self.by_place.remove(&(place.account, place.grant, op));
        (place.account, place.grant) = (account, grant);
        self.by_place.insert((account, grant, op));
    }

    fn find(&self, tag: AccountTag) -> Option<Place> {
        self.places.get(self.by_tag.get(&tag)?).map(|(_, place)| *place)
    }

    /// Returns from which LSN on it is known of a tag that was drawn at `since` whether it was used,
    /// if that is later.
    fn unknown_until(&self, since: Lsn) -> Option<Lsn> {
        let in_gap = self.gaps.iter().find(|(last, next)| *last < since && since < *next);
        let gap_end = in_gap.map(|(_, next)| *next);
        gap_end.or(Some(self.from).filter(|from| since < *from))
    }

    /// Says whether a tag that was drawn at `since` is known to be unused.
    pub(crate) fn is_unused(&self, tag: AccountTag, since: Lsn) -> bool {
        !self.by_tag.contains_key(&tag) && self.unknown_until(since).is_none()
    }
}

/// What is on its way to the disk.
#[derive(Debug, Default)]
pub(crate) struct Arriving {
    begun: HashMap<AccountTag, (OpId, AccountTag)>,
    /// In the order of their LSNs.
    traces: VecDeque<(Lsn, Trace)>,
}

impl Arriving {
    pub(crate) fn hear(&mut self, lsn: Lsn, clear: &Clear) {
        let Some(trace) = Trace::of(lsn, clear) else { return };
        if let Trace::Begun { tag, op, account } = trace {
            self.begun.entry(tag).or_insert((op, account));
        }
        self.traces.push_back((lsn, trace));
    }

    pub(crate) fn has(&self, tag: AccountTag) -> bool {
        self.begun.contains_key(&tag)
    }

    /// Returns what is durable with this LSN; it stays here until it has [landed](Self::land).
    pub(crate) fn through(&self, lsn: Lsn) -> Vec<Trace> {
        self.traces.iter().take_while(|(at, _)| *at <= lsn).map(|(_, trace)| *trace).collect()
    }

    /// Lets go of what is durable, and known to be.
    pub(crate) fn land(&mut self, through: Lsn) {
        let landed = self.traces.partition_point(|(at, _)| *at <= through);
        for (_, trace) in self.traces.drain(..landed) {
            if let Trace::Begun { tag, op, account } = trace
                && self.begun.get(&tag) == Some(&(op, account))
            {
                self.begun.remove(&tag);
            }
        }
    }
}

impl Engine {
    /// Returns the state of an account for an exchange that is known by `tag`, under which nothing was
    /// ever begun; `since` is the head that there was when the tag was drawn. A provisional account
    /// is that of its tag, and has no state then.
    pub(crate) fn foresee_unused(
        &self,
        account: AccountTag,
        tag: AccountTag,
        since: Lsn,
    ) -> Result<Seen, Error> {
        let seen = self.foresee(account)?;
        let (used, unknown_until) = {
            let core = lock(&self.core);
            let callbacks = &read_lock(&self.durable).callbacks;
            let used = core.arriving.has(tag) || callbacks.by_tag.contains_key(&tag);
            (used, callbacks.unknown_until(since))
        };
        // What stands under the tag was begun under it, however long ago.
        if used || (account == tag && !seen.state.version.is_none()) {
            return Err(Error::CallbackUsed { account: tag });
        }
        let found = self.head();
        if since > found {
            let dir = self.seams.disk.path();
            return Err(Error::BehindHead { dir, expected: since, found });
        }
        match unknown_until {
            Some(from) => Err(Error::CallbackTooOld { since, from }),
            None => Ok(Seen { unused_since: Some((tag, since)), ..seen }),
        }
    }

    /// Says where the exchange is that was begun under a tag.
    pub(crate) fn redeemed(&self, tag: AccountTag) -> Result<Option<Place>, Error> {
        let known = {
            let core = lock(&self.core);
            let begun = core.arriving.begun.get(&tag).copied();
            let arriving =
                || begun.map(|(op, account)| Place { op, account, grant: GrantId::NONE });
            read_lock(&self.durable).callbacks.find(tag).or_else(arriving)
        };
        if known.is_some() {
            return Ok(known);
        }
        // It is older than the list, and may still stand where it was begun.
        let state = self.look_up(tag)?;
        if !state.provisional {
            return Ok(None);
        }
        let open = state.operations.iter().find(|open| open.action == Action::Exchange);
        let open = open.map(|open| Place { op: open.op, account: tag, grant: GrantId::NONE });
        // A grant is named by the intent that made it, unless it is an orphan.
        let mut grants = state.known_grants().filter(|grant| !grant.pair.flags.has(Flags::ORPHAN));
        let issued =
            || grants.next().map(|g| Place { op: OpId(g.id.0), account: tag, grant: g.id });
        Ok(open.or_else(issued))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(number: u64) -> AccountTag {
        let mut bytes = [1; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        AccountTag::from_bytes(bytes)
    }

    fn begun(op: u64) -> Trace {
        Trace::Begun { tag: tag(op), op: OpId(op), account: tag(op) }
    }

    fn issued(op: u64, under: AccountTag, account: AccountTag, grant: u64) -> Trace {
        Trace::Issued { op: OpId(op), under, account, grant: GrantId(grant) }
    }

    fn place(op: u64, account: AccountTag, grant: u64) -> Option<Place> {
        Some(Place { op: OpId(op), account, grant: GrantId(grant) })
    }

    #[test]
    fn what_moves_is_followed() {
        let mut callbacks = Callbacks::since(Lsn(10));
        let (user, renamed) = (tag(100), tag(101));
        callbacks.hear(begun(11));
        callbacks.hear(begun(12));
        assert_eq!(callbacks.find(tag(11)), place(11, tag(11), 0));
        callbacks.hear(issued(11, tag(11), tag(11), 11));
        callbacks.hear(issued(12, tag(12), user, 7));
        callbacks.hear(Trace::Identified { from: tag(11), grant: GrantId(11), to: user });
        assert_eq!(callbacks.find(tag(11)), place(11, user, 11));
        // Another grant of the user, of which nothing is known here, moves alone.
        callbacks.hear(Trace::Identified { from: user, grant: GrantId(8), to: renamed });
        assert_eq!(callbacks.find(tag(12)), place(12, user, 7));
        callbacks.hear(Trace::Merged { from: user, to: renamed });
        assert_eq!(callbacks.find(tag(11)), place(11, renamed, 11));
        assert_eq!(callbacks.find(tag(12)), place(12, renamed, 7));
    }

    /// An orphan of another store names an LSN of that store.
    #[test]
    fn a_pair_of_another_exchange_is_not_taken_for_its_own() {
        let mut callbacks = Callbacks::since(Lsn(10));
        callbacks.hear(begun(11));
        callbacks.hear(issued(11, tag(99), tag(99), 30));
        assert_eq!(callbacks.find(tag(11)), place(11, tag(11), 0));
        callbacks.hear(issued(11, tag(11), tag(11), 31));
        // Nor is a second pair, whatever it is.
        callbacks.hear(issued(11, tag(11), tag(11), 32));
        assert_eq!(callbacks.find(tag(11)), place(11, tag(11), 31));
    }

    #[test]
    fn what_is_dropped_may_have_been_used() {
        let mut callbacks = Callbacks::since(Lsn(10));
        let first = 21;
        let last = first + TAGS_MAX as u64 - 1;
        (first..=last).for_each(|op| callbacks.hear(begun(op)));
        // Drawn right behind the snapshot, and never used.
        assert!(callbacks.is_unused(tag(1), Lsn(10)));
        assert!(!callbacks.is_unused(tag(1), Lsn(9)));
        assert!(callbacks.find(tag(first)).is_some());

        callbacks.hear(begun(last + 1));
        assert!(callbacks.find(tag(first)).is_none());
        assert!(callbacks.find(tag(first + 1)).is_some());
        // The one that was dropped was drawn before its intent.
        assert_eq!(callbacks.unknown_until(Lsn(first - 1)), Some(Lsn(first)));
        assert!(callbacks.is_unused(tag(1), Lsn(first)));
        assert_eq!(callbacks.places.len(), TAGS_MAX);
        assert_eq!(callbacks.by_tag.len(), TAGS_MAX);
        assert_eq!(callbacks.by_place.len(), TAGS_MAX);
    }

    #[test]
    fn a_head_that_never_was_says_nothing() {
        let mut callbacks = Callbacks::since(Lsn(10));
        callbacks.skip(Lsn(20), Lsn(21));
        callbacks.skip(Lsn(30), Lsn(90));
        assert!(callbacks.is_unused(tag(1), Lsn(20)));
        assert!(callbacks.is_unused(tag(1), Lsn(30)));
        assert_eq!(callbacks.unknown_until(Lsn(31)), Some(Lsn(90)));
        assert_eq!(callbacks.unknown_until(Lsn(89)), Some(Lsn(90)));
        assert!(callbacks.is_unused(tag(1), Lsn(90)));
    }

    #[test]
    fn what_is_on_its_way_is_known_until_it_has_landed() {
        let mut arriving = Arriving::default();
        arriving.traces.extend([(Lsn(3), begun(3)), (Lsn(4), begun(4))]);
        arriving.begun.extend([(tag(3), (OpId(3), tag(3))), (tag(4), (OpId(4), tag(4)))]);
        assert_eq!(arriving.through(Lsn(3)), [begun(3)]);
        assert!(arriving.has(tag(3)));
        arriving.land(Lsn(3));
        assert!(!arriving.has(tag(3)) && arriving.has(tag(4)));
        assert_eq!(arriving.through(Lsn(9)), [begun(4)]);
    }
}
