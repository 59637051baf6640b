//! DEIS, the Diffusion Exponential Integrator Sampler (Zhang and Chen 2022, arXiv:2204.13902): the multistep tAB-DEIS
//! with polynomials in ln(rho).

use std::collections::VecDeque;

use burn::tensor::Tensor;
use schedule::NoiseLevel;

use crate::{
    denoiser::{Denoiser, Observer},
    error::{SamplerError, check_levels_with_signal, check_order},
    step::{Interval, walk},
};

/// Options of [`deis`].
#[derive(Clone, Debug, PartialEq)]
pub struct DeisOptions {
    /// Number of predictions of epsilon that a step uses, 1 to 3. The first steps have fewer.
    pub order: usize,
    /// Whether a run of fewer than 15 steps ends in steps of lower order, as in diffusers.
    pub lower_order_final: bool,
    /// x_0 is clipped to ± this and epsilon derived from it; None leaves both unchanged.
    pub clip: Option<f64>,
}

impl Default for DeisOptions {
    fn default() -> Self {
        Self { order: 2, lower_order_final: true, clip: Some(1.0) }
    }
}

/// Samples by tAB-DEIS, from `x_t` at `levels[0]` to the last of `levels`.
///
/// With rho the noise-to-signal ratio, `d(x / alpha) / d rho = epsilon`; epsilon is approximated by the polynomial in ln(rho)
/// through its last values, which is integrated exactly (paper, equations 14 and 15).
///
/// # Shapes
/// - `x_t` and the result: `[batch, channels, height, width]`
///
/// # Errors
/// [`SamplerError`] if the levels do not get cleaner, the first has no signal at all, or an option is out of range.
pub fn deis(
    denoiser: &dyn Denoiser,
    x_t: Tensor<4>,
    levels: &[NoiseLevel],
    options: DeisOptions,
    observe: &mut Observer,
) -> Result<Tensor<4>, SamplerError> {
    check_levels_with_signal(levels)?;
    check_order(options.order)?;
    // rho and epsilon, the newest first
    let mut history = VecDeque::<(f64, Tensor<4>)>::new();
    walk(denoiser, x_t, levels, options.clip, observe, |interval, x, prediction| {
        let Interval { level, next, .. } = interval;
        history.push_front((level.sigma(), prediction.epsilon));
        history.truncate(options.order);
        let order = interval.order(history.len(), options.lower_order_final);

        let rhos: Vec<f64> = history.iter().take(order).map(|(rho, _)| *rho).collect();
        let mut scaled = x / level.signal_scale();
        for (weight, (_, epsilon)) in weights(&rhos, next.sigma()).into_iter().zip(&history) {
            scaled = scaled + epsilon.clone() * weight;
        }
        Ok(scaled * next.signal_scale())
    })
}

/// The integrals over rho, from `rhos[0]` to `end`, of the Lagrange polynomials in w = ln(rho / rhos[0]) through `rhos`
/// (at most 3).
fn weights(rhos: &[f64], end: f64) -> Vec<f64> {
    let w: Vec<f64> = rhos.iter().map(|rho| (rho / rhos[0]).ln()).collect();
    // antiderivatives over rho of 1, w and w^2; all vanish with rho
    let antiderivatives = |rho: f64| {
        let w = (rho / rhos[0]).ln();
        if rho == 0.0 { [0.0; 3] } else { [rho, rho * (w - 1.0), rho * (w * (w - 2.0) + 2.0)] }
    };
    let (upper, lower) = (antiderivatives(end), antiderivatives(rhos[0]));
    let moment: [f64; 3] = core::array::from_fn(|power| upper[power] - lower[power]);
    (0..rhos.len())
        .map(|node| {
            // prod_(j != node) (w - w_j) / (w_node - w_j), as coefficients of 1, w, w^2
            let mut polynomial = [1.0, 0.0, 0.0];
            for other in (0..rhos.len()).filter(|other| *other != node) {
                let [a, b, c] = polynomial;
                let (root, scale) = (w[other], 1.0 / (w[node] - w[other]));
                polynomial = [-root * a * scale, (a - root * b) * scale, (b - root * c) * scale];
            }
            polynomial.iter().zip(&moment).map(|(coefficient, moment)| coefficient * moment).sum()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::weights;

    /// The weights integrate every polynomial in ln(rho) that the nodes determine, here compared with Simpson's rule.
    #[test]
    fn polynomials_are_integrated_exactly() {
        let rhos = [5.0, 7.0, 11.0];
        for (count, power) in [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)] {
            for end in [2.0f64, 4.5] {
                let function = |rho: f64| rho.ln().powi(power);
                let found: f64 =
                    weights(&rhos[..count], end).iter().zip(rhos).map(|(weight, rho)| weight * function(rho)).sum();
                let (pieces, width) = (1000, (end - 5.0) / 1000.0);
                let expected: f64 = (0..pieces)
                    .map(|piece| 5.0 + width * f64::from(piece))
                    .map(|at| function(at) + 4.0 * function(at + width / 2.0) + function(at + width))
                    .sum::<f64>()
                    * width
                    / 6.0;
                assert!((found - expected).abs() < 1e-10, "{count} nodes, power {power}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn the_last_step_may_end_at_clean_data() {
        let sum: f64 = weights(&[0.1, 0.2, 0.4], 0.0).iter().sum();
        // a constant epsilon
        assert!((sum + 0.1).abs() < 1e-15, "{sum}");
    }
}
