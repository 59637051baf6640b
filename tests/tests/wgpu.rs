//! The same command on a GPU, or on Mesa's lavapipe: `cargo test --workspace --features wgpu --test wgpu`.
#![cfg(feature = "wgpu")]

use burn::tensor::{Device, Tensor, TensorData};
use end_to_end::{Finished, Workplace, png_size};
use noise::{Noise, Purpose};
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
        let weights = Noise::new(7).stream(Purpose::Weights);
        let unet = config.init(&device).expect("a possible network").initialize(
            |parameter, out| weights.normal(parameter, 0, out),
            |parameter, out| weights.uniform(parameter, 0, out),
        );
        let x_t = Noise::new(1).stream(Purpose::InitialNoise).normal_images(&[0, 1], 0, [3, 16, 24], &device);
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
    let losses = |run: &str| -> Vec<f64> {
        let text = workplace.text(format!("{run}/metrics.jsonl"));
        let parse = |line| serde_json::from_str::<Value>(line).expect("a JSON object");
        text.lines().map(parse).filter_map(|line| line["loss"].as_f64()).collect()
    };
    let train = |device: &str| -> Vec<f64> {
        let arguments = ["--steps", "10", "--batch-size", "16", "--run", device, "--device", device];
        let settings = ["diffusion.objective=epsilon", "diffusion.loss_weight=uniform", "training.checkpoint_every=5"];
        let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let finished = workplace.train_tiny(&[&arguments[..], &settings[..]].concat()).succeeded();
        assert!(finished.error.contains(&format!("device      {device}\n")), "{finished}");
        losses(device)
    };
    let same = |one: &[f64], two: &[f64]| {
        assert_eq!((one.len(), two.len()), (10, 10));
        for (step, (one, two)) in one.iter().zip(two).enumerate() {
            assert!((one - two).abs() < 1e-4 * two, "step {}: {one} is not {two}", step + 1);
        }
    };
    let (wgpu, flex) = (train("wgpu"), train("flex"));
    same(&wgpu, &flex);
    assert!(wgpu[9] < 0.9 * wgpu[0], "the loss does not fall: {wgpu:?}");
    assert_eq!(png_size(&workplace.read("wgpu/samples.png")), (56, 578));

    // what one device wrote another reads
    workplace.run(&["sample", "wgpu", "--device", "flex", "--count", "10", "--out", "flex-samples"]).succeeded();
    workplace.run(&["sample", "flex", "--device", "wgpu", "--count", "10", "--out", "wgpu-samples"]).succeeded();
    assert_eq!(png_size(&workplace.read("wgpu-samples/grid.png")), (56, 578));

    // and goes on with: as if the run had been stopped after step 5 and its folder been carried to another machine
    for (from, to) in [("flex", "wgpu"), ("wgpu", "flex")] {
        let moved = format!("{from}-to-{to}");
        for file in ["config.toml", "metrics.jsonl", "checkpoints/step-0000005.safetensors"] {
            workplace.write(format!("{moved}/{file}"), workplace.read(format!("{from}/{file}")));
        }
        let resumed = workplace.run(&["train", "--resume", "--run", &moved, "--device", to]).succeeded();
        assert!(resumed.error.contains("going on after step 5\n"), "{resumed}");
        same(&losses(&moved), &flex);
    }
}

/// A training step of the network of the preset `cifar10` took 8,355 launches with burn's operations alone.
#[test]
fn a_step_of_the_cifar10_network_takes_few_launches() {
    let workplace = Workplace::new();
    let launches = |steps: u32| -> usize {
        let log = workplace.path(format!("log-{steps}"));
        let steps = steps.to_string();
        let arguments = ["train", "--preset", "cifar10", "--data", "mnist-5k", "--device", "wgpu", "--steps", &steps];
        let settings = [
            "data.channels=3",
            "data.image_size=32",
            "data.limit=4",
            "training.batch_size=1",
            "training.class_labels=false",
            "training.evaluate_every=0",
            "sampling.count=1",
            "sampling.steps=1",
        ];
        let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let run = ["--run", &steps];
        // CubeCL's own log: a line for each launch
        let arguments = [&arguments[..], &settings, &run].concat();
        let mut command = workplace.command(&arguments);
        command.env("CUBECL_DEBUG_OPTION", "profile").env("CUBECL_DEBUG_LOG", &log);
        Finished::new(&arguments, command.output().expect("the program starts")).succeeded();
        std::fs::read_to_string(&log).expect("a log").lines().filter(|line| line.starts_with("| ")).count()
    };
    // less than those of the start and the end
    let of_one_step = launches(3) - launches(2);
    assert!((400..=900).contains(&of_one_step), "{of_one_step} launches");
}

#[test]
fn a_batch_beyond_the_memory_of_the_device_is_refused_with_what_to_lower() {
    let workplace = Workplace::new();
    // 250 MB of an activation a channel, and some hundred activations
    let batch = ["--device", "wgpu", "--batch-size", "100000", "--set", "training.parallel_parts=1"];
    let refused = workplace.train_tiny(&[&["--run", "run"][..], &batch].concat());
    refused.refused(&["the memory of the device does not suffice (", "Lower training.batch_size"]);
}

#[test]
fn two_ranks_learn_as_one_does() {
    use std::sync::Arc;
    use train::{Config, Trainer};

    let mut config = Config::preset("digits").expect("a preset");
    (config.unet.dim, config.unet.dim_mults, config.unet.attention) = (16, vec![1, 2], vec![AttentionKind::Off; 2]);
    config.data.limit = Some(16);
    (config.training.batch_size, config.training.warmup_steps, config.training.parallel_parts) = (4, 0, 1);
    let trainer = || {
        let images = data::open(&config.data.path, &config.load_options()).expect("the built-in digits").images;
        let device = device::open("wgpu").expect("a wgpu device; Mesa's lavapipe is one");
        Trainer::new(config.clone(), images, &device).expect("a possible run")
    };
    let losses = |mut trainer: Trainer| (0..3).map(|_| trainer.step().expect("a step").loss).collect::<Vec<f64>>();
    let expected = losses(trainer());
    let rank = |group| losses(trainer().distributed(Arc::new(group)).expect("the same"));
    let rank = &rank;
    let curves: Vec<Vec<f64>> = std::thread::scope(|scope| {
        let running: Vec<_> = parallel::threads(2).into_iter().map(|group| scope.spawn(move || rank(group))).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(curves[0], curves[1]);
    for (step, (found, expected)) in curves[0].iter().zip(&expected).enumerate() {
        assert!((found - expected).abs() < 1e-3 * expected, "step {}: {found} is not {expected}", step + 1);
    }
}
