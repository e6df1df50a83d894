//! Makes a journal fit to be written to: the only place that writes to what was found on disk.
//!
//! Implements journal-format.md, section 13, "Recover". No byte that a reader counts is changed;
//! what was not proven durable is written again as it is, since after a failed sync and the death
//! of a process its pages may be clean in the cache and absent from the disk [M-3].

use super::create::Creation;
use super::scan::{AtDamage, Task, scan};
use super::survey::{Link, Segment, Survey, open_segment};
use super::verdict::Verdict;
use crate::disk::{Access, Disk, DiskFile};
use crate::error::{Damage, Error};
use crate::format::name::segment_name;
use crate::ids::Lsn;
use std::io;
use std::sync::Arc;

/// Beyond these a journal could run out of numbers; none that lived gets there.
pub(crate) const NUMBER_MAX: u64 = u64::MAX >> 8;
pub(crate) const LSN_MAX: u64 = u64::MAX >> 8;

/// How much is written again at once.
const CHUNK_BYTES: usize = 1 << 20;

/// A segment that is open for appending.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) segment: Segment,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the next batch goes.
    pub(crate) offset: u64,
}

impl Tail {
    /// Opens a named segment for appending at `offset`.
    pub(crate) fn open(disk: &dyn Disk, number: u64, offset: u64) -> Result<Self, Error> {
        let segment = open_segment(disk, number)?;
        let block_bytes = usize::try_from(segment.header.block_bytes).unwrap_or(usize::MAX);
        let access = match block_bytes.checked_rem(disk.alignment()) {
            Some(0) => Access::Direct,
            _ => Access::Write,
        };
        let file = disk
            .open(&segment.name, access)
            .map_err(Error::io("opening a segment for writing", segment.name.clone()))?;
        Ok(Self { segment, file, offset })
    }
}

/// Refuses what must not be written to.
pub(crate) fn admit(survey: &Survey) -> Result<(), Error> {
    let damage = || Box::new(survey.damage.clone().expect("a bad verdict names the damage"));
    let spent = survey.last_number > NUMBER_MAX || survey.head.0 > LSN_MAX;
    match survey.verdict {
        Verdict::Clean | Verdict::Torn if spent => Err(Error::Corrupt(Box::new(Damage {
            file: survey.chain.last().map(|link| link.segment.name.clone()).unwrap_or_default(),
            offset: 0,
            lsn: survey.head,
            what: "a number is higher than any journal counts",
            accounts: Vec::new(),
        }))),
        Verdict::Clean | Verdict::Torn => Ok(()),
        Verdict::Suspect => Err(Error::Suspect(damage())),
        Verdict::Corrupt => Err(Error::Corrupt(damage())),
    }
}

/// Makes durable all that the survey found, and clears away what is not the journal's.
///
/// It may be run any number of times, also after a crash within it.
pub(crate) fn settle(
    disk: &dyn Disk,
    survey: &Survey,
    temporaries: &[String],
) -> Result<(), Error> {
    for link in unproven(&survey.chain) {
        rewrite(disk, link)
            .map_err(Error::io("rewriting the unproven end", &*link.segment.name))?;
    }
    disk.sync_dir().map_err(Error::io("syncing the directory", disk.path()))?;
    let covered = survey.covered.iter().map(|number| segment_name(*number));
    let leftovers = temporaries.iter().chain(&survey.prepared).cloned().chain(covered);
    // A name that comes back is a leftover once more, so no sync of the directory follows.
    for name in leftovers {
        match disk.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("removing a leftover", name)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The last segment, and the one before it while the last has no batch yet: until then nothing
/// proves the batch with `Sealed`.
fn unproven(chain: &[Link]) -> impl Iterator<Item = &Link> {
    let last = chain.last();
    let before = chain
        .len()
        .checked_sub(2)
        .and_then(|at| chain.get(at))
        .filter(|_| last.is_some_and(|last| last.scan.batches == 0));
    before.into_iter().chain(last)
}

/// Returns the LSN up to which the journal itself proves that it is durable, of which the rest is
/// what [`settle`] writes again; `before` is that before the chain.
pub(crate) fn proven_through(survey: &Survey, before: Lsn) -> Result<Lsn, Error> {
    let Some(link) = unproven(&survey.chain).next() else { return Ok(before) };
    let first = survey.chain.iter().position(|other| std::ptr::eq(other, link));
    let previous = first.and_then(|at| at.checked_sub(1)).and_then(|at| survey.chain.get(at));
    let task = Task {
        header: &link.segment.header,
        last_lsn: previous.map_or(before, |previous| previous.scan.last_lsn),
        limit: Some(link.scan.durable_through),
        at_damage: AtDamage::Stop,
    };
    let io = Error::io("reading a segment", link.segment.name.clone());
    scan::<io::Error>(&*link.segment.file, task, &mut |_| Ok(()))
        .map(|scan| scan.last_lsn)
        .map_err(io)
}

/// Writes the bytes from the last proven offset to the end once more, and syncs.
fn rewrite(disk: &dyn Disk, link: &Link) -> io::Result<()> {
    let file = disk.open(&link.segment.name, Access::Write)?;
    let mut offset = link.scan.durable_through;
    let mut chunk = vec![0; CHUNK_BYTES];
    while offset < link.scan.end {
        let left = usize::try_from(link.scan.end - offset).unwrap_or(usize::MAX);
        let wanted = chunk.get_mut(..left.min(CHUNK_BYTES)).unwrap_or_default();
        let read = link.segment.file.read_at(offset, wanted)?;
        if read < wanted.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_at(offset, wanted)?;
        offset += read as u64;
    }
    file.sync()
}

/// Makes a segment that begins with its `Opened`, and opens it behind that.
pub(crate) fn begin_segment(
    disk: &Arc<dyn Disk>,
    creation: Creation,
    first_batch_bytes: usize,
) -> Result<Tail, Error> {
    let header = creation.header().clone();
    creation.run()?;
    let offset = header.geometry().next_block(4096 + first_batch_bytes as u64);
    Tail::open(&**disk, header.number, offset)
}
