//! One request: what left, what came back, and how much of it.
//!
//! It follows no redirect, sends nothing twice and keeps no connection for later: a connection
//! that the other side is just closing would make a call doubtful that need not be. One deadline
//! covers the whole call, so a server that drips cannot hold it. An error's text never leaves
//! this file. Secrets are wiped where this crate holds them; what HTTP and TLS copy on the way is
//! theirs.

use super::classify::{BodyEnd, Reply};
use super::endpoint::{self, Endpoint};
use super::retry_after;
use crate::clock::Clock;
use crate::outcome::{Doubt, DoubtReason, NotSent, Outcome};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER,
};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, Url, retry};
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// The headers under which servers and what stands before them name a request.
const REQUEST_ID_HEADERS: [&str; 6] = [
    "x-request-id",
    "x-sfdc-request-id",
    "request-id",
    "x-correlation-id",
    "x-amzn-requestid",
    "cf-ray",
];

/// What bounds a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
    pub(super) body_bytes_max: usize,
}

/// A client for one provider.
pub(super) struct Http {
    client: Client,
    body_bytes_max: usize,
    clock: Arc<dyn Clock>,
}

impl Http {
    /// Makes a client that will call these endpoints.
    pub(super) fn new(
        limits: Limits,
        clock: Arc<dyn Clock>,
        endpoints: &[&Endpoint],
    ) -> Result<Self, reqwest::Error> {
        // A proxy would see what goes to loopback in the clear.
        let plain = endpoints.iter().any(|endpoint| !endpoint.is_https());
        let local = [
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        ];
        let mut builder = Client::builder()
            .user_agent(concat!("tokenwal/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .retry(retry::never())
            .referer(false)
            .pool_max_idle_per_host(0)
            .connect_timeout(limits.connect_timeout)
            .timeout(limits.timeout)
            .resolve_to_addrs(endpoint::LOCALHOST, &local);
        if plain {
            builder = builder.no_proxy();
        }
        if !endpoints.iter().any(|endpoint| endpoint.is_https()) {
            // Loopback alone works on a machine without certificates, too.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self { client: builder.build()?, body_bytes_max: limits.body_bytes_max, clock })
    }

    /// Sends a form. What is not an answer is an outcome already.
    pub(super) async fn post(
        &self,
        endpoint: &Endpoint,
        authorization: Option<HeaderValue>,
        form: &[(&str, &str)],
    ) -> Result<Reply, Outcome> {
        self.send(self.client.post(endpoint.url().clone()).form(form), authorization).await
    }

    /// Asks for a document, which changes nothing.
    pub(super) async fn get(
        &self,
        endpoint: &Endpoint,
        authorization: HeaderValue,
    ) -> Result<Reply, Outcome> {
        self.send(self.client.get(endpoint.url().clone()), Some(authorization)).await
    }

    /// Sends JSON with the method DELETE.
    pub(super) async fn delete(
        &self,
        endpoint: &Endpoint,
        authorization: Option<HeaderValue>,
        json: Vec<u8>,
    ) -> Result<Reply, Outcome> {
        let request = self
            .client
            .delete(endpoint.url().clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(json);
        self.send(request, authorization).await
    }

    /// Returns the time by which answers are dated, in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    async fn send(
        &self,
        request: RequestBuilder,
        authorization: Option<HeaderValue>,
    ) -> Result<Reply, Outcome> {
        let mut request = request.header(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        match request.send().await {
            Ok(response) => Ok(self.read(response).await),
            Err(error) => Err(undelivered(&error)),
        }
    }

    async fn read(&self, mut response: Response) -> Reply {
        let received_at_ms = self.clock.now_ms();
        let header = |name: &str| text(response.headers(), name);
        let status = response.status().as_u16();
        let retry_after_s =
            header(RETRY_AFTER.as_str()).map(|text| retry_after::seconds(text, received_at_ms));
        let request_id = REQUEST_ID_HEADERS.into_iter().find_map(header).map(str::to_owned);
        let redirect_host =
            header(LOCATION.as_str()).and_then(|location| host_of(response.url(), location));
        let (body, end) = self.body(&mut response).await;
        Reply { status, retry_after_s, request_id, redirect_host, body, end, received_at_ms }
    }

    /// Reads the body up to the limit, into memory that is wiped and never moves.
    async fn body(&self, response: &mut Response) -> (Zeroizing<Vec<u8>>, BodyEnd) {
        let declared = response.content_length();
        let expected = declared.and_then(|bytes| usize::try_from(bytes).ok());
        let capacity = expected.unwrap_or(self.body_bytes_max).min(self.body_bytes_max);
        let mut body = Zeroizing::new(Vec::with_capacity(capacity));
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return (body, BodyEnd::Whole),
                Err(error) if error.is_timeout() => return (body, BodyEnd::Late),
                Err(_) => return (body, BodyEnd::Lost),
            };
            let room = self.body_bytes_max.saturating_sub(body.len());
            let seen = body.len().saturating_add(chunk.len());
            body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            if chunk.len() > room {
                let seen = u64::try_from(seen).unwrap_or(u64::MAX);
                return (body, BodyEnd::Long(declared.unwrap_or(seen).max(seen)));
            }
        }
    }
}

/// Says what became of a request that got no answer.
fn undelivered(error: &reqwest::Error) -> Outcome {
    if error.is_builder() {
        return Outcome::NotSent(NotSent::GivenUp);
    }
    if error.is_connect() {
        return Outcome::NotSent(if error.is_dns() {
            NotSent::Lookup
        } else if !error.is_timeout() && failed_behind_connect(error) {
            NotSent::Tls
        } else {
            NotSent::Connect
        });
    }
    Outcome::InDoubt(Doubt::new(if error.is_timeout() {
        DoubtReason::Timeout
    } else {
        DoubtReason::ConnectionLost
    }))
}

/// Tells an error of the handshake from one of the connection below it.
///
/// The handshake's own errors come as data that is invalid or ends too early; a connection that
/// was refused or never made has another kind.
fn failed_behind_connect(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        let mut inner = error.downcast_ref::<io::Error>();
        while let Some(error) = inner {
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
            ) {
                return true;
            }
            // An I/O error's `source` skips the error that it holds.
            inner = error.get_ref().and_then(|held| held.downcast_ref());
        }
    }
    false
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Returns the host of a redirect, which is all of it that is safe to show.
fn host_of(base: &Url, location: &str) -> Option<String> {
    Some(base.join(location).ok()?.host_str()?.to_owned())
}
