//! The same command on a GPU, or on Mesa's lavapipe: `cargo test --workspace --features wgpu --test wgpu`.
#![cfg(feature = "wgpu")]

use burn::tensor::{Device, Tensor, TensorData};
use end_to_end::{Workplace, png_size};
use noise::{Noise, Stream};
use serde_json::Value;
use unet::{AttentionKind, Condition, UnetConfig};

#[test]
fn the_network_says_the_same_on_wgpu_and_on_the_cpu() {
    let config = UnetConfig {
        dim: 16,
        dim_mults: vec![1, 2, 2],
        attention: vec![AttentionKind::Linear, AttentionKind::Full, AttentionKind::Off],
        ..UnetConfig::default()
    };
    let output = |device: Device| -> Vec<f32> {
        let weights = Noise::new(7).stream(Stream::Weights);
        let unet = config.init(&device).expect("a possible network").initialise(
            |parameter, out| weights.normal(parameter, 0, out),
            |parameter, out| weights.uniform(parameter, 0, out),
        );
        let x_t = Noise::new(1).stream(Stream::Start).normal_images(&[0, 1], 0, [3, 16, 24], &device);
        let t = Tensor::from_data(TensorData::from([10f32, 900.0]), &device);
        unet.forward(x_t, t, Condition::default()).into_data().try_into_vec().expect("f32")
    };
    let wgpu = output(device::open("wgpu").expect("a wgpu device; Mesa's lavapipe is one"));
    let flex = output(device::open("flex").expect("the CPU"));
    let largest = flex.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    assert!(largest > 0.1, "{largest}");
    for (index, (wgpu, flex)) in wgpu.iter().zip(&flex).enumerate() {
        assert!((wgpu - flex).abs() < 1e-4 * largest, "element {index}: {wgpu} is not {flex}");
    }
}

#[test]
fn ten_steps_on_wgpu_are_those_on_the_cpu() {
    let workplace = Workplace::new();
    let train = |device: &str| -> Vec<f64> {
        let arguments = ["--steps", "10", "--batch-size", "16", "--run", device, "--device", device];
        let settings = ["--set", "diffusion.objective=epsilon", "--set", "diffusion.loss_weight=uniform"];
        let finished = workplace.train_tiny(&[&arguments[..], &settings[..]].concat()).succeeded();
        assert!(finished.error.contains(&format!("device      {device}\n")), "{finished}");
        let text = workplace.text(format!("{device}/metrics.jsonl"));
        let parse = |line| serde_json::from_str::<Value>(line).expect("a JSON object");
        text.lines().map(parse).filter_map(|line| line["loss"].as_f64()).collect()
    };
    let (wgpu, flex) = (train("wgpu"), train("flex"));
    assert_eq!(wgpu.len(), 10);
    for (step, (wgpu, flex)) in wgpu.iter().zip(&flex).enumerate() {
        assert!((wgpu - flex).abs() < 1e-2 * flex, "step {}: {wgpu} is not {flex}", step + 1);
    }
    assert!(wgpu[9] < 0.9 * wgpu[0], "the loss does not fall: {wgpu:?}");
    assert_eq!(png_size(&workplace.read("wgpu/samples.png")), (56, 578));

    // what one device wrote another reads
    workplace.run(&["sample", "wgpu", "--device", "flex", "--count", "10", "--out", "flex-samples"]).succeeded();
    workplace.run(&["sample", "flex", "--device", "wgpu", "--count", "10", "--out", "wgpu-samples"]).succeeded();
    assert_eq!(png_size(&workplace.read("wgpu-samples/grid.png")), (56, 578));
}
