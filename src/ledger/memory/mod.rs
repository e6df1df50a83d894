//! A ledger in memory, for the tests of whoever builds on a broker.
//!
//! It shares no code with the journal but the words of the trait, and how ends of tokens add up:
//! `store` is what there is, `begin`,
//! `settle` and `change` are what may be done to it, each in one step under one lock; `view` is what
//! comes out. So the journal and it check each other. Nothing survives the process.

mod begin;
mod change;
mod import;
mod pair;
mod settle;
mod store;
mod view;

use super::{Change, Ledger, Receipt, Walk};
use crate::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::error::Error;
use crate::ids::{AccountTag, Fingerprint, GrantId, Holder, HolderTag, Lsn, OpId};
use crate::journal::{
    AccountRef, AccountView, Begin, History, Import, Imported, IssuedPair, Redeemed, SettleError,
    Ticket,
};
use crate::outcome::Outcome;
use crate::seal::{DerivedKey, TagKey, Tagger};
use crate::secret::Secret;
use crate::sync::lock;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;
use store::Store;

/// How long a grant waits for a holder, unless [`MemoryLedger::with_adopt_within`] says otherwise.
const ADOPT_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// A ledger that keeps everything in memory, for tests: it obeys the rules of a [`Ledger`], loses
/// all of it with the process, and fails when it is told to.
///
/// Handles are clones of one store. Each call suspends once before it returns, as one that waits for
/// a disk does, so that a test can drop its future there.
///
/// ```
/// use tokenwal::ledger::{Ledger, MemoryLedger};
/// use tokenwal::{Account, App, Begin, Outcome, Settled, TokenResponse, User};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let ledger = MemoryLedger::new();
/// let app = App::new("salesforce", "3MVG9")?;
/// let answer = br#"{"access_token":"00D!AQ","refresh_token":"5Aep861"}"#.to_vec();
/// let answer = TokenResponse::parse(answer, ledger.now_ms())?.with_user(User::new("005A")?);
///
/// let ticket = ledger.begin(Begin::exchange(&app)).await?;
/// ledger.fail_next_settle();
/// let failed = ledger.settle(ticket, Outcome::Issued(answer)).await.unwrap_err();
/// let (ticket, outcome) = failed.ticket.zip(failed.outcome).ok_or("given back")?;
/// let settled = ledger.settle(*ticket, *outcome).await?.into_settled();
/// let Settled::Issued(pair) = settled else { return Err("refused".into()) };
///
/// // Another process opens the same store.
/// let ledger = ledger.restart();
/// let account = ledger.tag_of(&Account::new(app, User::new("005A")?).into());
/// let kept = ledger.pair(account, pair.grant()).await?.ok_or("no pair")?;
/// assert_eq!(kept.access_token().reveal(), "00D!AQ");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct MemoryLedger {
    store: Arc<Mutex<Store>>,
    tagger: Arc<Tagger>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    adopt_within: Duration,
    /// Which opening of the store this handle is of.
    opening: u64,
}

impl MemoryLedger {
    /// Makes an empty store, by the system's clock and random generator.
    pub fn new() -> Self {
        Self {
            store: Arc::default(),
            tagger: Arc::new(Tagger::new(&tag_key(&SystemEntropy))),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            adopt_within: ADOPT_WITHIN,
            opening: 0,
        }
    }

    /// Tells the time by another clock.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Draws from another source, the key of its tags first: to be called before anything is stored.
    pub fn with_entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.tagger = Arc::new(Tagger::new(&tag_key(&*entropy)));
        self.entropy = entropy;
        self
    }

    /// Sets how long a grant waits for a holder; 24 hours by default.
    pub fn with_adopt_within(mut self, time: Duration) -> Self {
        self.adopt_within = time;
        self
    }

    /// Opens the store as the next process would: operations that are open are left behind by the
    /// one before, and its handles write no more ([`Error::Closed`]).
    pub fn restart(&self) -> Self {
        let opening = lock(&self.store).open_again();
        Self { opening, ..self.clone() }
    }

    /// Opens the store as another host would that has taken over a copy of it: as
    /// [`restart`](Self::restart), and every grant is [stale](crate::GrantView::stale) until it has
    /// a newer pair, or one that has worked.
    pub fn claim(&self) -> Self {
        let opening = lock(&self.store).claim();
        Self { opening, ..self.clone() }
    }

    /// Has the next settle fail; its ticket and outcome are given back.
    pub fn fail_next_settle(&self) {
        lock(&self.store).faults.settles += 1;
    }

    /// Has every write fail, or no longer.
    pub fn fail_writes(&self, fail: bool) {
        lock(&self.store).faults.writes = fail;
    }

    /// Locks the store for a write.
    fn write(&self) -> Result<MutexGuard<'_, Store>, Error> {
        let mut store = lock(&self.store);
        if store.openings != self.opening {
            return Err(Error::Closed);
        }
        if store.faults.writes {
            return Err(full());
        }
        store.newest_ms = store.newest_ms.max(self.clock.now_ms());
        Ok(store)
    }

    fn draw_tag(&self) -> Result<AccountTag, Error> {
        let mut tag = [0; 16];
        self.entropy
            .fill(&mut tag)
            .map_err(Error::io("drawing a tag", "the system's random generator"))?;
        Ok(AccountTag::from_bytes(tag))
    }

    fn adopt_by_ms(&self, within: Duration) -> u64 {
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        self.clock.now_ms().saturating_add(within_ms)
    }
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLedger").field("head", &self.head()).finish_non_exhaustive()
    }
}

impl Ledger for MemoryLedger {
    type Walk = MemoryWalk;

    async fn begin(&self, begin: Begin) -> Result<Ticket, Error> {
        let begun = self.begin_now(begin);
        suspend().await;
        begun
    }

    async fn resume(&self, account: AccountTag, op: OpId) -> Result<Ticket, Error> {
        lock(&self.store).resume(account, op)
    }

    fn settle(
        &self,
        ticket: Ticket,
        outcome: Outcome,
    ) -> impl Future<Output = Result<Receipt, SettleError>> + Send {
        let settled = self.settle_now(ticket, outcome);
        async move {
            suspend().await;
            settled
        }
    }

    async fn change(&self, account: AccountTag, change: Change) -> Result<Lsn, Error> {
        let changed = self.change_now(account, change);
        suspend().await;
        changed
    }

    async fn import(&self, import: Import) -> Result<Imported, Error> {
        let imported = self.import_now(&import);
        suspend().await;
        imported
    }

    async fn pair(&self, account: AccountTag, grant: GrantId) -> Result<Option<IssuedPair>, Error> {
        Ok(lock(&self.store).pair(account, grant))
    }

    async fn beside(&self, account: AccountTag, grant: GrantId) -> Result<Vec<IssuedPair>, Error> {
        Ok(lock(&self.store).beside(account, grant))
    }

    async fn account(&self, account: AccountTag) -> Result<Option<AccountView>, Error> {
        Ok(lock(&self.store).view(account, &self.tagger))
    }

    fn walk(&self) -> MemoryWalk {
        MemoryWalk(lock(&self.store).views(&self.tagger))
    }

    async fn history(&self, account: AccountTag) -> Result<History, Error> {
        Ok(lock(&self.store).history(account))
    }

    async fn pending(&self) -> Result<Vec<AccountTag>, Error> {
        Ok(lock(&self.store).pending())
    }

    async fn redeemed(&self, tag: AccountTag) -> Result<Option<Redeemed>, Error> {
        Ok(lock(&self.store).callbacks.redeemed(tag))
    }

    async fn prune(&self) -> Result<(), Error> {
        let now_ms = self.clock.now_ms();
        self.write()?.prune(now_ms);
        Ok(())
    }

    fn head(&self) -> Lsn {
        lock(&self.store).head
    }

    fn tag_of(&self, account: &AccountRef) -> AccountTag {
        account.tag_by(&self.tagger)
    }

    fn holder_tag(&self, holder: &Holder) -> HolderTag {
        self.tagger.holder(holder)
    }

    fn fingerprint(&self, token: &Secret) -> Fingerprint {
        self.tagger.fingerprint(token.reveal())
    }

    fn derive(&self, purpose: &str) -> DerivedKey {
        self.tagger.derive(purpose)
    }

    fn newest_ms(&self) -> u64 {
        lock(&self.store).newest_ms
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }
}

/// A walk over the accounts of a [`MemoryLedger`], as they were when it began.
#[derive(Debug)]
pub struct MemoryWalk(VecDeque<AccountView>);

impl Walk for MemoryWalk {
    async fn next(&mut self) -> Option<Result<AccountView, Error>> {
        self.0.pop_front().map(Ok)
    }
}

/// Draws the key of the tags. Without randomness it is no secret, and the first draw of an account's
/// tag says so.
fn tag_key(entropy: &dyn Entropy) -> TagKey {
    TagKey::generate(entropy).unwrap_or_else(|_| TagKey::new([0; 32]))
}

/// What a write hears that is to fail.
fn full() -> Error {
    Error::io("storing a record", "memory")(io::ErrorKind::StorageFull.into())
}

/// Gives way once.
async fn suspend() {
    let mut suspended = false;
    poll_fn(|context| {
        if std::mem::replace(&mut suspended, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
