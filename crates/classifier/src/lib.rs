//! A classifier of noised images, for classifier guidance (Dhariwal and Nichol 2021, arXiv:2105.05233). It learns
//! `p(class | x_t)` at every noise level of a schedule; the gradient of its logarithm guides a denoiser without classes:
//! `sampler::ClassifierGuided { denoiser, classifier: classifier.towards(labels), scale }` is a denoiser.
//!
//! ```
//! use burn::tensor::Device;
//! use classifier::{NoisedClassifier, TrainingOptions};
//! use data::LoadOptions;
//! use schedule::ScheduleConfig;
//!
//! let options = LoadOptions { limit: Some(50), ..LoadOptions::default() };
//! let images = data::open("mnist-5k", &options)?.images;
//! let training = TrainingOptions { steps: 2, ..TrainingOptions::default() };
//! let schedule = ScheduleConfig::default();
//! let classifier = NoisedClassifier::train(&images, &schedule, training, &Device::flex(), &mut |_, _| ())?;
//! assert_eq!(classifier.classes(), 10);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod error;
mod file;
mod network;
mod noised;

pub use error::ClassifierError;
pub use noised::{LabeledClassifier, NoisedClassifier, TrainingOptions};
