//! What callers fill: the batch in the making, the next LSN, the state as it will be once all that
//! was submitted is durable, and the room that has been promised.
//!
//! Everything here stands under one lock, held for a copy and a fold. Bytes in flight are bounded
//! by two batches: the one being written and the one being filled.

use super::accounts::{Accounts, Next, Seen, States};
use super::callbacks::{Arriving, Unused};
use super::completion::Completion;
use super::files::RecordBytes;
use super::prepare::Prepared;
use super::state::{AccountState, Step};
use crate::error::Poison;
use crate::format::HEADER_BYTES;
use crate::format::batch::{BATCH_HEADER_BYTES, BatchBuffer};
use crate::format::clear::Clear;
use crate::ids::{AccountTag, Lsn};
use crate::sync::read_lock;
use std::collections::VecDeque;
use std::sync::{Arc, RwLock};

/// Frames in a batch at most; a few fewer than the format allows, for the structural ones.
const FRAMES_MAX: usize = 65_500;

/// What stands in a batch before a record: the batch's header and the frame's.
const FRAME_OVERHEAD_BYTES: usize = BATCH_HEADER_BYTES + 8;

/// What a batch must still take after any caller's record: `Sealed`, or `Opened` and a `Marker`.
const STRUCTURAL_BYTES_MAX: usize = 512;

/// How many segments are prepared for callers who wait for room to be promised; without them one,
/// and a second when little is left of it.
const PREPARED_MAX: usize = 2;

/// How far apart the points of a segment's index are, at least, within a batch.
const INDEX_STRIDE_BYTES: usize = 4096;

/// A record that is ready to be copied into a batch.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) clear: Clear,
    pub(crate) at_ms: u64,
    /// The encoded record, its LSN still zero.
    pub(crate) record: Vec<u8>,
    pub(crate) body_crc: u32,
    /// Which of this process's data keys sealed it.
    pub(crate) key_ordinal: u64,
}

/// What a draft does to the promised room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// It needs room of its own.
    Take,
    /// It needs room of its own, and that an outcome be promised this much.
    TakeAndPromise(u64),
    /// It uses room that was promised.
    Redeem(u64),
}

/// Why a draft could not be taken now.
#[derive(Debug)]
pub(crate) enum Declined {
    /// The account changed since the draft was made, or the data key is too old: make it anew.
    Stale,
    /// The batch is full, or segments are still being prepared: try again when there is space.
    Full,
    /// No segment can be had for now.
    NoRoom,
    /// The journal takes no more writes.
    Poisoned(Arc<Poison>),
    /// The journal is being closed.
    Closed,
}

/// The batch in the making.
#[derive(Debug)]
pub(crate) struct Fill {
    pub(crate) buffer: BatchBuffer,
    /// The accounts that its records concern, as they will be once it is durable.
    pub(crate) states: States,
    pub(crate) frames: usize,
    pub(crate) last_lsn: Lsn,
    /// Where frames begin in the batch, every few KiB, for the segment's index.
    pub(crate) marks: Vec<(Lsn, usize)>,
    pub(crate) completion: Arc<Completion>,
    /// The last `Claimed` in it, or none.
    pub(crate) claimed: Lsn,
    /// When its newest record was made.
    pub(crate) newest_ms: u64,
    /// Room that its records were charged.
    pub(crate) charged: u64,
    /// The caller records in it, as opposed to structural ones.
    pub(crate) callers: usize,
    /// It begins with the `Opened` of a segment, which waits for company: the segment is not needed
    /// yet.
    pub(crate) waits: bool,
}

impl Fill {
    pub(crate) fn new(buffer: BatchBuffer) -> Self {
        Self {
            buffer,
            states: States::new(),
            frames: 0,
            last_lsn: Lsn::NONE,
            marks: Vec::new(),
            completion: Arc::default(),
            claimed: Lsn::NONE,
            newest_ms: 0,
            charged: 0,
            callers: 0,
            waits: false,
        }
    }

    /// Copies a record in.
    pub(crate) fn push(&mut self, lsn: Lsn, record: &[u8], crc: u32) {
        let at = self.buffer.len();
        let stride = self.marks.last().map(|(_, last)| at.saturating_sub(*last));
        if stride.is_none_or(|stride| stride >= INDEX_STRIDE_BYTES) {
            self.marks.push((lsn, at));
        }
        self.buffer.push(lsn, record, crc).expect("the batch was checked to have room");
        self.frames += 1;
        self.last_lsn = lsn;
    }
}

/// How far closing has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    No,
    /// Only outcomes of operations that were begun are taken.
    Draining,
    Closed,
}

/// What stands under the callers' lock.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) fill: Fill,
    pub(crate) next_lsn: Lsn,
    /// The accounts that the batch being written concerns, as they will be once it is durable.
    pub(crate) in_flight: Arc<States>,
    /// What the records in flight say of exchanges under provisional tags.
    pub(crate) arriving: Arriving,
    /// Pairs in flight, in the order of their LSNs: no file has them yet, and the next operation
    /// on their grant needs them to begin with.
    pub(crate) pairs: VecDeque<(Lsn, RecordBytes)>,
    pub(crate) prepared: VecDeque<Prepared>,
    /// No segment could be prepared lately, for want of space or of descriptors.
    pub(crate) no_room: bool,
    /// Callers found no room since a segment was prepared.
    pub(crate) room_wanted: bool,
    /// What is left in the segment that is being written.
    pub(crate) tail_left: u64,
    /// Counts the segments that this process has begun to write; also names their data keys.
    pub(crate) tail_ordinal: u64,
    /// Room promised to outcomes that have not come yet.
    pub(crate) promised: u64,
    /// Room charged to records in flight.
    pub(crate) charged: u64,
    pub(crate) fate: Option<Arc<Poison>>,
    pub(crate) closing: Closing,
    /// A compaction wants a roll-over, even of an empty batch, once what was promised fits behind
    /// it.
    pub(crate) roll_wanted: bool,
    /// The segment's rest is too short for what comes.
    pub(crate) roll_needed: bool,
    /// The last batch was a marker, or there was none: nothing needs proof.
    pub(crate) proven: bool,
    pub(crate) limits: Limits,
}

/// The sizes that a store works with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) block_bytes: u32,
    pub(crate) batch_bytes_max: u32,
    pub(crate) segment_bytes: u64,
    /// The largest frame of an outcome.
    pub(crate) outcome_bytes_max: u32,
}

impl Limits {
    /// Returns the blocks that a frame needs if it is written in a batch of its own, in bytes.
    pub(crate) fn charge(&self, record_bytes: usize) -> u64 {
        let bytes = record_bytes.saturating_add(FRAME_OVERHEAD_BYTES + STRUCTURAL_BYTES_MAX);
        (bytes as u64).next_multiple_of(u64::from(self.block_bytes))
    }

    /// Returns what an outcome is promised.
    pub(crate) fn promise(&self) -> u64 {
        self.charge(self.outcome_bytes_max as usize)
    }

    /// Returns the room that a record of this length asks for.
    pub(crate) fn asked(&self, room: Room, record_bytes: usize) -> u64 {
        match room {
            Room::Take => self.charge(record_bytes),
            Room::TakeAndPromise(promise) => self.charge(record_bytes).saturating_add(promise),
            Room::Redeem(_) => 0,
        }
    }

    /// Returns what a prepared segment is good for, the end that a roll-over may leave unused
    /// counted off.
    pub(crate) fn usable(&self, segment_bytes: u64) -> u64 {
        segment_bytes.saturating_sub(4096).saturating_sub(self.roll_below())
    }

    /// Returns what must be left in a segment for it not to be rolled over.
    pub(crate) fn roll_below(&self) -> u64 {
        u64::from(self.batch_bytes_max) + u64::from(self.block_bytes)
    }
}

impl Core {
    pub(crate) fn new(limits: Limits, next_lsn: Lsn, tail_left: u64) -> Self {
        Self {
            fill: Fill::new(BatchBuffer::new(limits.batch_bytes_max)),
            next_lsn,
            in_flight: Arc::default(),
            arriving: Arriving::default(),
            pairs: VecDeque::new(),
            prepared: VecDeque::new(),
            no_room: false,
            room_wanted: false,
            tail_left,
            tail_ordinal: 0,
            promised: 0,
            charged: 0,
            fate: None,
            closing: Closing::No,
            roll_wanted: false,
            roll_needed: false,
            proven: false,
            limits,
        }
    }

    /// Says whether the journal takes no new operations any more.
    pub(crate) fn is_over(&self) -> bool {
        self.fate.is_some() || self.closing != Closing::No
    }

    /// Returns the room, in blocks written ahead, that nobody has been promised yet.
    pub(crate) fn free(&self) -> u64 {
        let ahead: u64 =
            self.prepared.iter().map(|prepared| self.limits.usable(prepared.segment_bytes())).sum();
        let tail = if self.prepared.is_empty() {
            self.tail_left.saturating_sub(u64::from(self.limits.block_bytes))
        } else {
            self.tail_left.saturating_sub(self.limits.roll_below())
        };
        (tail + ahead).saturating_sub(self.promised).saturating_sub(self.charged)
    }

    /// Says whether another segment should be prepared.
    pub(crate) fn wants_segment(&self) -> bool {
        self.prepared.is_empty()
            || self.free() < 2 * self.limits.roll_below()
            || (self.room_wanted && self.prepared.len() < PREPARED_MAX)
            || (self.roll_wanted && !self.may_roll())
    }

    /// Says whether all that was promised, and what is in flight, would have room if the rest of
    /// the segment that is being written were given up.
    pub(crate) fn may_roll(&self) -> bool {
        let behind = match self.prepared.front() {
            None => return false,
            // It would be the last one, of which nothing is given up until there is another.
            Some(next) if self.prepared.len() == 1 => next
                .segment_bytes()
                .saturating_sub(HEADER_BYTES as u64 + u64::from(self.limits.block_bytes)),
            Some(_) => {
                self.prepared.iter().map(|next| self.limits.usable(next.segment_bytes())).sum()
            }
        };
        self.promised.saturating_add(self.charged) <= behind
    }

    /// Says whether a state that a caller worked with is still the newest.
    fn is_current(&self, durable: &RwLock<Accounts>, seen: &Seen) -> bool {
        let durable = read_lock(durable);
        let is_unused = |unused: Unused| {
            let arriving = self.arriving.used(unused.tag, unused.code);
            arriving.is_none() && durable.callbacks.is_unused(unused)
        };
        if !seen.unused.is_none_or(is_unused) {
            return false;
        }
        match self.foreseen(seen.account) {
            // A compaction takes from states what its snapshot does not keep.
            Some(state) => state.version == seen.state.version && durable.epoch() == seen.epoch,
            None => durable.is_current(seen),
        }
    }

    /// Returns an account as it will be, if a record in flight concerns it.
    pub(crate) fn foreseen(&self, account: AccountTag) -> Option<&Arc<AccountState>> {
        self.fill.states.get(&account).or_else(|| self.in_flight.get(&account))
    }

    /// Takes a draft into the batch. `seen` are the states that it was made from, of all accounts
    /// that it concerns, and `next` copies of them to fold it into, made outside the lock.
    pub(crate) fn submit(
        &mut self,
        durable: &RwLock<Accounts>,
        draft: &Draft,
        room: Room,
        seen: &[Seen],
        next: Next,
    ) -> Result<(Lsn, Arc<Completion>), Declined> {
        self.admits(room)?;
        // A frame may stand one segment further than where the tail is now, and its key must be
        // among the three older ones of that segment's header [F-16].
        if draft.key_ordinal + 2 < self.tail_ordinal
            || !seen.iter().all(|seen| self.is_current(durable, seen))
        {
            return Err(Declined::Stale);
        }
        self.admit(draft.record.len(), room)?;
        let lsn = self.take_lsn();
        let step = Step { lsn, at_ms: draft.at_ms, clear: &draft.clear };
        self.fill.newest_ms = self.fill.newest_ms.max(draft.at_ms);
        if matches!(draft.clear, Clear::Claimed(_)) {
            self.fill.claimed = lsn;
        }
        self.fill.states.extend(next.advance(step));
        self.arriving.hear(lsn, &draft.clear);
        self.fill.push(lsn, &draft.record, draft.body_crc);
        self.fill.callers += 1;
        self.proven = false;
        Ok((lsn, Arc::clone(&self.fill.completion)))
    }

    /// Says whether there is room for a record that is still to be drafted; it is asked again, with
    /// the record, when that is submitted.
    pub(crate) fn admits(&mut self, room: Room) -> Result<(), Declined> {
        if let Some(poison) = &self.fate {
            return Err(Declined::Poisoned(Arc::clone(poison)));
        }
        match (self.closing, room) {
            (Closing::No, _) | (Closing::Draining, Room::Redeem(_)) => self.reserve(room, 0),
            _ => Err(Declined::Closed),
        }
    }

    /// Says whether there is room; where there is none, more of it will be prepared.
    fn reserve(&mut self, room: Room, record_bytes: usize) -> Result<(), Declined> {
        if self.limits.asked(room, record_bytes) <= self.free() {
            return Ok(());
        }
        self.room_wanted = true;
        Err(if self.no_room { Declined::NoRoom } else { Declined::Full })
    }

    fn admit(&mut self, record_bytes: usize, room: Room) -> Result<(), Declined> {
        let needed =
            self.fill.buffer.len() + record_bytes + FRAME_OVERHEAD_BYTES + STRUCTURAL_BYTES_MAX;
        if self.fill.frames >= FRAMES_MAX || needed > self.limits.batch_bytes_max as usize {
            return Err(Declined::Full);
        }
        if needed as u64 > self.tail_left {
            // The segment's rest is too short for this batch: what is in it goes first, and then
            // the journal goes on in the next segment as soon as there is one.
            self.roll_needed = !self.prepared.is_empty();
            return Err(Declined::Full);
        }
        self.reserve(room, record_bytes)?;
        let charge = self.limits.charge(record_bytes);
        match room {
            Room::TakeAndPromise(promise) => self.promised += promise,
            Room::Redeem(promise) => self.promised = self.promised.saturating_sub(promise),
            Room::Take => {}
        }
        self.charged += charge;
        self.fill.charged += charge;
        Ok(())
    }

    /// Returns a pair that is in flight.
    pub(crate) fn pair_in_flight(&self, lsn: Lsn) -> Option<RecordBytes> {
        let at = self.pairs.binary_search_by_key(&lsn, |(lsn, _)| *lsn).ok()?;
        self.pairs.get(at).map(|(_, bytes)| Arc::clone(bytes))
    }

    /// Takes the next LSN.
    pub(crate) fn take_lsn(&mut self) -> Lsn {
        let lsn = self.next_lsn;
        self.next_lsn = lsn.plus(1);
        lsn
    }
}
