//! Writes bytes to files and opens them, for all targets.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use data::{LoadOptions, Places};
use tempfile::TempDir;

/// Writes the bytes to a file `name` in a folder of this process, and calls `open` with its path.
pub fn with_file<T>(name: &str, bytes: &[u8], open: impl FnOnce(&Path) -> T) -> T {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
    let path: PathBuf = folder.path().join(name);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).expect("a folder");
    }
    std::fs::write(&path, bytes).expect("written");
    open(&path)
}

/// Opens the bytes as a dataset in a file `name`, whose ending is its format.
pub fn open_file(name: &str, bytes: &[u8]) {
    with_file(name, bytes, open_path);
}

/// Opens the folder of a file `name` with these bytes as a dataset.
pub fn open_folder(name: &str, bytes: &[u8]) {
    with_file(name, bytes, |path| path.parent().map(open_path));
}

fn open_path(path: &Path) {
    drop(data::open_in(&Places::default(), &path.display().to_string(), &LoadOptions::default()));
}
