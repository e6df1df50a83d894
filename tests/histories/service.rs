//! A service as it should be written: rows in a database of its own, and the pattern of the broker
//! around its transactions.

use super::provider::Provider;
use crate::sim::Rng;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokenwal::broker::{Authorize, Broker, BrokerError, Connected};
use tokenwal::{Account, AccountTag, App, GrantId, Holder, IssuedPair, Journal};

/// A row of the service's database: durable when it is put there.
#[derive(Debug, Clone)]
pub struct Row {
    #[expect(dead_code, reason = "printed with the row")]
    pub user: &'static str,
    pub account: AccountTag,
    pub grant: GrantId,
    pub approval: usize,
}

/// A pair that a caller was handed.
#[derive(Debug, Clone)]
pub struct Handed {
    pub account: AccountTag,
    pub grant: GrantId,
    pub generation: u32,
}

/// What outlives a process: the service's database, and what the world has seen.
#[derive(Debug, Default)]
pub struct Outside {
    pub rows: BTreeMap<String, Row>,
    pub handed: Vec<Handed>,
    /// Callbacks that were delivered, to be delivered again.
    pub callbacks: Vec<(String, String)>,
    /// Integrations with a transaction under way: a database lets one at a time.
    pub busy: std::collections::BTreeSet<String>,
    pub codes: u64,
    pub violations: Vec<String>,
    pub connected: u64,
    pub rolled_back: u64,
    pub reused: u64,
    pub tokens: u64,
    pub refused: u64,
    pub left: u64,
    pub over_cap: u64,
}

pub const USERS: [&str; 3] = ["alice", "bob", "carol"];
pub const SCOPES: [&str; 1] = ["api"];

/// One process of the service.
#[derive(Clone)]
pub struct Service {
    pub app: App,
    pub broker: Broker,
    pub journal: Journal,
    pub provider: Arc<Provider>,
    pub outside: Arc<Mutex<Outside>>,
    pub loud: bool,
}

pub fn holder(tenant: usize, name: usize) -> Holder {
    Holder::new(format!("tenant-{tenant}"), format!("integration-{name}")).unwrap()
}

impl Service {
    fn say(&self, words: impl FnOnce() -> String) {
        if self.loud {
            println!("{} {}", self.provider.clock.true_ms() % 1_000_000_000, words());
        }
    }

    fn account(&self, user: &str) -> Account {
        Account::new(self.app.clone(), self.provider.user(user))
    }

    /// Connects an integration, and commits or rolls back.
    pub async fn connect(&self, mut rng: Rng) {
        let user = *rng.pick(&USERS);
        let holder = holder(rng.index(2), rng.index(3));
        let key = holder.to_string();
        let is_free = {
            let mut outside = self.outside.lock().unwrap();
            !outside.rows.contains_key(&key) && outside.busy.insert(key.clone())
        };
        if is_free {
            self.connect_one(rng, user, &holder, &key).await;
            self.outside.lock().unwrap().busy.remove(&key);
        }
    }

    async fn connect_one(&self, mut rng: Rng, user: &'static str, holder: &Holder, key: &str) {
        let commits = rng.chance(60);
        let known = rng.chance(70);
        let scopes = &SCOPES;
        let account = self.account(user);
        // The retry finds what an earlier try left.
        let found = self.broker.reuse(&account, holder, scopes).await;
        let (account, grant) = match found {
            Ok(Some(pair)) => {
                self.outside.lock().unwrap().reused += 1;
                (pair.account(), pair.grant())
            }
            _ => match self.approve(&mut rng, user, known, holder).await {
                Some(connected) => (connected.account, connected.grant),
                None => return,
            },
        };
        // Adopted before the transaction commits.
        if let Err(error) = self.broker.adopt(account, grant, holder, scopes).await {
            self.say(|| format!("{holder}: not adopted: {error}"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(rng.below(50))).await;
        if !commits {
            self.outside.lock().unwrap().rolled_back += 1;
            let _ = self.broker.release(account, grant, holder).await;
            return;
        }
        let Some(approval) = self.approval_of(account, grant).await else { return };
        if self.journal.poison().is_some() {
            return;
        }
        let row = Row { user, account, grant, approval };
        if let Some(other) = self.insert(key.to_owned(), row).filter(|other| *other != grant) {
            // Another transaction of the same integration was faster.
            self.say(|| format!("{holder}: has grant {other} already"));
            let _ = self.broker.release(account, grant, holder).await;
        }
    }

    /// Commits a row, unless there is one; gives the grant of that.
    fn insert(&self, key: String, row: Row) -> Option<GrantId> {
        let mut outside = self.outside.lock().unwrap();
        if let Some(other) = outside.rows.get(&key) {
            return Some(other.grant);
        }
        self.say(|| format!("{key}: commits {row:?}"));
        outside.rows.insert(key, row);
        self.hold(&outside);
        None
    }

    /// Tells the provider's book of who is held.
    fn hold(&self, outside: &Outside) {
        self.provider.seen().held = outside.rows.values().map(|row| row.approval).collect();
    }

    async fn approval_of(&self, account: AccountTag, grant: GrantId) -> Option<usize> {
        let pair = self.journal.current_of(account, grant).await.ok()??;
        let token = pair.refresh_token()?.reveal().to_owned();
        let model = self.provider.model.lock().unwrap();
        model.approval_of(&token)
    }

    /// Sends a user off, and takes them in.
    async fn approve(
        &self,
        rng: &mut Rng,
        user: &'static str,
        known: bool,
        holder: &Holder,
    ) -> Option<Connected> {
        let mut asked = Authorize::new(&self.app, holder, SCOPES);
        if known {
            asked = asked.user(&self.provider.user(user));
        }
        let sent = self.broker.authorize(&asked).ok()?;
        tokio::time::sleep(Duration::from_millis(rng.below(5_000))).await;
        let state = sent.url.split("state=").nth(1)?.to_owned();
        let signed_in = if rng.chance(8) { *rng.pick(&USERS) } else { user };
        let code = {
            let mut outside = self.outside.lock().unwrap();
            outside.codes += 1;
            self.provider.approve(signed_in, outside.codes)
        };
        if !known || signed_in != user {
            self.provider.seen().blind.insert(code.clone());
        }
        let query = format!("code={code}&state={state}");
        let cookie = sent.cookie.reveal().to_owned();
        self.outside.lock().unwrap().callbacks.push((query.clone(), cookie.clone()));
        let deliveries = 1 + u64::from(rng.chance(20));
        let mut came = None;
        for _ in 0..deliveries {
            let patience = Duration::from_millis(1 + rng.below(120_000));
            let callback = self.broker.callback(&query, &cookie);
            match tokio::time::timeout(patience, callback).await {
                Ok(Ok(connected)) => came = Some(connected),
                Ok(Err(error)) => {
                    self.say(|| format!("{holder}: not connected: {error}"));
                    self.outside.lock().unwrap().refused += 1;
                }
                Err(_) => self.outside.lock().unwrap().left += 1,
            }
        }
        if let Some(connected) = &came {
            let mut outside = self.outside.lock().unwrap();
            outside.connected += 1;
            outside.over_cap += u64::from(connected.over_cap);
            self.say(|| format!("{holder}: connected {connected:?}"));
        }
        came
    }

    /// Delivers an old callback once more.
    pub async fn redeliver(&self, mut rng: Rng) {
        let again = {
            let outside = self.outside.lock().unwrap();
            match outside.callbacks.len() {
                0 => return,
                len => outside.callbacks[rng.index(len)].clone(),
            }
        };
        let _ = self.broker.callback(&again.0, &again.1).await;
    }

    /// Does an integration's work.
    pub async fn work(&self, mut rng: Rng) {
        let picked = {
            let outside = self.outside.lock().unwrap();
            let rows: Vec<_> = outside.rows.iter().collect();
            if rows.is_empty() {
                return;
            }
            let (key, row) = rows[rng.index(rows.len())];
            (key.clone(), row.clone())
        };
        let (key, row) = picked;
        let (tenant, name) = key.split_once('/').unwrap();
        let holder = Holder::new(tenant, name).unwrap();
        let patience = Duration::from_millis(1 + rng.below(100_000));
        let account = row.account;
        let min = Duration::from_secs(rng.below(120));
        let asked = self.broker.access_token_for(&holder, account, &SCOPES, min);
        let pair = match tokio::time::timeout(patience, asked).await {
            Ok(Ok(pair)) => pair,
            Ok(Err(error)) => {
                self.outside.lock().unwrap().refused += 1;
                self.say(|| format!("{holder}: no token: {error}"));
                return;
            }
            Err(_) => {
                self.outside.lock().unwrap().left += 1;
                return;
            }
        };
        self.take(&pair);
        self.present(&pair, rng.chance(70)).await;
    }

    /// Notes a pair that was handed out: it is durable by then.
    fn take(&self, pair: &IssuedPair) {
        let mut outside = self.outside.lock().unwrap();
        outside.tokens += 1;
        if pair.lsn() > self.journal.head() {
            let words =
                format!("a pair at LSN {} was handed out before it was durable", pair.lsn());
            outside.violations.push(words);
        }
        outside.handed.push(Handed {
            account: pair.account(),
            grant: pair.grant(),
            generation: pair.generation().0,
        });
    }

    /// Uses an access token at a resource.
    async fn present(&self, pair: &IssuedPair, tells: bool) {
        let now_ms = self.provider.clock.true_ms();
        let token = pair.access_token().reveal();
        let works = self.provider.model.lock().unwrap().use_access(token, now_ms).is_some();
        let told = match works {
            true if tells => self.broker.worked(pair).await,
            true => Ok(()),
            false => self.broker.rejected(pair).await.map(|pair| self.take(&pair)),
        };
        if let Err(error) = told {
            self.say(|| format!("after use: {error}"));
        }
    }

    /// Takes an integration away: first its row, then what it held.
    pub async fn disconnect(&self, mut rng: Rng) {
        let (key, row) = {
            let mut outside = self.outside.lock().unwrap();
            let keys: Vec<_> = outside.rows.keys().cloned().collect();
            if keys.is_empty() {
                return;
            }
            let key = keys[rng.index(keys.len())].clone();
            if outside.busy.contains(&key) {
                return;
            }
            let row = outside.rows.remove(&key).unwrap();
            self.hold(&outside);
            (key, row)
        };
        self.say(|| format!("{key}: leaves grant {}", row.grant));
        let (tenant, name) = key.split_once('/').unwrap();
        let _ = self.broker.disconnect(&Holder::new(tenant, name).unwrap()).await;
    }

    /// Compares the rows with the ledger and mends what differs, as a service does at its start.
    pub async fn reconcile(&self) -> Result<(), BrokerError> {
        let rows: Vec<_> = {
            let outside = self.outside.lock().unwrap();
            let rows = outside.rows.iter().map(|(key, row)| {
                let (tenant, name) = key.split_once('/').unwrap();
                let holder = Holder::new(tenant, name).unwrap();
                tokenwal::broker::Row { holder, account: row.account, grant: row.grant }
            });
            rows.collect()
        };
        let by_tag: BTreeMap<_, _> = (0..2)
            .flat_map(|tenant| (0..3).map(move |name| holder(tenant, name)))
            .map(|holder| (self.broker.holder_tag(&holder), holder))
            .collect();
        let found = self.broker.reconcile(rows).await?;
        for (account, grant, holder) in found.not_held {
            let view = self.journal.account(account).await.unwrap();
            let moved = view
                .iter()
                .flat_map(|view| &view.grants)
                .any(|grant| grant.holders.iter().any(|held| held.holder_tag == holder));
            if moved {
                // It was superseded by one that has ended since; this one lives still.
                self.broker.adopt(account, grant, &by_tag[&holder], &SCOPES).await?;
                continue;
            }
            let words = format!("grant {grant} has a row of {} and no holder", by_tag[&holder]);
            self.outside.lock().unwrap().violations.push(words);
        }
        for (account, grant, holder) in found.without_row {
            self.broker.release(account, grant, &by_tag[&holder]).await?;
        }
        Ok(())
    }
}
