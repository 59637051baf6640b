//! The classes of pictures: by their folders, by numbers, or by names.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use crate::account::Account;
use crate::error::DataError;
use crate::layout::{common_parent, folder_at};

/// A label for each picture, and the names of the classes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Classes {
    pub labels: Option<Vec<u32>>,
    pub names: Option<Vec<String>>,
    /// What was chosen that a user might not expect, for the account.
    pub decision: Option<String>,
}

/// Classes at most: a column of more is one of something else.
pub(crate) const MOST_CLASSES: usize = 1 << 16;

/// Values from which on a class for nearly each of them is one of something else.
const MANY: usize = 100;

/// Numbers that are listed in a sentence.
const LISTED: usize = 6;

/// The class of a picture in a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    Number(i64),
    Text(String),
}

impl Classes {
    /// The folder of each path is its class: the first one below the folder that all lie in. No classes where there is no other
    /// folder, or where the folders are the storage of NVIDIA's dataset_tool, unless they are `is_asked` for.
    ///
    /// # Errors
    /// [`DataError::BadFile`] of `root` where some are in folders and some are not, [`DataError::BadOption`] where folders are
    /// asked for and there are none.
    pub fn by_folder(root: &Path, paths: &[PathBuf], is_asked: bool, account: &mut Account) -> Result<Self, DataError> {
        let base = common_parent(paths);
        let depth = base.iter().count();
        let folders: Vec<Option<&OsStr>> = paths.iter().map(|path| folder_at(path, depth)).collect();
        let flat = folders.iter().position(Option::is_none);
        let nested = folders.iter().position(Option::is_some);
        match (flat, nested) {
            (Some(flat), Some(nested)) => Err(DataError::bad_file(
                root,
                format!(
                    "has images both beside and in its sub-folders ({} and {}), so it is unclear whether the \
                     sub-folders are classes; move the former into one, or set `data.class_from = \"none\"`",
                    paths[flat].display(),
                    paths[nested].display()
                ),
            )),
            (None, Some(_)) if !is_asked && is_storage(paths, &folders) => {
                account.decided(
                    "folders of five digits (00000, 00001, …) are the storage of NVIDIA's dataset_tool, no classes; if they \
                     are classes, set `data.class_from = \"folder\"`",
                );
                Ok(Self::default())
            }
            (None, Some(_)) => Ok(Self::by_name(folders.into_iter().flatten().map(OsStr::to_os_string).collect())),
            (_, None) if is_asked => {
                let problem = format!("\"folder\" needs images in two sub-folders of {} or more", root.display());
                Err(DataError::bad_option("class_from", problem))
            }
            (_, None) => {
                if depth > 0 {
                    account.decided(format!("all images lie in `{}`: one folder makes no class", base.display()));
                }
                Ok(Self::default())
            }
        }
    }

    /// The part of each file name before the first `_` is its class.
    ///
    /// # Errors
    /// [`DataError::BadOption`] for a name without it.
    pub fn by_prefix(paths: &[PathBuf]) -> Result<Self, DataError> {
        let class = |path: &PathBuf| match prefix(path) {
            Some(prefix) => Ok(OsString::from(prefix)),
            None => {
                let problem = format!("\"prefix\" needs names such as `cat_1.png`; {} has no `_`", path.display());
                Err(DataError::bad_option("class_from", problem))
            }
        };
        Ok(Self::by_name(paths.iter().map(class).collect::<Result<_, _>>()?))
    }

    /// Classes in natural order.
    fn by_name(of_each: Vec<OsString>) -> Self {
        let mut names: Vec<&OsString> = of_each.iter().collect::<HashSet<_>>().into_iter().collect();
        names.sort_by(|left, right| natural(left.as_encoded_bytes(), right.as_encoded_bytes()));
        let numbers: HashMap<&OsString, u32> = names.iter().copied().zip(0..).collect();
        let labels = of_each.iter().map(|name| numbers[name]).collect();
        Self { labels: Some(labels), names: Some(names.into_iter().map(|name| label(name)).collect()), decision: None }
    }

    /// Whole numbers are labels; where any value is not one, they are names. `names`, where they are known, bound the numbers;
    /// without them, numbers with gaps become the classes that they name, in order.
    ///
    /// # Errors
    /// [`DataError::BadFile`] of `path` for a number that is out of range, and for too many classes.
    pub fn by_value(path: &Path, values: Vec<Value>, names: Option<Vec<String>>) -> Result<Self, DataError> {
        let number = |value: &Value| match value {
            Value::Number(number) => Some(*number),
            Value::Text(text) => whole_number(text),
        };
        let numbers: Option<Vec<i64>> = values.iter().map(number).collect();
        let Some(numbers) = numbers else {
            let text = |value| match value {
                Value::Number(number) => number.to_string().into(),
                Value::Text(text) => text.into(),
            };
            return Ok(Self::by_name(values.into_iter().map(text).collect()));
        };
        // the label of Hugging Face for a secret one
        if numbers.iter().all(|number| *number == -1) {
            return Ok(Self::default());
        }
        let most = names.as_ref().map_or(i64::MAX, |names| names.len() as i64);
        if let Some(at) = numbers.iter().position(|number| !(0..most).contains(number)) {
            let range =
                names.map_or("0 or more".to_string(), |names| format!("0 to {}", names.len().saturating_sub(1)));
            return Err(DataError::bad_file(path, format!("label {at} is {}, expected {range}", numbers[at])));
        }
        if names.is_some() {
            let labels = numbers.into_iter().map(|number| number as u32).collect();
            return Ok(Self { labels: Some(labels), names, decision: None });
        }
        Self::by_number(path, &numbers)
    }

    /// Numbers, 0 or more, are labels; with gaps, those that there are become the classes.
    fn by_number(path: &Path, numbers: &[i64]) -> Result<Self, DataError> {
        let distinct: BTreeSet<i64> = numbers.iter().copied().collect();
        if distinct.len() > MOST_CLASSES {
            let problem =
                format!("has {} different labels, more than the {MOST_CLASSES} classes at most", distinct.len());
            return Err(DataError::bad_file(path, problem));
        }
        let classes: Vec<i64> = distinct.into_iter().collect();
        let labels =
            numbers.iter().filter_map(|number| classes.binary_search(number).ok()).map(|at| at as u32).collect();
        if (0..).zip(&classes).all(|(at, class)| at == *class) {
            return Ok(Self { labels: Some(labels), ..Self::default() });
        }
        let decision = Some(words_of_gaps(&classes));
        Ok(Self { labels: Some(labels), names: Some(classes.iter().map(i64::to_string).collect()), decision })
    }
}

/// Whether pictures lie as NVIDIA's dataset_tool stores them, a thousand to a folder (`00000/img00000000.png`), or as in FFHQ
/// (`01000/01234.png`).
fn is_storage(paths: &[PathBuf], folders: &[Option<&OsStr>]) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    paths.iter().zip(folders).all(|(path, folder)| {
        let stem = path.file_stem().and_then(OsStr::to_str);
        let (Some(folder), Some(stem)) = (folder.and_then(OsStr::to_str), stem) else { return false };
        let (Some(number), 5): (Option<u64>, _) = (digits(folder), folder.len()) else { return false };
        match stem.strip_prefix("img") {
            Some(rest) => rest.len() == 8 && digits(rest).is_some(),
            None => stem.len() == 5 && digits(stem).is_some_and(|of_image| of_image / 1000 * 1000 == number),
        }
    })
}

/// The reason why a column with this many different values in so many rows is none of classes.
pub(crate) fn too_many_classes(distinct: usize, rows: usize) -> Option<String> {
    if distinct > MOST_CLASSES {
        return Some(format!("has more than {MOST_CLASSES} different values"));
    }
    (rows >= MANY && distinct * 10 > rows * 9).then(|| format!("has {distinct} different values in {rows} rows"))
}

/// The decision that these numbers became classes: ``labels 1 to 3 became the classes `1`, `2`, `3` ``.
fn words_of_gaps(classes: &[i64]) -> String {
    let (Some(first), Some(last)) = (classes.first(), classes.last()) else { return String::new() };
    let listed = |numbers: &[i64]| numbers.iter().map(|number| format!("`{number}`")).collect::<Vec<_>>().join(", ");
    let names = if classes.len() <= LISTED {
        listed(classes)
    } else {
        format!("{}, …, `{last}`", listed(&classes[..LISTED / 2]))
    };
    let is_dense = last - first == classes.len() as i64 - 1;
    let numbers = match classes.len() {
        1 => format!("label {first} became the class"),
        _ if is_dense => format!("labels {first} to {last} became the classes"),
        count => format!("labels of {count} numbers from {first} to {last} became the classes"),
    };
    format!("{numbers} {names}")
}

/// The whole number of a text: `7`, and `7.0` as programs with numbers of one type write it.
pub(crate) fn whole_number(text: &str) -> Option<i64> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.bytes().all(|digit| digit == b'0') { whole.parse().ok() } else { None }
}

/// The part of a file name before the first `_`; `None` without one.
fn prefix(path: &Path) -> Option<String> {
    let name = label(path.file_name()?);
    name.split_once('_').map(|(prefix, _)| prefix.to_string()).filter(|prefix| !prefix.is_empty())
}

/// Beginnings of names that cameras, phones and programs give.
const NO_CLASSES: [&str; 13] =
    ["img", "image", "dsc", "dscn", "dscf", "pxl", "mvi", "gopr", "pano", "photo", "picture", "screenshot", "frame"];

/// The prefixes of the names of pictures without classes, where they look like classes: two or more words, each of several
/// pictures.
pub(crate) fn prefixes_like_classes(paths: &[PathBuf]) -> Option<Vec<String>> {
    let mut counts = BTreeMap::new();
    for path in paths {
        *counts.entry(prefix(path)?).or_insert(0usize) += 1;
    }
    let is_class = |(name, count): (&String, &usize)| {
        *count > 1 && name.chars().all(char::is_alphabetic) && !NO_CLASSES.contains(&name.to_lowercase().as_str())
    };
    (counts.len() > 1 && counts.iter().all(is_class)).then(|| counts.into_keys().collect())
}

/// A name as text; bytes that are not UTF-8 stay apart, as `\xE9`.
pub(crate) fn label(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02X}")));
    }
    text
}

/// Natural order: runs of digits are compared as numbers, all else as bytes.
fn natural(left: &[u8], right: &[u8]) -> Ordering {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (mut one, mut other) = (left, right);
    while let (Some(first), Some(second)) = (one.first(), other.first()) {
        let (length, other_length) = (digits(one), digits(other));
        let order = if length > 0 && other_length > 0 {
            let number = |text: &[u8]| text.iter().position(|byte| *byte != b'0').map_or(0, |zeros| text.len() - zeros);
            let (ours, theirs) = (&one[..length], &other[..other_length]);
            let (long, other_long) = (number(ours), number(theirs));
            long.cmp(&other_long).then_with(|| ours[length - long..].cmp(&theirs[other_length - other_long..]))
        } else {
            first.cmp(second)
        };
        if order != Ordering::Equal {
            return order;
        }
        (one, other) = (&one[length.max(1)..], &other[other_length.max(1)..]);
    }
    one.len().cmp(&other.len()).then_with(|| left.cmp(right))
}

/// A relative path of a table or an archive, without `.`; `None` where it leads out of its folder.
pub(crate) fn inner_path(given: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in Path::new(given).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!path.as_os_str().is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    fn by_folder(names: &[&str], is_asked: bool) -> (Result<Classes, String>, Vec<String>) {
        let mut account = Account::default();
        let classes = Classes::by_folder(Path::new("root"), &paths(names), is_asked, &mut account);
        (classes.map_err(|error| error.to_string()), account.lines())
    }

    #[test]
    fn the_classes_are_the_first_folders_that_differ() {
        let (classes, said) = by_folder(&["pets/in/dog/1.png", "pets/in/cat/a/b/1.png", "pets/in/dog/2.png"], false);
        let classes = classes.unwrap();
        assert_eq!(
            (classes.labels.unwrap(), classes.names.unwrap()),
            (vec![1, 0, 1], vec!["cat".into(), "dog".into()])
        );
        assert!(said.is_empty(), "{said:?}");
        let (classes, said) = by_folder(&["a/b/1.png", "a/b/2.png"], false);
        assert_eq!(
            (classes.unwrap(), said),
            (Classes::default(), vec!["all images lie in `a/b`: one folder makes no class".into()])
        );
        assert_eq!(by_folder(&["1.png", "2.png"], false), (Ok(Classes::default()), vec![]));
        let (asked, _) = by_folder(&["a/1.png", "a/2.png"], true);
        assert!(asked.unwrap_err().contains("data.class_from"));
    }

    #[test]
    fn classes_are_in_natural_order() {
        let sorted = |names: &[&str]| {
            let names: Vec<OsString> = names.iter().map(OsString::from).collect();
            Classes::by_name(names).names.unwrap()
        };
        assert_eq!(sorted(&["10", "9", "zebra", "ant", "100", "1"]), ["1", "9", "10", "100", "ant", "zebra"]);
        assert_eq!(
            sorted(&["b10", "b9", "b", "b009", "B1", "b9a", "007", "7"]),
            ["007", "7", "B1", "b", "b009", "b9", "b9a", "b10"]
        );
        assert_eq!(sorted(&["1.10", "1.9", "1"]), ["1", "1.9", "1.10"]);
        // without digits, that of their bytes
        assert_eq!(sorted(&["b", "a", "B", "ä", "a b", "a_b", "a.b"]), ["B", "a", "a b", "a.b", "a_b", "b", "ä"]);
    }

    #[test]
    fn numbered_storage_is_no_class() {
        let stored = ["00000/img00000000.png", "00000/img00000999.png", "00001/img00001000.png"];
        let (classes, said) = by_folder(&stored, false);
        assert_eq!((classes.unwrap(), said.len()), (Classes::default(), 1));
        assert_eq!(by_folder(&["00000/00001.png", "01000/01234.png"], false).0.unwrap(), Classes::default());
        assert_eq!(by_folder(&stored, true).0.unwrap().labels, Some(vec![0, 0, 1]));
        // numbered classes
        for names in [
            ["00000/00001_00002.png", "00001/00001_00002.png"],
            ["00000/0.png", "00001/0.png"],
            ["0/img00000000.png", "1/img00000001.png"],
        ] {
            assert_eq!(by_folder(&names, false).0.unwrap().labels, Some(vec![0, 1]), "{names:?}");
        }
    }

    #[test]
    fn prefixes_are_classes_on_demand() {
        let classes = Classes::by_prefix(&paths(&["x/dog_1_a.png", "cat_1.png", "y/dog_2.png"])).unwrap();
        assert_eq!(
            (classes.labels.unwrap(), classes.names.unwrap()),
            (vec![1, 0, 1], vec!["cat".into(), "dog".into()])
        );
        for bad in ["1.png", "_1.png"] {
            let error = Classes::by_prefix(&paths(&["cat_1.png", bad])).unwrap_err().to_string();
            assert!(error.contains("data.class_from") && error.contains(&format!("; {bad} has no `_`")), "{error}");
        }
        let hint = |names: &[&str]| prefixes_like_classes(&paths(names));
        let names = ["cat_1.png", "cat_2.png", "dog_1.png", "dog_2.png"];
        assert_eq!(hint(&names), Some(vec!["cat".into(), "dog".into()]));
        for names in [
            &["cat_1.png", "cat_2.png", "dog_1.png"][..],
            &["cat_1.png", "cat_2.png"],
            &["IMG_1.png", "IMG_2.png", "DSC_1.png", "DSC_2.png"],
            &["a1_1.png", "a1_2.png", "b_1.png", "b_2.png"],
            &["cat_1.png", "cat_2.png", "dog_1.png", "dog_2.png", "x.png"],
            &[],
        ] {
            assert_eq!(hint(names), None, "{names:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_not_utf_8_or_differ_in_form_stay_apart() {
        use std::os::unix::ffi::OsStrExt;
        let path = |class: &[u8]| Path::new(OsStr::from_bytes(class)).join("1.png");
        let of = |classes: &[&[u8]]| {
            let paths: Vec<PathBuf> = classes.iter().map(|class| path(class)).collect();
            Classes::by_folder(Path::new("root"), &paths, false, &mut Account::default()).unwrap()
        };
        let latin = of(&[b"caf\xe9", b"caf\xe8", b"caf\xe9"]);
        assert_eq!(
            (latin.labels.unwrap(), latin.names.unwrap()),
            (vec![1, 0, 1], vec!["caf\\xE8".into(), "caf\\xE9".into()])
        );
        // composed and decomposed; two letter cases
        assert_eq!(of(&["caf\u{e9}".as_bytes(), "cafe\u{301}".as_bytes(), b"Cat", b"cat"]).names.unwrap().len(), 4);
    }

    #[test]
    fn values_are_labels_or_names() {
        let path = Path::new("table");
        let numbers = |numbers: &[i64]| numbers.iter().map(|number| Value::Number(*number)).collect();
        let texts = |texts: &[&str]| texts.iter().map(|text| Value::Text((*text).into())).collect();
        let labels = |values, names| Classes::by_value(path, values, names).map(|classes| classes.labels);
        assert_eq!(labels(numbers(&[2, 0, 1]), None).unwrap(), Some(vec![2, 0, 1]));
        assert_eq!(labels(texts(&["2", " 0", "1"]), None).unwrap(), Some(vec![2, 0, 1]));
        let named = Classes::by_value(path, texts(&["dog", "cat", "dog", "1"]), None).unwrap();
        assert_eq!(named.labels, Some(vec![2, 1, 2, 0]));
        assert_eq!(named.names, Some(vec!["1".to_string(), "cat".to_string(), "dog".to_string()]));
        assert_eq!(labels(numbers(&[-1, -1]), None).unwrap(), None);
        assert_eq!(labels(texts(&["2.0", "0.", "1.00"]), None).unwrap(), Some(vec![2, 0, 1]));
        for bad in [numbers(&[0, -1]), numbers(&[1 << 40]), numbers(&[0, 2])] {
            let error = labels(bad, Some(vec!["a".into(), "b".into()])).unwrap_err().to_string();
            assert!(error.contains("expected 0 to 1"), "{error}");
        }
    }

    #[test]
    fn numbers_with_gaps_are_the_classes_that_there_are() {
        let classes = |numbers: &[i64]| {
            let values = numbers.iter().map(|number| Value::Number(*number)).collect();
            let classes = Classes::by_value(Path::new("table"), values, None).unwrap();
            (classes.labels.unwrap(), classes.names.unwrap_or_default().join(" "), classes.decision.unwrap_or_default())
        };
        let of = |labels: &[u32], names: &str, decision: &str| (labels.to_vec(), names.into(), decision.into());
        assert_eq!(classes(&[1, 0, 2, 0]), of(&[1, 0, 2, 0], "", ""));
        assert_eq!(classes(&[3, 1, 2]), of(&[2, 0, 1], "1 2 3", "labels 1 to 3 became the classes `1`, `2`, `3`"));
        assert_eq!(
            classes(&[4000, 0, 7, 7]),
            of(&[2, 0, 1, 1], "0 7 4000", "labels of 3 numbers from 0 to 4000 became the classes `0`, `7`, `4000`")
        );
        assert_eq!(classes(&[5, 5]), of(&[0, 0], "5", "label 5 became the class `5`"));
        let (labels, _, decision) = classes(&(1..=26).collect::<Vec<_>>());
        assert_eq!((labels[25], decision.as_str()), (25, "labels 1 to 26 became the classes `1`, `2`, `3`, …, `26`"));
        let many = (0..=MOST_CLASSES as i64).map(Value::Number).collect();
        let error = Classes::by_value(Path::new("table"), many, None).unwrap_err().to_string();
        assert!(error.contains("65537 different labels"), "{error}");
        let negative = Classes::by_value(Path::new("table"), vec![Value::Number(3), Value::Number(-2)], None);
        assert!(negative.unwrap_err().to_string().contains("label 1 is -2, expected 0 or more"));
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        assert_eq!(inner_path("./a/b.png"), Some(PathBuf::from("a/b.png")));
        for bad in ["../a.png", "/etc/passwd", "a/../../b", ""] {
            assert_eq!(inner_path(bad), None, "{bad}");
        }
    }
}
