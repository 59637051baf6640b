//! Writing a file whole or not at all.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::PictureError;

/// Writes `bytes` to `path`: first to a temporary file in the same folder, which is then renamed. A reader sees the old
/// file or the new one, never a part; after an error no temporary file is left.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), PictureError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    try_write(&folder, path, bytes).map_err(|source| {
        let advice = advice(&folder, path, &source);
        PictureError::Write { path: path.to_path_buf(), advice, source }
    })
}

fn try_write(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".picture-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What `File::create` would ask for, less the umask; a temporary file alone would stay private.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder).map_err(without_path)?;
    file.as_file_mut().write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|refused| refused.error)?;
    Ok(())
}

/// The reason alone: tempfile wraps it to add the temporary file's path, which says nothing here.
fn without_path(error: io::Error) -> io::Error {
    if error.get_ref().is_some() { io::Error::from(error.kind()) } else { error }
}

fn advice(folder: &Path, path: &Path, error: &io::Error) -> String {
    let shown = folder.display();
    if path.is_dir() {
        return "this is a folder; name a file".to_owned();
    }
    match error.kind() {
        io::ErrorKind::NotFound => format!("create the folder {shown} first or choose another"),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            format!("{shown} is not a folder; choose another")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            format!("make the folder {shown} writable or choose another")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("free some space on the disk of {shown} or choose another folder")
        }
        _ => format!("check the folder {shown} and the file's name, or choose another"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_a_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.png");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["picture.png"]);
    }

    #[cfg(unix)]
    #[test]
    fn the_file_has_ordinary_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let ordinary = folder.path().join("ordinary");
        std::fs::write(&ordinary, b"").unwrap();
        let path = folder.path().join("ours");
        write_atomic(&path, b"").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&ordinary));
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("picture.png");
        let message = write_atomic(&path, b"x").unwrap_err().to_string();
        assert!(message.contains(&path.display().to_string()), "{message}");
        assert!(message.contains("create the folder"), "{message}");
        assert!(!message.contains(".picture-"), "{message}");
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn no_temporary_file_is_left_after_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        std::fs::create_dir(&path).unwrap();
        let message = write_atomic(&path, b"x").unwrap_err().to_string();
        assert!(message.contains("this is a folder; name a file"), "{message}");
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let message = write_atomic(&file.join("picture.png"), b"x").unwrap_err().to_string();
        assert!(message.contains("file is not a folder"), "{message}");
    }
}
