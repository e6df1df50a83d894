//! Reads segments and a snapshot for the harvest, past what cannot be read.

use super::harvest::{Harvest, authentic, fold_entry};
use super::loss::Loss;
use super::sources::{LSN_MAX_KEPT, Sources};
use crate::engine::accounts::{advance, concerned};
use crate::engine::files::ReadSegment;
use crate::engine::keychain::Keychain;
use crate::engine::state::{AccountState, Step};
use crate::error::Error;
use crate::format::clear::Clear;
use crate::format::frame::{FRAME_BYTES_MIN, Frame};
use crate::format::name::segment_name;
use crate::format::record::Record;
use crate::format::segment::SEGMENT_BYTES_LIMIT;
use crate::format::value::OpenedReason;
use crate::ids::{AccountTag, Lsn};
use crate::inspect::Progress;
use crate::inspect::picture::Teller;
use crate::journal::OperationView;
use crate::log::scan::{AtDamage, Found, Gap, Scan, Task, scan};
use crate::log::survey::Segment;
use std::sync::Arc;

/// One way of reading a store, from one of its snapshots or from its beginning.
pub(super) struct Reading<'a, 't> {
    pub(super) harvest: Harvest,
    pub(super) keychain: &'a Keychain,
    pub(super) at_damage: AtDamage,
    pub(super) teller: &'a Teller<'t>,
}

impl Reading<'_, '_> {
    /// Reads the segments with which the snapshot says that the journal goes on, or all of them if
    /// that one is not there.
    pub(super) fn read_segments(&mut self, sources: &Sources) -> Result<(), Error> {
        let segments = sources.segments.as_slice();
        let tail = self.harvest.base.as_ref().map(|base| base.header().tail);
        let first = tail.and_then(|tail| segments.iter().position(|s| s.header.nonce == tail));
        let segments = segments.get(first.unwrap_or_default()..).unwrap_or_default();
        let total_bytes = segments.iter().map(|segment| segment.header.segment_bytes).sum();
        let (mut done_bytes, mut last_lsn) = (0, Lsn::NONE);
        for (at, segment) in segments.iter().enumerate() {
            self.teller.tell(Progress { done_bytes, total_bytes });
            done_bytes += segment.header.segment_bytes;
            let behind = segments.get(at + 1..).unwrap_or_default();
            let scan = self.read_segment(segment, last_lsn, behind)?;
            last_lsn = scan.last_lsn;
            if scan.frames > 0 {
                self.harvest.last_segment = (segment.header.nonce, scan.end);
            }
            let sealed = scan.sealed.filter(|_| behind.is_empty());
            if let Some(sealed) = sealed.filter(|_| self.at_damage == AtDamage::GoOn) {
                let name = segment_name(sealed.successor_number);
                let what = "the segment in which the journal goes on is missing";
                let first = self.harvest.last_lsn.plus(1);
                let loss = Loss::of(what, &name, 0, SEGMENT_BYTES_LIMIT).lsns(first, Lsn::NONE);
                self.harvest.losses.push(loss);
            }
        }
        Ok(())
    }

    fn read_segment(
        &mut self,
        segment: &Segment,
        last_lsn: Lsn,
        behind: &[Segment],
    ) -> Result<Scan, Error> {
        let recovered = behind.iter().filter_map(Segment::opened).find(|opened| {
            opened.predecessor == segment.header.nonce && opened.reason == OpenedReason::Recovered
        });
        let limit = recovered.map(|opened| opened.predecessor_end);
        let task = Task { header: &segment.header, last_lsn, limit, at_damage: self.at_damage };
        let read = Arc::new(ReadSegment::new(segment));
        self.harvest.files.segments.push(Arc::clone(&read));
        self.harvest.incarnation = self.harvest.incarnation.max(segment.header.incarnation);
        let mut place = Place { segment, read: &read, is_last: behind.is_empty() };
        scan::<Stopped>(&*segment.file, task, &mut |found| match found {
            Found::Frame { frame, begins } => self.frame(&mut place, frame, begins),
            Found::Gap(gap) => {
                self.gap(&place, gap);
                Ok(())
            }
            Found::Batch(_) => Ok(()),
        })
        .map_err(|stopped| stopped.of(&segment.name))
    }

    fn gap(&mut self, place: &Place<'_>, gap: Gap) {
        let first = gap.first_lsn.max(self.harvest.last_lsn.plus(1));
        let bytes = gap.to.saturating_sub(gap.from);
        let (what, last) = match gap.next_lsn {
            Some(next) => ("records here cannot be read", Lsn(next.0.saturating_sub(1))),
            None if place.is_last => {
                ("what stands behind the last record cannot be read", Lsn::NONE)
            }
            // How far its records went the next segment says.
            None => return,
        };
        if last.is_none() || first <= last {
            let loss = Loss::of(what, &place.segment.name, gap.from, bytes).lsns(first, last);
            self.harvest.losses.push(loss);
        }
    }

    fn frame(
        &mut self,
        place: &mut Place<'_>,
        frame: &Frame<'_>,
        begins: bool,
    ) -> Result<(), Stopped> {
        let record = &frame.record;
        if record.lsn().0 > LSN_MAX_KEPT {
            let what = "the record's LSN is higher than any journal counts";
            self.lose_record(what, &place.segment.name, frame.offset, record);
            return Ok(());
        }
        if let Clear::Opened(opened) = record.clear {
            let due = opened.predecessor_lsn;
            if due > self.harvest.last_lsn {
                let what = "records before this segment are missing";
                let first = self.harvest.last_lsn.plus(1);
                let loss = Loss::of(what, &place.segment.name, frame.offset, 0).lsns(first, due);
                self.harvest.losses.push(loss);
            }
            self.harvest.host = opened.host;
            self.harvest.incarnation = self.harvest.incarnation.max(opened.incarnation);
        }
        if record.lsn() <= self.harvest.last_lsn {
            return Ok(());
        }
        place.read.note_sparsely(record.lsn(), frame.offset, begins);
        self.harvest.last_lsn = record.lsn();
        if let Clear::Claimed(claimed) = record.clear {
            self.harvest.host = claimed.host;
            self.harvest.claimed = record.lsn();
        }
        if record.kind().is_structural() {
            return Ok(());
        }
        if let Err(what) = authentic(self.keychain, record) {
            self.lose_record(what, &place.segment.name, frame.offset, record);
            return Ok(());
        }
        self.fold(record).map_err(Stopped::BySink)
    }

    fn lose_record(&mut self, what: &'static str, file: &str, offset: u64, record: &Record<'_>) {
        let mut loss = Loss::of(what, file, offset, record.bytes.len() as u64);
        loss = loss.lsns(record.lsn(), record.lsn());
        loss.account = record.clear.prefix().map(|prefix| prefix.account);
        self.harvest.losses.push(loss);
    }

    fn fold(&mut self, record: &Record<'_>) -> Result<(), Error> {
        let (Some(account), other) = concerned(&record.clear) else { return Ok(()) };
        let header = record.header;
        let step = Step { lsn: header.lsn, at_ms: header.at_ms, clear: &record.clear };
        let mut state = self.take(account)?;
        let mut other_state = other.map(|other| self.take(other)).transpose()?;
        advance(step, &mut state, other_state.as_mut());
        self.harvest.states.insert(account, state);
        if let Some((other, state)) = other.zip(other_state) {
            self.harvest.states.insert(other, state);
        }
        Ok(())
    }

    fn take(&mut self, account: AccountTag) -> Result<AccountState, Error> {
        if let Some(state) = self.harvest.states.remove(&account) {
            return Ok(state);
        }
        let entry = match &self.harvest.base {
            Some(base) => base.entry(account)?,
            None => None,
        };
        Ok(entry.map(|entry| fold_entry(self.keychain, &entry).0).unwrap_or_default())
    }

    /// Looks at all accounts of the snapshot: what of them is not authentic is lost, too.
    pub(super) fn read_base(&mut self) -> Result<(), Error> {
        let Some(base) = self.harvest.base.clone() else { return Ok(()) };
        for number in 0..base.blocks() {
            let Some((item, bytes)) = base.block_bytes(number)? else { break };
            let progress = Progress { done_bytes: item.offset, total_bytes: base.bytes() };
            self.teller.tell(progress);
            for entry in base.parse_block(&item, &bytes)?.accounts() {
                let entry = base.records_of(&entry.map_err(|fault| base.bad(fault))?)?;
                let account = entry.header.account;
                let (state, failed) = fold_entry(self.keychain, &entry);
                for (what, bytes) in failed {
                    if let Ok(record) = Record::parse(&bytes) {
                        self.lose_record(what, base.name(), item.offset, &record);
                    }
                }
                if !self.harvest.states.contains_key(&account) {
                    let views = state.operations.iter().map(|o| OperationView::of(account, o));
                    self.harvest.operations.extend(views);
                }
            }
        }
        Ok(())
    }

    /// Adds the losses that no record tells of.
    pub(super) fn conclude(mut self, sources: &Sources) -> Harvest {
        let harvest = &mut self.harvest;
        if let Some(base) = &harvest.base {
            for hole in &harvest.holes {
                let Some((after, before)) = hole.accounts else { continue };
                let bytes = hole.to.saturating_sub(hole.from);
                let what = "accounts here cannot be read, unless they changed later";
                let mut loss = Loss::of(what, base.name(), hole.from, bytes);
                (loss.accounts_after, loss.accounts_before) = (after, before);
                harvest.losses.push(loss);
            }
        }
        let covered = harvest.base.as_ref().map(|base| base.header().tail_number);
        let missing = !harvest.losses.is_empty();
        let covered = covered.unwrap_or_default();
        harvest.losses.extend(sources.unreadable(covered, missing, harvest.last_lsn));
        let frame_bytes = FRAME_BYTES_MIN as u64;
        // A sparse file may be as long as it likes: records stand in a segment's length at most.
        let lost_bytes = harvest.losses.iter().map(|loss| loss.bytes.min(SEGMENT_BYTES_LIMIT));
        let lost_bytes = lost_bytes.fold(0, u64::saturating_add);
        harvest.unknown_lsns = lost_bytes / frame_bytes;
        harvest.last_number = sources.last_number;
        for state in harvest.states.values_mut() {
            state.complete();
        }
        harvest.note_operations();
        self.harvest
    }
}

/// Where a record is being read.
struct Place<'a> {
    segment: &'a Segment,
    read: &'a ReadSegment,
    is_last: bool,
}

/// Why a pass over a segment ended early.
enum Stopped {
    BySink(Error),
    ByDisk(std::io::Error),
}

impl Stopped {
    fn of(self, file: &str) -> Error {
        match self {
            Self::BySink(error) => error,
            Self::ByDisk(error) => Error::io("reading a segment", file)(error),
        }
    }
}

impl From<std::io::Error> for Stopped {
    fn from(error: std::io::Error) -> Self {
        Self::ByDisk(error)
    }
}
