//! Every operation as a composition of burn's operations: runs on all backends but `flex`, and is the reference that the
//! native operations are tested against. Images are `[batch, height, width, channels]`.

use burn::tensor::{Tensor, activation, module, ops::ConvOptions};

use crate::{Convolution, Loss};

/// See [`conv2d`](crate::conv2d).
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, options: Convolution) -> Tensor<4> {
    let x = if options.upsample { upsample_nearest(x) } else { x };
    let (stride, padding) = (options.stride, options.padding);
    let options = ConvOptions::new([stride, stride], [padding, padding], [1, 1], 1);
    module::conv2d(x.permute([0, 3, 1, 2]), weight, bias, options).permute([0, 2, 3, 1])
}

/// Nearest-neighbor upsampling by 2.
pub fn upsample_nearest(x: Tensor<4>) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    let squares = x.reshape([batch, height, 1, width, 1, channels]).expand([batch, height, 2, width, 2, channels]);
    squares.reshape([batch, 2 * height, 2 * width, channels])
}

/// See [`rms_norm`](crate::rms_norm).
pub fn rms_norm(x: Tensor<4>, gain: Tensor<1>) -> Tensor<4> {
    let [_, _, _, channels] = x.dims();
    x.clone() * inverse_norm(x) * (gain * (channels as f64).sqrt()).reshape([1, 1, 1, channels])
}

/// 1 / max(|x|, 1e-12) over the channels. The clamp comes before the root, so that the gradient at x = 0 is 0, not NaN.
fn inverse_norm(x: Tensor<4>) -> Tensor<4> {
    (x.clone() * x).sum_dim(3).clamp_min(1e-24).sqrt().recip()
}

/// See [`rms_norm_silu`](crate::rms_norm_silu).
pub fn rms_norm_silu(x: Tensor<4>, gain: Tensor<1>, scale_shift: Option<Tensor<2>>) -> Tensor<4> {
    let [_, _, _, channels] = x.dims();
    let Some(scale_shift) = scale_shift else { return activation::silu(rms_norm(x, gain)) };
    let [scale, shift] = split_scale_shift(scale_shift);
    // gain (scale + 1) is one small tensor, which saves a pass over the image
    let factor = (scale + 1.0) * (gain * (channels as f64).sqrt()).reshape([1, 1, 1, channels]);
    activation::silu(x.clone() * inverse_norm(x) * factor + shift)
}

/// `[batch, 2 channels]` to scale and shift of `[batch, 1, 1, channels]`.
fn split_scale_shift(scale_shift: Tensor<2>) -> [Tensor<4>; 2] {
    let [batch, width] = scale_shift.dims();
    let channels = width / 2;
    [0, 1].map(|half| scale_shift.clone().narrow(1, half * channels, channels).reshape([batch, 1, 1, channels]))
}

/// `[batch, positions, 3 heads head_dim]` to q, k, v of `[batch, heads, positions, head_dim]`.
fn split_heads(qkv: Tensor<3>, heads: usize, head_dim: usize) -> [Tensor<4>; 3] {
    let [batch, positions, _] = qkv.dims();
    let qkv = qkv.reshape([batch, positions, 3 * heads, head_dim]).swap_dims(1, 2);
    [0, 1, 2].map(|part| qkv.clone().narrow(1, part * heads, heads))
}

/// `[2, heads, a, b]` to key and value of `[batch, heads, a, b]`.
fn split_memory(memory: Tensor<4>, batch: usize) -> [Tensor<4>; 2] {
    let [_, heads, rows, columns] = memory.dims();
    [0, 1].map(|part| memory.clone().narrow(0, part, 1).expand([batch, heads, rows, columns]))
}

/// `[batch, heads, positions, head_dim]` to `[batch, positions, heads head_dim]`.
fn join_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, positions, head_dim] = x.dims();
    x.swap_dims(1, 2).reshape([batch, positions, heads * head_dim])
}

/// See [`attention`](crate::attention).
pub fn attention(qkv: Tensor<3>, memory: Tensor<4>) -> Tensor<3> {
    let ([batch, ..], [_, heads, count, head_dim]) = (qkv.dims(), memory.dims());
    let [q, mut k, mut v] = split_heads(qkv, heads, head_dim);
    if count > 0 {
        let [memory_k, memory_v] = split_memory(memory, batch);
        k = Tensor::cat(vec![memory_k, k], 2);
        v = Tensor::cat(vec![memory_v, v], 2);
    }
    let scores = (q * (head_dim as f64).powf(-0.5)).matmul(k.transpose());
    join_heads(activation::softmax(scores, 3).matmul(v))
}

/// See [`linear_attention`](crate::linear_attention).
pub fn linear_attention(qkv: Tensor<3>, memory: Tensor<4>) -> Tensor<3> {
    let ([batch, ..], [_, heads, head_dim, _]) = (qkv.dims(), memory.dims());
    let [q, k, v] = split_heads(qkv, heads, head_dim);
    let [memory_k, memory_v] = split_memory(memory, batch);
    let k = Tensor::cat(vec![memory_k.swap_dims(2, 3), k], 2);
    let v = Tensor::cat(vec![memory_v.swap_dims(2, 3), v], 2);
    let q = activation::softmax(q, 3) * (head_dim as f64).powf(-0.5);
    let k = activation::softmax(k, 2);
    // [head_dim of k, head_dim of v]
    let context = k.transpose().matmul(v);
    join_heads(q.matmul(context))
}

/// See [`silu`](crate::silu).
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::silu(x)
}

/// See [`gelu`](crate::gelu).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
}

/// See [`linear`](crate::linear).
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    x.matmul(weight.transpose()) + bias.unsqueeze()
}

/// See [`concat_channels`](crate::concat_channels).
pub fn concat_channels(first: Tensor<4>, second: Tensor<4>) -> Tensor<4> {
    Tensor::cat(vec![first, second], 3)
}

/// See [`loss`](crate::loss).
pub fn loss<const D: usize>(kind: Loss, prediction: Tensor<D>, target: Tensor<D>, weights: Tensor<1>) -> Tensor<1> {
    let batch = weights.dims()[0];
    let elements = prediction.dims().iter().product::<usize>() / batch.max(1);
    let difference = prediction - target;
    let errors = match kind {
        Loss::Squared => difference.clone() * difference,
        Loss::Absolute => difference.abs(),
        Loss::Huber(limit) => {
            // with within = min(|d|, limit), within^2 / 2 + limit (|d| - within) is both parts
            let magnitude = difference.abs();
            let within = magnitude.clone().clamp_max(limit);
            within.clone() * within.clone() * 0.5 + (magnitude - within) * limit
        }
    };
    errors.reshape([batch, elements]).mean_dim(1).reshape([batch]) * weights
}

/// See [`softmax`](crate::softmax).
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::softmax(x, D - 1)
}

/// See [`group_norm`](crate::group_norm).
pub fn group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    (groups, epsilon): (usize, f64),
    silu: bool,
    scale_shift: Option<Tensor<2>>,
) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    let grouped = x.reshape([batch, height * width, groups, channels / groups]);
    let mean = grouped.clone().mean_dim(1).mean_dim(3);
    let centered = grouped - mean;
    let variance = (centered.clone() * centered.clone()).mean_dim(1).mean_dim(3);
    let normed = (centered / (variance + epsilon).sqrt()).reshape([batch, height, width, channels]);
    let z = normed * weight.reshape([1, 1, 1, channels]) + bias.reshape([1, 1, 1, channels]);
    let z = match scale_shift {
        None => z,
        Some(scale_shift) => {
            let [scale, shift] = split_scale_shift(scale_shift);
            z * (scale + 1.0) + shift
        }
    };
    if silu { activation::silu(z) } else { z }
}
