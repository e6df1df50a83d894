//! Where a pair's calls go: the endpoint that issued it, if tokens may go there.
//!
//! A pair names its own token endpoint, and what names it may be a record that somebody imported.
//! So tokens go to the configured endpoint, or to the same path on a host that the profile
//! verifiably allows, by https on its usual port, and nowhere else.

use super::endpoint::Endpoint;
use crate::profile::Profile;
use reqwest::Url;

/// Returns the endpoint for a pair that names `own`, or `None` if its tokens may not go there.
pub(super) fn token(
    profile: &Profile,
    configured: &Endpoint,
    own: Option<&str>,
) -> Option<Endpoint> {
    let Some(own) = own else { return Some(configured.clone()) };
    let own = Endpoint::new("token endpoint", own).ok()?;
    let is_configured = own.url() == configured.url();
    // Only the host may differ: elsewhere on an allowed host may be pages that a tenant made.
    let (ours, theirs) = (configured.url(), own.url());
    let same_place = (ours.path(), ours.query()) == (theirs.path(), theirs.query());
    (is_configured || same_place && is_allowed(profile, theirs)).then_some(own)
}

/// Returns the URL of a template for a pair that was issued at `token`.
///
/// `instance` is taken only where the access token may go there: to the host of the token
/// endpoint, or to one that the profile allows.
pub(super) fn expanded(
    profile: &Profile,
    template: &str,
    token: &Url,
    client_id: &str,
    instance: Option<&str>,
) -> Option<String> {
    let mut url = template.replace("{client_id}", &encoded(client_id));
    if let Some(rest) = url.strip_prefix("https://{host}") {
        // The scheme goes with the host, so that what was configured on loopback stays there.
        url = format!("{}{rest}", origin(token)?);
    }
    if url.contains("{instance}") {
        let instance = Url::parse(instance?).ok()?;
        let at_home = origin(&instance)? == origin(token)?;
        if !at_home && !is_allowed(profile, &instance) {
            return None;
        }
        url = url.replace("{instance}", instance.as_str().trim_end_matches('/'));
    }
    (!url.contains(['{', '}'])).then_some(url)
}

/// Says whether the profile allows a host, reached in the usual way.
fn is_allowed(profile: &Profile, url: &Url) -> bool {
    let plain = url.scheme() == "https" && url.port().is_none() && url.username().is_empty();
    plain && url.host_str().is_some_and(|host| profile.allows_host(host))
}

fn origin(url: &Url) -> Option<String> {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}://{}{port}", url.scheme(), url.host_str()?))
}

/// Encodes a text as one segment of a path.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Endpoint {
        Endpoint::new("token endpoint", url).unwrap()
    }

    #[test]
    fn a_pair_goes_where_it_was_issued_if_tokens_may_go_there() {
        let salesforce = Profile::salesforce();
        let configured = at("https://login.salesforce.com/services/oauth2/token");
        let found = |own| token(&salesforce, &configured, own).map(|it| it.url().to_string());
        assert_eq!(found(None).as_deref(), Some(configured.url().as_str()));
        for own in [
            "https://login.salesforce.com/services/oauth2/token",
            "https://test.salesforce.com/services/oauth2/token",
            "https://acme--uat.sandbox.my.salesforce.com/services/oauth2/token",
        ] {
            assert_eq!(found(Some(own)).as_deref(), Some(own));
        }
        for own in [
            "",
            "https://salesforce.com.evil.example/services/oauth2/token",
            "https://evilsalesforce.com/services/oauth2/token",
            "https://login.salesforce.com:8443/services/oauth2/token",
            "http://login.salesforce.com/services/oauth2/token",
            "https://me@login.salesforce.com/services/oauth2/token",
            "http://127.0.0.1:9/services/oauth2/token",
            "https://evil.my.salesforce.com/services/apexrest/token",
            "https://acme.my.salesforce.com/services/oauth2/token?x=1",
        ] {
            assert_eq!(found(Some(own)), None, "{own}");
        }
        // A provider of which no host is known keeps to what was configured.
        let generic = Profile::rfc6749();
        let local = at("http://127.0.0.1:9/token");
        let other = Some("https://login.salesforce.com/services/oauth2/token");
        assert!(token(&generic, &local, Some("http://127.0.0.1:9/token")).is_some());
        assert!(token(&generic, &local, Some("http://127.0.0.1:10/token")).is_none());
        assert!(token(&generic, &local, other).is_none());
    }

    #[test]
    fn templates_stay_on_the_pairs_host_and_instance() {
        let salesforce = Profile::salesforce();
        let expand = |template, token: &str, instance| {
            let token = Url::parse(token).unwrap();
            expanded(&salesforce, template, &token, "id/1 2", instance)
        };
        let home = "https://test.salesforce.com/services/oauth2/token";
        let local = "http://127.0.0.1:9/token";
        let revoke = "https://{host}/revoke";
        let query = "{instance}/query";
        let cases = [
            (revoke, home, None, Some("https://test.salesforce.com/revoke")),
            (revoke, local, None, Some("http://127.0.0.1:9/revoke")),
            ("https://a.example/x", home, None, Some("https://a.example/x")),
            ("https://a.example/{client_id}", home, None, Some("https://a.example/id%2F1%202")),
            (query, home, None, None),
            (
                query,
                home,
                Some("https://acme.my.salesforce.com/"),
                Some("https://acme.my.salesforce.com/query"),
            ),
            (query, home, Some("https://evil.example"), None),
            (query, home, Some("http://acme.my.salesforce.com"), None),
            (query, home, Some("no url"), None),
            (query, local, Some("http://127.0.0.1:9"), Some("http://127.0.0.1:9/query")),
            (query, local, Some("http://127.0.0.1:10"), None),
            ("https://a.example/{host}", home, None, None),
        ];
        for (template, token, instance, expected) in cases {
            assert_eq!(expand(template, token, instance).as_deref(), expected, "{template}");
        }
    }
}
