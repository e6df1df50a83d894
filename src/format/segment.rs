//! The header of a segment (journal-format.md, section 4): written once, never changed.

use super::batch::Geometry;
use super::layout::{BadField, Fixed, layout};
use super::{HEADER_BYTES, VERSION, crc};
use crate::ids::{Nonce, StoreId};

/// The smallest and largest block, in bytes.
pub const BLOCK_BYTES_MIN: u32 = 512;
/// The largest block, in bytes.
pub const BLOCK_BYTES_MAX: usize = 65_536;
/// The largest `batch_bytes_max`.
pub const BATCH_BYTES_LIMIT: u32 = 16_777_216;
/// The longest segment, in bytes.
pub const SEGMENT_BYTES_LIMIT: u64 = 4_294_963_200;
/// How many data keys a segment carries at most [F-16].
pub const KEY_SLOTS: usize = 4;

const MAGIC: [u8; 8] = *b"TOKENWAL";
const CRC_AT: usize = RawSegmentHeader::TABLE.offset("crc");

layout! {
    /// A key, sealed under a key-encryption key [F-33].
    pub struct WrappedKey = "wrapped_key", 76 {
        /// Of the wrapped key; 0 for a tag key.
        key_id: u64;
        /// Of the key-encryption key.
        kek_id: u64;
        /// Drawn at random.
        nonce: [u8; 12];
        /// The sealed key and its authentication tag.
        ciphertext: [u8; 48];
    }
}

/// The four slots for data keys; unused ones are zero.
pub type KeySlots = [WrappedKey; KEY_SLOTS];

impl WrappedKey {
    /// An unused slot.
    pub const UNUSED: Self = Self { key_id: 0, kek_id: 0, nonce: [0; 12], ciphertext: [0; 48] };
}

impl Fixed for KeySlots {
    const WIDTH: usize = KEY_SLOTS * WrappedKey::SIZE;

    fn read(bytes: &mut &[u8]) -> Result<Self, BadField> {
        let mut slots = [WrappedKey::UNUSED; KEY_SLOTS];
        for slot in &mut slots {
            *slot = WrappedKey::read(bytes)?;
        }
        Ok(slots)
    }

    fn write(&self, out: &mut &mut [u8]) {
        self.iter().for_each(|slot| slot.write(out));
    }
}

layout! {
    /// A segment header as it stands on disk, nothing checked; see [`SegmentHeader`].
    pub struct RawSegmentHeader = "segment_header", 4096 {
        /// The bytes `TOKENWAL`.
        magic: [u8; 8];
        /// Of the format.
        version: u32;
        /// Over everything else.
        crc: u32;
        /// The block size.
        block_bytes: u32;
        /// The largest batch.
        batch_bytes_max: u32;
        /// The file's length.
        segment_bytes: u64;
        /// The store.
        store: StoreId;
        /// Of this segment.
        nonce: Nonce;
        /// As in the file's name.
        number: u64;
        /// When the header was made.
        created_at_ms = "created_at": u64;
        /// Counts the openings of the store for writing.
        incarnation: u64;
        /// How many key slots are in use.
        keys: u32, reserved 4;
        /// The store's tag key.
        tag_key: WrappedKey;
        /// The data keys, the segment's own first.
        data_keys: KeySlots, reserved 3620;
    }
}

/// Says why a file's header is not a segment's of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The magic differs: this is no segment.
    #[error("this is not a segment")]
    NotASegment,
    /// The magic is right and the version is higher: made by a newer tokenwal.
    #[error("format version {0} is newer than the version 1 that this program reads")]
    NewerFormat(u32),
    /// The header was damaged.
    #[error("the segment header's checksum is wrong")]
    BadChecksum,
    /// The checksum is right and a field breaks the format.
    #[error("the segment header is malformed: {0}")]
    BadField(&'static str),
}

/// A valid segment header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The block size in bytes: a power of two, 512 to 65536.
    pub block_bytes: u32,
    /// The largest batch in bytes.
    pub batch_bytes_max: u32,
    /// The file's length in bytes.
    pub segment_bytes: u64,
    /// The store.
    pub store: StoreId,
    /// Of this segment.
    pub nonce: Nonce,
    /// As in the file's name.
    pub number: u64,
    /// When the header was made, in milliseconds since 1970-01-01 UTC.
    pub created_at_ms: u64,
    /// Counts the openings of the store for writing, from 1.
    pub incarnation: u64,
    /// The store's tag key.
    pub tag_key: WrappedKey,
    /// One to four data keys, the segment's own first.
    pub data_keys: Vec<WrappedKey>,
}

impl SegmentHeader {
    /// Encodes the header; its fields have the values that [`SegmentHeader::parse`] allows.
    pub fn encode(&self) -> Vec<u8> {
        let mut data_keys = [WrappedKey::UNUSED; KEY_SLOTS];
        for (slot, key) in data_keys.iter_mut().zip(&self.data_keys) {
            *slot = *key;
        }
        let mut raw = RawSegmentHeader {
            magic: MAGIC,
            version: VERSION,
            crc: 0,
            block_bytes: self.block_bytes,
            batch_bytes_max: self.batch_bytes_max,
            segment_bytes: self.segment_bytes,
            store: self.store,
            nonce: self.nonce,
            number: self.number,
            created_at_ms: self.created_at_ms,
            incarnation: self.incarnation,
            keys: u32::try_from(self.data_keys.len()).unwrap_or(u32::MAX),
            tag_key: self.tag_key,
            data_keys,
        };
        assert!(check(&raw).is_ok(), "a segment is created with fields that the format allows");
        raw.crc = file_header_crc(&raw.encode(), CRC_AT);
        raw.encode().to_vec()
    }

    /// Parses the first 4096 bytes of a file.
    ///
    /// # Errors
    /// [`SegmentError`]; a version above 1 is told before anything else is looked at [F-14].
    pub fn parse(bytes: &[u8]) -> Result<Self, SegmentError> {
        file_version(bytes, MAGIC).map_err(|problem| match problem {
            FileProblem::Foreign => SegmentError::NotASegment,
            FileProblem::Newer(version) => SegmentError::NewerFormat(version),
        })?;
        let bytes = bytes.first_chunk::<HEADER_BYTES>().ok_or(SegmentError::BadChecksum)?;
        let crc_field = bytes.get(CRC_AT..).and_then(|rest| rest.first_chunk::<4>());
        if crc_field != Some(&file_header_crc(bytes, CRC_AT).to_le_bytes()) {
            return Err(SegmentError::BadChecksum);
        }
        let raw = RawSegmentHeader::decode(bytes).map_err(|bad| SegmentError::BadField(bad.0))?;
        let keys = check(&raw).map_err(|bad| SegmentError::BadField(bad.0))?;
        Ok(Self {
            block_bytes: raw.block_bytes,
            batch_bytes_max: raw.batch_bytes_max,
            segment_bytes: raw.segment_bytes,
            store: raw.store,
            nonce: raw.nonce,
            number: raw.number,
            created_at_ms: raw.created_at_ms,
            incarnation: raw.incarnation,
            tag_key: raw.tag_key,
            data_keys: raw.data_keys.into_iter().take(keys).collect(),
        })
    }

    /// Says whether only the version of a header is damaged, so that it looks like a newer format.
    pub(crate) fn is_damaged_version(front: &[u8]) -> bool {
        is_damaged_version(front, CRC_AT)
    }

    /// Takes what is left of a damaged header, to salvage what stands behind it: its batches prove by
    /// their own checksums that the nonce is right, and sealed keys that they are. None where there
    /// is no store or nonce.
    pub fn guess(bytes: &[u8], number: u64, file_bytes: u64) -> Option<Self> {
        let mut bytes = *bytes.first_chunk::<HEADER_BYTES>()?;
        RawSegmentHeader::TABLE.clear_reserved(&mut bytes);
        let raw = RawSegmentHeader::decode(&bytes).ok()?;
        let blocks = file_bytes.min(SEGMENT_BYTES_LIMIT) / u64::from(BLOCK_BYTES_MIN);
        let guess = Self {
            block_bytes: BLOCK_BYTES_MIN,
            batch_bytes_max: BATCH_BYTES_LIMIT,
            segment_bytes: blocks * u64::from(BLOCK_BYTES_MIN),
            store: raw.store,
            nonce: raw.nonce,
            number,
            created_at_ms: raw.created_at_ms,
            incarnation: raw.incarnation,
            tag_key: WrappedKey { key_id: 0, ..raw.tag_key },
            data_keys: raw.data_keys.into_iter().filter(|key| key.key_id != 0).collect(),
        };
        (!guess.store.is_none() && !guess.nonce.is_none()).then_some(guess)
    }

    /// Returns what the validity of this segment's batches depends on.
    pub fn geometry(&self) -> Geometry {
        Geometry {
            nonce: self.nonce,
            block_bytes: self.block_bytes,
            batch_bytes_max: self.batch_bytes_max,
            segment_bytes: self.segment_bytes,
        }
    }
}

/// Checks all fields but magic, version and crc; returns how many key slots are in use.
fn check(raw: &RawSegmentHeader) -> Result<usize, BadField> {
    let blocks = BLOCK_BYTES_MIN..=u32::try_from(BLOCK_BYTES_MAX).expect("65536 fits");
    let keys = usize::try_from(raw.keys).unwrap_or(usize::MAX);
    let (used, unused) = raw.data_keys.split_at_checked(keys).ok_or(BadField("keys"))?;
    let rules = [
        ("version", raw.version == VERSION),
        ("block_bytes", blocks.contains(&raw.block_bytes) && raw.block_bytes.is_power_of_two()),
        ("batch_bytes_max", raw.batch_bytes_max <= BATCH_BYTES_LIMIT),
        (
            "segment_bytes",
            raw.segment_bytes <= SEGMENT_BYTES_LIMIT
                && raw.segment_bytes.checked_rem(u64::from(raw.block_bytes)) == Some(0),
        ),
        ("store", !raw.store.is_none()),
        ("nonce", !raw.nonce.is_none()),
        ("keys", !used.is_empty()),
        ("tag_key", raw.tag_key.key_id == 0),
        (
            "data_keys",
            used.iter().all(|key| key.key_id != 0)
                && unused.iter().all(|key| *key == WrappedKey::UNUSED),
        ),
    ];
    match rules.into_iter().find(|(_, holds)| !holds) {
        Some((field, _)) => Err(BadField(field)),
        None => Ok(keys),
    }
}

/// Why the first bytes of a file are not those of a file of this kind and version.
pub(super) enum FileProblem {
    Foreign,
    Newer(u32),
}

/// Looks at magic and version alone, which all versions have in the same place.
pub(super) fn file_version(bytes: &[u8], magic: [u8; 8]) -> Result<(), FileProblem> {
    let mut rest = bytes;
    if <[u8; 8]>::read(&mut rest) != Ok(magic) {
        return Err(FileProblem::Foreign);
    }
    match u32::read(&mut rest) {
        Ok(version) if version > VERSION => Err(FileProblem::Newer(version)),
        _ => Ok(()),
    }
}

/// Says whether a file that claims to be of a newer format is a damaged one of this: then with the
/// right version its header's checksum is right. Readers refuse it all the same [F-14].
pub(super) fn is_damaged_version(front: &[u8], crc_at: usize) -> bool {
    let Some(mut header) = front.first_chunk::<HEADER_BYTES>().copied() else { return false };
    let crc_field = header.get(crc_at..).and_then(|rest| rest.first_chunk::<4>()).copied();
    if let Some(version) = header.get_mut(8..12) {
        version.copy_from_slice(&VERSION.to_le_bytes());
    }
    crc_field == Some(file_header_crc(&header, crc_at).to_le_bytes())
}

/// Computes the CRC of a file's header: over all of it but the CRC itself.
pub(super) fn file_header_crc(header: &[u8; HEADER_BYTES], crc_at: usize) -> u32 {
    let (before, rest) = header.split_at(crc_at);
    crc(&[before, rest.get(4..).unwrap_or_default()])
}

#[cfg(test)]
mod tests {
    use super::super::samples::segment_header;
    use super::*;
    use proptest::prelude::*;

    /// Encodes with a change and a right checksum.
    fn changed(change: impl FnOnce(&mut RawSegmentHeader)) -> Result<SegmentHeader, SegmentError> {
        let mut raw = RawSegmentHeader::decode(&segment_header().encode()).unwrap();
        change(&mut raw);
        raw.crc = file_header_crc(&raw.encode(), CRC_AT);
        SegmentHeader::parse(&raw.encode())
    }

    #[test]
    fn headers_round_trip() {
        let header = segment_header();
        assert_eq!(SegmentHeader::parse(&header.encode()), Ok(header));
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let good = segment_header().encode();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(SegmentHeader::parse(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_damaged_header_can_still_be_guessed_at() {
        let header = segment_header();
        let mut bytes = header.encode();
        bytes[4000] ^= 1;
        bytes[16] ^= 1;
        assert_eq!(SegmentHeader::parse(&bytes), Err(SegmentError::BadChecksum));
        let guess = SegmentHeader::guess(&bytes, header.number, header.segment_bytes).unwrap();
        assert_eq!((guess.nonce, guess.data_keys), (header.nonce, header.data_keys));
        assert_eq!(SegmentHeader::guess(&[0; 4096], 1, 8192), None);
        assert_eq!(SegmentHeader::guess(&bytes[..4095], 1, 8192), None);
    }

    #[test]
    fn a_newer_version_is_told_whatever_else_is_wrong() {
        let mut bytes = segment_header().encode();
        bytes[8] = 2;
        assert_eq!(SegmentHeader::parse(&bytes), Err(SegmentError::NewerFormat(2)));
        assert_eq!(SegmentHeader::parse(&bytes[..12]), Err(SegmentError::NewerFormat(2)));
        bytes[0] = b't';
        assert_eq!(SegmentHeader::parse(&bytes), Err(SegmentError::NotASegment));
        assert_eq!(SegmentHeader::parse(&[]), Err(SegmentError::NotASegment));
    }

    #[test]
    fn each_field_is_checked() {
        let bad = |field| Err(SegmentError::BadField(field));
        assert_eq!(changed(|raw| raw.version = 0), bad("version"));
        assert_eq!(changed(|raw| raw.block_bytes = 256), bad("block_bytes"));
        assert_eq!(changed(|raw| raw.block_bytes = 4097), bad("block_bytes"));
        assert_eq!(changed(|raw| raw.block_bytes = 131_072), bad("block_bytes"));
        assert_eq!(changed(|raw| raw.block_bytes = 0), bad("block_bytes"));
        assert_eq!(changed(|raw| raw.batch_bytes_max = 16_777_217), bad("batch_bytes_max"));
        assert_eq!(changed(|raw| raw.segment_bytes += 1), bad("segment_bytes"));
        assert_eq!(changed(|raw| raw.segment_bytes = 1 << 32), bad("segment_bytes"));
        assert_eq!(changed(|raw| raw.store = StoreId::NONE), bad("store"));
        assert_eq!(changed(|raw| raw.nonce = Nonce::NONE), bad("nonce"));
        assert_eq!(changed(|raw| raw.keys = 0), bad("keys"));
        assert_eq!(changed(|raw| raw.keys = 5), bad("keys"));
        assert_eq!(changed(|raw| raw.keys = 1), bad("data_keys"));
        assert_eq!(changed(|raw| raw.keys = 3), bad("data_keys"));
        assert_eq!(changed(|raw| raw.tag_key.key_id = 1), bad("tag_key"));
        assert!(changed(|raw| raw.number = u64::MAX).is_ok());
    }

    #[test]
    fn reserved_bytes_are_refused_even_under_a_right_checksum() {
        let mut bytes: [u8; 4096] = segment_header().encode().try_into().unwrap();
        bytes[4095] = 1;
        let crc = file_header_crc(&bytes, CRC_AT);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::parse(&bytes), Err(SegmentError::BadField("reserved")));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_harmless(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..5000),
        ) {
            let _ = SegmentHeader::parse(&bytes);
            for (byte, magic) in bytes.iter_mut().zip(b"TOKENWAL\x01\0\0\0") {
                *byte = *magic;
            }
            let _ = SegmentHeader::parse(&bytes);
        }
    }
}
