//! What a sampler walks with, and who may watch.

use burn::tensor::Tensor;
use noise::Prediction;
use schedule::NoiseLevel;

/// Says what is clean and what is noise in x_t. A trained network is one, a closed form another; guidance wraps one.
pub trait Denoiser {
    /// Estimates x_0 and epsilon in `x_t`.
    ///
    /// # Shapes
    /// - `x_t`: `[batch, channels, height, width]`, all at the same `level`
    /// - `estimate`: x_0 of the step before, for networks with self-conditioning; same shape
    /// - the prediction has the shape of `x_t`; x_0 is not clipped
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, estimate: Option<&Tensor<4>>) -> Prediction;
}

impl<D: Denoiser + ?Sized> Denoiser for &D {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, estimate: Option<&Tensor<4>>) -> Prediction {
        (**self).denoise(x_t, level, estimate)
    }
}

/// What an observer sees after each step.
#[derive(Debug)]
pub struct Step<'a> {
    /// Number of the step, from 0.
    pub index: usize,
    /// Number of steps.
    pub count: usize,
    /// The level that x_t now has.
    pub level: NoiseLevel,
    /// The image so far, `[batch, channels, height, width]`.
    pub x_t: &'a Tensor<4>,
    /// What the denoiser takes for the clean image (clipped, if that was asked for), same shape.
    pub x_0: &'a Tensor<4>,
}

/// Called after each step of a sampler.
pub type Observer<'a> = dyn FnMut(Step<'_>) + 'a;
