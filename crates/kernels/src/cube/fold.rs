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

/// The fold of the values of a team, for each of its units. All units of the cube call it; `shared` has an element for each.
#[cube]
pub(crate) fn fold_units(value: f32, shared: &mut [f32], #[comptime] team: Team, #[comptime] fold: Fold) -> f32 {
    let (stride, count) = comptime!((team.stride, team.count));
    let unit = UNIT_POS as usize;
    let place = unit / stride % count;
    shared[unit] = value;
    let mut width = comptime!(count / 2).runtime();
    while width > 0 {
        sync_cube();
        if place < width {
            let other = shared[unit + width * stride];
            if comptime!(fold == Fold::Sum) {
                shared[unit] += other;
            } else {
                shared[unit] = max(shared[unit], other);
            }
        }
        width /= 2;
    }
    sync_cube();
    let result = shared[unit - place * stride];
    // the next fold writes where this one is read
    sync_cube();
    result
}
