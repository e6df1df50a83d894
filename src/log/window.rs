//! Reads a file in windows, so that a pass over it costs few calls and bounded memory.

use crate::disk::DiskFile;
use std::io;

/// How much is read at once.
const WINDOW_BYTES: usize = 1 << 20;

/// Reads a file in windows, each large enough for a batch.
pub(super) struct Window<'a> {
    file: &'a dyn DiskFile,
    /// The file's length, beyond which nothing is asked for, whatever lengths in it claim.
    end: u64,
    start: u64,
    bytes: Vec<u8>,
    filled: usize,
}

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a dyn DiskFile) -> io::Result<Self> {
        let end = file.len()?;
        Ok(Self { file, end, start: 0, bytes: Vec::new(), filled: 0 })
    }

    /// Returns the file's length.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Returns up to `length` bytes from `offset`; fewer only where the file ends.
    pub(super) fn at(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(left);
        let inside = offset
            .checked_sub(self.start)
            .and_then(|skip| usize::try_from(skip).ok())
            .filter(|skip| skip.saturating_add(length) <= self.filled);
        let skip = match inside {
            Some(skip) => skip,
            None => {
                self.bytes.resize(length.max(left.min(WINDOW_BYTES)), 0);
                self.filled = self.file.read_at(offset, &mut self.bytes)?;
                self.start = offset;
                0
            }
        };
        let end = self.filled.min(skip.saturating_add(length));
        Ok(self.bytes.get(skip..end).unwrap_or_default())
    }
}

/// Finds the last byte that is not zero, chunk by chunk: most of what is looked at are zeros.
pub(super) fn last_nonzero(bytes: &[u8]) -> Option<usize> {
    let mut behind = bytes.len();
    for chunk in bytes.rchunks(128) {
        behind -= chunk.len();
        if chunk.iter().fold(0, |all, byte| all | byte) != 0 {
            return chunk.iter().rposition(|byte| *byte != 0).map(|last| behind + last);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_byte_is_found_wherever_it_stands() {
        for length in [0, 1, 127, 128, 129, 4096] {
            let zeros = vec![0; length];
            assert_eq!(last_nonzero(&zeros), None);
            for last in 0..length {
                let mut bytes = zeros.clone();
                bytes[last] = 1;
                bytes[0] = 1;
                assert_eq!(last_nonzero(&bytes), Some(last));
            }
        }
    }
}
