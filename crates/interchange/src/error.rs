//! The errors of this crate.

use std::path::PathBuf;

/// A model that cannot be read from, or written for, another system.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InterchangeError {
    /// A file cannot be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The content of a file is not what was expected.
    #[error("{}: `{key}`: {reason}", path.display())]
    Key {
        /// The file or folder.
        path: PathBuf,
        /// The tensor or key of a configuration.
        key: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// What a model has and the other system cannot express.
    #[error("{reason}")]
    NoTwin {
        /// What it is, and what can be done.
        reason: String,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] files::FileError),
    /// A file of tensors cannot be read or made.
    #[error(transparent)]
    Tensors(#[from] checkpoint::CheckpointError),
}
