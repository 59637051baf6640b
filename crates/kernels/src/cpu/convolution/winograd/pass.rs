//! The convolution, and its input gradient as another convolution.

use super::{
    filter::{Filter, both_ways},
    tiles::{Images, Layout, Tiles, VECTOR, ZEROS, block, block_size, blocks, for_each_vector},
};
use crate::{
    cpu::{
        convolution::Convolution,
        convolution::product::{Product, Start},
        convolution::vectors::{Shared, for_each_chunk, for_each_task, read, transpose, transpose_rows, write},
        scratch::Scratch,
    },
    instruction_set::dispatch,
};
use pulp::{Simd, WithSimd};
use std::{marker::PhantomData, ops::Range};

/// Tiles that share transformed pixels in the cache.
const GROUP: usize = 16;
/// With at most this many tiles every task transforms its weights itself.
const FEW: usize = 48;
/// Input channels whose weights are transposed at a time.
const STAGED: usize = 32;

/// A forward convolution, or an input gradient written as one.
pub(crate) struct Pass<'a, F, const M: usize, const T: usize> {
    tiles: Tiles,
    images: Images<'a>,
    batch: usize,
    /// Channels in and out.
    channels: [usize; 2],
    weight: &'a [f32],
    /// Whether the weights are turned by 180 degrees and their channels exchanged.
    turned: bool,
    bias: Option<&'a [f32]>,
    /// Whether squares of 2x2 output pixels are summed into one.
    fold: bool,
    filter: PhantomData<F>,
}

impl<'a, F: Filter<M, T>, const M: usize, const T: usize> Pass<'a, F, M, T> {
    /// The convolution itself.
    pub fn forward(shape: &Convolution, x: &'a [f32], weight: &'a [f32], bias: Option<&'a [f32]>) -> Self {
        Self {
            tiles: Tiles::new(shape.output_size(), M, shape.upsample),
            images: Images { pixels: x, channels: shape.channels_in, half: shape.upsample },
            batch: shape.batch,
            channels: [shape.channels_in, shape.channels_out],
            weight,
            turned: false,
            bias,
            fold: false,
            filter: PhantomData,
        }
    }

    /// The input gradient.
    pub fn input_gradient(shape: &Convolution, y_gradient: &'a [f32], weight: &'a [f32]) -> Self {
        Self {
            tiles: Tiles::new(shape.output_size(), M, shape.upsample),
            images: Images { pixels: y_gradient, channels: shape.channels_out, half: false },
            batch: shape.batch,
            channels: [shape.channels_out, shape.channels_in],
            weight,
            turned: true,
            bias: None,
            fold: shape.upsample,
            filter: PhantomData,
        }
    }

    /// Computes all of `out`.
    pub fn run(&self, out: &mut [f32]) {
        let count = self.batch * self.tiles.per_image();
        let [blocks_in, blocks_out] = self.channels.map(|channels| blocks(channels).len());
        let work = 2 * count * self.tiles.products() * self.channels[0] * self.channels[1];
        let out = Shared::new(out);
        if count <= FEW && blocks_out >= 2 {
            for_each_task(blocks_out, work, |block| {
                dispatch(PassTask { pass: self, group: 0..count, blocks: block..block + 1, weights: None, out });
            });
            return;
        }
        let len = self.weight_layout().point * T * T;
        let mut weights = Scratch::take(blocks_in * blocks_out * len);
        for_each_chunk(&mut weights, len, self.weight.len() * 64, |index, out| {
            dispatch(WeightTask { pass: self, block_in: index % blocks_in, block_out: index / blocks_in, out });
        });
        for_each_task(count.div_ceil(GROUP), work, |index| {
            let group = index * GROUP..(index * GROUP + GROUP).min(count);
            dispatch(PassTask { pass: self, group, blocks: 0..blocks_out, weights: Some(&weights), out });
        });
    }

    /// Layout of a block of transformed weights, `[point][channel in][channel out]`.
    fn weight_layout(&self) -> Layout {
        Layout::new(block_size(self.channels[0]), block_size(self.channels[1]))
    }

    /// `G w Gᵀ` of one block.
    #[inline(always)]
    fn transform_weight<S: Simd>(&self, simd: S, inputs: Range<usize>, outputs: Range<usize>, out: &mut [f32]) {
        let layout = self.weight_layout();
        let [channels_in, channels_out] = self.channels;
        // `[channel in][3][3][VECTOR channels out]`, small enough for the first-level cache and read in long pieces.
        let mut staged = Scratch::take(STAGED * 9 * VECTOR);
        for first in inputs.clone().step_by(STAGED) {
            let chunk = first..(first + STAGED).min(inputs.end);
            for output in outputs.clone().step_by(VECTOR) {
                let height = VECTOR.min(outputs.end - output);
                if height == VECTOR && self.turned {
                    for (row, input) in chunk.clone().enumerate() {
                        let from = &self.weight[(input * channels_out + output) * 9..];
                        transpose_rows::<VECTOR>(9, from, 9, &mut staged[row * 9 * VECTOR..][..9 * VECTOR]);
                    }
                } else if height == VECTOR {
                    let from = &self.weight[(output * channels_in + first) * 9..];
                    transpose_rows::<VECTOR>(chunk.len() * 9, from, channels_in * 9, &mut staged);
                } else if self.turned {
                    for (row, input) in chunk.clone().enumerate() {
                        let from = &self.weight[(input * channels_out + output) * 9..];
                        transpose([height, 9], (from, 9), (&mut staged[row * 9 * VECTOR..], VECTOR));
                    }
                } else {
                    let from = &self.weight[(output * channels_in + first) * 9..];
                    transpose([height, chunk.len() * 9], (from, channels_in * 9), (&mut staged, VECTOR));
                }
                for (row, staged) in staged.chunks_exact(9 * VECTOR).enumerate().take(chunk.len()) {
                    let row = (first - inputs.start + row) * layout.row + output - outputs.start;
                    for start in (0..height).step_by(S::F32_LANES) {
                        let mut square = [[simd.splat_f32s(0.0); 3]; 3];
                        for tap in 0..9 {
                            let from = if self.turned { 8 - tap } else { tap };
                            square[tap / 3][tap % 3] = read(simd, staged, from * VECTOR + start);
                        }
                        let square = both_ways!(simd, F::weight, square, 3 => T);
                        layout.scatter(simd, square, out, row + start);
                    }
                }
            }
        }
    }

    /// `Aᵀ m A` plus the bias, written to the tiles' pixels.
    #[inline(always)]
    fn transform_output<S: Simd>(
        &self,
        simd: S,
        group: Range<usize>,
        channels: Range<usize>,
        products: &[f32],
        layout: Layout,
        out: &Shared,
    ) {
        let scale = usize::from(self.fold);
        let [height, width] = self.tiles.size.map(|n| n >> scale);
        let bias = self.bias.map_or(&ZEROS[..channels.len()], |bias| &bias[channels.clone()]);
        for (row, tile) in group.enumerate() {
            let (image, origin) = self.tiles.place(tile);
            let origin = origin.map(|n| n >> scale);
            let first = ((image * height + origin[0]) * width + origin[1]) * self.channels[1] + channels.start;
            // the last tiles may reach over the edge of the image
            let (rows, columns) = ((height - origin[0]).min(M >> scale), (width - origin[1]).min(M >> scale));
            for_each_vector!(simd, channels.len(), |start, PARTIAL| {
                let square = layout.gather::<S, T>(simd, products, row * layout.row + start);
                let mut square = both_ways!(simd, F::output, square, T => M);
                if self.fold {
                    square = fold(simd, square);
                }
                let bias = simd.partial_load_f32s(&bias[start..]);
                let lanes = if PARTIAL { channels.len() - start } else { S::F32_LANES };
                for i in 0..M {
                    for j in 0..M {
                        if i < rows && j < columns {
                            let at = first + (i * width + j) * self.channels[1] + start;
                            #[expect(unsafe_code, reason = "see `Shared`")]
                            // SAFETY: every pixel belongs to one tile, every tile and block of channels to one task.
                            let out = unsafe { out.part(at..at + lanes) };
                            let value = simd.add_f32s(square[i][j], bias);
                            if PARTIAL { simd.partial_store_f32s(out, value) } else { write(simd, out, 0, value) }
                        }
                    }
                }
            });
        }
    }
}

/// Sums squares of 2x2 vectors into the upper left quarter.
#[inline(always)]
fn fold<S: Simd, const M: usize>(simd: S, mut square: [[S::f32s; M]; M]) -> [[S::f32s; M]; M] {
    for i in 0..M / 2 {
        for j in 0..M / 2 {
            let upper = simd.add_f32s(square[2 * i][2 * j], square[2 * i][2 * j + 1]);
            let lower = simd.add_f32s(square[2 * i + 1][2 * j], square[2 * i + 1][2 * j + 1]);
            square[i][j] = simd.add_f32s(upper, lower);
        }
    }
    square
}

/// Transforms one block of weights.
struct WeightTask<'a, F, const M: usize, const T: usize> {
    pass: &'a Pass<'a, F, M, T>,
    block_in: usize,
    block_out: usize,
    out: &'a mut [f32],
}

impl<F: Filter<M, T>, const M: usize, const T: usize> WithSimd for WeightTask<'_, F, M, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [channels_in, channels_out] = self.pass.channels;
        let (inputs, outputs) = (block(channels_in, self.block_in), block(channels_out, self.block_out));
        self.pass.transform_weight(simd, inputs, outputs, self.out);
    }
}

/// Computes some tiles of some blocks of output channels.
struct PassTask<'a, F, const M: usize, const T: usize> {
    pass: &'a Pass<'a, F, M, T>,
    group: Range<usize>,
    /// Indices of the blocks of output channels.
    blocks: Range<usize>,
    /// All transformed weights, `[block out][block in]`, if tasks share them.
    weights: Option<&'a [f32]>,
    out: Shared<'a>,
}

impl<F: Filter<M, T>, const M: usize, const T: usize> WithSimd for PassTask<'_, F, M, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { pass, group, weights, .. } = self;
        let [channels_in, channels_out] = pass.channels;
        let pixel_layout = Layout::new(group.len(), block_size(channels_in));
        let product_layout = Layout::new(group.len(), block_size(channels_out));
        let weight_layout = pass.weight_layout();
        let (pixel_len, weight_len) = (pixel_layout.point * T * T, weight_layout.point * T * T);
        let blocks_in = blocks(channels_in).len();
        // transformed pixels are kept if a second block of output channels needs them
        let keep = self.blocks.len() > 1;
        let mut pixels = Scratch::take(pixel_len * if keep { blocks_in } else { 1 });
        let mut products = Scratch::take(product_layout.point * T * T);
        let mut own_weights = Scratch::take(if weights.is_none() { weight_len } else { 0 });
        product_layout.clear_vanishing(&pass.tiles, &mut products);
        for block_out in self.blocks.clone() {
            let outputs = block(channels_out, block_out);
            for (block_in, inputs) in blocks(channels_in).enumerate() {
                let pixels = &mut pixels[if keep { block_in * pixel_len } else { 0 }..][..pixel_len];
                if block_out == self.blocks.start {
                    let out = (&mut *pixels, pixel_layout);
                    pass.images.transform::<S, F, M, T>(simd, &pass.tiles, group.clone(), &inputs, out);
                }
                let weights = match weights {
                    Some(weights) => &weights[(block_out * blocks_in + block_in) * weight_len..][..weight_len],
                    None => {
                        pass.transform_weight(simd, inputs.clone(), outputs.clone(), &mut own_weights);
                        &own_weights
                    }
                };
                for point in (0..T * T).filter(|&point| !pass.tiles.vanishes(point)) {
                    let product = Product {
                        rows: group.len(),
                        columns: outputs.len(),
                        depth: inputs.len(),
                        left: &pixels[point * pixel_layout.point..],
                        left_stride: pixel_layout.row,
                        transposed: false,
                        right: &weights[point * weight_layout.point..],
                        right_stride: weight_layout.row,
                        start: Start::first(block_in == 0),
                    };
                    product.run(simd, &mut products[point * product_layout.point..], product_layout.row);
                }
            }
            pass.transform_output(simd, group.clone(), outputs, &products, product_layout, &self.out);
        }
    }
}
