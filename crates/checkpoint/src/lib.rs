//! A trained model as one self-describing file.
//!
//! The file is safetensors: the weights under the names of lucidrains' or diffusers' state dict (so that Python reads them), and one
//! metadata entry `diffuse` with the [`Header`] as JSON: network, schedule, objective, image format, classes, sampling.
//! Its bytes depend on weights and header alone. It is written under a temporary name and renamed. [`file`](mod@file) is the
//! same container for other tensors. Crate `pipeline` samples from a [`Model`].
//!
//! ```
//! use burn::tensor::Device;
//! use checkpoint::{Header, ImageFormat, Model};
//! use unet::UnetConfig;
//!
//! let device = Device::flex();
//! let unet = UnetConfig { dim: 8, dim_mults: vec![1], channels: 1, ..UnetConfig::default() };
//! let header = Header::new(unet.clone(), ImageFormat::new(1, 8, 8));
//! let model = Model { unet: unet.init(&device)?.into(), header };
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("model.safetensors");
//! model.save(&path)?;
//! let model = Model::load(&path, &device)?;
//! assert_eq!(model.header.image, ImageFormat::new(1, 8, 8));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod error;
pub mod file;
mod header;
mod model;

pub use error::CheckpointError;
pub use header::{FORMAT_VERSION, GuidanceKind, Header, ImageFormat, SamplingConfig, format_version};
pub use model::Model;
pub use sampler::SamplerKind;
