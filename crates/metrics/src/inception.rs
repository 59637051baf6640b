//! The features of published Fréchet distances: those of TensorFlow's Inception v3 of 2015, as pytorch-fid has it.

use std::{collections::HashMap, path::Path};

use burn::tensor::{
    Device, Tensor, TensorData,
    activation::relu,
    module::{avg_pool2d, conv2d, max_pool2d},
    ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions},
};
use safetensors::{Dtype, SafeTensors};

use crate::error::{MetricsError, rows};

/// Number of features of an image.
pub const INCEPTION_FEATURES: usize = 2048;

/// Images are stretched to this side.
const SIDE: usize = 299;
/// Added to the variance of a batch norm.
const EPSILON: f32 = 1e-3;
/// Images that go through the network at a time.
const AT_A_TIME: usize = 16;

/// A convolution into which the batch norm behind it is folded, then ReLU.
#[derive(Clone, Debug)]
struct BasicConvolution {
    /// `[out, in, height, width]`
    weight: Tensor<4>,
    /// `[out]`
    bias: Tensor<1>,
}

/// Inception v3 (Szegedy et al. 2015, arXiv:1512.00567) up to its last pooling, with the differences of TensorFlow's network:
/// average pooling leaves out the border, and the last block pools the maximum. The user supplies the weights, pytorch-fid's
/// `pt_inception-2015-12-05`, saved as safetensors under its names.
#[derive(Clone, Debug)]
pub struct Inception {
    convolutions: HashMap<String, BasicConvolution>,
    device: Device,
}

impl Inception {
    /// Reads the weights.
    ///
    /// # Errors
    /// [`MetricsError::Weights`] names the file and its fault.
    pub fn load(path: &Path, device: &Device) -> Result<Self, MetricsError> {
        let refuse = |reason: String| MetricsError::Weights { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| {
            refuse(format!("it is no safetensors file ({error}); save pytorch-fid's state dict with safetensors.torch"))
        })?;
        let read = |name: &str, shape: &[usize]| -> Result<Vec<f32>, MetricsError> {
            let tensor = file.tensor(name).map_err(|_| refuse(format!("the tensor `{name}` is missing")))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
                let (found, kind) = (tensor.shape(), tensor.dtype());
                return Err(refuse(format!("`{name}` is {found:?} of {kind:?}, not {shape:?} of F32")));
            }
            let values: Vec<f32> =
                tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            if values.iter().any(|value| !value.is_finite()) {
                return Err(refuse(format!("`{name}` holds values that are not finite")));
            }
            Ok(values)
        };
        let mut convolutions = HashMap::new();
        for (name, shape) in convolutions_of_the_network() {
            let [out, from, height, width] = shape;
            let mut weight = read(&format!("{name}.conv.weight"), &shape)?;
            let norm = |part: &str| read(&format!("{name}.bn.{part}"), &[out]);
            let (gain, offset, mean, variance) =
                (norm("weight")?, norm("bias")?, norm("running_mean")?, norm("running_var")?);
            let mut bias = Vec::with_capacity(out);
            for (channel, kernel) in weight.chunks_exact_mut(from * height * width).enumerate() {
                let scale = gain[channel] / (variance[channel] + EPSILON).sqrt();
                kernel.iter_mut().for_each(|value| *value *= scale);
                bias.push(offset[channel] - mean[channel] * scale);
            }
            let weight = Tensor::from_data(TensorData::new(weight, shape), device);
            let bias = Tensor::from_data(TensorData::new(bias, [out]), device);
            convolutions.insert(name, BasicConvolution { weight, bias });
        }
        Ok(Self { convolutions, device: device.clone() })
    }

    /// The features of images, `[count, 2048]` row-major: stretched to 299x299 (bilinear, as PyTorch's `interpolate` with
    /// `align_corners = False`, without a low-pass), gray ones with three equal channels.
    ///
    /// # Shapes
    /// - `pixels`: `[count, channels, height, width]` in [-1, 1], row-major, with 1 or 3 channels
    ///
    /// # Errors
    /// [`MetricsError`] if `pixels` is no whole number of such images, holds a value that is not finite, or has another number
    /// of channels.
    pub fn features(&self, pixels: &[f32], image: [usize; 3]) -> Result<Vec<f32>, MetricsError> {
        let [channels, height, width] = image;
        if !matches!(channels, 1 | 3) {
            return Err(MetricsError::Channels { channels });
        }
        let length = channels * height * width;
        let count = rows("pixels for Inception", pixels, length, 0)?;
        let mut features = Vec::with_capacity(count * INCEPTION_FEATURES);
        for part in pixels.chunks(AT_A_TIME * length) {
            let mut stretched = Vec::with_capacity(part.len() / length * 3 * SIDE * SIDE);
            for image in part.chunks_exact(length) {
                for channel in 0..3 {
                    let plane = if channels == 3 { channel } else { 0 };
                    stretch(&image[plane * height * width..][..height * width], [height, width], &mut stretched);
                }
            }
            let shape = [part.len() / length, 3, SIDE, SIDE];
            let x = Tensor::from_data(TensorData::new(stretched, shape), &self.device);
            features.extend(self.forward(x).into_data().iter::<f32>());
        }
        Ok(features)
    }

    /// `[batch, 3, 299, 299]` to `[batch, 2048]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.convolve(x, "Conv2d_1a_3x3", 2, [0, 0]);
        let x = self.convolve(x, "Conv2d_2a_3x3", 1, [0, 0]);
        let x = largest(self.convolve(x, "Conv2d_2b_3x3", 1, [1, 1]), 2, 0);
        let x = self.convolve(x, "Conv2d_3b_1x1", 1, [0, 0]);
        let x = largest(self.convolve(x, "Conv2d_4a_3x3", 1, [0, 0]), 2, 0);
        let x = ["Mixed_5b", "Mixed_5c", "Mixed_5d"].into_iter().fold(x, |x, name| self.block_a(x, name));
        let x = self.block_b(x, "Mixed_6a");
        let x = ["Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"].into_iter().fold(x, |x, name| self.block_c(x, name));
        let x = self.block_d(x, "Mixed_7a");
        let x = self.block_e(x, "Mixed_7b", mean);
        let x = self.block_e(x, "Mixed_7c", |x| largest(x, 1, 1));
        let [batch, channels, _, _] = x.dims();
        x.reshape([batch as i32, channels as i32, -1]).mean_dim(2).squeeze_dim::<2>(2)
    }

    fn convolve(&self, x: Tensor<4>, name: &str, stride: usize, padding: [usize; 2]) -> Tensor<4> {
        // `load` reads every name of the network
        let BasicConvolution { weight, bias } = &self.convolutions[name];
        let options = ConvOptions::new([stride; 2], padding, [1, 1], 1);
        relu(conv2d(x, weight.clone(), Some(bias.clone()), options))
    }

    /// A chain of convolutions of stride 1 with the padding that keeps the size.
    fn chain(&self, x: &Tensor<4>, block: &str, names: &[&str]) -> Tensor<4> {
        names.iter().fold(x.clone(), |x, name| {
            let name = format!("{block}.{name}");
            let [_, _, height, width] = self.convolutions[&name].weight.dims();
            self.convolve(x, &name, 1, [height / 2, width / 2])
        })
    }

    fn block_a(&self, x: Tensor<4>, block: &str) -> Tensor<4> {
        let pooled = self.chain(&mean(x.clone()), block, &["branch_pool"]);
        let branches = [
            &["branch1x1"][..],
            &["branch5x5_1", "branch5x5_2"],
            &["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"],
        ];
        self.branches(x, block, &branches, pooled)
    }

    fn block_b(&self, x: Tensor<4>, block: &str) -> Tensor<4> {
        let halved = |x, name: &str| self.convolve(x, &format!("{block}.{name}"), 2, [0, 0]);
        let double = self.chain(&x, block, &["branch3x3dbl_1", "branch3x3dbl_2"]);
        let (single, double) = (halved(x.clone(), "branch3x3"), halved(double, "branch3x3dbl_3"));
        Tensor::cat(vec![single, double, largest(x, 2, 0)], 1)
    }

    fn block_c(&self, x: Tensor<4>, block: &str) -> Tensor<4> {
        let pooled = self.chain(&mean(x.clone()), block, &["branch_pool"]);
        let branches = [
            &["branch1x1"][..],
            &["branch7x7_1", "branch7x7_2", "branch7x7_3"],
            &["branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"],
        ];
        self.branches(x, block, &branches, pooled)
    }

    fn block_d(&self, x: Tensor<4>, block: &str) -> Tensor<4> {
        let halved = |x, name: &str| self.convolve(x, &format!("{block}.{name}"), 2, [0, 0]);
        let single = halved(self.chain(&x, block, &["branch3x3_1"]), "branch3x3_2");
        let seven = self.chain(&x, block, &["branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3"]);
        Tensor::cat(vec![single, halved(seven, "branch7x7x3_4"), largest(x, 2, 0)], 1)
    }

    fn block_e(&self, x: Tensor<4>, block: &str, pool: impl Fn(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
        let single = self.chain(&x, block, &["branch3x3_1"]);
        let double = self.chain(&x, block, &["branch3x3dbl_1", "branch3x3dbl_2"]);
        let all = [
            self.chain(&x, block, &["branch1x1"]),
            self.chain(&single, block, &["branch3x3_2a"]),
            self.chain(&single, block, &["branch3x3_2b"]),
            self.chain(&double, block, &["branch3x3dbl_3a"]),
            self.chain(&double, block, &["branch3x3dbl_3b"]),
            self.chain(&pool(x), block, &["branch_pool"]),
        ];
        Tensor::cat(all.to_vec(), 1)
    }

    fn branches(&self, x: Tensor<4>, block: &str, branches: &[&[&str]], pooled: Tensor<4>) -> Tensor<4> {
        let mut all: Vec<Tensor<4>> = branches.iter().map(|names| self.chain(&x, block, names)).collect();
        all.push(pooled);
        Tensor::cat(all, 1)
    }
}

/// The mean of 3x3 neighbors; the border has fewer.
fn mean(x: Tensor<4>) -> Tensor<4> {
    avg_pool2d(x, AvgPoolOptions::new([3, 3]).with_stride([1, 1]).with_padding([1, 1]).with_count_include_pad(false))
}

/// The largest of 3x3 neighbors.
fn largest(x: Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    max_pool2d(x, MaxPoolOptions::new([3, 3]).with_stride([stride; 2]).with_padding([padding; 2]))
}

/// Appends a plane `[height, width]` stretched to 299x299 by bilinear interpolation between the centers of pixels (PyTorch's
/// `align_corners = False`).
fn stretch(plane: &[f32], [height, width]: [usize; 2], out: &mut Vec<f32>) {
    let places = |side: usize| -> Vec<(usize, usize, f32)> {
        let place = |to: usize| {
            let from = ((to as f32 + 0.5) * (side as f32 / SIDE as f32) - 0.5).max(0.0);
            let low = (from as usize).min(side - 1);
            (low, (low + 1).min(side - 1), from - low as f32)
        };
        (0..SIDE).map(place).collect()
    };
    let columns = places(width);
    for (above, below, down) in places(height) {
        let (above, below) = (&plane[above * width..(above + 1) * width], &plane[below * width..(below + 1) * width]);
        for (left, right, along) in &columns {
            let mix = |row: &[f32]| row[*left] * (1.0 - along) + row[*right] * along;
            out.push(mix(above) * (1.0 - down) + mix(below) * down);
        }
    }
}

/// Every convolution of the network with the shape of its weight, `[out, in, height, width]`.
fn convolutions_of_the_network() -> Vec<(String, [usize; 4])> {
    let mut all = Vec::new();
    let mut add = |name: &str, shape: [usize; 4]| all.push((name.to_owned(), shape));
    add("Conv2d_1a_3x3", [32, 3, 3, 3]);
    add("Conv2d_2a_3x3", [32, 32, 3, 3]);
    add("Conv2d_2b_3x3", [64, 32, 3, 3]);
    add("Conv2d_3b_1x1", [80, 64, 1, 1]);
    add("Conv2d_4a_3x3", [192, 80, 3, 3]);
    let mut block = |block: &str, convolutions: &[(&str, [usize; 4])]| {
        convolutions.iter().for_each(|(name, shape)| all.push((format!("{block}.{name}"), *shape)));
    };
    for (name, from, pooled) in [("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)] {
        block(
            name,
            &[
                ("branch1x1", [64, from, 1, 1]),
                ("branch5x5_1", [48, from, 1, 1]),
                ("branch5x5_2", [64, 48, 5, 5]),
                ("branch3x3dbl_1", [64, from, 1, 1]),
                ("branch3x3dbl_2", [96, 64, 3, 3]),
                ("branch3x3dbl_3", [96, 96, 3, 3]),
                ("branch_pool", [pooled, from, 1, 1]),
            ],
        );
    }
    block(
        "Mixed_6a",
        &[
            ("branch3x3", [384, 288, 3, 3]),
            ("branch3x3dbl_1", [64, 288, 1, 1]),
            ("branch3x3dbl_2", [96, 64, 3, 3]),
            ("branch3x3dbl_3", [96, 96, 3, 3]),
        ],
    );
    for (name, inner) in [("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)] {
        block(
            name,
            &[
                ("branch1x1", [192, 768, 1, 1]),
                ("branch7x7_1", [inner, 768, 1, 1]),
                ("branch7x7_2", [inner, inner, 1, 7]),
                ("branch7x7_3", [192, inner, 7, 1]),
                ("branch7x7dbl_1", [inner, 768, 1, 1]),
                ("branch7x7dbl_2", [inner, inner, 7, 1]),
                ("branch7x7dbl_3", [inner, inner, 1, 7]),
                ("branch7x7dbl_4", [inner, inner, 7, 1]),
                ("branch7x7dbl_5", [192, inner, 1, 7]),
                ("branch_pool", [192, 768, 1, 1]),
            ],
        );
    }
    block(
        "Mixed_7a",
        &[
            ("branch3x3_1", [192, 768, 1, 1]),
            ("branch3x3_2", [320, 192, 3, 3]),
            ("branch7x7x3_1", [192, 768, 1, 1]),
            ("branch7x7x3_2", [192, 192, 1, 7]),
            ("branch7x7x3_3", [192, 192, 7, 1]),
            ("branch7x7x3_4", [192, 192, 3, 3]),
        ],
    );
    for (name, from) in [("Mixed_7b", 1280), ("Mixed_7c", 2048)] {
        block(
            name,
            &[
                ("branch1x1", [320, from, 1, 1]),
                ("branch3x3_1", [384, from, 1, 1]),
                ("branch3x3_2a", [384, 384, 1, 3]),
                ("branch3x3_2b", [384, 384, 3, 1]),
                ("branch3x3dbl_1", [448, from, 1, 1]),
                ("branch3x3dbl_2", [384, 448, 3, 3]),
                ("branch3x3dbl_3a", [384, 384, 1, 3]),
                ("branch3x3dbl_3b", [384, 384, 3, 1]),
                ("branch_pool", [192, from, 1, 1]),
            ],
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretching_keeps_means_and_ends() {
        let mut out = Vec::new();
        stretch(&[0.0, 1.0], [1, 2], &mut out);
        assert_eq!(out.len(), SIDE * SIDE);
        // constant beyond the centers of the outer pixels, a line between
        assert_eq!((out[0], out[SIDE / 4 - 1], out[SIDE - 1]), (0.0, 0.0, 1.0));
        assert!((out[SIDE / 2] - 0.5).abs() < 1e-6);
        assert!((out.iter().sum::<f32>() / out.len() as f32 - 0.5).abs() < 1e-4);
    }
}
