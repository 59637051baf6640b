//! `metadata.csv` and `metadata.jsonl`: a table of the images of a folder or a zip file, one row each, with a column
//! `file_name`, and labels where it has a column for them; see <https://huggingface.co/docs/datasets/image_dataset>.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::classes::{Classes, Value, inner_path};
use crate::error::DataError;
use crate::options::{ClassFrom, LoadOptions};

/// The names of tables.
pub(crate) const NAMES: [&str; 2] = ["metadata.csv", "metadata.jsonl"];

/// Bytes of a table at most.
pub(crate) const LARGEST: u64 = 1 << 30;

/// The column of the file names.
const FILE_NAME: &str = "file_name";

/// The rows of a table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// The images, relative to the folder of the table, in its order.
    pub files: Vec<PathBuf>,
    /// `None` where the table has no labels.
    pub classes: Option<Classes>,
}

impl Metadata {
    /// The rows of the images in a folder, with their paths in it; all rows without a folder.
    pub(crate) fn within(self, folder: Option<&Path>) -> Self {
        let Some(folder) = folder else { return self };
        self.filter_map(|path| path.strip_prefix(folder).ok().map(Path::to_path_buf))
    }

    /// The rows for which `path` returns a path, with this path.
    pub(crate) fn filter_map(self, path: impl FnMut(PathBuf) -> Option<PathBuf>) -> Self {
        let files: Vec<Option<PathBuf>> = self.files.into_iter().map(path).collect();
        let kept = |labels: Vec<u32>| {
            labels.into_iter().zip(&files).filter_map(|(label, file)| file.as_ref().map(|_| label)).collect()
        };
        let classes = self.classes.map(|classes| Classes { labels: classes.labels.map(kept), ..classes });
        Self { files: files.into_iter().flatten().collect(), classes }
    }
}

/// Reads a table out of the `bytes` of the file at `path`. Its labels are those of `options.label_column`, else of the column
/// `label`, if there is one. `None` where it has no column `file_name` and `label_column` is not set: it is a table of
/// something else.
///
/// # Errors
/// [`DataError::BadFile`] names the line.
pub(crate) fn read(path: &Path, bytes: &[u8], options: &LoadOptions) -> Result<Option<Metadata>, DataError> {
    let bad = |problem: String| DataError::bad_file(path, problem);
    let asked = options.label_column.as_deref();
    let column = asked.unwrap_or("label");
    let is_csv = path.extension().is_some_and(|extension| extension == "csv");
    let rows = if is_csv { rows_of_csv(bytes, column) } else { rows_of_json(bytes, column) }.map_err(bad)?;
    let rows = match rows {
        Some(rows) => rows,
        None if asked.is_none() => return Ok(None),
        None => return Err(bad(format!("has no column `{FILE_NAME}` with the image of each line; add it"))),
    };
    let (mut files, mut values) = (Vec::with_capacity(rows.len()), Vec::new());
    let mut seen = BTreeSet::new();
    let labeled = asked.is_some() || rows.iter().any(|row| row.label.is_some());
    for Row { line, file, label } in rows {
        let inner = inner_path(&file)
            .ok_or_else(|| bad(format!("line {line}: {FILE_NAME} `{file}` is not a path inside the folder")))?;
        if !seen.insert(inner.clone()) {
            return Err(bad(format!("line {line}: `{file}` is listed a second time; each image has one line")));
        }
        files.push(inner);
        match label {
            Some(label) => values.push(label),
            None if labeled => {
                let hint = "fill it in, or name another column with `data.label_column`";
                return Err(bad(format!("line {line}: `{file}` has no `{column}`; {hint}")));
            }
            None => {}
        }
    }
    if files.is_empty() {
        return Err(bad("lists no image".into()));
    }
    let classes = (labeled && options.class_from != ClassFrom::None)
        .then(|| Classes::by_value(path, values, None))
        .transpose()?;
    Ok(Some(Metadata { files, classes }))
}

/// A line of a table.
struct Row {
    line: u64,
    file: String,
    label: Option<Value>,
}

/// The rows of a table in CSV; `None` without a column of file names.
fn rows_of_csv(bytes: &[u8], column: &str) -> Result<Option<Vec<Row>>, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(bytes);
    let headers = reader.headers().map_err(|error| error.to_string())?.clone();
    let find = |name: &str| headers.iter().position(|header| header == name);
    let Some(file_at) = find(FILE_NAME) else { return Ok(None) };
    let label_at = find(column);
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let text = |at: usize| record.get(at).filter(|text| !text.is_empty());
        let file = text(file_at).ok_or_else(|| format!("line {line} has no {FILE_NAME}"))?.to_string();
        rows.push(Row { line, file, label: label_at.and_then(text).map(|text| Value::Text(text.to_string())) });
    }
    Ok(Some(rows))
}

/// The rows of a table in JSON lines; `None` where the first line has no file name.
fn rows_of_json(bytes: &[u8], column: &str) -> Result<Option<Vec<Row>>, String> {
    let mut rows = Vec::new();
    for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(text).map_err(|error| format!("line {line} is not a JSON object: {error}"))?;
        if rows.is_empty() && !fields.contains_key(FILE_NAME) {
            return Ok(None);
        }
        let file = fields.get(FILE_NAME).and_then(|value| value.as_str());
        let file = file.ok_or_else(|| format!("line {line} has no {FILE_NAME}"))?.to_string();
        let label = match fields.get(column) {
            None | Some(serde_json::Value::Null) => None,
            Some(serde_json::Value::String(text)) => Some(Value::Text(text.clone())),
            Some(value) => Some(Value::Number(
                value
                    .as_i64()
                    .ok_or_else(|| format!("line {line}: `{column}` is neither a whole number nor a text"))?,
            )),
        };
        rows.push(Row { line, file, label });
    }
    Ok(Some(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, text: &str, options: &LoadOptions) -> Result<Metadata, String> {
        let read = read(Path::new(name), text.as_bytes(), options).map_err(|error| error.to_string())?;
        read.ok_or_else(|| "of something else".to_string())
    }

    #[test]
    fn csv_and_json_lines_give_the_same_rows() {
        let options = LoadOptions::default();
        let csv =
            table("metadata.csv", "\u{feff}file_name,label\n./b/2.png,dog\n\"a, 1.png\",cat\n", &options).unwrap();
        let lines =
            "{\"file_name\": \"b/2.png\", \"label\": \"dog\"}\n\n{\"label\": \"cat\", \"file_name\": \"a, 1.png\"}";
        assert_eq!(table("metadata.jsonl", lines, &options).unwrap(), csv);
        assert_eq!(csv.files, [PathBuf::from("b/2.png"), PathBuf::from("a, 1.png")]);
        let classes = csv.classes.unwrap();
        assert_eq!((classes.labels, classes.names.map(|names| names.len())), (Some(vec![1, 0]), Some(2)));
    }

    #[test]
    fn the_column_of_labels_is_chosen_or_ignored() {
        let text = "file_name,text,breed\n1.png,\"a cat, sitting\",3\n2.png,a dog,0\n";
        assert_eq!(table("metadata.csv", text, &LoadOptions::default()).unwrap().classes, None);
        let breed = LoadOptions { label_column: Some("breed".into()), ..LoadOptions::default() };
        assert_eq!(table("metadata.csv", text, &breed).unwrap().classes.unwrap().labels, Some(vec![3, 0]));
        let without = LoadOptions { class_from: ClassFrom::None, ..breed };
        assert_eq!(table("metadata.csv", text, &without).unwrap().classes, None);
        let color = LoadOptions { label_column: Some("color".into()), ..LoadOptions::default() };
        assert!(table("metadata.csv", text, &color).unwrap_err().contains("line 2: `1.png` has no `color`"));
    }

    #[test]
    fn tables_without_file_names_are_ignored_unless_a_column_is_asked_for() {
        let label = LoadOptions { label_column: Some("label".into()), ..LoadOptions::default() };
        for (name, text) in [("metadata.csv", "name,label\n1.png,a\n"), ("metadata.csv", ""), ("metadata.jsonl", "{}")]
        {
            assert_eq!(table(name, text, &LoadOptions::default()).unwrap_err(), "of something else");
            assert!(table(name, text, &label).unwrap_err().contains("no column `file_name`"));
        }
    }

    #[test]
    fn a_table_of_all_splits_gives_the_rows_of_one() {
        let text = "file_name,label\ntest/1.png,b\ntrain/a/2.png,c\ntrain/3.png,a\n";
        let whole = table("metadata.csv", text, &LoadOptions::default()).unwrap();
        let train = whole.within(Some(Path::new("train")));
        assert_eq!(train.files, [PathBuf::from("a/2.png"), PathBuf::from("3.png")]);
        let classes = train.classes.unwrap();
        assert_eq!((classes.labels, classes.names.map(|names| names.len())), (Some(vec![2, 0]), Some(3)));
    }

    #[test]
    fn faults_are_reported_with_their_line() {
        for (name, text, expected) in [
            ("metadata.csv", "file_name,label\n1.png,a\n2.png\n", "2 fields"),
            ("metadata.csv", "file_name,label\n1.png,a\n2.png,\n", "line 3: `2.png` has no `label`"),
            ("metadata.csv", "file_name\n1.png\n1.png\n", "line 3: `1.png` is listed a second time"),
            ("metadata.csv", "file_name\n../1.png\n", "line 2"),
            ("metadata.csv", "file_name\n", "lists no image"),
            ("metadata.jsonl", "{\"file_name\": \"1.png\"}\n{", "line 2 is not a JSON object"),
            ("metadata.jsonl", "{\"file_name\": \"1.png\"}\n{\"label\": 1}", "line 2 has no file_name"),
            ("metadata.jsonl", "{\"file_name\": \"1.png\", \"label\": 1.5}", "neither a whole number"),
        ] {
            let error = table(name, text, &LoadOptions::default()).unwrap_err();
            assert!(error.contains(name) && error.contains(expected), "{error}");
        }
    }
}
