use crate::reference::{assert_close, assert_gradients, noise, same_in_every_pool, wide};
use kernels::cpu::concatenate::{concatenate, split};
use kernels::{Loss, cpu::loss};
use proptest::prelude::*;

fn loss_reference(loss: Loss, target: &[f64], weights: &[f32], prediction: &[f64]) -> Vec<f64> {
    let elements = target.len() / weights.len();
    let error = |difference: f64| match loss {
        Loss::Squared => difference * difference,
        Loss::Absolute => difference.abs(),
        Loss::Huber(limit) if difference.abs() > f64::from(limit) => {
            f64::from(limit) * (difference.abs() - f64::from(limit) / 2.0)
        }
        Loss::Huber(_) => difference * difference / 2.0,
    };
    let sample = |(sample, weight): (usize, &f32)| {
        let range = sample * elements..(sample + 1) * elements;
        let errors = prediction[range.clone()].iter().zip(&target[range]).map(|(a, b)| error(a - b));
        f64::from(*weight) * errors.sum::<f64>() / elements as f64
    };
    weights.iter().enumerate().map(sample).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn losses_match(batch in 1..5usize, elements in prop_oneof![1..50usize, 4000..9000usize], seed: u64) {
        let (prediction, target) = (noise(seed, batch * elements), noise(seed ^ 1, batch * elements));
        let (weights, upstream) = (noise(seed ^ 2, batch), noise(seed ^ 3, batch));
        for kind in [Loss::Squared, Loss::Absolute, Loss::Huber(0.7)] {
            let result = same_in_every_pool(|| {
                let (mut losses, mut gradient) = (vec![7.0; batch], vec![7.0; batch * elements]);
                loss::forward(kind, &prediction, &target, &weights, &mut losses);
                loss::backward(kind, &prediction, &target, &weights, &upstream, &mut gradient);
                vec![losses, gradient]
            });
            let reference = |inputs: &[Vec<f64>]| loss_reference(kind, &wide(&target), &weights, &inputs[0]);
            assert_close("losses", &result[0], &reference(&[wide(&prediction)]), 1e-6);
            // the difference quotient of the absolute error is wrong next to its kink
            if kind != Loss::Absolute {
                let bound = if kind == Loss::Squared { 1e-6 } else { 1e-3 };
                assert_gradients(&reference, &[&prediction], &upstream, &[("gradient", &result[1])], bound);
                continue;
            }
            for (index, gradient) in result[1].iter().enumerate() {
                let difference = prediction[index] - target[index];
                let sign = if difference == 0.0 { 0.0 } else { difference.signum() };
                let expected = weights[index / elements] * upstream[index / elements] / elements as f32 * sign;
                prop_assert!((gradient - expected).abs() <= 1e-6 * expected.abs());
            }
        }
    }

    #[test]
    fn channels_are_concatenated_and_split(rows in 1..700usize, a in 1..70usize, b in 1..70usize, seed: u64) {
        let (left, right) = (noise(seed, rows * a), noise(seed ^ 1, rows * b));
        let (mut joined, mut left_again, mut right_again) = (vec![7.0; rows * (a + b)], left.clone(), right.clone());
        concatenate([a, b], &left, &right, &mut joined);
        for (index, value) in joined.iter().enumerate() {
            let (row, column) = (index / (a + b), index % (a + b));
            prop_assert_eq!(*value, if column < a { left[row * a + column] } else { right[row * b + column - a] });
        }
        left_again.fill(7.0);
        right_again.fill(7.0);
        split([a, b], &joined, &mut left_again, &mut right_again);
        prop_assert!(left == left_again && right == right_again);
    }
}
