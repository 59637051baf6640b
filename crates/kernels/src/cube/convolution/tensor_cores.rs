//! Convolutions on tensor cores, by the implicit GEMM of burn's CubeCL kernels. Every function returns None where burn
//! refuses the shape, and the caller computes it otherwise.
//!
//! burn's kernels read weights as `[channels_out, kernel, kernel, channels_in]`, and make a copy of ours.

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

fn options(sizes: &Sizes) -> ConvOptions<2> {
    let padding = sizes.options.padding;
    ConvOptions::new([1, 1], [padding, padding], [1, 1], 1)
}

pub(super) fn forward(
    sizes: &Sizes,
    x: &CubeTensor,
    weight: &CubeTensor,
    bias: Option<&CubeTensor>,
) -> Option<CubeTensor> {
    let x = permute_nhwc_to_nchw(x.clone());
    let y = conv_forward::<2>(x, weight.clone(), bias.cloned(), options(sizes), ConvStrategy::ImplicitGemm).ok()?;
    Some(contiguous(permute_nchw_to_nhwc(y)))
}

pub(super) fn input_gradient(sizes: &Sizes, weight: &CubeTensor, y_gradient: &CubeTensor) -> Option<CubeTensor> {
    let y_gradient = permute_nhwc_to_nchw(y_gradient.clone());
    let [batch, height, width, channels] = sizes.input_shape();
    let shape = Shape::from([batch, channels, height, width]);
    let gradient =
        conv_data_backward::<2>(y_gradient, weight.clone(), shape, options(sizes), ConvStrategy::ImplicitGemm);
    Some(contiguous(permute_nchw_to_nhwc(gradient.ok()?)))
}

pub(super) fn weight_gradient(
    sizes: &Sizes,
    x: &CubeTensor,
    y_gradient: &CubeTensor,
    with_bias: bool,
) -> Option<(Option<CubeTensor>, Option<CubeTensor>)> {
    let (x, gradient) = (permute_nhwc_to_nchw(x.clone()), permute_nhwc_to_nchw(y_gradient.clone()));
    let shape = Shape::from(sizes.weight_shape());
    let weight = conv_weight_backward::<2>(x, gradient, shape, options(sizes), ConvStrategy::ImplicitGemm).ok()?;
    debug_assert_eq!(weight.shape().dims(), sizes.weight_shape());
    Some((Some(weight), with_bias.then(|| tiled::column_sums(y_gradient))))
}
