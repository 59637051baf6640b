//! The pictures of a folder, or of an archive that is read as one: its splits, its table and its classes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::account::{Account, Weight};
use crate::classes::{Classes, label, prefixes_like_classes};
use crate::collect::Unreadable;
use crate::dataset_json;
use crate::error::DataError;
use crate::hash::of_selection;
use crate::layout::{Layout, common_parent, folder_at};
use crate::listing::{Listing, Loss};
use crate::metadata::{self, Listed};
use crate::options::{ClassFrom, LoadOptions, Split};
use crate::webdataset::{Labeled, Samples, may_label};

/// The files that a folder or an archive of pictures should have.
const LOOKED_FOR: &str = "png, jpg, webp, bmp, gif, tiff or pnm files, in it or in its sub-folders, in any letter case (hidden files \
                          are ignored), or Parquet files in it";

/// Reads the file at a path; `None` where it does not exist.
type TableReader<'a> = dyn Fn(&Path) -> Result<Option<Vec<u8>>, DataError> + 'a;

/// A folder or an archive, and the files in it. Paths are relative to `root`, except for those of `unreadable`.
pub(crate) struct Tree<'a> {
    pub root: &'a Path,
    pub files: Listing,
    /// Entries that cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// What was left out so far.
    pub account: Account,
    /// Whether a picture exists.
    pub exists: &'a dyn Fn(&Path) -> bool,
    /// Reads a table.
    pub table: &'a TableReader<'a>,
}

/// The pictures of one split.
pub(crate) struct Pictures {
    /// The folder of the pictures, relative to the root of the tree: that of the split, or of the table, or empty, ...
    pub part: PathBuf,
    /// ... and with it.
    pub folder: PathBuf,
    /// The pictures, relative to the folder: sorted, or in the order of the table.
    pub paths: Vec<PathBuf>,
    pub classes: Classes,
    /// Whether the classes are folders.
    by_folder: bool,
    /// Pictures that cannot be read, or are listed and missing, with the root.
    pub unreadable: Vec<Unreadable>,
    pub account: Account,
}

impl Tree<'_> {
    /// The pictures of `options.split`. Where there is a table, they are those that it lists, with its classes; else their
    /// classes are those of a `dataset.json`, or their folders.
    ///
    /// # Errors
    /// [`DataError::NothingFound`] where there is no picture, or no such split, [`DataError::BadOption`] where
    /// `options.label_column` is set and there is no table, and the errors of [`Layout::find`], of the table and of
    /// [`Classes::by_folder`].
    pub(crate) fn pictures(mut self, options: &LoadOptions) -> Result<Pictures, DataError> {
        let root = self.root;
        self.check_not_empty()?;
        let layout = Layout::find(root, &self.files.pictures, options.split)?;
        if !layout.has_splits && options.split == Split::Test {
            let advice = "name the folder or archive of test images";
            let problem = format!("{} has no folders `train` and `test`; {advice}", root.display());
            return Err(DataError::bad_option("split", problem));
        }
        let held: Vec<PathBuf> = self.files.pictures.iter().filter(|path| layout.holds(path)).cloned().collect();
        // the folders that a table of these pictures may lie in
        let inner = common_parent(&held);
        let found = metadata::find(&self, &inner, options);
        let is_listed = matches!(found, Ok((Some(_), _)));
        let part = if is_listed { &inner } else { &layout.part }.clone();
        // to join an empty path would add a slash
        let folder = if part.as_os_str().is_empty() { root.to_path_buf() } else { root.join(&part) };
        self.unreadable.retain(|(path, _)| path.starts_with(&folder));
        let relative = |path: &PathBuf| Some(path.strip_prefix(&part).ok()?.to_path_buf());
        let mut pictures = Pictures {
            paths: held.iter().filter_map(relative).collect(),
            classes: Classes::default(),
            by_folder: false,
            unreadable: std::mem::take(&mut self.unreadable),
            account: layout.account.clone(),
            part,
            folder,
        };
        let mut used = metadata::known(&self, &inner);
        // labels in files of their own are found where no table is
        match if is_listed { None } else { self.find_labels_beside(&pictures, &layout, options)? } {
            Some(labeled) => pictures.take(labeled, &mut used),
            None => {
                let (listed, of_tables) = found?;
                self.account.add(of_tables);
                listed.into_iter().for_each(|listed| pictures.list(listed, root, &layout));
            }
        }
        let labels = self.find_labels(&mut pictures, &inner, options, &mut used)?;
        pictures.classify(labels, &layout, options)?;
        let loss = |path: &Path| pictures.loss(path, &layout, &inner);
        let mut account = self.account;
        account.add(self.files.account(&used, pictures.paths.len(), options.skip_unreadable, &loss));
        account.add(pictures.account);
        Ok(Pictures { account, ..pictures })
    }

    fn check_not_empty(&self) -> Result<(), DataError> {
        if !(self.files.pictures.is_empty() && self.unreadable.is_empty()) {
            return Ok(());
        }
        let found = match self.files.len() {
            0 => "is empty".to_string(),
            count => {
                let there = self.files.account(&BTreeSet::new(), 0, false, &|_| Loss::Picture).lines().join("; ");
                format!("has no image among its {count} files: {there}")
            }
        };
        Err(DataError::nothing_found(self.root, found, LOOKED_FOR))
    }

    /// The files that may be tables of the pictures.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.others.iter().filter(|path| metadata::may_be_table(path))
    }

    /// The pictures of several archives, of which each has a folder of its own here: they have no classes but those in files
    /// beside them, and no folders of splits.
    ///
    /// # Errors
    /// [`DataError::BadOption`] for classes by folders, and the errors of [`Samples::labeled`].
    pub(crate) fn shards(self, options: &LoadOptions) -> Result<Pictures, DataError> {
        self.check_not_empty()?;
        if matches!(options.class_from, ClassFrom::Folder | ClassFrom::Prefix) {
            let problem =
                "several archives that are one data set have no classes by folders or names; unpack them, or name one";
            return Err(DataError::bad_option("class_from", problem));
        }
        let mut pictures = Pictures {
            part: PathBuf::new(),
            folder: self.root.to_path_buf(),
            paths: self.files.pictures.clone(),
            classes: Classes::default(),
            by_folder: false,
            unreadable: Vec::new(),
            account: Account::default(),
        };
        let labeled = self.find_labels_beside(&pictures, &Layout::default(), options)?;
        if labeled.is_none() && options.class_from == ClassFrom::Auto {
            pictures.account.decided("the archives have no files `KEY.cls` beside the pictures: no labels");
        }
        let mut used = BTreeSet::new();
        let of_each_key = || Samples::of(&self.files.pictures, &self.files.others).pictures();
        pictures.take(labeled.unwrap_or_else(of_each_key), &mut used);
        let mut account = self.account;
        let count = pictures.paths.len();
        account.add(self.files.account(&used, count, options.skip_unreadable, &|_| Loss::Picture));
        account.add(pictures.account);
        Ok(Pictures { account, ..pictures })
    }

    /// The pictures with labels in files of their own beside them, if they have some.
    fn find_labels_beside(
        &self,
        pictures: &Pictures,
        layout: &Layout,
        options: &LoadOptions,
    ) -> Result<Option<Labeled>, DataError> {
        let relative = |path: &PathBuf| Some(path.strip_prefix(&pictures.part).ok()?.to_path_buf());
        let others: Vec<PathBuf> = self
            .files
            .others
            .iter()
            .filter(|path| may_label(path) && layout.holds(path))
            .filter_map(relative)
            .collect();
        if options.class_from != ClassFrom::Auto || others.is_empty() {
            return Ok(None);
        }
        let read = |path: &Path| Ok((self.table)(&pictures.part.join(path))?.unwrap_or_default());
        Samples::of(&pictures.paths, &others).labeled(&pictures.folder, &read, options)
    }

    /// The labels of a `dataset.json` where no others are asked for or known, and its path.
    fn find_labels(
        &self,
        pictures: &mut Pictures,
        inner: &Path,
        options: &LoadOptions,
        used: &mut BTreeSet<PathBuf>,
    ) -> Result<Option<(PathBuf, dataset_json::Labels)>, DataError> {
        for folder in inner.ancestors() {
            let path = folder.join(dataset_json::NAME);
            if self.files.others.binary_search(&path).is_err() {
                continue;
            }
            if options.class_from != ClassFrom::Auto || pictures.classes.labels.is_some() {
                let reason = if options.class_from == ClassFrom::Auto {
                    "the labels come from another file"
                } else {
                    "`data.class_from` takes the classes from elsewhere"
                };
                pictures.account.leave_out(Weight::Note, path.display().to_string(), reason, path.display());
                used.insert(path);
            } else if let Some(bytes) = (self.table)(&path)? {
                let labels = dataset_json::read(&bytes, folder, &path, &mut pictures.account);
                used.insert(path.clone());
                if let Some(labels) = labels {
                    return Ok(Some((self.root.join(path), labels)));
                }
            }
        }
        Ok(None)
    }
}

impl Pictures {
    /// A name of the list of pictures: for the cache of an archive, of whose pictures the options choose.
    pub(crate) fn key(&self) -> String {
        of_selection(self.paths.iter().map(|path| self.part.join(path).into_os_string().into_encoded_bytes()))
    }

    /// Takes the pictures that a table lists, with its classes.
    fn list(&mut self, listed: Listed, root: &Path, layout: &Layout) {
        let reason = format!("is listed in {}, but not there", listed.table.display());
        self.unreadable.extend(listed.missing.into_iter().map(|path| (root.join(path), reason.clone())));
        let is_held: Vec<bool> = listed.files.iter().map(|path| layout.holds(&self.part.join(path))).collect();
        let held =
            |labels: Vec<u32>| labels.into_iter().zip(&is_held).filter_map(|(label, held)| held.then_some(label));
        let classes = listed.classes.unwrap_or_default();
        self.classes = Classes { labels: classes.labels.map(|labels| held(labels).collect()), ..classes };
        self.paths = listed.files.into_iter().zip(&is_held).filter_map(|(path, held)| held.then_some(path)).collect();
    }

    /// Takes pictures with their labels.
    fn take(&mut self, labeled: Labeled, used: &mut BTreeSet<PathBuf>) {
        used.extend(labeled.used.iter().map(|path| self.part.join(path)));
        (self.paths, self.classes) = (labeled.pictures, labeled.classes);
        self.account.add(labeled.account);
    }

    /// Finds the classes; those of a table are known.
    fn classify(
        &mut self,
        labels: Option<(PathBuf, dataset_json::Labels)>,
        layout: &Layout,
        options: &LoadOptions,
    ) -> Result<(), DataError> {
        self.classes = match (options.class_from, labels) {
            (ClassFrom::None, _) => Classes::default(),
            (ClassFrom::Prefix, _) => Classes::by_prefix(&self.paths)?,
            (ClassFrom::Folder, _) => Classes::by_folder(&self.folder, &self.paths, true, &mut self.account)?,
            (ClassFrom::Auto, _) if self.classes.labels.is_some() => return Ok(()),
            (ClassFrom::Auto, Some((path, labels))) => return self.label(&path, labels, layout, options),
            (ClassFrom::Auto, None) => Classes::by_folder(&self.folder, &self.paths, false, &mut self.account)?,
        };
        if options.class_from == ClassFrom::Auto {
            if self.classes.labels.is_some() {
                self.by_folder = true;
            } else {
                self.hint_at_classes();
            }
        }
        Ok(())
    }

    /// Notes where the names of pictures without classes look as if they had some.
    fn hint_at_classes(&mut self) {
        if let Some(prefixes) = prefixes_like_classes(&self.paths) {
            let more = if prefixes.len() > 3 { ", …" } else { "" };
            let some: Vec<String> = prefixes.iter().take(3).map(|prefix| format!("{prefix}_")).collect();
            self.account.decided(format!(
                "no classes, but the names look like classes by prefix ({}{more}): set `data.class_from = \"prefix\"` if they are",
                some.join(", ")
            ));
        }
        let has_backslash = |path: &PathBuf| path.as_os_str().as_encoded_bytes().contains(&b'\\');
        if !cfg!(windows) && !self.paths.is_empty() && self.paths.iter().all(has_backslash) {
            self.account.decided(
                "no classes, but the names have `\\`, as of a zip of Windows that was unpacked elsewhere: name the zip itself as \
                 the data, or unpack it with `7z x`, and its folders are classes",
            );
        }
    }

    /// Takes the labels of a `dataset.json`; pictures without one are left out.
    fn label(
        &mut self,
        path: &Path,
        labels: dataset_json::Labels,
        layout: &Layout,
        options: &LoadOptions,
    ) -> Result<(), DataError> {
        let is_of_split = |path: &Path| layout.holds(path);
        let (labeled, values) =
            labels.of(&self.paths, &self.part, options.skip_unreadable, &is_of_split, &mut self.account);
        if labeled.is_empty() {
            let problem = "has labels for none of the images; set `data.class_from = \"none\"`";
            return Err(DataError::bad_file(path, problem));
        }
        self.classes = Classes::by_value(path, values, None)?;
        self.paths = labeled;
        Ok(())
    }

    /// The loss of a picture that is not read; `inner` is the folder that those that are read lie in.
    fn loss(&self, path: &Path, layout: &Layout, inner: &Path) -> Loss {
        if !layout.matters(path) {
            return Loss::Nothing;
        }
        let names =
            self.classes.names.as_ref().filter(|_| self.by_folder && layout.holds(path) && path.starts_with(inner));
        match (names, folder_at(path, inner.iter().count())) {
            (Some(names), Some(folder)) if !names.contains(&label(folder)) => Loss::Class,
            _ => Loss::Picture,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Places;
    use crate::loaded::Loaded;
    use crate::testing::{archive, gray, write};

    /// Pictures of these shades, and other files with these bytes.
    type Files<'a> = [(&'a str, Result<u8, &'a [u8]>)];

    /// Loads the files as a folder and as a zip of it, with either separator, which must give the same.
    fn load(files: &Files, options: &LoadOptions) -> Result<Loaded, String> {
        let root = tempfile::tempdir().unwrap();
        let bytes: Vec<(String, Vec<u8>)> = files
            .iter()
            .map(|(name, content)| {
                ((*name).to_string(), content.map_or_else(<[u8]>::to_vec, |shade| gray(2, 2, shade)))
            })
            .collect();
        std::fs::create_dir(root.path().join("set")).unwrap();
        bytes.iter().for_each(|(name, bytes)| _ = write(root.path().join("set"), name, bytes));
        let open = |name: &str| {
            let path = root.path().join(name).display().to_string();
            let loaded = crate::open_in(&Places::default(), &path, options);
            loaded.map_err(|error| error.to_string().replace(&path, "DATA"))
        };
        let content = |loaded: &Loaded| {
            let images = &loaded.images;
            let shades: Vec<u8> = (0..images.len()).map(|index| images.image(index)[0]).collect();
            (shades, images.labels().map(<[u32]>::to_vec), images.class_names().map(<[String]>::to_vec))
        };
        let folder = open("set");
        for separator in ["/", "\\"] {
            let names: Vec<String> = bytes.iter().map(|(name, _)| name.replace('/', separator)).collect();
            // in another order
            let parts: Vec<(&str, &[u8])> =
                names.iter().zip(&bytes).map(|(name, (_, bytes))| (name.as_str(), bytes.as_slice())).rev().collect();
            write(&root, "set.zip", &archive(&parts));
            match (&folder, open("set.zip")) {
                (Ok(folder), Ok(zip)) => {
                    assert_eq!(content(folder), content(&zip));
                    assert_eq!(folder.account, zip.account);
                }
                (Err(folder), Err(zip)) => assert_eq!(*folder, zip),
                (folder, zip) => panic!("folder: {folder:?}, zip: {zip:?}"),
            }
        }
        folder
    }

    /// `shade class` of each image, `-` without one.
    fn content(loaded: &Loaded) -> String {
        let images = &loaded.images;
        let class = |index: usize| match (images.labels(), images.class_names()) {
            (Some(labels), Some(names)) => names[labels[index] as usize].clone(),
            (Some(labels), None) => labels[index].to_string(),
            (None, _) => "-".to_string(),
        };
        let images: Vec<String> =
            (0..images.len()).map(|at| format!("{} {}", images.image(at)[0], class(at))).collect();
        images.join(", ")
    }

    fn auto() -> LoadOptions {
        LoadOptions::default()
    }

    fn from(class_from: ClassFrom) -> LoadOptions {
        LoadOptions { class_from, ..LoadOptions::default() }
    }

    fn test_split() -> LoadOptions {
        LoadOptions { split: Split::Test, ..LoadOptions::default() }
    }

    #[test]
    fn what_systems_leave_behind_is_no_class_and_counted() {
        let loaded = load(
            &[
                ("pets/cat/1.png", Ok(1)),
                ("pets/dog/1.png", Ok(2)),
                ("pets/cat/._1.png", Err(b"\0\x05\x16\x07")),
                ("pets/cat/.DS_Store", Err(b"Bud1")),
                ("pets/cat/Thumbs.db", Err(b"\xd0\xcf")),
                ("pets/DESKTOP.INI", Err(b"[.ShellClassInfo]")),
                ("pets/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", Ok(3)),
                ("pets/.ipynb_checkpoints/1-checkpoint.png", Ok(4)),
                ("pets/#recycle/old.png", Ok(5)),
                ("__MACOSX/pets/cat/._1.png", Err(b"\0\x05\x16\x07")),
                ("pets/dog/1.xmp", Err(b"<x:xmpmeta/>")),
            ],
            &auto(),
        )
        .unwrap();
        assert_eq!(content(&loaded), "1 cat, 2 dog");
        let count = loaded.account.left_out.iter().filter(|left_out| left_out.weight == Weight::Litter).count();
        assert_eq!((count, loaded.account.lines().len()), (9, 1));
        assert!(loaded.account.lines()[0].starts_with("9 files and folders of systems and programs left out: "));
    }

    #[test]
    fn formats_that_are_not_read_are_counted_and_named() {
        let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
        let mut files = vec![("cow/1.png", Ok(1)), ("bee/1.png", Ok(2)), ("bee/readme.txt", Err(&b"x"[..]))];
        files.extend(["ant/0.HEIC", "ant/1.HEIC", "bee/2.heic"].map(|name| (name, Err(&heic[..]))));
        files.push(("bee/3.avif", Err(b"")));
        let loaded = load(&files, &auto()).unwrap();
        assert_eq!(content(&loaded), "2 bee, 1 cow");
        let doubts: Vec<String> = loaded.account.doubts().map(ToString::to_string).collect();
        assert!(doubts[0].starts_with("bee/3.avif left out: this build reads no AVIF; convert"), "{doubts:?}");
        let heic_lost =
            "3 files .heic left out: this build reads no HEIC, without which whole classes are lost; convert";
        assert!(doubts[1].starts_with(heic_lost), "{doubts:?}");
        // a few of many are a note, but not if a class is lost
        let many: Vec<String> = (0..200).map(|number| format!("cow/{number}.png")).collect();
        let mut more: Vec<(&str, Result<u8, &[u8]>)> = many.iter().map(|name| (name.as_str(), Ok(1))).collect();
        more.extend([("bee/1.png", Ok(2)), ("bee/2.heic", Err(&heic[..]))]);
        assert_eq!(load(&more, &auto()).unwrap().account.doubts().count(), 0);
        more.push(("ant/3.heic", Err(&heic[..])));
        assert_eq!(load(&more, &auto()).unwrap().account.doubts().count(), 1);
        let skip = LoadOptions { skip_unreadable: true, ..auto() };
        assert_eq!(load(&files, &skip).unwrap().account.doubts().count(), 0);
        // a name that hides the format, and one that hides a picture
        let error = load(&[("1.png", Ok(1)), ("2.jpg", Err(heic))], &auto()).unwrap_err();
        assert!(error.contains("2.jpg: is HEIC, which this build does not read: convert it"), "{error}");
        let png = gray(2, 2, 7);
        let loaded = load(&[("0a1b", Err(&png)), ("IMG.HEIC", Err(&png)), ("LICENSE", Err(b"text"))], &auto()).unwrap();
        assert_eq!(content(&loaded), "7 -, 7 -");
        assert_eq!(
            loaded.account.lines()[..2],
            [
                "files without an extension with the first bytes of a picture that is read are used: 1",
                "files .heic with the first bytes of a picture that is read are used: 1"
            ]
        );
    }

    #[test]
    fn a_source_without_pictures_says_what_is_there() {
        let error =
            load(&[("x/1.heic", Err(b"")), ("x/2.heic", Err(b"")), ("a.txt", Err(b"")), (".b", Err(b""))], &auto());
        let error = error.unwrap_err();
        for part in [
            "DATA: has no image among its 4 files: ",
            "hidden files left out",
            "a.txt left out",
            "2 files .heic left out",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn wrappers_are_no_classes_and_splits_are_found_below_them() {
        let loaded = load(&[("in/in/1.png", Ok(1)), ("in/in/2.png", Ok(2))], &auto()).unwrap();
        assert_eq!(
            (content(&loaded).as_str(), loaded.account.lines()),
            ("1 -, 2 -", vec!["all images lie in `in/in`: one folder makes no class".to_string()])
        );
        let splits = [
            ("in/Train/cat/1.png", Ok(1)),
            ("in/Train/dog/2.png", Ok(2)),
            ("in/TEST/cat/3.png", Ok(3)),
            ("in/TEST/dog/4.png", Ok(4)),
            ("in/val/cat/5.png", Ok(5)),
            ("in/val/1.heic", Err(&b""[..])),
        ];
        let train = load(&splits, &auto()).unwrap();
        assert_eq!(content(&train), "1 cat, 2 dog");
        let lines = train.account.lines();
        assert!(
            lines.contains(
                &"2 pictures of `TEST` left out: a split that is not trained on (in/TEST/cat/3.png, in/TEST/dog/4.png)"
                    .to_string()
            ),
            "{lines:?}"
        );
        assert_eq!(train.account.doubts().count(), 0, "{lines:?}");
        assert_eq!(content(&load(&splits, &test_split()).unwrap()), "3 cat, 4 dog");
        let flat =
            load(&[("train/images/1.png", Ok(1)), ("test/2.png", Ok(2)), ("train/labels/1.txt", Err(b"0 0"))], &auto())
                .unwrap();
        assert_eq!(content(&flat), "1 -");
        let classes = [
            ("cat/train/1.png", Ok(1)),
            ("cat/test/2.png", Ok(2)),
            ("dog/train/3.png", Ok(3)),
            ("dog/test/4.png", Ok(4)),
        ];
        assert_eq!(content(&load(&classes, &auto()).unwrap()), "1 cat, 3 dog");
        assert_eq!(content(&load(&classes, &test_split()).unwrap()), "2 cat, 4 dog");
        let mixed = load(&[("x/1.png", Ok(1)), ("x/a/2.png", Ok(2))], &auto()).unwrap_err();
        assert!(mixed.contains("both beside and in its sub-folders"), "{mixed}");
    }

    #[test]
    fn folders_of_numbers_are_classes_of_these_numbers() {
        let loaded = load(
            &[("10/a.png", Ok(10)), ("9/a.png", Ok(9)), ("1/b.png", Ok(1)), ("1/a10.png", Ok(2)), ("1/a9.png", Ok(3))],
            &auto(),
        );
        // classes in natural order; pictures in that of their paths
        let loaded = loaded.unwrap();
        assert_eq!(content(&loaded), "2 1, 3 1, 1 1, 10 10, 9 9");
        assert_eq!(loaded.images.class_names().unwrap(), ["1", "9", "10"]);
    }

    #[test]
    fn labels_of_nvidias_dataset_tool_are_read() {
        let pictures =
            [("00000/img00000000.png", Ok(1)), ("00000/img00000001.png", Ok(2)), ("00001/img00001000.png", Ok(3))];
        let with = |json: &'static str| {
            let mut files: Vec<(&str, Result<u8, &[u8]>)> = pictures.to_vec();
            files.push(("dataset.json", Err(json.as_bytes())));
            files
        };
        let labeled = r#"{"labels": [["00000/img00000000.png", 1], ["00001\\img00001000.png", 0], ["00000/img00000001.png", 1]]}"#;
        let loaded = load(&with(labeled), &auto()).unwrap();
        assert_eq!(
            (content(&loaded).as_str(), loaded.account.lines()),
            ("1 1, 2 1, 3 0", vec!["labels are those of dataset.json".to_string()])
        );
        let loaded = load(&with(labeled), &from(ClassFrom::None)).unwrap();
        assert_eq!(content(&loaded), "1 -, 2 -, 3 -");
        assert_eq!(
            loaded.account.lines(),
            ["dataset.json left out: `data.class_from` takes the classes from elsewhere"]
        );
        assert_eq!(content(&load(&with(labeled), &from(ClassFrom::Folder)).unwrap()), "1 00000, 2 00000, 3 00001");
        let loaded = load(&with(r#"{"labels": null}"#), &auto()).unwrap();
        assert_eq!(content(&loaded), "1 -, 2 -, 3 -");
        let lines = loaded.account.lines();
        assert!(
            lines[0].starts_with("no labels: dataset.json has none") && lines[1].contains("no classes"),
            "{lines:?}"
        );
        let partly = load(&with(r#"{"labels": [["00000/img00000000.png", 0]]}"#), &auto()).unwrap();
        assert_eq!(content(&partly), "1 0");
        assert_eq!(partly.account.doubts().next().map(|doubt| doubt.count), Some(2));
        assert!(
            load(&with(r#"{"labels": [["x.png", 0]]}"#), &auto())
                .unwrap_err()
                .contains("labels for none of the images")
        );
        // one storage folder, within a wrapper
        let one = [
            ("set/00000/img00000000.png", Ok(1)),
            ("set/dataset.json", Err(&br#"{"labels": [["00000/img00000000.png", 0]]}"#[..])),
        ];
        assert_eq!(content(&load(&one, &auto()).unwrap()), "1 0");
    }

    #[test]
    fn prefixes_are_classes_on_demand_and_hinted_at() {
        let files = [("dog_1.png", Ok(1)), ("dog_2.png", Ok(2)), ("cat_1.png", Ok(3)), ("cat_2.png", Ok(4))];
        let loaded = load(&files, &auto()).unwrap();
        assert_eq!(content(&loaded), "3 -, 4 -, 1 -, 2 -");
        let hint = "no classes, but the names look like classes by prefix (cat_, dog_): set `data.class_from = \"prefix\"` if they are";
        assert_eq!(loaded.account.lines(), [hint]);
        let loaded = load(&files, &from(ClassFrom::Prefix)).unwrap();
        assert_eq!((content(&loaded).as_str(), loaded.account.lines().len()), ("3 cat, 4 cat, 1 dog, 2 dog", 0));
        let error = load(&[("cat_1.png", Ok(1)), ("1.png", Ok(2))], &from(ClassFrom::Prefix)).unwrap_err();
        assert!(error.contains("data.class_from") && error.contains("1.png has no `_`"), "{error}");
        let folder = load(&[("a_1.png", Ok(1)), ("a_2.png", Ok(1))], &from(ClassFrom::Folder)).unwrap_err();
        assert!(folder.contains("needs images in two sub-folders"), "{folder}");
    }

    #[test]
    fn tables_in_or_around_a_wrapper_are_read() {
        let table = b"file_name,label\n2.png,x\n1.png,y\n";
        let files = [("in/1.png", Ok(1)), ("in/2.png", Ok(2)), ("in/metadata.csv", Err(&table[..]))];
        assert_eq!(content(&load(&files, &auto()).unwrap()), "2 x, 1 y");
        let around = b"file_name,label\nin/2.png,x\nin/1.png,y\n";
        let mut files = vec![("in/1.png", Ok(1)), ("in/2.png", Ok(2)), ("metadata.csv", Err(&around[..]))];
        assert_eq!(content(&load(&files, &auto()).unwrap()), "2 x, 1 y");
        let _ = files.remove(1);
        assert!(load(&files, &auto()).unwrap_err().contains("in/2.png: is listed in metadata.csv, but not there"));
        let splits = b"file_name,label\nin/test/2.png,x\nin/train/1.png,y\n";
        let files = [("in/train/1.png", Ok(1)), ("in/test/2.png", Ok(2)), ("metadata.csv", Err(&splits[..]))];
        assert_eq!(content(&load(&files, &auto()).unwrap()), "1 y");
        assert_eq!(content(&load(&files, &test_split()).unwrap()), "2 x");
    }

    /// Damaged lists of labels give a set, or an error.
    #[test]
    fn a_damaged_dataset_json_never_panics() {
        let root = tempfile::tempdir().unwrap();
        write(&root, "00000/img00000000.png", &gray(1, 1, 1));
        let whole = br#"{"labels": [["00000/img00000000.png", 1], ["00000/img00000001.png", 0]]}"#;
        let mut state = 1u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut refused = 0;
        for _ in 0..1000 {
            let mut bytes = whole.to_vec();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            write(&root, "dataset.json", &bytes);
            refused += usize::from(crate::folder::load("damaged", root.path(), &auto()).is_err());
        }
        assert!(refused < 1000);
    }
}
