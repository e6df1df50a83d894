//! What is known of providers, as data: every fact with its source, its day, and how well it is
//! known.
//!
//! It does no I/O but reading a text that it is given, and it decides nothing: whoever acts by a
//! fact asks for [`Fact::verified`], whoever shows it for [`Fact::known`]. A profile can lay
//! itself over another ([`Profile::from_toml`]); what neither states is unknown.

mod builtin;
mod error;
mod fact;
mod read;
mod rule;
mod show;
mod table;
mod value;
mod word;

pub use error::{Problem, ProfileError};
pub use fact::{Fact, Status};
pub use rule::{ErrorRule, Meaning};
pub use show::Line;
pub use value::{
    Approvals, Cap, CapCounts, CapPer, ClientAuth, Endpoints, Expiry, ExpirySource, IdentitySource,
    Introspects, Overflow, Recovery, Reuse, RevokeBy, RevokeGranularity, Rotates, Rotation,
    Throttle,
};

use crate::format::value::{Action, Cause};
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use table::{Needed as _, Table};
use toml::de::DeTable;

/// The longest text that is read, in bytes.
const TEXT_BYTES_MAX: usize = 256 << 10;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What is known of a provider. Cloning is cheap.
///
/// ```
/// use tokenwal::profile::Profile;
///
/// let salesforce = Profile::builtin("salesforce").ok_or("no such profile")?;
/// let cap = salesforce.cap().verified().ok_or("not verified")?;
/// assert_eq!((cap.number, cap.guard), (5, 4));
///
/// // Laid over it: what is known of one app.
/// let ours = Profile::from_toml(
///     r#"
///     name = "ours"
///     extends = "salesforce"
///     [rotation]
///     value = "always"
///     "#,
/// )?;
/// assert_eq!(ours.cap(), salesforce.cap());
///
/// let error = Profile::from_toml("name = \"ours\"\n[rotation]\nvalue = \"off\"").unwrap_err();
/// assert_eq!((error.line(), error.key()), (3, "rotation.value"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Profile(Arc<Data>);

/// Defines the facts once: the data, the getters, the keys in TOML, the lines of a table.
macro_rules! facts {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        #[derive(Debug, Clone, Serialize)]
        struct Data {
            name: String,
            title: String,
            extends: Option<String>,
            $($name: Fact<$type>,)*
            errors: Vec<ErrorRule>,
        }

        const KEYS: &[&str] = &["name", "title", "extends", $(stringify!($name),)* "errors"];

        impl Data {
            /// Makes a profile of which nothing is known.
            fn blank() -> Self {
                Self {
                    name: String::new(),
                    title: String::new(),
                    extends: None,
                    $($name: Fact::unknown(),)*
                    errors: Vec::new(),
                }
            }

            /// Lays what the document states over what is there.
            fn lay_over(&mut self, document: &Table<'_>) -> Result<(), ProfileError> {
                $(if let Some(fact) = read::fact(document, stringify!($name))? {
                    self.$name = fact;
                })*
                Ok(())
            }
        }

        impl Profile {
            $($(#[$doc])* pub fn $name(&self) -> &Fact<$type> {
                &self.0.$name
            })*

            /// Returns all facts as lines to show, in the order in which a person asks for them.
            pub fn lines(&self) -> Vec<Line<'_>> {
                vec![$(Line::of(stringify!($name), &self.0.$name)),*]
            }
        }
    };
}

facts! {
    /// Returns how many approvals stay alive.
    cap: Cap,
    /// Returns how many pairs may be issued within a time.
    throttle: Throttle,
    /// Returns whether refresh tokens rotate.
    rotation: Rotates,
    /// Returns what can be done when the answer to a refresh was lost.
    recovery: Recovery,
    /// Returns what happens to a spent refresh token that is seen again.
    reuse: Reuse,
    /// Returns how much dies with a revoked refresh token.
    revoke: RevokeGranularity,
    /// Returns whether a user who approves again gets the refresh token that is there.
    same_refresh_on_reconsent: bool,
    /// Returns whether the answer to a refresh may leave the refresh token out.
    refresh_may_omit_refresh: bool,
    /// Returns whether a code presented twice revokes what it had issued.
    code_reuse_revokes: bool,
    /// Returns where the user is named.
    identity: IdentitySource,
    /// Returns how a client may prove who it is.
    client_auth: Vec<ClientAuth>,
    /// Returns the suffixes of the hosts to which tokens may go; see [`Profile::allows_host`].
    hosts: Vec<String>,
    /// Returns where the provider is called.
    endpoints: Endpoints,
    /// Returns about which tokens the provider can be asked.
    introspection: Introspects,
    /// Returns how long tokens live.
    expiry: Expiry,
    /// Returns the provider's own list of live approvals.
    approvals: Approvals,
    /// Returns further parameters for the URL to which a user is sent.
    authorize_params: Vec<(String, String)>,
    /// Returns whether the callback names the issuer (RFC 9207).
    iss_parameter: bool,
    /// Returns whether errors come under status 200.
    errors_under_200: bool,
}

impl Profile {
    /// Returns a profile that comes with the library.
    pub fn builtin(name: &str) -> Option<Self> {
        builtin::profiles().iter().find(|profile| profile.name() == name).cloned()
    }

    /// Returns the names of the profiles that come with the library.
    pub fn names() -> Vec<&'static str> {
        builtin::names()
    }

    /// Reads a profile. It lies over the one that it `extends`, or over `rfc6749`: a fact that it
    /// states replaces the other's whole, and its table of errors is asked first.
    ///
    /// A fact without a `status` is configured: true on the word of whoever wrote it.
    ///
    /// # Errors
    /// [`ProfileError`] names the line, the column and the key of what is wrong.
    pub fn from_toml(text: &str) -> Result<Self, ProfileError> {
        read_over(text, builtin::profiles())
    }

    /// Returns what RFC 6749, RFC 7009 and RFC 7662 promise of any provider, and no more.
    pub fn rfc6749() -> Self {
        Self::builtin("rfc6749").expect("it comes with the library, as a test shows")
    }

    /// Returns what is known of Salesforce, where the app does not say whether tokens rotate.
    pub fn salesforce() -> Self {
        Self::builtin("salesforce").expect("it comes with the library, as a test shows")
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns what it is of, in words.
    pub fn title(&self) -> &str {
        &self.0.title
    }

    /// Returns the name of the profile that it lies over.
    pub fn extends(&self) -> Option<&str> {
        self.0.extends.as_deref()
    }

    /// Returns the table of errors, of which the first line that fits decides.
    pub fn errors(&self) -> &[ErrorRule] {
        &self.0.errors
    }

    /// Returns the line of the table of errors that speaks of an answer.
    pub fn rule(
        &self,
        asked: Action,
        status: u16,
        error: &str,
        description: &str,
    ) -> Option<&ErrorRule> {
        let description = description.to_ascii_lowercase();
        self.0.errors.iter().find(|rule| rule.fits(asked, status, error, &description))
    }

    /// Returns what an error means, or `None` where neither the profile nor the RFCs say.
    pub fn meaning(
        &self,
        asked: Action,
        status: u16,
        error: &str,
        description: &str,
    ) -> Option<Meaning> {
        self.rule(asked, status, error, description).map(ErrorRule::meaning)
    }

    /// Returns why a grant is over that ended with this error, where the error tells.
    pub fn death_cause(
        &self,
        asked: Action,
        status: u16,
        error: &str,
        description: &str,
    ) -> Option<Cause> {
        self.rule(asked, status, error, description).and_then(ErrorRule::cause)
    }

    /// Returns whether an app's refresh tokens rotate: what is verified of the provider, and else
    /// what is said of the app.
    pub fn effective_rotation(&self, setting: Rotation) -> Rotation {
        match self.rotation().verified() {
            Some(Rotates::Never) => Rotation::Off,
            Some(Rotates::Always) => Rotation::On,
            Some(Rotates::Optional) | None => setting,
        }
    }

    /// Says whether tokens may go to a host: one of the verified suffixes is its end, label by
    /// label.
    pub fn allows_host(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let ends_so = |suffix: &String| match host.strip_suffix(suffix.as_str()) {
            Some(before) => before.is_empty() || before.ends_with('.'),
            None => false,
        };
        self.hosts().verified().is_some_and(|suffixes| suffixes.iter().any(ends_so))
    }
}

/// Reads a profile over one of those that are there already.
fn read_over(text: &str, there: &[Profile]) -> Result<Profile, ProfileError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(table::error(text, 0, String::new(), Problem::TooLong));
    }
    let parsed = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        table::error(text, at, String::new(), Problem::Syntax(error.message().to_owned()))
    })?;
    let document = Table::document(text, &parsed);
    document.only(&[KEYS])?;
    let name = document.text("name").needed(&document, "name", "the profile's name")?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(fits) {
        let expected = Problem::Expected("1 to 64 letters, digits, dots, dashes or underscores");
        return Err(document.wrong("name", expected));
    }
    let extends = document.text("extends")?;
    let base = match &extends {
        Some(base) => Some(
            there
                .iter()
                .find(|profile| profile.name() == base)
                .ok_or_else(|| document.wrong("extends", Problem::NotOneOf(builtin::names())))?,
        ),
        // The RFCs come first in the list, so they alone have nothing below.
        None => there.first(),
    };
    let mut data = base.map_or_else(Data::blank, |base| (*base.0).clone());
    data.extends = base.map(|base| base.name().to_owned());
    data.title = document.text("title")?.unwrap_or_else(|| name.clone());
    data.name = name;
    data.lay_over(&document)?;
    let own = document.tables("errors")?;
    let mut errors: Vec<ErrorRule> = own.iter().map(read::rule).collect::<Result<_, _>>()?;
    errors.append(&mut data.errors);
    data.errors = errors;
    Ok(Profile(Arc::new(data)))
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile")
            .field("name", &self.0.name)
            .field("extends", &self.0.extends)
            .finish_non_exhaustive()
    }
}

impl Serialize for Profile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
