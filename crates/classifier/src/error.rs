//! What can be wrong with a classifier.

use checkpoint::CheckpointError;
use schedule::ScheduleError;

/// A classifier that cannot be trained, read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClassifierError {
    /// The images have no classes to learn.
    #[error("the data `{name}` has no labels of at least two classes, so that no classifier can learn them")]
    NoLabels {
        /// Where the images came from.
        name: String,
    },
    /// The images are too small.
    #[error("images of {height}x{width} are too small for the classifier: it needs at least 4x4")]
    TooSmall {
        /// Their height.
        height: usize,
        /// Their width.
        width: usize,
    },
    /// A number out of range.
    #[error("{option} = {value} is not possible: it must be {range}")]
    OutOfRange {
        /// Which.
        option: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        range: &'static str,
    },
    /// The loss is not a number.
    #[error("the loss of step {step} is not finite: train with a lower learning rate (now {learning_rate})")]
    Diverged {
        /// The step, from 1.
        step: usize,
        /// The learning rate.
        learning_rate: f64,
    },
    /// A schedule that is not possible.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A file that cannot be read or written.
    #[error(transparent)]
    File(#[from] CheckpointError),
}
