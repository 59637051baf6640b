//! The discrete decoder: how likely a pixel of 256 values is under a Gaussian.

/// `ln p(x)` of a pixel value x in [-1, 1], of which there are 256, under a Gaussian of this mean and standard deviation: the
/// Gaussian's mass from half a step below to half a step above, the outermost values taking the tails (Ho, Jain and Abbeel
/// 2020, equation 13).
///
/// As in improved-diffusion (`losses.py`) the distribution function is its tanh approximation, and no mass counts as less
/// than 1e-12.
pub fn discrete_log_likelihood(x: f64, mean: f64, log_deviation: f64) -> f64 {
    const LEAST: f64 = 1e-12;
    let inverse = (-log_deviation).exp();
    let upper = normal_cdf((x - mean + 1.0 / 255.0) * inverse);
    let lower = normal_cdf((x - mean - 1.0 / 255.0) * inverse);
    let mass = if x < -0.999 {
        upper
    } else if x > 0.999 {
        1.0 - lower
    } else {
        upper - lower
    };
    mass.max(LEAST).ln()
}

/// About the distribution function of the standard normal (Page 1977, as improved-diffusion has it; off by at most 2e-4).
fn normal_cdf(x: f64) -> f64 {
    0.5 * (1.0 + libm::tanh((2.0 / core::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // the approximation of the distribution function is good to a few thousandths in its slope
        assert!((found - (density * 2.0 / 255.0).ln()).abs() < 5e-3, "{found}");
    }

    #[test]
    fn the_impossible_costs_no_more_than_the_least_mass() {
        assert_eq!(discrete_log_likelihood(0.5, -0.9, (1e-3f64).ln()), (1e-12f64).ln());
    }
}
