//! Values for the tests of this room: clear parts of every kind, and entropy from a seed.

use super::clear::{CLEAR_BYTES_MAX, Clear, Flags, Prefix};
use super::record::{Kind, Record, SEALED_BYTES_MIN, encode_record};
use super::segment::{SegmentHeader, WrappedKey};
use crate::clock::Entropy;
use crate::ids::{Nonce, StoreId};
use proptest::prelude::*;
use proptest::sample::select;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Draws the same bytes again for the same seed.
#[derive(Debug, Default)]
pub(crate) struct Seeded(pub(crate) AtomicU64);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        for byte in bytes {
            let step = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
            let mixed = (step ^ (step >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            *byte = mixed.to_be_bytes()[0];
        }
        Ok(())
    }
}

/// Makes a valid clear part from arbitrary bytes, by the kind's own table.
pub(crate) fn clear_of(kind: Kind, seed: [u8; CLEAR_BYTES_MAX]) -> Clear {
    let mut bytes = seed[..Clear::bytes_of(kind)].to_vec();
    let mut offset = 0;
    let mut values = Vec::new();
    for row in Clear::table_of(kind).rows {
        if row.width == 1 {
            values.push(offset);
            bytes[offset] = bytes[offset] % 8 + 1;
        }
        offset += row.width;
        bytes[offset..offset + row.reserved].fill(0);
        offset += row.reserved;
    }
    if !kind.is_structural() {
        let at = Prefix::TABLE.offset("flags");
        let flags = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        bytes[at..at + 4].copy_from_slice(&(flags & Flags::allowed(kind).0).to_le_bytes());
    }
    Clear::decode(kind, &bytes).unwrap_or_else(|_| {
        // A number beyond the field's last value; one is a value of every field.
        values.into_iter().for_each(|at| bytes[at] = 1);
        Clear::decode(kind, &bytes).unwrap()
    })
}

pub(crate) fn any_clear() -> impl Strategy<Value = Clear> {
    (select(Kind::ALL), proptest::collection::vec(any::<u8>(), CLEAR_BYTES_MAX))
        .prop_map(|(kind, seed)| clear_of(kind, seed.try_into().unwrap()))
}

/// An encoded record with LSN 0; of an application kind it has a key and a sealed part.
pub(crate) fn any_record() -> impl Strategy<Value = Vec<u8>> {
    let sealed = proptest::collection::vec(any::<u8>(), SEALED_BYTES_MIN..300);
    (any_clear(), any::<u64>(), 1..=u64::MAX, sealed).prop_map(|(clear, at_ms, key, sealed)| {
        if clear.kind().is_structural() {
            encode_record(&clear, at_ms, 0, &[])
        } else {
            encode_record(&clear, at_ms, key, &sealed)
        }
    })
}

/// As [`any_record`], of the kinds that may stand anywhere.
pub(crate) fn any_inner_record() -> impl Strategy<Value = Vec<u8>> {
    any_record().prop_filter("Opened stands first", |bytes| {
        Record::parse(bytes).unwrap().kind() != Kind::Opened
    })
}

pub(crate) fn segment_header() -> SegmentHeader {
    let wrapped = |key_id| WrappedKey { key_id, kek_id: 7, nonce: [3; 12], ciphertext: [4; 48] };
    SegmentHeader {
        block_bytes: 4096,
        batch_bytes_max: 65_536,
        segment_bytes: 1 << 20,
        store: StoreId::from_bytes([1; 16]),
        nonce: Nonce::from_bytes([2; 16]),
        number: 5,
        created_at_ms: 1_700_000_000_000,
        incarnation: 1,
        tag_key: wrapped(0),
        data_keys: vec![wrapped(9), wrapped(8)],
    }
}
