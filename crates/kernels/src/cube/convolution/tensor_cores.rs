//! Convolutions on tensor cores, by the implicit GEMM of burn's CubeCL kernels. Every function returns None where burn
//! refuses the shape, and the caller computes it otherwise.
//!
//! burn's kernels read weights as `[channels_out, kernel, kernel, channels_in]`: the forward pass makes a copy of that layout,
//! which the backward pass uses again.

use burn::{
    backend::{TensorMetadata, ops::ConvOptions},
    tensor::{DType, Shape},
};
use burn_cubecl::{
    kernel::conv::{ConvStrategy, conv_data_backward, conv_forward, conv_weight_backward},
    ops::{permute_nchw_to_nhwc, permute_nhwc_to_nchw},
    tensor::CubeTensor,
};
use cubecl::{
    client::Client,
    ir::{ElemType, FloatKind},
};

use crate::cube::{
    convolution::{Sizes, tiled},
    launch::{contiguous, element},
    upsample::{upsample, upsample_gradient},
};

/// Whether the device has tensor cores for a number format. Those for f32 round its factors to TF32.
pub(crate) fn compute_in(client: &Client, dtype: DType) -> bool {
    let factor = match dtype {
        DType::F32 if crate::tensor_cores::tf32_is_allowed() => ElemType::Float(FloatKind::TF32),
        DType::F32 => return false,
        dtype => element(dtype),
    };
    crate::tensor_cores::are_enabled()
        && client.properties().features.matmul.cmma.iter().any(|shape| shape.a_type == factor)
}

/// The weights as `[channels_out, kernel, kernel, channels_in]`, contiguous.
pub(super) fn channels_last(weight: &CubeTensor) -> CubeTensor {
    contiguous(permute_nchw_to_nhwc(weight.clone()))
}

fn options(sizes: &Sizes) -> ConvOptions<2> {
    let padding = sizes.options.padding;
    ConvOptions::new([1, 1], [padding, padding], [1, 1], 1)
}

/// The image that the convolution reads: x, or a larger copy.
fn source(sizes: &Sizes, x: &CubeTensor) -> CubeTensor {
    if sizes.options.upsample { upsample(x) } else { x.clone() }
}

pub(super) fn forward(
    sizes: &Sizes,
    x: &CubeTensor,
    weight: &CubeTensor,
    bias: Option<&CubeTensor>,
) -> Option<CubeTensor> {
    let x = permute_nhwc_to_nchw(source(sizes, x));
    let y = conv_forward::<2>(
        x,
        permute_nhwc_to_nchw(weight.clone()),
        bias.cloned(),
        options(sizes),
        ConvStrategy::ImplicitGemm,
    )
    .ok()?;
    Some(contiguous(permute_nchw_to_nhwc(y)))
}

pub(super) fn input_gradient(sizes: &Sizes, weight: &CubeTensor, y_gradient: &CubeTensor) -> Option<CubeTensor> {
    let y_gradient = permute_nhwc_to_nchw(y_gradient.clone());
    let [batch, height, width, channels] = sizes.input_shape();
    let factor = if sizes.options.upsample { 2 } else { 1 };
    let shape = Shape::from([batch, channels, factor * height, factor * width]);
    let weight = permute_nhwc_to_nchw(weight.clone());
    let gradient = conv_data_backward::<2>(y_gradient, weight, shape, options(sizes), ConvStrategy::ImplicitGemm);
    let gradient = contiguous(permute_nchw_to_nhwc(gradient.ok()?));
    Some(if sizes.options.upsample { upsample_gradient(&gradient) } else { gradient })
}

pub(super) fn weight_gradient(
    sizes: &Sizes,
    x: &CubeTensor,
    y_gradient: &CubeTensor,
    with_bias: bool,
) -> Option<(Option<CubeTensor>, Option<CubeTensor>)> {
    let (x, gradient) = (permute_nhwc_to_nchw(source(sizes, x)), permute_nhwc_to_nchw(y_gradient.clone()));
    let shape = Shape::from(sizes.weight_shape());
    let weight = conv_weight_backward::<2>(x, gradient, shape, options(sizes), ConvStrategy::ImplicitGemm).ok()?;
    debug_assert_eq!(weight.shape().dims(), sizes.weight_shape());
    Some((Some(weight), with_bias.then(|| tiled::column_sums(y_gradient))))
}
