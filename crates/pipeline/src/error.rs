//! Errors of sampling.

use sampler::SamplerError;
use schedule::ScheduleError;
use unet::UnetError;

/// A request or sampling configuration that is not possible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// Steps or spacing that the schedule does not have.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// An option of the sampler is out of range.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The images do not fit the network.
    #[error(transparent)]
    Network(#[from] UnetError),
    /// A class that the model does not have.
    #[error("the class {class} does not exist: {}", match classes {
        0 => "this model was trained without classes".to_owned(),
        classes => format!("this model has the classes 0 to {}", classes - 1),
    })]
    Class {
        /// The class of the request.
        class: usize,
        /// The number of classes.
        classes: usize,
    },
    /// A guide that does not go with the model or the sampler.
    #[error("guidance is not possible like this: {reason}")]
    Guide {
        /// The reason, and what to do.
        reason: String,
    },
    /// A number out of range.
    #[error("sampling.{key} = {value} is not possible: it must be {range}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// Its value.
        value: f64,
        /// The values that are possible.
        range: &'static str,
    },
}
