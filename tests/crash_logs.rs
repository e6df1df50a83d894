//! What the journal logs while it lives, crashes, fails and recovers: never a secret.
//!
//! A target of its own, since who listens on one thread is disturbed by others that log.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::manual_is_multiple_of,
    clippy::large_enum_variant,
    reason = "a test may"
)]

#[allow(dead_code, reason = "what the crash suite alone needs: damage, and short histories")]
mod crashes;
mod sim;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use crashes::calls::MARK;
use crashes::seeds;
use crashes::tally::Tally;
use sim::Step;
use tracing_subscriber::fmt::MakeWriter;

#[test]
fn logs_hold_no_secret() {
    let heard = during(|| {
        for seed in 0..60 {
            seeds::run_seed(seed, Step::None, &mut Tally::default()).unwrap();
        }
    });
    assert!(heard.count > 1000 && heard.kinds.len() > 5, "{heard:?}");
    assert!(heard.leak.is_none(), "{heard:?}");
}

/// What was heard.
#[derive(Debug, Default, Clone)]
struct Heard {
    count: u64,
    /// The first line with a secret in it.
    leak: Option<String>,
    /// The first words of messages.
    kinds: BTreeSet<String>,
}

#[derive(Debug, Clone, Default)]
struct Ear(Arc<Mutex<Heard>>);

impl io::Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        let mut heard = self.0.lock().unwrap();
        heard.count += 1;
        if line.contains(MARK) {
            heard.leak.get_or_insert_with(|| line.clone().into_owned());
        }
        // "LEVEL spans: tokenwal: message fields"
        if let Some((_, message)) = line.split_once("tokenwal: ") {
            heard.kinds.extend(message.split(' ').next().map(str::to_owned));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Ear {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Listens on this thread while something is done.
fn during(work: impl FnOnce()) -> Heard {
    let ear = Ear::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(ear.clone())
        .without_time()
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    let heard = ear.0.lock().unwrap();
    heard.clone()
}
