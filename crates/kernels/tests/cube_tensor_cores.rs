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

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolutions_of_vectors_match(
        batch in 1..4usize, height in 1..10usize, width in 1..10usize, eights_in in 1..12usize, eights_out in 1..12usize,
        kernel in prop::sample::select(vec![1usize, 3, 5]), form in 0..4usize, seed: u64,
    ) {
        let (channels_in, channels_out) = (8 * eights_in, 8 * eights_out);
        let options = match form {
            0 => Convolution::upsampled(kernel),
            1 => Convolution::patches(kernel),
            _ => Convolution::same(kernel),
        };
        let [height, width] = if form == 1 { [height * kernel, width * kernel] } else { [height, width] };
        // the residual has the shape of the result, where that is easy to say
        let with_residual = form == 3;
        type Conv2d = fn(Tensor<4>, Tensor<4>, Tensor<1>, Convolution, Option<Tensor<4>>) -> Tensor<4>;
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
        // TF32, of a device, has 10 bits
        let tolerance = if std::env::var(kernels::tensor_cores::VARIABLE).is_ok() { 5e-3 } else { 4e-6 };
        prop_assert!(error < tolerance, "{error}");
    }
}
