//! Convolution as a matrix product over patches ("im2col"), for any kernel, stride and padding.
//!
//! # Mathematics
//! Row `r` of the patch matrix `P` holds the input pixels under the kernel at output pixel `r`, in the order (kernel
//! row, kernel column, channel); with channels last a kernel row is one contiguous piece of the image. With the weights
//! as a matrix `W` `[kernel² channels_in, channels_out]` in the same order
//!
//! - forward: `y = P W + bias`
//! - input gradient: `dP = dy Wᵀ`, each row added back to the pixels it came from
//! - weight gradient: `dW = Pᵀ dy`; bias gradient: the sum of the rows of `dy`
//!
//! `P` is never stored as a whole: a group of rows is gathered into the cache, multiplied and dropped. In a 1x1 convolution
//! a patch is one pixel; in a 2x2 convolution of stride 2 every pixel is in one patch.

use super::Convolution;
use crate::{
    cpu::{
        convolution::product::{Product, Start},
        convolution::vectors::{Shared, for_each_chunk, for_each_task, load, store, transpose, transpose_rows},
        scratch::Scratch,
    },
    instruction_set::dispatch,
};
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Output channels (or rows of the weight gradient) that are multiplied together.
const BLOCK: usize = 64;
/// Floats of gathered patches in the cache.
const PATCHES: usize = 1 << 16;
/// With at most this many rows every task packs its own weights.
const FEW: usize = 192;
/// Columns of patches that the weight gradient sums at a time.
const WIDE: usize = 256;
/// Rows of patches that the weight gradient sums at a time.
const GRADIENT_GROUP: usize = 96;

fn block(count: usize, index: usize) -> Range<usize> {
    index * BLOCK..(index * BLOCK + BLOCK).min(count)
}

/// Row stride that spreads rows over the sets of the cache.
fn padded(columns: usize) -> usize {
    columns.next_multiple_of(32) + 16
}

fn intersection(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

impl Convolution {
    /// Output pixels of the batch.
    fn rows(&self) -> usize {
        self.batch * self.output_size().iter().product::<usize>()
    }

    /// Length of a patch.
    fn depth(&self) -> usize {
        self.kernel * self.kernel * self.channels_in
    }

    /// Whether patches are the pixels themselves.
    fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0 && !self.upsample
    }

    /// Rows of patches gathered at a time: as many as the cache holds, an even number of groups, whole register tiles.
    fn group(&self) -> usize {
        let most = (PATCHES / self.depth()).clamp(12, 192);
        let groups = self.rows().div_ceil(most).max(4).next_multiple_of(2);
        self.rows().div_ceil(groups).next_multiple_of(12)
    }

    /// Calls `each` with pieces of a patch, as ranges of its columns, and where they start in the image (none:
    /// outside).
    #[inline(always)]
    fn pieces(&self, row: usize, mut each: impl FnMut(Range<usize>, Option<usize>)) {
        let (channels, kernel, scale) = (self.channels_in, self.kernel, usize::from(self.upsample));
        let [height_out, width_out] = self.output_size();
        let (image, i, j) = (row / width_out / height_out, row / width_out % height_out, row % width_out);
        let [height, width] = self.size();
        // the first columns of the kernel may lie before the image, the last ones behind it
        let left = j * self.stride;
        let before = self.padding.saturating_sub(left).min(kernel);
        let inside = before..(width + self.padding).saturating_sub(left).clamp(before, kernel);
        for kernel_row in 0..kernel {
            let y = (i * self.stride + kernel_row).wrapping_sub(self.padding);
            let start = kernel_row * kernel * channels;
            if y >= height {
                each(start..start + kernel * channels, None);
                continue;
            }
            let line = (image * self.height + (y >> scale)) * self.width;
            let at = |kernel_column: usize| (line + ((left + kernel_column - self.padding) >> scale)) * channels;
            each(start..start + inside.start * channels, None);
            if self.upsample {
                for column in inside.clone() {
                    each(start + column * channels..start + (column + 1) * channels, Some(at(column)));
                }
            } else if !inside.is_empty() {
                each(start + inside.start * channels..start + inside.end * channels, Some(at(inside.start)));
            }
            each(start + inside.end * channels..start + kernel * channels, None);
        }
    }

    /// Gathers some columns of some patches.
    #[inline(always)]
    fn gather(&self, x: &[f32], rows: Range<usize>, columns: &Range<usize>, out: &mut [f32], stride: usize) {
        for (row, out) in rows.zip(out.chunks_mut(stride)) {
            self.pieces(row, |piece, start| {
                let part = intersection(&piece, columns);
                if part.is_empty() {
                    return;
                }
                let out = &mut out[part.start - columns.start..part.end - columns.start];
                match start {
                    Some(start) => out.copy_from_slice(&x[start + part.start - piece.start..][..part.len()]),
                    None => out.fill(0.0),
                }
            });
        }
    }

    /// `W` of one block of output channels, `[kernel² channels_in][BLOCK]`.
    fn pack(&self, weight: &[f32], outputs: Range<usize>, out: &mut [f32]) {
        let (taps, depth) = (self.kernel * self.kernel, self.depth());
        if taps == 1 {
            transpose_block(outputs.len(), depth, &weight[outputs.start * depth..], depth, out);
            return;
        }
        let mut staged = Scratch::take(BLOCK * taps * BLOCK);
        for inputs in (0..self.channels_in.div_ceil(BLOCK)).map(|index| block(self.channels_in, index)) {
            let from = &weight[outputs.start * depth + inputs.start * taps..];
            transpose_block(outputs.len(), inputs.len() * taps, from, depth, &mut staged);
            for (row, input) in inputs.enumerate() {
                for tap in 0..taps {
                    let line = &staged[(row * taps + tap) * BLOCK..][..BLOCK];
                    out[(tap * self.channels_in + input) * BLOCK..][..BLOCK].copy_from_slice(line);
                }
            }
        }
    }
}

/// `y = P W + bias`
pub(crate) fn forward(shape: &Convolution, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let (rows, depth) = (shape.rows(), shape.depth());
    let work = 2 * rows * depth * shape.channels_out;
    let blocks = shape.channels_out.div_ceil(BLOCK);
    let group = shape.group();
    let y = Shared::new(y);
    if rows <= FEW && blocks > 1 {
        for_each_task(blocks, work, |index| {
            let mut packed = Scratch::take(depth * BLOCK);
            shape.pack(weight, block(shape.channels_out, index), &mut packed);
            for start in (0..rows).step_by(group) {
                let rows = start..(start + group).min(rows);
                dispatch(ForwardTask { shape, x, bias, rows, blocks: index..index + 1, packed: &packed, y });
            }
        });
        return;
    }
    let mut packed = Scratch::take(blocks * depth * BLOCK);
    for_each_chunk(&mut packed, depth * BLOCK, weight.len() * 32, |index, packed| {
        shape.pack(weight, block(shape.channels_out, index), packed);
    });
    for_each_task(rows.div_ceil(group), work, |index| {
        let rows = index * group..(index * group + group).min(rows);
        dispatch(ForwardTask { shape, x, bias, rows, blocks: 0..blocks, packed: &packed, y });
    });
}

/// Some rows and some blocks of output channels of `y`.
struct ForwardTask<'a> {
    shape: &'a Convolution,
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    rows: Range<usize>,
    blocks: Range<usize>,
    /// The weights of `blocks`.
    packed: &'a [f32],
    y: Shared<'a>,
}

impl WithSimd for ForwardTask<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { shape, x, bias, rows, blocks, packed, y } = self;
        let (depth, channels) = (shape.depth(), shape.channels_out);
        let stride = padded(depth);
        let mut patches = Scratch::take(if shape.is_pointwise() { 0 } else { rows.len() * stride });
        let (left, left_stride) = if shape.is_pointwise() {
            (&x[rows.start * depth..], depth)
        } else {
            shape.gather(x, rows.clone(), &(0..depth), &mut patches, stride);
            (&*patches, stride)
        };
        for (index, packed) in blocks.zip(packed.chunks_exact(depth * BLOCK)) {
            let outputs = block(channels, index);
            let product = Product {
                rows: rows.len(),
                columns: outputs.len(),
                depth,
                left,
                left_stride,
                transposed: false,
                right: packed,
                right_stride: BLOCK,
                start: bias.map_or(Start::Zero, |bias| Start::Row(&bias[outputs.clone()])),
            };
            #[expect(unsafe_code, reason = "see `Shared`")]
            // SAFETY: every pair of a row and a block of output channels belongs to one task.
            unsafe {
                product.run_shared(simd, y.skip(rows.start * channels + outputs.start), channels);
            }
        }
    }
}

/// `dP = dy Wᵀ`, added back to the pixels.
pub(crate) fn input_gradient(shape: &Convolution, y_gradient: &[f32], weight: &[f32], x_gradient: &mut [f32]) {
    let (rows, depth, taps) = (shape.rows(), shape.depth(), shape.kernel * shape.kernel);
    let (channels_in, channels_out) = (shape.channels_in, shape.channels_out);
    let work = 2 * rows * depth * channels_out;
    // `[channel out][kernel row][kernel column][channel in]`
    let mut packed = Scratch::take(if taps == 1 { 0 } else { weight.len() });
    if taps > 1 {
        for_each_chunk(&mut packed, BLOCK * depth, weight.len() * 32, |index, packed| {
            for (output, packed) in block(channels_out, index).zip(packed.chunks_exact_mut(depth)) {
                transpose([channels_in, taps], (&weight[output * depth..], taps), (packed, channels_in));
            }
        });
    }
    let weight = if taps == 1 { weight } else { &packed };
    // patches of one image overlap, those of different images do not
    let (unit, pixels) = if shape.is_pointwise() {
        (shape.group(), shape.group())
    } else {
        (rows / shape.batch, shape.height * shape.width)
    };
    for_each_chunk(x_gradient, pixels * channels_in, work, |index, out| {
        let rows = index * unit..(index * unit + unit).min(rows);
        dispatch(InputTask { shape, y_gradient, weight, rows, out, start: index * pixels * channels_in });
    });
}

/// The input gradient from some rows of the output gradient.
struct InputTask<'a> {
    shape: &'a Convolution,
    y_gradient: &'a [f32],
    /// `Wᵀ`
    weight: &'a [f32],
    rows: Range<usize>,
    /// The pixels under these rows.
    out: &'a mut [f32],
    /// Where these pixels start among all.
    start: usize,
}

impl WithSimd for InputTask<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { shape, y_gradient, weight, rows, out, start } = self;
        let (depth, channels) = (shape.depth(), shape.channels_out);
        let (stride, y_stride) = (padded(depth), padded(channels));
        let group = shape.group();
        let mut lines = Scratch::take(group * y_stride);
        let mut patches = Scratch::take(if shape.is_pointwise() { 0 } else { group * stride });
        if !shape.is_pointwise() {
            out.fill(0.0);
        }
        for first in rows.clone().step_by(group) {
            let rows = first..(first + group).min(rows.end);
            for (row, line) in rows.clone().zip(lines.chunks_exact_mut(y_stride)) {
                line[..channels].copy_from_slice(&y_gradient[row * channels..][..channels]);
            }
            let product = Product {
                rows: rows.len(),
                columns: depth,
                depth: channels,
                left: &lines,
                left_stride: y_stride,
                transposed: false,
                right: weight,
                right_stride: depth,
                start: Start::Zero,
            };
            if shape.is_pointwise() {
                product.run(simd, &mut out[rows.start * depth - start..], depth);
                continue;
            }
            product.run(simd, &mut patches, stride);
            for (row, patch) in rows.zip(patches.chunks_exact(stride)) {
                shape.pieces(row, |piece, at| {
                    let Some(at) = at else { return };
                    let out = &mut out[at - start..][..piece.len()];
                    for (out, &value) in out.iter_mut().zip(&patch[piece]) {
                        *out += value;
                    }
                });
            }
        }
    }
}

/// `dW = dyᵀ P`, as `[channels_out][kernel² channels_in]`, and the sum of the rows of `dy`.
///
/// A task sums one block of `dW` over a part of the rows; the number of parts depends on the shape alone.
pub(crate) fn weight_gradient(
    shape: &Convolution,
    x: &[f32],
    y_gradient: &[f32],
    weight_gradient: &mut [f32],
    bias_gradient: Option<&mut [f32]>,
) {
    let (rows, depth, channels) = (shape.rows(), shape.depth(), shape.channels_out);
    let taps = shape.kernel * shape.kernel;
    let (work, len) = (2 * rows * depth * channels, weight_gradient.len());
    let width = depth.div_ceil(depth.div_ceil(WIDE)).next_multiple_of(32);
    let (blocks_in, blocks_out) = (depth.div_ceil(width), channels.div_ceil(BLOCK));
    let groups = rows.div_ceil(GRADIENT_GROUP);
    let parts = (8 / (blocks_in * blocks_out)).clamp(1, groups.max(1));
    // one part of a 1x1 convolution is the gradient itself; otherwise the sums of the parts follow each other
    let mut sums = Scratch::take(if taps * parts == 1 { 0 } else { parts * len });
    let mut bias_sums = Scratch::take(parts * channels);
    let weights = Shared::new(if taps * parts == 1 { &mut *weight_gradient } else { &mut sums });
    let biases = Shared::new(&mut bias_sums);
    for_each_task(blocks_out * blocks_in * parts, work, |index| {
        let (block_in, block_out, part) =
            (index % blocks_in, index / blocks_in % blocks_out, index / blocks_in / blocks_out);
        let outputs = block(channels, block_out);
        let columns = block_in * width..(block_in * width + width).min(depth);
        let groups = groups * part / parts..groups * (part + 1) / parts;
        let sum = weights.skip(part * len + outputs.start * depth + columns.start);
        let bias = part * channels + outputs.start..part * channels + outputs.end;
        #[expect(unsafe_code, reason = "see `Shared`")]
        // SAFETY: of the tasks for some output channels and part, only the first has the bias.
        let bias = (block_in == 0).then(|| unsafe { biases.part(bias) });
        dispatch(SumTask { shape, x, y_gradient, groups, columns, outputs, sum, bias });
    });
    if let Some(bias_gradient) = bias_gradient {
        add_parts(bias_gradient, &bias_sums, 0, channels);
    }
    if taps * parts == 1 {
        return;
    }
    for_each_chunk(weight_gradient, BLOCK * depth, len * 32, |index, out| {
        let mut line = Scratch::take(depth);
        for (output, out) in block(channels, index).zip(out.chunks_exact_mut(depth)) {
            add_parts(&mut line, &sums, output * depth, len);
            transpose([taps, shape.channels_in], (&line, shape.channels_in), (out, taps));
        }
    });
}

/// The transpose of `rows` (at most [`BLOCK`]) rows, in rows of [`BLOCK`].
fn transpose_block(rows: usize, columns: usize, from: &[f32], from_stride: usize, to: &mut [f32]) {
    if rows == BLOCK {
        transpose_rows::<BLOCK>(columns, from, from_stride, to);
    } else {
        transpose([rows, columns], (from, from_stride), (to, BLOCK));
    }
}

/// Sums the values at `start` of every part of length `len`.
fn add_parts(out: &mut [f32], parts: &[f32], start: usize, len: usize) {
    out.fill(0.0);
    for part in parts.chunks_exact(len) {
        out.iter_mut().zip(&part[start..]).for_each(|(sum, value)| *sum += value);
    }
}

/// One block of `dW`, summed over some groups of patches.
struct SumTask<'a> {
    shape: &'a Convolution,
    x: &'a [f32],
    y_gradient: &'a [f32],
    groups: Range<usize>,
    /// Columns of the patches.
    columns: Range<usize>,
    outputs: Range<usize>,
    /// Where the block starts.
    sum: Shared<'a>,
    /// The bias gradient, if it belongs to this task.
    bias: Option<&'a mut [f32]>,
}

impl WithSimd for SumTask<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { shape, x, y_gradient, groups, columns, outputs, sum, mut bias } = self;
        let (count, channels, stride) = (shape.rows(), shape.channels_out, padded(columns.len()));
        let mut patches = Scratch::take(GRADIENT_GROUP * stride);
        if let Some(bias) = &mut bias {
            bias.fill(0.0);
        }
        for group in groups.clone() {
            let rows = group * GRADIENT_GROUP..(group * GRADIENT_GROUP + GRADIENT_GROUP).min(count);
            shape.gather(x, rows.clone(), &columns, &mut patches, stride);
            if let Some(bias) = &mut bias {
                for row in rows.clone() {
                    let line = &y_gradient[row * channels..][outputs.clone()];
                    for vector in 0..outputs.len().div_ceil(S::F32_LANES) {
                        let total = simd.add_f32s(load(simd, bias, vector), load(simd, line, vector));
                        store(simd, bias, vector, total);
                    }
                }
            }
            let product = Product {
                rows: outputs.len(),
                columns: columns.len(),
                depth: rows.len(),
                left: &y_gradient[rows.start * channels + outputs.start..],
                left_stride: channels,
                transposed: true,
                right: &patches,
                right_stride: stride,
                start: Start::first(group == groups.start),
            };
            #[expect(unsafe_code, reason = "see `Shared`")]
            // SAFETY: every block of `dW` of one part belongs to one task.
            unsafe {
                product.run_shared(simd, sum, shape.depth());
            }
        }
    }
}
