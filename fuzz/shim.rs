//! What each fuzz target does with its bytes: decode them, and where they decode, encode them again
//! and compare. Shared, by path, with tests/fuzz_corpus.rs, which replays the corpora on stable.
//!
//! A checksum stops nearly every mutation at the door. So what has checksums is read twice: as it
//! came, and with the checksums made right. Every function says whether all of the input decoded,
//! so that a corpus which no longer reaches what it was made for is noticed.
#![allow(dead_code, reason = "each fuzz target uses one function")]

mod directory;
mod mend;

use tokenwal::internals::codec::{Doubt, Names, Pair, Plain, Refusal};
use tokenwal::internals::format::HEADER_BYTES;
use tokenwal::internals::format::batch::{BATCH_HEADER_BYTES, BatchBuffer, BatchHeader, Geometry};
use tokenwal::internals::format::block::{
    Block, BlockFault, BlockItem, BlockKind, IndexItem, Items, OpenItem,
};
use tokenwal::internals::format::build::{AccountsBlock, ItemsBlock};
use tokenwal::internals::format::frame::{Expect, Frames};
use tokenwal::internals::format::record::{Record, body_crc, encode_record, set_lsn};
use tokenwal::internals::format::segment::{SegmentHeader, WrappedKey};
use tokenwal::internals::format::snapshot::{Footer, SnapshotHeader};
use tokenwal::internals::seal::{DataKey, MacKey};
use tokenwal::ledger::Line;
use tokenwal::{Lsn, Nonce, SystemEntropy};

const NONCE: Nonce = Nonce::from_bytes(*b"fuzzing a segmen");
const PLACE: u64 = HEADER_BYTES as u64;
const SNAPSHOT_LSN: Lsn = Lsn(1 << 32);

/// A whole directory: a store, and what was done to its files. Says whether it opens.
pub fn directory(data: &[u8]) -> bool {
    directory::run(data)
}

/// A record: decoding and encoding give back the same bytes.
pub fn record(data: &[u8]) -> bool {
    let Ok(record) = Record::parse(data) else { return false };
    let header = record.header;
    let mut again = encode_record(&record.clear, header.at_ms, header.key, record.sealed_part);
    set_lsn(&mut again, record.lsn());
    assert_eq!(again, data);
    true
}

/// The plaintext of a sealed part: what decodes is no longer when it is encoded again.
pub fn plain(data: &[u8]) -> bool {
    let lengths = [
        Names::decode(data).map(|plain| plain.to_plain().len()),
        Pair::decode(data).map(|plain| plain.to_plain().len()),
        Refusal::decode(data).map(|plain| plain.to_plain().len()),
        Doubt::decode(data).map(|plain| plain.to_plain().len()),
    ];
    assert!(lengths.iter().flatten().all(|length| *length <= data.len()));
    lengths.iter().any(Result::is_ok)
}

/// A line to import: no text harms, and what is wrong with one is said without its values.
pub fn line(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    match Line::parse(text, 1_760_000_000_000) {
        Ok(import) => {
            assert!(!format!("{import:?}").contains("sesame"));
            true
        }
        Err(error) => {
            assert!(error.member().chars().count() <= 64 && !error.to_string().contains('\n'));
            false
        }
    }
}

/// A batch at the front of a segment.
pub fn batch(data: &[u8]) -> bool {
    let _ = SegmentHeader::parse(data);
    let mut mended = data.to_vec();
    mend::batch(&mut mended, NONCE, PLACE);
    read_batch(&mended);
    read_batch(data)
}

fn read_batch(data: &[u8]) -> bool {
    let geometry = Geometry {
        nonce: NONCE,
        block_bytes: 4096,
        batch_bytes_max: 1 << 20,
        segment_bytes: 1 << 25,
    };
    let Some(header) = BatchHeader::parse(data, &geometry, PLACE) else { return false };
    let mut whole = false;
    for expect in [Expect::FirstOfSegment, Expect::Lsn(header.first_lsn)] {
        let mut frames = Frames::new(data, &header, NONCE, PLACE, expect);
        let records: Vec<_> =
            frames.by_ref().map_while(Result::ok).map(|frame| frame.record).collect();
        let consumed = usize::try_from(frames.offset() - PLACE).expect("it lies in the data");
        whole |= u32::try_from(records.len()) == Ok(header.count) && consumed == data.len();
        if let Some(again) = encode_batch(&records) {
            assert_eq!(again.get(BATCH_HEADER_BYTES..), data.get(BATCH_HEADER_BYTES..consumed));
        }
    }
    whole
}

/// Builds a batch of these records, whose header alone may differ from the one that they came in.
fn encode_batch(records: &[Record<'_>]) -> Option<Vec<u8>> {
    let bytes: usize = records.iter().map(|record| BatchBuffer::charge(record.bytes.len())).sum();
    let mut batch = BatchBuffer::new(u32::try_from(BATCH_HEADER_BYTES + bytes).ok()?);
    for record in records {
        batch.push(record.lsn(), record.bytes, body_crc(record.bytes)).expect("there is room");
    }
    let length = batch.len();
    let key = DataKey::generate(&SystemEntropy).expect("the system has randomness");
    let finished = || batch.finish(NONCE, PLACE, PLACE, 512, &MacKey::new(&key)).to_vec();
    let mut finished = (!records.is_empty()).then(finished)?;
    finished.truncate(length);
    Some(finished)
}

/// A snapshot's blocks and footer, as they stand behind a header.
pub fn snapshot(data: &[u8]) -> bool {
    let _ = SnapshotHeader::parse(data);
    let mut mended = data.to_vec();
    mend::blocks(&mut mended, NONCE, PLACE);
    read_snapshot(&mended);
    read_snapshot(data)
}

fn read_snapshot(data: &[u8]) -> bool {
    let mut whole = true;
    let mut rest = data;
    let mut place = PLACE;
    while let Ok((block, behind)) = Block::parse(rest, NONCE, place) {
        let (bytes, _) = rest.split_at(rest.len() - behind.len());
        if block.check(SNAPSHOT_LSN).is_ok() {
            assert_eq!(encode_block(&block, place), bytes);
        } else {
            whole = false;
        }
        place += bytes.len() as u64;
        rest = behind;
    }
    let header = SnapshotHeader {
        store: tokenwal::StoreId::from_bytes([1; 16]),
        nonce: NONCE,
        lsn: SNAPSHOT_LSN,
        created_at_ms: 0,
        tail: NONCE,
        tail_number: 1,
        tag_key: WrappedKey::UNUSED,
        claimed: Lsn::NONE,
    };
    let Ok(footer) = Footer::parse(rest, &header, PLACE + data.len() as u64) else {
        return false;
    };
    assert_eq!(footer.encode(NONCE), rest);
    whole
}

fn encode_block(block: &Block<'_>, place: u64) -> Vec<u8> {
    match block.kind {
        BlockKind::Accounts => {
            let mut again = AccountsBlock::new();
            for account in block.accounts().map_while(Result::ok) {
                let records: Vec<_> =
                    account.records(SNAPSHOT_LSN).map_while(Result::ok).map(|r| r.bytes).collect();
                let header = account.header;
                again
                    .push(header.account, header.version, header.app, records.into_iter())
                    .expect("it came from a block");
            }
            again.finish(NONCE, place).0.to_vec()
        }
        BlockKind::Index => encode_items(block.items::<IndexItem>(), place),
        BlockKind::Keys => encode_items(block.items::<WrappedKey>(), place),
        BlockKind::Open => encode_items(block.items::<OpenItem>(), place),
    }
}

fn encode_items<'a, T: BlockItem>(items: Items<'a, T>, place: u64) -> Vec<u8>
where
    Items<'a, T>: Iterator<Item = Result<T, BlockFault>>,
{
    let mut again = ItemsBlock::new();
    items.map_while(Result::ok).for_each(|item| again.push(&item));
    again.finish(NONCE, place).to_vec()
}
