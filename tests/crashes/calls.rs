//! The callers: what they ask for, what they were told, and what that says about the log.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokenwal::{
    Account, AccountTag, Begin, Cause, Confidence, Doubt, DoubtReason, Error, Generation, GrantId,
    Import, Lsn, NotSent, OpId, Outcome, Refusal, RefusalClass, ResolvedHow, SettleError, Settled,
    Ticket, TokenResponse,
};

use super::model::{Asked, Fact, Grant, Place, State, Whose};
use super::plan::{Action, Answer};
use super::view::tokens;
use super::world::{World, account, app, chain, holder, user};

/// What every secret of the simulated provider contains, so that one search finds a leak.
pub const MARK: &str = "tokenwalSecretMark";

/// What a caller is told in the end.
#[derive(Debug)]
enum Told {
    Begun(Result<Ticket, Error>),
    Settled(Result<Settled, SettleError>),
    Done(Result<Lsn, Error>),
    Compacted(Result<(), Error>),
}

type Telling = Pin<Box<dyn Future<Output = Told> + Send>>;

/// A caller that waits.
pub struct Call {
    future: Telling,
    /// What it submits, until it has; then its place in the log.
    fact: Option<Fact>,
    place: Option<Place>,
    woken: Arc<Woken>,
}

/// A caller that may ask the provider.
pub struct Open {
    ticket: Ticket,
    op: Place,
    /// What an answer without a refresh token inherits.
    inherits: Option<String>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn picked<T>(all: &[T], pick: u8) -> Option<&T> {
    all.get(usize::from(pick).checked_rem(all.len())?)
}

impl World {
    /// Lets a caller do something.
    pub(super) fn call(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Exchange { .. }
            | Action::Mint { .. }
            | Action::Refresh { .. }
            | Action::Beside { .. }
            | Action::Revoke { .. }
            | Action::Introspect { .. } => self.begin(action),
            Action::Settle { pick, answer } => self.settle(pick, answer),
            Action::DropTicket { pick } if !self.tickets.is_empty() => {
                drop(self.tickets.remove(usize::from(pick) % self.tickets.len()));
                Ok(())
            }
            Action::DropFuture { pick } if !self.calls.is_empty() => {
                let call = self.calls.remove(usize::from(pick) % self.calls.len());
                let is_outcome = matches!(
                    call.fact,
                    Some(
                        Fact::Issued { .. }
                            | Fact::Beside { .. }
                            | Fact::Refused { .. }
                            | Fact::Closed { .. }
                            | Fact::Doubted { .. }
                    )
                );
                // An outcome that was not yet submitted is not lost with its caller.
                if call.place.is_none() && is_outcome {
                    self.left.extend(call.fact.clone());
                }
                Ok(())
            }
            Action::AskCompaction => {
                let journal = self.journal.clone();
                let asking = async move { Told::Compacted(journal.compact().await.map(drop)) };
                self.launch(None, Box::pin(asking))
            }
            other => self.change(other),
        }
    }

    fn begin(&mut self, action: Action) -> Result<(), String> {
        let state = self.log.state();
        let (begin, fact) = match action {
            Action::Exchange { user: known, holder: named } => {
                let mut begin = Begin::exchange(&app()).scopes(["api"]);
                if let Some(number) = known {
                    begin = begin.user(&user(number));
                }
                if let Some(number) = named {
                    begin = begin.holder(&holder(number));
                }
                let intent = |number| Fact::Intent {
                    whose: Whose::User(number),
                    asked: Asked::Exchange,
                    grant: None,
                };
                match known {
                    Some(number) => (begin, intent(number)),
                    None => {
                        let (tag, since) = (self.draw_tag(), self.journal.head());
                        (begin.under(tag, since), Fact::Provisional { tag, since })
                    }
                }
            }
            Action::Mint { user } => {
                let whose = Whose::User(user);
                if self.somebody_moves(&state, whose) {
                    return Ok(());
                }
                let grant = state.standing(whose);
                (Begin::mint(&account(user)), Fact::Intent { whose, asked: Asked::Mint, grant })
            }
            Action::Refresh { pick }
            | Action::Beside { pick, .. }
            | Action::Revoke { pick }
            | Action::Introspect { pick } => {
                let Some((place, tag, grant)) = self.pick_grant(&state, pick) else {
                    return Ok(());
                };
                if self.somebody_moves(&state, grant.whose) {
                    return Ok(());
                }
                let id = self.grant_id(place);
                let (begin, asked) = match action {
                    Action::Refresh { .. } => (Begin::refresh(tag, id), Asked::Refresh),
                    Action::Beside { scopes, .. } => {
                        let begin = Begin::refresh(tag, id).beside([format!("scope {scopes}")]);
                        (begin, Asked::Beside(scopes))
                    }
                    Action::Revoke { .. } => (Begin::revoke(tag, id), Asked::Revoke),
                    _ => (Begin::introspect(tag, id), Asked::Introspect),
                };
                (begin, Fact::Intent { whose: grant.whose, asked, grant: Some(place) })
            }
            _ => return Ok(()),
        };
        let journal = self.journal.clone();
        let begun = async move { Told::Begun(journal.begin(begin).await) };
        self.launch(Some(fact), Box::pin(begun))
    }

    fn draw_tag(&self) -> AccountTag {
        let number = self.setting.next_token.fetch_add(1, Ordering::Relaxed);
        let mut tag = [0xC8; 16];
        tag[..8].copy_from_slice(&number.to_be_bytes());
        AccountTag::from_bytes(tag)
    }

    fn settle(&mut self, pick: u8, answer: Answer) -> Result<(), String> {
        if self.tickets.is_empty() {
            return Ok(());
        }
        let Open { ticket, op, inherits } =
            self.tickets.remove(usize::from(pick) % self.tickets.len());
        let (asked, grant) = match self.log.fact(op) {
            Fact::Intent { asked, grant, .. } => (*asked, *grant),
            _ => (Asked::Exchange, None),
        };
        let (outcome, fact) = match answer {
            Answer::Issued { refresh, bytes, user: other } => {
                let number = self.setting.next_token.fetch_add(1, Ordering::Relaxed);
                let access = format!("access{MARK}{number}");
                let fresh = refresh.then(|| format!("refresh{MARK}{number}"));
                let whose = self.whose_pair(&ticket, other);
                let user = other.filter(|_| ticket.grant().is_none()).map(user);
                let outcome = issued(&access, fresh.as_deref(), bytes, user);
                let rotates = fresh.is_some();
                let refresh = fresh.or_else(|| self.log.state().inherited(op, inherits));
                let fact = match (asked, grant) {
                    (Asked::Beside(scopes), Some(grant)) if !rotates => {
                        Fact::Beside { op, grant, whose, scopes, access, refresh }
                    }
                    _ => Fact::Issued { op, whose, access, refresh },
                };
                (outcome, fact)
            }
            Answer::Refused { dead } => {
                let class = if dead { RefusalClass::Dead } else { RefusalClass::Retry };
                let refusal = Refusal::new(class, 400, "invalid_grant", "no", &[]);
                (Outcome::Refused(refusal), Fact::Refused { op, grant, dead })
            }
            Answer::NotSent => {
                (Outcome::NotSent(NotSent::Connect), Fact::Closed { op, ends: None })
            }
            Answer::InDoubt => {
                let body = format!("half an answer with {MARK}").into_bytes();
                let doubt = Doubt::new(DoubtReason::ConnectionLost).with_body(body);
                (Outcome::InDoubt(doubt), Fact::Doubted { op })
            }
            Answer::Revoked => {
                let ends = grant.filter(|_| asked == Asked::Revoke);
                (Outcome::Revoked, Fact::Closed { op, ends })
            }
            Answer::Answered => (Outcome::Answered, Fact::Closed { op, ends: None }),
        };
        let before = self.submitted();
        let settling = self.journal.settle(ticket, outcome);
        let telling = Box::pin(async move { Told::Settled(settling.await) });
        self.launch_from(before, Some(fact), telling)
    }

    /// A pair that makes a grant stands under the user who signed in.
    fn whose_pair(&self, ticket: &Ticket, other: Option<u8>) -> Whose {
        let by_tag = |tag: AccountTag| {
            let users = (0..4).map(Whose::User);
            let nobodies = self.tags.keys().map(|place| Whose::Nobody(*place));
            users.chain(nobodies).find(|whose| self.tag_of(*whose) == Some(tag))
        };
        match other {
            Some(number) if ticket.grant().is_none() => Whose::User(number),
            _ => by_tag(ticket.account()).expect("a ticket's account is known"),
        }
    }

    fn grant_id(&self, place: Place) -> GrantId {
        GrantId(self.log.lsn(place))
    }

    fn pick_grant(&self, state: &State, pick: u8) -> Option<(Place, AccountTag, Grant)> {
        let grants: Vec<_> = state.grants.iter().collect();
        let (place, grant) = picked(&grants, pick)?;
        Some((**place, self.tag_of(grant.whose)?, (*grant).clone()))
    }

    /// A ticket names the account that it was given for, so nothing moves away under one.
    fn somebody_asks(&self, state: &State, whose: Whose) -> bool {
        let asks = |op: &Place| {
            self.tickets.iter().any(|open| open.op == *op)
                || self.calls.iter().any(|call| call.place == Some(*op))
        };
        let will_ask = |call: &Call| matches!(&call.fact, Some(Fact::Intent { whose: of, .. }) if *of == whose);
        state.operations.iter().any(|(op, operation)| operation.whose == whose && asks(op))
            || self.calls.iter().any(will_ask)
    }

    /// Somebody waits to move things away from an account.
    fn somebody_moves(&self, state: &State, whose: Whose) -> bool {
        self.calls.iter().any(|call| match &call.fact {
            Some(Fact::Merged { from, .. }) => *from == whose,
            Some(Fact::Identified { grant, .. }) => {
                state.grants.get(grant).is_some_and(|grant| grant.whose == whose)
            }
            _ => false,
        })
    }

    /// The changes that are one record each.
    fn change(&mut self, action: Action) -> Result<(), String> {
        let Some((fact, telling)) = self.plan_change(action) else { return Ok(()) };
        self.launch(Some(fact), telling)
    }

    fn plan_change(&self, action: Action) -> Option<(Fact, Telling)> {
        let journal = self.journal.clone();
        let state = self.log.state();
        Some(match action {
            Action::Adopt { pick, holder: number } => {
                let (grant, tag, _) = self.pick_grant(&state, pick)?;
                let (id, holder) = (self.grant_id(grant), holder(number));
                let doing = async move { Told::Done(journal.adopt(tag, id, &holder).await) };
                (Fact::Adopted { grant, holder: number }, Box::pin(doing))
            }
            Action::Release { pick, holder: number } => {
                let (grant, tag, _) = self.pick_grant(&state, pick)?;
                let (id, holder) = (self.grant_id(grant), holder(number));
                let doing = async move { Told::Done(journal.release(tag, id, &holder).await) };
                (Fact::Released { grant, holder: number }, Box::pin(doing))
            }
            Action::Supersede { pick, to, holder: number } => {
                let (from, tag, grant) = self.pick_grant(&state, pick)?;
                let siblings: Vec<_> = state
                    .grants
                    .iter()
                    .filter(|(place, other)| other.whose == grant.whose && **place != from)
                    .collect();
                let to = *picked(&siblings, to)?.0;
                let (old, new) = (self.grant_id(from), self.grant_id(to));
                let holder = holder(number);
                let doing =
                    async move { Told::Done(journal.supersede(tag, &holder, old, new).await) };
                (Fact::Superseded { from, to, holder: number }, Box::pin(doing))
            }
            Action::End { pick } => {
                let (grant, tag, _) = self.pick_grant(&state, pick)?;
                let id = self.grant_id(grant);
                let doing = async move {
                    Told::Done(journal.end(tag, id, Cause::Operator, Confidence::Certain).await)
                };
                (Fact::Ended { grant }, Box::pin(doing))
            }
            Action::Revive { pick } => {
                let (grant, tag, _) = self.pick_grant(&state, pick)?;
                let id = self.grant_id(grant);
                let doing = async move { Told::Done(journal.revive(tag, id).await) };
                (Fact::Revived { grant }, Box::pin(doing))
            }
            Action::Worked { pick } => {
                let (grant, tag, Grant { generation, .. }) = self.pick_grant(&state, pick)?;
                let id = self.grant_id(grant);
                let doing = async move {
                    Told::Done(journal.worked(tag, id, Generation(generation)).await)
                };
                (Fact::Worked { grant, generation }, Box::pin(doing))
            }
            Action::Told { pick, seconds } => {
                let (grant, tag, Grant { generation, .. }) = self.pick_grant(&state, pick)?;
                let id = self.grant_id(grant);
                let expires_at_ms = 1_760_000_000_000 + u64::from(seconds);
                let told = Generation(generation);
                let doing =
                    async move { Told::Done(journal.told(tag, id, told, expires_at_ms).await) };
                (Fact::Told { grant, generation, expires_at_ms }, Box::pin(doing))
            }
            Action::Import { user: number, holder: named, refresh, paused } => {
                let token = self.setting.next_token.fetch_add(1, Ordering::Relaxed);
                let access = format!("access{MARK}{token}");
                let refresh = refresh.then(|| format!("refresh{MARK}{token}"));
                let response = response(&access, refresh.as_deref(), 0);
                let mut import = Import::new(&account(number), response).paused(paused);
                if let Some(named) = named {
                    import = import.holder(&holder(named));
                }
                let doing =
                    async move { Told::Done(journal.import(import).await.map(|done| done.lsn)) };
                let whose = Whose::User(number);
                (Fact::Imported { whose, access, refresh, holder: named, paused }, Box::pin(doing))
            }
            Action::Activate { pick } => {
                let (grant, tag, _) = self.pick_grant(&state, pick)?;
                let id = self.grant_id(grant);
                let doing = async move { Told::Done(journal.activate(tag, id).await) };
                (Fact::Activated { grant }, Box::pin(doing))
            }
            Action::Identify { pick, user: number } => self.plan_identify(&state, pick, number)?,
            Action::Merge { pick, user: number } => {
                let (_, tag, grant) = self.pick_grant(&state, pick)?;
                let (from, to) = (grant.whose, Whose::User(number));
                if from == to || self.somebody_asks(&state, from) {
                    return None;
                }
                let target: Account = account(number);
                let doing = async move { Told::Done(journal.merge(tag, &target).await) };
                (Fact::Merged { from, to }, Box::pin(doing))
            }
            Action::Forget { pick } => {
                let (_, tag, grant) = self.pick_grant(&state, pick)?;
                let doing = async move { Told::Done(journal.forget(tag).await) };
                (Fact::Forgotten { whose: grant.whose }, Box::pin(doing))
            }
            Action::Resolve { pick } => {
                let operations: Vec<_> = state.operations.iter().collect();
                let (op, operation) = *picked(&operations, pick)?;
                let (id, tag) = (OpId(self.log.lsn(*op)), self.tag_of(operation.whose)?);
                let doing =
                    async move { Told::Done(journal.resolve(tag, id, ResolvedHow::Waived).await) };
                (Fact::Closed { op: *op, ends: None }, Box::pin(doing))
            }
            _ => return None,
        })
    }

    fn plan_identify(&self, state: &State, pick: u8, number: u8) -> Option<(Fact, Telling)> {
        let provisional: Vec<_> = state
            .grants
            .iter()
            .filter(|(_, grant)| matches!(grant.whose, Whose::Nobody(_)))
            .collect();
        let (place, grant) = *picked(&provisional, pick)?;
        let tag = self.tag_of(grant.whose)?;
        let id = self.grant_id(*place);
        if self.somebody_asks(state, grant.whose) {
            return None;
        }
        let journal = self.journal.clone();
        let doing = async move { Told::Done(journal.identify(tag, id, &account(number)).await) };
        Some((Fact::Identified { grant: *place, to: Whose::User(number) }, Box::pin(doing)))
    }

    fn launch(&mut self, fact: Option<Fact>, future: Telling) -> Result<(), String> {
        let before = self.submitted();
        self.launch_from(before, fact, future)
    }

    fn launch_from(
        &mut self,
        before: u64,
        fact: Option<Fact>,
        future: Telling,
    ) -> Result<(), String> {
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        self.poll(Call { future, fact, place: None, woken }, before)
    }

    /// Polls one caller, and finds out by the LSNs given out whether it has submitted now.
    fn poll(&mut self, mut call: Call, before: u64) -> Result<(), String> {
        call.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&call.woken));
        let polled = call.future.as_mut().poll(&mut Context::from_waker(&waker));
        let given = self.submitted() - before;
        if given > 0
            && let Some(fact) = call.fact.take()
        {
            if given > 1 {
                return Err(format!("one call took {given} LSNs"));
            }
            call.place = Some(self.log.submit(before + 1, fact)?);
        } else if given > 0 {
            return Err(format!("a call took {given} LSNs more"));
        }
        match polled {
            Poll::Pending => {
                self.calls.push(call);
                Ok(())
            }
            Poll::Ready(told) => self.hear(&mut call, told),
        }
    }

    /// Polls all callers that were woken.
    pub(super) fn poll_woken(&mut self) -> Result<(), String> {
        for call in std::mem::take(&mut self.calls) {
            if call.woken.0.load(Ordering::Relaxed) {
                let before = self.submitted();
                self.poll(call, before)?;
            } else {
                self.calls.push(call);
            }
        }
        Ok(())
    }

    /// Says whether everybody was told, at a time when everybody should have been.
    pub(super) fn nobody_waits(&mut self) -> Result<(), String> {
        let waiting = self.calls.len();
        for call in std::mem::take(&mut self.calls) {
            let before = self.submitted();
            self.poll(call, before)?;
        }
        match (waiting, self.calls.len()) {
            (0, _) => Ok(()),
            (_, 0) => Err(format!("{waiting} callers were never woken")),
            (_, hanging) => Err(format!("{hanging} callers hang")),
        }
    }

    /// Takes in what a caller was told, and compares it with what it may be told.
    fn hear(&mut self, call: &mut Call, told: Told) -> Result<(), String> {
        if format!("{told:?}").contains(MARK) {
            return Err(format!("a secret is printed: {told:?}"));
        }
        match told {
            Told::Begun(Ok(ticket)) => {
                let op = call.place.ok_or("a ticket without a record")?;
                if ticket.op().0 != self.log.lsn(op) {
                    return Err(format!("the ticket names {}, not its record", ticket.op()));
                }
                self.log.acknowledge(op);
                self.tags.insert(op, ticket.account());
                let inherits = ticket.current().and_then(|pair| tokens(pair).1);
                self.tickets.push(Open { ticket, op, inherits });
                Ok(())
            }
            Told::Settled(Ok(settled)) => self.hear_settled(call, &settled),
            Told::Done(Ok(lsn)) => {
                let place = call.place.ok_or("an acknowledgement without a record")?;
                if lsn.0 != self.log.lsn(place) {
                    return Err(format!("LSN {lsn} was acknowledged for another record"));
                }
                self.log.acknowledge(place);
                Ok(())
            }
            Told::Settled(Err(failed)) => {
                // The outcome is given back if, and only if, it was surely not stored.
                if call.place.is_some() == failed.outcome.is_some() {
                    return Err(format!("settle failed with {:?}", failed.outcome));
                }
                self.hear_error(call, &failed.error)
            }
            Told::Begun(Err(error)) | Told::Done(Err(error)) => self.hear_error(call, &error),
            Told::Compacted(Err(error)) => self.hear_error(call, &error),
            Told::Compacted(Ok(())) => {
                self.log.compacted(self.disk.files().keys());
                Ok(())
            }
        }
    }

    fn hear_settled(&mut self, call: &Call, settled: &Settled) -> Result<(), String> {
        let place = call.place.ok_or("an outcome without a record")?;
        self.log.acknowledge(place);
        let pair = match settled {
            Settled::Issued(pair) | Settled::DifferentUser(pair) => tokens(pair),
            _ => return Ok(()),
        };
        match self.log.fact(place) {
            Fact::Issued { access, refresh, .. } if pair == (access.clone(), refresh.clone()) => {
                Ok(())
            }
            Fact::Beside { access, refresh, .. }
                if pair.0 == *access && (pair.1.is_none() || pair.1 == *refresh) =>
            {
                Ok(())
            }
            other => Err(format!("settle gave {pair:?} for {other:?}")),
        }
    }

    /// An error after the record was submitted leaves its fate open; one before it is final.
    fn hear_error(&mut self, call: &Call, error: &Error) -> Result<(), String> {
        self.refused_for_room += usize::from(matches!(error, Error::NoRoom { .. }));
        let expected = match error {
            _ if self.disk.has_crashed() => true,
            Error::Poisoned(_) | Error::Compaction(_) | Error::NoRoom { .. } => self.faulty,
            Error::Io { .. } => self.faulty && call.place.is_none(),
            Error::Closed
            | Error::UnknownGrant { .. }
            | Error::GrantEnded { .. }
            | Error::Paused { .. }
            | Error::UnknownOperation { .. }
            | Error::StillLive { .. }
            | Error::Busy { .. } => call.place.is_none(),
            // It waited for room, and a newer pair came meanwhile.
            Error::Conflict { .. } => matches!(call.fact, Some(Fact::Told { .. })),
            _ => false,
        };
        if expected { Ok(()) } else { Err(format!("a caller was told: {}", chain(error))) }
    }
}

fn issued(
    access: &str,
    refresh: Option<&str>,
    bytes: u16,
    user: Option<tokenwal::User>,
) -> Outcome {
    let response = response(access, refresh, bytes);
    Outcome::Issued(match user {
        Some(user) => response.with_user(user),
        None => response,
    })
}

fn response(access: &str, refresh: Option<&str>, bytes: u16) -> TokenResponse {
    let mut body = serde_json::json!({ "access_token": access, "token_type": "Bearer" });
    if let Some(refresh) = refresh {
        body["refresh_token"] = refresh.into();
    }
    if bytes > 0 {
        body["padding"] = MARK.repeat(usize::from(bytes) / MARK.len() + 1).into();
    }
    TokenResponse::parse(body.to_string().into_bytes(), 1_750_000_000_000)
        .expect("it is a token response")
}
