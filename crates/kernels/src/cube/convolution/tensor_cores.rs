//! The products of a convolution on tensor cores: a cube computes a tile of the result, a plane of 32 units some squares of
//! [`SIDE`] pixels by [`SIDE`] channels of it, and both factors pass through shared memory, [`Tile::depth`] terms of the sum at a
//! time. While a plane multiplies what lies there, the loads of the next terms are under way.
//!
//! Shared memory holds a factor in lines, in the order in which the image or the weights have them: a line is one row, or
//! column, with its terms, or one term with its rows, or columns. Every load and store has 16 bytes.
//!
//! f32 is rounded to TF32 on its way to shared memory. Weights are read as `[channels_out, kernel, kernel, channels_in]`: the
//! forward pass makes a copy of that layout, which the backward pass uses again.
//!
//! Devices without tensor cores can run the same code with the matrix instructions written out ([`Tile::emulated`]), slowly:
//! that is how the rest of it is tested.

use burn::tensor::DType;
use burn_cubecl::{ops::permute_nchw_to_nhwc, tensor::CubeTensor};
use cubecl::{
    client::Client,
    cmma::{self, MatrixIdent, MatrixLayout},
    ir::{ElemType, FloatKind},
    prelude::*,
};

use crate::{
    cube::{
        convolution::{
            Sizes,
            gather::{Gather, Geometry, Product, offset, source_pixel, spacing, split},
            tiled,
        },
        launch::{argument, contiguous, cubes, element, empty},
    },
    tensor_cores::Use,
};

/// Side of the squares that a plane computes.
const SIDE: usize = 16;
/// Units of a plane.
const PLANE: usize = 32;
/// Channels of a square that a unit writes, and the number of which channels are a multiple.
pub(super) const CHANNELS: usize = SIDE * SIDE / PLANE;
/// Row length of a square in shared memory; a multiple of 16 bytes, and more than [`SIDE`], so that rows lie in different banks.
const SQUARE_ROW: usize = SIDE + 4;
/// In the place of where a pixel begins, if it is outside the image.
const OUTSIDE: u32 = u32::MAX;
/// Units of a cube that adds parts.
const ADDING_UNITS: usize = 256;
/// The number of cubes from which a device is taken to be busy.
const BUSY: usize = 264;
/// The fewest pixels of a part of a split sum.
const LEAST_PIXELS: usize = 512;

/// The part of the result that a cube computes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tile {
    rows: usize,
    columns: usize,
    /// Terms of the sum in shared memory.
    depth: usize,
    /// Rows and columns of a plane.
    plane: [usize; 2],
    /// Terms that tensor cores multiply at a time.
    step: usize,
    /// Elements of a load.
    vector: usize,
    /// Whether matrix instructions are written out.
    emulated: bool,
}

impl Tile {
    /// The tile for a result of this size: as large as keeps the device busy.
    fn of(rows: usize, columns: usize, dtype: DType, emulated: bool) -> Self {
        let is_busy = |tile: [usize; 2]| rows.div_ceil(tile[0]) * columns.div_ceil(tile[1]) >= BUSY;
        let fills_two = columns.next_multiple_of(64) == columns.next_multiple_of(128);
        // the larger a plane's part, the fewer times it reads shared memory, which is what takes longest
        let ([tile_rows, tile_columns], plane) = match () {
            () if fills_two && is_busy([128, 128]) => ([128, 128], [64, 64]),
            () if is_busy([128, 64]) => ([128, 64], [64, 32]),
            () => ([64, 64], [32, 32]),
        };
        // as much as the registers of loads that are under way permit
        let depth = if dtype == DType::F32 && tile_columns == 128 { 16 } else { 32 };
        let step = if dtype == DType::F32 { 8 } else { 16 };
        // WGSL has vectors of up to four
        let vector = if emulated { 4 } else { 16 / dtype.size() };
        Self { rows: tile_rows, columns: tile_columns, depth, plane, step, vector, emulated }
    }

    /// Planes down and across.
    fn planes(&self) -> [usize; 2] {
        [self.rows / self.plane[0], self.columns / self.plane[1]]
    }

    fn units(&self) -> usize {
        self.planes().iter().product::<usize>() * PLANE
    }

    /// Squares of a plane, down and across.
    fn squares(&self) -> [usize; 2] {
        self.plane.map(|length| length / SIDE)
    }

    fn count(&self, rows: usize, columns: usize) -> [usize; 2] {
        [rows.div_ceil(self.rows), columns.div_ceil(self.columns)]
    }
}

/// How a factor lies in shared memory, in lines of this many elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lines {
    count: usize,
    length: usize,
    /// Whether a line has the terms of a row or column, not the rows or columns of a term.
    of_terms: bool,
}

impl Lines {
    fn new(length: usize, depth: usize, of_terms: bool) -> Self {
        if of_terms { Self { count: length, length: depth, of_terms } } else { Self { count: depth, length, of_terms } }
    }

    /// Elements from line to line: more than a line has, so that what a plane reads at a time lies in different banks.
    fn stride(&self, vector: usize) -> usize {
        self.length + if self.of_terms { vector } else { CHANNELS }
    }

    /// Vectors that a unit loads.
    fn loads(&self, tile: &Tile) -> usize {
        self.count * self.length / tile.vector / tile.units()
    }

    fn layout_of_left(&self) -> MatrixLayout {
        if self.of_terms { MatrixLayout::RowMajor } else { MatrixLayout::ColMajor }
    }

    fn layout_of_right(&self) -> MatrixLayout {
        if self.of_terms { MatrixLayout::ColMajor } else { MatrixLayout::RowMajor }
    }
}

/// The lines of the left and the right factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Layout {
    left: Lines,
    right: Lines,
}

impl Layout {
    fn new(tile: &Tile, left_of_terms: bool, right_of_terms: bool) -> Self {
        Self {
            left: Lines::new(tile.rows, tile.depth, left_of_terms),
            right: Lines::new(tile.columns, tile.depth, right_of_terms),
        }
    }
}

/// Both factors in shared memory.
#[derive(CubeType)]
struct Factors<F: Float, N: Size> {
    left: Shared<[Vector<F, N>]>,
    right: Shared<[Vector<F, N>]>,
}

#[cube]
fn factors<F: Float, N: Size>(#[comptime] tile: Tile, #[comptime] layout: Layout) -> Factors<F, N> {
    let vector = comptime!(tile.vector);
    Factors::<F, N> {
        left: Shared::<[Vector<F, N>]>::new_slice(comptime!(layout.left.count * layout.left.stride(vector) / vector)),
        right: Shared::<[Vector<F, N>]>::new_slice(comptime!(
            layout.right.count * layout.right.stride(vector) / vector
        )),
    }
}

/// The first line of a unit's loads, and its first element in each; from load to load it is as many lines further as all units
/// load at a time.
#[cube]
fn place_of_unit(#[comptime] tile: Tile, #[comptime] lines: Lines) -> (usize, usize) {
    let vectors = comptime!(lines.length / tile.vector);
    let unit = UNIT_POS as usize;
    let mut line = unit / vectors;
    if comptime!(vectors == 4) {
        // eight units store at a time: to two lines that lie in different banks, which are four apart
        line = unit / 32 * 8 + unit / 4 % 2 * 4 + unit / 8 % 4;
    }
    (line, unit % vectors * comptime!(tile.vector))
}

/// Lines between the loads of a unit.
#[cube]
fn lines_at_a_time(#[comptime] tile: Tile, #[comptime] lines: Lines) -> comptime_type!(usize) {
    comptime!(tile.units() * tile.vector / lines.length)
}

/// Puts the loads of a unit into shared memory. They are rounded here, not where they are loaded: that would wait for them.
#[cube]
fn put<E: Float, F: Float, N: Size>(
    shared: &mut [Vector<F, N>],
    values: &Array<Vector<E, N>>,
    #[comptime] tile: Tile,
    #[comptime] lines: Lines,
) {
    let (line, first) = place_of_unit(tile, lines);
    let apart = lines_at_a_time(tile, lines);
    #[unroll]
    for load in 0..comptime!(lines.loads(&tile)) {
        let start = (line + load * apart) * comptime!(lines.stride(tile.vector)) + first;
        shared[start / comptime!(tile.vector)] = Vector::<F, N>::cast_from(values[load]);
    }
}

/// What a plane has added up: a matrix for each of its squares, or, of an emulated one, the row and the [`CHANNELS`] columns that
/// a unit also writes.
#[derive(CubeType)]
struct Sums {
    matrices: Sequence<cmma::Matrix<f32>>,
    numbers: Array<f32>,
}

#[cube]
fn sums(#[comptime] tile: Tile) -> Sums {
    let [down, across] = comptime!(tile.squares());
    let mut matrices = Sequence::<cmma::Matrix<f32>>::new();
    let mut numbers = Array::<f32>::new(comptime!(if tile.emulated { down * across * CHANNELS } else { 1 }));
    if comptime!(tile.emulated) {
        #[unroll]
        for index in 0..comptime!(down * across * CHANNELS) {
            numbers[index] = 0.0f32;
        }
    } else {
        #[unroll]
        for _ in 0..comptime!(down * across) {
            matrices.push(cmma::Matrix::<f32>::from_value(
                MatrixIdent::Accumulator,
                SIDE,
                SIDE,
                comptime!(tile.step),
                MatrixLayout::Undefined,
                0.0f32,
            ));
        }
    }
    Sums { matrices, numbers }
}

/// The element of shared memory with this row (or column) and term.
#[cube]
fn element_at(position: usize, term: usize, #[comptime] lines: Lines, #[comptime] vector: usize) -> usize {
    let stride = comptime!(lines.stride(vector));
    if comptime!(lines.of_terms) { position * stride + term } else { term * stride + position }
}

/// The first row and column of the unit's plane within the tile.
#[cube]
fn place_of_plane(#[comptime] tile: Tile) -> (usize, usize) {
    let [_, across] = comptime!(tile.planes());
    let plane = UNIT_POS as usize / PLANE;
    (plane / across * comptime!(tile.plane[0]), plane % across * comptime!(tile.plane[1]))
}

/// Adds the product of what lies in shared memory to the sums.
#[cube]
fn multiply<F: Float, N: Size>(
    factors: &Factors<F, N>,
    sums: &mut Sums,
    #[comptime] tile: Tile,
    #[comptime] layout: Layout,
) {
    if comptime!(tile.emulated) {
        multiply_emulated::<F, N>(factors, sums, tile, layout);
    } else {
        multiply_matrices::<F, N>(factors, sums, tile, layout);
    }
}

/// [`multiply`] by the matrix instructions of the device.
#[cube]
fn multiply_matrices<F: Float, N: Size>(
    factors: &Factors<F, N>,
    sums: &mut Sums,
    #[comptime] tile: Tile,
    #[comptime] layout: Layout,
) {
    let (row, column) = place_of_plane(tile);
    let [down, across] = comptime!(tile.squares());
    let vector = comptime!(tile.vector);
    let left_stride = comptime!(layout.left.stride(vector) as u32);
    let right_stride = comptime!(layout.right.stride(vector) as u32);
    let step_length = comptime!(tile.step);
    #[unroll]
    for step in 0..comptime!(tile.depth / tile.step) {
        let mut rights = Sequence::<cmma::Matrix<F>>::new();
        #[unroll]
        for j in 0..across {
            let mut matrix = unsafe {
                cmma::Matrix::<F>::uninitialized(
                    MatrixIdent::B,
                    SIDE,
                    SIDE,
                    step_length,
                    comptime!(layout.right.layout_of_right()),
                )
            };
            let start =
                element_at(column + j * SIDE, comptime!(step * step_length), comptime!(layout.right), vector) / vector;
            cmma::load(&mut matrix, &factors.right[start..factors.right.len()], right_stride);
            rights.push(matrix);
        }
        #[unroll]
        for i in 0..down {
            let mut left = unsafe {
                cmma::Matrix::<F>::uninitialized(
                    MatrixIdent::A,
                    SIDE,
                    SIDE,
                    step_length,
                    comptime!(layout.left.layout_of_left()),
                )
            };
            let start =
                element_at(row + i * SIDE, comptime!(step * step_length), comptime!(layout.left), vector) / vector;
            cmma::load(&mut left, &factors.left[start..factors.left.len()], left_stride);
            #[unroll]
            for j in 0..across {
                let sum = sums.matrices.index(i * across + j);
                cmma::execute(&left, rights.index(j), sum, sum);
            }
        }
    }
}

/// [`multiply`] with the matrix instructions written out.
#[cube]
fn multiply_emulated<F: Float, N: Size>(
    factors: &Factors<F, N>,
    sums: &mut Sums,
    #[comptime] tile: Tile,
    #[comptime] layout: Layout,
) {
    let (plane_row, plane_column) = place_of_plane(tile);
    let [down, across] = comptime!(tile.squares());
    let vector = comptime!(tile.vector);
    let lane = UNIT_POS as usize % PLANE;
    let row = plane_row + lane / 2;
    let column = plane_column + lane % 2 * CHANNELS;
    for term in 0..comptime!(tile.depth) {
        for i in 0..down {
            let at = element_at(row + i * SIDE, term, comptime!(layout.left), vector);
            let left = f32::cast_from(factors.left[at / vector].extract_dynamic(at % vector));
            for j in 0..across {
                for channel in 0..CHANNELS {
                    let at = element_at(column + j * SIDE + channel, term, comptime!(layout.right), vector);
                    let right = f32::cast_from(factors.right[at / vector].extract_dynamic(at % vector));
                    sums.numbers[(i * across + j) * CHANNELS + channel] += left * right;
                }
            }
        }
    }
}

/// Puts a square of the sums into the shared memory of its plane.
#[cube]
fn put_square(sums: &Sums, squares: &mut Shared<[f32]>, #[comptime] square: usize, #[comptime] tile: Tile) {
    let start = UNIT_POS as usize / PLANE * comptime!(SIDE * SQUARE_ROW);
    if comptime!(tile.emulated) {
        let lane = UNIT_POS as usize % PLANE;
        #[unroll]
        for channel in 0..CHANNELS {
            squares[start + lane / 2 * SQUARE_ROW + lane % 2 * CHANNELS + channel] =
                sums.numbers[square * CHANNELS + channel];
        }
    } else {
        let end = squares.len();
        cmma::store(&mut squares[start..end], sums.matrices.index(square), SQUARE_ROW as u32, MatrixLayout::RowMajor);
    }
}

/// The row and the first column, within the tile, of the [`CHANNELS`] numbers of a square that a unit writes, and their place in
/// shared memory.
#[cube]
fn place_in_square(#[comptime] square: usize, #[comptime] tile: Tile) -> (usize, usize, usize) {
    let (plane_row, plane_column) = place_of_plane(tile);
    let [_, across] = comptime!(tile.squares());
    let lane = UNIT_POS as usize % PLANE;
    let row = plane_row + comptime!(square / across * SIDE) + lane / 2;
    let column = plane_column + comptime!(square % across * SIDE) + lane % 2 * CHANNELS;
    let start = UNIT_POS as usize / PLANE * comptime!(SIDE * SQUARE_ROW) + lane / 2 * SQUARE_ROW + lane % 2 * CHANNELS;
    (row, column, start)
}

/// Numbers that follow each other, in f32.
#[cube]
fn vector_at<E: Float, N: Size>(numbers: &[E], start: usize, #[comptime] vector: usize) -> Vector<f32, N> {
    let mut values = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for index in 0..vector {
        values.insert(index, f32::cast_from(numbers[start + index]));
    }
    values
}

/// The products whose rows are pixels: y, and the gradient of x.
#[cube(launch_unchecked)]
fn product_of_pixels<E: Float, F: Float, N: Size>(
    source: &[Vector<E, N>],
    weight: &[Vector<E, N>],
    bias: &[E],
    residual: &[Vector<E, N>],
    result: &mut [Vector<E, N>],
    geometry: Geometry,
    #[comptime] gather: Gather,
    #[comptime] tile: Tile,
    #[comptime] layout: Layout,
    #[comptime] with_bias: bool,
    #[comptime] with_residual: bool,
    #[define(E)] _dtype: ElemType,
    #[define(F)] _factor_dtype: ElemType,
) {
    let mut factors = factors::<F, N>(tile, layout);
    let mut squares = Shared::<[f32]>::new_slice(comptime!(tile.units() / PLANE * SIDE * SQUARE_ROW));
    if CUBE_POS >= geometry.tiles {
        terminate!();
    }
    let first_row = CUBE_POS / geometry.column_tiles * comptime!(tile.rows);
    let first_column = CUBE_POS % geometry.column_tiles * comptime!(tile.columns);
    let vector = comptime!(tile.vector);
    let depth = comptime!(tile.depth);
    let weight_taps = comptime!(gather.kernel * gather.kernel);

    // the pixels that the unit reads, which are the same for all terms
    let left_loads = comptime!(layout.left.loads(&tile));
    let (left_line, left_first) = place_of_unit(tile, comptime!(layout.left));
    let left_apart = lines_at_a_time(tile, comptime!(layout.left));
    let mut images = Array::<usize>::new(left_loads);
    let mut downs = Array::<i32>::new(left_loads);
    let mut rights = Array::<i32>::new(left_loads);
    // where they begin for the present tap, in vectors, or nowhere
    let mut starts = Array::<u32>::new(left_loads);
    let spacing = spacing(gather);
    #[unroll]
    for load in 0..left_loads {
        let row = first_row + left_line + load * left_apart;
        let pixel = row % (geometry.height * geometry.width);
        images[load] = row / (geometry.height * geometry.width);
        // a row beyond the last reads nothing
        downs[load] = select(row < geometry.rows, (pixel / geometry.width * spacing) as i32, -1_000_000i32);
        rights[load] = (pixel % geometry.width * spacing) as i32;
    }
    let right_loads = comptime!(layout.right.loads(&tile));
    let (right_line, right_first) = place_of_unit(tile, comptime!(layout.right));
    let right_apart = lines_at_a_time(tile, comptime!(layout.right));

    let mut sums = sums(tile);
    let mut lefts = Array::<Vector<E, N>>::new(left_loads);
    let mut weights = Array::<Vector<E, N>>::new(right_loads);
    let zero = Vector::<E, N>::new(E::from_int(0));
    let mut tap = 0usize.runtime();
    let mut first_channel = 0usize.runtime();
    let mut is_loaded = false.runtime();
    while tap < comptime!(gather.taps()) || is_loaded {
        if is_loaded {
            put::<E, F, N>(&mut factors.left, &lefts, tile, comptime!(layout.left));
            put::<E, F, N>(&mut factors.right, &weights, tile, comptime!(layout.right));
            sync_cube();
        }
        let multiplies = is_loaded;
        is_loaded = tap < comptime!(gather.taps());
        if is_loaded {
            let (tap_down, tap_right, weight_tap) = offset(tap, gather);
            if first_channel == 0 {
                #[unroll]
                for load in 0..left_loads {
                    let (start, inside) =
                        source_pixel(images[load], downs[load] + tap_down, rights[load] + tap_right, &geometry, gather);
                    starts[load] = select(inside, (start / vector) as u32, OUTSIDE);
                }
            }
            let channel = first_channel + left_first;
            #[unroll]
            for load in 0..left_loads {
                let mut value = zero;
                if starts[load] != OUTSIDE && channel < geometry.channels {
                    value = source[starts[load] as usize + channel / vector];
                }
                lefts[load] = value;
            }
            #[unroll]
            for load in 0..right_loads {
                let line = right_line + load * right_apart;
                let mut value = zero;
                if comptime!(gather.for_gradient) {
                    // the channel is one of y, whose weights for all columns lie together
                    let channel = first_channel + line;
                    let column = first_column + right_first;
                    if channel < geometry.channels && column < geometry.columns {
                        let start = (channel * weight_taps + weight_tap) * (geometry.columns / vector);
                        value = weight[start + column / vector];
                    }
                } else {
                    let channel = first_channel + right_first;
                    let column = first_column + line;
                    if channel < geometry.channels && column < geometry.columns {
                        let start = (column * weight_taps + weight_tap) * (geometry.channels / vector);
                        value = weight[start + channel / vector];
                    }
                }
                weights[load] = value;
            }
            first_channel += depth;
            if first_channel >= geometry.channels {
                first_channel = 0usize.runtime();
                tap += 1usize;
            }
        }
        if multiplies {
            multiply::<F, N>(&factors, &mut sums, tile, layout);
            sync_cube();
        }
    }

    let [down, across] = comptime!(tile.squares());
    #[unroll]
    for square in 0..comptime!(down * across) {
        put_square(&sums, &mut squares, square, tile);
        sync_cube();
        let (row_of_tile, column_of_tile, start) = place_in_square(square, tile);
        let row = first_row + row_of_tile;
        let column = first_column + column_of_tile;
        if row < geometry.rows && column < geometry.columns {
            #[unroll]
            for part in 0..comptime!(CHANNELS / vector) {
                let at = (row * geometry.columns + column) / vector + part;
                let mut values = vector_at::<f32, N>(&squares, start + part * vector, vector);
                if comptime!(with_bias) {
                    values += vector_at::<E, N>(bias, column + part * vector, vector);
                }
                if comptime!(with_residual) {
                    values += Vector::<f32, N>::cast_from(residual[at]);
                }
                result[at] = Vector::<E, N>::cast_from(values);
            }
        }
        sync_cube();
    }
}

/// The product whose terms are pixels: the gradient of the weights, `[channels_out, kernel, kernel, channels_in]`, of a part of
/// the pixels.
#[cube(launch_unchecked)]
fn product_over_pixels<E: Float, F: Float, N: Size>(
    y_gradient: &[Vector<E, N>],
    source: &[Vector<E, N>],
    parts: &mut [Vector<f32, N>],
    geometry: Geometry,
    tiles_of_part: usize,
    pixels: usize,
    pixels_of_part: usize,
    #[comptime] gather: Gather,
    #[comptime] tile: Tile,
    #[comptime] layout: Layout,
    #[define(E)] _dtype: ElemType,
    #[define(F)] _factor_dtype: ElemType,
) {
    let mut factors = factors::<F, N>(tile, layout);
    let mut squares = Shared::<[f32]>::new_slice(comptime!(tile.units() / PLANE * SIDE * SQUARE_ROW));
    if CUBE_POS >= geometry.tiles {
        terminate!();
    }
    let part = CUBE_POS / tiles_of_part;
    let tile_index = CUBE_POS % tiles_of_part;
    let first_row = tile_index / geometry.column_tiles * comptime!(tile.rows);
    let first_column = tile_index % geometry.column_tiles * comptime!(tile.columns);
    let vector = comptime!(tile.vector);

    // the row and the column that the unit reads, which are the same for all terms
    let left_loads = comptime!(layout.left.loads(&tile));
    let (left_line, left_first) = place_of_unit(tile, comptime!(layout.left));
    let left_apart = lines_at_a_time(tile, comptime!(layout.left));
    let left_row = first_row + left_first;
    let right_loads = comptime!(layout.right.loads(&tile));
    let (right_line, right_first) = place_of_unit(tile, comptime!(layout.right));
    let right_apart = lines_at_a_time(tile, comptime!(layout.right));
    let right_column = first_column + right_first;
    let channel = right_column % geometry.channels;
    let (tap_down, tap_right, _) = offset(right_column / geometry.channels, gather);
    let spacing = spacing(gather);

    // the image, row and column of the pixels of its loads, and how far they go in a step: to divide takes long
    let mut first_pixel = part * pixels_of_part;
    let last_pixel = clamp_max(first_pixel + pixels_of_part, pixels);
    let image_pixels = geometry.height * geometry.width;
    let mut images = Array::<usize>::new(right_loads);
    let mut downs = Array::<usize>::new(right_loads);
    let mut rights = Array::<usize>::new(right_loads);
    #[unroll]
    for load in 0..right_loads {
        let pixel = first_pixel + right_line + load * right_apart;
        images[load] = pixel / image_pixels;
        downs[load] = pixel % image_pixels / geometry.width;
        rights[load] = pixel % image_pixels % geometry.width;
    }
    let depth = comptime!(tile.depth).runtime();
    let step_images = depth / image_pixels;
    let step_down = depth % image_pixels / geometry.width;
    let step_right = depth % image_pixels % geometry.width;

    let mut sums = sums(tile);
    let mut lefts = Array::<Vector<E, N>>::new(left_loads);
    let mut sources = Array::<Vector<E, N>>::new(right_loads);
    let zero = Vector::<E, N>::new(E::from_int(0));
    let mut is_loaded = false.runtime();
    while first_pixel < last_pixel || is_loaded {
        if is_loaded {
            put::<E, F, N>(&mut factors.left, &lefts, tile, comptime!(layout.left));
            put::<E, F, N>(&mut factors.right, &sources, tile, comptime!(layout.right));
            sync_cube();
        }
        let multiplies = is_loaded;
        is_loaded = first_pixel < last_pixel;
        if is_loaded {
            #[unroll]
            for load in 0..left_loads {
                let pixel = first_pixel + left_line + load * left_apart;
                let mut value = zero;
                if pixel < last_pixel && left_row < geometry.rows {
                    value = y_gradient[pixel * (geometry.rows / vector) + left_row / vector];
                }
                lefts[load] = value;
            }
            #[unroll]
            for load in 0..right_loads {
                let pixel = first_pixel + right_line + load * right_apart;
                let down = (downs[load] * spacing) as i32 + tap_down;
                let right = (rights[load] * spacing) as i32 + tap_right;
                let (start, inside) = source_pixel(images[load], down, right, &geometry, gather);
                let mut value = zero;
                if inside && pixel < last_pixel && right_column < geometry.columns {
                    value = source[(start + channel) / vector];
                }
                sources[load] = value;

                rights[load] += step_right;
                let is_next_row = rights[load] >= geometry.width;
                rights[load] -= select(is_next_row, geometry.width, 0);
                downs[load] += step_down + select(is_next_row, 1, 0);
                let is_next_image = downs[load] >= geometry.height;
                downs[load] -= select(is_next_image, geometry.height, 0);
                images[load] += step_images + select(is_next_image, 1, 0);
            }
            first_pixel += comptime!(tile.depth);
        }
        if multiplies {
            multiply::<F, N>(&factors, &mut sums, tile, layout);
            sync_cube();
        }
    }

    let [down, across] = comptime!(tile.squares());
    #[unroll]
    for square in 0..comptime!(down * across) {
        put_square(&sums, &mut squares, square, tile);
        sync_cube();
        let (row_of_tile, column_of_tile, start) = place_in_square(square, tile);
        let row = first_row + row_of_tile;
        let column = first_column + column_of_tile;
        if row < geometry.rows && column < geometry.columns {
            #[unroll]
            for vectors in 0..comptime!(CHANNELS / vector) {
                let at = (part * geometry.rows + row) * geometry.columns + column;
                parts[at / vector + vectors] = vector_at::<f32, N>(&squares, start + vectors * vector, vector);
            }
        }
        sync_cube();
    }
}

/// The sum of the parts of a weight gradient, `[channels_out, channels_in, taps]`.
#[cube(launch_unchecked)]
fn sum_of_parts<E: Float>(
    parts: &[f32],
    result: &mut [E],
    length: usize,
    count: usize,
    channels: usize,
    taps: usize,
    #[define(E)] _dtype: ElemType,
) {
    let index = CUBE_POS * ADDING_UNITS + UNIT_POS as usize;
    if index < length {
        let mut sum = 0.0f32;
        for part in 0..count {
            sum += parts[part * length + index];
        }
        let channel = index % channels;
        let tap = index / channels % taps;
        let row = index / (channels * taps);
        result[(row * channels + channel) * taps + tap] = E::cast_from(sum);
    }
}

/// The type of the numbers that tensor cores multiply.
fn factor(dtype: DType) -> ElemType {
    if dtype == DType::F32 { ElemType::Float(FloatKind::TF32) } else { element(dtype) }
}

/// Whether the device has tensor cores for a number format. Those for f32 round its factors to TF32.
pub(crate) fn compute_in(client: &Client, dtype: DType) -> bool {
    let is_allowed = dtype != DType::F32 || crate::tensor_cores::tf32_is_allowed();
    let step = if dtype == DType::F32 { 8 } else { 16 };
    let properties = client.properties();
    let has_planes = [properties.hardware.plane_size_min, properties.hardware.plane_size_max] == [PLANE as u32; 2];
    let factor = factor(dtype);
    let has_squares = properties.features.matmul.cmma.iter().any(|shape| {
        (shape.a_type, shape.b_type) == (factor, factor)
            && shape.cd_type == ElemType::Float(FloatKind::F32)
            && (shape.m, shape.n, shape.k) == (SIDE as u32, SIDE as u32, step)
    });
    match crate::tensor_cores::in_use() {
        Use::Off => false,
        Use::Emulated => true,
        Use::On => is_allowed && has_planes && has_squares,
    }
}

/// Whether the matrix instructions of the device are to be written out, and the type of the numbers that are multiplied.
fn emulation(dtype: DType) -> (bool, ElemType) {
    let is_emulated = crate::tensor_cores::in_use() == Use::Emulated;
    (is_emulated, if is_emulated { element(dtype) } else { factor(dtype) })
}

/// The weights as `[channels_out, kernel, kernel, channels_in]`, contiguous.
pub(super) fn channels_last(weight: &CubeTensor) -> CubeTensor {
    contiguous(permute_nchw_to_nhwc(weight.clone()))
}

/// y, `[batch, height, width, channels_out]`, plus `residual` of the same shape.
pub(super) fn forward(
    sizes: &Sizes,
    x: &CubeTensor,
    weight: &CubeTensor,
    bias: Option<&CubeTensor>,
    residual: Option<&CubeTensor>,
) -> CubeTensor {
    let y = empty(x, sizes.output_shape(), x.dtype);
    launch_product_of_pixels(x, weight, [bias, residual], &y, Gather::new(sizes, false), Product::of_y(sizes));
    y
}

/// ẋ, `[batch, height, width, channels_in]`.
pub(super) fn input_gradient(sizes: &Sizes, weight: &CubeTensor, y_gradient: &CubeTensor) -> CubeTensor {
    let x_gradient = empty(y_gradient, sizes.input_shape(), y_gradient.dtype);
    let gather = Gather::new(sizes, true);
    let product = Product::of_x_gradient(sizes, &gather);
    launch_product_of_pixels(y_gradient, weight, [None, None], &x_gradient, gather, product);
    x_gradient
}

/// Whether the gradient of x is one of patches, which [`input_gradient`] does not compute.
pub(super) fn is_of_patches(sizes: &Sizes) -> bool {
    sizes.options.stride > 1
}

fn launch_product_of_pixels(
    source: &CubeTensor,
    weight: &CubeTensor,
    [bias, residual]: [Option<&CubeTensor>; 2],
    result: &CubeTensor,
    gather: Gather,
    product: Product,
) {
    let (is_emulated, factor) = emulation(source.dtype);
    let tile = Tile::of(product.rows, product.columns, source.dtype, is_emulated);
    let tiles = tile.count(product.rows, product.columns);
    let product = product.in_tiles(tiles, 1);
    unsafe {
        product_of_pixels::launch_unchecked(
            &source.client,
            cubes(product.tiles),
            CubeDim::new_1d(tile.units() as u32),
            tile.vector,
            argument(source),
            argument(weight),
            argument(bias.unwrap_or(weight)),
            argument(residual.unwrap_or(weight)),
            argument(result),
            product.launch(),
            gather,
            tile,
            Layout::new(&tile, true, !gather.for_gradient),
            bias.is_some(),
            residual.is_some(),
            element(source.dtype),
            factor,
        );
    }
}

/// ẇ, `[channels_out, channels_in, kernel, kernel]`, and ḃ, `[channels_out]`.
pub(super) fn weight_gradient(
    sizes: &Sizes,
    x: &CubeTensor,
    y_gradient: &CubeTensor,
    with_bias: bool,
) -> (Option<CubeTensor>, Option<CubeTensor>) {
    let (taps, channels) = (sizes.kernel * sizes.kernel, sizes.channels_in);
    let (rows, columns, pixels) = (sizes.channels_out, channels * taps, sizes.pixels());
    let (is_emulated, factor) = emulation(x.dtype);
    let tile = Tile::of(rows, columns, x.dtype, is_emulated);
    let tiles = tile.count(rows, columns);
    let tiles_of_part = tiles[0] * tiles[1];
    let (pixels_of_part, count) = split(pixels, (2 * BUSY).div_ceil(tiles_of_part), LEAST_PIXELS, tile.depth);
    let product = Product::of_weight_gradient(sizes, columns).in_tiles(tiles, count);
    let length = rows * columns;
    let parts = empty(x, [count * length], DType::F32);
    let result = empty(x, sizes.weight_shape(), x.dtype);
    unsafe {
        product_over_pixels::launch_unchecked(
            &x.client,
            cubes(product.tiles),
            CubeDim::new_1d(tile.units() as u32),
            tile.vector,
            argument(y_gradient),
            argument(x),
            argument(&parts),
            product.launch(),
            tiles_of_part,
            pixels,
            pixels_of_part,
            Gather::new(sizes, false),
            tile,
            Layout::new(&tile, false, false),
            element(x.dtype),
            factor,
        );
        sum_of_parts::launch_unchecked(
            &x.client,
            cubes(length.div_ceil(ADDING_UNITS)),
            CubeDim::new_1d(ADDING_UNITS as u32),
            argument(&parts),
            argument(&result),
            length,
            count,
            channels,
            taps,
            element(x.dtype),
        );
    }
    (Some(result), with_bias.then(|| tiled::column_sums(y_gradient)))
}
