//! Convolution as matrix products whose factors are gathered where they lie (implicit GEMM): nothing is copied into columns.
//!
//! With pixel p of the output, tap τ = (ky, kx) and channels i in, o out:
//!
//! ```text
//! y[p, o] = b[o] + Σ_τi x[p at τ, i] w[o, i, τ]       rows p, columns o, sum over τ and i
//! ẋ[p, i] = Σ_τo ẏ[p at -τ, o] w[o, i, τ]             rows p, columns i, sum over τ and o
//! ẇ[o, iτ] = Σ_p ẏ[p, o] x[p at τ, i]    ḃ[o] = Σ_p ẏ[p, o]     rows o, columns i and τ, sum over p
//! ```
//!
//! The bias gradient is a column more of the product for ẇ, with 1 in the place of x.
//!
//! [`algorithm`] chooses who multiplies: `tiled` on any GPU, or `tensor_cores` where the device has them. Launches: one forward;
//! one for ẋ; one for ẇ and ḃ, and one that adds its parts where the sum over p is split.

mod gather;
pub(crate) mod tensor_cores;
mod tiled;

use burn::backend::TensorMetadata;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};

use crate::{
    Convolution,
    cube::launch::{contiguous, reshaped},
    graph::Differentiable,
};

/// Who computes a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    /// Tiles in registers and shared memory: any GPU, any shape.
    Tiled,
    /// The same on tensor cores.
    TensorCores,
}

/// The choice for a convolution: tensor cores that compute in its number format, for channels that can be read in vectors; not
/// linear layers, which are too small. The one place that chooses who convolves.
fn algorithm(x: &CubeTensor, sizes: &Sizes) -> Algorithm {
    let fills_vectors =
        [sizes.channels_in, sizes.channels_out].iter().all(|count| count.is_multiple_of(tensor_cores::CHANNELS));
    let is_image = sizes.output != [1, 1];
    if fills_vectors && is_image && tensor_cores::compute_in(&x.client, x.dtype) {
        Algorithm::TensorCores
    } else {
        Algorithm::Tiled
    }
}

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub batch: usize,
    /// Height and width of x.
    pub input: [usize; 2],
    /// Height and width of y.
    pub output: [usize; 2],
    pub channels_in: usize,
    pub channels_out: usize,
    pub kernel: usize,
    pub options: Convolution,
}

impl Sizes {
    fn new(x: &CubeTensor, weight: &CubeTensor, options: Convolution) -> Self {
        let [batch, height, width, channels_in] = x.shape().dims();
        let [channels_out, _, kernel, _] = weight.shape().dims();
        let size = |size: usize| {
            let size = if options.upsample { 2 * size } else { size };
            (size + 2 * options.padding - kernel) / options.stride + 1
        };
        let output = [size(height), size(width)];
        Self { batch, input: [height, width], output, channels_in, channels_out, kernel, options }
    }

    /// Pixels of y, of all images.
    fn pixels(&self) -> usize {
        self.batch * self.output[0] * self.output[1]
    }

    fn input_shape(&self) -> [usize; 4] {
        [self.batch, self.input[0], self.input[1], self.channels_in]
    }

    fn output_shape(&self) -> [usize; 4] {
        [self.batch, self.output[0], self.output[1], self.channels_out]
    }

    fn weight_shape(&self) -> [usize; 4] {
        [self.channels_out, self.channels_in, self.kernel, self.kernel]
    }
}

/// The burn operation: x `[batch, height, width, channels_in]`, weight `[channels_out, channels_in, kernel, kernel]`, and
/// bias `[channels_out]` where there are three inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conv2d(pub Convolution);

/// [`Conv2d`] plus an image: x, weight, bias, and the image, of the shape of the result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conv2dAdd(pub Convolution);

impl Conv2d {
    /// y, and the weights as tensor cores read them, if they were used.
    fn apply(
        self,
        x: CubeTensor,
        weight: CubeTensor,
        bias: Option<CubeTensor>,
        residual: Option<CubeTensor>,
    ) -> (CubeTensor, Vec<CubeTensor>) {
        let (x, weight, bias) = (contiguous(x), contiguous(weight), bias.map(contiguous));
        let sizes = Sizes::new(&x, &weight, self.0);
        let residual = residual.map(contiguous);
        match algorithm(&x, &sizes) {
            Algorithm::TensorCores => {
                let weight = tensor_cores::channels_last(&weight);
                (tensor_cores::forward(&sizes, &x, &weight, bias.as_ref(), residual.as_ref()), vec![weight])
            }
            Algorithm::Tiled => (tiled::forward(&sizes, &x, &weight, bias.as_ref(), residual.as_ref()), Vec::new()),
        }
    }
}

impl Differentiable<CubeBackend> for Conv2dAdd {
    fn forward(&self, inputs: Vec<CubeTensor>) -> (CubeTensor, Vec<CubeTensor>) {
        let Ok([x, weight, bias, residual]) = <[CubeTensor; 4]>::try_from(inputs) else { unreachable!("four inputs") };
        Conv2d(self.0).apply(x, weight, Some(bias), Some(residual))
    }

    fn backward(
        &self,
        inputs: Vec<CubeTensor>,
        saved: Vec<CubeTensor>,
        y_gradient: CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let inputs = inputs.into_iter().take(3).collect();
        let mut gradients = Conv2d(self.0).backward(inputs, saved, y_gradient.clone(), &wanted[..3]);
        gradients.push(wanted[3].then_some(y_gradient));
        gradients
    }

    fn is_cheap(&self) -> bool {
        false
    }
}

impl Differentiable<CubeBackend> for Conv2d {
    fn forward(&self, inputs: Vec<CubeTensor>) -> (CubeTensor, Vec<CubeTensor>) {
        let mut inputs = inputs.into_iter();
        let (Some(x), Some(weight)) = (inputs.next(), inputs.next()) else { unreachable!("two inputs at least") };
        self.apply(x, weight, inputs.next(), None)
    }

    fn backward(
        &self,
        inputs: Vec<CubeTensor>,
        saved: Vec<CubeTensor>,
        y_gradient: CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let (x, weight, y_gradient) = (contiguous(inputs[0].clone()), &inputs[1], contiguous(y_gradient));
        let sizes = Sizes::new(&x, weight, self.0);
        let with_bias = inputs.len() > 2;
        let x_gradient = wanted[0].then(|| match saved.first() {
            Some(weight) if !tensor_cores::is_of_patches(&sizes) => {
                tensor_cores::input_gradient(&sizes, weight, &y_gradient)
            }
            _ => tiled::input_gradient(&sizes, &contiguous(weight.clone()), &y_gradient),
        });
        let (weight_gradient, bias_gradient) = match algorithm(&x, &sizes) {
            _ if !wanted[1..].contains(&true) => (None, None),
            Algorithm::TensorCores => tensor_cores::weight_gradient(&sizes, &x, &y_gradient, with_bias),
            Algorithm::Tiled => tiled::weight_gradient(&sizes, &x, &y_gradient, with_bias),
        };
        [x_gradient, weight_gradient, bias_gradient].into_iter().take(inputs.len()).collect()
    }

    fn is_cheap(&self) -> bool {
        false
    }
}

/// The burn operation: x `[batch, features_in]`, weight `[features_out, features_in]`, bias `[features_out]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear;

impl Linear {
    const CONVOLUTION: Conv2d = Conv2d(Convolution::same(1));

    /// The inputs of a convolution of one pixel for each sample.
    fn as_convolution(inputs: Vec<CubeTensor>) -> Vec<CubeTensor> {
        let mut inputs: Vec<CubeTensor> = inputs.into_iter().map(contiguous).collect();
        let ([batch, features_in], [features_out, _]) = (inputs[0].shape().dims(), inputs[1].shape().dims());
        inputs[0] = reshaped(inputs[0].clone(), [batch, 1, 1, features_in]);
        inputs[1] = reshaped(inputs[1].clone(), [features_out, features_in, 1, 1]);
        inputs
    }
}

impl Differentiable<CubeBackend> for Linear {
    fn forward(&self, inputs: Vec<CubeTensor>) -> (CubeTensor, Vec<CubeTensor>) {
        let (y, saved) = Self::CONVOLUTION.forward(Self::as_convolution(inputs));
        let [batch, _, _, features] = y.shape().dims();
        (reshaped(y, [batch, features]), saved)
    }

    fn backward(
        &self,
        inputs: Vec<CubeTensor>,
        saved: Vec<CubeTensor>,
        y_gradient: CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let shapes: Vec<_> = inputs.iter().map(|input| input.shape()).collect();
        let [batch, features] = y_gradient.shape().dims();
        let y_gradient = reshaped(contiguous(y_gradient), [batch, 1, 1, features]);
        let gradients = Self::CONVOLUTION.backward(Self::as_convolution(inputs), saved, y_gradient, wanted);
        gradients
            .into_iter()
            .zip(shapes)
            .map(|(gradient, shape)| gradient.map(|gradient| reshaped(gradient, shape)))
            .collect()
    }

    fn is_cheap(&self) -> bool {
        false
    }
}
