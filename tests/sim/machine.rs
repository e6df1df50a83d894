//! The simulated machine: files and names, the process's life, crash points, faults and space.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use super::directory::Directory;
use super::file::{Cut, File, ReadBack};
use super::rng::{Rng, mix};

pub const EIO: i32 = 5;
pub const EBADF: i32 = 9;
pub const ENOSPC: i32 = 28;

/// What kind of machine it is.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// Whether [`tokenwal::disk::Access::Direct`] gives durable writes.
    pub direct: bool,
    /// The bytes that all files together may have.
    pub capacity: u64,
    /// What direct writes are aligned to.
    pub alignment: usize,
    /// The machine's name.
    pub host: String,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self { direct: false, capacity: u64::MAX, alignment: 512, host: "simulated".to_owned() }
    }
}

/// Kinds of disk operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    List,
    Open,
    Read,
    Create,
    Rename,
    Remove,
    SyncDir,
    Lock,
    Note,
    Write,
    DirectWrite,
    Sync,
}

impl OpKind {
    /// Says whether the operation can change the disk; only these are counted and crash.
    pub fn changes(self) -> bool {
        !matches!(self, Self::List | Self::Open | Self::Read | Self::Lock)
    }
}

/// One disk operation, as faults and traces see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// How many changing operations came before it.
    pub number: u64,
    pub kind: OpKind,
    /// The file's name; where it was renamed while open, the newest.
    pub name: String,
    /// The new name, for a rename.
    pub to: String,
    pub offset: u64,
    pub len: usize,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5} {:?} {}", self.number, self.kind, self.name)?;
        match self.kind {
            OpKind::Rename => write!(f, " -> {}", self.to),
            OpKind::Write | OpKind::DirectWrite | OpKind::Read => {
                write!(f, " {}+{}", self.offset, self.len)
            }
            _ => Ok(()),
        }
    }
}

/// When, within an operation, the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before anything was done.
    Before,
    /// In the middle: some of a write is in the cache, some of a sync on the medium.
    Inside,
    /// When all was done, but nobody was told.
    After,
}

/// What goes wrong with an operation, other than the end of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error number and does nothing.
    Error(i32),
    /// A write does a part of its work and fails with this error number.
    Short(i32),
    /// A sync fails with EIO, and calls the pages clean.
    LostSync(ReadBack),
    /// A write succeeds, its write-back fails soon after, and the next sync is told.
    LostLater(ReadBack),
}

impl Fault {
    pub fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Error(number) | Self::Short(number) => number,
            Self::LostSync(_) | Self::LostLater(_) => EIO,
        })
    }
}

type Predicate = Arc<dyn Fn(&Op) -> bool + Send + Sync>;

#[derive(Clone)]
struct Armed {
    when: Predicate,
    fault: Fault,
    times: u64,
}

/// The machine's state. Everything here happens in one process life or between two.
#[derive(Clone)]
pub struct Machine {
    pub options: SimOptions,
    pub rng: Rng,
    pub names: Directory,
    pub files: BTreeMap<u64, File>,
    /// Counts process lives; handles of an earlier one are dead.
    pub life: u64,
    /// Set while somebody holds the lock.
    pub locked_by: Option<u64>,
    next_id: u64,
    operations: u64,
    crash: Option<(u64, Moment)>,
    dead: bool,
    /// An operation was cut off in its middle.
    torn_in_flight: bool,
    armed: Vec<Armed>,
    trace: Vec<Op>,
    /// What stood in the blocks that were freed last.
    stale: Arc<Vec<u8>>,
    /// The machine as it was before each changing operation, where that is wanted.
    boundaries: Option<Vec<Machine>>,
}

/// How an operation goes on once it was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// Do it, and tell.
    Done,
    /// Do it, and die.
    DieAfter,
    /// Do part of it, and die.
    DieInside,
    /// Something goes wrong.
    Fault(Fault),
}

/// Marks the errors of a process that has ended.
#[derive(Debug)]
pub struct Crashed;

impl fmt::Display for Crashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated process has ended")
    }
}

impl std::error::Error for Crashed {}

pub fn crashed() -> io::Error {
    io::Error::other(Crashed)
}

impl Machine {
    pub fn new(seed: u64, options: SimOptions) -> Self {
        Self {
            options,
            rng: Rng::new(seed),
            names: Directory::default(),
            files: BTreeMap::new(),
            life: 0,
            locked_by: None,
            next_id: 0,
            operations: 0,
            crash: None,
            dead: false,
            torn_in_flight: false,
            armed: Vec::new(),
            trace: Vec::new(),
            stale: Arc::default(),
            boundaries: None,
        }
    }

    pub fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn operations(&self) -> u64 {
        self.operations
    }

    pub fn trace(&self) -> &[Op] {
        &self.trace
    }

    pub fn is_dead(&self) -> bool {
        self.dead
    }

    pub fn set_crash(&mut self, at: u64, moment: Moment) {
        self.crash = Some((self.operations.saturating_add(at), moment));
    }

    pub fn arm(&mut self, when: Predicate, fault: Fault, times: u64) {
        self.armed.push(Armed { when, fault, times });
    }

    pub fn disarm(&mut self) {
        self.armed.clear();
        self.crash = None;
    }

    pub fn disarm_faults(&mut self) {
        self.armed.clear();
    }

    /// Begins to keep the machine as it is before each changing operation, or ceases to.
    pub fn keep_boundaries(&mut self, keep: bool) {
        self.boundaries = keep.then(Vec::new);
    }

    /// Gives what was kept since the last time.
    pub fn take_boundaries(&mut self) -> Vec<Self> {
        self.boundaries.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Copies all but what was traced and kept.
    pub fn bare_copy(&mut self) -> Self {
        let trace = std::mem::take(&mut self.trace);
        let boundaries = self.boundaries.take();
        let copy = self.clone();
        self.trace = trace;
        self.boundaries = boundaries;
        copy
    }

    /// Counts what a power cut now could lose.
    pub fn pending(&self) -> usize {
        let files = self.files.values().map(|file| file.pending().count()).sum::<usize>();
        files + self.names.pending().count() + usize::from(self.torn_in_flight)
    }

    /// Admits an operation: refuses it to the dead, and decides its course.
    pub fn admit(&mut self, life: u64, mut op: Op) -> io::Result<Course> {
        if self.dead || life != self.life {
            return Err(crashed());
        }
        op.number = self.operations;
        let mut course = Course::Done;
        if op.kind.changes() {
            if self.boundaries.is_some() {
                let copy = self.bare_copy();
                self.boundaries.get_or_insert_default().push(copy);
            }
            match self.crash {
                Some((at, moment)) if at == self.operations => {
                    self.dead = true;
                    match moment {
                        Moment::Before => return Err(crashed()),
                        Moment::Inside => course = Course::DieInside,
                        Moment::After => course = Course::DieAfter,
                    }
                    self.torn_in_flight = moment == Moment::Inside;
                }
                _ => {}
            }
            self.operations += 1;
        }
        if course == Course::Done
            && let Some(armed) =
                self.armed.iter_mut().find(|armed| armed.times > 0 && (armed.when)(&op))
        {
            armed.times -= 1;
            course = Course::Fault(armed.fault);
        }
        if op.kind.changes() {
            self.trace.push(op);
        }
        Ok(course)
    }

    /// Returns the bytes that files may still grow by.
    pub fn free(&self) -> u64 {
        let live: BTreeSet<u64> = self.names.live().values().copied().collect();
        let bytes = |id: &u64| u64::try_from(self.files[id].bytes().len()).unwrap();
        self.options.capacity.saturating_sub(live.iter().map(bytes).sum())
    }

    /// Forgets the bytes of a removed file's blocks, save that they may turn up again.
    pub fn freed(&mut self, id: u64) {
        if let Some(file) = self.files.get(&id)
            && !file.bytes().is_empty()
        {
            self.stale = file.bytes().clone();
        }
    }

    /// Ends the process. The page cache stays; who had the lock lets go.
    pub fn process_death(&mut self) {
        self.begin_life();
        let mut rng = self.rng.fork();
        for file in self.files.values_mut() {
            // Whether a failure that nobody was told of is remembered is the kernel's affair.
            if rng.chance(50) {
                file.take_owed_error();
            }
        }
    }

    /// Cuts the power: one legal state of the medium remains.
    pub fn power_cut(&mut self, cut: Cut, rng: &mut Rng) {
        self.begin_life();
        for file in self.files.values_mut() {
            file.power_cut(cut, rng, &self.stale);
        }
        self.names.power_cut(cut, rng);
        let named: BTreeSet<u64> = self.names.live().values().copied().collect();
        self.files.retain(|id, _| named.contains(id));
    }

    /// Returns the range of numbers of the operations that a power cut now could lose.
    pub fn in_flight(&self) -> (u64, u64) {
        let all = || self.files.values().flat_map(File::pending).chain(self.names.pending());
        (all().min().unwrap_or(0), all().max().unwrap_or(0))
    }

    fn begin_life(&mut self) {
        self.life += 1;
        self.dead = false;
        self.crash = None;
        self.torn_in_flight = false;
        self.locked_by = None;
    }

    /// Sums up all names and bytes as a reader sees them.
    pub fn digest(&self) -> u64 {
        let mut sum = 0;
        for (name, id) in self.names.live() {
            sum = digest_of(sum, name.as_bytes());
            sum = digest_of(sum, self.files[id].bytes());
        }
        sum
    }

    /// Sums up also what the medium holds, and how much is on its way there.
    pub fn deep_digest(&self) -> u64 {
        let mut sum = self.digest();
        for file in self.files.values() {
            sum = digest_of(sum, file.durable());
            sum = mix(sum ^ u64::try_from(file.pending().count()).unwrap());
        }
        mix(sum ^ u64::try_from(self.names.pending().count()).unwrap())
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.names.live().keys().collect();
        write!(f, "Machine(life {}, operation {}, {names:?})", self.life, self.operations)
    }
}

fn digest_of(sum: u64, bytes: &[u8]) -> u64 {
    let length = u64::try_from(bytes.len()).unwrap();
    mix(mix(sum ^ length) ^ u64::from(crc32fast::hash(bytes)))
}
