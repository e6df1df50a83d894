//! The sandbox's HTTP: Salesforce's paths over the model, and the faults between them.
//!
//! A request is carried out in a task of its own, as a real server would: a caller who leaves
//! stops nothing.

use super::answer::{Consent, NO_GRANT, NO_RANDOMNESS, NewTokens, No};
use super::fault::{Fault, Faults};
use super::model::{self, Model, Refreshing};
use super::shape;
use super::wire::{Line, WireListener};
use crate::clock::{Clock, Entropy};
use axum::extract::{ConnectInfo, Form, Query, State};
use axum::http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::time::sleep;

/// What all requests share.
pub(super) struct Shared {
    pub(super) model: Mutex<Model>,
    pub(super) faults: Mutex<Faults>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
}

impl Shared {
    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        crate::sync::lock(&self.model)
    }

    /// Draws a token.
    pub(super) fn draw(&self, prefix: &str) -> io::Result<String> {
        let mut bytes = [0; 48];
        self.entropy.fill(&mut bytes)?;
        Ok(format!("{prefix}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    fn new_tokens(&self) -> io::Result<NewTokens> {
        Ok(NewTokens { access: self.draw(model::ACCESS)?, refresh: self.draw(model::REFRESH)? })
    }
}

/// What a request asks for.
#[derive(Clone, Copy)]
enum Ask {
    Token,
    Revoke,
    Introspect,
}

type Fields = HashMap<String, String>;

/// Serves until it is dropped.
pub(super) async fn serve(listener: WireListener, shared: Arc<Shared>) {
    let asked = |ask| {
        post(
            move |State(shared): State<Arc<Shared>>,
                  ConnectInfo(line): ConnectInfo<Line>,
                  headers: HeaderMap,
                  Form(fields): Form<Fields>| async move {
                let work = tokio::spawn(answer(shared, line, ask, headers, fields));
                work.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
            },
        )
    };
    let routes = Router::new()
        .route("/services/oauth2/token", asked(Ask::Token))
        .route("/services/oauth2/revoke", asked(Ask::Revoke))
        .route("/services/oauth2/introspect", asked(Ask::Introspect))
        .route("/services/oauth2/authorize", get(authorize))
        .route("/services/oauth2/userinfo", get(userinfo))
        .route("/state", get(state))
        .with_state(shared);
    // It never ends by itself and has no error to give.
    let _ = axum::serve(listener, routes.into_make_service_with_connect_info::<Line>()).await;
}

/// Meets the next fault on the way to an answer and back.
async fn answer(
    shared: Arc<Shared>,
    line: Line,
    ask: Ask,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    let fault = crate::sync::lock(&shared.faults).next();
    if fault.is_some() {
        shared.model().counters().faults += 1;
    }
    match fault {
        Some(Fault::DropBeforeCommit) => return cut(&line),
        Some(Fault::StatusBeforeCommit(status)) => return page(status),
        Some(Fault::TooManyRequests { retry_after_s }) => return later(429, retry_after_s),
        Some(Fault::Unavailable { retry_after_s }) => return later(503, retry_after_s),
        _ => {}
    }
    let begun = begin(&shared, ask, &headers, &fields);
    if let Some(Fault::DelayBeforeCommit(delay)) = fault {
        sleep(delay).await;
    }
    let answer = match begun.and_then(|begun| commit(&shared, begun, &fields)) {
        Ok(body) => body.into_response(),
        Err(no) => {
            shared.model().counters().refused += 1;
            let status = match no.error {
                "invalid_client" | "invalid_client_id" if is_basic(&headers) => 401,
                _ => 400,
            };
            (code(status), Json(shape::no(&no))).into_response()
        }
    };
    match fault {
        Some(Fault::DropAfterCommit) => cut(&line),
        Some(Fault::StatusAfterCommit(status)) => page(status),
        Some(Fault::DelayAfterCommit(delay)) => {
            sleep(delay).await;
            answer
        }
        Some(Fault::TruncateBody(bytes)) => {
            line.cut_body_after(bytes);
            answer
        }
        _ => answer,
    }
}

/// What was let in.
enum Begun {
    Exchange,
    Refresh(Refreshing),
    Revoke,
    Introspect,
}

fn begin(shared: &Shared, ask: Ask, headers: &HeaderMap, fields: &Fields) -> Result<Begun, No> {
    let (id, secret) = credentials(headers, fields);
    let mut model = shared.model();
    // Whoever has a token may revoke it.
    if !matches!(ask, Ask::Revoke) {
        model.authenticate(&id, &secret)?;
    }
    match (ask, field(fields, "grant_type")) {
        (Ask::Revoke, _) => Ok(Begun::Revoke),
        (Ask::Introspect, _) => Ok(Begun::Introspect),
        (Ask::Token, Some("authorization_code")) => Ok(Begun::Exchange),
        (Ask::Token, Some("refresh_token")) => {
            let token = field(fields, "refresh_token").unwrap_or_default();
            model.begin_refresh(token).map(Begun::Refresh)
        }
        (Ask::Token, _) => Err(NO_GRANT),
    }
}

fn commit(shared: &Shared, begun: Begun, fields: &Fields) -> Result<Response, No> {
    let now_ms = shared.clock.now_ms();
    let new = shared.new_tokens().map_err(|_| NO_RANDOMNESS)?;
    let mut model = shared.model();
    let token = field(fields, "token").unwrap_or_default();
    let pair = match begun {
        Begun::Exchange => model.exchange(
            field(fields, "code").unwrap_or_default(),
            field(fields, "redirect_uri"),
            field(fields, "code_verifier"),
            new,
            now_ms,
        )?,
        Begun::Refresh(refreshing) => model.finish_refresh(refreshing, new, now_ms)?,
        Begun::Revoke => {
            model.revoke(token, now_ms)?;
            return Ok(StatusCode::OK.into_response());
        }
        Begun::Introspect => {
            model.counters().introspections += 1;
            let about = model.about(token, now_ms);
            return Ok(Json(shape::about(about.as_ref(), model.client_id())).into_response());
        }
    };
    Ok(Json(shape::pair(&pair, model.base_url(), model.client_secret())).into_response())
}

/// The query of an authorization request. A real user would sign in; here `login_hint` does.
#[derive(Deserialize)]
struct Authorize {
    client_id: String,
    redirect_uri: String,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    state: String,
    code_challenge: Option<String>,
    #[serde(default = "somebody")]
    login_hint: String,
}

fn somebody() -> String {
    "somebody".to_owned()
}

async fn authorize(State(shared): State<Arc<Shared>>, Query(query): Query<Authorize>) -> Response {
    let Ok(code) = shared.draw(model::CODE) else { return page(500) };
    let now_ms = shared.clock.now_ms();
    let mut model = shared.model();
    if query.client_id != model.client_id() {
        return page(400);
    }
    let separator = if query.redirect_uri.contains('?') { '&' } else { '?' };
    let state = percent_encoded(&query.state);
    let location = format!("{}{separator}code={code}&state={state}", query.redirect_uri);
    let consent = Consent {
        user: query.login_hint,
        scope: query.scope,
        redirect_uri: Some(query.redirect_uri),
        challenge: query.code_challenge,
    };
    model.add_code(code, consent, now_ms);
    (StatusCode::FOUND, [(LOCATION, location)]).into_response()
}

/// Answers who a bearer is, as a resource would that an integration works with.
async fn userinfo(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let token = authorization(&headers, "Bearer").unwrap_or_default();
    let now_ms = shared.clock.now_ms();
    match shared.model().about(token, now_ms).filter(|about| about.kind == "access_token") {
        Some(about) => {
            let body = serde_json::json!({
                "sub": about.identity_url,
                "preferred_username": about.user,
            });
            Json(body).into_response()
        }
        None => (code(401), "Bad_OAuth_Token").into_response(),
    }
}

async fn state(State(shared): State<Arc<Shared>>) -> Response {
    let now_ms = shared.clock.now_ms();
    Json(shared.model().state(now_ms)).into_response()
}

fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.get(name).map(String::as_str)
}

fn is_basic(headers: &HeaderMap) -> bool {
    authorization(headers, "Basic").is_some()
}

fn authorization<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let (named, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    named.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// Returns the client's id and secret, from the header or from the form.
fn credentials(headers: &HeaderMap, fields: &Fields) -> (String, String) {
    let decoded = authorization(headers, "Basic")
        .and_then(|encoded| BASE64_STANDARD.decode(encoded).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some((id, secret)) = decoded.as_deref().and_then(|pair| pair.split_once(':')) {
        return (form_decoded(id), form_decoded(secret));
    }
    let text = |name| field(fields, name).unwrap_or_default().to_owned();
    (text("client_id"), text("client_secret"))
}

fn form_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let digits = std::str::from_utf8(&digits).unwrap_or("3f");
                u8::from_str_radix(digits, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn page(status: u16) -> Response {
    (code(status), Html("<html><body>The server is busy.</body></html>")).into_response()
}

fn later(status: u16, retry_after_s: u32) -> Response {
    (code(status), [(RETRY_AFTER, retry_after_s.to_string())]).into_response()
}

/// Returns an answer that never gets out.
fn cut(line: &Line) -> Response {
    line.cut();
    StatusCode::OK.into_response()
}
