//! Both attentions with the sizes of a network, on a GPU or on Mesa's lavapipe, against the composed ones in f64 on `flex`:
//! the result and all gradients. `cargo test --workspace --features wgpu --test cube_attention`
#![cfg(feature = "cube")]

use burn::tensor::{DType, Device, Distribution, Tensor, TensorData};
use kernels::composed;

const BATCH: usize = 2;
const POSITIONS: usize = 1024;
const HEADS: usize = 4;
const MEMORY: usize = 4;

type Function = fn(Tensor<3>, Tensor<4>) -> Tensor<3>;

/// The device with the name in `KERNELS_DEVICE`, or `wgpu`.
fn device() -> Device {
    let name = std::env::var("KERNELS_DEVICE").unwrap_or_else(|_| "wgpu".to_owned());
    device::open(&name).expect("a device; Mesa's lavapipe is one of wgpu")
}

/// The sizes of the memory.
fn memory_shape(linear: bool, head_dim: usize) -> [usize; 4] {
    if linear { [2, HEADS, head_dim, MEMORY] } else { [2, HEADS, MEMORY, head_dim] }
}

/// Values of qkv, of the memory and of the gradient of the result.
fn values(head_dim: usize, positions: usize) -> [TensorData; 3] {
    let lengths = [BATCH * positions * 3 * HEADS * head_dim, 2 * HEADS * MEMORY * head_dim];
    let gradients = BATCH * positions * HEADS * head_dim;
    [lengths[0], lengths[1], gradients].map(|length| {
        let distribution = Distribution::Normal(0.0, 1.0);
        Tensor::<1>::random([length], distribution, &Device::flex()).into_data()
    })
}

/// The result and the gradients of qkv and memory.
fn evaluate(
    attention: Function,
    values: &[TensorData; 3],
    shapes: ([usize; 3], [usize; 4]),
    device: &Device,
    dtype: DType,
) -> [Vec<f64>; 3] {
    let device = device.clone().autodiff();
    let upload = |values: &TensorData| Tensor::<1>::from_data(values.clone(), (&device, dtype));
    let [qkv, memory] = [0, 1].map(|input| upload(&values[input]).require_grad());
    let result = attention(qkv.clone().reshape(shapes.0), memory.clone().reshape(shapes.1)).flatten::<1>(0, 2);
    let gradients = (result.clone() * upload(&values[2])).sum().backward();
    let read = |tensor: Tensor<1>| tensor.into_data().iter::<f64>().collect::<Vec<f64>>();
    let gradient = |leaf: Tensor<1>| read(leaf.grad(&gradients).expect("a gradient"));
    [read(result.inner()), gradient(qkv), gradient(memory)]
}

/// Compares ours in a number format with the composed one in f64; `tolerance` is relative to the largest value of a tensor.
fn compare(linear: bool, head_dim: usize, positions: usize, dtype: DType, tolerance: f64) {
    let values = values(head_dim, positions);
    let shapes = ([BATCH, positions, 3 * HEADS * head_dim], memory_shape(linear, head_dim));
    let (ours, reference): (Function, Function) = if linear {
        (kernels::linear_attention, composed::linear_attention)
    } else {
        (kernels::attention, composed::attention)
    };
    let ours = evaluate(ours, &values, shapes, &device(), dtype);
    let reference = evaluate(reference, &values, shapes, &Device::flex(), DType::F64);
    for (name, (ours, reference)) in ["result", "qkv", "memory"].into_iter().zip(ours.iter().zip(&reference)) {
        assert_eq!(ours.len(), reference.len());
        let largest = reference.iter().fold(0f64, |largest, value| largest.max(value.abs()));
        let error = ours.iter().zip(reference).map(|(ours, reference)| (ours - reference).abs()).fold(0f64, |a, b| {
            // NaN counts as the largest
            if b.is_nan() { f64::INFINITY } else { a.max(b) }
        });
        assert!(error <= tolerance * largest, "{name}, linear {linear}, head_dim {head_dim}: {}", error / largest);
    }
}

#[test]
fn attention_of_a_network_matches() {
    compare(false, 32, POSITIONS, DType::F32, 1e-5);
}

#[test]
fn linear_attention_of_a_network_matches() {
    compare(true, 32, POSITIONS, DType::F32, 1e-5);
}

#[test]
fn long_rows_are_shared_by_lanes() {
    for head_dim in [64, 72, 130, 256] {
        compare(false, head_dim, 70, DType::F32, 1e-5);
        compare(true, head_dim, 70, DType::F32, 1e-5);
    }
}

#[test]
fn half_precision_is_summed_in_single_precision() {
    for dtype in [DType::F16, DType::BF16] {
        if device().supports_dtype(dtype) {
            // inputs and gradients are rounded, and nothing between
            compare(false, 32, 300, dtype, 2e-2);
            compare(true, 32, 300, dtype, 2e-2);
        }
    }
}
