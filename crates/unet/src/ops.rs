//! The hot operations of the network, in one place: plain burn operations, to be replaced one by one by faster ones.
//!
//! Images are `[batch, channels, height, width]`.

use burn::tensor::{Tensor, activation, assert_shape, module, ops::ConvOptions};

/// 2-D convolution with zero padding.
///
/// # Shapes
/// - `x`: `[batch, channels_in, height, width]`; `weight`: `[channels_out, channels_in, kernel, kernel]`
/// - `bias`: `[channels_out]`
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, padding: usize) -> Tensor<4> {
    module::conv2d(x, weight, bias, ConvOptions::new([1, 1], [padding, padding], [1, 1], 1))
}

/// `x weight^T + bias`, as PyTorch's `linear`.
///
/// # Shapes
/// - `x`: `[batch, features_in]`; `weight`: `[features_out, features_in]`; `bias`: `[features_out]`
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    x.matmul(weight.transpose()) + bias.unsqueeze()
}

/// RMS norm over the channels: `x / |x| sqrt(channels) gain` (Zhang and Sennrich 2019, arXiv:1910.07467; lucidrains
/// writes it with the Euclidean norm, which is never taken below 1e-12).
///
/// # Shapes
/// - `x`: `[batch, channels, height, width]`; `gain`: `[1, channels, 1, 1]`
pub fn rms_norm(x: Tensor<4>, gain: Tensor<4>) -> Tensor<4> {
    let [_, channels, _, _] = x.dims();
    assert_shape!(gain, [1, channels, 1, 1]);
    x.clone() * inverse_norm(x) * (gain * (channels as f64).sqrt())
}

/// 1 / max(|x|, 1e-12) over the channels. The clamp comes before the root, so that the gradient at x = 0 is 0, not NaN.
fn inverse_norm(x: Tensor<4>) -> Tensor<4> {
    (x.clone() * x).sum_dim(1).clamp_min(1e-24).sqrt().recip()
}

/// RMS norm, then scale and shift from the timestep, then SiLU: the middle of a ResNet block.
///
/// # Shapes
/// - `x`: `[batch, channels, height, width]`; `gain`: `[1, channels, 1, 1]`
/// - `scale_shift`: two of `[batch, channels, 1, 1]`; the scale is relative to 1
pub fn norm_scale_shift_silu(x: Tensor<4>, gain: Tensor<4>, scale_shift: Option<(Tensor<4>, Tensor<4>)>) -> Tensor<4> {
    let [batch, channels, _, _] = x.dims();
    assert_shape!(gain, [1, channels, 1, 1]);
    match scale_shift {
        Some((scale, shift)) => {
            assert_shape!(scale, [batch, channels, 1, 1]);
            assert_shape!(shift, [batch, channels, 1, 1]);
            // gain (scale + 1) is one small tensor: one pass over the image less
            let factor = (scale + 1.0) * (gain * (channels as f64).sqrt());
            silu(x.clone() * inverse_norm(x) * factor + shift)
        }
        None => silu(rms_norm(x, gain)),
    }
}

/// `x sigmoid(x)` (Hendrycks and Gimpel 2016).
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::silu(x)
}

/// `x Phi(x)` with the error function, not its tanh approximation.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
}

/// Softmax attention `softmax(q k^T / sqrt(head_dim)) v`.
///
/// # Shapes
/// - `q`: `[batch, heads, queries, head_dim]`; `k`, `v`: `[batch, heads, keys, head_dim]`
/// - result: like `q`
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    let [batch, heads, _, head_dim] = q.dims();
    assert_shape!(k, [batch, heads, _, head_dim]);
    assert_shape!(v, [batch, heads, _, head_dim]);
    let scores = (q * (head_dim as f64).powf(-0.5)).matmul(k.transpose());
    activation::softmax(scores, 3).matmul(v)
}

/// Linear attention: keys are normalised over positions, queries over channels, so that `k v^T` is computed once
/// (Shen et al. 2018, arXiv:1812.01243).
///
/// # Shapes
/// - `q`: `[batch, heads, head_dim, queries]`; `k`, `v`: `[batch, heads, head_dim, keys]`
/// - result: like `q`
pub fn linear_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    let [batch, heads, head_dim, _] = q.dims();
    assert_shape!(k, [batch, heads, head_dim, _]);
    assert_shape!(v, [batch, heads, head_dim, _]);
    let q = activation::softmax(q, 2) * (head_dim as f64).powf(-0.5);
    let k = activation::softmax(k, 3);
    // context [head_dim of v, head_dim of k]
    v.matmul(k.transpose()).matmul(q)
}

/// Patches become channels: `b c (h p) (w p) -> b (c p p) h w`.
///
/// # Shapes
/// - `x`: `[batch, channels, height, width]`, both divisible by `patch`
/// - result: `[batch, channels * patch^2, height / patch, width / patch]`
pub fn space_to_depth(x: Tensor<4>, patch: usize) -> Tensor<4> {
    if patch == 1 {
        return x;
    }
    let [batch, channels, height, width] = x.dims();
    let (rows, columns) = (height / patch, width / patch);
    x.reshape([batch, channels, rows, patch, columns, patch]).permute([0, 1, 3, 5, 2, 4]).reshape([
        batch,
        channels * patch * patch,
        rows,
        columns,
    ])
}

/// Channels become patches: the inverse of [`space_to_depth`].
///
/// # Shapes
/// - `x`: `[batch, channels * patch^2, rows, columns]`
/// - result: `[batch, channels, rows * patch, columns * patch]`
pub fn depth_to_space(x: Tensor<4>, patch: usize) -> Tensor<4> {
    if patch == 1 {
        return x;
    }
    let [batch, depth, rows, columns] = x.dims();
    let channels = depth / (patch * patch);
    x.reshape([batch, channels, patch, patch, rows, columns]).permute([0, 1, 4, 2, 5, 3]).reshape([
        batch,
        channels,
        rows * patch,
        columns * patch,
    ])
}

/// Every pixel becomes a square of four: nearest-neighbour upsampling by 2.
///
/// # Shapes
/// - `x`: `[batch, channels, height, width]`; result: `[batch, channels, 2 height, 2 width]`
pub fn upsample_nearest(x: Tensor<4>) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    x.reshape([batch, channels, height, 1, width, 1]).expand([batch, channels, height, 2, width, 2]).reshape([
        batch,
        channels,
        2 * height,
        2 * width,
    ])
}
