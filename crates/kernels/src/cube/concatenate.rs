//! Concatenation of the channels of two images; its backward pass splits the gradient.
//!
//! ```text
//! y[p, :] = a[p, :] ++ b[p, :]    backward: ȧ[p, :] ++ ḃ[p, :] = ẏ[p, :]
//! ```
//!
//! Launches: one forward; one backward, which writes both gradients.

use burn::backend::TensorMetadata;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::{ir::ElemType, prelude::*};

use crate::{
    cube::launch::{all_contiguous, argument, contiguous, cubes, element, empty, empty_like},
    graph::Differentiable,
};

/// Units of a cube.
const UNITS: usize = 256;
/// Elements of a unit, so that it has several loads under way.
const PER_UNIT: usize = 4;

#[cube(launch_unchecked)]
fn concatenate_channels<E: Float>(
    first: &[E],
    second: &[E],
    joined: &mut [E],
    length: usize,
    first_channels: usize,
    second_channels: usize,
    #[define(E)] _dtype: ElemType,
) {
    let channels = first_channels + second_channels;
    let start = CUBE_POS * comptime!(UNITS * PER_UNIT) + UNIT_POS as usize;
    #[unroll]
    for round in 0..PER_UNIT {
        let index = start + round * UNITS;
        if index < length {
            let pixel = index / channels;
            let channel = index - pixel * channels;
            if channel < first_channels {
                joined[index] = first[pixel * first_channels + channel];
            } else {
                joined[index] = second[pixel * second_channels + channel - first_channels];
            }
        }
    }
}

#[cube(launch_unchecked)]
fn split_channels<E: Float>(
    joined: &[E],
    first: &mut [E],
    second: &mut [E],
    length: usize,
    first_channels: usize,
    second_channels: usize,
    #[define(E)] _dtype: ElemType,
) {
    let channels = first_channels + second_channels;
    let start = CUBE_POS * comptime!(UNITS * PER_UNIT) + UNIT_POS as usize;
    #[unroll]
    for round in 0..PER_UNIT {
        let index = start + round * UNITS;
        if index < length {
            let pixel = index / channels;
            let channel = index - pixel * channels;
            if channel < first_channels {
                first[pixel * first_channels + channel] = joined[index];
            } else {
                second[pixel * second_channels + channel - first_channels] = joined[index];
            }
        }
    }
}

/// The burn operation that concatenates the channels of two images, `[batch, height, width, channels]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Concatenate;

impl Differentiable<CubeBackend> for Concatenate {
    fn forward(&self, inputs: Vec<CubeTensor>) -> (CubeTensor, Vec<CubeTensor>) {
        let inputs = all_contiguous(inputs);
        let (first, second) = (&inputs[0], &inputs[1]);
        let ([batch, height, width, first_channels], [.., second_channels]) =
            (first.shape().dims(), second.shape().dims::<4>());
        let joined = empty(first, [batch, height, width, first_channels + second_channels], first.dtype);
        let length = joined.shape().num_elements();
        unsafe {
            concatenate_channels::launch_unchecked(
                &first.client,
                cubes(length.div_ceil(UNITS * PER_UNIT)),
                CubeDim::new_1d(UNITS as u32),
                argument(first),
                argument(second),
                argument(&joined),
                length,
                first_channels,
                second_channels,
                element(first.dtype),
            );
        }
        (joined, Vec::new())
    }

    fn backward(
        &self,
        inputs: Vec<CubeTensor>,
        _: Vec<CubeTensor>,
        joined: CubeTensor,
        _: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let joined = contiguous(joined);
        let ([.., first_channels], [.., second_channels]) =
            (inputs[0].shape().dims::<4>(), inputs[1].shape().dims::<4>());
        let (first, second) = (empty_like(&inputs[0]), empty_like(&inputs[1]));
        let length = joined.shape().num_elements();
        unsafe {
            split_channels::launch_unchecked(
                &joined.client,
                cubes(length.div_ceil(UNITS * PER_UNIT)),
                CubeDim::new_1d(UNITS as u32),
                argument(&joined),
                argument(&first),
                argument(&second),
                length,
                first_channels,
                second_channels,
                element(joined.dtype),
            );
        }
        vec![Some(first), Some(second)]
    }
}
