//! Softmax attention over the pixels of a level.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use kernels::Convolution;

use crate::{
    layers::Linear,
    unet2d::{config::Unet2dConfig, norm::GroupNorm, resnet::divided},
};

/// Attention with the residual connection around it.
#[derive(Module, Debug)]
pub struct Attention {
    group_norm: Option<GroupNorm>,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    #[module(skip)]
    heads: usize,
    /// The divisor of the output.
    #[module(skip)]
    divisor: f64,
}

impl Attention {
    /// `groups`: of the norm; None for no norm.
    pub fn new(config: &Unet2dConfig, channels: usize, groups: Option<usize>, device: &Device) -> Self {
        let [heads, head_dim] = config.heads(channels);
        let inner = heads * head_dim;
        Self {
            group_norm: groups.map(|groups| GroupNorm::new(channels, (groups, config.norm_eps), device)),
            to_q: Linear::new(channels, inner, device),
            to_k: Linear::new(channels, inner, device),
            to_v: Linear::new(channels, inner, device),
            to_out: Linear::new(inner, channels, device),
            heads,
            divisor: 1.0,
        }
    }

    /// The attention with its output divided by a number.
    pub fn divided_by(self, divisor: f64) -> Self {
        Self { divisor, ..self }
    }

    /// `[batch, height, width, channels]` to the same shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, height, width, _] = x.dims();
        let normed = match &self.group_norm {
            Some(norm) => norm.forward(x.clone()),
            None => x.clone(),
        };
        // one product for all three
        let parts = [&self.to_q, &self.to_k, &self.to_v];
        let weight = Tensor::cat(parts.map(|linear| linear.weight.val()).to_vec(), 0);
        let bias = Tensor::cat(parts.map(|linear| linear.bias.val()).to_vec(), 0);
        let pixelwise = |weight: Tensor<2>| {
            let [features_out, features_in] = weight.dims();
            weight.reshape([features_out, features_in, 1, 1])
        };
        let qkv = kernels::conv2d(normed, pixelwise(weight), Some(bias), Convolution::same(1));
        let out = kernels::self_attention(qkv.flatten(1, 2), self.heads);
        let inner = out.dims()[2];
        let (weight, bias) = (pixelwise(self.to_out.weight.val()), self.to_out.bias.val());
        let out = out.reshape([batch, height, width, inner]);
        divided(kernels::conv2d_add(out, weight, bias, Convolution::same(1), x), self.divisor)
    }
}
