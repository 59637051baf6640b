//! `dataset.json` of a folder of two pictures.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::with_file("labeled/00000/img00000000.pgm", b"P5 1 1 255\n\x01", |_| ());
    fuzz::with_file("labeled/00000/img00000001.pgm", b"P5 1 1 255\n\x02", |_| ());
    fuzz::open_folder("labeled/dataset.json", bytes);
});
