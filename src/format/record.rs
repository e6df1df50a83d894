//! Records (journal-format.md, sections 6 and 7): a header, a clear part, a sealed part.
//!
//! The same bytes stand in frames and in snapshots. Parsing never looks into the sealed part, and
//! never allocates.

use super::clear::{Clear, Prefix};
use super::crc;
use super::layout::{BadField, Fixed, layout};
use crate::ids::Lsn;

/// The longest record, in bytes [F-20].
pub const RECORD_BYTES_MAX: usize = 1_048_576;

/// What every sealed part holds beside the ciphertext: a nonce of 12 bytes and a tag of 16.
pub const SEALED_BYTES_MIN: usize = SEALED_NONCE_BYTES + SEALED_TAG_BYTES;

/// The nonce at the front of a sealed part.
pub const SEALED_NONCE_BYTES: usize = 12;

/// The authentication tag at the end of a sealed part.
pub const SEALED_TAG_BYTES: usize = 16;

/// Where a record's LSN stands in its bytes.
const LSN_AT: usize = RecordHeader::TABLE.offset("lsn");

macro_rules! kinds {
    ($($(#[$meta:meta])* $kind:ident = $number:literal;)*) => {
        /// The kinds of record that version 1 knows [F-46].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        #[repr(u16)]
        pub enum Kind {
            $($(#[$meta])* $kind = $number),*
        }

        impl Kind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// Returns the number on disk.
            pub const fn number(self) -> u16 {
                match self { $(Self::$kind => $number),* }
            }

            /// Returns the kind of a number on disk, if this version knows it.
            pub const fn of(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$kind),)*
                    _ => None,
                }
            }

            /// Returns its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind)),* }
            }
        }
    };
}

kinds! {
    /// A call that may issue, revoke or ask is about to start.
    Intent = 1;
    /// A pair.
    Issued = 2;
    /// The provider said no.
    Refused = 3;
    /// The request never left.
    NotSent = 4;
    /// What the request did is unknown.
    InDoubt = 5;
    /// What was open or in doubt is so no longer.
    Resolved = 6;
    /// The user behind a provisional account became known.
    Identified = 7;
    /// Two accounts are one user.
    Merged = 8;
    /// A holder depends on the grant.
    Adopted = 9;
    /// A holder depends on the grant no longer.
    Released = 10;
    /// A holder moves from one grant to another.
    Superseded = 11;
    /// The grant is over.
    Ended = 12;
    /// What ended the grant is undone.
    Revived = 13;
    /// All that was known of the account is dropped.
    Forgotten = 14;
    /// A pair that was obtained elsewhere.
    Imported = 15;
    /// A generation was used with success.
    Worked = 16;
    /// The store was taken over by another host.
    Claimed = 17;
    /// A paused grant may be refreshed from now on.
    Activated = 18;
    /// When the newest access token expires was learned without a new pair.
    Told = 19;
    /// The first frame of a segment.
    Opened = 32;
    /// The last frame of a segment that was rolled over.
    Sealed = 33;
    /// Proves the batches before it.
    Marker = 34;
}

impl Kind {
    /// Says whether it is about the journal itself: such a record has no prefix and no sealed part.
    pub const fn is_structural(self) -> bool {
        self.number() >= 32
    }
}

layout! {
    /// What every record begins with.
    pub struct RecordHeader = "record_header", 32 {
        /// Of the record in bytes: this header, the clear part and the sealed part.
        length: u32;
        /// The number of the kind, known or not; see [`RecordHeader::known_kind`].
        kind: u16;
        /// The length of the clear part.
        clear_bytes: u16;
        /// The record's place in the journal.
        lsn: Lsn;
        /// When the record was made, in milliseconds since 1970-01-01 UTC.
        at_ms = "at": u64;
        /// The id of the data key of the sealed part; 0 where there is none.
        key: u64;
    }
}

impl RecordHeader {
    /// Reads the header at the front of `bytes`, checking nothing but that it is there.
    pub fn peek(mut bytes: &[u8]) -> Option<Self> {
        Self::read(&mut bytes).ok()
    }

    /// Returns the kind, if this version knows it.
    pub const fn known_kind(&self) -> Option<Kind> {
        Kind::of(self.kind)
    }
}

impl Prefix {
    /// Reads the prefix of the application record at the front of `bytes`, in place, for a fold
    /// that asks first whether it needs the rest; none for a structural or unknown kind.
    pub fn peek(bytes: &[u8]) -> Option<Self> {
        let kind = RecordHeader::peek(bytes)?.known_kind()?;
        let mut clear = bytes.get(RecordHeader::SIZE..)?;
        if kind.is_structural() { None } else { Self::read(&mut clear).ok() }
    }
}

/// Says why bytes are not a well-formed record [F-20].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// This version does not know the kind: corrupt, or of a newer format.
    #[error("record kind {0} is unknown to format version 1")]
    UnknownKind(u16),
    /// The record breaks the format.
    #[error("the record is malformed: {0}")]
    Malformed(&'static str),
}

impl From<BadField> for RecordError {
    fn from(bad: BadField) -> Self {
        Self::Malformed(bad.0)
    }
}

/// A well-formed record, read in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The header.
    pub header: RecordHeader,
    /// The decoded clear part.
    pub clear: Clear,
    /// The whole record.
    pub bytes: &'a [u8],
    /// The sealed part: nonce, ciphertext, tag; empty for a structural record.
    pub sealed_part: &'a [u8],
}

impl<'a> Record<'a> {
    /// Parses exactly these bytes by the rule of [F-20].
    ///
    /// # Errors
    /// [`RecordError`]; an unknown kind is told apart from every other fault.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut rest = bytes;
        let header = RecordHeader::read(&mut rest)?;
        let kind = header.known_kind().ok_or(RecordError::UnknownKind(header.kind))?;
        if usize::try_from(header.length) != Ok(bytes.len()) || bytes.len() > RECORD_BYTES_MAX {
            return Err(RecordError::Malformed("length"));
        }
        let clear_bytes = Clear::bytes_of(kind);
        if usize::from(header.clear_bytes) != clear_bytes {
            return Err(RecordError::Malformed("clear_bytes"));
        }
        let (clear, sealed_part) =
            rest.split_at_checked(clear_bytes).ok_or(RecordError::Malformed("length"))?;
        if kind.is_structural() != (header.key == 0) {
            return Err(RecordError::Malformed("key"));
        }
        let sealed_fits = if kind.is_structural() {
            sealed_part.is_empty()
        } else {
            sealed_part.len() >= SEALED_BYTES_MIN
        };
        if !sealed_fits {
            return Err(RecordError::Malformed("length"));
        }
        Ok(Self { header, clear: Clear::decode(kind, clear)?, bytes, sealed_part })
    }

    /// Returns the kind.
    pub const fn kind(&self) -> Kind {
        self.clear.kind()
    }

    /// Returns the record's place in the journal.
    pub const fn lsn(&self) -> Lsn {
        self.header.lsn
    }
}

impl std::fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("header", &self.header)
            .field("clear", &self.clear)
            .field("sealed_bytes", &self.sealed_part.len())
            .finish_non_exhaustive()
    }
}

/// Encodes a record whose sealed part is ready, with LSN 0: it gets its place by [`set_lsn`].
///
/// A structural record has `key` 0 and nothing sealed, every other both; anything else is a bug
/// of the caller.
pub fn encode_record(clear: &Clear, at_ms: u64, key: u64, sealed: &[u8]) -> Vec<u8> {
    let (mut bytes, sealed_at) = blank_record(clear, at_ms, key, sealed.len());
    let (_, room) = bytes.split_at_mut(sealed_at);
    room.copy_from_slice(sealed);
    bytes
}

/// Encodes header and clear part, and leaves room for the sealed part at the offset returned.
pub(crate) fn blank_record(
    clear: &Clear,
    at_ms: u64,
    key: u64,
    sealed_bytes: usize,
) -> (Vec<u8>, usize) {
    let kind = clear.kind();
    assert!(kind.is_structural() == (key == 0), "only a structural record has no key");
    let clear_bytes = Clear::bytes_of(kind);
    let sealed_at = RecordHeader::SIZE + clear_bytes;
    let length = sealed_at + sealed_bytes;
    assert!(length <= RECORD_BYTES_MAX, "callers keep records within the format's limit");
    let header = RecordHeader {
        length: u32::try_from(length).expect("a record has at most 1048576 bytes"),
        kind: kind.number(),
        clear_bytes: u16::try_from(clear_bytes).expect("a clear part has at most 176 bytes"),
        lsn: Lsn::NONE,
        at_ms,
        key,
    };
    let mut bytes = vec![0; length];
    let mut out = bytes.as_mut_slice();
    header.write(&mut out);
    clear.write(&mut out);
    (bytes, sealed_at)
}

/// Gives an encoded record its place in the journal. The body CRC does not cover it.
pub fn set_lsn(bytes: &mut [u8], lsn: Lsn) {
    let field = bytes
        .get_mut(LSN_AT..)
        .and_then(|rest| rest.first_chunk_mut::<8>())
        .expect("an encoded record has a header");
    *field = lsn.0.to_le_bytes();
}

/// Computes the CRC over the clear and sealed parts of an encoded record; callers do so before
/// they take the lock.
pub fn body_crc(record: &[u8]) -> u32 {
    crc(&[record.get(RecordHeader::SIZE..).unwrap_or_default()])
}

#[cfg(test)]
mod tests {
    use super::super::clear::CLEAR_BYTES_MAX;
    use super::super::samples::{any_clear, any_record, clear_of};
    use super::*;
    use proptest::prelude::*;

    fn record_of(kind: Kind) -> Vec<u8> {
        let clear = clear_of(kind, [1; CLEAR_BYTES_MAX]);
        let sealed = if kind.is_structural() { &[][..] } else { &[9; SEALED_BYTES_MIN] };
        encode_record(&clear, 5, u64::from(!kind.is_structural()), sealed)
    }

    #[test]
    fn every_kind_has_its_number_back() {
        for number in 0..=u16::MAX {
            match Kind::of(number) {
                Some(kind) => assert_eq!(kind.number(), number),
                None => assert!(!Kind::ALL.iter().any(|kind| kind.number() == number)),
            }
        }
        assert_eq!(Kind::ALL.len(), 22);
    }

    #[test]
    fn an_unknown_kind_is_told_apart() {
        let mut bytes = record_of(Kind::Adopted);
        bytes[4..6].copy_from_slice(&20_u16.to_le_bytes());
        assert_eq!(Record::parse(&bytes), Err(RecordError::UnknownKind(20)));
        assert_eq!(Prefix::peek(&bytes), None);
    }

    #[test]
    fn each_rule_of_a_well_formed_record_is_checked() {
        let change = |kind, at: usize, value: u8| {
            let mut bytes = record_of(kind);
            bytes[at] = value;
            Record::parse(&bytes).map(|record| record.kind())
        };
        let malformed = |what| Err(RecordError::Malformed(what));
        assert_eq!(change(Kind::Marker, 0, 41), malformed("length"));
        assert_eq!(change(Kind::Marker, 6, 7), malformed("clear_bytes"));
        assert_eq!(change(Kind::Marker, 24, 1), malformed("key"));
        assert_eq!(change(Kind::Adopted, 24, 0), malformed("key"));
        assert_eq!(change(Kind::Marker, 32, 3), malformed("reason"));
        assert_eq!(change(Kind::Marker, 33, 1), malformed("reserved"));
        assert_eq!(change(Kind::Adopted, 32 + 28, 1), malformed("flags"));
        assert_eq!(change(Kind::Marker, 32, 2), Ok(Kind::Marker));

        let mut bytes = record_of(Kind::Adopted);
        bytes.pop();
        bytes[0] -= 1;
        assert_eq!(Record::parse(&bytes), Err(RecordError::Malformed("length")));
        let mut bytes = record_of(Kind::Marker);
        bytes.push(0);
        bytes[0] += 1;
        assert_eq!(Record::parse(&bytes), Err(RecordError::Malformed("length")));
    }

    #[test]
    fn the_longest_record_is_the_longest() {
        let clear = clear_of(Kind::Worked, [0; CLEAR_BYTES_MAX]);
        let sealed = vec![0; RECORD_BYTES_MAX - 72];
        let mut bytes = encode_record(&clear, 0, 1, &sealed);
        assert_eq!(bytes.len(), RECORD_BYTES_MAX);
        assert!(Record::parse(&bytes).is_ok());
        bytes.push(0);
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        assert_eq!(Record::parse(&bytes), Err(RecordError::Malformed("length")));
    }

    proptest! {
        #[test]
        fn records_round_trip(mut bytes in any_record(), lsn: u64) {
            let crc = body_crc(&bytes);
            set_lsn(&mut bytes, Lsn(lsn));
            prop_assert_eq!(body_crc(&bytes), crc);
            let record = Record::parse(&bytes).unwrap();
            prop_assert_eq!(record.lsn(), Lsn(lsn));
            prop_assert_eq!(Prefix::peek(&bytes), record.clear.prefix().copied());
            let mut again = encode_record(
                &record.clear,
                record.header.at_ms,
                record.header.key,
                record.sealed_part,
            );
            set_lsn(&mut again, Lsn(lsn));
            prop_assert_eq!(again, bytes);
        }

        #[test]
        fn a_clear_part_is_its_table(clear in any_clear()) {
            prop_assert_eq!(Clear::table_of(clear.kind()).bytes(), Clear::bytes_of(clear.kind()));
        }

        #[test]
        fn a_changed_byte_is_harmless(mut bytes in any_record(), at: usize, value: u8) {
            let at = at % bytes.len();
            bytes[at] = value;
            if let Ok(record) = Record::parse(&bytes) {
                prop_assert_eq!(record.bytes.len(), bytes.len());
            }
        }

        #[test]
        fn hostile_bytes_are_harmless(bytes: Vec<u8>) {
            let _ = (Record::parse(&bytes), Prefix::peek(&bytes), RecordHeader::peek(&bytes));
        }
    }
}
