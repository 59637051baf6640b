//! The products of a convolution in tiles: a cube computes a tile of the result, a unit some rows and columns of it in
//! registers, and both factors pass through shared memory, [`DEPTH`] terms of the sum at a time.
//!
//! Shared memory holds vectors of up to four rows, or columns, of one term: what costs is the number of its reads. A cube has
//! as many units as a tile has eighths of its height times eighths of its width, and each term has eight units that load it, so
//! that a unit loads as many rows, and columns, as it computes.

use burn::{backend::TensorMetadata, tensor::DType};
use burn_cubecl::tensor::CubeTensor;
use cubecl::{ir::ElemType, prelude::*};

use crate::cube::{
    convolution::{
        Sizes,
        gather::{Gather, Geometry, Product, offset, source_pixel, spacing, split},
    },
    launch::{aligned, argument, cubes, element, empty, part},
};

/// Parts of a tile in each direction, and units that load a term.
const SIDE: usize = 8;
/// Units of a cube.
const UNITS: usize = SIDE * SIDE;
/// Units of a cube that adds parts.
const ADDING_UNITS: usize = 256;
/// Terms of the sum that lie in shared memory at a time.
const DEPTH: usize = SIDE;
/// The number of cubes from which a device is taken to be busy: a sum over pixels is split until there are as many.
const BUSY: usize = 512;
/// The fewest pixels of a part of a split sum.
const LEAST_PIXELS: usize = 256;

/// The part of the result that a cube computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tile {
    rows: usize,
    columns: usize,
}

impl Tile {
    /// The tile for a result of this size: small ones waste less on few rows or columns.
    fn of(rows: usize, columns: usize) -> Self {
        match (rows > 32, columns > 32) {
            (true, true) => Self { rows: 64, columns: 64 },
            (true, false) => Self { rows: 64, columns: 16 },
            (false, true) => Self { rows: 16, columns: 64 },
            (false, false) => Self { rows: 32, columns: 32 },
        }
    }

    /// Rows and columns of a unit.
    fn of_unit(&self) -> [usize; 2] {
        [self.rows / SIDE, self.columns / SIDE]
    }

    /// Rows and columns of a vector in shared memory.
    fn vectors(&self) -> [usize; 2] {
        self.of_unit().map(|length| length.min(4))
    }

    fn count(&self, rows: usize, columns: usize) -> [usize; 2] {
        [rows.div_ceil(self.rows), columns.div_ceil(self.columns)]
    }
}

/// The tiles of both factors in shared memory, `[term][row or column]`, and one vector more a term, so that the terms of a row lie
/// in different banks.
#[derive(CubeType)]
struct Factors<R: Size, C: Size> {
    left: Shared<[Vector<f32, R>]>,
    right: Shared<[Vector<f32, C>]>,
}

#[cube]
fn factors<R: Size, C: Size>(#[comptime] tile: Tile) -> Factors<R, C> {
    let [row_vector, column_vector] = comptime!(tile.vectors());
    Factors::<R, C> {
        left: Shared::<[Vector<f32, R>]>::new_slice(comptime!(DEPTH * (tile.rows / row_vector + 1))),
        right: Shared::<[Vector<f32, C>]>::new_slice(comptime!(DEPTH * (tile.columns / column_vector + 1))),
    }
}

/// Puts the values of one term, of a unit's rows or columns from `first`, into shared memory.
#[cube]
fn put<N: Size>(
    shared: &mut [Vector<f32, N>],
    term: usize,
    first: usize,
    values: &Array<f32>,
    #[comptime] length: usize,
    #[comptime] all: usize,
) {
    let vector = comptime!(length.min(4));
    let start = term * comptime!(all / vector + 1) + first / vector;
    #[unroll]
    for part in 0..comptime!(length / vector) {
        let mut four = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for lane in 0..vector {
            four.insert(lane, values[part * vector + lane]);
        }
        shared[start + part] = four;
    }
}

/// Adds the product of the two tiles in shared memory to the sums of the unit.
#[cube]
fn multiply<R: Size, C: Size>(factors: &Factors<R, C>, sums: &mut Array<f32>, #[comptime] tile: Tile) {
    let [unit_rows, unit_columns] = comptime!(tile.of_unit());
    let [row_vector, column_vector] = comptime!(tile.vectors());
    let row = UNIT_POS as usize / SIDE * comptime!(unit_rows / row_vector);
    let column = UNIT_POS as usize % SIDE * comptime!(unit_columns / column_vector);
    let mut lefts = Array::<f32>::new(unit_rows);
    let mut rights = Array::<f32>::new(unit_columns);
    for term in 0..DEPTH {
        #[unroll]
        for part in 0..comptime!(unit_rows / row_vector) {
            let four = factors.left[term * comptime!(tile.rows / row_vector + 1) + row + part];
            #[unroll]
            for lane in 0..row_vector {
                lefts[part * row_vector + lane] = four.extract(lane);
            }
        }
        #[unroll]
        for part in 0..comptime!(unit_columns / column_vector) {
            let four = factors.right[term * comptime!(tile.columns / column_vector + 1) + column + part];
            #[unroll]
            for lane in 0..column_vector {
                rights[part * column_vector + lane] = four.extract(lane);
            }
        }
        #[unroll]
        for i in 0..unit_rows {
            #[unroll]
            for j in 0..unit_columns {
                sums[i * unit_columns + j] += lefts[i] * rights[j];
            }
        }
    }
}

/// The products whose rows are pixels: y, and the gradient of x.
#[cube(launch_unchecked)]
fn product_of_pixels<E: Float, R: Size, C: Size>(
    source: &[E],
    weight: &[E],
    bias: &[E],
    residual: &[E],
    result: &mut [E],
    geometry: Geometry,
    weight_column: usize,
    weight_channel: usize,
    #[comptime] gather: Gather,
    #[comptime] tile: Tile,
    #[comptime] with_bias: bool,
    #[comptime] with_residual: bool,
    #[define(E)] _dtype: ElemType,
) {
    let mut factors = factors::<R, C>(tile);
    if CUBE_POS >= geometry.tiles {
        terminate!();
    }
    let first_row = CUBE_POS / geometry.column_tiles * comptime!(tile.rows);
    let first_column = CUBE_POS % geometry.column_tiles * comptime!(tile.columns);
    let unit = UNIT_POS as usize;
    let terms = geometry.channels * comptime!(gather.taps());
    let [unit_rows, unit_columns] = comptime!(tile.of_unit());

    // the pixels that the unit reads, which are the same for all terms; neighbors read neighboring channels
    let unit_term = unit % DEPTH;
    let unit_row = unit / DEPTH * unit_rows;
    let mut images = Array::<usize>::new(unit_rows);
    let mut downs = Array::<i32>::new(unit_rows);
    let mut rights = Array::<i32>::new(unit_rows);
    let spacing = spacing(gather);
    #[unroll]
    for load in 0..unit_rows {
        let row = first_row + unit_row + load;
        let pixel = row % (geometry.height * geometry.width);
        images[load] = row / (geometry.height * geometry.width);
        // a row beyond the last reads nothing
        downs[load] = select(row < geometry.rows, (pixel / geometry.width * spacing) as i32, -1_000_000i32);
        rights[load] = (pixel % geometry.width * spacing) as i32;
    }
    // the columns that it reads of the weights, whose neighbors are columns in the product for the gradient, channels otherwise
    let weight_term = if comptime!(gather.for_gradient) { unit / DEPTH } else { unit % DEPTH };
    let unit_column = if comptime!(gather.for_gradient) { unit % DEPTH } else { unit / DEPTH } * unit_columns;

    let mut sums = Array::<f32>::new(comptime!(unit_rows * unit_columns));
    #[unroll]
    for index in 0..comptime!(unit_rows * unit_columns) {
        sums[index] = 0.0f32;
    }
    let mut pixels = Array::<f32>::new(unit_rows);
    let mut weights = Array::<f32>::new(unit_columns);
    let mut first_term = 0usize.runtime();
    while first_term < terms {
        let term = first_term + unit_term;
        let channel = term % geometry.channels;
        let (tap_down, tap_right, _) = offset(term / geometry.channels, gather);
        #[unroll]
        for load in 0..unit_rows {
            let (start, inside) =
                source_pixel(images[load], downs[load] + tap_down, rights[load] + tap_right, &geometry, gather);
            pixels[load] = 0.0f32;
            if inside && term < terms {
                pixels[load] = f32::cast_from(source[start + channel]);
            }
        }
        let term = first_term + weight_term;
        let (_, _, weight_tap) = offset(term / geometry.channels, gather);
        let start = term % geometry.channels * weight_channel + weight_tap;
        #[unroll]
        for load in 0..unit_columns {
            let column = first_column + unit_column + load;
            weights[load] = 0.0f32;
            if column < geometry.columns && term < terms {
                weights[load] = f32::cast_from(weight[start + column * weight_column]);
            }
        }
        put::<R>(&mut factors.left, unit_term, unit_row, &pixels, unit_rows, comptime!(tile.rows));
        put::<C>(&mut factors.right, weight_term, unit_column, &weights, unit_columns, comptime!(tile.columns));
        sync_cube();
        multiply::<R, C>(&factors, &mut sums, tile);
        sync_cube();
        first_term += DEPTH;
    }

    #[unroll]
    for i in 0..unit_rows {
        #[unroll]
        for j in 0..unit_columns {
            let row = first_row + unit / SIDE * unit_rows + i;
            let column = first_column + unit % SIDE * unit_columns + j;
            if row < geometry.rows && column < geometry.columns {
                let mut value = sums[i * unit_columns + j];
                if comptime!(with_bias) {
                    value += f32::cast_from(bias[column]);
                }
                if comptime!(with_residual) {
                    value += f32::cast_from(residual[row * geometry.columns + column]);
                }
                if comptime!(gather.to_patches) {
                    let kernel = comptime!(gather.kernel);
                    let channels = geometry.columns / comptime!(kernel * kernel);
                    let channel = column / comptime!(kernel * kernel);
                    let tap = column % comptime!(kernel * kernel);
                    let right = row % geometry.width * kernel + tap % kernel;
                    let down = row / geometry.width * kernel + tap / kernel;
                    result[(down * geometry.width * kernel + right) * channels + channel] = E::cast_from(value);
                } else {
                    result[row * geometry.columns + column] = E::cast_from(value);
                }
            }
        }
    }
}

/// The products whose terms are pixels: the gradients of weight and bias.
///
/// Columns count the taps and, within one, the channels of x; the last one is the bias, if there is one. A part of a split
/// sum takes `pixels_of_part` pixels and writes its results at `part_length` elements from those of the part before.
#[cube(launch_unchecked)]
fn product_over_pixels<E: Float, O: Float, R: Size, C: Size>(
    y_gradient: &[E],
    source: &[E],
    result: &mut [O],
    geometry: Geometry,
    tiles_of_part: usize,
    pixels: usize,
    pixels_of_part: usize,
    part_length: usize,
    bias_start: usize,
    #[comptime] gather: Gather,
    #[comptime] tile: Tile,
    #[define(E)] _dtype: ElemType,
    #[define(O)] _result_dtype: ElemType,
) {
    let mut factors = factors::<R, C>(tile);
    if CUBE_POS >= geometry.tiles {
        terminate!();
    }
    let part = CUBE_POS / tiles_of_part;
    let tile_index = CUBE_POS % tiles_of_part;
    let first_row = tile_index / geometry.column_tiles * comptime!(tile.rows);
    let first_column = tile_index % geometry.column_tiles * comptime!(tile.columns);
    let unit = UNIT_POS as usize;
    let taps = comptime!(gather.kernel * gather.kernel);
    let weight_columns = geometry.channels * taps;
    let [unit_rows, unit_columns] = comptime!(tile.of_unit());

    // the rows and columns that the unit reads, which are the same for all terms; neighbors read neighboring channels
    let unit_term = unit / DEPTH;
    let unit_row = unit % DEPTH * unit_rows;
    let unit_column = unit % DEPTH * unit_columns;
    let mut channels = Array::<usize>::new(unit_columns);
    let mut downs = Array::<i32>::new(unit_columns);
    let mut rights = Array::<i32>::new(unit_columns);
    #[unroll]
    for load in 0..unit_columns {
        let column = first_column + unit_column + load;
        let (tap_down, tap_right, _) = offset(column / geometry.channels, gather);
        channels[load] = column % geometry.channels;
        // a column beyond the weights reads nothing
        downs[load] = select(column < weight_columns, tap_down, -1_000_000i32);
        rights[load] = tap_right;
    }
    let spacing = spacing(gather);

    let mut sums = Array::<f32>::new(comptime!(unit_rows * unit_columns));
    #[unroll]
    for index in 0..comptime!(unit_rows * unit_columns) {
        sums[index] = 0.0f32;
    }
    let mut gradients = Array::<f32>::new(unit_rows);
    let mut sources = Array::<f32>::new(unit_columns);
    let mut first_pixel = part * pixels_of_part;
    let last_pixel = clamp_max(first_pixel + pixels_of_part, pixels);
    while first_pixel < last_pixel {
        let pixel = first_pixel + unit_term;
        #[unroll]
        for load in 0..unit_rows {
            let row = first_row + unit_row + load;
            gradients[load] = 0.0f32;
            if row < geometry.rows && pixel < last_pixel {
                gradients[load] = f32::cast_from(y_gradient[pixel * geometry.rows + row]);
            }
        }
        let image = pixel / (geometry.height * geometry.width);
        let place = pixel % (geometry.height * geometry.width);
        let down = (place / geometry.width * spacing) as i32;
        let right = (place % geometry.width * spacing) as i32;
        #[unroll]
        for load in 0..unit_columns {
            let (start, inside) = source_pixel(image, down + downs[load], right + rights[load], &geometry, gather);
            // the column of the bias
            let is_bias = first_column + unit_column + load == weight_columns;
            sources[load] = select(is_bias, 1.0f32, 0.0f32);
            if inside && pixel < last_pixel {
                sources[load] = f32::cast_from(source[start + channels[load]]);
            }
        }
        put::<R>(&mut factors.left, unit_term, unit_row, &gradients, unit_rows, comptime!(tile.rows));
        put::<C>(&mut factors.right, unit_term, unit_column, &sources, unit_columns, comptime!(tile.columns));
        sync_cube();
        multiply::<R, C>(&factors, &mut sums, tile);
        sync_cube();
        first_pixel += DEPTH;
    }

    #[unroll]
    for i in 0..unit_rows {
        #[unroll]
        for j in 0..unit_columns {
            let row = first_row + unit / SIDE * unit_rows + i;
            let column = first_column + unit % SIDE * unit_columns + j;
            if row < geometry.rows && column < geometry.columns {
                let mut index = bias_start + row;
                if column < weight_columns {
                    let channel = column % geometry.channels;
                    index = row * weight_columns + channel * taps + column / geometry.channels;
                }
                result[part * part_length + index] = O::cast_from(sums[i * unit_columns + j]);
            }
        }
    }
}

/// `result[i] = Σ parts[part][i]`
#[cube(launch_unchecked)]
fn sum_of_parts<E: Float>(parts: &[f32], result: &mut [E], length: usize, count: usize, #[define(E)] _dtype: ElemType) {
    let index = CUBE_POS * ADDING_UNITS + UNIT_POS as usize;
    if index < length {
        let mut sum = 0.0f32;
        for part in 0..count {
            sum += parts[part * length + index];
        }
        result[index] = E::cast_from(sum);
    }
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
    let taps = sizes.kernel * sizes.kernel;
    let strides = [sizes.channels_in * taps, taps];
    let product = Product::of_y(sizes);
    launch_product_of_pixels(x, weight, [bias, residual], &y, product, strides, Gather::new(sizes, false));
    y
}

/// ẋ, `[batch, height, width, channels_in]`.
pub(super) fn input_gradient(sizes: &Sizes, weight: &CubeTensor, y_gradient: &CubeTensor) -> CubeTensor {
    let x_gradient = empty(y_gradient, sizes.input_shape(), y_gradient.dtype);
    let gather = Gather::new(sizes, true);
    let taps = sizes.kernel * sizes.kernel;
    let weight_channel = sizes.channels_in * taps;
    // of patches each column is a channel and a tap
    let weight_column = if gather.to_patches { 1 } else { taps };
    let product = Product::of_x_gradient(sizes, &gather);
    let strides = [weight_column, weight_channel];
    launch_product_of_pixels(y_gradient, weight, [None, None], &x_gradient, product, strides, gather);
    x_gradient
}

/// ẇ, `[channels_out, channels_in, kernel, kernel]`, and ḃ, `[channels_out]`.
pub(super) fn weight_gradient(
    sizes: &Sizes,
    x: &CubeTensor,
    y_gradient: &CubeTensor,
    with_bias: bool,
) -> (Option<CubeTensor>, Option<CubeTensor>) {
    let all = over_pixels(sizes, x, y_gradient, with_bias);
    let weights = sizes.weight_shape().iter().product();
    let bias = with_bias.then(|| part(&all, aligned(weights), [sizes.channels_out]));
    (Some(part(&all, 0, sizes.weight_shape())), bias)
}

/// The sum of each channel of an image, `[channels]`.
pub(super) fn column_sums(y_gradient: &CubeTensor) -> CubeTensor {
    let [batch, height, width, channels_out] = y_gradient.shape().dims();
    let sizes = Sizes {
        batch,
        input: [height, width],
        output: [height, width],
        channels_in: 1,
        channels_out,
        kernel: 1,
        options: crate::Convolution::same(1),
    };
    // beside them, a column of weights that nobody asked for
    part(&over_pixels(&sizes, y_gradient, y_gradient, true), aligned(channels_out), [channels_out])
}

/// ẇ, then, at an [`aligned`] element, ḃ, in one flat tensor.
fn over_pixels(sizes: &Sizes, x: &CubeTensor, y_gradient: &CubeTensor, with_bias: bool) -> CubeTensor {
    let (taps, channels) = (sizes.kernel * sizes.kernel, sizes.channels_in);
    let (rows, weights) = (sizes.channels_out, sizes.channels_out * channels * taps);
    let columns = channels * taps + usize::from(with_bias);
    let length = if with_bias { aligned(weights) + rows } else { weights };
    let (tile, pixels) = (Tile::of(rows, columns), sizes.pixels());
    let tiles = tile.count(rows, columns);
    let tiles_of_part = tiles[0] * tiles[1];
    let (pixels_of_part, parts) = split(pixels, BUSY.div_ceil(tiles_of_part), LEAST_PIXELS, DEPTH);
    let product = Product::of_weight_gradient(sizes, columns).in_tiles(tiles, parts);
    let result = empty(x, [length], x.dtype);
    let split = (parts > 1).then(|| empty(x, [parts * length], DType::F32));
    let target = split.as_ref().unwrap_or(&result);
    unsafe {
        product_over_pixels::launch_unchecked(
            &x.client,
            cubes(product.tiles),
            CubeDim::new_1d(UNITS as u32),
            tile.vectors()[0],
            tile.vectors()[1],
            argument(y_gradient),
            argument(x),
            argument(target),
            product.launch(),
            tiles_of_part,
            pixels,
            pixels_of_part,
            length,
            aligned(weights),
            Gather::new(sizes, false),
            tile,
            element(x.dtype),
            element(target.dtype),
        );
        if let Some(split) = &split {
            sum_of_parts::launch_unchecked(
                &x.client,
                cubes(length.div_ceil(ADDING_UNITS)),
                CubeDim::new_1d(ADDING_UNITS as u32),
                argument(split),
                argument(&result),
                length,
                parts,
                element(x.dtype),
            );
        }
    }
    result
}

fn launch_product_of_pixels(
    source: &CubeTensor,
    weight: &CubeTensor,
    [bias, residual]: [Option<&CubeTensor>; 2],
    result: &CubeTensor,
    product: Product,
    [weight_column, weight_channel]: [usize; 2],
    gather: Gather,
) {
    let tile = Tile::of(product.rows, product.columns);
    let tiles = tile.count(product.rows, product.columns);
    let product = product.in_tiles(tiles, 1);
    unsafe {
        product_of_pixels::launch_unchecked(
            &source.client,
            cubes(product.tiles),
            CubeDim::new_1d(UNITS as u32),
            tile.vectors()[0],
            tile.vectors()[1],
            argument(source),
            argument(weight),
            argument(bias.unwrap_or(weight)),
            argument(residual.unwrap_or(weight)),
            argument(result),
            product.launch(),
            weight_column,
            weight_channel,
            gather,
            tile,
            bias.is_some(),
            residual.is_some(),
            element(source.dtype),
        );
    }
}
