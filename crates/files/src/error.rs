//! An error of the operating system, with advice.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// The operation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reading a file.
    Read,
    /// Listing a folder.
    List,
    /// Writing a file.
    Write,
    /// Creating a folder.
    Create,
    /// Removing a file or a folder.
    Remove,
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Action::Read => "read",
            Action::List => "list",
            Action::Write => "write",
            Action::Create => "create",
            Action::Remove => "remove",
        })
    }
}

/// An operation on a file or a folder that failed. The message says what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}; {}", path.display(), advice(*action, path, source))]
pub struct FileError {
    /// The operation.
    pub action: Action,
    /// The file or folder.
    pub path: PathBuf,
    /// The error of the operating system.
    pub source: io::Error,
}

impl FileError {
    /// An error of the operating system at this path.
    pub fn new(action: Action, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }
}

fn advice(action: Action, path: &Path, error: &io::Error) -> String {
    use io::ErrorKind;
    match action {
        Action::Read | Action::List => match error.kind() {
            ErrorKind::NotFound => "check the name".to_owned(),
            ErrorKind::PermissionDenied => "make it readable for this user".to_owned(),
            ErrorKind::IsADirectory => "this is a folder; name a file".to_owned(),
            ErrorKind::NotADirectory => {
                "a part of the path is a file where a folder should be; check the name".to_owned()
            }
            ErrorKind::OutOfMemory => "it is too large for the memory of this machine".to_owned(),
            _ => "try again, or use another copy: the disk or the file may be damaged".to_owned(),
        },
        Action::Write | Action::Create | Action::Remove => {
            let folder = crate::folder_of(path);
            let shown = folder.display();
            match error.kind() {
                _ if action == Action::Write && path.is_dir() => "this is a folder; name a file".to_owned(),
                _ if action == Action::Create && path.is_file() => "it is a file; choose another folder".to_owned(),
                ErrorKind::NotFound => format!("create the folder {shown} first or choose another"),
                ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
                    format!("{shown} is not a folder; choose another")
                }
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                    format!("make the folder {shown} writable or choose another")
                }
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    format!("free some space on the disk of {shown} or choose another folder")
                }
                _ => format!("check the folder {shown} and the name, or choose another"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_says_what_to_do() {
        use io::ErrorKind::*;
        let path = Path::new("runs/digits/state.safetensors");
        let message = |action, kind| FileError::new(action, path, io::Error::from(kind)).to_string();
        for (action, kind, advice) in [
            (Action::Read, NotFound, "check the name"),
            (Action::Read, PermissionDenied, "make it readable"),
            (Action::List, NotADirectory, "a part of the path is a file"),
            (Action::Read, InvalidData, "use another copy"),
            (Action::Write, StorageFull, "free some space on the disk of runs/digits"),
            (Action::Write, ReadOnlyFilesystem, "make the folder runs/digits writable"),
            (Action::Create, NotADirectory, "runs/digits is not a folder"),
        ] {
            let message = message(action, kind);
            assert!(message.starts_with(&format!("cannot {action} runs/digits/state.safetensors: ")), "{message}");
            assert!(message.contains(advice), "{message}");
        }
    }
}
