//! Softmax over the last axis.
//!
//! ```text
//! y_c = e^(x_c - max x) / Σ e^(x - max x)    backward: ẋ = y (ẏ - Σ_c y ẏ)
//! ```
//!
//! The backward works from the output. A row that holds NaN or +inf, or nothing but -inf, becomes NaN.

use crate::cpu::operation::{Operation, View};
use crate::cpu::parallel::{BLOCK, check_lengths, run};
use crate::cpu::simd::{exp, largest, map, sum};
use pulp::{Simd, WithSimd};

/// The softmax of every row of `columns` elements.
pub fn forward(columns: usize, input: &[f32], output: &mut [f32]) {
    check_rows(columns, input.len());
    check_lengths!(output: input.len());
    let block = (BLOCK / columns).max(1) * columns;
    let blocks = input.chunks(block).zip(output.chunks_mut(block));
    run(blocks.map(|(input, output)| Forward { columns, input, output }).collect(), 2 * input.len());
}

/// The gradient of the input, from the output of [`forward`] and its gradient.
pub fn backward(columns: usize, output: &[f32], output_gradient: &[f32], input_gradient: &mut [f32]) {
    check_rows(columns, output.len());
    check_lengths!(output_gradient: output.len(), input_gradient: output.len());
    let block = (BLOCK / columns).max(1) * columns;
    let blocks = output.chunks(block).zip(output_gradient.chunks(block)).zip(input_gradient.chunks_mut(block));
    let tasks = blocks.map(|((output, output_gradient), input_gradient)| Backward {
        columns,
        output,
        output_gradient,
        input_gradient,
    });
    run(tasks.collect(), 2 * output.len());
}

#[track_caller]
fn check_rows(columns: usize, elements: usize) {
    assert!(columns > 0 && elements.is_multiple_of(columns), "{elements} elements do not make rows of {columns}");
}

/// `output = scale softmax(row)`.
#[inline(always)]
pub(crate) fn softmax_row<S: Simd>(simd: S, row: &[f32], scale: f32, output: &mut [f32]) {
    let greatest = simd.splat_f32s(largest(simd, row));
    let mut lanes = simd.splat_f32s(0.0);
    map!(simd, [row], [&mut *output], |[x], _| {
        let value = exp(simd, simd.sub_f32s(x, greatest));
        lanes = simd.add_f32s(lanes, value);
        [value]
    });
    let total = match row.len() % S::F32_LANES {
        0 => simd.reduce_sum_f32s(lanes),
        // the lanes behind the row do not count
        _ => sum!(simd, [&*output], |[x]| x),
    };
    let factor = simd.splat_f32s(scale / total);
    map!(simd, [], [output], |[], [x]| [simd.mul_f32s(x, factor)]);
}

/// `gradient = weights (gradient - Σ weights gradient / scale)`, for weights that add to `scale`.
#[inline(always)]
pub(crate) fn softmax_row_backward<S: Simd>(simd: S, weights: &[f32], scale: f32, gradient: &mut [f32]) {
    let dot = sum!(simd, [weights, &*gradient], |[a, b]| simd.mul_f32s(a, b));
    let mean = simd.splat_f32s(dot / scale);
    map!(simd, [weights], [gradient], |[weight], [gradient]| [simd.mul_f32s(weight, simd.sub_f32s(gradient, mean))]);
}

struct Forward<'a> {
    columns: usize,
    input: &'a [f32],
    output: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let rows = self.input.chunks_exact(self.columns).zip(self.output.chunks_exact_mut(self.columns));
        rows.for_each(|(input, output)| softmax_row(simd, input, 1.0, output));
    }
}

struct Backward<'a> {
    columns: usize,
    output: &'a [f32],
    output_gradient: &'a [f32],
    input_gradient: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { columns, output, output_gradient, input_gradient } = self;
        let rows = output.chunks_exact(columns).zip(output_gradient.chunks_exact(columns));
        for ((output, output_gradient), input_gradient) in rows.zip(input_gradient.chunks_exact_mut(columns)) {
            input_gradient.copy_from_slice(output_gradient);
            softmax_row_backward(simd, output, 1.0, input_gradient);
        }
    }
}

/// The burn operation, over the last axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Softmax;

impl Operation for Softmax {
    /// Saves the output.
    fn forward(&self, inputs: &[View], output: &mut [f32]) -> Vec<f32> {
        forward(inputs[0].shape.last().copied().unwrap_or(1), inputs[0].values, output);
        output.to_vec()
    }

    fn backward(&self, inputs: &[View], saved: &[f32], output_gradient: &[f32], gradients: &mut [Option<&mut [f32]>]) {
        if let Some(gradient) = &mut gradients[0] {
            backward(inputs[0].shape.last().copied().unwrap_or(1), saved, output_gradient, gradient);
        }
    }
}
