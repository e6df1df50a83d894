//! The service that is killed: many tasks that exchange, refresh, introspect and revoke, all
//! through the journal. It tells what it was given only after it was given it.

use crate::server::Endpoints;
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokenwal::provider::{Pkce, Provider};
use tokenwal::{
    Account, Begin, Error, FixedKeys, GrantState, Holder, IssuedPair, Journal, Options, Outcome,
    Secret, Settled, SystemEntropy, Ticket, User,
};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

/// Set in the service's environment: what it is to do, as JSON.
const PLAN: &str = "TOKENWAL_OIDC_PLAN";
/// An acknowledgement's line begins so; the others are the test harness's.
const ACK: &str = "ack ";
const TASKS: u64 = 12;
const USERS: u64 = 8;
/// Grants a user has at most, more or less.
const GRANTS_MAX: usize = 4;

#[derive(Serialize, Deserialize)]
struct Plan {
    endpoints: Endpoints,
    store: PathBuf,
    seed: u64,
}

/// What the service says over the pipe. Tokens are hashes.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ack {
    /// A pair was given to us.
    Issued { user: String, grant: u64, generation: u32, token: String },
    /// Somebody depends on the grant from now on.
    Adopted { grant: u64 },
    /// The grant is over.
    Revoked { grant: u64 },
}

/// The options of the store: small segments, so that kills meet roll-overs and compactions too.
pub(crate) fn options() -> Options {
    Options::new(FixedKeys::new([7; 32], []))
        .segment_bytes(2 << 20)
        .batch_bytes_max(256 << 10)
        .outcome_bytes_max(16 << 10)
        .wait_for_lock(Duration::from_secs(20))
}

/// Returns the hash of a pair's refresh token, as the server's log has it.
pub(crate) fn hash_of(pair: &IssuedPair) -> String {
    let token = pair.refresh_token().expect("the server always gives one").reveal();
    digest(&SHA256, token.as_bytes()).as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A stream of random choices.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// The service as its parent sees it.
pub(crate) struct Child {
    process: tokio::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
    acks: Vec<Ack>,
}

impl Child {
    /// Starts this program again, as the service.
    pub(crate) fn start(endpoints: &Endpoints, store: &Path, seed: u64) -> Self {
        let plan = Plan { endpoints: endpoints.clone(), store: store.to_owned(), seed };
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--nocapture", "--test-threads=1"])
            .env(PLAN, serde_json::to_string(&plan).unwrap())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines, acks: Vec::new() }
    }

    /// Waits until the service has told of so many things.
    pub(crate) async fn hear_of(&mut self, count: usize) {
        while self.acks.len() < count {
            let line = self.lines.next_line().await.unwrap();
            self.hear(&line.expect("the service works until it is killed"));
        }
    }

    /// Kills it, and returns all that it said.
    pub(crate) async fn kill(mut self) -> Vec<Ack> {
        self.process.start_kill().unwrap();
        let status = self.process.wait().await.unwrap();
        assert_eq!(status.code(), None, "the service ended by itself");
        while let Some(line) = self.lines.next_line().await.unwrap() {
            self.hear(&line);
        }
        self.acks
    }

    fn hear(&mut self, line: &str) {
        // A line that the kill cut short was never said. None is: each is one short write.
        if let Some(ack) = line.strip_prefix(ACK).and_then(|ack| serde_json::from_str(ack).ok()) {
            self.acks.push(ack);
        }
    }
}

/// Says whether this process is to be the service.
pub(crate) fn is_asked_for() -> bool {
    std::env::var_os(PLAN).is_some()
}

/// Serves until it is killed.
pub(crate) fn run() {
    let plan: Plan = serde_json::from_str(&std::env::var(PLAN).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (journal, _) = options()
            .open(&plan.store)
            .or_else(|error| match error {
                Error::Missing { .. } => options().create(&plan.store),
                error => Err(error),
            })
            .unwrap();
        let service = Arc::new(Service {
            journal,
            provider: plan.endpoints.provider(),
            endpoints: plan.endpoints,
            http: reqwest::Client::new(),
        });
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            let (service, mut rng) = (service.clone(), Rng::new(plan.seed ^ (task << 32)));
            tasks.spawn(async move {
                loop {
                    service.turn(&mut rng).await;
                }
            });
        }
        // A task that ends has failed, and the service with it.
        tasks.join_next().await.unwrap().unwrap();
    });
}

struct Service {
    journal: Journal,
    provider: Provider,
    endpoints: Endpoints,
    http: reqwest::Client,
}

impl Service {
    async fn turn(&self, rng: &mut Rng) {
        let user = format!("user-{}", rng.below(USERS));
        let account = Account::new(self.provider.app().clone(), User::new(&*user).unwrap());
        let view = self.journal.account(&account).await.unwrap();
        let grants: Vec<_> = view.iter().flat_map(|view| &view.grants).collect();
        let live: Vec<_> = grants.iter().filter(|grant| grant.state != GrantState::Ended).collect();
        let dice = rng.below(100);
        if live.is_empty() || (dice < 12 && live.len() < GRANTS_MAX) {
            return self.exchange(&user, &account).await;
        }
        let grant = live[usize::try_from(rng.below(live.len() as u64)).unwrap()].grant;
        let begin = match dice {
            12..16 => Begin::revoke(&account, grant),
            16..26 => Begin::introspect(&account, grant),
            26..28 => {
                self.journal.compact().await.unwrap();
                return;
            }
            _ => Begin::refresh(&account, grant),
        };
        let ticket = match self.journal.begin(begin).await {
            Ok(ticket) => ticket,
            // Another task was faster.
            Err(Error::Busy { .. } | Error::GrantEnded { .. }) => return,
            Err(error) => panic!("{error:?}"),
        };
        match dice {
            12..16 => self.revoke(ticket).await,
            16..26 => self.introspect(ticket).await,
            _ => self.refresh(&user, ticket).await,
        }
    }

    async fn exchange(&self, user: &str, account: &Account) {
        let pkce = Pkce::generate(&SystemEntropy).unwrap();
        let code = self.approve(user, pkce.challenge()).await;
        let holder = Holder::new("tenant", user).unwrap();
        let begin = Begin::exchange(&account.app).user(&account.user).holder(&holder);
        let ticket = self.journal.begin(begin).await.unwrap();
        let outcome = self.provider.exchange(code, &self.endpoints.redirect_uri, &pkce).await;
        let pair = self.settle(ticket, outcome).await;
        tell_of_pair(user, &pair);
        match self.journal.adopt(account, pair.grant(), &holder).await {
            Ok(_) => tell(&Ack::Adopted { grant: pair.grant().0 }),
            // Another task has revoked it already, or is about to.
            Err(Error::GrantEnded { .. } | Error::Busy { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn refresh(&self, user: &str, ticket: Ticket) {
        let pair = ticket.current().unwrap();
        let outcome = self.provider.refresh(pair.refresh_token().unwrap()).await;
        tell_of_pair(user, &self.settle(ticket, outcome).await);
    }

    async fn revoke(&self, ticket: Ticket) {
        let grant = ticket.grant().unwrap();
        let outcome =
            self.provider.revoke(ticket.current().unwrap().refresh_token().unwrap()).await;
        let settled = self.journal.settle(ticket, outcome).await.unwrap();
        assert!(matches!(settled, Settled::Revoked), "{settled:?}");
        tell(&Ack::Revoked { grant: grant.0 });
    }

    /// Asks about the access token: the refresh token may be spent by another task meanwhile.
    async fn introspect(&self, ticket: Ticket) {
        let (_, outcome) = self.provider.introspect(ticket.current().unwrap().access_token()).await;
        let settled = self.journal.settle(ticket, outcome).await.unwrap();
        assert!(matches!(settled, Settled::Answered), "{settled:?}");
    }

    async fn settle(&self, ticket: Ticket, outcome: Outcome) -> IssuedPair {
        match self.journal.settle(ticket, outcome).await.unwrap() {
            Settled::Issued(pair) => *pair,
            other => panic!("the server gives pairs: {other:?}"),
        }
    }

    /// Gets a code, as a user's browser would bring it.
    async fn approve(&self, user: &str, challenge: &str) -> Secret {
        #[derive(Deserialize)]
        struct Approval {
            code: String,
        }
        let body = serde_json::json!({ "user": user, "code_challenge": challenge });
        let request = self.http.post(format!("{}/test/code", self.endpoints.url)).json(&body);
        let approval: Approval = request.send().await.unwrap().json().await.unwrap();
        Secret::new(approval.code)
    }
}

fn tell_of_pair(user: &str, pair: &IssuedPair) {
    tell(&Ack::Issued {
        user: user.to_owned(),
        grant: pair.grant().0,
        generation: pair.generation().0,
        token: hash_of(pair),
    });
}

fn tell(ack: &Ack) {
    println!("{ACK}{}", serde_json::to_string(ack).unwrap());
}
