//! What the machine says of this process, and what it does with files by itself.

use super::store::Outcome;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How much is read and written at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Returns the most memory that this process ever had resident, in bytes.
pub fn peak_bytes() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no VmHWM")?;
    Ok(kib.trim().parse::<u64>()? << 10)
}

/// Measures a piece of work of one thread: how long it took, and how long it had a core.
pub struct Stopwatch {
    start: Instant,
    core_ns: u64,
}

impl Stopwatch {
    pub fn start() -> Outcome<Self> {
        Ok(Self { core_ns: core_ns()?, start: Instant::now() })
    }

    /// Returns seconds by the clock, and seconds on a core.
    pub fn stop(self) -> Outcome<(f64, f64)> {
        let wall_s = self.start.elapsed().as_secs_f64();
        Ok((wall_s, (core_ns()? - self.core_ns) as f64 / 1e9))
    }
}

/// How long this thread has been running on a core.
fn core_ns() -> Outcome<u64> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(stat.split_whitespace().next().ok_or("an empty schedstat")?.parse()?)
}

/// Returns how many processes wanted a core lately.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// Returns the files of a store whose names begin like this.
pub fn files(dir: &Path, prefix: &str) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    for file in fs::read_dir(dir)? {
        let file = file?;
        if file.file_name().to_string_lossy().starts_with(prefix) {
            files.push(file.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Returns their length in bytes.
pub fn length(files: &[PathBuf]) -> Outcome<u64> {
    files.iter().try_fold(0, |sum, file| Ok(sum + fs::metadata(file)?.len()))
}

/// Lets the system forget what it has read of these files.
pub fn forget(files: &[PathBuf]) -> Outcome<()> {
    for path in files {
        let file = File::open(path)?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

/// Reads files from end to end and computes the CRC-32 of each, which is the least that any
/// replay does with them.
pub fn read_and_check(files: &[PathBuf]) -> Outcome<(f64, f64)> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let watch = Stopwatch::start()?;
    for path in files {
        let mut file = File::open(path)?;
        let mut crc = crc32fast::Hasher::new();
        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                break;
            }
            crc.update(&chunk[..read]);
        }
        std::hint::black_box(crc.finalize());
    }
    watch.stop()
}

/// Copies a file and makes the copy durable.
pub fn copy(from: &Path, to: &Path) -> Outcome<f64> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let start = Instant::now();
    let (mut from, to) = (File::open(from)?, File::create(to)?);
    let mut at = 0;
    loop {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        to.write_all_at(&chunk[..read], at)?;
        at += read as u64;
    }
    to.sync_data()?;
    Ok(start.elapsed().as_secs_f64())
}
