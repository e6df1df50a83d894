//! The whole-directory target: a sound store, edits of its files, and all that can be done to a
//! store, with what must hold of it whatever the bytes are.

mod disk;
mod edits;
mod expect;
#[path = "../../tests/sim/rng.rs"]
mod rng;
mod stores;
#[path = "../../tests/sim/world.rs"]
mod world;

use disk::MemoryDisk;
use edits::Input;

/// Builds the directory that an input says, and does all that can be done to it; says whether it
/// opened.
pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let sound = stores::store(input.byte());
    let mend = input.mend();
    let mut image = sound.clone();
    input.edit(&mut image);
    mend.files(&mut image, sound);

    let found = expect::look(&MemoryDisk::of(&image));
    if !mend.quick {
        expect::salvage(&MemoryDisk::of(&image));
    }
    expect::serve(&MemoryDisk::of(&image), &found)
}
