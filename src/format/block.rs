//! The blocks of a snapshot (journal-format.md, section 10): accounts, index, keys, open section.
//!
//! A block is checked as a whole by its CRC when it is parsed, and item by item as it is walked or
//! by [`Block::check`]; a bad one fails what is in it, and nothing else [F-41].

pub use super::walk::{
    AccountEntry, AccountOrder, Accounts, BlockItem, ItemOrder, Items, RecordOrder, Records, Steps,
    Walk,
};

use super::crc;
use super::layout::{BadField, Fixed, layout, values};
use super::record::RecordError;
use super::segment::WrappedKey;
use crate::ids::{AccountTag, AppTag, Lsn, Nonce};

/// The width of a block header.
pub const BLOCK_HEADER_BYTES: usize = RawBlockHeader::SIZE;

/// The longest payload in bytes.
pub const PAYLOAD_BYTES_MAX: u32 = 268_435_456;

const CRC_BYTES: usize = 4;

values! {
    /// What a block of a snapshot holds.
    pub enum BlockKind = "kind" {
        /// Accounts and their records.
        Accounts = 1, "accounts";
        /// Where the accounts blocks stand.
        Index = 2, "index";
        /// The data keys that records of this snapshot name.
        Keys = 3, "keys";
        /// The accounts that opening must know at once.
        Open = 4, "open";
    }
}

layout! {
    /// A block header as it stands on disk, nothing checked but its shape.
    pub struct RawBlockHeader = "block_header", 40 {
        /// Over the snapshot's nonce, the block's offset, the rest of the header and the payload.
        crc: u32;
        /// Of the payload in bytes.
        length: u32;
        /// What it holds.
        kind: BlockKind, reserved 7;
        /// Of items.
        count: u64;
        /// Tag of the first item; none for keys.
        first: AccountTag;
    }
}

layout! {
    /// What stands before an account's records.
    pub struct AccountHeader = "account_header", 48 {
        /// The account.
        account: AccountTag;
        /// LSN of the last record that changed it.
        version: Lsn;
        /// The app, or none.
        app: AppTag;
        /// Of the records that follow, in bytes.
        length: u32;
        /// How many records.
        records: u32;
    }
}

layout! {
    /// Where an accounts block stands.
    pub struct IndexItem = "index_item", 32 {
        /// The first tag in the block.
        first: AccountTag;
        /// Of the block.
        offset: u64;
        /// Of its payload, in bytes.
        length: u32;
        /// Of its accounts.
        count: u32;
    }
}

layout! {
    /// An account that opening must know of at once.
    pub struct OpenItem = "open_item", 24 {
        /// The account.
        account: AccountTag;
        /// Of its operations, open or in doubt.
        operations: u32;
        /// Of its live grants without a holder.
        orphans: u32;
    }
}

/// Says where and why a block is not valid [F-40].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the block at offset {offset} is invalid: {problem}")]
pub struct BlockFault {
    /// Where the block stands in its snapshot.
    pub offset: u64,
    /// Why it is not valid.
    pub problem: BlockProblem,
}

/// Says why a block is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockProblem {
    /// The bytes end before the block does.
    #[error("it is cut short")]
    Cut,
    /// It was damaged.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right and the block breaks the format.
    #[error("its {0} is malformed")]
    Malformed(&'static str),
    /// The checksum is right and a record in it breaks the format.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<BadField> for BlockProblem {
    fn from(bad: BadField) -> Self {
        Self::Malformed(bad.0)
    }
}

/// A block whose checksum is right.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// What it holds.
    pub kind: BlockKind,
    /// How many items.
    pub count: u64,
    /// Tag of the first item; none for keys.
    pub first: AccountTag,
    offset: u64,
    payload: &'a [u8],
}

impl<'a> Block<'a> {
    /// Returns how many bytes the block at the front of `bytes` has, header included; it is the
    /// block's own word, believed only up to the longest payload.
    pub fn peek_bytes(mut bytes: &[u8]) -> Option<usize> {
        let raw = RawBlockHeader::read(&mut bytes).ok()?;
        let length = (raw.length <= PAYLOAD_BYTES_MAX).then_some(raw.length)?;
        BLOCK_HEADER_BYTES.checked_add(usize::try_from(length).ok()?)
    }

    /// Parses the block at the front of `bytes`, which stands at `offset` of its snapshot, and
    /// returns it with the bytes behind it. Its items are checked when they are walked.
    ///
    /// # Errors
    /// [`BlockFault`] where it is cut short, its checksum is wrong, or its header is malformed.
    pub fn parse(
        bytes: &'a [u8],
        nonce: Nonce,
        offset: u64,
    ) -> Result<(Self, &'a [u8]), BlockFault> {
        Self::split(bytes, nonce, offset).map_err(|problem| BlockFault { offset, problem })
    }

    fn split(bytes: &'a [u8], nonce: Nonce, offset: u64) -> Result<(Self, &'a [u8]), BlockProblem> {
        let header = bytes.first_chunk::<BLOCK_HEADER_BYTES>().ok_or(BlockProblem::Cut)?;
        let length = length_field(header);
        if length > PAYLOAD_BYTES_MAX {
            // Beyond what a block can be: whatever it was, its checksum cannot be computed.
            return Err(BlockProblem::Checksum);
        }
        let length = usize::try_from(length).map_err(|_| BlockProblem::Cut)?;
        let (_, behind) = bytes.split_at(BLOCK_HEADER_BYTES);
        let (payload, rest) = behind.split_at_checked(length).ok_or(BlockProblem::Cut)?;
        let crc_field = header.first_chunk::<CRC_BYTES>().ok_or(BlockProblem::Cut)?;
        if u32::from_le_bytes(*crc_field) != block_crc(nonce, offset, header, payload) {
            return Err(BlockProblem::Checksum);
        }
        let raw = RawBlockHeader::decode(header)?;
        if raw.count == 0 {
            return Err(BlockProblem::Malformed("count"));
        }
        let block = Self { kind: raw.kind, count: raw.count, first: raw.first, offset, payload };
        Ok((block, rest))
    }

    /// Walks the accounts of an accounts block; other kinds have none.
    pub fn accounts(&self) -> Accounts<'a> {
        let order = AccountOrder { first: self.first, before: None, offset: self.offset };
        self.walk(BlockKind::Accounts, order)
    }

    /// Walks the items of an index, keys or open block; a block of another kind has none.
    pub fn items<T: BlockItem>(&self) -> Items<'a, T> {
        self.walk(T::KIND, ItemOrder { first: self.first, before: None })
    }

    fn walk<S>(&self, kind: BlockKind, steps: S) -> Walk<'a, S> {
        let (rest, left) =
            if self.kind == kind { (self.payload, self.count) } else { (&[][..], 0) };
        Walk { rest, left, steps, offset: self.offset }
    }

    /// Checks all items, and the records of accounts, by the rule of [F-40].
    ///
    /// # Errors
    /// [`BlockFault`] for the first that is not valid.
    pub fn check(&self, snapshot_lsn: Lsn) -> Result<(), BlockFault> {
        match self.kind {
            BlockKind::Accounts => self.accounts().try_for_each(|account| {
                account?.records(snapshot_lsn).try_for_each(|record| record.map(drop))
            }),
            BlockKind::Index => self.items::<IndexItem>().try_for_each(|item| item.map(drop)),
            BlockKind::Keys => self.items::<WrappedKey>().try_for_each(|item| item.map(drop)),
            BlockKind::Open => self.items::<OpenItem>().try_for_each(|item| item.map(drop)),
        }
    }
}

/// Reads the payload's length without asking for a shape.
fn length_field(header: &[u8; BLOCK_HEADER_BYTES]) -> u32 {
    const AT: usize = RawBlockHeader::TABLE.offset("length");
    let field = header.get(AT..).and_then(|rest| rest.first_chunk::<4>());
    u32::from_le_bytes(*field.expect("the header is wider than that"))
}

/// Computes a block's CRC, of a header whose own crc field is not looked at.
pub(super) fn block_crc(
    nonce: Nonce,
    offset: u64,
    header: &[u8; BLOCK_HEADER_BYTES],
    payload: &[u8],
) -> u32 {
    let (_, covered) = header.split_at(CRC_BYTES);
    crc(&[&nonce.to_bytes(), &offset.to_le_bytes(), covered, payload])
}
