//! The sandbox's HTTP: the provider's paths over the model, and the faults between them.
//!
//! A request is carried out in a task of its own, as a real server would: a caller who leaves
//! stops nothing.

mod admin;
mod ask;
mod authorize;
mod form;
mod listing;

use super::fault::{Fault, FaultError, On};
use super::model::{Paths, Wording};
use super::shared::Shared;
use super::wire::{Line, WireListener};
use super::{shape, words};
use ask::Ask;
use axum::extract::{ConnectInfo, Form, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use form::{Fields, field, is_basic};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::time::sleep;

/// Serves until it is dropped.
pub(super) async fn serve(listener: WireListener, shared: Arc<Shared>) {
    let own = shared.model().rules().dialect.paths.clone();
    let mut taken: HashSet<String> = HashSet::new();
    let mut routes = admin::routes();
    taken.extend(admin::PATHS.iter().map(|path| (*path).to_owned()));
    for paths in [own, Paths::plain()] {
        for (path, method) in provider_routes(paths) {
            if taken.insert(path.clone()) {
                routes = routes.route(&path, method);
            }
        }
    }
    let routes =
        routes.route("/services/data/{version}/query", get(listing::query)).with_state(shared);
    // It never ends by itself and has no error to give.
    let _ = axum::serve(listener, routes.into_make_service_with_connect_info::<Line>()).await;
}

type Routes = Router<Arc<Shared>>;

fn provider_routes(paths: Paths) -> [(String, MethodRouter<Arc<Shared>>); 5] {
    [
        (paths.token, asked(Ask::Token)),
        (paths.revoke, asked(Ask::Revoke)),
        (paths.introspect, asked(Ask::Introspect)),
        (paths.authorize, get(authorize::authorize)),
        (paths.userinfo, get(authorize::userinfo)),
    ]
}

fn asked(ask: Ask) -> MethodRouter<Arc<Shared>> {
    post(
        move |State(shared): State<Arc<Shared>>,
              ConnectInfo(line): ConnectInfo<Line>,
              headers: HeaderMap,
              Form(fields): Form<Fields>| async move {
            let work = tokio::spawn(answer(shared, line, ask, headers, fields));
            work.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
        },
    )
}

/// Meets the next fault on the way to an answer and back.
async fn answer(
    shared: Arc<Shared>,
    line: Line,
    ask: Ask,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    let on = kind(ask, &fields);
    let fault = crate::sync::lock(&shared.faults).next(on);
    if fault.is_some() {
        shared.model().counters_mut().faults += 1;
    }
    match fault {
        Some(Fault::DropBeforeCommit) => return cut(&line),
        Some(Fault::StatusBeforeCommit(status)) => return page(status),
        Some(Fault::TooManyRequests { retry_after_s }) => return later(429, retry_after_s),
        Some(Fault::Unavailable { retry_after_s }) => return later(503, retry_after_s),
        Some(Fault::Refuse { error, status }) => return refuse(&shared, error, status),
        Some(Fault::DelayBeforeArrival(delay)) => sleep(delay).await,
        _ => {}
    }
    let begun = ask::begin(&shared, ask, &headers, &fields);
    if let Some(Fault::DelayBeforeCommit(delay)) = fault {
        sleep(delay).await;
    }
    let omits = fault == Some(Fault::OmitRefreshToken);
    let answer = match begun.and_then(|begun| ask::commit(&shared, begun, &fields, omits)) {
        Ok(body) => body.into_response(),
        Err(refused) => {
            let mut model = shared.model();
            model.counters_mut().refused += 1;
            let mut wording = words::refusal(&model.rules().dialect, refused);
            // RFC 6749, section 5.2: so it is where the header was used.
            let is_client = wording.error.starts_with("invalid_client");
            if is_client && is_basic(&headers) && wording.status == 400 {
                wording.status = 401;
            }
            worded(&wording)
        }
    };
    match fault {
        Some(Fault::DropAfterCommit) => cut(&line),
        Some(Fault::StatusAfterCommit(status)) => page(status),
        Some(Fault::RefuseAfterCommit { error, status }) => refuse(&shared, error, status),
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

/// Says for which faults a request is the one that they wait for.
fn kind(ask: Ask, fields: &Fields) -> On {
    match (ask, field(fields, "grant_type")) {
        (Ask::Revoke, _) => On::Revoke,
        (Ask::Introspect, _) => On::Introspect,
        (Ask::Token, Some("authorization_code")) => On::Exchange,
        (Ask::Token, Some("refresh_token")) => On::Refresh,
        (Ask::Token, _) => On::Mint,
    }
}

fn refuse(shared: &Shared, error: FaultError, status: u16) -> Response {
    worded(&words::fault(&shared.model().rules().dialect, error, status))
}

fn worded(wording: &Wording) -> Response {
    (code(wording.status), Json(shape::refusal(wording))).into_response()
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
