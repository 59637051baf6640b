//! A denoiser in closed form: data that is a mixture of Gaussians, pixel by pixel.

use burn::tensor::Tensor;
use noise::Prediction;
use schedule::NoiseLevel;

use crate::denoiser::Denoiser;

/// The ideal denoiser of data whose pixels are drawn independently from a mixture of Gaussians. Its x_0 is the conditional
/// mean E[x_0 | x_t], so that the distribution of a sampler's result is known.
#[derive(Clone, Debug)]
pub struct GaussianMixture {
    components: Vec<(f64, f64, f64)>,
}

impl GaussianMixture {
    /// Components as (weight, mean, standard deviation); weights are relative.
    pub fn new(components: Vec<(f64, f64, f64)>) -> Self {
        let total: f64 = components.iter().map(|component| component.0).sum();
        Self { components: components.into_iter().map(|(weight, mean, sd)| (weight / total, mean, sd)).collect() }
    }

    /// The mean of the data.
    pub fn mean(&self) -> f64 {
        self.components.iter().map(|(weight, mean, _)| weight * mean).sum()
    }

    /// The variance of the data.
    pub fn variance(&self) -> f64 {
        let second: f64 = self.components.iter().map(|(weight, mean, sd)| weight * (mean * mean + sd * sd)).sum();
        second - self.mean().powi(2)
    }
}

impl Denoiser for GaussianMixture {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, _self_condition: Option<&Tensor<4>>) -> Prediction {
        let (signal, alpha_bar) = (level.signal_scale(), level.alpha_bar);
        // under component k, x_t ~ N(signal mean_k, total_k)
        let total = |sd: f64| alpha_bar * sd * sd + 1.0 - alpha_bar;
        let log_density = |&(weight, mean, sd): &(f64, f64, f64)| {
            let distance = x_t.clone() - signal * mean;
            distance.clone() * distance * (-0.5 / total(sd)) + (weight.ln() - 0.5 * total(sd).ln())
        };
        let log_densities: Vec<Tensor<4>> = self.components.iter().map(log_density).collect();
        let levels = vec![level; x_t.dims()[0]];
        let Some(largest) = log_densities.iter().cloned().reduce(|a, b| a.max_pair(b)) else {
            return Prediction::from_x_0(x_t.zeros_like(), x_t, &levels);
        };
        // E[x_0 | x_t, k] is the Gaussian update of mean_k; densities are relative to the largest
        let terms = log_densities.into_iter().zip(&self.components).map(|(log_density, &(_, mean, sd))| {
            let gain = signal * sd * sd / total(sd);
            let posterior_mean = (x_t.clone() - signal * mean) * gain + mean;
            let density = (log_density - largest.clone()).exp();
            (density.clone() * posterior_mean, density)
        });
        let sums = terms.reduce(|sum, term| (sum.0 + term.0, sum.1 + term.1));
        let x_0 = sums.map_or(x_t.zeros_like(), |(mean, density)| mean / density);
        Prediction::from_x_0(x_0, x_t, &levels)
    }
}
