//! Proof Key for Code Exchange (RFC 7636), method S256.

use crate::clock::Entropy;
use crate::secret::Secret;
use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use std::io;
use zeroize::Zeroizing;

/// Binds an authorization code to whoever asked for it.
///
/// The challenge goes into the authorization URL, the verifier only into the exchange.
///
/// ```
/// use tokenwal::{SystemEntropy, provider::Pkce};
///
/// let pkce = Pkce::generate(&SystemEntropy)?;
/// let again = Pkce::from_verifier(tokenwal::Secret::new(pkce.verifier().reveal().to_owned()));
/// assert_eq!(pkce.challenge(), again.challenge());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Pkce {
    verifier: Secret,
    challenge: String,
}

impl Pkce {
    /// Draws a verifier of 32 random bytes, which is 43 characters.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate(entropy: &dyn Entropy) -> io::Result<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut_slice())?;
        Ok(Self::from_verifier(Secret::new(BASE64_URL_SAFE_NO_PAD.encode(bytes.as_slice()))))
    }

    /// Takes a verifier that was kept, such as in the user's cookie, until the callback.
    pub fn from_verifier(verifier: Secret) -> Self {
        let hash = digest::digest(&digest::SHA256, verifier.reveal().as_bytes());
        Self { challenge: BASE64_URL_SAFE_NO_PAD.encode(hash), verifier }
    }

    /// Returns the verifier, to be kept until the callback where only its owner can read it.
    pub fn verifier(&self) -> &Secret {
        &self.verifier
    }

    /// Returns the challenge. It is no secret.
    pub fn challenge(&self) -> &str {
        &self.challenge
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    #[test]
    fn the_challenge_is_the_rfcs() {
        // RFC 7636, appendix B.
        let verifier = Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned());
        let pkce = Pkce::from_verifier(verifier);
        assert_eq!(pkce.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn verifiers_differ_and_are_not_printed() {
        let (one, two) =
            (Pkce::generate(&SystemEntropy).unwrap(), Pkce::generate(&SystemEntropy).unwrap());
        assert_ne!(one.verifier().reveal(), two.verifier().reveal());
        assert_eq!(one.verifier().reveal().len(), 43);
        assert!(!format!("{one:?}").contains(one.verifier().reveal()));
    }
}
