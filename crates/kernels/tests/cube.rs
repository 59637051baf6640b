//! The operations on a GPU, or on Mesa's lavapipe: `cargo test --workspace --features wgpu --test cube`.
#![cfg(feature = "cube")]

mod cases;

use burn::tensor::{DType, Device, TensorData};
use cases::{difference, evaluate, large};

const CASES: u32 = 12;

/// The device with the name in `KERNELS_DEVICE`, or `wgpu`.
fn device() -> Device {
    let name = std::env::var("KERNELS_DEVICE").unwrap_or_else(|_| "wgpu".to_owned());
    device::open(&name).expect("a device; Mesa's lavapipe is one of wgpu")
}

/// Values as a number format holds them.
fn rounded(values: &[f64], dtype: DType) -> Vec<f64> {
    TensorData::new(values.to_vec(), [values.len()]).convert_dtype(dtype).iter::<f64>().collect()
}

#[test]
fn large_operations_match_those_of_the_cpu() {
    for (name, inputs, function) in large() {
        let ours = evaluate(&*function, &inputs, &device(), DType::F32);
        let difference = difference(&ours, &evaluate(&*function, &inputs, &Device::flex(), DType::F32));
        assert!(difference < 2e-5, "{name}: {difference}");
    }
}

#[test]
fn the_same_input_gives_the_same_bits() {
    for (name, inputs, function) in large() {
        let once = || evaluate(&*function, &inputs, &device(), DType::F32);
        assert_eq!(once(), once(), "{name}");
    }
}

#[test]
fn operations_match_in_lower_precision() {
    // a few roundings to 8 or 11 bits
    for (dtype, tolerance) in [(DType::BF16, 2e-2), (DType::F16, 3e-3)] {
        if !device().supports_dtype(dtype) {
            eprintln!("skipped: the device does not compute in {dtype:?}");
            continue;
        }
        for (name, inputs, function) in large() {
            let inputs: Vec<Vec<f64>> = inputs.iter().map(|values| rounded(values, dtype)).collect();
            let ours = evaluate(&*function, &inputs, &device(), dtype);
            let difference = difference(&ours, &evaluate(&*function, &inputs, &device(), DType::F32));
            assert!(difference < tolerance, "{name} in {dtype:?}: {difference}");
        }
    }
}
