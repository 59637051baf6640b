//! What can be wrong with the arguments of a sampler.

use burn::tensor::Tensor;
use schedule::NoiseLevel;

/// Arguments that a sampler cannot work with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// Fewer than two noise levels.
    #[error("a sampler needs at least two noise levels, the noisiest first and `NoiseLevel::CLEAN` last; got {found}")]
    TooFewLevels {
        /// How many were given.
        found: usize,
    },
    /// The levels do not get cleaner.
    #[error(
        "noise levels must get cleaner from step to step, but number {index} has alpha_bar {alpha_bar} after {previous}"
    )]
    NotCleaner {
        /// Which level.
        index: usize,
        /// Its alpha_bar.
        alpha_bar: f64,
        /// That of the level before.
        previous: f64,
    },
    /// Pure noise where a sampler needs some signal.
    #[error(
        "the first noise level has alpha_bar = 0, pure noise, where sigma is infinite and this sampler cannot start: use \
         ddpm, ddim, dpm_solver_plus_plus or unipc, or a schedule without zero terminal SNR"
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
    /// As many stream indices as images are needed.
    #[error("there are {images} images but {indices} sample indices: give one index for each image")]
    Indices {
        /// Images in the batch.
        images: usize,
        /// Indices given.
        indices: usize,
    },
    /// The denoiser learned no variance.
    #[error("`Variance::Learned` needs a denoiser that predicts the variance, and this one does not: use `Posterior`")]
    NoLearnedVariance,
}

pub(crate) fn check(levels: &[NoiseLevel], x_t: &Tensor<4>, noise_indices: Option<&[u64]>) -> Result<(), SamplerError> {
    if levels.len() < 2 {
        return Err(SamplerError::TooFewLevels { found: levels.len() });
    }
    for (index, pair) in levels.windows(2).enumerate() {
        let (previous, alpha_bar) = (pair[0].alpha_bar, pair[1].alpha_bar);
        if !(alpha_bar > previous && (0.0..1.0).contains(&previous) && alpha_bar <= 1.0) {
            return Err(SamplerError::NotCleaner { index: index + 1, alpha_bar, previous });
        }
    }
    match noise_indices {
        Some(noise_indices) if noise_indices.len() != x_t.dims()[0] => {
            Err(SamplerError::Indices { images: x_t.dims()[0], indices: noise_indices.len() })
        }
        _ => Ok(()),
    }
}

/// For samplers that divide by alpha or walk in sigma.
pub(crate) fn check_finite_sigma(levels: &[NoiseLevel]) -> Result<(), SamplerError> {
    if levels.iter().all(|level| level.alpha_bar > 0.0) { Ok(()) } else { Err(SamplerError::NoSignal) }
}

pub(crate) fn check_range(name: &'static str, value: f64, good: bool, range: &'static str) -> Result<(), SamplerError> {
    if good { Ok(()) } else { Err(SamplerError::OutOfRange { name, value, range }) }
}

pub(crate) fn check_clip(clip: Option<f64>) -> Result<(), SamplerError> {
    match clip {
        Some(limit) => check_range("clip", limit, limit > 0.0, "above 0"),
        None => Ok(()),
    }
}
