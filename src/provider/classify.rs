//! What an answer means: pure functions from status, error and description to an outcome.
//!
//! A refusal needs a status or an error that says "I did not do it". All else is in doubt, and its
//! bytes are kept; tokens in a body are never thrown away, whatever the status above them. What an
//! error means is the profile's to say.

use crate::format::value::Action;
use crate::outcome::members::{self, Members};
use crate::outcome::{
    Doubt, DoubtReason, Introspection, Outcome, Refusal, RefusalClass, TokenResponse,
};
use crate::profile::{Meaning, Profile, Rotation};
use crate::secret::Secret;
use zeroize::Zeroizing;

/// An answer, as far as it came.
pub(super) struct Reply {
    pub(super) status: u16,
    /// `None` where the header is missing; 0 where it names no time that can be told.
    pub(super) retry_after_s: Option<u32>,
    pub(super) request_id: Option<String>,
    /// The host that a redirect names, and nothing else of it.
    pub(super) redirect_host: Option<String>,
    pub(super) body: Zeroizing<Vec<u8>>,
    pub(super) end: BodyEnd,
    pub(super) received_at_ms: u64,
}

/// How the body of an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyEnd {
    /// All of it came.
    Whole,
    /// The connection broke.
    Lost,
    /// The deadline passed.
    Late,
    /// It is longer than is taken: as long as this, as far as is known.
    Long(u64),
}

/// What was asked, of whom, and which secrets went with it.
pub(super) struct Question<'a> {
    pub(super) asked: Action,
    pub(super) profile: &'a Profile,
    /// Whether this app's refresh tokens rotate, by the profile and its own setting.
    pub(super) rotation: Rotation,
    pub(super) sent: &'a [&'a Secret],
}

impl Question<'_> {
    /// Says what an answer to an exchange or refresh means.
    pub(super) fn issuance(&self, reply: Reply) -> Outcome {
        let mut reply = self.without_echo(reply);
        let said = Said::read(&reply.body);
        if reply.is_success() && !said.is_error() {
            let body = std::mem::take(&mut *reply.body);
            // A JSON object ends with its own brace: one that can be read is whole, also when
            // the connection broke behind it.
            return match TokenResponse::parse(body, reply.received_at_ms) {
                Ok(response) => Outcome::Issued(response),
                Err(unreadable) => {
                    reply.body = unreadable.into_body();
                    let reason = reply.end.doubt();
                    Outcome::InDoubt(reply.doubt(reason))
                }
            };
        }
        if said.has_token {
            return Outcome::InDoubt(reply.doubt(DoubtReason::Unreadable));
        }
        self.not_done(&said, reply)
    }

    /// Says what an answer to a revocation means. The status alone says that it was done
    /// (RFC 7009, section 2.2), so a lost body changes nothing.
    pub(super) fn revocation(&self, reply: Reply) -> Outcome {
        let reply = self.without_echo(reply);
        let said = Said::read(&reply.body);
        if reply.is_success() && !said.is_error() {
            return Outcome::Revoked;
        }
        self.not_done(&said, reply)
    }

    /// Says what an answer to an introspection means.
    pub(super) fn introspection(&self, reply: Reply) -> (Option<Introspection>, Outcome) {
        let reply = self.without_echo(reply);
        if reply.is_success()
            && let Some(introspection) = Introspection::parse(&reply.body)
        {
            return (Some(introspection), Outcome::Answered);
        }
        let said = Said::read(&reply.body);
        if reply.is_success() && !said.is_error() {
            let reason = reply.end.doubt();
            return (None, Outcome::InDoubt(reply.doubt(reason)));
        }
        (None, self.not_done(&said, reply))
    }

    /// Drops an id of the request in which a secret comes back that went with it.
    fn without_echo(&self, mut reply: Reply) -> Reply {
        let echoes = |id: &String| self.sent.iter().any(|secret| id.contains(secret.reveal()));
        reply.request_id = reply.request_id.filter(|id| !echoes(id));
        reply
    }

    /// Decides between refused and in doubt for an answer that does not say "done".
    fn not_done(&self, said: &Said, reply: Reply) -> Outcome {
        use RefusalClass::{OwnFault, Retry, Suspended};
        match reply.status {
            429 => self.refused(Retry, said, &reply),
            // The server names the time for the same request, so it has not acted on this one.
            503 if reply.retry_after_s.is_some() => self.refused(Retry, said, &reply),
            // These ask for the same request elsewhere (RFC 9110, sections 15.4.2, 15.4.8 and
            // 15.4.9): the endpoint is configured wrongly. The other redirects may follow a
            // request that was carried out.
            301 | 307 | 308 => self.redirected(&reply),
            // Gateways send it when what is behind them was too slow.
            408 => Outcome::InDoubt(reply.doubt(DoubtReason::Timeout)),
            200..=299 | 400..=499 => match self.meaning(said, reply.status) {
                Some(Meaning::Busy) if self.rotation == Rotation::Off => {
                    self.refused(Retry, said, &reply)
                }
                Some(meaning) => match meaning.class() {
                    Some(class) => self.refused(class, said, &reply),
                    None => Outcome::InDoubt(reply.doubt(DoubtReason::ServerError)),
                },
                None => match reply.status {
                    401 | 404 | 405 | 410 | 415 | 421 => self.refused(OwnFault, said, &reply),
                    425 => self.refused(Retry, said, &reply),
                    _ => self.refused(Suspended, said, &reply),
                },
            },
            _ => Outcome::InDoubt(reply.doubt(DoubtReason::ServerError)),
        }
    }

    fn meaning(&self, said: &Said, status: u16) -> Option<Meaning> {
        self.profile.meaning(self.asked, status, &said.error, &said.description)
    }

    fn refused(&self, class: RefusalClass, said: &Said, reply: &Reply) -> Outcome {
        let refusal = Refusal::new(class, reply.status, &said.error, &said.description, self.sent)
            .with_retry_after_s(reply.retry_after_s.unwrap_or(0));
        Outcome::Refused(match &reply.request_id {
            Some(request_id) => refusal.with_request_id(request_id),
            None => refusal,
        })
    }

    fn redirected(&self, reply: &Reply) -> Outcome {
        let description = match &reply.redirect_host {
            Some(host) => format!("the endpoint redirects to {host}; configure that one"),
            None => "the endpoint redirects elsewhere; configure the right one".to_owned(),
        };
        let said = Said { description, ..Said::default() };
        self.refused(RefusalClass::OwnFault, &said, reply)
    }
}

impl Reply {
    fn is_success(&self) -> bool {
        (200..=299).contains(&self.status)
    }

    fn doubt(self, reason: DoubtReason) -> Doubt {
        let doubt = Doubt::new(reason).with_status(self.status).with_wiped_body(self.body);
        let doubt = match self.end {
            BodyEnd::Long(bytes) => doubt.with_body_bytes(bytes),
            _ => doubt,
        };
        match &self.request_id {
            Some(request_id) => doubt.with_request_id(request_id),
            None => doubt,
        }
    }
}

impl BodyEnd {
    /// Says why a success that cannot be read is in doubt.
    fn doubt(self) -> DoubtReason {
        match self {
            Self::Whole => DoubtReason::Unreadable,
            Self::Lost => DoubtReason::ConnectionLost,
            Self::Late => DoubtReason::Timeout,
            Self::Long(_) => DoubtReason::Oversized,
        }
    }
}

/// The error that an answer names (RFC 6749, section 5.2). All is empty where it names none.
#[derive(Default)]
struct Said {
    error: String,
    description: String,
    has_token: bool,
}

impl Said {
    fn read(body: &[u8]) -> Self {
        let Ok(members) = Members::read(body) else { return Self::default() };
        let text = |name| members.find(name).and_then(members::text).unwrap_or_default();
        let described = text("error_description");
        Self {
            error: text("error"),
            description: if described.is_empty() { text("message") } else { described },
            has_token: ["access_token", "refresh_token"]
                .into_iter()
                .any(|name| members.find(name).is_some_and(|raw| !members::is_absent(raw))),
        }
    }

    /// Says whether the answer is an error, be its status 200 (as some providers have it).
    fn is_error(&self) -> bool {
        !self.error.is_empty() && !self.has_token
    }
}

#[cfg(test)]
#[allow(clippy::string_slice, reason = "tests may")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAIR: &str = r#"{"access_token":"ACCESS-TOKEN-1","refresh_token":"REFRESH-TOKEN-1"}"#;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status,
            retry_after_s: None,
            request_id: Some("req-1".to_owned()),
            redirect_host: None,
            body: Zeroizing::new(body.as_bytes().to_vec()),
            end: BodyEnd::Whole,
            received_at_ms: 1_700_000_000_000,
        }
    }

    fn ended(end: BodyEnd, reply: Reply) -> Reply {
        Reply { end, ..reply }
    }

    fn later(reply: Reply) -> Reply {
        Reply { retry_after_s: Some(30), ..reply }
    }

    /// Returns an outcome in one line, such as `refused dead 400`.
    fn told(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Issued(_) => "issued".to_owned(),
            Outcome::Refused(refusal) => {
                format!("refused {:?} {}", refusal.class(), refusal.status())
            }
            Outcome::NotSent(reason) => format!("not sent {reason:?}"),
            Outcome::InDoubt(doubt) => format!("in doubt {:?} {}", doubt.reason(), doubt.status()),
            Outcome::Revoked => "revoked".to_owned(),
            Outcome::Answered => "answered".to_owned(),
        }
    }

    fn asked(asked: Action, profile: Profile, rotation: Rotation, reply: Reply) -> Outcome {
        let question = Question { asked, profile: &profile, rotation, sent: &[] };
        match asked {
            Action::Exchange | Action::Refresh | Action::Mint | Action::Burn => {
                question.issuance(reply)
            }
            Action::Revoke => question.revocation(reply),
            Action::Introspect => question.introspection(reply).1,
        }
    }

    fn error(error: &str, description: &str) -> String {
        serde_json::json!({ "error": error, "error_description": description }).to_string()
    }

    #[test]
    fn what_an_answer_to_a_refresh_means() {
        let html = "<html>Service down for maintenance</html>";
        let cut = &PAIR[..40];
        let grant = error("invalid_grant", "whatever");
        let foreign = r#"{"error":{"code":7},"error_description":["x"]}"#;
        let cases: Vec<(Reply, &str)> = vec![
            (reply(200, PAIR), "issued"),
            (reply(201, PAIR), "issued"),
            (ended(BodyEnd::Lost, reply(200, PAIR)), "issued"),
            (ended(BodyEnd::Lost, reply(200, cut)), "in doubt ConnectionLost 200"),
            (ended(BodyEnd::Late, reply(200, cut)), "in doubt Timeout 200"),
            (ended(BodyEnd::Long(99), reply(200, cut)), "in doubt Oversized 200"),
            (reply(200, cut), "in doubt Unreadable 200"),
            (reply(200, html), "in doubt Unreadable 200"),
            (reply(200, "{}"), "in doubt Unreadable 200"),
            (reply(204, ""), "in doubt Unreadable 204"),
            (reply(200, r#"{"refresh_token":"r"}"#), "in doubt Unreadable 200"),
            (reply(200, r#"{"error":"x","refresh_token":"r"}"#), "in doubt Unreadable 200"),
            (reply(200, &error("bad_refresh_token", "")), "refused Suspended 200"),
            (reply(200, &error("invalid_client", "")), "refused OwnFault 200"),
            (reply(400, PAIR), "in doubt Unreadable 400"),
            (reply(500, PAIR), "in doubt Unreadable 500"),
            (reply(301, ""), "refused OwnFault 301"),
            (reply(302, ""), "in doubt ServerError 302"),
            (reply(303, ""), "in doubt ServerError 303"),
            (reply(304, ""), "in doubt ServerError 304"),
            (reply(307, ""), "refused OwnFault 307"),
            (reply(308, ""), "refused OwnFault 308"),
            (reply(400, &grant), "refused Suspended 400"),
            (reply(401, &grant), "refused Suspended 401"),
            (reply(400, &error("invalid_request", "")), "refused OwnFault 400"),
            (reply(400, &error("unauthorized_client", "")), "refused OwnFault 400"),
            (reply(400, &error("unsupported_grant_type", "")), "refused OwnFault 400"),
            (reply(400, &error("invalid_scope", "")), "refused OwnFault 400"),
            (reply(401, &error("invalid_client", "")), "refused OwnFault 401"),
            (reply(400, &error("temporarily_unavailable", "")), "refused Retry 400"),
            (reply(400, &error("server_error", "")), "in doubt ServerError 400"),
            (reply(400, &error("something_new", "")), "refused Suspended 400"),
            (reply(400, foreign), "refused Suspended 400"),
            (reply(400, html), "refused Suspended 400"),
            (ended(BodyEnd::Lost, reply(400, "{\"err")), "refused Suspended 400"),
            (reply(401, ""), "refused OwnFault 401"),
            (reply(403, html), "refused Suspended 403"),
            (reply(404, html), "refused OwnFault 404"),
            (reply(405, ""), "refused OwnFault 405"),
            (reply(408, ""), "in doubt Timeout 408"),
            (reply(425, ""), "refused Retry 425"),
            (reply(429, ""), "refused Retry 429"),
            (later(reply(429, &grant)), "refused Retry 429"),
            (reply(500, html), "in doubt ServerError 500"),
            (reply(502, ""), "in doubt ServerError 502"),
            (reply(503, ""), "in doubt ServerError 503"),
            (later(reply(503, html)), "refused Retry 503"),
            (later(reply(504, html)), "in doubt ServerError 504"),
            (reply(503, &error("temporarily_unavailable", "")), "in doubt ServerError 503"),
            (reply(600, ""), "in doubt ServerError 600"),
        ];
        for (reply, expected) in cases {
            let body = String::from_utf8_lossy(&reply.body).into_owned();
            let shown = format!("{} {body}", reply.status);
            for profile in [Profile::rfc6749(), Profile::salesforce()] {
                let again = Reply {
                    body: reply.body.clone(),
                    request_id: reply.request_id.clone(),
                    redirect_host: None,
                    ..reply
                };
                let name = profile.name().to_owned();
                let outcome = asked(Action::Refresh, profile, Rotation::Unknown, again);
                assert_eq!(told(&outcome), expected, "{shown} at {name}");
                if let Outcome::InDoubt(doubt) = outcome {
                    assert_eq!(doubt.body(), body.as_bytes(), "{shown}");
                }
            }
        }
    }

    #[test]
    fn salesforces_own_words() {
        use Rotation::{Off, On, Unknown};
        let dead = error("invalid_grant", "expired access/refresh token");
        let busy = error("invalid_grant", "Token request is already being processed");
        let early = error("invalid_grant", "expired authorization code");
        let frozen = error("invalid_grant", "inactive organization");
        let cases = [
            (Action::Refresh, On, &dead, "refused Dead 400"),
            (Action::Refresh, Off, &dead, "refused Dead 400"),
            (Action::Exchange, On, &dead, "refused Suspended 400"),
            (Action::Refresh, Off, &busy, "refused Retry 400"),
            (Action::Refresh, On, &busy, "in doubt ServerError 400"),
            (Action::Refresh, Unknown, &busy, "in doubt ServerError 400"),
            (Action::Refresh, On, &early, "in doubt ServerError 400"),
            (Action::Exchange, On, &early, "refused Suspended 400"),
            (Action::Refresh, On, &frozen, "refused Suspended 400"),
            (Action::Refresh, On, &error("inactive_user", ""), "refused Suspended 400"),
            (Action::Refresh, On, &error("invalid_client_id", ""), "refused OwnFault 400"),
            (Action::Refresh, On, &error("rate_limit_exceeded", ""), "refused Retry 400"),
            (Action::Revoke, On, &error("invalid_token", ""), "refused Dead 400"),
            (Action::Revoke, On, &error("unsupported_token_type", ""), "refused OwnFault 400"),
        ];
        for (what, rotation, body, expected) in cases {
            let outcome = asked(what, Profile::salesforce(), rotation, reply(400, body));
            assert_eq!(told(&outcome), expected, "{what:?} {body}");
        }
        for body in [&dead, &busy, &error("invalid_token", "")] {
            for what in [Action::Exchange, Action::Refresh, Action::Revoke] {
                let outcome = asked(what, Profile::rfc6749(), Off, reply(400, body));
                assert_eq!(told(&outcome), "refused Suspended 400", "{what:?} {body}");
            }
        }
    }

    #[test]
    fn a_revocation_is_done_by_its_status() {
        let cases = [
            (reply(200, ""), "revoked"),
            (ended(BodyEnd::Lost, reply(200, "{")), "revoked"),
            (reply(204, ""), "revoked"),
            (reply(200, &error("invalid_token", "")), "refused Suspended 200"),
            (reply(400, ""), "refused Suspended 400"),
            (reply(401, &error("invalid_client", "")), "refused OwnFault 401"),
            (reply(500, ""), "in doubt ServerError 500"),
            (later(reply(503, "")), "refused Retry 503"),
            (reply(302, ""), "in doubt ServerError 302"),
        ];
        for (reply, expected) in cases {
            let outcome = asked(Action::Revoke, Profile::rfc6749(), Rotation::Unknown, reply);
            assert_eq!(told(&outcome), expected);
        }
    }

    #[test]
    fn an_introspection_is_answered_or_not() {
        let cases = [
            (reply(200, r#"{"active":false}"#), "answered"),
            (ended(BodyEnd::Lost, reply(200, r#"{"active":"#)), "in doubt ConnectionLost 200"),
            (reply(200, "{}"), "in doubt Unreadable 200"),
            (reply(401, &error("invalid_client", "")), "refused OwnFault 401"),
            (reply(500, ""), "in doubt ServerError 500"),
        ];
        for (reply, expected) in cases {
            let outcome = asked(Action::Introspect, Profile::rfc6749(), Rotation::Unknown, reply);
            assert_eq!(told(&outcome), expected);
        }
    }

    #[test]
    fn a_refusal_tells_all_but_the_secrets() {
        let sent = Secret::new("5Aep861rEpScxnNE66jGO6gqeJ82V9qXOs5YIxlkVZgWYMSJf".to_owned());
        let body = error("invalid_grant", &format!("no such token:\n{}", sent.reveal()));
        let profile = Profile::rfc6749();
        let question = Question {
            asked: Action::Refresh,
            profile: &profile,
            rotation: Rotation::On,
            sent: &[&sent],
        };
        let Outcome::Refused(refusal) = question.issuance(later(reply(400, &body))) else {
            panic!("refused")
        };
        assert_eq!(refusal.error(), "invalid_grant");
        assert_eq!(refusal.description(), "no such token: [redacted]");
        assert_eq!(refusal.request_id(), Some("req-1"));
        assert_eq!(refusal.retry_after_s(), 30);
        let echo = Some(format!("req-{}", sent.reveal()));
        let echoing = Reply { request_id: echo, ..reply(400, &error("invalid_grant", "")) };
        let Outcome::Refused(refusal) = question.issuance(echoing) else { panic!("refused") };
        assert_eq!(refusal.request_id(), None);
        let moved = Reply { redirect_host: Some("eu.example".to_owned()), ..reply(308, "") };
        let Outcome::Refused(refusal) = question.issuance(moved) else { panic!("refused") };
        assert!(refusal.description().contains("eu.example"));
    }

    proptest! {
        #[test]
        fn no_status_loses_a_token(status in 100_u16..1000, late in any::<bool>()) {
            for what in [Action::Exchange, Action::Refresh] {
                let reply = reply(status, PAIR);
                let reply = if late { later(reply) } else { reply };
                match asked(what, Profile::salesforce(), Rotation::Off, reply) {
                    Outcome::Issued(_) => prop_assert!((200..300).contains(&status)),
                    Outcome::InDoubt(doubt) => {
                        prop_assert_eq!(doubt.body(), PAIR.as_bytes());
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }
}
