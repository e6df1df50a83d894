//! The same random calls on two ledgers that share no code: what one answers, the other must.
//!
//! LSNs differ, and with them grants and operations; both are told apart by the order in which they
//! came, and so are their accounts.

use crate::harness::{Hand, Harness, InMemory, NOW_MS, OnDisk};
use crate::words::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokenwal::ledger::{Change, Ledger};
use tokenwal::{
    AccountRef, AccountTag, AccountView, Begin, Cap, CapCounts, Cause, Confidence, Error,
    ExpirySource, Fingerprint, Generation, GrantId, Import, IssuedPair, Lsn, NotSent, OpId,
    Outcome, RefusalClass, ResolvedHow, Secret, SettleError, Settled, Ticket, TokenResponse,
};

const USERS: [&str; 3] = ["u", "v", "w"];

/// One call; numbers pick among what there is.
#[derive(Debug, Clone)]
enum Call {
    Exchange { user: Option<u8>, under: Option<u8>, code: Option<u8>, limit: Option<u8> },
    Refresh { grant: u8, resending: Option<u8>, holder: Option<u8> },
    Beside { grant: u8, resending: Option<u8>, scopes: u8 },
    Revoke { grant: u8 },
    Introspect { grant: u8 },
    Mint { user: u8 },
    Burn { op: u8, code: u8 },
    Resume { op: u8 },
    Issue { ticket: u8, access: u8, refresh: u8, user: Option<u8>, scopes: bool },
    Settle { ticket: u8, outcome: u8 },
    Adopt { grant: u8, holder: u8, scopes: bool },
    Release { grant: u8, holder: u8 },
    Supersede { from: u8, to: u8, holder: u8, scopes: bool },
    Worked { grant: u8, generation: u8 },
    Told { grant: u8, generation: u8, days: u8 },
    End { grant: u8, cause: u8 },
    Revive { grant: u8 },
    Activate { grant: u8 },
    Resolve { op: u8 },
    Identify { grant: u8, user: u8 },
    Merge { from: u8, user: u8 },
    Forget { account: u8 },
    Import { user: u8, access: u8, refresh: u8, holder: Option<u8>, paused: bool },
    Advance { days: u8 },
    Prune,
    Restart,
}

fn call() -> impl Strategy<Value = Call> {
    let n = || 0_u8..6;
    let maybe = || prop::option::weighted(0.5, 0_u8..3);
    let rarely = || prop::option::weighted(0.2, 0_u8..4);
    prop_oneof![
        6 => (maybe(), rarely(), rarely(), rarely()).prop_map(
            |(user, under, code, limit)| Call::Exchange { user, under, code, limit }
        ),
        6 => (n(), rarely(), maybe()).prop_map(
            |(grant, resending, holder)| Call::Refresh { grant, resending, holder }
        ),
        5 => (n(), rarely(), 0_u8..12).prop_map(
            |(grant, resending, scopes)| Call::Beside { grant, resending, scopes }
        ),
        2 => n().prop_map(|grant| Call::Revoke { grant }),
        1 => n().prop_map(|grant| Call::Introspect { grant }),
        2 => (0_u8..3).prop_map(|user| Call::Mint { user }),
        2 => (n(), 0_u8..4).prop_map(|(op, code)| Call::Burn { op, code }),
        3 => n().prop_map(|op| Call::Resume { op }),
        12 => (n(), n(), 0_u8..8, maybe(), any::<bool>()).prop_map(
            |(ticket, access, refresh, user, scopes)| Call::Issue {
                ticket,
                access,
                refresh,
                user,
                scopes
            }
        ),
        6 => (n(), 0_u8..8).prop_map(|(ticket, outcome)| Call::Settle { ticket, outcome }),
        4 => (n(), n(), any::<bool>()).prop_map(
            |(grant, holder, scopes)| Call::Adopt { grant, holder, scopes }
        ),
        2 => (n(), n()).prop_map(|(grant, holder)| Call::Release { grant, holder }),
        2 => (n(), n(), n(), any::<bool>()).prop_map(
            |(from, to, holder, scopes)| Call::Supersede { from, to, holder, scopes }
        ),
        2 => (n(), 0_u8..3).prop_map(|(grant, generation)| Call::Worked { grant, generation }),
        3 => (n(), 0_u8..4, 0_u8..40).prop_map(
            |(grant, generation, days)| Call::Told { grant, generation, days }
        ),
        2 => (n(), 0_u8..3).prop_map(|(grant, cause)| Call::End { grant, cause }),
        1 => n().prop_map(|grant| Call::Revive { grant }),
        2 => n().prop_map(|grant| Call::Activate { grant }),
        3 => n().prop_map(|op| Call::Resolve { op }),
        2 => (n(), 0_u8..3).prop_map(|(grant, user)| Call::Identify { grant, user }),
        1 => (n(), 0_u8..3).prop_map(|(from, user)| Call::Merge { from, user }),
        1 => n().prop_map(|account| Call::Forget { account }),
        3 => (0_u8..3, n(), 0_u8..8, maybe(), any::<bool>()).prop_map(
            |(user, access, refresh, holder, paused)| Call::Import {
                user,
                access,
                refresh,
                holder,
                paused
            }
        ),
        1 => (0_u8..40).prop_map(|days| Call::Advance { days }),
        1 => Just(Call::Prune),
        1 => Just(Call::Restart),
    ]
}

/// What stands for an id on both sides: the how-manieth it is.
#[derive(Debug, Default)]
struct Order<T>(Vec<T>);

impl<T: Copy + PartialEq + std::fmt::Debug> Order<T> {
    fn add(&mut self, id: T) -> usize {
        self.find(id).unwrap_or_else(|| {
            self.0.push(id);
            self.0.len() - 1
        })
    }

    fn find(&self, id: T) -> Option<usize> {
        self.0.iter().position(|known| *known == id)
    }

    fn pick(&self, number: u8) -> Option<T> {
        // The newest are the most interesting.
        let back = usize::from(number).checked_rem(self.0.len())?;
        self.0.iter().rev().nth(back).copied()
    }
}

/// One of the two, and what was seen of it.
struct Side<H> {
    store: H,
    accounts: Order<AccountTag>,
    grants: Order<GrantId>,
    ops: Order<OpId>,
    tickets: Vec<Option<Ticket>>,
    since: Lsn,
    pruned: bool,
    /// A ledger that was pruned and opened again need not know of callbacks from before.
    forgetful: bool,
}

impl<H: Harness> Side<H> {
    fn new(store: H) -> Self {
        let mut accounts = Order::default();
        for name in USERS {
            accounts.add(tag(store.ledger(), name));
        }
        let since = store.ledger().head();
        let (grants, ops, tickets) = (Order::default(), Order::default(), Vec::new());
        Self { store, accounts, grants, ops, tickets, since, pruned: false, forgetful: false }
    }

    /// Makes a call; says what came of it, in words that are the same on both sides.
    async fn make(&mut self, call: &Call) -> String {
        let ledger = self.store.ledger().clone();
        let grant = |number| self.grants.pick(number).unwrap_or(GrantId(999_999_999));
        let op = |number| self.ops.pick(number).unwrap_or(OpId(999_999_999));
        match *call {
            Call::Exchange { user: name, under, code, limit } => {
                let mut begin = Begin::exchange(&app());
                if let Some(name) = name {
                    begin = begin.user(&user(USERS[usize::from(name)]));
                }
                if let Some(under) = under.filter(|_| !self.forgetful) {
                    begin = begin.under(AccountTag::from_bytes([under + 1; 16]), self.since);
                }
                if let Some(code) = code {
                    begin = begin.presenting(&secret(code));
                }
                if let Some(limit) = limit {
                    let counts = CapCounts::RefreshTokens;
                    begin = begin.cap(Cap { limit: limit.into(), outside: 0, counts });
                }
                self.begin(begin).await
            }
            Call::Refresh { grant: id, resending, holder: who } => {
                let mut begin = Begin::refresh(self.home(grant(id)).await, grant(id));
                if let Some(number) = resending {
                    begin = begin.resending(op(number));
                }
                if let Some(who) = who {
                    begin = begin.holder(&holder(&who.to_string()));
                }
                self.begin(begin).await
            }
            Call::Beside { grant: id, resending, scopes } => {
                // 0 is all that a grant may have, 1 a part of it.
                let scopes = match scopes {
                    0 => vec!["web".to_owned(), "api".to_owned()],
                    1 => vec!["web".to_owned()],
                    other => vec![format!("s{other}")],
                };
                let begin = Begin::refresh(self.home(grant(id)).await, grant(id)).beside(scopes);
                let begin = match resending {
                    Some(number) => begin.resending(op(number)),
                    None => begin,
                };
                self.begin(begin).await
            }
            Call::Revoke { grant: id } => {
                self.begin(Begin::revoke(self.home(grant(id)).await, grant(id))).await
            }
            Call::Introspect { grant: id } => {
                self.begin(Begin::introspect(self.home(grant(id)).await, grant(id))).await
            }
            Call::Mint { user } => {
                self.begin(Begin::mint(&account(USERS[usize::from(user)]))).await
            }
            Call::Burn { op: number, code } => {
                let home = self.home_of(op(number)).await;
                self.begin(Begin::burn(home, op(number)).presenting(&secret(code))).await
            }
            Call::Resume { op: number } => {
                let home = self.home_of(op(number)).await;
                let resumed = ledger.resume(home, op(number)).await;
                self.ticket(resumed)
            }
            Call::Issue { ticket, access, refresh, user: name, scopes } => {
                let response = response(access, refresh, scopes);
                let response = match name {
                    Some(name) => response.with_user(user(USERS[usize::from(name)])),
                    None => response,
                };
                self.settle(ticket, Outcome::Issued(response)).await
            }
            Call::Settle { ticket, outcome } => self.settle(ticket, outcome_of(outcome)).await,
            Call::Advance { .. } => "advanced".to_owned(),
            Call::Prune => {
                ledger.prune().await.unwrap();
                self.pruned = true;
                "pruned".to_owned()
            }
            Call::Restart => {
                drop(ledger);
                self.store.restart().await;
                self.forgetful |= self.pruned;
                "restarted".to_owned()
            }
            Call::Import { user, access, refresh, holder: who, paused } => {
                let owner = account(USERS[usize::from(user)]);
                let mut import = Import::new(&owner, response(access, refresh, true));
                if let Some(who) = who {
                    import = import.holder(&holder(&who.to_string()));
                }
                let imported = match ledger.import(import.paused(paused)).await {
                    Ok(imported) => imported,
                    Err(error) => return self.error(&error),
                };
                let id = self.grants.add(imported.grant);
                let (already, ended) = (imported.already, imported.ended);
                format!("grant {id}.{} {already} {ended}", imported.generation.0)
            }
            ref call => self.change(call).await,
        }
    }

    async fn change(&mut self, call: &Call) -> String {
        let grant = |number| self.grants.pick(number).unwrap_or(GrantId(999_999_999));
        let who = |number: u8| holder(&number.to_string());
        let needs = |some: bool| some.then(|| "api".to_owned()).into_iter().collect();
        let owner = |number: u8| account(USERS[usize::from(number)]);
        let (id, change) = match *call {
            Call::Adopt { grant: id, holder, scopes } => {
                let grant = grant(id);
                (grant, Change::Adopt { grant, holder: who(holder), scopes: needs(scopes) })
            }
            Call::Release { grant: id, holder } => {
                (grant(id), Change::Release { grant: grant(id), holder: who(holder) })
            }
            Call::Supersede { from, to, holder, scopes } => {
                let (from, to) = (grant(from), grant(to));
                (from, Change::Supersede { holder: who(holder), scopes: needs(scopes), from, to })
            }
            Call::Worked { grant: id, generation } => {
                let generation = Generation(generation.into());
                (grant(id), Change::Worked { grant: grant(id), generation })
            }
            Call::Told { grant: id, generation, days } => {
                let generation = Generation(generation.into());
                let expires_at_ms = match days {
                    0 => 0,
                    days => NOW_MS + u64::from(days) * 24 * 3_600_000,
                };
                (grant(id), Change::Told { grant: grant(id), generation, expires_at_ms })
            }
            Call::End { grant: id, cause } => {
                let cause = [Cause::Unknown, Cause::Evicted, Cause::Operator][usize::from(cause)];
                let confidence = Confidence::Probable;
                (grant(id), Change::End { grant: grant(id), cause, confidence })
            }
            Call::Revive { grant: id } => (grant(id), Change::Revive { grant: grant(id) }),
            Call::Activate { grant: id } => (grant(id), Change::Activate { grant: grant(id) }),
            Call::Identify { grant: id, user } => {
                (grant(id), Change::Identify { grant: grant(id), account: owner(user) })
            }
            Call::Resolve { op } => {
                let op = self.ops.pick(op).unwrap_or(OpId(999_999_999));
                let home = self.home_of(op).await;
                return self.changed(home, Change::Resolve { op, how: ResolvedHow::Waived }).await;
            }
            Call::Merge { from, user } => {
                let from = self.accounts.pick(from).unwrap();
                return self.changed(from, Change::Merge { to: owner(user) }).await;
            }
            Call::Forget { account } => {
                let account = self.accounts.pick(account).unwrap();
                return self.changed(account, Change::Forget).await;
            }
            _ => unreachable!("it is no change"),
        };
        self.changed(self.home(id).await, change).await
    }

    async fn changed(&self, account: AccountTag, change: Change) -> String {
        match self.store.ledger().change(account, change).await {
            Ok(_) => "changed".to_owned(),
            Err(error) => self.error(&error),
        }
    }

    async fn begin(&mut self, begin: Begin) -> String {
        let begun = self.store.ledger().begin(begin).await;
        self.ticket(begun)
    }

    fn ticket(&mut self, begun: Result<Ticket, Error>) -> String {
        let ticket = match begun {
            Ok(ticket) => ticket,
            Err(error) => return self.error(&error),
        };
        let (op, account) = (self.ops.add(ticket.op()), self.accounts.add(ticket.account()));
        let grant = ticket.grant().map(|grant| self.grants.find(grant).unwrap());
        let shown = format!(
            "ticket {op} of {account}, {grant:?}, {:?}",
            ticket.current().map(|pair| self.pair(pair))
        );
        self.tickets.push(Some(ticket));
        shown
    }

    async fn settle(&mut self, number: u8, outcome: Outcome) -> String {
        let back = usize::from(number).checked_rem(self.tickets.len());
        let at = back.map(|back| self.tickets.len() - 1 - back);
        let Some(ticket) = at.and_then(|at| self.tickets[at].take()) else {
            return "no ticket".to_owned();
        };
        let settled = match self.store.ledger().settle(ticket, outcome).await {
            Ok(receipt) => receipt.into_settled(),
            Err(SettleError { error, .. }) => return self.error(&error),
        };
        match settled {
            Settled::Issued(pair) | Settled::DifferentUser(pair) => {
                self.accounts.add(pair.account());
                self.grants.add(pair.grant());
                self.pair(&pair)
            }
            Settled::InDoubt(op) => format!("in doubt {:?}", self.ops.find(op)),
            other => format!("{other:?}"),
        }
    }

    fn pair(&self, pair: &IssuedPair) -> String {
        format!(
            "{:?}.{} of {:?}: {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {}",
            self.grants.find(pair.grant()),
            pair.generation().0,
            self.accounts.find(pair.account()),
            of(pair),
            pair.user(),
            pair.holder(),
            pair.scopes(),
            pair.expires_at_ms(),
            pair.adopt_by_ms(),
            pair.expiry_source(),
            pair.is_narrowed().then(|| pair.access_scopes()),
            pair.is_beside(),
        )
    }

    /// Names an error's kind, and the operation that it names.
    fn error(&self, error: &Error) -> String {
        let shown = format!("{error:?}");
        let kind = shown.split([' ', '(']).next().unwrap();
        match error {
            Error::Busy { op, .. } => format!("{kind} {:?}", self.ops.find(*op)),
            Error::CapReached { live, .. } => format!("{kind} {live}"),
            Error::StillLive { live, open, .. } => format!("{kind} {live} {open}"),
            _ => kind.to_owned(),
        }
    }

    /// Finds where a grant is now.
    async fn home(&self, grant: GrantId) -> AccountTag {
        for account in &self.accounts.0 {
            let view = self.store.ledger().account(*account).await.unwrap();
            if view.is_some_and(|view| view.grants.iter().any(|known| known.grant == grant)) {
                return *account;
            }
        }
        self.accounts.0[0]
    }

    async fn home_of(&self, op: OpId) -> AccountTag {
        for account in &self.accounts.0 {
            let view = self.store.ledger().account(*account).await.unwrap();
            if view.is_some_and(|view| view.in_doubt.iter().any(|open| open.op == op)) {
                return *account;
            }
        }
        self.accounts.0[0]
    }

    /// Shows all that there is, in words that are the same on both sides.
    async fn show(&mut self) -> BTreeMap<usize, Vec<String>> {
        let ledger = self.store.ledger().clone();
        let views = walk(&ledger).await;
        let mut pending = Vec::new();
        for view in &views {
            let needs = |grant: &tokenwal::GrantView| {
                grant.state != tokenwal::GrantState::Ended && grant.holders.is_empty()
            };
            if !view.in_doubt.is_empty() || view.grants.iter().any(needs) {
                pending.push(view.account_tag);
            }
        }
        assert_eq!(ledger.pending().await.unwrap(), pending);
        let mut shown = BTreeMap::new();
        for view in views {
            let at = self.accounts.find(view.account_tag).expect("it was seen before");
            let mut lines = self.lines(&view);
            for grant in &view.grants {
                let pair = ledger.pair(view.account_tag, grant.grant).await.unwrap();
                lines.push(format!("{:?}", pair.map(|pair| self.pair(&pair))));
                let beside = ledger.beside(view.account_tag, grant.grant).await.unwrap();
                lines.extend(beside.iter().map(|pair| self.pair(pair)));
            }
            shown.insert(at, lines);
        }
        for number in (0..4).filter(|_| !self.forgetful) {
            let tag = AccountTag::from_bytes([number + 1; 16]);
            let redeemed = ledger.redeemed(tag).await.unwrap().map(|redeemed| {
                let account = self.accounts.find(redeemed.account);
                let grant = redeemed.grant.map(|grant| self.grants.find(grant));
                (self.ops.find(redeemed.op), account, grant)
            });
            shown.insert(1000 + usize::from(number), vec![format!("{redeemed:?}")]);
        }
        shown
    }

    fn lines(&self, view: &AccountView) -> Vec<String> {
        let mut lines = vec![format!("{:?} {:?} {}", view.app, view.user, view.provisional)];
        for grant in &view.grants {
            let mut holders: Vec<_> = grant
                .holders
                .iter()
                .map(|held| format!("{:?} {:?}", held.holder, held.scopes))
                .collect();
            holders.sort();
            let ends = grant.end.as_ref().map(|end| (end.cause, end.confidence, end.at_ms));
            let beside = grant.beside.iter();
            let beside: Vec<_> = beside
                .map(|one| (&one.scopes, one.issued_at_ms, one.expires_at_ms, one.expiry))
                .collect();
            let refusal = grant.refusal.as_ref().map(|no| (no.class, no.status, no.at_ms));
            lines.push(format!(
                "grant {:?}.{} {:?} {holders:?} {:?} {:?} {} {} {:?} {} {} {}{}{}{}{} {ends:?} \
                 {refusal:?} {:?} {} {beside:?}",
                self.grants.find(grant.grant),
                grant.generation.0,
                grant.state,
                grant.issued_for.as_ref().map(|named| named.holder.clone()),
                grant.scopes,
                grant.issued_at_ms,
                grant.expires_at_ms,
                grant.expiry,
                grant.adopt_by_ms,
                grant.has_refresh_token,
                u8::from(grant.worked),
                u8::from(grant.paused),
                u8::from(grant.imported),
                u8::from(grant.fenced),
                u8::from(grant.keeps_previous),
                grant.lapses_at_ms,
                grant.only_assumed,
            ));
        }
        for open in &view.in_doubt {
            lines.push(format!(
                "operation {:?} {:?} {:?}.{} {:?} {} {} {} {}",
                self.ops.find(open.op),
                open.action,
                self.grants.find(open.grant),
                open.generation.0,
                open.doubt,
                open.presented == Fingerprint::NONE,
                open.since_ms,
                open.deadline_ms,
                open.beside,
            ));
        }
        lines
    }
}

fn secret(number: u8) -> Secret {
    Secret::new(format!("code {number}"))
}

/// Few tokens, so that many are the same; 0 and 1 stand for no refresh token.
fn response(access: u8, refresh: u8, scopes: bool) -> TokenResponse {
    let mut body = serde_json::json!({ "access_token": format!("a{access}") });
    if refresh > 1 {
        body["refresh_token"] = format!("r{refresh}").into();
    }
    if scopes {
        body["scope"] = "api web".into();
        body["expires_in"] = 60.into();
    }
    let response = TokenResponse::parse(body.to_string().into_bytes(), NOW_MS).unwrap();
    let until_ms = NOW_MS + u64::from(access) * 24 * 3_600_000;
    match access {
        // Some say nothing of when they expire, or only for a minute.
        0..3 => response,
        3 => response.with_expiry(until_ms, ExpirySource::Declared),
        _ => response.with_expiry(until_ms, ExpirySource::Assumed),
    }
}

fn outcome_of(number: u8) -> Outcome {
    match number {
        0 | 1 => doubt(),
        2 => refused(RefusalClass::Dead),
        3 => refused(RefusalClass::Suspended),
        4 => Outcome::NotSent(NotSent::Connect),
        5 | 6 => Outcome::Revoked,
        _ => Outcome::Answered,
    }
}

/// A grant that a call names must be the one account's that has it.
fn run(calls: &[Call]) -> Result<(), TestCaseError> {
    let threads = tokio::runtime::Builder::new_current_thread().build().unwrap();
    threads.block_on(async {
        let clock: Arc<Hand> = Hand::new();
        let mut disk = Side::new(OnDisk::at(clock.clone()));
        let mut memory = Side::new(InMemory::at(clock.clone()));
        for (number, call) in calls.iter().enumerate() {
            if let Call::Advance { days } = call {
                clock.advance(Duration::from_secs(24 * 3600) * u32::from(*days));
            }
            let (one, other) = (disk.make(call).await, memory.make(call).await);
            prop_assert_eq!(&one, &other, "call {}: {:?}", number, call);
            let (one, other) = (disk.show().await, memory.show().await);
            prop_assert_eq!(one, other, "after call {}: {:?}, {:?}", number, call, calls);
        }
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_ledgers_answer_the_same(calls in prop::collection::vec(call(), 1..60)) {
        run(&calls)?;
    }
}

/// A reference by name and one by tag are the same.
#[test]
fn an_account_is_named_twice() {
    let memory = InMemory::at(Hand::new());
    let named = AccountRef::from(account("u"));
    let tag = memory.ledger().tag_of(&named);
    assert_eq!(memory.ledger().tag_of(&AccountRef::from(tag)), tag);
}
