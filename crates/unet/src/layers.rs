//! The smallest layers: parameters, and the operation of [`ops`](crate::ops) that uses them.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    tensor::{Device, Tensor},
};

use crate::ops;

/// PyTorch's default for weights and biases: uniform in ±1/sqrt(fan_in).
fn uniform(fan_in: usize) -> Initializer {
    let bound = 1.0 / (fan_in as f64).sqrt();
    Initializer::Uniform { min: -bound, max: bound }
}

/// A convolution with stride 1 that keeps height and width.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[channels_out, channels_in, kernel, kernel]`
    pub weight: Param<Tensor<4>>,
    /// `[channels_out]`
    pub bias: Option<Param<Tensor<1>>>,
}

impl Conv2d {
    pub fn new(channels: [usize; 2], kernel: usize, device: &Device) -> Self {
        let [channels_in, channels_out] = channels;
        let initializer = uniform(channels_in * kernel * kernel);
        Self {
            weight: initializer.init([channels_out, channels_in, kernel, kernel], device),
            bias: Some(initializer.init([channels_out], device)),
        }
    }

    pub fn without_bias(channels: [usize; 2], device: &Device) -> Self {
        Self { bias: None, ..Self::new(channels, 1, device) }
    }

    /// `[batch, channels_in, height, width]` to `[batch, channels_out, height, width]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val();
        let padding = weight.dims()[2] / 2;
        ops::conv2d(x, weight, self.bias.as_ref().map(Param::val), padding)
    }
}

/// An affine map; the weight lies as PyTorch's.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[features_out, features_in]`
    pub weight: Param<Tensor<2>>,
    /// `[features_out]`
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    pub fn new(features_in: usize, features_out: usize, device: &Device) -> Self {
        let initializer = uniform(features_in);
        Self {
            weight: initializer.init([features_out, features_in], device),
            bias: initializer.init([features_out], device),
        }
    }

    /// `[batch, features_in]` to `[batch, features_out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        ops::linear(x, self.weight.val(), self.bias.val())
    }
}

/// RMS norm over the channels with a learned gain.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[1, channels, 1, 1]`
    pub g: Param<Tensor<4>>,
}

impl RmsNorm {
    pub fn new(channels: usize, device: &Device) -> Self {
        Self { g: Initializer::Ones.init([1, channels, 1, 1], device) }
    }

    /// `[batch, channels, height, width]`, as it comes.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::rms_norm(x, self.g.val())
    }
}
