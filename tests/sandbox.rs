//! The sandbox over HTTP, made by hand: what each provider's answers look like, every fault that a
//! request can meet, and what only the one who started it can do.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may"
)]
#![cfg(feature = "sandbox")]

use serde_json::{Value, json};
use std::time::Duration;
use tokenwal::profile::Profile;
use tokenwal::sandbox::{
    ApprovalState, Fault, FaultError, Injection, On, Recovery, Sandbox, SandboxConfig,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CLIENT: &str = "client_id=sandbox-consumer-key&client_secret=sandbox-consumer-secret";

/// An answer; status 0 where none came, and as much of the body as came.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

async fn http(method: &str, url: &str, headers: &str, body: &str) -> Answer {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!(
        "{method} /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is cut gives what came before.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

async fn post(url: &str, form: &str) -> Answer {
    http("POST", url, "", form).await
}

async fn get(url: &str, bearer: &str) -> Answer {
    http("GET", url, &format!("authorization: Bearer {bearer}\r\n"), "").await
}

async fn playing(name: &str) -> Sandbox {
    let profile = Profile::builtin(name).unwrap();
    Sandbox::start(SandboxConfig::new().profile(&profile)).await.unwrap()
}

async fn exchange(sandbox: &Sandbox, user: &str) -> Answer {
    let code = sandbox.code_for(user).unwrap();
    let form = format!("grant_type=authorization_code&code={}&{CLIENT}", code.reveal());
    post(&sandbox.endpoints().token, &form).await
}

async fn refresh(sandbox: &Sandbox, token: &Value) -> Answer {
    let token = token.as_str().unwrap();
    let form = format!("grant_type=refresh_token&refresh_token={token}&{CLIENT}");
    post(&sandbox.endpoints().token, &form).await
}

fn text<'a>(body: &'a Value, name: &str) -> &'a str {
    body[name].as_str().unwrap_or_else(|| panic!("{name} in {body}"))
}

#[tokio::test]
async fn every_profile_is_played_end_to_end() {
    for name in Profile::names() {
        let sandbox = playing(name).await;
        let pair = exchange(&sandbox, "alice").await;
        assert_eq!(pair.status, 200, "{name}: {pair:?}");
        let pair = pair.json();
        let access = text(&pair, "access_token");
        assert!(sandbox.is_alive(access), "{name}");
        let who = get(&sandbox.endpoints().userinfo, access).await;
        assert_eq!(who.status, 200, "{name}");
        let user = sandbox.user("alice").unwrap();
        if let Some(refresh_token) = pair.get("refresh_token") {
            let next = refresh(&sandbox, refresh_token).await;
            assert_eq!(next.status, 200, "{name}: {next:?}");
            let rotates = sandbox.state().rotation;
            let spent = !sandbox.is_alive(refresh_token.as_str().unwrap());
            assert_eq!(rotates, spent, "{name}");
        } else {
            assert_eq!(name, "github", "{pair}");
            assert_eq!(who.json()["id"], user.as_str());
        }
        let form = format!("token={access}&{CLIENT}");
        assert_eq!(post(&sandbox.endpoints().revoke, &form).await.status, 200, "{name}");
        assert!(!sandbox.is_alive(access), "{name}");
        // The plain paths are there whatever the provider's own are.
        let plain = post(&format!("{}/token", sandbox.url()), CLIENT).await;
        assert_eq!(plain.error(), "unsupported_grant_type", "{name}");
    }
}

#[tokio::test]
async fn an_id_token_names_the_user_and_the_nonce() {
    use base64_of_the_test::decoded;
    let sandbox = playing("google").await;
    let click = format!(
        "{}?client_id=sandbox-consumer-key&redirect_uri=http://127.0.0.1:9/cb&nonce=n-1\
         &scope=openid&login_hint=alice",
        sandbox.endpoints().authorize
    );
    let head = get(&click, "").await.head;
    let code = head.split("code=").nth(1).unwrap().split('&').next().unwrap();
    let form = format!(
        "grant_type=authorization_code&code={code}&redirect_uri=http://127.0.0.1:9/cb&{CLIENT}"
    );
    let pair = post(&sandbox.endpoints().token, &form).await.json();
    let claims = text(&pair, "id_token").split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&decoded(claims)).unwrap();
    assert_eq!(text(&claims, "sub"), sandbox.user("alice").unwrap().as_str());
    assert_eq!((&claims["nonce"], &claims["iss"]), (&json!("n-1"), &json!(sandbox.url())));
}

/// Base64 without padding (RFC 4648, section 5), which this test reads by hand.
mod base64_of_the_test {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    pub(crate) fn decoded(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (mut bits, mut held) = (0_u32, 0);
        for letter in text.bytes() {
            let six = LETTERS.iter().position(|known| *known == letter).unwrap();
            bits = bits << 6 | u32::try_from(six).unwrap();
            held += 6;
            if held >= 8 {
                held -= 8;
                bytes.push(u8::try_from(bits >> held & 0xff).unwrap());
            }
        }
        bytes
    }
}

#[tokio::test]
async fn github_refuses_under_status_200_and_in_its_words() {
    let sandbox = playing("github").await;
    let form = format!("grant_type=authorization_code&code=never&{CLIENT}");
    let refused = post(&sandbox.endpoints().token, &form).await;
    assert_eq!((refused.status, refused.error().as_str()), (200, "bad_verification_code"));
}

#[tokio::test]
async fn a_replay_of_xeros_works_by_the_sandboxs_own_clock() {
    let sandbox = playing("xero").await;
    let first = exchange(&sandbox, "alice").await.json();
    let old = &first["refresh_token"];
    assert_eq!(refresh(&sandbox, old).await.status, 200);
    sandbox.advance(Duration::from_secs(29 * 60));
    assert_eq!(refresh(&sandbox, old).await.status, 200);
    assert_eq!(sandbox.state().counters.replays, 1);
    let clock = post(&format!("{}/clock", sandbox.url()), r#"{"advance_s": 120}"#).await;
    assert_eq!(clock.status, 200);
    assert!(clock.json()["now_ms"].as_u64().unwrap() <= sandbox.now_ms());
    assert_eq!(refresh(&sandbox, old).await.error(), "invalid_grant");
    assert_eq!(sandbox.state().counters.reuses, 1);
}

#[tokio::test]
async fn faults_wait_for_the_request_that_they_name() {
    let sandbox = Sandbox::start(SandboxConfig::new().rotation(true)).await.unwrap();
    let pair = exchange(&sandbox, "alice").await.json();
    sandbox.inject(Injection::new(Fault::DropAfterCommit, On::Refresh).nth(2));
    sandbox.inject(Injection::new(Fault::TooManyRequests { retry_after_s: 7 }, On::Revoke));
    assert_eq!(exchange(&sandbox, "alice").await.status, 200);
    let next = refresh(&sandbox, &pair["refresh_token"]).await.json();
    let lost = refresh(&sandbox, &next["refresh_token"]).await;
    assert_eq!((lost.status, lost.body.as_str()), (0, ""));
    assert_eq!(sandbox.state().counters.refreshes, 2, "it was carried out");
    let token = text(&pair, "access_token");
    let late = post(&sandbox.endpoints().revoke, &format!("token={token}")).await;
    assert_eq!(late.status, 429);
    assert!(late.head.contains("retry-after: 7"), "{late:?}");
    assert_eq!(sandbox.state().counters.revocations, 0);
    assert_eq!(sandbox.state().counters.faults, 2);
}

#[tokio::test]
async fn errors_come_under_any_status_before_or_after_the_deed() {
    let sandbox = Sandbox::start(SandboxConfig::new()).await.unwrap();
    let pair = exchange(&sandbox, "alice").await.json();
    let token = &pair["refresh_token"];
    let error = FaultError::ServerError;
    let dead = FaultError::Dead;
    for (fault, status, error, carried_out) in [
        (Fault::Refuse { error, status: 200 }, 200, "server_error", 0),
        (Fault::RefuseAfterCommit { error, status: 200 }, 200, "server_error", 1),
        (Fault::Refuse { error: dead, status: 400 }, 400, "invalid_grant", 0),
        (Fault::Refuse { error: FaultError::Busy, status: 400 }, 400, "invalid_grant", 0),
        (Fault::Refuse { error: FaultError::WrongSecret, status: 401 }, 401, "invalid_client", 0),
        (Fault::Refuse { error: FaultError::Suspended, status: 400 }, 400, "invalid_grant", 0),
        (
            Fault::Refuse { error: FaultError::Unavailable, status: 503 },
            503,
            "temporarily_unavailable",
            0,
        ),
    ] {
        let before = sandbox.state().counters.refreshes;
        sandbox.inject(fault);
        let answer = refresh(&sandbox, token).await;
        assert_eq!((answer.status, answer.error().as_str()), (status, error), "{fault:?}");
        assert_eq!(sandbox.state().counters.refreshes - before, carried_out, "{fault:?}");
    }
    assert!(sandbox.is_alive(token.as_str().unwrap()), "none of it was true");
}

#[tokio::test]
async fn an_answer_may_leave_the_refresh_token_out() {
    let sandbox = Sandbox::start(SandboxConfig::new().rotation(true)).await.unwrap();
    let pair = exchange(&sandbox, "alice").await.json();
    sandbox.inject(Fault::OmitRefreshToken);
    let next = refresh(&sandbox, &pair["refresh_token"]).await.json();
    assert!(next.get("refresh_token").is_none(), "{next}");
    assert!(sandbox.is_alive(text(&pair, "refresh_token")), "the old one goes on");
    sandbox.inject(Fault::OmitRefreshToken);
    let alone = exchange(&sandbox, "alice").await.json();
    assert!(alone.get("refresh_token").is_none() && alone.get("access_token").is_some());
}

#[tokio::test]
async fn a_request_that_was_long_on_its_way_is_reuse() {
    let sandbox = Sandbox::start(SandboxConfig::new().rotation(true)).await.unwrap();
    let pair = exchange(&sandbox, "alice").await.json();
    sandbox.inject(Fault::DelayBeforeArrival(Duration::from_millis(400)));
    let token = &pair["refresh_token"];
    let (late, next) = tokio::join!(refresh(&sandbox, token), async {
        while sandbox.state().counters.faults == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        refresh(&sandbox, token).await
    });
    assert_eq!((next.status, late.status), (200, 400));
    let endings = sandbox.state().endings;
    assert_eq!((endings.len(), endings[0].reason), (1, ApprovalState::Reused));
    let by = endings[0].by.unwrap();
    assert_eq!((by.approval, by.generation), (1, 1));
}

#[tokio::test]
async fn faults_are_given_and_taken_back_over_http() {
    let sandbox = Sandbox::start(SandboxConfig::new()).await.unwrap();
    let faults = format!("{}/faults", sandbox.url());
    let two = r#"[{"fault": {"status_after_commit": {"status": 502}}, "on": "exchange"},
        {"fault": "omit_refresh_token", "times": 3}]"#;
    let waiting = post(&faults, two).await.json();
    assert_eq!(waiting[0]["fault"], json!({ "status_after_commit": { "status": 502 } }));
    assert_eq!(exchange(&sandbox, "alice").await.status, 502);
    assert_eq!(sandbox.state().counters.exchanges, 1);
    assert_eq!(get(&faults, "").await.json().as_array().unwrap().len(), 1);
    assert_eq!(http("DELETE", &faults, "", "").await.json(), json!([]));
    assert!(exchange(&sandbox, "alice").await.json().get("refresh_token").is_some());
    for (path, body) in [
        ("faults", r#"{"fault": "explode"}"#),
        ("faults", r#"{"fault": "drop_after_commit", "when": 3}"#),
        ("clock", r#"{"advance_s": -1}"#),
        ("sign-in", "bob"),
        ("web-sessions", r#"{"user": "alice"}"#),
    ] {
        let refused = post(&format!("{}/{path}", sandbox.url()), body).await;
        assert_eq!((refused.status, refused.error().as_str()), (400, "invalid_request"), "{body}");
    }
}

#[tokio::test]
async fn who_signs_in_and_what_ends_outside_is_said_from_outside() {
    let sandbox = Sandbox::start(SandboxConfig::new().cap(2)).await.unwrap();
    let url = sandbox.url().to_owned();
    let click = format!(
        "{url}/authorize?client_id=sandbox-consumer-key&redirect_uri=http://127.0.0.1:9/cb\
         &login_hint=alice"
    );
    sandbox.sign_in_as(Some("bob"));
    assert_eq!(get(&click, "").await.status, 302);
    sandbox.sign_in_as(None);
    let names = |state: tokenwal::sandbox::SandboxState| -> Vec<String> {
        state.users.into_iter().map(|user| user.name).collect()
    };
    assert_eq!(names(sandbox.state()), ["bob"]);
    get(&click, "").await;
    assert_eq!(names(sandbox.state()), ["bob", "alice"]);
    exchange(&sandbox, "alice").await;
    exchange(&sandbox, "alice").await;
    assert_eq!(post(&format!("{url}/end"), r#"{"approval": 2}"#).await.status, 200);
    exchange(&sandbox, "alice").await;
    post(&format!("{url}/web-sessions"), r#"{"user": "alice", "count": 1}"#).await;
    let reasons: Vec<_> = sandbox.state().endings.iter().map(|end| end.reason).collect();
    assert_eq!(reasons, [ApprovalState::EndedOutside, ApprovalState::Evicted]);
}

#[tokio::test]
async fn approvals_are_listed_as_salesforce_does() {
    let sandbox = Sandbox::start(SandboxConfig::new()).await.unwrap();
    let access = exchange(&sandbox, "alice").await.json();
    let access = text(&access, "access_token").to_owned();
    let other = exchange(&sandbox, "alice").await.json();
    exchange(&sandbox, "bob").await;
    let query = |what: &str| {
        let base = format!("{}/services/data/v62.0/query?q=", sandbox.url());
        format!("{base}{}", what.replace(' ', "+").replace('\'', "%27"))
    };
    let all = query("SELECT AppName, UserId, UseCount, LastUsedDate, DeleteToken FROM OauthToken");
    assert_eq!(get(&all, "").await.status, 401);
    let listed = get(&all, &access).await.json();
    assert_eq!((&listed["totalSize"], &listed["done"]), (&json!(2), &json!(true)));
    let row = &listed["records"][1];
    assert_eq!((&row["AppName"], &row["UseCount"]), (&json!("sandbox-consumer-key"), &json!(1)));
    assert!(row.get("Id").is_none(), "only what was asked for: {row}");
    let named =
        query(&format!("SELECT Id FROM OauthToken WHERE UserId = '{}'", text(row, "UserId")));
    assert_eq!(get(&named, &access).await.json()["totalSize"], 2);
    let refused = get(&query("SELECT Id FROM User"), &access).await;
    assert_eq!(refused.json()[0]["errorCode"], "MALFORMED_QUERY");
    // A row's delete token ends that approval and no other.
    let form = format!("token={}", text(row, "DeleteToken"));
    assert_eq!(post(&sandbox.endpoints().revoke, &form).await.status, 200);
    assert!(sandbox.is_alive(&access) && !sandbox.is_alive(text(&other, "refresh_token")));
    assert_eq!(get(&all, &access).await.json()["totalSize"], 1);
}

#[tokio::test]
async fn the_app_mints_for_itself_and_by_an_assertion() {
    let sandbox = Sandbox::start(SandboxConfig::new()).await.unwrap();
    let token = sandbox.endpoints().token;
    let own = post(&token, &format!("grant_type=client_credentials&scope=api&{CLIENT}")).await;
    assert_eq!(own.status, 200);
    let own = own.json();
    assert!(sandbox.is_alive(text(&own, "access_token")) && own.get("refresh_token").is_none());
    // {"iss":"sandbox-consumer-key","sub":"alice"}
    let claims = "eyJpc3MiOiJzYW5kYm94LWNvbnN1bWVyLWtleSIsInN1YiI6ImFsaWNlIn0";
    let form = format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=e30.{claims}.x"
    );
    let hers = post(&token, &form).await.json();
    let who = get(&sandbox.endpoints().userinfo, text(&hers, "access_token")).await.json();
    assert_eq!(who["preferred_username"], "alice");
    let wrong = post(&token, &form.replace("e30.eyJp", "e30.eyJq")).await;
    assert_eq!(wrong.status, 400);
    assert_eq!((sandbox.state().counters.mints, sandbox.state().users[0].live), (2, 0));
}

#[tokio::test]
async fn a_configuration_overrides_its_profile() {
    let profile = Profile::builtin("salesforce").unwrap();
    let config = SandboxConfig::new()
        .profile(&profile)
        .rotation(true)
        .recovery(Recovery::UntilSuccessorUsed { max_ms: 60_000 })
        .idle_lifetime(Duration::from_secs(100));
    let sandbox = Sandbox::start(config).await.unwrap();
    let pair = exchange(&sandbox, "alice").await.json();
    let next = refresh(&sandbox, &pair["refresh_token"]).await.json();
    let again = refresh(&sandbox, &pair["refresh_token"]).await.json();
    assert_eq!(next["refresh_token"], again["refresh_token"]);
    sandbox.advance(Duration::from_secs(100));
    assert_eq!(refresh(&sandbox, &next["refresh_token"]).await.error(), "invalid_grant");
    assert_eq!(sandbox.state().users[0].approvals[0].state, ApprovalState::Idle);
}
