//! Linear attention (Katharopoulos et al. 2020, arXiv:2006.16236, with the softmaxes of Shen et al. 2018,
//! arXiv:1812.01243), with learned memory as lucidrains writes it.
//!
//! `qkv` is `[batch, positions, 3, heads, head_dim]`, the output of a 1x1 convolution. `memory` is
//! `[2, heads, head_dim, memory]`: keys, then values, before those of the positions. Per sample and head, with d
//! and e counting head_dim and n the memory and positions:
//!
//! ```text
//! Q = head_dim^-0.5 softmax_d(q)    K = softmax_n(k)    C[d,e] = Σ_n K[n,d] V[n,e]    out[n,e] = Σ_d Q[n,d] C[d,e]
//! ```
//!
//! Backward, with a dot for gradients; the softmaxes are recomputed, C and the statistics of K are saved by the forward:
//!
//! ```text
//! Q̇ = ȯut Cᵀ     q̇ = Q (Q̇ - Σ_d Q̇ Q / Σ_d Q)     Ċ = Qᵀ ȯut
//! V̇ = K Ċ        K̇ = V Ċᵀ                        k̇ = K (K̇ - Σ_n K̇ K),   Σ_n K̇ K = Σ_e C Ċ
//! ```
//!
//! One task is one head of one sample; it goes over blocks of positions that stay in the first cache, and its
//! products read and write the interleaved rows where they lie.

use crate::cpu::matrix::{Matrix, MatrixMut, split_columns};
use crate::cpu::operation::{Operation, View, all};
use crate::cpu::parallel::{blocks_of, check_lengths, run};
use crate::cpu::scratch::Scratch;
use crate::cpu::simd::{exp, fold_rows, larger, map, sum};
use crate::cpu::softmax::{softmax_row, softmax_row_backward};
use pulp::{Simd, WithSimd};

/// Positions of one block: 16 KiB at a head_dim of 32.
const BLOCK: usize = 128;

/// The sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Samples.
    pub batch: usize,
    /// Positions of one sample: height times width.
    pub positions: usize,
    /// Heads.
    pub heads: usize,
    /// Values of a query, key or value.
    pub head_dim: usize,
    /// Learned keys and values.
    pub memory: usize,
}

impl Shape {
    /// Elements of queries, keys and values together.
    pub fn qkv(&self) -> usize {
        3 * self.output()
    }

    /// Elements of the output, `[batch, positions, heads, head_dim]`.
    pub fn output(&self) -> usize {
        self.batch * self.positions * self.heads * self.head_dim
    }

    /// Elements of the memory.
    pub fn memory(&self) -> usize {
        2 * self.heads * self.head_dim * self.memory
    }

    /// Elements that are saved for the backward: per sample and head C, then the maximum of k and the reciprocal of the sum
    /// of its exponentials.
    pub fn saved(&self) -> usize {
        self.batch * self.heads * (self.head_dim + 2) * self.head_dim
    }

    /// Panics where a dimension other than the memory's is 0.
    #[track_caller]
    pub(crate) fn check(&self) {
        let Self { batch, positions, heads, head_dim, .. } = *self;
        assert!(batch * positions * heads * head_dim > 0, "no dimension may be 0: {self:?}");
    }

    /// A measure of the work for [`run`].
    pub(crate) fn work(&self) -> usize {
        4 * self.qkv()
    }

    /// Query, key and value of one head: views of the `qkv` of one sample.
    pub(crate) fn head<'a>(&self, qkv: &'a [f32], head: usize) -> [Matrix<'a>; 3] {
        let Self { heads, head_dim, .. } = *self;
        [0, 1, 2].map(|part| Matrix::new(qkv, 3 * heads * head_dim, (part * heads + head) * head_dim, head_dim))
    }

    /// Keys and values of the memory of one head, `[head_dim, memory]` each, as rows of head_dim in `rows`.
    fn transpose_memory<'a>(&self, memory: &[f32], head: usize, rows: &'a mut [f32]) -> [Matrix<'a>; 2] {
        let (head_dim, slots) = (self.head_dim, self.memory);
        for (part, rows) in rows.chunks_exact_mut((slots * head_dim).max(1)).enumerate() {
            let memory = &memory[(part * self.heads + head) * head_dim * slots..][..head_dim * slots];
            for (slot, row) in rows.chunks_exact_mut(head_dim).enumerate() {
                row.iter_mut().enumerate().for_each(|(dim, value)| *value = memory[dim * slots + slot]);
            }
        }
        let (key, value) = rows.split_at(slots * head_dim);
        [Matrix::new(key, head_dim, 0, head_dim), Matrix::new(value, head_dim, 0, head_dim)]
    }

    /// The mutable views of [`Shape::head`] for all heads of one sample.
    pub(crate) fn split_qkv<'a>(&self, qkv: &'a mut [f32]) -> impl Iterator<Item = [MatrixMut<'a>; 3]> {
        let mut columns: Vec<_> = split_columns(qkv, 3 * self.heads, self.head_dim).collect();
        let values = columns.split_off(2 * self.heads);
        let keys = columns.split_off(self.heads);
        columns.into_iter().zip(keys).zip(values).map(|((query, key), value)| [query, key, value])
    }
}

/// The attention's output `[batch, positions, heads, head_dim]`, and the values that are saved for [`backward`] (see
/// [`Shape::saved`]).
pub fn forward(shape: Shape, qkv: &[f32], memory: &[f32], output: &mut [f32], saved: &mut [f32]) {
    shape.check();
    check_lengths!(qkv: shape.qkv(), memory: shape.memory(), output: shape.output(), saved: shape.saved());
    let Shape { batch, heads, head_dim, .. } = shape;
    let saved = saved.chunks_exact_mut(shape.saved() / (batch * heads));
    let samples = qkv.chunks_exact(shape.qkv() / batch).zip(output.chunks_exact_mut(shape.output() / batch));
    let outputs = samples.flat_map(|(qkv, output)| {
        split_columns(output, heads, head_dim).enumerate().map(move |(head, output)| (qkv, head, output))
    });
    let tasks =
        outputs.zip(saved).map(|((qkv, head, output), saved)| Forward { shape, head, qkv, memory, output, saved });
    run(tasks.collect(), shape.work());
}

/// The gradients of [`forward`] with respect to `qkv` and to the memory.
pub fn backward(
    shape: Shape,
    qkv: &[f32],
    memory: &[f32],
    saved: &[f32],
    output_gradient: &[f32],
    qkv_gradient: &mut [f32],
    memory_gradient: &mut [f32],
) {
    shape.check();
    check_lengths!(
        qkv: shape.qkv(), memory: shape.memory(), saved: shape.saved(), output_gradient: shape.output(),
        qkv_gradient: shape.qkv(), memory_gradient: shape.memory(),
    );
    let Shape { batch, heads, head_dim, .. } = shape;
    // [batch, heads, 2, memory, head_dim]: the memory's part of every sample
    let mut parts = vec![0.0; batch * shape.memory()];
    let mut memory_parts = parts.chunks_mut((2 * shape.memory * head_dim).max(1));
    let mut saved = saved.chunks_exact(shape.saved() / (batch * heads));
    let mut tasks = Vec::with_capacity(batch * heads);
    let samples = qkv.chunks_exact(shape.qkv() / batch).zip(output_gradient.chunks_exact(shape.output() / batch));
    for ((qkv, output_gradient), qkv_gradient) in samples.zip(qkv_gradient.chunks_exact_mut(shape.qkv() / batch)) {
        let heads = shape.split_qkv(qkv_gradient).enumerate().zip(&mut saved);
        tasks.extend(heads.map(|((head, qkv_gradient), saved)| {
            let memory_gradient = memory_parts.next().unwrap_or_default();
            Backward { shape, head, qkv, memory, saved, output_gradient, qkv_gradient, memory_gradient }
        }));
    }
    run(tasks, 2 * shape.work());
    let slots = shape.memory;
    for (index, gradient) in memory_gradient.chunks_exact_mut((slots * head_dim).max(1)).enumerate() {
        // to [2, heads, head_dim, memory]
        let (part, head) = (index / heads, index % heads);
        gradient.fill(0.0);
        for sample in parts.chunks_exact(shape.memory()) {
            let rows = &sample[(head * 2 + part) * slots * head_dim..][..slots * head_dim];
            for (slot, row) in rows.chunks_exact(head_dim).enumerate() {
                row.iter().enumerate().for_each(|(dim, value)| gradient[dim * slots + slot] += value);
            }
        }
    }
}

/// One head of one sample.
struct Forward<'a> {
    shape: Shape,
    head: usize,
    qkv: &'a [f32],
    memory: &'a [f32],
    output: MatrixMut<'a>,
    saved: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { shape, head, qkv, memory, mut output, saved } = self;
        let head_dim = shape.head_dim;
        let [query, key, value] = shape.head(qkv, head);
        let (context, statistics) = saved.split_at_mut(head_dim * head_dim);
        let (greatest, reciprocal) = statistics.split_at_mut(head_dim);
        let mut context = MatrixMut::new(context, head_dim);
        let mut buffer = Scratch::take((2 * shape.memory + BLOCK) * head_dim);
        let (memory_rows, block) = buffer.split_at_mut(2 * shape.memory * head_dim);
        let [memory_key, memory_value] = shape.transpose_memory(memory, head, memory_rows);
        let mut block = MatrixMut::new(block, head_dim);
        let parts = [(memory_key, memory_value), (key, value)];

        greatest.fill(f32::NEG_INFINITY);
        for (key, _) in parts {
            let greatest = [&mut *greatest];
            fold_rows!(simd, key.rows(), |row| key.row(row), greatest, |x, [old]| [larger(simd, x, old)]);
        }
        reciprocal.fill(0.0);
        let mut keep = false;
        for (key, value) in parts {
            for (first, count) in blocks_of(key.rows(), BLOCK) {
                for row in 0..count {
                    map!(simd, [key.row(first + row), &*greatest], [block.row(row)], |[x, greatest], _| {
                        [exp(simd, simd.sub_f32s(x, greatest))]
                    });
                }
                let weights = block.as_ref().slice(0, count);
                let sums = [&mut *reciprocal];
                fold_rows!(simd, count, |row| weights.row(row), sums, |x, [sum]| [simd.add_f32s(sum, x)]);
                context.product(keep, 1.0, weights.transposed(), value.slice(first, count));
                keep = true;
            }
        }
        for (dim, sum) in reciprocal.iter_mut().enumerate() {
            *sum = 1.0 / *sum;
            context.row(dim).iter_mut().for_each(|value| *value *= *sum);
        }

        let scale = (head_dim as f32).powf(-0.5);
        for (first, count) in blocks_of(shape.positions, BLOCK) {
            for row in 0..count {
                softmax_row(simd, query.row(first + row), scale, block.row(row));
            }
            output.slice(first, count).product(false, 1.0, block.as_ref().slice(0, count), context.as_ref());
        }
    }
}

/// One head of one sample; `memory_gradient` takes `[2, memory, head_dim]`.
struct Backward<'a> {
    shape: Shape,
    head: usize,
    qkv: &'a [f32],
    memory: &'a [f32],
    saved: &'a [f32],
    output_gradient: &'a [f32],
    qkv_gradient: [MatrixMut<'a>; 3],
    memory_gradient: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { shape, head, qkv, memory, saved, output_gradient, qkv_gradient, memory_gradient } = self;
        let Shape { heads, head_dim, .. } = shape;
        let [query, key, value] = shape.head(qkv, head);
        let [mut query_gradient, mut key_gradient, mut value_gradient] = qkv_gradient;
        let (context, statistics) = saved.split_at(head_dim * head_dim);
        let (greatest, reciprocal) = statistics.split_at(head_dim);
        let output_gradient = Matrix::new(output_gradient, heads * head_dim, head * head_dim, head_dim);
        let mut buffer = Scratch::take((2 * shape.memory + BLOCK + head_dim + 1) * head_dim);
        let (memory_rows, buffer) = buffer.split_at_mut(2 * shape.memory * head_dim);
        let (block, buffer) = buffer.split_at_mut(BLOCK * head_dim);
        let (context_gradient, dots) = buffer.split_at_mut(head_dim * head_dim);
        let [memory_key, memory_value] = shape.transpose_memory(memory, head, memory_rows);
        let mut block = MatrixMut::new(block, head_dim);

        let scale = (head_dim as f32).powf(-0.5);
        let context_rows = Matrix::new(context, head_dim, 0, head_dim);
        let mut context_gradient_rows = MatrixMut::new(&mut *context_gradient, head_dim);
        for (first, count) in blocks_of(shape.positions, BLOCK) {
            for row in 0..count {
                softmax_row(simd, query.row(first + row), scale, block.row(row));
            }
            let output_gradient = output_gradient.slice(first, count);
            let weights = block.as_ref().slice(0, count);
            context_gradient_rows.product(first > 0, 1.0, weights.transposed(), output_gradient);
            query_gradient.slice(first, count).product(false, 1.0, output_gradient, context_rows.transposed());
            for row in 0..count {
                softmax_row_backward(simd, weights.row(row), scale, query_gradient.row(first + row));
            }
        }

        let rows = context.chunks_exact(head_dim).zip(context_gradient.chunks_exact(head_dim));
        for (dot, (row, gradient)) in dots.iter_mut().zip(rows) {
            *dot = sum!(simd, [row, gradient], |[a, b]| simd.mul_f32s(a, b));
        }
        let context_gradient = Matrix::new(context_gradient, head_dim, 0, head_dim);
        let (memory_key_gradient, memory_value_gradient) = memory_gradient.split_at_mut(shape.memory * head_dim);
        let mut memory_key_gradient = MatrixMut::new(memory_key_gradient, head_dim);
        let mut memory_value_gradient = MatrixMut::new(memory_value_gradient, head_dim);
        let parts = [
            (memory_key, memory_value, &mut memory_key_gradient, &mut memory_value_gradient),
            (key, value, &mut key_gradient, &mut value_gradient),
        ];
        for (key, value, key_gradient, value_gradient) in parts {
            for (first, count) in blocks_of(key.rows(), BLOCK) {
                for row in 0..count {
                    let inputs = [key.row(first + row), greatest, reciprocal];
                    map!(simd, inputs, [block.row(row)], |[x, greatest, reciprocal], _| {
                        [simd.mul_f32s(exp(simd, simd.sub_f32s(x, greatest)), reciprocal)]
                    });
                }
                let (weights, value) = (block.as_ref().slice(0, count), value.slice(first, count));
                value_gradient.slice(first, count).product(false, 1.0, weights, context_gradient);
                key_gradient.slice(first, count).product(false, 1.0, value, context_gradient.transposed());
                for row in 0..count {
                    let inputs = [weights.row(row), &*dots];
                    map!(simd, inputs, [key_gradient.row(first + row)], |[weight, dot], [gradient]| {
                        [simd.mul_f32s(weight, simd.sub_f32s(gradient, dot))]
                    });
                }
            }
        }
    }
}

/// The burn operation: qkv `[batch, positions, 3 heads head_dim]` and memory `[2, heads, head_dim, memory]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinearAttention;

impl LinearAttention {
    fn shape(qkv: &[usize], memory: &[usize]) -> Shape {
        Shape { batch: qkv[0], positions: qkv[1], heads: memory[1], head_dim: memory[2], memory: memory[3] }
    }
}

impl Operation for LinearAttention {
    fn output_shape(&self, inputs: &[&[usize]]) -> Vec<usize> {
        vec![inputs[0][0], inputs[0][1], inputs[0][2] / 3]
    }

    fn forward(&self, inputs: &[View], output: &mut [f32]) -> Vec<f32> {
        let shape = Self::shape(inputs[0].shape, inputs[1].shape);
        let mut saved = vec![0.0; shape.saved()];
        forward(shape, inputs[0].values, inputs[1].values, output, &mut saved);
        saved
    }

    fn backward(&self, inputs: &[View], saved: &[f32], output_gradient: &[f32], gradients: &mut [Option<&mut [f32]>]) {
        let shape = Self::shape(inputs[0].shape, inputs[1].shape);
        let mut unwanted = [const { Vec::new() }; 2];
        let [qkv, memory] = all(inputs, gradients, &mut unwanted);
        backward(shape, inputs[0].values, inputs[1].values, saved, output_gradient, qkv, memory);
    }

    fn is_cheap(&self) -> bool {
        false
    }
}
