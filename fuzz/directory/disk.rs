//! A directory in memory that never fails, counts what is read of it, and bounds it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokenwal::disk::{Access, Disk, DiskFile, DiskLock};

/// All files of a directory; a copy costs nothing until one side changes.
pub type Image = BTreeMap<String, Arc<Vec<u8>>>;

pub const LOCK: &str = "LOCK";

/// No buffer need be larger than the largest batch, or the file that it is read from.
const BUFFER_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<String, Shared>>>,
    locked: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
}

type Shared = Arc<Mutex<Bytes>>;

/// A file's bytes, and its length: zeros that were written at the end take no room.
#[derive(Debug, Clone, Default)]
struct Bytes {
    image: Arc<Vec<u8>>,
    length: usize,
}

impl Bytes {
    fn of(image: &Arc<Vec<u8>>) -> Self {
        Self { image: Arc::clone(image), length: image.len() }
    }

    fn read(&self, from: usize, buffer: &mut [u8]) -> usize {
        let from = from.min(self.length);
        let read = buffer.len().min(self.length - from);
        let there = self.image.get(from..).unwrap_or_default();
        let copied = there.len().min(read);
        buffer[..copied].copy_from_slice(&there[..copied]);
        buffer[copied..read].fill(0);
        read
    }

    fn write(&mut self, from: usize, bytes: &[u8]) {
        let end = from + bytes.len();
        self.length = self.length.max(end);
        if from >= self.image.len() && bytes.iter().fold(0, |all, byte| all | byte) == 0 {
            return;
        }
        let image = Arc::make_mut(&mut self.image);
        image.resize(image.len().max(end), 0);
        image[from..end].copy_from_slice(bytes);
    }

    fn whole(&self) -> Arc<Vec<u8>> {
        if self.length == self.image.len() {
            return Arc::clone(&self.image);
        }
        let mut whole = vec![0; self.length];
        self.read(0, &mut whole);
        Arc::new(whole)
    }
}

impl MemoryDisk {
    pub fn of(image: &Image) -> Self {
        let shared = |(name, bytes): (&String, &Arc<Vec<u8>>)| {
            (name.clone(), Arc::new(Mutex::new(Bytes::of(bytes))))
        };
        let disk = Self::default();
        *disk.files.lock().unwrap() = image.iter().map(shared).collect();
        disk
    }

    pub fn image(&self) -> Image {
        let files = self.files.lock().unwrap();
        files.iter().map(|(name, file)| (name.clone(), file.lock().unwrap().whole())).collect()
    }

    /// Counts the reads since the last time.
    pub fn take_reads(&self) -> u64 {
        self.reads.swap(0, Ordering::Relaxed)
    }

    fn named(&self, name: &str) -> io::Result<Shared> {
        let files = self.files.lock().unwrap();
        files.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    fn path(&self) -> String {
        "/memory".to_owned()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().unwrap().keys().cloned().collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let bytes = self.named(name)?;
        Ok(Arc::new(MemoryFile { bytes, reads: Arc::clone(&self.reads), access }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.files.lock().unwrap();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        files.insert(name.to_owned(), Shared::default());
        drop(files);
        self.open(name, Access::Write)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock().unwrap();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.files.lock().unwrap().remove(name);
        removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self) -> io::Result<Option<Box<dyn DiskLock>>> {
        if self.locked.swap(true, Ordering::Relaxed) {
            return Ok(None);
        }
        self.files.lock().unwrap().entry(LOCK.to_owned()).or_default();
        Ok(Some(Box::new(MemoryLock(self.clone()))))
    }

    fn is_locked(&self) -> io::Result<bool> {
        Ok(self.locked.load(Ordering::Relaxed))
    }

    fn lock_note(&self) -> io::Result<Vec<u8>> {
        Ok(self.named(LOCK).map(|note| note.lock().unwrap().whole().to_vec()).unwrap_or_default())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }

    fn alignment(&self) -> usize {
        512
    }

    fn host(&self) -> String {
        "memory".to_owned()
    }
}

#[derive(Debug)]
struct MemoryFile {
    bytes: Shared,
    reads: Arc<AtomicU64>,
    access: Access,
}

impl DiskFile for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.bytes.lock().unwrap();
        let most = BUFFER_BYTES_MAX.max(bytes.length);
        assert!(buffer.len() <= most, "a buffer of {} bytes", buffer.len());
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(bytes.read(usize::try_from(offset).unwrap_or(usize::MAX), buffer))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert_ne!(self.access, Access::Read, "a write through a file that is open for reading");
        let from = usize::try_from(offset).expect("nobody writes so far out");
        assert!(from <= 64 << 20, "a write at {offset}");
        self.bytes.lock().unwrap().write(from, bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().length as u64)
    }

    fn writes_are_durable(&self) -> bool {
        self.access == Access::Direct
    }
}

#[derive(Debug)]
struct MemoryLock(MemoryDisk);

impl DiskLock for MemoryLock {
    fn write_note(&self, note: &[u8]) -> io::Result<()> {
        let file = self.0.named(LOCK)?;
        *file.lock().unwrap() = Bytes::of(&Arc::new(note.to_vec()));
        Ok(())
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.locked.store(false, Ordering::Relaxed);
    }
}
