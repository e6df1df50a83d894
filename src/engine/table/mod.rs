//! The snapshot as a table: opened by its ends, looked up through its index, written as a stream.
//!
//! Implements journal-format.md, section 10. Opening reads footer, index, keys and open section,
//! whatever the number of accounts; a look-up is a search in memory and one read, and no read where
//! the account was looked up lately.

mod gather;
mod states;
mod write;

pub(crate) use gather::{Gathered, Hole};
pub(crate) use write::TableWriter;

use super::state::{AccountState, Step};
use crate::disk::{Access, Disk, DiskFile};
use crate::error::{Damage, Error};
use crate::format::HEADER_BYTES;
use crate::format::block::{
    AccountEntry, AccountHeader, BLOCK_HEADER_BYTES, Block, BlockFault, BlockItem, BlockKind,
    IndexItem, OpenItem, PAYLOAD_BYTES_MAX,
};
use crate::format::name::snapshot_name;
use crate::format::segment::WrappedKey;
use crate::format::snapshot::{FOOTER_BYTES, Footer, SnapshotError, SnapshotHeader};
use crate::ids::{AccountTag, Lsn};
use states::States;
use std::sync::Arc;

/// A snapshot that is open for reading.
#[derive(Debug)]
pub(crate) struct Snapshot {
    name: String,
    file: Arc<dyn DiskFile>,
    header: SnapshotHeader,
    footer: Footer,
    index: Vec<IndexItem>,
    keys: Vec<WrappedKey>,
    open: Vec<OpenItem>,
    bytes: u64,
    /// States that were folded for look-ups; what a snapshot says of an account never changes.
    states: States,
}

/// An account as it stands in a snapshot.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) header: AccountHeader,
    pub(crate) records: Vec<Arc<[u8]>>,
}

/// Where an accounts block stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockPlace {
    pub(crate) offset: u64,
    pub(crate) first: AccountTag,
    pub(crate) next: Option<AccountTag>,
}

impl Snapshot {
    /// Opens a snapshot and checks all of it but its accounts blocks.
    ///
    /// # Errors
    /// An I/O error, a newer format, or what is corrupt.
    pub(crate) fn open(disk: &dyn Disk, lsn: Lsn) -> Result<Self, Error> {
        Self::open_named(disk, snapshot_name(lsn), lsn)
    }

    /// Opens a snapshot under a name of its own, as before it has its final one.
    pub(crate) fn open_named(disk: &dyn Disk, name: String, lsn: Lsn) -> Result<Self, Error> {
        let io = |doing: &'static str| Error::io(doing, name.clone());
        let bad = |error| snapshot_error(&name, lsn, error);
        let file = disk.open(&name, Access::Read).map_err(io("opening a snapshot"))?;
        let bytes = file.len().map_err(io("reading a snapshot"))?;
        let front = read(&*file, 0, HEADER_BYTES).map_err(io("reading a snapshot"))?;
        let header = SnapshotHeader::parse(&front).map_err(bad)?;
        if header.lsn != lsn {
            return Err(corrupt(&name, 0, lsn, "the file carries the LSN of another snapshot"));
        }
        let footer_at = bytes.saturating_sub(FOOTER_BYTES as u64);
        let back = read(&*file, footer_at, FOOTER_BYTES).map_err(io("reading a snapshot"))?;
        let footer = Footer::parse(&back, &header, bytes).map_err(bad)?;
        let mut snapshot = Self {
            name,
            file,
            header,
            footer,
            index: Vec::new(),
            keys: Vec::new(),
            open: Vec::new(),
            bytes,
            states: States::new(),
        };
        snapshot.index = snapshot.section(footer.index, footer.keys)?;
        snapshot.check_index()?;
        snapshot.keys = snapshot.section(footer.keys, footer.open)?;
        snapshot.open = snapshot.section(footer.open, footer.end)?;
        Ok(snapshot)
    }

    /// Reads the items of consecutive blocks from one offset to another.
    fn section<T: BlockItem>(&self, from: u64, to: u64) -> Result<Vec<T>, Error> {
        let mut items = Vec::new();
        let mut offset = from;
        while offset < to {
            let bytes = self.block_before(offset, to)?;
            let (block, _) =
                Block::parse(&bytes, self.header.nonce, offset).map_err(|fault| self.bad(fault))?;
            if block.kind != T::KIND {
                return Err(self.corrupt(offset, "a block stands in the wrong section"));
            }
            for item in block.items::<T>() {
                let item = item.map_err(|fault| self.bad(fault))?;
                if items.last().is_some_and(|before| !T::follows(&item, before)) {
                    return Err(self.corrupt(offset, "blocks of a snapshot are out of order"));
                }
                items.push(item);
            }
            offset += bytes.len() as u64;
        }
        Ok(items)
    }

    /// Reads the block at `offset`, which ends at `to` at most. What a footer says of a section is
    /// not believed: the file may be long and sparse, and memory is not.
    fn block_before(&self, offset: u64, to: u64) -> Result<Vec<u8>, Error> {
        let left = usize::try_from(to.saturating_sub(offset)).unwrap_or(usize::MAX);
        let head = self.read(offset, BLOCK_HEADER_BYTES.min(left))?;
        match Block::peek_bytes(&head) {
            Some(length) => self.read(offset, length.min(left)),
            None => Ok(head),
        }
    }

    /// Checks that the index names every accounts block there is [F-40].
    fn check_index(&self) -> Result<(), Error> {
        let (mut offset, mut accounts) = (HEADER_BYTES as u64, 0_u64);
        for item in &self.index {
            if item.offset != offset || offset > self.footer.index {
                break;
            }
            offset += BLOCK_HEADER_BYTES as u64 + u64::from(item.length);
            accounts += u64::from(item.count);
        }
        match offset == self.footer.index && accounts == self.footer.accounts {
            true => Ok(()),
            false => Err(self.corrupt(offset, "the index is not that of the accounts")),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn lsn(&self) -> Lsn {
        self.header.lsn
    }

    pub(crate) fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    pub(crate) fn footer(&self) -> &Footer {
        &self.footer
    }

    pub(crate) fn keys(&self) -> &[WrappedKey] {
        &self.keys
    }

    /// Returns the accounts that opening must know at once.
    pub(crate) fn open_items(&self) -> &[OpenItem] {
        &self.open
    }

    /// Returns the file's length.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns how many accounts blocks there are.
    pub(crate) fn blocks(&self) -> usize {
        self.index.len()
    }

    /// Reads an account's state, if it is here.
    pub(crate) fn account(&self, account: AccountTag) -> Result<Option<AccountState>, Error> {
        if let Some(state) = self.states.get(account) {
            return Ok(Some(state));
        }
        let state = self.with_entry(account, |entry| self.fold(&entry))?.transpose()?;
        if let Some(state) = &state {
            self.states.keep(account, state);
        }
        Ok(state)
    }

    /// Folds an entry's records.
    pub(crate) fn fold(&self, entry: &AccountEntry<'_>) -> Result<AccountState, Error> {
        let mut state = AccountState::default();
        for record in entry.records(self.lsn()) {
            let record = record.map_err(|fault| self.bad(fault))?;
            let header = record.header;
            state.apply(Step { lsn: header.lsn, at_ms: header.at_ms, clear: &record.clear });
        }
        state.complete();
        state.version = entry.header.version;
        state.app = entry.header.app;
        Ok(state)
    }

    /// Reads one record of an account, if it is here.
    pub(crate) fn record(&self, account: AccountTag, lsn: Lsn) -> Result<Option<Arc<[u8]>>, Error> {
        let found = self.with_entry(account, |entry| {
            for record in entry.records(self.lsn()) {
                let record = record.map_err(|fault| self.bad(fault))?;
                if record.lsn() == lsn {
                    return Ok(Some(Arc::from(record.bytes)));
                }
            }
            Ok(None)
        })?;
        found.unwrap_or(Ok(None))
    }

    /// Reads an account's entry as it stands: its header and its records.
    pub(crate) fn entry(&self, account: AccountTag) -> Result<Option<Entry>, Error> {
        self.with_entry(account, |entry| self.records_of(&entry))?.transpose()
    }

    /// Takes an entry's records out of its block.
    pub(crate) fn records_of(&self, entry: &AccountEntry<'_>) -> Result<Entry, Error> {
        let records: Result<_, _> = entry
            .records(self.lsn())
            .map(|record| record.map(|record| Arc::from(record.bytes)))
            .collect();
        Ok(Entry { header: entry.header, records: records.map_err(|fault| self.bad(fault))? })
    }

    fn with_entry<T>(
        &self,
        account: AccountTag,
        use_entry: impl FnOnce(AccountEntry<'_>) -> T,
    ) -> Result<Option<T>, Error> {
        let at = self.index.partition_point(|item| item.first <= account);
        let Some(item) = at.checked_sub(1).and_then(|at| self.index.get(at)) else {
            return Ok(None);
        };
        let bytes = self.read_block(item)?;
        let block = self.parse_block(item, &bytes)?;
        for entry in block.accounts() {
            let entry = entry.map_err(|fault| self.bad(fault))?;
            if entry.header.account == account {
                return Ok(Some(use_entry(entry)));
            }
        }
        Ok(None)
    }

    /// Reads the accounts block of this number, counted from 0, whole; none behind the last.
    pub(crate) fn block_bytes(&self, number: usize) -> Result<Option<(IndexItem, Vec<u8>)>, Error> {
        match self.index.get(number) {
            Some(item) => Ok(Some((*item, self.read_block(item)?))),
            None => Ok(None),
        }
    }

    fn read_block(&self, item: &IndexItem) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(item.length).unwrap_or(usize::MAX);
        let end = item.offset.saturating_add(u64::from(item.length));
        if end > self.footer.index || item.length > PAYLOAD_BYTES_MAX {
            return Err(self.corrupt(item.offset, "the index points outside of the accounts"));
        }
        self.read(item.offset, length.saturating_add(BLOCK_HEADER_BYTES))
    }

    /// Parses an accounts block that the index names.
    pub(crate) fn parse_block<'a>(
        &self,
        item: &IndexItem,
        bytes: &'a [u8],
    ) -> Result<Block<'a>, Error> {
        let (block, behind) =
            Block::parse(bytes, self.header.nonce, item.offset).map_err(|fault| self.bad(fault))?;
        let as_named = block.kind == BlockKind::Accounts
            && block.first == item.first
            && block.count == u64::from(item.count);
        if !as_named || !behind.is_empty() {
            return Err(self.corrupt(item.offset, "a block is not the one that the index names"));
        }
        Ok(block)
    }

    /// Returns where an accounts block stands, and the tags between which its accounts lie, the
    /// second excluded, to name what is at stake.
    pub(crate) fn place_of_block(&self, number: usize) -> Option<BlockPlace> {
        let item = self.index.get(number)?;
        let next = self.index.get(number + 1).map(|next| next.first);
        Some(BlockPlace { offset: item.offset, first: item.first, next })
    }

    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, Error> {
        // The file bounds what a length in it can ask for.
        let left = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        read(&*self.file, offset, length.min(left))
            .map_err(Error::io("reading a snapshot", self.name.clone()))
    }

    pub(crate) fn bad(&self, fault: BlockFault) -> Error {
        self.corrupt(fault.offset, "a snapshot's block is damaged")
    }

    fn corrupt(&self, offset: u64, what: &'static str) -> Error {
        corrupt(&self.name, offset, Lsn::NONE, what)
    }
}

fn read(file: &dyn DiskFile, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = file.read_at(offset, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn corrupt(file: &str, offset: u64, lsn: Lsn, what: &'static str) -> Error {
    Error::Corrupt(Box::new(Damage {
        file: file.to_owned(),
        offset,
        lsn,
        what,
        accounts: Vec::new(),
    }))
}

fn snapshot_error(name: &str, lsn: Lsn, error: SnapshotError) -> Error {
    let what = match error {
        SnapshotError::NewerFormat(version) => {
            return Error::NewerFormat { file: name.to_owned(), version };
        }
        SnapshotError::NotASnapshot => "the file is not a snapshot",
        SnapshotError::BadChecksum(_) => "the snapshot's header or footer has a wrong checksum",
        SnapshotError::BadField(_) => "the snapshot's header or footer is malformed",
    };
    corrupt(name, 0, lsn, what)
}
