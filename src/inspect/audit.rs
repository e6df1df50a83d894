//! Hears of every record and batch of a store and checks what needs more than their checksums:
//! the keys that they name [F-16], and with keys the sealed parts and the batch MACs [F-37].

use super::verification::{Problem, Problems};
use crate::engine::keychain::Keychain;
use crate::engine::replay::Replay;
use crate::error::Error;
use crate::format::frame::Frame;
use crate::format::record::{Record, SEALED_NONCE_BYTES};
use crate::format::segment::{SegmentHeader, WrappedKey};
use crate::ids::{AccountTag, Lsn};
use crate::log::scan::WholeBatch;
use crate::log::survey::{Segment, Sink};
use crate::seal::MacKey;

/// The chain's audit; it replays what it hears.
pub(super) struct Audit {
    pub(super) replay: Replay,
    pub(super) seals: Option<Seals>,
    pub(super) problems: Problems,
    pub(super) batches: u64,
    pub(super) frames: u64,
    current: Option<Current>,
}

/// The segment that is being read.
struct Current {
    name: String,
    header: SegmentHeader,
    mac: Option<MacKey>,
}

impl Audit {
    pub(super) fn new(replay: Replay, seals: Option<Seals>) -> Self {
        let problems = Problems::default();
        Self { replay, seals, problems, batches: 0, frames: 0, current: None }
    }
}

impl Sink for Audit {
    fn segment(&mut self, segment: &Segment) -> Result<(), Error> {
        let (name, header) = (segment.name.clone(), segment.header.clone());
        let mut mac = None;
        if let Some(seals) = &mut self.seals {
            let carried = header.data_keys.iter();
            seals.learn(&name, &header.tag_key, carried, &mut self.problems)?;
            mac = header.data_keys.first().and_then(|own| seals.mac_key(&name, own));
        }
        self.current = Some(Current { name, header, mac });
        self.replay.segment(segment)
    }

    fn frame(&mut self, frame: &Frame<'_>, begins_batch: bool) -> Result<(), Error> {
        self.frames += 1;
        if let Some(current) = &self.current {
            let (name, offset) = (current.name.as_str(), frame.offset);
            let mut check = RecordCheck { name, offset, problems: &mut self.problems };
            check.carried(&frame.record, &current.header.data_keys);
            if let Some(seals) = &mut self.seals {
                check.sealed(&frame.record, seals);
            }
        }
        self.replay.frame(frame, begins_batch)
    }

    fn batch(&mut self, batch: &WholeBatch<'_>) -> Result<(), Error> {
        self.batches += 1;
        if let Some((current, mac)) = self.current.as_ref().zip(self.mac())
            && !batch.header.authenticate(batch.bytes, current.header.nonce, batch.offset, mac)
        {
            let what = "the batch fails authentication: records in it were moved or changed";
            let first = batch.header.first_lsn;
            self.problems.note(Problem::tampered(&current.name, batch.offset, first, what));
        }
        self.replay.batch(batch)
    }
}

impl Audit {
    fn mac(&self) -> Option<&MacKey> {
        self.current.as_ref()?.mac.as_ref()
    }
}

/// Checks one record where it stands.
pub(super) struct RecordCheck<'a> {
    pub(super) name: &'a str,
    pub(super) offset: u64,
    pub(super) problems: &'a mut Problems,
}

impl RecordCheck<'_> {
    /// A record's key must be among those that its file carries [F-11].
    pub(super) fn carried(&mut self, record: &Record<'_>, keys: &[WrappedKey]) {
        let key = record.header.key;
        if key != 0 && !keys.iter().any(|carried| carried.key_id == key) {
            self.note(record, "the record is sealed under a key that its file does not carry");
        }
    }

    /// A sealed part must open, and no nonce may seal twice.
    pub(super) fn sealed(&mut self, record: &Record<'_>, seals: &mut Seals) {
        if record.kind().is_structural() {
            return;
        }
        match seals.open(record) {
            Ok(()) => {}
            Err(Unsealed::NoKey) => self.note(record, "the record's key is nowhere to be found"),
            Err(Unsealed::Forged) => {
                self.note(record, "the record's sealed part fails authentication");
            }
        }
    }

    fn note(&mut self, record: &Record<'_>, what: &str) {
        let mut problem = Problem::tampered(self.name, self.offset, record.lsn(), what);
        problem.name(account_of(record));
        self.problems.note(problem);
    }
}

/// The keys of a store, and every nonce that was seen under them.
#[derive(Debug)]
pub(super) struct Seals {
    keychain: Keychain,
    /// Key, nonce, and the record's LSN: the same record may stand in several places.
    nonces: Vec<(u64, [u8; SEALED_NONCE_BYTES], Lsn)>,
    opened: u64,
}

/// Why a sealed part could not be opened.
enum Unsealed {
    NoKey,
    Forged,
}

impl Seals {
    pub(super) fn new(keychain: Keychain) -> Self {
        Self { keychain, nonces: Vec::new(), opened: 0 }
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// Learns the keys that a file carries, and checks that each opens.
    ///
    /// # Errors
    /// [`Error::WrongKey`] where a key is wrapped under one that was not given.
    pub(super) fn learn<'k>(
        &mut self,
        name: &str,
        tag_key: &WrappedKey,
        keys: impl Iterator<Item = &'k WrappedKey>,
        problems: &mut Problems,
    ) -> Result<(), Error> {
        let mut checked = |result: Result<(), Error>| match result {
            Err(Error::Key(_)) => {
                let what = "a key in the header does not open under its key-encryption key";
                problems.note(Problem::tampered(name, 0, Lsn::NONE, what));
                Ok(false)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        };
        checked(self.keychain.check_tag_key(name, tag_key))?;
        for key in keys {
            if checked(self.keychain.unwrap(name, key).map(drop))? {
                self.keychain.learn([key]);
            }
        }
        Ok(())
    }

    fn mac_key(&self, name: &str, own: &WrappedKey) -> Option<MacKey> {
        self.keychain.unwrap(name, own).ok().map(|key| MacKey::new(&key))
    }

    fn open(&mut self, record: &Record<'_>) -> Result<(), Unsealed> {
        let key = record.header.key;
        if self.keychain.wrapped(key).is_none() {
            return Err(Unsealed::NoKey);
        }
        self.keychain.unseal(record).map_err(|_| Unsealed::Forged)?;
        self.opened += 1;
        if let Some(nonce) = record.sealed_part.first_chunk() {
            self.nonces.push((key, *nonce, record.lsn()));
        }
        Ok(())
    }

    /// Names the records that were sealed under a nonce that another one has.
    pub(super) fn reused(&mut self) -> Vec<(Lsn, Lsn)> {
        self.nonces.sort_unstable();
        self.nonces.dedup();
        let pairs = self.nonces.windows(2);
        pairs
            .filter_map(|pair| match pair {
                [(key, nonce, one), (other_key, other_nonce, other)]
                    if (key, nonce) == (other_key, other_nonce) =>
                {
                    Some((*one, *other))
                }
                _ => None,
            })
            .collect()
    }
}

/// Takes the account that a record is about, for reports.
pub(super) fn account_of(record: &Record<'_>) -> Option<AccountTag> {
    record.clear.prefix().map(|prefix| prefix.account).filter(|account| !account.is_none())
}
