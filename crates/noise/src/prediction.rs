//! Conversions between epsilon, x_0 and the output of a network, over tensors. The factors are those of
//! [`Objective::preconditioning`].

use burn::tensor::{Device, Tensor, TensorData};
use schedule::{NoiseLevel, Objective, Preconditioning};

use crate::forward::per_sample;

/// The target of the loss: the output of an ideal network.
///
/// # Shapes
/// - `x_0`, `epsilon`: `[batch, channels, height, width]`; `levels`: one for each sample
/// - result: like `x_0`
pub fn target(objective: Objective, x_0: Tensor<4>, epsilon: Tensor<4>, levels: &[NoiseLevel]) -> Tensor<4> {
    match objective {
        Objective::Epsilon => epsilon,
        Objective::X0 => x_0,
        _ => mix(objective, levels, |factors| factors.target, x_0, epsilon),
    }
}

/// The input of the network: x_t on the scale that it was trained on.
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

/// The time input of the network, `[batch]`: one number for each of `levels`.
pub fn network_times(objective: Objective, levels: &[NoiseLevel], device: &Device) -> Tensor<1> {
    let times: Vec<f32> = levels.iter().map(|level| objective.preconditioning(*level).time as f32).collect();
    Tensor::from_data(TensorData::new(times, [levels.len()]), device)
}

/// `first` and `second`, each times its factor at the level of the sample, added up.
fn mix(
    objective: Objective,
    levels: &[NoiseLevel],
    factors: impl Fn(Preconditioning) -> [f64; 2],
    first: Tensor<4>,
    second: Tensor<4>,
) -> Tensor<4> {
    let [of_first, of_second] =
        [0, 1].map(|index| per_sample(levels, &first, |level| factors(objective.preconditioning(level))[index]));
    first * of_first + second * of_second
}

/// An estimate of the clean image and of the noise in x_t; each follows from the other.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// The clean image, `[batch, channels, height, width]`.
    pub x_0: Tensor<4>,
    /// The noise, same shape.
    pub epsilon: Tensor<4>,
    /// Of a learned variance: the place of its logarithm between those of the posterior variance (-1) and of beta (1), same
    /// shape (Nichol and Dhariwal 2021, arXiv:2102.09672, equation 15, scaled as in their code).
    pub variance: Option<Tensor<4>>,
}

impl Prediction {
    /// From the raw output of a network that was trained for `objective`.
    ///
    /// # Shapes
    /// - `output`, `x_t`: `[batch, channels, height, width]`; `levels`: one for each sample
    pub fn from_output(objective: Objective, output: Tensor<4>, x_t: Tensor<4>, levels: &[NoiseLevel]) -> Self {
        let x_0 = || mix(objective, levels, |factors| factors.x_0, x_t.clone(), output.clone());
        let epsilon = || mix(objective, levels, |factors| factors.epsilon, x_t.clone(), output.clone());
        let (x_0, epsilon) = match objective {
            Objective::Epsilon => (x_0(), output),
            Objective::X0 => (output.clone(), epsilon()),
            _ => (x_0(), epsilon()),
        };
        Self { x_0, epsilon, variance: None }
    }

    /// `x_0 = (x_t - sqrt(1 - alpha_bar) epsilon) / sqrt(alpha_bar)`. Infinite where alpha_bar is 0 and x_t holds nothing
    /// of x_0: such schedules need the objective x_0 or v.
    pub fn from_epsilon(epsilon: Tensor<4>, x_t: Tensor<4>, levels: &[NoiseLevel]) -> Self {
        Self::from_output(Objective::Epsilon, epsilon, x_t, levels)
    }

    /// `epsilon = (x_t - sqrt(alpha_bar) x_0) / sqrt(1 - alpha_bar)`; 0 where there is no noise.
    pub fn from_x_0(x_0: Tensor<4>, x_t: Tensor<4>, levels: &[NoiseLevel]) -> Self {
        Self::from_output(Objective::X0, x_0, x_t, levels)
    }

    /// `x_0 = a x_t - n v` and `epsilon = n x_t + a v`, with `a = sqrt(alpha_bar)` and `n = sqrt(1 - alpha_bar)`: (x_t, v) is
    /// (x_0, epsilon) rotated (Salimans and Ho 2022, arXiv:2202.00512, appendix D).
    pub fn from_v(v: Tensor<4>, x_t: Tensor<4>, levels: &[NoiseLevel]) -> Self {
        Self::from_output(Objective::V, v, x_t, levels)
    }

    /// Clips x_0 to `[-limit, limit]` and derives epsilon from the result (lucidrains' DDIM), so that x_0 stays inside the
    /// range of images.
    pub fn clipped(self, limit: f64, x_t: Tensor<4>, levels: &[NoiseLevel]) -> Self {
        let clipped = Self::from_x_0(self.x_0.clamp(-limit, limit), x_t, levels);
        Self { variance: self.variance, ..clipped }
    }
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
        let noise_indices = [0, 1, 2, 3];
        let x_0 = stream.normal_images(&noise_indices, 0, [2, 4, 4], &device);
        let epsilon = stream.normal_images(&noise_indices, 1, [2, 4, 4], &device);
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
        // x_t / (a + n) of the straight path, and its time
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
