//! Data keys, tag keys, and the key-encryption keys that wrap them (journal-format.md, section 9).

use super::{Aad, AeadNonce, Joined, KEY_BYTES, KeyBytes, NotAuthentic, aead_key};
use crate::clock::Entropy;
use crate::format::record::{SEALED_NONCE_BYTES, SEALED_TAG_BYTES};
use crate::format::segment::WrappedKey;
use crate::ids::StoreId;
use aws_lc_rs::aead::LessSafeKey;
use aws_lc_rs::hmac;
use std::io;
use zeroize::Zeroizing;

const AAD_KEY: &[u8] = b"tokenwal 1 key";
const KEK_ID_TEXT: &[u8] = b"tokenwal key id";
const KEY_AAD_BYTES: usize = AAD_KEY.len() + 16 + 8 + 8;

/// A store's data key: sealed parts and batch MACs of one segment depend on it.
pub struct DataKey {
    pub(super) id: u64,
    pub(super) bytes: KeyBytes,
}

impl DataKey {
    /// Draws a key and its id.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate(entropy: &dyn Entropy) -> io::Result<Self> {
        let bytes = draw_key(entropy)?;
        let mut id = [0; 8];
        // Zero stands for "no key", so it is drawn again; it comes up once in 2^64 times.
        while id == [0; 8] {
            entropy.fill(&mut id)?;
        }
        Ok(Self { id: u64::from_le_bytes(id), bytes })
    }

    /// Returns the id by which records name the key.
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataKey({:016x})", self.id)
    }
}

/// A store's tag key; it never changes for the life of the store [F-36].
pub struct TagKey(pub(super) KeyBytes);

impl TagKey {
    /// Makes it from bytes that were drawn elsewhere.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Draws a key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate(entropy: &dyn Entropy) -> io::Result<Self> {
        draw_key(entropy).map(Self)
    }
}

impl std::fmt::Debug for TagKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TagKey(..)")
    }
}

/// A key-encryption key: it wraps data keys and tag keys, and nothing else.
pub struct WrappingKey {
    id: u64,
    aead: LessSafeKey,
}

impl WrappingKey {
    /// Prepares a key-encryption key.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, bytes), KEK_ID_TEXT);
        let id = tag.as_ref().first_chunk::<8>().expect("a SHA-256 tag has 32 bytes");
        Self { id: u64::from_le_bytes(*id), aead: aead_key(bytes) }
    }

    /// Returns the id by which wrapped keys name it [F-32].
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Wraps a data key for a store.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn wrap_data_key(
        &self,
        store: StoreId,
        key: &DataKey,
        entropy: &dyn Entropy,
    ) -> io::Result<WrappedKey> {
        self.wrap(store, key.id, &key.bytes, entropy)
    }

    /// Wraps a store's tag key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn wrap_tag_key(
        &self,
        store: StoreId,
        key: &TagKey,
        entropy: &dyn Entropy,
    ) -> io::Result<WrappedKey> {
        self.wrap(store, 0, &key.0, entropy)
    }

    /// Unwraps a data key.
    ///
    /// # Errors
    /// [`NotAuthentic`] where it was wrapped for another store or under another key, or damaged.
    pub fn unwrap_data_key(
        &self,
        store: StoreId,
        wrapped: &WrappedKey,
    ) -> Result<DataKey, NotAuthentic> {
        if wrapped.key_id == 0 {
            return Err(NotAuthentic);
        }
        let bytes = self.unwrap(store, wrapped)?;
        Ok(DataKey { id: wrapped.key_id, bytes })
    }

    /// Unwraps a store's tag key.
    ///
    /// # Errors
    /// As [`WrappingKey::unwrap_data_key`].
    pub fn unwrap_tag_key(
        &self,
        store: StoreId,
        wrapped: &WrappedKey,
    ) -> Result<TagKey, NotAuthentic> {
        if wrapped.key_id != 0 {
            return Err(NotAuthentic);
        }
        self.unwrap(store, wrapped).map(TagKey)
    }

    fn wrap(
        &self,
        store: StoreId,
        key_id: u64,
        key: &KeyBytes,
        entropy: &dyn Entropy,
    ) -> io::Result<WrappedKey> {
        let mut nonce = [0; SEALED_NONCE_BYTES];
        entropy.fill(&mut nonce)?;
        let mut buffer = Zeroizing::new(**key);
        let tag = self
            .aead
            .seal_in_place_separate_tag(
                AeadNonce::assume_unique_for_key(nonce),
                Aad::from(key_aad(store, key_id, self.id)),
                buffer.as_mut_slice(),
            )
            .map_err(|_| io::Error::other("the cipher failed to wrap a key"))?;
        let mut ciphertext = [0; KEY_BYTES + SEALED_TAG_BYTES];
        let (sealed, tag_room) = ciphertext.split_at_mut(KEY_BYTES);
        sealed.copy_from_slice(buffer.as_slice());
        tag_room.copy_from_slice(tag.as_ref());
        Ok(WrappedKey { key_id, kek_id: self.id, nonce, ciphertext })
    }

    fn unwrap(&self, store: StoreId, wrapped: &WrappedKey) -> Result<KeyBytes, NotAuthentic> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        let (sealed, tag) = wrapped.ciphertext.split_at(KEY_BYTES);
        self.aead
            .open_separate_gather(
                AeadNonce::assume_unique_for_key(wrapped.nonce),
                Aad::from(key_aad(store, wrapped.key_id, wrapped.kek_id)),
                sealed,
                tag,
                bytes.as_mut_slice(),
            )
            .map_err(|_| NotAuthentic)?;
        Ok(bytes)
    }
}

impl std::fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WrappingKey({:016x})", self.id)
    }
}

fn draw_key(entropy: &dyn Entropy) -> io::Result<KeyBytes> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    entropy.fill(bytes.as_mut_slice())?;
    Ok(bytes)
}

fn key_aad(store: StoreId, key_id: u64, kek_id: u64) -> Joined<KEY_AAD_BYTES> {
    Joined::new(&[AAD_KEY, &store.to_bytes(), &key_id.to_le_bytes(), &kek_id.to_le_bytes()])
}
