//! The sealed cookie of a user who was sent off to approve: all that the callback needs, so that a
//! click costs no record and no sync.
//!
//! AES-256-GCM-SIV under a key derived from the store's own, with a random nonce; base64url. It is a
//! secret of the browser: it holds the verifier of RFC 7636.

use crate::clock::Entropy;
use crate::ids::{App, Holder, Lsn, User};
use crate::seal::DerivedKey;
use crate::secret::Secret;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::io;
use zeroize::{Zeroize, Zeroizing};

const AAD: &[u8] = b"tokenwal 1 cookie";
/// Browsers keep no longer ones (RFC 6265, section 6.1).
const COOKIE_BYTES_MAX: usize = 4096;

/// What a click is remembered by.
#[derive(Serialize, Deserialize)]
pub(super) struct Click {
    /// The ledger's head when the user was sent off: no code for this click is older.
    pub(super) since: u64,
    pub(super) expires_at_ms: u64,
    provider: String,
    client_id: String,
    tenant: String,
    holder: String,
    user: Option<String>,
    pub(super) redirect_uri: String,
    pub(super) scopes: Vec<String>,
    pub(super) state: String,
    pub(super) nonce: String,
    verifier: String,
}

impl Click {
    #[expect(clippy::too_many_arguments, reason = "each is one field of the cookie")]
    pub(super) fn new(
        since: Lsn,
        expires_at_ms: u64,
        app: &App,
        holder: &Holder,
        user: Option<&User>,
        redirect_uri: &str,
        scopes: &[String],
        state: String,
        nonce: String,
        verifier: Zeroizing<String>,
    ) -> Self {
        Self {
            since: since.0,
            expires_at_ms,
            provider: app.provider().to_owned(),
            client_id: app.client_id().to_owned(),
            tenant: holder.tenant().to_owned(),
            holder: holder.name().to_owned(),
            user: user.map(|user| user.as_str().to_owned()),
            redirect_uri: redirect_uri.to_owned(),
            scopes: scopes.to_vec(),
            state,
            nonce,
            verifier: verifier.as_str().to_owned(),
        }
    }

    pub(super) fn app(&self) -> Option<App> {
        App::new(self.provider.clone(), self.client_id.clone()).ok()
    }

    pub(super) fn holder(&self) -> Option<Holder> {
        Holder::new(self.tenant.clone(), self.holder.clone()).ok()
    }

    pub(super) fn user(&self) -> Option<User> {
        self.user.as_ref().and_then(|user| User::new(user.clone()).ok())
    }

    /// The verifier of RFC 7636. It is a secret of this click, so it tells the click from others.
    pub(super) fn verifier(&self) -> Secret {
        Secret::new(self.verifier.clone())
    }
}

impl Drop for Click {
    fn drop(&mut self) {
        self.verifier.zeroize();
    }
}

/// Seals and opens cookies.
pub(super) struct Jar(LessSafeKey);

impl Jar {
    pub(super) fn new(key: &DerivedKey) -> Self {
        let key = UnboundKey::new(&AES_256_GCM_SIV, key.bytes());
        Self(LessSafeKey::new(key.expect("the key has 32 bytes, as the cipher asks")))
    }

    /// Seals a click; none where it is too long for a cookie.
    pub(super) fn seal(&self, click: &Click, entropy: &dyn Entropy) -> io::Result<Option<Secret>> {
        let mut sealed = Zeroizing::new(vec![0; NONCE_LEN]);
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce)?;
        let mut plain = Zeroizing::new(serde_json::to_vec(click)?);
        let tag = self
            .0
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(AAD),
                plain.as_mut_slice(),
            )
            .map_err(|_| io::Error::other("the cipher failed"))?;
        sealed.copy_from_slice(&nonce);
        sealed.extend_from_slice(&plain);
        sealed.extend_from_slice(tag.as_ref());
        let text = BASE64_URL_SAFE_NO_PAD.encode(&*sealed);
        Ok((text.len() <= COOKIE_BYTES_MAX).then(|| Secret::new(text)))
    }

    /// Opens a cookie; none where it is not one of ours.
    pub(super) fn open(&self, cookie: &str) -> Option<Click> {
        if cookie.len() > COOKIE_BYTES_MAX {
            return None;
        }
        let mut sealed = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(cookie).ok()?);
        let (nonce, rest) = sealed.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.0.open_in_place(nonce, Aad::from(AAD), rest).ok()?;
        serde_json::from_slice(plain).ok()
    }
}

impl std::fmt::Debug for Jar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Jar(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    fn jar(byte: u8) -> Jar {
        Jar::new(&DerivedKey::new([byte; 32]))
    }

    fn click(scopes: &[String]) -> Click {
        Click::new(
            Lsn(42),
            1_700_000_000_000,
            &App::new("example", "client").unwrap(),
            &Holder::new("acme", "sync").unwrap(),
            Some(&User::new("alice").unwrap()),
            "https://app.example/callback",
            scopes,
            "the-state".to_owned(),
            "the-nonce".to_owned(),
            Zeroizing::new("the-verifier".to_owned()),
        )
    }

    fn sealed(jar: &Jar) -> Secret {
        let scopes = ["api".to_owned(), "refresh_token".to_owned()];
        jar.seal(&click(&scopes), &SystemEntropy).unwrap().unwrap()
    }

    #[test]
    fn what_was_sealed_is_opened() {
        let jar = jar(1);
        let click = jar.open(sealed(&jar).reveal()).unwrap();
        assert_eq!((click.since, click.expires_at_ms), (42, 1_700_000_000_000));
        assert_eq!(click.app(), App::new("example", "client").ok());
        assert_eq!(click.holder(), Holder::new("acme", "sync").ok());
        assert_eq!(click.user(), User::new("alice").ok());
        assert_eq!(click.redirect_uri, "https://app.example/callback");
        assert_eq!(click.scopes, ["api", "refresh_token"]);
        assert_eq!((click.state.as_str(), click.nonce.as_str()), ("the-state", "the-nonce"));
        assert_eq!(click.verifier().reveal(), "the-verifier");
    }

    #[test]
    fn a_cookie_shows_nothing_and_is_never_the_same_twice() {
        let jar = jar(1);
        let (one, other) = (sealed(&jar), sealed(&jar));
        assert_ne!(one.reveal(), other.reveal());
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(one.reveal()).unwrap();
        for hidden in ["the-verifier", "the-state", "alice", "acme", "verifier"] {
            let found = bytes.windows(hidden.len()).any(|part| part == hidden.as_bytes());
            assert!(!found, "{hidden}");
        }
        assert_eq!(format!("{jar:?}"), "Jar(..)");
        assert!(!format!("{one:?}").contains(one.reveal()));
    }

    #[test]
    fn a_cookie_with_any_byte_changed_cut_off_or_added_is_none_of_ours() {
        let jar = jar(1);
        let cookie = sealed(&jar);
        let cookie = cookie.reveal();
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cookie).unwrap();
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                let changed = BASE64_URL_SAFE_NO_PAD.encode(&bytes);
                assert!(jar.open(&changed).is_none(), "byte {at}");
            }
            assert!(jar.open(&BASE64_URL_SAFE_NO_PAD.encode(&bytes[..at])).is_none());
        }
        for at in 0..cookie.len() {
            let mut text = cookie.as_bytes().to_vec();
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            assert!(jar.open(std::str::from_utf8(&text).unwrap()).is_none(), "character {at}");
        }
        for more in ["A", "=", " ", "AAAA"] {
            assert!(jar.open(&format!("{cookie}{more}")).is_none(), "{more:?}");
        }
        for text in ["", "A", "\u{e9}", "AAAAAAAAAAAAAAAA"] {
            assert!(jar.open(text).is_none(), "{text:?}");
        }
        assert!(jar.open(cookie).is_some());
    }

    #[test]
    fn another_key_opens_nothing() {
        assert!(jar(2).open(sealed(&jar(1)).reveal()).is_none());
        assert!(jar(1).open(sealed(&jar(1)).reveal()).is_some());
    }

    #[test]
    fn what_no_browser_keeps_is_not_made() {
        let jar = jar(1);
        let fits = ["s".repeat(2000)];
        assert!(jar.seal(&click(&fits), &SystemEntropy).unwrap().is_some());
        let too_long = ["s".repeat(4000)];
        assert!(jar.seal(&click(&too_long), &SystemEntropy).unwrap().is_none());
        assert!(jar.open(&"A".repeat(COOKIE_BYTES_MAX + 4)).is_none());
    }

    #[test]
    fn without_randomness_there_is_no_cookie() {
        struct Dry;
        impl Entropy for Dry {
            fn fill(&self, _: &mut [u8]) -> io::Result<()> {
                Err(io::Error::other("dry"))
            }
        }
        assert!(jar(1).seal(&click(&[]), &Dry).is_err());
    }
}
