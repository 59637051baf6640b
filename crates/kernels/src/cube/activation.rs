//! Activations: SiLU (Elfwing et al. 2017, arXiv:1702.03118) and GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415) in its
//! exact form.
//!
//! ```text
//! silu(x) = x σ(x)    silu'(x) = σ (1 + x (1 - σ))    σ(x) = 1 / (1 + e^-x)
//! gelu(x) = x Φ(x)    gelu'(x) = Φ + x φ(x)           φ(x) = e^(-x²/2) / √(2π)
//! ```
//!
//! Φ is that of the native operation: `Φ(-t) = e^(-t²/2) R(t)`, t >= 0, with R from a polynomial in `1 / (1 + 0.3 t)` whose
//! least relative error on 0 ..= 14 is 1.6e-7. CubeCL's `erf` has an absolute error of that size, which leaves the left tail
//! of GELU no digits.
//!
//! Launches: one forward; one backward, which recomputes all from the input.

use burn::backend::TensorMetadata;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::{ir::ElemType, prelude::*};

use crate::{
    cube::launch::{all_contiguous, argument, contiguous, cubes, element, empty_like},
    graph::Differentiable,
};

/// Units of a cube.
const UNITS: usize = 256;
/// Elements of a unit, so that it has several loads under way.
const PER_UNIT: usize = 4;

/// The burn operation: x of any shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Activation {
    /// `x σ(x)`, also called swish.
    Silu,
    /// `x Φ(x)` with the normal distribution function itself, not its approximation by tanh.
    Gelu,
}

/// `x sigmoid(x)`.
#[cube]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

/// The derivative of [`silu`].
#[cube]
pub(crate) fn silu_derivative(x: f32) -> f32 {
    let sigmoid = 1.0 / (1.0 + (-x).exp());
    sigmoid * (1.0 + x * (1.0 - sigmoid))
}

/// `Φ(x)`, and `e^(-x²/2)`, which it needs on the way.
#[cube]
fn normal(x: f32) -> (f32, f32) {
    // Horner's scheme
    let u = 1.0f32 / (1.0f32 + 0.3f32 * x.abs());
    let factor = 0.035_674_743f32 * u - 0.157_202_9f32;
    let factor = factor * u + 0.206_353_13f32;
    let factor = factor * u - 0.053_683_236f32;
    let factor = factor * u + 0.128_561_38f32;
    let factor = factor * u + 0.099_913_575f32;
    let factor = factor * u + 0.120_753_944f32;
    let factor = (factor * u + 0.119_629_3f32) * u;
    let bell = (x * x * -0.5f32).exp();
    let tail = bell * factor;
    (select(x > 0.0f32, 1.0f32 - tail, tail), bell)
}

#[cube]
fn gelu(x: f32) -> f32 {
    let (distribution, _) = normal(x);
    x * distribution
}

#[cube]
fn gelu_derivative(x: f32) -> f32 {
    let (distribution, bell) = normal(x);
    // 1 / √(2π)
    distribution + x * (0.398_942_3f32 * bell)
}

#[cube(launch_unchecked)]
fn activation_forward<E: Float>(
    x: &[E],
    y: &mut [E],
    length: usize,
    #[comptime] activation: Activation,
    #[define(E)] _dtype: ElemType,
) {
    let first = CUBE_POS * comptime!(UNITS * PER_UNIT) + UNIT_POS as usize;
    #[unroll]
    for round in 0..PER_UNIT {
        let index = first + round * UNITS;
        if index < length {
            let value = f32::cast_from(x[index]);
            if comptime!(activation == Activation::Silu) {
                y[index] = E::cast_from(silu(value));
            } else {
                y[index] = E::cast_from(gelu(value));
            }
        }
    }
}

#[cube(launch_unchecked)]
fn activation_backward<E: Float>(
    x: &[E],
    y_gradient: &[E],
    x_gradient: &mut [E],
    length: usize,
    #[comptime] activation: Activation,
    #[define(E)] _dtype: ElemType,
) {
    let first = CUBE_POS * comptime!(UNITS * PER_UNIT) + UNIT_POS as usize;
    #[unroll]
    for round in 0..PER_UNIT {
        let index = first + round * UNITS;
        if index < length {
            let value = f32::cast_from(x[index]);
            let gradient = f32::cast_from(y_gradient[index]);
            if comptime!(activation == Activation::Silu) {
                x_gradient[index] = E::cast_from(gradient * silu_derivative(value));
            } else {
                x_gradient[index] = E::cast_from(gradient * gelu_derivative(value));
            }
        }
    }
}

impl Differentiable<CubeBackend> for Activation {
    fn forward(&self, inputs: Vec<CubeTensor>) -> (CubeTensor, Vec<CubeTensor>) {
        let inputs = all_contiguous(inputs);
        let x = &inputs[0];
        let (y, length) = (empty_like(x), x.shape().num_elements());
        unsafe {
            activation_forward::launch_unchecked(
                &x.client,
                cubes(length.div_ceil(UNITS * PER_UNIT)),
                CubeDim::new_1d(UNITS as u32),
                argument(x),
                argument(&y),
                length,
                *self,
                element(x.dtype),
            );
        }
        (y, Vec::new())
    }

    fn backward(
        &self,
        inputs: Vec<CubeTensor>,
        _: Vec<CubeTensor>,
        y_gradient: CubeTensor,
        _: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let (inputs, y_gradient) = (all_contiguous(inputs), contiguous(y_gradient));
        let x = &inputs[0];
        let (x_gradient, length) = (empty_like(x), x.shape().num_elements());
        unsafe {
            activation_backward::launch_unchecked(
                &x.client,
                cubes(length.div_ceil(UNITS * PER_UNIT)),
                CubeDim::new_1d(UNITS as u32),
                argument(x),
                argument(&y_gradient),
                argument(&x_gradient),
                length,
                *self,
                element(x.dtype),
            );
        }
        vec![Some(x_gradient)]
    }
}
