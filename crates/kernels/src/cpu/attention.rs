//! Softmax attention (Vaswani et al. 2017, arXiv:1706.03762) with learned memory, by blocks, so that the matrix of all
//! scores never exists (Dao et al. 2022, arXiv:2205.14135).
//!
//! `qkv` is `[batch, positions, 3, heads, head_dim]`, the output of a 1x1 convolution. `memory` is
//! `[2, heads, memory, head_dim]`: keys, then values, before those of the positions. Per sample and head:
//!
//! ```text
//! S = head_dim^-0.5 Q Kᵀ    P = softmax_keys(S)    out = P V    L_i = log Σ_j e^S_ij
//! ```
//!
//! The forward goes over the keys by blocks and keeps per query the greatest score so far and the sum of exponentials
//! against it; when a greater score comes, sum and output are scaled down. Output and L are saved for the backward. With a
//! dot for gradients:
//!
//! ```text
//! P = e^(S - L)    Ṗ = ȯut Vᵀ    Ṡ = P (Ṗ - D), D_i = Σ_e ȯut out
//! V̇ = Pᵀ ȯut       Q̇ = head_dim^-0.5 Ṡ K         K̇ = head_dim^-0.5 Ṡᵀ Q
//! ```
//!
//! Scores are held as `[keys, queries]`: the lanes are queries, so that the softmax needs no sum across lanes, and with
//! the block of queries transposed once, no product repacks its operands.
//! A task of the forward is a block of queries of one head; of the backward, where all queries add to a key's gradient,
//! one head of one sample.

pub use crate::cpu::linear_attention::Shape;
use crate::cpu::matrix::{Matrix, MatrixMut, split_columns};
use crate::cpu::operation::{Operation, View, all};
use crate::cpu::parallel::{blocks_of, check_lengths, run};
use crate::cpu::scratch::Scratch;
use crate::cpu::simd::{exp, fold_rows, larger, map, sum};
use pulp::{Simd, WithSimd};

/// Queries of one block.
const QUERIES: usize = 64;
/// Keys of one block: 64 KiB of scores.
const KEYS: usize = 256;

impl Shape {
    /// Elements of the log-sum-exp of every row, `[batch, heads, positions]`.
    pub fn rows(&self) -> usize {
        self.batch * self.heads * self.positions
    }

    /// Elements of all scores, in units of a cheap pass.
    fn score_work(&self) -> usize {
        self.work() + 8 * self.rows() * (self.positions + self.memory)
    }

    /// Keys and values of the memory of one head.
    fn memory_head<'a>(&self, memory: &'a [f32], head: usize) -> [Matrix<'a>; 2] {
        let length = self.memory * self.head_dim;
        [0, 1].map(|part| {
            Matrix::new(&memory[(part * self.heads + head) * length..][..length], self.head_dim, 0, self.head_dim)
        })
    }
}

/// The attention's output `[batch, positions, heads, head_dim]`, and the log-sum-exp of every row of scores
/// (`[batch, heads, positions]`).
pub fn forward(shape: Shape, qkv: &[f32], memory: &[f32], output: &mut [f32], log_sum_exp: &mut [f32]) {
    shape.check();
    check_lengths!(qkv: shape.qkv(), memory: shape.memory(), output: shape.output(), log_sum_exp: shape.rows());
    let Shape { batch, heads, head_dim, positions, .. } = shape;
    let mut rows = log_sum_exp.chunks_exact_mut(positions);
    let mut tasks = Vec::with_capacity(batch * heads * positions.div_ceil(QUERIES));
    let samples = qkv.chunks_exact(shape.qkv() / batch).zip(output.chunks_exact_mut(shape.output() / batch));
    for (qkv, output) in samples {
        for ((head, output), rows) in split_columns(output, heads, head_dim).enumerate().zip(&mut rows) {
            let memory = shape.memory_head(memory, head);
            let blocks = output.into_blocks(QUERIES).zip(rows.chunks_mut(QUERIES)).enumerate();
            tasks.extend(blocks.map(|(block, (output, log_sum_exp))| {
                let head = shape.head(qkv, head);
                Forward { shape, first: block * QUERIES, head, memory, output, log_sum_exp }
            }));
        }
    }
    run(tasks, shape.score_work());
}

/// The gradients of [`forward`] with respect to `qkv` and to the memory, from its output and log-sum-exp.
#[expect(clippy::too_many_arguments, reason = "inputs and outputs of the forward, and three gradients")]
pub fn backward(
    shape: Shape,
    qkv: &[f32],
    memory: &[f32],
    output: &[f32],
    log_sum_exp: &[f32],
    output_gradient: &[f32],
    qkv_gradient: &mut [f32],
    memory_gradient: &mut [f32],
) {
    shape.check();
    check_lengths!(
        qkv: shape.qkv(), memory: shape.memory(), output: shape.output(), log_sum_exp: shape.rows(),
        output_gradient: shape.output(), qkv_gradient: shape.qkv(), memory_gradient: shape.memory(),
    );
    let Shape { batch, heads, head_dim, positions, .. } = shape;
    // [batch, heads, 2, memory, head_dim]: the memory's part of every sample
    let part = shape.memory * head_dim;
    let mut parts = vec![0.0; batch * shape.memory()];
    let mut memory_parts = parts.chunks_mut((2 * part).max(1));
    let mut rows = log_sum_exp.chunks_exact(positions);
    let mut tasks = Vec::with_capacity(batch * heads);
    let outputs = output.chunks_exact(shape.output() / batch).zip(output_gradient.chunks_exact(shape.output() / batch));
    let inputs = qkv.chunks_exact(shape.qkv() / batch).zip(qkv_gradient.chunks_exact_mut(shape.qkv() / batch));
    for ((qkv, qkv_gradient), (output, output_gradient)) in inputs.zip(outputs) {
        let columns = |data, head| Matrix::new(data, heads * head_dim, head * head_dim, head_dim);
        for ((head, qkv_gradient), log_sum_exp) in shape.split_qkv(qkv_gradient).enumerate().zip(&mut rows) {
            tasks.push(Backward {
                shape,
                head: shape.head(qkv, head),
                memory: shape.memory_head(memory, head),
                output: columns(output, head),
                output_gradient: columns(output_gradient, head),
                log_sum_exp,
                qkv_gradient,
                memory_gradient: memory_parts.next().unwrap_or_default(),
            });
        }
    }
    run(tasks, 2 * shape.score_work());
    for (index, gradient) in memory_gradient.chunks_exact_mut(part.max(1)).enumerate() {
        // to [2, heads, memory, head_dim]
        let offset = (index % heads * 2 + index / heads) * part;
        gradient.fill(0.0);
        for sample in parts.chunks_exact(shape.memory()) {
            gradient.iter_mut().zip(&sample[offset..]).for_each(|(sum, value)| *sum += value);
        }
    }
}

/// `output = factor rowsᵀ`, packed.
#[inline(always)]
fn transpose(rows: Matrix<'_>, factor: f32, output: &mut [f32]) {
    let count = rows.rows();
    for row in 0..count {
        for (column, value) in rows.row(row).iter().enumerate() {
            output[column * count + row] = factor * value;
        }
    }
}

/// A block of queries of one head.
struct Forward<'a> {
    shape: Shape,
    first: usize,
    head: [Matrix<'a>; 3],
    memory: [Matrix<'a>; 2],
    output: MatrixMut<'a>,
    log_sum_exp: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { shape, first, head: [query, key, value], memory, mut output, log_sum_exp } = self;
        let head_dim = shape.head_dim;
        let count = log_sum_exp.len();
        let mut buffer = Scratch::take((head_dim + KEYS + 3) * count);
        let (query_block, buffer) = buffer.split_at_mut(head_dim * count);
        let (scores, statistics) = buffer.split_at_mut(KEYS * count);
        let (greatest, statistics) = statistics.split_at_mut(count);
        let (total, factors) = statistics.split_at_mut(count);
        transpose(query.slice(first, count), (head_dim as f32).powf(-0.5), query_block);
        let query_block = Matrix::new(query_block, count, 0, count);
        greatest.fill(f32::NEG_INFINITY);
        total.fill(0.0);
        let mut keep = false;
        for [key, value] in [memory, [key, value]] {
            for (first, keys) in blocks_of(key.rows(), KEYS) {
                let (key, value) = (key.slice(first, keys), value.slice(first, keys));
                let mut weights = MatrixMut::new(&mut scores[..keys * count], count);
                weights.product(false, 1.0, key, query_block);
                factors.copy_from_slice(greatest);
                let scores = weights.as_ref();
                let maxima = [&mut *greatest];
                fold_rows!(simd, keys, |row| scores.row(row), maxima, |x, [old]| [larger(simd, x, old)]);
                // the factors of sums and outputs so far against the new maximum
                map!(simd, [greatest], [&mut *factors, &mut *total], |[new], [old, total]| {
                    let factor = exp(simd, simd.sub_f32s(old, new));
                    [factor, simd.mul_f32s(total, factor)]
                });
                for row in 0..keys {
                    map!(simd, [greatest], [weights.row(row)], |[greatest], [score]| {
                        [exp(simd, simd.sub_f32s(score, greatest))]
                    });
                }
                let (weights, sums) = (weights.as_ref(), [&mut *total]);
                fold_rows!(simd, keys, |row| weights.row(row), sums, |x, [sum]| [simd.add_f32s(sum, x)]);
                if keep {
                    factors.iter().enumerate().for_each(|(row, &factor)| scale_row(simd, output.row(row), factor));
                }
                output.product(keep, 1.0, weights.transposed(), value);
                keep = true;
            }
        }
        for (row, value) in log_sum_exp.iter_mut().enumerate() {
            scale_row(simd, output.row(row), 1.0 / total[row]);
            *value = greatest[row] + total[row].ln();
        }
    }
}

#[inline(always)]
fn scale_row<S: Simd>(simd: S, row: &mut [f32], factor: f32) {
    let factor = simd.splat_f32s(factor);
    map!(simd, [], [row], |[], [x]| [simd.mul_f32s(x, factor)]);
}

/// One head of one sample; `memory_gradient` takes `[2, memory, head_dim]`.
struct Backward<'a> {
    shape: Shape,
    head: [Matrix<'a>; 3],
    memory: [Matrix<'a>; 2],
    output: Matrix<'a>,
    output_gradient: Matrix<'a>,
    log_sum_exp: &'a [f32],
    qkv_gradient: [MatrixMut<'a>; 3],
    memory_gradient: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { shape, head, memory, output, output_gradient, log_sum_exp, qkv_gradient, memory_gradient } = self;
        let head_dim = shape.head_dim;
        let scale = (head_dim as f32).powf(-0.5);
        let [query, key, value] = head;
        let [mut query_gradient, mut key_gradient, mut value_gradient] = qkv_gradient;
        let (memory_key_gradient, memory_value_gradient) = memory_gradient.split_at_mut(shape.memory * head_dim);
        let mut memory_key_gradient = MatrixMut::new(memory_key_gradient, head_dim);
        let mut memory_value_gradient = MatrixMut::new(memory_value_gradient, head_dim);
        let mut buffer = Scratch::take((2 * (head_dim + KEYS) + 1) * QUERIES);
        for (first, count) in blocks_of(shape.positions, QUERIES) {
            let later = first > 0;
            let (query_block, buffer) = buffer.split_at_mut(head_dim * count);
            let (gradient_block, buffer) = buffer.split_at_mut(head_dim * count);
            let (weights, buffer) = buffer.split_at_mut(KEYS * count);
            let (gradients, buffer) = buffer.split_at_mut(KEYS * count);
            let (log_sum_exp, dots) = (&log_sum_exp[first..][..count], &mut buffer[..count]);
            let (query, output) = (query.slice(first, count), output.slice(first, count));
            let output_gradient = output_gradient.slice(first, count);
            let mut query_gradient = query_gradient.slice(first, count);
            for (row, dot) in dots.iter_mut().enumerate() {
                *dot = sum!(simd, [output.row(row), output_gradient.row(row)], |[a, b]| simd.mul_f32s(a, b));
            }
            transpose(query, scale, query_block);
            transpose(output_gradient, 1.0, gradient_block);
            let query_block = Matrix::new(query_block, count, 0, count);
            let gradient_block = Matrix::new(gradient_block, count, 0, count);
            let mut keep = false;
            let [memory_key, memory_value] = memory;
            let parts = [
                (memory_key, memory_value, &mut memory_key_gradient, &mut memory_value_gradient),
                (key, value, &mut key_gradient, &mut value_gradient),
            ];
            for (key, value, key_gradient, value_gradient) in parts {
                for (first, keys) in blocks_of(key.rows(), KEYS) {
                    let (key, value) = (key.slice(first, keys), value.slice(first, keys));
                    let mut weights = MatrixMut::new(&mut weights[..keys * count], count);
                    let mut gradients = MatrixMut::new(&mut gradients[..keys * count], count);
                    weights.product(false, 1.0, key, query_block);
                    gradients.product(false, 1.0, value, gradient_block);
                    for row in 0..keys {
                        let (inputs, outputs) = ([log_sum_exp, &*dots], [weights.row(row), gradients.row(row)]);
                        map!(simd, inputs, outputs, |[log_sum_exp, dot], [score, gradient]| {
                            let weight = exp(simd, simd.sub_f32s(score, log_sum_exp));
                            [weight, simd.mul_f32s(weight, simd.sub_f32s(gradient, dot))]
                        });
                    }
                    let (weights, gradients) = (weights.as_ref(), gradients.as_ref());
                    value_gradient.slice(first, keys).product(later, 1.0, weights, output_gradient);
                    key_gradient.slice(first, keys).product(later, scale, gradients, query);
                    query_gradient.product(keep, scale, gradients.transposed(), key);
                    keep = true;
                }
            }
        }
    }
}

/// The burn operation: qkv `[batch, positions, 3 heads head_dim]` and memory `[2, heads, memory, head_dim]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention;

impl Attention {
    fn shape(qkv: &[usize], memory: &[usize]) -> Shape {
        Shape { batch: qkv[0], positions: qkv[1], heads: memory[1], head_dim: memory[3], memory: memory[2] }
    }
}

impl Operation for Attention {
    fn output_shape(&self, inputs: &[&[usize]]) -> Vec<usize> {
        vec![inputs[0][0], inputs[0][1], inputs[0][2] / 3]
    }

    /// Saves the output and the log-sum-exp of each row.
    fn forward(&self, inputs: &[View], output: &mut [f32]) -> Vec<f32> {
        let shape = Self::shape(inputs[0].shape, inputs[1].shape);
        let mut saved = vec![0.0; shape.output() + shape.rows()];
        let (saved_output, log_sum_exp) = saved.split_at_mut(shape.output());
        forward(shape, inputs[0].values, inputs[1].values, output, log_sum_exp);
        saved_output.copy_from_slice(output);
        saved
    }

    fn backward(&self, inputs: &[View], saved: &[f32], output_gradient: &[f32], gradients: &mut [Option<&mut [f32]>]) {
        let shape = Self::shape(inputs[0].shape, inputs[1].shape);
        let (output, log_sum_exp) = saved.split_at(shape.output());
        let mut unwanted = [const { Vec::new() }; 2];
        let [qkv, memory] = all(inputs, gradients, &mut unwanted);
        let [qkv_values, memory_values] = [inputs[0].values, inputs[1].values];
        backward(shape, qkv_values, memory_values, output, log_sum_exp, output_gradient, qkv, memory);
    }

    fn is_cheap(&self) -> bool {
        false
    }
}
