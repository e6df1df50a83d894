//! The main job on real input: pairs from a real OAuth server over HTTP, a service that is killed
//! with SIGKILL at random moments, and nothing that it acknowledged lost.
//!
//! The server is npm `oidc-provider` with rotation (`oidc/server.mjs`); `tests/run oidc` installs it.
//! The service is this program again (`oidc/service.rs`); it tells each acknowledgement over a pipe,
//! after the journal has given the pair out. Once it is dead this process opens the store, and
//! holds three witnesses against each other: what was acknowledged, what the journal has, and what
//! the server's own log says that it was asked and answered (`oidc/server.rs`).
//!
//! `oidc/broker.rs` runs the suite of `tests/issuance` against the same server, less caps and faults:
//! callbacks, rotation, callers by the hundred and callers who leave, lost answers.
//!
//! `TOKENWAL_KILLS` is how many times it is killed, 50 unless set; `TOKENWAL_SEED` repeats a run's
//! choices, though not its timing.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::string_slice,
    reason = "a test may"
)]
#![cfg(feature = "client")]

#[path = "oidc/broker.rs"]
mod broker;
#[path = "oidc/server.rs"]
mod server;
#[path = "oidc/service.rs"]
mod service;

use server::{Endpoints, Log, Server};
use service::{Ack, Child, Rng};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;
use tokenwal::provider::Provider;
use tokenwal::{
    Account, AccountTag, AccountView, Action, Cause, Clock, Confidence, GrantId, GrantState,
    GrantView, IssuedPair, Journal, OperationView, ResolvedHow, SystemClock, User,
};

#[test]
#[ignore = "takes Node and oidc-provider; run by `tests/run oidc`"]
fn nothing_acknowledged_is_lost_to_kills() {
    if service::is_asked_for() {
        return service::run();
    }
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse().unwrap());
    let kills = number("TOKENWAL_KILLS").unwrap_or(50);
    let seed = number("TOKENWAL_SEED").unwrap_or_else(|| SystemClock.now_ms());
    println!("TOKENWAL_KILLS={kills} TOKENWAL_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(story(kills, seed));
}

async fn story(kills: u64, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path()).await;
    let mut witness = Witness {
        provider: server.endpoints.provider(),
        store: dir.path().join("store"),
        grants: BTreeMap::new(),
        known: HashSet::new(),
        tally: Tally::default(),
    };
    let mut rng = Rng::new(seed);
    for _ in 0..kills {
        let acks = kill_one(&server.endpoints, &witness.store, &mut rng).await;
        let killed_at_ms = SystemClock.now_ms();
        witness.hear(acks);
        let log = server.log_at_rest().await;
        witness.check(log, killed_at_ms, rng.one_in(2)).await;
    }
    let requests = server.log_at_rest().await.len();
    let Tally { acknowledged, tokens_tried, unseen_refreshes, unseen_exchanges, .. } =
        witness.tally;
    println!("{kills} kills, {requests} requests at the server");
    println!("{:#?}", witness.tally);
    println!("spent tokens presented: 0, acknowledged and lost: 0");
    // A run in which too little happened proves nothing.
    assert!(acknowledged >= kills * 10 && tokens_tried >= kills * 10, "too few pairs");
    assert!(unseen_refreshes + unseen_exchanges >= kills / 10, "the kills hit nothing");
}

/// Starts a service, lets it work for a while, and kills it; returns what it acknowledged.
async fn kill_one(server: &Endpoints, store: &std::path::Path, rng: &mut Rng) -> Vec<Ack> {
    let mut child = Child::start(server, store, rng.next());
    // Some die while they open the store.
    if !rng.one_in(8) {
        // By what was done and not by time, so that a slow machine does as much.
        child.hear_of(1 + usize::try_from(rng.below(60)).unwrap()).await;
    }
    tokio::time::sleep(Duration::from_millis(rng.below(50))).await;
    child.kill().await
}

/// What is counted.
#[derive(Debug, Default)]
#[allow(dead_code, reason = "printed whole")]
struct Tally {
    /// Pairs, adoptions and revocations that the service told of.
    acknowledged: u64,
    /// Pairs and revocations that were durable when the kill came, and not yet told of.
    durable_and_untold: u64,
    /// Newest acknowledged refresh tokens that the server took.
    tokens_tried: u64,
    /// In doubt: the request never reached the server.
    never_sent: u64,
    /// In doubt: the server rotated, and nobody received the successor. The grant is given up.
    unseen_refreshes: u64,
    /// In doubt: the server issued, and nobody received the pair.
    unseen_exchanges: u64,
    /// In doubt: the server revoked, and nobody heard it say so.
    unseen_revocations: u64,
    /// In doubt: questions, which change nothing.
    questions: u64,
    /// Journals that ended in a torn write.
    torn: u64,
}

/// The newest that is known of a grant.
#[derive(Default)]
struct Newest {
    user: String,
    generation: u32,
    /// Hash of the refresh token.
    token: String,
    is_adopted: bool,
}

/// Holds the three witnesses against each other.
struct Witness {
    provider: Provider,
    store: PathBuf,
    /// By our grant ids.
    grants: BTreeMap<u64, Newest>,
    /// Hashes of all refresh tokens that were acknowledged, durable, or given up.
    known: HashSet<String>,
    tally: Tally,
}

impl Witness {
    /// Takes down what the service told.
    fn hear(&mut self, acks: Vec<Ack>) {
        let mut revoked = Vec::new();
        for ack in acks {
            self.tally.acknowledged += 1;
            // Tasks may tell in another order than the journal's.
            match ack {
                Ack::Issued { user, grant, generation, token } => {
                    self.known.insert(token.clone());
                    let newest = self.newest(grant);
                    newest.user = user;
                    if newest.generation < generation {
                        (newest.generation, newest.token) = (generation, token);
                    }
                }
                Ack::Adopted { grant } => self.newest(grant).is_adopted = true,
                Ack::Revoked { grant } => revoked.push(grant),
            }
        }
        for grant in revoked {
            self.grants.remove(&grant).expect("it was issued before it was revoked");
        }
    }

    fn newest(&mut self, grant: u64) -> &mut Newest {
        self.grants.entry(grant).or_default()
    }

    /// Opens the store of the dead service and checks everything. `close` says whether the next
    /// one finds it closed in order.
    async fn check(&mut self, log: &Log, killed_at_ms: u64, close: bool) {
        // What we presented, we had: its record was durable before.
        self.known.extend(log.presented());
        let (journal, report) = service::options().open_or_create(&self.store).unwrap();
        self.tally.torn += u64::from(report.torn_bytes > 0);
        assert_eq!(log.spent_presented(), 0, "we presented a spent token");
        self.hear_the_journal(&journal, log).await;
        for operation in &report.in_doubt {
            self.resolve(&journal, log, operation, killed_at_ms).await;
        }
        self.account_for_all(log);
        for (grant, newest) in &self.grants {
            let pair = self.pair_of(&journal, *grant, newest).await;
            assert_eq!(service::hash_of(&pair), newest.token, "grant {grant} went back");
            let token = pair.refresh_token().expect("it has a refresh token");
            let (answer, outcome) = self.provider.introspect(token).await;
            let answer = answer.unwrap_or_else(|| panic!("{outcome:?}"));
            assert!(answer.active, "the newest token of grant {grant} does not work");
            self.tally.tokens_tried += 1;
        }
        if close {
            journal.close().await.unwrap();
        }
    }

    /// Compares what was acknowledged with what the journal has, and goes on from the latter.
    async fn hear_the_journal(&mut self, journal: &Journal, log: &Log) {
        let mut missing: HashSet<u64> = self.grants.keys().copied().collect();
        for account in journal.accounts() {
            let account = account.unwrap();
            for grant in &account.grants {
                missing.remove(&grant.grant.0);
                match grant.state {
                    GrantState::Ended => self.hear_of_end(&account, grant, log),
                    _ => self.hear_of_pair(journal, &account, grant).await,
                }
            }
        }
        assert!(missing.is_empty(), "acknowledged grants are not in the journal: {missing:?}");
    }

    /// A grant that ended without our being told: then it was revoked, and the server says so too.
    fn hear_of_end(&mut self, account: &AccountView, grant: &GrantView, log: &Log) {
        let Some(newest) = self.grants.remove(&grant.grant.0) else { return };
        let cause = grant.end.as_ref().map(|end| end.cause);
        assert_eq!(cause, Some(Cause::RevokedByUs), "{account:?}");
        // It may have been refreshed before, of which we were not told either.
        let mut token = newest.token;
        for _ in newest.generation..grant.generation.0 {
            token = log.refreshed_to(&token).unwrap_or_else(|| panic!("{account:?}"));
            self.tally.durable_and_untold += 1;
        }
        assert!(log.committed("revocation", &token), "{account:?}");
        self.tally.durable_and_untold += 1;
    }

    async fn hear_of_pair(&mut self, journal: &Journal, account: &AccountView, grant: &GrantView) {
        let user = account.user.as_ref().expect("we name the user").as_str().to_owned();
        let pair = journal.current_of(account.account_tag, grant.grant).await.unwrap().unwrap();
        let token = service::hash_of(&pair);
        let known = self.grants.get(&grant.grant.0);
        let (generation, is_adopted) = known.map_or((0, false), |n| (n.generation, n.is_adopted));
        let now = pair.generation().0;
        assert!(now >= generation, "grant {} went back: {now} < {generation}", grant.grant.0);
        assert!(!is_adopted || grant.state == GrantState::Held, "an adoption is lost: {account:?}");
        if now > generation {
            self.tally.durable_and_untold += 1;
            self.known.insert(token.clone());
            self.grants.insert(grant.grant.0, Newest { user, generation: now, token, is_adopted });
        }
    }

    /// Finds out from the server's log what became of an operation in doubt, and says so to the
    /// journal. A rotated token is never presented again: its grant is given up.
    async fn resolve(
        &mut self,
        journal: &Journal,
        log: &Log,
        operation: &OperationView,
        killed_at_ms: u64,
    ) {
        let OperationView { account_tag, op, grant, .. } = *operation;
        let token = self.grants.get(&grant.0).map(|newest| newest.token.clone());
        let how = match operation.action {
            Action::Refresh => {
                match log.successor(token.as_deref().expect("a live grant"), killed_at_ms) {
                    None => {
                        self.tally.never_sent += 1;
                        ResolvedHow::NotIssued
                    }
                    Some(successor) => {
                        self.tally.unseen_refreshes += 1;
                        self.known.insert(successor);
                        self.give_up(journal, account_tag, grant, Cause::Operator).await;
                        ResolvedHow::Waived
                    }
                }
            }
            Action::Revoke => {
                let revoked = log.committed("revocation", token.as_deref().expect("a live grant"));
                if revoked {
                    self.tally.unseen_revocations += 1;
                    self.give_up(journal, account_tag, grant, Cause::RevokedByUs).await;
                } else {
                    self.tally.never_sent += 1;
                }
                ResolvedHow::Waived
            }
            Action::Exchange => match log.unseen_exchange(&self.known, killed_at_ms) {
                None => {
                    self.tally.never_sent += 1;
                    ResolvedHow::NotIssued
                }
                Some(issued) => {
                    self.tally.unseen_exchanges += 1;
                    self.known.insert(issued);
                    ResolvedHow::Waived
                }
            },
            _ => {
                self.tally.questions += 1;
                ResolvedHow::Waived
            }
        };
        journal.resolve(account_tag, op, how).await.unwrap();
    }

    async fn give_up(
        &mut self,
        journal: &Journal,
        account: AccountTag,
        grant: GrantId,
        cause: Cause,
    ) {
        journal.end(account, grant, cause, Confidence::Certain).await.unwrap();
        self.grants.remove(&grant.0);
    }

    /// Every pair that the server ever gave out is durable here, or its operation was in doubt.
    fn account_for_all(&self, log: &Log) {
        for issued in log.issued() {
            assert!(self.known.contains(issued), "the server issued {issued}, unknown to us");
        }
    }

    async fn pair_of(&self, journal: &Journal, grant: u64, newest: &Newest) -> IssuedPair {
        let user = User::new(&*newest.user).unwrap();
        let account = Account::new(self.provider.app().clone(), user);
        let pair = journal.current_of(account, GrantId(grant)).await.unwrap();
        pair.unwrap_or_else(|| panic!("grant {grant} has no pair"))
    }
}
