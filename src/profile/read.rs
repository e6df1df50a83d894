//! Facts and rules out of TOML.

use super::error::{Problem, ProfileError};
use super::fact::{Evidence, Fact, Status};
use super::rule::{ErrorRule, Meaning};
use super::table::{Needed as _, Table};
use super::value::{
    Approvals, Cap, CapCounts, CapPer, ClientAuth, Endpoints, Expiry, ExpirySource, IdentitySource,
    Introspects, Overflow, Recovery, Reuse, RevokeBy, RevokeGranularity, Rotates, Throttle,
};
use super::word::{Word, words};

/// The keys that any fact may have.
const EVIDENCE: &[&str] = &["status", "source", "on", "note"];
const ONE_VALUE: &[&str] = &["value"];

/// What a fact's table says.
pub(super) trait FactValue: Sized {
    /// The table's keys, beside those of the evidence.
    const KEYS: &'static [&'static str];

    fn read(table: &Table<'_>) -> Result<Self, ProfileError>;
}

/// Reads a fact; `None` where the document does not speak of it.
pub(super) fn fact<T: FactValue>(
    document: &Table<'_>,
    key: &'static str,
) -> Result<Option<Fact<T>>, ProfileError> {
    let Some(table) = document.table(key)? else { return Ok(None) };
    let evidence = evidence(&table)?;
    if evidence.status == Status::Unknown {
        table.only(&[EVIDENCE])?;
        return Ok(Some(Fact::new(None, evidence)));
    }
    table.only(&[T::KEYS, EVIDENCE])?;
    Ok(Some(Fact::new(Some(T::read(&table)?), evidence)))
}

/// Reads a line of the table of errors.
pub(super) fn rule(table: &Table<'_>) -> Result<ErrorRule, ProfileError> {
    table.only(&[&["asked", "http", "error", "description", "meaning", "cause"], EVIDENCE])?;
    let http = match table.number("http")? {
        None => None,
        Some(status) => {
            let status = u16::try_from(status).ok().filter(|status| (100..600).contains(status));
            let wrong = || table.wrong("http", Problem::Expected("a status from 100 to 599"));
            Some(status.ok_or_else(wrong)?)
        }
    };
    let rule = ErrorRule {
        asked: table.words("asked")?.unwrap_or_default(),
        http,
        error: table.text("error").needed(table, "error", "the error code")?,
        description: table.text("description")?.unwrap_or_default().to_ascii_lowercase(),
        meaning: table.word("meaning").needed(table, "meaning", "what it means")?,
        cause: table.word("cause")?,
        evidence: evidence(table)?,
    };
    if rule.meaning.needs_proof() && !rule.evidence.status.is_verified() {
        return Err(table.wrong("status", Problem::Unproven));
    }
    if rule.cause.is_some() && rule.meaning != Meaning::Dead {
        return Err(table.wrong("cause", Problem::Expected("left out unless the meaning is dead")));
    }
    Ok(rule)
}

fn evidence(table: &Table<'_>) -> Result<Evidence, ProfileError> {
    let evidence = Evidence {
        status: table.word("status")?.unwrap_or(Status::Configured),
        source: table.text("source")?.unwrap_or_default(),
        on: table.text("on")?.unwrap_or_default(),
        note: table.text("note")?.unwrap_or_default(),
    };
    if !evidence.on.is_empty() && !is_day(&evidence.on) {
        return Err(table.wrong("on", Problem::Expected("a day such as \"2026-11-22\"")));
    }
    let was_read = matches!(evidence.status, Status::Verified | Status::Secondary);
    if was_read && (evidence.source.is_empty() || evidence.on.is_empty()) {
        let key = if evidence.source.is_empty() { "source" } else { "on" };
        return Err(table.wrong(key, Problem::NoSource));
    }
    Ok(evidence)
}

fn is_day(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

impl FactValue for bool {
    const KEYS: &'static [&'static str] = ONE_VALUE;

    fn read(table: &Table<'_>) -> Result<Self, ProfileError> {
        table.boolean("value").needed(table, "value", "true or false")
    }
}

macro_rules! one_word {
    ($($name:ident),*) => {
        $(impl FactValue for $name {
            const KEYS: &'static [&'static str] = ONE_VALUE;

            fn read(table: &Table<'_>) -> Result<Self, ProfileError> {
                value(table)
            }
        })*
    };
}

one_word!(Rotates, Reuse, RevokeGranularity, Introspects);

fn value<T: Word>(table: &Table<'_>) -> Result<T, ProfileError> {
    table.word("value")?.ok_or_else(|| table.wrong("value", Problem::NotOneOf(T::WORDS.to_vec())))
}

impl FactValue for Cap {
    const KEYS: &'static [&'static str] =
        &["number", "guard", "counts", "per", "overflow", "outside"];

    fn read(table: &Table<'_>) -> Result<Self, ProfileError> {
        let number = table.number("number").needed(table, "number", "the cap")?;
        let guard = table.number("guard")?.unwrap_or(number);
        if number == 0 || guard == 0 || guard > number {
            let key = if number == 0 { "number" } else { "guard" };
            return Err(table.wrong(key, Problem::Expected("from 1 to the cap")));
        }
        Ok(Self {
            number,
            guard,
            counts: table.word("counts")?.unwrap_or(CapCounts::RefreshTokens),
            per: table.word("per")?.unwrap_or(CapPer::UserApp),
            overflow: table.word("overflow")?.unwrap_or(Overflow::OldestRevoked),
            outside: table.number("outside")?.unwrap_or(0),
        })
    }
}

impl FactValue for Throttle {
    const KEYS: &'static [&'static str] = &["number", "seconds"];

    fn read(table: &Table<'_>) -> Result<Self, ProfileError> {
        Ok(Self {
            number: table.number("number").needed(table, "number", "how many")?,
            seconds: table.number("seconds").needed(table, "seconds", "within what time")?,
        })
    }
}

words! {
    enum RecoveryKind {
        None = "none",
        Replay = "replay",
        UntilSuccessorUsed = "until_successor_used",
        OldStaysValid = "old_stays_valid",
        Idempotent = "idempotent",
    }
}

impl FactValue for Recovery {
    const KEYS: &'static [&'static str] = &["kind", "seconds", "max_seconds"];

    fn read(table: &Table<'_>) -> Result<Self, ProfileError> {
        let kind: RecoveryKind = table.word("kind").needed(table, "kind", "the kind")?;
        let seconds = || table.number("seconds").needed(table, "seconds", "the window");
        let keys: &[&'static str] = match kind {
            RecoveryKind::None | RecoveryKind::OldStaysValid => &["kind"],
            RecoveryKind::Replay | RecoveryKind::Idempotent => &["kind", "seconds"],
            RecoveryKind::UntilSuccessorUsed => &["kind", "max_seconds"],
        };
        table.only(&[keys, EVIDENCE])?;
        Ok(match kind {
            RecoveryKind::None => Self::None,
            RecoveryKind::OldStaysValid => Self::OldStaysValid,
            RecoveryKind::Replay => Self::Replay { seconds: seconds()? },
            RecoveryKind::Idempotent => Self::Idempotent { seconds: seconds()? },
            RecoveryKind::UntilSuccessorUsed => Self::UntilSuccessorUsed {
                max_seconds: table.number("max_seconds").needed(
                    table,
                    "max_seconds",
                    "the longest window",
                )?,
            },
        })
    }
}

words! {
    enum IdentityFrom {
        IdentityUrl = "identity_url",
        IdToken = "id_token",
        Callback = "callback",
        LookUp = "look_up",
        Caller = "caller",
    }
}

impl FactValue for IdentitySource {
    const KEYS: &'static [&'static str] =
        &["from", "field", "claim", "parameter", "url", "pointer"];

    fn read(table: &Table<'_>) -> Result<Self, ProfileError> {
        let from: IdentityFrom = table.word("from").needed(table, "from", "where it is named")?;
        let keys: &[&'static str] = match from {
            IdentityFrom::IdentityUrl => &["from", "field"],
            IdentityFrom::IdToken => &["from", "claim"],
            IdentityFrom::Callback => &["from", "parameter"],
            IdentityFrom::LookUp => &["from", "url", "pointer"],
            IdentityFrom::Caller => &["from"],
        };
        table.only(&[keys, EVIDENCE])?;
        let text = |key| table.text(key).needed(table, key, "its name");
        Ok(match from {
            IdentityFrom::IdentityUrl => Self::IdentityUrl { field: text("field")? },
            IdentityFrom::IdToken => Self::IdToken { claim: text("claim")? },
            IdentityFrom::Callback => Self::Callback { parameter: text("parameter")? },
            IdentityFrom::LookUp => {
                Self::LookUp { url: url(table, "url")?, pointer: pointer(table, "pointer")? }
            }
            IdentityFrom::Caller => Self::Caller,
        })
    }
}

impl FactValue for Vec<ClientAuth> {
    const KEYS: &'static [&'static str] = &["values"];

    fn read(table: &Table<'_>) -> Result<Self, ProfileError> {
        table.words("values").needed(table, "values", "the ways")
    }
}

/// Suffixes of hosts, each of whole labels.
impl FactValue for Vec<String> {
    const KEYS: &'static [&'static str] = &["suffixes"];

    fn read(table: &Table<'_>) -> Result<Self, ProfileError> {
        let suffixes = table.texts("suffixes").needed(table, "suffixes", "the suffixes")?;
        let is_label = |label: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            !label.is_empty() && label.bytes().all(fits)
        };
        // One label alone would let tokens go to any host of a top-level domain.
        let is_suffix = |suffix: &String| suffix.contains('.') && suffix.split('.').all(is_label);
        if suffixes.is_empty() || !suffixes.iter().all(is_suffix) {
            let expected = Problem::Expected("a list of hosts such as \"salesforce.com\"");
            return Err(table.wrong("suffixes", expected));
        }
        Ok(suffixes.iter().map(|suffix| suffix.to_ascii_lowercase()).collect())
    }
}

impl FactValue for Vec<(String, String)> {
    const KEYS: &'static [&'static str] = &["parameters"];

    fn read(table: &Table<'_>) -> Result<Self, ProfileError> {
        table.pairs("parameters").needed(table, "parameters", "the parameters")
    }
}

impl FactValue for Endpoints {
    const KEYS: &'static [&'static str] =
        &["authorize", "token", "revoke", "revoke_by", "introspect"];

    fn read(table: &Table<'_>) -> Result<Self, ProfileError> {
        let optional = |key| table.has(key).then(|| url(table, key)).transpose();
        Ok(Self {
            authorize: optional("authorize")?,
            token: url(table, "token")?,
            revoke: optional("revoke")?,
            revoke_by: table.word("revoke_by")?.unwrap_or(RevokeBy::PostForm),
            introspect: optional("introspect")?,
        })
    }
}

impl FactValue for Expiry {
    const KEYS: &'static [&'static str] =
        &["from", "access_seconds", "refresh_idle_seconds", "refresh_max_seconds"];

    fn read(table: &Table<'_>) -> Result<Self, ProfileError> {
        let source: ExpirySource = table.word("from").needed(table, "from", "how it is known")?;
        Ok(Self {
            source,
            access_seconds: table.number("access_seconds")?,
            refresh_idle_seconds: table.number("refresh_idle_seconds")?,
            refresh_max_seconds: table.number("refresh_max_seconds")?,
        })
    }
}

impl FactValue for Approvals {
    const KEYS: &'static [&'static str] =
        &["url", "records", "id", "app", "user", "created", "last_used", "uses"];

    fn read(table: &Table<'_>) -> Result<Self, ProfileError> {
        Ok(Self {
            url: url(table, "url")?,
            records: pointer(table, "records")?,
            id: table.text("id").needed(table, "id", "the member's name")?,
            app: table.text("app")?,
            user: table.text("user")?,
            created: table.text("created")?,
            last_used: table.text("last_used")?,
            uses: table.text("uses")?,
        })
    }
}

/// Reads a URL in which hosts may be left open.
fn url(table: &Table<'_>, key: &'static str) -> Result<String, ProfileError> {
    let url = table.text(key).needed(table, key, "a URL")?;
    let open = ["{host}", "{instance}", "{client_id}"]
        .iter()
        .fold(url.clone(), |url, open| url.replace(open, ""));
    let starts = url.starts_with("https://") || url.starts_with("{instance}/");
    if !starts || open.contains(['{', '}', ' ']) || url.contains(char::is_control) {
        let expected = "a URL such as \"https://{host}/token\" or \"{instance}/path\"";
        return Err(table.wrong(key, Problem::Expected(expected)));
    }
    Ok(url)
}

fn pointer(table: &Table<'_>, key: &'static str) -> Result<String, ProfileError> {
    let pointer = table.text(key).needed(table, key, "a JSON pointer")?;
    if pointer.is_empty() || pointer.starts_with('/') {
        return Ok(pointer);
    }
    Err(table.wrong(key, Problem::Expected("a JSON pointer such as \"/user/id\"")))
}
