//! How the command ends: its exit codes, and what it says when it fails.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use tokenwal::broker::BrokerError;
use tokenwal::{Error, KeyError, Verdict};

/// The exit codes; 2, wrong usage, is clap's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command did what it was asked, and what it looked at is sound.
    Sound,
    /// It failed, or found that what it set out to show does not hold.
    Failed,
    /// The store is corrupt or suspect.
    Damaged,
    /// The store is sound and has a torn tail.
    Torn,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Sound => 0,
            Exit::Failed => 1,
            Exit::Damaged => 3,
            Exit::Torn => 4,
        })
    }
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Clean => Self::Sound,
            Verdict::Torn => Self::Torn,
            _ => Self::Damaged,
        }
    }
}

/// Why a command could not do what it was asked, and what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Box<dyn StdError + Send + Sync>,
    /// The store, where the error itself may name a file only.
    store: Option<String>,
    advice: Option<Cow<'static, str>>,
    exit: Exit,
}

impl Failure {
    /// Makes a failure of what went wrong and what to do next.
    pub(crate) fn new(
        error: impl Into<Box<dyn StdError + Send + Sync>>,
        advice: impl Into<Cow<'static, str>>,
    ) -> Self {
        let advice = Some(advice.into());
        Self { error: error.into(), store: None, advice, exit: Exit::Failed }
    }

    /// Makes failures of errors about the store in `dir`.
    pub(crate) fn of(dir: &Path) -> impl Fn(Error) -> Self {
        let dir = dir.display().to_string();
        move |error| Self { store: Some(dir.clone()), ..Self::from(error) }
    }

    /// Says what went wrong, with all causes, and what to do next.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("tokenwal: {}", self.error);
        let mut cause = self.error.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text.push('\n');
        if let Some(store) = self.store.as_ref().filter(|store| !text.contains(*store)) {
            text.push_str(&format!("store: {store}\n"));
        }
        if let Some(advice) = &self.advice {
            text.push_str(&format!("do next: {advice}\n"));
        }
        text
    }

    /// Says how the command ends for it.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Prints the failure and gives the exit code. A reader that went away is no failure.
    pub(crate) fn report(&self) -> ExitCode {
        if self.is_broken_pipe() {
            return Exit::Sound.into();
        }
        say(&self.text());
        self.exit.into()
    }

    /// Says whether all that failed is that a reader went away.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        let error: Option<&io::Error> = self.error.downcast_ref();
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let advice = match &error {
            Error::Key(error) => Cow::Owned(error.advice()),
            error => Cow::Borrowed(error.advice()),
        };
        let exit = if is_damage(&error) { Exit::Damaged } else { Exit::Failed };
        Self { advice: Some(advice), error: error.into(), store: None, exit }
    }
}

fn is_damage(error: &Error) -> bool {
    match error {
        Error::Corrupt(_) | Error::Suspect(_) | Error::Forged { .. } => true,
        Error::Compaction(cause) => is_damage(cause),
        _ => false,
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        let advice = error.advice();
        Self::new(error, advice)
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let advice = error.advice();
        Self::new(error, advice)
    }
}

/// What the command writes to, or something else of its own that the system refused.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { error: error.into(), store: None, advice: None, exit: Exit::Failed }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::from(io::Error::from(error))
    }
}

/// Prints a line for people, beside what the command gives.
pub(crate) fn say(text: &str) {
    // Where even this cannot be said, the exit code says it.
    let _ = io::stderr().write_all(text.as_bytes());
}
