//! A denoiser with an exact answer: data that is a mixture of Gaussians, pixel by pixel.

use burn::tensor::Tensor;
use noise::Prediction;
use schedule::NoiseLevel;

use crate::denoiser::Denoiser;

/// The ideal denoiser of data whose every pixel is drawn, independently, from a mixture of Gaussians. Its estimate is
/// the true conditional mean E[x_0 | x_t], so a sampler's result has a known distribution.
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
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, _estimate: Option<&Tensor<4>>) -> Prediction {
        let (signal, alpha_bar) = (level.signal_scale(), level.alpha_bar);
        // under component k: x_t ~ N(signal mean_k, total_k), and E[x_0 | x_t, k] is the usual Gaussian update
        let mut numerator: Option<Tensor<4>> = None;
        let mut denominator: Option<Tensor<4>> = None;
        let add = |sum: Option<Tensor<4>>, term: Tensor<4>| Some(sum.map_or(term.clone(), |sum| sum + term));
        let total = |sd: f64| alpha_bar * sd * sd + 1.0 - alpha_bar;
        let logits: Vec<Tensor<4>> = self
            .components
            .iter()
            .map(|&(weight, mean, sd)| {
                let distance = x_t.clone() - signal * mean;
                distance.clone() * distance * (-0.5 / total(sd)) + (weight.ln() - 0.5 * total(sd).ln())
            })
            .collect();
        let largest = logits.iter().cloned().reduce(|a, b| a.max_pair(b));
        for (logit, &(_, mean, sd)) in logits.into_iter().zip(&self.components) {
            let density = match &largest {
                Some(largest) => (logit - largest.clone()).exp(),
                None => logit,
            };
            let gain = signal * sd * sd / total(sd);
            let posterior_mean = (x_t.clone() - signal * mean) * gain + mean;
            numerator = add(numerator, density.clone() * posterior_mean);
            denominator = add(denominator, density);
        }
        let x_0 = match (numerator, denominator) {
            (Some(numerator), Some(denominator)) => numerator / denominator,
            _ => x_t.zeros_like(),
        };
        let batch = x_t.dims()[0];
        Prediction::from_x_0(x_0, x_t, &vec![level; batch])
    }
}
