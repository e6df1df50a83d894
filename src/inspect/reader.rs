//! Folds a store as a service would at startup, without writing to it.

use super::picture::{self, Picture, Teller, Watched, file_bytes};
use super::{Progress, directory};
use crate::disk::Disk;
use crate::engine::keychain::Keychain;
use crate::engine::past::gather;
use crate::engine::replay::{Replay, Walk};
use crate::engine::state::AccountState;
use crate::engine::table::Snapshot;
use crate::error::Error;
use crate::ids::{Account, AccountTag, GrantId, HostTag, Lsn, StoreId};
use crate::journal::open::{identify, pid_of};
use crate::journal::view::Sight;
use crate::journal::{AccountView, History, IssuedPair, OperationView};
use crate::keys::KeySource;
use crate::log::Verdict;
use crate::log::listing::Listing;
use crate::log::recover::{admit, proven_through};
use crate::log::survey::Survey;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// A store as it was at one LSN, read and never written.
///
/// Without keys, what it shows are tags; with them, names, and pairs on request.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("store");
/// # let (journal, _) = tokenwal::Options::new(tokenwal::FixedKeys::new([7; 32], [])).create(&path)?;
/// use tokenwal::inspect::Reader;
///
/// let reader = Reader::open(&path, None)?; // beside the process that writes
/// for account in reader.accounts() {
///     println!("{}", account?.account_tag);
/// }
/// assert!(reader.operations()?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    live: bool,
    listing: Listing,
    snapshot: Option<Arc<Snapshot>>,
    survey: Survey,
    replay: Replay,
    store: StoreId,
    keychain: Option<Keychain>,
    lsn: Lsn,
}

/// What a store holds, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// The store.
    pub store: StoreId,
    /// How the journal ends: clean or torn, since of nothing else there is a reader.
    pub verdict: Verdict,
    /// The last LSN that is shown.
    pub last_lsn: Lsn,
    /// A marker proves the last batch; without one, damage exactly there looks like a torn write.
    pub last_batch_proven: bool,
    /// A process has the store open for writing.
    pub live: bool,
    /// That process, as it said itself.
    pub owner_pid: Option<u32>,
    /// Bytes that it has not called durable yet; they are not shown.
    pub live_tail_bytes: u64,
    /// Bytes of an incomplete write behind the end.
    pub torn_bytes: u64,
    /// Segments that the newest snapshot does not cover.
    pub segments: u64,
    /// Their length in bytes.
    pub segment_bytes: u64,
    /// The largest batch that the last of them takes, in bytes.
    pub batch_bytes_max: u32,
    /// Segments that were written ahead and hold nothing.
    pub prepared_segments: u64,
    /// Records in the segments.
    pub tail_records: u64,
    /// Accounts that these records concern.
    pub accounts_touched: u64,
    /// The newest snapshot's LSN, or 0; nothing before it can be asked for.
    pub snapshot_lsn: Lsn,
    /// Accounts in it.
    pub snapshot_accounts: u64,
    /// Records in it.
    pub snapshot_records: u64,
    /// Its length in bytes.
    pub snapshot_bytes: u64,
    /// Operations without a final outcome.
    pub in_doubt: u64,
    /// Accounts with such an operation whose part of the snapshot is damaged.
    pub unreadable: Vec<AccountTag>,
    /// How often the store was opened for writing.
    pub incarnation: u64,
    /// This machine wrote last; known with a key, if the journal says who wrote.
    pub written_here: Option<bool>,
    /// What the file system has left, in bytes.
    pub free_bytes: u64,
    /// Names that are none of the store's.
    pub foreign_files: Vec<String>,
}

impl Reader {
    /// Reads the store in a directory.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Refused`], [`Error::WrongKey`], [`Error::Corrupt`] or
    /// [`Error::Suspect`] where a service would not open it either, [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>, keys: Option<&dyn KeySource>) -> Result<Self, Error> {
        Self::open_on(directory(dir)?, keys, None, &mut |_| ())
    }

    /// Reads a store, up to an LSN if one is given, and tells how far it has got.
    ///
    /// # Errors
    /// As [`Reader::open`], and [`Error::NotKept`] for an LSN before the newest snapshot or behind
    /// the journal's end.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        keys: Option<&dyn KeySource>,
        at: Option<Lsn>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, Error> {
        let teller = Teller::new(progress);
        let mut opened = None;
        let picture = picture::take(&*disk, |listing, snapshot| {
            let (store, file, tag_key) = identify(&*disk, listing, snapshot.map(|s| &**s))?;
            let keychain = match keys {
                Some(keys) => Some(Keychain::open(store, keys.load()?, &file, &tag_key)?),
                None => None,
            };
            opened = Some((store, keychain));
            let replay = Replay::new(snapshot.cloned(), at);
            Ok(Watched::new(replay, file_bytes(&*disk, listing), &teller))
        })?;
        let Picture { listing, live, snapshot, survey, sink } = picture;
        let (survey, replay) = (survey?, sink.inner);
        admit(&survey)?;
        let from = snapshot.as_ref().map_or(Lsn(1), |snapshot| snapshot.lsn());
        let lsn = at.unwrap_or(survey.head);
        // A store of which nothing is proven yet shows nothing, which is no wrong question.
        if at.is_some_and(|asked| asked < from || asked > survey.head) {
            return Err(Error::NotKept { asked: lsn, from, to: survey.head });
        }
        let (store, keychain) = opened.expect("a picture has begun with one");
        if let Some(keychain) = &keychain {
            keychain.learn(&replay.keys);
        }
        Ok(Self { disk, live, listing, snapshot, survey, replay, store, keychain, lsn })
    }

    /// Returns the LSN up to which the store is shown.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Walks all accounts in the order of their tags. One that cannot be read is an error, and the
    /// next ones follow.
    pub fn accounts(&self) -> AccountViews<'_> {
        let walk = Walk::new(self.replay.files.clone(), self.replay.accounts.in_memory());
        AccountViews { reader: self, walk }
    }

    /// Returns what is known of an account, or nothing.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the account's part of the store is damaged, [`Error::Io`].
    pub fn account(&self, account: AccountTag) -> Result<Option<AccountView>, Error> {
        let state = self.replay.fold(account)?;
        match state.is_empty() {
            true => Ok(None),
            false => self.view(account, &state).map(Some),
        }
    }

    /// Returns what is kept of how an account came to be as it is; see
    /// [`Journal::history`](crate::Journal::history). Without a key it shows tags alone.
    ///
    /// # Errors
    /// As [`Reader::account`].
    pub fn history(&self, account: AccountTag) -> Result<History, Error> {
        let past = gather(&self.replay.files, account, self.lsn)?;
        History::of(past, self.keychain.as_ref())
    }

    /// Returns the tag that stands for an account; none without a key.
    pub fn tag_of(&self, account: &Account) -> Option<AccountTag> {
        self.keychain.as_ref().map(|keychain| keychain.tagger().account(account))
    }

    /// Returns all operations without a final outcome, in their order, but those of accounts that
    /// cannot be read: see [`Summary::unreadable`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn operations(&self) -> Result<Vec<OperationView>, Error> {
        let (folded, _) = self.replay.fold_with_operations()?;
        let views = |(account, state): &(AccountTag, Arc<AccountState>)| {
            let views = state.operations.iter().map(|o| OperationView::of(*account, o));
            views.collect::<Vec<_>>()
        };
        let mut operations: Vec<_> = folded.iter().flat_map(views).collect();
        operations.sort_by_key(|operation| operation.op);
        Ok(operations)
    }

    /// Returns the newest pair of a grant, if it has one; none also without a key.
    ///
    /// # Errors
    /// [`Error::Unproven`] for a pair at the unproven end of a store without an owner; and as
    /// [`Reader::account`].
    pub fn pair(&self, account: AccountTag, grant: GrantId) -> Result<Option<IssuedPair>, Error> {
        let state = self.replay.fold(account)?;
        let Some((grant, keychain)) = state.grant(grant).zip(self.keychain.as_ref()) else {
            return Ok(None);
        };
        if grant.issued > proven_through(&self.survey, self.snapshot_lsn())? {
            return Err(Error::Unproven { lsn: grant.issued });
        }
        let accounts = std::iter::once(account).chain(grant.homes.iter().copied());
        let bytes = self.replay.files.read(grant.issued, accounts)?;
        IssuedPair::from_record(keychain, &bytes, account, grant.id).map(Some)
    }

    /// Sums the store up.
    ///
    /// # Errors
    /// As [`Reader::account`].
    pub fn summary(&self) -> Result<Summary, Error> {
        let count = |count: usize| count as u64;
        let footer = self.snapshot.as_ref().map(|snapshot| *snapshot.footer());
        let note = self.disk.lock_note().unwrap_or_default();
        let chain = &self.survey.chain;
        Ok(Summary {
            store: self.store,
            verdict: self.survey.verdict,
            last_lsn: self.lsn,
            last_batch_proven: self.survey.marker.is_some(),
            live: self.live,
            owner_pid: pid_of(&note).filter(|_| self.live),
            live_tail_bytes: self.survey.live_bytes,
            torn_bytes: self.survey.torn_bytes,
            segments: count(chain.len()),
            segment_bytes: chain.iter().map(|link| link.segment.header.segment_bytes).sum(),
            batch_bytes_max: chain.last().map_or(0, |last| last.segment.header.batch_bytes_max),
            prepared_segments: count(self.survey.prepared.len()),
            tail_records: self.replay.records,
            accounts_touched: count(self.replay.accounts.touched()),
            snapshot_lsn: self.snapshot_lsn(),
            snapshot_accounts: footer.map(|footer| footer.accounts).unwrap_or_default(),
            snapshot_records: footer.map(|footer| footer.records).unwrap_or_default(),
            snapshot_bytes: self.snapshot.as_ref().map(|s| s.bytes()).unwrap_or_default(),
            in_doubt: count(self.operations()?.len()),
            unreadable: self.replay.fold_with_operations()?.1,
            incarnation: self.replay.incarnation,
            written_here: self.written_here(),
            free_bytes: self
                .disk
                .free_bytes()
                .map_err(Error::io("asking for free space", self.disk.path()))?,
            foreign_files: self.listing.foreign.clone(),
        })
    }

    fn snapshot_lsn(&self) -> Lsn {
        self.snapshot.as_ref().map(|snapshot| snapshot.lsn()).unwrap_or_default()
    }

    fn written_here(&self) -> Option<bool> {
        let keychain = self.keychain.as_ref().filter(|_| self.replay.host != HostTag::NONE)?;
        Some(keychain.tagger().host(&self.disk.host()) == self.replay.host)
    }

    fn view(&self, account: AccountTag, state: &AccountState) -> Result<AccountView, Error> {
        let homes = state.homes();
        let accounts = || std::iter::once(account).chain(homes.iter().copied());
        let read = |lsn| self.replay.files.read(lsn, accounts());
        let (keychain, claimed) = (self.keychain.as_ref(), self.replay.accounts.claimed());
        AccountView::of(account, state, Sight { keychain, read: &read, claimed })
    }
}

/// All accounts of a store at one LSN, in the order of their tags; see [`Reader::accounts`].
#[derive(Debug)]
pub struct AccountViews<'a> {
    reader: &'a Reader,
    walk: Walk,
}

impl Iterator for AccountViews<'_> {
    type Item = Result<AccountView, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.walk.next().transpose()?;
        Some(next.and_then(|(account, state)| self.reader.view(account, &state)))
    }
}
