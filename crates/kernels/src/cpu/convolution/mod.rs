//! Two-dimensional convolution of channels-last images.
mod product;
mod scratch;
mod simd;
mod im2col;
mod winograd;

use crate::cpu::operation::{Operation, View};
use winograd::{F2, F4, Pass, WeightGradient};

/// What a convolution looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Convolution {
    /// Images.
    pub batch: usize,
    /// Rows of an input image as stored.
    pub height: usize,
    /// Columns of an input image as stored.
    pub width: usize,
    /// Channels of the input.
    pub channels_in: usize,
    /// Channels of the output.
    pub channels_out: usize,
    /// Side of the square kernel.
    pub kernel: usize,
    /// Step between neighbouring output pixels.
    pub stride: usize,
    /// Zeros around the (upsampled) image.
    pub padding: usize,
    /// Whether the input is upsampled by 2 (nearest neighbour) before the convolution. The larger image is never stored.
    pub upsample: bool,
}

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// Patches times weights, for every shape.
    Im2col,
    /// F(2x2, 3x3), for kernel 3, stride 1, padding 1.
    Winograd2,
    /// F(4x4, 3x3), for the same shapes.
    Winograd4,
}

impl Convolution {
    /// Height and width of the input after the upsampling.
    fn size(&self) -> [usize; 2] {
        [self.height, self.width].map(|n| n << usize::from(self.upsample))
    }

    /// Height and width of the output.
    pub fn output_size(&self) -> [usize; 2] {
        self.size().map(|n| (n + 2 * self.padding - self.kernel) / self.stride + 1)
    }

    /// Algorithm
    pub fn algorithm(&self) -> Algorithm {
        if self.kernel == 3 && self.stride == 1 && self.padding == 1 { Algorithm::Winograd4 } else { Algorithm::Im2col }
    }

    /// forward
    pub fn forward(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        self.forward_by(self.algorithm(), x, weight, bias, y)
    }

    /// forward
    pub fn forward_by(&self, algorithm: Algorithm, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        match algorithm {
            Algorithm::Im2col => im2col::forward(self, x, weight, bias, y),
            Algorithm::Winograd2 => Pass::<F2, 2, 4>::forward(self, x, weight, bias).run(y),
            Algorithm::Winograd4 => Pass::<F4, 4, 6>::forward(self, x, weight, bias).run(y),
        }
    }

    /// input_gradient
    pub fn input_gradient(&self, y_gradient: &[f32], weight: &[f32], x_gradient: &mut [f32]) {
        self.input_gradient_by(self.algorithm(), y_gradient, weight, x_gradient)
    }

    /// input_gradient
    pub fn input_gradient_by(&self, algorithm: Algorithm, y_gradient: &[f32], weight: &[f32], x_gradient: &mut [f32]) {
        match algorithm {
            Algorithm::Im2col => im2col::input_gradient(self, y_gradient, weight, x_gradient),
            Algorithm::Winograd2 => Pass::<F2, 2, 4>::input_gradient(self, y_gradient, weight).run(x_gradient),
            Algorithm::Winograd4 => Pass::<F4, 4, 6>::input_gradient(self, y_gradient, weight).run(x_gradient),
        }
    }

    /// weight_gradient
    pub fn weight_gradient(
        &self,
        x: &[f32],
        y_gradient: &[f32],
        weight_gradient: &mut [f32],
        bias_gradient: Option<&mut [f32]>,
    ) {
        self.weight_gradient_by(self.algorithm(), x, y_gradient, weight_gradient, bias_gradient)
    }

    /// weight_gradient
    pub fn weight_gradient_by(
        &self,
        algorithm: Algorithm,
        x: &[f32],
        y_gradient: &[f32],
        weight_gradient: &mut [f32],
        bias_gradient: Option<&mut [f32]>,
    ) {
        match algorithm {
            Algorithm::Im2col => im2col::weight_gradient(self, x, y_gradient, weight_gradient, bias_gradient),
            Algorithm::Winograd2 => {
                WeightGradient::<F2, 2, 4>::new(self, x, y_gradient).run(weight_gradient, bias_gradient)
            }
            Algorithm::Winograd4 => {
                WeightGradient::<F4, 4, 6>::new(self, x, y_gradient).run(weight_gradient, bias_gradient)
            }
        }
    }
}

/// The burn operation: x `[batch, height, width, channels_in]`, weight `[channels_out, channels_in, kernel, kernel]`, and a
/// bias `[channels_out]` where there are three inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conv2d(pub crate::Convolution);

impl Conv2d {
    fn convolution(&self, x: &[usize], weight: &[usize]) -> Convolution {
        let crate::Convolution { stride, padding, upsample } = self.0;
        let [batch, height, width, channels_in] = [x[0], x[1], x[2], x[3]];
        let (channels_out, kernel) = (weight[0], weight[2]);
        Convolution { batch, height, width, channels_in, channels_out, kernel, stride, padding, upsample }
    }
}

impl Operation for Conv2d {
    fn output_shape(&self, inputs: &[&[usize]]) -> Vec<usize> {
        let convolution = self.convolution(inputs[0], inputs[1]);
        let [height, width] = convolution.output_size();
        vec![convolution.batch, height, width, convolution.channels_out]
    }

    fn forward(&self, inputs: &[View], output: &mut [f32]) -> Vec<f32> {
        let convolution = self.convolution(inputs[0].shape, inputs[1].shape);
        convolution.forward(inputs[0].values, inputs[1].values, inputs.get(2).map(|bias| bias.values), output);
        Vec::new()
    }

    fn backward(&self, inputs: &[View], _: &[f32], output_gradient: &[f32], gradients: &mut [Option<&mut [f32]>]) {
        let convolution = self.convolution(inputs[0].shape, inputs[1].shape);
        let (x, parameters) = gradients.split_at_mut(1);
        if let Some(x) = &mut x[0] {
            convolution.input_gradient(output_gradient, inputs[1].values, x);
        }
        let (weight, bias) = parameters.split_at_mut(1);
        let bias = bias.first_mut().and_then(Option::as_deref_mut);
        match &mut weight[0] {
            Some(weight) => convolution.weight_gradient(inputs[0].values, output_gradient, weight, bias),
            None if bias.is_some() => {
                let mut unwanted = vec![0.0; inputs[1].values.len()];
                convolution.weight_gradient(inputs[0].values, output_gradient, &mut unwanted, bias);
            }
            None => {}
        }
    }

    fn is_cheap(&self) -> bool {
        false
    }
}

/// The burn operation `x weight^T + bias`: x `[batch, features_in]`, weight `[features_out, features_in]`, bias
/// `[features_out]`. A 1x1 convolution of one image with a row of pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear;

impl Linear {
    /// The same with shapes of images.
    fn with_images<R>(inputs: &[View], function: impl FnOnce(&[View]) -> R) -> R {
        let ([batch, features_in], [features_out, _]) = (inputs[0].shape, inputs[1].shape) else {
            unreachable!("two matrices")
        };
        let (x, weight) = ([1, 1, *batch, *features_in], [*features_out, *features_in, 1, 1]);
        function(&[
            View { shape: &x, values: inputs[0].values },
            View { shape: &weight, values: inputs[1].values },
            inputs[2],
        ])
    }
}

impl Operation for Linear {
    fn output_shape(&self, inputs: &[&[usize]]) -> Vec<usize> {
        vec![inputs[0][0], inputs[1][0]]
    }

    fn forward(&self, inputs: &[View], output: &mut [f32]) -> Vec<f32> {
        Self::with_images(inputs, |inputs| Conv2d(crate::Convolution::same(1)).forward(inputs, output))
    }

    fn backward(&self, inputs: &[View], kept: &[f32], output_gradient: &[f32], gradients: &mut [Option<&mut [f32]>]) {
        let convolution = Conv2d(crate::Convolution::same(1));
        Self::with_images(inputs, |inputs| convolution.backward(inputs, kept, output_gradient, gradients));
    }

    fn is_cheap(&self) -> bool {
        false
    }
}
