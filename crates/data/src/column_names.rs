//! The names that columns of tables usually have.

/// Columns of the pictures' files, the most exact first, without separators and in lower case.
const FILES: [&str; 26] = [
    "filename",
    "file",
    "files",
    "filepath",
    "filepaths",
    "filenames",
    "imagefilename",
    "imagefile",
    "imagename",
    "imagepath",
    "image",
    "images",
    "imgname",
    "imgpath",
    "imgfile",
    "img",
    "picture",
    "photo",
    "pic",
    "path",
    "paths",
    "imageid",
    "imgid",
    "imageids",
    "id",
    "name",
];

/// Columns of classes, the most exact first.
const LABELS: [&str; 23] = [
    "label",
    "labels",
    "class",
    "classname",
    "classlabel",
    "category",
    "categoryname",
    "target",
    "classes",
    "targets",
    "categories",
    "labelname",
    "classid",
    "labelid",
    "categoryid",
    "classindex",
    "classidx",
    "labelidx",
    "labelindex",
    "cls",
    "y",
    "ylabel",
    "species",
];

/// Columns that have few values and are none of classes.
const OTHERS: [&str; 15] = [
    "width", "height", "channels", "size", "fold", "index", "text", "texts", "caption", "captions", "prompt", "url",
    "license", "format", "mode",
];

/// Columns of the names of splits.
const SPLITS: [&str; 6] = ["split", "set", "subset", "partition", "datasplit", "dataset"];

/// A name in lower case, without separators.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn rank(name: &str, usual: &[&str]) -> Option<usize> {
    let name = plain(name);
    usual.iter().position(|usual| *usual == name)
}

/// The place of a column among those of files, the most exact first; `None` for another name.
pub(crate) fn file_rank(name: &str) -> Option<usize> {
    rank(name, &FILES)
}

/// The place of a column among those of labels, the most exact first; `None` for another name.
pub(crate) fn label_rank(name: &str) -> Option<usize> {
    // a name that is spelled like that comes before one that is not
    rank(name, &LABELS).map(|rank| 2 * rank + usize::from(LABELS[rank] != name))
}

/// Whether a column of another name sounds as if it had classes: `fine_label`, `bird_species`.
pub(crate) fn sounds_like_label(name: &str) -> bool {
    let name = plain(name);
    ["label", "class", "categor", "species", "breed", "diagnosis", "target"].iter().any(|word| name.contains(word))
}

/// Whether a column is known to have no classes.
pub(crate) fn is_no_label(name: &str) -> bool {
    rank(name, &OTHERS).is_some()
}

/// Whether a column has the names of splits.
pub(crate) fn is_split(name: &str) -> bool {
    rank(name, &SPLITS).is_some()
}

/// A list of names in words: `` `a`, `b` ``, at most 20 of them.
pub(crate) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter();
    let listed: Vec<String> = names.by_ref().take(20).map(|name| format!("`{name}`")).collect();
    let more = names.count();
    if more > 0 { format!("{} and {more} more", listed.join(", ")) } else { listed.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_spelling() {
        assert!(
            file_rank("File Name") == Some(0) && file_rank("file_name") == Some(0) && file_rank("IMAGE-ID").is_some()
        );
        assert!(file_rank("filename2").is_none() && label_rank("caption").is_none());
        assert!(label_rank("label") < label_rank("Label") && label_rank("Label") < label_rank("labels"));
        assert!(label_rank("Class Name").is_some() && sounds_like_label("fine_label") && !sounds_like_label("text"));
        assert_eq!(quoted(["a", "b"]), "`a`, `b`");
    }
}
