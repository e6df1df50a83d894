//! Facts in words, for tables.

use super::fact::{Fact, Status};
use super::value::{
    Approvals, Cap, CapCounts, CapPer, ClientAuth, Endpoints, Expiry, IdentitySource, Introspects,
    Overflow, Recovery, Reuse, RevokeGranularity, Rotates, Throttle,
};

/// A fact as a line of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// The fact's name, which is its key in TOML.
    pub name: &'static str,
    /// The value in words; `None` if it is not known.
    pub value: Option<String>,
    /// How well it is known.
    pub status: Status,
    /// Where it was read.
    pub source: &'a str,
    /// On which day.
    pub on: &'a str,
    /// What else is to be said of it.
    pub note: &'a str,
}

impl<'a> Line<'a> {
    pub(super) fn of<T: InWords>(name: &'static str, fact: &'a Fact<T>) -> Self {
        let evidence = fact.evidence();
        Self {
            name,
            value: fact.known().map(InWords::in_words),
            status: evidence.status,
            source: &evidence.source,
            on: &evidence.on,
            note: &evidence.note,
        }
    }
}

/// What can be said in a few words.
pub(super) trait InWords {
    fn in_words(&self) -> String;
}

impl InWords for bool {
    fn in_words(&self) -> String {
        String::from(if *self { "yes" } else { "no" })
    }
}

macro_rules! spelled {
    ($($name:ident),*) => {
        $(impl InWords for $name {
            fn in_words(&self) -> String {
                self.word().replace('_', " ")
            }
        })*
    };
}

spelled!(Rotates, Reuse, RevokeGranularity, Introspects);

impl InWords for Cap {
    fn in_words(&self) -> String {
        let counts = match self.counts {
            CapCounts::RefreshTokens => "refresh tokens",
            CapCounts::Grants => "grants",
            CapCounts::AccessTokens => "access tokens",
        };
        let per = match self.per {
            CapPer::UserApp => "user and app",
            CapPer::UserAppScope => "user, app and scopes",
        };
        let overflow = match self.overflow {
            Overflow::OldestRevoked => "the oldest is revoked",
            Overflow::LeastUsedRevoked => "the least used is revoked",
            Overflow::Refused => "one more is refused",
        };
        let guard = match self.guard {
            guard if guard == self.number => String::new(),
            guard => format!(" (guarded at {guard})"),
        };
        let outside = match self.outside {
            0 => String::new(),
            outside => format!(", {outside} outside our sight"),
        };
        format!("{} {counts} per {per}{guard}{outside}; {overflow}", self.number)
    }
}

impl InWords for Throttle {
    fn in_words(&self) -> String {
        format!("{} within {}", self.number, time(self.seconds))
    }
}

impl InWords for Recovery {
    fn in_words(&self) -> String {
        match self {
            Self::None => String::from("none"),
            Self::Replay { seconds } => format!("the old token again for {}", time(*seconds)),
            Self::UntilSuccessorUsed { max_seconds } => {
                let most = time(*max_seconds);
                format!("the old token until the new one is used, at most {most}")
            }
            Self::OldStaysValid => String::from("the old token stays valid"),
            Self::Idempotent { seconds } => {
                format!("the same answer again for {}", time(*seconds))
            }
        }
    }
}

impl InWords for IdentitySource {
    fn in_words(&self) -> String {
        match self {
            Self::IdentityUrl { field } => format!("identity URL in {field}"),
            Self::IdToken { claim } => format!("claim {claim} of the id token"),
            Self::Callback { parameter } => format!("parameter {parameter} of the callback"),
            Self::LookUp { url, pointer } => format!("{pointer} of {url}"),
            Self::Caller => String::from("the caller knows"),
        }
    }
}

impl InWords for Vec<ClientAuth> {
    fn in_words(&self) -> String {
        self.iter().map(|auth| auth.word()).collect::<Vec<_>>().join(", ")
    }
}

impl InWords for Vec<String> {
    fn in_words(&self) -> String {
        self.join(", ")
    }
}

impl InWords for Vec<(String, String)> {
    fn in_words(&self) -> String {
        let pairs = self.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("&")
    }
}

impl InWords for Endpoints {
    fn in_words(&self) -> String {
        let optional = [&self.revoke, &self.introspect, &self.authorize];
        let urls = std::iter::once(self.token.as_str())
            .chain(optional.into_iter().flatten().map(String::as_str));
        urls.collect::<Vec<_>>().join(" ")
    }
}

impl InWords for Expiry {
    fn in_words(&self) -> String {
        let lives = [
            ("access", self.access_seconds),
            ("refresh unused", self.refresh_idle_seconds),
            ("refresh at most", self.refresh_max_seconds),
        ];
        let lives = lives.into_iter().filter_map(|(what, seconds)| Some((what, seconds?)));
        let told = lives.map(|(what, seconds)| format!("; {what} {}", time(seconds)));
        format!("{}{}", self.source, told.collect::<String>())
    }
}

impl InWords for Approvals {
    fn in_words(&self) -> String {
        format!("listed at {}", self.url)
    }
}

/// Writes a duration in the largest unit that it is a multiple of.
fn time(seconds: u32) -> String {
    const UNITS: [(u32, &str); 3] = [(86_400, "d"), (3600, "h"), (60, "min")];
    let unit =
        UNITS.into_iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    match unit {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} s"),
    }
}
