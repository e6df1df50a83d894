//! What a provider's calls leave in a trace. Alone in its process: whoever first comes past an
//! event decides for all threads whether it is of interest.
#![allow(clippy::unwrap_used, reason = "a test may")]
#![cfg(all(feature = "client", feature = "sandbox"))]

use std::io;
use std::sync::{Arc, Mutex};
use tokenwal::provider::{Pkce, Provider};
use tokenwal::sandbox::{Fault, Sandbox, SandboxConfig};
use tokenwal::{App, Secret, SystemEntropy};
use tracing_subscriber::filter::LevelFilter;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_trace_shows_that_a_call_was_made_and_no_secret() {
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(calls());
    let traced = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
    for ended in ["issued", "refused", "in doubt", "revoked", "answered"] {
        assert!(traced.contains(&format!("ended=\"{ended}\"")), "{ended}: {traced}");
    }
    for secret in ["S3CRET", "aPrx", "5Aep861", "!AQ"] {
        assert!(!traced.contains(secret), "{secret}: {traced}");
    }
}

async fn calls() {
    let config = SandboxConfig::new().client("key", "S3CRET-client");
    let sandbox = Sandbox::start(config).await.unwrap();
    let app = App::new("salesforce", "key").unwrap();
    let secret = Secret::new("S3CRET-client".to_owned());
    let provider = Provider::salesforce(app, secret, sandbox.url()).build().unwrap();
    let pkce = Pkce::generate(&SystemEntropy).unwrap();
    let callback = "http://127.0.0.1:9/callback";
    provider.exchange(sandbox.code_for("alice").unwrap(), callback, &pkce).await;
    for fault in [Fault::DropAfterCommit, Fault::TruncateBody(70)] {
        sandbox.inject(fault);
        provider.exchange(sandbox.code_for("alice").unwrap(), callback, &pkce).await;
    }
    let token = Secret::new("5Aep861-S3CRET-of-nobody".to_owned());
    provider.refresh(&token).await;
    provider.introspect(&token).await;
    provider.revoke(&token).await;
    sandbox.inject(Fault::StatusBeforeCommit(204));
    provider.revoke(&token).await;
}
