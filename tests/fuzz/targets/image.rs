//! A picture in a folder; what kind it is its first bytes say.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::open_folder("pictures/picture.png", bytes));
