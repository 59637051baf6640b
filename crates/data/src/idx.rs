//! IDX, the format of MNIST: two zero bytes, a type, the number of dimensions, each dimension as a big-endian `u32`,
//! then the values, last dimension fastest. Plain or gzip. See <http://yann.lecun.com/exdb/mnist/>.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read};
use std::path::{Path, PathBuf};

use files::Action;
use flate2::read::MultiGzDecoder;

use crate::account::Account;
use crate::classes::{Classes, Value};
use crate::disk::{self, list};
use crate::error::DataError;
use crate::image_set::ImageSet;
use crate::listing::Use;
use crate::options::Split;
use crate::pixels::allocate;

/// The largest ratio of deflate: a gzip file holds at most this many times its length.
pub(crate) const LARGEST_GZIP_RATIO: u64 = 1032;

/// Bytes that are allocated for the claim of a header; beyond it, memory grows with the data.
const TRUSTED_BYTES: u64 = 64 << 20;

/// An array of bytes of an IDX file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdxArray {
    /// Length of each dimension, slowest first.
    pub dimensions: Vec<usize>,
    /// The values, row-major.
    pub bytes: Vec<u8>,
}

/// Reads the IDX file of unsigned bytes at `path`, gzip or not (told by its first bytes).
///
/// The header is checked against the length of the file before anything is allocated.
///
/// # Errors
/// [`DataError::File`], or [`DataError::BadFile`] where the file is not IDX, not of unsigned bytes, shorter or longer
/// than its header claims, or its gzip stream is broken.
pub fn read(path: &Path) -> Result<IdxArray, DataError> {
    // before it is opened: opening a pipe waits for a writer
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(DataError::bad_file(path, "is not a regular file; an IDX file is expected"));
    }
    let (file, length) = disk::open(path)?;
    read_stream(BufReader::new(file), length, path)
}

/// Reads IDX out of `stream`, which holds `length` bytes; `path` is for messages.
pub(crate) fn read_stream(mut stream: impl BufRead, length: u64, path: &Path) -> Result<IdxArray, DataError> {
    let start = stream.fill_buf().map_err(|error| DataError::io(Action::Read, path, error))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        let most = length.saturating_mul(LARGEST_GZIP_RATIO);
        read_array(MultiGzDecoder::new(stream), most, false, path)
    } else {
        read_array(stream, length, true, path)
    }
}

/// Reads IDX out of a stream that holds exactly `available` bytes, or at most.
fn read_array(mut stream: impl Read, available: u64, exactly: bool, path: &Path) -> Result<IdxArray, DataError> {
    let bad = |problem: String| DataError::bad_file(path, problem);
    let dimensions = read_dimensions(&mut stream, path)?;
    let shape = dimensions.iter().map(u32::to_string).collect::<Vec<_>>().join("x");
    let values = dimensions.iter().try_fold(1u64, |product, &side| product.checked_mul(u64::from(side)));
    let Some(values) = values.filter(|values| usize::try_from(*values).is_ok()) else {
        return Err(bad(format!("its header claims {shape} values, more than this machine can address")));
    };
    let expected = values.saturating_add(4 + 4 * dimensions.len() as u64);
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
    let mut bytes = allocate(values.min(TRUSTED_BYTES).into(), path)?;
    let outcome = (&mut stream).take(values).read_to_end(&mut bytes);
    let got = bytes.len();
    match outcome {
        Err(error) if is_broken_gzip(&error) => {
            let problem = format!("its gzip stream is broken after {got} of {values} bytes ({error}); get it again");
            return Err(bad(problem));
        }
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => {
            return Err(DataError::io(Action::Read, path, error));
        }
        _ if (got as u64) < values => {
            return Err(bad(format!("truncated: {got} of {values} bytes of values ({shape}) are there; get it again")));
        }
        _ => {}
    }
    // at the end of the stream gzip checks its checksum
    match stream.read(&mut [0]) {
        Ok(0) => Ok(IdxArray { dimensions: dimensions.into_iter().map(|side| side as usize).collect(), bytes }),
        Ok(_) => Err(bad(format!("goes on after the {values} bytes of values ({shape}) that its header claims"))),
        Err(error) => Err(bad(format!("its gzip stream does not end well ({error}); get it again"))),
    }
}

fn is_broken_gzip(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData)
}

/// Reads the header of an array of unsigned bytes.
fn read_dimensions(stream: &mut impl Read, path: &Path) -> Result<Vec<u32>, DataError> {
    let bad = |problem: String| DataError::bad_file(path, problem);
    let mut read_word = || {
        let mut word = [0; 4];
        stream.read_exact(&mut word).map(|()| word).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => bad("ends within its IDX header; it is truncated, get it again".into()),
            _ if is_broken_gzip(&error) => bad(format!("its gzip stream is broken: {error}")),
            _ => DataError::io(Action::Read, path, error),
        })
    };
    let [zero, also_zero, kind, rank] = read_word()?;
    if (zero, also_zero) != (0, 0) || !(0x08..=0x0e).contains(&kind) || !(1..=4).contains(&rank) {
        return Err(bad(format!(
            "is not an IDX file: it starts with {zero:02x} {also_zero:02x} {kind:02x} {rank:02x}, expected 00 00 08 \
             and 1 to 4 dimensions"
        )));
    }
    let name = match kind {
        0x08 => return (0..rank).map(|_| Ok(u32::from_be_bytes(read_word()?))).collect(),
        0x09 => "signed bytes",
        0x0b => "16-bit integers",
        0x0c => "32-bit integers",
        0x0d => "32-bit floats",
        0x0e => "64-bit floats",
        _ => "values of an unknown type",
    };
    Err(bad(format!("holds {name} (type {kind:#04x}); only unsigned bytes (0x08) can be read")))
}

/// An image set of an array of images and one of labels.
///
/// `images` is `[count, height, width]` or `[count, height, width, channels]`; `class_names`, where given, bound the
/// labels. The two paths are for messages.
pub(crate) fn assemble(
    name: &str,
    (images, images_path): (IdxArray, &Path),
    labels: Option<(IdxArray, &Path)>,
    class_names: Option<Vec<String>>,
) -> Result<(ImageSet, Account), DataError> {
    let bad = |problem: String| DataError::bad_file(images_path, problem);
    let shape = match *images.dimensions {
        [count, height, width] => [count, height, width, 1],
        [count, height, width, channels @ (1 | 3 | 4)] => [count, height, width, channels],
        [count] => return Err(bad(format!("holds {count} labels, not images; name the images file instead"))),
        _ => {
            return Err(bad(format!(
                "holds {:?} values; images are [count, height, width] or, with 1, 3 or 4 channels, \
                 [count, height, width, channels]",
                images.dimensions
            )));
        }
    };
    if images.bytes.is_empty() {
        return Err(bad(format!("holds no image: its shape is {:?}", images.dimensions)));
    }
    let classes = match labels {
        None => Classes::default(),
        Some((array, path)) if array.dimensions != [shape[0]] => {
            let problem = format!(
                "holds {:?} labels, but {} holds {} images; the two do not belong together",
                array.dimensions,
                images_path.display(),
                shape[0]
            );
            return Err(DataError::bad_file(path, problem));
        }
        Some((array, path)) => {
            let values = array.bytes.into_iter().map(|label| Value::Number(label.into())).collect();
            Classes::by_value(path, values, class_names)?
        }
    };
    let mut account = Account::default();
    classes.decision.into_iter().for_each(|decision| account.decided(decision));
    Ok((ImageSet::new(name, images.bytes, shape, classes.labels, classes.names)?, account))
}

/// Reads an images file and the labels file beside it, if there is one.
pub(crate) fn load(
    name: &str,
    images: &Path,
    class_names: Option<Vec<String>>,
) -> Result<(ImageSet, Account), DataError> {
    let labels = labels_beside(images);
    let labels = labels.as_deref().map(|path| Ok::<_, DataError>((read(path)?, path))).transpose()?;
    assemble(name, (read(images)?, images), labels, class_names)
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

/// The use of the file at `path` where `images` of `split` are read, which lie in the same folder.
pub(crate) fn use_of(path: &Path, images: &Path, split: Split) -> Use {
    let labels = labels_beside(images);
    let used = || std::iter::once(images).chain(labels.as_deref());
    let unpacked = |path: &Path| path.to_string_lossy().trim_end_matches(".gz").to_ascii_lowercase();
    let name = unpacked(path.file_name().unwrap_or_default().as_ref());
    if used().any(|used| used == path) || name == "manifest.toml" {
        Use::Used
    } else if used().any(|used| unpacked(used) == unpacked(path)) {
        Use::Not("the same file is there unpacked")
    } else if name.contains("idx") && (name.contains("images") || name.contains("labels")) {
        Use::other_split(split)
    } else {
        Use::Unknown
    }
}

/// The IDX images file of `split` in `folder` (`train-images-idx3-ubyte`, `t10k-images.idx3-ubyte.gz`, …), or `None` where the
/// folder has no IDX images at all.
///
/// # Errors
/// Where two files could be meant, or the test split is asked for and there is none.
pub(crate) fn images_in(folder: &Path, split: Split) -> Result<Option<PathBuf>, DataError> {
    let (mut train, mut undivided, mut test) = (Vec::new(), Vec::new(), Vec::new());
    for path in list(folder)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_ascii_lowercase) else { continue };
        let is_images = name.contains("images") && (name.contains("idx3") || name.contains("idx4"));
        if name.starts_with('.') || !is_images || !path.is_file() {
            continue;
        }
        let part = if name.contains("train") {
            &mut train
        } else if name.contains("t10k") || name.contains("test") {
            &mut test
        } else {
            &mut undivided
        };
        part.push(path);
    }
    let mut paths = match split {
        Split::Train => [train, undivided, test].into_iter().find(|paths| !paths.is_empty()).unwrap_or_default(),
        Split::Test if test.is_empty() && !(train.is_empty() && undivided.is_empty()) => {
            let looked_for = "t10k-images-idx3-ubyte or test-images-idx3-ubyte, also with .gz";
            return Err(DataError::nothing_found(folder, "has IDX images but no test split", looked_for));
        }
        Split::Test => test,
    };
    paths.sort();
    // of a file that is there plain and compressed, the plain one is taken: it is quicker
    let plain = paths.clone();
    paths.retain(|path| {
        let is_compressed = path.extension().is_some_and(|extension| extension == "gz");
        !(is_compressed && plain.contains(&path.with_extension("")))
    });
    match paths.as_slice() {
        [first, second, ..] => Err(DataError::bad_file(
            folder,
            format!(
                "more than one IDX file could be meant, {} and {}; name the file instead of the folder",
                first.display(),
                second.display()
            ),
        )),
        _ => Ok(paths.pop()),
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
    fn wrong_headers_are_refused_before_allocating() {
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
    fn truncated_and_overlong_files_are_reported_in_numbers() {
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
    fn other_files_are_refused_with_their_type() {
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
        let (set, account) = load("a", &images, None).unwrap();
        assert_eq!(account.lines(), ["labels of 2 numbers from 0 to 3 became the classes `0`, `3`"]);
        assert_eq!((set.labels(), set.class_names().unwrap().join(" ")), (Some([0, 1].as_slice()), "0 3".into()));

        let names = Some(vec!["x".into(), "y".into()]);
        let error = load("a", &images, names).unwrap_err().to_string();
        assert!(error.contains("label 1 is 3, expected 0 to 1"), "{error}");

        std::fs::write(&labels, idx(&[3], &[0, 1, 2])).unwrap();
        let error = load("a", &images, None).unwrap_err().to_string();
        assert!(error.contains("labels-idx1") && error.contains("[3]") && error.contains("2 images"), "{error}");

        let error = load("a", &labels, None).unwrap_err().to_string();
        assert!(error.contains("name the images file"), "{error}");

        std::fs::remove_file(&labels).unwrap();
        assert_eq!(load("a", &images, None).unwrap().0.labels(), None);

        let none = write(&folder, "b-images-idx3-ubyte", &idx(&[0, 28, 28], &[]));
        assert!(load("b", &none, None).unwrap_err().to_string().contains("no image"));
    }

    #[test]
    fn color_images_have_four_dimensions() {
        let folder = tempfile::tempdir().unwrap();
        let images = write(&folder, "images-idx4-ubyte", &idx(&[1, 1, 2, 3], &[1, 2, 3, 4, 5, 6]));
        assert_eq!(load("rgb", &images, None).unwrap().0.channels(), 3);
        let planar = write(&folder, "planar-images-idx4-ubyte", &idx(&[1, 3, 1, 2], &[1, 2, 3, 4, 5, 6]));
        assert!(load("planar", &planar, None).is_err());
    }

    #[test]
    fn the_split_selects_the_file() {
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
        /// Any bytes give an array that fits its header, or an error.
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
