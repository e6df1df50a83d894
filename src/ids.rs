//! Names and numbers: who a pair belongs to, and where a record stands.
//!
//! Names that people choose (`App`, `User`, `Holder`) are checked once, when they are made.
//! On disk they appear only inside sealed parts; what is clear are keyed tags of sixteen bytes,
//! so that a stolen journal names no one and recovery needs no key (journal-format.md, "Tags").

use std::fmt;

/// The longest name that is taken, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Says why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty.
    #[error("the {0} is empty")]
    Empty(&'static str),
    /// The name is longer than 255 bytes.
    #[error("the {what} has {bytes} bytes, more than the {NAME_BYTES_MAX} allowed")]
    TooLong {
        /// Which name.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// The name holds a control character, which would forge lines in logs and tables.
    #[error("the {what} holds a control character at byte {at}")]
    Control {
        /// Which name.
        what: &'static str,
        /// Where the character stands.
        at: usize,
    },
}

fn checked(what: &'static str, name: String) -> Result<String, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty(what));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { what, bytes: name.len() });
    }
    if let Some((at, _)) = name.char_indices().find(|(_, c)| c.is_control()) {
        return Err(NameError::Control { what, at });
    }
    Ok(name)
}

/// Names a connected app: the provider (or issuer) and the client id.
///
/// Hosts are no part of it: a login host, a sandbox and a My Domain of one Salesforce app are one
/// app. Each name has 1 to 255 bytes and no control character.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct App {
    provider: String,
    client_id: String,
}

impl App {
    /// Makes an app from the provider's name and the client id.
    ///
    /// # Errors
    /// [`NameError`] for an empty or overlong name, or one with a control character.
    ///
    /// ```
    /// let app = tokenwal::App::new("salesforce", "3MVG9lKcPoNINVB")?;
    /// assert_eq!(app.provider(), "salesforce");
    /// assert!(tokenwal::App::new("salesforce", "").is_err());
    /// # Ok::<(), tokenwal::NameError>(())
    /// ```
    pub fn new(
        provider: impl Into<String>,
        client_id: impl Into<String>,
    ) -> Result<Self, NameError> {
        Ok(Self {
            provider: checked("provider", provider.into())?,
            client_id: checked("client id", client_id.into())?,
        })
    }

    /// Returns the provider's or issuer's name.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Returns the client id.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }
}

impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider, self.client_id)
    }
}

/// Names a resource owner at the provider; for Salesforce, organisation id and user id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct User(String);

impl User {
    /// Makes a user from a name that is unique at the provider.
    ///
    /// # Errors
    /// [`NameError`] for an empty or overlong name, or one with a control character.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        Ok(Self(checked("user", name.into())?))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names an account: one user of one app, the unit that a provider's cap counts on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    /// The connected app.
    pub app: App,
    /// The user.
    pub user: User,
}

impl Account {
    /// Joins an app and a user.
    pub fn new(app: App, user: User) -> Self {
        Self { app, user }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.user)
    }
}

/// Names whoever depends on an account, such as one integration of one customer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    tenant: String,
    name: String,
}

impl Holder {
    /// Makes a holder from its tenant and its name within the tenant.
    ///
    /// # Errors
    /// [`NameError`] for an empty or overlong name, or one with a control character.
    pub fn new(tenant: impl Into<String>, name: impl Into<String>) -> Result<Self, NameError> {
        Ok(Self {
            tenant: checked("tenant", tenant.into())?,
            name: checked("holder", name.into())?,
        })
    }

    /// Returns the tenant.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Returns the name within the tenant.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.name)
    }
}

/// Says that a text is not the hexadecimal form of sixteen bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tag has 32 hexadecimal digits")]
pub struct TagError;

macro_rules! tag {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Stands for "none" on disk.
            pub const NONE: Self = Self([0; 16]);

            /// Makes it from the bytes on disk.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Returns the bytes as they stand on disk.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0
            }

            /// Says whether it stands for "none".
            pub fn is_none(self) -> bool {
                self == Self::NONE
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = TagError;

            fn from_str(text: &str) -> Result<Self, TagError> {
                hex16(text).map(Self).ok_or(TagError)
            }
        }
    };
}

tag! {
    /// Stands for an account in the clear: a keyed hash, or random while the user is unknown.
    AccountTag
}
tag! {
    /// Stands for an app in the clear.
    AppTag
}
tag! {
    /// Stands for a holder in the clear.
    HolderTag
}
tag! {
    /// Recognises a token without holding it: a keyed hash of sixteen bytes.
    Fingerprint
}
tag! {
    /// Stands for a host in the clear.
    HostTag
}

/// What tells an authorization code from others, in a tag as well as in a fingerprint: their first
/// half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CodeMark([u8; 8]);

impl CodeMark {
    /// Returns that of what an exchange presents: the fingerprint of a code, or a tag that was made
    /// of one. None where it presents nothing that is known.
    pub(crate) fn of(presented: Fingerprint) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, ..] = presented.to_bytes();
        Some(Self([a, b, c, d, e, f, g, h])).filter(|_| !presented.is_none())
    }
}

impl AccountTag {
    /// Makes the tag under which an exchange stands that is known by its code and by the click that
    /// the code was given to: the first half of the code's fingerprint, and the second half of that
    /// of a secret of the click. Who has the code but not the click comes to another tag.
    pub fn of_exchange(code: Fingerprint, click: Fingerprint) -> Self {
        let mut bytes = click.to_bytes();
        for (byte, of_code) in bytes.iter_mut().zip(code.to_bytes()).take(8) {
            *byte = of_code;
        }
        Self(bytes)
    }
}
tag! {
    /// Identifies a process that owns a store; drawn at random when the store is opened.
    OwnerId
}
tag! {
    /// Identifies a store; drawn at random when the store is created.
    StoreId
}
tag! {
    /// Identifies a segment or snapshot file; drawn at random when the file is created.
    Nonce
}

fn hex16(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize)]
        pub struct $name(pub $inner);

        impl $name {
            /// Stands for "none" on disk.
            pub const NONE: Self = Self(0);

            /// Says whether it stands for "none".
            pub fn is_none(self) -> bool {
                self.0 == 0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

number! {
    /// The order of records in a journal; the first record has 1.
    Lsn, u64
}
number! {
    /// Identifies a grant within a store: the LSN of the intent or import that made it.
    GrantId, u64
}
number! {
    /// Identifies an operation: the LSN of its intent.
    OpId, u64
}
number! {
    /// Counts the refreshes of a grant, from 1; also the fencing number of its pair.
    Generation, u32
}

impl Lsn {
    /// Returns the LSN `count` further on; saturates, since no store lives to see 2^64 records.
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(App::new("", "x"), Err(NameError::Empty("provider")));
        assert_eq!(User::new("a\nb"), Err(NameError::Control { what: "user", at: 1 }));
        assert!(Holder::new("t", "x".repeat(255)).is_ok());
        assert_eq!(
            Holder::new("t", "x".repeat(256)),
            Err(NameError::TooLong { what: "holder", bytes: 256 })
        );
    }

    #[test]
    fn tags_round_trip_as_hexadecimal() {
        let tag = AccountTag::from_bytes(*b"0123456789abcdef");
        assert_eq!(tag.to_string().parse(), Ok(tag));
        assert_eq!("zz".parse::<AccountTag>(), Err(TagError));
        assert_eq!("é".repeat(16).parse::<AccountTag>(), Err(TagError));
    }
}
