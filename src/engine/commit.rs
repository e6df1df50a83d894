//! Group commit: takes what callers filled, writes and syncs it, tells them.
//!
//! One step is one batch. Whoever holds the writer's lock takes it: the writer's thread, a blocking
//! caller, or a simulator. There is no timer and no delay: what comes while a sync is under way is
//! the next batch. A failed write or sync poisons the journal for good; nothing is retried.

use super::Engine;
use super::fill::{Closing, Core, Fill};
use super::prepare::Prepared;
use crate::error::{Error, Poison};
use crate::format::batch::BatchBuffer;
use crate::format::clear::{Clear, Marker, Opened, Sealed};
use crate::format::record::{body_crc, encode_record};
use crate::format::value::{MarkerReason, OpenedReason};
use crate::ids::Lsn;
use crate::sync::{lock, write_lock};
use std::sync::Arc;

/// Who writes: the segment being written, and the buffer that is not being filled.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) current: Prepared,
    pub(crate) spare: Option<BatchBuffer>,
}

/// A batch that was taken to be written.
struct Taken {
    fill: Fill,
    /// The segment to go on with after it.
    successor: Option<Prepared>,
    /// LSN of its `Sealed`, if it has one.
    sealed: Option<Lsn>,
}

impl Engine {
    /// Writes one batch, if there is anything to write; says whether it did.
    ///
    /// # Errors
    /// [`Error::Poisoned`], now or earlier.
    pub(crate) fn step_commit(&self) -> Result<bool, Error> {
        let mut writer = lock(&self.writer);
        self.settle_abandoned();
        let Some(taken) = self.take_batch(&mut writer)? else { return Ok(false) };
        self.space.notify_waiters();
        self.write_batch(&mut writer, taken)?;
        Ok(true)
    }

    /// Adds a marker to the batch in the making, if the last batch still needs proof.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub(crate) fn mark(&self, reason: MarkerReason) -> Result<bool, Error> {
        let mut core = lock(&self.core);
        if let Some(poison) = &core.fate {
            return Err(Error::Poisoned(Arc::clone(poison)));
        }
        if reason == MarkerReason::Idle && (core.proven || core.fill.callers > 0) {
            return Ok(false);
        }
        // A marker must not take the room that was promised to an outcome, unless there is none
        // to come, nor the block for the `Sealed` that ends the segment.
        let least = 2 * u64::from(core.limits.block_bytes);
        let room = match reason {
            MarkerReason::Idle => core.free(),
            MarkerReason::Close => core.tail_left,
        };
        if room < least {
            return Ok(false);
        }
        self.push_structural(&mut core, Clear::Marker(Marker { reason }));
        core.proven = true;
        Ok(true)
    }

    pub(crate) fn push_structural(&self, core: &mut Core, clear: Clear) -> Lsn {
        let at_ms = self.seams.clock.now_ms();
        let record = encode_record(&clear, at_ms, 0, &[]);
        let lsn = core.take_lsn();
        core.fill.push(lsn, &record, body_crc(&record));
        lsn
    }

    fn take_batch(&self, writer: &mut Writer) -> Result<Option<Taken>, Error> {
        let mut core = lock(&self.core);
        if let Some(poison) = &core.fate {
            return Err(Error::Poisoned(Arc::clone(poison)));
        }
        let is_closed = core.closing == Closing::Closed;
        let roll_wanted = !is_closed && (core.roll_needed || (core.roll_wanted && core.may_roll()));
        let only_opened = core.fill.frames == 1 && core.fill.waits;
        if !roll_wanted && (core.fill.frames == 0 || only_opened) {
            return Ok(None);
        }
        let padded =
            |bytes: usize| (bytes as u64).next_multiple_of(u64::from(core.limits.block_bytes));
        let left = core.tail_left.saturating_sub(padded(core.fill.buffer.len() + 128));
        let rolls =
            (roll_wanted || left < core.limits.roll_below()) && core.closing != Closing::Closed;
        let successor = if rolls { core.prepared.pop_front() } else { None };
        let sealed = successor.as_ref().map(|next| {
            let header = &next.tail.segment.header;
            let sealed = Sealed { successor: header.nonce, successor_number: header.number };
            self.push_structural(&mut core, Clear::Sealed(sealed))
        });
        let spare =
            writer.spare.take().unwrap_or_else(|| BatchBuffer::new(self.limits.batch_bytes_max));
        let mut fill = std::mem::replace(&mut core.fill, Fill::new(spare));
        core.in_flight = Arc::new(std::mem::take(&mut fill.states));
        if let (Some(next), Some(sealed)) = (&successor, sealed) {
            let block_bytes = u64::from(core.limits.block_bytes);
            let used = (fill.buffer.len() as u64).next_multiple_of(block_bytes);
            (core.roll_wanted, core.roll_needed) = (false, false);
            core.tail_left = next.segment_bytes().saturating_sub(4096);
            core.tail_ordinal += 1;
            self.use_key(&next.sealer, core.tail_ordinal);
            self.push_structural(
                &mut core,
                Clear::Opened(Opened {
                    predecessor: writer.current.tail.segment.header.nonce,
                    predecessor_end: writer.current.tail.offset + fill.buffer.len() as u64,
                    predecessor_lsn: sealed,
                    host: self.host,
                    owner: self.owner,
                    incarnation: self.incarnation,
                    reason: OpenedReason::RolledOver,
                }),
            );
            core.fill.waits = true;
            tracing::debug!(target: "tokenwal", lsn = sealed.0, bytes = used, "rolled over");
        } else {
            core.tail_left = core.tail_left.saturating_sub(padded_len(&fill, &core));
        }
        Ok(Some(Taken { fill, successor, sealed }))
    }

    fn write_batch(&self, writer: &mut Writer, taken: Taken) -> Result<(), Error> {
        let Taken { mut fill, successor, sealed } = taken;
        let current = &writer.current;
        let offset = current.tail.offset;
        let nonce = current.tail.segment.header.nonce;
        let block_bytes = self.limits.block_bytes;
        let bytes = fill.buffer.finish(nonce, offset, offset, block_bytes, &current.mac);
        let written = bytes.len() as u64;
        if offset + written > current.segment_bytes() {
            // Admission keeps a batch within its segment. If it ever did not, the batch would be
            // behind the end that readers know: it must not be acknowledged.
            let file = current.tail.segment.name.clone();
            let source = std::io::ErrorKind::StorageFull.into();
            let error = self.poison(Error::Io { file, doing: "fitting a batch", source });
            if let Some(poison) = lock(&self.core).fate.clone() {
                fill.completion.complete(Err(poison));
            }
            return Err(error);
        }
        let outcome =
            current.file().write_at(offset, bytes).map_err(|error| ("writing a batch", error));
        let outcome = outcome.and_then(|()| match current.file().writes_are_durable() {
            true => Ok(()),
            false => current.file().sync().map_err(|error| ("syncing a batch", error)),
        });
        if let Err((doing, source)) = outcome {
            let file = current.tail.segment.name.clone();
            let error = self.poison(Error::Io { file, doing, source });
            if let Some(poison) = lock(&self.core).fate.clone() {
                fill.completion.complete(Err(poison));
            }
            return Err(error);
        }
        let marks = fill.marks.iter().map(|(lsn, at)| (*lsn, offset + *at as u64));
        current.read.note(marks);
        writer.current.tail.offset = offset + written;
        tracing::trace!(
            target: "tokenwal",
            records = fill.frames,
            bytes = written,
            offset,
            "batch durable"
        );
        let rolled = sealed.zip(successor.as_ref());
        self.advance_durable(&fill, rolled);
        self.count_batch(fill.frames, written, successor.is_some());
        if let Some(successor) = successor {
            write_lock(&self.files).segments.push(Arc::clone(&successor.read));
            writer.current = successor;
        }
        fill.completion.complete(Ok(()));
        fill.buffer.clear();
        writer.spare = Some(fill.buffer);
        self.space.notify_waiters();
        Ok(())
    }

    /// Moves what is durable now to where readers see it.
    fn advance_durable(&self, fill: &Fill, rolled: Option<(Lsn, &Prepared)>) {
        let (states, traces, mut durable) = {
            // Both locks at once: a compaction that puts its snapshot in place prunes what is in
            // flight, and must not come between. Then callers go on while this is at work.
            let core = lock(&self.core);
            let traces = core.arriving.through(fill.last_lsn);
            (Arc::clone(&core.in_flight), traces, write_lock(&self.durable))
        };
        for (account, state) in &*states {
            durable.put(*account, Arc::clone(state));
        }
        traces.into_iter().for_each(|trace| durable.callbacks.hear(trace));
        durable.claim(fill.claimed);
        durable.date(fill.newest_ms);
        self.set_head(fill.last_lsn);
        if let Some((sealed, successor)) = rolled {
            let header = &successor.tail.segment.header;
            self.freeze_if_asked(&mut durable, sealed, (header.nonce, header.number));
        }
        drop(durable);
        let mut core = lock(&self.core);
        let landed = std::mem::take(&mut core.in_flight);
        core.arriving.land(fill.last_lsn);
        let pairs = core.pairs.partition_point(|(pair, _)| *pair <= fill.last_lsn);
        core.pairs.drain(..pairs);
        core.charged = core.charged.saturating_sub(fill.charged);
        drop(core);
        // Nobody waits for the lock while these are let go of.
        drop((states, landed));
    }

    /// Stops all writing for good: everyone who waits hears of it.
    pub(crate) fn poison(&self, error: Error) -> Error {
        let Error::Io { file, doing, source } = error else { return error };
        let poison =
            Arc::new(Poison { file, doing, kind: source.kind(), errno: source.raw_os_error() });
        let mut core = lock(&self.core);
        // Two threads may fail at once: the first one's reason stays, and is told once.
        if let Some(poison) = core.fate.clone() {
            return Error::Poisoned(poison);
        }
        core.fate = Some(Arc::clone(&poison));
        core.fill.completion.complete(Err(Arc::clone(&poison)));
        drop(core);
        tracing::error!(target: "tokenwal", file = %poison.file, doing = poison.doing, "poisoned");
        self.space.notify_waiters();
        self.end_compactions();
        self.signal.raise();
        Error::Poisoned(poison)
    }
}

fn padded_len(fill: &Fill, core: &Core) -> u64 {
    (fill.buffer.len() as u64).next_multiple_of(u64::from(core.limits.block_bytes))
}
