//! Sums and maxima over units of a cube, in a fixed order.

use cubecl::prelude::*;

/// How two values become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fold {
    Sum,
    Largest,
}

/// The units that fold their values: `count`, a power of two, each `stride` units from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Team {
    pub stride: usize,
    pub count: usize,
}

/// The most values that a unit folds one after another.
const RUN: usize = 16;

#[cube]
fn fold_two(left: f32, right: f32, #[comptime] fold: Fold) -> f32 {
    if comptime!(fold == Fold::Sum) { left + right } else { max(left, right) }
}

/// The fold of the values of a team, for each of its units. All units of the cube call it; `shared` has an element for each.
#[cube]
pub(crate) fn fold_units(value: f32, shared: &mut [f32], #[comptime] team: Team, #[comptime] fold: Fold) -> f32 {
    let (stride, count) = comptime!((team.stride, team.count));
    let unit = UNIT_POS as usize;
    let place = unit / stride % count;
    let first = unit - place * stride;
    shared[unit] = value;
    sync_cube();
    if comptime!(count > RUN) {
        let mut part = value;
        if place < RUN {
            for index in 1..comptime!(count / RUN) {
                part = fold_two(part, shared[first + (place + index * RUN) * stride], fold);
            }
        }
        sync_cube();
        if place < RUN {
            shared[unit] = part;
        }
        sync_cube();
    }
    let mut result = shared[first];
    for index in 1..comptime!(count.min(RUN)) {
        result = fold_two(result, shared[first + index * stride], fold);
    }
    // the next fold writes where this one is read
    sync_cube();
    result
}
