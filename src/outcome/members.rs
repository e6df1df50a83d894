//! The members of a JSON object, each as the text that it came as.
//!
//! Nothing is converted before it is asked for, and a name that comes twice is there twice, so
//! that no value is lost to a parser's choice. A token with escapes passes once through the
//! parser's own buffer; all others go straight from the wiped body into a [`Secret`].

use super::UnreadableReason;
use crate::secret::Secret;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The most members that an answer may have.
const MEMBERS_MAX: usize = 256;
/// The longest text taken for a name, a URL or a scope; a longer one is kept as it came.
const TEXT_BYTES_MAX: usize = 4096;

/// The members of a JSON object in their order, names that come twice included.
pub(crate) struct Members<'a> {
    list: Vec<(Cow<'a, str>, &'a RawValue)>,
    too_many: bool,
}

impl<'a> Members<'a> {
    /// Reads an object of at most 256 members, and nothing behind it.
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, UnreadableReason> {
        let members: Self =
            serde_json::from_slice(body).map_err(|_| UnreadableReason::NotAnObject)?;
        if members.too_many { Err(UnreadableReason::TooLarge) } else { Ok(members) }
    }

    /// Returns the first value of that name.
    pub(crate) fn find(&self, name: &str) -> Option<&'a RawValue> {
        self.list.iter().find(|(known, _)| known == name).map(|(_, raw)| *raw)
    }

    /// Takes a member out if `understood` makes something of it; absent ones go without a trace.
    pub(crate) fn take<T>(
        &mut self,
        name: &str,
        understood: impl Fn(&RawValue) -> Option<T>,
    ) -> Option<T> {
        let at = self.list.iter().position(|(known, _)| known == name)?;
        let (_, raw) = self.list.get(at)?;
        let value = understood(raw);
        if value.is_some() || is_absent(raw) {
            self.list.remove(at);
        }
        value
    }

    /// Takes a token out. Of two values neither may be lost, so they make the answer unreadable.
    pub(crate) fn take_token(&mut self, name: &str) -> Result<Option<Secret>, UnreadableReason> {
        let mut token: Option<Secret> = None;
        let mut bad = false;
        self.list.retain(|(known, raw)| {
            if known != name {
                return true;
            }
            if !is_absent(raw) {
                match (text(raw).map(Secret::new), &token) {
                    (Some(found), None) => token = Some(found),
                    (Some(found), Some(kept)) => bad |= found.reveal() != kept.reveal(),
                    (None, _) => bad = true,
                }
            }
            false
        });
        if bad { Err(UnreadableReason::BadToken) } else { Ok(token) }
    }

    /// Takes out all values of that name.
    pub(crate) fn take_all(&mut self, name: &str) -> Vec<&'a RawValue> {
        let values = self.list.extract_if(.., |(known, _)| known == name);
        values.map(|(_, raw)| raw).collect()
    }

    /// Returns the first name that is left.
    pub(crate) fn first_name(&self) -> Option<&str> {
        self.list.first().map(|(name, _)| &**name)
    }

    /// Returns what is left, as name and raw JSON.
    pub(crate) fn into_fields(self) -> Vec<(String, Secret)> {
        self.list
            .into_iter()
            .map(|(name, raw)| (name.into_owned(), Secret::new(raw.get().to_owned())))
            .collect()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Members { list: Vec::new(), too_many: false };
                while let Some((name, raw)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.too_many |= members.list.len() >= MEMBERS_MAX;
                    if !members.too_many {
                        members.list.push((name.0, raw));
                    }
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// A member's name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Says whether a value is null or an empty text.
pub(crate) fn is_absent(raw: &RawValue) -> bool {
    matches!(raw.get(), "null" | "\"\"")
}

/// Returns the value if it is a text.
pub(crate) fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// Returns a text that is fit to be shown.
pub(crate) fn plain_text(raw: &RawValue) -> Option<String> {
    text(raw).filter(|text| is_plain(text))
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

/// Scopes stand in one text, separated by spaces (RFC 6749, section 3.3); some send a list.
pub(crate) fn scopes(raw: &RawValue) -> Option<Vec<String>> {
    let scopes: Vec<String> = match text(raw) {
        Some(text) => text.split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
        None => serde_json::from_str(raw.get()).ok()?,
    };
    (!scopes.is_empty() && scopes.iter().all(|scope| is_plain(scope))).then_some(scopes)
}

/// Returns a number that stands as such or in a text, without its fraction.
pub(crate) fn whole_number(raw: &RawValue) -> Option<u64> {
    let quoted = text(raw);
    let digits = quoted.as_deref().unwrap_or(raw.get()).trim();
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    (digits_only(whole) && digits_only(fraction)).then(|| whole.parse().ok())?
}
