//! Damage to a copy of a store, of the kinds that disks and people do.

use crate::sim::Rng;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

const BLOCK: u64 = 4096;

/// One or more things that are done to the files of a store.
#[derive(Debug)]
pub(crate) struct Damage(Vec<Act>);

#[derive(Debug, Clone)]
enum Act {
    Flip {
        file: String,
        offset: u64,
        bit: u8,
    },
    /// A field of a file's first 16 bytes: magic, version, checksum.
    Front {
        file: String,
        offset: u64,
        byte: u8,
    },
    Zero {
        file: String,
        offset: u64,
        bytes: u64,
    },
    Garbage {
        file: String,
        offset: u64,
        bytes: u64,
    },
    Truncate {
        file: String,
        bytes: u64,
    },
    Extend {
        file: String,
    },
    SwapBlocks {
        file: String,
        one: u64,
        other: u64,
    },
    CopyBlock {
        from: String,
        to: String,
        block: u64,
        into: u64,
    },
    SwapFiles {
        one: String,
        other: String,
    },
    Duplicate {
        from: String,
        to: String,
    },
    Remove {
        file: String,
    },
}

impl Damage {
    /// Draws damage to the store in a directory, near what is written there rather than in zeros.
    pub(crate) fn draw(dir: &Path, rng: &mut Rng) -> Self {
        let files = files(dir);
        let acts = 1 + rng.index(2);
        Self((0..acts).map(|_| draw(dir, &files, rng)).collect())
    }

    /// Says whether only one thing is done.
    pub(crate) fn is_one(&self) -> bool {
        self.0.len() == 1
    }

    /// Copies a store and damages the copy.
    pub(crate) fn apply(&self, from: &Path, to: &Path) {
        let _ = fs::remove_dir_all(to);
        fs::create_dir(to).unwrap();
        fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
        for name in files(from) {
            fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
        for act in &self.0 {
            act.apply(to);
        }
    }
}

fn files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name != "LOCK");
    names.sort();
    names
}

/// Finds where a file's last byte that is not zero stands.
fn written(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap_or_default() as u64
}

fn draw(dir: &Path, files: &[String], rng: &mut Rng) -> Act {
    // The last files matter most: the end of the journal, and the snapshot.
    let file = match rng.chance(50) {
        true => rng.pick(files).clone(),
        false => {
            let segments: Vec<_> = files.iter().filter(|name| name.contains("segment")).collect();
            let busy = segments.iter().rev().find(|name| written(&dir.join(name)) >= BLOCK);
            (**busy.unwrap_or(&segments[0])).clone()
        }
    };
    let end = written(&dir.join(&file)) + 1;
    let offset = match rng.chance(40) {
        // At the last batch or behind it.
        true => (end.saturating_sub(2 * BLOCK) + rng.below(4 * BLOCK)).min(end + 3 * BLOCK),
        false => rng.below(end),
    };
    let block = |rng: &mut Rng| (rng.below(end / BLOCK + 2)) * BLOCK;
    match rng.below(20) {
        0..6 => Act::Flip { file, offset, bit: (rng.below(8)) as u8 },
        6..9 => Act::Zero { file, offset, bytes: 1 + rng.below(2 * BLOCK) },
        9..11 => Act::Garbage { file, offset, bytes: 1 + rng.below(2 * BLOCK) },
        11 => Act::Truncate { file, bytes: offset },
        12 => Act::Extend { file },
        13 => Act::SwapBlocks { one: block(rng), other: block(rng), file },
        14 => {
            let to = rng.pick(files).clone();
            Act::CopyBlock { block: block(rng), into: block(rng), from: file, to }
        }
        15 => Act::SwapFiles { other: rng.pick(files).clone(), one: file },
        16 => {
            let number = rng.below(40);
            let to = match rng.chance(70) {
                true => format!("segment-{number:020}.twj"),
                false => format!("snapshot-{number:020}.tws"),
            };
            Act::Duplicate { from: file, to }
        }
        17 if files.len() > 2 => Act::Remove { file },
        _ => Act::Front { file, offset: rng.below(16), byte: 1 + (rng.below(3)) as u8 },
    }
}

impl Act {
    fn apply(&self, dir: &Path) {
        // An act before may have removed the file.
        let open = |name: &str| OpenOptions::new().read(true).write(true).open(dir.join(name)).ok();
        let read = |name: &str, offset: u64, bytes: u64| {
            let file = open(name)?;
            let mut buffer = vec![0; bytes as usize];
            let mut filled = 0;
            while let Ok(1..) = file
                .read_at(&mut buffer[filled..], offset + filled as u64)
                .inspect(|read| filled += read)
            {}
            buffer.truncate(filled);
            Some(buffer)
        };
        // Nothing grows by damage within a file.
        let write = |name: &str, offset: u64, bytes: &[u8]| {
            let Some(file) = open(name) else { return };
            let left = file.metadata().unwrap().len().saturating_sub(offset) as usize;
            file.write_all_at(&bytes[..left.min(bytes.len())], offset).unwrap();
        };
        match self {
            Self::Flip { file, offset, bit } => {
                let byte = read(file, *offset, 1).unwrap_or_default();
                write(file, *offset, &byte.iter().map(|byte| byte ^ 1 << bit).collect::<Vec<_>>());
            }
            Self::Front { file, offset, byte } => write(file, *offset, &[*byte]),
            Self::Zero { file, offset, bytes } => write(file, *offset, &vec![0; *bytes as usize]),
            Self::Garbage { file, offset, bytes } => {
                let mut garbage = vec![0; *bytes as usize];
                Rng::new(*offset).fill(&mut garbage);
                write(file, *offset, &garbage);
            }
            Self::Truncate { file, bytes } => {
                open(file).inspect(|file| file.set_len(*bytes).unwrap());
            }
            Self::Extend { file } => {
                let longer = |file: &fs::File| {
                    let bytes = file.metadata().unwrap().len();
                    file.write_all_at(b"more than there was", bytes).unwrap();
                };
                open(file).inspect(longer);
            }
            Self::SwapBlocks { file, one, other } => {
                let blocks = (read(file, *one, BLOCK), read(file, *other, BLOCK));
                write(file, *one, &blocks.1.unwrap_or_default());
                write(file, *other, &blocks.0.unwrap_or_default());
            }
            Self::CopyBlock { from, to, block, into } => {
                write(to, *into, &read(from, *block, BLOCK).unwrap_or_default());
            }
            Self::SwapFiles { one, other } => {
                let (one, other, spare) = (dir.join(one), dir.join(other), dir.join("spare"));
                if one != other && one.exists() && other.exists() {
                    fs::rename(&one, &spare).unwrap();
                    fs::rename(&other, &one).unwrap();
                    fs::rename(&spare, &other).unwrap();
                }
            }
            Self::Duplicate { from, to } => {
                if from != to && dir.join(from).exists() {
                    fs::copy(dir.join(from), dir.join(to)).unwrap();
                }
            }
            Self::Remove { file } => {
                let _ = fs::remove_file(dir.join(file));
            }
        }
    }
}
