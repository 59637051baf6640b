//! CIFAR-10 batches of the Python version.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::open_file("data_batch_1", bytes));
