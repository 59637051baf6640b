//! `metadata.csv` of a folder of two pictures, and `labels.csv`, whose faults are no errors.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::with_file("listed/a.pgm", b"P5 1 1 255\n\x01", |_| ());
    fuzz::with_file("listed/b.pgm", b"P5 1 1 255\n\x02", |_| ());
    fuzz::open_folder("listed/metadata.csv", bytes);
    fuzz::with_file("labeled/a.pgm", b"P5 1 1 255\n\x01", |_| ());
    fuzz::open_folder("labeled/labels.csv", bytes);
});
