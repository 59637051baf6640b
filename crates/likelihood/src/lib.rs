//! The likelihood of images under a diffusion model, in bits per dimension (each channel of each pixel).
//!
//! [`variational_bound`] is an upper bound by the terms of the DDPM paper, with the discrete decoder for pixels of 256
//! values, as in improved-diffusion. [`flow_bits`] integrates the probability-flow ODE from data to noise with the change of
//! volume: exact up to the solver and the estimate of a trace.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use likelihood::{BoundOptions, mean_and_error, variational_bound};
//! use noise::Noise;
//! use sampler::GaussianMixture;
//! use schedule::{BetaSchedule, Schedule};
//!
//! let schedule = Schedule::new(&BetaSchedule::default(), 50)?;
//! let images = Tensor::<4>::zeros([2, 1, 4, 4], &Device::flex());
//! // data of mean 0 and deviation 0.2, under which zeros are likely
//! let model = GaussianMixture::new(vec![(1.0, 0.0, 0.2)]);
//! let bound = variational_bound(&model, images, &schedule, BoundOptions::default(), &Noise::new(0), &mut |_| ())?;
//! assert!(bound.total.iter().all(|bits| *bits < 8.0)); // fewer than those of plain pixels
//! let (bits, error) = mean_and_error(&bound.total);
//! println!("{bits:.3} +- {error:.3} bits/dim, of which the decoder {:.3}", bound.terms[0][0]);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod bound;
mod error;
mod flow;

pub use bound::{Bound, BoundOptions, variational_bound};
pub use error::LikelihoodError;
pub use flow::{FlowOptions, FlowResult, flow_bits};

/// Returns the mean of the values and its standard error; the error of fewer than two is NaN.
pub fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, if values.len() < 2 { f64::NAN } else { (variance / count).sqrt() })
}
