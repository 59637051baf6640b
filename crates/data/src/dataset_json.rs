//! `dataset.json`, the labels that NVIDIA's dataset_tool writes into a folder or zip of pictures:
//! `{"labels": [["00000/img00000000.png", 3], …]}`, or `{"labels": null}`; see <https://github.com/NVlabs/stylegan3>.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use crate::account::{Account, LeftOut, Weight, weight_of_pictures};
use crate::classes::{Value, inner_path};

/// The name of the file.
pub(crate) const NAME: &str = "dataset.json";

/// The labels of a file, by the path of the picture in the source.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Labels(HashMap<PathBuf, i64>);

#[derive(Deserialize)]
struct File {
    /// `None` where there is no such key.
    #[serde(default, deserialize_with = "present")]
    labels: Option<Option<Vec<(String, i64)>>>,
}

/// A value that may be null, of a key that is there.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The labels in the `bytes` of the file at `path`, which lies in `folder`; `None` where it has none, with the reason in the
/// account.
pub(crate) fn read(bytes: &[u8], folder: &Path, path: &Path, account: &mut Account) -> Option<Labels> {
    let mut leave_out =
        |weight, reason: String| account.leave_out(weight, path.display().to_string(), reason, path.display());
    match serde_json::from_slice::<File>(bytes) {
        Ok(File { labels: Some(Some(labels)) }) => {
            let place =
                |(name, label): (String, i64)| Some((folder.join(inner_path(&name.replace('\\', "/"))?), label));
            account.decided(format!("labels are those of {}", path.display()));
            Some(Labels(labels.into_iter().filter_map(place).collect()))
        }
        Ok(File { labels: Some(None) }) => {
            account.decided(format!("no labels: {} has none", path.display()));
            None
        }
        Ok(File { labels: None }) => {
            leave_out(Weight::Note, "has no key `labels`, as NVIDIA's dataset_tool writes it".to_string());
            None
        }
        Err(error) => {
            let has_labels = bytes.windows(8).any(|window| window == b"\"labels\"");
            let weight = if has_labels { Weight::Doubt } else { Weight::Note };
            leave_out(weight, format!("is no list of labels [[\"00000/img00000000.png\", 3], …]: {error}"));
            None
        }
    }
}

impl Labels {
    /// Those of the pictures at `paths` in `part` that have a label, and their labels; the others, and labels of the split
    /// without a picture, go into the account.
    pub(crate) fn of(
        &self,
        paths: &[PathBuf],
        part: &Path,
        is_meant: bool,
        is_of_split: &dyn Fn(&Path) -> bool,
        account: &mut Account,
    ) -> (Vec<PathBuf>, Vec<Value>) {
        let (mut labeled, mut values, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for path in paths {
            match self.0.get(&part.join(path)) {
                Some(&label) => {
                    labeled.push(path.clone());
                    values.push(Value::Number(label));
                }
                None => bare.push(path.display().to_string()),
            }
        }
        let listed = self.0.keys().filter(|path| is_of_split(path)).count();
        let gone = listed.saturating_sub(labeled.len());
        for (what, reason, count, examples) in [
            ("images", "dataset.json has no label of theirs", bare.len(), bare),
            ("labels of dataset.json", "their images are not there", gone, Vec::new()),
        ] {
            if count > 0 {
                let weight = weight_of_pictures(count, labeled.len(), is_meant);
                account.leave_out_all(LeftOut { what: what.into(), reason: reason.into(), count, examples, weight });
            }
        }
        (labeled, values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (Option<Labels>, Account) {
        let mut account = Account::default();
        let labels = read(text.as_bytes(), Path::new("set"), Path::new("set/dataset.json"), &mut account);
        (labels, account)
    }

    #[test]
    fn pictures_get_their_labels_and_the_others_are_named() {
        let (labels, mut account) =
            read_text(r#"{"x": 1, "labels": [["a/1.png", 3], ["a\\2.png", 0], ["a/gone.png", 1], ["../b", 1]]}"#);
        let paths = ["a/1.png", "a/2.png", "a/3.png"].map(PathBuf::from);
        let (labeled, values) = labels.unwrap().of(&paths, Path::new("set"), false, &|_| true, &mut account);
        assert_eq!((labeled.as_slice(), values), (&paths[..2], vec![Value::Number(3), Value::Number(0)]));
        let doubts: Vec<String> = account.doubts().map(ToString::to_string).collect();
        assert_eq!(
            doubts,
            [
                "images left out: dataset.json has no label of theirs (a/3.png)",
                "labels of dataset.json left out: their images are not there"
            ]
        );
    }

    #[test]
    fn files_without_labels_say_so() {
        for (text, word, doubts) in [
            (r#"{"labels": null}"#, "no labels: set/dataset.json has none", 0),
            (r#"{"images": []}"#, "has no key `labels`", 0),
            (r#"{"labels": [["1.png", [0.5, 1.0]]]}"#, "is no list of labels", 1),
            (r#"{"labels": [["1.p"#, "is no list of labels", 1),
            ("[1]", "is no list of labels", 0),
            ("", "is no list of labels", 0),
        ] {
            let (labels, account) = read_text(text);
            assert!(labels.is_none() && account.lines()[0].contains(word), "{text}: {:?}", account.lines());
            assert_eq!(account.doubts().count(), doubts, "{text}");
        }
    }
}
