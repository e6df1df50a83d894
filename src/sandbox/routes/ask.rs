//! Requests for tokens, revocations and introspections: let in, then carried out.

use super::form::{Fields, claims, credentials, field};
use crate::sandbox::model::{Refreshing, Refused};
use crate::sandbox::shape;
use crate::sandbox::shared::Shared;
use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

/// RFC 7523, section 2.1.
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// What a request asks for.
#[derive(Clone, Copy)]
pub(super) enum Ask {
    Token,
    Revoke,
    Introspect,
}

/// What was let in.
pub(super) enum Begun {
    Exchange,
    Refresh(Refreshing),
    /// For this user; for the app itself where it is empty.
    Mint(String),
    Revoke,
    Introspect,
}

pub(super) fn begin(
    shared: &Shared,
    ask: Ask,
    headers: &HeaderMap,
    fields: &Fields,
) -> Result<Begun, Refused> {
    let now_ms = shared.now_ms();
    let mut model = shared.model();
    let grant_type = field(fields, "grant_type");
    if matches!(ask, Ask::Token) && grant_type == Some(JWT_BEARER) {
        return assertion(&model, fields);
    }
    // At some providers whoever has a token may revoke it.
    if !matches!(ask, Ask::Revoke) || model.rules().revoke_needs_client {
        authenticate(&model, headers, fields)?;
    }
    match (ask, grant_type) {
        (Ask::Revoke, _) => Ok(Begun::Revoke),
        (Ask::Introspect, _) => Ok(Begun::Introspect),
        (Ask::Token, Some("authorization_code")) => Ok(Begun::Exchange),
        (Ask::Token, Some("refresh_token")) => {
            let token = field(fields, "refresh_token").unwrap_or_default();
            model.begin_refresh(token, field(fields, "scope"), now_ms).map(Begun::Refresh)
        }
        (Ask::Token, Some("client_credentials")) => Ok(Begun::Mint(String::new())),
        (Ask::Token, _) => Err(Refused::GrantType),
    }
}

pub(super) fn commit(
    shared: &Shared,
    begun: Begun,
    fields: &Fields,
    omits_refresh: bool,
) -> Result<Response, Refused> {
    let now_ms = shared.now_ms();
    let mut new = shared.new_tokens().map_err(|_| Refused::NoRandomness)?;
    if omits_refresh {
        new.refresh = None;
    }
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
        Begun::Mint(user) => {
            model.mint(&user, field(fields, "scope").unwrap_or_default(), new.access, now_ms)
        }
        Begun::Revoke => {
            model.revoke(token, now_ms)?;
            return Ok(StatusCode::OK.into_response());
        }
        Begun::Introspect => {
            let about = model.introspect(token, now_ms)?;
            return Ok(Json(shape::about(about.as_ref(), model.rules())).into_response());
        }
    };
    Ok(Json(shape::pair(&pair, model.rules(), model.base_url())).into_response())
}

/// Checks who the app is: by its secret, or by an assertion (RFC 7523, section 2.2) that need only
/// name it, for the sandbox knows no key to check it by.
fn authenticate(
    model: &crate::sandbox::model::Model,
    headers: &HeaderMap,
    fields: &Fields,
) -> Result<(), Refused> {
    if let Some(assertion) = field(fields, "client_assertion") {
        let named =
            claims(assertion).and_then(|claims| Some(claims.get("sub")?.as_str()?.to_owned()));
        return model.authenticate(&named.unwrap_or_default(), &model.rules().client.secret);
    }
    let (id, secret) = credentials(headers, fields);
    model.authenticate(&id, &secret)
}

/// Lets a mint in that an assertion asks for (RFC 7523, section 2.1): it names the app as its
/// issuer and the user as its subject. Its signature is not checked.
fn assertion(model: &crate::sandbox::model::Model, fields: &Fields) -> Result<Begun, Refused> {
    let claims = claims(field(fields, "assertion").unwrap_or_default()).ok_or(Refused::Code)?;
    let claim = |name: &str| claims.get(name).and_then(|claim| claim.as_str()).unwrap_or_default();
    model.authenticate(claim("iss"), &model.rules().client.secret)?;
    Ok(Begun::Mint(claim("sub").to_owned()))
}
