//! Denoising diffusion implicit models (Song, Meng and Ermon 2020, arXiv:2010.02502).

use burn::tensor::Tensor;
use noise::Noise;
use schedule::NoiseLevel;

use crate::{
    denoiser::{Denoiser, Observer, Step},
    error::{SamplerError, check, check_clip, check_range},
    step::{fresh_noise, numbered, predict},
};

/// How [`ddim`] walks.
#[derive(Clone, Debug, PartialEq)]
pub struct DdimOptions {
    /// How random a step is: 0 not at all, 1 as random as DDPM's with the posterior variance. At least 0.
    pub eta: f64,
    /// x_0 is clipped to ± this and epsilon derived anew (lucidrains); None leaves both as they are.
    pub clip: Option<f64>,
    /// Which image of the seed each one in the batch is; None numbers them from 0. Matters only for `eta` above 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl Default for DdimOptions {
    fn default() -> Self {
        Self { eta: 0.0, clip: Some(1.0), noise_indices: None }
    }
}

/// Walks from `x_t` at `levels[0]` to the last of `levels` and returns the image there.
///
/// Each step is equation 12 of the paper: `x' = sqrt(a') x_0 + sqrt(1 - a' - sigma^2) epsilon + sigma z`, where a' is
/// alpha_bar of the next level.
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
    check(levels, &x_t, options.noise_indices.as_deref())?;
    check_range("eta", options.eta, options.eta >= 0.0 && options.eta.is_finite(), "0 or more")?;
    check_clip(options.clip)?;
    let noise_indices = numbered(options.noise_indices, &x_t);
    let count = levels.len() - 1;
    let (mut x, mut estimate) = (x_t, None);

    for (index, pair) in levels.windows(2).enumerate() {
        let (level, next) = (pair[0], pair[1]);
        let prediction = predict(denoiser, &x, level, options.clip, estimate.as_ref());
        // equation 16; never more than the whole noise of the next level
        let variance = (1.0 - next.alpha_bar) / (1.0 - level.alpha_bar) * (1.0 - level.alpha_bar / next.alpha_bar);
        let sigma = (options.eta * variance.max(0.0).sqrt()).min(next.noise_scale());
        let direction = (1.0 - next.alpha_bar - sigma * sigma).max(0.0).sqrt();

        x = prediction.x_0.clone() * next.signal_scale() + prediction.epsilon * direction;
        if sigma > 0.0 {
            x = x.clone() + fresh_noise(noise, &noise_indices, index, &x) * sigma;
        }
        observe(Step { index, count, level: next, x_t: &x, x_0: &prediction.x_0 });
        estimate = Some(prediction.x_0);
    }
    Ok(x)
}
