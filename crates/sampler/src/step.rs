//! What the steps of all samplers have in common.

use burn::tensor::Tensor;
use noise::{Noise, Prediction, Purpose};
use schedule::NoiseLevel;

use crate::denoiser::Denoiser;

/// What the denoiser says of `x` at `level`; with a limit, x_0 is clipped to it and epsilon derived anew.
pub(crate) fn predict(
    denoiser: &dyn Denoiser,
    x: &Tensor<4>,
    level: NoiseLevel,
    clip: Option<f64>,
    estimate: Option<&Tensor<4>>,
) -> Prediction {
    let prediction = denoiser.denoise(x.clone(), level, estimate);
    match clip {
        Some(limit) => prediction.clipped(limit, x.clone(), &vec![level; x.dims()[0]]),
        None => prediction,
    }
}

/// Which image of the seed each one in the batch is: as asked, or numbered from 0.
pub(crate) fn numbered(noise_indices: Option<Vec<u64>>, x: &Tensor<4>) -> Vec<u64> {
    noise_indices.unwrap_or_else(|| (0..x.dims()[0] as u64).collect())
}

/// Standard normal noise for the step `index` of the reverse chain, in the number format of `like`.
pub(crate) fn fresh_noise(noise: &Noise, noise_indices: &[u64], index: usize, like: &Tensor<4>) -> Tensor<4> {
    let [_, channels, height, width] = like.dims();
    let images = noise.stream(Purpose::SamplerNoise).normal_images(
        noise_indices,
        index as u64,
        [channels, height, width],
        &like.device(),
    );
    Tensor::from_data(images.into_data(), (&like.device(), like.dtype()))
}

/// Half the log-SNR, ln(alpha / sigma) with alpha the scale of the signal and sigma that of the noise: the time in which
/// the solvers of the DPM family walk. It grows from step to step, to infinity at clean data.
pub(crate) fn lambda(level: NoiseLevel) -> f64 {
    0.5 * level.log_snr()
}

/// The posterior q(x' | x_t, x_0) of the step between two levels (Ho, Jain and Abbeel 2020, equations 6 and 7).
pub(crate) struct Posterior {
    /// Factor of x_0 in its mean.
    pub of_x_0: f64,
    /// Factor of x_t in its mean.
    pub of_x_t: f64,
    /// Its variance.
    pub variance: f64,
    /// The variance of the step of q itself.
    pub beta: f64,
}

impl Posterior {
    pub(crate) fn new(level: NoiseLevel, next: NoiseLevel) -> Self {
        let (alpha, beta) = (level.alpha_bar / next.alpha_bar, 1.0 - level.alpha_bar / next.alpha_bar);
        Self {
            of_x_0: next.signal_scale() * beta / (1.0 - level.alpha_bar),
            of_x_t: alpha.sqrt() * (1.0 - next.alpha_bar) / (1.0 - level.alpha_bar),
            variance: (1.0 - next.alpha_bar) / (1.0 - level.alpha_bar) * beta,
            beta,
        }
    }
}
