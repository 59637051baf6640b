//! IDX files, the format of MNIST.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::open_file("images-idx3-ubyte", bytes));
