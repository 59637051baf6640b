//! Loads, stores and transposition on top of `pulp`, and slices written by several tasks.

use pulp::Simd;
use rayon::prelude::*;
use std::{marker::PhantomData, ops::Range};

/// The vector at `values[start..]`, which must be long enough.
#[inline(always)]
pub(crate) fn read<S: Simd>(simd: S, values: &[f32], start: usize) -> S::f32s {
    let _ = simd;
    S::as_simd_f32s(&values[start..start + S::F32_LANES]).0[0]
}

/// Writes the vector at `values[start..]`, which must be long enough.
#[inline(always)]
pub(crate) fn write<S: Simd>(simd: S, values: &mut [f32], start: usize, vector: S::f32s) {
    let _ = simd;
    S::as_mut_simd_f32s(&mut values[start..start + S::F32_LANES]).0[0] = vector;
}

/// The `index`-th vector of `values`; lanes past the end are zero.
#[inline(always)]
pub(crate) fn load<S: Simd>(simd: S, values: &[f32], index: usize) -> S::f32s {
    let (vectors, rest) = S::as_simd_f32s(values);
    if index < vectors.len() { vectors[index] } else { simd.partial_load_f32s(rest) }
}

/// Writes the `index`-th vector of `values`; lanes past the end are dropped.
#[inline(always)]
pub(crate) fn store<S: Simd>(simd: S, values: &mut [f32], index: usize, vector: S::f32s) {
    let (vectors, rest) = S::as_mut_simd_f32s(values);
    if index < vectors.len() { vectors[index] = vector } else { simd.partial_store_f32s(rest, vector) }
}

/// Writes the transpose of the `rows` times `columns` matrix `from` to `to`; both have a stride between their rows.
pub(crate) fn transpose(
    [rows, columns]: [usize; 2],
    (from, from_stride): (&[f32], usize),
    (to, to_stride): (&mut [f32], usize),
) {
    const SIDE: usize = 4;
    // columns whose rows of `to` fit the first-level cache together
    const CHUNK: usize = 72;
    for first in (0..columns).step_by(CHUNK) {
        let last = (first + CHUNK).min(columns);
        let whole = last - (last - first) % SIDE;
        for row in (0..rows).step_by(SIDE) {
            let height = SIDE.min(rows - row);
            if height == SIDE {
                for column in (first..whole).step_by(SIDE) {
                    let mut block = [[0.0; SIDE]; SIDE];
                    for i in 0..SIDE {
                        let line = &from[(row + i) * from_stride + column..][..SIDE];
                        for j in 0..SIDE {
                            block[j][i] = line[j];
                        }
                    }
                    for (j, line) in block.iter().enumerate() {
                        to[(column + j) * to_stride + row..][..SIDE].copy_from_slice(line);
                    }
                }
            }
            for column in if height == SIDE { whole } else { first }..last {
                for i in row..row + height {
                    to[column * to_stride + i] = from[i * from_stride + column];
                }
            }
        }
    }
}

/// Writes the transpose of a matrix of `N` rows, which have a stride, to `to`, whose rows are contiguous: four rows at a
/// time, without a check for each element.
pub(crate) fn transpose_rows<const N: usize>(columns: usize, from: &[f32], from_stride: usize, to: &mut [f32]) {
    let to = &mut to.as_chunks_mut::<N>().0[..columns];
    for row in (0..N).step_by(4) {
        let lines: [&[f32]; 4] = [0, 1, 2, 3].map(|line| &from[(row + line) * from_stride..][..columns]);
        let [a, b, c, d] = lines.map(|line| line.as_chunks::<4>());
        let (whole, rest) = to.as_chunks_mut::<4>();
        for ((((to, a), b), c), d) in whole.iter_mut().zip(a.0).zip(b.0).zip(c.0).zip(d.0) {
            for column in 0..4 {
                to[column][row..row + 4].copy_from_slice(&[a[column], b[column], c[column], d[column]]);
            }
        }
        for ((((to, a), b), c), d) in rest.iter_mut().zip(a.1).zip(b.1).zip(c.1).zip(d.1) {
            to[row..row + 4].copy_from_slice(&[*a, *b, *c, *d]);
        }
    }
}

/// Floating-point operations below which a call stays on one thread.
const PARALLEL_WORK: usize = 1 << 21;

/// Runs `task` for every index, on several threads if `work` (in floating-point operations) is worth it.
pub(crate) fn for_each_task(count: usize, work: usize, task: impl Fn(usize) + Sync) {
    if work < PARALLEL_WORK || count < 2 {
        (0..count).for_each(task);
    } else {
        (0..count).into_par_iter().with_max_len(1).for_each(&task);
    }
}

/// Runs `task` for every chunk of `len` elements of `values`, as [`for_each_task`].
pub(crate) fn for_each_chunk(values: &mut [f32], len: usize, work: usize, task: impl Fn(usize, &mut [f32]) + Sync) {
    if work < PARALLEL_WORK || values.len() <= len {
        values.chunks_mut(len).enumerate().for_each(|(index, chunk)| task(index, chunk));
    } else {
        values.par_chunks_mut(len).enumerate().with_max_len(1).for_each(|(index, chunk)| task(index, chunk));
    }
}

/// A mutable slice whose elements are written by different tasks, each by one.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: all access goes through `part`, whose callers promise disjoint ranges; `f32` itself is `Send` and `Sync`.
#[expect(unsafe_code, reason = "tasks write interleaved parts of one slice, which `chunks_mut` cannot express")]
unsafe impl Send for Shared<'_> {}
// SAFETY: as for `Send`.
#[expect(unsafe_code, reason = "tasks write interleaved parts of one slice, which `chunks_mut` cannot express")]
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Shares `values` until the end of their borrow.
    pub fn new(values: &'a mut [f32]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len(), borrow: PhantomData }
    }

    /// Number of elements.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The first element.
    #[inline(always)]
    pub fn as_mut_ptr(&self) -> *mut f32 {
        self.start
    }

    /// All but the first `count` elements.
    #[inline(always)]
    pub fn skip(&self, count: usize) -> Self {
        assert!(count <= self.len, "{count} of {} elements", self.len);
        Self { start: self.start.wrapping_add(count), len: self.len - count, borrow: PhantomData }
    }

    /// The elements in `range`.
    ///
    /// # Safety
    /// While the part lives nothing else may hold a part that overlaps it.
    #[inline(always)]
    #[expect(unsafe_code, reason = "see the type")]
    pub unsafe fn part(&self, range: Range<usize>) -> &'a mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} elements", self.len);
        // SAFETY: the range is in bounds, the memory is borrowed for `'a`, and the caller keeps parts disjoint.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
