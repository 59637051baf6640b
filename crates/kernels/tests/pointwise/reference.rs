//! Shared by the tests: noise, comparison, difference quotients, thread pools.

/// Numbers of a bell-like shape about 0 with a spread of 1.
pub fn noise(seed: u64, length: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..length).map(|_| (next() + next() + next()).clamp(-2.5, 2.5)).collect()
}

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Asserts `|found - expected| <= bound unit`, where the unit is the largest expected magnitude, at least 0.1: a few values
/// may all be differences that cancel.
#[track_caller]
pub fn assert_close(name: &str, found: &[f32], expected: &[f64], bound: f64) {
    assert_close_to(name, found, expected, bound, 0.1);
}

/// [`assert_close`] with another least unit.
#[track_caller]
fn assert_close_to(name: &str, found: &[f32], expected: &[f64], bound: f64, least: f64) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let unit = expected.iter().fold(least, |unit: f64, value| unit.max(value.abs()));
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs() / unit;
        assert!(error <= bound, "{name}[{index}]: {found} for {expected}, error {error:e} of {unit}");
    }
}

/// A function of some tensors, in f64.
pub type Reference<'a> = &'a dyn Fn(&[Vec<f64>]) -> Vec<f64>;

/// Asserts that `gradients` are those of `Σ upstream reference(inputs)`, relative to each tensor's largest.
///
/// Small tensors element by element, all along four random directions.
#[track_caller]
pub fn assert_gradients(
    reference: Reference,
    inputs: &[&[f32]],
    upstream: &[f32],
    gradients: &[(&str, &[f32])],
    bound: f64,
) {
    const STEP: f64 = 1e-4;
    let inputs: Vec<Vec<f64>> = inputs.iter().map(|input| wide(input)).collect();
    let objective = |which: usize, direction: &dyn Fn(usize) -> f64| {
        let value = |step: f64| -> f64 {
            let mut inputs = inputs.clone();
            inputs[which].iter_mut().enumerate().for_each(|(index, value)| *value += step * direction(index));
            reference(&inputs).iter().zip(upstream).map(|(value, upstream)| value * f64::from(*upstream)).sum()
        };
        // the error of the quotient is of the fourth order
        (8.0 * (value(STEP) - value(-STEP)) - (value(2.0 * STEP) - value(-2.0 * STEP))) / (12.0 * STEP)
    };
    let greatest = upstream.iter().fold(0f32, |greatest, value| greatest.max(value.abs()));
    for (which, &(name, gradient)) in gradients.iter().enumerate() {
        // the expected size of a sum of that many terms; the sums of a few channels may all be small by chance, while their
        // rounding is that of larger partial sums
        let terms = upstream.len() as f64 / gradient.len().max(1) as f64;
        let least = if terms > 1.0 { 0.5 * f64::from(greatest) * terms.sqrt() } else { 0.1 * f64::from(greatest) };
        assert_eq!(gradient.len(), inputs[which].len(), "{name}");
        if gradient.len() <= 64 {
            let expected: Vec<f64> = (0..gradient.len())
                .map(|element| objective(which, &|index| f64::from(u8::from(index == element))))
                .collect();
            assert_close_to(name, gradient, &expected, bound, least);
        }
        let unit = gradient.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt().max(least);
        for seed in 0..4 {
            let direction = noise(seed + 1000, gradient.len());
            let expected = objective(which, &|index| f64::from(direction[index]));
            let found: f64 = gradient.iter().zip(&direction).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let error = (found - expected).abs() / unit;
            assert!(error <= 3.0 * bound, "{name}: {found} for {expected} along direction {seed}, error {error:e}");
        }
    }
}

/// Runs in pools of 1, 2 and 3 threads and asserts that the bits are the same.
#[track_caller]
pub fn same_in_every_pool(run: impl Fn() -> Vec<Vec<f32>> + Sync) -> Vec<Vec<f32>> {
    let results = [1, 2, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(&run)
    });
    let bits = |result: &Vec<Vec<f32>>| -> Vec<u32> { result.iter().flatten().map(|value| value.to_bits()).collect() };
    assert!(bits(&results[0]) == bits(&results[1]) && bits(&results[0]) == bits(&results[2]), "threads change bits");
    let [first, ..] = results;
    first
}
