//! The query with which a user comes back (RFC 6749, section 4.1.2; RFC 9207). Anybody may send one:
//! it is read in a time that its length bounds, and its length is bounded.

use super::error::{BrokerError, CallbackFault};
use crate::ids::User;
use crate::secret::Secret;

/// A callback's query is no longer: web servers take no longer request line by far.
const QUERY_BYTES_MAX: usize = 64 * 1024;
/// And has no more parameters: RFC 6749 and 9207 name five, providers add a few.
const PARAMETERS_MAX: usize = 64;

/// The query of a callback.
pub(super) struct Answer {
    pub(super) state: String,
    pub(super) code: Option<Secret>,
    pub(super) error: Option<(String, String)>,
    pub(super) issuer: Option<String>,
    all: Vec<(String, String)>,
}

impl Answer {
    pub(super) fn read(query: &str) -> Result<Self, BrokerError> {
        let mut answer =
            Self { state: String::new(), code: None, error: None, issuer: None, all: Vec::new() };
        let mut description = None;
        let mut error = None;
        if query.len() > QUERY_BYTES_MAX {
            return Err(BrokerError::Callback(CallbackFault::TooLong));
        }
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if answer.all.len() >= PARAMETERS_MAX {
                return Err(BrokerError::Callback(CallbackFault::TooLong));
            }
            if answer.all.iter().any(|(known, _)| *known == name) {
                return Err(BrokerError::Callback(CallbackFault::Twice));
            }
            match &*name {
                "state" => (*value).clone_into(&mut answer.state),
                "code" => answer.code = Some(Secret::new(value.to_string())),
                "error" => error = Some(value.to_string()),
                "error_description" => description = Some(value.to_string()),
                "iss" => answer.issuer = Some(value.to_string()),
                _ => {}
            }
            let kept = if name == "code" { String::new() } else { value.into_owned() };
            answer.all.push((name.into_owned(), kept));
        }
        // Whoever answers with an error may say the code in it, wherever the code itself stands.
        let secrets: Vec<&Secret> = answer.code.iter().collect();
        let shown = |text: String| crate::outcome::shown(&text, &secrets);
        let description = description.map(shown).unwrap_or_default();
        let error = error.map(|error| (shown(error), description));
        answer.error = error;
        Ok(answer)
    }

    pub(super) fn user_in(&self, parameter: &str) -> Option<User> {
        let (_, value) = self.all.iter().find(|(name, _)| name == parameter)?;
        User::new(value.clone()).ok()
    }
}
