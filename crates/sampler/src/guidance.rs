//! Guidance: a denoiser made of two, or of one and a classifier. Each wraps a [`Denoiser`] and is one.

use burn::tensor::Tensor;
use noise::Prediction;
use schedule::NoiseLevel;

use crate::{
    denoiser::Denoiser,
    error::{SamplerError, check_range},
};

/// Guidance by the difference of two denoisers: `u + scale (c - u)`. Scale 1 is c alone, 0 is u alone; above 1 what c knows
/// and u does not is exaggerated, at a cost in variety.
///
/// - Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598): c knows the class, u does not.
/// - Autoguidance (Karras et al. 2024, arXiv:2406.02507): u is a weaker version of c (smaller, or trained for less), for
///   the same class; it points to where c itself errs, and costs less variety.
#[derive(Clone, Copy, Debug)]
pub struct Guided<C, U> {
    /// Knows the class, or more of the data.
    pub conditional: C,
    /// Does not.
    pub unconditional: U,
    /// How far to go from the second through the first.
    pub scale: f64,
    /// Only where the noise level sigma lies in this range is there guidance, elsewhere c alone, which costs half
    /// (Kynkäänniemi et al. 2024, arXiv:2404.07724: guidance hurts at the ends of the chain).
    pub interval: [f64; 2],
    /// How far the standard deviation of the guided v, of each image, is brought back to that of c: 0 not at all, 1 wholly
    /// (Lin et al. 2023, arXiv:2305.08891, equations 15 and 16, who recommend 0.7 against pictures that are too harsh).
    pub rescale: f64,
}

impl<C, U> Guided<C, U> {
    /// Guidance at all levels, as it is.
    pub fn new(conditional: C, unconditional: U, scale: f64) -> Self {
        Self { conditional, unconditional, scale, interval: [0.0, f64::INFINITY], rescale: 0.0 }
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    /// [`SamplerError::OutOfRange`] names the one that does not.
    pub fn check(&self) -> Result<(), SamplerError> {
        check_range("guidance", self.scale, self.scale.is_finite(), "a finite number")?;
        check_range("guidance_rescale", self.rescale, (0.0..=1.0).contains(&self.rescale), "between 0 and 1")?;
        let [least, most] = self.interval;
        check_range("guidance_interval", least, least >= 0.0, "0 or more at its lower end")?;
        check_range("guidance_interval", most, most >= least, "in the order lower, upper")
    }
}

impl<C: Denoiser, U: Denoiser> Denoiser for Guided<C, U> {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, estimate: Option<&Tensor<4>>) -> Prediction {
        let [least, most] = self.interval;
        if self.scale == 1.0 || !(least..=most).contains(&level.sigma()) {
            return self.conditional.denoise(x_t, level, estimate);
        }
        if self.scale == 0.0 {
            return self.unconditional.denoise(x_t, level, estimate);
        }
        let conditional = self.conditional.denoise(x_t.clone(), level, estimate);
        let unconditional = self.unconditional.denoise(x_t.clone(), level, estimate);
        let mix = |u: Tensor<4>, c: Tensor<4>| u.clone() + (c - u) * self.scale;
        let guided = Prediction {
            x_0: mix(unconditional.x_0, conditional.x_0.clone()),
            epsilon: mix(unconditional.epsilon, conditional.epsilon.clone()),
            variance: conditional.variance.clone(),
        };
        if self.rescale == 0.0 { guided } else { rescaled(guided, &conditional, x_t, level, self.rescale) }
    }
}

/// `guided` with its v brought to the standard deviation of `conditional`'s, image by image, by this share.
fn rescaled(guided: Prediction, conditional: &Prediction, x_t: Tensor<4>, level: NoiseLevel, share: f64) -> Prediction {
    let velocity = |prediction: &Prediction| {
        prediction.epsilon.clone() * level.signal_scale() - prediction.x_0.clone() * level.noise_scale()
    };
    let [batch, channels, height, width] = x_t.dims();
    let deviation = |v: &Tensor<4>| {
        let values = v.clone().reshape([batch, channels * height * width]);
        let centered = values.clone() - values.mean_dim(1);
        (centered.clone() * centered).mean_dim(1).sqrt().reshape([batch, 1, 1, 1])
    };
    let v = velocity(&guided);
    let ratio = deviation(&velocity(conditional)) / deviation(&v).clamp_min(1e-12);
    let v = v * (ratio * share + (1.0 - share));
    Prediction { variance: guided.variance, ..Prediction::from_v(v, x_t, &vec![level; batch]) }
}

/// CFG++ (Chung, Kim, Park, Nam and Ye 2024, arXiv:2406.08070): the clean image is guided, the noise that goes back on it is the
/// unconditional one, so that the chain stays near the data for small scales in [0, 1]. For [`ddim`](crate::ddim) without noise
/// and with `clip: None`: other samplers derive epsilon anew and lose the difference.
#[derive(Clone, Copy, Debug)]
pub struct CfgPlusPlus<C, U> {
    /// Knows the class.
    pub conditional: C,
    /// Does not.
    pub unconditional: U,
    /// The paper's lambda, in [0, 1].
    pub scale: f64,
    /// The guided x_0 is clipped to ± this; None leaves it as it is.
    pub clip: Option<f64>,
}

impl<C: Denoiser, U: Denoiser> Denoiser for CfgPlusPlus<C, U> {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, estimate: Option<&Tensor<4>>) -> Prediction {
        let conditional = self.conditional.denoise(x_t.clone(), level, estimate);
        let unconditional = self.unconditional.denoise(x_t, level, estimate);
        let x_0 = unconditional.x_0.clone() + (conditional.x_0 - unconditional.x_0) * self.scale;
        let x_0 = match self.clip {
            Some(limit) => x_0.clamp(-limit, limit),
            None => x_0,
        };
        Prediction { x_0, epsilon: unconditional.epsilon, variance: conditional.variance }
    }
}

/// What a classifier thinks of noised images.
pub trait Classifier {
    /// The gradient of `ln p(class | x_t)` with respect to x_t, for the class that each image is to have.
    ///
    /// # Shapes
    /// - `x_t`: `[batch, channels, height, width]`, all at the same `level`; the result has its shape
    fn log_probability_gradient(&self, x_t: Tensor<4>, level: NoiseLevel) -> Tensor<4>;
}

impl<C: Classifier + ?Sized> Classifier for Box<C> {
    fn log_probability_gradient(&self, x_t: Tensor<4>, level: NoiseLevel) -> Tensor<4> {
        (**self).log_probability_gradient(x_t, level)
    }
}

/// Classifier guidance (Dhariwal and Nichol 2021, arXiv:2105.05233, algorithm 2):
/// `epsilon - scale sqrt(1 - alpha_bar) grad ln p(class | x_t)`.
#[derive(Clone, Copy, Debug)]
pub struct ClassifierGuided<D, C> {
    /// The denoiser; it need not know classes.
    pub denoiser: D,
    /// Was trained on noised images.
    pub classifier: C,
    /// Scale of the gradient: 1 is Bayes' rule, above 1 exaggerates.
    pub scale: f64,
}

impl<D: Denoiser, C: Classifier> Denoiser for ClassifierGuided<D, C> {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, estimate: Option<&Tensor<4>>) -> Prediction {
        let prediction = self.denoiser.denoise(x_t.clone(), level, estimate);
        let gradient = self.classifier.log_probability_gradient(x_t, level);
        let noise = level.noise_scale();
        // x_0 = (x_t - s epsilon) / a moves by s^2 / a times the gradient; where there is no signal, nothing is known of it
        let towards = if level.alpha_bar > 0.0 { self.scale * noise * noise / level.signal_scale() } else { 0.0 };
        Prediction {
            x_0: prediction.x_0 + gradient.clone() * towards,
            epsilon: prediction.epsilon - gradient * (self.scale * noise),
            variance: prediction.variance,
        }
    }
}
