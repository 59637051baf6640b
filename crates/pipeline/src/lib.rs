//! Sampling from a trained model, from a [`Request`] to pictures.
//!
//! A [`NetworkDenoiser`] makes the network of a [`checkpoint::Model`] a [`sampler::Denoiser`]. [`generate`] runs the reverse
//! process with the sampler, the spacing and the guidance of the model's header. [`pictures()`] and [`sample_grid`] make
//! pictures of the result.
//!
//! ```
//! use burn::tensor::Device;
//! use checkpoint::{Header, ImageFormat, Model};
//! use noise::Noise;
//! use pipeline::{Request, generate, grid_columns, pictures, sample_grid};
//! use unet::UnetConfig;
//!
//! let unet = UnetConfig { dim: 8, dim_mults: vec![1], channels: 1, ..UnetConfig::default() };
//! let mut header = Header::new(unet.clone(), ImageFormat::new(1, 8, 8));
//! header.sampling.steps = 2;
//! let model = Model { unet: unet.init(&Device::flex())?.into(), header };
//! let images = generate(&model, &Request::count(3), &Noise::new(1), &mut |_| ())?;
//! assert_eq!(images.dims(), [3, 1, 8, 8]);
//! let grid = sample_grid(&pictures(images)?, grid_columns(3, 0))?;
//! assert_eq!((grid.height(), grid.width()), (66, 66)); // two columns, each image enlarged four times
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod denoiser;
mod error;
mod generate;
mod pictures;

pub use denoiser::NetworkDenoiser;
pub use error::GenerateError;
pub use generate::{Guide, Request, generate, generate_guided};
pub use pictures::{grid_columns, pictures, previews, sample_grid};
