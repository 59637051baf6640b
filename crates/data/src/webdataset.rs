//! WebDataset: the files of a sample share their name up to its first dot, the key: a picture (`KEY.jpg`), its class (`KEY.cls`,
//! a number or a name, or a field of `KEY.json`) and a text (`KEY.txt`), which is not learnt; see
//! <https://github.com/webdataset/webdataset>. A folder of tars of such files, called shards, is one data set.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::account::{Account, LeftOut, Weight, weight_of_pictures};
use crate::classes::{Classes, Value};
use crate::disk::{file_name, list};
use crate::error::DataError;
use crate::formats::extension;
use crate::options::{LoadOptions, Split};
use crate::recognize::is_tar_name;

/// Bytes of a class at most.
const LONGEST_CLASS: usize = 256;

/// The fields that may hold a class.
const FIELDS: [&str; 3] = ["label", "class", "cls"];

/// Reads a file of a sample.
type Reader<'a> = dyn Fn(&Path) -> Result<Vec<u8>, DataError> + 'a;

/// The tars in a folder.
pub(crate) enum Shards {
    None,
    /// The only one, whatever its name.
    One(PathBuf),
    /// Those of the split, in order of their names.
    Several(Vec<PathBuf>),
}

/// The tars of `split` that lie in `folder`. The first word of a name is its split (`train-000000.tar`); other tars belong to the
/// training split, and where there is only one split, that is it.
///
/// # Errors
/// [`DataError::NothingFound`] without a test split.
pub(crate) fn shards_in(folder: &Path, split: Split) -> Result<Shards, DataError> {
    let mut found = list(folder)?;
    found.retain(|path| is_tar_name(&file_name(path)) && !file_name(path).starts_with('.') && path.is_file());
    found.sort();
    if found.len() < 2 {
        return Ok(found.pop().map_or(Shards::None, Shards::One));
    }
    let is_of_test = |path: &PathBuf| {
        let name = file_name(path).to_ascii_lowercase();
        matches!(name.split(['-', '_', '.']).next(), Some("test" | "testing" | "val" | "valid" | "validation" | "dev"))
    };
    let (test, train): (Vec<_>, Vec<_>) = found.into_iter().partition(is_of_test);
    match split {
        Split::Train if train.is_empty() => Ok(Shards::Several(test)),
        Split::Train => Ok(Shards::Several(train)),
        Split::Test if test.is_empty() => {
            let looked_for = "test-….tar or val-….tar";
            Err(DataError::nothing_found(folder, "has tar archives, but none of the test split", looked_for))
        }
        Split::Test => Ok(Shards::Several(test)),
    }
}

/// The files of one key.
#[derive(Default)]
struct Sample<'a> {
    /// The pictures, with their extensions.
    pictures: Vec<(String, &'a PathBuf)>,
    /// Its files `.cls`, `.json` and `.txt`.
    class: Option<&'a PathBuf>,
    fields: Option<&'a PathBuf>,
    text: Option<&'a PathBuf>,
}

/// The samples of a source.
pub(crate) struct Samples<'a> {
    samples: Vec<Sample<'a>>,
}

/// The pictures of samples, their classes, and the files that the account need not name.
pub(crate) struct Labeled {
    pub pictures: Vec<PathBuf>,
    pub classes: Classes,
    pub used: BTreeSet<PathBuf>,
    pub account: Account,
}

/// Key and extension of a path: what comes before the first dot of its last part, and what comes after.
fn key_of(path: &Path) -> (PathBuf, String) {
    let name = file_name(path);
    let (key, extension) = name.split_once('.').unwrap_or((&name, ""));
    (path.with_file_name(key), extension.to_ascii_lowercase())
}

/// Whether a file may be part of a sample: [`Samples::of`] needs no others.
pub(crate) fn may_label(path: &Path) -> bool {
    matches!(extension(path).as_str(), "cls" | "json" | "txt")
}

impl<'a> Samples<'a> {
    /// The samples of pictures and other files, by their keys.
    pub(crate) fn of(pictures: &'a [PathBuf], others: &'a [PathBuf]) -> Self {
        let mut samples: BTreeMap<PathBuf, Sample<'a>> = BTreeMap::new();
        for path in pictures {
            let (key, extension) = key_of(path);
            samples.entry(key).or_default().pictures.push((extension, path));
        }
        for path in others {
            let (key, extension) = key_of(path);
            let Some(sample) = samples.get_mut(&key) else { continue };
            match extension.as_str() {
                "cls" => sample.class = Some(path),
                "json" => sample.fields = Some(path),
                "txt" => sample.text = Some(path),
                _ => {}
            }
        }
        Self { samples: samples.into_values().collect() }
    }

    /// The pictures with the classes that lie beside them; `None` where there are no such classes.
    ///
    /// # Errors
    /// [`DataError::BadFile`] for a picture without a class, where others have one, and the errors of [`Classes::by_value`].
    pub(crate) fn labeled(
        &self,
        root: &Path,
        read: &Reader<'_>,
        options: &LoadOptions,
    ) -> Result<Option<Labeled>, DataError> {
        let has_classes = options.label_column.is_none() && self.samples.iter().any(|sample| sample.class.is_some());
        let value = |sample: &Sample<'_>| match (has_classes, sample.class, sample.fields) {
            (true, Some(path), _) => class_in(&root.join(path), &read(path)?).map(Some),
            (false, _, Some(path)) => Ok(field_in(&read(path)?, options.label_column.as_deref())),
            _ => Ok(None),
        };
        let values = self.samples.iter().map(value).collect::<Result<Vec<_>, _>>()?;
        if values.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut labeled = self.pictures();
        let mut of_pictures = Vec::new();
        for (sample, value) in self.samples.iter().zip(values) {
            let from = if has_classes { ".cls" } else { ".json with a class" };
            let Some(value) = value else {
                let path = sample.pictures[0].1.display();
                let advice = "add it, or set `data.class_from = \"none\"`";
                let problem = format!("`{path}` has no file {from} beside it, as others have; {advice}");
                return Err(DataError::bad_file(root, problem));
            };
            of_pictures.push(value);
            let used = if has_classes { sample.class } else { sample.fields };
            labeled.used.extend(used.cloned());
        }
        let from = if has_classes { "`KEY.cls`" } else { "`KEY.json`" };
        labeled.account.decided(format!("labels are those in the files {from} beside the pictures (WebDataset)"));
        labeled.classes = Classes::by_value(root, of_pictures, None)?;
        Ok(Some(labeled))
    }

    /// A picture of each sample, without classes. Where a sample has several (an input and a mask), it is the one whose extension
    /// most samples have.
    pub(crate) fn pictures(&self) -> Labeled {
        let (mut account, mut used) = (Account::default(), BTreeSet::new());
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (extension, _) in self.samples.iter().flat_map(|sample| &sample.pictures) {
            *counts.entry(extension).or_insert(0) += 1;
        }
        let (mut pictures, mut second) = (Vec::new(), Vec::new());
        for sample in &self.samples {
            // of several that are as common, the first
            let most = sample.pictures.iter().rev().max_by_key(|picture| counts[picture.0.as_str()]);
            let kept = most.map(|picture| picture.1);
            pictures.extend(kept.cloned());
            second.extend(sample.pictures.iter().filter(|picture| Some(picture.1) != kept).map(|picture| picture.1));
            used.extend(sample.text.cloned());
        }
        if let Some(first) = second.first() {
            account.leave_out_all(LeftOut {
                what: "further pictures of a key".into(),
                reason: "one picture of each key is used (WebDataset), that of the most common ending".into(),
                count: second.len(),
                examples: vec![first.display().to_string()],
                weight: weight_of_pictures(second.len(), pictures.len(), false),
            });
        }
        for text in &used {
            let text: &PathBuf = text;
            account.leave_out(Weight::Note, "files .txt", "texts beside pictures are not learnt", text.display());
        }
        Labeled { pictures, classes: Classes::default(), used, account }
    }
}

/// The class in a file `.cls`.
fn class_in(path: &Path, bytes: &[u8]) -> Result<Value, DataError> {
    let text = str::from_utf8(bytes).ok().map(str::trim).filter(|text| (1..=LONGEST_CLASS).contains(&text.len()));
    let problem = "holds no class; expected a number or a name";
    text.map(|text| Value::Text(text.to_string())).ok_or_else(|| DataError::bad_file(path, problem))
}

/// The class in a file `.json`: the field of this name, else one of [`FIELDS`].
fn field_in(bytes: &[u8], asked: Option<&str>) -> Option<Value> {
    let fields: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let names = asked.map_or_else(|| FIELDS.to_vec(), |asked| vec![asked]);
    match names.into_iter().find_map(|name| fields.get(name))? {
        serde_json::Value::Number(number) => number.as_i64().map(Value::Number),
        serde_json::Value::String(text) => Some(Value::Text(text.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loaded::Loaded;
    use crate::places::Places;
    use crate::testing::{archive, gray, gzip, tar, write};

    fn open(path: &Path, options: &LoadOptions) -> Result<Loaded, String> {
        crate::open_in(&Places::default(), &path.display().to_string(), options).map_err(|error| error.to_string())
    }

    /// Pictures of these shades under keys, and other files.
    fn files<'a>(pictures: &[(&str, u8)], others: &[(&'a str, &'a str)]) -> Vec<(String, Vec<u8>)> {
        let pictures = pictures.iter().map(|(name, shade)| (name.to_string(), gray(2, 2, *shade)));
        pictures.chain(others.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()))).collect()
    }

    fn shard(files: &[(String, Vec<u8>)]) -> Vec<u8> {
        tar(&files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect::<Vec<_>>())
    }

    fn shades(loaded: &Loaded) -> Vec<u8> {
        (0..loaded.images.len()).map(|index| loaded.images.image(index)[0]).collect()
    }

    #[test]
    fn classes_beside_pictures_are_labels() {
        let root = tempfile::tempdir().unwrap();
        let of_class = files(
            &[("000/a.png", 1), ("000/b.png", 2), ("001/a.png", 3)],
            &[
                ("000/a.cls", "1"),
                ("000/b.cls", "0\n"),
                ("001/a.cls", " 1"),
                ("000/a.txt", "a dog"),
                ("000/a.json", "{}"),
            ],
        );
        write(&root, "set.tar", &shard(&of_class));
        write(&root, "set.tar.gz", &gzip(&shard(&of_class)));
        let parts: Vec<(&str, &[u8])> =
            of_class.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        write(&root, "set.zip", &archive(&parts));
        of_class.iter().for_each(|(name, bytes)| _ = write(root.path().join("set"), name, bytes));
        for name in ["set.tar", "set.tar.gz", "set.zip", "set"] {
            let loaded = open(&root.path().join(name), &LoadOptions::default()).unwrap();
            assert_eq!(
                (shades(&loaded), loaded.images.labels()),
                (vec![1, 2, 3], Some([1, 0, 1].as_slice())),
                "{name}"
            );
            let lines = loaded.account.lines().join("\n");
            for wanted in [
                "labels are those in the files `KEY.cls`",
                "texts beside pictures are not learnt",
                "000/a.json left out",
            ] {
                assert!(lines.contains(wanted), "{name}: {lines}");
            }
            assert!(!lines.contains(".cls left out"), "{lines}");
        }
        let none = LoadOptions { class_from: crate::ClassFrom::None, ..LoadOptions::default() };
        assert_eq!(open(&root.path().join("set.tar"), &none).unwrap().images.labels(), None);
    }

    #[test]
    fn fields_and_names_are_labels() {
        let root = tempfile::tempdir().unwrap();
        let named = files(
            &[("a.png", 1), ("b.png", 2)],
            &[("a.json", "{\"label\": \"dog\", \"age\": 7}"), ("b.json", "{\"label\": \"cat\", \"age\": 0}")],
        );
        let path = write(&root, "named.tar", &shard(&named));
        let loaded = open(&path, &LoadOptions::default()).unwrap();
        assert_eq!(loaded.images.class_names().unwrap(), ["cat", "dog"]);
        assert_eq!(loaded.images.labels(), Some([1, 0].as_slice()));
        let age = LoadOptions { label_column: Some("age".into()), ..LoadOptions::default() };
        let names = open(&path, &age).unwrap();
        assert_eq!(names.images.labels().map(<[u32]>::len), Some(2));
        let texts = files(&[("a.png", 1), ("b.png", 2)], &[("a.txt", "a dog"), ("b.txt", "7")]);
        let loaded = open(&write(&root, "texts.tar", &shard(&texts)), &LoadOptions::default()).unwrap();
        assert_eq!(loaded.images.labels(), None);
        assert!(loaded.account.lines().join("\n").contains("2 files .txt left out"));

        let missing = files(&[("a.png", 1), ("b.png", 2)], &[("a.cls", "1")]);
        let error = open(&write(&root, "missing.tar", &shard(&missing)), &LoadOptions::default()).unwrap_err();
        assert!(error.contains("`b.png` has no file .cls beside it") && error.contains("class_from"), "{error}");
        let empty = files(&[("a.png", 1)], &[("a.cls", " ")]);
        let error = open(&write(&root, "empty.tar", &shard(&empty)), &LoadOptions::default()).unwrap_err();
        assert!(error.contains("a.cls: holds no class"), "{error}");
    }

    #[test]
    fn a_folder_of_shards_is_one_data_set() {
        let root = tempfile::tempdir().unwrap();
        // each shard begins its keys anew
        let of = |shade: u8, class: &str| {
            shard(&files(
                &[("0.png", shade), ("0.mask.png", 99), ("1.png", shade + 1)],
                &[("0.cls", class), ("1.cls", "0")],
            ))
        };
        write(&root, "set/train-000001.tar", &gzip(&of(3, "2")));
        write(&root, "set/train-000000.tar", &of(1, "1"));
        write(&root, "set/val-000000.tar", &of(7, "2"));
        write(&root, "set/readme.txt", b"text");
        let loaded = open(&root.path().join("set"), &LoadOptions::default()).unwrap();
        assert_eq!((shades(&loaded), loaded.images.labels().map(<[u32]>::len)), (vec![1, 2, 3, 4], Some(4)));
        let lines = loaded.account.lines().join("\n");
        for wanted in [
            "2 archives are read as one data set",
            "archives left out: another split (val-000000.tar)",
            "readme.txt left out",
        ] {
            assert!(lines.contains(wanted), "{lines}");
        }
        let further = loaded.account.doubts().next().unwrap();
        assert_eq!((further.what.as_str(), further.count), ("further pictures of a key", 2));
        assert_eq!(further.examples, ["train-000000.tar/0.mask.png"]);
        let test = LoadOptions { split: Split::Test, ..LoadOptions::default() };
        assert_eq!(shades(&open(&root.path().join("set"), &test).unwrap()), [7, 8]);

        // without classes, the archives are none
        for name in ["x-0.tar", "x-1.tar"] {
            write(&root, &format!("bare/{name}"), &shard(&files(&[("a/0.png", 5)], &[])));
        }
        let loaded = open(&root.path().join("bare"), &LoadOptions::default()).unwrap();
        assert_eq!((shades(&loaded), loaded.images.labels()), (vec![5, 5], None));
        assert!(loaded.account.lines().join("\n").contains("no files `KEY.cls`"));
        let error = open(&root.path().join("bare"), &test).unwrap_err();
        assert!(error.contains("none of the test split"), "{error}");
        let folders = LoadOptions { class_from: crate::ClassFrom::Folder, ..LoadOptions::default() };
        assert!(open(&root.path().join("bare"), &folders).unwrap_err().contains("class_from"));
        // a single archive is read as such, with its folders
        write(&root, "single/flowers.tgz", &gzip(&shard(&files(&[("a/0.png", 5), ("b/1.png", 6)], &[]))));
        let loaded = open(&root.path().join("single"), &LoadOptions::default()).unwrap();
        assert_eq!(loaded.images.labels(), Some([0, 1].as_slice()));
    }
}
