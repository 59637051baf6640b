use crate::reference::{assert_close, assert_gradients, noise, same_in_every_pool, wide};
use kernels::cpu::resample::{self, Image};
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

fn image() -> impl Strategy<Value = Image> {
    (1..3usize, 1..9usize, 1..9usize, prop_oneof![1..40usize, 60..150usize])
        .prop_map(|(batch, height, width, channels)| Image { batch, height, width, channels })
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
        resample::concatenate([a, b], &left, &right, &mut joined);
        for (index, value) in joined.iter().enumerate() {
            let (row, column) = (index / (a + b), index % (a + b));
            prop_assert_eq!(*value, if column < a { left[row * a + column] } else { right[row * b + column - a] });
        }
        left_again.fill(7.0);
        right_again.fill(7.0);
        resample::split([a, b], &joined, &mut left_again, &mut right_again);
        prop_assert!(left == left_again && right == right_again);
    }

    #[test]
    fn upsampling_repeats_pixels(image in image(), seed: u64) {
        let Image { height, width, channels, .. } = image;
        let input = noise(seed, image.elements());
        let mut output = vec![7.0; 4 * input.len()];
        resample::upsample(image, &input, &mut output);
        let gradient = noise(seed ^ 1, output.len());
        let mut expected = vec![0.0; input.len()];
        for (index, value) in output.iter().enumerate() {
            let (pixel, channel) = (index / channels, index % channels);
            let (x, y) = (pixel % (2 * width), pixel / (2 * width) % (2 * height));
            let sample = pixel / (4 * width * height);
            let source = ((sample * height + y / 2) * width + x / 2) * channels + channel;
            prop_assert_eq!(*value, input[source]);
            expected[source] += f64::from(gradient[index]);
        }
        let mut input_gradient = input.clone();
        resample::upsample_backward(image, &gradient, &mut input_gradient);
        assert_close("gradient", &input_gradient, &expected, 3e-7);
    }

    #[test]
    fn space_becomes_depth_and_back(image in image(), patch in 1..4usize, seed: u64) {
        let Image { batch, height, width, channels } = image;
        let area = patch * patch;
        let input = noise(seed, area * image.elements());
        let mut output = vec![7.0; input.len()];
        resample::space_to_depth(image, patch, &input, &mut output);
        for sample in 0..batch {
            for (y, x) in (0..height * patch).flat_map(|y| (0..width * patch).map(move |x| (y, x))) {
                for channel in 0..channels {
                    let source = ((sample * height * patch + y) * width * patch + x) * channels + channel;
                    let pixel = (sample * height + y / patch) * width + x / patch;
                    let inner = (y % patch) * patch + x % patch;
                    prop_assert_eq!(output[pixel * channels * area + channel * area + inner], input[source]);
                }
            }
        }
        let mut again = vec![7.0; input.len()];
        resample::depth_to_space(image, patch, &output, &mut again);
        prop_assert!(again == input);
    }

    #[test]
    fn sums_match(length in 1..50_000usize, seed: u64) {
        let (a, b) = (noise(seed, length), noise(seed ^ 1, length));
        let mut sum = vec![7.0; length];
        resample::add(&a, &b, &mut sum);
        let mut in_place = a.clone();
        resample::add_assign(&mut in_place, &b);
        prop_assert!(sum.iter().zip(&a).zip(&b).all(|((sum, a), b)| *sum == a + b));
        prop_assert!(sum == in_place);
    }
}

#[test]
fn non_finite_errors_show() {
    for kind in [Loss::Squared, Loss::Absolute, Loss::Huber(1.0)] {
        for bad in [f32::NAN, f32::INFINITY] {
            let (mut losses, mut gradient) = ([0.0; 2], [0.0; 6]);
            let prediction = [0.0, bad, 0.0, 1.0, 2.0, 3.0];
            loss::forward(kind, &prediction, &[0.5; 6], &[1.0; 2], &mut losses);
            loss::backward(kind, &prediction, &[0.5; 6], &[1.0; 2], &[1.0; 2], &mut gradient);
            assert!(!losses[0].is_finite() && losses[1].is_finite(), "{kind:?} {losses:?}");
            assert!(!bad.is_nan() || gradient[1].is_nan(), "{kind:?} {gradient:?}");
        }
    }
}
