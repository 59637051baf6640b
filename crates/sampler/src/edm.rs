//! Solvers in the noise level sigma (Karras, Aittala, Aila and Laine 2022, arXiv:2206.00364): Euler, Heun, Euler with
//! ancestral noise, and the paper's stochastic sampler.
//!
//! With sigma the noise-to-signal ratio, the probability-flow ODE is `d(x / alpha) / d sigma = epsilon` for any schedule: the
//! solvers integrate `x_t / alpha`, and serve variance-preserving networks.

use burn::tensor::Tensor;
use noise::{Noise, Prediction};
use schedule::NoiseLevel;

use crate::{
    denoiser::{Denoiser, Observer, Step},
    error::{SamplerError, check_clip, check_eta, check_levels_with_signal, check_range},
    step::{Interval, StepNoise, move_along, predict, walk},
};

/// Samples by Euler's method, from `x_t` at `levels[0]` to the last of `levels`: equal to DDIM without noise, computed in
/// sigma. x_0 is clipped to ± `clip`, if given, and epsilon derived from it.
///
/// # Shapes
/// - `x_t` and the result: `[batch, channels, height, width]`
///
/// # Errors
/// [`SamplerError`] if the levels do not get cleaner, the first has no signal at all, or `clip` is not above 0.
pub fn euler(
    denoiser: &dyn Denoiser,
    x_t: Tensor<4>,
    levels: &[NoiseLevel],
    clip: Option<f64>,
    observe: &mut Observer,
) -> Result<Tensor<4>, SamplerError> {
    check_levels_with_signal(levels)?;
    walk(denoiser, x_t, levels, clip, observe, |Interval { level, next, .. }, x, prediction| {
        Ok(move_along(&x, prediction.epsilon, level, next))
    })
}

/// Samples by Heun's method, from `x_t` at `levels[0]` to the last of `levels`: algorithm 1 of the paper. Each step costs two
/// network evaluations, that to clean data one. x_0 is clipped to ± `clip`, if given, and epsilon derived from it.
///
/// # Shapes
/// - `x_t` and the result: `[batch, channels, height, width]`
///
/// # Errors
/// [`SamplerError`] if the levels do not get cleaner, the first has no signal at all, or `clip` is not above 0.
pub fn heun(
    denoiser: &dyn Denoiser,
    x_t: Tensor<4>,
    levels: &[NoiseLevel],
    clip: Option<f64>,
    observe: &mut Observer,
) -> Result<Tensor<4>, SamplerError> {
    check_levels_with_signal(levels)?;
    walk(denoiser, x_t, levels, clip, observe, |Interval { level, next, .. }, x, prediction| {
        Ok(heun_step(denoiser, &x, &prediction, level, next, clip))
    })
}

/// Euler's step, repeated with the mean slope of both ends, unless the end is clean data.
fn heun_step(
    denoiser: &dyn Denoiser,
    x: &Tensor<4>,
    prediction: &Prediction,
    level: NoiseLevel,
    next: NoiseLevel,
    clip: Option<f64>,
) -> Tensor<4> {
    let euler = move_along(x, prediction.epsilon.clone(), level, next);
    if next.alpha_bar == 1.0 {
        return euler;
    }
    let end = predict(denoiser, &euler, next, clip, Some(&prediction.x_0)).epsilon;
    move_along(x, (prediction.epsilon.clone() + end) / 2.0, level, next)
}

/// Options of [`euler_ancestral`].
#[derive(Clone, Debug, PartialEq)]
pub struct EulerAncestralOptions {
    /// Share of the posterior's standard deviation that each step adds as fresh noise: 0 is Euler's method, 1 DDPM's
    /// posterior variance. At least 0.
    pub eta: f64,
    /// x_0 is clipped to ± this and epsilon derived from it; None leaves both unchanged.
    pub clip: Option<f64>,
    /// Noise index of each image; None numbers them from 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl Default for EulerAncestralOptions {
    fn default() -> Self {
        Self { eta: 1.0, clip: Some(1.0), noise_indices: None }
    }
}

/// Samples by Euler's method with ancestral noise, from `x_t` at `levels[0]` to the last of `levels`: each step goes to a
/// cleaner level than the next one and adds fresh noise up to it (k-diffusion's `sample_euler_ancestral`).
///
/// # Shapes
/// - `x_t` and the result: `[batch, channels, height, width]`
///
/// # Errors
/// [`SamplerError`] if the levels do not get cleaner, the first has no signal at all, or an option is out of range.
pub fn euler_ancestral(
    denoiser: &dyn Denoiser,
    x_t: Tensor<4>,
    levels: &[NoiseLevel],
    options: EulerAncestralOptions,
    noise: &Noise,
    observe: &mut Observer,
) -> Result<Tensor<4>, SamplerError> {
    check_levels_with_signal(levels)?;
    check_eta(options.eta)?;
    let step_noise = StepNoise::new(noise, options.noise_indices, &x_t)?;
    walk(denoiser, x_t, levels, options.clip, observe, |Interval { index, level, next, .. }, x, prediction| {
        // the deviation of the fresh noise, that of the posterior at eta = 1, and the sigma at the end of Euler's step
        let (from, to) = (level.sigma(), next.sigma());
        let up = (options.eta * (to * to * (from * from - to * to) / (from * from)).sqrt()).min(to);
        let down = (to * to - up * up).max(0.0).sqrt();
        let x = (x / level.signal_scale() + prediction.epsilon * (down - from)) * next.signal_scale();
        Ok(step_noise.add(x, index, up * next.signal_scale()))
    })
}

/// Options of [`edm_stochastic`], with the paper's names in brackets.
#[derive(Clone, Debug, PartialEq)]
pub struct EdmOptions {
    /// Amount of noise added over the whole chain (S_churn); 0 is Heun's method. At least 0.
    pub churn: f64,
    /// Range of sigma in which noise is added (S_tmin, S_tmax).
    pub churn_range: [f64; 2],
    /// Standard deviation of the added noise (S_noise): slightly above 1 compensates denoisers that remove too much.
    pub noise_inflation: f64,
    /// x_0 is clipped to ± this and epsilon derived from it; None leaves both unchanged.
    pub clip: Option<f64>,
    /// Noise index of each image; None numbers them from 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl Default for EdmOptions {
    /// No added noise. The paper's values for CIFAR-10 are 30, 0.01 to 1 and 1.007.
    fn default() -> Self {
        Self {
            churn: 0.0,
            churn_range: [0.0, f64::INFINITY],
            noise_inflation: 1.0,
            clip: Some(1.0),
            noise_indices: None,
        }
    }
}

/// Samples by EDM's stochastic sampler, from `x_t` at `levels[0]` to the last of `levels`: algorithm 2 of the paper. Before each
/// step noise is added, which raises the noise level, at most to the first; `level_at` gives the level of a sigma between
/// those of the levels ([`schedule::Schedule::level_at_sigma`]).
///
/// # Shapes
/// - `x_t` and the result: `[batch, channels, height, width]`
///
/// # Errors
/// [`SamplerError`] if the levels do not get cleaner, the first has no signal at all, or an option is out of range.
pub fn edm_stochastic(
    denoiser: &dyn Denoiser,
    x_t: Tensor<4>,
    levels: &[NoiseLevel],
    level_at: &dyn Fn(f64) -> NoiseLevel,
    options: EdmOptions,
    noise: &Noise,
    observe: &mut Observer,
) -> Result<Tensor<4>, SamplerError> {
    check_levels_with_signal(levels)?;
    check_clip(options.clip)?;
    check_range("churn", options.churn, options.churn >= 0.0 && options.churn.is_finite(), "0 or more")?;
    let inflation = options.noise_inflation;
    check_range("noise_inflation", inflation, inflation >= 0.0 && inflation.is_finite(), "0 or more")?;
    let step_noise = StepNoise::new(noise, options.noise_indices, &x_t)?;
    let count = levels.len() - 1;
    let highest = levels[0].sigma();
    let (mut x, mut self_condition) = (x_t, None);
    for (index, pair) in levels.windows(2).enumerate() {
        let (mut level, next) = (pair[0], pair[1]);
        let [least, most] = options.churn_range;
        if options.churn > 0.0 && (least..=most).contains(&level.sigma()) {
            // gamma of the paper, which at most doubles the variance; no level is above those of the training
            let gamma = (options.churn / count as f64).min(2f64.sqrt() - 1.0);
            let raised = (level.sigma() * (1.0 + gamma)).min(highest);
            if raised > level.sigma() {
                let added = (raised.powi(2) - level.sigma().powi(2)).sqrt() * inflation;
                let raised = level_at(raised);
                let z = step_noise.draw(index, &x);
                x = (x / level.signal_scale() + z * added) * raised.signal_scale();
                level = raised;
            }
        }
        let prediction = predict(denoiser, &x, level, options.clip, self_condition.as_ref());
        x = heun_step(denoiser, &x, &prediction, level, next, options.clip);
        observe(Step { index, count, level: next, x_t: &x, x_0: &prediction.x_0 });
        self_condition = Some(prediction.x_0);
    }
    Ok(x)
}
