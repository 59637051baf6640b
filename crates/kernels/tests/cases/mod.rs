//! Every operation of ours in f32, on the device of the test, against the composed one in f64 on `flex`: the result and all
//! gradients.

use burn::tensor::{DType, Device, Tensor, TensorData};
use kernels::{Convolution, composed};
use proptest::prelude::*;

use crate::{
    CASES, device,
    evaluation::{Function, difference, evaluate, numbers},
};

/// The [`difference`] between ours in f32 and the composed operation in f64.
fn error(ours: Function, composed: Function, inputs: &[Vec<f64>]) -> f64 {
    let ours = evaluate(ours, inputs, &device(), DType::F32);
    difference(&ours, &evaluate(composed, inputs, &Device::flex(), DType::F64))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolutions_match(
        batch in 1..4usize, height in 2..13usize, width in 2..13usize, channels_in in 1..37usize, channels_out in 1..37usize,
        kernel in prop::sample::select(vec![1usize, 3, 5, 7]), upsample: bool, seed: u64,
    ) {
        let options = Convolution { upsample, ..Convolution::same(kernel) };
        let function = |conv2d: fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, Convolution) -> Tensor<4>| {
            move |leaves: &[Tensor<1>]| {
                let x = leaves[0].clone().reshape([batch, height, width, channels_in]);
                let weight = leaves[1].clone().reshape([channels_out, channels_in, kernel, kernel]);
                conv2d(x, weight, Some(leaves[2].clone()), options).flatten(0, 3)
            }
        };
        let inputs = [
            numbers(batch * height * width * channels_in, seed),
            numbers(channels_out * channels_in * kernel * kernel, seed ^ 1),
            numbers(channels_out, seed ^ 2),
        ];
        let error = error(&function(kernels::conv2d), &function(composed::conv2d), &inputs);
        // Winograd F(4x4, 3x3) has the largest error
        prop_assert!(error < 3e-5, "{error}");
    }

    #[test]
    fn convolutions_of_patches_match(
        batch in 1..4usize, rows in 1..7usize, columns in 1..7usize, channels_in in 1..20usize, channels_out in 1..20usize,
        patch in 1..4usize, seed: u64,
    ) {
        let function = |conv2d: fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, Convolution) -> Tensor<4>| {
            move |leaves: &[Tensor<1>]| {
                let x = leaves[0].clone().reshape([batch, rows * patch, columns * patch, channels_in]);
                let weight = leaves[1].clone().reshape([channels_out, channels_in, patch, patch]);
                conv2d(x, weight, None, Convolution::patches(patch)).flatten(0, 3)
            }
        };
        let inputs = [
            numbers(batch * rows * columns * patch * patch * channels_in, seed),
            numbers(channels_out * channels_in * patch * patch, seed ^ 1),
        ];
        let error = error(&function(kernels::conv2d), &function(composed::conv2d), &inputs);
        prop_assert!(error < 2e-6, "{error}");
    }

    // the two additions apart: after a convolution the norm of a short vector would multiply the convolution's rounding
    #[test]
    fn convolutions_plus_an_image_match(
        batch in 1..4usize, side in 2..9usize, channels_in in 1..20usize, channels_out in 1..20usize, seed: u64,
    ) {
        type Sum = fn(Tensor<4>, Tensor<4>, Tensor<1>, Tensor<4>) -> Tensor<4>;
        let function = |sum: Sum| {
            move |leaves: &[Tensor<1>]| {
                let x = leaves[0].clone().reshape([batch, side, side, channels_in]);
                let weight = leaves[1].clone().reshape([channels_out, channels_in, 3, 3]);
                let residual = leaves[3].clone().reshape([batch, side, side, channels_out]);
                sum(x, weight, leaves[2].clone(), residual).flatten(0, 3)
            }
        };
        let inputs = [
            numbers(batch * side * side * channels_in, seed),
            numbers(channels_out * channels_in * 9, seed ^ 1),
            numbers(channels_out, seed ^ 2),
            numbers(batch * side * side * channels_out, seed ^ 3),
        ];
        let ours: Sum = |x, weight, bias, residual| kernels::conv2d_add(x, weight, bias, Convolution::same(3), residual);
        let reference: Sum =
            |x, weight, bias, residual| composed::conv2d(x, weight, Some(bias), Convolution::same(3)) + residual;
        let error = error(&function(ours), &function(reference), &inputs);
        // the bound of `convolutions_match`
        prop_assert!(error < 3e-5, "{error}");
    }

    #[test]
    fn rms_norms_plus_an_image_match(
        batch in 1..4usize, side in 1..9usize, channels in 2..40usize, silu: bool, seed: u64,
    ) {
        type Sum = fn(Tensor<4>, Tensor<1>, Tensor<4>, bool) -> Tensor<4>;
        let function = |sum: Sum| {
            move |leaves: &[Tensor<1>]| {
                let [x, residual] = [0, 2].map(|leaf: usize| leaves[leaf].clone().reshape([batch, side, side, channels]));
                sum(x, leaves[1].clone(), residual, silu).flatten(0, 3)
            }
        };
        let elements = batch * side * side * channels;
        let inputs = [numbers(elements, seed), numbers(channels, seed ^ 1), numbers(elements, seed ^ 2)];
        let ours: Sum = |x, gain, residual, silu| kernels::rms_norm_add(x, gain, silu, residual);
        let reference: Sum = |x, gain, residual, silu| {
            let y = if silu { composed::rms_norm_silu(x, gain, None) } else { composed::rms_norm(x, gain) };
            y + residual
        };
        let error = error(&function(ours), &function(reference), &inputs);
        // the bound of `rms_norms_match`
        prop_assert!(error < 4e-6, "{error}");
    }

    #[test]
    fn losses_match(batch in 1..6usize, elements in 1..400usize, kind in 0..3usize, seed: u64) {
        use kernels::Loss;
        let kind = [Loss::Squared, Loss::Absolute, Loss::Huber(0.4)][kind];
        let function = |loss: fn(Loss, Tensor<2>, Tensor<2>, Tensor<1>) -> Tensor<1>| {
            move |leaves: &[Tensor<1>]| {
                let images = |leaf: usize| leaves[leaf].clone().reshape([batch, elements]);
                loss(kind, images(0), images(1), leaves[2].clone())
            }
        };
        let inputs = [numbers(batch * elements, seed), numbers(batch * elements, seed ^ 1), numbers(batch, seed ^ 2)];
        let error = error(&function(kernels::loss), &function(composed::loss), &inputs);
        prop_assert!(error < 2e-6, "{error}");
    }

    #[test]
    fn rms_norms_match(
        // of one channel the norm leaves a sign, and of the gradient rounding over |x|: see pointwise/normalization.rs
        batch in 1..4usize, height in 1..9usize, width in 1..9usize, channels in 2..70usize, silu: bool, scale_shift: bool,
        seed: u64,
    ) {
        type Norm = fn(Tensor<4>, Tensor<1>, Option<Tensor<2>>) -> Tensor<4>;
        let function = |norm: fn(Tensor<4>, Tensor<1>) -> Tensor<4>, norm_silu: Norm| {
            move |leaves: &[Tensor<1>]| {
                let x = leaves[0].clone().reshape([batch, height, width, channels]);
                let (gain, scales) = (leaves[1].clone(), || leaves[2].clone().reshape([batch, 2 * channels]));
                let y = if silu { norm_silu(x, gain, scale_shift.then(scales)) } else { norm(x, gain) };
                y.flatten(0, 3)
            }
        };
        let mut inputs = vec![numbers(batch * height * width * channels, seed), numbers(channels, seed ^ 1)];
        if silu && scale_shift {
            inputs.push(numbers(batch * 2 * channels, seed ^ 2));
        }
        let ours = function(kernels::rms_norm, kernels::rms_norm_silu);
        let error = error(&ours, &function(composed::rms_norm, composed::rms_norm_silu), &inputs);
        prop_assert!(error < 4e-6, "{error}");
    }

    #[test]
    fn group_norms_match(
        batch in 1..4usize, height in 2..9usize, width in 2..9usize, groups in 1..5usize, group in 1..20usize, silu: bool,
        scale_shift: bool, seed: u64,
    ) {
        type Norm = fn(Tensor<4>, Tensor<1>, Tensor<1>, (usize, f64), bool, Option<Tensor<2>>) -> Tensor<4>;
        let channels = groups * group;
        let with_scale = silu && scale_shift;
        let function = |norm: Norm| {
            move |leaves: &[Tensor<1>]| {
                let x = leaves[0].clone().reshape([batch, height, width, channels]);
                let scales = with_scale.then(|| leaves[3].clone().reshape([batch, 2 * channels]));
                norm(x, leaves[1].clone(), leaves[2].clone(), (groups, 1e-5), silu, scales).flatten(0, 3)
            }
        };
        let mut inputs = vec![
            numbers(batch * height * width * channels, seed),
            numbers(channels, seed ^ 1),
            numbers(channels, seed ^ 2),
        ];
        if with_scale {
            inputs.push(numbers(batch * 2 * channels, seed ^ 3));
        }
        let error = error(&function(kernels::group_norm), &function(composed::group_norm), &inputs);
        prop_assert!(error < 2e-5, "{error}");
    }

    #[test]
    fn softmaxes_match(rows in 1..20usize, columns in 1..70usize, seed: u64) {
        let function = |softmax: fn(Tensor<2>) -> Tensor<2>| {
            move |leaves: &[Tensor<1>]| softmax(leaves[0].clone().reshape([rows, columns])).flatten(0, 1)
        };
        let wide: Vec<f64> = numbers(rows * columns, seed).into_iter().map(|value| 10.0 * value).collect();
        let error = error(&function(kernels::softmax), &function(composed::softmax), &[wide]);
        prop_assert!(error < 2e-6, "{error}");
    }

    #[test]
    fn attentions_match(
        batch in 1..4usize, positions in 1..70usize, heads in 1..4usize, head_dim in 1..40usize, memory in 0..6usize,
        linear: bool, seed: u64,
    ) {
        // the composed linear attention cannot have an empty memory, and an empty leaf has no gradient
        prop_assume!(memory > 0);
        let shape = if linear { [2, heads, head_dim, memory] } else { [2, heads, memory, head_dim] };
        let function = |attention: fn(Tensor<3>, Tensor<4>) -> Tensor<3>| {
            move |leaves: &[Tensor<1>]| {
                let qkv = leaves[0].clone().reshape([batch, positions, 3 * heads * head_dim]);
                attention(qkv, leaves[1].clone().reshape(shape)).flatten(0, 2)
            }
        };
        let wide = |values: Vec<f64>| values.into_iter().map(|value| 3.0 * value).collect::<Vec<f64>>();
        let inputs = [
            wide(numbers(batch * positions * 3 * heads * head_dim, seed)),
            wide(numbers(2 * heads * memory * head_dim, seed ^ 1)),
        ];
        let error = if linear {
            error(&function(kernels::linear_attention), &function(composed::linear_attention), &inputs)
        } else {
            error(&function(kernels::attention), &function(composed::attention), &inputs)
        };
        prop_assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn self_attentions_match(
        batch in 1..4usize, positions in 1..70usize, heads in 1..4usize, head_dim in 1..140usize, seed: u64,
    ) {
        let function = |attention: fn(Tensor<3>, usize) -> Tensor<3>| {
            move |leaves: &[Tensor<1>]| {
                attention(leaves[0].clone().reshape([batch, positions, 3 * heads * head_dim]), heads).flatten(0, 2)
            }
        };
        let composed = |qkv: Tensor<3>, heads: usize| {
            let head_dim = qkv.dims()[2] / (3 * heads);
            let memory = Tensor::zeros([2, heads, 0, head_dim], &qkv.device());
            composed::attention(qkv, memory)
        };
        let inputs = [numbers(batch * positions * 3 * heads * head_dim, seed).into_iter().map(|value| 3.0 * value).collect()];
        let error = error(&function(kernels::self_attention), &function(composed), &inputs);
        prop_assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn activations_match(count in 1..200usize, seed: u64) {
        let wide: Vec<f64> = numbers(count, seed).into_iter().map(|value| 12.0 * value).collect();
        let inputs = [wide];
        let silu = error(&|leaves| kernels::silu(leaves[0].clone()), &|leaves| composed::silu(leaves[0].clone()), &inputs);
        prop_assert!(silu < 1e-6, "silu {silu}");
        let gelu = error(&|leaves| kernels::gelu(leaves[0].clone()), &|leaves| composed::gelu(leaves[0].clone()), &inputs);
        prop_assert!(gelu < 1e-6, "gelu {gelu}");
    }

    #[test]
    fn linear_layers_match(batch in 1..20usize, features_in in 1..40usize, features_out in 1..40usize, seed: u64) {
        let function = |linear: fn(Tensor<2>, Tensor<2>, Tensor<1>) -> Tensor<2>| {
            move |leaves: &[Tensor<1>]| {
                let x = leaves[0].clone().reshape([batch, features_in]);
                let weight = leaves[1].clone().reshape([features_out, features_in]);
                linear(x, weight, leaves[2].clone()).flatten(0, 1)
            }
        };
        let inputs = [
            numbers(batch * features_in, seed),
            numbers(features_out * features_in, seed ^ 1),
            numbers(features_out, seed ^ 2),
        ];
        let error = error(&function(kernels::linear), &function(composed::linear), &inputs);
        prop_assert!(error < 2e-6, "{error}");
    }

    #[test]
    fn concatenations_match(rows in 1..20usize, first in 1..40usize, second in 1..40usize, seed: u64) {
        let function = |concat: fn(Tensor<4>, Tensor<4>) -> Tensor<4>| {
            move |leaves: &[Tensor<1>]| {
                let [a, b] = [(0, first), (1, second)].map(|(leaf, channels)| leaves[leaf].clone().reshape([1, 1, rows, channels]));
                concat(a, b).flatten(0, 3)
            }
        };
        let inputs = [numbers(rows * first, seed), numbers(rows * second, seed ^ 1)];
        let error = error(&function(kernels::concat_channels), &function(composed::concat_channels), &inputs);
        prop_assert!(error < 1e-7, "{error}");
    }
}

#[test]
fn patches_become_channels_and_back() {
    let device = device();
    let values = numbers(2 * 8 * 12 * 3, 5);
    let x =
        Tensor::<1>::from_data(TensorData::new(values, [2 * 8 * 12 * 3]), (&device, DType::F32)).reshape([2, 8, 12, 3]);
    let there = kernels::space_to_depth(x.clone(), 2);
    assert_eq!(there.dims(), [2, 4, 6, 12]);
    // channel c, row p1, column p2 of the patch is channel 4 c + 2 p1 + p2
    let corner: f32 = there.clone().slice([0..1, 2..3, 3..4, 7..8]).into_scalar();
    assert_eq!(corner, x.clone().slice([0..1, 5..6, 7..8, 1..2]).into_scalar::<f32>());
    kernels::depth_to_space(there, 2).into_data().assert_eq(&x.to_data(), true);
    let up = composed::upsample_nearest(x.clone());
    assert_eq!(up.dims(), [2, 16, 24, 3]);
    let one: f32 = up.slice([1..2, 7..8, 23..24, 2..3]).into_scalar();
    assert_eq!(one, x.slice([1..2, 3..4, 11..12, 2..3]).into_scalar::<f32>());
}

#[test]
fn a_zero_image_has_finite_gradients() {
    let device = device().autodiff();
    for with_silu in [false, true] {
        let x = Tensor::<4>::zeros([1, 2, 2, 4], &device).require_grad();
        let gain = Tensor::<1>::ones([4], &device);
        let y =
            if with_silu { kernels::rms_norm_silu(x.clone(), gain, None) } else { kernels::rms_norm(x.clone(), gain) };
        let gradients = y.sum().backward();
        let gradient: Vec<f32> = x.grad(&gradients).expect("a gradient").into_data().try_to_vec().expect("f32");
        assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
    }
}

/// A name, inputs and a function of them.
pub type Case = (&'static str, Vec<Vec<f64>>, Box<dyn Fn(&[Tensor<1>]) -> Tensor<1> + Sync>);

/// One of each operation, on sizes that are split into several tasks.
pub fn large() -> Vec<Case> {
    let image = |leaf: &Tensor<1>, side: usize, channels: usize| leaf.clone().reshape([2, side, side, channels]);
    let convolution =
        move |side: usize, channels_in: usize, channels_out: usize, kernel: usize, options: Convolution| {
            let inputs = vec![
                numbers(2 * side * side * channels_in, 1),
                numbers(channels_out * channels_in * kernel * kernel, 2),
            ];
            let function = move |leaves: &[Tensor<1>]| {
                let weight = leaves[1].clone().reshape([channels_out, channels_in, kernel, kernel]);
                kernels::conv2d(image(&leaves[0], side, channels_in), weight, None, options).flatten(0, 3)
            };
            ("conv2d", inputs, Box::new(function) as Box<dyn Fn(&[Tensor<1>]) -> Tensor<1> + Sync>)
        };
    vec![
        convolution(32, 48, 40, 3, Convolution::same(3)),
        convolution(6, 200, 130, 3, Convolution::same(3)),
        convolution(16, 48, 40, 3, Convolution::upsampled(3)),
        convolution(32, 3, 40, 7, Convolution::same(7)),
        convolution(32, 40, 48, 1, Convolution::same(1)),
        convolution(32, 40, 48, 2, Convolution::patches(2)),
        (
            "rms_norm_silu",
            vec![numbers(2 * 32 * 32 * 40, 1), numbers(40, 2), numbers(2 * 80, 3)],
            Box::new(move |leaves| {
                let scale_shift = leaves[2].clone().reshape([2, 80]);
                kernels::rms_norm_silu(image(&leaves[0], 32, 40), leaves[1].clone(), Some(scale_shift)).flatten(0, 3)
            }),
        ),
        (
            "group_norm",
            vec![numbers(2 * 32 * 32 * 40, 1), numbers(40, 2), numbers(40, 3), numbers(2 * 80, 4)],
            Box::new(move |leaves| {
                let (x, scale_shift) = (image(&leaves[0], 32, 40), leaves[3].clone().reshape([2, 80]));
                let (weight, bias) = (leaves[1].clone(), leaves[2].clone());
                kernels::group_norm(x, weight, bias, (8, 1e-5), true, Some(scale_shift)).flatten(0, 3)
            }),
        ),
        (
            "group_norm of one group",
            vec![numbers(2 * 50 * 50 * 90, 1), numbers(90, 2), numbers(90, 3)],
            Box::new(move |leaves| {
                let (x, weight, bias) = (image(&leaves[0], 50, 90), leaves[1].clone(), leaves[2].clone());
                kernels::group_norm(x, weight, bias, (1, 1e-5), false, None).flatten(0, 3)
            }),
        ),
        (
            "softmax",
            vec![numbers(7 * 3000, 1)],
            Box::new(|leaves| kernels::softmax(leaves[0].clone().reshape([7, 3000])).flatten(0, 1)),
        ),
        (
            "loss",
            vec![numbers(3 * 70_000, 1), numbers(3 * 70_000, 2), numbers(3, 3)],
            Box::new(|leaves| {
                let [prediction, target] = [0, 1].map(|leaf: usize| leaves[leaf].clone().reshape([3, 70_000]));
                kernels::loss(kernels::Loss::Huber(0.4), prediction, target, leaves[2].clone())
            }),
        ),
        (
            "attention",
            vec![numbers(2 * 300 * 3 * 64, 1), numbers(2 * 2 * 4 * 32, 2)],
            Box::new(|leaves| {
                let memory = leaves[1].clone().reshape([2, 2, 4, 32]);
                kernels::attention(leaves[0].clone().reshape([2, 300, 192]), memory).flatten(0, 2)
            }),
        ),
        (
            "linear_attention",
            vec![numbers(2 * 300 * 3 * 64, 1), numbers(2 * 2 * 32 * 4, 2)],
            Box::new(|leaves| {
                let memory = leaves[1].clone().reshape([2, 2, 32, 4]);
                kernels::linear_attention(leaves[0].clone().reshape([2, 300, 192]), memory).flatten(0, 2)
            }),
        ),
        ("silu", vec![numbers(70_000, 1)], Box::new(|leaves| kernels::silu(leaves[0].clone()))),
        ("gelu", vec![numbers(70_000, 1)], Box::new(|leaves| kernels::gelu(leaves[0].clone()))),
        (
            "concat_channels",
            vec![numbers(2 * 32 * 32 * 24, 1), numbers(2 * 32 * 32 * 40, 2)],
            Box::new(move |leaves| {
                kernels::concat_channels(image(&leaves[0], 32, 24), image(&leaves[1], 32, 40)).flatten(0, 3)
            }),
        ),
    ]
}

#[test]
fn a_large_mean_costs_a_group_norm_no_digits() {
    type Norm = fn(Tensor<4>, Tensor<1>, Tensor<1>, (usize, f64), bool, Option<Tensor<2>>) -> Tensor<4>;
    let function = |norm: Norm| {
        move |leaves: &[Tensor<1>]| {
            let x = leaves[0].clone().reshape([2, 20, 20, 24]);
            norm(x, leaves[1].clone(), leaves[2].clone(), (4, 1e-5), false, None).flatten(0, 3)
        }
    };
    // as f32 holds them
    let x = numbers(2 * 400 * 24, 1).into_iter().map(|value| f64::from((1000.0 + value) as f32)).collect();
    let inputs = [x, numbers(24, 2), numbers(24, 3)];
    let error = error(&function(kernels::group_norm), &function(composed::group_norm), &inputs);
    // the mean itself is held to 6e-5
    assert!(error < 3e-4, "{error}");
}

#[test]
fn non_finite_inputs_show_in_the_result() {
    for (name, inputs, function) in large() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for position in [0, inputs[0].len() / 2 + 3, inputs[0].len() - 1] {
                let mut inputs = inputs.clone();
                inputs[0][position] = bad;
                let results = evaluate(&*function, &inputs, &device(), DType::F32);
                let finite = results[0].iter().all(|value| value.is_finite());
                // e^-inf = 0: a finite result is right
                let has_limit = ["silu", "gelu", "softmax", "attention", "linear_attention"].contains(&name);
                let limit = has_limit && bad == f64::NEG_INFINITY;
                assert!(!finite || limit, "{name}: {bad} at {position} does not show in the result");
            }
        }
    }
}

#[test]
fn adam_matches_the_composed_one() {
    use kernels::adam::{AdamParameter, AdamStep, WeightDecay, adam, composed, global_norm};
    let count = 40_003;
    let parameter = |device: &Device, dtype: DType, average: bool| {
        let upload = |seed: u64, factor: f64| {
            let values: Vec<f64> = numbers(count, seed).into_iter().map(|value| factor * value).collect();
            Tensor::<1>::from_data(TensorData::new(values, [count]), (device, dtype))
        };
        AdamParameter {
            value: upload(1, 1.0),
            gradient: upload(2, 3.0),
            mean: upload(3, 1.0),
            square: upload(4, 1.0).abs(),
            average: average.then(|| upload(5, 1.0)),
        }
    };
    for weight_decay in [WeightDecay::Coupled(0.0), WeightDecay::Coupled(0.1), WeightDecay::Decoupled(0.1)] {
        for (number, average_decay) in [(1, 0.0), (7, 0.9)] {
            let step = AdamStep {
                number,
                learning_rate: 0.01,
                betas: [0.9, 0.99],
                epsilon: 1e-8,
                weight_decay,
                clip: 0.3,
                average_decay,
            };
            let ours = adam(&step, parameter(&device(), DType::F32, true));
            let reference = composed(&step, parameter(&Device::flex(), DType::F64, true));
            let pairs = [
                (ours.value, reference.value),
                (ours.mean, reference.mean),
                (ours.square, reference.square),
                (ours.average.expect("an average"), reference.average.expect("an average")),
            ];
            for (ours, reference) in pairs {
                let ours = ours.into_data().iter::<f64>().collect::<Vec<f64>>();
                for (ours, reference) in ours.iter().zip(reference.into_data().iter::<f64>()) {
                    assert!((ours - reference).abs() < 2e-6, "{weight_decay:?}, step {number}: {ours}, {reference}");
                }
            }
            assert!(adam(&step, parameter(&device(), DType::F32, false)).average.is_none());
        }
    }
    let one = parameter(&device(), DType::F32, false);
    let gradients = [one.gradient, one.value];
    let squares: f64 = [(2, 3.0), (1, 1.0f64)]
        .iter()
        .flat_map(|(seed, factor)| numbers(count, *seed).into_iter().map(move |value| (factor * value).powi(2)))
        .sum();
    assert!((global_norm(&gradients) / squares.sqrt() - 1.0).abs() < 1e-6);
}
