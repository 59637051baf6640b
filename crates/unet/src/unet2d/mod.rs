//! The U-Net of Ho et al. 2020 as diffusers' `UNet2DModel` has it.

mod attention;
mod blocks;
mod config;
mod embedding;
mod model;
mod norm;
mod resnet;

pub use config::{
    ActivationKind, ClassEmbedding, DownBlock, MidBlock, ResampleKind, TimeEmbeddingKind, TimeScaleShift, Unet2dConfig,
    UpBlock,
};
pub(crate) use embedding::FOURIER_DEVIATION;
pub use model::Unet2d;
