//! The provider's calls over real HTTP on loopback: every class of outcome, and no token shown.
//!
//! `raw` meets servers made by hand, down to the byte; `sandboxed` meets the sandbox; `journaled`
//! puts the journal between them; `profiled` meets what a profile decides.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::string_slice,
    reason = "a test may"
)]
#![cfg(all(feature = "client", feature = "sandbox"))]

mod journaled;
mod profiled;
mod raw;
mod sandboxed;

use std::time::{Duration, Instant};
use tokenwal::provider::{Pkce, Provider, ProviderBuilder};
use tokenwal::{App, Outcome, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Every secret that a test sends or gets begins with one of these.
const SECRETS: [&str; 6] = ["S3CRET", "aPrx", "5Aep861", "!AQ", "sandbox-consumer-secret", "c2ln"];

fn secret(text: &str) -> Secret {
    Secret::new(format!("S3CRET-{text}"))
}

/// Returns how a value prints, after a check that no secret stands in it.
fn shown(value: &impl std::fmt::Debug) -> String {
    let shown = format!("{value:?}");
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    shown
}

/// Returns an outcome in one line, such as `refused Dead 400`.
fn told(outcome: &Outcome) -> String {
    shown(outcome);
    match outcome {
        Outcome::Issued(_) => "issued".to_owned(),
        Outcome::Refused(refusal) => format!("refused {:?} {}", refusal.class(), refusal.status()),
        Outcome::NotSent(reason) => format!("not sent {reason:?}"),
        Outcome::InDoubt(doubt) => format!("in doubt {:?} {}", doubt.reason(), doubt.status()),
        Outcome::Revoked => "revoked".to_owned(),
        Outcome::Answered => "answered".to_owned(),
        other => panic!("an outcome that these tests do not know: {other:?}"),
    }
}

fn builder(base: &str) -> ProviderBuilder {
    let app = App::new("example", "client-1").unwrap();
    Provider::builder(app, &format!("{base}/token"))
        .client_secret(secret("client"))
        .revocation_endpoint(&format!("{base}/revoke"))
        .introspection_endpoint(&format!("{base}/introspect"))
        .timeout(Duration::from_secs(5))
}

fn pkce() -> Pkce {
    Pkce::from_verifier(secret("verifier-of-at-least-43-characters-as-the-rfc-has-it"))
}

/// What a server made by hand does with one connection.
#[derive(Clone)]
enum Step {
    /// Reads a whole request.
    Read,
    /// Writes these bytes.
    Write(Vec<u8>),
    /// Writes these bytes again and again, with a pause before each, until the caller leaves.
    Drip(Vec<u8>, Duration),
    /// Waits.
    Wait(Duration),
}

/// Serves every connection by these steps and then closes it. Unread bytes make that a reset.
async fn server(steps: Vec<Step>) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (requests, received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (steps, requests) = (steps.clone(), requests.clone());
            tokio::spawn(async move {
                for step in steps {
                    match step {
                        Step::Read => {
                            let _ = requests.send(read_message(&mut stream).await);
                        }
                        Step::Write(bytes) => {
                            let _ = stream.write_all(&bytes).await;
                        }
                        Step::Drip(bytes, pause) => loop {
                            tokio::time::sleep(pause).await;
                            if stream.write_all(&bytes).await.is_err() {
                                break;
                            }
                        },
                        Step::Wait(pause) => tokio::time::sleep(pause).await,
                    }
                }
            });
        }
    });
    (base, received)
}

/// Serves one whole answer to everybody.
async fn answering(status: &str, headers: &str, body: &str) -> String {
    server(vec![Step::Read, Step::Write(answer(status, headers, body))]).await.0
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

/// Reads a message with a `content-length`, or what there is of it.
async fn read_message(stream: &mut TcpStream) -> String {
    let mut message = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&message).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| {
                rest.split("\r\n").next().and_then(|digits| digits.parse::<usize>().ok())
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return text,
            Ok(read) => message.extend_from_slice(&buffer[..read]),
        }
    }
}

/// Makes a request by hand, as a naive service would, and returns the whole answer.
async fn by_hand(base: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    read_message(&mut stream).await
}

/// Runs a call that must end by itself, well before the test would be stuck.
async fn within<T>(limit: Duration, call: impl Future<Output = T>) -> (T, Duration) {
    let started = Instant::now();
    let value = tokio::time::timeout(limit, call).await.expect("the call must end by itself");
    (value, started.elapsed())
}
