//! Group norm and what follows it.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    tensor::{Device, Tensor, activation},
};

use crate::unet2d::config::ActivationKind;

/// Applies an activation.
pub fn activate<const D: usize>(kind: ActivationKind, x: Tensor<D>) -> Tensor<D> {
    match kind {
        ActivationKind::Silu => kernels::silu(x),
        ActivationKind::Mish => activation::mish(x),
        ActivationKind::Gelu => kernels::gelu(x),
        ActivationKind::Relu => activation::relu(x),
    }
}

/// Group norm with weight and bias per channel.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// `[channels]`
    weight: Param<Tensor<1>>,
    /// `[channels]`
    bias: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
    #[module(skip)]
    epsilon: f64,
}

impl GroupNorm {
    pub fn new(channels: usize, (groups, epsilon): (usize, f64), device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
            groups,
            epsilon,
        }
    }

    /// `[batch, height, width, channels]` to the same shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.apply(x, false, None)
    }

    /// The norm, then scale and shift from t (`[batch, 2 channels]`, scales first and relative to 1), then the activation.
    pub fn forward_activated(&self, x: Tensor<4>, kind: ActivationKind, scale_shift: Option<Tensor<2>>) -> Tensor<4> {
        if kind == ActivationKind::Silu {
            return self.apply(x, true, scale_shift);
        }
        let x = self.forward(x);
        let x = match scale_shift {
            None => x,
            Some(scale_shift) => {
                let [batch, _, _, channels] = x.dims();
                let half = |start| scale_shift.clone().narrow(1, start, channels).reshape([batch, 1, 1, channels]);
                x * (half(0) + 1.0) + half(channels)
            }
        };
        activate(kind, x)
    }

    fn apply(&self, x: Tensor<4>, silu: bool, scale_shift: Option<Tensor<2>>) -> Tensor<4> {
        kernels::group_norm(x, self.weight.val(), self.bias.val(), (self.groups, self.epsilon), silu, scale_shift)
    }
}
