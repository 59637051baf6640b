//! Divergence with finite numbers: a training that ends with a loss beyond that of a constant, or with saturated samples.

use std::fmt;

use burn::tensor::Tensor;
use data::ImageSet;
use noise::Purpose;

use crate::{batch::Batch, batch::image_tensor, loss::denoising_loss, trainer::Trainer};

/// The most training images that the check looks at.
const MOST_IMAGES: usize = 32;
/// A loss beyond this many times that of a network with a constant output of 1 or -1 has diverged. A training begins below 1.
const LARGEST_RATIO: f64 = 5.0;
/// Values from here on count as saturated; [-1, 1] is the range of images.
const SATURATED: f32 = 0.999;
/// Samples are saturated if their share of other values is below this part of that of the images, ...
const LEAST_PART: f64 = 0.02;
/// ... and below this: images that are black and white themselves have few.
const LEAST_SHARE: f64 = 0.02;
/// Saturated samples alone say nothing before this many steps: a network begins with an output of about 0, whose samples are
/// saturated too.
const LEAST_STEPS: u64 = 100;
/// The highest learning rate that is proposed.
const USUAL_RATE: f64 = 1e-3;

/// The signs that a training has diverged although all its numbers are finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// The signs, a phrase each.
    pub signs: Vec<String>,
    /// Whether the samples alone are a sign, and the loss is not.
    pub in_samples_alone: bool,
    /// The learning rate of the training.
    pub learning_rate: f64,
    /// A learning rate to try.
    pub rate_to_try: f64,
    /// The step of the best model so far, if its held-out loss was not that of a divergence.
    pub best_step: Option<u64>,
}

impl fmt::Display for Divergence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { signs, in_samples_alone, learning_rate, rate_to_try, best_step } = self;
        let signs = signs.join("; ");
        if *in_samples_alone {
            return write!(
                formatter,
                "the samples are of no use, although the loss is not that of a divergence: {signs}. Train for more steps, set \
                 sampling.clip = true if it is false, or start again with training.learning_rate = {rate_to_try} instead of \
                 {learning_rate}"
            );
        }
        write!(
            formatter,
            "the training has diverged, and its model is of no use: {signs}. Start again with training.learning_rate = \
             {rate_to_try} instead of {learning_rate}, and with training.max_gradient_norm = 1 if clipping is off"
        )?;
        match best_step {
            Some(step) => write!(formatter, "; best.safetensors is of step {step}, before it diverged"),
            None => Ok(()),
        }
    }
}

/// The share of values of images in [-1, 1] that are saturated, or not finite.
pub(crate) fn saturated_share(values: impl Iterator<Item = f32>) -> f64 {
    let (mut saturated, mut count) = (0u64, 0u64);
    for value in values {
        count += 1;
        saturated += u64::from(value.is_nan() || value.abs() >= SATURATED);
    }
    saturated as f64 / count.max(1) as f64
}

/// Whether samples with this share of saturated values cannot be images of a data set with that share.
fn is_saturated(of_samples: f64, of_images: f64) -> bool {
    let (samples, images) = (1.0 - of_samples, 1.0 - of_images);
    samples < LEAST_SHARE && samples < LEAST_PART * images
}

/// The median; None of no values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The rate to try after a training diverged with `rate`.
pub(crate) fn rate_to_try(rate: f64) -> f64 {
    // two digits, as one writes it
    let tenth = format!("{:.1e}", rate / 10.0).parse().unwrap_or(rate / 10.0);
    f64::min(tenth, USUAL_RATE)
}

impl Trainer {
    /// The signs of a divergence: `last_loss`, the usual weighted loss of the last steps, or that of the averaged network, far above
    /// that of a constant; `saturated`, the share of saturated values of the samples, above what the images explain. None of a
    /// training that went well.
    pub(crate) fn divergence(&self, last_loss: Option<f64>, saturated: Option<f64>) -> Option<Divergence> {
        let (total, count) = (self.images.len(), self.images.len().min(MOST_IMAGES));
        let some = self.images.subset((0..count).map(|index| index * total / count.max(1)));
        let bound = LARGEST_RATIO * self.constant_loss(&some);
        let mut signs = Vec::new();
        let mut compare = |what: &str, loss: f64| {
            if loss.is_nan() || loss > bound {
                signs.push(format!(
                    "{what} is {loss:.3e}, above {bound:.2}, {LARGEST_RATIO} times that of a constant output"
                ));
            }
        };
        if let Some(loss) = last_loss {
            compare("the loss of the last steps", loss);
        }
        compare("the loss of the averaged network", self.losses_of(&some).all.mean);
        let in_samples_alone = signs.is_empty();
        let has_learned = self.state.step >= LEAST_STEPS;
        if let Some(share) = saturated.filter(|_| has_learned || !in_samples_alone) {
            let of_images = saturated_share(some.batch((0..some.len()).map(|index| (index, false))).into_iter());
            if is_saturated(share, of_images) {
                signs.push(format!(
                    "{:.1} % of the values of the samples are black, white or beyond ({:.1} % of the images)",
                    100.0 * share,
                    100.0 * of_images
                ));
            }
        }
        let learning_rate = self.config.training.learning_rate;
        let rate_to_try = rate_to_try(learning_rate);
        let best = self.state.best.filter(|(step, loss)| *step < self.state.step && *loss < bound);
        let best_step = best.map(|(step, _)| step);
        (!signs.is_empty()).then_some(Divergence { signs, in_samples_alone, learning_rate, rate_to_try, best_step })
    }

    /// The mean weighted loss of a network whose output is 1 or -1 everywhere, whatever its input.
    fn constant_loss(&self, images: &ImageSet) -> f64 {
        let device = self.device.clone().inner();
        let indices: Vec<usize> = (0..images.len()).collect();
        let noise_indices: Vec<u64> = indices.iter().map(|index| *index as u64).collect();
        let stream = self.noise.stream(Purpose::Evaluation);
        let image = [images.channels(), images.height(), images.width()];
        let loss = |output: f32| {
            let batch = Batch {
                x_0: image_tensor(images, &indices, &device),
                epsilon: stream.normal_images(&noise_indices, 0, image, &device),
                levels: indices.iter().map(|index| self.evaluation_level(*index)).collect(),
                labels: None,
                masks: Default::default(),
            };
            let constant = |x_t: &Tensor<4>, _: &[noise::NoiseLevel]| x_t.full_like(output);
            denoising_loss(&self.config.diffusion, &self.schedule, &batch, constant)
                .mean()
                .into_data()
                .iter::<f64>()
                .sum::<f64>()
        };
        (loss(1.0) + loss(-1.0)) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_saturated_beyond_what_the_images_explain() {
        // photographs, digits, and drawings in black and white
        for (of_samples, of_images, expected) in
            [(0.99, 0.02, true), (0.9, 0.02, false), (0.99, 0.85, false), (1.0, 0.85, true), (1.0, 1.0, false)]
        {
            assert_eq!(is_saturated(of_samples, of_images), expected, "{of_samples} {of_images}");
        }
        let share = saturated_share([-1.0, 1.0, 0.5, f32::NAN, -7.0, 0.0, 0.99, -0.99].into_iter());
        assert_eq!(share, 0.5);
    }

    #[test]
    fn a_rate_to_try_is_a_tenth_or_the_usual_one() {
        assert_eq!([rate_to_try(1.0), rate_to_try(2e-3), rate_to_try(1.234e-4)], [1e-3, 2e-4, 1.2e-5]);
        assert_eq!((median([3.0, 1.0, f64::INFINITY]), median([])), (Some(3.0), None));
    }
}
