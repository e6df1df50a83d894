//! The format on disk (journal-format.md), sans-IO: bytes to values and back, nothing else.
//!
//! Every fixed layout is one `layout!` declaration; file names are built and parsed in `name`;
//! there is one decoder of frames, in `frame`. Nothing here reads a file, a clock or a key, and no
//! input makes it panic or allocate more than the input's own length.

pub mod batch;
pub mod block;
pub mod build;
pub mod clear;
pub mod frame;
pub mod layout;
pub mod name;
pub mod record;
#[cfg(test)]
pub(crate) mod samples;
pub mod segment;
mod shape;
pub mod snapshot;
pub mod value;
mod walk;

/// The format version that this code writes, and the highest that it reads [F-46].
pub const VERSION: u32 = 1;

/// Where the first batch of a segment and the first block of a snapshot stand.
pub const HEADER_BYTES: usize = 4096;

/// Computes the CRC over parts that stand one behind the other [F-5].
pub fn crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// Returns every fixed layout, for the test that compares them with journal-format.md.
pub fn tables() -> Vec<layout::Table> {
    let mut tables = vec![
        segment::RawSegmentHeader::TABLE,
        segment::WrappedKey::TABLE,
        batch::RawBatchHeader::TABLE,
        frame::FrameHeader::TABLE,
        record::RecordHeader::TABLE,
        clear::Prefix::TABLE,
        snapshot::RawSnapshotHeader::TABLE,
        block::RawBlockHeader::TABLE,
        block::AccountHeader::TABLE,
        block::IndexItem::TABLE,
        block::OpenItem::TABLE,
        snapshot::RawFooter::TABLE,
    ];
    for kind in record::Kind::ALL {
        let table = clear::Clear::table_of(*kind);
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    tables
}
