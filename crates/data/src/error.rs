//! The errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

use files::{Action, FileError};

/// An error of this crate. Each message names the file and the value at fault, and what to do next; options have the keys of
/// the configuration of a training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system refused to read or write a file or folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// A name that is neither a known dataset nor a path that exists.
    #[error(
        "`{given}` is neither a file, a folder nor a known dataset; known datasets: {known}; \
         a path may be an IDX file, a folder with IDX files, CIFAR in its binary or Python version, a folder, .zip or .tar \
         (.gz, .bz2, .zst) of images, a folder of WebDataset's tars, Parquet files, .npy or .npz"
    )]
    NoSuchData {
        /// The name or path.
        given: String,
        /// The known names, separated by commas.
        known: String,
    },
    /// A dataset without a manifest was to be fetched.
    #[error("no dataset is called `{name}`; known datasets: {known}")]
    UnknownDataset {
        /// The name.
        name: String,
        /// The known names, separated by commas.
        known: String,
    },
    /// A known dataset that is not on this machine.
    #[error(
        "the dataset `{name}` is not on this machine (looked in {looked}); \
         get it with `diffuse data fetch {name}`, or from a folder with `diffuse data fetch {name} --from DIR`"
    )]
    NotFetched {
        /// The dataset's name.
        name: String,
        /// The folders that were looked in, separated by commas.
        looked: String,
    },
    /// A file whose contents do not fit its format.
    #[error("{}: {problem}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// The fault, in numbers, and the remedy.
        problem: String,
    },
    /// A folder or an archive without usable files.
    #[error("{}: {found}; looked for {looked_for}", path.display())]
    NothingFound {
        /// The folder or archive.
        path: PathBuf,
        /// The files that are there instead.
        found: String,
        /// The files that would have been used.
        looked_for: &'static str,
    },
    /// Images that cannot be read, without [`LoadOptions::skip_unreadable`](crate::LoadOptions::skip_unreadable).
    #[error(
        "{count} of {total} images in {} cannot be read:\n{first}\nrepair or remove them, or set `data.skip_unreadable = true`",
        path.display()
    )]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// Number of images that cannot be read.
        count: usize,
        /// Number of images.
        total: usize,
        /// The first five, a line each, with the reason.
        first: String,
    },
    /// Images that differ in size, without a target size.
    #[error(
        "{} is {}x{} and {} is {}x{} (height x width): images must have one size; \
         set a size to resize and crop them to (`data.image_size`)",
        first.display(), first_size.0, first_size.1, second.display(), second_size.0, second_size.1
    )]
    MixedSizes {
        /// The first image.
        first: PathBuf,
        /// Its height and width.
        first_size: (usize, usize),
        /// The first image that differs from it.
        second: PathBuf,
        /// Its height and width.
        second_size: (usize, usize),
    },
    /// An option that cannot be met.
    #[error("{}: {problem}", setting(key))]
    BadOption {
        /// The key in [`LoadOptions`](crate::LoadOptions).
        key: &'static str,
        /// The fault of its value, and a value that would do.
        problem: String,
    },
    /// Arrays of a constructor that do not fit each other.
    #[error("{what}: expected {expected}, got {got}")]
    BadShape {
        /// The array or number.
        what: &'static str,
        /// The shape that would fit.
        expected: String,
        /// The shape that was given.
        got: String,
    },
    /// A dataset whose pixels do not fit into main memory.
    #[error("{}: {bytes} bytes of pixels do not fit into memory; set `data.limit` or a smaller `data.image_size`, or a \
         folder with room for the cache (XDG_CACHE_HOME)", path.display())]
    TooLarge {
        /// The file or folder.
        path: PathBuf,
        /// The size of the pixels.
        bytes: u128,
    },
    /// A file whose SHA-256 is not the one in the manifest.
    #[error(
        "{} is not the file that the manifest of `{dataset}` names: {problem}; remove it, or take it from another source",
        path.display()
    )]
    Mismatch {
        /// The dataset.
        dataset: String,
        /// The file.
        path: PathBuf,
        /// The lengths or checksums that differ.
        problem: String,
    },
    /// A file that no mirror provided.
    #[error(
        "cannot download {file} of `{dataset}`:\n{failures}\n\
         without a network: put the file into a folder and use `diffuse data fetch {dataset} --from DIR`"
    )]
    Download {
        /// The dataset.
        dataset: String,
        /// The file's name.
        file: String,
        /// A line per mirror, with its answer.
        failures: String,
    },
    /// The environment names no cache folder.
    #[error("no cache folder: set XDG_CACHE_HOME or HOME")]
    NoCache,
    /// A manifest that cannot be parsed.
    #[error("manifest {path}: {problem}")]
    BadManifest {
        /// Its path.
        path: String,
        /// The error of the parser.
        problem: String,
    },
}

/// The key of a configuration for a field of [`LoadOptions`](crate::LoadOptions).
fn setting(key: &str) -> String {
    match key {
        "size" => "data.image_size (in the library `size`)".to_owned(),
        "padding" => "data.pad_to (in the library `padding`)".to_owned(),
        // no key: training and evaluation each ask for their split
        "split" => "the part of the data (`split`)".to_owned(),
        same => format!("data.{same}"),
    }
}

impl DataError {
    /// Whether the data lacks the split that was asked for.
    pub fn is_missing_split(&self) -> bool {
        matches!(self, Self::NothingFound { .. } | Self::BadOption { key: "split", .. })
    }

    /// Whether a file could not be written.
    pub(crate) fn is_of_writing(&self) -> bool {
        matches!(self, Self::File(FileError { action: Action::Write | Action::Create, .. }))
    }

    pub(crate) fn io(action: Action, path: &Path, source: io::Error) -> Self {
        FileError::new(action, path, source).into()
    }

    pub(crate) fn bad_option(key: &'static str, problem: impl Into<String>) -> Self {
        Self::BadOption { key, problem: problem.into() }
    }

    pub(crate) fn nothing_found(path: &Path, found: impl Into<String>, looked_for: &'static str) -> Self {
        Self::NothingFound { path: path.to_path_buf(), found: found.into(), looked_for }
    }

    pub(crate) fn bad_shape(what: &'static str, expected: impl Into<String>, got: impl ToString) -> Self {
        Self::BadShape { what, expected: expected.into(), got: got.to_string() }
    }

    pub(crate) fn bad_file(path: &Path, problem: impl Into<String>) -> Self {
        Self::BadFile { path: path.to_path_buf(), problem: problem.into() }
    }
}
