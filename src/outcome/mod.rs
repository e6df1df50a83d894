//! What came of a call to a provider: issued, refused, not sent, or in doubt.
//!
//! An outcome is what a journal settles. Nothing here gives a token to a caller: only a pair that
//! the journal hands out after the sync does. What is refused is sanitised when it is made, and
//! what is in doubt keeps its bytes, wiped when dropped, so that nothing a provider may have
//! issued is lost. The layouts are journal-format.md, sections 7.2 to 7.5 and 9.1.

mod ids;
mod introspection;
pub(crate) mod members;
mod refusal;
mod response;

pub use crate::format::value::{DoubtReason, NotSentReason as NotSent};
pub(crate) use ids::salesforce_name;
pub use ids::{salesforce_id18, salesforce_user};
pub use introspection::Introspection;
#[cfg(feature = "broker")]
pub(crate) use refusal::shown;
pub use refusal::{Refusal, RefusalClass};
pub use response::{ExpirySource, Signature, TokenResponse, Unreadable, UnreadableReason};
pub(crate) use response::{PLAUSIBLE_MS, ResponseParts};

use std::fmt;
use zeroize::Zeroizing;

/// The longest request id that is kept, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Says what came of a call to a provider.
///
/// It can neither be cloned nor serialized, and prints no secret.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The provider issued a pair.
    Issued(TokenResponse),
    /// The provider said no.
    Refused(Refusal),
    /// The request never reached the provider, so nothing was issued and a retry is safe.
    NotSent(NotSent),
    /// The request may have reached the provider, and what it did is unknown.
    InDoubt(Doubt),
    /// The provider revoked what was presented, or knows it no longer.
    Revoked,
    /// The provider answered a question that changes nothing, such as an introspection.
    Answered,
}

/// What is known of a call whose effect is not.
///
/// It may hold tokens in its body: that is wiped when dropped, never printed, and has no getter.
pub struct Doubt {
    reason: DoubtReason,
    status: u16,
    request_id: Option<String>,
    body: Zeroizing<Vec<u8>>,
    body_bytes: u64,
}

impl Doubt {
    /// Makes a doubt without an answer.
    pub fn new(reason: DoubtReason) -> Self {
        Self {
            reason,
            status: 0,
            request_id: None,
            body: Zeroizing::new(Vec::new()),
            body_bytes: 0,
        }
    }

    /// Makes the doubt that an unreadable answer leaves, and keeps the answer's bytes.
    pub fn unreadable(unreadable: Unreadable) -> Self {
        Self::new(DoubtReason::Unreadable).with_wiped_body(unreadable.into_body())
    }

    /// Adds the HTTP status of the answer.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds the provider's or proxy's id of the request; control characters are replaced.
    pub fn with_request_id(mut self, request_id: &str) -> Self {
        self.request_id = Some(refusal::sanitised(request_id, REQUEST_ID_BYTES_MAX, &[]));
        self
    }

    /// Adds the bytes of the answer, whole or not.
    pub fn with_body(self, body: Vec<u8>) -> Self {
        self.with_wiped_body(Zeroizing::new(body))
    }

    /// Adds how many bytes the answer had in all, where fewer could be kept.
    pub fn with_body_bytes(mut self, body_bytes: u64) -> Self {
        self.body_bytes = body_bytes;
        self
    }

    pub(crate) fn with_wiped_body(mut self, body: Zeroizing<Vec<u8>>) -> Self {
        self.body = body;
        self
    }

    /// Returns why the call is in doubt.
    pub fn reason(&self) -> DoubtReason {
        self.reason
    }

    /// Returns the HTTP status of the answer, or 0.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the provider's or proxy's id of the request.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Returns how many bytes of body there were; the doubt may hold fewer.
    pub fn body_bytes(&self) -> u64 {
        let kept = u64::try_from(self.body.len()).unwrap_or(u64::MAX);
        self.body_bytes.max(kept)
    }

    /// Returns as much of the body as was kept.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }
}

impl fmt::Debug for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doubt")
            .field("reason", &self.reason)
            .field("status", &self.status)
            .field("request_id", &self.request_id)
            .field("body", &format_args!("<{} bytes>", self.body.len()))
            .field("body_bytes", &self.body_bytes())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_keeps_its_bytes_and_does_not_show_them() {
        let doubt = Doubt::new(DoubtReason::Oversized)
            .with_status(200)
            .with_request_id("a\r\nb")
            .with_body(b"{\"access_token\":\"00Dsecret".to_vec())
            .with_body_bytes(90_000);
        let shown = format!("{doubt:?}");
        assert!(!shown.contains("00Dsecret"), "{shown}");
        assert!(shown.contains("<26 bytes>"), "{shown}");
        assert_eq!(doubt.body(), b"{\"access_token\":\"00Dsecret");
        assert_eq!((doubt.body_bytes(), doubt.status()), (90_000, 200));
        assert_eq!(doubt.request_id(), Some("a  b"));
        assert_eq!(doubt.reason(), DoubtReason::Oversized);
    }

    #[test]
    fn a_body_counts_at_least_what_was_kept() {
        let doubt = Doubt::new(DoubtReason::Unreadable).with_body(vec![b'x'; 10]);
        assert_eq!(doubt.body_bytes(), 10);
    }
}
