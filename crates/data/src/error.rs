//! What can go wrong between a name or a path and an [`ImageSet`](crate::ImageSet).

use std::io;
use std::path::{Path, PathBuf};

use files::{Action, FileError};

/// Every error of this crate. Each message names the file and the value at fault, and what to do next; options by the keys that they
/// have in the configuration of a training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system refused to read or write a file or folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// Neither a known dataset nor a path that exists.
    #[error(
        "`{given}` is neither a file, a folder nor a known dataset; known datasets: {known}; \
         a path may be an IDX file, a folder with IDX files, CIFAR binaries or their .tar.gz, or a folder of images"
    )]
    NoSuchData {
        /// What was asked for.
        given: String,
        /// The names that are known, with commas.
        known: String,
    },
    /// `fetch` was asked for a dataset that has no manifest.
    #[error("no dataset is called `{name}`; known datasets: {known}")]
    UnknownDataset {
        /// What was asked for.
        name: String,
        /// The names that are known, with commas.
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
        /// The folders that were looked in, with commas.
        looked: String,
    },
    /// A file that is not what its name or its first bytes promise.
    #[error("{}: {problem}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, in numbers, and what to do.
        problem: String,
    },
    /// A folder, or an archive, in which nothing can be used.
    #[error("{}: {found}; looked for {looked_for}", path.display())]
    NothingFound {
        /// The folder or archive.
        path: PathBuf,
        /// What is there instead.
        found: String,
        /// What would have been used.
        looked_for: &'static str,
    },
    /// Some images of a folder cannot be read, and skipping them was not asked for.
    #[error(
        "{count} of {total} images in {} cannot be read:\n{first}\nrepair or remove them, or set `data.skip_unreadable = true`",
        path.display()
    )]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// How many files cannot be read.
        count: usize,
        /// How many image files there are.
        total: usize,
        /// The first five, a line each, with the reason.
        first: String,
    },
    /// Two images of a folder differ in size, and no target size was given.
    #[error(
        "{} is {}x{} and {} is {}x{} (height x width): images must have one size; \
         set a size to resize and crop them to (`data.image_size`)",
        first.display(), first_size.0, first_size.1, second.display(), second_size.0, second_size.1
    )]
    MixedSizes {
        /// The first image of the folder.
        first: PathBuf,
        /// Its height and width.
        first_size: (usize, usize),
        /// The first image that differs from it.
        second: PathBuf,
        /// Its height and width.
        second_size: (usize, usize),
    },
    /// A setting that cannot be met.
    #[error("{}: {problem}", setting(key))]
    BadOption {
        /// The key in [`LoadOptions`](crate::LoadOptions).
        key: &'static str,
        /// What is wrong with its value, and what would do.
        problem: String,
    },
    /// Arrays that do not fit each other, given to a constructor.
    #[error("{what}: expected {expected}, got {got}")]
    BadShape {
        /// Which array or number.
        what: &'static str,
        /// What would have fitted.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A dataset whose pixels do not fit into this machine's memory.
    #[error("{}: {bytes} bytes of pixels do not fit into memory; set `data.limit` or a smaller `data.image_size`, or a \
         folder with room for the cache (XDG_CACHE_HOME)", path.display())]
    TooLarge {
        /// The file or folder.
        path: PathBuf,
        /// The size asked for.
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
    /// No mirror gave a file.
    #[error(
        "cannot download {file} of `{dataset}`:\n{failures}\n\
         without a network: put the file into a folder and use `diffuse data fetch {dataset} --from DIR`"
    )]
    Download {
        /// The dataset.
        dataset: String,
        /// The file's name.
        file: String,
        /// A line per mirror, with what it answered.
        failures: String,
    },
    /// There is no folder to keep datasets in.
    #[error("no cache folder: set XDG_CACHE_HOME or HOME")]
    NoCache,
    /// A manifest that cannot be parsed.
    #[error("manifest {path}: {problem}")]
    BadManifest {
        /// Which manifest.
        path: String,
        /// What the parser said.
        problem: String,
    },
}

/// What a configuration calls an option of [`LoadOptions`](crate::LoadOptions).
fn setting(key: &str) -> String {
    match key {
        "size" => "data.image_size (in the library `size`)".to_owned(),
        "padding" => "data.pad_to (in the library `padding`)".to_owned(),
        // no key: what is trained on and what is measured with ask for their parts
        "split" => "the part of the data (`split`)".to_owned(),
        same => format!("data.{same}"),
    }
}

impl DataError {
    /// Whether data that can be opened otherwise has no part of the split that was asked for.
    pub fn is_missing_split(&self) -> bool {
        matches!(self, Self::NothingFound { .. } | Self::BadOption { key: "split", .. })
    }

    pub(crate) fn io(action: Action, path: &Path, source: io::Error) -> Self {
        FileError::new(action, path, source).into()
    }

    pub(crate) fn bad_file(path: &Path, problem: impl Into<String>) -> Self {
        Self::BadFile { path: path.to_path_buf(), problem: problem.into() }
    }
}
