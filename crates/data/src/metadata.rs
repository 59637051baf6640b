//! Tables of the pictures of a folder or an archive, one line each, with a column of file names and mostly one of labels:
//! `metadata.csv` and `metadata.jsonl` of Hugging Face (<https://huggingface.co/docs/datasets/image_dataset>), and those that
//! other programs and people write. A table is looked at twice: which of its columns are meant, then their values.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};

use crate::account::{Account, LeftOut, Weight, weight_of_pictures};
use crate::classes::{Classes, MOST_CLASSES, Value, inner_path, too_many_classes};
use crate::column_names::{file_rank, is_no_label, is_split, label_rank, quoted, sounds_like_label};
use crate::error::DataError;
use crate::formats::is_image;
use crate::options::{ClassFrom, LoadOptions, Split};
use crate::picture_names::PictureNames;
use crate::sheet::{Cell, Sheet};
use crate::tree::Tree;

/// Bytes of a table at most.
pub(crate) const LARGEST: u64 = 1 << 30;

/// Names of tables without extension, in lower case and without separators: the first of them that can be used is taken.
const STEMS: [&str; 14] = [
    "metadata",
    "labels",
    "label",
    "annotations",
    "annotation",
    "trainlabels",
    "train",
    "training",
    "targets",
    "list",
    "testlabels",
    "test",
    "validation",
    "val",
];

/// Tables with other names that are looked at: pictures may have a table each.
const MOST_TABLES: usize = 16;

/// Bytes of a label at most.
pub(crate) const LONGEST_LABEL: usize = 256;

/// The pictures that a table lists.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// The table, relative to the root.
    pub table: PathBuf,
    /// The pictures of the split, relative to its folder.
    pub files: Vec<PathBuf>,
    /// `None` where the table has no labels.
    pub classes: Option<Classes>,
    /// Pictures that are listed and not there, relative to the root.
    pub missing: Vec<PathBuf>,
}

/// The result of looking at a table.
enum Outcome {
    Used(Listed, Account),
    /// It lists pictures, but has no labels; its columns.
    Unlabeled(Account),
    /// The reason, and whether the table may have labels.
    Unused(String, bool),
}

fn extension(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

/// The place of the name of a table among the usual ones.
fn stem_rank(path: &Path) -> Option<usize> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let plain: String = stem.chars().filter(|letter| letter.is_alphanumeric()).collect();
    STEMS.iter().position(|usual| *usual == plain)
}

/// Whether a table has the name that Hugging Face gives it: its faults are errors, its order is that of the pictures.
fn is_metadata(path: &Path) -> bool {
    stem_rank(path) == Some(0) && matches!(extension(path).as_str(), "csv" | "jsonl")
}

/// Whether a file may be a table of pictures. Texts are often captions, a file for each picture: only those with the name of a
/// table are.
pub(crate) fn may_be_table(path: &Path) -> bool {
    match extension(path).as_str() {
        "csv" | "tsv" | "jsonl" | "ndjson" => true,
        "txt" => stem_rank(path).is_some() || path.file_stem().is_some_and(|stem| stem == "list_attr_celeba"),
        _ => false,
    }
}

/// The tables in the folder of a split and in those around it, the most likely first.
fn candidates<'a>(tree: &'a Tree<'_>, part: &Path, split: Split) -> Vec<&'a Path> {
    let starts_with = |path: &Path, word: &str| stem_rank(path).is_some_and(|rank| STEMS[rank].starts_with(word));
    let is_of_test = |path: &Path| starts_with(path, "test") || starts_with(path, "val");
    let mut candidates = Vec::new();
    for folder in part.ancestors() {
        let mut inside: Vec<&Path> =
            tree.tables().map(PathBuf::as_path).filter(|path| path.parent() == Some(folder)).collect();
        inside.sort_by_key(|path| {
            let is_other = if split == Split::Train { is_of_test(path) } else { starts_with(path, "train") };
            (is_other, stem_rank(path).unwrap_or(STEMS.len()), extension(path), *path)
        });
        candidates.extend(inside);
    }
    candidates
}

/// The pictures of the split in the folder `part` that a table lists, if there is one; what was chosen and left out.
///
/// The first table with labels is taken, else a `metadata.csv` or `metadata.jsonl` without them. With another
/// `options.class_from` than [`ClassFrom::Auto`] only these two count, without labels.
///
/// # Errors
/// [`DataError::BadFile`] for a fault of a `metadata.csv` or `metadata.jsonl`, [`DataError::BadOption`] where
/// `options.label_column` is set and no table has it.
pub(crate) fn find(
    tree: &Tree<'_>,
    part: &Path,
    options: &LoadOptions,
) -> Result<(Option<Listed>, Account), DataError> {
    let candidates = candidates(tree, part, options.split);
    let names = PictureNames::new(tree, part);
    let is_auto = options.class_from == ClassFrom::Auto;
    let mut search = Search { is_auto, ..Search::default() };
    let mut left = candidates.iter().copied();
    for path in left.by_ref() {
        search.others += usize::from(stem_rank(path).is_none());
        if search.others > MOST_TABLES {
            let reason = format!("is one of more than {MOST_TABLES} tables; call that of the labels metadata.csv");
            search.unused.push((path, reason, true));
        } else if !(is_auto || is_metadata(path)) {
            let reason = "data.class_from says that the classes are not in tables".to_string();
            search.unused.push((path, reason, false));
        } else if search.take(path, look_at(tree, path, &names, part, options)?) {
            break;
        }
    }
    let has_labels = search.taken.as_ref().is_some_and(|(_, listed, _)| listed.classes.is_some());
    if let Some(column) = options.label_column.as_ref().filter(|_| is_auto && !has_labels) {
        return Err(no_label_column(tree, part, column, &search.unused));
    }
    let (listed, mut account) = search.finish(left);
    leave_out_inner_tables(tree, part, &candidates, is_auto, &mut account);
    Ok((listed, account))
}

/// Tables that were looked at.
#[derive(Default)]
struct Search<'a> {
    is_auto: bool,
    /// Tables with other names than the usual ones.
    others: usize,
    taken: Option<(&'a Path, Listed, Account)>,
    /// A `metadata.csv` without labels.
    without_labels: Option<(&'a Path, Listed, Account)>,
    /// Tables that are not used, the reasons, and whether they may have labels.
    unused: Vec<(&'a Path, String, bool)>,
    /// The columns of tables that are not used.
    columns: Account,
}

impl<'a> Search<'a> {
    /// Adds a table that was looked at; whether it is the one to take.
    fn take(&mut self, path: &'a Path, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Used(listed, account) if listed.classes.is_some() || !self.is_auto => {
                self.taken = Some((path, listed, account));
            }
            Outcome::Used(listed, account) if self.without_labels.is_none() => {
                self.without_labels = Some((path, listed, account));
            }
            Outcome::Used(..) => self.unused.push((path, "is a second table without labels".to_string(), false)),
            Outcome::Unlabeled(columns) => {
                self.columns.add(columns);
                self.unused.push((path, "has no column that is known to be that of the labels".to_string(), false));
            }
            Outcome::Unused(reason, may_have_labels) => {
                self.unused.push((path, reason, may_have_labels && self.is_auto))
            }
        }
        self.taken.is_some()
    }

    /// The table that is taken, and the account of all; `left` was not looked at.
    fn finish(self, left: impl Iterator<Item = &'a Path>) -> (Option<Listed>, Account) {
        let mut account = Account::default();
        let mut note = |path: &Path, reason: String, is_doubt: bool| {
            let weight = if is_doubt { Weight::Doubt } else { Weight::Note };
            account.leave_out(weight, path.display().to_string(), reason, path.display());
        };
        let is_taken = self.taken.is_some();
        if let Some((taken, ..)) = &self.taken {
            if let Some((other, ..)) = &self.without_labels {
                note(other, format!("{} was taken, which has labels", taken.display()), false);
            }
            // of two tables with other names it is unclear which one is meant
            let is_unclear = |other: &Path| stem_rank(taken).is_none() && other.parent() == taken.parent();
            let reason = format!("{} was taken; if this one is meant, call it metadata.csv", taken.display());
            left.for_each(|other| note(other, reason.clone(), is_unclear(other)));
        }
        for (path, reason, may_have_labels) in self.unused {
            note(path, reason, may_have_labels && !is_taken);
        }
        if !is_taken {
            account.add(self.columns);
        }
        let listed = self.taken.or(self.without_labels).map(|(_, listed, of_table)| {
            account.add(of_table);
            listed
        });
        (listed, account)
    }
}

/// The tables that [`find`] uses or adds to the account.
pub(crate) fn known(tree: &Tree<'_>, part: &Path) -> BTreeSet<PathBuf> {
    let is_around = |path: &PathBuf| path.parent().is_some_and(|folder| part.starts_with(folder));
    tree.tables().filter(|path| path.starts_with(part) || is_around(path)).cloned().collect()
}

/// Adds the tables in sub-folders of the split to the account, which are not looked at.
fn leave_out_inner_tables(tree: &Tree<'_>, part: &Path, candidates: &[&Path], is_auto: bool, account: &mut Account) {
    let is_inner = |path: &&PathBuf| path.starts_with(part) && !candidates.contains(&path.as_path());
    for path in tree.tables().filter(is_inner) {
        let weight = if is_auto && stem_rank(path).is_some() { Weight::Doubt } else { Weight::Note };
        let reason = "are not looked at; a table stands beside the folders of the pictures, and lists all of them";
        account.leave_out(weight, "tables in sub-folders", reason, path.display());
    }
}

/// The error that no table has the column of labels that was asked for.
fn no_label_column(tree: &Tree<'_>, part: &Path, column: &str, unused: &[(&Path, String, bool)]) -> DataError {
    let tables: Vec<String> =
        unused.iter().take(5).map(|(path, reason, _)| format!("{}: {reason}", path.display())).collect();
    let problem = if tables.is_empty() {
        let folder = tree.root.join(part);
        format!(
            "there is no table to take `{column}` from; put metadata.csv or metadata.jsonl into {}",
            folder.display()
        )
    } else {
        format!("no table has labels in a column `{column}` ({})", tables.join("; "))
    };
    DataError::bad_option("label_column", format!("{problem}, or leave it out"))
}

/// Reads a table, if it is one of pictures.
fn look_at(
    tree: &Tree<'_>,
    path: &Path,
    names: &PictureNames<'_>,
    part: &Path,
    options: &LoadOptions,
) -> Result<Outcome, DataError> {
    let read = (tree.table)(path);
    let bytes = match read {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(Outcome::Unused("is gone".to_string(), true)),
        Err(error) if is_metadata(path) => return Err(error),
        Err(error) => return Ok(Outcome::Unused(error.to_string(), true)),
    };
    let table = Table { path, folder: path.parent().unwrap_or(Path::new("")), names, part, options };
    match table.look(&bytes) {
        Err(fault) if is_metadata(path) => Err(DataError::bad_file(&tree.root.join(path), fault)),
        Err(fault) => Ok(Outcome::Unused(fault, true)),
        Ok(outcome) => Ok(outcome),
    }
}

/// The values of a column, in short.
#[derive(Debug, Default)]
struct Survey {
    missing: usize,
    /// Values that name a picture, ...
    named: usize,
    /// ... with the extension of an image.
    named_with_extension: usize,
    fractions: usize,
    /// Values that are -1, 0 or 1.
    flags: usize,
    other: Option<&'static str>,
    longest: usize,
    /// Hashes of the values, a few more than classes at most.
    distinct: HashSet<u64>,
}

impl Survey {
    fn add(&mut self, cell: &Cell<'_>, hasher: &BuildHasherDefault<DefaultHasher>, is_name: impl Fn(&str) -> bool) {
        let text = match cell {
            Cell::Missing => return self.missing += 1,
            Cell::Fraction => return self.fractions += 1,
            Cell::Other(kind) => return self.other = Some(kind),
            Cell::Text(text) => text.clone(),
            Cell::Number(number) => number.to_string().into(),
        };
        self.flags += usize::from(matches!(&*text, "-1" | "0" | "1" | "0.0" | "1.0"));
        self.longest = self.longest.max(text.len());
        if self.distinct.len() <= MOST_CLASSES {
            self.distinct.insert(hasher.hash_one(&*text));
        }
        if is_name(&text) {
            self.named += 1;
            self.named_with_extension += usize::from(is_image(Path::new(&*text)));
        }
    }

    /// The reason why values are no classes.
    fn fault(&self, rows: usize) -> Option<String> {
        let distinct = self.distinct.len();
        let problem = match self.other {
            Some(kind) => format!("its values are of the type {kind}"),
            None if self.fractions > 0 => "is numbers (float64) with fractions".to_string(),
            None if self.missing == rows => "is empty".to_string(),
            None if self.longest > LONGEST_LABEL => format!("has texts of more than {LONGEST_LABEL} bytes"),
            None => too_many_classes(distinct, rows)?,
        };
        Some(format!("{problem}: not used as classes"))
    }

    /// Whether the values may well be classes: at least two, and few of them.
    fn is_like_classes(&self, rows: usize) -> bool {
        self.fault(rows).is_none() && (2..=rows / 2).contains(&self.distinct.len())
    }
}

/// Where a line of a table belongs.
enum Place {
    /// A picture of the split, relative to the root.
    Here(PathBuf),
    /// A picture of the split that is not there.
    Missing(PathBuf),
    /// A picture of another split.
    Elsewhere,
}

/// A table that is looked at.
struct Table<'a> {
    /// Relative to the root, as its folder.
    path: &'a Path,
    folder: &'a Path,
    names: &'a PictureNames<'a>,
    /// The folder of the split.
    part: &'a Path,
    options: &'a LoadOptions,
}

impl Table<'_> {
    fn look(&self, bytes: &[u8]) -> Result<Outcome, String> {
        let is_picture = |text: &str| is_image(Path::new(text)) && self.names.find(self.folder, text).is_some();
        let sheet = Sheet::open(&extension(self.path), bytes, &is_picture)?;
        let (rows, surveys) = self.survey(&sheet)?;
        let columns = || quoted(sheet.columns.iter().map(String::as_str));
        let Some(file) = self.file_column(&sheet, rows, &surveys) else {
            let known = sheet.columns.iter().any(|name| file_rank(name).is_some() || label_rank(name).is_some());
            let reason = format!("no column `file_name` that names the pictures; it has {}", columns());
            let may_have_labels = sheet.columns.len() > 1 && (known || stem_rank(self.path).is_some());
            return Ok(Outcome::Unused(reason, may_have_labels));
        };
        if rows == 0 {
            return Err("lists no image".to_string());
        }
        let mut account = Account::default();
        if surveys[file].named == 0 && self.folder != self.part {
            return Ok(Outcome::Unused("lists no picture of this split".to_string(), false));
        }
        let label = match self.label_column(&sheet, rows, &surveys, file, &mut account) {
            Ok(label) => label,
            Err(reason) => return Ok(Outcome::Unused(format!("{reason}; it has {}", columns()), true)),
        };
        if label.is_none() && self.options.class_from == ClassFrom::Auto && !is_metadata(self.path) {
            return Ok(Outcome::Unlabeled(account));
        }
        let listed = self.rows(&sheet, file, label, &mut account)?;
        if listed.files.is_empty() && listed.missing.is_empty() {
            return Ok(Outcome::Unused("lists no picture of this split".to_string(), false));
        }
        let table = self.path.display();
        let file = &sheet.columns[file];
        let labels = label.map_or("it has no labels".to_string(), |label| {
            format!("labels are its column `{}`", sheet.columns[label])
        });
        account.decided(format!("{table} lists the pictures in its column `{file}`; {labels}"));
        Ok(Outcome::Used(listed, account))
    }

    fn survey(&self, sheet: &Sheet<'_>) -> Result<(usize, Vec<Survey>), String> {
        let mut surveys: Vec<Survey> = sheet.columns.iter().map(|_| Survey::default()).collect();
        let (mut rows, hasher) = (0, BuildHasherDefault::default());
        sheet.visit(&mut |_, cells| {
            rows += 1;
            for (survey, cell) in surveys.iter_mut().zip(cells) {
                survey.add(cell, &hasher, |text| self.names.find(self.folder, text).is_some());
            }
            Ok(())
        })?;
        Ok((rows, surveys))
    }

    /// The column of file names: one with a usual name whose values name pictures, or any whose values do, with extension.
    fn file_column(&self, sheet: &Sheet<'_>, rows: usize, surveys: &[Survey]) -> Option<usize> {
        let rank = |at: usize| {
            let (survey, rank) = (&surveys[at], file_rank(&sheet.columns[at]));
            let is_sure = survey.named_with_extension > 0 && survey.named_with_extension * 2 >= rows;
            (is_sure || rank.is_some() && survey.named > 0).then_some((!is_sure, rank.unwrap_or(usize::MAX), at))
        };
        let best = (0..surveys.len()).filter_map(rank).min().map(|(.., at)| at);
        // of a table of Hugging Face all pictures may be missing
        best.or_else(|| sheet.columns.iter().position(|name| name == "file_name").filter(|_| is_metadata(self.path)))
    }

    /// The column of labels. Columns that are not used are added to the account.
    ///
    /// # Errors
    /// The column that was asked for does not exist or has no classes.
    fn label_column(
        &self,
        sheet: &Sheet<'_>,
        rows: usize,
        surveys: &[Survey],
        file: usize,
        account: &mut Account,
    ) -> Result<Option<usize>, String> {
        if self.options.class_from != ClassFrom::Auto {
            return Ok(None);
        }
        let others: Vec<usize> = (0..surveys.len()).filter(|at| *at != file).collect();
        if let Some(asked) = &self.options.label_column {
            let is_asked = |at: &usize| sheet.columns[*at] == *asked;
            let is_alike = |at: &usize| sheet.columns[*at].eq_ignore_ascii_case(asked);
            let mut all = 0..surveys.len();
            let found = all.clone().find(is_asked).or_else(|| all.find(is_alike));
            let label = found.ok_or_else(|| format!("no column `{asked}`"))?;
            return surveys[label].fault(rows).map_or(Ok(Some(label)), |fault| Err(format!("`{asked}` {fault}")));
        }
        let mut named: Vec<usize> =
            others.iter().copied().filter(|at| label_rank(&sheet.columns[*at]).is_some()).collect();
        named.sort_by_key(|at| label_rank(&sheet.columns[*at]));
        // the second of two columns of a table that is there for labels, and the second without names
        let is_second = |at: &usize| surveys[*at].is_like_classes(rows) && !is_no_label(&sheet.columns[*at]);
        let is_for_labels = !is_metadata(self.path) && others.len() == 1;
        if named.is_empty() && (is_for_labels || !sheet.has_header) {
            named.extend(others.first().copied().filter(is_second));
        }
        let label = named.iter().copied().find(|at| surveys[*at].fault(rows).is_none());
        self.leave_out_columns(sheet, rows, surveys, (&others, label), account);
        Ok(label)
    }

    /// Adds the columns other than `label` to the account.
    fn leave_out_columns(
        &self,
        sheet: &Sheet<'_>,
        rows: usize,
        surveys: &[Survey],
        (others, label): (&[usize], Option<usize>),
        account: &mut Account,
    ) {
        let table = self.path.display();
        let is_flag = |at: usize| surveys[at].flags == rows && surveys[at].distinct.len() <= 2;
        let flags = others.iter().filter(|at| is_flag(**at)).count();
        for &at in others.iter().filter(|at| Some(**at) != label) {
            let (name, survey) = (&sheet.columns[at], &surveys[at]);
            let (fault, choose) = (survey.fault(rows), "choose it with data.label_column");
            let is_named = label_rank(name).is_some();
            let (is_doubt, reason) = if is_split(name) && survey.distinct.len() > 1 {
                (true, "names several splits, and all lines are used; make a table for each".to_string())
            } else if label.is_some() {
                (false, fault.filter(|_| is_named).unwrap_or_else(|| format!("is not the column of labels; {choose}")))
            } else if let Some(fault) = fault.clone().filter(|_| is_named) {
                (true, fault)
            } else if flags > 2 && is_flag(at) {
                (true, format!("is one of several that say yes or no, which are not used as classes; {choose}"))
            } else if !is_no_label(name) && (survey.is_like_classes(rows) || sounds_like_label(name)) {
                (
                    true,
                    fault.unwrap_or_else(|| {
                        format!("may be that of the labels; {choose}, or set data.class_from = \"none\"")
                    }),
                )
            } else {
                (false, "is no column of labels".to_string())
            };
            let weight = if is_doubt { Weight::Doubt } else { Weight::Note };
            // a fault is of one column, other reasons are of several
            if is_named || is_doubt && flags <= 2 {
                account.leave_out(
                    weight,
                    format!("column `{name}` of {table}"),
                    reason,
                    format!("column `{name}` of {table}"),
                );
            } else {
                account.leave_out(weight, format!("columns of {table}"), reason, name);
            }
        }
    }

    /// Where a line belongs that calls its picture `given`.
    fn place(&self, given: &str) -> Option<Place> {
        let found = self.names.find(self.folder, given).map(Path::to_path_buf);
        if let Some(path) = found.or_else(|| self.names.other(self.folder, given)) {
            return Some(if path.starts_with(self.part) { Place::Here(path) } else { Place::Elsewhere });
        }
        let inner = inner_path(&given.replace('\\', "/"))?;
        let path = self.folder.join(&inner);
        Some(if path.starts_with(self.part) {
            Place::Missing(path)
        } else if inner.components().count() == 1 {
            Place::Missing(self.part.join(inner))
        } else {
            Place::Elsewhere
        })
    }

    /// The pictures of the split and their labels.
    fn rows(
        &self,
        sheet: &Sheet<'_>,
        file: usize,
        label: Option<usize>,
        account: &mut Account,
    ) -> Result<Listed, String> {
        let (mut places, mut values, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        let (mut elsewhere, mut unlabeled) = (0, Vec::new());
        let mut rows = 0;
        let column = label.map(|at| sheet.columns[at].as_str());
        sheet.visit(&mut |line, cells| {
            rows += 1;
            let given = match cells.get(file) {
                Some(Cell::Text(text)) => text.to_string(),
                Some(Cell::Number(number)) => number.to_string(),
                _ => return Err(format!("line {line} has no {}", sheet.columns[file])),
            };
            let inside = || format!("line {line}: {} `{given}` is not a path inside the folder", sheet.columns[file]);
            let place = self.place(&given).ok_or_else(inside)?;
            if let Place::Here(path) | Place::Missing(path) = &place
                && !seen.insert(path.clone())
            {
                return Err(format!("line {line}: `{given}` is listed a second time; each image has one line"));
            }
            elsewhere += usize::from(matches!(place, Place::Elsewhere));
            let value = label.and_then(|at| match cells.get(at) {
                Some(Cell::Text(text)) => Some(Value::Text(text.to_string())),
                Some(Cell::Number(number)) => Some(Value::Number(*number)),
                _ => None,
            });
            if label.is_some() && value.is_none() {
                unlabeled.push(format!("line {line}, `{given}`"));
                return Ok(());
            }
            places.push(place);
            values.extend(value);
            Ok(())
        })?;
        let table = self.path.display().to_string();
        if let (Some(column), Some(first)) = (column, unlabeled.first()) {
            if !self.options.skip_unreadable {
                return Err(without_labels(unlabeled.len(), rows, column, first));
            }
            account.leave_out_all(LeftOut {
                what: format!("lines of {table}"),
                reason: format!("have no `{column}` (data.skip_unreadable)"),
                count: unlabeled.len(),
                examples: unlabeled.clone(),
                weight: Weight::Note,
            });
        }
        if elsewhere > 0 {
            let reason = "are of other folders than the split".to_string();
            let what = format!("lines of {table}");
            account.leave_out_all(LeftOut {
                what,
                reason,
                count: elsewhere,
                examples: Vec::new(),
                weight: Weight::Note,
            });
        }
        self.leave_out_pictures(&seen, account);
        let classes =
            label.map(|_| Classes::by_value(self.path, values, None)).transpose().map_err(|error| match error {
                DataError::BadFile { problem, .. } => problem,
                error => error.to_string(),
            })?;
        Ok(self.listed(places, classes))
    }

    /// Adds the pictures of the split that no line lists to the account.
    fn leave_out_pictures(&self, seen: &BTreeSet<PathBuf>, account: &mut Account) {
        let missing: Vec<&Path> = self.names.of_part().filter(|path| !seen.contains(*path)).collect();
        if missing.is_empty() {
            return;
        }
        let table = self.path.display();
        account.leave_out_all(LeftOut {
            what: "pictures".to_string(),
            reason: format!("{table} does not list them; add their lines, or move the pictures or the table elsewhere"),
            count: missing.len(),
            examples: missing.iter().take(3).map(|path| path.display().to_string()).collect(),
            weight: weight_of_pictures(missing.len(), seen.len(), false),
        });
    }

    /// Keeps the lines of the split; the classes are those of all lines.
    fn listed(&self, places: Vec<Place>, classes: Option<Classes>) -> Listed {
        let all = classes.as_ref().and_then(|classes| classes.labels.as_ref());
        let (mut kept, mut missing) = (Vec::with_capacity(places.len()), Vec::new());
        for (at, place) in places.into_iter().enumerate() {
            match place {
                Place::Here(path) => kept.push((path, all.map_or(0, |labels| labels[at]))),
                Place::Missing(path) => missing.push(path),
                Place::Elsewhere => {}
            }
        }
        if !is_metadata(self.path) {
            kept.sort_by_key(|(path, _)| self.names.order(path));
        }
        let labels = all.map(|_| kept.iter().map(|(_, label)| *label).collect());
        let inner = |path: PathBuf| path.strip_prefix(self.part).map_or_else(|_| path.clone(), Path::to_path_buf);
        Listed {
            table: self.path.to_path_buf(),
            files: kept.into_iter().map(|(path, _)| inner(path)).collect(),
            classes: classes.map(|classes| Classes { labels, ..classes }),
            missing,
        }
    }
}

/// The fault of a table or file with rows without a label.
pub(crate) fn without_labels(count: usize, rows: usize, column: &str, first: &str) -> String {
    format!(
        "{count} of {rows} rows have no `{column}` (the first: {first}); fill it in, leave them out with data.skip_unreadable = \
         true, or name another column with data.label_column"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loaded::Loaded;
    use crate::testing::{gray, write};

    /// Loads a folder `pets` of the pictures `0.png` to `5.png` of these shades, with other files.
    fn load(files: &[(&str, &str)], options: &LoadOptions) -> Result<Loaded, String> {
        let root = tempfile::tempdir().unwrap();
        for shade in 0..6 {
            write(&root, &format!("pets/{shade}.png"), &gray(2, 2, shade));
        }
        for (name, text) in files {
            write(&root, &format!("pets/{name}"), text.as_bytes());
        }
        crate::folder::load("pets", &root.path().join("pets"), options).map_err(|error| error.to_string())
    }

    fn auto(name: &str, text: &str) -> Loaded {
        load(&[(name, text)], &LoadOptions::default()).unwrap_or_else(|error| panic!("{name}: {text}: {error}"))
    }

    /// The shades, and the names of the classes of the pictures.
    fn content(loaded: &Loaded) -> String {
        let images = &loaded.images;
        let names = images.class_names();
        let class = |index| match (images.label(index), names) {
            (Some(label), Some(names)) => names[label as usize].clone(),
            (label, _) => label.map_or("-".to_string(), |label| format!("#{label}")),
        };
        (0..images.len()).map(|at| format!("{} {}", images.image(at)[0], class(at))).collect::<Vec<_>>().join(", ")
    }

    fn doubts(loaded: &Loaded) -> String {
        loaded.account.doubts().map(LeftOut::to_string).collect::<Vec<_>>().join("\n")
    }

    /// A table of all six pictures: even ones are dark.
    fn table(header: &str, row: impl Fn(usize, &str) -> String) -> String {
        let rows = (0..6).map(|number| row(number, if number % 2 == 0 { "dark" } else { "light" }));
        std::iter::once(header.to_string()).chain(rows).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    }

    const DARK_AND_LIGHT: &str = "0 dark, 1 light, 2 dark, 3 light, 4 dark, 5 light";

    #[test]
    fn tables_of_many_programs_have_labels() {
        for (name, header, separator, prefix, ending) in [
            ("metadata.csv", "file_name,label", ",", "", ".png"),
            ("metadata.csv", "\u{feff}file_name;label\r", ";", "", ".png"),
            ("metadata.csv", "file_name\tlabel", "\t", "", ".png"),
            ("metadata.csv", "File_Name, Label", ", ", "", ".png"),
            ("metadata.csv", "filename,class", ",", "./", ".png"),
            ("metadata.csv", "image,category", ",", "pets/", ".png"),
            ("metadata.csv", "img;target", ";", "C:\\me\\pets\\", ".png"),
            ("metadata.csv", "", ",", "", ".png"),
            ("metadata.tsv", "path\tclass_name", "\t", "", ".png"),
            ("labels.csv", "id,breed", ",", "", ""),
            ("train.csv", "image_id,y", ",", "", ""),
            ("annotations.csv", "picture file,label", ",", "/home/me/pets/", ".png"),
            ("Some Export.csv", "File Name,Class", ",", "", ".png"),
            ("labels.txt", "", "  ", "", ".png"),
        ] {
            let text = table(header, |number, label| format!("{prefix}{number}{ending}{separator}{label}"));
            let loaded = auto(name, &text);
            assert_eq!((content(&loaded).as_str(), doubts(&loaded).as_str()), (DARK_AND_LIGHT, ""), "{name} {text}");
            assert!(loaded.account.lines()[0].starts_with(&format!("{name} lists the pictures in its column `")));
        }
        let lines = table("", |number, label| format!("{{\"image\": \"{number}.png\", \"Class\": \"{label}\"}}"));
        assert_eq!(content(&auto("all.jsonl", &lines)), DARK_AND_LIGHT);
    }

    #[test]
    fn the_order_is_that_of_a_metadata_csv_only() {
        let text = "file_name,label\n5.png,b\n4.png,a\n3.png,b\n2.png,b\n1.png,a\n0.png,a";
        assert_eq!(content(&auto("metadata.csv", text)), "5 b, 4 a, 3 b, 2 b, 1 a, 0 a");
        assert_eq!(content(&auto("labels.csv", text)), "0 a, 1 a, 2 b, 3 b, 4 a, 5 b");
    }

    #[test]
    fn numbers_are_labels_in_every_form() {
        for text in [
            table("file_name,label", |number, _| format!("{number}.png,{}.0", 2 + 8 * (number % 2))),
            table("file_name,label", |number, _| format!("{number}.png,{}", 2 + 8 * (number % 2))),
        ] {
            let loaded = auto("metadata.csv", &text);
            assert_eq!(content(&loaded), "0 2, 1 10, 2 2, 3 10, 4 2, 5 10");
            assert!(
                loaded
                    .account
                    .lines()
                    .contains(&"labels of 2 numbers from 2 to 10 became the classes `2`, `10`".into())
            );
        }
        let lines = table("", |number, _| format!("{{\"file_name\": \"{number}.png\", \"label\": {}.0}}", number % 2));
        assert_eq!(content(&auto("metadata.jsonl", &lines)), "0 #0, 1 #1, 2 #0, 3 #1, 4 #0, 5 #1");
    }

    #[test]
    fn what_cannot_be_labels_is_named() {
        for (text, expected) in [
            (
                table("file_name,label", |number, _| format!("{number}.png,0.{number}5")),
                "column `label` of metadata.csv left out: is numbers (float64) with fractions: not used as classes",
            ),
            (
                table("file_name,breed", |number, label| format!("{number}.png,{label}")),
                "column `breed` of metadata.csv left out: may be that of the labels; choose it with data.label_column",
            ),
            (
                table("file_name,Bald,Smiling,Young", |number, _| format!("{number}.png,-1,{},1", number % 2)),
                "3 columns of metadata.csv left out: is one of several that say yes or no, which are not used as classes; \
                 choose it with data.label_column (Bald, Smiling, Young)",
            ),
            (
                table("file_name,label,split", |number, label| format!("{number}.png,{label},{label}")),
                "column `split` of metadata.csv left out: names several splits",
            ),
        ] {
            let loaded = auto("metadata.csv", &text);
            assert!(doubts(&loaded).contains(expected), "{}", doubts(&loaded));
            assert_eq!(loaded.images.len(), 6);
            let none = LoadOptions { class_from: ClassFrom::None, ..LoadOptions::default() };
            assert_eq!(doubts(&load(&[("metadata.csv", &text)], &none).unwrap()), "");
        }
        let lines = table("", |number, _| format!("{{\"file_name\": \"{number}.png\", \"label\": [1]}}"));
        let loaded = auto("metadata.jsonl", &lines);
        assert!(
            doubts(&loaded).contains("its values are of the type list: not used as classes"),
            "{}",
            doubts(&loaded)
        );
        assert_eq!(loaded.images.labels(), None);
        // captions are no doubt
        let text = table("file_name,text", |number, label| format!("{number}.png,\"a {label} picture, {number}\""));
        let loaded = auto("metadata.csv", &text);
        assert_eq!((loaded.images.labels(), doubts(&loaded).as_str()), (None, ""));
        assert!(
            loaded.account.lines().contains(&"columns of metadata.csv left out: is no column of labels (text)".into())
        );
    }

    #[test]
    fn attributes_of_pictures_are_named() {
        let text = table("image_id,Bald,Smiling,Young", |number, _| {
            format!("{number}.png,-1,{},1", number as i32 % 2 * 2 - 1)
        });
        let loaded = auto("list_attr.csv", &text);
        assert!(
            doubts(&loaded).starts_with("3 columns of list_attr.csv left out: is one of several that say yes or no")
        );
        assert_eq!((loaded.images.len(), loaded.images.labels()), (6, None));
        let smiling = LoadOptions { label_column: Some("Young".into()), ..LoadOptions::default() };
        assert_eq!(content(&load(&[("list_attr.csv", &text)], &smiling).unwrap()), "0 1, 1 1, 2 1, 3 1, 4 1, 5 1");
    }

    #[test]
    fn tables_in_sub_folders_are_named() {
        let labels = table("file,label", |number, label| format!("{number}.png,{label}"));
        let loaded = auto("notes/labels.csv", &labels);
        assert!(
            doubts(&loaded).starts_with("tables in sub-folders left out: are not looked at"),
            "{}",
            doubts(&loaded)
        );
        assert_eq!(doubts(&auto("notes/all.csv", &labels)), "");
    }

    #[test]
    fn tables_that_are_not_used_are_named() {
        let other = table("name2,label", |number, label| format!("pet {number},{label}"));
        for (name, expected) in [
            (
                "metadata.csv",
                "metadata.csv left out: no column `file_name` that names the pictures; it has `name2`, `label`",
            ),
            ("other.csv", "other.csv left out: no column `file_name`"),
        ] {
            let loaded = auto(name, &other);
            assert!(doubts(&loaded).starts_with(expected), "{}", doubts(&loaded));
            assert_eq!((loaded.images.len(), loaded.images.labels()), (6, None));
        }
        // a table of something else is a note
        let loaded = auto("results.csv", "step,loss\n1,0.5\n2,0.4\n");
        assert_eq!((doubts(&loaded).as_str(), loaded.account.left_out.len()), ("", 1));
        // a broken one may have labels
        let loaded = auto("labels.csv", "file,label\n0.png,a\n1.png\n");
        assert!(doubts(&loaded).contains("labels.csv left out: CSV error"), "{}", doubts(&loaded));
        let utf16: Vec<u8> = "file_name,label\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let error = load(&[("metadata.csv", &String::from_utf8(utf16).unwrap())], &LoadOptions::default()).unwrap_err();
        assert!(
            error.contains("metadata.csv: is a text in UTF-16, which is not read here; save it as UTF-8"),
            "{error}"
        );
    }

    #[test]
    fn of_several_tables_the_likeliest_is_taken() {
        let labels = table("file,label", |number, label| format!("{number}.png,{label}"));
        let captions = table("file_name,text", |number, label| format!("{number}.png,{label} {number}"));
        let both = [("metadata.csv", captions.as_str()), ("labels.csv", &labels)];
        let loaded = load(&both, &LoadOptions::default()).unwrap();
        assert_eq!((content(&loaded).as_str(), doubts(&loaded).as_str()), (DARK_AND_LIGHT, ""));
        assert!(
            loaded.account.lines().join("\n").contains("metadata.csv left out: labels.csv was taken, which has labels")
        );

        let splits = [("test.csv", "file,label\n0.png,wrong\n"), ("train.csv", labels.as_str())];
        assert_eq!(content(&load(&splits, &LoadOptions::default()).unwrap()), DARK_AND_LIGHT);
        let unclear = [("ann.csv", labels.as_str()), ("bob.csv", &labels)];
        let loaded = load(&unclear, &LoadOptions::default()).unwrap();
        assert!(
            doubts(&loaded).contains("bob.csv left out: ann.csv was taken; if this one is meant, call it metadata.csv")
        );
    }

    #[test]
    fn the_column_of_labels_is_the_most_exact_or_the_one_asked_for() {
        let text =
            table("file_name,breed,Labels,label", |number, label| format!("{number}.png,{},x,{label}", number % 3));
        let loaded = auto("metadata.csv", &text);
        assert_eq!(content(&loaded), DARK_AND_LIGHT);
        let lines = loaded.account.lines().join("\n");
        assert!(
            lines.contains("labels are its column `label`")
                && lines.contains("column `Labels` of metadata.csv left out")
        );
        let breed = LoadOptions { label_column: Some("Breed".into()), ..LoadOptions::default() };
        let loaded = load(&[("metadata.csv", &text)], &breed).unwrap();
        assert_eq!(content(&loaded), "0 #0, 1 #1, 2 #2, 3 #0, 4 #1, 5 #2");
        let color = LoadOptions { label_column: Some("color".into()), ..LoadOptions::default() };
        let error = load(&[("metadata.csv", &text)], &color).unwrap_err();
        assert!(
            error.contains(
                "data.label_column: no table has labels in a column `color` (metadata.csv: no column `color`"
            )
        );
        assert!(error.contains("it has `file_name`, `breed`, `Labels`, `label`"), "{error}");
        let error = load(&[], &color).unwrap_err();
        assert!(
            error.contains("there is no table to take `color` from; put metadata.csv or metadata.jsonl"),
            "{error}"
        );
    }

    #[test]
    fn pictures_that_a_table_lacks_are_named() {
        let loaded = auto("metadata.csv", "file_name,label\n0.png,a\n1.png,b\n2.png,a\n3.png,b\n");
        assert_eq!(content(&loaded), "0 a, 1 b, 2 a, 3 b");
        let expected = "2 pictures left out: metadata.csv does not list them; add their lines, or move the pictures or the \
                        table elsewhere (4.png, 5.png)";
        assert_eq!(doubts(&loaded), expected);
    }

    #[test]
    fn lines_without_a_label_are_counted() {
        let text = "file_name,label\n0.png,a\n1.png,\n2.png,b\n3.png,NaN\n4.png,b\n5.png,a\n";
        let error = load(&[("metadata.csv", text)], &LoadOptions::default()).unwrap_err();
        assert!(error.contains("metadata.csv: 2 of 6 rows have no `label` (the first: line 3, `1.png`)"), "{error}");
        assert!(error.contains("data.skip_unreadable = true"), "{error}");
        let skip = LoadOptions { skip_unreadable: true, ..LoadOptions::default() };
        let loaded = load(&[("metadata.csv", text)], &skip).unwrap();
        assert_eq!(content(&loaded), "0 a, 2 b, 4 b, 5 a");
        let lines = loaded.account.lines().join("\n");
        assert!(lines.contains("2 lines of metadata.csv left out: have no `label`"), "{lines}");
    }

    #[test]
    fn tables_around_a_split_are_read_for_it() {
        let root = tempfile::tempdir().unwrap();
        for (name, shade) in [("train/a.png", 1), ("train/deep/b.png", 2), ("test/c.png", 3)] {
            write(&root, name, &gray(2, 2, shade));
        }
        let load = |split| {
            let options = LoadOptions { split, ..LoadOptions::default() };
            crate::folder::load("pets", root.path(), &options).unwrap()
        };
        write(&root, "metadata.csv", b"file_name,label\ntest/c.png,b\ntrain/deep/b.png,c\ntrain/a.png,a\n");
        assert_eq!((content(&load(Split::Train)), content(&load(Split::Test))), ("2 c, 1 a".into(), "3 b".into()));
        assert_eq!(load(Split::Test).images.class_names().unwrap().len(), 3);
        std::fs::remove_file(root.path().join("metadata.csv")).unwrap();
        // as Kaggle has them: a table for each split, without folders and extensions
        write(&root, "train.csv", b"id,label\nb,x\na,y\n");
        write(&root, "test.csv", b"id,label\nc,z\n");
        assert_eq!((content(&load(Split::Train)), content(&load(Split::Test))), ("1 y, 2 x".into(), "3 z".into()));
    }

    #[test]
    fn faults_are_reported_with_their_line() {
        for (name, text, expected) in [
            ("metadata.csv", "file_name,label\n1.png,a\n2.png\n", "2 fields"),
            ("metadata.csv", "file_name\n1.png\n1.png\n", "line 3: `1.png` is listed a second time"),
            ("metadata.csv", "file_name\n../1.png\n", "line 2"),
            ("metadata.csv", "file_name\n", "lists no image"),
            ("metadata.csv", "file_name,label\n1.png,0\n2.png,-3\n", "label 1 is -3, expected 0 or more"),
            ("metadata.jsonl", "{\"file_name\": \"1.png\"}\n{", "line 2 is not a JSON object"),
            ("metadata.jsonl", "{\"file_name\": \"1.png\"}\n{\"label\": 1}", "line 2 has no file_name"),
        ] {
            let error = load(&[(name, text)], &LoadOptions::default()).unwrap_err();
            assert!(error.contains(name) && error.contains(expected), "{error}");
        }
    }
}
