//! Servers made by hand: what a real one does on a bad day.

use super::{Step, answer, answering, builder, pkce, secret, server, shown, told, within};
use std::time::Duration;
use tokenwal::provider::{ClientAuth, Profile, Provider, ProviderError, Rotation};
use tokenwal::{App, Outcome, Secret, Signature};
use tokio::net::TcpListener;

const PAIR: &str = r#"{"access_token":"S3CRET-access","refresh_token":"S3CRET-refresh"}"#;
const SECOND: Duration = Duration::from_secs(1);

async fn refreshed(base: &str) -> Outcome {
    builder(base).build().unwrap().refresh(&secret("refresh")).await
}

#[tokio::test]
async fn a_pair_is_issued_and_its_endpoint_noted() {
    let body = r#"{"access_token":"S3CRET-access","expires_in":3600,"scope":"a b"}"#;
    let base = answering("200 OK", "", body).await;
    let Outcome::Issued(response) = refreshed(&base).await else { panic!("issued") };
    assert!(response.expires_at_ms().is_some() && !response.has_refresh_token());
    assert_eq!(response.scopes().unwrap(), ["a", "b"]);
    assert_eq!(response.signature(), Signature::Unchecked);
    shown(&response);
}

#[tokio::test]
async fn statuses_and_bodies_are_told_apart() {
    let grant = r#"{"error":"invalid_grant","error_description":"nope"}"#;
    let client = r#"{"error":"invalid_client"}"#;
    for (status, headers, body, expected) in [
        ("400 Bad Request", "", grant, "refused Suspended 400"),
        ("401 Unauthorized", "", client, "refused OwnFault 401"),
        ("404 Not Found", "", "<html>", "refused OwnFault 404"),
        ("429 Too Many Requests", "retry-after: 7\r\n", "", "refused Retry 429"),
        ("503 Service Unavailable", "retry-after: 7\r\n", "", "refused Retry 503"),
        ("503 Service Unavailable", "", "", "in doubt ServerError 503"),
        ("500 Internal Server Error", "", PAIR, "in doubt Unreadable 500"),
        ("502 Bad Gateway", "", "<html>S3CRET</html>", "in doubt ServerError 502"),
        ("200 OK", "", "<html>S3CRET</html>", "in doubt Unreadable 200"),
        ("200 OK", "", &PAIR[..30], "in doubt Unreadable 200"),
        ("200 OK", "", "", "in doubt Unreadable 200"),
        ("200 OK", "", client, "refused OwnFault 200"),
        ("200 OK", "content-encoding: gzip\r\n", "\u{1f}\u{8b}", "in doubt Unreadable 200"),
    ] {
        let base = answering(status, headers, body).await;
        let outcome = refreshed(&base).await;
        assert_eq!(told(&outcome), expected, "{status} {body}");
        match outcome {
            Outcome::Refused(refusal) if !headers.is_empty() => {
                assert_eq!(refusal.retry_after_s(), 7);
            }
            Outcome::InDoubt(doubt) => {
                assert_eq!(doubt.body_bytes(), u64::try_from(body.len()).unwrap());
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_refusal_shows_no_token_that_it_echoes() {
    let body = r#"{"error":"invalid_grant",
        "error_description":"token S3CRET-refresh of S3CRET-client\r\nis unknown"}"#;
    let base = answering("400 Bad Request", "x-request-id: req-42\r\n", body).await;
    let Outcome::Refused(refusal) = refreshed(&base).await else { panic!("refused") };
    assert_eq!(refusal.description(), "token [redacted] of [redacted]  is unknown");
    assert_eq!(refusal.request_id(), Some("req-42"));
    shown(&refusal);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (elsewhere, mut visits) = server(vec![Step::Read]).await;
    for (status, expected) in [
        ("301 Moved Permanently", "refused OwnFault 301"),
        ("302 Found", "in doubt ServerError 302"),
        ("303 See Other", "in doubt ServerError 303"),
        ("307 Temporary Redirect", "refused OwnFault 307"),
        ("308 Permanent Redirect", "refused OwnFault 308"),
    ] {
        let location = format!("location: {elsewhere}/token?code=S3CRET\r\n");
        let base = answering(status, &location, "").await;
        let outcome = refreshed(&base).await;
        assert_eq!(told(&outcome), expected);
        if let Outcome::Refused(refusal) = outcome {
            assert!(refusal.description().contains("127.0.0.1"), "{}", refusal.description());
        }
    }
    assert!(visits.try_recv().is_err(), "somebody followed");
}

#[tokio::test]
async fn an_endless_answer_is_cut_and_what_came_is_kept() {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = [b"400\r\n".as_slice(), &[b'x'; 1024], b"\r\n"].concat();
    let endless = Step::Drip(chunk, Duration::from_millis(1));
    let (base, _) = server(vec![Step::Read, Step::Write(head), endless]).await;
    let provider = builder(&base).response_bytes_max(5000).build().unwrap();
    let (outcome, _) = within(5 * SECOND, provider.refresh(&secret("r"))).await;
    assert_eq!(told(&outcome), "in doubt Oversized 200");
    let Outcome::InDoubt(doubt) = outcome else { panic!("in doubt") };
    assert!((5001..=7000).contains(&doubt.body_bytes()), "{doubt:?}");

    let long = format!("{{\"access_token\":\"{}\"}}", "S3CRET".repeat(20_000));
    let base = answering("200 OK", "", &long).await;
    let Outcome::InDoubt(doubt) = refreshed(&base).await else { panic!("in doubt") };
    assert!(shown(&doubt).contains("<65536 bytes>"));
    assert_eq!(doubt.body_bytes(), u64::try_from(long.len()).unwrap(), "as it was announced");
    let base = answering("404 Not Found", "", &long).await;
    assert_eq!(told(&refreshed(&base).await), "refused OwnFault 404");
}

#[tokio::test]
async fn a_broken_answer_is_in_doubt_unless_the_pair_was_whole() {
    let promised =
        |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{body}").into_bytes();
    // Closed in order, within the body and behind the pair.
    let (base, _) = server(vec![Step::Read, Step::Write(promised(&PAIR[..30]))]).await;
    let outcome = refreshed(&base).await;
    assert_eq!(told(&outcome), "in doubt ConnectionLost 200");
    let Outcome::InDoubt(doubt) = outcome else { panic!("in doubt") };
    assert_eq!(doubt.body_bytes(), 30);
    let (base, _) = server(vec![Step::Read, Step::Write(promised(PAIR))]).await;
    assert_eq!(told(&refreshed(&base).await), "issued");
    // Reset: the request is left unread.
    let pause = || Step::Wait(SECOND);
    let (base, _) = server(vec![pause(), Step::Write(promised(&PAIR[..30])), pause()]).await;
    assert_eq!(told(&refreshed(&base).await), "in doubt ConnectionLost 200");
    // Nothing at all, nothing but a part of the header, and no HTTP.
    for head in ["", "HTTP/1.1 200 O", "SSH-2.0-OpenSSH_9.6\r\n"] {
        let (base, _) = server(vec![Step::Read, Step::Write(head.into())]).await;
        assert_eq!(told(&refreshed(&base).await), "in doubt ConnectionLost 0", "{head}");
    }
}

#[tokio::test]
async fn one_deadline_covers_silence_and_dripping() {
    let limit = SECOND;
    let drip = Step::Drip(b"x".to_vec(), Duration::from_millis(20));
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n".to_vec();
    let header = b"HTTP/1.1 200 OK\r\nx-drip: ".to_vec();
    for (steps, expected) in [
        (vec![Step::Read, Step::Wait(20 * SECOND)], "in doubt Timeout 0"),
        (vec![Step::Read, Step::Write(head), drip.clone()], "in doubt Timeout 200"),
        (vec![Step::Read, Step::Write(header), drip], "in doubt Timeout 0"),
    ] {
        let (base, _) = server(steps).await;
        let provider = builder(&base).timeout(limit).build().unwrap();
        let (outcome, took) = within(10 * SECOND, provider.refresh(&secret("r"))).await;
        assert_eq!(told(&outcome), expected);
        assert!(took >= limit && took < 8 * SECOND, "{took:?}");
    }
}

#[tokio::test]
async fn what_never_left_is_not_sent() {
    // Nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let base = format!("http://127.0.0.1:{port}");
    assert_eq!(told(&refreshed(&base).await), "not sent Connect");
    // Somebody listens who speaks no TLS, and somebody who says nothing.
    let (plain, _) = server(vec![Step::Write(answer("400 Bad Request", "", ""))]).await;
    let tls = plain.replace("http://", "https://");
    assert_eq!(told(&refreshed(&tls).await), "not sent Tls");
    let (silent, _) = server(vec![Step::Wait(20 * SECOND)]).await;
    let provider = builder(&silent.replace("http://", "https://"))
        .connect_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let (outcome, _) = within(5 * SECOND, provider.refresh(&secret("r"))).await;
    assert_eq!(told(&outcome), "not sent Connect");
    // Nothing is configured to be called.
    let app = App::new("example", "client-1").unwrap();
    let bare = Provider::builder(app, &base).build().unwrap();
    assert_eq!(told(&bare.revoke(&secret("r")).await), "not sent GivenUp");
    assert_eq!(told(&bare.introspect(&secret("r")).await.1), "not sent GivenUp");
    let url = bare.authorization_url("https://app.example/cb", &[], "state", &pkce());
    assert!(matches!(url, Err(ProviderError::Missing(_))));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_not_sent() {
    // RFC 6761 keeps this name from ever existing. Behind a proxy it is the proxy's to find out.
    let proxied = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    let outcome = refreshed("https://tokenwal-test.invalid").await;
    if !proxied {
        assert_eq!(told(&outcome), "not sent Lookup");
    }
}

#[tokio::test]
async fn localhost_is_this_machine_by_name() {
    let base = answering("200 OK", "", PAIR).await.replace("127.0.0.1", "localhost");
    assert_eq!(told(&refreshed(&base).await), "issued");
}

#[test]
fn tokens_are_not_sent_in_the_clear() {
    for base in ["http://login.salesforce.com", "http://10.1.2.3:8080", "http://0.0.0.0"] {
        let error = builder(base).build().unwrap_err();
        assert!(matches!(error, ProviderError::Insecure { .. }), "{error}");
        assert!(error.to_string().contains("use https"), "{error}");
    }
    let error = builder("https://S3CRET@example.com").build().unwrap_err();
    assert!(matches!(error, ProviderError::Url { .. }));
    shown(&error);
    assert!(!error.to_string().contains("S3CRET"));
    // Each endpoint is checked, not the first alone.
    let error = builder("https://example.com").revocation_endpoint("http://example.com/revoke");
    assert!(
        matches!(error.build(), Err(ProviderError::Insecure { what, .. }) if what.contains("revo"))
    );
}

#[tokio::test]
async fn requests_are_as_the_rfcs_have_them() {
    let whole = answer("200 OK", "", PAIR);
    let (base, mut requests) = server(vec![Step::Read, Step::Write(whole)]).await;
    let provider = builder(&base).build().unwrap();
    let code = secret("code");
    provider.exchange(code, "https://app.example/cb?x=1", &pkce()).await;
    let request = requests.recv().await.unwrap();
    assert!(request.starts_with("POST /token HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("accept: application/json\r\n"), "{request}");
    assert!(request.contains("content-type: application/x-www-form-urlencoded\r\n"), "{request}");
    // printf 'client-1:S3CRET-client' | base64
    assert!(request.contains("authorization: Basic Y2xpZW50LTE6UzNDUkVULWNsaWVudA==\r\n"));
    assert!(!request.contains("client_secret"), "{request}");
    let form = request.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(
        form,
        "grant_type=authorization_code&code=S3CRET-code\
         &redirect_uri=https%3A%2F%2Fapp.example%2Fcb%3Fx%3D1\
         &code_verifier=S3CRET-verifier-of-at-least-43-characters-as-the-rfc-has-it"
    );
    let posting = builder(&base).client_auth(ClientAuth::Post).build().unwrap();
    posting.refresh(&secret("refresh")).await;
    let request = requests.recv().await.unwrap();
    assert!(!request.contains("authorization:"), "{request}");
    assert!(request.ends_with(
        "\r\n\r\ngrant_type=refresh_token&refresh_token=S3CRET-refresh\
         &client_id=client-1&client_secret=S3CRET-client"
    ));
    let public = Provider::builder(App::new("example", "client-1").unwrap(), &base);
    public.build().unwrap().refresh(&secret("refresh")).await;
    let request = requests.recv().await.unwrap();
    assert!(request.ends_with("refresh_token=S3CRET-refresh&client_id=client-1"), "{request}");
    provider.revoke(&secret("r")).await;
    let request = requests.recv().await.unwrap();
    assert!(request.starts_with("POST /revoke ") && request.ends_with("\r\n\r\ntoken=S3CRET-r"));
}

#[test]
fn an_authorization_url_holds_the_challenge_and_no_secret() {
    let app = App::new("salesforce", "key").unwrap();
    let provider = Provider::salesforce(app, secret("client"), "https://login.salesforce.com/");
    let provider = provider.build().unwrap();
    let url = provider
        .authorization_url("https://app.example/cb", &["api", "refresh_token"], "st&te", &pkce())
        .unwrap();
    assert!(url.starts_with("https://login.salesforce.com/services/oauth2/authorize?"), "{url}");
    for part in [
        "response_type=code",
        "client_id=key",
        "redirect_uri=https%3A%2F%2Fapp.example%2Fcb",
        "scope=api+refresh_token",
        "state=st%26te",
        "code_challenge_method=S256",
        &format!("code_challenge={}", pkce().challenge()),
    ] {
        assert!(url.contains(part), "{part} in {url}");
    }
    assert!(!url.contains("S3CRET"), "{url}");
    assert!(!shown(&provider).contains("S3CRET"));
}

#[tokio::test]
async fn a_forged_identity_keeps_the_pair_and_names_nobody() {
    let body = r#"{"access_token":"S3CRET-a","issued_at":"1700000000000","signature":"c2ln",
        "id":"https://login.salesforce.com/id/00Dx0000000BV7z/005x00000012Q9P"}"#;
    let base = answering("200 OK", "", body).await;
    for (with_secret, signature) in [(true, Signature::Mismatch), (false, Signature::Unchecked)] {
        let app = App::new("salesforce", "key").unwrap();
        let mut provider = Provider::builder(app, &base).profile(Profile::salesforce());
        if with_secret {
            provider = provider.client_secret(secret("client"));
        }
        let outcome = provider.build().unwrap().refresh(&secret("r")).await;
        let Outcome::Issued(response) = outcome else { panic!("issued") };
        assert_eq!(response.signature(), signature);
        assert_eq!(response.user().is_some(), !with_secret);
        assert!(response.identity_url().is_some());
    }
}

#[tokio::test]
async fn a_collision_is_retryable_only_without_rotation() {
    let body = r#"{"error":"invalid_grant",
        "error_description":"token request is already being processed"}"#;
    let base = answering("400 Bad Request", "", body).await;
    for (rotation, expected) in [
        (Rotation::Off, "refused Retry 400"),
        (Rotation::On, "in doubt ServerError 400"),
        (Rotation::Unknown, "in doubt ServerError 400"),
    ] {
        let provider = builder(&base).profile(Profile::salesforce()).rotation(rotation);
        let outcome = provider.build().unwrap().refresh(&secret("r")).await;
        assert_eq!(told(&outcome), expected);
    }
}

#[tokio::test]
async fn an_odd_secret_reaches_the_server_as_it_is() {
    let (base, mut requests) = server(vec![Step::Read]).await;
    let odd = Secret::new("p:a+s s%w=ö&".to_owned());
    let provider = Provider::builder(App::new("example", "id one").unwrap(), &base);
    let provider = provider.client_secret(odd).build().unwrap();
    provider.refresh(&secret("r")).await;
    let request = requests.recv().await.unwrap();
    // printf 'id+one:p%%3Aa%%2Bs+s%%25w%%3D%%C3%%B6%%26' | base64
    let expected = "Basic aWQrb25lOnAlM0FhJTJCcytzJTI1dyUzRCVDMyVCNiUyNg==";
    assert!(request.contains(expected), "{request}");
}
