//! Calls that a profile decides: where a pair goes, who is named, how a client proves itself.

use super::{Step, answer, answering, pkce, secret, server, shown, told};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use tokenwal::broker::{Approval, Code, Upstream, Which};
use tokenwal::profile::{ClientAuth, Profile};
use tokenwal::provider::{Mint, Provider, ProviderBuilder, ProviderError, SigningKey};
use tokenwal::sandbox::{Sandbox, SandboxConfig};
use tokenwal::{
    Account, App, Begin, FixedKeys, IssuedPair, Journal, Options, Outcome, Secret, Settled, User,
};
use tokio::sync::mpsc::UnboundedReceiver;

struct Store {
    journal: Journal,
    _dir: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(FixedKeys::new([7; 32], []));
        let (journal, _) = options.create(dir.path().join("store")).unwrap();
        Self { journal, _dir: dir }
    }

    async fn settled(&self, app: &App, outcome: Outcome) -> IssuedPair {
        let ticket = self.journal.begin(Begin::exchange(app)).await.unwrap();
        match self.journal.settle(ticket, outcome).await.unwrap() {
            Settled::Issued(pair) => *pair,
            other => panic!("{other:?}"),
        }
    }
}

fn app() -> App {
    App::new("example", "client-1").unwrap()
}

fn profile(toml: &str) -> Profile {
    Profile::from_toml(&format!("name = \"example\"\n{toml}")).unwrap()
}

fn provider(base: &str, toml: &str) -> ProviderBuilder {
    Provider::builder(app(), &format!("{base}/token"))
        .profile(profile(toml))
        .client_secret(secret("client"))
        .revocation_endpoint(&format!("{base}/revoke"))
        .introspection_endpoint(&format!("{base}/introspect"))
}

/// Serves one answer to everybody, and tells what was asked.
async fn listening(body: &str) -> (String, UnboundedReceiver<String>) {
    server(vec![Step::Read, Step::Write(answer("200 OK", "", body))]).await
}

fn user_of(outcome: &Outcome) -> Option<&str> {
    let Outcome::Issued(response) = outcome else { panic!("issued: {}", told(outcome)) };
    response.user().map(User::as_str)
}

fn id_token(claims: &str) -> String {
    format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims))
}

#[tokio::test]
async fn tokens_go_to_no_host_but_the_pairs_own() {
    let body = r#"{"access_token":"S3CRET-access","refresh_token":"S3CRET-refresh"}"#;
    let (base, mut asked) = listening(body).await;
    let (elsewhere, mut never) = listening(body).await;
    let app = App::new("salesforce", "client-1").unwrap();
    let ours = Provider::salesforce(app.clone(), secret("client"), &base).build().unwrap();
    let store = Store::new();
    let pair =
        store.settled(&app, ours.exchange(secret("code"), "https://a/cb", &pkce()).await).await;
    asked.recv().await.unwrap();
    assert_eq!(pair.token_endpoint(), Some(ours.token_endpoint()));
    assert_eq!(told(&Upstream::refresh(&ours, &pair).await), "issued");
    assert!(asked.recv().await.unwrap().starts_with("POST /services/oauth2/token "));
    assert_eq!(told(&ours.refresh_at(ours.token_endpoint(), &secret("refresh")).await), "issued");
    asked.recv().await.unwrap();
    assert_eq!(told(&Upstream::revoke(&ours, &pair).await), "revoked");
    assert!(
        asked
            .recv()
            .await
            .unwrap()
            .ends_with("token=S3CRET-refresh&client_id=client-1&client_secret=S3CRET-client")
    );

    // The same pair in the hands of a provider that was configured for another host.
    let theirs = Provider::salesforce(app, secret("client"), &elsewhere).build().unwrap();
    let refused = "not sent GivenUp";
    assert_eq!(told(&Upstream::refresh(&theirs, &pair).await), refused);
    assert_eq!(told(&Upstream::revoke(&theirs, &pair).await), refused);
    assert_eq!(told(&Upstream::introspect(&theirs, &pair, Which::Access).await.1), refused);
    assert_eq!(theirs.who(&pair).await, None);
    assert_eq!(theirs.approvals(&pair).await, None);
    for endpoint in ["https://evilsalesforce.com/token", "ftp://login.salesforce.com", ""] {
        assert_eq!(told(&theirs.refresh_at(endpoint, &secret("refresh")).await), refused);
    }
    assert!(never.try_recv().is_err(), "nothing was sent");
}

#[tokio::test]
async fn an_id_token_names_the_user_if_it_is_ours() {
    let identity = "[identity]\nfrom = \"id_token\"\nclaim = \"sub\"";
    let right = r#"{"iss":"https://id.example","aud":"client-1","sub":"u-7","nonce":"n-1",
        "exp":99999999999}"#;
    let cases = [
        (right.to_owned(), Some("u-7")),
        (right.replace("client-1", "client-2"), None),
        (right.replace("id.example", "id.evil"), None),
        (right.replace("n-1", "n-2"), None),
        (right.replace("99999999999", "1"), None),
    ];
    for (claims, expected) in cases {
        let body = format!(
            r#"{{"access_token":"S3CRET-a","refresh_token":"S3CRET-r","id_token":"{}"}}"#,
            id_token(&claims)
        );
        let base = answering("200 OK", "", &body).await;
        let ours = provider(&base, identity).issuer("https://id.example").build().unwrap();
        let (code, verifier) = (secret("code"), secret("verifier"));
        let redirect_uri = "https://a/cb";
        let code = Code { code: &code, redirect_uri, verifier: &verifier, nonce: "n-1" };
        let outcome = Upstream::exchange(&ours, code).await;
        assert_eq!(user_of(&outcome), expected, "{claims}");
        // The pair is kept in any case; nobody reads its id token again, of which nobody knows any
        // longer what it was to answer.
        let pair = Store::new().settled(&app(), outcome).await;
        assert_eq!(ours.who(&pair).await, None, "{claims}");
    }
}

#[tokio::test]
async fn the_user_is_looked_up_where_the_answer_names_nobody() {
    let toml =
        "[identity]\nfrom = \"look_up\"\nurl = \"https://{host}/me\"\npointer = \"/user/id\"";
    let body = r#"{"access_token":"S3CRET-access","user":{"id":42}}"#;
    let (base, mut asked) = listening(body).await;
    let ours = provider(&base, toml).build().unwrap();
    let outcome = ours.exchange(secret("code"), "https://a/cb", &pkce()).await;
    assert_eq!(user_of(&outcome), None);
    let pair = Store::new().settled(&app(), outcome).await;
    asked.recv().await.unwrap();
    assert_eq!(ours.who(&pair).await, Some(User::new("42").unwrap()));
    let asked = asked.recv().await.unwrap();
    assert!(asked.starts_with("GET /me HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: Bearer S3CRET-access\r\n"), "{asked}");
    for status in ["401 Unauthorized", "500 Oops"] {
        let refusing = provider(&answering(status, "", body).await, toml).build().unwrap();
        assert_eq!(refusing.who(&pair).await, None);
    }
}

#[tokio::test]
async fn approvals_are_listed_from_the_pairs_own_instance() {
    let records = r#""records":[{"AppName":"Ours","UserId":"005","UseCount":2,
        "LastUsedDate":"2026-11-20","DeleteToken":"S3CRET-delete"}]"#;
    let answer_at = |instance: &str| {
        format!(
            r#"{{"access_token":"S3CRET-a","refresh_token":"S3CRET-r","instance_url":"{instance}",
               {records}}}"#
        )
    };
    // An instance that is none of the provider's hosts gets no token.
    let (elsewhere, mut never) = listening("{}").await;
    let (base, mut asked) = listening(&answer_at(&elsewhere)).await;
    let app = App::new("salesforce", "client-1").unwrap();
    let ours = Provider::salesforce(app.clone(), secret("client"), &base).build().unwrap();
    let outcome = ours.exchange(secret("code"), "https://a/cb", &pkce()).await;
    let pair = Store::new().settled(&app, outcome).await;
    asked.recv().await.unwrap();
    assert_eq!(ours.approvals(&pair).await, None);
    assert!(never.try_recv().is_err(), "nothing was sent");

    let (home, mut asked) = listening(&answer_at("https://acme.my.salesforce.com")).await;
    let body = answer_at(&home);
    let ours = Provider::salesforce(app.clone(), secret("client"), &home).build().unwrap();
    let response = tokenwal::TokenResponse::parse(body.into_bytes(), 1_700_000_000_000).unwrap();
    let response = response.with_token_endpoint(ours.token_endpoint().to_owned());
    let pair = Store::new().settled(&app, Outcome::Issued(response)).await;
    let listed = ours.approvals(&pair).await.unwrap();
    assert!(asked.recv().await.unwrap().starts_with(
        "GET /services/data/v62.0/query?q=SELECT+AppName,UserId,UseCount,LastUsedDate,DeleteToken\
         +FROM+OauthToken HTTP/1.1\r\n"
    ));
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].app.as_deref(), listed[0].uses), (Some("Ours"), Some(2)));
    shown(&listed);
}

#[tokio::test]
async fn a_standing_grant_is_minted_as_configured() {
    let body = r#"{"access_token":"S3CRET-access","token_type":"Bearer"}"#;
    let (base, mut asked) = listening(body).await;
    let account = Account::new(app(), User::new("robot").unwrap());
    let scopes = ["api".to_owned(), "read".to_owned()];
    let not_configured = provider(&base, "").build().unwrap();
    assert_eq!(told(&not_configured.mint(&account, &scopes).await), "not sent GivenUp");

    let ours = provider(&base, "").mint(Mint::ClientCredentials).build().unwrap();
    assert_eq!(told(&ours.mint(&account, &scopes).await), "issued");
    let request = asked.recv().await.unwrap();
    assert!(request.contains("authorization: Basic "), "{request}");
    assert!(request.ends_with("\r\n\r\ngrant_type=client_credentials&scope=api+read"), "{request}");

    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let der = BASE64_STANDARD.encode(pair.to_pkcs8v1().unwrap());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n");
    let key = || SigningKey::from_pem(&Secret::new(pem.clone())).unwrap();
    let bearer = Mint::JwtBearer { subject: None, audience: Some("https://login".to_owned()) };
    let refused = provider(&base, "").mint(bearer.clone()).build();
    assert!(matches!(refused, Err(ProviderError::Missing("signing key"))));
    let ours = provider(&base, "").mint(bearer).signing_key(key()).build().unwrap();
    assert_eq!(told(&ours.mint(&account, &[]).await), "issued");
    let request = asked.recv().await.unwrap();
    let (_, form) = request.split_once("\r\n\r\n").unwrap();
    let assertion = form
        .strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=")
        .unwrap();
    let claims = claims_of(assertion);
    assert_eq!((&claims["iss"], &claims["sub"]), (&"client-1".into(), &"robot".into()));
    assert_eq!(claims["aud"], "https://login");

    let ours = provider(&base, "").client_auth(ClientAuth::PrivateKeyJwt).signing_key(key());
    let ours = ours.build().unwrap();
    assert_eq!(told(&ours.refresh(&secret("refresh")).await), "issued");
    let request = asked.recv().await.unwrap();
    assert!(!request.contains("authorization") && !request.contains("S3CRET-client"), "{request}");
    let (_, assertion) = request.rsplit_once("client_assertion=").unwrap();
    let claims = claims_of(assertion);
    assert_eq!((&claims["iss"], &claims["sub"]), (&"client-1".into(), &"client-1".into()));
    assert_eq!(claims["aud"], ours.token_endpoint());
}

fn claims_of(assertion: &str) -> serde_json::Value {
    let payload = assertion.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_is_deleted_where_that_is_how_one_revokes() {
    let (base, mut asked) =
        server(vec![Step::Read, Step::Write(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())]).await;
    let github = Profile::builtin("github").unwrap();
    let ours = Provider::builder(app(), "https://github.com/login/oauth/access_token")
        .profile(github)
        .client_secret(secret("client"))
        .revocation_endpoint(&format!("{base}/applications/client-1/token"));
    let ours = ours.build().unwrap();
    assert_eq!(told(&ours.revoke(&secret("a\"b")).await), "revoked");
    let request = asked.recv().await.unwrap();
    assert!(request.starts_with("DELETE /applications/client-1/token HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Basic "), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"access_token\":\"S3CRET-a\\\"b\"}"), "{request}");
}

#[tokio::test]
async fn errors_under_status_200_are_refusals() {
    let body = r#"{"error":"bad_verification_code","error_description":"The code is expired."}"#;
    let base = answering("200 OK", "", body).await;
    let ours = Provider::builder(app(), &format!("{base}/token"))
        .profile(Profile::builtin("github").unwrap())
        .client_secret(secret("client"));
    let ours = ours.build().unwrap();
    let outcome = ours.exchange(secret("code"), "https://a/cb", &pkce()).await;
    assert_eq!(told(&outcome), "refused Suspended 200");
}

#[tokio::test]
async fn a_lifetime_that_nobody_declares_is_assumed() {
    let expiry = "[expiry]\nfrom = \"assumed\"\naccess_seconds = 7200";
    for (body, toml, own, expected) in [
        (r#"{"access_token":"a"}"#, expiry, None, Some(7200)),
        (r#"{"access_token":"a"}"#, expiry, Some(60), Some(60)),
        (r#"{"access_token":"a"}"#, "", None, None),
        (r#"{"access_token":"a","expires_in":30}"#, expiry, Some(60), Some(30)),
    ] {
        let base = answering("200 OK", "", body).await;
        let mut ours = provider(&base, toml);
        if let Some(seconds) = own {
            ours = ours.access_lifetime(std::time::Duration::from_secs(seconds));
        }
        let outcome = ours.build().unwrap().refresh(&secret("refresh")).await;
        let Outcome::Issued(response) = outcome else { panic!("issued") };
        let pair = response.expires_at_ms();
        let now_ms = tokenwal::Clock::now_ms(&tokenwal::SystemClock);
        let left = pair.map(|at_ms| at_ms.saturating_sub(now_ms).div_ceil(1000));
        let near = |left: u64, expected: u64| left <= expected && left + 5 >= expected;
        assert_eq!(left.is_some(), expected.is_some(), "{body} {toml}");
        assert!(left.zip(expected).is_none_or(|(left, expected)| near(left, expected)), "{left:?}");
    }
}

#[tokio::test]
async fn users_are_sent_with_what_the_provider_needs() {
    let google = Profile::builtin("google").unwrap();
    let ours = Provider::at(google, app(), "https://accounts.google.com").unwrap();
    let ours = ours.authorization_parameter("prompt", "select_account").build().unwrap();
    let approval = |scopes| Approval {
        redirect_uri: "https://a/cb",
        scopes,
        state: "s-1",
        challenge: "c-1",
        nonce: "n-1",
    };
    let scopes = ["openid".to_owned(), "https://www.googleapis.com/auth/drive".to_owned()];
    let url = Upstream::authorization_url(&ours, approval(&scopes)).unwrap();
    let (place, query) = url.split_once('?').unwrap();
    assert_eq!(place, "https://accounts.google.com/o/oauth2/v2/auth");
    let mut pairs: Vec<&str> = query.split('&').collect();
    pairs.sort_unstable();
    assert_eq!(
        pairs,
        [
            "access_type=offline",
            "client_id=client-1",
            "code_challenge=c-1",
            "code_challenge_method=S256",
            "nonce=n-1",
            "prompt=select_account",
            "redirect_uri=https%3A%2F%2Fa%2Fcb",
            "response_type=code",
            "scope=openid+https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fdrive",
            "state=s-1",
        ]
    );
    let without = Upstream::authorization_url(&ours, approval(&scopes[1..])).unwrap();
    assert!(!without.contains("nonce"), "{without}");
    let generic = Provider::at(Profile::rfc6749(), app(), "https://a.example");
    assert!(matches!(generic, Err(ProviderError::Missing("token endpoint"))));
    let okta = Provider::at(Profile::builtin("okta").unwrap(), app(), "acme.okta.com");
    assert!(matches!(okta, Err(ProviderError::Url { what: "host" })));
}

#[tokio::test]
async fn a_broker_makes_its_calls_through_it() {
    let config = SandboxConfig::new();
    let app = App::new("salesforce", config.client_id()).unwrap();
    let client = Secret::new(config.client_secret().to_owned());
    let sandbox = Sandbox::start(config).await.unwrap();
    let ours = Provider::salesforce(app.clone(), client, sandbox.url()).build().unwrap();
    let upstream: std::sync::Arc<dyn Upstream> = std::sync::Arc::new(ours);
    let (code, verifier) =
        (sandbox.code_for("alice").unwrap(), secret("verifier-of-43-characters-or-more-as-it-is"));
    let redirect_uri = "http://127.0.0.1:9/cb";
    let code = Code { code: &code, redirect_uri, verifier: &verifier, nonce: "n-1" };
    let store = Store::new();
    let first = store.settled(&app, upstream.exchange(code).await).await;
    assert_eq!(first.user(), sandbox.user("alice").as_ref());
    assert_eq!(upstream.who(&first).await, sandbox.user("alice"));
    for which in [Which::Access, Which::Refresh] {
        let (told, _) = upstream.introspect(&first, which).await;
        assert!(told.unwrap().active, "{which:?}");
    }
    let account = Account::new(app, sandbox.user("alice").unwrap());
    assert_eq!(told(&upstream.mint(&account, &[]).await), "not sent GivenUp");
    assert_eq!(told(&upstream.refresh(&first).await), "issued");
    assert_eq!(told(&upstream.revoke(&first).await), "revoked");
    assert!(!sandbox.is_alive(first.refresh_token().unwrap().reveal()));
    assert_eq!(upstream.who(&first).await, None, "a dead token names nobody");
}

#[tokio::test]
async fn scopes_are_named_in_a_refresh_only_where_they_are_asked_for() {
    let body = r#"{"access_token":"S3CRET-access","refresh_token":"S3CRET-refresh"}"#;
    let (base, mut asked) = listening(body).await;
    let (elsewhere, mut never) = listening(body).await;
    let ours = provider(&base, "").build().unwrap();
    let store = Store::new();
    let exchanged = ours.exchange(secret("code"), "https://a/cb", &pkce()).await;
    let pair = store.settled(&app(), exchanged).await;
    asked.recv().await.unwrap();
    let scopes = ["mail".to_owned(), "a/b:c".to_owned()];
    let form = async |outcome: &Outcome, asked: &mut UnboundedReceiver<String>| {
        assert_eq!(told(outcome), "issued");
        let request = asked.recv().await.unwrap();
        request.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    let named = form(&ours.refresh_for(&pair, &scopes).await, &mut asked).await;
    let start = "grant_type=refresh_token&refresh_token=S3CRET-refresh";
    assert!(named.starts_with(&format!("{start}&scope=mail+a%2Fb%3Ac")), "{named}");
    for outcome in [
        Upstream::refresh(&ours, &pair).await,
        ours.refresh_for(&pair, &[]).await,
        ours.refresh_at(ours.token_endpoint(), &secret("refresh")).await,
    ] {
        let plain = form(&outcome, &mut asked).await;
        assert!(plain.starts_with(start) && !plain.contains("scope"), "{plain}");
    }
    let theirs = provider(&elsewhere, "").build().unwrap();
    assert_eq!(told(&theirs.refresh_for(&pair, &scopes).await), "not sent GivenUp");
    assert!(never.try_recv().is_err(), "nothing was sent");
}
