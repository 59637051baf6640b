//! Zips of pictures.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::open_file("pictures.zip", bytes));
