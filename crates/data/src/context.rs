//! The surroundings of a reader: the cache and the listener to its progress.

use crate::cache::Cache;

/// How far the reading of a dataset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// How many pictures (or files, where they are looked up in the cache) are done, ...
    pub done: usize,
    /// ... and how many there are.
    pub total: usize,
}

/// A part of the reading of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Contents are looked up in the cache, or headers read.
    Looking,
    /// Pictures are decoded.
    Decoding,
}

/// What goes along with reading, and does not change what is read.
#[derive(Clone, Default)]
pub struct ReadContext<'a> {
    /// Where decoded images are kept; none to keep them in memory.
    pub cache: Option<Cache>,
    /// Told from time to time how far it is.
    pub progress: Option<&'a dyn Fn(Progress)>,
}

impl ReadContext<'_> {
    pub(crate) fn tell(&self, progress: Progress) {
        if let Some(listener) = self.progress {
            listener(progress);
        }
    }
}
