//! Makes a pair: of an answer, filled in from the generation before; and of it what callers see.

use super::MemoryLedger;
use super::store::{Names, Pair, State, Tokens, event};
use crate::engine::lapse::Lapse;
use crate::ids::{AccountTag, Fingerprint, Generation, GrantId, Lsn, OpId};
use crate::journal::{EventDetails, HolderName, IssuedPair};
use crate::outcome::{ExpirySource, ResponseParts};
use crate::secret::Secret;

/// Which change it is, and when.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) lsn: Lsn,
    pub(super) now_ms: u64,
}

/// What a pair is said of.
#[derive(Clone, Copy)]
pub(super) struct Whose {
    pub(super) account: AccountTag,
    pub(super) grant: GrantId,
    pub(super) op: OpId,
}

impl MemoryLedger {
    /// Makes a pair of an answer; what that leaves out is the same as before.
    pub(super) fn pair_of(
        &self,
        lsn: Lsn,
        generation: Generation,
        names: Names,
        parts: &ResponseParts,
        before: Option<&Pair>,
    ) -> Pair {
        let tokens = Tokens::of(parts, before.map(|pair| &pair.tokens));
        let print = |token: &Secret| self.tagger.fingerprint(token.reveal());
        let expires_at_ms = parts.expires_at_ms.unwrap_or_default();
        let source = parts.expiry_source.unwrap_or(ExpirySource::Introspected);
        Pair {
            lsn,
            generation,
            names,
            access_scopes: None,
            asked: None,
            earlier: Lapse::None,
            issued_at_ms: parts.issued_at_ms.unwrap_or(parts.received_at_ms),
            expires_at_ms,
            expiry: (expires_at_ms > 0).then_some(source),
            adopt_by_ms: self.adopt_by_ms(self.adopt_within),
            access: print(&tokens.access),
            refresh: tokens.refresh.as_ref().map(print).unwrap_or_default(),
            tokens,
        }
    }

    /// Writes down that a pair came, the newest or one beside it.
    pub(super) fn note_pair(
        &self,
        state: &mut State,
        at: At,
        whose: Whose,
        kind: &'static str,
        inherited: bool,
    ) {
        let Some(grant) = state.grants.get(&whose.grant) else { return };
        let pairs = grant.beside.iter().chain(&grant.newest);
        let Some(pair) = pairs.into_iter().find(|pair| pair.lsn == at.lsn) else { return };
        let holder = pair.names.holder.as_ref().map(|holder| HolderName {
            holder_tag: self.tagger.holder(holder),
            holder: Some(holder.clone()),
        });
        let mut event = event(at.lsn, at.now_ms, kind, whose.account);
        (event.grant, event.generation, event.op) = (whose.grant, grant.generation, whose.op);
        event.details = EventDetails::Pair {
            holder,
            scopes: pair.names.scopes.clone(),
            issued_at_ms: pair.issued_at_ms,
            expires_at_ms: pair.expires_at_ms,
            expiry: pair.expiry,
            adopt_by_ms: pair.adopt_by_ms,
            refresh_fingerprint: pair.refresh,
            inherited,
            fenced: whose.op.is_none() && kind == "issued",
            paused: grant.paused && pair.asked.is_none(),
            beside: pair.asked.is_some(),
        };
        state.note(event);
    }
}

impl Tokens {
    fn of(parts: &ResponseParts, before: Option<&Self>) -> Self {
        let text = |own: &Option<String>, old: Option<&String>| own.as_ref().or(old).cloned();
        let secret = |own: &Option<Secret>, old: Option<&Secret>| own.as_ref().or(old).map(copy);
        let is_new = |name: &String| parts.fields.iter().all(|(own, _)| own != name);
        let kept = before.map(|before| before.fields.as_slice()).unwrap_or_default();
        let kept = kept.iter().filter(|(name, _)| is_new(name));
        let fields = parts.fields.iter().chain(kept);
        let token_type = text(&parts.token_type, before.map(|before| &before.token_type));
        Self {
            access: copy(&parts.access_token),
            refresh: secret(&parts.refresh_token, before.and_then(|old| old.refresh.as_ref())),
            id: secret(&parts.id_token, before.and_then(|old| old.id.as_ref())),
            token_type: token_type.unwrap_or_else(|| "Bearer".to_owned()),
            token_endpoint: text(
                &parts.token_endpoint,
                before.and_then(|old| old.token_endpoint.as_ref()),
            ),
            instance_url: text(
                &parts.instance_url,
                before.and_then(|old| old.instance_url.as_ref()),
            ),
            fields: fields.map(|(name, raw)| (name.clone(), copy(raw))).collect(),
        }
    }
}

impl Pair {
    pub(super) fn to_issued(&self, account: AccountTag, grant: GrantId) -> IssuedPair {
        let Names { app, user, holder, scopes } = self.names.clone();
        let tokens = &self.tokens;
        let fields = tokens.fields.iter().map(|(name, raw)| (name.clone(), copy(raw)));
        IssuedPair {
            lsn: self.lsn,
            account,
            grant,
            generation: self.generation,
            issued_at_ms: self.issued_at_ms,
            expires_at_ms: self.expires_at_ms,
            expiry_source: self.expiry,
            beside: self.asked.is_some(),
            adopt_by_ms: self.adopt_by_ms,
            app,
            user,
            holder,
            scopes,
            access_scopes: self.access_scopes.clone(),
            access_token: copy(&tokens.access),
            refresh_token: tokens.refresh.as_ref().map(copy),
            id_token: tokens.id.as_ref().map(copy),
            token_type: tokens.token_type.clone(),
            token_endpoint: tokens.token_endpoint.clone(),
            instance_url: tokens.instance_url.clone(),
            fields: fields.collect(),
        }
    }

    /// Takes a pair back from whoever saw it, for what an answer that came too late leaves out.
    pub(super) fn again(issued: &IssuedPair) -> Self {
        let fields = issued.fields.iter().map(|(name, raw)| (name.clone(), copy(raw)));
        Self {
            lsn: issued.lsn,
            generation: issued.generation,
            names: Names {
                app: issued.app.clone(),
                user: issued.user.clone(),
                holder: issued.holder.clone(),
                scopes: issued.scopes.clone(),
            },
            access_scopes: issued.access_scopes.clone(),
            asked: None,
            earlier: Lapse::None,
            issued_at_ms: issued.issued_at_ms,
            expires_at_ms: issued.expires_at_ms,
            expiry: issued.expiry_source,
            adopt_by_ms: issued.adopt_by_ms,
            access: Fingerprint::NONE,
            refresh: Fingerprint::NONE,
            tokens: Tokens {
                access: copy(&issued.access_token),
                refresh: issued.refresh_token.as_ref().map(copy),
                id: issued.id_token.as_ref().map(copy),
                token_type: issued.token_type.clone(),
                token_endpoint: issued.token_endpoint.clone(),
                instance_url: issued.instance_url.clone(),
                fields: fields.collect(),
            },
        }
    }
}

fn copy(secret: &Secret) -> Secret {
    Secret::new(secret.reveal().to_owned())
}
