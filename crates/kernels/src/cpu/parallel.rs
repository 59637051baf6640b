//! Tasks over all threads. The shape alone decides the work of a task, so the result is the same for any number of threads.

use pulp::WithSimd;
use rayon::prelude::*;

use crate::instruction_set::dispatch;

/// Elements of one task in a pass bound by memory: 64 KiB, some microseconds.
pub(crate) const BLOCK: usize = 16 * 1024;

/// Work (in elements of a cheap pass) below which waking other threads costs more than it brings.
const THRESHOLD: usize = 2 * BLOCK;

/// Runs every task with the chosen instruction set, on all threads if the work is worth it.
pub(crate) fn run<T: WithSimd<Output = ()> + Send>(tasks: Vec<T>, work: usize) {
    if work < THRESHOLD || tasks.len() == 1 {
        tasks.into_iter().for_each(|task| dispatch(task));
    } else {
        tasks.into_par_iter().with_max_len(1).for_each(|task| dispatch(task));
    }
}

/// The first row and the number of rows of every block.
pub(crate) fn blocks_of(rows: usize, block: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).step_by(block).map(move |first| (first, block.min(rows - first)))
}

/// Panics unless a slice has the length that the shape requires.
#[track_caller]
pub(crate) fn check_length(name: &str, found: usize, expected: usize) {
    assert!(found == expected, "{name} has {found} elements, the shape requires {expected}");
}

/// [`check_length`] of slices, each named by its variable: `check_lengths!(input: 10, output: 20)`.
macro_rules! check_lengths {
    ($($slice:ident: $expected:expr),+ $(,)?) => {
        $($crate::cpu::parallel::check_length(stringify!($slice), $slice.len(), $expected);)+
    };
}
pub(crate) use check_lengths;
