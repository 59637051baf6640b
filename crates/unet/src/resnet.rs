//! The ResNet block: twice convolution, norm, SiLU, the first time with scale and shift from t; plus the input.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use crate::{
    dropout::DropoutMasks,
    layers::{Conv2d, Linear, RmsNorm},
};

/// Convolution, norm, activation.
#[derive(Module, Debug)]
pub struct Block {
    proj: Conv2d,
    norm: RmsNorm,
}

impl Block {
    fn new(channels: [usize; 2], device: &Device) -> Self {
        Self { proj: Conv2d::new(channels, 3, device), norm: RmsNorm::new(channels[1], device) }
    }

    fn forward(&self, x: Tensor<4>, scale_shift: Option<Tensor<2>>) -> Tensor<4> {
        kernels::rms_norm_silu(self.proj.forward(x), self.norm.gain(), scale_shift)
    }

    fn forward_add(&self, x: Tensor<4>, residual: Tensor<4>) -> Tensor<4> {
        kernels::rms_norm_add(self.proj.forward(x), self.norm.gain(), true, residual)
    }
}

/// Two blocks and a residual connection around them.
#[derive(Module, Debug)]
pub struct ResnetBlock {
    mlp: Linear,
    block1: Block,
    block2: Block,
    res_conv: Option<Conv2d>,
}

impl ResnetBlock {
    pub fn new(channels: [usize; 2], time_dim: usize, device: &Device) -> Self {
        let [channels_in, channels_out] = channels;
        Self {
            mlp: Linear::new(time_dim, 2 * channels_out, device),
            block1: Block::new(channels, device),
            block2: Block::new([channels_out, channels_out], device),
            res_conv: (channels_in != channels_out).then(|| Conv2d::new(channels, 1, device)),
        }
    }

    /// # Shapes
    /// - `x`: `[batch, height, width, channels_in]`
    /// - `time`: SiLU of the time embedding, `[batch, time_dim]`
    /// - result: `[batch, height, width, channels_out]`
    pub fn forward(&self, x: Tensor<4>, time: &Tensor<2>, dropout: &mut DropoutMasks) -> Tensor<4> {
        let h = self.block1.forward(x.clone(), Some(self.mlp.forward(time.clone())));
        let h = dropout.apply(h);
        match &self.res_conv {
            Some(conv) => conv.forward_add(x, self.block2.forward(h, None)),
            None => self.block2.forward_add(h, x),
        }
    }
}
