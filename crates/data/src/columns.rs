//! Parquet files of images, as Hugging Face writes them: a column of groups `{bytes, path}` (or of bytes alone), each an
//! image file, and a column of labels; see <https://huggingface.co/docs/datasets/image_dataset>.
//!
//! A page is unpacked at a time, to at most the 2 GiB that its header can claim; codecs without such a limit (gzip, brotli)
//! are not built in.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use parquet::basic::{ConvertedType, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;

use crate::account::Account;
use crate::classes::{Classes, Value};
use crate::collect::{Collection, Source, Visitor};
use crate::context::ReadContext;
use crate::decode::Encoded;
use crate::disk::{self, file_name, list};
use crate::error::DataError;
use crate::guard::guarded;
use crate::loaded::Loaded;
use crate::options::{ClassFrom, LoadOptions, Split};

/// Rows of images that are read at a time ...
const IMAGE_ROWS: usize = 64;
/// ... and rows of labels.
const LABEL_ROWS: usize = 4096;

/// Bytes of a label at most.
const LONGEST_LABEL: usize = 256;

/// A column of a row group that unpacks to more bytes than this ...
const SMALL: i64 = 256 << 20;
/// ... and to more than this many times its length is a decompression bomb.
const LARGEST_RATIO: i64 = 50;

/// The Parquet files of `split` in `folder`, or in its folder `data`, or in the only folder in it that has some; `None` where
/// there are none. The first word of a name is its split (`train-00000-of-00002.parquet`); other files belong to the training
/// split. Where there is only one split, that is the training split.
///
/// # Errors
/// [`DataError::NothingFound`] without a test split, [`DataError::BadFile`] where several folders have Parquet files.
pub(crate) fn files_in(folder: &Path, split: Split) -> Result<Option<Vec<PathBuf>>, DataError> {
    let mut found = find_files(folder)?;
    if found.is_empty() {
        return Ok(None);
    }
    let name = |path: &PathBuf| file_name(path).to_ascii_lowercase();
    found.sort_by_key(name);
    let has_test = found.iter().any(|path| name(path).starts_with("test"));
    let is_of_test = |path: &PathBuf| {
        matches!(name(path).split(['-', '_', '.']).next(), Some("test" | "validation" | "valid" | "val"))
    };
    let (mut test, train): (Vec<_>, Vec<_>) = found.into_iter().partition(is_of_test);
    let files = match split {
        Split::Train if train.is_empty() => test,
        Split::Train => train,
        Split::Test => {
            // with a test and a validation part, the test part is the split
            test.retain(|path| !has_test || name(path).starts_with("test"));
            test
        }
    };
    if files.is_empty() {
        let looked_for = "train-….parquet, test-….parquet or validation-….parquet";
        return Err(DataError::nothing_found(folder, "has Parquet files, but none of the test split", looked_for));
    }
    Ok(Some(files))
}

/// The Parquet files of all splits.
fn find_files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = parquet_files(folder)?;
    let data = folder.join("data");
    if files.is_empty() && data.is_dir() {
        files = parquet_files(&data)?;
    }
    if !files.is_empty() {
        return Ok(files);
    }
    let mut folders = Vec::new();
    for inner in list(folder)?.into_iter().filter(|path| path.is_dir()) {
        // a folder that cannot be listed is named by the reader of images
        let of_inner = parquet_files(&inner).unwrap_or_default();
        if !of_inner.is_empty() {
            folders.push(inner.display().to_string());
            files.extend(of_inner);
        }
    }
    if folders.len() > 1 {
        folders.sort();
        let problem = format!("has Parquet files in several folders; name one of them: {}", folders.join(", "));
        return Err(DataError::bad_file(folder, problem));
    }
    Ok(files)
}

/// The Parquet files that lie in `folder` itself.
fn parquet_files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut paths = list(folder)?;
    paths.retain(|path| {
        let name = file_name(path).to_ascii_lowercase();
        name.ends_with(".parquet") && !name.starts_with('.') && path.is_file()
    });
    Ok(paths)
}

/// Reads the images of Parquet files, one after the other, as `options` say.
///
/// # Errors
/// [`DataError::BadOption`] where it is unclear which column is meant, [`DataError::BadFile`] for a file that is broken or has
/// other columns than the first, and the errors of decoding.
pub(crate) fn load(
    name: &str,
    root: &Path,
    files: &[PathBuf],
    options: &LoadOptions,
    context: &ReadContext,
) -> Result<Loaded, DataError> {
    if options.split == Split::Test && files.iter().any(|file| file == root) {
        let problem = format!("a file has no splits; name the folder, or the file of test images ({})", root.display());
        return Err(DataError::bad_option("split", problem));
    }
    let mut tables: Vec<Table> = Vec::new();
    for path in files {
        let columns = tables.first().map(|first| &first.columns);
        tables.push(Table::open(path, columns, options)?);
    }
    let count = tables.iter().map(|table| table.rows).sum();
    let Some(first) = tables.first().filter(|_| count > 0) else {
        return Err(DataError::bad_file(root, "has no row"));
    };
    let classes = match &first.columns.label {
        Some(_) => {
            // the number of rows that a footer claims is no reason to allocate memory
            let mut values = Vec::new();
            tables.iter().try_for_each(|table| table.read_labels(&mut values))?;
            Classes::by_value(root, values, first.columns.class_names.clone())?
        }
        None => Classes::default(),
    };
    Collection {
        name,
        root,
        files: files.iter().map(|path| (file_name(path), path.clone())).collect(),
        source: &Rows { tables: &tables, count },
        classes,
        unreadable: Vec::new(),
        account: Account::default(),
    }
    .load(options, context)
}

/// The result of the library, or its error or panic as an error that names the file.
fn parquet<T>(path: &Path, work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    let broken =
        |reason: String| DataError::bad_file(path, format!("is a broken Parquet file ({reason}); get it again"));
    guarded(work).map_err(broken)?.map_err(|error| broken(error.to_string()))
}

fn open(path: &Path) -> Result<SerializedFileReader<File>, DataError> {
    let (file, _) = disk::open(path)?;
    parquet(path, || SerializedFileReader::new(file))
}

/// A column that is read.
struct Column {
    name: String,
    /// Its index among the leaves of the schema.
    leaf: usize,
}

/// The columns of a file that are read.
struct Columns {
    image: Column,
    label: Option<Column>,
    /// The names of the labels, where the file has them.
    class_names: Option<Vec<String>>,
}

/// The columns of class labels and the names of the classes, where Hugging Face wrote them.
fn class_labels(metadata: &ParquetMetaData) -> BTreeMap<String, Vec<String>> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let text = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == "huggingface")?.value.as_deref());
    let value = text.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok()).unwrap_or_default();
    let mut labels = BTreeMap::new();
    for (name, feature) in value["info"]["features"].as_object().into_iter().flatten() {
        if feature["_type"] != "ClassLabel" {
            continue;
        }
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let names = match &feature["names"] {
            serde_json::Value::Array(names) => names.iter().filter_map(text).collect(),
            // as the card of a dataset has them: {"0": "cat", "1": "dog"}
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

/// The column that a leaf of the schema belongs to.
fn name_of(leaf: &ColumnDescriptor) -> &str {
    leaf.path().parts().first().map_or("", String::as_str)
}

/// Whether a leaf has at most one value in each row, lies at the path `inner` in its column, and is of one of the types.
fn is_leaf(leaf: &ColumnDescriptor, inner: &[&str], types: &[Type]) -> bool {
    leaf.max_rep_level() == 0 && leaf.path().parts().iter().skip(1).eq(inner) && types.contains(&leaf.physical_type())
}

/// Whether a leaf is the `bytes` of a group.
fn is_image_group(leaf: &ColumnDescriptor) -> bool {
    is_leaf(leaf, &["bytes"], &[Type::BYTE_ARRAY])
}

/// Whether a leaf is a column of bytes that are no text.
fn is_bare_bytes(leaf: &ColumnDescriptor) -> bool {
    is_leaf(leaf, &[], &[Type::BYTE_ARRAY]) && leaf.converted_type() != ConvertedType::UTF8
}

fn may_be_label(leaf: &ColumnDescriptor) -> bool {
    is_leaf(leaf, &[], &[Type::INT32, Type::INT64, Type::BYTE_ARRAY])
}

impl Columns {
    fn find(path: &Path, metadata: &ParquetMetaData, options: &LoadOptions) -> Result<Self, DataError> {
        let leaves = metadata.file_metadata().schema_descr().columns();
        let mut class_labels = class_labels(metadata);
        let matching = |is_match: &dyn Fn(&ColumnDescriptor) -> bool| -> Vec<Column> {
            let leaves = leaves.iter().enumerate().filter(|(_, leaf)| is_match(leaf));
            leaves.map(|(number, leaf)| Column { name: name_of(leaf).to_string(), leaf: number }).collect()
        };
        let names_of =
            |columns: &[Column]| columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let all = names_of(&matching(&|_| true));
        // the only candidate; none where there is none and the options name none
        let only = |key, what: &str, given: &Option<String>, mut candidates: Vec<Column>| {
            let path = path.display();
            let problem = match (candidates.len(), given) {
                (1, _) | (0, None) => return Ok(candidates.pop()),
                (_, Some(name)) => format!("{path} has no column of {what} called `{name}`; its columns are: {all}"),
                (_, None) => {
                    format!("{path} has several columns of {what}; choose one of: {}", names_of(&candidates))
                }
            };
            Err(DataError::bad_option(key, problem))
        };
        let images = match &options.image_column {
            Some(name) => matching(&|leaf| name_of(leaf) == name && (is_image_group(leaf) || is_bare_bytes(leaf))),
            None => Some(matching(&is_image_group))
                .filter(|groups| !groups.is_empty())
                .unwrap_or_else(|| matching(&is_bare_bytes)),
        };
        let Some(image) = only("image_column", "images", &options.image_column, images)? else {
            let problem = format!("{}: none of its columns holds image files: {all}", path.display());
            return Err(DataError::bad_option("image_column", problem));
        };
        if options.class_from == ClassFrom::None {
            return Ok(Self { image, label: None, class_names: None });
        }
        let labels = match &options.label_column {
            Some(name) => matching(&|leaf| name_of(leaf) == name && may_be_label(leaf)),
            None => {
                let mut usual = matching(&|leaf| matches!(name_of(leaf), "label" | "labels") && may_be_label(leaf));
                usual.truncate(1);
                let known = || matching(&|leaf| class_labels.contains_key(name_of(leaf)) && may_be_label(leaf));
                if usual.is_empty() { known() } else { usual }
            }
        };
        let label = only("label_column", "labels", &options.label_column, labels)?;
        let class_names = label.as_ref().and_then(|label| class_labels.remove(&label.name));
        Ok(Self { image, label, class_names: class_names.filter(|names| !names.is_empty()) })
    }
}

/// A file.
struct Table {
    path: PathBuf,
    rows: usize,
    columns: Columns,
}

impl Table {
    /// Opens a file and checks its size; where `like` is given, its columns have these names.
    fn open(path: &Path, like: Option<&Columns>, options: &LoadOptions) -> Result<Self, DataError> {
        let reader = open(path)?;
        let metadata = reader.metadata();
        let columns = match like {
            None => Columns::find(path, metadata, options)?,
            Some(Columns { image, label, .. }) => {
                let same = LoadOptions {
                    image_column: Some(image.name.clone()),
                    label_column: label.as_ref().map(|label| label.name.clone()),
                    ..options.clone()
                };
                Columns::find(path, metadata, &same)?
            }
        };
        let table = Self { path: path.to_path_buf(), rows: 0, columns };
        let mut rows = 0u64;
        for group in metadata.row_groups() {
            for column in std::iter::once(&table.columns.image).chain(&table.columns.label) {
                let Some(leaf) = group.columns().get(column.leaf) else {
                    return Err(table.bad(format!("has a group without `{}`; get it again", column.name)));
                };
                let (packed, unpacked) = (leaf.compressed_size(), leaf.uncompressed_size());
                if unpacked > SMALL.max(packed.saturating_mul(LARGEST_RATIO)) {
                    return Err(table.bad(format!("claims to unpack {packed} bytes to {unpacked}: no pictures do")));
                }
            }
            rows = rows.saturating_add(u64::try_from(group.num_rows()).unwrap_or(u64::MAX));
        }
        let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        if rows > length {
            return Err(table.bad(format!("claims to have {rows} rows in {length} bytes; get it again")));
        }
        Ok(Self { rows: rows as usize, ..table })
    }

    fn bad(&self, problem: String) -> DataError {
        DataError::bad_file(&self.path, problem)
    }

    /// Adds the labels of all rows to `values`.
    fn read_labels(&self, values: &mut Vec<Value>) -> Result<(), DataError> {
        let Some(Column { name, leaf }) = &self.columns.label else { return Ok(()) };
        let reader = open(&self.path)?;
        let start = values.len();
        let wrong_count = |count| self.bad(format!("has {} rows and {count} labels or more; get it again", self.rows));
        for number in 0..reader.num_row_groups() {
            let group = parquet(&self.path, || reader.get_row_group(number))?;
            let mut column = parquet(&self.path, || group.get_column_reader(*leaf))?;
            loop {
                let rows = parquet(&self.path, || next_labels(&mut column, depth(&reader, *leaf)))?;
                if rows.is_empty() {
                    break;
                }
                for row in rows {
                    let fault = match row {
                        Some(Value::Text(text)) if text.len() > LONGEST_LABEL => {
                            format!("a `{name}` of more than {LONGEST_LABEL} bytes")
                        }
                        Some(value) => {
                            values.push(value);
                            continue;
                        }
                        None => format!("no `{name}`"),
                    };
                    let row = values.len();
                    return Err(self.bad(format!("row {row} has {fault}; choose another `data.label_column`")));
                }
                if values.len() - start > self.rows {
                    return Err(wrong_count(values.len() - start));
                }
            }
        }
        if values.len() - start == self.rows { Ok(()) } else { Err(wrong_count(values.len() - start)) }
    }

    /// Visits rows of this table; `start` is the index of its first row.
    fn visit(&self, mut start: usize, mut indices: &[usize], visit: &mut Visitor<'_>) -> Result<(), DataError> {
        let reader = open(&self.path)?;
        let leaf = self.columns.image.leaf;
        for number in 0..reader.num_row_groups() {
            let group = parquet(&self.path, || reader.get_row_group(number))?;
            let end = start + usize::try_from(group.metadata().num_rows()).unwrap_or(0);
            let (inside, rest) = indices.split_at(indices.partition_point(|index| *index < end));
            if !inside.is_empty() {
                let column = parquet(&self.path, || group.get_column_reader(leaf))?;
                let ColumnReader::ByteArrayColumnReader(column) = column else {
                    return Err(self.bad("changed while it was read".into()));
                };
                self.visit_group(column, depth(&reader, leaf), start..end, inside, visit)?;
            }
            (start, indices) = (end, rest);
        }
        match indices.first() {
            None => Ok(()),
            Some(first) => Err(self.bad(format!("has no row {first}; it changed while it was read"))),
        }
    }

    /// Visits the rows at `indices` of a row group, which has the rows `rows`.
    fn visit_group(
        &self,
        mut column: ColumnReaderImpl<ByteArrayType>,
        depth: i16,
        rows: Range<usize>,
        indices: &[usize],
        visit: &mut Visitor<'_>,
    ) -> Result<(), DataError> {
        let ends_at = |row: usize| self.bad(format!("ends at row {row} of {}; get it again", rows.end));
        let encoded = |bytes: ByteArray| Encoded::Bytes(bytes.data().to_vec());
        let mut at = rows.start;
        // neighbors are read together
        for run in indices.chunk_by(|left, right| left + 1 == *right).flat_map(|run| run.chunks(IMAGE_ROWS)) {
            at += parquet(&self.path, || column.skip_records(run[0] - at))?;
            if at != run[0] {
                return Err(ends_at(at));
            }
            let end = at + run.len();
            while at < end {
                let pictures = parquet(&self.path, || next_rows(&mut column, depth, end - at, encoded))?;
                if pictures.is_empty() {
                    return Err(ends_at(at));
                }
                for picture in pictures {
                    let missing = || Encoded::Broken("has no bytes: the image is not in the file".into());
                    visit(at, picture.unwrap_or_else(missing))?;
                    at += 1;
                }
            }
        }
        Ok(())
    }
}

/// The definition level of a value of a leaf; a row with a lower one has no value.
fn depth(reader: &SerializedFileReader<File>, leaf: usize) -> i16 {
    reader.metadata().file_metadata().schema_descr().column(leaf).max_def_level()
}

/// Reads up to `most` rows of a column and converts their values; `None` for a row without one.
fn next_rows<T: DataType, R>(
    reader: &mut ColumnReaderImpl<T>,
    depth: i16,
    most: usize,
    convert: impl Fn(T::T) -> R,
) -> Result<Vec<Option<R>>, ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let (records, _, _) = reader.read_records(most, Some(&mut levels), None, &mut values)?;
    let mut values = values.into_iter().map(convert);
    if depth == 0 {
        return Ok(values.take(records).map(Some).collect());
    }
    Ok(levels.iter().take(records).map(|level| if *level == depth { values.next() } else { None }).collect())
}

/// Reads some rows of a column of labels.
fn next_labels(column: &mut ColumnReader, depth: i16) -> Result<Vec<Option<Value>>, ParquetError> {
    // of a longer text, which is refused, one byte too many is copied
    let text = |bytes: ByteArray| {
        let start = &bytes.data()[..bytes.data().len().min(LONGEST_LABEL + 1)];
        Value::Text(String::from_utf8_lossy(start).into_owned())
    };
    match column {
        ColumnReader::Int64ColumnReader(reader) => next_rows(reader, depth, LABEL_ROWS, Value::Number),
        ColumnReader::Int32ColumnReader(reader) => {
            next_rows(reader, depth, LABEL_ROWS, |number| Value::Number(number.into()))
        }
        ColumnReader::ByteArrayColumnReader(reader) => next_rows(reader, depth, LABEL_ROWS, text),
        _ => Ok(Vec::new()),
    }
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
            let end = start + table.rows;
            let first = indices.partition_point(|index| *index < start);
            let last = indices.partition_point(|index| *index < end);
            if first < last {
                table.visit(start, &indices[first..last], visit)?;
            }
            start = end;
        }
        Ok(())
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

    /// Rows whose images have the shades 0, 1, 2, … and whose labels are 0, 1, 2, 0, ….
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
    fn a_folder_has_splits() {
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
    fn columns_are_found_or_named() {
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
        // a column of class labels may have any name
        let named =
            r#"{"info": {"features": {"kind": {"names": {"1": "b", "0": "a", "2": "c"}, "_type": "ClassLabel"}}}}"#;
        let path = write(&folder, "kind.parquet", &table(&rows(3), ["image", "kind"], Some(named), plain));
        let images = open(&path, &LoadOptions::default()).unwrap().images;
        assert_eq!((images.labels(), images.class_names().unwrap()[1].as_str()), (Some([0, 1, 2].as_slice()), "b"));
        let without = LoadOptions { class_from: ClassFrom::None, ..LoadOptions::default() };
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
