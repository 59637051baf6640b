//! Steps whose loss, gradient or weights are not finite: they are diagnosed and skipped, and end the training if there are many.

use burn::tensor::Tensor;

use crate::{
    batch::Sample,
    error::TrainError,
    non_finite::{NonFiniteSample, NonFiniteStep},
    parameters::{Gradients, flat_parameters},
    trainer::{StepReport, Trainer},
};

/// The most steps that may be skipped within [`SKIP_WINDOW`]; one more ends the training.
const MAX_SKIPPED: usize = 3;
/// The steps that [`MAX_SKIPPED`] is counted over.
const SKIP_WINDOW: u64 = 100;

impl Trainer {
    /// Whether a step that is not finite overflowed half precision alone; the loss scale then falls.
    pub(crate) fn has_overflowed(&mut self, report: &StepReport) -> bool {
        self.state.loss_scale.as_mut().is_some_and(|scale| scale.overflows(report.loss_scale, report.loss))
    }

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
