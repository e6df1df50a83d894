//! Walking what a block of a snapshot holds, item by item, each checked as it is found [F-40].

use super::block::{AccountHeader, BlockFault, BlockKind, BlockProblem, IndexItem, OpenItem};
use super::layout::Fixed;
use super::record::{Record, RecordHeader};
use super::segment::WrappedKey;
use crate::ids::{AccountTag, Lsn};

/// One account of an accounts block.
#[derive(Debug, Clone, Copy)]
pub struct AccountEntry<'a> {
    /// What stands before its records.
    pub header: AccountHeader,
    bytes: &'a [u8],
    offset: u64,
}

impl<'a> AccountEntry<'a> {
    /// Walks the account's records, which rise and end at the snapshot's LSN at most.
    pub fn records(&self, snapshot_lsn: Lsn) -> Records<'a> {
        let steps = RecordOrder { before: Lsn::NONE, snapshot_lsn };
        let left = u64::from(self.header.records);
        Walk { rest: self.bytes, left, steps, offset: self.offset }
    }
}

/// The accounts of a block.
pub type Accounts<'a> = Walk<'a, AccountOrder>;

/// The records of an account.
pub type Records<'a> = Walk<'a, RecordOrder>;

/// The items of a block.
pub type Items<'a, T> = Walk<'a, ItemOrder<T>>;

/// Walks what a length and a count say stands there; ends after a fault, and is itself at fault
/// where bytes are left over [F-40].
#[derive(Debug, Clone)]
pub struct Walk<'a, S> {
    pub(super) rest: &'a [u8],
    pub(super) left: u64,
    pub(super) steps: S,
    pub(super) offset: u64,
}

/// How a [`Walk`] takes one step, and in what order things may stand.
pub trait Steps<'a> {
    /// What is found.
    type Found;

    /// Takes one thing off the front of `rest`.
    ///
    /// # Errors
    /// [`BlockProblem`] where it is malformed or out of order.
    fn step(&mut self, rest: &mut &'a [u8]) -> Result<Self::Found, BlockProblem>;
}

impl<'a, S: Steps<'a>> Iterator for Walk<'a, S> {
    type Item = Result<S::Found, BlockFault>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.steps.step(&mut self.rest)
            }
            None if self.rest.is_empty() => return None,
            None => Err(BlockProblem::Malformed("count")),
        };
        if result.is_err() {
            (self.left, self.rest) = (0, &[]);
        }
        Some(result.map_err(|problem| BlockFault { offset: self.offset, problem }))
    }
}

/// Accounts stand in the order of their tags.
#[derive(Debug, Clone)]
pub struct AccountOrder {
    pub(super) first: AccountTag,
    pub(super) before: Option<AccountTag>,
    pub(super) offset: u64,
}

impl<'a> Steps<'a> for AccountOrder {
    type Found = AccountEntry<'a>;

    fn step(&mut self, rest: &mut &'a [u8]) -> Result<Self::Found, BlockProblem> {
        let header = AccountHeader::read(rest)?;
        let in_order = match self.before {
            None => header.account == self.first,
            Some(before) => before < header.account,
        };
        if !in_order {
            return Err(BlockProblem::Malformed("account order"));
        }
        self.before = Some(header.account);
        let bytes = take_slice(rest, header.length, "account length")?;
        Ok(AccountEntry { header, bytes, offset: self.offset })
    }
}

/// Records of an account stand in the order of their LSNs.
#[derive(Debug, Clone)]
pub struct RecordOrder {
    before: Lsn,
    snapshot_lsn: Lsn,
}

impl<'a> Steps<'a> for RecordOrder {
    type Found = Record<'a>;

    fn step(&mut self, rest: &mut &'a [u8]) -> Result<Self::Found, BlockProblem> {
        let header = RecordHeader::peek(rest).ok_or(BlockProblem::Malformed("record length"))?;
        let record = Record::parse(take_slice(rest, header.length, "record length")?)?;
        if record.kind().is_structural() {
            return Err(BlockProblem::Malformed("record kind"));
        }
        if record.lsn() <= self.before || self.snapshot_lsn < record.lsn() {
            return Err(BlockProblem::Malformed("record order"));
        }
        self.before = record.lsn();
        Ok(record)
    }
}

/// An item of fixed width in an index, keys or open block.
pub trait BlockItem: Fixed + Copy {
    /// The kind of block that it stands in.
    const KIND: BlockKind;

    /// What the block's header names as its first tag.
    fn first(&self) -> AccountTag;

    /// Says whether it may stand behind `before`.
    fn follows(&self, before: &Self) -> bool;
}

impl BlockItem for IndexItem {
    const KIND: BlockKind = BlockKind::Index;

    fn first(&self) -> AccountTag {
        self.first
    }

    fn follows(&self, before: &Self) -> bool {
        before.first < self.first && before.offset < self.offset
    }
}

impl BlockItem for WrappedKey {
    const KIND: BlockKind = BlockKind::Keys;

    fn first(&self) -> AccountTag {
        AccountTag::NONE
    }

    fn follows(&self, before: &Self) -> bool {
        before.key_id < self.key_id
    }
}

impl BlockItem for OpenItem {
    const KIND: BlockKind = BlockKind::Open;

    fn first(&self) -> AccountTag {
        self.account
    }

    fn follows(&self, before: &Self) -> bool {
        before.account < self.account
    }
}

/// Items stand in the order of their tags, or of their keys' ids.
#[derive(Debug, Clone)]
pub struct ItemOrder<T> {
    pub(super) first: AccountTag,
    pub(super) before: Option<T>,
}

impl<T: BlockItem> Steps<'_> for ItemOrder<T> {
    type Found = T;

    fn step(&mut self, rest: &mut &[u8]) -> Result<T, BlockProblem> {
        let item = T::read(rest)?;
        let in_order = match &self.before {
            None => item.first() == self.first,
            Some(before) => item.follows(before),
        };
        if !in_order {
            return Err(BlockProblem::Malformed("item order"));
        }
        self.before = Some(item);
        Ok(item)
    }
}

fn take_slice<'a>(
    rest: &mut &'a [u8],
    length: u32,
    what: &'static str,
) -> Result<&'a [u8], BlockProblem> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (taken, behind) = rest.split_at_checked(length).ok_or(BlockProblem::Malformed(what))?;
    *rest = behind;
    Ok(taken)
}
