//! The keyed hashes: tags that stand for names [F-35], and the MACs of batches [F-37].

use super::{DataKey, KEY_BYTES, KeyBytes, TagKey};
use crate::format::batch::Authenticator;
use crate::ids::{Account, AccountTag, App, AppTag, Fingerprint, Holder, HolderTag, HostTag};
use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

const INFO_BATCH: &[u8] = b"tokenwal 1 batch";

/// Makes the tags that stand for names in the clear [F-35].
pub struct Tagger(hmac::Key);

impl Tagger {
    /// Prepares a store's tag key.
    pub fn new(key: &TagKey) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.0.as_slice()))
    }

    /// Tags an app.
    pub fn app(&self, app: &App) -> AppTag {
        AppTag::from_bytes(self.tag(&["app", app.provider(), app.client_id()]))
    }

    /// Tags an account.
    pub fn account(&self, account: &Account) -> AccountTag {
        let (app, user) = (&account.app, account.user.as_str());
        AccountTag::from_bytes(self.tag(&["account", app.provider(), app.client_id(), user]))
    }

    /// Tags a holder.
    pub fn holder(&self, holder: &Holder) -> HolderTag {
        HolderTag::from_bytes(self.tag(&["holder", holder.tenant(), holder.name()]))
    }

    /// Tags a host.
    pub fn host(&self, host: &str) -> HostTag {
        HostTag::from_bytes(self.tag(&["host", host]))
    }

    /// Takes a token's fingerprint.
    pub fn fingerprint(&self, token: &str) -> Fingerprint {
        Fingerprint::from_bytes(self.tag(&["token", token]))
    }

    /// Takes what stands for a set of scopes, in whatever order they are named.
    pub fn scopes(&self, scopes: &[String]) -> Fingerprint {
        let mut texts: Vec<&str> = scopes.iter().map(String::as_str).collect();
        texts.sort_unstable();
        texts.dedup();
        texts.insert(0, "scopes");
        Fingerprint::from_bytes(self.tag(&texts))
    }

    /// Derives a key for a purpose of its own, the same for the store's life. No text that is tagged
    /// begins with its first word.
    pub fn derive(&self, purpose: &str) -> DerivedKey {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let hash = self.hash(&["derive", purpose]);
        key.copy_from_slice(hash.as_ref());
        DerivedKey(key)
    }

    fn tag(&self, texts: &[&str]) -> [u8; 16] {
        cut(&self.hash(texts))
    }

    fn hash(&self, texts: &[&str]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        for text in texts {
            // Names are checked to be short; a token comes from an answer of bounded size.
            let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
            context.update(&length.to_le_bytes());
            context.update(text.as_bytes());
        }
        context.sign()
    }
}

impl std::fmt::Debug for Tagger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tagger(..)")
    }
}

/// A key for a purpose of its own, such as sealing what is given to a browser. Wiped when dropped.
pub struct DerivedKey(KeyBytes);

impl DerivedKey {
    /// Makes it from bytes that nobody else knows.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the key, for whoever seals with it.
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl std::fmt::Debug for DerivedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DerivedKey(..)")
    }
}

/// Makes the MACs of a segment's batches [F-37].
pub struct MacKey(hmac::Key);

impl MacKey {
    /// Derives the key from the segment's own data key.
    pub fn new(key: &DataKey) -> Self {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key.bytes.as_slice());
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        prk.expand(&[INFO_BATCH], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(bytes.as_mut_slice()))
            .expect("one hash's length may always be derived");
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes.as_slice()))
    }
}

impl Authenticator for MacKey {
    fn mac(&self, parts: &mut dyn Iterator<Item = &[u8]>) -> [u8; 16] {
        // Parts are short, and a call of the hash costs more than a copy.
        const GATHER_BYTES: usize = 4096;
        let mut context = hmac::Context::with_key(&self.0);
        let mut gathered = Vec::with_capacity(GATHER_BYTES);
        for part in parts {
            if gathered.len() + part.len() > GATHER_BYTES {
                context.update(&gathered);
                gathered.clear();
            }
            gathered.extend_from_slice(part);
        }
        context.update(&gathered);
        cut(&context.sign())
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(..)")
    }
}

fn cut(tag: &hmac::Tag) -> [u8; 16] {
    *tag.as_ref().first_chunk().expect("a SHA-256 tag has 32 bytes")
}
