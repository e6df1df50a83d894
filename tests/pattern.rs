//! The pattern: what a service does around its own transactions, so that no pair is lost to a
//! roll-back or a crash. To be read from the top; the database is a real one.
//!
//! ```text
//! reuse      a retry finds what an earlier try left        no user has to approve again
//! callback   the pair is durable, and nobody's yet
//! adopt      before the transaction commits                a crash leaves a holder without a row
//! commit
//! release    if it was rolled back                         the pair stays for the retry
//!
//! reconcile  at every start: rows against holders
//! ```
//!
//! The order is all there is to it. Adopting after the commit would leave, after a crash between the
//! two, a row whose grant nobody holds: the next clean-up may revoke what an integration runs on.
//! Adopted before, the worst is a holder without a row, which `reconcile` finds and harms nobody.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may"
)]

use rusqlite::{Connection, ErrorCode, params};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokenwal::broker::{AppConfig, Authorize, Broker, BrokerError, Reconciliation, Row};
use tokenwal::profile::Profile;
use tokenwal::provider::Provider;
use tokenwal::sandbox::{Sandbox, SandboxConfig};
use tokenwal::{
    Account, AccountTag, App, FixedKeys, GrantId, GrantState, GrantView, Holder, Journal, Options,
    Secret,
};

const SCOPES: [&str; 2] = ["api", "refresh_token"];
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS integration (
        tenant   TEXT NOT NULL,
        name     TEXT NOT NULL,
        account  TEXT NOT NULL,       -- whose approval it runs on
        grant_id INTEGER NOT NULL,    -- the grant that it began with
        schedule TEXT NOT NULL CHECK (schedule <> 'never'),
        PRIMARY KEY (tenant, name)
    );";

/// A service with integrations in a database, and their tokens in a journal beside it.
struct Service {
    app: App,
    database: Connection,
    journal: Journal,
    broker: Broker,
}

/// Why an integration could not be configured.
#[derive(Debug)]
enum ConfigureError {
    Database(rusqlite::Error),
    Tokens(BrokerError),
}

impl From<rusqlite::Error> for ConfigureError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<BrokerError> for ConfigureError {
    fn from(error: BrokerError) -> Self {
        Self::Tokens(error)
    }
}

impl Service {
    /// Opens the database and the store, each in its own place.
    fn open(dir: &Path, sandbox: &Sandbox) -> Self {
        let database = Connection::open(dir.join("service.db")).unwrap();
        database.execute_batch(SCHEMA).unwrap();
        let options = Options::new(FixedKeys::new([7; 32], []))
            .segment_bytes(2 << 20)
            .batch_bytes_max(256 << 10)
            .outcome_bytes_max(16 << 10)
            .wait_for_lock(Duration::from_secs(10));
        let (journal, _) = options.open_or_create(dir.join("tokens")).unwrap();
        let app = App::new("salesforce", "sandbox-consumer-key").unwrap();
        let secret = Secret::new("sandbox-consumer-secret".to_owned());
        let provider = Provider::salesforce(app.clone(), secret, sandbox.url()).build().unwrap();
        let config = AppConfig::new(app.clone(), Arc::new(provider), Profile::salesforce())
            .redirect_uri("http://127.0.0.1:9/callback")
            .rotates(false);
        let broker = Broker::builder(journal.clone()).app(config).build();
        Self { app, database, journal, broker }
    }

    /// Configures an integration: the pattern.
    async fn configure(
        &mut self,
        sandbox: &Sandbox,
        user: &str,
        holder: &Holder,
        schedule: &str,
    ) -> Result<(), ConfigureError> {
        // 1. A retry finds the grant that an earlier try obtained, or another integration's of the
        //    same tenant; only without one the user has to approve.
        let account = Account::new(self.app.clone(), sandbox.user(user).unwrap());
        let (account, grant) = match self.broker.reuse(&account, holder, &SCOPES).await? {
            Some(pair) => (pair.account(), pair.grant()),
            None => self.approve(sandbox, user, holder).await?,
        };
        // 2. The holder depends on it from now on: before the row can be seen by anybody.
        self.broker.adopt(account, grant, holder, &SCOPES).await?;
        // 3. The service's own transaction.
        let committed = self.insert(holder, account, grant, schedule);
        // 4. Rolled back, the holder lets go. The pair stays, for the retry.
        if committed.is_err() {
            self.broker.release(account, grant, holder).await?;
        }
        Ok(committed?)
    }

    /// Sends the user off and takes them in; in a service these are two requests of a browser.
    async fn approve(
        &self,
        sandbox: &Sandbox,
        user: &str,
        holder: &Holder,
    ) -> Result<(AccountTag, GrantId), BrokerError> {
        let expected = sandbox.user(user).unwrap();
        let asked = Authorize::new(&self.app, holder, SCOPES).user(&expected);
        let sent = self.broker.authorize(&asked)?;
        let state = sent.url.split("&state=").nth(1).unwrap().split('&').next().unwrap();
        let code = sandbox.code_for(user).unwrap();
        let query = format!("code={}&state={state}", code.reveal());
        let connected = self.broker.callback(&query, sent.cookie.reveal()).await?;
        Ok((connected.account, connected.grant))
    }

    fn insert(
        &mut self,
        holder: &Holder,
        account: AccountTag,
        grant: GrantId,
        schedule: &str,
    ) -> Result<(), rusqlite::Error> {
        let transaction = self.database.transaction()?;
        let grant = i64::try_from(grant.0).unwrap();
        transaction.execute(
            "INSERT INTO integration VALUES (?1, ?2, ?3, ?4, ?5)",
            params![holder.tenant(), holder.name(), account.to_string(), grant, schedule],
        )?;
        transaction.commit()
    }

    fn rows(&self) -> Vec<Row> {
        let sql = "SELECT tenant, name, account, grant_id FROM integration";
        let mut query = self.database.prepare(sql).unwrap();
        let rows = query.query_map([], |row| {
            let (tenant, name): (String, String) = (row.get(0)?, row.get(1)?);
            let (account, grant): (String, i64) = (row.get(2)?, row.get(3)?);
            Ok(Row {
                holder: Holder::new(tenant, name).unwrap(),
                account: account.parse().unwrap(),
                grant: GrantId(u64::try_from(grant).unwrap()),
            })
        });
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// Compares rows with holders; to be done at every start, before anything else.
    async fn reconcile(&self) -> Reconciliation {
        self.broker.reconcile(self.rows()).await.unwrap()
    }

    /// Does an integration's work; says whether the provider took its token.
    async fn runs(&self, sandbox: &Sandbox, holder: &Holder, user: &str) -> bool {
        let account = Account::new(self.app.clone(), sandbox.user(user).unwrap());
        let pair = self.broker.access_token_for(holder, &account, &SCOPES, Duration::ZERO).await;
        pair.is_ok_and(|pair| sandbox.is_alive(pair.access_token().reveal()))
    }

    async fn grants(&self) -> Vec<GrantView> {
        let views = self.journal.accounts().map(Result::unwrap);
        views.flat_map(|view| view.grants).collect()
    }
}

fn holder(name: &str) -> Holder {
    Holder::new("tenant-1", name).unwrap()
}

async fn start() -> (tempfile::TempDir, Sandbox) {
    // Four pairs a user, and a fifth silently kills the oldest.
    let sandbox = Sandbox::start(SandboxConfig::new().cap(4)).await.unwrap();
    (tempfile::tempdir().unwrap(), sandbox)
}

#[tokio::test]
async fn the_transaction_rolls_back_the_pair_stays_and_the_retry_reuses_it() {
    let (dir, sandbox) = start().await;
    let mut service = Service::open(dir.path(), &sandbox);
    service.configure(&sandbox, "alice", &holder("crm"), "hourly").await.unwrap();
    // Another tenant's integration of the same user needs an approval of its own, and cannot be
    // configured: six times.
    let erp = Holder::new("tenant-2", "erp").unwrap();
    for _ in 0..6 {
        let failed = service.configure(&sandbox, "alice", &erp, "never").await;
        let Err(ConfigureError::Database(error)) = failed else { panic!("{failed:?}") };
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::ConstraintViolation));
    }
    assert_eq!(service.rows().len(), 1);
    // The user approved once for all those tries, nobody died of them, and the seventh uses it too.
    service.configure(&sandbox, "alice", &erp, "daily").await.unwrap();
    let counters = sandbox.state().counters;
    assert_eq!((counters.exchanges, counters.evictions, counters.revocations), (2, 0, 0));
    assert!(service.runs(&sandbox, &holder("crm"), "alice").await);
    assert!(service.runs(&sandbox, &erp, "alice").await);
    assert_eq!(service.reconcile().await, Reconciliation::default());
}

#[tokio::test]
async fn a_second_integration_of_a_tenant_shares_the_grant() {
    let (dir, sandbox) = start().await;
    let mut service = Service::open(dir.path(), &sandbox);
    for name in ["crm", "erp", "bi", "etl", "mail", "archive"] {
        service.configure(&sandbox, "alice", &holder(name), "hourly").await.unwrap();
    }
    assert_eq!(sandbox.state().counters.exchanges, 1);
    assert_eq!(service.grants().await[0].holders.len(), 6);
    assert_eq!(service.reconcile().await, Reconciliation::default());
}

#[tokio::test]
async fn at_the_cap_nothing_is_exchanged_and_the_victim_is_named() {
    let (dir, sandbox) = start().await;
    let mut service = Service::open(dir.path(), &sandbox);
    let crm = |tenant: usize| Holder::new(format!("tenant-{tenant}"), "crm").unwrap();
    for tenant in 1..=4 {
        service.configure(&sandbox, "alice", &crm(tenant), "hourly").await.unwrap();
    }
    let refused = service.configure(&sandbox, "alice", &crm(5), "hourly").await;
    let Err(ConfigureError::Tokens(error)) = refused else { panic!("{refused:?}") };
    let BrokerError::CapReached { live: 4, limit: 4, holders, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(holders[..], [crm(1)], "{}", error.advice());
    assert_eq!(sandbox.state().counters.exchanges, 4);
    for tenant in 1..=4 {
        assert!(service.runs(&sandbox, &crm(tenant), "alice").await);
    }
}

#[tokio::test]
async fn a_crash_between_adopting_and_committing_leaves_a_holder_without_a_row() {
    let (dir, sandbox) = start().await;
    let mut service = Service::open(dir.path(), &sandbox);
    let crm = holder("crm");
    let (account, grant) = service.approve(&sandbox, "alice", &crm).await.unwrap();
    service.broker.adopt(account, grant, &crm, &SCOPES).await.unwrap();
    {
        let transaction = service.database.transaction().unwrap();
        let insert = "INSERT INTO integration VALUES ('tenant-1', 'crm', ?1, ?2, 'hourly')";
        let grant = i64::try_from(grant.0).unwrap();
        transaction.execute(insert, params![account.to_string(), grant]).unwrap();
        // The process ends here.
    }
    drop(service);

    let mut service = Service::open(dir.path(), &sandbox);
    assert!(service.rows().is_empty());
    let found = service.reconcile().await;
    assert_eq!(found.without_row, [(account, grant, service.broker.holder_tag(&crm))]);
    assert!(found.not_held.is_empty() && found.orphans.is_empty());
    // Nobody's row speaks for it: the holder lets go. The pair is still there for the retry.
    service.broker.release(account, grant, &crm).await.unwrap();
    service.configure(&sandbox, "alice", &crm, "hourly").await.unwrap();
    assert_eq!(sandbox.state().counters.exchanges, 1);
    assert_eq!(service.reconcile().await, Reconciliation::default());
}

#[tokio::test]
async fn a_crash_after_the_commit_loses_nothing() {
    let (dir, sandbox) = start().await;
    let mut service = Service::open(dir.path(), &sandbox);
    service.configure(&sandbox, "alice", &holder("crm"), "hourly").await.unwrap();
    // The process ends here: nothing of ours was to be done after the commit.
    drop(service);

    let service = Service::open(dir.path(), &sandbox);
    assert_eq!(service.reconcile().await, Reconciliation::default());
    assert_eq!(service.grants().await[0].state, GrantState::Held);
    assert!(service.runs(&sandbox, &holder("crm"), "alice").await);
}

#[tokio::test]
async fn a_crash_before_adopting_leaves_an_orphan_for_the_retry() {
    let (dir, sandbox) = start().await;
    let service = Service::open(dir.path(), &sandbox);
    let crm = holder("crm");
    let (account, grant) = service.approve(&sandbox, "alice", &crm).await.unwrap();
    drop(service);

    let mut service = Service::open(dir.path(), &sandbox);
    let found = service.reconcile().await;
    let issued_at_ms = service.grants().await[0].issued_at_ms;
    assert_eq!(found.orphans, [(account, grant, issued_at_ms)]);
    service.configure(&sandbox, "alice", &crm, "hourly").await.unwrap();
    assert_eq!(sandbox.state().counters.exchanges, 1);
    assert_eq!(service.reconcile().await, Reconciliation::default());
}

#[tokio::test]
async fn reconcile_says_what_rows_and_store_do_not_agree_on() {
    let (dir, sandbox) = start().await;
    let mut service = Service::open(dir.path(), &sandbox);
    // Somebody deleted a row by hand: held, and unknown to the database.
    service.configure(&sandbox, "alice", &holder("deleted"), "hourly").await.unwrap();
    service.database.execute("DELETE FROM integration WHERE name = 'deleted'", []).unwrap();
    // A row was written by code that does not adopt: known to the database, and not held.
    let (bob, bobs) = service.approve(&sandbox, "bob", &holder("careless")).await.unwrap();
    service.insert(&holder("careless"), bob, bobs, "hourly").unwrap();
    // A grant was revoked under a row.
    service.configure(&sandbox, "carol", &holder("revoked"), "hourly").await.unwrap();
    let gone = service.rows().into_iter().find(|row| row.holder == holder("revoked")).unwrap();
    service.broker.revoke(gone.account, gone.grant).await.unwrap();
    // Approvals that came to nothing, one after the other.
    let (dave, first) = service.approve(&sandbox, "dave", &holder("abandoned")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let (erin, second) = service.approve(&sandbox, "erin", &holder("abandoned too")).await.unwrap();

    let found = service.reconcile().await;
    let tag = |name: &str| service.broker.holder_tag(&holder(name));
    let alice = Account::new(service.app.clone(), sandbox.user("alice").unwrap());
    let alice = service.journal.tag_of(&alice);
    let held = service.journal.account(alice).await.unwrap().unwrap().grants[0].grant;
    assert_eq!(found.without_row, [(alice, held, tag("deleted"))]);
    assert_eq!(found.not_held, [(bob, bobs, tag("careless"))]);
    assert_eq!(found.not_living, [(gone.account, gone.grant, tag("revoked"))]);
    let orphans: Vec<_> =
        found.orphans.iter().map(|(account, grant, _)| (*account, *grant)).collect();
    assert_eq!(orphans, [(dave, first), (erin, second)], "the oldest first");
    assert!(found.orphans[0].2 <= found.orphans[1].2);

    // What a service does about it: release, adopt, have the user approve again.
    service.broker.release(alice, held, &holder("deleted")).await.unwrap();
    service.broker.adopt(bob, bobs, &holder("careless"), &SCOPES).await.unwrap();
    service.database.execute("DELETE FROM integration WHERE name = 'revoked'", []).unwrap();
    service.configure(&sandbox, "carol", &holder("revoked"), "hourly").await.unwrap();
    let found = service.reconcile().await;
    assert!(found.without_row.is_empty() && found.not_held.is_empty());
    assert!(found.not_living.is_empty());
    assert_eq!(
        found.orphans.len(),
        3,
        "they wait for a retry, or are revoked when nothing keeps them"
    );
}

#[tokio::test]
async fn an_integration_that_leaves_takes_its_grant_along() {
    let (dir, sandbox) = start().await;
    let mut service = Service::open(dir.path(), &sandbox);
    for name in ["crm", "erp"] {
        service.configure(&sandbox, "alice", &holder(name), "hourly").await.unwrap();
    }
    // First the row, then the holder: a crash between leaves a holder without a row again.
    service.database.execute("DELETE FROM integration WHERE name = 'crm'", []).unwrap();
    let done = service.broker.disconnect(&holder("crm")).await.unwrap();
    assert!(done.revoked.is_empty(), "the other one runs on it");
    assert!(service.runs(&sandbox, &holder("erp"), "alice").await);
    service.database.execute("DELETE FROM integration WHERE name = 'erp'", []).unwrap();
    let done = service.broker.disconnect(&holder("erp")).await.unwrap();
    assert_eq!(done.revoked.len(), 1);
    assert_eq!(sandbox.state().users[0].live, 0);
    assert_eq!(service.reconcile().await, Reconciliation::default());
}
