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

    // the same picture, with guidance, which a GPU computes as one batch
    let draw = |device: &str| {
        let out = format!("guided-{device}");
        let options = ["--count", "10", "--guidance", "2", "--steps", "5", "--out", &out];
        workplace.run(&[&["sample", "wgpu", "--device", device][..], &options].concat()).succeeded();
        image::load_from_memory(&workplace.read(format!("{out}/grid.png"))).expect("a PNG").into_luma8().into_raw()
    };
    let (ours, reference) = (draw("wgpu"), draw("flex"));
    let difference = ours.iter().zip(&reference).map(|(one, two)| one.abs_diff(*two)).max();
    assert!(ours.len() == reference.len() && difference <= Some(1), "{difference:?}");

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

/// The host is a step ahead of the device: each step is reported once, in order, and a step that is waited for at once.
#[test]
fn the_host_is_one_step_ahead() {
    use train::{Config, Trainer};

    let mut config = Config::preset("digits").expect("a preset");
    let unet = config.unet.as_unet_mut().expect("lucidrains' network");
    (unet.dim, unet.dim_mults, unet.attention) = (8, vec![1], vec![AttentionKind::Off]);
    config.data.limit = Some(40);
    // its masks are prepared from the second step on
    config.unet.as_unet_mut().expect("lucidrains' network").dropout = 0.2;
    (config.training.batch_size, config.training.warmup_steps) = (4, 0);
    let trainer = |device: &str| {
        let images = data::open(&config.data.path, &config.load_options()).expect("the built-in digits").images;
        Trainer::new(config.clone(), images, &device::open(device).expect("the device")).expect("a possible run")
    };
    let mut ahead = trainer("wgpu");
    let mut reports = Vec::new();
    for (step, wait) in [(1, false), (2, false), (3, true), (4, false)] {
        let new = ahead.advance(wait).expect("a step");
        let (first, last) = (reports.len() as u64 + 1, if wait { step } else { step - 1 });
        assert_eq!(new.iter().map(|report| report.step).collect::<Vec<_>>(), (first..=last).collect::<Vec<_>>());
        reports.extend(new);
        assert_eq!(ahead.steps_done(), step);
    }
    reports.extend(ahead.wait().expect("a step"));
    assert_eq!(ahead.wait().expect("no step"), None);
    let mut flex = trainer("flex");
    for report in &reports {
        let expected = flex.step().expect("a step");
        assert_eq!((report.step, report.learning_rate), (expected.step, expected.learning_rate));
        assert!((report.loss - expected.loss).abs() < 1e-4 * expected.loss, "{report:?} is not {expected:?}");
        assert!((report.gradient_norm / expected.gradient_norm - 1.0).abs() < 1e-3, "{report:?} is not {expected:?}");
    }
    assert_eq!(reports.len(), 4);
}

#[test]
fn a_training_that_diverges_ends_as_on_the_cpu() {
    let workplace = Workplace::new();
    for device in ["wgpu", "flex"] {
        let arguments = ["--run", device, "--device", device, "--steps", "20", "--batch-size", "4"];
        let settings = ["training.learning_rate=1e25", "training.warmup_steps=0", "training.log_every=1"];
        let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        workplace.train_tiny(&[&arguments[..], &settings].concat()).refused(&["4 steps of the last hundred", "loss"]);
        let lines = workplace.text(format!("{device}/metrics.jsonl"));
        assert!(lines.contains("\"non_finite\""), "{lines}");
    }
}

#[test]
fn half_precision_learns_what_f32_does() {
    let device = device::open("wgpu").expect("a wgpu device; Mesa's lavapipe is one");
    if !device.supports_dtype(burn::tensor::DType::F16) {
        eprintln!("skipped: the device does not compute in f16");
        return;
    }
    let workplace = Workplace::new();
    let losses = |precision: &str| -> Vec<Value> {
        let precision_setting = format!("training.mixed_precision={precision}");
        let arguments = ["--steps", "10", "--batch-size", "8", "--run", precision, "--device", "wgpu"];
        let settings = ["--set", &precision_setting, "--set", "training.log_every=1"];
        workplace.train_tiny(&[&arguments[..], &settings].concat()).succeeded();
        let text = workplace.text(format!("{precision}/metrics.jsonl"));
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let (half, single) = (losses("f16"), losses("no"));
    assert_eq!((half.len(), single.len()), (10, 10));
    let loss = |line: &Value| line["loss"].as_f64().expect("a loss");
    assert!((loss(&half[0]) / loss(&single[0]) - 1.0).abs() < 1e-2, "{} is not {}", half[0], single[0]);
    assert!(half.iter().all(|line| line["loss_scale"].as_f64() > Some(1.0)) && single[0]["loss_scale"].is_null());
    // steps that overflow are not taken, and the scale falls
    let overflows = half.iter().filter(|line| line["gradient_norm"].is_null()).count();
    assert!(overflows <= 4 && half.iter().all(|line| line["non_finite"].is_null()), "{half:?}");
    assert_eq!(overflows > 0, half[9]["loss_scale"].as_f64() < Some(65_536.0), "{half:?}");
    assert!(loss(&half[9]) < 0.9 * loss(&half[0]), "the loss does not fall: {half:?}");
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
    let unet = config.unet.as_unet_mut().expect("lucidrains' network");
    (unet.dim, unet.dim_mults, unet.attention) = (16, vec![1, 2], vec![AttentionKind::Off; 2]);
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
