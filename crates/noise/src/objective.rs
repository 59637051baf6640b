//! What the network predicts, and how epsilon, x_0 and v follow from each other.
//!
//! With `a = sqrt(alpha_bar)` and `s = sqrt(1 - alpha_bar)`: `x_t = a x_0 + s epsilon` and `v = a epsilon - s x_0`
//! (Salimans and Ho 2022, arXiv:2202.00512, appendix D), a rotation, so `x_0 = a x_t - s v` and `epsilon = s x_t + a v`.

use burn::tensor::Tensor;
use schedule::{NoiseLevel, Objective};

use crate::forward::per_sample;

/// What the network should have said: the target of the loss.
///
/// # Shapes
/// - `x_0`, `epsilon`: `[batch, channels, height, width]`; `levels`: one for each sample
/// - result: like `x_0`
pub fn target(objective: Objective, x_0: Tensor<4>, epsilon: Tensor<4>, levels: &[NoiseLevel]) -> Tensor<4> {
    match objective {
        Objective::Epsilon => epsilon,
        Objective::X0 => x_0,
        Objective::V => velocity(x_0, epsilon, levels),
    }
}

/// `v = sqrt(alpha_bar) epsilon - sqrt(1 - alpha_bar) x_0`.
pub fn velocity(x_0: Tensor<4>, epsilon: Tensor<4>, levels: &[NoiseLevel]) -> Tensor<4> {
    let signal = per_sample(levels, &x_0, NoiseLevel::signal_scale);
    let noise = per_sample(levels, &x_0, NoiseLevel::noise_scale);
    epsilon * signal - x_0 * noise
}

/// An estimate of the clean image and of the noise in x_t; each follows from the other.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// The clean image, `[batch, channels, height, width]`.
    pub x_0: Tensor<4>,
    /// The noise, same shape.
    pub epsilon: Tensor<4>,
    /// For a learned variance: where between the posterior variance (-1) and beta (1) its logarithm lies, same shape
    /// (Nichol and Dhariwal 2021, arXiv:2102.09672, equation 15, scaled as in their code).
    pub variance: Option<Tensor<4>>,
}

impl Prediction {
    /// From the raw output of a network that was trained for `objective`.
    pub fn from_output(objective: Objective, output: Tensor<4>, x_t: Tensor<4>, levels: &[NoiseLevel]) -> Self {
        match objective {
            Objective::Epsilon => Self::from_epsilon(output, x_t, levels),
            Objective::X0 => Self::from_x_0(output, x_t, levels),
            Objective::V => Self::from_v(output, x_t, levels),
        }
    }

    /// `x_0 = (x_t - sqrt(1 - alpha_bar) epsilon) / sqrt(alpha_bar)`. Where alpha_bar is 0 nothing of x_0 is left in
    /// x_t and the division gives infinities: such schedules need the objective x_0 or v.
    pub fn from_epsilon(epsilon: Tensor<4>, x_t: Tensor<4>, levels: &[NoiseLevel]) -> Self {
        let inverse_signal = per_sample(levels, &x_t, |level| 1.0 / level.signal_scale());
        let sigma = per_sample(levels, &x_t, NoiseLevel::sigma);
        Self { x_0: x_t * inverse_signal - epsilon.clone() * sigma, epsilon, variance: None }
    }

    /// `epsilon = (x_t - sqrt(alpha_bar) x_0) / sqrt(1 - alpha_bar)`; 0 where there is no noise.
    pub fn from_x_0(x_0: Tensor<4>, x_t: Tensor<4>, levels: &[NoiseLevel]) -> Self {
        let epsilon = epsilon_of(x_0.clone(), x_t, levels);
        Self { x_0, epsilon, variance: None }
    }

    /// `x_0 = a x_t - s v`, `epsilon = s x_t + a v`.
    pub fn from_v(v: Tensor<4>, x_t: Tensor<4>, levels: &[NoiseLevel]) -> Self {
        let signal = per_sample(levels, &x_t, NoiseLevel::signal_scale);
        let noise = per_sample(levels, &x_t, NoiseLevel::noise_scale);
        let x_0 = x_t.clone() * signal.clone() - v.clone() * noise.clone();
        Self { x_0, epsilon: x_t * noise + v * signal, variance: None }
    }

    /// Clips x_0 to `[-limit, limit]` and derives epsilon anew from it, as lucidrains' DDIM does: what is drawn stays
    /// inside the range of images.
    pub fn clipped(self, limit: f64, x_t: Tensor<4>, levels: &[NoiseLevel]) -> Self {
        let x_0 = self.x_0.clamp(-limit, limit);
        Self { epsilon: epsilon_of(x_0.clone(), x_t, levels), x_0, variance: self.variance }
    }
}

fn epsilon_of(x_0: Tensor<4>, x_t: Tensor<4>, levels: &[NoiseLevel]) -> Tensor<4> {
    let inverse = |level: NoiseLevel| if level.noise_scale() > 0.0 { 1.0 / level.noise_scale() } else { 0.0 };
    let inverse_noise = per_sample(levels, &x_t, inverse);
    let ratio = per_sample(levels, &x_t, |level| level.signal_scale() * inverse(level));
    x_t * inverse_noise - x_0 * ratio
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Noise, Stream, forward::q_sample};
    use burn::tensor::{Device, Tolerance};
    use schedule::{Family, Schedule};

    #[test]
    fn every_objective_recovers_x_0_and_epsilon() {
        let device = Device::flex();
        let schedule = Schedule::new(&Family::default(), 1000).expect("a schedule");
        let levels = [0, 10, 500, 900].map(|t| schedule.level(t));
        let stream = Noise::new(2).stream(Stream::Evaluation);
        let samples = [0, 1, 2, 3];
        let x_0 = stream.normal_images(&samples, 0, [2, 4, 4], &device);
        let epsilon = stream.normal_images(&samples, 1, [2, 4, 4], &device);
        let x_t = q_sample(x_0.clone(), epsilon.clone(), &levels);
        for objective in [Objective::Epsilon, Objective::X0, Objective::V] {
            let output = target(objective, x_0.clone(), epsilon.clone(), &levels);
            let prediction = Prediction::from_output(objective, output, x_t.clone(), &levels);
            let tolerance = Tolerance::<f32>::absolute(2e-4);
            prediction.x_0.into_data().assert_approx_eq(&x_0.to_data(), tolerance);
            prediction.epsilon.into_data().assert_approx_eq(&epsilon.to_data(), tolerance);
        }
    }

    #[test]
    fn at_zero_terminal_snr_x_0_and_v_stay_finite() {
        let device = Device::flex();
        let level = [NoiseLevel { timestep: 999.0, alpha_bar: 0.0 }];
        let x_t = Noise::new(2).stream(Stream::Start).normal_images(&[0], 0, [1, 4, 4], &device);
        let x_0 = x_t.clone() * 0.1;
        for prediction in [
            Prediction::from_x_0(x_0.clone(), x_t.clone(), &level),
            Prediction::from_v(x_0.clone().neg(), x_t.clone(), &level),
        ] {
            prediction.epsilon.into_data().assert_approx_eq(&x_t.to_data(), Tolerance::<f32>::absolute(1e-6));
            prediction.x_0.into_data().assert_approx_eq(&x_0.to_data(), Tolerance::<f32>::absolute(1e-6));
        }
    }

    #[test]
    fn clipping_moves_epsilon_with_x_0() {
        let device = Device::flex();
        let level = [NoiseLevel { timestep: 1.0, alpha_bar: 0.5 }];
        let x_t = Tensor::<4>::ones([1, 1, 1, 1], &device);
        let prediction = Prediction::from_x_0(x_t.clone() * 3.0, x_t.clone(), &level).clipped(1.0, x_t, &level);
        assert_eq!(prediction.x_0.into_scalar::<f32>(), 1.0);
        // (1 - sqrt(0.5)) / sqrt(0.5)
        assert!((prediction.epsilon.into_scalar::<f32>() - 0.414_213_57).abs() < 1e-6);
    }
}
