//! Pictures that use little of their range, and `data.range`.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use data::{Cache, Cached, LoadOptions, Loaded, Places, ReadContext, open_with};
use image::{DynamicImage, ImageBuffer, Luma};

/// A picture of 20x20 with the values 0, 7, 14, … 2793, as of 12 bits.
fn twelve_bits() -> DynamicImage {
    ImageBuffer::<Luma<u16>, _>::from_fn(20, 20, |x, y| Luma([(y * 20 + x) as u16 * 7])).into()
}

fn open(path: &Path, options: &LoadOptions, context: &ReadContext) -> Result<Loaded, String> {
    open_with(&Places::default(), path.to_str().unwrap(), options, context).map_err(|error| error.to_string())
}

fn check_deep_pictures(extension: &str) {
    let folder = tempfile::tempdir().unwrap();
    let pictures = folder.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    for number in 0..2 {
        twelve_bits().save(pictures.join(format!("{number}.{extension}"))).unwrap();
    }
    let cache = Cache { folder: folder.path().join("cache"), at_least: 0, decoded_at_least: 0 };
    let context = ReadContext { cache: Some(cache), progress: None };
    // the account is the same from the cache
    for expected in [Cached::Written, Cached::Read] {
        let loaded = open(&pictures, &LoadOptions::default(), &context).unwrap();
        assert_eq!((loaded.cached, loaded.images.image(0)[399]), (expected, 11));
        let said = "they run from 0 to 2793 of 0 to 65535, so that pictures are nearly black; `data.range = [0, 4095]`";
        assert!(loaded.account.lines().iter().any(|line| line.contains(said)), "{:?}", loaded.account);
    }
    let stretch = LoadOptions { range: Some([0.0, 4095.0]), ..LoadOptions::default() };
    let loaded = open(&pictures, &stretch, &context).unwrap();
    let bytes: Vec<u8> = (0..400).map(|at| (f64::from(at * 7) / 4095.0 * 255.0).round() as u8).collect();
    assert_eq!((loaded.cached, loaded.images.image(1)), (Cached::Written, bytes.as_slice()));
    let said = "values from 0 to 4095 were taken as black to white (`data.range`), of values from 0 to 2793";
    assert_eq!(loaded.account.lines(), [said]);
    let loaded = open(&pictures, &LoadOptions { sixteen_bits: true, ..stretch.clone() }, &context).unwrap();
    let last = u16::from_le_bytes(loaded.images.image(0)[798..].try_into().unwrap());
    assert_eq!(last, (2793.0f64 / 4095.0 * 65535.0).round() as u16);
    // a picture of 8 bits among them is named
    DynamicImage::new_luma8(20, 20).save(pictures.join("flat.png")).unwrap();
    let error = open(&pictures, &stretch, &context).unwrap_err();
    assert!(error.contains("flat.png: its values end at 255"), "{error}");
}

#[test]
fn deep_pictures_are_stretched_from_their_range() {
    check_deep_pictures("png");
    check_deep_pictures("tiff");
}

#[test]
fn bytes_of_masks_are_noticed_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<u8> = (0..400).map(|at| (at % 10) as u8).collect();
    let header = [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0, 20];
    std::fs::write(folder.path().join("masks-idx3-ubyte"), [&header[..], &values].concat()).unwrap();
    let mask = ImageBuffer::<Luma<u8>, _>::from_raw(20, 20, values).unwrap();
    let pictures = folder.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    mask.save(pictures.join("mask.png")).unwrap();
    for path in [folder.path().join("masks-idx3-ubyte"), pictures] {
        let loaded = open(&path, &LoadOptions::default(), &ReadContext::default()).unwrap();
        assert_eq!(loaded.images.image(0)[9], 9);
        assert!(loaded.account.lines()[0].contains("`data.range = [0, 9]`"), "{:?}", loaded.account);
        let stretch = LoadOptions { range: Some([0.0, 9.0]), ..LoadOptions::default() };
        let loaded = open(&path, &stretch, &ReadContext::default()).unwrap();
        assert_eq!(loaded.images.image(0)[..10], [0, 28, 57, 85, 113, 142, 170, 198, 227, 255]);
    }
}
