//! Random numbers, the forward process q, the targets and inputs of networks, and losses.
//!
//! - [`Noise`] derives random numbers from an *address* (seed, purpose, noise index, step): there is no generator state to
//!   save, and image 17 of a seed is the same drawn alone or in a batch, on any backend, with any number of threads.
//! - [`forward`] is q(x_t | x_0) in closed form and q(x_t | x_{t-1}), one Markov step.
//! - [`prediction`] converts between epsilon, x_0 and the outputs of networks.
//! - [`loss`] compares a prediction with its target, sample by sample.
//! - [`variational`] has the terms of the variational bound, and [`decoder`] its likelihood of pixels.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use noise::{Noise, Purpose, forward::q_sample};
//! use schedule::{BetaSchedule, Schedule};
//!
//! let device = Device::flex();
//! let schedule = Schedule::new(&BetaSchedule::default(), 1000)?;
//! let x_0 = Tensor::<4>::zeros([2, 1, 8, 8], &device);
//! // of the noise indices 0 and 1, in whichever batch they are
//! let epsilon = Noise::new(42).stream(Purpose::Epsilon).normal_images(&[0, 1], 0, [1, 8, 8], &device);
//! let x_t = q_sample(x_0, epsilon, &[schedule.level(10), schedule.level(900)]);
//! assert_eq!(x_t.dims(), [2, 1, 8, 8]);
//! # Ok::<(), schedule::ScheduleError>(())
//! ```
#![forbid(unsafe_code)]

pub mod decoder;
pub mod forward;
mod generator;
pub mod loss;
pub mod prediction;
pub mod variational;

pub use generator::{Noise, NoiseStream, Purpose};
pub use loss::LossType;
pub use prediction::{Prediction, network_input, network_times, target};
pub use schedule::{NoiseLevel, Objective};
