//! Concatenation of channels, `out[r, :] = a[r, :] ++ b[r, :]`; its backward pass splits the gradient.
//!
//! Upsampling and space-to-depth are part of the convolutions that follow them ([`convolution`](super::convolution)).

use crate::cpu::operation::{Operation, View, all};
use crate::cpu::parallel::{BLOCK, check_length, run};

/// Rows of `columns` values that one task takes.
fn block_rows(columns: usize) -> usize {
    (BLOCK / columns).max(1)
}

/// `output[r] = left[r] ++ right[r]`, where the rows of `left` and `right` have these widths.
pub fn concatenate(widths: [usize; 2], left: &[f32], right: &[f32], output: &mut [f32]) {
    let rows = check_rows(widths, left.len(), right.len(), output.len());
    let count = block_rows(widths[0] + widths[1]);
    let blocks = left.chunks(count * widths[0]).zip(right.chunks(count * widths[1]));
    let tasks = blocks.zip(output.chunks_mut(count * (widths[0] + widths[1]))).map(|((left, right), output)| {
        move || {
            let rows = left.chunks_exact(widths[0]).zip(right.chunks_exact(widths[1]));
            for (output, (left, right)) in output.chunks_exact_mut(widths[0] + widths[1]).zip(rows) {
                output[..widths[0]].copy_from_slice(left);
                output[widths[0]..].copy_from_slice(right);
            }
        }
    });
    run(tasks.collect(), rows * (widths[0] + widths[1]));
}

/// The inverse of [`concatenate`], and its backward.
pub fn split(widths: [usize; 2], input: &[f32], left: &mut [f32], right: &mut [f32]) {
    let rows = check_rows(widths, left.len(), right.len(), input.len());
    let count = block_rows(widths[0] + widths[1]);
    let blocks = left.chunks_mut(count * widths[0]).zip(right.chunks_mut(count * widths[1]));
    let tasks = blocks.zip(input.chunks(count * (widths[0] + widths[1]))).map(|((left, right), input)| {
        move || {
            let rows = left.chunks_exact_mut(widths[0]).zip(right.chunks_exact_mut(widths[1]));
            for (input, (left, right)) in input.chunks_exact(widths[0] + widths[1]).zip(rows) {
                left.copy_from_slice(&input[..widths[0]]);
                right.copy_from_slice(&input[widths[0]..]);
            }
        }
    });
    run(tasks.collect(), rows * (widths[0] + widths[1]));
}

/// The number of rows.
#[track_caller]
fn check_rows(widths: [usize; 2], left: usize, right: usize, joined: usize) -> usize {
    assert!(widths[0] > 0 && widths[1] > 0, "no width may be 0: {widths:?}");
    let rows = joined / (widths[0] + widths[1]);
    check_length("the joined", joined, rows * (widths[0] + widths[1]));
    check_length("left", left, rows * widths[0]);
    check_length("right", right, rows * widths[1]);
    rows
}

/// The burn operation that concatenates the channels of two images.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Concatenate;

impl Concatenate {
    fn widths(inputs: &[View]) -> [usize; 2] {
        [inputs[0].shape[3], inputs[1].shape[3]]
    }
}

impl Operation for Concatenate {
    fn output_shape(&self, inputs: &[&[usize]]) -> Vec<usize> {
        vec![inputs[0][0], inputs[0][1], inputs[0][2], inputs[0][3] + inputs[1][3]]
    }

    fn forward(&self, inputs: &[View], output: &mut [f32]) -> Vec<f32> {
        concatenate(Self::widths(inputs), inputs[0].values, inputs[1].values, output);
        Vec::new()
    }

    fn backward(&self, inputs: &[View], _: &[f32], output_gradient: &[f32], gradients: &mut [Option<&mut [f32]>]) {
        let mut unwanted = [const { Vec::new() }; 2];
        let [left, right] = all(inputs, gradients, &mut unwanted);
        split(Self::widths(inputs), output_gradient, left, right);
    }
}
