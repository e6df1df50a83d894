//! Building the blocks of a snapshot (journal-format.md, section 10), one behind the other, each
//! in memory that is used again for the next.

use super::block::{
    AccountHeader, BLOCK_HEADER_BYTES, BlockItem, BlockKind, IndexItem, PAYLOAD_BYTES_MAX,
    RawBlockHeader, block_crc,
};
use super::layout::Fixed;
use crate::ids::{AccountTag, AppTag, Lsn, Nonce};
use std::marker::PhantomData;

/// A block is full once its payload has this many bytes; one account may make it longer.
pub const ACCOUNTS_PAYLOAD_BYTES: usize = 16 * 1024;

/// A block of items is full once its payload has this many bytes.
pub const ITEMS_PAYLOAD_BYTES: usize = 64 * 1024;

/// Says that a block cannot take an account: its records have more bytes than a payload may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the account's records do not fit into a block")]
pub struct BlockFull;

/// Collects accounts into one block.
#[derive(Debug)]
pub struct AccountsBlock {
    bytes: Vec<u8>,
    count: u32,
    first: AccountTag,
}

impl AccountsBlock {
    /// Starts an empty block.
    pub fn new() -> Self {
        Self { bytes: vec![0; BLOCK_HEADER_BYTES], count: 0, first: AccountTag::NONE }
    }

    /// Appends an account with its records in the order of their LSNs; accounts come in the order
    /// of their tags.
    ///
    /// # Errors
    /// [`BlockFull`], and nothing is appended.
    pub fn push<'r>(
        &mut self,
        account: AccountTag,
        version: Lsn,
        app: AppTag,
        records: impl Iterator<Item = &'r [u8]>,
    ) -> Result<(), BlockFull> {
        let start = self.bytes.len();
        self.append(account, version, app, records).inspect_err(|_| self.bytes.truncate(start))?;
        if self.count == 0 {
            self.first = account;
        }
        self.count += 1;
        Ok(())
    }

    fn append<'r>(
        &mut self,
        account: AccountTag,
        version: Lsn,
        app: AppTag,
        records: impl Iterator<Item = &'r [u8]>,
    ) -> Result<(), BlockFull> {
        let header_at = self.bytes.len();
        self.bytes.resize(header_at + AccountHeader::SIZE, 0);
        let records_at = self.bytes.len();
        let mut count: u32 = 0;
        for record in records {
            self.bytes.extend_from_slice(record);
            count = count.checked_add(1).ok_or(BlockFull)?;
            self.payload_bytes().filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX).ok_or(BlockFull)?;
        }
        let length = u32::try_from(self.bytes.len() - records_at).map_err(|_| BlockFull)?;
        let header = AccountHeader { account, version, app, length, records: count };
        self.payload_bytes().filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX).ok_or(BlockFull)?;
        let mut out = self.bytes.get_mut(header_at..).unwrap_or_default();
        header.write(&mut out);
        Ok(())
    }

    /// Says whether the block has reached the length at which it is written out.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= BLOCK_HEADER_BYTES + ACCOUNTS_PAYLOAD_BYTES
    }

    /// Says whether no account was appended yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Completes the block for its place and returns its bytes, and its item for the index. A block
    /// is never empty; [`AccountsBlock::clear`] starts the next one.
    pub fn finish(&mut self, nonce: Nonce, offset: u64) -> (&[u8], IndexItem) {
        let length = self.payload_bytes().expect("push keeps the payload within its limit");
        let item = IndexItem { first: self.first, offset, length, count: self.count };
        let count = u64::from(self.count);
        complete(&mut self.bytes, BlockKind::Accounts, count, self.first, nonce, offset);
        (&self.bytes, item)
    }

    /// Forgets all accounts; the memory stays.
    pub fn clear(&mut self) {
        self.bytes.truncate(BLOCK_HEADER_BYTES);
        self.count = 0;
        self.first = AccountTag::NONE;
    }

    fn payload_bytes(&self) -> Option<u32> {
        u32::try_from(self.bytes.len().checked_sub(BLOCK_HEADER_BYTES)?).ok()
    }
}

impl Default for AccountsBlock {
    fn default() -> Self {
        Self::new()
    }
}

/// Collects index items, wrapped keys or tags into one block; items come in their order.
#[derive(Debug)]
pub struct ItemsBlock<T> {
    bytes: Vec<u8>,
    count: u64,
    first: AccountTag,
    items: PhantomData<T>,
}

impl<T: BlockItem> ItemsBlock<T> {
    /// Starts an empty block.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; BLOCK_HEADER_BYTES],
            count: 0,
            first: AccountTag::NONE,
            items: PhantomData,
        }
    }

    /// Appends an item.
    pub fn push(&mut self, item: &T) {
        if self.count == 0 {
            self.first = item.first();
        }
        let start = self.bytes.len();
        self.bytes.resize(start + T::WIDTH, 0);
        let mut out = self.bytes.get_mut(start..).unwrap_or_default();
        item.write(&mut out);
        self.count += 1;
    }

    /// Says whether the block has reached the length at which it is written out.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= BLOCK_HEADER_BYTES + ITEMS_PAYLOAD_BYTES
    }

    /// Says whether no item was appended yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Completes the block for its place and returns its bytes. A block is never empty;
    /// [`ItemsBlock::clear`] starts the next one.
    pub fn finish(&mut self, nonce: Nonce, offset: u64) -> &[u8] {
        complete(&mut self.bytes, T::KIND, self.count, self.first, nonce, offset);
        &self.bytes
    }

    /// Forgets all items; the memory stays.
    pub fn clear(&mut self) {
        self.bytes.truncate(BLOCK_HEADER_BYTES);
        self.count = 0;
        self.first = AccountTag::NONE;
    }
}

impl<T: BlockItem> Default for ItemsBlock<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes the header in front of a payload.
fn complete(
    bytes: &mut [u8],
    kind: BlockKind,
    count: u64,
    first: AccountTag,
    nonce: Nonce,
    offset: u64,
) {
    assert!(count > 0, "a block has an item");
    let (header, payload) = bytes
        .split_first_chunk_mut::<BLOCK_HEADER_BYTES>()
        .expect("a builder keeps room for the header");
    let length = u32::try_from(payload.len()).expect("a payload is within its limit");
    let mut raw = RawBlockHeader { crc: 0, length, kind, count, first };
    raw.crc = block_crc(nonce, offset, &raw.encode(), payload);
    *header = raw.encode();
}

#[cfg(test)]
mod tests {
    use super::super::block::{Block, BlockFault, BlockProblem, OpenItem};
    use super::super::clear::CLEAR_BYTES_MAX;
    use super::super::record::{Kind, Record, encode_record, set_lsn};
    use super::super::samples::{any_record, clear_of};
    use super::super::segment::WrappedKey;
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const NONCE: Nonce = Nonce::from_bytes([6; 16]);
    const OFFSET: u64 = 4096;
    const LAST: Lsn = Lsn(1000);

    fn record(kind: Kind, lsn: u64) -> Vec<u8> {
        let key = u64::from(!kind.is_structural());
        let sealed = if kind.is_structural() { &[][..] } else { &[0; 28] };
        let mut bytes = encode_record(&clear_of(kind, [1; CLEAR_BYTES_MAX]), 0, key, sealed);
        set_lsn(&mut bytes, Lsn(lsn));
        bytes
    }

    fn tag(byte: u8) -> AccountTag {
        AccountTag::from_bytes([byte; 16])
    }

    fn accounts_block(accounts: &[(u8, Vec<Vec<u8>>)]) -> Vec<u8> {
        let mut block = AccountsBlock::new();
        for (byte, records) in accounts {
            let records = records.iter().map(Vec::as_slice);
            block.push(tag(*byte), LAST, AppTag::NONE, records).unwrap();
        }
        block.finish(NONCE, OFFSET).0.to_vec()
    }

    fn problem(bytes: &[u8]) -> Option<BlockProblem> {
        let checked = Block::parse(bytes, NONCE, OFFSET).and_then(|(block, rest)| {
            assert!(rest.is_empty());
            block.check(LAST)
        });
        checked.err().map(|fault| {
            assert_eq!(fault.offset, OFFSET);
            fault.problem
        })
    }

    /// Changes a block and makes its checksum right again.
    fn resummed(mut bytes: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        change(&mut bytes);
        let (header, payload) = bytes.split_first_chunk_mut().unwrap();
        let sum = block_crc(NONCE, OFFSET, header, payload);
        header[..4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn each_rule_of_a_valid_accounts_block_is_checked() {
        let worked = |lsn| record(Kind::Worked, lsn);
        let good = accounts_block(&[(1, vec![worked(5), worked(9)]), (2, vec![])]);
        assert_eq!(problem(&good), None);
        let malformed = |what| Some(BlockProblem::Malformed(what));
        let order = |lsns: &[u64]| {
            problem(&accounts_block(&[(1, lsns.iter().map(|lsn| worked(*lsn)).collect())]))
        };
        assert_eq!(order(&[5, 5]), malformed("record order"));
        assert_eq!(order(&[0]), malformed("record order"));
        assert_eq!(order(&[1000]), None);
        assert_eq!(order(&[1001]), malformed("record order"));
        let structural = accounts_block(&[(1, vec![record(Kind::Marker, 3)])]);
        assert_eq!(problem(&structural), malformed("record kind"));
        let accounts = accounts_block(&[(2, vec![]), (1, vec![])]);
        assert_eq!(problem(&accounts), malformed("account order"));
        let accounts = accounts_block(&[(1, vec![]), (1, vec![])]);
        assert_eq!(problem(&accounts), malformed("account order"));

        let change =
            |at: usize, value: u8| problem(&resummed(good.clone(), |bytes| bytes[at] = value));
        // Of the block: kind, reserved, count, first tag.
        assert_eq!(change(8, 5), malformed("kind"));
        assert_eq!(change(9, 1), malformed("reserved"));
        assert_eq!(change(16, 0), malformed("count"));
        assert_eq!(change(16, 1), malformed("count"));
        assert_eq!(change(16, 3), malformed("length"));
        assert_eq!(change(24, 0), malformed("account order"));
        // Of the account: length, records. Of the record: kind.
        assert_eq!(change(40 + 42, 1), malformed("account length"));
        assert_eq!(change(40 + 44, 1), malformed("count"));
        assert_eq!(change(40 + 44, 3), malformed("record length"));
        let unknown =
            Some(BlockProblem::Record(super::super::record::RecordError::UnknownKind(30)));
        assert_eq!(change(40 + 48 + 4, 30), unknown);
    }

    #[test]
    fn a_block_that_is_cut_or_damaged_or_moved_is_invalid() {
        let good = accounts_block(&[(1, vec![record(Kind::Worked, 5)])]);
        assert_eq!(Block::peek_bytes(&good), Some(good.len()));
        for cut in 0..good.len() {
            assert_eq!(problem(&good[..cut]), Some(BlockProblem::Cut), "{cut}");
        }
        for at in (0..4).chain(8..good.len()) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x80;
            assert_eq!(problem(&bytes), Some(BlockProblem::Checksum), "{at}");
        }
        let fault = |offset| Err(BlockFault { offset, problem: BlockProblem::Checksum });
        assert_eq!(Block::parse(&good, NONCE, 8192).map(drop), fault(8192));
        let other = Nonce::from_bytes([7; 16]);
        assert_eq!(Block::parse(&good, other, OFFSET).map(drop), fault(OFFSET));
    }

    #[test]
    fn items_come_in_order_and_in_their_own_blocks() {
        fn block_of<T: BlockItem>(items: &[T]) -> Vec<u8> {
            let mut block = ItemsBlock::new();
            items.iter().for_each(|item| block.push(item));
            block.finish(NONCE, OFFSET).to_vec()
        }
        let index = |byte, offset| IndexItem { first: tag(byte), offset, length: 9, count: 1 };
        let key = |key_id| WrappedKey { key_id, ..WrappedKey::UNUSED };
        let bad = Some(BlockProblem::Malformed("item order"));
        assert_eq!(problem(&block_of(&[index(1, 4096), index(2, 5000)])), None);
        assert_eq!(problem(&block_of(&[index(2, 4096), index(1, 5000)])), bad);
        assert_eq!(problem(&block_of(&[index(1, 5000), index(2, 5000)])), bad);
        assert_eq!(problem(&block_of(&[key(1), key(2)])), None);
        assert_eq!(problem(&block_of(&[key(2), key(2)])), bad);
        let open = |byte| OpenItem { account: tag(byte), operations: 1, orphans: 0 };
        assert_eq!(problem(&block_of(&[open(1), open(2)])), None);
        assert_eq!(problem(&block_of(&[open(2), open(1)])), bad);

        let bytes = block_of(&[open(1), open(2)]);
        let (block, _) = Block::parse(&bytes, NONCE, OFFSET).unwrap();
        assert_eq!(block.kind, BlockKind::Open);
        assert_eq!(block.items::<WrappedKey>().count() + block.accounts().count(), 0);
        let items: Result<Vec<OpenItem>, _> = block.items().collect();
        assert_eq!(items, Ok(vec![open(1), open(2)]));
    }

    #[test]
    fn a_builder_starts_again_after_clear() {
        let mut block = AccountsBlock::new();
        block.push(tag(9), LAST, AppTag::NONE, std::iter::empty()).unwrap();
        block.finish(NONCE, 1);
        block.clear();
        assert!(block.is_empty());
        block.push(tag(1), LAST, AppTag::NONE, std::iter::empty()).unwrap();
        let (bytes, item) = block.finish(NONCE, OFFSET);
        assert_eq!(bytes, accounts_block(&[(1, vec![])]));
        assert_eq!(item, IndexItem { first: tag(1), offset: OFFSET, length: 48, count: 1 });
    }

    type Accounts = BTreeMap<[u8; 16], Vec<Vec<u8>>>;

    fn any_accounts() -> impl Strategy<Value = Accounts> {
        let record = any_record().prop_filter("of an account", |bytes| {
            !Record::parse(bytes).unwrap().kind().is_structural()
        });
        let records = proptest::collection::vec(record, 0..5);
        proptest::collection::btree_map(any::<[u8; 16]>(), records, 1..8)
    }

    proptest! {
        #[test]
        fn accounts_round_trip(mut accounts in any_accounts(), app: [u8; 16]) {
            let mut block = AccountsBlock::new();
            for (account, records) in &mut accounts {
                (1..).zip(&mut *records).for_each(|(lsn, bytes)| set_lsn(bytes, Lsn(lsn)));
                let records = records.iter().map(Vec::as_slice);
                let tag = AccountTag::from_bytes(*account);
                block.push(tag, Lsn(9), AppTag::from_bytes(app), records).unwrap();
            }
            let full = block.is_full();
            let (bytes, item) = block.finish(NONCE, OFFSET);
            prop_assert_eq!(full, bytes.len() >= 40 + ACCOUNTS_PAYLOAD_BYTES);
            let (parsed, rest) = Block::parse(bytes, NONCE, OFFSET).unwrap();
            prop_assert!(rest.is_empty());
            prop_assert_eq!(parsed.check(LAST), Ok(()));
            prop_assert_eq!(parsed.first, item.first);
            prop_assert_eq!(item.length as usize, bytes.len() - 40);
            let found: Accounts = parsed
                .accounts()
                .map(|entry| {
                    let entry = entry.unwrap();
                    let records = entry.records(LAST).map(|record| record.unwrap().bytes.to_vec());
                    (entry.header.account.to_bytes(), records.collect())
                })
                .collect();
            prop_assert_eq!(found, accounts);
        }

        #[test]
        fn items_round_trip(tags: BTreeSet<[u8; 16]>, operations: u32, orphans: u32) {
            prop_assume!(!tags.is_empty());
            let item = |tag: &[u8; 16]| {
                OpenItem { account: AccountTag::from_bytes(*tag), operations, orphans }
            };
            let mut block = ItemsBlock::new();
            tags.iter().for_each(|tag| block.push(&item(tag)));
            let bytes = block.finish(NONCE, OFFSET);
            let (parsed, _) = Block::parse(bytes, NONCE, OFFSET).unwrap();
            let found: Vec<OpenItem> = parsed.items().map(Result::unwrap).collect();
            prop_assert_eq!(found, tags.iter().map(item).collect::<Vec<_>>());
        }

        #[test]
        fn hostile_blocks_are_harmless(
            kind in 1_u8..5,
            count in 1_u64..9,
            first: [u8; 16],
            payload in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let raw = RawBlockHeader {
                crc: 0,
                length: u32::try_from(payload.len()).unwrap(),
                kind: *BlockKind::ALL.iter().find(|k| k.number() == kind).unwrap(),
                count,
                first: AccountTag::from_bytes(first),
            };
            let bytes = [raw.encode().as_slice(), &payload].concat();
            let _ = (problem(&resummed(bytes, |_| ())), Block::peek_bytes(&payload));
            let _ = Block::parse(&payload, NONCE, OFFSET).is_ok();
        }
    }
}
