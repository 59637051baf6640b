//! The gradient of the weights and the bias.

use super::{
    filter::{Filter, both_ways},
    tiles::{Images, Layout, Tiles, block, block_size, blocks},
};
use crate::{
    cpu::{
        convolution::Convolution,
        convolution::product::{Product, Start},
        convolution::vectors::{Shared, for_each_chunk, for_each_task, load, store, transpose, write},
        scratch::Scratch,
    },
    instruction_set::dispatch,
};
use pulp::{Simd, WithSimd};
use std::{marker::PhantomData, ops::Range};

/// The gradient of the weights and the bias.
pub(crate) struct WeightGradient<'a, F, const M: usize, const T: usize> {
    tiles: Tiles,
    x: Images<'a>,
    y_gradient: Images<'a>,
    batch: usize,
    filter: PhantomData<F>,
}

/// Tiles in a group for the weight gradient.
const GRADIENT_GROUP: usize = 24;

impl<'a, F: Filter<M, T>, const M: usize, const T: usize> WeightGradient<'a, F, M, T> {
    pub fn new(shape: &Convolution, x: &'a [f32], y_gradient: &'a [f32]) -> Self {
        Self {
            tiles: Tiles::new(shape.output_size(), M, shape.upsample),
            x: Images { pixels: x, channels: shape.channels_in, half: shape.upsample },
            y_gradient: Images { pixels: y_gradient, channels: shape.channels_out, half: false },
            batch: shape.batch,
            filter: PhantomData,
        }
    }

    /// Computes all of both gradients.
    ///
    /// A task sums one block of the transformed gradient over a part of the tiles. With few blocks there are several
    /// parts, whose sums are added in the end; their number depends on the shape alone.
    pub fn run(&self, weight_gradient: &mut [f32], bias_gradient: Option<&mut [f32]>) {
        let (channels_in, channels_out) = (self.x.channels, self.y_gradient.channels);
        let (blocks_in, blocks_out) = (blocks(channels_in).len(), blocks(channels_out).len());
        let groups = (self.batch * self.tiles.per_image()).div_ceil(GRADIENT_GROUP);
        let parts = (4 / (blocks_in * blocks_out)).clamp(1, groups.max(1));
        let work = 2 * groups * GRADIENT_GROUP * self.tiles.products() * channels_in * channels_out;
        let (weight_gradient, bias_gradient) = (Shared::new(weight_gradient), bias_gradient.map(Shared::new));
        let task = |index: usize, part: usize| {
            let groups = groups * part / parts..groups * (part + 1) / parts;
            SumTask { gradient: self, block_in: index % blocks_in, block_out: index / blocks_in, groups }
        };
        let len = self.sum_len();
        if parts == 1 {
            for_each_task(blocks_in * blocks_out, work, |index| {
                let mut sum = Scratch::take(len);
                dispatch(Sum { task: task(index, 0), sum: &mut sum });
                dispatch(Finish { task: task(index, 0), parts: &sum, weight_gradient, bias_gradient });
            });
            return;
        }
        let mut sums = Scratch::take(blocks_in * blocks_out * parts * len);
        for_each_chunk(&mut sums, len, work, |index, sum| {
            dispatch(Sum { task: task(index / parts, index % parts), sum });
        });
        for_each_task(blocks_in * blocks_out, work, |index| {
            let parts = &sums[index * parts * len..][..parts * len];
            dispatch(Finish { task: task(index, 0), parts, weight_gradient, bias_gradient });
        });
    }

    /// Layout of a block of the transformed gradient, `[point][channel in][channel out]`.
    fn layout(&self) -> Layout {
        Layout::new(block_size(self.x.channels), block_size(self.y_gradient.channels))
    }

    /// Length of a block of the transformed gradient, followed by the bias gradient.
    fn sum_len(&self) -> usize {
        self.layout().point * T * T + block_size(self.y_gradient.channels)
    }
}

/// One block of the transformed gradient and some groups of tiles.
struct SumTask<'a, F, const M: usize, const T: usize> {
    gradient: &'a WeightGradient<'a, F, M, T>,
    block_in: usize,
    block_out: usize,
    groups: Range<usize>,
}

/// Sums one block of the transformed gradient over some groups of tiles.
struct Sum<'a, F, const M: usize, const T: usize> {
    task: SumTask<'a, F, M, T>,
    sum: &'a mut [f32],
}

impl<F: Filter<M, T>, const M: usize, const T: usize> WithSimd for Sum<'_, F, M, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { task: SumTask { gradient, block_in, block_out, groups }, sum } = self;
        let WeightGradient { tiles, x, y_gradient, .. } = gradient;
        let (inputs, outputs) = (block(x.channels, block_in), block(y_gradient.channels, block_out));
        let x_layout = Layout::new(GRADIENT_GROUP, block_size(x.channels));
        let y_layout = Layout::new(GRADIENT_GROUP, block_size(y_gradient.channels));
        let layout = gradient.layout();
        let (sum, bias) = sum.split_at_mut(layout.point * T * T);
        bias.fill(0.0);
        layout.clear_vanishing(tiles, sum);
        let mut x_points = Scratch::take(x_layout.point * T * T);
        let mut y_points = Scratch::take(y_layout.point * T * T);
        let count = gradient.batch * tiles.per_image();
        for group in groups.clone() {
            let range = group * GRADIENT_GROUP..(group * GRADIENT_GROUP + GRADIENT_GROUP).min(count);
            x.transform::<S, F, M, T>(simd, tiles, range.clone(), &inputs, (&mut x_points, x_layout));
            let out = (&mut *y_points, y_layout);
            y_gradient.transform_gradient::<S, F, M, T>(simd, tiles, range.clone(), &outputs, out);
            for point in (0..T * T).filter(|&point| !tiles.vanishes(point)) {
                let product = Product {
                    rows: inputs.len(),
                    columns: outputs.len(),
                    depth: range.len(),
                    left: &x_points[point * x_layout.point..],
                    left_stride: x_layout.row,
                    transposed: true,
                    right: &y_points[point * y_layout.point..],
                    right_stride: y_layout.row,
                    start: Start::first(group == groups.start),
                };
                product.run(simd, &mut sum[point * layout.point..], layout.row);
            }
            // the bias gradient, at the point (1, 1)
            if block_in == 0 {
                for row in 0..range.len() {
                    let line = &y_points[(T + 1) * y_layout.point + row * y_layout.row..][..y_layout.row];
                    for vector in 0..outputs.len().div_ceil(S::F32_LANES) {
                        let sum = simd.add_f32s(load(simd, bias, vector), load(simd, line, vector));
                        store(simd, bias, vector, sum);
                    }
                }
            }
        }
    }
}

/// Adds the parts of one block, transforms it back and writes it.
struct Finish<'a, F, const M: usize, const T: usize> {
    task: SumTask<'a, F, M, T>,
    parts: &'a [f32],
    weight_gradient: Shared<'a>,
    bias_gradient: Option<Shared<'a>>,
}

impl<F: Filter<M, T>, const M: usize, const T: usize> WithSimd for Finish<'_, F, M, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { task: SumTask { gradient, block_in, block_out, .. }, parts, weight_gradient, bias_gradient } = self;
        let (channels_in, channels_out) = (gradient.x.channels, gradient.y_gradient.channels);
        let (inputs, outputs) = (block(channels_in, block_in), block(channels_out, block_out));
        let (layout, lanes) = (gradient.layout(), S::F32_LANES);
        // `[channel in][3][3][channel out]`, then `[channel out][channel in][3][3]`
        let mut staged = Scratch::take(inputs.len() * 9 * layout.row);
        for row in 0..inputs.len() {
            for start in (0..outputs.len()).step_by(lanes) {
                let mut square = [[simd.splat_f32s(0.0); T]; T];
                for part in parts.chunks_exact(gradient.sum_len()) {
                    let part = layout.gather::<S, T>(simd, part, row * layout.row + start);
                    for i in 0..T {
                        for j in 0..T {
                            square[i][j] = simd.add_f32s(square[i][j], part[i][j]);
                        }
                    }
                }
                let square = both_ways!(simd, F::weight_adjoint, square, T => 3);
                for tap in 0..9 {
                    write(simd, &mut staged, (row * 9 + tap) * layout.row + start, square[tap / 3][tap % 3]);
                }
            }
        }
        let width = inputs.len() * 9;
        let mut lines = Scratch::take(outputs.len() * width);
        transpose([width, outputs.len()], (&staged, layout.row), (&mut lines, width));
        for (line, output) in lines.chunks_exact(width).zip(outputs.clone()) {
            let at = (output * channels_in + inputs.start) * 9;
            #[expect(unsafe_code, reason = "see `Shared`")]
            // SAFETY: every task has its own block of weights.
            unsafe { weight_gradient.part(at..at + width) }.copy_from_slice(line);
        }
        if let Some(bias_gradient) = bias_gradient.filter(|_| block_in == 0) {
            #[expect(unsafe_code, reason = "see `Shared`")]
            // SAFETY: every block of output channels has one task with `block_in == 0`.
            let bias_gradient = unsafe { bias_gradient.part(outputs) };
            bias_gradient.fill(0.0);
            let bias_at = layout.point * T * T;
            for part in parts.chunks_exact(gradient.sum_len()) {
                for (total, &value) in bias_gradient.iter_mut().zip(&part[bias_at..]) {
                    *total += value;
                }
            }
        }
    }
}
