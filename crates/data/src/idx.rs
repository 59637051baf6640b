//! IDX, the format of MNIST: two zero bytes, a type, the number of dimensions, each dimension as a big-endian `u32`,
//! then the values, last dimension fastest. Plain or gzip. <http://yann.lecun.com/exdb/mnist/> describes it.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use files::Action;
use flate2::read::MultiGzDecoder;

use crate::error::DataError;
use crate::image_set::ImageSet;
use crate::options::Split;

/// Deflate cannot shrink more than about 1032 to 1: what a gzip file of some length can hold at most.
pub(crate) const LARGEST_GZIP_RATIO: u64 = 1032;

/// How much memory is set aside on the word of a header alone; beyond it, memory grows with the data that is there.
const TRUSTED_BYTES: u64 = 64 << 20;

/// An array of bytes out of an IDX file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdxArray {
    /// Length of each dimension, slowest first.
    pub dimensions: Vec<usize>,
    /// The values, row-major.
    pub bytes: Vec<u8>,
}

/// Reads the IDX file of unsigned bytes at `path`, gzip or not (told by its first bytes).
///
/// The header is checked against the file's size before anything is allocated.
///
/// # Errors
/// [`DataError::File`], or [`DataError::BadFile`] where the file is not IDX, not of unsigned bytes, shorter or longer
/// than its header says, or its gzip stream is broken.
pub fn read(path: &Path) -> Result<IdxArray, DataError> {
    // first of all: to open a pipe would wait for a writer
    let metadata = std::fs::metadata(path).map_err(|error| DataError::io(Action::Read, path, error))?;
    if !metadata.is_file() {
        return Err(DataError::bad_file(path, "is not a regular file; an IDX file is expected"));
    }
    let file = File::open(path).map_err(|error| DataError::io(Action::Read, path, error))?;
    read_stream(BufReader::new(file), metadata.len(), path)
}

/// Reads IDX out of `stream`, which holds `length` bytes; `path` is for messages only.
pub(crate) fn read_stream(mut stream: impl BufRead, length: u64, path: &Path) -> Result<IdxArray, DataError> {
    let start = stream.fill_buf().map_err(|error| DataError::io(Action::Read, path, error))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        let most = length.saturating_mul(LARGEST_GZIP_RATIO);
        read_array(MultiGzDecoder::new(stream), most, false, path)
    } else {
        read_array(stream, length, true, path)
    }
}

/// `available` is how many bytes the stream can give: exactly so many, or at most.
fn read_array(mut stream: impl Read, available: u64, exactly: bool, path: &Path) -> Result<IdxArray, DataError> {
    let bad = |problem: String| DataError::bad_file(path, problem);
    let mut read_header = |buffer: &mut [u8]| {
        stream.read_exact(buffer).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => bad("ends within its IDX header; it is truncated, get it again".into()),
            ErrorKind::InvalidInput | ErrorKind::InvalidData => bad(format!("its gzip stream is broken: {error}")),
            _ => DataError::io(Action::Read, path, error),
        })
    };
    let mut magic = [0; 4];
    read_header(&mut magic)?;
    let [zero, also_zero, kind, rank] = magic;
    if (zero, also_zero) != (0, 0) || !(0x08..=0x0e).contains(&kind) || !(1..=4).contains(&rank) {
        return Err(bad(format!(
            "is not an IDX file: it starts with {zero:02x} {also_zero:02x} {kind:02x} {rank:02x}, expected 00 00 08 \
             and 1 to 4 dimensions"
        )));
    }
    if kind != 0x08 {
        let name = match kind {
            0x09 => "signed bytes",
            0x0b => "16-bit integers",
            0x0c => "32-bit integers",
            0x0d => "32-bit floats",
            0x0e => "64-bit floats",
            _ => "values of an unknown type",
        };
        return Err(bad(format!("holds {name} (type {kind:#04x}); only unsigned bytes (0x08) can be read")));
    }
    let mut dimensions = Vec::with_capacity(usize::from(rank));
    for _ in 0..rank {
        let mut dimension = [0; 4];
        read_header(&mut dimension)?;
        dimensions.push(u32::from_be_bytes(dimension));
    }
    let shape = dimensions.iter().map(u32::to_string).collect::<Vec<_>>().join("x");
    let header = 4 + 4 * u64::from(rank);
    let values = dimensions.iter().try_fold(1u64, |product, &side| product.checked_mul(u64::from(side)));
    let Some(values) = values.filter(|values| usize::try_from(*values).is_ok()) else {
        return Err(bad(format!("its header claims {shape} values, more than this machine can address")));
    };
    let expected = values.saturating_add(header);
    if exactly && expected != available {
        let advice = if available < expected { "truncated" } else { "too long, or its header is wrong" };
        return Err(bad(format!(
            "its header claims {shape} values, that is a file of {expected} bytes, but it has {available}; it is \
             {advice}; get it again"
        )));
    }
    if expected > available {
        return Err(bad(format!(
            "its header claims {shape} values, but a gzip file of {} bytes cannot hold more than {available}; the \
             header is wrong or the file truncated; get it again",
            available / LARGEST_GZIP_RATIO
        )));
    }
    let mut bytes = Vec::new();
    let too_large = |_| DataError::TooLarge { path: path.to_path_buf(), bytes: u128::from(values) };
    bytes.try_reserve_exact(values.min(TRUSTED_BYTES) as usize).map_err(too_large)?;
    let outcome = (&mut stream).take(values).read_to_end(&mut bytes);
    let got = bytes.len();
    match outcome {
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof) => {
            return Err(bad(format!("truncated: {got} of {values} bytes of values ({shape}) are there; get it again")));
        }
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData) => {
            return Err(bad(format!(
                "its gzip stream is broken after {got} of {values} bytes ({error}); get it again"
            )));
        }
        Err(error) => return Err(DataError::io(Action::Read, path, error)),
        Ok(_) if (got as u64) < values => {
            return Err(bad(format!("truncated: {got} of {values} bytes of values ({shape}) are there; get it again")));
        }
        Ok(_) => {}
    }
    // Asking for one byte more also makes gzip check its checksum.
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Ok(_) => {
            return Err(bad(format!("goes on after the {values} bytes of values ({shape}) that its header claims")));
        }
        Err(error) => return Err(bad(format!("its gzip stream does not end well ({error}); get it again"))),
    }
    Ok(IdxArray { dimensions: dimensions.into_iter().map(|side| side as usize).collect(), bytes })
}

/// Puts an array of images and one of labels together.
///
/// `images` is `[count, height, width]` or `[count, height, width, channels]`; `class_names`, where given, bound the
/// labels. The two paths are for messages.
pub(crate) fn assemble(
    name: &str,
    (images, images_path): (IdxArray, &Path),
    labels: Option<(IdxArray, &Path)>,
    class_names: Option<Vec<String>>,
) -> Result<ImageSet, DataError> {
    let shape = match *images.dimensions {
        [count, height, width] => [count, height, width, 1],
        [count, height, width, channels @ (1 | 3 | 4)] => [count, height, width, channels],
        [count] => {
            let problem = format!("holds {count} labels, not images; name the images file instead");
            return Err(DataError::bad_file(images_path, problem));
        }
        _ => {
            let problem = format!(
                "holds {:?} values; images are [count, height, width] or, with 1, 3 or 4 channels, \
                 [count, height, width, channels]",
                images.dimensions
            );
            return Err(DataError::bad_file(images_path, problem));
        }
    };
    if images.bytes.is_empty() {
        return Err(DataError::bad_file(images_path, format!("holds no image: its shape is {:?}", images.dimensions)));
    }
    let labels = match labels {
        None => None,
        Some((array, path)) => {
            if array.dimensions != [shape[0]] {
                let problem = format!(
                    "holds {:?} labels, but {} holds {} images; the two do not belong together",
                    array.dimensions,
                    images_path.display(),
                    shape[0]
                );
                return Err(DataError::bad_file(path, problem));
            }
            let classes = class_names.as_ref().map_or(256, Vec::len);
            if let Some(at) = array.bytes.iter().position(|&label| usize::from(label) >= classes) {
                let problem =
                    format!("label {at} is {}, but there are {classes} classes (0..{classes})", array.bytes[at]);
                return Err(DataError::bad_file(path, problem));
            }
            Some(array.bytes.into_iter().map(u32::from).collect::<Vec<_>>())
        }
    };
    let class_names = class_names.filter(|_| labels.is_some());
    ImageSet::new(name, images.bytes, shape, labels, class_names)
}

/// Reads an images file and the labels file beside it, if there is one.
pub(crate) fn load(name: &str, images: &Path, class_names: Option<Vec<String>>) -> Result<ImageSet, DataError> {
    let labels = labels_beside(images);
    let labels = match &labels {
        Some(path) => Some((read(path)?, path.as_path())),
        None => None,
    };
    assemble(name, (read(images)?, images), labels, class_names)
}

/// Whether a file name is that of an IDX file of images: `train-images-idx3-ubyte`, `t10k-images.idx3-ubyte.gz`, ….
fn is_images_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("images") && (name.contains("idx3") || name.contains("idx4"))
}

/// The labels file beside an images file: the same name with `labels` and `idx1`, plain or gzip.
fn labels_beside(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    let labels = name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1");
    if labels == name {
        return None;
    }
    let plain = labels.strip_suffix(".gz").unwrap_or(&labels);
    [labels.clone(), plain.to_string(), format!("{plain}.gz")]
        .into_iter()
        .map(|candidate| images.with_file_name(candidate))
        .find(|candidate| candidate.is_file())
}

/// The IDX images file of `split` in `folder`, or `None` where the folder has no IDX images at all.
///
/// # Errors
/// Where two files could be meant, or the test split is asked for and there is none.
pub(crate) fn images_in(folder: &Path, split: Split) -> Result<Option<PathBuf>, DataError> {
    let entries = std::fs::read_dir(folder).map_err(|error| DataError::io(Action::List, folder, error))?;
    // [training, undivided, test]
    let mut found: [Vec<PathBuf>; 3] = Default::default();
    for entry in entries {
        let path = entry.map_err(|error| DataError::io(Action::List, folder, error))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.starts_with('.') || !is_images_name(name) || !path.is_file() {
            continue;
        }
        let name = name.to_ascii_lowercase();
        let part = if name.contains("train") {
            0
        } else if name.contains("t10k") || name.contains("test") {
            2
        } else {
            1
        };
        found[part].push(path);
    }
    if found.iter().all(Vec::is_empty) {
        return Ok(None);
    }
    let wanted = match split {
        Split::Train => found.iter_mut().find(|paths| !paths.is_empty()),
        Split::Test => Some(&mut found[2]),
    };
    let paths = wanted.map(std::mem::take).unwrap_or_default();
    // The same file plain and compressed is one file; the plain one is quicker.
    let compressed_twin = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "gz") && paths.contains(&path.with_extension(""))
    };
    let mut paths: Vec<PathBuf> = paths.iter().filter(|path| !compressed_twin(path)).cloned().collect();
    paths.sort();
    match paths.as_slice() {
        [] => Err(DataError::NothingFound {
            path: folder.to_path_buf(),
            found: "has IDX images but no test split".into(),
            looked_for: "t10k-images-idx3-ubyte or test-images-idx3-ubyte, also with .gz",
        }),
        [only] => Ok(Some(only.clone())),
        [first, second, ..] => Err(DataError::bad_file(
            folder,
            format!(
                "more than one IDX file could be meant, {} and {}; name the file instead of the folder",
                first.display(),
                second.display()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{gzip, idx, write};
    use proptest::prelude::*;

    fn message(result: Result<IdxArray, DataError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn plain_and_compressed_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = idx(&[2, 2, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let plain = read(&write(&folder, "plain", &bytes)).unwrap();
        assert_eq!(plain.dimensions, [2, 2, 3]);
        assert_eq!(plain.bytes[11], 12);
        assert_eq!(read(&write(&folder, "compressed", &gzip(&bytes))).unwrap(), plain);
        // two gzip members in one file are one stream
        let mut members = gzip(&bytes[..10]);
        members.extend(gzip(&bytes[10..]));
        assert_eq!(read(&write(&folder, "members", &members)).unwrap(), plain);
    }

    #[test]
    fn headers_that_lie_are_caught_before_allocating() {
        let folder = tempfile::tempdir().unwrap();
        for dimensions in [[u32::MAX, 28, 28], [u32::MAX; 3], [4_000_000_000, 1, 1]] {
            let lie = idx(&dimensions, &[0; 100]);
            for (name, bytes) in [("plain", lie.clone()), ("lie.gz", gzip(&lie))] {
                let error = message(read(&write(&folder, name, &bytes)));
                assert!(error.contains(name) && error.contains(&dimensions[0].to_string()), "{error}");
                assert!(!error.contains("bytes of values"), "noticed only after reading: {error}");
            }
        }
    }

    #[test]
    fn truncated_and_overlong_files_are_named_with_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let whole = idx(&[10, 4, 4], &[7; 160]);
        let error = message(read(&write(&folder, "short", &whole[..100])));
        assert!(error.contains("176") && error.contains("has 100") && error.contains("truncated"), "{error}");
        let mut long = whole.clone();
        long.push(0);
        let error = message(read(&write(&folder, "long", &long)));
        assert!(error.contains("has 177") && error.contains("too long"), "{error}");
        let error = message(read(&write(&folder, "long.gz", &gzip(&long))));
        assert!(error.contains("goes on"), "{error}");
        let error = message(read(&write(&folder, "short.gz", &gzip(&whole[..100]))));
        assert!(error.contains("84 of 160"), "{error}");
        let error = message(read(&write(&folder, "header", &whole[..9])));
        assert!(error.contains("within its IDX header"), "{error}");
        assert!(message(read(&write(&folder, "empty", &[]))).contains("within its IDX header"));
    }

    #[test]
    fn broken_gzip_streams_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let noise: Vec<u8> = (0..4000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let packed = gzip(&idx(&[4000], &noise));
        let error = message(read(&write(&folder, "cut.gz", &packed[..packed.len() / 2])));
        assert!(error.contains("truncated") || error.contains("broken"), "{error}");
        let error = message(read(&write(&folder, "tail.gz", &packed[..packed.len() - 4])));
        assert!(error.contains("does not end well"), "{error}");
        let mut flipped = packed.clone();
        let at = flipped.len() - 6; // in the stored CRC
        flipped[at] ^= 0xff;
        assert!(message(read(&write(&folder, "crc.gz", &flipped))).contains("does not end well"));
    }

    #[test]
    fn other_files_are_refused_by_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        assert!(message(read(&write(&folder, "png", b"\x89PNG\r\n\x1a\n0000"))).contains("89 50 4e 47"));
        let mut floats = idx(&[2], &[0; 8]);
        floats[2] = 0x0d;
        assert!(message(read(&write(&folder, "floats", &floats))).contains("32-bit floats"));
        assert!(matches!(read(&folder.path().join("missing")), Err(DataError::File(_))));
        assert!(read(folder.path()).is_err());
    }

    #[test]
    fn labels_must_fit_the_images() {
        let folder = tempfile::tempdir().unwrap();
        let images = write(&folder, "a-images-idx3-ubyte", &idx(&[2, 1, 1], &[5, 6]));
        let labels = write(&folder, "a-labels-idx1-ubyte.gz", &gzip(&idx(&[2], &[0, 3])));
        let set = load("a", &images, None).unwrap();
        assert_eq!((set.labels(), set.classes()), (Some([0, 3].as_slice()), 4));

        let names = Some(vec!["x".into(), "y".into()]);
        let error = load("a", &images, names).unwrap_err().to_string();
        assert!(error.contains("label 1 is 3") && error.contains("2 classes"), "{error}");

        std::fs::write(&labels, idx(&[3], &[0, 1, 2])).unwrap();
        let error = load("a", &images, None).unwrap_err().to_string();
        assert!(error.contains("labels-idx1") && error.contains("[3]") && error.contains("2 images"), "{error}");

        let error = load("a", &labels, None).unwrap_err().to_string();
        assert!(error.contains("name the images file"), "{error}");

        std::fs::remove_file(&labels).unwrap();
        assert_eq!(load("a", &images, None).unwrap().labels(), None);

        let none = write(&folder, "b-images-idx3-ubyte", &idx(&[0, 28, 28], &[]));
        assert!(load("b", &none, None).unwrap_err().to_string().contains("no image"));
    }

    #[test]
    fn color_images_have_four_dimensions() {
        let folder = tempfile::tempdir().unwrap();
        let images = write(&folder, "images-idx4-ubyte", &idx(&[1, 1, 2, 3], &[1, 2, 3, 4, 5, 6]));
        assert_eq!(load("rgb", &images, None).unwrap().channels(), 3);
        let planar = write(&folder, "planar-images-idx4-ubyte", &idx(&[1, 3, 1, 2], &[1, 2, 3, 4, 5, 6]));
        assert!(load("planar", &planar, None).is_err());
    }

    #[test]
    fn the_split_chooses_the_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(images_in(folder.path(), Split::Train).unwrap(), None);
        let test = write(&folder, "t10k-images-idx3-ubyte.gz", &gzip(&idx(&[1, 1, 1], &[1])));
        assert_eq!(images_in(folder.path(), Split::Train).unwrap(), Some(test.clone()));
        let train = write(&folder, "train-images-idx3-ubyte.gz", &gzip(&idx(&[1, 1, 1], &[1])));
        assert_eq!(images_in(folder.path(), Split::Train).unwrap(), Some(train));
        assert_eq!(images_in(folder.path(), Split::Test).unwrap(), Some(test));
        let plain = write(&folder, "train-images-idx3-ubyte", &idx(&[1, 1, 1], &[1]));
        assert_eq!(images_in(folder.path(), Split::Train).unwrap(), Some(plain));
        write(&folder, "other-train-images.idx3-ubyte", &idx(&[1, 1, 1], &[1]));
        let error = images_in(folder.path(), Split::Train).unwrap_err().to_string();
        assert!(error.contains("other-train") && error.contains("name the file"), "{error}");
    }

    proptest! {
        /// Whatever the bytes are, the answer is an array that fits its header, or an error.
        #[test]
        fn random_bytes_never_panic(mut bytes: Vec<u8>, kind in 0u8..16, rank in 0u8..6, compressed: bool) {
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&[0, 0, kind, rank]);
            }
            let bytes = if compressed { gzip(&bytes) } else { bytes };
            if let Ok(array) = read_stream(bytes.as_slice(), bytes.len() as u64, Path::new("random")) {
                prop_assert_eq!(array.dimensions.iter().product::<usize>(), array.bytes.len());
            }
        }
    }
}
