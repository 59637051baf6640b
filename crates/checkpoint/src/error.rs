//! Errors of model and state files.

use std::path::PathBuf;

use unet::{StateError, UnetError};

/// A file that cannot be read, written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// An error of the operating system.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// Not a safetensors file, or a broken one.
    #[error(
        "{} is not a whole safetensors file ({reason}). It may be cut off or of another kind; use another copy, or \
         train again",
        path.display()
    )]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// The error of the reader.
        reason: String,
    },
    /// A safetensors file of another program.
    #[error(
        "{} has no such content: its metadata lacks the entry `{key}`. A run has a model in model.safetensors, training states in \
         checkpoints/",
        path.display()
    )]
    NoHeader {
        /// The file.
        path: PathBuf,
        /// The missing entry.
        key: &'static str,
    },
    /// A header that cannot be used.
    #[error("the header of {} cannot be used: {reason}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A file of a newer version.
    #[error("{} has format version {found}, this build reads up to {supported}: use a newer build", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
    },
    /// A header with an impossible network.
    #[error("the network in the header of {} is not possible: {source}", path.display())]
    Network {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: UnetError,
    },
    /// Weights that do not fit the network of the header.
    #[error("the weights in {} do not fit the network in its header: {source}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// The first parameter that does not fit.
        source: StateError,
    },
    /// Weights that are not finite.
    #[error(
        "the parameter `{name}` of {} is not finite: the training went wrong before this was saved",
        path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The parameter.
        name: String,
    },
}

impl CheckpointError {
    /// Whether it is a value that is not finite.
    pub fn is_not_finite(&self) -> bool {
        matches!(self, Self::NotFinite { .. })
    }
}
