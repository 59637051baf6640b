//! RMS norm over the channels of a pixel (Zhang and Sennrich 2019, arXiv:1910.07467, without a mean and as lucidrains
//! writes it), with an optional scale, shift and SiLU fused behind it.
//!
//! With n = max(|x|₂, 1e-12) over the C channels of one pixel, and slope k and offset o as in `epilogue`:
//!
//! ```text
//! x̂ = x √C / n    z = x̂ k + o    y = f(z)
//! ```
//!
//! Backward, one pass over the input x and the gradient ẏ; everything is recomputed from x:
//!
//! ```text
//! ż = ẏ f'(z)    w = ż k    ẋ = √C / n (w - x̂ Σ_c w x̂ / C)        A = Σ ż, B = Σ ż x̂ over positions
//! ```
//!
//! Where the clamp holds, n is a constant and the term in x̂ falls away. Where the norm is not finite (from input that
//! is not, or of a magnitude above 1e19), the whole pixel and its gradients become NaN.

use crate::cpu::activation::{silu, silu_derivative};
use crate::cpu::epilogue::{Affine, Epilogue, Gradients, Shape};
use crate::cpu::operation::{Operation, View, all};
use crate::cpu::parallel::{check_lengths, run};
use crate::cpu::simd::{map, sum};
use pulp::{Simd, WithSimd};

/// The least norm that is divided by.
const LEAST_NORM: f32 = 1e-12;

/// `output = f(x̂ gain)`; all of `shape`, `gain` of its channels.
pub fn forward(shape: Shape, input: &[f32], gain: &[f32], epilogue: Epilogue<'_>, output: &mut [f32]) {
    shape.check();
    check_lengths!(input: shape.elements(), gain: shape.channels, output: shape.elements());
    let Affine { slope, offset, silu } = epilogue.affine(shape, gain, &[]);
    let coefficients = shape.of_blocks(&slope).zip(shape.of_blocks(&offset));
    let blocks = shape.split(input).zip(shape.split_mut(output)).zip(coefficients);
    let tasks = blocks.map(|((input, output), (slope, offset))| Forward { input, slope, offset, silu, output });
    run(tasks.collect(), 2 * shape.elements());
}

/// The gradients of [`forward`]: of the input, of the gain (`[channels]`) and of the scale and shift
/// (`[batch, 2, channels]`, or empty where the epilogue has none).
#[expect(clippy::too_many_arguments, reason = "three inputs and a gradient for each")]
pub fn backward(
    shape: Shape,
    input: &[f32],
    gain: &[f32],
    epilogue: Epilogue<'_>,
    output_gradient: &[f32],
    input_gradient: &mut [f32],
    gain_gradient: &mut [f32],
    scale_shift_gradient: &mut [f32],
) {
    shape.check();
    check_lengths!(
        input: shape.elements(), gain: shape.channels, output_gradient: shape.elements(),
        input_gradient: shape.elements(), gain_gradient: shape.channels,
    );
    epilogue.check_gradient(shape, scale_shift_gradient);
    let Shape { batch, channels, .. } = shape;
    let Affine { slope, offset, silu } = epilogue.affine(shape, gain, &[]);
    let mut sums = vec![0.0; batch * shape.blocks() * 2 * channels];
    let coefficients = shape.of_blocks(&slope).zip(shape.of_blocks(&offset));
    let gradients = shape.split(output_gradient).zip(shape.split_mut(input_gradient));
    let blocks = shape.split(input).zip(gradients).zip(sums.chunks_exact_mut(2 * channels)).zip(coefficients);
    let tasks = blocks.map(|(((input, (output_gradient, input_gradient)), sums), (slope, offset))| Backward {
        input,
        slope,
        offset,
        silu,
        output_gradient,
        input_gradient,
        sums,
    });
    run(tasks.collect(), 3 * shape.elements());
    let gradients = Gradients { weight: gain_gradient, bias: &mut [], scale_shift: scale_shift_gradient };
    epilogue.gradients(shape, gain, &[], &sums, gradients);
}

/// `√C / n` of one pixel, and whether the clamp holds there.
#[inline(always)]
fn inverse_norm<S: Simd>(simd: S, pixel: &[f32]) -> (f32, bool) {
    let norm = sum!(simd, [pixel], |[x]| simd.mul_f32s(x, x)).sqrt();
    let root = (pixel.len() as f32).sqrt();
    match norm {
        norm if norm < LEAST_NORM => (root / LEAST_NORM, true),
        norm if norm.is_finite() => (root / norm, false),
        _ => (f32::NAN, false),
    }
}

/// Some pixels of one sample.
struct Forward<'a> {
    input: &'a [f32],
    slope: &'a [f32],
    offset: &'a [f32],
    silu: bool,
    output: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { input, slope, offset, silu: with_silu, output } = self;
        let channels = slope.len();
        for (input, output) in input.chunks_exact(channels).zip(output.chunks_exact_mut(channels)) {
            let inverse = simd.splat_f32s(inverse_norm(simd, input).0);
            map!(simd, [input, slope, offset], [output], |[x, slope, offset], _| {
                let z = simd.mul_add_e_f32s(simd.mul_f32s(x, inverse), slope, offset);
                [if with_silu { silu(simd, z) } else { z }]
            });
        }
    }
}

/// Some pixels of one sample; `sums` takes A, then B.
struct Backward<'a> {
    input: &'a [f32],
    slope: &'a [f32],
    offset: &'a [f32],
    silu: bool,
    output_gradient: &'a [f32],
    input_gradient: &'a mut [f32],
    sums: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { input, slope, offset, silu: with_silu, output_gradient, input_gradient, sums } = self;
        let channels = slope.len();
        let (sum, sum_normed) = sums.split_at_mut(channels);
        let pixels = input.chunks_exact(channels).zip(output_gradient.chunks_exact(channels));
        for ((input, output_gradient), input_gradient) in pixels.zip(input_gradient.chunks_exact_mut(channels)) {
            let (inverse, clamped) = inverse_norm(simd, input);
            let inverse = simd.splat_f32s(inverse);
            let mut dot = simd.splat_f32s(0.0);
            // the pixel's gradient holds w until the sum over its channels is known
            let inputs = [input, output_gradient, slope, offset];
            let outputs = [&mut *input_gradient, &mut *sum, &mut *sum_normed];
            map!(simd, inputs, outputs, |[x, gradient, slope, offset], [_, sum, sum_normed]| {
                let normed = simd.mul_f32s(x, inverse);
                let z = simd.mul_add_e_f32s(normed, slope, offset);
                let z_gradient = if with_silu { simd.mul_f32s(gradient, silu_derivative(simd, z)) } else { gradient };
                let weighted = simd.mul_f32s(z_gradient, slope);
                dot = simd.mul_add_e_f32s(weighted, normed, dot);
                [weighted, simd.add_f32s(sum, z_gradient), simd.mul_add_e_f32s(z_gradient, normed, sum_normed)]
            });
            let mean = if clamped { 0.0 } else { simd.reduce_sum_f32s(dot) / channels as f32 };
            let pull = simd.mul_f32s(simd.splat_f32s(-mean), inverse);
            map!(simd, [input], [input_gradient], |[x], [weighted]| [
                simd.mul_f32s(inverse, simd.mul_add_e_f32s(x, pull, weighted))
            ]);
        }
    }
}

/// The burn operation: x `[batch, height, width, channels]`, gain `[channels]`, and scale and shift `[batch, 2 channels]`
/// where there are three inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RmsNorm {
    /// Whether SiLU follows.
    pub silu: bool,
}

impl Operation for RmsNorm {
    fn forward(&self, inputs: &[View], output: &mut [f32]) -> Vec<f32> {
        forward(
            Shape::of(inputs[0]),
            inputs[0].values,
            inputs[1].values,
            Epilogue::of(self.silu, inputs.get(2)),
            output,
        );
        Vec::new()
    }

    fn backward(&self, inputs: &[View], _: &[f32], output_gradient: &[f32], gradients: &mut [Option<&mut [f32]>]) {
        let mut unwanted = [const { Vec::new() }; 3];
        let [x, gain, scale_shift] = all(inputs, gradients, &mut unwanted);
        let (shape, epilogue) = (Shape::of(inputs[0]), Epilogue::of(self.silu, inputs.get(2)));
        backward(shape, inputs[0].values, inputs[1].values, epilogue, output_gradient, x, gain, scale_shift);
    }
}
