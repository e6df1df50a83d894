//! What a broker counts: every number by what made it, and no label that names anybody.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test may")]
#![cfg(all(feature = "metrics", feature = "client", feature = "sandbox"))]

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokenwal::broker::{AppConfig, Authorize, Broker, BrokerError, Choice};
use tokenwal::ledger::MemoryLedger;
use tokenwal::profile::Profile;
use tokenwal::provider::Provider;
use tokenwal::sandbox::{Fault, Sandbox, SandboxConfig};
use tokenwal::{App, Holder};

/// A number, and how often it was told.
#[derive(Debug, Default)]
struct Cell(Mutex<(f64, u64)>);

impl Cell {
    fn change(&self, by: impl FnOnce(f64) -> f64) {
        let mut cell = self.0.lock().unwrap();
        *cell = (by(cell.0), cell.1 + 1);
    }
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.change(|now| now + f64::from(u32::try_from(value).unwrap()));
    }

    fn absolute(&self, _: u64) {
        panic!("nobody sets a counter");
    }
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        self.change(|now| now + value);
    }

    fn decrement(&self, value: f64) {
        self.change(|now| now - value);
    }

    fn set(&self, value: f64) {
        self.change(|_| value);
    }
}

impl HistogramFn for Cell {
    fn record(&self, value: f64) {
        self.change(|now| now + value);
    }
}

/// Keeps what is registered, by its name and labels.
#[derive(Debug, Default)]
struct Numbers {
    cells: Mutex<BTreeMap<String, Arc<Cell>>>,
    described: Mutex<BTreeSet<String>>,
}

impl Numbers {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.cells.lock().unwrap().entry(name).or_default())
    }

    fn of(&self, name: &str) -> f64 {
        self.told(name).0
    }

    fn told(&self, name: &str) -> (f64, u64) {
        let cells = self.cells.lock().unwrap();
        let cell = cells.get(name).unwrap_or_else(|| panic!("{name} of {:?}", cells.keys()));
        *cell.0.lock().unwrap()
    }
}

impl Recorder for Numbers {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.described.lock().unwrap().insert(name.as_str().to_owned());
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, what: SharedString) {
        self.describe_counter(name, unit, what);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, what: SharedString) {
        assert_eq!(unit, Some(Unit::Seconds));
        self.describe_counter(name, unit, what);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.cell(key))
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn every_number_is_counted_where_it_comes_from() {
    let sandbox = Sandbox::start(SandboxConfig::new().profile(&Profile::salesforce())).await;
    let sandbox = sandbox.unwrap();
    let config = SandboxConfig::new();
    let app = App::new("salesforce", config.client_id()).unwrap();
    let secret = tokenwal::Secret::new(config.client_secret().to_owned());
    let provider = Provider::salesforce(app.clone(), secret, sandbox.url()).build().unwrap();
    let numbers = Numbers::default();
    let app_config = AppConfig::new(app.clone(), Arc::new(provider), Profile::salesforce());
    let app_config =
        app_config.redirect_uri("http://127.0.0.1:9/callback").assumed_lifetime(MINUTE);
    let builder = Broker::builder(MemoryLedger::new()).app(app_config);
    let broker = metrics::with_local_recorder(&numbers, || builder.build());
    assert_eq!(numbers.of("tokenwal_tokens_total{how=current}"), 0.0, "there from the start");

    let holder = Holder::new("acme", "sync").unwrap();
    let sent = broker.authorize(&Authorize::new(&app, &holder, ["api"])).unwrap();
    let url = reqwest::Url::parse(&sent.url).unwrap();
    let state = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let code = sandbox.code_for("alice").unwrap();
    let mut query = url.clone();
    query.query_pairs_mut().clear().append_pair("code", code.reveal()).append_pair("state", &state);
    let connected = broker.callback(query.query().unwrap(), sent.cookie.reveal()).await.unwrap();
    let (account, grant) = (connected.account, connected.grant);
    let issued = "tokenwal_calls_total{provider=salesforce,action=exchange,outcome=issued}";
    assert_eq!(numbers.of(issued), 1.0);
    let (seconds, calls) =
        numbers.told("tokenwal_call_seconds{provider=salesforce,action=exchange}");
    assert!(calls == 1 && seconds > 0.0 && seconds < 60.0, "{seconds}");
    assert_eq!(numbers.of("tokenwal_events_total{event=issued}"), 1.0);

    broker.access_token(account, &["api"], Duration::ZERO).await.unwrap();
    assert_eq!(numbers.of("tokenwal_tokens_total{how=current}"), 1.0);
    let (one, other) = tokio::join!(broker.refresh(account, grant), broker.refresh(account, grant));
    assert_eq!(one.unwrap().generation(), other.unwrap().generation());
    assert_eq!(numbers.of("tokenwal_refreshes_total{how=made}"), 1.0);
    assert_eq!(numbers.of("tokenwal_refreshes_total{how=joined}"), 1.0);
    assert_eq!(numbers.of("tokenwal_tokens_total{how=refreshed}"), 2.0);

    sandbox.inject(Fault::DropAfterCommit);
    let doubt = broker.refresh(account, grant).await.unwrap_err();
    let BrokerError::InDoubt { op, .. } = doubt else { panic!("{doubt}") };
    let in_doubt = "tokenwal_calls_total{provider=salesforce,action=refresh,outcome=in_doubt}";
    assert_eq!(numbers.of(in_doubt), 1.0);
    assert_eq!(numbers.of("tokenwal_in_doubt{}"), 1.0);
    broker.resolve(account, op, Choice::Waive).await.unwrap();
    assert_eq!(numbers.of("tokenwal_in_doubt{}"), 0.0);
    assert_eq!(numbers.of("tokenwal_events_total{event=resolved}"), 1.0);

    let circuit = "tokenwal_circuit_open{provider=salesforce}";
    // The one that was cut has failed as well.
    for _ in 0..4 {
        assert_eq!(numbers.of(circuit), 0.0);
        sandbox.inject(Fault::TooManyRequests { retry_after_s: 0 });
        let busy = broker.refresh(account, grant).await.unwrap_err();
        assert!(matches!(busy, BrokerError::Refused { .. }), "{busy}");
    }
    assert_eq!(numbers.of(circuit), 1.0);
    broker.access_token(account, &["api"], 60 * MINUTE).await.unwrap();
    assert_eq!(numbers.of("tokenwal_tokens_total{how=assumed}"), 1.0);

    assert!(broker.shutdown(MINUTE).await);
    assert_eq!(numbers.of("tokenwal_tasks{}"), 0.0);
    assert!(numbers.told("tokenwal_tasks{}").1 > 2, "tasks came and went");
    let cells = numbers.cells.lock().unwrap();
    let described = numbers.described.lock().unwrap();
    for name in cells.keys() {
        let (name, labels) = name.trim_end_matches('}').split_once('{').unwrap();
        assert!(described.contains(name), "{name} is not described");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').unwrap();
            assert!(["provider", "action", "outcome", "how", "event"].contains(&key), "{label}");
            let word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(value.bytes().all(word), "{label}");
        }
    }
    assert_eq!(described.len(), 8);
}
