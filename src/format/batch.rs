//! Batches (journal-format.md, section 5): what one sync makes durable.
//!
//! [`BatchBuffer`] is the writer's half: callers copy finished records in under the lock, and the
//! writer thread patches what depends on the place. [`BatchHeader`] is the reader's first step;
//! the frames behind it are read by `frame::Frames` alone.

use super::frame::{FRAME_BYTES_MIN, FrameHeader, head_crc};
use super::layout::{Fixed, layout};
use super::record::{RecordHeader, set_lsn};
use super::{HEADER_BYTES, crc};
use crate::ids::{Lsn, Nonce};

/// The width of a batch header.
pub const BATCH_HEADER_BYTES: usize = RawBatchHeader::SIZE;

/// The most frames that a batch holds [F-17]; the recovery gap depends on it [F-31].
pub const FRAMES_MAX: u32 = 65_535;

/// The alignment of a batch in memory: enough for direct I/O everywhere.
pub const BATCH_ALIGNMENT: usize = 4096;

const MAGIC: u32 = 0x4254_574A;
const CRC_BYTES: usize = 4;
const HEAD_CRC_AT: usize = FrameHeader::TABLE.offset("head_crc");
const BODY_CRC_AT: usize = FrameHeader::TABLE.offset("body_crc");
const LENGTH_AT: usize = FrameHeader::SIZE + RecordHeader::TABLE.offset("length");
const FRAME_HEADERS: usize = FrameHeader::SIZE + RecordHeader::SIZE;

layout! {
    /// A batch header as it stands on disk, nothing checked; see [`BatchHeader`].
    pub struct RawBatchHeader = "batch_header", 64 {
        /// Over the segment's nonce, the batch's offset and the rest of the header.
        crc: u32;
        /// The bytes `JWTB`.
        magic: u32;
        /// Of header and frames in bytes, without padding.
        length: u32;
        /// Of frames.
        count: u32;
        /// Of the first frame.
        first_lsn: Lsn;
        /// What of the segment was durable when the batch was written.
        durable_through: u64;
        /// Finds frames that were moved by somebody without the key.
        mac: [u8; 16], reserved 16;
    }
}

/// What of a segment's header the validity of its batches depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// The segment's nonce.
    pub nonce: Nonce,
    /// The block size in bytes.
    pub block_bytes: u32,
    /// The largest batch in bytes.
    pub batch_bytes_max: u32,
    /// The segment's length in bytes.
    pub segment_bytes: u64,
}

impl Geometry {
    /// Returns the first place at or behind `offset` where a batch may stand [F-15].
    pub fn next_block(&self, offset: u64) -> u64 {
        let from = offset.max(header_bytes());
        from.checked_next_multiple_of(u64::from(self.block_bytes.max(1))).unwrap_or(u64::MAX)
    }

    fn allows(&self, offset: u64) -> bool {
        offset >= header_bytes() && offset.checked_rem(u64::from(self.block_bytes)) == Some(0)
    }
}

/// A valid batch header [F-17].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Of header and frames in bytes, without padding.
    pub length: u32,
    /// Of frames.
    pub count: u32,
    /// Of the first frame.
    pub first_lsn: Lsn,
    /// All bytes of the segment before this offset were durable when the batch was written.
    pub durable_through: u64,
    mac: [u8; 16],
}

impl BatchHeader {
    /// Parses what stands at `offset` of a segment, by the rule of [F-17]; none if it is no valid
    /// batch header. Only the first 64 of `bytes` are looked at.
    pub fn parse(bytes: &[u8], geometry: &Geometry, offset: u64) -> Option<Self> {
        let bytes = bytes.first_chunk::<BATCH_HEADER_BYTES>()?;
        // The CRC comes before anything that it covers is believed [F-18].
        let crc_field = bytes.first_chunk::<CRC_BYTES>()?;
        if u32::from_le_bytes(*crc_field) != header_crc(geometry.nonce, offset, bytes) {
            return None;
        }
        let raw = RawBatchHeader::decode(bytes).ok()?;
        let length = u64::from(raw.length);
        let least = as_u64(BATCH_HEADER_BYTES) + as_u64(FRAME_BYTES_MIN) * u64::from(raw.count);
        let valid = geometry.allows(offset)
            && raw.magic == MAGIC
            && (1..=FRAMES_MAX).contains(&raw.count)
            && least <= length
            && raw.length <= geometry.batch_bytes_max
            && offset.checked_add(length)? <= geometry.segment_bytes
            && (header_bytes()..=offset).contains(&raw.durable_through);
        valid.then_some(Self {
            length: raw.length,
            count: raw.count,
            first_lsn: raw.first_lsn,
            durable_through: raw.durable_through,
            mac: raw.mac,
        })
    }

    /// Checks the MAC over a batch whose frames are all valid [F-37]; `batch` is its bytes from the
    /// header on.
    pub fn authenticate(
        &self,
        batch: &[u8],
        nonce: Nonce,
        offset: u64,
        key: &dyn Authenticator,
    ) -> bool {
        let end = usize::try_from(self.length).unwrap_or(usize::MAX);
        let header = RawBatchHeader {
            crc: 0,
            magic: MAGIC,
            length: self.length,
            count: self.count,
            first_lsn: self.first_lsn,
            durable_through: self.durable_through,
            mac: self.mac,
        };
        let frames = batch.get(BATCH_HEADER_BYTES..end);
        let place = MacPlace::new(nonce, offset, &header);
        frames.is_some_and(|frames| place.mac(frames, key) == self.mac)
    }
}

/// Makes a batch's MAC; whoever holds a segment's data key can.
pub trait Authenticator {
    /// Makes the MAC of these parts, one behind the other: what [F-37] names, in its order.
    fn mac(&self, parts: &mut dyn Iterator<Item = &[u8]>) -> [u8; 16];
}

/// What of a batch's place and header its MAC covers.
struct MacPlace([u8; 48]);

impl MacPlace {
    fn new(nonce: Nonce, offset: u64, header: &RawBatchHeader) -> Self {
        let mut bytes = [0; 48];
        let mut out = bytes.as_mut_slice();
        nonce.write(&mut out);
        offset.write(&mut out);
        header.length.write(&mut out);
        header.count.write(&mut out);
        header.first_lsn.write(&mut out);
        header.durable_through.write(&mut out);
        Self(bytes)
    }

    fn mac(&self, frames: &[u8], key: &dyn Authenticator) -> [u8; 16] {
        key.mac(&mut std::iter::once(self.0.as_slice()).chain(authentic_parts(frames)))
    }
}

/// Says that a batch has no room for one more record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the batch is full")]
pub struct BatchFull;

/// Collects the records of one batch in memory that is allocated once, aligned for direct I/O, and
/// used again for the next batch. It holds sealed bytes only, so nothing is wiped.
pub struct BatchBuffer {
    storage: Vec<u8>,
    /// Where the aligned part of `storage` begins.
    start: usize,
    batch_bytes_max: usize,
    /// Behind the last frame, counted from `start`.
    length: usize,
    count: u32,
    first_lsn: Lsn,
}

impl BatchBuffer {
    /// Allocates room for batches of up to `batch_bytes_max` bytes and their padding.
    pub fn new(batch_bytes_max: u32) -> Self {
        let batch_bytes_max = usize::try_from(batch_bytes_max).expect("32 bits fit");
        let padded = batch_bytes_max.next_multiple_of(super::segment::BLOCK_BYTES_MAX);
        let storage = vec![0; padded + BATCH_ALIGNMENT];
        // The vector never grows, so its memory stays where it is. A start of 0 is always right,
        // and only direct I/O would refuse it.
        let start = match storage.as_ptr().align_offset(BATCH_ALIGNMENT) {
            start if start < BATCH_ALIGNMENT => start,
            _ => 0,
        };
        let length = BATCH_HEADER_BYTES;
        Self { storage, start, batch_bytes_max, length, count: 0, first_lsn: Lsn::NONE }
    }

    /// Returns how many bytes of a batch a record takes: its own and its frame header's.
    pub const fn charge(record_bytes: usize) -> usize {
        FrameHeader::SIZE + record_bytes
    }

    /// Says whether a record of this length still fits.
    pub fn fits(&self, record_bytes: usize) -> bool {
        self.count < FRAMES_MAX && self.length + Self::charge(record_bytes) <= self.batch_bytes_max
    }

    /// Appends a record under the LSN given, which is the one after the last; `body_crc` is
    /// `record::body_crc` of the same bytes, computed before the lock was taken.
    ///
    /// # Errors
    /// [`BatchFull`], and nothing is appended; see [`BatchBuffer::fits`].
    pub fn push(&mut self, lsn: Lsn, record: &[u8], body_crc: u32) -> Result<(), BatchFull> {
        if !self.fits(record.len()) {
            return Err(BatchFull);
        }
        if self.count == 0 {
            self.first_lsn = lsn;
        }
        let end = self.length + Self::charge(record.len());
        let frame = self
            .storage
            .get_mut(self.start + self.length..self.start + end)
            .expect("the storage holds a largest batch");
        let (header, body) = frame.split_at_mut(FrameHeader::SIZE);
        header.copy_from_slice(&FrameHeader { head_crc: 0, body_crc }.encode());
        body.copy_from_slice(record);
        set_lsn(body, lsn);
        self.length = end;
        self.count += 1;
        Ok(())
    }

    /// Returns the bytes so far, header included, padding not.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Says whether no record was appended yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns how many records were appended.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns the LSN of the first record, or none.
    pub fn first_lsn(&self) -> Lsn {
        self.first_lsn
    }

    /// Forgets all records; the memory stays.
    pub fn clear(&mut self) {
        self.length = BATCH_HEADER_BYTES;
        self.count = 0;
        self.first_lsn = Lsn::NONE;
    }

    /// Completes the batch for its place and returns it, aligned in memory and padded with zeros to
    /// the block: every `head_crc`, the MAC, the header. A batch is never empty.
    pub fn finish(
        &mut self,
        nonce: Nonce,
        offset: u64,
        durable_through: u64,
        block_bytes: u32,
        key: &dyn Authenticator,
    ) -> &[u8] {
        assert!(self.count > 0, "a batch has a frame");
        let block_bytes = usize::try_from(block_bytes.max(1)).expect("32 bits fit");
        let padded = self.length.next_multiple_of(block_bytes);
        let batch = self
            .storage
            .get_mut(self.start..self.start + padded)
            .expect("the storage holds a largest batch and its padding");
        let (content, padding) = batch.split_at_mut(self.length);
        padding.fill(0);
        let (header, frames) = content.split_at_mut(BATCH_HEADER_BYTES);
        patch_head_crcs(frames, nonce, offset.saturating_add(as_u64(BATCH_HEADER_BYTES)));
        let length = u32::try_from(self.length).expect("a batch is no longer than 32 bits say");
        let mut raw = RawBatchHeader {
            crc: 0,
            magic: MAGIC,
            length,
            count: self.count,
            first_lsn: self.first_lsn,
            durable_through,
            mac: [0; 16],
        };
        raw.mac = MacPlace::new(nonce, offset, &raw).mac(frames, key);
        raw.crc = header_crc(nonce, offset, &raw.encode());
        header.copy_from_slice(&raw.encode());
        batch
    }
}

impl std::fmt::Debug for BatchBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchBuffer")
            .field("length", &self.length)
            .field("count", &self.count)
            .field("first_lsn", &self.first_lsn)
            .finish_non_exhaustive()
    }
}

fn header_crc(nonce: Nonce, offset: u64, header: &[u8; BATCH_HEADER_BYTES]) -> u32 {
    let (_, covered) = header.split_at(CRC_BYTES);
    crc(&[&nonce.to_bytes(), &offset.to_le_bytes(), covered])
}

/// Splits the first frame off frames that this process encoded or that are all valid.
fn split_frame(frames: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = frames.get(LENGTH_AT..)?.first_chunk::<4>()?;
    let record_bytes = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    frames.split_at_checked(FrameHeader::SIZE.checked_add(record_bytes)?)
}

fn patch_head_crcs(mut frames: &mut [u8], nonce: Nonce, mut offset: u64) {
    while let Some((frame, _)) = split_frame(frames) {
        let frame_bytes = frame.len();
        let (frame, rest) = std::mem::take(&mut frames).split_at_mut(frame_bytes);
        let (head, header) = frame
            .first_chunk_mut::<FRAME_HEADERS>()
            .and_then(|headers| headers.split_first_chunk_mut::<{ FrameHeader::SIZE }>())
            .expect("push writes a frame header before a record");
        let header = header.first_chunk().expect("push takes whole records");
        let mut body_crc = head.get(BODY_CRC_AT..).unwrap_or_default();
        let body_crc = u32::read(&mut body_crc).expect("push writes the body's CRC");
        let sum = head_crc(nonce, offset, body_crc, header);
        let mut out = head.get_mut(HEAD_CRC_AT..).unwrap_or_default();
        sum.write(&mut out);
        offset = offset.saturating_add(as_u64(frame_bytes));
        frames = rest;
    }
}

/// Walks what of each frame a batch's MAC covers: the record header, and what authenticates the
/// rest of the record.
fn authentic_parts(mut frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    let next = std::iter::from_fn(move || {
        let (frame, rest) = split_frame(frames)?;
        frames = rest;
        Some(frame.get(FrameHeader::SIZE..).unwrap_or_default())
    });
    next.flat_map(|record| {
        let (header, parts) = record.split_at_checked(RecordHeader::SIZE).unwrap_or_default();
        // A structural record's clear part is taken whole; a sealed part ends in its tag.
        let structural = RecordHeader::peek(header)
            .is_some_and(|h| h.known_kind().is_none_or(super::record::Kind::is_structural));
        let tag = parts.last_chunk::<16>().map_or(parts, |tag| tag.as_slice());
        [header, if structural { parts } else { tag }]
    })
}

fn header_bytes() -> u64 {
    as_u64(HEADER_BYTES)
}

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("a length in memory fits 64 bits")
}

#[cfg(test)]
mod tests {
    use super::super::clear::CLEAR_BYTES_MAX;
    use super::super::frame::{Expect, FaultKind, Frame, FrameFault, Frames};
    use super::super::record::body_crc;
    use super::super::samples::{Seeded, any_inner_record, segment_header};
    use super::*;
    use crate::seal::{DataKey, MacKey};
    use proptest::prelude::*;

    const FIRST: Lsn = Lsn(500);
    const OFFSET: u64 = 8192;

    fn mac_key(seed: u64) -> MacKey {
        MacKey::new(&DataKey::generate(&Seeded(seed.into())).unwrap())
    }

    fn geometry() -> Geometry {
        segment_header().geometry()
    }

    fn filled(buffer: &mut BatchBuffer, records: &[Vec<u8>]) -> Vec<u8> {
        buffer.clear();
        for (lsn, record) in (FIRST.0..).zip(records) {
            buffer.push(Lsn(lsn), record, body_crc(record)).unwrap();
        }
        buffer.finish(geometry().nonce, OFFSET, 4096, 4096, &mac_key(1)).to_vec()
    }

    fn batch_of(records: &[Vec<u8>]) -> Vec<u8> {
        filled(&mut BatchBuffer::new(geometry().batch_bytes_max), records)
    }

    fn decode(bytes: &[u8]) -> Vec<Result<Frame<'_>, FrameFault>> {
        let header = BatchHeader::parse(bytes, &geometry(), OFFSET).unwrap();
        Frames::new(bytes, &header, geometry().nonce, OFFSET, Expect::Lsn(FIRST)).collect()
    }

    /// Changes the header and makes its checksum right again.
    fn with_header(bytes: &[u8], change: impl FnOnce(&mut RawBatchHeader)) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let mut raw = RawBatchHeader::decode(&bytes[..64]).unwrap();
        change(&mut raw);
        raw.crc = header_crc(geometry().nonce, OFFSET, &raw.encode());
        bytes[..64].copy_from_slice(&raw.encode());
        bytes
    }

    #[test]
    fn each_rule_of_a_valid_batch_header_is_checked() {
        let record = super::super::record::encode_record(
            &super::super::samples::clear_of(
                super::super::record::Kind::Marker,
                [0; CLEAR_BYTES_MAX],
            ),
            0,
            0,
            &[],
        );
        let good = batch_of(&[record.clone(), record]);
        let accepts = |change: &dyn Fn(&mut RawBatchHeader)| {
            BatchHeader::parse(&with_header(&good, change), &geometry(), OFFSET).is_some()
        };
        assert!(accepts(&|_| ()));
        assert!(!accepts(&|raw| raw.magic += 1));
        assert!(!accepts(&|raw| raw.count = 0));
        assert!(!accepts(&|raw| raw.count = 3));
        assert!(!accepts(&|raw| (raw.count, raw.length) = (65_536, 65_536)));
        assert!(!accepts(&|raw| raw.length = 64 + 2 * 48 - 1));
        assert!(accepts(&|raw| raw.length = 65_536));
        assert!(!accepts(&|raw| raw.length = 65_537));
        assert!(!accepts(&|raw| raw.durable_through = 4095));
        assert!(accepts(&|raw| raw.durable_through = OFFSET));
        assert!(!accepts(&|raw| raw.durable_through = OFFSET + 1));
        // Reserved bytes, under a right checksum.
        let mut bytes = good.clone();
        bytes[63] = 1;
        let crc = header_crc(geometry().nonce, OFFSET, bytes.first_chunk().unwrap());
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(BatchHeader::parse(&bytes, &geometry(), OFFSET), None);
        // Another place, another segment, or no room in it.
        assert_eq!(BatchHeader::parse(&good, &geometry(), 4096), None);
        let other = Geometry { nonce: Nonce::from_bytes([8; 16]), ..geometry() };
        assert_eq!(BatchHeader::parse(&good, &other, OFFSET), None);
        let other = Geometry { segment_bytes: OFFSET + 100, ..geometry() };
        assert_eq!(BatchHeader::parse(&good, &other, OFFSET), None);
        let other = Geometry { block_bytes: 16_384, ..geometry() };
        assert_eq!(BatchHeader::parse(&good, &other, OFFSET), None);
        assert_eq!(BatchHeader::parse(&good[..63], &geometry(), OFFSET), None);
    }

    #[test]
    fn blocks_follow_one_another() {
        let geometry = Geometry { block_bytes: 512, ..geometry() };
        assert_eq!(geometry.next_block(0), 4096);
        assert_eq!(geometry.next_block(4097), 4608);
        assert_eq!(geometry.next_block(4608), 4608);
        assert_eq!(geometry.next_block(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_full_batch_takes_no_more() {
        let mut buffer = BatchBuffer::new(64 + 2 * 48 + 47);
        let record = [0; 40];
        assert!(buffer.is_empty() && buffer.fits(record.len()));
        buffer.push(Lsn(1), &record, 0).unwrap();
        buffer.push(Lsn(2), &record, 0).unwrap();
        assert_eq!(buffer.push(Lsn(3), &record, 0), Err(BatchFull));
        assert_eq!((buffer.count(), buffer.len(), buffer.first_lsn()), (2, 160, Lsn(1)));

        let mut buffer = BatchBuffer::new(super::super::segment::BATCH_BYTES_LIMIT);
        for lsn in 1..=u64::from(FRAMES_MAX) {
            buffer.push(Lsn(lsn), &record, 0).unwrap();
        }
        assert!(!buffer.fits(record.len()));
    }

    proptest! {
        #[test]
        fn batches_round_trip(records in proptest::collection::vec(any_inner_record(), 1..20)) {
            let mut buffer = BatchBuffer::new(geometry().batch_bytes_max);
            // Dirty memory: what an earlier batch left must not show in the padding.
            buffer.storage.fill(0xEE);
            let bytes = filled(&mut buffer, &records);
            prop_assert_eq!(bytes.len() % 4096, 0);
            prop_assert!(bytes[buffer.len()..].iter().all(|byte| *byte == 0));
            let aligned = buffer.finish(geometry().nonce, OFFSET, 4096, 512, &mac_key(1));
            prop_assert_eq!(aligned.as_ptr().align_offset(BATCH_ALIGNMENT), 0);
            prop_assert_eq!(aligned.len() % 512, 0);
            prop_assert!(bytes.starts_with(aligned));

            let header = BatchHeader::parse(&bytes, &geometry(), OFFSET).unwrap();
            prop_assert_eq!(header.first_lsn, FIRST);
            let (nonce, key) = (geometry().nonce, mac_key(1));
            prop_assert!(header.authenticate(&bytes, nonce, OFFSET, &key));
            prop_assert!(!header.authenticate(&bytes, nonce, OFFSET + 4096, &key));
            prop_assert!(!header.authenticate(&bytes, nonce, OFFSET, &mac_key(2)));
            let mut offset = OFFSET + 64;
            let frames = decode(&bytes);
            prop_assert_eq!(frames.len(), records.len());
            for ((frame, record), lsn) in frames.into_iter().zip(&records).zip(FIRST.0..) {
                let frame = frame.unwrap();
                prop_assert_eq!(frame.offset, offset);
                prop_assert_eq!(frame.record.lsn(), Lsn(lsn));
                let mut record = record.clone();
                set_lsn(&mut record, Lsn(lsn));
                prop_assert_eq!(frame.record.bytes, record.as_slice());
                offset = frame.end();
            }
            prop_assert_eq!(offset, OFFSET + u64::from(header.length));
        }

        #[test]
        fn a_changed_byte_tears_its_own_frame(
            records in proptest::collection::vec(any_inner_record(), 1..6),
            at: prop::sample::Index,
            change in 1..=u8::MAX,
        ) {
            let mut bytes = batch_of(&records);
            let length = BatchHeader::parse(&bytes, &geometry(), OFFSET).unwrap().length as usize;
            let at = at.index(length);
            bytes[at] ^= change;
            if at < BATCH_HEADER_BYTES {
                prop_assert_eq!(BatchHeader::parse(&bytes, &geometry(), OFFSET), None);
                return Ok(());
            }
            let mut frames = decode(&bytes);
            let fault = frames.pop().unwrap().unwrap_err();
            prop_assert_eq!(fault.kind, FaultKind::Torn);
            let end = frames.last().map_or(OFFSET + 64, |frame| frame.as_ref().unwrap().end());
            prop_assert_eq!(fault.offset, end);
            let next = records[frames.len()].len() as u64 + 8;
            prop_assert!((end..end + next).contains(&(OFFSET + at as u64)));
        }

        #[test]
        fn frames_swapped_under_right_checksums_lose_the_mac(
            a in any_inner_record(),
            b in any_inner_record(),
        ) {
            prop_assume!(a != b);
            let (one, two) = (batch_of(&[a.clone(), b.clone()]), batch_of(&[b, a]));
            let header = BatchHeader::parse(&one, &geometry(), OFFSET).unwrap();
            let key = mac_key(1);
            prop_assert!(header.authenticate(&one, geometry().nonce, OFFSET, &key));
            prop_assert!(!header.authenticate(&two, geometry().nonce, OFFSET, &key));
        }

        #[test]
        fn hostile_bytes_are_harmless(
            frames in proptest::collection::vec(any::<u8>(), 48..2000),
            count in 1_u32..20,
            length: u32,
        ) {
            let raw = RawBatchHeader {
                crc: 0, magic: MAGIC, length, count,
                first_lsn: FIRST, durable_through: 4096, mac: [0; 16],
            };
            let mut bytes = raw.encode().to_vec();
            bytes.extend(frames);
            let bytes = with_header(&bytes, |_| ());
            if let Some(header) = BatchHeader::parse(&bytes, &geometry(), OFFSET) {
                let nonce = geometry().nonce;
                let frames = Frames::new(&bytes, &header, nonce, OFFSET, Expect::Lsn(FIRST));
                prop_assert!(frames.count() <= count as usize + 1);
                let _ = header.authenticate(&bytes, nonce, OFFSET, &mac_key(1));
            }
        }
    }
}
