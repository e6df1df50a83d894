//! Questions about a pair that an answer's own form replies to: whose it is, and what approvals the
//! provider lists.
//!
//! They change nothing, so what goes wrong is no outcome: there is then no reply. The access token
//! goes only where `place` lets it.

use super::Inner;
use super::call::sensitive;
use super::classify::BodyEnd;
use super::endpoint::Endpoint;
use super::place;
use crate::broker::Listed;
use crate::ids::User;
use crate::journal::IssuedPair;
use crate::outcome::members::{self, Members};
use crate::outcome::salesforce_user;
use crate::profile::{Approvals, IdentitySource};
use aws_lc_rs::digest;
use serde_json::value::RawValue;
use std::fmt::Write as _;
use zeroize::Zeroizing;

/// The most lines that are taken of a list.
const LISTED_MAX: usize = 1000;

impl Inner {
    /// Says whose a pair is, where that can be asked.
    pub(super) async fn who(&self, pair: &IssuedPair) -> Option<User> {
        match self.profile.identity().known()? {
            // An id token was read when it came, and named the user then if it was to this request
            // and had not lapsed. One that did not is no more to be believed later, when nobody
            // knows any longer what it was to answer.
            IdentitySource::IdToken { .. } => None,
            // The answer's own URL is not asked again: it was trusted when it came, or was not
            // for its signature. The provider says the same when asked about the token.
            IdentitySource::IdentityUrl { .. } => {
                let endpoint = self.introspection_of(pair)?;
                let (told, _) = self.introspect(Some(&endpoint), pair.access_token()).await;
                told.filter(|told| told.active)?.sub.as_deref().and_then(salesforce_user)
            }
            IdentitySource::LookUp { url, pointer } => {
                let body = self.look_up("who", url, pair).await?;
                User::new(plain(pointed(&body, pointer)?)?).ok()
            }
            IdentitySource::Callback { .. } | IdentitySource::Caller => None,
        }
    }

    /// Returns the provider's own list of the user's approvals.
    pub(super) async fn approvals(&self, pair: &IssuedPair) -> Option<Vec<Listed>> {
        let form = self.profile.approvals().known()?;
        let body = self.look_up("approvals", &form.url, pair).await?;
        listed(&body, form)
    }

    /// Gets a document with the pair's access token.
    async fn look_up(
        &self,
        asked: &'static str,
        template: &str,
        pair: &IssuedPair,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let token = self.token_of(pair)?;
        let client_id = self.app.client_id();
        let instance = pair.instance_url();
        let url = place::expanded(&self.profile, template, token.url(), client_id, instance)?;
        let endpoint = Endpoint::new("look-up", &url).ok()?;
        let bearer = Zeroizing::new(format!("Bearer {}", pair.access_token().reveal()));
        let reply = self.http.get(&endpoint, sensitive(&bearer)?).await.ok();
        let status = reply.as_ref().map_or(0, |reply| reply.status);
        tracing::debug!(asked, status, "provider called");
        let reply = reply.filter(|reply| reply.status == 200 && reply.end == BodyEnd::Whole)?;
        Some(reply.body)
    }

    /// Returns where the pair was issued, if tokens may go there.
    pub(super) fn token_of(&self, pair: &IssuedPair) -> Option<Endpoint> {
        place::token(&self.profile, &self.token, pair.token_endpoint())
    }

    pub(super) fn revocation_of(&self, pair: &IssuedPair) -> Option<Endpoint> {
        let known = self.profile.endpoints().known();
        let template = known.and_then(|known| known.revoke.as_deref());
        self.beside(pair, self.revocation.as_ref(), template)
    }

    pub(super) fn introspection_of(&self, pair: &IssuedPair) -> Option<Endpoint> {
        let known = self.profile.endpoints().known();
        let template = known.and_then(|known| known.introspect.as_deref());
        self.beside(pair, self.introspection.as_ref(), template)
    }

    /// Returns an endpoint on the host that issued the pair: the configured one where the pair came
    /// from the configured host, else the profile's.
    fn beside(
        &self,
        pair: &IssuedPair,
        configured: Option<&Endpoint>,
        template: Option<&str>,
    ) -> Option<Endpoint> {
        let token = self.token_of(pair)?;
        if token.url() == self.token.url() {
            return configured.cloned();
        }
        let client_id = self.app.client_id();
        let url = place::expanded(&self.profile, template?, token.url(), client_id, None)?;
        Endpoint::new("endpoint", &url).ok()
    }
}

/// Returns what a JSON pointer points to (RFC 6901).
fn pointed<'a>(body: &'a [u8], pointer: &str) -> Option<&'a RawValue> {
    let mut raw: &RawValue = serde_json::from_slice(body).ok()?;
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        raw = if raw.get().starts_with('[') {
            let list: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
            list.get(token.parse::<usize>().ok()?).copied()?
        } else {
            Members::read(raw.get().as_bytes()).ok()?.find(&token)?
        };
    }
    Some(raw)
}

/// Returns a text, or a number as it was written.
fn plain(raw: &RawValue) -> Option<String> {
    let number = || {
        let text = raw.get();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.to_owned())
    };
    members::plain_text(raw).or_else(number)
}

fn listed(body: &[u8], form: &Approvals) -> Option<Vec<Listed>> {
    let records: Vec<&RawValue> = serde_json::from_str(pointed(body, &form.records)?.get()).ok()?;
    records.into_iter().take(LISTED_MAX).map(|record| line(record, form)).collect()
}

fn line(record: &RawValue, form: &Approvals) -> Option<Listed> {
    let members = Members::read(record.get().as_bytes()).ok()?;
    let text = |name: &Option<String>| members.find(name.as_deref()?).and_then(plain);
    // A line's id may revoke the approval, as Salesforce's DeleteToken does: so it is no more than
    // recognised.
    let id = Zeroizing::new(members.find(&form.id).and_then(plain)?);
    let hash = digest::digest(&digest::SHA256, id.as_bytes());
    let mut id = String::with_capacity(16);
    for byte in hash.as_ref().iter().take(8) {
        write!(id, "{byte:02x}").ok()?;
    }
    Some(Listed {
        id,
        app: text(&form.app),
        user: text(&form.user),
        created: text(&form.created),
        last_used: text(&form.last_used),
        uses: form
            .uses
            .as_deref()
            .and_then(|name| members.find(name))
            .and_then(members::whole_number),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    #[test]
    fn pointers_go_into_objects_and_lists() {
        let body = br#"{"a":{"b/c":[{"~":"x"},7]},"n":42,"t":true}"#;
        let found = |pointer| pointed(body, pointer).and_then(plain);
        assert_eq!(found("/a/b~1c/0/~0").as_deref(), Some("x"));
        assert_eq!(found("/a/b~1c/1").as_deref(), Some("7"));
        assert_eq!(found("/n").as_deref(), Some("42"));
        for pointer in ["", "/", "/t", "/a", "/a/b~1c/2", "/a/b~1c/x", "/n/x", "/z"] {
            assert_eq!(found(pointer), None, "{pointer}");
        }
        assert!(pointed(b"<html>", "/a").is_none() && pointed(b"", "").is_none());
    }

    #[test]
    fn a_list_of_approvals_shows_no_token() {
        let salesforce = Profile::salesforce();
        let form = salesforce.approvals().known().unwrap();
        let body = br#"{"totalSize":2,"done":true,"records":[
            {"attributes":{"type":"OauthToken"},"AppName":"Ours","UserId":"005x00000012Q9PAAU",
             "UseCount":3,"LastUsedDate":"2026-11-20T10:00:00.000+0000","DeleteToken":"S3CRET-1"},
            {"AppName":null,"UserId":"005x00000012Q9PAAU","UseCount":null,"LastUsedDate":null,
             "DeleteToken":"S3CRET-2"}]}"#;
        let lines = listed(body, form).unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].app.as_deref(), Some("Ours"));
        assert_eq!(lines[0].uses, Some(3));
        assert_eq!(lines[0].last_used.as_deref(), Some("2026-11-20T10:00:00.000+0000"));
        assert_eq!((lines[1].uses, &lines[1].last_used, &lines[1].app), (None, &None, &None));
        assert_ne!(lines[0].id, lines[1].id);
        assert!(!format!("{lines:?}").contains("S3CRET"), "{lines:?}");
        assert!(listed(br#"{"records":[{"AppName":"x"}]}"#, form).is_none());
        assert!(listed(br#"{"records":{}}"#, form).is_none());
        assert_eq!(listed(br#"{"records":[]}"#, form), Some(Vec::new()));
    }
}
