//! Steps whose loss, gradient or weights are not finite: diagnosed, skipped, and an end to the training if there are many.

use std::fmt;

use burn::tensor::Tensor;
use serde::Serialize;

use crate::{
    batch::Sample,
    error::TrainError,
    parameters::{Gradients, flat_parameters},
    trainer::{StepReport, Trainer},
};

/// The most steps that may be skipped within [`SKIP_WINDOW`]; one more ends the training.
const MAX_SKIPPED: usize = 3;
/// The steps that [`MAX_SKIPPED`] is counted over.
const SKIP_WINDOW: u64 = 100;

/// A sample whose loss is not finite.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NonFiniteSample {
    /// Index of the image in the data.
    pub image: usize,
    /// The timestep of its noise level.
    pub timestep: f64,
    /// Its sigma, `sqrt((1 - alpha_bar) / alpha_bar)`.
    pub sigma: f64,
}

/// The diagnosis of a step whose loss, gradient or weights are not finite.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NonFiniteStep {
    /// The number of the step, from 1.
    pub step: u64,
    /// Its loss.
    pub loss: f64,
    /// The norm of its gradient.
    pub gradient_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Samples of the batch whose own loss is not finite.
    pub samples: Vec<NonFiniteSample>,
    /// Parameters that are not finite, in the order of the network: an earlier update broke them.
    pub weights: Vec<String>,
    /// Parameters whose gradient is not finite, in the order of the network.
    pub gradients: Vec<String>,
}

impl NonFiniteStep {
    /// Whether the weights themselves are not finite.
    pub fn has_broken_weights(&self) -> bool {
        !self.weights.is_empty()
    }
}

impl fmt::Display for NonFiniteStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, loss, gradient_norm, learning_rate, samples, weights, gradients } = self;
        write!(formatter, "step {step}: loss {loss}, gradient norm {gradient_norm}, learning rate {learning_rate}")?;
        let mut list = |what: &str, names: &[String]| match names {
            [] => Ok(()),
            [only] => write!(formatter, "; {what} `{only}`"),
            [first, .., last] => write!(formatter, "; {what} `{first}` to `{last}` ({} in all)", names.len()),
        };
        list("not finite: the weights", weights)?;
        list("not finite: the gradients of", gradients)?;
        if let [first, ..] = samples.as_slice() {
            let NonFiniteSample { image, timestep, sigma } = first;
            write!(formatter, "; image {image} of the data at t = {timestep} (sigma {sigma:.3e})")?;
            if samples.len() > 1 {
                write!(formatter, " and {} more of the batch", samples.len() - 1)?;
            }
        }
        Ok(())
    }
}

impl Trainer {
    /// Marks the step of `report` as skipped and returns the diagnosis.
    ///
    /// # Errors
    /// [`TrainError::BrokenWeights`] if the weights are not finite; [`TrainError::Diverged`] if too many steps were skipped lately.
    pub(crate) fn skip_non_finite(
        &mut self,
        report: &StepReport,
        gradients: &Gradients,
        micro_batches: &[Vec<Sample>],
    ) -> Result<NonFiniteStep, TrainError> {
        let non_finite = self.diagnose(report, gradients, micro_batches);
        if non_finite.has_broken_weights() {
            return Err(TrainError::BrokenWeights { non_finite: Box::new(non_finite) });
        }
        self.skip(report.step, &non_finite)?;
        Ok(non_finite)
    }

    /// Marks a step as skipped, the next time too.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] if more than [`MAX_SKIPPED`] of the last [`SKIP_WINDOW`] steps are.
    pub(crate) fn skip(&mut self, step: u64, non_finite: &NonFiniteStep) -> Result<(), TrainError> {
        self.state.skipped.insert(step);
        let lately = self.state.skipped.range(step.saturating_sub(SKIP_WINDOW)..).count();
        if lately > MAX_SKIPPED {
            return Err(TrainError::Diverged { non_finite: Box::new(non_finite.clone()), lately });
        }
        Ok(())
    }

    /// The weights, gradients and samples of a step that are not finite.
    fn diagnose(&self, report: &StepReport, gradients: &Gradients, micro_batches: &[Vec<Sample>]) -> NonFiniteStep {
        let is_finite = |tensor: &Tensor<1>| tensor.to_data().iter::<f32>().all(f32::is_finite);
        let names = self.unet().parameter_names();
        let parameters: Vec<_> = flat_parameters(self.unet()).into_iter().map(Some).collect();
        let broken = |tensors: &Gradients| -> Vec<String> {
            let pairs = names.iter().zip(tensors);
            pairs.filter(|(_, tensor)| tensor.as_ref().is_some_and(|t| !is_finite(t))).map(|(n, _)| n.clone()).collect()
        };
        let (weights, gradients) = (broken(&parameters), broken(gradients));
        let mut samples = Vec::new();
        // with broken weights the loss of every sample is not finite
        for micro_batch in micro_batches.iter().filter(|_| weights.is_empty()) {
            let losses = self.losses(self.unet(), micro_batch).inner().into_data();
            for (sample, _) in micro_batch.iter().zip(losses.iter::<f64>()).filter(|(_, loss)| !loss.is_finite()) {
                let (timestep, sigma) = (sample.level.timestep, sample.level.sigma());
                samples.push(NonFiniteSample { image: sample.image, timestep, sigma });
            }
        }
        let StepReport { step, loss, gradient_norm, learning_rate, .. } = *report;
        NonFiniteStep { step, loss, gradient_norm, learning_rate, samples, weights, gradients }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_what_went_wrong() {
        let sample = |image| NonFiniteSample { image, timestep: 999.0, sigma: 2.5e4 };
        let non_finite = NonFiniteStep {
            step: 7,
            loss: f64::NAN,
            gradient_norm: f64::INFINITY,
            learning_rate: 1e-3,
            samples: vec![sample(3), sample(5)],
            weights: vec![],
            gradients: ["init_conv.weight", "init_conv.bias", "final_conv.bias"].map(str::to_owned).to_vec(),
        };
        let text = non_finite.to_string();
        let expected = "step 7: loss NaN, gradient norm inf, learning rate 0.001; not finite: the gradients of \
                        `init_conv.weight` to `final_conv.bias` (3 in all); image 3 of the data at t = 999 (sigma \
                        2.500e4) and 1 more of the batch";
        assert_eq!(text, expected);
        assert!(!non_finite.has_broken_weights());
    }
}
