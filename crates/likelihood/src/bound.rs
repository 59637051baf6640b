//! The variational bound (Ho, Jain and Abbeel 2020, equation 5; computed as in improved-diffusion's `calc_bpd_loop`).

use burn::tensor::Tensor;
use core::f64::consts::LN_2;
use noise::{Noise, Purpose, forward::q_sample};
use sampler::Denoiser;
use schedule::Schedule;

use crate::{decoder::discrete_log_likelihood, error::LikelihoodError};

/// The variance of the model's reverse steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BoundVariance {
    /// That of the posterior, the first step's replaced by the second's.
    #[default]
    Posterior,
    /// beta, the first step's replaced by the second's posterior variance.
    Beta,
    /// As the network says, between the two.
    Learned,
}

/// How [`variational_bound`] computes.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundOptions {
    /// The variance of the model's steps.
    pub variance: BoundVariance,
    /// x_0 is clipped to ± this; None leaves it as it is.
    pub clip: Option<f64>,
    /// Which image of the seed each one in the batch is; None numbers them from 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl Default for BoundOptions {
    fn default() -> Self {
        Self { variance: BoundVariance::Posterior, clip: Some(1.0), noise_indices: None }
    }
}

/// The bound of each image and its parts, all in bits for each dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// The sum of all parts, one for each image.
    pub total: Vec<f64>,
    /// How far x_T is from the prior, one for each image.
    pub prior: Vec<f64>,
    /// The terms of the timesteps, `[timestep][image]`: 0 is the discrete decoder, the others are Kullback-Leibler
    /// divergences of a step.
    pub terms: Vec<Vec<f64>>,
    /// The mean square error of epsilon, `[timestep][image]`.
    pub epsilon_errors: Vec<Vec<f64>>,
}

/// An upper bound of `-log2 p(x_0)` for each image, in bits for each dimension: every timestep with one draw of noise.
///
/// # Shapes
/// - `x_0`: `[batch, channels, height, width]` in [-1, 1], of 256 values
///
/// The observer is told each timestep that is done, the last first.
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
    let device = x_0.device();
    let clean = read(&x_0);
    let timesteps = schedule.timesteps();

    let last = schedule.level(timesteps - 1);
    let prior = |image: &[f64]| {
        // KL(N(sqrt(alpha_bar) x_0, 1 - alpha_bar) || N(0, 1))
        let variance = 1.0 - last.alpha_bar;
        let kl = |x: &f64| 0.5 * (variance - 1.0 - variance.ln() + last.alpha_bar * x * x);
        image.iter().map(kl).sum::<f64>() / LN_2 / dimensions as f64
    };
    let prior: Vec<f64> = clean.chunks_exact(dimensions).map(prior).collect();

    let mut terms = vec![Vec::new(); timesteps];
    let mut epsilon_errors = vec![Vec::new(); timesteps];
    for t in (0..timesteps).rev() {
        let level = schedule.level(t);
        let epsilon = noise.stream(Purpose::Evaluation).normal_images(
            &noise_indices,
            t as u64,
            [channels, height, width],
            &device,
        );
        let epsilon = Tensor::<4>::from_data(epsilon.into_data(), (&device, x_0.dtype()));
        let x_t = q_sample(x_0.clone(), epsilon.clone(), &vec![level; batch]);
        let prediction = denoiser.denoise(x_t.clone(), level, None);
        let variance = match (options.variance, prediction.variance) {
            (BoundVariance::Learned, None) => return Err(LikelihoodError::NoLearnedVariance),
            (BoundVariance::Learned, Some(variance)) => Some(read(&variance)),
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
                return Err(LikelihoodError::NotFinite { timestep: t as f64 });
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

/// The numbers of one timestep.
struct Step {
    t: usize,
    /// Factors of x_0 and x_t in the posterior's mean.
    mean: [f64; 2],
    /// ln of the variance of the posterior q(x_{t-1} | x_t, x_0).
    posterior: f64,
    /// ln of the model's variance at the ends between which a learned one lies; both are the fixed one otherwise.
    model: [f64; 2],
}

impl Step {
    fn new(schedule: &Schedule, t: usize, variance: BoundVariance) -> Self {
        let posterior = schedule.posterior_log_variance_first_replaced()[t];
        let beta = schedule.betas()[t].ln();
        let model = match variance {
            BoundVariance::Posterior => [posterior; 2],
            // the first step's beta would be far too large
            BoundVariance::Beta if t == 0 => [posterior; 2],
            BoundVariance::Beta => [beta; 2],
            BoundVariance::Learned => [posterior, beta],
        };
        let mean = [schedule.posterior_mean_coef1()[t], schedule.posterior_mean_coef2()[t]];
        Self { t, mean, posterior, model }
    }

    /// The bits of one dimension: minus the log-likelihood of the decoder at t = 0, the divergence of the step from the
    /// posterior elsewhere.
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
