//! A provider on loopback that treats tokens as real ones do, for tests, for the demo, and for users
//! who want to see their own integration survive.
//!
//! It has caps that silently evict the oldest approval, rotation where a spent token kills its
//! family, recovery windows, and lifetimes; and it loses responses on command. What it does is a
//! pure model with the time passed in (`model`), driven by rules that a profile gives (`profile`).
//! HTTP stands around it (`routes`, `shape`, `words`), and connections that can be cut at any byte
//! stand below that (`wire`). Its tokens are worth nothing outside it. It is no part of a service:
//! it listens on 127.0.0.1 alone.

mod config;
mod fault;
#[doc(hidden)]
pub mod model;
mod profile;
mod routes;
mod shape;
mod shared;
mod state;
mod wire;
mod words;

pub use config::SandboxConfig;
pub use fault::{Fault, FaultError, Injection, On};
pub use model::{Recovery, Reuse, Revocation};
pub use shared::Endpoints;
pub use state::{
    ApprovalState, ApprovalView, Counters, EndingView, PresentedView, SandboxState, UserView,
};

use crate::ids::User;
use crate::outcome::salesforce_user;
use crate::secret::Secret;
use model::{Consent, Identity, Model};
use shared::{CODE, Shared};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
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
    /// Starts a sandbox on 127.0.0.1, on the tokio runtime of the caller.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn start(config: SandboxConfig) -> io::Result<Self> {
        let listener =
            TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, config.port))).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let down = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared::new(config, &url));
        let listener = wire::WireListener::new(listener, down.clone());
        let server = tokio::spawn(routes::serve(listener, shared.clone()));
        Ok(Self { url, shared, down, server })
    }

    /// Returns its URL, such as `http://127.0.0.1:40123`, to be used like a Salesforce host.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns where it is called, as the provider that it behaves like has it.
    pub fn endpoints(&self) -> Endpoints {
        self.shared.endpoints()
    }

    /// Mints an authorization code as if the user had just approved, bound to no redirect URI and
    /// no challenge.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn code_for(&self, user: &str) -> io::Result<Secret> {
        let code = self.shared.draw(CODE)?;
        let now_ms = self.shared.now_ms();
        self.shared.model().add_code(code.clone(), Consent::of(user), now_ms);
        Ok(Secret::new(code))
    }

    /// Returns the user as the answers name them.
    pub fn user(&self, user: &str) -> Option<User> {
        let mut model = self.shared.model();
        let identity_url = model.identity_of(user);
        match model.rules().dialect.identity {
            Identity::Url => salesforce_user(&identity_url),
            _ => User::new(shape::subject(model.rules(), &identity_url)).ok(),
        }
    }

    /// Returns what the sandbox holds. It names no token.
    pub fn state(&self) -> SandboxState {
        let now_ms = self.shared.now_ms();
        self.shared.model().state(now_ms)
    }

    /// Says whether a token works: a refresh token that is neither spent nor dead, or an access
    /// token that has not lapsed.
    pub fn is_alive(&self, token: &str) -> bool {
        let now_ms = self.shared.now_ms();
        self.shared.model().is_alive(token, now_ms)
    }

    /// Lets the next request for a token, a revocation or an introspection meet a fault, or those
    /// that an [`Injection`] names.
    ///
    /// Faults queue up; each is met once, or as often as its injection says.
    ///
    /// ```
    /// # use tokenwal::sandbox::{Fault, Injection, On, Sandbox};
    /// # fn inject(sandbox: &Sandbox) {
    /// sandbox.inject(Fault::DropAfterCommit);
    /// sandbox.inject(Injection::new(Fault::TruncateBody(40), On::Refresh).nth(2));
    /// # }
    /// ```
    pub fn inject(&self, fault: impl Into<Injection>) {
        crate::sync::lock(&self.shared.faults).add(fault.into());
    }

    /// Sets the clock forward by which tokens lapse and windows close.
    pub fn advance(&self, by: Duration) {
        self.shared.advance(config::millis(by));
    }

    /// Returns the time by its own clock, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.shared.now_ms()
    }

    /// Lets everybody who approves from now on be this user, whomever the request hints at; `None`
    /// ends that.
    pub fn sign_in_as(&self, user: Option<&str>) {
        *crate::sync::lock(&self.shared.signed_in) = user.map(str::to_owned);
    }

    /// Sets how many web sessions a user has. One more may evict the oldest approval.
    pub fn set_web_sessions(&self, user: &str, count: u32) {
        let now_ms = self.shared.now_ms();
        self.shared.model().set_web_sessions(user, count, now_ms);
    }

    /// Works on the model itself: its rules, its log of endings.
    #[doc(hidden)]
    pub fn with_model<R>(&self, work: impl FnOnce(&mut Model) -> R) -> R {
        work(&mut self.shared.model())
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
