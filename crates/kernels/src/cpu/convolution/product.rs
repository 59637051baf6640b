//! A small matrix product for operands that already lie in the cache.
//!
//! `out[r][c] (+)= Σ_k left[r][k] right[k][c]`, all row-major with a stride between rows; `left` may also be stored
//! transposed, `[depth][rows]`. Nothing is packed: the callers cut their work into blocks that fit the cache. A tile of
//! `out` stays in registers over the whole depth, two vectors wide and as high as the register file allows. Each
//! element is one chain of fused multiply-adds in the order of `k`, so the result does not depend on how rows and
//! columns are cut.

use crate::cpu::convolution::vectors::Shared;
use pulp::{Simd, WithSimd};

/// The operands of a product, without the output.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    /// Rows of the output.
    pub rows: usize,
    /// Columns of the output.
    pub columns: usize,
    /// Length of the sum.
    pub depth: usize,
    /// `[rows][depth]`, or `[depth][rows]` if `transposed`.
    pub left: &'a [f32],
    /// Distance between the rows of `left` as stored.
    pub left_stride: usize,
    /// Whether `left` is stored as its transpose.
    pub transposed: bool,
    /// `[depth][columns]`.
    pub right: &'a [f32],
    /// Distance between the rows of `right`.
    pub right_stride: usize,
    /// The summand of the product.
    pub start: Start<'a>,
}

/// The summand of a product.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Nothing: the output is overwritten.
    Zero,
    /// The values of the output so far.
    Out,
    /// A row that is added to each row.
    Row(&'a [f32]),
}

impl Start<'_> {
    /// Zero for the first of several products, then their sum so far.
    pub fn first(first: bool) -> Self {
        if first { Self::Zero } else { Self::Out }
    }
}

/// The first elements that a register tile reads and writes.
#[derive(Clone, Copy)]
struct Corner {
    left: *const f32,
    right: *const f32,
    out: *mut f32,
}

/// A product with its output, compiled once per instruction set.
struct Run<'a>(Product<'a>, *mut f32, usize);

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(product, out, out_stride) = self;
        let corner = Corner { left: product.left.as_ptr(), right: product.right.as_ptr(), out };
        if product.transposed {
            product.panels::<S, true>(simd, corner, out_stride);
        } else {
            product.panels::<S, false>(simd, corner, out_stride);
        }
    }
}

impl Product<'_> {
    /// Computes the product into `out`, whose rows lie `out_stride` apart.
    #[inline(always)]
    pub fn run<S: Simd>(&self, simd: S, out: &mut [f32], out_stride: usize) {
        #[expect(unsafe_code, reason = "see `run_shared`")]
        // SAFETY: nothing else accesses a slice that is borrowed mutably.
        unsafe {
            self.run_shared(simd, Shared::new(out), out_stride);
        }
    }

    /// Computes the product into `out`, whose rows lie `out_stride` apart; elements between them are not touched.
    ///
    /// # Safety
    /// While this runs nothing else may access the elements of `out` that belong to the product.
    #[inline(always)]
    #[expect(unsafe_code, reason = "several tasks write columns of one matrix")]
    pub unsafe fn run_shared<S: Simd>(&self, simd: S, out: Shared, out_stride: usize) {
        let Self { rows, columns, depth, .. } = *self;
        if rows == 0 || columns == 0 {
            return;
        }
        let extent =
            |rows: usize, stride: usize, columns: usize| if rows == 0 { 0 } else { (rows - 1) * stride + columns };
        let (left_rows, left_columns) = if self.transposed { (depth, rows) } else { (rows, depth) };
        assert!(extent(left_rows, self.left_stride, left_columns) <= self.left.len(), "left operand too short");
        assert!(extent(depth, self.right_stride, columns) <= self.right.len(), "right operand too short");
        assert!(extent(rows, out_stride, columns) <= out.len(), "output too short");
        if let Start::Row(row) = self.start {
            assert!(columns <= row.len(), "first row too short");
        }
        simd.vectorize(Run(*self, out.as_mut_ptr(), out_stride));
    }

    /// Cuts the columns into panels of two vectors, then one, then part of one.
    #[inline(always)]
    fn panels<S: Simd, const TRANSPOSED: bool>(&self, simd: S, corner: Corner, out_stride: usize) {
        let lanes = S::F32_LANES;
        let mut column = 0;
        while column < self.columns {
            let left = self.columns - column;
            let at =
                Corner { right: corner.right.wrapping_add(column), out: corner.out.wrapping_add(column), ..corner };
            if left >= 2 * lanes {
                self.panel::<S, TRANSPOSED, 2, false>(simd, at, out_stride, column, lanes);
                column += 2 * lanes;
            } else if left >= lanes {
                self.panel::<S, TRANSPOSED, 1, false>(simd, at, out_stride, column, lanes);
                column += lanes;
            } else {
                self.panel::<S, TRANSPOSED, 1, true>(simd, at, out_stride, column, left);
                column = self.columns;
            }
        }
    }

    /// Cuts the rows of a panel into register tiles.
    #[inline(always)]
    fn panel<S: Simd, const TRANSPOSED: bool, const VECTORS: usize, const PARTIAL: bool>(
        &self,
        simd: S,
        corner: Corner,
        out_stride: usize,
        column: usize,
        width: usize,
    ) {
        let tallest = if S::REGISTER_COUNT >= 32 { 12 } else { 6 };
        let mut row = 0;
        while row < self.rows {
            let left = self.rows - row;
            // 13 to 16 rows are quicker in halves than as 12 and a short rest
            let height = if left <= tallest {
                left
            } else if left < tallest + tallest / 2 {
                left.div_ceil(2)
            } else {
                tallest
            };
            let at = Corner {
                left: corner.left.wrapping_add(if TRANSPOSED { row } else { row * self.left_stride }),
                out: corner.out.wrapping_add(row * out_stride),
                ..corner
            };
            macro_rules! tile {
                ($($n:literal)*) => {
                    match height {
                        $($n => self.tile::<S, TRANSPOSED, $n, VECTORS, PARTIAL>(simd, at, out_stride, column, width),)*
                        _ => unreachable!("a tile has 1 to 12 rows"),
                    }
                };
            }
            tile!(1 2 3 4 5 6 7 8 9 10 11 12);
            row += height;
        }
    }

    /// One register tile of `ROWS` rows and `VECTORS` vectors; with `PARTIAL` only the first `width` lanes exist.
    #[inline(always)]
    #[expect(unsafe_code, reason = "bounds checks in the innermost loop would cost more than the arithmetic")]
    fn tile<S: Simd, const TRANSPOSED: bool, const ROWS: usize, const VECTORS: usize, const PARTIAL: bool>(
        &self,
        simd: S,
        corner: Corner,
        out_stride: usize,
        column: usize,
        width: usize,
    ) {
        let lanes = S::F32_LANES;
        let load = |at: *const f32| {
            // SAFETY: `run_shared` checked that every row of `right`, `out` and `start` holds all columns, and the
            // caller cut the panels so that `VECTORS` full vectors, or `width` lanes with `PARTIAL`, lie within them.
            // pulp's vectors are floats, for which any bits are valid.
            unsafe {
                if PARTIAL {
                    simd.partial_load_f32s(core::slice::from_raw_parts(at, width))
                } else {
                    at.cast::<S::f32s>().read_unaligned()
                }
            }
        };
        let mut sum = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        if !matches!(self.start, Start::Zero) {
            let (start, stride) = match self.start {
                Start::Row(row) => (row.as_ptr().wrapping_add(column), 0),
                _ => (corner.out.cast_const(), out_stride),
            };
            for (row, sum) in sum.iter_mut().enumerate() {
                for (vector, sum) in sum.iter_mut().enumerate() {
                    *sum = load(start.wrapping_add(row * stride + vector * lanes));
                }
            }
        }
        let (mut left, mut right) = (corner.left, corner.right);
        for _ in 0..self.depth {
            let mut factors = [simd.splat_f32s(0.0); VECTORS];
            for (vector, factor) in factors.iter_mut().enumerate() {
                *factor = load(right.wrapping_add(vector * lanes));
            }
            for (row, sum) in sum.iter_mut().enumerate() {
                // SAFETY: `run_shared` checked that `left` holds `rows` times `depth` elements, and this tile lies
                // within.
                let scalar = unsafe { *left.wrapping_add(if TRANSPOSED { row } else { row * self.left_stride }) };
                let scalar = simd.splat_f32s(scalar);
                for (sum, &factor) in sum.iter_mut().zip(&factors) {
                    *sum = simd.mul_add_f32s(scalar, factor, *sum);
                }
            }
            left = left.wrapping_add(if TRANSPOSED { self.left_stride } else { 1 });
            right = right.wrapping_add(self.right_stride);
        }
        for (row, sum) in sum.iter().enumerate() {
            for (vector, &sum) in sum.iter().enumerate() {
                let at = corner.out.wrapping_add(row * out_stride + vector * lanes);
                // SAFETY: as for `load`; its caller promised that nothing else accesses these elements.
                unsafe {
                    if PARTIAL {
                        simd.partial_store_f32s(core::slice::from_raw_parts_mut(at, width), sum);
                    } else {
                        at.cast::<S::f32s>().write_unaligned(sum);
                    }
                }
            }
        }
    }
}
