//! The encoding of what is sealed (journal-format.md, section 9.1). bincode lives here alone.
//!
//! The structures borrow: a plaintext is decoded in place, so that the one buffer that holds it is
//! the one that is wiped, and it is encoded straight into the record in which it is sealed. Nothing
//! with a secret in it can be printed.

use crate::format::record::RECORD_BYTES_MAX;
use crate::ids::{App, Holder, User};
use bincode::config::{self, Config};
use bincode::de::{BorrowDecode, BorrowDecoder, Decode};
use bincode::enc::write::SizeWriter;
use bincode::enc::{Encode, Encoder, EncoderImpl};
use bincode::error::{DecodeError, EncodeError};
use std::fmt;
use zeroize::Zeroizing;

/// Says that a plaintext, although authentic, is not what the format encodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed part does not decode")]
pub struct CodecError;

/// What a record's sealed part says in plaintext.
pub trait Plain {
    /// Returns the encoded length in bytes.
    fn plain_bytes(&self) -> usize;

    /// Encodes into exactly [`Plain::plain_bytes`] bytes.
    fn write(&self, out: &mut [u8]);

    /// Encodes into a buffer of its own, which is wiped when it is dropped.
    fn to_plain(&self) -> Zeroizing<Vec<u8>> {
        // The length is known beforehand: a vector that grows leaves copies behind.
        let mut bytes = Zeroizing::new(vec![0; self.plain_bytes()]);
        self.write(&mut bytes);
        bytes
    }
}

/// The plaintext of kinds that seal nothing: their sealed part authenticates the clear part alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nothing;

impl Plain for Nothing {
    fn plain_bytes(&self) -> usize {
        0
    }

    fn write(&self, _: &mut [u8]) {}
}

/// A list. It is decoded item by item as the items are found, so that a hostile count allocates
/// nothing: every item has a byte at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Encode> Encode for List<T> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.as_slice().encode(encoder)
    }
}

impl<'de, T: BorrowDecode<'de, ()>> BorrowDecode<'de, ()> for List<T> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = ()>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        let count = u64::decode(decoder)?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(T::borrow_decode(decoder)?);
        }
        Ok(Self(items))
    }
}

macro_rules! sealed {
    (
        $(#[$meta:meta])*
        pub struct $name:ident<'a> { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }
    ) => {
        $(#[$meta])*
        pub struct $name<'a> { $($(#[$field_meta])* pub $field: $type,)* }

        impl<'a> $name<'a> {
            /// Decodes exactly these bytes [F-38].
            ///
            /// # Errors
            /// [`CodecError`] where they are not the encoding of the structure, or go on behind it.
            pub fn decode(bytes: &'a [u8]) -> Result<Self, CodecError> {
                decode(bytes)
            }
        }

        impl Encode for $name<'_> {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                $(self.$field.encode(encoder)?;)*
                Ok(())
            }
        }

        impl<'de: 'a, 'a> BorrowDecode<'de, ()> for $name<'a> {
            fn borrow_decode<D: BorrowDecoder<'de, Context = ()>>(
                decoder: &mut D,
            ) -> Result<Self, DecodeError> {
                $(let $field = BorrowDecode::borrow_decode(decoder)?;)*
                Ok(Self { $($field),* })
            }
        }

        impl Plain for $name<'_> {
            fn plain_bytes(&self) -> usize {
                let mut encoder = EncoderImpl::new(SizeWriter::default(), config::standard());
                self.encode(&mut encoder).expect("counting bytes cannot fail");
                encoder.into_writer().bytes_written
            }

            fn write(&self, out: &mut [u8]) {
                let written = bincode::encode_into_slice(self, out, config::standard());
                assert!(
                    written.is_ok_and(|written| written == out.len()),
                    "the buffer has the counted length"
                );
            }
        }
    };
}

sealed! {
    /// The names that the tags of a record stand for.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    pub struct Names<'a> {
        /// Provider and client id.
        app: Option<(&'a str, &'a str)>,
        /// The user.
        user: Option<&'a str>,
        /// Tenant and name.
        holder: Option<(&'a str, &'a str)>,
        /// The scopes that were asked for or granted.
        scopes: List<&'a str>,
    }
}

sealed! {
    /// A pair, as the provider issued it and as it was filled in from the generation before.
    #[derive(Clone)]
    pub struct Pair<'a> {
        /// Whose it is.
        names: Names<'a>,
        /// Secret.
        access_token: &'a str,
        /// Secret.
        refresh_token: Option<&'a str>,
        /// Secret: it names the user.
        id_token: Option<&'a str>,
        /// As the provider says, such as `Bearer`.
        token_type: &'a str,
        /// Where the pair is refreshed.
        token_endpoint: Option<&'a str>,
        /// Where its access token is used.
        instance_url: Option<&'a str>,
        /// The other fields of the response: name and JSON text. They may be secret.
        fields: List<(&'a str, &'a str)>,
        /// The scopes of this access token alone, where they are others than those in `names`.
        access_scopes: Option<List<&'a str>>,
    }
}

sealed! {
    /// What the provider said when it refused.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Refusal<'a> {
        /// The error code.
        error: &'a str,
        /// Sanitised, at most 256 bytes.
        description: &'a str,
        /// The provider's id of the request.
        request_id: Option<&'a str>,
    }
}

sealed! {
    /// What is left of an answer that could not be understood.
    #[derive(Clone)]
    pub struct Doubt<'a> {
        /// The provider's id of the request.
        request_id: Option<&'a str>,
        /// Secret: it may hold a pair.
        body: &'a [u8],
    }
}

impl<'a> Names<'a> {
    /// Borrows names as they stand in the API.
    pub fn of(
        app: Option<&'a App>,
        user: Option<&'a User>,
        holder: Option<&'a Holder>,
        scopes: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self {
            app: app.map(|app| (app.provider(), app.client_id())),
            user: user.map(User::as_str),
            holder: holder.map(|holder| (holder.tenant(), holder.name())),
            scopes: List(scopes.into_iter().collect()),
        }
    }
}

impl fmt::Debug for Pair<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("names", &self.names)
            .field("has_refresh_token", &self.refresh_token.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Doubt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doubt")
            .field("request_id", &self.request_id)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

fn decode<'a, T: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    match bincode::borrow_decode_from_slice(bytes, decoding()) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        // bincode itself would take bytes that are left over, and its errors quote what they found.
        _ => Err(CodecError),
    }
}

/// bincode's standard configuration, with the limit without which a hostile length makes it
/// allocate what the length says.
fn decoding() -> impl Config {
    config::standard().with_limit::<RECORD_BYTES_MAX>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use wincode::{SchemaRead, SchemaWrite};

    /// The same structures with contents of their own, as another implementation of the encoding
    /// reads and writes them.
    #[expect(clippy::mem_forget, reason = "in what wincode derives")]
    mod other {
        use super::*;

        #[derive(Debug, Clone, PartialEq, Eq, SchemaRead, SchemaWrite)]
        pub(super) struct Names {
            pub(super) app: Option<(String, String)>,
            pub(super) user: Option<String>,
            pub(super) holder: Option<(String, String)>,
            pub(super) scopes: Vec<String>,
        }

        #[derive(Debug, Clone, PartialEq, Eq, SchemaRead, SchemaWrite)]
        pub(super) struct Pair {
            pub(super) names: Names,
            pub(super) access_token: String,
            pub(super) refresh_token: Option<String>,
            pub(super) id_token: Option<String>,
            pub(super) token_type: String,
            pub(super) token_endpoint: Option<String>,
            pub(super) instance_url: Option<String>,
            pub(super) fields: Vec<(String, String)>,
            pub(super) access_scopes: Option<Vec<String>>,
        }

        #[derive(Debug, Clone, PartialEq, Eq, SchemaRead, SchemaWrite)]
        pub(super) struct Refusal {
            pub(super) error: String,
            pub(super) description: String,
            pub(super) request_id: Option<String>,
        }

        #[derive(Debug, Clone, PartialEq, Eq, SchemaRead, SchemaWrite)]
        pub(super) struct Doubt {
            pub(super) request_id: Option<String>,
            pub(super) body: Vec<u8>,
        }
    }

    macro_rules! decode_other {
        ($type:ty, $bytes:expr) => {
            wincode::config::deserialize_exact::<$type, _>(
                $bytes,
                wincode::config::Configuration::default()
                    .with_varint_encoding()
                    .with_length_encoding::<wincode::len::UseIntLen<u64>>(),
            )
        };
    }

    fn names(other: &other::Names) -> Names<'_> {
        Names {
            app: other.app.as_ref().map(|(a, b)| (a.as_str(), b.as_str())),
            user: other.user.as_deref(),
            holder: other.holder.as_ref().map(|(a, b)| (a.as_str(), b.as_str())),
            scopes: List(other.scopes.iter().map(String::as_str).collect()),
        }
    }

    fn pair(other: &other::Pair) -> Pair<'_> {
        Pair {
            names: names(&other.names),
            access_token: &other.access_token,
            refresh_token: other.refresh_token.as_deref(),
            id_token: other.id_token.as_deref(),
            token_type: &other.token_type,
            token_endpoint: other.token_endpoint.as_deref(),
            instance_url: other.instance_url.as_deref(),
            fields: List(other.fields.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect()),
            access_scopes: other
                .access_scopes
                .as_ref()
                .map(|scopes| List(scopes.iter().map(String::as_str).collect())),
        }
    }

    fn any_names() -> impl Strategy<Value = other::Names> {
        let two = || option::of((".*", ".*"));
        (two(), option::of(".*"), two(), vec(".*", 0..4))
            .prop_map(|(app, user, holder, scopes)| other::Names { app, user, holder, scopes })
    }

    fn any_pair() -> impl Strategy<Value = other::Pair> {
        // Lengths on both sides of 251, where the encoding of integers changes.
        let token = || "[a-z]{0,600}";
        (
            any_names(),
            token(),
            option::of(token()),
            option::of(token()),
            ".*",
            option::of(".*"),
            option::of(".*"),
            vec((".*", ".*"), 0..4),
            option::of(vec(".*", 0..4)),
        )
            .prop_map(
                |(names, access_token, refresh_token, id_token, token_type, e, i, fields, own)| {
                    other::Pair {
                        names,
                        access_token,
                        refresh_token,
                        id_token,
                        token_type,
                        token_endpoint: e,
                        instance_url: i,
                        fields,
                        access_scopes: own,
                    }
                },
            )
    }

    #[test]
    fn the_encoding_is_the_documents() {
        let refusal = Refusal { error: "no", description: "", request_id: Some("x") };
        assert_eq!(*refusal.to_plain(), b"\x02no\x00\x01\x01x");
        let long = "y".repeat(251);
        let refusal = Refusal { error: &long, description: "", request_id: None };
        let plain = refusal.to_plain();
        assert_eq!(plain[..3], [251, 251, 0]);
        assert_eq!(plain.len(), 3 + 251 + 1 + 1);
        assert!(Nothing.to_plain().is_empty());
    }

    #[test]
    fn bytes_left_over_or_missing_are_refused() {
        let plain = Refusal { error: "no", description: "d", request_id: None }.to_plain();
        for cut in 0..plain.len() {
            assert_eq!(Refusal::decode(&plain[..cut]), Err(CodecError));
        }
        let longer = [plain.as_slice(), &[0]].concat();
        assert_eq!(Refusal::decode(&longer), Err(CodecError));
        // An option is 0 or 1, and a text is UTF-8.
        assert_eq!(Refusal::decode(b"\x00\x00\x02"), Err(CodecError));
        assert_eq!(Refusal::decode(b"\x01\xff\x00\x00"), Err(CodecError));
    }

    #[test]
    fn hostile_lengths_allocate_nothing() {
        let huge = [253, 255, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(Refusal::decode(&huge), Err(CodecError));
        let text = [&[0, 0, 0][..], &huge].concat();
        assert_eq!(Names::decode(&text), Err(CodecError));
        let half = [&[0, 0, 0, 253][..], &(1_u64 << 40).to_le_bytes(), &[0; 64]].concat();
        assert_eq!(Names::decode(&half), Err(CodecError));
        assert!(Doubt::decode(&[&[0][..], &huge].concat()).is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        let other = other::Pair {
            names: other::Names { app: None, user: None, holder: None, scopes: vec![] },
            access_token: "hunter2".into(),
            refresh_token: Some("hunter3".into()),
            id_token: Some("hunter4".into()),
            token_type: "Bearer".into(),
            token_endpoint: None,
            instance_url: None,
            fields: vec![("secret".into(), "\"hunter5\"".into())],
            access_scopes: None,
        };
        let doubt = Doubt { request_id: None, body: b"hunter6" };
        let printed = format!("{:?} {doubt:?}", pair(&other));
        assert!(!printed.contains("hunter"), "{printed}");
        let bytes = format!("{:?}", b"hunter6");
        assert!(!printed.contains(bytes.trim_matches(['[', ']'])), "{printed}");
    }

    proptest! {
        #[test]
        fn pairs_are_read_by_another_implementation(other in any_pair()) {
            let plain = pair(&other).to_plain();
            prop_assert_eq!(&decode_other!(other::Pair, &plain).unwrap(), &other);
            let decoded = Pair::decode(&plain).unwrap();
            prop_assert_eq!(decoded.to_plain(), plain);
        }

        #[test]
        fn names_refusals_and_doubts_are_read_by_another_implementation(
            other in any_names(),
            error in ".*",
            description in ".*",
            request_id in option::of(".*"),
            body: Vec<u8>,
        ) {
            let plain = names(&other).to_plain();
            prop_assert_eq!(&decode_other!(other::Names, &plain).unwrap(), &other);
            prop_assert_eq!(Names::decode(&plain).unwrap(), names(&other));

            let other = other::Refusal { error, description, request_id };
            let refusal = Refusal {
                error: &other.error,
                description: &other.description,
                request_id: other.request_id.as_deref(),
            };
            let plain = refusal.to_plain();
            prop_assert_eq!(&decode_other!(other::Refusal, &plain).unwrap(), &other);
            prop_assert_eq!(Refusal::decode(&plain).unwrap(), refusal);

            let other = other::Doubt { request_id: other.request_id, body };
            let doubt = Doubt { request_id: other.request_id.as_deref(), body: &other.body };
            let plain = doubt.to_plain();
            prop_assert_eq!(&decode_other!(other::Doubt, &plain).unwrap(), &other);
            let decoded = Doubt::decode(&plain).unwrap();
            prop_assert_eq!((decoded.request_id, decoded.body), (doubt.request_id, doubt.body));
        }

        #[test]
        fn hostile_bytes_are_harmless_and_read_alike(bytes: Vec<u8>) {
            prop_assert_eq!(
                Pair::decode(&bytes).is_ok(),
                decode_other!(other::Pair, &bytes).is_ok()
            );
            prop_assert_eq!(
                Refusal::decode(&bytes).is_ok(),
                decode_other!(other::Refusal, &bytes).is_ok()
            );
            let _ = Names::decode(&bytes);
            let _ = Doubt::decode(&bytes);
        }
    }
}
