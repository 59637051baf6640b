//! The classes of pictures: by their folders, by numbers, or by names.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::error::DataError;
use crate::options::Split;

/// A label for each picture, and the names of the classes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Classes {
    pub labels: Option<Vec<u32>>,
    pub names: Option<Vec<String>>,
}

/// Classes at most: a column of more is one of something else.
const MOST_CLASSES: i64 = 1 << 16;

/// The class of a picture in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Number(i64),
    Text(String),
}

impl Classes {
    /// The first folder of each path is its class; no classes where no path has a folder.
    ///
    /// # Errors
    /// [`DataError::BadFile`] of `root` where some are in folders and some are not.
    pub fn by_folder(root: &Path, paths: &[PathBuf]) -> Result<Self, DataError> {
        let classes: Vec<Option<String>> = paths.iter().map(|path| first_folder(path)).collect();
        let flat = classes.iter().position(Option::is_none);
        let nested = classes.iter().position(Option::is_some);
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
            (None, Some(_)) => Ok(Self::by_name(classes.into_iter().flatten().collect())),
            _ => Ok(Self::default()),
        }
    }

    /// Classes in alphabetical order.
    fn by_name(of_each: Vec<String>) -> Self {
        let names: BTreeSet<&String> = of_each.iter().collect();
        let names: Vec<String> = names.into_iter().cloned().collect();
        let labels = of_each.iter().filter_map(|name| names.binary_search(name).ok()).map(|at| at as u32).collect();
        Self { labels: Some(labels), names: Some(names) }
    }

    /// Numbers are labels; where any is not a number, they are names. `names`, where they are known, bound the numbers.
    ///
    /// # Errors
    /// [`DataError::BadFile`] of `path` for a number that is out of range.
    pub fn by_value(path: &Path, values: Vec<Value>, names: Option<Vec<String>>) -> Result<Self, DataError> {
        let numbers: Option<Vec<i64>> = values
            .iter()
            .map(|value| match value {
                Value::Number(number) => Some(*number),
                Value::Text(text) => text.trim().parse().ok(),
            })
            .collect();
        let Some(numbers) = numbers else {
            let text = |value| match value {
                Value::Number(number) => number.to_string(),
                Value::Text(text) => text,
            };
            return Ok(Self::by_name(values.into_iter().map(text).collect()));
        };
        // the label of Hugging Face for a secret one
        if numbers.iter().all(|number| *number == -1) {
            return Ok(Self::default());
        }
        let most = names.as_ref().map_or(MOST_CLASSES, |names| names.len() as i64);
        if let Some(at) = numbers.iter().position(|number| !(0..most).contains(number)) {
            let problem = format!("label {at} is {}, expected 0 to {}", numbers[at], most - 1);
            return Err(DataError::bad_file(path, problem));
        }
        Ok(Self { labels: Some(numbers.into_iter().map(|number| number as u32).collect()), names })
    }
}

/// The first folder of a relative path; `None` for a file without one.
fn first_folder(path: &Path) -> Option<String> {
    let mut parts = path.components();
    let first = parts.next()?;
    parts.next()?;
    Some(first.as_os_str().to_string_lossy().into_owned())
}

/// The name of the folder of `split` where the first folders of the paths are splits (`train`, `test`, `validation`, …);
/// `None` where they are not.
///
/// # Errors
/// [`DataError::NothingFound`] where there is no folder of the test split.
pub(crate) fn split_folder(root: &Path, paths: &[PathBuf], split: Split) -> Result<Option<String>, DataError> {
    let folders: Option<BTreeSet<String>> = paths.iter().map(|path| first_folder(path)).collect();
    let folders = folders.unwrap_or_default();
    let find = |names: &[&str]| {
        names.iter().find_map(|name| folders.iter().find(|folder| folder.eq_ignore_ascii_case(name))).cloned()
    };
    let (train, test) = (["train", "training"], ["test", "testing", "val", "valid", "validation", "dev"]);
    let known = |folder: &String| train.iter().chain(&test).any(|name| folder.eq_ignore_ascii_case(name));
    let Some(training) = find(&train).filter(|_| folders.iter().all(known)) else { return Ok(None) };
    if split == Split::Train {
        return Ok(Some(training));
    }
    let found = || format!("has the split `{training}` alone");
    find(&test).map(Some).ok_or_else(|| DataError::nothing_found(root, found(), "a folder `test` or `validation`"))
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

    #[test]
    fn folders_are_splits_if_all_have_names_of_splits() {
        let root = Path::new("root");
        let of = |names: &[&str], split| split_folder(root, &paths(names), split);
        let both = ["test/cat/1.png", "Train/cat/1.png"];
        assert_eq!(of(&both, Split::Train).unwrap().as_deref(), Some("Train"));
        assert_eq!(of(&both, Split::Test).unwrap().as_deref(), Some("test"));
        assert_eq!(of(&["train/1.png", "valid/1.png"], Split::Test).unwrap().as_deref(), Some("valid"));
        assert!(of(&["train/1.png"], Split::Test).unwrap_err().to_string().contains("`train` alone"));
        // classes with names of splits
        for names in [&["train/1.png", "plane/1.png"][..], &["train/1.png", "1.png"], &["test/1.png"], &["1.png"]] {
            assert_eq!(of(names, Split::Train).unwrap(), None, "{names:?}");
        }
    }

    #[test]
    fn values_are_labels_or_names() {
        let path = Path::new("table");
        let numbers = |numbers: &[i64]| numbers.iter().map(|number| Value::Number(*number)).collect();
        let texts = |texts: &[&str]| texts.iter().map(|text| Value::Text((*text).into())).collect();
        let labels = |values, names| Classes::by_value(path, values, names).map(|classes| classes.labels);
        assert_eq!(labels(numbers(&[2, 0]), None).unwrap(), Some(vec![2, 0]));
        assert_eq!(labels(texts(&["2", " 0"]), None).unwrap(), Some(vec![2, 0]));
        let named = Classes::by_value(path, texts(&["dog", "cat", "dog", "1"]), None).unwrap();
        assert_eq!(named.labels, Some(vec![2, 1, 2, 0]));
        assert_eq!(named.names, Some(vec!["1".to_string(), "cat".to_string(), "dog".to_string()]));
        assert_eq!(labels(numbers(&[-1, -1]), None).unwrap(), None);
        for bad in [numbers(&[0, -1]), numbers(&[1 << 40]), numbers(&[0, 2])] {
            let error = labels(bad, Some(vec!["a".into(), "b".into()])).unwrap_err().to_string();
            assert!(error.contains("expected 0 to 1"), "{error}");
        }
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        assert_eq!(inner_path("./a/b.png"), Some(PathBuf::from("a/b.png")));
        for bad in ["../a.png", "/etc/passwd", "a/../../b", ""] {
            assert_eq!(inner_path(bad), None, "{bad}");
        }
    }
}
