//! Which tags exchanges were begun under, and where what they were issued is now.
//!
//! A code that is presented twice may have the provider revoke what it issued for it (RFC 6749,
//! section 4.1.2). So an exchange for a callback is known by a tag, that of its provisional account or
//! one that stands where its intent names what it presents, and a tag is used once. So is a code, as
//! far as the intent says which it is: under another tag it is not presented again.
//!
//! The fold alone cannot say so: an account that has ceased to exist leaves nothing behind. This list
//! can, for a bounded number of tags, those of the records since the snapshot that the journal was
//! opened with. Of tags that were drawn earlier it says that it does not know.

use super::Engine;
use super::accounts::Seen;
use crate::error::Error;
use crate::format::clear::{Clear, Flags};
use crate::format::value::Action;
use crate::ids::{AccountTag, CodeMark, GrantId, Lsn, OpId};
use crate::sync::{lock, read_lock};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// How many tags are known at most.
const TAGS_MAX: usize = 16_384;

/// What a record says of an exchange under a provisional tag, or of where its grant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    Begun {
        tag: AccountTag,
        code: Option<CodeMark>,
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
                let code = CodeMark::of(intent.presented);
                Self::Begun { tag, code, op: OpId(lsn.0), account }
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

/// A tag, with the code that goes by it, of which it must be known that nothing was ever begun for
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unused {
    pub(crate) tag: AccountTag,
    pub(crate) code: Option<CodeMark>,
    /// The head that there was when the tag was drawn.
    pub(crate) since: Lsn,
}

/// A tag that was used.
#[derive(Debug, Clone, Copy)]
struct Used {
    tag: AccountTag,
    code: Option<CodeMark>,
    place: Place,
}

/// The durable exchanges under provisional tags.
#[derive(Debug, Default)]
pub(crate) struct Callbacks {
    /// The oldest comes first.
    places: BTreeMap<OpId, Used>,
    by_tag: HashMap<AccountTag, OpId>,
    by_code: HashMap<CodeMark, OpId>,
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
            Trace::Begun { tag, code, op, account } => self.begin(tag, code, op, account),
            Trace::Issued { op, under, account, grant } => {
                let known = self.places.get(&op).map(|used| used.place);
                let fits = |place: Place| place.account == under && place.grant.is_none();
                if known.is_some_and(fits) {
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

    fn begin(&mut self, tag: AccountTag, code: Option<CodeMark>, op: OpId, account: AccountTag) {
        // It was first used by the first.
        if self.by_tag.contains_key(&tag) {
            return;
        }
        self.by_tag.insert(tag, op);
        if let Some(code) = code {
            self.by_code.entry(code).or_insert(op);
        }
        let place = Place { op, account, grant: GrantId::NONE };
        self.places.insert(op, Used { tag, code, place });
        self.by_place.insert((account, GrantId::NONE, op));
        if self.places.len() > TAGS_MAX {
            self.drop_oldest();
        }
    }

    /// A tag that was drawn at the dropped intent or later is another's: an intent comes after the
    /// tag that it stands under.
    fn drop_oldest(&mut self) {
        let Some((op, Used { tag, code, place })) = self.places.pop_first() else { return };
        self.by_tag.remove(&tag);
        if let Some(code) = code.filter(|code| self.by_code.get(code) == Some(&op)) {
            self.by_code.remove(&code);
        }
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
        let Some(Used { place, .. }) = self.places.get_mut(&op) else { return };
        self.by_place.remove(&(place.account, place.grant, op));
        (place.account, place.grant) = (account, grant);
        self.by_place.insert((account, grant, op));
    }

    fn find(&self, tag: AccountTag) -> Option<Place> {
        self.places.get(self.by_tag.get(&tag)?).map(|used| used.place)
    }

    /// Returns the tag that an exchange was begun under with this tag or this code.
    fn used(&self, tag: AccountTag, code: Option<CodeMark>) -> Option<AccountTag> {
        let by_code = || self.by_code.get(&code?);
        let op = self.by_tag.get(&tag).or_else(by_code)?;
        self.places.get(op).map(|used| used.tag)
    }

    /// Returns from which LSN on it is known of a tag that was drawn at `since` whether it was used,
    /// if that is later.
    fn unknown_until(&self, since: Lsn) -> Option<Lsn> {
        let in_gap = self.gaps.iter().find(|(last, next)| *last < since && since < *next);
        let gap_end = in_gap.map(|(_, next)| *next);
        gap_end.or(Some(self.from).filter(|from| since < *from))
    }

    /// Says whether a tag is known to be unused, and its code with it.
    pub(crate) fn is_unused(&self, Unused { tag, code, since }: Unused) -> bool {
        self.used(tag, code).is_none() && self.unknown_until(since).is_none()
    }
}

/// What is on its way to the disk.
#[derive(Debug, Default)]
pub(crate) struct Arriving {
    begun: HashMap<AccountTag, (OpId, AccountTag)>,
    codes: HashMap<CodeMark, (OpId, AccountTag)>,
    /// In the order of their LSNs.
    traces: VecDeque<(Lsn, Trace)>,
}

impl Arriving {
    pub(crate) fn hear(&mut self, lsn: Lsn, clear: &Clear) {
        let Some(trace) = Trace::of(lsn, clear) else { return };
        if let Trace::Begun { tag, code, op, account } = trace {
            self.begun.entry(tag).or_insert((op, account));
            if let Some(code) = code {
                self.codes.entry(code).or_insert((op, tag));
            }
        }
        self.traces.push_back((lsn, trace));
    }

    /// Returns the tag that an exchange is begun under with this tag or this code.
    pub(crate) fn used(&self, tag: AccountTag, code: Option<CodeMark>) -> Option<AccountTag> {
        let by_code = || self.codes.get(&code?).map(|(_, tag)| *tag);
        self.begun.get(&tag).map(|_| tag).or_else(by_code)
    }

    /// Returns what is durable with this LSN; it stays here until it has [landed](Self::land).
    pub(crate) fn through(&self, lsn: Lsn) -> Vec<Trace> {
        self.traces.iter().take_while(|(at, _)| *at <= lsn).map(|(_, trace)| *trace).collect()
    }

    /// Lets go of what is durable, and known to be.
    pub(crate) fn land(&mut self, through: Lsn) {
        let landed = self.traces.partition_point(|(at, _)| *at <= through);
        for (_, trace) in self.traces.drain(..landed) {
            let Trace::Begun { tag, code, op, account } = trace else { continue };
            if self.begun.get(&tag) == Some(&(op, account)) {
                self.begun.remove(&tag);
            }
            if let Some(code) = code.filter(|code| self.codes.get(code) == Some(&(op, tag))) {
                self.codes.remove(&code);
            }
        }
    }
}

impl Engine {
    /// Returns the state of an account for an exchange that is known by a tag under which nothing was
    /// ever begun, and by a code for which nothing was. A provisional account is that of its tag, and
    /// has no state then.
    pub(crate) fn foresee_unused(
        &self,
        account: AccountTag,
        unused: Unused,
    ) -> Result<Seen, Error> {
        let Unused { tag, code, since } = unused;
        let seen = self.foresee(account)?;
        let (used, unknown_until) = {
            let core = lock(&self.core);
            let callbacks = &read_lock(&self.durable).callbacks;
            // The tag itself goes before the code: what it says is the caller's own.
            let tags = || [core.arriving.used(tag, None), callbacks.used(tag, None)];
            let codes = || [core.arriving.used(tag, code), callbacks.used(tag, code)];
            let used = tags().into_iter().chain(codes()).flatten().next();
            (used, callbacks.unknown_until(since))
        };
        // What stands under the tag was begun under it, however long ago.
        let stands = account == tag && !seen.state.version.is_none();
        if let Some(account) = used.or(Some(tag).filter(|_| stands)) {
            return Err(Error::CallbackUsed { account });
        }
        let found = self.head();
        if since > found {
            let dir = self.seams.disk.path();
            return Err(Error::BehindHead { dir, expected: since, found });
        }
        match unknown_until {
            Some(from) => Err(Error::CallbackTooOld { since, from }),
            None => Ok(Seen { unused: Some(unused), ..seen }),
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
    use crate::ids::Fingerprint;

    fn tag(number: u64) -> AccountTag {
        let mut bytes = [1; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        AccountTag::from_bytes(bytes)
    }

    fn begun(op: u64) -> Trace {
        with_code(op, None)
    }

    fn with_code(op: u64, code: Option<u64>) -> Trace {
        let code =
            code.and_then(|code| CodeMark::of(Fingerprint::from_bytes(tag(code).to_bytes())));
        Trace::Begun { tag: tag(op), code, op: OpId(op), account: tag(op) }
    }

    fn unused(number: u64, since: Lsn) -> Unused {
        Unused { tag: tag(number), code: None, since }
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
        assert!(callbacks.is_unused(unused(1, Lsn(10))));
        assert!(!callbacks.is_unused(unused(1, Lsn(9))));
        assert!(callbacks.find(tag(first)).is_some());

        callbacks.hear(begun(last + 1));
        assert!(callbacks.find(tag(first)).is_none());
        assert!(callbacks.find(tag(first + 1)).is_some());
        // The one that was dropped was drawn before its intent.
        assert_eq!(callbacks.unknown_until(Lsn(first - 1)), Some(Lsn(first)));
        assert!(callbacks.is_unused(unused(1, Lsn(first))));
        assert_eq!(callbacks.places.len(), TAGS_MAX);
        assert_eq!(callbacks.by_tag.len(), TAGS_MAX);
        assert_eq!(callbacks.by_place.len(), TAGS_MAX);
    }

    #[test]
    fn a_code_is_known_under_whatever_tag_it_was_presented() {
        let mut callbacks = Callbacks::since(Lsn(10));
        let Trace::Begun { code, .. } = with_code(11, Some(500)) else { unreachable!() };
        callbacks.hear(with_code(11, Some(500)));
        assert_eq!(callbacks.used(tag(12), code), Some(tag(11)));
        assert_eq!(callbacks.used(tag(12), None), None);
        assert!(!callbacks.is_unused(Unused { code, ..unused(12, Lsn(11)) }));
        // Once the exchange is dropped, so is what was known of its code.
        let last = 12 + TAGS_MAX as u64;
        (12..last).for_each(|op| callbacks.hear(begun(op)));
        assert_eq!((callbacks.used(tag(9), code), callbacks.by_code.len()), (None, 0));
    }

    #[test]
    fn a_head_that_never_was_says_nothing() {
        let mut callbacks = Callbacks::since(Lsn(10));
        callbacks.skip(Lsn(20), Lsn(21));
        callbacks.skip(Lsn(30), Lsn(90));
        assert!(callbacks.is_unused(unused(1, Lsn(20))));
        assert!(callbacks.is_unused(unused(1, Lsn(30))));
        assert_eq!(callbacks.unknown_until(Lsn(31)), Some(Lsn(90)));
        assert_eq!(callbacks.unknown_until(Lsn(89)), Some(Lsn(90)));
        assert!(callbacks.is_unused(unused(1, Lsn(90))));
    }

    #[test]
    fn what_is_on_its_way_is_known_until_it_has_landed() {
        let mut arriving = Arriving::default();
        arriving.traces.extend([(Lsn(3), begun(3)), (Lsn(4), begun(4))]);
        arriving.begun.extend([(tag(3), (OpId(3), tag(3))), (tag(4), (OpId(4), tag(4)))]);
        assert_eq!(arriving.through(Lsn(3)), [begun(3)]);
        assert!(arriving.used(tag(3), None).is_some());
        arriving.land(Lsn(3));
        assert!(arriving.used(tag(3), None).is_none() && arriving.used(tag(4), None).is_some());
        assert_eq!(arriving.through(Lsn(9)), [begun(4)]);
    }
}
