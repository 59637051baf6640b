//! What can go wrong in a training run.

use std::path::PathBuf;

use checkpoint::CheckpointError;
use picture::PictureError;
use pipeline::GenerateError;
use schedule::ScheduleError;
use unet::UnetError;

use crate::non_finite::NonFiniteStep;

/// A run that cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Not a preset.
    #[error("`{name}` is not a preset: use one of {}", crate::PRESETS.join(", "))]
    UnknownPreset {
        /// What was asked for.
        name: String,
    },
    /// A number out of range.
    #[error("{key} = {value} is not possible: it must be {range}")]
    OutOfRange {
        /// The key of the configuration.
        key: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        range: &'static str,
    },
    /// Values that are possible alone but not together.
    #[error("{what} is not possible: {advice}")]
    NotTogether {
        /// The keys and their values.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// Snapshots that no average can be made of.
    #[error(
        "no average can be made of these snapshots: {reason}. A run writes them with training.post_hoc_ema.snapshot_every"
    )]
    Snapshots {
        /// Why not.
        reason: String,
    },
    /// Network and micro-batch are larger than the memory.
    #[error(
        "a network of {parameters} parameters needs at least {:.1} GB of memory to train with {batch_size} images at a time, of which \
         {:.1} GB are there: {advice}",
        *needed as f64 / 1e9,
        *available as f64 / 1e9
    )]
    Memory {
        /// How many it has.
        parameters: u128,
        /// Images of a micro-batch.
        batch_size: usize,
        /// Bytes of all copies of the parameters, and of what is kept of the images.
        needed: u128,
        /// Bytes that are available.
        available: u64,
        /// What to do.
        advice: &'static str,
    },
    /// No images at all.
    #[error("the data `{name}` holds no images to train on")]
    NoImages {
        /// Where they were to come from.
        name: String,
    },
    /// The device cannot compute in the precision asked for.
    #[error("training.mixed_precision = {precision} is not possible on this device: {reason}. Use `no`")]
    Precision {
        /// What was asked for.
        precision: &'static str,
        /// Why not.
        reason: String,
    },
    /// Step after step is not finite.
    #[error(
        "the training has diverged: {lately} steps of the last hundred could not be taken. The last: {non_finite}. Go on from a \
         checkpoint with a lower training.learning_rate or a smaller training.max_gradient_norm"
    )]
    Diverged {
        /// The last of them.
        non_finite: Box<NonFiniteStep>,
        /// How many there were.
        lately: usize,
    },
    /// The weights are not finite.
    #[error(
        "the training has diverged: the weights of the network are no longer finite, and there is no checkpoint to go back to. \
         {non_finite}. Start again with a lower training.learning_rate, or a training.warmup_steps"
    )]
    BrokenWeights {
        /// The step in which it showed.
        non_finite: Box<NonFiniteStep>,
    },
    /// A run directory that cannot be used.
    #[error("the run directory {} cannot be used: {reason}", path.display())]
    RunDirectory {
        /// The directory.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// The configuration on disk does not mean the run that is to go on.
    #[error(
        "{} was trained with another configuration, and going on would not mean the same run:\n{difference}\
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
        /// How many there are.
        ranks: usize,
        /// Images in a batch.
        batch_size: usize,
    },
    /// A rank has another configuration or other data than rank 0.
    #[error(
        "rank {rank} is not doing the same as rank 0:\n{difference}All processes need the same program, arguments and data"
    )]
    OtherRank {
        /// The first that differs.
        rank: usize,
        /// In what, a line each.
        difference: String,
    },
    /// The other ranks do not answer.
    #[error(transparent)]
    Ranks(#[from] parallel::GroupError),
    /// The other ranks do not answer any more, and this one saved the training state.
    #[error("{source}. The state after step {step} is saved")]
    LostRanks {
        /// Why the training ended.
        source: parallel::GroupError,
        /// The last whole step.
        step: u64,
    },
    /// A file could not be written or read.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// A network that is not possible.
    #[error(transparent)]
    Network(#[from] UnetError),
    /// A schedule that is not possible.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A model or state file.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Samples that cannot be drawn.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A picture that cannot be made.
    #[error(transparent)]
    Picture(#[from] PictureError),
}
