//! Makes checksums right again after bytes were changed, so that decoding goes on behind them.
//! Whatever does not have the shape of what would be mended is left as it is.

use tokenwal::Nonce;
use tokenwal::internals::format::batch::BATCH_HEADER_BYTES;
use tokenwal::internals::format::{HEADER_BYTES, crc, frame};

const BLOCK_HEADER_BYTES: usize = 40;
const FOOTER_BYTES: usize = 64;

/// Batches stand at multiples of the block size only, of which this is the smallest.
const BLOCK_BYTES_MIN: usize = 512;

/// The header of a file, and all that stands behind it, but for batches that are as they were: one
/// that was torn stays torn.
pub fn file(data: &mut [u8], before: &[u8]) {
    let same_header = data.get(..HEADER_BYTES) == before.get(..HEADER_BYTES);
    let before = if same_header { before.get(HEADER_BYTES..) } else { None };
    let Some((header, rest)) = data.split_at_mut_checked(HEADER_BYTES) else { return };
    let sum = crc(&[&header[..12], &header[16..]]);
    put(header, 12, sum);
    match header.first_chunk::<8>() {
        Some(b"TOKENWAL") => batches(rest, nonce_at(header, 48), before.unwrap_or_default()),
        Some(b"TWALSNAP") => blocks(rest, nonce_at(header, 32), HEADER_BYTES as u64),
        _ => {}
    }
}

/// Writes the number that a file's name gives into its header.
pub fn number(data: &mut [u8], number: u64) {
    let at = match data.first_chunk::<8>() {
        Some(b"TOKENWAL") => 64,
        Some(b"TWALSNAP") => 48,
        _ => return,
    };
    if let Some(field) = data.get_mut(at..at + 8) {
        field.copy_from_slice(&number.to_le_bytes());
    }
}

fn batches(data: &mut [u8], nonce: Nonce, before: &[u8]) {
    for at in (0..data.len()).step_by(BLOCK_BYTES_MIN) {
        let rest = &mut data[at..];
        let length = get(rest, 8).unwrap_or_default();
        let is_changed = rest.get(..length) != before.get(at..).and_then(|old| old.get(..length));
        if rest.get(4..8) == Some(b"JWTB") && is_changed {
            batch(rest, nonce, (HEADER_BYTES + at) as u64);
        }
    }
}

/// A batch, as far as its frames tell their lengths.
pub fn batch(data: &mut [u8], nonce: Nonce, place: u64) {
    let Some((header, mut frames)) = data.split_at_mut_checked(BATCH_HEADER_BYTES) else { return };
    let sum = crc(&[&nonce.to_bytes(), &place.to_le_bytes(), header.get(4..).unwrap_or_default()]);
    put(header, 0, sum);
    let mut place = place + BATCH_HEADER_BYTES as u64;
    while let Some(length) = get(frames, 8).filter(|length| *length >= 32) {
        let Some((frame, rest)) = frames.split_at_mut_checked(8 + length) else { return };
        let body = crc(&[frame.get(40..).unwrap_or_default()]);
        put(frame, 4, body);
        let record_header = frame.get(8..).and_then(<[u8]>::first_chunk).expect("it has 32 bytes");
        let head = frame::head_crc(nonce, place, body, record_header);
        put(frame, 0, head);
        place += 8 + length as u64;
        frames = rest;
    }
}

/// A snapshot's blocks and footer.
pub fn blocks(data: &mut [u8], nonce: Nonce, mut place: u64) {
    let mut rest = data;
    while rest.len() > FOOTER_BYTES {
        let Some(length) = get(rest, 4) else { return };
        let Some((block, behind)) = rest.split_at_mut_checked(BLOCK_HEADER_BYTES + length) else {
            return;
        };
        let covered = block.get(4..).unwrap_or_default();
        let sum = crc(&[&nonce.to_bytes(), &place.to_le_bytes(), covered]);
        put(block, 0, sum);
        place += (BLOCK_HEADER_BYTES + length) as u64;
        rest = behind;
    }
    let sum = crc(&[&nonce.to_bytes(), rest.get(4..).unwrap_or_default()]);
    put(rest, 0, sum);
}

fn nonce_at(header: &[u8], at: usize) -> Nonce {
    let bytes = header.get(at..).and_then(<[u8]>::first_chunk).expect("a header has 4096 bytes");
    Nonce::from_bytes(*bytes)
}

fn get(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*field)).ok()
}

fn put(bytes: &mut [u8], at: usize, sum: u32) {
    if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) {
        *field = sum.to_le_bytes();
    }
}
