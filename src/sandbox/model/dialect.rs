//! How a provider words its answers: paths, members, errors. The model only carries it; the rooms
//! around it (`shape`, `words`, `routes`) speak by it.

/// How a provider words its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// The provider's name.
    pub name: String,
    /// What members an answer has.
    pub shape: Shape,
    /// Where the user is named.
    pub identity: Identity,
    /// Whether an answer says how long its access token works.
    pub declares_expiry: bool,
    /// Whether redirects name the issuer (RFC 9207).
    pub names_issuer: bool,
    /// Whether refusals come under status 200.
    pub errors_under_200: bool,
    /// How it is said that a refresh token works no more, where not in the RFC's plain way.
    pub dead: Option<Wording>,
    /// How it is said that a refresh with the same token is at work.
    pub busy: Option<Wording>,
    /// How it is said that a code works no more.
    pub bad_code: Option<Wording>,
    /// Where its endpoints stand, beside the plain ones.
    pub paths: Paths,
}

/// What members an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Salesforce's: an identity URL, the time of issue, and a signature over both.
    Salesforce,
    /// Those of RFC 6749, section 5.1.
    Plain,
}

/// Where the user is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// In the answer's `id`, a URL.
    Url,
    /// In a claim of the answer's `id_token`.
    IdToken {
        /// Which claim.
        claim: String,
    },
    /// In a parameter of the redirect.
    Callback {
        /// Which parameter.
        parameter: String,
    },
    /// At the endpoint that tells about users, and nowhere else.
    LookUp {
        /// Where in its answer: a JSON pointer (RFC 6901).
        pointer: String,
    },
}

/// An error as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wording {
    /// The status.
    pub status: u16,
    /// The code.
    pub error: String,
    /// The description; none where it is empty.
    pub description: String,
}

/// Where a provider's endpoints stand. Each is a path that begins with a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Where a user approves.
    pub authorize: String,
    /// Where codes and refresh tokens are exchanged.
    pub token: String,
    /// Where tokens are revoked.
    pub revoke: String,
    /// Where tokens are asked about.
    pub introspect: String,
    /// Where a bearer asks who they are.
    pub userinfo: String,
}

impl Dialect {
    /// Salesforce's way.
    pub fn salesforce() -> Self {
        Self {
            name: "salesforce".to_owned(),
            shape: Shape::Salesforce,
            identity: Identity::Url,
            declares_expiry: false,
            paths: Paths::salesforce(),
            ..Self::rfc6749()
        }
    }

    /// The RFCs' way.
    pub fn rfc6749() -> Self {
        Self {
            name: "rfc6749".to_owned(),
            shape: Shape::Plain,
            identity: Identity::LookUp { pointer: "/sub".to_owned() },
            declares_expiry: true,
            names_issuer: false,
            errors_under_200: false,
            dead: None,
            busy: None,
            bad_code: None,
            paths: Paths::plain(),
        }
    }
}

impl Paths {
    /// Salesforce's.
    pub fn salesforce() -> Self {
        let path = |name: &str| format!("/services/oauth2/{name}");
        Self::by(path)
    }

    /// Those that every sandbox answers at.
    pub fn plain() -> Self {
        Self::by(|name| format!("/{name}"))
    }

    fn by(path: impl Fn(&str) -> String) -> Self {
        Self {
            authorize: path("authorize"),
            token: path("token"),
            revoke: path("revoke"),
            introspect: path("introspect"),
            userinfo: path("userinfo"),
        }
    }
}
