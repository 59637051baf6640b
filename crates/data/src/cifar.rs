//! CIFAR-10 and CIFAR-100 in their binary form: records of a label (two for CIFAR-100: coarse, fine) and 3072 bytes,
//! 32x32 red, then green, then blue. As files, in a folder, or in the published `.tar.gz`; see
//! <https://www.cs.toronto.edu/~kriz/cifar.html>.

use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use files::Action;
use flate2::read::MultiGzDecoder;

use crate::disk::{self, list};
use crate::error::DataError;
use crate::image_set::ImageSet;
use crate::manifest;
use crate::options::Split;

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const IMAGE: usize = 3 * PLANE;

/// Bytes of a batch at most; the longest published one, CIFAR-100's training file, has 153,700,000.
const LARGEST_BATCH: u64 = 256 << 20;

/// One of the two datasets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    /// Bytes of labels in a record; the last one is used.
    label_bytes: usize,
    classes: usize,
}

const TEN: Kind = Kind { label_bytes: 1, classes: 10 };
/// A coarse label, below 20, and a fine one, below 100.
const HUNDRED: Kind = Kind { label_bytes: 2, classes: 100 };

/// The dataset and split of a file of the published archives, by its name.
fn part(path: &Path) -> Option<(Kind, Split)> {
    match path.file_name()?.to_str()? {
        "train.bin" => Some((HUNDRED, Split::Train)),
        "test.bin" => Some((HUNDRED, Split::Test)),
        "test_batch.bin" => Some((TEN, Split::Test)),
        name if name.starts_with("data_batch_") && name.ends_with(".bin") => Some((TEN, Split::Train)),
        _ => None,
    }
}

/// Images and labels of the batches so far.
#[derive(Default)]
struct Gathered {
    pixels: Vec<u8>,
    labels: Vec<u32>,
    kind: Option<Kind>,
}

impl Gathered {
    /// Adds the records of one batch; `path` is for messages.
    fn add(&mut self, bytes: &[u8], kind: Kind, path: &Path) -> Result<(), DataError> {
        if *self.kind.get_or_insert(kind) != kind {
            return Err(DataError::bad_file(path, "CIFAR-10 and CIFAR-100 batches lie together; separate them"));
        }
        let Kind { label_bytes, classes } = kind;
        let record_len = label_bytes + IMAGE;
        if bytes.is_empty() || !bytes.len().is_multiple_of(record_len) {
            let problem = format!(
                "has {} bytes, which is not a whole number of records of {record_len} bytes (CIFAR-{classes}); it is \
                 truncated or something else; get it again",
                bytes.len(),
            );
            return Err(DataError::bad_file(path, problem));
        }
        let too_large = |_| DataError::TooLarge { path: path.to_path_buf(), bytes: bytes.len() as u128 };
        self.pixels.try_reserve(bytes.len() / record_len * IMAGE).map_err(too_large)?;
        for (number, record) in bytes.chunks_exact(record_len).enumerate() {
            let (labels, planes) = record.split_at(label_bytes);
            let label = u32::from(labels[label_bytes - 1]);
            if label as usize >= classes {
                let problem =
                    format!("record {number} has label {label}, but CIFAR-{classes} has labels in 0..{classes}");
                return Err(DataError::bad_file(path, problem));
            }
            self.labels.push(label);
            for at in 0..PLANE {
                self.pixels.extend([planes[at], planes[PLANE + at], planes[2 * PLANE + at]]);
            }
        }
        Ok(())
    }

    fn finish(self, name: &str) -> Result<ImageSet, DataError> {
        let shape = [self.labels.len(), SIDE, SIDE, 3];
        let names = match self.kind {
            Some(TEN) => manifest::find("cifar10").map(|manifest| manifest.classes.clone()),
            // the binary files have no names; numbers tell the hundred classes apart
            _ => Some((0..100).map(|class| class.to_string()).collect()),
        };
        ImageSet::new(name, self.pixels, shape, Some(self.labels), names)
    }
}

/// The images of the batches of `split` in the folder or archive at `path`.
fn gather(
    name: &str,
    path: &Path,
    split: Split,
    batches: impl Iterator<Item = Result<(PathBuf, Kind, Vec<u8>), DataError>>,
) -> Result<ImageSet, DataError> {
    let mut gathered = Gathered::default();
    for batch in batches {
        let (path, kind, bytes) = batch?;
        gathered.add(&bytes, kind, &path)?;
    }
    if gathered.labels.is_empty() {
        let split = if split == Split::Train { "training" } else { "test" };
        let looked_for =
            "data_batch_1.bin to data_batch_5.bin and test_batch.bin (CIFAR-10), or train.bin and test.bin (CIFAR-100)";
        return Err(DataError::nothing_found(path, format!("has no CIFAR batch of the {split} split"), looked_for));
    }
    gathered.finish(name)
}

/// Reads one batch file: its dataset is told by its name, else by the length of its records.
pub(crate) fn load_file(name: &str, path: &Path) -> Result<ImageSet, DataError> {
    let bytes = disk::read(path, LARGEST_BATCH)?;
    let kind = match part(path) {
        Some((kind, _)) => kind,
        None if bytes.len().is_multiple_of(2 + IMAGE) && !bytes.len().is_multiple_of(1 + IMAGE) => HUNDRED,
        None => TEN,
    };
    let mut gathered = Gathered::default();
    gathered.add(&bytes, kind, path)?;
    gathered.finish(name)
}

/// The batch files or the archive of a folder, or of the folder of the published archive in it; `None` where there are none.
fn batches_in(folder: &Path) -> Result<Option<Vec<PathBuf>>, DataError> {
    for folder in [folder.to_path_buf(), folder.join("cifar-10-batches-bin"), folder.join("cifar-100-binary")] {
        if !folder.is_dir() {
            continue;
        }
        let (mut batches, mut archive) = (Vec::new(), None);
        for path in list(&folder)? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if part(&path).is_some() {
                batches.push(path);
            } else if name.starts_with("cifar-") && name.ends_with("-binary.tar.gz") {
                archive = Some(path);
            }
        }
        batches.sort();
        if batches.is_empty() {
            batches.extend(archive);
        }
        if !batches.is_empty() {
            return Ok(Some(batches));
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
        && part(archive).is_none()
    {
        return load_archive(name, archive, split).map(Some);
    }
    let of_split = batches.into_iter().filter_map(|path| {
        let (kind, _) = part(&path).filter(|(_, of)| *of == split)?;
        Some(disk::read(&path, LARGEST_BATCH).map(|bytes| (path, kind, bytes)))
    });
    gather(name, folder, split, of_split).map(Some)
}

/// Reads `split` of the published `.tar.gz`.
pub(crate) fn load_archive(name: &str, path: &Path, split: Split) -> Result<ImageSet, DataError> {
    let (file, _) = disk::open(path)?;
    let mut archive = tar::Archive::new(MultiGzDecoder::new(BufReader::new(file)));
    let broken = |error: std::io::Error| match error.kind() {
        ErrorKind::PermissionDenied => DataError::io(Action::Read, path, error),
        _ => DataError::bad_file(path, format!("is not a whole .tar.gz ({error}); get it again")),
    };
    let mut batches = Vec::new();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let shown = path.join(entry.path().map_err(broken)?);
        let Some((kind, _)) = part(&shown).filter(|(_, of)| *of == split) else { continue };
        let claimed = entry.size();
        if claimed > LARGEST_BATCH {
            return Err(DataError::bad_file(&shown, format!("claims {claimed} bytes; no CIFAR batch is that long")));
        }
        let mut bytes = Vec::new();
        entry.by_ref().take(LARGEST_BATCH).read_to_end(&mut bytes).map_err(broken)?;
        if bytes.len() as u64 != claimed {
            let problem = format!("truncated: {} of {claimed} bytes are there; get it again", bytes.len());
            return Err(DataError::bad_file(&shown, problem));
        }
        batches.push((shown, kind, bytes));
    }
    // the published archive has its batches in another order
    batches.sort_by(|left, right| left.0.cmp(&right.0));
    gather(name, path, split, batches.into_iter().map(Ok))
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
    fn faults_are_reported_in_numbers() {
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
