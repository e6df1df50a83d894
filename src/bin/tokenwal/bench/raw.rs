//! The raw bound: what this disk gives to a program that does nothing but group its callers'
//! records and make them durable.
//!
//! It is measured on one file of real zeros, each batch padded to whole blocks as the journal's
//! are, in the ways that are fastest: written by the caller itself, or by one thread for many
//! callers out of two buffers that take turns, as the journal does it; each with a write and
//! fdatasync, and with direct writes that are durable when they return. No record is encoded,
//! sealed or checksummed, and nothing is folded. Every record carries the number of its run, so
//! that a scan afterwards can count what is there.

#![expect(clippy::disallowed_methods, reason = "the bound is measured beside the journal's seam")]

use super::drive::Caller;
use crate::exit::Failure;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use tokenwal::disk::AlignedBuffer;

const BLOCK_BYTES: usize = 4096;
/// What stands before a record's content: its length and the number of its run.
const HEADER_BYTES: usize = 12;

/// How a batch becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Through the page cache, and fdatasync.
    Synced,
    /// `O_DIRECT` and `O_DSYNC`.
    Direct,
}

/// The file of zeros, open in one way, and how much of it is used.
#[derive(Debug)]
pub(super) struct RawFile {
    file: File,
    way: Way,
    at: u64,
    bytes: u64,
}

impl RawFile {
    /// Makes the file, of zeros that were written and synced.
    pub(super) fn create(path: &Path, bytes: u64) -> io::Result<()> {
        let file = File::create_new(path)?;
        let zeros = vec![0; 1 << 20];
        let mut at = 0;
        while at < bytes {
            file.write_all_at(&zeros, at)?;
            at += zeros.len() as u64;
        }
        file.sync_all()
    }

    /// Opens it to be written from its start; none where the file system has no direct writes.
    pub(super) fn open(path: &Path, way: Way) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if way == Way::Direct {
            // `O_DSYNC` by its number: `OFlags::DSYNC` is `O_SYNC` in rustix 1.1.
            let flags = rustix::fs::OFlags::DIRECT.bits() | 0o1_0000;
            options.custom_flags(i32::try_from(flags).map_err(io::Error::other)?);
        }
        let file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(None),
            opened => opened?,
        };
        let bytes = file.metadata()?.len();
        Ok(Some(Self { file, way, at: 0, bytes }))
    }

    /// Writes a batch behind the last one, durably; says no when the file is full.
    fn write(&mut self, batch: &[u8]) -> io::Result<bool> {
        let end = self.at + batch.len() as u64;
        if end > self.bytes {
            return Ok(false);
        }
        self.file.write_all_at(batch, self.at)?;
        if self.way == Way::Synced {
            self.file.sync_data()?;
        }
        self.at = end;
        Ok(true)
    }

    /// Counts the records of a run. A batch begins on a block of its own; behind its last record
    /// nothing of the run stands until the next block.
    pub(super) fn count(path: &Path, run: u64) -> io::Result<u64> {
        let file = File::open(path)?;
        let end = file.metadata()?.len();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut header = [0; HEADER_BYTES];
        let (mut at, mut count) = (0, 0);
        while at + HEADER_BYTES as u64 <= end {
            reader.read_exact(&mut header)?;
            let (length, of) = header.split_at(4);
            let next = if of == run.to_le_bytes().as_slice() {
                count += 1;
                let length: [u8; 4] = length.try_into().map_err(io::Error::other)?;
                at + u64::from(u32::from_le_bytes(length))
            } else {
                (at + 1).next_multiple_of(BLOCK_BYTES as u64)
            };
            reader.seek_relative(
                next.cast_signed() - at.cast_signed() - (HEADER_BYTES as u64).cast_signed(),
            )?;
            at = next;
        }
        Ok(count)
    }
}

/// A batch in the making.
#[derive(Debug)]
struct Batch {
    bytes: AlignedBuffer,
    used: usize,
    wakers: Vec<Waker>,
}

impl Batch {
    fn new(bytes: usize) -> Self {
        let bytes = AlignedBuffer::zeroed(bytes.next_multiple_of(BLOCK_BYTES), BLOCK_BYTES);
        Self { bytes, used: 0, wakers: Vec::new() }
    }

    /// Copies a record in.
    fn push(&mut self, run: u64, record: &[u8]) {
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        let at = self.used;
        self.used += record.len();
        if let Some(place) = self.bytes.get_mut(at..self.used) {
            place.copy_from_slice(record);
            if let Some((first, rest)) = place.split_first_chunk_mut::<4>() {
                *first = length.to_le_bytes();
                if let Some(of) = rest.first_chunk_mut::<8>() {
                    *of = run.to_le_bytes();
                }
            }
        }
    }

    /// Pads the batch with zeros and writes it.
    fn write(&mut self, file: &mut RawFile) -> io::Result<bool> {
        let padded = self.used.next_multiple_of(BLOCK_BYTES);
        if let Some(padding) = self.bytes.get_mut(self.used..padded) {
            padding.fill(0);
        }
        self.used = 0;
        file.write(self.bytes.get(..padded).unwrap_or_default())
    }
}

/// A caller who writes by himself.
#[derive(Debug)]
pub(super) struct Inline {
    file: RawFile,
    run: u64,
    batch: Batch,
    records: Arc<[Vec<u8>]>,
}

impl Inline {
    pub(super) fn new(file: RawFile, run: u64, records: Arc<[Vec<u8>]>) -> Self {
        let longest = records.iter().map(Vec::len).max().unwrap_or_default();
        Self { file, run, batch: Batch::new(longest), records }
    }

    /// Makes the records of one operation durable, one after the other.
    pub(super) fn call(&mut self) -> Result<bool, Failure> {
        for record in self.records.iter() {
            self.batch.push(self.run, record);
            if !self.batch.write(&mut self.file)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A thread that writes for many callers: while it writes one buffer they fill the other.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<()>>,
}

#[derive(Debug)]
struct Shared {
    run: u64,
    filling: Mutex<Filling>,
    work: Condvar,
    /// Number of the last batch that is durable.
    durable: AtomicU64,
}

#[derive(Debug)]
struct Filling {
    batch: Batch,
    /// The batch's number, from 1.
    number: u64,
    /// No more records are taken: the file is full, or it is over.
    ended: bool,
}

impl Writer {
    /// Starts it. `batch_bytes` is as much as all callers together can have in flight.
    pub(super) fn start(file: RawFile, run: u64, batch_bytes: usize) -> io::Result<Self> {
        let filling = Filling { batch: Batch::new(batch_bytes), number: 1, ended: false };
        let shared = Arc::new(Shared {
            run,
            filling: Mutex::new(filling),
            work: Condvar::new(),
            durable: AtomicU64::new(0),
        });
        let (for_thread, spare) = (shared.clone(), Batch::new(batch_bytes));
        let thread = std::thread::Builder::new()
            .name(String::from("raw-write"))
            .spawn(move || for_thread.write(file, spare))?;
        Ok(Self { shared, thread })
    }

    /// Makes a caller whose operations are these records, each durable before the next.
    pub(super) fn caller(&self, records: &Arc<[Vec<u8>]>) -> RawCaller {
        RawCaller { shared: self.shared.clone(), records: records.clone() }
    }

    /// Ends it, after its callers have ended.
    pub(super) fn end(self) -> Result<(), Failure> {
        self.shared.lock().ended = true;
        self.shared.work.notify_one();
        let ended = self.thread.join();
        ended.map_err(|_| Failure::new("the raw writer panicked", "report this"))??;
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Filling> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut file: RawFile, mut spare: Batch) -> io::Result<()> {
        loop {
            let mut filling = self.lock();
            while filling.batch.used == 0 {
                if filling.ended {
                    return Ok(());
                }
                filling = self.work.wait(filling).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut filling.batch, &mut spare);
            let number = filling.number;
            filling.number += 1;
            drop(filling);
            let written = spare.write(&mut file);
            if matches!(written, Ok(true)) {
                self.durable.store(number, Ordering::Release);
            } else {
                let mut filling = self.lock();
                filling.ended = true;
                spare.wakers.append(&mut filling.batch.wakers);
            }
            spare.wakers.drain(..).for_each(Waker::wake);
            if !written? {
                return Ok(());
            }
        }
    }
}

/// A caller of a [`Writer`].
#[derive(Debug)]
pub(super) struct RawCaller {
    shared: Arc<Shared>,
    records: Arc<[Vec<u8>]>,
}

impl Caller for RawCaller {
    async fn call(&mut self) -> Result<bool, Failure> {
        for record in self.records.iter() {
            let append = Append { shared: &self.shared, record, number: 0 };
            if !append.await {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A record on its way; false if it did not become durable.
struct Append<'a> {
    shared: &'a Shared,
    record: &'a [u8],
    /// Of the batch that it is in, or 0.
    number: u64,
}

impl Future for Append<'_> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        let shared = self.shared;
        if self.number > 0 && shared.durable.load(Ordering::Acquire) >= self.number {
            return Poll::Ready(true);
        }
        let mut filling = shared.lock();
        if self.number > 0 {
            // Polled early: the waker that was left is still its task's.
            let durable = shared.durable.load(Ordering::Acquire) >= self.number;
            return if durable || filling.ended { Poll::Ready(durable) } else { Poll::Pending };
        }
        if filling.ended {
            return Poll::Ready(false);
        }
        filling.batch.push(shared.run, self.record);
        filling.batch.wakers.push(context.waker().clone());
        self.number = filling.number;
        let first = filling.batch.wakers.len() == 1;
        drop(filling);
        if first {
            shared.work.notify_one();
        }
        Poll::Pending
    }
}
