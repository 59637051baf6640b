//! The variational bound (Ho, Jain and Abbeel 2020, arXiv:2006.11239, equation 5; computed as in improved-diffusion's
//! `calc_bpd_loop`).

use burn::tensor::Tensor;
use core::f64::consts::LN_2;
use noise::{Noise, Purpose, decoder::discrete_log_likelihood, forward::q_sample};
use sampler::{Denoiser, Variance};
use schedule::Schedule;

use crate::error::LikelihoodError;

/// Options of [`variational_bound`].
#[derive(Clone, Debug, PartialEq)]
pub struct BoundOptions {
    /// The variance of the model's reverse steps. That of the first step is the posterior variance of the second, unless it
    /// is learned.
    pub variance: Variance,
    /// x_0 is clipped to ± this; None leaves it unclipped.
    pub clip: Option<f64>,
    /// Noise index of each image; None numbers them from 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl Default for BoundOptions {
    fn default() -> Self {
        Self { variance: Variance::Posterior, clip: Some(1.0), noise_indices: None }
    }
}

/// The bound of each image and its parts, all in bits per dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// The sum of all parts, one for each image.
    pub total: Vec<f64>,
    /// The Kullback-Leibler divergence of q(x_T | x_0) from the prior, one for each image.
    pub prior: Vec<f64>,
    /// The terms of the timesteps, `[timestep][image]`: 0 is that of the discrete decoder, the others are the
    /// Kullback-Leibler divergences of the model's steps from the posterior.
    pub terms: Vec<Vec<f64>>,
    /// The mean square error of epsilon, `[timestep][image]`.
    pub epsilon_errors: Vec<Vec<f64>>,
}

/// Returns an upper bound of `-log2 p(x_0)` for each image, in bits per dimension, from one draw of noise for each timestep.
/// `observe` is called after each timestep, the last first.
///
/// # Shapes
/// - `x_0`: `[batch, channels, height, width]` in [-1, 1], of 256 values
///
/// # Errors
/// [`LikelihoodError::NoLearnedVariance`] and [`LikelihoodError::NotFinite`].
pub fn variational_bound(
    denoiser: &dyn Denoiser,
    x_0: Tensor<4>,
    schedule: &Schedule,
    options: BoundOptions,
    noise: &Noise,
    observe: &mut dyn FnMut(usize),
) -> Result<Bound, LikelihoodError> {
    let [batch, channels, height, width] = x_0.dims();
    let dimensions = channels * height * width;
    let noise_indices = options.noise_indices.unwrap_or_else(|| (0..batch as u64).collect());
    let clean = read(&x_0);
    let timesteps = schedule.timesteps();

    let last = schedule.level(timesteps - 1);
    let prior = |image: &[f64]| {
        // the divergence of N(sqrt(alpha_bar) x_0, 1 - alpha_bar) from N(0, 1)
        let variance = 1.0 - last.alpha_bar;
        let kl = |x: &f64| 0.5 * (variance - 1.0 - variance.ln() + last.alpha_bar * x * x);
        image.iter().map(kl).sum::<f64>() / LN_2 / dimensions as f64
    };
    let prior: Vec<f64> = clean.chunks_exact(dimensions).map(prior).collect();

    let mut terms = vec![Vec::new(); timesteps];
    let mut epsilon_errors = vec![Vec::new(); timesteps];
    for t in (0..timesteps).rev() {
        let level = schedule.level(t);
        let epsilon = noise.stream(Purpose::Evaluation).normal_like(&noise_indices, t as u64, &x_0);
        let x_t = q_sample(x_0.clone(), epsilon.clone(), &vec![level; batch]);
        let prediction = denoiser.denoise(x_t.clone(), level, None);
        let variance = match (options.variance, prediction.variance) {
            (Variance::Learned, None) => return Err(LikelihoodError::NoLearnedVariance),
            (Variance::Learned, Some(variance)) => Some(read(&variance)),
            _ => None,
        };
        let (x_t, epsilon, predicted_epsilon) = (read(&x_t), read(&epsilon), read(&prediction.epsilon));
        let mut predicted = read(&prediction.x_0);
        if let Some(limit) = options.clip {
            predicted.iter_mut().for_each(|value| *value = value.clamp(-limit, limit));
        }

        let step = Step::new(schedule, t, options.variance);
        for image in 0..batch {
            let range = image * dimensions..(image + 1) * dimensions;
            let term = |index: usize| {
                let fraction = variance.as_ref().map(|variance| (variance[index] + 1.0) / 2.0);
                step.bits(clean[index], x_t[index], predicted[index], fraction)
            };
            let bits = range.clone().map(term).sum::<f64>() / dimensions as f64;
            if !bits.is_finite() {
                return Err(LikelihoodError::NotFinite { sigma: level.sigma() });
            }
            terms[t].push(bits);
            let error = |index: usize| (epsilon[index] - predicted_epsilon[index]).powi(2);
            epsilon_errors[t].push(range.map(error).sum::<f64>() / dimensions as f64);
        }
        observe(t);
    }
    let total = (0..batch).map(|image| prior[image] + terms.iter().map(|term| term[image]).sum::<f64>()).collect();
    Ok(Bound { total, prior, terms, epsilon_errors })
}

/// The coefficients of one timestep.
struct Step {
    t: usize,
    /// Factors of x_0 and x_t in the posterior mean.
    mean: [f64; 2],
    /// ln of the variance of the posterior q(x_{t-1} | x_t, x_0).
    posterior: f64,
    /// ln of the model's variance at the ends between which a learned one lies; a fixed one is at both.
    model: [f64; 2],
}

impl Step {
    fn new(schedule: &Schedule, t: usize, variance: Variance) -> Self {
        let posterior = schedule.posterior_log_variance_first_replaced()[t];
        let beta = schedule.betas()[t].ln();
        let model = match variance {
            Variance::Learned => [posterior, beta],
            // the beta of the first step is far too large
            Variance::Beta if t > 0 => [beta; 2],
            Variance::Posterior | Variance::Beta => [posterior; 2],
        };
        let mean = [schedule.posterior_mean_coef1()[t], schedule.posterior_mean_coef2()[t]];
        Self { t, mean, posterior, model }
    }

    /// The bits of one dimension: the negative log-likelihood of the decoder at t = 0, the divergence of the model's step
    /// from the posterior elsewhere.
    fn bits(&self, x_0: f64, x_t: f64, predicted: f64, fraction: Option<f64>) -> f64 {
        let [least, most] = self.model;
        let log_variance = fraction.map_or(least, |fraction| fraction * most + (1.0 - fraction) * least);
        let model_mean = self.mean[0] * predicted + self.mean[1] * x_t;
        if self.t == 0 {
            return -discrete_log_likelihood(x_0, model_mean, 0.5 * log_variance) / LN_2;
        }
        let difference = self.mean[0] * (x_0 - predicted);
        let ratio = self.posterior - log_variance;
        0.5 * (ratio.exp() - 1.0 - ratio + difference * difference * (-log_variance).exp()) / LN_2
    }
}

fn read(x: &Tensor<4>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}
