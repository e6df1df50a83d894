//! Reads a line: takes its members out one by one, and refuses what is left.

use super::{LineError, LineProblem};
use crate::ids::{Account, App, Holder, User};
use crate::journal::Import;
use crate::outcome::members::{self, Members, is_absent};
use crate::outcome::{
    ExpirySource, PLAUSIBLE_MS, ResponseParts, Signature, TokenResponse, UnreadableReason,
    salesforce_name,
};
use crate::secret::Secret;
use serde_json::value::RawValue;

/// The longest line that is read, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What the names of Salesforce's apps begin with.
const SALESFORCE: &str = "salesforce";

/// Reads a line.
pub(super) fn line(text: &str, now_ms: u64) -> Result<Import, LineError> {
    if text.len() > LINE_BYTES_MAX {
        return Err(LineError::whole(LineProblem::TooLong));
    }
    let mut line = Object::read("", text)?;
    let app = app(&mut line)?;
    let user = user(&mut line)?;
    // An id of 15 characters and that of 18 are one user's.
    let same = Some(&user).filter(|_| app.provider().starts_with(SALESFORCE));
    let user = same.and_then(|user| salesforce_name(user.as_str())).unwrap_or(user);
    let account = Account::new(app, user);
    let holder = holder(&mut line)?;
    let paused = line.take("paused", "true or false", truth)?;
    let parts = parts(&mut line, now_ms)?;
    // Before what is missing: a token under a misspelt name is one that nobody asked for.
    line.finish()?;
    if parts.access_token.reveal().is_empty() && parts.refresh_token.is_none() {
        return Err(LineError::whole(LineProblem::NoToken));
    }
    let import = Import::new(&account, TokenResponse::kept(parts));
    let import = import.paused(paused.unwrap_or(true));
    Ok(match &holder {
        Some(holder) => import.holder(holder),
        None => import,
    })
}

/// An object of the line, whose members are taken out one by one.
struct Object<'a> {
    /// What stands before its members' names in errors.
    path: &'static str,
    members: Members<'a>,
}

impl<'a> Object<'a> {
    fn read(path: &'static str, text: &'a str) -> Result<Self, LineError> {
        let members = Members::read(text.as_bytes()).map_err(|reason| {
            LineError::new(
                path.trim_end_matches('.'),
                match reason {
                    UnreadableReason::TooLarge => LineProblem::TooMany,
                    _ => LineProblem::NotAnObject,
                },
            )
        })?;
        Ok(Self { path, members })
    }

    fn wrong(&self, name: &str, problem: LineProblem) -> LineError {
        LineError::new(&format!("{}{name}", self.path), problem)
    }

    /// Takes a member out; nulls and empty texts count as absent.
    fn raw(&mut self, name: &str) -> Result<Option<&'a RawValue>, LineError> {
        match self.members.take_all(name).as_slice() {
            [] => Ok(None),
            [raw] => Ok(Some(*raw).filter(|raw| !is_absent(raw))),
            _ => Err(self.wrong(name, LineProblem::Twice)),
        }
    }

    fn take<T>(
        &mut self,
        name: &str,
        expected: &'static str,
        understood: impl Fn(&'a RawValue) -> Option<T>,
    ) -> Result<Option<T>, LineError> {
        let Some(raw) = self.raw(name)? else { return Ok(None) };
        match understood(raw) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(name, LineProblem::Expected(expected))),
        }
    }

    fn need(&mut self, name: &str) -> Result<String, LineError> {
        let text = self.take(name, "a text", members::text)?;
        text.ok_or_else(|| self.wrong(name, LineProblem::Missing))
    }

    fn object(&mut self, name: &str, path: &'static str) -> Result<Option<Object<'a>>, LineError> {
        self.raw(name)?.map(|raw| Object::read(path, raw.get())).transpose()
    }

    /// Refuses what nobody has asked for.
    fn finish(self) -> Result<(), LineError> {
        match self.members.first_name() {
            Some(name) => Err(self.wrong(name, LineProblem::Unknown)),
            None => Ok(()),
        }
    }
}

fn app(line: &mut Object<'_>) -> Result<App, LineError> {
    let missing = line.wrong("app", LineProblem::Missing);
    let mut app = line.object("app", "app.")?.ok_or(missing)?;
    let (provider, client_id) = (app.need("provider")?, app.need("client_id")?);
    app.finish()?;
    App::new(provider, client_id).map_err(|error| LineError::new("app", LineProblem::Name(error)))
}

fn user(line: &mut Object<'_>) -> Result<User, LineError> {
    let name = line.need("user")?;
    User::new(name).map_err(|error| LineError::new("user", LineProblem::Name(error)))
}

fn holder(line: &mut Object<'_>) -> Result<Option<Holder>, LineError> {
    let Some(mut holder) = line.object("holder", "holder.")? else { return Ok(None) };
    let (tenant, name) = (holder.need("tenant")?, holder.need("name")?);
    holder.finish()?;
    let holder = Holder::new(tenant, name);
    holder.map(Some).map_err(|error| LineError::new("holder", LineProblem::Name(error)))
}

fn parts(line: &mut Object<'_>, now_ms: u64) -> Result<ResponseParts, LineError> {
    // RFC 6749, appendix A.12 and A.17.
    let expected = "a text without control characters";
    let is_token = |text: &String| !text.chars().any(char::is_control);
    let mut token = |name| {
        let text = |raw| members::text(raw).filter(is_token).map(Secret::new);
        line.take(name, expected, text)
    };
    let (access_token, refresh_token) = (token("access_token")?, token("refresh_token")?);
    let id_token = token("id_token")?;
    let plain = "a text of 1 to 4096 bytes without control characters";
    let token_type = line.take("token_type", plain, members::plain_text)?;
    let scopes = "a list of texts, or a text with spaces between the scopes";
    let scopes = line.take("scopes", scopes, |raw| match raw.get().trim() {
        "[]" => Some(Vec::new()),
        _ => members::scopes(raw),
    })?;
    let instance_url = line.take("instance_url", plain, members::plain_text)?;
    let token_endpoint = line.take("token_endpoint", plain, members::plain_text)?;
    let time = "a time in milliseconds since 1970";
    let issued_at_ms = line.take("issued_at_ms", time, time_ms)?;
    let expires_at_ms = line.take("expires_at_ms", time, time_ms)?;
    let expiry = line.take("expiry", "declared, introspected or assumed", expiry)?;
    if expiry.is_some() && expires_at_ms.is_none() {
        return Err(LineError::new("expires_at_ms", LineProblem::Missing));
    }
    let fields = match line.object("fields", "fields.")? {
        Some(fields) => fields.members.into_fields(),
        None => Vec::new(),
    };
    Ok(ResponseParts {
        access_token: access_token.unwrap_or_else(|| Secret::new(String::new())),
        refresh_token,
        id_token,
        token_type,
        scopes: scopes.filter(|scopes| !scopes.is_empty()),
        instance_url,
        token_endpoint,
        user: None,
        identity_url: None,
        issued_at_ms,
        received_at_ms: now_ms,
        expires_at_ms,
        expiry_source: expires_at_ms.map(|_| expiry.unwrap_or(ExpirySource::Assumed)),
        signature: Signature::Unchecked,
        fields,
    })
}

fn truth(raw: &RawValue) -> Option<bool> {
    serde_json::from_str(raw.get()).ok()
}

fn time_ms(raw: &RawValue) -> Option<u64> {
    members::whole_number(raw).filter(|ms| PLAUSIBLE_MS.contains(ms))
}

fn expiry(raw: &RawValue) -> Option<ExpirySource> {
    match members::text(raw)?.as_str() {
        "declared" => Some(ExpirySource::Declared),
        "introspected" => Some(ExpirySource::Introspected),
        "assumed" => Some(ExpirySource::Assumed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NameError;
    use crate::ledger::Line;
    use proptest::prelude::*;

    const NOW_MS: u64 = 1_760_000_000_000;
    const APP: &str = r#""app":{"provider":"p","client_id":"c"},"user":"u""#;

    fn refused(text: &str) -> (String, LineProblem) {
        let error = Line::parse(text, NOW_MS).expect_err(text);
        assert!(!error.to_string().contains("sesame"), "{error}");
        (error.member().to_owned(), error.problem().clone())
    }

    #[test]
    fn ids_of_fifteen_characters_are_those_of_eighteen_at_salesforce() {
        let user = |provider: &str, user: &str| {
            let text = format!(
                r#"{{"app":{{"provider":"{provider}","client_id":"c"}},"user":"{user}","refresh_token":"r"}}"#
            );
            line(&text, 1_760_000_000_000).unwrap().account.user.as_str().to_owned()
        };
        let short = "00Dx0000000BV7z/005x00000012Q9P";
        assert_eq!(user("salesforce-rotating", short), "00Dx0000000BV7zEAG/005x00000012Q9PAAU");
        assert_eq!(user("salesforce", "alice"), "alice");
        assert_eq!(user("xero", short), short);
    }

    #[test]
    fn an_error_names_the_member_and_never_its_value() {
        let all = |rest: &str| format!("{{{APP},{rest}}}");
        let token = |rest: &str| all(&format!(r#""refresh_token":"sesame",{rest}"#));
        let text = LineProblem::Expected("a text without control characters");
        let time = LineProblem::Expected("a time in milliseconds since 1970");
        let cases = [
            (String::from(r#""sesame""#), "", LineProblem::NotAnObject),
            (String::from("{\"sesame\":"), "", LineProblem::NotAnObject),
            (format!("{} ", "x".repeat(LINE_BYTES_MAX)), "", LineProblem::TooLong),
            (String::from("{}"), "app", LineProblem::Missing),
            (String::from(r#"{"app":"sesame"}"#), "app", LineProblem::NotAnObject),
            (String::from(r#"{"app":{"client_id":"c"}}"#), "app.provider", LineProblem::Missing),
            (
                String::from(r#"{"app":{"provider":"p","client_id":"c","sesam":1}}"#),
                "app.sesam",
                LineProblem::Unknown,
            ),
            (
                String::from("{\"app\":{\"provider\":\"p\",\"client_id\":\"c\\n\"}}"),
                "app",
                LineProblem::Name(NameError::Control { what: "client id", at: 1 }),
            ),
            (
                String::from(r#"{"app":{"provider":"p","client_id":"c"}}"#),
                "user",
                LineProblem::Missing,
            ),
            (format!("{{{APP}}}"), "", LineProblem::NoToken),
            (all(r#""refresh_token":"""#), "", LineProblem::NoToken),
            (all(r#""refresh_token":["sesame"]"#), "refresh_token", text.clone()),
            (all(r#""refresh_token":"sesame\n""#), "refresh_token", text.clone()),
            (all(r#""access_token":"\u0000sesame""#), "access_token", text.clone()),
            (
                all(r#""refresh_token":"sesame","refresh_token":"sesame""#),
                "refresh_token",
                LineProblem::Twice,
            ),
            (token(r#""user":"sesame""#), "user", LineProblem::Twice),
            (token(r#""refreshToken":"sesame""#), "refreshToken", LineProblem::Unknown),
            (token(r#""id_token":{"sesame":1}"#), "id_token", text),
            (token(r#""holder":{"tenant":"t"}"#), "holder.name", LineProblem::Missing),
            (token(r#""issued_at_ms":1760000000"#), "issued_at_ms", time.clone()),
            (token(r#""expires_at_ms":"sesame""#), "expires_at_ms", time),
            (token(r#""expiry":"declared""#), "expires_at_ms", LineProblem::Missing),
            (
                token(r#""expires_at_ms":1760000000000,"expiry":"sesame""#),
                "expiry",
                LineProblem::Expected("declared, introspected or assumed"),
            ),
            (token(r#""paused":"sesame""#), "paused", LineProblem::Expected("true or false")),
            (token(r#""fields":["sesame"]"#), "fields", LineProblem::NotAnObject),
        ];
        for (text, member, problem) in cases {
            assert_eq!(refused(&text), (member.to_owned(), problem), "{text}");
        }
    }

    #[test]
    fn a_name_that_is_not_known_is_shown_harmlessly() {
        let long =
            format!("{{{APP},\"refresh_token\":\"r\",\"\\u001b[2J{}\":1}}", "x".repeat(5000));
        let (member, _) = refused(&long);
        assert!(member.starts_with("\u{fffd}[2Jxx") && member.chars().count() == 64, "{member}");
    }

    #[test]
    fn a_refresh_token_alone_is_a_pair_that_has_lapsed() {
        let parts = TokenResponse::kept(
            parts(&mut Object::read("", r#"{"refresh_token":"r"}"#).unwrap(), NOW_MS).unwrap(),
        );
        assert_eq!((parts.expires_at_ms(), parts.has_refresh_token()), (Some(1), true));
        assert_eq!(parts.parts().expiry_source, Some(ExpirySource::Declared));
        assert_eq!(parts.parts().received_at_ms, NOW_MS);
    }

    #[test]
    fn an_expiry_of_which_nothing_is_said_is_assumed() {
        let text = r#"{"access_token":"a","expires_at_ms":1760000000000,"scopes":["x","y"]}"#;
        let parts = parts(&mut Object::read("", text).unwrap(), NOW_MS).unwrap();
        assert_eq!(parts.expiry_source, Some(ExpirySource::Assumed));
        assert_eq!(parts.scopes, Some(vec![String::from("x"), String::from("y")]));
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in ".*") {
            let _ = Line::parse(&text, NOW_MS);
        }

        #[test]
        fn no_value_does_harm(
            name in "(app|user|holder|scopes|expiry|fields|paused|[a-z_]*)",
            value in ".{0,40}",
        ) {
            let text = format!("{{{APP},\"refresh_token\":\"r\",{name:?}:{value}}}");
            let _ = Line::parse(&text, NOW_MS);
        }
    }
}
