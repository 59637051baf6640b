//! The same command on a GPU, or on Mesa's lavapipe: `cargo test --workspace --features wgpu --test wgpu`.
#![cfg(feature = "wgpu")]

use end_to_end::{Workplace, png_size};
use serde_json::Value;

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
