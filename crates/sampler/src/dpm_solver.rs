//! DPM-Solver++ (Lu, Zhou, Bao, Chen, Li and Zhu 2022, arXiv:2211.01095): multistep, of order 1 to 3, as the ODE or as
//! the SDE.

use std::collections::VecDeque;

use burn::tensor::Tensor;
use noise::Noise;
use schedule::NoiseLevel;

use crate::{
    denoiser::{Denoiser, Observer, Step},
    error::{SamplerError, check, check_clip, check_range},
    step::{fresh_noise, lambda, numbered, predict},
};

/// How a step of second order uses the estimate before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecondOrder {
    /// As if the slope were that of the middle of the step (the paper's choice, and diffusers' default).
    #[default]
    Midpoint,
    /// The slope integrated exactly (diffusers' `heun`).
    Heun,
}

/// How a step of third order weighs the curvature of x_0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThirdOrder {
    /// By half of what the integral gives, as in the authors' code, k-diffusion and diffusers: equal to their pictures, and
    /// of second order (`tests/convergence.rs` measures it).
    #[default]
    Peers,
    /// By the integral of the parabola through the three estimates: of third order.
    Exact,
}

/// How [`dpm_solver_plus_plus`] walks.
#[derive(Clone, Debug, PartialEq)]
pub struct DpmSolverOptions {
    /// How many estimates of x_0 a step uses, 1 to 3: 2 is "2M", 3 is "3M". The first steps have fewer.
    pub order: usize,
    /// How random a step is: 0 is the ODE, 1 the SDE ("2M SDE"), as k-diffusion's `eta`. At least 0.
    pub eta: f64,
    /// The steps of second order.
    pub second_order: SecondOrder,
    /// The steps of third order.
    pub third_order: ThirdOrder,
    /// Whether a run of fewer than 15 steps ends in steps of lower order, as diffusers does. The step to clean data is
    /// always of first order.
    pub lower_order_final: bool,
    /// x_0 is clipped to ± this; None leaves it as it is.
    pub clip: Option<f64>,
    /// Which image of the seed each one in the batch is; None numbers them from 0. Matters only for `eta` above 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl Default for DpmSolverOptions {
    fn default() -> Self {
        Self {
            order: 2,
            eta: 0.0,
            second_order: SecondOrder::Midpoint,
            third_order: ThirdOrder::Peers,
            lower_order_final: true,
            clip: Some(1.0),
            noise_indices: None,
        }
    }
}

/// Runs shorter than this end in lower order (diffusers).
pub(crate) const SHORT_RUN: usize = 15;

/// Walks from `x_t` at `levels[0]` to the last of `levels` and returns the image there.
///
/// With alpha and sigma the scales of signal and noise, lambda = ln(alpha / sigma), h its growth in the step, and
/// H = (1 + eta) h, the exact solution for an x_0 that is a polynomial in lambda is (paper, equations 9 and 14; for the
/// SDE as in k-diffusion)
///
/// `x' = sigma'/sigma e^(-eta h) x + alpha' ((1 - e^(-H)) D0 + phi_2 D1 - phi_3 D2) + sigma' sqrt(1 - e^(-2 eta h)) z`
///
/// where D0, D1 and D2 are the newest estimate of x_0 and its first and second derivative, from differences with those
/// before, `phi_2 = (e^(-H) - 1)/H + 1` and `phi_3 = phi_2/H - 1/2`.
///
/// # Errors
/// [`SamplerError`] if the levels do not get cleaner or an option is out of range.
pub fn dpm_solver_plus_plus(
    denoiser: &dyn Denoiser,
    x_t: Tensor<4>,
    levels: &[NoiseLevel],
    options: DpmSolverOptions,
    noise: &Noise,
    observe: &mut Observer,
) -> Result<Tensor<4>, SamplerError> {
    check(levels, &x_t, options.noise_indices.as_deref())?;
    check_clip(options.clip)?;
    check_range("order", options.order as f64, (1..=3).contains(&options.order), "1, 2 or 3")?;
    check_range("eta", options.eta, options.eta >= 0.0 && options.eta.is_finite(), "0 or more")?;
    let (eta, count) = (options.eta, levels.len() - 1);
    let noise_indices = numbered(options.noise_indices, &x_t);
    let mut x = x_t;
    // the estimates of x_0, the newest first, with their lambda
    let mut history = VecDeque::<(f64, Tensor<4>)>::new();

    for (index, pair) in levels.windows(2).enumerate() {
        let (level, next) = (pair[0], pair[1]);
        let prediction = predict(denoiser, &x, level, options.clip, history.front().map(|(_, x_0)| x_0));
        history.push_front((lambda(level), prediction.x_0));
        history.truncate(options.order);

        let step = lambda(next) - lambda(level);
        // e^(-factor h), where h may be infinite
        let decay = |factor: f64| if factor == 0.0 { 1.0 } else { (-factor * step).exp() };
        let growth = 1.0 - decay(1.0 + eta);
        let (d_0, mut change) = (&history[0].1, history[0].1.clone() * growth);
        let phi_2 = 1.0 - growth / ((1.0 + eta) * step);
        match order(history.len(), count - index, count, next, options.lower_order_final) {
            1 => {}
            2 => {
                let ratio = (history[0].0 - history[1].0) / step;
                let d_1 = (d_0.clone() - history[1].1.clone()) / ratio;
                change = change
                    + match options.second_order {
                        SecondOrder::Midpoint => d_1 * (0.5 * growth),
                        SecondOrder::Heun => d_1 * phi_2,
                    };
            }
            _ => {
                let ratio_0 = (history[0].0 - history[1].0) / step;
                let ratio_1 = (history[1].0 - history[2].0) / step;
                let newer = (d_0.clone() - history[1].1.clone()) / ratio_0;
                let older = (history[1].1.clone() - history[2].1.clone()) / ratio_1;
                // half of the second derivative
                let bend = (newer.clone() - older) / (ratio_0 + ratio_1);
                let phi_3 = phi_2 / ((1.0 + eta) * step) - 0.5;
                let d_1 = newer + bend.clone() * ratio_0;
                let d_2 = match options.third_order {
                    ThirdOrder::Peers => bend,
                    ThirdOrder::Exact => bend * 2.0,
                };
                change = change + d_1 * phi_2 - d_2 * phi_3;
            }
        }
        x = x * (next.noise_scale() / level.noise_scale() * decay(eta)) + change * next.signal_scale();
        let spread = next.noise_scale() * (1.0 - decay(2.0 * eta)).sqrt();
        if spread > 0.0 {
            x = x.clone() + fresh_noise(noise, &noise_indices, index, &x) * spread;
        }
        observe(Step { index, count, level: next, x_t: &x, x_0: &history[0].1 });
    }
    Ok(x)
}

/// The order of a step: as many estimates as there are, fewer at the end of a short run, one to clean data.
/// `left` counts the steps from this one on.
pub(crate) fn order(known: usize, left: usize, count: usize, next: NoiseLevel, lower_order_final: bool) -> usize {
    if next.alpha_bar == 1.0 {
        return 1;
    }
    if lower_order_final && count < SHORT_RUN { known.min(left) } else { known }
}
