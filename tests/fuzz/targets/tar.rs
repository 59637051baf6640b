//! Tars of pictures, packed or not, and those of WebDataset.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::open_file("pictures.tar", bytes));
