//! UniPC (Zhao, Bai, Rao, Zhou and Lu 2023, arXiv:2302.04867): a predictor and a corrector of any order, at the cost of
//! one network evaluation per step.

use std::collections::VecDeque;

use burn::tensor::Tensor;
use schedule::NoiseLevel;

use crate::{
    denoiser::{Denoiser, Observer},
    error::{SamplerError, check_order},
    step::{Interval, lambda, walk},
};

/// The function B(h) of the paper, section 3.2, which is arbitrary except for its behavior at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UniPcVariant {
    /// `B(h) = h`.
    Bh1,
    /// `B(h) = e^h - 1`; better in the paper's tables.
    #[default]
    Bh2,
}

/// Options of [`unipc`].
#[derive(Clone, Debug, PartialEq)]
pub struct UniPcOptions {
    /// Number of estimates of x_0 that the predictor uses, 1 to 3; with the corrector the order is one more.
    pub order: usize,
    /// The function B(h).
    pub variant: UniPcVariant,
    /// Whether each step is corrected after the evaluation at its end, without further evaluations.
    pub corrector: bool,
    /// Whether the last steps are of lower order, as in the paper and in diffusers. The step to clean data is always of
    /// first order.
    pub lower_order_final: bool,
    /// x_0 is clipped to ± this; None leaves it unclipped.
    pub clip: Option<f64>,
}

impl Default for UniPcOptions {
    fn default() -> Self {
        Self { order: 2, variant: UniPcVariant::Bh2, corrector: true, lower_order_final: true, clip: Some(1.0) }
    }
}

/// lambda and the estimate of x_0 there.
type Estimate = (f64, Tensor<4>);

/// Samples by UniPC, from `x_t` at `levels[0]` to the last of `levels`: algorithms 5 and 6 of the paper (prediction of x_0).
/// The estimate at the end of a step first corrects that step, then predicts the next.
///
/// # Shapes
/// - `x_t` and the result: `[batch, channels, height, width]`
///
/// # Errors
/// [`SamplerError`] if the levels do not get cleaner or an option is out of range.
pub fn unipc(
    denoiser: &dyn Denoiser,
    x_t: Tensor<4>,
    levels: &[NoiseLevel],
    options: UniPcOptions,
    observe: &mut Observer,
) -> Result<Tensor<4>, SamplerError> {
    check_order(options.order)?;
    // the newest first
    let mut history = VecDeque::<Estimate>::new();
    // the start of the previous step, its level and its order
    let mut previous: Option<(Tensor<4>, NoiseLevel, usize)> = None;
    walk(denoiser, x_t, levels, options.clip, observe, |Interval { index, count, level, next }, mut x, prediction| {
        let x_0 = prediction.x_0;
        if let Some((start, start_level, order)) = previous.take()
            && options.corrector
            && lambda(start_level).is_finite()
        {
            x = advance(start, start_level, level, &history, order, Some(&x_0), options.variant);
        }
        history.push_front((lambda(level), x_0));
        history.truncate(options.order);

        let limit = if options.lower_order_final { count - index } else { options.order };
        let order = if next.alpha_bar == 1.0 { 1 } else { history.len().min(limit) };
        previous = Some((x.clone(), level, order));
        Ok(advance(x, level, next, &history, order, None, options.variant))
    })
}

/// One step from `x` at `level` to `next` with the newest `order` estimates, the first of them at `level`, and, for the
/// corrector, with the one at `next`.
///
/// With hh = -h: `x' = sigma'/sigma x - alpha' (e^hh - 1) m0 - alpha' B(hh) sum_k rho_k D_k`, where `D_k = (m_k - m0) / r_k`
/// and the rho solve `sum_k r_k^(i-1) rho_k = i! phi_(i+1)(hh) hh / B(hh)`, i = 1, 2, …
fn advance(
    x: Tensor<4>,
    level: NoiseLevel,
    next: NoiseLevel,
    history: &VecDeque<Estimate>,
    order: usize,
    at_next: Option<&Tensor<4>>,
    variant: UniPcVariant,
) -> Tensor<4> {
    let step = lambda(next) - lambda(level);
    let hh = -step;
    let phi_1 = hh.exp_m1();
    let b = match variant {
        UniPcVariant::Bh1 => hh,
        UniPcVariant::Bh2 => phi_1,
    };
    let m_0 = &history[0].1;
    let mut ratios: Vec<f64> = history.iter().take(order).skip(1).map(|(at, _)| (at - lambda(level)) / step).collect();
    let mut estimates: Vec<&Tensor<4>> = history.iter().take(order).skip(1).map(|(_, x_0)| x_0).collect();
    if let Some(x_0) = at_next {
        ratios.push(1.0);
        estimates.push(x_0);
    }

    // the right-hand sides, by phi_(k+1) = (phi_k - 1/k!) / hh
    let (mut right, mut phi, mut factorial) = (Vec::new(), phi_1 / hh - 1.0, 1.0);
    for i in 1..=ratios.len() {
        right.push(phi * factorial / b);
        factorial *= (i + 1) as f64;
        phi = phi / hh - 1.0 / factorial;
    }
    // a single unknown is set to 1/2 (paper, section 3.3): of the same order, and independent of the ratio
    let weights = if ratios.len() == 1 { vec![0.5] } else { solve(&ratios, right) };

    let mut x = x * (next.noise_scale() / level.noise_scale()) - m_0.clone() * (next.signal_scale() * phi_1);
    for ((estimate, ratio), weight) in estimates.into_iter().zip(ratios).zip(weights) {
        x = x - (estimate.clone() - m_0.clone()) * (next.signal_scale() * b * weight / ratio);
    }
    x
}

/// Solves `sum_k ratios[k]^i unknown[k] = right[i]` for i = 0, 1, … (a Vandermonde matrix of at most 3 rows; the ratios
/// differ from each other).
fn solve(ratios: &[f64], right: Vec<f64>) -> Vec<f64> {
    let size = ratios.len();
    let mut rows: Vec<Vec<f64>> = right
        .into_iter()
        .enumerate()
        .map(|(i, value)| ratios.iter().map(|ratio| ratio.powi(i as i32)).chain([value]).collect())
        .collect();
    for pivot in 0..size {
        let largest = (pivot..size).max_by(|&a, &b| rows[a][pivot].abs().total_cmp(&rows[b][pivot].abs()));
        rows.swap(pivot, largest.unwrap_or(pivot));
        let pivot_row = rows[pivot].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(index, _)| *index != pivot) {
            let factor = row[pivot] / pivot_row[pivot];
            row.iter_mut().zip(&pivot_row).for_each(|(value, above)| *value -= factor * above);
        }
    }
    rows.iter().enumerate().map(|(index, row)| row[size] / row[index]).collect()
}

#[cfg(test)]
mod tests {
    use super::solve;

    #[test]
    fn the_solution_solves_the_equations() {
        for ratios in [vec![-0.9], vec![-1.0, 1.0], vec![-0.7, -1.9, 1.0]] {
            let right: Vec<f64> = (0..ratios.len()).map(|i| 0.3 + 0.2 * i as f64).collect();
            let unknown = solve(&ratios, right.clone());
            for (i, right) in right.iter().enumerate() {
                let left: f64 = ratios.iter().zip(&unknown).map(|(ratio, value)| ratio.powi(i as i32) * value).sum();
                assert!((left - right).abs() < 1e-14, "{ratios:?}: {left} instead of {right}");
            }
        }
    }
}
