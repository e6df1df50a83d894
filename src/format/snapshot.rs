//! The ends of a snapshot (journal-format.md, section 10): its header and its footer. The blocks
//! between them are in `block`.

use super::layout::{BadField, layout};
use super::segment::{FileProblem, WrappedKey, file_header_crc, file_version, is_damaged_version};
use super::{HEADER_BYTES, VERSION, crc};
use crate::ids::{Lsn, Nonce, StoreId};

/// The width of a footer.
pub const FOOTER_BYTES: usize = RawFooter::SIZE;

const MAGIC: [u8; 8] = *b"TWALSNAP";
const CRC_AT: usize = RawSnapshotHeader::TABLE.offset("crc");
const FOOTER_MAGIC: u32 = 0x5354_4F46;
const FOOTER_CRC_BYTES: usize = 4;

layout! {
    /// A snapshot header as it stands on disk, nothing checked; see [`SnapshotHeader`].
    pub struct RawSnapshotHeader = "snapshot_header", 4096 {
        /// The bytes `TWALSNAP`.
        magic: [u8; 8];
        /// Of the format.
        version: u32;
        /// Over everything else.
        crc: u32;
        /// The store.
        store: StoreId;
        /// Of this snapshot.
        nonce: Nonce;
        /// What is folded in.
        lsn: Lsn;
        /// When the header was made.
        created_at_ms = "created_at": u64;
        /// The segment with which the chain goes on.
        tail: Nonce;
        /// Its number.
        tail_number: u64;
        /// The store's tag key.
        tag_key: WrappedKey;
        /// The last `Claimed` that is folded in, or none.
        claimed: Lsn, reserved 3924;
    }
}

layout! {
    /// A footer as it stands on disk, nothing checked; see [`Footer`].
    pub struct RawFooter = "snapshot_footer", 64 {
        /// Over the snapshot's nonce and the rest of the footer.
        crc: u32;
        /// The bytes `FOTS`.
        magic: u32;
        /// Where the index begins.
        index: u64;
        /// Where the keys begin.
        keys: u64;
        /// Where the open section begins.
        open: u64;
        /// How many accounts.
        accounts: u64;
        /// How many records.
        records: u64;
        /// Where this footer stands.
        end: u64;
        /// As in the header.
        lsn: Lsn;
    }
}

/// Says why a file's header or footer is not a snapshot's of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The magic differs: this is no snapshot.
    #[error("this is not a snapshot")]
    NotASnapshot,
    /// The magic is right and the version is higher: made by a newer tokenwal.
    #[error("format version {0} is newer than the version 1 that this program reads")]
    NewerFormat(u32),
    /// Header or footer were damaged, or the file was cut short.
    #[error("the {0}'s checksum is wrong")]
    BadChecksum(&'static str),
    /// The checksum is right and a field breaks the format.
    #[error("the snapshot is malformed: {0}")]
    BadField(&'static str),
}

impl From<BadField> for SnapshotError {
    fn from(bad: BadField) -> Self {
        Self::BadField(bad.0)
    }
}

/// A valid snapshot header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The store.
    pub store: StoreId,
    /// Of this snapshot.
    pub nonce: Nonce,
    /// All records up to and with this LSN are folded in.
    pub lsn: Lsn,
    /// When the header was made, in milliseconds since 1970-01-01 UTC.
    pub created_at_ms: u64,
    /// Nonce of the segment with which the chain goes on.
    pub tail: Nonce,
    /// Its number.
    pub tail_number: u64,
    /// The store's tag key.
    pub tag_key: WrappedKey,
    /// The last `Claimed` that is folded in, or none.
    pub claimed: Lsn,
}

impl SnapshotHeader {
    /// Encodes the header; its fields have the values that [`SnapshotHeader::parse`] allows.
    pub fn encode(&self) -> Vec<u8> {
        let mut raw = RawSnapshotHeader {
            magic: MAGIC,
            version: VERSION,
            crc: 0,
            store: self.store,
            nonce: self.nonce,
            lsn: self.lsn,
            created_at_ms: self.created_at_ms,
            tail: self.tail,
            tail_number: self.tail_number,
            tag_key: self.tag_key,
            claimed: self.claimed,
        };
        assert!(check(&raw).is_ok(), "a snapshot is created with fields that the format allows");
        raw.crc = file_header_crc(&raw.encode(), CRC_AT);
        raw.encode().to_vec()
    }

    /// Says whether only the version of a header is damaged, so that it looks like a newer format.
    pub(crate) fn is_damaged_version(front: &[u8]) -> bool {
        is_damaged_version(front, CRC_AT)
    }

    /// Parses the first 4096 bytes of a file.
    ///
    /// # Errors
    /// [`SnapshotError`]; a version above 1 is told before anything else is looked at [F-46].
    pub fn parse(bytes: &[u8]) -> Result<Self, SnapshotError> {
        file_version(bytes, MAGIC).map_err(|problem| match problem {
            FileProblem::Foreign => SnapshotError::NotASnapshot,
            FileProblem::Newer(version) => SnapshotError::NewerFormat(version),
        })?;
        let bad_checksum = SnapshotError::BadChecksum("snapshot header");
        let bytes = bytes.first_chunk::<HEADER_BYTES>().ok_or(bad_checksum)?;
        let crc_field = bytes.get(CRC_AT..).and_then(|rest| rest.first_chunk::<4>());
        if crc_field != Some(&file_header_crc(bytes, CRC_AT).to_le_bytes()) {
            return Err(bad_checksum);
        }
        let raw = RawSnapshotHeader::decode(bytes)?;
        check(&raw)?;
        Ok(Self {
            store: raw.store,
            nonce: raw.nonce,
            lsn: raw.lsn,
            created_at_ms: raw.created_at_ms,
            tail: raw.tail,
            tail_number: raw.tail_number,
            tag_key: raw.tag_key,
            claimed: raw.claimed,
        })
    }
}

impl SnapshotHeader {
    /// Takes what is left of a damaged header, to salvage what stands behind it: its blocks prove by
    /// their own checksums that the nonce is right. None where there is no store or nonce.
    pub fn guess(bytes: &[u8], lsn: Lsn) -> Option<Self> {
        let mut bytes = *bytes.first_chunk::<HEADER_BYTES>()?;
        RawSnapshotHeader::TABLE.clear_reserved(&mut bytes);
        let raw = RawSnapshotHeader::decode(&bytes).ok()?;
        let guess = Self {
            store: raw.store,
            nonce: raw.nonce,
            lsn,
            created_at_ms: raw.created_at_ms,
            tail: raw.tail,
            tail_number: raw.tail_number,
            tag_key: WrappedKey { key_id: 0, ..raw.tag_key },
            claimed: raw.claimed.min(lsn),
        };
        (!guess.store.is_none() && !guess.nonce.is_none()).then_some(guess)
    }
}

/// Checks all fields but magic and crc.
fn check(raw: &RawSnapshotHeader) -> Result<(), BadField> {
    let rules = [
        ("version", raw.version == VERSION),
        ("store", !raw.store.is_none()),
        ("nonce", !raw.nonce.is_none()),
        ("lsn", !raw.lsn.is_none()),
        ("tail", !raw.tail.is_none()),
        ("tag_key", raw.tag_key.key_id == 0),
        ("claimed", raw.claimed <= raw.lsn),
    ];
    match rules.into_iter().find(|(_, holds)| !holds) {
        Some((field, _)) => Err(BadField(field)),
        None => Ok(()),
    }
}

/// A valid footer: where the sections begin, and what is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Offset of the first index block, or of what would follow it.
    pub index: u64,
    /// Offset of the first keys block, likewise.
    pub keys: u64,
    /// Offset of the first block of the open section, likewise.
    pub open: u64,
    /// How many accounts in all.
    pub accounts: u64,
    /// How many records in all.
    pub records: u64,
    /// Offset of this footer.
    pub end: u64,
    /// As in the header.
    pub lsn: Lsn,
}

impl Footer {
    /// Encodes the footer of the snapshot with this nonce.
    pub fn encode(&self, nonce: Nonce) -> [u8; FOOTER_BYTES] {
        let mut raw = RawFooter {
            crc: 0,
            magic: FOOTER_MAGIC,
            index: self.index,
            keys: self.keys,
            open: self.open,
            accounts: self.accounts,
            records: self.records,
            end: self.end,
            lsn: self.lsn,
        };
        raw.crc = footer_crc(nonce, &raw.encode());
        raw.encode()
    }

    /// Parses the last 64 bytes of a snapshot of `file_bytes` bytes [F-39].
    ///
    /// # Errors
    /// [`SnapshotError::BadChecksum`] where it is damaged or the file does not end with it, and
    /// [`SnapshotError::BadField`] where it disagrees with the header or the file's length.
    pub fn parse(
        bytes: &[u8],
        header: &SnapshotHeader,
        file_bytes: u64,
    ) -> Result<Self, SnapshotError> {
        let bad_checksum = SnapshotError::BadChecksum("snapshot footer");
        let bytes = <&[u8; FOOTER_BYTES]>::try_from(bytes).map_err(|_| bad_checksum)?;
        let raw = RawFooter::decode(bytes)?;
        if raw.crc != footer_crc(header.nonce, bytes) {
            return Err(bad_checksum);
        }
        let footer_bytes = u64::try_from(FOOTER_BYTES).expect("64 fits");
        let first = u64::try_from(HEADER_BYTES).expect("4096 fits");
        let rules = [
            ("magic", raw.magic == FOOTER_MAGIC),
            ("index", first <= raw.index),
            ("keys", raw.index <= raw.keys),
            ("open", raw.keys <= raw.open),
            ("end", raw.open <= raw.end && raw.end.checked_add(footer_bytes) == Some(file_bytes)),
            ("lsn", raw.lsn == header.lsn),
        ];
        if let Some((field, _)) = rules.into_iter().find(|(_, holds)| !holds) {
            return Err(SnapshotError::BadField(field));
        }
        Ok(Self {
            index: raw.index,
            keys: raw.keys,
            open: raw.open,
            accounts: raw.accounts,
            records: raw.records,
            end: raw.end,
            lsn: raw.lsn,
        })
    }
}

fn footer_crc(nonce: Nonce, footer: &[u8; FOOTER_BYTES]) -> u32 {
    let (_, covered) = footer.split_at(FOOTER_CRC_BYTES);
    crc(&[&nonce.to_bytes(), covered])
}

#[cfg(test)]
mod tests {
    use super::super::samples::segment_header;
    use super::*;
    use proptest::prelude::*;

    fn header() -> SnapshotHeader {
        SnapshotHeader {
            store: StoreId::from_bytes([1; 16]),
            nonce: Nonce::from_bytes([2; 16]),
            lsn: Lsn(77),
            created_at_ms: 5,
            tail: Nonce::from_bytes([3; 16]),
            tail_number: 4,
            tag_key: segment_header().tag_key,
            claimed: Lsn(7),
        }
    }

    fn footer() -> Footer {
        Footer {
            index: 4096,
            keys: 4200,
            open: 4200,
            accounts: 1,
            records: 2,
            end: 5000,
            lsn: Lsn(77),
        }
    }

    #[test]
    fn headers_round_trip_and_every_changed_bit_is_noticed() {
        let good = header().encode();
        assert_eq!(SnapshotHeader::parse(&good), Ok(header()));
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(SnapshotHeader::parse(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_version_is_told_whatever_else_is_wrong() {
        let mut bytes = header().encode();
        bytes[8] = 9;
        assert_eq!(SnapshotHeader::parse(&bytes), Err(SnapshotError::NewerFormat(9)));
        assert_eq!(SnapshotHeader::parse(&[]), Err(SnapshotError::NotASnapshot));
        let segment = segment_header().encode();
        assert_eq!(SnapshotHeader::parse(&segment), Err(SnapshotError::NotASnapshot));
    }

    #[test]
    fn each_field_of_the_header_is_checked() {
        let changed = |change: fn(&mut RawSnapshotHeader)| {
            let mut raw = RawSnapshotHeader::decode(&header().encode()).unwrap();
            change(&mut raw);
            raw.crc = file_header_crc(&raw.encode(), CRC_AT);
            SnapshotHeader::parse(&raw.encode())
        };
        let bad = |field| Err(SnapshotError::BadField(field));
        assert_eq!(changed(|raw| raw.version = 0), bad("version"));
        assert_eq!(changed(|raw| raw.lsn = Lsn::NONE), bad("lsn"));
        assert_eq!(changed(|raw| raw.store = StoreId::NONE), bad("store"));
        assert_eq!(changed(|raw| raw.nonce = Nonce::NONE), bad("nonce"));
        assert_eq!(changed(|raw| raw.tail = Nonce::NONE), bad("tail"));
        assert_eq!(changed(|raw| raw.tag_key.key_id = 3), bad("tag_key"));
        assert_eq!(changed(|raw| raw.claimed = Lsn(78)), bad("claimed"));
    }

    #[test]
    fn footers_round_trip_and_every_changed_bit_is_noticed() {
        let good = footer().encode(header().nonce);
        let parse = |bytes: &[u8]| Footer::parse(bytes, &header(), 5064);
        assert_eq!(parse(&good), Ok(footer()));
        for at in 0..good.len() {
            let mut bytes = good;
            bytes[at] ^= 1 << (at % 8);
            assert_eq!(parse(&bytes), Err(SnapshotError::BadChecksum("snapshot footer")), "{at}");
        }
        assert!(parse(&good[1..]).is_err());
    }

    #[test]
    fn a_footer_agrees_with_the_header_and_the_file() {
        let parse = |change: fn(&mut Footer)| {
            let mut footer = footer();
            change(&mut footer);
            Footer::parse(&footer.encode(header().nonce), &header(), 5064).map(drop)
        };
        let bad = |field| Err(SnapshotError::BadField(field));
        assert_eq!(parse(|_| ()), Ok(()));
        assert_eq!(parse(|footer| footer.index = 4095), bad("index"));
        assert_eq!(parse(|footer| footer.keys = 4095), bad("keys"));
        assert_eq!(parse(|footer| footer.open = 4199), bad("open"));
        assert_eq!(parse(|footer| footer.open = 5001), bad("end"));
        assert_eq!(parse(|footer| footer.end = 5001), bad("end"));
        assert_eq!(parse(|footer| footer.lsn = Lsn(76)), bad("lsn"));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_harmless(bytes: Vec<u8>, file_bytes: u64) {
            let _ = SnapshotHeader::parse(&bytes);
            let _ = Footer::parse(&bytes, &header(), file_bytes);
        }
    }
}
