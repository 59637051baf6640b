//! The transforms of F(2, 3) and F(4, 3).

use pulp::Simd;

/// The one-dimensional transforms of F(M, 3) with `T = M + 2` points.
pub(crate) trait Filter<const M: usize, const T: usize>: Send + Sync {
    /// `G`
    const WEIGHT: [[f32; 3]; T];
    /// `Bᵀ x`
    fn input<S: Simd>(simd: S, x: [S::f32s; T]) -> [S::f32s; T];
    /// `G w`
    #[inline(always)]
    fn weight<S: Simd>(simd: S, w: [S::f32s; 3]) -> [S::f32s; T] {
        apply(simd, |row, column| Self::WEIGHT[row][column], w)
    }
    /// `Gᵀ u`
    #[inline(always)]
    fn weight_adjoint<S: Simd>(simd: S, u: [S::f32s; T]) -> [S::f32s; 3] {
        apply(simd, |row, column| Self::WEIGHT[column][row], u)
    }
    /// `Aᵀ m`
    fn output<S: Simd>(simd: S, m: [S::f32s; T]) -> [S::f32s; M];
    /// `A y`
    fn output_adjoint<S: Simd>(simd: S, y: [S::f32s; M]) -> [S::f32s; T];
}

/// F(2, 3): points 0, 1, -1, infinity.
pub(crate) struct F2;
/// F(4, 3): points 0, 1, -1, 2, -2, infinity.
pub(crate) struct F4;

/// `factor a + b`
#[inline(always)]
fn scaled<S: Simd>(simd: S, factor: f32, a: S::f32s, b: S::f32s) -> S::f32s {
    simd.mul_add_f32s(simd.splat_f32s(factor), a, b)
}

/// The product of a constant matrix and a vector; zeros in the matrix cost nothing.
#[inline(always)]
fn apply<S: Simd, const R: usize, const C: usize>(
    simd: S,
    matrix: impl Fn(usize, usize) -> f32,
    x: [S::f32s; C],
) -> [S::f32s; R] {
    let mut out = [simd.splat_f32s(0.0); R];
    for (row, out) in out.iter_mut().enumerate() {
        for (column, &x) in x.iter().enumerate() {
            if matrix(row, column) != 0.0 {
                *out = scaled(simd, matrix(row, column), x, *out);
            }
        }
    }
    out
}

impl Filter<2, 4> for F2 {
    const WEIGHT: [[f32; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

    #[inline(always)]
    fn input<S: Simd>(simd: S, x: [S::f32s; 4]) -> [S::f32s; 4] {
        let difference = simd.sub_f32s(x[2], x[1]);
        [simd.sub_f32s(x[0], x[2]), simd.add_f32s(x[1], x[2]), difference, simd.sub_f32s(x[1], x[3])]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, m: [S::f32s; 4]) -> [S::f32s; 2] {
        let (even, odd) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
        [simd.add_f32s(m[0], even), simd.sub_f32s(odd, m[3])]
    }

    #[inline(always)]
    fn output_adjoint<S: Simd>(simd: S, y: [S::f32s; 2]) -> [S::f32s; 4] {
        [y[0], simd.add_f32s(y[0], y[1]), simd.sub_f32s(y[0], y[1]), simd.neg_f32s(y[1])]
    }
}

impl Filter<4, 6> for F4 {
    const WEIGHT: [[f32; 3]; 6] = [
        [1.0 / 4.0, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];

    #[inline(always)]
    fn input<S: Simd>(simd: S, x: [S::f32s; 6]) -> [S::f32s; 6] {
        let scaled = |factor: f32, a, b| scaled(simd, factor, a, b);
        let (even, odd) = (scaled(-4.0, x[2], x[4]), scaled(-4.0, x[1], x[3]));
        let (even_2, odd_2) = (simd.sub_f32s(x[4], x[2]), simd.sub_f32s(x[3], x[1]));
        [
            scaled(4.0, x[0], scaled(-5.0, x[2], x[4])),
            simd.add_f32s(even, odd),
            simd.sub_f32s(even, odd),
            scaled(2.0, odd_2, even_2),
            scaled(-2.0, odd_2, even_2),
            scaled(4.0, x[1], scaled(-5.0, x[3], x[5])),
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
        let scaled = |factor: f32, a, b| scaled(simd, factor, a, b);
        let (even, odd) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
        let (even_2, odd_2) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
        [
            simd.add_f32s(simd.add_f32s(m[0], even), even_2),
            scaled(2.0, odd_2, odd),
            scaled(4.0, even_2, even),
            simd.add_f32s(scaled(8.0, odd_2, odd), m[5]),
        ]
    }

    #[inline(always)]
    fn output_adjoint<S: Simd>(simd: S, y: [S::f32s; 4]) -> [S::f32s; 6] {
        let scaled = |factor: f32, a, b| scaled(simd, factor, a, b);
        let (even, odd) = (simd.add_f32s(y[0], y[2]), simd.add_f32s(y[1], y[3]));
        let (even_2, odd_2) = (scaled(4.0, y[2], y[0]), scaled(4.0, y[3], y[1]));
        [
            y[0],
            simd.add_f32s(even, odd),
            simd.sub_f32s(even, odd),
            scaled(2.0, odd_2, even_2),
            scaled(-2.0, odd_2, even_2),
            y[3],
        ]
    }
}

/// Applies a one-dimensional transform from `$from` to `$to` vectors to the columns, then to the rows of a square.
///
/// Loops, as everywhere on this path: the closures of `array::map` and `array::from_fn` would not be inlined into
/// code for another instruction set, and every vector would go through memory.
macro_rules! both_ways {
    ($simd:expr, $transform:path, $square:expr, $from:tt => $to:tt) => {{
        let (simd, square) = ($simd, $square);
        let mut half = [[simd.splat_f32s(0.0); $from]; $to];
        for j in 0..$from {
            let mut column = [simd.splat_f32s(0.0); $from];
            for i in 0..$from {
                column[i] = square[i][j];
            }
            let column = $transform(simd, column);
            for i in 0..$to {
                half[i][j] = column[i];
            }
        }
        let mut out = [[simd.splat_f32s(0.0); $to]; $to];
        for i in 0..$to {
            out[i] = $transform(simd, half[i]);
        }
        out
    }};
}
pub(super) use both_ways;
