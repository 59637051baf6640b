//! The network as a training step evaluates it: in a lower precision, with dropout and self-conditioning.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{DType, Device, FloatDType, Int, Tensor, TensorData},
};
use noise::{NoiseLevel, NoiseStream, Objective, Prediction, Purpose, network_input, network_times};
use unet::{Condition, Unet};

use crate::{
    batch::{Batch, Sample},
    config::MixedPrecision,
    error::TrainError,
    parameters::Gradients,
    trainer::Trainer,
};

impl Trainer {
    /// The raw output of the network for these samples at `x_t`, `[batch, out_dim, height, width]` in f32.
    pub(crate) fn predict(
        &self,
        unet: &Unet,
        samples: &[Sample],
        batch: &Batch,
        x_t: &Tensor<4>,
        levels: &[NoiseLevel],
    ) -> Tensor<4> {
        let objective = self.config.diffusion.objective;
        let precision = Precision::new(self.config.training.mixed_precision);
        let input = network_input(objective, x_t.clone(), levels);
        let t = network_times(objective, levels, &self.device);
        let self_condition = self.is_self_conditioned(samples).then(|| {
            let x_0 = estimate_x_0(unet, objective, batch.labels.clone(), x_t, levels);
            // back onto the device of the graph
            precision.lower(Tensor::from_data(x_0.into_data(), &self.device))
        });
        let masks = DropoutMasks {
            stream: self.noise.stream(Purpose::Dropout),
            positions: samples.iter().map(|sample| sample.position).collect(),
            probability: self.config.unet.dropout,
        };
        let mask = |layer: usize, shape: [usize; 4]| precision.lower(masks.mask(layer, shape, &self.device));
        let condition = Condition {
            labels: batch.labels.clone(),
            self_condition,
            dropout: if masks.probability > 0.0 { Some(&mask) } else { None },
        };
        precision.forward(unet, input, t, condition)
    }

    /// Whether a micro-batch is given an estimate of x_0: every second one, on average.
    fn is_self_conditioned(&self, samples: &[Sample]) -> bool {
        let draws = self.noise.stream(Purpose::SelfConditioning);
        self.config.unet.self_condition
            && samples.first().is_some_and(|sample| draws.chance(sample.micro_batch, 0, 0.5))
    }
}

/// The network's own estimate of x_0, without gradients (Chen et al. 2022, arXiv:2208.04202).
fn estimate_x_0(
    unet: &Unet,
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
struct DropoutMasks {
    stream: NoiseStream,
    positions: Vec<u64>,
    /// The probability that an element is dropped.
    probability: f64,
}

impl DropoutMasks {
    /// 0 where an element is dropped and 1 / (1 - probability) elsewhere, `[batch, height, width, channels]`.
    fn mask(&self, layer: usize, shape: [usize; 4], device: &Device) -> Tensor<4> {
        let mut mask = vec![0f32; shape.iter().product()];
        for (position, mask) in self.positions.iter().zip(mask.chunks_exact_mut(shape[1..].iter().product())) {
            self.stream.uniform(*position, layer as u64, mask);
        }
        let kept = (1.0 / (1.0 - self.probability)) as f32;
        mask.iter_mut().for_each(|value| *value = if f64::from(*value) < self.probability { 0.0 } else { kept });
        Tensor::from_data(TensorData::new(mask, shape), device)
    }
}

/// The number format of the forward and backward pass; weights, loss and optimizer stay in f32.
#[derive(Clone, Copy)]
pub(crate) struct Precision {
    /// None for f32.
    dtype: Option<FloatDType>,
    loss_scale: f64,
}

impl Precision {
    pub(crate) fn new(mixed: MixedPrecision) -> Self {
        match mixed {
            MixedPrecision::No => Self { dtype: None, loss_scale: 1.0 },
            MixedPrecision::Bf16 => Self { dtype: Some(FloatDType::BF16), loss_scale: 1.0 },
            // keeps small gradients above the smallest half-precision number
            MixedPrecision::F16 => Self { dtype: Some(FloatDType::F16), loss_scale: 1024.0 },
        }
    }

    /// # Errors
    /// [`TrainError::Precision`] if the device does not compute in the format.
    pub(crate) fn check(mixed: MixedPrecision, device: &Device) -> Result<(), TrainError> {
        let (precision, dtype) = match mixed {
            MixedPrecision::No => return Ok(()),
            MixedPrecision::Bf16 => ("bf16", DType::BF16),
            MixedPrecision::F16 => ("f16", DType::F16),
        };
        if device.supports_dtype(dtype) {
            return Ok(());
        }
        Err(TrainError::Precision { precision, reason: format!("it does not compute in {dtype:?}") })
    }

    /// The loss to take the gradients of, large enough for them to be represented.
    pub(crate) fn scaled(self, loss: Tensor<1>) -> Tensor<1> {
        if self.loss_scale == 1.0 { loss } else { loss * self.loss_scale }
    }

    /// The gradients of a loss, from those of the [scaled](Self::scaled) one.
    pub(crate) fn unscaled(self, gradients: Gradients) -> Gradients {
        if self.loss_scale == 1.0 {
            return gradients;
        }
        gradients.into_iter().map(|gradient| gradient.map(|gradient| gradient / self.loss_scale)).collect()
    }

    fn lower<const D: usize>(self, tensor: Tensor<D>) -> Tensor<D> {
        match self.dtype {
            Some(dtype) => tensor.cast(dtype),
            None => tensor,
        }
    }

    /// The network in the lower format, whose parameters stay part of the graph of the f32 ones; the output is f32 again.
    fn forward(self, unet: &Unet, input: Tensor<4>, t: Tensor<1>, condition: Condition) -> Tensor<4> {
        struct Lower(Precision);
        impl ModuleMapper for Lower {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|tensor| self.0.lower(tensor))
            }
        }
        match self.dtype {
            None => unet.forward(input, t, condition),
            Some(_) => {
                let lowered = unet.clone().map(&mut Lower(self));
                lowered.forward(self.lower(input), t, condition).cast(FloatDType::F32)
            }
        }
    }
}
