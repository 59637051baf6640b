//! Parquet files of images, as Hugging Face writes them: a column of groups `{bytes, path}` (or of bytes alone), each an
//! image file, and a column of labels; see <https://huggingface.co/docs/datasets/image_dataset>.
//!
//! A page is unpacked at a time, to at most the 2 GiB that its header can claim; those of gzip and brotli by
//! [`parquet_pages`].

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use parquet::basic::Compression;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::account::{Account, LeftOut, Weight};
use crate::classes::{Classes, Value, too_many_classes};
use crate::collect::{Collection, Source, Visitor};
use crate::column_names::sounds_like_label;
use crate::context::ReadContext;
use crate::decode::Encoded;
use crate::disk::{self, file_name, list};
use crate::error::DataError;
use crate::guard::guarded;
use crate::hash::of_selection;
use crate::loaded::Loaded;
use crate::metadata::{LONGEST_LABEL, without_labels};
use crate::options::{ClassFrom, LoadOptions, Split};
use crate::parquet_columns::{Column, Columns};
use crate::parquet_pages;
use crate::sheet::whole_of_float;

/// Rows of images that are read at a time ...
const IMAGE_ROWS: usize = 64;
/// ... and rows of labels.
const LABEL_ROWS: usize = 4096;

/// Columns that are looked at for labels, where none has a usual name, ...
const MOST_LOOKED_AT: usize = 16;
/// ... and rows of each.
const ROWS_LOOKED_AT: usize = 10_000;

/// A column of a row group that unpacks to more bytes than this ...
const SMALL: i64 = 256 << 20;
/// ... and to more than this many times its length is a decompression bomb.
const LARGEST_RATIO: i64 = 50;

/// Writes a table of pandas in a way that is read here.
const WRITE_ANEW: &str = "write it anew, in Python: df.to_parquet(path, compression='zstd')";

/// The Parquet files of one split.
pub(crate) struct Files {
    pub paths: Vec<PathBuf>,
    /// The other splits.
    pub account: Account,
}

impl Files {
    /// A file alone.
    pub(crate) fn of(path: &Path) -> Self {
        Self { paths: vec![path.to_path_buf()], account: Account::default() }
    }
}

/// A split by the name of a file or a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Train,
    Validation,
    Test,
}

impl Part {
    fn of_word(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "validation" | "valid" | "val" | "dev" => Some(Self::Validation),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }

    /// The split of a name: that of its first word (`test1.parquet`, `train-00000-of-00002.parquet`), else of its last word
    /// that has one (`pets_val_1.parquet`).
    fn of_name(name: &str) -> Option<Self> {
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let words: Vec<&str> =
            stem.split(|letter: char| !letter.is_alphabetic()).filter(|word| !word.is_empty()).collect();
        let first = words.first().and_then(|word| Self::of_word(word));
        first.or_else(|| words.iter().rev().find_map(|word| Self::of_word(word)))
    }

    /// The split of a file: by its name, or by that of its folder.
    fn of_path(path: &Path) -> Option<Self> {
        Self::of_name(&file_name(path)).or_else(|| Self::of_word(&file_name(path.parent()?)))
    }
}

/// The Parquet files of `split` in `folder`, or in its folder `data`, or in the only folder in it that has some, or in those
/// that are called like splits; `None` where there are none. Files without the name of a split belong to the training split.
/// Where there is no file of the training split, the others are that split; the test split is the validation split where there
/// is no other.
///
/// # Errors
/// [`DataError::NothingFound`] without a test split, [`DataError::BadFile`] where several folders have Parquet files.
pub(crate) fn files_in(folder: &Path, split: Split) -> Result<Option<Files>, DataError> {
    let mut found = find_files(folder)?;
    if found.is_empty() {
        return Ok(None);
    }
    found.sort_by_cached_key(|path| (file_name(path).to_ascii_lowercase(), path.clone()));
    let part = |path: &Path| Part::of_path(path).unwrap_or(Part::Train);
    let has = |wanted: Part| found.iter().any(|path| part(path) == wanted);
    let mut account = Account::default();
    let is_wanted = |of: Part| match split {
        Split::Train if has(Part::Train) => of == Part::Train,
        Split::Train => true,
        Split::Test if has(Part::Test) => of == Part::Test,
        Split::Test => of == Part::Validation,
    };
    if split == Split::Train && !has(Part::Train) {
        account.decided("there is no split `train`: all files are trained on");
    }
    let (paths, others): (Vec<_>, Vec<_>) = found.iter().cloned().partition(|path| is_wanted(part(path)));
    if paths.is_empty() {
        let looked_for = "train-….parquet, test-….parquet or validation-….parquet";
        return Err(DataError::nothing_found(folder, "has Parquet files, but none of the test split", looked_for));
    }
    for path in others {
        let inner = path.strip_prefix(folder).unwrap_or(&path);
        account.leave_out(Weight::Note, "Parquet files", "are of other splits", inner.display());
    }
    Ok(Some(Files { paths, account }))
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
    // a folder for each split
    let is_split = |folder: &String| Part::of_word(&file_name(Path::new(folder))).is_some();
    if folders.len() > 1 && !folders.iter().all(is_split) {
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
    files: Files,
    options: &LoadOptions,
    context: &ReadContext,
) -> Result<Loaded, DataError> {
    let Files { paths, mut account } = files;
    if options.split == Split::Test && paths.iter().any(|file| file == root) {
        let problem = format!("a file has no splits; name the folder, or the file of test images ({})", root.display());
        return Err(DataError::bad_option("split", problem));
    }
    let mut tables: Vec<Table> = Vec::new();
    for path in &paths {
        let columns = tables.first().map(|first| &first.columns);
        // of files with the same columns, those of the first are named
        let mut of_others = Account::default();
        let account = if columns.is_none() { &mut account } else { &mut of_others };
        tables.push(Table::open(path, columns, options, account)?);
    }
    let count = tables.iter().map(|table| table.rows).sum();
    if tables.is_empty() || count == 0 {
        return Err(DataError::bad_file(root, "has no row"));
    }
    let (kept, classes) = labels(root, &tables, options, &mut account)?;
    // options choose among the rows
    let selection = kept.as_ref().map(|kept: &Vec<usize>| of_selection(kept.iter().map(|row| row.to_le_bytes())));
    let key = |path: &PathBuf| format!("{}{}", file_name(path), selection.as_deref().unwrap_or_default());
    Collection {
        name,
        root,
        files: paths.iter().map(|path| (key(path), path.clone())).collect(),
        source: &Rows { tables: &tables, count, kept },
        classes,
        unreadable: Vec::new(),
        account,
    }
    .load(options, context)
}

/// The rows that are used, all where it is `None`, and their classes.
fn labels(
    root: &Path,
    tables: &[Table],
    options: &LoadOptions,
    account: &mut Account,
) -> Result<(Option<Vec<usize>>, Classes), DataError> {
    let without = Ok((None, Classes::default()));
    let Some(first) = tables.first() else { return without };
    let Some(column) = &first.columns.label else {
        return first.leave_out_maybe_labels(account).and(without);
    };
    let mut labels = Labels::default();
    for table in tables {
        let Some(column) = &table.columns.label else { continue };
        table.read_labels(column, usize::MAX, &mut labels)?;
    }
    let named = first.columns.class_names.clone();
    if let Some(fault) = labels.fault(&column.type_name, named.is_some()) {
        let fault = format!("{fault}: not used as classes");
        if options.label_column.is_some() {
            return Err(DataError::bad_option(
                "label_column",
                format!("{}: `{}` {fault}", root.display(), column.name),
            ));
        }
        let what = format!("column `{}`", column.name);
        account.leave_out(Weight::Doubt, what.clone(), fault, what);
        return without;
    }
    let Labels { values, .. } = labels;
    let rows = values.len();
    let mut missing = (0..).zip(&values).filter(|(_, value)| value.is_none()).map(|(row, _)| row);
    let Some(first_missing) = missing.next() else {
        return Ok((None, Classes::by_value(root, values.into_iter().flatten().collect(), named)?));
    };
    let examples: Vec<usize> = std::iter::once(first_missing).chain(missing).collect();
    if !options.skip_unreadable {
        let example = format!("row {first_missing}");
        return Err(DataError::bad_file(root, without_labels(examples.len(), rows, &column.name, &example)));
    }
    account.leave_out_all(LeftOut {
        what: "rows".to_string(),
        reason: format!("have no `{}` (data.skip_unreadable)", column.name),
        count: examples.len(),
        examples: examples.iter().take(3).map(|row| format!("row {row}")).collect(),
        weight: Weight::Note,
    });
    let kept = (0..).zip(&values).filter(|(_, value)| value.is_some()).map(|(row, _)| row).collect();
    Ok((Some(kept), Classes::by_value(root, values.into_iter().flatten().collect(), named)?))
}

/// The labels of rows; `None` for a row without one.
#[derive(Default)]
struct Labels {
    values: Vec<Option<Value>>,
    has_fractions: Cell<bool>,
}

impl Labels {
    /// The reason why these values of the type `type_name` are no classes.
    fn fault(&self, type_name: &str, is_named: bool) -> Option<String> {
        if self.has_fractions.get() {
            return Some(format!("is {type_name} with fractions"));
        }
        let distinct: HashSet<&Value> = self.values.iter().flatten().collect();
        if distinct.is_empty() {
            return Some("has no value".to_string());
        }
        if is_named { None } else { too_many_classes(distinct.len(), self.values.len()) }
    }

    /// Whether they may well be classes: at least two, and few of them.
    fn are_like_classes(&self) -> bool {
        let distinct: HashSet<&Value> = self.values.iter().flatten().collect();
        !self.has_fractions.get() && (2..=self.values.len() / 2).contains(&distinct.len())
    }
}

/// The result of the library, or its error or panic as an error that names the file.
fn parquet<T>(path: &Path, work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    let broken =
        |reason: String| DataError::bad_file(path, format!("is a broken Parquet file ({reason}); get it again"));
    guarded(work).map_err(broken)?.map_err(|error| match &error {
        ParquetError::NYI(problem) => DataError::bad_file(
            path,
            format!("needs a feature of Parquet that is not read here ({problem}); {WRITE_ANEW}"),
        ),
        ParquetError::General(problem) if problem.contains("encrypted") => {
            DataError::bad_file(path, format!("is encrypted, which is not read here; {WRITE_ANEW}"))
        }
        _ => broken(error.to_string()),
    })
}

fn open(path: &Path) -> Result<SerializedFileReader<File>, DataError> {
    let (file, _) = disk::open(path)?;
    parquet(path, || SerializedFileReader::new(file))
}

/// A file.
struct Table {
    path: PathBuf,
    rows: usize,
    columns: Columns,
}

impl Table {
    /// Opens a file and checks its size; where `like` is given, its columns have these names. What was chosen is added to
    /// `account`.
    fn open(
        path: &Path,
        like: Option<&Columns>,
        options: &LoadOptions,
        account: &mut Account,
    ) -> Result<Self, DataError> {
        let reader = open(path)?;
        let metadata = reader.metadata();
        let columns = match like {
            None => Columns::find(path, metadata, options, account)?,
            Some(Columns { image, label, .. }) => {
                let class_from = if label.is_some() { options.class_from } else { ClassFrom::None };
                let same = LoadOptions {
                    image_column: Some(image.name.clone()),
                    label_column: label.as_ref().map(|label| label.name.clone()),
                    class_from,
                    ..options.clone()
                };
                Columns::find(path, metadata, &same, account)?
            }
        };
        let table = Self { path: path.to_path_buf(), rows: 0, columns };
        let mut rows = 0u64;
        for group in metadata.row_groups() {
            for column in std::iter::once(&table.columns.image).chain(&table.columns.label) {
                let Some(leaf) = group.columns().get(column.leaf) else {
                    return Err(table.bad(format!("has a group without `{}`; get it again", column.name)));
                };
                if leaf.compression() == Compression::LZO {
                    let problem =
                        format!("`{}` is compressed by lzo, which is not read here; {WRITE_ANEW}", column.name);
                    return Err(table.bad(problem));
                }
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

    /// Opens a column of a row group.
    fn column(
        &self,
        reader: &SerializedFileReader<File>,
        group: usize,
        leaf: usize,
    ) -> Result<ColumnReader, DataError> {
        let group = parquet(&self.path, || reader.get_row_group(group))?;
        let (file, _) = disk::open(&self.path)?;
        let packed = parquet(&self.path, || parquet_pages::column(file, group.metadata(), leaf))?;
        packed.map_or_else(|| parquet(&self.path, || group.get_column_reader(leaf)), Ok)
    }

    /// Adds the labels of all rows, at most `most` and a chunk, to `labels`.
    fn read_labels(&self, column: &Column, most: usize, labels: &mut Labels) -> Result<(), DataError> {
        let Column { name, leaf, .. } = column;
        let reader = open(&self.path)?;
        let start = labels.values.len();
        let wrong_count = |count| self.bad(format!("has {} rows and {count} labels or more; get it again", self.rows));
        for number in 0..reader.num_row_groups() {
            let mut values = self.column(&reader, number, *leaf)?;
            loop {
                let fractions = &labels.has_fractions;
                let read = || next_labels(&mut values, depth(&reader, *leaf), column.is_unsigned, fractions);
                let rows = parquet(&self.path, read)?;
                if rows.is_empty() {
                    break;
                }
                let is_long =
                    |row: &Option<Value>| matches!(row, Some(Value::Text(text)) if text.len() > LONGEST_LABEL);
                if let Some(at) = rows.iter().position(is_long) {
                    let row = labels.values.len() + at;
                    let fault = format!("row {row} has a `{name}` of more than {LONGEST_LABEL} bytes");
                    return Err(self.bad(format!("{fault}; choose another `data.label_column`")));
                }
                labels.values.extend(rows);
                if labels.values.len() - start > self.rows {
                    return Err(wrong_count(labels.values.len() - start));
                }
                if labels.values.len() - start >= most {
                    return Ok(());
                }
            }
        }
        let count = labels.values.len() - start;
        if count == self.rows { Ok(()) } else { Err(wrong_count(count)) }
    }

    /// Adds columns without the name of labels that look like them to the account.
    fn leave_out_maybe_labels(&self, account: &mut Account) -> Result<(), DataError> {
        for column in self.columns.maybe_labels.iter().take(MOST_LOOKED_AT) {
            let mut labels = Labels::default();
            // a column of long texts is none
            let is_read = self.read_labels(column, ROWS_LOOKED_AT, &mut labels).is_ok();
            if sounds_like_label(&column.name) || is_read && labels.are_like_classes() {
                let what = format!("column `{}` ({})", column.name, column.type_name);
                let reason =
                    "may be that of the labels; choose it with data.label_column, or set data.class_from = \"none\"";
                account.leave_out(Weight::Doubt, what.clone(), reason, what);
            }
        }
        Ok(())
    }

    /// Visits rows of this table; `start` is the index of its first row.
    fn visit(&self, mut start: usize, mut indices: &[usize], visit: &mut Visitor<'_>) -> Result<(), DataError> {
        let reader = open(&self.path)?;
        let leaf = self.columns.image.leaf;
        for number in 0..reader.num_row_groups() {
            let end = start + usize::try_from(reader.metadata().row_group(number).num_rows()).unwrap_or(0);
            let (inside, rest) = indices.split_at(indices.partition_point(|index| *index < end));
            if !inside.is_empty() {
                let column = self.column(&reader, number, leaf)?;
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

/// Reads some rows of a column of labels, and notes whether it has numbers that are not whole.
fn next_labels(
    column: &mut ColumnReader,
    depth: i16,
    is_unsigned: bool,
    has_fractions: &Cell<bool>,
) -> Result<Vec<Option<Value>>, ParquetError> {
    // of a longer text, which is refused, one byte too many is copied
    let text = |bytes: ByteArray| {
        let start = &bytes.data()[..bytes.data().len().min(LONGEST_LABEL + 1)];
        Value::Text(String::from_utf8_lossy(start).into_owned())
    };
    let float = |number: f64| {
        if number.is_nan() {
            return None;
        }
        let whole = whole_of_float(number);
        has_fractions.set(has_fractions.get() || whole.is_none());
        whole.map(Value::Number)
    };
    let flatten = |rows: Vec<Option<Option<Value>>>| rows.into_iter().map(Option::flatten).collect();
    match column {
        ColumnReader::Int64ColumnReader(reader) => next_rows(reader, depth, LABEL_ROWS, |number| match number {
            // numbers beyond are no labels, but may be names
            number if is_unsigned && number < 0 => Value::Text((number as u64).to_string()),
            number => Value::Number(number),
        }),
        ColumnReader::Int32ColumnReader(reader) => next_rows(reader, depth, LABEL_ROWS, |number| {
            Value::Number(if is_unsigned { (number as u32).into() } else { number.into() })
        }),
        ColumnReader::BoolColumnReader(reader) => {
            next_rows(reader, depth, LABEL_ROWS, |flag| Value::Text(flag.to_string()))
        }
        ColumnReader::FloatColumnReader(reader) => {
            next_rows(reader, depth, LABEL_ROWS, |number| float(number.into())).map(flatten)
        }
        ColumnReader::DoubleColumnReader(reader) => next_rows(reader, depth, LABEL_ROWS, float).map(flatten),
        ColumnReader::ByteArrayColumnReader(reader) => next_rows(reader, depth, LABEL_ROWS, text),
        _ => Ok(Vec::new()),
    }
}

/// Pictures that are rows of tables.
struct Rows<'a> {
    tables: &'a [Table],
    /// Rows of all tables.
    count: usize,
    /// The rows that are used, which ascend; `None` for all.
    kept: Option<Vec<usize>>,
}

impl Rows<'_> {
    /// The row of a picture.
    fn row(&self, index: usize) -> usize {
        self.kept.as_ref().map_or(index, |kept| kept[index])
    }
}

impl Source for Rows<'_> {
    fn len(&self) -> usize {
        self.kept.as_ref().map_or(self.count, Vec::len)
    }

    fn title(&self, index: usize) -> PathBuf {
        let mut row = self.row(index);
        for table in self.tables {
            if row < table.rows {
                return PathBuf::from(format!("{}: row {row}", table.path.display()));
            }
            row -= table.rows;
        }
        PathBuf::from(format!("row {index}"))
    }

    fn visit(&self, indices: &[usize], visit: &mut Visitor<'_>) -> Result<(), DataError> {
        let rows: Vec<usize> = indices.iter().map(|index| self.row(*index)).collect();
        let mut indices = indices.iter();
        // rows are visited in order
        let mut visit_row = |_, picture: Encoded| indices.next().map_or(Ok(()), |index| visit(*index, picture));
        let mut start = 0;
        for table in self.tables {
            let end = start + table.rows;
            let first = rows.partition_point(|row| *row < start);
            let last = rows.partition_point(|row| *row < end);
            if first < last {
                table.visit(start, &rows[first..last], &mut visit_row)?;
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
    use parquet::data_type::{BoolType, DoubleType, FloatType, Int32Type, Int64Type};
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
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

    /// Writes a column of values that are all there.
    fn write_column<T: DataType>(
        group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
        values: &[T::T],
        levels: Option<&[i16]>,
    ) {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<T>().write_batch(values, levels, None).unwrap();
        column.close().unwrap();
    }

    /// A table of six bare images of the shades 0, 1, 2, … and a column of labels of this type, which `labels` writes.
    fn labeled(label: &str, labels: impl Fn(&mut SerializedRowGroupWriter<'_, Vec<u8>>)) -> Vec<u8> {
        let schema = format!("message schema {{ required binary image; {label}; }}");
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let images: Vec<ByteArray> = (0..6).map(|shade| gray(2, 2, shade).into()).collect();
        write_column::<ByteArrayType>(&mut group, &images, None);
        labels(&mut group);
        group.close().unwrap();
        writer.into_inner().unwrap()
    }

    /// The classes of the rows by their names or numbers, and the doubts.
    fn classes(bytes: &[u8], options: &LoadOptions) -> Result<(String, String), String> {
        let folder = tempfile::tempdir().unwrap();
        let loaded = open(&write(&folder, "pets.parquet", bytes), options)?;
        let images = &loaded.images;
        let class = |index| match (images.label(index), images.class_names()) {
            (Some(label), Some(names)) => names[label as usize].clone(),
            (label, _) => label.map_or("-".to_string(), |label| label.to_string()),
        };
        let classes: Vec<String> = (0..images.len()).map(class).collect();
        let doubts: Vec<String> = loaded.account.doubts().map(LeftOut::to_string).collect();
        Ok((classes.join(" "), doubts.join("; ")))
    }

    #[test]
    fn labels_of_many_types_are_read() {
        let of = |bytes: &[u8]| classes(bytes, &LoadOptions::default()).unwrap();
        let floats = labeled("required double Label", |group| {
            write_column::<DoubleType>(group, &[0.0, 1.0, 2.0, 0.0, 1.0, 2.0], None);
        });
        assert_eq!(of(&floats), ("0 1 2 0 1 2".into(), String::new()));
        let single = labeled("required float class", |group| {
            write_column::<FloatType>(group, &[2.0, 10.0, 2.0, 10.0, 2.0, 10.0], None);
        });
        assert_eq!(of(&single), ("2 10 2 10 2 10".into(), String::new()));
        let flags = labeled("required boolean target", |group| {
            write_column::<BoolType>(group, &[true, false, true, false, true, false], None);
        });
        assert_eq!(of(&flags), ("true false true false true false".into(), String::new()));
        let bytes = labeled("required int32 category (INTEGER(8, false))", |group| {
            write_column::<Int32Type>(group, &[1, 3, 2, 1, 3, 2], None);
        });
        assert_eq!(of(&bytes), ("1 3 2 1 3 2".into(), String::new()));
        let texts = labeled("required binary label (UTF8)", |group| {
            let texts = ["dog", "cat", "dog", "cat", "dog", "dog"].map(ByteArray::from);
            write_column::<ByteArrayType>(group, &texts, None);
        });
        assert_eq!(of(&texts), ("dog cat dog cat dog dog".into(), String::new()));
    }

    #[test]
    fn labels_that_are_none_are_named_with_their_type() {
        let of = |bytes: &[u8]| classes(bytes, &LoadOptions::default()).unwrap();
        let none = "- - - - - -".to_string();
        let fractions = labeled("required double label", |group| {
            write_column::<DoubleType>(group, &[0.5, 1.0, 2.0, 0.0, 1.0, 2.0], None);
        });
        let expected = "column `label` left out: is float64 with fractions: not used as classes".to_string();
        assert_eq!(of(&fractions), (none.clone(), expected));
        let asked = LoadOptions { label_column: Some("label".into()), ..LoadOptions::default() };
        assert!(classes(&fractions, &asked).unwrap_err().contains("`label` is float64 with fractions"));
        let dates = labeled("required int32 label (DATE)", |group| {
            write_column::<Int32Type>(group, &[1, 2, 3, 1, 2, 3], None);
        });
        let expected = "column `label` of pets.parquet left out: is of the type date: not used as classes".to_string();
        assert_eq!(of(&dates), (none.clone(), expected));
        assert!(classes(&dates, &asked).unwrap_err().contains("is of the type date, which is not read as labels"));
        let breeds = labeled("required int64 breed_kind", |group| {
            write_column::<Int64Type>(group, &[1, 2, 1, 1, 2, 1], None);
        });
        let (labels, doubts) = of(&breeds);
        assert!(
            labels == none && doubts.starts_with("column `breed_kind` (int64) left out: may be that of the labels")
        );
        let quiet = LoadOptions { class_from: ClassFrom::None, ..LoadOptions::default() };
        assert_eq!(classes(&breeds, &quiet).unwrap(), (none, String::new()));
    }

    #[test]
    fn rows_without_a_label_are_counted() {
        // no value in row 1, no number in row 4
        let bytes = labeled("optional double label", |group| {
            write_column::<DoubleType>(group, &[0.0, 1.0, 2.0, f64::NAN, 1.0], Some(&[1, 0, 1, 1, 1, 1]));
        });
        let error = classes(&bytes, &LoadOptions::default()).unwrap_err();
        assert!(error.contains("pets.parquet: 2 of 6 rows have no `label` (the first: row 1)"), "{error}");
        assert!(error.contains("data.skip_unreadable"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let skip = LoadOptions { skip_unreadable: true, ..LoadOptions::default() };
        let loaded = open(&write(&folder, "pets.parquet", &bytes), &skip).unwrap();
        let shades: Vec<u8> = (0..4).map(|index| loaded.images.image(index)[0]).collect();
        assert_eq!((shades, loaded.images.labels()), (vec![0, 2, 3, 5], Some([0, 1, 2, 1].as_slice())));
        let lines = loaded.account.lines().join("; ");
        assert!(lines.contains("2 rows left out: have no `label` (data.skip_unreadable) (row 1, row 4)"), "{lines}");
    }

    #[test]
    fn columns_that_are_no_images_are_named_with_their_type() {
        let folder = tempfile::tempdir().unwrap();
        for (schema, expected) in [
            (
                "optional group pixels (LIST) { repeated group list { required int32 element (INTEGER(8, false)); } }",
                "`pixels` (list of uint8)",
            ),
            (
                "optional group images (LIST) { repeated group list { optional group element { optional binary bytes; } } }",
                "`images` (list of group of `bytes`)",
            ),
            ("optional group sample { required int64 label; }", "`sample` (group of `label`)"),
            ("required binary image (UTF8);", "`image` (text)"),
        ] {
            let schema = Arc::new(parse_message_type(&format!("message schema {{ {schema} }}")).unwrap());
            let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
            let path = write(&folder, "none.parquet", &writer.into_inner().unwrap());
            let error = open(&path, &LoadOptions::default()).unwrap_err();
            assert!(error.contains(expected) && error.contains("df.explode"), "{error}");
        }
    }

    #[test]
    fn splits_are_told_by_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, part) in [
            ("train-00000-of-00002.parquet", Some(Part::Train)),
            ("test1.parquet", Some(Part::Test)),
            ("val-1.parquet", Some(Part::Validation)),
            ("pets_test_0.parquet", Some(Part::Test)),
            ("test/0000.parquet", Some(Part::Test)),
            ("latest.parquet", None),
            ("0000.parquet", None),
        ] {
            assert_eq!(Part::of_path(&path(name)), part, "{name}");
        }
        for name in ["test1.parquet", "val-1.parquet", "pets.parquet"] {
            write(&folder, name, &pets(2));
        }
        let names = |split| {
            let files = files_in(folder.path(), split).unwrap().unwrap();
            let names: Vec<String> = files.paths.iter().map(|path| file_name(path)).collect();
            (names.join(" "), files.account.lines().join("; "))
        };
        let (train, left) = names(Split::Train);
        assert_eq!(train, "pets.parquet");
        assert_eq!(left, "2 Parquet files left out: are of other splits (test1.parquet, val-1.parquet)");
        assert_eq!(names(Split::Test).0, "test1.parquet");
        std::fs::remove_file(path("pets.parquet")).unwrap();
        assert!(names(Split::Train).1.contains("there is no split `train`: all files are trained on"));
        // as Hugging Face converts datasets
        for name in ["all/train/0000.parquet", "all/test/0000.parquet"] {
            write(&folder, name, &pets(2));
        }
        assert_eq!(files_in(&path("all"), Split::Test).unwrap().unwrap().paths, [path("all/test/0000.parquet")]);
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
