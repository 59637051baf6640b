//! The result of opening a dataset.

use std::path::PathBuf;

use crate::image_set::ImageSet;

/// What [`open`](crate::open) gives.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The images.
    pub images: ImageSet,
    /// Files that could not be read, with the reason; empty unless [`LoadOptions::skip_unreadable`] is set.
    pub skipped: Vec<(PathBuf, String)>,
    /// Where the images were read from: a path, or `built in`.
    pub source: String,
    /// What the cache had to do with it.
    pub cached: Cached,
}

/// What the [`Cache`] had to do with a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cached {
    /// Nothing: there is none, or it would not be worth it.
    Unused,
    /// The images had been decoded before.
    Read,
    /// They were decoded and will be found the next time.
    Written,
    /// They could not be kept, for this reason, and lie in memory.
    Failed(String),
}
