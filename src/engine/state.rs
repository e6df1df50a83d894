//! The fold: what the records of one account add up to.
//!
//! `apply` is the only place where a record gets its meaning. It runs while the journal is
//! written, while it is replayed, and while a snapshot's entry is read; it is pure, total and
//! never fails. A state names the records that it needs by their LSNs ([`AccountState::records`]):
//! folding just these gives the same state again, and that is what a snapshot keeps.
//!
//! No secret is here: tokens stay sealed in the records that a state names.

use super::grant::{End, Grant};
use crate::format::clear::{Clear, Flags, Intent, Issued, Prefix};
use crate::format::value::{Action, Cause, Confidence, DoubtReason, RefusalClass};
use crate::ids::{AccountTag, AppTag, Fingerprint, Generation, GrantId, HolderTag, Lsn, OpId};

/// How many ended grants an account keeps when it is compacted.
const TOMBSTONES_MAX: usize = 8;

/// The folded state of one account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AccountState {
    /// LSN of the last record that changed the account.
    pub(crate) version: Lsn,
    pub(crate) app: AppTag,
    /// The tag is random: the user is not known yet.
    pub(crate) provisional: bool,
    /// In the order of their ids.
    pub(crate) grants: Vec<Grant>,
    /// Open and doubtful operations, in the order of their ids.
    pub(crate) operations: Vec<Operation>,
    /// The record that last said who the user is, if one did.
    pub(crate) identified: Lsn,
    /// Accounts from which operations moved here.
    pub(crate) homes: Vec<AccountTag>,
}

/// A call to the provider without a final outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) op: OpId,
    pub(crate) action: Action,
    pub(crate) grant: GrantId,
    pub(crate) generation: Generation,
    pub(crate) holder: HolderTag,
    pub(crate) presented: Fingerprint,
    /// A token beside the grant's chain is asked for.
    pub(crate) beside: bool,
    pub(crate) since_ms: u64,
    pub(crate) deadline_ms: u64,
    /// The record that says that it is in doubt, and why; none while it is open.
    pub(crate) doubt: Option<(Lsn, DoubtReason)>,
}

/// A record as the fold sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'a> {
    pub(crate) lsn: Lsn,
    pub(crate) at_ms: u64,
    pub(crate) clear: &'a Clear,
}

impl AccountState {
    /// Applies one record of this account, or one that moved here together with its grant.
    pub(crate) fn apply(&mut self, step: Step<'_>) {
        let existed = !self.is_empty();
        self.fold(step);
        self.vanish(existed);
    }

    /// Forgets all but the version of an account that was and is no more [F-52].
    fn vanish(&mut self, existed: bool) {
        if existed && self.is_empty() {
            *self = Self { version: self.version, ..Self::default() };
        }
    }

    fn fold(&mut self, step: Step<'_>) {
        let Some(prefix) = step.clear.prefix() else { return };
        self.version = self.version.max(step.lsn);
        match step.clear {
            Clear::Intent(intent) => self.intend(step, intent),
            Clear::Issued(issued) => {
                self.close(prefix.op);
                self.issue(step, issued, prefix.flags);
            }
            Clear::Imported(issued) => {
                let held = if issued.holder.is_none() { Flags::NONE } else { Flags::HELD };
                self.issue(step, issued, prefix.flags | Flags::IMPORTED | held);
            }
            Clear::Refused(refused) => {
                self.close(prefix.op);
                let is_over =
                    self.mentioned(prefix.grant).is_some_and(|grant| grant.ended.is_some());
                if refused.class == RefusalClass::Dead && !is_over {
                    self.end(step, prefix.grant, Cause::Unknown, Confidence::Probable);
                }
                if let Some(grant) = self.mentioned(prefix.grant) {
                    grant.refuse(step, refused);
                }
            }
            Clear::NotSent(_) | Clear::Resolved(_) => self.close(prefix.op),
            Clear::InDoubt(doubt) => {
                if let Some(operation) = self.operation_mut(prefix.op) {
                    operation.doubt = Some((step.lsn, doubt.reason));
                }
            }
            Clear::Identified(_) | Clear::Merged(_) => {
                self.identified = step.lsn;
                self.provisional = false;
            }
            Clear::Adopted(adopted) => {
                self.grant_mut(prefix.grant).hold(adopted.holder, step, false);
            }
            Clear::Released(released) => {
                self.grant_mut(prefix.grant).let_go(released.holder, step);
            }
            Clear::Superseded(superseded) => {
                if superseded.to != prefix.grant {
                    self.grant_mut(prefix.grant).let_go(superseded.holder, step);
                }
                self.grant_mut(superseded.to).hold(superseded.holder, step, true);
            }
            Clear::Ended(ended) => {
                self.close(prefix.op);
                self.end(step, prefix.grant, ended.cause, ended.confidence);
            }
            Clear::Revived(_) => self.grant_mut(prefix.grant).revive(),
            Clear::Forgotten(_) => {
                let version = self.version;
                *self = Self { version, ..Self::default() };
            }
            Clear::Worked(_) => {
                let grant = self.grant_mut(prefix.grant);
                if grant.generation == prefix.generation {
                    grant.worked = step.lsn;
                    grant.forget_previous();
                }
            }
            Clear::Activated(_) => {
                if let Some(grant) = self.mentioned(prefix.grant) {
                    grant.activate(step.lsn);
                }
            }
            Clear::Told(told) => {
                if let Some(grant) = self.mentioned(prefix.grant) {
                    grant.hear(step.lsn, told);
                }
            }
            Clear::Claimed(_) | Clear::Opened(_) | Clear::Sealed(_) | Clear::Marker(_) => {}
        }
    }

    fn intend(&mut self, step: Step<'_>, intent: &Intent) {
        let prefix = &intent.prefix;
        self.provisional |= prefix.flags.has(Flags::PROVISIONAL);
        self.app = intent.app;
        let operation = Operation {
            op: OpId(step.lsn.0),
            action: intent.action,
            grant: prefix.grant,
            generation: prefix.generation,
            holder: intent.holder,
            presented: intent.presented,
            beside: prefix.flags.has(Flags::BESIDE),
            since_ms: step.at_ms,
            deadline_ms: intent.deadline_ms,
            doubt: None,
        };
        let at = self.operations.partition_point(|other| other.op < operation.op);
        self.operations.insert(at, operation);
    }

    fn issue(&mut self, step: Step<'_>, issued: &Issued, flags: Flags) {
        let id = grant_of(step, &issued.prefix);
        self.app = issued.app;
        self.provisional |= issued.prefix.flags.has(Flags::PROVISIONAL);
        match flags.has(Flags::BESIDE) {
            true => self.grant_mut(id).take_beside(step, issued, flags),
            false => self.grant_mut(id).take(step, issued, flags),
        }
    }

    fn end(&mut self, step: Step<'_>, id: GrantId, cause: Cause, confidence: Confidence) {
        if !id.is_none() {
            let end = End { record: step.lsn, at_ms: step.at_ms, cause, confidence };
            self.grant_mut(id).ended = Some(end);
        }
    }

    /// Drops an operation that has its final outcome.
    fn close(&mut self, op: OpId) {
        self.operations.retain(|operation| operation.op != op);
    }

    /// Ends the folding of a list of records: a grant of which only a mention was left is none.
    pub(crate) fn complete(&mut self) {
        self.grants.retain(Grant::is_known);
    }

    /// Returns the grants that there are, in the order of their ids.
    pub(crate) fn known_grants(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter().filter(|grant| grant.is_known())
    }

    /// Drops an operation whose outcome stands under another account.
    pub(crate) fn close_elsewhere(&mut self, op: OpId, lsn: Lsn) {
        let existed = !self.is_empty();
        self.version = self.version.max(lsn);
        self.close(op);
        self.vanish(existed);
    }

    /// Applies a record of the tail to `account`, whose state this is. There a pair of another
    /// account only says what became of an intent here; in a snapshot it came with its grant.
    pub(crate) fn apply_tail(&mut self, account: AccountTag, step: Step<'_>) {
        match step.clear {
            Clear::Issued(issued) if issued.prefix.account != account => {
                self.close_elsewhere(issued.prefix.op, step.lsn);
            }
            _ => self.apply(step),
        }
    }

    /// Takes over a grant, or all grants and operations, of another account.
    pub(crate) fn receive(&mut self, from: AccountTag, moved: Moved, lsn: Lsn) {
        self.version = self.version.max(lsn);
        self.identified = lsn;
        self.provisional = false;
        if self.app.is_none() {
            self.app = moved.app;
        }
        if !moved.operations.is_empty() {
            self.homes.extend(moved.homes);
            self.homes.push(from);
            // Each once, or what moves back and forth would take ever more memory.
            self.homes.sort_unstable();
            self.homes.dedup();
        }
        for mut grant in moved.grants {
            if !grant.homes.contains(&from) {
                grant.homes.push(from);
            }
            let at = self.grants.partition_point(|other| other.id < grant.id);
            self.grants.insert(at, grant);
        }
        for operation in moved.operations {
            let at = self.operations.partition_point(|other| other.op < operation.op);
            self.operations.insert(at, operation);
        }
    }

    /// Gives up one grant, with the operations on it, to another account.
    pub(crate) fn give_grant(&mut self, id: GrantId, lsn: Lsn) -> Moved {
        let existed = !self.is_empty();
        self.version = self.version.max(lsn);
        let (grants, kept) = std::mem::take(&mut self.grants).into_iter().partition(|g| g.id == id);
        self.grants = kept;
        let (operations, kept) =
            std::mem::take(&mut self.operations).into_iter().partition(|o| o.grant == id);
        self.operations = kept;
        let moved = Moved { app: self.app, grants, operations, homes: self.homes.clone() };
        self.vanish(existed);
        moved
    }

    /// Gives up all grants and operations to another account.
    pub(crate) fn give_all(&mut self, lsn: Lsn) -> Moved {
        let existed = !self.is_empty();
        self.version = self.version.max(lsn);
        let moved = Moved {
            app: self.app,
            grants: std::mem::take(&mut self.grants),
            operations: std::mem::take(&mut self.operations),
            homes: std::mem::take(&mut self.homes),
        };
        self.vanish(existed);
        moved
    }

    /// Names the records that fold to this state, in order.
    pub(crate) fn records(&self) -> Vec<Lsn> {
        let mut records = vec![self.identified];
        self.grants.iter().for_each(|grant| grant.name_records(&mut records));
        for operation in &self.operations {
            records.push(Lsn(operation.op.0));
            records.extend(operation.doubt.map(|(record, _)| record));
        }
        records.retain(|lsn| !lsn.is_none());
        records.sort_unstable();
        records.dedup();
        records
    }

    /// Names the accounts that grants and operations of this one belonged to before, under which
    /// their records may still stand.
    pub(crate) fn homes(&self) -> Vec<AccountTag> {
        let of_grants = self.grants.iter().flat_map(|grant| grant.homes.iter());
        let mut homes: Vec<_> = of_grants.chain(&self.homes).copied().collect();
        homes.sort_unstable();
        homes.dedup();
        homes
    }

    /// Says whether anything of it need not be kept any longer.
    pub(crate) fn is_prunable(&self, now_ms: u64) -> bool {
        let ended = self.grants.iter().filter(|grant| grant.ended.is_some()).count();
        ended > TOMBSTONES_MAX || self.grants.iter().any(|grant| grant.is_prunable(now_ms))
    }

    /// Drops what need not be kept any longer: who has let go of a grant, the secrets of grants that
    /// ended long ago, and the oldest ended grants beyond a bound.
    pub(crate) fn prune(&mut self, now_ms: u64) {
        self.grants.iter_mut().for_each(|grant| grant.prune(now_ms));
        let ended = self.grants.iter().filter(|grant| grant.ended.is_some()).count();
        let mut surplus = ended.saturating_sub(TOMBSTONES_MAX);
        self.grants.retain(|grant| {
            let drop = surplus > 0 && grant.is_tombstone();
            surplus -= usize::from(drop);
            !drop
        });
    }

    /// Says whether nothing is left to keep.
    pub(crate) fn is_empty(&self) -> bool {
        self.known_grants().next().is_none() && self.operations.is_empty()
    }

    /// Says whether opening must know of this account at once.
    pub(crate) fn orphans(&self) -> usize {
        self.grants.iter().filter(|grant| grant.is_live() && grant.holders.is_empty()).count()
    }

    pub(crate) fn grant(&self, id: GrantId) -> Option<&Grant> {
        self.grants.iter().find(|grant| grant.id == id && !grant.issued.is_none())
    }

    pub(crate) fn operation(&self, op: OpId) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.op == op)
    }

    /// Returns the live grant whose pair is the newest.
    pub(crate) fn newest_live(&self) -> Option<&Grant> {
        self.grants.iter().filter(|grant| grant.is_live()).max_by_key(|grant| grant.issued)
    }

    /// Returns the grant that mints go to: the newest live one without a refresh token.
    pub(crate) fn standing(&self) -> Option<&Grant> {
        let without = |grant: &&Grant| grant.is_live() && !grant.pair.flags.has(Flags::REFRESH);
        self.grants.iter().filter(without).max_by_key(|grant| grant.issued)
    }

    /// Finds the live grant with this refresh token.
    pub(crate) fn by_refresh(&self, refresh: Fingerprint) -> Option<&Grant> {
        self.grants.iter().find(|grant| grant.is_live() && grant.pair.refresh == refresh)
    }

    /// Finds the live grant with this access token.
    pub(crate) fn by_access(&self, access: Fingerprint) -> Option<&Grant> {
        self.grants.iter().find(|grant| grant.is_live() && grant.pair.access == access)
    }

    /// Finds the grant that knows this token, a live one first.
    pub(crate) fn by_token(&self, token: Fingerprint) -> Option<&Grant> {
        let known =
            self.grants.iter().filter(|grant| !grant.issued.is_none() && grant.knows(token));
        known.max_by_key(|grant| (grant.is_live(), grant.issued))
    }

    /// Says whether somebody should look at it: something is open or in doubt, or a live grant has
    /// no holder.
    pub(crate) fn is_pending(&self) -> bool {
        !self.operations.is_empty() || self.orphans() > 0
    }

    fn mentioned(&mut self, id: GrantId) -> Option<&mut Grant> {
        self.grants.iter_mut().find(|grant| grant.id == id)
    }

    fn operation_mut(&mut self, op: OpId) -> Option<&mut Operation> {
        self.operations.iter_mut().find(|operation| operation.op == op)
    }

    /// A record may name a grant before the list being folded has its `Issued`, since a list keeps
    /// only the newest one; so the grant is made on first sight.
    fn grant_mut(&mut self, id: GrantId) -> &mut Grant {
        let at = self.grants.partition_point(|grant| grant.id < id);
        if self.grants.get(at).is_none_or(|grant| grant.id != id) {
            self.grants.insert(at, Grant { id, ..Grant::default() });
        }
        self.grants.get_mut(at).expect("it was there or has just been inserted")
    }
}

/// What one account gives up to another.
#[derive(Debug, Clone)]
pub(crate) struct Moved {
    app: AppTag,
    grants: Vec<Grant>,
    operations: Vec<Operation>,
    homes: Vec<AccountTag>,
}

/// An `Imported` and an orphan without an operation make a grant of their own LSN.
fn grant_of(step: Step<'_>, prefix: &Prefix) -> GrantId {
    if prefix.grant.is_none() { GrantId(step.lsn.0) } else { prefix.grant }
}
