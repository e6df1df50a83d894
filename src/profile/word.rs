//! Words of a profile: each stands for one value, in TOML, in JSON and in tables alike.

/// Defines an enumeration whose values are written as one word.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name {
            $($(#[$variant_meta])* $variant),*
        }

        impl $name {
            /// Returns the word for it.
            $vis const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl $crate::profile::word::Word for $name {
            const WORDS: &'static [&'static str] = &[$($word),*];

            fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }
    };
}

pub(super) use words;

/// What is written as one of a few words.
pub(super) trait Word: Copy + 'static {
    /// The words, to name them in an error.
    const WORDS: &'static [&'static str];

    fn from_word(word: &str) -> Option<Self>;
}

/// The causes of an end that a provider's answer can tell; the others are ours to say.
impl Word for crate::format::value::Cause {
    const WORDS: &'static [&'static str] =
        &["evicted", "reuse", "expired", "revoked_elsewhere", "policy"];

    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "evicted" => Self::Evicted,
            "reuse" => Self::Reuse,
            "expired" => Self::Expired,
            "revoked_elsewhere" => Self::RevokedElsewhere,
            "policy" => Self::Policy,
            _ => return None,
        })
    }
}

/// What is asked of a provider.
impl Word for crate::format::value::Action {
    const WORDS: &'static [&'static str] =
        &["exchange", "refresh", "revoke", "mint", "introspect", "burn"];

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.word() == word)
    }
}
