//! Decides where a pair goes: which grant and generation it is, and what its record goes on saying of
//! that grant.

use super::IssuedPair;
use super::settle::Job;
use crate::engine::Engine;
use crate::engine::accounts::Seen;
use crate::engine::grant::Grant;
use crate::format::clear::Flags;
use crate::format::value::Action;
use crate::ids::{AccountTag, Fingerprint, Generation, GrantId, Holder, HolderTag};
use crate::outcome::ResponseParts;
use crate::seal::Tagger;
use crate::secret::Secret;

/// Where a pair goes.
pub(super) struct Place {
    pub(super) grant: GrantId,
    pub(super) generation: Generation,
    pub(super) orphan: bool,
    /// It is an access token beside the grant's chain.
    pub(super) beside: bool,
    /// What the answer left out is that of the generation before.
    pub(super) inherits: bool,
    pub(super) carried: Carried,
}

impl Place {
    fn next_of(grant: &Grant, inherits: bool) -> Self {
        Self {
            grant: grant.id,
            generation: Generation(grant.generation.0.saturating_add(1)),
            orphan: false,
            beside: false,
            inherits,
            carried: Carried::of(grant),
        }
    }

    /// Beside the chain; the grant need not be ours to change any longer.
    fn beside(grant: &Grant, asked: Fingerprint, is_open: bool) -> Self {
        let (earlier_lapse_at_ms, flags) = grant.lapse().to_earlier();
        let flags = flags | Flags::BESIDE;
        Self {
            grant: grant.id,
            generation: grant.generation,
            orphan: !is_open,
            beside: true,
            inherits: true,
            carried: Carried { flags, first: asked, earlier_lapse_at_ms, ..Carried::default() },
        }
    }
}

/// What a pair's record says of its grant, and the next one's must go on saying.
#[derive(Default)]
pub(super) struct Carried {
    pub(super) flags: Flags,
    pub(super) first: Fingerprint,
    /// Who holds the grant by the record before.
    pub(super) holder: HolderTag,
    /// When all access tokens so far have lapsed.
    pub(super) earlier_lapse_at_ms: u64,
}

impl Carried {
    fn of(grant: &Grant) -> Self {
        let flag = |set: bool, flag: Flags| if set { flag } else { Flags::NONE };
        let holder = grant.held_by_pair();
        let (earlier_lapse_at_ms, earlier) = grant.lapse().to_earlier();
        Self {
            flags: flag(grant.is_paused(), Flags::PAUSED)
                | flag(grant.pair.flags.has(Flags::IMPORTED), Flags::IMPORTED)
                | flag(holder.is_some(), Flags::HELD)
                | earlier,
            first: grant.first_token(),
            holder: holder.unwrap_or_default(),
            earlier_lapse_at_ms,
        }
    }
}

impl Job {
    /// Finds the name of who holds the grant by the pair before: the caller's, or what that pair
    /// says. Where it cannot be read the tag goes on without it, since no pair waits for a name.
    pub(super) fn carried_holder(
        &self,
        engine: &Engine,
        states: &[Seen],
        place: &Place,
        named: Option<Holder>,
    ) -> Option<Holder> {
        let tagger = engine.keychain.tagger();
        let is_it = |holder: &Holder| tagger.holder(holder) == place.carried.holder;
        let read = || self.newest(engine, states, place.grant)?.holder().cloned();
        named.filter(is_it).or_else(|| read().filter(is_it))
    }

    /// Reads the newest pair of a grant; none where it cannot be read, since no pair waits for that.
    pub(super) fn newest(
        &self,
        engine: &Engine,
        states: &[Seen],
        grant: GrantId,
    ) -> Option<IssuedPair> {
        let known = |seen: &Seen| Some((seen.account, seen.state.grant(grant)?.clone()));
        let (account, grant) = states.iter().find_map(known)?;
        let bytes = engine.record_of(account, &grant.homes, grant.issued).ok()?;
        IssuedPair::from_record(&engine.keychain, &bytes, account, grant.id).ok()
    }

    /// Returns the generation before, if it is another than the one that was presented: a call that
    /// was resent, or settled before, was first.
    pub(super) fn newer(
        &self,
        engine: &Engine,
        states: &[Seen],
        place: &Place,
    ) -> Option<IssuedPair> {
        let presented = self.ticket.current.as_ref().map(IssuedPair::lsn).unwrap_or_default();
        let newest = states.iter().find_map(|seen| seen.state.grant(place.grant))?.issued;
        let is_newer = place.inherits && newest != presented;
        is_newer.then(|| self.newest(engine, states, place.grant)).flatten()
    }

    /// Decides which grant and generation a pair is.
    pub(super) fn place(
        &self,
        engine: &Engine,
        states: &[Seen],
        parts: &ResponseParts,
        account: AccountTag,
    ) -> Place {
        let ticket = &self.ticket;
        let print = |token: &Secret| engine.keychain.tagger().fingerprint(token.reveal());
        let state_of = |tag: AccountTag| states.iter().find(|seen| seen.account == tag);
        let is_open =
            state_of(ticket.account).is_some_and(|seen| seen.state.operation(ticket.op).is_some());
        let target = state_of(account).map(|seen| &seen.state);
        let own = target.and_then(|state| state.grant(ticket.grant)).filter(|_| is_open);
        // The same refresh token seen again is the same grant.
        let of_ticket = target.and_then(|state| state.grant(ticket.grant));
        let refresh = parts.refresh_token.as_ref().map(print);
        let tagger = engine.keychain.tagger();
        if let Some(grant) = of_ticket.filter(|grant| self.is_beside(grant, refresh, tagger)) {
            return Place::beside(grant, tagger.scopes(&ticket.scopes), is_open);
        }
        let by_refresh = |token: &Secret| target.and_then(|state| state.by_refresh(print(token)));
        let again = || parts.refresh_token.as_ref().and_then(by_refresh);
        let is_minted = is_open && ticket.action == Action::Mint;
        let standing = || target.filter(|_| is_minted).and_then(|state| state.standing());
        let found = own.or_else(again).or_else(standing);
        let found = found.map(|grant| Place::next_of(grant, grant.id == ticket.grant));
        // A pair that came already is not another grant; nor is one without a refresh token, where
        // the one that was presented is still a grant's.
        let came = || target.and_then(|state| state.by_access(print(&parts.access_token)));
        let presented = || ticket.current.as_ref().and_then(IssuedPair::refresh_token);
        let shared = || match parts.refresh_token {
            Some(_) => None,
            None => presented().and_then(by_refresh),
        };
        let late = || if is_open { None } else { came().or_else(shared) };
        let found = found.or_else(|| late().map(|grant| Place::next_of(grant, true)));
        found.unwrap_or_else(|| Place {
            grant: if is_open { GrantId(ticket.op.0) } else { GrantId::NONE },
            generation: Generation(1),
            orphan: !is_open,
            beside: false,
            inherits: !ticket.grant.is_none(),
            carried: Carried::default(),
        })
    }

    /// Says whether an answer is beside the chain: it was asked for so, and rotated nothing.
    fn is_beside(&self, grant: &Grant, refresh: Option<Fingerprint>, tagger: &Tagger) -> bool {
        let presented = self.ticket.current.as_ref().and_then(IssuedPair::refresh_token);
        let presented = presented.map(|token| tagger.fingerprint(token.reveal()));
        let is_known = |token| Some(token) == presented || token == grant.pair.refresh;
        self.ticket.beside && refresh.is_none_or(is_known)
    }
}
