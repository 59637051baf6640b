//! A model as a denoiser.

use burn::tensor::{Int, Tensor};
use checkpoint::Model;
use kernels::parts::compute_parts;
use noise::{Prediction, network_input, network_times};
use sampler::{Denoiser, Guided, NoiseLevel};
use schedule::Objective;
use unet::{Condition, Network};

/// A trained network as a [`Denoiser`]: which samplers, likelihoods and editing call.
#[derive(Clone, Debug)]
pub struct NetworkDenoiser<'a> {
    /// The network.
    pub unet: &'a Network,
    /// The objective that it was trained for.
    pub objective: Objective,
    /// Class of each image of the batch, `[batch]`; None is the null class.
    pub labels: Option<Tensor<1, Int>>,
    /// Parts that a batch is split into, each computed by its own thread; 1 for no split.
    pub parallel_parts: usize,
}

impl<'a> NetworkDenoiser<'a> {
    /// The network of a model, with its `sampling.parallel_parts`.
    pub fn new(model: &'a Model, labels: Option<Tensor<1, Int>>) -> Self {
        let parallel_parts = model.header.sampling.parallel_parts;
        Self { unet: &model.unet, objective: model.header.objective, labels, parallel_parts }
    }

    /// The raw output for a batch, `[batch, out_dim, height, width]`.
    fn output(&self, x_t: &Tensor<4>, level: NoiseLevel, self_condition: Option<&Tensor<4>>) -> Tensor<4> {
        let batch = x_t.dims()[0];
        let part = |start: usize, length: usize| {
            let levels = vec![level; length];
            let t = network_times(self.objective, &levels, &x_t.device());
            let condition = Condition {
                labels: self.labels.clone().map(|labels| labels.narrow(0, start, length)),
                self_condition: self_condition.map(|x_0| x_0.clone().narrow(0, start, length)),
                ..Condition::default()
            };
            let x_t = x_t.clone().narrow(0, start, length);
            self.unet.forward(network_input(self.objective, x_t, &levels), t, condition)
        };
        let parts = if self.unet.is_on_gpu() { 1 } else { self.parallel_parts.max(1) };
        let size = batch.div_ceil(parts).max(1);
        let starts = (0..batch.max(1)).step_by(size).collect();
        let mut outputs = compute_parts(&x_t.device(), starts, |start| part(start, size.min(batch - start)));
        if outputs.len() == 1 { outputs.swap_remove(0) } else { Tensor::cat(outputs, 0) }
    }
}

/// Classifier-free guidance with both predictions from one batch of twice the size, as is quicker on a GPU.
pub(crate) struct GuidedInOneBatch<'a>(pub(crate) Guided<NetworkDenoiser<'a>, NetworkDenoiser<'a>>);

impl Denoiser for GuidedInOneBatch<'_> {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, self_condition: Option<&Tensor<4>>) -> Prediction {
        let (batch, NetworkDenoiser { unet, labels, .. }) = (x_t.dims()[0], &self.0.conditional);
        let Some(labels) = labels.as_ref().filter(|_| self.0.needs_both(level)) else {
            return self.0.denoise(x_t, level, self_condition);
        };
        let null = labels.full_like(unet.classes() as i64);
        let both =
            NetworkDenoiser { labels: Some(Tensor::cat(vec![labels.clone(), null], 0)), ..self.0.conditional.clone() };
        let twice = |x: &Tensor<4>| Tensor::cat(vec![x.clone(), x.clone()], 0);
        let Prediction { x_0, epsilon, variance } =
            both.denoise(twice(&x_t), level, self_condition.map(twice).as_ref());
        let halves = [0, 1].map(|half| {
            let half = |x: &Tensor<4>| x.clone().narrow(0, half * batch, batch);
            Prediction { x_0: half(&x_0), epsilon: half(&epsilon), variance: variance.as_ref().map(half) }
        });
        self.0.mix(halves, x_t, level)
    }
}

impl Denoiser for NetworkDenoiser<'_> {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, self_condition: Option<&Tensor<4>>) -> Prediction {
        let [batch, channels, _, _] = x_t.dims();
        // a sampler may keep its state in f64; the network computes in the dtype of its weights
        let (state, weights) = (x_t.dtype(), self.unet.dtype());
        let output = if state == weights {
            self.output(&x_t, level, self_condition)
        } else {
            let self_condition = self_condition.map(|x_0| x_0.clone().cast(weights));
            self.output(&x_t.clone().cast(weights), level, self_condition.as_ref()).cast(state)
        };
        // a network with a learned variance has twice the channels
        let variance = (output.dims()[1] == 2 * channels).then(|| output.clone().narrow(1, channels, channels));
        let output = output.narrow(1, 0, channels);
        Prediction { variance, ..Prediction::from_output(self.objective, output, x_t, &vec![level; batch]) }
    }
}
