//! Models of other systems in and out, and models as ONNX.
//!
//! [`lucidrains`] reads and writes the files of denoising-diffusion-pytorch, [`diffusers`] folders of pipelines, [`torch_file`] what
//! torch.save writes; [`onnx`] writes networks and whole chains, [`page`] a folder that draws in a browser. Every path returns an
//! [`Account`]: what was used, what was not, and what was assumed because a file does not say it.
#![forbid(unsafe_code)]

mod account;
pub mod diffusers;
mod error;
#[cfg(feature = "hf")]
pub mod hub;
pub mod lucidrains;
pub mod onnx;
pub mod page;
mod source;
pub mod torch_file;

pub use account::Account;
pub use error::InterchangeError;
