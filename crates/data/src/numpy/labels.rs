//! Arrays of labels: numbers, strings, and one-hot rows.

use super::{Array, Item};
use crate::account::{Account, Weight};
use crate::classes::Value;

/// Columns of one-hot rows at most.
const MOST_COLUMNS: u64 = 1 << 16;

impl Array {
    /// The reason why this is no array of `count` labels.
    pub(super) fn check_labels(&self, count: usize) -> Result<(), String> {
        let shape = &self.shape;
        if !matches!(shape[..], [_] | [_, 1..=MOST_COLUMNS]) || shape[0] != count as u64 {
            return Err(format!("has the shape {shape:?}, but there are {count} images, with a label each"));
        }
        if self.numbers.is_none() && !matches!(self.item, Item::Bytes | Item::Text) {
            return Err(format!("holds {}; labels are numbers or strings (`x.astype(str)`)", self.type_name()));
        }
        Ok(())
    }

    /// The labels in `bytes`, the values of an array that [`check_labels`](Self::check_labels) accepts; the reason where they are
    /// no classes.
    pub(super) fn labels(&self, bytes: &[u8], account: &mut Account, title: &str) -> Result<Vec<Value>, String> {
        let columns = self.shape.get(1).map_or(1, |&columns| columns as usize);
        let Some(numbers) = self.numbers else {
            if columns > 1 {
                return Err(format!("has the shape {:?}: one string for each image is expected", self.shape));
            }
            return Ok(bytes.chunks_exact(self.item_bytes).map(|item| Value::Text(self.text(item))).collect());
        };
        if columns > 1 {
            account.decided(format!("labels are the places of the ones in the one-hot rows of {title}"));
            return self.one_hot(bytes, columns);
        }
        if numbers.is_integer() {
            return Ok(bytes.chunks_exact(self.item_bytes).map(|item| Value::Number(self.integer(item))).collect());
        }
        let (mut labels, mut bad) = (Vec::new(), None);
        numbers.each(bytes, |number| {
            if number.fract() != 0.0 || number.abs() >= 1e9 || !number.is_finite() {
                bad = bad.or(Some((labels.len(), number)));
            }
            labels.push(Value::Number(number as i64));
        });
        match bad {
            Some((at, number)) => Err(format!("is {numbers}, and label {at} is {number}, no whole number")),
            None => Ok(labels),
        }
    }

    /// The places of the ones in rows that are 0 otherwise.
    fn one_hot(&self, bytes: &[u8], columns: usize) -> Result<Vec<Value>, String> {
        let count = self.shape[0] as usize;
        let mut labels: Vec<Option<i64>> = vec![None; count];
        let (mut at, mut bad) = (0, None);
        if let Some(numbers) = self.numbers {
            numbers.each(bytes, |number| {
                let (row, column) =
                    if self.column_major { (at % count, at / count) } else { (at / columns, at % columns) };
                if number == 1.0 && labels[row].is_none() {
                    labels[row] = Some(column as i64);
                } else if number != 0.0 {
                    bad = bad.or(Some(row));
                }
                at += 1;
            });
        }
        let bad = bad.or_else(|| labels.iter().position(Option::is_none));
        match bad {
            Some(row) => Err(format!("has {columns} columns, and row {row} is not one-hot (a single 1 among zeros)")),
            None => Ok(labels.into_iter().flatten().map(Value::Number).collect()),
        }
    }

    /// An integer of 1 to 8 bytes; one beyond the range of `i64` is negative.
    fn integer(&self, item: &[u8]) -> i64 {
        let mut wide = [0; 8];
        wide[..item.len()].copy_from_slice(item);
        if self.big_endian {
            wide[..item.len()].reverse();
        }
        if matches!(self.item, Item::Int) && wide[item.len() - 1] & 0x80 != 0 {
            wide[item.len()..].fill(0xff);
        }
        i64::from_le_bytes(wide)
    }

    /// A string, without the zeros that fill it up; bytes that are no UTF-8 are escaped.
    fn text(&self, item: &[u8]) -> String {
        let text: String = match self.item {
            Item::Text => {
                let code = |unit: &[u8]| {
                    let mut code = [unit[0], unit[1], unit[2], unit[3]];
                    if self.big_endian {
                        code.reverse();
                    }
                    char::from_u32(u32::from_le_bytes(code)).unwrap_or(char::REPLACEMENT_CHARACTER)
                };
                item.chunks_exact(4).map(code).collect()
            }
            _ => {
                let end = item.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                let item = &item[..end];
                std::str::from_utf8(item).map_or_else(|_| item.escape_ascii().to_string(), String::from)
            }
        };
        text.trim_end_matches('\0').to_string()
    }
}

/// Notes that an array of labels is not used.
pub(super) fn leave_out(account: &mut Account, title: &str, reason: &str) {
    let reason =
        format!("{reason}; `data.label_column` names another array, `data.class_from = \"none\"` goes without");
    account.leave_out(Weight::Doubt, format!("labels of {title}"), reason, title);
}
