//! The network as a training step evaluates it: in a lower precision, with dropout and self-conditioning.

use std::sync::PoisonError;

use burn::{
    module::Module,
    tensor::{Int, Tensor, TensorData},
};
use noise::{NoiseLevel, NoiseStream, Objective, Prediction, Purpose, network_input, network_times};
use unet::{Condition, Network};

use crate::{
    batch::{Batch, Sample},
    precision::Precision,
    trainer::Trainer,
};

impl Trainer {
    /// The prediction of the network for these samples at `x_t`, `[batch, channels, height, width]` in f32; with a learned variance the
    /// raw output, `[batch, out_dim, height, width]`.
    pub(crate) fn predict(
        &self,
        unet: &Network,
        samples: &[Sample],
        batch: &Batch,
        x_t: &Tensor<4>,
        levels: &[NoiseLevel],
    ) -> Tensor<4> {
        let objective = self.config.diffusion.objective;
        let precision = Precision::new(self.config.training.mixed_precision, self.state.loss_scale);
        let input = network_input(objective, x_t.clone(), levels);
        let t = network_times(objective, levels, &self.device);
        let self_condition = self.is_self_conditioned(samples).then(|| {
            let x_0 = estimate_x_0(unet, objective, batch.labels.clone(), x_t, levels);
            // back onto the device of the graph
            precision.lower(Tensor::from_data(x_0.into_data(), &self.device))
        });
        let masks = self.dropout_masks(samples);
        let mask = |layer: usize, shape: [usize; 4]| {
            let prepared =
                batch.masks.lock().unwrap_or_else(PoisonError::into_inner).get_mut(layer).and_then(Option::take);
            let data = prepared.filter(|data| data.shape()[..] == shape).unwrap_or_else(|| {
                self.mask_shapes.lock().unwrap_or_else(PoisonError::into_inner).insert(layer, shape);
                masks.mask(layer, shape)
            });
            precision.lower(Tensor::from_data(data, &self.device))
        };
        let condition = Condition {
            labels: batch.labels.clone(),
            self_condition,
            dropout: if masks.probability > 0.0 { Some(&mask) } else { None },
        };
        let (output, channels) = (precision.forward(unet, input, t, condition), x_t.dims()[1]);
        // other channels than those of a learned variance have no loss
        let has_loss = self.config.unet.learned_variance() || output.dims()[1] == channels;
        if has_loss { output } else { output.narrow(1, 0, channels) }
    }

    pub(crate) fn dropout_masks(&self, samples: &[Sample]) -> DropoutMasks {
        DropoutMasks {
            stream: self.noise.stream(Purpose::Dropout),
            positions: samples.iter().map(|sample| sample.position).collect(),
            probability: self.config.unet.dropout(),
        }
    }

    /// Whether a micro-batch is given an estimate of x_0: every second one, on average.
    fn is_self_conditioned(&self, samples: &[Sample]) -> bool {
        let draws = self.noise.stream(Purpose::SelfConditioning);
        self.config.unet.self_condition()
            && samples.first().is_some_and(|sample| draws.chance(sample.micro_batch, 0, 0.5))
    }
}

/// The network's own estimate of x_0, without gradients (Chen et al. 2022, arXiv:2208.04202).
fn estimate_x_0(
    unet: &Network,
    objective: Objective,
    labels: Option<Tensor<1, Int>>,
    x_t: &Tensor<4>,
    levels: &[NoiseLevel],
) -> Tensor<4> {
    let x_t = x_t.clone().inner();
    let condition = Condition { labels: labels.map(Tensor::inner), ..Condition::default() };
    let input = network_input(objective, x_t.clone(), levels);
    let t = network_times(objective, levels, &x_t.device());
    let output = unet.valid().forward(input, t, condition).narrow(1, 0, x_t.dims()[1]);
    Prediction::from_output(objective, output, x_t, levels).x_0
}

/// Dropout masks: each sample has its own, whichever others are computed with it.
pub(crate) struct DropoutMasks {
    stream: NoiseStream,
    positions: Vec<u64>,
    /// The probability that an element is dropped.
    probability: f64,
}

impl DropoutMasks {
    /// 0 where an element is dropped and 1 / (1 - probability) elsewhere, `[batch, height, width, channels]`.
    pub(crate) fn mask(&self, layer: usize, shape: [usize; 4]) -> TensorData {
        let mut mask = vec![0f32; shape.iter().product()];
        for (position, mask) in self.positions.iter().zip(mask.chunks_exact_mut(shape[1..].iter().product())) {
            self.stream.uniform(*position, layer as u64, mask);
        }
        let kept = (1.0 / (1.0 - self.probability)) as f32;
        mask.iter_mut().for_each(|value| *value = if f64::from(*value) < self.probability { 0.0 } else { kept });
        TensorData::new(mask, shape)
    }
}
