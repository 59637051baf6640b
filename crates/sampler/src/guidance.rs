//! Guidance: denoisers made of two denoisers, or of one and a classifier.

use burn::tensor::Tensor;
use noise::{Objective, Prediction, target};
use schedule::NoiseLevel;

use crate::{
    denoiser::Denoiser,
    error::{SamplerError, check_range},
};

/// Guidance by the difference of two denoisers: `u + scale (c - u)`. Scale 1 is c alone, 0 is u alone; above 1 the difference
/// is extrapolated, at a cost in variety.
///
/// - Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598): c is conditional on the class, u is not.
/// - Autoguidance (Karras et al. 2024, arXiv:2406.02507): u is a weaker version of c (smaller, or trained for fewer steps),
///   for the same class; the difference points away from the errors of c, and costs less variety.
#[derive(Clone, Copy, Debug)]
pub struct Guided<C, U> {
    /// The denoiser c.
    pub conditional: C,
    /// The denoiser u.
    pub unconditional: U,
    /// The guidance scale.
    pub scale: f64,
    /// Range of sigma with guidance; elsewhere c alone is evaluated, at half the cost (Kynkäänniemi et al. 2024,
    /// arXiv:2404.07724: guidance is harmful at the ends of the chain).
    pub interval: [f64; 2],
    /// Share, in [0, 1], by which the standard deviation of the guided v of each image is rescaled to that of c (Lin et al.
    /// 2023, arXiv:2305.08891, equations 15 and 16, who recommend 0.7 against overexposed images). 0 is none.
    pub rescale: f64,
}

impl<C, U> Guided<C, U> {
    /// Guidance at all levels, without rescaling.
    pub fn new(conditional: C, unconditional: U, scale: f64) -> Self {
        Self { conditional, unconditional, scale, interval: [0.0, f64::INFINITY], rescale: 0.0 }
    }

    /// Checks the ranges of the options.
    ///
    /// # Errors
    /// [`SamplerError::OutOfRange`] names the option that is out of range.
    pub fn check(&self) -> Result<(), SamplerError> {
        check_range("guidance", self.scale, self.scale.is_finite(), "a finite number")?;
        check_range("guidance_rescale", self.rescale, (0.0..=1.0).contains(&self.rescale), "between 0 and 1")?;
        let [least, most] = self.interval;
        check_range("guidance_interval", least, least >= 0.0, "0 or more at its lower end")?;
        check_range("guidance_interval", most, most >= least, "in the order lower, upper")
    }

    /// Whether both denoisers are evaluated at a level.
    pub fn needs_both(&self, level: NoiseLevel) -> bool {
        let [least, most] = self.interval;
        self.scale != 1.0 && self.scale != 0.0 && (least..=most).contains(&level.sigma())
    }

    /// The guided prediction from those of c and u for `x_t`.
    pub fn mix(&self, [conditional, unconditional]: [Prediction; 2], x_t: Tensor<4>, level: NoiseLevel) -> Prediction {
        let mix = |u: Tensor<4>, c: Tensor<4>| u.clone() + (c - u) * self.scale;
        let guided = Prediction {
            x_0: mix(unconditional.x_0, conditional.x_0.clone()),
            epsilon: mix(unconditional.epsilon, conditional.epsilon.clone()),
            variance: conditional.variance.clone(),
        };
        if self.rescale == 0.0 { guided } else { rescaled(guided, &conditional, x_t, level, self.rescale) }
    }
}

impl<C: Denoiser, U: Denoiser> Denoiser for Guided<C, U> {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, self_condition: Option<&Tensor<4>>) -> Prediction {
        let [least, most] = self.interval;
        if self.scale == 1.0 || !(least..=most).contains(&level.sigma()) {
            return self.conditional.denoise(x_t, level, self_condition);
        }
        if self.scale == 0.0 {
            return self.unconditional.denoise(x_t, level, self_condition);
        }
        let conditional = self.conditional.denoise(x_t.clone(), level, self_condition);
        let unconditional = self.unconditional.denoise(x_t.clone(), level, self_condition);
        self.mix([conditional, unconditional], x_t, level)
    }
}

/// `guided` with its v rescaled, image by image and by this share, to the standard deviation of `conditional`'s.
fn rescaled(guided: Prediction, conditional: &Prediction, x_t: Tensor<4>, level: NoiseLevel, share: f64) -> Prediction {
    let [batch, channels, height, width] = x_t.dims();
    let levels = vec![level; batch];
    let velocity =
        |prediction: &Prediction| target(Objective::V, prediction.x_0.clone(), prediction.epsilon.clone(), &levels);
    let deviation = |v: &Tensor<4>| {
        let values = v.clone().reshape([batch, channels * height * width]);
        let centered = values.clone() - values.mean_dim(1);
        (centered.clone() * centered).mean_dim(1).sqrt().reshape([batch, 1, 1, 1])
    };
    let v = velocity(&guided);
    let ratio = deviation(&velocity(conditional)) / deviation(&v).clamp_min(1e-12);
    let v = v * (ratio * share + (1.0 - share));
    Prediction { variance: guided.variance, ..Prediction::from_v(v, x_t, &levels) }
}

/// CFG++ (Chung, Kim, Park, Nam and Ye 2024, arXiv:2406.08070): x_0 is guided and epsilon is unconditional, so that the chain
/// stays near the data for small scales in [0, 1]. For [`ddim`](crate::ddim) without noise and with `clip: None`: other samplers
/// derive epsilon from x_0 and lose the difference.
#[derive(Clone, Copy, Debug)]
pub struct CfgPlusPlus<C, U> {
    /// The denoiser that is conditional on the class.
    pub conditional: C,
    /// The unconditional denoiser.
    pub unconditional: U,
    /// The paper's lambda, in [0, 1].
    pub scale: f64,
    /// The guided x_0 is clipped to ± this; None leaves it unclipped.
    pub clip: Option<f64>,
}

impl<C: Denoiser, U: Denoiser> Denoiser for CfgPlusPlus<C, U> {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, self_condition: Option<&Tensor<4>>) -> Prediction {
        let conditional = self.conditional.denoise(x_t.clone(), level, self_condition);
        let unconditional = self.unconditional.denoise(x_t, level, self_condition);
        let x_0 = unconditional.x_0.clone() + (conditional.x_0 - unconditional.x_0) * self.scale;
        let x_0 = match self.clip {
            Some(limit) => x_0.clamp(-limit, limit),
            None => x_0,
        };
        Prediction { x_0, epsilon: unconditional.epsilon, variance: conditional.variance }
    }
}

/// A classifier of noised images, with the class that each image of a batch shall have.
pub trait Classifier {
    /// Returns the gradient of `ln p(class | x_t)` with respect to x_t.
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
    /// The denoiser, which may be unconditional.
    pub denoiser: D,
    /// The classifier, trained on noised images.
    pub classifier: C,
    /// Scale of the gradient: 1 is Bayes' rule, above 1 extrapolates.
    pub scale: f64,
}

impl<D: Denoiser, C: Classifier> Denoiser for ClassifierGuided<D, C> {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, self_condition: Option<&Tensor<4>>) -> Prediction {
        let prediction = self.denoiser.denoise(x_t.clone(), level, self_condition);
        let gradient = self.classifier.log_probability_gradient(x_t, level);
        let noise = level.noise_scale();
        // x_0 = (x_t - n epsilon) / a moves by n^2 / a times the gradient; without signal x_0 is undetermined
        let of_gradient = if level.alpha_bar > 0.0 { self.scale * noise * noise / level.signal_scale() } else { 0.0 };
        Prediction {
            x_0: prediction.x_0 + gradient.clone() * of_gradient,
            epsilon: prediction.epsilon - gradient * (self.scale * noise),
            variance: prediction.variance,
        }
    }
}
