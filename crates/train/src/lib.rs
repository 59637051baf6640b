//! The trainer: it wires schedule, noise, network, optimizer and data together.
//!
//! [`Trainer::step`] reads like algorithm 1 of the DDPM paper. Everything around it - saving, drawing samples, printing,
//! stopping - is [`Run`]'s, which keeps a run directory and tells an observer what happens. The same code runs on any
//! burn device, and in a group of processes that share each batch ([`Trainer::distributed`]).
//!
//! ```
//! use burn::tensor::Device;
//! use data::LoadOptions;
//! use train::{Config, Trainer};
//!
//! let mut config = Config::preset("digits")?;
//! config.data.limit = Some(64);
//! (config.unet.dim, config.unet.dim_mults, config.unet.attention) = (8, vec![1], Vec::new());
//! config.training.batch_size = 4;
//! let images = data::open(&config.data.path, &config.load_options())?.images;
//! let mut trainer = Trainer::new(config, images, &Device::flex())?;
//! let report = trainer.step()?;
//! assert!(report.loss.is_finite());
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod config;
pub mod doctor;
mod ema;
mod error;
mod evaluation;
mod events;
mod immiscible;
mod importance;
mod non_finite;
mod optimizer;
mod parameters;
mod post_hoc;
mod quartiles;
mod rate;
mod reduction;
mod report;
mod run;
mod state;
mod trainer;

pub use config::{
    Config, DataConfig, DiffusionConfig, ImageSize, MixedPrecision, OptimizerKind, PRESETS, RateSchedule,
    TrainingConfig,
};
pub use ema::{Ema, EmaConfig};
pub use error::TrainError;
pub use evaluation::{Evaluation, Losses, Mean, QUARTILES};
pub use non_finite::{NonFiniteSample, NonFiniteStep};
pub use optimizer::{Adam, AdamConfig};
pub use parameters::{Gradients, clip_by_global_norm};
pub use post_hoc::{PostHocEmaConfig, Snapshot, WIDTHS, average, snapshot_weights};
pub use rate::learning_rate;
pub use report::write_report;
pub use run::{Control, Event, Outcome, Run, RunFiles, pictures};
pub use trainer::{StepReport, Trainer};
