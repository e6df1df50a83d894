//! What there is: accounts, their grants and open operations, and where exchanges went.
//!
//! Plain structures behind the ledger's one lock. Every change is given the next LSN.

use crate::engine::lapse::Lapse;
use crate::error::Error;
use crate::format::value::{Action, DoubtReason};
use crate::ids::{
    Account, AccountTag, App, AppTag, CodeMark, Fingerprint, Generation, GrantId, Holder,
    HolderTag, Lsn, OpId, User,
};
use crate::journal::{
    CapCounts, EndView, Event, EventDetails, IssuedPair, Promise, Redeemed, RefusalView, Ticket,
};
use crate::outcome::ExpirySource;
use crate::secret::Secret;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// How many ended grants an account keeps when it is pruned.
const ENDED_MAX: usize = 8;

/// How many tokens beside its newest pair a grant keeps.
const BESIDE_MAX: usize = 8;

/// How long an ended grant keeps its tokens, in milliseconds.
const ENDED_TOKENS_MS: u64 = 30 * 24 * 3600 * 1000;

#[derive(Default)]
pub(super) struct Store {
    pub(super) head: Lsn,
    /// Operations up to here were left behind by an earlier opening.
    opened: Lsn,
    pub(super) openings: u64,
    /// When it was last taken over from a copy, or never.
    pub(super) claimed: Lsn,
    /// When it was last written to.
    pub(super) newest_ms: u64,
    pub(super) accounts: BTreeMap<AccountTag, State>,
    pub(super) callbacks: Callbacks,
    pub(super) faults: Faults,
}

/// What is to fail.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) settles: u32,
    pub(super) writes: bool,
}

/// One account.
#[derive(Default)]
pub(super) struct State {
    pub(super) version: Lsn,
    pub(super) app_tag: AppTag,
    pub(super) provisional: bool,
    /// Who it is, where something moved here from another account.
    pub(super) identified: Option<Account>,
    pub(super) grants: BTreeMap<GrantId, Grant>,
    pub(super) operations: BTreeMap<OpId, Operation>,
    pub(super) events: Vec<Event>,
}

#[derive(Default)]
pub(super) struct Grant {
    pub(super) id: GrantId,
    pub(super) generation: Generation,
    /// None where only the end is still known.
    pub(super) newest: Option<Arc<Pair>>,
    /// The pair with the refresh token before, until the newest has worked.
    pub(super) previous: Option<Arc<Pair>>,
    /// Tokens beside the newest pair, in the order in which they came.
    pub(super) beside: Vec<Arc<Pair>>,
    /// When the newest access token expires, as the provider said later.
    pub(super) told_ms: Option<u64>,
    /// The token that it began with, where the newest pair is not its first.
    pub(super) first: Fingerprint,
    /// The change that said that the newest pair has worked, or none.
    pub(super) worked: Lsn,
    pub(super) paused: bool,
    pub(super) imported: bool,
    pub(super) fenced: bool,
    pub(super) holders: Vec<Held>,
    pub(super) gone: BTreeSet<HolderTag>,
    pub(super) refusal: Option<RefusalView>,
    pub(super) end: Option<EndView>,
}

pub(super) struct Held {
    pub(super) tag: HolderTag,
    pub(super) holder: Holder,
    pub(super) scopes: Vec<String>,
    pub(super) since_ms: u64,
    pub(super) lsn: Lsn,
    /// It came with the pair, and not by a change of its own.
    pub(super) by_pair: bool,
}

#[derive(Clone, Default)]
pub(super) struct Names {
    pub(super) app: Option<App>,
    pub(super) user: Option<User>,
    pub(super) holder: Option<Holder>,
    pub(super) scopes: Vec<String>,
}

/// One generation of a grant, or an access token beside them.
pub(super) struct Pair {
    pub(super) lsn: Lsn,
    pub(super) generation: Generation,
    pub(super) names: Names,
    /// The scopes of the access token alone, where they are others than the chain's.
    pub(super) access_scopes: Option<Vec<String>>,
    /// What stands for the scopes that were asked for, of a token beside the chain.
    pub(super) asked: Option<Fingerprint>,
    /// When the access tokens of the grant before this one have lapsed.
    pub(super) earlier: Lapse,
    pub(super) issued_at_ms: u64,
    pub(super) expires_at_ms: u64,
    pub(super) expiry: Option<ExpirySource>,
    pub(super) adopt_by_ms: u64,
    pub(super) access: Fingerprint,
    pub(super) refresh: Fingerprint,
    pub(super) tokens: Tokens,
}

/// What a provider's answer came with, filled in from the generation before.
pub(super) struct Tokens {
    pub(super) access: Secret,
    pub(super) refresh: Option<Secret>,
    pub(super) id: Option<Secret>,
    pub(super) token_type: String,
    pub(super) token_endpoint: Option<String>,
    pub(super) instance_url: Option<String>,
    pub(super) fields: Vec<(String, Secret)>,
}

/// A call to the provider without a final outcome.
pub(super) struct Operation {
    pub(super) op: OpId,
    pub(super) action: Action,
    pub(super) grant: GrantId,
    pub(super) generation: Generation,
    pub(super) presented: Fingerprint,
    /// A token beside the grant's chain is asked for.
    pub(super) beside: bool,
    pub(super) names: Names,
    pub(super) doubt: Option<DoubtReason>,
    pub(super) since_ms: u64,
    pub(super) deadline_ms: u64,
}

/// Which tags exchanges were begun under, and where they are.
#[derive(Default)]
pub(super) struct Callbacks {
    by_tag: HashMap<AccountTag, OpId>,
    by_code: HashMap<CodeMark, AccountTag>,
    places: BTreeMap<OpId, (AccountTag, Option<GrantId>)>,
}

impl Store {
    pub(super) fn open_again(&mut self) -> u64 {
        self.opened = self.next();
        self.openings += 1;
        self.openings
    }

    /// Opens a copy on another host: whoever has the other one may have used what is in it.
    pub(super) fn claim(&mut self) -> u64 {
        let opening = self.open_again();
        self.claimed = self.next();
        opening
    }

    pub(super) fn next(&mut self) -> Lsn {
        self.head = self.head.plus(1);
        self.head
    }

    /// Says whether nobody waits for an answer any more.
    pub(super) fn is_doubtful(&self, operation: &Operation) -> bool {
        operation.doubt.is_some() || operation.op.0 <= self.opened.0
    }

    /// Returns an account to be changed with this LSN.
    pub(super) fn touch(&mut self, account: AccountTag, lsn: Lsn) -> &mut State {
        let state = self.accounts.entry(account).or_default();
        state.version = lsn;
        state
    }

    /// Drops an account of which nothing is left.
    pub(super) fn tidy(&mut self, account: AccountTag) {
        if self.accounts.get(&account).is_some_and(State::is_empty) {
            self.accounts.remove(&account);
        }
    }

    pub(super) fn resume(&self, account: AccountTag, op: OpId) -> Result<Ticket, Error> {
        let state = self.accounts.get(&account);
        let found = state.and_then(|state| Some((state, state.operations.get(&op)?)));
        let (state, operation) = found.ok_or(Error::UnknownOperation { account, op })?;
        Ok(operation.ticket(account, state))
    }

    pub(super) fn pair(&self, account: AccountTag, grant: GrantId) -> Option<IssuedPair> {
        self.accounts.get(&account)?.grants.get(&grant)?.current(account)
    }

    pub(super) fn beside(&self, account: AccountTag, id: GrantId) -> Vec<IssuedPair> {
        let state = self.accounts.get(&account);
        let grant = state.and_then(|state| state.live(account, id).ok());
        let newest_first = grant.into_iter().flat_map(|grant| grant.beside.iter().rev());
        newest_first.map(|pair| pair.to_issued(account, id)).collect()
    }

    pub(super) fn pending(&self) -> Vec<AccountTag> {
        let unheld = |grant: &Grant| grant.is_live() && grant.holders.is_empty();
        let is_pending =
            |state: &State| !state.operations.is_empty() || state.grants.values().any(unheld);
        let pending = self.accounts.iter().filter(|(_, state)| is_pending(state));
        pending.map(|(account, _)| *account).collect()
    }

    pub(super) fn prune(&mut self, now_ms: u64) {
        self.accounts.values_mut().for_each(|state| state.prune(now_ms));
    }
}

impl State {
    pub(super) fn is_empty(&self) -> bool {
        self.grants.is_empty() && self.operations.is_empty()
    }

    /// Returns a grant of which a pair is known.
    pub(super) fn known(&self, account: AccountTag, id: GrantId) -> Result<&Grant, Error> {
        let grant = self.grants.get(&id).filter(|grant| grant.newest.is_some());
        grant.ok_or(Error::UnknownGrant { account, grant: id })
    }

    pub(super) fn live(&self, account: AccountTag, id: GrantId) -> Result<&Grant, Error> {
        let grant = self.known(account, id)?;
        if grant.is_live() { Ok(grant) } else { Err(Error::GrantEnded { account, grant: id }) }
    }

    /// Counts toward a provider's cap.
    pub(super) fn count(&self, counts: CapCounts) -> u32 {
        let counted = |grant: &&Grant| match counts {
            CapCounts::Grants => grant.is_live(),
            CapCounts::RefreshTokens => grant.is_live() && !grant.refresh().is_none(),
        };
        let exchanges = self.operations.values().filter(|open| open.action == Action::Exchange);
        let count = self.grants.values().filter(counted).count() + exchanges.count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Returns the first live grant that passes. There may be two with one token, where one of them
    /// moved here: who depends on it depends on the first.
    pub(super) fn find(&self, passes: impl Fn(&Grant) -> bool) -> Option<&Grant> {
        self.grants.values().find(|grant| grant.is_live() && passes(grant))
    }

    /// Returns the grant that mints go to: the newest of those without a refresh token.
    pub(super) fn standing(&self) -> Option<&Grant> {
        let standing = |grant: &&Grant| grant.is_live() && grant.refresh().is_none();
        let standing = self.grants.values().filter(standing);
        standing.max_by_key(|grant| grant.newest.as_ref().map(|pair| pair.lsn))
    }

    /// Writes the past down.
    pub(super) fn note(&mut self, event: Event) {
        self.events.push(event);
    }

    fn prune(&mut self, now_ms: u64) {
        self.grants.values_mut().for_each(|grant| grant.prune(now_ms));
        // Nothing is left that says so.
        let has_pair = self.grants.values().any(|grant| grant.newest.is_some());
        self.provisional &= has_pair || !self.operations.is_empty();
        let ended = self.grants.values().filter(|grant| grant.end.is_some()).count();
        let mut surplus = ended.saturating_sub(ENDED_MAX);
        self.grants.retain(|_, grant| {
            let drop = surplus > 0 && grant.end.is_some() && grant.newest.is_none();
            surplus -= usize::from(drop);
            !drop
        });
    }
}

impl Grant {
    pub(super) fn is_live(&self) -> bool {
        self.end.is_none() && self.newest.is_some()
    }

    pub(super) fn refresh(&self) -> Fingerprint {
        self.newest.as_ref().map(|pair| pair.refresh).unwrap_or_default()
    }

    pub(super) fn access(&self) -> Fingerprint {
        self.newest.as_ref().map(|pair| pair.access).unwrap_or_default()
    }

    /// Says whether a token is or was its own, as far as is known.
    pub(super) fn knows(&self, token: Fingerprint) -> bool {
        let previous = self.previous.as_ref().map(|pair| pair.refresh).unwrap_or_default();
        let known = [self.refresh(), self.access(), self.first, previous];
        let is_beside = || self.beside.iter().any(|pair| pair.access == token);
        self.newest.is_some() && !token.is_none() && (known.contains(&token) || is_beside())
    }

    pub(super) fn current(&self, account: AccountTag) -> Option<IssuedPair> {
        let (expires_at_ms, expiry_source) = self.expiry();
        let pair = self.newest.as_ref().map(|pair| pair.to_issued(account, self.id));
        pair.map(|pair| IssuedPair { expires_at_ms, expiry_source, ..pair })
    }

    /// Says when the newest access token expires, and how that is known.
    pub(super) fn expiry(&self) -> (u64, Option<ExpirySource>) {
        match (self.told_ms, &self.newest) {
            (Some(at_ms), _) => (at_ms, Some(ExpirySource::Introspected)),
            (None, Some(pair)) => (pair.expires_at_ms, pair.expiry),
            (None, None) => (0, None),
        }
    }

    /// Says when all access tokens so far have lapsed.
    pub(super) fn lapse(&self) -> Lapse {
        let Some(newest) = &self.newest else { return Lapse::None };
        let (at_ms, source) = self.expiry();
        let newest = newest.earlier.and(lapse_of(at_ms, source));
        self.beside.iter().fold(newest, |lapse, pair| lapse.and(pair.lapse()))
    }

    /// Takes a token beside the newest pair: the newest for what was asked for, and a few in all.
    pub(super) fn take_beside(&mut self, pair: Pair) {
        self.beside.retain(|other| other.asked != pair.asked);
        self.beside.push(Arc::new(pair));
        let surplus = self.beside.len().saturating_sub(BESIDE_MAX);
        self.beside.drain(..surplus);
    }

    /// Takes the next generation.
    pub(super) fn take(&mut self, pair: Pair, now_ms: u64) {
        if let Some(before) = &self.newest {
            if !before.refresh.is_none() && before.refresh != pair.refresh {
                self.previous = Some(Arc::clone(before));
            }
            let known = [self.first, before.refresh, before.access];
            self.first = known.into_iter().find(|token| !token.is_none()).unwrap_or_default();
        }
        for held in self.holders.iter_mut().filter(|held| held.by_pair) {
            (held.lsn, held.since_ms) = (pair.lsn, now_ms);
            held.scopes.clone_from(&pair.names.scopes);
        }
        self.generation = pair.generation;
        (self.fenced, self.refusal, self.told_ms) = (false, None, None);
        self.worked = Lsn::NONE;
        self.newest = Some(Arc::new(pair));
    }

    pub(super) fn hold(&mut self, held: Held) {
        self.holders.retain(|other| other.tag != held.tag);
        self.gone.remove(&held.tag);
        self.holders.push(held);
    }

    pub(super) fn let_go(&mut self, holder: HolderTag) {
        self.holders.retain(|held| held.tag != holder);
        self.gone.insert(holder);
    }

    /// Drops the tokens, and all but the end, of what ended long ago.
    fn prune(&mut self, now_ms: u64) {
        let newest = self.newest.as_ref().map(|pair| pair.lsn).unwrap_or_default();
        // What one says of those before it must be over, or be said by the newest pair.
        self.beside.retain(|pair| {
            let has_lapsed = pair.expires_at_ms > 0 && pair.expires_at_ms <= now_ms;
            let is_over = pair.lapse().at_ms().is_some_and(|at_ms| at_ms <= now_ms);
            !has_lapsed || !(is_over || pair.lsn < newest)
        });
        let Some(end) = self.end.take() else { return };
        if now_ms.saturating_sub(end.at_ms) > ENDED_TOKENS_MS {
            let refusal = self.refusal.take().filter(|refusal| refusal.lsn == end.lsn);
            *self = Self { id: self.id, refusal, ..Self::default() };
        }
        self.end = Some(end);
    }
}

impl Pair {
    fn lapse(&self) -> Lapse {
        self.earlier.and(lapse_of(self.expires_at_ms, self.expiry))
    }
}

fn lapse_of(at_ms: u64, source: Option<ExpirySource>) -> Lapse {
    Lapse::of_token(at_ms, source == Some(ExpirySource::Assumed))
}

impl Operation {
    pub(super) fn ticket(&self, account: AccountTag, state: &State) -> Ticket {
        let Names { app, user, holder, scopes } = self.names.clone();
        Ticket {
            op: self.op,
            action: self.action,
            account,
            grant: self.grant,
            generation: self.generation,
            version: state.version,
            app,
            user,
            holder,
            scopes,
            beside: self.beside,
            current: state.grants.get(&self.grant).and_then(|grant| grant.current(account)),
            promise: Promise::none(),
        }
    }
}

impl Callbacks {
    /// Returns the tag that an exchange was begun under with this tag or this code.
    pub(super) fn used(&self, tag: AccountTag, code: Option<CodeMark>) -> Option<AccountTag> {
        let by_code = || self.by_code.get(&code?).copied();
        self.by_tag.get(&tag).map(|_| tag).or_else(by_code)
    }

    /// Notes an exchange; a tag is first used by the first.
    pub(super) fn begin(
        &mut self,
        tag: AccountTag,
        code: Option<CodeMark>,
        op: OpId,
        account: AccountTag,
    ) {
        if !tag.is_none() && !self.by_tag.contains_key(&tag) {
            self.by_tag.insert(tag, op);
            if let Some(code) = code {
                self.by_code.entry(code).or_insert(tag);
            }
            self.places.insert(op, (account, None));
        }
    }

    /// Notes where the pair of an exchange went, the first if there are two.
    pub(super) fn issue(&mut self, op: OpId, under: AccountTag, account: AccountTag, id: GrantId) {
        if let Some(place) = self.places.get_mut(&op).filter(|place| **place == (under, None)) {
            *place = (account, Some(id));
        }
    }

    /// Follows what moves: one grant, or everything.
    pub(super) fn relocate(&mut self, from: AccountTag, grant: Option<GrantId>, to: AccountTag) {
        for (account, of) in self.places.values_mut() {
            if *account == from && (grant.is_none() || grant == *of) {
                *account = to;
            }
        }
    }

    pub(super) fn redeemed(&self, tag: AccountTag) -> Option<Redeemed> {
        let op = *self.by_tag.get(&tag)?;
        self.places.get(&op).map(|(account, grant)| Redeemed {
            op,
            account: *account,
            grant: *grant,
        })
    }
}

/// Begins an event: what every one of them says.
pub(super) fn event(lsn: Lsn, at_ms: u64, kind: &'static str, account_tag: AccountTag) -> Event {
    Event {
        lsn,
        at_ms,
        kind,
        account_tag,
        grant: GrantId::NONE,
        generation: Generation::NONE,
        op: OpId::NONE,
        details: EventDetails::Bare {},
    }
}
