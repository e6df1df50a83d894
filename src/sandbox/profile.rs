//! From what is known of a provider to rules.
//!
//! The sandbox only plays a provider, so it goes by what is known, however well. What is not known
//! is as the RFCs have it.

use super::model::{Counts, Dialect, Identity, Overflow, Paths, Recovery, Reuse, Revocation};
use super::model::{Rules, Wording};
use crate::format::value::Action;
use crate::profile::{self, CapCounts, CapPer, ExpirySource, IdentitySource, Introspects};
use crate::profile::{Meaning, Profile, RevokeGranularity, Rotates};

impl From<&Profile> for Rules {
    /// Makes a provider of this profile, with the cap that the guard goes by: of the numbers that
    /// are told, the one at which approvals may already die.
    fn from(profile: &Profile) -> Self {
        let salesforce =
            matches!(profile.identity().known(), Some(IdentitySource::IdentityUrl { .. }));
        let mut rules = if salesforce {
            Self { cap: None, ..Self::salesforce() }
        } else {
            Self { revoke_unknown: revoke_unknown(profile), ..Self::rfc6749() }
        };
        rules.lists_approvals = profile.approvals().known().is_some();
        rules.set_cap(profile);
        rules.set_lifetimes(profile);
        rules.set_tokens(profile);
        rules.dialect = dialect(profile, rules.dialect);
        rules.collides = profile.errors().iter().any(|rule| rule.meaning() == Meaning::Busy);
        rules
    }
}

impl Rules {
    fn set_cap(&mut self, profile: &Profile) {
        let Some(cap) = profile.cap().known() else { return };
        self.cap = Some(cap.guard.max(1));
        self.web_sessions = cap.outside;
        self.per_scope = cap.per == CapPer::UserAppScope;
        self.counts = match cap.counts {
            CapCounts::RefreshTokens => Counts::RefreshTokens,
            CapCounts::Grants | CapCounts::AccessTokens => Counts::Approvals,
        };
        // Where access tokens are what is counted, they are all there is.
        self.issues_refresh = cap.counts != CapCounts::AccessTokens;
        self.overflow = match cap.overflow {
            profile::Overflow::OldestRevoked => Overflow::OldestEvicted,
            profile::Overflow::LeastUsedRevoked => Overflow::LeastUsedEvicted,
            profile::Overflow::Refused => Overflow::Refused,
        };
    }

    fn set_lifetimes(&mut self, profile: &Profile) {
        if !self.issues_refresh {
            self.access_ttl_ms = None;
        }
        let Some(expiry) = profile.expiry().known() else { return };
        let ms = |seconds: Option<u32>| seconds.map(millis);
        self.access_ttl_ms = ms(expiry.access_seconds).or(self.access_ttl_ms);
        self.idle_ms = ms(expiry.refresh_idle_seconds);
        self.max_ms = ms(expiry.refresh_max_seconds);
    }

    fn set_tokens(&mut self, profile: &Profile) {
        self.rotation = profile.rotation().known() == Some(&Rotates::Always);
        // What may leave it out does.
        self.repeats_refresh = profile.refresh_may_omit_refresh().known() == Some(&false);
        let is = |fact: &profile::Fact<bool>| fact.known() == Some(&true);
        self.same_refresh_on_reconsent = is(profile.same_refresh_on_reconsent());
        self.code_reuse_revokes = is(profile.code_reuse_revokes());
        self.recovery = match profile.recovery().known() {
            None | Some(profile::Recovery::None) => Recovery::None,
            Some(profile::Recovery::OldStaysValid) => Recovery::OldStaysValid,
            Some(profile::Recovery::Replay { seconds }) => {
                Recovery::Replay { ms: millis(*seconds) }
            }
            Some(profile::Recovery::UntilSuccessorUsed { max_seconds }) => {
                Recovery::UntilSuccessorUsed { max_ms: millis(*max_seconds) }
            }
            Some(profile::Recovery::Idempotent { seconds }) => {
                Recovery::Idempotent { ms: millis(*seconds) }
            }
        };
        match profile.reuse().known() {
            Some(profile::Reuse::FamilyDies) => self.reuse = Reuse::FamilyDies,
            Some(profile::Reuse::PlainError) => self.reuse = Reuse::PlainError,
            None => {}
        }
        match profile.revoke().known() {
            Some(RevokeGranularity::AccessOnly) => self.revoke = Revocation::TokenAlone,
            Some(RevokeGranularity::Pair) => self.revoke = Revocation::Pair,
            Some(RevokeGranularity::WholeGrant) => self.revoke = Revocation::WholeGrant,
            None => {}
        }
        if let Some(known) = profile.introspection().known() {
            self.introspects_access = matches!(known, Introspects::Access | Introspects::Both);
            self.introspects_refresh = matches!(known, Introspects::Refresh | Introspects::Both);
        }
    }
}

/// RFC 7009, section 2.2, asks that revoking an unknown token succeeds, unless the profile has an
/// error for it.
fn revoke_unknown(profile: &Profile) -> bool {
    let says = |rule: &profile::ErrorRule| {
        rule.asked().contains(&Action::Revoke) && rule.meaning() == Meaning::Dead
    };
    !profile.errors().iter().any(says)
}

fn dialect(profile: &Profile, base: Dialect) -> Dialect {
    let worded = |meaning| {
        let says = |rule: &&profile::ErrorRule| {
            rule.meaning() == meaning
                && (rule.asked().is_empty() || rule.asked().contains(&Action::Refresh))
        };
        profile.errors().iter().find(says).map(wording)
    };
    let of_a_code = |rule: &&profile::ErrorRule| {
        rule.asked().contains(&Action::Exchange)
            && matches!(rule.meaning(), Meaning::Suspended | Meaning::Dead)
    };
    let identity = match profile.identity().known() {
        Some(IdentitySource::IdentityUrl { .. }) => Identity::Url,
        Some(IdentitySource::IdToken { claim }) => Identity::IdToken { claim: claim.clone() },
        Some(IdentitySource::Callback { parameter }) => {
            Identity::Callback { parameter: parameter.clone() }
        }
        Some(IdentitySource::LookUp { pointer, .. }) => {
            Identity::LookUp { pointer: pointer.clone() }
        }
        Some(IdentitySource::Caller) | None => base.identity,
    };
    Dialect {
        name: profile.name().to_owned(),
        shape: base.shape,
        identity,
        declares_expiry: profile
            .expiry()
            .known()
            .map_or(base.declares_expiry, |expiry| expiry.source == ExpirySource::Declared),
        names_issuer: profile.iss_parameter().known() == Some(&true),
        errors_under_200: profile.errors_under_200().known() == Some(&true),
        dead: worded(Meaning::Dead),
        busy: worded(Meaning::Busy),
        bad_code: profile.errors().iter().find(of_a_code).map(wording),
        paths: paths(profile, base.paths),
    }
}

/// Returns what a line of the table of errors listens for: what the provider says.
fn wording(rule: &profile::ErrorRule) -> Wording {
    Wording {
        status: rule.http().unwrap_or(400),
        error: rule.error().to_owned(),
        description: rule.description().to_owned(),
    }
}

fn paths(profile: &Profile, base: Paths) -> Paths {
    let userinfo = match profile.identity().known() {
        Some(IdentitySource::LookUp { url, .. }) => path_of(url),
        _ => None,
    };
    let userinfo = userinfo.unwrap_or(base.userinfo);
    let Some(known) = profile.endpoints().known() else { return Paths { userinfo, ..base } };
    let or = |template: Option<&String>, base: String| {
        template.and_then(|template| path_of(template)).unwrap_or(base)
    };
    Paths {
        authorize: or(known.authorize.as_ref(), base.authorize),
        token: or(Some(&known.token), base.token),
        revoke: or(known.revoke.as_ref(), base.revoke),
        introspect: or(known.introspect.as_ref(), base.introspect),
        userinfo,
    }
}

/// Returns the path of an endpoint's template, if it is one that stands by itself.
fn path_of(template: &str) -> Option<String> {
    let rest = template.split_once("://").map_or(template, |(_, rest)| rest);
    let path = rest.get(rest.find('/')?..)?;
    let path = path.split(['?', '#']).next()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    (path.len() > 1 && path.bytes().all(plain)).then(|| path.to_owned())
}

fn millis(seconds: u32) -> u64 {
    u64::from(seconds) * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salesforces_profile_is_the_sandbox_as_it_ever_was() {
        let rules = Rules::from(&Profile::salesforce());
        let own = Rules::salesforce();
        assert_eq!((rules.cap, rules.counts, rules.overflow), (Some(4), own.counts, own.overflow));
        assert_eq!(
            (rules.dialect.shape, &rules.dialect.identity),
            (own.dialect.shape, &Identity::Url)
        );
        assert_eq!(rules.dialect.paths, own.dialect.paths);
        let dead = rules.dialect.dead.expect("the profile knows the words");
        assert_eq!(dead.description, "expired access/refresh token");
    }

    #[test]
    fn every_profile_makes_rules() {
        for name in Profile::names() {
            let profile = Profile::builtin(name).unwrap();
            let rules = Rules::from(&profile);
            assert_eq!(rules.dialect.name, name);
            assert_eq!(rules.cap, profile.cap().known().map(|cap| cap.guard), "{name}");
            let rotates = profile.rotation().known() == Some(&Rotates::Always);
            assert_eq!(rules.rotation, rotates, "{name}");
        }
    }

    #[test]
    fn paths_are_taken_from_templates() {
        for (template, path) in [
            ("https://{host}/services/oauth2/token", Some("/services/oauth2/token")),
            ("{instance}/services/oauth2/userinfo?format=json", Some("/services/oauth2/userinfo")),
            ("https://oauth2.example.com/token", Some("/token")),
            ("https://example.com", None),
            ("https://example.com/apps/{client_id}/token", None),
        ] {
            assert_eq!(path_of(template).as_deref(), path, "{template}");
        }
    }
}
