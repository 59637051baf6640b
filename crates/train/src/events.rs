//! TensorBoard's event files: records of protocol buffers with lengths and checksums (TensorFlow's `record_writer.h`
//! and `event.proto`).

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use files::{Action, FileError};

/// An event file that is appended to; each process of a run writes its own.
#[derive(Debug)]
pub(crate) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Creates a file in `folder`.
    pub(crate) fn create(folder: &Path) -> Result<Self, FileError> {
        files::create_folder(folder)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("events.out.tfevents.{}.{}.{}", now.as_secs(), std::process::id(), now.subsec_nanos());
        let path = folder.join(name);
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        let file = opened.map_err(|source| FileError::new(Action::Write, &path, source))?;
        let mut events = Self { path, file };
        let mut first = time_field();
        length_delimited(&mut first, 3, b"brain.Event:2");
        events.write(&first)?;
        Ok(events)
    }

    /// Scalars of a step.
    pub(crate) fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<(), FileError> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = Vec::new();
            length_delimited(&mut entry, 1, tag.as_bytes());
            entry.push(2 << 3 | 5);
            entry.extend((*value as f32).to_le_bytes());
            length_delimited(&mut summary, 1, &entry);
        }
        let mut event = time_field();
        event.push(2 << 3);
        variable_length(&mut event, step);
        length_delimited(&mut event, 5, &summary);
        self.write(&event)
    }

    fn write(&mut self, event: &[u8]) -> Result<(), FileError> {
        let wrote = write_record(&mut self.file, event);
        wrote.map_err(|source| FileError::new(Action::Write, &self.path, source))
    }
}

/// Length, its checksum, the data, its checksum.
fn write_record(out: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    let record =
        [&length[..], &masked_checksum(&length).to_le_bytes(), data, &masked_checksum(data).to_le_bytes()].concat();
    out.write_all(&record)
}

/// Masked CRC-32C, as TFRecord files have it.
fn masked_checksum(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Field 1 of an event: seconds since 1970, as a double.
fn time_field() -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    [&[1 << 3 | 1][..], &now.to_le_bytes()].concat()
}

fn length_delimited(out: &mut Vec<u8>, field: u8, data: &[u8]) {
    out.push(field << 3 | 2);
    variable_length(out, data.len() as u64);
    out.extend(data);
}

fn variable_length(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_that_of_tensorflow() {
        // tf.io.TFRecordWriter writing b"abc"
        let mut record = Vec::new();
        write_record(&mut record, b"abc").unwrap();
        assert_eq!(record[..8], 3u64.to_le_bytes());
        assert_eq!(record[12..15], *b"abc");
        assert_eq!(record.len(), 19);
        // the check value of CRC-32C, masked as the format asks
        let plain = 0xe306_9283u32;
        assert_eq!(masked_checksum(b"123456789"), plain.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn numbers_of_variable_length() {
        for (value, expected) in [(0, &[0][..]), (127, &[127]), (128, &[0x80, 1]), (300, &[0xac, 2])] {
            let mut out = Vec::new();
            variable_length(&mut out, value);
            assert_eq!(out, expected);
        }
    }
}
