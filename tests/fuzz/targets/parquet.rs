//! Parquet files of pictures, as of Hugging Face.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::open_file("pets.parquet", bytes));
