//! Noise schedules of diffusion models in plain `f64`: betas, alpha-bars, posterior coefficients, signal-to-noise
//! ratios, loss weights and respacing. No tensors: other crates upload what they need.
//!
//! A [`Schedule`] is built once, from a [`BetaSchedule`] or from the user's own betas, and is valid from then on. Timesteps
//! count t = 0, …, T-1, and alpha_bar(-1) = 1 is clean data. A sampler visits [`NoiseLevel`]s, chosen by a [`Spacing`];
//! [`respace`] has every choice of timesteps.
//!
//! ```
//! use schedule::{BetaSchedule, LossWeight, NoiseLevel, Objective, Schedule, Spacing};
//!
//! let schedule = Schedule::new(&"cosine".parse::<BetaSchedule>()?, 1000)?;
//! assert_eq!(schedule.alpha_bar(-1), 1.0);
//! assert!(schedule.alpha_bar(999) < 1e-8);
//!
//! // 50 sampling steps, from noise to data
//! let levels = schedule.levels(Spacing::Trailing, 50)?;
//! assert_eq!((levels[0].timestep, levels[50]), (999.0, NoiseLevel::CLEAN));
//! assert!(levels.windows(2).all(|pair| pair[0].sigma() > pair[1].sigma()));
//!
//! // min-SNR loss weights for a network that predicts v
//! let weights = LossWeight::MinSnr { gamma: 5.0 }.weights(&schedule, Objective::V);
//! assert_eq!(weights.len(), 1000);
//!
//! // an impossible schedule is an error with its values
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
mod posterior;
pub mod respace;
mod schedule;
mod weight;

pub use beta_schedule::BetaSchedule;
pub use distribution::LevelDistribution;
pub use error::ScheduleError;
pub use level::NoiseLevel;
pub use objective::{Objective, Preconditioning};
pub use posterior::Posterior;
pub use respace::Spacing;
pub use schedule::{Schedule, ScheduleConfig};
pub use weight::LossWeight;

/// The most timesteps of a schedule, a thousand times those of papers: a typing error must not exhaust memory.
pub const MAX_TIMESTEPS: usize = 1_000_000;

/// Reads and writes types as text in a configuration file, by their `FromStr` and `Display`.
macro_rules! serde_as_text {
    ($($name:ty),+) => { $(
        impl TryFrom<String> for $name {
            type Error = ScheduleError;

            fn try_from(text: String) -> Result<Self, ScheduleError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )+ };
}
serde_as_text!(LevelDistribution, LossWeight, Objective);
