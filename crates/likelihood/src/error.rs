//! What can be wrong with the arguments.

/// A likelihood that cannot be computed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LikelihoodError {
    /// The denoiser learned no variance.
    #[error("the variance is to be the learned one, and this denoiser predicts none: use the posterior's or beta")]
    NoLearnedVariance,
    /// The end of the chain is pure noise.
    #[error(
        "the last timestep of the schedule is pure noise (alpha_bar = 0), where sigma is infinite: the probability-flow \
         ODE cannot start there; use the variational bound"
    )]
    NoSignal,
    /// A number out of range.
    #[error("{name} = {value} is not possible: it must be {range}")]
    OutOfRange {
        /// What it is.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        range: &'static str,
    },
    /// The steps of the solver have become too small.
    #[error(
        "the adaptive solver took {steps} steps and is only at sigma = {sigma}: the network is not smooth enough for a \
         tolerance of {tolerance}; allow a larger one"
    )]
    TooManySteps {
        /// Steps taken.
        steps: usize,
        /// Where it was.
        sigma: f64,
        /// What was asked for.
        tolerance: f64,
    },
    /// A number that is none.
    #[error("the likelihood is not a finite number at timestep {timestep}: the model or the images hold such numbers")]
    NotFinite {
        /// Where.
        timestep: f64,
    },
}
