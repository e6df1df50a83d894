//! What an input says: which store, whether checksums are mended, and the edits, each a byte that
//! names it, a byte that names a file, and operands. What is missing at the end is 0. Every input
//! says something.

use std::sync::Arc;

use super::super::mend;
use super::disk::{Image, LOCK};

const BLOCK_BYTES: usize = 4096;

/// More edits than this only say again what fewer can.
const EDITS_MAX: usize = 16;

/// Names of no store, or of one at its edges.
const NAMES: [&str; 12] = [
    "notes.txt",
    "",
    "segment-1.twj",
    "segment-00000000000000000000.twj",
    "segment-00000000000000000009.twj",
    "segment-00000000000000000009.twj.tmp",
    "segment-18446744073709551615.twj",
    "segment-18446744073709551616.twj",
    "snapshot-00000000000000000000.tws",
    "snapshot-00000000000000000005.tws",
    "snapshot-00000000000001000000.tws.tmp",
    "snapshot-18446744073709551615.tws",
];

/// Numbers at which arithmetic on 32 and 64 bits ends.
const NUMBERS: [u64; 12] = [
    0,
    1,
    4095,
    4096,
    1 << 16,
    i32::MAX as u64,
    u32::MAX as u64,
    (1 << 32) + 1,
    u64::MAX >> 8,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

/// What is done when all edits are.
#[derive(Debug, Clone, Copy)]
pub struct Mend {
    checksums: bool,
    numbers: bool,
    /// Salvage, which takes long, is left out.
    pub quick: bool,
}

/// The operands that are left.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub fn byte(&mut self) -> usize {
        self.bytes(1).first().copied().unwrap_or_default().into()
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn short(&mut self) -> usize {
        self.byte() + (self.byte() << 8)
    }

    fn word(&mut self) -> Vec<u8> {
        let mut word = self.bytes(8).to_vec();
        word.resize(8, 0);
        word
    }

    /// A block of the part that is used, or the one behind it.
    fn block(&mut self, bytes: &[u8]) -> usize {
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.byte() % (used.div_ceil(BLOCK_BYTES) + 1) * BLOCK_BYTES
    }

    fn place(&mut self, bytes: &[u8]) -> usize {
        (self.block(bytes) + self.short() % BLOCK_BYTES).min(bytes.len())
    }

    pub fn mend(&mut self) -> Mend {
        let bits = self.byte();
        Mend { checksums: bits & 1 == 1, numbers: bits & 2 == 2, quick: bits & 4 == 4 }
    }

    /// Carries out all edits.
    pub fn edit(mut self, image: &mut Image) {
        for _ in 0..EDITS_MAX {
            if self.0.is_empty() {
                return;
            }
            self.edit_once(image);
        }
    }

    fn edit_once(&mut self, image: &mut Image) {
        let edit = self.byte();
        let Some(name) = self.name(image) else { return };
        let mut bytes = image[&name].to_vec();
        match edit % 14 {
            0 => {
                let (at, mask) = (self.place(&bytes), self.byte());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= u8::try_from(mask.max(1)).unwrap();
                }
            }
            1 => {
                let (at, count) = (self.place(&bytes), self.byte() % 33);
                let new = self.bytes(count);
                overwrite(&mut bytes, at, new);
            }
            2 => {
                let (at, width) = (self.place(&bytes), [1, 2, 4, 8][self.byte() % 4]);
                let number = NUMBERS[self.byte() % NUMBERS.len()].to_le_bytes();
                overwrite(&mut bytes, at, &number[..width]);
            }
            3 => {
                // Near to what stands there.
                let (at, by) = (self.place(&bytes), self.byte());
                let Some(field) = bytes.get(at..).and_then(<[u8]>::first_chunk) else { return };
                let by = i64::try_from(by).unwrap() - 128;
                let near = u64::from_le_bytes(*field).wrapping_add_signed(by);
                overwrite(&mut bytes, at, &near.to_le_bytes());
            }
            4 => {
                let (at, count) = (self.place(&bytes), self.short());
                let end = bytes.len().min(at + count);
                bytes[at..end].fill(0);
            }
            5 => bytes.truncate(self.place(&bytes)),
            6 => {
                let (count, fill) = (self.short(), self.byte());
                bytes.resize(bytes.len() + count, u8::try_from(fill).unwrap());
            }
            7 => {
                let from = self.name(image).expect("there is one");
                let theirs = image[&from].clone();
                let (from, to) = (self.block(&theirs), self.block(&bytes));
                let count = (1 + self.byte() % 4) * BLOCK_BYTES;
                let theirs = theirs.get(from..).unwrap_or_default();
                overwrite(&mut bytes, to, &theirs[..count.min(theirs.len())]);
            }
            8 => {
                let (from, to) = (self.place(&bytes), self.place(&bytes));
                let count = self.short() % 1024;
                let moved = bytes[from..].iter().copied().take(count).collect::<Vec<_>>();
                overwrite(&mut bytes, to, &moved);
            }
            9 => {
                let other = self.name(image).expect("there is one");
                let theirs = image.insert(other, Arc::new(bytes)).expect("it was there");
                image.insert(name, theirs);
                return;
            }
            10 => {
                let copy = self.new_name(&name);
                image.insert(copy, Arc::new(bytes));
                return;
            }
            11 => {
                image.remove(&name);
                let renamed = self.new_name(&name);
                image.insert(renamed, Arc::new(bytes));
                return;
            }
            12 => {
                image.remove(&name);
                return;
            }
            _ => {
                let (named, word) = (self.new_name(&name), self.word());
                image.insert(named, Arc::new(word));
                return;
            }
        }
        image.insert(name, Arc::new(bytes));
    }

    fn name(&mut self, image: &Image) -> Option<String> {
        let pick = self.byte();
        image.keys().nth(pick % image.len().max(1)).cloned()
    }

    /// A name of the list, or that of a neighbour of the same kind.
    fn new_name(&mut self, name: &str) -> String {
        let pick = self.byte();
        match (pick % 2, number_of(name)) {
            (1, Some((kind, number, end))) => {
                let number = number.wrapping_add(pick as u64 / 2).wrapping_sub(4);
                format!("{kind}-{number:020}.{end}")
            }
            _ => NAMES[pick / 2 % NAMES.len()].to_owned(),
        }
    }
}

impl Mend {
    /// Mends what is not as it was `before`.
    pub fn files(self, image: &mut Image, before: &Image) {
        for (name, bytes) in image.iter_mut().filter(|(name, _)| *name != LOCK) {
            let bytes: &mut Vec<u8> = Arc::make_mut(bytes);
            if let Some((_, number, _)) = number_of(name).filter(|_| self.numbers) {
                mend::number(bytes, number);
            }
            if self.checksums {
                mend::file(bytes, before.get(name).map(|old| &***old).unwrap_or_default());
            }
        }
    }
}

fn number_of(name: &str) -> Option<(&str, u64, &str)> {
    let (kind, rest) = name.split_once('-')?;
    let (number, end) = rest.split_once('.')?;
    Some((kind, number.parse().ok()?, end))
}

fn overwrite(bytes: &mut [u8], at: usize, new: &[u8]) {
    let room = bytes.get_mut(at..).unwrap_or_default();
    let count = new.len().min(room.len());
    room[..count].copy_from_slice(&new[..count]);
}
