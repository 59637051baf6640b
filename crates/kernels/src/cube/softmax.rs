//! Softmax over the last axis.
//!
//! ```text
//! y_c = e^(x_c - max x) / Σ e^(x - max x)    backward: ẋ = y (ẏ - Σ_c y ẏ)
//! ```
//!
//! The backward works from the output, which is saved. A row that holds NaN or +inf, or nothing but -inf, becomes NaN.
//!
//! Launches: one forward, one backward. A row belongs to 8 to 256 units, which take its columns in turn; a cube has several
//! short rows.

use burn::backend::TensorMetadata;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::{ir::ElemType, prelude::*};

use crate::{
    cube::{
        fold::{Fold, Team, fold_units},
        launch::{all_contiguous, argument, contiguous, cubes, element, empty_like},
    },
    graph::Differentiable,
};

/// Units of a cube.
const UNITS: usize = 256;
/// The fewest units of a row, and the columns that one of them has where a row has more.
const LEAST_LANES: usize = 8;
const COLUMNS_OF_LANE: usize = 8;

/// The units of a row.
fn lanes(columns: usize) -> Team {
    let count = columns.div_ceil(COLUMNS_OF_LANE).next_power_of_two().clamp(LEAST_LANES, UNITS);
    Team { stride: 1, count }
}

/// The first element of the unit, and the end of its row; a row beyond the last has no elements, and takes part in the folds.
#[cube]
fn elements(rows: usize, columns: usize, #[comptime] lanes: Team) -> (usize, usize) {
    let count = comptime!(lanes.count);
    let row = CUBE_POS * comptime!(UNITS / count) + UNIT_POS as usize / count;
    let first = row * columns + UNIT_POS as usize % count;
    let mut end = first;
    if row < rows {
        end = (row + 1) * columns;
    }
    (first, end)
}

#[cube(launch_unchecked)]
fn softmax_forward<E: Float>(
    x: &[E],
    y: &mut [E],
    rows: usize,
    columns: usize,
    #[comptime] lanes: Team,
    #[define(E)] _dtype: ElemType,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let count = comptime!(lanes.count);
    let (first, end) = elements(rows, columns, lanes);
    let mut largest = (-3.4e38f32).runtime();
    let mut index = first;
    while index < end {
        largest = max(largest, f32::cast_from(x[index]));
        index += count;
    }
    let largest = fold_units(largest, &mut shared, lanes, Fold::Largest);
    let mut sum = 0.0f32;
    let mut index = first;
    while index < end {
        sum += (f32::cast_from(x[index]) - largest).exp();
        index += count;
    }
    let factor = 1.0f32 / fold_units(sum, &mut shared, lanes, Fold::Sum);
    let mut index = first;
    while index < end {
        y[index] = E::cast_from((f32::cast_from(x[index]) - largest).exp() * factor);
        index += count;
    }
}

#[cube(launch_unchecked)]
fn softmax_backward<E: Float>(
    y: &[E],
    y_gradient: &[E],
    x_gradient: &mut [E],
    rows: usize,
    columns: usize,
    #[comptime] lanes: Team,
    #[define(E)] _dtype: ElemType,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let count = comptime!(lanes.count);
    let (first, end) = elements(rows, columns, lanes);
    let mut dot = 0.0f32;
    let mut index = first;
    while index < end {
        dot += f32::cast_from(y[index]) * f32::cast_from(y_gradient[index]);
        index += count;
    }
    let dot = fold_units(dot, &mut shared, lanes, Fold::Sum);
    let mut index = first;
    while index < end {
        let gradient = f32::cast_from(y_gradient[index]) - dot;
        x_gradient[index] = E::cast_from(f32::cast_from(y[index]) * gradient);
        index += count;
    }
}

/// The burn operation, over the last axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Softmax;

/// Rows and columns of a tensor whose last axis is the columns.
fn sizes(x: &CubeTensor) -> [usize; 2] {
    let shape = x.shape();
    let columns = shape.as_slice().last().copied().unwrap_or(1);
    [shape.num_elements() / columns.max(1), columns]
}

impl Differentiable<CubeBackend> for Softmax {
    /// Saves the output.
    fn forward(&self, inputs: Vec<CubeTensor>) -> (CubeTensor, Vec<CubeTensor>) {
        let inputs = all_contiguous(inputs);
        let x = &inputs[0];
        let (y, [rows, columns]) = (empty_like(x), sizes(x));
        let lanes = lanes(columns);
        unsafe {
            softmax_forward::launch_unchecked(
                &x.client,
                cubes(rows.div_ceil(UNITS / lanes.count)),
                CubeDim::new_1d(UNITS as u32),
                argument(x),
                argument(&y),
                rows,
                columns,
                lanes,
                element(x.dtype),
            );
        }
        (y.clone(), vec![y])
    }

    fn backward(
        &self,
        _: Vec<CubeTensor>,
        saved: Vec<CubeTensor>,
        y_gradient: CubeTensor,
        _: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let (y, y_gradient) = (&saved[0], contiguous(y_gradient));
        let (x_gradient, [rows, columns]) = (empty_like(y), sizes(y));
        let lanes = lanes(columns);
        unsafe {
            softmax_backward::launch_unchecked(
                &y.client,
                cubes(rows.div_ceil(UNITS / lanes.count)),
                CubeDim::new_1d(UNITS as u32),
                argument(y),
                argument(&y_gradient),
                argument(&x_gradient),
                rows,
                columns,
                lanes,
                element(y.dtype),
            );
        }
        vec![Some(x_gradient)]
    }
}
