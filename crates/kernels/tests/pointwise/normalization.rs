use crate::reference::{assert_close, assert_gradients, noise, same_in_every_pool, wide};
use kernels::cpu::group_norm::Groups;
use kernels::cpu::{Epilogue, Shape, group_norm, rms_norm};
use proptest::prelude::*;

/// The epilogue of a kind; `scale_shift` is read by kind 2.
fn epilogue(kind: u8, scale_shift: &[f32]) -> Epilogue<'_> {
    [Epilogue::Identity, Epilogue::Silu, Epilogue::ScaleShiftSilu(scale_shift)][usize::from(kind)]
}

fn finish(kind: u8, shape: Shape, index: usize, z: f64, scale_shift: &[f64]) -> f64 {
    let (sample, channel) = (index / (shape.positions * shape.channels), index % shape.channels);
    let z = if kind == 2 {
        let row = &scale_shift[2 * sample * shape.channels..];
        z * (row[channel] + 1.0) + row[shape.channels + channel]
    } else {
        z
    };
    if kind == 0 { z } else { z / (1.0 + (-z).exp()) }
}

/// Inputs: x, gain, scale and shift.
fn rms_reference(kind: u8, shape: Shape, inputs: &[Vec<f64>]) -> Vec<f64> {
    let mut output = Vec::new();
    for (row, pixel) in inputs[0].chunks_exact(shape.channels).enumerate() {
        let norm = pixel.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
        for (channel, x) in pixel.iter().enumerate() {
            let z = x / norm * (shape.channels as f64).sqrt() * inputs[1][channel];
            output.push(finish(kind, shape, row * shape.channels + channel, z, &inputs[2]));
        }
    }
    output
}

fn rms(kind: u8, shape: Shape, x: &[f32], gain: &[f32], scale_shift: &[f32], dy: &[f32]) -> Vec<Vec<f32>> {
    let epilogue = epilogue(kind, scale_shift);
    let (mut y, mut dx) = (vec![7.0; x.len()], vec![7.0; x.len()]);
    let (mut d_gain, mut d_scale_shift) =
        (vec![7.0; gain.len()], vec![7.0; if kind == 2 { scale_shift.len() } else { 0 }]);
    rms_norm::forward(shape, x, gain, epilogue, &mut y);
    rms_norm::backward(shape, x, gain, epilogue, dy, &mut dx, &mut d_gain, &mut d_scale_shift);
    vec![y, dx, d_gain, d_scale_shift]
}

/// Inputs: x, weight, bias, scale and shift.
fn group_reference(kind: u8, shape: Shape, groups: Groups, inputs: &[Vec<f64>]) -> Vec<f64> {
    let Shape { positions, channels, .. } = shape;
    let x = &inputs[0];
    let width = channels / groups.count;
    let mut output = vec![0.0; x.len()];
    for sample in 0..shape.batch {
        for group in 0..groups.count {
            let members: Vec<usize> = (0..positions)
                .flat_map(|position| {
                    (0..width).map(move |c| (sample * positions + position) * channels + group * width + c)
                })
                .collect();
            let mean = members.iter().map(|&index| x[index]).sum::<f64>() / members.len() as f64;
            let variance = members.iter().map(|&index| (x[index] - mean).powi(2)).sum::<f64>() / members.len() as f64;
            for &index in &members {
                let channel = index % channels;
                let z =
                    (x[index] - mean) / (variance + groups.epsilon).sqrt() * inputs[1][channel] + inputs[2][channel];
                output[index] = finish(kind, shape, index, z, &inputs[3]);
            }
        }
    }
    output
}

fn group(kind: u8, shape: Shape, groups: Groups, inputs: [&[f32]; 4], dy: &[f32]) -> Vec<Vec<f32>> {
    let [x, weight, bias, scale_shift] = inputs;
    let epilogue = epilogue(kind, scale_shift);
    let mut statistics = vec![7.0; 2 * shape.batch * groups.count];
    let (mut y, mut dx) = (vec![7.0; x.len()], vec![7.0; x.len()]);
    let (mut dw, mut db) = (vec![7.0; weight.len()], vec![7.0; weight.len()]);
    let mut ds = vec![7.0; if kind == 2 { scale_shift.len() } else { 0 }];
    group_norm::forward(shape, groups, x, weight, bias, epilogue, &mut y, &mut statistics);
    group_norm::backward(shape, groups, x, weight, bias, epilogue, &statistics, dy, &mut dx, &mut dw, &mut db, &mut ds);
    vec![y, dx, dw, db, ds]
}

fn any_shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        (1..4usize, 1..8usize, 1..40usize),
        (1..3usize, 500..1500usize, 1..40usize),
        (1..3usize, 1..100usize, 300..520usize)
    ]
    .prop_map(|(batch, positions, channels)| Shape { batch, positions, channels })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn rms_norm_matches(shape in any_shape(), kind in 0..3u8, seed: u64) {
        let (x, dy) = (noise(seed, shape.elements()), noise(seed ^ 1, shape.elements()));
        let (gain, scale_shift) = (noise(seed ^ 2, shape.channels), noise(seed ^ 3, 2 * shape.batch * shape.channels));
        let result = same_in_every_pool(|| rms(kind, shape, &x, &gain, &scale_shift, &dy));
        let expected = rms_reference(kind, shape, &[wide(&x), wide(&gain), wide(&scale_shift)]);
        assert_close("y", &result[0], &expected, 1e-6);
        let mut gradients = vec![("dx", &result[1][..]), ("gain", &result[2]), ("scale_shift", &result[3])];
        gradients.truncate(if kind == 2 { 3 } else { 2 });
        if shape.channels == 1 {
            // the norm leaves nothing but a sign: the gradient is a difference that cancels
            prop_assert!(result[1].iter().zip(&x).all(|(dx, x)| dx.abs() <= 1e-5 / x.abs()), "{:?}", result[1]);
            return Ok(());
        }
        let inputs = [&x[..], &gain, &scale_shift];
        assert_gradients(&|inputs| rms_reference(kind, shape, inputs), &inputs, &dy, &gradients, 3e-6);
    }

    #[test]
    fn group_norm_matches(shape in any_shape(), kind in 0..3u8, split in 0..3usize, seed: u64, mean in -3f32..3.0) {
        let count = [1, 2, shape.channels][split];
        let count = if shape.channels.is_multiple_of(count) { count } else { 1 };
        let groups = Groups { count, epsilon: 1e-3 };
        let mut x = noise(seed, shape.elements());
        x.iter_mut().for_each(|x| *x += mean);
        let dy = noise(seed ^ 1, shape.elements());
        let [weight, bias] = [2, 4].map(|flip| noise(seed ^ flip, shape.channels));
        let scale_shift = noise(seed ^ 3, 2 * shape.batch * shape.channels);
        let inputs = [&x[..], &weight, &bias, &scale_shift];
        let result = same_in_every_pool(|| group(kind, shape, groups, inputs, &dy));
        let expected = group_reference(kind, shape, groups, &inputs.map(wide));
        let few = shape.positions * shape.channels / count < 8;
        // a group of few values may have a small variance, which magnifies the rounding of the input's mean
        assert_close("y", &result[0], &expected, if few { 1e-4 } else { 5e-6 });
        if few {
            return Ok(());
        }
        let names = ["dx", "weight", "bias", "scale_shift"];
        let mut gradients: Vec<_> = names.into_iter().zip(result[1..].iter().map(|gradient| &gradient[..])).collect();
        gradients.truncate(if kind == 2 { 4 } else { 3 });
        assert_gradients(&|inputs| group_reference(kind, shape, groups, inputs), &inputs, &dy, &gradients, 1e-5);
    }
}

#[test]
fn rms_norm_below_its_clamp_is_finite() {
    let shape = Shape { batch: 1, positions: 3, channels: 5 };
    let mut x = vec![0.0; 15];
    x[5..10].fill(1e-13);
    x[10..].fill(1.0);
    let (gain, scale_shift, dy) = (noise(1, 5), noise(2, 10), noise(3, 15));
    for kind in 0..3 {
        let result = rms(kind, shape, &x, &gain, &scale_shift, &dy);
        assert!(result.iter().flatten().all(|value| value.is_finite()), "{result:?}");
        // at 0 the output and its gradient are those of the linear part
        let expected = rms_reference(kind, shape, &[wide(&x), wide(&gain), wide(&scale_shift)]);
        assert_close("y", &result[0], &expected, 1e-6);
        if kind == 0 {
            let linear: Vec<f64> = (0..10).map(|i| 5f64.sqrt() * 1e12 * f64::from(gain[i % 5] * dy[i])).collect();
            assert_close("dx", &result[1][..10], &linear, 1e-6);
        }
    }
}

#[test]
fn non_finite_input_shows() {
    let shape = Shape { batch: 2, positions: 2, channels: 18 };
    let groups = Groups { count: 2, epsilon: 1e-5 };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        for (place, kind) in [(0, 0), (17, 0), (16, 1), (5, 2)] {
            let mut x = noise(1, shape.elements());
            x[place] = bad;
            let (weight, bias, scale_shift, dy) = (noise(2, 18), noise(3, 18), noise(4, 72), noise(5, 72));
            let result = rms(kind, shape, &x, &weight, &scale_shift, &dy);
            // the first pixel alone, and every sum over it
            assert!(result[0][..18].iter().chain(&result[1][..18]).chain(&result[2]).all(|value| !value.is_finite()));
            assert!(result[0][18..].iter().chain(&result[1][18..]).all(|value| value.is_finite()));
            let result = group(kind, shape, groups, [&x, &weight, &bias, &scale_shift], &dy);
            assert!(!result[0][place].is_finite() && !result[1][place].is_finite(), "{bad} {kind}");
            assert!(result[0][36..].iter().all(|value| value.is_finite()));
        }
        // and a non-finite gradient
        if bad.abs() < 1e31 {
            continue;
        }
        let mut dy = noise(5, 72);
        dy[3] = bad;
        let result = rms(2, shape, &noise(1, 72), &noise(2, 18), &noise(4, 72), &dy);
        assert!(result[1][..18].iter().all(|value| !value.is_finite()) && !result[2][3].is_finite());
    }
}
