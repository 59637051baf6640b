//! The cells of a table of text: values that are separated by commas, semicolons or tabs (in `.txt` also by spaces), or JSON
//! lines.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::classes::whole_number;

/// Columns at most.
const MOST_COLUMNS: usize = 1 << 12;

/// A value of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    Missing,
    Text(Cow<'a, str>),
    Number(i64),
    /// A number that is not whole.
    Fraction,
    /// A value of this type, as a list.
    Other(&'static str),
}

/// Takes a line number, from 1, and the cells of the line, as many as there are columns.
type Visitor<'a> = dyn FnMut(u64, &[Cell<'_>]) -> Result<(), String> + 'a;

/// A table, of which the columns are known.
#[derive(Debug)]
pub(crate) struct Sheet<'a> {
    text: Cow<'a, str>,
    /// The separator of values; `None` for JSON lines.
    separator: Option<u8>,
    pub has_header: bool,
    pub columns: Vec<String>,
}

impl<'a> Sheet<'a> {
    /// Looks at a table with the extension `extension` (lower case). Its first line is no header where `is_picture` says so of
    /// the first value; the columns are then called `column 1`, `column 2`, ….
    ///
    /// # Errors
    /// The fault, and the line.
    pub(crate) fn open(extension: &str, bytes: &'a [u8], is_picture: &dyn Fn(&str) -> bool) -> Result<Self, String> {
        let text = utf8(bytes)?;
        if matches!(extension, "jsonl" | "ndjson") {
            return Self::of_json_lines(text);
        }
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let separator = separator(first, extension);
        let text = match separator {
            // a table in columns has several spaces between them
            b' ' => Cow::Owned(single_spaces(text)),
            // crate csv numbers the lines of Windows wrongly
            _ if text.contains("\r\n") => Cow::Owned(text.replace("\r\n", "\n")),
            _ => Cow::Borrowed(text),
        };
        let mut sheet = Self { text, separator: Some(separator), has_header: true, columns: Vec::new() };
        let first = sheet.reader(false).records().next().transpose().map_err(|error| error.to_string())?;
        let first = first.unwrap_or_default();
        sheet.has_header = !first.get(0).is_some_and(is_picture);
        let name = |(number, name): (usize, &str)| {
            if sheet.has_header { name.to_string() } else { format!("column {}", number + 1) }
        };
        sheet.columns = first.iter().enumerate().map(name).collect();
        if sheet.columns.len() > MOST_COLUMNS {
            return Err(format!("has {} columns, more than {MOST_COLUMNS}", sheet.columns.len()));
        }
        Ok(sheet)
    }

    fn of_json_lines(text: &'a str) -> Result<Self, String> {
        let mut columns = BTreeSet::new();
        for (line, text) in lines(text) {
            columns.extend(object(line, text)?.into_iter().map(|(name, _)| name));
            if columns.len() > MOST_COLUMNS {
                return Err(format!("line {line}: has more than {MOST_COLUMNS} columns"));
            }
        }
        Ok(Self { text: text.into(), separator: None, has_header: true, columns: columns.into_iter().collect() })
    }

    fn reader(&self, has_header: bool) -> csv::Reader<&[u8]> {
        csv::ReaderBuilder::new()
            .delimiter(self.separator.unwrap_or(b','))
            .has_headers(has_header)
            .trim(csv::Trim::All)
            .from_reader(self.text.as_bytes())
    }

    /// Passes all lines to `visit`, without the header.
    ///
    /// # Errors
    /// The fault, and the line; the error of `visit`.
    pub(crate) fn visit(&self, visit: &mut Visitor<'_>) -> Result<(), String> {
        if self.separator.is_none() {
            return self.visit_json_lines(visit);
        }
        let mut reader = self.reader(self.has_header);
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(|error| error.to_string())? {
            let line = record.position().map_or(0, csv::Position::line);
            let cells: Vec<Cell<'_>> = record.iter().map(cell_of_text).collect();
            visit(line, &cells)?;
        }
        Ok(())
    }

    fn visit_json_lines(&self, visit: &mut Visitor<'_>) -> Result<(), String> {
        for (line, text) in lines(&self.text) {
            let mut fields = object(line, text)?;
            let cells: Vec<Cell<'_>> =
                self.columns.iter().map(|column| fields.remove(column).map_or(Cell::Missing, cell_of_json)).collect();
            visit(line, &cells)?;
        }
        Ok(())
    }
}

/// The text of a table, without a byte order mark.
fn utf8(bytes: &[u8]) -> Result<&str, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let save = "save it as UTF-8 (in Excel: \"CSV UTF-8\")";
    if bytes.starts_with(b"\xff\xfe")
        || bytes.starts_with(b"\xfe\xff")
        || bytes.get(..4).is_some_and(|four| four.contains(&0))
    {
        return Err(format!("is a text in UTF-16, which is not read here; {save}"));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        format!("line {line} is no UTF-8 text; {save}")
    })
}

/// The separator that the first line has most of, a comma where it has none; quoted ones do not count.
fn separator(first: &str, extension: &str) -> u8 {
    let count = |separator: u8| {
        let mut is_quoted = false;
        let is_one = |byte: &u8| {
            is_quoted ^= *byte == b'"';
            *byte == separator && !is_quoted
        };
        first.trim().as_bytes().iter().copied().filter(is_one).count()
    };
    let usual = if extension == "tsv" { [b'\t', b',', b';'] } else { [b',', b';', b'\t'] };
    // of equal numbers the first
    match usual.into_iter().rev().max_by_key(|separator| count(*separator)).filter(|most| count(*most) > 0) {
        Some(most) => most,
        None if extension == "txt" => b' ',
        None => b',',
    }
}

fn single_spaces(text: &str) -> String {
    let mut single = String::with_capacity(text.len());
    for line in text.lines() {
        for (number, word) in line.split_whitespace().enumerate() {
            single.push_str(if number > 0 { " " } else { "" });
            single.push_str(word);
        }
        single.push('\n');
    }
    single
}

/// The lines that are not blank, and their numbers.
fn lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    (1..).zip(text.split('\n')).filter(|(_, line)| !line.trim().is_empty())
}

fn object(line: u64, text: &str) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("line {line} is not a JSON object: {error}"))
}

fn cell_of_text(text: &str) -> Cell<'_> {
    match text {
        "" | "nan" | "NaN" | "null" | "NULL" => Cell::Missing,
        text => match (whole_number(text), text.parse::<f64>()) {
            (None, Ok(number)) if number.is_finite() && number.fract() != 0.0 => Cell::Fraction,
            // whole numbers stay texts, so that names of files keep their zeros
            _ => Cell::Text(text.into()),
        },
    }
}

fn cell_of_json(value: serde_json::Value) -> Cell<'static> {
    match value {
        serde_json::Value::Null => Cell::Missing,
        serde_json::Value::String(text) if text.trim().is_empty() => Cell::Missing,
        serde_json::Value::String(text) => Cell::Text(text.into()),
        serde_json::Value::Bool(flag) => Cell::Text(flag.to_string().into()),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Cell::Number(whole),
            (None, Some(number)) => whole_of_float(number).map_or(Cell::Fraction, Cell::Number),
            (None, None) => Cell::Fraction,
        },
        serde_json::Value::Array(_) => Cell::Other("list"),
        serde_json::Value::Object(_) => Cell::Other("group"),
    }
}

/// The whole number that a float is.
pub(crate) fn whole_of_float(number: f64) -> Option<i64> {
    // beyond 2^53 not every whole number is a float
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The columns and rows of a table, in short.
    fn read(extension: &str, bytes: &[u8]) -> Result<(String, Vec<String>), String> {
        let sheet = Sheet::open(extension, bytes, &|text| text.ends_with(".png"))?;
        let mut rows = Vec::new();
        sheet.visit(&mut |line, cells| {
            let cell = |cell: &Cell<'_>| match cell {
                Cell::Missing => "-".to_string(),
                Cell::Text(text) => text.to_string(),
                Cell::Number(number) => format!("#{number}"),
                Cell::Fraction => "0.5".to_string(),
                Cell::Other(kind) => format!("<{kind}>"),
            };
            rows.push(format!("{line}: {}", cells.iter().map(cell).collect::<Vec<_>>().join("|")));
            Ok(())
        })?;
        Ok((sheet.columns.join("|"), rows))
    }

    #[test]
    fn separators_are_found_by_looking() {
        let expected = || ("file|label".to_string(), vec!["2: a, b.png|1".to_string(), "3: 2.png|-".to_string()]);
        for (extension, text) in [
            ("csv", "file,label\n\"a, b.png\",1\n2.png,\n"),
            ("csv", "\u{feff}file;label\r\na, b.png; 1\r\n2.png;\r\n"),
            ("csv", "file\tlabel\na, b.png\t1\n2.png\tnan\n"),
            ("tsv", "file\tlabel\na, b.png\t1\n2.png\tnull\n"),
        ] {
            assert_eq!(read(extension, text.as_bytes()).unwrap(), expected(), "{text:?}");
        }
        let spaces = read("txt", b"a.png  -1 1\n b.png  1\t-1\n").unwrap();
        assert_eq!(spaces.0, "column 1|column 2|column 3");
        assert_eq!(read("csv", b"list\nb.png\n").unwrap(), ("list".into(), vec!["2: b.png".into()]));
        assert_eq!(read("csv", b"").unwrap(), (String::new(), Vec::new()));
    }

    #[test]
    fn a_first_line_that_names_a_picture_is_no_header() {
        let (columns, rows) = read("csv", b"1.png,cat\n2.png,dog\n").unwrap();
        assert_eq!((columns.as_str(), rows.join(" ")), ("column 1|column 2", "1: 1.png|cat 2: 2.png|dog".to_string()));
    }

    #[test]
    fn json_has_types() {
        let text = r#"{"a": 1.0, "b": true, "c": [1], "d": {}, "e": 0.25, "f": "x"}

            {"a": null, "g": 18446744073709551615}"#;
        let (columns, rows) = read("jsonl", text.as_bytes()).unwrap();
        assert_eq!(columns, "a|b|c|d|e|f|g");
        assert_eq!(rows, ["1: #1|true|<list>|<group>|0.5|x|-", "3: -|-|-|-|-|-|0.5"]);
    }

    #[test]
    fn faults_have_words_and_lines() {
        for (extension, bytes, expected) in [
            ("csv", &b"\xff\xfef\0i\0"[..], "UTF-16"),
            ("csv", b"f\0i\0l\0", "UTF-16"),
            ("csv", b"file,label\n1.png,M\xfcnchen\n", "line 2 is no UTF-8"),
            ("csv", b"a,b\n1\n", "line: 2"),
            ("jsonl", b"{}\n[]\n", "line 2 is not a JSON object"),
        ] {
            let error = read(extension, bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let wide = "a,".repeat(MOST_COLUMNS + 1);
        assert!(read("csv", wide.as_bytes()).unwrap_err().contains("more than 4096"));
    }
}
