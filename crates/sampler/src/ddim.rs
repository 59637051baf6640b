//! Denoising diffusion implicit models (Song, Meng and Ermon 2020, arXiv:2010.02502).

use burn::tensor::Tensor;
use noise::Noise;
use schedule::{NoiseLevel, Posterior};

use crate::{
    denoiser::{Denoiser, Observer},
    error::{SamplerError, check_eta},
    step::{Interval, StepNoise, walk},
};

/// Options of [`ddim`].
#[derive(Clone, Debug, PartialEq)]
pub struct DdimOptions {
    /// Share of the posterior's standard deviation that each step adds as noise: 0 is deterministic, 1 as random as DDPM
    /// with the posterior variance. At least 0.
    pub eta: f64,
    /// x_0 is clipped to ± this and epsilon derived from it (lucidrains); None leaves both unchanged.
    pub clip: Option<f64>,
    /// Noise index of each image; None numbers them from 0. Used only for `eta` above 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl Default for DdimOptions {
    fn default() -> Self {
        Self { eta: 0.0, clip: Some(1.0), noise_indices: None }
    }
}

/// Samples by DDIM, from `x_t` at `levels[0]` to the last of `levels`: each step is equation 12 of the paper,
/// `x' = sqrt(a') x_0 + sqrt(1 - a' - sigma^2) epsilon + sigma z`, where a' is alpha_bar of the next level.
///
/// # Shapes
/// - `x_t` and the result: `[batch, channels, height, width]`
///
/// # Errors
/// [`SamplerError`] if the levels do not get cleaner or an option is out of range.
pub fn ddim(
    denoiser: &dyn Denoiser,
    x_t: Tensor<4>,
    levels: &[NoiseLevel],
    options: DdimOptions,
    noise: &Noise,
    observe: &mut Observer,
) -> Result<Tensor<4>, SamplerError> {
    check_eta(options.eta)?;
    let step_noise = StepNoise::new(noise, options.noise_indices, &x_t)?;
    walk(denoiser, x_t, levels, options.clip, observe, |Interval { index, level, next, .. }, _, prediction| {
        // equation 16; at most the whole noise of the next level
        let sigma = (options.eta * Posterior::between(level, next).variance.sqrt()).min(next.noise_scale());
        let direction = (1.0 - next.alpha_bar - sigma * sigma).max(0.0).sqrt();
        let x = prediction.x_0 * next.signal_scale() + prediction.epsilon * direction;
        Ok(step_noise.add(x, index, sigma))
    })
}
