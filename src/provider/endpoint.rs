//! The URLs to which tokens may be sent: https anywhere, http on loopback only.

use super::ProviderError;
use reqwest::Url;
use std::fmt;
use std::net::IpAddr;

/// The one name that means this machine. It is never looked up.
pub(super) const LOCALHOST: &str = "localhost";

/// A URL that was checked.
#[derive(Clone)]
pub(super) struct Endpoint(Url);

impl Endpoint {
    /// Checks a URL; `what` names it in the error.
    pub(super) fn new(what: &'static str, url: &str) -> Result<Self, ProviderError> {
        let url = Url::parse(url).map_err(|_| ProviderError::Url { what })?;
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or(ProviderError::Url { what })?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(ProviderError::Url { what });
        }
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if is_loopback(host) => Ok(Self(url)),
            _ => Err(ProviderError::Insecure { what, host: host.to_owned() }),
        }
    }

    pub(super) fn url(&self) -> &Url {
        &self.0
    }

    pub(super) fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == LOCALHOST || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_over_https_or_stay_on_the_machine() {
        for url in [
            "https://login.salesforce.com/services/oauth2/token",
            "https://example.com:8443/token?tenant=7",
            "http://127.0.0.1:9/token",
            "http://127.8.9.10/token",
            "http://[::1]:9/token",
            "http://localhost:9/token",
            "http://LOCALHOST/token",
        ] {
            assert!(Endpoint::new("token endpoint", url).is_ok(), "{url}");
        }
        for url in [
            "http://login.salesforce.com/services/oauth2/token",
            "http://10.0.0.1/token",
            "http://127.0.0.1.example.com/token",
            "http://localhost.example.com/token",
            "http://0.0.0.0/token",
            "ftp://127.0.0.1/token",
        ] {
            let refused = Endpoint::new("token endpoint", url);
            assert!(matches!(refused, Err(ProviderError::Insecure { .. })), "{url}");
        }
        for url in [
            "",
            "login.salesforce.com",
            "https://",
            "https://user@example.com/token",
            "https://:secret@example.com/token",
            "https://example.com/token#part",
            "data:text/plain,x",
        ] {
            let refused = Endpoint::new("token endpoint", url);
            assert!(matches!(refused, Err(ProviderError::Url { .. })), "{url}");
        }
    }
}
