#![no_main]

#[path = "../shim.rs"]
mod shim;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shim::line(data);
});
