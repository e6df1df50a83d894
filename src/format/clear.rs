//! The clear parts of records (journal-format.md, section 7): what the fold needs, fixed-width,
//! readable without a key. They name no one: people's names stand in the sealed parts.

use super::layout::{BadField, Fixed, Table, layout};
use super::record::Kind;
pub use super::shape::*;
use crate::ids::{AccountTag, Generation, GrantId, OpId};
use std::ops::BitOr;

/// The longest clear part of any kind, in bytes.
pub const CLEAR_BYTES_MAX: usize = 176;

/// The bits of [`Prefix::flags`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u32);

impl Flags {
    /// No bit is set.
    pub const NONE: Self = Self(0);
    /// The account's tag is provisional: random, since the user is not yet known.
    pub const PROVISIONAL: Self = Self(1);
    /// There is a refresh token.
    pub const REFRESH: Self = Self(1 << 1);
    /// The refresh token was inherited from the generation before.
    pub const INHERITED: Self = Self(1 << 2);
    /// Settled for an operation that was unknown or fenced.
    pub const ORPHAN: Self = Self(1 << 3);
    /// The provider declared when the access token expires.
    pub const EXPIRES_DECLARED: Self = Self(1 << 4);
    /// The time of expiry is our assumption.
    pub const EXPIRES_ASSUMED: Self = Self(1 << 5);
    /// The imported grant is paused until it is activated.
    pub const PAUSED: Self = Self(1 << 6);
    /// The grant began with an `Imported`.
    pub const IMPORTED: Self = Self(1 << 7);
    /// The record's holder holds the grant by it.
    pub const HELD: Self = Self(1 << 8);
    /// An access token beside the grant's chain of pairs; in an intent, one is asked for.
    pub const BESIDE: Self = Self(1 << 9);
    /// There are access tokens of the grant before this one, and the expiry of each is assumed.
    pub const EARLIER_ASSUMED: Self = Self(1 << 10);

    /// Says whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns these bits but for those of `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The bits that a kind may have; all others are reserved [F-47].
    pub(super) const fn allowed(kind: Kind) -> Self {
        match kind {
            Kind::Intent => Self(Self::PROVISIONAL.0 | Self::BESIDE.0),
            Kind::Issued => Self(0b111_1111_1111),
            Kind::Imported => Self(0b111_0010),
            _ => Self::NONE,
        }
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Fixed for Flags {
    const WIDTH: usize = 4;

    fn read(bytes: &mut &[u8]) -> Result<Self, BadField> {
        u32::read(bytes).map(Self)
    }

    fn write(&self, out: &mut &mut [u8]) {
        self.0.write(out);
    }
}

layout! {
    /// What every application record begins with.
    pub struct Prefix = "clear_prefix", 40 {
        /// Whom the record concerns; for `Identified` and `Merged` that from which is moved.
        account: AccountTag;
        /// The grant, or none.
        grant: GrantId;
        /// The generation, or none.
        generation: Generation;
        /// Bits, per kind.
        flags: Flags;
        /// The operation that the record belongs to, or none.
        op: OpId;
    }
}

macro_rules! clear {
    ($($kind:ident($type:ident) prefix $has_prefix:tt;)*) => {
        /// A decoded clear part.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Clear {
            $(
                #[doc = concat!("Of the kind `", stringify!($kind), "`.")]
                $kind($type)
            ),*
        }

        impl Clear {
            /// Returns the kind.
            pub const fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind),* }
            }

            /// Returns the width of the clear part of a kind, in bytes.
            pub const fn bytes_of(kind: Kind) -> usize {
                match kind { $(Kind::$kind => $type::SIZE),* }
            }

            /// Returns the layout of the clear part of a kind.
            pub const fn table_of(kind: Kind) -> Table {
                match kind { $(Kind::$kind => $type::TABLE),* }
            }

            /// Returns what every application record begins with; none for a structural one.
            pub fn prefix(&self) -> Option<&Prefix> {
                match self { $(Self::$kind(clear) => prefix_of!(clear, $has_prefix)),* }
            }

            /// Decodes exactly these bytes.
            ///
            /// # Errors
            /// The name of the first field that the format does not allow.
            pub fn decode(kind: Kind, bytes: &[u8]) -> Result<Self, BadField> {
                let clear = match kind {
                    $(Kind::$kind => $type::decode(bytes).map(Self::$kind)),*
                }?;
                match clear.prefix() {
                    Some(prefix) if !Flags::allowed(kind).has(prefix.flags) => {
                        Err(BadField("flags"))
                    }
                    _ => Ok(clear),
                }
            }

            /// Writes the clear part to the front of `out` and moves `out` behind it.
            pub(super) fn write(&self, out: &mut &mut [u8]) {
                match self { $(Self::$kind(clear) => clear.write(out)),* }
            }
        }
    };
}

macro_rules! prefix_of {
    ($clear:ident, self) => {
        Some($clear)
    };
    ($clear:ident, inside) => {
        Some(&$clear.prefix)
    };
    ($clear:ident, none) => {{
        let _ = $clear;
        None
    }};
}

clear! {
    Intent(Intent) prefix inside;
    Issued(Issued) prefix inside;
    Refused(Refused) prefix inside;
    NotSent(NotSent) prefix inside;
    InDoubt(InDoubt) prefix inside;
    Resolved(Resolved) prefix inside;
    Identified(Identified) prefix inside;
    Merged(Merged) prefix inside;
    Adopted(Adopted) prefix inside;
    Released(Released) prefix inside;
    Superseded(Superseded) prefix inside;
    Ended(Ended) prefix inside;
    Revived(Prefix) prefix self;
    Forgotten(Prefix) prefix self;
    Imported(Issued) prefix inside;
    Worked(Prefix) prefix self;
    Claimed(Claimed) prefix inside;
    Activated(Prefix) prefix self;
    Told(Told) prefix inside;
    Opened(Opened) prefix none;
    Sealed(Sealed) prefix none;
    Marker(Marker) prefix none;
}
