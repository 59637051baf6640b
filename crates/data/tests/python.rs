//! Files of Python's libraries, written by `golden/make.py`.

use data::{ImageSet, LoadOptions, Places, open_in};

const COUNT: usize = 7;

fn open(name: &str, options: &LoadOptions) -> ImageSet {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    open_in(&Places::default(), &path, options).unwrap_or_else(|error| panic!("{name}: {error}")).images
}

/// The formula of make.py.
fn value(image: usize, row: usize, column: usize, channel: usize) -> u8 {
    (41 * image + 7 * row + 3 * column + 11 * channel) as u8
}

/// The picture of image `index` where pictures are sorted by class first.
fn by_class(index: usize) -> usize {
    [0, 3, 6, 1, 4, 2, 5][index]
}

fn check(name: &str, images: &ImageSet, channels: usize, picture: impl Fn(usize) -> usize) {
    assert_eq!((images.len(), images.height(), images.width(), images.channels()), (COUNT, 5, 6, channels), "{name}");
    for index in 0..COUNT {
        for (at, &got) in images.image(index).iter().enumerate() {
            let (row, column, channel) = (at / channels / 6, at / channels % 6, at % channels);
            assert_eq!(got, value(picture(index), row, column, channel), "{name}: image {index}, value {at}");
        }
        assert_eq!(images.label(index), Some(picture(index) as u32 % 3), "{name}: image {index}");
    }
}

#[test]
fn parquet_of_hugging_face_and_of_pandas() {
    let images = open("hugging_face.parquet", &LoadOptions::default());
    check("hugging face", &images, 3, |index| index);
    assert_eq!(images.class_names().unwrap(), ["ant", "bee", "cow"]);
    // a column of bytes holds images; the column of labels has to be named
    let kind = LoadOptions { label_column: Some("kind".into()), ..LoadOptions::default() };
    let images = open("pandas.parquet", &kind);
    check("pandas", &images, 1, |index| index);
    assert_eq!(images.class_names().unwrap(), ["ant", "bee", "cow"]);
    assert_eq!(open("pandas.parquet", &LoadOptions::default()).labels(), None);
}

#[test]
fn parquet_of_gzip_and_brotli() {
    for name in ["gzip.parquet", "brotli.parquet"] {
        check(name, &open(name, &LoadOptions::default()), 1, |index| index);
    }
}

#[test]
fn arrays_of_numpy() {
    check("npz", &open("arrays.npz", &LoadOptions::default()), 3, |index| index);
    let deep = open("deep.npy", &LoadOptions { sixteen_bits: true, ..LoadOptions::default() });
    let bytes = open("deep.npy", &LoadOptions::default());
    for index in 0..COUNT {
        for (at, pair) in deep.image(index).chunks_exact(2).enumerate() {
            let expected = u16::from(value(index, at / 6, at % 6, 0));
            assert_eq!(u16::from_le_bytes([pair[0], pair[1]]), 256 * expected + 255 - expected);
        }
        assert_eq!(*deep.bytes(index), *bytes.image(index));
    }
}

#[test]
fn numbers_of_every_kind() {
    let floats = open("floats.npz", &LoadOptions::default());
    check("floats", &floats, 3, |index| index);
    assert_eq!(floats.class_names().unwrap(), ["ant", "bee", "cow"]);
    check("one hot", &open("one_hot.npz", &LoadOptions::default()), 3, |index| index);
    let fortran = open("fortran.npy", &LoadOptions::default());
    for index in 0..COUNT {
        assert_eq!(fortran.image(index), floats.image(index), "image {index}");
    }
}

#[test]
fn archives_of_python() {
    check("zip", &open("pictures.zip", &LoadOptions::default()), 1, by_class);
    let images = open("table.zip", &LoadOptions::default());
    check("table", &images, 1, |index| index);
    assert_eq!(images.class_names().unwrap(), ["ant", "bee", "cow"]);
}

/// A file among those that the fuzz targets begin with, which Python 3.11 and numpy 2.4 have written.
fn seed(name: &str) -> ImageSet {
    open(&format!("../../../../tests/fuzz/seeds/{name}"), &LoadOptions::default())
}

#[test]
fn pickles_of_python() {
    for protocol in 2..=4 {
        let images = seed(&format!("pickle/protocol_{protocol}"));
        assert_eq!((images.len(), images.labels(), images.classes()), (1, Some([3].as_slice()), 10));
        for (at, &got) in images.image(0).iter().enumerate() {
            let place = at % 3 * 1024 + at / 3;
            assert_eq!(usize::from(got), place % 251, "protocol {protocol}, value {at}");
        }
    }
}

#[test]
fn tars_of_python() {
    for name in ["tar/webdataset.tar", "tar/small.tar.bz2"] {
        let images = seed(name);
        assert_eq!((images.image(0), images.image(1)), ([1; 2].as_slice(), [2; 2].as_slice()), "{name}");
        assert_eq!(images.labels(), Some([1, 0].as_slice()), "{name}");
    }
    for name in ["tar/pax.tar", "tar/gnu.tgz"] {
        let images = seed(name);
        assert_eq!(images.labels(), Some([0, 1, 1].as_slice()), "{name}");
        assert_eq!([0, 1, 2].map(|index| images.image(index)[0]), [1, 2, 3], "{name}");
        assert_eq!(images.class_names().unwrap(), ["a", "b"], "{name}");
    }
}
