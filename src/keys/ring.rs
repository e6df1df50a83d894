//! The keyring, and the text form of its keys.

use super::KeyError;
use crate::clock::Entropy;
use crate::format::segment::WrappedKey;
use crate::ids::StoreId;
use crate::seal::{DataKey, KEY_BYTES, KeyBytes, TagKey, WrappingKey};
use std::{fmt, io};
use zeroize::{Zeroize, Zeroizing};

/// A text longer than this holds something else than keys.
pub(super) const KEY_TEXT_BYTES_MAX: usize = 65_536;

/// What every line with a key begins with.
const LINE_WORD: &str = "tokenwal-key-1";
const KEY_DIGITS: usize = 2 * KEY_BYTES;

/// Says what is wrong with the text that should have held keys, without quoting it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyTextError {
    /// There is no key in it.
    #[error("it is empty")]
    Empty,
    /// It is longer than any list of keys.
    #[error("it has more than {KEY_TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// It is not text.
    #[error("it is not text")]
    NotText,
    /// A line does not begin as one with a key does.
    #[error("line {line} does not begin with `{LINE_WORD} `")]
    NoWord {
        /// Counted from 1.
        line: usize,
    },
    /// A key has too few or too many digits, as after a copy that was cut short.
    #[error("line {line} has {digits} digits, a key has {KEY_DIGITS}")]
    WrongLength {
        /// Counted from 1.
        line: usize,
        /// How many characters stand in the key's place.
        digits: usize,
    },
    /// A character is no hexadecimal digit.
    #[error("line {line} has a character that is not a hexadecimal digit")]
    NotHexadecimal {
        /// Counted from 1.
        line: usize,
    },
    /// A key stands there twice.
    #[error("line {line} repeats a key")]
    Repeated {
        /// Counted from 1.
        line: usize,
    },
}

/// Holds key-encryption keys, the active one first: it wraps, and all of them unwrap.
pub struct Keyring {
    active: WrappingKey,
    others: Vec<WrappingKey>,
}

impl Keyring {
    /// Draws one key, which exists in this process only.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate(entropy: &dyn Entropy) -> io::Result<Self> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        entropy.fill(bytes.as_mut_slice())?;
        Ok(Self { active: WrappingKey::new(&bytes), others: Vec::new() })
    }

    /// Takes keys as bytes and wipes them; `active` is the one that wraps.
    pub fn from_bytes(
        mut active: [u8; KEY_BYTES],
        others: impl IntoIterator<Item = [u8; KEY_BYTES]>,
    ) -> Self {
        let mut ring = Self { active: WrappingKey::new(&active), others: Vec::new() };
        active.zeroize();
        for mut key in others {
            ring.others.push(WrappingKey::new(&key));
            key.zeroize();
        }
        ring
    }

    /// Prepares keys that stay where they are; none where there are none.
    pub(super) fn of(keys: &[KeyBytes]) -> Option<Self> {
        let (active, others) = keys.split_first()?;
        let others = others.iter().map(|key| WrappingKey::new(key)).collect();
        Some(Self { active: WrappingKey::new(active), others })
    }

    /// Parses lines `tokenwal-key-1` and 64 hexadecimal digits; the first key is the active one.
    /// Empty lines, and lines that begin with `#`, are left out.
    ///
    /// # Errors
    /// [`KeyTextError`], which names the line and never quotes it.
    pub fn parse(text: &str) -> Result<Self, KeyTextError> {
        let mut keys: Vec<WrappingKey> = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let key = WrappingKey::new(&*parse_line(line, text)?);
            if keys.iter().any(|other| other.id() == key.id()) {
                return Err(KeyTextError::Repeated { line });
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let active = keys.next().ok_or(KeyTextError::Empty)?;
        Ok(Self { active, others: keys.collect() })
    }

    /// Returns the ids of all keys, the active one's first.
    pub fn ids(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.active.id()).chain(self.others.iter().map(WrappingKey::id))
    }

    /// Returns the key that wraps.
    pub(crate) fn active(&self) -> &WrappingKey {
        &self.active
    }

    /// Unwraps a data key of a store.
    ///
    /// # Errors
    /// [`KeyError::NotHeld`] or [`KeyError::NotAuthentic`].
    pub(crate) fn unwrap_data_key(
        &self,
        store: StoreId,
        wrapped: &WrappedKey,
    ) -> Result<DataKey, KeyError> {
        let key = self.find(wrapped)?;
        key.unwrap_data_key(store, wrapped)
            .map_err(|_| KeyError::NotAuthentic { kek_id: wrapped.kek_id })
    }

    /// Unwraps a store's tag key.
    ///
    /// # Errors
    /// [`KeyError::NotHeld`] or [`KeyError::NotAuthentic`].
    pub(crate) fn unwrap_tag_key(
        &self,
        store: StoreId,
        wrapped: &WrappedKey,
    ) -> Result<TagKey, KeyError> {
        let key = self.find(wrapped)?;
        key.unwrap_tag_key(store, wrapped)
            .map_err(|_| KeyError::NotAuthentic { kek_id: wrapped.kek_id })
    }

    fn find(&self, wrapped: &WrappedKey) -> Result<&WrappingKey, KeyError> {
        std::iter::once(&self.active)
            .chain(&self.others)
            .find(|key| key.id() == wrapped.kek_id)
            .ok_or(KeyError::NotHeld { wanted: wrapped.kek_id })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(std::iter::once(&self.active).chain(&self.others)).finish()
    }
}

fn parse_line(line: usize, text: &str) -> Result<KeyBytes, KeyTextError> {
    let digits = text
        .strip_prefix(LINE_WORD)
        .filter(|rest| rest.starts_with([' ', '\t']))
        .ok_or(KeyTextError::NoWord { line })?
        .trim_start();
    if digits.chars().count() != KEY_DIGITS {
        return Err(KeyTextError::WrongLength { line, digits: digits.chars().count() });
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let (pairs, _) = digits.as_bytes().as_chunks::<2>();
    for (byte, [high, low]) in key.iter_mut().zip(pairs) {
        let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|d| u8::try_from(d).ok());
        match (digit(high), digit(low)) {
            (Some(high), Some(low)) => *byte = high << 4 | low,
            _ => return Err(KeyTextError::NotHexadecimal { line }),
        }
    }
    Ok(key)
}

pub(super) fn format_line(key: &[u8; KEY_BYTES]) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS.get(usize::from(value)).copied().unwrap_or(b'0'));
    // The full capacity at once: a string that grows leaves copies behind.
    let mut line = Zeroizing::new(String::with_capacity(LINE_WORD.len() + KEY_DIGITS + 2));
    line.push_str(LINE_WORD);
    line.push(' ');
    for byte in key {
        line.push(digit(byte >> 4));
        line.push(digit(byte & 15));
    }
    line.push('\n');
    line
}

#[cfg(test)]
#[expect(clippy::string_slice, reason = "keys are ASCII")]
mod tests {
    use super::*;
    use crate::format::samples::Seeded;
    use proptest::prelude::*;

    const STORE: StoreId = StoreId::from_bytes([1; 16]);

    #[test]
    fn keys_are_read_line_by_line() {
        let (one, two) = (format_line(&[1; 32]), format_line(&[2; 32]));
        let text = format!("# made for a test\n\n{}  {}\r\n", *one, two.trim());
        let ring = Keyring::parse(&text).unwrap();
        let expected: Vec<_> = [[1; 32], [2; 32]].map(|key| WrappingKey::new(&key).id()).into();
        assert_eq!(ring.ids().collect::<Vec<_>>(), expected);
        let same = Keyring::from_bytes([1; 32], [[2; 32]]);
        assert_eq!(same.ids().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_no_key_is_named_by_its_line_and_never_quoted() {
        let digits = "ab".repeat(32);
        let fails = |text: &str| {
            let error = Keyring::parse(text).unwrap_err();
            let printed = format!("{error} {error:?}");
            assert!(!printed.contains("abab") && !printed.contains("zz"), "{printed}");
            error
        };
        assert_eq!(fails(""), KeyTextError::Empty);
        assert_eq!(fails("# only words\n"), KeyTextError::Empty);
        assert_eq!(fails(&digits), KeyTextError::NoWord { line: 1 });
        assert_eq!(fails(&format!("tokenwal-key-2 {digits}")), KeyTextError::NoWord { line: 1 });
        assert_eq!(fails(&format!("tokenwal-key-1{digits}")), KeyTextError::NoWord { line: 1 });
        let line = |digits: &str| format!("\ntokenwal-key-1 {digits}\n");
        let wrong = |digits| KeyTextError::WrongLength { line: 2, digits };
        assert_eq!(fails(&line(&digits[1..])), wrong(63));
        assert_eq!(fails(&line("")), KeyTextError::NoWord { line: 2 });
        assert_eq!(fails(&line(&format!("{digits}00"))), wrong(66));
        let bad = format!("zz{}", &digits[2..]);
        assert_eq!(fails(&line(&bad)), KeyTextError::NotHexadecimal { line: 2 });
        let bad = format!("é{}", &digits[1..]);
        assert_eq!(fails(&line(&bad)), KeyTextError::NotHexadecimal { line: 2 });
        let twice = format!("{}{}", line(&digits), line(&digits));
        assert_eq!(fails(&twice), KeyTextError::Repeated { line: 4 });
    }

    #[test]
    fn a_key_that_is_not_held_is_told_from_one_that_does_not_open() {
        let entropy = Seeded::default();
        let old = Keyring::from_bytes([1; 32], []);
        let both = Keyring::from_bytes([2; 32], [[1; 32]]);
        let other = Keyring::from_bytes([3; 32], []);
        let key = DataKey::generate(&entropy).unwrap();
        let mut wrapped = old.active().wrap_data_key(STORE, &key, &entropy).unwrap();
        assert_eq!(both.unwrap_data_key(STORE, &wrapped).unwrap().id(), key.id());
        let wanted = wrapped.kek_id;
        let error = other.unwrap_data_key(STORE, &wrapped).unwrap_err();
        assert!(matches!(error, KeyError::NotHeld { wanted: w } if w == wanted));
        wrapped.ciphertext[0] ^= 1;
        let error = both.unwrap_data_key(STORE, &wrapped).unwrap_err();
        assert!(matches!(error, KeyError::NotAuthentic { kek_id } if kek_id == wanted));

        let tag_key = TagKey::generate(&entropy).unwrap();
        let wrapped = both.active().wrap_tag_key(STORE, &tag_key, &entropy).unwrap();
        assert!(both.unwrap_tag_key(STORE, &wrapped).is_ok());
        assert!(matches!(old.unwrap_tag_key(STORE, &wrapped), Err(KeyError::NotHeld { .. })));
    }

    #[test]
    fn a_keyring_prints_ids_only() {
        let printed = format!("{:?}", Keyring::generate(&Seeded::default()).unwrap());
        assert!(printed.starts_with("[WrappingKey(") && printed.len() < 40, "{printed}");
    }

    proptest! {
        #[test]
        fn keys_round_trip(key: [u8; 32]) {
            let ring = Keyring::parse(&format_line(&key)).unwrap();
            prop_assert_eq!(ring.active().id(), WrappingKey::new(&key).id());
        }

        #[test]
        fn any_text_is_harmless(text in "(tokenwal-key-1 )?.*") {
            let _ = Keyring::parse(&text);
        }
    }
}
