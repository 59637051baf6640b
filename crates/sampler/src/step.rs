//! The loop, the prediction and the noise that samplers share.

use burn::tensor::Tensor;
use noise::{Noise, NoiseStream, Prediction, Purpose};
use schedule::NoiseLevel;

use crate::{
    denoiser::{Denoiser, Observer, Step},
    error::{SamplerError, check_clip, check_levels},
};

/// A run of fewer steps ends in lower order (diffusers).
const SHORT_RUN: usize = 15;

/// One step of a chain, from a noise level to the next.
#[derive(Clone, Copy)]
pub(crate) struct Interval {
    /// Index of the step, from 0.
    pub index: usize,
    /// Number of steps.
    pub count: usize,
    pub level: NoiseLevel,
    pub next: NoiseLevel,
}

impl Interval {
    /// The order of a multistep solver: the number of `known` values, which falls to 1 at the end of a short run if
    /// `lower_order_final`.
    pub(crate) fn order(self, known: usize, lower_order_final: bool) -> usize {
        let is_short = self.count < SHORT_RUN;
        if lower_order_final && is_short { known.min(self.count - self.index) } else { known }
    }
}

/// The reverse process from `x_t` at `levels[0]` to the last of `levels`: predicts at each level, computes x at the next
/// with `advance`, and calls the observer. The x_0 of each step is the self-condition of the next.
pub(crate) fn walk(
    denoiser: &dyn Denoiser,
    x_t: Tensor<4>,
    levels: &[NoiseLevel],
    clip: Option<f64>,
    observe: &mut Observer,
    mut advance: impl FnMut(Interval, Tensor<4>, Prediction) -> Result<Tensor<4>, SamplerError>,
) -> Result<Tensor<4>, SamplerError> {
    check_levels(levels)?;
    check_clip(clip)?;
    let count = levels.len() - 1;
    let (mut x, mut self_condition) = (x_t, None);
    for (index, pair) in levels.windows(2).enumerate() {
        let (level, next) = (pair[0], pair[1]);
        let prediction = predict(denoiser, &x, level, clip, self_condition.as_ref());
        let x_0 = prediction.x_0.clone();
        x = advance(Interval { index, count, level, next }, x, prediction)?;
        observe(Step { index, count, level: next, x_t: &x, x_0: &x_0 });
        self_condition = Some(x_0);
    }
    Ok(x)
}

/// The prediction of the denoiser for `x` at `level`; with a limit, x_0 is clipped to it and epsilon derived from that.
pub(crate) fn predict(
    denoiser: &dyn Denoiser,
    x: &Tensor<4>,
    level: NoiseLevel,
    clip: Option<f64>,
    self_condition: Option<&Tensor<4>>,
) -> Prediction {
    let prediction = denoiser.denoise(x.clone(), level, self_condition);
    match clip {
        Some(limit) => prediction.clipped(limit, x.clone(), &vec![level; x.dims()[0]]),
        None => prediction,
    }
}

/// The noise that a sampler adds to a batch in its steps.
pub(crate) struct StepNoise {
    stream: NoiseStream,
    noise_indices: Vec<u64>,
}

impl StepNoise {
    /// For the batch `x_t`, whose images have these noise indices; None numbers them from 0.
    ///
    /// # Errors
    /// [`SamplerError::NoiseIndices`] unless there is one index for each image.
    pub(crate) fn new(noise: &Noise, noise_indices: Option<Vec<u64>>, x_t: &Tensor<4>) -> Result<Self, SamplerError> {
        let images = x_t.dims()[0];
        let noise_indices = noise_indices.unwrap_or_else(|| (0..images as u64).collect());
        if noise_indices.len() != images {
            return Err(SamplerError::NoiseIndices { images, indices: noise_indices.len() });
        }
        Ok(Self { stream: noise.stream(Purpose::SamplerNoise), noise_indices })
    }

    /// Standard normal images for one step, in the number format of `like`.
    pub(crate) fn draw(&self, step: usize, like: &Tensor<4>) -> Tensor<4> {
        self.stream.normal_like(&self.noise_indices, step as u64, like)
    }

    /// `x + deviation z` with fresh z; `x` where the deviation is 0.
    pub(crate) fn add(&self, x: Tensor<4>, step: usize, deviation: f64) -> Tensor<4> {
        if deviation > 0.0 { x.clone() + self.draw(step, &x) * deviation } else { x }
    }
}

/// `x` moved along epsilon from one level to another: `x'/alpha' = x/alpha + (sigma' - sigma) epsilon`.
pub(crate) fn move_along(x: &Tensor<4>, epsilon: Tensor<4>, level: NoiseLevel, next: NoiseLevel) -> Tensor<4> {
    (x.clone() / level.signal_scale() + epsilon * (next.sigma() - level.sigma())) * next.signal_scale()
}

/// Half the log-SNR, ln(alpha / sigma) with alpha the scale of the signal and sigma that of the noise: the time variable of
/// the DPM solvers. It grows from step to step, to infinity at clean data.
pub(crate) fn lambda(level: NoiseLevel) -> f64 {
    0.5 * level.log_snr()
}
