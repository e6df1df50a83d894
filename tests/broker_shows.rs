//! What a broker shows of itself when everything goes wrong: errors, events, traces, and never a
//! secret. Alone in its process, for the trace is of all threads.
//!
//! The provider is one made by hand that says back, wherever it can, all that it was ever sent or
//! has ever issued.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "a test may"
)]
#![cfg(feature = "client")]

#[path = "tracing/forms.rs"]
mod forms;

use forms::{Forms, Sentinels};
use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokenwal::broker::{AppConfig, Authorize, Broker, BrokerError, Choice, Connected, Events};
use tokenwal::ledger::MemoryLedger;
use tokenwal::profile::Profile;
use tokenwal::provider::Provider;
use tokenwal::{Account, App, Holder, Import, Secret, TokenResponse, User};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tracing_subscriber::filter::LevelFilter;

/// Rotation is off, so that what is in doubt is over with the next answer; the cap is two.
const PROFILE: &str = r#"
name = "echo"
[rotation]
value = "never"
[cap]
number = 3
guard = 2
counts = "grants"
per = "user_app"
overflow = "oldest_revoked"
outside = 0
[[errors]]
asked = ["refresh"]
error = "dead_grant"
meaning = "dead"
"#;

/// How the provider answers next.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Issue,
    /// Refuses with this status and error, and says everything back.
    Refuse(&'static str, &'static str),
    /// Says everything back as a page.
    Page(&'static str),
    /// Cuts the connection within an answer with tokens.
    Cut,
}

#[derive(Default)]
struct Echo {
    sentinels: Sentinels,
    /// All secrets so far.
    said: Vec<String>,
    mood: Option<Mood>,
}

impl Echo {
    fn draw(&mut self) -> String {
        let secret = self.sentinels.draw();
        self.said.push(secret.clone());
        secret
    }

    fn answer(&mut self, request: &str) -> Vec<u8> {
        // Of what it ever knew the newest, and the request itself.
        let newest: Vec<_> = self.said.iter().rev().take(4).cloned().collect();
        let echo = format!("{} {}", newest.join(" "), request.replace(['\r', '\n', '"'], " "));
        let (status, body) = match self.mood.unwrap_or(Mood::Issue) {
            Mood::Issue | Mood::Cut => {
                let [access, refresh, id] = [self.draw(), self.draw(), self.draw()];
                let body = format!(
                    "{{\"access_token\":\"{access}\",\"refresh_token\":\"{refresh}\",\
                     \"id_token\":\"{id}\",\"other\":\"{access}\",\"expires_in\":3600}}"
                );
                ("200 OK", body)
            }
            Mood::Refuse(status, error) => {
                let body = format!("{{\"error\":\"{error}\",\"error_description\":\"{echo}\"}}");
                (status, body)
            }
            Mood::Page(status) => (status, format!("<html>{echo}</html>")),
        };
        let length = body.len();
        let mut answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\
             x-request-id: {}\r\n\r\n{body}",
            "r".repeat(8)
        )
        .into_bytes();
        if matches!(self.mood, Some(Mood::Cut)) {
            answer.truncate(answer.len() - 10);
        }
        answer
    }
}

/// Serves the provider, and returns its address.
async fn serve(echo: Arc<Mutex<Echo>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            while !is_whole(&request) {
                match stream.read(&mut piece).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => request.extend_from_slice(&piece[..read]),
                }
            }
            let answer = echo.lock().unwrap().answer(&String::from_utf8_lossy(&request));
            let _ = stream.write_all(&answer).await;
        }
    });
    base
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    body.len() >= length.map_or(0, |digits| digits.parse().unwrap())
}

/// All that was shown, and which errors and events it was.
#[derive(Default)]
struct Shown {
    text: String,
    errors: BTreeSet<String>,
    events: BTreeSet<String>,
}

impl Shown {
    fn value(&mut self, value: &impl Debug) {
        writeln!(self.text, "{value:?} {value:#?}").unwrap();
    }

    fn error<T: Debug>(&mut self, came: Result<T, BrokerError>) {
        let error = came.unwrap_err();
        let name = format!("{error:?}");
        let name = name.split([' ', '(', '{']).next().unwrap();
        self.errors.insert(name.to_owned());
        writeln!(self.text, "{error} {} {:?}", error.advice(), error.remedy()).unwrap();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            writeln!(self.text, "{error} {error:?}").unwrap();
            cause = error.source();
        }
        self.value(&error);
    }

    async fn events(&mut self, events: &mut Events) {
        while let Ok(Some(event)) =
            tokio::time::timeout(Duration::from_millis(20), events.next()).await
        {
            let json = serde_json::to_value(&event).unwrap();
            self.events.insert(json["event"].as_str().unwrap().to_owned());
            writeln!(self.text, "{json}").unwrap();
            self.value(&event);
        }
    }
}

struct Service {
    echo: Arc<Mutex<Echo>>,
    base: String,
    secret: String,
    ledger: MemoryLedger,
    broker: Broker<MemoryLedger>,
    app: App,
    shown: Shown,
}

impl Service {
    fn broker(&self) -> Broker<MemoryLedger> {
        let profile = Profile::from_toml(PROFILE).unwrap();
        let provider = Provider::builder(self.app.clone(), &format!("{}/token", self.base))
            .client_secret(Secret::new(self.secret.clone()))
            .authorization_endpoint(&format!("{}/authorize", self.base))
            .revocation_endpoint(&format!("{}/revoke", self.base))
            .introspection_endpoint(&format!("{}/introspect", self.base))
            .profile(profile.clone())
            .build()
            .unwrap();
        let config = AppConfig::new(self.app.clone(), Arc::new(provider), profile);
        let config = config.redirect_uri("https://service.example/callback");
        Broker::builder(self.ledger.clone()).app(config).build()
    }

    fn mood(&self, mood: Mood) {
        self.echo.lock().unwrap().mood = Some(mood);
    }

    fn holder(&self) -> Holder {
        Holder::new("acme", "sync").unwrap()
    }

    /// Sends a user off; gives the query of the callback with a code, and the cookie.
    fn sent(&self) -> (String, String, String) {
        let alice = User::new("alice").unwrap();
        let asked = Authorize::new(&self.app, &self.holder(), ["api"]).user(&alice);
        let sent = self.broker.authorize(&asked).unwrap();
        let url = reqwest::Url::parse(&sent.url).unwrap();
        let state = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        let mut query = url.clone();
        let code = self.echo.lock().unwrap().draw();
        let pairs = [("code", code.as_str()), ("state", state.as_str())];
        query.query_pairs_mut().clear().extend_pairs(pairs);
        let cookie = sent.cookie.reveal().to_owned();
        (query.query().unwrap().to_owned(), cookie, code)
    }

    async fn connect(&self) -> Result<Connected, BrokerError> {
        let (query, cookie, _) = self.sent();
        self.broker.callback(&query, &cookie).await
    }
}

#[derive(Clone, Default)]
struct Trace(Arc<Mutex<Vec<u8>>>);

impl io::Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_error_event_or_trace_shows_a_secret() {
    let trace = Trace::default();
    let writer = trace.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (service, cookies) = runtime.block_on(everything());
    let traced = String::from_utf8(trace.0.lock().unwrap().clone()).unwrap();
    assert!(traced.contains("refused") && traced.contains("tokenwal"), "{traced}");
    let echo = service.echo.lock().unwrap();
    assert!(echo.sentinels.count() > 20);
    assert!(echo.sentinels.contains(service.secret.as_bytes()), "what is looked for is found");
    let shown = &service.shown;
    for (what, text) in [("a trace", &traced), ("an error or event", &shown.text)] {
        let leak = text.lines().find(|line| echo.sentinels.contains(line.as_bytes()));
        assert_eq!(leak, None, "{what} shows a secret");
        echo.sentinels.absent(what, text.as_bytes());
        for cookie in &cookies {
            Forms::of(cookie).absent(what, text.as_bytes());
        }
        assert!(!text.contains("<html>"), "{what} shows a body");
    }
    assert!(shown.text.contains("[redacted]"), "what was said back was met");
    for name in [
        "Callback",
        "CapReached",
        "Choice",
        "Closed",
        "Denied",
        "InDoubt",
        "Ledger",
        "NeedsAuthorization",
        "NotNow",
        "NotSent",
        "NotStored",
        "Paused",
        "Refused",
        "UnknownAccount",
        "UnknownApp",
        "WouldKill",
    ] {
        assert!(shown.errors.contains(name), "{name} was not met: {:?}", shown.errors);
    }
    let met = [
        "ended",
        "in_doubt",
        "issued",
        "near_cap",
        "not_stored",
        "refreshed",
        "resolved",
        "suspended",
    ];
    for event in met {
        assert!(shown.events.contains(event), "{event} was not met: {:?}", shown.events);
    }
}

async fn everything() -> (Service, Vec<String>) {
    let mut echo = Echo::default();
    let secret = echo.draw();
    let echo = Arc::new(Mutex::new(echo));
    let base = serve(Arc::clone(&echo)).await;
    let app = App::new("echo", "client-1").unwrap();
    let ledger = MemoryLedger::new();
    let broker = Broker::builder(ledger.clone()).build();
    let shown = Shown::default();
    let mut service = Service { echo, base, secret, ledger, broker, app, shown };
    service.broker = service.broker();
    let mut events = service.broker.events();
    let cookies = callbacks(&mut service).await;
    refreshes(&mut service).await;
    service.shown.events(&mut events).await;
    let mut events = service.broker.events();
    cap_and_choices(&mut service).await;
    service.shown.events(&mut events).await;
    endings(&mut service).await;
    (service, cookies)
}

async fn callbacks(service: &mut Service) -> Vec<String> {
    let (query, cookie, code) = service.sent();
    let broker = service.broker.clone();
    let other = query.replace("state=", "state=x");
    let twice = format!("{query}&{query}");
    let state = query.split_once("&").unwrap().1;
    let code_in_error = format!("{query}&error={code}&error_description=no+{code}+{cookie}");
    for (query, cookie) in [
        (query.as_str(), code.as_str()),
        (query.as_str(), &format!("{cookie}x")),
        (&other, &cookie),
        (&twice, &cookie),
        (&code_in_error.replace('%', "%25").replace('+', "%2B"), &cookie),
        (state, &cookie),
    ] {
        service.shown.error(broker.callback(query, cookie).await);
    }
    // As a provider may send it that encodes what it should.
    let mut url = reqwest::Url::parse("https://service.example/").unwrap();
    let told = format!("no {code} {cookie}");
    let pairs = [("error", code.as_str()), ("error_description", &told), ("code", &code)];
    url.query_pairs_mut().extend_pairs(pairs);
    let denied = format!("{}&{state}", url.query().unwrap());
    service.shown.error(broker.callback(&denied, &cookie).await);
    service.mood(Mood::Refuse("400 Bad Request", "invalid_grant"));
    service.shown.error(broker.callback(&query, &cookie).await);
    service.mood(Mood::Cut);
    service.shown.error(service.connect().await);
    service.mood(Mood::Page("500 Internal Server Error"));
    let doubt = service.connect().await;
    if let Err(BrokerError::InDoubt { account, op, .. }) = doubt {
        let code = Secret::new(service.echo.lock().unwrap().draw());
        service.shown.value(&code);
        service.shown.error(broker.resolve(account, op, Choice::Burn(code)).await);
        broker.resolve(account, op, Choice::Waive).await.unwrap();
    }
    service.shown.error(doubt);
    vec![cookie]
}

async fn refreshes(service: &mut Service) {
    // What was cut waits for a person, and counts.
    let account = Account::new(service.app.clone(), User::new("alice").unwrap());
    for (open, _) in service.broker.steps(&account).await.unwrap() {
        service.broker.resolve(&account, open.op, Choice::Waive).await.unwrap();
    }
    service.mood(Mood::Issue);
    let connected = service.connect().await.unwrap();
    service.shown.value(&connected);
    let (account, grant) = (connected.account, connected.grant);
    let pair = service.broker.refresh(account, grant).await.unwrap();
    service.shown.value(&pair);
    for mood in [
        Mood::Refuse("429 Too Many Requests", "slow_down"),
        Mood::Refuse("400 Bad Request", "invalid_grant"),
        Mood::Refuse("401 Unauthorized", "invalid_client"),
        Mood::Page("200 OK"),
        Mood::Page("404 Not Found"),
        Mood::Cut,
        Mood::Page("502 Bad Gateway"),
    ] {
        service.mood(mood);
        service.shown.error(service.broker.refresh(account, grant).await);
        for (open, step) in service.broker.steps(account).await.unwrap() {
            service.shown.value(&(&open, step));
            let _ = service.broker.resolve(account, open.op, Choice::NotIssued).await;
        }
        // A broker of its own, whose circuit is closed.
        service.shown.value(&service.broker.health(account).await.unwrap());
    }
    while !matches!(service.broker.refresh(account, grant).await, Err(BrokerError::NotNow { .. })) {
        for (open, _) in service.broker.steps(account).await.unwrap() {
            let _ = service.broker.resolve(account, open.op, Choice::NotIssued).await;
        }
    }
    service.shown.error(service.broker.refresh(account, grant).await);
}

async fn cap_and_choices(service: &mut Service) {
    let mut events = service.broker.events();
    service.broker = service.broker();
    let mut own = service.broker.events();
    service.mood(Mood::Issue);
    service.connect().await.unwrap();
    let connected = loop {
        match service.connect().await {
            Ok(connected) => drop(connected),
            capped => break capped,
        }
    };
    service.shown.error(connected);
    let account = Account::new(service.app.clone(), User::new("alice").unwrap());
    let view = service.broker.ledger();
    let view = tokenwal::ledger::Ledger::account(view, view_tag(view, &account)).await;
    let view = view.unwrap().unwrap();
    service.shown.value(&view);
    let living: Vec<_> = view.grants.iter().filter(|grant| grant.end.is_none()).collect();
    let (first, last) = (living[0].grant, living[living.len() - 1].grant);
    service.shown.error(service.broker.revoke(&account, first).await);
    service.shown.error(service.broker.mint(&account, &["api"]).await);
    service.mood(Mood::Refuse("400 Bad Request", "dead_grant"));
    service.shown.error(service.broker.refresh(&account, first).await);
    service.mood(Mood::Issue);
    let body = service.echo.lock().unwrap().answer("");
    let body = String::from_utf8(body).unwrap().split_once("\r\n\r\n").unwrap().1.to_owned();
    let response = TokenResponse::parse(body.into_bytes(), 1_700_000_000_000).unwrap();
    service.shown.value(&response);
    let bob = Account::new(service.app.clone(), User::new("bob").unwrap());
    let imported = service.broker.import(Import::new(&bob, response)).await.unwrap();
    service.shown.error(service.broker.refresh(&bob, imported.grant).await);
    service.shown.error(service.broker.access_token(&account, &["none"], Duration::ZERO).await);
    let carol = Account::new(service.app.clone(), User::new("carol").unwrap());
    service.shown.error(service.broker.health(&carol).await);
    let other = App::new("other", "client").unwrap();
    service.shown.error(service.broker.authorize(&Authorize::new(&other, &service.holder(), [""])));
    // The operation of a settle that fails is told, and its outcome given back.
    service.ledger.fail_next_settle();
    service.shown.error(service.broker.refresh(&account, last).await);
    let left = service.broker.take_unsettled();
    service.shown.value(&left);
    service.shown.error(service.broker.refresh(&account, last).await);
    service.shown.events(&mut own).await;
    service.shown.events(&mut events).await;
}

fn view_tag(ledger: &MemoryLedger, account: &Account) -> tokenwal::AccountTag {
    tokenwal::ledger::Ledger::tag_of(ledger, &account.into())
}

async fn endings(service: &mut Service) {
    // What an earlier process left is asked about; nobody listens any more at the provider.
    service.ledger = service.ledger.restart();
    service.base = "http://127.0.0.1:1".to_owned();
    service.broker = service.broker();
    let mut events = service.broker.events();
    let account = Account::new(service.app.clone(), User::new("alice").unwrap());
    let bob = Account::new(service.app.clone(), User::new("bob").unwrap());
    let view = service.broker.health(&bob).await.unwrap();
    service.broker.activate(&bob, view.grant.unwrap()).await.unwrap();
    let unsent = service.broker.refresh(&bob, view.grant.unwrap()).await;
    assert!(matches!(unsent, Err(BrokerError::NotSent { .. })), "{unsent:?}");
    service.shown.error(unsent);
    service.shown.value(&service.broker.health(&account).await.unwrap());
    service.ledger.fail_writes(true);
    service.shown.error(service.broker.activate(&bob, view.grant.unwrap()).await);
    service.shown.events(&mut events).await;
    assert!(service.broker.shutdown(Duration::from_secs(60)).await);
    service.shown.error(service.broker.refresh(&bob, view.grant.unwrap()).await);
    service.shown.value(&service.broker);
}
