//! A pair as a line of JSON: the way in for tokens that a service kept elsewhere, and the way back.
//!
//! A line is one object with these members; all but `app`, `user` and a token may be left out:
//!
//! | member | value |
//! |---|---|
//! | `app` | an object with `provider` and `client_id` |
//! | `user` | the user, as the provider's profile names them; where `provider` begins with `salesforce` also an identity URL, or ids of 15 characters, which are taken as what they name |
//! | `holder` | an object with `tenant` and `name`: who depends on it |
//! | `scopes` | a list of texts, or one text with spaces |
//! | `access_token`, `refresh_token`, `id_token` | texts; a refresh token alone will do |
//! | `token_type` | `Bearer` unless said otherwise |
//! | `issued_at_ms`, `expires_at_ms` | milliseconds since 1970 |
//! | `expiry` | how that is known: `declared`, `introspected`, or by default `assumed` |
//! | `instance_url`, `token_endpoint` | where the pair is used, and where it is refreshed |
//! | `fields` | an object: other members of the provider's answer, as they came |
//! | `paused` | whether it is refreshed only after it was activated; `true` unless said otherwise |
//!
//! A member that is none of these is an error, so that no misspelt name drops a token. Errors name
//! the member and never its value. It does no I/O.

mod read;

use crate::ids::{Account, Holder, NameError};
use crate::journal::{GrantView, Import, IssuedPair};
use crate::secret::Secret;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use std::fmt;

/// So much of a name that nobody knows is shown.
const NAME_CHARS_SHOWN: usize = 64;

/// A durable pair, to be written as a line.
///
/// ```
/// use tokenwal::ledger::{Line, LineProblem};
///
/// let text = r#"{"app":{"provider":"salesforce","client_id":"3MVG9"},"user":"005A",
///     "refresh_token":"5Aep861","scopes":"api refresh_token"}"#;
/// let import = Line::parse(text, 1_760_000_000_000)?;
/// assert!(!format!("{import:?}").contains("5Aep861"));
///
/// let text = text.replace("refresh_token\":", "refreshtoken\":");
/// let error = Line::parse(&text, 1_760_000_000_000).unwrap_err();
/// assert_eq!((error.member(), error.problem()), ("refreshtoken", &LineProblem::Unknown));
/// assert!(!error.to_string().contains("5Aep861"));
/// # Ok::<(), tokenwal::ledger::LineError>(())
/// ```
#[derive(Debug)]
pub struct Line<'a> {
    account: &'a Account,
    pair: &'a IssuedPair,
    paused: bool,
    holder: Option<&'a Holder>,
    tokens: bool,
}

impl<'a> Line<'a> {
    /// Reads a line. `now_ms`, in milliseconds since 1970, is taken for when it was issued where
    /// the line does not say that.
    ///
    /// Empty texts and nulls count as absent.
    ///
    /// # Errors
    /// [`LineError`] names the member that is wrong.
    pub fn parse(text: &str, now_ms: u64) -> Result<Import, LineError> {
        read::line(text, now_ms)
    }

    /// Takes the newest pair of a grant of an account. Where its access token has not the scopes of
    /// the grant ([`IssuedPair::is_narrowed`]) the line has none: the refresh token brings another.
    pub fn of(account: &'a Account, pair: &'a IssuedPair, grant: &GrantView) -> Self {
        Self { account, pair, paused: grant.paused, holder: None, tokens: true }
    }

    /// Names who depends on it. A grant of several holders is several lines: where one is imported,
    /// those after it add their holder to it.
    pub fn holder(mut self, holder: &'a Holder) -> Self {
        self.holder = Some(holder);
        self
    }

    /// Leaves out the tokens and the other fields of the answer, which may be secret too.
    pub fn without_tokens(mut self) -> Self {
        self.tokens = false;
        self
    }

    /// Writes the line, without a line feed. With its tokens it is itself a secret.
    pub fn text(&self) -> Secret {
        let pair = self.pair;
        let fields: usize =
            pair.fields().iter().map(|(name, raw)| name.len() + raw.reveal().len() + 16).sum();
        let tokens = [Some(pair.access_token()), pair.refresh_token(), pair.id_token()];
        let tokens: usize = tokens.iter().flatten().map(|token| token.reveal().len()).sum();
        // Room for all of it, so that no copy is left behind by growing.
        let mut text = Vec::with_capacity(4096 + fields + 2 * tokens);
        serde_json::to_writer(&mut text, self).expect("texts and numbers can be written");
        Secret::new(String::from_utf8(text).expect("JSON is UTF-8"))
    }
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (account, pair) = (self.account, self.pair);
        let mut line = serializer.serialize_map(None)?;
        let app = [("provider", account.app.provider()), ("client_id", account.app.client_id())];
        line.serialize_entry("app", &Texts(&app))?;
        line.serialize_entry("user", account.user.as_str())?;
        if let Some(holder) = self.holder {
            let holder = [("tenant", holder.tenant()), ("name", holder.name())];
            line.serialize_entry("holder", &Texts(&holder))?;
        }
        line.serialize_entry("scopes", pair.scopes())?;
        // One that has not what the line says is worth nothing to who reads it.
        let has_access_token = !pair.access_token().reveal().is_empty() && !pair.is_narrowed();
        let tokens = [
            ("access_token", Some(pair.access_token()).filter(|_| has_access_token)),
            ("refresh_token", pair.refresh_token()),
            ("id_token", pair.id_token()),
        ];
        for (name, token) in tokens {
            if let Some(token) = token.filter(|_| self.tokens) {
                line.serialize_entry(name, token.reveal())?;
            }
        }
        line.serialize_entry("token_type", pair.token_type())?;
        line.serialize_entry("issued_at_ms", &pair.issued_at_ms())?;
        if let Some(at_ms) = pair.expires_at_ms().filter(|_| has_access_token) {
            line.serialize_entry("expires_at_ms", &at_ms)?;
            line.serialize_entry("expiry", &pair.expiry_source())?;
        }
        for (name, url) in
            [("instance_url", pair.instance_url()), ("token_endpoint", pair.token_endpoint())]
        {
            if let Some(url) = url {
                line.serialize_entry(name, url)?;
            }
        }
        if self.tokens && !pair.fields().is_empty() {
            line.serialize_entry("fields", &Fields(pair.fields()))?;
        }
        line.serialize_entry("paused", &self.paused)?;
        line.end()
    }
}

struct Texts<'a>(&'a [(&'static str, &'a str)]);

impl Serialize for Texts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

struct Fields<'a>(&'a [(String, Secret)]);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, raw) in self.0 {
            match serde_json::from_str::<&RawValue>(raw.reveal()) {
                Ok(raw) => map.serialize_entry(name, raw)?,
                // Whatever it is, it is not lost.
                Err(_) => map.serialize_entry(name, raw.reveal())?,
            }
        }
        map.end()
    }
}

/// Says which member of a line is wrong, and never shows a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError {
    member: String,
    problem: LineProblem,
}

/// What is wrong with a line or a member of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineProblem {
    /// It is not one JSON object.
    #[error("it is not one JSON object")]
    NotAnObject,
    /// It has more than 1 MiB.
    #[error("it has more than 1 MiB")]
    TooLong,
    /// It has more than 256 members.
    #[error("it has more than 256 members")]
    TooMany,
    /// It is needed and not there.
    #[error("it is missing")]
    Missing,
    /// There are neither an access token nor a refresh token.
    #[error("it has neither an access_token nor a refresh_token")]
    NoToken,
    /// It is given twice.
    #[error("it is given twice")]
    Twice,
    /// Nothing of this name is known.
    #[error("no member of this name is known; what else the provider answered goes into fields")]
    Unknown,
    /// It is something else than it must be.
    #[error("it must be {0}")]
    Expected(&'static str),
    /// It is no name.
    #[error("{0}")]
    Name(NameError),
}

impl LineError {
    fn new(member: &str, problem: LineProblem) -> Self {
        let shown = member.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
        Self { member: shown.take(NAME_CHARS_SHOWN).collect(), problem }
    }

    fn whole(problem: LineProblem) -> Self {
        Self::new("", problem)
    }

    /// Returns the member's name, such as `app.client_id`; empty where it is the line.
    pub fn member(&self) -> &str {
        &self.member
    }

    /// Returns what is wrong.
    pub fn problem(&self) -> &LineProblem {
        &self.problem
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.member.as_str() {
            "" => write!(f, "the line: {}", self.problem),
            member => write!(f, "{member}: {}", self.problem),
        }
    }
}

impl std::error::Error for LineError {}
