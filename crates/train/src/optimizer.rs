//! Adam and AdamW, with PyTorch's definitions.

use burn::tensor::{FloatDType, Tensor};
use kernels::adam::{AdamParameter, AdamStep, DeviceGradients, WeightDecay, adam};
use kernels::parts::compute_among_threads;
use unet::Network;

use crate::{
    config::{OptimizerKind, TrainingConfig},
    parameters::{Gradients, flat_parameters, map_flat},
};

/// The options of [`Adam`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// Adam or AdamW.
    pub kind: OptimizerKind,
    /// Decay of the running means of the gradient and of its square.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub epsilon: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

impl From<&TrainingConfig> for AdamConfig {
    fn from(config: &TrainingConfig) -> Self {
        Self { kind: config.optimizer, betas: config.betas, epsilon: config.epsilon, weight_decay: config.weight_decay }
    }
}

/// Adam (Kingma and Ba 2014, arXiv:1412.6980, algorithm 1) with the running means of each parameter.
#[derive(Clone, Debug)]
pub struct Adam {
    config: AdamConfig,
    /// Steps done.
    pub(crate) steps: u64,
    /// Running mean of the gradient of each parameter, flat.
    pub(crate) first: Vec<Tensor<1>>,
    /// Running mean of its square.
    pub(crate) second: Vec<Tensor<1>>,
}

impl Adam {
    /// An optimizer for the parameters of `unet`.
    pub fn new(config: AdamConfig, unet: &Network) -> Self {
        let zeros: Vec<Tensor<1>> = flat_parameters(unet).iter().map(Tensor::zeros_like).collect();
        Self { config, steps: 0, first: zeros.clone(), second: zeros }
    }

    /// One step along `gradients` times `clip`. With `average`, the averaged weights are updated in the same pass, with that decay.
    pub fn step(
        &mut self,
        unet: Network,
        gradients: Gradients,
        clip: f64,
        learning_rate: f64,
        mut average: Option<(&mut [Tensor<1>], f64)>,
    ) -> Network {
        let (is_trained, all) = split(gradients);
        let mut all = match DeviceGradients::new(all) {
            Err(gradients) => gradients.into_iter(),
            Ok(gradients) => {
                let decision = Tensor::from_floats([0.0, clip as f32, 1.0], &unet.device().inner());
                return self.step_on_device(unet, (is_trained, gradients), decision, learning_rate, average, None).0;
            }
        };
        let step =
            AdamStep { clip, ..self.next_step(learning_rate, average.as_ref().map_or(1.0, |(_, decay)| *decay)) };
        // tensors are moved out and back: one that is not shared is updated in place
        let nothing = Tensor::<1>::zeros([1], &unet.device().inner());
        let take = |tensor: &mut Tensor<1>| std::mem::replace(tensor, nothing.clone());
        let device = unet.device();
        let update = |index: usize, value| {
            let Some(gradient) = is_trained[index].then(|| all.next()).flatten() else { return value };
            let (mean, square) = (take(&mut self.first[index]), take(&mut self.second[index]));
            let average_before = average.as_mut().map(|(list, _)| take(&mut list[index]));
            let after = adam(&step, AdamParameter { value, gradient, mean, square, average: average_before });
            (self.first[index], self.second[index]) = (after.mean, after.square);
            if let (Some((list, _)), Some(average)) = (&mut average, after.average) {
                list[index] = average;
            }
            after.value
        };
        compute_among_threads(&device, || map_flat(unet, update))
    }

    /// [`step`](Self::step) with a decision that the device has made ([`DeviceGradients::decide`]); the gradients are those of
    /// the parameters that are trained. With `lower`, all parameters in that format too.
    pub(crate) fn step_on_device(
        &mut self,
        unet: Network,
        (is_trained, gradients): (Vec<bool>, DeviceGradients),
        decision: Tensor<1>,
        learning_rate: f64,
        mut average: Option<(&mut [Tensor<1>], f64)>,
        lower: Option<FloatDType>,
    ) -> (Network, Option<Vec<Tensor<1>>>) {
        let step = self.next_step(learning_rate, average.as_ref().map_or(1.0, |(_, decay)| *decay));
        let nothing = Tensor::<1>::zeros([1], &unet.device().inner());
        let take = |tensor: &mut Tensor<1>| std::mem::replace(tensor, nothing.clone());
        let trained = || is_trained.iter().enumerate().filter_map(|(index, is_trained)| is_trained.then_some(index));
        let mut values = flat_parameters(&unet);
        let parameters = trained().map(|index| AdamParameter {
            value: take(&mut values[index]),
            gradient: nothing.clone(),
            mean: take(&mut self.first[index]),
            square: take(&mut self.second[index]),
            average: average.as_mut().map(|(list, _)| take(&mut list[index])),
        });
        let parameters = parameters.collect();
        let (parameters, in_format) = gradients.adam(&step, parameters, decision, lower);
        for (index, after) in trained().zip(parameters) {
            (values[index], self.first[index], self.second[index]) = (after.value, after.mean, after.square);
            if let (Some((list, _)), Some(average)) = (&mut average, after.average) {
                list[index] = average;
            }
        }
        let lowered = lower.map(|dtype| {
            let mut in_format = in_format.into_iter();
            let of = |(value, is_trained): (&Tensor<1>, &bool)| {
                is_trained.then(|| in_format.next()).flatten().unwrap_or_else(|| value.clone().cast(dtype))
            };
            values.iter().zip(&is_trained).map(of).collect()
        });
        (map_flat(unet, |index, _| values[index].clone()), lowered)
    }

    /// Counts a step, and returns its numbers.
    fn next_step(&mut self, learning_rate: f64, average_decay: f64) -> AdamStep {
        self.steps += 1;
        let AdamConfig { kind, betas, epsilon, weight_decay } = self.config;
        let weight_decay = match kind {
            OptimizerKind::Adam => WeightDecay::Coupled(weight_decay),
            OptimizerKind::Adamw => WeightDecay::Decoupled(weight_decay),
        };
        AdamStep { number: self.steps, learning_rate, betas, epsilon, weight_decay, clip: 1.0, average_decay }
    }
}

/// Whether each parameter is trained, and the gradients of those that are.
pub(crate) fn split(gradients: Gradients) -> (Vec<bool>, Vec<Tensor<1>>) {
    (gradients.iter().map(Option::is_some).collect(), gradients.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use unet::UnetConfig;

    /// The first weight of a network whose weights begin at 1, after each of three steps with these gradients.
    fn walk(kind: OptimizerKind, weight_decay: f64) -> Vec<f32> {
        let device = Device::flex();
        let config = UnetConfig { dim: 4, dim_mults: vec![1], channels: 1, ..UnetConfig::default() };
        let unet = config.init(&device).expect("a possible network");
        let mut unet = map_flat(unet.into(), |_, value| value.ones_like());
        let config = AdamConfig { kind, betas: [0.9, 0.99], epsilon: 1e-8, weight_decay };
        let mut adam = Adam::new(config, &unet);
        let mut values = Vec::new();
        for gradient in [0.5, -0.2, 0.3] {
            let gradients = flat_parameters(&unet).iter().map(|value| Some(value.ones_like() * gradient)).collect();
            unet = adam.step(unet, gradients, 1.0, 0.1, None);
            values.push(flat_parameters(&unet)[0].clone().narrow(0, 0, 1).into_scalar());
        }
        values
    }

    #[test]
    fn three_steps_are_pytorch_s() {
        // torch.optim.Adam / AdamW([p], lr=.1, betas=(.9, .99), eps=1e-8, weight_decay=…) on p = 1, same gradients
        for (kind, weight_decay, expected) in [
            (OptimizerKind::Adam, 0.0, ADAM),
            (OptimizerKind::Adam, 0.1, ADAM_DECAY),
            (OptimizerKind::Adamw, 0.1, ADAMW),
        ] {
            let values = walk(kind, weight_decay);
            for (value, expected) in values.iter().zip(expected) {
                assert!((value - expected).abs() < 2e-6, "{kind:?}, {weight_decay}: {values:?} is not {expected}");
            }
        }
    }
    const ADAM: [f32; 3] = [0.9, 0.8653826, 0.8108348];
    const ADAM_DECAY: [f32; 3] = [0.9, 0.8474076, 0.7788752];
    const ADAMW: [f32; 3] = [0.89, 0.8464826, 0.78347];
}
