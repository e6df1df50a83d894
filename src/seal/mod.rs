//! Sealing, wrapping, tags and the batch MAC (journal-format.md, section 9).
//!
//! The only place that calls a cipher or a hash. Keys are wiped when they are dropped and never
//! printed; errors say that something failed and never with what.

mod key;
mod tag;

pub use key::{DataKey, TagKey, WrappingKey};
pub use tag::{DerivedKey, MacKey, Tagger};

use crate::clock::Entropy;
use crate::codec::Plain;
use crate::format::clear::{CLEAR_BYTES_MAX, Clear};
use crate::format::record::{
    RECORD_BYTES_MAX, Record, RecordHeader, SEALED_BYTES_MIN, SEALED_NONCE_BYTES, SEALED_TAG_BYTES,
    blank_record,
};
use crate::ids::StoreId;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce as AeadNonce, UnboundKey};
use std::io;
use zeroize::{Zeroize, Zeroizing};

/// The width of every key in bytes.
pub const KEY_BYTES: usize = 32;

const AAD_RECORD: &[u8] = b"tokenwal 1 record";
const RECORD_AAD_BYTES_MAX: usize = AAD_RECORD.len() + 16 + 2 + 8 + 8 + CLEAR_BYTES_MAX;

/// The bytes of a key, wiped when dropped.
pub(crate) type KeyBytes = Zeroizing<[u8; KEY_BYTES]>;

/// Says why a record could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The system gave no random bytes.
    #[error("no random nonce could be drawn")]
    Entropy(#[source] io::Error),
    /// The record would be longer than the format allows [F-20].
    #[error("the record would have more than {RECORD_BYTES_MAX} bytes")]
    TooLong,
    /// The cipher refused, which it does only for lengths that the format forbids.
    #[error("the cipher failed")]
    Cipher,
}

/// Says that a sealed part is not what was sealed: the key is another one, or bytes were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed part does not open under its key")]
pub struct NotAuthentic;

/// Seals and opens records under one data key, from any number of threads at once.
pub struct Sealer {
    store: StoreId,
    key: u64,
    aead: LessSafeKey,
}

impl Sealer {
    /// Prepares a data key of a store.
    pub fn new(store: StoreId, key: &DataKey) -> Self {
        Self { store, key: key.id(), aead: aead_key(&key.bytes) }
    }

    /// Returns the id of the data key.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// Encodes a record with its sealed part [F-34], and with LSN 0. The plaintext is written into
    /// the record and sealed in place, so that no other copy of it is made.
    ///
    /// # Errors
    /// [`SealError`]; nothing of the plaintext is left in memory then.
    pub fn seal(
        &self,
        clear: &Clear,
        at_ms: u64,
        plain: &(impl Plain + ?Sized),
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; SEALED_NONCE_BYTES];
        entropy.fill(&mut nonce).map_err(SealError::Entropy)?;
        let sealed_bytes = plain.plain_bytes().saturating_add(SEALED_BYTES_MIN);
        let room = RECORD_BYTES_MAX - RecordHeader::SIZE - Clear::bytes_of(clear.kind());
        if sealed_bytes > room {
            return Err(SealError::TooLong);
        }
        let (mut record, sealed_at) = blank_record(clear, at_ms, self.key, sealed_bytes);
        let aad = record_aad(self.store, record.get(..sealed_at).unwrap_or_default());
        let (_, sealed) = record.split_at_mut(sealed_at);
        let (nonce_room, sealed) = sealed.split_at_mut(SEALED_NONCE_BYTES);
        let (content, tag_room) = sealed.split_at_mut(sealed.len() - SEALED_TAG_BYTES);
        nonce_room.copy_from_slice(&nonce);
        plain.write(content);
        let nonce = AeadNonce::assume_unique_for_key(nonce);
        match self.aead.seal_in_place_separate_tag(nonce, Aad::from(aad), content) {
            Ok(tag) => {
                tag_room.copy_from_slice(tag.as_ref());
                Ok(record)
            }
            Err(_) => {
                content.zeroize();
                Err(SealError::Cipher)
            }
        }
    }

    /// Opens the sealed part of a record, which names this data key.
    ///
    /// # Errors
    /// [`NotAuthentic`], also where the record names another key or is structural.
    pub fn open(&self, record: &Record<'_>) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        if record.header.key != self.key {
            return Err(NotAuthentic);
        }
        let (nonce, rest) = record.sealed_part.split_first_chunk().ok_or(NotAuthentic)?;
        let (content, tag) = rest.split_last_chunk::<SEALED_TAG_BYTES>().ok_or(NotAuthentic)?;
        let sealed_at = record.bytes.len() - record.sealed_part.len();
        let aad = record_aad(self.store, record.bytes.get(..sealed_at).unwrap_or_default());
        let mut plain = Zeroizing::new(vec![0; content.len()]);
        self.aead
            .open_separate_gather(
                AeadNonce::assume_unique_for_key(*nonce),
                Aad::from(aad),
                content,
                tag,
                plain.as_mut_slice(),
            )
            .map_err(|_| NotAuthentic)?;
        Ok(plain)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({:016x})", self.key)
    }
}

fn aead_key(bytes: &[u8; KEY_BYTES]) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM_SIV, bytes).expect("AES-256 takes keys of 32 bytes");
    LessSafeKey::new(key)
}

/// Bytes joined on the stack.
struct Joined<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Joined<N> {
    fn new(parts: &[&[u8]]) -> Self {
        let mut joined = Self { bytes: [0; N], length: 0 };
        for part in parts {
            let end = joined.length + part.len();
            let room = joined.bytes.get_mut(joined.length..end).expect("N bounds all parts");
            room.copy_from_slice(part);
            joined.length = end;
        }
        joined
    }
}

impl<const N: usize> AsRef<[u8]> for Joined<N> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Joins what a sealed part authenticates, from the encoded header and clear part of its record.
fn record_aad(store: StoreId, header_and_clear: &[u8]) -> Joined<RECORD_AAD_BYTES_MAX> {
    let header = RecordHeader::peek(header_and_clear).expect("a record has a header");
    let clear = header_and_clear.get(RecordHeader::SIZE..).unwrap_or_default();
    Joined::new(&[
        AAD_RECORD,
        &store.to_bytes(),
        &header.kind.to_le_bytes(),
        &header.at_ms.to_le_bytes(),
        &header.key.to_le_bytes(),
        clear,
    ])
}

#[cfg(test)]
mod tests;
