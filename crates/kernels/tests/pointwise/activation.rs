use crate::reference::{noise, same_in_every_pool};
use kernels::cpu::activation::{Activation, backward, forward};
use proptest::prelude::*;

/// The normal distribution's upper tail to 1e-15: its series near 0, its continued fraction beyond.
fn upper_normal(x: f64) -> f64 {
    if x < 0.0 {
        return 1.0 - upper_normal(-x);
    }
    let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if x < 3.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= x * x / (2 * n + 1) as f64;
            sum += term;
        }
        return 0.5 - density * sum;
    }
    density / (1..300).rev().fold(x, |tail, n| x + n as f64 / tail)
}

fn value(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => x * upper_normal(-x),
    }
}

fn derivative(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => {
            let sigmoid = 1.0 / (1.0 + (-x).exp());
            sigmoid * (1.0 + x * (1.0 - sigmoid))
        }
        Activation::Gelu => upper_normal(-x) + x * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt(),
    }
}

/// 1e-6 of the value, or 1e-7.
#[track_caller]
fn assert_pointwise(x: f32, found: f32, expected: f64) {
    let error = (f64::from(found) - expected).abs();
    assert!(error <= 1e-7 + 1e-6 * expected.abs(), "{found} for {expected} at {x}");
}

#[test]
fn every_magnitude_matches_f64() {
    let x: Vec<f32> = (-200_000..=200_000).map(|step| step as f32 * 5e-4).chain([1e20, -1e20, 1e-30, -0.0]).collect();
    let ones = vec![1.0; x.len()];
    let (mut y, mut dx) = (x.clone(), x.clone());
    for activation in [Activation::Silu, Activation::Gelu] {
        forward(activation, &x, &mut y);
        backward(activation, &x, &ones, &mut dx);
        for (index, &x) in x.iter().enumerate() {
            assert_pointwise(x, y[index], value(activation, f64::from(x)));
            assert_pointwise(x, dx[index], derivative(activation, f64::from(x)));
        }
    }
}

#[test]
fn non_finite_stays_non_finite() {
    let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0];
    for activation in [Activation::Silu, Activation::Gelu] {
        let (mut y, mut dx) = ([0.0; 4], [0.0; 4]);
        forward(activation, &x, &mut y);
        backward(activation, &x, &[1.0; 4], &mut dx);
        for value in y[..3].iter().chain(&dx[..3]) {
            assert!(!value.is_finite(), "{activation:?} {y:?} {dx:?}");
        }
        assert!(y[3].is_finite() && dx[3].is_finite());
        backward(activation, &[0.0; 4], &x, &mut dx);
        assert!(dx[..3].iter().all(|value| !value.is_finite()), "{activation:?} {dx:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_length_matches_f64(length in prop_oneof![1..70usize, 16_000..70_000usize], seed: u64) {
        let (x, dy) = (noise(seed, length), noise(seed ^ 1, length));
        for activation in [Activation::Silu, Activation::Gelu] {
            let result = same_in_every_pool(|| {
                let (mut y, mut dx) = (vec![7.0; length], vec![7.0; length]);
                forward(activation, &x, &mut y);
                backward(activation, &x, &dy, &mut dx);
                vec![y, dx]
            });
            for (index, &x) in x.iter().enumerate() {
                assert_pointwise(x, result[0][index], value(activation, f64::from(x)));
                let (dy, derivative) = (f64::from(dy[index]), derivative(activation, f64::from(x)));
                let error = (f64::from(result[1][index]) - dy * derivative).abs();
                prop_assert!(error <= dy.abs() * (2e-7 + 1e-6 * derivative.abs()), "{error} at {x}, {dy}");
            }
        }
    }
}
