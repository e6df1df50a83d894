//! An open file and a held lock of the simulated machine.

use std::fmt;
use std::io;
use std::sync::MutexGuard;

use tokenwal::disk::{Access, DiskFile, DiskLock};

use super::disk::{LOCK, SimDisk, change, look};
use super::machine::{Course, EBADF, EIO, ENOSPC, Fault, Machine, Op, OpKind, crashed};

pub(super) struct SimLock {
    pub(super) disk: SimDisk,
    pub(super) holder: u64,
}

impl DiskLock for SimLock {
    fn write_note(&self, note: &[u8]) -> io::Result<()> {
        let (mut machine, course) = self.disk.admit(OpKind::Note, LOCK, "")?;
        let Some(id) = machine.names.live().get(LOCK).copied() else { return Ok(()) };
        change(&mut machine, course, |machine, _| {
            let image = note.to_vec();
            machine.files.get_mut(&id).expect("named").damage(|bytes| *bytes = image);
        })
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut machine = self.disk.machine();
        if machine.locked_by == Some(self.holder) {
            machine.locked_by = None;
        }
    }
}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimLock({})", self.holder)
    }
}

pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) access: Access,
}

impl SimFile {
    fn admit(
        &self,
        kind: OpKind,
        offset: u64,
        len: usize,
    ) -> io::Result<(MutexGuard<'_, Machine>, Course)> {
        let mut machine = self.disk.machine();
        let now = machine.names.live().iter().find(|(_, id)| **id == self.id);
        let name = now.map_or_else(|| self.name.clone(), |(name, _)| name.clone());
        let op = Op { number: 0, kind, name, to: String::new(), offset, len };
        let course = machine.admit(self.disk.life, op)?;
        Ok((machine, course))
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let (machine, course) = self.admit(OpKind::Read, offset, buffer.len())?;
        look(course)?;
        let bytes = machine.files[&self.id].bytes();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let read = buffer.len().min(bytes.len() - from);
        buffer[..read].copy_from_slice(&bytes[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let kind = match self.access {
            Access::Direct => OpKind::DirectWrite,
            _ => OpKind::Write,
        };
        let (mut machine, course) = self.admit(kind, offset, bytes.len())?;
        if self.access == Access::Read {
            return Err(io::Error::from_raw_os_error(EBADF));
        }
        let unit = machine.options.alignment;
        let at = usize::try_from(offset).expect("simulated files are small");
        let aligned = at.is_multiple_of(unit) && bytes.len().is_multiple_of(unit);
        if kind == OpKind::DirectWrite && !aligned {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let number = machine.operations() - 1;
        let old = machine.files[&self.id].bytes().len();
        let room = usize::try_from(machine.free()).unwrap_or(usize::MAX);
        let fits = old.saturating_add(room).saturating_sub(at).min(bytes.len());
        let mut rng = machine.rng.fork();
        let file = machine.files.get_mut(&self.id).expect("kept while it is open");
        let mut write = |bytes: &[u8]| match kind {
            OpKind::DirectWrite => file.write_direct(number, at, bytes),
            _ => file.write(number, at, bytes),
        };
        match course {
            Course::Done | Course::DieAfter if fits < bytes.len() => {
                write(&bytes[..fits]);
                Err(io::Error::from_raw_os_error(ENOSPC))
            }
            Course::Done => {
                write(bytes);
                Ok(())
            }
            Course::DieAfter => {
                write(bytes);
                Err(crashed())
            }
            Course::Fault(Fault::LostLater(read_back)) => {
                write(bytes);
                file.lose_writeback(read_back, &mut rng);
                file.owe_error();
                Ok(())
            }
            Course::Fault(fault @ Fault::Error(_)) => Err(fault.error()),
            Course::DieInside | Course::Fault(_) => {
                match kind {
                    OpKind::DirectWrite => file.tear_direct(number, at, &bytes[..fits], &mut rng),
                    _ => write(&bytes[..rng.index(fits + 1)]),
                }
                match course {
                    Course::Fault(fault) => Err(fault.error()),
                    _ => Err(crashed()),
                }
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        let (mut machine, course) = self.admit(OpKind::Sync, 0, 0)?;
        let mut rng = machine.rng.fork();
        let file = machine.files.get_mut(&self.id).expect("kept while it is open");
        match course {
            Course::Done if file.take_owed_error() => Err(io::Error::from_raw_os_error(EIO)),
            Course::Done => {
                file.flush();
                Ok(())
            }
            Course::DieAfter => {
                file.flush();
                Err(crashed())
            }
            Course::DieInside => {
                file.flush_some(&mut rng);
                Err(crashed())
            }
            Course::Fault(Fault::LostSync(read_back)) => {
                file.lose_writeback(read_back, &mut rng);
                Err(io::Error::from_raw_os_error(EIO))
            }
            Course::Fault(fault) => Err(fault.error()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        let (machine, course) = self.admit(OpKind::Read, 0, 0)?;
        look(course)?;
        Ok(u64::try_from(machine.files[&self.id].bytes().len()).unwrap())
    }

    fn writes_are_durable(&self) -> bool {
        self.access == Access::Direct
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.name)
    }
}
