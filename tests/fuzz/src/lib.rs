//! What the targets share: bytes become a file, and the file is opened.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use data::{LoadOptions, Places};
use tempfile::TempDir;

/// Writes the bytes to a file of this name in a folder of this process, and calls `open` with its path.
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

/// Opens the bytes as a dataset in a file of this name, whose ending says what they are.
pub fn open_file(name: &str, bytes: &[u8]) {
    with_file(name, bytes, open_path);
}

/// Opens a folder that holds the bytes as a file of this name.
pub fn open_folder(name: &str, bytes: &[u8]) {
    with_file(name, bytes, |path| path.parent().map(open_path));
}

fn open_path(path: &Path) {
    drop(data::open_in(&Places::default(), &path.display().to_string(), &LoadOptions::default()));
}
