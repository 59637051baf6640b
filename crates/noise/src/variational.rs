//! The terms of the variational bound as the loss of a learned variance.

use core::f64::consts::LN_2;

use burn::tensor::{Tensor, assert_shape};
use schedule::Schedule;

use crate::{decoder::discrete_log_likelihoods, forward::coefficients};

/// The term of the variational bound of each sample at its timestep, in bits per dimension: the Kullback-Leibler divergence
/// of the model's step from the posterior, and at t = 0 the negative log-likelihood of the [discrete decoder](crate::decoder)
/// (Nichol and Dhariwal 2021, arXiv:2102.09672, section 3.1). Gradients reach `variance`, and `x_0_prediction` unless it is
/// detached.
///
/// # Shapes
/// - `x_0`, `x_t`, `x_0_prediction`: `[batch, channels, height, width]`; `timesteps`: one for each sample
/// - `variance`: the same shape; the place of the logarithm of the variance between those of the posterior (-1) and beta (1)
/// - result: `[batch]`
///
/// # Panics
/// If the shapes differ or there is not one timestep for each sample.
pub fn variational_terms(
    schedule: &Schedule,
    timesteps: &[usize],
    x_0: Tensor<4>,
    x_t: Tensor<4>,
    x_0_prediction: Tensor<4>,
    variance: Tensor<4>,
) -> Tensor<1> {
    let [batch, channels, height, width] = x_0.dims();
    assert_shape!(x_t, [batch, channels, height, width]);
    assert_shape!(x_0_prediction, [batch, channels, height, width]);
    assert_shape!(variance, [batch, channels, height, width]);
    assert_eq!(timesteps.len(), batch, "one timestep for each sample");
    let of = |value: &dyn Fn(usize) -> f64| coefficients(timesteps.iter().map(|t| value(*t)), &x_0);

    let least = |t: usize| schedule.posterior_log_variance_first_replaced()[t];
    let most = |t: usize| schedule.betas()[t].ln();
    let log_variance = of(&least) + (variance + 1.0) / 2.0 * of(&|t| most(t) - least(t));
    let of_x_0 = of(&|t| schedule.posterior_mean_coef1()[t]);

    let difference = of_x_0.clone() * (x_0.clone() - x_0_prediction.clone());
    let ratio = of(&least) - log_variance.clone();
    let divergence = (ratio.clone().exp() - 1.0 - ratio + difference.square() * log_variance.clone().neg().exp()) / 2.0;
    let nats = if timesteps.contains(&0) {
        let mean = of_x_0 * x_0_prediction + of(&|t| schedule.posterior_mean_coef2()[t]) * x_t;
        let decoder = discrete_log_likelihoods(x_0.clone(), mean, log_variance / 2.0).neg();
        let is_first = of(&|t| if t == 0 { 1.0 } else { 0.0 });
        divergence * (is_first.clone().neg() + 1.0) + decoder * is_first
    } else {
        divergence
    };
    nats.reshape([batch as i32, -1]).mean_dim(1).squeeze_dim::<1>(1) / LN_2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Noise, Purpose, forward::q_sample};
    use burn::tensor::Device;
    use schedule::BetaSchedule;

    /// The terms of a prediction that is off by 0.05, and the gradient of their mean with respect to the variance.
    fn terms(variance: f64) -> (Vec<f32>, Vec<f32>) {
        let device = Device::flex().autodiff();
        let schedule = Schedule::new(&BetaSchedule::default(), 100).expect("a schedule");
        let timesteps = [0, 1, 50, 99];
        let levels = timesteps.map(|t| schedule.level(t));
        let stream = Noise::new(4).stream(Purpose::Evaluation);
        let x_0 =
            (stream.normal_images(&[0, 1, 2, 3], 0, [1, 4, 4], &device) * 127.0).round().clamp(-127.0, 127.0) / 127.5;
        let epsilon = stream.normal_images(&[0, 1, 2, 3], 1, [1, 4, 4], &device);
        let x_t = q_sample(x_0.clone(), epsilon, &levels);
        let variance = (x_0.zeros_like() + variance).require_grad();
        let terms = variational_terms(&schedule, &timesteps, x_0.clone(), x_t, x_0 + 0.05, variance.clone());
        let gradients = terms.clone().mean().backward();
        let gradient = variance.grad(&gradients).expect("a gradient").mean_dims(&[1, 2, 3]);
        let read = |data: burn::tensor::TensorData| data.iter::<f32>().collect::<Vec<_>>();
        (read(terms.into_data()), read(gradient.into_data()))
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let step = 1e-2;
        let ((above, _), (below, _), (_, gradients)) = (terms(0.2 + step), terms(0.2 - step), terms(0.2));
        for ((above, below), gradient) in above.iter().zip(&below).zip(gradients) {
            // of the mean over four samples, for one of 16 elements
            let slope = f64::from(above - below) / (2.0 * step) / 4.0 / 16.0;
            assert!((slope - f64::from(gradient)).abs() < 0.02 * slope.abs() + 1e-6, "{gradient} is not {slope}");
        }
    }
}
