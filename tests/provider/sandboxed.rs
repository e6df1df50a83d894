//! The provider against the sandbox: the story's losses, over HTTP.

use super::{by_hand, pkce, shown, told, within};
use std::process::Command;
use std::time::Duration;
use tokenwal::provider::{Provider, Rotation};
use tokenwal::sandbox::{ApprovalState, Fault, Sandbox, SandboxConfig};
use tokenwal::{App, Outcome, Secret, Signature};

const CALLBACK: &str = "http://127.0.0.1:9/callback";

async fn sandbox(config: SandboxConfig) -> (Sandbox, Provider) {
    let app = App::new("salesforce", config.client_id()).unwrap();
    let secret = Secret::new(config.client_secret().to_owned());
    let sandbox = Sandbox::start(config).await.unwrap();
    let provider = Provider::salesforce(app, secret, sandbox.url())
        .timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    (sandbox, provider)
}

/// Gets a pair as a naive service does, which can see it: the answer's tokens have no getter.
async fn pair(sandbox: &Sandbox, user: &str) -> (Secret, Secret) {
    let code = sandbox.code_for(user).unwrap();
    let form = format!(
        "grant_type=authorization_code&code={}&client_id=sandbox-consumer-key\
         &client_secret=sandbox-consumer-secret",
        code.reveal()
    );
    tokens(&post(sandbox, "/services/oauth2/token", &form).await)
}

fn tokens(answer: &str) -> (Secret, Secret) {
    let body: serde_json::Value =
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let token = |name: &str| Secret::new(body[name].as_str().unwrap_or_default().to_owned());
    (token("access_token"), token("refresh_token"))
}

async fn post(sandbox: &Sandbox, path: &str, form: &str) -> String {
    let length = form.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: sandbox\r\ncontent-length: {length}\r\n\
         content-type: application/x-www-form-urlencoded\r\n\r\n{form}"
    );
    by_hand(sandbox.url(), &request).await
}

async fn get(sandbox: &Sandbox, path: &str, headers: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: sandbox\r\n{headers}\r\n");
    by_hand(sandbox.url(), &request).await
}

#[tokio::test]
async fn an_exchange_gives_a_signed_pair_of_a_known_user() {
    let (sandbox, provider) = sandbox(SandboxConfig::new()).await;
    let code = sandbox.code_for("alice").unwrap();
    let outcome = provider.exchange(code, CALLBACK, &pkce()).await;
    let Outcome::Issued(response) = outcome else { panic!("{}", told(&outcome)) };
    assert_eq!(response.signature(), Signature::Verified);
    assert_eq!(response.user(), sandbox.user("alice").as_ref());
    assert!(response.user().is_some());
    assert!(response.has_refresh_token() && response.expires_at_ms().is_none());
    assert_eq!(response.scopes().unwrap(), ["api", "refresh_token"]);
    shown(&response);
    assert_ne!(sandbox.user("alice"), sandbox.user("bob"));
    let code = sandbox.code_for("alice").unwrap();
    let again = Secret::new(code.reveal().to_owned());
    assert_eq!(told(&provider.exchange(code, CALLBACK, &pkce()).await), "issued");
    let outcome = provider.exchange(again, CALLBACK, &pkce()).await;
    assert_eq!(told(&outcome), "refused Suspended 400");
}

#[tokio::test]
async fn a_click_leads_to_a_code_that_only_its_verifier_redeems() {
    let (sandbox, provider) = sandbox(SandboxConfig::new()).await;
    let click = |hint: &str| {
        let url = provider.authorization_url(CALLBACK, &["api"], "a state", &pkce()).unwrap();
        format!("{}&login_hint={hint}", url.trim_start_matches(sandbox.url()))
    };
    for (redirect_uri, verifier, expected) in [
        (CALLBACK, pkce(), "issued"),
        ("http://127.0.0.1:9/other", pkce(), "refused Suspended 400"),
        (
            CALLBACK,
            tokenwal::provider::Pkce::from_verifier(Secret::new("another".into())),
            "refused Suspended 400",
        ),
    ] {
        let answer = get(&sandbox, &click("carol"), "").await;
        assert!(answer.starts_with("HTTP/1.1 302"), "{answer}");
        let location = answer.split("location: ").nth(1).unwrap().lines().next().unwrap();
        let (code, state) = location
            .strip_prefix(&format!("{CALLBACK}?code="))
            .and_then(|rest| rest.split_once("&state="))
            .unwrap();
        assert_eq!(state, "a%20state");
        let code = Secret::new(code.to_owned());
        let outcome = provider.exchange(code, redirect_uri, &verifier).await;
        assert_eq!(told(&outcome), expected);
    }
    let state = sandbox.state();
    assert_eq!((state.users[0].name.as_str(), state.users[0].live), ("carol", 1));
}

#[tokio::test]
async fn the_fifth_pair_kills_the_first_and_nobody_is_told() {
    let (sandbox, provider) = sandbox(SandboxConfig::new().cap(4)).await;
    let (access, refresh) = pair(&sandbox, "alice").await;
    let bearer = format!("authorization: Bearer {}\r\n", access.reveal());
    let works = get(&sandbox, "/services/oauth2/userinfo", &bearer).await;
    assert!(works.starts_with("HTTP/1.1 200"), "{works}");
    for _ in 0..3 {
        pair(&sandbox, "alice").await;
    }
    assert_eq!(told(&provider.refresh(&refresh).await), "issued");
    let code = sandbox.code_for("alice").unwrap();
    assert_eq!(told(&provider.exchange(code, CALLBACK, &pkce()).await), "issued");
    assert!(!sandbox.is_alive(refresh.reveal()) && !sandbox.is_alive(access.reveal()));
    let fails = get(&sandbox, "/services/oauth2/userinfo", &bearer).await;
    assert!(fails.starts_with("HTTP/1.1 401"), "{fails}");
    let outcome = provider.refresh(&refresh).await;
    assert_eq!(told(&outcome), "refused Dead 400");
    let Outcome::Refused(refusal) = outcome else { panic!("refused") };
    assert_eq!(refusal.error(), "invalid_grant");
    assert_eq!(refusal.description(), "expired access/refresh token");
    let state = get(&sandbox, "/state", "").await;
    let (_, body) = state.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, serde_json::to_string(&sandbox.state()).unwrap());
    assert!(!body.contains("5Aep861") && !body.contains("!AQ"));
}

#[tokio::test]
async fn with_rotation_a_spent_token_kills_its_family() {
    let (sandbox, provider) = sandbox(SandboxConfig::new().rotation(true)).await;
    let (_, refresh) = pair(&sandbox, "alice").await;
    let outcome = provider.refresh(&refresh).await;
    let Outcome::Issued(response) = outcome else { panic!("{}", told(&outcome)) };
    assert!(response.has_refresh_token());
    assert!(!sandbox.is_alive(refresh.reveal()));
    assert_eq!(told(&provider.refresh(&refresh).await), "refused Dead 400");
    let state = sandbox.state();
    assert_eq!(state.users[0].approvals[0].state, ApprovalState::Reused);
    assert_eq!(state.users[0].live, 0);
}

#[tokio::test]
async fn tokens_are_revoked_and_asked_about() {
    let (sandbox, provider) = sandbox(SandboxConfig::new()).await;
    let (access, refresh) = pair(&sandbox, "alice").await;
    let (introspection, outcome) = provider.introspect(&access).await;
    assert_eq!(told(&outcome), "answered");
    let introspection = introspection.unwrap();
    assert!(introspection.active && introspection.expires_at_ms.is_some());
    assert_eq!(introspection.username.as_deref(), Some("alice"));
    assert_eq!(introspection.token_type.as_deref(), Some("access_token"));
    assert_eq!(told(&provider.revoke(&refresh).await), "revoked");
    assert!(!sandbox.is_alive(refresh.reveal()) && !sandbox.is_alive(access.reveal()));
    let (introspection, outcome) = provider.introspect(&access).await;
    assert_eq!((told(&outcome).as_str(), introspection.unwrap().active), ("answered", false));
    assert_eq!(told(&provider.revoke(&refresh).await), "refused Dead 400");
}

#[tokio::test]
async fn every_fault_ends_as_what_is_known_of_it() {
    let short = Duration::from_millis(50);
    for (fault, expected, committed) in [
        (Fault::DropBeforeCommit, "in doubt ConnectionLost 0", false),
        (Fault::DropAfterCommit, "in doubt ConnectionLost 0", true),
        (Fault::StatusBeforeCommit(500), "in doubt ServerError 500", false),
        (Fault::StatusAfterCommit(502), "in doubt ServerError 502", true),
        (Fault::TruncateBody(0), "in doubt ConnectionLost 200", true),
        (Fault::TruncateBody(40), "in doubt ConnectionLost 200", true),
        (Fault::TooManyRequests { retry_after_s: 7 }, "refused Retry 429", false),
        (Fault::Unavailable { retry_after_s: 7 }, "refused Retry 503", false),
        (Fault::DelayBeforeCommit(short), "issued", true),
        (Fault::DelayAfterCommit(short), "issued", true),
    ] {
        let (sandbox, provider) = sandbox(SandboxConfig::new()).await;
        sandbox.inject(fault);
        let code = sandbox.code_for("alice").unwrap();
        let outcome = provider.exchange(code, CALLBACK, &pkce()).await;
        assert_eq!(told(&outcome), expected, "{fault:?}");
        let state = sandbox.state();
        assert_eq!(state.counters.exchanges, u64::from(committed), "{fault:?}");
        assert_eq!(state.counters.faults, 1);
        match (fault, outcome) {
            (Fault::TruncateBody(bytes), Outcome::InDoubt(doubt)) => {
                assert_eq!(doubt.body_bytes(), u64::try_from(bytes).unwrap());
            }
            (_, Outcome::Refused(refusal)) => assert_eq!(refusal.retry_after_s(), 7),
            _ => {}
        }
        // A fault is met once.
        let code = sandbox.code_for("alice").unwrap();
        assert_eq!(told(&provider.exchange(code, CALLBACK, &pkce()).await), "issued");
    }
}

#[tokio::test]
async fn a_request_past_its_deadline_is_carried_out_all_the_same() {
    let (sandbox, provider) = sandbox(SandboxConfig::new().rotation(true)).await;
    let (_, refresh) = pair(&sandbox, "alice").await;
    let hasty = Provider::salesforce(
        provider.app().clone(),
        Secret::new("sandbox-consumer-secret".to_owned()),
        sandbox.url(),
    )
    .timeout(Duration::from_millis(500))
    .build()
    .unwrap();
    sandbox.inject(Fault::DelayBeforeCommit(Duration::from_secs(3)));
    assert_eq!(told(&hasty.refresh(&refresh).await), "in doubt Timeout 0");
    assert!(sandbox.is_alive(refresh.reveal()), "not yet carried out");
    // Another try meets the first one at work.
    assert_eq!(told(&provider.refresh(&refresh).await), "in doubt ServerError 400");
    until(|| sandbox.state().counters.refreshes > 0).await;
    let state = sandbox.state();
    assert_eq!((state.counters.refreshes, state.counters.collisions), (1, 1));
    assert!(!sandbox.is_alive(refresh.reveal()), "carried out behind the caller's back");
}

/// Waits until something has come about.
async fn until(mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(Duration::from_secs(20), waiting).await;
}

#[tokio::test]
async fn a_collision_without_rotation_may_be_retried() {
    let (sandbox, _) = sandbox(SandboxConfig::new()).await;
    let (_, refresh) = pair(&sandbox, "alice").await;
    let app = App::new("salesforce", "sandbox-consumer-key").unwrap();
    let secret = Secret::new("sandbox-consumer-secret".to_owned());
    let provider = Provider::salesforce(app, secret, sandbox.url()).rotation(Rotation::Off);
    let provider = provider.build().unwrap();
    sandbox.inject(Fault::DelayBeforeCommit(Duration::from_secs(1)));
    let (first, second) = tokio::join!(provider.refresh(&refresh), async {
        // The first is at work from when it has met the delay.
        until(|| sandbox.state().counters.faults > 0).await;
        provider.refresh(&refresh).await
    });
    assert_eq!((told(&first).as_str(), told(&second).as_str()), ("issued", "refused Retry 400"));
    assert_eq!(told(&provider.refresh(&refresh).await), "issued");
}

#[tokio::test]
async fn wrong_credentials_are_our_own_fault() {
    let (sandbox, _) = sandbox(SandboxConfig::new().client("a key", "a s3cret: +%ü&")).await;
    for (id, secret, expected) in [
        ("a key", "a s3cret: +%ü&", "issued"),
        ("a key", "another-S3CRET", "refused OwnFault"),
        ("nobody", "a s3cret: +%ü&", "refused OwnFault"),
    ] {
        let app = App::new("salesforce", id).unwrap();
        let posting = || {
            let secret = Secret::new(secret.to_owned());
            Provider::salesforce(app.clone(), secret, sandbox.url())
        };
        let basic = posting().client_auth(tokenwal::provider::ClientAuth::Basic);
        for builder in [posting(), basic] {
            let code = sandbox.code_for("alice").unwrap();
            let outcome = builder.build().unwrap().exchange(code, CALLBACK, &pkce()).await;
            assert!(told(&outcome).starts_with(expected), "{}", told(&outcome));
        }
    }
}

#[tokio::test]
async fn a_sandbox_that_is_down_answers_nobody() {
    let (sandbox, provider) = sandbox(SandboxConfig::new()).await;
    let code = sandbox.code_for("alice").unwrap();
    sandbox.shutdown();
    let (outcome, _) =
        within(Duration::from_secs(10), provider.exchange(code, CALLBACK, &pkce())).await;
    assert!(matches!(outcome, Outcome::NotSent(_) | Outcome::InDoubt(_)), "{}", told(&outcome));
}

/// Runs another test of this file where a proxy is set that nobody should use, and where there
/// are no root certificates: loopback needs neither.
#[test]
fn loopback_needs_neither_proxy_nor_certificates() {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sandboxed::an_exchange_gives_a_signed_pair_of_a_known_user"])
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .env("SSL_CERT_FILE", "/nonexistent")
        .env("SSL_CERT_DIR", "/nonexistent")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && text.contains("1 passed"), "{text}");
}
