//! Concatenation of channels, nearest-neighbor upsampling, space to depth, and the sum of two tensors.
//!
//! All channels-last. Each backward is the transpose of its forward:
//!
//! ```text
//! concatenate         out[r, :]          = a[r, :] ++ b[r, :]                  split
//! upsample            out[2i+p, 2j+q, c] = in[i, j, c]                         the sum over p, q
//! space_to_depth      out[i, j, (c P + p) P + q] = in[i P + p, j P + q, c]     depth_to_space
//! ```
//!
//! The order of space_to_depth's channels is that of lucidrains' `b c (h p1) (w p2) -> b (c p1 p2) h w`.

use crate::cpu::operation::{Operation, View, all};
use crate::cpu::parallel::{BLOCK, check_length, check_lengths, run};

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

/// The shape of the smaller image: `[batch, height, width, channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Samples.
    pub batch: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Values of a pixel.
    pub channels: usize,
}

impl Image {
    /// Elements of the whole tensor.
    pub fn elements(&self) -> usize {
        self.batch * self.height * self.width * self.channels
    }

    fn row(&self) -> usize {
        self.width * self.channels
    }

    /// Where pixel `inner` of the patch `column` starts in a row of patches.
    #[inline(always)]
    fn pixel(&self, patch: usize, column: usize, inner: usize) -> usize {
        let (down, right) = (inner / patch, inner % patch);
        ((down * self.width + column) * patch + right) * self.channels
    }

    /// Panics unless both lengths fit, the larger `factor` times the elements.
    #[track_caller]
    fn check(&self, factor: usize, small: usize, large: usize) {
        assert!(self.elements() > 0 && factor > 0, "no dimension may be 0: {self:?}");
        check_length("the smaller image", small, self.elements());
        check_length("the larger image", large, factor * self.elements());
    }
}

/// Nearest neighbor upsampling by 2; `image` is the shape of the input.
pub fn upsample(image: Image, input: &[f32], output: &mut [f32]) {
    image.check(4, input.len(), output.len());
    let (row, channels) = (image.row(), image.channels);
    let rows = block_rows(4 * row);
    let tasks = input.chunks(rows * row).zip(output.chunks_mut(4 * rows * row)).map(|(input, output)| {
        move || {
            for (input, output) in input.chunks_exact(row).zip(output.chunks_exact_mut(4 * row)) {
                let (upper, lower) = output.split_at_mut(2 * row);
                for (pixel, pair) in input.chunks_exact(channels).zip(upper.chunks_exact_mut(2 * channels)) {
                    pair[..channels].copy_from_slice(pixel);
                    pair[channels..].copy_from_slice(pixel);
                }
                lower.copy_from_slice(upper);
            }
        }
    });
    run(tasks.collect(), 4 * image.elements());
}

/// The gradient of [`upsample`]: each input pixel takes the sum of its four copies.
pub fn upsample_backward(image: Image, output_gradient: &[f32], input_gradient: &mut [f32]) {
    image.check(4, input_gradient.len(), output_gradient.len());
    let (row, channels) = (image.row(), image.channels);
    let rows = block_rows(4 * row);
    let blocks = input_gradient.chunks_mut(rows * row).zip(output_gradient.chunks(4 * rows * row));
    let tasks = blocks.map(|(input, output)| {
        move || {
            for (input, output) in input.chunks_exact_mut(row).zip(output.chunks_exact(4 * row)) {
                let (upper, lower) = output.split_at(2 * row);
                let pairs = upper.chunks_exact(2 * channels).zip(lower.chunks_exact(2 * channels));
                for (pixel, (upper, lower)) in input.chunks_exact_mut(channels).zip(pairs) {
                    let (a, b) = upper.split_at(channels);
                    let (c, d) = lower.split_at(channels);
                    for ((((sum, a), b), c), d) in pixel.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                        *sum = (a + b) + (c + d);
                    }
                }
            }
        }
    });
    run(tasks.collect(), 4 * image.elements());
}

/// Each `patch` times `patch` pixels become one of `patch²` times the channels.
///
/// `image` has the height and width of the output, the channels of the input.
pub fn space_to_depth(image: Image, patch: usize, input: &[f32], output: &mut [f32]) {
    let area = patch * patch;
    image.check(area, input.len() / area.max(1), output.len());
    let row = area * image.row(); // a row of patches
    let rows = block_rows(row);
    let tasks = input.chunks(rows * row).zip(output.chunks_mut(rows * row)).map(|(input, output)| {
        move || {
            for (input, output) in input.chunks_exact(row).zip(output.chunks_exact_mut(row)) {
                for (column, joined) in output.chunks_exact_mut(area * image.channels).enumerate() {
                    let pixel = |inner| &input[image.pixel(patch, column, inner)..][..image.channels];
                    if patch == 2 {
                        // all at once: interleaved stores the compiler makes vectors of
                        let pixels = [pixel(0), pixel(1), pixel(2), pixel(3)];
                        for (channel, joined) in joined.as_chunks_mut().0.iter_mut().enumerate() {
                            *joined = pixels.map(|pixel| pixel[channel]);
                        }
                        continue;
                    }
                    for inner in 0..area {
                        let joined = joined[inner..].iter_mut().step_by(area);
                        joined.zip(pixel(inner)).for_each(|(joined, value)| *joined = *value);
                    }
                }
            }
        }
    });
    run(tasks.collect(), 2 * area * image.elements());
}

/// The inverse of [`space_to_depth`], and its backward; `image` as there.
pub fn depth_to_space(image: Image, patch: usize, input: &[f32], output: &mut [f32]) {
    let area = patch * patch;
    image.check(area, output.len() / area.max(1), input.len());
    let row = area * image.row();
    let rows = block_rows(row);
    let tasks = input.chunks(rows * row).zip(output.chunks_mut(rows * row)).map(|(input, output)| {
        move || {
            for (input, output) in input.chunks_exact(row).zip(output.chunks_exact_mut(row)) {
                for (column, joined) in input.chunks_exact(area * image.channels).enumerate() {
                    if patch == 2 {
                        // all at once: strided loads the compiler makes vectors of
                        let (upper, lower) = output.split_at_mut(row / 2);
                        let pair = 2 * column * image.channels..2 * (column + 1) * image.channels;
                        let (a, b) = upper[pair.clone()].split_at_mut(image.channels);
                        let (c, d) = lower[pair].split_at_mut(image.channels);
                        let pixels = a.iter_mut().zip(b).zip(c).zip(d);
                        for ((((a, b), c), d), joined) in pixels.zip(joined.as_chunks::<4>().0) {
                            [*a, *b, *c, *d] = *joined;
                        }
                        continue;
                    }
                    for inner in 0..area {
                        let pixel = &mut output[image.pixel(patch, column, inner)..][..image.channels];
                        let joined = joined[inner..].iter().step_by(area);
                        pixel.iter_mut().zip(joined).for_each(|(value, joined)| *value = *joined);
                    }
                }
            }
        }
    });
    run(tasks.collect(), 2 * area * image.elements());
}

/// `output = left + right`.
pub fn add(left: &[f32], right: &[f32], output: &mut [f32]) {
    check_lengths!(right: left.len(), output: left.len());
    let blocks = left.chunks(BLOCK).zip(right.chunks(BLOCK)).zip(output.chunks_mut(BLOCK));
    let tasks = blocks.map(|((left, right), output)| {
        move || output.iter_mut().zip(left).zip(right).for_each(|((sum, left), right)| *sum = left + right)
    });
    run(tasks.collect(), left.len());
}

/// `sum += other`.
pub fn add_assign(sum: &mut [f32], other: &[f32]) {
    check_lengths!(other: sum.len());
    let length = sum.len();
    let tasks = sum
        .chunks_mut(BLOCK)
        .zip(other.chunks(BLOCK))
        .map(|(sum, other)| move || sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += other));
    run(tasks.collect(), length);
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
