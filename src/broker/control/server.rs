//! The process that has the store open: it accepts, reads one order, carries it out, answers.

use super::wire::{Answer, Wire};
use super::{Broker, LINE_TIME};
use crate::broker::Inner;
use crate::disk::socket::Socket;
use crate::ledger::Ledger;
use crate::sync::lock;
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use zeroize::Zeroizing;

/// The longest order, in bytes: a line to import of 1 MiB, every byte of it escaped by six.
const ORDER_BYTES_MAX: usize = 7 << 20;
/// How many connections are served at once.
const CONNECTIONS_MAX: usize = 16;
/// How long to wait where the system gives no further connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The socket of a broker, if it has one.
#[derive(Debug, Default)]
pub(in crate::broker) struct Listening(Mutex<Option<Ear>>);

impl Listening {
    /// Begins to take orders.
    pub(super) fn start<L: Ledger>(
        &self,
        broker: Weak<Inner<L>>,
        socket: Socket,
        listener: UnixListener,
    ) {
        let task = tokio::spawn(accept(broker, listener)).abort_handle();
        *lock(&self.0) = Some(Ear { task, _socket: socket });
    }

    /// Takes no further orders. Those that came are carried out.
    pub(in crate::broker) fn stop(&self) {
        drop(lock(&self.0).take());
    }
}

#[derive(Debug)]
struct Ear {
    task: AbortHandle,
    _socket: Socket,
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept<L: Ledger>(broker: Weak<Inner<L>>, listener: UnixListener) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) if is_same_user(&stream) => {
                let broker = broker.clone();
                tokio::spawn(async move {
                    // Who says nothing useful in time is not answered.
                    let _ = serve(broker, stream).await;
                    drop(slot);
                });
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(target: "tokenwal", %error, "the control socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_same_user(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
}

async fn serve<L: Ledger>(broker: Weak<Inner<L>>, mut stream: UnixStream) -> io::Result<()> {
    let text = tokio::time::timeout(LINE_TIME, read_line(&mut stream)).await??;
    let Some(inner) = broker.upgrade() else { return Ok(()) };
    let order = match text.as_deref().and_then(|text| Wire::read(text)) {
        Some(order) => order,
        None => {
            let answer = Answer::refused("the order cannot be read", "use the same version");
            return write_line(&mut stream, &answer).await;
        }
    };
    drop(text);
    tracing::info!(target: "tokenwal", ?order, "an order");
    // A shutdown waits for what was begun, and for its answer.
    let tasks = inner.tasks.clone();
    let carried = tasks.spawn(async move {
        let answer = match Broker(inner).carry_out(order).await {
            Ok(done) => Answer::done(done),
            Err(error) => Answer::refused(&chain(&error), error.advice()),
        };
        write_line(&mut stream, &answer).await
    });
    carried.await.unwrap_or(Ok(()))
}

/// Reads up to a line feed; none for a line that is too long, or ends before it.
async fn read_line(stream: &mut UnixStream) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    const PIECE: usize = 16 << 10;
    let mut line = Zeroizing::new(Vec::new());
    let mut piece = Zeroizing::new(vec![0; PIECE]);
    loop {
        let count = stream.read(&mut piece).await?;
        let read = piece.get(..count).unwrap_or_default();
        if read.is_empty() || line.len() + read.len() > ORDER_BYTES_MAX {
            return Ok(None);
        }
        if line.capacity() < line.len() + read.len() {
            // What grows leaves its bytes behind, so it is moved by hand and wiped.
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * (line.len() + read.len())));
            larger.extend_from_slice(&line);
            line = larger;
        }
        line.extend_from_slice(read);
        if line.last() == Some(&b'\n') {
            return Ok(Some(line));
        }
    }
}

async fn write_line(stream: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    tokio::time::timeout(LINE_TIME, stream.write_all(&line)).await?
}

/// Says an error with its causes, within an answer's length.
fn chain(error: &dyn std::error::Error) -> String {
    const CHARS_MAX: usize = 4096;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text.chars().take(CHARS_MAX).collect()
}
