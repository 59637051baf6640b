//! Parquet files of images, as Hugging Face writes them: a column of groups `{bytes, path}` (or of bytes alone), each an
//! image file, and a column of labels. <https://huggingface.co/docs/datasets/image_dataset> describes them.
//!
//! A page is unpacked at a time, to at most the 2 GiB that its header can claim; codecs that do not hold to it (gzip, brotli)
//! are not built in.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use files::Action;
use parquet::basic::{ConvertedType, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use crate::classes::{Classes, Value};
use crate::collect::{Collection, Source, Visitor};
use crate::context::ReadContext;
use crate::decode::Encoded;
use crate::error::DataError;
use crate::guard::guarded;
use crate::loaded::Loaded;
use crate::options::{LoadOptions, Split};

/// Rows of images that are read at a time.
const ROWS: usize = 64;

/// No label is a longer text.
const LONGEST_LABEL: usize = 256;

/// A column of a row group that unpacks to more than this ...
const SMALL: i64 = 256 << 20;
/// ... and to more than this many times its length is no pictures but a decompression bomb.
const LARGEST_RATIO: i64 = 50;

/// The Parquet files of `split` in `folder`, or in its folder `data`, or in the only folder in it that has some; `None` where
/// there are none. Files that are called by a split (`train-00000-of-00002.parquet`) are of that split alone, others of the
/// training split; where there is but one split, that is the training split.
///
/// # Errors
/// Where the test split is asked for and there is none, and where several folders have Parquet files.
pub(crate) fn files_in(folder: &Path, split: Split) -> Result<Option<Vec<PathBuf>>, DataError> {
    let mut found = tables_in(folder)?;
    if found.is_empty() && folder.join("data").is_dir() {
        found = tables_in(&folder.join("data"))?;
    }
    if found.is_empty() {
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|error| DataError::io(Action::List, folder, error))? {
            let path = entry.map_err(|error| DataError::io(Action::List, folder, error))?.path();
            // one that cannot be listed is for the reader of images to name
            let tables = if path.is_dir() { tables_in(&path).unwrap_or_default() } else { Vec::new() };
            if !tables.is_empty() {
                folders.push((path, tables));
            }
        }
        folders.sort_by(|left, right| left.0.cmp(&right.0));
        if folders.len() > 1 {
            let names: Vec<String> = folders.iter().map(|(path, _)| path.display().to_string()).collect();
            let problem = format!("has Parquet files in several folders; name one of them: {}", names.join(", "));
            return Err(DataError::bad_file(folder, problem));
        }
        found = folders.pop().map(|(_, tables)| tables).unwrap_or_default();
    }
    if found.is_empty() {
        return Ok(None);
    }
    if split == Split::Train && found.iter().all(|(of, ..)| *of == Split::Test) {
        found.iter_mut().for_each(|(of, ..)| *of = Split::Train);
    }
    found.sort_by(|left, right| left.2.cmp(&right.2));
    // with a test and a validation part, the test part is the one that is measured with
    let has_test = found.iter().any(|(_, name, _)| name.starts_with("test"));
    let wanted = |of: Split, name: &str| of == split && (of == Split::Train || !has_test || name.starts_with("test"));
    let files: Vec<PathBuf> =
        found.into_iter().filter(|(of, name, _)| wanted(*of, name)).map(|(_, _, path)| path).collect();
    if files.is_empty() {
        return Err(DataError::NothingFound {
            path: folder.to_path_buf(),
            found: format!("has Parquet files, but none of the {split:?} split").to_lowercase(),
            looked_for: "train-….parquet, test-….parquet or validation-….parquet",
        });
    }
    Ok(Some(files))
}

/// A file, the split that it is called by, and its name in small letters.
type SplitFile = (Split, String, PathBuf);

/// The Parquet files that lie in `folder` itself.
fn tables_in(folder: &Path) -> Result<Vec<SplitFile>, DataError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| DataError::io(Action::List, folder, error))? {
        let path = entry.map_err(|error| DataError::io(Action::List, folder, error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if name.ends_with(".parquet") && !name.starts_with('.') && path.is_file() {
            let split = match name.split(['-', '_', '.']).next() {
                Some("test" | "validation" | "valid" | "val") => Split::Test,
                _ => Split::Train,
            };
            found.push((split, name, path));
        }
    }
    Ok(found)
}

/// Reads the images of Parquet files, one after the other, as `options` say.
///
/// # Errors
/// [`DataError::BadOption`] where it is unclear which column is meant, [`DataError::BadFile`] for a file that is broken or has
/// other columns than the first, and what decoding says.
pub(crate) fn load(
    name: &str,
    root: &Path,
    files: &[PathBuf],
    options: &LoadOptions,
    context: &ReadContext,
) -> Result<Loaded, DataError> {
    if options.split == Split::Test && files.iter().any(|file| file == root) {
        let problem = format!("a file has no splits; name the folder, or the file of test images ({})", root.display());
        return Err(DataError::BadOption { key: "split", problem });
    }
    let mut tables = Vec::new();
    let mut columns = None;
    for path in files {
        let reader = open(path)?;
        let schema = reader.metadata().file_metadata().schema_descr();
        let of_this = match &columns {
            None => Columns::find(path, schema, features(&reader), options)?,
            Some(Columns { image, label, .. }) => {
                // the same names, and no other choice
                let same = LoadOptions {
                    image_column: Some(image.name.clone()),
                    label_column: label.as_ref().map(|label| label.name.clone()),
                    ..options.clone()
                };
                Columns::find(path, schema, features(&reader), &same)?
            }
        };
        let mut rows = 0u64;
        for group in reader.metadata().row_groups() {
            for column in std::iter::once(&of_this.image).chain(&of_this.label) {
                let Some(leaf) = group.columns().get(column.leaf) else {
                    let problem = format!("has a group without `{}`; get it again", column.name);
                    return Err(DataError::bad_file(path, problem));
                };
                let (packed, unpacked) = (leaf.compressed_size(), leaf.uncompressed_size());
                if unpacked > SMALL.max(packed.saturating_mul(LARGEST_RATIO)) {
                    let problem = format!("claims to unpack {packed} bytes to {unpacked}: no pictures do");
                    return Err(DataError::bad_file(path, problem));
                }
            }
            rows = rows.saturating_add(u64::try_from(group.num_rows()).unwrap_or(u64::MAX));
        }
        let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        if rows > length {
            let problem = format!("claims to have {rows} rows in {length} bytes; get it again");
            return Err(DataError::bad_file(path, problem));
        }
        let rows = rows as usize;
        columns.get_or_insert_with(|| of_this.clone());
        tables.push(Table { path: path.clone(), rows, columns: of_this });
    }
    let Some(columns) = columns else {
        return Err(DataError::bad_file(root, "has no Parquet file"));
    };
    // what a footer claims is no reason to set memory aside
    let mut values = Vec::new();
    for table in &tables {
        if let Some(label) = &table.columns.label {
            let before = values.len();
            read_labels(table, label, &mut values)?;
            if values.len() - before != table.rows {
                let problem = format!("has {} labels in {} rows; get it again", values.len() - before, table.rows);
                return Err(DataError::bad_file(&table.path, problem));
            }
        }
    }
    let classes = match &columns.label {
        Some(label) => Classes::by_value(root, values, label.class_names.clone())?,
        None => Classes::default(),
    };
    let count = tables.iter().map(|table| table.rows).sum();
    let source = Rows { tables: &tables, count };
    if count == 0 {
        return Err(DataError::bad_file(root, "has no row"));
    }
    let keys =
        files.iter().map(|path| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path.clone()));
    let (labels, class_names) = (classes.labels, classes.names);
    let files = keys.collect();
    Collection { name, root, files, source: &source, labels, class_names, unreadable: Vec::new() }
        .load(options, context)
}

/// What the library says, or how it panicked, as an error that names the file.
fn parquet<T>(path: &Path, work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    let broken =
        |reason: String| DataError::bad_file(path, format!("is a broken Parquet file ({reason}); get it again"));
    guarded(work).map_err(broken)?.map_err(|error| broken(error.to_string()))
}

fn open(path: &Path) -> Result<SerializedFileReader<File>, DataError> {
    let file = File::open(path).map_err(|error| DataError::io(Action::Read, path, error))?;
    parquet(path, || SerializedFileReader::new(file))
}

/// A column that is used.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: String,
    /// Its number among the leaves of the schema.
    leaf: usize,
    /// Of labels: what they are called, where the file says it.
    class_names: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Columns {
    image: Column,
    label: Option<Column>,
}

/// What Hugging Face says of the columns: for those of class labels, the names of the classes.
fn features(reader: &SerializedFileReader<File>) -> BTreeMap<String, Vec<String>> {
    let metadata = reader.metadata().file_metadata().key_value_metadata();
    let text = metadata.and_then(|pairs| pairs.iter().find(|pair| pair.key == "huggingface")?.value.clone());
    let value = text.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok()).unwrap_or_default();
    let mut labels = BTreeMap::new();
    for (name, feature) in value["info"]["features"].as_object().into_iter().flatten() {
        if feature["_type"] != "ClassLabel" {
            continue;
        }
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let names = match &feature["names"] {
            serde_json::Value::Array(names) => names.iter().filter_map(text).collect(),
            // as the configuration of a dataset has them: {"0": "cat", "1": "dog"}
            serde_json::Value::Object(names) => {
                let numbered = names.iter().filter_map(|(at, name)| Some((at.parse::<u32>().ok()?, text(name)?)));
                numbered.collect::<BTreeMap<_, _>>().into_values().collect()
            }
            _ => Vec::new(),
        };
        labels.insert(name.clone(), names);
    }
    labels
}

impl Columns {
    fn find(
        path: &Path,
        schema: &SchemaDescriptor,
        mut classes: BTreeMap<String, Vec<String>>,
        options: &LoadOptions,
    ) -> Result<Self, DataError> {
        let leaves: Vec<Leaf> =
            schema.columns().iter().enumerate().map(|(leaf, column)| Leaf::new(leaf, column)).collect();
        let list = |names: &[&str]| names.join(", ");
        let all = list(&leaves.iter().map(|leaf| leaf.top.as_str()).collect::<Vec<_>>());
        let bad_option = |key, problem: String| DataError::BadOption { key, problem };
        let images: Vec<&Leaf> = match &options.image_column {
            Some(name) => leaves.iter().filter(|leaf| leaf.top == *name && leaf.may_be_image()).collect(),
            None => {
                let grouped: Vec<&Leaf> = leaves.iter().filter(|leaf| leaf.is_image_group()).collect();
                let bare = || leaves.iter().filter(|leaf| leaf.is_bare_bytes()).collect();
                if grouped.is_empty() { bare() } else { grouped }
            }
        };
        let image = match (images.as_slice(), &options.image_column) {
            ([only], _) => only,
            (_, Some(name)) => {
                let problem =
                    format!("{} has no column of images called `{name}`; its columns are: {all}", path.display());
                return Err(bad_option("image_column", problem));
            }
            ([], None) => {
                let problem = format!("{}: none of its columns holds image files: {all}", path.display());
                return Err(bad_option("image_column", problem));
            }
            (several, None) => {
                let names = list(&several.iter().map(|leaf| leaf.top.as_str()).collect::<Vec<_>>());
                let problem = format!("{} has several columns of images; choose one of: {names}", path.display());
                return Err(bad_option("image_column", problem));
            }
        };
        let label = match &options.label_column {
            _ if options.ignore_classes => None,
            Some(name) => {
                Some(leaves.iter().find(|leaf| leaf.top == *name && leaf.may_be_label()).ok_or_else(|| {
                    let problem =
                        format!("{} has no column of labels called `{name}`; its columns are: {all}", path.display());
                    bad_option("label_column", problem)
                })?)
            }
            None => {
                let usual = |leaf: &&Leaf| matches!(leaf.top.as_str(), "label" | "labels") && leaf.may_be_label();
                let known: Vec<&Leaf> =
                    leaves.iter().filter(|leaf| classes.contains_key(&leaf.top) && leaf.may_be_label()).collect();
                match (leaves.iter().find(usual), known.as_slice()) {
                    (Some(leaf), _) => Some(leaf),
                    (None, []) => None,
                    (None, [only]) => Some(*only),
                    (None, several) => {
                        let names = list(&several.iter().map(|leaf| leaf.top.as_str()).collect::<Vec<_>>());
                        let problem =
                            format!("{} has several columns of labels; choose one of: {names}", path.display());
                        return Err(bad_option("label_column", problem));
                    }
                }
            }
        };
        let label = label.map(|leaf| Column {
            name: leaf.top.clone(),
            leaf: leaf.number,
            class_names: classes.remove(&leaf.top).filter(|names| !names.is_empty()),
        });
        let image = Column { name: image.top.clone(), leaf: image.number, class_names: None };
        Ok(Self { image, label })
    }
}

/// A leaf of the schema.
struct Leaf {
    number: usize,
    /// The column that users see.
    top: String,
    /// The rest of its path.
    inner: Vec<String>,
    kind: PhysicalType,
    is_text: bool,
    /// In no list, so that a row has one value or none.
    is_single: bool,
}

impl Leaf {
    fn new(number: usize, column: &parquet::schema::types::ColumnDescriptor) -> Self {
        let parts = column.path().parts();
        Self {
            number,
            top: parts.first().cloned().unwrap_or_default(),
            inner: parts.iter().skip(1).cloned().collect(),
            kind: column.physical_type(),
            is_text: column.converted_type() == ConvertedType::UTF8,
            is_single: column.max_rep_level() == 0,
        }
    }

    /// The `bytes` of a group.
    fn is_image_group(&self) -> bool {
        self.kind == PhysicalType::BYTE_ARRAY && self.is_single && self.inner == ["bytes"]
    }

    /// A column of bytes that are no text.
    fn is_bare_bytes(&self) -> bool {
        self.kind == PhysicalType::BYTE_ARRAY && self.is_single && self.inner.is_empty() && !self.is_text
    }

    fn may_be_image(&self) -> bool {
        self.is_image_group() || self.is_bare_bytes()
    }

    fn may_be_label(&self) -> bool {
        let kinds = [PhysicalType::INT32, PhysicalType::INT64, PhysicalType::BYTE_ARRAY];
        self.is_single && self.inner.is_empty() && kinds.contains(&self.kind)
    }
}

/// A file.
struct Table {
    path: PathBuf,
    rows: usize,
    columns: Columns,
}

/// Reads up to `most` rows of a column: a value or nothing for each.
fn next_rows<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    deepest: i16,
    most: usize,
) -> Result<Vec<Option<T::T>>, ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let (records, _, _) = reader.read_records(most, Some(&mut levels), None, &mut values)?;
    if deepest == 0 {
        return Ok(values.into_iter().take(records).map(Some).collect());
    }
    let mut values = values.into_iter();
    Ok(levels.iter().take(records).map(|level| if *level == deepest { values.next() } else { None }).collect())
}

fn read_labels(table: &Table, label: &Column, values: &mut Vec<Value>) -> Result<(), DataError> {
    let path = &table.path;
    let reader = open(path)?;
    let deepest = reader.metadata().file_metadata().schema_descr().column(label.leaf).max_def_level();
    let most = values.len() + table.rows;
    for group in 0..reader.num_row_groups() {
        let group = parquet(path, || reader.get_row_group(group))?;
        let mut column = parquet(path, || group.get_column_reader(label.leaf))?;
        loop {
            let numbers =
                |rows: Vec<Option<i64>>| rows.into_iter().map(|row| row.map(Value::Number)).collect::<Vec<_>>();
            let rows = parquet(path, || match &mut column {
                ColumnReader::Int64ColumnReader(reader) => next_rows(reader, deepest, 4096).map(numbers),
                ColumnReader::Int32ColumnReader(reader) => next_rows(reader, deepest, 4096)
                    .map(|rows| numbers(rows.into_iter().map(|row| row.map(i64::from)).collect())),
                ColumnReader::ByteArrayColumnReader(reader) => next_rows(reader, deepest, 4096).map(|rows| {
                    // a longer one is an error below, and is not copied a thousand times
                    let text = |bytes: parquet::data_type::ByteArray| {
                        let start = &bytes.data()[..bytes.data().len().min(LONGEST_LABEL + 1)];
                        Value::Text(String::from_utf8_lossy(start).into_owned())
                    };
                    rows.into_iter().map(|row| row.map(text)).collect()
                }),
                _ => Ok(Vec::new()),
            })?;
            if rows.is_empty() {
                break;
            }
            if values.len() + rows.len() > most {
                let problem = format!("has more labels than its {} rows; get it again", table.rows);
                return Err(DataError::bad_file(path, problem));
            }
            for row in rows {
                let row = row.ok_or_else(|| {
                    let problem =
                        format!("row {} has no `{}`; choose another `data.label_column`", values.len(), label.name);
                    DataError::bad_file(path, problem)
                })?;
                if matches!(&row, Value::Text(text) if text.len() > LONGEST_LABEL) {
                    let problem = format!(
                        "row {} has a `{}` of more than {LONGEST_LABEL} bytes; choose another `data.label_column`",
                        values.len(),
                        label.name
                    );
                    return Err(DataError::bad_file(path, problem));
                }
                values.push(row);
            }
        }
    }
    Ok(())
}

/// Pictures that are rows of tables.
struct Rows<'a> {
    tables: &'a [Table],
    count: usize,
}

impl Source for Rows<'_> {
    fn len(&self) -> usize {
        self.count
    }

    fn title(&self, index: usize) -> PathBuf {
        let mut row = index;
        for table in self.tables {
            if row < table.rows {
                return PathBuf::from(format!("{}: row {row}", table.path.display()));
            }
            row -= table.rows;
        }
        PathBuf::from(format!("row {index}"))
    }

    fn visit(&self, indices: &[usize], visit: &mut Visitor<'_>) -> Result<(), DataError> {
        let mut start = 0;
        for table in self.tables {
            let first = indices.partition_point(|index| *index < start);
            let last = indices.partition_point(|index| *index < start + table.rows);
            if first < last {
                table.visit(start, &indices[first..last], visit)?;
            }
            start += table.rows;
        }
        Ok(())
    }
}

impl Table {
    /// Visits rows of this table, the first of which has the number `start`.
    fn visit(&self, mut start: usize, mut indices: &[usize], visit: &mut Visitor<'_>) -> Result<(), DataError> {
        let reader = open(&self.path)?;
        let leaf = self.columns.image.leaf;
        let deepest = reader.metadata().file_metadata().schema_descr().column(leaf).max_def_level();
        for number in 0..reader.num_row_groups() {
            let group = parquet(&self.path, || reader.get_row_group(number))?;
            let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
            let (inside, rest) = indices.split_at(indices.partition_point(|index| *index < start + rows));
            if !inside.is_empty() {
                let ColumnReader::ByteArrayColumnReader(mut column) =
                    parquet(&self.path, || group.get_column_reader(leaf))?
                else {
                    return Err(DataError::bad_file(&self.path, "changed while it was read"));
                };
                let mut at = start;
                // neighbors are read together
                for run in inside.chunk_by(|left, right| left + 1 == *right).flat_map(|run| run.chunks(ROWS)) {
                    let skipped = run[0] - at;
                    let short = |got: usize| {
                        DataError::bad_file(
                            &self.path,
                            format!("ends at row {} of {}; get it again", at + got, start + rows),
                        )
                    };
                    let got = parquet(&self.path, || column.skip_records(skipped))?;
                    if got != skipped {
                        return Err(short(got));
                    }
                    let mut left = run;
                    while !left.is_empty() {
                        let values = parquet(&self.path, || next_rows(&mut column, deepest, left.len()))?;
                        if values.is_empty() {
                            return Err(short(skipped));
                        }
                        for (index, value) in left.iter().zip(&values) {
                            let encoded = match value {
                                Some(bytes) => Encoded::Bytes(bytes.data().to_vec()),
                                None => Encoded::Broken("has no bytes: the image is not in the file".into()),
                            };
                            visit(*index, encoded)?;
                        }
                        left = &left[values.len().min(left.len())..];
                    }
                    at = run[run.len() - 1] + 1;
                }
            }
            indices = rest;
            start += rows;
        }
        match indices {
            [] => Ok(()),
            [first, ..] => {
                Err(DataError::bad_file(&self.path, format!("has no row {first}; it changed while it was read")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::basic::{Compression, ZstdLevel};
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;
    use crate::testing::{gray, write};

    const PETS: &str = r#"{"info": {"features": {"label": {"names": ["cat", "dog", "eel"], "_type": "ClassLabel"},
        "image": {"_type": "Image"}}}}"#;

    /// A row: the bytes of the image, if there are any, and its label.
    type Row = (Option<Vec<u8>>, i64);

    /// A table as `datasets` writes it, in groups of two rows.
    fn table(rows: &[Row], names: [&str; 2], huggingface: Option<&str>, compression: Compression) -> Vec<u8> {
        let [image, label] = names;
        let schema = format!(
            "message schema {{ optional group {image} {{ optional binary bytes; optional binary path (UTF8); }}
             optional int64 {label}; optional binary caption (UTF8); }}"
        );
        let pairs = huggingface.map(|text| vec![KeyValue::new("huggingface".to_string(), text.to_string())]);
        let properties = WriterProperties::builder().set_compression(compression).set_key_value_metadata(pairs).build();
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
        for rows in rows.chunks(2) {
            let mut group = writer.next_row_group().unwrap();
            let images: Vec<ByteArray> = rows.iter().filter_map(|(bytes, _)| Some(bytes.clone()?.into())).collect();
            let levels: Vec<i16> = rows.iter().map(|(bytes, _)| if bytes.is_some() { 2 } else { 1 }).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&images, Some(&levels), None).unwrap();
            column.close().unwrap();
            let paths: Vec<ByteArray> =
                rows.iter().map(|(_, label)| ByteArray::from(format!("{label}.png").as_str())).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&paths, Some(&vec![2; rows.len()]), None).unwrap();
            column.close().unwrap();
            let labels: Vec<i64> = rows.iter().map(|(_, label)| *label).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&labels, Some(&vec![1; rows.len()]), None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![0; rows.len()]), None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.into_inner().unwrap()
    }

    /// Rows whose images have the shades 0, 1, 2, … and whose labels go round.
    fn rows(count: u8) -> Vec<Row> {
        (0..count).map(|shade| (Some(gray(3, 2, shade)), i64::from(shade % 3))).collect()
    }

    fn pets(count: u8) -> Vec<u8> {
        table(&rows(count), ["image", "label"], Some(PETS), Compression::SNAPPY)
    }

    fn open(path: &Path, options: &LoadOptions) -> Result<Loaded, String> {
        crate::open_in(&crate::Places::default(), &path.display().to_string(), options)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_compression_gives_the_same_images() {
        let folder = tempfile::tempdir().unwrap();
        let mut hashes = Vec::new();
        for (name, compression) in [
            ("plain", Compression::UNCOMPRESSED),
            ("snappy", Compression::SNAPPY),
            ("zstd", Compression::ZSTD(ZstdLevel::default())),
            ("lz4", Compression::LZ4_RAW),
        ] {
            let bytes = table(&rows(7), ["image", "label"], Some(PETS), compression);
            let images =
                open(&write(&folder, &format!("{name}.parquet"), &bytes), &LoadOptions::default()).unwrap().images;
            assert_eq!((images.len(), images.height(), images.width(), images.channels()), (7, 3, 2, 1));
            assert!((0..7).all(|index| images.image(index)[0] == index as u8));
            assert_eq!(images.labels(), Some([0, 1, 2, 0, 1, 2, 0].as_slice()));
            assert_eq!(images.class_names().unwrap(), ["cat", "dog", "eel"]);
            hashes.push(images.content_hash());
        }
        assert!(hashes.iter().all(|hash| *hash == hashes[0]));
    }

    #[test]
    fn a_folder_has_its_splits() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "data/train-00000-of-00002.parquet", &pets(4));
        write(&folder, "data/train-00001-of-00002.parquet", &pets(3));
        write(&folder, "data/test-00000-of-00001.parquet", &pets(2));
        write(&folder, "data/validation-00000-of-00001.parquet", &pets(1));
        write(&folder, "README.md", b"a card");
        let train = open(folder.path(), &LoadOptions::default()).unwrap().images;
        assert_eq!((train.len(), train.image(4)[0], train.label(6)), (7, 0, Some(2)));
        let test = LoadOptions { split: Split::Test, ..LoadOptions::default() };
        assert_eq!(open(folder.path(), &test).unwrap().images.len(), 2);
        std::fs::remove_file(folder.path().join("data/test-00000-of-00001.parquet")).unwrap();
        assert_eq!(open(folder.path(), &test).unwrap().images.len(), 1);
        std::fs::remove_file(folder.path().join("data/validation-00000-of-00001.parquet")).unwrap();
        let error = crate::open_in(&crate::Places::default(), &folder.path().display().to_string(), &test).unwrap_err();
        assert!(error.is_missing_split() && error.to_string().contains("test"), "{error}");
    }

    #[test]
    fn limits_take_rows_across_groups() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(&folder, "pets.parquet", &pets(11));
        let options = LoadOptions { limit: Some(4), ..LoadOptions::default() };
        let images = open(&path, &options).unwrap().images;
        let shades: Vec<u8> = (0..4).map(|index| images.image(index)[0]).collect();
        assert_eq!(shades, [0, 2, 5, 8]);
        assert_eq!((images.labels(), images.classes()), (Some([0, 2, 2, 2].as_slice()), 3));
    }

    #[test]
    fn columns_are_found_or_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let plain = Compression::UNCOMPRESSED;
        let path = write(&folder, "img.parquet", &table(&rows(3), ["img", "fine_label"], None, plain));
        assert_eq!(open(&path, &LoadOptions::default()).unwrap().images.labels(), None);
        let fine = LoadOptions { label_column: Some("fine_label".into()), ..LoadOptions::default() };
        assert_eq!(open(&path, &fine).unwrap().images.labels(), Some([0, 1, 2].as_slice()));
        let coarse = LoadOptions { label_column: Some("coarse".into()), ..LoadOptions::default() };
        let error = open(&path, &coarse).unwrap_err();
        assert!(error.contains("`coarse`") && error.contains("fine_label"), "{error}");
        let picture = LoadOptions { image_column: Some("picture".into()), ..LoadOptions::default() };
        let error = open(&path, &picture).unwrap_err();
        assert!(error.contains("`picture`") && error.contains("img"), "{error}");
        // where the file says what is a label, it need not be called so
        let named =
            r#"{"info": {"features": {"kind": {"names": {"1": "b", "0": "a", "2": "c"}, "_type": "ClassLabel"}}}}"#;
        let path = write(&folder, "kind.parquet", &table(&rows(3), ["image", "kind"], Some(named), plain));
        let images = open(&path, &LoadOptions::default()).unwrap().images;
        assert_eq!((images.labels(), images.class_names().unwrap()[1].as_str()), (Some([0, 1, 2].as_slice()), "b"));
        let without = LoadOptions { ignore_classes: true, ..LoadOptions::default() };
        assert_eq!(open(&path, &without).unwrap().images.labels(), None);
    }

    #[test]
    fn rows_that_cannot_be_read_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut of = rows(5);
        of[1].0 = None;
        of[3].0 = Some(b"no picture".to_vec());
        let path = write(&folder, "holes.parquet", &table(&of, ["image", "label"], None, Compression::SNAPPY));
        let error = open(&path, &LoadOptions::default()).unwrap_err();
        assert!(
            error.contains("row 1: has no bytes") && error.contains("row 3") && error.contains("2 of 5"),
            "{error}"
        );
        let skip = LoadOptions { skip_unreadable: true, ..LoadOptions::default() };
        let loaded = open(&path, &skip).unwrap();
        assert_eq!((loaded.images.len(), loaded.images.labels()), (3, Some([0, 2, 1].as_slice())));
        assert_eq!(loaded.skipped.len(), 2);

        let secret: Vec<Row> = rows(3).into_iter().map(|(bytes, _)| (bytes, -1)).collect();
        let path =
            write(&folder, "secret.parquet", &table(&secret, ["image", "label"], Some(PETS), Compression::SNAPPY));
        assert_eq!(open(&path, &LoadOptions::default()).unwrap().images.labels(), None);
        let wrong: Vec<Row> = rows(3).into_iter().map(|(bytes, label)| (bytes, label + 1)).collect();
        let path = write(&folder, "wrong.parquet", &table(&wrong, ["image", "label"], Some(PETS), Compression::SNAPPY));
        let error = open(&path, &LoadOptions::default()).unwrap_err();
        assert!(error.contains("label 2 is 3, expected 0 to 2"), "{error}");
    }

    #[test]
    fn broken_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let whole = pets(6);
        for bytes in [&whole[..whole.len() / 2], &whole[whole.len() / 2..], b"PAR1", b""] {
            let error = open(&write(&folder, "cut.parquet", bytes), &LoadOptions::default()).unwrap_err();
            assert!(error.contains("cut.parquet") && error.contains("broken Parquet file"), "{error}");
        }
        // blank pixels, unpacked from next to nothing
        let blank: Vec<Row> = vec![(Some(vec![0; 300 << 20]), 0)];
        let bytes = table(&blank, ["image", "label"], None, Compression::ZSTD(ZstdLevel::default()));
        let error = open(&write(&folder, "bomb.parquet", &bytes), &LoadOptions::default()).unwrap_err();
        assert!(error.contains("bomb.parquet") && error.contains("no pictures do"), "{error}");
    }
}
