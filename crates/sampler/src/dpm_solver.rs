//! DPM-Solver++ (Lu, Zhou, Bao, Chen, Li and Zhu 2022, arXiv:2211.01095): multistep, of order 1 to 3, for the ODE or the
//! SDE.

use std::collections::VecDeque;

use burn::tensor::Tensor;
use noise::Noise;
use schedule::NoiseLevel;

use crate::{
    denoiser::{Denoiser, Observer},
    error::{SamplerError, check_eta, check_order},
    step::{Interval, StepNoise, lambda, walk},
};

/// The use of the previous estimate of x_0 in a step of second order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecondOrder {
    /// The slope is that of the middle of the step (the paper's choice, and diffusers' default).
    #[default]
    Midpoint,
    /// The slope is integrated exactly (diffusers' `heun`).
    Heun,
}

/// The weight of the curvature of x_0 in a step of third order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThirdOrder {
    /// Half of the integral, as in the authors' code, k-diffusion and diffusers: equal to their pictures, and of second order
    /// (`tests/convergence.rs` measures it).
    #[default]
    Peers,
    /// The integral of the parabola through the three estimates: of third order.
    Exact,
}

/// Options of [`dpm_solver_plus_plus`].
#[derive(Clone, Debug, PartialEq)]
pub struct DpmSolverOptions {
    /// Number of estimates of x_0 that a step uses, 1 to 3: 2 is "2M", 3 is "3M". The first steps have fewer.
    pub order: usize,
    /// Amount of fresh noise: 0 is the ODE, 1 the SDE ("2M SDE"), as k-diffusion's `eta`. At least 0.
    pub eta: f64,
    /// Variant of the steps of second order.
    pub second_order: SecondOrder,
    /// Variant of the steps of third order.
    pub third_order: ThirdOrder,
    /// Whether a run of fewer than 15 steps ends in steps of lower order, as in diffusers. The step to clean data is always
    /// of first order.
    pub lower_order_final: bool,
    /// x_0 is clipped to ± this; None leaves it unclipped.
    pub clip: Option<f64>,
    /// Noise index of each image; None numbers them from 0. Used only for `eta` above 0.
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

/// Samples by DPM-Solver++, from `x_t` at `levels[0]` to the last of `levels`.
///
/// With alpha and sigma the scales of signal and noise, lambda = ln(alpha / sigma), h its growth in the step, and
/// H = (1 + eta) h, the exact solution for an x_0 that is a polynomial in lambda is (paper, equations 9 and 14; for the
/// SDE as in k-diffusion)
///
/// `x' = sigma'/sigma e^(-eta h) x + alpha' ((1 - e^(-H)) D0 + phi_2 D1 - phi_3 D2) + sigma' sqrt(1 - e^(-2 eta h)) z`
///
/// where D0, D1 and D2 are the newest estimate of x_0 and its first and second derivative, from differences with the previous
/// ones, `phi_2 = (e^(-H) - 1)/H + 1` and `phi_3 = phi_2/H - 1/2`.
///
/// # Shapes
/// - `x_t` and the result: `[batch, channels, height, width]`
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
    check_order(options.order)?;
    check_eta(options.eta)?;
    let eta = options.eta;
    let step_noise = StepNoise::new(noise, options.noise_indices, &x_t)?;
    // lambda and the estimate of x_0, the newest first
    let mut history = VecDeque::<(f64, Tensor<4>)>::new();
    walk(denoiser, x_t, levels, options.clip, observe, |interval, x, prediction| {
        let Interval { index, level, next, .. } = interval;
        history.push_front((lambda(level), prediction.x_0));
        history.truncate(options.order);

        let h = lambda(next) - lambda(level);
        // e^(-factor h), where h may be infinite
        let decay = |factor: f64| if factor == 0.0 { 1.0 } else { (-factor * h).exp() };
        let growth = 1.0 - decay(1.0 + eta);
        let (d_0, mut change) = (&history[0].1, history[0].1.clone() * growth);
        let phi_2 = 1.0 - growth / ((1.0 + eta) * h);
        let order = interval.order(history.len(), options.lower_order_final);
        match if next.alpha_bar == 1.0 { 1 } else { order } {
            1 => {}
            2 => {
                let ratio = (history[0].0 - history[1].0) / h;
                let d_1 = (d_0.clone() - history[1].1.clone()) / ratio;
                change = change
                    + match options.second_order {
                        SecondOrder::Midpoint => d_1 * (0.5 * growth),
                        SecondOrder::Heun => d_1 * phi_2,
                    };
            }
            _ => {
                let ratio_0 = (history[0].0 - history[1].0) / h;
                let ratio_1 = (history[1].0 - history[2].0) / h;
                let newer = (d_0.clone() - history[1].1.clone()) / ratio_0;
                let older = (history[1].1.clone() - history[2].1.clone()) / ratio_1;
                // half of the second derivative
                let bend = (newer.clone() - older) / (ratio_0 + ratio_1);
                let phi_3 = phi_2 / ((1.0 + eta) * h) - 0.5;
                let d_1 = newer + bend.clone() * ratio_0;
                let d_2 = match options.third_order {
                    ThirdOrder::Peers => bend,
                    ThirdOrder::Exact => bend * 2.0,
                };
                change = change + d_1 * phi_2 - d_2 * phi_3;
            }
        }
        let x = x * (next.noise_scale() / level.noise_scale() * decay(eta)) + change * next.signal_scale();
        Ok(step_noise.add(x, index, next.noise_scale() * (1.0 - decay(2.0 * eta)).sqrt()))
    })
}
