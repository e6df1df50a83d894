//! Frames (journal-format.md, section 6): the one decoder of a batch's frames.
//!
//! Opening, verifying, following and salvaging all read through [`Frames`]. It tells apart what a
//! power cut can leave (a wrong CRC) from what only damage or a newer version can [F-22].

use super::batch::{BATCH_HEADER_BYTES, BatchHeader};
use super::clear::Clear;
use super::layout::{Fixed, layout};
use super::record::{RECORD_BYTES_MAX, Record, RecordError, RecordHeader};
use super::value::OpenedReason;
use super::{HEADER_BYTES, crc};
use crate::ids::{Lsn, Nonce};

/// What an `Opened` with the reason *recovered* skips [F-31].
pub const RECOVERY_LSN_GAP: u64 = 131_072;

/// The shortest frame: a frame header, a record header, and the clear part of a `Marker`.
pub const FRAME_BYTES_MIN: usize = FrameHeader::SIZE + RECORD_BYTES_MIN;

/// The shortest record [F-21].
const RECORD_BYTES_MIN: usize = RecordHeader::SIZE + 8;

layout! {
    /// The two checksums before a record.
    pub struct FrameHeader = "frame_header", 8 {
        /// Over the place, `body_crc` and the record header.
        head_crc: u32;
        /// Over the record's clear and sealed parts.
        body_crc: u32;
    }
}

/// Computes the CRC that binds a record header to its segment and offset [F-23].
pub fn head_crc(nonce: Nonce, frame_offset: u64, body_crc: u32, record_header: &[u8; 32]) -> u32 {
    // One buffer, so that the checksum runs once over 60 bytes, not four times over a few.
    let mut bytes = [0; 60];
    let mut out = bytes.as_mut_slice();
    nonce.write(&mut out);
    frame_offset.write(&mut out);
    body_crc.write(&mut out);
    record_header.write(&mut out);
    crc(&[&bytes])
}

/// What the first frame of a batch must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The segment's `Opened`, in its first batch. Its LSN is checked against what it says of
    /// itself [F-31]; whether it names the right predecessor is for the reader of the chain.
    FirstOfSegment,
    /// The frame with this LSN, behind the one before it.
    Lsn(Lsn),
}

/// A valid frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where it stands in its segment.
    pub offset: u64,
    /// What it holds.
    pub record: Record<'a>,
}

impl Frame<'_> {
    /// Returns the offset behind it.
    pub fn end(&self) -> u64 {
        let header = u64::try_from(FrameHeader::SIZE).expect("8 fits");
        self.offset.saturating_add(header).saturating_add(u64::from(self.record.header.length))
    }
}

/// Says where a batch stops being valid, and of what sort the fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameFault {
    /// Where the faulty frame stands in its segment.
    pub offset: u64,
    /// The sort of fault.
    pub kind: FaultKind,
}

/// The sorts of fault that the verdict table tells apart (section 12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// A CRC is wrong: an incomplete write looks like this, and so does damage.
    #[error("a checksum is wrong")]
    Torn,
    /// The CRCs are right, and the kind is unknown: corrupt, or of a newer format.
    #[error("record kind {0} is unknown to format version 1")]
    UnknownKind(u16),
    /// The CRCs are right, and the frame breaks the format: corrupt.
    #[error("the frame is malformed: {0}")]
    Malformed(&'static str),
    /// The CRCs are right, and the LSN is not the next one: corrupt.
    #[error("LSN {found} stands where {expected} is due")]
    OutOfOrder {
        /// The LSN that is due.
        expected: Lsn,
        /// The LSN that the frame has.
        found: Lsn,
    },
}

impl From<RecordError> for FaultKind {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::UnknownKind(kind) => Self::UnknownKind(kind),
            RecordError::Malformed(what) => Self::Malformed(what),
        }
    }
}

/// Says why a single frame could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameMiss {
    /// The frame has this many bytes, of which not all were given.
    Short(usize),
    /// It is not valid here.
    Fault(FaultKind),
}

/// Reads the frame at the front of `bytes`, known to stand at `offset` of the segment with this
/// nonce, whatever stands before it.
///
/// # Errors
/// [`FrameMiss`]; a length is believed only once the CRC over it is right [F-18].
pub fn read_frame(bytes: &[u8], nonce: Nonce, offset: u64) -> Result<Frame<'_>, FrameMiss> {
    let headers = FrameHeader::SIZE + RecordHeader::SIZE;
    let (head, rest) =
        bytes.split_first_chunk::<{ FrameHeader::SIZE }>().ok_or(FrameMiss::Short(headers))?;
    let record_header =
        rest.first_chunk::<{ RecordHeader::SIZE }>().ok_or(FrameMiss::Short(headers))?;
    let (header, body_crc) =
        check_head(head, record_header, nonce, offset).map_err(FrameMiss::Fault)?;
    let length = usize::try_from(header.length).unwrap_or(usize::MAX);
    let short = FrameMiss::Short(FrameHeader::SIZE.saturating_add(length));
    let bytes = rest.get(..length).ok_or(short)?;
    let record = check_body(bytes, body_crc).map_err(FrameMiss::Fault)?;
    Ok(Frame { offset, record })
}

/// Checks the first CRC and returns the record header with the second. Behind this the header is
/// genuine and in its place, so its length is the writer's own word.
fn check_head(
    head: &[u8; FrameHeader::SIZE],
    record_header: &[u8; RecordHeader::SIZE],
    nonce: Nonce,
    offset: u64,
) -> Result<(RecordHeader, u32), FaultKind> {
    let frame = FrameHeader::decode(head).map_err(|bad| FaultKind::Malformed(bad.0))?;
    if head_crc(nonce, offset, frame.body_crc, record_header) != frame.head_crc {
        return Err(FaultKind::Torn);
    }
    let header = RecordHeader::decode(record_header).map_err(|bad| FaultKind::Malformed(bad.0))?;
    match usize::try_from(header.length) {
        Ok(RECORD_BYTES_MIN..=RECORD_BYTES_MAX) => Ok((header, frame.body_crc)),
        _ => Err(FaultKind::Malformed("length")),
    }
}

fn check_body(bytes: &[u8], body_crc: u32) -> Result<Record<'_>, FaultKind> {
    if super::record::body_crc(bytes) != body_crc {
        return Err(FaultKind::Torn);
    }
    Ok(Record::parse(bytes)?)
}

/// Decodes the frames of one batch, in order, up to the first fault; after a fault it ends.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    rest: &'a [u8],
    offset: u64,
    nonce: Nonce,
    expect: Expect,
    first_lsn: Option<Lsn>,
    left: u32,
    failed: bool,
}

impl<'a> Frames<'a> {
    /// Reads the batch that stands at `batch_offset` and whose valid header is `header`.
    ///
    /// `batch` holds at least `header.length` bytes, from the batch header on; a shorter one,
    /// of a file cut short, ends in a fault at the frame that is missing.
    pub fn new(
        batch: &'a [u8],
        header: &BatchHeader,
        nonce: Nonce,
        batch_offset: u64,
        expect: Expect,
    ) -> Self {
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        let end = length.min(batch.len());
        Self {
            rest: batch.get(BATCH_HEADER_BYTES..end).unwrap_or_default(),
            offset: batch_offset.saturating_add(as_u64(BATCH_HEADER_BYTES)),
            nonce,
            expect,
            first_lsn: Some(header.first_lsn),
            left: header.count,
            failed: false,
        }
    }

    /// Returns the offset behind the last valid frame so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns what is expected next: behind the last frame, of the next batch.
    pub fn expect(&self) -> Expect {
        self.expect
    }

    /// Steps over the frame that was at fault, if its header is right, so that what stands behind
    /// it can be salvaged; says which record is lost. No reader that decides anything does so.
    pub fn step_over(&mut self) -> Option<Lsn> {
        let (head, rest) =
            self.rest.split_first_chunk::<{ FrameHeader::SIZE }>().filter(|_| self.failed)?;
        let record_header = rest.first_chunk::<{ RecordHeader::SIZE }>()?;
        let (header, _) = check_head(head, record_header, self.nonce, self.offset).ok()?;
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        let (_, behind) = rest.split_at_checked(length)?;
        let frame_bytes = as_u64(FrameHeader::SIZE).saturating_add(u64::from(header.length));
        self.rest = behind;
        self.offset = self.offset.saturating_add(frame_bytes);
        self.expect = Expect::Lsn(header.lsn.plus(1));
        self.first_lsn = None;
        self.failed = false;
        Some(header.lsn)
    }

    fn decode(&mut self) -> Result<Frame<'a>, FaultKind> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<{ FrameHeader::SIZE }>()
            .ok_or(FaultKind::Malformed("count"))?;
        let record_header =
            rest.first_chunk::<{ RecordHeader::SIZE }>().ok_or(FaultKind::Malformed("count"))?;
        let (header, body_crc) = check_head(head, record_header, self.nonce, self.offset)?;
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        let (bytes, rest) = rest.split_at_checked(length).ok_or(FaultKind::Malformed("length"))?;
        let record = check_body(bytes, body_crc)?;
        self.check_place(&record)?;
        let valid = Frame { offset: self.offset, record };
        self.rest = rest;
        self.offset = valid.end();
        self.expect = Expect::Lsn(record.lsn().plus(1));
        Ok(valid)
    }

    /// Checks the order of LSNs [F-30], and that `Opened` stands at the front of a segment and
    /// nowhere else.
    fn check_place(&mut self, record: &Record<'_>) -> Result<(), FaultKind> {
        let found = record.lsn();
        let expected = match (self.expect, record.clear) {
            (Expect::FirstOfSegment, Clear::Opened(opened)) => {
                let created = opened.reason == OpenedReason::Created;
                if created != opened.predecessor.is_none() {
                    return Err(FaultKind::Malformed("predecessor"));
                }
                if created && !opened.predecessor_lsn.is_none() {
                    return Err(FaultKind::Malformed("predecessor_lsn"));
                }
                let gap = match opened.reason {
                    OpenedReason::Recovered => RECOVERY_LSN_GAP,
                    OpenedReason::Created | OpenedReason::RolledOver => 0,
                };
                opened.predecessor_lsn.plus(1).plus(gap)
            }
            (Expect::FirstOfSegment, _) | (Expect::Lsn(_), Clear::Opened(_)) => {
                return Err(FaultKind::Malformed("kind"));
            }
            (Expect::Lsn(lsn), _) => lsn,
        };
        if found != expected {
            return Err(FaultKind::OutOfOrder { expected, found });
        }
        match self.first_lsn.take() {
            Some(first) if first != found => Err(FaultKind::Malformed("first_lsn")),
            _ => Ok(()),
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, FrameFault>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let result = match self.left.checked_sub(1) {
            _ if self.failed => return None,
            Some(left) => {
                self.left = left;
                self.decode()
            }
            None if self.rest.is_empty() => return None,
            None => Err(FaultKind::Malformed("count")),
        };
        self.failed = result.is_err();
        Some(result.map_err(|kind| FrameFault { offset, kind }))
    }
}

const _: () = assert!(HEADER_BYTES == 4096);

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("a length in memory fits 64 bits")
}

#[cfg(test)]
mod tests {
    use super::super::batch::{BatchBuffer, Geometry, RawBatchHeader};
    use super::super::clear::{Marker, Opened};
    use super::super::record::{body_crc, encode_record};
    use super::super::samples::{Seeded, segment_header};
    use super::super::value::MarkerReason;
    use super::*;
    use crate::ids::{HostTag, OwnerId};
    use crate::seal::{DataKey, MacKey};

    const OFFSET: u64 = 4096;

    fn geometry() -> Geometry {
        segment_header().geometry()
    }

    fn marker() -> Vec<u8> {
        encode_record(&Clear::Marker(Marker { reason: MarkerReason::Idle }), 0, 0, &[])
    }

    fn opened(reason: OpenedReason, predecessor: u8, predecessor_lsn: u64) -> Vec<u8> {
        let opened = Opened {
            predecessor: Nonce::from_bytes([predecessor; 16]),
            predecessor_end: 4096,
            predecessor_lsn: Lsn(predecessor_lsn),
            host: HostTag::from_bytes([1; 16]),
            owner: OwnerId::from_bytes([2; 16]),
            incarnation: 1,
            reason,
        };
        encode_record(&Clear::Opened(opened), 0, 0, &[])
    }

    fn batch(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mac_key = MacKey::new(&DataKey::generate(&Seeded::default()).unwrap());
        let mut buffer = BatchBuffer::new(geometry().batch_bytes_max);
        for (lsn, record) in frames {
            buffer.push(Lsn(*lsn), record, body_crc(record)).unwrap();
        }
        buffer.finish(geometry().nonce, OFFSET, 4096, 4096, &mac_key).to_vec()
    }

    /// Decodes all frames under a header that may differ from the written one; returns how many
    /// were valid, and the fault.
    fn decode_under(
        bytes: &[u8],
        expect: Expect,
        change: impl FnOnce(&mut BatchHeader),
    ) -> (usize, Option<FaultKind>) {
        let mut header = BatchHeader::parse(bytes, &geometry(), OFFSET).unwrap();
        change(&mut header);
        let mut frames = Frames::new(bytes, &header, geometry().nonce, OFFSET, expect);
        let mut valid = 0;
        for frame in frames.by_ref() {
            match frame {
                Ok(_) => valid += 1,
                Err(fault) => {
                    assert_eq!(frames.next(), None, "the decoder ends at a fault");
                    return (valid, Some(fault.kind));
                }
            }
        }
        (valid, None)
    }

    fn decode(frames: &[(u64, Vec<u8>)], expect: Expect) -> (usize, Option<FaultKind>) {
        decode_under(&batch(frames), expect, |_| ())
    }

    #[test]
    fn lsns_rise_by_one() {
        let due = |expected, found| {
            Some(FaultKind::OutOfOrder { expected: Lsn(expected), found: Lsn(found) })
        };
        assert_eq!(decode(&[(7, marker()), (8, marker())], Expect::Lsn(Lsn(7))), (2, None));
        assert_eq!(decode(&[(7, marker()), (9, marker())], Expect::Lsn(Lsn(7))), (1, due(8, 9)));
        assert_eq!(decode(&[(7, marker()), (7, marker())], Expect::Lsn(Lsn(7))), (1, due(8, 7)));
        assert_eq!(decode(&[(7, marker())], Expect::Lsn(Lsn(6))), (0, due(6, 7)));
    }

    #[test]
    fn opened_stands_first_and_only_a_recovery_skips() {
        use OpenedReason::{Created, Recovered, RolledOver};
        let first = |lsn, reason, predecessor, predecessor_lsn| {
            let frames = [(lsn, opened(reason, predecessor, predecessor_lsn))];
            decode(&frames, Expect::FirstOfSegment)
        };
        let due = |expected, found| {
            let (expected, found) = (Lsn(expected), Lsn(found));
            (0, Some(FaultKind::OutOfOrder { expected, found }))
        };
        let malformed = |what| (0, Some(FaultKind::Malformed(what)));
        assert_eq!(first(1, Created, 0, 0), (1, None));
        assert_eq!(first(2, Created, 0, 0), due(1, 2));
        assert_eq!(first(2, Created, 0, 1), malformed("predecessor_lsn"));
        assert_eq!(first(1, Created, 9, 0), malformed("predecessor"));
        assert_eq!(first(11, RolledOver, 9, 10), (1, None));
        assert_eq!(first(11, RolledOver, 0, 10), malformed("predecessor"));
        assert_eq!(first(131_083, RolledOver, 9, 10), due(11, 131_083));
        assert_eq!(first(131_083, Recovered, 9, 10), (1, None));
        assert_eq!(first(131_082, Recovered, 9, 10), due(131_083, 131_082));
        assert_eq!(first(11, Recovered, 9, 10), due(131_083, 11));

        let inner = [(1, opened(Created, 0, 0)), (2, opened(RolledOver, 9, 1))];
        let fault = Some(FaultKind::Malformed("kind"));
        assert_eq!(decode(&inner, Expect::FirstOfSegment), (1, fault));
        assert_eq!(decode(&[(1, marker())], Expect::FirstOfSegment), (0, fault));
    }

    #[test]
    fn right_checksums_over_wrong_contents_are_no_torn_write() {
        let mut unknown = marker();
        unknown[4] = 35;
        let frames = [(1, marker()), (2, unknown)];
        assert_eq!(decode(&frames, Expect::Lsn(Lsn(1))), (1, Some(FaultKind::UnknownKind(35))));
        let mut reserved = marker();
        reserved[39] = 1;
        let frames = [(1, marker()), (2, reserved)];
        let fault = Some(FaultKind::Malformed("reserved"));
        assert_eq!(decode(&frames, Expect::Lsn(Lsn(1))), (1, fault));
    }

    #[test]
    fn a_header_that_disagrees_with_its_frames_is_no_torn_write() {
        let bytes = batch(&[(1, marker()), (2, marker())]);
        let under =
            |change: fn(&mut BatchHeader)| decode_under(&bytes, Expect::Lsn(Lsn(1)), change);
        let malformed = |valid, what| (valid, Some(FaultKind::Malformed(what)));
        assert_eq!(under(|_| ()), (2, None));
        assert_eq!(under(|header| header.count = 1), malformed(1, "count"));
        assert_eq!(under(|header| header.count = 3), malformed(2, "count"));
        assert_eq!(under(|header| header.length -= 1), malformed(1, "length"));
        assert_eq!(under(|header| header.length -= 40), malformed(1, "count"));
        assert_eq!(under(|header| header.first_lsn = Lsn(2)), malformed(0, "first_lsn"));
    }

    #[test]
    fn a_batch_that_the_file_cuts_short_has_a_fault() {
        let bytes = batch(&[(1, marker()), (2, marker())]);
        let length = RawBatchHeader::decode(&bytes[..64]).unwrap().length as usize;
        for cut in 64..length {
            let (valid, fault) = decode_under(&bytes[..cut], Expect::Lsn(Lsn(1)), |_| ());
            assert_eq!(valid, (cut - 64) / 48);
            assert!(fault.is_some());
        }
    }

    #[test]
    fn a_damaged_body_can_be_stepped_over_and_a_damaged_head_cannot() {
        let good = batch(&[(1, marker()), (2, marker()), (3, marker())]);
        let second = 64 + 48;
        let walk = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            let header = BatchHeader::parse(&bytes, &geometry(), OFFSET).unwrap();
            let expect = Expect::Lsn(Lsn(1));
            let mut frames = Frames::new(&bytes, &header, geometry().nonce, OFFSET, expect);
            assert_eq!(frames.step_over(), None, "nothing is at fault yet");
            assert_eq!(frames.next().unwrap().unwrap().record.lsn(), Lsn(1));
            assert!(frames.next().unwrap().is_err());
            assert!(frames.next().is_none());
            let lost = frames.step_over();
            (lost, frames.map(|frame| frame.unwrap().record.lsn()).collect::<Vec<_>>())
        };
        assert_eq!(walk(second + 40), (Some(Lsn(2)), vec![Lsn(3)]));
        assert_eq!(walk(second), (None, vec![]));
        assert_eq!(walk(second + 16), (None, vec![]));
    }
}
