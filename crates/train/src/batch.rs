//! Batches: images, noise levels, noise and labels, each drawn from the position of a sample in the run.
//!
//! A position is the number of a sample since the first step. Everything random about a sample is a pure function of the seed and
//! its position, so it does not matter in which batch, on which thread or on which rank it is computed.

use burn::tensor::{Device, Int, Tensor, TensorData};
use data::ImageSet;
use noise::{NoiseLevel, Purpose};
use schedule::LevelDistribution;

use crate::{immiscible::assign_noise, trainer::Trainer};

/// The input of a loss.
pub(crate) struct Batch {
    /// Images, `[batch, channels, height, width]` in [-1, 1].
    pub(crate) x_0: Tensor<4>,
    /// Gaussian noise, shape of `x_0`.
    pub(crate) epsilon: Tensor<4>,
    /// The noise level of each sample.
    pub(crate) levels: Vec<NoiseLevel>,
    /// The class of each sample, `[batch]`; None for a network without classes.
    pub(crate) labels: Option<Tensor<1, Int>>,
}

/// A sample of a training step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Its position in the run.
    pub(crate) position: u64,
    /// The first position of its micro-batch.
    pub(crate) micro_batch: u64,
    /// Index of its image in the data.
    pub(crate) image: usize,
    /// The position whose noise it has: its own, except for immiscible noise.
    pub(crate) noise_position: u64,
    pub(crate) level: NoiseLevel,
    /// The weight of its loss where some timesteps are drawn more often than others; 1 otherwise.
    pub(crate) importance: f64,
}

impl Trainer {
    /// The samples of the next step, one list for each micro-batch. The same on every rank.
    pub(crate) fn next_samples(&mut self) -> Vec<Vec<Sample>> {
        let training = &self.config.training;
        let (micro_batches, batch_size) = (training.gradient_accumulate_every as u64, training.batch_size as u64);
        let first = self.state.step * micro_batches * batch_size;
        (0..micro_batches).map(|index| self.micro_batch(first + index * batch_size, batch_size)).collect()
    }

    fn micro_batch(&mut self, first: u64, batch_size: u64) -> Vec<Sample> {
        let mut samples: Vec<Sample> = (first..first + batch_size)
            .map(|position| {
                let (level, importance) = self.draw_level(position);
                let image = self.order.at(position);
                Sample { position, micro_batch: first, image, noise_position: position, level, importance }
            })
            .collect();
        if self.config.diffusion.immiscible_noise {
            let epsilon = self.epsilon(&samples, &self.device.clone().inner()).into_data();
            let epsilon: Vec<f32> = epsilon.iter::<f32>().collect();
            let assigned = assign_noise(&self.pixels(&samples), &epsilon, samples.len());
            for (sample, index) in samples.iter_mut().zip(assigned) {
                sample.noise_position = first + index as u64;
            }
        }
        samples
    }

    /// The noise level of the sample at a position, and its importance weight.
    fn draw_level(&self, position: u64) -> (NoiseLevel, f64) {
        let (schedule, stream) = (&self.schedule, self.noise.stream(Purpose::Timesteps));
        let uniform = || {
            let mut value = [0f32];
            stream.uniform(position, 0, &mut value);
            f64::from(value[0])
        };
        let diffusion = &self.config.diffusion;
        match (&self.state.importance, diffusion.level_distribution.of(diffusion.objective)) {
            (Some(importance), _) => {
                let (t, weight) = importance.draw(uniform());
                (schedule.level(t), weight)
            }
            (None, LevelDistribution::Own | LevelDistribution::Uniform) => {
                let t = stream.below(position, 0, schedule.timesteps() as u64);
                (schedule.level(t as usize), 1.0)
            }
            (None, distribution) => {
                let mut normal = [0f32];
                stream.normal(position, 1, &mut normal);
                (distribution.level(schedule, uniform(), f64::from(normal[0])), 1.0)
            }
        }
    }

    /// The batch of these samples, on the device of training.
    pub(crate) fn batch(&self, samples: &[Sample]) -> Batch {
        let images = &self.images;
        let shape = [samples.len(), images.channels(), images.height(), images.width()];
        let label_dropout = self.noise.stream(Purpose::LabelDropout);
        let is_dropped = |sample: &Sample| label_dropout.chance(sample.position, 0, self.config.training.label_dropout);
        let labels = samples.iter().map(|sample| images.label(sample.image).filter(|_| !is_dropped(sample)));
        Batch {
            x_0: Tensor::from_data(TensorData::new(self.pixels(samples), shape), &self.device),
            epsilon: self.epsilon(samples, &self.device),
            levels: samples.iter().map(|sample| sample.level).collect(),
            labels: label_tensor(labels, self.config.unet.classes, &self.device),
        }
    }

    /// The images of these samples, `[samples, channels, height, width]`, row-major.
    fn pixels(&self, samples: &[Sample]) -> Vec<f32> {
        let flips = self.noise.stream(Purpose::Flips);
        let flip = |sample: &Sample| self.config.data.horizontal_flip && flips.chance(sample.position, 0, 0.5);
        self.images.batch(samples.iter().map(|sample| (sample.image, flip(sample))))
    }

    fn epsilon(&self, samples: &[Sample], device: &Device) -> Tensor<4> {
        let image = [self.images.channels(), self.images.height(), self.images.width()];
        let positions: Vec<u64> = samples.iter().map(|sample| sample.noise_position).collect();
        let strength = self.config.diffusion.offset_noise_strength;
        self.noise.stream(Purpose::Epsilon).offset_images(&positions, 0, image, strength, device)
    }
}

/// Images without augmentation, `[indices.len(), channels, height, width]`.
pub(crate) fn image_tensor(images: &ImageSet, indices: &[usize], device: &Device) -> Tensor<4> {
    let pixels = images.batch(indices.iter().map(|index| (*index, false)));
    let shape = [indices.len(), images.channels(), images.height(), images.width()];
    Tensor::from_data(TensorData::new(pixels, shape), device)
}

/// Labels as a tensor, `[batch]`, with the null class `classes` for none; None for a network without classes.
pub(crate) fn label_tensor(
    labels: impl Iterator<Item = Option<u32>>,
    classes: usize,
    device: &Device,
) -> Option<Tensor<1, Int>> {
    let labels: Vec<i64> = labels.map(|label| label.map_or(classes as i64, i64::from)).collect();
    let shape = [labels.len()];
    (classes > 0).then(|| Tensor::from_data(TensorData::new(labels, shape), device))
}
