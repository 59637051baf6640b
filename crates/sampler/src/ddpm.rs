//! Ancestral sampling (Ho, Jain and Abbeel 2020, arXiv:2006.11239, algorithm 2), over all steps or fewer.

use burn::tensor::Tensor;
use noise::Noise;
use schedule::NoiseLevel;
use serde::{Deserialize, Serialize};

use crate::{
    denoiser::{Denoiser, Observer, Step},
    error::{SamplerError, check, check_clip},
    step::{Posterior, fresh_noise, numbered},
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
    /// Between the two on a logarithmic scale, as the network says (Nichol and Dhariwal 2021, equation 15).
    Learned,
}

/// How [`ddpm`] walks.
#[derive(Clone, Debug, PartialEq)]
pub struct DdpmOptions {
    /// The variance of each step.
    pub variance: Variance,
    /// x_0 is clipped to ± this; None leaves it as it is.
    pub clip: Option<f64>,
    /// Which image of the seed each one in the batch is; None numbers them from 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl Default for DdpmOptions {
    fn default() -> Self {
        Self { variance: Variance::Posterior, clip: Some(1.0), noise_indices: None }
    }
}

/// The posterior variance is never taken below this, so that its logarithm exists (lucidrains, OpenAI).
const SMALLEST_VARIANCE: f64 = 1e-20;

/// Walks from `x_t` at `levels[0]` to the last of `levels` and returns the image there.
///
/// Between two levels the chain is that of a schedule with these alpha_bars alone: `alpha = alpha_bar /
/// alpha_bar_next`, `beta = 1 - alpha`, and the posterior of equations 6 and 7. Over fewer levels than the training had
/// steps this is OpenAI's respaced sampling. The last step adds no noise.
///
/// # Errors
/// [`SamplerError`] if the levels do not get cleaner, an option is out of range, or the variance is to be learned and the
/// denoiser has none.
pub fn ddpm(
    denoiser: &dyn Denoiser,
    x_t: Tensor<4>,
    levels: &[NoiseLevel],
    options: DdpmOptions,
    noise: &Noise,
    observe: &mut Observer,
) -> Result<Tensor<4>, SamplerError> {
    check(levels, &x_t, options.noise_indices.as_deref())?;
    check_clip(options.clip)?;
    let noise_indices = numbered(options.noise_indices, &x_t);
    let count = levels.len() - 1;
    let (mut x, mut estimate) = (x_t, None);

    for (index, pair) in levels.windows(2).enumerate() {
        let (level, next) = (pair[0], pair[1]);
        let mut prediction = denoiser.denoise(x.clone(), level, estimate.as_ref());
        if options.variance == Variance::Learned && prediction.variance.is_none() {
            return Err(SamplerError::NoLearnedVariance);
        }
        if let Some(limit) = options.clip {
            prediction.x_0 = prediction.x_0.clamp(-limit, limit);
        }
        let Posterior { of_x_0, of_x_t, variance, beta } = Posterior::new(level, next);
        let mean = prediction.x_0.clone() * of_x_0 + x * of_x_t;

        x = if index + 1 == count {
            mean
        } else {
            let z = fresh_noise(noise, &noise_indices, index, &mean);
            let posterior = variance.max(SMALLEST_VARIANCE);
            match options.variance {
                Variance::Posterior => mean + z * posterior.sqrt(),
                Variance::Beta => mean + z * beta.sqrt(),
                Variance::Learned => {
                    let Some(between) = prediction.variance else { return Err(SamplerError::NoLearnedVariance) };
                    let fraction = (between + 1.0) * 0.5;
                    let log_variance = fraction * (beta.ln() - posterior.ln()) + posterior.ln();
                    mean + z * (log_variance * 0.5).exp()
                }
            }
        };
        observe(Step { index, count, level: next, x_t: &x, x_0: &prediction.x_0 });
        estimate = Some(prediction.x_0);
    }
    Ok(x)
}
