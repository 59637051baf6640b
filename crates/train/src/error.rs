//! Errors of training.

use std::path::PathBuf;

use checkpoint::CheckpointError;
use picture::PictureError;
use pipeline::GenerateError;
use schedule::ScheduleError;
use unet::UnetError;

use crate::non_finite::NonFiniteStep;

/// A run that cannot start or continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Not a preset.
    #[error("`{name}` is not a preset: use one of {}", crate::PRESETS.join(", "))]
    UnknownPreset {
        /// The requested value.
        name: String,
    },
    /// A number out of range.
    #[error("{key} = {value} is not possible: it must be {range}")]
    OutOfRange {
        /// The key of the configuration.
        key: &'static str,
        /// Its value.
        value: f64,
        /// The values that are possible.
        range: &'static str,
    },
    /// Values that are possible separately but not together.
    #[error("{what} is not possible: {advice}")]
    NotTogether {
        /// The keys and their values.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// Snapshots without a solution for the requested average.
    #[error(
        "no average can be made of these snapshots: {reason}. A run writes them with training.post_hoc_ema.snapshot_every"
    )]
    Snapshots {
        /// The reason.
        reason: String,
    },
    /// A network and a micro-batch that do not fit into memory.
    #[error(
        "a network of {parameters} parameters needs at least {:.1} GB of memory to train with {batch_size} images at a time, of which \
         {:.1} GB are there: {advice}",
        *needed as f64 / 1e9,
        *available as f64 / 1e9
    )]
    Memory {
        /// The number of parameters of the network.
        parameters: u128,
        /// Images of a micro-batch.
        batch_size: usize,
        /// Bytes of all copies of the parameters, and of the saved activations.
        needed: u128,
        /// Bytes that are available.
        available: u64,
        /// What to do.
        advice: String,
    },
    /// A data set without images.
    #[error("the data `{name}` holds no images to train on")]
    NoImages {
        /// The name of the data.
        name: String,
    },
    /// A file to start from that is no model.
    #[error("{source}. To start from a model of another program, make it one of ours first, with `diffuse import`")]
    NotAModel {
        /// The error of the reader.
        source: CheckpointError,
    },
    /// A folder to start from without a model.
    #[error(
        "the folder {} has no model.safetensors to start from. Of a run that is not at its end, name a file: best.safetensors, or a \
         training state in checkpoints/; a model of another program is made one of ours with `diffuse import`",
        path.display()
    )]
    NoModel {
        /// The folder.
        path: PathBuf,
    },
    /// A network that the weights of a model do not fit.
    #[error(
        "the weights of {} do not fit this network:\n{difference}Leave these keys out to train the network of the model, or leave out \
         training.from (--from) to train this one from nothing",
        path.display()
    )]
    OtherArchitecture {
        /// The file of the model.
        path: PathBuf,
        /// The keys that differ, a line each.
        difference: String,
    },
    /// A precision that the device does not compute in.
    #[error("training.mixed_precision = {precision} is not possible on this device: {reason}. Use `no`")]
    Precision {
        /// The requested value.
        precision: &'static str,
        /// The reason.
        reason: String,
    },
    /// Too many steps that are not finite.
    #[error(
        "the training has diverged: {lately} steps of the last hundred were skipped. The last: {non_finite}. Start \
         again, or go on from a checkpoint, with a lower training.learning_rate or a smaller training.max_gradient_norm (1 is usual, 0 is no \
         limit)"
    )]
    Diverged {
        /// The last of these steps.
        non_finite: Box<NonFiniteStep>,
        /// The number of skipped steps within the window.
        lately: usize,
    },
    /// Weights that are not finite.
    #[error(
        "the training has diverged: the weights of the network are no longer finite, and there is no checkpoint to go back to. \
         {non_finite}. Start again with a lower training.learning_rate, or a training.warmup_steps"
    )]
    BrokenWeights {
        /// The step in which it was found.
        non_finite: Box<NonFiniteStep>,
    },
    /// A state that is not finite, or does not fit f32.
    #[error("{source}. The training has diverged: start again with training.learning_rate = {rate_to_try}")]
    UnusableState {
        /// The value that is not finite.
        source: CheckpointError,
        /// The learning rate to try.
        rate_to_try: f64,
    },
    /// A run directory that cannot be used.
    #[error("the run directory {} cannot be used: {reason}", path.display())]
    RunDirectory {
        /// The directory.
        path: PathBuf,
        /// The reason, and what to do.
        reason: String,
    },
    /// Fewer steps than are done.
    #[error(
        "the run has done {done} steps, and training.steps = {steps} (--steps) is fewer: nothing is left to do, and nothing was changed. \
         To go on, ask for more than {done}; for a model of {steps} steps, start a new run"
    )]
    StepsDone {
        /// The number of steps done.
        done: u64,
        /// The number of steps of the configuration.
        steps: u64,
    },
    /// A configuration that differs from that of the run.
    #[error(
        "{} was trained with another configuration, which would not continue the same run:\n{difference}\
         Set back what differs (in the config.toml of the run, if it was changed there), or start a new run",
        path.display()
    )]
    OtherConfiguration {
        /// The run directory, or one of its checkpoints.
        path: PathBuf,
        /// The keys that differ, a line each.
        difference: String,
    },
    /// More ranks than images in a batch.
    #[error(
        "training.batch_size = {batch_size} cannot be shared by {ranks} processes: each needs an image at least. It is the size \
         of the whole batch; raise it, or start fewer processes"
    )]
    TooManyRanks {
        /// The number of ranks.
        ranks: usize,
        /// Images in a batch.
        batch_size: usize,
    },
    /// A rank has another configuration or other data than rank 0.
    #[error("rank {rank} differs from rank 0:\n{difference}All processes need the same program, arguments and data")]
    OtherRank {
        /// The first rank that differs.
        rank: usize,
        /// The differences, a line each.
        difference: String,
    },
    /// A collective operation that failed.
    #[error(transparent)]
    Ranks(#[from] parallel::GroupError),
    /// A collective operation that failed; this rank saved the training state.
    #[error("{source}. The state after step {step} is saved")]
    LostRanks {
        /// The failure.
        source: parallel::GroupError,
        /// The last complete step.
        step: u64,
    },
    /// A file that could not be read or written.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// An impossible network.
    #[error(transparent)]
    Network(#[from] UnetError),
    /// An impossible schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A model or a training state that could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Samples that cannot be drawn.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A picture that cannot be drawn.
    #[error(transparent)]
    Picture(#[from] PictureError),
}

impl TrainError {
    /// Whether a state was refused because a value of it is not finite.
    pub(crate) fn is_not_finite(&self) -> bool {
        matches!(self, Self::Checkpoint(source) if source.is_not_finite())
    }
}
