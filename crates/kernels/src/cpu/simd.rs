//! Lanes: the loops over slices and the elementary functions, generic over pulp's instruction sets.
//!
//! A slice is read in full vectors and one partial vector at its end, whose missing lanes are 0.
//! Sums add lane by lane into a fixed number of partial sums, then these in a fixed order: the result depends on the
//! instruction set, never on the threads.
//!
//! Comparisons are written so that NaN is kept: `max` and `min` of most instruction sets may drop it.

use pulp::Simd;
use std::array::from_fn;

macro_rules! map {
    ($simd:expr, $inputs:expr, $outputs:expr, |$input:pat_param, $output:pat_param| $body:expr) => {
        $crate::cpu::simd::map_with(
            $simd,
            $inputs,
            $outputs,
            #[inline(always)]
            |$input, $output| $body,
        )
    };
}

macro_rules! sum {
    ($simd:expr, $inputs:expr, |$input:pat_param| $body:expr) => {
        $crate::cpu::simd::sum_with(
            $simd,
            $inputs,
            #[inline(always)]
            |$input| $body,
        )
    };
}

macro_rules! fold_rows {
    ($simd:expr, $count:expr, $row:expr, $sums:expr, |$input:pat_param, $sum:pat_param| $body:expr) => {
        $crate::cpu::simd::fold_rows_with(
            $simd,
            $count,
            $row,
            $sums,
            #[inline(always)]
            |$input, $sum| $body,
        )
    };
}

pub(crate) use {fold_rows, map, sum};

/// `outputs = function(inputs, outputs)`, element by element; the function's second argument is the old outputs.
///
/// Called through the macro of its name, which marks the closure to be inlined: out of line it would be compiled without
/// the instruction set.
#[inline(always)]
pub(crate) fn map_with<S: Simd, const IN: usize, const OUT: usize>(
    simd: S,
    inputs: [&[f32]; IN],
    outputs: [&mut [f32]; OUT],
    mut function: impl FnMut([S::f32s; IN], [S::f32s; OUT]) -> [S::f32s; OUT],
) {
    let length = outputs[0].len();
    let (inputs, input_tails) = split(simd, inputs, length);
    let (mut outputs, mut output_tails) = split_mut(simd, outputs, length);
    let mut values = [simd.splat_f32s(0.0); OUT];
    for index in 0..length / S::F32_LANES {
        for (value, body) in values.iter_mut().zip(&outputs) {
            *value = body[index];
        }
        values = function(load(simd, &inputs, index), values);
        for (value, body) in values.iter().zip(&mut outputs) {
            body[index] = *value;
        }
    }
    if !length.is_multiple_of(S::F32_LANES) {
        for (value, tail) in values.iter_mut().zip(&output_tails) {
            *value = simd.partial_load_f32s(tail);
        }
        values = function(load_tails(simd, input_tails), values);
        for (value, tail) in values.iter().zip(&mut output_tails) {
            simd.partial_store_f32s(tail, *value);
        }
    }
}

/// `sums = function(row, sums)` for each of `count` rows, element by element; four rows at a time, so that the sums are
/// read and written less. Called through its macro, as [`map_with`].
#[inline(always)]
pub(crate) fn fold_rows_with<'a, S: Simd, const OUT: usize>(
    simd: S,
    count: usize,
    row: impl Fn(usize) -> &'a [f32],
    mut sums: [&mut [f32]; OUT],
    function: impl Fn(S::f32s, [S::f32s; OUT]) -> [S::f32s; OUT],
) {
    let fours = count / 4 * 4;
    for first in (0..fours).step_by(4) {
        let rows = [row(first), row(first + 1), row(first + 2), row(first + 3)];
        map!(simd, rows, reborrow(&mut sums), |[a, b, c, d], sums| {
            let sums = function(b, function(a, sums));
            function(d, function(c, sums))
        });
    }
    for index in fours..count {
        map!(simd, [row(index)], reborrow(&mut sums), |[x], sums| function(x, sums));
    }
}

/// The sum of `term(inputs)` over all elements; `term` of zeros must be 0. Called through its macro, as [`map_with`].
#[inline(always)]
pub(crate) fn sum_with<S: Simd, const IN: usize>(
    simd: S,
    inputs: [&[f32]; IN],
    term: impl Fn([S::f32s; IN]) -> S::f32s,
) -> f32 {
    // four partial sums hide the latency of an addition
    let mut partial = [simd.splat_f32s(0.0); 4];
    let length = inputs[0].len();
    let (bodies, tails) = split(simd, inputs, length);
    let vectors = length / S::F32_LANES;
    let mut index = 0;
    while index + 4 <= vectors {
        for (lane, sum) in partial.iter_mut().enumerate() {
            *sum = simd.add_f32s(*sum, term(load(simd, &bodies, index + lane)));
        }
        index += 4;
    }
    while index < vectors {
        partial[0] = simd.add_f32s(partial[0], term(load(simd, &bodies, index)));
        index += 1;
    }
    if !length.is_multiple_of(S::F32_LANES) {
        partial[1] = simd.add_f32s(partial[1], term(load_tails(simd, tails)));
    }
    let [a, b, c, d] = partial;
    simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)))
}

/// The full vectors of the slices, and the rests. One length for all lets the compiler remove the bounds checks.
#[inline(always)]
fn split<S: Simd, const N: usize>(_: S, slices: [&[f32]; N], length: usize) -> ([&[S::f32s]; N], [&[f32]; N]) {
    let (mut bodies, mut tails) = ([&[][..]; N], [&[][..]; N]);
    for ((body, tail), slice) in bodies.iter_mut().zip(&mut tails).zip(slices) {
        (*body, *tail) = S::as_simd_f32s(&slice[..length]);
        *body = &body[..length / S::F32_LANES];
    }
    (bodies, tails)
}

#[inline(always)]
fn split_mut<S: Simd, const N: usize>(
    _: S,
    mut slices: [&mut [f32]; N],
    length: usize,
) -> ([&mut [S::f32s]; N], [&mut [f32]; N]) {
    let (mut bodies, mut tails): ([&mut [S::f32s]; N], [&mut [f32]; N]) =
        (from_fn(|_| Default::default()), from_fn(|_| Default::default()));
    for i in 0..N {
        let (body, tail) = S::as_mut_simd_f32s(&mut std::mem::take(&mut slices[i])[..length]);
        (bodies[i], tails[i]) = (&mut body[..length / S::F32_LANES], tail);
    }
    (bodies, tails)
}

#[inline(always)]
fn reborrow<'a, const N: usize>(slices: &'a mut [&mut [f32]; N]) -> [&'a mut [f32]; N] {
    let mut again: [&mut [f32]; N] = from_fn(|_| Default::default());
    for (again, slice) in again.iter_mut().zip(slices) {
        *again = &mut **slice;
    }
    again
}

#[inline(always)]
fn load<S: Simd, const N: usize>(simd: S, bodies: &[&[S::f32s]; N], index: usize) -> [S::f32s; N] {
    let mut values = [simd.splat_f32s(0.0); N];
    for (value, body) in values.iter_mut().zip(bodies) {
        *value = body[index];
    }
    values
}

#[inline(always)]
fn load_tails<S: Simd, const N: usize>(simd: S, tails: [&[f32]; N]) -> [S::f32s; N] {
    let mut values = [simd.splat_f32s(0.0); N];
    for (value, tail) in values.iter_mut().zip(tails) {
        *value = simd.partial_load_f32s(tail);
    }
    values
}

/// The largest element that is not NaN, or -inf: a bound for the exponents of a softmax, whose sum then sees any NaN.
#[inline(always)]
pub(crate) fn largest<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let (body, tail) = S::as_simd_f32s(values);
    let mut lanes = simd.splat_f32s(f32::NEG_INFINITY);
    for &value in body {
        lanes = larger(simd, value, lanes);
    }
    tail.iter().fold(simd.reduce_max_f32s(lanes), |largest, &value| largest.max(value))
}

/// The larger of two, and `otherwise` where `value` is NaN.
#[inline(always)]
pub(crate) fn larger<S: Simd>(simd: S, value: S::f32s, otherwise: S::f32s) -> S::f32s {
    simd.select_f32s(simd.greater_than_f32s(value, otherwise), value, otherwise)
}

/// `value` held to `-limit ..= limit`; NaN stays.
#[inline(always)]
pub(crate) fn clamp<S: Simd>(simd: S, value: S::f32s, limit: f32) -> S::f32s {
    let (low, high) = (simd.splat_f32s(-limit), simd.splat_f32s(limit));
    let value = simd.select_f32s(simd.greater_than_f32s(value, high), high, value);
    simd.select_f32s(simd.less_than_f32s(value, low), low, value)
}

/// The polynomial with these coefficients, the highest power first (Horner's scheme).
#[inline(always)]
pub(crate) fn polynomial<S: Simd, const N: usize>(simd: S, x: S::f32s, coefficients: [f32; N]) -> S::f32s {
    let mut value = simd.splat_f32s(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        value = simd.mul_add_e_f32s(value, x, simd.splat_f32s(coefficient));
    }
    value
}

/// `e^x` to 1.1 units in the last place.
///
/// With n the integer next to x / ln 2 and r = x - n ln 2, `e^x = 2^(n - 1) (2 e^r)`, where `2 e^r` is a polynomial
/// fitted to least relative error on `|r| <= ln 2 / 2` (2e-9), and `2^(n - 1)` is made from its bits. The factor 2
/// lets n reach 128. Where it is below 1.7e-38 (x < -86.98) the result is 0; above the largest float it is infinite;
/// NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // adding it rounds to an integer and leaves n + 126, the exponent field of 2^(n - 1), in the lowest bits
    const ROUND: f32 = 12_582_912.0 + 126.0;
    // ln 2 in two parts, the first short enough that n times it is exact
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const TWICE_EXP: [f32; 7] = [0.002_768_728_9, 0.016_748_328, 0.083_336, 0.333_328_63, 0.999_999_9, 2.0, 2.0];
    let limit = simd.splat_f32s(89.0);
    let held = simd.select_f32s(simd.greater_than_f32s(x, limit), limit, x);
    let shifted = simd.mul_add_e_f32s(held, simd.splat_f32s(std::f32::consts::LOG2_E), simd.splat_f32s(ROUND));
    let n = simd.sub_f32s(shifted, simd.splat_f32s(ROUND));
    let r = simd.mul_add_e_f32s(n, simd.splat_f32s(-LN_2[0]), held);
    let r = simd.mul_add_e_f32s(n, simd.splat_f32s(-LN_2[1]), r);
    let power = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let value = simd.mul_f32s(polynomial(simd, r, TWICE_EXP), simd.transmute_f32s_u32s(power));
    simd.select_f32s(simd.less_than_f32s(x, simd.splat_f32s(-86.98)), simd.splat_f32s(0.0), value)
}

#[cfg(test)]
mod tests {
    use super::exp;
    use pulp::{Arch, Simd, WithSimd};

    struct Exp<'a>(&'a mut [f32]);

    impl WithSimd for Exp<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            map!(simd, [], [self.0], |[], [x]| [exp(simd, x)]);
        }
    }

    /// The largest error over many numbers, in units of the last place of the result.
    fn worst(with: impl Fn(Exp)) -> f64 {
        let inputs: Vec<f32> = (-8_698_000..=8_872_000).map(|step| step as f32 * 1e-5).collect();
        let mut outputs = inputs.clone();
        with(Exp(&mut outputs));
        let error = |(&x, &found): (&f32, &f32)| {
            let expected = f64::from(x).exp();
            (f64::from(found) - expected).abs() / 2f64.powi(expected.log2().floor() as i32 - 23)
        };
        inputs.iter().zip(&outputs).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn exp_is_within_its_bound() {
        let error = worst(|op| Arch::new().dispatch(op));
        assert!(error <= 1.1, "{error}");
        let error = worst(|op| op.with_simd(pulp::Scalar));
        assert!(error <= 2.0, "{error}");
    }

    #[test]
    fn exp_at_its_ends() {
        let mut values = [f32::NEG_INFINITY, -1e30, -88.0, 0.0, 88.72, 88.73, 1e30, f32::INFINITY, f32::NAN];
        Arch::new().dispatch(Exp(&mut values));
        assert_eq!(values[..4], [0.0, 0.0, 0.0, 1.0]);
        assert!(values[4].is_finite() && values[5..8].iter().all(|&value| value == f32::INFINITY), "{values:?}");
        assert!(values[8].is_nan());
    }
}
