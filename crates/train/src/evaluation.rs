//! The held-out loss: that of images that are not trained on, with the same noise levels and noise at every step.

use data::ImageSet;
use noise::{NoiseLevel, Purpose, network_input, network_times};
use serde::{Deserialize, Serialize};
use unet::Condition;

use crate::{
    batch::{Batch, image_tensor, label_tensor},
    loss::denoising_loss,
    quartiles::{Mean, QUARTILES},
    trainer::Trainer,
};

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
    /// Of as many training images, with the same timesteps and noise; lower where the network has memorized them.
    pub training: Losses,
}

impl Trainer {
    /// The weighted loss of the averaged network on `images`, without dropped labels. Image i has a timestep of quartile i mod 4;
    /// timestep and noise follow from the seed and i alone, so that the losses of different steps differ by the weights alone.
    pub fn losses_of(&self, images: &ImageSet) -> Losses {
        let unet = self.state.ema.unet(self.unet());
        let (device, diffusion) = (unet.device(), &self.config.diffusion);
        let stream = self.noise.stream(Purpose::Evaluation);
        let image = [images.channels(), images.height(), images.width()];
        let mut losses: [Vec<f64>; QUARTILES] = Default::default();
        let indices: Vec<usize> = (0..images.len()).collect();
        for indices in indices.chunks(self.config.training.batch_size.max(1)) {
            let noise_indices: Vec<u64> = indices.iter().map(|index| *index as u64).collect();
            let labels = indices.iter().map(|index| images.label(*index));
            let batch = Batch {
                x_0: image_tensor(images, indices, &device),
                epsilon: stream.normal_images(&noise_indices, 0, image, &device),
                levels: indices.iter().map(|index| self.evaluation_level(*index)).collect(),
                labels: label_tensor(labels, self.config.unet.classes(), &device),
                masks: Default::default(),
            };
            let values = denoising_loss(diffusion, &self.schedule, &batch, |x_t, levels| {
                let input = network_input(diffusion.objective, x_t.clone(), levels);
                let t = network_times(diffusion.objective, levels, &device);
                let condition = Condition { labels: batch.labels.clone(), ..Condition::default() };
                // the prediction without a learned variance
                unet.forward(input, t, condition).narrow(1, 0, image[0])
            });
            for (index, loss) in indices.iter().zip(values.into_data().iter::<f64>()) {
                losses[index % QUARTILES].push(loss);
            }
        }
        Losses { all: Mean::of(&losses.concat()), quartiles: losses.map(|losses| Mean::of(&losses)) }
    }

    /// The noise level of image `index`: a timestep of quartile `index` mod 4.
    pub(crate) fn evaluation_level(&self, index: usize) -> NoiseLevel {
        let (timesteps, quartile) = (self.schedule.timesteps(), index % QUARTILES);
        let (start, end) = (quartile * timesteps / QUARTILES, (quartile + 1) * timesteps / QUARTILES);
        let draws = self.noise.stream(Purpose::Evaluation);
        self.schedule.level(start + draws.below(index as u64, 1, (end - start).max(1) as u64) as usize)
    }

    /// [`Trainer::losses_of`] held-out images, and of as many images that are trained on, spread evenly over the data.
    pub fn evaluate(&self, held_out: &ImageSet) -> Evaluation {
        let (all, count) = (self.images.len(), held_out.len().min(self.images.len()));
        let known = self.images.subset((0..count).map(|index| index * all / count.max(1)));
        Evaluation { step: self.state.step, held_out: self.losses_of(held_out), training: self.losses_of(&known) }
    }
}
