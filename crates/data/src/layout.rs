//! The splits of a tree of pictures: folders called `train`, `val`, `test`, …, at the first level where they appear.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::account::{Account, LeftOut, Weight, weight_of_pictures};
use crate::error::DataError;
use crate::options::Split;

/// The names of splits, in any letter case; of several the first is read.
const TRAIN: [&str; 2] = ["train", "training"];
const TEST: [&str; 6] = ["test", "testing", "val", "valid", "validation", "dev"];

/// Words beside them, as in `training_set` or `train_images`.
const FILLERS: [&str; 6] = ["set", "data", "dataset", "images", "imgs", "split"];

/// The split that a folder's name stands for, and the rank of its name.
type Role = (Split, usize);

/// The part of a tree that belongs to one split.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// The folder of the split; empty without splits, or where each class has its own.
    pub part: PathBuf,
    /// Where each class has a folder of the split: the depth of this folder, and its role.
    within_classes: Option<(usize, Role)>,
    /// Whether there are splits.
    pub has_splits: bool,
    /// The pictures of other splits.
    pub account: Account,
}

impl Layout {
    /// The part of `split` among `pictures`, which are relative to `root`.
    ///
    /// # Errors
    /// [`DataError::NothingFound`] where there is no such split, and [`DataError::BadFile`] where pictures of a test split would
    /// be trained on.
    pub(crate) fn find(root: &Path, pictures: &[PathBuf], split: Split) -> Result<Self, DataError> {
        let base = common_parent(pictures);
        let alone = base.iter().enumerate().find_map(|(at, name)| Some((at, role(name)?)));
        if let Some((at, (found, _))) = alone {
            let part: PathBuf = base.iter().take(at + 1).collect();
            return match (found, split) {
                (Split::Test, Split::Train) => Err(only_test(root, &part)),
                (Split::Train, Split::Test) => Err(missing(root, &part)),
                _ => Self { part, has_splits: true, ..Self::default() }.refined(root, pictures, split),
            };
        }
        let depth = base.iter().count();
        let folders: BTreeSet<&OsStr> = pictures.iter().filter_map(|path| folder_at(path, depth)).collect();
        let named = |split| {
            let roles = folders.iter().filter_map(|name| Some((role(name)?, *name)));
            roles.filter(|((found, _), _)| *found == split).min_by_key(|((_, rank), name)| (*rank, *name))
        };
        let is_other = |path: &&PathBuf| folder_at(path, depth).and_then(role).is_none();
        let other = pictures.iter().find(is_other);
        match (named(Split::Train), named(Split::Test), other) {
            (Some((_, train)), test, other) if test.is_some() || other.is_none() => {
                let name = match (split, test) {
                    (Split::Train, _) => train,
                    (Split::Test, Some((_, test))) => test,
                    (Split::Test, None) => return Err(missing(root, &base.join(train))),
                };
                let account = left_out(pictures, depth, split, |path| folder_at(path, depth) == Some(name));
                Self { part: base.join(name), has_splits: true, account, ..Self::default() }
                    .refined(root, pictures, split)
            }
            (None, Some((_, test)), None) => Err(only_test(root, &base.join(test))),
            (None, Some((_, test)), Some(other)) => Err(DataError::bad_file(
                root,
                format!(
                    "has the folder `{}` beside other pictures ({}), which are not in a folder `train`: if it is a split, put \
                     the others into `train`; if it is a class, rename it",
                    base.join(test).display(),
                    other.display()
                ),
            )),
            (train, _, _) => {
                let mut layout = Self::within_classes(root, pictures, depth, split)?;
                if let Some((_, name)) = train {
                    let name = name.display();
                    layout.account.decided(format!(
                        "the folder `{name}` is taken for a class: there is no `test` or `val` beside it"
                    ));
                }
                Ok(layout)
            }
        }
    }

    /// Splits within the folders of classes: `cat/train`, `cat/test`, `dog/train`, …
    fn within_classes(root: &Path, pictures: &[PathBuf], from: usize, split: Split) -> Result<Self, DataError> {
        let found: Vec<Option<(usize, Role)>> = pictures.iter().map(|path| first_role(path, from)).collect();
        let Some(&first) = found.iter().flatten().next() else { return Ok(Self::default()) };
        let is_train = |found: &(usize, Role)| found.1.0 == Split::Train;
        let has_train = found.iter().flatten().any(is_train);
        if found.iter().all(|found| found.is_some_and(|(depth, _)| depth == first.0)) {
            let part: PathBuf = pictures[0].iter().take(first.0 + 1).collect();
            if !has_train && split == Split::Train {
                return Err(only_test(root, &part));
            }
            let roles = found.iter().flatten().map(|(_, role)| *role).filter(|(found, _)| *found == split);
            let Some(role_of_split) = roles.min_by_key(|(_, rank)| *rank) else { return Err(missing(root, &part)) };
            let account = left_out(pictures, first.0, split, |path| {
                folder_at(path, first.0).and_then(role) == Some(role_of_split)
            });
            return Ok(Self {
                within_classes: Some((first.0, role_of_split)),
                has_splits: true,
                account,
                ..Self::default()
            });
        }
        // a folder with both splits, beside pictures of none
        let mut parents: BTreeMap<PathBuf, [Option<&PathBuf>; 2]> = BTreeMap::new();
        for (path, (depth, (found, _))) in
            pictures.iter().zip(&found).filter_map(|(path, found)| Some((path, (*found)?)))
        {
            parents.entry(path.iter().take(depth).collect()).or_default()[usize::from(found == Split::Test)] =
                Some(path);
        }
        let other = pictures.iter().zip(&found).find(|(_, found)| found.map(|found| found.0) != Some(first.0));
        let both = parents.iter().find_map(|(parent, [train, test])| Some((parent, (*train)?, (*test)?)));
        let (Some((parent, train, test)), Some((other, _))) = (both, other) else { return Ok(Self::default()) };
        let problem = format!(
            "has pictures of two splits in `{}` ({} and {}) beside pictures of none ({}); name the folder to train on",
            parent.display(),
            train.display(),
            test.display(),
            other.display()
        );
        Err(DataError::bad_file(root, problem))
    }

    /// The part with splits of its own, as in `train/train` and `train/val`, taken into account.
    fn refined(self, root: &Path, pictures: &[PathBuf], split: Split) -> Result<Self, DataError> {
        if split == Split::Test {
            return Ok(self);
        }
        let inner: Vec<PathBuf> =
            pictures.iter().filter_map(|path| Some(path.strip_prefix(&self.part).ok()?.to_path_buf())).collect();
        let mut found = Self::find(&root.join(&self.part), &inner, split)?;
        found.within_classes = found.within_classes.map(|(depth, role)| (depth + self.part.iter().count(), role));
        let mut account = self.account;
        account.add(found.account);
        // to join an empty path would add a slash
        let part = self.part.iter().chain(found.part.iter()).collect();
        Ok(Self { part, has_splits: true, account, ..found })
    }

    /// Whether a file at a path relative to the root is of the split.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        let of_class = |(depth, wanted)| folder_at(path, depth).and_then(role) == Some(wanted);
        path.starts_with(&self.part) && self.within_classes.is_none_or(of_class)
    }

    /// Whether a file belongs to the split or to none.
    pub(crate) fn matters(&self, path: &Path) -> bool {
        !self.has_splits || self.holds(path) || first_role(path, 0).is_none()
    }
}

/// The folder that all files lie in, directly or in its sub-folders.
pub(crate) fn common_parent(paths: &[PathBuf]) -> PathBuf {
    let parent = |path: &PathBuf| path.parent().map(Path::to_path_buf).unwrap_or_default();
    let Some(mut common) = paths.first().map(parent) else { return PathBuf::new() };
    for path in paths {
        while !path.parent().is_some_and(|parent| parent.starts_with(&common)) && common.pop() {}
    }
    common
}

/// The folder at a depth of a path; `None` where the file itself is there.
pub(crate) fn folder_at(path: &Path, depth: usize) -> Option<&OsStr> {
    let mut names = path.iter().skip(depth);
    let name = names.next()?;
    names.next().map(|_| name)
}

/// The first folder from a depth on that has the name of a split.
fn first_role(path: &Path, from: usize) -> Option<(usize, Role)> {
    let folders = path.parent()?.iter().enumerate().skip(from);
    folders.into_iter().find_map(|(depth, name)| Some((depth, role(name)?)))
}

fn role(name: &OsStr) -> Option<Role> {
    let name = name.to_str()?.to_ascii_lowercase();
    let mut words = name.split(['_', '-', ' ', '.']).filter(|word| !FILLERS.contains(word));
    let (word, None) = (words.next()?, words.next()) else { return None };
    // the year of a competition, as in `train2017`
    let bare = word.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let word = if word.len() - bare.len() == 4 { bare } else { word };
    let find = |names: &[&str]| names.iter().position(|name| *name == word);
    find(&TRAIN).map(|rank| (Split::Train, rank)).or_else(|| find(&TEST).map(|rank| (Split::Test, rank)))
}

/// The account of pictures that are not of the split.
fn left_out(pictures: &[PathBuf], depth: usize, split: Split, is_held: impl Fn(&Path) -> bool) -> Account {
    let mut groups: BTreeMap<Option<OsString>, Vec<&PathBuf>> = BTreeMap::new();
    for path in pictures.iter().filter(|path| !is_held(path)) {
        groups.entry(folder_at(path, depth).map(OsStr::to_os_string)).or_default().push(path);
    }
    let used = pictures.len() - groups.values().map(Vec::len).sum::<usize>();
    let mut account = Account::default();
    for (folder, paths) in groups {
        let found = folder.as_deref().and_then(role).map(|(split, _)| split);
        let (weight, reason) = match (split, found) {
            (Split::Train, Some(Split::Test)) => (Weight::Note, "a split that is not trained on"),
            (Split::Train, _) => {
                let reason = "they lie beside the folders of splits; move them into the folder of training pictures if they are meant";
                (weight_of_pictures(paths.len(), used, false), reason)
            }
            (Split::Test, _) => (Weight::Note, "another split"),
        };
        let noun = if paths.len() == 1 { "a picture" } else { "pictures" };
        let what = match &folder {
            Some(folder) => format!("{noun} of `{}`", folder.display()),
            None => format!("{noun} beside the splits"),
        };
        let examples = paths.iter().take(3).map(|path| path.display().to_string()).collect();
        account.leave_out_all(LeftOut { what, reason: reason.to_string(), count: paths.len(), examples, weight });
    }
    account
}

fn only_test(root: &Path, part: &Path) -> DataError {
    let problem = format!(
        "has only pictures of the split `{}`, and those are not trained on; if they are meant, name that folder itself as the \
         data (of an archive: unpack it first)",
        part.display()
    );
    DataError::bad_file(root, problem)
}

fn missing(root: &Path, part: &Path) -> DataError {
    let found = format!("has the split `{}` alone", part.display());
    DataError::nothing_found(root, found, "a folder `test` or `validation`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(names: &[&str], split: Split) -> Result<Layout, String> {
        let mut paths: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
        paths.sort();
        Layout::find(Path::new("root"), &paths, split).map_err(|error| error.to_string())
    }

    /// The folder of the split, which is the only one that holds its pictures.
    fn part(names: &[&str], split: Split) -> String {
        let layout = find(names, split).unwrap();
        assert!(layout.within_classes.is_none(), "{names:?}");
        layout.part.display().to_string()
    }

    #[test]
    fn splits_are_found_at_the_first_level_where_they_appear() {
        use Split::{Test, Train};
        let both = ["test/cat/1.png", "Train/cat/1.png"];
        assert_eq!((part(&both, Train), part(&both, Test)), ("Train".into(), "test".into()));
        let deep = ["set/in/train/1.png", "set/in/VAL/1.png", "set/in/test/1.png"];
        assert_eq!((part(&deep, Train), part(&deep, Test)), ("set/in/train".into(), "set/in/test".into()));
        assert_eq!(part(&["train/1.png", "valid/1.png"], Test), "valid");
        let sets = ["set/training_set/cat/1.png", "set/test_set/cat/1.png", "set/val2017/1.png"];
        assert_eq!((part(&sets, Train), part(&sets, Test)), ("set/training_set".into(), "set/test_set".into()));
        assert_eq!(part(&["train/train/cat/1.png", "train/val/cat/1.png", "test/1.png"], Train), "train/train");
        assert_eq!(part(&["images/train/1.png", "images/val/1.png"], Train), "images/train");
        assert_eq!(part(&["train/1.png", "train/2.png"], Train), "train");
        assert!(find(&["train/1.png"], Test).unwrap_err().contains("`train` alone"));
        for names in [&["train/1.png", "plane/1.png"][..], &["train/1.png", "1.png"], &["1.png"], &["a/1.png"]] {
            let layout = find(names, Train).unwrap();
            assert!(!layout.has_splits && layout.part == Path::new(""), "{names:?}");
        }
    }

    #[test]
    fn splits_within_classes_are_splits() {
        let names = ["x/cat/train/1.png", "x/cat/test/2.png", "x/dog/Train/3.png", "x/dog/test/4.png"];
        for (split, held) in [(Split::Train, [true, false]), (Split::Test, [false, true])] {
            let layout = find(&names, split).unwrap();
            assert_eq!([names[0], names[1]].map(|path| layout.holds(Path::new(path))), held);
            assert_eq!([names[2], names[3]].map(|path| layout.holds(Path::new(path))), held);
        }
        let lines = find(&names, Split::Train).unwrap().account.lines();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("2 pictures of `test` left out: a split that is not trained on"), "{lines:?}");
    }

    #[test]
    fn pictures_of_a_test_split_are_never_trained_on() {
        for (names, word) in [
            (&["test/1.png", "test/2.png"][..], "only pictures of the split `test`"),
            (&["x/test/1.png", "x/val/2.png"], "only pictures of the split `x/test`"),
            (&["cat/test/1.png", "dog/test/2.png"], "only pictures of the split `cat/test`"),
            (&["cat/1.png", "test/2.png"], "`test` beside other pictures (cat/1.png)"),
            (&["1.png", "val/2.png"], "`val` beside other pictures (1.png)"),
            (&["a/train/1.png", "a/test/2.png", "b/3.png"], "beside pictures of none (b/3.png)"),
        ] {
            let error = find(names, Split::Train).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn folders_beside_the_splits_are_a_doubt_if_they_hold_more_than_a_few_pictures() {
        let layout = find(&["train/1.png", "test/1.png", "extra/1.png", "extra/2.png", "0.png"], Split::Train).unwrap();
        assert_eq!(layout.part, Path::new("train"));
        let doubts: Vec<_> = layout.account.doubts().map(|doubt| (doubt.what.as_str(), doubt.count)).collect();
        assert_eq!(doubts, [("a picture beside the splits", 1), ("pictures of `extra`", 2)]);
    }

    const NAMES: [&str; 8] = ["train", "Test", "val", "cat", "dog", "training_set", "images", "train2017"];

    proptest::proptest! {
        #[test]
        fn every_picture_is_of_the_split_or_counted(
            paths in proptest::collection::btree_set(
                (proptest::collection::vec(proptest::sample::select(&NAMES[..]), 0..4), 0..3),
                1..9,
            ),
        ) {
            let mut paths: Vec<PathBuf> = paths
                .into_iter()
                .map(|(folders, number)| folders.into_iter().collect::<PathBuf>().join(format!("{number}.png")))
                .collect();
            paths.sort();
            let held = |split| {
                let layout = Layout::find(Path::new("root"), &paths, split).ok()?;
                let held: BTreeSet<&PathBuf> = paths.iter().filter(|path| layout.holds(path)).collect();
                let counted: usize = layout.account.left_out.iter().map(|left_out| left_out.count).sum();
                assert!(!held.is_empty());
                assert_eq!(held.len() + counted, paths.len(), "{layout:?}");
                layout.has_splits.then_some(held)
            };
            if let (Some(train), Some(test)) = (held(Split::Train), held(Split::Test)) {
                proptest::prop_assert!(train.is_disjoint(&test));
            }
        }
    }
}
