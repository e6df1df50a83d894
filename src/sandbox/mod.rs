//! A provider on loopback that treats tokens as Salesforce does, for tests and for the demo.
//!
//! It has a cap that silently evicts the oldest approval, optional rotation where a spent token
//! kills its family, and it loses responses on command. What it does is a pure model with the
//! time passed in (`model`); HTTP stands around it (`routes`, `shape`), and connections that can
//! be cut at any byte stand below that (`wire`). Its tokens are worth nothing outside it. It is no
//! part of a service: it listens on 127.0.0.1 alone.

mod answer;
mod config;
mod fault;
mod model;
mod routes;
mod shape;
mod state;
mod wire;

pub use config::SandboxConfig;
pub use fault::Fault;
pub use state::{ApprovalState, ApprovalView, Counters, SandboxState, UserView};

use crate::ids::User;
use crate::outcome::salesforce_user;
use crate::secret::Secret;
use answer::Consent;
use fault::Faults;
use model::Model;
use routes::Shared;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A running sandbox. Dropping it stops it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokenwal::sandbox::{Sandbox, SandboxConfig};
///
/// let sandbox = Sandbox::start(SandboxConfig::new().cap(4)).await?;
/// let code = sandbox.code_for("alice")?;
/// assert!(sandbox.url().starts_with("http://127.0.0.1:"));
/// assert_eq!(sandbox.state().counters.exchanges, 0);
/// # drop(code);
/// sandbox.shutdown();
/// # Ok(()) }
/// ```
pub struct Sandbox {
    url: String,
    shared: Arc<Shared>,
    down: Arc<AtomicBool>,
    server: JoinHandle<()>,
}

impl Sandbox {
    /// Starts a sandbox on a free port of 127.0.0.1, on the tokio runtime of the caller.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(config: SandboxConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let down = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared {
            model: Mutex::new(Model::new(config.rules, url.clone())),
            faults: Mutex::new(Faults::default()),
            clock: config.clock,
            entropy: config.entropy,
        });
        let listener = wire::WireListener::new(listener, down.clone());
        let server = tokio::spawn(routes::serve(listener, shared.clone()));
        Ok(Self { url, shared, down, server })
    }

    /// Returns its URL, such as `http://127.0.0.1:40123`, to be used like a Salesforce host.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Mints an authorization code as if the user had just approved, bound to no redirect URI and
    /// no challenge.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn code_for(&self, user: &str) -> io::Result<Secret> {
        let code = self.shared.draw(model::CODE)?;
        let now_ms = self.shared.clock.now_ms();
        self.shared.model().add_code(code.clone(), Consent::of(user), now_ms);
        Ok(Secret::new(code))
    }

    /// Returns the user as the identity URL in the answers names them.
    pub fn user(&self, user: &str) -> Option<User> {
        salesforce_user(&self.shared.model().identity_of(user))
    }

    /// Returns what the sandbox holds. It names no token.
    pub fn state(&self) -> SandboxState {
        let now_ms = self.shared.clock.now_ms();
        self.shared.model().state(now_ms)
    }

    /// Says whether a token works: a refresh token that is neither spent nor dead, or an access
    /// token that has not lapsed.
    pub fn is_alive(&self, token: &str) -> bool {
        let now_ms = self.shared.clock.now_ms();
        self.shared.model().is_alive(token, now_ms)
    }

    /// Lets the next request for a token, a revocation or an introspection meet a fault.
    ///
    /// Faults queue up; each is met once.
    pub fn inject(&self, fault: Fault) {
        crate::sync::lock(&self.shared.faults).add(fault);
    }

    /// Stops listening, and cuts every connection at its next byte.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.down.store(true, Ordering::Release);
        self.server.abort();
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").field("url", &self.url).finish_non_exhaustive()
    }
}
