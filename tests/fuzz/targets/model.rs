//! Model files.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let device = burn::tensor::Device::flex();
    drop(fuzz::with_file("model.safetensors", bytes, |path| checkpoint::Model::load(path, &device)));
});
