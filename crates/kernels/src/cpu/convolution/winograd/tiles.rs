//! Images cut into tiles, and where their transforms lie in memory.

use super::filter::{Filter, both_ways};
use crate::cpu::convolution::vectors::{read, write};
use pulp::Simd;
use std::ops::Range;

/// Index of the point -1, where upsampled images vanish.
pub(super) const MINUS_ONE: usize = 2;

/// Runs `$body` for the start of every vector of `$channels`, with the constant `$partial` set for a last part of one.
///
/// A macro, so that the two cases are compiled apart and all vectors stay in registers.
macro_rules! for_each_vector {
    ($simd:ident, $channels:expr, |$start:ident, $partial:ident| $body:block) => {{
        let (channels, lanes) = ($channels, S::F32_LANES);
        let whole = channels / lanes * lanes;
        for $start in (0..whole).step_by(lanes) {
            const $partial: bool = false;
            $body
        }
        if whole < channels {
            const $partial: bool = true;
            let $start = whole;
            $body
        }
    }};
}
pub(super) use for_each_vector;

/// Channels in a block, at most.
pub(super) const BLOCK: usize = 64;
/// Transformed rows are padded to whole vectors of at most this length.
pub(super) const VECTOR: usize = 16;
/// Pixels outside the image.
pub(super) static ZEROS: [f32; BLOCK] = [0.0; BLOCK];

/// Size of the blocks, all but the last, that `channels` are cut into.
pub(super) fn block_size(channels: usize) -> usize {
    channels.div_ceil(channels.div_ceil(BLOCK)).next_multiple_of(VECTOR)
}

/// One of the blocks of `channels`.
pub(super) fn block(channels: usize, index: usize) -> Range<usize> {
    let size = block_size(channels);
    index * size..(index * size + size).min(channels)
}

/// All blocks of `channels`.
pub(super) fn blocks(channels: usize) -> impl ExactSizeIterator<Item = Range<usize>> {
    (0..channels.div_ceil(block_size(channels))).map(move |index| block(channels, index))
}

/// Images cut into tiles.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    /// Size at full resolution.
    pub size: [usize; 2],
    /// Tiles along each side.
    count: [usize; 2],
    /// Pixels along a tile's side.
    side: usize,
    /// Whether some transformed values vanish; see the module's documentation.
    sparse: bool,
}

impl Tiles {
    pub fn new(size: [usize; 2], side: usize, sparse: bool) -> Self {
        Self { size, count: size.map(|n| n.div_ceil(side)), side, sparse }
    }

    pub fn per_image(&self) -> usize {
        self.count[0] * self.count[1]
    }

    /// Whether the transformed values of a point, counted row by row, vanish.
    #[inline(always)]
    pub fn vanishes(&self, point: usize) -> bool {
        let side = self.side + 2;
        self.sparse && (point / side == MINUS_ONE || point % side == MINUS_ONE)
    }

    /// Matrix products per tile.
    pub fn products(&self) -> usize {
        let side = self.side + 2 - usize::from(self.sparse);
        side * side
    }

    /// Image of a tile, and the full-resolution coordinates of its first output pixel.
    #[inline(always)]
    pub fn place(&self, tile: usize) -> (usize, [usize; 2]) {
        let (image, tile) = (tile / self.per_image(), tile % self.per_image());
        (image, [tile / self.count[1] * self.side, tile % self.count[1] * self.side])
    }
}

/// Channels-last images that a transform reads.
#[derive(Clone, Copy)]
pub(super) struct Images<'a> {
    pub pixels: &'a [f32],
    pub channels: usize,
    /// Whether they are stored at half the resolution.
    pub half: bool,
}

/// The same channels of `N` by `N` pixels.
pub(super) struct Window<'a, const N: usize> {
    lines: [[&'a [f32]; N]; N],
}

impl<'a> Images<'a> {
    /// The given channels of the `N` by `N` pixels whose first lies `before` pixels up and left of the tile's origin.
    #[inline(always)]
    fn window<const N: usize>(
        &self,
        tiles: &Tiles,
        tile: usize,
        before: usize,
        channels: &Range<usize>,
    ) -> Window<'a, N> {
        let (image, origin) = tiles.place(tile);
        let scale = usize::from(self.half);
        let [height, width] = tiles.size.map(|n| n >> scale);
        let mut lines = [[&ZEROS[..channels.len()]; N]; N];
        for (i, line) in lines.iter_mut().enumerate() {
            let row = (origin[0] + i).wrapping_sub(before);
            if row >= tiles.size[0] {
                continue;
            }
            for (j, pixel) in line.iter_mut().enumerate() {
                let column = (origin[1] + j).wrapping_sub(before);
                if column < tiles.size[1] {
                    let at = (image * height + (row >> scale)) * width + (column >> scale);
                    *pixel = &self.pixels[at * self.channels..][channels.start..channels.end];
                }
            }
        }
        Window { lines }
    }

    /// `Bᵀ x B` of a group of tiles.
    #[inline(always)]
    pub fn transform<S: Simd, F: Filter<M, T>, const M: usize, const T: usize>(
        &self,
        simd: S,
        tiles: &Tiles,
        group: Range<usize>,
        channels: &Range<usize>,
        (out, layout): (&mut [f32], Layout),
    ) {
        for (row, tile) in group.enumerate() {
            let window = self.window::<T>(tiles, tile, 1, channels);
            for_each_vector!(simd, channels.len(), |start, PARTIAL| {
                let square = window.read::<S, PARTIAL>(simd, start);
                let square = both_ways!(simd, F::input, square, T => T);
                layout.scatter(simd, square, out, row * layout.row + start);
            });
        }
    }

    /// `A dy Aᵀ` of a group of tiles.
    #[inline(always)]
    pub fn transform_gradient<S: Simd, F: Filter<M, T>, const M: usize, const T: usize>(
        &self,
        simd: S,
        tiles: &Tiles,
        group: Range<usize>,
        channels: &Range<usize>,
        (out, layout): (&mut [f32], Layout),
    ) {
        for (row, tile) in group.enumerate() {
            let window = self.window::<M>(tiles, tile, 0, channels);
            for_each_vector!(simd, channels.len(), |start, PARTIAL| {
                let square = window.read::<S, PARTIAL>(simd, start);
                let square = both_ways!(simd, F::output_adjoint, square, M => T);
                layout.scatter(simd, square, out, row * layout.row + start);
            });
        }
    }
}

impl<const N: usize> Window<'_, N> {
    /// The vectors of the channels from `start`; with `PARTIAL` those past the end are zero.
    #[inline(always)]
    fn read<S: Simd, const PARTIAL: bool>(&self, simd: S, start: usize) -> [[S::f32s; N]; N] {
        let mut square = [[simd.splat_f32s(0.0); N]; N];
        for i in 0..N {
            for j in 0..N {
                let line = self.lines[i][j];
                square[i][j] = if PARTIAL { simd.partial_load_f32s(&line[start..]) } else { read(simd, line, start) };
            }
        }
        square
    }
}

/// Transformed values `[point][row][channel]` of one block of channels.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Distance between rows: the channels, padded to whole vectors.
    pub row: usize,
    /// Distance between points; an odd number of cache lines, so that the points fall into different cache sets.
    pub point: usize,
}

impl Layout {
    pub fn new(rows: usize, channels: usize) -> Self {
        let row = channels.next_multiple_of(VECTOR);
        Self { row, point: (rows * row).next_multiple_of(2 * VECTOR) + VECTOR }
    }

    /// Writes the vector of every point, that of the first point at `start`.
    #[inline(always)]
    pub fn scatter<S: Simd, const T: usize>(&self, simd: S, square: [[S::f32s; T]; T], out: &mut [f32], start: usize) {
        for i in 0..T {
            for j in 0..T {
                write(simd, out, (i * T + j) * self.point + start, square[i][j]);
            }
        }
    }

    /// Reads the vector of every point, that of the first point at `start`.
    #[inline(always)]
    pub fn gather<S: Simd, const T: usize>(&self, simd: S, values: &[f32], start: usize) -> [[S::f32s; T]; T] {
        let mut square = [[simd.splat_f32s(0.0); T]; T];
        for i in 0..T {
            for j in 0..T {
                square[i][j] = read(simd, values, (i * T + j) * self.point + start);
            }
        }
        square
    }

    /// Zeroes the points that no product is computed for, because they vanish.
    pub fn clear_vanishing(&self, tiles: &Tiles, values: &mut [f32]) {
        for (point, values) in values.chunks_mut(self.point).enumerate() {
            if tiles.vanishes(point) {
                values.fill(0.0);
            }
        }
    }
}
