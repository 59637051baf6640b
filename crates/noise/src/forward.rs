//! The forward process q, which adds noise to an image (Ho et al. 2020, arXiv:2006.11239, equations 2 and 4).

use burn::tensor::{Tensor, TensorData, assert_shape};
use schedule::NoiseLevel;

/// Samples q(x_t | x_0) in closed form: `x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) epsilon` (equation 4).
///
/// # Shapes
/// - `x_0`, `epsilon`: `[batch, channels, height, width]`; `levels`: one for each sample
/// - result: like `x_0`
///
/// # Panics
/// If the shapes differ or `levels` has not one entry for each sample.
pub fn q_sample(x_0: Tensor<4>, epsilon: Tensor<4>, levels: &[NoiseLevel]) -> Tensor<4> {
    let [batch, channels, height, width] = x_0.dims();
    assert_shape!(epsilon, [batch, channels, height, width]);
    assert_eq!(levels.len(), batch, "one noise level for each sample");
    let signal = per_sample(levels, &x_0, NoiseLevel::signal_scale);
    let noise = per_sample(levels, &x_0, NoiseLevel::noise_scale);
    x_0 * signal + epsilon * noise
}

/// Samples q(x_t | x_{t-1}), one Markov step: `x_t = sqrt(1 - beta) x_{t-1} + sqrt(beta) epsilon` (equation 2).
///
/// # Shapes
/// - `x_previous`, `epsilon`: `[batch, channels, height, width]`; `betas`: one for each sample, in [0, 1]
/// - result: like `x_previous`
///
/// # Panics
/// If the shapes differ or `betas` has not one entry for each sample.
pub fn q_step(x_previous: Tensor<4>, epsilon: Tensor<4>, betas: &[f64]) -> Tensor<4> {
    let [batch, channels, height, width] = x_previous.dims();
    assert_shape!(epsilon, [batch, channels, height, width]);
    assert_eq!(betas.len(), batch, "one beta for each sample");
    let keep = coefficients(betas.iter().map(|beta| (1.0 - beta).sqrt()), &x_previous);
    let add = coefficients(betas.iter().map(|beta| beta.sqrt()), &x_previous);
    x_previous * keep + epsilon * add
}

/// One coefficient for each level, computed in f64 on the host, as a tensor `[batch, 1, 1, 1]` that broadcasts over images,
/// with the device and the number format of `like`: f64 states of a sampler stay f64.
pub fn per_sample(levels: &[NoiseLevel], like: &Tensor<4>, coefficient: impl Fn(NoiseLevel) -> f64) -> Tensor<4> {
    coefficients(levels.iter().copied().map(coefficient), like)
}

/// Values as a tensor `[batch, 1, 1, 1]`, with the device and the number format of `like`.
pub fn coefficients(values: impl Iterator<Item = f64>, like: &Tensor<4>) -> Tensor<4> {
    let values: Vec<f64> = values.collect();
    let batch = values.len();
    Tensor::from_data(TensorData::new(values, [batch, 1, 1, 1]), (&like.device(), like.dtype()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Noise, Purpose};
    use burn::tensor::Device;
    use schedule::{BetaSchedule, Schedule};

    fn moments(x: &Tensor<4>) -> (f64, f64) {
        let values: Vec<f32> = x.to_data().try_to_vec().expect("f32");
        let count = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
        (mean, values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count)
    }

    #[test]
    fn clean_data_and_pure_noise_are_exact() {
        let device = Device::flex();
        let x_0 = Tensor::<4>::ones([1, 1, 4, 4], &device) * 0.5;
        let epsilon = Noise::new(1).stream(Purpose::Epsilon).normal_images(&[0], 0, [1, 4, 4], &device);
        let clean = q_sample(x_0.clone(), epsilon.clone(), &[NoiseLevel::CLEAN]);
        clean.into_data().assert_eq(&x_0.clone().into_data(), true);
        let gone = NoiseLevel { timestep: 999.0, alpha_bar: 0.0 };
        q_sample(x_0, epsilon.clone(), &[gone]).into_data().assert_eq(&epsilon.into_data(), true);
    }

    #[test]
    fn markov_steps_reach_the_closed_form() {
        let device = Device::flex();
        let schedule = Schedule::new(&"linear".parse::<BetaSchedule>().expect("a name"), 50).expect("a schedule");
        let count = 64 * 64 * 16;
        let start = 0.7f32;
        let mut x = Tensor::<4>::ones([16, 1, 64, 64], &device) * start;
        let noise_indices: Vec<u64> = (0..16).collect();
        for (step, &beta) in schedule.betas().iter().enumerate().take(30) {
            let epsilon = Noise::new(3).stream(Purpose::Evaluation).normal_images(
                &noise_indices,
                step as u64,
                [1, 64, 64],
                &device,
            );
            x = q_step(x, epsilon, &[beta; 16]);
        }
        let level = schedule.level(29);
        let (mean, variance) = moments(&x);
        let expected_variance = 1.0 - level.alpha_bar;
        let mean_error = (mean - level.signal_scale() * f64::from(start)).abs();
        assert!(mean_error < 4.0 * (expected_variance / count as f64).sqrt(), "mean is off by {mean_error}");
        let variance_error = (variance - expected_variance).abs();
        assert!(variance_error < 4.0 * expected_variance * (2.0 / count as f64).sqrt(), "off by {variance_error}");
    }
}
