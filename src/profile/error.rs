//! What is wrong with a profile, and where: line, column, key, and what would be right.

/// Says what is wrong with a profile's TOML, and where.
///
/// It names keys and what is allowed for them, never what stood there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {}{problem}", before(key))]
pub struct ProfileError {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) key: String,
    pub(super) problem: Problem,
}

/// Says what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The text is not TOML.
    #[error("this is not TOML: {0}")]
    Syntax(String),
    /// The text is longer than any profile.
    #[error("a profile has at most 256 KiB")]
    TooLong,
    /// The key means nothing here.
    #[error("there is no such key; there are {}", listed(.0))]
    UnknownKey(Vec<&'static str>),
    /// A key is needed that is not there.
    #[error("it is missing; give {0}")]
    Missing(&'static str),
    /// The value is of another kind.
    #[error("it must be {0}")]
    Expected(&'static str),
    /// The value is a word that means nothing here.
    #[error("it must be one of {}", listed(.0))]
    NotOneOf(Vec<&'static str>),
    /// A fact is said to have been read, and not where and when.
    #[error("what is verified or secondary names its `source`, and the day as `on`")]
    NoSource,
    /// An error is said to end a grant, or to let a token be sent again, on hearsay.
    #[error(
        "`dead` and `busy` are acted on, so they must be verified; or leave `status` out to say \
         so on your own word"
    )]
    Unproven,
}

impl ProfileError {
    /// Returns the line, counted from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Returns the column, counted from 1 in characters.
    pub fn column(&self) -> usize {
        self.column
    }

    /// Returns the key, such as `cap.overflow` or `errors[2].meaning`; empty where there is none.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns what is wrong.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

fn before(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}

fn listed(words: &[&str]) -> String {
    words.join(", ")
}
