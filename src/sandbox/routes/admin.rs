//! What a sandbox lets whoever started it do over HTTP: faults, the clock, who signs in. No provider
//! has this, so it stands on paths of its own. Bodies are JSON, whatever their type is said to be.

use super::{Routes, code};
use crate::sandbox::fault::Injection;
use crate::sandbox::shared::Shared;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::sync::Arc;

/// The paths, which are no provider's.
pub(super) const PATHS: [&str; 6] =
    ["/state", "/faults", "/clock", "/sign-in", "/web-sessions", "/end"];

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/state", get(state))
        .route("/faults", get(faults).post(inject).delete(clear))
        .route("/clock", get(clock).post(advance))
        .route("/sign-in", post(sign_in))
        .route("/web-sessions", post(web_sessions))
        .route("/end", post(end))
}

async fn state(State(shared): State<Arc<Shared>>) -> Response {
    let now_ms = shared.now_ms();
    Json(shared.model().state(now_ms)).into_response()
}

async fn faults(State(shared): State<Arc<Shared>>) -> Response {
    Json(crate::sync::lock(&shared.faults).waiting()).into_response()
}

/// Adds one fault, or a list of them.
async fn inject(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let is_list = body.trim_start().starts_with('[');
    let read: Result<Vec<Injection>, _> =
        if is_list { read(&body) } else { read(&body).map(|one| vec![one]) };
    match read {
        Ok(injections) => {
            let mut faults = crate::sync::lock(&shared.faults);
            injections.into_iter().for_each(|injection| faults.add(injection));
            Json(faults.waiting()).into_response()
        }
        Err(refused) => *refused,
    }
}

async fn clear(State(shared): State<Arc<Shared>>) -> Response {
    crate::sync::lock(&shared.faults).clear();
    Json(json!([])).into_response()
}

async fn clock(State(shared): State<Arc<Shared>>) -> Response {
    Json(json!({ "now_ms": shared.now_ms() })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_s: u64,
}

async fn advance(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let by: Advance = match read(&body) {
        Ok(by) => by,
        Err(refused) => return *refused,
    };
    shared.advance(by.advance_s.saturating_mul(1000));
    clock(State(shared)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    user: Option<String>,
}

async fn sign_in(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let SignIn { user } = match read(&body) {
        Ok(signed_in) => signed_in,
        Err(refused) => return *refused,
    };
    let answer = json!({ "user": user });
    *crate::sync::lock(&shared.signed_in) = user;
    Json(answer).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebSessions {
    user: String,
    count: u32,
}

async fn web_sessions(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let WebSessions { user, count } = match read(&body) {
        Ok(sessions) => sessions,
        Err(refused) => return *refused,
    };
    let now_ms = shared.now_ms();
    shared.model().set_web_sessions(&user, count, now_ms);
    state(State(shared)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    approval: usize,
}

/// Ends an approval, as its user or an administrator would at the provider.
async fn end(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let End { approval } = match read(&body) {
        Ok(end) => end,
        Err(refused) => return *refused,
    };
    let now_ms = shared.now_ms();
    shared.model().end_outside(approval, now_ms);
    state(State(shared)).await
}

fn read<T: DeserializeOwned>(body: &str) -> Result<T, Box<Response>> {
    serde_json::from_str(body).map_err(|error| {
        let why = json!({ "error": "invalid_request", "error_description": error.to_string() });
        Box::new((code(400), Json(why)).into_response())
    })
}
