//! Assertions: short-lived JSON Web Tokens that our own key signs (RFC 7523).
//!
//! One says who the client is, or for whom it asks. Each has an id of its own and lives for three
//! minutes, the least that providers name.

use super::ProviderError;
use crate::clock::Entropy;
use crate::secret::Secret;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// How long an assertion lives, in seconds. Salesforce takes no more than three minutes
/// (Salesforce Help, "OAuth 2.0 JWT Bearer Flow").
const LIFETIME_S: u64 = 180;

/// A private key that signs assertions: RS256 for RSA, ES256 for P-256. Cloning is cheap.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<KeyPair>,
    id: Option<String>,
}

enum KeyPair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
}

impl SigningKey {
    /// Reads a key in PKCS #8, as PEM: `-----BEGIN PRIVATE KEY-----`.
    ///
    /// # Errors
    /// [`ProviderError::Key`] for anything but an RSA key of 2048 bits or more, or a P-256 key.
    pub fn from_pem(pem: &Secret) -> Result<Self, ProviderError> {
        let der = der(pem.reveal()).ok_or(ProviderError::Key)?;
        let pair = match RsaKeyPair::from_pkcs8(&der) {
            Ok(pair) => KeyPair::Rsa(pair),
            Err(_) => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
                .map(KeyPair::P256)
                .map_err(|_| ProviderError::Key)?,
        };
        Ok(Self { pair: Arc::new(pair), id: None })
    }

    /// Sets the key's id, by which the provider finds the public half (RFC 7515, section 4.1.4).
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// Signs claims about `subject`; `None` where there is no randomness, or the key fails.
    pub(super) fn sign(
        &self,
        issuer: &str,
        subject: &str,
        audience: &str,
        now_ms: u64,
        entropy: &dyn Entropy,
    ) -> Option<Secret> {
        let mut id = [0; 16];
        entropy.fill(&mut id).ok()?;
        let issued_s = now_ms / 1000;
        let mut header = serde_json::json!({ "alg": self.algorithm(), "typ": "JWT" });
        if let (Some(id), Some(header)) = (&self.id, header.as_object_mut()) {
            header.insert("kid".to_owned(), id.as_str().into());
        }
        let claims = serde_json::json!({
            "iss": issuer,
            "sub": subject,
            "aud": audience,
            "iat": issued_s,
            "exp": issued_s.saturating_add(LIFETIME_S),
            "jti": BASE64_URL_SAFE_NO_PAD.encode(id),
        });
        let encoded = |json: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let mut token = format!("{}.{}", encoded(&header), encoded(&claims));
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        token.push_str(&BASE64_URL_SAFE_NO_PAD.encode(signature));
        Some(Secret::new(token))
    }

    fn algorithm(&self) -> &'static str {
        match &*self.pair {
            KeyPair::Rsa(_) => "RS256",
            KeyPair::P256(_) => "ES256",
        }
    }

    fn signature(&self, message: &[u8]) -> Option<Vec<u8>> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the library blinds with it; RS256 does not depend on it, and an ES256 nonce \
                      must never come from a seed"
        )]
        let random = SystemRandom::new();
        match &*self.pair {
            KeyPair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            KeyPair::P256(pair) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm())
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Returns the bytes between the lines that frame a key.
fn der(pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let body: Zeroizing<String> =
        Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    Some(Zeroizing::new(BASE64_STANDARD.decode(body.as_bytes()).ok()?))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests may")]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    };

    fn pem(der: &[u8]) -> Secret {
        let body = BASE64_STANDARD.encode(der);
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let body = lines.join("\r\n");
        Secret::new(format!(
            "-----BEGIN PRIVATE KEY-----\r\n{body}\r\n-----END PRIVATE KEY-----\r\n"
        ))
    }

    fn parts(token: &Secret) -> (serde_json::Value, serde_json::Value, Vec<u8>, String) {
        let (signed, signature) = token.reveal().rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let json = |part: &str| {
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
        (json(header), json(claims), signature, signed.to_owned())
    }

    fn verified(
        algorithm: &'static dyn VerificationAlgorithm,
        public: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        UnparsedPublicKey::new(algorithm, public).verify(message, signature).is_ok()
    }

    fn sign(key: &SigningKey) -> Secret {
        let at_ms = 1_700_000_000_999;
        key.sign("client-1", "u@example.com", "https://a.example", at_ms, &SystemEntropy).unwrap()
    }

    #[test]
    fn an_assertion_is_signed_by_the_key_and_never_the_same_twice() {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8 = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
        let key = SigningKey::from_pem(&pem(pkcs8.as_ref())).unwrap().with_id("k-1");
        let (header, claims, signature, signed) = parts(&sign(&key));
        assert_eq!(header, serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": "k-1"}));
        assert_eq!(claims["iss"], "client-1");
        assert_eq!(claims["sub"], "u@example.com");
        assert_eq!(claims["aud"], "https://a.example");
        assert_eq!(claims["exp"], 1_700_000_180);
        let public = rsa.public_key().as_ref();
        let algorithm = &RSA_PKCS1_2048_8192_SHA256;
        assert!(verified(algorithm, public, signed.as_bytes(), &signature));
        assert!(!verified(algorithm, public, b"other", &signature));
        assert_ne!(parts(&sign(&key)).1["jti"], claims["jti"]);
        assert!(!format!("{key:?}").contains("Rsa("), "{key:?}");
    }

    #[test]
    fn a_p256_key_signs_too() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let pkcs8 = pair.to_pkcs8v1().unwrap();
        let key = SigningKey::from_pem(&pem(pkcs8.as_ref())).unwrap();
        let (header, _, signature, signed) = parts(&sign(&key));
        assert_eq!(header["alg"], "ES256");
        let public = pair.public_key().as_ref();
        assert!(verified(&ECDSA_P256_SHA256_FIXED, public, signed.as_bytes(), &signature));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let cases = [String::new(), pem(b"no key").reveal().to_owned(), "x".repeat(100)];
        for text in cases {
            let refused = SigningKey::from_pem(&Secret::new(text));
            assert!(matches!(refused, Err(ProviderError::Key)));
        }
    }
}
