//! A file whose unreadable sectors read as zeros, so that what stands around them can be saved.

use crate::disk::DiskFile;
use std::io;
use std::sync::Arc;

/// How much is given up for one unreadable sector.
const PIECE_BYTES: usize = 4096;

/// What the system says of a sector that it cannot read.
const EIO: i32 = 5;

/// Reads around unreadable sectors; it is never written to.
#[derive(Debug)]
pub(super) struct Patient(Arc<dyn DiskFile>);

impl Patient {
    pub(super) fn wrap(file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(Self(file))
    }

    fn read_pieces(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.0.len()?.saturating_sub(offset);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        // The first piece ends where a sector does, so that none takes more than its own along.
        let to_boundary = PIECE_BYTES as u64 - offset % PIECE_BYTES as u64;
        let to_boundary = usize::try_from(to_boundary).unwrap_or(PIECE_BYTES).min(wanted);
        let (first, rest) = buffer.split_at_mut(to_boundary);
        let rest = rest.get_mut(..wanted - to_boundary).unwrap_or_default();
        let mut at = offset;
        for piece in std::iter::once(first).chain(rest.chunks_mut(PIECE_BYTES)) {
            match self.0.read_at(at, piece) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(EIO) => piece.fill(0),
                Err(error) => return Err(error),
            }
            at += piece.len() as u64;
        }
        Ok(wanted)
    }
}

impl DiskFile for Patient {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read_at(offset, buffer) {
            Err(error) if error.raw_os_error() == Some(EIO) => self.read_pieces(offset, buffer),
            result => result,
        }
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn writes_are_durable(&self) -> bool {
        false
    }
}
