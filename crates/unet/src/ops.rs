//! The operations of the network: those of crate [`kernels`], on images `[batch, height, width, channels]`.

pub use kernels::{
    Convolution, attention, concat_channels, conv2d, depth_to_space, gelu, linear, linear_attention, rms_norm,
    rms_norm_silu, silu, space_to_depth,
};
