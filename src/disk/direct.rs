//! Direct, synchronous writes: whether a file system takes them, aligned to what, and how.
//!
//! Each batch then costs one write and one flush, and a write is durable when it returns.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the seam")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

#[cfg(target_os = "linux")]
use rustix::fs::AtFlags;
use rustix::fs::OFlags;

use super::AlignedBuffer;
use super::file::read_full;

/// What direct writes are aligned to where nothing more is known.
pub(super) const ALIGNMENT: usize = 4096;

/// The descriptor for direct, synchronous writes.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    alignment: usize,
}

impl Direct {
    /// Takes a descriptor opened with [`FLAGS`], or tells that it is of no use.
    pub(super) fn new(file: File, alignment: usize, taken: Taken) -> Option<Self> {
        if matches!(taken, Taken::Unknown) {
            // Some file systems take the flag and refuse the first transfer; reading shows it.
            let mut probe = AlignedBuffer::zeroed(alignment, alignment);
            read_full(&file, 0, &mut probe).ok()?;
        }
        Some(Self { file, alignment })
    }

    /// Writes all of `bytes`, by way of an aligned copy if they stand askew in memory.
    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let unit = u64::try_from(self.alignment).unwrap_or(u64::MAX).max(1);
        if !offset.is_multiple_of(unit) || !bytes.len().is_multiple_of(self.alignment.max(1)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a direct write that is not aligned",
            ));
        }
        if AlignedBuffer::holds(bytes, self.alignment) {
            return self.file.write_all_at(bytes, offset);
        }
        let mut copy = AlignedBuffer::zeroed(bytes.len(), self.alignment);
        copy.copy_from_slice(bytes);
        self.file.write_all_at(&copy, offset)
    }
}

/// What a file system says of direct writes to a file.
pub(super) enum Taken {
    No,
    Aligned(usize),
    Unknown,
}

impl Taken {
    /// Says whether writes aligned to `alignment` bytes may be tried.
    pub(super) fn allows(&self, alignment: usize) -> bool {
        match self {
            Self::No => false,
            Self::Aligned(asked) => *asked <= alignment,
            Self::Unknown => true,
        }
    }
}

/// The flags of a descriptor for direct, synchronous writes.
#[cfg(target_os = "linux")]
pub(super) const FLAGS: OFlags = OFlags::DIRECT.union(DSYNC);
#[cfg(not(target_os = "linux"))]
pub(super) const FLAGS: OFlags = OFlags::empty();

/// `O_DSYNC` by its number, since `OFlags::DSYNC` is `O_SYNC` in rustix 1.1, and that one commits
/// the time of last change to the file system's journal with every write.
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
))]
const DSYNC: OFlags = OFlags::from_bits_retain(0o1_0000);
#[cfg(all(
    target_os = "linux",
    not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))
))]
const DSYNC: OFlags = OFlags::SYNC;

/// Asks the file system what it takes.
#[cfg(target_os = "linux")]
pub(super) fn taken(file: &File) -> Taken {
    use rustix::fs::StatxFlags;
    let asked = StatxFlags::DIOALIGN;
    let Ok(stat) = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, asked) else {
        return Taken::Unknown;
    };
    if stat.stx_mask & asked.bits() == 0 {
        return Taken::Unknown;
    }
    let most = stat.stx_dio_mem_align.max(stat.stx_dio_offset_align).max(512);
    match usize::try_from(most) {
        Ok(most) if stat.stx_dio_offset_align > 0 && most.is_power_of_two() => Taken::Aligned(most),
        _ => Taken::No,
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn taken(_: &File) -> Taken {
    Taken::No
}
