//! What the network predicts, and how it is fed: epsilon, x_0, v, EDM's F and flow matching's velocity.
//!
//! With `a = sqrt(alpha_bar)` and `s = sqrt(1 - alpha_bar)`: `x_t = a x_0 + s epsilon` and `v = a epsilon - s x_0`
//! (Salimans and Ho 2022, arXiv:2202.00512, appendix D), a rotation, so `x_0 = a x_t - s v` and `epsilon = s x_t + a v`.

use burn::tensor::{Device, Tensor, TensorData};
use schedule::{NoiseLevel, Objective, Preconditioning};

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
        Objective::Edm { .. } | Objective::Flow => {
            let [of_x_0, of_epsilon] = factors(objective, levels, &x_0, |fed| fed.target);
            x_0 * of_x_0 + epsilon * of_epsilon
        }
    }
}

/// What the network is fed with: x_t on the scale that it was trained on ([`Objective::preconditioning`]).
///
/// # Shapes
/// - `x_t`: `[batch, channels, height, width]`; `levels`: one for each sample
/// - result: like `x_t`
pub fn network_input(objective: Objective, x_t: Tensor<4>, levels: &[NoiseLevel]) -> Tensor<4> {
    match objective {
        Objective::Epsilon | Objective::X0 | Objective::V => x_t,
        Objective::Edm { .. } | Objective::Flow => {
            let scale = per_sample(levels, &x_t, |level| objective.preconditioning(level).input);
            x_t * scale
        }
    }
}

/// The time that the network is told, one number for each sample.
pub fn network_times(objective: Objective, levels: &[NoiseLevel], device: &Device) -> Tensor<1> {
    let times: Vec<f32> = levels.iter().map(|level| objective.preconditioning(*level).time as f32).collect();
    Tensor::from_data(TensorData::new(times, [levels.len()]), device)
}

/// Two factors of [`Preconditioning`] for each sample, `[batch, 1, 1, 1]` each.
fn factors(
    objective: Objective,
    levels: &[NoiseLevel],
    like: &Tensor<4>,
    pair: impl Fn(Preconditioning) -> [f64; 2],
) -> [Tensor<4>; 2] {
    [0, 1].map(|index| per_sample(levels, like, |level| pair(objective.preconditioning(level))[index]))
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
            Objective::Edm { .. } | Objective::Flow => {
                let linear = |pair: fn(Preconditioning) -> [f64; 2]| {
                    let [of_x_t, of_output] = factors(objective, levels, &x_t, pair);
                    x_t.clone() * of_x_t + output.clone() * of_output
                };
                Self { x_0: linear(|fed| fed.x_0), epsilon: linear(|fed| fed.epsilon), variance: None }
            }
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
    use crate::{Noise, Purpose, forward::q_sample};
    use burn::tensor::Tolerance;
    use schedule::{BetaSchedule, Schedule};

    #[test]
    fn every_objective_recovers_x_0_and_epsilon() {
        let device = Device::flex();
        let schedule = Schedule::new(&BetaSchedule::default(), 1000).expect("a schedule");
        let levels = [0, 10, 500, 900].map(|t| schedule.level(t));
        let stream = Noise::new(2).stream(Purpose::Evaluation);
        let samples = [0, 1, 2, 3];
        let x_0 = stream.normal_images(&samples, 0, [2, 4, 4], &device);
        let epsilon = stream.normal_images(&samples, 1, [2, 4, 4], &device);
        let x_t = q_sample(x_0.clone(), epsilon.clone(), &levels);
        let edm = Objective::Edm { sigma_data: 0.6 };
        for objective in [Objective::Epsilon, Objective::X0, Objective::V, edm, Objective::Flow] {
            let output = target(objective, x_0.clone(), epsilon.clone(), &levels);
            let prediction = Prediction::from_output(objective, output, x_t.clone(), &levels);
            let tolerance = Tolerance::<f32>::absolute(2e-4);
            prediction.x_0.into_data().assert_approx_eq(&x_0.to_data(), tolerance);
            prediction.epsilon.into_data().assert_approx_eq(&epsilon.to_data(), tolerance);
        }
    }

    #[test]
    fn networks_of_the_classic_objectives_are_fed_x_t_and_t() {
        let device = Device::flex();
        let schedule = Schedule::new(&BetaSchedule::default(), 1000).expect("a schedule");
        let levels = [3, 700].map(|t| schedule.level(t));
        let x_t = Noise::new(2).stream(Purpose::InitialNoise).normal_images(&[0, 1], 0, [1, 4, 4], &device);
        for objective in [Objective::Epsilon, Objective::X0, Objective::V] {
            network_input(objective, x_t.clone(), &levels).into_data().assert_eq(&x_t.to_data(), true);
            network_times(objective, &levels, &device).into_data().assert_eq(&TensorData::from([3f32, 700.0]), true);
        }
        // a straight path: x_t / (a + n), and its time
        let total = levels[1].signal_scale() + levels[1].noise_scale();
        let fed = network_input(Objective::Flow, x_t.clone(), &levels).narrow(0, 1, 1);
        let expected = x_t.narrow(0, 1, 1) / total;
        fed.into_data().assert_approx_eq(&expected.into_data(), Tolerance::<f32>::absolute(1e-6));
        let time: f32 = network_times(Objective::Flow, &levels, &device).narrow(0, 1, 1).into_scalar();
        assert!((f64::from(time) - 1000.0 * levels[1].noise_scale() / total).abs() < 1e-3);
    }

    #[test]
    fn at_zero_terminal_snr_x_0_and_v_stay_finite() {
        let device = Device::flex();
        let level = [NoiseLevel { timestep: 999.0, alpha_bar: 0.0 }];
        let x_t = Noise::new(2).stream(Purpose::InitialNoise).normal_images(&[0], 0, [1, 4, 4], &device);
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
