//! Steps on a device that computes on its own: the host reads the numbers of a step after it has queued the next one, and
//! prepares the batch after that meanwhile.

use std::{
    panic::resume_unwind,
    sync::PoisonError,
    thread::{JoinHandle, spawn},
};

use burn::tensor::Tensor;
use kernels::adam::DeviceGradients;

use crate::{
    batch::{HostBatch, Sample},
    error::TrainError,
    loss_scale::LossScale,
    optimizer::split,
    rate::learning_rate,
    trainer::{StepReport, Trainer},
};

/// A step that the device computes.
pub(crate) struct QueuedStep {
    step: u64,
    learning_rate: f64,
    loss_scale: f64,
    micro_batches: Vec<Vec<Sample>>,
    /// `[norm, clip factor, is finite, mean loss, loss of each sample...]`, in one transfer, for which a thread waits.
    numbers: JoinHandle<Vec<f32>>,
}

impl Trainer {
    /// Does a step, and returns the reports of the steps whose numbers have arrived: on a CPU that of this step; on a GPU,
    /// where the host runs one step ahead, that of the step before. With `wait`, all steps so far are reported.
    ///
    /// # Errors
    /// Those of [`step`](Self::step); on a GPU, of an earlier step.
    pub fn advance(&mut self, wait: bool) -> Result<Vec<StepReport>, TrainError> {
        if !self.runs_ahead() {
            return Ok(vec![self.step()?]);
        }
        let before = self.queued.take();
        self.queue_step();
        let mut reports = Vec::new();
        if let Some(before) = before {
            reports.push(self.finish_step(before)?);
        }
        if wait {
            reports.extend(self.wait()?);
        }
        Ok(reports)
    }

    /// The report of the step that has none yet, if there is one.
    ///
    /// # Errors
    /// Those of [`step`](Self::step).
    pub fn wait(&mut self) -> Result<Option<StepReport>, TrainError> {
        self.queued.take().map(|queued| self.finish_step(queued)).transpose()
    }

    /// [`step`](Self::step), waited for.
    pub(crate) fn step_ahead(&mut self) -> Result<StepReport, TrainError> {
        let mut reports = self.advance(true)?;
        Ok(reports.pop().unwrap_or_else(|| unreachable!("a step that is waited for is reported")))
    }

    /// Whether the host may run ahead: on a GPU, unless the next step depends on numbers of this one.
    pub(crate) fn runs_ahead(&self) -> bool {
        kernels::is_gpu(&self.device)
            && self.group.world_size() == 1
            && self.state.importance.is_none()
            && self.state.post_hoc.averages.is_empty()
    }

    /// Queues the next step: [`step`](Self::step) without waiting for its numbers. If they are not finite, the device changes
    /// nothing.
    fn queue_step(&mut self) {
        let step = self.state.step + 1;
        let learning_rate = learning_rate(&self.config.training, self.state.step);
        let micro_batches = self.next_samples();
        let next = self.samples_after(step);
        let trainer = &*self;
        let (sums, prepared) = std::thread::scope(|scope| {
            let prepare = || next.iter().map(|samples| trainer.prepared_batch(samples)).collect::<Vec<_>>();
            let prepared = scope.spawn(prepare);
            let losses = |unet: &_, samples: &[Sample]| trainer.losses(unet, samples);
            let sums = trainer.backward().sums(trainer.unet(), &micro_batches, losses);
            (sums, prepared.join().unwrap_or_else(|panic| resume_unwind(panic)))
        });
        *self.prepared.lock().unwrap_or_else(PoisonError::into_inner) = prepared;
        self.upcoming = Some((step, next));
        let [loss, sample_losses] = sums.losses(micro_batches.len());
        let (is_trained, gradients) = split(sums.gradients);
        let Ok(gradients) = DeviceGradients::new(gradients) else { unreachable!("the gradients are on the GPU") };
        let decision = gradients.decide(loss.clone(), sums.scale, self.config.training.max_gradient_norm);
        let numbers = Tensor::cat(vec![decision.clone(), loss, sample_losses], 0);
        self.state.step = step;
        if !self.state.skipped.contains(&step) {
            let lower = self.backward().precision.dtype();
            self.state.update_on_device((is_trained, gradients), decision, learning_rate, lower);
        }
        let numbers = spawn(move || numbers.into_data().iter::<f32>().collect());
        self.queued = Some(QueuedStep { step, learning_rate, loss_scale: sums.loss_scale, micro_batches, numbers });
    }

    /// Waits for the numbers of a step.
    fn finish_step(&mut self, queued: QueuedStep) -> Result<StepReport, TrainError> {
        let QueuedStep { step, learning_rate, loss_scale, micro_batches, numbers } = queued;
        let numbers = numbers.join().unwrap_or_else(|panic| resume_unwind(panic));
        let [norm, _, is_finite, loss, ref sample_losses @ ..] = numbers[..] else {
            unreachable!("these numbers were asked for")
        };
        let (loss, gradient_norm) = (f64::from(loss), f64::from(norm));
        let mut report = StepReport { step, loss, gradient_norm, learning_rate, loss_scale, non_finite: None };
        let was_skipped = self.state.skipped.contains(&step);
        if is_finite == 0.0 {
            // the device has skipped it; the step after it, which is queued, was counted as the next of the optimizer
            if !was_skipped {
                self.state.optimizer.steps -= 1;
                self.state.ema.step -= 1;
            }
            if !self.has_overflowed(&report) {
                let losses = |unet: &_, samples: &[Sample]| self.losses(unet, samples);
                let again = self.backward().sums(self.unet(), &micro_batches, losses);
                let (gradients, _) = self.backward().read(again, &micro_batches)?;
                report.non_finite = Some(Box::new(self.skip_non_finite(&report, &gradients, &micro_batches)?));
            }
        } else if !was_skipped {
            self.state.loss_scale.iter_mut().for_each(LossScale::keep);
            let losses: Vec<f64> = sample_losses.iter().map(|loss| f64::from(*loss)).collect();
            self.state.observe(&micro_batches.concat(), &losses, &self.schedule);
        }
        Ok(report)
    }

    /// The images and noise of these samples, if they were prepared.
    pub(crate) fn take_prepared(&self, samples: &[Sample]) -> Option<HostBatch> {
        let first = samples.first()?.position;
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let index = prepared.iter().position(|batch| batch.first == first && batch.x_0.shape()[0] == samples.len())?;
        Some(prepared.swap_remove(index))
    }
}
