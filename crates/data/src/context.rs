//! The surroundings of a reader: the cache, and the listener to its progress.

use crate::cache::Cache;

/// How far a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The current stage.
    pub stage: Stage,
    /// Images (or files, while they are looked up in the cache) that are done.
    pub done: usize,
    /// Images (or files) of this stage.
    pub total: usize,
}

/// A stage of reading a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Files are looked up in the cache, or headers read.
    Looking,
    /// Images are decoded.
    Decoding,
}

/// The surroundings of a reader; they do not change the images.
#[derive(Clone, Default)]
pub struct ReadContext<'a> {
    /// The cache of decoded images; `None` keeps them in memory.
    pub cache: Option<Cache>,
    /// Called from time to time with the progress.
    pub progress: Option<&'a dyn Fn(Progress)>,
}

impl ReadContext<'_> {
    pub(crate) fn report(&self, stage: Stage, done: usize, total: usize) {
        if let Some(listener) = self.progress {
            listener(Progress { stage, done, total });
        }
    }
}
