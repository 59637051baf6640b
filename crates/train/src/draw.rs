//! Lines 2 to 4 of algorithm 1: the images, noise levels and noise of a step.
//!
//! The position of a sample is its number since the first step. Everything random about a sample is a pure function of the seed and
//! its position, so it does not matter in which batch, on which thread or on which rank it is computed.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};
use noise::{NoiseLevel, Purpose};
use schedule::LevelDistribution;

use crate::{
    batch::{Batch, HostBatch, Sample, label_tensor},
    immiscible::assign_noise,
    trainer::Trainer,
};

impl Trainer {
    /// The samples of the next step, one list for each micro-batch. The same on every rank.
    pub(crate) fn next_samples(&mut self) -> Vec<Vec<Sample>> {
        match self.upcoming.take() {
            Some((steps, samples)) if steps == self.state.step => samples,
            _ => self.samples_after(self.state.step),
        }
    }

    /// The samples of the step after `steps` steps.
    pub(crate) fn samples_after(&mut self, steps: u64) -> Vec<Vec<Sample>> {
        let training = &self.config.training;
        let (micro_batches, batch_size) = (training.gradient_accumulate_every as u64, training.batch_size as u64);
        let first = steps * micro_batches * batch_size;
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
            let epsilon: Vec<f32> = self.epsilon(&samples).iter::<f32>().collect();
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
        let label_dropout = self.noise.stream(Purpose::LabelDropout);
        let is_dropped = |sample: &Sample| label_dropout.chance(sample.position, 0, self.config.training.label_dropout);
        let labels = samples.iter().map(|sample| self.images.label(sample.image).filter(|_| !is_dropped(sample)));
        let HostBatch { x_0, epsilon, masks, .. } =
            self.take_prepared(samples).unwrap_or_else(|| self.host_batch(samples));
        Batch {
            x_0: Tensor::from_data(x_0, &self.device),
            epsilon: Tensor::from_data(epsilon, &self.device),
            levels: samples.iter().map(|sample| sample.level).collect(),
            labels: label_tensor(labels, self.config.unet.classes(), &self.device),
            masks: Mutex::new(masks),
        }
    }

    /// The images and noise of these samples.
    pub(crate) fn host_batch(&self, samples: &[Sample]) -> HostBatch {
        let images = &self.images;
        let shape = [samples.len(), images.channels(), images.height(), images.width()];
        HostBatch {
            first: samples.first().map_or(0, |sample| sample.position),
            x_0: TensorData::new(self.pixels(samples), shape),
            epsilon: self.epsilon(samples),
            masks: Vec::new(),
        }
    }

    /// [`host_batch`](Self::host_batch) with the dropout masks of all layers that an earlier step has met.
    pub(crate) fn prepared_batch(&self, samples: &[Sample]) -> HostBatch {
        let shapes = self.mask_shapes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let layers = shapes.last_key_value().map_or(0, |(layer, _)| layer + 1);
        let masks = self.dropout_masks(samples);
        let of_layer = |layer| shapes.get(&layer).map(|shape: &[usize; 4]| masks.mask(layer, *shape));
        HostBatch { masks: (0..layers).map(of_layer).collect(), ..self.host_batch(samples) }
    }

    /// The images of these samples, `[samples, channels, height, width]`, row-major.
    fn pixels(&self, samples: &[Sample]) -> Vec<f32> {
        let flips = self.noise.stream(Purpose::Flips);
        let flip = |sample: &Sample| self.config.data.horizontal_flip && flips.chance(sample.position, 0, 0.5);
        self.images.batch(samples.iter().map(|sample| (sample.image, flip(sample))))
    }

    fn epsilon(&self, samples: &[Sample]) -> TensorData {
        let image = [self.images.channels(), self.images.height(), self.images.width()];
        let positions: Vec<u64> = samples.iter().map(|sample| sample.noise_position).collect();
        let strength = self.config.diffusion.offset_noise_strength;
        self.noise.stream(Purpose::Epsilon).image_data(&positions, 0, image, strength)
    }
}
