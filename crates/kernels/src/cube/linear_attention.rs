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
//! Backward, with a dot for gradients; C and the statistics of K are saved by the forward pass, the softmaxes recomputed:
//!
//! ```text
//! Q̇ = ȯut Cᵀ     q̇ = Q (Q̇ - Σ_d Q̇ Q / Σ_d Q)     Ċ = Qᵀ ȯut
//! V̇ = K Ċ        K̇ = V Ċᵀ                        k̇ = K (K̇ - Σ_n K̇ K)
//! Σ_d Q̇ Q = Σ_e ȯut out     Σ_d Q = head_dim^-0.5     Σ_n K̇ K = Σ_e C Ċ
//! ```
//!
//! Launches: three forward: C of runs of positions, with the maxima and sums of their k; C and statistics of all; out. Five
//! backward: q̇; Ċ of runs of positions; Ċ of all, with Σ_e C Ċ; k̇ and V̇, those of the memory for each sample; the sum of
//! the latter over the batch. Products are tiles of four rows and columns for each unit, whose factors pass through shared
//! memory, [`DEPTH`] terms of the sum at a time.

use burn::{backend::TensorMetadata, tensor::DType};
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::{ir::ElemType, prelude::*};

use crate::{
    cube::{
        attention::{Geometry, LEAST, Sizes, memory_gradient, memory_parts},
        launch::{all_contiguous, argument, contiguous, cubes, element, empty, empty_like},
    },
    graph::Differentiable,
};

/// Rows, and columns, of a tile that belong to one unit.
const OWN: usize = 4;
/// Columns of a tile.
const COLUMNS: usize = 32;
/// Units along the columns of a tile.
const ACROSS: usize = COLUMNS / OWN;
/// Terms of a sum that lie in shared memory at a time.
const DEPTH: usize = 32;
/// Rows of a tile whose rows are positions, and of one of C.
const POSITION_ROWS: usize = 64;
const CONTEXT_ROWS: usize = 32;
/// Units of a cube for either.
const POSITION_UNITS: usize = POSITION_ROWS / OWN * ACROSS;
const CONTEXT_UNITS: usize = CONTEXT_ROWS / OWN * ACROSS;
/// Loads of a unit for the rows of a tile whose rows are positions.
const LOADS: usize = POSITION_ROWS * DEPTH / POSITION_UNITS;
/// Units of a cube that merges runs.
const MERGE_UNITS: usize = 64;
/// The number of runs of positions, of all heads of all samples, from which a device is taken to be busy.
const BUSY: usize = 1024;
/// The fewest and the most positions of a run, if there are as many.
const LEAST_RUN: usize = 64;
const MOST_RUN: usize = 512;

/// Adds the product of two tiles in shared memory, `[term][row]` and `[term][column]`, to the sums of the unit.
#[cube]
fn multiply(left: &[f32], right: &[f32], sums: &mut Array<f32>, #[comptime] rows: usize) {
    let row = UNIT_POS as usize / ACROSS;
    let column = UNIT_POS as usize % ACROSS;
    let mut lefts = Array::<f32>::new(OWN);
    let mut rights = Array::<f32>::new(OWN);
    for term in 0..DEPTH {
        #[unroll]
        for index in 0..OWN {
            lefts[index] = left[term * comptime!(rows + 1) + row + index * comptime!(rows / OWN)];
            rights[index] = right[term * comptime!(COLUMNS + 1) + column + index * ACROSS];
        }
        #[unroll]
        for i in 0..OWN {
            #[unroll]
            for j in 0..OWN {
                sums[i * OWN + j] += lefts[i] * rights[j];
            }
        }
    }
}

/// The unit's sums, all 0.
#[cube]
fn zeros() -> Array<f32> {
    let mut sums = Array::<f32>::new(comptime!(OWN * OWN));
    #[unroll]
    for index in 0..comptime!(OWN * OWN) {
        sums[index] = 0.0f32;
    }
    sums
}

/// An element of a key (`part` 1) or value (2); those of the memory come before those of the positions.
#[cube]
fn key_or_value<E: Float>(
    qkv: &[E],
    memory: &[E],
    sample: usize,
    head: usize,
    key: usize,
    dim: usize,
    geometry: &Geometry,
    #[comptime] part: usize,
    #[comptime] head_dim: usize,
) -> f32 {
    if key < geometry.memory {
        let row = (comptime!(part - 1) * geometry.heads + head) * head_dim + dim;
        f32::cast_from(memory[row * geometry.memory + key])
    } else {
        let position = sample * geometry.positions + key - geometry.memory;
        f32::cast_from(qkv[((position * 3 + part) * geometry.heads + head) * head_dim + dim])
    }
}

/// The greatest q of each of `rows` positions from `first` on, and the reciprocal of the sum of exponentials against it;
/// both 0 beyond the positions. `scratch` has as many elements as the cube has units.
#[cube]
fn query_statistics<E: Float>(
    qkv: &[E],
    greatest: &mut [f32],
    reciprocal: &mut [f32],
    scratch: &mut [f32],
    sample: usize,
    head: usize,
    first: usize,
    end: usize,
    geometry: &Geometry,
    #[comptime] rows: usize,
    #[comptime] head_dim: usize,
) {
    let unit = UNIT_POS as usize;
    let lanes = comptime!(ACROSS / OWN);
    let row = unit / lanes;
    let lane = unit % lanes;
    let inside = first + row < end;
    let start = ((sample * geometry.positions + first + row) * 3 * geometry.heads + head) * head_dim;
    let mut largest = LEAST.runtime();
    if inside {
        let mut dim = lane;
        while dim < head_dim {
            let value = f32::cast_from(qkv[start + dim]);
            if value > largest {
                largest = value;
            }
            dim += lanes;
        }
    }
    scratch[unit] = largest;
    sync_cube();
    #[unroll]
    for other in 0..lanes {
        let value = scratch[row * lanes + other];
        if value > largest {
            largest = value;
        }
    }
    sync_cube();
    let mut sum = 0.0f32;
    if inside {
        let mut dim = lane;
        while dim < head_dim {
            sum += (f32::cast_from(qkv[start + dim]) - largest).exp();
            dim += lanes;
        }
    }
    scratch[unit] = sum;
    sync_cube();
    if unit < rows {
        let mut total = 0.0f32;
        #[unroll]
        for other in 0..lanes {
            total += scratch[unit * lanes + other];
        }
        reciprocal[unit] = select(first + unit < end, 1.0 / total, 0.0f32);
    }
    if lane == 0 {
        greatest[row] = select(inside, largest, 0.0f32);
    }
    sync_cube();
}

/// The term and the row of a unit's load: neighbors read neighboring terms, which are neighbors in memory.
#[cube]
fn term_and_row(load: usize) -> (usize, usize) {
    let unit = UNIT_POS as usize;
    (unit % DEPTH, unit / DEPTH + load * comptime!(POSITION_UNITS / DEPTH))
}

/// Loads a tile of C or Ċ of one head, which begins at `start`, or of its transpose, as `[term][column]`.
#[cube]
fn load_context(
    context: &[f32],
    tile: &mut [f32],
    start: usize,
    first_term: usize,
    first_column: usize,
    #[comptime] transposed: bool,
    #[comptime] head_dim: usize,
) {
    for load in 0..comptime!(DEPTH * COLUMNS / POSITION_UNITS) {
        // neighbors read neighbors
        let across = UNIT_POS as usize % COLUMNS;
        let down = UNIT_POS as usize / COLUMNS + load * comptime!(POSITION_UNITS / COLUMNS);
        let mut value = 0.0f32;
        if comptime!(transposed) {
            if first_term + across < head_dim && first_column + down < head_dim {
                value = context[start + (first_column + down) * head_dim + first_term + across];
            }
            tile[across * comptime!(COLUMNS + 1) + down] = value;
        } else {
            if first_term + down < head_dim && first_column + across < head_dim {
                value = context[start + (first_term + down) * head_dim + first_column + across];
            }
            tile[down * comptime!(COLUMNS + 1) + across] = value;
        }
    }
}

/// C of a run of keys against the maxima of their k, with those maxima and the sums of exponentials:
/// `parts[sample][head][run][head_dim + 2][head_dim]`. A cube has a tile of it.
#[cube(launch_unchecked)]
fn context_parts<E: Float>(
    qkv: &[E],
    memory: &[E],
    parts: &mut [f32],
    geometry: Geometry,
    run_length: usize,
    #[comptime] head_dim: usize,
    #[define(E)] _dtype: ElemType,
) {
    let mut left = Shared::<[f32]>::new_slice(comptime!(DEPTH * (CONTEXT_ROWS + 1)));
    let mut right = Shared::<[f32]>::new_slice(comptime!(DEPTH * (COLUMNS + 1)));
    let mut scratch = Shared::<[f32]>::new_slice(CONTEXT_UNITS);
    if CUBE_POS >= geometry.cubes {
        terminate!();
    }
    let tiles = comptime!(head_dim.div_ceil(COLUMNS));
    let any_head = CUBE_POS / geometry.blocks;
    let sample = any_head / geometry.heads;
    let head = any_head % geometry.heads;
    let block = CUBE_POS % geometry.blocks;
    let run = block / comptime!(tiles * tiles);
    let first_row = block % comptime!(tiles * tiles) / tiles * CONTEXT_ROWS;
    let first_column = block % tiles * COLUMNS;
    let first = run * run_length;
    let end = clamp_max(first + run_length, geometry.memory + geometry.positions);
    let part_start =
        (any_head * (geometry.blocks / comptime!(tiles * tiles)) + run) * comptime!((head_dim + 2) * head_dim);

    // a unit has one column of k, and every second key
    let unit = UNIT_POS as usize;
    let local = unit % CONTEXT_ROWS;
    let step = comptime!(CONTEXT_UNITS / CONTEXT_ROWS);
    let dim = first_row + local;
    let mut greatest = LEAST.runtime();
    if dim < head_dim {
        let mut key = first + unit / CONTEXT_ROWS;
        while key < end {
            let value = key_or_value::<E>(qkv, memory, sample, head, key, dim, &geometry, 1usize, head_dim);
            if value > greatest {
                greatest = value;
            }
            key += step;
        }
    }
    scratch[unit] = greatest;
    sync_cube();
    #[unroll]
    for other in 0..step {
        let value = scratch[local + other * CONTEXT_ROWS];
        if value > greatest {
            greatest = value;
        }
    }
    sync_cube();

    let mut sums = zeros();
    let mut total = 0.0f32;
    let mut first_key = first;
    while first_key < end {
        for load in 0..comptime!(DEPTH * CONTEXT_ROWS / CONTEXT_UNITS) {
            let term = unit / CONTEXT_ROWS + load * step;
            let key = first_key + term;
            let mut weight = 0.0f32;
            let mut value = 0.0f32;
            if key < end {
                if dim < head_dim {
                    let k = key_or_value::<E>(qkv, memory, sample, head, key, dim, &geometry, 1usize, head_dim);
                    weight = (k - greatest).exp();
                }
                if first_column + local < head_dim {
                    let column = first_column + local;
                    value = key_or_value::<E>(qkv, memory, sample, head, key, column, &geometry, 2usize, head_dim);
                }
            }
            total += weight;
            left[term * comptime!(CONTEXT_ROWS + 1) + local] = weight;
            right[term * comptime!(COLUMNS + 1) + local] = value;
        }
        sync_cube();
        multiply(&left, &right, &mut sums, CONTEXT_ROWS);
        sync_cube();
        first_key += DEPTH;
    }
    scratch[unit] = total;
    sync_cube();
    if unit < CONTEXT_ROWS && dim < head_dim && first_column == 0 {
        let mut sum = 0.0f32;
        #[unroll]
        for other in 0..step {
            sum += scratch[local + other * CONTEXT_ROWS];
        }
        parts[part_start + comptime!(head_dim * head_dim) + dim] = greatest;
        parts[part_start + comptime!((head_dim + 1) * head_dim) + dim] = sum;
    }
    write_context(parts, &sums, part_start, first_row, first_column, head_dim);
}

/// Writes the unit's sums into the C or Ċ that begins at `start`.
#[cube]
fn write_context(
    context: &mut [f32],
    sums: &Array<f32>,
    start: usize,
    first_row: usize,
    first_column: usize,
    #[comptime] head_dim: usize,
) {
    #[unroll]
    for i in 0..OWN {
        #[unroll]
        for j in 0..OWN {
            let row = first_row + UNIT_POS as usize / ACROSS + i * comptime!(CONTEXT_ROWS / OWN);
            let column = first_column + UNIT_POS as usize % ACROSS + j * ACROSS;
            if row < head_dim && column < head_dim {
                context[start + row * head_dim + column] = sums[i * OWN + j];
            }
        }
    }
}

/// C of all keys, then the maximum of k and the reciprocal of the sum of exponentials against it:
/// `context[sample][head][head_dim + 2][head_dim]`. A unit has an element of C.
#[cube(launch_unchecked)]
fn merge_contexts(parts: &[f32], context: &mut [f32], elements: usize, runs: usize, #[comptime] head_dim: usize) {
    let (square, length) = comptime!((head_dim * head_dim, (head_dim + 2) * head_dim));
    let index = CUBE_POS * MERGE_UNITS + UNIT_POS as usize;
    if index < elements {
        let any_head = index / square;
        let element = index % square;
        let row = element / head_dim;
        let parts_start = any_head * runs * length;
        let mut greatest = LEAST.runtime();
        for run in 0..runs {
            let value = parts[parts_start + run * length + square + row];
            if value > greatest {
                greatest = value;
            }
        }
        let mut sum = 0.0f32;
        let mut total = 0.0f32;
        for run in 0..runs {
            let start = parts_start + run * length;
            let factor = (parts[start + square + row] - greatest).exp();
            sum += factor * parts[start + element];
            total += factor * parts[start + square + head_dim + row];
        }
        let reciprocal = 1.0 / total;
        let start = any_head * length;
        context[start + element] = sum * reciprocal;
        if element.is_multiple_of(head_dim) {
            context[start + square + row] = greatest;
            context[start + square + head_dim + row] = reciprocal;
        }
    }
}

/// A tile of out: `POSITION_ROWS` positions of one head.
#[cube(launch_unchecked)]
fn output_of_positions<E: Float>(
    qkv: &[E],
    context: &[f32],
    output: &mut [E],
    geometry: Geometry,
    #[comptime] head_dim: usize,
    #[define(E)] _dtype: ElemType,
) {
    let mut left = Shared::<[f32]>::new_slice(comptime!(DEPTH * (POSITION_ROWS + 1)));
    let mut right = Shared::<[f32]>::new_slice(comptime!(DEPTH * (COLUMNS + 1)));
    let mut scratch = Shared::<[f32]>::new_slice(POSITION_UNITS);
    let mut greatest = Shared::<[f32]>::new_slice(POSITION_ROWS);
    let mut reciprocal = Shared::<[f32]>::new_slice(POSITION_ROWS);
    if CUBE_POS >= geometry.cubes {
        terminate!();
    }
    let tiles = comptime!(head_dim.div_ceil(COLUMNS));
    let any_head = CUBE_POS / geometry.blocks;
    let sample = any_head / geometry.heads;
    let head = any_head % geometry.heads;
    let block = CUBE_POS % geometry.blocks;
    let first_row = block / tiles * POSITION_ROWS;
    let first_column = block % tiles * COLUMNS;
    let end = geometry.positions;
    query_statistics::<E>(
        qkv,
        &mut greatest,
        &mut reciprocal,
        &mut scratch,
        sample,
        head,
        first_row,
        end,
        &geometry,
        POSITION_ROWS,
        head_dim,
    );
    let mut sums = zeros();
    let mut first_dim = 0usize.runtime();
    while first_dim < head_dim {
        for load in 0..LOADS {
            let (term, local) = term_and_row(load);
            let row = first_row + local;
            let dim = first_dim + term;
            let mut value = 0.0f32;
            if row < end && dim < head_dim {
                let position = sample * geometry.positions + row;
                let q = f32::cast_from(qkv[(position * 3 * geometry.heads + head) * head_dim + dim]);
                value = (q - greatest[local]).exp() * reciprocal[local];
            }
            left[term * comptime!(POSITION_ROWS + 1) + local] = value;
        }
        let start = any_head * comptime!((head_dim + 2) * head_dim);
        load_context(context, &mut right, start, first_dim, first_column, false, head_dim);
        sync_cube();
        multiply(&left, &right, &mut sums, POSITION_ROWS);
        sync_cube();
        first_dim += DEPTH;
    }
    let scale = f32::new(comptime!((head_dim as f32).powf(-0.5)));
    #[unroll]
    for i in 0..OWN {
        #[unroll]
        for j in 0..OWN {
            let row = first_row + UNIT_POS as usize / ACROSS + i * comptime!(POSITION_ROWS / OWN);
            let column = first_column + UNIT_POS as usize % ACROSS + j * ACROSS;
            if row < end && column < head_dim {
                let start = ((sample * geometry.positions + row) * geometry.heads + head) * head_dim;
                output[start + column] = E::cast_from(scale * sums[i * OWN + j]);
            }
        }
    }
}

/// A tile of q̇: `POSITION_ROWS` positions of one head.
#[cube(launch_unchecked)]
fn query_gradient<E: Float>(
    qkv: &[E],
    context: &[f32],
    output: &[E],
    output_gradient: &[E],
    qkv_gradient: &mut [E],
    geometry: Geometry,
    #[comptime] head_dim: usize,
    #[define(E)] _dtype: ElemType,
) {
    let mut left = Shared::<[f32]>::new_slice(comptime!(DEPTH * (POSITION_ROWS + 1)));
    let mut right = Shared::<[f32]>::new_slice(comptime!(DEPTH * (COLUMNS + 1)));
    let mut scratch = Shared::<[f32]>::new_slice(POSITION_UNITS);
    let mut greatest = Shared::<[f32]>::new_slice(POSITION_ROWS);
    let mut reciprocal = Shared::<[f32]>::new_slice(POSITION_ROWS);
    if CUBE_POS >= geometry.cubes {
        terminate!();
    }
    let tiles = comptime!(head_dim.div_ceil(COLUMNS));
    let any_head = CUBE_POS / geometry.blocks;
    let sample = any_head / geometry.heads;
    let head = any_head % geometry.heads;
    let block = CUBE_POS % geometry.blocks;
    let first_row = block / tiles * POSITION_ROWS;
    let first_column = block % tiles * COLUMNS;
    let end = geometry.positions;
    query_statistics::<E>(
        qkv,
        &mut greatest,
        &mut reciprocal,
        &mut scratch,
        sample,
        head,
        first_row,
        end,
        &geometry,
        POSITION_ROWS,
        head_dim,
    );

    // Σ_e ȯut out of each position
    let unit = UNIT_POS as usize;
    let lanes = comptime!(ACROSS / OWN);
    let mut dot = 0.0f32;
    if first_row + unit / lanes < end {
        let position = sample * geometry.positions + first_row + unit / lanes;
        let start = (position * geometry.heads + head) * head_dim;
        let mut dim = unit % lanes;
        while dim < head_dim {
            dot += f32::cast_from(output[start + dim]) * f32::cast_from(output_gradient[start + dim]);
            dim += lanes;
        }
    }
    scratch[unit] = dot;

    let mut sums = zeros();
    let mut first_dim = 0usize.runtime();
    while first_dim < head_dim {
        for load in 0..LOADS {
            let (term, local) = term_and_row(load);
            let row = first_row + local;
            let dim = first_dim + term;
            let mut value = 0.0f32;
            if row < end && dim < head_dim {
                let position = sample * geometry.positions + row;
                value = f32::cast_from(output_gradient[(position * geometry.heads + head) * head_dim + dim]);
            }
            left[term * comptime!(POSITION_ROWS + 1) + local] = value;
        }
        let start = any_head * comptime!((head_dim + 2) * head_dim);
        load_context(context, &mut right, start, first_dim, first_column, true, head_dim);
        sync_cube();
        multiply(&left, &right, &mut sums, POSITION_ROWS);
        sync_cube();
        first_dim += DEPTH;
    }
    let scale = f32::new(comptime!((head_dim as f32).powf(-0.5)));
    #[unroll]
    for i in 0..OWN {
        let local = unit / ACROSS + i * comptime!(POSITION_ROWS / OWN);
        let mut dot = 0.0f32;
        #[unroll]
        for lane in 0..lanes {
            dot += scratch[local * lanes + lane];
        }
        #[unroll]
        for j in 0..OWN {
            let row = first_row + local;
            let column = first_column + unit % ACROSS + j * ACROSS;
            if row < end && column < head_dim {
                let position = sample * geometry.positions + row;
                let index = (position * 3 * geometry.heads + head) * head_dim + column;
                let weight = (f32::cast_from(qkv[index]) - greatest[local]).exp() * reciprocal[local];
                qkv_gradient[index] = E::cast_from(weight * (scale * sums[i * OWN + j] - dot));
            }
        }
    }
}

/// Ċ of a run of positions, `parts[sample][head][run][head_dim][head_dim]`. A cube has a tile of it.
#[cube(launch_unchecked)]
fn context_gradient_parts<E: Float>(
    qkv: &[E],
    output_gradient: &[E],
    parts: &mut [f32],
    geometry: Geometry,
    run_length: usize,
    #[comptime] head_dim: usize,
    #[define(E)] _dtype: ElemType,
) {
    let mut left = Shared::<[f32]>::new_slice(comptime!(DEPTH * (CONTEXT_ROWS + 1)));
    let mut right = Shared::<[f32]>::new_slice(comptime!(DEPTH * (COLUMNS + 1)));
    let mut scratch = Shared::<[f32]>::new_slice(CONTEXT_UNITS);
    let mut greatest = Shared::<[f32]>::new_slice(DEPTH);
    let mut reciprocal = Shared::<[f32]>::new_slice(DEPTH);
    if CUBE_POS >= geometry.cubes {
        terminate!();
    }
    let tiles = comptime!(head_dim.div_ceil(COLUMNS));
    let any_head = CUBE_POS / geometry.blocks;
    let sample = any_head / geometry.heads;
    let head = any_head % geometry.heads;
    let block = CUBE_POS % geometry.blocks;
    let run = block / comptime!(tiles * tiles);
    let first_row = block % comptime!(tiles * tiles) / tiles * CONTEXT_ROWS;
    let first_column = block % tiles * COLUMNS;
    let first = run * run_length;
    let end = clamp_max(first + run_length, geometry.positions);
    let unit = UNIT_POS as usize;
    let local = unit % CONTEXT_ROWS;
    let scale = f32::new(comptime!((head_dim as f32).powf(-0.5)));
    let mut sums = zeros();
    let mut first_position = first;
    while first_position < end {
        query_statistics::<E>(
            qkv,
            &mut greatest,
            &mut reciprocal,
            &mut scratch,
            sample,
            head,
            first_position,
            end,
            &geometry,
            DEPTH,
            head_dim,
        );
        for load in 0..comptime!(DEPTH * CONTEXT_ROWS / CONTEXT_UNITS) {
            let term = unit / CONTEXT_ROWS + load * comptime!(CONTEXT_UNITS / CONTEXT_ROWS);
            let position = sample * geometry.positions + first_position + term;
            let mut weight = 0.0f32;
            let mut gradient = 0.0f32;
            if first_position + term < end {
                if first_row + local < head_dim {
                    let start = (position * 3 * geometry.heads + head) * head_dim;
                    let q = f32::cast_from(qkv[start + first_row + local]);
                    weight = scale * (q - greatest[term]).exp() * reciprocal[term];
                }
                if first_column + local < head_dim {
                    let start = (position * geometry.heads + head) * head_dim;
                    gradient = f32::cast_from(output_gradient[start + first_column + local]);
                }
            }
            left[term * comptime!(CONTEXT_ROWS + 1) + local] = weight;
            right[term * comptime!(COLUMNS + 1) + local] = gradient;
        }
        sync_cube();
        multiply(&left, &right, &mut sums, CONTEXT_ROWS);
        sync_cube();
        first_position += DEPTH;
    }
    let part = any_head * (geometry.blocks / comptime!(tiles * tiles)) + run;
    write_context(parts, &sums, part * comptime!(head_dim * head_dim), first_row, first_column, head_dim);
}

/// Ċ of all positions, then Σ_e C Ċ: `gradient[sample][head][head_dim + 1][head_dim]`. A cube has a row of it.
#[cube(launch_unchecked)]
fn merge_context_gradients(
    parts: &[f32],
    context: &[f32],
    gradient: &mut [f32],
    rows: usize,
    runs: usize,
    #[comptime] head_dim: usize,
) {
    let mut scratch = Shared::<[f32]>::new_slice(MERGE_UNITS);
    if CUBE_POS >= rows {
        terminate!();
    }
    let any_head = CUBE_POS / head_dim;
    let row = CUBE_POS % head_dim;
    let unit = UNIT_POS as usize;
    let mut dot = 0.0f32;
    let mut column = unit;
    while column < head_dim {
        let element = row * head_dim + column;
        let mut sum = 0.0f32;
        for run in 0..runs {
            sum += parts[(any_head * runs + run) * comptime!(head_dim * head_dim) + element];
        }
        gradient[any_head * comptime!((head_dim + 1) * head_dim) + element] = sum;
        dot += sum * context[any_head * comptime!((head_dim + 2) * head_dim) + element];
        column += MERGE_UNITS;
    }
    scratch[unit] = dot;
    sync_cube();
    if unit == 0 {
        let mut sum = 0.0f32;
        for other in 0..MERGE_UNITS {
            sum += scratch[other];
        }
        gradient[any_head * comptime!((head_dim + 1) * head_dim) + comptime!(head_dim * head_dim) + row] = sum;
    }
}

/// A tile of k̇ and V̇: `POSITION_ROWS` keys of one head; those of the memory are written as
/// `memory_parts[sample][key, value][head][head_dim][key]`.
#[cube(launch_unchecked)]
fn key_gradients<E: Float>(
    qkv: &[E],
    memory: &[E],
    context: &[f32],
    context_gradient: &[f32],
    qkv_gradient: &mut [E],
    memory_parts: &mut [f32],
    geometry: Geometry,
    #[comptime] head_dim: usize,
    #[define(E)] _dtype: ElemType,
) {
    let mut left = Shared::<[f32]>::new_slice(comptime!(DEPTH * (POSITION_ROWS + 1)));
    let mut right = Shared::<[f32]>::new_slice(comptime!(DEPTH * (COLUMNS + 1)));
    if CUBE_POS >= geometry.cubes {
        terminate!();
    }
    let tiles = comptime!(head_dim.div_ceil(COLUMNS));
    let any_head = CUBE_POS / geometry.blocks;
    let sample = any_head / geometry.heads;
    let head = any_head % geometry.heads;
    let block = CUBE_POS % geometry.blocks;
    let first_row = block / tiles * POSITION_ROWS;
    let first_column = block % tiles * COLUMNS;
    let end = geometry.memory + geometry.positions;
    let statistics = any_head * comptime!((head_dim + 2) * head_dim) + comptime!(head_dim * head_dim);
    let start = any_head * comptime!((head_dim + 1) * head_dim);

    let mut value_sums = zeros();
    let mut key_sums = zeros();
    let mut first_dim = 0usize.runtime();
    while first_dim < head_dim {
        for load in 0..LOADS {
            let (term, local) = term_and_row(load);
            let row = first_row + local;
            let dim = first_dim + term;
            let mut value = 0.0f32;
            if row < end && dim < head_dim {
                let k = key_or_value::<E>(qkv, memory, sample, head, row, dim, &geometry, 1usize, head_dim);
                value = (k - context[statistics + dim]).exp() * context[statistics + head_dim + dim];
            }
            left[term * comptime!(POSITION_ROWS + 1) + local] = value;
        }
        load_context(context_gradient, &mut right, start, first_dim, first_column, false, head_dim);
        sync_cube();
        multiply(&left, &right, &mut value_sums, POSITION_ROWS);
        sync_cube();
        for load in 0..LOADS {
            let (term, local) = term_and_row(load);
            let row = first_row + local;
            let dim = first_dim + term;
            let mut value = 0.0f32;
            if row < end && dim < head_dim {
                value = key_or_value::<E>(qkv, memory, sample, head, row, dim, &geometry, 2usize, head_dim);
            }
            left[term * comptime!(POSITION_ROWS + 1) + local] = value;
        }
        load_context(context_gradient, &mut right, start, first_dim, first_column, true, head_dim);
        sync_cube();
        multiply(&left, &right, &mut key_sums, POSITION_ROWS);
        sync_cube();
        first_dim += DEPTH;
    }
    #[unroll]
    for i in 0..OWN {
        #[unroll]
        for j in 0..OWN {
            let row = first_row + UNIT_POS as usize / ACROSS + i * comptime!(POSITION_ROWS / OWN);
            let column = first_column + UNIT_POS as usize % ACROSS + j * ACROSS;
            if row < end && column < head_dim {
                let k = key_or_value::<E>(qkv, memory, sample, head, row, column, &geometry, 1usize, head_dim);
                let weight = (k - context[statistics + column]).exp() * context[statistics + head_dim + column];
                let dot = context_gradient[start + comptime!(head_dim * head_dim) + column];
                let key = weight * (key_sums[i * OWN + j] - dot);
                let value = value_sums[i * OWN + j];
                if row < geometry.memory {
                    let own = (sample * 2 * geometry.heads + head) * head_dim + column;
                    memory_parts[own * geometry.memory + row] = key;
                    memory_parts[(own + geometry.heads * head_dim) * geometry.memory + row] = value;
                } else {
                    let position = sample * geometry.positions + row - geometry.memory;
                    let index = ((position * 3 + 1) * geometry.heads + head) * head_dim + column;
                    qkv_gradient[index] = E::cast_from(key);
                    qkv_gradient[index + geometry.heads * head_dim] = E::cast_from(value);
                }
            }
        }
    }
}

/// The runs of positions, or of keys, that are summed apart.
struct Runs {
    length: usize,
    count: usize,
}

impl Runs {
    /// The runs of `rows` rows of each of `groups` heads.
    fn new(rows: usize, groups: usize) -> Self {
        let length = (rows * groups).div_ceil(BUSY).clamp(LEAST_RUN, MOST_RUN).next_multiple_of(DEPTH);
        Self { length, count: rows.div_ceil(length) }
    }
}

/// The burn operation: qkv `[batch, positions, 3 heads head_dim]` and memory `[2, heads, head_dim, memory]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinearAttention;

impl LinearAttention {
    fn sizes(qkv: &CubeTensor, memory: &CubeTensor) -> Sizes {
        let ([batch, positions, _], [_, heads, head_dim, memory]) = (qkv.shape().dims(), memory.shape().dims());
        Sizes { batch, positions, heads, head_dim, memory }
    }

    /// C and the statistics of k.
    fn context(sizes: &Sizes, qkv: &CubeTensor, memory: &CubeTensor) -> CubeTensor {
        let (groups, head_dim) = (sizes.all_heads(), sizes.head_dim);
        let runs = Runs::new(sizes.keys(), groups);
        let parts = empty(qkv, [groups, runs.count, head_dim + 2, head_dim], DType::F32);
        let context = empty(qkv, [groups, head_dim + 2, head_dim], DType::F32);
        let blocks = runs.count * head_dim.div_ceil(COLUMNS).pow(2);
        let elements = groups * head_dim * head_dim;
        unsafe {
            context_parts::launch_unchecked(
                &qkv.client,
                cubes(blocks * groups),
                CubeDim::new_1d(CONTEXT_UNITS as u32),
                argument(qkv),
                argument(memory),
                argument(&parts),
                sizes.launch(blocks),
                runs.length,
                head_dim,
                element(qkv.dtype),
            );
            merge_contexts::launch_unchecked(
                &qkv.client,
                cubes(elements.div_ceil(MERGE_UNITS)),
                CubeDim::new_1d(MERGE_UNITS as u32),
                argument(&parts),
                argument(&context),
                elements,
                runs.count,
                head_dim,
            );
        }
        context
    }

    /// Ċ and Σ_e C Ċ.
    fn context_gradient(
        sizes: &Sizes,
        qkv: &CubeTensor,
        context: &CubeTensor,
        output_gradient: &CubeTensor,
    ) -> CubeTensor {
        let (groups, head_dim) = (sizes.all_heads(), sizes.head_dim);
        let runs = Runs::new(sizes.positions, groups);
        let parts = empty(qkv, [groups, runs.count, head_dim, head_dim], DType::F32);
        let gradient = empty(qkv, [groups, head_dim + 1, head_dim], DType::F32);
        let blocks = runs.count * head_dim.div_ceil(COLUMNS).pow(2);
        unsafe {
            context_gradient_parts::launch_unchecked(
                &qkv.client,
                cubes(blocks * groups),
                CubeDim::new_1d(CONTEXT_UNITS as u32),
                argument(qkv),
                argument(output_gradient),
                argument(&parts),
                sizes.launch(blocks),
                runs.length,
                head_dim,
                element(qkv.dtype),
            );
            merge_context_gradients::launch_unchecked(
                &qkv.client,
                cubes(groups * head_dim),
                CubeDim::new_1d(MERGE_UNITS as u32),
                argument(&parts),
                argument(context),
                argument(&gradient),
                groups * head_dim,
                runs.count,
                head_dim,
            );
        }
        gradient
    }
}

impl Differentiable<CubeBackend> for LinearAttention {
    /// Saves the output, and C with the statistics of k.
    fn forward(&self, inputs: Vec<CubeTensor>) -> (CubeTensor, Vec<CubeTensor>) {
        let inputs = all_contiguous(inputs);
        let (qkv, memory) = (&inputs[0], &inputs[1]);
        let sizes = Self::sizes(qkv, memory);
        let context = Self::context(&sizes, qkv, memory);
        let output = empty(qkv, [sizes.batch, sizes.positions, sizes.heads * sizes.head_dim], qkv.dtype);
        let blocks = sizes.positions.div_ceil(POSITION_ROWS) * sizes.head_dim.div_ceil(COLUMNS);
        unsafe {
            output_of_positions::launch_unchecked(
                &qkv.client,
                cubes(blocks * sizes.all_heads()),
                CubeDim::new_1d(POSITION_UNITS as u32),
                argument(qkv),
                argument(&context),
                argument(&output),
                sizes.launch(blocks),
                sizes.head_dim,
                element(qkv.dtype),
            );
        }
        (output.clone(), vec![output, context])
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
        let (output, context) = (&saved[0], &saved[1]);
        let sizes = Self::sizes(qkv, memory);
        let context_gradient = Self::context_gradient(&sizes, qkv, context, &output_gradient);
        let qkv_gradient = empty_like(qkv);
        let parts = memory_parts(&sizes, qkv);
        let columns = sizes.head_dim.div_ceil(COLUMNS);
        let position_blocks = sizes.positions.div_ceil(POSITION_ROWS) * columns;
        let key_blocks = sizes.keys().div_ceil(POSITION_ROWS) * columns;
        let dim = CubeDim::new_1d(POSITION_UNITS as u32);
        unsafe {
            query_gradient::launch_unchecked(
                &qkv.client,
                cubes(position_blocks * sizes.all_heads()),
                dim,
                argument(qkv),
                argument(context),
                argument(output),
                argument(&output_gradient),
                argument(&qkv_gradient),
                sizes.launch(position_blocks),
                sizes.head_dim,
                element(qkv.dtype),
            );
            key_gradients::launch_unchecked(
                &qkv.client,
                cubes(key_blocks * sizes.all_heads()),
                dim,
                argument(qkv),
                argument(memory),
                argument(context),
                argument(&context_gradient),
                argument(&qkv_gradient),
                argument(&parts),
                sizes.launch(key_blocks),
                sizes.head_dim,
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
