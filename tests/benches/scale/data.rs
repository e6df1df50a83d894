//! What is written: users of some apps, and the answers that their providers give.
//!
//! All of it follows from a seed. The answers have the members that the providers' own pages list
//! (sources at each shape) and tokens of the lengths in which they come today, which no provider
//! promises. Early users are the busy ones: how often a user's pair is refreshed falls with its
//! rank, as Zipf found of words.

use tokenwal::{App, Holder, NameError, Outcome, TokenResponse, User};

/// The time of the first record, in milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_760_000_000_000;

/// Draws numbers: SplitMix64, which is enough for data.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins anew for each purpose, so that one draw more in one place changes nothing elsewhere.
    pub fn new(seed: u64, purpose: &[u64]) -> Self {
        let mut random = Self(seed);
        for part in purpose {
            random.0 = random.next().wrapping_add(*part);
        }
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws from 0 to `end`, excluded.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Draws a rank from 0 to `end`, excluded, the first of which is the likeliest: the density of
    /// Zipf's law with exponent 1.
    pub fn rank_below(&mut self, end: usize) -> usize {
        let share = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let rank = ((end as f64 + 1.0).ln() * share).exp() - 1.0;
        (rank as usize).min(end.saturating_sub(1))
    }

    /// Appends characters of base64url.
    fn text(&mut self, out: &mut String, length: usize) {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut left = length;
        while left > 0 {
            let mut bits = self.next();
            for _ in 0..left.min(10) {
                out.push(char::from(LETTERS[(bits & 63) as usize]));
                bits >>= 6;
            }
            left -= left.min(10);
        }
    }
}

/// A provider's way to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// <https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_web_server_flow.htm>:
    /// no `expires_in`; rotation for apps that more than two customers use.
    Salesforce,
    /// <https://developers.google.com/identity/protocols/oauth2/web-server>: a refresh leaves the
    /// refresh token out.
    Google,
    /// <https://developer.intuit.com/app/developer/qbo/docs/develop/authentication-and-authorization/faq>:
    /// an encrypted access token for an hour; the refresh token changes about once a day.
    QuickBooks,
    /// <https://developer.xero.com/documentation/guides/oauth2/auth-flow>: signed access and id
    /// tokens for 30 minutes; each refresh rotates.
    Xero,
}

impl Shape {
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Salesforce => ("salesforce", "3MVG9lKcPoNINVBIPJjdw1J9LLM82HnFVVX19KY1uA5mu0"),
            Self::Google => ("google", "715482219034-k3bq0vd8a.apps.googleusercontent.com"),
            Self::QuickBooks => ("intuit", "ABh6yZ1m2cXq0uQH5nB8vT4rLk7sJw3e"),
            Self::Xero => ("xero", "5C1E8A4D0B7F4E2A9C36D1F0A8B7E654"),
        }
    }
}

/// All users there are.
#[derive(Debug, Clone, Copy)]
pub struct Population {
    seed: u64,
}

/// A user of an app.
#[derive(Debug, Clone, Copy)]
pub struct Person {
    seed: u64,
    number: usize,
    shape: Shape,
}

impl Population {
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    pub fn person(self, number: usize) -> Person {
        // Mostly the provider that this journal was made for.
        let shape = match Random::new(self.seed, &[1, number as u64]).below(100) {
            0..60 => Shape::Salesforce,
            60..85 => Shape::Google,
            85..95 => Shape::QuickBooks,
            _ => Shape::Xero,
        };
        Person { seed: self.seed, number, shape }
    }
}

impl Person {
    pub fn app(&self) -> Result<App, NameError> {
        let (provider, client) = self.shape.names();
        App::new(provider, client)
    }

    pub fn user(&self) -> Result<User, NameError> {
        let number = self.number;
        match self.shape {
            // Five users to an organisation, on the average of many.
            Shape::Salesforce => User::new(format!("00D{:012}EAA/005{number:012}AAA", number / 5)),
            Shape::Google => User::new(format!("1{number:020}")),
            Shape::QuickBooks => User::new(format!("4620816{number:012}")),
            Shape::Xero => User::new(format!("{number:08x}-5f1c-4b0e-9a57-6d2e8c41b730")),
        }
    }

    /// Whoever depends on the user's pair, one of some integrations of a customer.
    pub fn holder(&self) -> Result<Holder, NameError> {
        const NAMES: [&str; 4] = ["nightly sync", "contacts", "invoices", "reports"];
        Holder::new(format!("customer-{}", self.number / 5), NAMES[self.number % NAMES.len()])
    }

    pub fn scopes(&self) -> &'static [&'static str] {
        match self.shape {
            Shape::Salesforce => &["api", "refresh_token"],
            Shape::Google => &["https://www.googleapis.com/auth/calendar.readonly"],
            Shape::QuickBooks => &["com.intuit.quickbooks.accounting"],
            Shape::Xero => &["offline_access", "accounting.transactions", "accounting.contacts"],
        }
    }

    /// Says whether the app knows the user before the provider names it.
    pub fn is_known_beforehand(&self) -> bool {
        self.number.is_multiple_of(2)
    }

    /// Returns the access token of a generation, counted from 1.
    pub fn access_token(&self, generation: u32) -> String {
        let (front, length) = match self.shape {
            Shape::Salesforce => (format!("00D{:012}!AQ", self.number / 5), 112),
            Shape::Google => (String::from("ya29.a0"), 218),
            Shape::QuickBooks => (String::from("eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4"), 1042),
            Shape::Xero => (String::from("eyJhbGciOiJSUzI1NiIsImtpZCI6IjFD"), 1316),
        };
        self.token(front, length, &[2, u64::from(generation)])
    }

    /// Returns the refresh token in the answer of a generation, if there is one.
    fn refresh_token(&self, generation: u32) -> Option<String> {
        let (front, length, change) = match self.shape {
            Shape::Salesforce => ("5Aep861", 87, generation),
            Shape::Google if generation > 1 => return None,
            Shape::Google => ("1//09", 103, 1),
            Shape::QuickBooks => ("AB1175", 50, generation / 24),
            Shape::Xero => ("", 43, generation),
        };
        Some(self.token(String::from(front), length, &[3, u64::from(change)]))
    }

    fn token(&self, mut front: String, length: usize, purpose: &[u64]) -> String {
        let mut random = Random::new(self.seed, &[4, self.number as u64]);
        random = Random::new(random.next(), purpose);
        let left = length.saturating_sub(front.len());
        random.text(&mut front, left);
        front
    }

    /// Returns what the provider answers at a generation, counted from 1.
    pub fn answer(
        &self,
        generation: u32,
        at_ms: u64,
    ) -> Result<Outcome, Box<dyn std::error::Error>> {
        let access = self.access_token(generation);
        let mut body = format!("{{\"access_token\":\"{access}\",");
        if let Some(refresh) = self.refresh_token(generation) {
            body += &format!("\"refresh_token\":\"{refresh}\",");
        }
        body += &match self.shape {
            Shape::Salesforce => {
                let (organisation, number) = (self.number / 5, self.number);
                let signature = self.token(String::new(), 43, &[5, u64::from(generation)]);
                format!(
                    "\"signature\":\"{signature}=\",\"scope\":\"api refresh_token\",\
                     \"instance_url\":\"https://customer{organisation}.my.salesforce.com\",\
                     \"id\":\"https://login.salesforce.com/id/00D{organisation:012}EAA/005{number:012}AAA\",\
                     \"token_type\":\"Bearer\",\"issued_at\":\"{at_ms}\"}}"
                )
            }
            Shape::Google => format!(
                "\"expires_in\":3599,\"scope\":\"{}\",\"token_type\":\"Bearer\"}}",
                self.scopes()[0]
            ),
            Shape::QuickBooks => String::from(
                "\"expires_in\":3600,\"x_refresh_token_expires_in\":8726400,\
                 \"token_type\":\"bearer\"}",
            ),
            Shape::Xero => {
                let front = String::from("eyJhbGciOiJSUzI1NiIsImtpZCI6IjFD");
                let id = self.token(front, 1024, &[6, u64::from(generation)]);
                format!(
                    "\"id_token\":\"{id}\",\"expires_in\":1800,\"token_type\":\"Bearer\",\
                     \"scope\":\"{}\"}}",
                    self.scopes().join(" ")
                )
            }
        };
        let response = TokenResponse::parse(body.into_bytes(), at_ms)
            .map_err(|unreadable| format!("{:?}", unreadable.reason()))?;
        Ok(Outcome::Issued(response.with_user(self.user()?)))
    }
}
