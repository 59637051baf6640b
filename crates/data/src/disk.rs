//! Files and folders of the disk, with errors that name them.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use files::Action;

use crate::error::DataError;

/// Opens a file for reading; gives its length too.
pub(crate) fn open(path: &Path) -> Result<(File, u64), DataError> {
    let failed = |error| DataError::io(Action::Read, path, error);
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    Ok((file, length))
}

/// Reads a file of at most `most` bytes.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, DataError> {
    let failed = |error| DataError::io(Action::Read, path, error);
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > most {
        return Err(DataError::bad_file(path, format!("has {length} bytes, more than the limit of {most}")));
    }
    fs::read(path).map_err(failed)
}

/// The first bytes of a file, at most `most`; none where it cannot be read, or is a device or a pipe.
pub(crate) fn first_bytes(path: &Path, most: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(most);
    if path.is_file()
        && let Ok(file) = File::open(path)
    {
        let _ = file.take(most as u64).read_to_end(&mut bytes);
    }
    bytes
}

/// The paths in a folder, in no order.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    entries.map_err(|error| DataError::io(Action::List, folder, error))
}

/// The last part of a path, for keys of the cache and messages.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
