//! The profiles that come with the library.

use super::{Profile, read_over};
use std::sync::LazyLock;

/// Name and text; what one extends stands before it.
const TEXTS: &[(&str, &str)] = &[
    ("rfc6749", include_str!("builtin/rfc6749.toml")),
    ("salesforce", include_str!("builtin/salesforce.toml")),
    ("salesforce-rotating", include_str!("builtin/salesforce-rotating.toml")),
    ("google", include_str!("builtin/google.toml")),
    ("github", include_str!("builtin/github.toml")),
    ("xero", include_str!("builtin/xero.toml")),
    ("okta", include_str!("builtin/okta.toml")),
    ("auth0", include_str!("builtin/auth0.toml")),
];

static PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    let mut profiles: Vec<Profile> = Vec::with_capacity(TEXTS.len());
    for (_, text) in TEXTS {
        let profile = read_over(text, &profiles);
        profiles.push(profile.expect("the profiles are constants, and a test reads each"));
    }
    profiles
});

/// Returns the profiles, of which the first is the one of the RFCs.
pub(super) fn profiles() -> &'static [Profile] {
    &PROFILES
}

pub(super) fn names() -> Vec<&'static str> {
    TEXTS.iter().map(|(name, _)| *name).collect()
}
