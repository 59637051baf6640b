//! Files that are written whole or not at all, and errors of the operating system with advice.
//!
//! ```
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("notes.txt");
//! files::write_atomically(&path, b"all of it")?;
//! assert_eq!(std::fs::read(&path)?, b"all of it");
//!
//! let error = files::write_atomically(&folder.path().join("missing/notes.txt"), b"").unwrap_err();
//! assert!(error.to_string().contains("create the folder"), "{error}");
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod error;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

pub use error::{Action, FileError};

/// Writes a file so that a reader sees the old one or the new one, never a part, also after a loss of power: a temporary file
/// in the same folder is flushed to the disk, then renamed. After an error the old file is unchanged and there is no temporary
/// one.
///
/// # Errors
/// [`FileError`] names the file, the reason and what to do.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    try_write(&folder_of(path), path, bytes).map_err(|source| FileError::new(Action::Write, path, source))
}

/// Writes a folder of files, each with its path in it, so that the folder is whole or not there: they are written into a folder
/// beside it, which is then renamed. An empty folder may be there before.
///
/// # Errors
/// [`FileError`] names the folder, the reason and what to do.
pub fn write_folder(folder: &Path, files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>) -> Result<(), FileError> {
    try_write_folder(folder, files).map_err(|source| FileError::new(Action::Write, folder, without_path(source)))
}

/// Checks, before long work, that a file can be written to this path, whose folder need not exist. Leaves no file.
///
/// # Errors
/// [`FileError`] names the file, the reason and what to do.
pub fn check_writable(path: &Path) -> Result<(), FileError> {
    let folder = folder_of(path);
    let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let made = tempfile::Builder::new().prefix(".writing-").suffix(".tmp").tempfile_in(existing);
    made.map(drop).map_err(|error| FileError::new(Action::Write, path, without_path(error)))
}

/// Creates a folder and those above it; it may exist.
///
/// # Errors
/// [`FileError`] names the folder, the reason and what to do.
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(|source| FileError::new(Action::Create, path, source))
}

/// The folder of a file.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn try_write(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // those of `File::create`, from which the umask is taken; the default of a temporary file is private
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder).map_err(without_path)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|refused| refused.error)?;
    // the rename reaches the disk with the folder
    #[cfg(unix)]
    fs::File::open(folder)?.sync_all()?;
    Ok(())
}

fn try_write_folder(folder: &Path, files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>) -> io::Result<()> {
    let parent = folder_of(folder);
    fs::create_dir_all(&parent)?;
    let beside = tempfile::Builder::new().prefix(".writing-").tempdir_in(&parent)?;
    let whole = beside.path().join("whole");
    for (name, bytes) in files {
        let path = whole.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&whole))?;
        let mut file = fs::File::create(&path)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
    }
    if folder.is_dir() {
        fs::remove_dir(folder)?;
    }
    fs::rename(&whole, folder)
}

/// The error without the path of the temporary file, which tempfile adds.
fn without_path(error: io::Error) -> io::Error {
    if error.get_ref().is_some() { io::Error::from(error.kind()) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_no_other_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.png");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["picture.png"]);
    }

    #[cfg(unix)]
    #[test]
    fn the_file_has_ordinary_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let ordinary = folder.path().join("ordinary");
        fs::write(&ordinary, b"").unwrap();
        let path = folder.path().join("ours");
        write_atomically(&path, b"").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&ordinary));
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("picture.png");
        let message = write_atomically(&path, b"x").unwrap_err().to_string();
        assert!(message.contains(&path.display().to_string()), "{message}");
        assert!(message.contains("create the folder"), "{message}");
        assert!(!message.contains(".writing-"), "{message}");
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn no_temporary_file_is_left_after_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        let message = write_atomically(&path, b"x").unwrap_err().to_string();
        assert!(message.contains("this is a folder; name a file"), "{message}");
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn a_folder_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("to/be/made");
        let files = || [("a.txt", "a"), ("b/c.txt", "c")].map(|(name, text)| (PathBuf::from(name), text.into()));
        write_folder(&path, files()).unwrap();
        assert_eq!(fs::read(path.join("b/c.txt")).unwrap(), b"c");
        assert_eq!(names(&folder.path().join("to/be")), ["made"]);
        // a folder with content is kept as it is
        let message = write_folder(&path, files().map(|(name, _)| (name, b"new".to_vec()))).unwrap_err().to_string();
        assert!(message.contains(&path.display().to_string()) && !message.contains(".writing-"), "{message}");
        assert_eq!(fs::read(path.join("b/c.txt")).unwrap(), b"c");
        assert_eq!(names(&folder.path().join("to/be")), ["made"]);
        let empty = folder.path().join("empty");
        fs::create_dir(&empty).unwrap();
        write_folder(&empty, files()).unwrap();
        assert_eq!(names(&empty), ["a.txt", "b"]);
    }

    #[test]
    fn a_check_before_writing_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        check_writable(&folder.path().join("picture.png")).unwrap();
        check_writable(&folder.path().join("to/be/made/picture.png")).unwrap();
        check_writable(Path::new("picture.png")).unwrap();
        assert!(names(folder.path()).is_empty());
        fs::write(folder.path().join("file"), b"").unwrap();
        let message = check_writable(&folder.path().join("file/below/picture.png")).unwrap_err().to_string();
        assert!(message.contains("file/below is not a folder") && !message.contains(".writing-"), "{message}");
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        for message in [
            write_atomically(&file.join("picture.png"), b"x").unwrap_err().to_string(),
            create_folder(&file.join("run")).unwrap_err().to_string(),
        ] {
            assert!(message.contains("file is not a folder"), "{message}");
        }
        let message = create_folder(&file).unwrap_err().to_string();
        assert!(message.contains("it is a file; choose another folder"), "{message}");
    }
}
