//! Samplers: the reverse process from noise to an image, over any [`Denoiser`].
//!
//! DDPM, DDIM and its inversion, DPM-Solver++ (2M, 3M, SDE), UniPC, DEIS, PNDM, Euler, Euler ancestral, Heun and EDM's
//! stochastic sampler are one function each, equal to diffusers' where it has one, and of the order of convergence of its
//! paper. A sampler visits a list of noise levels, from the noisiest to [`NoiseLevel::CLEAN`], and calls an observer after
//! each step; it has no state outside the function. [`SamplerKind`] chooses one by name. Guidance ([`Guided`],
//! [`ClassifierGuided`], [`CfgPlusPlus`]) wraps a denoiser.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use noise::{Noise, Purpose};
//! use sampler::{DdimOptions, GaussianMixture, ddim};
//! use schedule::{BetaSchedule, Schedule, Spacing};
//!
//! let device = Device::flex();
//! let schedule = Schedule::new(&BetaSchedule::default(), 1000)?;
//! let levels = schedule.levels(Spacing::Lucidrains, 50)?;
//! // data of two points, whose denoiser is a closed form; a trained network is a `Denoiser` as well
//! let mixture = GaussianMixture::new(vec![(0.5, -0.8, 0.1), (0.5, 0.8, 0.1)]);
//! let noise = Noise::new(1);
//! let x_t = noise.stream(Purpose::InitialNoise).normal_images(&[0, 1, 2, 3], 0, [1, 1, 1], &device);
//! let samples = ddim(&mixture, x_t, &levels, DdimOptions::default(), &noise, &mut |_| ())?;
//! for value in samples.into_data().iter::<f32>() {
//!     assert!((value.abs() - 0.8).abs() < 0.5);
//! }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod ddim;
mod ddpm;
mod deis;
mod denoiser;
mod dpm_solver;
mod edit;
mod edm;
mod error;
mod guidance;
mod inversion;
mod kind;
mod mixture;
mod pndm;
mod step;
mod unipc;

pub use ddim::{DdimOptions, ddim};
pub use ddpm::{DdpmOptions, Variance, ddpm};
pub use deis::{DeisOptions, deis};
pub use denoiser::{Denoiser, Observer, Step};
pub use dpm_solver::{DpmSolverOptions, SecondOrder, ThirdOrder, dpm_solver_plus_plus};
pub use edit::{RepaintOptions, levels_for_strength, noised, repaint, slerp};
pub use edm::{EdmOptions, EulerAncestralOptions, edm_stochastic, euler, euler_ancestral, heun};
pub use error::SamplerError;
pub use guidance::{CfgPlusPlus, Classifier, ClassifierGuided, Guided};
pub use inversion::ddim_inversion;
pub use kind::{KindOptions, SamplerKind};
pub use mixture::GaussianMixture;
pub use noise::Prediction;
pub use pndm::{PndmOptions, pndm};
pub use schedule::NoiseLevel;
pub use unipc::{UniPcOptions, UniPcVariant, unipc};
