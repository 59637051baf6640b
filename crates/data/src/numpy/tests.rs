//! The tests of arrays, made as NumPy writes them.

use std::io::{Cursor, Write};

use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;
use crate::testing::write;

/// The bytes that `numpy.save` writes.
fn npy(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    in_order("False", descr, shape, values)
}

fn in_order(is_fortran: &str, descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': {is_fortran}, 'shape': ({shape}), }}");
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.bytes());
    bytes.extend(values);
    bytes
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        writer.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn open(path: &Path, options: &LoadOptions) -> Result<Loaded, String> {
    let read = if path.extension().is_some_and(|extension| extension == "npz") { load_npz } else { load_npy };
    read("array", path, options, &ReadContext::default()).map_err(|error| error.to_string())
}

#[test]
fn every_layout_gives_the_same_images() {
    let folder = tempfile::tempdir().unwrap();
    let load = |name: &str, bytes: &[u8]| open(&write(&folder, name, bytes), &LoadOptions::default()).unwrap().images;
    // two images of 1x2 in three channels: red 1 2, green 3 4, blue 5 6; and ten more of each
    let last = load("last.npy", &npy("|u1", "2, 1, 2, 3", &[1, 3, 5, 2, 4, 6, 11, 13, 15, 12, 14, 16]));
    let second = load("second.npy", &npy("|u1", "2, 3, 1, 2", &[1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16]));
    assert_eq!((last.len(), last.height(), last.width(), last.channels()), (2, 1, 2, 3));
    assert_eq!(last.image(0), [1, 3, 5, 2, 4, 6]);
    assert_eq!(last.content_hash(), second.content_hash());
    let gray = load("gray.npy", &npy("|u1", "2, 1, 3", &[1, 2, 3, 4, 5, 6]));
    assert_eq!((gray.channels(), gray.image(1)), (1, [4, 5, 6].as_slice()));

    let deep = [0x0101u16, 0xffff, 0x8000, 1];
    let little: Vec<u8> = deep.iter().flat_map(|value| value.to_le_bytes()).collect();
    let big: Vec<u8> = deep.iter().flat_map(|value| value.to_be_bytes()).collect();
    let keep = LoadOptions { sixteen_bits: true, ..LoadOptions::default() };
    for (name, descr, bytes) in [("little.npy", "<u2", &little), ("big.npy", ">u2", &big)] {
        let path = write(&folder, name, &npy(descr, "1, 2, 2", bytes));
        let kept = open(&path, &keep).unwrap().images;
        assert_eq!((kept.sixteen_bits(), kept.image(0)), (true, little.as_slice()));
        let bytes = open(&path, &LoadOptions::default()).unwrap().images;
        assert_eq!((bytes.sixteen_bits(), bytes.image(0)), (false, [1, 255, 128, 0].as_slice()));
    }
}

#[test]
fn options_are_applied() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "x.npy", &npy("|u1", "5, 2, 2", &(0..20).collect::<Vec<_>>()));
    let options = LoadOptions { limit: Some(2), channels: Some(3), size: Some((4, 4)), ..LoadOptions::default() };
    let images = open(&path, &options).unwrap().images;
    assert_eq!((images.len(), images.height(), images.channels()), (2, 4, 3));
    let two = open(&path, &LoadOptions { limit: Some(2), ..LoadOptions::default() }).unwrap().images;
    assert_eq!((two.image(0), two.image(1)), ([0, 1, 2, 3].as_slice(), [8, 9, 10, 11].as_slice()));
}

#[test]
fn labels_are_read_beside_or_within() {
    let folder = tempfile::tempdir().unwrap();
    let images = |first| npy("|u1", "2, 1, 1", &[first, first + 1]);
    let labels = npy("<i8", "2,", &[3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    write(&folder, "y_train.npy", &labels);
    let path = write(&folder, "x_train.npy", &images(7));
    assert_eq!(open(&path, &LoadOptions::default()).unwrap().images.labels(), Some([1, 0].as_slice()));

    let column = npy(">i2", "2, 1", &[0, 2, 0, 0]);
    let arrays = [("x_test", images(20)), ("y_test", column), ("x_train", images(7)), ("y_train", labels)];
    let path = write(&folder, "all.npz", &npz(&arrays));
    let loaded = open(&path, &LoadOptions::default()).unwrap();
    let of_test = "2 arrays of all.npz left out: a split that is not trained on (x_test, y_test)";
    assert!(loaded.account.lines().contains(&of_test.to_string()), "{:?}", loaded.account.lines());
    let train = loaded.images;
    assert_eq!((train.image(0)[0], train.labels(), train.classes()), (7, Some([1, 0].as_slice()), 2));
    let test = LoadOptions { split: Split::Test, ..LoadOptions::default() };
    let test = open(&path, &test).unwrap().images;
    assert_eq!((test.image(0)[0], test.labels()), (20, Some([1, 0].as_slice())));
    let named = LoadOptions {
        image_column: Some("x_test".into()),
        label_column: Some("y_train".into()),
        ..LoadOptions::default()
    };
    let named = open(&path, &named).unwrap().images;
    assert_eq!((named.image(0)[0], named.labels()), (20, Some([1, 0].as_slice())));
    let unlabeled = LoadOptions { class_from: ClassFrom::None, ..LoadOptions::default() };
    assert_eq!(open(&path, &unlabeled).unwrap().images.labels(), None);
}

#[test]
fn files_without_an_array_of_images_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let deep = format!("{}{}", "(".repeat(5000), ")".repeat(5000));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("complex.npy", npy("<c8", "1, 1, 1", &[0; 8]), "values of type <c8"),
        ("quad.npy", npy("<f16", "1, 1, 1", &[0; 16]), "values of type <f16"),
        ("words.npy", npy("<U1", "1, 1, 1", &[0; 4]), "holds strings"),
        ("empty.npy", npy("|S0", "1, 1, 1", &[]), "0 bytes"),
        ("flat.npy", npy("|u1", "8, 320", &[0; 2560]), "8 flat images"),
        ("long_sides.npy", npy("|u1", "1, 100, 100, 70", &[0; 700_000]), "neither the second nor the last"),
        ("five.npy", npy("<f4", "1, 1, 2", &[0, 0, 160, 64, 0, 0, 0, 0]), "from 0 to 5, which is not 0 to 1"),
        ("signed.npy", npy("|i1", "1, 1, 2", &[0, 100]), "`data.range = [0, 100]`"),
        ("vector.npy", npy("|u1", "4,", &[0; 4]), "has the shape [4]"),
        ("none.npy", npy("|u1", "0, 2, 2", &[]), "no image"),
        ("short.npy", npy("|u1", "2, 2, 2", &[0; 7]), "7 bytes follow"),
        ("long.npy", npy("|u1", "2, 2, 2", &[0; 9]), "9 bytes follow"),
        ("huge.npy", npy("|u1", "4294967296, 4294967296, 4294967296", &[0; 9]), "9 bytes follow"),
        ("deep.npy", npy("|u1", &deep, &[]), "more than 10000"),
        ("brackets.npy", npy("|u1", &deep[4900..5100], &[]), "brackets"),
        ("text.npy", b"this is no array".to_vec(), "NUMPY"),
        ("cut.npy", npy("|u1", "2, 2, 2", &[])[..40].to_vec(), "truncated"),
        ("object.npy", npy("|O", "1, 1, 1", &[0; 8]), "pickled objects"),
        ("record.npy", npy("[('a', '<u2')]", "1, 1, 1", &[0; 2]).replace_quotes(), "record.npy"),
        ("several.npz", npz(&[("a", npy("|u1", "1, 1, 1", &[0])), ("b", npy("|u1", "1, 1, 1", &[0]))]), "it has: a, b"),
        ("labels.npz", npz(&[("x", npy("|u1", "1, 1, 1", &[0])), ("y", npy("|u1", "2,", &[0, 0]))]), "1 images"),
        ("odd.npz", npz(&[("x", npy("|u1", "1, 1, 1", &[0])), ("y", npy("<c8", "1,", &[0; 8]))]), "numbers or strings"),
        ("cut.npz", npz(&[("x", npy("|u1", "1, 1, 1", &[0]))])[..60].to_vec(), "zip archive"),
    ];
    for (name, bytes, expected) in cases {
        let error = open(&write(&folder, name, &bytes), &LoadOptions::default()).unwrap_err();
        assert!(error.contains(name) && error.contains(expected), "{name}: {error}");
    }
    let test = LoadOptions { split: Split::Test, ..LoadOptions::default() };
    for name in ["five.npy", "several.npz"] {
        assert!(open(&folder.path().join(name), &test).unwrap_err().contains("`split`"));
    }
}

/// Two pictures of 8x10 in 3 channels.
fn pictures() -> Vec<u8> {
    (0..2 * 8 * 10 * 3).map(|at| (at * 7 % 256) as u8).collect()
}

const SHAPE: &str = "2, 8, 10, 3";

/// The pictures as numbers of another type.
fn as_type<const SIZE: usize>(number: impl Fn(f64) -> [u8; SIZE]) -> Vec<u8> {
    pictures().iter().flat_map(|&byte| number(f64::from(byte))).collect()
}

fn load(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> Loaded {
    open(&write(folder, name, bytes), &LoadOptions::default()).unwrap()
}

#[test]
fn every_type_gives_the_same_images() {
    let folder = tempfile::tempdir().unwrap();
    let expected = load(&folder, "u1.npy", &npy("|u1", SHAPE, &pictures()));
    assert_eq!(expected.account, Account::default());
    let types = [
        ("<f4", as_type(|value| ((value / 255.0) as f32).to_le_bytes()), "0 to 1", "float32"),
        (">f4", as_type(|value| ((value / 127.5 - 1.0) as f32).to_be_bytes()), "-1 to 1", "float32"),
        ("<f8", as_type(|value| (value / 255.0).to_le_bytes()), "0 to 1", "float64"),
        ("<f4", as_type(|value| (value as f32).to_le_bytes()), "0 to 255", "float32"),
        ("<i8", as_type(|value| (value as i64).to_le_bytes()), "0 to 255", "int64"),
        (">u4", as_type(|value| (257 * value as u32).to_be_bytes()), "0 to 65535", "uint32"),
        ("<i2", as_type(|value| (value as i16).to_le_bytes()), "0 to 255", "int16"),
    ];
    for (at, (descr, bytes, range, name)) in types.iter().enumerate() {
        let loaded = load(&folder, &format!("{at}.npy"), &npy(descr, SHAPE, bytes));
        assert_eq!(loaded.images.content_hash(), expected.images.content_hash(), "{descr} {at}");
        assert_eq!(loaded.account.lines(), [format!("values from {range} were taken as black to white ({name})")]);
    }
    let mask = load(&folder, "bool.npy", &npy("|b1", "2, 1, 2", &[0, 1, 1, 0])).images;
    assert_eq!((mask.image(0), mask.image(1)), ([0, 255].as_slice(), [255, 0].as_slice()));
    // numpy.float16 of 0, 0.5 and 1
    let path = write(&folder, "half.npy", &npy("<f2", "1, 1, 3", &[0, 0, 0, 0x38, 0, 0x3c]));
    assert_eq!(open(&path, &LoadOptions::default()).unwrap().images.image(0), [0, 128, 255]);
    let deep = open(&path, &LoadOptions { sixteen_bits: true, ..LoadOptions::default() }).unwrap().images;
    assert_eq!((deep.sixteen_bits(), &deep.image(0)[2..]), (true, [0, 128, 255, 255].as_slice()));
}

#[test]
fn words_are_rounded_to_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let words: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let images = load(&folder, "words.npy", &npy("<u2", "1, 256, 256", &words)).images;
    let expected: Vec<u8> = (0..=u16::MAX).map(|word| ((u32::from(word) + 128) / 257) as u8).collect();
    assert!(images.image(0) == expected);
}

/// The values of an array of this shape in Fortran order.
fn fortran([first, second, third, fourth]: [usize; 4], values: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for last in 0..fourth {
        for column in 0..third {
            for row in 0..second {
                bytes.extend((0..first).map(|image| values[((image * second + row) * third + column) * fourth + last]));
            }
        }
    }
    bytes
}

#[test]
fn fortran_order_gives_the_same_images() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = pictures();
    let expected = load(&folder, "c.npy", &npy("|u1", SHAPE, &pictures)).images;
    let last = in_order("True", "|u1", SHAPE, &fortran([2, 8, 10, 3], &pictures));
    let path = write(&folder, "f.npy", &last);
    assert_eq!(open(&path, &LoadOptions::default()).unwrap().images.content_hash(), expected.content_hash());
    let one = open(&path, &LoadOptions { limit: Some(1), ..LoadOptions::default() }).unwrap().images;
    assert_eq!((one.len(), one.image(0)), (1, expected.image(0)));
    let archived = load(&folder, "f.npz", &npz(&[("images", last)])).images;
    assert_eq!(archived.content_hash(), expected.content_hash());
    // channels first, and gray
    let planes: Vec<u8> = (0..2)
        .flat_map(|image| (0..3).flat_map(move |channel| (0..80).map(move |at| (image * 80 + at) * 3 + channel)))
        .map(|at| pictures[at])
        .collect();
    let planar = in_order("True", "|u1", "2, 3, 8, 10", &fortran([2, 3, 8, 10], &planes));
    assert_eq!(load(&folder, "p.npy", &planar).images.content_hash(), expected.content_hash());
    let gray = load(&folder, "g.npy", &in_order("True", "<u2", "2, 1, 2", &[1, 1, 3, 3, 2, 2, 4, 4])).images;
    assert_eq!((gray.image(0), gray.image(1)), ([1, 2].as_slice(), [3, 4].as_slice()));
}

#[test]
fn numbers_that_are_not_finite_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = [0.0, 1.0, 0.5, f32::NAN, 0.25, 0.75].map(f32::to_le_bytes).concat();
    let path = write(&folder, "x.npy", &npy("<f4", "3, 2, 1", &numbers));
    let error = open(&path, &LoadOptions::default()).unwrap_err();
    let expected = "image 1: its value at row 1, column 0, channel 0 is NaN";
    assert!(error.contains("1 of 3") && error.contains(expected), "{error}");
    let skip = LoadOptions { skip_unreadable: true, ..LoadOptions::default() };
    let loaded = open(&path, &skip).unwrap();
    assert_eq!((loaded.images.len(), loaded.images.image(1), loaded.skipped.len()), (2, [64, 191].as_slice(), 1));
    let infinite = npy("<f4", "1, 1, 1", &f32::INFINITY.to_le_bytes());
    assert!(open(&write(&folder, "inf.npy", &infinite), &LoadOptions::default()).unwrap_err().contains("is inf"));
}

#[test]
fn a_range_is_taken_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = [-1024i16, 0, 3071, 5000].map(i16::to_le_bytes).concat();
    let path = write(&folder, "ct.npy", &npy("<i2", "1, 2, 2", &numbers));
    let error = open(&path, &LoadOptions::default()).unwrap_err();
    assert!(error.contains("ct.npy: values run from -1024 to 5000") && error.contains("data.range"), "{error}");
    let loaded = open(&path, &LoadOptions { range: Some([-1024.0, 3071.0]), ..LoadOptions::default() }).unwrap();
    assert_eq!(loaded.images.image(0), [0, 64, 255, 255]);
    let said = "values from -1024 to 3071 were taken as black to white (`data.range`), of values from -1024 to 5000; \
                those beyond were clamped";
    assert_eq!(loaded.account.lines(), [said]);
    // 12 bits in 16
    let words: Vec<u8> = (0..400u16).flat_map(|at| (at * 6).to_le_bytes()).collect();
    let path = write(&folder, "deep.npy", &npy("<u2", "1, 20, 20", &words));
    let account = open(&path, &LoadOptions::default()).unwrap().account;
    let said = "they run from 0 to 2394 of 0 to 65535, so that pictures are nearly black; `data.range = [0, 4095]`";
    assert!(account.decisions.iter().any(|decision| decision.contains(said)), "{account:?}");
    let stretch = LoadOptions { range: Some([0.0, 4095.0]), ..LoadOptions::default() };
    assert_eq!(open(&path, &stretch).unwrap().images.image(0)[399], 149);
    // the range of 16 bits makes bytes black
    let error = open(&write(&folder, "u1.npy", &npy("|u1", SHAPE, &pictures())), &stretch).unwrap_err();
    assert!(error.contains("end at 255"), "{error}");
}

/// Labels, classes and the account of three pictures with this array of labels.
fn labels(descr: &str, shape: &str, values: &[u8]) -> (Option<Vec<u32>>, Option<Vec<String>>, Account) {
    let folder = tempfile::tempdir().unwrap();
    let bytes = npz(&[("images", npy("|u1", "3, 1, 1", &[1, 2, 3])), ("labels", npy(descr, shape, values))]);
    let Loaded { images, account, .. } = load(&folder, "a.npz", &bytes);
    (images.labels().map(<[u32]>::to_vec), images.class_names().map(<[String]>::to_vec), account)
}

#[test]
fn labels_of_every_kind() {
    let floats = [1.0f32, 0.0, 2.0].map(f32::to_le_bytes).concat();
    assert_eq!(labels("<f4", "3,", &floats).0, Some(vec![1, 0, 2]));
    assert_eq!(labels(">f8", "3, 1", &[1.0f64, 0.0, 1.0].map(f64::to_be_bytes).concat()).0, Some(vec![1, 0, 1]));
    assert_eq!(labels("|b1", "3,", &[1, 0, 1]).0, Some(vec![1, 0, 1]));
    let (one_hot, _, account) = labels("|u1", "3, 3", &[0, 0, 1, 1, 0, 0, 0, 1, 0]);
    assert_eq!(one_hot, Some(vec![2, 0, 1]));
    assert!(account.decisions[0].contains("one-hot"), "{account:?}");
    let names = Some(vec!["bright".to_string(), "dark".to_string()]);
    let (of_bytes, names_of_bytes, _) = labels("|S6", "3,", b"dark\0\0brightdark\0\0");
    assert_eq!((of_bytes, names_of_bytes), (Some(vec![1, 0, 1]), names.clone()));
    let text: Vec<u8> =
        "dark\0\0brightdark\0\0".chars().flat_map(|character| (character as u32).to_be_bytes()).collect();
    let (of_text, names_of_text, _) = labels(">U6", "3, 1", &text);
    assert_eq!((of_text, names_of_text), (Some(vec![1, 0, 1]), names));
}

#[test]
fn labels_that_are_no_classes_are_a_doubt() {
    let (none, _, account) = labels("<f4", "3,", &[1.0f32, 0.5, 2.0].map(f32::to_le_bytes).concat());
    assert_eq!(none, None);
    let doubt = account.doubts().next().unwrap().to_string();
    let expected = "labels.npy left out: is float32, and label 1 is 0.5";
    assert!(doubt.contains(expected) && doubt.contains("class_from"), "{doubt}");
    let (none, _, account) = labels("|u1", "3, 2", &[0, 1, 1, 1, 0, 1]);
    assert!(none.is_none() && account.doubts().next().unwrap().reason.contains("row 1 is not one-hot"));
    // asked for by name, they are an error
    let folder = tempfile::tempdir().unwrap();
    let arrays = [("x", npy("|u1", "1, 1, 1", &[1])), ("y", npy("<f4", "1,", &0.5f32.to_le_bytes()))];
    let path = write(&folder, "a.npz", &npz(&arrays));
    let named = LoadOptions { label_column: Some("y".into()), ..LoadOptions::default() };
    assert!(open(&path, &named).unwrap_err().contains("a.npz/y.npy: is float32"));
}

#[test]
fn arrays_that_are_not_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let images = || npy("|u1", "2, 1, 1", &[1, 2]);
    let label = || npy("|u1", "2,", &[0, 1]);
    let parts =
        [("train_images", images()), ("train_labels", label()), ("val_images", images()), ("test_images", images())];
    let account = load(&folder, "medmnist.npz", &npz(&parts)).account;
    let said = "2 arrays of medmnist.npz left out: a split that is not trained on (val_images, test_images)";
    assert_eq!((account.lines(), account.doubts().count()), (vec![said.to_string()], 0));
    // images are found by their shape, labels by another usual name
    let other = npz(&[("scans", images()), ("target", label()), ("weights", npy("<f4", "2,", &[0; 8]))]);
    let loaded = load(&folder, "scans.npz", &other);
    assert_eq!((loaded.images.labels(), loaded.account.decisions.len()), (Some([0, 1].as_slice()), 2));
    // in any letter case
    let loaded = load(&folder, "upper.npz", &npz(&[("X", images()), ("y", label())]));
    assert_eq!((loaded.images.labels(), loaded.account), (Some([0, 1].as_slice()), Account::default()));
    write(&folder, "Y_train.npy", &label());
    let loaded = load(&folder, "X_train.npy", &images());
    assert_eq!(loaded.images.labels(), Some([0, 1].as_slice()));
    assert!(loaded.account.lines()[0].ends_with("Y_train.npy"));
    // labels that are not found are a doubt, unless none are wanted
    let path = write(&folder, "kinds.npz", &npz(&[("x", images()), ("kinds", label())]));
    let doubt = open(&path, &LoadOptions::default()).unwrap().account.doubts().next().unwrap().to_string();
    assert!(doubt.contains("`data.label_column = \"kinds\"`"), "{doubt}");
    let none = LoadOptions { class_from: ClassFrom::None, ..LoadOptions::default() };
    assert_eq!(open(&path, &none).unwrap().account.doubts().count(), 0);
}

#[test]
fn one_picture_is_an_array_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let picture = &pictures()[..240];
    let Loaded { images, account, .. } = load(&folder, "one.npy", &npy("|u1", "8, 10, 3", picture));
    assert_eq!((images.len(), images.height(), images.width(), images.channels()), (1, 8, 10, 3));
    assert!(images.image(0) == picture && account.decisions[0].contains("one picture"), "{account:?}");
    let turned = in_order("True", "|u1", "8, 10, 3", &fortran([1, 8, 10, 3], picture));
    assert_eq!(load(&folder, "f.npy", &turned).images.content_hash(), images.content_hash());
    let gray = load(&folder, "g.npy", &npy("|u1", "10, 24", picture)).images;
    assert_eq!((gray.len(), gray.height(), gray.width(), gray.channels()), (1, 10, 24, 1));
}

trait ReplaceQuotes {
    fn replace_quotes(self) -> Vec<u8>;
}

impl ReplaceQuotes for Vec<u8> {
    /// A type that is a list has no quotes.
    fn replace_quotes(self) -> Vec<u8> {
        let text = String::from_utf8_lossy(&self[10..]).replace("'[", " [").replace("]'", "] ");
        [&self[..10], text.as_bytes()].concat()
    }
}
