//! Where a user approves, and where a bearer asks who they are.

use super::form::{authorization, percent_encoded};
use super::{code, page};
use crate::sandbox::model::{Consent, Identity};
use crate::sandbox::shape;
use crate::sandbox::shared::{CODE, Shared};
use axum::Json;
use axum::extract::{Query, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::sync::Arc;

/// The query of an authorization request. A real user would sign in; here `login_hint` does, unless
/// somebody else is signed in.
#[derive(Deserialize)]
pub(super) struct Authorize {
    client_id: String,
    redirect_uri: String,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    state: String,
    code_challenge: Option<String>,
    nonce: Option<String>,
    #[serde(default = "somebody")]
    login_hint: String,
}

fn somebody() -> String {
    "somebody".to_owned()
}

pub(super) async fn authorize(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<Authorize>,
) -> Response {
    let Ok(drawn) = shared.draw(CODE) else { return page(500) };
    let now_ms = shared.now_ms();
    let signed_in = crate::sync::lock(&shared.signed_in).clone();
    let mut model = shared.model();
    if query.client_id != model.rules().client.id {
        return page(400);
    }
    let user = signed_in.unwrap_or(query.login_hint);
    let identity_url = model.identity_of(&user);
    let separator = if query.redirect_uri.contains('?') { '&' } else { '?' };
    let state = percent_encoded(&query.state);
    let mut location = format!("{}{separator}code={drawn}&state={state}", query.redirect_uri);
    let dialect = &model.rules().dialect;
    if dialect.names_issuer {
        location.push_str(&format!("&iss={}", percent_encoded(model.base_url())));
    }
    if let Identity::Callback { parameter } = &dialect.identity {
        let subject = percent_encoded(shape::subject(model.rules(), &identity_url));
        location.push_str(&format!("&{}={subject}", percent_encoded(parameter)));
    }
    let consent = Consent {
        user,
        scope: query.scope,
        redirect_uri: Some(query.redirect_uri),
        challenge: query.code_challenge,
        nonce: query.nonce,
    };
    model.add_code(drawn, consent, now_ms);
    (StatusCode::FOUND, [(LOCATION, location)]).into_response()
}

/// Answers who a bearer is, as a resource would that an integration works with.
pub(super) async fn userinfo(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let token = authorization(&headers, "Bearer").unwrap_or_default();
    let now_ms = shared.now_ms();
    let mut model = shared.model();
    match model.use_access(token, now_ms) {
        Some(about) => Json(shape::userinfo(&about, model.rules())).into_response(),
        None => (code(401), "Bad_OAuth_Token").into_response(),
    }
}
