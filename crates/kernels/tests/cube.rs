//! The operations on a GPU, or on Mesa's lavapipe: `cargo test --workspace --features wgpu --test cube`.
#![cfg(feature = "cube")]

mod cases;
mod evaluation;

use burn::tensor::{DType, Device, TensorData};
use cases::large;
use evaluation::{difference, evaluate};

const CASES: u32 = 12;

/// The device with the name in `KERNELS_DEVICE`, or `wgpu`.
fn device() -> Device {
    let name = std::env::var("KERNELS_DEVICE").unwrap_or_else(|_| "wgpu".to_owned());
    device::open(&name).expect("a device; Mesa's lavapipe is one of wgpu")
}

/// Steps of many parameters at once, of which some share a chunk and some fill more than one.
#[test]
fn steps_of_the_device_are_those_of_each_parameter() {
    use burn::tensor::{Tensor, TensorData};
    use kernels::adam::{AdamParameter, AdamStep, DeviceGradients, WeightDecay, composed};

    let lengths = [3, 128, 5_000_001, 1, 4097, 256, 70_000];
    let device = device();
    let flex = Device::flex();
    let upload = |length: usize, seed: usize, device: &Device| {
        let values: Vec<f32> = (0..length).map(|index| ((index * 37 + seed * 101) % 83) as f32 / 41.0 - 1.0).collect();
        Tensor::<1>::from_data(TensorData::new(values, [length]), device)
    };
    let start = |device: &Device| -> Vec<AdamParameter> {
        let each = |(seed, &length): (usize, &usize)| AdamParameter {
            value: upload(length, seed, device),
            gradient: upload(1, 0, device),
            mean: Tensor::zeros([length], device),
            square: Tensor::zeros([length], device),
            average: Some(upload(length, seed, device)),
        };
        lengths.iter().enumerate().map(each).collect()
    };
    let (mut ours, mut reference) = (start(&device), start(&flex));
    for number in 1..=3 {
        let gradients = |device: &Device| -> Vec<Tensor<1>> {
            let each = |(seed, &length): (usize, &usize)| upload(length, seed + 10 * number as usize, device) * 0.3;
            lengths.iter().enumerate().map(each).collect()
        };
        let mut step = AdamStep {
            number,
            learning_rate: 0.01,
            betas: [0.9, 0.99],
            epsilon: 1e-8,
            weight_decay: WeightDecay::Coupled(0.01),
            clip: 1.0,
            average_decay: [0.0, 0.9, 0.5][number as usize - 1],
        };
        // the second step without an average
        let without = number == 2;
        let taken = |parameters: Vec<AdamParameter>| -> Vec<AdamParameter> {
            let drop = |parameter| AdamParameter { average: None, ..parameter };
            parameters.into_iter().map(|parameter| if without { drop(parameter) } else { parameter }).collect()
        };
        let averages = |parameters: &[AdamParameter]| parameters.iter().map(|p| p.average.clone()).collect::<Vec<_>>();
        let put_back = |parameters: Vec<AdamParameter>, before: Vec<Option<Tensor<1>>>| -> Vec<AdamParameter> {
            let back = |(parameter, average): (AdamParameter, Option<Tensor<1>>)| AdamParameter {
                average: parameter.average.clone().or(average),
                ..parameter
            };
            parameters.into_iter().zip(before).map(back).collect()
        };
        let packed = DeviceGradients::new(gradients(&device)).unwrap_or_else(|_| panic!("a GPU"));
        let loss = |value: f32| Tensor::<1>::from_data(TensorData::from([value]), &device);
        let norm = kernels::adam::global_norm(&gradients(&flex));
        let decided: Vec<f32> = packed.decide(loss(1.0), 4.0, 2.0).into_data().try_to_vec().expect("f32");
        assert!((f64::from(decided[0]) / (norm / 4.0) - 1.0).abs() < 1e-5, "{decided:?} {norm}");
        assert!((f64::from(decided[1]) / (2.0 / (norm / 4.0 + 1e-6) / 4.0) - 1.0).abs() < 1e-5, "{decided:?}");
        assert_eq!(decided[2], 1.0);

        // a step that is not finite changes nothing
        let broken = packed.decide(loss(f32::NAN), 1.0, 0.0);
        assert_eq!(broken.to_data().iter::<f32>().nth(2), Some(0.0));
        let same = DeviceGradients::new(gradients(&device)).unwrap_or_else(|_| panic!("a GPU"));
        let unchanged = same.adam(&step, ours.clone(), broken, None).0;
        for (before, after) in ours.iter().zip(unchanged) {
            before.value.to_data().assert_eq(&after.value.into_data(), true);
            before.mean.to_data().assert_eq(&after.mean.into_data(), true);
        }

        let decision = packed.decide(loss(1.0), 1.0, 2.0);
        let before = averages(&ours);
        ours = put_back(packed.adam(&step, taken(ours), decision, None).0, before);
        step.clip = (2.0 / (norm + 1e-6)).min(1.0);
        let before = averages(&reference);
        let with_gradients =
            reference.into_iter().zip(gradients(&flex)).map(|(p, gradient)| AdamParameter { gradient, ..p });
        reference = put_back(taken(with_gradients.collect()).into_iter().map(|p| composed(&step, p)).collect(), before);
        for (index, (ours, reference)) in ours.iter().zip(&reference).enumerate() {
            let pairs = [
                (&ours.value, &reference.value),
                (&ours.mean, &reference.mean),
                (&ours.square, &reference.square),
                (ours.average.as_ref().expect("an average"), reference.average.as_ref().expect("an average")),
            ];
            for (which, (ours, reference)) in pairs.into_iter().enumerate() {
                let difference = (ours.clone().to_device(&flex) - reference.clone()).abs().max().into_scalar::<f32>();
                assert!(difference < 2e-6, "step {number}, parameter {index}, tensor {which}: {difference}");
            }
        }
    }
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

/// Wide pixels are shared by more units.
#[test]
fn norms_of_many_channels_match_those_of_the_cpu() {
    use burn::tensor::Tensor;
    for channels in [300usize, 1000, 1030] {
        let norm = move |leaves: &[Tensor<1>]| {
            let x = leaves[0].clone().reshape([2, 3, 5, channels]);
            let scale_shift = leaves[2].clone().reshape([2, 2 * channels]);
            kernels::rms_norm_silu(x, leaves[1].clone(), Some(scale_shift)).flatten(0, 3)
        };
        let values = |count: usize, seed: usize| -> Vec<f64> {
            (0..count).map(|index| ((index * 37 + seed * 101) % 83) as f64 / 41.0 - 1.0).collect()
        };
        let inputs = [values(30 * channels, 1), values(channels, 2), values(4 * channels, 3)];
        let ours = evaluate(&norm, &inputs, &device(), DType::F32);
        let difference = difference(&ours, &evaluate(&norm, &inputs, &Device::flex(), DType::F32));
        assert!(difference < 2e-5, "{channels}: {difference}");
    }
}
