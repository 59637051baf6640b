//! The columns of a Parquet file that are read, and those that are not.

use std::collections::BTreeMap;
use std::path::Path;

use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::{ColumnDescriptor, Type};

use crate::account::{Account, Weight};
use crate::column_names::{file_rank, is_no_label, label_rank, quoted};
use crate::error::DataError;
use crate::options::{ClassFrom, LoadOptions};

/// A column that is read.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub name: String,
    /// Its index among the leaves of the schema.
    pub leaf: usize,
    /// The type of its values.
    pub type_name: String,
    /// Whether its whole numbers have no sign.
    pub is_unsigned: bool,
}

/// The columns of a file that are read.
#[derive(Debug)]
pub(crate) struct Columns {
    pub image: Column,
    pub label: Option<Column>,
    /// The names of the labels, where the file has them.
    pub class_names: Option<Vec<String>>,
    /// Columns that might be the labels, where there is none with their name.
    pub maybe_labels: Vec<Column>,
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

/// The type of a column in words: `int64`, `list of uint8`.
fn type_name(column: &Type) -> String {
    let info = column.get_basic_info();
    if column.is_group() {
        let fields = column.get_fields();
        let is_list =
            matches!(info.logical_type_ref(), Some(LogicalType::List)) || info.converted_type() == ConvertedType::LIST;
        // a list is a group of a repeated group of its element
        let element =
            fields.first().map(|repeated| repeated.is_group().then(|| repeated.get_fields().first()).flatten());
        return match element {
            Some(Some(element)) if is_list => format!("list of {}", type_name(element)),
            Some(None) if is_list => {
                fields.first().map_or_else(String::new, |field| format!("list of {}", type_name(field)))
            }
            _ => format!("group of {}", quoted(fields.iter().map(|field| field.name()))),
        };
    }
    let logical = match info.logical_type_ref() {
        Some(LogicalType::Integer(of)) => Some(format!("{}int{}", if of.is_signed { "" } else { "u" }, of.bit_width)),
        Some(LogicalType::Timestamp(_)) => Some("timestamp".to_string()),
        Some(LogicalType::Decimal(_)) => Some("decimal".to_string()),
        Some(LogicalType::String | LogicalType::Enum | LogicalType::Json) => Some("text".to_string()),
        Some(other) => Some(format!("{other:?}").split('(').next().unwrap_or_default().to_ascii_lowercase()),
        None => None,
    };
    let plain = match (column.get_physical_type(), info.converted_type()) {
        (Physical::BYTE_ARRAY, ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON) => "text",
        (Physical::BYTE_ARRAY, ConvertedType::NONE) => "bytes",
        (Physical::BOOLEAN, _) => "bool",
        (Physical::INT32, ConvertedType::NONE) => "int32",
        (Physical::INT64, ConvertedType::NONE) => "int64",
        (Physical::INT96, _) => "timestamp",
        (Physical::FLOAT, _) => "float32",
        (Physical::DOUBLE, _) => "float64",
        (Physical::FIXED_LEN_BYTE_ARRAY, ConvertedType::NONE) => "bytes of a fixed length",
        (_, converted) => {
            return logical.unwrap_or_else(|| format!("{converted:?}").to_ascii_lowercase().replace('_', ""));
        }
    };
    logical.unwrap_or_else(|| plain.to_string())
}

/// The column that a leaf of the schema belongs to.
fn name_of(leaf: &ColumnDescriptor) -> &str {
    leaf.path().parts().first().map_or("", String::as_str)
}

/// Whether a leaf has at most one value in each row, lies at the path `inner` in its column, and is of one of the types.
fn is_leaf(leaf: &ColumnDescriptor, inner: &[&str], types: &[Physical]) -> bool {
    leaf.max_rep_level() == 0 && leaf.path().parts().iter().skip(1).eq(inner) && types.contains(&leaf.physical_type())
}

/// Whether a leaf is the `bytes` of a group.
fn is_image_group(leaf: &ColumnDescriptor) -> bool {
    is_leaf(leaf, &["bytes"], &[Physical::BYTE_ARRAY])
}

/// Whether a leaf is a column of bytes that are no text.
fn is_bare_bytes(leaf: &ColumnDescriptor) -> bool {
    is_leaf(leaf, &[], &[Physical::BYTE_ARRAY]) && leaf.converted_type() != ConvertedType::UTF8
}

/// Whether a leaf has whole numbers, floats, flags or texts.
fn may_be_label(leaf: &ColumnDescriptor) -> bool {
    let types =
        [Physical::BOOLEAN, Physical::INT32, Physical::INT64, Physical::FLOAT, Physical::DOUBLE, Physical::BYTE_ARRAY];
    let is_number = matches!(leaf.logical_type_ref(), None | Some(LogicalType::Integer(_)));
    let type_name = type_name(leaf.self_type());
    let is_usual =
        is_number && ["int", "uint", "float", "bool", "bytes"].iter().any(|word| type_name.starts_with(word));
    is_leaf(leaf, &[], &types) && (is_usual || type_name == "text")
}

impl Columns {
    /// The columns that `options` name, or those with usual names and types. What was chosen and what is not used is added to
    /// `account`.
    ///
    /// # Errors
    /// [`DataError::BadOption`] where it is unclear which column is meant, or a column has a type that is not read.
    pub(crate) fn find(
        path: &Path,
        metadata: &ParquetMetaData,
        options: &LoadOptions,
        account: &mut Account,
    ) -> Result<Self, DataError> {
        let schema = Schema { path, metadata };
        let image = schema.image(options, account)?;
        let mut class_labels = class_labels(metadata);
        let label = schema.label(&image, &class_labels, options, account)?;
        let class_names = label.as_ref().and_then(|label| class_labels.remove(&label.name));
        let class_names = class_names.filter(|names| !names.is_empty());
        let is_unlabeled = label.is_none() && options.class_from == ClassFrom::Auto;
        let is_candidate = |column: &Column| {
            column.name != image.name && file_rank(&column.name).is_none() && !is_no_label(&column.name)
        };
        let mut maybe_labels = if is_unlabeled { schema.matching(&may_be_label) } else { Vec::new() };
        maybe_labels.retain(is_candidate);
        Ok(Self { image, label, class_names, maybe_labels })
    }
}

/// The columns of a file.
struct Schema<'a> {
    path: &'a Path,
    metadata: &'a ParquetMetaData,
}

impl Schema<'_> {
    fn matching(&self, is_match: &dyn Fn(&ColumnDescriptor) -> bool) -> Vec<Column> {
        let leaves = self.metadata.file_metadata().schema_descr().columns().iter().enumerate();
        let column = |(number, leaf): (usize, &std::sync::Arc<ColumnDescriptor>)| {
            let type_name = type_name(leaf.self_type());
            let is_unsigned = type_name.starts_with('u');
            Column { name: name_of(leaf).to_string(), leaf: number, type_name, is_unsigned }
        };
        leaves.filter(|(_, leaf)| is_match(leaf)).map(column).collect()
    }

    /// Names and types of all columns.
    fn types(&self) -> Vec<(&str, String)> {
        let fields = self.metadata.file_metadata().schema_descr().root_schema().get_fields();
        fields.iter().map(|field| (field.name(), type_name(field))).collect()
    }

    /// All columns and their types in words.
    fn words(&self) -> String {
        let types = self.types();
        let mut words: Vec<String> = types.iter().take(20).map(|(name, of)| format!("`{name}` ({of})")).collect();
        if types.len() > words.len() {
            words.push(format!("and {} more", types.len() - words.len()));
        }
        words.join(", ")
    }

    fn image(&self, options: &LoadOptions, account: &mut Account) -> Result<Column, DataError> {
        let bad = |problem: String| DataError::bad_option("image_column", problem);
        let path = self.path.display();
        let mut images = match &options.image_column {
            Some(name) => self.matching(&|leaf| name_of(leaf) == name && (is_image_group(leaf) || is_bare_bytes(leaf))),
            None => Some(self.matching(&is_image_group))
                .filter(|groups| !groups.is_empty())
                .unwrap_or_else(|| self.matching(&is_bare_bytes)),
        };
        if images.is_empty() {
            let fault = match &options.image_column {
                Some(name) => match self.types().into_iter().find(|(column, _)| column == name) {
                    Some((_, of)) => format!("{path}: the column `{name}` is of the type {of}"),
                    None => {
                        format!("{path} has no column of images called `{name}`; its columns are: {}", self.words())
                    }
                },
                None => format!("{path}: none of its columns holds image files: {}", self.words()),
            };
            let advice = "a column of images has one image file in each row, as bytes or a group of `bytes` and `path`; take \
                          lists apart with df.explode in Python, and save arrays of numbers as .npz";
            return Err(bad(format!("{fault}; {advice}")));
        }
        images.sort_by_key(|column| file_rank(&column.name).unwrap_or(usize::MAX));
        let unclear = || quoted(images.iter().map(|column| column.name.as_str()));
        if images.len() > 1 && file_rank(&images[0].name).is_none() {
            return Err(bad(format!("{path} has several columns of images; choose one of: {}", unclear())));
        }
        if images.len() > 1 {
            let taken = &images[0].name;
            account.decided(format!("the pictures are the column `{taken}`, one of {}", unclear()));
        }
        Ok(images.swap_remove(0))
    }

    fn label(
        &self,
        image: &Column,
        class_labels: &BTreeMap<String, Vec<String>>,
        options: &LoadOptions,
        account: &mut Account,
    ) -> Result<Option<Column>, DataError> {
        let bad = |problem: String| Err(DataError::bad_option("label_column", problem));
        let path = self.path.display();
        if options.class_from != ClassFrom::Auto {
            return Ok(None);
        }
        let mut usable = self.matching(&may_be_label);
        usable.retain(|column| column.name != image.name);
        if let Some(asked) = &options.label_column {
            if let Some(label) = usable.into_iter().find(|column| column.name == *asked) {
                return Ok(Some(label));
            }
            return match self.types().into_iter().find(|(name, _)| name == asked) {
                Some((_, of)) => {
                    bad(format!("{path}: the column `{asked}` is of the type {of}, which is not read as labels"))
                }
                None => {
                    bad(format!("{path} has no column of labels called `{asked}`; its columns are: {}", self.words()))
                }
            };
        }
        let mut named = usable.clone();
        named.retain(|column| label_rank(&column.name).is_some());
        named.sort_by_key(|column| label_rank(&column.name));
        let is_exact = |column: &Column| matches!(column.name.as_str(), "label" | "labels");
        let known = || usable.iter().filter(|column| class_labels.contains_key(&column.name)).cloned();
        let known: Vec<Column> = if named.first().is_some_and(is_exact) { Vec::new() } else { known().collect() };
        if known.len() > 1 {
            let names = quoted(known.iter().map(|column| column.name.as_str()));
            return bad(format!("{path} has several columns of labels; choose one of: {names}"));
        }
        let label = known.first().or(named.first()).cloned();
        self.leave_out_columns(image, label.as_ref(), account);
        Ok(label)
    }

    /// Adds the columns that are not read to the account.
    fn leave_out_columns(&self, image: &Column, label: Option<&Column>, account: &mut Account) {
        let path = self.path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(label) = label {
            account.decided(format!("labels are the column `{}` of {path}", label.name));
        }
        for (name, of) in self.types() {
            if name == image.name || label.is_some_and(|label| label.name == name) {
                continue;
            }
            if label_rank(name).is_some() && label.is_none() {
                let what = format!("column `{name}` of {path}");
                let reason = format!("is of the type {of}: not used as classes");
                account.leave_out(Weight::Doubt, what.clone(), reason, what);
            } else {
                let reason = "are neither the pictures nor the labels";
                account.leave_out(Weight::Note, format!("columns of {path}"), reason, name);
            }
        }
    }
}
