//! The denoising U-Net with its timestep embedding, as a burn module.
//!
//! [`Unet`] is lucidrains' U-Net (`denoising-diffusion-pytorch` 2.3.4), which the article's `Unet(dim = 64, dim_mults =
//! (1, 2, 4, 8))` builds, parameter for parameter: [`Unet::parameter_names`] are the names of its state dict. It adds
//! optional class labels with a null class, patches, and a choice of attention for each level. [`Unet2d`] is the U-Net of Ho
//! et al. 2020 (arXiv:2006.11239) as `UNet2DModel` of diffusers 0.39 has it, likewise. [`Network`] is either of them.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use unet::{Condition, UnetConfig};
//!
//! let device = Device::flex();
//! let unet = UnetConfig { dim: 8, dim_mults: vec![1, 2], channels: 1, ..UnetConfig::default() }.init(&device)?;
//! let x_t = Tensor::<4>::zeros([2, 1, 16, 16], &device);
//! let t = Tensor::<1>::from_floats([3.0, 999.0], &device);
//! assert_eq!(unet.forward(x_t, t, Condition::default()).dims(), [2, 1, 16, 16]);
//! # Ok::<(), unet::UnetError>(())
//! ```
#![forbid(unsafe_code)]

mod attention;
mod config;
mod dropout;
mod embedding;
mod layers;
mod model;
mod network;
mod resnet;
mod state;
mod unet2d;

pub use config::{AttentionKind, UnetConfig, UnetError};
pub use model::{Condition, Unet};
pub use network::{ARCHITECTURES, Network, NetworkConfig};
pub use state::{StateError, state_dict_name};
pub use unet2d::{
    ActivationKind, ClassEmbedding, DownBlock, MidBlock, ResampleKind, TimeEmbeddingKind, TimeScaleShift, Unet2d,
    Unet2dConfig, UpBlock,
};
