//! Attention over the pixels of a level and a few learned keys and values ("memory") that belong to no pixel.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    tensor::{Device, Tensor},
};

use crate::{
    config::{AttentionKind, MEMORY},
    layers::{Conv2d, RmsNorm},
};

/// One of the two attentions, with the residual connection around it.
#[derive(Module, Debug)]
pub enum Attention {
    /// Linear in the number of pixels.
    Linear(LinearAttention),
    /// Softmax over all pixels.
    Full(FullAttention),
}

impl Attention {
    pub fn new(kind: AttentionKind, channels: usize, heads: usize, head_dim: usize, device: &Device) -> Option<Self> {
        match kind {
            AttentionKind::Off => None,
            AttentionKind::Linear => Some(Self::Linear(LinearAttention::new(channels, heads, head_dim, device))),
            AttentionKind::Full => Some(Self::Full(FullAttention::new(channels, heads, head_dim, device))),
        }
    }

    /// `[batch, height, width, channels]` to the same shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Linear(attention) => attention.forward(x),
            Self::Full(attention) => attention.forward(x),
        }
    }
}

/// Linear attention; memory is `[2 (key, value), heads, head_dim, memory]`.
#[derive(Module, Debug)]
pub struct LinearAttention {
    norm: RmsNorm,
    mem_kv: Param<Tensor<4>>,
    to_qkv: Conv2d,
    to_out: Conv2d,
    out_norm: RmsNorm,
}

impl LinearAttention {
    fn new(channels: usize, heads: usize, head_dim: usize, device: &Device) -> Self {
        let hidden = heads * head_dim;
        Self {
            norm: RmsNorm::new(channels, device),
            mem_kv: Initializer::Normal { mean: 0.0, std: 1.0 }.init([2, heads, head_dim, MEMORY], device),
            to_qkv: Conv2d::without_bias([channels, 3 * hidden], device),
            to_out: Conv2d::new([hidden, channels], 1, device),
            out_norm: RmsNorm::new(channels, device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, height, width, _] = x.dims();
        let qkv = self.to_qkv.forward(self.norm.forward(x.clone())).flatten(1, 2);
        let out = kernels::linear_attention(qkv, self.mem_kv.val());
        let hidden = out.dims()[2];
        self.out_norm.forward_add(self.to_out.forward(out.reshape([batch, height, width, hidden])), x)
    }
}

/// Full attention; memory is `[2 (key, value), heads, memory, head_dim]`.
#[derive(Module, Debug)]
pub struct FullAttention {
    norm: RmsNorm,
    mem_kv: Param<Tensor<4>>,
    to_qkv: Conv2d,
    to_out: Conv2d,
}

impl FullAttention {
    pub fn new(channels: usize, heads: usize, head_dim: usize, device: &Device) -> Self {
        let hidden = heads * head_dim;
        Self {
            norm: RmsNorm::new(channels, device),
            mem_kv: Initializer::Normal { mean: 0.0, std: 1.0 }.init([2, heads, MEMORY, head_dim], device),
            to_qkv: Conv2d::without_bias([channels, 3 * hidden], device),
            to_out: Conv2d::new([hidden, channels], 1, device),
        }
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, height, width, _] = x.dims();
        let qkv = self.to_qkv.forward(self.norm.forward(x.clone())).flatten(1, 2);
        let out = kernels::attention(qkv, self.mem_kv.val());
        let hidden = out.dims()[2];
        self.to_out.forward_add(out.reshape([batch, height, width, hidden]), x)
    }
}
