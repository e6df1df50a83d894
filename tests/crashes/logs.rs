//! Listens to what the journal logs, and looks for secrets in it.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use super::calls::MARK;

/// What was heard.
#[derive(Debug, Default, Clone)]
pub struct Heard {
    pub count: u64,
    /// The first line with a secret in it.
    pub leak: Option<String>,
    /// The first words of messages.
    pub kinds: BTreeSet<String>,
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
pub fn during(work: impl FnOnce()) -> Heard {
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
