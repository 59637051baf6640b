//! Lines 2 to 5 of algorithm 1 of the DDPM paper (Ho et al. 2020, arXiv:2006.11239): the loss of a batch.

use burn::tensor::Tensor;
use noise::{NoiseLevel, Prediction, forward::q_sample, target, variational::variational_terms};
use schedule::Schedule;

use crate::{batch::Batch, config::DiffusionConfig};

/// The loss of each sample, `[batch]`, weighted by its noise level.
///
/// `predict` is the network: it gets `x_t`, `[batch, channels, height, width]`, and the levels, and returns its prediction, of the
/// same shape. Twice as many channels are a prediction and a learned variance.
pub(crate) fn denoising_loss(
    diffusion: &DiffusionConfig,
    schedule: &Schedule,
    batch: &Batch,
    predict: impl FnOnce(&Tensor<4>, &[NoiseLevel]) -> Tensor<4>,
) -> Tensor<1> {
    // lines 2 to 4: x_0 ~ q(x_0), t ~ Uniform({1, …, T}), epsilon ~ N(0, I)
    let Batch { x_0, epsilon, levels, .. } = batch;
    // line 5: || epsilon - epsilon_theta(sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon, t) ||^2
    let x_t = q_sample(x_0.clone(), epsilon.clone(), levels);
    let output = predict(&x_t, levels);
    let prediction = output.clone().narrow(1, 0, x_0.dims()[1]);
    let target = target(diffusion.objective, x_0.clone(), epsilon.clone(), levels);
    let weights: Vec<f64> =
        levels.iter().map(|level| diffusion.loss_weight.weight(*level, diffusion.objective)).collect();
    let losses = diffusion.loss.weighted_per_sample(prediction, target, &weights);
    match variational_loss(diffusion, schedule, batch, x_t, output) {
        Some(variational) => losses + variational,
        None => losses,
    }
}

/// The second term of the hybrid loss, `lambda T L_t` (Nichol and Dhariwal 2021, arXiv:2102.09672, equation 16), `[batch]`: the
/// variational bound teaches the variance alone, as the prediction is detached. None without a learned variance, or with a weight
/// of 0.
fn variational_loss(
    diffusion: &DiffusionConfig,
    schedule: &Schedule,
    batch: &Batch,
    x_t: Tensor<4>,
    output: Tensor<4>,
) -> Option<Tensor<1>> {
    let Batch { x_0, levels, .. } = batch;
    let channels = x_0.dims()[1];
    if output.dims()[1] == channels || diffusion.variational_weight == 0.0 {
        return None;
    }
    let variance = output.clone().narrow(1, channels, channels);
    let prediction = output.narrow(1, 0, channels).detach();
    let prediction = Prediction::from_output(diffusion.objective, prediction, x_t.clone(), levels);
    // a configuration with levels between the timesteps is refused
    let timesteps: Vec<usize> = levels.iter().map(|level| level.timestep as usize).collect();
    let terms = variational_terms(schedule, &timesteps, x_0.clone(), x_t, prediction.x_0, variance);
    Some(terms * (diffusion.variational_weight * schedule.timesteps() as f64))
}
