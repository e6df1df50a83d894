//! A provider's refusal, made safe to keep and to show.
//!
//! What a provider says in an error is text from outside: it may forge lines, run on for ever, or
//! echo the token that it refuses. All of that is taken out here, once, when the refusal is made.

use super::REQUEST_ID_BYTES_MAX;
pub use crate::format::value::RefusalClass;
use crate::secret::Secret;
use serde::Serialize;
use std::collections::HashSet;
use zeroize::Zeroizing;

/// The longest description that is kept, in bytes (journal-format.md, section 9.1).
const DESCRIPTION_BYTES_MAX: usize = 256;
/// The longest error code that is kept, in bytes.
const ERROR_BYTES_MAX: usize = 64;
/// What is looked at of a text, in bytes, before it is cut.
const LOOKED_AT_BYTES_MAX: usize = 4096;
/// A part of a secret as long as this gives it away. Shorter secrets are looked for whole.
const ECHO_BYTES: usize = 12;
/// Secrets shorter than this cannot be told from words, and are no secrets.
const SECRET_BYTES_MIN: usize = 4;
/// A run of token characters as long as this is taken for a token, whoever's it is.
const RUN_BYTES: usize = 64;
/// What stands in place of a token.
const REDACTED: &str = "[redacted]";

/// Says that, and why, the provider refused. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    class: RefusalClass,
    status: u16,
    retry_after_s: u32,
    error: String,
    description: String,
    request_id: Option<String>,
}

impl Refusal {
    /// Makes a refusal from its class, the HTTP status, and the provider's `error` and
    /// `error_description`.
    ///
    /// Control characters become spaces. Whatever in the texts echoes one of the secrets that
    /// were `sent`, or looks like a token, becomes `[redacted]`. The description is cut at 256
    /// bytes.
    pub fn new(
        class: RefusalClass,
        status: u16,
        error: &str,
        description: &str,
        sent: &[&Secret],
    ) -> Self {
        Self {
            class,
            status,
            retry_after_s: 0,
            error: sanitised(error, ERROR_BYTES_MAX, sent),
            description: sanitised(description, DESCRIPTION_BYTES_MAX, sent),
            request_id: None,
        }
    }

    /// Adds after how many seconds the provider wants to be asked again.
    pub fn with_retry_after_s(mut self, retry_after_s: u32) -> Self {
        self.retry_after_s = retry_after_s;
        self
    }

    /// Adds the provider's or proxy's id of the request; control characters become spaces.
    pub fn with_request_id(mut self, request_id: &str) -> Self {
        self.request_id = Some(sanitised(request_id, REQUEST_ID_BYTES_MAX, &[]));
        self
    }

    /// Returns what the refusal means for the grant.
    pub fn class(&self) -> RefusalClass {
        self.class
    }

    /// Returns the HTTP status, or 0.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns after how many seconds the provider wants to be asked again, or 0.
    pub fn retry_after_s(&self) -> u32 {
        self.retry_after_s
    }

    /// Returns the provider's error code, such as `invalid_grant`; it may be empty.
    pub fn error(&self) -> &str {
        &self.error
    }

    /// Returns the provider's description, of at most 256 bytes; it may be empty.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Returns the provider's or proxy's id of the request.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }
}

/// Returns a text from outside as it may be shown, without the secrets that came with it.
#[cfg(feature = "broker")]
pub(crate) fn shown(text: &str, secrets: &[&Secret]) -> String {
    sanitised(text, DESCRIPTION_BYTES_MAX, secrets)
}

/// Returns `text` on one line, without the secrets that were sent, of at most `bytes_max` bytes.
pub(super) fn sanitised(text: &str, bytes_max: usize, sent: &[&Secret]) -> String {
    let text = cut(text, LOOKED_AT_BYTES_MAX);
    let marks = token_marks(text, sent);
    let mut safe = String::new();
    let mut within = false;
    for (at, character) in text.char_indices() {
        let token = marks.get(at).copied().unwrap_or(false);
        if token && !within {
            safe.push_str(REDACTED);
        } else if !token {
            safe.push(if is_unsafe(character) { ' ' } else { character });
        }
        within = token;
    }
    safe.truncate(cut(&safe, bytes_max).len());
    safe
}

/// Returns the longest start of `text` that has at most `bytes_max` bytes.
fn cut(text: &str, bytes_max: usize) -> &str {
    let end = text.char_indices().map(|(at, character)| at + character.len_utf8());
    let end = end.take_while(|end| *end <= bytes_max).last().unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// Control characters forge lines; the others turn a line around or hide in it.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(character, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Tells of each byte of `text` whether it is part of a token.
fn token_marks(text: &str, sent: &[&Secret]) -> Vec<bool> {
    // Case is left aside: an echo in another case gives a token away as well, and so one
    // percent-encoded form covers both ways to write its digits.
    let text = text.to_ascii_lowercase();
    let mut marks = vec![false; text.len()];
    for secret in sent {
        let plain = Zeroizing::new(secret.reveal().to_ascii_lowercase());
        mark_echoes(text.as_bytes(), plain.as_bytes(), &mut marks);
        mark_echoes(text.as_bytes(), &percent_encoded(&plain), &mut marks);
    }
    mark_runs(text.as_bytes(), &mut marks);
    marks
}

/// Marks every part of `secret` that stands in `text`, since an echo may be cut short.
fn mark_echoes(text: &[u8], secret: &[u8], marks: &mut [bool]) {
    if secret.len() < SECRET_BYTES_MIN {
        return;
    }
    let bytes = secret.len().min(ECHO_BYTES);
    let parts: HashSet<&[u8]> = secret.windows(bytes).collect();
    for (at, part) in text.windows(bytes).enumerate() {
        if parts.contains(part) {
            marks.iter_mut().skip(at).take(bytes).for_each(|mark| *mark = true);
        }
    }
}

/// Marks every run of token characters that is too long for a word.
fn mark_runs(text: &[u8], marks: &mut [bool]) {
    let mut at = 0;
    for run in text.split(|byte| !byte.is_ascii_alphanumeric() && !b"-._~+/=!%".contains(byte)) {
        if run.len() >= RUN_BYTES {
            marks.iter_mut().skip(at).take(run.len()).for_each(|mark| *mark = true);
        }
        at += run.len() + 1;
    }
}

fn percent_encoded(secret: &str) -> Zeroizing<Vec<u8>> {
    let mut encoded = Zeroizing::new(Vec::with_capacity(secret.len() * 3));
    for byte in secret.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~*".contains(&byte) {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(format!("%{byte:02x}").as_bytes());
        }
    }
    encoded
}

#[cfg(test)]
#[allow(clippy::string_slice, reason = "tests may")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN: &str = "5Aep861_OKMvio5gy8xCNsXxybPdupY9fVEZyeVOvb4kpOZx5Z1QLB7k==";

    fn described(description: &str, sent: &str) -> String {
        let sent = Secret::new(sent.to_owned());
        Refusal::new(RefusalClass::Dead, 400, "invalid_grant", description, &[&sent])
            .description()
            .to_owned()
    }

    #[test]
    fn an_echoed_token_is_taken_out_whole_cut_or_encoded() {
        let encoded = TOKEN.replace('=', "%3D");
        for echo in [TOKEN, &TOKEN[5..], &TOKEN[..20], &encoded, &TOKEN.to_lowercase()] {
            let text = described(&format!("the token '{echo}' is expired"), TOKEN);
            assert_eq!(text, "the token '[redacted]' is expired");
        }
        assert_eq!(described("code 4711ab is used", "4711ab"), "code [redacted] is used");
    }

    #[test]
    fn a_token_that_we_never_sent_is_taken_out_by_its_looks() {
        let foreign = "eyJhbGciOiJSUzI1NiJ9.".repeat(5);
        assert_eq!(described(&format!("saw {foreign}."), TOKEN), "saw [redacted]");
        let plain = "expired access/refresh token (see https://help.example/s/article?id=000)";
        assert_eq!(described(plain, TOKEN), plain);
    }

    #[test]
    fn texts_stay_on_one_line_and_within_their_bounds() {
        assert_eq!(described("a\r\nERROR forged\u{202e}x\u{7f}", TOKEN), "a  ERROR forged x ");
        let long = described(&"word é ".repeat(1000), TOKEN);
        assert!(long.len() <= 256 && long.len() > 250, "{}", long.len());
        let refusal = Refusal::new(RefusalClass::Retry, 429, &"e ".repeat(99), "", &[])
            .with_retry_after_s(7)
            .with_request_id(&"r ".repeat(99));
        assert_eq!(refusal.error().len(), 64);
        assert_eq!(refusal.request_id().map(str::len), Some(128));
        assert_eq!(refusal.retry_after_s(), 7);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_let_the_secret_through(
            before in ".{0,300}", secret in "[!-~]{12,80}", after in ".{0,40}",
        ) {
            let text = described(&format!("{before}{secret}{after}"), &secret);
            prop_assert!(!text.contains(&secret));
            prop_assert!(text.len() <= 256);
        }
    }
}
