//! Solvers in the noise level sigma (Karras, Aittala, Aila and Laine 2022, arXiv:2206.00364): Euler, Heun, Euler with
//! ancestral noise, and the paper's stochastic sampler.
//!
//! With sigma the noise-to-signal ratio, the probability-flow ODE is `d(x / alpha) / d sigma = epsilon`, whatever the
//! schedule: a variance-preserving x_t is walked in `x_t / alpha` and needs no model of its own.

use burn::tensor::Tensor;
use noise::{Noise, Prediction};
use schedule::NoiseLevel;

use crate::{
    denoiser::{Denoiser, Observer, Step},
    error::{SamplerError, check, check_clip, check_finite_sigma, check_range},
    step::{fresh_noise, numbered, predict},
};

/// `x` moved along epsilon from one level to another: `x'/alpha' = x/alpha + (sigma' - sigma) epsilon`.
fn move_along(x: &Tensor<4>, epsilon: Tensor<4>, level: NoiseLevel, next: NoiseLevel) -> Tensor<4> {
    (x.clone() / level.signal_scale() + epsilon * (next.sigma() - level.sigma())) * next.signal_scale()
}

/// Walks from `x_t` at `levels[0]` to the last of `levels` by Euler's method and returns the image there. The same as
/// DDIM without noise, by another road. x_0 is clipped to ± `clip`, if given.
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
    walk(denoiser, x_t, levels, clip, observe, |x, prediction, level, next| {
        move_along(x, prediction.epsilon.clone(), level, next)
    })
}

/// Walks from `x_t` at `levels[0]` to the last of `levels` by Heun's method and returns the image there: algorithm 1 of
/// the paper. Each step but that to clean data evaluates twice. x_0 is clipped to ± `clip`, if given.
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
    walk(denoiser, x_t, levels, clip, observe, |x, prediction, level, next| {
        heun_step(denoiser, x, prediction, level, next, clip)
    })
}

/// The chain of a method without noise, which moves x from one level to the next by what the denoiser says of it there.
fn walk(
    denoiser: &dyn Denoiser,
    x_t: Tensor<4>,
    levels: &[NoiseLevel],
    clip: Option<f64>,
    observe: &mut Observer,
    step: impl Fn(&Tensor<4>, &Prediction, NoiseLevel, NoiseLevel) -> Tensor<4>,
) -> Result<Tensor<4>, SamplerError> {
    check(levels, &x_t, None)?;
    check_finite_sigma(levels)?;
    check_clip(clip)?;
    let count = levels.len() - 1;
    let (mut x, mut estimate) = (x_t, None);
    for (index, pair) in levels.windows(2).enumerate() {
        let (level, next) = (pair[0], pair[1]);
        let prediction = predict(denoiser, &x, level, clip, estimate.as_ref());
        x = step(&x, &prediction, level, next);
        observe(Step { index, count, level: next, x_t: &x, x_0: &prediction.x_0 });
        estimate = Some(prediction.x_0);
    }
    Ok(x)
}

/// Euler's step, and once more with the mean slope of both ends, unless the end is clean data.
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

/// How [`euler_ancestral`] walks.
#[derive(Clone, Debug, PartialEq)]
pub struct EulerAncestralOptions {
    /// How much of the noise is made anew in a step: 0 is Euler's method, 1 DDPM's posterior variance. At least 0.
    pub eta: f64,
    /// x_0 is clipped to ± this and epsilon derived anew; None leaves both as they are.
    pub clip: Option<f64>,
    /// Which image of the seed each one in the batch is; None numbers them from 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl Default for EulerAncestralOptions {
    fn default() -> Self {
        Self { eta: 1.0, clip: Some(1.0), noise_indices: None }
    }
}

/// Walks from `x_t` at `levels[0]` to the last of `levels` and returns the image there: Euler's method to a level that is
/// cleaner than the next, and fresh noise up to it (k-diffusion's `sample_euler_ancestral`).
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
    check(levels, &x_t, options.noise_indices.as_deref())?;
    check_finite_sigma(levels)?;
    check_clip(options.clip)?;
    check_range("eta", options.eta, options.eta >= 0.0 && options.eta.is_finite(), "0 or more")?;
    let noise_indices = numbered(options.noise_indices, &x_t);
    let count = levels.len() - 1;
    let (mut x, mut estimate) = (x_t, None);
    for (index, pair) in levels.windows(2).enumerate() {
        let (level, next) = (pair[0], pair[1]);
        let prediction = predict(denoiser, &x, level, options.clip, estimate.as_ref());
        // the variance that comes in fresh, that of the posterior at eta = 1, and what is left for the step
        let (from, to) = (level.sigma(), next.sigma());
        let up = (options.eta * (to * to * (from * from - to * to) / (from * from)).sqrt()).min(to);
        let down = (to * to - up * up).max(0.0).sqrt();
        x = (x / level.signal_scale() + prediction.epsilon * (down - from)) * next.signal_scale();
        if up > 0.0 {
            x = x.clone() + fresh_noise(noise, &noise_indices, index, &x) * (up * next.signal_scale());
        }
        observe(Step { index, count, level: next, x_t: &x, x_0: &prediction.x_0 });
        estimate = Some(prediction.x_0);
    }
    Ok(x)
}

/// How [`edm_stochastic`] walks. The names in brackets are the paper's.
#[derive(Clone, Debug, PartialEq)]
pub struct EdmOptions {
    /// How much noise is added in all (S_churn); 0 is Heun's method. At least 0.
    pub churn: f64,
    /// Noise is added only between these sigmas (S_tmin, S_tmax).
    pub churn_range: [f64; 2],
    /// Standard deviation of the added noise (S_noise): slightly above 1 makes up for denoisers that take away too much.
    pub noise_inflation: f64,
    /// x_0 is clipped to ± this and epsilon derived anew; None leaves both as they are.
    pub clip: Option<f64>,
    /// Which image of the seed each one in the batch is; None numbers them from 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl Default for EdmOptions {
    /// The paper's for CIFAR-10 are 30, 0.01 to 1 and 1.007; these are no noise at all.
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

/// Walks from `x_t` at `levels[0]` to the last of `levels` and returns the image there: algorithm 2 of the paper. Before
/// each step noise is added, which takes x_t to a higher level; `level_at` says what a network is told at a sigma between
/// those of the levels ([`schedule::Schedule::level_at_sigma`]). A level is never raised above the first.
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
    check(levels, &x_t, options.noise_indices.as_deref())?;
    check_finite_sigma(levels)?;
    check_clip(options.clip)?;
    check_range("churn", options.churn, options.churn >= 0.0 && options.churn.is_finite(), "0 or more")?;
    let inflation = options.noise_inflation;
    check_range("noise_inflation", inflation, inflation >= 0.0 && inflation.is_finite(), "0 or more")?;
    let noise_indices = numbered(options.noise_indices, &x_t);
    let count = levels.len() - 1;
    let highest = levels[0].sigma();
    let (mut x, mut estimate) = (x_t, None);
    for (index, pair) in levels.windows(2).enumerate() {
        let (mut level, next) = (pair[0], pair[1]);
        let [least, most] = options.churn_range;
        if options.churn > 0.0 && (least..=most).contains(&level.sigma()) {
            // gamma of the paper: at most doubling the variance, and never more than the network has seen
            let gamma = (options.churn / count as f64).min(2f64.sqrt() - 1.0);
            let raised = (level.sigma() * (1.0 + gamma)).min(highest);
            if raised > level.sigma() {
                let added = (raised.powi(2) - level.sigma().powi(2)).sqrt() * inflation;
                let raised = level_at(raised);
                x = (x.clone() / level.signal_scale() + fresh_noise(noise, &noise_indices, index, &x) * added)
                    * raised.signal_scale();
                level = raised;
            }
        }
        let prediction = predict(denoiser, &x, level, options.clip, estimate.as_ref());
        x = heun_step(denoiser, &x, &prediction, level, next, options.clip);
        observe(Step { index, count, level: next, x_t: &x, x_0: &prediction.x_0 });
        estimate = Some(prediction.x_0);
    }
    Ok(x)
}
