//! A buffer that starts at an aligned address, as direct writes ask for.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// Bytes of a fixed number whose first one stands at a multiple of an alignment.
///
/// It never moves its bytes, and it does not print them: batches pass through it.
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// Makes `len` zeros aligned to `alignment` bytes; an alignment of 0 counts as 1.
    pub fn zeroed(len: usize, alignment: usize) -> Self {
        let alignment = alignment.max(1);
        let bytes = vec![0; len.saturating_add(alignment)];
        let past = bytes.as_ptr().addr() % alignment;
        let start = if past == 0 { 0 } else { alignment - past };
        Self { bytes, start, len }
    }

    /// Says whether `bytes` start at a multiple of `alignment`.
    pub fn holds(bytes: &[u8], alignment: usize) -> bool {
        bytes.as_ptr().addr().is_multiple_of(alignment.max(1))
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
            .get(self.start..self.start + self.len)
            .expect("start is below the alignment, which was allocated beyond len")
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes
            .get_mut(self.start..self.start + self.len)
            .expect("start is below the alignment, which was allocated beyond len")
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuffer({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_of_the_length_asked_for() {
        for alignment in [0, 1, 512, 4096] {
            for len in [0, 1, 4096, 10_000] {
                let mut buffer = AlignedBuffer::zeroed(len, alignment);
                assert_eq!(buffer.len(), len);
                assert!(AlignedBuffer::holds(&buffer, alignment));
                buffer.fill(7);
            }
        }
    }
}
