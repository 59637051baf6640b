//! Two-dimensional convolution of channels-last images, with its gradients.
//!
//! # Mathematics
//! `y[n, i, j, o] = bias[o] + Σ_{u, v, c} x[n, s i + u - p, s j + v - p, c] w[o, c, u, v]` with stride `s`, padding `p`
//! and zeros outside the image. With `dy` the gradient of `y`, the chain rule gives
//!
//! - `dx[n, a, b, c] = Σ dy[n, i, j, o] w[o, c, u, v]` over all `s i + u - p = a`, `s j + v - p = b`,
//! - `dw[o, c, u, v] = Σ_{n, i, j} dy[n, i, j, o] x[n, s i + u - p, s j + v - p, c]`,
//! - `dbias[o] = Σ_{n, i, j} dy[n, i, j, o]`.
//!
//! # Layout
//! `x` is `[batch, height, width, channels_in]`, `y` `[batch, height_out, width_out, channels_out]`, and `w` as PyTorch
//! has it, `[channels_out, channels_in, kernel, kernel]`.
//!
//! # Algorithms
//! Winograd's minimal filtering (`winograd`) needs a quarter of the multiplications of a 3x3 convolution; patches times
//! weights (`im2col`) serves every shape. [`Convolution::algorithm`] takes the one with the least estimated time. All
//! results are the same bit for bit for any number of threads.

mod im2col;
mod product;
mod vectors;
mod winograd;

use crate::cpu::operation::{Operation, View};
use winograd::{F2, F4, Pass, WeightGradient};

/// The shape of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
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
    /// Step between neighboring output pixels.
    pub stride: usize,
    /// Zeros around the (upsampled) image.
    pub padding: usize,
    /// Whether the input is upsampled by 2 (nearest neighbor) before the convolution. The larger image is never
    /// stored.
    pub upsample: bool,
}

/// An algorithm of convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Patches times weights, for every shape.
    Im2col,
    /// F(2x2, 3x3), for kernel 3, stride 1, padding 1.
    Winograd2,
    /// F(4x4, 3x3), for the same shapes.
    Winograd4,
}

/// A pass of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The output.
    Forward,
    /// The gradient of the input.
    InputGradient,
    /// The gradient of the weights and the bias.
    WeightGradient,
}

impl Convolution {
    /// Height and width of the output.
    pub fn output_size(&self) -> [usize; 2] {
        self.size().map(|n| (n + 2 * self.padding + self.stride - self.kernel) / self.stride)
    }

    /// The output.
    pub fn forward(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        self.forward_by(self.algorithm(Direction::Forward), x, weight, bias, y);
    }

    /// The gradient of the input.
    pub fn input_gradient(&self, y_gradient: &[f32], weight: &[f32], x_gradient: &mut [f32]) {
        self.input_gradient_by(self.algorithm(Direction::InputGradient), y_gradient, weight, x_gradient);
    }

    /// The gradient of the weights and, if wanted, of the bias.
    pub fn weight_gradient(
        &self,
        x: &[f32],
        y_gradient: &[f32],
        weight_gradient: &mut [f32],
        bias_gradient: Option<&mut [f32]>,
    ) {
        let algorithm = self.algorithm(Direction::WeightGradient);
        self.weight_gradient_by(algorithm, x, y_gradient, weight_gradient, bias_gradient);
    }

    /// The algorithm with the least estimated time.
    ///
    /// The unit of time is one multiply-add of a matrix product. The other constants are fitted to measurements on one core
    /// of a Zen 4: the transforms of a tile's or the gathering of a patch's channels, and the reordering and transforms of a
    /// weight, most of which is reading it from memory.
    pub fn algorithm(&self, direction: Direction) -> Algorithm {
        if !self.has_winograd() {
            return Algorithm::Im2col;
        }
        let [height, width] = self.output_size();
        let [channels_in, channels_out] = [self.channels_in, self.channels_out].map(|n| n.next_multiple_of(16));
        let weights = channels_in * channels_out;
        let per_weight = |forward, gradient| if direction == Direction::WeightGradient { gradient } else { forward };
        let winograd = |side: usize, per_channel: usize, per_weight: usize| {
            let tiles = self.batch * height.div_ceil(side) * width.div_ceil(side);
            let points = side + 2 - usize::from(self.upsample);
            let products = tiles * points * points * self.channels_in * channels_out;
            products + tiles * (channels_in + channels_out) * per_channel + weights * per_weight
        };
        let rows = self.batch * height * width;
        let patch = 9 * self.channels_in;
        let im2col = rows * (patch * (channels_out + 5) + 1600) + weights * per_weight(390, 400);
        let times = [
            (winograd(4, 370, per_weight(420, 640)), Algorithm::Winograd4),
            (winograd(2, 110, per_weight(390, 430)), Algorithm::Winograd2),
            (im2col, Algorithm::Im2col),
        ];
        times.into_iter().min_by_key(|time| time.0).map_or(Algorithm::Im2col, |best| best.1)
    }

    /// The output by a given algorithm.
    pub fn forward_by(&self, algorithm: Algorithm, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        self.check(algorithm, x.len(), weight.len(), bias.map(<[f32]>::len), y.len());
        match algorithm {
            Algorithm::Im2col => im2col::forward(self, x, weight, bias, y),
            Algorithm::Winograd2 => Pass::<F2, 2, 4>::forward(self, x, weight, bias).run(y),
            Algorithm::Winograd4 => Pass::<F4, 4, 6>::forward(self, x, weight, bias).run(y),
        }
    }

    /// The gradient of the input by a given algorithm.
    pub fn input_gradient_by(&self, algorithm: Algorithm, y_gradient: &[f32], weight: &[f32], x_gradient: &mut [f32]) {
        self.check(algorithm, x_gradient.len(), weight.len(), None, y_gradient.len());
        match algorithm {
            Algorithm::Im2col => im2col::input_gradient(self, y_gradient, weight, x_gradient),
            Algorithm::Winograd2 => Pass::<F2, 2, 4>::input_gradient(self, y_gradient, weight).run(x_gradient),
            Algorithm::Winograd4 => Pass::<F4, 4, 6>::input_gradient(self, y_gradient, weight).run(x_gradient),
        }
    }

    /// The gradient of the weights and, if wanted, of the bias by a given algorithm.
    pub fn weight_gradient_by(
        &self,
        algorithm: Algorithm,
        x: &[f32],
        y_gradient: &[f32],
        weight: &mut [f32],
        bias: Option<&mut [f32]>,
    ) {
        self.check(algorithm, x.len(), weight.len(), bias.as_ref().map(|bias| bias.len()), y_gradient.len());
        match algorithm {
            Algorithm::Im2col => im2col::weight_gradient(self, x, y_gradient, weight, bias),
            Algorithm::Winograd2 => WeightGradient::<F2, 2, 4>::new(self, x, y_gradient).run(weight, bias),
            Algorithm::Winograd4 => WeightGradient::<F4, 4, 6>::new(self, x, y_gradient).run(weight, bias),
        }
    }

    /// Whether Winograd's algorithms apply.
    fn has_winograd(&self) -> bool {
        [self.kernel, self.stride, self.padding] == [3, 1, 1]
    }

    /// Height and width of the input after the upsampling.
    fn size(&self) -> [usize; 2] {
        [self.height, self.width].map(|n| n << usize::from(self.upsample))
    }

    /// Panics unless the shape makes sense and all lengths agree with it.
    fn check(&self, algorithm: Algorithm, x: usize, weight: usize, bias: Option<usize>, y: usize) {
        let Self { batch, height, width, channels_in, channels_out, kernel, stride, padding, .. } = *self;
        let counts = [batch, height, width, channels_in, channels_out, kernel, stride];
        assert!(counts.iter().all(|&count| count > 0), "no dimension may be 0: {self:?}");
        let fits = self.size().iter().all(|n| n + 2 * padding >= kernel);
        assert!(fits, "the kernel is larger than the image in {self:?}");
        let applies = algorithm == Algorithm::Im2col || self.has_winograd();
        assert!(applies, "{algorithm:?} needs kernel 3, stride 1, padding 1, not {self:?}");
        let [height_out, width_out] = self.output_size();
        assert_eq!(x, batch * height * width * channels_in, "length of the input of {self:?}");
        assert_eq!(weight, channels_out * channels_in * kernel * kernel, "length of the weights of {self:?}");
        assert_eq!(bias.unwrap_or(channels_out), channels_out, "length of the bias of {self:?}");
        assert_eq!(y, batch * height_out * width_out * channels_out, "length of the output of {self:?}");
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
    /// Runs `function` on the inputs with the shapes of images.
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

    fn backward(&self, inputs: &[View], saved: &[f32], output_gradient: &[f32], gradients: &mut [Option<&mut [f32]>]) {
        let convolution = Conv2d(crate::Convolution::same(1));
        Self::with_images(inputs, |inputs| convolution.backward(inputs, saved, output_gradient, gradients));
    }

    fn is_cheap(&self) -> bool {
        false
    }
}
