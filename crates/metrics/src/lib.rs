//! Measures of pictures: how good samples are, how varied, and whether they are copies.
//!
//! [`DigitClassifier`] is a small network that is trained on real labeled images and predicts the class of samples with its
//! confidence; [`frechet_distance`] and [`kernel_distance`] compare two sets in its features, [`manifold`] measures which share
//! of each lies within the other. [`Inception`] computes the features of published distances, if its weights are available.
//! [`nearest_distance`] is the distance of each picture to the nearest of a set of references, which shows copies of training
//! images.
//!
//! The crate takes arrays of pixels and knows nothing of diffusion.
//!
//! ```
//! use burn::tensor::Device;
//! use metrics::{DigitClassifier, FEATURES, frechet_distance, nearest_distance, pixels};
//!
//! let digits = data::open("mnist-5k", &data::LoadOptions { limit: Some(200), ..Default::default() })?.images;
//! let (train, held_out) = (digits.subset(0..100), digits.subset(100..200));
//! let classifier = DigitClassifier::train(&train, 0, 1, &Device::flex())?;
//! let judged = classifier.classify(&pixels(&held_out))?;
//! assert_eq!(judged.called().len(), 100);
//!
//! let known = classifier.classify(&pixels(&train))?;
//! assert!(frechet_distance(&judged.features, &known.features, FEATURES)? > 0.0);
//! let distances = nearest_distance(&pixels(&held_out), &pixels(&train), train.image_len())?;
//! assert!(distances.iter().all(|distance| *distance > 0.0));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod classifier;
mod error;
mod frechet;
mod inception;
mod kernel;
mod manifold;
mod nearest;

pub use classifier::{DigitClassifier, FEATURES, Judgment, pixels};
pub use error::MetricsError;
pub use frechet::frechet_distance;
pub use inception::{INCEPTION_FEATURES, Inception};
pub use kernel::{KernelDistance, KernelOptions, kernel_distance};
pub use manifold::{Manifold, manifold};
pub use nearest::{nearest_distance, nearest_other_distance};
