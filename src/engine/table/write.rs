//! Writes a snapshot as a stream of accounts in the order of their tags, into a temporary file.
//!
//! It names nothing and proves nothing: compaction does that, step by step.

use crate::disk::DiskFile;
use crate::engine::state::AccountState;
use crate::format::HEADER_BYTES;
use crate::format::block::{AccountEntry, BlockItem, IndexItem, OpenItem};
use crate::format::build::{AccountsBlock, ItemsBlock};
use crate::format::record::RecordHeader;
use crate::format::segment::WrappedKey;
use crate::format::snapshot::{Footer, SnapshotHeader};
use crate::ids::{AccountTag, AppTag, Lsn};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// How much is collected before it is written.
const WRITE_BYTES: usize = 256 * 1024;

/// A snapshot in the writing.
#[derive(Debug)]
pub(crate) struct TableWriter {
    file: Arc<dyn DiskFile>,
    header: SnapshotHeader,
    /// What was finished and not written yet; the first of it goes to `written`.
    ready: Vec<u8>,
    written: u64,
    block: AccountsBlock,
    index: Vec<IndexItem>,
    open: Vec<OpenItem>,
    /// The data keys that records name.
    keys: BTreeSet<u64>,
    accounts: u64,
    records: u64,
}

impl TableWriter {
    pub(crate) fn new(file: Arc<dyn DiskFile>, header: SnapshotHeader) -> Self {
        Self {
            file,
            ready: header.encode(),
            header,
            written: 0,
            block: AccountsBlock::new(),
            index: Vec::new(),
            open: Vec::new(),
            keys: BTreeSet::new(),
            accounts: 0,
            records: 0,
        }
    }

    /// Appends an account with the records that its state names.
    pub(crate) fn push(
        &mut self,
        account: AccountTag,
        state: &AccountState,
        records: &[Arc<[u8]>],
    ) -> io::Result<()> {
        self.note_open(account, state);
        let records = records.iter().map(|record| &**record);
        self.append(account, state.version, state.app, records)
    }

    /// Appends an account as it stands in another snapshot.
    pub(crate) fn copy(
        &mut self,
        entry: &AccountEntry<'_>,
        state: &AccountState,
        records: &[&[u8]],
    ) -> io::Result<()> {
        let header = entry.header;
        self.note_open(header.account, state);
        self.append(header.account, header.version, header.app, records.iter().copied())
    }

    fn note_open(&mut self, account: AccountTag, state: &AccountState) {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (operations, orphans) = (count(state.operations.len()), count(state.orphans()));
        if operations > 0 || orphans > 0 {
            self.open.push(OpenItem { account, operations, orphans });
        }
    }

    fn append<'r>(
        &mut self,
        account: AccountTag,
        version: Lsn,
        app: AppTag,
        records: impl Iterator<Item = &'r [u8]> + Clone,
    ) -> io::Result<()> {
        for record in records.clone() {
            self.records += 1;
            self.keys.extend(RecordHeader::peek(record).map(|header| header.key));
        }
        self.accounts += 1;
        self.block
            .push(account, version, app, records)
            .map_err(|_| io::Error::other("an account is too large for a snapshot"))?;
        if self.block.is_full() { self.finish_block() } else { Ok(()) }
    }

    fn finish_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let offset = self.offset();
        let (bytes, item) = self.block.finish(self.header.nonce, offset);
        self.ready.extend_from_slice(bytes);
        self.index.push(item);
        self.block.clear();
        if self.ready.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    /// Returns the data keys that records name so far.
    pub(crate) fn key_ids(&self) -> impl Iterator<Item = u64> {
        self.keys.iter().copied()
    }

    /// Writes what follows the accounts; `keys` are those of [`TableWriter::key_ids`], in order.
    pub(crate) fn finish(&mut self, keys: &[WrappedKey]) -> io::Result<Footer> {
        self.finish_block()?;
        let index_at = self.offset();
        let index = std::mem::take(&mut self.index);
        self.items(&index);
        let keys_at = self.offset();
        self.items(keys);
        let open_at = self.offset();
        let open = std::mem::take(&mut self.open);
        self.items(&open);
        let footer = Footer {
            index: index_at,
            keys: keys_at,
            open: open_at,
            accounts: self.accounts,
            records: self.records,
            end: self.offset(),
            lsn: self.header.lsn,
        };
        self.ready.extend_from_slice(&footer.encode(self.header.nonce));
        self.flush()?;
        Ok(footer)
    }

    fn items<T: BlockItem>(&mut self, items: &[T]) {
        let mut block = ItemsBlock::new();
        for (at, item) in items.iter().enumerate() {
            block.push(item);
            if block.is_full() || at + 1 == items.len() {
                let offset = self.offset();
                self.ready.extend_from_slice(block.finish(self.header.nonce, offset));
                block.clear();
            }
        }
    }

    fn offset(&self) -> u64 {
        self.written + self.ready.len() as u64
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(self.written, &self.ready)?;
        self.written += self.ready.len() as u64;
        self.ready.clear();
        Ok(())
    }

    pub(crate) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }
}

const _: () = assert!(WRITE_BYTES > HEADER_BYTES);
