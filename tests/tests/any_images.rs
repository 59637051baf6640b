//! Images of every format, from the file to the sample.

use std::path::Path;

use end_to_end::Workplace;
use image::{GenericImageView, ImageBuffer, Luma, Rgb};

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/data/tests/golden").join(name);
    path.canonicalize().expect("a golden file").display().to_string()
}

/// Trains for three steps with a network that halves images once, and returns its error output.
fn train(place: &Workplace, data: &str, settings: &[&str]) -> String {
    let mut arguments = vec!["--data", data, "--run", "run", "--steps", "3"];
    let network =
        ["data.held_out=0", "unet.patch_size=1", "unet.dim_mults=[1, 2]", "unet.attention=[]", "sampling.count=2"];
    for setting in network.iter().chain(settings) {
        arguments.extend(["--set", setting]);
    }
    place.train_tiny(&arguments).succeeded().error
}

/// Writes a folder of pictures.
fn pictures<P, C>(place: &Workplace, count: u32, picture: impl Fn(u32) -> ImageBuffer<P, C>)
where
    P: image::PixelWithColorType,
    [P::Subpixel]: image::EncodableLayout,
    C: std::ops::Deref<Target = [P::Subpixel]>,
{
    std::fs::create_dir(place.path("pictures")).expect("a folder");
    for number in 0..count {
        picture(number).save(place.path(format!("pictures/{number}.png"))).expect("written");
    }
}

#[test]
fn every_format_is_inspected() {
    let place = Workplace::new();
    for (name, arguments, expected) in [
        ("hugging_face.parquet", &[][..], &["count      7", "size       5x6", "channels   3", "class      bee: 2"][..]),
        ("pandas.parquet", &["--label-column", "kind"], &["channels   1", "class      cow: 2"]),
        ("arrays.npz", &[], &["channels   3", "class      2: 2"]),
        ("deep.npy", &["--sixteen-bits"], &["bits       16", "channels   1"]),
        ("pictures.zip", &[], &["channels   1", "class      ant: 3"]),
        ("table.zip", &[], &["class      ant: 3"]),
    ] {
        let path = golden(name);
        let printed = place.run(&[&["data", "inspect", &path], arguments].concat()).succeeded().output;
        for part in expected {
            assert!(printed.contains(part), "{name}: {printed}");
        }
        assert!(place.path("preview.png").is_file());
    }
    let arguments = ["data", "inspect", &golden("pandas.parquet"), "--label-column", "sort"];
    place.run(&arguments).refused(&["`sort`", "kind"]);
}

#[test]
fn odd_sizes_are_padded_and_samples_cropped_back() {
    let place = Workplace::new();
    pictures(&place, 6, |number| {
        ImageBuffer::from_fn(21, 13, |x, y| Rgb([x as u8 * 10, y as u8 * 15, number as u8 * 40]))
    });
    let output = train(&place, "pictures", &["data.channels=3", "data.pad_to=22"]);
    assert!(output.contains("13x21 padded to 22x22"), "{output}");
    std::fs::remove_dir_all(place.path("run")).expect("removed");
    let output = train(&place, "pictures", &["training.class_labels=false"]);
    // the network halves once
    assert!(output.contains("13x21 padded to 14x22"), "{output}");
    std::fs::remove_dir_all(place.path("run")).expect("removed");
    let output = train(&place, "pictures", &["data.image_size=[10, 16]"]);
    assert!(output.contains("10x16, 3 channel(s)"), "{output}");
    std::fs::remove_dir_all(place.path("run")).expect("removed");
    train(&place, "pictures", &[]);
    place.run(&["sample", "run", "--count", "2", "--steps", "2", "--save", "png,npz"]).succeeded();
    let sample = image::open(place.path("samples/00001.png")).expect("a picture");
    assert_eq!(sample.dimensions(), (21, 13));
    // the samples are an array of images
    let printed = place.run(&["data", "inspect", "samples/samples.npz"]).succeeded().output;
    assert!(printed.contains("size       13x21") && printed.contains("count      2"), "{printed}");
}

#[test]
fn images_of_sixteen_bits_give_samples_of_sixteen_bits() {
    let place = Workplace::new();
    pictures(&place, 4, |number| ImageBuffer::from_fn(8, 8, |x, y| Luma([(number * 9000 + (x * 8 + y) * 3) as u16])));
    let settings = ["data.sixteen_bits=true", "training.class_labels=false"];
    let output = train(&place, "pictures", &settings);
    assert!(output.contains("1 channel(s) of 16 bits"), "{output}");
    place.run(&["sample", "run", "--count", "2", "--steps", "2", "--save", "grid,png,npz"]).succeeded();
    let sample = image::open(place.path("samples/00000.png")).expect("a picture");
    let values = sample.as_luma16().expect("16 bits").as_raw().clone();
    assert!(values.iter().any(|value| value % 257 != 0), "the values are those of bytes: {values:?}");
    assert_eq!(image::open(place.path("samples/grid.png")).expect("a grid").color().bytes_per_pixel(), 1);
    let printed = place.run(&["data", "inspect", "samples/samples.npz", "--sixteen-bits"]).succeeded().output;
    assert!(printed.contains("bits       16"), "{printed}");
    // without the setting images and samples have bytes
    std::fs::remove_dir_all(place.path("run")).expect("removed");
    train(&place, "pictures", &settings[1..]);
    place.run(&["sample", "run", "--count", "1", "--steps", "2", "--save", "png"]).succeeded();
    assert_eq!(image::open(place.path("samples/00000.png")).expect("a picture").color().bytes_per_pixel(), 1);
}

#[test]
fn large_data_is_decoded_once() {
    let place = Workplace::new();
    // 17 MB: noise is not compressible
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let noise: Vec<u8> = std::iter::repeat_with(&mut random).take(3_000_000).collect();
    pictures(&place, 6, |number| {
        let mut values = noise.clone();
        values.rotate_left(number as usize);
        image::RgbImage::from_raw(1000, 1000, values).expect("a picture")
    });
    let settings = ["data.image_size=16", "training.class_labels=false"];
    let images = place.path(".cache/diffuse/images");
    let output = train(&place, "pictures", &settings);
    assert!(output.contains(&format!("decoded images are kept in {}", images.display())), "{output}");
    let first = std::fs::read(place.path("run/model.safetensors")).expect("a model");
    std::fs::remove_dir_all(place.path("run")).expect("removed");
    let output = train(&place, "pictures", &settings);
    assert!(output.contains("decoded images are taken from"), "{output}");
    assert!(first == std::fs::read(place.path("run/model.safetensors")).expect("a model"), "another model");

    let printed = place.run(&["data", "cache"]).succeeded().output;
    assert!(printed.contains(".images") && printed.contains("in 1 files of"), "{printed}");
    let printed = place.run(&["data", "cache", "--clear"]).succeeded().output;
    assert!(printed.starts_with("freed"), "{printed}");
    assert!(place.run(&["data", "cache"]).succeeded().output.contains("in 0 files of"));
}

#[test]
fn bands_without_colors_are_learnt_and_sampled() {
    let place = Workplace::new();
    std::fs::create_dir(place.path("pictures")).expect("a folder");
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/image/bands.tiff");
    for number in 0..4 {
        std::fs::copy(&seed, place.path(format!("pictures/{number}.tiff"))).expect("written");
    }
    let settings = ["training.class_labels=false", "data.image_size=8", "data.preview_channels=[4, 0, 2]"];
    let output = train(&place, "pictures", &settings);
    assert!(output.contains("5 channel(s)"), "{output}");
    place.run(&["sample", "run", "--count", "2", "--steps", "2", "--save", "grid,npz"]).succeeded();
    assert_eq!(image::open(place.path("samples/grid.png")).expect("a grid").color(), image::ColorType::Rgb8);
    let printed = place.run(&["data", "inspect", "samples/samples.npz"]).succeeded().output;
    assert!(printed.contains("channels   5"), "{printed}");
    place.run(&["sample", "run", "--count", "2", "--save", "png"]).refused(&["5 channels", "--save npz"]);
}
