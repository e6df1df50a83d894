//! How a fixed layout is written down once: as a structure whose fields, in their order and with
//! their types, are the layout of journal-format.md.
//!
//! `layout!` derives encoding and decoding from that one list, and a [`Table`] of it, which
//! `tests/format.rs` compares with the document's table. Nothing here knows a particular layout,
//! and nothing here trusts a byte.

use crate::ids::{
    AccountTag, AppTag, Fingerprint, Generation, GrantId, HolderTag, HostTag, Lsn, Nonce, OpId,
    OwnerId, StoreId,
};

/// Names the field in which bytes are not what the format allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the field {0} has a value that the format does not allow")]
pub struct BadField(pub &'static str);

/// A value that has one width on disk.
pub trait Fixed: Sized {
    /// The width in bytes.
    const WIDTH: usize;

    /// The numbers of an enumerated value, and the document's words for them.
    const WORDS: &'static [(u8, &'static str)] = &[];

    /// Takes a value off the front of `bytes`.
    ///
    /// # Errors
    /// [`BadField`] where bytes are missing or do not mean a value.
    fn read(bytes: &mut &[u8]) -> Result<Self, BadField>;

    /// Writes the value to the front of `out` and moves `out` behind it; `out` is long enough.
    fn write(&self, out: &mut &mut [u8]);
}

/// One field of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The name in the document.
    pub field: &'static str,
    /// The width in bytes.
    pub width: usize,
    /// How many reserved bytes follow.
    pub reserved: usize,
    /// The numbers of an enumerated value, and the document's words for them.
    pub words: &'static [(u8, &'static str)],
}

/// A layout as the code has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// The name in the document.
    pub name: &'static str,
    /// The fields in their order.
    pub rows: &'static [Row],
}

impl Table {
    /// Returns the width of all fields together.
    pub const fn bytes(&self) -> usize {
        let mut sum = 0;
        let mut rows = self.rows;
        while let Some((row, rest)) = rows.split_first() {
            sum += row.width + row.reserved;
            rows = rest;
        }
        sum
    }

    /// Returns where a field begins. Only for constants: an unknown name does not compile.
    pub const fn offset(&self, field: &str) -> usize {
        let mut offset = 0;
        let mut rows = self.rows;
        loop {
            let (row, rest) = rows.split_first().expect("the layout has a field of this name");
            if same(row.field.as_bytes(), field.as_bytes()) {
                return offset;
            }
            offset += row.width + row.reserved;
            rows = rest;
        }
    }

    /// Sets all reserved bytes to zero, so that damage there does not hide the fields.
    pub(crate) fn clear_reserved(&self, bytes: &mut [u8]) {
        let mut rest = bytes;
        for row in self.rows {
            let (_, behind) = rest.split_at_mut(row.width.min(rest.len()));
            let (reserved, behind) = behind.split_at_mut(row.reserved.min(behind.len()));
            reserved.fill(0);
            rest = behind;
        }
    }
}

const fn same(mut a: &[u8], mut b: &[u8]) -> bool {
    while let (Some((x, a_rest)), Some((y, b_rest))) = (a.split_first(), b.split_first()) {
        if *x != *y {
            return false;
        }
        a = a_rest;
        b = b_rest;
    }
    a.is_empty() && b.is_empty()
}

/// Takes `N` bytes off the front of `bytes`.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], BadField> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(BadField("length"))?;
    *bytes = rest;
    Ok(*head)
}

/// Takes `count` reserved bytes off the front of `bytes`; another value than zero is refused [F-6].
pub(super) fn take_reserved(bytes: &mut &[u8], count: usize) -> Result<(), BadField> {
    let (head, rest) = bytes.split_at_checked(count).ok_or(BadField("length"))?;
    *bytes = rest;
    if is_zero(head) { Ok(()) } else { Err(BadField("reserved")) }
}

/// Puts bytes to the front of `out`.
pub(super) fn put(out: &mut &mut [u8], bytes: &[u8]) {
    let (head, rest) = std::mem::take(out)
        .split_at_mut_checked(bytes.len())
        .expect("the encoder's buffer has the layout's width");
    head.copy_from_slice(bytes);
    *out = rest;
}

/// Puts reserved bytes to the front of `out`.
pub(super) fn put_reserved(out: &mut &mut [u8], count: usize) {
    let (head, rest) = std::mem::take(out)
        .split_at_mut_checked(count)
        .expect("the encoder's buffer has the layout's width");
    head.fill(0);
    *out = rest;
}

/// Says whether all bytes are zero; reads by words, since whole segments are asked about.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

macro_rules! fixed_integer {
    ($($type:ty),*) => {$(
        impl Fixed for $type {
            const WIDTH: usize = size_of::<Self>();

            fn read(bytes: &mut &[u8]) -> Result<Self, BadField> {
                take(bytes).map(Self::from_le_bytes)
            }

            fn write(&self, out: &mut &mut [u8]) {
                put(out, &self.to_le_bytes());
            }
        }
    )*};
}
fixed_integer!(u16, u32, u64);

macro_rules! fixed_number {
    ($($type:ident($inner:ty)),*) => {$(
        impl Fixed for $type {
            const WIDTH: usize = <$inner>::WIDTH;

            fn read(bytes: &mut &[u8]) -> Result<Self, BadField> {
                <$inner>::read(bytes).map(Self)
            }

            fn write(&self, out: &mut &mut [u8]) {
                self.0.write(out);
            }
        }
    )*};
}
fixed_number!(Lsn(u64), GrantId(u64), OpId(u64), Generation(u32));

macro_rules! fixed_tag {
    ($($type:ident),*) => {$(
        impl Fixed for $type {
            const WIDTH: usize = 16;

            fn read(bytes: &mut &[u8]) -> Result<Self, BadField> {
                take(bytes).map(Self::from_bytes)
            }

            fn write(&self, out: &mut &mut [u8]) {
                put(out, &self.to_bytes());
            }
        }
    )*};
}
fixed_tag!(AccountTag, AppTag, HolderTag, HostTag, OwnerId, Fingerprint, StoreId, Nonce);

impl<const N: usize> Fixed for [u8; N] {
    const WIDTH: usize = N;

    fn read(bytes: &mut &[u8]) -> Result<Self, BadField> {
        take(bytes)
    }

    fn write(&self, out: &mut &mut [u8]) {
        put(out, self);
    }
}

/// The document's name of a field: the one given, or the structure's own.
macro_rules! field_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $name:literal) => {
        $name
    };
}

/// Declares a structure and, with the same list, its layout on disk.
///
/// `name: Type` is a field, `name = "other": Type` one that the document calls otherwise, and
/// `reserved N` behind a field are the zero bytes that follow it.
macro_rules! layout {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident = $table:literal, $size:literal {
            $(
                $(#[$field_meta:meta])*
                $field:ident $(= $field_name:literal)? : $type:ty $(, reserved $reserved:literal)?
            );* $(;)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis struct $name {
            $($(#[$field_meta])* pub $field: $type),*
        }

        impl $name {
            /// The width on disk in bytes.
            pub const SIZE: usize = $size;

            /// The layout.
            pub const TABLE: $crate::format::layout::Table = $crate::format::layout::Table {
                name: $table,
                rows: &[$($crate::format::layout::Row {
                    field: $crate::format::layout::field_name!($field $($field_name)?),
                    width: <$type as $crate::format::layout::Fixed>::WIDTH,
                    reserved: 0 $(+ $reserved)?,
                    words: <$type as $crate::format::layout::Fixed>::WORDS,
                }),*],
            };

            /// Encodes all fields and the reserved bytes.
            pub fn encode(&self) -> [u8; $size] {
                let mut bytes = [0; $size];
                $crate::format::layout::Fixed::write(self, &mut &mut bytes[..]);
                bytes
            }

            /// Decodes exactly these bytes.
            ///
            /// # Errors
            /// The name of the first field that the format does not allow, or `length`.
            pub fn decode(mut bytes: &[u8]) -> Result<Self, $crate::format::layout::BadField> {
                let value = <Self as $crate::format::layout::Fixed>::read(&mut bytes)?;
                if bytes.is_empty() {
                    Ok(value)
                } else {
                    Err($crate::format::layout::BadField("length"))
                }
            }
        }

        const _: () = assert!($name::TABLE.bytes() == $name::SIZE);

        impl $crate::format::layout::Fixed for $name {
            const WIDTH: usize = $size;

            fn read(bytes: &mut &[u8]) -> Result<Self, $crate::format::layout::BadField> {
                $(
                    let $field = <$type as $crate::format::layout::Fixed>::read(bytes)?;
                    $($crate::format::layout::take_reserved(bytes, $reserved)?;)?
                )*
                Ok(Self { $($field),* })
            }

            fn write(&self, out: &mut &mut [u8]) {
                $(
                    $crate::format::layout::Fixed::write(&self.$field, out);
                    $($crate::format::layout::put_reserved(out, $reserved);)?
                )*
            }
        }
    };
}

/// Declares an enumerated value of one byte: number, variant, and the document's word for it.
macro_rules! values {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident = $field:literal {
            $($(#[$variant_meta:meta])* $variant:ident = $number:literal, $word:literal;)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        $vis enum $name {
            $($(#[$variant_meta])* $variant = $number),*
        }

        impl $name {
            /// All values, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the number on disk.
            pub const fn number(self) -> u8 {
                match self { $(Self::$variant => $number),* }
            }

            /// Returns the document's word for it.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // One token, for whoever reads JSON.
                serializer.collect_str(&self.word().replace(' ', "_"))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl $crate::format::layout::Fixed for $name {
            const WIDTH: usize = 1;
            const WORDS: &'static [(u8, &'static str)] = &[$(($number, $word)),*];

            fn read(bytes: &mut &[u8]) -> Result<Self, $crate::format::layout::BadField> {
                match $crate::format::layout::take::<1>(bytes)? {
                    $([$number] => Ok(Self::$variant),)*
                    _ => Err($crate::format::layout::BadField($field)),
                }
            }

            fn write(&self, out: &mut &mut [u8]) {
                $crate::format::layout::put(out, &[self.number()]);
            }
        }
    };
}

pub(super) use {field_name, layout, values};
