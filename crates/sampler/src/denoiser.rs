//! The interfaces of a sampler: the denoiser and the observer.

use burn::tensor::Tensor;
use noise::Prediction;
use schedule::NoiseLevel;

/// Estimates x_0 and epsilon in x_t: a trained network, a closed form, or guidance around other denoisers.
pub trait Denoiser {
    /// Estimates x_0 and epsilon in `x_t`.
    ///
    /// # Shapes
    /// - `x_t`: `[batch, channels, height, width]`, all at the same `level`
    /// - `self_condition`: the x_0 of the previous step, for networks with self-conditioning; same shape
    /// - the prediction has the shape of `x_t`; x_0 is not clipped
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, self_condition: Option<&Tensor<4>>) -> Prediction;
}

impl<D: Denoiser + ?Sized> Denoiser for &D {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, self_condition: Option<&Tensor<4>>) -> Prediction {
        (**self).denoise(x_t, level, self_condition)
    }
}

/// The result of one step, for an observer.
#[derive(Debug)]
pub struct Step<'a> {
    /// Index of the step, from 0.
    pub index: usize,
    /// Number of steps.
    pub count: usize,
    /// The noise level of `x_t`, at the end of the step.
    pub level: NoiseLevel,
    /// The image at the end of the step, `[batch, channels, height, width]`.
    pub x_t: &'a Tensor<4>,
    /// The denoiser's estimate of the clean image (clipped, where the sampler clips), same shape.
    pub x_0: &'a Tensor<4>,
}

/// Called after each step of a sampler.
pub type Observer<'a> = dyn FnMut(Step<'_>) + 'a;
