//! The discrete decoder: the likelihood of pixels of 256 values under Gaussians (Ho et al. 2020, arXiv:2006.11239,
//! equation 13), over tensors for a loss and over single values in f64 for bits per dimension.
//!
//! A pixel value x in [-1, 1] has the mass of its Gaussian from half a step below to half a step above; the outermost values
//! take the tails. As in improved-diffusion (`losses.py`), the distribution function of the standard normal is a tanh
//! approximation (Page 1977), off by at most 2e-4, and no mass counts as less than 1e-12.

use burn::tensor::Tensor;
use core::f64::consts::PI;

/// Half of the step between pixel values.
const HALF_STEP: f64 = 1.0 / 255.0;
/// Beyond these, a pixel value is an outermost one.
const OUTERMOST: f64 = 0.999;
const MIN_MASS: f64 = 1e-12;
/// Coefficient of the cubic term of the tanh approximation.
const CUBIC: f64 = 0.044_715;

/// `ln p(x)` of a pixel value under a Gaussian of this mean and of standard deviation `exp(log_deviation)`.
pub fn discrete_log_likelihood(x: f64, mean: f64, log_deviation: f64) -> f64 {
    // libm, whose bits do not depend on the platform
    let cdf = |x: f64| 0.5 * (1.0 + libm::tanh((2.0 / PI).sqrt() * (x + CUBIC * x.powi(3))));
    let inverse = (-log_deviation).exp();
    let upper = cdf((x - mean + HALF_STEP) * inverse);
    let lower = cdf((x - mean - HALF_STEP) * inverse);
    let mass = if x < -OUTERMOST {
        upper
    } else if x > OUTERMOST {
        1.0 - lower
    } else {
        upper - lower
    };
    mass.max(MIN_MASS).ln()
}

/// [`discrete_log_likelihood`] of every element.
pub(crate) fn discrete_log_likelihoods(x: Tensor<4>, mean: Tensor<4>, log_deviation: Tensor<4>) -> Tensor<4> {
    let cdf = |x: Tensor<4>| (((x.clone() + x.powi_scalar(3) * CUBIC) * (2.0 / PI).sqrt()).tanh() + 1.0) / 2.0;
    let inverse = log_deviation.neg().exp();
    let centered = x.clone() - mean;
    let upper = cdf((centered.clone() + HALF_STEP) * inverse.clone());
    let lower = cdf((centered - HALF_STEP) * inverse);
    let lower = lower.mask_fill(x.clone().lower_elem(-OUTERMOST), 0.0);
    let upper = upper.mask_fill(x.greater_elem(OUTERMOST), 1.0);
    (upper - lower).clamp_min(MIN_MASS).log()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device, TensorData};

    #[test]
    fn the_masses_of_all_values_add_up_to_one() {
        for (mean, deviation) in [(0.0, 0.5f64), (0.3, 0.01), (-1.2, 0.3), (0.98, 0.002)] {
            let total: f64 = (0..256)
                .map(|value| discrete_log_likelihood(f64::from(value) / 127.5 - 1.0, mean, deviation.ln()).exp())
                .sum();
            assert!((total - 1.0).abs() < 1e-9, "mean {mean}, deviation {deviation}: {total}");
        }
    }

    #[test]
    fn a_wide_gaussian_gives_its_density_times_the_step() {
        let density = (-0.5f64 * 0.16).exp() / (core::f64::consts::TAU.sqrt());
        let found = discrete_log_likelihood(0.4, 0.0, 0.0);
        // the slope of the approximation is good to a few thousandths
        assert!((found - (density * 2.0 / 255.0).ln()).abs() < 5e-3, "{found}");
    }

    #[test]
    fn no_value_costs_more_than_the_least_mass() {
        assert_eq!(discrete_log_likelihood(0.5, -0.9, (1e-3f64).ln()), (1e-12f64).ln());
    }

    #[test]
    fn tensors_have_the_likelihoods_of_their_elements() {
        let tensor = |values: &[f64]| {
            let data = TensorData::new(values.to_vec(), [1, 1, 1, values.len()]);
            Tensor::<4>::from_data(data, (&Device::flex(), DType::F64))
        };
        let (x, mean, log_deviation) = ([-1.0, -0.2, 0.4, 1.0], [-0.98, -0.25, 0.9, 1.1], [-4.0, -2.0, -5.0, -1.0]);
        let found = discrete_log_likelihoods(tensor(&x), tensor(&mean), tensor(&log_deviation)).into_data();
        for (index, found) in found.iter::<f64>().enumerate() {
            let expected = discrete_log_likelihood(x[index], mean[index], log_deviation[index]);
            assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        }
    }
}
