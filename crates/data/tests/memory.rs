//! Images that are larger than the memory.

use std::alloc::System;
use std::io::Write;

use cap::Cap;
use data::{Cache, Cached, LoadOptions, Places, ReadContext, open_with};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// 320 images of 1 MiB, each of which starts with its index, within 160 MiB: twice a decoded chunk.
#[test]
fn images_larger_than_memory_are_read_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.npy");
    let (count, side) = (320usize, 1024usize);
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({count}, {side}, {side}), }}");
    let header = format!("{header:<117}\n");
    file.write_all(b"\x93NUMPY\x01\x00").unwrap();
    file.write_all(&(header.len() as u16).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let mut image = vec![7; side * side];
    for number in 0..count {
        image[0] = number as u8;
        file.write_all(&image).unwrap();
    }
    drop(file);

    let cache = Cache { folder: folder.path().join("cache"), at_least: 0, decoded_at_least: 0 };
    let open = |options: &LoadOptions| {
        let context = ReadContext { cache: Some(cache.clone()), progress: None };
        open_with(&Places::default(), path.to_str().unwrap(), options, &context).unwrap()
    };
    ALLOCATOR.set_limit(ALLOCATOR.allocated() + (160 << 20)).unwrap();
    let options = LoadOptions { padding: data::Padding::Multiple { of: 3, fill: 0 }, ..LoadOptions::default() };
    for expected in [Cached::Written, Cached::Read] {
        let loaded = open(&options);
        assert_eq!(loaded.cached, expected);
        assert!(loaded.images.is_mapped());
        assert_eq!(
            (loaded.images.len(), loaded.images.height(), loaded.images.content_size()),
            (count, 1026, (1024, 1024))
        );
        let (mut numbers, mut sum) = (vec![0.0; loaded.images.image_len()], 0.0);
        for index in 0..count {
            loaded.images.write_chw_f32(index, false, &mut numbers);
            assert_eq!(loaded.images.image(index)[1026 + 1], index as u8);
            sum += numbers.iter().map(|&number| f64::from(number)).sum::<f64>();
        }
        assert!(sum.is_finite());
    }
    ALLOCATOR.set_limit(usize::MAX).unwrap();
}
