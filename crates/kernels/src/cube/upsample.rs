//! Nearest-neighbor upsampling by 2, for convolutions that do not read the smaller image themselves.
//!
//! ```text
//! y[2 r + a, 2 c + b] = x[r, c]    ẋ[r, c] = Σ_ab ẏ[2 r + a, 2 c + b]        a, b in {0, 1}
//! ```
//!
//! One launch each way; a unit has one element of the larger or of the smaller image.

use burn::backend::TensorMetadata;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{ir::ElemType, prelude::*};

use crate::cube::launch::{argument, cubes, element, empty};

/// Units of a cube.
const UNITS: usize = 256;

#[cube(launch_unchecked)]
fn upsample_pixels<E: Float>(
    x: &[E],
    y: &mut [E],
    length: usize,
    width: usize,
    channels: usize,
    #[define(E)] _dtype: ElemType,
) {
    let index = CUBE_POS * UNITS + UNIT_POS as usize;
    if index < length {
        let channel = index % channels;
        let column = index / channels % (2 * width);
        // of all images together: two rows of y for each of x
        let row = index / channels / (2 * width);
        y[index] = x[(row / 2 * width + column / 2) * channels + channel];
    }
}

#[cube(launch_unchecked)]
fn sum_squares<E: Float>(
    y_gradient: &[E],
    x_gradient: &mut [E],
    length: usize,
    width: usize,
    channels: usize,
    #[define(E)] _dtype: ElemType,
) {
    let index = CUBE_POS * UNITS + UNIT_POS as usize;
    if index < length {
        let channel = index % channels;
        let column = index / channels % width;
        let row = index / channels / width;
        let mut sum = 0.0f32;
        for pixel in 0..4usize {
            let place = (2 * row + pixel / 2) * 2 * width + 2 * column + pixel % 2;
            sum += f32::cast_from(y_gradient[place * channels + channel]);
        }
        x_gradient[index] = E::cast_from(sum);
    }
}

/// y, `[batch, 2 height, 2 width, channels]`, from x, `[batch, height, width, channels]`, contiguous.
pub(crate) fn upsample(x: &CubeTensor) -> CubeTensor {
    let [batch, height, width, channels] = x.shape().dims();
    let y = empty(x, [batch, 2 * height, 2 * width, channels], x.dtype);
    let length = 4 * batch * height * width * channels;
    unsafe {
        upsample_pixels::launch_unchecked(
            &x.client,
            cubes(length.div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            argument(x),
            argument(&y),
            length,
            width,
            channels,
            element(x.dtype),
        );
    }
    y
}

/// ẋ, `[batch, height, width, channels]`, from ẏ, `[batch, 2 height, 2 width, channels]`, contiguous.
pub(crate) fn upsample_gradient(y_gradient: &CubeTensor) -> CubeTensor {
    let [batch, height, width, channels] = y_gradient.shape().dims();
    let (height, width) = (height / 2, width / 2);
    let x_gradient = empty(y_gradient, [batch, height, width, channels], y_gradient.dtype);
    let length = batch * height * width * channels;
    unsafe {
        sum_squares::launch_unchecked(
            &y_gradient.client,
            cubes(length.div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            argument(y_gradient),
            argument(&x_gradient),
            length,
            width,
            channels,
            element(y_gradient.dtype),
        );
    }
    x_gradient
}
