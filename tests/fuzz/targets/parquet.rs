//! A Parquet file, as Hugging Face writes it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::open_file("pets.parquet", bytes));
