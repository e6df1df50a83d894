//! Connections that can be cut: before the first byte of an answer, or within its body.
//!
//! A handler cannot lose its own answer, so it tells the line below it, which does when the
//! answer's bytes come past.

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Stands for a body that is not cut.
const WHOLE: usize = usize::MAX;
/// How long to wait when the system has no connection to give, such as for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);

/// Accepts connections that can be cut.
pub(super) struct WireListener {
    listener: TcpListener,
    down: Arc<AtomicBool>,
}

/// One connection.
pub(super) struct Wire {
    stream: TcpStream,
    line: Line,
    /// Whether the header of the answer that is to be cut has gone out.
    in_body: bool,
}

/// A handler's hold on its connection.
#[derive(Clone)]
pub(super) struct Line(Arc<LineState>);

struct LineState {
    cut: AtomicBool,
    /// How many bytes of the body still go out.
    body_bytes: AtomicUsize,
    /// Whether the whole sandbox is down.
    down: Arc<AtomicBool>,
}

impl WireListener {
    pub(super) fn new(listener: TcpListener, down: Arc<AtomicBool>) -> Self {
        Self { listener, down }
    }
}

impl Listener for WireListener {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let line = Line(Arc::new(LineState {
                        cut: AtomicBool::new(false),
                        body_bytes: AtomicUsize::new(WHOLE),
                        down: self.down.clone(),
                    }));
                    return (Wire { stream, line, in_body: false }, address);
                }
                Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, WireListener>> for Line {
    fn connect_info(stream: IncomingStream<'_, WireListener>) -> Self {
        stream.io().line.clone()
    }
}

impl Line {
    /// Lets no further byte out.
    pub(super) fn cut(&self) {
        self.0.cut.store(true, Ordering::Release);
    }

    /// Lets the next answer's header out, and so many bytes of its body.
    pub(super) fn cut_body_after(&self, bytes: usize) {
        self.0.body_bytes.store(bytes, Ordering::Release);
    }

    fn is_cut(&self) -> bool {
        self.0.cut.load(Ordering::Acquire) || self.0.down.load(Ordering::Acquire)
    }
}

impl Wire {
    /// Returns how many of these bytes may go out.
    fn allowed(&mut self, bytes: &[u8]) -> usize {
        let left = self.line.0.body_bytes.load(Ordering::Acquire);
        if left == WHOLE {
            return bytes.len();
        }
        if self.in_body {
            return bytes.len().min(left);
        }
        let end = b"\r\n\r\n";
        match bytes.windows(end.len()).position(|window| window == end) {
            Some(at) => {
                let header = at + end.len();
                header + (bytes.len() - header).min(left)
            }
            None => bytes.len(),
        }
    }

    /// Counts what went out.
    fn count(&mut self, sent: &[u8]) {
        let left = &self.line.0.body_bytes;
        if left.load(Ordering::Acquire) == WHOLE {
            return;
        }
        let end = b"\r\n\r\n";
        let body = if self.in_body {
            sent.len()
        } else if let Some(at) = sent.windows(end.len()).position(|window| window == end) {
            self.in_body = true;
            sent.len() - at - end.len()
        } else {
            0
        };
        left.fetch_sub(body, Ordering::AcqRel);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.line.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let allowed = if self.line.is_cut() { 0 } else { self.allowed(bytes) };
        let bytes = bytes.get(..allowed).unwrap_or_default();
        if bytes.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.count(bytes.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
