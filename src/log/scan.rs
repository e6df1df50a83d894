//! The one decode loop: reads a segment's batches in order, as far as they are valid.
//!
//! Opening, verifying, replaying and salvaging all come through here. It implements
//! journal-format.md, section 11, steps 4 and 5, and never writes.

use super::window::{Window, last_nonzero};
use crate::disk::DiskFile;
use crate::format::HEADER_BYTES;
use crate::format::batch::{BATCH_HEADER_BYTES, BatchHeader, Geometry};
use crate::format::clear::{Clear, Opened, Sealed};
use crate::format::frame::{Expect, FaultKind, Frame, Frames};
use crate::format::segment::{BLOCK_BYTES_MIN, SegmentHeader};
use crate::format::value::MarkerReason;
use crate::ids::Lsn;
use crate::log::verdict::Fault;
use std::io;

/// Where a segment's batches begin.
pub(super) const FIRST_BATCH_AT: u64 = HEADER_BYTES as u64;

/// What a pass over a segment found.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Behind the last valid frame.
    pub(crate) end: u64,
    /// Where the next batch or frame should stand and none does: the X of section 12. Nothing is
    /// said of the padding behind a whole batch, so this is not `end`.
    pub(crate) fault_at: u64,
    /// `fault_at` lies in a batch whose header is valid: that batch was not written whole.
    pub(crate) in_batch: bool,
    /// The last LSN before `end`; that before the segment if it has no frame.
    pub(crate) last_lsn: Lsn,
    /// The highest `durable_through` of its batches.
    pub(crate) durable_through: u64,
    pub(crate) opened: Option<Opened>,
    /// `Sealed`, if that is the last frame of a whole batch.
    pub(crate) sealed: Option<Sealed>,
    /// The marker, if that is the last frame.
    pub(crate) marker: Option<MarkerReason>,
    pub(crate) fault: Fault,
    pub(crate) batches: u64,
    pub(crate) frames: u64,
}

/// What a pass comes upon, in order.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// A valid frame; `begins` says that none stands directly before it in its batch.
    Frame { frame: &'a Frame<'a>, begins: bool },
    /// A batch whose frames were all valid and have been told.
    Batch(WholeBatch<'a>),
    /// Bytes that cannot be read; only a pass that goes on behind damage comes upon them.
    Gap(Gap),
}

/// A batch all of whose frames are valid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WholeBatch<'a> {
    pub(crate) header: &'a BatchHeader,
    /// Where it stands in its segment.
    pub(crate) offset: u64,
    /// From its header on, without padding.
    pub(crate) bytes: &'a [u8],
}

/// Bytes between readable ones that are neither valid nor zero to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    /// Where the next batch or frame should have stood.
    pub(crate) from: u64,
    /// Where the next valid frame or batch stands, or behind the last byte that is not zero.
    pub(crate) to: u64,
    /// The LSN that was due.
    pub(crate) first_lsn: Lsn,
    /// The LSN of what stands behind, if anything does.
    pub(crate) next_lsn: Option<Lsn>,
}

/// What a pass does at the first place that is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtDamage {
    /// Ends there, for the verdict to be decided.
    Stop,
    /// Goes on at the next place that is valid, to show or to save what stands behind.
    GoOn,
}

/// What a pass is asked to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task<'a> {
    pub(crate) header: &'a SegmentHeader,
    /// The LSN before the segment.
    pub(crate) last_lsn: Lsn,
    /// Where the segment is known to end.
    pub(crate) limit: Option<u64>,
    pub(crate) at_damage: AtDamage,
}

/// Reads the batches of a segment up to the limit, or as far as they are valid, and tells `sink`
/// what it finds, which may stop the pass by an error of its own.
pub(crate) fn scan<E: From<io::Error>>(
    file: &dyn DiskFile,
    task: Task<'_>,
    sink: &mut dyn FnMut(Found<'_>) -> Result<(), E>,
) -> Result<Scan, E> {
    let header = task.header;
    let geometry = header.geometry();
    let mut found = Scan::new(task.last_lsn);
    let mut expect = Expect::FirstOfSegment;
    let mut window = Window::new(file)?;
    // A header may claim more than there is, and nothing stands there to look for.
    let segment_end = header.segment_bytes.min(window.end());
    let limit = task.limit.unwrap_or(segment_end).min(segment_end);
    let mut offset = FIRST_BATCH_AT;
    while offset < limit && found.sealed.is_none() {
        found.fault_at = offset;
        let head = window.at(offset, BATCH_HEADER_BYTES)?;
        let batch = BatchHeader::parse(head, &geometry, offset);
        found.in_batch = batch.is_some();
        let over = match &batch {
            Some(batch) => {
                let bytes = window.at(offset, length_of(batch))?;
                let frames = Frames::new(bytes, batch, header.nonce, offset, expect);
                found.batches += 1;
                found.durable_through = found.durable_through.max(batch.durable_through);
                found.fault_at = frames.offset();
                let (read, next) = found.read_batch(frames, limit, task.at_damage, sink)?;
                expect = next;
                if read == Read::Whole {
                    sink(Found::Batch(WholeBatch { header: batch, offset, bytes }))?;
                }
                read != Read::Broken
            }
            None => false,
        };
        if over {
            offset = geometry.next_block(found.end);
            (found.fault_at, found.in_batch) = (offset, false);
            continue;
        }
        if task.at_damage == AtDamage::Stop {
            break;
        }
        let behind = geometry.next_block(found.end.max(offset.saturating_add(1)));
        let Resumed { next, gap } = found.resume(&mut window, &geometry, behind, limit)?;
        if let Some(gap) = gap {
            sink(Found::Gap(gap))?;
        }
        let Some((at, next_expect)) = next else { break };
        (offset, expect) = (at, next_expect);
    }
    // A batch that was not written whole seals nothing [F-26].
    found.sealed = found.sealed.filter(|_| !found.in_batch);
    Ok(found)
}

pub(super) fn length_of(batch: &BatchHeader) -> usize {
    usize::try_from(batch.length).unwrap_or(usize::MAX)
}

fn fault_of(kind: FaultKind) -> Fault {
    match kind {
        FaultKind::Torn => Fault::Invalid,
        FaultKind::OutOfOrder { .. } => Fault::OutOfOrder,
        FaultKind::UnknownKind(_) | FaultKind::Malformed(_) => Fault::Foreign,
    }
}

/// What stands behind damage.
struct Resumed {
    /// The next valid batch, and what is expected there.
    next: Option<(u64, Expect)>,
    /// What lies before it, if that is more than padding.
    gap: Option<Gap>,
}

/// How far a batch could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    /// All its frames are valid.
    Whole,
    /// To its end, past frames that are lost.
    InParts,
    /// Not to its end.
    Broken,
}

impl Scan {
    fn new(last_lsn: Lsn) -> Self {
        Self {
            end: FIRST_BATCH_AT,
            fault_at: FIRST_BATCH_AT,
            in_batch: false,
            last_lsn,
            durable_through: FIRST_BATCH_AT,
            opened: None,
            sealed: None,
            marker: None,
            fault: Fault::Invalid,
            batches: 0,
            frames: 0,
        }
    }

    /// Reads the frames of a batch; says how far it got, and what comes next.
    fn read_batch<E>(
        &mut self,
        mut frames: Frames<'_>,
        limit: u64,
        at_damage: AtDamage,
        sink: &mut dyn FnMut(Found<'_>) -> Result<(), E>,
    ) -> Result<(Read, Expect), E> {
        let (mut begins, mut read) = (true, Read::Whole);
        while let Some(frame) = frames.next() {
            match frame {
                // `Sealed` is a segment's last frame [F-21].
                Ok(_) if self.sealed.is_some() => {
                    self.fault = Fault::Foreign;
                    return Ok((Read::Broken, frames.expect()));
                }
                Ok(frame) if frame.end() <= limit => {
                    self.note(&frame);
                    sink(Found::Frame { frame: &frame, begins })?;
                    begins = false;
                }
                Ok(_) => return Ok((Read::Broken, frames.expect())),
                Err(fault) => {
                    self.fault = fault_of(fault.kind);
                    let lost = match at_damage {
                        AtDamage::Stop => None,
                        AtDamage::GoOn => frames.step_over(),
                    };
                    let Some(lost) = lost else { return Ok((Read::Broken, frames.expect())) };
                    sink(Found::Gap(Gap {
                        from: fault.offset,
                        to: frames.offset(),
                        first_lsn: lost,
                        next_lsn: Some(lost.plus(1)),
                    }))?;
                    (self.end, self.fault_at) = (frames.offset(), frames.offset());
                    self.last_lsn = lost;
                    (begins, read) = (true, Read::InParts);
                }
            }
        }
        Ok((read, frames.expect()))
    }

    /// Looks for the next valid batch at `behind` or later, and says what lies before it, if that is
    /// more than padding.
    fn resume(
        &self,
        window: &mut Window<'_>,
        geometry: &Geometry,
        behind: u64,
        limit: u64,
    ) -> io::Result<Resumed> {
        let (from, first_lsn) = (self.fault_at, self.last_lsn.plus(1));
        let stride = u64::from(BLOCK_BYTES_MIN);
        let mut nonzero_to = from;
        let mut offset = from - from.checked_rem(stride).unwrap_or(0);
        while offset < limit {
            let block = window.at(offset, BLOCK_BYTES_MIN as usize)?;
            let batch = BatchHeader::parse(block, geometry, offset)
                .filter(|batch| offset >= behind && batch.first_lsn > self.last_lsn);
            if let Some(batch) = batch {
                let next_lsn = batch.first_lsn;
                let gap = Gap { from, to: offset, first_lsn, next_lsn: Some(next_lsn) };
                let lost = nonzero_to > from || next_lsn != first_lsn;
                let next = Some((offset, Expect::Lsn(next_lsn)));
                return Ok(Resumed { next, gap: lost.then_some(gap) });
            }
            let skip = usize::try_from(from.saturating_sub(offset)).unwrap_or(usize::MAX);
            let rest = block.get(skip..).unwrap_or_default();
            if let Some(last) = last_nonzero(rest) {
                nonzero_to = (offset.max(from) + last as u64 + 1).min(limit);
            }
            offset += stride;
        }
        let gap = Gap { from, to: nonzero_to, first_lsn, next_lsn: None };
        Ok(Resumed { next: None, gap: (nonzero_to > from).then_some(gap) })
    }

    fn note(&mut self, frame: &Frame<'_>) {
        self.end = frame.end();
        self.fault_at = self.end;
        self.last_lsn = frame.record.lsn();
        self.frames += 1;
        self.sealed = None;
        self.marker = None;
        match frame.record.clear {
            Clear::Opened(opened) => self.opened = Some(opened),
            Clear::Sealed(sealed) => self.sealed = Some(sealed),
            Clear::Marker(marker) => self.marker = Some(marker.reason),
            _ => {}
        }
    }
}

/// Reads a segment's `Opened`, if its first frame is a valid one.
pub(crate) fn peek_opened(
    file: &dyn DiskFile,
    header: &SegmentHeader,
) -> io::Result<Option<(Lsn, Opened)>> {
    let mut window = Window::new(file)?;
    let head = window.at(FIRST_BATCH_AT, BATCH_HEADER_BYTES)?;
    let Some(batch) = BatchHeader::parse(head, &header.geometry(), FIRST_BATCH_AT) else {
        return Ok(None);
    };
    let bytes = window.at(FIRST_BATCH_AT, length_of(&batch))?;
    let first =
        Frames::new(bytes, &batch, header.nonce, FIRST_BATCH_AT, Expect::FirstOfSegment).next();
    Ok(first.and_then(Result::ok).and_then(|frame| match frame.record.clear {
        Clear::Opened(opened) => Some((frame.record.lsn(), opened)),
        _ => None,
    }))
}
