//! The only place that starts threads and waits: it drives the engine's steps.

#![expect(clippy::disallowed_methods, reason = "this is the seam for threads and waiting")]

use crate::engine::Engine;
use crate::error::Error;
use crate::format::value::MarkerReason;
use crate::journal::options::Drive;
use crate::sync::lock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// After so long without a batch a marker proves the last one.
const IDLE: Duration = Duration::from_millis(250);

/// How long chores wait when there is nothing to do.
const REST: Duration = Duration::from_millis(500);

/// While callers write, chores take a rest of this length after each step of about a MiB, which
/// keeps them at some 50 MB/s.
const PACE: Duration = Duration::from_millis(20);

/// Steps of compaction, of some 16 KiB each, between two rests.
const COMPACTION_STEPS: u32 = 48;

/// Keeps the threads of a journal, and ends them with it.
#[derive(Debug)]
pub(crate) struct Driver {
    engine: Arc<Engine>,
    drive: Drive,
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Driver {
    /// Starts what the drive asks for.
    pub(crate) fn start(engine: Arc<Engine>, drive: Drive) -> Result<Self, Error> {
        let driver = Self { engine, drive, stop: Arc::default(), threads: Mutex::default() };
        if drive == Drive::Threads {
            driver.spawn("tokenwal-write", write)?;
            driver.spawn("tokenwal-chores", chores)?;
        }
        Ok(driver)
    }

    fn spawn(&self, name: &str, run: fn(&Engine, &AtomicBool)) -> Result<(), Error> {
        let (engine, stop) = (Arc::clone(&self.engine), Arc::clone(&self.stop));
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&engine, &stop))
            .map_err(Error::io("starting a thread", name))?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(crate) fn drive(&self) -> Drive {
        self.drive
    }

    /// Ends the threads; what was submitted is written before.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.engine.signal.raise();
        self.engine.chores.raise();
        let threads = std::mem::take(&mut *lock(&self.threads));
        let this = std::thread::current().id();
        // The last handle may go away on a thread of ours, with an outcome that its caller left
        // behind: such a thread ends by itself.
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != this) {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Writes batches for as long as there are any, and marks the end when there are none.
fn write(engine: &Engine, stop: &AtomicBool) {
    let _guard = PanicGuard(engine);
    loop {
        match engine.step_commit() {
            Ok(true) => continue,
            Ok(false) => {}
            Err(_) => return,
        }
        if stop.load(Ordering::Acquire) {
            return;
        }
        if !engine.signal.wait(IDLE) && engine.mark(MarkerReason::Idle).is_err() {
            return;
        }
    }
}

/// Lets nobody wait for a writer that has panicked.
struct PanicGuard<'a>(&'a Engine);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let source = std::io::Error::other("the writer panicked");
            let file = String::from("the journal");
            drop(self.0.poison(Error::Io { file, doing: "writing", source }));
        }
    }
}

/// When something that could not be done is tried again: later each time.
struct Backoff {
    longest: Duration,
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    fn new(longest: Duration) -> Self {
        Self { longest, failures: 0, until: None }
    }

    fn is_over(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() >= until)
    }

    fn failed(&mut self) {
        let wait = Duration::from_secs(1 << self.failures.min(9)).min(self.longest);
        self.failures += 1;
        self.until = Instant::now().checked_add(wait);
    }

    fn reset(&mut self) {
        *self = Self::new(self.longest);
    }
}

/// Prepares segments and compacts, at a pace that leaves the disk to the callers.
///
/// Where there is no room for a segment, compaction goes first: it is what may make some.
fn chores(engine: &Engine, stop: &AtomicBool) {
    let mut steps = 0;
    let mut preparing = Backoff::new(Duration::from_secs(8));
    let mut compacting = Backoff::new(Duration::from_secs(600));
    let mut batches = 0;
    while !stop.load(Ordering::Acquire) {
        let now = engine.counters.batches.load(Ordering::Relaxed);
        let busy = now != batches;
        batches = now;
        if preparing.is_over() {
            match engine.step_prepare() {
                Ok(true) => {
                    if busy && !engine.is_short_of_room() {
                        std::thread::sleep(PACE);
                    }
                    continue;
                }
                Ok(false) if engine.found_no_room() => preparing.failed(),
                Ok(false) => preparing.reset(),
                Err(_) => return,
            }
        }
        if compacting.is_over() && engine.is_compaction_due() {
            drop(engine.want_compaction());
        }
        match engine.step_compact() {
            Ok(true) => {
                steps += 1;
                if busy && steps % COMPACTION_STEPS == 0 {
                    std::thread::sleep(PACE);
                }
            }
            Ok(false) => {
                engine.chores.wait(REST);
            }
            Err(error) => {
                compacting.failed();
                tracing::warn!(target: "tokenwal", remedy = ?error.remedy(), "compaction gave up");
            }
        }
    }
}

/// Waits a little, again and again, until a time is over.
#[derive(Debug)]
pub(crate) struct Patience {
    /// None where it never ends.
    until: Option<Instant>,
}

impl Patience {
    pub(crate) fn new(time: Duration) -> Self {
        Self { until: Instant::now().checked_add(time) }
    }

    /// Waits a little; says false when the time is over.
    pub(crate) fn wait(&mut self) -> bool {
        let left = match self.until {
            Some(until) => until.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        };
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(left.min(Duration::from_millis(5)));
        true
    }
}
