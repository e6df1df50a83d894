//! The members of answers, as the provider's dialect has them.

use super::model::{About, Identity, Model, Pair, Refused, Rules, Shape, TokenKind, Wording};
use super::words;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

/// What a simulation needs that answers without HTTP.
impl Model {
    /// Writes a pair as the body of the provider's answer.
    pub fn body_of(&self, issued: &Pair) -> String {
        pair(issued, self.rules(), self.base_url()).to_string()
    }

    /// Writes a refusal as status and body of the provider's answer.
    pub fn body_of_refusal(&self, refused: Refused) -> (u16, String) {
        let wording = words::refusal(&self.rules().dialect, refused);
        (wording.status, refusal(&wording).to_string())
    }

    /// Writes what is known of a token as the body of the provider's answer.
    pub fn body_of_about(&self, known: Option<&About>) -> String {
        about(known, self.rules()).to_string()
    }
}

/// Writes a pair. Salesforce's has no `expires_in`, the time of issue as a text of milliseconds,
/// an identity URL, and a signature over both.
pub(super) fn pair(pair: &Pair, rules: &Rules, base_url: &str) -> Value {
    let mut members = Map::new();
    let mut add = |name: &str, value: Value| members.insert(name.to_owned(), value);
    add("access_token", json!(pair.access));
    if rules.dialect.shape == Shape::Salesforce {
        let issued_at = pair.issued_at_ms.to_string();
        add("signature", json!(signature(&pair.identity_url, &issued_at, &rules.client.secret)));
        add("instance_url", json!(base_url));
        add("id", json!(pair.identity_url));
        add("issued_at", json!(issued_at));
    }
    if !pair.scope.is_empty() {
        add("scope", json!(pair.scope));
    }
    add("token_type", json!("Bearer"));
    if let Some(expires_at_ms) = pair.expires_at_ms.filter(|_| rules.dialect.declares_expiry) {
        add("expires_in", json!(expires_at_ms.saturating_sub(pair.issued_at_ms) / 1000));
    }
    if let Some(refresh) = &pair.refresh {
        add("refresh_token", json!(refresh));
    }
    let asked = pair.scope.split(' ').any(|scope| scope == "openid");
    let names = matches!(rules.dialect.identity, Identity::IdToken { .. });
    if (asked || names) && !pair.user.is_empty() {
        add("id_token", json!(id_token(pair, rules, base_url)));
    }
    Value::Object(members)
}

/// Writes a refusal.
pub(super) fn refusal(wording: &Wording) -> Value {
    let mut body = json!({ "error": wording.error });
    if !wording.description.is_empty()
        && let Some(members) = body.as_object_mut()
    {
        members.insert("error_description".to_owned(), json!(wording.description));
    }
    body
}

/// Writes what is known of a token. The times are seconds here.
pub(super) fn about(about: Option<&About>, rules: &Rules) -> Value {
    let Some(about) = about else { return json!({ "active": false }) };
    let salesforce = rules.dialect.shape == Shape::Salesforce;
    let kind = match about.kind {
        TokenKind::Refresh => "refresh_token",
        // Others say how the token is used (RFC 6749, section 7.1).
        _ if salesforce => "access_token",
        _ => "Bearer",
    };
    let mut body = json!({
        "active": true,
        "scope": about.scope,
        "client_id": rules.client.id,
        "username": about.user,
        "sub": subject(rules, &about.identity_url),
        "token_type": kind,
        "iat": about.issued_at_ms / 1000,
        "nbf": about.issued_at_ms / 1000,
    });
    if let (Some(expires_at_ms), Some(members)) = (about.expires_at_ms, body.as_object_mut()) {
        members.insert("exp".to_owned(), json!(expires_at_ms / 1000));
    }
    body
}

/// Writes who a bearer is.
pub(super) fn userinfo(about: &About, rules: &Rules) -> Value {
    let subject = subject(rules, &about.identity_url);
    let plain = json!({ "sub": subject, "preferred_username": about.user });
    let Identity::LookUp { pointer } = &rules.dialect.identity else { return plain };
    match (plain, at_pointer(pointer, json!(subject))) {
        (Value::Object(mut plain), Value::Object(pointed)) => {
            plain.extend(pointed);
            Value::Object(plain)
        }
        (_, other) => other,
    }
}

/// Returns what a provider calls a user: Salesforce by a URL, others by the id at its end.
pub(super) fn subject<'a>(rules: &Rules, identity_url: &'a str) -> &'a str {
    match rules.dialect.identity {
        Identity::Url => identity_url,
        _ => identity_url.rsplit('/').next().unwrap_or(identity_url),
    }
}

/// Puts a value where a JSON pointer (RFC 6901) finds it, in the least that it takes.
fn at_pointer(pointer: &str, value: Value) -> Value {
    pointer.split('/').skip(1).collect::<Vec<_>>().into_iter().rev().fold(value, |value, name| {
        match name {
            "0" => json!([value]),
            name => json!({ name.replace("~1", "/").replace("~0", "~"): value }),
        }
    })
}

/// Makes an id_token (OpenID Connect Core, section 2), signed with the client's secret.
fn id_token(pair: &Pair, rules: &Rules, base_url: &str) -> String {
    let subject = subject(rules, &pair.identity_url);
    let issued_s = pair.issued_at_ms / 1000;
    let mut claims = json!({
        "iss": base_url,
        "sub": subject,
        "aud": rules.client.id,
        "iat": issued_s,
        "exp": issued_s.saturating_add(3600),
        "preferred_username": pair.user,
    });
    if let Some(members) = claims.as_object_mut() {
        if let Identity::IdToken { claim } = &rules.dialect.identity {
            members.insert(claim.clone(), json!(subject));
        }
        if let Some(nonce) = &pair.nonce {
            members.insert("nonce".to_owned(), json!(nonce));
        }
    }
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(&claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, rules.client.secret.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn signature(identity_url: &str, issued_at: &str, consumer_secret: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, consumer_secret.as_bytes());
    BASE64_STANDARD.encode(hmac::sign(&key, format!("{identity_url}{issued_at}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_finds_what_was_put_there() {
        for pointer in ["/id", "/0/tenantId", "/a~1b/~0/0/c"] {
            let value = at_pointer(pointer, json!("x"));
            assert_eq!(value.pointer(pointer), Some(&json!("x")), "{value}");
        }
        assert_eq!(at_pointer("", json!("x")), json!("x"));
    }
}
