//! Gathers what can be read of a damaged snapshot, for salvage alone: block by block, past those
//! that are not valid, by whatever still says where the next one stands.

use super::states::States;
use super::{Snapshot, read};
use crate::disk::{Access, Disk, DiskFile};
use crate::error::Error;
use crate::format::HEADER_BYTES;
use crate::format::block::{BLOCK_HEADER_BYTES, Block, BlockKind, IndexItem};
use crate::format::name::snapshot_name;
use crate::format::segment::WrappedKey;
use crate::format::snapshot::{FOOTER_BYTES, Footer, SnapshotError, SnapshotHeader};
use crate::ids::{AccountTag, Lsn};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A snapshot of which only what is valid is shown.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) snapshot: Snapshot,
    pub(crate) holes: Vec<Hole>,
}

/// A stretch of a snapshot that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Between which tags its accounts lie, both excluded, if accounts stood there; none for no
    /// bound.
    pub(crate) accounts: Option<(Option<AccountTag>, Option<AccountTag>)>,
}

impl Gathered {
    /// Reads what can be read of a snapshot; none if that is nothing.
    ///
    /// # Errors
    /// A newer format, or what the system refuses; never damage.
    pub(crate) fn read(
        disk: &dyn Disk,
        lsn: Lsn,
        wrap: &dyn Fn(Arc<dyn DiskFile>) -> Arc<dyn DiskFile>,
    ) -> Result<Option<Self>, Error> {
        let name = snapshot_name(lsn);
        let io = || Error::io("reading a snapshot", name.clone());
        let file = wrap(disk.open(&name, Access::Read).map_err(io())?);
        let bytes = file.len().map_err(io())?;
        let front = read(&*file, 0, HEADER_BYTES).map_err(io())?;
        let header = match SnapshotHeader::parse(&front) {
            Ok(header) if header.lsn == lsn => Some(header),
            Err(SnapshotError::NewerFormat(version))
                if !SnapshotHeader::is_damaged_version(&front) =>
            {
                return Err(Error::NewerFormat { file: name, version });
            }
            _ => SnapshotHeader::guess(&front, lsn),
        };
        let Some(header) = header else { return Ok(None) };
        let mut gatherer = Gatherer::new(&*file, header, bytes).map_err(io())?;
        gatherer.run().map_err(io())?;
        if gatherer.blocks == 0 && bytes > (HEADER_BYTES + FOOTER_BYTES) as u64 {
            return Ok(None);
        }
        let Gatherer { index, keys, holes, end, accounts, records, .. } = gatherer;
        let footer = Footer { index: end, keys: end, open: end, accounts, records, end, lsn };
        let open = Vec::new();
        let states = States::new();
        let snapshot = Snapshot { name, file, header, footer, index, keys, open, bytes, states };
        Ok(Some(Self { snapshot, holes }))
    }
}

/// Walks the blocks of a snapshot.
struct Gatherer<'a> {
    file: &'a dyn DiskFile,
    header: SnapshotHeader,
    /// Where blocks stand, as far as footer and index say.
    known: BTreeSet<u64>,
    /// Where the accounts end, if the footer says.
    accounts_end: Option<u64>,
    /// Where the blocks end.
    end: u64,
    index: Vec<IndexItem>,
    keys: Vec<WrappedKey>,
    holes: Vec<Hole>,
    last_account: Option<AccountTag>,
    /// A block that stands behind all accounts was read.
    behind_accounts: bool,
    blocks: u64,
    accounts: u64,
    records: u64,
    /// Read of what is no block.
    wasted_bytes: u64,
}

impl<'a> Gatherer<'a> {
    fn new(file: &'a dyn DiskFile, header: SnapshotHeader, bytes: u64) -> std::io::Result<Self> {
        let footer_at = bytes.saturating_sub(FOOTER_BYTES as u64);
        let footer = Footer::parse(&read(file, footer_at, FOOTER_BYTES)?, &header, bytes).ok();
        let known = footer.iter().flat_map(|footer| [footer.index, footer.keys, footer.open]);
        let mut gatherer = Self {
            file,
            header,
            known: known.collect(),
            accounts_end: footer.map(|footer| footer.index),
            end: footer_at,
            index: Vec::new(),
            keys: Vec::new(),
            holes: Vec::new(),
            last_account: None,
            behind_accounts: false,
            blocks: 0,
            accounts: 0,
            records: 0,
            wasted_bytes: 0,
        };
        // The index is read first: it says where to go on behind a damaged block.
        let mut at = footer.map_or(gatherer.end, |footer| footer.index);
        while at < footer.map_or(0, |footer| footer.keys) {
            let Some(block) = gatherer.block(at)? else { break };
            if let Some((block, _)) = parse(&block, &gatherer.header, at) {
                let items = block.items::<IndexItem>().filter_map(Result::ok);
                gatherer.known.extend(items.map(|item| item.offset));
            }
            at += block.len() as u64;
        }
        Ok(gatherer)
    }

    /// Reads the bytes of the block at `at`, as long as it says that it is. Once as much as the file
    /// has was read for nothing, none is believed to reach beyond where the next is known to stand:
    /// an index that lies must not have the same bytes read for each of its items.
    fn block(&self, at: u64) -> std::io::Result<Option<Vec<u8>>> {
        let head = read(self.file, at, BLOCK_HEADER_BYTES)?;
        let next = self.next_known(at).filter(|_| self.wasted_bytes > self.end);
        let left = next.unwrap_or(self.end).saturating_sub(at);
        match Block::peek_bytes(&head).filter(|length| *length as u64 <= left) {
            Some(length) => read(self.file, at, length).map(Some),
            None => Ok(None),
        }
    }

    fn run(&mut self) -> std::io::Result<()> {
        let mut at = HEADER_BYTES as u64;
        while at < self.end {
            let bytes = self.block(at)?.unwrap_or_default();
            let claimed = at + bytes.len() as u64;
            if let Some((block, _)) = parse(&bytes, &self.header, at) {
                self.take(&block, at, bytes.len());
                at = claimed;
                continue;
            }
            self.wasted_bytes += bytes.len() as u64;
            let next = match self.next_known(at) {
                Some(next) => next,
                None if !bytes.is_empty() && self.is_block(claimed)? => claimed,
                None => self.end,
            };
            self.note_hole(at, next);
            at = next;
        }
        Ok(())
    }

    fn next_known(&self, at: u64) -> Option<u64> {
        self.known.range(at + 1..).next().copied().filter(|next| *next < self.end)
    }

    fn is_block(&self, at: u64) -> std::io::Result<bool> {
        let bytes = self.block(at)?.unwrap_or_default();
        Ok(parse(&bytes, &self.header, at).is_some())
    }

    fn note_hole(&mut self, from: u64, to: u64) {
        let no_accounts =
            self.behind_accounts || self.accounts_end.is_some_and(|accounts| from >= accounts);
        let accounts = (!no_accounts).then_some((self.last_account, None));
        self.holes.push(Hole { from, to, accounts });
    }

    fn take(&mut self, block: &Block<'_>, offset: u64, length: usize) {
        self.blocks += 1;
        match block.kind {
            BlockKind::Accounts => {
                for hole in &mut self.holes {
                    if let Some((_, before @ None)) = &mut hole.accounts {
                        *before = Some(block.first);
                    }
                }
                for entry in block.accounts().filter_map(Result::ok) {
                    self.last_account = Some(entry.header.account);
                    self.accounts += 1;
                    self.records += u64::from(entry.header.records);
                }
                let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
                let payload = length.saturating_sub(BLOCK_HEADER_BYTES) as u64;
                let (length, count) = (count(payload), count(block.count));
                self.index.push(IndexItem { first: block.first, offset, length, count });
            }
            BlockKind::Keys => {
                self.keys.extend(block.items::<WrappedKey>().filter_map(Result::ok));
                self.behind_accounts = true;
            }
            BlockKind::Index | BlockKind::Open => self.behind_accounts = true,
        }
    }
}

/// Parses a block that is valid with all that is in it.
fn parse<'b>(bytes: &'b [u8], header: &SnapshotHeader, at: u64) -> Option<(Block<'b>, &'b [u8])> {
    let parsed = Block::parse(bytes, header.nonce, at).ok()?;
    parsed.0.check(header.lsn).ok()?;
    Some(parsed)
}
