//! The result of opening a dataset.

use std::path::PathBuf;

use crate::account::Account;
use crate::image_set::ImageSet;

/// A dataset that was opened.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The images.
    pub images: ImageSet,
    /// Files that cannot be read, with the reason; empty without
    /// [`LoadOptions::skip_unreadable`](crate::LoadOptions::skip_unreadable).
    pub skipped: Vec<(PathBuf, String)>,
    /// What of the source was used, and what was not.
    pub account: Account,
    /// Where the images were read from: a path, or `built in`.
    pub source: String,
    /// The part of the cache in it.
    pub cached: Cached,
}

/// The part of the [`Cache`](crate::Cache) in a dataset that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cached {
    /// There is no cache, or the images are too few for it.
    Unused,
    /// The images were read from the cache.
    Read,
    /// The images were decoded and written to the cache.
    Written,
    /// The images could not be written to the cache, for this reason, and lie in memory.
    Failed(String),
}
