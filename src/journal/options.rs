//! How a store is opened.

use super::{Journal, Report, open};
use crate::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::disk::Disk;
use crate::engine::fill::Limits;
use crate::error::Error;
use crate::format::HEADER_BYTES;
use crate::format::record::RECORD_BYTES_MAX;
use crate::format::segment::{BATCH_BYTES_LIMIT, SEGMENT_BYTES_LIMIT};
use crate::ids::Lsn;
use crate::keys::KeySource;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Who does the journal's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Drive {
    /// Two threads of the journal's own: one writes, one prepares segments and compacts.
    #[default]
    Threads,
    /// Nobody but the caller of [`Journal::step`]: for simulators, so that one seed decides all.
    Manual,
}

/// Opens or creates a store.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("store");
/// use tokenwal::{FixedKeys, Options};
///
/// let (journal, report) = Options::new(FixedKeys::new([7; 32], [])).create(&path)?;
/// assert_eq!(report.in_doubt.len(), 0);
/// journal.blocking().close()?;
/// # Ok(())
/// # }
/// ```
pub struct Options {
    pub(crate) keys: Arc<dyn KeySource>,
    pub(crate) block_bytes: u32,
    pub(crate) batch_bytes_max: u32,
    pub(crate) segment_bytes: u64,
    pub(crate) outcome_bytes_max: u32,
    pub(crate) cache_bytes: usize,
    pub(crate) compaction_percent: u32,
    pub(crate) adopt_within: Duration,
    pub(crate) wait_for_lock: Duration,
    pub(crate) claim: bool,
    pub(crate) expected_head: Lsn,
    pub(crate) drive: Drive,
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
}

impl Options {
    /// Begins with the defaults and where the keys come from.
    pub fn new(keys: impl KeySource + 'static) -> Self {
        Self {
            keys: Arc::new(keys),
            block_bytes: 4096,
            batch_bytes_max: 1 << 20,
            segment_bytes: 32 << 20,
            outcome_bytes_max: 64 << 10,
            cache_bytes: 16 << 20,
            compaction_percent: 100,
            adopt_within: Duration::from_secs(24 * 3600),
            wait_for_lock: Duration::from_millis(200),
            claim: false,
            expected_head: Lsn::NONE,
            drive: Drive::Threads,
            disk: None,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
        }
    }

    /// Sets the length of a segment in bytes; 32 MiB by default, at least four batches, at most
    /// just under 4 GiB. It is rounded up to blocks.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Sets the largest batch in bytes; 1 MiB by default, at most 16 MiB. Records in flight take
    /// twice as much memory at most.
    pub fn batch_bytes_max(mut self, bytes: u32) -> Self {
        self.batch_bytes_max = bytes;
        self
    }

    /// Sets the largest record of an outcome in bytes; 64 KiB by default, at most half a batch.
    /// Every open operation reserves as much on disk.
    pub fn outcome_bytes_max(mut self, bytes: u32) -> Self {
        self.outcome_bytes_max = bytes;
        self
    }

    /// Sets how many bytes of sealed records are kept in memory for look-ups; 16 MiB by default.
    /// What was folded for look-ups, without secrets, takes up to 4 MiB more.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Compacts when the tail is longer than this many hundredths of the snapshot, and longer than
    /// two segments; 100 by default, 0 for never but on demand.
    pub fn compact_at_percent(mut self, percent: u32) -> Self {
        self.compaction_percent = percent;
        self
    }

    /// Sets how long a grant may stay without a holder before it is an orphan; 24 hours by
    /// default.
    pub fn adopt_within(mut self, time: Duration) -> Self {
        self.adopt_within = time;
        self
    }

    /// Waits so long for another process to let go of the store; 200 ms by default, which is
    /// enough for a reading command that looks whether the store has an owner.
    pub fn wait_for_lock(mut self, time: Duration) -> Self {
        self.wait_for_lock = time;
        self
    }

    /// Takes over a store that another host wrote, on somebody's word that the other host has
    /// stopped for good.
    pub fn claim(mut self) -> Self {
        self.claim = true;
        self
    }

    /// Refuses a store that ends before this LSN: an old copy that was put back.
    pub fn expected_head(mut self, lsn: Lsn) -> Self {
        self.expected_head = lsn;
        self
    }

    /// Sets who does the journal's work; its own threads by default.
    pub fn drive(mut self, drive: Drive) -> Self {
        self.drive = drive;
        self
    }

    /// Uses this disk instead of the directory; the path given to open is not looked at then.
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Uses this clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Uses this source of randomness.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// Creates a store in a new or empty directory.
    ///
    /// # Errors
    /// [`Error::Exists`] where there is one already, and the errors of [`Options::open`].
    pub fn create(self, dir: impl AsRef<Path>) -> Result<(Journal, Report), Error> {
        open::create(self, dir.as_ref())
    }

    /// Opens a store for writing, after recovery.
    ///
    /// It blocks for as long as the tail of the journal takes to read; nothing is changed unless
    /// the verdict is clean or torn.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Locked`], [`Error::WrongKey`], [`Error::Corrupt`] and others;
    /// [`Error::advice`] says what to do.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<(Journal, Report), Error> {
        open::open(self, dir.as_ref())
    }

    /// Opens a store, or creates one where there is none.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_or_create(self, dir: impl AsRef<Path>) -> Result<(Journal, Report), Error> {
        open::open_or_create(self, dir.as_ref())
    }

    /// Checks the sizes against each other.
    pub(crate) fn limits(&self) -> Result<Limits, Error> {
        let wrong = |option, problem| Err(Error::Option { option, problem });
        let block = u64::from(self.block_bytes);
        // What is too long to be rounded up is too long.
        let segment_bytes = self.segment_bytes.checked_next_multiple_of(block).unwrap_or(u64::MAX);
        let batch = u64::from(self.batch_bytes_max);
        if self.batch_bytes_max > BATCH_BYTES_LIMIT || batch < 4 * block {
            return wrong("batch_bytes_max", "it must be from 16 KiB to 16 MiB");
        }
        if segment_bytes < 4 * batch + HEADER_BYTES as u64 || segment_bytes > SEGMENT_BYTES_LIMIT {
            return wrong("segment_bytes", "it must hold four batches and stay below 4 GiB");
        }
        let largest = (batch / 2).min(RECORD_BYTES_MAX as u64);
        if self.outcome_bytes_max < 2048 || u64::from(self.outcome_bytes_max) > largest {
            let problem = "it must be from 2 KiB to half a batch, and at most 1 MiB";
            return wrong("outcome_bytes_max", problem);
        }
        Ok(Limits {
            block_bytes: self.block_bytes,
            batch_bytes_max: self.batch_bytes_max,
            segment_bytes,
            outcome_bytes_max: self.outcome_bytes_max,
        })
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("segment_bytes", &self.segment_bytes)
            .field("batch_bytes_max", &self.batch_bytes_max)
            .field("outcome_bytes_max", &self.outcome_bytes_max)
            .field("drive", &self.drive)
            .finish_non_exhaustive()
    }
}
