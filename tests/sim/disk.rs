//! The simulated machine seen through the seam: what a journal gets to work on.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use tokenwal::disk::{Access, Disk, DiskFile, DiskLock};

use super::file::{Cut, File};
use super::handle::{SimFile, SimLock};
use super::machine::{Course, Crashed, Fault, Machine, Moment, Op, OpKind, SimOptions, crashed};
use super::rng::Rng;

pub(super) const LOCK: &str = "LOCK";

/// A machine's disk as one process sees it.
///
/// When the process ends, [`SimDisk::process_death`] and [`SimDisk::power_cut`] give the disk of
/// the next one; all that hangs on this one then fails, whatever is still done with it.
#[derive(Clone)]
pub struct SimDisk {
    machine: Arc<Mutex<Machine>>,
    pub(super) life: u64,
}

/// Says whether an error comes from the simulated end of the process.
pub fn is_crash(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Crashed>())
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, SimOptions::default())
    }

    pub fn with(seed: u64, options: SimOptions) -> Self {
        Self { machine: Arc::new(Mutex::new(Machine::new(seed, options))), life: 0 }
    }

    /// Returns an empty disk of another directory, without a tie to this one.
    pub fn sibling(&self, seed: u64) -> Self {
        Self::with(seed, self.machine().options.clone())
    }

    pub(super) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap()
    }

    /// Ends the process at once; the page cache stays.
    pub fn process_death(&self) -> Self {
        let mut machine = self.machine();
        machine.process_death();
        Self { machine: self.machine.clone(), life: machine.life }
    }

    /// Cuts the power at once; a pattern of what survives is drawn.
    pub fn power_cut(&self, rng: &mut Rng) -> Self {
        let (first, last) = self.machine().in_flight();
        let cut = Cut::draw(rng, first, last);
        self.power_cut_by(cut, rng)
    }

    /// Cuts the power at once; what survives follows the pattern.
    pub fn power_cut_by(&self, cut: Cut, rng: &mut Rng) -> Self {
        let mut machine = self.machine();
        machine.power_cut(cut, rng);
        Self { machine: self.machine.clone(), life: machine.life }
    }

    /// Lets the process end at its `number`-th changing operation from now, counted from 0.
    pub fn crash_at(&self, number: u64, moment: Moment) {
        self.machine().set_crash(number, moment);
    }

    /// Says whether the process has ended.
    pub fn has_crashed(&self) -> bool {
        let machine = self.machine();
        machine.is_dead() || machine.life != self.life
    }

    /// Lets the next `times` operations that `when` names go wrong.
    pub fn fail(
        &self,
        when: impl Fn(&Op) -> bool + Send + Sync + 'static,
        fault: Fault,
        times: u64,
    ) {
        self.machine().arm(Arc::new(when), fault, times);
    }

    /// Takes back all faults and crash points that were not yet met.
    pub fn disarm(&self) {
        self.machine().disarm();
    }

    /// Takes back all faults that were not yet met; a crash point stays.
    pub fn disarm_faults(&self) {
        self.machine().disarm_faults();
    }

    /// Tells the processes of a machine apart.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Sets how many bytes all files together may have.
    pub fn set_capacity(&self, bytes: u64) {
        self.machine().options.capacity = bytes;
    }

    /// Decides anew what the machine's own luck brings from now on.
    pub fn reseed(&self, seed: u64) {
        self.machine().rng = Rng::new(seed);
    }

    /// Counts the changing operations so far.
    pub fn operations(&self) -> u64 {
        self.machine().operations()
    }

    /// Counts what a power cut now could lose.
    pub fn pending(&self) -> usize {
        self.machine().pending()
    }

    /// Lists the changing operations so far.
    pub fn trace(&self) -> Vec<Op> {
        self.machine().trace().to_vec()
    }

    /// Sums up all names and bytes as a reader sees them.
    pub fn digest(&self) -> u64 {
        self.machine().digest()
    }

    /// Sums up also what the medium holds, and how much is on its way there.
    pub fn deep_digest(&self) -> u64 {
        self.machine().deep_digest()
    }

    /// Returns all files as a reader sees them.
    pub fn files(&self) -> BTreeMap<String, Arc<Vec<u8>>> {
        let machine = self.machine();
        let file = |(name, id): (&String, &u64)| (name.clone(), machine.files[id].bytes().clone());
        machine.names.live().iter().map(file).collect()
    }

    /// Changes a file's bytes behind everybody's back, as failing media do.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut machine = self.machine();
        let id = machine.names.live()[name];
        machine.files.get_mut(&id).expect("a name stands for a file").damage(change);
    }

    /// Takes a name away behind everybody's back.
    pub fn erase(&self, name: &str) {
        let mut machine = self.machine();
        machine.names.unlink(0, name);
        machine.names.sync();
    }

    /// Puts a file with these bytes under a name, durable at once.
    pub fn plant(&self, name: &str, bytes: &[u8]) {
        let mut machine = self.machine();
        let id = machine.next_id();
        let mut file = File::default();
        file.damage(|image| image.extend_from_slice(bytes));
        machine.files.insert(id, file);
        machine.names.link(0, name, id);
        machine.names.sync();
    }

    /// Makes a machine in the same state, which from now on goes its own way. Its trace is new.
    pub fn copy(&self) -> Self {
        self.wrap(self.machine().bare_copy())
    }

    /// Begins to keep copies of the machine from before each changing operation, or ceases to.
    pub fn keep_boundaries(&self, keep: bool) {
        self.machine().keep_boundaries(keep);
    }

    /// Gives the copies kept since the last time: a crash at each of these moments would find
    /// them so.
    pub fn take_boundaries(&self) -> Vec<Self> {
        let boundaries = self.machine().take_boundaries();
        boundaries.into_iter().map(|machine| self.wrap(machine)).collect()
    }

    fn wrap(&self, machine: Machine) -> Self {
        Self { machine: Arc::new(Mutex::new(machine)), life: self.life }
    }

    pub(super) fn admit(
        &self,
        kind: OpKind,
        name: &str,
        to: &str,
    ) -> io::Result<(MutexGuard<'_, Machine>, Course)> {
        let op =
            Op { number: 0, kind, name: name.to_owned(), to: to.to_owned(), offset: 0, len: 0 };
        let mut machine = self.machine();
        let course = machine.admit(self.life, op)?;
        Ok((machine, course))
    }

    fn file(&self, id: u64, name: &str, access: Access) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), id, name: name.to_owned(), access })
    }
}

/// Carries out a change of the directory along its course.
pub(super) fn change(
    machine: &mut Machine,
    course: Course,
    apply: impl FnOnce(&mut Machine, u64),
) -> io::Result<()> {
    let number = machine.operations() - 1;
    match course {
        Course::Done => {
            apply(machine, number);
            Ok(())
        }
        Course::Fault(fault) => Err(fault.error()),
        Course::DieAfter => {
            apply(machine, number);
            Err(crashed())
        }
        Course::DieInside => {
            if machine.rng.chance(50) {
                apply(machine, number);
            }
            Err(crashed())
        }
    }
}

/// Lets an operation that changes nothing fail if it shall.
pub(super) fn look(course: Course) -> io::Result<()> {
    match course {
        Course::Fault(fault) => Err(fault.error()),
        _ => Ok(()),
    }
}

impl Disk for SimDisk {
    fn path(&self) -> String {
        "/simulated".to_owned()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let (mut machine, course) = self.admit(OpKind::List, "", "")?;
        look(course)?;
        // In no order, but the same for the same seed.
        let mut names: Vec<String> = machine.names.live().keys().cloned().collect();
        for at in (1..names.len()).rev() {
            let other = machine.rng.index(at + 1);
            names.swap(at, other);
        }
        Ok(names)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let (machine, course) = self.admit(OpKind::Open, name, "")?;
        look(course)?;
        let id = machine.names.live().get(name).copied();
        let direct = machine.options.direct;
        drop(machine);
        let access = match access {
            Access::Direct if !direct => Access::Write,
            access => access,
        };
        Ok(self.file(id.ok_or(io::ErrorKind::NotFound)?, name, access))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let (mut machine, course) = self.admit(OpKind::Create, name, "")?;
        if machine.names.live().contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = machine.next_id();
        change(&mut machine, course, |machine, number| {
            machine.files.insert(id, File::default());
            machine.names.link(number, name, id);
        })?;
        drop(machine);
        Ok(self.file(id, name, Access::Write))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (mut machine, course) = self.admit(OpKind::Rename, from, to)?;
        if !machine.names.live().contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        change(&mut machine, course, |machine, number| machine.names.rename(number, from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (mut machine, course) = self.admit(OpKind::Remove, name, "")?;
        let Some(id) = machine.names.live().get(name).copied() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        change(&mut machine, course, |machine, number| {
            machine.freed(id);
            machine.names.unlink(number, name);
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        let (mut machine, course) = self.admit(OpKind::SyncDir, "", "")?;
        // A failed one leaves the changes pending [M-5].
        change(&mut machine, course, |machine, _| machine.names.sync())
    }

    fn try_lock(&self) -> io::Result<Option<Box<dyn DiskLock>>> {
        let (mut machine, course) = self.admit(OpKind::Lock, LOCK, "")?;
        look(course)?;
        if machine.locked_by.is_some() {
            return Ok(None);
        }
        if !machine.names.live().contains_key(LOCK) {
            let id = machine.next_id();
            let number = machine.operations();
            machine.files.insert(id, File::default());
            machine.names.link(number, LOCK, id);
        }
        let holder = machine.next_id();
        machine.locked_by = Some(holder);
        Ok(Some(Box::new(SimLock { disk: self.clone(), holder })))
    }

    fn is_locked(&self) -> io::Result<bool> {
        let (machine, course) = self.admit(OpKind::Read, LOCK, "")?;
        look(course)?;
        Ok(machine.locked_by.is_some())
    }

    fn lock_note(&self) -> io::Result<Vec<u8>> {
        let (machine, course) = self.admit(OpKind::Read, LOCK, "")?;
        look(course)?;
        let id = machine.names.live().get(LOCK);
        Ok(id.map(|id| machine.files[id].bytes().to_vec()).unwrap_or_default())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let (machine, course) = self.admit(OpKind::List, "", "")?;
        look(course)?;
        Ok(machine.free())
    }

    fn alignment(&self) -> usize {
        self.machine().options.alignment
    }

    fn host(&self) -> String {
        self.machine().options.host.clone()
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk(process {}, {:?})", self.life, self.machine())
    }
}
