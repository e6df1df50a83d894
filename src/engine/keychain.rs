//! The keys of an open store: unwraps what files carry, draws a data key for each new segment.

use crate::clock::Entropy;
use crate::error::Error;
use crate::format::record::Record;
use crate::format::segment::{KEY_SLOTS, WrappedKey};
use crate::ids::StoreId;
use crate::keys::{KeyError, Keyring};
use crate::seal::{DataKey, MacKey, Sealer, TagKey, Tagger};
use crate::sync::{lock, read_lock, write_lock};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, RwLock};
use zeroize::Zeroizing;

/// The keys of one store.
#[derive(Debug)]
pub(crate) struct Keychain {
    store: StoreId,
    keyring: Keyring,
    tag_key: WrappedKey,
    tagger: Tagger,
    /// Every data key that a file of the store carries, wrapped.
    wrapped: RwLock<BTreeMap<u64, WrappedKey>>,
    /// Those that were needed so far, ready for use.
    ready: RwLock<HashMap<u64, Arc<Sealer>>>,
    /// The data keys of the newest segments of this process, newest first.
    recent: Mutex<VecDeque<WrappedKey>>,
}

/// A new segment's data key.
#[derive(Debug)]
pub(crate) struct SegmentKey {
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) mac: MacKey,
    /// What the segment's header carries: its own key first, then older ones [F-16].
    pub(crate) slots: Vec<WrappedKey>,
}

impl Keychain {
    /// Makes the keys of a new store.
    pub(crate) fn create(
        store: StoreId,
        keyring: Keyring,
        entropy: &dyn Entropy,
    ) -> Result<Self, Error> {
        let io = || Error::io("drawing the store's keys", "the system's random generator");
        let tag_key = TagKey::generate(entropy).map_err(io())?;
        let wrapped = keyring.active().wrap_tag_key(store, &tag_key, entropy).map_err(io())?;
        Ok(Self::with(store, keyring, wrapped, &tag_key))
    }

    /// Unwraps the tag key that a file carries; every file of a store carries the same.
    ///
    /// # Errors
    /// [`Error::WrongKey`] when the key that it names was not given; [`Error::Key`] when it was,
    /// and does not open what the file carries.
    pub(crate) fn open(
        store: StoreId,
        keyring: Keyring,
        file: &str,
        wrapped: &WrappedKey,
    ) -> Result<Self, Error> {
        let tag_key =
            keyring.unwrap_tag_key(store, wrapped).map_err(|error| not_opened(file, error))?;
        Ok(Self::with(store, keyring, *wrapped, &tag_key))
    }

    /// Wraps the tag key under the active key-encryption key, for the files that are made from
    /// now on.
    pub(crate) fn renew_tag_key(&mut self, entropy: &dyn Entropy) -> Result<(), Error> {
        let active = self.keyring.active();
        if self.tag_key.kek_id != active.id() {
            let key = self.keyring.unwrap_tag_key(self.store, &self.tag_key)?;
            self.tag_key = active
                .wrap_tag_key(self.store, &key, entropy)
                .map_err(Error::io("wrapping the tag key", "the system's random generator"))?;
        }
        Ok(())
    }

    /// Wraps a data key under the active key-encryption key, if it is under another.
    pub(crate) fn rewrap(
        &self,
        wrapped: &WrappedKey,
        entropy: &dyn Entropy,
    ) -> Result<WrappedKey, Error> {
        let active = self.keyring.active();
        if wrapped.kek_id == active.id() {
            return Ok(*wrapped);
        }
        let key = self.keyring.unwrap_data_key(self.store, wrapped)?;
        active
            .wrap_data_key(self.store, &key, entropy)
            .map_err(Error::io("wrapping a data key", "the system's random generator"))
    }

    fn with(store: StoreId, keyring: Keyring, wrapped: WrappedKey, tag_key: &TagKey) -> Self {
        Self {
            store,
            keyring,
            tag_key: wrapped,
            tagger: Tagger::new(tag_key),
            wrapped: RwLock::default(),
            ready: RwLock::default(),
            recent: Mutex::default(),
        }
    }

    pub(crate) fn store(&self) -> StoreId {
        self.store
    }

    pub(crate) fn tagger(&self) -> &Tagger {
        &self.tagger
    }

    /// Returns the tag key as files carry it.
    pub(crate) fn tag_key(&self) -> WrappedKey {
        self.tag_key
    }

    /// Learns the data keys that a file carries.
    pub(crate) fn learn<'a>(&self, keys: impl IntoIterator<Item = &'a WrappedKey>) {
        write_lock(&self.wrapped).extend(keys.into_iter().map(|key| (key.key_id, *key)));
    }

    /// Returns a data key as files carry it.
    pub(crate) fn wrapped(&self, key_id: u64) -> Option<WrappedKey> {
        read_lock(&self.wrapped).get(&key_id).copied()
    }

    /// Draws a data key for a new segment.
    pub(crate) fn next_segment_key(&self, entropy: &dyn Entropy) -> Result<SegmentKey, Error> {
        let io = || Error::io("drawing a data key", "the system's random generator");
        let key = DataKey::generate(entropy).map_err(io())?;
        let wrapped =
            self.keyring.active().wrap_data_key(self.store, &key, entropy).map_err(io())?;
        let slots: Vec<_> = {
            let mut recent = lock(&self.recent);
            recent.push_front(wrapped);
            recent.truncate(KEY_SLOTS + 1);
            recent.iter().take(KEY_SLOTS).copied().collect()
        };
        self.learn([&wrapped]);
        let (sealer, mac) = self.prepare(&key);
        Ok(SegmentKey { sealer, mac, slots })
    }

    /// Takes back a key whose segment was given up, so that the next segments carry those before.
    pub(crate) fn give_up(&self, key: &SegmentKey) {
        let own = key.sealer.key();
        lock(&self.recent).retain(|wrapped| wrapped.key_id != own);
    }

    /// Checks that the key-encryption key of each of these is there, before anything is written.
    ///
    /// # Errors
    /// [`Error::WrongKey`], which names the one that is missing.
    pub(crate) fn check(&self, file: &str, wrapped: &[WrappedKey]) -> Result<(), Error> {
        let missing = wrapped.iter().find(|key| self.keyring.ids().all(|held| held != key.kek_id));
        match missing {
            Some(key) => Err(Error::WrongKey { file: file.to_owned(), kek_id: key.kek_id }),
            None => Ok(()),
        }
    }

    fn prepare(&self, key: &DataKey) -> (Arc<Sealer>, MacKey) {
        let sealer = Arc::new(Sealer::new(self.store, key));
        write_lock(&self.ready).insert(key.id(), Arc::clone(&sealer));
        (sealer, MacKey::new(key))
    }

    /// Unwraps a data key.
    pub(crate) fn unwrap(&self, file: &str, wrapped: &WrappedKey) -> Result<DataKey, Error> {
        self.keyring.unwrap_data_key(self.store, wrapped).map_err(|error| not_opened(file, error))
    }

    /// Checks that a file carries the store's tag key, which never changes [F-36].
    ///
    /// # Errors
    /// As [`Keychain::open`], and [`Error::Key`] where it is another key.
    pub(crate) fn check_tag_key(&self, file: &str, wrapped: &WrappedKey) -> Result<(), Error> {
        let key = self.keyring.unwrap_tag_key(self.store, wrapped);
        let key = key.map_err(|error| not_opened(file, error))?;
        match Tagger::new(&key).host("") == self.tagger.host("") {
            true => Ok(()),
            false => Err(KeyError::NotAuthentic { kek_id: wrapped.kek_id }.into()),
        }
    }

    /// Opens a record's sealed part.
    pub(crate) fn unseal(&self, record: &Record<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
        let forged = || Error::Forged { lsn: record.header.lsn };
        let ready = read_lock(&self.ready).get(&record.header.key).cloned();
        let sealer = match ready {
            Some(sealer) => sealer,
            None => {
                let wrapped = self.wrapped(record.header.key).ok_or_else(forged)?;
                let key = self.unwrap("the store", &wrapped)?;
                self.prepare(&key).0
            }
        };
        sealer.open(record).map_err(|_| forged())
    }
}

/// Tells a key that was not given from one that does not open what it should have sealed.
fn not_opened(file: &str, error: KeyError) -> Error {
    match error {
        KeyError::NotHeld { wanted } => Error::WrongKey { file: file.to_owned(), kek_id: wanted },
        error => Error::Key(error),
    }
}
