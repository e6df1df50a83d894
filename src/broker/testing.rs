//! Views, profiles and an app made by hand, for the unit tests of the rooms that only decide.

use super::app::{AppConfig, Desk};
use crate::ids::{
    AccountTag, App, AppTag, Fingerprint, Generation, GrantId, Holder, HolderTag, Lsn, OpId, User,
};
use crate::journal::{AccountView, GrantState, GrantView, HolderName, HolderView, OperationView};
use crate::outcome::ExpirySource;
use crate::profile::Profile;
use crate::{Action, Cause, Confidence, EndView};

/// When the operation of a test was begun, and when its grant's newest pair was issued, in ms.
pub(super) const SENT_MS: u64 = 1_000_000_000;
pub(super) const ISSUED_MS: u64 = SENT_MS - 1_800_000;
/// When its call will have been given up.
pub(super) const DEADLINE_MS: u64 = SENT_MS + 60_000;

/// A living grant with a refresh token of its own; its newest pair stands two records after it.
pub(super) fn grant(id: u64) -> GrantView {
    let mut fingerprint = [0xfe; 16];
    fingerprint[..8].copy_from_slice(&id.to_le_bytes());
    GrantView {
        grant: GrantId(id),
        generation: Generation(1),
        state: GrantState::Released,
        holders: Vec::new(),
        issued_for: None,
        scopes: Vec::new(),
        issued_lsn: Lsn(id + 1),
        issued_at_ms: ISSUED_MS,
        expires_at_ms: 0,
        expiry: None,
        lapses_at_ms: None,
        only_assumed: false,
        beside: Vec::new(),
        adopt_by_ms: 0,
        has_refresh_token: true,
        refresh_fingerprint: Fingerprint::from_bytes(fingerprint),
        worked: false,
        paused: false,
        imported: false,
        fenced: false,
        stale: false,
        keeps_previous: false,
        refusal: None,
        end: None,
    }
}

pub(super) fn ended(mut grant: GrantView) -> GrantView {
    let (cause, confidence) = (Cause::RevokedElsewhere, Confidence::Guessed);
    grant.state = GrantState::Ended;
    grant.end = Some(EndView { cause, confidence, at_ms: ISSUED_MS, lsn: grant.issued_lsn });
    grant
}

/// The grant, held by somebody since a record.
pub(super) fn held(mut grant: GrantView, holder: &str, scopes: &[&str], since: u64) -> GrantView {
    let holder = Holder::new("acme", holder).unwrap();
    grant.state = GrantState::Held;
    grant.holders.push(HolderView {
        holder_tag: holder_tag(&holder),
        holder: Some(holder),
        scopes: texts(scopes),
        since_ms: ISSUED_MS,
        lsn: Lsn(since),
    });
    grant
}

/// The grant, asked for on behalf of a holder of a tenant.
pub(super) fn asked_for(mut grant: GrantView, tenant: &str) -> GrantView {
    let holder = Holder::new(tenant, "whoever").unwrap();
    grant.issued_for = Some(HolderName { holder_tag: holder_tag(&holder), holder: Some(holder) });
    grant
}

pub(super) fn expiring(mut grant: GrantView, at_ms: u64, source: ExpirySource) -> GrantView {
    grant.expires_at_ms = at_ms;
    grant.only_assumed = source == ExpirySource::Assumed;
    grant.lapses_at_ms = Some(at_ms).filter(|_| !grant.only_assumed);
    grant.expiry = Some(source);
    grant
}

fn holder_tag(holder: &Holder) -> HolderTag {
    let mut bytes = [0; 16];
    for (byte, character) in bytes.iter_mut().zip(holder.name().bytes()) {
        *byte = character;
    }
    HolderTag::from_bytes(bytes)
}

pub(super) fn account(grants: Vec<GrantView>, in_doubt: Vec<OperationView>) -> AccountView {
    AccountView {
        account_tag: AccountTag::from_bytes([7; 16]),
        app_tag: AppTag::from_bytes([9; 16]),
        app: Some(app()),
        user: User::new("alice").ok(),
        provisional: false,
        lsn: Lsn(1000),
        grants,
        in_doubt,
    }
}

/// An operation that was begun at [`SENT_MS`] and of which nobody has said what it did.
pub(super) fn operation(op: u64, action: Action, grant: u64) -> OperationView {
    OperationView {
        op: OpId(op),
        account_tag: AccountTag::from_bytes([7; 16]),
        action,
        grant: GrantId(grant),
        generation: Generation(1),
        presented: Fingerprint::NONE,
        beside: false,
        doubt: None,
        since_ms: SENT_MS,
        deadline_ms: DEADLINE_MS,
        scopes: Vec::new(),
    }
}

pub(super) fn app() -> App {
    App::new("example", "client").unwrap()
}

/// A profile of these facts; each is configured unless it says otherwise.
pub(super) fn profile(facts: &str) -> Profile {
    Profile::from_toml(&format!("name = \"example\"\n{facts}")).unwrap()
}

/// An app at a provider that nobody calls.
pub(super) fn desk(facts: &str) -> Desk {
    Desk::new(config(facts))
}

pub(super) fn config(facts: &str) -> AppConfig {
    AppConfig::without_upstream(app(), profile(facts))
}

pub(super) fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
