//! The smallest layers: parameters, and the operation of [`kernels`] that uses them.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    tensor::{Device, Tensor},
};

use kernels::Convolution;

/// PyTorch's default for weights and biases: uniform in ±1/sqrt(fan_in).
fn uniform(fan_in: usize) -> Initializer {
    let bound = 1.0 / (fan_in as f64).sqrt();
    Initializer::Uniform { min: -bound, max: bound }
}

/// A convolution, which keeps height and width in [`forward`](Self::forward).
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

    /// `[batch, height, width, channels_in]` to `[batch, height, width, channels_out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let kernel = self.weight.lazy_shape()[2];
        self.convolve(x, self.weight.val(), Convolution::same(kernel))
    }

    /// [`forward`](Self::forward) plus an image of the shape of its result.
    pub fn forward_add(&self, x: Tensor<4>, residual: Tensor<4>) -> Tensor<4> {
        let options = Convolution::same(self.weight.lazy_shape()[2]);
        match &self.bias {
            Some(bias) => kernels::conv2d_add(x, self.weight.val(), bias.val(), options, residual),
            None => self.forward(x) + residual,
        }
    }

    /// [`forward`](Self::forward) after nearest-neighbor upsampling by 2: `[batch, 2 height, 2 width, channels_out]`.
    pub fn forward_upsampled(&self, x: Tensor<4>) -> Tensor<4> {
        let kernel = self.weight.lazy_shape()[2];
        self.convolve(x, self.weight.val(), Convolution::upsampled(kernel))
    }

    /// A convolution of stride 2 with `padding` zeros on each side.
    pub fn forward_halved(&self, x: Tensor<4>, padding: usize) -> Tensor<4> {
        self.convolve(x, self.weight.val(), Convolution { stride: 2, padding, upsample: false })
    }

    /// A 1x1 convolution of [`kernels::space_to_depth`] by 2, computed as a 2x2 convolution of stride 2, whose weights lie in
    /// the same order: `[batch, height / 2, width / 2, channels_out]`.
    pub fn forward_patches(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val();
        let [channels_out, depth, _, _] = weight.dims();
        self.convolve(x, weight.reshape([channels_out, depth / 4, 2, 2]), Convolution::patches(2))
    }

    fn convolve(&self, x: Tensor<4>, weight: Tensor<4>, options: Convolution) -> Tensor<4> {
        kernels::conv2d(x, weight, self.bias.as_ref().map(Param::val), options)
    }
}

/// An affine map, laid out as PyTorch's.
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
        kernels::linear(x, self.weight.val(), self.bias.val())
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

    /// `[batch, height, width, channels]` to the same shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        kernels::rms_norm(x, self.gain())
    }

    /// [`forward`](Self::forward) plus an image of the same shape.
    pub fn forward_add(&self, x: Tensor<4>, residual: Tensor<4>) -> Tensor<4> {
        kernels::rms_norm_add(x, self.gain(), false, residual)
    }

    /// `[channels]`
    pub fn gain(&self) -> Tensor<1> {
        self.g.val().flatten(0, 3)
    }
}
