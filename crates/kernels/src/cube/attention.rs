//! Softmax attention (Vaswani et al. 2017, arXiv:1706.03762) with learned memory, by tiles of keys in shared memory, so that
//! the matrix of all scores never exists (Dao et al. 2022, arXiv:2205.14135).
//!
//! `qkv` is `[batch, positions, 3, heads, head_dim]`, the output of a 1x1 convolution. `memory` is
//! `[2, heads, memory, head_dim]`: keys, then values, before those of the positions. Per sample and head:
//!
//! ```text
//! S = head_dim^-0.5 Q Kᵀ    P = softmax_keys(S)    out = P V    L_i = log Σ_j e^S_ij
//! ```
//!
//! The forward pass keeps for each query the greatest score so far and the sum of exponentials against it; when a greater
//! score comes, sum and output are scaled down. Output and L are saved for the backward pass. With a dot for gradients:
//!
//! ```text
//! P = e^(S - L)    Ṗ = ȯut Vᵀ    Ṡ = P (Ṗ - D), D_i = Σ_e ȯut out
//! V̇ = Pᵀ ȯut       Q̇ = head_dim^-0.5 Ṡ K         K̇ = head_dim^-0.5 Ṡᵀ Q
//! ```
//!
//! Launches: one forward; three backward: Q̇ and D; K̇ and V̇, those of the memory for each sample; the sum of the latter over
//! the batch. A query (a key, for K̇ and V̇) belongs to one unit, which has its row in registers, or, if the row is long, to
//! some lanes of units with a part of the row each, which add their parts of a score in shared memory. The keys (queries)
//! that it meets pass through shared memory, a tile at a time.

use burn::{backend::TensorMetadata, tensor::DType};
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::{ir::ElemType, prelude::*};

use crate::{
    cube::launch::{all_contiguous, argument, contiguous, cubes, element, empty, empty_like},
    graph::Differentiable,
};

/// Units of a cube of [`sum_over_batch`].
const UNITS: usize = 256;
/// The most units of a cube that share tiles.
const MOST_UNITS: usize = 128;
/// The number of cubes from which a device is taken to be busy: below it, cubes are smaller.
const BUSY: usize = 256;
/// Bytes of shared memory for the tiles of a cube.
const TILE_BYTES: usize = 12 * 1024;
/// The most rows of a tile.
const MOST_TILE: usize = 64;
/// Vectors of queries that a unit has in registers at most, where their sums and gradients are as long.
const LONG: usize = 16;
/// Vectors of a key that a unit has in registers at most: value, query, two gradients and two sums are as long.
const SHORT: usize = 8;
/// Queries of a unit at most: each beyond the first saves reading the keys from shared memory once.
const MOST_OWN: usize = 4;
/// Less than any score.
pub(super) const LEAST: f32 = f32::MIN;

/// Four elements of a row.
type Four = Vector<f32, Const<4>>;

/// The sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub batch: usize,
    /// Positions of a sample.
    pub positions: usize,
    pub heads: usize,
    pub head_dim: usize,
    /// Learned keys and values.
    pub memory: usize,
}

/// The sizes, as a kernel needs them.
#[derive(CubeLaunch, CubeType)]
pub(super) struct Geometry {
    pub positions: usize,
    pub heads: usize,
    pub memory: usize,
    /// Cubes of one head of one sample.
    pub blocks: usize,
    /// Cubes in all.
    pub cubes: usize,
}

impl Sizes {
    /// Keys that a query meets.
    pub fn keys(&self) -> usize {
        self.memory + self.positions
    }

    /// Heads of all samples.
    pub fn all_heads(&self) -> usize {
        self.batch * self.heads
    }

    /// Elements of the memory.
    pub fn memory_length(&self) -> usize {
        2 * self.heads * self.memory * self.head_dim
    }

    pub fn launch(&self, blocks: usize) -> GeometryLaunch {
        GeometryLaunch::new(self.positions, self.heads, self.memory, blocks, blocks * self.all_heads())
    }
}

/// How a cube works on rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Form {
    head_dim: usize,
    /// Units that share a row.
    lanes: usize,
    /// Vectors of a row that a unit has.
    vectors: usize,
    /// Rows of a unit.
    own: usize,
    /// Units of each lane.
    row_units: usize,
    /// Rows of a tile.
    tile: usize,
}

impl Form {
    /// The form for `rows` rows of each of `groups` heads, of which a unit has up to `most_own`, and up to `most` vectors in
    /// all.
    fn new(head_dim: usize, rows: usize, groups: usize, most: usize, most_own: usize) -> Self {
        let all = head_dim.div_ceil(4);
        let lanes = all.div_ceil(most);
        let vectors = all.div_ceil(lanes);
        let own = (most / vectors).clamp(1, most_own);
        let needed = rows.div_ceil(own);
        let is_busy = groups * needed.div_ceil((MOST_UNITS / lanes).max(1)) >= BUSY;
        let most_units = (if is_busy { MOST_UNITS } else { MOST_UNITS / 2 } / lanes).max(1);
        // as even as multiples of a warp's units permit
        let row_units = needed.div_ceil(needed.div_ceil(most_units)).next_multiple_of((32 / lanes).max(1));
        // two rows of a tile, two numbers of each, and two partial sums of each unit
        let bytes = 2 * 16 * lanes * vectors + 8 + if lanes > 1 { 8 * lanes * row_units } else { 0 };
        Self { head_dim, lanes, vectors, own, row_units, tile: (TILE_BYTES / bytes).clamp(1, MOST_TILE) }
    }

    fn units(&self) -> usize {
        self.lanes * self.row_units
    }

    /// Rows of a cube.
    fn rows(&self) -> usize {
        self.own * self.row_units
    }

    /// Cubes for the rows of a head.
    fn blocks(&self, rows: usize) -> usize {
        rows.div_ceil(self.rows())
    }

    /// Vectors of a row in shared memory.
    fn width(&self) -> usize {
        self.lanes * self.vectors
    }

    /// Vectors of a tile.
    fn tile_vectors(&self) -> usize {
        self.tile * self.width()
    }

    /// Partial sums in shared memory: one for each unit and row of a tile.
    fn partial_sums(&self) -> usize {
        if self.lanes > 1 { self.tile * self.units() } else { 1 }
    }
}

/// Four elements from `dim` on of the row that begins at `start`; those beyond the row are 0.
#[cube]
fn read<E: Float>(values: &[E], start: usize, dim: usize, #[comptime] head_dim: usize) -> Four {
    let mut four = Four::new(0.0f32);
    #[unroll]
    for index in 0..4 {
        if dim + index < head_dim {
            four.insert(index, f32::cast_from(values[start + dim + index]));
        }
    }
    four
}

/// Writes what [`read`] reads.
#[cube]
fn write<E: Float>(values: &mut [E], start: usize, dim: usize, four: Four, #[comptime] head_dim: usize) {
    #[unroll]
    for index in 0..4 {
        if dim + index < head_dim {
            values[start + dim + index] = E::cast_from(four.extract(index));
        }
    }
}

/// The sum of four elements.
#[cube]
fn sum_of_four(four: Four) -> f32 {
    (four.extract(0usize) + four.extract(1usize)) + (four.extract(2usize) + four.extract(3usize))
}

/// The product of a unit's part of a row with the same part of a row in shared memory.
#[cube]
fn dot(row: &Array<Four>, shared: &[Four], start: usize, #[comptime] vectors: usize) -> f32 {
    let mut sum = row[0] * shared[start];
    #[unroll]
    for vector in 1..vectors {
        sum += row[vector] * shared[start + vector];
    }
    sum_of_four(sum)
}

/// The product of two rows of which a unit has a part: with several lanes, the sum of their partial sums, which begin at
/// `partial_start`.
#[cube]
fn whole_dot(
    row: &Array<Four>,
    other: &Array<Four>,
    partial: &[f32],
    partial_start: usize,
    #[comptime] form: Form,
) -> f32 {
    if comptime!(form.lanes > 1) {
        sum_of_lanes(partial, partial_start, form)
    } else {
        let mut sum = Four::new(0.0f32);
        #[unroll]
        for vector in 0..form.vectors {
            sum += row[vector] * other[vector];
        }
        sum_of_four(sum)
    }
}

/// The sum of the lanes' partial sums, from that of the first lane on.
#[cube]
fn sum_of_lanes(partial: &[f32], start: usize, #[comptime] form: Form) -> f32 {
    let mut sum = partial[start];
    #[unroll]
    for lane in 1..form.lanes {
        sum += partial[start + lane * comptime!(form.row_units)];
    }
    sum
}

/// The row of the unit, and its part of it: with one lane, a constant, so that a compiler sees that all units read the same
/// place in shared memory.
#[cube]
fn row_and_lane(#[comptime] form: Form) -> (usize, usize) {
    let unit = UNIT_POS as usize;
    if comptime!(form.lanes > 1) {
        (unit % comptime!(form.row_units), unit / comptime!(form.row_units))
    } else {
        (unit, 0usize.runtime())
    }
}

/// The factor of the scores.
#[cube]
fn scale(#[comptime] head_dim: usize) -> f32 {
    f32::new(comptime!((head_dim as f32).powf(-0.5)))
}

/// Four elements of the key and of the value with a number: those of the memory come before those of the positions, and
/// those beyond are 0.
#[cube]
fn key_and_value<E: Float>(
    qkv: &[E],
    memory: &[E],
    sample: usize,
    head: usize,
    key: usize,
    dim: usize,
    geometry: &Geometry,
    #[comptime] head_dim: usize,
) -> (Four, Four) {
    let mut key_part = Four::new(0.0f32);
    let mut value_part = Four::new(0.0f32);
    if key < geometry.memory {
        let start = (head * geometry.memory + key) * head_dim;
        key_part = read::<E>(memory, start, dim, head_dim);
        value_part = read::<E>(memory, start + geometry.heads * geometry.memory * head_dim, dim, head_dim);
    } else if key < geometry.memory + geometry.positions {
        let position = sample * geometry.positions + key - geometry.memory;
        let start = ((position * 3 + 1) * geometry.heads + head) * head_dim;
        key_part = read::<E>(qkv, start, dim, head_dim);
        value_part = read::<E>(qkv, start + geometry.heads * head_dim, dim, head_dim);
    }
    (key_part, value_part)
}

/// Loads a tile of keys and values from key `first` on.
#[cube]
fn load_keys<E: Float>(
    qkv: &[E],
    memory: &[E],
    keys: &mut [Four],
    values: &mut [Four],
    sample: usize,
    head: usize,
    first: usize,
    geometry: &Geometry,
    #[comptime] form: Form,
) {
    let width = comptime!(form.width());
    let mut index = UNIT_POS as usize;
    while index < comptime!(form.tile_vectors()) {
        let (key, value) = key_and_value::<E>(
            qkv,
            memory,
            sample,
            head,
            first + index / width,
            index % width * 4,
            geometry,
            form.head_dim,
        );
        keys[index] = key;
        values[index] = value;
        index += comptime!(form.units());
    }
}

/// Output and log-sum-exp of `form.rows()` queries of one head.
#[cube(launch_unchecked)]
fn attention_forward<E: Float>(
    qkv: &[E],
    memory: &[E],
    output: &mut [E],
    log_sum_exp: &mut [f32],
    geometry: Geometry,
    #[comptime] form: Form,
    #[define(E)] _dtype: ElemType,
) {
    let mut keys = Shared::<[Four]>::new_slice(comptime!(form.tile_vectors()));
    let mut values = Shared::<[Four]>::new_slice(comptime!(form.tile_vectors()));
    let mut partial = Shared::<[f32]>::new_slice(comptime!(form.partial_sums()));
    if CUBE_POS >= geometry.cubes {
        terminate!();
    }
    let (head_dim, vectors, width, units) = comptime!((form.head_dim, form.vectors, form.width(), form.units()));
    let any_head = CUBE_POS / geometry.blocks;
    let sample = any_head / geometry.heads;
    let head = any_head % geometry.heads;
    let unit = UNIT_POS as usize;
    let (unit_row, lane) = row_and_lane(form);
    let own = comptime!(form.own);
    let first_row = CUBE_POS % geometry.blocks * comptime!(form.rows()) + unit_row;

    let mut query = Array::<Four>::new(comptime!(own * vectors));
    let mut sums = Array::<Four>::new(comptime!(own * vectors));
    let mut greatest = Array::<f32>::new(own);
    let mut total = Array::<f32>::new(own);
    #[unroll]
    for row in 0..own {
        greatest[row] = LEAST.runtime();
        total[row] = 0.0f32;
        let position = first_row + row * comptime!(form.row_units);
        #[unroll]
        for vector in 0..vectors {
            sums[row * vectors + vector] = Four::new(0.0f32);
            query[row * vectors + vector] = Four::new(0.0f32);
            if position < geometry.positions {
                let start = ((sample * geometry.positions + position) * 3 * geometry.heads + head) * head_dim;
                let part = read::<E>(qkv, start, (lane * vectors + vector) * 4, head_dim);
                query[row * vectors + vector] = part * Four::new(scale(head_dim));
            }
        }
    }
    let mut products = Array::<Four>::new(own);
    let mut weights = Array::<Four>::new(own);
    let end = geometry.memory + geometry.positions;
    let mut first = 0usize.runtime();
    while first < end {
        load_keys::<E>(qkv, memory, &mut keys, &mut values, sample, head, first, &geometry, form);
        sync_cube();
        let count = clamp_max(end - first, comptime!(form.tile));
        if comptime!(form.lanes > 1) {
            // a unit has one query
            for key in 0..count {
                partial[key * units + unit] = dot(&query, &keys, key * width + lane * vectors, vectors);
            }
            sync_cube();
        }
        for key in 0..count {
            let start = key * width + lane * vectors;
            if comptime!(form.lanes == 1) {
                #[unroll]
                for row in 0..own {
                    products[row] = Four::new(0.0f32);
                }
                #[unroll]
                for vector in 0..vectors {
                    let part = keys[start + vector];
                    #[unroll]
                    for row in 0..own {
                        products[row] += query[row * vectors + vector] * part;
                    }
                }
            }
            #[unroll]
            for row in 0..own {
                let score = if comptime!(form.lanes > 1) {
                    sum_of_lanes(&partial, key * units + unit_row, form)
                } else {
                    sum_of_four(products[row])
                };
                if score > greatest[row] {
                    let factor = (greatest[row] - score).exp();
                    total[row] *= factor;
                    #[unroll]
                    for vector in 0..vectors {
                        sums[row * vectors + vector] *= Four::new(factor);
                    }
                    greatest[row] = score;
                }
                // NaN of a score that is NaN or infinite
                let weight = (score - greatest[row]).exp();
                total[row] += weight;
                weights[row] = Four::new(weight);
            }
            #[unroll]
            for vector in 0..vectors {
                let part = values[start + vector];
                #[unroll]
                for row in 0..own {
                    sums[row * vectors + vector] += weights[row] * part;
                }
            }
        }
        sync_cube();
        first += comptime!(form.tile);
    }
    #[unroll]
    for row in 0..own {
        let position = first_row + row * comptime!(form.row_units);
        if position < geometry.positions {
            let start = ((sample * geometry.positions + position) * geometry.heads + head) * head_dim;
            let factor = Four::new(1.0 / total[row]);
            #[unroll]
            for vector in 0..vectors {
                let result = sums[row * vectors + vector] * factor;
                write::<E>(output, start, (lane * vectors + vector) * 4, result, head_dim);
            }
            if lane == 0 {
                log_sum_exp[any_head * geometry.positions + position] = greatest[row] + total[row].ln();
            }
        }
    }
}

/// Q̇ and D of `form.rows()` queries of one head.
#[cube(launch_unchecked)]
fn attention_backward_queries<E: Float>(
    qkv: &[E],
    memory: &[E],
    output: &[E],
    log_sum_exp: &[f32],
    output_gradient: &[E],
    qkv_gradient: &mut [E],
    row_sums: &mut [f32],
    geometry: Geometry,
    #[comptime] form: Form,
    #[define(E)] _dtype: ElemType,
) {
    let mut keys = Shared::<[Four]>::new_slice(comptime!(form.tile_vectors()));
    let mut values = Shared::<[Four]>::new_slice(comptime!(form.tile_vectors()));
    let mut partial = Shared::<[f32]>::new_slice(comptime!(form.partial_sums()));
    let mut partial_gradients = Shared::<[f32]>::new_slice(comptime!(form.partial_sums()));
    if CUBE_POS >= geometry.cubes {
        terminate!();
    }
    let (head_dim, vectors, width, units) = comptime!((form.head_dim, form.vectors, form.width(), form.units()));
    let any_head = CUBE_POS / geometry.blocks;
    let sample = any_head / geometry.heads;
    let head = any_head % geometry.heads;
    let unit = UNIT_POS as usize;
    let (unit_row, lane) = row_and_lane(form);
    let own = comptime!(form.own);
    let first_row = CUBE_POS % geometry.blocks * comptime!(form.rows()) + unit_row;

    let mut query = Array::<Four>::new(comptime!(own * vectors));
    let mut gradient = Array::<Four>::new(comptime!(own * vectors));
    let mut sums = Array::<Four>::new(comptime!(own * vectors));
    let mut dots = Array::<f32>::new(own);
    let mut logarithms = Array::<f32>::new(own);
    #[unroll]
    for row in 0..own {
        let row_in_sample = first_row + row * comptime!(form.row_units);
        let position = sample * geometry.positions + row_in_sample;
        let mut products = Four::new(0.0f32);
        #[unroll]
        for vector in 0..vectors {
            sums[row * vectors + vector] = Four::new(0.0f32);
            query[row * vectors + vector] = Four::new(0.0f32);
            gradient[row * vectors + vector] = Four::new(0.0f32);
            if row_in_sample < geometry.positions {
                let dim = (lane * vectors + vector) * 4;
                let start = (position * geometry.heads + head) * head_dim;
                let part = read::<E>(output_gradient, start, dim, head_dim);
                products += part * read::<E>(output, start, dim, head_dim);
                gradient[row * vectors + vector] = part;
                let query_part = read::<E>(qkv, (position * 3 * geometry.heads + head) * head_dim, dim, head_dim);
                query[row * vectors + vector] = query_part * Four::new(scale(head_dim));
            }
        }
        dots[row] = sum_of_four(products);
        if comptime!(form.lanes > 1) {
            partial[unit] = dots[row];
            sync_cube();
            dots[row] = sum_of_lanes(&partial, unit_row, form);
            sync_cube();
        }
        logarithms[row] = 0.0f32;
        if row_in_sample < geometry.positions {
            let index = any_head * geometry.positions + row_in_sample;
            logarithms[row] = log_sum_exp[index];
            if lane == 0 {
                row_sums[index] = dots[row];
            }
        }
    }
    let mut products = Array::<Four>::new(comptime!(2 * own));
    let mut factors = Array::<Four>::new(own);
    let end = geometry.memory + geometry.positions;
    let mut first = 0usize.runtime();
    while first < end {
        load_keys::<E>(qkv, memory, &mut keys, &mut values, sample, head, first, &geometry, form);
        sync_cube();
        let count = clamp_max(end - first, comptime!(form.tile));
        if comptime!(form.lanes > 1) {
            // a unit has one query
            for key in 0..count {
                let start = key * width + lane * vectors;
                partial[key * units + unit] = dot(&query, &keys, start, vectors);
                partial_gradients[key * units + unit] = dot(&gradient, &values, start, vectors);
            }
            sync_cube();
        }
        for key in 0..count {
            let start = key * width + lane * vectors;
            if comptime!(form.lanes == 1) {
                #[unroll]
                for row in 0..comptime!(2 * own) {
                    products[row] = Four::new(0.0f32);
                }
                #[unroll]
                for vector in 0..vectors {
                    let key_part = keys[start + vector];
                    let value_part = values[start + vector];
                    #[unroll]
                    for row in 0..own {
                        products[row] += query[row * vectors + vector] * key_part;
                        products[own + row] += gradient[row * vectors + vector] * value_part;
                    }
                }
            }
            #[unroll]
            for row in 0..own {
                let (score, weight_gradient) = if comptime!(form.lanes > 1) {
                    let partial_start = key * units + unit_row;
                    let score = sum_of_lanes(&partial, partial_start, form);
                    (score, sum_of_lanes(&partial_gradients, partial_start, form))
                } else {
                    (sum_of_four(products[row]), sum_of_four(products[own + row]))
                };
                factors[row] = Four::new((score - logarithms[row]).exp() * (weight_gradient - dots[row]));
            }
            #[unroll]
            for vector in 0..vectors {
                let part = keys[start + vector];
                #[unroll]
                for row in 0..own {
                    sums[row * vectors + vector] += factors[row] * part;
                }
            }
        }
        sync_cube();
        first += comptime!(form.tile);
    }
    #[unroll]
    for row in 0..own {
        let row_in_sample = first_row + row * comptime!(form.row_units);
        if row_in_sample < geometry.positions {
            let position = sample * geometry.positions + row_in_sample;
            let start = (position * 3 * geometry.heads + head) * head_dim;
            #[unroll]
            for vector in 0..vectors {
                let result = sums[row * vectors + vector] * Four::new(scale(head_dim));
                write::<E>(qkv_gradient, start, (lane * vectors + vector) * 4, result, head_dim);
            }
        }
    }
}

/// K̇ and V̇ of `form.rows()` keys of one head; those of the memory are written as `memory_parts[sample][key, value][head][key]`.
#[cube(launch_unchecked)]
fn attention_backward_keys<E: Float>(
    qkv: &[E],
    memory: &[E],
    log_sum_exp: &[f32],
    row_sums: &[f32],
    output_gradient: &[E],
    qkv_gradient: &mut [E],
    memory_parts: &mut [f32],
    geometry: Geometry,
    #[comptime] form: Form,
    #[define(E)] _dtype: ElemType,
) {
    let mut queries = Shared::<[Four]>::new_slice(comptime!(form.tile_vectors()));
    let mut gradients = Shared::<[Four]>::new_slice(comptime!(form.tile_vectors()));
    let mut logarithms = Shared::<[f32]>::new_slice(comptime!(form.tile));
    let mut tile_sums = Shared::<[f32]>::new_slice(comptime!(form.tile));
    let mut partial = Shared::<[f32]>::new_slice(comptime!(form.partial_sums()));
    let mut partial_gradients = Shared::<[f32]>::new_slice(comptime!(form.partial_sums()));
    if CUBE_POS >= geometry.cubes {
        terminate!();
    }
    let (head_dim, vectors, width, units) = comptime!((form.head_dim, form.vectors, form.width(), form.units()));
    let any_head = CUBE_POS / geometry.blocks;
    let sample = any_head / geometry.heads;
    let head = any_head % geometry.heads;
    let unit = UNIT_POS as usize;
    let (unit_row, lane) = row_and_lane(form);
    let own = CUBE_POS % geometry.blocks * comptime!(form.rows()) + unit_row;

    let mut key = Array::<Four>::new(vectors);
    let mut value = Array::<Four>::new(vectors);
    let mut key_sums = Array::<Four>::new(vectors);
    let mut value_sums = Array::<Four>::new(vectors);
    #[unroll]
    for vector in 0..vectors {
        let dim = (lane * vectors + vector) * 4;
        let (key_part, value_part) = key_and_value::<E>(qkv, memory, sample, head, own, dim, &geometry, head_dim);
        key[vector] = key_part;
        value[vector] = value_part;
        key_sums[vector] = Four::new(0.0f32);
        value_sums[vector] = Four::new(0.0f32);
    }
    let mut query_parts = Array::<Four>::new(vectors);
    let mut gradient_parts = Array::<Four>::new(vectors);
    let mut first = 0usize.runtime();
    while first < geometry.positions {
        let count = clamp_max(geometry.positions - first, comptime!(form.tile));
        let mut index = unit;
        while index < count * width {
            let dim = index % width * 4;
            let position = sample * geometry.positions + first + index / width;
            let query = read::<E>(qkv, (position * 3 * geometry.heads + head) * head_dim, dim, head_dim);
            queries[index] = query * Four::new(scale(head_dim));
            gradients[index] = read::<E>(output_gradient, (position * geometry.heads + head) * head_dim, dim, head_dim);
            index += units;
        }
        let mut query = unit;
        while query < count {
            let index = any_head * geometry.positions + first + query;
            logarithms[query] = log_sum_exp[index];
            tile_sums[query] = row_sums[index];
            query += units;
        }
        sync_cube();
        if comptime!(form.lanes > 1) {
            for query in 0..count {
                let start = query * width + lane * vectors;
                partial[query * units + unit] = dot(&key, &queries, start, vectors);
                partial_gradients[query * units + unit] = dot(&value, &gradients, start, vectors);
            }
            sync_cube();
        }
        for query in 0..count {
            let start = query * width + lane * vectors;
            #[unroll]
            for vector in 0..vectors {
                query_parts[vector] = queries[start + vector];
                gradient_parts[vector] = gradients[start + vector];
            }
            let partial_start = query * units + unit_row;
            let score = whole_dot(&key, &query_parts, &partial, partial_start, form);
            let weight_gradient = whole_dot(&value, &gradient_parts, &partial_gradients, partial_start, form);
            let weight = (score - logarithms[query]).exp();
            let weights = Four::new(weight);
            let factors = Four::new(weight * (weight_gradient - tile_sums[query]));
            #[unroll]
            for vector in 0..vectors {
                value_sums[vector] += weights * gradient_parts[vector];
                key_sums[vector] += factors * query_parts[vector];
            }
        }
        sync_cube();
        first += comptime!(form.tile);
    }
    if own < geometry.memory {
        let start = ((sample * 2 * geometry.heads + head) * geometry.memory + own) * head_dim;
        #[unroll]
        for vector in 0..vectors {
            let dim = (lane * vectors + vector) * 4;
            write::<f32>(memory_parts, start, dim, key_sums[vector], head_dim);
            let value_start = start + geometry.heads * geometry.memory * head_dim;
            write::<f32>(memory_parts, value_start, dim, value_sums[vector], head_dim);
        }
    } else if own < geometry.memory + geometry.positions {
        let position = sample * geometry.positions + own - geometry.memory;
        let start = ((position * 3 + 1) * geometry.heads + head) * head_dim;
        #[unroll]
        for vector in 0..vectors {
            let dim = (lane * vectors + vector) * 4;
            write::<E>(qkv_gradient, start, dim, key_sums[vector], head_dim);
            write::<E>(qkv_gradient, start + geometry.heads * head_dim, dim, value_sums[vector], head_dim);
        }
    }
}

/// `result[i] = Σ parts[sample][i]`
#[cube(launch_unchecked)]
fn sum_over_batch<E: Float>(
    parts: &[f32],
    result: &mut [E],
    length: usize,
    batch: usize,
    #[define(E)] _dtype: ElemType,
) {
    let index = CUBE_POS * UNITS + UNIT_POS as usize;
    if index < length {
        let mut sum = 0.0f32;
        for sample in 0..batch {
            sum += parts[sample * length + index];
        }
        result[index] = E::cast_from(sum);
    }
}

/// A tensor for the gradient of the memory of each sample, `[batch, …]`.
pub(super) fn memory_parts(sizes: &Sizes, qkv: &CubeTensor) -> CubeTensor {
    empty(qkv, [(sizes.batch * sizes.memory_length()).max(1)], DType::F32)
}

/// The gradient of the memory from that of each sample.
pub(super) fn memory_gradient(sizes: &Sizes, parts: &CubeTensor, memory: &CubeTensor) -> CubeTensor {
    let gradient = empty_like(memory);
    let length = sizes.memory_length();
    if length > 0 {
        unsafe {
            sum_over_batch::launch_unchecked(
                &memory.client,
                cubes(length.div_ceil(UNITS)),
                CubeDim::new_1d(UNITS as u32),
                argument(parts),
                argument(&gradient),
                length,
                sizes.batch,
                element(memory.dtype),
            );
        }
    }
    gradient
}

/// The burn operation: qkv `[batch, positions, 3 heads head_dim]` and memory `[2, heads, memory, head_dim]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention;

impl Attention {
    fn sizes(qkv: &CubeTensor, memory: &CubeTensor) -> Sizes {
        let ([batch, positions, _], [_, heads, memory, head_dim]) = (qkv.shape().dims(), memory.shape().dims());
        Sizes { batch, positions, heads, head_dim, memory }
    }
}

impl Differentiable<CubeBackend> for Attention {
    /// Saves the output and the log-sum-exp of each query.
    fn forward(&self, inputs: Vec<CubeTensor>) -> (CubeTensor, Vec<CubeTensor>) {
        let inputs = all_contiguous(inputs);
        let (qkv, memory) = (&inputs[0], &inputs[1]);
        let sizes = Self::sizes(qkv, memory);
        let output = empty(qkv, [sizes.batch, sizes.positions, sizes.heads * sizes.head_dim], qkv.dtype);
        let log_sum_exp = empty(qkv, [sizes.all_heads(), sizes.positions], DType::F32);
        let form = Form::new(sizes.head_dim, sizes.positions, sizes.all_heads(), LONG, MOST_OWN);
        let blocks = form.blocks(sizes.positions);
        unsafe {
            attention_forward::launch_unchecked(
                &qkv.client,
                cubes(blocks * sizes.all_heads()),
                CubeDim::new_1d(form.units() as u32),
                argument(qkv),
                argument(memory),
                argument(&output),
                argument(&log_sum_exp),
                sizes.launch(blocks),
                form,
                element(qkv.dtype),
            );
        }
        (output.clone(), vec![output, log_sum_exp])
    }

    fn backward(
        &self,
        inputs: Vec<CubeTensor>,
        saved: Vec<CubeTensor>,
        output_gradient: CubeTensor,
        _: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let (inputs, output_gradient) = (all_contiguous(inputs), contiguous(output_gradient));
        let (qkv, memory) = (&inputs[0], &inputs[1]);
        let (output, log_sum_exp) = (&saved[0], &saved[1]);
        let sizes = Self::sizes(qkv, memory);
        let qkv_gradient = empty_like(qkv);
        let row_sums = empty_like(log_sum_exp);
        let parts = memory_parts(&sizes, qkv);
        let form = Form::new(sizes.head_dim, sizes.positions, sizes.all_heads(), LONG, MOST_OWN);
        let blocks = form.blocks(sizes.positions);
        unsafe {
            attention_backward_queries::launch_unchecked(
                &qkv.client,
                cubes(blocks * sizes.all_heads()),
                CubeDim::new_1d(form.units() as u32),
                argument(qkv),
                argument(memory),
                argument(output),
                argument(log_sum_exp),
                argument(&output_gradient),
                argument(&qkv_gradient),
                argument(&row_sums),
                sizes.launch(blocks),
                form,
                element(qkv.dtype),
            );
        }
        let form = Form::new(sizes.head_dim, sizes.keys(), sizes.all_heads(), SHORT, 1);
        let blocks = form.blocks(sizes.keys());
        unsafe {
            attention_backward_keys::launch_unchecked(
                &qkv.client,
                cubes(blocks * sizes.all_heads()),
                CubeDim::new_1d(form.units() as u32),
                argument(qkv),
                argument(memory),
                argument(log_sum_exp),
                argument(&row_sums),
                argument(&output_gradient),
                argument(&qkv_gradient),
                argument(&parts),
                sizes.launch(blocks),
                form,
                element(qkv.dtype),
            );
        }
        let memory_gradient = memory_gradient(&sizes, &parts, memory);
        vec![Some(qkv_gradient), Some(memory_gradient)]
    }

    fn is_cheap(&self) -> bool {
        false
    }
}
