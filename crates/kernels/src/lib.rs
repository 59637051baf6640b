//! The operations that a diffusion U-Net spends its time in.
//!
//! Images are channels-last, `[batch, height, width, channels]`: a pixel is one run of memory, a 1x1 convolution one matrix
//! product, and a norm over channels reads adjacent values. An operation runs natively ([`cpu`]) on f32 tensors of the
//! `flex` backend, in CubeCL (`cube`, with the feature of that name) on tensors of a GPU, and as a composition of burn's
//! operations ([`composed`]) elsewhere.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use kernels::{Convolution, conv2d, rms_norm_silu};
//!
//! let device = Device::flex();
//! let x = Tensor::<4>::ones([2, 8, 8, 3], &device);
//! let weight = Tensor::<4>::ones([16, 3, 3, 3], &device);
//! let y = conv2d(x, weight, None, Convolution::same(3));
//! assert_eq!(y.dims(), [2, 8, 8, 16]);
//! assert_eq!(rms_norm_silu(y, Tensor::ones([16], &device), None).dims(), [2, 8, 8, 16]);
//! ```

use burn::tensor::{Device, Tensor, assert_shape};

pub mod adam;
pub mod composed;
#[cfg(feature = "flex")]
pub mod cpu;
#[cfg(feature = "cube")]
pub mod cube;
#[cfg(any(feature = "flex", feature = "cube"))]
mod graph;
pub mod instruction_set;
pub mod normal;
pub mod parts;
pub mod profile;
pub mod tensor_cores;

/// Whether the tensors of a device lie in main memory, where the native operations work.
pub fn is_in_main_memory(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return device.clone().inner() == Device::flex();
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}

/// Whether the device is a GPU with operations of ours, which computes on its own while the host goes on.
pub fn is_gpu(device: &Device) -> bool {
    #[cfg(feature = "cube")]
    return cube::operation::is_gpu(device);
    #[cfg(not(feature = "cube"))]
    {
        let _ = device;
        false
    }
}

/// Returns the result of an operation of ours if all its inputs are on a device that has one; the input behind the semicolon
/// is optional. The operation has one name in [`cpu`] and `cube`.
macro_rules! return_if_ours {
    ($operation:expr, $($input:ident),+ $(; $optional:ident)?) => {
        #[cfg(feature = "flex")]
        return_if_ours!(@ cpu, is_native, $operation, $($input),+ $(; $optional)?);
        #[cfg(feature = "cube")]
        return_if_ours!(@ cube, is_on_gpu, $operation, $($input),+ $(; $optional)?);
    };
    (@ $module:ident, $is_ours:ident, $operation:expr, $($input:ident),+ $(; $optional:ident)?) => {{
        use crate::$module::{*, operation::{apply, $is_ours}};
        if $($is_ours(&$input))&&+ $(&& $optional.as_ref().is_none_or($is_ours))? {
            let inputs = [$(Some($input.into_dispatch())),+ $(, $optional.map(Tensor::into_dispatch))?];
            return apply($operation, inputs.into_iter().flatten().collect());
        }
    }};
}

/// Stride, padding and upsampling of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Pixels from one position to the next.
    pub stride: usize,
    /// Zeros on each side of the input.
    pub padding: usize,
    /// Whether the input is first upsampled by 2 (nearest neighbor).
    pub upsample: bool,
}

impl Convolution {
    /// Keeps height and width; `kernel` is odd.
    pub const fn same(kernel: usize) -> Self {
        Self { stride: 1, padding: kernel / 2, upsample: false }
    }

    /// Takes squares of `size` x `size` pixels that do not overlap.
    pub const fn patches(size: usize) -> Self {
        Self { stride: size, padding: 0, upsample: false }
    }

    /// Doubles height and width by nearest neighbor, then keeps them as [`same`](Self::same) does.
    pub const fn upsampled(kernel: usize) -> Self {
        Self { upsample: true, ..Self::same(kernel) }
    }
}

/// 2-D convolution with zero padding.
///
/// # Shapes
/// - `x`: `[batch, height, width, channels_in]`; `weight`: `[channels_out, channels_in, kernel, kernel]`
/// - `bias`: `[channels_out]`
/// - result: `[batch, height_out, width_out, channels_out]`
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, options: Convolution) -> Tensor<4> {
    let [_, _, _, channels] = x.dims();
    let [channels_out, _, kernel, _] = weight.dims();
    assert_shape!(weight, [channels_out, channels, kernel, kernel]);
    if let Some(bias) = &bias {
        assert_shape!(bias, [channels_out]);
    }
    return_if_ours!(convolution::Conv2d(options), x, weight; bias);
    composed::conv2d(x, weight, bias, options)
}

/// [`conv2d`] plus an image of the shape of its result, which costs no pass of its own on a GPU.
///
/// # Shapes
/// - as [`conv2d`]; `residual`: `[batch, height_out, width_out, channels_out]`
pub fn conv2d_add(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    options: Convolution,
    residual: Tensor<4>,
) -> Tensor<4> {
    #[cfg(feature = "cube")]
    return_if_ours!(@ cube, is_on_gpu, convolution::Conv2dAdd(options), x, weight, bias, residual);
    // in this order, which the sums of gradients follow
    residual + conv2d(x, weight, Some(bias), options)
}

/// `x weight^T + bias`, as PyTorch's `linear`.
///
/// # Shapes
/// - `x`: `[batch, features_in]`; `weight`: `[features_out, features_in]`; `bias`: `[features_out]`
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    return_if_ours!(convolution::Linear, x, weight, bias);
    composed::linear(x, weight, bias)
}

/// RMS norm over the channels: `x / max(|x|, 1e-12) sqrt(channels) gain` (Zhang and Sennrich 2019, arXiv:1910.07467, as
/// lucidrains writes it).
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`; `gain`: `[channels]`
pub fn rms_norm(x: Tensor<4>, gain: Tensor<1>) -> Tensor<4> {
    let [_, _, _, channels] = x.dims();
    assert_shape!(gain, [channels]);
    return_if_ours!(rms_norm::RmsNorm { silu: false }, x, gain);
    composed::rms_norm(x, gain)
}

/// [`rms_norm`], then SiLU if `silu`, plus an image of the shape of `x`, which costs no pass of its own on a GPU.
///
/// # Shapes
/// - `x`, `residual`: `[batch, height, width, channels]`; `gain`: `[channels]`
pub fn rms_norm_add(x: Tensor<4>, gain: Tensor<1>, silu: bool, residual: Tensor<4>) -> Tensor<4> {
    #[cfg(feature = "cube")]
    return_if_ours!(@ cube, is_on_gpu, rms_norm::RmsNormAdd { silu }, x, gain, residual);
    let y = if silu { rms_norm_silu(x, gain, None) } else { rms_norm(x, gain) };
    y + residual
}

/// [`rms_norm`], then scale and shift from the timestep, then SiLU: the middle of a ResNet block.
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`; `gain`: `[channels]`
/// - `scale_shift`: `[batch, 2 channels]`, all scales before the shifts; the scale is relative to 1
pub fn rms_norm_silu(x: Tensor<4>, gain: Tensor<1>, scale_shift: Option<Tensor<2>>) -> Tensor<4> {
    let [batch, _, _, channels] = x.dims();
    assert_shape!(gain, [channels]);
    if let Some(scale_shift) = &scale_shift {
        assert_shape!(scale_shift, [batch, 2 * channels]);
    }
    return_if_ours!(rms_norm::RmsNorm { silu: true }, x, gain; scale_shift);
    composed::rms_norm_silu(x, gain, scale_shift)
}

/// Group norm (Wu and He 2018, arXiv:1803.08494), then, with `silu`, scale and shift from the timestep, if given, and SiLU.
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`; `weight`, `bias`: `[channels]`
/// - `scale_shift`: `[batch, 2 channels]`, all scales before the shifts; the scale is relative to 1
///
/// # Panics
/// If `groups` does not divide the channels, or there is a scale and shift without `silu`.
pub fn group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    (groups, epsilon): (usize, f64),
    silu: bool,
    scale_shift: Option<Tensor<2>>,
) -> Tensor<4> {
    let [batch, _, _, channels] = x.dims();
    assert_shape!(weight, [channels]);
    assert_shape!(bias, [channels]);
    assert!(groups > 0 && channels % groups == 0, "{groups} groups do not divide {channels} channels");
    assert!(silu || scale_shift.is_none(), "scale and shift come before SiLU");
    if let Some(scale_shift) = &scale_shift {
        assert_shape!(scale_shift, [batch, 2 * channels]);
    }
    return_if_ours!(group_norm::GroupNorm::new(groups, epsilon, silu), x, weight, bias; scale_shift);
    composed::group_norm(x, weight, bias, (groups, epsilon), silu, scale_shift)
}

/// The error of an element of a prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// The square of the difference.
    Squared,
    /// The magnitude of the difference.
    Absolute,
    /// Half the square up to this difference, linear beyond (Huber 1964).
    Huber(f32),
}

/// The mean error of each sample, times its weight.
///
/// # Shapes
/// - `prediction`, `target`: `[batch, …]`, the same; `weights`: `[batch]`
/// - result: `[batch]`
///
/// # Panics
/// If the shapes do not fit.
pub fn loss<const D: usize>(kind: Loss, prediction: Tensor<D>, target: Tensor<D>, weights: Tensor<1>) -> Tensor<1> {
    assert_eq!(prediction.dims(), target.dims(), "prediction and target have one shape");
    assert_eq!(prediction.dims()[0], weights.dims()[0], "one weight for each sample");
    return_if_ours!(loss::WeightedLoss(kind), prediction, target, weights);
    composed::loss(kind, prediction, target, weights)
}

/// `e^x / sum e^x` over the last axis.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    return_if_ours!(softmax::Softmax, x);
    composed::softmax(x)
}

/// `x sigmoid(x)` (Hendrycks and Gimpel 2016).
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    return_if_ours!(activation::Activation::Silu, x);
    composed::silu(x)
}

/// `x Phi(x)` with the error function, not its tanh approximation.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    return_if_ours!(activation::Activation::Gelu, x);
    composed::gelu(x)
}

/// Softmax attention `softmax(q k^T / sqrt(head_dim)) v` of each head (Vaswani et al. 2017, arXiv:1706.03762), with learned
/// keys and values ("memory") before those of the positions.
///
/// # Shapes
/// - `qkv`: `[batch, positions, 3 heads head_dim]`: q of all heads, then k, then v
/// - `memory`: `[2 (key, value), heads, memory, head_dim]`, where `memory` may be 0
/// - result: `[batch, positions, heads head_dim]`
pub fn attention(qkv: Tensor<3>, memory: Tensor<4>) -> Tensor<3> {
    let ([batch, positions, _], [_, heads, count, head_dim]) = (qkv.dims(), memory.dims());
    assert_shape!(qkv, [batch, positions, 3 * heads * head_dim]);
    assert_shape!(memory, [2, heads, count, head_dim]);
    return_if_ours!(attention::Attention, qkv, memory);
    composed::attention(qkv, memory)
}

/// [`attention`] among the positions alone.
///
/// # Shapes
/// - `qkv`: `[batch, positions, 3 heads head_dim]`: q of all heads, then k, then v
/// - result: `[batch, positions, heads head_dim]`
///
/// # Panics
/// If the width of `qkv` is not a multiple of three times `heads`.
pub fn self_attention(qkv: Tensor<3>, heads: usize) -> Tensor<3> {
    let [_, _, width] = qkv.dims();
    assert!(heads > 0 && width.is_multiple_of(3 * heads), "{heads} heads of q, k and v do not divide {width} channels");
    let memory = Tensor::zeros([2, heads, 0, width / (3 * heads)], (&qkv.device(), qkv.dtype()));
    attention(qkv, memory)
}

/// Linear attention: keys are normalized over positions, queries over channels, so that `k v^T` is computed once
/// (Shen et al. 2018, arXiv:1812.01243).
///
/// # Shapes
/// - `qkv`: `[batch, positions, 3 heads head_dim]`: q of all heads, then k, then v
/// - `memory`: `[2 (key, value), heads, head_dim, memory]`
/// - result: `[batch, positions, heads head_dim]`
pub fn linear_attention(qkv: Tensor<3>, memory: Tensor<4>) -> Tensor<3> {
    let ([batch, positions, _], [_, heads, head_dim, count]) = (qkv.dims(), memory.dims());
    assert_shape!(qkv, [batch, positions, 3 * heads * head_dim]);
    assert_shape!(memory, [2, heads, head_dim, count]);
    return_if_ours!(linear_attention::LinearAttention, qkv, memory);
    composed::linear_attention(qkv, memory)
}

/// Concatenates the channels of two images.
///
/// # Shapes
/// - `first`: `[batch, height, width, a]`; `second`: `[batch, height, width, b]`
/// - result: `[batch, height, width, a + b]`
pub fn concat_channels(first: Tensor<4>, second: Tensor<4>) -> Tensor<4> {
    let [batch, height, width, channels] = second.dims();
    assert_shape!(first, [batch, height, width, _]);
    assert_shape!(second, [batch, height, width, channels]);
    return_if_ours!(concatenate::Concatenate, first, second);
    composed::concat_channels(first, second)
}

/// Patches become channels: `b (h p) (w p) c -> b h w (c p p)`.
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`, height and width divisible by `patch`
/// - result: `[batch, height / patch, width / patch, channels * patch^2]`
pub fn space_to_depth(x: Tensor<4>, patch: usize) -> Tensor<4> {
    if patch == 1 {
        return x;
    }
    let [batch, height, width, channels] = x.dims();
    let (rows, columns) = (height / patch, width / patch);
    let patches = x.reshape([batch, rows, patch, columns, patch, channels]).permute([0, 1, 3, 5, 2, 4]);
    patches.reshape([batch, rows, columns, channels * patch * patch])
}

/// Channels become patches: the inverse of [`space_to_depth`].
///
/// # Shapes
/// - `x`: `[batch, rows, columns, channels * patch^2]`
/// - result: `[batch, rows * patch, columns * patch, channels]`
pub fn depth_to_space(x: Tensor<4>, patch: usize) -> Tensor<4> {
    if patch == 1 {
        return x;
    }
    let [batch, rows, columns, depth] = x.dims();
    let channels = depth / (patch * patch);
    let pixels = x.reshape([batch, rows, columns, channels, patch, patch]).permute([0, 1, 4, 2, 5, 3]);
    pixels.reshape([batch, rows * patch, columns * patch, channels])
}
