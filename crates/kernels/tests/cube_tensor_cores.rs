//! Convolutions on tensor cores with the matrix instructions written out, on any GPU or Mesa's lavapipe:
//! `cargo test --workspace --features wgpu --test cube_tensor_cores`. With `KERNELS_DEVICE=cuda KERNELS_TENSOR_CORES=1`, on those
//! of the device.
#![cfg(feature = "cube")]

mod evaluation;

use burn::tensor::{DType, Device, Tensor};
use evaluation::{difference, evaluate, numbers};
use kernels::{Convolution, composed};
use proptest::prelude::*;

const CASES: u32 = 24;

fn device() -> Device {
    if std::env::var(kernels::tensor_cores::VARIABLE).is_err() {
        kernels::tensor_cores::emulate();
    }
    let name = std::env::var("KERNELS_DEVICE").unwrap_or_else(|_| "wgpu".to_owned());
    device::open(&name).expect("a device; Mesa's lavapipe is one of wgpu")
}

type Conv2d = fn(Tensor<4>, Tensor<4>, Tensor<1>, Convolution, Option<Tensor<4>>) -> Tensor<4>;

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    height: usize,
    width: usize,
    channels_in: usize,
    channels_out: usize,
    kernel: usize,
    options: Convolution,
    with_residual: bool,
}

/// The largest difference of a convolution and of all its gradients from those in f64, and the difference that passes.
fn difference_from_f64(sizes: Sizes, seed: u64) -> (f64, f64) {
    let Sizes { batch, height, width, channels_in, channels_out, kernel, options, with_residual } = sizes;
    let function = |conv2d: Conv2d| {
        move |leaves: &[Tensor<1>]| {
            let x = leaves[0].clone().reshape([batch, height, width, channels_in]);
            let weight = leaves[1].clone().reshape([channels_out, channels_in, kernel, kernel]);
            let residual = with_residual.then(|| leaves[3].clone().reshape([batch, height, width, channels_out]));
            conv2d(x, weight, leaves[2].clone(), options, residual).flatten(0, 3)
        }
    };
    let mut inputs = vec![
        numbers(batch * height * width * channels_in, seed),
        numbers(channels_out * channels_in * kernel * kernel, seed ^ 1),
        numbers(channels_out, seed ^ 2),
    ];
    if with_residual {
        inputs.push(numbers(batch * height * width * channels_out, seed ^ 3));
    }
    let ours: Conv2d = |x, weight, bias, options, residual| match residual {
        Some(residual) => kernels::conv2d_add(x, weight, bias, options, residual),
        None => kernels::conv2d(x, weight, Some(bias), options),
    };
    let reference: Conv2d = |x, weight, bias, options, residual| {
        let y = composed::conv2d(x, weight, Some(bias), options);
        if let Some(residual) = residual { y + residual } else { y }
    };
    let ours = evaluate(&function(ours), &inputs, &device(), DType::F32);
    let error = difference(&ours, &evaluate(&function(reference), &inputs, &Device::flex(), DType::F64));
    // sums of up to some thousand products in f32, as in the other tests; TF32, of a device, has 10 bits
    let is_emulated = std::env::var(kernels::tensor_cores::VARIABLE).is_err();
    (error, if is_emulated { 1e-5 } else { 5e-3 })
}

/// Results so large that each of the tiles is used.
#[test]
fn large_results_match() {
    let options = Convolution::same(1);
    let image = Sizes {
        batch: 33,
        height: 32,
        width: 33,
        channels_in: 8,
        channels_out: 128,
        kernel: 1,
        options,
        with_residual: true,
    };
    for sizes in [
        image,
        Sizes { channels_out: 64, with_residual: false, ..image },
        // the gradient of x, and that of many weights
        Sizes { channels_in: 128, channels_out: 16, ..image },
        Sizes {
            batch: 1,
            height: 4,
            width: 9,
            channels_in: 240,
            channels_out: 1024,
            kernel: 3,
            options: Convolution::same(3),
            with_residual: false,
        },
    ] {
        let (error, tolerance) = difference_from_f64(sizes, 7);
        assert!(error < tolerance, "{sizes:?}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolutions_of_vectors_match(
        batch in 1..4usize, height in 1..10usize, width in 1..10usize, eights_in in 1..12usize, eights_out in 1..12usize,
        kernel in prop::sample::select(vec![1usize, 3, 5]), form in 0..4usize, seed: u64,
    ) {
        let options = match form {
            0 => Convolution::upsampled(kernel),
            1 => Convolution::patches(kernel),
            _ => Convolution::same(kernel),
        };
        let [height, width] = if form == 1 { [height * kernel, width * kernel] } else { [height, width] };
        let (channels_in, channels_out) = (8 * eights_in, 8 * eights_out);
        // the residual has the shape of the result, where that is easy to say
        let with_residual = form == 3;
        let sizes = Sizes { batch, height, width, channels_in, channels_out, kernel, options, with_residual };
        let (error, tolerance) = difference_from_f64(sizes, seed);
        prop_assert!(error < tolerance, "{error}");
    }
}
