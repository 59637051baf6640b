//! One training step: algorithm 1 of the DDPM paper, with clipping, skipping and EMA.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use checkpoint::{Header, Model};
use data::{ImageSet, order::Order};
use noise::{Noise, Purpose};
use parallel::{ProcessGroup, SingleProcess};
use schedule::Schedule;
use unet::Network;

use crate::{
    ahead::QueuedStep,
    backward::{Backward, StepLosses},
    batch::{HostBatch, Sample},
    config::Config,
    error::TrainError,
    freeze::freeze,
    loss::denoising_loss,
    non_finite::NonFiniteStep,
    parameters::{clip_by_global_norm, map_flat},
    precision::Precision,
    preflight::check_memory,
    rate::learning_rate,
    start_from::Start,
    state::TrainState,
};

/// The result of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Number of the step, from 1.
    pub step: u64,
    /// Weighted loss, the mean over the whole batch.
    pub loss: f64,
    /// Norm of the whole gradient before clipping.
    pub gradient_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The factor of the loss, in half precision; 1 otherwise. A step that overflows with it, whose gradient norm is not finite
    /// but whose loss is, was not taken.
    pub loss_scale: f64,
    /// The reason for which the step was skipped: only its number was counted.
    pub non_finite: Option<Box<NonFiniteStep>>,
}

/// A training: its configuration, its data, and the state that a step changes.
pub struct Trainer {
    pub(crate) config: Config,
    pub(crate) images: ImageSet,
    /// The order in which images are drawn.
    pub(crate) order: Order,
    pub(crate) noise: Noise,
    pub(crate) schedule: Schedule,
    /// With gradient tracking.
    pub(crate) device: Device,
    /// The ranks that train together.
    pub(crate) group: Arc<dyn ProcessGroup>,
    pub(crate) state: TrainState,
    /// The account of the weights that the training starts from, if it reads some.
    pub(crate) start: Option<Start>,
    /// The last step, where the device computes on its own and the host has not read its losses yet.
    pub(crate) queued: Option<QueuedStep>,
    /// The samples of the step after a number of steps, drawn while the device computes.
    pub(crate) upcoming: Option<(u64, Vec<Vec<Sample>>)>,
    /// Their images, noise and dropout masks.
    pub(crate) prepared: Mutex<Vec<HostBatch>>,
    /// The shapes of dropout masks, by layer, where masks were made.
    pub(crate) mask_shapes: Mutex<BTreeMap<usize, [usize; 4]>>,
}

impl Trainer {
    /// Builds the network, with initial weights that follow from the seed, and those of `training.from` where they fit. Channels and
    /// classes come from the images.
    ///
    /// # Errors
    /// [`TrainError`] names the key of the configuration that is not possible, or the file to start from and what is wrong with it.
    pub fn new(config: Config, images: ImageSet, device: &Device) -> Result<Self, TrainError> {
        let mut trainer = Self::to_resume(config, images, device)?;
        trainer.start_from_model()?;
        Ok(trainer)
    }

    /// [`new`](Self::new) for a run that goes on ([`Run::resume`](crate::Run::resume)): `training.from` is not read, since the
    /// training state has the weights.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn to_resume(config: Config, images: ImageSet, device: &Device) -> Result<Self, TrainError> {
        // first without the images, whose hash takes longer
        config.validate()?;
        config.check_preview_channels(&images)?;
        let config = config.resolved(&images);
        config.validate()?;
        if images.is_empty() {
            return Err(TrainError::NoImages { name: images.name().to_owned() });
        }
        config.unet.check_image_size(images.height(), images.width())?;
        Precision::check(config.training.mixed_precision, device)?;
        check_memory(&config, &images, device)?;
        kernels::tensor_cores::allow_tf32(config.training.tf32);
        let mut device = device.clone().autodiff();
        if config.training.gradient_checkpointing {
            device = device.gradient_checkpointing();
        }
        let schedule = config.diffusion.schedule.build()?;
        let noise = Noise::new(config.training.seed);
        let weights = noise.stream(Purpose::Weights);
        let unet = config.unet.init(&device)?.initialize(
            |parameter, out| weights.normal(parameter, 0, out),
            |parameter, out| weights.uniform(parameter, 0, out),
        );
        Ok(Self {
            order: Order::new(images.len(), config.training.seed),
            state: TrainState::new(&config, &schedule, freeze(unet, &config.training.freeze)?),
            start: None,
            config,
            images,
            noise,
            schedule,
            device,
            group: Arc::new(SingleProcess),
            queued: None,
            upcoming: None,
            prepared: Mutex::default(),
            mask_shapes: Mutex::default(),
        })
    }

    /// One step: algorithm 1 of Ho et al. 2020 (arXiv:2006.11239) over all micro-batches.
    ///
    /// A step whose loss or gradient is not finite is skipped: its number is counted, nothing else changes, and the report says
    /// why.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] if that was the fourth such step within a hundred; [`TrainError::BrokenWeights`] if the weights
    /// are not finite themselves; [`TrainError::Ranks`] if other ranks do not answer. After the last two nothing was changed.
    pub fn step(&mut self) -> Result<StepReport, TrainError> {
        if self.runs_ahead() {
            return self.step_ahead();
        }
        let step = self.state.step + 1;
        let learning_rate = learning_rate(&self.config.training, self.state.step);
        // algorithm 1, lines 2 to 4: images, timesteps and noise
        let micro_batches = self.next_samples();
        // line 5: the gradient of the loss
        let sums = self.backward().sums(self.unet(), &micro_batches, |unet, samples| self.losses(unet, samples));
        let scale = sums.loss_scale;
        let (gradients, StepLosses { loss, sample_losses }) = self.backward().read(sums, &micro_batches)?;
        let (gradient_norm, clip) = clip_by_global_norm(&gradients, self.config.training.max_gradient_norm);
        let mut report = StepReport { step, loss, gradient_norm, learning_rate, loss_scale: scale, non_finite: None };
        let is_finite = loss.is_finite() && gradient_norm.is_finite();
        if !is_finite && !self.has_overflowed(&report) {
            report.non_finite = Some(Box::new(self.skip_non_finite(&report, &gradients, &micro_batches)?));
        }
        self.state.step = step;
        if !is_finite || self.state.skipped.contains(&step) {
            return Ok(report);
        }
        // line 5: the gradient descent step, by Adam; and the average that samples are drawn from
        self.state.update(gradients, clip, learning_rate);
        self.state.observe(&micro_batches.concat(), &sample_losses, &self.schedule);
        Ok(report)
    }

    pub(crate) fn backward(&self) -> Backward<'_> {
        let training = &self.config.training;
        Backward {
            group: &*self.group,
            parallel_parts: training.parallel_parts,
            precision: Precision::new(training.mixed_precision, self.state.loss_scale),
            lowered: self.state.lowered.as_deref(),
        }
    }

    /// The loss of each of these samples, `[samples]`.
    pub(crate) fn losses(&self, unet: &Network, samples: &[Sample]) -> Tensor<1> {
        let batch = self.batch(samples);
        denoising_loss(&self.config.diffusion, &self.schedule, &batch, |x_t, levels| {
            self.predict(unet, samples, &batch, x_t, levels)
        })
    }

    /// The configuration, completed from the images.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The account of the weights that the training started from; None without `training.from`, and in a run that went on.
    pub fn start(&self) -> Option<&Start> {
        self.start.as_ref()
    }

    /// The number of steps done.
    pub fn steps_done(&self) -> u64 {
        self.state.step
    }

    /// Refuses a configuration of fewer steps than are done.
    pub(crate) fn check_steps_done(&self) -> Result<(), TrainError> {
        let (done, steps) = (self.steps_done(), self.config.training.steps);
        if done > steps { Err(TrainError::StepsDone { done, steps }) } else { Ok(()) }
    }

    /// Whether convolutions round the factors of their products to TF32.
    pub fn uses_tf32(&self) -> bool {
        kernels::tensor_cores::uses_tf32(&self.device)
    }

    /// The network in training.
    pub fn unet(&self) -> &Network {
        self.state.unet()
    }

    /// The averaged network with the header that sampling needs.
    pub fn model(&self) -> Model {
        Model { unet: self.state.ema.unet(self.unet()), header: self.header() }
    }

    /// Writes the training state, atomically.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] names the file, also if a number is not finite: such a state is never written.
    pub fn save_state(&self, path: &Path) -> Result<(), TrainError> {
        self.state.save(&self.config, path)
    }

    /// Continues from a training state of the same configuration.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] names the file and what is wrong with it, [`TrainError::OtherConfiguration`] the keys in which the
    /// configuration differs, if that would not continue the same run; then nothing was changed.
    pub fn load_state(&mut self, path: &Path) -> Result<(), TrainError> {
        self.load_state_and_config(path).map(drop)
    }

    /// [`load_state`](Self::load_state); returns the configuration that led to the state, if the file has it.
    pub(crate) fn load_state_and_config(&mut self, path: &Path) -> Result<Option<Config>, TrainError> {
        let config = self.state.load(&self.config, path)?;
        self.queued = None;
        Ok(config)
    }

    /// The averages of `training.post_hoc_ema` as models, each with its relative width; none unless snapshots are configured.
    pub fn power_averages(&self) -> impl Iterator<Item = (f64, Model)> {
        self.state.post_hoc.widths.iter().zip(&self.state.post_hoc.averages).map(|(width, average)| {
            let unet = map_flat(self.unet().valid(), |index, _| average[index].clone());
            (*width, Model { unet, header: self.header() })
        })
    }

    /// The ranks that train together: one, unless [`Trainer::distributed`] joined a group.
    pub fn group(&self) -> &dyn ProcessGroup {
        &*self.group
    }

    fn header(&self) -> Header {
        self.config.header(&self.images)
    }
}
