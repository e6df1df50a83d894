//! Looks behind a segment's end: the evidence that the verdict depends on (journal-format.md,
//! section 12).

use super::scan::{FIRST_BATCH_AT, length_of};
use super::window::{Window, last_nonzero};
use crate::disk::DiskFile;
use crate::format::batch::BatchHeader;
use crate::format::frame::{Expect, Frame, Frames};
use crate::format::segment::SegmentHeader;
use crate::ids::AccountTag;
use std::io;

/// What stands at X and behind it.
#[derive(Debug, Default)]
pub(crate) struct Beyond {
    /// A later batch says that bytes at X were durable.
    pub(crate) durable_beyond: bool,
    /// Behind the last byte that is not zero; X if there is none.
    pub(crate) last_nonzero: u64,
    /// Accounts that records beyond the end name, at most 64.
    pub(crate) accounts: Vec<AccountTag>,
}

const ACCOUNTS_MAX: usize = 64;

/// Looks from `x`, where the next batch or frame should stand, at every block that may begin a
/// batch, to the segment's end.
pub(crate) fn look_beyond(
    file: &dyn DiskFile,
    header: &SegmentHeader,
    x: u64,
) -> io::Result<Beyond> {
    let mut beyond = Beyond { last_nonzero: x, ..Beyond::default() };
    let geometry = header.geometry();
    let block_bytes = usize::try_from(header.block_bytes).unwrap_or(usize::MAX);
    let mut window = Window::new(file)?;
    let end = header.segment_bytes.min(window.end());
    let mut offset = x - x.checked_rem(u64::from(header.block_bytes)).unwrap_or_default();
    // Headers within a batch that was looked at are not looked into again, lest hostile ones make
    // the same bytes be read over and over.
    let mut looked_through = 0;
    while offset < end {
        let block = window.at(offset, block_bytes)?;
        let skip = usize::try_from(x.saturating_sub(offset)).unwrap_or(usize::MAX);
        let rest = block.get(skip..).unwrap_or_default();
        if let Some(last) = last_nonzero(rest) {
            beyond.last_nonzero = offset.max(x) + last as u64 + 1;
            let batch = BatchHeader::parse(block, &geometry, offset).filter(|_| offset >= x);
            if let Some(batch) = batch {
                beyond.durable_beyond |= batch.durable_through > x;
                if offset < looked_through {
                    offset += u64::from(header.block_bytes);
                    continue;
                }
                looked_through = offset + u64::from(batch.length);
                let bytes = window.at(offset, length_of(&batch))?;
                let expect = match offset {
                    FIRST_BATCH_AT => Expect::FirstOfSegment,
                    _ => Expect::Lsn(batch.first_lsn),
                };
                let frames = Frames::new(bytes, &batch, header.nonce, offset, expect);
                frames.map_while(Result::ok).for_each(|frame| beyond.note(&frame));
            }
        }
        offset += u64::from(header.block_bytes);
    }
    Ok(beyond)
}

impl Beyond {
    fn note(&mut self, frame: &Frame<'_>) {
        let Some(prefix) = frame.record.clear.prefix() else { return };
        if self.accounts.len() < ACCOUNTS_MAX && !self.accounts.contains(&prefix.account) {
            self.accounts.push(prefix.account);
        }
    }
}
