//! Errors in the arguments of a sampler.

use schedule::NoiseLevel;

/// Arguments with which a sampler cannot run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// Fewer than two noise levels.
    #[error("a sampler needs at least two noise levels, the noisiest first and `NoiseLevel::CLEAN` last; got {found}")]
    TooFewLevels {
        /// Number of levels.
        found: usize,
    },
    /// The levels do not get cleaner.
    #[error(
        "noise levels must get cleaner from step to step, but number {index} has alpha_bar {alpha_bar} after {previous}"
    )]
    NotCleaner {
        /// Index of the level.
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
    /// The number of noise indices is not that of images.
    #[error("there are {images} images but {indices} noise indices: give one index for each image")]
    NoiseIndices {
        /// Images in the batch.
        images: usize,
        /// Noise indices.
        indices: usize,
    },
    /// A learned variance is requested and the denoiser predicts none.
    #[error("`Variance::Learned` needs a denoiser that predicts the variance, and this one does not: use `Posterior`")]
    NoLearnedVariance,
}

pub(crate) fn check_levels(levels: &[NoiseLevel]) -> Result<(), SamplerError> {
    if levels.len() < 2 {
        return Err(SamplerError::TooFewLevels { found: levels.len() });
    }
    for (index, pair) in levels.windows(2).enumerate() {
        let (previous, alpha_bar) = (pair[0].alpha_bar, pair[1].alpha_bar);
        if !(alpha_bar > previous && (0.0..1.0).contains(&previous) && alpha_bar <= 1.0) {
            return Err(SamplerError::NotCleaner { index: index + 1, alpha_bar, previous });
        }
    }
    Ok(())
}

/// [`check_levels`], for samplers that divide by alpha or whose time variable is sigma.
pub(crate) fn check_levels_with_signal(levels: &[NoiseLevel]) -> Result<(), SamplerError> {
    check_levels(levels)?;
    if levels[0].alpha_bar > 0.0 { Ok(()) } else { Err(SamplerError::NoSignal) }
}

pub(crate) fn check_range(
    name: &'static str,
    value: f64,
    is_in_range: bool,
    range: &'static str,
) -> Result<(), SamplerError> {
    if is_in_range { Ok(()) } else { Err(SamplerError::OutOfRange { name, value, range }) }
}

pub(crate) fn check_eta(eta: f64) -> Result<(), SamplerError> {
    check_range("eta", eta, eta >= 0.0 && eta.is_finite(), "0 or more")
}

/// The order of a multistep solver.
pub(crate) fn check_order(order: usize) -> Result<(), SamplerError> {
    check_range("order", order as f64, (1..=3).contains(&order), "1, 2 or 3")
}

pub(crate) fn check_clip(clip: Option<f64>) -> Result<(), SamplerError> {
    match clip {
        Some(limit) => check_range("clip", limit, limit > 0.0, "above 0"),
        None => Ok(()),
    }
}
