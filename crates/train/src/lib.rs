//! Training of diffusion models.
//!
//! [`Trainer::step`] is algorithm 1 of the DDPM paper (Ho et al. 2020, arXiv:2006.11239): file `loss.rs` goes from x_0 to the
//! loss, `backward.rs` from the loss to gradients, `state.rs` has the update. [`Run`] is the loop around it, with a run
//! directory and an observer; `hooks.rs` lists its actions (saving, drawing samples, measuring). The same code runs on any
//! burn device, and on several ranks that share each batch ([`Trainer::distributed`]).
//!
//! ```
//! use burn::tensor::Device;
//! use data::LoadOptions;
//! use train::{Config, Trainer};
//!
//! let mut config = Config::preset("digits")?;
//! config.data.limit = Some(64);
//! let unet = config.unet.as_unet_mut().expect("lucidrains' network");
//! (unet.dim, unet.dim_mults, unet.attention) = (8, vec![1], Vec::new());
//! config.training.batch_size = 4;
//! let images = data::open(&config.data.path, &config.load_options())?.images;
//! let mut trainer = Trainer::new(config, images, &Device::flex())?;
//! let report = trainer.step()?;
//! assert!(report.loss.is_finite());
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod ahead;
mod backward;
mod batch;
mod config;
mod difference;
mod distributed;
mod divergence;
pub mod doctor;
mod draw;
mod ema;
mod error;
mod evaluation;
mod events;
mod freeze;
mod hooks;
mod immiscible;
mod importance;
mod loss;
mod loss_scale;
mod non_finite;
mod optimizer;
mod parameters;
mod post_hoc;
mod precision;
mod predict;
mod preflight;
mod quartiles;
mod rate;
mod report;
mod run;
mod run_files;
mod saved_state;
mod skip;
mod start_from;
mod state;
mod trainer;
mod training_loop;

pub use config::{
    Config, DataConfig, DiffusionConfig, ImageSize, MixedPrecision, OptimizerKind, PRESETS, RateSchedule,
    TrainingConfig,
};
pub use difference::Change;
pub use divergence::Divergence;
pub use ema::{Ema, EmaConfig};
pub use error::TrainError;
pub use evaluation::{Evaluation, Losses};
pub use freeze::Part;
pub use non_finite::{NonFiniteSample, NonFiniteStep};
pub use optimizer::{Adam, AdamConfig};
pub use parameters::{Gradients, clip_by_global_norm};
pub use post_hoc::{PostHocEmaConfig, Snapshot, WIDTHS, average, snapshot_weights};
pub use quartiles::{Mean, QUARTILES};
pub use rate::learning_rate;
pub use report::write_report;
pub use run::{Control, Event, Observer, Outcome, Run};
pub use run_files::RunFiles;
pub use saved_state::{NamedTensors, SavedState};
pub use start_from::{Fresh, Origin, Start, check_start};
pub use trainer::{StepReport, Trainer};
