//! CIFAR-10 and CIFAR-100, as files, in a folder, or in the published `.tar.gz`; see
//! <https://www.cs.toronto.edu/~kriz/cifar.html>. An image is 3072 bytes, 32x32 red, then green, then blue. The binary version
//! has records of a label (two for CIFAR-100: coarse, fine) and an image, the Python version pickles of an array of images
//! beside a list of labels.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::account::{Account, Weight};
use crate::disk::{self, list};
use crate::error::DataError;
use crate::image_set::ImageSet;
use crate::listing::{OF_ARRAYS, Use, say_beside};
use crate::manifest;
use crate::options::Split;
use crate::pickle::{self, is_pickle};
use crate::tarred::{Place, Tars};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const IMAGE: usize = 3 * PLANE;

/// Files of CIFAR-10's training split.
const BATCHES: usize = 5;

/// Bytes of a batch at most; the longest published one, CIFAR-100's training file in Python, has 155,249,918.
const LARGEST_BATCH: u64 = 256 << 20;

/// Bytes of a file of names at most.
const LARGEST_NAMES: u64 = 1 << 20;

/// Images, and what to say of them.
type Read = (ImageSet, Account);

/// One of the two datasets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    /// Bytes of labels in a record; the last one is used.
    label_bytes: usize,
    classes: usize,
    /// The key of the labels in the Python version.
    label_key: &'static str,
}

const TEN: Kind = Kind { label_bytes: 1, classes: 10, label_key: "labels" };
/// A coarse label, below 20, and a fine one, below 100.
const HUNDRED: Kind = Kind { label_bytes: 2, classes: 100, label_key: "fine_labels" };

/// The files that have the names of the hundred classes, in the binary and in the Python version.
const NAMES: [&str; 2] = ["fine_label_names.txt", "meta"];

/// A file of the published archives, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    kind: Kind,
    split: Split,
    /// Whether it is a pickle.
    is_python: bool,
}

/// The part that a file is by its name, if it `is_pickle` where it has to be one.
fn part(path: &Path, is_pickle: impl FnOnce() -> bool) -> Option<Part> {
    let name = path.file_name()?.to_str()?;
    let (stem, is_python) = name.strip_suffix(".bin").map_or((name, true), |stem| (stem, false));
    let (kind, split) = match stem {
        "train" => (HUNDRED, Split::Train),
        "test" => (HUNDRED, Split::Test),
        "test_batch" => (TEN, Split::Test),
        _ if stem.starts_with("data_batch_") => (TEN, Split::Train),
        _ => return None,
    };
    (!is_python || is_pickle()).then_some(Part { kind, split, is_python })
}

/// [`part`] of a file of the disk.
fn part_of_file(path: &Path) -> Option<Part> {
    part(path, || {
        let mut start = [0; 2];
        let read = |mut file: File| file.read_exact(&mut start);
        // opening a pipe waits for a writer
        path.is_file() && File::open(path).and_then(read).is_ok() && is_pickle(&start)
    })
}

/// Images and labels of the batches so far.
#[derive(Default)]
struct Gathered {
    pixels: Vec<u8>,
    labels: Vec<u32>,
    kind: Option<Kind>,
}

impl Gathered {
    /// Adds the images of one batch; `path` is for messages.
    fn add(&mut self, bytes: &[u8], part: Part, path: &Path) -> Result<(), DataError> {
        if *self.kind.get_or_insert(part.kind) != part.kind {
            return Err(DataError::bad_file(path, "CIFAR-10 and CIFAR-100 batches lie together; separate them"));
        }
        let too_large = |_| DataError::TooLarge { path: path.to_path_buf(), bytes: bytes.len() as u128 };
        self.pixels.try_reserve(bytes.len()).map_err(too_large)?;
        let added = if part.is_python { self.add_pickle(bytes, part.kind) } else { self.add_records(bytes, part.kind) };
        added.map_err(|problem| DataError::bad_file(path, problem))
    }

    fn add_records(&mut self, bytes: &[u8], kind: Kind) -> Result<(), String> {
        let Kind { label_bytes, classes, .. } = kind;
        let record_len = label_bytes + IMAGE;
        if bytes.is_empty() || !bytes.len().is_multiple_of(record_len) {
            return Err(format!(
                "has {} bytes, which is not a whole number of records of {record_len} bytes (CIFAR-{classes}); it is \
                 truncated or something else; get it again",
                bytes.len(),
            ));
        }
        bytes.chunks_exact(record_len).enumerate().try_for_each(|(number, record)| {
            let (labels, planes) = record.split_at(label_bytes);
            self.add_image(number, labels[label_bytes - 1].into(), planes, classes)
        })
    }

    fn add_pickle(&mut self, bytes: &[u8], kind: Kind) -> Result<(), String> {
        let pickle = pickle::read(bytes)?;
        let lacks = |what: &str| format!("is a pickle without {what}, which a batch of CIFAR-{} has", kind.classes);
        let images = pickle.get("data").and_then(|data| pickle.array(data));
        let (shape, images) = images.ok_or_else(|| lacks("an array `data` of bytes"))?;
        let labels = pickle.get(kind.label_key).and_then(|labels| pickle.integers(labels));
        let labels = labels.ok_or_else(|| lacks(&format!("a list `{}` of numbers", kind.label_key)))?;
        if labels.is_empty() || *shape != [labels.len(), IMAGE] {
            let expected = format!("expected [{}, {IMAGE}]", labels.len());
            return Err(format!("has {} labels and an array `data` of shape {shape:?}, {expected}", labels.len()));
        }
        let mut images = labels.into_iter().zip(images.chunks_exact(IMAGE)).enumerate();
        images.try_for_each(|(number, (label, planes))| self.add_image(number, label, planes, kind.classes))
    }

    fn add_image(&mut self, number: usize, label: i64, planes: &[u8], classes: usize) -> Result<(), String> {
        if !(0..classes as i64).contains(&label) {
            return Err(format!("record {number} has label {label}, but CIFAR-{classes} has labels in 0..{classes}"));
        }
        self.labels.push(label as u32);
        for at in 0..PLANE {
            self.pixels.extend([planes[at], planes[PLANE + at], planes[2 * PLANE + at]]);
        }
        Ok(())
    }

    /// The images; `names` are those of the hundred classes, where the files have them.
    fn finish(self, name: &str, names: Option<Vec<String>>) -> Result<Read, DataError> {
        let shape = [self.labels.len(), SIDE, SIDE, 3];
        let names = match self.kind {
            Some(TEN) => manifest::find("cifar10").map(|manifest| manifest.classes.clone()),
            // without names, numbers tell the hundred classes apart
            _ => names.or_else(|| Some((0..100).map(|class| class.to_string()).collect())),
        };
        let mut account = Account::default();
        if self.kind == Some(HUNDRED) {
            account.decided("labels are the 100 fine ones of CIFAR-100; its 20 coarse ones are not used");
        }
        Ok((ImageSet::new(name, self.pixels, shape, Some(self.labels), names)?, account))
    }
}

/// The names of the hundred classes in a file of either version; `None` where it has none.
fn names_in(bytes: &[u8]) -> Option<Vec<String>> {
    let names: Vec<String> = if is_pickle(bytes) {
        let meta = pickle::read(bytes).ok()?;
        meta.names(meta.get("fine_label_names")?)?
    } else {
        str::from_utf8(bytes)
            .ok()?
            .lines()
            .map(|name| name.trim().to_string())
            .filter(|name| !name.is_empty())
            .collect()
    };
    (names.len() == HUNDRED.classes).then_some(names)
}

/// The images of the batches of `split` in the folder or archive at `path`.
fn gather(
    name: &str,
    path: &Path,
    split: Split,
    batches: impl Iterator<Item = Result<(PathBuf, Part, Vec<u8>), DataError>>,
    names: Option<Vec<String>>,
) -> Result<Read, DataError> {
    let (mut gathered, mut read) = (Gathered::default(), Vec::new());
    for batch in batches {
        let (path, part, bytes) = batch?;
        gathered.add(&bytes, part, &path)?;
        read.push(disk::file_name(&path));
    }
    if gathered.labels.is_empty() {
        let split = if split == Split::Train { "training" } else { "test" };
        let looked_for = "data_batch_1.bin to data_batch_5.bin and test_batch.bin (CIFAR-10), or train.bin and test.bin (CIFAR-100), \
                          or the same without .bin (Python version)";
        return Err(DataError::nothing_found(path, format!("has no CIFAR batch of the {split} split"), looked_for));
    }
    let is_short = gathered.kind == Some(TEN) && split == Split::Train && read.len() != BATCHES;
    let (images, mut account) = gathered.finish(name, names)?;
    if is_short {
        let read = read.join(", ");
        account.decided(format!("of CIFAR-10's {BATCHES} training batches, those that are there are used: {read}"));
    }
    Ok((images, account))
}

/// Reads one batch file of the binary version, or of the Python version where it is a pickle: its dataset is told by its name,
/// else by the length of its records or by its labels.
pub(crate) fn load_file(name: &str, path: &Path) -> Result<Read, DataError> {
    let bytes = disk::read(path, LARGEST_BATCH)?;
    let is_python = is_pickle(&bytes);
    let has_fine = || pickle::read(&bytes).is_ok_and(|pickle| pickle.get(HUNDRED.label_key).is_some());
    let kind = match part(path, || is_python) {
        Some(part) => part.kind,
        None if is_python => {
            if has_fine() {
                HUNDRED
            } else {
                TEN
            }
        }
        None if bytes.len().is_multiple_of(2 + IMAGE) && !bytes.len().is_multiple_of(1 + IMAGE) => HUNDRED,
        None => TEN,
    };
    let mut gathered = Gathered::default();
    gathered.add(&bytes, Part { kind, split: Split::Train, is_python }, path)?;
    gathered.finish(name, path.parent().and_then(names_beside))
}

/// The use of the file at `path` where the batches of `split` in its folder are read.
pub(crate) fn use_of(path: &Path, split: Split) -> Use {
    let name = disk::file_name(path);
    match part_of_file(path) {
        Some(part) if part.split == split => Use::Used,
        Some(_) => Use::other_split(split),
        // the names of classes, which are known or read
        None if NAMES.contains(&&*name) || name.starts_with("batches.meta") || name == "manifest.toml" => Use::Used,
        None if is_published_archive(&name) => Use::Used,
        None => Use::Unknown,
    }
}

/// Whether a file is a published archive, by its name.
fn is_published_archive(name: &str) -> bool {
    name.starts_with("cifar-") && (name.ends_with("-binary.tar.gz") || name.ends_with("-python.tar.gz"))
}

/// The names of the hundred classes in a folder.
fn names_beside(folder: &Path) -> Option<Vec<String>> {
    NAMES.iter().find_map(|name| names_in(&disk::read(&folder.join(name), LARGEST_NAMES).ok()?))
}

/// The batch files of a folder, or of a folder of the published archives in it, or such an archive.
enum Found {
    Batches(PathBuf, Vec<(PathBuf, Part)>),
    Archive(PathBuf),
}

fn find(folder: &Path) -> Result<Option<Found>, DataError> {
    let published = ["cifar-10-batches-bin", "cifar-100-binary", "cifar-10-batches-py", "cifar-100-python"];
    for folder in std::iter::once(folder.to_path_buf()).chain(published.map(|name| folder.join(name))) {
        if !folder.is_dir() {
            continue;
        }
        let mut paths = list(&folder)?;
        paths.sort();
        let archive = paths.iter().find(|path| is_published_archive(&disk::file_name(path))).cloned();
        let batches = paths.into_iter().filter_map(|path| part_of_file(&path).map(|part| (path, part))).collect();
        let batches = of_one_version(batches, |(_, part)| *part);
        if !batches.is_empty() {
            return Ok(Some(Found::Batches(folder, batches)));
        }
        if let Some(archive) = archive {
            return Ok(Some(Found::Archive(archive)));
        }
    }
    Ok(None)
}

/// The batches of the binary version, where there are some of both.
fn of_one_version<T>(mut batches: Vec<T>, part: impl Fn(&T) -> Part) -> Vec<T> {
    if batches.iter().any(|batch| !part(batch).is_python) {
        batches.retain(|batch| !part(batch).is_python);
    }
    batches
}

/// Whether `folder` holds CIFAR batches or their archive.
pub(crate) fn lies_in(folder: &Path) -> bool {
    matches!(find(folder), Ok(Some(_)))
}

/// Reads `split` of the CIFAR batches in `folder`; `None` where there are none.
pub(crate) fn load_folder(name: &str, folder: &Path, split: Split) -> Result<Option<Read>, DataError> {
    match find(folder)? {
        None => Ok(None),
        Some(Found::Archive(archive)) => {
            let tars = Tars::open(std::slice::from_ref(&archive), None)?;
            let (images, mut account) = match load_archive(name, &archive, &tars, split)? {
                None => gather(name, &archive, split, std::iter::empty(), None)?,
                Some(read) => read,
            };
            say_beside(&mut account, folder, OF_ARRAYS, &|path| use_of(path, split));
            Ok(Some((images, account)))
        }
        Some(Found::Batches(within, batches)) => {
            let of_split = batches.into_iter().filter(|(_, part)| part.split == split);
            let of_split =
                of_split.map(|(path, part)| disk::read(&path, LARGEST_BATCH).map(|bytes| (path, part, bytes)));
            let (images, mut account) = gather(name, folder, split, of_split, names_beside(&within))?;
            say_beside(&mut account, &within, OF_ARRAYS, &|path| use_of(path, split));
            Ok(Some((images, account)))
        }
    }
}

/// Reads `split` of a published archive; `None` where it is another one.
pub(crate) fn load_archive(name: &str, path: &Path, tars: &Tars, split: Split) -> Result<Option<Read>, DataError> {
    let part_of = |(inner, place): &(PathBuf, Place)| {
        Some((path.join(inner), part(inner, || tars.start(place, 2).is_ok_and(|start| is_pickle(&start)))?, *place))
    };
    let batches = tars.files.iter().filter_map(part_of).collect();
    let mut batches = of_one_version(batches, |(_, part, _)| *part);
    if batches.is_empty() {
        return Ok(None);
    }
    // the published archive has its batches in another order
    batches.sort_by(|left, right| left.0.cmp(&right.0));
    let names = tars.files.iter().filter(|(inner, _)| NAMES.iter().any(|name| inner.ends_with(name)));
    let names = names.filter_map(|(_, place)| names_in(&tars.read(place, LARGEST_NAMES).ok()?)).next();
    let (of_split, others): (Vec<_>, Vec<_>) = batches.into_iter().partition(|(_, part, _)| part.split == split);
    let of_split = of_split.into_iter().map(|(shown, part, place)| {
        let bytes =
            tars.read(&place, LARGEST_BATCH).map_err(|reason| DataError::bad_file(&shown, reason.to_string()))?;
        Ok((shown, part, bytes))
    });
    let (images, mut account) = gather(name, path, split, of_split, names)?;
    if let Use::Not(reason) = Use::other_split(split) {
        let others = others.iter().map(|(shown, ..)| disk::file_name(shown));
        others.for_each(|other| account.leave_out(Weight::Note, OF_ARRAYS, reason, other));
    }
    Ok(Some((images, account)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cifar_pickle, gzip, tar, write};

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
        let entries: Vec<(&str, &[u8])> = entries.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
        gzip(&tar(&entries))
    }

    /// The images of an archive, as [`crate::open_in`] reads it.
    fn load_packed(path: &Path, split: Split) -> Result<ImageSet, DataError> {
        let options = crate::LoadOptions { split, ..crate::LoadOptions::default() };
        crate::open_in(&crate::Places::default(), path.to_str().unwrap(), &options).map(|loaded| loaded.images)
    }

    #[test]
    fn planes_become_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(&folder, "data_batch_1.bin", &[record(&[7]), record(&[2])].concat());
        let set = load_file("one", &path).unwrap().0;
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
        let unpacked = load_folder("a", folder.path(), Split::Train).unwrap().unwrap().0;
        assert_eq!(unpacked.labels(), Some([1, 2].as_slice()));
        let lines = load_folder("a", folder.path(), Split::Train).unwrap().unwrap().1.lines();
        assert!(lines[0].ends_with("are used: data_batch_1.bin, data_batch_2.bin"), "{lines:?}");
        for set in [
            load_packed(&path, Split::Train).unwrap(),
            load_folder("a", packed.path(), Split::Train).unwrap().unwrap().0,
            load_folder("a", &folder.path().join("cifar-10-batches-bin"), Split::Train).unwrap().unwrap().0,
        ] {
            assert_eq!(set.content_hash(), unpacked.content_hash());
        }
        assert_eq!(load_packed(&path, Split::Test).unwrap().labels(), Some([9].as_slice()));
        assert!(lies_in(folder.path()) && lies_in(packed.path()));
    }

    #[test]
    fn the_hundred_classes_use_the_fine_label() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "train.bin", &record(&[3, 42]));
        let (set, account) = load_folder("c", folder.path(), Split::Train).unwrap().unwrap();
        assert!(account.lines()[0].contains("100 fine ones"));
        assert_eq!((set.labels(), set.classes()), (Some([42].as_slice()), 100));
        assert_eq!(load_file("c", &write(&folder, "other.bin", &record(&[3, 42]))).unwrap().0.classes(), 100);
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
            let error = load_packed(&write(&folder, name, bytes), Split::Train).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        // a tar header that claims 2^40 bytes
        let mut header = tar::Header::new_gnu();
        header.set_path("data_batch_1.bin").unwrap();
        header.set_size(1 << 40);
        header.set_cksum();
        let lie = write(&folder, "lie.tar.gz", &gzip(header.as_bytes()));
        let error = load_packed(&lie, Split::Train).unwrap_err().to_string();
        assert!(error.contains("1099511627776"), "{error}");
    }

    #[test]
    fn the_python_version_is_the_binary_version() {
        let root = tempfile::tempdir().unwrap();
        let planes = |label: u8| record(&[label])[1..].to_vec();
        for (part, labels) in [("data_batch_1", [1u8, 7]), ("data_batch_2", [9, 3]), ("test_batch", [0, 2])] {
            let records: Vec<u8> = labels.iter().flat_map(|&label| record(&[label])).collect();
            write(&root, &format!("binary/{part}.bin"), &records);
            let data: Vec<u8> = labels.iter().flat_map(|&label| planes(label)).collect();
            for (folder, python3) in [("cifar-10-batches-py", false), ("again", true)] {
                write(&root, &format!("py/{folder}/{part}"), &cifar_pickle(python3, "labels", &labels, &data));
            }
        }
        write(&root, "py/cifar-10-batches-py/batches.meta", b"\x80\x02}.");
        let load = |path: &str, split| load_packed(&root.path().join(path), split).unwrap();
        let packed = |folder: &str| {
            let files =
                ["test_batch", "data_batch_2", "data_batch_1", "batches.meta"].map(|part| format!("{folder}/{part}"));
            let bytes: Vec<(&str, Vec<u8>)> = files
                .iter()
                .filter_map(|file| Some((file.as_str(), std::fs::read(root.path().join("py").join(file)).ok()?)))
                .collect();
            archive(&bytes)
        };
        write(&root, "torchvision/cifar-10-python.tar.gz", &packed("cifar-10-batches-py"));
        write(&root, "renamed.tgz", &packed("again"));
        for split in [Split::Train, Split::Test] {
            let binary = load("binary", split);
            assert_eq!(binary.labels().unwrap(), if split == Split::Train { [1, 7, 9, 3].as_slice() } else { &[0, 2] });
            // the folder itself, those that it lies in, and archives
            for path in [
                "py/cifar-10-batches-py",
                "py/again",
                "torchvision",
                "torchvision/cifar-10-python.tar.gz",
                "renamed.tgz",
            ] {
                let images = load(path, split);
                assert_eq!(
                    (images.content_hash(), images.class_names()),
                    (binary.content_hash(), binary.class_names()),
                    "{path}"
                );
            }
        }
        assert_eq!(load("py", Split::Train).labels(), Some([1, 7, 9, 3].as_slice()));
        let one = load("py/cifar-10-batches-py/data_batch_2", Split::Train);
        assert_eq!((one.labels(), one.image(0)[..3].to_vec()), (Some([9, 3].as_slice()), vec![1, 2, 3]));
        // both versions in one folder are not read twice
        write(&root, "binary/data_batch_1", &std::fs::read(root.path().join("py/again/data_batch_1")).unwrap());
        assert_eq!(load("binary", Split::Train).len(), 4);
    }

    #[test]
    fn the_hundred_names_are_read_in_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..100).map(|class| format!("kind_{class}")).collect();
        write(&root, "binary/train.bin", &record(&[3, 42]));
        write(&root, "binary/fine_label_names.txt", format!("{}\n", names.join("\n")).as_bytes());
        write(&root, "python/train", &cifar_pickle(false, "fine_labels", &[42], &record(&[3])[1..]));
        let mut meta = b"\x80\x02}(U\x10fine_label_names](".to_vec();
        names.iter().for_each(|name| meta.extend([b"U", [name.len() as u8].as_slice(), name.as_bytes()].concat()));
        meta.extend(b"eu.");
        write(&root, "python/meta", &meta);
        let files = ["python/train", "python/meta"].map(|name| (name, std::fs::read(root.path().join(name)).unwrap()));
        write(&root, "cifar-100-python.tar.gz", &archive(&files));
        for path in ["binary", "binary/train.bin", "python", "python/train", "cifar-100-python.tar.gz"] {
            let images = load_packed(&root.path().join(path), Split::Train).unwrap();
            assert_eq!(
                (images.labels(), images.image(0)[..3].to_vec()),
                (Some([42].as_slice()), vec![1, 2, 3]),
                "{path}"
            );
            assert_eq!(images.class_names().unwrap(), names, "{path}");
        }
        // other pickles are no batches
        let error = load_packed(&write(&root, "train", &meta), Split::Train).unwrap_err().to_string();
        assert!(error.contains("without an array `data` of bytes"), "{error}");
        let short = cifar_pickle(false, "labels", &[1], &[0; 3072]);
        let short = [&short[..short.len() - 60], &short[short.len() - 50..]].concat();
        assert!(load_packed(&write(&root, "data_batch_1", &short), Split::Train).is_err());
    }
}
