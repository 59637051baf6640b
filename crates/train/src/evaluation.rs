//! The loss of images that were not trained on, with draws of level and noise that never change.

use burn::tensor::{Int, Tensor, TensorData};
use data::ImageSet;
use noise::{NoiseLevel, Purpose, forward::q_sample, network_input, network_times, target};
use serde::{Deserialize, Serialize};
use unet::Condition;

use crate::trainer::Trainer;

/// Parts that the timesteps are cut into.
pub const QUARTILES: usize = 4;

/// A mean with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Its standard error, by the spread of the values; 0 of fewer than two.
    pub error: f64,
}

impl Mean {
    fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count.max(1.0);
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let error = if values.len() < 2 { 0.0 } else { (squares / (count - 1.0) / count).sqrt() };
        Self { mean, error }
    }
}

/// The loss of the averaged network on some images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// Over all timesteps.
    pub all: Mean,
    /// Over each quartile of the timesteps, the least noise first.
    pub quartiles: [Mean; QUARTILES],
}

/// Losses after a step: a line of `evaluations.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The step.
    pub step: u64,
    /// Of images that are not trained on.
    pub held_out: Losses,
    /// Of as many that are, with the same draws: less, where the network has learned them by heart.
    pub training: Losses,
}

impl Trainer {
    /// The weighted loss of the averaged network on `images`, each at one timestep: image number i at one of the
    /// quartile i mod 4 of the schedule, timestep and noise drawn from the seed and i alone, so that figures of different steps
    /// differ by the weights alone. Labels are told.
    pub fn losses_of(&self, images: &ImageSet) -> Losses {
        let unet = self.ema.unet(self.unet());
        let (config, schedule, device) = (self.config(), &self.schedule, unet.device());
        let (diffusion, stream) = (&config.diffusion, self.noise.stream(Purpose::Evaluation));
        let timesteps = schedule.timesteps();
        let level = |index: usize| -> NoiseLevel {
            let quartile = index % QUARTILES;
            let (start, end) = (quartile * timesteps / QUARTILES, (quartile + 1) * timesteps / QUARTILES);
            let within = stream.below(index as u64, 1, (end - start).max(1) as u64) as usize;
            schedule.level(start + within)
        };
        let image = [images.channels(), images.height(), images.width()];
        let mut losses: [Vec<f64>; QUARTILES] = Default::default();
        let indices: Vec<usize> = (0..images.len()).collect();
        for part in indices.chunks(config.training.batch_size.max(1)) {
            let mut pixels = vec![0f32; part.len() * images.image_len()];
            for (index, out) in part.iter().zip(pixels.chunks_exact_mut(images.image_len())) {
                images.write_chw_f32(*index, false, out);
            }
            let shape = [part.len(), image[0], image[1], image[2]];
            let x_0 = Tensor::<4>::from_data(TensorData::new(pixels, shape), &device);
            let levels: Vec<NoiseLevel> = part.iter().map(|index| level(*index)).collect();
            let samples: Vec<u64> = part.iter().map(|index| *index as u64).collect();
            let epsilon = stream.normal_images(&samples, 0, image, &device);
            let x_t = q_sample(x_0.clone(), epsilon.clone(), &levels);
            let null = config.unet.classes;
            let labels: Vec<i64> =
                part.iter().map(|index| images.label(*index).map_or(null, |label| label as usize) as i64).collect();
            let labels =
                (null > 0).then(|| Tensor::<1, Int>::from_data(TensorData::new(labels, [part.len()]), &device));
            let condition = Condition { labels, ..Condition::default() };
            let input = network_input(diffusion.objective, x_t, &levels);
            let output = unet.forward(input, network_times(diffusion.objective, &levels, &device), condition);
            let weights: Vec<f64> =
                levels.iter().map(|level| diffusion.loss_weight.weight(*level, diffusion.objective)).collect();
            let values = diffusion.loss.weighted_per_sample(
                output.narrow(1, 0, image[0]),
                target(diffusion.objective, x_0, epsilon, &levels),
                &weights,
            );
            for (index, loss) in part.iter().zip(values.into_data().iter::<f64>()) {
                losses[index % QUARTILES].push(loss);
            }
        }
        Losses { all: Mean::of(&losses.concat()), quartiles: losses.map(|losses| Mean::of(&losses)) }
    }

    /// [`Trainer::losses_of`] images that are held out, and of as many that are trained on, spread evenly.
    pub fn evaluate(&self, held_out: &ImageSet) -> Evaluation {
        let (all, count) = (self.images.len(), held_out.len().min(self.images.len()));
        let known = self.images.subset((0..count).map(|index| index * all / count.max(1)));
        Evaluation { step: self.step, held_out: self.losses_of(held_out), training: self.losses_of(&known) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_has_its_standard_error() {
        let Mean { mean, error } = Mean::of(&[1.0, 2.0, 3.0, 6.0]);
        assert_eq!(mean, 3.0);
        assert!((error - (14.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(Mean::of(&[2.0]), Mean { mean: 2.0, error: 0.0 });
    }
}
