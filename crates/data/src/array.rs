//! NumPy arrays: `.npy`, and several of them in an `.npz`, as `numpy.save` and `numpy.savez` write them; see
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
//!
//! Images are `[count, height, width]`, `[count, height, width, channels]` or `[count, channels, height, width]`, of bytes or
//! unsigned 16-bit integers; labels `[count]` or `[count, 1]`, of integers.

use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};

use crate::account::Account;
use crate::classes::{Classes, Value};
use crate::collect::{Collection, Source, Visitor};
use crate::context::ReadContext;
use crate::decode::{Bare, Encoded, Header};
use crate::disk::{self, file_name};
use crate::error::DataError;
use crate::guard::guarded;
use crate::idx::LARGEST_GZIP_RATIO;
use crate::loaded::Loaded;
use crate::options::{ClassFrom, LoadOptions, Split};
use crate::pixels::allocate;
use crate::zipped;

/// The usual names of an archive's arrays of images and of their labels, for training ...
const TRAINING: [[&str; 2]; 8] = [
    ["arr_0", "arr_1"],
    ["images", "labels"],
    ["image", "label"],
    ["x_train", "y_train"],
    ["X_train", "y_train"],
    ["train_images", "train_labels"],
    ["x", "y"],
    ["data", "labels"],
];
/// ... and for testing.
const TESTING: [[&str; 2]; 3] = [["x_test", "y_test"], ["X_test", "y_test"], ["test_images", "test_labels"]];

/// Bytes of a header at most: the limit of NumPy itself.
const LARGEST_HEADER: usize = 10_000;

/// The place of an array.
struct Place {
    /// Its file; in an archive, `ARCHIVE/NAME.npy`.
    path: PathBuf,
    /// The archive, and the number of the array in it.
    part: Option<(PathBuf, usize)>,
}

impl Place {
    fn bad(&self, problem: String) -> DataError {
        DataError::bad_file(&self.path, problem)
    }

    fn cannot_be_read(&self, error: std::io::Error) -> DataError {
        self.bad(format!("cannot be read: {error}; get it again"))
    }

    /// Reads the header, and passes it and the stream of the values to `work`.
    fn read<R>(&self, work: impl FnOnce(Array, &mut dyn Read) -> Result<R, DataError>) -> Result<R, DataError> {
        let Some((archive, number)) = &self.part else {
            let (file, length) = disk::open(&self.path)?;
            let mut file = BufReader::with_capacity(1 << 20, file);
            return work(self.read_header(&mut file, length)?, &mut file);
        };
        let mut archive = zipped::open(archive)?;
        let mut part = archive.by_index(*number).map_err(|error| self.cannot_be_read(error.into()))?;
        let (packed, length) = (part.compressed_size(), part.size());
        if length > packed.saturating_mul(LARGEST_GZIP_RATIO).saturating_add(1024) {
            let problem = format!("claims to have {length} bytes, which {packed} cannot be unpacked to; get it again");
            return Err(self.bad(problem));
        }
        work(self.read_header(&mut part, length)?, &mut part)
    }

    /// Reads a header; the array has `bytes` bytes in its file, and its header must claim as many.
    fn read_header(&self, reader: &mut dyn Read, bytes: u64) -> Result<Array, DataError> {
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => self.bad("ends within its header; it is truncated, get it again".into()),
            _ => self.cannot_be_read(error),
        };
        let mut start = vec![0; 8];
        reader.read_exact(&mut start).map_err(failed)?;
        if !start.starts_with(b"\x93NUMPY") {
            return Err(self.bad("is no NumPy array: it does not start with \\x93NUMPY".into()));
        }
        // version 1 has a shorter length than the later ones
        let width = if start[6] >= 2 { 4 } else { 2 };
        let mut length = [0; 4];
        reader.read_exact(&mut length[..width]).map_err(failed)?;
        start.extend(&length[..width]);
        let length = u32::from_le_bytes(length) as usize;
        if length > LARGEST_HEADER {
            return Err(self.bad(format!("its header claims to have {length} bytes, more than {LARGEST_HEADER}")));
        }
        let mut text = vec![0; length];
        reader.read_exact(&mut text).map_err(failed)?;
        // the parser calls itself for each bracket
        if text.iter().filter(|byte| b"([{".contains(byte)).count() > 16 {
            return Err(self.bad("its header has too many brackets for an array of numbers".into()));
        }
        start.extend(text);
        let header = guarded(|| NpyHeader::from_reader(start.as_slice()))
            .unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
            .map_err(|error| self.bad(format!("its header cannot be read: {error}")))?;
        let DType::Plain(plain) = header.dtype() else {
            return Err(self.bad("holds records; an array of numbers is expected".into()));
        };
        let (shape, item_bytes) = (header.shape().to_vec(), plain.num_bytes().unwrap_or(0));
        let claimed = shape.iter().try_fold(item_bytes as u64, |product, &side| product.checked_mul(side));
        let length = bytes.saturating_sub(start.len() as u64);
        if claimed != Some(length) {
            return Err(self.bad(format!(
                "its header claims {shape:?} values of {item_bytes} bytes, but {length} bytes follow; get it again"
            )));
        }
        Ok(Array {
            shape,
            kind: plain.type_char(),
            item_bytes,
            big_endian: plain.endianness() == Endianness::Big,
            column_major: header.order() == Order::Fortran,
            type_name: plain.to_string(),
            length,
        })
    }

    /// The layout of an array of images.
    fn layout(&self) -> Result<Layout, DataError> {
        self.read(|array, _| array.layout().map_err(|problem| self.bad(problem)))
    }

    /// The values of an array of `count` labels.
    fn labels(&self, count: usize) -> Result<Vec<Value>, DataError> {
        self.read(|array, values| {
            array.check_labels(count).map_err(|problem| self.bad(problem))?;
            let mut bytes = Vec::new();
            values.take(array.length).read_to_end(&mut bytes).map_err(|error| self.cannot_be_read(error))?;
            if bytes.len() as u64 != array.length {
                return Err(self.bad("is truncated; get it again".into()));
            }
            Ok(bytes.chunks_exact(array.item_bytes).map(|item| Value::Number(array.integer(item))).collect())
        })
    }
}

/// The header of an array.
struct Array {
    shape: Vec<u64>,
    /// `u` unsigned, `i` signed, `f` floating point, `b` Boolean, …
    kind: TypeChar,
    item_bytes: usize,
    big_endian: bool,
    column_major: bool,
    /// The type in the header.
    type_name: String,
    /// Bytes of values.
    length: u64,
}

/// The layout of an array of images.
struct Layout {
    count: usize,
    header: Header,
    planar: bool,
    big_endian: bool,
}

impl Array {
    /// The layout of an array of images, or the reason why it is none.
    fn layout(&self) -> Result<Layout, String> {
        let sixteen_bits = match (self.kind, self.item_bytes) {
            (TypeChar::Uint, 1) => false,
            (TypeChar::Uint, 2) => true,
            _ => {
                return Err(format!(
                    "holds values of type {}; images are of type uint8 or uint16 (in Python, for values from 0 to 1: \
                     `(255 * x).round().astype(\"uint8\")`)",
                    self.type_name
                ));
            }
        };
        let (count, height, width, channels, planar) = match self.shape[..] {
            [count, height, width] => (count, height, width, 1, false),
            [count, height, width, channels @ (1 | 3 | 4)] => (count, height, width, channels, false),
            [count, channels @ (1 | 3 | 4), height, width] => (count, height, width, channels, true),
            _ => {
                return Err(format!(
                    "has the shape {:?}; images are [count, height, width], or that with 1, 3 or 4 channels in the last \
                     or second place",
                    self.shape
                ));
            }
        };
        if self.column_major {
            return Err("is in Fortran order; save `numpy.ascontiguousarray(x)` instead".into());
        }
        if self.length == 0 {
            return Err(format!("holds no image: its shape is {:?}", self.shape));
        }
        let side = |side: u64| usize::try_from(side).map_err(|_| format!("its shape {:?} is too large", self.shape));
        let header = Header { height: side(height)?, width: side(width)?, channels: side(channels)?, sixteen_bits };
        Ok(Layout { count: side(count)?, header, planar, big_endian: self.big_endian })
    }

    /// The reason why this is no array of `count` labels.
    fn check_labels(&self, count: usize) -> Result<(), String> {
        let shape = &self.shape;
        if !matches!(self.kind, TypeChar::Int | TypeChar::Uint) || !(1..=8).contains(&self.item_bytes) {
            return Err(format!("holds values of type {}; labels are integers", self.type_name));
        }
        if !matches!(shape[..], [_] | [_, 1]) || shape[0] != count as u64 {
            return Err(format!("has the shape {shape:?}, but there are {count} images, with a label each"));
        }
        Ok(())
    }

    /// An integer of 1 to 8 bytes.
    fn integer(&self, item: &[u8]) -> i64 {
        let mut wide = [0; 8];
        wide[..item.len()].copy_from_slice(item);
        if self.big_endian {
            wide[..item.len()].reverse();
        }
        if self.kind == TypeChar::Int && wide[item.len() - 1] & 0x80 != 0 {
            wide[item.len()..].fill(0xff);
        }
        i64::from_le_bytes(wide)
    }
}

/// Pictures that are rows of an array.
struct Rows {
    place: Place,
    layout: Layout,
}

impl Source for Rows {
    fn len(&self) -> usize {
        self.layout.count
    }

    fn title(&self, index: usize) -> PathBuf {
        PathBuf::from(format!("{}: image {index}", self.place.path.display()))
    }

    fn uniform(&self) -> Option<Header> {
        Some(self.layout.header)
    }

    fn visit(&self, indices: &[usize], visit: &mut Visitor<'_>) -> Result<(), DataError> {
        let Layout { header, planar, big_endian, .. } = self.layout;
        let image_bytes = header.height * header.width * header.channels * if header.sixteen_bits { 2 } else { 1 };
        let failed = |error| self.place.cannot_be_read(error);
        self.place.read(|_, values| {
            let mut at = 0;
            for &index in indices {
                let skipped = (index - at) as u64 * image_bytes as u64;
                std::io::copy(&mut values.take(skipped), &mut std::io::sink()).map_err(failed)?;
                let mut bytes = allocate(image_bytes as u128, &self.place.path)?;
                values.take(image_bytes as u64).read_to_end(&mut bytes).map_err(failed)?;
                if bytes.len() != image_bytes {
                    return Err(failed(ErrorKind::UnexpectedEof.into()));
                }
                if header.sixteen_bits && big_endian {
                    bytes.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
                }
                at = index + 1;
                visit(index, Encoded::Bare(Bare { header, planar, bytes }))?;
            }
            Ok(())
        })
    }
}

/// Reads the array of images at `images`, and that of labels at `labels`; `root` is the file that they lie in.
fn load(
    name: &str,
    root: &Path,
    images: Place,
    labels: Option<Place>,
    options: &LoadOptions,
    context: &ReadContext,
) -> Result<Loaded, DataError> {
    let layout = images.layout()?;
    let classes = match labels {
        Some(place) => {
            let values = place.labels(layout.count)?;
            if options.class_from == ClassFrom::None {
                Classes::default()
            } else {
                Classes::by_value(&place.path, values, None)?
            }
        }
        None => Classes::default(),
    };
    // one file may hold several arrays of images
    let files = vec![(file_name(&images.path), root.to_path_buf())];
    let source = Rows { place: images, layout };
    Collection { name, root, files, source: &source, classes, unreadable: Vec::new(), account: Account::default() }
        .load(options, context)
}

/// Reads the array of images at `path`, and the array of labels beside it, if there is one.
pub(crate) fn load_npy(
    name: &str,
    path: &Path,
    options: &LoadOptions,
    context: &ReadContext,
) -> Result<Loaded, DataError> {
    if options.split == Split::Test {
        let problem = format!("an array has no splits; name the array of test images ({})", path.display());
        return Err(DataError::bad_option("split", problem));
    }
    let place = |path: PathBuf| Place { path, part: None };
    load(name, path, place(path.to_path_buf()), labels_beside(path).map(place), options, context)
}

/// The name of the labels of the array of images `images`, if that has a usual name.
fn usual_labels(images: &str) -> Option<&'static str> {
    TRAINING.iter().chain(&TESTING).find(|[usual, _]| *usual == images).map(|[_, labels]| *labels)
}

/// The array of labels beside one of images: `x_train.npy` and `y_train.npy`, `images.npy` and `labels.npy`, `cats.npy` and
/// `cats_labels.npy`.
fn labels_beside(images: &Path) -> Option<PathBuf> {
    let stem = images.file_stem()?.to_str()?;
    [stem.replace("images", "labels"), format!("{stem}_labels")]
        .into_iter()
        .chain(usual_labels(stem).map(String::from))
        .filter(|name| name != stem)
        .map(|name| images.with_file_name(format!("{name}.npy")))
        .find(|path| path.is_file())
}

/// Reads the array of images of the archive at `path`, and the array of labels, if there is one: those that the options name,
/// else those with a usual name.
pub(crate) fn load_npz(
    name: &str,
    path: &Path,
    options: &LoadOptions,
    context: &ReadContext,
) -> Result<Loaded, DataError> {
    let archive = zipped::open(path)?;
    let arrays: Vec<(String, usize)> = (0..archive.len())
        .filter_map(|number| {
            let name = archive.name_for_index(number)?.ok()?;
            Some((npyz::npz::array_name_from_file_name(&name)?.to_string(), number))
        })
        .collect();
    let names = arrays.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let find = |name: &str| {
        let (_, number) = arrays.iter().find(|(array, _)| array == name)?;
        Some(Place { path: path.join(format!("{name}.npy")), part: Some((path.to_path_buf(), *number)) })
    };
    let named = |key, name: &str| {
        let problem = || format!("{} has no array `{name}`; it has: {names}", path.display());
        find(name).ok_or_else(|| DataError::bad_option(key, problem()))
    };
    let usual = if options.split == Split::Train { &TRAINING[..] } else { &TESTING[..] };
    let images = match &options.image_column {
        Some(given) => given.as_str(),
        None => match usual.iter().find(|[images, _]| find(images).is_some()) {
            Some([images, _]) => images,
            None if options.split == Split::Test => {
                let problem = format!("{} has no array of test images; it has: {names}", path.display());
                return Err(DataError::bad_option("split", problem));
            }
            None if arrays.len() == 1 => arrays[0].0.as_str(),
            None => {
                let problem = format!("{}: which array holds the images? it has: {names}", path.display());
                return Err(DataError::bad_option("image_column", problem));
            }
        },
    };
    let place = named("image_column", images)?;
    let labels = match &options.label_column {
        Some(given) => Some(named("label_column", given)?),
        None => usual_labels(images).and_then(find),
    };
    load(name, path, place, labels, options, context)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;
    use crate::testing::write;

    /// The bytes that `numpy.save` writes.
    fn npy(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
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
        let load =
            |name: &str, bytes: &[u8]| open(&write(&folder, name, bytes), &LoadOptions::default()).unwrap().images;
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
        assert_eq!(open(&path, &LoadOptions::default()).unwrap().images.labels(), Some([3, 1].as_slice()));

        let column = npy(">i2", "2, 1", &[0, 2, 0, 0]);
        let arrays = [("x_test", images(20)), ("y_test", column), ("x_train", images(7)), ("y_train", labels)];
        let path = write(&folder, "all.npz", &npz(&arrays));
        let train = open(&path, &LoadOptions::default()).unwrap().images;
        assert_eq!((train.image(0)[0], train.labels(), train.classes()), (7, Some([3, 1].as_slice()), 4));
        let test = LoadOptions { split: Split::Test, ..LoadOptions::default() };
        let test = open(&path, &test).unwrap().images;
        assert_eq!((test.image(0)[0], test.labels()), (20, Some([2, 0].as_slice())));
        let named = LoadOptions {
            image_column: Some("x_test".into()),
            label_column: Some("y_train".into()),
            ..LoadOptions::default()
        };
        let named = open(&path, &named).unwrap().images;
        assert_eq!((named.image(0)[0], named.labels()), (20, Some([3, 1].as_slice())));
        let unlabeled = LoadOptions { class_from: ClassFrom::None, ..LoadOptions::default() };
        assert_eq!(open(&path, &unlabeled).unwrap().images.labels(), None);
    }

    #[test]
    fn files_without_an_array_of_images_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let deep = format!("{}{}", "(".repeat(5000), ")".repeat(5000));
        let cases: Vec<(&str, Vec<u8>, &str)> = vec![
            ("float.npy", npy("<f4", "1, 1, 1", &[0; 4]), "uint8"),
            ("vector.npy", npy("|u1", "4,", &[0; 4]), "has the shape [4]"),
            ("none.npy", npy("|u1", "0, 2, 2", &[]), "no image"),
            ("short.npy", npy("|u1", "2, 2, 2", &[0; 7]), "7 bytes follow"),
            ("long.npy", npy("|u1", "2, 2, 2", &[0; 9]), "9 bytes follow"),
            ("huge.npy", npy("|u1", "4294967296, 4294967296, 4294967296", &[0; 9]), "9 bytes follow"),
            ("deep.npy", npy("|u1", &deep, &[]), "more than 10000"),
            ("brackets.npy", npy("|u1", &deep[4900..5100], &[]), "brackets"),
            ("text.npy", b"this is no array".to_vec(), "NUMPY"),
            ("cut.npy", npy("|u1", "2, 2, 2", &[])[..40].to_vec(), "truncated"),
            ("object.npy", npy("|O", "1, 1, 1", &[0; 8]), "object.npy"),
            ("record.npy", npy("[('a', '<u2')]", "1, 1, 1", &[0; 2]).replace_quotes(), "record.npy"),
            ("several.npz", npz(&[("a", npy("|u1", "1, 1, 1", &[0])), ("b", npy("|u1", "1, 1, 1", &[0]))]), "a, b"),
            ("labels.npz", npz(&[("x", npy("|u1", "1, 1, 1", &[0])), ("y", npy("|u1", "2,", &[0, 0]))]), "1 images"),
            ("half.npz", npz(&[("x", npy("|u1", "1, 1, 1", &[0])), ("y", npy("<f4", "1,", &[0; 4]))]), "integers"),
            ("cut.npz", npz(&[("x", npy("|u1", "1, 1, 1", &[0]))])[..60].to_vec(), "zip archive"),
        ];
        for (name, bytes, expected) in cases {
            let error = open(&write(&folder, name, &bytes), &LoadOptions::default()).unwrap_err();
            assert!(error.contains(name) && error.contains(expected), "{name}: {error}");
        }
        let fortran = npy("|u1", "1, 2, 2", &[0; 4]);
        let text = String::from_utf8_lossy(&fortran[10..]).replace("False", "True ");
        let bytes = [&fortran[..10], text.as_bytes()].concat();
        let error = open(&write(&folder, "fortran.npy", &bytes), &LoadOptions::default()).unwrap_err();
        assert!(error.contains("ascontiguousarray"), "{error}");
        let test = LoadOptions { split: Split::Test, ..LoadOptions::default() };
        for name in ["float.npy", "several.npz"] {
            assert!(open(&folder.path().join(name), &test).unwrap_err().contains("`split`"));
        }
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
}
