//! Errors of likelihoods.

/// A likelihood that cannot be computed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LikelihoodError {
    /// A learned variance is requested and the denoiser predicts none.
    #[error("this denoiser predicts no variance, so the learned variance is not possible: use posterior or beta")]
    NoLearnedVariance,
    /// The end of the chain is pure noise.
    #[error(
        "the last timestep of the schedule is pure noise (alpha_bar = 0), where sigma is infinite and the probability-flow \
         ODE cannot start: use the variational bound"
    )]
    NoSignal,
    /// An option out of range.
    #[error("{name} = {value} is not possible: it must be {range}")]
    OutOfRange {
        /// Name of the option.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The range, in words.
        range: &'static str,
    },
    /// The steps of the solver have become too small.
    #[error(
        "the adaptive solver took {steps} steps and has reached only sigma = {sigma}: the network is not smooth enough for \
         a tolerance of {tolerance}; use a larger one"
    )]
    TooManySteps {
        /// Steps taken.
        steps: usize,
        /// The sigma reached.
        sigma: f64,
        /// The requested tolerance.
        tolerance: f64,
    },
    /// A value is NaN or infinite.
    #[error("the likelihood is not finite at sigma = {sigma}: check the model and the images for NaN and infinities")]
    NotFinite {
        /// The noise level.
        sigma: f64,
    },
}
