//! What can be wrong with a file.

use std::path::PathBuf;

use unet::{StateError, UnetError};

/// A file that cannot be read or written, or is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refused.
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
        /// What the reader found.
        reason: String,
    },
    /// No header of ours.
    #[error(
        "{} is safetensors but not written by this project: its metadata lacks the entry `{key}`",
        path.display()
    )]
    NoHeader {
        /// The file.
        path: PathBuf,
        /// The missing entry.
        key: &'static str,
    },
    /// The header does not fit.
    #[error("the header of {} cannot be used: {reason}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Written by a newer version.
    #[error("{} has format version {found}, this build reads up to {supported}: use a newer build", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The latest known.
        supported: u32,
    },
    /// The network in the header is impossible.
    #[error("the network in the header of {} is not possible: {source}", path.display())]
    Network {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: UnetError,
    },
    /// Header and weights do not fit.
    #[error("the weights in {} do not fit the network in its header: {source}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// Which.
        source: StateError,
    },
    /// Not-a-number or infinite weights.
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
