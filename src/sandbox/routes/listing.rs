//! The provider's own list of approvals, as Salesforce answers a query of its object `OauthToken`.
//!
//! It understands what such a query needs and refuses the rest, so that nobody takes a condition
//! that was not looked at for one that was met.

use super::code;
use super::form::authorization;
use crate::sandbox::model::Listed;
use crate::sandbox::shared::Shared;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The most rows that one query gives.
const ROWS_MAX: usize = 500;
const FIELDS: [&str; 7] =
    ["Id", "AppName", "UserId", "UseCount", "LastUsedDate", "CreatedDate", "DeleteToken"];

#[derive(Deserialize)]
pub(super) struct Asked {
    q: String,
}

/// A query that is understood.
#[derive(Debug, PartialEq, Eq)]
struct Soql<'a> {
    /// As they are spelled here.
    fields: Vec<&'static str>,
    user_id: Option<&'a str>,
    limit: usize,
}

pub(super) async fn query(
    State(shared): State<Arc<Shared>>,
    Path(version): Path<String>,
    headers: HeaderMap,
    Query(Asked { q }): Query<Asked>,
) -> Response {
    let token = authorization(&headers, "Bearer").unwrap_or_default();
    let now_ms = shared.now_ms();
    let mut model = shared.model();
    let Some(about) = model.use_access(token, now_ms) else {
        return error(401, "INVALID_SESSION_ID", "Session expired or invalid");
    };
    let version_fits = version.strip_prefix('v').is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    });
    if !model.rules().lists_approvals || !version_fits {
        return error(404, "NOT_FOUND", "The requested resource does not exist");
    }
    let soql = match parse(&q) {
        Ok(soql) => soql,
        Err(why) => return error(400, "MALFORMED_QUERY", why),
    };
    // Without a condition it is the bearer's own.
    let user = match soql.user_id {
        Some(id) => model.user_by_id(id).map(str::to_owned),
        None => Some(about.user),
    };
    let mut listed = user.map(|user| model.approvals(&user, now_ms)).unwrap_or_default();
    listed.truncate(soql.limit);
    let app = model.rules().client.id.clone();
    let records: Vec<Value> =
        listed.iter().map(|listed| record(listed, &app, &version, &soql.fields)).collect();
    let answer = json!({ "totalSize": records.len(), "done": true, "records": records });
    Json(answer).into_response()
}

fn record(listed: &Listed, app: &str, version: &str, fields: &[&str]) -> Value {
    let url = format!("/services/data/{version}/sobjects/OauthToken/000000000000000AAA");
    let mut record = Map::new();
    record.insert("attributes".to_owned(), json!({ "type": "OauthToken", "url": url }));
    for field in fields {
        let value = match *field {
            // So it is there: nothing but its delete token tells a row from another.
            "Id" => Value::Null,
            "AppName" => json!(app),
            "UserId" => json!(listed.user_id),
            "UseCount" => json!(listed.use_count),
            "LastUsedDate" => json!(date(listed.last_used_at_ms)),
            "CreatedDate" => json!(date(listed.created_at_ms)),
            _ => json!(listed.delete_token),
        };
        record.insert((*field).to_owned(), value);
    }
    Value::Object(record)
}

/// Reads `SELECT fields FROM OauthToken [WHERE UserId = 'id'] [LIMIT n]`, whatever its case.
fn parse(query: &str) -> Result<Soql<'_>, &'static str> {
    let mut words = query.split_whitespace();
    let is = |word: Option<&str>, expected: &str| {
        word.is_some_and(|word| word.eq_ignore_ascii_case(expected))
    };
    if !is(words.next(), "select") {
        return Err("a query begins with SELECT");
    }
    let asked: Vec<&str> =
        words.by_ref().take_while(|word| !word.eq_ignore_ascii_case("from")).collect();
    let spelled =
        |name: &str| FIELDS.into_iter().find(|field| field.eq_ignore_ascii_case(name.trim()));
    let asked = asked.join(" ");
    let fields: Option<Vec<&str>> = asked.split(',').map(spelled).collect();
    let fields = fields.ok_or("no such column on entity 'OauthToken'")?;
    if !is(words.next(), "OauthToken") {
        return Err("sObject type is not supported");
    }
    let mut soql = Soql { fields, user_id: None, limit: ROWS_MAX };
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case("limit") {
            let limit: Option<usize> = words.next().and_then(|number| number.parse().ok());
            soql.limit = limit.ok_or("LIMIT takes a number")?.min(ROWS_MAX);
        } else if word.eq_ignore_ascii_case("where") && soql.user_id.is_none() {
            soql.user_id = Some(condition(&mut words).ok_or("only UserId = '...' is understood")?);
        } else {
            return Err("unexpected token");
        }
    }
    Ok(soql)
}

/// Reads `UserId = 'id'`, with spaces around the sign or without.
fn condition<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut parts = [""; 3];
    let mut filled = 0;
    while filled < parts.len() {
        for part in words.next()?.split_inclusive('=') {
            let (name, sign) = match part.strip_suffix('=') {
                Some(name) => (name, "="),
                None => (part, ""),
            };
            for piece in [name, sign].into_iter().filter(|piece| !piece.is_empty()) {
                *parts.get_mut(filled)? = piece;
                filled += 1;
            }
        }
    }
    let [name, sign, value] = parts;
    let id = value.strip_prefix('\'')?.strip_suffix('\'')?;
    (name.eq_ignore_ascii_case("UserId") && sign == "=").then_some(id)
}

/// Writes a time as Salesforce does, such as `2025-10-09T08:53:20.000+0000`.
fn date(ms: u64) -> String {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let (days, rest) = (ms / DAY_MS, ms % DAY_MS);
    // Years that begin in March have their leap day last; 146,097 days are 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
    let (second, milli) = (rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}+0000")
}

fn error(status: u16, error_code: &str, message: &str) -> Response {
    (code(status), Json(json!([{ "errorCode": error_code, "message": message }]))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_salesforce_does() {
        assert_eq!(date(0), "1970-01-01T00:00:00.000+0000");
        assert_eq!(date(951_782_399_999), "2000-02-28T23:59:59.999+0000");
        assert_eq!(date(951_868_799_000), "2000-02-29T23:59:59.000+0000");
        assert_eq!(date(1_760_000_000_123), "2025-10-09T08:53:20.123+0000");
        assert_eq!(date(4_107_542_400_000), "2100-03-01T00:00:00.000+0000");
    }

    #[test]
    fn a_query_is_understood_whole_or_not_at_all() {
        let all = "select Id, appname,UserId from OauthToken";
        let fields = vec!["Id", "AppName", "UserId"];
        let soql = |user_id, limit| Soql { fields: fields.clone(), user_id, limit };
        assert_eq!(parse(all), Ok(soql(None, 500)));
        for condition in ["UserId='005A'", "userid = '005A'", "UserId= '005A'", "UserId ='005A'"] {
            let query = format!("{all} WHERE {condition} LIMIT 7");
            assert_eq!(parse(&query), Ok(soql(Some("005A"), 7)), "{query}");
        }
        for wrong in [
            "",
            "delete from OauthToken",
            "select Id from User",
            "select Secret from OauthToken",
            "select from OauthToken",
            "select Id from OauthToken where AppName = 'x'",
            "select Id from OauthToken where UserId = '005A' or UserId = '005B'",
            "select Id from OauthToken where UserId > '005A'",
            "select Id from OauthToken where UserId ",
            "select Id from OauthToken limit many",
            "select Id from OauthToken order by Id",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
