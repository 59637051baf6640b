//! Pictures in a folder; the first bytes determine the format.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::open_folder("pictures/picture.png", bytes));
