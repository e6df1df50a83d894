//! Drafts the record of an outcome: which grant and generation a pair is, what it inherits, and what
//! is sealed of an answer. It decides from the states that it is given and submits nothing.

use super::IssuedPair;
use super::append::{Owned, Planned};
use super::place::Place;
use super::settle::{Job, Kind, Submitted};
use crate::codec::{Doubt as SealedDoubt, List, Nothing, Pair, Plain, Refusal as SealedRefusal};
use crate::engine::Engine;
use crate::engine::accounts::Seen;
use crate::error::Error;
use crate::format::clear::{
    Clear, Ended, Flags, InDoubt, Issued, NotSent, Prefix, Refused, Resolved,
};
use crate::format::value::{Action, Cause, Confidence, DoubtReason, ResolvedHow};
use crate::ids::{Account, AccountTag, Generation, GrantId, OpId, User};
use crate::outcome::{Doubt, ExpirySource, Outcome, Refusal, ResponseParts, TokenResponse};
use crate::secret::Secret;
use zeroize::Zeroizing;

/// What is left of a body that does not fit: this much less than an outcome may have.
const DOUBT_OVERHEAD_BYTES: usize = 1024;

impl Job {
    pub(super) fn plan(
        &self,
        engine: &Engine,
        outcome: &Outcome,
    ) -> Result<Planned<Submitted>, Error> {
        let ticket = &self.ticket;
        let seen = engine.foresee(ticket.account)?;
        let prefix = Prefix {
            account: ticket.account,
            grant: ticket.grant,
            generation: ticket.generation,
            flags: Flags::NONE,
            op: ticket.op,
        };
        let (clear, plain, kind): (Clear, Box<dyn Plain + Send>, Kind) = match outcome {
            Outcome::Issued(response) => {
                return self.plan_issued(engine, response, seen);
            }
            Outcome::Refused(refusal) => (
                Clear::Refused(refused(self.concerned(&seen, prefix, true), refusal)),
                Box::new(encode_refusal(refusal)),
                Kind::Refused,
            ),
            Outcome::NotSent(reason) => {
                let clear = Clear::NotSent(NotSent { prefix, reason: *reason });
                (clear, Box::new(Nothing), Kind::NotSent)
            }
            Outcome::InDoubt(doubt) => {
                let body_max = engine.limits.outcome_bytes_max as usize - DOUBT_OVERHEAD_BYTES;
                (
                    Clear::InDoubt(in_doubt(prefix, doubt)),
                    Box::new(encode_doubt(doubt, body_max)),
                    Kind::InDoubt,
                )
            }
            Outcome::Revoked if matches!(ticket.action, Action::Revoke | Action::Burn) => {
                let (cause, confidence) = (Cause::RevokedByUs, Confidence::Certain);
                let prefix = self.concerned(&seen, prefix, false);
                let clear = Clear::Ended(Ended { prefix, cause, confidence });
                (clear, Box::new(Nothing), Kind::Revoked)
            }
            Outcome::Revoked | Outcome::Answered => {
                let clear = Clear::Resolved(Resolved { prefix, how: ResolvedHow::Answered });
                (clear, Box::new(Nothing), Kind::Answered)
            }
        };
        let grant = if matches!(kind, Kind::InDoubt) { GrantId(ticket.op.0) } else { ticket.grant };
        let submitted = Submitted {
            kind,
            account: ticket.account,
            grant,
            different_user: false,
            too_large: None,
        };
        Ok((clear, plain, vec![seen], submitted))
    }

    /// Names no grant where the outcome says nothing of one: it is not there any more or, in the case
    /// of a refusal, what was refused is not its newest generation.
    fn concerned(&self, seen: &Seen, prefix: Prefix, newest: bool) -> Prefix {
        let grant = seen.state.grant(self.ticket.grant);
        match grant.is_some_and(|grant| !newest || grant.generation == self.ticket.generation) {
            true => prefix,
            false => Prefix { grant: GrantId::NONE, generation: Generation::NONE, ..prefix },
        }
    }

    fn plan_issued(
        &self,
        engine: &Engine,
        response: &TokenResponse,
        seen: Seen,
    ) -> Result<Planned<Submitted>, Error> {
        let ticket = &self.ticket;
        let tagger = engine.keychain.tagger();
        let parts = response.parts();
        let user = parts.user.clone().or_else(|| ticket.user.clone());
        let known = ticket.app.clone().zip(user.clone());
        // A refresh stays with its grant, whatever the answer says of the user.
        let account = match (&known, ticket.grant.is_none()) {
            (Some((app, user)), true) => tagger.account(&Account::new(app.clone(), user.clone())),
            _ => ticket.account,
        };
        let different_user = ticket.user.is_some() && ticket.user != user;
        let mut states = vec![seen];
        if account != ticket.account {
            states.push(engine.foresee(account)?);
        }
        let place = self.place(engine, &states, parts, account);
        let newer = self.newer(engine, &states, &place);
        let inherited = match place.inherits {
            true => newer.as_ref().or(self.ticket.current.as_ref()),
            false => None,
        };
        let mut owned = self.owned(parts, user.clone(), inherited);
        let access_scopes = match ticket.beside && !place.beside {
            true => self.keep_chain_scopes(engine, &states, &place, inherited, &mut owned),
            false => None,
        };
        if place.carried.flags.has(Flags::HELD) {
            owned.holder = self.carried_holder(engine, &states, &place, owned.holder.take());
        }
        let contents = Contents { parts, inherited, owned, access_scopes, beside: place.beside };
        // An orphan may come when nothing is left of its provisional account.
        let is_blind = ticket.action == Action::Exchange && user.is_none();
        let is_provisional = account == ticket.account
            && (is_blind || states.first().is_some_and(|seen| seen.state.provisional));
        let clear = self.issued(engine, account, &place, &contents, is_provisional);
        let sealed = contents.to_plain();
        let submitted = Submitted {
            kind: Kind::Issued,
            account,
            grant: place.grant,
            different_user,
            too_large: None,
        };
        Ok((Clear::Issued(clear), Box::new(Encoded(sealed)), states, submitted))
    }

    fn owned(
        &self,
        parts: &ResponseParts,
        user: Option<User>,
        inherited: Option<&IssuedPair>,
    ) -> Owned {
        let ticket = &self.ticket;
        let scopes = match (&parts.scopes, inherited) {
            (Some(scopes), _) => scopes.clone(),
            // Other scopes were asked for than the pair before has.
            (None, _) if ticket.beside => ticket.scopes.clone(),
            (None, Some(pair)) => pair.scopes().to_vec(),
            (None, None) => ticket.scopes.clone(),
        };
        let holder = ticket.holder.clone().or_else(|| inherited.and_then(|p| p.holder().cloned()));
        Owned { app: ticket.app.clone(), user, holder, scopes }
    }

    /// Leaves a chain the scopes that it has where its next pair answers a request for others: the
    /// refresh token that came has those of the one that was presented (RFC 6749, section 6). Returns
    /// those of the access token, if they are others [F-74].
    fn keep_chain_scopes(
        &self,
        engine: &Engine,
        states: &[Seen],
        place: &Place,
        inherited: Option<&IssuedPair>,
        owned: &mut Owned,
    ) -> Option<Vec<String>> {
        let newest = match inherited {
            Some(_) => None,
            None => self.newest(engine, states, place.grant),
        };
        let before = inherited.or(newest.as_ref()).or(self.ticket.current.as_ref())?;
        let said = std::mem::replace(&mut owned.scopes, before.scopes().to_vec());
        let own = if said.is_empty() { self.ticket.scopes.clone() } else { said };
        let differs = own.iter().any(|scope| !owned.scopes.contains(scope))
            || owned.scopes.iter().any(|scope| !own.contains(scope));
        differs.then_some(own)
    }

    fn issued(
        &self,
        engine: &Engine,
        account: AccountTag,
        place: &Place,
        contents: &Contents<'_>,
        is_provisional: bool,
    ) -> Issued {
        let ticket = &self.ticket;
        let tagger = engine.keychain.tagger();
        let (parts, owned) = (contents.parts, &contents.owned);
        let token = contents.refresh_token();
        let flag = |set: bool, flag: Flags| if set { flag } else { Flags::NONE };
        let flags = flag(is_provisional, Flags::PROVISIONAL)
            | flag(token.is_some(), Flags::REFRESH)
            | flag(token.is_some() && parts.refresh_token.is_none(), Flags::INHERITED)
            | flag(place.orphan, Flags::ORPHAN)
            | place.carried.flags
            | expiry_flags(parts);
        let now_ms = engine.seams.clock.now_ms();
        let same_account = account == ticket.account;
        Issued {
            prefix: Prefix {
                account,
                grant: place.grant,
                generation: place.generation,
                flags,
                op: if place.orphan { OpId::NONE } else { ticket.op },
            },
            app: ticket.app.as_ref().map(|app| tagger.app(app)).unwrap_or_default(),
            holder: match place.carried.flags.has(Flags::HELD) {
                true => place.carried.holder,
                false => owned.holder.as_ref().map(|h| tagger.holder(h)).unwrap_or_default(),
            },
            access: tagger.fingerprint(parts.access_token.reveal()),
            refresh: token.map(|token| tagger.fingerprint(token)).unwrap_or_default(),
            issued_at_ms: parts.issued_at_ms.unwrap_or(parts.received_at_ms),
            expires_at_ms: parts.expires_at_ms.unwrap_or_default(),
            adopt_by_ms: now_ms.saturating_add(self.adopt_within_ms),
            fence: ticket.fence(),
            from: if same_account || place.orphan { AccountTag::NONE } else { ticket.account },
            first: place.carried.first,
            earlier_lapse_at_ms: place.carried.earlier_lapse_at_ms,
        }
    }
}

/// Says how the expiry is known; neither flag where it was asked for.
pub(super) fn expiry_flags(parts: &ResponseParts) -> Flags {
    match parts.expiry_source {
        Some(ExpirySource::Declared) => Flags::EXPIRES_DECLARED,
        Some(ExpirySource::Assumed) => Flags::EXPIRES_ASSUMED,
        _ => Flags::NONE,
    }
}

/// All that a pair's sealed part is made of.
pub(super) struct Contents<'a> {
    pub(super) parts: &'a ResponseParts,
    pub(super) inherited: Option<&'a IssuedPair>,
    pub(super) owned: Owned,
    /// The scopes of the access token alone, where they are others than the chain's.
    pub(super) access_scopes: Option<Vec<String>>,
    /// It has no refresh token of its own.
    pub(super) beside: bool,
}

impl Contents<'_> {
    pub(super) fn refresh_token(&self) -> Option<&str> {
        let inherited = || self.inherited.and_then(IssuedPair::refresh_token);
        if self.beside {
            return None;
        }
        self.parts.refresh_token.as_ref().or_else(inherited).map(Secret::reveal)
    }

    /// Encodes the pair, filled in from the generation before.
    pub(super) fn to_plain(&self) -> Zeroizing<Vec<u8>> {
        let Self { parts, inherited, owned, access_scopes, beside: _ } = self;
        let text = |own: &'_ Option<String>, old: Option<&str>| -> Option<String> {
            own.clone().or_else(|| old.map(str::to_owned))
        };
        let instance_url = text(&parts.instance_url, inherited.and_then(IssuedPair::instance_url));
        let token_endpoint =
            text(&parts.token_endpoint, inherited.and_then(IssuedPair::token_endpoint));
        let inherited_id_token = || inherited.and_then(IssuedPair::id_token);
        let id_token = parts.id_token.as_ref().or_else(inherited_id_token).map(Secret::reveal);
        let inherited_type = inherited.map(IssuedPair::token_type);
        let token_type = parts.token_type.as_deref().or(inherited_type).unwrap_or("Bearer");
        let fresh = parts.fields.iter();
        let kept = inherited.map(IssuedPair::fields).unwrap_or_default().iter();
        let kept = kept.filter(|(name, _)| fresh.clone().all(|(new, _)| new != name));
        let fields = fresh.clone().chain(kept);
        Pair {
            names: owned.names(),
            access_token: parts.access_token.reveal(),
            refresh_token: self.refresh_token(),
            id_token,
            token_type,
            token_endpoint: token_endpoint.as_deref(),
            instance_url: instance_url.as_deref(),
            fields: List(fields.map(|(name, raw)| (name.as_str(), raw.reveal())).collect()),
            access_scopes: access_scopes
                .as_ref()
                .map(|scopes| List(scopes.iter().map(String::as_str).collect())),
        }
        .to_plain()
    }
}

/// A plaintext that is encoded already.
pub(super) struct Encoded(pub(super) Zeroizing<Vec<u8>>);

impl Plain for Encoded {
    fn plain_bytes(&self) -> usize {
        self.0.len()
    }

    fn write(&self, out: &mut [u8]) {
        out.copy_from_slice(&self.0);
    }
}

/// Encodes what is kept of a refusal.
fn encode_refusal(refusal: &Refusal) -> Encoded {
    let sealed = SealedRefusal {
        error: refusal.error(),
        description: refusal.description(),
        request_id: refusal.request_id(),
    };
    Encoded(sealed.to_plain())
}

/// Encodes what is kept of an answer that could not be understood.
fn encode_doubt(doubt: &Doubt, body_max: usize) -> Encoded {
    let body = doubt.body();
    let sealed =
        SealedDoubt { request_id: doubt.request_id(), body: body.get(..body_max).unwrap_or(body) };
    Encoded(sealed.to_plain())
}

fn refused(prefix: Prefix, refusal: &Refusal) -> Refused {
    Refused {
        prefix,
        class: refusal.class(),
        status: refusal.status(),
        retry_after_s: refusal.retry_after_s(),
    }
}

fn in_doubt(prefix: Prefix, doubt: &Doubt) -> InDoubt {
    InDoubt {
        prefix,
        reason: doubt.reason(),
        status: doubt.status(),
        body_bytes: u32::try_from(doubt.body_bytes()).unwrap_or(u32::MAX),
    }
}

/// Makes a doubt of an answer that is too large: the tokens first, then as much as fits.
pub(super) fn oversized(outcome: &Outcome, max: usize) -> Option<Outcome> {
    let Outcome::Issued(response) = outcome else { return None };
    let parts = response.parts();
    let room = tokens_bytes(parts).saturating_add(64);
    // The full capacity at once: a vector that grows leaves copies behind.
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    let tokens = [
        ("refresh_token", parts.refresh_token.as_ref()),
        ("access_token", Some(&parts.access_token)),
        ("id_token", parts.id_token.as_ref()),
    ];
    for (name, token) in tokens {
        if let Some(token) = token {
            body.extend_from_slice(name.as_bytes());
            body.push(b'=');
            body.extend_from_slice(token.reveal().as_bytes());
            body.push(b'\n');
        }
    }
    let bytes = body.len() as u64;
    body.truncate(max.saturating_sub(DOUBT_OVERHEAD_BYTES));
    let kept = std::mem::take(&mut *body);
    let doubt = Doubt::new(DoubtReason::Oversized).with_status(200).with_body(kept);
    Some(Outcome::InDoubt(doubt.with_body_bytes(bytes)))
}

fn tokens_bytes(parts: &ResponseParts) -> usize {
    let tokens = [&parts.refresh_token, &parts.id_token];
    let optional = tokens.into_iter().flatten().map(|token| token.reveal().len());
    optional.sum::<usize>() + parts.access_token.reveal().len()
}
