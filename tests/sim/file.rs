//! One simulated file: what the medium holds, what the page cache shows, and what lies between.

use std::sync::Arc;

use super::rng::Rng;

/// What a power cut leaves of what was not synced.
///
/// Independent coin flips alone would hardly ever show a whole batch lost before a whole batch
/// kept, so the likely and the nasty patterns have their own names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing that was not synced survives.
    Nothing,
    /// Everything survives.
    Everything,
    /// All up to a moment survives, and what was being written at that moment is torn.
    Until(u64),
    /// All from a moment on survives, and nothing before it.
    From(u64),
    /// Each write survives whole or not at all, with this chance in percent.
    Writes(u64),
    /// Each sector survives on its own.
    Sectors {
        /// Its size in bytes: 512 or 4096.
        grain: usize,
        /// The chance in percent that it is newer than what was durable.
        keep: u64,
        /// The chance in percent that it is torn at some byte.
        tear: u64,
    },
}

impl Cut {
    /// Draws a pattern; operations in flight have numbers from `first` to `last`.
    pub fn draw(rng: &mut Rng, first: u64, last: u64) -> Self {
        let moment = |rng: &mut Rng| first + rng.below(last.saturating_sub(first) + 2);
        match rng.below(12) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2..=4 => Self::Until(moment(rng)),
            5 => Self::From(moment(rng)),
            6 | 7 => Self::Writes(*rng.pick(&[15, 50, 85])),
            _ => Self::Sectors {
                grain: *rng.pick(&[512, 4096]),
                keep: *rng.pick(&[10, 50, 90]),
                tear: *rng.pick(&[0, 5, 50]),
            },
        }
    }

    /// Decides whether an operation that is not made of sectors survives.
    pub fn keeps(self, number: u64, rng: &mut Rng) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Until(moment) => number < moment || (number == moment && rng.chance(50)),
            Self::From(moment) => number >= moment,
            Self::Writes(percent) | Self::Sectors { keep: percent, .. } => rng.chance(percent),
        }
    }
}

/// What a reader finds in pages whose write-back failed [M-3].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBack {
    /// What was written, as with ext4 and XFS.
    New,
    /// What is on the medium, as with Btrfs.
    Old,
}

/// Something done to a file and not yet on the medium.
#[derive(Debug, Clone)]
enum Pending {
    Data { number: u64, offset: usize, bytes: Arc<[u8]> },
    Length { number: u64, length: usize },
}

impl Pending {
    fn number(&self) -> u64 {
        match self {
            Self::Data { number, .. } | Self::Length { number, .. } => *number,
        }
    }
}

/// A file.
#[derive(Debug, Clone, Default)]
pub struct File {
    durable: Arc<Vec<u8>>,
    cached: Arc<Vec<u8>>,
    pending: Vec<Pending>,
    /// A write-back failed and nobody was told yet.
    unreported: bool,
}

impl File {
    /// Returns what a reader sees.
    pub fn bytes(&self) -> &Arc<Vec<u8>> {
        &self.cached
    }

    /// Returns what the medium holds for certain.
    pub fn durable(&self) -> &Arc<Vec<u8>> {
        &self.durable
    }

    /// Returns the numbers of the operations that are not yet durable.
    pub fn pending(&self) -> impl Iterator<Item = u64> {
        self.pending.iter().map(Pending::number)
    }

    /// Writes to the page cache.
    pub fn write(&mut self, number: u64, offset: usize, bytes: &[u8]) {
        let before = self.cached.len();
        overlay(Arc::make_mut(&mut self.cached), offset, bytes);
        self.pending.push(Pending::Data { number, offset, bytes: bytes.into() });
        if self.cached.len() > before {
            self.pending.push(Pending::Length { number, length: self.cached.len() });
        }
    }

    /// Writes past the cache; durable at once, after what the cache still held.
    pub fn write_direct(&mut self, number: u64, offset: usize, bytes: &[u8]) {
        self.flush();
        self.write(number, offset, bytes);
        self.flush();
    }

    /// Writes past the cache and is interrupted: what reached the medium is a matter of luck,
    /// and is what every reader sees from now on.
    pub fn tear_direct(&mut self, number: u64, offset: usize, bytes: &[u8], rng: &mut Rng) {
        self.flush();
        let after = self.cached.clone();
        self.write(number, offset, bytes);
        let cut = Cut::draw(rng, number, number);
        self.power_cut(cut, rng, &[]);
        // The length of a direct file that is only overwritten never changes.
        if offset + bytes.len() <= after.len() {
            assert_eq!(self.cached.len(), after.len());
        }
    }

    /// Makes durable what is pending, and nothing else: a page that is falsely called clean
    /// stays as the medium has it.
    pub fn flush(&mut self) {
        let medium = Arc::make_mut(&mut self.durable);
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Data { offset, bytes, .. } => overlay(medium, offset, &bytes),
                Pending::Length { length, .. } => medium.resize(length.max(medium.len()), 0),
            }
        }
        // A write beyond a length that was lost in between cannot make the file longer than it is.
        medium.truncate(self.cached.len());
    }

    /// Makes some of what is pending durable, as a sync that was interrupted does.
    pub fn flush_some(&mut self, rng: &mut Rng) {
        let mut whole = std::mem::take(&mut self.pending);
        let rest = whole.split_off(rng.index(whole.len() + 1));
        self.pending = whole;
        self.flush();
        self.pending = rest;
    }

    /// Fails to make the pending data durable and calls its pages clean [M-3]. The length is
    /// the file system's own and stays pending [M-5].
    pub fn lose_writeback(&mut self, read_back: ReadBack, rng: &mut Rng) {
        let (data, lengths) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|pending| matches!(pending, Pending::Data { .. }));
        self.pending = data;
        let kept = self.pending.clone();
        // Some sectors may have got through before the error.
        let keep = *rng.pick(&[0, 0, 30]);
        let medium = self.sectors(512, keep, 20, rng, self.durable.len(), &[]);
        self.durable = Arc::new(medium);
        if read_back == ReadBack::Old {
            let bytes = Arc::make_mut(&mut self.cached);
            for pending in &kept {
                if let Pending::Data { offset, bytes: written, .. } = pending {
                    let end = offset + written.len();
                    for (at, byte) in bytes.iter_mut().enumerate().take(end).skip(*offset) {
                        *byte = self.durable.get(at).copied().unwrap_or(0);
                    }
                }
            }
        }
        self.pending = lengths;
    }

    /// Remembers that the next sync is the first to hear of a failed write-back.
    pub fn owe_error(&mut self) {
        self.unreported = true;
    }

    /// Says once whether a write-back failed that nobody heard of.
    pub fn take_owed_error(&mut self) -> bool {
        std::mem::take(&mut self.unreported)
    }

    /// Turns the file into what is there after the power came back.
    pub fn power_cut(&mut self, cut: Cut, rng: &mut Rng, stale: &[u8]) {
        self.unreported = false;
        if self.pending.is_empty() {
            // Pages whose write-back was lost show now what the medium holds.
            self.cached = self.durable.clone();
            return;
        }
        let mut length = self.durable.len();
        for pending in &self.pending {
            if let Pending::Length { number, length: longer } = pending
                && cut.keeps(*number, rng)
            {
                length = length.max(*longer);
            }
        }
        let bytes = match cut {
            Cut::Sectors { grain, keep, tear } => {
                self.sectors(grain, keep, tear, rng, length, stale)
            }
            _ => self.writes(cut, rng, length, stale),
        };
        self.durable = Arc::new(bytes);
        self.cached = self.durable.clone();
        self.pending.clear();
    }

    /// Keeps each pending write or loses it; one at the very moment of the cut is torn.
    fn writes(&self, cut: Cut, rng: &mut Rng, length: usize, stale: &[u8]) -> Vec<u8> {
        let mut medium = self.stretched(length, rng, stale);
        for pending in &self.pending {
            let Pending::Data { number, offset, bytes } = pending else { continue };
            if cut == Cut::Until(*number) {
                let there = medium.get(*offset..).unwrap_or_default();
                let at = torn_at(there, bytes, rng);
                overlay(&mut medium, *offset, &bytes[..at]);
            } else if cut.keeps(*number, rng) {
                overlay(&mut medium, *offset, bytes);
            }
        }
        medium.truncate(length);
        medium
    }

    /// Gives each sector that has pending writes one of the contents that it went through, or a
    /// mixture of two.
    fn sectors(
        &self,
        grain: usize,
        keep: u64,
        tear: u64,
        rng: &mut Rng,
        length: usize,
        stale: &[u8],
    ) -> Vec<u8> {
        let base = self.stretched(length, rng, stale);
        let mut touched = std::collections::BTreeSet::new();
        let mut end = base.len();
        for pending in &self.pending {
            if let Pending::Data { offset, bytes, .. } = pending
                && !bytes.is_empty()
            {
                touched.extend(offset / grain..=(offset + bytes.len() - 1) / grain);
                end = end.max(offset + bytes.len());
            }
        }
        let mut medium = base;
        medium.resize(end, 0);
        for sector in touched {
            let range = sector * grain..end.min((sector + 1) * grain);
            let versions = self.versions(&medium, range.clone());
            let newer = |rng: &mut Rng| {
                if rng.chance(keep) { 1 + rng.index(versions.len() - 1) } else { 0 }
            };
            let mut now = versions[newer(rng)].clone();
            if rng.chance(tear) {
                let other = &versions[newer(rng)];
                let at = torn_at(&now, other, rng);
                now[at..].copy_from_slice(&other[at..]);
            }
            medium[range].copy_from_slice(&now);
        }
        medium.truncate(length);
        medium
    }

    /// Lists what a sector held over time, beginning with what the medium holds.
    fn versions(&self, medium: &[u8], range: std::ops::Range<usize>) -> Vec<Vec<u8>> {
        let mut versions = vec![medium[range.clone()].to_vec()];
        for pending in &self.pending {
            let Pending::Data { offset, bytes, .. } = pending else { continue };
            let from = range.start.max(*offset);
            let to = range.end.min(offset + bytes.len());
            if from < to {
                let mut next = versions[versions.len() - 1].clone();
                next[from - range.start..to - range.start]
                    .copy_from_slice(&bytes[from - offset..to - offset]);
                versions.push(next);
            }
        }
        versions
    }

    /// Returns what the medium holds, stretched to a length that outran its data: with zeros, or
    /// with what stood in those blocks before [M-6].
    fn stretched(&self, length: usize, rng: &mut Rng, stale: &[u8]) -> Vec<u8> {
        let mut medium = self.durable.to_vec();
        let from = medium.len();
        if length > from {
            medium.resize(length, 0);
            match rng.below(3) {
                0 if !stale.is_empty() => {
                    for (at, byte) in medium.iter_mut().enumerate().skip(from) {
                        *byte = stale[at % stale.len()];
                    }
                }
                1 => rng.fill(&mut medium[from..]),
                _ => {}
            }
        }
        medium
    }

    /// Changes a byte range behind everybody's back.
    pub fn damage(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        self.flush();
        change(Arc::make_mut(&mut self.cached));
        self.durable = self.cached.clone();
    }
}

/// Draws where two contents are torn: mostly where they differ, since elsewhere it shows nothing.
fn torn_at(one: &[u8], other: &[u8], rng: &mut Rng) -> usize {
    let differs = |at: &usize| one.get(*at).unwrap_or(&0) != &other[*at];
    let first = (0..other.len()).find(differs);
    let last = (0..other.len()).rev().find(differs);
    match (first, last) {
        (Some(first), Some(last)) if rng.chance(80) => first + rng.index(last - first + 1),
        _ => rng.index(other.len() + 1),
    }
}

fn overlay(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if image.len() < offset + bytes.len() && !bytes.is_empty() {
        image.resize(offset + bytes.len(), 0);
    }
    if !bytes.is_empty() {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}
