//! CIFAR-10 and CIFAR-100 in their binary form: records of a label (two for CIFAR-100: coarse, fine) and 3072 bytes,
//! 32x32 red, then green, then blue. As files, in a folder, or in the `.tar.gz` that is published.
//! <https://www.cs.toronto.edu/~kriz/cifar.html> describes it.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use files::Action;
use flate2::read::MultiGzDecoder;

use crate::error::DataError;
use crate::image_set::ImageSet;
use crate::manifest;
use crate::options::Split;

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const IMAGE: usize = 3 * PLANE;

/// No published batch is longer (CIFAR-100's training file has 153,700,000 bytes); a longer one is not CIFAR.
const LARGEST_BATCH: u64 = 256 << 20;

const LOOKED_FOR: &str = "data_batch_1.bin to data_batch_5.bin and test_batch.bin (CIFAR-10), or train.bin and \
                          test.bin (CIFAR-100)";

/// Which of the two a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One label byte, below 10.
    Ten,
    /// A coarse label byte, below 20, and a fine one, below 100; the fine one is used.
    Hundred,
}

impl Kind {
    fn label_bytes(self) -> usize {
        match self {
            Self::Ten => 1,
            Self::Hundred => 2,
        }
    }

    fn classes(self) -> usize {
        match self {
            Self::Ten => 10,
            Self::Hundred => 100,
        }
    }
}

/// What a file of the published archives is, by its name.
fn part(name: &str) -> Option<(Kind, Split)> {
    match name {
        "train.bin" => Some((Kind::Hundred, Split::Train)),
        "test.bin" => Some((Kind::Hundred, Split::Test)),
        "test_batch.bin" => Some((Kind::Ten, Split::Test)),
        _ if name.starts_with("data_batch_") && name.ends_with(".bin") => Some((Kind::Ten, Split::Train)),
        _ => None,
    }
}

/// Images and labels, as they are gathered from one batch after the other.
#[derive(Default)]
struct Gathered {
    pixels: Vec<u8>,
    labels: Vec<u32>,
    kind: Option<Kind>,
}

impl Gathered {
    /// Takes the records of one batch; `path` is for messages.
    fn add(&mut self, bytes: &[u8], kind: Kind, path: &Path) -> Result<(), DataError> {
        if *self.kind.get_or_insert(kind) != kind {
            return Err(DataError::bad_file(path, "CIFAR-10 and CIFAR-100 batches lie together; separate them"));
        }
        let record_len = kind.label_bytes() + IMAGE;
        if bytes.is_empty() || !bytes.len().is_multiple_of(record_len) {
            return Err(DataError::bad_file(
                path,
                format!(
                    "has {} bytes, which is not a whole number of records of {record_len} bytes (CIFAR-{}); it is \
                     truncated or something else; get it again",
                    bytes.len(),
                    kind.classes()
                ),
            ));
        }
        let too_large = |_| DataError::TooLarge { path: path.to_path_buf(), bytes: bytes.len() as u128 };
        self.pixels.try_reserve(bytes.len() / record_len * IMAGE).map_err(too_large)?;
        for (number, record) in bytes.chunks_exact(record_len).enumerate() {
            let (labels, planes) = record.split_at(kind.label_bytes());
            let label = usize::from(labels[labels.len() - 1]);
            if label >= kind.classes() {
                let classes = kind.classes();
                let problem =
                    format!("record {number} has label {label}, but CIFAR-{classes} has labels in 0..{classes}");
                return Err(DataError::bad_file(path, problem));
            }
            self.labels.push(label as u32);
            for at in 0..PLANE {
                self.pixels.extend([planes[at], planes[PLANE + at], planes[2 * PLANE + at]]);
            }
        }
        Ok(())
    }

    fn finish(self, name: &str) -> Result<ImageSet, DataError> {
        let shape = [self.labels.len(), SIDE, SIDE, 3];
        let names = match self.kind {
            Some(Kind::Ten) => manifest::find("cifar10").map(|manifest| manifest.classes.clone()),
            // names are not in the binary files; numbers tell the hundred classes apart
            _ => Some((0..100).map(|class| class.to_string()).collect()),
        };
        ImageSet::new(name, self.pixels, shape, Some(self.labels), names)
    }
}

/// Reads one batch file: its kind by its name, else by the length of its records.
pub(crate) fn load_file(name: &str, path: &Path) -> Result<ImageSet, DataError> {
    let bytes = read_file(path)?;
    let kind = match path.file_name().and_then(|name| name.to_str()).and_then(part) {
        Some((kind, _)) => kind,
        None if bytes.len().is_multiple_of(2 + IMAGE) && !bytes.len().is_multiple_of(1 + IMAGE) => Kind::Hundred,
        None => Kind::Ten,
    };
    let mut gathered = Gathered::default();
    gathered.add(&bytes, kind, path)?;
    gathered.finish(name)
}

fn read_file(path: &Path) -> Result<Vec<u8>, DataError> {
    let failed = |error| DataError::io(Action::Read, path, error);
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > LARGEST_BATCH {
        return Err(DataError::bad_file(path, format!("has {length} bytes; no CIFAR batch is that long")));
    }
    std::fs::read(path).map_err(failed)
}

/// The batch files or the archive of a folder, or of the `cifar-10-batches-bin` in it; `None` where there are none.
fn batches_in(folder: &Path) -> Result<Option<Vec<PathBuf>>, DataError> {
    for folder in [folder.to_path_buf(), folder.join("cifar-10-batches-bin"), folder.join("cifar-100-binary")] {
        if !folder.is_dir() {
            continue;
        }
        let mut batches = Vec::new();
        let mut archive = None;
        for entry in std::fs::read_dir(&folder).map_err(|error| DataError::io(Action::List, &folder, error))? {
            let path = entry.map_err(|error| DataError::io(Action::List, &folder, error))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if part(name).is_some() {
                batches.push(path);
            } else if name.starts_with("cifar-") && name.ends_with("-binary.tar.gz") {
                archive = Some(path);
            }
        }
        batches.sort();
        if !batches.is_empty() {
            return Ok(Some(batches));
        }
        if let Some(archive) = archive {
            return Ok(Some(vec![archive]));
        }
    }
    Ok(None)
}

/// Whether `folder` holds CIFAR batches or their archive.
pub(crate) fn lies_in(folder: &Path) -> bool {
    matches!(batches_in(folder), Ok(Some(_)))
}

/// Reads `split` of the CIFAR batches in `folder`; `None` where there are none.
pub(crate) fn load_folder(name: &str, folder: &Path, split: Split) -> Result<Option<ImageSet>, DataError> {
    let Some(batches) = batches_in(folder)? else { return Ok(None) };
    if let [archive] = batches.as_slice()
        && archive.extension().is_some_and(|extension| extension == "gz")
    {
        return load_archive(name, archive, split).map(Some);
    }
    let mut gathered = Gathered::default();
    for path in &batches {
        match path.file_name().and_then(|name| name.to_str()).and_then(part) {
            Some((kind, of)) if of == split => gathered.add(&read_file(path)?, kind, path)?,
            _ => {}
        }
    }
    if gathered.labels.is_empty() {
        return Err(no_batch(folder, split));
    }
    gathered.finish(name).map(Some)
}

/// Reads `split` out of the published `.tar.gz`.
pub(crate) fn load_archive(name: &str, path: &Path, split: Split) -> Result<ImageSet, DataError> {
    let file = File::open(path).map_err(|error| DataError::io(Action::Read, path, error))?;
    let mut archive = tar::Archive::new(MultiGzDecoder::new(BufReader::new(file)));
    let broken = |error: std::io::Error| match error.kind() {
        ErrorKind::PermissionDenied => DataError::io(Action::Read, path, error),
        _ => DataError::bad_file(path, format!("is not a whole .tar.gz ({error}); get it again")),
    };
    let mut batches = Vec::new();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let inner = entry.path().map_err(broken)?.into_owned();
        let Some((kind, of)) = inner.file_name().and_then(|name| name.to_str()).and_then(part) else { continue };
        if of != split {
            continue;
        }
        let claimed = entry.size();
        let shown = path.join(&inner);
        if claimed > LARGEST_BATCH {
            return Err(DataError::bad_file(&shown, format!("claims {claimed} bytes; no CIFAR batch is that long")));
        }
        let mut bytes = Vec::new();
        entry.by_ref().take(LARGEST_BATCH).read_to_end(&mut bytes).map_err(broken)?;
        if bytes.len() as u64 != claimed {
            let problem = format!("truncated: {} of {claimed} bytes are there; get it again", bytes.len());
            return Err(DataError::bad_file(&shown, problem));
        }
        batches.push((inner, kind, bytes));
    }
    // The published archive has its batches in no useful order.
    batches.sort_by(|left, right| left.0.cmp(&right.0));
    let mut gathered = Gathered::default();
    for (inner, kind, bytes) in batches {
        gathered.add(&bytes, kind, &path.join(inner))?;
    }
    if gathered.labels.is_empty() {
        return Err(no_batch(path, split));
    }
    gathered.finish(name)
}

fn no_batch(path: &Path, split: Split) -> DataError {
    let found = match split {
        Split::Train => "has no CIFAR batch of the training split",
        Split::Test => "has no CIFAR batch of the test split",
    };
    DataError::NothingFound { path: path.to_path_buf(), found: found.into(), looked_for: LOOKED_FOR }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{gzip, write};

    /// A record whose first pixel is (1, 2, 3), whose second is (4, 5, 6), and whose others are `label`.
    fn record(labels: &[u8]) -> Vec<u8> {
        let mut bytes = labels.to_vec();
        for (first, second) in [(1, 4), (2, 5), (3, 6)] {
            bytes.extend([first, second]);
            bytes.extend(vec![labels[0]; PLANE - 2]);
        }
        bytes
    }

    fn archive(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
        gzip(&builder.into_inner().unwrap())
    }

    #[test]
    fn planes_become_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(&folder, "data_batch_1.bin", &[record(&[7]), record(&[2])].concat());
        let set = load_file("one", &path).unwrap();
        assert_eq!((set.len(), set.height(), set.width(), set.channels()), (2, 32, 32, 3));
        assert_eq!(set.image(1)[..9], [1, 2, 3, 4, 5, 6, 2, 2, 2]);
        assert_eq!((set.labels(), set.classes()), (Some([7, 2].as_slice()), 10));
        assert_eq!(set.class_names().unwrap()[7], "horse");
    }

    #[test]
    fn folders_and_archives_agree() {
        let folder = tempfile::tempdir().unwrap();
        let batches = [
            ("cifar-10-batches-bin/data_batch_2.bin", record(&[2])),
            ("cifar-10-batches-bin/test_batch.bin", record(&[9])),
            ("cifar-10-batches-bin/data_batch_1.bin", record(&[1])),
            ("cifar-10-batches-bin/readme.html", b"hello".to_vec()),
        ];
        for (name, bytes) in &batches {
            write(&folder, name, bytes);
        }
        let packed = tempfile::tempdir().unwrap();
        let path = write(&packed, "cifar-10-binary.tar.gz", &archive(&batches));
        let unpacked = load_folder("a", folder.path(), Split::Train).unwrap().unwrap();
        assert_eq!(unpacked.labels(), Some([1, 2].as_slice()));
        for set in [
            load_archive("a", &path, Split::Train).unwrap(),
            load_folder("a", packed.path(), Split::Train).unwrap().unwrap(),
            load_folder("a", &folder.path().join("cifar-10-batches-bin"), Split::Train).unwrap().unwrap(),
        ] {
            assert_eq!(set.content_hash(), unpacked.content_hash());
        }
        assert_eq!(load_archive("a", &path, Split::Test).unwrap().labels(), Some([9].as_slice()));
        assert!(lies_in(folder.path()) && lies_in(packed.path()));
    }

    #[test]
    fn the_hundred_classes_use_the_fine_label() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "train.bin", &record(&[3, 42]));
        let set = load_folder("c", folder.path(), Split::Train).unwrap().unwrap();
        assert_eq!((set.labels(), set.classes()), (Some([42].as_slice()), 100));
        assert_eq!(load_file("c", &write(&folder, "other.bin", &record(&[3, 42]))).unwrap().classes(), 100);
        let error = load_folder("c", folder.path(), Split::Test).unwrap_err().to_string();
        assert!(error.contains("test split") && error.contains("test.bin"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(&folder, "data_batch_1.bin", &record(&[7])[..3000]);
        let error = load_file("a", &path).unwrap_err().to_string();
        assert!(error.contains("data_batch_1.bin") && error.contains("3000") && error.contains("3073"), "{error}");
        let path = write(&folder, "data_batch_1.bin", &[record(&[7]), record(&[10])].concat());
        let error = load_file("a", &path).unwrap_err().to_string();
        assert!(error.contains("record 1") && error.contains("label 10"), "{error}");
        let empty = tempfile::tempdir().unwrap();
        assert!(load_folder("a", empty.path(), Split::Train).unwrap().is_none());
    }

    #[test]
    fn broken_archives_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let whole = archive(&[("data_batch_1.bin", record(&[1])), ("data_batch_2.bin", record(&[2]))]);
        for (name, bytes) in [("cut.tar.gz", &whole[..whole.len() / 2]), ("not.tar.gz", b"not gzip at all".as_slice())]
        {
            let error = load_archive("a", &write(&folder, name, bytes), Split::Train).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        let other = write(&folder, "other.tar.gz", &archive(&[("notes.txt", b"hello".to_vec())]));
        let error = load_archive("a", &other, Split::Train).unwrap_err().to_string();
        assert!(error.contains("data_batch_1.bin"), "{error}");

        // a tar header that claims 2^40 bytes
        let mut header = tar::Header::new_gnu();
        header.set_path("data_batch_1.bin").unwrap();
        header.set_size(1 << 40);
        header.set_cksum();
        let lie = write(&folder, "lie.tar.gz", &gzip(header.as_bytes()));
        let error = load_archive("a", &lie, Split::Train).unwrap_err().to_string();
        assert!(error.contains("1099511627776"), "{error}");
    }
}
