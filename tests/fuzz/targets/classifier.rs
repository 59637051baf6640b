//! Files of classifiers of noised images.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let device = burn::tensor::Device::flex();
    drop(fuzz::with_file("classifier.safetensors", bytes, |path| classifier::NoisedClassifier::load(path, &device)));
});
