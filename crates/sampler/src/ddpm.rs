//! Ancestral sampling (Ho, Jain and Abbeel 2020, arXiv:2006.11239, algorithm 2), over all steps or fewer.

use burn::tensor::Tensor;
use noise::Noise;
use schedule::{NoiseLevel, Posterior};
use serde::{Deserialize, Serialize};

use crate::{
    denoiser::{Denoiser, Observer},
    error::SamplerError,
    step::{Interval, StepNoise, walk},
};

/// The variance of a reverse step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variance {
    /// That of the posterior q(x_{t-1} | x_t, x_0), the lower bound ("fixed small"); lucidrains' choice.
    #[default]
    Posterior,
    /// beta, the upper bound ("fixed large").
    Beta,
    /// Between the two on a logarithmic scale, predicted by the network (Nichol and Dhariwal 2021, arXiv:2102.09672,
    /// equation 15).
    Learned,
}

/// Options of [`ddpm`].
#[derive(Clone, Debug, PartialEq)]
pub struct DdpmOptions {
    /// The variance of each step.
    pub variance: Variance,
    /// x_0 is clipped to ± this; None leaves it unclipped.
    pub clip: Option<f64>,
    /// Noise index of each image; None numbers them from 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl Default for DdpmOptions {
    fn default() -> Self {
        Self { variance: Variance::Posterior, clip: Some(1.0), noise_indices: None }
    }
}

/// Samples by the ancestral sampler of DDPM, from `x_t` at `levels[0]` to the last of `levels`: each step draws from the
/// [`Posterior`] of the two levels, with the denoiser's x_0. The last step adds no noise.
///
/// Over fewer levels than timesteps of the training this is OpenAI's respaced sampling.
///
/// # Shapes
/// - `x_t` and the result: `[batch, channels, height, width]`
///
/// # Errors
/// [`SamplerError`] if the levels do not get cleaner, an option is out of range, or the variance is `Learned` and the
/// denoiser predicts none.
pub fn ddpm(
    denoiser: &dyn Denoiser,
    x_t: Tensor<4>,
    levels: &[NoiseLevel],
    options: DdpmOptions,
    noise: &Noise,
    observe: &mut Observer,
) -> Result<Tensor<4>, SamplerError> {
    let step_noise = StepNoise::new(noise, options.noise_indices, &x_t)?;
    walk(denoiser, x_t, levels, options.clip, observe, |Interval { index, count, level, next }, x, prediction| {
        if options.variance == Variance::Learned && prediction.variance.is_none() {
            return Err(SamplerError::NoLearnedVariance);
        }
        let posterior = Posterior::between(level, next);
        let mean = prediction.x_0 * posterior.of_x_0 + x * posterior.of_x_t;
        if index + 1 == count {
            return Ok(mean);
        }
        let (smallest, largest) = (posterior.clipped_variance(), posterior.beta);
        Ok(match (options.variance, prediction.variance) {
            (Variance::Learned, Some(place)) => {
                let fraction = (place + 1.0) * 0.5;
                let log_variance = fraction * (largest.ln() - smallest.ln()) + smallest.ln();
                let z = step_noise.draw(index, &mean);
                mean + z * (log_variance * 0.5).exp()
            }
            (Variance::Beta, _) => step_noise.add(mean, index, largest.sqrt()),
            _ => step_noise.add(mean, index, smallest.sqrt()),
        })
    })
}
