//! The real OAuth server as a child process, and what its log says.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokenwal::provider::{Provider, ProviderBuilder, Rotation};
use tokenwal::{App, Secret};

/// How long a request or an answer may have been under way at a kill: in sockets, and in a server
/// that has one thread and much to do.
const ON_ITS_WAY_MS: u64 = 2000;
/// How long the server may take to finish what it has begun.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the server is, and how to ask it. The secret is worth nothing elsewhere.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Endpoints {
    pub(crate) url: String,
    token_endpoint: String,
    revocation_endpoint: String,
    introspection_endpoint: String,
    client_id: String,
    client_secret: String,
    pub(crate) redirect_uri: String,
}

impl Endpoints {
    pub(crate) fn app(&self) -> App {
        App::new("oidc-provider", &*self.client_id).unwrap()
    }

    pub(crate) fn provider(&self) -> Provider {
        self.builder().build().unwrap()
    }

    pub(crate) fn builder(&self) -> ProviderBuilder {
        Provider::builder(self.app(), &self.token_endpoint)
            .client_secret(Secret::new(self.client_secret.clone()))
            .authorization_endpoint(&format!("{}/auth", self.url))
            .revocation_endpoint(&self.revocation_endpoint)
            .introspection_endpoint(&self.introspection_endpoint)
            .rotation(Rotation::On)
    }
}

/// The server. It ends when its standard input closes, which is when this is dropped.
pub(crate) struct Server {
    pub(crate) endpoints: Endpoints,
    log_file: PathBuf,
    /// How much of the log was read.
    read_bytes: u64,
    log: Log,
    child: Child,
}

impl Server {
    /// Starts it with delays on both sides of what it commits, for kills to fall into.
    pub(crate) async fn start(dir: &Path) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc/server.mjs");
        let log_file = dir.join("server.log");
        std::fs::write(&log_file, "").unwrap();
        let mut child = Command::new("node")
            .arg(program)
            .arg("--log")
            .arg(&log_file)
            .args(["--before-ms", "12", "--after-ms", "12"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node is installed: see tests/run");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let endpoints = serde_json::from_str(&line)
            .expect("the server starts once `npm --prefix tests/oidc ci` was run");
        Self { endpoints, log_file, read_bytes: 0, log: Log::default(), child }
    }

    /// Waits until the server has done with every request, and returns all that it logged.
    pub(crate) async fn log_at_rest(&mut self) -> &Log {
        // What a dead client sent may still wait in a socket: it is read before what comes later.
        for _ in 0..3 {
            let nobody = format!("{}/test/grants?user=nobody", self.endpoints.url);
            reqwest::get(nobody).await.expect("the server answers");
        }
        let patience = async {
            loop {
                self.read_on();
                if self.log.is_at_rest() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, patience).await.expect("the server finishes what it began");
        &self.log
    }

    fn read_on(&mut self) {
        let mut file = std::fs::File::open(&self.log_file).unwrap();
        file.seek(SeekFrom::Start(self.read_bytes)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        // The last line may be in the making.
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        self.read_bytes += whole as u64;
        for line in text[..whole].lines() {
            self.log.add(serde_json::from_str(line).unwrap());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A line of the log. Tokens are hashes.
#[derive(Deserialize)]
struct Line {
    n: u64,
    at: u64,
    event: String,
    route: Option<String>,
    grant_type: Option<String>,
    presented: Option<String>,
    spent: Option<bool>,
    refresh: Option<String>,
}

/// What the server saw, request by request.
#[derive(Default)]
pub(crate) struct Log {
    requests: BTreeMap<u64, Request>,
}

#[derive(Default, Debug)]
struct Request {
    route: String,
    grant_type: Option<String>,
    presented: Option<String>,
    spent: Option<bool>,
    started_at: u64,
    committed: bool,
    refused: bool,
    /// The refresh token that was issued.
    issued: Option<String>,
    /// When the whole answer had left; none if the connection went first.
    answered_at: Option<u64>,
    aborted: bool,
}

impl Request {
    /// Says whether the request or its answer may have been on its way at the kill. The server may
    /// have taken up a dead client's request after it.
    fn is_open_at(&self, killed_at_ms: u64) -> bool {
        self.started_at <= killed_at_ms + ON_ITS_WAY_MS
            && self.answered_at.is_none_or(|at| at + ON_ITS_WAY_MS >= killed_at_ms)
    }
}

impl Log {
    fn add(&mut self, line: Line) {
        let request = self.requests.entry(line.n).or_default();
        match line.event.as_str() {
            "started" => {
                request.started_at = line.at;
                request.route = line.route.unwrap();
                (request.grant_type, request.presented) = (line.grant_type, line.presented);
                request.spent = line.spent;
            }
            "committed" => (request.committed, request.issued) = (true, line.refresh),
            "refused" => request.refused = true,
            "answered" => request.answered_at = Some(line.at),
            "aborted" => request.aborted = true,
            other => panic!("the log has a line of an unknown kind: {other}"),
        }
    }

    fn is_at_rest(&self) -> bool {
        // From the end: what is open is new.
        self.requests.values().rev().all(|request| {
            (request.committed || request.refused)
                && (request.answered_at.is_some() || request.aborted)
        })
    }

    /// Counts the requests.
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Counts the requests by this grant type that were carried out.
    pub(crate) fn granted(&self, grant_type: &str) -> usize {
        let granted = |request: &&Request| {
            request.committed && request.grant_type.as_deref() == Some(grant_type)
        };
        self.requests.values().filter(granted).count()
    }

    /// Counts how often a token was presented that had been spent before. To ask about one spends
    /// nothing.
    pub(crate) fn spent_presented(&self) -> usize {
        let spent =
            |request: &&Request| request.spent == Some(true) && request.route != "introspection";
        self.requests.values().filter(spent).count()
    }

    /// Returns the hashes of all that was presented.
    pub(crate) fn presented(&self) -> HashSet<String> {
        self.requests.values().filter_map(|request| request.presented.clone()).collect()
    }

    /// Returns the hashes of all refresh tokens that were issued.
    pub(crate) fn issued(&self) -> impl Iterator<Item = &String> {
        self.requests.values().filter_map(|request| request.issued.as_ref())
    }

    /// Says whether a request of this route was carried out with this token.
    pub(crate) fn committed(&self, route: &str, token: &str) -> bool {
        self.requests.values().any(|request| {
            request.committed
                && request.route == route
                && request.presented.as_deref() == Some(token)
        })
    }

    /// Returns the token that a refresh with this one was carried out to issue.
    pub(crate) fn refreshed_to(&self, token: &str) -> Option<String> {
        let mut requests = self.requests.values();
        let request = requests.find(|request| {
            request.committed
                && request.route == "token"
                && request.presented.as_deref() == Some(token)
        });
        request?.issued.clone()
    }

    /// Returns the token that a refresh in doubt issued, if it reached the server; the answer must
    /// have been on its way at the kill.
    pub(crate) fn successor(&self, token: &str, killed_at_ms: u64) -> Option<String> {
        let mut with_it = self.requests.values().filter(|request| {
            request.route == "token" && request.presented.as_deref() == Some(token)
        });
        let request = with_it.next()?;
        assert!(with_it.next().is_none(), "a refresh token was presented twice");
        assert!(request.is_open_at(killed_at_ms), "at the kill, {killed_at_ms}: {request:?}");
        assert!(!request.refused, "the newest token was refused");
        request.issued.clone()
    }

    /// Returns the refresh token of an exchange that nobody knows of; its answer must have been on
    /// its way at the kill.
    pub(crate) fn unseen_exchange(
        &self,
        known: &HashSet<String>,
        killed_at_ms: u64,
    ) -> Option<String> {
        let request = self.requests.values().find(|request| {
            request.grant_type.as_deref() == Some("authorization_code")
                && request.issued.as_ref().is_some_and(|issued| !known.contains(issued))
        })?;
        assert!(request.is_open_at(killed_at_ms), "at the kill, {killed_at_ms}: {request:?}");
        request.issued.clone()
    }
}
