//! Noise schedules of diffusion models in plain `f64`: betas, alpha-bars, posterior coefficients, signal-to-noise
//! ratios, loss weights and respacing. No tensors: other crates upload what they need.
//!
//! A [`Schedule`] is built once, from a [`BetaSchedule`] or from the user's own betas, and is valid from then on. Timesteps
//! count t = 0, …, T-1, and alpha_bar(-1) = 1 is clean data. A sampler walks over [`NoiseLevel`]s, which a
//! [`Spacing`] picks; [`respace`] has every way of picking timesteps.
//!
//! ```
//! use schedule::{BetaSchedule, LossWeight, NoiseLevel, Objective, Schedule, Spacing};
//!
//! let schedule = Schedule::new(&"cosine".parse::<BetaSchedule>()?, 1000)?;
//! assert_eq!(schedule.alpha_bar(-1), 1.0);
//! assert!(schedule.alpha_bar(999) < 1e-8);
//!
//! // 50 sampling steps, from noise to data.
//! let levels = schedule.levels(Spacing::Trailing, 50)?;
//! assert_eq!((levels[0].timestep, levels[50]), (999.0, NoiseLevel::CLEAN));
//! assert!(levels.windows(2).all(|pair| pair[0].sigma() > pair[1].sigma()));
//!
//! // min-SNR loss weights for a network that predicts v.
//! let weights = LossWeight::MinSnr { gamma: 5.0 }.weights(&schedule, Objective::V);
//! assert_eq!(weights.len(), 1000);
//!
//! // The impossible is an error with the numbers in it.
//! let error = Schedule::new(&"linear".parse()?, 20).unwrap_err();
//! assert!(error.to_string().contains("20 timesteps has beta = 1 at t = 19"));
//! # Ok::<(), schedule::ScheduleError>(())
//! ```
#![forbid(unsafe_code)]

mod beta_schedule;
mod distribution;
mod error;
mod level;
mod objective;
pub mod respace;
mod schedule;
mod weight;

pub use beta_schedule::BetaSchedule;
pub use distribution::LevelDistribution;
pub use error::ScheduleError;
pub use level::NoiseLevel;
pub use objective::{Objective, Preconditioning};
pub use respace::Spacing;
pub use schedule::{Schedule, ScheduleConfig};
pub use weight::LossWeight;

/// The most timesteps a schedule may have: a thousand times what papers use. It guards memory against a typing error.
pub const MAX_TIMESTEPS: usize = 1_000_000;
