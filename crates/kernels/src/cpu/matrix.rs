//! Strided matrix views over slices, and their product through the `gemm` crate.
//!
//! A tensor `[rows, columns]` may hold several matrices side by side (the heads of an attention): each is a view with
//! the row stride of the whole. [`split_columns`] gives disjoint mutable views that different tasks may write.

#![expect(unsafe_code, reason = "side by side mutable columns and gemm's interface need raw pointers")]

use std::marker::PhantomData;

/// A view of `rows` times `columns` floats.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: *const f32,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
    life: PhantomData<&'a [f32]>,
}

/// A mutable view of `rows` times `columns` floats, each row contiguous.
pub(crate) struct MatrixMut<'a> {
    data: *mut f32,
    rows: usize,
    columns: usize,
    row_stride: usize,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: the views act as `&[f32]` and `&mut [f32]` of the elements they cover, which are `Send`.
unsafe impl Send for Matrix<'_> {}
// SAFETY: as above.
unsafe impl Send for MatrixMut<'_> {}

impl<'a> Matrix<'a> {
    /// `columns` columns from `first` on of a row-major matrix that has `row_stride` columns.
    pub fn new(data: &'a [f32], row_stride: usize, first: usize, columns: usize) -> Self {
        assert!(first + columns <= row_stride && data.len().is_multiple_of(row_stride));
        let rows = data.len() / row_stride;
        // an empty slice has no element to point at
        let data = data.get(first..).map_or(data.as_ptr(), <[f32]>::as_ptr);
        Self { data, rows, columns, row_stride, column_stride: 1, life: PhantomData }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The same with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        let Self { data, rows, columns, row_stride, column_stride, life } = self;
        Self { data, rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride, life }
    }

    /// `count` rows from `first` on.
    pub fn slice(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.rows);
        let data = self.data.wrapping_add(first * self.row_stride);
        Self { data, rows: count, ..self }
    }

    /// One contiguous row.
    #[inline(always)]
    pub fn row(&self, index: usize) -> &'a [f32] {
        assert!(index < self.rows && self.column_stride == 1);
        // SAFETY: the row lies within the slice the view was made from, which lives for 'a
        unsafe { std::slice::from_raw_parts(self.data.add(index * self.row_stride), self.columns) }
    }
}

impl<'a> MatrixMut<'a> {
    /// A contiguous row-major matrix.
    pub fn new(data: &'a mut [f32], columns: usize) -> Self {
        assert!(data.len().is_multiple_of(columns));
        let rows = data.len() / columns;
        Self { data: data.as_mut_ptr(), rows, columns, row_stride: columns, life: PhantomData }
    }

    /// The view for reading.
    pub fn as_ref(&self) -> Matrix<'_> {
        let Self { data, rows, columns, row_stride, .. } = *self;
        Matrix { data, rows, columns, row_stride, column_stride: 1, life: PhantomData }
    }

    /// `count` rows from `first` on.
    pub fn slice(&mut self, first: usize, count: usize) -> MatrixMut<'_> {
        assert!(first + count <= self.rows);
        MatrixMut { data: self.data.wrapping_add(first * self.row_stride), rows: count, life: PhantomData, ..*self }
    }

    /// Blocks of `count` rows, the last perhaps of fewer.
    pub fn into_blocks(self, count: usize) -> impl Iterator<Item = MatrixMut<'a>> {
        (0..self.rows).step_by(count).map(move |first| MatrixMut {
            data: self.data.wrapping_add(first * self.row_stride),
            rows: count.min(self.rows - first),
            ..self
        })
    }

    /// One row.
    #[inline(always)]
    pub fn row(&mut self, index: usize) -> &mut [f32] {
        assert!(index < self.rows);
        // SAFETY: the row lies within the slice the view was made from, and this view is the only one of its elements
        unsafe { std::slice::from_raw_parts_mut(self.data.add(index * self.row_stride), self.columns) }
    }

    /// `self = keep self + factor left right`, with `keep` 0 (the old values are not read) or 1.
    pub fn product(&mut self, keep: bool, factor: f32, left: Matrix<'_>, right: Matrix<'_>) {
        let dimensions = (left.rows, left.columns, right.columns);
        assert!(dimensions == (self.rows, right.rows, self.columns), "{dimensions:?}");
        let stride = |stride: usize| stride as isize;
        // SAFETY: every view covers memory that it may read, `self` memory that it alone may write, and the dimensions
        // agree; so each element gemm touches lies in its view.
        unsafe {
            gemm::gemm(
                self.rows,
                self.columns,
                left.columns,
                self.data,
                1,
                stride(self.row_stride),
                keep,
                left.data,
                stride(left.column_stride),
                stride(left.row_stride),
                right.data,
                stride(right.column_stride),
                stride(right.row_stride),
                1.0,
                factor,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

/// A row-major matrix of `count * columns` columns as `count` matrices side by side.
pub(crate) fn split_columns(data: &mut [f32], count: usize, columns: usize) -> impl Iterator<Item = MatrixMut<'_>> {
    let row_stride = count * columns;
    assert!(data.len().is_multiple_of(row_stride));
    let rows = data.len() / row_stride;
    let start = data.as_mut_ptr();
    (0..count).map(move |index| MatrixMut {
        data: start.wrapping_add(index * columns),
        rows,
        columns,
        row_stride,
        life: PhantomData,
    })
}
