//! Errors of a classifier.

use checkpoint::CheckpointError;
use schedule::ScheduleError;

/// A classifier that cannot be trained, read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClassifierError {
    /// The images have no classes to learn.
    #[error("the data `{name}` has no labels of at least two classes for a classifier: use labeled images")]
    NoLabels {
        /// The source of the images.
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
    /// An option out of range.
    #[error("{option} = {value} is not possible: it must be {range}")]
    OutOfRange {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        value: f64,
        /// The range, in words.
        range: &'static str,
    },
    /// The loss is NaN or infinite.
    #[error("the loss of step {step} is not finite: train with a lower learning rate than {learning_rate}")]
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
