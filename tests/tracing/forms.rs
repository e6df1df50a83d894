//! Tokens that are easily found again, in every form in which one may leak.

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The tokens that were handed out.
#[derive(Debug, Default)]
pub(crate) struct Sentinels {
    tokens: Vec<Forms>,
}

impl Sentinels {
    /// Makes a token: long enough to be met by chance nowhere, with characters that encodings
    /// change, and none that JSON does.
    pub(crate) fn draw(&mut self) -> String {
        let number = self.tokens.len();
        let token = format!("00D!s3nt1nel{number:04}+/=%~{}ken", "ab".repeat(number % 3 + 3));
        self.tokens.push(Forms::of(&token));
        token
    }

    pub(crate) fn count(&self) -> usize {
        self.tokens.len()
    }

    /// Fails if a token stands in `bytes`, in whatever form.
    pub(crate) fn absent(&self, what: &str, bytes: &[u8]) {
        self.tokens.iter().for_each(|token| token.absent(what, bytes));
    }

    pub(crate) fn contains(&self, bytes: &[u8]) -> bool {
        self.tokens.iter().any(|token| token.found_in(bytes).is_some())
    }
}

/// A text in all the forms that are looked for.
#[derive(Debug)]
pub(crate) struct Forms(Vec<(&'static str, Vec<u8>)>);

impl Forms {
    pub(crate) fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut forms = vec![("raw", bytes.to_vec())];
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        forms.push(("HEX", hex.to_uppercase().into_bytes()));
        forms.push(("hex", hex.into_bytes()));
        forms.push(("URL-encoded", percent(bytes, |byte| format!("%{byte:02X}"))));
        forms.push(("url-encoded", percent(bytes, |byte| format!("%{byte:02x}"))));
        forms.push(("reversed", bytes.iter().rev().copied().collect()));
        let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
        forms.push(("a list of bytes", numbers.join(", ").into_bytes()));
        // Within something longer it may begin at any of three places.
        for skip in 0..3 {
            let standard = base64_within(bytes, skip);
            let for_urls = standard
                .iter()
                .map(|byte| match byte {
                    b'+' => b'-',
                    b'/' => b'_',
                    byte => *byte,
                })
                .collect();
            forms.push(("base64", standard));
            forms.push(("base64url", for_urls));
        }
        Self(forms)
    }

    pub(crate) fn absent(&self, what: &str, bytes: &[u8]) {
        if let Some(form) = self.found_in(bytes) {
            panic!("{what} shows a secret, {form}");
        }
    }

    fn found_in(&self, bytes: &[u8]) -> Option<&'static str> {
        let stands = |form: &[u8]| {
            // The first byte is searched for first: files are mostly zeros.
            bytes
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == form[0])
                .any(|(at, _)| bytes[at..].starts_with(form))
        };
        self.0.iter().find(|(_, form)| stands(form)).map(|(name, _)| *name)
    }
}

fn percent(bytes: &[u8], escape: impl Fn(u8) -> String) -> Vec<u8> {
    let encode = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => vec![*byte],
        _ => escape(*byte).into_bytes(),
    };
    bytes.iter().flat_map(encode).collect()
}

/// Encodes `bytes` as they stand behind `skip` others, without the digits that depend on what
/// stands around them.
fn base64_within(bytes: &[u8], skip: usize) -> Vec<u8> {
    let mut whole = vec![0; skip];
    whole.extend(bytes);
    let digits: Vec<_> = whole
        .chunks_exact(3)
        .flat_map(|three| {
            let group = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
            [18, 12, 6, 0].map(|shift| BASE64[(group >> shift & 63) as usize])
        })
        .collect();
    // Of the first group only what the bytes themselves decide.
    digits[[0, 2, 3][skip]..].to_vec()
}

#[test]
fn every_form_is_found_where_it_stands() {
    let token = Forms::of("00D!s3nt1nel+/=%~token");
    let encoded = [
        "Bearer 00D!s3nt1nel+/=%~token",
        "token=00D%21s3nt1nel%2B%2F%3D%25~token&x",
        "token=00D%21s3nt1nel%2b%2f%3d%25~token&x",
        "x'3030442173336e74316e656c2b2f3d257e746f6b656e'",
        "x'3030442173336E74316E656C2B2F3D257E746F6B656E'",
        "nekot~%=/+len1tn3s!D00",
        "[48, 48, 68, 33, 115, 51, 110, 116, 49, 110, 101, 108, 43, 47, 61, 37, 126, 116, 111, \
         107, 101, 110]",
        // base64 of the token behind nothing, behind `a:` and behind `a`.
        "MDBEIXMzbnQxbmVsKy89JX50b2tlbg==",
        "YTowMEQhczNudDFuZWwrLz0lfnRva2Vu",
        "YTAwRCFzM250MW5lbCsvPSV+dG9rZW4=",
    ];
    for text in encoded {
        assert!(token.found_in(text.as_bytes()).is_some(), "{text}");
    }
    assert!(token.found_in(b"00D!s3nt1nel and another token").is_none());
}
