//! Standard normal numbers from random bits, the same on every platform (Box and Muller 1958).
//!
//! With `u = (bits + 1/2) / 2^32` of the first word of a pair and v of the second: `sqrt(-2 ln u) (cos 2 pi v, sin 2 pi v)`.
//!
//! Everything is IEEE arithmetic in f64 without fused operations, written so that the compiler can use the vectors of the
//! CPU: lanes do not influence each other, so the bits do not depend on their number. Errors are below 1e-15 of the radius;
//! the result is then rounded to f32.

use pulp::WithSimd;

use crate::instruction_set::dispatch;

/// Pairs that are computed together.
const LANES: usize = 32;

/// Fills `out` with standard normal numbers, one for each word of `bits`; an odd count needs one word more.
///
/// # Panics
/// If `bits` has fewer words than `out` has numbers, rounded up to a pair.
pub fn normal(bits: &[u32], out: &mut [f32]) {
    let needed = out.len().next_multiple_of(2);
    assert!(bits.len() >= needed, "{} numbers need {needed} words of bits, not {}", out.len(), bits.len());
    dispatch(BoxMuller { bits, out });
}

struct BoxMuller<'a> {
    bits: &'a [u32],
    out: &'a mut [f32],
}

impl WithSimd for BoxMuller<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for (bits, out) in self.bits.chunks(2 * LANES).zip(self.out.chunks_mut(2 * LANES)) {
            let (mut radius, mut angle) = ([0; LANES], [0; LANES]);
            for ((pair, radius), angle) in bits.chunks_exact(2).zip(&mut radius).zip(&mut angle) {
                (*radius, *angle) = (pair[0], pair[1]);
            }
            let (mut first, mut second) = ([0f32; LANES], [0f32; LANES]);
            for lane in 0..LANES {
                let length = (-2.0 * logarithm(radius[lane])).sqrt();
                let [cosine, sine] = cosine_and_sine(angle[lane]);
                first[lane] = (length * cosine) as f32;
                second[lane] = (length * sine) as f32;
            }
            for ((pair, first), second) in out.chunks_mut(2).zip(first).zip(second) {
                pair[0] = first;
                if let Some(last) = pair.get_mut(1) {
                    *last = second;
                }
            }
        }
    }
}

/// `ln((bits + 1/2) / 2^32)`.
///
/// The argument is `m 2^e` with m in [1/sqrt 2, sqrt 2), and `ln m = 2 artanh s`, `s = (m - 1) / (m + 1)`, |s| < 0.172, by its
/// series.
#[inline(always)]
fn logarithm(bits: u32) -> f64 {
    const LN_2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000); // 33 bits: a small whole number times it is exact
    const LN_2_LOW: f64 = f64::from_bits(0x3DEA_39EF_3579_3C76);
    let raw = (f64::from(bits) + 0.5).to_bits();
    // the exponent, counted so that the mantissa is centered on 1
    let shifted = raw.wrapping_sub(core::f64::consts::FRAC_1_SQRT_2.to_bits());
    // an arithmetic shift; whole numbers below 2^32 come to f64 by way of i32, for which every CPU has vectors
    let exponent = ((shifted as i64) >> 52) as i32;
    let mantissa = f64::from_bits(raw.wrapping_sub(((exponent as i64) << 52) as u64));
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    // 1/3 + s²/5 + … + s²²/25
    let mut series = 1.0 / 25.0;
    for odd in [23.0, 21.0, 19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
        series = series * square + 1.0 / odd;
    }
    let exponent = f64::from(exponent - 32);
    exponent * LN_2_HIGH + (2.0 * (s + s * square * series) + exponent * LN_2_LOW)
}

/// Cosine and sine of `2 pi (bits + 1/2) / 2^32`.
///
/// The nearest quarter turn is subtracted exactly; the rest, at most an eighth of a turn, goes through the Taylor series.
#[inline(always)]
fn cosine_and_sine(bits: u32) -> [f64; 2] {
    let quarter = bits.wrapping_add(1 << 29) >> 30;
    let rest = bits.wrapping_sub(quarter << 30) as i32;
    let angle = (f64::from(rest) + 0.5) * (core::f64::consts::TAU / 4_294_967_296.0);
    let square = angle * angle;
    // 1/3!, 1/5!, … and 1/2!, 1/4!, …, by nested division
    let (mut sine, mut cosine) = (1.0, 1.0);
    for n in [16.0, 14.0, 12.0, 10.0, 8.0, 6.0, 4.0, 2.0] {
        sine = 1.0 - sine * square * (1.0 / (n * (n + 1.0)));
        cosine = 1.0 - cosine * square * (1.0 / (n * (n - 1.0)));
    }
    sine *= angle;
    let (swap, negative_cosine, negative_sine) = (quarter & 1 == 1, quarter == 1 || quarter == 2, quarter >= 2);
    let (turned_cosine, turned_sine) = if swap { (sine, cosine) } else { (cosine, sine) };
    [
        if negative_cosine { -turned_cosine } else { turned_cosine },
        if negative_sine { -turned_sine } else { turned_sine },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::f64::consts::TAU;
    use proptest::prelude::*;

    fn check(bits: u32) {
        let value = (f64::from(bits) + 0.5) / 4_294_967_296.0;
        let (found, expected) = (logarithm(bits), value.ln());
        assert!((found - expected).abs() <= 4e-16 * expected.abs(), "ln {value}: {found:e}, not {expected:e}");
        // the product of the reference is itself off by 1e-15
        let (found, [sine, cosine]) = (cosine_and_sine(bits), [(TAU * value).sin(), (TAU * value).cos()]);
        assert!((found[0] - cosine).abs() < 1.5e-15, "cosine of {value} turns: {found:?}, not {cosine}");
        assert!((found[1] - sine).abs() < 1.5e-15, "sine of {value} turns: {found:?}, not {sine}");
    }

    #[test]
    fn ends_and_quarters() {
        for bits in [0, 1, (1 << 29) - 1, 1 << 29, (1 << 30) - 1, 1 << 30, 3 << 29, (1 << 31) - 1, 1 << 31, 3 << 30] {
            check(bits);
            check(!bits);
        }
    }

    proptest! {
        #[test]
        fn the_functions_are_exact(bits: u32) {
            check(bits);
            check(bits.leading_zeros() * bits);
        }

        #[test]
        fn numbers_depend_on_their_own_pair_alone(length in 1usize..200, seed: u64) {
            let bits: Vec<u32> =
                (0..=length as u64).map(|index| (index.wrapping_mul(seed | 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32).collect();
            let mut all = vec![0f32; length];
            normal(&bits[..length.next_multiple_of(2)], &mut all);
            for (pair, numbers) in bits.chunks_exact(2).zip(all.chunks(2)) {
                let mut alone = [0f32; 2];
                normal(pair, &mut alone);
                prop_assert_eq!(numbers, &alone[..numbers.len()]);
                let radius = (-2.0 * ((f64::from(pair[0]) + 0.5) / 4_294_967_296.0).ln()).sqrt();
                let angle = TAU * (f64::from(pair[1]) + 0.5) / 4_294_967_296.0;
                prop_assert!((f64::from(alone[0]) - radius * angle.cos()).abs() < 4e-7);
                prop_assert!((f64::from(alone[1]) - radius * angle.sin()).abs() < 4e-7);
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let bits: Vec<u32> = (0..2000u32).map(|index| index.wrapping_mul(0x9E37_79B9)).collect();
        let (mut best, mut scalar) = (vec![0f32; 2000], vec![0f32; 2000]);
        normal(&bits, &mut best);
        BoxMuller { bits: &bits, out: &mut scalar }.with_simd(pulp::Scalar);
        assert_eq!(best, scalar);
    }

    #[test]
    #[should_panic(expected = "3 numbers need 4 words of bits, not 3")]
    fn too_few_words() {
        normal(&[1, 2, 3], &mut [0.0; 3]);
    }
}
